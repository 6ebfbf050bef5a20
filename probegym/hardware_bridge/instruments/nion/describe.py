"""A Nion instrument as a descriptor: its verbs, limits from the setup, and what a command can cost at worst."""

from __future__ import annotations

import numpy as np

from probegym.hardware_bridge.capabilities import Capability, Descriptor, Effect, Range
from probegym.hardware_bridge.instruments.descriptions.base import REGION, around, span
from probegym.hardware_bridge.instruments.nion.beam import Beam, ronchigram_beam
from probegym.hardware_bridge.instruments.nion.setup import NionSetup

SAFE_STEPS = ("blank the beam", "stop the scan")
"""The API has no column valve; what protects the sample is the blanker."""


def described(setup: NionSetup, beam: Beam, sides: tuple[int, int] | None, shift: np.ndarray, stage: np.ndarray) -> Descriptor:
    """The descriptor. sides: rows and columns of the Ronchigram camera as it is binned; None where there is no camera.

    shift, stage: (2,) m, what they stood at when the driver was opened: their ranges lie around that, in the coordinates that the instrument reads back.

    Until an exposure begins, and after it, the beam is on for up to ``lit_seconds``, wherever the probe stands: that is charged with every exposure.
    """
    verbs = {"SetAberrations": _aberrations(setup), "BlankBeam": Capability(effect=Effect.sets, overhead=setup.control_seconds)}
    exposure, rate, wide = span(setup.exposures), beam.rate(), ronchigram_beam(setup, beam)
    idle = rate * setup.lit_seconds
    reach = 2 * setup.excursion  # the excursion, and as much defocus before it; times the semiangle
    if setup.detectors:
        verbs["AcquireImage"] = Capability(
            effect=Effect.reads,
            ranges={"field_of_view": span(setup.views), "dwell_time": span(setup.dwells), "defocus": around(setup.excursion)},
            counts={"shape": setup.sides}, names={"detector": tuple(setup.detectors)}, overhead=setup.seconds, line_overhead=setup.line_seconds,
            current=beam.current, spot=beam.spot, dose=idle + rate * setup.sides[1] * setup.line_seconds,
        )  # fmt: skip
        verbs["PlaceProbe"] = Capability(
            effect=Effect.changes, ranges={"position": around(setup.views[1] / 2), "dwell_time": span((0.0, setup.exposures[1]))},
            overhead=setup.seconds, dose_rate=rate, dose=idle, reach=reach * beam.semiangle,
        )  # fmt: skip
    if sides:
        verbs["AcquireRonchigram"] = Capability(
            effect=Effect.reads, ranges={"exposure_time": exposure, "defocus": around(setup.excursion), "film_shift": around(setup.shift_range)},
            counts={"shape": (min(16, *sides), min(sides))}, overhead=setup.seconds, dose_rate=wide.rate(), dose=wide.rate() * setup.lit_seconds,
            reach=reach * wide.semiangle,
        )  # fmt: skip
    if setup.spectrometer:
        verbs["AcquireSpectrum"] = Capability(
            effect=Effect.reads, ranges={"position": span((0.0, setup.views[1])), "exposure_time": exposure}, names={"detector": ("eels",)},
            may_repeat=("axis",), overhead=setup.seconds, dose_rate=rate, dose=idle, reach=setup.views[1],
        )  # fmt: skip
    if setup.shift_range:
        deflection = _near(shift, np.full(2, setup.shift_range), setup.tolerance)
        verbs["ShiftBeam"] = Capability(effect=Effect.sets, ranges={"shift": deflection}, reads_back={"shift": "shift"}, overhead=setup.control_seconds)
    if setup.stage_range:
        position = _near(np.append(stage, 0.0), np.array([setup.stage_range, setup.stage_range, 0.0]), setup.tolerance)  # height and tilt are not for this driver
        verbs["MoveStage"] = Capability(
            effect=Effect.sets, ranges={"position": position, "tilt": span((0.0, 0.0))}, reads_back={"position": "stage"}, overhead=setup.control_seconds
        )
    return Descriptor(name=setup.name, kind="stem", capabilities=verbs, safe=SAFE_STEPS, region=REGION, safe_seconds=setup.control_seconds)


def _aberrations(setup: NionSetup) -> Capability:
    """A command may move a control by half of its range."""
    most = tuple(setup.controls.values())
    values = Range(low=tuple(-n for n in most), high=most, step=most, tolerance=tuple(setup.tolerance * n for n in most))
    return Capability(
        effect=Effect.sets, ranges={"values": values}, names={"names": tuple(setup.controls)}, reads_back={"values": "aberrations"},
        overhead=setup.control_seconds,
    )  # fmt: skip


def _near(stood: np.ndarray, most: np.ndarray, tolerance: float) -> Range:
    """``most`` around where controls stood, (n,) m, and no farther than that at once, from wherever they stand now."""
    far = float(most.max())
    return Range(low=tuple((stood - most).tolist()), high=tuple((stood + most).tolist()), step=far, tolerance=tolerance * far)
