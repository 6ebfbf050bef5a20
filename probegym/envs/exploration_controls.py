"""What a person can do in SpectrumExploration: point at the next place, or weigh what makes a place attractive."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from probegym.envs.controls import Controls, Dial, Place, Values

if TYPE_CHECKING:
    from probegym.envs.spectrum_exploration import SpectrumExplorationTask

MEANINGS = {
    "mean": "weight of the expected value, in standard deviations of the values known: exploits",
    "deviation": "weight of its uncertainty, in the same unit: explores",
    "novelty": "weight of how unlike all that was measured the surroundings are, from 0 to 1",
    "travel": "weight of the way there, in widths of the image, as a cost: a positive one stays near",
}


def controls(task: SpectrumExplorationTask) -> Controls:
    """Of one scenario."""
    i = task.settings.image
    if task.settings.action == "steer":
        start = {"mean": 0.5, "deviation": 0.5, "novelty": 0.0, "travel": 0.0}
        dials = tuple(Dial(name, "", -1.0, 1.0, start[name], meaning, steps=40) for name, meaning in MEANINGS.items())
        return Controls(dials, lambda values: np.array([values[dial.name] for dial in dials], np.float32))
    width, height = 1e9 * i.field_of_view, 1e9 * i.pixel_size * i.rows
    centre = (0.5 * width * (1 + 1 / i.columns), 0.5 * height * (1 + 1 / i.rows))  # the middle of a cell
    place = Place("place", "nm", (0.0, 0.0), (width, height), centre, "pixel of the image whose spectrum is measured", True, (i.rows, i.columns), beneath="image")

    def action(values: Values) -> np.ndarray:
        row, column = place.cell(values["place"])
        return np.array(row * i.columns + column)

    return Controls((place,), action)
