"""The states of a guard and its way to the safe state, which every fault takes and only an operator's reset leaves.

A fault may come at any time, also out of a call to the instrument or the record that has not returned yet: it always wins.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from probegym.errors import ProbeGymError
from probegym.hardware_bridge.guard.ledger import Ledger
from probegym.hardware_bridge.guard.requests import Admission, Record, Request, State, Waiting
from probegym.hardware_bridge.instruments import Instrument, InstrumentFault
from probegym.hardware_bridge.world import Refused

T = TypeVar("T")
AGAIN_SECONDS = 1.0  # between looks at whether the safe state still stands


@dataclass
class States:
    """clock: seconds that only grow."""

    instrument: Instrument
    ledger: Ledger
    record: Record
    clock: Callable[[], float]

    def __post_init__(self) -> None:
        since = self.ledger.fault  # of a run before: only an operator clears it
        self.state, self.why = (State.fault, since) if since else (State.disarmed, "not armed yet")
        self.request: Request | None = None
        self.word, self.until = "", 0.0  # the nonce, and how long nonce or lease hold
        self.waiting: Waiting | None = None
        self.running: Admission | None = None
        self.faults, self.cause = 0, since  # how many there were, and what the last one came from
        self.safe, self.tried = False, -math.inf  # whether the safe state was confirmed when it was last tried, and when that was

    def fail(self, why: str) -> None:
        """A fault: safe state, latched. Nothing is written down before the instrument was sent there."""
        self._latch(why)
        self._make_safe(why)

    def _faulty(self) -> bool:
        return self.state is State.fault

    def _faultless(self) -> None:
        if self._faulty():
            raise Refused(f"the gate is in fault: {self.why}")

    def _driven(self, call: Callable[..., T], *of: object) -> T:
        """What the driver answers; its own mistakes are faults of the instrument, never the end of the guard."""
        try:
            return call(*of)
        except ProbeGymError:
            raise
        except Exception as error:
            raise InstrumentFault(f"the driver failed ({type(error).__name__}: {str(error)[:200]})") from error

    def _make_safe(self, why: str) -> None:
        self.tried = self.clock()
        try:
            self._driven(self.instrument.safe, self.instrument.descriptor.safe_seconds)
            self.safe = self._driven(self.instrument.is_safe) is True
            trouble = "it is not read back"
        except ProbeGymError as error:
            self.safe, trouble = False, str(error)
        if not self.safe:
            self._latch(f"SAFE STATE NOT CONFIRMED ({trouble}), after: {why}", why)
        elif self.state is State.fault:
            self.why = self.cause
        self._note("safe", {"why": why[:1000], "confirmed": self.safe})
        if self.state is State.fault:
            self._note("state", {"state": str(self.state), "why": self.why[:1000]})
            self.ledger.latch(self.why)

    def _look(self) -> None:
        """Whether the safe state still stands; whoever undid it, the instrument is sent there again."""
        if not self.safe:
            self._make_safe(self.cause or "the guard has started")
            return
        self.tried = self.clock()
        try:
            trouble = "" if self._driven(self.instrument.is_safe) is True else "the instrument has left its safe state by itself"
        except ProbeGymError as error:
            trouble = f"the instrument does not tell whether it is safe ({error})"
        if trouble:
            self.fail(trouble)

    def _latch(self, why: str, cause: str | None = None) -> None:
        self.state, self.why, self.cause = State.fault, why, why if cause is None else cause
        self.faults += 1
        self._close()

    def _close(self) -> None:
        """What was asked for or admitted, but not sent, holds no more."""
        self.request, self.word, self.waiting = None, "", None
        if self.running is not None:
            self.running.open = False

    def _go(self, state: State, why: str) -> None:
        if self.state is State.fault:  # which may have come meanwhile
            return
        self.state, self.why = state, why
        if state is State.disarmed:
            self._close()
        elif state is State.held and self.running is not None:
            self.running.open = False  # what was not sent yet stays
        self._note("state", {"state": str(state), "why": why[:1000]})

    def _note(self, kind: str, payload: dict[str, Any], arrays: dict[str, np.ndarray] | None = None) -> None:
        """Write down what has happened; a record that cannot be written is a fault, but never keeps the instrument from its safe state."""
        try:
            self.record.append(kind, payload, arrays)
        except Exception as error:
            if self.state is not State.fault:
                self.fail(f"the record cannot be written: {error}")
