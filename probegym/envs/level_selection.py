"""``probegym/LevelSelection-v0``: which instrument, and where, to learn most about flakes in a day of measuring."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

import numpy as np
from gymnasium import spaces

from probegym.envs import level_plans, pictures_levels
from probegym.envs.actions import bounds
from probegym.envs.core import ScopeEnv, ScopeVectorEnv
from probegym.envs.level_knowledge import FLAKES, Knowledge
from probegym.envs.level_settings import Settings
from probegym.envs.task import Observation, Task, Term, Transition, Where, hours
from probegym.hardware_bridge.commands import Command, InspectLevels, Lanes, MeasureLevel, Readings
from probegym.scenarios import parsed

HIGHEST = 10.0  # that an observation shows; rarely met


def _error(t: Transition) -> np.ndarray:
    true, m = t.after["quantities"].reshape(t.memory["mean"].shape), t.memory
    before, after, ignorant = (((guess - true) ** 2 * m["target"]).sum(1) for guess in (m["mean_before"], m["mean"], 0.0))
    return (before - after) / np.maximum(ignorant, 0.05)


def _uncertainty(t: Transition) -> np.ndarray:
    return t.memory["uncertainty_before"] - t.memory["uncertainty"]


class LevelSelectionTask(Task):
    """Decode, encode and ends of LevelSelection; see :class:`LevelSelection` for its page."""

    family = "level_selection"
    twin = "probegym.hardware_bridge.twins.flakes:FlakesTwin"
    origins: ClassVar = {"MeasureLevel.level": ("task.levels", "world.levels")}
    controls_from = "probegym.envs.level_controls:controls"
    measured = "maps"
    metric_units: ClassVar = {"uncertainty": "1", "rmse": "1", "optical_maps": "1", "eds_maps": "1", "stm_maps": "1"}
    info_meanings: ClassVar = {"uncertainty": "of the target, as believed, as share of the prior's", "rmse": "error of the target, in standard deviations over flakes, hidden truth",
                               "dose": "electrons of EDS maps", "damage": "always 0", **{f"{name}_maps": f"{told} maps after the overview" for name, told in (("optical", "optical"), ("eds", "EDS"), ("stm", "STM"))}}  # fmt: skip
    decides = ("instrument", "place", "steps")

    def __init__(self, settings: dict):
        self.settings = s = parsed(Settings, settings, "task")
        self.levels = n = len(s.levels)
        self.knowledge = Knowledge(s)
        box = {"mean": (-HIGHEST, (n, FLAKES)), "variance": (0, (n, FLAKES)), "flakes": (0, (FLAKES, 4)), "correlations": (-1, (2 * n - 2,)),
               "instrument": (0, (n,)), "price": (0, (n,)), "repeat": (0, (n,)), "reduction": (0, (n, FLAKES)), "promise": (0, (n, FLAKES)), "target": (0, (n,)),
               "uncertainty": (0, (1,)), "budget": (0, (1,))}  # fmt: skip
        highest = {"mean", "variance", "price", "repeat", "uncertainty"}
        self.observation_space = spaces.Dict(
            {name: spaces.Box(low, HIGHEST if name in highest else 1, shape, np.float32) for name, (low, shape) in box.items()}
        )
        choices = {"level": spaces.Discrete(n), "level-and-place": spaces.Discrete(n * FLAKES), "level-and-map": spaces.MultiDiscrete([n, n + 1])}
        self.action_space = choices[s.choose]
        time = Term("time", -s.price, hours)
        self.rewards = {"privileged": [Term("error", 0.5, _error, True), Term("uncertainty", 0.5, _uncertainty), time], "observable": [Term("uncertainty", 1.0, _uncertainty), time]}

    @property
    def action_units(self) -> dict:
        return {"choose": self.settings.choose, "levels": list(self.settings.levels)}

    def memory(self, lanes: int) -> Lanes:
        return self.knowledge.memory(lanes)

    # ---- what is done ----

    def opening(self, memory: Lanes) -> Iterable[tuple[Command, Where | None]]:
        yield InspectLevels(), None
        yield MeasureLevel(self.settings.levels[0], np.zeros((len(memory["view"]), 2))), None

    def chosen(self, action: np.ndarray, m: Lanes) -> tuple[np.ndarray, np.ndarray]:
        """Level and flake (lanes,) that an action stands for."""
        each = np.arange(len(m["view"]))
        if self.settings.choose == "level-and-place":
            level, place = action // FLAKES, action % FLAKES
            return level, np.where(m["size"][each, place] > 0, place, 0)  # a flake that is not there stands for the first
        if self.settings.choose == "level":
            return action, m["promise"][each, action].argmax(1)
        level, chart = action[:, 0], action[:, 1]
        variance = self.knowledge.variance(m)
        combined = (variance * m["target"].reshape(variance.shape)).sum(1, keepdims=True)
        shown = np.concatenate([variance, combined], 1)[each, chart]
        return level, np.where(m["size"] > 0, shown, -1).argmax(1)

    def decode(self, action: np.ndarray, memory: Lanes, where: Where) -> Iterable[tuple[Command, Where | None]]:
        level, place = self.chosen(action, memory)
        memory["instrument"][where], memory["place"][where] = level[where], place[where]
        memory["steps"][np.nonzero(where)[0], level[where]] += 1
        position = memory["position"][np.arange(len(place)), place]
        for number, name in enumerate(self.settings.levels):
            yield MeasureLevel(name, position), where & (level == number)

    @property
    def seconds_available(self) -> float:
        """Seconds of an episode; a working day where nothing limits them."""
        return self.limits.get("time", 8 * 3600.0)

    def prices(self, memory: Lanes) -> np.ndarray:
        """Seconds (lanes, levels) of a measurement at each level, from where the sample is."""
        return memory["seconds"][np.arange(len(memory["view"])), memory["instrument"]]

    def foreseen(self, action: np.ndarray, memory: Lanes) -> Lanes:
        level = self.chosen(action, memory)[0]
        return {"time": self.prices(memory)[np.arange(len(level)), level], "measurements": np.ones(len(level))}

    def least(self, memory: Lanes) -> Lanes:
        return {"time": self.prices(memory).min(1), "measurements": np.ones(len(memory["view"]))}

    def masks(self, memory: Lanes) -> np.ndarray:
        if self.settings.choose == "level-and-map":
            return super().masks(memory)
        price = self.prices(memory)
        fits = price <= np.maximum(self.seconds_available - memory["seconds_spent"], price.min(1))[:, None]
        if self.settings.choose == "level":
            return fits
        there = np.repeat((memory["size"] > 0)[:, None], self.levels, 1)
        there[:, :, 0] = True
        there[:, 0, 1:] = False  # the overview is the same wherever it is taken
        return (there & fits[..., None]).reshape(len(fits), -1)

    # ---- what is seen ----

    def encode(self, readings: list[Readings], memory: Lanes, left: np.ndarray, where: Where) -> Observation:
        m = memory
        if "labels" in readings[0].values:
            self.knowledge.begin(readings[0].values, m, where)
            readings = readings[1:]
        m["seconds_spent"][where] += sum((reading.time for reading in readings), np.zeros(len(where)))[where]
        m["mean_before"][where], m["uncertainty_before"][where] = m["mean"][where], m["uncertainty"][where]
        for level, reading in enumerate(readings):
            for lane in np.nonzero(where & (reading.measurements > 0))[0].tolist():
                self.knowledge.learn(m, lane, level, reading.values["signal"][lane])
        for lane in np.nonzero(where)[0].tolist():
            self.knowledge.judge(m, lane)
        shown = self.knowledge.shown(m) | {
            "instrument": np.eye(self.levels)[m["instrument"]], "price": self.prices(m) / self.seconds_available,
            "repeat": np.diagonal(m["seconds"], axis1=1, axis2=2) / self.seconds_available, "budget": left[:, None],
        }  # fmt: skip
        box = self.observation_space
        return {name: np.clip(value, *bounds(box[name])).astype(np.float32) for name, value in shown.items()}

    # ---- the end ----

    def ends(self, truth: Lanes, memory: Lanes) -> tuple[np.ndarray, np.ndarray]:
        return np.zeros(len(memory["view"]), bool), memory["uncertainty"] <= self.settings.goal

    def metrics(self, truth: Lanes, memory: Lanes) -> Lanes:
        m = memory
        own = {"uncertainty": m["uncertainty"].copy()} | {f"{name}_maps": self.knowledge.taken(m)[:, i] for i, name in enumerate(self.settings.levels)}
        return own | ({"rmse": np.sqrt(((m["mean"] - truth["quantities"].reshape(m["mean"].shape)) ** 2 * m["target"]).sum(1))} if truth else {})

    def oracle(self, truth: Lanes, memory: Lanes) -> np.ndarray:
        """Knows the correlations (by the nearest hypothesis), not the flakes: the first map of the best of six plans to the end. No bound: the plans are of one kind."""
        left, ties = self.seconds_available - memory["seconds_spent"], truth["correlations"]
        return self.action(*np.array([level_plans.best(self.knowledge, memory, lane, ties[lane], left[lane]) for lane in range(len(left))]).T)

    def action(self, level: np.ndarray, place: np.ndarray) -> np.ndarray:
        """Actions (lanes, ...) for levels and flakes (lanes,); where no flake can be chosen, the level's own map chooses."""
        if self.settings.choose == "level-and-place":
            return level * FLAKES + np.where(level == 0, 0, place)
        return level if self.settings.choose == "level" else np.stack([level, level], 1)

    def picture(self, observation: Observation, truth: Lanes, memory: Lanes, info: Lanes) -> np.ndarray:
        return pictures_levels.selection(self, observation, truth, memory, info)


class LevelSelection(ScopeEnv):
    """Decide which instrument measures a sample of flakes next, so that a working day leaves as little uncertain as it can.

    ## Description
    Flakes of a two-dimensional material lie on a substrate. Each has three hidden quantities: optical contrast, composition,
    local electronic structure. An optical microscope maps the first for all flakes in minutes, but blurred; an SEM with EDS the
    second for the few flakes in a tile; an STM the third at one spot of one flake, slowly. Neighbouring quantities are correlated,
    how strongly and with which sign nobody knows; bringing the sample to another instrument takes longest. An exact Gaussian
    belief over all flakes and levels, for 32 hypotheses of the correlations, turns maps into means and variances; the agent
    decides what is measured next. It wants to know the electronic structure (or what the scenario's `target` says).

    ## Action Space
    By scenario: `level`, `Discrete(3)`: the instrument, which then measures where it promises to tell most. `level-and-place`,
    `Discrete(72)`: instrument x flake. `level-and-map`, `MultiDiscrete([3, 4])`: the instrument, and the uncertainty map (of one
    level, or of the target) whose highest value picks the flake. `action_masks()` leaves out maps that do not fit into the time
    that is left (they end the episode and are not made), flakes that are not there (they stand for the first) and all places
    but one for the overview; with `level-and-map` (scenario `map`) it raises an error. Numbers outside are refused; nothing is done.

    ## Observation Space
    float32, levels in the order optical, eds, stm; up to 24 flakes, absent ones zero.

    | Key | Shape | Meaning |
    |---|---|---|
    | `mean`, `variance` | (3, 24) | what is believed of every flake at every level; standard deviations over flakes are one |
    | `flakes` | (24, 4) | x and y as share of the view, area as share of the view, 1 where there is a flake |
    | `correlations` | (4,) | of each level with the one before: believed means, then standard deviations |
    | `instrument` | (3,) | one-hot: where the sample is |
    | `price`, `repeat` | (3,) | share of the episode's time that a map costs now, and one more when the sample is there |
    | `reduction` | (3, 24) | expected reduction of the target's uncertainty by one map around each flake |
    | `promise` | (3, 24) | the same, were the signs of the correlations known |
    | `target` | (3,) | how much the uncertainty of each level counts |
    | `uncertainty` | (1,) | of the target, as share of the prior's |
    | `budget` | (1,) | share of the tightest budget that is left |

    ## Rewards
    `privileged` (default): decrease of the target's variance as believed, and of its true mean squared error as share of what knowing
    nothing leaves, half of each, less 0.01 an hour. `observable`: decrease of the believed variance alone, less 0.01 an hour.

    ## Starting State
    18 to 23 grown crystals of 1.6 to 4 um in a view of 40 um; shapes, correlations (r^2 uniform, either sign), gradients, pace of the
    instruments and times of transfer are drawn anew. One optical overview has been taken.

    ## Episode End
    Truncation only: the next map does not fit into the budget (8 hours). `is_success`: less than 0.3 of the uncertainty is left.

    ## Arguments

    | Parameter | Type | Default | Description |
    |---|---|---|---|
    | `scenario` | str | `"train"` | a name from `probegym show LevelSelection`, or `file.yaml:name` |
    | `reward` | str | `"privileged"` | or `"observable"` |
    | `budget` | int | None | fewer maps than the scenario allows |
    | `world` | object or path | None | None: the twin; a path: the folder of a record; or an object with the world protocol |

    >>> env = gymnasium.make("probegym/LevelSelection-v0", scenario="train", render_mode="rgb_array")

    ## Physics and assumptions
    Quantities follow an autoregression along the levels, innovations are a growth gradient plus individuality; maps are blurred by
    Gaussian point-spread functions, so flakes leak into one another, and carry noise: exact linear functionals (physics/flakes.py).
    All values are typical, not measured ones (docs/level_selection.md). No hypothesis has r = 0: far-correlation is slightly overconfident.

    ## Vectorized environment
    `make_vec(..., num_envs=64)` is native; lane i equals `make(...).reset(seed=seed + i)`.

    ## Sources
    Kennedy & O'Hagan (2000), 10.1093/biomet/87.1.1.

    ## Version History
    * v0: first release.
    """

    task_type = LevelSelectionTask


class LevelSelectionVector(ScopeVectorEnv):
    """N lanes of :class:`LevelSelection`."""

    task_type = LevelSelectionTask
