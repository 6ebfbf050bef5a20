"""Calls into a vendor's software that may fail or never come back: each has a deadline."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

from probegym.hardware_bridge.instruments import InstrumentFault

T = TypeVar("T")


def within(end: float, what: str, call: Callable[[], T]) -> T:
    """What a call returns, made in a thread of its own. end: s, of ``time.monotonic``. Raises InstrumentFault when it fails, or is not back by then."""
    told: list[T] = []
    failed: list[BaseException] = []

    def run() -> None:
        try:
            told.append(call())
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(max(0.0, end - time.monotonic()))
    if failed:
        raise InstrumentFault(f"{what} failed ({type(failed[0]).__name__}: {str(failed[0])[:200]})") from failed[0]
    if not told:
        raise InstrumentFault(f"{what} did not come back in time: what it did is not known")
    return told[0]
