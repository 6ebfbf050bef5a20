"""Stable-Baselines3 on our own vector environments: adaptor, training with checkpoints and resume, export.

Checkpoints are plain tensors that torch reads with ``weights_only``; SB3's own zip files hold pickles and are not used.
The adaptor gives what SB3 expects of a VecEnv: the first observation of the next episode where one has ended, with the
last one in ``info["terminal_observation"]`` and ``info["TimeLimit.truncated"]`` where only the budget ended it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import AutoresetMode
from stable_baselines3 import PPO, SAC
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import VecEnv, VecMonitor
from torch import nn

from probegym.agents import checkpoints, goals
from probegym.agents.export import ship
from probegym.agents.hyperparameters import refuse_actions
from probegym.agents.seeds import LAST_TRAINING_SEED
from probegym.envs import vector_env
from probegym.envs.adatom_manipulation import AdatomManipulationTask
from probegym.envs.core import ScopeVectorEnv
from probegym.envs.task import shape_of
from probegym.errors import ProbeGymError

ALGORITHMS: dict[str, type[PPO] | type[SAC]] = {"ppo": PPO, "sac": SAC}
LANES = 16


class ScopeVecEnv(VecEnv):
    """A ScopeVectorEnv in SAME_STEP mode as SB3's VecEnv; lane i is reset with ``seed + i`` after ``seed(seed)``."""

    def __init__(self, envs: ScopeVectorEnv):
        if envs.metadata["autoreset_mode"] is not AutoresetMode.SAME_STEP:
            raise ProbeGymError("SB3 resets within a step: make the vector environment with autoreset_mode='SameStep'")
        self.envs = envs
        super().__init__(envs.num_envs, envs.single_observation_space, envs.single_action_space)

    def reset(self):
        seeds = self._seeds if any(seed is not None for seed in self._seeds) else None
        observation, info = self.envs.reset(seed=seeds)
        self.reset_infos = [_lane(info, lane) for lane in range(self.num_envs)]
        self._reset_seeds()
        self._reset_options()
        return observation

    def step_async(self, actions: np.ndarray) -> None:
        self._actions = np.asarray(actions, self.action_space.dtype)

    def step_wait(self):
        observation, reward, terminated, truncated, info = self.envs.step(self._actions)
        done = terminated | truncated
        infos = [_lane(info["final_info"] if done[lane] else info, lane) for lane in range(self.num_envs)]
        for lane in np.nonzero(done)[0]:
            infos[lane]["terminal_observation"] = {name: array[lane] for name, array in info["final_obs"].items()}
            infos[lane]["TimeLimit.truncated"] = bool(truncated[lane] and not terminated[lane])
        return observation, reward.astype(np.float32), done, infos

    def close(self) -> None:
        self.envs.close()

    def get_images(self):
        return self.envs.render() or [None] * self.num_envs

    def get_attr(self, attr_name: str, indices=None) -> list[Any]:
        return [getattr(self.envs, attr_name) for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices=None) -> None:
        raise ProbeGymError(f"lanes share one environment: give {attr_name} to gym.make_vec instead")

    def env_method(self, method_name: str, *method_args, indices=None, **method_kwargs) -> list[Any]:
        if method_name not in goals.METHODS:
            raise ProbeGymError(f"lanes share one environment: call envs.{method_name} instead")
        return [getattr(self.envs.episodes.task, method_name)(*method_args, **method_kwargs)]  # the same for all lanes

    def env_is_wrapped(self, wrapper_class, indices=None) -> list[bool]:
        return [False for _ in self._get_indices(indices)]


def _lane(info: dict[str, np.ndarray], lane: int) -> dict[str, Any]:
    """One lane's entries of a vector info, as Python scalars."""
    mine = {name: value for name, value in info.items() if not name.startswith(("_", "final_")) and info.get(f"_{name}", [False])[lane]}
    return {name: value[lane].item() if value[lane].ndim == 0 else value[lane].copy() for name, value in mine.items()}


@dataclass(frozen=True)
class Training:
    """What is trained; ``steps`` environment steps in all, which alone may be raised when it is resumed.

    hyperparameters: those of Stable-Baselines3 that take the place of ours.
    """

    env_id: str
    scenario: str
    algorithm: str
    steps: int
    seed: int = 1
    hyperparameters: dict[str, float | int] = field(default_factory=dict)


@dataclass
class Progress:
    """What a caller is told: steps so far, mean return and success rate of the last 100 episodes (None at first)."""

    steps: int
    mean_return: float | None
    success: float | None


def checkpoint_path(folder: str | os.PathLike) -> Path:
    """Where the last checkpoint of a training lies."""
    return Path(folder) / "checkpoint.pt"


def _networks(training: Training, envs: ScopeVectorEnv) -> dict[str, Any]:
    """The networks: SB3's own, or those made for an environment where the scenario shows one atom and its goal."""
    task = envs.episodes.task
    if training.algorithm != "sac" or not isinstance(task, AdatomManipulationTask) or task.settings.atoms > 1 or task.settings.shown != "goals":
        return {"policy": "MultiInputPolicy"}
    from probegym.agents.adatom_networks import DragPolicy

    return {"policy": DragPolicy, "policy_kwargs": {"drags": task.settings.remembered}}


def build(training: Training, folder: Path) -> BaseAlgorithm:
    """The algorithm with its environment, untrained. Raises ProbeGymError for an unknown algorithm."""
    if training.algorithm not in ALGORITHMS:
        raise ProbeGymError(f"unknown algorithm {training.algorithm!r}: use one of {', '.join(ALGORITHMS)}")
    envs = vector_env(training.env_id, num_envs=LANES, scenario=training.scenario, autoreset_mode="SameStep")
    refuse_actions(training.algorithm, training.env_id, envs.single_action_space)
    shared: dict[str, Any] = {"seed": training.seed, "tensorboard_log": str(folder / "tensorboard"), "device": "auto"}
    if training.algorithm == "ppo":
        rollout = 2 ** int(np.clip(np.log2(max(2, training.steps / LANES)), 1, 7))  # a power of two, so that batches divide it
        own: dict[str, Any] = {"n_steps": rollout, "batch_size": LANES * rollout // 4, "n_epochs": 4, "gamma": 0.98, "ent_coef": 1e-3}
    else:
        kept = int(np.clip(training.steps, 1000, 50_000))
        own = {"buffer_size": kept, "learning_starts": min(1000, training.steps // 2), "gradient_steps": 4}
        if "achieved_goal" in envs.single_observation_space.spaces:
            own |= goals.options(training.steps, shape_of(envs.single_action_space)[0])
    return ALGORITHMS[training.algorithm](env=VecMonitor(ScopeVecEnv(envs)), **_networks(training, envs), **shared, **(own | training.hyperparameters))


def env_of(model: BaseAlgorithm) -> Any:
    """The environment that a model was built with, as SB3 wraps it; raises ProbeGymError for a model without one."""
    if model.env is None:
        raise ProbeGymError("the model has no environment: build it with one")
    return model.env


def save(model: BaseAlgorithm, training: Training, folder: Path) -> None:
    """Write the checkpoint atomically; raises ProbeGymError when it cannot be written."""
    state = {"training": asdict(training), "steps": model.num_timesteps, "parameters": model.get_parameters()}
    if isinstance(model, SAC) and model.log_ent_coef is not None:
        state["log_ent_coef"] = model.log_ent_coef.detach()
    checkpoints.save(checkpoint_path(folder), state)


def load(model: BaseAlgorithm, training: Training, folder: Path) -> None:
    """Put a checkpoint into a fresh model; raises ProbeGymError when it is damaged or of another training.

    A replay buffer is not kept: SAC gathers experience again before it learns on.
    """
    path = checkpoint_path(folder)
    try:
        state = torch.load(path, weights_only=True, map_location=model.device)
        old = state["training"] | {"steps": training.steps}
    except FileNotFoundError as error:
        raise ProbeGymError(f"no checkpoint {path}: leave --resume out to start") from error
    except Exception as error:
        raise ProbeGymError(f"checkpoint {path} cannot be read ({type(error).__name__}): delete it and train again") from error
    if changed := [name for name, value in asdict(training).items() if old.get(name) != value]:
        raise ProbeGymError(f"checkpoint {path} was made with other {', '.join(changed)}: use the same, or another folder")
    try:
        model.set_parameters(state["parameters"], device=model.device)
    except (ValueError, RuntimeError, KeyError) as error:
        told = f"checkpoint {path} does not fit scenario {training.scenario!r} any more"
        raise ProbeGymError(f"{told}: train again in another folder") from error
    model.num_timesteps = int(state["steps"])
    if isinstance(model, SAC):
        if model.log_ent_coef is not None:
            with torch.no_grad():
                model.log_ent_coef.copy_(state["log_ent_coef"])
        model.learning_starts = model.num_timesteps + model.batch_size


def _mean(values: list) -> float | None:
    return float(np.mean(values)) if values else None


class _Watch(BaseCallback):
    """Reports and saves between updates, when weights and step count belong together."""

    def __init__(self, training: Training, folder: Path, report: Callable[[Progress], None], every: int):
        super().__init__()
        self.training, self.folder, self.tell, self.every = training, folder, report, every

    def _on_training_start(self) -> None:
        self.saved = self.num_timesteps

    def _on_rollout_start(self) -> None:
        if self.num_timesteps >= self.saved + self.every:
            save(self.model, self.training, self.folder)
            self.saved = self.num_timesteps

    def _on_step(self) -> bool:
        if (follow := getattr(self.model.policy, "follow", None)) is not None:
            follow()
        if self.n_calls % 10 == 0:
            returns, successes = [episode["r"] for episode in self.model.ep_info_buffer or ()], list(self.model.ep_success_buffer or ())
            self.tell(Progress(self.num_timesteps, _mean(returns), _mean(successes)))
        return True


def train_sb3(training: Training, folder: str | os.PathLike, resume: bool = False, report: Callable[[Progress], None] = lambda _: None,
              checkpoint_every: int = 10_000) -> BaseAlgorithm:  # fmt: skip
    """Train to the end, from the folder's checkpoint if ``resume``; TensorBoard logs beside it.

    Raises ProbeGymError when the folder holds a checkpoint that is not to be resumed, or one of another training.
    """
    folder = Path(folder)
    model = build(training, folder)
    if resume:
        load(model, training, folder)
    elif checkpoint_path(folder).exists():
        raise ProbeGymError(f"folder {folder} holds a checkpoint: go on from it with --resume, or choose another with --out")
    left = training.steps - model.num_timesteps
    if left > 0:
        # other episodes than before the interruption
        env_of(model).seed((training.seed * 1_000_000 + model.num_timesteps) % LAST_TRAINING_SEED)
        model.learn(left, _Watch(training, folder, report, checkpoint_every), tb_log_name=training.algorithm, reset_num_timesteps=not resume)
        save(model, training, folder)
    return model


class _Deterministic(nn.Module):
    """The likeliest action of a trained policy: the mean clipped to [-1, 1], or the numbers with the highest logits."""

    def __init__(self, model: BaseAlgorithm, names: list[str]):
        super().__init__()
        self.policy: Any = model.policy  # of PPO or of SAC, which have other parts
        self.names, self.ppo = names, isinstance(model, PPO)
        space = model.action_space
        self.choices = [int(space.n)] if isinstance(space, gym.spaces.Discrete) else [int(n) for n in getattr(space, "nvec", ())]
        self.single = isinstance(space, gym.spaces.Discrete)

    def forward(self, *observations: torch.Tensor) -> torch.Tensor:
        observation = dict(zip(self.names, observations, strict=True))
        if not self.ppo:
            return torch.tanh(getattr(self.policy, "average", self.policy.actor).get_action_dist_params(observation)[0])
        features = self.policy.extract_features(observation, self.policy.pi_features_extractor)
        chosen = self.policy.action_net(self.policy.mlp_extractor.forward_actor(features))
        if not self.choices:
            return chosen.clamp(-1, 1)
        best = [logits.argmax(1) for logits in chosen.split(self.choices, 1)]
        return best[0] if self.single else torch.stack(best, 1)


def export_sb3(model: BaseAlgorithm, training: Training, folder: Path, command: str) -> Path:
    """Write a trained model as a policy bundle (ONNX + JSON); returns its folder."""
    envs = env_of(model)
    observation = {name: v[:4] for name, v in envs.reset().items()}
    policy = _Deterministic(model, list(observation)).cpu()
    return ship(folder, policy, training, envs.unwrapped.envs.episodes.task, observation, {}, command, algorithm=training.algorithm)
