"""The tapping-mode AFM as an instrument."""

from __future__ import annotations

import numpy as np

from probegym.hardware_bridge.capabilities import Capability, Effect, Range
from probegym.hardware_bridge.instruments.descriptions import limits
from probegym.hardware_bridge.instruments.descriptions.base import Description, description, span
from probegym.hardware_bridge.twins import afm as twin


def describe(world: twin.AfmTwin) -> Description:
    """Feedback, lines and the relay test."""
    feedback = {name: Range(low=0.0, high=most, tolerance=0.0) for name, most in limits.GAINS.items()}
    # What moves the tip goes by half of its range at most; gains and weights may jump, as they do nothing by themselves.
    feedback |= {name: Range(low=limits.LEAST_LENGTH, high=limits.AMPLITUDE, step=limits.AMPLITUDE / 2, tolerance=0.0) for name in ("setpoint", "drive")}
    feedback |= {"feed_forward": Range(low=0.0, high=1.0, tolerance=0.0)}
    names = {name: f"feedback.{name}" for name in feedback}
    verbs = {
        "SetFeedback": Capability(effect=Effect.sets, ranges=feedback, reads_back=names),
        "ScanLine": Capability(effect=Effect.reads, ranges={"line_rate": span(limits.LINE_RATE)}, counts={"pixels": twin.PIXELS}, readings={"phase": (-np.pi, np.pi)}),
        "TestFeedback": Capability(
            effect=Effect.reads, ranges={"relay": span((limits.LEAST_LENGTH, limits.AMPLITUDE)), "duration": span((limits.LEAST_TIME, twin.LONGEST_TEST))},
            counts={"samples": twin.SAMPLES},
        ),
    }  # fmt: skip
    return description("AFM twin", "afm", verbs, {name: np.zeros(1) for name in names.values()})
