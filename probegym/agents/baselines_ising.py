"""Rules for choosing how to anneal and image next. They see the belief that the environment keeps, nothing hidden.

All leave out what does not fit into the time that is left. Constants were found on training seeds by benchmarks/ising.py.
"""

from __future__ import annotations

from abc import abstractmethod

import numpy as np

from probegym.agents.base import Agent
from probegym.envs.episodes import Episodes
from probegym.envs.ising_inference import IsingInferenceTask
from probegym.envs.task import Observation

HOLD, LONG_HOLD = 1, 2  # numbers of the holds that served best with each rule
UNIFORM_DWELL = 2
USUAL_RATE, USUAL_BARRIER = 1.0, 0.35  # medians of the training scenario


class SpinRule(Agent):
    """Takes the cycle with the highest worth, all with the same hold. hold: its number, from 0."""

    def __init__(self, hold: int = LONG_HOLD):
        self.hold = hold

    def begin(self, lanes: int, seed: int) -> None:
        self.turn, self.rng = 0, np.random.default_rng(seed)

    def act(self, observation: Observation, episodes: Episodes) -> np.ndarray:
        task = episodes.task_of(IsingInferenceTask)
        worth = task.worth(self.gain(observation, episodes), self.relaxed(observation, task), observation["budget"][:, 0].astype(float))
        self.turn += 1
        return task.actions(worth)

    def relaxed(self, seen: Observation, task: IsingInferenceTask) -> np.ndarray:
        """What share of that holds after each anneal (lanes, temperatures, holds)."""
        only: np.ndarray = np.zeros(seen["moved"].shape)
        only[..., min(self.hold, only.shape[2] - 1)] = 1
        return only

    @abstractmethod
    def gain(self, seen: Observation, episodes: Episodes) -> np.ndarray:
        """What an image is expected to tell (lanes, temperatures, fields, dwell times, 2 sizes)."""


class UniformSweep(SpinRule):
    """Temperatures and fields one after the other, evenly; the whole lattice, one dwell time."""

    def __init__(self, hold: int = HOLD, dwell: int = UNIFORM_DWELL):
        super().__init__(hold)
        self.dwell = dwell

    def gain(self, seen: Observation, episodes: Episodes) -> np.ndarray:
        out: np.ndarray = np.zeros(seen["gain"].shape)
        _, temperatures, fields, dwells, _ = out.shape
        at = (self.turn * 3 % temperatures, self.turn * 2 % fields)
        out[:, at[0], at[1], min(self.dwell, dwells - 1), 0] = 1
        return out


class MaximumFisher(SpinRule):
    """Most expected information on J for the time at the believed J and h, with a classifier as its makers tell."""

    def gain(self, seen: Observation, episodes: Episodes) -> np.ndarray:
        return seen["promise"].astype(float)


class MaximumFisherDoubting(SpinRule):
    """The same, counting what is not known of the classifier."""

    def gain(self, seen: Observation, episodes: Episodes) -> np.ndarray:
        return seen["gain"].astype(float)


class MaximumFisherPatient(MaximumFisherDoubting):
    """The same, with the hold that suits the temperature for usual rates of relaxation; where nothing moved, nothing colder or shorter is tried.

    rate: 1/s at 600 K; barrier: eV.
    """

    def __init__(self, rate: float = USUAL_RATE, barrier: float = USUAL_BARRIER):
        super().__init__()
        self.rate, self.barrier = rate, barrier

    def relaxed(self, seen: Observation, task: IsingInferenceTask) -> np.ndarray:
        lanes = len(seen["moved"])
        stuck = (seen["moved"] >= 0) & (seen["moved"] < 0.5)
        colder = np.flip(np.maximum.accumulate(np.flip(stuck, (1, 2)), 1), (1, 2))
        beyond = np.flip(np.maximum.accumulate(np.flip(colder, (1, 2)), 2), (1, 2))
        return np.where(beyond, 1e-3, task.belief.relaxed(np.full(lanes, self.rate), np.full(lanes, self.barrier)))


class Thompson(SpinRule):
    """The same at J, h and classifier drawn from the belief (Thompson 1933, 10.1093/biomet/25.3-4.285)."""

    def gain(self, seen: Observation, episodes: Episodes) -> np.ndarray:
        m = episodes.memory
        factor = np.linalg.cholesky(m["covariance"])
        drawn = m["mean"] + (factor * self.rng.standard_normal(m["mean"].shape)[:, None]).sum(2)
        return episodes.task_of(IsingInferenceTask).belief.gains(m, drawn)[0]
