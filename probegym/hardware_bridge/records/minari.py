"""The episodes of a record in the layout of a Minari data set: ``data/main_data.hdf5`` and ``data/metadata.json``.

Layout: Minari 0.5 (minari.farama.org, "Dataset Standards"), episodes as groups ``episode_<n>``, images as plain arrays.
"""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from probegym.hardware_bridge.codec import Arrays, Json, shown
from probegym.hardware_bridge.records.layout import NAME, Event, RecordError
from probegym.hardware_bridge.records.read import Record
from probegym.hardware_bridge.records.steps import ACTION, PLAIN, Episode, episodes, reward, seed, space_of
from probegym.hardware_bridge.records.target import Stream

VERSION = "0.5.3"
"""Of Minari, whose layout this is; a reader refuses versions that it does not know."""
METADATA = Path("data", "metadata.json")
DTYPE = re.compile(r"bool|u?int(8|16|32|64)|float(16|32|64)")


def write(record: Record, folder: Path, dataset: str) -> None:
    """Write the data set into a new folder; raises RecordError when the record has no whole step or its steps do not fit together."""
    (folder / "data").mkdir(parents=True)
    spaces: tuple[Json, Json] | None = None
    count = steps = 0
    with Stream(folder / "data" / "main_data.hdf5") as stream, h5py.File(stream, "w", track_order=True) as file:
        for episode in episodes(record):
            own = _spaces(record, episode)
            if spaces is not None and own != spaces:
                raise RecordError(f"{record.folder}, event {episode.observations[0].seq}: the spaces differ from those of the episodes before")
            spaces = own
            _episode(record, episode, own, file.create_group(f"episode_{count}"), count, stream)
            count, steps = count + 1, steps + len(episode.rewards)
    if spaces is None:
        raise RecordError(f"{record.folder} holds no whole step of an episode: there is nothing to export")
    metadata = {
        "total_episodes": count,
        "total_steps": steps,
        "data_format": "hdf5",
        "jpeg_encoding": False,
        "observation_space": json.dumps(_in_full(spaces[0])),
        "action_space": json.dumps(_in_full(spaces[1])),
        "dataset_id": dataset,
        "minari_version": VERSION,
        "dataset_size": round((folder / "data" / "main_data.hdf5").stat().st_size / 1e6, 1),
        "probegym_record": {"run": record.run, "manifest": record.manifest},
    }
    (folder / METADATA).write_text(json.dumps(metadata), encoding="utf-8")


def _spaces(record: Record, episode: Episode) -> tuple[Json, Json]:
    """Spaces that ``begin`` tells; otherwise what the first step shows, without bounds. Raises RecordError where they are none."""
    told = episode.about.get("spaces")
    if told is None:
        told = {"observation": space_of(record.arrays(episode.observations[0]), PLAIN), "action": space_of(record.arrays(episode.actions[0]), ACTION)}
    spaces = []
    for name in ("observation", "action"):
        try:
            spaces.append(_space(told[name]))
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            why = " ".join(str(error).split())[:80]
            raise RecordError(f"{record.folder}, event {episode.seq}: the space of {name} is none that a data set can have ({why})") from error
    return spaces[0], spaces[1]


def _space(told: Json) -> Json:
    """A space as a record tells it, with bounds such as Minari has them; raises KeyError, TypeError, ValueError, OverflowError where it is none."""
    if told["type"] != "Dict":
        return _plain(told)
    subspaces = told["subspaces"]
    if not isinstance(subspaces, dict) or not subspaces or not all(map(NAME.fullmatch, subspaces)):
        raise ValueError("a Dict has subspaces with names")
    return {"type": "Dict", "subspaces": {name: _plain(inner) for name, inner in subspaces.items()}}


def _plain(told: Json) -> Json:
    kind, dtype = told["type"], told["dtype"]
    if not DTYPE.fullmatch(dtype):
        raise ValueError(f"arrays of {shown(dtype)}")
    if kind == "Box":
        shape = told["shape"]
        if not isinstance(shape, list) or not all(isinstance(n, int) and not isinstance(n, bool) and n >= 0 for n in shape):
            raise ValueError("a shape is a list of whole numbers")
        ends = {"f": (-math.inf, math.inf), "b": (0, 1)}.get(np.dtype(dtype).kind) or (int(np.iinfo(dtype).min), int(np.iinfo(dtype).max))
        low, high = (_bound(told[side], shape, dtype, end) for side, end in zip(("low", "high"), ends, strict=True))
        return {"type": kind, "dtype": dtype, "shape": shape, "low": low, "high": high}
    counts, kept = {"Discrete": ("n", int), "MultiDiscrete": ("nvec", list)}[kind]
    for name in (counts, "start"):
        if not isinstance(told[name], kept) or np.array(told[name]).dtype.kind != "i" or np.shape(told[name]) != np.shape(told[counts]):
            raise ValueError(f"{name} is made of whole numbers")
    if np.dtype(dtype).kind not in "iu" or np.min(told[counts], initial=1) < 1:
        raise ValueError(f"{counts} counts from 1")
    return {"type": kind, "dtype": dtype, counts: told[counts], "start": told["start"]}


def _bound(told: Any, shape: list[int], dtype: str, end: float) -> Any:
    """A bound without null, which stands for infinity or for the last of the whole numbers."""
    given = np.array(told, object)
    if not all(value is None or isinstance(value, bool | int | float) for value in given.ravel()) or given.shape not in ((), tuple(shape)):
        raise ValueError("a bound is a number or null, the same for all or one for each")
    with np.errstate(all="ignore"):
        return np.array([end if value is None else value for value in given.ravel()], dtype).reshape(given.shape).tolist()


def _episode(record: Record, episode: Episode, spaces: tuple[Json, Json], group: Any, number: int, stream: Stream) -> None:
    steps = len(episode.rewards)
    group.attrs.update({"id": number, "total_steps": steps})
    if (told := seed(record, episode.about, episode.seq)) is not None and told < 2**64:  # what an attribute holds
        group.attrs["seed"] = told
    _column(record, episode.observations, spaces[0], group, "observations", PLAIN, stream)
    _column(record, episode.actions, spaces[1], group, "actions", ACTION, stream)
    rewards, terminated, truncated = (np.array(column) for column in zip(*(reward(record, event) for event in episode.rewards), strict=True))
    if not episode.whole:
        truncated[-1] = True  # the run broke off
    group["rewards"], group["terminations"], group["truncations"] = rewards.astype(float), terminated, truncated
    group["infos/t_wall"] = [event.t_wall for event in episode.observations]
    group["infos/event"] = [event.seq for event in episode.observations]


def _column(record: Record, events: list[Event], space: Json, group: Any, name: str, plain: str, stream: Stream) -> None:
    """One data set for each array of the events, which must be those of the space."""
    boxes = space["subspaces"] if space["type"] == "Dict" else {plain: space}
    wanted = {key: (_shape(box), np.dtype(box["dtype"])) for key, box in boxes.items()}
    target = group.create_group(name) if space["type"] == "Dict" else group
    columns: Json = {}
    for row, event in enumerate(events):
        stream.check()
        arrays: Arrays = record.arrays(event)
        if {key: (a.shape, a.dtype.newbyteorder("=")) for key, a in arrays.items()} != wanted:
            raise RecordError(f"{record.folder}, event {event.seq}: its arrays are not those of the space of {name}")
        for key, array in arrays.items():
            if row == 0:
                columns[key] = target.create_dataset(key if target is not group else name, (len(events), *array.shape), wanted[key][1])
            columns[key][row] = array


def _shape(box: Json) -> tuple[int, ...]:
    return tuple(box["shape"]) if box["type"] == "Box" else np.shape(box.get("nvec", 0))


def _in_full(space: Json) -> Json:
    """A space as Minari writes it: a bound for each number, infinite ones as Infinity, which its reader takes."""
    if space["type"] == "Dict":
        return space | {"subspaces": {name: _in_full(inner) for name, inner in space["subspaces"].items()}}
    return space | {side: np.broadcast_to(space[side], space["shape"]).tolist() for side in ("low", "high")} if space["type"] == "Box" else space
