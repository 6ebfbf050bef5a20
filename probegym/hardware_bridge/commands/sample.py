"""Commands about the sample: its conditions, and the instruments that it is brought to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np

from probegym.hardware_bridge.commands.base import DOSE, Command, Shapes, Unit


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
class InspectLevels(Command):
    """Ask which instruments can measure the sample, what each takes, and what the outlines of its objects are; free of cost.

    Readings, (lanes, ...) each: ``names`` (levels, 32) code points, zeros fill up; ``labels`` (rows, rows) of the objects from
    1, 0 between them; ``view`` m; ``seconds`` (levels, levels) from the row's instrument to a map by the column's; ``psf`` and
    ``side`` m, ``noise``, ``scatter``, ``offset`` (levels,); ``field`` (2,), share and length (m) of what the objects have in common; ``correlations``, NaN where they are not told.
    """

    units: ClassVar = {"view": "m", "seconds": "s", "psf": "m", "side": "m", "dose": DOSE}

    def returns(self) -> Shapes:
        return {name: None for name in ("names", "labels", "view", "seconds", "psf", "side", "noise", "scatter", "offset", "dose", "field", "correlations")}


@dataclass(frozen=True, eq=False)
class MeasureLevel(Command):
    """Bring the sample to an instrument and map it around a position. level: name; position: (lanes, 2) m on the sample.

    Readings: ``signal`` (lanes, rows, columns) in the quantity's own unit.
    """

    level: str
    position: Annotated[np.ndarray, Unit("m", 2)]

    def returns(self) -> Shapes:
        return {"signal": None}
