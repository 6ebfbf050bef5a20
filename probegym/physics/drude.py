"""Drude metals: permittivity, and the energies of the plasmons of simple bodies in closed form. Energies in eV."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import constants

from probegym.physics.optics import lorentz_factor, velocity_ratio

HBAR_C = constants.hbar * constants.c / constants.e * 1e9  # eV nm


@dataclass(frozen=True)
class Material:
    """Drude permittivity: eps_inf - plasma_energy^2 / (E^2 + i damping E), energies in eV; window: eV, to look at its plasmons."""

    permittivity: float
    plasma_energy: float
    damping: float
    window: tuple[float, float]


MATERIALS = {
    "ITO": Material(3.9, 1.8, 0.12, (0.30, 1.25)),
    "Ag5": Material(5.0, 9.17, 0.021, (1.6, 4.4)),
    "Au": Material(9.84, 9.0, 0.072, (1.3, 3.3)),
    "Al": Material(1.0, 15.0, 0.6, (3.0, 17.0)),
}
"""Sets of parameters. Drude alone has no interband transitions: a real gold sphere resonates near 2.4 eV, this one at 2.616."""


def energies(window: tuple[float, float], channels: int = 64) -> np.ndarray:
    """Middles of the channels in eV, (channels,)."""
    width = (window[1] - window[0]) / channels
    return window[0] + width * (np.arange(channels) + 0.5)


def lorentzian(mode: np.ndarray, energy: np.ndarray, damping: float) -> np.ndarray:
    """Im 1 / (mode^2 - E^2 - i g E) in 1/eV^2; mode, energy E and damping g in eV, of shapes that broadcast."""
    return damping * energy / ((mode**2 - energy**2) ** 2 + (damping * energy) ** 2)


def permittivity(material: Material, energy) -> np.ndarray:
    """Complex permittivity at energies in eV of any shape."""
    energy = np.asarray(energy, float)
    return material.permittivity - material.plasma_energy**2 / (energy * (energy + 1j * material.damping))


def energy_at(material: Material, value) -> np.ndarray:
    """Energy in eV at which the undamped permittivity is ``value``: of a mode whose condition is eps = value."""
    return material.plasma_energy / np.sqrt(material.permittivity - np.asarray(value, float))


def sphere_energy(material: Material, order: int = 1, medium: float = 1.0) -> float:
    """Energy in eV of the multipole ``order`` of a sphere: eps = -medium (order + 1) / order. Mie, small-particle limit."""
    return float(energy_at(material, -medium * (order + 1) / order))


def depolarisation(aspect) -> np.ndarray:
    """Depolarisation factor along the long axis of a prolate spheroid; across it is (1 - L) / 2. aspect: >= 1, any shape."""
    aspect = np.asarray(aspect, float)
    square = np.maximum(1 - aspect**-2, 1e-6)  # of the eccentricity
    root = np.sqrt(square)
    exact = (1 - square) / square * (np.arctanh(np.minimum(root, 1 - 1e-16)) / root - 1)
    series = 1 / 3 - 2 / 15 * (1 - aspect**-2)
    return np.where(aspect < 1.001, series, exact)


def spheroid_energy(material: Material, aspect: float, across: bool = False, medium: float = 1.0) -> float:
    """Energy in eV of the dipole along, or across, the long axis of a prolate spheroid: eps = -medium (1 - L) / L."""
    along = float(depolarisation(aspect))
    share = (1 - along) / 2 if across else along
    return float(energy_at(material, -medium * (1 - share) / share))


def dimer_energies(material: Material, gap: float, medium: float = 1.0) -> dict[str, float]:
    """Energies in eV of two spheres' coupled dipoles; gap: in radii. Bright and dark, along and across the axis."""
    x = (2 + gap) ** -3.0
    values = {
        "bonding": -2 * (1 + x) / (1 - 2 * x), "antibonding": -2 * (1 - x) / (1 + 2 * x),
        "transverse": -(2 - x) / (1 + x), "transverse dark": -(2 + x) / (1 - x),
    }  # fmt: skip
    return {name: float(energy_at(material, medium * value)) for name, value in values.items()}


def cutoff(energy, voltage: float) -> np.ndarray:
    """Adiabatic length gamma v / omega in m, beyond which a loss of ``energy`` (eV) falls off exponentially."""
    return HBAR_C * velocity_ratio(voltage) * lorentz_factor(voltage) / np.asarray(energy, float) * 1e-9
