"""The record of a run: what was acknowledged is there, whatever was torn off, changed or forged after it."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import shutil
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from probegym.hardware_bridge.records import Record, Recorder, RecordError, files, layout, read, recover, recovery

IMAGE = np.arange(40 * 32, dtype=np.float32).reshape(1, 40, 32)
SMALL = np.array([[1e-9, -2.5, np.nan]])


@pytest.fixture
def unsynced(monkeypatch):
    """Tests that write thousands of files wait for no disk."""
    for name in ("sync", "sync_file", "sync_folder"):
        monkeypatch.setattr(files, name, lambda *_: None)
        monkeypatch.setattr(f"probegym.hardware_bridge.records.recovery.{name}", lambda *_: None, raising=False)


def written(parent: Path, commands: int = 2, close: bool = False) -> Path:
    """A short run: intents and results with an array in the event and one in the segment."""
    recorder = Recorder(parent, {"scenario": "both", "limits": [1, 2.5]}, inline=4096)
    for number in range(commands):
        intent = recorder.append("intent", {"command": {"verb": "AcquireImage", "number": number}})
        recorder.append("result", {"intent": intent}, {"image": IMAGE + number, "small": SMALL})
    if close:
        recorder.close()
    else:
        recorder._lock.release()
    return recorder.folder


def content(record: Record) -> list:
    return [(event.seq, event.kind, event.payload, {name: array.tobytes() for name, array in record.arrays(event).items()}) for event in record]


def complaint(act, *arguments) -> str:
    with pytest.raises(RecordError) as caught:
        act(*arguments)
    message = str(caught.value)
    assert message and "\n" not in message and len(message) < 500
    return message


# ---- writing and reading ----


def test_events_come_back_as_they_were(tmp_path):
    before = time.time(), time.monotonic()
    folder = written(tmp_path, close=True)
    record = Record(folder)
    events = list(record)
    assert record.manifest == {"scenario": "both", "limits": [1, 2.5]} and record.run == folder.name
    assert [(e.seq, e.kind) for e in events] == [(0, "intent"), (1, "result"), (2, "intent"), (3, "result"), (4, "closed")]
    assert events[2].payload == {"command": {"verb": "AcquireImage", "number": 1}}
    assert all(before[0] <= e.t_wall <= time.time() and before[1] <= e.t_mono <= time.monotonic() for e in events)
    arrays = record.arrays(events[3])
    assert np.array_equal(arrays["image"], IMAGE + 1) and arrays["image"].dtype == np.float32 and arrays["image"].flags.writeable
    assert np.array_equal(arrays["small"], SMALL, equal_nan=True)
    report = record.verify()
    assert report.sound and report.closed and report.events == 5 and report.frames == 4 and not (report.unknown or report.torn or report.unnamed)


@pytest.mark.parametrize(
    "array",
    [np.array(3.5), np.array(True), np.zeros((0, 5)), np.arange(6, dtype=">i4").reshape(2, 3), np.arange(6).reshape(2, 3).T, np.array(["C10", "C12.a"]),
     np.zeros((1, 3000), np.float16), np.asfortranarray(np.random.default_rng(0).normal(size=(60, 70)))],
    ids=["number", "switch", "empty", "big-endian", "transposed", "text", "half", "fortran"],
)  # fmt: skip
def test_every_kind_of_array_comes_back(tmp_path, array):
    with Recorder(tmp_path, {}) as recorder:
        recorder.append("observation", {}, {"x": array})
    record = Record(recorder.folder)
    (back,) = record.arrays(next(iter(record))).values()
    assert back.dtype == array.dtype and back.shape == array.shape and np.array_equal(back, array)


def test_small_arrays_stand_in_the_event(tmp_path):
    with Recorder(tmp_path, {}) as recorder:
        recorder.append("action", {}, {"action": np.zeros(4096)})
        assert not list(recorder.folder.glob("seg-*"))
        recorder.append("observation", {}, {"image": np.zeros(4096), "budget": np.zeros(1)})
        assert 32768 < (recorder.folder / "seg-0000.bin").stat().st_size < 32768 + 200
    record = Record(recorder.folder)
    assert record.verify().frames == 3 and [f.name for f in list(record)[1].frames if f.data] == ["budget"]


def test_segments_are_filled_one_after_the_other(tmp_path):
    with Recorder(tmp_path, {}, segment=20_000, inline=4096) as recorder:
        for number in range(9):
            recorder.append("observation", {}, {"image": np.full(1000, number, float), "large": np.zeros(4000 if number == 4 else 1000)})
    sizes = [path.stat().st_size for path in sorted(recorder.folder.glob("seg-*"))]
    assert len(sizes) > 4 and sum(size > 20_000 for size in sizes) == 1  # one frame is larger than a segment
    record = Record(recorder.folder)
    assert record.verify().sound and [record.arrays(e)["image"][0] for e in list(record)[:9]] == list(range(9))


def test_an_event_is_acknowledged_after_it_is_on_the_disk(tmp_path, monkeypatch):
    recorder, calls = Recorder(tmp_path, {}, inline=4096), []
    monkeypatch.setattr(files, "write", lambda fd, data, _real=files.write: (calls.append(("write", fd)), _real(fd, data)))
    monkeypatch.setattr(files, "sync", lambda fd: calls.append(("sync", fd)))
    recorder.append("result", {}, {"image": IMAGE})
    frames, events = recorder._frames, recorder._events
    assert calls == [("write", frames), ("write", frames), ("sync", frames), ("write", events), ("sync", events)]
    calls.clear()
    recorder.append("result", {}, {"small": SMALL})
    assert calls == [("write", events), ("sync", events)]


def test_threads_append_at_once(tmp_path):
    recorder = Recorder(tmp_path, {})
    threads = [threading.Thread(target=lambda n=n: [recorder.append("state", {"thread": n, "count": i}) for i in range(25)]) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    record = Record(recorder.folder)
    assert record.verify().sound and sorted((e.payload["thread"], e.payload["count"]) for e in record) == [(n, i) for n in range(4) for i in range(25)]


def test_a_reader_may_look_while_it_is_written(tmp_path):
    recorder = Recorder(tmp_path, {})
    for number in range(3):
        recorder.append("state", {})
        assert Record(recorder.folder).verify().events == number + 1


def test_intents_without_result_are_told(tmp_path):
    recorder = Recorder(tmp_path, {})
    intents = [recorder.append("intent", {"command": {"verb": "PulseBias"}}) for _ in range(4)]
    for kind, intent in zip(("result", "refused", "settled"), intents, strict=False):
        recorder.append(kind, {"intent": intent})
    assert Record(recorder.folder).verify().unknown == (intents[3],)
    recorder.append("fault", {"intent": intents[3], "reason": "no answer"})
    report = Record(recorder.folder).verify()
    assert report.unknown == (3,) and report.sound and "outcome unknown of 1 intents: 3" in str(report)


@pytest.mark.parametrize("intent", [0, 7, None, "0"])
def test_a_result_answers_one_open_intent(tmp_path, intent):
    recorder = Recorder(tmp_path, {})
    recorder.append("result", {"intent": recorder.append("intent", {})})
    recorder.append("result", {"intent": intent})
    assert "not open" in Record(recorder.folder).verify().errors[0]


def test_what_was_refused_before_it_was_sent_settles_nothing(tmp_path):
    recorder = Recorder(tmp_path, {})
    recorder.append("intent", {})
    recorder.append("refused", {"reason": "C10 is outside its limits"})
    report = Record(recorder.folder).verify()
    assert report.sound and report.unknown == (0,)


# ---- what cannot be recorded ----


@pytest.mark.parametrize(
    ("kind", "payload", "arrays"),
    [("Intent", {}, None), ("", {}, None), ("in tent", {}, None), ("intent", {"x": float("nan")}, None), ("intent", {"x": object()}, None),
     ("intent", {"x": "a" * 5_000_000}, None), ("result", {}, {"a/b": SMALL}), ("result", {}, {"../x": SMALL}), ("result", {}, {"": SMALL}),
     ("result", {}, {"x": np.array([object()])}), ("result", {}, {"x": np.zeros(3, "f8,i4")}), ("result", {}, {"x": np.zeros((1,) * 20)}),
     ("result", {}, {f"x{n}": SMALL for n in range(300)}), ("result", {}, {"x": np.broadcast_to(np.float64(0), (2**26,))})],
)  # fmt: skip
def test_arguments_that_do_not_fit_are_refused_and_nothing_is_written(tmp_path, kind, payload, arrays):
    recorder = Recorder(tmp_path, {})
    complaint(recorder.append, kind, payload, arrays)
    assert recorder.append("state", {}) == 0
    assert [event.kind for event in Record(recorder.folder)] == ["state"]


def test_a_circle_is_refused(tmp_path):
    circle: dict = {}
    circle["self"] = circle
    complaint(Recorder(tmp_path, {}).append, "state", circle)


@pytest.mark.parametrize("manifest", [{"x": float("inf")}, {"x": object()}])
def test_a_manifest_that_is_no_json_leaves_no_folder(tmp_path, manifest):
    complaint(Recorder, tmp_path, manifest)
    assert not list(tmp_path.iterdir())


# ---- a torn end ----


def test_every_cut_leaves_a_valid_beginning(tmp_path, unsynced):
    """P8: whatever byte the events are cut at, the whole events before it are read, recovered and continued."""
    folder = written(tmp_path / "whole")
    whole, events = (folder / "events.jsonl").read_bytes(), content(Record(folder))
    ends = [place + 1 for place, byte in enumerate(whole) if byte == 10]
    for cut in range(len(whole) + 1):
        (folder / "events.jsonl").write_bytes(whole[:cut])
        kept = sum(end <= cut for end in ends)
        report = Record(folder).verify()
        assert report.sound and report.events == kept and bool(report.torn) == (cut not in [0, *ends]), cut
        assert content(Record(folder)) == events[:kept]
        if cut % 25 == 0 or cut in ends:
            recovered(folder, whole[:cut], events[:kept], tmp_path / "copy")


def recovered(folder: Path, remains: bytes, events: list, copy: Path) -> None:
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(folder, copy)
    recorder, before = recover(copy)
    with recorder:
        intent = recorder.append("intent", {"command": {"verb": "SetAberrations"}})
        recorder.append("result", {"intent": intent}, {"image": np.repeat(IMAGE, 9, 0)})
    assert before.events == len(events) and (copy / "events.jsonl").read_bytes() == remains  # nothing was cut off
    record = Record(copy)
    report = record.verify()
    assert report.sound and report.closed and report.unknown == before.unknown
    now = content(record)
    assert now[: len(events)] == events and [kind for _, kind, *_ in now[len(events) :]] == ["recovered", "intent", "result", "closed"]
    assert now[len(events)][2]["unknown"] == list(before.unknown)


def test_a_frame_that_is_cut_is_found(tmp_path):
    folder = written(tmp_path)
    segment = folder / "seg-0000.bin"
    whole = segment.read_bytes()
    for cut in (0, 10, len(whole) // 2 - 1, len(whole) // 2 + 30, len(whole) - 1):
        segment.write_bytes(whole[:cut])
        report = Record(folder).verify()
        assert len(report.errors) == 1 + (cut < len(whole) // 2) and "cut off" in report.errors[0]
        assert complaint(content, Record(folder)) == report.errors[0]
    segment.unlink()
    assert "seg-0000.bin" in Record(folder).verify().errors[0]


def test_a_frame_without_event_is_no_fault(tmp_path):
    folder = written(tmp_path)
    with open(folder / "seg-0000.bin", "ab") as stream:
        stream.write(b"PGf1" + bytes(100))
    report = Record(folder).verify()
    assert report.sound and report.unnamed == 104
    recorder, _ = recover(folder)
    with recorder:
        recorder.append("state", {}, {"image": np.repeat(IMAGE, 9, 0)})
    assert recorder.folder == folder and (folder / "seg-0001.bin").exists() and Record(folder).verify().sound


def test_recovery_after_recovery(tmp_path):
    folder = written(tmp_path)
    for part in range(3):
        path = folder / layout.part_name(part)
        with open(path, "ab") as stream:
            stream.write(b'{"seq":99,"t_w')
        recorder, report = recover(folder)
        assert len(report.torn) == part + 1
        recorder.append("state", {"part": part})
        recorder._lock.release()
    (folder / "events-0004.jsonl").touch()  # a recovery that was cut off before its first event
    recorder, _ = recover(folder)
    recorder.close()
    assert recorder.folder.joinpath("events-0005.jsonl").exists()
    report = Record(folder).verify()
    assert report.sound and report.closed and len(report.torn) == 3
    assert [event.kind for event in Record(folder)][4:] == ["recovered", "state"] * 3 + ["recovered", "closed"]


def test_the_evidence_of_a_torn_end_cannot_be_changed(tmp_path):
    folder = written(tmp_path)
    with open(folder / "events.jsonl", "ab") as stream:
        stream.write(b'{"seq":4,"t_w')
    recover(folder)[0].close()
    assert Record(folder).verify().sound
    remains = (folder / "events.jsonl").read_bytes()
    for changed in (remains[:-1], remains + b" ", remains[:-1] + b"W"):
        (folder / "events.jsonl").write_bytes(changed)
        assert "recovered" in Record(folder).verify().errors[0]


def test_a_file_after_a_recovery_begins_with_its_account(tmp_path):
    folder = written(tmp_path)
    scan = read.Scan(Record(folder))
    list(scan)
    for kind, sound in (("state", False), ("recovered", True)):
        (folder / "events-0001.jsonl").write_bytes(layout.line(scan.seq, 0.0, 0.0, kind, '{"tails":[]}', [], scan.head)[0])
        assert Record(folder).verify().sound is sound


def test_recovery_chains_to_what_is_on_the_disk(tmp_path, monkeypatch):
    """A line that the killed writer had not waited for may be in memory only."""
    folder, synced = written(tmp_path), []
    monkeypatch.setattr(recovery, "sync_file", lambda path: synced.append((path.name, (folder / "events-0001.jsonl").exists())))
    recover(folder)[0].close()
    assert sorted(synced) == [("events.jsonl", False), ("seg-0000.bin", False)]


def test_a_torn_end_of_zeros_is_tolerated(tmp_path):
    """A file system may give a file its new size before its content."""
    folder = written(tmp_path)
    with open(folder / "events.jsonl", "ab") as stream:
        stream.write(bytes(700))
    assert Record(folder).verify().sound
    recover(folder)[0].close()
    assert Record(folder).verify().closed


def test_a_record_that_was_closed_is_not_continued(tmp_path):
    assert "closed" in complaint(recover, written(tmp_path, close=True))


# ---- damage ----


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
