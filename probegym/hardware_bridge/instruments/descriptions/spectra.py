"""Spectra behind the pixels of an image, in a STEM or an AFM, as an instrument."""

from __future__ import annotations

from typing import Literal

import numpy as np

from probegym.hardware_bridge.capabilities import Capability, Effect, Range
from probegym.hardware_bridge.instruments.descriptions import limits
from probegym.hardware_bridge.instruments.descriptions.base import REGION, Description, description, highest, span
from probegym.hardware_bridge.twins.spectra import ROUNDING, SAME_VIEW, SpectraTwin
from probegym.hardware_bridge.twins.spectra_sources import Recorded


def describe(world: SpectraTwin) -> Description:
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
    return description(f"spectra twin ({kind.upper()})", kind, verbs, region=region)
