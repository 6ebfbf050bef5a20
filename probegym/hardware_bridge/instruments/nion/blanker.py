"""The beam blanker of a Nion instrument: closed but for an exposure, read back both ways, and never opened late.

Nion's own acquisitions close ``C_Blank`` for dark frames and wait 50 ms for it (MultiAcquire of nionswift-instrumentation 23.6.2): it is meant to be
switched for each.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from probegym.hardware_bridge.instruments import InstrumentFault
from probegym.hardware_bridge.instruments.nion.calls import within
from probegym.hardware_bridge.instruments.nion.controls import ANSWER_SECONDS, Controls

BLANKER = "C_Blank"
BLANKED, OPEN = 1.0, 0.0


@dataclass
class Lit:
    """The beam on the sample. end: until when the exposure must be over, of ``time.monotonic``; on: s that it was, known once it is blanked again."""

    end: float
    on: float = 0.0


class Blanker:
    """settle: s until the blanker is open. most: s that the beam may be on beyond an exposure, the settling within."""

    def __init__(self, controls: Controls, settle: float, most: float):
        self.controls, self.settle, self.most = controls, settle, most
        self._turn, self._exposing = threading.Lock(), False

    def closed(self) -> bool:
        """Whether the blanker reads back closed now."""
        return self.controls.value(BLANKER, time.monotonic() + ANSWER_SECONDS) == BLANKED

    def close(self, end: float) -> None:
        """Keep the beam off the sample, and see the blanker read back so by ``end`` (s, of ``time.monotonic``); also while somebody else is at it."""
        self._exposing = False
        held = self._turn.acquire(timeout=max(0.0, min(ANSWER_SECONDS, end - time.monotonic())))
        try:
            self._set(BLANKED, end)
        finally:
            if held:
                self._turn.release()

    @contextmanager
    def lit(self, what: str, seconds: float, end: float) -> Iterator[Lit]:
        """The beam on the sample for an exposure of ``seconds``; blanked again after it, also when it fails.

        Raises InstrumentFault where the beam was on before, where it is blanked before its end or not afterwards, or was on for longer than is charged for.
        """
        if not self.closed():
            self.close(end)
            raise InstrumentFault(f"{what}: somebody has opened the blanker, what the sample got since is not known")
        most, began = seconds + self.most, time.monotonic()
        lit = Lit(min(end, began + most))
        try:
            self._open(lit.end)
            if self.controls.wanted_safe.wait(self.settle):
                self.controls.going(what)
            yield lit
            self.controls.going(what)
            if self.controls.value(BLANKER, time.monotonic() + ANSWER_SECONDS) != OPEN:
                raise InstrumentFault(f"{what}: somebody has closed the blanker meanwhile, what was taken may be dark")
        finally:
            self.close(max(end, time.monotonic() + ANSWER_SECONDS))
            lit.on = time.monotonic() - began
        if lit.on > most:
            raise InstrumentFault(f"{what}: the beam was on the sample for {lit.on:.3g} s, at most {most:.3g} s are charged for")

    def _open(self, end: float) -> None:
        """Let the beam through; never once the safe state is wanted."""
        with self._turn:
            self.controls.going("opening the blanker")
            self._exposing = True
            self._set(OPEN, end)

    def _set(self, value: float, end: float) -> None:
        if within(end, "the blanker", lambda: self._told(value)) is not True:
            raise InstrumentFault("the blanker was not set: the instrument has none, or refuses")
        self.controls.arrived(BLANKER, value, 0.0, end)

    def _told(self, value: float) -> bool:
        """What the vendor answers, perhaps late: a blanker that opens when nobody waits for it any more is closed again."""
        done = bool(self.controls.stem.SetVal(BLANKER, value))
        if value == OPEN and (not self._exposing or self.controls.wanted_safe.is_set()):
            self.controls.stem.SetVal(BLANKER, BLANKED)
        return done
