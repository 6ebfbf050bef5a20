"""The guard in its own process: whoever dies or falls silent, the instrument goes to its safe state."""

from __future__ import annotations

import os
import signal
import time

import numpy as np
import pytest

from probegym import scenarios
from probegym.errors import ProbeGymError
from probegym.hardware_bridge.commands import AcquireRonchigram, SetAberrations
from probegym.hardware_bridge.deployment.world import GuardedWorld
from probegym.hardware_bridge.guard import process as guard
from probegym.hardware_bridge.guard.ledger import Budget, Ledger
from probegym.hardware_bridge.guard.operator import Operator
from probegym.hardware_bridge.instruments import twin as twins
from probegym.hardware_bridge.instruments.wire import SafetyLink
from probegym.hardware_bridge.records.read import Record
from probegym.hardware_bridge.world import Refused

TWIN = "probegym.hardware_bridge.twins.stem:StemTwin"
CONTROLS = ("C10", "C12a", "C12b", "C21a", "C21b", "C23a", "C23b")
FRAME = AcquireRonchigram((42, 42), 0.05, np.array([30e-9]), np.zeros((1, 2)))
HERE = np.ones(1, bool)
WITHIN = 3.0  # s, for a loaded machine; benchmarks/bridge.py measures how long it takes


@pytest.fixture(scope="module")
def instrument():
    with twins.start(TWIN, scenarios.load("stem_tuning", "id").world, key=3) as running:
        yield running


class Desk:
    """A guard, its operator, and how to see whether the instrument is safe."""

    def __init__(self, instrument, folder):
        self.instrument, self.folder = instrument, folder
        Ledger.create(folder / "sample", Budget(dose=1e18, changes=9, instrument="STEM twin")).close()
        self.guard = self.another()
        self.operator = Operator(self.guard.operator)
        self.eyes = SafetyLink(instrument.reached, "eyes")

    def another(self):
        return guard.start(self.instrument.reached, str(self.folder / "sample"), str(self.folder / "runs"), "a test", {})

    def armed(self, approvals=0) -> GuardedWorld:
        told = self.operator.ask({"environment": "e", "scenario": "s", "policy": "p", "seconds": 1e4, "changes": 9, "approvals": approvals})
        self.operator.arm(told["nonce"])
        return GuardedWorld(self.guard.reached)

    def safe(self) -> bool:
        end = time.monotonic() + WITHIN
        while time.monotonic() < end:
            if self.eyes.is_safe():
                return True
            time.sleep(0.005)
        return False

    def close(self):
        self.guard.operator.close()
        self.eyes.close()
        self.guard.process.wait(10)


@pytest.fixture
def desk(instrument, tmp_path):
    made = Desk(instrument, tmp_path)
    yield made
    made.close()


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
    import threading

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


def test_a_damaged_account_means_that_the_budget_is_spent(instrument, tmp_path):
    (tmp_path / "sample").write_bytes(b"00000000 {}\n")
    with pytest.raises(ProbeGymError, match="counts as spent"):
        guard.start(instrument.reached, str(tmp_path / "sample"), str(tmp_path / "runs"), "a test", {})
