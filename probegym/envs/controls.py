"""What a person can turn, choose and point at in an environment, in physical units; a task declares it, and any player can show it.

A control's value is a number (Dial), the number of a label (Choice) or a point (Place); ``Controls`` makes an action of all of them.
Values that cannot be are refused, never clipped; only who moves a control step by step stops at its end.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium import spaces

from probegym.errors import ProbeGymError

Seen = Mapping[str, np.ndarray]
"""An observation of one lane."""

Values = dict[str, Any]
"""Name of a control -> its value: float, int or (x, y)."""

Point = tuple[float, float]
LARGE = 10  # small steps


def _number(name: str, value: Any, low: float, high: float, unit: str) -> float:
    """A number within limits; raises ProbeGymError."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating) or not low <= value <= high:
        raise ProbeGymError(f"{name} is a number from {low:.4g} to {high:.4g} {unit}".rstrip() + f", got {str(value)[:40]!r}: nothing was done")
    return float(value)


@dataclass(frozen=True)
class Dial:
    """A number from ``low`` to ``high`` ``unit``, in ``steps`` steps, even ones of its logarithm with ``log``.

    stands: where the instrument stands, in the same unit, as the observation tells; then the dial is a change of that (a factor with
    ``log``), made once. start: value before it was turned.
    """

    name: str
    unit: str
    low: float
    high: float
    start: float
    meaning: str = ""
    log: bool = False
    steps: int = 60
    stands: Callable[[Seen], float] | None = None

    @property
    def once(self) -> bool:
        """Whether it goes back to its start after each step."""
        return self.stands is not None

    def share(self, value: float) -> float:
        """Where between low (0) and high (1) a value lies."""
        if self.high <= self.low:
            return 0.5
        if self.log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)

    def component(self, value: float) -> float:
        """Where between -1 (low) and 1 (high) a value lies, as most actions count."""
        return 2 * self.share(value) - 1

    def checked(self, value: Any) -> float:
        """The value; raises ProbeGymError when it is none of this dial."""
        return _number(self.name, value, self.low, self.high, self.unit)

    def moved(self, value: float, right: int, up: int) -> float:
        """The value some steps on, at most to the end."""
        share = self.share(value) + (right + up) / self.steps
        if share <= 1e-9 or share >= 1 - 1e-9:
            return self.low if share <= 1e-9 else self.high
        return self.low * (self.high / self.low) ** share if self.log else self.low + share * (self.high - self.low)

    def told(self, value: float, seen: Seen) -> str:
        """The value in words."""
        if self.stands is None:
            return f"{value:.4g} {self.unit}".rstrip()
        at = self.stands(seen)
        here = f"at {at:.4g} {self.unit}".rstrip()
        if value == self.start:
            return here
        change, reached = (f"x {value:.3g}", at * value) if self.log else (f"{_signed(value)} {self.unit}".rstrip(), at + value)
        return f"{here}, change {change}, to {reached:.4g} {self.unit}".rstrip()


@dataclass(frozen=True)
class Choice:
    """One of several labels, by its number. places: where they lie, (n, 2) shares of a view, y downwards; NaN for one that is not there."""

    name: str
    labels: tuple[str, ...]
    start: int = 0
    meaning: str = ""
    places: Callable[[Seen], np.ndarray] | None = None
    once = False

    def checked(self, value: Any) -> int:
        """The number; raises ProbeGymError when there is no such label."""
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or not 0 <= value < len(self.labels):
            raise ProbeGymError(f"{self.name} is a whole number from 0 to {len(self.labels) - 1}, got {str(value)[:40]!r}: nothing was done")
        return int(value)

    def moved(self, value: int, right: int, up: int) -> int:
        """The number some labels on, at most to the last."""
        return min(max(value + right + up, 0), len(self.labels) - 1)

    def told(self, value: int, seen: Seen) -> str:
        """The label."""
        return self.labels[value]


@dataclass(frozen=True)
class Place:
    """A point from ``low`` to ``high`` (x, y) ``unit``; y goes down with ``down``.

    cells: (rows, columns), when only the middles of cells can be meant. beneath: entry of the observation that lies under it, (1, rows, columns)
    uint8. marks: what else lies there, by name, from the observation and the values of all controls.
    """

    name: str
    unit: str
    low: Point
    high: Point
    start: Point
    meaning: str = ""
    down: bool = False
    cells: tuple[int, int] | None = None
    steps: int = 40
    beneath: str = ""
    marks: Callable[[Seen, Values], dict[str, Point]] | None = None
    once = False

    def checked(self, value: Any) -> Point:
        """The point; raises ProbeGymError when it is none of this place."""
        if not isinstance(value, list | tuple | np.ndarray) or len(value) != 2:
            raise ProbeGymError(f"{self.name} is a point of two numbers, got {str(value)[:40]!r}: nothing was done")
        x, y = (_number(f"{self.name} {axis}", v, a, b, self.unit) for axis, v, a, b in zip("xy", value, self.low, self.high, strict=True))
        return x, y

    def cell(self, value: Point) -> tuple[int, int]:
        """Row and column of the cell that a point lies in."""
        assert self.cells is not None
        row, column = (min(int(n * (value[i] - self.low[i]) / (self.high[i] - self.low[i])), n - 1) for i, n in zip((1, 0), self.cells, strict=True))
        return row, column

    def component(self, value: Point) -> list[float]:
        """Where between -1 (low) and 1 (high) both lie."""
        return [2 * (v - a) / (b - a) - 1 for v, a, b in zip(value, self.low, self.high, strict=True)]

    def moved(self, value: Point, right: int, up: int) -> Point:
        """The point some steps on, at most to the edge, of cells to the middle of the last."""
        counts = (self.steps, self.steps) if self.cells is None else self.cells[::-1]
        sides = [(b - a) / count for a, b, count in zip(self.low, self.high, counts, strict=True)]
        x, y = (v + n * side for v, n, side in zip(value, (right, -up if self.down else up), sides, strict=True))
        rim = [0.0, 0.0] if self.cells is None else [0.5 * side for side in sides]
        x, y = (min(max(v, a + r), b - r) for v, a, b, r in zip((x, y), self.low, self.high, rim, strict=True))
        return x, y

    def told(self, value: Point, seen: Seen) -> str:
        """The point in words."""
        where = f"x {_signed(value[0])}, y {_signed(value[1])} {self.unit}".rstrip()
        return where if self.cells is None else f"row {self.cell(value)[0]}, column {self.cell(value)[1]} ({where})"


Control = Dial | Choice | Place


def _signed(value: float) -> str:
    return f"{0.0 if abs(value) < 1e-12 else value:+.4g}"


@dataclass(frozen=True)
class Controls:
    """All controls of an environment. action: makes an element of the action space of the values of all of them."""

    parts: tuple[Control, ...]
    action: Callable[[Values], Any]

    def __getitem__(self, name: str) -> Control:
        """A control by name; raises ProbeGymError for another."""
        for part in self.parts:
            if part.name == name:
                return part
        raise ProbeGymError(f"no control {str(name)[:40]!r}: use one of {', '.join(part.name for part in self.parts)}")

    def start(self) -> Values:
        """The values before anything was touched."""
        return {part.name: part.start for part in self.parts}

    def made(self, values: Values) -> np.ndarray:
        """The action of values, of the shape of the action space; raises ProbeGymError for names or values that cannot be."""
        if strangers := sorted(values.keys() - {part.name for part in self.parts}):
            self[strangers[0]]
        if missing := [part.name for part in self.parts if part.name not in values]:
            raise ProbeGymError(f"there is no value for {missing[0]}: give one for each control")
        return np.asarray(self.action({part.name: part.checked(values[part.name]) for part in self.parts}))


def of_space(space: spaces.Space[Any]) -> Controls:
    """Controls without names or units, for a task that declares none; raises ProbeGymError for a space that is neither Box nor discrete."""
    if isinstance(space, spaces.Box):
        ends = list(zip(space.low.ravel().tolist(), space.high.ravel().tolist(), strict=True))
        dials = tuple(Dial(f"action {i}", "", low, high, min(max(0.0, low), high)) for i, (low, high) in enumerate(ends))
        return Controls(dials, lambda v: np.array([v[dial.name] for dial in dials], space.dtype).reshape(space.low.shape))
    if not isinstance(space, spaces.Discrete | spaces.MultiDiscrete):
        raise ProbeGymError(f"a {type(space).__name__} has no controls: let the task declare them")
    starts, counts = np.atleast_1d(space.start), np.atleast_1d(space.n if isinstance(space, spaces.Discrete) else space.nvec)
    choices = tuple(
        Choice(f"action {i}", tuple(str(first + k) for k in range(count))) for i, (first, count) in enumerate(zip(starts.ravel(), counts.ravel(), strict=True))
    )
    return Controls(choices, lambda v: (np.array([v[choice.name] for choice in choices]) + starts.ravel()).reshape(space.shape))
