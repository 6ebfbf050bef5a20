"""Where the goals of AdatomManipulation lie: one at some distance of the atom, or a regular pattern for several."""

from __future__ import annotations

import numpy as np

from probegym.envs.adatom_settings import Settings

TRIED = 16  # directions, until one leads to a goal within the limits


def single(keys: np.ndarray, start: np.ndarray, settings: Settings) -> np.ndarray:
    """Goals (lanes, 1, 2) m at a uniform distance in a uniform direction of the atoms (lanes, 2); inside the limits but for ``margin``."""
    from probegym.physics import randomness

    inner = settings.limits - settings.margin
    u = randomness.uniform(keys, 0, "goal", 1 + TRIED)
    low, high = settings.distance
    distance, angle = low + (high - low) * u[:, :1], 2 * np.pi * u[:, 1:]
    homewards = np.arctan2(-start[:, 1], -start[:, 0])[:, None]  # where no direction will do
    angle = np.concatenate([angle, homewards], 1)
    tried = start[:, None] + distance[..., None] * np.stack([np.cos(angle), np.sin(angle)], -1)
    inside = (np.abs(tried) <= inner).all(2)
    inside[:, -1] = True
    return tried[np.arange(len(tried)), inside.argmax(1)][:, None]


def pattern(keys: np.ndarray, settings: Settings) -> np.ndarray:
    """Goals (lanes, atoms, 2) m of several atoms: corners of a regular polygon, turned and shifted by chance, inside the limits."""
    from probegym.physics import randomness

    u = randomness.uniform(keys, 0, "pattern", 3)
    radius = settings.pattern_radius
    room = settings.limits - settings.margin - radius
    angle = 2 * np.pi * (u[:, :1] + np.arange(settings.atoms) / settings.atoms)
    return room * (2 * u[:, None, 1:] - 1) + radius * np.stack([np.cos(angle), np.sin(angle)], -1)


def goal_image(goal: np.ndarray, pixels: int, side: float, tolerance: float) -> np.ndarray:
    """Discs of radius ``tolerance`` (m) around goals (lanes, 2) m in images of width ``side`` (m): (lanes, pixels, pixels) uint8."""
    pixel = side / pixels
    axis = (np.arange(pixels) - 0.5 * (pixels - 1)) * pixel
    far = np.hypot(axis[None, None] - goal[:, :1, None], axis[None, :, None] - goal[:, 1:, None])
    return (255 * np.clip(0.5 + (tolerance - far) / pixel, 0, 1)).astype(np.uint8)
