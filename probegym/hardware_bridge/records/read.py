"""The reader of a record: events one by one, arrays checked as they are read, and what is wrong with it in one line."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np

from probegym.hardware_bridge import codec
from probegym.hardware_bridge.codec import Arrays, Json
from probegym.hardware_bridge.records import layout
from probegym.hardware_bridge.records.files import opened
from probegym.hardware_bridge.records.layout import MAXIMUM_LINE, Damaged, Event, Frame, RecordError, parse, part_name, segment_name

MAXIMUM_PARTS = 10_000
RUN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,79}")  # it becomes part of names and is printed
SETTLING = ("result", "refused", "settled")
"""Kinds of events that say what became of the intent whose number their payload carries as ``intent``."""
WOULD, OBSERVED = "would", "observed"
"""Kinds of events of a shadow: a command that it would have given, and the readings of one that somebody else gave."""


@dataclass(frozen=True)
class Report:
    """What a record holds. unknown: intents of which the outcome is unknown; torn: ends without a complete event, left as they are.

    unnamed: bytes of frames that no event names, written just before a crash. closed: whether the run ended in order. head:
    hash of the last event; kept elsewhere, it shows whether events were taken off the end.
    """

    run: str
    events: int
    frames: int
    closed: bool
    head: str
    unknown: tuple[int, ...]
    torn: tuple[str, ...]
    unnamed: int
    errors: tuple[str, ...]

    @property
    def sound(self) -> bool:
        """Whether everything that was acknowledged is there and as it was written."""
        return not self.errors

    def __str__(self) -> str:
        told = [f"{self.run}: {self.events} events, {self.frames} frames", "closed" if self.closed else "not closed"]
        told += [f"outcome unknown of {len(self.unknown)} intents: {', '.join(map(str, self.unknown[:20]))}"] * bool(self.unknown)
        return "; ".join([*told, *self.torn, *(f"ERROR: {error}" for error in self.errors)])


@dataclass(frozen=True)
class Tail:
    """Bytes of a file of events after its last valid line. whole: one line of them is complete, so it may have been acknowledged."""

    file: str
    valid: int
    size: int
    sha256: str
    reason: str
    whole: bool

    def declared(self) -> Json:
        """As the event ``recovered`` names it."""
        return {"file": self.file, "valid": self.valid, "size": self.size, "sha256": self.sha256}


class Record:
    """A record in its folder. Raises RecordError when it has no manifest or files of events are missing."""

    def __init__(self, folder: str | os.PathLike[str]):
        self.folder = Path(folder)
        try:
            with opened(self.folder / layout.MANIFEST) as stream:
                content = stream.read(MAXIMUM_LINE)
            told = codec.loads(content)
        except OSError as error:
            raise RecordError(f"manifest of {self.folder} cannot be read ({error.strerror}): check the disk") from error
        except codec.Malformed as error:
            raise RecordError(f"manifest of {self.folder} is damaged: {error}") from error
        if not isinstance(told, dict) or told.get("format") != layout.FORMAT or not isinstance(told.get("manifest"), dict):
            found = told.get("format") if isinstance(told, dict) else None
            raise RecordError(f"{self.folder} is a record of format {codec.shown(found)}, this version reads {layout.FORMAT}: use the version that wrote it")
        if not isinstance(told.get("run"), str) or not RUN.fullmatch(told["run"]):
            raise RecordError(f"manifest of {self.folder} is damaged: {codec.shown(told.get('run'))} is no name of a run")
        self.run, self.manifest, self.anchor = told["run"], told["manifest"], hashlib.sha256(content).hexdigest()
        there = {path.name for path in self.folder.glob("events*.jsonl")}
        self.parts = [self.folder / part_name(number) for number in range(min(len(there), MAXIMUM_PARTS))]
        if missing := [path.name for path in self.parts if path.name not in there] or ([] if there else [part_name(0)]):
            raise RecordError(f"{self.folder} lacks {missing[0]}: find it, the events after it hang on it")

    def __iter__(self) -> Iterator[Event]:
        """Its events, read as they are asked for; an end that was torn is left out. Raises RecordError where it is damaged."""
        scan = Scan(self)
        yield from scan
        if scan.damage:
            raise RecordError(scan.damage)

    def at(self, place: tuple[int, int]) -> Event:
        """The event whose line is at a place; raises RecordError."""
        try:
            with opened(self.parts[place[0]]) as stream:
                stream.seek(place[1])
                return parse(stream.readline(MAXIMUM_LINE + 1), place)
        except Damaged as error:
            raise RecordError(f"{self.parts[place[0]]} is damaged at byte {place[1]}: {error}") from error
        except OSError as error:
            raise RecordError(f"{self.parts[place[0]]} cannot be read ({error.strerror}): check the disk") from error

    def arrays(self, event: Event) -> Arrays:
        """The arrays of an event by name, each compared with its checksum; raises RecordError."""
        return {frame.name: self._array(frame, event.seq) for frame in event.frames}

    def _array(self, frame: Frame, seq: int) -> np.ndarray:
        where = f"event {seq}"
        try:
            if frame.data is not None:
                return layout.unpacked(frame)
            where = f"event {seq}, {segment_name(frame.segment)} at byte {frame.offset}"
            with opened(self.folder / segment_name(frame.segment)) as stream:
                return _frame(stream, frame, seq)
        except (Damaged, OSError) as error:
            raise RecordError(f"{self.folder} is damaged at {where}: {error}") from error

    def verify(self, frames: bool = True) -> Report:
        """Read everything and compare: chain, checksums, numbers, intents and results; ``frames=False`` reads the events only.

        Raises nothing for damage: it is in the report.
        """
        scan, errors, outcomes, count, named, closed = Scan(self), [], Outcomes(), 0, 0, False
        for event in scan:
            closed = event.kind == "closed"
            if told := outcomes.see(event):
                errors.append(told)
            count += len(event.frames)
            named += sum(frame.length for frame in event.frames)
            for frame in event.frames if frames else ():
                try:
                    self._array(frame, event.seq)
                except RecordError as error:
                    errors.append(str(error))
        size = sum(path.lstat().st_size for path in self.folder.glob("seg-*.bin"))
        errors += [scan.damage] if scan.damage else []
        torn = tuple(f"{t.file}: {t.size - t.valid} bytes after byte {t.valid} are no complete event" for t in (*scan.passed, *scan.tails))
        return Report(self.run, scan.seq, count, closed, scan.head, tuple(sorted(outcomes.open)), torn, max(0, size - named), tuple(errors))


@dataclass
class Outcomes:
    """Intents that no event has settled yet."""

    open: set[int] = field(default_factory=set)

    def see(self, event: Event) -> str:
        """Take an event in; returns what is wrong with it."""
        if event.kind == "intent":
            self.open.add(event.seq)
        elif event.kind in SETTLING and not (event.kind == "refused" and "intent" not in event.payload):  # refused before it was an intent
            intent = event.payload.get("intent")
            if not isinstance(intent, int) or intent not in self.open:
                return f"event {event.seq}, {event.kind}, settles intent {codec.shown(intent)}, which is not open"
            self.open.remove(intent)
        return ""


class Scan:
    """One pass over the events. After it: ``seq`` of what comes next and ``head``, the hash before it; ``tails`` after the last event.

    passed: tails of which an event ``recovered`` gives account. error: what ended the pass before the end of the record.
    """

    def __init__(self, record: Record):
        self.record, self.seq, self.head, self.error = record, 0, record.anchor, ""
        self.tails: list[Tail] = []
        self.passed: list[Tail] = []
        self._frontier = (0, 0)  # segment and byte after the last frame: no frame may be named twice

    def __iter__(self) -> Iterator[Event]:
        for number, path in enumerate(self.record.parts):
            try:
                with opened(path) as stream:
                    yield from self._part(number, path, stream)
            except OSError as error:
                self.error = f"{path} cannot be read ({error.strerror}): check the disk"
            if self.error:
                return

    @property
    def damage(self) -> str:
        """What is wrong with the record, if anything: a torn end is not, a complete line that does not match its checksum is."""
        return self.error or next((self._damage(tail.file, tail.valid, tail.reason) for tail in self.tails if tail.whole), "")

    def _part(self, number: int, path: Path, stream: BinaryIO) -> Iterator[Event]:
        offset, first = 0, number > 0
        while content := stream.readline(MAXIMUM_LINE + 1):
            try:
                event = parse(content, (number, offset))
            except Damaged as error:
                self._stop(path, offset, content, stream, str(error))
                return
            if wrong := self._follows(event, first):
                self.error = self._damage(path.name, offset, wrong)
                return
            first, offset = False, offset + len(content)
            self.seq, self.head = self.seq + 1, event.hash
            yield event

    def _follows(self, event: Event, first: bool) -> str:
        if event.seq != self.seq or event.prev_hash != self.head:
            return f"event {event.seq} stands there, which does not follow on the one before"
        if first:
            if event.kind != "recovered" or event.payload.get("tails") != [tail.declared() for tail in self.tails]:
                return "it does not begin with the account of how the record was recovered"
            self.passed, self.tails = self.passed + self.tails, []
        for frame in event.frames:
            if frame.data is None:
                if (frame.segment, frame.offset) < self._frontier:
                    return f"array {frame.name} lies where another one is"
                self._frontier = (frame.segment, frame.offset + frame.length)
        return ""

    def _stop(self, path: Path, offset: int, content: bytes, stream: BinaryIO, reason: str) -> None:
        """What follows the last valid line: the torn end of a run that crashed, or damage if an event comes after it."""
        digest, size, whole = hashlib.sha256(), offset, False
        while content:
            digest.update(content)
            size += len(content)
            whole |= content.endswith(b"\n")
            if size - offset > MAXIMUM_LINE or _valid(content):
                self.error = self._damage(path.name, offset, reason)
                return
            content = stream.readline(MAXIMUM_LINE + 1)
        self.tails.append(Tail(path.name, offset, size, digest.hexdigest(), reason, whole))

    def _damage(self, file: str, offset: int, reason: str) -> str:
        return f"{self.record.folder} is damaged at event {self.seq}, {file} byte {offset}: {reason}"


def _valid(content: bytes) -> bool:
    try:
        parse(content, (0, 0))
    except Damaged:
        return False
    return True


def _frame(stream: BinaryIO, frame: Frame, seq: int) -> np.ndarray:
    """Read one frame; nothing is taken into memory that the file does not hold."""
    header = frame.header(seq)
    if layout.PREFIX.size + len(header) + frame.size != frame.length or frame.offset + frame.length > os.fstat(stream.fileno()).st_size:
        raise Damaged(f"array {frame.name} is cut off or longer than it can be")
    stream.seek(frame.offset)
    prefix, found = stream.read(layout.PREFIX.size), stream.read(len(header))
    content = bytearray(stream.read(frame.size))
    if prefix != layout.PREFIX.pack(layout.MARK, len(header), frame.size, frame.crc) or found != header or len(content) != frame.size:
        raise Damaged(f"array {frame.name} is not there")
    if layout.checksum(header, content) != frame.crc:
        raise Damaged(f"array {frame.name} does not match its checksum")
    return layout.as_array(frame, content)
