"""Where an export goes: a name that was free, outside every record, which stands there when all of it is on the disk."""

from __future__ import annotations

import contextlib
import io
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from probegym.hardware_bridge.records import files
from probegym.hardware_bridge.records.layout import RecordError, part_name


def require_free(path: str | os.PathLike[str]) -> Path:
    """The absolute path of something that is to be written; raises RecordError when it is there, or would lie in a record's folder."""
    wanted = Path(os.path.abspath(path))
    if os.path.lexists(wanted):
        raise RecordError(f"{wanted} is there already: an export overwrites nothing, choose another name")
    for folder in Path(os.path.realpath(wanted)).parents:
        if any(os.path.lexists(folder / name) for name in (part_name(0), files.LOCK)):
            raise RecordError(f"{wanted} would lie in the record {folder}, where nothing is ever added: choose another place")
    return wanted


@contextmanager
def appearing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A scratch name for a file or folder, which gets the name ``path`` when the block ends well; otherwise nothing stays.

    Raises RecordError when ``path`` is not free or cannot be written.
    """
    wanted = require_free(path)
    made = [folder for folder in wanted.parents if not os.path.lexists(folder)]
    scratch = wanted.with_name(f".{wanted.name}-{secrets.token_hex(4)}")
    try:
        wanted.parent.mkdir(parents=True, exist_ok=True)
        yield scratch
        for file in filter(Path.is_file, (scratch, *scratch.rglob("*"))):
            files.sync_file(file)
        _named(scratch, wanted)
        with contextlib.suppress(OSError):  # not every file system syncs folders
            files.sync_folder(wanted.parent)
    except (OSError, RuntimeError, MemoryError) as error:  # HDF5 tells a full disk as the one or the other
        told = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else f"{type(error).__name__} while it was written"
        raise RecordError(f"{wanted} cannot be written ({told}): free space or choose another place") from error
    finally:
        if os.path.isdir(scratch):
            shutil.rmtree(scratch, ignore_errors=True)
        with contextlib.suppress(OSError):
            scratch.unlink(missing_ok=True)
        for folder in made:
            with contextlib.suppress(OSError):  # what is not empty is needed
                folder.rmdir()


class Stream(io.RawIOBase):
    """A new file to be written by HDF5, which takes the process down with it where a disk is full: so it is told of no error.

    The first is kept and what comes after it is dropped. ``check`` raises it, an OSError, and so does leaving the block.
    """

    def __init__(self, path: Path):
        self.error: OSError | None = None
        self._file = open(path, "x+b", buffering=0)
        self._at = 0

    def check(self) -> None:
        """Raise the error that was kept."""
        if self.error is not None:
            raise self.error

    def __exit__(self, *_: object) -> None:
        self.close()
        self.check()

    def close(self) -> None:
        """Close; an error of it is kept as well."""
        with self._keeping():
            self._file.close()
        super().close()

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Where the next bytes go, also beyond the end."""
        self._at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: os.fstat(self._file.fileno()).st_size}[whence]
        return self._at

    def tell(self) -> int:
        """Where the next bytes go."""
        return self._at

    def write(self, content: Any) -> int:
        """All of it, as far as HDF5 knows."""
        left = memoryview(content).cast("B")
        size = len(left)
        with self._keeping():
            self._file.seek(self._at)
            while left and self.error is None:
                left = left[self._file.write(left) :]
        self._at += size
        return size

    def readinto(self, buffer: Any) -> int:
        """As many bytes as are asked for; zeros where none were written."""
        wanted = memoryview(buffer).cast("B")
        wanted[:] = bytes(len(wanted))
        with self._keeping():
            self._file.seek(self._at)
            self._file.readinto(wanted)
        self._at += len(wanted)
        return len(wanted)

    def truncate(self, size: int | None = None) -> int:
        """Cut off or fill up."""
        wanted = self._at if size is None else size
        with self._keeping():
            if self.error is None:
                self._file.truncate(wanted)
        return wanted

    @contextmanager
    def _keeping(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.error = self.error or error


def _named(scratch: Path, wanted: Path) -> None:
    """Give the name; one that somebody took meanwhile stays theirs."""
    with contextlib.suppress(OSError):  # of folders, and where there are no links
        os.link(scratch, wanted)
        return
    require_free(wanted)
    os.rename(scratch, wanted)
