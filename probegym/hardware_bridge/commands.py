"""The commands a task gives to a world and the readings it gets back. SI units, Krivanek Cartesian aberrations.

A command carries arrays with a leading axis of lanes; an instrument is the case of one lane. Set points are absolute,
so a command that was sent twice does no harm.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Annotated

import numpy as np


@dataclass(frozen=True)
class Unit:
    """The unit of a command's field, in its annotation. An array has a leading axis of lanes, a plain number is the same for all."""

    symbol: str


@dataclass(frozen=True, eq=False)
class Command:
    """Base of all commands: knows its verb and can be written as plain arrays for a record."""

    @property
    def verb(self) -> str:
        """The command's name in records."""
        return type(self).__name__

    def arguments(self) -> dict[str, np.ndarray]:
        """Field name -> array, for records and comparison."""
        return {f.name: np.asarray(getattr(self, f.name)) for f in fields(self)}

    def takes(self) -> np.ndarray | float:
        """Seconds that it takes, (lanes,) or the same for all, without what an instrument adds to it."""
        return 0.0

    def exposure(self) -> np.ndarray | float:
        """Seconds for which the probe stays at each place that it visits."""
        return self.takes()

    def area(self) -> float | None:
        """Square metres that one exposure spreads over; None where the command does not say."""
        return None


@dataclass(frozen=True, eq=False)
class SetAberrations(Command):
    """Set the aberration controls. names: coefficients; values: (lanes, n) set points in m."""

    names: tuple[str, ...]
    values: Annotated[np.ndarray, Unit("m")]


@dataclass(frozen=True, eq=False)
class AcquireImage(Command):
    """Scan an image. detector: name; shape: (rows, columns); field_of_view: width in m; dwell_time: s per pixel.

    defocus: (lanes,) m, a known excursion of C10 for this frame only, taken back afterwards.
    """

    detector: str
    shape: tuple[int, int]
    field_of_view: Annotated[float, Unit("m")]
    dwell_time: Annotated[float, Unit("s")]
    defocus: Annotated[np.ndarray, Unit("m")]

    def takes(self) -> float:
        return self.shape[0] * self.shape[1] * self.dwell_time

    def exposure(self) -> float:
        return self.dwell_time

    def area(self) -> float:
        return (self.field_of_view / self.shape[1]) ** 2


@dataclass(frozen=True, eq=False)
class AcquireRonchigram(Command):
    """Record a Ronchigram with the large aperture. shape: (rows, columns); exposure_time: s.

    defocus: (lanes,) m, a known excursion of C10 for this frame only. film_shift: (lanes, 2) m, known displacement of
    the probe on the film for this frame only.
    """

    shape: tuple[int, int]
    exposure_time: Annotated[float, Unit("s")]
    defocus: Annotated[np.ndarray, Unit("m")]
    film_shift: Annotated[np.ndarray, Unit("m")]

    def takes(self) -> float:
        return self.exposure_time


@dataclass(frozen=True, eq=False)
class SetFeedback(Command):
    """Set the height feedback of a tapping-mode AFM; every field (lanes,).

    proportional: m of height per m of amplitude error. integral: the same per second. setpoint: amplitude in m.
    drive: free amplitude in m that the excitation gave when the cantilever was tuned. feed_forward: weight from 0 to 1
    of the line before, added to the height command.
    """

    proportional: Annotated[np.ndarray, Unit("m/m")]
    integral: Annotated[np.ndarray, Unit("m/m/s")]
    setpoint: Annotated[np.ndarray, Unit("m")]
    drive: Annotated[np.ndarray, Unit("m")]
    feed_forward: Annotated[np.ndarray, Unit("1")]


@dataclass(frozen=True, eq=False)
class ScanLine(Command):
    """Scan the next line there and back. pixels: each way. line_rate: (lanes,) Hz, both ways in one period."""

    pixels: int
    line_rate: Annotated[np.ndarray, Unit("Hz")]

    def takes(self) -> np.ndarray:
        return 1 / self.line_rate


@dataclass(frozen=True, eq=False)
class TestFeedback(Command):
    """Stand still and replace the feedback by a relay: height steps with the sign of the amplitude error.

    relay: (lanes,) m. duration: s. samples: of the amplitude error that is read back.
    """

    relay: Annotated[np.ndarray, Unit("m")]
    duration: Annotated[float, Unit("s")]
    samples: int

    def takes(self) -> float:
        return self.duration


@dataclass(frozen=True, eq=False)
class AcquireTopograph(Command):
    """Scan a constant-current STM image. shape: (rows, columns); field_of_view: width in m; speed: m/s along a line.

    centre: (lanes, 2) m, x and y on the surface. bias: V at the sample; current: set point in A. Readings: ``height``
    (lanes, rows, columns) in m, slow axis first; ``verdict`` (lanes,), P(good) of the classifier that judges the tip.
    """

    shape: tuple[int, int]
    field_of_view: Annotated[float, Unit("m")]
    speed: Annotated[float, Unit("m/s")]
    centre: Annotated[np.ndarray, Unit("m")]
    bias: Annotated[float, Unit("V")]
    current: Annotated[float, Unit("A")]

    def takes(self) -> float:
        return 2 * self.shape[0] * self.field_of_view / self.speed  # there and back


@dataclass(frozen=True, eq=False)
class PulseBias(Command):
    """A bias pulse with the feedback held. position: (lanes, 2) m; bias: (lanes,) V; duration: s. Irreversible."""

    position: Annotated[np.ndarray, Unit("m")]
    bias: Annotated[np.ndarray, Unit("V")]
    duration: Annotated[float, Unit("s")]

    def takes(self) -> float:
        return self.duration


@dataclass(frozen=True, eq=False)
class DipTip(Command):
    """Push the tip into the surface and draw it out. position: (lanes, 2) m; depth: (lanes,) m below the set point.

    bias: V during the dip; duration: s. Irreversible.
    """

    position: Annotated[np.ndarray, Unit("m")]
    depth: Annotated[np.ndarray, Unit("m")]
    bias: Annotated[float, Unit("V")]
    duration: Annotated[float, Unit("s")]

    def takes(self) -> float:
        return self.duration


@dataclass(frozen=True, eq=False)
class AcquireSpectrum(Command):
    """Measure one spectrum. detector: name; position: (lanes, 2) m, x and y from the image's first pixel; exposure_time: s.

    Readings: ``spectrum`` (lanes, channels) and ``axis`` (channels,) in the detector's own unit, repeated for each lane.
    """

    detector: str
    position: Annotated[np.ndarray, Unit("m")]
    exposure_time: Annotated[float, Unit("s")]

    def takes(self) -> float:
        return self.exposure_time


@dataclass(frozen=True, eq=False)
class InspectLevels(Command):
    """Ask which instruments can measure the sample, what each takes, and what the outlines of its objects are; free of cost.

    Readings, (lanes, ...) each: ``names`` (levels, 32) code points, zeros fill up; ``labels`` (rows, rows) of the objects from
    1, 0 between them; ``view`` m; ``seconds`` (levels, levels) from the row's instrument to a map by the column's; ``psf`` and
    ``side`` m, ``noise``, ``scatter``, ``offset`` (levels,); ``field`` (2,), share and length (m) of what the objects have in common; ``correlations``, NaN where they are not told.
    """


@dataclass(frozen=True, eq=False)
class MeasureLevel(Command):
    """Bring the sample to an instrument and map it around a position. level: name; position: (lanes, 2) m on the sample.

    Readings: ``signal`` (lanes, rows, columns) in the quantity's own unit.
    """

    level: str
    position: Annotated[np.ndarray, Unit("m")]


@dataclass(frozen=True, eq=False)
class LocateAtoms(Command):
    """Scan a STEM image and have the atom finder read it. detector: name; shape: (rows, columns); field_of_view: width in m.

    centre: (lanes, 2) m, x and y on the sample; dwell_time: s per pixel; species: symbol of the atoms to find, at most ``count``;
    image: whether the image itself is wanted. Readings: ``position`` (lanes, count, 2) m, an atom keeps its index; ``found``
    (lanes, count) bool; ``neighbours`` (lanes, count, 3, 2) m, vectors to the three nearest lattice sites; ``folds``
    (lanes, count), bonds of the atom, 0 where it was not found; and ``image`` (lanes, rows, columns) if asked for.
    """

    detector: str
    shape: tuple[int, int]
    field_of_view: Annotated[float, Unit("m")]
    centre: Annotated[np.ndarray, Unit("m")]
    dwell_time: Annotated[float, Unit("s")]
    species: str
    count: int
    image: bool

    def takes(self) -> float:
        return self.shape[0] * self.shape[1] * self.dwell_time

    def exposure(self) -> float:
        return self.dwell_time

    def area(self) -> float:
        return (self.field_of_view / self.shape[1]) ** 2


@dataclass(frozen=True, eq=False)
class PlaceProbe(Command):
    """Park the beam at a place of the sample, then blank it. position: (lanes, 2) m; dwell_time: (lanes,) s. Irreversible."""

    position: Annotated[np.ndarray, Unit("m")]
    dwell_time: Annotated[np.ndarray, Unit("s")]

    def takes(self) -> np.ndarray:
        return self.dwell_time


@dataclass(frozen=True, eq=False)
class LocateAdatoms(Command):
    """Scan a constant-current STM image and have the adatom finder read it. shape: (rows, columns); field_of_view: width in m.

    speed: m/s along a line; centre: (lanes, 2) m; bias: V at the sample; current: set point in A; at most ``count`` adatoms;
    image: whether the image itself is wanted. Readings: ``position`` (lanes, count, 2) m, an adatom keeps its index; ``found``
    (lanes, count) bool; and ``height`` (lanes, rows, columns) in m if asked for.
    """

    shape: tuple[int, int]
    field_of_view: Annotated[float, Unit("m")]
    speed: Annotated[float, Unit("m/s")]
    centre: Annotated[np.ndarray, Unit("m")]
    bias: Annotated[float, Unit("V")]
    current: Annotated[float, Unit("A")]
    count: int
    image: bool

    def takes(self) -> float:
        return 2 * self.shape[0] * self.field_of_view / self.speed  # there and back


@dataclass(frozen=True, eq=False)
class DragTip(Command):
    """Approach to the set point at ``start``, drag the tip at constant height in a straight line to ``end``, retract. Irreversible.

    start, end: (lanes, 2) m; bias: (lanes,) V; current: (lanes,) A, the set point; speed: m/s. Readings: ``trace``
    (lanes, samples) A, the current along the way.
    """

    start: Annotated[np.ndarray, Unit("m")]
    end: Annotated[np.ndarray, Unit("m")]
    bias: Annotated[np.ndarray, Unit("V")]
    current: Annotated[np.ndarray, Unit("A")]
    speed: Annotated[float, Unit("m/s")]
    samples: int

    def takes(self) -> np.ndarray:
        return np.asarray(np.hypot(*(self.end - self.start).T) / self.speed)


@dataclass(frozen=True, eq=False)
class SetConditions(Command):
    """Bring the sample to a temperature and a field and hold it there.

    temperature: (lanes,) K; field: (lanes,) eV, energy of an atom's state in it; hold: (lanes,) s.
    """

    temperature: Annotated[np.ndarray, Unit("K")]
    field: Annotated[np.ndarray, Unit("eV")]
    hold: Annotated[np.ndarray, Unit("s")]

    def takes(self) -> np.ndarray:
        return self.hold


@dataclass(frozen=True, eq=False)
class ClassifyAtoms(Command):
    """Scan a region of a lattice atom by atom and classify each. detector: name; shape: (rows, columns) of atoms.

    centre: (lanes, 2) m; dwell_time: (lanes,) s per atom. Readings: ``labels`` (lanes, rows, columns) int8, +1 or -1.
    """

    detector: str
    shape: tuple[int, int]
    centre: Annotated[np.ndarray, Unit("m")]
    dwell_time: Annotated[np.ndarray, Unit("s")]

    def takes(self) -> np.ndarray:
        return self.shape[0] * self.shape[1] * self.dwell_time

    def exposure(self) -> np.ndarray:
        return self.dwell_time


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
