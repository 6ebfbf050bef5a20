"""What the descriptions of all twins share: their form, the steps to the safe state, and bounds on what a scenario can draw."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from probegym.hardware_bridge.capabilities import ANGSTROM, ELEMENTARY_CHARGE, Capability, Descriptor, Kind, Numbers, Range
from probegym.physics.optics import wavelength
from probegym.scenarios.distributions import Distribution

SAFE_STEPS: dict[str, tuple[str, ...]] = {
    "stem": ("blank the beam", "close the column valve"),
    "afm": ("stop the scan", "withdraw the tip", "drive off"),
    "stm": ("feedback off", "withdraw the tip", "bias to zero"),
    "laboratory": ("stop all instruments",),
}
"""Kind of instrument -> what brings it to its safe state, in order."""

REGION = 1e-6  # m, side of the squares of the sample for which dose is counted


@dataclass(frozen=True)
class Description:
    """A twin as an instrument. rest: what its controls read back before anything was set, by the names in ``Capability.reads_back``."""

    descriptor: Descriptor
    rest: dict[str, np.ndarray]


def description(name: str, kind: Kind, verbs: dict[str, Capability], rest: dict[str, np.ndarray] | None = None, region: float = REGION) -> Description:
    """What a twin of some kind of instrument is, with the kind's way to the safe state; see Description, Descriptor. region: m."""
    return Description(Descriptor(name=name, kind=kind, capabilities=verbs, safe=SAFE_STEPS[kind], region=region), rest or {})


def span(limits: tuple[Numbers, Numbers]) -> Range:
    """A range without more."""
    return Range(low=limits[0], high=limits[1])


def around(most: float) -> Range:
    """From -most to most, in the unit of what is limited."""
    return Range(low=-most, high=most)


def highest(drawn: Distribution, most: float) -> float:
    """The largest number that a scenario can draw, in its unit; ``most``: beyond it the twin refuses the episode."""
    values = drawn.choice or drawn.uniform or drawn.log_uniform
    return min(max(values), most) if values else most


def spot(energy: float, semiangle_cutoff: float) -> float:
    """Least area that a probe covers, m^2: where the whole current would have the density of the peak of an Airy disc, lambda^2 / (pi alpha^2).

    energy: eV; semiangle_cutoff: rad. Source: Born & Wolf, Principles of Optics (1999), 8.5.2, 10.1017/CBO9781139644181.
    """
    return float((wavelength(energy) / semiangle_cutoff) ** 2 / np.pi)


def flux(current: float, area: float) -> float:
    """Electrons per square Angstrom and second of a current in A on an area in m^2."""
    return float(current / ELEMENTARY_CHARGE / (area / ANGSTROM**2))
