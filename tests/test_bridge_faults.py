"""Every fault of an instrument and its wire, against the gate: safe state, latched, and nothing wrong is taken for a reading."""

from __future__ import annotations

import dataclasses
import threading
import time

import numpy as np
import pytest

from probegym import scenarios
from probegym.errors import ProbeGymError
from probegym.hardware_bridge import codec
from probegym.hardware_bridge.commands import AcquireRonchigram, BlankBeam, SetAberrations
from probegym.hardware_bridge.guard import gate as gates
from probegym.hardware_bridge.guard.gate import Gate, State
from probegym.hardware_bridge.guard.ledger import Budget, Ledger
from probegym.hardware_bridge.instruments import InstrumentFault, drivers, faults, host, wire
from probegym.hardware_bridge.instruments.faults import Faults
from probegym.hardware_bridge.instruments.host import Host, Server
from probegym.hardware_bridge.instruments.twin import TwinInstrument, build
from probegym.hardware_bridge.records.log import Recorder
from probegym.hardware_bridge.records.read import Record
from probegym.hardware_bridge.world import Refused
from tests.guard_helpers import FakeInstrument, park
from tests.guard_process_helpers import PATIENT, happens

TWIN = "probegym.hardware_bridge.twins.stem:StemTwin"
CONTROLS = ("C10", "C12a", "C12b", "C21a", "C21b", "C23a", "C23b")
FRAME = AcquireRonchigram((42, 42), 0.05, np.array([30e-9]), np.zeros((1, 2)))


def setting(size: float) -> SetAberrations:
    return SetAberrations(CONTROLS, size * 1e-9 * np.ones((1, 7)))


class Bench:
    """An instrument with a plan of faults, and an armed gate in front of it."""

    def __init__(self, folder, plan, pace=0.0):
        world = build(TWIN, scenarios.load("stem_tuning", "id").world, 3)
        self.twin = TwinInstrument(world, pace)
        self.host = Host(self.twin, faults=Faults(plan))
        self.server, self.on = Server(self.host), True
        threading.Thread(target=self.server.run, args=(lambda: self.on,), daemon=True).start()
        self.reached = {"port": self.server.listener.port, "secrets": self.server.listener.secrets}
        self.instrument = wire.RemoteInstrument(self.reached, "test")
        self.recorder = Recorder(folder / "runs", {})
        self.gate = Gate(self.instrument, Ledger.create(folder / "sample", Budget(dose=1e18, changes=9, instrument="STEM twin")), self.recorder, time.monotonic)
        told = self.gate.ask({"environment": "e", "scenario": "s", "policy": "p", "seconds": 1e4, "changes": 9})
        self.gate.arm(told["nonce"])
        self.number = 0

    def do(self, command):
        """One command on its whole way; raises what a session would be told."""
        self.number += 1
        admission = self.gate.admit(self.number, time.monotonic(), 1, codec.command_to_json(command))
        try:
            outcome = self.instrument.execute(command, 1.0)
        except ProbeGymError as error:
            outcome = error
        return self.gate.complete(admission, outcome)

    def close(self):
        self.on = False
        self.instrument.close()
        self.recorder.close()


@pytest.fixture
def bench(tmp_path, monkeypatch):
    monkeypatch.setattr(faults, "LATE_SECONDS", 1.5)
    made = []

    def make(plan, pace=0.0):
        made.append(Bench(tmp_path, plan, pace))
        return made[-1]

    yield make
    for one in made:
        one.close()


def safely_latched(bench: Bench, unknown: int = 0) -> None:
    """unknown: how many commands the record says that nobody knows what they did."""
    assert bench.gate.state is State.fault and bench.twin.is_safe()
    with pytest.raises(Refused, match="fault"):
        bench.do(FRAME)
    report = Record(bench.recorder.folder).verify()
    assert not report.errors and len(report.unknown) == unknown


@pytest.mark.parametrize("kind", [kind for kind in faults.WIRE if kind != "trickle"])
def test_a_fault_of_the_wire_ends_in_the_safe_state(bench, kind):
    rig = bench([{"kind": kind, "at": 1}])
    rig.do(setting(1.0))
    try:
        rig.do(FRAME)
        rig.do(FRAME)  # an answer that came twice shows with the next question
        pytest.fail("the fault was not noticed")
    except Refused:
        safely_latched(rig, unknown=kind != "double")  # which shows in the read-back before the next command is sent


def test_an_answer_that_comes_byte_by_byte_is_an_answer(bench):
    rig = bench([{"kind": "trickle", "at": 0}])
    assert rig.do(FRAME).values["ronchigram"].shape == (1, 42, 42) and rig.gate.state is State.running


@pytest.mark.parametrize("kind", ["nan", "infinite", "huge", "text", "shape", "frozen"])
def test_what_is_no_measurement_never_becomes_a_reading(bench, kind):
    rig = bench([{"kind": kind, "at": 1}])
    rig.do(FRAME)
    with pytest.raises(Refused, match="ronchigram"):
        rig.do(FRAME)
    safely_latched(rig)


@pytest.mark.parametrize("kind", list(faults.ACTUATOR))
def test_a_control_that_does_not_land_where_it_was_set_is_noticed(bench, kind):
    rig = bench([{"kind": kind, "at": 1}])
    rig.do(setting(2.0))
    with pytest.raises(Refused, match="SetAberrations"):
        rig.do(setting(5.0))
    safely_latched(rig)


def test_controls_that_were_read_back_long_ago_stop_the_next_move(bench):
    rig = bench([{"kind": "stale", "at": 2}])
    rig.do(setting(2.0))
    with pytest.raises(Refused, match="read back"):
        rig.do(setting(3.0))
    assert np.allclose(rig.twin.measured()["aberrations"].values, 2e-9)


@pytest.mark.parametrize("kind", list(faults.SAFE))
def test_a_safe_state_that_fails_once_is_tried_again(bench, kind):
    rig = bench([{"kind": kind, "at": 1}])
    rig.gate.abort("test")
    for _ in range(20):
        if rig.twin.is_safe() and rig.gate.safe:
            break
        time.sleep(0.1)
        rig.gate.tick()
    assert rig.gate.state is State.fault and rig.twin.is_safe()


def test_an_instrument_that_cannot_go_safe_is_told_again_and_again_and_never_armed(bench):
    rig = bench([{"kind": "safe fails", "at": at} for at in range(1, 200)])
    rig.gate.abort("test")
    assert rig.gate.state is State.fault and not rig.gate.safe
    with pytest.raises(Refused):
        rig.gate.reset()
    assert rig.gate.state is State.fault


def test_an_abort_interrupts_a_command_that_is_under_way(bench):
    rig = bench([], pace=0.02)  # a frame of 0.1 s takes 5 s
    rig.number += 1
    admission = rig.gate.admit(rig.number, time.monotonic(), 1, codec.command_to_json(FRAME))
    outcome = []

    def work():
        with pytest.raises(ProbeGymError) as caught:
            rig.instrument.execute(FRAME, 10.0)
        outcome.append(caught.value)

    thread = threading.Thread(target=work)
    thread.start()
    time.sleep(0.3)
    begun = time.monotonic()
    rig.gate.abort("test")
    assert rig.twin.is_safe() and time.monotonic() - begun < 0.5
    thread.join(2.0)
    with pytest.raises(Refused):
        rig.gate.complete(admission, outcome[0])
    assert rig.gate.state is State.fault


def test_one_guard_at_a_time_and_nobody_reaches_beyond_his_role(bench):
    rig = bench([])
    with pytest.raises(Refused, match="test holds the instrument"):
        wire.RemoteInstrument(rig.reached, "another")
    watcher = wire.Link(rig.reached, "observer", "a shadow")
    for forbidden in ("execute", "ready", "safe", "begin", "truth"):
        with pytest.raises(Refused, match="may not"):
            watcher.ask(forbidden, command=codec.command_to_json(FRAME))
    with pytest.raises(Refused, match="no connection as"):
        wire.Link(rig.reached, "judge", "me")
    with pytest.raises(ProbeGymError):
        wire.Link(rig.reached | {"secrets": {"safety": "0" * 32}}, "safety", "a stranger")
    with pytest.raises(ProbeGymError, match="no port and secret of a writer"):
        wire.RemoteInstrument(drivers.only(rig.reached, "observer", "safety"), "a shadow")


def test_a_secret_opens_one_role_alone(bench):
    rig = bench([])
    secrets = rig.reached["secrets"]
    assert len(set(secrets.values())) == len(secrets) == 4
    shadow = wire.Link({"port": rig.reached["port"], "secrets": {"safety": secrets["observer"]}}, "safety", "a shadow that would like to")
    with pytest.raises(Refused, match="a connection as observer may not ask for 'safe'"):
        shadow.ask("safe")


@pytest.mark.parametrize(("kind", "told"), [("late", "no answer within"), ("other", "answered another question"), ("double", "answered another question")])
def test_an_answer_to_another_question_closes_the_connection(bench, kind, told):
    rig = bench([{"kind": kind, "what": "is_safe", "at": 2}])
    eyes = wire.Link(rig.reached, "safety", "eyes")
    while rig.host.faults.counts["is_safe"] < 1:  # the gate has looked before
        eyes.ask("is_safe")
    with pytest.raises(InstrumentFault, match=told):
        eyes.ask("is_safe")
        eyes.ask("is_safe")  # an answer that came twice shows with the next question
    assert eyes.channel.socket is None
    time.sleep(1.2)
    with pytest.raises(InstrumentFault, match="the connection is closed"):  # an answer that comes by now is nobody's
        eyes.ask("is_safe")
    eyes.again()
    assert eyes.ask("is_safe")[0]["safe"] is False


def test_the_way_to_the_safe_state_is_tried_over_a_fresh_connection(bench):
    rig = bench([{"kind": "drop before", "what": "safe", "at": 1}])
    assert not rig.instrument.is_safe() and rig.host.faults.counts["safe"] == 0
    rig.instrument.safe(0.5)
    assert rig.instrument.is_safe() and rig.host.faults.counts["safe"] == 2


@pytest.mark.parametrize("ages", [None, {}, {"stage": 0.0}, {"stage": 0.0, "shift": 0.0, "tilt": 0.0}, {"stage": 0.0, "shift": "new"}, {"stage": 0.0, "shift": None}])
def test_what_is_read_back_tells_its_age(bench, monkeypatch, ages):
    rig = bench([])
    answer = {"ages": ages}, {"stage": np.zeros(3), "shift": np.zeros(2)}
    monkeypatch.setattr(rig.instrument.writer, "ask", lambda *_: answer)
    with pytest.raises(InstrumentFault, match="the instrument read back"):
        rig.instrument.measured()


class Served:
    """A host around an instrument that is not there, out of its safe state; ``slow`` makes a call of it wait for ``going``."""

    def __init__(self) -> None:
        self.instrument, self.reached, self.going = FakeInstrument(), threading.Event(), threading.Event()
        self.instrument.is_blanked = False
        self.host = Host(self.instrument)

    def slow(self, where: str) -> None:
        def wait() -> None:
            self.reached.set()
            assert self.going.wait(PATIENT)

        self.instrument.planned[where] = wait

    def ask(self, what: str, **more: object) -> list:
        """Beside the test; the answer is in the list when it has come."""
        answers: list = []
        threading.Thread(target=lambda: answers.append(self.host.answer("writer", {"do": what, "seconds": 1.0, **more})[0]), daemon=True).start()
        return answers


@pytest.mark.parametrize("what", ["ready", "execute"])
def test_what_waited_while_the_instrument_went_safe_is_not_done(what):
    served = Served()
    served.slow("execute")
    first = served.ask("execute", command=codec.command_to_json(park()))
    assert served.reached.wait(PATIENT)
    second = served.ask(what, command=codec.command_to_json(BlankBeam(False)))
    time.sleep(0.2)
    assert not first and not second
    served.host.answer("safety", {"do": "safe", "seconds": 1.0})
    served.going.set()
    assert happens(lambda: first and second)
    assert "sent to its safe state meanwhile: nothing was done" in second[0]["refused"]
    assert served.instrument.is_blanked and not served.instrument.written


@pytest.mark.parametrize("what", ["ready", "execute"])
def test_an_instrument_on_its_way_out_of_the_safe_state_is_sent_back(what):
    served = Served()
    served.slow(what)
    answers = served.ask(what, command=codec.command_to_json(BlankBeam(False)))
    assert served.reached.wait(PATIENT)
    safe: list = []
    threading.Thread(target=lambda: safe.append(served.host.answer("safety", {"do": "safe", "seconds": PATIENT})[0]), daemon=True).start()
    assert happens(lambda: served.instrument.safes)
    if what == "ready":
        assert not safe, "it is not confirmed before whoever leaves the safe state has ended"
    served.instrument.is_blanked = False  # what was under way has undone it
    served.going.set()
    assert happens(lambda: answers and safe) and served.instrument.is_blanked and len(served.instrument.safes) >= 2 and "fault" not in safe[0]
    late = served.host.answer("writer", {"do": "ready", "seconds": 1.0})[0]
    assert "refused" not in late, "what is asked for afterwards is done"


def test_a_host_has_limits_of_its_own_and_lives_through_mistakes_of_a_driver():
    served = Served()
    question = {"do": "execute", "seconds": 1.0, "command": codec.command_to_json(park(1.0))}
    assert "PlaceProbe.position must be" in served.host.answer("writer", question)[0]["refused"] and not served.instrument.written
    lanes = dataclasses.replace(park(), position=np.zeros((2, 2)), dwell_time=np.zeros(2))
    assert "of one lane" in served.host.answer("writer", question | {"command": codec.command_to_json(lanes)})[0]["refused"] and not served.instrument.written
    served.instrument.bug = True
    assert "the driver failed (KeyError" in served.host.answer("writer", {"do": "measured"})[0]["fault"]


def test_an_instrument_outlives_those_who_started_it(bench):
    rig = bench([])
    rig.on = False  # the one who started it has gone
    time.sleep(3 * host.POLL_SECONDS)
    wire.SafetyLink(rig.reached, "a guardian with a fresh connection").safe(0.5)
    assert rig.twin.is_safe()


def test_an_instrument_is_not_kept_up_for_ever(bench, monkeypatch):
    monkeypatch.setattr(host, "LEAVING_SECONDS", 0.1)
    rig, ended = bench([]), threading.Event()
    server = Server(rig.host)
    server.keeping = 1  # and nothing more is heard of him
    threading.Thread(target=lambda: (server.run(lambda: False), ended.set()), daemon=True).start()
    assert ended.wait(PATIENT)


@pytest.mark.parametrize("seconds", [None, 0, -1.0, float("inf"), float("nan"), "1", True])
def test_a_question_says_how_long_its_answer_is_waited_for(seconds):
    served = Served()
    for role, what in (("safety", "safe"), ("writer", "ready"), ("writer", "execute")):
        answer, _ = served.host.answer(role, {"do": what, "seconds": seconds, "command": codec.command_to_json(BlankBeam(False))})
        assert "for how many seconds" in answer["refused"]
    assert not served.instrument.written


def test_a_plan_with_an_unknown_fault_is_refused():
    with pytest.raises(ProbeGymError, match="no such fault"):
        Faults([{"kind": "earthquake"}])


def test_deadlines_of_the_gate_are_longer_than_what_an_instrument_needs():
    assert gates.SLACK_SECONDS >= wire.ANSWER_SECONDS
