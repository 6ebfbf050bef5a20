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
HARM = 10e-9  # m of error that an atom stuck or lost counts in a trial
SURFACE = ("spacing", "barrier", "stacking", "temperature", "orientation", "apparent_height", "tip", "work_function", "contact", "attempt_rate")


def best(task: AdatomManipulationTask, truth: Lanes, memory: Lanes) -> np.ndarray:
    """Actions (lanes, components): the straight drag that brings one atom from beyond its goal's tolerance to the hollow site nearest to that in most trials."""
    lanes = len(memory["key"])
    order, apart = task.goals.assigned(memory["achieved"], memory["desired"])
    least, action = np.full(lanes, np.inf), np.zeros((lanes, task.settings.components), np.float32)
    for which in range(task.settings.atoms):
        missed, trial = _tried(task, truth, memory, order[:, which], which)
        missed = np.where((apart[:, which] < task.goals.tolerance) & (apart.max(1) > task.goals.tolerance), 1.0, missed)
        better = missed < least - 1e-15
        least, action = np.where(better, missed, least), np.where(better[:, None], trial, action)
    return action


def _tried(task: AdatomManipulationTask, truth: Lanes, m: Lanes, chosen: np.ndarray, which: int) -> tuple[np.ndarray, np.ndarray]:
    """How far from goal ``which`` atom ``chosen`` (lanes,) comes to rest after the best drag, (lanes,) m and more for harm, and that drag."""
    from probegym.physics import adatoms, randomness

    s, lanes = task.settings, np.arange(len(chosen))
    drift = m["position"][:, -1] - m["start"][:, -1] if s.anchor else 0.0
    goal = m["goal"][:, which] + drift
    lattice = truth["origin"], truth["spacing"], truth["orientation"]
    site = adatoms.nearest_site(goal[:, None], *lattice)[:, 0]
    atom, found, offset = truth["position"][lanes, chosen], m["position"][lanes, chosen], truth["tip"][:, :2]
    way = site - atom
    far = np.hypot(*way.T)[:, None]
    ahead = np.where(far > 0, way / np.maximum(far, 1e-15), [1.0, 0.0])
    rows = adatoms.rows(**{name: truth[name] for name in SURFACE})
    sites = adatoms.nearest_sites(truth["position"], *lattice)
    status = np.where(truth["gone"], adatoms.GONE, np.where(truth["stuck"], adatoms.STUCK, adatoms.FREE))
    least, action, never = np.full(len(lanes), np.inf), np.zeros((len(lanes), s.components), np.float32), np.full(len(lanes), np.inf)
    for number, (beyond, behind) in enumerate((a, b) for b in BEHIND for a in BEYOND):
        trial = task.action(atom - behind * ahead - offset - found, site + beyond * ahead - offset - found, s.drag.bias[0], s.drag.conductance[1], chosen)
        start, end, bias, conductance = task.drag(trial, found)
        missed = np.zeros(len(lanes))
        for repeat in range(REPEATS):
            keys = randomness.subkey(m["key"], m["drags"] * REPEATS + repeat, f"oracle {number}")
            to, then, _, told = adatoms.drag(
                rows, keys, sites, status, truth["origin"], start, end, bias, bias * conductance, s.drag.speed, 0,
                np.zeros((len(lanes), 2)), never, never, efficiency=0.0,
            )  # fmt: skip
            rest = adatoms.site_positions(to, *lattice)[lanes, chosen]
            missed += np.hypot(*(rest - goal).T) + HARM * ((then != status).any(1) | (told["crashed"] > 0))
        better = missed < least - 1e-15
        least, action = np.where(better, missed, least), np.where(better[:, None], trial, action)
    return least / REPEATS, action
