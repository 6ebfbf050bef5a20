"""What is printed: rows of raw results, scores between random and oracle, and figures over many environments with intervals."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from probegym.agents import statistics
from probegym.agents.benchmark.results import Facts, Run
from probegym.agents.benchmark.suite import Suite
from probegym.agents.evaluate import Results
from probegym.agents.statistics import wilson

COSTS = ("measurements", "time", "dose")
BEST = "best script"
KINDS = ("learned", BEST, "random")
"""That are compared over all environments; the best script of each is the one with the highest score on its training scenario."""
SPLITS = ("id", "near", "far")


@dataclass(frozen=True)
class Row:
    """An agent in a scenario, over all its runs. score: of its metric, 0 as random and 1 as the oracle; NaN where these two are alike.

    to_goal: median of each cost at the goal, of the episodes that reached it. area: see ``statistics.efficiency_area``, up to what an episode may
    spend, or, without such a limit, to what random spends on average.
    """

    facts: Facts
    best: bool
    episodes: int
    success: float
    success_interval: tuple[float, float]
    value: float
    value_interval: tuple[float, float]
    score: float
    score_runs: np.ndarray
    to_goal: dict[str, float]
    area: dict[str, float]
    damage: float
    steps_per_second: float


@dataclass(frozen=True)
class Summary:
    """A kind of agent on a split, over all environments: each a value with its interval. better: chance to beat the best script."""

    kind: str
    split: str
    tasks: int
    iqm: tuple[float, float, float]
    gap: tuple[float, float, float]
    success: float
    better: tuple[float, float, float] | None


@dataclass
class Table:
    """All of it. missing: runs that should be there and are not."""

    suite: Suite
    rows: list[Row] = field(default_factory=list)
    summaries: list[Summary] = field(default_factory=list)
    best: dict[str, str] = field(default_factory=dict)
    missing: list[Facts] = field(default_factory=list)

    def row(self, environment: str, agent: str, scenario: str) -> Row | None:
        """One row, if it is there."""
        return next((r for r in self.rows if (r.facts.environment, r.facts.agent, r.facts.scenario) == (environment, agent, scenario)), None)


def short(environment: str) -> str:
    """Its name without namespace and version."""
    return environment.removeprefix("probegym/").removesuffix("-v0")


def score_of(run: Run, metric: str) -> float:
    """Mean over the episodes of a run."""
    return float(np.mean(_values(run.results, metric)))


def table(suite: Suite, runs: Iterable[Run], planned: Iterable[Facts]) -> Table:
    """Rows and figures of all runs that there are."""
    grouped: dict[tuple[str, str, str], list[Run]] = defaultdict(list)
    for run in runs:
        grouped[run.facts.environment, run.facts.agent, run.facts.scenario].append(run)
    for group in grouped.values():
        group.sort(key=lambda run: run.facts.run)
    there = {run.facts for group in grouped.values() for run in group}
    out = Table(suite, missing=[facts for facts in planned if facts not in there])
    for environment, contest in suite.environments.items():
        out.best |= _best(environment, contest.scripts, contest.train, contest.score, grouped)
    for (environment, agent, _), group in grouped.items():
        out.rows.append(_row(group, grouped, suite.environments[environment].score, out.best.get(environment) == agent))
    out.summaries = [summary for kind in KINDS for split in (*SPLITS, "all") if (summary := _summary(out, kind, split))]
    return out


def _best(environment: str, scripts: tuple[str, ...], train: str, metric: str, grouped: dict) -> dict[str, str]:
    worth = {name: np.mean([score_of(run, metric) for run in grouped[environment, name, train]]) for name in scripts if grouped.get((environment, name, train))}
    return {environment: max(worth, key=lambda name: worth[name])} if worth else {}


def _row(group: list[Run], grouped: dict, metric: str, best: bool) -> Row:
    facts, results = group[0].facts, [run.results for run in group]
    bounds = [[score_of(run, metric) for run in grouped.get((facts.environment, name, facts.scenario), [])] for name in ("random", "oracle")]
    low, high = (float(np.mean(values)) if values else np.nan for values in bounds)
    values = np.array([score_of(run, metric) for run in group])
    span = high - low
    scores = (values - low) / span if span > 0 else np.full(len(values), np.nan)
    success = np.concatenate([r.success for r in results])
    by_episode = np.concatenate([_values(r, metric) for r in results])
    reached = {name: np.concatenate([r.to_goal[name] for r in results]) for name in COSTS}
    most = {name: _most(facts, name, grouped) for name in COSTS}
    return Row(
        facts=facts, best=best, episodes=len(success), success=float(success.mean()), success_interval=wilson(int(success.sum()), len(success)),
        value=float(values.mean()), value_interval=statistics.mean_interval(by_episode), score=float(scores.mean()), score_runs=scores,
        to_goal={name: float(np.median(spent[success])) if success.any() else np.nan for name, spent in reached.items()},
        area={name: statistics.efficiency_area(reached[name], success, most[name]) if most[name] > 0 else np.nan for name in COSTS},
        damage=float(np.mean(np.concatenate([r.costs["damage"] for r in results]))),
        steps_per_second=float(sum(r.steps.sum() for r in results) / max(sum(run.seconds for run in group), 1e-9)),
    )  # fmt: skip


def _values(results: Results, metric: str) -> np.ndarray:
    return np.asarray(({"return": results.returns, "success": results.success} | results.metrics)[metric], float)


def _most(facts: Facts, cost: str, grouped: dict) -> float:
    """What random spends on average: most of what there is, as it hardly ever stops."""
    spent = [run.results.costs[cost] for run in grouped.get((facts.environment, "random", facts.scenario), [])]
    return float(np.mean(np.concatenate(spent))) if spent else 0.0


def rows_of(out: Table, kind: str, split: str) -> dict[tuple[str, str], Row]:
    """Of one kind by task, an environment and a scenario; tasks without a score are left out."""
    return {
        (row.facts.environment, row.facts.scenario): row
        for row in out.rows
        if (row.best if kind == BEST else row.facts.kind == kind) and row.facts.split in (SPLITS if split == "all" else (split,)) and np.isfinite(row.score)
    }


def scores(rows: Iterable[Row]) -> np.ndarray:
    """(runs, tasks); runs that not all tasks have are left out."""
    columns = [row.score_runs for row in rows]
    return np.stack([column[: min(map(len, columns))] for column in columns], axis=1)


def _with_interval(statistic, *tables: np.ndarray) -> tuple[float, float, float]:
    low, high = statistics.interval(statistic, *tables)
    return float(statistic(*tables)), float(low), float(high)


def _summary(out: Table, kind: str, split: str) -> Summary | None:
    mine = rows_of(out, kind, split)
    if not mine:
        return None
    others = rows_of(out, BEST, split)
    shared = [task for task in mine if task in others]
    better = None
    if shared and kind != BEST:
        better = _with_interval(statistics.probability_of_improvement, scores(mine[t] for t in shared), scores(others[t] for t in shared))
    found = scores(mine.values())
    return Summary(
        kind, split, len(mine), _with_interval(statistics.interquartile_mean, found), _with_interval(statistics.optimality_gap, found),
        float(np.mean([row.success for row in mine.values()])), better,
    )  # fmt: skip
