"""Instruments behind one interface: what a guard needs of a driver."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from probegym.errors import ProbeGymError
from probegym.hardware_bridge.capabilities import Descriptor
from probegym.hardware_bridge.commands import Command, Readings

OLDEST_READ = 2.0  # s since a control was read back
LARGEST_READING = 1e15
FRAME = 256  # numbers from which two measurements cannot be alike by chance


class InstrumentFault(ProbeGymError):
    """The instrument did not answer as it should: what it did is not known, and a command is never sent twice."""


class Unreached(InstrumentFault):
    """Nothing answers where the instrument should be."""


@dataclass(frozen=True)
class Measured:
    """A value that the instrument reads back. age: s since it was measured."""

    values: np.ndarray
    age: float


class Instrument(Protocol):
    """One instrument. All methods raise InstrumentFault when it cannot be trusted, ``execute`` also Refused, when it did nothing.

    From ``safe`` until the next ``ready``, ``execute`` is Refused, also one that was asked for before. Between commands an electron beam
    is blanked: what is charged for is the commands.
    """

    descriptor: Descriptor

    def execute(self, command: Command, seconds: float) -> Readings:
        """Carry a command out, of one lane, within ``seconds``."""

    def measured(self) -> dict[str, Measured]:
        """What controls stand at, by the names in ``Capability.reads_back``."""

    def ready(self, seconds: float) -> None:
        """Leave the safe state, so that commands can be carried out; a tip is brought near by its feedback alone. Raises Refused where it is not safe."""

    def safe(self, seconds: float) -> None:
        """Go to the safe state, step by step, and read each step back. May be called at any time, during a command and again."""

    def is_safe(self) -> bool:
        """Whether the safe state is read back now."""

    def close(self) -> None:
        """Give the instrument up; its state stays."""
