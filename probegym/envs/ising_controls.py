"""What a person can do in IsingInference: how to anneal the lattice, or not, and how to image it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from probegym.envs.controls import Choice, Controls

if TYPE_CHECKING:
    from probegym.envs.ising_inference import IsingInferenceTask

QUARTERS = ("whole lattice", "upper left quarter", "upper right quarter", "lower left quarter", "lower right quarter")


def controls(task: IsingInferenceTask) -> Controls:
    """Of one scenario, starting with the cycle that opens an episode."""
    s = task.settings
    temperature, field, hold, dwell = s.first
    parts = (
        Choice("temperature", tuple(f"{value:g} K" for value in s.temperatures), temperature, "of the anneal: hot moves atoms, cold orders them"),
        Choice("field", tuple(f"{1e3 * value:+g} meV" for value in s.fields), field, "chemical potential during the anneal: favours one kind"),
        Choice("hold", ("no anneal", *(f"{value:g} s" for value in s.holds)), hold + 1, "how long it is kept hot; no anneal: the lattice as it is is imaged"),
        Choice("dwell", tuple(f"{1e3 * value:g} ms" for value in s.dwells), dwell, "of the image, an atom: the longer, the fewer wrong labels"),
        Choice("region", QUARTERS, 0, "what is imaged: a quarter takes a quarter of the time"),
    )
    return Controls(parts, lambda values: np.array([values[part.name] for part in parts]))
