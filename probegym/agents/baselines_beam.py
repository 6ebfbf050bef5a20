"""Rules for moving atoms with the beam, from fixed places to one that learns the rates on the way.

All see what a policy sees. With several atoms they treat the one with the longest way to its goal.
"""

from __future__ import annotations

import numpy as np

from probegym.agents.base import Agent
from probegym.envs import beam_lattice
from probegym.envs.beam_manipulation import BeamManipulationTask
from probegym.envs.beam_settings import BOND
from probegym.envs.episodes import Episodes
from probegym.envs.task import Observation
from probegym.errors import ProbeGymError

PUBLISHED_DWELL = 1.5  # s


def farthest(observation: Observation) -> np.ndarray:
    """(lanes,) which atom has the longest way, of those that are seen."""
    return (np.abs(observation["bonds"]).sum(2) * (0.01 + observation["found"])).argmax(1)


def lead(observation: Observation, treated: np.ndarray, dwell: np.ndarray) -> np.ndarray:
    """(lanes, 2) bonds from where the atom was located to where it will be in the middle of the dwell."""
    lane = np.arange(len(treated))
    seconds = 0.5 * (observation["clock"][:, 0] + dwell)  # an atom is located in the middle of its image
    return observation["correction"][lane, treated] + observation["drift"][lane, treated] * seconds[:, None]


class RandomNearby(Agent):
    """The beam anywhere within a bond length along either axis (Schwarzer et al. 2023), for 1.5 s."""

    def begin(self, lanes: int, seed: int) -> None:
        self.rng = np.random.default_rng(seed)

    def act(self, observation: Observation, episodes: Episodes) -> np.ndarray:
        lanes, task = len(observation["budget"]), episodes.task_of(BeamManipulationTask)
        place = self.rng.uniform(-1, 1, (lanes, 2))
        return task.action(place * BOND, np.full(lanes, PUBLISHED_DWELL), self.rng.integers(task.settings.atoms, size=lanes))


class FixedGreedy(Agent):
    """The beam on the way to the neighbour nearest the goal. place: bonds along and across; dwell: s; leads: whether drift is made up for."""

    def __init__(self, place: tuple[float, float] = (0.85, 0.0), dwell: float = 3.0, leads: bool = True):
        self.place, self.dwell, self.leads = np.array(place), dwell, leads

    def begin(self, lanes: int, seed: int) -> None:
        pass

    def act(self, observation: Observation, episodes: Episodes) -> np.ndarray:
        lanes, task = len(observation["budget"]), episodes.task_of(BeamManipulationTask)
        s = task.settings
        dwell, treated = np.full(lanes, self.dwell), farthest(observation)
        aim = np.tile(self.place, (lanes, 1)) if s.axes == "lattice" else beam_lattice.turned(self.place, observation["axis"][np.arange(lanes), treated])
        aim = aim + lead(observation, treated, np.clip(dwell, s.dwell.shortest, s.dwell.longest)) if self.leads else aim
        return task.action(aim * BOND, dwell, treated)


def greedy_published() -> FixedGreedy:
    """On the neighbour itself, 1.42 A away, for 1.5 s, where it was located: the greedy agent of putting-dune (Schwarzer et al. 2023)."""
    return FixedGreedy((1.0, 0.0), PUBLISHED_DWELL, leads=False)


def greedy_tuned() -> FixedGreedy:
    """The fixed place and dwell that took the least time on training seeds (benchmarks/beam_policies.py --tune)."""
    return FixedGreedy((1.8, 2.0), 4.0)


class BayesianGreedy(Agent):
    """Learns the rates on the fly and takes the place and dwell that bring the atom nearer the goal fastest, on average over what may be.

    It makes up for the drift. curiosity: bonds that a nat of information about the lobe is
    worth besides. Knows the published rates as well as the random ones (beam_networks.prior). One atom, in the axes of the lattice.
    """

    def __init__(self, curiosity: float = 0.0):
        self.curiosity = curiosity

    def begin(self, lanes: int, seed: int) -> None:
        from probegym.agents.beam_networks import Mover, RateBelief, Student, prior

        self.student = Student(Mover(RateBelief(*prior()), self.curiosity))
        self.student.begin(lanes, seed)

    def act(self, observation: Observation, episodes: Episodes) -> np.ndarray:
        s = episodes.task_of(BeamManipulationTask).settings
        if s.atoms > 1 or s.axes != "lattice":
            raise ProbeGymError(f"scenario {episodes.scenario.name!r} is not for one atom in the axes of the lattice: use another agent")
        return self.student.act(observation, episodes)


def bayesian_curious() -> BayesianGreedy:
    """The same with the worth of information that took the least time on training seeds (benchmarks/beam_policies.py --tune)."""
    return BayesianGreedy(4.0)
