"""What an instrument can do: its verbs, the range of every argument, and what a command can cost at worst. Plain data, written as JSON.

A command is checked against a descriptor before anything runs. What the descriptor does not allow is refused: an argument
without a range has no range at all.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, PositiveFloat, ValidationError, model_validator

from probegym.errors import ProbeGymError
from probegym.hardware_bridge import codec
from probegym.hardware_bridge.commands import Command
from probegym.hardware_bridge.world import Refused

ELEMENTARY_CHARGE, ANGSTROM = 1.602176634e-19, 1e-10  # C, m, both exact: with scipy.constants a guard would take a third longer to start
Kind = Literal["stem", "afm", "stm", "laboratory"]

class Effect(StrEnum):
    """What a verb does to the instrument or the sample."""

    reads = "reads"  # looks; the probe may still deposit dose
    sets = "sets"  # moves a control that can be moved back
    changes = "changes"  # sample or probe are not as before, for good


Numbers = float | tuple[float, ...]
"""One number for all components of a quantity, or one for each."""


class Range(BaseModel):
    """Where a quantity may lie, in the unit of the language; step and rate are against what the instrument reads back."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    low: Numbers
    high: Numbers
    step: Numbers | None = None  # the most that one command may change it by
    rate: Numbers | None = None  # the most that it may change by in a second
    resolution: NonNegativeFloat = 0.0  # what the instrument tells apart
    tolerance: Numbers | None = None  # between what was set and what is read back; None: not compared

    @model_validator(mode="after")
    def _in_order(self) -> Range:
        if len({len(n) for n in (self.low, self.high, self.step, self.rate, self.tolerance) if isinstance(n, tuple)}) > 1:
            raise ValueError("low, high, step, rate and tolerance must have as many numbers")
        if not np.all(np.asarray(self.low) <= np.asarray(self.high)):
            raise ValueError(f"low must not be above high, got {self.low} and {self.high}")
        if any(n is not None and not np.all(np.asarray(n) > 0) for n in (self.step, self.rate)):
            raise ValueError("step and rate must be above 0")
        return self


class Capability(BaseModel):
    """One verb of an instrument."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    effect: Effect
    ranges: dict[str, Range] = {}  # of every quantity
    counts: dict[str, tuple[int, int]] = {}  # of every whole number, and of the entries of a shape: least and most
    names: dict[str, tuple[str, ...]] = {}  # of every name: those that there are. For a list of names: exactly this list
    reads_back: dict[str, str] = {}  # argument -> name of the measured value that follows it
    readings: dict[str, tuple[float, float]] = {}  # least and most that can be read, where it is known
    may_lack: tuple[str, ...] = ()  # readings that hold NaN where the instrument does not know
    may_repeat: tuple[str, ...] = ()  # readings that can be alike to the last bit each time, such as an axis
    relative: bool = False  # whether the instrument itself moves by differences
    approval: bool = False  # whether an operator must agree each time
    overhead: NonNegativeFloat = 0.0  # s, the most that is added to what the command itself takes
    line_overhead: NonNegativeFloat = 0.0  # s for each row of a shape
    current: NonNegativeFloat = 0.0  # A of beam on the area of the command
    spot: NonNegativeFloat = 0.0  # m^2, the least that the probe covers: where pixels lie farther apart, it alone is exposed
    dose_rate: NonNegativeFloat = 0.0  # electrons per square Angstrom and second of exposure
    dose: NonNegativeFloat = 0.0  # electrons per square Angstrom at once
    reach: NonNegativeFloat = 0.0  # m around the places that the command names within which it touches the sample


@dataclass(frozen=True)
class Charge:
    """What a command can cost at worst. seconds; dose in electrons per square Angstrom; changes: irreversible commands."""

    seconds: float
    dose: float
    changes: int


class Descriptor(BaseModel):
    """An instrument: its kind, its verbs, and the steps that bring it to its safe state, in order."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    name: str = Field(min_length=1, max_length=100)
    kind: Kind
    capabilities: dict[str, Capability]
    safe: tuple[str, ...] = Field(min_length=1)
    region: PositiveFloat = 1e-6  # m, side of the squares of the sample for which dose is counted
    safe_seconds: PositiveFloat = 0.5  # that it may take to its safe state, or to leave it

    @model_validator(mode="after")
    def _complete(self) -> Descriptor:
        for verb, capability in self.capabilities.items():
            if verb not in codec.VERBS:
                raise ValueError(f"there is no verb {verb!r} in the language")
            for name, (kind, unit) in codec.ARGUMENTS[verb].items():
                table = capability.ranges if unit else capability.names if kind in (str, tuple[str, ...]) else capability.counts
                if kind is not bool and name not in table:
                    raise ValueError(f"{verb}.{name} has no limits: an argument without limits is always refused")
            told = {*capability.ranges, *capability.counts, *capability.names, *capability.reads_back}
            if unknown := sorted(told - set(codec.ARGUMENTS[verb])):
                raise ValueError(f"{verb} has no argument {unknown[0]!r}")
            for name, allowed in capability.ranges.items():
                if name not in capability.reads_back and any(n is not None for n in (allowed.step, allowed.rate, allowed.tolerance)):
                    raise ValueError(f"{verb}.{name} is limited against a value that is not read back")
            if capability.current and codec.VERBS[verb].area is Command.area:
                raise ValueError(f"{verb} tells no area that a current spreads over: give its dose_rate")
        return self

    def check(self, command: Command) -> Capability:
        """The capability that the command needs; raises Refused when the verb is not there or an argument lies outside."""
        capability = self.capabilities.get(command.verb)
        if capability is None:
            raise Refused(f"{self.name} has no {command.verb}")
        for name, (kind, unit) in codec.ARGUMENTS[command.verb].items():
            value = getattr(command, name)
            label = f"{command.verb}.{name}"
            if unit:
                _within(label, np.asarray(value, float), capability.ranges[name], unit)
            elif kind in (str, tuple[str, ...]):
                known = capability.names[name]
                if (value not in known) if kind is str else (tuple(value) != known):
                    raise Refused(f"{label}: {self.name} has {', '.join(known)}; asked was {codec.shown(value if kind is str else list(value))}")
            elif kind is not bool:
                low, high = capability.counts[name]
                if not all(low <= n <= high for n in np.atleast_1d(value)):
                    raise Refused(f"{label} may be {low} to {high}, asked was {value}")
        return capability

    def worst_case(self, command: Command) -> Charge:
        """Seconds, dose and changes of a command that ``check`` lets pass, for the lane that costs most. Raises Refused where no finite number bounds them."""
        capability = self.capabilities[command.verb]
        rows = getattr(command, "shape", (0,))[0]
        try:
            with np.errstate(all="ignore"):  # what is no number is refused below
                takes, exposure = (float(np.max(seconds)) for seconds in (command.takes(), command.exposure()))
                seconds = takes + capability.overhead + rows * capability.line_overhead
                dose = capability.dose + capability.dose_rate * exposure
                if capability.current:
                    each = 1 / np.float64(command.area() or 0.0) + (1 / capability.spot if capability.spot else 0.0)  # the pixel's share, and the peak of a lone probe
                    dose += capability.current * exposure / ELEMENTARY_CHARGE * float(each) * ANGSTROM**2
        except ArithmeticError as error:
            raise Refused(f"{command.verb}: what it costs has no bound ({error})") from error
        if not (0 <= takes <= seconds < np.inf and 0 <= exposure and 0 <= dose < np.inf):
            raise Refused(f"{command.verb}: what it costs has no bound ({seconds:g} s, {dose:g} electrons per square Angstrom)")
        return Charge(seconds, dose, int(capability.effect is Effect.changes))


def one_lane(command: Command) -> None:
    """Raise Refused for a command of several lanes, or with too few or too many numbers."""
    for name, (kind, unit) in codec.ARGUMENTS[command.verb].items():
        if unit and kind is not float:
            wanted, shape = (1, *codec.shape_of(command.verb, name, vars(command))), np.shape(getattr(command, name))
            if shape != wanted:
                raise Refused(f"{command.verb}.{name} must have the shape {wanted}, of one lane, not {shape}")


def per_component(numbers: Numbers, values: np.ndarray, name: str) -> np.ndarray:
    """Limits shaped as ``values`` (lanes, ...); raises Refused where they are of another number of components."""
    limits = np.asarray(numbers, float)
    if limits.ndim and values.shape[-1:] != limits.shape:
        raise Refused(f"{name} has {len(limits)} components, got numbers of shape {values.shape}")
    return np.broadcast_to(limits, values.shape)


def _within(name: str, values: np.ndarray, allowed: Range, unit: str) -> None:
    low, high = (per_component(n, values, name) for n in (allowed.low, allowed.high))
    outside = ~((values >= low) & (values <= high))  # true for what is no number
    if outside.any():
        raise Refused(f"{name} must be from {low[outside].flat[0]:g} to {high[outside].flat[0]:g} {unit}, asked was {values[outside].flat[0]:g}")


def descriptor(content: object) -> Descriptor:
    """A descriptor from JSON; raises ProbeGymError with the first thing that is wrong."""
    try:
        return Descriptor.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        raise ProbeGymError(f"descriptor, {'.'.join(map(str, first['loc'])) or 'as a whole'}: {first['msg']}") from error
