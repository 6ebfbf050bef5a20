"""The STM that drags adatoms as an instrument."""

from __future__ import annotations

from probegym.hardware_bridge.capabilities import Capability, Effect
from probegym.hardware_bridge.instruments.descriptions import limits
from probegym.hardware_bridge.instruments.descriptions.base import Description, around, description, span
from probegym.hardware_bridge.twins import adatoms as twin
from probegym.physics.adatoms import MOST_SAMPLES
from probegym.physics.stm import WIDEST


def describe(world: twin.AdatomTwin) -> Description:
    """Images that find adatoms, drags, pulses and dips. What current over bias and the length of a drag may be, the twin itself decides."""
    c, here = world.config, around(twin.FARTHEST)
    image = {"field_of_view": span((limits.LEAST_LENGTH, twin.LARGEST_VIEW)), "speed": span(limits.SPEED), "centre": here, "bias": span(limits.BIAS), "current": span(limits.CURRENT)}
    drag = {
        "start": here, "end": here, "bias": around(twin.HIGHEST_BIAS), "speed": span(twin.SPEEDS),
        "current": span((limits.CURRENT[0], twin.HIGHEST_CONDUCTANCE * twin.HIGHEST_BIAS)),
    }  # fmt: skip
    verbs = {
        "LocateAdatoms": Capability(
            effect=Effect.reads, ranges=image, counts={"shape": (1, WIDEST), "count": (1, c.adatoms.count)}, readings={"found": (0, 1)}, overhead=c.approach_time,
        ),
        "DragTip": Capability(effect=Effect.changes, ranges=drag, counts={"samples": (1, MOST_SAMPLES)}, overhead=c.approach_time),
        "PulseBias": Capability(
            effect=Effect.changes, overhead=c.approach_time, reach=twin.SPOILT,
            ranges={"position": here, "bias": around(c.pulses.strength[-1]), "duration": span(limits.PULSE)},
        ),
        "DipTip": Capability(
            effect=Effect.changes, overhead=c.approach_time, reach=twin.SPOILT,
            ranges={"position": here, "depth": span((limits.LEAST_LENGTH, c.dips.strength[-1])), "bias": span(limits.BIAS), "duration": span(limits.PULSE)},
        ),
    }  # fmt: skip
    return description("adatom twin", "stm", verbs)
