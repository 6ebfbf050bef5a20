"""Commands to an instrument's own controls, which no task gives: an operator, the guard or a program does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np

from probegym.hardware_bridge.commands.base import Command, Unit


@dataclass(frozen=True, eq=False)
class BlankBeam(Command):
    """Keep the electron beam off the sample, or let exposures have it again."""

    blanked: bool


@dataclass(frozen=True, eq=False)
class ShiftBeam(Command):
    """Deflect the beam at the sample. shift: (lanes, 2) m, from where the deflectors are at zero."""

    shift: Annotated[np.ndarray, Unit("m", 2)]


@dataclass(frozen=True, eq=False)
class MoveStage(Command):
    """Bring the stage to a place. position: (lanes, 3) m; tilt: (lanes, 2) rad, alpha and beta."""

    position: Annotated[np.ndarray, Unit("m", 3)]
    tilt: Annotated[np.ndarray, Unit("rad", 2)]


@dataclass(frozen=True, eq=False)
class AutoTune(Command):
    """Start a tuning routine that the instrument offers itself. routine: its name."""

    routine: str


@dataclass(frozen=True, eq=False)
class Approach(Command):
    """Bring the tip to the surface until the feedback holds its setpoint. Irreversible: a tip can crash."""


@dataclass(frozen=True, eq=False)
class Withdraw(Command):
    """Switch the feedback off and draw the tip all the way back."""


@dataclass(frozen=True, eq=False)
class SetBias(Command):
    """Set the bias of the sample. bias: (lanes,) V."""

    bias: Annotated[np.ndarray, Unit("V")]


@dataclass(frozen=True, eq=False)
class SetTunnelling(Command):
    """Set the height feedback of an STM. current: (lanes,) A, the setpoint; proportional: (lanes,) m; time_constant: (lanes,) s."""

    current: Annotated[np.ndarray, Unit("A")]
    proportional: Annotated[np.ndarray, Unit("m")]
    time_constant: Annotated[np.ndarray, Unit("s")]


@dataclass(frozen=True, eq=False)
class MoveTip(Command):
    """Move the tip along the surface with the feedback on. position: (lanes, 2) m; speed: m/s."""

    position: Annotated[np.ndarray, Unit("m", 2)]
    speed: Annotated[float, Unit("m/s")]
