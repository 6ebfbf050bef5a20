"""Who is connected to a guard: sessions, operators and strangers, each with the guard itself in a thread, around an instrument that is not there."""

from __future__ import annotations

import contextlib
import socket
import time
from types import SimpleNamespace

import numpy as np
import pytest

from probegym.errors import ProbeGymError
from probegym.hardware_bridge import codec
from probegym.hardware_bridge.channel import STRANGERS, Disconnected, Listener, connect
from probegym.hardware_bridge.deployment import Mode, session
from probegym.hardware_bridge.deployment import world as worlds
from probegym.hardware_bridge.deployment.policy import PolicyFault
from probegym.hardware_bridge.deployment.run import Deployment
from probegym.hardware_bridge.deployment.world import GuardedWorld
from probegym.hardware_bridge.guard import process
from probegym.hardware_bridge.guard.operator import Operator
from probegym.hardware_bridge.records.log import Recorder, RecordError
from probegym.hardware_bridge.world import Refused
from tests import guard_process_helpers
from tests.guard_helpers import image, park
from tests.guard_process_helpers import HERE, PATIENT, SECRETS, happens, pair

scene = guard_process_helpers.scene

# ---- sessions ----


@pytest.mark.parametrize("what", ["arm", "abort", "decide", "reset", "resume", "present", "quit", "status", "ask", [], None])
def test_a_session_may_not_ask_what_operators_may(scene, what):
    world = scene.armed()
    with pytest.raises(Refused, match="a session may not ask for"):
        world._ask({"do": what}, PATIENT)
    assert scene.state == "running"


def test_one_session_at_a_time(scene):
    world = scene.armed()
    with pytest.raises(Refused, match="another session is connected: one at a time"):
        GuardedWorld(scene.reached)
    world.execute(park(), HERE)
    assert scene.state == "running"


def test_a_session_writes_down_what_is_its_to_write_and_nothing_else(scene):
    world = scene.armed()
    world.note("begin", {"environment": "e"})
    forged = [("intent", {}), ("result", {"intent": 3}), ("state", {"state": "running"}), ("closed", {}), ("stranger", {}), ("begin", ["x"]), ("begin", {"x": "y" * process.LARGEST_NOTE}), (["x"], {})]
    for kind, payload in forged:
        world.note(kind, payload)
    world.execute(park(), HERE)
    assert scene.events("begin") == [{"environment": "e"}] and scene.guard.status()["notes"] == {"begin": {"environment": "e"}}
    rejected = scene.events("rejected")
    assert len(rejected) == len(forged) and all("a session may write down begin, observation" in one["why"] for one in rejected)
    assert len(scene.events("intent")) == 1 and not scene.events("closed") and scene.state == "running"


def test_a_note_that_cannot_be_written_is_a_fault(scene, monkeypatch):
    world, append = scene.armed(), Recorder.append

    def full(recorder, kind, payload, arrays=None):
        if kind == "observation":
            raise RecordError("the disk is full")
        return append(recorder, kind, payload, arrays)

    monkeypatch.setattr(Recorder, "append", full)
    world.note("observation", {})
    assert scene.in_fault("the record cannot be written: the disk is full")


def test_a_session_that_is_stuck_has_no_pulse(scene, monkeypatch):
    """Its thread goes on beating whatever the session does, so the session's own words count; a question that an operator thinks about is none."""
    monkeypatch.setattr(worlds, "STUCK_SECONDS", 0.3)
    monkeypatch.setattr(process, "SILENCE_SECONDS", 1.0)
    world = scene.armed(approvals=1)
    time.sleep(2.0)
    assert scene.state == "running", "before its first episode a session waits"
    world.begin(np.zeros(1, np.uint64), HERE)
    answers = scene.asked(world, park())
    assert happens(lambda: scene.gate.waiting)
    time.sleep(2.0)
    assert scene.state == "running" and not answers
    scene.operator.decide(scene.gate.waiting.number, True)
    assert happens(lambda: answers) and scene.in_fault("the session has been silent")


def test_a_policy_that_fails_is_told_to_the_guard(scene):
    played = session.Session.__new__(session.Session)
    played.plan, played.world, played.policy = SimpleNamespace(episodes=2, seed=0), scene.armed(), None

    def fails(policy: object, seed: int) -> None:
        raise PolicyFault("no action within 0.25 s")

    played._episode = fails
    with pytest.raises(PolicyFault):
        played.run()
    assert scene.in_fault("the session reports: no action within 0.25 s")


@pytest.mark.parametrize("mode", [Mode.twin, Mode.shadow, Mode.supervised, Mode.autonomous])
def test_a_session_is_not_handed_what_an_operator_shows(mode, tmp_path):
    """With it, a session could agree to its own commands."""
    run = Deployment.__new__(Deployment)
    run.orders = SimpleNamespace(record=None, mode=mode, runs=tmp_path)
    run.instrument = SimpleNamespace(reached={"driver": "served", "port": 1, "secrets": {role: f"the {role}'s" for role in SECRETS}})
    run.guard = SimpleNamespace(reached={role: {"port": 2, "secret": f"the {role}'s"} for role in ("session", "pulse", "operator")})
    told = codec.dumps([run._world(), run._entrance()])
    assert "the operator's" not in told and "the writer's" not in told and "the safety's" not in told and "the session's" in told


# ---- operators and strangers ----


@pytest.mark.parametrize("what", [[], {}, None, 1, "admit", "__init__"])
def test_an_operator_may_ask_for_what_there_is(scene, what):
    scene.armed()
    with pytest.raises(Refused, match="an operator may not ask for"):
        scene.operator._ask(what)
    assert scene.operator.status()["state"] == "running" and not scene.failed


@pytest.mark.parametrize("number", [[], None, "1", 1.0, True])
def test_an_agreement_names_a_request(scene, number):
    world = scene.armed(approvals=1)
    answers = scene.asked(world, park())
    assert happens(lambda: scene.gate.waiting)
    with pytest.raises(Refused, match="say which request is meant, by its number"):
        scene.operator.decide(number, True)
    assert not answers and not scene.instrument.written


def quick(do) -> float:
    """How long something takes, s."""
    begun = time.monotonic()
    do()
    return time.monotonic() - begun


def test_half_a_message_holds_nobody_up(scene):
    world = scene.armed()
    message = codec.pack({"do": "command", "id": 1}, {"x": np.zeros(1000)})
    world.channel.socket.sendall(message[: len(message) // 2])
    assert happens(lambda: any(client.channel.partial for client in scene.guard.clients))
    assert quick(lambda: scene.operator.abort("Esc")) < 1.0 < process.WHOLE_SECONDS and scene.state == "fault" and scene.instrument.is_blanked


@pytest.mark.parametrize("bytewise", [True, False])
def test_half_a_message_is_not_waited_for_for_ever(scene, monkeypatch, bytewise):
    monkeypatch.setattr(process, "WHOLE_SECONDS", 0.5)
    world = scene.armed()
    message, end = codec.pack({"do": "describe", "id": 1}, {"x": np.zeros(1000)}), time.monotonic() + PATIENT
    world.channel.socket.sendall(message[:20])
    for at in range(20, len(message)):
        if not bytewise or scene.state != "running" or time.monotonic() > end:
            break
        with contextlib.suppress(OSError):  # the guard has closed the connection
            world.channel.socket.sendall(message[at : at + 1])
        time.sleep(0.02)
    assert time.monotonic() < end, "it was heard out, byte by byte"
    assert happens(lambda: scene.state == "disarmed" and scene.gate.why == "the session has gone" and scene.instrument.is_blanked)


def test_a_message_that_comes_in_parts_is_answered(scene):
    world = scene.armed()
    message = codec.pack({"do": "describe", "id": 7}, {})
    for part in (message[:5], message[5:30], message[30:]):
        world.channel.socket.sendall(part)
        time.sleep(0.1)
    assert world.channel.receive(PATIENT)[0]["descriptor"]["name"] == "fake" and scene.state == "running"


def visits(ports: list[int], each: int) -> list[socket.socket]:
    """Connections that say nothing."""
    return [socket.create_connection(("127.0.0.1", port)) for port in ports for _ in range(each)]


def test_strangers_who_say_nothing_hold_nobody_up(scene, monkeypatch):
    monkeypatch.setattr(process, "SILENCE_SECONDS", 2.0)  # commands that take longer would end the run
    monkeypatch.setattr("probegym.hardware_bridge.channel.ADMISSION_SECONDS", 30.0)
    world = scene.armed()
    there = visits([one["port"] for one in scene.reached.values()], 10)
    assert quick(lambda: [world.execute(image(), HERE) for _ in range(20)]) < 5.0
    another = []
    assert quick(lambda: another.append(Operator.connect(scene.reached["operator"]))) < 2.0, "and others still come in"
    assert scene.state == "running"
    assert quick(lambda: another[0].abort("Esc")) < 1.0 and scene.instrument.is_blanked
    for one in there:
        one.close()


def test_strangers_are_written_down(scene, monkeypatch):
    monkeypatch.setattr(process, "NOTICE_SECONDS", 0.2)
    world = scene.armed()
    for one in visits([scene.reached["operator"]["port"], scene.reached["session"]["port"]], 2):
        one.sendall(codec.pack({"secret": "guessed"}, {}))
    assert happens(lambda: scene.events("stranger")[-1:] == [{"turned_away": 4}])
    before = len(scene.events("stranger"))
    time.sleep(0.5)
    for _ in range(3):  # rounds of the guard's loop
        scene.operator.status()
    assert len(scene.events("stranger")) == before, "what was written down is not written down again"
    world.execute(park(), HERE)
    assert scene.state == "running"


def test_strangers_are_written_down_at_times(scene, monkeypatch):
    """Who knocks without an end must not fill the record."""
    monkeypatch.setattr(process, "NOTICE_SECONDS", 1e9)
    for one in visits([scene.reached["operator"]["port"]], 3):
        one.sendall(codec.pack({"secret": "guessed"}, {}))
    assert happens(lambda: scene.guard.listeners["operator"].turned_away == 3)
    assert [scene.operator.status()["state"] for _ in range(3)] == 3 * ["disarmed"]  # rounds of the guard's loop, in which it would have been written down
    assert not scene.events("stranger")


def test_only_so_many_strangers_are_looked_at(monkeypatch):
    monkeypatch.setattr("probegym.hardware_bridge.channel.ADMISSION_SECONDS", 30.0)
    listener = Listener()
    there = visits([listener.port], STRANGERS + 4)
    assert happens(lambda: listener.turned_away == 4), "those who have been silent for longest"
    connect(**listener.reached()).send({"hello": True})
    assert listener.accept(PATIENT).receive(PATIENT)[0] == {"hello": True}
    for one in there:
        one.close()
    listener.close()


def test_an_answer_to_another_question_is_nobodys():
    """Of a question that was broken off: neither operator nor session takes it for theirs."""
    here, there = pair()
    there.send({"id": 4, "state": "running"})
    operator = Operator(here)
    with pytest.raises(Disconnected, match="answered another question"):
        operator.status()
    world = GuardedWorld.__new__(GuardedWorld)
    (world.channel, there), world.questions = pair(), 7
    there.send({"id": 4, "descriptor": {}})
    with pytest.raises(ProbeGymError, match="answered another question"):
        world._ask({"do": "describe"}, PATIENT)
    assert here.socket is None and world.channel.socket is None
