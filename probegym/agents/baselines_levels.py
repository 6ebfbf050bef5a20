"""Rules for choosing what to measure next. They see the belief over flakes that the environment keeps, nothing hidden.

All leave out what does not fit into the time that is left. Constants were found on training seeds by benchmarks/levels.py.
"""

from __future__ import annotations

from abc import abstractmethod

import numpy as np

from probegym.agents.base import Agent
from probegym.envs.episodes import Episodes
from probegym.envs.level_selection import LevelSelectionTask
from probegym.envs.task import Observation

TUNED_WEIGHTS = (0.01, 0.3, 1.0)  # of the levels
THRESHOLDS = (2.0, 0.4)  # standard deviations, of all levels but the last
SURVEY = (0, 12)  # overviews, and maps at each level in between


class LevelRule(Agent):
    """Takes the level with the highest score that still fits, and the flake with the highest score there."""

    def begin(self, lanes: int, seed: int) -> None:
        self.turn = 0

    def act(self, observation: Observation, episodes: Episodes) -> np.ndarray:
        task = episodes.task_of(LevelSelectionTask)
        places = self.scores(observation, task)
        price, left = observation["price"], observation["budget"]
        places = np.where((observation["flakes"][..., 3] > 0)[:, None], places, -np.inf)
        fits = price <= left + 1e-6
        levels = np.where(fits, self.over_places(places, observation), -np.inf)
        level = np.where(fits.any(1), levels.argmax(1), price.argmin(1))
        self.turn += 1
        return task.action(level, places[np.arange(len(level)), level].argmax(1))

    @abstractmethod
    def scores(self, seen: Observation, task: LevelSelectionTask) -> np.ndarray:
        """Of every level and flake (lanes, levels, flakes)."""

    def over_places(self, places: np.ndarray, seen: Observation) -> np.ndarray:
        """Scores of the levels (lanes, levels)."""
        return places.max(2)


class RoundRobin(LevelRule):
    """One level after another, each where it promises most."""

    def scores(self, seen: Observation, task: LevelSelectionTask) -> np.ndarray:
        return seen["promise"]

    def over_places(self, places: np.ndarray, seen: Observation) -> np.ndarray:
        levels = places.shape[1]
        return np.tile(-((np.arange(levels) - self.turn) % levels), (len(places), 1)).astype(float)


class GreedyVariance(LevelRule):
    """The highest variance of what a level measures, for the price. weights: on the levels, the last of them on all later ones."""

    def __init__(self, weights: tuple[float, ...] = (1.0,)):
        self.weights = weights

    def scores(self, seen: Observation, task: LevelSelectionTask) -> np.ndarray:
        weight = np.array([self.weights[min(level, len(self.weights) - 1)] for level in range(task.levels)])
        return (weight / seen["price"])[..., None] * seen["variance"]


def tuned_greedy_variance() -> GreedyVariance:
    """The same with weights found on training seeds: which level is worth how much."""
    return GreedyVariance(TUNED_WEIGHTS)


class KnowledgeGradient(LevelRule):
    """The highest expected reduction of the target's uncertainty, for the price, the next transfer included.

    hope: share of the reduction that would be if the signs of the correlations were known. Frazier, Powell & Dayanik (2008),
    10.1137/070693424, for a sum of variances.
    """

    def __init__(self, hope: float = 0.0):
        self.hope = hope

    def gain(self, seen: Observation) -> np.ndarray:
        """Expected reduction (lanes, levels, flakes)."""
        return (1 - self.hope) * seen["reduction"] + self.hope * seen["promise"]

    def scores(self, seen: Observation, task: LevelSelectionTask) -> np.ndarray:
        return self.gain(seen) / seen["price"][..., None]


class PlannedGradient(KnowledgeGradient):
    """A knowledge gradient that shares a transfer among the maps that would follow, as many as serve best."""

    def __init__(self, hope: float = 1.0):
        super().__init__(hope)

    def over_places(self, places: np.ndarray, seen: Observation) -> np.ndarray:
        best = -np.sort(-self.gain(seen), -1)
        best[:, 0, 1:] = 0  # one more overview at a time
        cost = seen["price"][..., None] + seen["repeat"][..., None] * np.arange(best.shape[-1])
        return np.where(cost <= seen["budget"][..., None] + 1e-6, best.cumsum(-1) / cost, 0.0).max(-1)


class MultiFidelityUcb(LevelRule):
    """The flake of which least is known, at the first level that is not yet sure of it.

    After Kandasamy et al. (2016), arXiv:1603.06288: a level is left for the next one when its standard deviation is below its
    threshold. There is no optimum to be found here, so the bound is the width alone.
    """

    def __init__(self, thresholds: tuple[float, ...] | None = None):
        self.thresholds = THRESHOLDS if thresholds is None else thresholds

    def scores(self, seen: Observation, task: LevelSelectionTask) -> np.ndarray:
        last = task.levels - 1
        unsure = np.sqrt(seen["variance"]) > np.array([*(self.thresholds[min(level, len(self.thresholds) - 1)] for level in range(last)), 0.0])[:, None]
        first = unsure & (np.cumsum(unsure, 1) == 1)
        return np.where(first, 1.0, 1e-3) * (seen["variance"] * seen["target"][..., None]).sum(1, keepdims=True)


class SurveyFirst(LevelRule):
    """So many overviews, so many maps at each level in between, then the last level to the end: a plan made beforehand."""

    def __init__(self, overviews: int | None = None, maps: int | None = None):
        self.wanted = SURVEY if overviews is None or maps is None else (overviews, maps)

    def scores(self, seen: Observation, task: LevelSelectionTask) -> np.ndarray:
        return seen["promise"]

    def over_places(self, places: np.ndarray, seen: Observation) -> np.ndarray:
        levels = places.shape[1]
        ends = np.cumsum([self.wanted[0], *[self.wanted[1]] * (levels - 2)])
        return np.tile(np.arange(levels) == np.searchsorted(ends, self.turn, "right"), (len(places), 1)).astype(float)
