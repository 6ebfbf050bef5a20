"""Rewards of IsingInference: what was learned of J, as believed and as it is true, and the time it took."""

from __future__ import annotations

import numpy as np

from probegym.envs.task import Transition
from probegym.hardware_bridge.commands import Lanes

LEAST_ERROR = 0.005  # relative error of J below which less does not count


def relative_error(mean: np.ndarray, coupling: np.ndarray) -> np.ndarray:
    """|J believed - J| / |J| (lanes,) for means (lanes, 3) of J, h and phi."""
    return np.abs(mean[:, 0] - coupling) / np.maximum(np.abs(coupling), 1e-6)


def errors(mean: np.ndarray, variance: np.ndarray, truth: Lanes) -> Lanes:
    """Of means (lanes, 3) and J's variance (lanes,): relative error of J, error of h in meV, and how surprising the true J is."""
    coupling = truth["coupling"]
    return {"error": relative_error(mean, coupling), "field_error": 1e3 * np.abs(mean[:, 1] - truth["field"]), "surprise": (mean[:, 0] - coupling) ** 2 / variance}


def information(t: Transition) -> np.ndarray:
    """Fall of the logarithm of J's standard deviation as believed, nats."""
    before, after = (np.log(t.memory[name][:, 0, 0]) for name in ("covariance_before", "covariance"))
    return 0.5 * (before - after)


def error(t: Transition) -> np.ndarray:
    """Fall of the logarithm of J's true relative error."""
    before, after = (relative_error(t.memory[name], t.after["coupling"]) for name in ("mean_before", "mean"))
    return np.log((before + LEAST_ERROR) / (after + LEAST_ERROR))
