"""``probegym/AfmTuning-v0``: keep the feedback of a tapping-mode AFM well tuned while it scans, line by line."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import ClassVar

import numpy as np
from gymnasium import spaces

from probegym.envs import afm_rewards, pictures_afm
from probegym.envs.afm_settings import LOGARITHMIC, NAMES, Settings
from probegym.envs.core import ScopeEnv, ScopeVectorEnv
from probegym.envs.task import Observation, Task, Term, Where, success
from probegym.hardware_bridge.commands import Command, Lanes, Readings, ScanLine, SetFeedback
from probegym.scenarios import parsed

HEIGHT_UNIT = 20e-9  # m, of heights in the observation
HEIGHT_BOUND = 1e3


class AfmTuningTask(Task):
    """Decode, encode and ends of AfmTuning; see :class:`AfmTuning` for its page."""

    family = "afm_tuning"
    twin = "probegym.hardware_bridge.twins.afm:AfmTwin"
    controls_from = "probegym.envs.afm_controls:controls"
    measured = "lines"
    metric_units: ClassVar = {"line_rate": "Hz", "peak_force": "N", "tip_radius": "m", "height_error": "m", "surface": "1", "crashed": "1", "diverged": "1"}
    info_meanings: ClassVar = {"line_rate": "as it is set", "peak_force": "largest on the newest line, hidden truth", "tip_radius": "hidden truth", "surface": "number of its class in the scenario, hidden truth",
                               "height_error": "rms over the lines that the goal counts, hidden truth", "crashed": "1 after a crash, hidden truth", "diverged": "1 after the motion diverged, hidden truth",
                               "dose": "always 0", "damage": "crashes, lines above the force limit, changes of the tip, particles taken or left"}  # fmt: skip
    decides = ("settings",)

    def __init__(self, settings: dict):
        self.settings = s = parsed(Settings, settings, "task")
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
        speed = partial(afm_rewards.speed, s.line_rate[2])
        common = [Term("speed", 0.04, speed), Term("damage", -0.1, afm_rewards.events), Term("crash", -5.0, afm_rewards.crash)]
        self.rewards = {
            "privileged": [Term("height_error", 0.2, afm_rewards.line_error, True), Term("wear", -0.1, afm_rewards.wear, True), Term("success", 1.0, success, True), *common],
            "observable": [Term("agreement", 0.1, afm_rewards.agreement), Term("error_signal", 0.1, afm_rewards.error_signal), *common],
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
            "ratio": np.full(lanes, 0.5),
            "count": np.zeros(lanes),
            "lines": np.full(lanes, float(self.settings.lines)),
        }

    def values(self, settings: np.ndarray) -> np.ndarray:
        """What settings (..., 6) between 0 and 1 mean, in SI units."""
        scaled = self.low + settings * self.span
        return np.where(LOGARITHMIC, np.exp(np.where(LOGARITHMIC, scaled, 0)), scaled)

    def share(self, name: str, value: np.ndarray | float) -> np.ndarray:
        """The setting between 0 and 1 that means ``value``; beyond the range it is its end."""
        i = NAMES.index(name)
        scaled = np.log(np.maximum(value, 1e-300)) if LOGARITHMIC[i] else np.asarray(value)
        return np.clip((scaled - self.low[i]) / self.span[i], 0, 1) if self.span[i] else np.full_like(scaled, 0.5)

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
        ratio, drive = self.values(memory["settings"])[:, 2:4].T
        memory["ratio"] = np.where(where, ratio, memory["ratio"])
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
        good = self._frame_error(truth) <= self.settings.tolerance * truth["corrugation"]
        return done | (crashed & self.settings.crash_ends), done & ~crashed & good

    def _frame_error(self, truth: Lanes) -> np.ndarray:
        """Rms height error after the settling lines, m."""
        line = np.arange(truth["errors"].shape[1])
        scanned = line < truth["line"][:, None]
        counts = scanned & (line >= self.settings.settling_lines)
        counts |= scanned & ~counts.any(1, keepdims=True)  # a frame that ended early: all it has
        return np.sqrt((truth["errors"] ** 2 * counts).sum(1) / np.maximum(counts.sum(1), 1))

    def metrics(self, truth: Lanes, memory: Lanes) -> Lanes:
        rate = {"line_rate": self.values(memory["settings"])[:, 4]}
        if not truth:
            return rate
        worst = {name: truth[name] for name in ("peak_force", "tip_radius", "surface")}
        return rate | worst | {"height_error": self._frame_error(truth), "crashed": truth["crashed"].astype(float), "diverged": truth["diverged"].astype(float)}

    def oracle(self, truth: Lanes, memory: Lanes) -> np.ndarray:
        """Gain schedule of someone who knows cantilever and piezo: the integrator's corner below every lag in the loop. No bound: it keeps the line rate and ignores the surface."""
        now = self.values(memory["settings"])
        lag = truth["quality"] / (np.pi * truth["frequency"])
        ringing = 2 * np.pi * truth["piezo_frequency"] / truth["piezo_quality"]
        wanted = now.copy()
        wanted[:, 1] = 1 / (ORACLE[0] * lag + ORACLE[1] / ringing + ORACLE[2] * 1e-5)
        wanted[:, 0] = ORACLE[3] * wanted[:, 1] * lag
        wanted[:, 2], wanted[:, 3], wanted[:, 5] = ORACLE[4], ORACLE[5] * 1e-9, ORACLE[6]
        target = np.stack([self.share(name, wanted[:, i]) for i, name in enumerate(NAMES)], 1)
        return np.clip((target - memory["settings"]) / self.settings.largest_step, -1, 1).astype(np.float32)

    def picture(self, observation: Observation, truth: Lanes, memory: Lanes, info: Lanes) -> np.ndarray:
        return pictures_afm.tuning(self, truth, memory, info)


ORACLE = (1.67, 0.62, 0.49, 1.0, 0.76, 10.5, 0.95)
"""Weights of the lags, proportional share, setpoint, drive (nm), feed-forward; tuned on training seeds."""


class AfmTuning(ScopeEnv):
    """Keep a tapping-mode AFM's feedback tuned while it scans, line by line.

    ## Description
    An unknown cantilever taps over an unknown surface. Each step sets the feedback and scans one line there and back. Gains too
    low: edges smear and the tip parachutes behind them. Too high: the loop rings. A low setpoint or a large drive tracks better
    and hits harder; faster lines err more. Forces blunt the tip, change it, or crash it.

    ## Action Space
    `Box(-1, 1, (6,), float32)`: changes of the settings, by at most a quarter of their range a line. Ranges are the scenario's.

    | Num | Setting | Lowest | Highest | At the start | Scale |
    |---|---|---|---|---|---|
    | 0 | proportional gain | 0.001 | 1 | 0.01 | log |
    | 1 | integral gain, 1/s | 20 | 20,000 | 200 | log |
    | 2 | setpoint over drive | 0.4 | 0.95 | 0.8 | linear |
    | 3 | drive (free amplitude), nm | 10 | 60 | 25 | log |
    | 4 | line rate, Hz | 2 | 32 | 8 | log |
    | 5 | feed-forward of the line before | 0 | 1 | 0 | linear |

    Settings end at their ends. NaN or values outside the box are refused; nothing is done.

    ## Observation Space

    | Key | Shape | Type | Meaning |
    |---|---|---|---|
    | `lines` | (12, 128) | float32 | newest line, then the one before: height less its mean (20 nm), amplitude error (drive), phase (pi); trace and retrace of each |
    | `settings` | (6,) | float32 | where they stand between lowest (0) and highest (1) |
    | `budget` | (1,) | float32 | share of the budget that is left |

    ## Rewards
    `privileged` (default), a line: -0.2 log10(height error / nm + 0.05), -0.1 per nm that the tip blunts; +1 for a good frame. `observable`, which
    an instrument can compute: -0.1 log10(rms / nm + 0.05) of trace less retrace and of the amplitude error. Both: 0.04 (x - x^2 / 2) with
    x = log2(line rate / rate at the start), -0.1 an event (force above the limit, crash, tip change), -5 for a crash that ends the frame.

    ## Starting State
    Cantilever, piezo, drift, tip, class and key of the surface are drawn from the scenario; the first line is scanned with the settings "at the start".

    ## Episode End

    1. Termination: after 32 lines. Success: no crash, and from the ninth line on an rms height error of at most 0.2 of the surface's rms height.
    2. Termination: a crash (force above `crash_force`, piezo at its end, motion diverged), unless the scenario has `crash_ends: false`.
    3. Truncation: another line would not fit into the budget. Scenarios allow 40 lines, which a frame of 32 does not need.

    ## Arguments

    | Parameter | Type | Default | Description |
    |---|---|---|---|
    | `scenario` | str | `"train"` | a name from `probegym show AfmTuning`, or `file.yaml:name` |
    | `reward` | str | `"privileged"` | or `"observable"` |
    | `budget` | int | None | fewer lines than the scenario allows |
    | `world` | object or path | None | None: the twin; a path: the folder of a record; or an object with the world protocol |

    >>> env = gymnasium.make("probegym/AfmTuning-v0", scenario="train", render_mode="rgb_array")

    ## Physics and assumptions
    First flexural mode in slow time under the averaged van der Waals, DMT and viscous force; lock-in, PI, resonant creeping piezo; thermal and sensor
    noise; grey dilation by the tip. No lateral forces. Measured against direct integration: docs/afm_tuning.md.

    ## Vectorized environment
    `make_vec(..., num_envs=64)` is native; lane i equals `make(...).reset(seed=seed + i)`.

    ## Sources
    Garcia & Perez (2002), 10.1016/S0167-5729(02)00077-8. Garcia & San Paulo (1999), 10.1103/PhysRevB.60.4961.

    ## Version History
    * v0: first release.
    """

    task_type = AfmTuningTask


class AfmTuningVector(ScopeVectorEnv):
    """N lanes of :class:`AfmTuning`."""

    task_type = AfmTuningTask
