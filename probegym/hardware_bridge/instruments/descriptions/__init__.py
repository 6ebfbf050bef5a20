"""The twins as instruments: what each can do, within which limits, and what a command can cost at worst."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from probegym.errors import ProbeGymError
from probegym.hardware_bridge.instruments.descriptions import electron, sample, tip
from probegym.hardware_bridge.instruments.descriptions.base import SAFE_STEPS, Description
from probegym.hardware_bridge.instruments.descriptions.vocabulary import vocabulary
from probegym.hardware_bridge.twins.adatoms import AdatomTwin
from probegym.hardware_bridge.twins.afm import AfmTwin
from probegym.hardware_bridge.twins.flakes import FlakesTwin
from probegym.hardware_bridge.twins.graphene import GrapheneTwin
from probegym.hardware_bridge.twins.ising import IsingTwin
from probegym.hardware_bridge.twins.spectra import SpectraTwin
from probegym.hardware_bridge.twins.stem import StemTwin
from probegym.hardware_bridge.twins.stm import StmTwin

DESCRIBED: dict[type, Callable[[Any], Description]] = {
    StemTwin: electron.stem,
    GrapheneTwin: electron.graphene,
    IsingTwin: electron.lattice,
    StmTwin: tip.stm,
    AdatomTwin: tip.adatoms,
    AfmTwin: tip.afm,
    SpectraTwin: sample.spectra,
    FlakesTwin: sample.laboratory,
}
"""Class of a twin -> what describes one of its objects."""


def describe(world: object) -> Description:
    """A twin as an instrument, for every episode of its scenario; raises ProbeGymError for another world."""
    for kind, of in DESCRIBED.items():
        if isinstance(world, kind):
            return of(world)
    raise ProbeGymError(f"{type(world).__name__} is not described as an instrument: use one of {', '.join(kind.__name__ for kind in DESCRIBED)}")


__all__ = ["DESCRIBED", "SAFE_STEPS", "Description", "describe", "vocabulary"]
