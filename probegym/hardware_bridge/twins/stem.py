"""The STEM twin: lenses that drift and couple, exact HAADF images, Ronchigrams of a film; N lanes at once."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator
from scipy import constants

from probegym.hardware_bridge.commands import AcquireImage, AcquireRonchigram, Command, Lanes, Readings, SetAberrations
from probegym.hardware_bridge.twins.lanes import LaneTwin, blamed_on, refuse_outside
from probegym.hardware_bridge.world import Refused
from probegym.physics import randomness, shadow, specimens
from probegym.physics.image_formation import ImageFormer, shot_noise
from probegym.physics.lenses import LensBank
from probegym.physics.optics import ABERRATIONS, Pupil, focal_spread, wavelength
from probegym.physics.ronchigram import RonchigramFormer
from probegym.physics.shadow import ShadowFormer
from probegym.scenarios import ScenarioError, parsed
from probegym.scenarios.distributions import Sampled

ANGSTROM = 1e-10


PARTICLES = "particles"
"""The films of physics/shadow.py, whose Ronchigrams are shadows; all others are specimens, and waves go through them."""


Length = Annotated[float, Field(gt=0, le=0.1)]
Drift = Annotated[float, Field(ge=0, le=1e-3)]
LIMITS = {
    "crosstalk": (-2, 2), "gain_error": (-2, 2), "step_error": (-2, 2), "hysteresis": (-2, 2), "specimen_drift": (-1e-7, 1e-7), "frame_jitter": (-1e-8, 1e-8),
    "scan_noise": (-1e-8, 1e-8),
}  # fmt: skip
"""What may be drawn; beyond it nothing is a STEM."""
STREAMS = {"specimen_drift": "specimen drift"}
FARTHEST = 0.1  # m, of any aberration: what is told in nm is refused


class RonchigramOptics(BaseModel):
    """The large aperture and its camera; with ``particles`` for its only films, no aperture: the whole square of the camera is lit."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    films: tuple[str, ...] = Field(min_length=1)
    semiangle_cutoff: float = Field(ge=1e-3, le=0.5)  # rad; without aperture to the middle of the camera's edge
    pixels: int = Field(64, ge=16, le=256)
    beam_current: float = Field(50e-12, ge=1e-15, le=1e-6)  # A
    variants: tuple[float, float] = (0.0, 1.0)  # which part of each film set this scenario draws from

    @model_validator(mode="after")
    def _consistent(self) -> RonchigramOptics:
        if not 0 <= self.variants[0] < self.variants[1] <= 1:
            raise ValueError(f"variants must be a share of the films, low < high from 0 to 1, got {self.variants}")
        if PARTICLES in self.films and len(self.films) > 1:
            raise ValueError(f"{PARTICLES} are seen by rays, other films by waves: give one kind")
        return self

    @property
    def shadows(self) -> bool:
        """Whether frames are shadows."""
        return PARTICLES in self.films


class StemConfig(BaseModel):
    """The ``world`` table of a scenario; every number a draw may replace is sampled once an episode."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    energy: float = Field(60e3, ge=1e3, le=2e6)  # eV
    semiangle_cutoff: float = Field(0.030, ge=1e-3, le=0.5)  # rad
    beam_current: float = Field(50e-12, ge=1e-15, le=1e-6)  # A
    specimens: tuple[str, ...] = ()
    ronchigram: RonchigramOptics | None = None
    source_size: float = Field(0.3e-10, ge=0, le=1e-8)  # m, standard deviation
    chromatic: float = Field(1.0e-3, ge=0, le=0.1)  # C_c, m
    energy_spread: float = Field(0.15, ge=0, le=10)  # eV, standard deviation
    quantum_efficiency: float = Field(0.9, gt=0, le=1)

    aberrations: dict[str, Sampled]  # m, at reset with all controls at zero
    controls: dict[str, Length]  # coefficient -> scale in m, the unit of cross-talk and hysteresis
    limits: float = Field(4.0, gt=0, le=1e3)  # range of each control, in scales
    crosstalk: Sampled = Field(default=0.0, validate_default=True)  # standard deviation of the off-diagonal coupling
    gain_error: Sampled = Field(default=0.0, validate_default=True)  # standard deviation of the diagonal coupling
    step_error: Sampled = Field(default=0.0, validate_default=True)
    hysteresis: Sampled = Field(default=0.0, validate_default=True)
    lens_drift: dict[str, Drift] = {}  # m per sqrt(s)
    settling_time: float = Field(0.0, ge=0, le=1e4)  # s
    command_time: float = Field(0.05, ge=0, le=1e4)  # s for one set of controls

    specimen_drift: Sampled = Field(default=0.0, validate_default=True)  # m/s, in a random direction
    frame_jitter: Sampled = Field(default=0.0, validate_default=True)  # m, standard deviation from frame to frame
    scan_noise: Sampled = Field(default=0.0, validate_default=True)  # m, standard deviation from line to line
    flyback_time: float = Field(60e-6, ge=0, le=1)  # s per line
    frame_overhead: float = Field(0.05, ge=0, le=1e4)  # s per frame

    @model_validator(mode="after")
    def _consistent(self) -> StemConfig:
        for name in (*self.aberrations, *self.controls, *self.lens_drift):
            if name not in ABERRATIONS:
                raise ValueError(f"unknown aberration {name!r}; use one of {', '.join(ABERRATIONS)}")
        if not self.specimens and self.ronchigram is None:
            raise ValueError("give specimens for images, ronchigram for Ronchigrams, or both")
        if "C10" not in self.names:
            raise ValueError("aberrations or controls must hold C10, the focus")
        return self

    @property
    def names(self) -> tuple[str, ...]:
        """The aberrations of this world: those with a control first."""
        return tuple(dict.fromkeys([*self.controls, *self.aberrations, *self.lens_drift]))


@lru_cache(maxsize=64)
def _image_former(name: str, detector: str, energy: float, cutoff: float, names: tuple[str, ...], source_size: float, spread: float) -> ImageFormer:
    with blamed_on("world.specimens"):
        specimen = specimens.load(name)
    if specimen.energy != energy:
        raise ScenarioError(("world.energy", "world.specimens"), f"specimen {name!r} was built for {specimen.energy:g} eV, the scenario has {energy:g} eV")
    if detector not in specimen.tensors:
        raise Refused(f"specimen {name!r} has no detector {detector!r}: use one of {', '.join(specimen.tensors)}", "AcquireImage.detector")
    try:
        return ImageFormer(specimen.tensors[detector], cutoff, names, source_size, spread)
    except ValueError as error:
        raise ScenarioError("world.specimens", f"specimen {name!r}: {error}") from error


def _films(name: str) -> np.ndarray:
    with blamed_on("world.ronchigram.films"):
        films = specimens.load(name).films
    if films is None:
        raise ScenarioError("world.ronchigram.films", f"specimen {name!r} has no film for Ronchigrams")
    return films


def _film_count(name: str) -> int:
    return shadow.FILMS if name == PARTICLES else len(_films(name))


@lru_cache(maxsize=16)
def _ronchigram_former(name: str, energy: float, cutoff: float, pixels: int, names: tuple[str, ...]) -> RonchigramFormer | ShadowFormer:
    if name == PARTICLES:
        return ShadowFormer(cutoff, pixels, names)
    film = specimens.load(name)
    try:
        return RonchigramFormer(_films(name), energy, film.extent[0], cutoff, pixels, names, film.slice_thickness)
    except ValueError as error:
        raise ScenarioError("world.ronchigram", f"film {name!r}: {error}") from error


class StemTwin(LaneTwin):
    """Implements the world protocol; ``config`` is the ``world`` table of a scenario."""

    noun = "this STEM has"

    def __init__(self, config: dict[str, Any], lanes: int) -> None:
        self.config = parsed(StemConfig, config, "world")
        c = self.config
        self.lanes, self.names = lanes, c.names
        scales = np.array([c.controls.get(name, 1.0) for name in c.names])
        drift = np.array([c.lens_drift.get(name, 0.0) for name in c.names])
        self.lenses = LensBank(scales, len(c.controls), drift, c.settling_time)
        self.pupil = Pupil(c.energy, c.semiangle_cutoff, c.names, samples=24)
        self.defocus_column = c.names.index("C10")
        self.spread = focal_spread(c.chromatic, c.energy, c.energy_spread)
        self._handlers = {SetAberrations: self._set_aberrations, AcquireImage: self._image, AcquireRonchigram: self._ronchigram}
        self.state: Lanes = self.lenses.rest(lanes) | {
            "key": np.zeros(lanes, np.uint64),
            "count": np.zeros(lanes, np.int64),  # commands so far; with the key it decides all noise
            "clock": np.zeros(lanes),
            "specimen": np.zeros(lanes, np.int64),
            "film": np.zeros(lanes, np.int64),
            "variant": np.zeros(lanes, np.int64),
            "orientation": np.zeros(lanes, np.int64),
            "origin": np.zeros((lanes, 2)),  # of the scan on the specimen, m
            "film_origin": np.zeros((lanes, 2)),
            "velocity": np.zeros((lanes, 2)),
            "frame_jitter": np.zeros(lanes),
            "scan_noise": np.zeros(lanes),
        }

    # ---- world protocol ----

    def begin(self, keys: np.ndarray, where: np.ndarray) -> None:
        s, c = self.state, self.config
        fresh = self.lenses.rest(self.lanes)
        for name, array in fresh.items():
            s[name][where] = array[where]
        lanes, n = np.nonzero(where)[0], len(c.controls)
        keys = np.asarray(keys, np.uint64)[lanes]
        s["key"][lanes], s["count"][lanes], s["clock"][lanes] = keys, 0, 0.0
        for column, name in enumerate(c.names):
            if name in c.aberrations:
                s["aberrations"][lanes, column] = c.aberrations[name].sample(keys, f"aberration {name}")
                refuse_outside(f"aberrations.{name}", s["aberrations"][lanes, column], (-FARTHEST, FARTHEST))
        drawn = {name: getattr(c, name).sample(keys, STREAMS.get(name, name)) for name in LIMITS}
        for name, limits in LIMITS.items():
            refuse_outside(name, drawn[name], limits)
        for name in ("step_error", "hysteresis", "frame_jitter", "scan_noise"):
            s[name][lanes] = np.abs(drawn[name])
        coupling = randomness.normal(keys, 0, "coupling", n * n).reshape(-1, n, n)
        deviation = np.where(np.eye(n, dtype=bool), *(drawn[name][:, None, None] for name in ("gain_error", "crosstalk")))
        s["coupling"][lanes] = np.eye(n) + deviation * coupling
        place = randomness.uniform(keys, 0, "place", 9)
        s["origin"][lanes], s["film_origin"][lanes] = place[:, 0:2] * 1e-8, place[:, 2:4] * 1e-7
        heading = 2 * np.pi * place[:, 4:5]
        s["velocity"][lanes] = drawn["specimen_drift"][:, None] * np.hstack([np.cos(heading), np.sin(heading)])
        s["specimen"][lanes] = (place[:, 5] * max(1, len(c.specimens))).astype(int)
        s["orientation"][lanes] = (place[:, 8] * 8).astype(int)
        if c.ronchigram:
            s["film"][lanes] = (place[:, 6] * len(c.ronchigram.films)).astype(int)
            low, high = c.ronchigram.variants
            for index, name in enumerate(c.ronchigram.films):
                count = _film_count(name)
                first, last = round(low * count), round(high * count)
                if first == last:
                    raise ScenarioError("world.ronchigram.variants", f"no film of {name!r} lies between {low:g} and {high:g} of {count}")
                here = lanes[s["film"][lanes] == index]
                s["variant"][here] = first + (place[s["film"][lanes] == index, 7] * (last - first)).astype(int)

    def execute(self, command: Command, where: np.ndarray) -> Readings:
        handler, noise, s = self._handler(command, where), self._noise(command), self.state
        readings = handler(command, where, noise)
        s["count"] += where
        s["clock"] += readings.time
        self.lenses.elapse(s, readings.time, noise["lenses"])
        return readings

    def _noise(self, command: Command) -> Lanes:
        """All normal deviates that one command may need, in one draw."""
        rows = int(command.shape[0]) if isinstance(command, AcquireImage) else 0
        sizes = {"lenses": len(self.names), "step": self.lenses.controls, "jitter": 2, "scan_x": rows, "scan_y": rows}
        drawn = randomness.normal(self.state["key"], self.state["count"], command.verb, sum(sizes.values()))
        parts, at = {}, 0
        for name, size in sizes.items():
            parts[name] = drawn[:, at : (at := at + size)]
        return parts

    def truth(self) -> Lanes:
        actual = self.lenses.actual(self.state)
        return {
            "aberrations": actual,
            "strehl": self.pupil.strehl(actual),
            "phase_variance": self.pupil.phase_variance(actual),
            "response": self.state["coupling"].copy(),
        }

    def portrait(self, lane: int) -> Lanes:
        c, optics = self.config, self.config.ronchigram
        plate = Pupil(c.energy, c.semiangle_cutoff, self.names, samples=128)
        seen = {"wavefront": plate.phase_plate(self.lenses.actual(self.state)[lane])}
        if optics:
            former = _ronchigram_former(optics.films[self.state["film"][lane]], c.energy, optics.semiangle_cutoff, optics.pixels, self.names)
            seen["camera_angle"] = np.array(former.angle)  # rad, across a Ronchigram
        return seen

    # ---- commands ----

    def _lit_area(self, defocus: np.ndarray, semiangle_cutoff: float) -> np.ndarray:
        """Square Angstrom under a defocused probe, (lanes,): a disc of radius alpha |C10|, at least a diffraction limit wide."""
        focus = np.abs(self.lenses.actual(self.state)[:, self.defocus_column] + defocus)
        radius = np.maximum(semiangle_cutoff * focus, wavelength(self.config.energy) / semiangle_cutoff)
        area: np.ndarray = np.pi * (radius / ANGSTROM) ** 2
        return area

    def _readings(self, where: np.ndarray, seconds: float, dose: float | np.ndarray = 0.0, measurements: int = 0, **values: np.ndarray) -> Readings:
        on = where.astype(float)
        return Readings(values, seconds * on, dose * on, np.zeros(self.lanes), measurements * on)

    def _set_aberrations(self, command: SetAberrations, where: np.ndarray, noise: Lanes) -> Readings:
        if tuple(command.names) != tuple(self.config.controls):
            raise Refused(f"this STEM has the controls {', '.join(self.config.controls)}; asked were {', '.join(command.names)}")
        if (np.abs(command.values[where]) > self.config.limits * self.lenses.scales[: self.lenses.controls]).any():
            raise Refused(f"an aberration control would leave its range of {self.config.limits:g} scales")
        self.lenses.set(self.state, command.values, where, noise["step"])
        return self._readings(where, self.config.command_time)

    def _coefficients(self, defocus: np.ndarray, where: np.ndarray) -> np.ndarray:
        """Aberrations of the lanes asked for, with the excursion of this frame."""
        coefficients = self.lenses.actual(self.state)
        coefficients[:, self.defocus_column] += defocus
        asked: np.ndarray = coefficients[where]
        return asked

    def _counts(self, frames: np.ndarray, current: float, seconds: float, where: np.ndarray) -> np.ndarray:
        """Shot noise of frames that are fractions of the beam; full width again, zeros for lanes not asked."""
        electrons = np.full(len(frames), current * seconds / constants.e * self.config.quantum_efficiency)
        keys = randomness.subkey(self.state["key"], self.state["count"], "shot noise")
        counted = shot_noise(frames, electrons, keys[where])
        if len(counted) == self.lanes:
            return counted
        counts = np.zeros((self.lanes, *frames.shape[1:]), np.float32)
        counts[where] = counted
        return counts

    def _image(self, command: AcquireImage, where: np.ndarray, noise: Lanes) -> Readings:
        c = self.config
        if not c.specimens:
            raise Refused("this scenario has no specimen to image, only a film for Ronchigrams")
        rows, columns = (int(v) for v in command.shape)
        pixel, line_time = command.field_of_view / columns, columns * command.dwell_time + c.flyback_time
        line_x, line_y = self._lines(rows, pixel, line_time, where, noise)
        coefficients = self._coefficients(command.defocus, where)
        images = np.empty((len(coefficients), rows, columns), np.float32)
        optics = (command.detector, c.energy, c.semiangle_cutoff, self.names, c.source_size, self.spread)
        for index, here in _groups(self.state["specimen"][where]):
            former = _image_former(c.specimens[index], *optics)
            images[here] = former.images(coefficients[here], line_x[here], line_y[here], columns, pixel)
        counts = self._counts(images, c.beam_current, command.dwell_time, where)
        dose = c.beam_current * command.dwell_time / constants.e / (pixel / ANGSTROM) ** 2
        return self._readings(where, rows * line_time + c.frame_overhead, dose, 1, **{command.detector: counts})

    def _lines(self, rows: int, pixel: float, line_time: float, where: np.ndarray, noise: Lanes) -> tuple[np.ndarray, np.ndarray]:
        """Where each scan line starts on the specimen, with drift, jitter and scan noise: (lanes, rows) each, m."""
        s = self.state
        seconds = s["clock"][where, None] + np.arange(rows) * line_time
        start = s["origin"][where] + s["frame_jitter"][where, None] * noise["jitter"][where]
        velocity, wobble = s["velocity"][where], s["scan_noise"][where, None]
        line_x = start[:, :1] + velocity[:, :1] * seconds + wobble * noise["scan_x"][where]
        line_y = start[:, 1:] + velocity[:, 1:] * seconds + wobble * noise["scan_y"][where]
        return line_x, line_y + np.arange(rows) * pixel

    def _ronchigram(self, command: AcquireRonchigram, where: np.ndarray, noise: Lanes) -> Readings:
        c, s, optics = self.config, self.state, self.config.ronchigram
        if optics is None:
            raise Refused("this scenario has no film for Ronchigrams")
        if tuple(command.shape) != (optics.pixels, optics.pixels):
            raise Refused(f"the camera gives {optics.pixels} x {optics.pixels} pixels, asked were {' x '.join(map(str, command.shape))}", "AcquireRonchigram.shape")
        coefficients = self._coefficients(command.defocus, where)
        place = (s["film_origin"] + s["velocity"] * s["clock"][:, None] + command.film_shift)[where]
        variants, orientations = s["variant"][where], s["orientation"][where]
        frames = np.empty((len(coefficients), optics.pixels, optics.pixels), np.float32)
        for index, here in _groups(s["film"][where]):
            former = _ronchigram_former(optics.films[index], c.energy, optics.semiangle_cutoff, optics.pixels, self.names)
            coefficients[here, self.defocus_column] -= former.middle  # C10 is that at the middle of the film
            frames[here] = former.frames(coefficients[here], place[here], variants[here], orientations[here])
        counts = self._counts(frames, optics.beam_current, command.exposure_time, where)
        dose = optics.beam_current * command.exposure_time / constants.e / self._lit_area(command.defocus, optics.semiangle_cutoff)
        return self._readings(where, command.exposure_time + c.frame_overhead, dose, 1, ronchigram=counts)


def _groups(kinds: np.ndarray) -> Iterator[tuple[int, np.ndarray | slice]]:
    """Lanes of equal kind together: (kind, which)."""
    if len(kinds) and (kinds == kinds[0]).all():
        yield int(kinds[0]), slice(None)
    else:
        for kind in np.unique(kinds):
            yield int(kind), kinds == kind
