"""What a person can do in LevelSelection: name the instrument and, by scenario, the flake or the map that picks it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from probegym.envs.controls import Choice, Control, Controls, Seen, Values
from probegym.envs.level_knowledge import FLAKES

if TYPE_CHECKING:
    from probegym.envs.level_selection import LevelSelectionTask


def controls(task: LevelSelectionTask) -> Controls:
    """Of one scenario."""
    s = task.settings
    level = Choice("instrument", s.levels, 0, "what measures next; bringing the sample to another instrument takes longest")
    more: dict[str, tuple[Control, ...]] = {
        "level": (),
        "level-and-place": (Choice("flake", tuple(f"flake {k}" for k in range(FLAKES)), 0, "where; the overview is the same wherever it is taken", _places),),
        "level-and-map": (Choice("map", (*(f"uncertainty of {name}" for name in s.levels), "uncertainty of the target"), 0, "its highest value picks the flake"),),
    }

    def action(values: Values) -> np.ndarray:
        if s.choose == "level-and-map":
            return np.array([values["instrument"], values["map"]])
        return np.array(values["instrument"] if s.choose == "level" else values["instrument"] * FLAKES + values["flake"])

    return Controls((level, *more[s.choose]), action)


def _places(seen: Seen) -> np.ndarray:
    flakes = seen["flakes"]
    return np.where(flakes[:, 3:] > 0, flakes[:, :2], np.nan)
