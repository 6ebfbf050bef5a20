"""Environments: what an agent sees, may do and is paid for."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

import probegym
from probegym.errors import ProbeGymError

if TYPE_CHECKING:
    from probegym.envs.core import ScopeEnv


def environment_type(env_id: str) -> type[ScopeEnv]:
    """The class of a registered environment; raises ProbeGymError for another id."""
    if env_id not in probegym.ENVIRONMENTS:
        raise ProbeGymError(f"unknown environment {env_id!r}: use one of {', '.join(probegym.ENVIRONMENTS)}")
    module, name = probegym.ENVIRONMENTS[env_id].split(":")
    kind: type[ScopeEnv] = getattr(import_module(module), name)
    return kind
