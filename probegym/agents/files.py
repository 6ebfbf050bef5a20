"""Folders and files that commands write: tried before long work, complete or not there at all."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from probegym import __version__
from probegym.errors import ProbeGymError

NEEDED_BYTES = 50_000_000
MARK = "results.json"
"""The file by which a folder is known as an earlier report, so that it may be replaced."""


def writable(folder: str | os.PathLike, needed: int = NEEDED_BYTES) -> Path:
    """The folder, created if need be and tried with a small file; raises ProbeGymError when that fails or space is short."""
    folder = Path(folder)
    created = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder) as trial:
            trial.write(bytes(4096))
            trial.flush()
        free = shutil.disk_usage(folder).free
    except OSError as error:
        _unmake(created)
        raise ProbeGymError(f"cannot write to folder {folder} ({error.strerror}): free space or choose another with --out") from error
    if free < needed:
        _unmake(created)
        told = f"folder {folder} has {free / 1e6:.0f} MB left, {needed / 1e6:.0f} MB are needed"
        raise ProbeGymError(f"{told}: free space or choose another with --out")
    return folder


def _unmake(folders: list[Path]) -> None:
    """Take back the folders that were created, innermost first."""
    for folder in folders:
        try:
            folder.rmdir()
        except OSError:
            return


def replaceable(folder: str | os.PathLike) -> Path:
    """The folder, absolute, if a report may be written there: new, empty or an earlier report. Raises ProbeGymError."""
    folder = Path(folder).absolute()
    if folder.exists() and not folder.is_dir():
        raise ProbeGymError(f"{folder} is a file: choose a folder with --out")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / MARK).is_file():
        raise ProbeGymError(f"folder {folder} holds other files than a report: choose another with --out")
    writable(folder.parent)
    return folder


@contextmanager
def replaced(folder: str | os.PathLike) -> Iterator[Path]:
    """A scratch folder that takes the place of ``folder`` when the block ends well, and vanishes when it does not.

    Only an empty folder or an earlier report is replaced. Raises ProbeGymError otherwise and when it cannot be written.
    """
    folder = replaceable(folder)
    scratch = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        yield scratch
        scratch.chmod(0o755)
        _swap(scratch, folder)
    except OSError as error:
        raise ProbeGymError(f"cannot write {folder} ({error.strerror or error}): free space or choose another with --out") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _swap(scratch: Path, folder: Path) -> None:
    if not folder.exists():
        os.rename(scratch, folder)
        return
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-old-", ignore_cleanup_errors=True) as old:
        os.rename(folder, Path(old) / "report")
        try:
            os.rename(scratch, folder)
        except OSError:
            os.rename(Path(old) / "report", folder)
            raise


def plain(value: Any) -> Any:
    """For JSON, which has no NaN: null in its place."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


@contextmanager
def atomically(*paths: Path) -> Iterator[tuple[Path, ...]]:
    """Where to write files of one folder, which take their places together when the block ends well. Raises OSError."""
    folder = paths[0].parent
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        written = tuple(Path(scratch) / path.name for path in paths)
        yield written
        for one, path in zip(written, paths, strict=True):
            os.replace(one, path)


def write_bytes(path: Path, content: bytes) -> None:
    """Write atomically; raises ProbeGymError when it cannot be written."""
    try:
        with atomically(path) as (scratch,):
            scratch.write_bytes(content)
    except OSError as error:
        raise ProbeGymError(f"cannot write {path} ({error.strerror}): free space or choose another folder") from error


def write_json(path: Path, content: Any) -> None:
    """The same of content as JSON, what is not finite as null."""
    write_bytes(path, json.dumps(plain(content), indent=1, allow_nan=False).encode())


def commit() -> str:
    """The commit of the source tree, with ``-changed`` where the package differs from it, or the version where there is none."""
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():  # installed, perhaps inside somebody else's repository
        return f"probegym {__version__}"
    try:
        head, changes = (subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True, check=True).stdout.strip()
                         for words in (("rev-parse", "HEAD"), ("status", "--porcelain", "--", "probegym")))  # fmt: skip
    except (OSError, subprocess.CalledProcessError):
        return f"probegym {__version__}"
    return f"{head}-changed" if changes else head
