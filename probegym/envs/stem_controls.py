"""What a person can do in StemTuning: a change of each aberration in nm, the excursion, and to declare."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from probegym.envs.controls import Choice, Controls, Dial, Seen, Values

if TYPE_CHECKING:
    from probegym.envs.stem_tuning import StemTuningTask

MEANINGS = {
    "C10": "defocus: every feature is blurred alike in all directions, over and under focus; a Ronchigram grows finer rings with it",
    "C12": "two-fold astigmatism: blur stretched along one direction, which turns by 90 degrees through focus; a and b are 45 degrees apart",
    "C21": "axial coma: a one-sided tail, like a comet; the flat region of the Ronchigram sits off centre; a is along x, b along y",
    "C23": "three-fold astigmatism: a three-cornered blur; three arms in the Ronchigram; a and b are 30 degrees apart",
}


def controls(task: StemTuningTask) -> Controls:
    """Of one scenario."""
    s = task.settings

    def dial(index: int) -> Dial:
        name, most = task.names[index], 1e9 * s.largest_step * float(task.scales[index])
        return Dial(name, "nm", -most, most, 0.0, MEANINGS.get(name[:3], "an aberration of higher order"), stands=partial(_setpoint, index, 1e9 * float(task.scales[index])))

    reach = 1e9 * s.excursion_range
    excursion = (Dial("excursion", "nm", -reach, reach, 0.0, "defocus that is added to every frame of this step"),) if reach else ()
    then = Choice("then", ("go on", "declare"), 0, "declare: the change is made, no more frames are taken and the episode ends; right at a Strehl ratio of 0.8 or more")
    dials = (*(dial(index) for index in range(len(task.names))), *excursion)

    def action(values: Values) -> np.ndarray:
        return np.array([*(one.component(values[one.name]) for one in dials), 2.0 * values["then"] - 1], np.float32)

    return Controls((*dials, then), action)


def _setpoint(index: int, scale: float, seen: Seen) -> float:
    return scale * float(seen["controls"][index])
