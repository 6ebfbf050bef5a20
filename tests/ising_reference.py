"""Every state of a small Ising lattice, to hold dynamics and the transfer matrix against. Units as in ``physics.ising_exact``."""

from __future__ import annotations

from functools import lru_cache

import numpy as np


@lru_cache(maxsize=4)
def all_states(rows: int, columns: int) -> np.ndarray:
    """Every configuration of a small lattice, (2^n, rows, columns) int8."""
    n = rows * columns
    return (2 * ((np.arange(2**n)[:, None] >> np.arange(n)) & 1) - 1).astype(np.int8).reshape(-1, rows, columns)


def weights(rows: int, columns: int, coupling: float, field: float = 0.0, diagonal: float = 0.0) -> np.ndarray:
    """Boltzmann probabilities (2^n,) of all states of a torus; K, B and K2 as in physics/ising.py."""
    s = all_states(rows, columns).astype(float)
    near = (s * (np.roll(s, 1, 1) + np.roll(s, 1, 2))).sum((1, 2))
    across = (s * (np.roll(s, (1, 1), (1, 2)) + np.roll(s, (1, -1), (1, 2)))).sum((1, 2))
    exponent = coupling * near + diagonal * across + field * s.sum((1, 2))
    p = np.exp(exponent - exponent.max())
    return p / p.sum()


def small_torus(rows: int, columns: int, temperature: float) -> tuple[float, float, float]:
    """Energy (J), mean |m| and specific heat (k_B) per site of a torus without field, by enumeration."""
    p, s = weights(rows, columns, 1 / temperature), all_states(rows, columns).astype(float)
    n = rows * columns
    e = -(s * (np.roll(s, 1, 1) + np.roll(s, 1, 2))).sum((1, 2))
    mean = p @ e
    return float(mean / n), float(p @ np.abs(s.mean((1, 2)))), float((p @ (e - mean) ** 2) / temperature**2 / n)
