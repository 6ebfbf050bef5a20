"""Reference for physics/ising.py: exact results on the square lattice, Onsager's, and strips by transfer matrix.

Energies are in units of J, temperatures of J / k_B; functions of a temperature take it in any shape, and return that.
Onsager (1944), 10.1103/PhysRev.65.117; Yang (1952), 10.1103/PhysRev.85.808 (magnetisation).
"""

from __future__ import annotations

import numpy as np
from scipy.special import ellipk

from probegym.errors import ProbeGymError

CRITICAL_TEMPERATURE = 2 / np.log(1 + np.sqrt(2))


def magnetisation(temperature) -> np.ndarray:
    """Spontaneous magnetisation of the infinite lattice, mean of a spin, 0 above the critical temperature (J / k_B)."""
    t = np.asarray(temperature, float)
    return np.maximum(1 - np.sinh(2 / t) ** -4, 0) ** 0.125


def energy(temperature) -> np.ndarray:
    """Energy per site (J) of the infinite lattice; - sqrt(2) at the critical temperature."""
    k = 1 / np.asarray(temperature, float)
    kappa = 2 * np.sinh(2 * k) / np.cosh(2 * k) ** 2
    factor = 2 * np.tanh(2 * k) ** 2 - 1
    with np.errstate(invalid="ignore"):
        second = np.where(np.abs(factor) < 1e-12, 0.0, 2 / np.pi * factor * ellipk(np.minimum(kappa**2, 1 - 1e-16)))
    return -(1 + second) / np.tanh(2 * k)


def log_partition(rows: int, columns: int, coupling: float, field: float = 0.0) -> float:
    """Logarithm of the partition function of a torus by the transfer matrix of one row; coupling K and field B in units of k_B T.

    Raises ProbeGymError for other numbers of columns than 3 to 12.
    """
    if not 3 <= columns <= 12:
        raise ProbeGymError(f"the transfer matrix has 2^columns rows: give 3 to 12 columns, got {columns}")
    s = (2 * ((np.arange(2**columns)[:, None] >> np.arange(columns)) & 1) - 1).astype(float)
    own = coupling * (s * np.roll(s, 1, 1)).sum(1) + field * s.sum(1)
    matrix = np.exp(coupling * (s @ s.T) + 0.5 * (own[:, None] + own))
    values = np.linalg.eigvalsh(matrix)
    largest = values[-1]
    return float(rows * np.log(largest) + np.log(((values / largest) ** rows).sum()))


def torus_energy(rows: int, columns: int, temperature: float, step: float = 1e-4) -> float:
    """Energy per site (J) of a torus, by the derivative of its partition function. Raises ProbeGymError as ``log_partition`` does."""
    k = 1 / temperature
    return -(log_partition(rows, columns, k + step) - log_partition(rows, columns, k - step)) / (2 * step * rows * columns)
