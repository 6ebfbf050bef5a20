"""The writer of a record: frames before the event that names them, and an event is acknowledged when it is on the disk."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import shutil
import tempfile
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from probegym.hardware_bridge import codec
from probegym.hardware_bridge.codec import Arrays, Json
from probegym.hardware_bridge.records import files, layout
from probegym.hardware_bridge.records.layout import Frame, RecordError

Clock = Callable[[], float]


class Recorder:
    """Writes the record of one run: a new folder ``run-<utc>-<id>`` with manifest, events and frames.

    parent: folder to make it in. manifest: what is known before the run, plain JSON. segment: bytes of a file of frames; inline: of arrays
    that stand in the event itself, which spares waiting for a second file.
    Raises RecordError when it cannot be written. Any fault while appending is latched: nothing is recorded after it.
    One writer at a time may have a folder; its threads may append at once.
    """

    def __init__(self, parent: str | os.PathLike[str], manifest: Json, segment: int = layout.SEGMENT, inline: int = layout.INLINE,
                 wall: Clock = time.time, mono: Clock = time.monotonic):  # fmt: skip
        parent, stamp = Path(parent), datetime.fromtimestamp(wall(), UTC)
        run = f"run-{stamp:%Y%m%dT%H%M%SZ}-{secrets.token_hex(4)}"
        text = _json({"format": layout.FORMAT, "run": run, "created": stamp.isoformat(), "manifest": manifest})
        try:
            parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=parent, prefix=f".{run}-") as scratch:
                folder = Path(scratch) / run
                folder.mkdir()
                files.place(folder / layout.MANIFEST, text.encode())
                files.place(folder / layout.part_name(0), b"")
                os.rename(folder, parent / run)
            files.sync_folder(parent)
        except OSError as error:
            raise RecordError(f"no record can be written to {parent} ({error.strerror}): free space or choose another folder") from error
        folder = parent / run
        self._start(folder, files.Lock(folder), 0, 0, 0, hashlib.sha256(text.encode()).hexdigest(), (segment, inline), wall, mono)

    @classmethod
    def resume(cls, folder: Path, lock: files.Lock, part: int, segment: int, seq: int, head: str) -> Recorder:
        """Continue a record in new files, after event seq - 1 whose hash is ``head``; ``recover`` finds these out."""
        recorder = cls.__new__(cls)
        recorder._start(folder, lock, part, segment, seq, head, (layout.SEGMENT, layout.INLINE), time.time, time.monotonic)
        return recorder

    def _start(self, folder: Path, lock: files.Lock, part: int, segment: int, seq: int, head: str, limits: tuple[int, int], wall: Clock, mono: Clock) -> None:
        self.folder, self.seq, self.head, self.fault = folder, seq, head, ""
        self._lock, (self._limit, self._inline), self._wall, self._mono, self._mutex = lock, limits, wall, mono, threading.Lock()
        self._segment, self._frames, self._filled, self._size = segment - 1, -1, 0, 0
        path = folder / layout.part_name(part)
        try:
            self._events = files.create(path) if part else os.open(path, os.O_WRONLY | os.O_APPEND | files.BINARY)
        except OSError as error:
            lock.release()
            raise RecordError(f"{path} cannot be written ({error.strerror}): check its permissions and the disk") from error

    def append(self, kind: str, payload: Json, arrays: Arrays | None = None) -> int:
        """Record an event; returns its number once it is on the disk. kind: lower-case word; payload: plain JSON; arrays by name.

        Raises RecordError. When that is about the arguments, nothing was written and the recorder goes on; after a fault of
        the disk it refuses everything.
        """
        if not layout.KIND.fullmatch(kind):
            raise RecordError(f"an event has a kind of lower-case letters and _, got {kind[:40]!r}")
        text, held = _json(payload), layout.checked(arrays or {})
        with self._mutex:
            if self.fault:
                raise RecordError(f"the record {self.folder} failed before ({self.fault}): go to the safe state, then recover it")
            try:
                entries = [frame.entry() for frame in self._placed(held)]
                content, head = layout.line(self.seq, float(self._wall()), float(self._mono()), kind, text, entries, self.head)
                files.write(self._events, content)
                files.sync(self._events)
                self._size += len(content)
                _unshared(self._events, self._size)
            except BaseException as error:  # a signal between writing and counting must not leave a recorder that goes on
                self.fault = getattr(error, "strerror", None) or str(error) or type(error).__name__
                if isinstance(error, OSError):
                    raise RecordError(f"the record {self.folder} cannot be written ({self.fault}): nothing more is recorded") from error
                raise
            number, self.seq, self.head = self.seq, self.seq + 1, head
        return number

    def _placed(self, held: list[tuple[str, np.ndarray]]) -> list[Frame]:
        """The smallest arrays for the event itself, as many as have room; the others, written to the segment and on the disk."""
        placed, room, written = [], self._inline, False
        for name, array in sorted(held, key=lambda pair: pair[1].nbytes):
            room -= array.nbytes
            placed.append(layout.inline(name, array) if room >= 0 else self._stored(name, array))
            written |= room < 0
        if written:
            files.sync(self._frames)
            _unshared(self._frames, self._filled)
        return placed

    def _stored(self, name: str, array: np.ndarray) -> Frame:
        header = Frame(name, array.dtype, array.shape).header(self.seq)
        payload = array.reshape(-1).view(np.uint8).data
        crc, length = layout.checksum(header, payload), layout.PREFIX.size + len(header) + len(payload)
        if self._frames < 0 or (self._filled and self._filled + length > self._limit):
            self._next_segment()
        offset, self._filled = self._filled, self._filled + length
        files.write(self._frames, layout.PREFIX.pack(layout.MARK, len(header), len(payload), crc) + header)
        files.write(self._frames, payload)
        return Frame(name, array.dtype, array.shape, None, self._segment, offset, length, crc)

    def _next_segment(self) -> None:
        if self._frames >= 0:
            files.sync(self._frames)
            os.close(self._frames)
            self._frames = -1
        self._segment += 1
        self._frames, self._filled = files.create(self.folder / layout.segment_name(self._segment)), 0

    def free_space(self, needed: int) -> int:
        """Bytes left on the disk; raises RecordError when they are fewer than ``needed``."""
        try:
            left = shutil.disk_usage(self.folder).free
        except OSError as error:
            raise RecordError(f"the record {self.folder} is out of reach ({error.strerror}): check the disk") from error
        if left < needed:
            raise RecordError(f"{self.folder} has {left / 1e6:.0f} MB left, {needed / 1e6:.0f} MB are needed: free space or choose another folder")
        return left

    def close(self) -> None:
        """End the record with an event ``closed``, unless it failed, and give the folder free; may be called again."""
        if self._events < 0:
            return
        try:
            if not self.fault:
                self.append("closed", {})
        finally:
            for descriptor in (self._events, self._frames):
                if descriptor >= 0:
                    with contextlib.suppress(OSError):
                        os.close(descriptor)
            self._events = self._frames = -1
            self.fault = self.fault or "it was closed"
            self._lock.release()

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _json(content: Json) -> str:
    try:
        text = codec.dumps(content)
    except (ValueError, TypeError, RecursionError) as error:
        raise RecordError(f"only plain JSON can be recorded ({str(error)[:100]}): put arrays beside the payload") from error
    if len(text) > layout.MAXIMUM_PAYLOAD:
        raise RecordError(f"a payload of {len(text)} bytes is longer than {layout.MAXIMUM_PAYLOAD}: put arrays beside the payload")
    return text


def _unshared(descriptor: int, size: int) -> None:
    """Raise OSError when a file that is being written was deleted, cut or written by somebody else: its events would be lost."""
    status = os.fstat(descriptor)
    if status.st_nlink < 1 or status.st_size != size:
        raise OSError(f"a file of {size} bytes was deleted or changed by somebody else")
