"""Dynamics of Ising lattices on a torus: heat bath, Metropolis, Kawasaki; a batch of lanes, each with random numbers of its own.

With K = J / kT and B = h / kT (per row, so that a gradient is one, too) a lattice of spins s = +-1 has

    -E / kT = K sum_<ij> s_i s_j + K2 sum_<<ij>> s_i s_j + sum_i B_i s_i,

<ij> being nearest and <<ij>> diagonal neighbours. Heat bath (Glauber 1963, 10.1063/1.1703954, in its single-site form) and
Metropolis (Metropolis et al. 1953, 10.1063/1.1699114) update all sites of one colour of the checkerboard at once, which leaves
the Boltzmann distribution as it is, because sites of one colour do not interact; with diagonal neighbours there are four
sublattices. Kawasaki's exchanges (1966, 10.1103/PhysRev.145.224) keep the number of each spin.
"""

from __future__ import annotations

import numpy as np

from probegym.physics import native, randomness
from probegym.physics.threads import in_tiles

RULES = ("heat-bath", "metropolis", "kawasaki")
LARGEST = 1024  # sites a side


def random_spins(keys: np.ndarray, rows: int, columns: int, magnetisation) -> np.ndarray:
    """Lattices (lanes, rows, columns) int8 without order; magnetisation: (lanes,), mean of a spin. What temperature without end leaves."""
    u = randomness.uniform(keys, 0, "random spins", rows * columns)
    up = u < 0.5 * (1 + np.asarray(magnetisation, float).reshape(-1, 1))
    return np.where(up, 1, -1).astype(np.int8).reshape(-1, rows, columns)


def evolve(spins: np.ndarray, sweeps, keys, coupling, field=0.0, diagonal=0.0, rule: str = "heat-bath", threads: int | None = None) -> None:
    """Let lattices evolve in place, one update a site and sweep (of Kawasaki: one attempt).

    spins: (lanes, rows, columns) int8, C-contiguous, even sides from 4 to LARGEST. sweeps: (lanes,). keys: (lanes,) uint64. coupling,
    diagonal: (lanes,), K and K2. field: (lanes,) or (lanes, rows), B. Raises ValueError for shapes that do not fit.
    """
    lanes, rows, columns = spins.shape
    if rows % 2 or columns % 2 or not 4 <= min(rows, columns) <= max(rows, columns) <= LARGEST:
        raise ValueError(f"a lattice needs an even number of rows and columns from 4 to {LARGEST}, got {rows} x {columns}")
    if spins.dtype != np.int8 or not spins.flags.c_contiguous:
        raise ValueError("spins must be a C-contiguous array of int8")
    if rule not in RULES:
        raise ValueError(f"rule must be one of {', '.join(RULES)}, got {rule!r}")
    field = np.asarray(field, float)
    field = np.broadcast_to(field if field.ndim == 2 else field.reshape(-1, 1), (lanes, rows))
    coupling, diagonal = (np.ascontiguousarray(np.broadcast_to(np.asarray(v, float), lanes)) for v in (coupling, diagonal))
    sweeps = np.ascontiguousarray(np.broadcast_to(sweeps, lanes), np.int64)
    keys = np.ascontiguousarray(np.broadcast_to(keys, lanes), np.uint64)
    kernels = native.library("ising")
    tables: tuple[np.ndarray, ...]
    if rule == "kawasaki":
        tables, kernel = (coupling, diagonal, np.ascontiguousarray(field)), kernels.exchanges
    elif diagonal.any():
        tables, kernel = (_thresholds(coupling, field, diagonal, 5, rule),), kernels.four_sublattices
    else:
        tables, kernel = (_thresholds(coupling, field, None, 8, rule),), kernels.checkerboard

    def part_of(part: slice) -> int:
        arrays = (spins[part], *(table[part] for table in tables), sweeps[part], keys[part])
        return kernel(part.stop - part.start, rows, columns, *map(native.pointer, arrays))

    if any(in_tiles(part_of, lanes, threads, tile=4)) and kernel is kernels.checkerboard:
        raise MemoryError(f"no memory for lattices of {rows} x {columns} spins")


def _thresholds(coupling: np.ndarray, field: np.ndarray, diagonal: np.ndarray | None, entries: int, rule: str) -> np.ndarray:
    """Chance to be up afterwards, as threshold of 32 signed bits: (lanes, rows, spin before, neighbours up[, diagonal ones up])."""
    near = 2.0 * np.arange(entries) - 4
    local = coupling[:, None, None] * near + field[..., None]
    if diagonal is not None:
        local = local[..., None] + diagonal[:, None, None, None] * near[:5]
    with np.errstate(over="ignore"):
        if rule == "heat-bath":
            up = 1 / (1 + np.exp(-2 * local))
            chance = np.stack([up, up], 2)
        else:
            rises, falls = np.exp(np.minimum(2 * local, 0)), np.exp(np.minimum(-2 * local, 0))
            chance = np.stack([rises, 1 - falls], 2)
    return np.ascontiguousarray(np.clip(np.round(chance * 2.0**32) - 2.0**31, -(2.0**31), 2.0**31 - 1).astype(np.int32))


def energy(spins: np.ndarray) -> np.ndarray:
    """Sum of s_i s_j over nearest neighbours, per site (lanes,); minus it is the energy in units of J."""
    s = spins.astype(np.int64)
    return (s * (np.roll(s, 1, -1) + np.roll(s, 1, -2))).sum((-1, -2)) / (s.shape[-1] * s.shape[-2])


def magnetisation(spins: np.ndarray) -> np.ndarray:
    """Mean spin (lanes,)."""
    return spins.mean((-1, -2), dtype=float)
