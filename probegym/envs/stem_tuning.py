"""``probegym/StemTuning-v0``: tune the aberrations of a scanning transmission electron microscope."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

import numpy as np
from gymnasium import spaces
from pydantic import BaseModel, ConfigDict, NonNegativeFloat, PositiveFloat, model_validator

from probegym.envs import pictures_stem
from probegym.envs.core import ScopeEnv, ScopeVectorEnv
from probegym.envs.frames import ImageSeries, RonchigramSeries, grey_levels
from probegym.envs.task import Observation, Task, Term, Transition, Where, failure, measurements, shape_of, success
from probegym.hardware_bridge.commands import Command, Lanes, Readings, SetAberrations
from probegym.rewards import terms
from probegym.scenarios import parsed

STREHL_GOAL = 0.8
DECLARED = 0.5  # the last component of the action above this ends the episode
VARIANCE_SCALE = 0.2  # rad^2; a Strehl ratio of 0.82 (exp(-0.2)), a little above the goal


class Settings(BaseModel):
    """The ``task`` table of a scenario."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    controls: dict[str, PositiveFloat]  # coefficient -> scale in m
    largest_step: PositiveFloat = 1.5  # change a step, in scales
    range: PositiveFloat = 4.0  # setpoints end there, in scales
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


def _sharpness(t: Transition) -> np.ndarray:
    return terms.relative_gain(t.memory["sharpness_before"], t.memory["sharpness"])


class StemTuningTask(Task):
    """Decode, encode and ends of StemTuning; see :class:`StemTuning` for its page."""

    family = "stem_tuning"
    twin = "probegym.hardware_bridge.twins.stem:StemTwin"
    origins: ClassVar = {"AcquireImage.detector": ("task.haadf.detector", "world.specimens"), "AcquireRonchigram.shape": ("task.ronchigram.pixels", "world.ronchigram.pixels")}
    controls_from = "probegym.envs.stem_controls:controls"
    measured = "images"
    metric_units: ClassVar = {"phase_variance": "rad^2", "strehl": "1"}
    info_meanings: ClassVar = {"strehl": "Strehl ratio of the probe, hidden truth", "phase_variance": "of the wavefront over the aperture, tilt taken out, hidden truth", "damage": "always 0"}
    decides = ("setpoint", "excursion", "declared")

    def __init__(self, settings: dict):
        self.settings = s = parsed(Settings, settings, "task")
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
        price = Term("measurements", -0.01, measurements)
        goal = [Term("success", 1.0, success, True), Term("false_declaration", -1.0, failure, True)]
        self.rewards = {"privileged": [Term("progress", 0.2, _progress, True), *goal, price],
                        "observable": ([Term("sharpness", 0.2, _sharpness)] if s.haadf else []) + [price]}  # fmt: skip

    def memory(self, lanes: int) -> Lanes:
        frames: Lanes = {name: np.zeros((lanes, *shape_of(self.observation_space[name])), np.uint8) for name in self.series}
        rest: Lanes = {
            "setpoint": np.zeros((lanes, len(self.names))),
            "signal": np.zeros((lanes, *shape_of(self.observation_space["signal"])), np.float32),
            "excursion": np.zeros(lanes),
            "declared": np.zeros(lanes, bool),
            "sharpness": np.zeros(lanes),
            "sharpness_before": np.zeros(lanes),
        }
        return frames | rest

    def opening(self, memory: Lanes) -> Iterable[tuple[Command, Where | None]]:
        return self._acquire(memory, None)

    def decode(self, action: np.ndarray, memory: Lanes, where: Where) -> Iterable[tuple[Command, Where | None]]:
        change = action[:, : len(self.names)] * self.settings.largest_step * self.scales
        limit = self.settings.range * self.scales
        reached = np.minimum(np.maximum(memory["setpoint"] + change, -limit), limit)
        memory["setpoint"] = np.where(where[:, None], reached, memory["setpoint"])
        if self.settings.excursion_range:
            memory["excursion"] = np.where(where, action[:, -2] * self.settings.excursion_range, memory["excursion"])
        memory["declared"] = np.where(where, action[:, -1] > DECLARED, memory["declared"])
        yield SetAberrations(self.names, memory["setpoint"].copy()), None
        yield from self._acquire(memory, ~memory["declared"])  # who declares takes no more frames

    def _acquire(self, memory: Lanes, where: Where | None) -> Iterable[tuple[Command, Where | None]]:
        for series in self.series.values():
            for command in series.commands(memory["excursion"]):
                yield command, where

    def encode(self, readings: list[Readings], memory: Lanes, left: np.ndarray, where: Where) -> Observation:
        at = len(readings) - memory["signal"].shape[1]  # the frames come last
        for name, series in self.series.items():
            taken = readings[at : (at := at + len(series.excursions))]
            seen = (taken[0].measurements > 0) & where  # a lane takes all frames of a step or none
            fresh = np.stack([reading.values[series.reading] for reading in taken], axis=1)
            grey, signal = grey_levels(fresh)
            column = slice(at - len(taken) - len(readings), at - len(readings) or None)
            memory[name][seen], memory["signal"][seen, column] = grey[seen], signal[seen]
            if name == "haadf":
                self._sharpen(fresh[:, series.nearest_focus], seen, memory)
        return {name: memory[name].copy() for name in self.series} | {
            "controls": (memory["setpoint"] / self.scales).astype(np.float32),
            "signal": memory["signal"].copy(),
            "budget": left[:, None].astype(np.float32),
        }

    @staticmethod
    def _sharpen(images: np.ndarray, seen: np.ndarray, memory: Lanes) -> None:
        """Keep the sharpness of the frame nearest to focus, and the one before it."""
        now, last = terms.normalised_variance(images), memory["sharpness"]
        memory["sharpness_before"] = np.where(seen & (last == 0), now, last)
        memory["sharpness"] = np.where(seen, now, last)

    @property
    def action_units(self) -> dict:
        s = self.settings
        return {"names": [*self.names, *(["excursion"] if s.excursion_range else []), "declare"], "scales_m": self.scales.tolist(),
                "largest_step_scales": s.largest_step, "excursion_range_m": s.excursion_range}  # fmt: skip

    def ends(self, truth: Lanes, memory: Lanes) -> tuple[np.ndarray, np.ndarray]:
        declared = memory["declared"]
        return declared, declared & (truth["strehl"] >= STREHL_GOAL) if truth else np.zeros_like(declared)

    def metrics(self, truth: Lanes, memory: Lanes) -> Lanes:
        return {name: truth[name] for name in ("strehl", "phase_variance")} if truth else {}

    def oracle(self, truth: Lanes, memory: Lanes) -> np.ndarray:
        """Cancels the aberrations as they are by the true response of the controls, and declares when one step does it. No strict bound: it foresees neither drift nor backlash."""
        n = len(self.names)
        wanted = -np.linalg.solve(truth["response"], (truth["aberrations"][:, :n] / self.scales)[..., None])[..., 0]
        action = np.zeros((len(wanted), *shape_of(self.action_space)), np.float32)
        action[:, :n] = np.clip(wanted / self.settings.largest_step, -1, 1)
        action[:, -1] = np.where((np.abs(wanted) <= self.settings.largest_step).all(1), 1.0, -1.0)
        return action

    def picture(self, observation: Observation, truth: Lanes, memory: Lanes, info: Lanes) -> np.ndarray:
        return pictures_stem.tuning(self, observation, truth, memory, info)


class StemTuning(ScopeEnv):
    """Tune the aberrations of a scanning transmission electron microscope from what it shows.

    ## Description
    The probe is blurred: defocus, astigmatism, coma and three-fold astigmatism are anywhere in BEACON's box. Each step the
    agent changes the corrector's controls and receives images, HAADF or Ronchigrams, at known defocus excursions.
    Controls couple, err, follow with backlash and settle; lenses and specimen drift. The agent declares when it believes
    the Strehl ratio is 0.8 or more.

    ## Action Space
    `Box(-1, 1, (8,), float32)`

    | Num | Action | Min | Max | Unit |
    |---|---|---|---|---|
    | 0-6 | change of C10, C12a, C12b, C21a, C21b, C23a, C23b | -1 | 1 | `largest_step` scales (1.5 x 10, 10, 10, 900, 900, 300, 300 nm) |
    | 7 | declare: above 0.5 the change is made and the episode ends | -1 | 1 | |

    Setpoints end at 4 scales, as the supplies do. With `excursion_range` in the scenario the last but one adds a defocus
    excursion to every image. NaN or values outside the box are refused; nothing is done.

    ## Observation Space

    | Key | Shape | Type | Meaning |
    |---|---|---|---|
    | `haadf`, by scenario | (images, h, w) | uint8 | HAADF images, one an excursion; the brightest pixel is 255, zero is zero |
    | `ronchigram`, by scenario | (images, h, w) | uint8 | Ronchigrams, likewise; rows along ky, columns along kx |
    | `controls` | (7,) | float32 | setpoints in scales |
    | `signal` | (images,) | float32 | log10(1 + counts of the brightest pixel) |
    | `budget` | (1,) | float32 | share of the tightest budget that is left |

    ## Rewards
    `privileged` (default): 0.2 x fall of log(1 + phase variance / 0.2 rad^2), +1 for a right and -1 for a wrong
    declaration, -0.01 an image. `observable`, which an instrument can compute: -0.01 an image and, with HAADF, 0.2 x growth
    of log sharpness (normalised variance of the image nearest to focus).

    ## Starting State
    Uniform: C10, C12 within 10 nm, C21 within 900 nm, C23 within 300 nm (C21 = 3 B2: B2, A2 within 300 nm). C30, C32, C34
    are left over at 0.3 to 0.5 um and have no control. Specimen, place, drift and coupling are drawn anew.

    ## Episode End

    1. Termination: the agent declares. Success if the Strehl ratio is at least 0.8.
    2. Truncation: another step would not fit into the scenario's budget (40 images).

    ## Arguments

    | Parameter | Type | Default | Description |
    |---|---|---|---|
    | `scenario` | str | `"train"` | a name from `probegym show StemTuning`, or `file.yaml:name` |
    | `reward` | str | `"privileged"` | or `"observable"` |
    | `budget` | int | None | fewer images than the scenario allows |
    | `world` | object or path | None | None: the twin; a path: the folder of a record; or an object with the world protocol |

    >>> env = gymnasium.make("probegym/StemTuning-v0", scenario="train", render_mode="rgb_array")

    ## Physics and assumptions
    The column: 60 keV, a probe of 30 mrad and 50 pA, Ronchigrams of 40 mrad, unless the scenario says otherwise. Images are exact
    multislice images of the specimen (bilinear in the probe, physics/image_formation.py), Ronchigrams
    multislice through a thin film (physics/ronchigram.py), coherent. Aberrations to fifth order, focal spread and source
    size in images; Poisson noise. The Strehl ratio is that of a 30 mrad probe with the tilt taken out. The film is beside
    the specimen. Figures, with what is not reached: docs/stem_tuning.md.

    ## Vectorized environment
    `make_vec(..., num_envs=64)` is native; lane i equals `make(...).reset(seed=seed + i)`.

    ## Sources
    Pattison et al. (2025), 10.1038/s41524-025-01766-4 (start box, BEACON). Krivanek, Dellby & Lupini (1999),
    10.1016/S0304-3991(99)00013-3. Madsen & Susi (2021), 10.12688/openreseurope.13015.2 (abTEM).

    ## Version History
    * v0: first release.
    """

    task_type = StemTuningTask


class StemTuningVector(ScopeVectorEnv):
    """N lanes of :class:`StemTuning`."""

    task_type = StemTuningTask
