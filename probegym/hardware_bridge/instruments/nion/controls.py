"""Controls of a Nion instrument: set with the vendor's confirmation, read back, and never waited for beyond a deadline (of ``time.monotonic``)."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from probegym.hardware_bridge.instruments import InstrumentFault
from probegym.hardware_bridge.instruments.nion.calls import within

POLL_SECONDS = 0.002
ANSWER_SECONDS = 0.4  # for what needs no motion


class Controls:
    """The controls of the instrument controller ``stem``. wanted_safe: while it is set nothing is moved but towards the safe state.

    Values and tolerances are in the unit of each control; ``end`` is in s, of ``time.monotonic``.
    """

    def __init__(self, stem: Any, wanted_safe: threading.Event):
        self.stem, self.wanted_safe = stem, wanted_safe

    def there(self, name: str) -> bool:
        """Whether there is such a control."""
        return bool(self.stem.TryGetVal(name)[0])

    def going(self, what: str) -> None:
        """Raise InstrumentFault where the safe state is wanted."""
        if self.wanted_safe.is_set():
            raise InstrumentFault(f"{what} was stopped: the instrument went to its safe state")

    def values(self, names: list[str], end: float) -> np.ndarray:
        """What controls stand at, (n,); raises InstrumentFault where one is not there, or is no number."""
        told = np.array(within(end, f"reading {', '.join(names)}", lambda: [self.stem.GetVal(name) for name in names]), float)
        if not np.isfinite(told).all():
            raise InstrumentFault(f"{names[int(np.argmin(np.isfinite(told)))]} reads back as what is no number")
        return told

    def value(self, name: str, end: float) -> float:
        """What one control stands at."""
        return float(self.values([name], end)[0])

    def set(self, name: str, value: float, tolerance: float, end: float) -> None:
        """Set a control and see it stand within ``tolerance`` before the clock reads ``end``; raises InstrumentFault where it does not."""
        left = max(1, int(1e3 * (end - time.monotonic())))
        if within(end, f"setting {name}", lambda: self.stem.SetValAndConfirm(name, value, 1.0, left)) is not True:
            # the vendor's False means either
            raise InstrumentFault(f"{name} was not set to {value:g}: there is no such control, or it did not confirm")
        self.arrived(name, value, tolerance, end)

    def set_all(self, what: str, names: list[str], values: np.ndarray, tolerances: np.ndarray, end: float) -> None:
        """Set several to values (n,), within tolerances (n,), one after the other, as long as the safe state is not wanted. Raises as ``set`` does."""
        for name, value, tolerance in zip(names, values, tolerances, strict=True):
            self.going(what)
            self.set(name, float(value), float(tolerance), end)

    @contextmanager
    def excursion(self, what: str, moves: Mapping[str, float], tolerance: float, end: float) -> Iterator[None]:
        """Controls moved for one frame, and back where they stood also when the frame fails."""
        stood = {name: self.value(name, end) for name, by in moves.items() if by}
        try:
            for name, value in stood.items():
                self.going(what)
                self.set(name, value + moves[name], tolerance, end)
            yield
        finally:
            for name, value in stood.items():
                self.set(name, value, tolerance, max(end, time.monotonic() + ANSWER_SECONDS))

    def arrived(self, name: str, value: float, tolerance: float, end: float) -> None:
        """Wait until a control reads back within ``tolerance`` of a value; raises InstrumentFault where it does not."""
        while not abs((stands := self.value(name, max(end, time.monotonic() + ANSWER_SECONDS))) - value) <= tolerance:
            if time.monotonic() > end:
                raise InstrumentFault(f"{name} was set to {value:g} and reads back {stands:g}")
            time.sleep(POLL_SECONDS)
