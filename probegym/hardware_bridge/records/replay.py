"""A record as a world: what passed between a task and a world is written down, played back, and compared with another world."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from probegym.errors import ProbeGymError
from probegym.hardware_bridge import codec
from probegym.hardware_bridge.codec import Arrays, Json
from probegym.hardware_bridge.commands import Command, Lanes, LaneState, Readings
from probegym.hardware_bridge.records.layout import Event, RecordError
from probegym.hardware_bridge.records.log import Recorder
from probegym.hardware_bridge.records.read import OBSERVED, SETTLING, WOULD, Record
from probegym.hardware_bridge.world import Refused, World

Place = tuple[int, int]


class RecordingWorld:
    """Passes everything on to a world of one lane and records it: ``begin``, ``intent``, ``result`` or ``refused``, and ``truth``.

    about: what every ``begin`` shall say beside its key, such as environment and scenario.
    """

    def __init__(self, world: World, recorder: Recorder, about: Json | None = None):
        if world.lanes != 1:
            raise ProbeGymError(f"a record holds one lane, this world has {world.lanes}: record a single environment")
        self.world, self.recorder, self.about, self.lanes = world, recorder, about or {}, 1

    def begin(self, keys: np.ndarray, where: np.ndarray) -> None:
        self.world.begin(keys, where)
        self.recorder.append("begin", self.about | {"key": int(keys[0])})
        self._tell_truth()

    def execute(self, command: Command, where: np.ndarray) -> Readings:
        intent = self.recorder.append("intent", {"command": codec.command_to_json(command), "where": np.asarray(where).tolist()})
        try:
            readings = self.world.execute(command, where)
        except Refused as error:
            self.recorder.append("refused", {"intent": intent, "reason": str(error)[:1000]})
            raise
        header, arrays = codec.readings_to_json(readings)
        self.recorder.append("result", {"intent": intent, "readings": header}, arrays)
        self._tell_truth()
        return readings

    def _tell_truth(self) -> None:
        if truth := self.world.truth():
            self.recorder.append("truth", {}, truth)

    def truth(self) -> Lanes | None:
        return self.world.truth()

    def portrait(self, lane: int) -> Lanes:
        return self.world.portrait(lane)

    def glance(self, lane: int, command: Command) -> Lanes:
        return self.world.glance(lane, command)

    def snapshot(self, lane: int) -> LaneState:
        return self.world.snapshot(lane)

    def restore(self, state: LaneState, lane: int) -> None:
        raise ProbeGymError("a record runs forward only: restore the environment that is not being recorded")

    def rekey(self, key: int, lane: int) -> None:
        self.world.rekey(key, lane)


@dataclass
class Exchange:
    """The beginning of an episode, or a command and what became of it; where their events are in the record."""

    seq: int
    place: Place
    verb: str  # empty for a beginning
    outcome: str = ""  # result, refused, settled; empty where it is unknown
    answer: Place | None = None
    truth: Place | None = None


def exchanges(record: Record) -> list[Exchange]:
    """What passed between a task and its world, in order; raises RecordError where the record is damaged or is none of a world."""
    found: list[Exchange] = []
    open_: dict[int, Exchange] = {}
    for event in record:
        if event.kind == "begin":
            found.append(Exchange(event.seq, event.place, ""))
        elif event.kind == "intent":
            command = event.payload.get("command")
            if not isinstance(command, dict) or "verb" not in command:
                raise RecordError(f"{record.folder}, event {event.seq}: an intent without command cannot be played again")
            found.append(Exchange(event.seq, event.place, _verb(record, event, command["verb"])))
            open_[event.seq] = found[-1]
        elif event.kind in SETTLING and (asked := open_.pop(_intent(event), None)):
            asked.outcome, asked.answer = event.kind, event.place
        elif event.kind == "truth" and found:
            found[-1].truth = event.place
    return found


def _intent(event: Event) -> int:
    number = event.payload.get("intent")
    return number if isinstance(number, int) else -1


def _verb(record: Record, event: Event, told: Any) -> str:
    if not isinstance(told, str) or told not in codec.VERBS:
        raise RecordError(f"{record.folder}, event {event.seq}: there is no verb {codec.shown(told)}")
    return told


def recorded_command(record: Record, exchange: Exchange) -> tuple[Command, np.ndarray]:
    """The command and the lanes meant, (1,) bool; raises RecordError."""
    payload = record.at(exchange.place).payload
    where = payload.get("where", [True])
    if where not in ([True], [False]):
        raise RecordError(f"{record.folder}, event {exchange.seq}: where must say true or false for one lane")
    try:
        return codec.command_from_json(payload.get("command")), np.array(where, bool)
    except codec.Malformed as error:
        raise RecordError(f"{record.folder}, event {exchange.seq}: {error}") from error


def recorded_key(record: Record, exchange: Exchange) -> np.ndarray:
    """The key that an episode began with, (1,) uint64; raises RecordError when the record does not tell it."""
    payload, where = record.at(exchange.place).payload, f"{record.folder}, event {exchange.seq}"
    if "key" not in payload:
        raise RecordError(f"{where}: the episode began on an instrument, with the sample as it was, so the record tells no key and no twin can begin alike")
    if isinstance(key := payload["key"], bool) or not isinstance(key, int) or not 0 <= key < 2**64:
        raise RecordError(f"{where}: {codec.shown(key)} is no key, give a whole number from 0 of at most 64 bits")
    return np.array([key], np.uint64)


def recorded_readings(record: Record, exchange: Exchange) -> Readings:
    """What the world answered; raises Refused when it refused, RecordError when its answer is unknown or none."""
    if exchange.answer is None or exchange.outcome == "settled":
        raise RecordError(f"{record.folder}, event {exchange.seq}: the outcome of {exchange.verb} is unknown, so it cannot be played again")
    event = record.at(exchange.answer)
    if exchange.outcome == "refused":
        raise Refused("".join(c if c.isprintable() else " " for c in str(event.payload.get("reason", "it was refused"))[:1000]))
    header, arrays = event.payload.get("readings"), record.arrays(event)
    try:
        readings = codec.readings_from_json(header if isinstance(header, dict) else {}, arrays)
        if any(getattr(readings, cost).shape != (1,) for cost in Readings.COSTS):
            raise codec.Malformed("costs must be those of one lane")
    except (codec.Malformed, OverflowError) as error:
        raise RecordError(f"{record.folder}, event {event.seq}: the readings of {exchange.verb} cannot be read: {error}") from error
    return readings


def observed_readings(record: Record, event: Event) -> tuple[str, None, Readings]:
    """Verb and readings that a shadow has seen. There is no command, and costs are NaN: both are known to who gave it, not to a shadow."""
    return _verb(record, event, event.payload.get("verb")), None, Readings(record.arrays(event), *(np.full(1, math.nan) for _ in Readings.COSTS))


def given(record: Record) -> list[Exchange]:
    """``exchanges`` with at least one command; raises RecordError where there is none, with its reason."""
    found = exchanges(record)
    if not any(exchange.verb for exchange in found):
        if any(event.kind in (WOULD, OBSERVED) for event in record):
            raise RecordError(f"{record.folder} is a shadow's record and holds no commands that were given: replay the guard's")
        raise RecordError(f"{record.folder} holds no commands: there is nothing to play again")
    return found


class _Told(dict[str, np.ndarray]):
    """Arrays of a record; asking for one that it does not hold raises RecordError."""

    def __init__(self, arrays: Arrays, where: str):
        super().__init__(arrays)
        self.where = where

    def __missing__(self, name: str) -> np.ndarray:
        raise RecordError(f"{self.where} tells no {name}: it was not recorded from this environment")


class RecordWorld:
    """A record as a world of one lane: answers a command only if it is the one that was recorded next, a beginning whatever its key.

    tolerance: absolute, of floats, beside 1e-6 of the value. Raises RecordError when the record is damaged or holds no commands.
    """

    lanes = 1

    def __init__(self, folder: str | os.PathLike[str], tolerance: float = 1e-15):
        self.record, self.tolerance, self.position = Record(folder), tolerance, 0
        self.exchanges = given(self.record)

    def _next(self, verb: str) -> Exchange:
        if self.position >= len(self.exchanges):
            raise Refused(f"record {self.record.folder} ends after {len(self.exchanges)} commands, {verb or 'a beginning'} was asked for")
        exchange = self.exchanges[self.position]
        if exchange.verb != verb:
            told = f"{exchange.verb or 'a beginning'} was recorded, {verb or 'a beginning'} was asked for"
            raise Refused(f"record {self.record.folder}, event {exchange.seq}: {told}")
        return exchange

    def begin(self, keys: np.ndarray, where: np.ndarray) -> None:
        self._next("")
        self.position += 1

    def execute(self, command: Command, where: np.ndarray) -> Readings:
        exchange = self._next(command.verb)
        recorded, lanes = recorded_command(self.record, exchange)
        was, asked = recorded.arguments() | {"where": lanes}, command.arguments() | {"where": np.asarray(where)}
        for name, value in asked.items():
            if not _same(was[name], value, self.tolerance):
                told = f"{command.verb}.{name} was {_short(was[name])}, {_short(value)} was asked for"
                raise Refused(f"record {self.record.folder}, event {exchange.seq}: {told}")
        try:
            readings = recorded_readings(self.record, exchange)
        except Refused:  # which is over as well
            self.position += 1
            raise
        self.position += 1
        return replace(readings, values=_Told(readings.values, f"{self.record.folder}, event {exchange.seq}, {exchange.verb},"))

    def truth(self) -> Lanes | None:
        place = self.exchanges[self.position - 1].truth if self.position else None
        if place is None:
            return None
        event = self.record.at(place)
        return _Told(self.record.arrays(event), f"{self.record.folder}, event {event.seq}, truth,")

    def portrait(self, lane: int) -> Lanes:
        return {}

    def glance(self, lane: int, command: Command) -> Lanes:
        return {}

    def snapshot(self, lane: int) -> LaneState:
        return LaneState({"position": np.array(self.position)})

    def restore(self, state: LaneState, lane: int) -> None:
        self.position = int(state.arrays["position"])

    def rekey(self, key: int, lane: int) -> None:
        raise ProbeGymError("a record has only the noise that was recorded: leave the key out")


def _same(was: np.ndarray, asked: np.ndarray, tolerance: float) -> bool:
    if was.shape != asked.shape:
        return False
    numeric = was.dtype.kind in "fiu" and asked.dtype.kind in "fiu"
    with np.errstate(all="ignore"):  # a record may hold any numbers
        return bool(np.allclose(was, asked, rtol=1e-6, atol=tolerance)) if numeric else bool(np.array_equal(was, asked))


def _short(value: np.ndarray) -> str:
    return np.array2string(value, threshold=8, separator=", ").replace("\n", "")[:200]


# ---- the same commands on another world ----


@dataclass(frozen=True)
class Difference:
    """A reading that another world gives otherwise. number: of the command, from 0; event: its number in the record.

    name: of the reading or cost, or ``refused``, ``outcome``. deviation: the largest, absolute; infinite where values cannot be
    compared. told: in words.
    """

    number: int
    event: int
    verb: str
    name: str
    deviation: float
    told: str = field(default="", compare=False)

    def __str__(self) -> str:
        return f"command {self.number} (event {self.event}), {self.verb}: {self.name} {self.told or f'differs by {self.deviation:g}'}"


Permitted = Callable[[Command], object]


def compare(record: Record | str | os.PathLike[str], world: World, rtol: float = 1e-6, atol: float = 0.0, permitted: Permitted | None = None) -> list[Difference]:
    """Give the commands of a record to another world, one by one, and list the readings that differ; empty if none does.

    rtol (relative), atol (in the unit of each reading): as in ``numpy.allclose``; whole numbers and switches must be equal. Beginnings are given with their recorded key.
    permitted: asked before each command, raises Refused for what the world must not be given, such as ``Descriptor.check``.
    Raises RecordError when the record is damaged, holds no commands or tells no key, or when a command is more than the world can bear;
    ProbeGymError when the world has more lanes than one.
    """
    record = record if isinstance(record, Record) else Record(record)
    if world.lanes != 1:
        raise ProbeGymError(f"a record holds one lane, this world has {world.lanes}: compare it with a world of one lane")
    found: list[Difference] = []
    number, begun = -1, False
    for exchange in given(record):
        if not exchange.verb:
            world.begin(recorded_key(record, exchange), np.ones(1, bool))
            begun = True
            continue
        if not begun:
            raise RecordError(f"{record.folder}, event {exchange.seq}: {exchange.verb} was given before any episode began, so no other world can begin alike")
        number += 1
        for name, deviation, told in _deviations(record, exchange, world, rtol, atol, permitted):
            found.append(Difference(number, exchange.seq, exchange.verb, name, deviation, told))
    return found


def _answer(record: Record, exchange: Exchange, world: World, permitted: Permitted | None) -> Readings:
    """What the other world says; raises Refused, and RecordError where it fails: a record may hold any numbers."""
    command, where = recorded_command(record, exchange)
    try:
        if permitted is not None:
            permitted(command)
        return world.execute(command, where)
    except ProbeGymError:
        raise
    except Exception as error:
        told = " ".join(str(error).split())[:100]
        raise RecordError(f"{record.folder}, event {exchange.seq}: this world cannot carry out {exchange.verb} ({type(error).__name__}: {told})") from error


def _deviations(record: Record, exchange: Exchange, world: World, rtol: float, atol: float, permitted: Permitted | None) -> Iterator[tuple[str, float, str]]:
    try:
        answer, refusal = _answer(record, exchange, world, permitted), ""
    except Refused as error:
        answer, refusal = None, str(error)
    if exchange.outcome == "refused":
        if answer is not None:
            yield "refused", math.inf, "was refused when it was recorded"
        return
    if answer is None:
        yield "refused", math.inf, f"({refusal})"
        return
    if exchange.outcome != "result":
        yield "outcome", math.inf, "is unknown in the record"
        return
    wanted = recorded_readings(record, exchange)
    one, other = _all(wanted), _all(answer)
    for name in sorted(set(one) ^ set(other)):
        yield name, math.inf, "is missing" if name in one else "was not recorded"
    for name in sorted(set(one) & set(other)):
        if deviation := _deviation(one[name], np.asarray(other[name]), rtol, atol):
            yield name, deviation, "has another shape" if one[name].shape != np.shape(other[name]) else ""


def _all(readings: Readings) -> Arrays:
    return readings.values | {name: np.asarray(getattr(readings, name)) for name in Readings.COSTS}


def _deviation(was: np.ndarray, now: np.ndarray, rtol: float, atol: float) -> float:
    """Largest absolute difference; 0 within the tolerance, infinite where shapes or finiteness differ."""
    if was.shape != now.shape or was.dtype.kind not in "fiub" or now.dtype.kind not in "fiub":
        return 0.0 if was.shape == now.shape and np.array_equal(was, now) else math.inf
    if was.dtype.kind != "f" and now.dtype.kind != "f":  # whole numbers are exact only as such
        return 0.0 if np.array_equal(was, now) else float(np.max(np.abs(was.astype(object) - now.astype(object))))
    with np.errstate(all="ignore"):  # a reading may be infinite
        if np.allclose(now, was, rtol=rtol, atol=atol, equal_nan=True):
            return 0.0
        one, other = was.astype(float), now.astype(float)
        gap = np.abs(one - other)[~((one == other) | (np.isnan(one) & np.isnan(other)))]
    return float(gap.max()) if np.isfinite(gap).all() else math.inf
