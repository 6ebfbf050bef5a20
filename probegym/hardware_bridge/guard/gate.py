"""The gate: every command passes it, every state of the guard is in it. No clocks, sockets or files of its own, so that it can be tested whole."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any, Protocol

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveFloat

from probegym.errors import ProbeGymError
from probegym.hardware_bridge import codec
from probegym.hardware_bridge.capabilities import Charge, Effect
from probegym.hardware_bridge.commands import Command, Readings
from probegym.hardware_bridge.guard import checks
from probegym.hardware_bridge.guard.checks import Account, Limits
from probegym.hardware_bridge.guard.ledger import Ledger
from probegym.hardware_bridge.instruments import Instrument, InstrumentFault
from probegym.hardware_bridge.world import Refused

NONCE_SECONDS, LEASE_SECONDS = 60.0, 600.0
MOST_REFUSALS = 3  # in a row, then the gate holds
SAFE_SECONDS = 0.5  # for the instrument to confirm its safe state
SLACK_SECONDS = 2.0  # beyond the worst case of a command, until it counts as lost


class State(StrEnum):
    """Of the gate."""

    disarmed = "disarmed"
    asked = "asked"  # arming was asked for, the operator has not answered
    running = "running"
    held = "held"  # nothing passes until the operator goes on
    fault = "fault"  # the instrument was sent to its safe state; only an operator clears it


class Request(BaseModel):
    """What arming asks the operator for."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    environment: str = Field(max_length=200)
    scenario: str = Field(max_length=500)
    policy: str = Field(max_length=200)  # its name and checksum
    seconds: PositiveFloat
    changes: NonNegativeInt
    approvals: NonNegativeInt = 0  # the first so many actions need an operator's agreement


class Record(Protocol):
    """Where everything is written down before it happens."""

    def append(self, kind: str, payload: dict[str, Any], arrays: dict[str, np.ndarray] | None = None) -> int:
        """Write one event; it stands on the disk when this returns. Raises ProbeGymError."""


@dataclass
class Admission:
    """A command that may be sent, once, now."""

    number: int
    command: Command
    charge: Charge
    intent: int = -1  # its event in the record


@dataclass
class Waiting:
    """A command that an operator must agree to. ``action``: the number of the action that it belongs to."""

    number: int
    action: int
    content: Any


@dataclass
class Gate:
    """clock: seconds that only grow. nonce: draws what an operator repeats."""

    instrument: Instrument
    ledger: Ledger
    record: Record
    clock: Callable[[], float]
    nonce: Callable[[], str] = field(default=lambda: f"{secrets.randbelow(10**6):06d}")

    def __post_init__(self) -> None:
        self.state, self.why = State.disarmed, "not armed yet"
        self.request: Request | None = None
        self.word, self.until = "", 0.0  # the nonce, and how long nonce or lease hold
        self.refusals, self.agreed = 0, -1  # refusals in a row; the last action that an operator agreed to
        self.order, self.account = checks.Order(), Account(Limits(0.0, 0))
        self.waiting: Waiting | None = None
        self.running: Admission | None = None
        self.set_at: dict[str, float] = {}  # verb -> when it was last carried out
        self.armed_at = 0.0
        self.seen: dict[str, int] = {}  # reading -> checksum of its last frame

    # ---- the operator ----

    def ask(self, content: object) -> dict[str, Any]:
        """Ask for arming: tries the safe state, and returns what the operator is shown, the nonce among it."""
        if self.state not in (State.disarmed, State.asked):
            raise Refused(f"the gate is {self.state} ({self.why}): disarm or reset it before arming anew")
        try:
            request = Request.model_validate(content)
        except ValueError as error:
            raise Refused(f"this is no request for arming: {str(error).splitlines()[-1].strip()}") from error
        self._make_safe("self-test before arming")
        self._faultless()
        self.request, self.word, self.until = request, self.nonce(), self.clock() + NONCE_SECONDS
        self._go(State.asked, "arming was asked for")
        worst = self.ledger.worst()
        return {"request": request.model_dump(), "nonce": self.word, "budget": self.ledger.budget.model_dump(), "spent": asdict(worst)}

    def arm(self, word: str) -> None:
        """The operator repeats the nonce; the instrument leaves its safe state and the lease begins."""
        if self.state is not State.asked or self.request is None:
            raise Refused(f"nothing waits to be armed, the gate is {self.state}")
        if self.clock() > self.until:
            self._go(State.disarmed, "the nonce was not repeated in time")
            raise Refused(f"the nonce was valid for {NONCE_SECONDS:g} s: ask for arming again")
        if not secrets.compare_digest(word, self.word):
            self._go(State.disarmed, "a wrong nonce was given")
            raise Refused("this is not the nonce that was shown: ask for arming again")
        self.order, self.account = checks.Order(), Account(Limits(self.request.seconds, self.request.changes))
        self.refusals, self.agreed, self.waiting, self.set_at, self.seen, self.word = 0, -1, None, {}, {}, ""
        self._note("armed", {"request": self.request.model_dump()})
        self._faultless()
        try:
            self.instrument.ready(SAFE_SECONDS)
        except ProbeGymError as error:
            self.fail(f"the instrument did not get ready: {error}")
            raise Refused(self.why) from error
        self.armed_at = self.clock()
        self.until = self.armed_at + LEASE_SECONDS
        self._go(State.running, "armed")
        self._faultless()

    def present(self) -> None:
        """The operator is there: the lease begins anew."""
        if self.state in (State.running, State.held):
            self.until = self.clock() + LEASE_SECONDS

    def hold(self, why: str) -> None:
        """Let nothing pass until the operator goes on."""
        if self.state is State.running:
            self._go(State.held, why)

    def resume(self) -> None:
        """Go on after a hold."""
        if self.state is not State.held:
            raise Refused(f"there is nothing to go on from, the gate is {self.state}")
        self._leased()
        self.refusals = 0
        self._go(State.running, "resumed")

    def disarm(self, why: str) -> None:
        """End the run: safe state, then disarmed."""
        if self.state in (State.running, State.held, State.asked):
            self._make_safe(why)
            if not self._faulty():
                self._go(State.disarmed, why)

    def abort(self, why: str) -> None:
        """Safe state at once, whatever goes on; latched until an operator resets."""
        self.fail(f"aborted: {why}")

    def fail(self, why: str) -> None:
        """A fault: safe state, latched."""
        self._latch(why)
        self._make_safe(why)

    def reset(self) -> None:
        """An operator clears the fault; raises Refused while the safe state is not confirmed."""
        if self.state is not State.fault:
            raise Refused(f"there is no fault to clear, the gate is {self.state}")
        if self.running is not None:
            raise Refused("a command is still under way: wait until the instrument has answered or its deadline has passed")
        try:
            self.instrument.safe(SAFE_SECONDS)
            confirmed = self.instrument.is_safe()
        except ProbeGymError as error:
            raise Refused(f"the safe state is not confirmed ({error}): see to the instrument") from error
        if not confirmed:
            raise Refused("the safe state is not read back: see to the instrument")
        self._go(State.disarmed, "reset by an operator")

    def decide(self, number: int, agreed: bool) -> Admission | None:
        """The operator's answer to what waits; raises Refused for a stale number, or when it would break a limit by now."""
        if self.waiting is None or self.waiting.number != number:
            raise Refused(f"request {number} does not wait for an answer any more")
        waiting, self.waiting = self.waiting, None
        self._note("decided", {"number": number, "agreed": agreed})
        if not agreed:
            return None
        try:
            self._passable()
            admission = self._checked(waiting.number, waiting.content)
        except Refused as error:
            self._refused(number, str(error))
            raise
        self.agreed = waiting.action
        return self._sent(admission)

    # ---- the session ----

    def admit(self, number: object, stamp: object, action: object, content: object) -> Admission | Waiting:
        """Let a command pass, or have an operator asked; raises Refused, and holds after MOST_REFUSALS in a row.

        number: of the request; only grows. stamp: the clock when it was decided. action: number of the action it belongs to.
        """
        try:
            command = checks.well_formed(content)
            number = self.order.check(number, stamp, self.clock())
            if isinstance(action, bool) or not isinstance(action, int) or action < 0:
                raise Refused("a command must say which action it belongs to")
            self._passable()
            admission = self._checked(number, content)
        except Refused as error:
            self._refused(number, str(error))
            raise
        assert self.request
        capability = self.instrument.descriptor.capabilities[command.verb]
        supervised = action < self.request.approvals and action != self.agreed and capability.effect is not Effect.reads
        if supervised or capability.approval:
            self.waiting = Waiting(number, action, content)
            self._note("waits", {"number": number, "command": content})
            return self.waiting
        return self._sent(admission)

    def complete(self, admission: Admission, outcome: Readings | ProbeGymError) -> Readings:
        """What came of an admitted command; raises what the session is told when it went wrong."""
        if admission is not self.running:
            raise Refused("this command is not under way")
        self.running = None
        if isinstance(outcome, Refused):
            self._note("result", {"intent": admission.intent, "refused": str(outcome)})
            self._refused(admission.number, str(outcome))
            raise outcome
        if isinstance(outcome, ProbeGymError):
            self._note("result", {"intent": admission.intent, "fault": str(outcome)})
            self.fail(f"{admission.command.verb}: {outcome}")
            raise Refused(self.why)
        try:
            header, arrays = codec.readings_to_json(outcome)
            capability = self.instrument.descriptor.capabilities[admission.command.verb]
            trouble = checks.implausible(admission.command, outcome, capability, self.seen) or checks.landed(admission.command, capability, self.instrument.measured())
        except ProbeGymError as error:
            trouble, header, arrays = str(error), {}, {}
        self._note("result", {"intent": admission.intent} | header, arrays)
        if trouble:
            self.fail(trouble)
        self._faultless()
        self.refusals = 0
        self.set_at[admission.command.verb] = self.clock()
        return outcome

    def tick(self) -> None:
        """What time brings: ends of nonce and lease, and a command that is overdue."""
        now = self.clock()
        if self.state is State.asked and now > self.until:
            self._go(State.disarmed, "the nonce was not repeated in time")
        elif self.state in (State.running, State.held) and now > self.until:
            self.disarm("the lease has ended: no operator was there")

    # ---- inside ----

    def _faulty(self) -> bool:
        return self.state is State.fault

    def _faultless(self) -> None:
        if self._faulty():
            raise Refused(f"the gate is in fault: {self.why}")

    def _leased(self) -> None:
        if self.clock() > self.until:
            self.disarm("the lease has ended: no operator was there")
            raise Refused(self.why)

    def _passable(self) -> None:
        if self.state is not State.running:
            raise Refused(f"the gate is {self.state} ({self.why}): nothing passes")
        self._leased()
        if self.running is not None or self.waiting is not None:
            raise Refused("the command before is not done yet: one at a time")

    def _checked(self, number: int, content: object) -> Admission:
        """From the absolute limits to the budgets; nothing is spent yet."""
        command, descriptor = checks.well_formed(content), self.instrument.descriptor
        capability = descriptor.check(command)
        try:
            measured = self.instrument.measured()
        except InstrumentFault as error:
            self.fail(f"controls are not read back: {error}")
            raise Refused(self.why) from error
        checks.in_rate(command, capability, measured, self.clock() - self.set_at.get(command.verb, self.armed_at))
        charge = descriptor.worst_case(command)
        self.account.after(charge)
        stage = measured["stage"].values.reshape(-1)[:2] if "stage" in measured else np.zeros(2)
        self.places = checks.regions(command, descriptor, stage)
        self.ledger.room(self.places, charge)
        return Admission(number, command, charge)

    def _sent(self, admission: Admission) -> Admission:
        """Charge and write down; from here on the command counts as sent, whatever happens."""
        try:
            self.ledger.charge(self.places, admission.charge)
            self.account.spent = self.account.after(admission.charge)
            intent = {"number": admission.number, "command": codec.command_to_json(admission.command), "charge": asdict(admission.charge), "regions": self.places}
            admission.intent = self.record.append("intent", intent)
        except Refused:
            raise
        except ProbeGymError as error:
            self.fail(f"nothing can be written down: {error}")
            raise Refused(self.why) from error
        self.running = admission
        return admission

    def _refused(self, number: object, why: str) -> None:
        self._note("refused", {"number": number if isinstance(number, int) else None, "why": why[:1000]})
        self.refusals += 1
        if self.refusals >= MOST_REFUSALS and self.state is State.running:
            self._go(State.held, f"{self.refusals} refusals in a row, the last: {why}")

    def _make_safe(self, why: str) -> None:
        try:
            self.instrument.safe(SAFE_SECONDS)
            if not self.instrument.is_safe():
                raise InstrumentFault("the safe state is not read back")
        except ProbeGymError as error:
            self._latch(f"SAFE STATE NOT CONFIRMED ({error}), after: {why}")
        self._note("safe", {"why": why, "confirmed": self.state is not State.fault or "NOT CONFIRMED" not in self.why})

    def _latch(self, why: str) -> None:
        self.waiting = None
        self._go(State.fault, why)

    def _go(self, state: State, why: str) -> None:
        if state is State.disarmed or state is State.fault:
            self.request, self.word = None, ""
        self.state, self.why = state, why
        self._note("state", {"state": str(state), "why": why[:1000]})

    def _note(self, kind: str, payload: dict[str, Any], arrays: dict[str, np.ndarray] | None = None) -> None:
        """Write down what has happened; a record that cannot be written is a fault, but never keeps the instrument from its safe state."""
        try:
            self.record.append(kind, payload, arrays)
        except ProbeGymError as error:
            if self.state is not State.fault:
                self.state, self.why, self.waiting = State.fault, f"the record cannot be written: {error}", None
                self._make_safe(self.why)
