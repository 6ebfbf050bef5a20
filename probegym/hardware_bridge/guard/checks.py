"""Every check between a policy and an instrument, in order; each fails closed with one line that says which limit was broken."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from probegym.hardware_bridge import codec
from probegym.hardware_bridge.capabilities import Capability, Charge, Descriptor, one_lane, per_component
from probegym.hardware_bridge.commands import Command, MoveStage, Readings, ShiftBeam
from probegym.hardware_bridge.guard.ledger import Region
from probegym.hardware_bridge.instruments import FRAME, LARGEST_READING, OLDEST_READ, Measured
from probegym.hardware_bridge.world import Refused

OLDEST_ASKED = 5.0  # s between a decision and its command
MOST_REGIONS = 10_000
PLACES = ("position", "centre", "start", "end", "film_shift")
LARGEST_NUMBER = 2**53  # of a request
ROUNDING = 1e-6  # of a region's side, so that a place on a border counts for both sides


@dataclass
class Order:
    """Keeps what was asked for before: numbers only grow, so nothing is sent twice."""

    begun: float = -math.inf  # what was decided before counts for another run
    last: int = -1

    def check(self, number: Any, stamp: object, now: float) -> int:
        """The number of a request; raises Refused for one that is old, doubled or from the future. stamp, now: s, as of ``clock.now``."""
        if not _whole(number) or not isinstance(stamp, float) or not math.isfinite(stamp):
            raise Refused("a request needs a number and the time at which it was decided")
        if number <= self.last:
            raise Refused(f"request {number} was seen before or is out of order: the last was {self.last}")
        if not 0 <= now - stamp <= OLDEST_ASKED:
            raise Refused(f"request {number} was decided {now - stamp:.3g} s ago, at most {OLDEST_ASKED:g} s are allowed")
        if not stamp >= self.begun:
            raise Refused(f"request {number} was decided before the gate was armed")
        self.last = number
        return int(number)


def _whole(number: object) -> bool:
    return isinstance(number, int) and not isinstance(number, bool) and 0 <= number < LARGEST_NUMBER


def action_number(action: Any) -> int:
    """The number of the action that a command belongs to; raises Refused."""
    if not _whole(action):
        raise Refused("a command must say which action it belongs to")
    return int(action)


def well_formed(content: object) -> Command:
    """The command, of one lane; raises Refused for what is no command of the language, of several lanes, or has too few or many numbers."""
    try:
        command = codec.command_from_json(content)
    except codec.Malformed as error:
        raise Refused(str(error)) from error
    one_lane(command)
    return command


def stands(measured: Mapping[str, Measured], control: str, label: str, since: float) -> np.ndarray:
    """What a control is read back to stand at, flat. since: s since it was last set: what was read before that is old.

    Raises Refused where the read-back is missing, no number, or stale.
    """
    told = measured.get(control)
    if told is None:
        raise Refused(f"{label} is not read back")
    values = np.asarray(told.values)
    if values.dtype.kind not in "iuf" or not np.isfinite(values).all():
        raise Refused(f"{label} is read back as what is no number")
    oldest = min(OLDEST_READ, since)
    if not 0 <= told.age <= oldest:
        raise Refused(f"{label} was read back {told.age:.3g} s ago, at most {oldest:.3g} s are allowed")
    return values.astype(float).reshape(-1)


def in_rate(command: Command, capability: Capability, measured: Mapping[str, Measured], since: Callable[[str], float]) -> None:
    """Raise Refused where a control would move too far from where it stands, or too fast. since: s since a control was last set."""
    for name, allowed in capability.ranges.items():
        if allowed.step is None and allowed.rate is None:
            continue
        label, control = f"{command.verb}.{name}", capability.reads_back.get(name, "")
        here, asked = stands(measured, control, label, since(control)), np.asarray(getattr(command, name), float)
        if here.size != asked.size:
            raise Refused(f"{label} has {asked.size} numbers, the instrument reads back {here.size}")
        far, most = np.abs(asked - here.reshape(asked.shape)), np.full(asked.shape, math.inf)
        if allowed.step is not None:
            most = per_component(allowed.step, asked, label)
        if allowed.rate is not None:
            most = np.minimum(most, per_component(allowed.rate, asked, label) * since(control))
        beyond = ~(far <= most * (1 + 1e-9))
        if beyond.any():
            raise Refused(f"{label} would move by {far[beyond].flat[0]:.4g}, at most {most[beyond].flat[0]:.4g} at once: go there in steps")


@dataclass(frozen=True)
class Limits:
    """What may be spent until the next arming: s, irreversible commands, and events of damage."""

    seconds: float
    changes: int
    damage: float


@dataclass
class Account:
    """What has been spent since arming."""

    limits: Limits
    spent: Charge = field(default_factory=lambda: Charge(0.0, 0.0, 0))
    damage: float = 0.0

    def harmed(self, damage: float) -> bool:
        """Count events of damage; whether that is still allowed."""
        self.damage += damage
        return self.damage <= self.limits.damage

    def after(self, charge: Charge) -> Charge:
        """What will have been spent; raises Refused where it is too much."""
        seconds, changes = self.spent.seconds + charge.seconds, self.spent.changes + charge.changes
        if not seconds <= self.limits.seconds:
            raise Refused(f"{self.spent.seconds:.4g} of {self.limits.seconds:.4g} s are spent, this takes up to {charge.seconds:.4g} s more")
        if not changes <= self.limits.changes:
            raise Refused(f"the {self.limits.changes} irreversible commands of this run are spent")
        return Charge(seconds, self.spent.dose + charge.dose, changes)


@dataclass(frozen=True)
class Site:
    """Where on the sample the instrument works: stage and shift of the probe, (2,) m each, and how well the stage is known, m."""

    stage: np.ndarray
    shift: np.ndarray
    margin: float = 0.0


def site(descriptor: Descriptor, measured: Mapping[str, Measured], since: Callable[[str], float]) -> Site:
    """From what stage and beam deflectors stand at; raises Refused where they could have moved and are not read back."""
    found, margin = [], 0.0
    for verb, argument, usual in (("MoveStage", "position", "stage"), ("ShiftBeam", "shift", "shift")):
        capability = descriptor.capabilities.get(verb)
        control = capability.reads_back.get(argument, usual) if capability else usual
        if capability is None and control not in measured:
            found.append(np.zeros(2))
            continue
        place = stands(measured, control, f"where the {usual} stands", since(control))
        if place.size < 2:
            raise Refused(f"where the {usual} stands is read back as {place.size} numbers")
        found.append(place[:2])
        if capability:
            margin += float(np.max(capability.ranges[argument].tolerance or 0.0))
    return Site(found[0], found[1], margin)


def regions(command: Command, descriptor: Descriptor, at: Site) -> list[Region]:
    """The squares of the sample that a command may touch, those on the way of a move among them. Raises Refused for too many, or beyond the sample."""
    asked = [np.asarray(getattr(command, name), float)[0, :2] for name in PLACES if hasattr(command, name)] or [np.zeros(2)]
    origin, shifts = at.stage, [np.zeros(2), at.shift]  # whether a place is told with or without the shift, both count
    if isinstance(command, MoveStage):
        origin, asked = np.zeros(2), [*asked, at.stage]
    if isinstance(command, ShiftBeam):
        shifts.append(command.shift[0])
    places = [origin + place + shift for place in asked for shift in shifts]
    rows, columns = getattr(command, "shape", (1, 1))
    half = getattr(command, "field_of_view", 0.0) / 2 * max(1.0, rows / max(columns, 1))
    margin = half + descriptor.capabilities[command.verb].reach + at.margin + ROUNDING * descriptor.region
    low, high = (np.min(places, 0) - margin) / descriptor.region, (np.max(places, 0) + margin) / descriptor.region
    if not (np.abs([low, high]) < LARGEST_NUMBER).all():
        raise Refused(f"{command.verb} touches places beyond the sample")
    (left, bottom), (right, top) = ([math.floor(n) for n in corner] for corner in (low, high))
    if (right - left + 1) * (top - bottom + 1) > MOST_REGIONS:
        raise Refused(f"{command.verb} touches more than {MOST_REGIONS} regions of {descriptor.region:g} m: make it smaller")
    return [(x, y) for x in range(left, right + 1) for y in range(bottom, top + 1)]


def landed(command: Command, capability: Capability, measured: Mapping[str, Measured]) -> str | None:
    """What a control that was just set does not stand at, as one line; None when all is well."""
    for name, allowed in capability.ranges.items():
        if allowed.tolerance is None:
            continue
        asked, label = np.asarray(getattr(command, name), float), f"{command.verb}.{name}"
        try:
            here = stands(measured, capability.reads_back.get(name, ""), label, OLDEST_READ)
        except Refused as error:
            return str(error)
        if here.size != asked.size:
            return f"{label} has {asked.size} numbers, the instrument reads back {here.size}"
        off = np.abs(asked - here.reshape(asked.shape))
        beyond = ~(off <= per_component(allowed.tolerance, asked, label))
        if beyond.any():
            return f"{label} was set, and stands {off[beyond].flat[0]:.4g} away"
    return None


def implausible(command: Command, readings: Readings, capability: Capability, seen: dict[str, int]) -> str | None:
    """Why readings cannot be taken for new measurements, as one line; None when all is well. ``seen``: checksums of the last frames, kept up to date."""
    for name in Readings.COSTS:
        cost = np.asarray(getattr(readings, name))
        if cost.shape != (1,) or cost.dtype.kind not in "iuf" or not (0 <= cost[0] < math.inf):
            return f"{command.verb}: what it cost in {name} is no number of one lane"
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
        if values.dtype.kind in "iuf" and values.size >= FRAME and name not in capability.may_repeat:
            checksum = zlib.crc32(np.ascontiguousarray(values).tobytes())
            if seen.get(f"{command.verb} {name}") == checksum and known.size and np.ptp(known) > 0:
                return f"{label} is the same to the last bit as the one before: the detector has stopped, or sent an old frame"
            seen[f"{command.verb} {name}"] = checksum
    return None
