"""Scenarios: named worlds as data. One YAML file an environment; users add their own file.

A scenario holds its split (train, id, near, far), the axis of shift it stands for, its budget, and two tables that the
environment's task and twin validate themselves: ``task`` and ``world``. ``extends`` starts from another scenario.
"""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, PositiveFloat, PositiveInt, ValidationError

from probegym.errors import ProbeGymError
from probegym.scenarios.distributions import is_distribution

FOLDER = Path(__file__).parent
MAXIMUM_BYTES = 1_000_000

Model = TypeVar("Model", bound=BaseModel)


class _Loader(yaml.SafeLoader):
    """Safe YAML that reads 10e-9 as a number, as YAML 1.2 does (PyYAML wants 10.0e-9)."""


_Loader.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+0123456789."))


class Budget(BaseModel):
    """Most that an episode may spend; the episode is truncated when another step would not fit."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    measurements: PositiveInt
    time: PositiveFloat | None = None  # s
    dose: PositiveFloat | None = None  # electrons per square Angstrom
    damage: PositiveFloat | None = None

    def limits(self) -> dict[str, float]:
        """Only what is limited."""
        return self.model_dump(exclude_none=True)


class Scenario(BaseModel):
    """One named world of one environment."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    split: Literal["train", "id", "near", "far"]
    axis: str = ""
    description: str
    budget: Budget
    task: dict[str, Any]
    world: dict[str, Any]


def explain(error: ValidationError) -> str:
    """The first of pydantic's complaints, in one line."""
    first = error.errors()[0]
    return ": ".join(filter(None, (".".join(map(str, first["loc"])), first["msg"].removeprefix("Value error, "))))


def parsed(model: type[Model], table: dict, name: str) -> Model:
    """The table ``name`` of a scenario as its model; raises ProbeGymError with the first complaint."""
    try:
        return model(**table)
    except ValidationError as error:
        told = explain(error)
        raise ProbeGymError(f"scenario, {name}{'.' if error.errors()[0]['loc'] else ': '}{told}") from error


def _merge(base: Any, change: Any) -> Any:
    if not (isinstance(base, dict) and isinstance(change, dict)) or is_distribution(change):
        return change
    return base | {key: _merge(base.get(key), value) for key, value in change.items()}


@lru_cache(maxsize=64)
def _table(path: Path, modified: float) -> dict[str, dict]:
    if path.stat().st_size > MAXIMUM_BYTES:
        raise ProbeGymError(f"scenario file {path} is larger than {MAXIMUM_BYTES} bytes: split it")
    try:
        table = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise ProbeGymError(f"scenario file {path} is not valid YAML ({' '.join(str(error).split())})") from error
    if not isinstance(table, dict) or not all(isinstance(k, str) and isinstance(v, dict) for k, v in table.items()):
        raise ProbeGymError(f"scenario file {path} must map scenario names to tables")
    return table


def _read(path: Path) -> dict[str, dict]:
    try:
        return _table(path, path.stat().st_mtime)
    except OSError as error:
        raise ProbeGymError(f"cannot read scenario file {path} ({error.strerror}): check the path") from error


def _resolve(name: str, table: dict[str, dict], seen: tuple[str, ...] = ()) -> dict:
    if name in seen:
        raise ProbeGymError(f"scenario {name!r} extends itself: {' -> '.join((*seen, name))}")
    if name not in table:
        raise ProbeGymError(f"unknown scenario {name!r}: use one of {', '.join(names_in(table))}, or a file 'mine.yaml:name'")
    own = dict(table[name])
    parent = own.pop("extends", None)
    if "name" in own:
        raise ProbeGymError(f"scenario {name!r} has an entry 'name': its name is the key that it stands under")
    if not (parent is None or isinstance(parent, str)):
        raise ProbeGymError(f"scenario {name!r} extends {parent!r}: give the name of one scenario")
    return _merge(_resolve(parent, table, (*seen, name)), own) if parent else own


def names_in(table: dict[str, dict]) -> list[str]:
    """Scenario names of a table; those that start with an underscore are only to be extended."""
    return [name for name in table if not name.startswith("_")]


def names(family: str) -> list[str]:
    """Names of the scenarios that ship for an environment, by its file name (``stem_tuning``)."""
    return names_in(_read(FOLDER / f"{family}.yaml"))


def load(family: str, name: str) -> Scenario:
    """A scenario by name, or from the user's file as ``path.yaml:name``; raises ProbeGymError."""
    if not isinstance(name, str):
        raise ProbeGymError(f"scenario must be a name, got {type(name).__name__}: use one of {', '.join(names(family))}")
    table = _read(FOLDER / f"{family}.yaml")
    path, separator, inside = name.rpartition(":")
    if separator and path.endswith((".yaml", ".yml")):
        table, name = table | _read(Path(path)), inside
    try:
        return Scenario.model_validate({"name": name} | _resolve(name, table))
    except RecursionError as error:
        raise ProbeGymError(f"scenario {name!r} contains itself: write it out") from error
    except ValidationError as error:
        raise ProbeGymError(f"scenario {name!r}, {explain(error)}") from error
