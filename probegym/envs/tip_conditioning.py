"""``probegym/TipConditioning-v0``: bring the tip of a scanning tunnelling microscope back to atomic sharpness."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

import numpy as np
from gymnasium import spaces

from probegym.envs import pictures_stm
from probegym.envs.clean_area import CleanArea
from probegym.envs.core import ScopeEnv, ScopeVectorEnv
from probegym.envs.task import Boxes, Observation, Task, Term, Transition, Where, failure, measurements, success
from probegym.envs.tip_settings import Settings
from probegym.errors import ProbeGymError
from probegym.hardware_bridge.commands import AcquireTopograph, Command, DipTip, Lanes, PulseBias, Readings
from probegym.scenarios import parsed

AREA_UNIT = 1e-14  # m^2 that cost as much as one action; a disc of 50 nm is 0.785 of it
OFFSETS = 2e-9 * np.array([(0, 0), (-1, 0), (1, 0), (0, -1), (0, 1), (-1, -1), (-1, 1), (1, -1), (1, 1)])
"""Where in the last image a flat patch is looked for; the first is its centre."""


def _progress(t: Transition) -> np.ndarray:
    return t.after["quality"] - t.before["quality"]


def _verdict(t: Transition) -> np.ndarray:
    return t.memory["verdict"] - t.memory["verdict_before"]


def _area(t: Transition) -> np.ndarray:
    return t.memory["just_spoiled"] / AREA_UNIT


class TipConditioningTask(Task):
    """Decode, encode and ends of TipConditioning; see :class:`TipConditioning` for its page."""

    family = "tip_conditioning"
    twin = "probegym.hardware_bridge.twins.stm:StmTwin"
    controls_from = "probegym.envs.tip_controls:controls"
    measured = "images"
    metric_units: ClassVar = {"area_spoiled": "nm^2", "actions": "1", "tip_quality": "1"}
    info_meanings: ClassVar = {"area_spoiled": "of the surface", "actions": "all but the declaration", "tip_quality": "0 to 1, hidden truth", "dose": "always 0", "damage": "treatments"}
    decides = ("action", "just_spoiled", "actions", "place", "discs", "treated", "clearance")

    def __init__(self, settings: dict):
        self.settings = s = parsed(Settings, settings, "task")
        self.names, self.bias, self.depth, self.flat, self.radius = s.actions()
        n = len(self.names)
        self.smallest, self.declare = self.radius[self.radius > 0].min(), n - 1
        self.area = CleanArea(s.area)
        pixels = s.image.pixels
        shares = {"verdict": 1, "last_action": n, "room": n, "area": 1, "budget": 1}
        boxes: Boxes = {"image": spaces.Box(0, 255, (1, pixels, pixels), np.uint8)}
        boxes |= {name: spaces.Box(0, 1, (size,), np.float32) for name, size in shares.items()}
        self.observation_space = spaces.Dict(boxes)
        self.action_space = spaces.Discrete(n)
        prices = [Term("measurements", -s.price, measurements), Term("area", -s.price, _area)]
        goal = [Term("success", 1.0, success, True), Term("failure", -1.0, failure, True)]
        self.rewards = {"privileged": [Term("progress", 0.2, _progress, True), *goal, *prices], "observable": [Term("verdict", 0.2, _verdict), *prices]}

    def memory(self, lanes: int) -> Lanes:
        pixels = self.settings.image.pixels
        return self.area.memory(lanes) | {
            "height": np.zeros((lanes, pixels, pixels), np.float32),
            "verdict": np.zeros(lanes),
            "verdict_before": np.zeros(lanes),
            "action": np.zeros(lanes, np.int64),
            "just_spoiled": np.zeros(lanes),
            "actions": np.zeros(lanes),
        }

    def opening(self, memory: Lanes) -> Iterable[tuple[Command, Where | None]]:
        s, centre = self.settings, self.area.places[memory["place"]]
        lanes, nobody = len(centre), np.zeros(len(centre), bool)  # asked of no lane: a world without such treatments refuses now
        yield PulseBias(centre, np.full(lanes, max(s.pulses.bias)), s.pulses.duration), nobody
        yield DipTip(centre, np.full(lanes, max(s.dips.depth)), s.dips.bias, s.dips.duration), nobody
        yield self._topograph(memory), None

    def _topograph(self, memory: Lanes) -> AcquireTopograph:
        i = self.settings.image
        return AcquireTopograph((i.pixels, i.pixels), i.field_of_view, i.speed, self.area.places[memory["place"]], i.bias, i.current)

    def decode(self, action: np.ndarray, memory: Lanes, where: Where) -> Iterable[tuple[Command, Where | None]]:
        s, m = self.settings, memory
        radius = self.radius[action]
        place = self.area.nearest(m, radius)
        acting = where & (radius > 0) & (place >= 0)  # an action without room is a look
        centre = self._flattest(m, action, np.where(acting, place, m["place"]), radius)
        yield PulseBias(centre, self.bias[action], s.pulses.duration), acting & (self.bias[action] != 0)
        yield DipTip(centre, self.depth[action], s.dips.bias, s.dips.duration), acting & (self.depth[action] > 0)
        m["action"] = np.where(where, np.where(acting | (action == self.declare), action, 0), m["action"])
        m["just_spoiled"] = np.where(where, np.pi * radius**2 * acting, m["just_spoiled"])
        m["actions"] += where & (action != self.declare)
        m["place"] = np.where(acting, place, m["place"])
        self.area.spoil(m, acting, centre, radius)
        view = self.area.next_view(m, self.smallest)
        seeing = where & (action != self.declare) & (view >= 0)  # who declares, or has no place left, takes no more images
        m["place"] = np.where(seeing, view, m["place"])
        yield self._topograph(m), seeing

    def _flattest(self, m: Lanes, action: np.ndarray, place: np.ndarray, radius: np.ndarray) -> np.ndarray:
        """Where to act: in the last image, if a dip is made there, on the patch with the least difference of height."""
        at, image = self.area.places[place], self.settings.image
        pixel, middle = image.field_of_view / image.pixels, image.pixels / 2
        roughness = np.full((len(action), len(OFFSETS)), np.inf)
        roughness[:, 0] = np.finfo(float).max  # the centre of the place always fits
        for number in np.unique(action[(self.depth[action] > 0) & (place == m["place"])]):
            on = np.nonzero((action == number) & (place == m["place"]))[0]
            half = max(1, round(0.5 * self.flat[number] / pixel))
            for index, offset in enumerate(OFFSETS):
                x, y = (round(middle + v / pixel) for v in offset)
                patch = m["height"][on, max(0, y - half) : y + half, max(0, x - half) : x + half]
                fits = self.area.fits({"discs": m["discs"][on]}, at[on] + offset, radius[on])
                roughness[on[fits], index] = np.ptp(patch, axis=(1, 2))[fits]
        return at + OFFSETS[roughness.argmin(1)]

    def masks(self, memory: Lanes) -> np.ndarray:
        return (self.radius == 0) | self.area.room(memory, self.radius)

    def encode(self, readings: list[Readings], memory: Lanes, left: np.ndarray, where: Where) -> Observation:
        taken, m = readings[-1], memory
        seen = (taken.measurements > 0) & where
        m["height"][seen] = taken.values["height"][seen]
        first = seen & (m["actions"] == 0)
        m["verdict_before"] = np.where(first, taken.values["verdict"], np.where(where, m["verdict"], m["verdict_before"]))
        m["verdict"] = np.where(seen, taken.values["verdict"], m["verdict"])
        m["visits"][np.nonzero(seen)[0], m["place"][seen]] += 1
        level = m["height"] - np.median(m["height"], axis=(1, 2), keepdims=True)
        grey = np.clip(127.5 + level * (255 / self.settings.grey_range), 0, 255).astype(np.uint8)  # a display saturates
        room = np.where(self.radius > 0, self.area.room(m, self.radius), 1.0)
        clean = 1 - self.area.spoiled(m) / self.settings.area**2
        shares = {"verdict": m["verdict"][:, None], "last_action": np.eye(len(self.names))[m["action"]], "room": room,
                  "area": clean[:, None], "budget": left[:, None]}  # fmt: skip
        return {"image": grey[:, None]} | {name: value.astype(np.float32) for name, value in shares.items()}

    @property
    def action_units(self) -> dict:
        return {"names": list(self.names)}

    def ends(self, truth: Lanes, memory: Lanes) -> tuple[np.ndarray, np.ndarray]:
        declared = memory["action"] == self.declare
        exhausted = ~self.area.room(memory, np.array([self.smallest]))[:, 0]
        return declared | exhausted, declared & truth["good"] if truth else np.zeros_like(declared)

    def metrics(self, truth: Lanes, memory: Lanes) -> Lanes:
        own = {"actions": memory["actions"].copy(), "area_spoiled": 1e18 * self.area.spoiled(memory)}
        return own | ({"tip_quality": truth["quality"]} if truth else {})

    def oracle(self, truth: Lanes, memory: Lanes) -> np.ndarray:
        """Declares a good tip; else the treatment, or look, of least expected cost until the kind of apex is good. No strict bound: costs are actions and area, not rewards.

        Raises ProbeGymError where the world knows other treatments than the task.
        """
        if truth["cost_to_go"].shape[1] != self.declare:
            raise ProbeGymError("the world knows other treatments than the task: give both the same pulses and dips")
        room = self.area.room(memory, self.radius[: self.declare])
        cost = np.where(room, truth["cost_to_go"], np.inf)
        return np.where(truth["good"], self.declare, cost.argmin(1))

    def picture(self, observation: Observation, truth: Lanes, memory: Lanes, info: Lanes) -> np.ndarray:
        return pictures_stm.conditioning(self, observation, truth, memory, info)


class TipConditioning(ScopeEnv):
    """Bring the tip of a scanning tunnelling microscope back to atomic sharpness, on a surface that every treatment spoils.

    ## Description
    The images are unusable: the apex is double or blunt, carries an adsorbate, or has an atom that hops. Nobody sees the apex; it shows in the images, as second
    pictures of every adatom, blur, noise and streaks, and a classifier says how likely the tip is good, wrongly in some percent of the images. The agent pulses and
    dips (DeepSPM's list), each time at the nearest clean place and, for a dip, on its flattest patch. Outcomes are a matter of chance and of the hidden apex, a good
    tip can be lost, and around each treatment a disc of the surface is forbidden from then on. The agent declares the tip good.

    ## Action Space
    `Discrete(14)`

    | Num | Action | Forbidden disc |
    |---|---|---|
    | 0 | look: the next image at another clean place | - |
    | 1, 2 | pulse of +2.5 V, -2.5 V | 10 nm |
    | 3, 4 | pulse of +4 V, -4 V | 10 nm |
    | 5, 6 | pulse of +8 V, -8 V | 50 nm |
    | 7, 8, 9, 10 | dip of 0.8, 1.0, 1.2, 1.8 nm | 10 nm |
    | 11, 12 | dip of 2.5, 5.0 nm | 25 nm |
    | 13 | declare: the episode ends | - |

    Discs are radii and never overlap. A treatment without room is a look (`room` and `action_masks()` say which have some,
    `last_action` what was done). Numbers outside are refused; nothing is done.

    ## Observation Space

    | Key | Shape | Type | Meaning |
    |---|---|---|---|
    | `image` | (1, 64, 64) | uint8 | height; 127 is the median, 0.6 nm from black to white; slow axis first |
    | `verdict` | (1,) | float32 | the classifier's P(good) for this image, calibrated at even odds |
    | `last_action` | (14,) | float32 | one-hot: what was done last |
    | `room` | (14,) | float32 | 1 where the disc of an action still fits somewhere |
    | `area` | (1,) | float32 | share of the surface that is clean |
    | `budget` | (1,) | float32 | share of the tightest budget that is left |

    ## Rewards
    `privileged` (default): 0.2 x growth of the tip's quality, +1 for a right declaration, -1 for a wrong one and when no clean
    place is left, -0.02 an image, -0.02 for every 1e4 nm^2 spoiled. `observable`: 0.2 x growth of `verdict` and the two prices.

    ## Starting State
    Double (0.5), blunt (0.4), contaminated (0.45) and unstable (0.4), independently; a tenth of the tips is good. Ag(111) with
    steps, adatoms, clusters and adsorbates; noise, feedback, drift and the classifier (3 or 11 % wrong) are drawn anew.

    ## Episode End

    1. Termination: the agent declares. Success if the tip is good.
    2. Termination, a failure: no clean place is left.
    3. Truncation: another image would not fit into the scenario's budget (40 images).

    ## Arguments

    | Parameter | Type | Default | Description |
    |---|---|---|---|
    | `scenario` | str | `"train"` | a name from `probegym show TipConditioning`, or `file.yaml:name` |
    | `reward` | str | `"privileged"` | or `"observable"` |
    | `budget` | int | None | fewer images than the scenario allows |
    | `world` | object or path | None | None: the twin; a path: the folder of a record; or an object with the world protocol |

    >>> env = gymnasium.make("probegym/TipConditioning-v0", scenario="train", render_mode="rgb_array")

    ## Physics and assumptions
    Constant-current images of an apex of up to eleven atoms, each with its own place and barrier (physics/stm.py). Good: the second picture of an adatom has less
    than a fifth of its height, the apparent barrier is above 3 eV and the apex hops less than once in 20 s; quality = (1 - ghost) min(1, barrier / 4 eV) / (1 + 10 s
    x hops). Statistics of single treatments are not published: all chances are design parameters of the scenario, argued in docs/tip_conditioning.md.

    ## Vectorized environment
    `make_vec(..., num_envs=64)` is native; lane i equals `make(...).reset(seed=seed + i)`.

    ## Sources
    Krull, Hirsch, Rother, Schiffrin & Krull (2020), 10.1038/s42005-020-0317-3 (actions, discs). Rashidi & Wolkow (2018), 10.1021/acsnano.8b02208, and Gordon et al.
    (2019), 10.1063/1.5099590 (classifiers). Tersoff & Hamann (1985), 10.1103/PhysRevB.31.805.

    ## Version History
    * v0: first release.
    """

    task_type = TipConditioningTask


class TipConditioningVector(ScopeVectorEnv):
    """N lanes of :class:`TipConditioning`."""

    task_type = TipConditioningTask
