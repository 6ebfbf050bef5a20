"""What is printed: rows of raw results, scores between random and oracle, and figures over many environments with intervals."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from probegym.agents import statistics
from probegym.agents.benchmark.results import Facts, Run
from probegym.agents.benchmark.suite import Suite
from probegym.agents.evaluate import Results
from probegym.agents.statistics import wilson
from probegym.errors import ProbeGymError

COSTS = ("measurements", "time", "dose")
BEST = "best script"
KINDS = ("learned", BEST, "random")
"""That are compared over all environments; the best script of each is the one with the highest score on its training scenario."""
SPLITS = ("id", "near", "far")

FEWEST, DRAWS = 20, 20_000
"""Episodes of which the interval of a mean holds what it says; resamples, so many that hardly a verdict hangs on which."""

Grouped = dict[tuple[str, str, str], list[Run]]
"""Environment, agent, scenario -> its runs, in order."""


@dataclass(frozen=True)
class Row:
    """An agent in a scenario, over the runs that there are. digests: of the agent, in the order of all its runs. score: of its metric, 0 as random and 1 as the oracle; NaN where these two are alike, or runs are missing.

    values, low, high: means of each run, of the agent, random and the oracle. by_episode: the metric. to_goal: median of each cost at the
    goal, of the episodes that reached it. spent: mean of each cost up to the goal, or the end without it. area: see ``statistics.efficiency_area``,
    up to the most that an episode of random or of the oracle in this environment spent. missing: runs of the agent that are not there; with none of them there all figures are NaN.
    """

    facts: Facts
    digests: tuple[str, ...]
    best: bool
    missing: int
    episodes: int
    success: float
    success_interval: tuple[float, float]
    value: float
    value_interval: tuple[float, float]
    score: float
    score_interval: tuple[float, float]
    values: np.ndarray
    low: np.ndarray
    high: np.ndarray
    by_episode: np.ndarray
    to_goal: dict[str, float]
    spent: dict[str, float]
    area: dict[str, float]
    damage: float
    steps_per_second: float


@dataclass(frozen=True)
class Summary:
    """A kind of agent on a split, over all environments: each a value with its interval, NaN with one run. better: chance to beat the best script."""

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
    """Mean over the episodes of a run, in the unit of the metric."""
    return float(np.mean(_values(run.results, metric)))


def table(suite: Suite, runs: Iterable[Run], planned: Iterable[Facts]) -> Table:
    """A row for each agent and scenario that is planned, and figures over all of which every run is there."""
    every: dict[Facts, Run | None] = dict.fromkeys(planned)
    every |= {run.facts: run for run in runs}
    grouped: Grouped = {(facts.environment, facts.agent, facts.scenario): [] for facts in every}
    for run in sorted(filter(None, every.values()), key=lambda run: run.facts.run):
        grouped[run.facts.environment, run.facts.agent, run.facts.scenario].append(run)
    told: dict[tuple[str, str, str], list[Facts]] = {key: [] for key in grouped}
    for facts in sorted(every, key=lambda facts: facts.run):
        told[facts.environment, facts.agent, facts.scenario].append(facts)
    out = Table(suite, missing=[facts for facts, run in every.items() if run is None])
    for environment in suite.environments:
        out.best |= _best(environment, suite, grouped)
        mine = [key for key in grouped if key[0] == environment]
        ends = [run.results for key in mine for run in grouped[key] if run.facts.kind in ("random", "oracle")]  # in every report, whoever else is in it
        most = {name: max((float(results.costs[name].max()) for results in ends), default=0.0) for name in COSTS}
        out.rows += [_row(told[key], grouped, suite, most, out.best.get(environment) == key[1]) for key in mine]
    out.summaries = [summary for kind in KINDS for split in (*SPLITS, "all") if (summary := _summary(out, kind, split))]
    return out


def _best(environment: str, suite: Suite, grouped: Grouped) -> dict[str, str]:
    """None while one of them lacks runs on the training scenario: it may be the best."""
    contest = suite.environments[environment]
    trained = {name: grouped.get((environment, name, contest.train), []) for name in contest.scripts}
    if not trained or any(len(group) < suite.runs for group in trained.values()):
        return {}
    return {environment: max(trained, key=lambda name: np.mean([score_of(run, contest.score) for run in trained[name]]))}


def _absent(told: list[Facts], suite: Suite, best: bool) -> Row:
    """Of an agent that has no run there: nothing is known, and it is not left out."""
    nan, none = float("nan"), np.empty(0)
    unknown = dict.fromkeys(COSTS, nan)
    return Row(facts=told[0], digests=_digests(told), best=best, missing=suite.runs, episodes=0, success=nan, success_interval=(nan, nan), value=nan, value_interval=(nan, nan), score=nan,
               score_interval=(nan, nan), values=none, low=none, high=none, by_episode=none, to_goal=unknown, spent=unknown, area=unknown, damage=nan, steps_per_second=nan)  # fmt: skip


def _digests(told: list[Facts]) -> tuple[str, ...]:
    return tuple(facts.agent_digest for facts in told)


def _row(told: list[Facts], grouped: Grouped, suite: Suite, most: dict[str, float], best: bool) -> Row:
    facts = told[0]
    group = grouped[facts.environment, facts.agent, facts.scenario]
    if not group:
        return _absent(told, suite, best)
    results, metric = [run.results for run in group], suite.environments[facts.environment].score
    bounds = [grouped.get((facts.environment, name, facts.scenario), []) for name in ("random", "oracle")]
    complete = all(len(found) == suite.runs for found in (group, *bounds))
    by_episode, least, highest = (np.concatenate([_values(run.results, metric) for run in found] or [np.empty(0)]) for found in (group, *bounds))
    values, low, high = (np.array([score_of(run, metric) for run in found]) for found in (group, *bounds))
    scored = complete and high.mean() > low.mean()
    success = np.concatenate([r.success for r in results])
    reached = {name: np.concatenate([r.to_goal[name] for r in results]) for name in COSTS}
    spent = {name: np.where(success, reached[name], np.concatenate([r.costs[name] for r in results])) for name in COSTS}
    return Row(
        facts=facts, digests=_digests(told), best=best, missing=suite.runs - len(group), episodes=len(success), success=float(success.mean()), success_interval=wilson(int(success.sum()), len(success)),
        value=float(values.mean()), value_interval=statistics.mean_interval(by_episode),
        score=float((values.mean() - low.mean()) / (high.mean() - low.mean())) if scored else np.nan,
        score_interval=statistics.score_interval(by_episode, least, highest) if scored else (np.nan, np.nan),
        values=values, low=low, high=high, by_episode=by_episode,
        to_goal={name: float(np.median(reached[name][success])) if success.any() else np.nan for name in COSTS},
        spent={name: float(spent[name].mean()) for name in COSTS},
        area={name: statistics.efficiency_area(reached[name], success, most[name]) if most[name] > 0 else np.nan for name in COSTS},
        damage=float(np.mean(np.concatenate([r.costs["damage"] for r in results]))),
        steps_per_second=float(sum(r.steps.sum() for r in results) / max(sum(run.seconds for run in group), 1e-9)),
    )  # fmt: skip


def _values(results: Results, metric: str) -> np.ndarray:
    known = {"return": results.returns, "success": results.success} | results.metrics
    if metric not in known:
        raise ProbeGymError(f"episodes end with no {metric!r} to score by: use one of {', '.join(known)}")
    return np.asarray(known[metric], float)


def rows_of(out: Table, kind: str, split: str) -> dict[tuple[str, str], Row]:
    """Of one kind by task, an environment and a scenario; tasks without a score are left out."""
    return {
        (row.facts.environment, row.facts.scenario): row
        for row in out.rows
        if (row.best if kind == BEST else row.facts.kind == kind) and row.facts.split in (SPLITS if split == "all" else (split,)) and np.isfinite(row.score)
    }


def compared(out: Table, kind: str, split: str) -> dict[tuple[str, str], Row]:
    """The same, of tasks alone that every kind which takes part has: whoever is missing somewhere is not compared there."""
    there = [found for one in KINDS if (found := rows_of(out, one, split))]
    return {task: row for task, row in rows_of(out, kind, split).items() if all(task in found for found in there)}


def normalised(values: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Scores of runs, (..., runs, tasks) each: low is random, high the oracle."""
    least, most = (ends.mean(-2, keepdims=True) for ends in (low, high))
    return (values - least) / np.maximum(most - least, 1e-12)


def tabled(rows: Iterable[Row]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Values of the agent, random and the oracle, (runs, tasks) each."""
    kept = list(rows)
    values, low, high = (np.stack([getattr(row, name) for row in kept], axis=1) for name in ("values", "low", "high"))
    return values, low, high


def groups(rows: Iterable[Row]) -> list[int]:
    """A number for each row's environment: its scenarios share their seeds."""
    names = [row.facts.environment for row in rows]
    return [sorted(set(names)).index(name) for name in names]


def _with_interval(statistic, together: list[int], *tables: np.ndarray) -> tuple[float, float, float]:
    low, high = statistics.interval(statistic, *tables, together=together)
    return float(statistic(*tables)), float(low), float(high)


def _summary(out: Table, kind: str, split: str) -> Summary | None:
    mine = compared(out, kind, split)
    if not mine:
        return None
    together, better = groups(mine.values()), None
    others = compared(out, BEST, split)
    if others and kind != BEST:
        values = (np.stack([found[task].values for task in mine], axis=1) for found in (mine, others))
        better = _with_interval(statistics.probability_of_improvement, together, *values)
    iqm, gap = (
        _with_interval(lambda v, low, high, of=of: of(normalised(v, low, high)), together, *tabled(mine.values()))
        for of in (statistics.interquartile_mean, statistics.optimality_gap)
    )
    return Summary(kind, split, len(mine), iqm, gap, float(np.mean([row.success for row in mine.values()])), better)


def ahead(mine: Row, other: Row) -> str:
    """"ahead", "behind" or "not told apart": by the 95 % interval of the mean difference, episode by episode of the same seeds; or "runs missing".

    Below FEWEST episodes nothing is told apart: such an interval would mislead in one case of six with five, of two with two.
    """
    if mine.missing or other.missing:
        return "runs missing"
    if mine.episodes < FEWEST:
        return "not told apart"
    low, high = statistics.mean_interval(mine.by_episode - other.by_episode, resamples=DRAWS)
    return "ahead" if low > 0 else "behind" if high < 0 else "not told apart"
