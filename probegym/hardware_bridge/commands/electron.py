"""Commands of electron microscopes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np

from probegym.hardware_bridge.commands.base import Command, Shapes, Unit


@dataclass(frozen=True, eq=False)
class SetAberrations(Command):
    """Set the aberration controls. names: coefficients; values: (lanes, n) setpoints in m."""

    names: tuple[str, ...]
    values: Annotated[np.ndarray, Unit("m", "names")]


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

    def returns(self) -> Shapes:
        return {self.detector: self.shape}


@dataclass(frozen=True, eq=False)
class AcquireRonchigram(Command):
    """Record a Ronchigram with the large aperture. shape: (rows, columns); exposure_time: s.

    defocus: (lanes,) m, a known excursion of C10 for this frame only. film_shift: (lanes, 2) m, known displacement of
    the probe on the film for this frame only.
    """

    shape: tuple[int, int]
    exposure_time: Annotated[float, Unit("s")]
    defocus: Annotated[np.ndarray, Unit("m")]
    film_shift: Annotated[np.ndarray, Unit("m", 2)]

    def takes(self) -> float:
        return self.exposure_time

    def returns(self) -> Shapes:
        return {"ronchigram": self.shape}


@dataclass(frozen=True, eq=False)
class AcquireSpectrum(Command):
    """Measure one spectrum. detector: name; position: (lanes, 2) m, x and y from the image's first pixel; exposure_time: s.

    Readings: ``spectrum`` (lanes, channels) and ``axis`` (channels,) in the detector's own unit, repeated for each lane.
    """

    detector: str
    position: Annotated[np.ndarray, Unit("m", 2)]
    exposure_time: Annotated[float, Unit("s")]

    def takes(self) -> float:
        return self.exposure_time

    def returns(self) -> Shapes:
        return {"spectrum": None, "axis": None}


@dataclass(frozen=True, eq=False)
class LocateAtoms(Command):
    """Scan a STEM image and have the atom finder read it. detector: name; shape: (rows, columns); field_of_view: width in m.

    centre: (lanes, 2) m, x and y on the sample; dwell_time: s per pixel; species: symbol of the atoms to find, at most ``count``;
    image: whether the image itself is wanted. Readings: ``position`` (lanes, count, 2) m, an atom keeps its index; ``found``
    (lanes, count) bool; ``neighbours`` (lanes, count, 3, 2) m, vectors to the three nearest lattice sites; ``folds``
    (lanes, count), bonds of the atom, 0 where it was not found; and ``image`` (lanes, rows, columns) if asked for.
    """

    flags = ("found",)
    units: ClassVar = {"position": "m", "neighbours": "m"}

    detector: str
    shape: tuple[int, int]
    field_of_view: Annotated[float, Unit("m")]
    centre: Annotated[np.ndarray, Unit("m", 2)]
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

    def returns(self) -> Shapes:
        n = self.count
        told: Shapes = {"position": (n, 2), "found": (n,), "neighbours": (n, 3, 2), "folds": (n,)}
        return told | {"image": self.shape} if self.image else told


@dataclass(frozen=True, eq=False)
class PlaceProbe(Command):
    """Park the beam at a place of the sample, then blank it. position: (lanes, 2) m; dwell_time: (lanes,) s. Irreversible."""

    position: Annotated[np.ndarray, Unit("m", 2)]
    dwell_time: Annotated[np.ndarray, Unit("s")]

    def takes(self) -> np.ndarray:
        return self.dwell_time


@dataclass(frozen=True, eq=False)
class ClassifyAtoms(Command):
    """Scan a region of a lattice atom by atom and classify each. detector: name; shape: (rows, columns) of atoms.

    centre: (lanes, 2) m; dwell_time: (lanes,) s per atom. Readings: ``labels`` (lanes, rows, columns) int8, +1 or -1.
    """

    detector: str
    shape: tuple[int, int]
    centre: Annotated[np.ndarray, Unit("m", 2)]
    dwell_time: Annotated[np.ndarray, Unit("s")]

    def takes(self) -> np.ndarray:
        return self.shape[0] * self.shape[1] * self.dwell_time

    def exposure(self) -> np.ndarray:
        return self.dwell_time

    def returns(self) -> Shapes:
        return {"labels": self.shape}
