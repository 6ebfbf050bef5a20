"""Writing that is on the disk when it returns, and one writer at a time."""

from __future__ import annotations

import errno
import os
import stat
import sys
from pathlib import Path
from typing import BinaryIO

from probegym.hardware_bridge.records.layout import RecordError

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

BINARY = getattr(os, "O_BINARY", 0)  # Windows would translate line ends
LOCK = "writer.lock"


def sync(descriptor: int) -> None:
    """Wait until what was written is on the disk: data and size, not the times."""
    getattr(os, "fdatasync", os.fsync)(descriptor)


def sync_folder(folder: Path) -> None:
    """Wait until the names of new files are on the disk; Windows has no such call and needs none."""
    if sys.platform != "win32":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def sync_file(path: Path) -> None:
    """Wait until what anybody wrote to a file is on the disk."""
    descriptor = os.open(path, os.O_RDWR | BINARY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write(descriptor: int, content: bytes | memoryview) -> None:
    """Write all or raise OSError: at a full disk the system takes a part and reports no error."""
    if (taken := os.write(descriptor, content)) != len(content):
        raise OSError(errno.ENOSPC, f"only {taken} of {len(content)} bytes were taken")


def create(path: Path) -> int:
    """Descriptor of a new file for appending, its name on the disk; raises FileExistsError."""
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | BINARY, 0o644)
    sync_folder(path.parent)
    return descriptor


def place(path: Path, content: bytes) -> None:
    """Write a new file that is on the disk when this returns."""
    descriptor = create(path)
    try:
        write(descriptor, content)
        sync(descriptor)
    finally:
        os.close(descriptor)


def opened(path: Path) -> BinaryIO:
    """A plain file for reading; raises RecordError for links, pipes, devices and what is not there."""
    try:
        if not stat.S_ISREG(os.lstat(path).st_mode):
            raise RecordError(f"{path} is no plain file: a record holds nothing else")
        return open(path, "rb")
    except OSError as error:
        raise RecordError(f"{path} cannot be read ({error.strerror}): check the folder of the record") from error


def lock(descriptor: int) -> None:
    """Hold a file that is open for writing until it is closed or the process dies; raises OSError where somebody else has it."""
    if sys.platform == "win32":
        os.lseek(descriptor, 1 << 30, os.SEEK_SET)  # a byte that nobody reads: what is locked there cannot be read
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
    else:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


class Lock:
    """Held by the one process that may write to a folder; the system frees it when the process dies. Raises RecordError."""

    def __init__(self, folder: Path):
        try:
            self.descriptor: int | None = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | BINARY, 0o644)
        except OSError as error:
            raise RecordError(f"{folder} cannot be written ({error.strerror}): check its permissions and the disk") from error
        try:
            lock(self.descriptor)
        except OSError as error:
            self.release()
            raise RecordError(f"{folder} is being written by another process: end that one first") from error

    def release(self) -> None:
        """Give it back; may be called again."""
        if self.descriptor is not None:
            os.close(self.descriptor)
            self.descriptor = None
