"""``probegym/BeamManipulation-v0``: move silicon atoms through graphene with the electron beam."""

from __future__ import annotations

from collections.abc import Generator
from functools import partial
from typing import ClassVar

import numpy as np
from gymnasium import spaces

from probegym.envs import beam_lattice, beam_oracle, beam_rewards, beam_tracking, pictures_beam
from probegym.envs.beam_settings import BOND, Settings
from probegym.envs.core import ScopeEnv, ScopeVectorEnv
from probegym.envs.task import Boxes, Observation, Task, Term, Where, failure
from probegym.hardware_bridge.commands import Command, Lanes, LocateAtoms, PlaceProbe, Readings
from probegym.scenarios import ScenarioError, parsed

FAR = 100.0  # bonds; observations saturate there
FIRST_LOOKS = 10  # images in which all atoms must be found once before an episode can start


class BeamManipulationTask(Task):
    """Decode, encode and ends of BeamManipulation; see :class:`BeamManipulation` for its page."""

    family = "beam_manipulation"
    twin = "probegym.hardware_bridge.twins.graphene:GrapheneTwin"
    origins: ClassVar = {"LocateAtoms.detector": ("task.frame.detector", "world.detector")}
    controls_from = "probegym.envs.beam_controls:controls"
    measured = "images"
    metric_units: ClassVar = {"distance": "m", "bonds_left": "1", "moves": "1", "dwells": "1"}
    info_meanings: ClassVar = {"distance": "from each goal to the nearest atom, summed, hidden truth", "bonds_left": "to the goals, summed, as located",
                               "moves": "times that an atom was found on another site", "dwells": "so far", "damage": "vacancies made, Si lost, contamination that came"}  # fmt: skip

    def __init__(self, settings: dict):
        self.settings = s = parsed(Settings, settings, "task")
        n, pixels, self.shows_image, self.shows_state = s.atoms, s.frame.pixels, s.observe != "state", s.observe != "image"
        far = {"goal": (n, 2), "bonds": (n, 3), "drift": (n, 2), "correction": (n, 2)}
        one = {"axis": (n, 2), "found": (n,), "four_fold": (n,), "outcome": (5,), "treated": (n,)}
        most = ((FAR, far), (1, one)) if self.shows_state else ()
        boxes: Boxes = {name: spaces.Box(-high, high, shape, np.float32) for high, shapes in most for name, shape in shapes.items()}
        boxes |= {"tried": spaces.Box(-1, 1, (2,), np.float32), "dwelt": spaces.Box(0, 100, (1,), np.float32),
                  "clock": spaces.Box(0, 100, (3,), np.float32), "budget": spaces.Box(0, 1, (1,), np.float32)}  # fmt: skip
        if self.shows_image:
            boxes["image"] = spaces.Box(0, 255, (2, pixels, pixels), np.uint8)
        self.observation_space = spaces.Dict(boxes)
        self.action_space = spaces.Box(-1, 1, (3 + n * (n > 1),), np.float32)
        p = s.prices
        self.rewards = {
            "privileged": [Term("nearer", p.bond, beam_rewards.nearer, True), Term("goal", 1.0, partial(beam_rewards.worth, p.discount), True),
                           Term("failure", -1.0, failure, True), Term("damage", -p.damage, beam_rewards.damage, True)],
            "observable": [Term("nearer", p.bond, beam_rewards.bonds_nearer), Term("goal", 1.0, partial(beam_rewards.worth_as_located, p.discount))],
        }  # fmt: skip

    @property
    def action_units(self) -> dict:
        s = self.settings
        return {"place": f"{s.axes} axes", "reach": s.reach, "blank": s.dwell.blank, "atoms": s.atoms}

    def memory(self, lanes: int) -> Lanes:
        image = {"image": np.zeros((lanes, *(self.settings.frame.pixels,) * 2), np.uint8)} if self.shows_image else {}
        return beam_tracking.memory(lanes, self.settings.atoms) | image

    # ---- a step ----

    def _image(self, m: Lanes, shown: bool = False) -> LocateAtoms:
        f, shape = self.settings.frame, (self.settings.frame.pixels,) * 2
        return LocateAtoms(f.detector, shape, f.field_of_view, m["centre"].copy(), f.duration / f.pixels**2, "Si", self.settings.atoms, self.shows_image or shown)

    def opening(self, memory: Lanes) -> Generator[tuple[Command, Where | None], Readings, None]:
        m, wanting = memory, None
        for _ in range(FIRST_LOOKS):
            taken = yield self._image(m), wanting
            on = taken.measurements > 0
            m["elapsed"] += taken.time
            beam_tracking.keep_image(m, taken, on)
            wanting = on & ~taken.values["found"].all(1)
            if (begun := on & ~wanting).any():
                beam_tracking.begin(self.settings, m, taken, begun)
            if not wanting.any():
                break
        else:
            told = f"the atom finder has not seen {self.settings.atoms} Si in {FIRST_LOOKS} images: are there so many? If not, ask for fewer or move on"
            raise ScenarioError(("task.atoms", "world"), told)
        for _ in range(self.settings.watch - 1):
            taken = yield self._image(m), None
            m["elapsed"] += taken.time
            beam_tracking.watch(self.settings, m, taken, taken.measurements > 0)

    def action(self, place: np.ndarray, dwell: np.ndarray, treated: np.ndarray) -> np.ndarray:
        """The action (lanes, ...) for a dwell (lanes,) s, 0: none, at ``place`` (lanes, 2) m from atom ``treated`` (lanes,); cut to the nearest there is."""
        s = self.settings
        chosen = [np.where(np.arange(s.atoms) == treated[:, None], 1.0, -1.0)] if s.atoms > 1 else []
        return np.concatenate([np.clip(place / s.reach, -1, 1), s.dwell.component(dwell)[:, None], *chosen], 1).astype(np.float32)

    def decode(self, action: np.ndarray, memory: Lanes, where: Where) -> Generator[tuple[Command, Where | None], Readings, None]:
        m, lane = memory, np.arange(len(action))
        treated = action[:, 3:].argmax(1) if self.settings.atoms > 1 else np.zeros(len(action), int)
        dwell = self.settings.dwell.seconds(action[:, 2])
        axis = m["axis"][lane, treated] if self.settings.axes == "lattice" else np.array([[1.0, 0.0]])
        tried = action[:, :2].astype(float)
        place = m["located"][lane, treated] + beam_lattice.turned(self.settings.reach * tried, axis)
        parked = yield PlaceProbe(place, dwell), where & (dwell > 0)
        taken = yield self._image(m), where
        on = taken.measurements > 0
        passed = parked.time + taken.time
        for name, value in {"tried": tried, "place": place, "dwelt": dwell, "treated": treated, "elapsed": m["elapsed"] + passed, "dwells": m["dwells"] + (dwell > 0)}.items():
            m[name][on] = value[on]
        m["dwell_overhead"] = np.where(on & (dwell > 0), parked.time - dwell, m["dwell_overhead"])
        beam_tracking.keep_image(m, taken, on)
        beam_tracking.follow(self.settings, m, taken, on, passed)
        beam_tracking.aim(self.settings, m, taken, on)

    # ---- what is seen ----

    def encode(self, readings: list[Readings], memory: Lanes, left: np.ndarray, where: Where) -> Observation:
        s, m = self.settings, memory
        clock = np.tile([s.frame.duration, s.dwell.shortest, s.dwell.longest], (len(left), 1))
        seen = {"tried": m["tried"], "dwelt": m["dwelt"][:, None], "clock": clock, "budget": left[:, None]}
        if self.shows_state:
            axis = m["axis"] if s.axes == "lattice" else np.broadcast_to([1.0, 0.0], m["axis"].shape)
            correction = (m["anchor"] + m["shift"])[:, None] + m["at"] - m["located"]
            vectors = {"goal": m["goal"], "drift": np.broadcast_to(m["velocity"][:, None] / BOND, axis.shape), "correction": correction / BOND}
            seen |= {name: np.clip(beam_lattice.seen_from(v, axis), -FAR, FAR) for name, v in vectors.items()}
            seen |= {"bonds": np.clip(m["bonds"], -FAR, FAR), "axis": np.clip(m["axis"], -1, 1), "found": m["found"], "four_fold": m["folds"] == 4, "outcome": m["outcome"],
                     "treated": (m["treated"][:, None] == np.arange(s.atoms)) & (m["images"] > 0)[:, None]}  # fmt: skip
        observation = {name: seen[name].astype(np.float32) for name in self.observation_space.keys() - {"image"}}
        if self.shows_image:
            observation["image"] = np.stack([m["image"], beam_tracking.goal_map(s, m)], 1)
        return observation

    def foreseen(self, action: np.ndarray, memory: Lanes) -> Lanes:
        dwell = self.settings.dwell.seconds(action[:, 2])
        return {"time": dwell + (dwell > 0) * memory["dwell_overhead"] + memory["image_time"]}

    def least(self, memory: Lanes) -> Lanes:
        return {"time": memory["image_time"]}

    def ends(self, truth: Lanes, memory: Lanes) -> tuple[np.ndarray, np.ndarray]:
        ended = memory["reached"] | (memory["missing"] >= self.settings.patience)
        if not truth:
            return ended, np.zeros_like(ended)
        close = beam_rewards.goal_distance(truth, memory) < self.settings.tolerance
        return ended, memory["reached"] & close.all(1)

    def metrics(self, truth: Lanes, memory: Lanes) -> Lanes:
        own = {"bonds_left" if name == "left" else name: memory[name].copy() for name in ("left", "moves", "dwells")}
        return own | ({"distance": np.nan_to_num(beam_rewards.goal_distance(truth, memory).sum(1), posinf=0.0)} if truth else {})

    def oracle(self, truth: Lanes, memory: Lanes) -> np.ndarray:
        """Knows the rates and where the atoms are: the dwell with most expected bonds towards the goal a second, up to two jumps ahead. No bound: it is greedy."""
        return self.action(*beam_oracle.best(self.settings, truth, memory))

    def glance(self, memory: Lanes) -> Command | None:
        return None if self.shows_image else self._image(memory, shown=True)

    def picture(self, observation: Observation, truth: Lanes, memory: Lanes, info: Lanes) -> np.ndarray:
        return pictures_beam.manipulation(self, observation, truth, memory, info)


class BeamManipulation(ScopeEnv):
    """Move silicon atoms through graphene with the electron beam, to a goal site or to a pattern of them.

    ## Description
    An electron that hits a carbon atom next to a silicon dopant can make the two swap places. How often each neighbour swaps depends on where the beam stands,
    and in most scenarios nobody knows how: the rates are drawn anew every episode. A step parks the beam for a dwell, or keeps it blanked, then takes an image in which
    an atom finder reads where the silicon is. The sample drifts, the beam misses its place, the finder errs, dirt comes and carbon atoms go. Fewest microscope-seconds win.

    ## Action Space
    `Box(-1, 1, (3,))`, with n > 1 atoms `(3 + n,)`

    | Num | Meaning |
    |---|---|
    | 0, 1 | place of the beam relative to the atom as last located, in units of two bonds (2.84 A) |
    | 2 | below -0.9: no dwell; above: from the shortest to the longest dwell, logarithmic |
    | 3 ... | n > 1: the atom with the highest number is treated |

    `axes: lattice` (the default): x points along the bond towards the neighbour nearest the goal, y to its right in the image (y down). The three bonds are equal and the
    lattice looks the same from every site, so what is learned at one site, for one goal, holds for all. Mirror images are not equal: random rates have a hand.
    `axes: image`: x along the rows of the image, y down its columns.

    ## Observation Space
    For n atoms; lengths in bonds (1.42 A), vectors in the axes of the action, bonds counted from the one nearest the goal clockwise in the image.

    | Key | Shape | Meaning |
    |---|---|---|
    | `goal` | (n, 2) | from the atom to its goal |
    | `bonds` | (n, 3) | the same in bonds along each of the three directions; positive: that neighbour is nearer the goal |
    | `axis` | (n, 2) | direction of the bond nearest the goal in the image |
    | `found`, `four_fold` | (n,) | whether the finder saw it in the last image; whether it sits beside a vacancy |
    | `drift` | (n, 2) | of the sample, bonds per second, as followed so far |
    | `correction` | (n, 2) | the atom's site as followed, less its place as located |
    | `treated` | (n,) | one-hot: the atom that was treated last; zeros at first |
    | `outcome` | (5,) | one-hot, in the axes of that step: stayed, went along bond 0, 1, 2, went elsewhere; zeros: not seen |
    | `tried` | (2,) | the first two numbers of the last action |
    | `dwelt` | (1,) | seconds of the last dwell |
    | `clock` | (3,) | seconds of an image, of the shortest and of the longest dwell |
    | `budget` | (1,) | share of the tightest budget that is left |
    | `image` | (2, 64, 64) | uint8, with `observe: image` or `both`: the image, and the goals as spots |

    `observe: state` leaves `image` out, `observe: image` everything above `tried`. Several atoms are assigned to the goals such that the fewest bonds are left in all, anew after each image.

    ## Rewards
    `privileged` (default): 0.02 x bond lengths nearer to the goals, 0.9967^t at the goal after t seconds (Schwarzer et al. 2023), -1 when an
    atom is given up or the episode ends where the goal is not, -0.2 for every event of damage; running out of time costs nothing more.
    `observable`: 0.02 x bonds nearer and the same worth of the goal, as located.

    ## Starting State
    Si on a random site near the middle of the first field, 2 x 2 nm; goals on random sites in it, at most 5 nm away. Rates, drift, misplacement,
    orientation and all else are drawn anew. The field follows when an atom leaves its central half.

    ## Episode End
    1. Termination: all goals are occupied, as located. Success if each has an atom within 0.71 A.
    2. Termination, a failure: an atom has not been seen in 10 images in a row.
    3. Truncation: the next step would not fit into the budget (600 s, 300 images).

    ## Arguments

    | Parameter | Type | Default | Description |
    |---|---|---|---|
    | `scenario` | str | `"train"` | a name from `probegym show BeamManipulation`, or `file.yaml:name` |
    | `reward` | str | `"privileged"` | or `"observable"` |
    | `budget` | int | None | fewer images than the scenario allows |
    | `world` | object or path | None | None: the twin; a path: the folder of a record; or an object with the world protocol |

    >>> env = gymnasium.make("probegym/BeamManipulation-v0", scenario="published", render_mode="rgb_array")

    ## Physics and assumptions
    Exponential waiting times with the rates of all processes at every site, redrawn after each event (Gillespie). Rates of the swap: the published human prior,
    random mixtures of Gaussians, or cross-sections times the current density of an aberrated probe (physics/beam_rates.py, knock_on.py). Conversion to four bonds,
    ejection, healing and contamination beside it (physics/graphene.py). Drift, misplacement and the finder's errors are design parameters.

    ## Vectorized environment
    `make_vec(..., num_envs=1024)` is native; lane i equals `make(...).reset(seed=seed + i)`.

    ## Sources
    Schwarzer, Farebrother et al. (2023), 10.48550/arXiv.2311.17894, and putting-dune, 10.5281/zenodo.10626248 (task, rates, greedy rule).
    Susi et al. (2014), 10.1103/PhysRevLett.113.115501 (bond inversion). Tripathi et al. (2018), 10.1021/acs.nanolett.8b02406 (by hand).

    ## Version History
    * v0: first release.
    """

    task_type = BeamManipulationTask


class BeamManipulationVector(ScopeVectorEnv):
    """N lanes of :class:`BeamManipulation`."""

    task_type = BeamManipulationTask
