"""Every fault of an instrument and its wire, against the gate: safe state, latched, and nothing wrong is taken for a reading."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from probegym import scenarios
from probegym.errors import ProbeGymError
from probegym.hardware_bridge import codec
from probegym.hardware_bridge.commands import AcquireRonchigram, SetAberrations
from probegym.hardware_bridge.guard import gate as gates
from probegym.hardware_bridge.guard.gate import Gate, State
from probegym.hardware_bridge.guard.ledger import Budget, Ledger
from probegym.hardware_bridge.instruments import drivers, faults, wire
from probegym.hardware_bridge.instruments.faults import Faults
from probegym.hardware_bridge.instruments.host import Host, Server
from probegym.hardware_bridge.instruments.twin import TwinInstrument, build
from probegym.hardware_bridge.records.log import Recorder
from probegym.hardware_bridge.records.read import Record
from probegym.hardware_bridge.world import Refused

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


def test_a_plan_with_an_unknown_fault_is_refused():
    with pytest.raises(ProbeGymError, match="no such fault"):
        Faults([{"kind": "earthquake"}])


def test_deadlines_of_the_gate_are_longer_than_what_an_instrument_needs():
    assert gates.SLACK_SECONDS >= wire.ANSWER_SECONDS
