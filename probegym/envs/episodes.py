"""The engine: plays a task in a world, N episodes at once. There is one way through a step:

decode -> commands -> world -> readings -> encode -> reward.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import gymnasium as gym
import numpy as np

from probegym.envs.task import Commands, Dialogue, Observation, Task, Transition, agreed
from probegym.errors import ProbeGymError
from probegym.hardware_bridge.commands import Command, Lanes, LaneState, Readings
from probegym.hardware_bridge.world import Refused, World
from probegym.scenarios import Scenario, ScenarioError
from probegym.scenarios import load as load_scenario

REWARD_MODES = ("privileged", "observable")
Kind = TypeVar("Kind", bound=Task)


@dataclass(frozen=True)
class Snapshot:
    """Everything that decides an episode's future; plain arrays, so it pickles and moves between batches."""

    world: LaneState
    memory: LaneState
    ledger: LaneState
    observation: Observation
    generator: Mapping[str, Any]


def build_world(task: type[Task], scenario: Scenario, lanes: int, world: World | str | None) -> World:
    """The twin, or a record by its folder, or the world that was handed in; raises ProbeGymError for what is none, or has other lanes."""
    if world is None:
        module, name = task.twin.split(":")
        twin: World = getattr(importlib.import_module(module), name)(scenario.world, lanes)
        return twin
    if isinstance(world, str | os.PathLike):
        from probegym.hardware_bridge.records.replay import RecordWorld

        world = RecordWorld(world)
    if not hasattr(world, "execute"):
        raise ProbeGymError(f"world must be None, the folder of a record, or a world, got {type(world).__name__}")
    if world.lanes != lanes:
        raise ProbeGymError(f"the world has {world.lanes} lanes, the environment {lanes}: make them equal")
    return world


class Episodes:
    """N episodes of one task in one world: the only place where a step happens."""

    def __init__(self, task_type: type[Task], scenario: str, reward: str, lanes: int, world: World | str | None, budget: int | None) -> None:
        self.scenario = load_scenario(task_type.family, scenario)
        if reward not in REWARD_MODES:
            raise ProbeGymError(f"reward must be one of {', '.join(REWARD_MODES)}, got {reward!r}")
        with self.scenario.told_where():
            self.task = task_type(self.scenario.task)
        self.task.limits = self.limits = self.scenario.budget.limits()
        if budget is not None:
            most = int(self.limits["measurements"])
            if isinstance(budget, bool) or not isinstance(budget, (int, np.integer)) or not 0 < budget <= most:
                raise ProbeGymError(f"budget must be a whole number of measurements from 1 to {most} in scenario {scenario!r}, got {budget!r}")
            self.limits["measurements"] = float(budget)
        with self.scenario.told_where():
            self.world = build_world(task_type, self.scenario, lanes, world)
        self.lanes, self.twin = lanes, world is None
        self.terms = self.task.rewards[reward]
        if not self.terms:
            raise ProbeGymError(f"scenario {scenario!r} shows nothing that a reward={reward!r} can be computed from: use another scenario")
        self.memory = self.task.memory(lanes)
        self.ledger: Lanes = {name: np.zeros(lanes) for name in Readings.COSTS}
        self.observation: Observation = {}
        self.truth: Lanes = {}  # hidden state after the last step; empty where the world cannot tell

    def task_of(self, kind: type[Kind]) -> Kind:
        """The task for someone who plays only tasks of one kind; raises ProbeGymError when this is another."""
        if not isinstance(self.task, kind):
            raise ProbeGymError(f"made for {kind.__name__.removesuffix('Task')}, not for {type(self.task).__name__.removesuffix('Task')}: use another agent")
        return self.task

    def begin(self, keys: np.ndarray, where: np.ndarray) -> tuple[Observation, Lanes]:
        """Start episodes with keys (lanes,) uint64 on some lanes; returns full-width observation and info (other lanes keep their last).

        Raises ProbeGymError for a budget without room for one step, and what the world refuses.
        """
        with self.scenario.told_where(), agreed(self.task, twin=self.twin):
            self.world.begin(keys, where)  # first, because it may refuse
            for name, fresh in self.task.memory(self.lanes).items():
                self.memory[name][where] = fresh[where]
            if "key" in self.memory:
                self.memory["key"][where] = keys[where]
            for array in self.ledger.values():
                array[where] = 0
            readings, spent = self._command(self.task.opening(self.memory), where)
            self._observe(readings, where)
            self.truth = self.world.truth() or {}
            info = self._info({})
            self._has_room(spent, where)
        return self.observation, info

    def _has_room(self, spent: Lanes, where: np.ndarray) -> None:
        for name, step in (spent | self.task.least(self.memory)).items():
            need = (spent[name] + step)[where].max()
            if name in self.limits and need > self.limits[name] * (1 + 1e-9):
                told = f"a budget of {self.limits[name]:g} {name} has no room for a step after the first measurements: give at least {need:g}"
                raise ScenarioError(f"budget.{name}", told) if self.limits == self.scenario.budget.limits() else ProbeGymError(told)

    def step(self, action: np.ndarray, where: np.ndarray) -> tuple[Observation, np.ndarray, np.ndarray, np.ndarray, Lanes]:
        """One step on some lanes -> (observation, reward, terminated, truncated, info), all (lanes, ...); raises ProbeGymError where a reward needs hidden state."""
        before = self.truth
        acting = where & ~self._beyond(self.task.foreseen(action, self.memory))
        readings, spent = self._acted(action, acting)
        if acting.any():
            self._observe(readings, acting)
        self.truth = after = self.world.truth() or {}
        ended, success = self.task.ends(after, self.memory)
        terminated, success = ended & acting, success & where
        full = self._beyond(spent | self.task.least(self.memory))
        truncated = where & (full | ~acting) & ~terminated
        transition = Transition(before, after, self.memory, spent, success & acting, terminated & ~success)
        parts: Lanes = {}
        reward = np.zeros(self.lanes)
        for term in self.terms:
            if term.privileged and not after:
                raise ProbeGymError(f"reward term {term.name!r} needs hidden state, this world has none: use reward='observable'")
            part = parts[f"reward_{term.name}"] = (term.weight * acting) * term.of(transition)
            reward += part
        info = self._info(parts)
        info["is_success"] = success
        return self.observation, reward, terminated, truncated, info

    def _acted(self, action: np.ndarray, acting: np.ndarray) -> tuple[list[Readings], Lanes]:
        """Carry a step out; what the task noted down for it is taken back when the world refuses."""
        kept = {name: self.memory[name].copy() for name in self.task.decides}
        try:
            return self._command(self.task.decode(action, self.memory, acting) if acting.any() else (), acting)
        except Refused:
            self.memory.update(kept)
            raise

    def _beyond(self, costs: Lanes) -> np.ndarray:
        """(lanes,) bool: whether such costs would not fit into what is left of the budget."""
        beyond = np.zeros(self.lanes, bool)
        for name in self.limits.keys() & costs.keys():
            beyond |= self.ledger[name] + costs[name] > self.limits[name] * (1 + 1e-9)
        return beyond

    def instruct(self, command: Command, where: np.ndarray) -> Readings:
        """An operator's command beside the task, such as an autotune that the instrument offers; its cost counts. where: (lanes,) bool."""
        return self._command([(command, None)], where)[0][0]

    def _command(self, commands: Commands, where: np.ndarray) -> tuple[list[Readings], Lanes]:
        readings: list[Readings] = []
        spent: Lanes = {name: np.zeros(self.lanes) for name in Readings.COSTS}
        for command, lanes in (dialogue := Dialogue(commands)):
            answer = self.world.execute(command, where if lanes is None else where & lanes)
            for name in Readings.COSTS:  # at once: a command that is refused later does not give back what this one has cost
                spent[name] += getattr(answer, name)
                self.ledger[name] += getattr(answer, name)
            readings.append(answer)
            dialogue.answer = answer
        return readings, spent

    def _observe(self, readings: list[Readings], where: np.ndarray) -> None:
        left = np.ones(self.lanes)
        for name, limit in self.limits.items():
            left = np.minimum(left, 1 - self.ledger[name] / limit)
        fresh = self.task.encode(readings, self.memory, np.maximum(left, 0), where)
        if not where.all():
            for name, array in fresh.items():
                array[~where] = self.observation[name][~where]
        self.observation = fresh

    def _info(self, parts: Lanes) -> Lanes:
        costs = {name: self.ledger[name].copy() for name in Readings.COSTS}
        return costs | parts | self.task.metrics(self.truth, self.memory)

    def snapshot(self, lane: int, generator: np.random.Generator) -> Snapshot:
        """A copy of one lane's state."""
        seen = {name: array[lane].copy() for name, array in self.observation.items()}
        states = (LaneState.take(self.memory, lane), LaneState.take(self.ledger, lane))
        return Snapshot(self.world.snapshot(lane), *states, seen, generator.bit_generator.state)

    def restore(self, snapshot: Snapshot, lane: int, generator: np.random.Generator) -> None:
        """Put it back, here or into another lane of the same task; raises ProbeGymError for one of another environment or scenario."""
        here = (LaneState.take(self.memory, lane).arrays, {name: array[lane] for name, array in self.observation.items()}, self.world.snapshot(lane).arrays)
        for theirs, own in zip((snapshot.memory.arrays, snapshot.observation, snapshot.world.arrays), here, strict=True):
            if {name: array.shape for name, array in theirs.items()} != {name: array.shape for name, array in own.items()}:
                raise ProbeGymError("the snapshot is of another environment or scenario: restore it where it was taken")
        self.world.restore(snapshot.world, lane)
        self.truth = self.world.truth() or {}
        snapshot.memory.put(self.memory, lane)
        snapshot.ledger.put(self.ledger, lane)
        self.observation = {name: array.copy() for name, array in self.observation.items()}
        for name, array in snapshot.observation.items():
            self.observation[name][lane] = array
        generator.bit_generator.state = snapshot.generator

    def picture(self, lane: int, hidden: bool = True) -> np.ndarray:
        """One lane's picture, (height, width, 3) uint8, without ``hidden`` as on an instrument, which tells no truth; raises ResetNeeded before a reset."""
        if not self.observation:
            raise gym.error.ResetNeeded("call reset() before render()")
        truth = {name: array[lane] for name, array in self.truth.items()} | self._unseen(lane) if self.truth and hidden else {}
        memory = {name: array[lane] for name, array in self.memory.items()}
        seen = {name: array[lane] for name, array in self.observation.items()}
        left = {f"{name}_limit": np.array(limit) for name, limit in self.limits.items()}
        return self.task.picture(seen, truth, memory, {name: array[lane] for name, array in self.ledger.items()} | left)

    def _unseen(self, lane: int) -> Lanes:
        command = self.task.glance(self.memory)
        glance = self.world.glance(lane, command) if command is not None else {}
        return self.world.portrait(lane) | {f"glance {name}": values for name, values in glance.items()}
