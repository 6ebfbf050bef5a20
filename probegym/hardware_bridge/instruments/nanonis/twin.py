"""What the driver of a Nanonis controller must be told of one that is our STM twin."""

from __future__ import annotations

from typing import Any

from probegym.hardware_bridge.capabilities import Capability, Range
from probegym.hardware_bridge.codec import Json
from probegym.hardware_bridge.instruments.nanonis.sample import Sample

LONGEST = 10.0  # s of a pulse or dip, as the controller takes them
DRAG = {"bias": 0.1, "conductance": 10e-6}  # V, S at most
FAST = 1e-6  # m/s of the tip between places: what a command may take at worst is told by it
HEIGHT = 50e-12  # m that the lowest adatom stands out by


def settings_of(sample: Sample, pace: float) -> Json:
    """The settings of a driver for a simulated controller with this twin: what the twin itself allows. pace: simulated seconds a second."""
    verbs = sample.descriptor.capabilities
    image = verbs[sample.looks.__name__]
    told: dict[str, Any] = {
        "name": sample.descriptor.name, "rest": {"bias": 0.5, "current": 50e-12}, "safe_tip": {"threshold": 2 * DRAG["bias"] * DRAG["conductance"]}, "real_time": pace == 1,
        "scan": {
            "field_of_view": [1e-10, _most(image, "field_of_view")], "speed": [1e-11, 1e-6], "current": [1e-12, 1e-9], "bias": _most(image, "bias"), "line_overhead": 0.0,
            "pixels": image.counts["shape"][1], "backward": False,
        },
        "feedback": {"proportional": [1e-15, 1e-9], "time_constant": [1e-6, 1e-2]}, "approach": {"seconds": 120.0}, "travel": FAST, "reach": sample.reach,
    }  # fmt: skip
    if "LocateAdatoms" in verbs:
        told["adatoms"] = {"count": image.counts["count"][1], "height": HEIGHT}
    if drag := verbs.get("DragTip"):
        told["drag"] = DRAG | {"speed": [1e-10, _most(drag, "speed")], "samples": drag.counts["samples"][1]}
    if pulse := verbs.get("PulseBias"):
        told["pulse"] = {"bias": min(_most(pulse, "bias"), 10.0), "duration": [1e-3, LONGEST], "reach": pulse.reach}
    if dip := verbs.get("DipTip"):
        told["dip"] = {"depth": [1e-10, _most(dip, "depth")], "bias": _most(dip, "bias"), "duration": [1e-3, LONGEST], "reach": dip.reach}
    return told


def _most(capability: Capability, name: str) -> float:
    allowed: Range = capability.ranges[name]
    assert isinstance(allowed.high, float)
    return allowed.high
