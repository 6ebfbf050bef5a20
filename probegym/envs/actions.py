"""Actions of a space: its bounds, random ones, and which are refused."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np

from probegym.errors import ProbeGymError


def bounds(space: gym.Space[Any]) -> tuple[np.ndarray, np.ndarray]:
    """Smallest and largest action of a space, both inside it and of the shape of an action; raises ProbeGymError for a space that no environment here acts in."""
    if isinstance(space, gym.spaces.Box):
        return space.low, space.high
    if not isinstance(space, gym.spaces.Discrete | gym.spaces.MultiDiscrete):
        raise ProbeGymError(f"actions are of a Box, a Discrete or a MultiDiscrete, not of a {type(space).__name__}: use another environment")
    count = space.n if isinstance(space, gym.spaces.Discrete) else space.nvec
    return np.asarray(space.start), np.asarray(space.start + count - 1)


def sample_actions(space: gym.Space[Any], shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Uniform random actions (*shape, ...) of one space."""
    low, high = bounds(space)
    whole = (*shape, *low.shape)
    if isinstance(space, gym.spaces.Box):
        return rng.uniform(low, high, whole).astype(space.dtype)
    return rng.integers(low, high, whole, dtype=space.dtype, endpoint=True)


def checked(action: Any, space: gym.Space[Any]) -> np.ndarray:
    """The action as an array of the shape of its space, refused when it is not in the space (never clipped)."""
    try:
        array = np.asarray(action)
    except ValueError as error:
        raise ProbeGymError(f"action must be numbers of shape {space.shape}, got a ragged {type(action).__name__}") from error
    if array.dtype.kind not in "fiub" or array.shape != space.shape:
        raise ProbeGymError(f"action must be numbers of shape {space.shape}, got {array.dtype} of shape {array.shape}")
    if not isinstance(space, gym.spaces.Box) and array.dtype.kind not in "iu":
        raise ProbeGymError(f"action must be a whole number, got {array.dtype}: nothing was done")
    low, high = bounds(space)
    slack = 1e-6 if isinstance(space, gym.spaces.Box) else 0
    inside = np.isfinite(array) & (array >= low - slack) & (array <= high + slack)
    if not inside.all():
        at = tuple(np.argwhere(~inside)[0])
        raise ProbeGymError(f"action holds {array[at]:g}, outside {low[at]:g} to {high[at]:g}{f' (entry {at[-1]})' if at else ''}: nothing was done")
    return array
