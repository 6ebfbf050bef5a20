"""What the generic tests need to know of each environment. A registered environment without a case fails the suite."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import gymnasium as gym
import numpy as np

import probegym
from probegym.envs.actions import sample_actions


@dataclass(frozen=True)
class Case:
    """One scenario to test an environment with.

    steady: turns random actions into ones that do not end the episode. short: a budget of a few steps.
    varying: observations of which every element must change within an episode.
    """

    scenario: str
    steady: Callable[[np.ndarray], np.ndarray]
    short: int
    varying: tuple[str, ...]
    rewards: tuple[str, ...] = ("privileged",)
    long: int = 60


def undeclared(actions: np.ndarray) -> np.ndarray:
    """StemTuning actions that never declare the microscope tuned."""
    actions[..., -1] = -np.abs(actions[..., -1])
    return actions


def undeclared_tip(actions: np.ndarray) -> np.ndarray:
    """TipConditioning actions that never declare the tip good."""
    actions[actions == 13] = 0
    return actions


def anything(actions: np.ndarray) -> np.ndarray:
    """No action of an exploration, and none of choosing levels, ends an episode of a few measurements."""
    return actions


def short_ways(actions: np.ndarray) -> np.ndarray:
    """AdatomManipulation drags that move atoms by a site or two, so that they neither reach their goals nor leave the limits."""
    actions[..., -6:-4] = 0.0
    actions[..., -4:-2] = np.copysign(0.04 + 0.02 * np.abs(actions[..., -4:-2]), actions[..., -4:-2])
    actions[..., -1] = 1.0
    return actions


def unchanged(actions: np.ndarray) -> np.ndarray:
    """AfmTuning ends an episode only with a crash; random settings of a few lines lead to none on these seeds."""
    return 0.3 * actions


_SEEN = ("controls", "signal", "budget")

CASES: dict[str, tuple[Case, ...]] = {
    "probegym/StemTuning-v0": (
        Case("train", undeclared, 5, _SEEN),
        Case("graphene", undeclared, 5, (*_SEEN, "haadf"), ("privileged", "observable")),
        Case("both", undeclared, 10, _SEEN, ("privileged", "observable")),
    ),
    "probegym/AfmTuning-v0": (Case("train", unchanged, 5, ("lines", "settings", "budget"), ("privileged", "observable")),),
    "probegym/LevelSelection-v0": (
        Case("train", anything, 5, ("budget", "price"), ("privileged", "observable")),
        Case("place", anything, 5, ("budget", "price"), ("privileged", "observable")),
        Case("map", anything, 5, ("budget", "price"), ("privileged", "observable")),
    ),
    "probegym/SpectrumExploration-v0": (
        Case("train", anything, 12, ("deviation", "budget"), ("privileged", "observable"), long=16),
        Case("bare", anything, 12, ("budget",), ("privileged", "observable")),
    ),
    "probegym/BeamManipulation-v0": (
        Case("train", anything, 6, ("budget", "drift", "correction"), ("privileged", "observable")),
        Case("both", anything, 6, ("budget",), ("privileged", "observable")),
        Case("pattern-2", anything, 6, ("budget",), ("privileged", "observable")),
    ),
    "probegym/AdatomManipulation-v0": (
        Case("train", short_ways, 4, ("achieved_goal",), ("privileged", "observable")),
        Case("trace", short_ways, 4, ("achieved_goal",), ("privileged", "observable")),
        Case("image", short_ways, 4, (), ("privileged", "observable")),
        Case("assembly-2", short_ways, 4, (), ("privileged", "observable")),
    ),
    "probegym/IsingInference-v0": (Case("train", anything, 5, ("budget", "overlap", "order", "misfit"), ("privileged", "observable")),),
    "probegym/TipConditioning-v0": (Case("train", undeclared_tip, 5, ("verdict", "area", "budget"), ("privileged", "observable")),),
}


class Instrument:
    """A twin, were its truth hidden."""

    def __init__(self, world):
        self.world, self.lanes = world, world.lanes

    def __getattr__(self, name):
        return getattr(self.world, name)

    def truth(self):
        """None."""

    def portrait(self, lane):
        """Nothing."""
        return {}


@dataclass(frozen=True)
class Registered:
    """An id with one of its cases."""

    id: str
    case: Case

    def make(self, **options):
        """The environment as gym.make wraps it."""
        return gym.make(self.id, **({"scenario": self.case.scenario} | options))

    def bare(self, **options):
        """The environment without wrappers."""
        return self.make(**options).unwrapped

    def batch(self, lanes: int, mode: str = "vector_entry_point", **options):
        """The native vector environment, or gymnasium's synchronous one."""
        return gym.make_vec(self.id, lanes, mode, **({"scenario": self.case.scenario} | options))

    def actions(self, steps: int, seed: int = 0, lanes: int | None = None) -> np.ndarray:
        """Random actions (steps, [lanes,] ...) of which none ends the episode."""
        return self.case.steady(self.any_actions(steps, seed, lanes))

    def any_actions(self, steps: int, seed: int = 0, lanes: int | None = None) -> np.ndarray:
        """Random actions, some of which may end the episode."""
        space = self.bare().action_space
        shape = (steps,) if lanes is None else (steps, lanes)
        return sample_actions(space, shape, np.random.default_rng(seed))


def registered() -> list[Registered]:
    """Every id with every case; an id without cases is left to test_every_environment_has_a_case."""
    return [Registered(name, case) for name in probegym.ENVIRONMENTS for case in CASES.get(name, ())]
