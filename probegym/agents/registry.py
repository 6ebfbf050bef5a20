"""Agents and trainers by name, for the command line, the demo and the benchmarks."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from probegym.agents import (
    assembly,
    baselines_adatoms,
    baselines_afm,
    baselines_beam,
    baselines_ising,
    baselines_levels,
    baselines_ronchigram,
    baselines_spectra,
    baselines_stem,
    baselines_stm,
    bundle,
)  # fmt: skip
from probegym.agents.base import Agent, OracleAgent, RandomAgent, Script
from probegym.agents.bundle import BundlePolicy
from probegym.envs import environment_type
from probegym.envs.task import Task
from probegym.errors import ProbeGymError

BASELINES: dict[str | None, dict[str, Callable[[], Agent | Script]]] = {
    None: {"random": RandomAgent, "oracle": OracleAgent},
    "stem_tuning": {
        "coordinate-descent": baselines_stem.CoordinateDescent,
        "nelder-mead": baselines_stem.NelderMead,
        "beacon": baselines_stem.BeaconBO,
        "ronchigram-segments": baselines_ronchigram.RonchigramSegments,
    },
    "afm_tuning": {
        "fixed-pi": baselines_afm.FixedSettings,
        "fixed-settings": baselines_afm.fixed_settings,
        "relay-autotune": baselines_afm.RelayAutotune,
        "ramp-until-ringing": baselines_afm.RampUntilRinging,
    },
    "tip_conditioning": {
        "fixed-recipe": baselines_stm.FixedRecipe,
        "greedy-table": baselines_stm.GreedyTable,
    },
    "level_selection": {
        "round-robin": baselines_levels.RoundRobin,
        "greedy-variance": baselines_levels.GreedyVariance,
        "greedy-variance-tuned": baselines_levels.tuned_greedy_variance,
        "knowledge-gradient": baselines_levels.KnowledgeGradient,
        "planned-gradient": baselines_levels.PlannedGradient,
        "multi-fidelity-ucb": baselines_levels.MultiFidelityUcb,
        "survey-first": baselines_levels.SurveyFirst,
    },
    "spectrum_exploration": {
        "random-places": baselines_spectra.RandomPlaces,
        "even-grid": baselines_spectra.EvenGrid,
        "bright-pixels": baselines_spectra.BrightPixels,
        "coordinates-ei": baselines_spectra.CoordinatesEI,
        "dkl-ei": baselines_spectra.DeepKernelEI,
        "dkl-ucb": baselines_spectra.DeepKernelUCB,
        "curiosity": baselines_spectra.Curiosity,
        "steered-ei": baselines_spectra.SteeredEI,
        "fixed-weights": baselines_spectra.FixedWeights,
        "weights-schedule": baselines_spectra.WeightsSchedule,
    },
    "beam_manipulation": {
        "random-nearby": baselines_beam.RandomNearby,
        "greedy-published": baselines_beam.greedy_published,
        "greedy-bond": baselines_beam.FixedGreedy,
        "greedy-tuned": baselines_beam.greedy_tuned,
        "bayesian-greedy": baselines_beam.BayesianGreedy,
        "bayesian-curious": baselines_beam.bayesian_curious,
    },
    "adatom_manipulation": {
        "fixed-drag": baselines_adatoms.FixedDrag,
        "grid-table": baselines_adatoms.GridTable,
        "corrected-drag": baselines_adatoms.CorrectedDrag,
        "builder": assembly.Builder,
    },
    "ising_inference": {
        "uniform-sweep": baselines_ising.UniformSweep,
        "maximum-fisher": baselines_ising.MaximumFisher,
        "maximum-fisher-doubting": baselines_ising.MaximumFisherDoubting,
        "maximum-fisher-patient": baselines_ising.MaximumFisherPatient,
        "thompson": baselines_ising.Thompson,
    },
}
"""Family of environments -> its baselines by name; those of None work in every one."""


def baselines(family: str | None = None) -> dict[str, Callable[[], Agent | Script]]:
    """All baselines by name, or those that work in one family."""
    return {name: make for of, makers in BASELINES.items() if family is None or of in (None, family) for name, make in makers.items()}


def scripts(family: str) -> dict[str, Callable[[], Agent | Script]]:
    """Scripts of a family by name; empty for an environment that has none yet."""
    return BASELINES.get(family, {})


def task_type(env_id: str) -> type[Task]:
    """The task of a registered environment."""
    return environment_type(env_id).task_type


def family(env_id: str) -> str:
    """Family of a registered environment, the name of its scenario file."""
    return task_type(env_id).family


def policies(env_id: str) -> list[str]:
    """Names of the policies that ship for an environment."""
    return [name for name, folder in bundle.shipped().items() if json.loads((folder / "policy.json").read_text(encoding="utf-8"))["environment"] == env_id]


def make_agent(name: str, env_id: str | None = None) -> Agent | Script:
    """A baseline by name, or a policy by shipped name or folder; raises ProbeGymError, also when it is not for ``env_id``."""
    if name in (known := baselines()):
        if env_id is not None and name not in (fitting := baselines(family(env_id))):
            raise ProbeGymError(f"agent {name!r} is not made for {env_id}: use one of {', '.join(fitting)}, or a policy")
        return known[name]()
    try:
        policy = BundlePolicy(name)
    except ProbeGymError as error:
        if "no policy" not in str(error):
            raise
        names = [*baselines(), *bundle.shipped()] if env_id is None else [*baselines(family(env_id)), *policies(env_id)]
        raise ProbeGymError(f"unknown agent {name!r}: use one of {', '.join(names)}, or a policy folder") from error
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
class OwnTrainer:
    """An environment's own trainer, which ``--algorithm distil`` runs. learner: ``module:name`` of a callable that makes a Learner from
    (env_id, scenario, updates, seed, folder), loaded when asked for. updates: how many unless told otherwise.
    """

    learner: str
    updates: int


OWN_TRAINERS: dict[str, OwnTrainer] = {
    "afm_tuning": OwnTrainer("probegym.agents.train_afm:tuner", 9600),
    "beam_manipulation": OwnTrainer("probegym.agents.train_beam:mover", 120),
    "ising_inference": OwnTrainer("probegym.agents.train_ising:annealer", 80),
    "level_selection": OwnTrainer("probegym.agents.train_levels:chooser", 160),
    "spectrum_exploration": OwnTrainer("probegym.agents.train_spectra:steerer", 800),
    "stem_tuning": OwnTrainer("probegym.agents.train_stem:tuner", 6000),
    "tip_conditioning": OwnTrainer("probegym.agents.train_stm:conditioner", 10_000),
}


def own_trainer(env_id: str) -> OwnTrainer:
    """How an environment's own policy is trained; raises ProbeGymError where there is no such trainer."""
    if family(env_id) not in OWN_TRAINERS:
        raise ProbeGymError(f"{env_id} has no trainer of its own: use --algorithm ppo or sac")
    return OWN_TRAINERS[family(env_id)]


def make_learner(env_id: str, scenario: str, updates: int, seed: int, folder: Path) -> Learner:
    """The trainer of an environment's own policy; raises ProbeGymError."""
    module, name = own_trainer(env_id).learner.split(":")
    learner: Learner = getattr(import_module(module), name)(env_id, scenario, updates, seed, folder)
    return learner
