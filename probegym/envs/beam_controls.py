"""What a person can do in BeamManipulation: where the beam stands beside the atom, whether it does and how long, and at which atom."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from probegym.envs.beam_settings import BOND
from probegym.envs.controls import Choice, Control, Controls, Dial, Place, Point, Seen, Values

if TYPE_CHECKING:
    from probegym.envs.beam_manipulation import BeamManipulationTask

AXES = {
    "lattice": "x points along the bond to the neighbour nearest the goal, y a quarter turn on, as x and y of the image",
    "image": "x along the rows of the image, y down its columns",
}


def controls(task: BeamManipulationTask) -> Controls:
    """Of one scenario. Lengths in A, from the atom as last located."""
    s, reach = task.settings, 1e10 * task.settings.reach
    lattice = s.axes == "lattice"
    place = Place("beam", "A", (-reach, -reach), (reach, reach), (1e10 * BOND, 0.0), f"where the beam stands, from the silicon atom as last located; {AXES[s.axes]}",
                  down=True, marks=partial(_marks, lattice, task.shows_state))  # fmt: skip
    shortest, longest = s.dwell.shortest, s.dwell.longest
    variable = longest > shortest
    park = Choice("beam is", ("parked" if variable else f"parked for {longest:g} s", "blanked"), 0, "blanked: only an image is taken")
    dwell = Dial("dwell", "s", shortest, longest, (shortest * longest) ** 0.5, "how long the beam stands there, when it is parked", log=True)
    atom: tuple[Control, ...] = (Choice("atom", tuple(f"atom {k}" for k in range(s.atoms)), 0, "which one is treated"),) if s.atoms > 1 else ()

    def action(values: Values) -> np.ndarray:
        seconds = 0.0 if values["beam is"] else values["dwell"] if variable else longest
        made: np.ndarray = task.action(1e-10 * np.array([values["beam"]]), np.array([seconds]), np.array([values.get("atom", 0)]))[0]
        return made

    return Controls((*atom, place, park, *([dwell] if variable else [])), action)


def _marks(lattice: bool, state: bool, seen: Seen, values: Values) -> dict[str, Point]:
    """The atom, and as far as it is shown its neighbours and the way to its goal, in A."""
    marks: dict[str, Point] = {"Si": (0.0, 0.0)}
    if not state:
        return marks
    chosen = values.get("atom", 0)
    turn = 1.0 + 0.0j if lattice else complex(*seen["axis"][chosen].tolist())
    if seen["four_fold"][chosen] == 0:
        for k in range(3):
            neighbour = 1e10 * BOND * turn * np.exp(2j * np.pi * k / 3)
            marks[f"C {k}"] = (float(neighbour.real), float(neighbour.imag))
    x, y = (1e10 * BOND * seen["goal"][chosen]).tolist()
    return marks | {"goal": (x, y)}
