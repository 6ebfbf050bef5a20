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
    n, target, here = knowledge.levels, m["target"][lane], int(m["instrument"][lane])
    last = n - 1 - int(np.argmax(target.reshape(n, FLAKES).sum(1)[::-1]))
    hypothesis = np.abs(m["correlations"][lane] - correlations).sum(1).argmin()
    start = m["covariances"][lane, hypothesis, None]
    orders, designs = [_order(m, lane, level) for level in range(n)], [knowledge.design(m, lane, level) for level in range(n)]
    cheapest = int(m["seconds"][lane, here].argmin())
    least, choice = np.inf, (cheapest, int(orders[cheapest][0]))  # where nothing fits
    for level in range(n):
        done, spent, at, covariance = int(m["steps"][lane, level]), 0.0, here, start.copy()
        totals = (0,) if level == last else TOTALS[: 1 if level == 0 else None]  # more overviews tell hardly more
        counts = {max(0, total - done) for total in totals}
        for count in range(max(counts) + 1):
            if count:
                spent, at = spent + m["seconds"][lane, at, level], level
                if spent > seconds:
                    break
                _map(knowledge, covariance, level, designs[level], orders[level][(count - 1) % len(orders[level])])
            if count in counts:
                left, maps = covariance.copy(), 0
                until = spent + m["seconds"][lane, at, last]
                for place in orders[last]:
                    if until > seconds:
                        break
                    _map(knowledge, left, last, designs[last], place)
                    until, maps = until + m["seconds"][lane, last, last], maps + 1
                uncertain = float(np.diagonal(left[0]) @ target)
                if count + maps and uncertain < least * (1 - 1e-9):
                    least, choice = uncertain, (level, int(orders[level][0])) if count else (last, int(orders[last][0]))
    return choice


def _map(knowledge: Knowledge, covariance: np.ndarray, level: int, design: tuple[np.ndarray, np.ndarray], place: int) -> None:
    """What one map does to the covariance (1, D, D), in place."""
    weights, noise = (array[place if len(array) > 1 else 0] for array in design)
    used = weights.any(1)
    belief.condition(np.zeros(covariance.shape[:2]), covariance, knowledge.of_level[level], weights[used], noise[used], np.zeros(used.sum()))


def _order(m: Lanes, lane: int, level: int) -> np.ndarray:
    """Flakes around which to map, those that promise most first, none that an earlier map shows as well."""
    promise = m["promise"][lane, level]
    ranked = [f for f in np.argsort(-promise, kind="stable") if m["size"][lane, f] > 0] or [0]
    shown: set[int] = set()
    whole = Knowledge.whole(m, lane, level)
    order = ranked[:1] if whole else []
    for flake in [] if whole else ranked:
        if flake not in shown:
            order.append(flake)
            shown |= set(m["tiles_flakes"][lane, level - 1, flake][m["tiles_pixels"][lane, level - 1, flake] > 0].tolist())
    return np.array(order)
