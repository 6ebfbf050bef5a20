"""Drivers by name. A driver is told where its instrument is as plain JSON, so that guard and guardian can each open it in their own process."""

from __future__ import annotations

import importlib
from typing import Protocol, cast

from probegym.errors import ProbeGymError
from probegym.hardware_bridge.codec import Json
from probegym.hardware_bridge.instruments import Instrument

DRIVERS = {"served": "probegym.hardware_bridge.instruments.wire"}
"""Name -> module with ``writer(told, name)`` and ``safety(told, name)``."""


class Safety(Protocol):
    """The part of an instrument that a guardian has."""

    def safe(self, seconds: float) -> None:
        """Go to the safe state; raises InstrumentFault."""

    def is_safe(self) -> bool:
        """Whether the safe state is read back now."""

    def close(self) -> None:
        """Close the connection."""


def open_writer(told: Json, name: str) -> Instrument:
    """The instrument, to write to; raises ProbeGymError when it is not there, or when another guard holds it."""
    return cast(Instrument, _module(told).writer(told, name))


def open_safety(told: Json, name: str) -> Safety:
    """A connection that can only go safe."""
    return cast(Safety, _module(told).safety(told, name))


def _module(told: Json):  # type: ignore[no-untyped-def]
    driver = told.get("driver")
    if driver not in DRIVERS:
        raise ProbeGymError(f"there is no driver {driver!r}: use one of {', '.join(DRIVERS)}")
    return importlib.import_module(DRIVERS[driver])
