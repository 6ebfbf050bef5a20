"""Commands of scanning-probe microscopes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np

from probegym.hardware_bridge.commands.base import Command, Shapes, Unit


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

    units: ClassVar = {"height": "m", "amplitude_error": "m", "phase": "rad"}

    pixels: int
    line_rate: Annotated[np.ndarray, Unit("Hz")]

    def takes(self) -> np.ndarray:
        return 1 / self.line_rate

    def returns(self) -> Shapes:
        return {name: (2, self.pixels) for name in ("height", "amplitude_error", "phase")}


@dataclass(frozen=True, eq=False)
class TestFeedback(Command):
    """Stand still and replace the feedback by a relay: height steps with the sign of the amplitude error.

    relay: (lanes,) m. duration: s. samples: of the amplitude error that is read back.
    """

    units: ClassVar = {"error": "m"}

    relay: Annotated[np.ndarray, Unit("m")]
    duration: Annotated[float, Unit("s")]
    samples: int

    def takes(self) -> float:
        return self.duration

    def returns(self) -> Shapes:
        return {"error": (self.samples,)}


@dataclass(frozen=True, eq=False)
class AcquireTopograph(Command):
    """Scan a constant-current STM image. shape: (rows, columns); field_of_view: width in m; speed: m/s along a line.

    centre: (lanes, 2) m, x and y on the surface. bias: V at the sample; current: setpoint in A. Readings: ``height``
    (lanes, rows, columns) in m, slow axis first; ``verdict`` (lanes,), P(good) of the classifier that judges the tip,
    0.5 where there is none.
    """

    units: ClassVar = {"height": "m"}

    shape: tuple[int, int]
    field_of_view: Annotated[float, Unit("m")]
    speed: Annotated[float, Unit("m/s")]
    centre: Annotated[np.ndarray, Unit("m", 2)]
    bias: Annotated[float, Unit("V")]
    current: Annotated[float, Unit("A")]

    def takes(self) -> float:
        return 2 * self.shape[0] * self.field_of_view / self.speed  # there and back

    def returns(self) -> Shapes:
        return {"height": self.shape, "verdict": ()}


@dataclass(frozen=True, eq=False)
class PulseBias(Command):
    """A bias pulse with the feedback held. position: (lanes, 2) m; bias: (lanes,) V; duration: s. Irreversible."""

    position: Annotated[np.ndarray, Unit("m", 2)]
    bias: Annotated[np.ndarray, Unit("V")]
    duration: Annotated[float, Unit("s")]

    def takes(self) -> float:
        return self.duration


@dataclass(frozen=True, eq=False)
class DipTip(Command):
    """Push the tip into the surface and draw it out. position: (lanes, 2) m; depth: (lanes,) m below the setpoint.

    bias: V during the dip; duration: s. Irreversible.
    """

    position: Annotated[np.ndarray, Unit("m", 2)]
    depth: Annotated[np.ndarray, Unit("m")]
    bias: Annotated[float, Unit("V")]
    duration: Annotated[float, Unit("s")]

    def takes(self) -> float:
        return self.duration


@dataclass(frozen=True, eq=False)
class LocateAdatoms(Command):
    """Scan a constant-current STM image and have the adatom finder read it. shape: (rows, columns); field_of_view: width in m.

    speed: m/s along a line; centre: (lanes, 2) m; bias: V at the sample; current: setpoint in A; at most ``count`` adatoms;
    image: whether the image itself is wanted. Readings: ``position`` (lanes, count, 2) m, an adatom keeps its index; ``found``
    (lanes, count) bool; and ``height`` (lanes, rows, columns) in m if asked for.
    """

    flags = ("found",)
    units: ClassVar = {"position": "m", "height": "m"}

    shape: tuple[int, int]
    field_of_view: Annotated[float, Unit("m")]
    speed: Annotated[float, Unit("m/s")]
    centre: Annotated[np.ndarray, Unit("m", 2)]
    bias: Annotated[float, Unit("V")]
    current: Annotated[float, Unit("A")]
    count: int
    image: bool

    def takes(self) -> float:
        return 2 * self.shape[0] * self.field_of_view / self.speed  # there and back

    def returns(self) -> Shapes:
        told: Shapes = {"position": (self.count, 2), "found": (self.count,)}
        return told | {"height": self.shape} if self.image else told


@dataclass(frozen=True, eq=False)
class DragTip(Command):
    """Approach to the setpoint at ``start``, drag the tip at constant height in a straight line to ``end``, retract. Irreversible.

    start, end: (lanes, 2) m; bias: (lanes,) V; current: (lanes,) A, the setpoint; speed: m/s. Readings: ``trace``
    (lanes, samples) A, the current along the way.
    """

    units: ClassVar = {"trace": "A"}

    start: Annotated[np.ndarray, Unit("m", 2)]
    end: Annotated[np.ndarray, Unit("m", 2)]
    bias: Annotated[np.ndarray, Unit("V")]
    current: Annotated[np.ndarray, Unit("A")]
    speed: Annotated[float, Unit("m/s")]
    samples: int

    def takes(self) -> np.ndarray:
        return np.asarray(np.hypot(*(self.end - self.start).T) / self.speed)

    def returns(self) -> Shapes:
        return {"trace": (self.samples,)}
