"""Rewards of IsingInference: what was learned of J, as believed and as it is true, and the time it took."""

from __future__ import annotations

import numpy as np

from probegym.envs.task import Transition

LEAST_ERROR = 0.005  # relative error of J below which less does not count


def relative_error(mean: np.ndarray, coupling: np.ndarray) -> np.ndarray:
    """|J believed - J| / |J| (lanes,) for means (lanes, 3) of J, h and phi."""
    return np.abs(mean[:, 0] - coupling) / np.maximum(np.abs(coupling), 1e-6)


def information(t: Transition) -> np.ndarray:
    """Fall of the logarithm of J's standard deviation as believed, nats."""
    before, after = (np.log(t.memory[name][:, 0, 0]) for name in ("covariance_before", "covariance"))
    return 0.5 * (before - after)


def error(t: Transition) -> np.ndarray:
    """Fall of the logarithm of J's true relative error."""
    before, after = (relative_error(t.memory[name], t.after["coupling"]) for name in ("mean_before", "mean"))
    return np.log((before + LEAST_ERROR) / (after + LEAST_ERROR))
