"""Records of the right checksums that say anything at all: every reader answers, or refuses in one line."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from probegym.errors import ProbeGymError
from probegym.hardware_bridge import codec
from probegym.hardware_bridge.commands import AcquireImage, Readings
from probegym.hardware_bridge.records import Record, Recorder, files
from probegym.hardware_bridge.records.export import FORMATS, export
from probegym.hardware_bridge.records.replay import RecordWorld, compare, recorded_command
from probegym.hardware_bridge.records.steps import about, episodes, judged
from probegym.hardware_bridge.world import Refused

HERE = np.ones(1, bool)
BOX = {"type": "Box", "dtype": "float32", "shape": [2], "low": [None, 0.0], "high": 1.0}
SPACES = {"observation": {"type": "Dict", "subspaces": {"a": BOX}}, "action": {"type": "Discrete", "dtype": "int64", "start": 0, "n": 5}}
COMMAND = codec.command_to_json(AcquireImage("haadf", (4, 6), 3e-9, 1e-6, np.zeros(1)))
IMAGE, OBSERVATION = np.zeros((1, 4, 6), np.float32), {"a": np.zeros(2, np.float32)}
EVENTS: list[tuple[str, dict[str, Any], dict[str, np.ndarray]]] = [
    ("begin", {"key": 3, "seed": 5, "environment": "probegym/StemTuning-v0", "scenario": "both", "spaces": SPACES}, {}),
    ("observation", {}, OBSERVATION),
    ("action", {}, {"action": np.array(2)}),
    ("intent", {"command": COMMAND, "where": [True]}, {}),
    ("result", {"intent": 3, "readings": {"values": ["axis", "haadf"], "costs": {n: [1.0] for n in Readings.COSTS}}}, {"haadf": IMAGE, "axis": np.arange(5.0)[None]}),
    ("truth", {}, {"hidden": np.zeros(1)}),
    ("intent", {"command": COMMAND}, {}),
    ("refused", {"intent": 6, "reason": "no"}, {}),
    ("observation", {}, OBSERVATION),
    ("reward", {"reward": 1.0, "terminated": True, "truncated": False}, {}),
    ("would", {"command": COMMAND, "action": 1}, {}),
    ("observed", {"verb": "AcquireImage", "number": 1}, {"haadf": IMAGE}),
]  # fmt: skip
WRONG: list[Any] = [None, True, -1, 1.5, 10**400, "x\ny\ud800\0", [], [[1], [2, 3]], {}, {"a": 1}]
SHARE = 3
ARRAYS = [np.zeros(0), np.array(1.0), np.zeros((2, 2)), np.array([["a", "b", "c", "d", "e"]]), np.full((1, 5), np.inf), np.array([[-1e308, 0, 1, 2, 1e308]]),
          np.zeros((1, 0)), np.zeros((1, 4, 0)), np.zeros((1,) * 16), np.zeros((1, 4, 6), ">f4")]  # fmt: skip


class Camera:
    lanes = 1

    def begin(self, keys, where):
        pass

    def execute(self, command, where):
        return Readings({"haadf": np.zeros((1, *command.shape), np.float32)}, *np.ones((4, 1)))

    def truth(self):
        return None


def play(folder: Path) -> None:
    """As a task that gives the recorded commands."""
    world = RecordWorld(folder)
    for exchange in world.exchanges:
        if not exchange.verb:
            world.begin(np.zeros(1, np.uint64), HERE)
            continue
        try:
            assert world.execute(*recorded_command(world.record, exchange)).values["haadf"] is not None
        except Refused:
            pass
        world.truth()


READERS = {to: (lambda folder, to=to: export(folder, to)) for to in FORMATS} | {
    "play": play, "compare": lambda folder: compare(folder, Camera()), "about": lambda folder: about(Record(folder)),
    "judged": lambda folder: judged(Record(folder)), "episodes": lambda folder: list(episodes(Record(folder))),
}  # fmt: skip


def places(content: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in JSON but the whole."""
    for key in content if isinstance(content, dict) else range(len(content)) if isinstance(content, list) else ():
        yield (*at, key)
        yield from places(content[key], (*at, key))


def changed(content: Any, at: tuple[Any, ...], value: Any) -> Any:
    content = copy.copy(content)
    content[at[0]] = changed(content[at[0]], at[1:], value) if at[1:] else value
    return content


def read(folder: Path, *event: Any, number: int) -> dict[str, str]:
    """What each reader says of the record with one event in the place of another; empty where it is content."""
    with Recorder(folder, {"sample": "Si"}) as recorder:
        for one in [*EVENTS[:number], event, *EVENTS[number + 1 :]]:
            recorder.append(*one)
    told = {}
    for name, reader in READERS.items():
        try:
            reader(recorder.folder)
            told[name] = ""
        except ProbeGymError as error:
            told[name] = str(error)
            assert told[name].isprintable() and len(told[name]) < 1500, (name, event, told[name])
        except Exception as error:
            raise AssertionError((name, *event)) from error
    assert not [path for path in folder.iterdir() if path.name.startswith(".")], "no export leaves anything half-written"
    shutil.rmtree(folder)
    return told


@pytest.fixture(autouse=True)
def hurried(monkeypatch):
    """Nothing here is about what the disk has."""
    for name in ("sync", "sync_folder", "sync_file"):
        monkeypatch.setattr(files, name, lambda _: None)


def test_the_record_itself_is_read_by_all(tmp_path):
    assert not any(read(tmp_path / "a", *EVENTS[0], number=0).values())


@pytest.mark.parametrize("number", [n for n, (_, payload, _) in enumerate(EVENTS) if payload and n not in (6, 10)], ids=lambda n: EVENTS[n][0])
def test_payloads_may_say_anything(tmp_path, number):
    kind, payload, arrays = EVENTS[number]
    for turn, at in enumerate(places(payload)):  # neighbours are alike: each place has its share of what is wrong
        for value in WRONG[turn % SHARE :: SHARE]:
            read(tmp_path / "a", kind, changed(payload, at, value), arrays, number=number)


@pytest.mark.parametrize("number", [n for n, (_, _, arrays) in enumerate(EVENTS) if arrays], ids=lambda n: EVENTS[n][0])
def test_arrays_may_be_of_any_kind(tmp_path, number):
    kind, payload, arrays = EVENTS[number]
    for name in arrays:
        for array in ARRAYS:
            read(tmp_path / "a", kind, payload, arrays | {name: array}, number=number)


def test_what_cannot_be_is_refused_by_those_that_read_it(tmp_path):
    def refusing(number: int, *at: Any, value: Any) -> set[str]:
        kind, payload, arrays = EVENTS[number]
        return {name for name, why in read(tmp_path / "a", kind, changed(payload, at, value), arrays, number=number).items() if why}

    assert refusing(0, "environment", value=["x"]) == refusing(0, "scenario", value=3) == {"about"}
    assert refusing(0, "seed", value=-1) == {"about", "minari"} and refusing(0, "key", value=-1) == {"compare"}
    assert refusing(0, "spaces", value=3) == refusing(0, "spaces", "action", "n", value=0) == {"minari"}
    assert refusing(9, "reward", value=10**400) == refusing(9, "terminated", value=1) == {"minari"}
    assert refusing(4, "readings", value={}) == {"hspy", "nxs", "play", "compare"}
    assert refusing(11, "verb", value="../x") == {"hspy", "nxs"}
