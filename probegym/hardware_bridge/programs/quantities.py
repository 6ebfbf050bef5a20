"""What programs can ask of readings and costs: their units, statistics, and how quantities are printed."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from probegym.hardware_bridge import codec
from probegym.hardware_bridge.commands import DOSE, Readings

COSTS = dict(zip(Readings.COSTS, ("s", DOSE, "1", "1"), strict=True))
"""Name of a cost -> its unit."""

STATISTICS: dict[str, Callable[[np.ndarray], float]] = {
    "std": lambda numbers: float(numbers.std()),
    "mean": lambda numbers: float(numbers.mean()),
    "max": lambda numbers: float(numbers.max()),
    "min": lambda numbers: float(numbers.min()),
    "range": lambda numbers: float(numbers.max() - numbers.min()),
    "count": lambda numbers: float(np.count_nonzero(numbers)),
}
"""Of all numbers of a reading that are there, NaN aside; ``count`` is how many are not zero (atoms found, pixels lit)."""

UNITS = {unit for arguments in codec.ARGUMENTS.values() for _, unit in arguments.values() if unit} | {"1", DOSE}
"""Every unit of the language."""

PREFIXED = {"m", "s", "A", "V", "Hz", "eV", "rad", "m/s", "N"}
PREFIXES = {-15: "f", -12: "p", -9: "n", -6: "u", -3: "m", 0: "", 3: "k", 6: "M", 9: "G"}


def reading_unit(verb: str, reading: str, statistic: str) -> str:
    """Unit of a statistic of a reading."""
    kind = codec.VERBS.get(verb)
    return "1" if statistic == "count" or kind is None else kind.units.get(reading, "1")


def quantity(value: float, unit: str, digits: int = 6) -> str:
    """A number with its unit for people: 5e-09 and "m" give "5 nm"."""
    value = float(f"{value:.{digits}g}") + 0.0  # no minus before a zero
    if unit not in PREFIXED or value == 0 or not math.isfinite(value):
        return f"{value:g}" + ("" if unit == "1" else f" {unit}")
    power = 3 * math.floor(math.log10(abs(value) * (1 + 1e-9)) / 3)
    if power not in PREFIXES:
        return f"{value:g} {unit}"
    return f"{value / 10.0**power:.{digits}g} {PREFIXES[power]}{unit}"
