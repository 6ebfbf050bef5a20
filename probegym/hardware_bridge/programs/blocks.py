"""What programs are made of: commands, loops with a bound, decisions, and named numbers. Frozen plain data; ``str`` prints it."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

import numpy as np

from probegym.errors import ProbeGymError
from probegym.hardware_bridge import codec
from probegym.hardware_bridge.commands import Command
from probegym.hardware_bridge.programs.quantities import COSTS, STATISTICS, UNITS, quantity

Sign = Literal["<", "<=", ">", ">="]
Operator = Literal["+", "-", "*", "/"]

MOST_TIMES = 1_000_000
NAME = re.compile(r"[a-z][a-z0-9_]{0,30}")


def _demand(holds: bool, complaint: str) -> None:
    if not holds:
        raise ProbeGymError(complaint)


# ---- numbers ----


@dataclass(frozen=True)
class Number:
    """A number with its unit."""

    value: float
    unit: str

    def __post_init__(self) -> None:
        good = isinstance(self.value, int | float) and not isinstance(self.value, bool) and abs(self.value) < 1e300 and math.isfinite(self.value)
        _demand(good, f"a number must be finite, got {str(self.value)[:40]}")
        _demand(self.unit in UNITS, f"{str(self.unit)[:20]!r} is no unit of the language: use one of {', '.join(sorted(UNITS))}")

    def __str__(self) -> str:
        return quantity(self.value, self.unit)


@dataclass(frozen=True)
class Statistic:
    """One number of a reading, as the verb returned it last."""

    verb: str
    reading: str
    statistic: str

    def __post_init__(self) -> None:
        _demand(self.verb in codec.VERBS, f"there is no verb {str(self.verb)[:60]!r}")
        _demand(isinstance(self.reading, str), "a reading has a name")
        _demand(self.statistic in STATISTICS, f"there is no statistic {str(self.statistic)[:40]!r}: use one of {', '.join(STATISTICS)}")

    def __str__(self) -> str:
        return f"{self.statistic} of {self.reading} ({self.verb})"


@dataclass(frozen=True)
class Spent:
    """What the program has cost so far: time, dose, damage or measurements."""

    cost: str

    def __post_init__(self) -> None:
        _demand(self.cost in COSTS, f"there is no cost {str(self.cost)[:40]!r}: use one of {', '.join(COSTS)}")

    def __str__(self) -> str:
        return f"{self.cost} spent"


@dataclass(frozen=True)
class Value:
    """What ``Let`` gave a name to."""

    name: str

    def __post_init__(self) -> None:
        _demand(_is_name(self.name), f"a name is made of a-z, 0-9 and _, got {str(self.name)[:40]!r}")

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Combined:
    """Sum and difference of like units, ratio of like units, or a product in which one factor has no unit."""

    left: Expression
    operator: Operator
    right: Expression

    def __post_init__(self) -> None:
        _demand(self.operator in get_args(Operator), f"there is no operator {str(self.operator)[:10]!r}")

    def __str__(self) -> str:
        return f"({self.left} {self.operator} {self.right})"


Expression: TypeAlias = Number | Statistic | Spent | Value | Combined


@dataclass(frozen=True)
class Compare:
    """A condition: two numbers of one unit."""

    left: Expression
    sign: Sign
    right: Expression

    def __post_init__(self) -> None:
        _demand(self.sign in get_args(Sign), f"there is no comparison {str(self.sign)[:10]!r}")

    def __str__(self) -> str:
        return f"{self.left} {self.sign} {self.right}"


# ---- blocks ----


@dataclass(frozen=True, eq=False)
class Do:
    """Carry a command out, of one lane."""

    command: Command

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Do) or type(other.command) is not type(self.command):
            return False
        own, its = self.command.arguments(), other.command.arguments()
        return all(np.array_equal(own[name], its[name]) for name in own)

    def __hash__(self) -> int:
        return hash(str(self))

    def __str__(self) -> str:
        return _described(self.command)


@dataclass(frozen=True)
class Repeat:
    """Carry the body out so many times."""

    times: int
    body: tuple[Block, ...]

    def __post_init__(self) -> None:
        _demand_times(self.times)


@dataclass(frozen=True)
class If:
    """Carry one of two bodies out."""

    condition: Compare
    then: tuple[Block, ...]
    otherwise: tuple[Block, ...] = ()


@dataclass(frozen=True)
class While:
    """Carry the body out as long as the condition holds before it, at most so many times."""

    condition: Compare
    most: int
    body: tuple[Block, ...]

    def __post_init__(self) -> None:
        _demand_times(self.most)


@dataclass(frozen=True)
class Let:
    """Give a number a name; it keeps its unit throughout the program."""

    name: str
    be: Expression

    def __post_init__(self) -> None:
        Value(self.name)

    def __str__(self) -> str:
        return f"let {self.name} = {self.be}"


Block: TypeAlias = Do | Repeat | If | While | Let


@dataclass(frozen=True)
class Program:
    """Blocks in the order in which they are carried out; ``str`` prints them with their places."""

    body: tuple[Block, ...]

    def __str__(self) -> str:
        return "\n".join(_lines(self.body, ""))


def _is_name(name: Any) -> bool:
    return isinstance(name, str) and NAME.fullmatch(name) is not None


def _demand_times(times: Any) -> None:
    good = isinstance(times, int) and not isinstance(times, bool) and 1 <= times <= MOST_TIMES
    _demand(good, f"a loop runs 1 to {MOST_TIMES} times, got {str(times)[:20]}")


# ---- places and print ----


def bodies(block: Block) -> Iterator[tuple[str, tuple[Block, ...]]]:
    """Bodies of a block, each with what its place adds to that of the block."""
    if isinstance(block, If):
        yield from ((".then", block.then), (".otherwise", block.otherwise))
    elif isinstance(block, Repeat | While):
        yield "", block.body


def placed(body: tuple[Block, ...], place: str) -> Iterator[tuple[str, Block]]:
    """Blocks with their places, counted from 1: "2.then.1" is the first of the body "2.then"."""
    for number, block in enumerate(body, 1):
        yield f"{place}.{number}" if place else str(number), block


def _lines(body: tuple[Block, ...], indent: str, above: str = "") -> Iterator[str]:
    for place, block in placed(body, above):
        yield f"{indent}{place}  {_headline(block)}"
        for suffix, inner in bodies(block):
            if suffix == ".otherwise" and inner:
                yield f"{indent}otherwise"
            yield from _lines(inner, indent + "    ", place + suffix)


def _headline(block: Block) -> str:
    if isinstance(block, Repeat):
        return f"repeat {block.times} times"
    if isinstance(block, If):
        return f"if {block.condition}"
    if isinstance(block, While):
        return f"while {block.condition}, at most {block.most} times"
    return str(block)


def _described(command: Command) -> str:
    told = []
    for name, (_, unit) in codec.ARGUMENTS[command.verb].items():
        value = getattr(command, name)
        if unit is None:
            told.append(f"{name} {' x '.join(map(str, value)) if name == 'shape' else ', '.join(map(str, np.atleast_1d(value)))}")
        else:
            numbers = [quantity(float(n), unit) for n in np.atleast_1d(value).ravel()]
            told.append(f"{name} {numbers[0] if len(numbers) == 1 else '(' + ', '.join(numbers) + ')'}")
    return "  ".join([command.verb, *told])
