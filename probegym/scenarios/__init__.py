"""Scenarios: named worlds as data. One YAML file an environment; users add their own file.

A scenario holds its split (train, id, near, far), the axis of shift it stands for, its budget, and two tables that the
environment's task and twin validate themselves: ``task`` and ``world``. ``extends`` starts from another scenario.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, PositiveFloat, PositiveInt, PrivateAttr, ValidationError, field_validator

from probegym import tables
from probegym.errors import ProbeGymError
from probegym.scenarios.distributions import is_distribution

FOLDER = Path(__file__).parent
MAXIMUM_BYTES = 1_000_000

Model = TypeVar("Model", bound=BaseModel)


Tables = dict[str, dict[str, Any]]
Places = dict[tuple[str, ...], str]
"""Path of an entry in a scenario -> file and line where it is written."""


class ScenarioError(ProbeGymError):
    """What is wrong with an entry of a scenario, or with several that do not agree. entries: their paths, as in ``world.temperature``."""

    def __init__(self, entries: str | tuple[str, ...], told: str, place: str = "", name: str = ""):
        self.entries, self.told = (entries,) if isinstance(entries, str) else entries, told
        super().__init__(f"scenario{name and f' {name!r}'}, {' and '.join(self.entries)}: {told}{place and f' ({place})'}")


class Budget(BaseModel):
    """Most that an episode may spend; the episode is truncated when another step would not fit."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    measurements: PositiveInt
    time: PositiveFloat | None = None  # s
    dose: PositiveFloat | None = None  # electrons per square Angstrom
    damage: PositiveFloat | None = None

    @field_validator("*", mode="before")
    @classmethod
    def _plain(cls, value: Any) -> Any:
        if isinstance(value, (str, bool)):
            raise ValueError(f"{tables.PLAIN}, got {value!r}")
        return value

    def limits(self) -> dict[str, float]:
        """Only what is limited, by name: a number, s, or electrons per square Angstrom."""
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
    _places: Places = PrivateAttr(default_factory=dict)

    @contextmanager
    def told_where(self) -> Iterator[None]:
        """A ScenarioError of this scenario's entries leaves with the file and line where each of them is written."""
        try:
            yield
        except ScenarioError as error:
            places = dict.fromkeys(_place(self._places, tuple(entry.split("."))) for entry in error.entries)
            raise ScenarioError(error.entries, error.told, "; ".join(filter(None, places)), self.name) from error


def _place(places: Places, path: tuple[str, ...]) -> str:
    """Of the entry, or of the nearest above it that is written anywhere."""
    return next((places[path[:n]] for n in range(len(path), -1, -1) if path[:n] in places), "")


def parsed(model: type[Model], table: dict[str, Any], name: str) -> Model:
    """The table ``name`` of a scenario as its model; raises ProbeGymError with the first complaint."""
    try:
        return model(**table)
    except ValidationError as error:
        entry, told = tables.complaint(error)
        raise ScenarioError(".".join(filter(None, (name, entry))), told) from error


def _merges(base: Any, change: Any) -> bool:
    """Whether a change adds to what is there; anything else takes its place."""
    return isinstance(base, dict) and isinstance(change, dict) and not is_distribution(change)


def _merge(base: Any, change: Any) -> Any:
    if not _merges(base, change):
        return change
    return base | {key: _merge(base.get(key), value) for key, value in change.items()}


def _replaced(base: Any, change: Any, path: tuple[str, ...] = ()) -> set[tuple[str, ...]]:
    """Paths of the entries that ``_merge`` takes from the change alone."""
    if not _merges(base, change):
        return {path}
    return set().union(*(_replaced(base.get(key), value, (*path, str(key))) for key, value in change.items()))


@lru_cache(maxsize=64)
def _file(path: Path, modified: float) -> tuple[Tables, tables.Lines]:
    table, lines = tables.read_mapping(path, "scenario file", MAXIMUM_BYTES)
    for name, value in table.items():
        here = f"scenario file {path}, line {tables.nearest(lines, (str(name),))}"
        if not isinstance(name, str) or ":" in name or not name.isprintable():
            raise ProbeGymError(f"{here}: a scenario cannot be named {name!r}: use a word, without colons and control characters")
        if not isinstance(value, dict):
            raise ProbeGymError(f"{here}: the scenario {name!r} is no table: give it entries, as 'extends: train'")
    return table, lines


@dataclass(frozen=True)
class _Known:
    """Tables by name, and where each entry is written."""

    tables: Tables
    places: Places

    @classmethod
    def read(cls, path: Path) -> _Known:
        try:
            modified = path.stat().st_mtime
        except OSError as error:
            raise ProbeGymError(f"cannot read scenario file {path} ({error.strerror}): check the path") from error
        table, lines = _file(path, modified)
        return cls(table, {entry: f"{path.name}, line {line}" for entry, line in lines.items()})

    def resolved(self, name: str, seen: tuple[str, ...] = ()) -> tuple[dict[str, Any], Places]:
        """A scenario with all that it extends, and where its entries are written. Raises ProbeGymError."""
        where = f" ({self.places[seen[-1], 'extends']})" if seen else ""
        if name in seen:
            raise ProbeGymError(f"scenario {name!r} extends itself: {' -> '.join((*seen, name))}{where}")
        if name not in self.tables:
            told = f"scenario {seen[-1]!r} extends the unknown {name!r}{where}" if seen else f"unknown scenario {name!r}"
            raise ProbeGymError(f"{told}: use one of {', '.join(names_in(self.tables))}, or a file 'mine.yaml:name'")
        own, places = dict(self.tables[name]), {entry[1:]: place for entry, place in self.places.items() if entry[:1] == (name,)}
        parent = own.pop("extends", None)
        if "name" in own:
            raise ProbeGymError(f"scenario {name!r} has an entry 'name' ({places[('name',)]}): its name is the key that it stands under")
        if not (parent is None or isinstance(parent, str)):
            raise ProbeGymError(f"scenario {name!r} extends {parent!r} ({places[('extends',)]}): give the name of one scenario")
        if parent is None:
            return own, places
        base, written = self.resolved(parent, (*seen, name))
        replaced = _replaced(base, own)
        left = {path: at for path, at in written.items() if not any(path[:n] in replaced for n in range(len(path) + 1))}
        return _merge(base, own), left | places

    def origin(self, name: str, own: dict[str, dict[str, Any]]) -> str | None:
        """The shipped scenario that one of a user's file starts from, if any. It was resolved before."""
        while name in own and (parent := own[name].get("extends")) is not None:
            name = parent
        return None if name in own else name


def names_in(table: Tables) -> list[str]:
    """Scenario names of a table; those that start with an underscore are only to be extended."""
    return [name for name in table if not name.startswith("_")]


def shipped(family: str) -> Path:
    """The file with the scenarios that ship for an environment, by its file name (``stem_tuning``)."""
    return FOLDER / f"{family}.yaml"


def names(family: str, path: Path | None = None) -> list[str]:
    """Names of the scenarios that ship for an environment, or of those in a user's file."""
    return names_in(_Known.read(path or shipped(family)).tables)


def load(family: str, name: str) -> Scenario:
    """A scenario by name, or from the user's file as ``path.yaml:name``; raises ProbeGymError, with file and line of a wrong entry."""
    if not isinstance(name, str):
        raise ProbeGymError(f"scenario must be a name, got {type(name).__name__}: use one of {', '.join(names(family))}")
    own, known = None, _Known.read(shipped(family))
    path, separator, inside = name.rpartition(":")
    if separator and path.endswith((".yaml", ".yml")):
        own, name = _Known.read(Path(path)), inside
        hidden = {entry: place for entry, place in known.places.items() if entry[:1] and entry[0] not in own.tables}
        known = _Known(known.tables | own.tables, hidden | own.places)
    places: Places = {}
    try:
        resolved, places = known.resolved(name)
        scenario = Scenario.model_validate({"name": name} | resolved)
    except RecursionError as error:
        raise ProbeGymError(f"scenario {name!r} contains itself: write it out") from error
    except ValidationError as error:
        entry, told = tables.complaint(error)
        place = _place(places, tuple(entry.split(".")))
        raise ProbeGymError(f"scenario {name!r}, {entry}: {told}{place and f' ({place})'}") from error
    scenario._places = places
    if own is not None and scenario.split == "train" and (origin := known.origin(name, own.tables)) is not None:
        held_out = known.resolved(origin)[0]["split"]
        if held_out != "train":
            told = f"scenario {name!r}, split: it starts from {origin}, which is of the split {held_out}: held-out worlds are not for training"
            raise ProbeGymError(f"{told} ({_place(places, ('split',))})")
    return scenario
