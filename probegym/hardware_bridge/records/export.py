"""A record in the formats of others: HyperSpy (.hspy), NeXus NXdata (.nxs), Minari. After the run, never by what controls an instrument.

What is written has its name when it is complete; nothing is overwritten, and nothing is ever written into a record's folder.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from probegym.errors import ProbeGymError
from probegym.hardware_bridge import codec
from probegym.hardware_bridge.commands import Command, Readings
from probegym.hardware_bridge.records import minari, target
from probegym.hardware_bridge.records.layout import Event, RecordError
from probegym.hardware_bridge.records.read import OBSERVED, Record
from probegym.hardware_bridge.records.replay import exchanges, observed_readings, recorded_command, recorded_readings

CHUNK = 2**18  # bytes
ATTRIBUTE = 60_000  # bytes of one in HDF5, less what else stands beside it
COST_UNITS = {"time": "s", "dose": "1/angstrom^2", "damage": "", "measurements": ""}


@contextmanager
def _appearing_file(path: str | os.PathLike[str]) -> Iterator[tuple[Any, target.Stream]]:
    """An HDF5 file that stands at ``path`` when it is complete, and what it is written to."""
    with target.appearing(path) as scratch, target.Stream(scratch) as stream, h5py.File(stream, "w") as file:
        yield file, stream


# ---- readings as stacks ----


@dataclass(frozen=True)
class Axis:
    """An evenly spaced axis: ``offset + scale * index``."""

    name: str
    size: int
    scale: float = 1.0
    offset: float = 0.0
    units: str = ""


@dataclass
class Stack:
    """Readings of one kind, in a data set that grows with each; events, seconds since the record's first event, costs of each."""

    data: Any
    axes: tuple[Axis, ...]
    events: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    costs: list[list[float]] = field(default_factory=list)
    units: str = ""
    arguments: list[dict[str, np.ndarray]] = field(default_factory=list)  # of the commands; empty where somebody else gave them
    verb: str = ""

    def columns(self) -> Iterator[tuple[str, np.ndarray, str]]:
        """What was asked for, (name, one row for each command, unit), where it has the same shape in every command."""
        for name in self.arguments[0]:
            rows = [told.get(name, np.zeros(0)) for told in self.arguments]
            if len({row.shape for row in rows}) == 1:
                yield name, np.stack(rows), codec.ARGUMENTS[self.verb][name][1] or ""


@dataclass(frozen=True)
class Acquired:
    """Readings of one event. seq: of the command's, if it is recorded; command: None where somebody else gave it, so how wide the view was is not known."""

    seq: int
    event: Event
    verb: str
    command: Command | None
    readings: Readings


def acquired(record: Record) -> Iterator[Acquired]:
    """What came of every command that was carried out, then what a shadow has seen; raises RecordError."""
    for exchange in exchanges(record):
        if exchange.outcome == "result" and exchange.answer is not None:
            yield Acquired(exchange.seq, record.at(exchange.answer), exchange.verb, recorded_command(record, exchange)[0], recorded_readings(record, exchange))
    for event in record:
        if event.kind == OBSERVED:
            yield Acquired(event.seq, event, *observed_readings(record, event))


def calibrated(command: Command | None, name: str, array: np.ndarray, readings: Readings) -> tuple[Axis, ...]:
    """The axes of one lane's reading, in SI units where the command says them; raises ValueError for an image of no extent."""
    if array.ndim == 2 and array.shape == tuple(getattr(command, "shape", ())):
        rows, columns = array.shape
        width = getattr(command, "field_of_view", None)
        if not array.size or (width is not None and not width > 0):
            raise ValueError
        scale, units = (width / columns, "m") if width else (1.0, "px")
        return Axis("y", rows, scale, 0.0, units), Axis("x", columns, scale, 0.0, units)
    axis = readings.values.get("axis")
    if array.ndim == 1 and name != "axis" and axis is not None and axis.dtype.kind in "fiu" and axis.shape == (1, *array.shape) and array.size > 1:
        along = axis[0].astype(float)
        with np.errstate(all="ignore"):  # an axis may hold anything
            step = float(along[-1] - along[0]) / (array.size - 1)
            if step and math.isfinite(step) and np.allclose(np.diff(along), step, rtol=1e-3, atol=0):
                return (Axis("axis", array.size, step, float(along[0])),)
    return tuple(Axis(f"index {i}" if array.ndim > 1 else "index", size) for i, size in enumerate(array.shape))


def stacks(record: Record, parent: Any, stream: target.Stream) -> dict[str, Stack]:
    """Write every reading of a record below an HDF5 group, like with like, one after the other; title -> stack.

    Raises RecordError for an image of no extent, and where there are no readings.
    """
    found: dict[str, Stack] = {}
    kinds: dict[tuple[Any, ...], str] = {}
    last, elapsed = next(iter(record), None), 0.0
    for seen in acquired(record):
        stream.check()
        last, elapsed = seen.event, elapsed + _between(last or seen.event, seen.event)
        for name, value in seen.readings.values.items():
            if value.ndim == 0 or value.shape[0] != 1 or value.dtype.kind not in "fiub":
                continue
            array = value[0].astype(np.uint8) if value.dtype.kind == "b" else value[0]
            try:
                axes = calibrated(seen.command, name, array, seen.readings)
            except ValueError as error:
                raise RecordError(f"{record.folder}, event {seen.event.seq}: {name} is an image of no extent") from error
            if not array.size:
                continue
            kind = (seen.verb, name, array.dtype.str, axes)
            if kind not in kinds:
                same = sum(other[:2] == kind[:2] for other in kinds)
                kinds[kind] = f"{seen.verb}.{name}" + (f" {same + 1}" if same else "")
                chunk = max(1, min(1024, CHUNK // array.nbytes))
                data = parent.create_group(kinds[kind]).create_dataset(
                    "data", (0, *array.shape), array.dtype, chunks=(chunk, *array.shape), maxshape=(None, *array.shape))  # fmt: skip
                found[kinds[kind]] = Stack(data, axes, units=codec.VERBS[seen.verb].units.get(name, "") if seen.verb in codec.VERBS else "", verb=seen.verb)
            stack = found[kinds[kind]]
            stack.data.resize(len(stack.events) + 1, axis=0)
            stack.data[-1] = array
            stack.events.append(seen.seq)
            stack.seconds.append(elapsed)
            stack.arguments.append(_asked(seen.command))
            stack.costs.append([float(getattr(seen.readings, cost)[0]) for cost in Readings.COSTS])
    if not found:
        raise RecordError(f"{record.folder} holds no readings: there is nothing to export")
    return found


def _between(one: Event, other: Event) -> float:
    """Seconds from one event to another, by the clock that runs forward; by the calendar's where another process went on."""
    forward = other.t_mono - one.t_mono
    return forward if forward >= 0 else max(0.0, other.t_wall - one.t_wall)


def _asked(command: Command | None) -> dict[str, np.ndarray]:
    """Numbers of a command, of its one lane."""
    if command is None:
        return {}
    units = codec.ARGUMENTS[command.verb]
    told = {name: value[0] if units[name][0] is np.ndarray and value.ndim else value for name, value in command.arguments().items() if value.size}
    return {name: value for name, value in told.items() if value.dtype.kind in "fiub"}


def to_hspy(record: Record, path: str | os.PathLike[str]) -> Path:
    """Write the readings as signals that HyperSpy loads, axes calibrated in m where the command tells the field of view.

    One signal for each verb and reading, named ``Verb.reading``; its navigation axis counts the commands. Raises RecordError.
    """
    manifest = json.dumps(record.manifest)
    manifest = manifest if len(manifest) <= ATTRIBUTE else "longer than an attribute can be: see the record"
    with _appearing_file(path) as (file, stream):
        file.attrs.update({"file_format": "HyperSpy", "file_format_version": "3.3"})
        for title, stack in stacks(record, file.create_group("Experiments"), stream).items():
            group = stack.data.parent
            images = min(len(stack.axes), 2)  # HyperSpy's signal has two dimensions at most, the others navigate
            for index, axis in enumerate((Axis("command", len(stack.events)), *stack.axes)):
                told = {"name": axis.name, "units": axis.units, "scale": axis.scale, "offset": axis.offset, "size": axis.size}
                navigate = bool(stack.axes) and index <= len(stack.axes) - images
                group.create_group(f"axis-{index}").attrs.update(told | {"navigate": navigate, "_type": "UniformDataAxis"})
            metadata = group.create_group("metadata")
            metadata.create_group("General").attrs.update({"title": title, "original_filename": record.run})
            metadata.create_group("Signal").attrs.update({"signal_type": "", "quantity": f"{title.partition('.')[2]} ({stack.units})" if stack.units else title.partition(".")[2]})
            original = group.create_group("original_metadata")
            original.attrs.update({"run": record.run, "manifest": manifest})
            asked = original.create_group("commands")
            for name, rows, units in stack.columns():
                asked[f"{name} ({units})" if units else name] = rows
    return Path(path)


def to_nxdata(record: Record, path: str | os.PathLike[str]) -> Path:
    """Write the readings as NXdata groups of one NXentry, with event numbers, times and costs along the first axis.

    Form: the NeXus manual, class NXdata (signal, axes, ``_indices``). Raises RecordError.
    """
    with _appearing_file(path) as (file, stream):
        file.attrs["default"] = "entry"
        entry = file.create_group("entry")
        entry.attrs["NX_class"] = "NXentry"
        entry["title"], entry["manifest"] = record.run, json.dumps(record.manifest)
        for title, stack in stacks(record, entry, stream).items():
            group = stack.data.parent
            entry.attrs.setdefault("default", title)
            names = ["event", *(axis.name.replace(" ", "_") for axis in stack.axes)]
            group.attrs.update({"NX_class": "NXdata", "signal": "data", "axes": names, "title": title})
            group["event"], stack.data.attrs["units"] = stack.events, stack.units
            for name, rows, units in stack.columns():
                group[f"command_{name}"] = rows
                group[f"command_{name}"].attrs["units"] = units
                group.attrs[f"command_{name}_indices"] = 0
            for axis, name in zip(stack.axes, names[1:], strict=True):
                group[name] = axis.offset + axis.scale * np.arange(axis.size)
                group[name].attrs["units"] = axis.units
            columns = {"elapsed": (stack.seconds, "s")} | {
                cost: ([row[i] for row in stack.costs], COST_UNITS[cost]) for i, cost in enumerate(Readings.COSTS)
            }
            for name, (values, units) in columns.items():
                group[name] = values
                group[name].attrs["units"] = units
                group.attrs[f"{name}_indices"] = 0
    return Path(path)


def to_minari(record: Record, path: str | os.PathLike[str], dataset: str = "") -> Path:
    """Write the episodes as a Minari data set in folder ``path``; ``MinariDataset(path / "data")`` reads it.

    dataset: its id, ``probegym/<run>-v0`` unless given; below ``$MINARI_DATASETS_PATH/<id>`` ``minari.load_dataset`` finds it.
    Raises RecordError when there is no step, steps do not fit together, or ``path`` is there already.
    """
    with target.appearing(path) as scratch:
        minari.write(record, scratch, dataset or f"probegym/{record.run}-v0")
    return Path(path)


FORMATS: dict[str, tuple[Callable[[Record, Path], Path], str]] = {
    "hspy": (to_hspy, ".hspy"),
    "nxs": (to_nxdata, ".nxs"),
    "minari": (to_minari, "-minari"),
}


def export(folder: str | os.PathLike[str], to: str, out: str | os.PathLike[str] | None = None) -> Path:
    """Export a record; ``out`` is a file or folder beside the record unless given. Raises ProbeGymError."""
    if to not in FORMATS:
        raise ProbeGymError(f"records are exported to {', '.join(FORMATS)}, got {to!r}")
    record, (write, ending) = Record(folder), FORMATS[to]
    return write(record, Path(out or os.path.abspath(folder) + ending))
