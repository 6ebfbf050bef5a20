"""Records that were damaged or forged: found, told in one line with the place, and never taken into memory unchecked."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import time
from pathlib import Path

import numpy as np
import pytest

from probegym.hardware_bridge.records import Record, RecordError, layout, read, recover
from tests.test_records import complaint, content, written


@pytest.mark.parametrize("name", ["events.jsonl", "seg-0000.bin"])
def test_a_disk_that_cannot_be_read_is_told(tmp_path, monkeypatch, name):
    folder = written(tmp_path)

    class Bad(io.BytesIO):
        def readline(self, *_):
            raise OSError(errno.EIO, "Input/output error")

        read = readline

        def fileno(self):
            return os.open(folder / name, os.O_RDONLY)

    real = read.opened
    monkeypatch.setattr(read, "opened", lambda path: Bad() if path.name == name else real(path))
    assert "Input/output error" in Record(folder).verify().errors[0]
    complaint(content, Record(folder))


def test_every_changed_byte_is_found(tmp_path):
    folder, rng = written(tmp_path, commands=1, close=True), np.random.default_rng(0)
    for path in sorted(folder.glob("*.*")):
        whole = path.read_bytes()
        for place in range(len(whole)) if path.suffix != ".bin" else [*range(120), *rng.integers(120, len(whole), 200)]:
            damaged = bytearray(whole)
            damaged[place] ^= 1 << int(rng.integers(8))
            path.write_bytes(damaged)
            try:
                report = Record(folder).verify()
            except RecordError:
                assert path.name == "manifest.json"
            else:
                torn = path.suffix == ".jsonl" and place == len(whole) - 1 and report.torn
                assert torn or not report.sound, (path.name, place)
        path.write_bytes(whole)
    assert Record(folder).verify().sound


def test_damage_is_told_with_its_place_and_what_is_before_it_is_read(tmp_path):
    folder = written(tmp_path)
    path = folder / "events.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:2], lines[2].replace(b"AcquireImage", b"AcquireImbge"), *lines[3:]]))
    record, seen = Record(folder), []
    with pytest.raises(RecordError, match=f"event 2, events.jsonl byte {len(lines[0] + lines[1])}: its checksum differs"):
        for event in record:
            seen.append(event.seq)
    assert seen == [0, 1]
    assert "start a new record" in complaint(recover, folder)


def test_the_last_line_is_passed_over_when_it_is_complete_but_wrong(tmp_path):
    """Pages of one line may reach the disk in any order: the line is not believed, and kept."""
    folder = written(tmp_path)
    path = folder / "events.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole[:-200] + bytes(100) + whole[-100:])
    assert "damaged at event 3" in Record(folder).verify().errors[0]
    recorder, report = recover(folder)
    recorder.close()
    assert report.events == 3 and report.unknown == (2,) and Record(folder).verify().sound


def rewritten(folder: Path, change) -> None:
    """Forge the record: change its events and give every line a checksum that fits."""
    path, head = folder / "events.jsonl", Record(folder).anchor
    events = change([json.loads(line) for line in path.read_text().splitlines()])
    with open(path, "wb") as stream:
        for event in events:
            names = ("seq", "t_wall", "t_mono", "kind")
            text, head = layout.line(*(event[n] for n in names), json.dumps(event["payload"]), event["frames"], event.get("head", head))
            stream.write(text)


@pytest.mark.parametrize("change", [lambda e: e[1:], lambda e: e[:1] + e[2:], lambda e: [e[1], e[0], *e[2:]], lambda e: [*e, e[-1]],
                                    lambda e: [e[0], e[1] | {"head": "0" * 64}, *e[2:]]], ids=["first", "missing", "order", "twice", "chain"])  # fmt: skip
def test_events_that_do_not_follow_are_found(tmp_path, change):
    folder = written(tmp_path)
    rewritten(folder, change)
    assert "does not follow" in Record(folder).verify().errors[0]


def changed_frame(**entries):
    def change(events):
        next(f for f in events[1]["frames"] if "segment" in f).update(entries)
        return events

    return change


@pytest.mark.parametrize(
    "change",
    [changed_frame(length=2**31, shape=[1, 2**29]), changed_frame(length=2**61), changed_frame(length=20), changed_frame(shape=[2**40, 2**40]), changed_frame(shape=[-1]),
     changed_frame(shape="4"), changed_frame(offset=2**40), changed_frame(offset=-1), changed_frame(segment=7), changed_frame(name="../x"),
     changed_frame(name="a/b"), changed_frame(name="small"), changed_frame(dtype="|O"), changed_frame(dtype="<f8"), changed_frame(dtype="f8,f8"),
     changed_frame(dtype=[["a", "<f8"]]), changed_frame(dtype="<U0", shape=[2**28]), changed_frame(data="AAAA"), changed_frame(crc=1.5),
     changed_frame(shape=[0, 2**60, 2**60], length=20)],
)  # fmt: skip
def test_frames_that_lie_are_refused(tmp_path, change):
    folder = written(tmp_path)
    rewritten(folder, change)
    assert Record(folder).verify().errors
    complaint(content, Record(folder))


INSIDE = {"name": "x", "dtype": "<f8", "shape": [1], "data": "AAAAAAAA8D8="}
OUTSIDE = {"name": "x", "dtype": "<f8", "shape": [1], "segment": 0, "offset": 0, "length": 99, "crc": 0}


@pytest.mark.parametrize(
    ("frames", "told"),
    [([INSIDE | {"name": "../x"}], "name"), ([INSIDE | {"name": 3}], "name"), ([INSIDE | {"dtype": "float64"}], "type"), ([INSIDE | {"dtype": "|O"}], "type"),
     ([INSIDE | {"dtype": "<U0", "shape": [2**28], "data": ""}], "type"), ([INSIDE | {"shape": [1] * 17}], "shape"), ([INSIDE | {"shape": [True]}], "shape"),
     ([INSIDE, INSIDE], "twice"), ([INSIDE | {"name": f"x{n}"} for n in range(257)], "more than"), ([OUTSIDE | {"shape": [2**26]}], "more than"),
     ([INSIDE | OUTSIDE], "nowhere"), ([OUTSIDE | {"crc": -1}], "nowhere"), ([OUTSIDE | {"more": 1}], "nowhere"), ([3], "described"), ([None], "described")],
)  # fmt: skip
def test_lines_that_lie_about_arrays_are_refused(frames, told):
    text, _ = layout.line(0, 0.0, 0.0, "state", "{}", frames, "0" * 64)
    assert told in complaint(layout.parse, text, (0, 0))


@pytest.mark.parametrize("entry", [INSIDE | {"data": "AAAA"}, INSIDE | {"data": "???"}, INSIDE | {"shape": [2]}, INSIDE | {"shape": [0, 2**60], "data": ""}])
def test_arrays_in_a_line_that_lie_are_refused(entry):
    text, _ = layout.line(0, 0.0, 0.0, "state", "{}", [entry], "0" * 64)
    complaint(lambda: layout.unpacked(layout.parse(text, (0, 0)).frames[0]))


def test_a_line_of_an_honest_array_is_taken():
    text, _ = layout.line(0, 0.0, 0.0, "state", "{}", [INSIDE], "0" * 64)
    assert layout.unpacked(layout.parse(text, (0, 0)).frames[0]) == [1.0]


@pytest.mark.parametrize("changed", [{"seq": -1}, {"seq": True}, {"seq": 1.0}, {"t_wall": "x"}, {"t_mono": 1}, {"kind": "A b"}, {"kind": 3}, {"payload": []},
                                     {"frames": {}}, {"prev_hash": 3}, {"more": 1}])  # fmt: skip
def test_lines_that_are_no_events_are_refused(changed):
    told = {"seq": 0, "t_wall": 0.0, "t_mono": 0.0, "kind": "state", "payload": {}, "frames": [], "prev_hash": ""} | changed
    body = json.dumps(told)[:-1].encode()
    complaint(layout.parse, body + layout.HASH + hashlib.sha256(body).hexdigest().encode() + b'"}\n', (0, 0))


def test_no_frame_is_named_twice(tmp_path):
    """A short record must not become many large arrays."""
    folder = written(tmp_path)
    rewritten(folder, lambda events: [*events[:3], events[3] | {"frames": [events[1]["frames"][1] | {"name": f"x{n}"} for n in range(200)]}])
    assert "where another one is" in Record(folder).verify().errors[0]


@pytest.mark.parametrize("payload", ['{"x":NaN}', '{"x":-Infinity}', '{"x":' + "[" * 100_000 + "]" * 100_000 + "}", '{"x":1,"x":2}', "[]", "3", '{"x":'])
def test_json_that_is_none_is_refused(tmp_path, payload):
    folder = written(tmp_path)
    events = (folder / "events.jsonl").read_bytes().splitlines(keepends=True)
    forged, _ = layout.line(4, 0.0, 0.0, "state", payload, [], json.loads(events[-1])["hash"])
    with open(folder / "events.jsonl", "ab") as stream:
        stream.write(forged)
    assert "damaged at event 4" in complaint(content, Record(folder))


@pytest.mark.parametrize("name", ["events.jsonl", "manifest.json", "seg-0000.bin"])
def test_two_gigabytes_are_not_taken_into_memory(tmp_path, name):
    resource = pytest.importorskip("resource")
    folder = written(tmp_path)
    os.truncate(folder / name, 2**31)
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    if name == "manifest.json":
        complaint(Record, folder)
    else:
        report = Record(folder).verify()
        assert report.unnamed > 2e9 if name == "seg-0000.bin" else "damaged at event 4" in report.errors[0]
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000 and time.monotonic() - began < 20


@pytest.mark.parametrize("text", [b"", b"[]", b"{}", b'{"format":99,"run":"x","manifest":{}}', b'{"format":1,"run":"x","manifest":3}', b"\xff\xfe", b"[" * 9999])
def test_a_manifest_that_is_none_is_refused(tmp_path, text):
    folder = written(tmp_path)
    (folder / "manifest.json").write_bytes(text)
    assert str(folder) in complaint(Record, folder)


def test_a_folder_that_is_no_record_is_refused(tmp_path):
    assert str(tmp_path) in complaint(Record, tmp_path) and "nothing" in complaint(Record, tmp_path / "nothing")
    folder = written(tmp_path)
    (folder / "events.jsonl").rename(folder / "events-0001.jsonl")
    assert "lacks events.jsonl" in complaint(Record, folder)


@pytest.mark.parametrize("name", ["events.jsonl", "manifest.json", "seg-0000.bin"])
@pytest.mark.parametrize("kind", ["link", "pipe", "folder"])
def test_only_plain_files_are_opened(tmp_path, name, kind):
    folder = written(tmp_path)
    (folder / name).rename(tmp_path / "elsewhere")
    {"link": lambda p: p.symlink_to(tmp_path / "elsewhere"), "pipe": os.mkfifo, "folder": Path.mkdir}[kind](folder / name)
    complaint(lambda: content(Record(folder)))
