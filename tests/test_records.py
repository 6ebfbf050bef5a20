"""The record of a run: what was acknowledged is there, whatever was torn off, changed or forged after it."""

from __future__ import annotations

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
