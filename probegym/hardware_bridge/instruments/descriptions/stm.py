"""The STM that conditions its tip as an instrument."""

from __future__ import annotations

from probegym.hardware_bridge.capabilities import Capability, Effect
from probegym.hardware_bridge.instruments.descriptions import limits
from probegym.hardware_bridge.instruments.descriptions.base import Description, around, description, span
from probegym.hardware_bridge.twins import stm as twin
from probegym.physics.stm import WIDEST


def describe(world: twin.StmTwin) -> Description:
    """Images, pulses and dips. Pulses and dips re-form the tip, which is made of the sample's metal: no instrument is lost by them."""
    c, here = world.config, around(twin.FARTHEST)
    image = {"field_of_view": span((limits.LEAST_LENGTH, twin.LARGEST_VIEW)), "speed": span(limits.SPEED), "centre": here, "bias": span(limits.BIAS), "current": span(limits.CURRENT)}
    verbs = {
        "AcquireTopograph": Capability(
            effect=Effect.reads, ranges=image, counts={"shape": (1, WIDEST)}, readings={"verdict": (0, 1)}, overhead=c.approach_time,
        ),
        "PulseBias": Capability(
            effect=Effect.changes, overhead=c.approach_time, reach=max(c.pulses.spoil_radius),
            ranges={"position": here, "bias": around(c.pulses.strength[-1]), "duration": span(limits.PULSE)},
        ),
        "DipTip": Capability(
            effect=Effect.changes, overhead=c.approach_time, reach=max(c.dips.spoil_radius),
            ranges={"position": here, "depth": span((limits.LEAST_LENGTH, c.dips.strength[-1])), "bias": span(limits.BIAS), "duration": span(limits.PULSE)},
        ),
    }  # fmt: skip
    return description("tip twin", "stm", verbs)
