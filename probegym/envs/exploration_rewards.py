"""What exploration is paid for: a better best place, a model that knows more, behaviours that were not seen before."""

from __future__ import annotations

import numpy as np

from probegym.envs.task import Transition


def best(scalar: np.ndarray, visited: np.ndarray) -> np.ndarray:
    """Largest true value among the visited places, (lanes,); -inf where there is none. scalar, visited: (lanes, pixels)."""
    return np.where(visited, scalar, -np.inf).max(1)


def regret(found: np.ndarray, ascending: np.ndarray) -> np.ndarray:
    """How far the best place found is from the best there is: 0 there, 1 at a typical place, the median; (lanes,).

    found: (lanes,) its true value; ascending: (lanes, pixels) those of all places, sorted. 0 where all are alike.
    """
    top, typical = ascending[:, -1], ascending[:, ascending.shape[1] // 2]
    span = top - typical
    flat = span <= 1e-12 * np.abs(top)
    return np.where(flat, 0.0, (top - found) / np.where(flat, 1.0, span))


def rank(found: np.ndarray, ascending: np.ndarray) -> np.ndarray:
    """How many places are better than the best one found, (lanes,)."""
    return np.array([len(row) - np.searchsorted(row, value, side="right") for row, value in zip(ascending, found, strict=True)], float)


def improvement(t: Transition) -> np.ndarray:
    """Growth (lanes,) of the best measured value, in standard deviations of the measured values."""
    return t.memory["improvement"]


def information(t: Transition) -> np.ndarray:
    """Fall (lanes,) of the surrogate's mean uncertainty, in standard deviations of the measured values; 0 without a surrogate."""
    return t.memory["information"]


def coverage(t: Transition) -> np.ndarray:
    """1 when the spectrum of this step showed a behaviour that none before it did, (lanes,)."""
    return t.memory["new_behaviour"]
