"""Messages over the pipes between a policy's process and the one that started it; both ends block."""

from __future__ import annotations

from typing import Protocol

from probegym.errors import ProbeGymError
from probegym.hardware_bridge import codec
from probegym.hardware_bridge.codec import Arrays, Json


class Ended(ProbeGymError):
    """The other side closed the pipe."""


class Reader(Protocol):
    """An unbuffered pipe to read from."""

    def readinto(self, buffer: memoryview, /) -> int | None:
        """Fill as much as there is; 0 at the end."""


class Writer(Protocol):
    """An unbuffered pipe to write to."""

    def write(self, content: memoryview, /) -> int | None:
        """Write as much as goes; returns how much that was."""


def send(stream: Writer, content: bytes) -> None:
    """Write a packed message whole; raises OSError when nobody reads."""
    left = memoryview(content)
    while len(left):
        left = left[stream.write(left) or 0 :]


def receive(stream: Reader, most: int = codec.MAXIMUM_BODY) -> tuple[Json, Arrays]:
    """The next message, its arrays of at most ``most`` bytes. Raises Ended, or codec.Malformed: then nothing more can be read."""
    head, body, checksum = codec.lengths(_exactly(stream, codec.PREFIX.size))
    if body > most:
        raise codec.Malformed(f"a message of {body} bytes is longer than the {most} that it may have")
    return codec.unpack(_exactly(stream, head), _exactly(stream, body), checksum)


def _exactly(stream: Reader, count: int) -> bytes:
    taken = bytearray(count)
    left = memoryview(taken)
    while len(left):
        got = stream.readinto(left)
        if not got:
            raise Ended("the other side closed the pipe")
        left = left[got:]
    return bytes(taken)
