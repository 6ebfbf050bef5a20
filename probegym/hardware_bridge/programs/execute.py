"""Carry a program out on a world of one lane, and keep what happened."""

from __future__ import annotations

import operator
from collections.abc import Callable, Generator
from dataclasses import dataclass, field

import numpy as np

from probegym.errors import ProbeGymError
from probegym.hardware_bridge.commands import Command, Readings
from probegym.hardware_bridge.programs.blocks import Block, Do, If, Let, Program, Repeat, While, placed
from probegym.hardware_bridge.programs.expressions import Compare, Expression, Number, Spent, Statistic, Value
from probegym.hardware_bridge.programs.quantities import STATISTICS
from probegym.hardware_bridge.world import World

SIGNS: dict[str, Callable[[float, float], bool]] = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}
OPERATORS: dict[str, Callable[[float, float], float]] = {"+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv}


@dataclass(frozen=True, eq=False)
class Step:
    """A command that was sent, what came back, and its place in the program."""

    place: str
    command: Command
    readings: Readings


@dataclass(frozen=True)
class Decision:
    """How a condition turned out."""

    place: str
    condition: str
    holds: bool


@dataclass
class Trace:
    """All that a run did: commands with readings, decisions, and what the names stood for at the end."""

    steps: list[Step] = field(default_factory=list)
    decisions: list[Decision] = field(default_factory=list)
    values: dict[str, float] = field(default_factory=dict)

    def spent(self, cost: str) -> float:
        """Time in s, dose in electrons per square Angstrom summed over exposures, damage or measurements."""
        return float(sum(np.asarray(getattr(step.readings, cost))[0] for step in self.steps))

    def straight(self) -> Program:
        """The commands that were sent, without decisions: run again on the same key it gives the same readings."""
        return Program(tuple(Do(step.command) for step in self.steps))


class Stopped(ProbeGymError):
    """A program that could not go on; ``trace`` holds what was done until then."""

    def __init__(self, message: str, trace: Trace):
        super().__init__(message)
        self.trace = trace


def run(program: Program, world: World) -> Trace:
    """Carry a program out on a world of one lane whose episode has begun; check it first.

    Raises Stopped, with the place and the trace so far, when the world refuses a command or a reading holds no number.
    """
    if world.lanes != 1:
        raise ProbeGymError(f"a program runs on one lane, this world has {world.lanes}")
    trace, where = Trace(), np.ones(1, bool)
    flow, readings = steps(program, trace), None
    while True:
        try:
            place, command = next(flow) if readings is None else flow.send(readings)
        except StopIteration:
            return trace
        try:
            readings = world.execute(command, where)
        except ProbeGymError as error:
            raise Stopped(f"program, {place}: {error}", trace) from error


Flow = Generator[tuple[str, Command], Readings, None]


def steps(program: Program, trace: Trace) -> Flow:
    """Yields each command with its place, is sent its readings, and writes ``trace``: for whoever sends commands otherwise than ``run``."""
    return _Run(trace).body(program.body, "")


class _Run:
    def __init__(self, trace: Trace):
        self.trace = trace
        self.readings: dict[tuple[str, str], np.ndarray] = {}  # (verb, name), as returned last

    def body(self, blocks: tuple[Block, ...], above: str) -> Flow:
        for place, block in placed(blocks, above):
            yield from self.block(block, place)

    def block(self, block: Block, place: str) -> Flow:
        if isinstance(block, Do):
            readings = yield place, block.command
            self.trace.steps.append(Step(place, block.command, readings))
            self.readings |= {(block.command.verb, name): np.asarray(values)[0] for name, values in readings.values.items()}
        elif isinstance(block, Let):
            self.trace.values[block.name] = self.number(block.be, place)
        elif isinstance(block, Repeat):
            for _ in range(block.times):
                yield from self.body(block.body, place)
        elif isinstance(block, If):
            if self.holds(block.condition, place):
                yield from self.body(block.then, f"{place}.then")
            else:
                yield from self.body(block.otherwise, f"{place}.otherwise")
        elif isinstance(block, While):
            for _ in range(block.most):
                if not self.holds(block.condition, place):
                    break
                yield from self.body(block.body, place)

    def holds(self, condition: Compare, place: str) -> bool:
        held = SIGNS[condition.sign](self.number(condition.left, place), self.number(condition.right, place))
        self.trace.decisions.append(Decision(place, str(condition), held))
        return held

    def number(self, told: Expression, place: str) -> float:
        """The value of an expression now; what is no finite number stops the program, for no branch would be the safe one."""
        if isinstance(told, Number):
            return float(told.value)
        if isinstance(told, Spent):
            return self.trace.spent(told.cost)
        if isinstance(told, Value):
            found = self.trace.values.get(told.name, np.nan)
        elif isinstance(told, Statistic):
            numbers = np.asarray(self.readings.get((told.verb, told.reading), np.nan), float).ravel()
            there = numbers[~np.isnan(numbers)]
            found = STATISTICS[told.statistic](there) if there.size or told.statistic == "count" else np.nan
        else:
            left, right = self.number(told.left, place), self.number(told.right, place)
            found = OPERATORS[told.operator](left, right) if right or told.operator != "/" else np.nan
        if not np.isfinite(found):
            raise Stopped(f"program, {place}: {told} is no number here", self.trace)
        return float(found)
