"""Instruments that the specimen decides on: spectra behind the pixels of an image, and a laboratory of several instruments."""

from __future__ import annotations

from typing import Literal

import numpy as np

from probegym.hardware_bridge.capabilities import Capability, Descriptor, Effect, Range
from probegym.hardware_bridge.commands import InspectLevels
from probegym.hardware_bridge.instruments.descriptions import limits
from probegym.hardware_bridge.instruments.descriptions.base import REGION, SAFE_STEPS, Description, highest, span
from probegym.hardware_bridge.twins.flakes import LIMITS, FlakesTwin, map_seconds
from probegym.hardware_bridge.twins.spectra import ROUNDING, SAME_VIEW, SpectraTwin
from probegym.hardware_bridge.twins.spectra_sources import Recorded
from probegym.physics.flakes import FLAKES

UNICODE = 0x10FFFF  # the last code point
LARGEST = 1e9  # of what is only known not to be below zero


def spectra(world: SpectraTwin) -> Description:
    """An image and spectra at its pixels: hysteresis loops under the tip of an AFM, all else in a STEM."""
    c, source = world.config, world.source
    rows, columns = source.shape
    view, pixel = source.field_of_view, source.field_of_view / columns
    inside = 1 - 2 * ROUNDING  # of the last pixel
    dose_rate = source.dose(1.0)
    image = Capability(
        effect=Effect.reads,
        ranges={
            "field_of_view": Range(low=view * (1 - 0.99 * SAME_VIEW), high=view * (1 + 0.99 * SAME_VIEW)),
            "dwell_time": span(limits.DWELL), "defocus": span((0.0, 0.0)),
        },
        counts={"shape": (min(rows, columns), max(rows, columns))}, names={"detector": (source.image_detector,)}, dose_rate=dose_rate,
        may_repeat=() if highest(c.image_noise, 100.0) > 0 else (source.image_detector,),
    )  # fmt: skip
    spectrum = Capability(
        effect=Effect.reads,
        ranges={"position": span(((0.0, 0.0), ((columns - 1 + inside) * pixel, (rows - 1 + inside) * pixel))), "exposure_time": span(limits.EXPOSURE)},
        names={"detector": (source.spectrum_detector,)}, readings={"axis": (float(source.axis.min()), float(source.axis.max()))},
        may_repeat=("axis", "spectrum") if isinstance(source, Recorded) else ("axis",),  # what was recorded has no new noise
        overhead=c.overhead + float(np.hypot(columns, rows)) * pixel / c.speed, dose_rate=dose_rate,  # from corner to corner
    )  # fmt: skip
    kind: Literal["afm", "stem"] = "afm" if source.kind == "loop" else "stem"
    verbs = {"AcquireImage": image, "AcquireSpectrum": spectrum}
    # An image does not say where it is; its first pixel is the origin of the positions. One square holds all of it.
    region = max(REGION, view, view * rows / columns)
    descriptor = Descriptor(name=f"spectra twin ({kind.upper()})", kind=kind, capabilities=verbs, safe=SAFE_STEPS[kind], region=region)
    return Description(descriptor, {})


def laboratory(world: FlakesTwin) -> Description:
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
    descriptor = Descriptor(name="laboratory twin", kind="laboratory", capabilities=verbs, safe=SAFE_STEPS["laboratory"], region=max(REGION, c.view))
    return Description(descriptor, {})
