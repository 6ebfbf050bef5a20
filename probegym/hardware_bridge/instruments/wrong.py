"""Commands that an instrument must not carry out, made from those that it does."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator

import numpy as np

from probegym.hardware_bridge import codec
from probegym.hardware_bridge.capabilities import Capability, per_component
from probegym.hardware_bridge.commands import Command


def outside(command: Command, capability: Capability) -> Iterator[tuple[Command, str]]:
    """Commands that a descriptor does not allow, made from one that it does: each argument beyond its limits."""
    for name, allowed in capability.ranges.items():
        value = np.asarray(getattr(command, name), float)
        low, high = (per_component(n, value, name) for n in (allowed.low, allowed.high))
        beyond = 0.1 * (high - low) + 0.1 * np.abs(high) + 1e-30
        for number, why in ((high + beyond, "above"), (low - beyond, "below")):
            changed = number if isinstance(getattr(command, name), np.ndarray) else float(number)
            yield dataclasses.replace(command, **{name: changed}), f"with {name} {why} its range"
    for name, (_, most) in capability.counts.items():
        counts = getattr(command, name)
        yield dataclasses.replace(command, **{name: (most + 1, *counts[1:]) if isinstance(counts, tuple) else most + 1}), f"with {name} above its range"
    for name in capability.names:
        known = getattr(command, name)
        yield dataclasses.replace(command, **{name: "nothing of the kind" if isinstance(known, str) else (*known, "nothing of the kind")}), f"with an unknown {name}"


def malformed(command: Command) -> Iterator[tuple[Command, str]]:
    """Commands with what is no number, and of two lanes; some of them cannot even be written down."""
    for name, (kind, unit) in codec.ARGUMENTS[command.verb].items():
        value = getattr(command, name)
        if unit and kind is float:
            yield dataclasses.replace(command, **{name: math.nan}), f"with {name} no number"
        elif unit:
            yield dataclasses.replace(command, **{name: np.full_like(value, np.nan)}), f"with {name} no number"
            yield dataclasses.replace(command, **{name: np.concatenate([value, value])}), f"with {name} of two lanes"
