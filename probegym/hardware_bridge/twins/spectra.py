"""The twin of an instrument that images a specimen and takes a spectrum behind any pixel; N lanes at once.

What the specimen is, and what its spectra are, is a source's affair (spectra_sources.py): plasmons in a STEM, hysteresis
loops under a piezoresponse tip, the centre of mass of diffraction patterns, or a recorded data set.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from probegym.errors import ProbeGymError
from probegym.hardware_bridge.commands import AcquireImage, AcquireSpectrum, Lanes, LaneState, Readings
from probegym.hardware_bridge.twins.lanes import LaneTwin, blamed_on, refuse_outside
from probegym.hardware_bridge.twins.spectra_sources import AnySource, Source
from probegym.hardware_bridge.world import Refused
from probegym.physics import randomness, scalarizers
from probegym.scenarios import ScenarioError, parsed
from probegym.scenarios.distributions import Sampled

SAME_VIEW = 1e-6  # relative difference of two fields of view that are the same
ROUNDING = 1e-9  # pixels by which a place may lie before its pixel


class SpectraConfig(BaseModel):
    """The ``world`` table of a scenario; every number a draw may replace is sampled once an episode."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    source: AnySource
    specimen: dict[str, Sampled] = {}  # what the source draws; SI
    image_noise: Sampled = Field(default=0.02, validate_default=True)  # of the image's own standard deviation
    speed: float = Field(1e-6, gt=0, le=1)  # m/s, from place to place
    overhead: float = Field(0.0, ge=0, le=1e4)  # s, each spectrum


class SpectraTwin(LaneTwin):
    """Implements the world protocol; ``config`` is the ``world`` table of a scenario."""

    noun = "this instrument has"

    def __init__(self, config: dict[str, Any], lanes: int) -> None:
        self.config = c = parsed(SpectraConfig, config, "world")
        self.source: Source = c.source
        for name in c.specimen.keys() - self.source.fields.keys():
            raise ScenarioError(f"world.specimen.{name}", f"unknown, there is {', '.join(self.source.fields) or 'nothing to draw'}")
        self.lanes = lanes
        self._handlers = {AcquireImage: self._image, AcquireSpectrum: self._spectrum}
        with blamed_on("world.source"):
            rows, columns = self.source.shape
        pixels, channels = rows * columns, len(self.source.axis)
        own: Lanes = {
            "key": np.zeros(lanes, np.uint64),
            "count": np.zeros(lanes, np.int64),  # commands so far; with the key it decides all noise
            "image": np.zeros((lanes, rows, columns), np.float32),
            "image_noise": np.zeros(lanes),
            "spectra": np.zeros((lanes, pixels, channels), np.float32),
            "at": np.zeros((lanes, 2)),  # m, where the probe is
        }
        drawn: Lanes = {name: np.zeros(lanes) for name in c.specimen}
        self.state: Lanes = own | drawn | {name: np.zeros((lanes, pixels), np.float32) for name in self.source.hidden}
        fitting = [name for name, one in scalarizers.SCALARIZERS.items() if one.kind == self.source.kind]
        self._scalars: Lanes = {name: np.zeros((lanes, pixels)) for name in fitting}
        self._sorted: Lanes = {name: np.zeros((lanes, pixels)) for name in fitting}
        self._failed: Lanes = {name: np.zeros(lanes, bool) for name in fitting}

    # ---- world protocol ----

    def begin(self, keys: np.ndarray, where: np.ndarray) -> None:
        s, c, on = self.state, self.config, np.nonzero(where)[0]
        keys = np.asarray(keys, np.uint64)[on]
        drawn = {name: field.sample(keys, f"specimen {name}") for name, field in c.specimen.items()}
        drawn |= {"image_noise": c.image_noise.sample(keys, "image noise")}
        for name, values in drawn.items():  # first, because it may refuse
            refuse_outside(name, values, (self.source.fields | {"image_noise": (0.0, 100.0)})[name])
        noise = drawn.pop("image_noise")
        with blamed_on("world.source"):
            maps = self.source.draw(keys, drawn)
        s["key"][on], s["count"][on], s["at"][on] = keys, 0, 0.0
        for name, values in (drawn | maps | {"image_noise": noise}).items():
            s[name][on] = values
        self._judge(on)

    def _judge(self, lanes: np.ndarray) -> None:
        """Every scalarizer at every place; what is undefined is worth the least. Who holds the last truth keeps it.

        One that fails here may be none that the task needs: it is left out of the truth, and the task refuses if it does need it.
        """
        self._scalars, self._sorted = ({name: array.copy() for name, array in maps.items()} for maps in (self._scalars, self._sorted))
        for name, scalars in self._scalars.items():
            for lane in lanes:
                try:
                    value = scalarizers.named(name)(self.source.axis, self.state["spectra"][lane])
                except ProbeGymError:
                    value = np.full(scalars.shape[1:], np.nan)
                    self._failed[name][lane] = True
                else:
                    self._failed[name][lane] = False
                finite = np.isfinite(value)
                scalars[lane] = np.where(finite, value, value[finite].min(initial=np.inf) if finite.any() else 0.0)
                self._sorted[name][lane] = np.sort(scalars[lane])

    def truth(self) -> Lanes:
        sound = [name for name, failed in self._failed.items() if not failed.any()]
        return {f"scalar {name}": self._scalars[name] for name in sound} | {f"sorted {name}": self._sorted[name] for name in sound}

    def restore(self, state: LaneState, lane: int) -> None:
        super().restore(state, lane)
        self._judge(np.array([lane]))

    # ---- commands ----

    def _image(self, command: AcquireImage, where: np.ndarray) -> Readings:
        s, source = self.state, self.source
        if command.detector != source.image_detector:
            raise Refused(f"this instrument has no detector {command.detector!r} for images: use {source.image_detector!r}", "AcquireImage.detector")
        if tuple(command.shape) != source.shape or abs(command.field_of_view / source.field_of_view - 1) > SAME_VIEW:
            raise Refused(f"this specimen is mapped with {source.shape[0]} x {source.shape[1]} pixels over {source.field_of_view:.9g} m")
        if command.dwell_time <= 0 or command.defocus[where].any():
            raise Refused("an image here needs a positive dwell_time and no defocus")
        image, pixels = s["image"], source.shape[0] * source.shape[1]
        noise = randomness.normal(s["key"], s["count"], "image", pixels).reshape(image.shape)
        contrast = image.reshape(self.lanes, -1).std(1)
        seen = image + (s["image_noise"] * contrast)[:, None, None] * noise
        return self._readings(where, command.dwell_time * pixels, 0, source.dose(command.dwell_time), **{source.image_detector: seen * where[:, None, None]})

    def _spectrum(self, command: AcquireSpectrum, where: np.ndarray) -> Readings:
        s, c, source = self.state, self.config, self.source
        if command.detector != source.spectrum_detector:
            raise Refused(f"this instrument has no detector {command.detector!r} for spectra: use {source.spectrum_detector!r}", "AcquireSpectrum.detector")
        if command.exposure_time <= 0:
            raise Refused(f"a spectrum needs a positive exposure_time, got {command.exposure_time:g} s")
        rows, columns = source.shape
        pixel = np.floor(command.position * (columns / source.field_of_view) + ROUNDING).astype(int)
        inside = (pixel >= 0).all(1) & (pixel[:, 0] < columns) & (pixel[:, 1] < rows)
        if not inside[where].all():
            raise Refused(f"a place lies outside the image of {1e9 * source.field_of_view:g} nm")
        place = np.where(where, pixel[:, 1] * columns + pixel[:, 0], 0)
        expected = s["spectra"][np.arange(self.lanes), place]
        lanes = np.nonzero(where)[0]
        here = {name: s[name][lanes] for name in ("key", "count", *c.specimen)} | {name: s[name][lanes, place[lanes]] for name in source.hidden}
        measured = np.zeros_like(expected)
        measured[lanes] = source.detect(here, expected[lanes], command.exposure_time)
        travelled = np.linalg.norm(command.position - s["at"], axis=1)
        s["at"] = np.where(where[:, None], command.position, s["at"])
        seconds = command.exposure_time + c.overhead + travelled / c.speed
        axis = np.tile(source.axis, (self.lanes, 1))
        return self._readings(where, seconds, 1, source.dose(command.exposure_time), spectrum=measured, axis=axis)

    def _readings(self, where: np.ndarray, seconds: float | np.ndarray, measurements: int, dose: float, **values: np.ndarray) -> Readings:
        on = where.astype(float)
        return Readings(values, seconds * on, dose * on, np.zeros(self.lanes), measurements * on)
