"""What someone does who sees lattice and tip: the oracle of AdatomManipulation tries drags out before it makes one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from probegym.hardware_bridge.commands import Lanes

if TYPE_CHECKING:
    from probegym.envs.adatom_manipulation import AdatomManipulationTask

BEYOND = (0.0, 0.05e-9, 0.1e-9, 0.15e-9, 0.2e-9)  # m, how far past the site a tip is taken
BEHIND = (0.0, 0.2e-9)  # m, how far behind the atom it comes down
REPEATS = 3


def best(task: AdatomManipulationTask, truth: Lanes, memory: Lanes) -> np.ndarray:
    """Drag the atom that is farthest from its goal to the hollow site nearest to that: the drag that leads there in most trials."""
    from probegym.physics import adatoms, randomness

    s, m, lanes = task.settings, memory, np.arange(len(memory["key"]))
    order, apart = task.goals.assigned(m["achieved"], m["desired"])
    which = apart.argmax(1)
    chosen = order[lanes, which]
    drift = m["position"][:, -1] - m["start"][:, -1] if s.anchor else 0.0
    goal = m["goal"][lanes, which] + drift
    lattice = truth["origin"], truth["spacing"], truth["orientation"]
    site = adatoms.nearest_site(goal[:, None], *lattice)[:, 0]
    atom, found, offset = truth["position"][lanes, chosen], m["position"][lanes, chosen], truth["tip"][:, :2]
    way = site - atom
    far = np.hypot(*way.T)[:, None]
    ahead = np.where(far > 0, way / np.maximum(far, 1e-15), [1.0, 0.0])
    least, action = np.full(len(lanes), np.inf), np.zeros((len(lanes), s.components), np.float32)
    for number, (beyond, behind) in enumerate((a, b) for b in BEHIND for a in BEYOND):
        trial = task.action(atom - behind * ahead - offset - found, site + beyond * ahead - offset - found, s.drag.bias[0], s.drag.conductance[1], chosen)
        start, end, bias, conductance = task.drag(trial, found)
        missed = np.zeros(len(lanes))
        for repeat in range(REPEATS):
            keys = randomness.subkey(m["key"], m["drags"] * REPEATS + repeat, f"oracle {number}")
            sites, status, _, told = adatoms.drag(
                truth["rows"], keys, truth["sites"], truth["status"], truth["origin"], start, end, bias, bias * conductance, s.drag.speed, 0,
                np.zeros((len(lanes), 2)), *(np.full(len(lanes), np.inf) for _ in range(2)), efficiency=0.0,
            )  # fmt: skip
            rest = adatoms.site_positions(sites, *lattice)[lanes, chosen]
            missed += np.hypot(*(rest - goal).T) + 1e-9 * (told["stuck"] + told["crashed"] + (status != truth["status"]).any(1))
        better = missed < least - 1e-15
        least, action = np.where(better, missed, least), np.where(better[:, None], trial, action)
    return action
