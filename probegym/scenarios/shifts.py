"""What sets one scenario apart from another: the entries in which they differ, and those in which nothing is drawn for both."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from probegym.scenarios import Scenario
from probegym.scenarios.distributions import Distribution, is_distribution

LIKELY_DEVIATIONS = 2.0  # of a normal distribution that count as its range


@dataclass(frozen=True)
class Shift:
    """An entry that differs. apart: whether no value is drawn in both scenarios (normal distributions: within two deviations)."""

    entry: str
    one: Any
    other: Any
    apart: bool


def shifts(one: Scenario, other: Scenario) -> list[Shift]:
    """Entries of ``task``, ``world`` and ``budget`` that differ."""
    first, second = ({"task": s.task, "world": s.world, "budget": s.budget.limits()} for s in (one, other))
    return [Shift(".".join(path), a, b, _apart(a, b)) for path, a, b in _different(first, second)]


def _different(one: Any, other: Any, path: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], Any, Any]]:
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        one, other = ({str(index): item for index, item in enumerate(items)} for items in (one, other))
    if not (isinstance(one, dict) and isinstance(other, dict)) or is_distribution(one) or is_distribution(other):
        return [] if one == other else [(path, one, other)]
    keys = list(dict.fromkeys([*one, *other]))
    return [found for key in keys for found in _different(one.get(key), other.get(key), (*path, str(key)))]


def _apart(one: Any, other: Any) -> bool:
    """Numbers and distributions: their ranges share no more than an end. Lists, of names or parts: they share nothing. Else: they differ."""
    first, second = _range(one), _range(other)
    if first is not None and second is not None:
        return not any(a == b or (a[0] < b[1] and b[0] < a[1]) for a in first for b in second)
    if isinstance(one, list) and isinstance(other, list):
        return not any(item in other for item in one)
    return bool(one != other)


def _range(value: Any) -> list[tuple[float, float]] | None:
    """Intervals that a value lies in; None for what is no number."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return [(value, value)]
    if not (isinstance(value, dict) and is_distribution(value)):
        return None
    drawn = Distribution.model_validate(value)
    if drawn.normal:
        mean, deviation = drawn.normal
        return [(mean - LIKELY_DEVIATIONS * deviation, mean + LIKELY_DEVIATIONS * deviation)]
    if drawn.choice:
        return [(item, item) for item in drawn.choice]
    low, high = drawn.uniform or drawn.log_uniform or (0.0, 0.0)
    return [(low, high)]
