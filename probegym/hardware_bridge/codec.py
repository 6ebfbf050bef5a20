"""Commands and readings as plain JSON and arrays, and messages as bytes. Nothing in a message is executed when it is read.

A command in JSON names its verb and, for every quantity, value and unit:

    {"verb": "PulseBias", "arguments": {"position": {"value": [[1e-08, 0.0]], "unit": "m"}, ...}}

A message is a length, a checksum, a header in JSON, and the bytes of the arrays that the header lists.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
import struct
import typing
import zlib
from collections.abc import Mapping, Sized
from typing import Any

import numpy as np

from probegym.errors import ProbeGymError
from probegym.hardware_bridge import commands
from probegym.hardware_bridge.commands import Command, Readings, Unit

Arrays = dict[str, np.ndarray]
Json = dict[str, Any]


def _is_verb(thing: object) -> bool:
    return isinstance(thing, type) and issubclass(thing, Command) and thing is not Command


VERBS: dict[str, type[Command]] = {kind.__name__: kind for kind in vars(commands).values() if _is_verb(kind)}
"""Every verb of the language."""

MAXIMUM_HEADER, MAXIMUM_BODY = 4_000_000, 512_000_000  # bytes
MAXIMUM_NUMBERS = 1_000_000  # of one argument
PREFIX = struct.Struct("!4sIQI")  # mark, length of the header, length of the arrays, checksum of both
MARK = b"PGm1"
KINDS = "?bBhHiIlLqQefdU"  # type codes of arrays that may travel; none holds objects
TYPE = re.compile(r"[<>|=][biufU]\d{1,9}")  # as arrays spell theirs; NumPy would read more, some of it as Python


class Malformed(ProbeGymError):
    """Bytes or JSON that are no command, reading or message of this version."""


# ---- JSON ----


def dumps(content: Any) -> str:
    """Strict JSON: no NaN, no infinity."""
    return json.dumps(content, allow_nan=False, separators=(",", ":"))


def loads(text: str | bytes) -> Any:
    """Strict JSON: raises Malformed for NaN, numbers too large, names that come twice, and what is nested too deeply."""
    try:
        return json.loads(text, parse_constant=_refuse_constant, parse_float=_finite, object_pairs_hook=_once)
    except Malformed:
        raise
    except (ValueError, RecursionError) as error:
        raise Malformed(f"no valid JSON ({str(error)[:100]})") from error


def _refuse_constant(name: str) -> None:
    raise Malformed(f"JSON holds {name}, which is no number here")


def _finite(text: str) -> float:
    if math.isinf(number := float(text)):
        _refuse_constant(text[:40])
    return number


def _once(pairs: list[tuple[str, Any]]) -> Json:
    held = dict(pairs)
    if len(held) != len(pairs):
        raise Malformed("JSON names one entry twice")
    return held


def shown(thing: Any) -> str:
    """Anything in at most 40 characters of one line, for messages."""
    try:
        return repr(thing)[:40]
    except (ValueError, RecursionError):  # an integer of too many digits, lists in lists without end
        return f"a {type(thing).__name__}"


# ---- commands and readings ----


def _fields(kind: type[Command]) -> dict[str, tuple[Any, Unit | None]]:
    told: dict[str, tuple[Any, Unit | None]] = {}
    hints = typing.get_type_hints(kind, include_extras=True)
    for name, hint in ((entry.name, hints[entry.name]) for entry in dataclasses.fields(kind)):
        base, *extras = typing.get_args(hint) if typing.get_origin(hint) is typing.Annotated else (hint,)
        told[name] = base, next((extra for extra in extras if isinstance(extra, Unit)), None)
    return told


_FIELDS = {verb: _fields(kind) for verb, kind in VERBS.items()}
ARGUMENTS = {verb: {name: (kind, unit.symbol if unit else None) for name, (kind, unit) in told.items()} for verb, told in _FIELDS.items()}
"""Verb -> argument -> its type and, where it is a physical quantity, its unit."""


def shape_of(verb: str, argument: str, named: Mapping[str, Sized]) -> tuple[int, ...]:
    """Shape of a quantity for one lane. named: names by argument, of a command or of what there is, where components go by names."""
    unit = _FIELDS[verb][argument][1]
    if unit is None or unit.components is None:
        return ()
    return (unit.components,) if isinstance(unit.components, int) else (len(named[unit.components]),)


def command_to_json(command: Command) -> Json:
    """The command with the unit of every quantity; floats are written such that they come back bit by bit."""
    told: Json = {}
    for name, (_, unit) in ARGUMENTS[command.verb].items():
        plain = np.asarray(getattr(command, name)).tolist()
        told[name] = plain if unit is None else {"value": plain, "unit": unit}
    return {"verb": command.verb, "arguments": told}


def command_from_json(content: Any) -> Command:
    """The command; raises Malformed for an unknown verb, arguments that lack or are too many, other units, and what is no finite number."""
    if not isinstance(content, dict) or set(content) != {"verb", "arguments"} or not isinstance(content["arguments"], dict):
        raise Malformed("a command is an object with a verb and its arguments")
    verb, given = content["verb"], content["arguments"]
    kind = VERBS.get(verb) if isinstance(verb, str) else None
    if kind is None:
        raise Malformed(f"there is no verb {shown(verb)}: use one of {', '.join(sorted(VERBS))}")
    wanted = ARGUMENTS[kind.__name__]
    if unlike := sorted(set(wanted) ^ set(given)):
        raise Malformed(f"{verb} has the arguments {', '.join(wanted) or 'none'}; lacking or unknown: {', '.join(map(shown, unlike))[:100]}")
    return kind(**{name: _argument(f"{verb}.{name}", given[name], *of) for name, of in wanted.items()})


def _argument(name: str, given: Any, kind: Any, unit: str | None) -> Any:
    if unit is None:
        return _plain(name, given, kind)
    if not isinstance(given, dict) or set(given) != {"value", "unit"}:
        raise Malformed(f"{name} needs a value and a unit, {unit}")
    if given["unit"] != unit:
        raise Malformed(f"{name} is in {unit}, got {shown(given['unit'])}: convert it")
    return _number(name, given["value"]) if kind is float else _numbers(name, given["value"])


def _number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > 1e300 or not math.isfinite(value):
        raise Malformed(f"{name} must be a finite number, got {shown(value)}")
    return float(value)


def _numbers(name: str, value: Any) -> np.ndarray:
    if not isinstance(value, list):
        raise Malformed(f"{name} must be a list of numbers, one entry a lane")
    flat = value
    for _ in range(2):  # at most three axes
        flat = [number for entry in flat for number in (entry if isinstance(entry, list) else [entry])]
    if len(flat) > MAXIMUM_NUMBERS or not all(isinstance(n, int | float) and not isinstance(n, bool) for n in flat):
        raise Malformed(f"{name} must hold numbers, at most {MAXIMUM_NUMBERS}")
    try:
        array = np.array(value, float)
    except (ValueError, OverflowError) as error:
        raise Malformed(f"{name} is ragged or too large: give every lane as many finite numbers") from error
    if not np.isfinite(array).all():
        raise Malformed(f"{name} is not finite")
    return array


def _plain(name: str, given: Any, hint: Any) -> Any:
    """Names, switches, counts and shapes."""
    if hint is bool:
        if not isinstance(given, bool):
            raise Malformed(f"{name} must be true or false, got {shown(given)}")
        return given
    if hint is str:
        if not isinstance(given, str) or len(given) > 200:
            raise Malformed(f"{name} must be a name, got {shown(given)}")
        return given
    if hint is int:
        if isinstance(given, bool) or not isinstance(given, int) or not 0 <= given < 2**31:
            raise Malformed(f"{name} must be a whole number from 0, got {shown(given)}")
        return given
    inner = typing.get_args(hint)
    many = len(inner) == 2 and inner[1] is Ellipsis
    if not isinstance(given, list) or len(given) > 1000 or not (many or len(given) == len(inner)):
        raise Malformed(f"{name} must be a list of {'names' if many else len(inner)}, got {shown(given)}")
    return tuple(_plain(name, value, inner[0]) for value in given)


def readings_to_json(readings: Readings) -> tuple[Json, Arrays]:
    """Header and arrays of readings."""
    costs = {name: np.asarray(getattr(readings, name)).tolist() for name in Readings.COSTS}
    return {"values": sorted(readings.values), "costs": costs}, {name: np.asarray(v) for name, v in readings.values.items()}


def readings_from_json(header: Json, arrays: Arrays) -> Readings:
    """The readings; raises Malformed where names or costs do not fit."""
    try:
        costs = [np.array(header["costs"][name], float) for name in Readings.COSTS]
        values = {name: arrays[name] for name in header["values"]}
    except (KeyError, TypeError, ValueError) as error:
        raise Malformed(f"these are no readings ({type(error).__name__}: {str(error)[:60]})") from error
    if not all(cost.ndim == 1 and np.isfinite(cost).all() and (cost >= 0).all() for cost in costs):
        raise Malformed("readings must cost finite time, dose, damage and measurements, not less than zero")
    return Readings(values, *costs)


# ---- bytes ----


def pack(header: Json, arrays: Arrays | None = None) -> bytes:
    """One message; raises Malformed for what cannot travel."""
    listed, chunks = [], []
    for name, array in (arrays or {}).items():
        if array.dtype.char not in KINDS:
            raise Malformed(f"array {name} has type {array.dtype}, which does not travel")
        listed.append([name, array.dtype.str, list(array.shape)])
        chunks.append(np.ascontiguousarray(array).tobytes())
    try:
        head = dumps({"header": header, "arrays": listed}).encode()
    except ValueError as error:
        raise Malformed(f"a message must hold finite numbers and plain values ({error})") from error
    body = b"".join(chunks)
    if len(head) > MAXIMUM_HEADER or len(body) > MAXIMUM_BODY:
        raise Malformed(f"a message of {len(head)} and {len(body)} bytes is too long")
    return PREFIX.pack(MARK, len(head), len(body), zlib.crc32(body, zlib.crc32(head))) + head + body


def lengths(prefix: bytes) -> tuple[int, int, int]:
    """Length of header and arrays in bytes, and their checksum, from the first PREFIX.size bytes of a message; raises Malformed for any other bytes."""
    mark, head, body, checksum = PREFIX.unpack(prefix)
    if mark != MARK or head > MAXIMUM_HEADER or body > MAXIMUM_BODY:
        raise Malformed("these bytes do not begin a message of this version")
    return head, body, checksum


def unpack(head: bytes, body: bytes, checksum: int) -> tuple[Json, Arrays]:
    """Header and arrays of a message; raises Malformed when bytes were changed or do not fit."""
    if zlib.crc32(body, zlib.crc32(head)) != checksum:
        raise Malformed("a message arrived damaged: its checksum differs")
    content = loads(head)
    if not isinstance(content, dict) or not isinstance(content.get("header"), dict) or not isinstance(content.get("arrays"), list):
        raise Malformed("a message lacks its header or its list of arrays")
    arrays: Arrays = {}
    at = 0
    for entry in content["arrays"]:
        try:
            name, code, shape = entry
            if not isinstance(code, str) or not TYPE.fullmatch(code) or not isinstance(name, str) or name in arrays:
                raise ValueError
            kind = np.dtype(code)
            count = math.prod(int(n) for n in shape)
            if kind.char not in KINDS or any(isinstance(n, bool) or n < 0 for n in shape):
                raise ValueError
            arrays[name] = np.frombuffer(body, kind, count, at).reshape(shape).copy()
        except (TypeError, ValueError, OverflowError) as error:
            raise Malformed(f"a message holds an array that it cannot hold: {shown(entry)}") from error
        at += count * kind.itemsize
    if at != len(body):
        raise Malformed(f"a message has {len(body) - at} bytes more than its arrays")
    return content["header"], arrays
