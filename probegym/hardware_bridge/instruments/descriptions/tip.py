"""Scanning-probe microscopes: the STM that conditions its tip, the one that drags adatoms, the tapping-mode AFM."""

from __future__ import annotations

import numpy as np

from probegym.hardware_bridge.capabilities import Capability, Descriptor, Effect, Range
from probegym.hardware_bridge.instruments.descriptions import limits
from probegym.hardware_bridge.instruments.descriptions.base import REGION, SAFE_STEPS, Description, around, span
from probegym.hardware_bridge.twins import adatoms as adatom_twin
from probegym.hardware_bridge.twins import afm as afm_twin
from probegym.hardware_bridge.twins import stm as stm_twin
from probegym.hardware_bridge.twins.adatoms import AdatomTwin
from probegym.hardware_bridge.twins.afm import AfmTwin
from probegym.hardware_bridge.twins.stm import StmTwin
from probegym.physics.adatoms import MOST_SAMPLES
from probegym.physics.stm import WIDEST


def stm(world: StmTwin) -> Description:
    """Images, pulses and dips. Pulses and dips re-form the tip, which is made of the sample's metal: no instrument is lost by them."""
    c, here = world.config, around(stm_twin.FARTHEST)
    image = {"field_of_view": span((limits.LEAST_LENGTH, stm_twin.LARGEST_VIEW)), "speed": span(limits.SPEED), "centre": here, "bias": span(limits.BIAS), "current": span(limits.CURRENT)}
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
    return Description(Descriptor(name="STM twin", kind="stm", capabilities=verbs, safe=SAFE_STEPS["stm"], region=REGION), {})


def adatoms(world: AdatomTwin) -> Description:
    """Images that find adatoms, drags, pulses and dips. What current over bias and the length of a drag may be, the twin itself decides."""
    c, twin, here = world.config, adatom_twin, around(adatom_twin.FARTHEST)
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
    return Description(Descriptor(name="adatom twin", kind="stm", capabilities=verbs, safe=SAFE_STEPS["stm"], region=REGION), {})


def afm(world: AfmTwin) -> Description:
    """Feedback, lines and the relay test."""
    feedback = {name: Range(low=0.0, high=most, tolerance=0.0) for name, most in limits.GAINS.items()}
    # What moves the tip goes by half of its range at most; gains and weights may jump, as they do nothing by themselves.
    feedback |= {name: Range(low=limits.LEAST_LENGTH, high=limits.AMPLITUDE, step=limits.AMPLITUDE / 2, tolerance=0.0) for name in ("setpoint", "drive")}
    feedback |= {"feed_forward": Range(low=0.0, high=1.0, tolerance=0.0)}
    names = {name: f"feedback.{name}" for name in feedback}
    verbs = {
        "SetFeedback": Capability(effect=Effect.sets, ranges=feedback, reads_back=names),
        "ScanLine": Capability(effect=Effect.reads, ranges={"line_rate": span(limits.LINE_RATE)}, counts={"pixels": afm_twin.PIXELS}, readings={"phase": (-np.pi, np.pi)}),
        "TestFeedback": Capability(
            effect=Effect.reads, ranges={"relay": span((limits.LEAST_LENGTH, limits.AMPLITUDE)), "duration": span((limits.LEAST_TIME, afm_twin.LONGEST_TEST))},
            counts={"samples": afm_twin.SAMPLES},
        ),
    }  # fmt: skip
    descriptor = Descriptor(name="AFM twin", kind="afm", capabilities=verbs, safe=SAFE_STEPS["afm"], region=REGION)
    return Description(descriptor, {name: np.zeros(1) for name in names.values()})
