"""Building patterns of several adatoms as the published builder does: who goes where, along which path, one short way at a time.

Atoms are assigned to goals by the Hungarian method; a rapidly exploring random tree (LaValle 1998) finds paths of steps up to
2 nm that keep 1 nm away from all other atoms; an agent for single atoms takes the chosen one from knee to knee (Chen et al.
2022, 10.1038/s41467-022-35149-w). Intermediate goals have a tolerance sqrt 3 times as wide.
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import linear_sum_assignment

from probegym.agents.base import Agent
from probegym.agents.baselines_adatoms import FIXED, Recipe
from probegym.agents.bundle import BundlePolicy
from probegym.envs.adatom_manipulation import AdatomManipulationTask
from probegym.envs.episodes import Episodes
from probegym.envs.task import Observation
from probegym.errors import ProbeGymError

STEP, KEEP_OUT, CLOSER = 2e-9, 1e-9, 0.6e-9  # m; CLOSER where no path keeps out
PATIENCE = 5  # drags until a path is planned anew
GROWTHS, TREES = 200, 4


def clear(start: np.ndarray, end: np.ndarray, obstacles: np.ndarray, radius: float) -> bool:
    """Whether the straight way from start to end (2,) keeps ``radius`` away from obstacles (n, 2); nearer than at the start it must not come."""
    if not len(obstacles):
        return True
    way = end - start
    share = np.clip(((obstacles - start) @ way) / max(float(way @ way), 1e-30), 0, 1)
    nearest = np.hypot(*(start + share[:, None] * way - obstacles).T)
    return bool((nearest >= np.minimum(radius, np.hypot(*(start - obstacles).T)) - 1e-15).all())


def path(start: np.ndarray, goal: np.ndarray, obstacles: np.ndarray, limits: float, radius: float, rng: np.random.Generator) -> np.ndarray | None:
    """Places (k, 2) m to pass, the goal last, STEP apart at most; None where none was found within ``limits`` (half a side, m)."""
    if clear(start, goal, obstacles, radius):
        count = max(1, int(np.ceil(np.hypot(*(goal - start)) / STEP - 1e-9)))
        return start + (goal - start) * (np.arange(1, count + 1) / count)[:, None]
    if (np.hypot(*(obstacles - goal).T) < radius).any():
        return None
    found = [way for way in (_tree(start, goal, obstacles, limits, radius, rng) for _ in range(TREES)) if way is not None]
    return min(found, key=len) if found else None


def _tree(start: np.ndarray, goal: np.ndarray, obstacles: np.ndarray, limits: float, radius: float, rng: np.random.Generator) -> np.ndarray | None:
    nodes, parents, count = np.tile(start, (GROWTHS + 1, 1)), [-1], 1
    for _ in range(GROWTHS):
        aim = goal if rng.random() < 0.1 else rng.uniform(-limits, limits, 2)
        apart = ((nodes[:count] - aim) ** 2).sum(1)
        near = int(apart.argmin())
        new = nodes[near] + (aim - nodes[near]) * min(1.0, STEP / max(float(apart[near]) ** 0.5, 1e-15))
        if not clear(nodes[near], new, obstacles, radius):
            continue
        nodes[count] = new
        parents.append(near)
        count += 1
        if np.hypot(*(goal - new)) <= STEP and clear(new, goal, obstacles, radius):
            way, at = [goal], count - 1
            while parents[at] >= 0:
                way.append(nodes[at])
                at = parents[at]
            return np.array(way[::-1])
    return None


class Builder(Agent):
    """Assigns atoms to goals, plans ways around the others, and drags one atom after the other along them, by a fixed recipe.

    policy: name or folder of a policy for single atoms, which then makes the drags instead of ``recipe``.
    """

    def __init__(self, policy: str | None = None, recipe: Recipe = FIXED):
        self.policy = BundlePolicy(policy) if policy else None
        self.recipe = recipe

    def begin(self, lanes: int, seed: int) -> None:
        self.rngs = [np.random.default_rng((seed, lane)) for lane in range(lanes)]
        self.atom, self.tries = np.full(lanes, -1), np.zeros(lanes, int)
        self.start, self.next, self.last = np.zeros((lanes, 2)), np.zeros((lanes, 2)), np.zeros(lanes, bool)
        if self.policy:
            self.policy.begin(lanes, seed)

    def act(self, observation: Observation, episodes: Episodes) -> np.ndarray:
        task = episodes.task_of(AdatomManipulationTask)
        if task.settings.atoms == 1 or "achieved_goal" not in observation:
            raise ProbeGymError("this agent builds patterns of two atoms or more: use a scenario whose name begins with assembly")
        s, lanes = task.settings, len(self.atom)
        places = observation["observation"][:, : 2 * s.adatoms].astype(float).reshape(lanes, -1, 2) * s.unit
        goals = observation["desired_goal"].astype(float).reshape(lanes, -1, 2) * s.unit
        for lane in range(lanes):
            self._plan(lane, places[lane], goals[lane], task)
        self.tries += 1
        atom = places[np.arange(lanes), self.atom]
        if self.policy is None:
            way, r = self.next - atom, self.recipe
            ahead = way / np.maximum(np.hypot(*way.T), 1e-15)[:, None]
            return task.action(-r.behind * ahead, way + r.beyond * ahead, r.bias, r.conductance, self.atom)
        records = observation["observation"][:, 2 * s.adatoms :].reshape(lanes, s.remembered, -1)[:, :, 1:]  # without the number of the atom
        achieved, desired = (((v - self.start) / s.unit).astype(np.float32) for v in (atom, self.next))
        told = np.concatenate([achieved, records.reshape(lanes, -1)], 1)
        action = self.policy.decide({"observation": told, "achieved_goal": achieved, "desired_goal": desired})
        picked = task.action(np.zeros((lanes, 2)), np.zeros((lanes, 2)), s.drag.bias[0], s.drag.conductance[0], self.atom)[:, :1]
        return np.concatenate([picked, action], 1)

    def _plan(self, lane: int, places: np.ndarray, goals: np.ndarray, task: AdatomManipulationTask) -> None:
        """Which atom is dragged next, and where to."""
        s = task.settings
        if 0 <= self.atom[lane] and self.tries[lane] < PATIENCE:
            left = np.hypot(*(places[self.atom[lane]] - self.next[lane]))
            if left > s.tolerance * (1.0 if self.last[lane] else np.sqrt(3)):
                return
        atoms, order = linear_sum_assignment(np.hypot(*np.moveaxis(places[: s.atoms, None] - goals, -1, 0)))
        apart = np.hypot(*(places[atoms] - goals[order]).T)
        waiting = [n for n in np.argsort(-apart) if apart[n] > s.tolerance]
        for radius in (KEEP_OUT, CLOSER, 0.0):
            for n in waiting or [int(apart.argmax())]:
                others = np.delete(places, atoms[n], 0)
                way = path(places[atoms[n]], goals[order[n]], others, s.limits, radius, self.rngs[lane])
                if way is not None:
                    self.atom[lane], self.tries[lane], self.start[lane] = atoms[n], 0, places[atoms[n]]
                    self.next[lane], self.last[lane] = way[0], len(way) == 1
                    return
