"""What an agent is: something that acts on a batch of observations, or a script that works through one episode."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TypeVar

import numpy as np

from probegym.envs.actions import sample_actions
from probegym.envs.core import ScopeEnv
from probegym.envs.episodes import Episodes
from probegym.envs.task import Observation
from probegym.errors import ProbeGymError

Twin = TypeVar("Twin")


def twin_of(episodes: Episodes, kind: type[Twin]) -> Twin:
    """The twin that is played in, for those who may look inside; raises ProbeGymError when the world is another."""
    if not isinstance(episodes.world, kind):
        raise ProbeGymError(f"this looks into a {kind.__name__}, the world is a {type(episodes.world).__name__}: leave the world out")
    return episodes.world


class Agent(ABC):
    """Acts on many lanes at once; what it remembers has a leading axis of lanes."""

    @abstractmethod
    def begin(self, lanes: int, seed: int) -> None:
        """Forget everything; ``lanes`` episodes start."""

    @abstractmethod
    def act(self, observation: Observation, episodes: Episodes) -> np.ndarray:
        """Actions (lanes, ...). ``episodes`` is for privileged agents; a policy must not look at it."""


class RandomAgent(Agent):
    """Samples the action space uniformly."""

    def begin(self, lanes: int, seed: int) -> None:
        self.lanes, self.rng = lanes, np.random.default_rng(seed)

    def act(self, observation: Observation, episodes: Episodes) -> np.ndarray:
        return sample_actions(episodes.task.action_space, (self.lanes,), self.rng)


class OracleAgent(Agent):
    """Sees the hidden state and does what the task's ``oracle`` says: the upper end of the score, not always a bound."""

    def begin(self, lanes: int, seed: int) -> None:
        pass

    def act(self, observation: Observation, episodes: Episodes) -> np.ndarray:
        truth = episodes.world.truth()
        if not truth:
            raise ProbeGymError("the oracle needs hidden state, this world has none: use another agent")
        return episodes.task.oracle(truth, episodes.memory)


class OutOfBudget(Exception):
    """The episode ended while a script was still measuring."""


class Script(ABC):
    """A practitioner's procedure: works through one episode of a single environment, step by step."""

    @abstractmethod
    def run(self, step: Callable[[np.ndarray], Observation], env: ScopeEnv, observation: Observation, seed: int) -> None:
        """Act until done. ``step`` raises OutOfBudget when the episode ends."""

    def play(self, act: Callable[[np.ndarray], tuple[Observation, bool]], env: ScopeEnv, observation: Observation, seed: int) -> None:
        """Run to the end of an episode. act: does an action; returns what is seen then, and whether the episode is over.

        Raises ProbeGymError when the script stops before.
        """
        over = False

        def step(action: np.ndarray) -> Observation:
            nonlocal over
            if over:
                raise OutOfBudget
            seen, over = act(action)
            return seen

        try:
            self.run(step, env, observation, seed)
        except OutOfBudget:
            pass
        if not over:
            raise ProbeGymError(f"{type(self).__name__} stopped before its episode ended: it must declare or use up the budget")
