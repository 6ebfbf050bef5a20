"""Distributions as data: what a scenario samples at reset.

``3.0`` is a constant; ``{uniform: [low, high]}``, ``{normal: [mean, deviation]}``, ``{log_uniform: [low, high]}`` and
``{choice: [a, b]}`` say the rest.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, BeforeValidator, ConfigDict, model_validator

from probegym.physics import randomness
from probegym.tables import PLAIN

POSSIBLE_DEVIATIONS = 3.0  # of a normal distribution that must be possible, 99.7 % of its draws


class Distribution(BaseModel):
    """One of the four kinds; ``sample`` draws one value for every key."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    uniform: tuple[float, float] | None = None
    normal: tuple[float, float] | None = None
    log_uniform: tuple[float, float] | None = None
    choice: tuple[float, ...] | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> Distribution:
        given = self.model_dump(exclude_none=True)
        if len(given) != 1:
            raise ValueError("give exactly one of uniform, normal, log_uniform, choice")
        kind, values = next(iter(given.items()))
        if not values or not all(np.isfinite(values)):
            raise ValueError(f"{kind} needs finite numbers, got {values}")
        if kind in ("uniform", "log_uniform") and values[0] > values[1]:
            raise ValueError(f"{kind} needs low <= high, got {values}")
        if (kind == "log_uniform" and values[0] <= 0) or (kind == "normal" and values[1] < 0):
            raise ValueError(f"{kind} does not allow {values}")
        return self

    def ends(self) -> tuple[float, ...]:
        """The values between which all others lie, or each choice. Normal distributions: at three deviations. In the unit of what is drawn."""
        if self.normal:
            mean, deviation = self.normal
            return (mean - POSSIBLE_DEVIATIONS * deviation, mean + POSSIBLE_DEVIATIONS * deviation) if deviation else (mean,)
        return tuple(dict.fromkeys(self.uniform or self.log_uniform or self.choice or ()))

    def sample(self, keys: np.ndarray, stream: str) -> np.ndarray:
        """(lanes,) floats that depend on (key, stream) alone."""
        u = randomness.uniform(keys, 0, stream, 1)[:, 0]
        if self.uniform:
            return self.uniform[0] + u * (self.uniform[1] - self.uniform[0])
        if self.log_uniform:
            return self.log_uniform[0] * (self.log_uniform[1] / self.log_uniform[0]) ** u
        if self.normal:
            return self.normal[0] + self.normal[1] * randomness.normal(keys, 0, stream, 1)[:, 0]
        choice = self.choice or ()
        chosen: np.ndarray = np.asarray(choice)[(u * len(choice)).astype(int)]
        return chosen


def is_distribution(table: dict[str, Any]) -> bool:
    """Whether a table of a scenario file is a distribution: one that extends another takes its place, kind and all."""
    return len(table) == 1 and set(table) <= set(Distribution.model_fields)


def each_end(table: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """A table with one of its distributions in turn at one of its ends, and the path of that entry. Raises ValidationError."""
    if isinstance(table, dict) and is_distribution(table):
        yield from ((path, end) for end in Distribution.model_validate(table).ends())
    elif isinstance(table, dict):
        for key, value in table.items():
            yield from ((at, table | {key: changed}) for at, changed in each_end(value, (*path, str(key))))
    elif isinstance(table, list):
        for index, value in enumerate(table):
            yield from ((at, [*table[:index], changed, *table[index + 1 :]]) for at, changed in each_end(value, (*path, str(index))))




def _parse(value: Any) -> Any:
    if isinstance(value, (dict, Distribution)):
        return value
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return {"choice": (value,)}
    raise ValueError(f"{PLAIN}, or a distribution such as {{uniform: [low, high]}}, got {str(value)[:40]!r}")


Sampled = Annotated[Distribution, BeforeValidator(_parse)]
"""A field that is a number or a distribution."""
