"""What commands and readings have in common."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import ClassVar

import numpy as np

DOSE = "e/angstrom^2"
"""Unit of a dose: electrons per square Angstrom."""

Shapes = dict[str, tuple[int, ...] | None]
"""Name of a reading -> its shape for one lane."""


@dataclass(frozen=True)
class Unit:
    """The unit of a command's field, in its annotation. An array has a leading axis of lanes, a plain number is the same for all.

    components: how many numbers a lane has of it, or the name of the field whose names they go by; None for a single number.
    """

    symbol: str
    components: int | str | None = None


@dataclass(frozen=True, eq=False)
class Command:
    """Base of all commands: knows its verb and can be written as plain arrays for a record."""

    flags: ClassVar[tuple[str, ...]] = ()  # readings that are true or false
    units: ClassVar[dict[str, str]] = {}  # of readings; all others are counts, shares, labels, or in a detector's own unit

    @property
    def verb(self) -> str:
        """The command's name in records."""
        return type(self).__name__

    def arguments(self) -> dict[str, np.ndarray]:
        """Field name -> array, in the unit of its annotation, for records and comparison."""
        return {f.name: np.asarray(getattr(self, f.name)) for f in fields(self)}

    def takes(self) -> np.ndarray | float:
        """Seconds that it takes, (lanes,) or the same for all, without what an instrument adds to it."""
        return 0.0

    def exposure(self) -> np.ndarray | float:
        """Seconds for which the probe stays at each place that it visits, (lanes,) or the same for all."""
        return self.takes()

    def area(self) -> float | None:
        """Square metres that one exposure spreads over; None where the command does not say."""
        return None

    def returns(self) -> Shapes:
        """Readings by name, each with its shape for one lane; None where only the instrument knows."""
        return {}


@dataclass(frozen=True, eq=False)
class Readings:
    """What came back: values by name, each (lanes, ...), and what it cost. Lanes not asked hold zeros.

    time: s. dose: electrons per square Angstrom, averaged over the exposed area. damage: events. measurements: frames,
    spectra or lines acquired.
    """

    values: dict[str, np.ndarray]
    time: np.ndarray
    dose: np.ndarray
    damage: np.ndarray
    measurements: np.ndarray

    COSTS = ("time", "dose", "damage", "measurements")


Lanes = dict[str, np.ndarray]
"""State of a batch: every array has a leading axis of lanes."""


@dataclass
class LaneState:
    """One lane's share of a batch state, small enough to keep and to pickle."""

    arrays: Lanes = field(default_factory=dict)

    @classmethod
    def take(cls, lanes: Lanes, lane: int) -> LaneState:
        """Copy one lane out."""
        return cls({name: array[lane].copy() for name, array in lanes.items()})

    def put(self, lanes: Lanes, lane: int) -> None:
        """Write it into a lane of a batch of the same kind."""
        for name, array in self.arrays.items():
            lanes[name][lane] = array
