"""Raw results: one JSON file for each run, checked when read; everything that is printed is computed from them."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

import probegym
from probegym.agents import bundle, files
from probegym.agents.benchmark import suite
from probegym.agents.evaluate import Results
from probegym.errors import ProbeGymError
from probegym.hardware_bridge.commands import Readings

SCHEMA = "probegym-run/1"
MAXIMUM_BYTES = 200_000_000
PACKAGE = Path(probegym.__file__).parent
READERS = ("agents/benchmark/report.py", "agents/benchmark/figures.py", "agents/benchmark/rows.py", "terminal/", "cli.py", "envs/pictures")
"""Parts of the package that read what is there, or draw it."""


@dataclass(frozen=True)
class Facts:
    """What a run is of. code, agent_digest, scenario_digest: change when what is run does. first_seed: of its episodes, one seed after the other."""

    environment: str
    agent: str
    kind: str
    scenario: str
    split: str
    axis: str
    run: int
    first_seed: int
    episodes: int
    agent_digest: str
    scenario_digest: str
    code: str

    @property
    def path(self) -> Path:
        """Of its file, in the folder of a benchmark."""
        return Path("raw", named(self.environment), named(self.agent), f"{named(self.scenario)}-{self.run}.json")


@dataclass(frozen=True)
class Run:
    """A run and what came of it. seconds: that it took, of a computer."""

    facts: Facts
    results: Results
    seconds: float


def named(text: str) -> str:
    """A name for a file, different for different texts."""
    plain = "".join(c if c.isalnum() or c in "-." else "_" for c in text.removeprefix("probegym/"))[-80:]
    return plain if plain == text.removeprefix("probegym/") else f"{plain}-{digest(text)[:8]}"


def digest(content: Any) -> str:
    """Of anything that is JSON."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()


@functools.cache
def code() -> str:
    """Of the whole package, Python, kernels, tables and specimens: twins, rewards and scripts have no other digest.

    Policies have one of their own, suites are told by facts, and READERS change no episode.
    """
    total, suites = hashlib.sha256(), set(suite.shipped().values())
    every = (path for path in PACKAGE.rglob("*") if path.is_file() and "__pycache__" not in path.parts and not path.relative_to(PACKAGE).as_posix().startswith(READERS))
    for path in sorted(path for path in every if bundle.SHIPPED not in path.parents and path not in suites):
        total.update(path.relative_to(PACKAGE).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return total.hexdigest()


def write(folder: Path, run: Run) -> Path:
    """The file of a run, complete or not at all. Raises ProbeGymError."""
    path = folder / run.facts.path
    told = {"schema": SCHEMA, "facts": asdict(run.facts), "seconds": run.seconds, "episodes": run.results.columns()}
    files.write_json(path, told)
    return path


def read(path: Path) -> Run:
    """A run; raises ProbeGymError for a file that is damaged or none of these."""
    try:
        if path.stat().st_size > MAXIMUM_BYTES:
            raise ProbeGymError(f"{path} is larger than {MAXIMUM_BYTES} bytes: it is no raw result")
        told = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ProbeGymError(f"cannot read {path} ({error.strerror}): check the path") from error
    except (ValueError, RecursionError) as error:
        raise ProbeGymError(f"{path} is no JSON ({error}): delete it, and its run is made anew") from error
    try:
        if told["schema"] != SCHEMA:
            raise ValueError(f"schema {told['schema']!r}")
        facts, columns, n = Facts(**told["facts"]), told["episodes"], int(told["facts"]["episodes"])
        flat = {name: _column(columns[name], n) for name in ("success", "returns", "steps")}
        nested = {name: {key: _column(values, n) for key, values in columns[name].items()} for name in ("costs", "metrics", "to_goal")}
        if missing := [f"{name}.{cost}" for name in ("costs", "to_goal") for cost in Readings.COSTS if cost not in nested[name]]:
            raise KeyError(missing[0])
        return Run(facts, Results(flat["success"].astype(bool), flat["returns"], flat["steps"], **nested), float(told["seconds"]))
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise ProbeGymError(f"{path} is no raw result of a run ({type(error).__name__}: {error}): delete it, and its run is made anew") from error


def _column(values: list, episodes: int) -> np.ndarray:
    array = np.array([np.nan if value is None else value for value in values], float)
    if array.shape != (episodes,):
        raise ValueError(f"{array.shape} values for {episodes} episodes")
    return array


def done(folder: Path, facts: Facts) -> bool:
    """Whether this very run stands in the folder. Raises ProbeGymError when another one does."""
    return bool(found(folder, [facts]))


def found(folder: Path, planned: Iterable[Facts]) -> list[Run]:
    """Those of the planned runs that stand in the folder. Raises ProbeGymError when another one stands in the place of one."""
    return [run for facts in planned if (run := _standing(folder, facts)) is not None]


def _standing(folder: Path, facts: Facts) -> Run | None:
    path = folder / facts.path
    if not path.exists():
        return None
    run = read(path)
    there = run.facts
    if there != facts:
        other = next(name for name, value in asdict(facts).items() if getattr(there, name) != value)
        told = "the package has changed since" if other == "code" else f"{other} was {getattr(there, other)!r}"
        raise ProbeGymError(f"{path} is of another benchmark ({told}): choose another folder with --out")
    return run
