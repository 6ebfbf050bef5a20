"""What programs are made of: commands, loops with a bound, decisions, and named numbers. Frozen plain data; ``str`` prints it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from probegym.hardware_bridge import codec
from probegym.hardware_bridge.commands import Command, SetAberrations
from probegym.hardware_bridge.programs.expressions import Compare, Expression, Value, demand
from probegym.hardware_bridge.programs.quantities import quantity

MOST_TIMES = 1_000_000


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


def _demand_times(times: Any) -> None:
    good = isinstance(times, int) and not isinstance(times, bool) and 1 <= times <= MOST_TIMES
    demand(good, f"a loop runs 1 to {MOST_TIMES} times, got {str(times)[:20]}")


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
    if isinstance(command, SetAberrations):
        pairs = zip(command.names, np.ravel(command.values).tolist(), strict=False)
        return f"{command.verb}  " + ", ".join(f"{name} {quantity(value, 'm')}" for name, value in pairs)
    told = []
    for name, (_, unit) in codec.ARGUMENTS[command.verb].items():
        value = getattr(command, name)
        if unit is None:
            told.append(f"{name} {(' x ' if name == 'shape' else ', ').join(map(str, np.atleast_1d(value)))}")
        else:
            numbers = [quantity(float(n), unit) for n in np.ravel(value)]
            told.append(f"{name} {numbers[0] if len(numbers) == 1 else '(' + ', '.join(numbers) + ')'}")
    return f"{command.verb}  {', '.join(told)}".rstrip()
