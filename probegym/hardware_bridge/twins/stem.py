"""The STEM twin: lenses that drift and couple, exact HAADF images, Ronchigrams of a film; N lanes at once."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, PositiveFloat, ValidationError, model_validator
from scipy import constants

from probegym.errors import ProbeGymError
from probegym.hardware_bridge.commands import AcquireImage, AcquireRonchigram, Command, Lanes, LaneState, Readings, SetAberrations
from probegym.hardware_bridge.world import Refused
from probegym.physics import randomness, specimens
from probegym.physics.image_formation import ImageFormer, shot_noise
from probegym.physics.lenses import LensBank
from probegym.physics.optics import ABERRATIONS, Pupil, focal_spread
from probegym.physics.ronchigram import RonchigramFormer
from probegym.scenarios import explain
from probegym.scenarios.distributions import Sampled

ANGSTROM = 1e-10


class RonchigramOptics(BaseModel):
    """The large aperture and its camera."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    films: tuple[str, ...] = Field(min_length=1)
    semiangle_cutoff: PositiveFloat  # rad
    pixels: int = Field(64, ge=16, le=256)
    beam_current: PositiveFloat = 50e-12  # A
    variants: tuple[float, float] = (0.0, 1.0)  # which part of each film set this scenario draws from


class StemConfig(BaseModel):
    """The ``world`` table of a scenario; every number a draw may replace is sampled once an episode."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    energy: PositiveFloat = 60e3  # eV
    semiangle_cutoff: PositiveFloat = 0.030  # rad
    beam_current: PositiveFloat = 50e-12  # A
    specimens: tuple[str, ...] = ()
    ronchigram: RonchigramOptics | None = None
    source_size: NonNegativeFloat = 0.3e-10  # m, standard deviation
    chromatic: NonNegativeFloat = 1.0e-3  # C_c, m
    energy_spread: NonNegativeFloat = 0.15  # eV, standard deviation
    quantum_efficiency: PositiveFloat = 0.9

    aberrations: dict[str, Sampled]  # m, at reset with all controls at zero
    controls: dict[str, PositiveFloat]  # coefficient -> scale in m, the unit of cross-talk and hysteresis
    limits: PositiveFloat = 4.0  # range of each control, in scales
    crosstalk: Sampled = Field(default=0.0, validate_default=True)  # standard deviation of the off-diagonal coupling
    gain_error: Sampled = Field(default=0.0, validate_default=True)  # standard deviation of the diagonal coupling
    step_error: Sampled = Field(default=0.0, validate_default=True)
    hysteresis: Sampled = Field(default=0.0, validate_default=True)
    lens_drift: dict[str, NonNegativeFloat] = {}  # m per sqrt(s)
    settling_time: NonNegativeFloat = 0.0  # s
    command_time: NonNegativeFloat = 0.05  # s for one set of controls

    specimen_drift: Sampled = Field(default=0.0, validate_default=True)  # m/s, in a random direction
    frame_jitter: Sampled = Field(default=0.0, validate_default=True)  # m, standard deviation from frame to frame
    scan_noise: Sampled = Field(default=0.0, validate_default=True)  # m, standard deviation from line to line
    flyback_time: NonNegativeFloat = 60e-6  # s per line
    frame_overhead: NonNegativeFloat = 0.05  # s per frame

    @model_validator(mode="after")
    def _consistent(self) -> StemConfig:
        for name in (*self.aberrations, *self.controls, *self.lens_drift):
            if name not in ABERRATIONS:
                raise ValueError(f"unknown aberration {name!r}; use one of {', '.join(ABERRATIONS)}")
        if not self.specimens and self.ronchigram is None:
            raise ValueError("give specimens for images, ronchigram for Ronchigrams, or both")
        return self

    @property
    def names(self) -> tuple[str, ...]:
        """The aberrations of this world: those with a control first."""
        return tuple(dict.fromkeys([*self.controls, *self.aberrations, *self.lens_drift]))


@lru_cache(maxsize=64)
def _image_former(name: str, detector: str, energy: float, cutoff: float, names, source_size: float, spread: float) -> ImageFormer:
    specimen = specimens.load(name)
    if specimen.energy != energy:
        raise ProbeGymError(f"specimen {name!r} was built for {specimen.energy:g} eV, the scenario has {energy:g} eV")
    if detector not in specimen.tensors:
        raise ProbeGymError(f"specimen {name!r} has no detector {detector!r}: use one of {', '.join(specimen.tensors)}")
    try:
        return ImageFormer(specimen.tensors[detector], cutoff, names, source_size, spread)
    except ValueError as error:
        raise ProbeGymError(f"specimen {name!r}: {error}") from error


@lru_cache(maxsize=16)
def _ronchigram_former(name: str, energy: float, cutoff: float, pixels: int, names) -> RonchigramFormer:
    film = specimens.load(name)
    if film.films is None:
        raise ProbeGymError(f"specimen {name!r} has no film for Ronchigrams")
    try:
        return RonchigramFormer(film.films, energy, film.extent[0], cutoff, pixels, names, film.slice_thickness)
    except ValueError as error:
        raise ProbeGymError(f"film {name!r}: {error}") from error


class StemTwin:
    """Implements the world protocol; ``config`` is the ``world`` table of a scenario."""

    def __init__(self, config: dict, lanes: int):
        try:
            self.config = StemConfig(**config)
        except ValidationError as error:
            raise ProbeGymError(f"scenario, world.{explain(error)}") from error
        c = self.config
        self.lanes, self.names = lanes, c.names
        scales = np.array([c.controls.get(name, 1.0) for name in c.names])
        drift = np.array([c.lens_drift.get(name, 0.0) for name in c.names])
        self.lenses = LensBank(scales, len(c.controls), drift, c.settling_time)
        self.pupil = Pupil(c.energy, c.semiangle_cutoff, c.names, samples=24)
        self.defocus_column = c.names.index("C10") if "C10" in c.names else None
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
        for name in ("step_error", "hysteresis", "frame_jitter", "scan_noise"):
            s[name][lanes] = np.abs(getattr(c, name).sample(keys, name))
        coupling = randomness.normal(keys, 0, "coupling", n * n).reshape(-1, n, n)
        deviation = np.where(np.eye(n, dtype=bool), *(getattr(c, k).sample(keys, k)[:, None, None] for k in ("gain_error", "crosstalk")))
        s["coupling"][lanes] = np.eye(n) + deviation * coupling
        place = randomness.uniform(keys, 0, "place", 9)
        s["origin"][lanes], s["film_origin"][lanes] = place[:, 0:2] * 1e-8, place[:, 2:4] * 1e-7
        heading = 2 * np.pi * place[:, 4:5]
        s["velocity"][lanes] = c.specimen_drift.sample(keys, "specimen drift")[:, None] * np.hstack([np.cos(heading), np.sin(heading)])
        s["specimen"][lanes] = (place[:, 5] * max(1, len(c.specimens))).astype(int)
        s["orientation"][lanes] = (place[:, 8] * 8).astype(int)
        if c.ronchigram:
            s["film"][lanes] = (place[:, 6] * len(c.ronchigram.films)).astype(int)
            low, high = c.ronchigram.variants
            for index, name in enumerate(c.ronchigram.films):
                count = len(specimens.load(name).films)
                first, last = round(low * count), round(high * count)
                here = lanes[s["film"][lanes] == index]
                s["variant"][here] = first + (place[s["film"][lanes] == index, 7] * (last - first)).astype(int)

    def execute(self, command: Command, where: np.ndarray) -> Readings:
        for name, argument in command.arguments().items():
            if argument.dtype.kind == "f" and not np.isfinite(argument[where] if argument.ndim else argument).all():
                raise Refused(f"{command.verb}.{name} is not finite")
        handler = {SetAberrations: self._set_aberrations, AcquireImage: self._image, AcquireRonchigram: self._ronchigram}.get(type(command))
        if handler is None:
            raise Refused(f"this STEM has no {command.verb}")
        noise = self._noise(command)
        readings = handler(command, where, noise)
        s = self.state
        s["count"][where] += 1
        s["clock"][where] += readings.time[where]
        noise["lenses"][~where] = 0
        self.lenses.elapse(s, readings.time, noise["lenses"])
        return readings

    def _noise(self, command: Command) -> Lanes:
        """All normal deviates that one command may need, in one draw."""
        rows = int(command.shape[0]) if isinstance(command, AcquireImage) else 0
        sizes = {"lenses": len(self.names), "step": self.lenses.controls, "jitter": 2, "scan_x": rows, "scan_y": rows}
        drawn = randomness.normal(self.state["key"], self.state["count"], command.verb, sum(sizes.values()))
        ends = np.cumsum(list(sizes.values()))
        return {name: drawn[:, end - size : end] for (name, size), end in zip(sizes.items(), ends, strict=True)}

    def truth(self) -> Lanes:
        actual = self.lenses.actual(self.state)
        return {
            "aberrations": actual,
            "strehl": self.pupil.strehl(actual),
            "phase_variance": self.pupil.phase_variance(actual),
            "response": self.state["coupling"].copy(),
        }

    def portrait(self, lane: int) -> Lanes:
        plate = Pupil(self.config.energy, self.config.semiangle_cutoff, self.names, samples=128)
        return {"wavefront": plate.phase_plate(self.lenses.actual(self.state)[lane])}

    def snapshot(self, lane: int) -> LaneState:
        return LaneState.take(self.state, lane)

    def restore(self, state: LaneState, lane: int) -> None:
        state.put(self.state, lane)

    def rekey(self, key: int, lane: int) -> None:
        self.state["key"][lane] = np.uint64(key)

    # ---- commands ----

    def _readings(self, where, seconds: float, dose: float = 0.0, measurements: int = 0, **values) -> Readings:
        on = where.astype(float)
        return Readings(values, seconds * on, dose * on, np.zeros(self.lanes), measurements * on)

    def _set_aberrations(self, command: SetAberrations, where, noise: Lanes) -> Readings:
        if tuple(command.names) != tuple(self.config.controls):
            raise Refused(f"this STEM has the controls {', '.join(self.config.controls)}; asked were {', '.join(command.names)}")
        if (np.abs(command.values[where]) > self.config.limits * self.lenses.scales[: self.lenses.controls]).any():
            raise Refused(f"an aberration control would leave its range of {self.config.limits:g} scales")
        self.lenses.set(self.state, command.values, where, noise["step"])
        return self._readings(where, self.config.command_time)

    def _coefficients(self, defocus: np.ndarray, where) -> np.ndarray:
        coefficients = self.lenses.actual(self.state)
        if np.any(defocus[where]):
            if self.defocus_column is None:
                raise Refused("this STEM has no C10 for a defocus excursion")
            coefficients[:, self.defocus_column] += defocus
        return coefficients[where]

    def _image(self, command: AcquireImage, where, noise: Lanes) -> Readings:
        c, s = self.config, self.state
        rows, columns = (int(v) for v in command.shape)
        pixel = command.field_of_view / columns
        line_time = columns * command.dwell_time + c.flyback_time
        if not c.specimens:
            raise Refused("this scenario has no specimen to image, only a film for Ronchigrams")
        coefficients, lanes = self._coefficients(command.defocus, where), np.nonzero(where)[0]
        seconds = np.arange(rows) * line_time + s["clock"][lanes, None]
        start = s["frame_jitter"][lanes, None] * noise["jitter"][lanes] + s["origin"][lanes]
        velocity, wobble = s["velocity"][lanes], s["scan_noise"][lanes, None]
        line_x = start[:, :1] + velocity[:, :1] * seconds + wobble * noise["scan_x"][lanes]
        line_y = start[:, 1:] + velocity[:, 1:] * seconds + wobble * noise["scan_y"][lanes] + np.arange(rows) * pixel
        images = np.zeros((self.lanes, rows, columns), np.float32)
        spread = focal_spread(c.chromatic, c.energy, c.energy_spread)
        for index in np.unique(s["specimen"][lanes]):
            here = s["specimen"][lanes] == index
            former = _image_former(c.specimens[index], command.detector, c.energy, c.semiangle_cutoff, self.names, c.source_size, spread)
            images[lanes[here]] = former.images(coefficients[here], line_x[here], line_y[here], columns, pixel)
        electrons = c.beam_current * command.dwell_time / constants.e
        keys = randomness.subkey(s["key"], s["count"], "shot noise")
        counts = images
        counts[lanes] = shot_noise(images[lanes], np.full(len(lanes), electrons * c.quantum_efficiency), keys[lanes])
        dose = electrons / (pixel / ANGSTROM) ** 2
        return self._readings(where, rows * line_time + c.frame_overhead, dose, 1, **{command.detector: counts})

    def _ronchigram(self, command: AcquireRonchigram, where, noise: Lanes) -> Readings:
        c, s, optics = self.config, self.state, self.config.ronchigram
        if optics is None:
            raise Refused("this scenario has no film for Ronchigrams")
        coefficients, lanes = self._coefficients(command.defocus, where), np.nonzero(where)[0]
        place = s["film_origin"] + s["velocity"] * s["clock"][:, None] + command.film_shift
        frames = np.zeros((self.lanes, optics.pixels, optics.pixels), np.float32)
        for index in np.unique(s["film"][lanes]):
            here = s["film"][lanes] == index
            former = _ronchigram_former(optics.films[index], c.energy, optics.semiangle_cutoff, optics.pixels, self.names)
            frames[lanes[here]] = former.frames(
                coefficients[here], place[lanes[here]], s["variant"][lanes[here]], s["orientation"][lanes[here]]
            )
        electrons = optics.beam_current * command.exposure_time / constants.e
        keys = randomness.subkey(s["key"], s["count"], "shot noise")
        frames[lanes] = shot_noise(frames[lanes], np.full(len(lanes), electrons * c.quantum_efficiency), keys[lanes])
        area = (specimens.load(optics.films[0]).extent[0] / ANGSTROM) ** 2
        return self._readings(where, command.exposure_time + c.frame_overhead, electrons / area, 1, ronchigram=frames)
