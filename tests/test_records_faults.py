"""Faults while a record is written: the process killed, the disk full, the folder gone, two writers, a signal."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from probegym.errors import ProbeGymError
from probegym.hardware_bridge.records import Record, Recorder, RecordError, files, recover
from tests.helpers import ROOT

FRAME = np.arange(9000, dtype=np.float32)
posix = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX processes")


def script(code: str, *arguments) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True, cwd=ROOT, timeout=120)


# ---- killed ----

KILLED = """
import os, random, signal, sys, time
import numpy as np
from probegym.hardware_bridge.records import Recorder
frame, draw = np.arange(9000, dtype=np.float32), random.Random(1)
for trial in range(40):
    read, write = os.pipe()
    child = os.fork()
    if not child:
        os.close(read)
        recorder = Recorder(sys.argv[1] + f"/{trial}", {}, segment=100_000)
        while True:
            number = recorder.append("observation", {"x": recorder.seq}, {"frame": frame + recorder.seq} if recorder.seq % 2 else None)
            os.write(write, number.to_bytes(4, "big"))
    os.close(write)
    wanted, acknowledged = draw.randrange(1, 40), b""
    while len(acknowledged) < 4 * wanted:
        acknowledged += os.read(read, 4096)
    time.sleep(draw.random() * 3e-3)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    while more := os.read(read, 65536):
        acknowledged += more
    os.close(read)
    print(trial, int.from_bytes(acknowledged[-4:], "big"))
"""


@posix
def test_nothing_acknowledged_is_lost_when_the_writer_is_killed(tmp_path):
    done = script(KILLED, tmp_path)
    assert done.returncode == 0, done.stderr
    trials = [line.split() for line in done.stdout.splitlines()]
    assert len(trials) == 40
    for trial, last in trials:
        (folder,) = (tmp_path / trial).glob("run-*")
        recorder, before = recover(folder)
        recorder.close()
        assert before.sound and before.events > int(last)
        record = Record(folder)
        assert record.verify().sound
        for event in list(record)[: int(last) + 1]:
            arrays = record.arrays(event)
            assert event.payload == {"x": event.seq} and (event.seq % 2 == 0 or np.array_equal(arrays["frame"], FRAME + event.seq))


# ---- the disk ----

FULL = """
import json, resource, sys
import numpy as np
from probegym.hardware_bridge.records import Recorder, RecordError
recorder, told, number = Recorder(sys.argv[1], {}), [], 0
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), int(sys.argv[2])))
while len(told) < 3:
    try:
        recorder.append("state", {"number": number}, {"frame": np.zeros(5000)} if sys.argv[3] == "frames" else None)
        number += 1
    except RecordError as error:
        told.append(str(error))
recorder.close()
print(json.dumps([number, told]))
"""


@posix
@pytest.mark.parametrize("kind", ["events", "frames"])
@pytest.mark.parametrize("limit", [90_000, 90_001, 110_123])
def test_a_full_disk_is_a_fault_that_stays(tmp_path, kind, limit):
    done = script(FULL, tmp_path, limit, kind)
    assert done.returncode == 0, done.stderr
    number, told = json.loads(done.stdout)
    assert "nothing more is recorded" in told[0] and all("failed before" in text and "safe state" in text for text in told[1:])
    (folder,) = tmp_path.iterdir()
    assert not any(path.stat().st_size > limit for path in folder.iterdir())
    report = Record(folder).verify()
    assert report.sound and report.events == number > 0 and not report.closed
    recorder, _ = recover(folder)  # there is room again
    assert recorder.append("state", {}) == number + 1
    recorder.close()
    assert Record(folder).verify().sound


def failing(monkeypatch, where: str, nth: int, fault) -> None:
    """Let the nth call of an os function act otherwise."""
    real, calls = getattr(os, where), []

    def act(*arguments, **options):
        calls.append(arguments)
        return fault(real, *arguments, **options) if len(calls) == nth else real(*arguments, **options)

    monkeypatch.setattr(os, where, act)


def error_of(number):
    def fault(*_, **__):
        raise OSError(number, os.strerror(number))

    return fault


def short(real, descriptor, data):
    return real(descriptor, bytes(data)[: len(data) // 2])


def interrupted(*_, **__):
    raise KeyboardInterrupt


def after(real, *arguments):
    real(*arguments)
    raise KeyboardInterrupt


SYNC = "fdatasync" if hasattr(os, "fdatasync") else "fsync"


@pytest.mark.parametrize(("where", "nth", "fault"), [
    ("write", 1, short), ("write", 2, short), ("write", 3, short), ("write", 1, error_of(errno.ENOSPC)), ("write", 3, error_of(errno.EIO)),
    (SYNC, 1, error_of(errno.EIO)), (SYNC, 2, error_of(errno.EIO)), ("open", 1, error_of(errno.EROFS)), ("fstat", 2, error_of(errno.ESTALE)),
])  # fmt: skip
def test_any_fault_of_the_disk_is_told_and_stays(tmp_path, monkeypatch, where, nth, fault):
    recorder = Recorder(tmp_path, {})
    recorder.append("state", {})
    failing(monkeypatch, where, nth, fault)
    with pytest.raises(RecordError, match="nothing more is recorded"):
        recorder.append("observation", {}, {"frame": FRAME})
    monkeypatch.undo()
    with pytest.raises(RecordError, match="failed before"):
        recorder.append("state", {})
    assert recorder.seq == 1
    recorder.close()
    with pytest.raises(RecordError):
        recorder.append("state", {})
    assert Record(recorder.folder).verify().sound
    after, report = recover(recorder.folder)
    after.append("observation", {}, {"frame": FRAME})
    after.close()
    assert report.events in (1, 2) and Record(recorder.folder).verify().sound


@pytest.mark.parametrize(("where", "nth", "fault"), [("write", 1, interrupted), ("write", 3, after), (SYNC, 1, after), (SYNC, 2, interrupted)])
def test_a_signal_in_the_middle_leaves_no_recorder_that_goes_on(tmp_path, monkeypatch, where, nth, fault):
    recorder = Recorder(tmp_path, {})
    failing(monkeypatch, where, nth, fault)
    with pytest.raises(KeyboardInterrupt):
        recorder.append("observation", {}, {"frame": FRAME})
    monkeypatch.undo()
    with pytest.raises(RecordError, match="KeyboardInterrupt"):
        recorder.append("state", {})
    recorder.close()
    recover(recorder.folder)[0].close()
    assert Record(recorder.folder).verify().sound


@pytest.mark.parametrize("name", ["events.jsonl", "seg-0000.bin"])
@pytest.mark.parametrize("deed", ["delete", "cut", "write"])
def test_files_that_somebody_else_changes_are_noticed(tmp_path, name, deed):
    recorder = Recorder(tmp_path, {})
    recorder.append("observation", {}, {"frame": FRAME})
    path = recorder.folder / name
    if deed == "delete":
        path.unlink()
    else:
        os.truncate(path, path.stat().st_size + (7 if deed == "write" else -7))
    with pytest.raises(RecordError, match="somebody else"):
        recorder.append("observation", {}, {"frame": FRAME})


def test_free_space_is_told_before_the_run(tmp_path, monkeypatch):
    recorder = Recorder(tmp_path, {})
    assert recorder.free_space(1000) == pytest.approx(shutil.disk_usage(tmp_path).free, rel=0.2)
    with pytest.raises(RecordError, match="free space"):
        recorder.free_space(10**18)
    recorder.append("state", {})  # that was a question, not a fault
    monkeypatch.setattr(shutil, "disk_usage", error_of(errno.EIO))
    with pytest.raises(RecordError, match="out of reach"):
        recorder.free_space(1)


# ---- the folder ----


def test_a_parent_that_is_no_folder_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    for parent in (tmp_path / "file", tmp_path / "file" / "deeper"):
        with pytest.raises(RecordError, match="choose another folder"):
            Recorder(parent, {})


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES])
def test_a_folder_that_may_not_be_written_is_refused_and_can_be_read(tmp_path, monkeypatch, number):
    recorder = Recorder(tmp_path, {})
    recorder.append("state", {})
    recorder._lock.release()
    for name in ("open", "mkdir"):
        monkeypatch.setattr(os, name, error_of(number))
    for act in (lambda: Recorder(tmp_path, {}), lambda: recover(recorder.folder)):
        with pytest.raises(RecordError, match=os.strerror(number)):
            act()
    assert Record(recorder.folder).verify().sound


@pytest.mark.parametrize("nth", [1, 2, 3])
def test_a_record_that_cannot_be_begun_leaves_nothing(tmp_path, monkeypatch, nth):
    failing(monkeypatch, "open", nth, error_of(errno.ENOSPC))
    with pytest.raises(RecordError, match="No space left"):
        Recorder(tmp_path, {})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("nth", [1, 2])
def test_a_recovery_that_fails_can_be_repeated(tmp_path, monkeypatch, nth):
    recorder = Recorder(tmp_path, {})
    recorder.append("state", {})
    recorder._lock.release()
    failing(monkeypatch, "write", 1, short if nth == 1 else error_of(errno.ENOSPC))
    with pytest.raises(RecordError):
        recover(recorder.folder)
    monkeypatch.undo()
    recover(recorder.folder)[0].close()
    report = Record(recorder.folder).verify()
    assert report.sound and report.events == 3


# ---- one writer ----


def test_two_writers_are_one_too_many(tmp_path):
    recorder = Recorder(tmp_path, {})
    with pytest.raises(RecordError, match="another process"):
        recover(recorder.folder)
    done = script("import sys\nfrom probegym.hardware_bridge.records import recover\nrecover(sys.argv[1])", recorder.folder)
    assert done.returncode and "another process" in done.stderr
    assert recorder.append("state", {}) == 0 and sorted(p.name for p in recorder.folder.glob("events*")) == ["events.jsonl"]
    recorder.close()


def test_the_lock_is_not_handed_to_child_processes(tmp_path):
    recorder = Recorder(tmp_path, {})
    child = subprocess.Popen([sys.executable, "-c", "import sys; print(1, flush=True); sys.stdin.read()"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    child.stdout.readline()
    recorder._lock.release()
    recover(recorder.folder)[0].close()
    child.communicate()


def test_runs_of_one_second_have_folders_of_their_own(tmp_path):
    recorders = [Recorder(tmp_path, {}, wall=lambda: 1.7e9) for _ in range(5)]
    assert len({recorder.folder for recorder in recorders}) == 5 and all(r.folder.name.startswith("run-20231114T221320Z-") for r in recorders)


def test_a_recorder_that_was_closed_refuses(tmp_path):
    recorder = Recorder(tmp_path, {})
    recorder.close()
    recorder.close()
    with pytest.raises(RecordError, match="it was closed"):
        recorder.append("state", {})
    assert [event.kind for event in Record(recorder.folder)] == ["closed"]


def test_errors_are_those_of_the_project():
    assert issubclass(RecordError, ProbeGymError)


def test_a_short_write_is_an_error(tmp_path, monkeypatch):
    descriptor = files.create(Path(tmp_path) / "x")
    failing(monkeypatch, "write", 1, short)
    with pytest.raises(OSError, match="only 2 of 4"):
        files.write(descriptor, b"abcd")
    os.close(descriptor)
