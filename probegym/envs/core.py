"""The two faces of the engine: one lane (gym.Env) and many (VectorEnv)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space

from probegym.envs.actions import checked
from probegym.envs.episodes import Episodes, Snapshot
from probegym.envs.task import Observation, Task
from probegym.errors import ProbeGymError
from probegym.hardware_bridge.commands import Lanes
from probegym.hardware_bridge.world import World

Step = tuple[Observation, float, bool, bool, dict[str, Any]]
"""What Gymnasium's step of one lane returns."""


_METADATA: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 4}


def _scalar(value: np.ndarray) -> Any:
    return value.item() if np.ndim(value) == 0 else np.array(value)


class ScopeEnv(gym.Env[dict[str, Any], np.ndarray]):
    """A task in a world of one lane. Subclasses name their ``task_type``.

    scenario: name, or ``file.yaml:name``. reward: ``privileged`` or ``observable``. budget: fewer measurements than the
    scenario allows. world: None for the twin, the folder of a record, or an object with the world protocol.
    """

    metadata = _METADATA
    task_type: ClassVar[type[Task]]
    observation_space: gym.spaces.Dict

    def __init__(self, scenario: str = "train", reward: str = "privileged", render_mode: str | None = None,
                 budget: int | None = None, world: World | str | None = None):  # fmt: skip
        if render_mode not in (None, "rgb_array"):
            raise ProbeGymError(f"render_mode must be None or 'rgb_array', got {render_mode!r}")
        self.render_mode = render_mode
        self.episodes = Episodes(self.task_type, scenario, reward, 1, world, budget)
        self.observation_space = self.episodes.task.observation_space
        self.action_space = self.episodes.task.action_space
        self._on, self._over = np.ones(1, bool), False

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Observation, dict[str, Any]]:
        super().reset(seed=seed)
        key = self.np_random.integers(0, 2**63, size=1, dtype=np.uint64)
        observation, info = self.episodes.begin(key, self._on)
        self._over = False
        return self._first(observation), {name: _scalar(value[0]) for name, value in info.items()}

    def step(self, action: np.ndarray) -> Step:
        if not self.episodes.observation:
            raise gym.error.ResetNeeded("call reset() before step()")
        if self._over:
            raise gym.error.ResetNeeded("the episode has ended: call reset()")
        action = checked(action, self.action_space)
        observation, reward, terminated, truncated, info = self.episodes.step(action[None], self._on)
        details = {name: _scalar(value[0]) for name, value in info.items()}
        self._over = bool(terminated[0] or truncated[0])
        return self._first(observation), float(reward[0]), bool(terminated[0]), bool(truncated[0]), details

    @staticmethod
    def _first(observation: Observation) -> Observation:
        return {name: array[0].copy() for name, array in observation.items()}

    def render(self) -> np.ndarray | None:
        return self.episodes.picture(0) if self.render_mode == "rgb_array" else None

    def action_masks(self) -> np.ndarray:
        """(actions,) bool: which discrete actions make sense now, as sb3-contrib asks for them; raises ProbeGymError without any."""
        mask: np.ndarray = self.episodes.task.masks(self.episodes.memory)[0]
        return mask

    @property
    def compute_reward(self) -> Callable[[Any, Any, Any], np.ndarray | float]:
        """(achieved_goal, desired_goal, info) -> reward for other goals, as hindsight replay asks for it; of one step, or of n with n infos.

        Raises AttributeError where an observation shows no goals: who asks whether this is a goal environment looks for the name.
        """
        if "desired_goal" not in self.observation_space.spaces:
            raise AttributeError("this environment has no goals to be exchanged")
        return self._goal_reward

    def _goal_reward(self, achieved_goal: Any, desired_goal: Any, info: dict[str, Any] | Sequence[dict[str, Any]]) -> np.ndarray | float:
        if isinstance(info, dict):
            return float(self._goal_rewards(np.asarray(achieved_goal)[None], np.asarray(desired_goal)[None], [info])[0])
        return self._goal_rewards(np.asarray(achieved_goal), np.asarray(desired_goal), info)

    def _goal_rewards(self, achieved: np.ndarray, desired: np.ndarray, infos: Sequence[dict[str, Any]]) -> np.ndarray:
        task = self.episodes.task
        try:
            told = {name: np.stack([one[name] for one in infos]) for name in task.goal_info}
        except KeyError as error:
            raise ProbeGymError(f"infos of hindsight replay lack {error}: keep them (HerReplayBuffer: copy_info_dict=True)") from error
        return task.goal_reward(achieved, desired, told)

    def snapshot(self) -> Snapshot:
        """Everything that decides the rest of the episode; survives pickling."""
        return self.episodes.snapshot(0, self.np_random)

    def restore(self, snapshot: Snapshot) -> Observation:
        """Go back to a snapshot; returns the observation of that moment."""
        if not self.episodes.observation:
            self.reset(seed=0)  # shapes only; all of it is overwritten
        self.episodes.restore(snapshot, 0, self.np_random)
        self._over = False
        return self._first(self.episodes.observation)

    def counterfactual(self, actions: Iterable[np.ndarray], key: int | None = None) -> list[Step]:
        """What would happen if: the steps that ``actions``, each of the shape of the action space, lead to from here; the environment itself stays where it is.

        The noise is that of the real episode, or another draw of it when a ``key`` (uint64) is given. Raises ProbeGymError for any other.
        """
        here = self.snapshot()
        steps: list[Step] = []
        self.restore(here)  # a world that cannot go back says so before anything happens
        try:
            if key is not None:
                self.episodes.world.rekey(key, 0)
            for action in actions:
                steps.append(self.step(action))
                if steps[-1][2] or steps[-1][3]:
                    break
        finally:
            self.restore(here)
        return steps


class ScopeVectorEnv(gym.vector.VectorEnv[Observation, np.ndarray, np.ndarray]):
    """The same task and world with N lanes: lane i equals the single environment reset with ``seed + i``."""

    metadata = _METADATA | {"autoreset_mode": AutoresetMode.NEXT_STEP}
    task_type: ClassVar[type[Task]]
    single_observation_space: gym.spaces.Dict

    def __init__(self, num_envs: int = 1, scenario: str = "train", reward: str = "privileged", render_mode: str | None = None,
                 budget: int | None = None, world: World | None = None, autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP):  # fmt: skip
        if isinstance(num_envs, bool) or not isinstance(num_envs, (int, np.integer)) or num_envs < 1:
            raise ProbeGymError(f"num_envs must be a whole number from 1, got {num_envs!r}")
        modes = [mode.value for mode in AutoresetMode]
        if autoreset_mode not in [*AutoresetMode, *modes]:
            raise ProbeGymError(f"autoreset_mode must be one of {', '.join(modes)}, got {autoreset_mode!r}")
        if render_mode not in (None, "rgb_array"):
            raise ProbeGymError(f"render_mode must be None or 'rgb_array', got {render_mode!r}")
        self.num_envs, self.render_mode = int(num_envs), render_mode
        self.metadata = self.metadata | {"autoreset_mode": AutoresetMode(autoreset_mode)}
        self.episodes = Episodes(self.task_type, scenario, reward, num_envs, world, budget)
        self.single_observation_space = self.episodes.task.observation_space
        self.single_action_space = self.episodes.task.action_space
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.generators = [seeding.np_random(None)[0] for _ in range(num_envs)]
        self._done = np.zeros(num_envs, bool)

    def reset(self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None) -> tuple[Observation, dict[str, Any]]:
        if seed is None or isinstance(seed, (int, np.integer)):
            seeds = [None if seed is None else seed + i for i in range(self.num_envs)]
        else:
            seeds = list(seed)
        if len(seeds) != self.num_envs:
            raise ProbeGymError(f"{len(seeds)} seeds for {self.num_envs} lanes: give one int or one seed a lane")
        where = np.asarray((options or {}).pop("reset_mask", np.ones(self.num_envs, bool)))
        if where.dtype != bool or where.shape != (self.num_envs,) or not where.any():
            raise ProbeGymError(f"reset_mask must be {self.num_envs} booleans, at least one True")
        if not (self.episodes.observation or where.all()):
            raise ProbeGymError("the first reset starts all lanes: leave the reset_mask out")
        for lane, value in enumerate(seeds):
            if value is not None and where[lane]:
                self.generators[lane] = seeding.np_random(value)[0]
        observation, info = self._begin(where)
        self._done[where] = False
        return observation, info

    def _begin(self, where: np.ndarray) -> tuple[Observation, dict[str, Any]]:
        keys = np.zeros(self.num_envs, np.uint64)
        for lane in np.nonzero(where)[0]:
            keys[lane] = self.generators[lane].integers(0, 2**63, size=1, dtype=np.uint64)[0]
        observation, info = self.episodes.begin(keys, where)
        return _copied(observation), _masked(info, where)

    def step(self, actions: np.ndarray) -> tuple[Observation, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        if not self.episodes.observation:
            raise gym.error.ResetNeeded("call reset() before step()")
        actions = checked(actions, self.action_space)
        mode = self.metadata["autoreset_mode"]
        where = ~self._done  # with DISABLED a lane that has ended waits for its reset
        reward, terminated, truncated = np.zeros(self.num_envs), *(np.zeros(self.num_envs, bool) for _ in range(2))
        infos: dict[str, Any] = {}
        if where.any():
            _, reward, terminated, truncated, info = self.episodes.step(actions, where)
            infos = _masked(info, where)
        done = terminated | truncated
        if mode is AutoresetMode.NEXT_STEP:
            if not where.all():
                infos = _joined(infos, self._begin(~where)[1])
            self._done = done
        elif mode is AutoresetMode.SAME_STEP and done.any():
            last, final = _copied(self.episodes.observation), infos
            infos = _joined(_masked({k: v for k, v in info.items()}, where & ~done), self._begin(done)[1])
            infos |= {"final_obs": last, "_final_obs": done.copy(), "final_info": final, "_final_info": done.copy()}
        elif mode is AutoresetMode.DISABLED:
            self._done = self._done | done
        return _copied(self.episodes.observation), reward, terminated, truncated, infos

    def render(self) -> tuple[np.ndarray, ...] | None:
        return tuple(self.episodes.picture(lane) for lane in range(self.num_envs)) if self.render_mode == "rgb_array" else None

    def action_masks(self) -> np.ndarray:
        """(lanes, actions) bool: which discrete actions make sense now; raises ProbeGymError where actions are not discrete."""
        return self.episodes.task.masks(self.episodes.memory)

    def snapshot(self, lane: int) -> Snapshot:
        """One lane's state; can be restored into any lane, or into a single environment."""
        return self.episodes.snapshot(lane, self.generators[lane])

    def restore(self, snapshot: Snapshot, lane: int) -> None:
        """Put a snapshot into a lane."""
        self.episodes.restore(snapshot, lane, self.generators[lane])
        self._done[lane] = False


def _copied(observation: Observation) -> Observation:
    return {name: array.copy() for name, array in observation.items()}


def _masked(info: Lanes, where: np.ndarray) -> dict[str, Any]:
    """Gymnasium's vector info: every key with the mask of the lanes it speaks of; others hold zero."""
    out: dict[str, Any] = {}
    for name, value in info.items():
        keep = where.reshape(-1, *[1] * (value.ndim - 1))
        out[name] = np.where(keep, value, np.zeros((), value.dtype))
        out[f"_{name}"] = where.copy()
    return out


def _joined(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """Two masked infos of disjoint lanes as one."""
    joined = dict(one)
    for name, value in other.items():
        joined[name] = joined[name] + value if name in joined else value
    return joined
