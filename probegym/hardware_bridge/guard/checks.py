"""Every check between a policy and an instrument, in order; each fails closed with one line that says which limit was broken."""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from probegym.hardware_bridge import codec
from probegym.hardware_bridge.capabilities import Capability, Charge, Descriptor, per_component
from probegym.hardware_bridge.commands import Command, Readings
from probegym.hardware_bridge.guard.ledger import Region
from probegym.hardware_bridge.instruments import Measured
from probegym.hardware_bridge.world import Refused

OLDEST_ASKED = 5.0  # s between a decision and its command
OLDEST_READ = 2.0  # s since a control was read back
MOST_REGIONS = 10_000
LARGEST_READING = 1e15
FRAME = 256  # numbers from which two measurements cannot be alike by chance
PLACES = ("position", "centre", "start", "end")


@dataclass
class Order:
    """Keeps what was asked for before: numbers only grow, so nothing is sent twice."""

    last: int = -1

    def check(self, number: object, stamp: object, now: float) -> int:
        """The number of a request; raises Refused for one that is old, doubled or from the future."""
        if isinstance(number, bool) or not isinstance(number, int) or not isinstance(stamp, float) or not math.isfinite(stamp):
            raise Refused("a request needs a number and the time at which it was decided")
        if number <= self.last:
            raise Refused(f"request {number} was seen before or is out of order: the last was {self.last}")
        if not 0 <= now - stamp <= OLDEST_ASKED:
            raise Refused(f"request {number} was decided {now - stamp:.3g} s ago, at most {OLDEST_ASKED:g} s are allowed")
        self.last = number
        return number


def well_formed(content: object) -> Command:
    """The command, of one lane; raises Refused for what is no command of the language, or of several lanes."""
    try:
        command = codec.command_from_json(content)
    except codec.Malformed as error:
        raise Refused(str(error)) from error
    for name, (kind, unit) in codec.ARGUMENTS[command.verb].items():
        value = getattr(command, name)
        if unit and kind is not float and (value.ndim == 0 or len(value) != 1):
            raise Refused(f"{command.verb}.{name} must be of one lane, this is one instrument")
    return command


def in_rate(command: Command, capability: Capability, measured: Mapping[str, Measured], since: float) -> None:
    """Raise Refused where a control would move too far from where it stands, or too fast; ``since``: s since it was last set."""
    for name, allowed in capability.ranges.items():
        if allowed.step is None and allowed.rate is None:
            continue
        told = measured.get(capability.reads_back.get(name, ""))
        label = f"{command.verb}.{name}"
        if told is None:
            raise Refused(f"{label} has a limit on its steps, and the instrument does not read it back")
        if not 0 <= told.age <= OLDEST_READ:
            raise Refused(f"{label} was read back {told.age:.3g} s ago, at most {OLDEST_READ:g} s are allowed")
        asked = np.asarray(getattr(command, name), float)
        if told.values.size != asked.size:
            raise Refused(f"{label} has {asked.size} numbers, the instrument reads back {told.values.size}")
        far = np.abs(asked - told.values.reshape(asked.shape))
        step, rate = (per_component(math.inf if n is None else n, asked, label) for n in (allowed.step, allowed.rate))
        most = np.minimum(step, rate * since)
        beyond = ~(far <= most * (1 + 1e-9))
        if beyond.any():
            raise Refused(f"{label} would move by {far[beyond].flat[0]:.4g}, at most {most[beyond].flat[0]:.4g} at once: go there in steps")


@dataclass(frozen=True)
class Limits:
    """What may be spent until the next arming: s, and irreversible commands."""

    seconds: float
    changes: int


@dataclass
class Account:
    """What has been spent since arming."""

    limits: Limits
    spent: Charge = field(default_factory=lambda: Charge(0.0, 0.0, 0))

    def after(self, charge: Charge) -> Charge:
        """What will have been spent; raises Refused where it is too much."""
        seconds, changes = self.spent.seconds + charge.seconds, self.spent.changes + charge.changes
        if not seconds <= self.limits.seconds:
            raise Refused(f"{self.spent.seconds:.4g} of {self.limits.seconds:.4g} s are spent, this takes up to {charge.seconds:.4g} s more")
        if not changes <= self.limits.changes:
            raise Refused(f"the {self.limits.changes} irreversible commands of this run are spent")
        return Charge(seconds, self.spent.dose + charge.dose, changes)


def regions(command: Command, descriptor: Descriptor, stage: np.ndarray) -> list[Region]:
    """The squares of the sample that a command touches; ``stage``: (2,) m, where the stage stands."""
    places = [np.asarray(getattr(command, name), float)[0, :2] for name in PLACES if hasattr(command, name)] or [np.zeros(2)]
    half = getattr(command, "field_of_view", 0.0) / 2
    low, high = np.min(places, 0) + stage - half, np.max(places, 0) + stage + half
    first, last = np.floor(low / descriptor.region).astype(int), np.floor(high / descriptor.region).astype(int)
    if (last - first + 1).prod() > MOST_REGIONS:
        raise Refused(f"{command.verb} touches more than {MOST_REGIONS} regions of {descriptor.region:g} m: make it smaller")
    return [(int(x), int(y)) for x in range(first[0], last[0] + 1) for y in range(first[1], last[1] + 1)]


def landed(command: Command, capability: Capability, measured: Mapping[str, Measured]) -> str | None:
    """What a control that was just set does not stand at, as one line; None when all is well."""
    for name, allowed in capability.ranges.items():
        if allowed.tolerance is None:
            continue
        told = measured.get(capability.reads_back.get(name, ""))
        asked, label = np.asarray(getattr(command, name), float), f"{command.verb}.{name}"
        if told is None or told.values.size != asked.size or not 0 <= told.age <= OLDEST_READ:
            return f"{label} is not read back"
        off = np.abs(asked - told.values.reshape(asked.shape))
        beyond = ~(off <= per_component(allowed.tolerance, asked, label))
        if beyond.any():
            return f"{label} was set, and stands {off[beyond].flat[0]:.4g} away"
    return None


def implausible(command: Command, readings: Readings, capability: Capability, seen: dict[str, int]) -> str | None:
    """Why readings cannot be taken for new measurements, as one line; None when all is well. ``seen``: checksums of the last frames, kept up to date."""
    wanted = command.returns()
    if lacking := [name for name in wanted if name not in readings.values]:
        return f"{command.verb}: the instrument did not send {', '.join(lacking)}"
    for name, values in readings.values.items():
        label = f"{command.verb}: reading {name}"
        shape = wanted.get(name)
        if shape is not None and values.shape[1:] != tuple(shape):
            return f"{label} has the shape {values.shape[1:]}, not {tuple(shape)}"
        if values.shape[:1] != (1,) or values.dtype.kind not in "biuf":
            return f"{label} is no array of numbers of one lane"
        known = values[~np.isnan(values)] if name in capability.may_lack and values.dtype.kind == "f" else values
        low, high = capability.readings.get(name, (-LARGEST_READING, LARGEST_READING))
        if not ((known >= low) & (known <= high)).all():
            return f"{label} is not within {low:g} and {high:g}"
        if values.dtype.kind == "f" and values.size >= FRAME:
            checksum = zlib.crc32(np.ascontiguousarray(values).tobytes())
            if seen.get(f"{command.verb} {name}") == checksum and np.ptp(known) > 0:
                return f"{label} is the same to the last bit as the one before: the detector has stopped, or sent an old frame"
            seen[f"{command.verb} {name}"] = checksum
    return None
