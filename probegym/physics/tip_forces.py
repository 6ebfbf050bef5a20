"""Force between tip and sample: van der Waals, DMT contact, Kelvin-Voigt dissipation, electrostatics, capillary neck.

Garcia & San Paulo, Phys. Rev. B 60, 4961 (1999), 10.1103/PhysRevB.60.4961 (force law); Garcia et al., Phys. Rev. Lett. 97,
016103 (2006), 10.1103/PhysRevLett.97.016103 (viscosity); Zitzler, Herminghaus & Mugele, Phys. Rev. B 66, 155436 (2002),
10.1103/PhysRevB.66.155436 (capillary neck with hysteresis).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import constants

from probegym.errors import ProbeGymError

CONTACT = 0.165e-9
"""Intermolecular distance a0 in m: closer than that tip and sample are in contact."""


@dataclass(frozen=True)
class Interaction:
    """Tip and sample; numbers or arrays that broadcast.

    radius: m. hamaker: J. modulus: effective E* in Pa. viscosity: Pa s. voltage: V between tip and sample.
    neck_force: N, of the capillary neck, which forms below ``neck_on`` and breaks above ``neck_off`` (m).
    """

    radius: np.ndarray | float
    hamaker: np.ndarray | float = 6.4e-20
    modulus: np.ndarray | float = 1e9
    viscosity: np.ndarray | float = 0.0
    voltage: np.ndarray | float = 0.0
    neck_force: np.ndarray | float = 0.0
    neck_on: np.ndarray | float = 0.5e-9
    neck_off: np.ndarray | float = 1.5e-9

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not np.isfinite(value).all() or (np.asarray(value) < 0).any():
                raise ProbeGymError(f"interaction, {name}: must be finite and not negative, got {np.min(value):g}")
        if not (np.asarray(self.radius) > 0).all():
            raise ProbeGymError("interaction, radius: must be above 0")
        if not (np.asarray(self.neck_off) >= np.asarray(self.neck_on)).all():
            raise ProbeGymError("interaction: a neck breaks farther away than it forms, give neck_off >= neck_on")


def force(gap: np.ndarray, interaction: Interaction, velocity: np.ndarray | float = 0.0, neck: np.ndarray | bool = False) -> np.ndarray:
    """Force on the tip in N, positive away from the sample; gap in m, velocity of the gap in m/s, ``neck`` where one is."""
    i, gap = interaction, np.asarray(gap, float)
    apart, pressed = np.maximum(gap, CONTACT), np.maximum(CONTACT - gap, 0)
    attraction = i.hamaker * i.radius / (6 * apart**2) + np.pi * constants.epsilon_0 * i.radius * np.square(i.voltage) / apart
    contact = 4 / 3 * i.modulus * np.sqrt(i.radius) * pressed**1.5
    drag = i.viscosity * velocity * np.sqrt(i.radius * pressed)
    return contact - attraction - drag - np.where(neck, i.neck_force, 0.0)
