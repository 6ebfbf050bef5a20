"""Numbers in programs: constants, statistics of readings, costs, names, and conditions that compare them. Frozen plain data."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

from probegym.errors import ProbeGymError
from probegym.hardware_bridge import codec
from probegym.hardware_bridge.programs.quantities import COSTS, STATISTICS, UNITS, quantity

Sign = Literal["<", "<=", ">", ">="]
Operator = Literal["+", "-", "*", "/"]

NAME = re.compile(r"[a-z][a-z0-9_]{0,30}")


def demand(holds: bool, complaint: str) -> None:
    """Raise ProbeGymError with the complaint where something does not hold."""
    if not holds:
        raise ProbeGymError(complaint)


@dataclass(frozen=True)
class Number:
    """A number with its unit."""

    value: float
    unit: str

    def __post_init__(self) -> None:
        good = (
            isinstance(self.value, int | float)
            and not isinstance(self.value, bool)
            and abs(self.value) < 1e300
            and math.isfinite(self.value)
        )
        demand(good, f"a number must be finite, got {str(self.value)[:40]}")
        demand(self.unit in UNITS, f"{str(self.unit)[:20]!r} is no unit of the language: use one of {', '.join(sorted(UNITS))}")

    def __str__(self) -> str:
        return quantity(self.value, self.unit)


@dataclass(frozen=True)
class Statistic:
    """One number of a reading, as the verb returned it last."""

    verb: str
    reading: str
    statistic: str

    def __post_init__(self) -> None:
        demand(self.verb in codec.VERBS, f"there is no verb {str(self.verb)[:60]!r}")
        demand(isinstance(self.reading, str), "a reading has a name")
        demand(self.statistic in STATISTICS, f"there is no statistic {str(self.statistic)[:40]!r}: use one of {', '.join(STATISTICS)}")

    def __str__(self) -> str:
        return f"{self.statistic} of {self.reading} ({self.verb})"


@dataclass(frozen=True)
class Spent:
    """What the program has cost so far: time, dose, damage or measurements."""

    cost: str

    def __post_init__(self) -> None:
        demand(self.cost in COSTS, f"there is no cost {str(self.cost)[:40]!r}: use one of {', '.join(COSTS)}")

    def __str__(self) -> str:
        return f"{self.cost} spent"


@dataclass(frozen=True)
class Value:
    """What ``Let`` gave a name to."""

    name: str

    def __post_init__(self) -> None:
        demand(_is_name(self.name), f"a name is made of a-z, 0-9 and _, got {str(self.name)[:40]!r}")

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Combined:
    """Sum and difference of like units, ratio of like units, or a product in which one factor has no unit."""

    left: Expression
    operator: Operator
    right: Expression

    def __post_init__(self) -> None:
        demand(self.operator in get_args(Operator), f"there is no operator {str(self.operator)[:10]!r}")

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
        demand(self.sign in get_args(Sign), f"there is no comparison {str(self.sign)[:10]!r}")

    def __str__(self) -> str:
        return f"{self.left} {self.sign} {self.right}"


def _is_name(name: Any) -> bool:
    return isinstance(name, str) and NAME.fullmatch(name) is not None
