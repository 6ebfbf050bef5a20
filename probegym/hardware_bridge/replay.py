"""Record what passes between a task and a world, and play it back as a world.

A recording is an ``.npz`` of plain arrays and one JSON log: nothing in it is executed when it is read.
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

import numpy as np

from probegym.errors import ProbeGymError
from probegym.hardware_bridge.commands import Command, Lanes, LaneState, Readings
from probegym.hardware_bridge.world import Refused, World

FORMAT = 1


class RecordingWorld:
    """Passes everything on to a one-lane world and keeps a copy; ``save`` writes it."""

    def __init__(self, world: World):
        if world.lanes != 1:
            raise ProbeGymError(f"a recording holds one lane, this world has {world.lanes}: record a single environment")
        self.world, self.lanes = world, 1
        self.log: list[dict] = []
        self.arrays: dict[str, np.ndarray] = {}

    def _keep(self, entry: dict, **groups: Lanes) -> None:
        index = len(self.log)
        for group, arrays in groups.items():
            entry[group] = sorted(arrays)
            for name, array in arrays.items():
                self.arrays[f"{index}/{group}/{name}"] = np.array(array)
        self.log.append(entry)

    def begin(self, keys, where) -> None:
        self.world.begin(keys, where)
        self._keep({"event": "begin"}, truth=self.world.truth() or {})

    def execute(self, command: Command, where) -> Readings:
        readings = self.world.execute(command, where)
        costs = {name: getattr(readings, name) for name in Readings.COSTS}
        groups = {"arguments": command.arguments() | {"where": np.array(where)}, "values": readings.values, "costs": costs, "truth": self.world.truth() or {}}
        self._keep({"event": command.verb}, **groups)
        return readings

    def truth(self) -> Lanes | None:
        return self.world.truth()

    def portrait(self, lane: int) -> Lanes:
        return self.world.portrait(lane)

    def snapshot(self, lane: int) -> LaneState:
        return self.world.snapshot(lane)

    def restore(self, state: LaneState, lane: int) -> None:
        raise ProbeGymError("a recording runs forward only: restore the environment that is not being recorded")

    def rekey(self, key: int, lane: int) -> None:
        self.world.rekey(key, lane)

    def save(self, path: str | os.PathLike) -> Path:
        """Write the recording atomically; returns its path. Raises ProbeGymError when it cannot be written."""
        path = Path(path)
        header = np.array(json.dumps({"format": FORMAT, "log": self.log}))
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=path.parent) as folder:
                scratch = Path(folder) / "recording.npz"
                np.savez_compressed(scratch, header=header, **self.arrays)
                os.replace(scratch, path)
        except OSError as error:
            raise ProbeGymError(f"cannot write recording {path} ({error.strerror}): free space or choose another folder") from error
        return path


class ReplayWorld:
    """A recorded run as a world of one lane: answers a command only if it is the one that was recorded next."""

    lanes = 1

    def __init__(self, path: str | os.PathLike, tolerance: float = 1e-15):
        self.path, self.tolerance, self.position = Path(path), tolerance, 0
        try:
            with np.load(self.path, allow_pickle=False) as stored:
                self.arrays = {name: stored[name] for name in stored.files}
            header = json.loads(str(self.arrays.pop("header")))
        except FileNotFoundError as error:
            raise ProbeGymError(f"no recording {self.path}: check the path") from error
        except Exception as error:  # a damaged archive raises whatever its damaged part is read as
            raise ProbeGymError(f"recording {self.path} cannot be read ({type(error).__name__}): record it again") from error
        if not isinstance(header, dict) or header.get("format") != FORMAT or not isinstance(header.get("log"), list):
            found = header.get("format") if isinstance(header, dict) else None
            raise ProbeGymError(f"recording {self.path} has format {found}, this version reads {FORMAT}: record it again")
        self.log = header["log"]
        try:
            for index, entry in enumerate(self.log):
                for group in ("truth",) if entry["event"] == "begin" else ("arguments", "values", "costs", "truth"):
                    self._group(index, group)
        except (KeyError, TypeError, AttributeError) as error:
            raise ProbeGymError(f"recording {self.path} lacks {error} of event {index}: record it again") from error

    def _group(self, index: int, group: str) -> Lanes:
        return {name: self.arrays[f"{index}/{group}/{name}"].copy() for name in self.log[index][group]}

    def _next(self, event: str) -> int:
        if self.position >= len(self.log):
            raise Refused(f"recording {self.path} ends after {len(self.log)} events, {event} was asked for")
        index, recorded = self.position, self.log[self.position]["event"]
        if recorded != event:
            raise Refused(f"recording {self.path}, event {index}: {recorded} was recorded, {event} was asked for")
        return index

    def begin(self, keys, where) -> None:
        self._next("begin")
        self.position += 1

    def execute(self, command: Command, where) -> Readings:
        index = self._next(command.verb)
        recorded = self._group(index, "arguments")
        for name, asked in (command.arguments() | {"where": np.array(where)}).items():
            was = recorded.get(name)
            numeric = asked.dtype.kind in "fiu"
            same = was is not None and was.shape == asked.shape and (
                np.allclose(was, asked, rtol=1e-6, atol=self.tolerance) if numeric else np.array_equal(was, asked)
            )  # fmt: skip
            if not same:
                told = f"{command.verb}.{name} was {np.array(was).tolist()}, {asked.tolist()} was asked for"
                raise Refused(f"recording {self.path}, event {index}: {told}")
        self.position += 1
        costs = self._group(index, "costs")
        return Readings(self._group(index, "values"), *(costs[name] for name in Readings.COSTS))

    def truth(self) -> Lanes | None:
        return self._group(self.position - 1, "truth") or None

    def portrait(self, lane: int) -> Lanes:
        return {}

    def snapshot(self, lane: int) -> LaneState:
        return LaneState({"position": np.array(self.position)})

    def restore(self, state: LaneState, lane: int) -> None:
        self.position = int(state.arrays["position"])

    def rekey(self, key: int, lane: int) -> None:
        raise ProbeGymError("a recording has only the noise that was recorded: leave the key out")
