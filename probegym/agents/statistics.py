"""Statistics of episodes, and of runs, that hold with few of them.

Scores are arrays (runs, tasks). Formulas of Agarwal et al., "Deep reinforcement learning at the edge of the statistical precipice" (2021,
10.48550/arXiv.2108.13264); intervals are percentiles of a bootstrap that draws runs anew for each task (stratified).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy import stats

RESAMPLES = 2000

Scores = np.ndarray


def _scores(scores: Scores) -> Scores:
    scores = np.asarray(scores, float)
    if scores.ndim != 2 or not scores.size:
        raise ValueError(f"scores are runs by tasks, got shape {scores.shape}")
    return scores


def interquartile_mean(scores: Scores) -> float:
    """Mean of the middle half of all runs on all tasks."""
    return float(stats.trim_mean(_scores(scores), 0.25, axis=None))


def optimality_gap(scores: Scores, aim: float = 1.0) -> float:
    """How far runs fall short of ``aim`` on average; what is beyond it does not count."""
    return float(aim - np.minimum(_scores(scores), aim).mean())


def performance_profile(scores: Scores, levels: np.ndarray) -> np.ndarray:
    """(levels,): share of runs, averaged over tasks, with a score above each level."""
    return (_scores(scores)[None] > np.asarray(levels, float)[:, None, None]).mean(axis=(1, 2))


def probability_of_improvement(scores: Scores, others: Scores) -> float:
    """Chance that a run beats one of another agent on the same task, averaged over tasks; a draw counts half."""
    mine, theirs = _scores(scores), _scores(others)
    if mine.shape[1] != theirs.shape[1]:
        raise ValueError(f"agents with {mine.shape[1]} and {theirs.shape[1]} tasks cannot be compared")
    difference = mine[:, None] - theirs[None]
    return float(((difference > 0) + 0.5 * (difference == 0)).mean())


def interval(statistic: Callable[..., float | np.ndarray], *scores: Scores, confidence: float = 0.95, resamples: int = RESAMPLES, seed: int = 0) -> np.ndarray:
    """(2,) or (2, ...): lower and upper end of a statistic's stratified bootstrap interval. scores: (runs, tasks) of each agent that it takes."""
    rng, tables = np.random.default_rng(seed), [_scores(table) for table in scores]
    drawn = []
    for _ in range(resamples):
        drawn.append(statistic(*(np.take_along_axis(table, rng.integers(0, len(table), table.shape), axis=0) for table in tables)))
    return np.quantile(np.asarray(drawn), [0.5 - confidence / 2, 0.5 + confidence / 2], axis=0)


def mean_interval(values: np.ndarray, confidence: float = 0.95, resamples: int = RESAMPLES, seed: int = 0) -> tuple[float, float]:
    """Percentile bootstrap interval of a mean of values (n,)."""
    low, high = interval(lambda table: float(table.mean()), np.asarray(values, float)[:, None], confidence=confidence, resamples=resamples, seed=seed)
    return float(low), float(high)


def efficiency_area(spent: np.ndarray, reached: np.ndarray, most: float) -> float:
    """Area under the share of episodes that have reached their goal against what they had spent, from nothing to ``most``, as a share of all.

    spent: (episodes,), at the goal. reached: (episodes,) whether it was. 1: everyone at no cost; 0: nobody within ``most``.
    """
    if not most > 0:
        raise ValueError(f"the most that may be spent must be above 0, got {most}")
    return float(np.mean(np.where(reached, np.clip(1 - np.asarray(spent, float) / most, 0.0, 1.0), 0.0)))


def wilson(successes: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a rate (1927, 10.1080/01621459.1927.10502953)."""
    z = stats.norm.ppf(0.5 + confidence / 2)
    p, scale = successes / trials, 1 + z**2 / trials
    middle, half = p + z**2 / (2 * trials), z * np.sqrt(p * (1 - p) / trials + z**2 / (4 * trials**2))
    return float(max(0.0, (middle - half) / scale)), float(min(1.0, (middle + half) / scale))


def bootstrap_median(values: np.ndarray, confidence: float = 0.95, seed: int = 0, resamples: int = 2000) -> tuple[float, float]:
    """Percentile bootstrap interval of the median."""
    rng = np.random.default_rng(seed)
    medians = np.median(values[rng.integers(0, len(values), (resamples, len(values)))], axis=1)
    low, high = np.quantile(medians, [0.5 - confidence / 2, 0.5 + confidence / 2])
    return float(low), float(high)
