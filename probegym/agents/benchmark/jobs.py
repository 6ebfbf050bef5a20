"""What there is to do for a suite: a job is one agent in one environment, in all scenarios and runs; each run is kept as it ends."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from probegym import scenarios
from probegym.agents import registry
from probegym.agents.benchmark import results
from probegym.agents.benchmark.results import Facts, Run
from probegym.agents.benchmark.suite import Entry, Suite, entries
from probegym.agents.bundle import BundlePolicy
from probegym.agents.evaluate import evaluate
from probegym.agents.executors import Work
from probegym.agents.seeds import BENCHMARK_SEED, BENCHMARK_TRAINING_SEED
from probegym.hardware_bridge.deployment.policy_process import address_space, limit_memory

MAXIMUM_MEMORY = 6 * 2**30
"""Bytes of address space that a job with a submission's policy may take beyond what its process has at the start."""


def plan(suite: Suite, entry: Entry) -> list[Facts]:
    """The runs of one agent in one environment. Raises ProbeGymError."""
    contest, family, out = suite.environments[entry.env_id], registry.family(entry.env_id), []
    for run in range(1, suite.runs + 1):
        agent = suite.agent(entry.env_id, entry.agent, run)
        told = agent.bundle.digest if isinstance(agent, BundlePolicy) else "of the package"
        for name in (contest.train, *contest.scenarios):
            scenario = scenarios.load(family, name)
            first = (BENCHMARK_TRAINING_SEED if scenario.split == "train" else BENCHMARK_SEED) + (run - 1) * suite.episodes
            about = results.digest(scenario.model_dump(mode="json"))
            out.append(Facts(entry.env_id, entry.agent, entry.kind, name, scenario.split, scenario.axis, run, first, suite.episodes, told, about, results.code()))
    return out


def planned(suite: Suite) -> list[Facts]:
    """All runs of a suite."""
    return [facts for entry in entries(suite) for facts in plan(suite, entry)]


def jobs(suite: Suite, folder: Path) -> list[Work]:
    """What is still to be done in a folder. Raises ProbeGymError when it holds runs of another benchmark."""
    told = suite.model_dump(mode="json")
    return [
        Work(f"{entry.env_id.removeprefix('probegym/')} {entry.agent}", f"{__name__}:{(carry_out_limited if entry.agent in suite.folders.get(entry.env_id, ()) else carry_out).__name__}",
             {"suite": told, "entry": asdict(entry), "folder": str(folder.absolute())})
        for entry in entries(suite)
        if not all(results.done(folder, facts) for facts in plan(suite, entry))
    ]  # fmt: skip


def carry_out(told: dict[str, Any]) -> None:
    """A job in a process of its own; runs that stand in the folder are not made again. Raises ProbeGymError."""
    suite, entry, folder = Suite.model_validate(told["suite"]), Entry(**told["entry"]), Path(told["folder"])
    for facts in plan(suite, entry):
        if not results.done(folder, facts):
            agent, begun = suite.agent(entry.env_id, entry.agent, facts.run), time.perf_counter()
            found = evaluate(agent, facts.environment, facts.scenario, facts.episodes, facts.first_seed)
            results.write(folder, Run(facts, found, time.perf_counter() - begun))


def carry_out_limited(told: dict[str, Any]) -> None:
    """The same with the policy of a stranger, which may not take all of the machine's memory."""
    limit_memory(address_space() + MAXIMUM_MEMORY)
    carry_out(told)
