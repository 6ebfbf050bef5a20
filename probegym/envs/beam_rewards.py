"""Reward terms of BeamManipulation, (lanes,) each."""

from __future__ import annotations

import numpy as np

from probegym.envs.beam_settings import BOND
from probegym.envs.task import Transition
from probegym.hardware_bridge.commands import Lanes


def goal_distance(truth: Lanes, memory: Lanes) -> np.ndarray:
    """Distance (lanes, n) in m from each goal to the nearest atom that is left, by the hidden state; goals drift with the sample."""
    drifted = truth["velocity"] * (truth["clock"] - memory["anchored"])[:, None]
    goals = memory["goals"] + (memory["anchor"] + drifted)[:, None]
    apart = goals[:, :, None] - truth["position"][:, None]
    distance = np.sqrt((apart**2).sum(-1))
    return np.where((truth["folds"] > 0)[:, None], distance, np.inf).min(2)


def nearer(t: Transition) -> np.ndarray:
    """Bond lengths (lanes,) by which the atoms came nearer to the goals, summed over goals; the loss of the last atom counts nothing."""
    before, after = (goal_distance(truth, t.memory).sum(1) for truth in (t.before, t.after))
    return np.where(np.isfinite(before) & np.isfinite(after), (np.nan_to_num(before, posinf=0) - np.nan_to_num(after, posinf=0)) / BOND, 0)


def worth(discount: float, t: Transition) -> np.ndarray:
    """What the goal is worth when it is reached in this step, (lanes,): ``discount`` to the power of the seconds since the start."""
    return t.success * discount ** t.memory["elapsed"]


def bonds_nearer(t: Transition) -> np.ndarray:
    """Bonds (lanes,) by which the located atoms came nearer to their goals."""
    return t.memory["left_before"] - t.memory["left"]


def worth_as_located(discount: float, t: Transition) -> np.ndarray:
    """The same worth (lanes,), by what the atom finder says."""
    return t.memory["reached"] * discount ** t.memory["elapsed"]


def damage(t: Transition) -> np.ndarray:
    """How many vacancies were made, atoms lost and contaminations arrived in this step, (lanes,)."""
    return t.spent["damage"]
