"""Reward terms of AfmTuning, (lanes,) each; errors count in decades of a nanometre."""

from __future__ import annotations

import numpy as np

from probegym.envs.task import Transition
from probegym.rewards import terms

PRECISE = 1e-9  # m, unit of the errors that rewards are paid for
UNSEEN = 50e-9  # m, error that a line counts on which the tip never touched
MOST_WEAR = 10.0  # nm a line


def line_error(t: Transition) -> np.ndarray:
    """Precision of the newest line, decades (lanes,): how close its height is to what the tip met, means apart."""
    errors, line = t.after["errors"], t.after["line"]
    return terms.precision(errors[np.arange(len(line)), np.maximum(line - 1, 0)], PRECISE)


def _lost(t: Transition) -> np.ndarray:
    """Share of the newest line on which the tip hardly touched: an error signal of four fifths of its headroom or more.

    A tip that has left the surface shows a flat image whose ways agree; only this tells it from a flat surface.
    """
    headroom = t.memory["drive"][:, 0] * (1 - t.memory["ratio"])
    return (t.memory["amplitude_error"][:, 0] > 0.8 * headroom[:, None, None]).mean((1, 2))


def agreement(t: Transition) -> np.ndarray:
    """Precision, decades (lanes,), with which trace and retrace of the newest line agree, means apart; lost ground counts UNSEEN."""
    height = t.memory["height"][:, 0]
    apart = height[:, 0] - height[:, 1]
    return terms.precision((apart - apart.mean(1, keepdims=True)).std(1) + UNSEEN * _lost(t), PRECISE)


def error_signal(t: Transition) -> np.ndarray:
    """Precision of the amplitude error of the newest line, decades (lanes,); lost ground counts UNSEEN."""
    return terms.precision(np.sqrt((t.memory["amplitude_error"][:, 0] ** 2).mean((1, 2))) + UNSEEN * _lost(t), PRECISE)


def speed(asked: float, t: Transition) -> np.ndarray:
    """Worth of a line's speed, (lanes,): x - x^2 / 2 for x doublings of the asked line rate, Hz; slower lines cost ever more."""
    doublings = np.log2(1 / (asked * np.maximum(t.spent["time"], 1e-9)))
    return doublings - 0.5 * doublings**2


def crash(t: Transition) -> np.ndarray:
    """1 when a crash ended the episode before its frame was complete, (lanes,)."""
    return (t.failure & (t.memory["count"] < t.memory["lines"])).astype(float)


def events(t: Transition) -> np.ndarray:
    """How many crashes, forces above the limit and changes of the tip this step brought, (lanes,)."""
    return t.spent["damage"]


def wear(t: Transition) -> np.ndarray:
    """Growth of the tip's radius in nm, (lanes,), at most MOST_WEAR: a tip that is gone cannot be more so."""
    return np.clip((t.after["tip_radius"] - t.before["tip_radius"]) / PRECISE, 0, MOST_WEAR)
