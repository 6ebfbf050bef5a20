"""The guard in its own process: whoever dies or falls silent, the instrument goes to its safe state."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from probegym import scenarios
from probegym.errors import ProbeGymError
from probegym.hardware_bridge import codec
from probegym.hardware_bridge.commands import SetAberrations
from probegym.hardware_bridge.guard import process as guard
from probegym.hardware_bridge.guard.ledger import Budget, Ledger
from probegym.hardware_bridge.guard.operator import Operator
from probegym.hardware_bridge.instruments import drivers
from probegym.hardware_bridge.instruments.nanonis import server as nanonis
from probegym.hardware_bridge.instruments.wire import SafetyLink
from probegym.hardware_bridge.records.read import Record
from probegym.hardware_bridge.world import Refused
from tests import guard_process_helpers
from tests.guard_process_helpers import FRAME, HERE, Desk, happens

desk, instrument = guard_process_helpers.desk, guard_process_helpers.instrument
CONTROLS = ("C10", "C12a", "C12b", "C21a", "C21b", "C23a", "C23b")


def test_a_session_works_and_its_end_makes_safe(desk):
    world = desk.armed()
    first = world.execute(FRAME, HERE)
    assert first.values["ronchigram"].shape == (1, 42, 42) and first.measurements == 1 and not desk.eyes.is_safe()
    world.execute(SetAberrations(CONTROLS, 1e-9 * np.ones((1, 7))), HERE)
    with pytest.raises(Refused, match="values must be from"):
        world.execute(SetAberrations(CONTROLS, np.ones((1, 7))), HERE)
    verb, arrays = desk.operator.latest()
    assert desk.operator.status()["session"] and verb["verb"] == "AcquireRonchigram" and np.array_equal(arrays["ronchigram"], first.values["ronchigram"])
    world.close()
    assert desk.safe() and desk.operator.status()["state"] == "disarmed"
    kinds = [event.kind for event in Record(desk.guard.record)]
    assert kinds.count("intent") == kinds.count("result") == 2 and "rejected" in kinds


def test_an_action_waits_for_the_operator(desk):
    world, answers = desk.armed(approvals=1), []

    def decide(agreed: bool) -> None:
        while (waiting := desk.operator.status()["waiting"]) is None:
            time.sleep(0.01)
        answers.append(waiting["command"]["verb"])
        desk.operator.decide(waiting["number"], agreed)

    move = SetAberrations(CONTROLS, 1e-9 * np.ones((1, 7)))
    for agreed in (False, True):
        world.action = 1
        thread = threading.Thread(target=decide, args=(agreed,))
        thread.start()
        if agreed:
            world.execute(move, HERE)
        else:
            with pytest.raises(Refused, match="did not agree"):
                world.execute(move, HERE)
        thread.join()
    world.action = 2
    world.execute(move, HERE)  # the first action alone is asked for
    assert answers == ["SetAberrations", "SetAberrations"]
    world.close()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "stopped"])
def test_when_the_guard_dies_or_stands_still_the_guardian_makes_safe(desk, number):
    world = desk.armed()
    world.execute(FRAME, HERE)
    os.kill(desk.guard.process.pid, number)
    assert desk.safe()
    if number == signal.SIGSTOP:
        os.kill(desk.guard.process.pid, signal.SIGKILL)
    world.close()


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT"])
def test_a_guard_that_is_told_to_end_leaves_by_the_safe_state(desk, name):
    world = desk.armed()
    os.kill(desk.guard.process.pid, getattr(signal, name))
    assert desk.guard.process.wait(10) == 0 and desk.eyes.is_safe()
    last = list(Record(desk.guard.record))[-1]
    assert last.kind == "closed", "the record has its end"
    world.close()


CHILDREN = "/proc/{0}/task/{0}/children"


@pytest.mark.skipif(not os.path.exists(CHILDREN.format(os.getpid())), reason="this system does not tell a process's children")
def test_a_guardian_is_ended_by_its_guard_alone(desk):
    world = desk.armed()
    with open(CHILDREN.format(desk.guard.process.pid)) as stream:
        (guardian,) = map(int, stream.read().split())
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGTSTP"):
        os.kill(guardian, getattr(signal, name))
    world.execute(FRAME, HERE)
    assert desk.operator.status()["state"] == "running"
    os.kill(guardian, signal.SIGKILL)
    assert desk.guard.process.wait(10) == 0 and desk.eyes.is_safe()
    world.close()


def test_a_session_that_falls_silent_or_reports_a_fault_makes_safe(desk):
    world = desk.armed()
    world.closed.set()  # no pulse any more, as when the process stands still
    assert desk.safe() and "silent" in desk.operator.status()["why"]
    world.close()
    desk.operator.reset()
    world = desk.armed()
    world.execute(FRAME, HERE)
    world.fault("the policy gave no action")
    assert desk.safe() and desk.operator.status()["state"] == "fault"
    with pytest.raises(Refused, match="fault"):
        world.execute(FRAME, HERE)
    world.close()


def test_an_operator_aborts_and_an_absent_one_ends_it(desk):
    world = desk.armed()
    world.execute(FRAME, HERE)
    desk.operator.abort("a test")
    assert desk.eyes.is_safe() and desk.operator.status()["state"] == "fault"
    world.close()
    desk.guard.operator.close()
    assert desk.guard.process.wait(10) == 0 and desk.safe()


def test_a_second_guard_is_told_who_holds_the_instrument(desk):
    with pytest.raises(ProbeGymError, match="a test holds the instrument"):
        desk.another()


def test_without_a_guardian_nothing_starts_and_why_is_told(tmp_path):
    world = scenarios.load("adatom_manipulation", "id").world
    with nanonis.start("probegym.hardware_bridge.twins.adatoms:AdatomTwin", world, ports=(0, 0, 0, 0)) as running, socket.create_connection(("127.0.0.1", running.ports[2])):
        with pytest.raises(ProbeGymError, match=f"nobody would watch over the instrument: .*{running.ports[2]}"):
            guard.start(drivers.only(running.reached, "writer", "safety"), str(tmp_path / "sample"), str(tmp_path / "runs"), "a test", {}, {"dose": 1.0, "changes": 1})


def test_a_damaged_account_means_that_the_budget_is_spent(instrument, tmp_path):
    (tmp_path / "sample").write_bytes(b"00000000 {}\n")
    with pytest.raises(ProbeGymError, match="counts as spent"):
        guard.start(instrument.reached, str(tmp_path / "sample"), str(tmp_path / "runs"), "a test", {})


STARTER = """
import signal, sys, threading, time
for name in ("SIGHUP", "SIGQUIT", "SIGTSTP", "SIGINT"):  # which jobs in the background ignore
    signal.signal(getattr(signal, name), signal.SIG_DFL)
from probegym.hardware_bridge import codec
from probegym.hardware_bridge.deployment.world import GuardedWorld
from probegym.hardware_bridge.guard import process
from probegym.hardware_bridge.guard.operator import Operator
told = codec.loads(sys.stdin.buffer.readline())
guard = process.start(told["instrument"], told["sample"], told["runs"], "a test", {})
operator = Operator(guard.operator)
operator.arm(operator.ask({"environment": "e", "scenario": "s", "policy": "p", "seconds": 1e4, "changes": 9})["nonce"])
world = GuardedWorld(guard.reached)
sys.stdout.write(codec.dumps({"guard": guard.process.pid, "operator": guard.reached["operator"]}) + "\\n")
sys.stdout.flush()
time.sleep(60)
"""


@pytest.mark.parametrize("name", ["SIGHUP", "SIGQUIT", "SIGTSTP", "SIGINT"])
def test_what_a_terminal_does_to_its_processes_does_not_reach_the_guard(instrument, tmp_path, name):
    """Ctrl-C, Ctrl-Z, a quit and a hang-up go to the whole group of the one who started guard and guardian."""
    Ledger.create(tmp_path / "sample", Budget(dose=1e18, changes=9, instrument="STEM twin")).close()
    told = {"instrument": instrument.reached, "sample": str(tmp_path / "sample"), "runs": str(tmp_path / "runs")}
    eyes = SafetyLink(instrument.reached, "eyes")
    starter = subprocess.Popen([sys.executable, "-c", STARTER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=tmp_path, process_group=0)
    try:
        assert starter.stdin and starter.stdout
        starter.stdin.write(codec.dumps(told).encode() + b"\n")
        starter.stdin.flush()
        known = codec.loads(starter.stdout.readline())
        assert not eyes.is_safe() and os.getsid(known["guard"]) == known["guard"] != os.getsid(starter.pid)
        another = Operator.connect(known["operator"])
        os.killpg(starter.pid, getattr(signal, name))
        assert happens(eyes.is_safe, Desk.WITHIN)
        assert happens(lambda: another.status()["state"] in ("disarmed", "fault")), "the guard goes on serving"
        another.abort("it can still be told to")
        another.quit()
    finally:
        starter.kill()
        starter.wait()
        eyes.close()
