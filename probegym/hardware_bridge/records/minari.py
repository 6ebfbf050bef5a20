"""The episodes of a record in the layout of a Minari data set: ``data/main_data.hdf5`` and ``data/metadata.json``.

Layout: Minari 0.5 (minari.farama.org, "Dataset Standards"), episodes as groups ``episode_<n>``, images as plain arrays.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from probegym.hardware_bridge.codec import Arrays, Json
from probegym.hardware_bridge.records.layout import Event, RecordError
from probegym.hardware_bridge.records.read import Record
from probegym.hardware_bridge.records.steps import ACTION, PLAIN, Episode, episodes, reward, space_of

VERSION = "0.5.3"
"""Of Minari, whose layout this is; a reader refuses versions that it does not know."""
METADATA = Path("data", "metadata.json")
OURS = "probegym_record"
"""Entry of the metadata by which an earlier export is known, so that it may be replaced."""


def replaceable(path: Path) -> None:
    """Raise RecordError unless ``path`` is free or an earlier export."""
    try:
        if path.exists() and OURS not in json.loads((path / METADATA).read_text(encoding="utf-8")):
            raise ValueError
    except (OSError, ValueError) as error:
        raise RecordError(f"{path} is there and no earlier export: choose another place") from error


def write(record: Record, folder: Path, dataset: str) -> None:
    """Write the data set into a new folder; raises RecordError when the record has no whole step or its steps do not fit together."""
    (folder / "data").mkdir(parents=True)
    try:
        _write(record, folder, dataset)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise RecordError(f"{record.folder} tells spaces that are none ({type(error).__name__}: {str(error)[:80]})") from error


def _write(record: Record, folder: Path, dataset: str) -> None:
    spaces: tuple[Json, Json] | None = None
    count = steps = 0
    with h5py.File(folder / "data" / "main_data.hdf5", "w", track_order=True) as file:
        for episode in episodes(record):
            own = _spaces(record, episode)
            if spaces is not None and own != spaces:
                raise RecordError(f"{record.folder}, event {episode.observations[0].seq}: the spaces differ from those of the episodes before")
            spaces = own
            _episode(record, episode, own, file.create_group(f"episode_{count}"), count)
            count, steps = count + 1, steps + len(episode.rewards)
    if spaces is None:
        raise RecordError(f"{record.folder} holds no whole step of an episode: there is nothing to export")
    metadata = {
        "total_episodes": count,
        "total_steps": steps,
        "data_format": "hdf5",
        "jpeg_encoding": False,
        "observation_space": json.dumps(_bounded(spaces[0])),
        "action_space": json.dumps(_bounded(spaces[1])),
        "dataset_id": dataset,
        "minari_version": VERSION,
        "dataset_size": round((folder / "data" / "main_data.hdf5").stat().st_size / 1e6, 1),
        OURS: {"run": record.run, "manifest": record.manifest},
    }
    (folder / METADATA).write_text(json.dumps(metadata), encoding="utf-8")


def _spaces(record: Record, episode: Episode) -> tuple[Json, Json]:
    """Spaces that ``begin`` tells; otherwise what the first step shows, without bounds."""
    told = episode.about.get("spaces")
    if isinstance(told, dict) and isinstance(told.get("observation"), dict) and isinstance(told.get("action"), dict):
        return told["observation"], told["action"]
    return space_of(record.arrays(episode.observations[0]), PLAIN), space_of(record.arrays(episode.actions[0]), ACTION)


def _episode(record: Record, episode: Episode, spaces: tuple[Json, Json], group: Any, number: int) -> None:
    steps = len(episode.rewards)
    group.attrs.update({"id": number, "total_steps": steps})
    if isinstance(seed := episode.about.get("seed"), int) and not isinstance(seed, bool):
        group.attrs["seed"] = seed
    _column(record, episode.observations, spaces[0], group, "observations", PLAIN)
    _column(record, episode.actions, spaces[1], group, "actions", ACTION)
    rewards, terminated, truncated = (np.array(column) for column in zip(*map(reward, episode.rewards), strict=True))
    if not episode.whole:
        truncated[-1] = True  # the run broke off
    group["rewards"], group["terminations"], group["truncations"] = rewards.astype(float), terminated, truncated
    group["infos/t_wall"] = [event.t_wall for event in episode.observations]
    group["infos/event"] = [event.seq for event in episode.observations]


def _column(record: Record, events: list[Event], space: Json, group: Any, name: str, plain: str) -> None:
    """One data set for each array of the events, which must be those of the space."""
    boxes = space["subspaces"] if space.get("type") == "Dict" else {plain: space}
    wanted = {key: (_shape(box), np.dtype(box["dtype"])) for key, box in boxes.items()}
    target = group.create_group(name) if space.get("type") == "Dict" else group
    columns = {}
    for key, (shape, dtype) in wanted.items():
        columns[key] = target.create_dataset(key if target is not group else name, (len(events), *shape), dtype)
    for row, event in enumerate(events):
        arrays: Arrays = record.arrays(event)
        if {key: (a.shape, a.dtype.newbyteorder("=")) for key, a in arrays.items()} != wanted:
            raise RecordError(f"{record.folder}, event {event.seq}: its arrays are not those of the space of {name}")
        for key, array in arrays.items():
            columns[key][row] = array


def _shape(box: Json) -> tuple[int, ...]:
    return {"Discrete": (), "MultiDiscrete": np.shape(box.get("nvec", ()))}.get(str(box.get("type")), tuple(box.get("shape", ())))


def _bounded(space: Json) -> Json:
    """A space as Minari writes it: bounds as full lists, infinite ones as Infinity, which its reader takes."""
    if space.get("type") == "Dict":
        return space | {"subspaces": {name: _bounded(inner) for name, inner in space["subspaces"].items()}}
    if space.get("type") != "Box":
        return space
    dtype = np.dtype(space["dtype"])
    lowest, highest = {"f": (-math.inf, math.inf), "b": (0, 1)}.get(dtype.kind) or (int(np.iinfo(dtype.str).min), int(np.iinfo(dtype.str).max))
    return space | {side: _full(space[side], space["shape"], dtype, end).tolist() for side, end in (("low", lowest), ("high", highest))}


def _full(bound: Any, shape: list[int], dtype: np.dtype[Any], end: float) -> np.ndarray:
    flat = [end if value is None else value for value in np.array(bound, object).reshape(-1)]
    return np.array(flat, dtype).reshape(np.shape(bound)) if isinstance(bound, list) else np.full(shape, flat[0], dtype)
