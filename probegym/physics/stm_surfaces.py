"""What lies under an STM tip: terraces with steps, adatoms, clusters, dark adsorbates, vacancy islands, herringbone.

A surface is a row of parameters and a key; every feature follows from the key and the cell of the plane it lies in, so the
surface has no edge and takes no memory. Step heights are a / sqrt 3 of the fcc metals: 0.4086 nm gives 0.236 nm for Ag(111),
0.4078 nm gives 0.235 nm for Au(111). The herringbone is the 22 x sqrt 3 reconstruction of Au(111), pairs of ridges 6.3 nm
apart and about 20 pm high (Barth, Brune, Ertl & Behm 1990, 10.1103/PhysRevB.42.9307).
"""

from __future__ import annotations

import ctypes

import numpy as np

from probegym.physics import native

PER_NANOMETRE = 1e9

FIELDS = {
    "step_height": "m", "terrace_width": "m", "direction": "rad", "meander": "m", "meander_period": "m",
    "adatom_density": "1/m2", "adatom_height": "m", "cluster_density": "1/m2", "cluster_height": "m", "cluster_radius": "m",
    "adsorbate_density": "1/m2", "adsorbate_depth": "m", "island_density": "1/m2", "island_radius": "m", "reconstruction": "m",
}  # fmt: skip
"""Parameters of a surface and their units, in the order of kernels/stm.c."""
CELLS = {"adatom_density": 2e-9, "cluster_density": 4e-9, "adsorbate_density": 2e-9, "island_density": 16e-9}
"""Side in m of the cells that hold at most one feature each: the largest density is 1 / side^2."""

_PER_FIELD = np.array([{"m": PER_NANOMETRE, "1/m2": PER_NANOMETRE**-2, "rad": 1.0}[unit] for unit in FIELDS.values()])


def in_nanometres(surface: np.ndarray) -> np.ndarray:
    """Rows of parameters (lanes, n) in nm instead of m, as the kernel wants them."""
    return np.ascontiguousarray(surface * _PER_FIELD)


def heights(surface: np.ndarray, key: int, centre, pixel: float, shape: tuple[int, int], width: float, placed=None) -> np.ndarray:
    """Height in m, (rows, columns), of the surface as point features of standard deviation ``width`` (m) show it.

    surface: (n,) parameters in the order of FIELDS, SI. centre: (2,) m; pixel: m. placed: (n, 4) more features: x, y, height
    and own standard deviation, m.
    """
    rows, columns = shape
    out = np.empty((rows, columns), np.float32)
    more = np.ascontiguousarray(np.zeros((1, 4)) if placed is None else PER_NANOMETRE * np.asarray(placed, float))
    arrays = (PER_NANOMETRE * np.asarray(centre, float), in_nanometres(surface[None]), np.array([key], np.uint64))
    numbers = (ctypes.c_double(PER_NANOMETRE * pixel), ctypes.c_double((PER_NANOMETRE * width) ** 2))
    native.library("stm").heights(rows, columns, *numbers, *map(native.pointer, arrays), len(more), native.pointer(more), native.pointer(out))
    return out / np.float32(PER_NANOMETRE)
