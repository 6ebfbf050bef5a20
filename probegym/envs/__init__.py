"""Environments: what an agent sees, may do and is paid for."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

import gymnasium as gym

import probegym
from probegym.errors import ProbeGymError

if TYPE_CHECKING:
    from probegym.envs.core import ScopeEnv, ScopeVectorEnv


def environment_type(env_id: str) -> type[ScopeEnv]:
    """The class of a registered environment; raises ProbeGymError for another id."""
    if env_id not in probegym.ENVIRONMENTS:
        raise ProbeGymError(f"unknown environment {env_id!r}: use one of {', '.join(probegym.ENVIRONMENTS)}")
    module, name = probegym.ENVIRONMENTS[env_id].split(":")
    kind: type[ScopeEnv] = getattr(import_module(module), name)
    return kind


def single_env(env_id: str, **settings: Any) -> ScopeEnv:
    """An environment of one lane without Gymnasium's wrappers; raises ProbeGymError for one that is not ProbeGym's."""
    from probegym.envs.core import ScopeEnv

    env = gym.make(env_id, disable_env_checker=True, **settings).unwrapped
    if not isinstance(env, ScopeEnv):
        raise ProbeGymError(f"{env_id!r} is no environment of ProbeGym: use one of {', '.join(probegym.ENVIRONMENTS)}")
    return env


def vector_env(env_id: str, num_envs: int, **settings: Any) -> ScopeVectorEnv:
    """An environment of ``num_envs`` lanes; raises ProbeGymError for one that is not ProbeGym's."""
    from probegym.envs.core import ScopeVectorEnv

    envs = gym.make_vec(env_id, num_envs=num_envs, **settings)
    if not isinstance(envs, ScopeVectorEnv):
        raise ProbeGymError(f"{env_id!r} is no environment of ProbeGym: use one of {', '.join(probegym.ENVIRONMENTS)}")
    return envs
