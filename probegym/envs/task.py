"""What an environment is, apart from the world it is played in."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import Any, ClassVar

import numpy as np
from gymnasium import spaces

from probegym.envs import controls
from probegym.errors import ProbeGymError
from probegym.hardware_bridge.commands import Command, Lanes, Readings
from probegym.hardware_bridge.world import Refused
from probegym.scenarios import ScenarioError

Where = np.ndarray
"""(lanes,) bool: which lanes a command or an update is meant for."""

Commands = Iterable[tuple[Command, Where | None]]
"""What is to be done, one after the other, and on which lanes; ``None`` means every lane concerned."""

Observation = dict[str, np.ndarray]
Boxes = dict[str, spaces.Space[Any]]
"""What an observation is made of."""


def shape_of(space: spaces.Space[Any]) -> tuple[int, ...]:
    """Shape of the arrays in a space; raises ProbeGymError where there is more than one array."""
    if space.shape is None:
        raise ProbeGymError(f"an array is needed here, not a {type(space).__name__}: use another environment")
    return space.shape


class Dialogue:
    """Commands one after the other; a generator among them is told the answer to each before it gives the next."""

    def __init__(self, commands: Commands) -> None:
        self.commands = iter(commands)
        self.answer: Readings | None = None

    def __iter__(self) -> Iterator[tuple[Command, Where | None]]:
        return self

    def __next__(self) -> tuple[Command, Where | None]:
        if self.answer is None or not isinstance(self.commands, Generator):
            return next(self.commands)
        command: tuple[Command, Where | None] = self.commands.send(self.answer)
        return command


@dataclass
class Transition:
    """What a reward or cost term may look at; every array has a leading axis of lanes.

    before, after: hidden state, empty where the world cannot tell. spent: what this step cost (time, dose, damage,
    measurements). memory: the task's, after the step.
    """

    before: Lanes
    after: Lanes
    memory: Lanes
    spent: Lanes
    success: np.ndarray
    failure: np.ndarray


@dataclass(frozen=True)
class Term:
    """A weighted reward. ``privileged`` terms need the hidden state and exist only where the world can tell it."""

    name: str
    weight: float
    of: Callable[[Transition], np.ndarray]
    privileged: bool = False


def success(t: Transition) -> np.ndarray:
    """1 when the goal was reached in this step, (lanes,)."""
    return t.success.astype(float)


def failure(t: Transition) -> np.ndarray:
    """1 when the episode ended in this step without its goal, (lanes,)."""
    return t.failure.astype(float)


def measurements(t: Transition) -> np.ndarray:
    """How many frames, spectra or lines were acquired in this step, (lanes,)."""
    return t.spent["measurements"]


def hours(t: Transition) -> np.ndarray:
    """Time that this step took in hours, (lanes,)."""
    return t.spent["time"] / 3600


class Task(ABC):
    """One environment: what the agent sees, may do and is paid for. Plain NumPy; no simulator, no instrument inside.

    ``settings``: the ``task`` table of the scenario. All methods work on a batch of lanes at once.
    """

    family: ClassVar[str]  # name of its scenario file
    twin: ClassVar[str]  # "module:Class" of its twin, loaded only when asked for
    controls_from: ClassVar[str] = ""  # "module:function" of the controls of a task, for a person who plays; loaded only when asked for
    measured: ClassVar[str] = "measurements"  # what one measurement is, in the plural
    metric_units: ClassVar[dict[str, str]] = {}  # of the scalars that ``metrics`` gives; "1" for a pure number
    info_meanings: ClassVar[dict[str, str]] = {}  # what metrics are, and costs where there is more to say, in a line for the environment's page
    origins: ClassVar[dict[str, tuple[str, ...]]] = {}  # argument of a command -> entries of a scenario that must agree on it, ``task.detector``
    decides: ClassVar[tuple[str, ...]] = ()  # what ``decode`` writes of the memory; put back when the world refuses the step
    goal_info: ClassVar[tuple[str, ...]] = ()  # what ``goal_reward`` needs of the info of a step
    observation_space: spaces.Dict
    action_space: spaces.Space[Any]
    rewards: dict[str, list[Term]]  # by reward mode: "privileged", "observable"
    limits: dict[str, float]  # what an episode may cost, as the engine keeps it; for tasks whose prices are shares of that

    @abstractmethod
    def __init__(self, settings: dict[str, Any]) -> None:
        """Raise ProbeGymError for settings that cannot be."""

    @property
    @abstractmethod
    def action_units(self) -> dict[str, Any]:
        """What the components of an action mean, as plain JSON: a policy is refused by an environment that differs."""

    @property
    def controls(self) -> controls.Controls:
        """What a person who plays can turn, choose and point at, in physical units; without ``controls_from`` the bare components of an action."""
        if not self.controls_from:
            return controls.of_space(self.action_space)
        module, name = self.controls_from.split(":")
        made: controls.Controls = getattr(import_module(module), name)(self)
        return made

    @abstractmethod
    def memory(self, lanes: int) -> Lanes:
        """What must be remembered between steps, as at the start of an episode.

        An entry ``key`` (lanes,) uint64 is given the episode's key, for what the task itself draws.
        """

    @abstractmethod
    def opening(self, memory: Lanes) -> Commands:
        """Commands of the first observation; ``None`` means every lane concerned."""

    @abstractmethod
    def decode(self, action: np.ndarray, memory: Lanes, where: Where) -> Commands:
        """Commands of one step. action: (lanes, ...). May update the memory of the lanes in ``where``.

        A generator may look at the answers: ``readings = yield command, lanes``; lanes that were not asked hold zeros.
        """

    def masks(self, memory: Lanes) -> np.ndarray:
        """(lanes, actions) bool: which discrete actions make sense now; the others are carried out all the same.

        Raises ProbeGymError where actions are not discrete.
        """
        if not isinstance(self.action_space, spaces.Discrete):
            raise ProbeGymError("only an environment with discrete actions has action masks: choose another scenario")
        return np.ones((len(next(iter(memory.values()))), int(self.action_space.n)), bool)

    def foreseen(self, action: np.ndarray, memory: Lanes) -> Lanes:
        """Costs that an action will have, (lanes,) each, as far as they are known beforehand.

        One that does not fit into the budget any more ends the episode, and nothing is done.
        """
        return {}

    def least(self, memory: Lanes) -> Lanes:
        """The least that the next step can cost, (lanes,) each; what is not said is taken to be like the last step."""
        return {}

    @abstractmethod
    def encode(self, readings: list[Readings], memory: Lanes, left: np.ndarray, where: Where) -> Observation:
        """Observation from the step's readings, in the order of its commands; left: (lanes,) share of the budget."""

    @abstractmethod
    def ends(self, truth: Lanes, memory: Lanes) -> tuple[np.ndarray, np.ndarray]:
        """(ended, success), each (lanes,) bool; ``truth`` is empty on an instrument, where success is not known."""

    @abstractmethod
    def metrics(self, truth: Lanes, memory: Lanes) -> Lanes:
        """Extra scalars for ``info``, each (lanes,), in the units of ``metric_units``."""

    def goal_reward(self, achieved: np.ndarray, desired: np.ndarray, info: Lanes) -> np.ndarray:
        """Reward (n,) of steps as they would have been paid for another goal; for tasks that show ``achieved_goal`` and ``desired_goal``.

        achieved, desired: (n, ...) those of the observation after the step. info: the entries ``goal_info`` of that step's info, (n, ...) each.
        Raises ProbeGymError where a task has no goals.
        """
        raise ProbeGymError("this environment has no goals to be exchanged: choose another one for hindsight replay")

    @abstractmethod
    def oracle(self, truth: Lanes, memory: Lanes) -> np.ndarray:
        """What someone does who sees the hidden state: actions (lanes, ...), not always the best ones.

        The first lines of its docstring stand on the environment's page: what it does, and whether that bounds what others can reach.
        """

    def glance(self, memory: Lanes) -> Command | None:
        """A command whose values a picture shows beside what the agent is shown, as ``glance NAME`` of its ``truth``; None for nothing more."""
        return None

    @abstractmethod
    def picture(self, observation: Observation, truth: Lanes, memory: Lanes, info: Lanes) -> np.ndarray:
        """One lane as an RGB image (height, width, 3) uint8; the arrays have no axis of lanes."""


@contextmanager
def agreed(task: Task, twin: bool) -> Iterator[None]:
    """Raise ScenarioError for what a scenario's own twin refuses here: both were told by the same scenario, and it does not agree with itself."""
    try:
        yield
    except Refused as refused:
        if not twin:
            raise
        raise ScenarioError(task.origins.get(refused.argument, ("task", "world")), str(refused)) from refused
