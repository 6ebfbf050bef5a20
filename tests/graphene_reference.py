"""The rates by which the kernel of graphene exposes, which closed forms are held against."""

from __future__ import annotations

import ctypes

import numpy as np

from probegym.physics import graphene, native


def inversion_rates(sheets: dict[str, np.ndarray], probes: np.ndarray, beam: np.ndarray) -> np.ndarray:
    """Rates (lanes, n, 3) in 1/s of the swaps with each neighbour while the beam is parked at ``beam`` (lanes, 2) m in the sheet's frame."""
    s, beam = sheets, np.ascontiguousarray(beam, float)
    lanes, n = s["silicon"].shape[:2]
    out = np.zeros((lanes, n, 3))
    p = {name: native.pointer(array) for name, array in s.items()}
    native.library("graphene").inversions(
        lanes, p["frame"], p["rates"], s["mixture"].shape[1], p["mixture"], probes.shape[1], ctypes.c_double(graphene.PIXEL), native.pointer(probes),
        p["optics"], n, p["silicon"], s["vacancy"].shape[1], p["vacancy"], s["cluster"].shape[1], p["cluster"], native.pointer(beam),
        native.pointer(out),
    )  # fmt: skip
    return out
