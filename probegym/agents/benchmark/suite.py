"""Suites: which agents are run in which scenarios, as data."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import gymnasium as gym
import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from probegym import scenarios, tables
from probegym.agents import registry
from probegym.agents.base import Agent, Script
from probegym.errors import ProbeGymError
from probegym.hardware_bridge.commands import Readings

FOLDER = Path(__file__).parent
MAXIMUM_BYTES = 1_000_000
SEED = "{seed}"
"""In the folder of an agent: stands for the run, from 1, where each run has a policy of its own."""
BOUNDS = ("random", "oracle")

Name = Annotated[str, Field(min_length=1, max_length=300)]


class Contest(BaseModel):
    """What is run in one environment. score: ``return``, ``success``, or a metric that its episodes end with and of which more is better.

    left_out: scripts that the suite has and this part of it does not run.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    learned: Name | None = None
    scripts: tuple[Name, ...] = ()
    scenarios: tuple[Name, ...] = Field(min_length=1)
    train: Name = "train"
    score: Name = "return"
    left_out: tuple[Name, ...] = ()

    @property
    def agents(self) -> tuple[str, ...]:
        """All agents by name."""
        return tuple(dict.fromkeys((*((self.learned,) if self.learned else ()), *self.scripts, *BOUNDS)))

    def of(self, agents: list[str]) -> Contest:
        """Only these agents, random and oracle."""
        kept, left_out = (tuple(name for name in self.scripts if (name in agents) == there) for there in (True, False))
        learned = self.learned if self.learned in agents else None
        return self.model_copy(update={"learned": learned, "scripts": kept, "left_out": (*self.left_out, *left_out)})


class Suite(BaseModel):
    """Environments by id, each with its contest. runs: blocks of ``episodes``. folders: of policies, by the names that agents have here.

    authors, licence: of a submission.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    description: str = ""
    runs: int = Field(5, ge=1, le=1000)
    episodes: int = Field(20, ge=1, le=100_000)
    environments: dict[str, Contest] = Field(min_length=1)
    folders: dict[str, dict[str, str]] = {}
    authors: tuple[str, ...] = ()
    licence: str = ""

    def agent(self, env_id: str, name: str, run: int) -> Agent | Script:
        """The agent that plays a run. Raises ProbeGymError."""
        return registry.make_agent(self.folders.get(env_id, {}).get(name, name).replace(SEED, str(run)), env_id)

    def narrowed(self, environments: list[str], agents: list[str]) -> Suite:
        """Only these environments and agents (random and oracle stay, scores need them); nothing given: all. Raises ProbeGymError."""
        kept = {env_id: contest for env_id, contest in self.environments.items() if not environments or env_id in environments}
        if missing := set(environments) - set(kept):
            raise ProbeGymError(f"the suite has no {', '.join(sorted(missing))}: use {', '.join(self.environments)}")
        if agents:
            known = {name for contest in kept.values() for name in contest.agents}
            if missing := set(agents) - known:
                raise ProbeGymError(f"the suite has no agent {', '.join(sorted(missing))} there: use {', '.join(sorted(known))}")
            kept = {env_id: contest.of(agents) for env_id, contest in kept.items()}
        return self.model_copy(update={"environments": kept})


@dataclass(frozen=True)
class Entry:
    """An agent in one environment: kind is learned, script, random or oracle."""

    env_id: str
    agent: str
    kind: str


def shipped() -> dict[str, Path]:
    """The suites that ship, by name."""
    return {path.stem: path for path in sorted(FOLDER.glob("*.yaml"))}


def load(name: str) -> Suite:
    """A suite by name or file. Raises ProbeGymError with file and line for what cannot be run."""
    path = shipped().get(name, Path(name))
    if name not in shipped() and path.suffix not in (".yaml", ".yml"):
        raise ProbeGymError(f"unknown suite {name!r}: use {', '.join(shipped())}, or a YAML file")
    table, lines = tables.read_mapping(path, "suite", MAXIMUM_BYTES)

    def line(*entry: str) -> str:
        return f"{path.name}, line {tables.nearest(lines, entry)}"

    try:
        suite = Suite.model_validate(table)
    except ValidationError as error:
        where, told = tables.complaint(error)
        raise ProbeGymError(f"suite {path.name}, {where}: {told} ({line(*where.split('.'))})") from error
    for env_id, contest in suite.environments.items():
        if env_id not in gym.registry:
            raise ProbeGymError(f"suite {path.name}: there is no environment {env_id} ({line('environments', env_id)})")
        for field, every in (("scenarios", contest.scenarios), ("scripts", contest.scripts)):
            if len(set(every)) < len(every):
                raise ProbeGymError(f"suite {path.name}: {field} names one twice ({line('environments', env_id, field)})")
        for field in ("train", "scenarios"):
            for scenario in (contest.train,) if field == "train" else contest.scenarios:
                try:
                    split = scenarios.load(registry.family(env_id), scenario).split
                except ProbeGymError as error:
                    raise ProbeGymError(f"suite {path.name}: {error} ({line('environments', env_id, field)})") from error
                if (split == "train") != (field == "train"):
                    raise ProbeGymError(f"suite {path.name}: {scenario} is of the split {split}, not for {field} ({line('environments', env_id, field)})")
        named = (*filter(None, (contest.learned,)), *contest.scripts)
        if doubled := sorted({name for name in (*named, *BOUNDS) if (*named, *BOUNDS).count(name) > 1}):
            raise ProbeGymError(f"suite {path.name}: {doubled[0]} has two parts, learned is one, scripts are others, random and the oracle play anyhow ({line('environments', env_id)})")
        for agent in contest.agents:
            try:
                suite.agent(env_id, agent, 1)
            except ProbeGymError as error:
                raise ProbeGymError(f"suite {path.name}: {error} ({line('environments', env_id)})") from error
        if contest.score not in (known := metrics(env_id, contest)):
            told = f"score {contest.score!r} is nothing that episodes end with: use {', '.join(known)}; a score needs more to be better"
            raise ProbeGymError(f"suite {path.name}: {told} ({line('environments', env_id, 'score')})")
    return suite


def metrics(env_id: str, contest: Contest) -> list[str]:
    """What may be its score: ``return``, ``success`` and the metrics that every scenario's episodes end with. Raises ProbeGymError."""
    if contest.score in (own := ["return", "success"]):
        return own  # no episode needs to be begun
    found: list[set[str]] = []
    for scenario in (contest.train, *contest.scenarios):
        env = gym.make(env_id, scenario=scenario, disable_env_checker=True)
        try:
            _, info = env.reset(seed=0)
        finally:
            env.close()
        other = {"is_success", *Readings.COSTS}
        found.append({name for name, value in info.items() if name not in other and not name.startswith(("_", "reward_")) and np.ndim(value) == 0})
    return [*own, *sorted(set.intersection(*found))]


def entries(suite: Suite) -> list[Entry]:
    """Every agent of every environment."""
    out = []
    for env_id, contest in suite.environments.items():
        for agent in contest.agents:
            kind = agent if agent in BOUNDS else "learned" if agent == contest.learned else "script"
            out.append(Entry(env_id, agent, kind))
    return out
