"""What a person can do in AdatomManipulation: which atom is dragged from where to where, at which bias and conductance."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from probegym.envs.controls import Choice, Control, Controls, Dial, Place, Point, Seen, Values

if TYPE_CHECKING:
    from probegym.envs.adatom_manipulation import AdatomManipulationTask


def controls(task: AdatomManipulationTask) -> Controls:
    """Of one scenario. Lengths in nm, from the atom as last found; axes as in the image."""
    s, d = task.settings, task.settings.drag
    near, far = 1e9 * d.start, 1e9 * d.end
    goals = partial(_marks, 1e9 * s.unit, s.atoms) if s.shown == "goals" else None
    start = Place("start", "nm", (-near, -near), (near, near), (0.0, 0.0), "where the tip comes down, from the atom as last found", True, marks=goals)
    end = Place("end", "nm", (-far, -far), (far, far), (0.0, 0.0), "where the tip goes and lets the atom go, from the atom as last found", True, marks=goals)
    bias = Dial("bias", "mV", 1e3 * d.bias[0], 1e3 * d.bias[1], 1e3 * d.bias[0], "between tip and surface during the drag")
    conductance = Dial("conductance", "uS", 1e6 * d.conductance[0], 1e6 * d.conductance[1], 1e6 * d.conductance[1], "of the setpoint: the higher, the nearer the tip; current is bias x conductance")
    atom: tuple[Control, ...] = (Choice("atom", tuple(f"atom {k}" for k in range(s.atoms)), 0, "which one is dragged", partial(_places, s.unit / (2 * s.limits), s.atoms)),) if s.atoms > 1 else ()

    def action(values: Values) -> np.ndarray:
        picked = [2 * values["atom"] / (s.atoms - 1) - 1] if s.atoms > 1 else []
        both = [*start.component(values["start"]), *end.component(values["end"])]
        return np.array([*picked, *both, bias.component(values["bias"]), conductance.component(values["conductance"])], np.float32)

    return Controls((*atom, start, end, bias, conductance), action)


def _places(share: float, atoms: int, seen: Seen) -> np.ndarray:
    """Of the atoms in the image."""
    return 0.5 + share * seen["achieved_goal"].reshape(atoms, 2)


def _marks(unit: float, atoms: int, seen: Seen, values: Values) -> dict[str, Point]:
    """The atom and all goals, in nm from the atom."""
    here = seen["achieved_goal"].reshape(atoms, 2)[values.get("atom", 0)]
    goals = unit * (seen["desired_goal"].reshape(atoms, 2) - here)
    names = ["goal"] if atoms == 1 else [f"goal {k}" for k in range(atoms)]
    return {"atom": (0.0, 0.0)} | {name: (float(x), float(y)) for name, (x, y) in zip(names, goals, strict=True)}
