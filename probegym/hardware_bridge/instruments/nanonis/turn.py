"""One command of ours as many of the controller's: until its deadline, or until the instrument is sent to its safe state."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from probegym.hardware_bridge.instruments import InstrumentFault
from probegym.hardware_bridge.instruments.nanonis.client import LEAST_SECONDS, REPLY_SECONDS, Connection, Stopped
from probegym.hardware_bridge.instruments.nanonis.protocol import Values
from probegym.hardware_bridge.world import Refused

LOOK_SECONDS = 0.005  # between two looks
ROUNDING = 1e-6  # of a number that went to the controller in four bytes and came back
ACTING = (
    "Bias.Set", "Bias.Pulse", "ZCtrl.OnOffSet", "ZCtrl.SetpntSet", "ZCtrl.GainSet", "ZCtrl.Withdraw", "SafeTip.OnOffSet", "AutoApproach.OnOffSet",
    "FolMe.XYPosSet", "Scan.Action", "TipShaper.Start",
)  # fmt: skip
"""Commands that do something to tip or sample; all others prepare, or look."""


class Turn:
    """seconds: until its deadline. unless: ends it when set. acted: whether anything that acts was sent."""

    def __init__(self, line: Connection, seconds: float, unless: threading.Event | None = None):
        self.line, self.unless, self.acted = line, unless, False
        self.began = time.monotonic()
        self.end = self.began + seconds

    def left(self) -> float:
        """Seconds that are left; raises InstrumentFault when none are."""
        if self.unless is not None and self.unless.is_set():
            raise Stopped("it was stopped: the instrument goes to its safe state")
        left = self.end - time.monotonic()
        if left <= 0:
            raise InstrumentFault(f"it took longer than the {self.end - self.began:.3g} s that it had: what it did is not known")
        return left

    def needs(self, seconds: float, what: str) -> None:
        """Raise InstrumentFault where less is left than something takes that cannot be ended on its way."""
        if (left := self.left()) < seconds:
            raise InstrumentFault(f"{what} takes {seconds:.3g} s, but only {left:.3g} s are left: it was not begun")

    def ask(self, name: str, lasts: float = 0.0, patience: float = REPLY_SECONDS, **arguments: Any) -> Values:
        """What a command returns. lasts: s that the controller takes for it before it answers; patience: s that the answer itself may take."""
        left = self.left()
        self.acted |= name in ACTING
        return self.line.ask(name, lasts + max(LEAST_SECONDS, min(left - lasts, patience)), self.unless, **arguments)

    def set(self, name: str, reads: dict[str, Any] | None = None, **arguments: Any) -> None:
        """Set and read back; raises InstrumentFault when it does not stand there. reads: what is read otherwise than it is set, None where it is not."""
        self.ask(f"{name}Set", **arguments)
        if unlike := self.unlike(name, arguments | (reads or {})):
            raise InstrumentFault(unlike)

    def prepared(self, name: str, reads: dict[str, Any] | None = None, **arguments: Any) -> None:
        """As ``set``, before anything acts: raises Refused, as nothing was done."""
        self.ask(f"{name}Set", **arguments)
        if unlike := self.unlike(name, arguments | (reads or {})):
            raise Refused(unlike)

    def unlike(self, name: str, wanted: Mapping[str, Any]) -> str:
        """What is read back otherwise than it should, as one line; nothing when all is well."""
        told = self.ask(f"{name}Get")
        for field, value in wanted.items():
            if value is None:
                continue
            if not np.array_equal(np.shape(told[field]), np.shape(value)) or not np.allclose(told[field], value, rtol=ROUNDING, atol=0.0):
                return f"{name}, {field}: the controller stands at {_shown(told[field])}, it should be {_shown(value)}"
        return ""

    def until(self, done: Callable[[], bool], what: str, seconds: float) -> None:
        """Look until something is so; raises InstrumentFault when that takes longer than ``seconds``."""
        end = time.monotonic() + seconds
        while not done():
            self.left()
            if time.monotonic() > end:
                raise InstrumentFault(f"{what} within {seconds:.3g} s")
            time.sleep(LOOK_SECONDS)


def _shown(value: Any) -> str:
    return np.array2string(np.asarray(value), precision=6, threshold=8)
