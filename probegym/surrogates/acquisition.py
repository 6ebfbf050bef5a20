"""Acquisition functions: what measuring a pixel promises, from a surrogate's mean and standard deviation (NumPy, maximisation).

All take arrays of any one shape and return that shape; a standard deviation of 0 is allowed everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.special import ndtr

from probegym.errors import ProbeGymError

_SQRT_TWO_PI = float(np.sqrt(2 * np.pi))


def expected_improvement(mean: np.ndarray, std: np.ndarray, best: float | np.ndarray, xi: float = 0.01) -> np.ndarray:
    """E[max(f - best - xi, 0)], in the unit of the mean.

    best: largest value so far. xi: improvement that is asked for besides, in the unit of the mean.
    Source: Jones, Schonlau & Welch 1998, 10.1023/A:1008306431147.
    """
    mean, std = _posterior(mean, std)
    gain = mean - best - xi
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        u = gain / std
        out = std * np.exp(-0.5 * u * u) / _SQRT_TWO_PI + gain * ndtr(u)
    return np.where(std > 0, np.maximum(out, 0.0), np.maximum(gain, 0.0))


def upper_confidence(mean: np.ndarray, std: np.ndarray, beta: float = 0.2) -> np.ndarray:
    """The mean plus sqrt(beta) standard deviations, in the unit of the mean. Source: Srinivas et al. 2010, arXiv:0912.3995.

    Raises ProbeGymError for a beta below 0.
    """
    mean, std = _posterior(mean, std)
    if not beta >= 0:
        raise ProbeGymError(f"beta must be at least 0, got {beta}")
    return mean + np.sqrt(beta) * std


def maximum_variance(mean: np.ndarray, std: np.ndarray) -> np.ndarray:
    """std^2: pure exploration, whatever the mean is."""
    return _posterior(mean, std)[1] ** 2


def weighted(parts: Sequence[np.ndarray], weights: Sequence[float]) -> np.ndarray:
    """Sum of parts times weights; a weight of 0 leaves its part out. Raises ProbeGymError unless there are as many of each."""
    if len(parts) != len(weights) or not parts:
        raise ProbeGymError(f"each part needs one weight, got {len(parts)} parts and {len(weights)} weights")
    total = np.zeros(np.broadcast_shapes(*(np.shape(part) for part in parts)))
    for part, weight in zip(parts, weights, strict=True):
        if weight:
            total = total + weight * np.asarray(part)
    return total


def pick(acquisition: np.ndarray, allowed: np.ndarray, count: int = 1, radius: float = 0.0, shape: tuple[int, int] | None = None) -> np.ndarray:
    """Indices (count,) of the best pixels, best first, no two within ``radius`` pixels; ties go to the lower index.

    acquisition: (rows * cols,) finite where allowed. allowed: (rows * cols,) bool. shape: (rows, cols), needed where radius > 0.
    When no pixel outside the neighbourhoods is left, these count no more, so that always ``count`` different pixels come back.
    Raises ProbeGymError when fewer are allowed, or an allowed one has no number.
    """
    score, free = np.asarray(acquisition, float), np.array(allowed, bool)
    if not np.isfinite(score[free]).all():
        raise ProbeGymError("the acquisition function must be finite at every allowed pixel")
    if not 1 <= count <= free.sum():
        raise ProbeGymError(f"asked for {count} pixels where {free.sum()} are allowed: ask for from 1 to that many")
    if radius > 0 and (shape is None or shape[0] * shape[1] != score.size):
        raise ProbeGymError(f"to keep pixels {radius:g} apart the image's shape must be given, of {score.size} pixels in all, got {shape}")
    apart, chosen = free.copy(), []
    for _ in range(count):
        if not apart.any():
            apart = free.copy()
        best = int(np.where(apart, score, -np.inf).argmax())
        chosen.append(best)
        free[best] = apart[best] = False
        if radius > 0 and shape is not None:
            apart &= _farther(best, radius, shape)
    return np.array(chosen)


def _farther(pixel: int, radius: float, shape: tuple[int, int]) -> np.ndarray:
    rows, cols = np.indices(shape).reshape(2, -1)
    return (rows - rows[pixel]) ** 2 + (cols - cols[pixel]) ** 2 > radius**2


def _posterior(mean, std) -> tuple[np.ndarray, np.ndarray]:
    mean, std = np.asarray(mean, float), np.asarray(std, float)
    if (std < 0).any():
        raise ProbeGymError("a standard deviation must not be negative")
    return mean, std
