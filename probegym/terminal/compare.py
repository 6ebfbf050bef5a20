"""A person's episode beside those of others, on the same seed: random, scripts, policies that ship, the oracle."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from probegym.agents.evaluate import evaluate
from probegym.agents.registry import family, make_agent, policies, scripts, task_type
from probegym.envs.task import Observation
from probegym.errors import ProbeGymError
from probegym.hardware_bridge.commands import Lanes, Readings
from probegym.hardware_bridge.programs.quantities import quantity

PATIENCE = 5.0  # s of the processor an agent, unless all are waited for
DIGITS = 3
HEADS = {"time": "seconds", "dose": "dose, e/\u00c5\u00b2"}


@dataclass(frozen=True)
class Row:
    """How an episode ended: goal, return, costs by name, the metrics that the environment's info had at the end."""

    who: str
    success: bool
    score: float
    costs: dict[str, float]
    metrics: dict[str, float]


class _TooLong(Exception):
    """An agent takes longer than anybody waits."""


class _Patience:
    """Watches an agent and gives up after a while."""

    def __init__(self, seconds: float) -> None:
        self.end = time.process_time() + seconds

    def begin(self, seed: int, observation: Observation, info: Lanes) -> None:
        """Nothing to be seen yet."""

    def step(self, *shown: Any) -> None:
        """After each step."""
        if time.process_time() > self.end:
            raise _TooLong


def players(env_id: str) -> list[str]:
    """Names of those who can play an environment: random, its scripts, its policies, the oracle."""
    return ["random", *scripts(family(env_id)), *policies(env_id), "oracle"]


def others(env_id: str, scenario: str, seed: int, patience: float = PATIENCE) -> Iterator[Row | str]:
    """Rows of all who can play this scenario; the name alone of one that takes longer than ``patience`` seconds of the processor."""
    for name in players(env_id):
        try:
            r = evaluate(make_agent(name, env_id), env_id, scenario, 1, seed, observer=_Patience(patience))
        except _TooLong:
            yield name
        except (ProbeGymError, ImportError):  # not made for what this scenario shows or allows, or a library is missing
            continue
        else:
            first = ({key: float(values[0]) for key, values in part.items()} for part in (r.costs, r.metrics))
            yield Row(name, bool(r.success[0]), float(r.returns[0]), *first)


def table(env_id: str, rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    """Head and lines of the comparison, the highest score first; costs that nobody had are left out, and metrics that are no numbers."""
    measured, units = task_type(env_id).measured, task_type(env_id).metric_units
    costs = [name for name in ("measurements", *(name for name in Readings.COSTS if name != "measurements")) if any(row.costs[name] for row in rows)]
    metrics = [name for name in rows[0].metrics if name != measured and all(name in row.metrics for row in rows)]
    head = ["who", "goal", "score", *(measured if name == "measurements" else HEADS.get(name, name) for name in costs), *(name.replace("_", " ") for name in metrics)]
    ranked = sorted(rows, key=lambda row: -row.score)
    return head, [
        [row.who, "reached" if row.success else "missed", signed(row.score), *(_number(row.costs[name]) for name in costs), *(metric(row.metrics[name], units.get(name, "1")) for name in metrics)]
        for row in ranked
    ]


def passed_over(names: Sequence[str], patience: float = PATIENCE) -> str:
    """Who was left out, in words; empty when nobody was."""
    return f"left out, as they take more than {patience:g} s: {', '.join(names)} (--all waits for them)" if names else ""


def signed(score: float) -> str:
    """A score with its sign, plus for what rounds to zero."""
    return f"{round(score, 2) + 0.0:+.2f}"


def metric(value: float, unit: str) -> str:
    """A metric with its unit, for people: 9.3e-11 and "m" give "93 pm"."""
    return _number(value) if unit == "1" else quantity(value, unit, DIGITS)


def _number(value: float) -> str:
    return f"{value:.0f}" if value == np.round(value) and abs(value) < 1e5 else f"{value:.{DIGITS}g}"
