"""Statistics of episodes, and of runs, that hold with few of them.

Scores are arrays (runs, tasks), or many of them, (..., runs, tasks). Formulas of Agarwal et al., "Deep reinforcement learning at the edge of the statistical precipice" (2021,
10.48550/arXiv.2108.13264); intervals are percentiles of a bootstrap that draws runs anew for each task (stratified).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from scipy import stats

BLOCK = 1_000_000  # numbers drawn at once
RESAMPLES = 2000

Scores = np.ndarray


def _scores(scores: Scores) -> Scores:
    scores = np.asarray(scores, float)
    if scores.ndim < 2 or not scores.size:
        raise ValueError(f"scores are runs by tasks, got shape {scores.shape}")
    return scores


def interquartile_mean(scores: Scores) -> np.ndarray:
    """(...): mean of the middle half of all runs on all tasks."""
    scores = _scores(scores)
    return np.asarray(stats.trim_mean(scores.reshape(*scores.shape[:-2], -1), 0.25, axis=-1))


def optimality_gap(scores: Scores, aim: float = 1.0) -> np.ndarray:
    """(...): how far runs fall short of ``aim`` on average; what is beyond it does not count."""
    return np.asarray(aim - np.minimum(_scores(scores), aim).mean((-2, -1)))


def performance_profile(scores: Scores, levels: np.ndarray) -> np.ndarray:
    """(..., levels): share of runs, averaged over tasks, with a score above each level."""
    scores = _scores(scores)
    return np.stack([(scores > level).mean((-2, -1)) for level in np.asarray(levels, float)], -1)


def probability_of_improvement(scores: Scores, others: Scores) -> np.ndarray:
    """(...): chance that a run beats one of another agent on the same task, averaged over tasks; a draw counts half.

    scores, others: (..., runs, tasks). Raises ValueError where the numbers of tasks differ.
    """
    mine, theirs = _scores(scores), _scores(others)
    if mine.shape[-1] != theirs.shape[-1]:
        raise ValueError(f"agents with {mine.shape[-1]} and {theirs.shape[-1]} tasks cannot be compared")
    difference = mine[..., :, None, :] - theirs[..., None, :, :]
    return np.asarray(0.5 + 0.5 * np.sign(difference).mean((-3, -2, -1)))


def interval(statistic: Callable[..., np.ndarray], *scores: Scores, together: Sequence[int] | None = None, confidence: float = 0.95,
             resamples: int = RESAMPLES, seed: int = 0) -> np.ndarray:  # fmt: skip
    """(2, ...): lower and upper end of a statistic's stratified bootstrap interval; NaN where there is only one run. scores: (runs, tasks) of each agent that it takes.

    statistic: of (..., runs, tasks) of each agent. together: (tasks,) numbers of groups, for runs that share episodes: all tables, and the tasks
    of one group, draw the same runs. Without it every table draws for every task by itself. Raises ValueError for many tables of an
    agent, and for tables of different shapes that are to be drawn together.
    """
    tables = [_scores(table) for table in scores]
    if max(table.ndim for table in tables) > 2:
        raise ValueError(f"an interval is of one table of each agent, runs by tasks, got shapes {', '.join(str(table.shape) for table in tables)}")
    if min(map(len, tables)) < 2:
        return np.full_like(np.repeat(np.asarray(statistic(*tables))[None], 2, 0), np.nan)
    if together is not None and len({table.shape for table in tables}) > 1:
        raise ValueError("tables that are drawn together must have the same runs and tasks")
    rng, drawn = np.random.default_rng(seed), []
    for draws in _blocks(resamples, max(table.size for table in tables)):
        if together is None:
            chosen = [rng.integers(0, len(table), (draws, *table.shape)) for table in tables]
        else:
            groups = np.asarray(together)
            chosen = [rng.integers(0, len(tables[0]), (draws, len(tables[0]), groups.max() + 1))[..., groups]] * len(tables)
        drawn.append(statistic(*(np.take_along_axis(table[None], index, axis=1) for table, index in zip(tables, chosen, strict=True))))
    ends: np.ndarray = np.quantile(np.concatenate(drawn), [0.5 - confidence / 2, 0.5 + confidence / 2], axis=0)
    return ends


def mean_interval(values: np.ndarray, confidence: float = 0.95, resamples: int = RESAMPLES) -> tuple[float, float]:
    """Percentile bootstrap interval of a mean of values (n,); NaN for one value."""
    values = np.asarray(values, float)
    if len(values) < 2:
        return np.nan, np.nan
    return _ends([values[index].mean(1) for index in _draws(len(values), resamples)], confidence)


def median_interval(values: np.ndarray, confidence: float = 0.95, seed: int = 0) -> tuple[float, float]:
    """Percentile bootstrap interval of the median of values (n,); NaN for one value."""
    if len(values) < 2:
        return np.nan, np.nan
    return _ends([np.median(values[index], axis=1) for index in _draws(len(values), RESAMPLES, seed)], confidence)


def ratio_interval(above: np.ndarray, below: np.ndarray, resamples: int = RESAMPLES) -> tuple[float, float]:
    """95 % percentile bootstrap interval of a ratio of means, (n,) each, which are drawn together; NaN for one value."""
    if len(above) < 2:
        return np.nan, np.nan
    return _ends([above[index].mean(1) / np.maximum(below[index].mean(1), 1e-300) for index in _draws(len(above), resamples)], 0.95)


def score_interval(values: np.ndarray, low: np.ndarray, high: np.ndarray) -> tuple[float, float]:
    """Percentile bootstrap interval of (mean - mean of low) / (mean of high - mean of low), (episodes,) each of the same episodes, which are drawn together; NaN for one."""
    if len(values) < 2:
        return np.nan, np.nan
    arrays, drawn = [np.asarray(array, float) for array in (values, low, high)], []
    for index in _draws(len(values), RESAMPLES):
        mean, least, most = (array[index].mean(1) for array in arrays)
        drawn.append((mean - least) / np.maximum(most - least, 1e-12))
    return _ends(drawn, 0.95)


def _draws(episodes: int, resamples: int, seed: int = 0) -> Iterator[np.ndarray]:
    """Episodes drawn anew, (some resamples, episodes) at a time."""
    rng = np.random.default_rng(seed)
    for draws in _blocks(resamples, episodes):
        yield rng.integers(0, episodes, (draws, episodes))


def _blocks(resamples: int, numbers: int) -> Iterator[int]:
    """How many to draw at a time, of so many numbers each."""
    block = max(1, BLOCK // numbers)
    for done in range(0, resamples, block):
        yield min(block, resamples - done)


def _ends(drawn: list[np.ndarray], confidence: float) -> tuple[float, float]:
    low, high = np.quantile(np.concatenate(drawn), [0.5 - confidence / 2, 0.5 + confidence / 2])
    return float(low), float(high)


def efficiency_area(spent: np.ndarray, reached: np.ndarray, most: float) -> float:
    """Area under the share of episodes that have reached their goal against what they had spent, from nothing to ``most``, as a share of all.

    spent: (episodes,), at the goal, in the unit of ``most``. reached: (episodes,) whether it was. 1: everyone at no cost; 0: nobody within
    ``most``. Raises ValueError unless ``most`` is above 0.
    """
    if not most > 0:
        raise ValueError(f"the most that may be spent must be above 0, got {most}")
    return float(np.mean(np.where(reached, np.clip(1 - np.asarray(spent, float) / most, 0.0, 1.0), 0.0)))


def wilson(successes: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval, low and high from 0 to 1, of a rate (1927, 10.1080/01621459.1927.10502953)."""
    z = stats.norm.ppf(0.5 + confidence / 2)
    p, scale = successes / trials, 1 + z**2 / trials
    middle, half = p + z**2 / (2 * trials), z * np.sqrt(p * (1 - p) / trials + z**2 / (4 * trials**2))
    low, high = (middle - half) / scale, (middle + half) / scale
    return float(low) if successes else 0.0, float(high) if successes < trials else 1.0
