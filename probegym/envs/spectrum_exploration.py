"""``probegym/SpectrumExploration-v0``: find the spectra that matter on an image, one measurement at a time."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

import numpy as np
from gymnasium import spaces

from probegym.envs import exploration_rewards as rewards
from probegym.envs import pictures_spectra
from probegym.envs.core import ScopeEnv, ScopeVectorEnv
from probegym.envs.exploration import Exploration, first_places
from probegym.envs.exploration_settings import Settings
from probegym.envs.task import Observation, Task, Term, Transition, Where, measurements
from probegym.hardware_bridge.commands import AcquireImage, AcquireSpectrum, Command, Lanes, Readings
from probegym.scenarios import ScenarioError, parsed

WEIGHTS = ("mean", "deviation", "novelty", "travel")
CANDIDATES = np.stack(np.meshgrid(*[np.linspace(-1, 1, 5, dtype=np.float32)] * 3, (0.0, 0.5)), -1).reshape(-1, 4).astype(np.float32)
"""Acquisition functions (n, 4) among which the oracle of the steering variant chooses."""
SATURATION = 20.0  # standard deviations, of maps in an observation


class SpectrumExplorationTask(Task):
    """Decode, encode and ends of SpectrumExploration; see :class:`SpectrumExploration` for its page."""

    family = "spectrum_exploration"
    twin = "probegym.hardware_bridge.twins.spectra:SpectraTwin"
    origins: ClassVar = {"AcquireImage.detector": ("task.image.detector", "world.source"), "AcquireSpectrum.detector": ("task.spectrum.detector", "world.source")}
    controls_from = "probegym.envs.exploration_controls:controls"
    measured = "spectra"
    metric_units: ClassVar = {"behaviours": "1", "regret": "1", "rank": "1", "found": "1"}
    info_meanings: ClassVar = {"behaviours": "kinds of spectra seen so far", "regret": "of the best place so far: 0 at the best there is, 1 at the median, hidden truth",
                               "rank": "of the best place so far, 0 the best, hidden truth", "found": "share of the top 1 % that was measured, hidden truth",
                               "dose": "electrons where the beam was, summed over places", "damage": "always 0"}  # fmt: skip
    decides = ("at",)

    def __init__(self, settings: dict):
        self.settings = s = parsed(Settings, settings, "task")
        from probegym.physics import scalarizers

        for name in s.scalarizers:
            scalarizers.named(name)  # refuses one that there is not
        self.exploration = Exploration(s)
        plane, steering = (1, s.image.rows, s.image.columns), s.action == "steer"
        self.modelled = s.surrogate.embedding != "none"
        maps = ("measured", "value") + (("mean", "deviation", "novelty") if self.modelled else ())
        boxes: dict[str, spaces.Space] = {"image": spaces.Box(0, 255, plane, np.uint8)}
        boxes |= {name: spaces.Box(-SATURATION, SATURATION, plane, np.float32) for name in maps}
        boxes |= {"spectrum": spaces.Box(-1, 1, (s.spectrum.channels,), np.float32)}
        boxes |= {name: spaces.Box(0, 1, (size,), np.float32) for name, size in (("scalarizer", len(s.scalarizers)), ("budget", 1))}
        boxes |= {"fit": spaces.Box(-SATURATION, SATURATION, (2,), np.float32)} if self.modelled else {}
        self.observation_space = spaces.Dict(boxes)
        self.action_space = spaces.Box(-1, 1, (len(WEIGHTS),), np.float32) if steering else spaces.Discrete(s.image.pixels)
        own = [Term("coverage", 0.02, rewards.coverage), Term("measurements", -s.price, measurements)]
        seen = [Term("improvement", 0.2, rewards.improvement), Term("information", 1.0, rewards.information)]
        self.rewards = {"privileged": [Term("progress", 1.0, self._progress, True), *own], "observable": [*seen, *own]}

    def _progress(self, t: Transition) -> np.ndarray:
        """Fall of the regret in this step."""
        scalar, ascending = self._sought(t.after, t.memory)
        lanes, now = np.arange(len(scalar)), t.memory["visits"] > 0
        before = now.copy()
        before[lanes, t.memory["at"]] = t.memory["visits"][lanes, t.memory["at"]] > 1
        return rewards.regret(rewards.best(scalar, before), ascending) - rewards.regret(rewards.best(scalar, now), ascending)

    def _sought(self, truth: Lanes, memory: Lanes) -> tuple[np.ndarray, np.ndarray]:
        """True values of what is looked for now, (lanes, pixels), as they lie and in ascending order."""
        maps = []
        strangers = [name for name in self.settings.scalarizers if f"scalar {name}" not in truth]
        if strangers:
            raise ScenarioError("task.scalarizers", f"{strangers[0]!r} is not made for the spectra of this world, or fails there: use another")
        for kind in ("scalar", "sorted"):
            every = [truth[f"{kind} {name}"] for name in self.settings.scalarizers]
            maps.append(every[0] if len(every) == 1 else np.stack(every)[memory["target"], np.arange(len(memory["target"]))])
        return maps[0], maps[1]

    def memory(self, lanes: int) -> Lanes:
        return self.exploration.memory(lanes)

    def opening(self, memory: Lanes) -> Iterable[tuple[Command, Where | None]]:
        i, lanes = self.settings.image, len(memory["at"])
        yield AcquireImage(i.detector, (i.rows, i.columns), i.field_of_view, i.dwell_time, np.zeros(lanes)), None
        for pixel in first_places(memory["key"], i.pixels, self.settings.first).T:
            yield self._spectrum(pixel), None

    def _spectrum(self, pixel: np.ndarray) -> AcquireSpectrum:
        s = self.settings
        row, column = np.divmod(pixel, s.image.columns)
        return AcquireSpectrum(s.spectrum.detector, (np.stack([column, row], 1) + 0.5) * s.image.pixel_size, s.spectrum.exposure_time)

    def _pixel(self, action: np.ndarray, memory: Lanes) -> np.ndarray:
        return action if self.settings.action == "locate" else self.exploration.chosen(action, memory)

    def foreseen(self, action: np.ndarray, memory: Lanes) -> Lanes:
        return {"time": self.exploration.seconds(memory, self._pixel(action, memory))} if "time" in self.limits else {}

    def least(self, memory: Lanes) -> Lanes:
        return {"measurements": np.ones(len(memory["at"]))} | ({"time": self.exploration.seconds(memory)} if "time" in self.limits else {})

    def decode(self, action: np.ndarray, memory: Lanes, where: Where) -> Iterable[tuple[Command, Where | None]]:
        memory["at"] = np.where(where, self._pixel(action, memory), memory["at"])
        yield self._spectrum(memory["at"]), None

    def encode(self, readings: list[Readings], memory: Lanes, left: np.ndarray, where: Where) -> Observation:
        s, x, m = self.settings, self.exploration, memory
        if s.image.detector in readings[0].values:
            x.begin(m, readings[0].values[s.image.detector], where)
            for pixel, reading in zip(first_places(m["key"], s.image.pixels, s.first).T, readings[1:], strict=True):
                m["at"] = np.where(where, pixel, m["at"])
                x.add(m, reading.values, reading.time, where)
        else:
            x.add(m, readings[0].values, readings[0].time, where)
        x.learn(m, where)
        plane, (mean, scale) = (-1, 1, s.image.rows, s.image.columns), x.standard(m)
        shown = {"measured": m["visits"] > 0, "value": (m["value"] - mean) / scale * m["known"]}
        if self.modelled:
            shown |= {"mean": (m["mean"] - mean) / scale, "deviation": m["deviation"] / scale, "novelty": m["novelty"]}
        maps = {name: np.clip(array, -SATURATION, SATURATION).reshape(plane) for name, array in shown.items()}  # a display saturates
        lines = {"spectrum": m["latest"], "scalarizer": np.eye(len(s.scalarizers))[m["target"]], "budget": left[:, None]}
        lines |= {"fit": np.clip(m["fit"], -SATURATION, SATURATION)} if self.modelled else {}
        return {"image": m["image"].reshape(plane).copy()} | {name: array.astype(np.float32) for name, array in (maps | lines).items()}

    def masks(self, memory: Lanes) -> np.ndarray:
        super().masks(memory)  # refuses where actions are weights
        return memory["visits"] == 0

    @property
    def action_units(self) -> dict:
        s = self.settings
        return {"weights": list(WEIGHTS)} if s.action == "steer" else {"places": [s.image.rows, s.image.columns]}

    def ends(self, truth: Lanes, memory: Lanes) -> tuple[np.ndarray, np.ndarray]:
        never = np.zeros(len(memory["at"]), bool)
        if not truth:
            return never, never
        scalar, ascending = self._sought(truth, memory)
        best = rewards.best(scalar, memory["visits"] > 0)  # the least of all values, as of places without any, is good nowhere
        return never, (rewards.rank(best, ascending) < self._places(self.settings.goal)) & (best > ascending[:, 0])

    def _places(self, share: float) -> int:
        return max(1, round(share * self.settings.image.pixels))

    def metrics(self, truth: Lanes, memory: Lanes) -> Lanes:
        own = {"behaviours": memory["behaviours"].copy()}
        if not truth:
            return own
        (scalar, ascending), visited = self._sought(truth, memory), memory["visits"] > 0
        best, top = rewards.best(scalar, visited), self._places(self.settings.top)
        good = (scalar >= ascending[:, -top, None]) & (scalar > ascending[:, :1])  # more than ``top`` where some are equal, none in a flat map
        found = (good & visited).sum(1) / np.maximum(good.sum(1), 1)
        return own | {"regret": rewards.regret(best, ascending), "rank": rewards.rank(best, ascending), "found": found}

    def oracle(self, truth: Lanes, memory: Lanes) -> np.ndarray:
        """Goes to the best place not yet measured, when steering to the best that one of 250 acquisition functions picks. No strict bound: it looks one spectrum ahead."""
        scalar = np.where(memory["visits"] > 0, -np.inf, self._sought(truth, memory)[0])
        if self.settings.action == "locate":
            return scalar.argmax(1)
        picks = self.exploration.chosen(np.tile(CANDIDATES, (len(scalar), 1, 1)), memory)
        return CANDIDATES[np.take_along_axis(scalar, picks, 1).argmax(1)]

    def picture(self, observation: Observation, truth: Lanes, memory: Lanes, info: Lanes) -> np.ndarray:
        return pictures_spectra.exploration(self, observation, truth, memory, info)


class SpectrumExploration(ScopeEnv):
    """Find the spectra that matter on an image, one measurement at a time, with a model that learns as they come in.

    ## Description
    An image is cheap, the spectrum behind each of its pixels is not: it takes time and dose, and there is room for 3.5 % of
    them. A scalarizer makes one number of a spectrum; the best place is wanted. A deep kernel (a Gaussian process on what a small
    network makes of the surroundings of a pixel) is trained on the fly and predicts that number everywhere. What is looked for
    may change in mid-episode. The agent picks the places itself, or steers the acquisition function that picks them.

    ## Action Space
    `action: steer` (default): `Box(-1, 1, (4,), float32)`, weights of the expected value, its deviation (both in standard
    deviations of the values known), novelty (how unlike all that was measured the surroundings are, 0 to 1) and travel (in widths
    of the image, a cost). The place with the largest sum that has not been measured is next; the first one if there are several.
    `action: locate`: `Discrete(2500)`, the place itself, row by row; `action_masks()` says which have not been measured. A place
    may be measured again: its spectra are averaged. Numbers outside are refused; nothing is done.

    ## Observation Space

    | Key | Shape | Type | Meaning |
    |---|---|---|---|
    | `image` | (1, 50, 50) | uint8 | the structural image |
    | `measured` | (1, 50, 50) | float32 | 1 where a spectrum was taken |
    | `value` | (1, 50, 50) | float32 | the scalars found, less their mean, over their deviation; 0 elsewhere |
    | `mean`, `deviation` | (1, 50, 50) | float32 | what the surrogate expects, in the same unit (absent without surrogate) |
    | `novelty` | (1, 50, 50) | float32 | 1: nothing like it was measured (absent without surrogate) |
    | `spectrum` | (channels,) | float32 | the latest, scaled to a largest channel of 1 |
    | `scalarizer` | (n,) | float32 | one-hot: what is looked for |
    | `fit` | (2,) | float32 | known values predicted from each other: correlation, error over claimed deviation |
    | `budget` | (1,) | float32 | share of the tightest budget that is left |

    ## Rewards
    `privileged` (default): fall of the regret (0 at the best place there is, 1 at the median), +0.02 for a behaviour that was
    not seen before, less the price. `observable`: 0.2 x growth of the best value in standard deviations, the fall of the
    surrogate's mean uncertainty, behaviours and price alike.

    ## Starting State
    A specimen, an image of it, and five spectra at places drawn from the episode's key.

    ## Episode End
    Truncation when another spectrum would not fit into the scenario's budget (88 of 2500); where that limits the time, also when
    the place is too far away: then nothing is done. (What ways cost is learned from the times of the spectra so far.)
    `is_success`: one of the five best places was found. The agent is never told.

    ## Arguments

    | Parameter | Type | Default | Description |
    |---|---|---|---|
    | `scenario` | str | `"train"` | a name from `probegym show SpectrumExploration`, or `file.yaml:name` |
    | `reward` | str | `"privileged"` | or `"observable"` |
    | `budget` | int | None | fewer spectra than the scenario allows |
    | `world` | object or path | None | None: the twin; a path: the folder of a record; or an object with the world protocol |

    >>> env = gymnasium.make("probegym/SpectrumExploration-v0", scenario="train", render_mode="rgb_array")

    ## Physics and assumptions
    Plasmon losses of coupled Drude spheroids (physics/plasmons.py), ferroelectric hysteresis near walls and lamellae
    (physics/ferroelectrics.py), centre of mass of diffraction patterns from the exact STEM images (physics/centre_of_mass.py), or
    a measured map, turned and mirrored, without further noise. `deviation` is that of the value without noise, and on the whole
    too small: errors are 1.3 to 2.1 times as large on plasmons and loops, 2 to 2.8 times on the recorded map. Where a scalarizer
    is undefined (NaN), the surrogate learns nothing, and the place is worth the least.

    ## Vectorized environment
    `make_vec(..., num_envs=64)` is native; lane i equals `make(...).reset(seed=seed + i)`.

    ## Sources
    Roccapriore, Kalinin & Ziatdinov (2022), 10.1002/advs.202203422; Liu et al. (2022), 10.1038/s42256-022-00460-0 (deep kernel
    learning at microscopes). Wilson, Hu, Salakhutdinov & Xing (2016), 10.48550/arXiv.1511.02222. Recorded loops:
    https://github.com/pycroscopy/DTMicroscope (MIT).

    ## Version History
    * v0: first release.
    """

    task_type = SpectrumExplorationTask


class SpectrumExplorationVector(ScopeVectorEnv):
    """N lanes of :class:`SpectrumExploration`."""

    task_type = SpectrumExplorationTask
