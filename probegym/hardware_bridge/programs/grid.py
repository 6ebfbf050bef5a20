"""Levels: the numbers and names that tokens can choose, of every argument of a verb and of what conditions compare with."""

from __future__ import annotations

import itertools
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from probegym.errors import ProbeGymError
from probegym.hardware_bridge import codec
from probegym.hardware_bridge.capabilities import Capability, Descriptor
from probegym.hardware_bridge.commands import Command
from probegym.hardware_bridge.programs.expressions import Sign
from probegym.hardware_bridge.programs.quantities import STATISTICS

Grid = Mapping[str, Sequence[float]]
"""Own levels: "Verb.argument", "SetAberrations.values.C10" or "Verb.argument.0" of one component; "Verb.reading" and "spent.time" of thresholds."""

DIGITS = tuple("0123456789")
BLOCKS = ("repeat", "if", "while", "let")
SIGNS: tuple[Sign, ...] = ("<", ">")
KINDS = tuple(STATISTICS)

FAR_APART = 30.0  # from this ratio of its limits on, a quantity has levels at equal ratios


@dataclass(frozen=True)
class Slot:
    """One choice that a token makes."""

    name: str
    levels: tuple[Any, ...]

    @property
    def default(self) -> int:
        """What stands where the string does not choose: the middle."""
        return (len(self.levels) - 1) // 2

    def nearest(self, value: Any) -> int:
        """Index of the level nearest to a value; raises ProbeGymError for a name that is no level."""
        if isinstance(value, str | bool):
            if value not in self.levels:
                raise ProbeGymError(f"{self.name} {value} is not in this alphabet: it has {', '.join(map(str, self.levels))}")
            return self.levels.index(value)
        return int(np.argmin(np.abs(np.asarray(self.levels, float) - float(value))))


class Template:
    """A verb as choices."""

    def __init__(self, verb: str, descriptor: Descriptor, levels: int, grid: Grid):
        self.kind, self.capability = codec.VERBS[verb], descriptor.capabilities[verb]
        self.parts: dict[str, list[Slot]] = {}  # argument -> its slots
        for name, (kind, unit) in codec.ARGUMENTS[verb].items():
            self.parts[name] = list(_slots(f"{verb}.{name}", name, kind, unit, self.capability, levels, grid))
        self.slots = [slot for part in self.parts.values() for slot in part]

    def command(self, picks: Sequence[int]) -> Command:
        """The command with these levels."""
        chosen, given = iter([slot.levels[pick] for slot, pick in zip(self.slots, picks, strict=True)]), dict[str, Any]()
        for name, (kind, unit) in codec.ARGUMENTS[self.kind.__name__].items():
            values = [next(chosen) for _ in self.parts[name]]
            if unit and kind is not float:
                values = [np.array(values).reshape(1, *codec.shape_of(self.kind.__name__, name, self.capability.names))]
            given[name] = values[0] if unit or kind in (bool, str, int) else tuple(values)
        return self.kind(**given)

    def picks(self, command: Command) -> list[int]:
        """The nearest levels of a command; raises ProbeGymError for other controls or names than there are."""
        found: list[int] = []
        for name, slots in self.parts.items():
            values = np.atleast_1d(getattr(command, name)).ravel().tolist()
            if len(values) != len(slots):
                raise ProbeGymError(f"{command.verb}.{name} holds {len(values)} values, in this alphabet it has {len(slots)}")
            found += [slot.nearest(value) for slot, value in zip(slots, values, strict=True)]
        return found

    def readings(self) -> list[str]:
        """Every reading that some choice of names and switches returns."""
        free = [range(len(s.levels)) if isinstance(s.levels[0], str | bool) else [s.default] for s in self.slots]
        return list(dict.fromkeys(name for picks in itertools.product(*free) for name in self.command(picks).returns()))


def _slots(label: str, name: str, kind: Any, unit: str | None, capability: Capability, levels: int, grid: Grid) -> typing.Iterator[Slot]:
    if unit:
        allowed = capability.ranges[name]
        shape = codec.shape_of(label.partition(".")[0], name, capability.names)
        count = shape[0] if shape else 1
        low, high = (np.broadcast_to(np.asarray(limit, float), (count,)) for limit in (allowed.low, allowed.high))
        for index in range(count):
            own = capability.names["names"][index] if "names" in capability.names else str(index)
            part = f"{label}.{own}" if shape else label
            given = grid.get(part, grid.get(label))
            yield Slot(
                part,
                between(float(low[index]), float(high[index]), levels) if given is None else _within(part, given, low[index], high[index]),
            )
    elif kind is bool:
        yield Slot(label, (False, True))
    elif kind is str:
        yield Slot(label, capability.names[name])
    elif kind == tuple[str, ...]:
        for control in capability.names[name]:
            yield Slot(label, (control,))
    else:
        least, most = capability.counts[name]
        given = grid.get(label)
        whole = between(least, most, levels) if given is None else _within(label, given, least, most)
        slot = Slot(label, tuple(dict.fromkeys(round(level) for level in whole)))
        yield from [slot] * max(1, len(typing.get_args(kind)))


def between(low: float, high: float, levels: int) -> tuple[float, ...]:
    """So many levels within limits, both among them and in their unit; at equal ratios where the limits are far apart on one side of zero."""
    if low == high:
        return (float(low),)
    if low > 0 and high / low >= FAR_APART:
        spaced = np.geomspace(low, high, levels)
    else:
        spaced = high * np.linspace(-1, 1, levels) if low == -high else np.linspace(low, high, levels)
    return tuple(float(level) for level in spaced.clip(low, high))


def _within(label: str, given: Sequence[float], low: float, high: float) -> tuple[float, ...]:
    levels = tuple(float(level) for level in given)
    if not levels or len(set(levels)) < len(levels) or not all(low <= level <= high for level in levels):
        raise ProbeGymError(f"grid, {label}: give levels from {low:g} to {high:g}, each once")
    return levels
