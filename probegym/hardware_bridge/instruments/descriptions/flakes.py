"""A laboratory of several instruments as one instrument."""

from __future__ import annotations

import numpy as np

from probegym.hardware_bridge.capabilities import Capability, Effect
from probegym.hardware_bridge.commands import InspectLevels
from probegym.hardware_bridge.instruments.descriptions.base import REGION, Description, description, highest, span
from probegym.hardware_bridge.twins.flakes import LIMITS, FlakesTwin, map_seconds
from probegym.physics.flakes import FLAKES

UNICODE = 0x10FFFF  # the last code point
LARGEST = 1e9  # of what is only known not to be below zero


def describe(world: FlakesTwin) -> Description:
    """Data sheets and maps; what a map takes depends on where the sample is, so the longest way to any instrument is charged."""
    c, levels = world.config, world.config.levels
    pace, transfer = highest(c.pace, LIMITS["pace"][1]), highest(c.transfer, LIMITS["transfer"][1])
    longest, above = float(map_seconds(levels, np.full((1, len(levels)), pace), np.full(1, transfer)).max()), (0.0, LARGEST)
    inspect = Capability(
        effect=Effect.reads, may_lack=("correlations",), may_repeat=tuple(InspectLevels().returns()),
        readings={
            "names": (0, UNICODE), "labels": (0, FLAKES), "view": (c.view, c.view), "seconds": (0.0, longest * (1 + 1e-9)), "correlations": (-1, 1),
            **dict.fromkeys(("psf", "side", "noise", "scatter", "dose"), above),
        },
    )  # fmt: skip
    measure = Capability(
        effect=Effect.reads, ranges={"position": span((0.0, c.view))}, names={"level": tuple(world.names)},
        overhead=longest, dose=max(level.dose for level in levels),
    )  # fmt: skip
    verbs = {"InspectLevels": inspect, "MeasureLevel": measure}
    # A map is wider than its position tells: the whole view is one square.
    return description("laboratory twin", "laboratory", verbs, region=max(REGION, c.view))
