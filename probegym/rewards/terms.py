"""Terms of StemTuning and AfmTuning, as functions of errors and images alone. Results are (lanes,), without units.

Terms that look at a whole step (``envs.task.Transition``) stand beside their environment, in envs/*_rewards.py.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike


def progress(before: ArrayLike, after: ArrayLike, scale: float) -> np.ndarray:
    """Fall of an error, as a difference of potentials log(1 + error / scale): sums to what the episode gained.

    before, after: (lanes,) errors, not below 0, in the unit of ``scale``, which is above 0.
    """
    return np.log1p(np.asarray(before) / scale) - np.log1p(np.asarray(after) / scale)


def relative_gain(before: ArrayLike, after: ArrayLike) -> np.ndarray:
    """Growth of a figure of merit (lanes,), not below 0, of any unit, as the difference of its logarithms."""
    tiny = 1e-12
    return np.log((np.asarray(after) + tiny) / (np.asarray(before) + tiny))


def normalised_variance(images: np.ndarray) -> np.ndarray:
    """Var / mean^2 of each image (lanes, ...): the sharpness of Pattison et al. (2025), 10.1038/s41524-025-01766-4; 0 for a dark one."""
    flat = np.asarray(images, np.float32).reshape(len(images), -1)
    total = np.add.reduce(flat, axis=1).astype(float)
    square = np.einsum("ij,ij->i", flat, flat).astype(float)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(total > 0, square * flat.shape[1] / total**2 - 1, 0.0)


def precision(error: np.ndarray, scale: float, floor: float = 0.05) -> np.ndarray:
    """How small an error is, in decades: -log10(error / scale + floor), so that twice as good is worth the same everywhere.

    error: (lanes,), not below 0, in the unit of ``scale``.
    """
    return -np.log10(np.asarray(error) / scale + floor)
