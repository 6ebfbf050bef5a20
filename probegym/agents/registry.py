"""Agents by name, for the command line, the demo and the benchmarks."""

from __future__ import annotations

from collections.abc import Callable

from probegym.agents import baselines_stem, bundle
from probegym.agents.base import Agent, OracleAgent, RandomAgent, Script
from probegym.agents.bundle import BundlePolicy
from probegym.errors import ProbeGymError

BASELINES: dict[str, Callable[[], Agent | Script]] = {
    "random": RandomAgent,
    "oracle": OracleAgent,
    "coordinate-descent": baselines_stem.CoordinateDescent,
    "nelder-mead": baselines_stem.NelderMead,
    "beacon": baselines_stem.BeaconBO,
}


def make_agent(name: str) -> Agent | Script:
    """A baseline by name, or a policy by shipped name or folder; raises ProbeGymError."""
    if name in BASELINES:
        return BASELINES[name]()
    try:
        return BundlePolicy(name)
    except ProbeGymError as error:
        if "no policy" not in str(error):
            raise
        known = [*BASELINES, *bundle.shipped()]
        raise ProbeGymError(f"unknown agent {name!r}: use one of {', '.join(known)}, or a policy folder") from error
