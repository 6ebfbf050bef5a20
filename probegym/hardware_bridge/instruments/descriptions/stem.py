"""The tunable STEM as an instrument."""

from __future__ import annotations

import numpy as np

from probegym.hardware_bridge.capabilities import Capability, Effect, Range
from probegym.hardware_bridge.instruments.descriptions import limits
from probegym.hardware_bridge.instruments.descriptions.base import Description, description, flux, span, spot
from probegym.hardware_bridge.twins.stem import RonchigramOptics, StemConfig, StemTwin
from probegym.physics import specimens


def describe(world: StemTwin) -> Description:
    """Corrector, images and Ronchigrams, as far as the scenario has a specimen and a film."""
    c, controls = world.config, len(world.config.controls)
    most = tuple((c.limits * world.lenses.scales[:controls]).tolist())
    # A command may move a control by half of its range. No rates: a twin's clock is not the guard's. It reads back what was set.
    values = Range(low=tuple(-v for v in most), high=most, step=most, tolerance=0.0)
    verbs = {
        "SetAberrations": Capability(
            effect=Effect.sets, ranges={"values": values}, names={"names": tuple(c.controls)}, reads_back={"values": "aberrations"}, overhead=c.command_time,
        )
    }  # fmt: skip
    if c.specimens:
        verbs["AcquireImage"] = _image(c)
    if c.ronchigram:
        verbs["AcquireRonchigram"] = _ronchigram(c, c.ronchigram)
    return description("STEM twin", "stem", verbs, {"aberrations": np.zeros((1, controls))})


def _image(c: StemConfig) -> Capability:
    every = [set(specimens.load(name).detectors) for name in c.specimens]
    detectors = tuple(sorted(set.intersection(*every)))  # an episode has any of the specimens
    return Capability(
        effect=Effect.reads,
        ranges={"field_of_view": span(limits.VIEW), "dwell_time": span(limits.DWELL), "defocus": span(limits.DEFOCUS)},
        counts={"shape": limits.SIDE}, names={"detector": detectors}, readings=dict.fromkeys(detectors, limits.COUNTS),
        overhead=c.frame_overhead, line_overhead=c.flyback_time, current=c.beam_current, spot=spot(c.energy, c.semiangle_cutoff),
    )  # fmt: skip


def _ronchigram(c: StemConfig, optics: RonchigramOptics) -> Capability:
    return Capability(
        effect=Effect.reads,
        ranges={"exposure_time": span(limits.EXPOSURE), "defocus": span(limits.DEFOCUS), "film_shift": span(limits.FILM_SHIFT)},
        counts={"shape": (optics.pixels, optics.pixels)}, readings={"ronchigram": limits.COUNTS},
        overhead=c.frame_overhead, dose_rate=flux(optics.beam_current, spot(c.energy, optics.semiangle_cutoff)),
        reach=2 * limits.DEFOCUS[1] * optics.semiangle_cutoff,  # the excursion, and as much defocus before it
    )  # fmt: skip
