"""What recording costs: milliseconds of an append, appends a second, reading and checking; beside the disk's own figures.

Every append waits for the disk, so the bare ``write`` and ``fdatasync`` of as many bytes is measured in turn with it: the
difference is ours, the rest is the disk and the load of the machine.

    python benchmarks/records.py [--appends 1000] [--folder PATH] [--urgent]

On a busy machine a process that waited for the disk waits again, for a processor: ``--urgent`` runs with the priority
SCHED_FIFO (Linux, with the right to it), as a guard may.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np
from report import json_line, table

from probegym.hardware_bridge import codec
from probegym.hardware_bridge.commands import AcquireImage, Readings, SetAberrations
from probegym.hardware_bridge.records import Record, Recorder, files, recover
from probegym.hardware_bridge.records.replay import RecordingWorld


class Still:
    """A world of one lane that answers at once, with one frame."""

    lanes = 1

    def __init__(self, frame: np.ndarray):
        self.frame = frame

    def execute(self, command, where):
        return Readings({"image": self.frame} if isinstance(command, AcquireImage) else {}, *np.ones((4, 1)))

    def truth(self):
        return None


def milliseconds(work) -> float:
    began = time.perf_counter()
    work()
    return (time.perf_counter() - began) * 1e3


def bare(descriptor: int, size: int) -> None:
    files.write(descriptor, bytes(size))
    files.sync(descriptor)


def appends(folder: Path, count: int) -> dict[str, np.ndarray]:
    """Milliseconds of each kind of append and of its bare counterpart, taken in turn; (count,) each."""
    rng = np.random.default_rng(0)
    command = codec.command_to_json(SetAberrations(("C10", "C12.a", "C12.b"), rng.normal(size=(1, 3)) * 1e-9))
    tuned, seen = rng.normal(size=8).astype(np.float32), {"haadf": rng.integers(0, 255, (1, 64, 64)).astype(np.uint8), "budget": np.ones(1)}
    frame, one = rng.normal(size=(1, 256, 256)).astype(np.float32), np.ones(1, bool)
    recorder = Recorder(folder, {"benchmark": "records"})
    world, scan = RecordingWorld(Still(frame), recorder), AcquireImage("haadf", (256, 256), 5e-9, 1e-6, np.zeros(1))
    tune = SetAberrations(("C10",), np.zeros((1, 1)))
    descriptor = files.create(folder / "bare")
    kinds = {
        "intent": (lambda: recorder.append("state", {"command": command}), 700),
        "action of 8 numbers": (lambda: recorder.append("action", {}, {"action": tuned}), 500),
        "64 x 64 uint8 observation": (lambda: recorder.append("observation", {}, seen), 6200),
        "256 x 256 float32 frame": (lambda: recorder.append("observation", {}, {"image": frame}), frame.nbytes),
        "command: intent + result": (lambda: world.execute(tune, one), None),
        "command with frame": (lambda: world.execute(scan, one), None),
        "free-space check": (lambda: recorder.free_space(10**6), None),
    }
    spent: dict[str, list[float]] = {}
    for _ in range(count):
        for name, (work, size) in kinds.items():
            spent.setdefault(name, []).append(milliseconds(work))
            if size:
                spent.setdefault(f"bare, {name}", []).append(milliseconds(lambda size=size: bare(descriptor, size)))
    os.close(descriptor)
    recorder.close()
    return {name: np.array(values) for name, values in spent.items()}


def unsynced(folder: Path, count: int) -> np.ndarray:
    """Milliseconds of an append when nothing waits for the disk: our own share."""
    real, files.sync = files.sync, lambda _: None
    try:
        with Recorder(folder, {}) as recorder:
            return np.array([milliseconds(lambda: recorder.append("state", {"command": {"verb": "SetAberrations"}})) for _ in range(count)])
    finally:
        files.sync = real


def reading(folder: Path) -> dict[str, float]:
    """Seconds to check, to check the events alone, and to recover a copy; events and megabytes."""
    record = Record(folder)
    report, size = record.verify(), sum(path.stat().st_size for path in folder.iterdir())
    assert report.sound and not report.unknown
    told = {"events": report.events, "megabytes": size / 1e6, "verify_s": milliseconds(record.verify) / 1e3}
    told["verify_events_s"] = milliseconds(lambda: record.verify(frames=False)) / 1e3
    copy = shutil.copytree(folder, folder.with_name("copy"))
    lines = (copy / "events.jsonl").read_bytes()
    (copy / "events.jsonl").write_bytes(lines[:-40])
    told["recover_s"] = milliseconds(lambda: recover(copy)[0].close()) / 1e3
    return told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--appends", type=int, default=1000)
    parser.add_argument("--folder", type=Path, default=None, help="on the disk that is to be measured")
    parser.add_argument("--urgent", action="store_true", help="with real-time priority")
    given = parser.parse_args()
    if given.urgent:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(10))
    with tempfile.TemporaryDirectory(dir=given.folder) as scratch:
        spent = appends(Path(scratch), given.appends) | {"append without waiting": unsynced(Path(scratch) / "unsynced", given.appends)}
        (run,) = Path(scratch).glob("run-*")
        read = reading(run)
    quantiles = {name: np.percentile(values, [50, 90, 99]) for name, values in spent.items()}
    table("Milliseconds", ("what", "p50", "p90", "p99", "a second"), [(name, *map(float, q), round(1e3 / spent[name].mean())) for name, q in quantiles.items()])
    table("Reading", ("what", "value"), [(name, float(value)) for name, value in read.items()])
    json_line("records", urgent=given.urgent, milliseconds={name: {"p50": q[0], "p90": q[1], "p99": q[2]} for name, q in quantiles.items()}, reading=read)


if __name__ == "__main__":
    main()
