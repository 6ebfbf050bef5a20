"""``probegym/StemTuning-v0``: tune the aberrations of a scanning transmission electron microscope."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

import numpy as np
from gymnasium import spaces
from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, PositiveFloat, ValidationError, model_validator

from probegym.envs import pictures
from probegym.envs.core import ScopeEnv, ScopeVectorEnv
from probegym.envs.task import Observation, Task, Term, Transition, Where
from probegym.errors import ProbeGymError
from probegym.hardware_bridge.commands import AcquireImage, AcquireRonchigram, Command, Lanes, Readings, SetAberrations
from probegym.rewards import terms
from probegym.scenarios import explain

STREHL_GOAL = 0.8
DECLARED = 0.5  # the last component of the action above this ends the episode
VARIANCE_SCALE = 0.2  # rad^2; a Strehl ratio of 0.8

Excursions = Annotated[tuple[float, ...], Field(min_length=1, max_length=8)]


class ImageSeries(BaseModel):
    """HAADF frames of one step, each at a known defocus excursion (m)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    detector: str = "haadf"
    pixels: int = Field(64, ge=16, le=512)
    field_of_view: PositiveFloat = 2.0e-9  # m
    dwell_time: PositiveFloat = 10e-6  # s
    excursions: Excursions = (0.0,)


class RonchigramSeries(BaseModel):
    """Ronchigrams of one step, each at a known defocus excursion (m) and shift of the film (m)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    pixels: int = Field(64, ge=16, le=256)
    exposure_time: PositiveFloat = 0.1  # s
    excursions: Excursions = (0.0,)
    film_shifts: tuple[tuple[float, float], ...] = ()

    @model_validator(mode="after")
    def _matching(self) -> RonchigramSeries:
        if self.film_shifts and len(self.film_shifts) != len(self.excursions):
            raise ValueError("give one film shift an excursion, or none")
        return self


class Settings(BaseModel):
    """The ``task`` table of a scenario."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    controls: dict[str, PositiveFloat]  # coefficient -> scale in m
    largest_step: PositiveFloat = 1.5  # change a step, in scales
    range: PositiveFloat = 4.0  # set points shown to the agent, in scales
    haadf: ImageSeries | None = None
    ronchigram: RonchigramSeries | None = None
    excursion_range: NonNegativeFloat = 0.0  # m; above 0 the agent adds an excursion of its own to every frame

    @model_validator(mode="after")
    def _sees_something(self) -> Settings:
        if self.haadf is None and self.ronchigram is None:
            raise ValueError("give haadf, ronchigram, or both")
        return self


def _progress(t: Transition) -> np.ndarray:
    return terms.progress(t.before["phase_variance"], t.after["phase_variance"], VARIANCE_SCALE)


def _success(t: Transition) -> np.ndarray:
    return terms.flag(t.success)


def _false_declaration(t: Transition) -> np.ndarray:
    return terms.flag(t.failure)


def _measurements(t: Transition) -> np.ndarray:
    return t.spent["measurements"]


def _sharpness(t: Transition) -> np.ndarray:
    return terms.relative_gain(t.memory["sharpness_before"], t.memory["sharpness"])


class StemTuningTask(Task):
    """Decode, encode and ends of StemTuning; see :class:`StemTuning` for its page."""

    family = "stem_tuning"
    twin = "probegym.hardware_bridge.twins.stem:StemTwin"
    render_size = (760, 460)

    def __init__(self, settings: dict):
        try:
            self.settings = s = Settings(**settings)
        except ValidationError as error:
            raise ProbeGymError(f"scenario, task.{explain(error)}") from error
        self.names = tuple(s.controls)
        self.scales = np.array(list(s.controls.values()))
        self.series = {name: series for name in ("haadf", "ronchigram") if (series := getattr(s, name))}
        n = len(self.names)
        frames = {name: spaces.Box(0, 255, (len(v.excursions), v.pixels, v.pixels), np.uint8) for name, v in self.series.items()}
        counts = sum(len(v.excursions) for v in self.series.values())
        self.observation_space = spaces.Dict(frames | {
            "controls": spaces.Box(-s.range, s.range, (n,), np.float32),
            "signal": spaces.Box(0, 12, (counts,), np.float32),
            "budget": spaces.Box(0, 1, (1,), np.float32),
        })  # fmt: skip
        self.action_space = spaces.Box(-1, 1, (n + bool(s.excursion_range) + 1,), np.float32)
        shared = [Term("measurements", -0.01, _measurements)]
        success = [Term("success", 1.0, _success, True), Term("false_declaration", -1.0, _false_declaration, True)]
        self.rewards = {"privileged": [Term("progress", 0.2, _progress, True), *success, *shared]}
        self.rewards["observable"] = [Term("sharpness", 0.2, _sharpness), *shared] if s.haadf else []

    def memory(self, lanes: int) -> Lanes:
        frames = {name: np.zeros((lanes, *self.observation_space[name].shape), np.uint8) for name in self.series}
        return frames | {
            "set_point": np.zeros((lanes, len(self.names))),
            "signal": np.zeros((lanes, *self.observation_space["signal"].shape), np.float32),
            "excursion": np.zeros(lanes),
            "declared": np.zeros(lanes, bool),
            "sharpness": np.zeros(lanes),
            "sharpness_before": np.zeros(lanes),
        }

    def opening(self, memory: Lanes) -> Iterable[tuple[Command, Where | None]]:
        return self._acquire(memory, None)

    def decode(self, action: np.ndarray, memory: Lanes, where: Where) -> Iterable[tuple[Command, Where | None]]:
        change = action[:, : len(self.names)] * self.settings.largest_step * self.scales
        limit = self.settings.range * self.scales
        memory["set_point"] = np.where(where[:, None], np.clip(memory["set_point"] + change, -limit, limit), memory["set_point"])
        if self.settings.excursion_range:
            memory["excursion"] = np.where(where, action[:, -2] * self.settings.excursion_range, memory["excursion"])
        memory["declared"] = np.where(where, action[:, -1] > DECLARED, memory["declared"])
        yield SetAberrations(self.names, memory["set_point"].copy()), None
        yield from self._acquire(memory, ~memory["declared"])  # who declares takes no more frames

    def _acquire(self, memory: Lanes, where: Where | None) -> Iterable[tuple[Command, Where | None]]:
        offset = memory["excursion"]
        if (s := self.settings.haadf) is not None:
            for excursion in s.excursions:
                yield AcquireImage(s.detector, (s.pixels, s.pixels), s.field_of_view, s.dwell_time, offset + excursion), where
        if (s := self.settings.ronchigram) is not None:
            for excursion, shift in zip(s.excursions, s.film_shifts or ((0.0, 0.0),) * len(s.excursions), strict=True):
                yield AcquireRonchigram(s.exposure_time, offset + excursion, np.tile(shift, (len(offset), 1))), where

    def encode(self, readings: list[Readings], memory: Lanes, left: np.ndarray, where: Where) -> Observation:
        frames = readings[-len(memory["signal"][0]) :]
        at = 0
        for name, series in self.series.items():
            key = series.detector if isinstance(series, ImageSeries) else name
            taken = frames[at : at + len(series.excursions)]
            fresh = np.stack([reading.values[key] for reading in taken], axis=1)
            seen = np.stack([reading.measurements > 0 for reading in taken], axis=1) & where[:, None]
            peak = fresh.max((2, 3))
            grey = np.rint(fresh * (255 / np.maximum(peak, 1))[..., None, None]).astype(np.uint8)  # zero stays zero
            memory[name] = np.where(seen[..., None, None], grey, memory[name])
            memory["signal"][:, at : at + len(taken)] = np.where(seen, np.log10(1 + peak), memory["signal"][:, at : at + len(taken)])
            if name == "haadf":
                sharp = terms.normalised_variance(fresh[:, int(np.abs(series.excursions).argmin())])
                memory["sharpness_before"] = np.where(seen[:, 0] & (memory["sharpness"] > 0), memory["sharpness"], sharp)
                memory["sharpness"] = np.where(seen[:, 0], sharp, memory["sharpness"])
            at += len(taken)
        return {name: memory[name].copy() for name in self.series} | {
            "controls": (memory["set_point"] / self.scales).astype(np.float32),
            "signal": memory["signal"].copy(),
            "budget": left[:, None].astype(np.float32),
        }

    def ends(self, truth: Lanes, memory: Lanes) -> tuple[np.ndarray, np.ndarray]:
        declared = memory["declared"]
        return declared, declared & (truth["strehl"] >= STREHL_GOAL) if truth else np.zeros_like(declared)

    def metrics(self, truth: Lanes, memory: Lanes) -> Lanes:
        return {name: truth[name] for name in ("strehl", "phase_variance")} if truth else {}

    def oracle(self, truth: Lanes, memory: Lanes) -> np.ndarray:
        n = len(self.names)
        wanted = -np.linalg.solve(truth["response"], (truth["aberrations"][:, :n] / self.scales)[..., None])[..., 0]
        action = np.zeros((len(wanted), *self.action_space.shape), np.float32)
        action[:, :n] = np.clip(wanted / self.settings.largest_step, -1, 1)
        action[:, -1] = np.where((np.abs(wanted) <= self.settings.largest_step).all(1), 1.0, -1.0)
        return action

    def picture(self, observation: Observation, truth: Lanes, memory: Lanes, info: Lanes) -> np.ndarray:
        frames, bars = {}, {}
        for name, series in self.series.items():
            at = ", ".join(f"{1e9 * x:+g}" for x in series.excursions)
            label = {"haadf": "HAADF", "ronchigram": "Ronchigram"}[name] + (f" at {at} nm" if any(series.excursions) else " in focus")
            frames[label] = observation[name]
            if isinstance(series, ImageSeries):
                bars[label] = (series.field_of_view, 1e-9, "1 nm")
        values = truth["aberrations"][: len(self.names)] if truth else memory["set_point"]
        rows = [(name, v / scale, f"{1e9 * v:+.1f} nm") for name, v, scale in zip(self.names, values, self.scales, strict=True)]
        title = "STEM tuning" + (f"    Strehl {truth['strehl']:.2f}" if truth else "")
        state = "declared" if memory["declared"] else ""
        return pictures.stem(frames, truth.get("wavefront"), rows, pictures.gauges(info), f"{title}    {state}", bars)


class StemTuning(ScopeEnv):
    """Placeholder docstring."""

    task_type = StemTuningTask


class StemTuningVector(ScopeVectorEnv):
    """N lanes of :class:`StemTuning`."""

    task_type = StemTuningTask
