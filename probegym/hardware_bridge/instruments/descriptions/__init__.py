"""The twins as instruments: what each can do, within which limits, and what a command can cost at worst.

A twin's description stands in a module of the name of the twin's own, which is imported when it is asked for: an instrument's process has one twin.
"""

from __future__ import annotations

from importlib import import_module

from probegym.errors import ProbeGymError
from probegym.hardware_bridge.instruments.descriptions.base import SAFE_STEPS, Description
from probegym.hardware_bridge.instruments.descriptions.vocabulary import vocabulary

TWINS = "probegym.hardware_bridge.twins"
DESCRIBED = {
    "StemTwin": "stem", "GrapheneTwin": "graphene", "IsingTwin": "ising", "StmTwin": "stm", "AdatomTwin": "adatoms", "AfmTwin": "afm", "SpectraTwin": "spectra",
    "FlakesTwin": "flakes",
}  # fmt: skip
"""Class of a twin -> its module in TWINS, and that of its description here."""


def describe(world: object) -> Description:
    """A twin as an instrument, for every episode of its scenario; raises ProbeGymError for another world."""
    for kind in type(world).__mro__:
        if kind.__module__ == f"{TWINS}.{DESCRIBED.get(kind.__name__)}":
            described: Description = import_module(f"{__name__}.{DESCRIBED[kind.__name__]}").describe(world)
            return described
    raise ProbeGymError(f"{type(world).__name__} is not described as an instrument: use one of {', '.join(DESCRIBED)}")


__all__ = ["DESCRIBED", "SAFE_STEPS", "Description", "describe", "vocabulary"]
