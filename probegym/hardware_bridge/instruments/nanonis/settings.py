"""What a user says about an STM behind a Nanonis controller: within which limits a driver may work. What is not said is not allowed.

A number is in SI units; a text may carry its unit and a prefix: "50 pA", "-1 V", "100 nm/s", "6 uS". A section that is left out takes its verb
with it: without ``drag`` there is no DragTip.
"""

from __future__ import annotations

import re
from decimal import Context, Decimal, localcontext
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from scipy import constants

from probegym import tables
from probegym.errors import ProbeGymError

LONGEST_FILE = 1 << 20
PREFIXES = {"": 0, "f": -15, "p": -12, "n": -9, "u": -6, "µ": -6, "m": -3, "k": 3, "M": 6}
MOST = {"m": 1e-3, "m/s": 1e-3, "V": 10.0, "A": 1e-3, "S": 1e-4, "s": 1e4}  # beyond which a number was meant in another unit
SLOWEST = 1e-12  # m/s of anything
CONTACT = 2 * constants.e**2 / constants.h  # S, one conductance quantum: a tip at it touches
SHOWN = 10e-6  # A that a preamplifier shows at most, 10 V at 1e6 V/A: a threshold at it would never act
EXACT = Context(traps=[])  # what is too large for it is infinite
CONTACT_SHARE = 0.5  # of the threshold of SafeTip: no setpoint may be nearer to it
SAME = 1e-9  # relative, that products of what a user says are off by rounding


def _quantity(unit: str) -> BeforeValidator:
    pattern = re.compile(rf"([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*(?:([{''.join(PREFIXES)}]?){re.escape(unit)})?", re.ASCII)

    def read(value: Any) -> Any:
        if isinstance(value, str):
            if not (found := pattern.fullmatch(value.strip())):
                raise ValueError(f"{value[:40]!r} is no number of {unit}")
            with localcontext(EXACT):
                value = float(Decimal(found[1]).scaleb(PREFIXES[found[2] or ""]))
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError(f"needed is a number of {unit}, or a text such as '1 {unit}'")
        if not abs(value) <= MOST[unit]:
            raise ValueError(f"{Decimal(value):.4g} {unit} is more than any such instrument has: numbers without a unit are in SI units")
        return value

    return BeforeValidator(read)


Metre = Annotated[float, _quantity("m")]
Speed = Annotated[float, _quantity("m/s"), Field(ge=SLOWEST)]
Volt = Annotated[float, _quantity("V")]
Ampere = Annotated[float, _quantity("A")]
Siemens = Annotated[float, _quantity("S")]
Second = Annotated[float, _quantity("s")]
Above = Field(gt=0)


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @model_validator(mode="after")
    def _in_order(self) -> _Section:
        for name, value in self:
            if isinstance(value, tuple) and not 0 < value[0] <= value[1]:
                raise ValueError(f"{name} is from a number above 0 to one that is not below it, got {value[0]:g} and {value[1]:g}")
        return self


class Rest(_Section):
    """What the tip lands with, moves with, and goes back to: nothing that disturbs the sample."""

    bias: Volt
    current: Annotated[Ampere, Above]


class SafeTip(_Section):
    """The controller's own protection. threshold: A at which it takes the tip away; below what the preamplifier can show."""

    threshold: Annotated[Ampere, Field(gt=0, lt=SHOWN)]


class Scan(_Section):
    """Images. bias: V of either sign at most; conductance: S at most; pixels a side; line_overhead: s that a line takes longer than its way.

    backward: whether the image on the way back is read as well, to take the lag of the feedback out of positions.
    """

    field_of_view: tuple[Metre, Metre]
    speed: tuple[Speed, Speed]
    current: tuple[Ampere, Ampere]
    bias: Annotated[Volt, Above]
    conductance: Annotated[Siemens, Field(gt=0, lt=CONTACT)] = 10e-9
    pixels: int = Field(512, ge=8, le=4096)
    line_overhead: Annotated[Second, Field(ge=0)] = 0.05
    backward: bool = True


class Adatoms(_Section):
    """What adatoms look like. height: m that the lowest stands out by; width: m, standard deviation; jump: m that one may have moved between two images."""

    count: int = Field(ge=1, le=64)
    height: Annotated[Metre, Above]
    width: Annotated[Metre, Above] = 0.25e-9
    jump: Annotated[Metre, Above] = 10e-9


class Drag(_Section):
    """Drags at constant height. bias: V of either sign at most; conductance: S at most; length: m at most; recorded: samples that the tip recorder keeps."""

    bias: Annotated[Volt, Above]
    conductance: Annotated[Siemens, Field(gt=0, lt=CONTACT)]
    speed: tuple[Speed, Speed]
    length: Annotated[Metre, Above] = 20e-9
    samples: int = Field(8192, ge=1, le=1 << 16)
    recorded: int | None = Field(None, ge=1, le=1 << 16)  # else as many as a drag asks for


class Pulse(_Section):
    """Bias pulses. bias: V of either sign at most; reach: m around the place within which they change the sample."""

    bias: Annotated[Volt, Above]
    duration: tuple[Second, Second]
    reach: Annotated[Metre, Above]


class Dip(_Section):
    """Dips of the tip into the surface; depth: m at most; bias: V of either sign at most. SafeTip is off while one lasts."""

    depth: tuple[Metre, Annotated[Metre, Field(le=10e-9)]]
    bias: Annotated[Volt, Above]
    duration: tuple[Second, Second]
    reach: Annotated[Metre, Above]


class Feedback(_Section):
    """The Z-controller: proportional gain in m, time constant in s."""

    proportional: tuple[Metre, Metre]
    time_constant: tuple[Second, Second]


class Approach(_Section):
    """The coarse approach by the motor; seconds: how long it may take."""

    seconds: Annotated[Second, Above]


class Settings(_Section):
    """All of it. reach: m from the centre of the piezo at most, None for what the controller says; travel: m/s between two places.

    land: s that the tip takes at most from where it is withdrawn to; withdraw: m/s on its way up, at least; clearance: m that a tip which is away has to
    where the surface was; place: m that a position read back may be off; hold: s for which Z is averaged before the feedback is switched off; real_time: false for a simulated controller that takes less time than it says.
    """

    name: str = Field("Nanonis STM", min_length=1, max_length=60)
    rest: Rest
    safe_tip: SafeTip
    scan: Scan
    adatoms: Adatoms | None = None
    drag: Drag | None = None
    pulse: Pulse | None = None
    dip: Dip | None = None
    feedback: Feedback | None = None
    approach: Approach | None = None
    reach: Annotated[Metre, Above] | None = None
    travel: Annotated[Speed, Field(ge=1e-10)] = 50e-9
    land: Annotated[Second, Above] = 20.0
    withdraw: Annotated[Speed, Field(ge=1e-9)] = 2e-6
    hold: Annotated[Second, Field(ge=0, le=10)] = 0.05
    clearance: Annotated[Metre, Above] = 20e-9
    place: Annotated[Metre, Field(gt=0, le=1e-9)] = 20e-12
    real_time: bool = True

    @model_validator(mode="after")
    def _consistent(self) -> Settings:
        if not self.rest.current <= self.scan.conductance * abs(self.rest.bias):
            raise ValueError("rest: its current over bias is above scan.conductance, or its bias is 0: choose a higher bias or a lower current")
        most = max(self.scan.current[1], self.drag.conductance * self.drag.bias if self.drag else 0.0)
        if self.drag and not self.drag.conductance * self.drag.bias >= self.scan.current[0]:
            raise ValueError(f"drag: its bias times its conductance is below the least setpoint, {self.scan.current[0]:g} A (of scan.current): no drag is possible")
        if not most <= CONTACT_SHARE * self.safe_tip.threshold * (1 + SAME):
            raise ValueError(f"safe_tip.threshold must be at least {1 / CONTACT_SHARE:g} times the highest setpoint, {most:g} A (of scan.current and drag)")
        return self


def settings(table: object, source: str = "settings", lines: tables.Lines | None = None) -> Settings:
    """Settings from a table; raises ProbeGymError with source, line and key of the first thing that is wrong."""
    try:
        return Settings.model_validate(table)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        entry = tuple(map(str, first["loc"]))
        where = [source, f"line {tables.nearest(lines, entry)}" if lines else "", ".".join(entry)]
        msg, told = first["msg"].removeprefix("Value error, "), list(first.get("ctx", {}).values())
        if told and isinstance(told[0], int | float):  # a bound, which would come with all its noughts
            msg = f"{msg.rpartition(' ')[0]} {told[0]:g}"
        raise ProbeGymError(f"{', '.join(filter(None, where))}: {msg}") from error


def settings_file(path: Path) -> Settings:
    """Settings from a YAML or JSON file; raises ProbeGymError with file, line and key."""
    table, lines = tables.read(path, "settings", LONGEST_FILE)
    return settings(table, str(path), lines)


def read_settings(told: object) -> Settings:
    """Settings as a driver is told of them: a table, or the path of a file."""
    return settings_file(Path(told)) if isinstance(told, str) else settings(told)
