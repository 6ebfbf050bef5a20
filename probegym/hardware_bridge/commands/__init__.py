"""The commands a task gives to a world and the readings it gets back. SI units, Krivanek Cartesian aberrations.

A command carries arrays with a leading axis of lanes; an instrument is the case of one lane. Setpoints are absolute,
so a command that was sent twice does no harm.
"""

from __future__ import annotations

from probegym.hardware_bridge.commands.base import DOSE, Command, Lanes, LaneState, Readings, Shapes, Unit
from probegym.hardware_bridge.commands.controls import (
    Approach,
    AutoTune,
    BlankBeam,
    MoveStage,
    MoveTip,
    SetBias,
    SetTunnelling,
    ShiftBeam,
    Withdraw,
)
from probegym.hardware_bridge.commands.electron import (
    AcquireImage,
    AcquireRonchigram,
    AcquireSpectrum,
    ClassifyAtoms,
    LocateAtoms,
    PlaceProbe,
    SetAberrations,
)
from probegym.hardware_bridge.commands.sample import InspectLevels, MeasureLevel, SetConditions
from probegym.hardware_bridge.commands.tip import (
    AcquireTopograph,
    DipTip,
    DragTip,
    LocateAdatoms,
    PulseBias,
    ScanLine,
    SetFeedback,
    TestFeedback,
)

__all__ = [
    "DOSE",
    "AcquireImage",
    "AcquireRonchigram",
    "AcquireSpectrum",
    "AcquireTopograph",
    "Approach",
    "AutoTune",
    "BlankBeam",
    "ClassifyAtoms",
    "Command",
    "DipTip",
    "DragTip",
    "InspectLevels",
    "LaneState",
    "Lanes",
    "LocateAdatoms",
    "LocateAtoms",
    "MeasureLevel",
    "MoveStage",
    "MoveTip",
    "PlaceProbe",
    "PulseBias",
    "Readings",
    "ScanLine",
    "SetAberrations",
    "SetBias",
    "SetConditions",
    "SetFeedback",
    "SetTunnelling",
    "Shapes",
    "ShiftBeam",
    "TestFeedback",
    "Unit",
    "Withdraw",
]
