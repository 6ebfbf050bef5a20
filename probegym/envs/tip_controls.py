"""What a person can do in TipConditioning: look, pulse, dip, or declare."""

from __future__ import annotations

from typing import TYPE_CHECKING

from probegym.envs.controls import Choice, Controls

if TYPE_CHECKING:
    from probegym.envs.tip_conditioning import TipConditioningTask


def controls(task: TipConditioningTask) -> Controls:
    """Of one scenario: one choice, with the radius of the disc that is forbidden afterwards."""
    labels = tuple(name if not radius else f"{name}, disc {1e9 * radius:g} nm" for name, radius in zip(task.names, task.radius, strict=True))
    meaning = "look: an image at another clean place; pulses and dips change the apex by chance and spoil a disc of this radius; declare: the tip is good, the episode ends"
    return Controls((Choice("action", labels, 0, meaning),), lambda values: values["action"])
