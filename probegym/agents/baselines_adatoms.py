"""Practitioners' procedures for dragging adatoms. They see what a policy sees: where the atoms and their goals are.

All drag the atom that is farthest from its goal. Numbers were found on training seeds by benchmarks/adatom_scripts.py.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import numpy as np

from probegym.agents.base import Agent
from probegym.envs.adatom_manipulation import AdatomManipulationTask
from probegym.envs.episodes import Episodes
from probegym.envs.task import Observation
from probegym.errors import ProbeGymError


@dataclass(frozen=True)
class Recipe:
    """How a drag is made: bias in V, conductance in S; the tip starts ``behind`` m behind the atom and ends ``beyond`` m beyond the goal."""

    bias: float
    conductance: float
    behind: float = 0.0
    beyond: float = 0.0


def to_goals(observation: Observation, task: AdatomManipulationTask) -> tuple[np.ndarray, np.ndarray]:
    """The atom to drag next (lanes,), and the way to its goal (lanes, 2) m; raises ProbeGymError where no places are shown."""
    if "achieved_goal" not in observation:
        raise ProbeGymError("this agent needs places and goals, the scenario shows an image: use another scenario")
    achieved, desired = (observation[name] for name in ("achieved_goal", "desired_goal"))
    order, apart = task.goals.assigned(achieved, desired)
    lanes, which = np.arange(len(order)), apart.argmax(1)
    chosen = order[lanes, which]
    atoms, goals = (v.astype(float).reshape(len(v), -1, 2) for v in (achieved, desired))
    return chosen, (goals[lanes, which] - atoms[lanes, chosen]) * task.settings.unit


class Dragger(Agent):
    """Drags straight at the goal, as a recipe for its distance says."""

    def begin(self, lanes: int, seed: int) -> None:
        pass

    @abstractmethod
    def recipe(self, distance: np.ndarray) -> list[Recipe]:
        """One a lane, for distances (lanes,) m."""

    def act(self, observation: Observation, episodes: Episodes) -> np.ndarray:
        task = episodes.task_of(AdatomManipulationTask)
        chosen, way = to_goals(observation, task)
        distance = np.hypot(*way.T)
        ahead = way / np.maximum(distance, 1e-15)[:, None]
        numbers = np.array([(r.behind, r.beyond, r.bias, r.conductance) for r in self.recipe(distance)])
        behind, beyond, bias, conductance = numbers.T[..., None]
        return task.action(-behind * ahead, way + beyond * ahead, bias, conductance, chosen)


FIXED = Recipe(15e-3, 5e-6, 0.2e-9)


class FixedDrag(Dragger):
    """The same bias, conductance and ways for every drag."""

    def __init__(self, recipe: Recipe = FIXED):
        self.fixed = recipe

    def recipe(self, distance: np.ndarray) -> list[Recipe]:
        return [self.fixed] * len(distance)


EDGES = (0.5e-9, 1.0e-9, 1.5e-9)  # m, between the rows of the table
TABLE = tuple(Recipe(15e-3, conductance, 0.2e-9) for conductance in (5e-6, 4e-6, 5e-6, 5e-6))


class GridTable(Dragger):
    """The best of a grid of recipes for each range of distances, the nearest first."""

    def __init__(self, table: tuple[Recipe, ...] = TABLE, edges: tuple[float, ...] = EDGES):
        if len(table) != len(edges) + 1:
            raise ProbeGymError(f"{len(edges)} edges part {len(edges) + 1} ranges, the table has {len(table)} recipes")
        self.table, self.edges = table, edges

    def recipe(self, distance: np.ndarray) -> list[Recipe]:
        return [self.table[row] for row in np.searchsorted(self.edges, distance)]


CORRECTED = Recipe(10e-3, 4e-6, 0.3e-9)
FADES = 0.2  # weight of a drag against the one after it: tips change
ALONG = 1.2  # lattice constants between tip and atom up to which it came along


class CorrectedDrag(Dragger):
    """The fixed drag, shifted by how far beside the tip atoms came to rest in the drags that are remembered.

    fades: weight of a drag against that after it, from 0 (the latest alone) to 1 (the mean of all).
    """

    def __init__(self, recipe: Recipe = CORRECTED, fades: float = FADES):
        self.fixed, self.fades = recipe, fades

    def recipe(self, distance: np.ndarray) -> list[Recipe]:
        return [self.fixed] * len(distance)

    def act(self, observation: Observation, episodes: Episodes) -> np.ndarray:
        task, action = episodes.task_of(AdatomManipulationTask), super().act(observation, episodes)
        s = task.settings
        if not s.remembered:
            return action
        records = observation["observation"][:, 2 * s.adatoms :].reshape(len(action), s.remembered, -1).astype(float)
        missed = records[:, :, -2:]
        along = (records[:, :, s.components] > 0) & (np.hypot(*np.moveaxis(missed, -1, 0)) < ALONG)
        weight = along * self.fades ** (np.cumsum(along, 1) - 1.0).clip(0)
        beside = s.lattice * (missed * weight[..., None]).sum(1) / np.maximum(weight.sum(1), 1e-9)[:, None]
        action[:, -6:-4] -= (beside / s.drag.start).astype(np.float32)
        action[:, -4:-2] -= (beside / s.drag.end).astype(np.float32)
        return np.clip(action, -1, 1)
