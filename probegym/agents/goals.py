"""What SAC needs for tasks with goals: hindsight replay by the task's own reward."""

from __future__ import annotations

from typing import Any

import numpy as np
from stable_baselines3.common.type_aliases import DictReplayBufferSamples
from stable_baselines3.her.her_replay_buffer import HerReplayBuffer

from probegym.errors import ProbeGymError

HINDSIGHT = 0.1
"""Share of goals that are exchanged. In a world with chance, goals taken from what happened make every drag look as if it had been the
right one (Lanka & Wu 2018, arXiv:1809.02070), and the actor starts well enough to need few.
"""
METHODS = ("goal_reward", "goal_reached")
"""Of a task; they are the same for all lanes."""


class GoalReplay(HerReplayBuffer):
    """Hindsight replay (Andrychowicz et al. 2017, arXiv:1707.01495) for rewards that go by the goals achieved before and after a step.

    A step that would have reached the other goal ends its episode; one that ended because it reached its own does not.
    """

    def __init__(self, *args, her_share: float, **kwargs):
        super().__init__(*args, **kwargs)
        self.her_ratio = her_share

    def _get_virtual_samples(self, batch_indices: np.ndarray, env_indices: np.ndarray, env=None) -> DictReplayBufferSamples:
        here = (batch_indices, env_indices)
        before, after = ({name: array[here] for name, array in kept.items()} for kept in (self.observations, self.next_observations))
        achieved, own = after["achieved_goal"], before["desired_goal"]
        goal = self._sample_goals(*here)
        before["desired_goal"] = after["desired_goal"] = goal
        if self.env is None:
            raise ProbeGymError("hindsight replay asks the environment for rewards of other goals: sample with one")
        (reward,) = self.env.env_method("goal_reward", achieved, goal, {"achieved_before": before["achieved_goal"]})
        reached, reached_own = (self.env.env_method("goal_reached", achieved, of)[0] for of in (goal, own))
        ended = reached | ((self.dones[here] * (1 - self.timeouts[here]) > 0) & ~reached_own)
        seen, then = ({name: self.to_torch(array) for name, array in part.items()} for part in (before, after))
        column = [self.to_torch(array.astype(np.float32).reshape(-1, 1)) for array in (ended, reward)]
        return DictReplayBufferSamples(seen, self.to_torch(self.actions[here]), then, *column)


def _falling(left: float) -> float:
    """Learning rate when a share ``left`` of the training lies ahead."""
    return 5e-4 * (0.03 + 0.97 * left)


def options(steps: int, components: int) -> dict[str, Any]:
    """Keywords of SAC for a training of so many steps with so many components of an action.

    Discount and future goals are those of Chen et al. (2022), 10.1038/s41467-022-35149-w; the rest suits a training of some minutes. The
    target entropy is low: at -1.5 a component, the ends of drags scatter by as much as a goal is wide.
    """
    return {
        "replay_buffer_class": GoalReplay, "replay_buffer_kwargs": {"her_share": HINDSIGHT, "goal_selection_strategy": "future"}, "gamma": 0.9,
        "buffer_size": int(np.clip(steps, 1000, 200_000)), "learning_starts": min(2000, steps // 2), "batch_size": 256, "tau": 0.01,
        "learning_rate": _falling, "ent_coef": "auto_0.05", "target_entropy": -4.0 * components,
    }  # fmt: skip
