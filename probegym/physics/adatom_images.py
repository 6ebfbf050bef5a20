"""Constant-current images of adatoms on a terrace, through the machinery of physics/stm.py with an apex of one atom."""

from __future__ import annotations

import numpy as np

from probegym.physics import stm
from probegym.physics.stm_surfaces import FIELDS

_TERRACE = np.array([{"terrace_width": 1.0, "meander_period": 1e-6}.get(name, 0.0) for name in FIELDS])  # one that has no end in reach


def topographs(
    positions: np.ndarray, present: np.ndarray, apparent_height: np.ndarray, work_function: np.ndarray, centre: np.ndarray,
    velocity: np.ndarray, noise: np.ndarray, noise_key: np.ndarray, shape: tuple[int, int], field_of_view: float, line_time: float, bias: float, current: float,
) -> np.ndarray:  # fmt: skip
    """Images (lanes, rows, columns) float32 in m; an adatom is a Gaussian of Tersoff & Hamann's width (1985, 10.1103/PhysRevB.31.805).

    positions: (lanes, n, 2) m at the first line; present: (lanes, n) bool; apparent_height: (lanes,) m; work_function: (lanes,) eV;
    centre, velocity: (lanes, 2) m and m/s of the surface. noise, noise_key, shape, field_of_view, line_time, bias, current: as of
    ``stm.topographs``.
    """
    lanes = len(positions)
    apex = np.zeros((lanes, 2, 1, 4))
    apex[..., 0, 3] = work_function[:, None]
    placed = np.concatenate([positions, np.zeros((*positions.shape[:2], 2))], -1)
    placed[..., 2] = np.where(present, apparent_height[:, None], 0.0)
    return stm.topographs(
        apex, np.zeros((lanes, 2, 3)), np.full(lanes, shape[0]), np.zeros(lanes), np.tile(_TERRACE, (lanes, 1)), np.zeros(lanes, np.uint64),
        centre, -velocity, noise, noise_key, placed, shape, field_of_view, line_time, bias, current,
    )  # fmt: skip
