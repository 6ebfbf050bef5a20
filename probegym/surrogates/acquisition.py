"""Acquisition functions: what measuring a pixel promises, from a surrogate's mean and standard deviation (NumPy, maximisation).

Both take arrays of any one shape and return that shape; a standard deviation of 0 is allowed everywhere.
"""

from __future__ import annotations

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


def _posterior(mean, std) -> tuple[np.ndarray, np.ndarray]:
    mean, std = np.asarray(mean, float), np.asarray(std, float)
    if (std < 0).any():
        raise ProbeGymError("a standard deviation must not be negative")
    return mean, std
