"""What must hold of the gate through any history: requests, faults, crashes and time in any order; clock, record and instrument are fake.

P1 no command outside envelope or rate reaches the instrument. P2 no place of the sample has more dose than its budget, through
every crash. P3 a fault leads to the safe state at once. P4 a fault is left by a reset alone. P5 nothing moves without a lease.
P6 what was accepted is sent at most once. P8 what was sent stands in the record before. P9 a late or doubled answer is no
reading. P10 an abort wins in every state, also in the middle of a call.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from probegym.errors import ProbeGymError
from probegym.hardware_bridge import codec
from probegym.hardware_bridge.commands import Command, Readings, ShiftBeam
from probegym.hardware_bridge.guard import ledger as accounts
from probegym.hardware_bridge.guard.gate import LEASE_SECONDS, MOST_REFUSALS, Admission, State
from probegym.hardware_bridge.guard.ledger import Ledger
from probegym.hardware_bridge.instruments import InstrumentFault
from probegym.hardware_bridge.world import Refused
from tests.guard_helpers import BLANK, FLUX, LONGEST, REQUEST, ROUTINE, Bench, Crash, costs, image, park, permitted, shift, stage, tune

DOSE, CHANGES = 2.5 * FLUX * LONGEST, 6  # of a region
SWITCHES = ("refuses_safe", "denies_safe", "refuses_ready", "mute", "bug")
EVENTS = ("intent", "result", "state", "safe", "armed", "settled", "lost", "waits", "rejected")
TROUBLES: list[tuple[str, Any]] = [
    *(("switch", name) for name in SWITCHES), *(("jam", how) for how in ("stuck", "overshoot")), ("full", True), *(("dies", kind) for kind in EVENTS),
    *(("lie", lie) for lie in ({"shift": None}, {"tilt": np.full(2, np.nan)}, {"stage": None}, {"aberrations": np.array(["a", "b"])})), ("age", 1.5), ("age", 3.0),
    *(("ambush", place) for place in ("measured", "execute", "ready", "safe", "is_safe", *EVENTS)),
]  # fmt: skip
PARKED = st.builds(park, st.sampled_from([-0.5e-6, 0.5e-6, 1e-6]), st.sampled_from([0.0, 0.5e-6]), st.sampled_from([0.0, 0.4, LONGEST, LONGEST]))
MOVED = st.builds(stage, st.sampled_from([-1e-6, 0.0, 0.5e-6, 1e-6]), st.just(0.0), st.just(0.0), st.sampled_from([0.0, 0.05]))
SHIFTED = st.builds(shift, st.sampled_from([-0.5e-6, 0.0, 0.2e-6, 0.5e-6]))
OTHERS = [image(), image(1e-5), image(0.0), tune(), tune(1.1e-7, 0.0), stage(1e-3), stage(tilt=0.2), shift(3e-6), park(seconds=1.1), ROUTINE, BLANK]
COMMANDS = st.one_of(PARKED, PARKED, MOVED, SHIFTED, SHIFTED, st.sampled_from(OTHERS))
STEPS = {
    "carry out": 12, "request": 4, "send": 3, "finish": 3, "operator": 3, "trouble": 3, "mend": 1, "wait": 5, "answer again": 1, "crash": 1, "charge and crash": 1, "go on": 6,
}  # fmt: skip


class Histories(RuleBasedStateMachine):
    """A guard's life: what operator, policy, instrument, disk and time do to a gate."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None)
        self.bench = Bench(Path(self.folder.name), dose=DOSE, changes=CHANGES)
        self.gate = self.bench.gate
        self.queue: Admission | None = None  # admitted, not sent yet
        self.sent: tuple[Admission, Any] | None = None  # sent, its outcome not told to the gate yet
        self.old: list[tuple[Admission, Any]] = []
        self.lease = self.moved_at = -np.inf  # until when, by this model; and when the shift was last set
        self.used: list[Admission] = []  # whose readings came through
        self.state, self.cleared, self.ambushed, self.faults = State.disarmed, False, False, 0

    def teardown(self) -> None:
        self.bench.ledger.close()
        self.folder.cleanup()

    def attempt(self, act: Callable[[], Any]) -> Any:
        """Do something that may be refused, or be the end of the process."""
        try:
            return act()
        except Refused as refusal:
            assert "\n" not in str(refusal)
        except Crash:
            self.restart()
        return None

    def restart(self) -> None:
        """The process has died: a new one opens the account and begins with what is on the disk. Nobody takes an answer any more."""
        bench = self.bench
        bench.ledger.close()
        bench.ledger = Ledger(bench.path)
        if self.sent is not None:
            self.old.append(self.sent)
        self.queue = self.sent = None
        bench.record.planned.clear()
        bench.instrument.planned.clear()
        bench.record.crash, bench.record.full, bench.number = "", False, 0
        self.gate = bench.start()
        self.state, self.lease, self.ambushed, self.faults = self.gate.state, -np.inf, False, 0
        self.gate.tick()

    @initialize(approvals=st.sampled_from([0, 0, 1]))
    def begin(self, approvals: int) -> None:
        self.gate.tick()
        self.go_on(approvals, True)

    @rule(what=st.sampled_from([name for name, weight in STEPS.items() for _ in range(weight)]), data=st.data())
    def step(self, what: str, data: st.DataObject) -> None:
        """One event; what leads back to a running gate comes more often where it is closed."""
        def draw(*choices: Any) -> Any:
            return data.draw(st.sampled_from(choices))

        if what == "carry out" and self.gate.state is State.running and not self.queue and not self.sent:
            self.carry_out(data.draw(COMMANDS), draw(0, 1, 2))
        elif what == "request":
            self.request(data.draw(COMMANDS), draw(1, 1, 1, 0, -1), draw(0.0, 0.0, 0.0, 6.0, -1.0), draw(0, 1, 2))
        elif what == "send":
            self.send(draw(False, True))
        elif what == "finish":
            self.finish(draw("well", "well", "lost", "spoiled", "undoes", "mistaken"))
        elif what == "operator":
            self.operator(draw("ask", "arm", "wrong", "present", "hold", "resume", "disarm", "abort", "reset", "agree", "deny"))
        elif what == "trouble":
            self.trouble(*draw(*TROUBLES))
        elif what == "mend":
            self.mend()
        elif what == "wait":
            self.wait(draw(0.0, 0.1, 1.0, 2.0, 3.0, 3.0, 30.0, 130.0, 610.0), draw(True, True, False))
        elif what == "answer again" and self.old:
            self.answer_again(draw(*self.old))
        elif what == "crash":
            self.restart()
        elif what == "charge and crash":
            self.charge_and_crash(data.draw(st.integers(0, 80)), draw(True, False))
        elif self.gate.state is not State.running:
            self.go_on(draw(0, 0, 1), draw(True, True, False))

    # ---- the operator ----

    def ask(self, approvals: int = 0) -> None:
        self.attempt(lambda: self.gate.ask(REQUEST | {"seconds": 200.0, "changes": 40, "approvals": approvals}))

    def arm(self, word: str) -> None:
        before, now, gate = self.gate.state, self.bench.clock.now, self.gate
        self.attempt(lambda: gate.arm(word))
        if gate is self.gate and gate.state is State.running and before is not State.running:
            assert before is State.asked and word == "123456", "P5"
            self.lease, self.moved_at = now + LEASE_SECONDS, now

    def present(self) -> None:
        self.attempt(self.gate.present)
        if self.gate.state in (State.running, State.held):
            assert self.bench.clock.now <= self.lease, "P5: an ended lease was renewed"
            self.lease = self.bench.clock.now + LEASE_SECONDS

    def abort(self) -> None:
        safes, gate = len(self.bench.instrument.safes), self.gate
        self.attempt(lambda: gate.abort("Esc"))
        assert gate.state is State.fault and len(self.bench.instrument.safes) > safes, "P10"

    def reset(self) -> None:
        was, running, gate = self.gate.state, self.gate.running, self.gate
        self.attempt(gate.reset)
        if gate is self.gate and was is State.fault and gate.state is State.disarmed:
            assert self.bench.instrument.is_blanked and running is None
            self.cleared = True

    def decide(self, agreed: bool) -> None:
        if self.gate.waiting is not None:
            self.take(self.attempt(lambda: self.gate.decide(self.gate.waiting.number, agreed)))

    def operator(self, what: str) -> None:
        gate = self.gate
        {
            "ask": self.ask, "arm": lambda: self.arm("123456"), "wrong": lambda: self.arm("000000"), "present": self.present, "reset": self.reset,
            "hold": lambda: self.attempt(lambda: gate.hold("a pause")), "resume": lambda: self.attempt(gate.resume), "abort": self.abort,
            "disarm": lambda: self.attempt(lambda: gate.disarm("enough")), "agree": lambda: self.decide(True), "deny": lambda: self.decide(False),
        }[what]()  # fmt: skip

    def go_on(self, approvals: int, mend: bool) -> None:
        """What leads to a running gate, from any state."""
        if mend:
            self.mend()
        self.send(False)
        self.finish("well")
        self.wait(2.0, True)
        self.reset()
        self.attempt(self.gate.resume)
        self.ask(approvals)
        self.arm("123456")
        self.bench.clock.now += 3.0

    # ---- the policy ----

    def request(self, command: Command, jump: int = 1, age: float = 0.0, action: int = 0) -> None:
        number = self.bench.number = self.bench.number + jump
        self.take(self.attempt(lambda: self.gate.admit(number, self.bench.clock.now - age, action, codec.command_to_json(command))))

    def take(self, admitted: Any) -> None:
        if isinstance(admitted, Admission):
            assert self.queue is None and self.sent is None, "two commands at once"
            assert self.gate.state is State.running and self.bench.clock.now <= self.lease, "P5"
            self.queue = admitted

    def carry_out(self, command: Command, action: int) -> None:
        self.request(command, action=action)
        self.decide(True)
        self.send(False)
        self.finish("well")

    # ---- the worker and the instrument ----

    def send(self, twice: bool) -> None:
        if self.queue is None:
            return
        admission, self.queue = self.queue, None
        instrument, now, gate = self.bench.instrument, self.bench.clock.now, self.gate
        shifted, tilted, count = instrument.controls["shift"].copy(), instrument.controls["tilt"].copy(), len(instrument.written)
        events = list(self.bench.record.events)
        outcome: Any
        try:
            outcome = instrument.execute(admission.claim(now), 1.0)
        except ProbeGymError as error:
            outcome = error
        except Crash:
            self.restart()
            return
        if len(instrument.written) > count:
            command = instrument.written[-1]
            assert permitted(command, shifted, tilted, now - self.moved_at), f"P1: {command}"
            assert now <= self.lease, "P5"
            kind, payload, _ = events[admission.intent]
            assert kind == "intent" and payload["command"] == codec.command_to_json(command), "P8"
            run = events[max((at for at, (kind, _, _) in enumerate(events) if kind == "armed"), default=0) :]
            assert sum(kind == "intent" and payload["number"] == admission.number for kind, payload, _ in run) == 1, "P6"
        if twice:
            with pytest.raises(Refused):
                admission.claim(now)
        if gate is self.gate:
            self.sent = (admission, outcome)

    def finish(self, how: str) -> None:
        if self.sent is None:
            return
        (admission, outcome), self.sent = self.sent, None
        self.old.append((admission, outcome))
        if how == "lost":
            outcome = InstrumentFault("no answer")
        if how == "spoiled" and isinstance(outcome, Readings):
            outcome = Readings({name: values * np.nan for name, values in outcome.values.items()} | {"more": np.array([np.inf])}, *costs())
        if how == "undoes" and self.gate.state not in (State.running, State.held):
            self.bench.instrument.is_blanked = False
        if how == "mistaken":
            outcome = None
        state, current, gate = self.gate.state, self.gate.running, self.gate
        told = self.attempt(lambda: gate.complete(admission, outcome))
        if told is not None:
            assert told is outcome and how in ("well", "undoes") and current is admission and state in (State.running, State.held), "P9"
            assert not any(admission is one for one in self.used), "P9"
            self.used.append(admission)
            if isinstance(admission.command, ShiftBeam):
                self.moved_at = self.bench.clock.now

    def answer_again(self, stale: tuple[Admission, Any]) -> None:
        running = self.gate.running
        with pytest.raises(Refused):
            self.gate.complete(*stale)
        assert self.gate.running is running, "P9"

    def trouble(self, what: str, how: Any) -> None:
        instrument, record = self.bench.instrument, self.bench.record
        if what == "switch":
            setattr(instrument, how, True)
        elif what == "jam":
            instrument.moves = how
        elif what == "lie":
            instrument.lies = dict(how)
        elif what == "age":
            instrument.ages["shift"] = how
        elif what == "full":
            record.full = True
        elif what == "dies":
            record.crash = how
        else:
            (record if how in EVENTS and how != "safe" else instrument).planned[how] = self.strike

    def mend(self) -> None:
        instrument = self.bench.instrument
        for switch in SWITCHES:
            setattr(instrument, switch, False)
        instrument.moves, instrument.lies, instrument.ages["shift"], self.bench.record.full = "well", {}, 0.0, False

    def strike(self) -> None:
        self.ambushed = True
        self.gate.abort("from elsewhere")

    def charge_and_crash(self, taken: int, dies: bool) -> None:
        """The process ends, or the disk is full, after so many bytes of a charge: nothing is exposed for it."""
        write, gate, cuts = os.write, self.gate, [taken]
        if self.gate.running is not None or self.gate.waiting is not None:
            return

        def cut(file: int, content: bytes) -> int:
            if not cuts:
                return write(file, content)
            done = write(file, content[: cuts.pop()])
            if dies:
                raise Crash
            return done

        with mock.patch.object(accounts.os, "write", cut):
            self.request(park(seconds=0.1))
        if gate is self.gate and gate.ledger.broken:
            assert gate.state is State.fault and self.queue is None
            self.restart()
        self.send(False)
        self.finish("well")

    # ---- time ----

    def wait(self, seconds: float, ticks: bool) -> None:
        self.bench.clock.now += seconds
        lost, gate = self.gate.running, self.gate
        if ticks:
            self.attempt(gate.tick)
        if lost is not None and gate is self.gate and gate.running is None:
            assert gate.state is State.fault, "P3"
            if self.sent:
                self.old.append(self.sent)
            self.queue = self.sent = None

    # ---- what always holds ----

    @invariant()
    def doses(self) -> None:
        instrument = self.bench.instrument
        assert all(dose <= DOSE * (1 + 1e-8) for dose in instrument.doses.values()), f"P2: {instrument.doses}"
        assert all(changes <= CHANGES for changes in instrument.changes.values()), f"P2: {instrument.changes}"

    @invariant()
    def safe(self) -> None:
        gate, instrument = self.gate, self.bench.instrument
        assert self.state is not State.fault or gate.state is State.fault or self.cleared, "P4"
        assert not self.ambushed or gate.state is State.fault or self.cleared, "P10"
        self.ambushed = self.ambushed and not self.cleared
        self.state, self.cleared = gate.state, False
        if gate.state in (State.fault, State.disarmed, State.asked) and gate.safe and self.sent is None:
            assert instrument.is_blanked, "P3"
        if gate.state in (State.disarmed, State.asked) and not gate.safe:
            raise AssertionError("P3: closed without a confirmed safe state")
        if gate.faults > self.faults:
            assert instrument.safes and gate.tried == max(gate.tried, self.bench.clock.now - 610.0), "P3"
            self.faults = gate.faults
        assert gate.state is State.running or self.queue is None or not self.queue.open, "P5"

    @invariant()
    def order(self) -> None:
        gate = self.gate
        assert gate.refusals < MOST_REFUSALS or gate.state is not State.running
        assert gate.running is None or gate.running is self.queue or (self.sent is not None and gate.running is self.sent[0])
        assert gate.state in (State.running, State.held) or (gate.waiting is None and (gate.request is None or gate.state is State.asked))


@pytest.fixture(scope="module", autouse=True)
def disk():
    """Nothing is synchronised: hundreds of accounts are begun here."""
    with mock.patch.object(os, "fdatasync", lambda _: None), mock.patch.object(os, "fsync", lambda _: None):
        yield


TestHistories = Histories.TestCase
TestHistories.settings = settings(
    derandomize=True, deadline=None, database=None, max_examples=200, stateful_step_count=50, suppress_health_check=list(HealthCheck)
)
