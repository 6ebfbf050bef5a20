"""The gate: every command passes it, every state of the guard is in it. No clocks, sockets or files of its own, so that it can be tested whole.

One thread uses it, or several under one lock. A fault may come at any time, also out of a call to the instrument or the record
that has not returned yet: it always wins, and only ``reset`` leaves it.
"""

from __future__ import annotations

import secrets
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from pydantic import ValidationError

from probegym.errors import ProbeGymError
from probegym.hardware_bridge import codec
from probegym.hardware_bridge.capabilities import Charge, Effect
from probegym.hardware_bridge.commands import Command, Readings
from probegym.hardware_bridge.guard import checks
from probegym.hardware_bridge.guard.checks import Account, Limits
from probegym.hardware_bridge.guard.requests import Admission, Record, Request, State, Waiting
from probegym.hardware_bridge.guard.states import AGAIN_SECONDS, States
from probegym.hardware_bridge.world import Refused

__all__ = ["AGAIN_SECONDS", "LEASE_SECONDS", "NONCE_SECONDS", "SLACK_SECONDS", "Admission", "Gate", "Record", "Request", "State", "Waiting"]

NONCE_SECONDS, LEASE_SECONDS, APPROVAL_SECONDS = 60.0, 600.0, 120.0  # the last: for an operator to agree to a command
MOST_REFUSALS = 3  # in a row, then the gate holds
SLACK_SECONDS = 2.0  # that a driver has beyond the worst case of a command; after twice as much it counts as lost


@dataclass
class Gate(States):
    """clock: seconds that only grow. nonce: draws what an operator repeats."""

    nonce: Callable[[], str] = field(default=lambda: f"{secrets.randbelow(10**6):06d}")

    def __post_init__(self) -> None:
        super().__post_init__()
        budget, here = self.ledger.budget, self.instrument.descriptor
        if (budget.region, budget.instrument) != (here.region, here.name):
            told = f"{budget.instrument or 'no instrument'} in regions of {budget.region:g} m, not of {here.name} in those of {here.region:g} m"
            raise ProbeGymError(f"sample account {self.ledger.path} is of {told}: begin an account for this instrument")
        self.refusals, self.agreed = 0, set[int]()  # refusals in a row; actions that an operator agreed to
        self.rejected: deque[dict[str, Any]] = deque(maxlen=5)  # the last refusals, for operators: a number that grows, and why
        self.order, self.account = checks.Order(), Account(Limits(0.0, 0, 0.0))
        self.asked = 0  # how often an operator was asked to agree
        self.set_at: dict[str, float] = {}  # control, as it is read back -> when it was last set
        self.armed_at = 0.0
        self.seen: dict[str, int] = {}  # reading -> checksum of its last frame

    # ---- the operator ----

    def ask(self, content: object) -> dict[str, Any]:
        """Ask for arming: tries the safe state, and returns what the operator is shown, the nonce among it.

        Raises Refused unless the gate is disarmed and the request whole.
        """
        if self.state not in (State.disarmed, State.asked):
            raise Refused(f"the gate is {self.state} ({self.why}): disarm or reset it before arming anew")
        self._idle()
        try:
            request = Request.model_validate(content)
        except ValidationError as error:
            first = error.errors()[0]
            raise Refused(f"this is no request for arming: {codec.shown(first['loc'])}: {first['msg']}") from error
        self._make_safe("self-test before arming")
        self._faultless()
        self.request, self.word, self.until = request, self.nonce(), self.clock() + NONCE_SECONDS
        self._go(State.asked, "arming was asked for")
        self._faultless()
        return {"request": request.model_dump(), "nonce": self.word, "budget": self.ledger.budget.model_dump(), "spent": asdict(self.ledger.worst())}

    def arm(self, word: object) -> None:
        """The operator repeats the nonce; the instrument leaves its safe state and the lease begins.

        Raises Refused for another word, or one that came too late.
        """
        request, wanted = self.request, self.word
        if request is None or not wanted:  # which only a gate that was asked has
            raise Refused(f"nothing waits to be armed, the gate is {self.state}{self.why and f': {self.why}'}")
        if self.clock() > self.until:
            self._go(State.disarmed, "the nonce was not repeated in time")
            raise Refused(f"the nonce was valid for {NONCE_SECONDS:g} s: ask for arming again")
        if not isinstance(word, str) or not secrets.compare_digest(word.encode(errors="surrogatepass"), wanted.encode()):
            self._go(State.disarmed, "a wrong nonce was given")
            raise Refused("this is not the nonce that was shown: ask for arming again")
        self.word = ""  # good for once
        self._note("armed", {"request": request.model_dump()})
        self._faultless()
        self.safe = False
        try:
            self._driven(self.instrument.ready, self.instrument.descriptor.safe_seconds)
        except ProbeGymError as error:
            self.fail(f"the instrument did not get ready: {error}")
        self._faultless()
        now = self.armed_at = self.clock()
        self.until = now + LEASE_SECONDS
        self.order, self.account = checks.Order(now), Account(Limits(request.seconds, request.changes, request.damage))
        self.refusals, self.agreed, self.set_at, self.seen = 0, set(), {}, {}
        self._go(State.running, "armed")
        self._faultless()

    def present(self) -> None:
        """The operator is there: the lease begins anew, unless it has ended."""
        if self.state in (State.running, State.held):
            self._leased()
            self.until = self.clock() + LEASE_SECONDS

    def hold(self, why: str) -> None:
        """Let nothing pass until the operator goes on."""
        if self.state is State.running:
            self._go(State.held, why)

    def resume(self) -> None:
        """Go on after a hold. Raises Refused where nothing is held."""
        if self.state is not State.held:
            raise Refused(f"there is nothing to go on from, the gate is {self.state}")
        self._leased()
        self.refusals = 0
        self._go(State.running, "resumed")

    def disarm(self, why: str) -> None:
        """End the run: safe state, then disarmed."""
        if self.state in (State.running, State.held, State.asked):
            self.state, self.why = State.disarmed, why  # first, so that nothing passes while the safe state is taken
            self._close()
            self._make_safe(why)
            self._go(State.disarmed, why)

    def abort(self, why: str) -> None:
        """Safe state at once, whatever goes on; latched until an operator resets."""
        self.fail(f"aborted: {why}")

    def reset(self) -> None:
        """An operator clears the fault; raises Refused while the safe state is not confirmed."""
        if self.state is not State.fault:
            raise Refused(f"there is no fault to clear, the gate is {self.state}")
        self._idle()
        faults = self.faults
        self._make_safe(self.cause)
        if self.faults != faults:
            raise Refused(f"the fault stays: {self.why}")
        self.ledger.latch("")
        self.state, self.why = State.disarmed, "reset by an operator"
        self._note("state", {"state": str(self.state), "why": self.why})
        self._faultless()

    def decide(self, number: int, agreed: bool) -> Admission | None:
        """The operator's answer to what waits; raises Refused for a stale number, or when it would break a limit by now."""
        if self.waiting is None or isinstance(number, bool) or self.waiting.number != number:
            raise Refused(f"request {codec.shown(number)} does not wait for an answer any more")
        waiting, self.waiting = self.waiting, None
        self._note("decided", {"number": number, "agreed": agreed is True})
        if agreed is not True:
            return None
        try:
            self._passable()
            if self.clock() > waiting.until:
                raise Refused(f"request {number} waited for longer than {APPROVAL_SECONDS:g} s: what it was decided on is too old")
            admission = self._checked(waiting.request, waiting.action, checks.well_formed(waiting.content))
        except Refused as error:
            self._refused(waiting.request, str(error))
            raise
        self.agreed.add(waiting.action)
        return self._sent(admission)

    # ---- the session ----

    def admit(self, number: object, stamp: object, action: object, content: object) -> Admission | Waiting:
        """Let a command pass, or have an operator asked; raises Refused, and holds after MOST_REFUSALS in a row.

        number: of the request; only grows. stamp: the clock when it was decided. action: number of the action it belongs to.
        """
        try:
            command = checks.well_formed(content)
            number = self.order.check(number, stamp, self.clock())
            action = checks.action_number(action)
            self._passable()
            admission = self._checked(number, action, command)
        except Refused as error:
            self._refused(number, str(error))
            raise
        self._passable()  # reading controls back takes time
        assert self.request
        capability = self.instrument.descriptor.capabilities[command.verb]
        supervised = len(self.agreed | {action}) <= self.request.approvals and not (capability.effect is Effect.reads and not admission.charge.dose and action in self.agreed)
        if not supervised and not capability.approval:
            return self._sent(admission)
        told = codec.command_to_json(command)
        self.asked += 1
        waiting = self.waiting = Waiting(self.asked, number, action, told, self.clock() + APPROVAL_SECONDS)
        self._note("waits", {"number": self.asked, "request": number, "action": action, "command": told})
        self._faultless()
        return waiting

    def complete(self, admission: Admission, outcome: Readings | ProbeGymError) -> Readings:
        """What came of an admitted command; raises what the session is told when it went wrong."""
        if admission is not self.running:
            raise Refused("this command is not under way")
        self.running, admission.open = None, False
        verb, intent = admission.command.verb, {"intent": admission.intent}
        ending = "settled" if isinstance(outcome, Readings | Refused) else "lost"  # without an answer nobody knows what it did
        trouble, header, arrays = self._judged(admission, outcome)
        if self.state not in (State.running, State.held):
            self._make_safe(f"{verb} ended after the gate had closed")  # it may have moved what was safe before
            self._note(ending, intent | {"why": f"the gate was {self.state}"}, arrays)
            raise Refused(f"the gate is {self.state} ({self.why}): what came of {verb} is not used")
        if trouble:
            self.fail(trouble)
            self._note(ending, intent | {"why": trouble[:1000]}, arrays)
            self._faultless()
        if not isinstance(outcome, Readings):
            self._note("refused", intent | {"reason": str(outcome)[:1000]})
            self._refused(admission.number, str(outcome))
            raise outcome
        self._note("result", intent | {"readings": header}, arrays)
        self._faultless()
        self.refusals = 0
        if outcome.damage[0] > 0 and not self.account.harmed(float(outcome.damage[0])):
            self.hold(f"{verb} did damage: {self.account.damage:g} events in this run, {self.account.limits.damage:g} are allowed")
        self.set_at |= dict.fromkeys(self.instrument.descriptor.capabilities[verb].reads_back.values(), self.clock())
        return outcome

    def tick(self) -> None:
        """What time brings: ends of nonce, lease and approval, a command that is lost, and tries of a safe state that is not confirmed yet."""
        now = self.clock()
        if self.running is not None and now > self.running.until:
            lost, self.running = self.running, None
            lost.open = False
            self.fail(f"{lost.command.verb} has not ended in time: what it did is not known")
            self._note("lost", {"intent": lost.intent, "why": self.why})
        if self.state is State.asked and now > self.until:
            self._go(State.disarmed, "the nonce was not repeated in time")
        elif self.state in (State.running, State.held) and now > self.until:
            self.disarm("the lease has ended: no operator was there")
        elif self.waiting is not None and now > self.waiting.until:
            number, self.waiting = self.waiting.number, None
            self._note("decided", {"number": number, "agreed": False, "why": "no operator answered in time"})
        elif self.state in (State.fault, State.disarmed, State.asked) and now > self.tried + AGAIN_SECONDS:
            self._look()

    def late(self, admission: Admission) -> None:
        """An answer to a command that was given up has come: the instrument may have moved since it was safe."""
        self._make_safe(f"{admission.command.verb}, which was given up, has ended after all")

    # ---- inside ----

    def _leased(self) -> None:
        if self.clock() > self.until:
            self.disarm("the lease has ended: no operator was there")
            raise Refused(self.why)

    def _idle(self) -> None:
        if self.running is not None:
            raise Refused("a command is still under way: wait until the instrument has answered or its deadline has passed")

    def _passable(self) -> None:
        if self.state is not State.running:
            raise Refused(f"the gate is {self.state} ({self.why}): nothing passes")
        self._leased()
        if self.running is not None or self.waiting is not None:
            raise Refused("the command before is not done yet: one at a time")

    def _since(self, control: str) -> float:
        """Seconds since a control could last have moved."""
        return self.clock() - self.set_at.get(control, self.armed_at)

    def _checked(self, number: int, action: int, command: Command) -> Admission:
        """From the absolute limits to the budgets; nothing is spent yet."""
        descriptor = self.instrument.descriptor
        capability = descriptor.check(command)
        try:
            measured = self._driven(self.instrument.measured)
        except ProbeGymError as error:
            self.fail(f"controls are not read back: {error}")
            raise Refused(self.why) from error
        checks.in_rate(command, capability, measured, self._since)
        charge = descriptor.worst_case(command)
        self.account.after(charge)
        places = checks.regions(command, descriptor, checks.site(descriptor, measured, self._since))
        self.ledger.room(places, charge)
        return Admission(number, action, command, charge, places)

    def _sent(self, admission: Admission) -> Admission:
        """Charge and write down; from here on the command counts as sent, whatever happens."""
        self._passable()
        charge = admission.charge
        told = {"number": admission.number, "action": admission.action, "command": codec.command_to_json(admission.command), "charge": asdict(charge), "regions": admission.places}
        try:
            self.ledger.charge(admission.places, charge)
            self.account.spent = self.account.after(charge)
            admission.intent = self.record.append("intent", told)
        except Refused:
            raise
        except Exception as error:  # whatever ails account or record, nothing is sent without them
            self.fail(f"nothing can be written down: {error}")
            raise Refused(self.why) from error
        if self.state is not State.running:
            self._note("settled", {"intent": admission.intent, "why": f"the gate was {self.state}, nothing was sent"})
            raise Refused(f"the gate is {self.state} ({self.why}): nothing passes")
        now = self.clock()
        admission.by, admission.until = min(self.until, now + SLACK_SECONDS), now + charge.seconds + 2 * SLACK_SECONDS
        self.running = admission
        return admission

    def _judged(self, admission: Admission, outcome: object) -> tuple[str | None, dict[str, Any], dict[str, np.ndarray]]:
        """What is wrong with an outcome, and its readings for the record."""
        command, arrays = admission.command, dict[str, np.ndarray]()
        if isinstance(outcome, Refused):
            return None, {}, {}
        if not isinstance(outcome, Readings):
            return f"{command.verb}: {outcome}", {}, {}
        capability = self.instrument.descriptor.capabilities[command.verb]
        try:
            header, told = codec.readings_to_json(outcome)
            arrays = {name: values for name, values in told.items() if values.dtype.kind in "biuf"}  # what a record can hold
            if trouble := checks.implausible(command, outcome, capability, self.seen):
                return trouble, {}, arrays
            over = float(outcome.dose[0]) - admission.charge.dose
            if over > 1e-9 * admission.charge.dose:
                self.ledger.book(admission.places, Charge(0.0, over, 0))
                return f"{command.verb} has cost {over:.4g} electrons per square Angstrom more than it can at worst", {}, arrays
            return checks.landed(command, capability, self._driven(self.instrument.measured)), header, arrays
        except Exception as error:  # a reading that not even the checks can read is a fault like any other
            return f"{command.verb}: what came back cannot be read ({type(error).__name__}: {str(error)[:200]})", {}, arrays

    def _refused(self, number: object, why: str) -> None:
        self._note("rejected", {"number": number if isinstance(number, int) and abs(number) < checks.LARGEST_NUMBER else None, "why": why[:1000]})
        self.refusals += 1
        self.rejected.append({"serial": self.rejected[-1]["serial"] + 1 if self.rejected else 0, "why": why[:1000]})
        if self.refusals >= MOST_REFUSALS and self.state is State.running:
            self._go(State.held, f"{self.refusals} refusals in a row, the last: {why}")
