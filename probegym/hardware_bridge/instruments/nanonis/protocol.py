"""The wire of the Nanonis SPM controller: frames and types, for both ends. Bytes in, values out; no socket.

A request is a name of 32 bytes, the size of the body, whether an answer is wanted, and the body; an answer is the same name, the
size, four zero bytes, the values that are returned, and an error: status, length of its text, text. Everything is big-endian.
Source: SPECS, TCP Programming Interface of Nanonis SPM (R13742, June 2024). Any doubt about a frame raises Malformed: what comes
after it cannot be trusted either, so the connection is to be closed.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from probegym.errors import ProbeGymError
from probegym.hardware_bridge.codec import Malformed

HEADER = 40  # bytes of a frame before its body
PORTS = (6501, 6502, 6503, 6504)  # one connection each
HELD = "is held by"  # in the error of our own server to a client whose port is taken
MOST_ARGUMENTS, MOST_RETURNS = 1 << 16, (1 << 26) + (1 << 16)  # bytes of a body: the longest answer is an image of 4096 x 4096
LONGEST_TEXT = 250  # bytes of a text that is sent: clients in use misread longer ones

_REQUEST, _RESPONSE, _ERROR = struct.Struct(">32siHH"), struct.Struct(">32siI"), struct.Struct(">Ii")
_COUNT = struct.Struct(">i")
_SCALARS = {kind: struct.Struct(f">{kind}") for kind in "HhIifd"}
_ARRAYS = {f"{kind}[]": np.dtype(f">{code}") for kind, code in {"i": "i4", "I": "u4", "f": "f4", "d": "f8"}.items()}
_IMAGES = {"f[][]": np.dtype(">f4")}
KINDS = (*_SCALARS, *_ARRAYS, *_IMAGES, "str", "str[]")
"""Types of a field: numbers as ``struct`` names them; texts; arrays that their count precedes, rows and columns for two dimensions."""

Values = dict[str, Any]
"""Name of a field -> int, float, str, tuple of str, or array."""


class ControllerError(ProbeGymError):
    """The controller answered with an error; ``text`` is its own. Values that came with it are worth nothing."""

    def __init__(self, name: str, text: str):
        super().__init__(f"the controller refused {name}: {text}")
        self.text = text


@dataclass(frozen=True)
class Field:
    """One argument or returned value. kind: one of KINDS; unit: as the controller counts it, empty where it counts none."""

    name: str
    kind: str
    unit: str = ""


# ---- frames ----


def pack_request(name: str, body: bytes, reply: bool = True) -> bytes:
    """A whole request. reply: whether the controller is to answer."""
    return _REQUEST.pack(_name(name), len(body), int(reply), 0) + body


def unpack_request(header: bytes) -> tuple[str, int, bool]:
    """(name, bytes of the body, whether an answer is wanted) of a request's first 40 bytes; raises Malformed for any other bytes."""
    name, size, reply, unused = _unpacked(_REQUEST, header)
    if reply not in (0, 1) or unused:
        raise Malformed(f"a request announces {reply} answers and ends its header with {unused}")
    return _told_name(name), _size(size, MOST_ARGUMENTS), bool(reply)


def pack_response(name: str, returned: bytes, error: str = "") -> bytes:
    """A whole answer. error: its text, empty when there is none."""
    text = error.encode("ascii", "replace")[:LONGEST_TEXT]
    body = returned + _ERROR.pack(int(bool(error)), len(text)) + text
    return _RESPONSE.pack(_name(name), len(body), 0) + body


def unpack_response(header: bytes, name: str) -> int:
    """Bytes of the body, of an answer's first 40 bytes; raises Malformed when it is not the answer to ``name``."""
    told, size, unused = _unpacked(_RESPONSE, header)
    if (answered := _told_name(told)) != name:
        raise Malformed(f"{name} was asked, {answered} answered")
    if unused:
        raise Malformed(f"the header of the answer to {name} ends with {unused:#x}")
    return _size(size, MOST_RETURNS)


def _name(name: str) -> bytes:
    told = name.encode("ascii", "replace")
    if not 0 < len(told) <= 32:
        raise ProbeGymError(f"a command's name has 1 to 32 letters, got {name[:40]!r}")
    return told


def _told_name(raw: bytes) -> str:
    name = raw.rstrip(b"\0")
    if not name or not all(0x20 < letter < 0x7F for letter in name):
        raise Malformed(f"a frame begins with no command's name but {raw[:12]!r}")
    return name.decode("ascii")


def _unpacked(layout: struct.Struct, header: bytes) -> tuple[Any, ...]:
    if len(header) != HEADER:
        raise Malformed(f"a header has {HEADER} bytes, got {len(header)}")
    return layout.unpack(header)


def _size(size: int, most: int) -> int:
    if not 0 <= size <= most:
        raise Malformed(f"a frame announces {size} bytes, 0 to {most} are allowed")
    return size


# ---- values ----


def encode(fields: Sequence[Field], values: Mapping[str, Any]) -> bytes:
    """The bytes of values; raises ProbeGymError for names that lack or are too many, and for what the type cannot hold."""
    if unlike := {f.name for f in fields} ^ set(values):
        raise ProbeGymError(f"needed are {', '.join(f.name for f in fields) or 'no values'}; lacking or unknown: {', '.join(sorted(unlike))}")
    out = bytearray()
    for field in fields:
        try:
            out += _encoded(field.kind, values[field.name])
        except (struct.error, OverflowError, TypeError, ValueError) as error:
            raise ProbeGymError(f"{field.name} does not fit its type {field.kind} ({error})") from error
    return bytes(out)


def _encoded(kind: str, value: Any) -> bytes:
    if kind in _SCALARS:
        return _SCALARS[kind].pack(value)
    if kind == "str":
        return _text(value)
    if kind == "str[]":
        texts = [_text(text) for text in value]
        return _COUNT.pack(sum(map(len, texts))) + _COUNT.pack(len(texts)) + b"".join(texts)
    array = np.asarray(value, _ARRAYS[kind] if kind in _ARRAYS else _IMAGES[kind])
    if array.ndim != kind.count("["):
        raise ValueError(f"{array.ndim} dimensions")
    return b"".join(map(_COUNT.pack, array.shape)) + array.tobytes()


def _text(text: str) -> bytes:
    if len(raw := text.encode("latin-1")) > LONGEST_TEXT:
        raise ValueError(f"a text of {len(raw)} bytes, {LONGEST_TEXT} are allowed")
    return _COUNT.pack(len(raw)) + raw


def decode(fields: Sequence[Field], body: bytes) -> tuple[Values, bytes]:
    """(values by name, bytes that are left); raises Malformed when the body ends too early or a count cannot be. Floats may be NaN."""
    reader, values = _Reader(body), Values()
    for field in fields:
        try:
            values[field.name] = reader.value(field.kind)
        except Malformed as error:
            raise Malformed(f"{field.name}: {error}") from error
    return values, body[reader.at :]


def decode_error(rest: bytes) -> tuple[int, str]:
    """(status, text) of the error that ends an answer; raises Malformed where it does not end there."""
    if len(rest) < _ERROR.size:
        raise Malformed(f"an answer ends with {len(rest)} bytes instead of its error")
    status, size = _ERROR.unpack(rest[: _ERROR.size])
    if size != len(rest) - _ERROR.size:
        raise Malformed(f"an error's text has {len(rest) - _ERROR.size} bytes, announced were {size}")
    return status, rest[_ERROR.size :].decode("latin-1")


class _Reader:
    """Reads values from the start of a body."""

    def __init__(self, body: bytes):
        self.body, self.at = body, 0

    def value(self, kind: str) -> Any:
        if kind in _SCALARS:
            return _SCALARS[kind].unpack(self._take(_SCALARS[kind].size))[0]
        if kind == "str":
            return self._text()
        if kind == "str[]":
            size, count = self._count(), self._count()
            end = self.at + size
            texts = tuple(self._text() for _ in range(count))
            if self.at != end:
                raise Malformed(f"texts take {self.at - end + size} bytes, announced were {size}")
            return texts
        dtype = _ARRAYS[kind] if kind in _ARRAYS else _IMAGES[kind]
        shape = tuple(self._count(MOST_RETURNS) for _ in range(kind.count("[")))  # one of them may be 0
        raw = self._take(dtype.itemsize * int(np.prod(shape, dtype=object)))
        return np.frombuffer(raw, dtype).astype(dtype.newbyteorder("=")).reshape(shape)

    def _text(self) -> str:
        return self._take(self._count()).decode("latin-1")

    def _count(self, most: int | None = None) -> int:
        count: int = _COUNT.unpack(self._take(4))[0]
        if not 0 <= count <= (len(self.body) - self.at if most is None else most):
            raise Malformed(f"a count of {count} with {len(self.body) - self.at} bytes left")
        return count

    def _take(self, size: int) -> bytes:
        if size > len(self.body) - self.at:
            raise Malformed(f"{size} bytes are needed, {len(self.body) - self.at} are left")
        self.at += size
        return self.body[self.at - size : self.at]
