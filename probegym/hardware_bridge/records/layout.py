"""The format of a record: one line of JSON for each event, frames in segments.

An event line ends with the SHA-256 of all that stands before it, and names that of the line before (the first line: that of
the manifest), so the lines are a chain. A frame is ``PREFIX`` (mark, length of its header, length of its payload, CRC-32 of
both), a header in JSON, and the bytes of one array.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import math
import re
import struct
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from probegym.errors import ProbeGymError
from probegym.hardware_bridge import codec
from probegym.hardware_bridge.codec import Arrays, Json

FORMAT = 1
MANIFEST = "manifest.json"
PREFIX = struct.Struct("<4sIQI")
MARK = b"PGf1"
SEGMENT = 64 * 2**20  # bytes; a larger frame has a segment of its own
INLINE = 2**15  # bytes of small arrays that stand in the event itself: as base64 they cost less than waiting for a second file
MAXIMUM_PAYLOAD = codec.MAXIMUM_HEADER  # bytes, so every command and the header of every message fits
MAXIMUM_LINE = MAXIMUM_PAYLOAD + 1_000_000
MAXIMUM_ARRAYS, MAXIMUM_BYTES = 256, 2**28  # of one event
MAXIMUM_AXES = 16
KIND, NAME = re.compile(r"[a-z][a-z_]{0,31}"), re.compile(r"[A-Za-z][A-Za-z0-9_. -]{0,63}")

HASH = b',"hash":"'
ENDING = len(HASH) + 64 + len(b'"}\n')
FIELDS = {"seq", "t_wall", "t_mono", "kind", "payload", "frames", "prev_hash", "hash"}


class RecordError(ProbeGymError):
    """A record cannot be written or read; the message says where and why."""


@dataclass(frozen=True)
class Frame:
    """Where an array of an event is: in the event itself (``data``, base64), or at ``offset`` of a segment, ``length`` bytes in all."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    data: str | None = None
    segment: int = -1
    offset: int = 0
    length: int = 0
    crc: int = 0

    @property
    def size(self) -> int:
        """Bytes of the array."""
        return math.prod(self.shape) * self.dtype.itemsize

    def header(self, seq: int) -> bytes:
        """What stands between prefix and payload of the frame; says which event it belongs to."""
        return codec.dumps({"seq": seq, "name": self.name, "dtype": self.dtype.str, "shape": list(self.shape)}).encode()

    def entry(self) -> Json:
        """The frame as its event names it."""
        told = {"name": self.name, "dtype": self.dtype.str, "shape": list(self.shape)}
        if self.data is not None:
            return told | {"data": self.data}
        return told | {"segment": self.segment, "offset": self.offset, "length": self.length, "crc": self.crc}


@dataclass(frozen=True)
class Event:
    """One line of a record. t_wall: s since 1970 (UTC); t_mono: s of the clock that only runs forward, within one process.

    place: (number of the file of events, byte) of the line.
    """

    seq: int
    t_wall: float
    t_mono: float
    kind: str
    payload: Json
    frames: tuple[Frame, ...]
    prev_hash: str
    hash: str
    place: tuple[int, int]


def part_name(number: int) -> str:
    """File of events: the first, and one more after each recovery."""
    return f"events-{number:04d}.jsonl" if number else "events.jsonl"


def segment_name(number: int) -> str:
    """File of frames."""
    return f"seg-{number:04d}.bin"


def checked(arrays: Arrays) -> list[tuple[str, np.ndarray]]:
    """Name and contiguous array of each, which may have any shape; raises RecordError for what a record does not hold."""
    given = {name: np.asarray(array) for name, array in arrays.items()}
    for name, array in given.items():
        if not NAME.fullmatch(name) or not _plain(array.dtype) or array.ndim > MAXIMUM_AXES:
            told = f"array {name[:80]!r} ({array.dtype}, {array.ndim} axes) cannot be recorded"
            raise RecordError(f"{told}: give plain numbers, and a name of letters, digits, spaces and _.-")
    if len(given) > MAXIMUM_ARRAYS or sum(array.nbytes for array in given.values()) > MAXIMUM_BYTES:
        raise RecordError(f"an event holds at most {MAXIMUM_ARRAYS} arrays of {MAXIMUM_BYTES >> 20} MiB together: give fewer")
    return [(name, np.asarray(array, order="C")) for name, array in given.items()]


def _plain(dtype: np.dtype[Any]) -> bool:
    return dtype.char in codec.KINDS and dtype.itemsize > 0


def inline(name: str, array: np.ndarray) -> Frame:
    """A small array of any shape, to stand in the event."""
    return Frame(name, array.dtype, array.shape, base64.b64encode(array.tobytes()).decode())


def checksum(header: bytes, payload: Any) -> int:
    """CRC-32 of a frame."""
    return zlib.crc32(payload, zlib.crc32(header))


def line(seq: int, t_wall: float, t_mono: float, kind: str, payload: str, frames: list[Json], prev_hash: str) -> tuple[bytes, str]:
    """The line of an event and its hash; ``payload`` is JSON already, times are in s as of ``Event``."""
    told = f'{{"seq":{seq},"t_wall":{t_wall!r},"t_mono":{t_mono!r},"kind":"{kind}","payload":{payload},"frames":{codec.dumps(frames)},"prev_hash":"{prev_hash}"'
    body = told.encode()
    digest = hashlib.sha256(body).hexdigest()
    return body + HASH + digest.encode() + b'"}\n', digest


class Damaged(RecordError):
    """A line or a frame that is not as it was written."""


def parse(content: bytes, place: tuple[int, int]) -> Event:
    """The event of a line; raises Damaged."""
    if not content.endswith(b"\n"):
        raise Damaged("it is longer than any event" if len(content) > MAXIMUM_LINE else "it is cut off")
    if content[-ENDING : -ENDING + len(HASH)] != HASH or content[-3:] != b'"}\n':
        raise Damaged("it has no checksum")
    if hashlib.sha256(content[:-ENDING]).hexdigest().encode() != content[-67:-3]:
        raise Damaged("its checksum differs")
    try:
        held = codec.loads(content)
    except codec.Malformed as error:
        raise Damaged(str(error)) from error
    if not isinstance(held, dict) or set(held) != FIELDS or not isinstance(held["payload"], dict) or not isinstance(held["frames"], list):
        raise Damaged("it is no event of this version")
    times, texts = (held["t_wall"], held["t_mono"]), (held["kind"], held["prev_hash"])
    if not _whole(held["seq"]) or not all(isinstance(t, float) and math.isfinite(t) for t in times) or not all(isinstance(t, str) for t in texts):
        raise Damaged("its number, times or kind are none")
    if not KIND.fullmatch(held["kind"]):
        raise Damaged("its kind is none")
    frames = tuple(map(_frame, held["frames"][: MAXIMUM_ARRAYS + 1]))
    if len({f.name for f in frames}) != len(frames) or len(frames) > MAXIMUM_ARRAYS or sum(f.size for f in frames) > MAXIMUM_BYTES:
        raise Damaged(f"its arrays have one name twice or are more than {MAXIMUM_ARRAYS} or {MAXIMUM_BYTES >> 20} MiB")
    return Event(held["seq"], *times, held["kind"], held["payload"], frames, held["prev_hash"], held["hash"], place)


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**62


def _frame(entry: Any) -> Frame:
    try:
        name, code, shape = entry["name"], entry["dtype"], entry["shape"]
        rest = {key: value for key, value in entry.items() if key not in ("name", "dtype", "shape")}
        if not isinstance(name, str) or not NAME.fullmatch(name) or not isinstance(code, str) or len(code) > 12:
            raise Damaged("an array has no proper name or type")
        dtype = np.dtype(code)
        if not _plain(dtype) or dtype.str != code or len(shape) > MAXIMUM_AXES or not all(map(_whole, shape)):
            raise Damaged(f"array {name} has a type or shape that a record does not hold")
        inside = set(rest) == {"data"} and isinstance(rest["data"], str)
        if not inside and not (set(rest) == {"segment", "offset", "length", "crc"} and all(map(_whole, rest.values()))):
            raise Damaged(f"array {name} is nowhere")
        return Frame(name, dtype, tuple(shape), **rest)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise Damaged(f"an array is not described ({type(error).__name__})") from error


def unpacked(frame: Frame) -> np.ndarray:
    """The array that stands in the event, of the shape of its frame; raises Damaged."""
    try:
        content = base64.b64decode(frame.data or "", validate=True)
    except binascii.Error as error:
        raise Damaged(f"array {frame.name} is no base64") from error
    return as_array(frame, bytearray(content))


def as_array(frame: Frame, content: bytearray) -> np.ndarray:
    """The bytes as the array that they are, writable; raises Damaged when they are more or fewer."""
    if len(content) != frame.size:
        raise Damaged(f"array {frame.name} of {frame.size} bytes has {len(content)}")
    try:
        return np.frombuffer(content, frame.dtype).reshape(frame.shape) if content else np.empty(frame.shape, frame.dtype)
    except ValueError as error:
        raise Damaged(f"array {frame.name} has no possible shape") from error
