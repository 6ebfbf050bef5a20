"""What a person can do in AfmTuning: change each setting of the feedback, gains, drive and rate by factors."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from probegym.envs.afm_settings import LOGARITHMIC, NAMES
from probegym.envs.controls import Controls, Dial, Seen

if TYPE_CHECKING:
    from probegym.envs.afm_tuning import AfmTuningTask

UNITS = {"proportional": ("", 1.0), "integral": ("1/s", 1.0), "setpoint": ("", 1.0), "drive": ("nm", 1e9), "line_rate": ("Hz", 1.0), "feed_forward": ("", 1.0)}
MEANINGS = {
    "proportional": "proportional gain: the answer to the error of this moment; too much and the loop rings",
    "integral": "integral gain: how fast the piezo catches up; too little smears edges, too much rings",
    "setpoint": "amplitude that is held, as share of the free one; low tracks better and hits harder",
    "drive": "free amplitude; a large one follows falling edges better and hits harder",
    "line_rate": "lines a second; fast ones are paid better and err more",
    "feed_forward": "share of the line before that is fed to the piezo beforehand",
}


def controls(task: AfmTuningTask) -> Controls:
    """Of one scenario."""
    step = task.settings.largest_step

    def dial(index: int) -> Dial:
        name, log, (unit, scale) = NAMES[index], bool(LOGARITHMIC[index]), UNITS[NAMES[index]]
        most = step * float(task.span[index])
        low, high, start = (float(np.exp(-most)), float(np.exp(most)), 1.0) if log else (-most, most, 0.0)
        return Dial(name.replace("_", " "), unit, low, high, start, MEANINGS[name], log, stands=partial(_stands, task, index, scale))

    dials = tuple(dial(index) for index in range(len(NAMES)))
    return Controls(dials, lambda values: np.clip([one.component(values[one.name]) for one in dials], -1, 1).astype(np.float32))  # of exp(log) may be 1 + 1e-16


def _stands(task: AfmTuningTask, index: int, scale: float, seen: Seen) -> float:
    return scale * float(task.values(np.asarray(seen["settings"], float))[index])
