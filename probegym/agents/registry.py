"""Agents and trainers by name, for the command line, the demo and the benchmarks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import probegym
from probegym.agents import baselines_afm, baselines_stem, baselines_stm, bundle
from probegym.agents.base import Agent, OracleAgent, RandomAgent, Script
from probegym.agents.bundle import BundlePolicy
from probegym.envs.task import Task
from probegym.errors import ProbeGymError

BASELINES: dict[str, Callable[[], Agent | Script]] = {
    "random": RandomAgent,
    "oracle": OracleAgent,
    "coordinate-descent": baselines_stem.CoordinateDescent,
    "nelder-mead": baselines_stem.NelderMead,
    "beacon": baselines_stem.BeaconBO,
    "fixed-pi": baselines_afm.FixedSettings,
    "fixed-settings": baselines_afm.fixed_settings,
    "relay-autotune": baselines_afm.RelayAutotune,
    "ramp-until-ringing": baselines_afm.RampUntilRinging,
    "fixed-recipe": baselines_stm.FixedRecipe,
    "greedy-table": baselines_stm.GreedyTable,
}

BELONGS = {
    "coordinate-descent": "stem_tuning", "nelder-mead": "stem_tuning", "beacon": "stem_tuning",
    "fixed-pi": "afm_tuning", "fixed-settings": "afm_tuning", "relay-autotune": "afm_tuning", "ramp-until-ringing": "afm_tuning",
    "fixed-recipe": "tip_conditioning", "greedy-table": "tip_conditioning",
}  # fmt: skip
"""Baseline -> family of environments that it works in; those left out work in every one."""


def task_type(env_id: str) -> type[Task]:
    """The task of a registered environment."""
    module, name = probegym.ENVIRONMENTS[env_id].split(":")
    return getattr(import_module(module), name).task_type


def family(env_id: str) -> str:
    """Family of a registered environment, the name of its scenario file."""
    return task_type(env_id).family


def make_agent(name: str, env_id: str | None = None) -> Agent | Script:
    """A baseline by name, or a policy by shipped name or folder; raises ProbeGymError, also when it is not for ``env_id``."""
    if name in BASELINES:
        if env_id is not None and BELONGS.get(name, family(env_id)) != family(env_id):
            known = [key for key in BASELINES if BELONGS.get(key, family(env_id)) == family(env_id)]
            raise ProbeGymError(f"agent {name!r} is not made for {env_id}: use one of {', '.join(known)}, or a policy")
        return BASELINES[name]()
    try:
        policy = BundlePolicy(name)
    except ProbeGymError as error:
        if "no policy" not in str(error):
            raise
        known = [*BASELINES, *bundle.shipped()]
        raise ProbeGymError(f"unknown agent {name!r}: use one of {', '.join(known)}, or a policy folder") from error
    made_for = policy.spec.get("environment")
    if env_id is not None and made_for != env_id:
        raise ProbeGymError(f"policy {name!r} is made for {made_for}, not for {env_id}: use another, or train one")
    return policy


class Learner(Protocol):
    """What ``probegym train`` needs of an environment's own trainer. It keeps ``checkpoint.pt`` in its folder."""

    config: Any  # with ``updates``, how many gradient steps in all
    update: int  # how many are done

    def load(self) -> None:
        """Go on from the checkpoint; raises ProbeGymError when it is damaged or of another training."""

    def run(self, report: Callable[[Any], None], evaluate: Callable[[Agent], float], evaluations: int) -> None:
        """Train to the end. ``report`` gets objects with update, loss (NaN: none) and success (None: none)."""

    def finish(self, folder: Path, command: str, episodes: int, report: Callable[[int, int], None]) -> Path:
        """Choose what is chosen on ``episodes`` of the training scenario and write the bundle; returns its folder."""


@dataclass(frozen=True)
class Distillation:
    """How ``--algorithm distil`` trains in a family. learner: ``module:name`` of a callable that makes a Learner from
    (env_id, scenario, updates, seed, folder), loaded when asked for. updates: how many unless told otherwise.
    """

    learner: str
    updates: int


DISTILLATIONS: dict[str, Distillation] = {
    "afm_tuning": Distillation("probegym.agents.train_afm:tuner", 9600),
    "stem_tuning": Distillation("probegym.agents.export:tuner", 6000),
    "tip_conditioning": Distillation("probegym.agents.conditioning:conditioner", 10_000),
}


def distillation(env_id: str) -> Distillation:
    """How an environment's own policy is trained; raises ProbeGymError where there is no such trainer."""
    if family(env_id) not in DISTILLATIONS:
        raise ProbeGymError(f"{env_id} has no teacher to learn from: use --algorithm ppo")
    return DISTILLATIONS[family(env_id)]


def make_learner(env_id: str, scenario: str, updates: int, seed: int, folder: Path) -> Learner:
    """The trainer of an environment's own policy; raises ProbeGymError."""
    module, name = distillation(env_id).learner.split(":")
    return getattr(import_module(module), name)(env_id, scenario, updates, seed, folder)
