"""Practitioners' procedures for tip conditioning. They see what a policy sees, but of the images only the classifier's verdict.

All judge alike: the log odds of the verdicts since the last treatment add up; above ``sure`` the tip is declared good, above
``unsure`` it is looked at again, else the next treatment follows. Sequence, table and both thresholds were found on training
seeds by benchmarks/tip_conditioning_scripts.py.
"""

from __future__ import annotations

from abc import abstractmethod

import numpy as np

from probegym.agents.base import Agent
from probegym.envs.episodes import Episodes
from probegym.envs.task import Observation
from probegym.envs.tip_conditioning import TipConditioningTask
from probegym.errors import ProbeGymError


class Conditioner(Agent):
    """Treats until the verdicts say good. sure, unsure: log odds."""

    def __init__(self, sure: float, unsure: float):
        self.sure, self.unsure = sure, unsure

    def begin(self, lanes: int, seed: int) -> None:
        self.evidence, self.treatments = np.zeros(lanes), np.zeros(lanes, int)

    def act(self, observation: Observation, episodes: Episodes) -> np.ndarray:
        names = episodes.task_of(TipConditioningTask).names
        verdict = np.clip(observation["verdict"][:, 0].astype(float), 1e-6, 1 - 1e-6)
        looked = observation["last_action"][:, 0] > 0
        self.evidence = np.where(looked, self.evidence, 0.0) + np.log(verdict / (1 - verdict))
        room = observation["room"] > 0
        room[:, [0, -1]] = False
        wanted = self.wanted(observation["last_action"].argmax(1), names)
        action = np.array([next((n for n in [*order, *np.flatnonzero(fits)] if fits[n]), len(names) - 1) for order, fits in zip(wanted, room, strict=True)])
        out_of_room, last = ~room.any(1), observation["budget"][:, 0] <= 1.01 / episodes.limits["measurements"]
        treating = (self.evidence <= self.unsure) & ~out_of_room
        over = (self.evidence > self.sure) | last
        self.treatments += treating & ~over
        return np.where(over, len(names) - 1, np.where(treating, action, 0))

    @abstractmethod
    def wanted(self, before: np.ndarray, names: tuple[str, ...]) -> list[np.ndarray]:
        """Numbers of treatments by lane, the best first; before: (lanes,) the last action. The first that fits is made, else the first of all that do."""


def numbers(wanted, names: tuple[str, ...]) -> np.ndarray:
    """Numbers (n,) of n actions by name; raises ProbeGymError where the scenario has no such action."""
    missing = set(wanted) - set(names)
    if missing:
        raise ProbeGymError(f"the scenario has no action {', '.join(sorted(missing))!r}: use one with {', '.join(names)}")
    return np.array([names.index(name) for name in wanted])


RECIPE = ("pulse -4 V", "dip 5 nm")


class FixedRecipe(Conditioner):
    """A sequence of treatments, from the start again when it is through; what does not fit any more is left out."""

    def __init__(self, recipe: tuple[str, ...] = RECIPE, sure: float = 5.0, unsure: float = 0.0):
        super().__init__(sure, unsure)
        self.recipe = recipe

    def wanted(self, before: np.ndarray, names: tuple[str, ...]) -> list[np.ndarray]:
        steps = numbers(self.recipe, names)
        return [np.roll(steps, -(at % len(steps))) for at in self.treatments]


TABLE = {
    "": ("pulse -4 V", "pulse +4 V", "dip 1.2 nm", "dip 5 nm", "dip 2.5 nm", "dip 1.8 nm"),
    "pulse +2.5 V": ("dip 1.8 nm", "dip 2.5 nm", "dip 1.2 nm", "dip 5 nm", "dip 1 nm", "pulse +8 V"),
    "pulse -2.5 V": ("dip 5 nm", "dip 1.8 nm", "dip 2.5 nm", "dip 1 nm", "pulse +4 V", "dip 1.2 nm"),
    "pulse +4 V": ("dip 1 nm", "dip 5 nm", "dip 1.8 nm", "dip 1.2 nm", "dip 2.5 nm", "dip 0.8 nm"),
    "pulse -4 V": ("dip 1.2 nm", "dip 5 nm", "dip 1.8 nm", "pulse +8 V", "dip 2.5 nm", "dip 1 nm"),
    "pulse +8 V": ("dip 5 nm", "dip 1.8 nm", "pulse -8 V", "dip 2.5 nm", "dip 1.2 nm", "dip 1 nm"),
    "pulse -8 V": ("dip 1.2 nm", "dip 1 nm", "dip 1.8 nm", "dip 5 nm", "dip 2.5 nm", "pulse +8 V"),
    "dip 0.8 nm": ("dip 1.2 nm", "pulse -4 V", "pulse +4 V", "dip 5 nm", "dip 1 nm", "pulse -8 V"),
    "dip 1 nm": ("dip 1.8 nm", "dip 5 nm", "dip 1.2 nm", "dip 2.5 nm", "dip 1 nm", "pulse +8 V"),
    "dip 1.2 nm": ("dip 5 nm", "dip 1.8 nm", "dip 1.2 nm", "pulse -4 V", "pulse +4 V", "dip 2.5 nm"),
    "dip 1.8 nm": ("dip 1.2 nm", "dip 1.8 nm", "dip 5 nm", "pulse -4 V", "pulse +8 V", "dip 1 nm"),
    "dip 2.5 nm": ("pulse -4 V", "dip 1.8 nm", "pulse -8 V", "dip 1.2 nm", "dip 5 nm", "dip 2.5 nm"),
    "dip 5 nm": ("dip 5 nm", "dip 1.8 nm", "pulse +4 V", "dip 1.2 nm", "dip 2.5 nm", "pulse -4 V"),
}  # fmt: skip
"""Last treatment -> treatments by measured improvement, the best first; "" at the start."""


class GreedyTable(Conditioner):
    """After each treatment the one that improved the tip most, on average, when it followed that treatment."""

    def __init__(self, table: dict[str, tuple[str, ...]] | None = None, sure: float = 5.0, unsure: float = 1.0):
        super().__init__(sure, unsure)
        self.table = TABLE if table is None else table

    def begin(self, lanes: int, seed: int) -> None:
        super().begin(lanes, seed)
        self.last = np.zeros(lanes, int)

    def wanted(self, before: np.ndarray, names: tuple[str, ...]) -> list[np.ndarray]:
        treated = (before > 0) & (before < len(names) - 1)  # a look is no treatment
        self.last = np.where(treated, before, self.last)
        orders = {0: numbers(self.table[""], names)} | {names.index(k): numbers(v, names) for k, v in self.table.items() if k}
        return [orders.get(int(last), orders[0]) for last in self.last]
