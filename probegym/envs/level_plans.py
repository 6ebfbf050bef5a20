"""Plans for the rest of a LevelSelection episode, for the oracle: it knows how the levels are tied, not what the flakes are.

With known correlations the belief's covariance does not depend on what is measured, so a plan can be made beforehand.
"""

from __future__ import annotations

import numpy as np

from probegym.envs.level_knowledge import FLAKES, Knowledge
from probegym.hardware_bridge.commands import Lanes
from probegym.surrogates import belief

TOTALS = (4, 8, 12, 18)  # of maps at another level, those before included, until the target's own has the rest


def best(knowledge: Knowledge, m: Lanes, lane: int, correlations: np.ndarray, seconds: float) -> tuple[int, int]:
    """Level and flake of the first map of the best plan for one lane; correlations: (levels - 1,) true; seconds: what is left.

    Plans: some maps at one level, then the target's own to the end. The hypothesis nearest the truth stands for it.
    """
    n, target = knowledge.levels, m["target"][lane]
    last = n - 1 - int(np.argmax(target.reshape(n, FLAKES).sum(1)[::-1]))
    hypothesis = np.abs(m["correlations"][lane] - correlations).sum(1).argmin()
    start = m["covariances"][lane, hypothesis, None]
    orders = [_order(m, lane, level) for level in range(n)]
    cheapest = int(m["seconds"][lane, m["instrument"][lane]].argmin())
    least, choice = np.inf, (cheapest, int(orders[cheapest][0]))  # where nothing fits
    for level in range(n):
        done = int(m["steps"][lane, level])
        for total in TOTALS if level != last else (done,):
            count = max(0, total - done)
            first = [(level, int(orders[level][i % len(orders[level])])) for i in range(count)]
            steps = _fitting(m, lane, first + [(last, int(flake)) for flake in orders[last]], seconds)
            left = _left(knowledge, m, lane, start.copy(), steps)
            if steps and left < least * (1 - 1e-9):
                least, choice = left, steps[0]
    return choice


def _order(m: Lanes, lane: int, level: int) -> np.ndarray:
    """Flakes around which to map, those that promise most first, none that an earlier map shows as well."""
    promise = m["promise"][lane, level]
    ranked = [f for f in np.argsort(-promise, kind="stable") if m["size"][lane, f] > 0] or [0]
    shown: set[int] = set()
    order = ranked[:1] if level == 0 else []
    for flake in ranked if level else []:
        if flake not in shown:
            order.append(flake)
            shown |= set(m["tiles_flakes"][lane, level - 1, flake][m["tiles_pixels"][lane, level - 1, flake] > 0].tolist())
    return np.array(order)


def _fitting(m: Lanes, lane: int, wanted: list[tuple[int, int]], seconds: float) -> list[tuple[int, int]]:
    """The maps of a plan that fit into the time."""
    steps, at, spent = [], int(m["instrument"][lane]), 0.0
    for level, place in wanted:
        price = m["seconds"][lane, at, level]
        if spent + price <= seconds:
            steps.append((level, place))
            spent, at = spent + price, level
    return steps


def _left(knowledge: Knowledge, m: Lanes, lane: int, covariance: np.ndarray, steps: list[tuple[int, int]]) -> float:
    """The target's variance after the maps of a plan; covariance (1, D, D) is used up."""
    mean = np.zeros(covariance.shape[:2])
    designs = [knowledge.design(m, lane, level) for level in range(knowledge.levels)]
    for level, place in steps:
        design, noise = (array[place if level else 0] for array in designs[level])
        used = design.any(1)
        belief.condition(mean, covariance, knowledge.of_level[level], design[used], noise[used], np.zeros(used.sum()))
    return float(np.diagonal(covariance[0]) @ m["target"][lane])
