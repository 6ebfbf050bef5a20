"""``probegym/AfmTuning-v0``: keep the feedback of a tapping-mode AFM well tuned while it scans, line by line."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from gymnasium import spaces
from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, ValidationError, model_validator

from probegym.envs import pictures_afm
from probegym.envs.core import ScopeEnv, ScopeVectorEnv
from probegym.envs.task import Observation, Task, Term, Transition, Where, failure, success
from probegym.errors import ProbeGymError
from probegym.hardware_bridge.commands import Command, Lanes, Readings, ScanLine, SetFeedback
from probegym.rewards import terms
from probegym.scenarios import explain

NAMES = ("proportional", "integral", "setpoint", "drive", "line_rate", "feed_forward")
LOGARITHMIC = np.array([True, True, False, True, True, False])
HEIGHT_UNIT = 20e-9  # m, of heights in the observation
HEIGHT_BOUND = 1e3
PRECISE = 1e-9  # m, unit of the errors that rewards are paid for


class Settings(BaseModel):
    """The ``task`` table of a scenario: ranges (low, high, at the start) of what the agent sets."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    pixels: int = Field(default=128, ge=16, le=1024)
    lines: int = Field(default=32, ge=2, le=255)
    proportional: tuple[PositiveFloat, PositiveFloat, PositiveFloat] = (1e-3, 1.0, 1e-2)  # m/m
    integral: tuple[PositiveFloat, PositiveFloat, PositiveFloat] = (20.0, 2e4, 200.0)  # 1/s
    setpoint: tuple[PositiveFloat, PositiveFloat, PositiveFloat] = (0.4, 0.95, 0.8)  # of the drive
    drive: tuple[PositiveFloat, PositiveFloat, PositiveFloat] = (10e-9, 60e-9, 25e-9)  # m
    line_rate: tuple[PositiveFloat, PositiveFloat, PositiveFloat] = (2.0, 32.0, 8.0)  # Hz
    feed_forward: tuple[float, float, float] = (0.0, 1.0, 0.0)
    largest_step: PositiveFloat = 0.25  # change a line, as a share of the range (logarithmic for gains, drive and rate)
    tolerance: PositiveFloat = 0.1  # of the rms corrugation: most height error of a successful frame
    settling_lines: int = Field(default=8, ge=0)  # first lines that the frame's error leaves out
    crash_ends: bool = True

    @model_validator(mode="after")
    def _ranges(self) -> Settings:
        for name in NAMES:
            low, high, start = getattr(self, name)
            if not low <= start <= high:
                raise ValueError(f"{name} must be (low, high, start) with low <= start <= high, got {(low, high, start)}")
        if self.settling_lines >= self.lines:
            raise ValueError("settling_lines must be fewer than lines")
        return self


def _line_error(t: Transition) -> np.ndarray:
    errors, line = t.after["errors"], t.after["line"]
    return terms.precision(errors[np.arange(len(line)), np.maximum(line - 1, 0)], PRECISE)


def _agreement(t: Transition) -> np.ndarray:
    height = t.memory["height"][:, 0]
    apart = height[:, 0] - height[:, 1]
    return terms.precision((apart - apart.mean(1, keepdims=True)).std(1), PRECISE)


def _error_signal(t: Transition) -> np.ndarray:
    return terms.precision(np.sqrt((t.memory["amplitude_error"][:, 0] ** 2).mean((1, 2))), PRECISE)


def _speed(t: Transition) -> np.ndarray:
    return np.log2(1 / np.maximum(t.spent["time"], 1e-9))


def _events(t: Transition) -> np.ndarray:
    return t.spent["damage"]


def _wear(t: Transition) -> np.ndarray:
    return np.maximum(t.after["tip_radius"] - t.before["tip_radius"], 0) / PRECISE


class AfmTuningTask(Task):
    """Decode, encode and ends of AfmTuning; see :class:`AfmTuning` for its page."""

    family = "afm_tuning"
    twin = "probegym.hardware_bridge.twins.afm:AfmTwin"
    measured = "lines"

    def __init__(self, settings: dict):
        try:
            self.settings = s = Settings(**settings)
        except ValidationError as error:
            raise ProbeGymError(f"scenario, task.{explain(error)}") from error
        limits = np.array([getattr(s, name) for name in NAMES])
        scaled = np.where(LOGARITHMIC[:, None], np.log(np.maximum(limits, 1e-300)), limits)
        self.low, self.span = scaled[:, 0], scaled[:, 1] - scaled[:, 0]
        self.start = np.where(self.span > 0, (scaled[:, 2] - self.low) / np.where(self.span > 0, self.span, 1), 0.5)
        bounds = np.repeat(np.array([HEIGHT_BOUND] * 2 + [2.0] * 2 + [1.0] * 2, np.float32)[None], 2, 0).reshape(12, 1)
        bounds = np.broadcast_to(bounds, (12, s.pixels)).copy()
        self.observation_space = spaces.Dict({
            "lines": spaces.Box(-bounds, bounds, dtype=np.float32),
            "settings": spaces.Box(0, 1, (len(NAMES),), np.float32),
            "budget": spaces.Box(0, 1, (1,), np.float32),
        })  # fmt: skip
        self.action_space = spaces.Box(-1, 1, (len(NAMES),), np.float32)
        common = [Term("speed", 0.05, _speed), Term("damage", -0.1, _events), Term("failure", -5.0, failure)]
        self.rewards = {
            "privileged": [Term("height_error", 0.2, _line_error, True), Term("wear", -0.1, _wear, True), Term("success", 1.0, success, True), *common],
            "observable": [Term("agreement", 0.1, _agreement), Term("error_signal", 0.1, _error_signal), *common],
        }  # fmt: skip

    @property
    def action_units(self) -> dict:
        return {"names": list(NAMES), "ranges": [list(getattr(self.settings, name)) for name in NAMES], "largest_step": self.settings.largest_step}

    def memory(self, lanes: int) -> Lanes:
        lines = (lanes, 2, 2, self.settings.pixels)  # line (newest first), way, pixel
        return {
            "settings": np.tile(self.start, (lanes, 1)),
            "height": np.zeros(lines),
            "amplitude_error": np.zeros(lines),
            "phase": np.zeros(lines),
            "drive": np.ones((lanes, 2)),
            "count": np.zeros(lanes),
        }

    def values(self, settings: np.ndarray) -> np.ndarray:
        """What settings (..., 6) between 0 and 1 mean, in SI units."""
        scaled = self.low + settings * self.span
        return np.where(LOGARITHMIC, np.exp(np.where(LOGARITHMIC, scaled, 0)), scaled)

    def opening(self, memory: Lanes) -> Iterable[tuple[Command, Where | None]]:
        return self._scan(memory)

    def decode(self, action: np.ndarray, memory: Lanes, where: Where) -> Iterable[tuple[Command, Where | None]]:
        moved = np.clip(memory["settings"] + self.settings.largest_step * action, 0, 1)
        memory["settings"] = np.where(where[:, None], moved, memory["settings"])
        return self._scan(memory)

    def _scan(self, memory: Lanes) -> Iterable[tuple[Command, Where | None]]:
        proportional, integral, ratio, drive, rate, forward = self.values(memory["settings"]).T
        yield SetFeedback(proportional, integral, ratio * drive, drive, forward), None
        yield ScanLine(self.settings.pixels, rate), None

    def encode(self, readings: list[Readings], memory: Lanes, left: np.ndarray, where: Where) -> Observation:
        lines = readings[-1].values
        for name in ("height", "amplitude_error", "phase"):
            memory[name][where] = np.stack([lines[name], memory[name][:, 0]], 1)[where]
        drive = self.values(memory["settings"])[:, 3]
        memory["drive"][where] = np.stack([drive, memory["drive"][:, 0]], 1)[where]
        memory["count"] = memory["count"] + where
        flat = memory["height"] - memory["height"].mean(-1, keepdims=True)
        free = memory["drive"][:, :, None, None]
        seen = [np.clip(flat / HEIGHT_UNIT, -HEIGHT_BOUND, HEIGHT_BOUND), np.clip(memory["amplitude_error"] / free, -2, 2), memory["phase"] / np.pi]
        return {
            "lines": np.concatenate(seen, 2).reshape(len(left), 12, -1).astype(np.float32),
            "settings": memory["settings"].astype(np.float32),
            "budget": left[:, None].astype(np.float32),
        }

    def ends(self, truth: Lanes, memory: Lanes) -> tuple[np.ndarray, np.ndarray]:
        done = memory["count"] >= self.settings.lines
        if not truth:
            return done, np.zeros_like(done)
        crashed = truth["crashed"]
        good = self._frame_error(truth) <= self.settings.tolerance * truth["profile"].std(1)
        return done | (crashed & self.settings.crash_ends), done & ~crashed & good

    def _frame_error(self, truth: Lanes) -> np.ndarray:
        """Rms height error of the lines that count, m."""
        line = np.arange(truth["errors"].shape[1])
        counts = (line >= min(self.settings.settling_lines, self.settings.lines - 1)) & (line < truth["line"][:, None])
        return np.sqrt((truth["errors"] ** 2 * counts).sum(1) / np.maximum(counts.sum(1), 1))

    def metrics(self, truth: Lanes, memory: Lanes) -> Lanes:
        rate = {"line_rate": self.values(memory["settings"])[:, 4]}
        if not truth:
            return rate
        worst = {name: truth[name] for name in ("peak_force", "tip_radius", "surface")}
        return rate | worst | {"height_error": self._frame_error(truth), "crashed": truth["crashed"].astype(float), "diverged": truth["diverged"].astype(float)}

    def oracle(self, truth: Lanes, memory: Lanes) -> np.ndarray:
        """Gain schedule of someone who knows cantilever and piezo: the integrator's corner below every lag in the loop."""
        now = self.values(memory["settings"])
        lag = truth["quality"] / (np.pi * truth["frequency"])
        ringing = 2 * np.pi * truth["piezo_frequency"] / truth["piezo_quality"]
        wanted = now.copy()
        wanted[:, 1] = 1 / (ORACLE[0] * lag + ORACLE[1] / ringing + ORACLE[2] * 1e-5)
        wanted[:, 0] = ORACLE[3] * wanted[:, 1] * lag
        wanted[:, 2], wanted[:, 3], wanted[:, 5] = ORACLE[4], ORACLE[5] * 1e-9, ORACLE[6]
        wanted = np.clip(wanted, [getattr(self.settings, n)[0] for n in NAMES], [getattr(self.settings, n)[1] for n in NAMES])
        scaled = np.where(LOGARITHMIC, np.log(np.where(LOGARITHMIC, wanted, 1)), wanted)
        target = np.where(self.span > 0, (scaled - self.low) / np.where(self.span > 0, self.span, 1), memory["settings"])
        return np.clip((target - memory["settings"]) / self.settings.largest_step, -1, 1).astype(np.float32)

    def picture(self, observation: Observation, truth: Lanes, memory: Lanes, info: Lanes) -> np.ndarray:
        rows = list(zip(NAMES, memory["settings"], self.values(memory["settings"]), strict=True))
        return pictures_afm.afm(memory, truth, rows, info, self.settings.lines)


ORACLE = (1.0, 1.0, 1.0, 0.3, 0.75, 40.0, 0.9)
"""Weights of the lags, proportional share, setpoint, drive (nm), feed-forward; tuned on training seeds."""


class AfmTuning(ScopeEnv):
    """Keep a tapping-mode AFM's feedback tuned while it scans, line by line."""

    task_type = AfmTuningTask


class AfmTuningVector(ScopeVectorEnv):
    """N lanes of :class:`AfmTuning`."""

    task_type = AfmTuningTask
