"""Where exports go: a name that was free, outside every record, whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from probegym.hardware_bridge import codec
from probegym.hardware_bridge.commands import InspectLevels, Readings
from probegym.hardware_bridge.records import Record, Recorder, RecordError, target
from probegym.hardware_bridge.records.export import FORMATS, export
from tests.helpers import ROOT
from tests.test_cli import call, is_one_line
from tests.test_records import complaint

EVERY = pytest.mark.parametrize("to", FORMATS)
posix = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX")


def recorded(folder: Path) -> Path:
    """An episode of one step with a large reading, for every format to have something."""
    with Recorder(folder / "runs", {"sample": "Si"}, inline=1024) as recorder:
        recorder.append("begin", {"seed": 1})
        recorder.append("observation", {}, {"observation": np.zeros(3)})
        recorder.append("action", {}, {"action": np.zeros(2)})
        intent = recorder.append("intent", {"command": codec.command_to_json(InspectLevels())})
        header = {"values": ["labels"], "costs": {name: [1.0] for name in Readings.COSTS}}
        recorder.append("result", {"intent": intent, "readings": header}, {"labels": np.random.default_rng(0).random((1, 300, 300))})
        recorder.append("observation", {}, {"observation": np.zeros(3)})
        recorder.append("reward", {"reward": 1.0, "terminated": True, "truncated": False})
    return recorder.folder


@pytest.fixture
def record(tmp_path) -> Path:
    return recorded(tmp_path)


def everything(folder: Path) -> dict[str, bytes | None]:
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None for p in sorted(folder.rglob("*"))}


@EVERY
def test_an_export_is_written_once_with_its_folders_and_nothing_else(record, tmp_path, to):
    before = everything(record)
    path = export(record, to, tmp_path / "deep" / "er" / "out")
    assert list((tmp_path / "deep" / "er").iterdir()) == [path] and everything(record) == before
    told = everything(tmp_path)
    assert "is there already" in complaint(export, record, to, path)
    assert everything(tmp_path) == told
    beside = export(record, to)
    assert beside == Path(f"{record}{FORMATS[to][1]}") and beside.exists()


@EVERY
def test_nothing_is_overwritten(record, tmp_path, to):
    (tmp_path / "file").write_text("account")
    (tmp_path / "folder" / "empty").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    before = everything(tmp_path)
    for name in ("file", "folder", "folder/empty", "link", "runs"):
        assert "is there already" in complaint(export, record, to, tmp_path / name)
    assert everything(tmp_path) == before and os.path.islink(tmp_path / "link")


@EVERY
def test_nothing_is_written_into_a_record(record, tmp_path, to):
    (tmp_path / "other").symlink_to(record)
    before = everything(record)
    for path in (record / "x", record / "deep" / "x", record / "manifest.json", tmp_path / "other" / "x", record / ".." / record.name / "x"):
        complaint(export, record, to, path)
    other = recorded(tmp_path / "b")
    assert "would lie in the record" in complaint(export, record, to, other / "x")
    (other / "inner").mkdir()
    (tmp_path / "hidden").symlink_to(other / "inner")
    assert "would lie in the record" in complaint(export, record, to, tmp_path / "hidden" / "x")
    (other / "manifest.json").unlink()
    assert "would lie in the record" in complaint(export, record, to, other / "x"), "a damaged one is evidence"
    assert everything(record) == before and not (other / "x").exists()


@EVERY
@pytest.mark.parametrize("place", ["/proc/x", "/proc/deep/x", "/dev/null/x", "file/x", "locked/x", "y" * 250])
@posix
def test_where_nothing_can_be_written_is_told_in_words(record, tmp_path, to, place):
    (tmp_path / "file").write_text("")
    (tmp_path / "locked").mkdir(mode=0o500)
    if place == "locked/x" and os.geteuid() == 0:
        pytest.skip("nothing is locked for root")
    before = everything(tmp_path)
    told = complaint(export, record, to, tmp_path / place)
    assert "cannot be written (" in told and not any(word in told for word in ("h5", "HDF", "errno", "synchronously", "Error"))
    assert everything(tmp_path) == before


@EVERY
def test_a_damaged_record_leaves_no_export(record, tmp_path, to):
    path = record / ("seg-0000.bin" if to != "minari" else "events.jsonl")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    before = everything(tmp_path)
    with pytest.raises(RecordError, match="damaged at event"):
        export(record, to, tmp_path / "deep" / "out")
    assert everything(tmp_path) == before


@EVERY
@pytest.mark.parametrize("error", [OSError("Can't write data"), OSError(28, "No space left on device"), RuntimeError("Can't decrement id ref count"), MemoryError()])
@pytest.mark.parametrize("where", ["create_dataset", "__exit__"])
def test_hdf5_that_fails_on_the_way_leaves_nothing(record, tmp_path, monkeypatch, to, error, where):
    real = getattr(h5py.File if where == "__exit__" else h5py.Group, where)

    def fails(self, *given, **more):
        real(self, *given, **more)
        raise error

    monkeypatch.setattr(h5py.File if where == "__exit__" else h5py.Group, where, fails)
    before = everything(tmp_path)
    told = complaint(export, record, to, tmp_path / "deep" / "out")
    assert "cannot be written (" in told and "Can't" not in told and everything(tmp_path) == before


FULL = """
import resource, sys
from probegym.errors import ProbeGymError
from probegym.hardware_bridge.records.export import export
record, to, out, limits = sys.argv[1:]
for limit in map(int, limits.split()):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        print(export(record, to, out))
    except ProbeGymError as error:
        print(error, file=sys.stderr)
"""


@EVERY
@posix
def test_a_disk_that_is_full_leaves_nothing(record, tmp_path, to):
    """HDF5 itself would end the process, and tell it in pages."""
    before = everything(tmp_path)
    limits = "0 1 100 1000 2000 2500 3000 4000" + " 100000 500001 720000" * (to != "minari")
    command = [sys.executable, "-c", FULL, str(record), to, str(tmp_path / "out"), limits]
    alone = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}  # which would write into the full disk as well
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=alone, timeout=120)
    lines = done.stderr.splitlines()
    assert (done.returncode, done.stdout) == (0, ""), done.stderr[-2000:]
    assert len(lines) == len(limits.split()) and all("out cannot be written (File too large)" in line for line in lines), lines
    assert everything(tmp_path) == before


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_name_that_somebody_takes_meanwhile_stays_theirs(tmp_path, kind, monkeypatch):
    for linked in (True, False):
        wanted = tmp_path / f"out{linked}"
        if not linked:
            monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(PermissionError(1, "no links here")))
        with pytest.raises(RecordError), target.appearing(wanted) as scratch:
            scratch.write_text("new") if kind == "file" else (scratch / "data").mkdir(parents=True)
            wanted.write_text("theirs")
        assert wanted.read_text() == "theirs"
        with target.appearing(tmp_path / f"free{linked}") as scratch:
            scratch.write_text("new")
        assert (tmp_path / f"free{linked}").read_text() == "new" and len(list(tmp_path.iterdir())) == 2 * (2 - linked)


def test_an_interrupted_export_leaves_nothing(record, tmp_path):
    before = everything(tmp_path)
    with pytest.raises(KeyboardInterrupt), target.appearing(tmp_path / "deep" / "out") as scratch:
        scratch.mkdir()
        (scratch / "half").write_text("")
        raise KeyboardInterrupt
    assert everything(tmp_path) == before


def test_the_command_line(record, tmp_path):
    out = tmp_path / "x.hspy"
    done = call("record", "export", record, "--to", "hspy", "--out", out)
    assert done.exit_code == 0 and done.output.strip() == str(out) and out.exists()
    for given, told in (((tmp_path / "nothing", "--to", "nxs"), "nothing"), ((record, "--to", "nxs", "--out", out), "already"), ((record, "--to", "zspy"), "hspy, nxs, minari")):
        done = call("record", "export", *given)
        assert is_one_line(done) and told in done.stderr


@pytest.mark.parametrize("run", [3, None, "", "a\nb", "\0", "\ud800", "../x", "x" * 81, ["run"]])
def test_a_name_of_a_run_that_is_none_is_refused(record, tmp_path, run):
    copy = shutil.copytree(record, tmp_path / "copy")
    (copy / "manifest.json").write_text(json.dumps(json.loads((copy / "manifest.json").read_text()) | {"run": run}))
    assert "no name of a run" in complaint(Record, copy)
