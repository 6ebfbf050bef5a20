"""``probegym/BeamManipulation-v0``: move silicon atoms through graphene with the electron beam."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from itertools import permutations

import numpy as np
from gymnasium import spaces
from pydantic import ValidationError

from probegym.envs import beam_lattice, beam_oracle, beam_rewards, pictures_beam
from probegym.envs.beam_settings import BOND, Settings
from probegym.envs.core import ScopeEnv, ScopeVectorEnv
from probegym.envs.frames import grey_levels
from probegym.envs.task import Observation, Task, Term, Where, failure
from probegym.errors import ProbeGymError
from probegym.hardware_bridge.commands import Command, Lanes, LocateAtoms, PlaceProbe, Readings
from probegym.scenarios import explain

FAR = 100.0  # bonds; observations saturate there
FIRST_LOOKS = 10  # images in which all atoms must be found once before an episode can start


class BeamManipulationTask(Task):
    """Decode, encode and ends of BeamManipulation; see :class:`BeamManipulation` for its page."""

    family = "beam_manipulation"
    twin = "probegym.hardware_bridge.twins.graphene:GrapheneTwin"
    measured = "images"

    def __init__(self, settings: dict):
        try:
            self.settings = s = Settings(**settings)
        except ValidationError as error:
            raise ProbeGymError(f"scenario, task.{explain(error)}") from error
        n, pixels = s.atoms, s.frame.pixels
        self.shows_image, self.shows_state = s.observe != "state", s.observe != "image"
        self.orders = np.array(list(permutations(range(n))))
        far = {"goal": (n, 2), "bonds": (n, 3), "drift": (n, 2), "correction": (n, 2)}
        one = {"axis": (n, 2), "found": (n,), "four_fold": (n,), "outcome": (5,), "treated": (n,)}
        boxes = {name: spaces.Box(-FAR, FAR, shape, np.float32) for name, shape in far.items()}
        boxes |= {name: spaces.Box(-1, 1, shape, np.float32) for name, shape in one.items()}
        if not self.shows_state:
            boxes = {}
        boxes |= {"tried": spaces.Box(-1, 1, (2,), np.float32), "dwelt": spaces.Box(0, 100, (1,), np.float32),
                  "clock": spaces.Box(0, 100, (3,), np.float32), "budget": spaces.Box(0, 1, (1,), np.float32)}  # fmt: skip
        if self.shows_image:
            boxes["image"] = spaces.Box(0, 255, (2, pixels, pixels), np.uint8)
        self.observation_space = spaces.Dict(boxes)
        self.action_space = spaces.Box(-1, 1, (3 + n * (n > 1),), np.float32)
        p = s.prices
        harm = Term("damage", -p.damage, beam_rewards.damage, True)
        self.rewards = {
            "privileged": [Term("nearer", p.bond, beam_rewards.nearer, True), Term("goal", 1.0, partial(beam_rewards.worth, p.discount), True),
                           Term("failure", -1.0, failure, True), harm],
            "observable": [Term("nearer", p.bond, beam_rewards.bonds_nearer), Term("goal", 1.0, partial(beam_rewards.worth_as_located, p.discount))],
        }  # fmt: skip

    @property
    def action_units(self) -> dict:
        s = self.settings
        return {"place": f"{s.axes} axes", "reach": s.reach, "blank": s.dwell.blank, "atoms": s.atoms}

    def memory(self, lanes: int) -> Lanes:
        n, pixels = self.settings.atoms, self.settings.frame.pixels
        shapes: dict[str, tuple[int, ...]] = {
            "axis": (n, 2), "at": (n, 2), "located": (n, 2), "goals": (n, 2), "goal": (n, 2), "bonds": (n, 3), "folds": (n,),
            "anchor": (2,), "shift": (2,), "velocity": (2,), "variances": (3,), "centre": (2,), "tried": (2,), "place": (2,), "outcome": (5,), "anchored": (), "elapsed": (),
            "dwelt": (), "treated": (), "missing": (), "images": (), "left": (), "left_before": (), "moves": (), "dwells": (),
        }  # fmt: skip
        flags = {"found": np.zeros((lanes, n), bool), "reached": np.zeros(lanes, bool), "key": np.zeros(lanes, np.uint64)}
        image = {"image": np.zeros((lanes, pixels, pixels), np.uint8)} if self.shows_image else {}
        return {name: np.zeros((lanes, *shape)) for name, shape in shapes.items()} | flags | image

    # ---- a step ----

    def _image(self, m: Lanes) -> LocateAtoms:
        f = self.settings.frame
        return LocateAtoms(f.detector, (f.pixels, f.pixels), f.field_of_view, m["centre"].copy(), f.duration / f.pixels**2, "Si", self.settings.atoms, self.shows_image)

    def opening(self, memory: Lanes) -> Iterable[tuple[Command, Where | None]]:
        m, wanting = memory, None
        for _ in range(FIRST_LOOKS):
            taken = yield self._image(m), wanting
            on = taken.measurements > 0
            m["elapsed"] += taken.time
            self._keep_image(m, taken, on)
            wanting = on & ~taken.values["found"].all(1)
            if (begun := on & ~wanting).any():
                self._begin(m, taken, begun)
            if not wanting.any():
                return
        raise ProbeGymError(f"the atom finder has not seen {self.settings.atoms} Si in {FIRST_LOOKS} images: move to another place of the sample")

    def _begin(self, m: Lanes, taken: Readings, on: np.ndarray) -> None:
        """Lay goals out on the lattice around the first atom."""
        from probegym.physics import randomness

        s, located = self.settings, taken.values["position"][on]
        towards = taken.values["neighbours"][on]
        axis = towards[:, :, 0] / np.hypot(*np.moveaxis(towards[:, :, 0], -1, 0))[..., None]
        relative = (located - located[:, :1]) / BOND
        at = beam_lattice.site(beam_lattice.steps(relative, axis[:, :1]), axis[:, :1])
        u = randomness.uniform(m["key"][on], 0, "goals", s.atoms)
        half, radius = 0.5 * s.frame.field_of_view, min(s.goal_distance, 1.5 * s.frame.field_of_view)
        goals = beam_lattice.goals(u, axis[:, 0], at, located[:, 0] / BOND, half / BOND, radius / BOND)
        m["anchor"][on], m["anchored"][on] = located[:, 0], m["elapsed"][on] - 0.5 * taken.time[on]
        m["at"][on], m["goals"][on], m["axis"][on] = BOND * at, BOND * goals, axis
        m["variances"][on] = s.tracker.finder_error**2, 0.0, s.tracker.drift**2
        m["located"][on], m["found"][on], m["folds"][on] = located, True, taken.values["folds"][on]
        self._aim(m, taken, on)
        m["left_before"][on] = m["left"][on]

    def _dwell(self, action: np.ndarray) -> np.ndarray:
        d = self.settings.dwell
        share = (action[:, 2].astype(float) - d.blank) / (1 - d.blank)
        return np.where(share > 0, d.shortest * (d.longest / d.shortest) ** np.maximum(share, 0), 0.0)

    def decode(self, action: np.ndarray, memory: Lanes, where: Where) -> Iterable[tuple[Command, Where | None]]:
        m, lane = memory, np.arange(len(action))
        treated = action[:, 3:].argmax(1) if self.settings.atoms > 1 else np.zeros(len(action), int)
        dwell = self._dwell(action)
        axis = m["axis"][lane, treated] if self.settings.axes == "lattice" else np.array([[1.0, 0.0]])
        tried = action[:, :2].astype(float)
        place = m["located"][lane, treated] + beam_lattice.turned(self.settings.reach * tried, axis)
        parked = yield PlaceProbe(place, dwell), where & (dwell > 0)
        taken = yield self._image(m), where
        on = taken.measurements > 0
        passed = parked.time + taken.time
        for name, value in {"tried": tried, "place": place, "dwelt": dwell, "treated": treated, "elapsed": m["elapsed"] + passed, "dwells": m["dwells"] + (dwell > 0)}.items():
            m[name][on] = value[on]
        self._keep_image(m, taken, on)
        self._follow(m, taken, on, passed)
        self._aim(m, taken, on)

    def _keep_image(self, m: Lanes, taken: Readings, on: np.ndarray) -> None:
        if self.shows_image:
            m["image"][on] = grey_levels(taken.values["image"][on])[0]

    def _follow(self, m: Lanes, taken: Readings, on: np.ndarray, passed: np.ndarray) -> None:
        """From the places in the new image: which atom went where, and how the sample drifts (Kalman filter)."""
        found = taken.values["found"] & on[:, None]
        expected = m["shift"] + m["velocity"] * passed[:, None]
        apart = (taken.values["position"] - (m["anchor"] + expected)[:, None] - m["at"]) / BOND
        count = beam_lattice.steps(apart, m["axis"])
        between = (taken.values["folds"] == 4) & (np.hypot(apart[..., 0], apart[..., 1]) < 0.8)  # a fourfold Si leans to its vacancy
        count[~found | between] = 0
        hop = beam_lattice.site(count, m["axis"])
        telling = found & ~between
        error = ((apart - hop) * telling[..., None]).sum(1) * (BOND / np.maximum(telling.sum(1), 1))[:, None]
        gain, variances = self._gain(m["variances"], passed, telling.sum(1))
        m["shift"][on] = (expected + gain[:, :1] * error)[on]
        m["velocity"][on] += (gain[:, 1:] * error)[on]
        m["variances"][on] = variances[on]
        m["images"] += on
        lane = np.arange(len(on))
        of = m["treated"].astype(int)
        kinds = np.concatenate([np.zeros((1, 3)), np.eye(3)])
        outcome = (count[lane, of][:, None] == kinds).all(2)
        outcome = np.concatenate([outcome, ~outcome.any(1, keepdims=True)], 1) & found[lane, of][:, None]
        m["outcome"][on] = outcome[on]
        m["moves"] += (count != 0).any(2).sum(1)
        m["at"] += BOND * hop
        m["located"] = np.where(found[..., None], taken.values["position"], m["located"] + on[:, None, None] * (m["velocity"] * passed[:, None])[:, None])
        m["found"][on], m["missing"][on] = found[on], np.where(found.all(1), 0, m["missing"] + 1)[on]
        m["folds"] = np.where(found, taken.values["folds"], m["folds"])

    def _gain(self, variances: np.ndarray, passed: np.ndarray, atoms: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Kalman gains (lanes, 2) for shift and velocity, and the new variances (lanes, 3) of shift, both, velocity."""
        t = self.settings.tracker
        shift, both, velocity = variances.T
        shift, both = shift + 2 * passed * both + passed**2 * velocity, both + passed * velocity
        gain = np.stack([shift, both], 1) * ((atoms > 0) / (shift + t.finder_error**2 / np.maximum(atoms, 1)))[:, None]
        return gain, np.stack([shift * (1 - gain[:, 0]), both * (1 - gain[:, 0]), velocity - gain[:, 1] * both], 1)

    def _aim(self, m: Lanes, taken: Readings, on: np.ndarray) -> None:
        """Which atom goes to which goal (least bonds in all), the bond that points to it, and where the next image is taken."""
        s, lane, known = self.settings, np.arange(len(on)), m["found"] & on[:, None]
        apart = (m["goals"][:, None] - m["at"][:, :, None]) / BOND
        towards = taken.values["neighbours"] / BOND
        axis = np.where(known[..., None], towards[:, :, 0], m["axis"])
        bonds = beam_lattice.steps(apart, axis[:, :, None])
        total = np.abs(bonds).sum(3)
        order = self.orders[sum(total[:, i, self.orders[:, i]] for i in range(s.atoms)).argmin(1)]
        each = np.arange(s.atoms)
        goal = apart[lane[:, None], each, order]
        directions = beam_lattice.bonds(axis)
        nearest = (directions * goal[:, :, None]).sum(3).argmax(2)
        m["axis"][on] = directions[lane[:, None], each, nearest][on]
        turn = (nearest[..., None] + np.arange(3)) % 3
        m["bonds"][on] = np.take_along_axis(bonds[lane[:, None], each, order], turn, 2)[on]
        m["goal"][on] = goal[on]
        m["left_before"][on] = m["left"][on]
        m["left"][on] = np.abs(m["bonds"]).sum((1, 2))[on]
        m["reached"][on] = m["left"][on] == 0
        outside = np.abs(m["located"] - m["centre"][:, None]).max((1, 2)) > 0.5 * s.frame.follow * s.frame.field_of_view
        m["centre"] = np.where((on & outside)[:, None], m["located"].mean(1), m["centre"])

    # ---- what is seen ----

    def encode(self, readings: list[Readings], memory: Lanes, left: np.ndarray, where: Where) -> Observation:
        s, m = self.settings, memory
        d = s.dwell
        seen = {
            "tried": m["tried"],
            "dwelt": m["dwelt"][:, None],
            "clock": np.tile([s.frame.duration, d.shortest, d.longest], (len(left), 1)),
            "budget": left[:, None],
        }
        if self.shows_state:
            axis = m["axis"] if s.axes == "lattice" else np.broadcast_to([1.0, 0.0], m["axis"].shape)
            correction = (m["anchor"] + m["shift"])[:, None] + m["at"] - m["located"]
            vectors = {"goal": m["goal"], "drift": np.broadcast_to(m["velocity"][:, None] / BOND, axis.shape), "correction": correction / BOND}
            seen |= {name: np.clip(beam_lattice.seen_from(v, axis), -FAR, FAR) for name, v in vectors.items()}
            seen |= {"bonds": np.clip(m["bonds"], -FAR, FAR), "axis": np.clip(m["axis"], -1, 1), "found": m["found"], "four_fold": m["folds"] == 4, "outcome": m["outcome"],
                     "treated": (m["treated"][:, None] == np.arange(s.atoms)) & (m["images"] > 0)[:, None]}  # fmt: skip
        observation = {name: seen[name].astype(np.float32) for name in self.observation_space.keys() - {"image"}}
        if self.shows_image:
            observation["image"] = np.stack([m["image"], self._goal_map(m)], 1)
        return observation

    def _goal_map(self, m: Lanes) -> np.ndarray:
        """(lanes, rows, columns) uint8 with a spot of one bond length at every goal; those outside the field show at its edge."""
        f = self.settings.frame
        goals = m["goals"] + (m["anchor"] + m["shift"] - m["centre"])[:, None]
        x = (np.arange(f.pixels) - 0.5 * (f.pixels - 1)) * f.field_of_view / f.pixels
        inside = np.clip(goals, x[0], x[-1])
        spots = np.exp(-0.5 * ((x - inside[..., None]) / (0.5 * BOND)) ** 2).astype(np.float32)  # (lanes, goals, x and y, pixels)
        return (255 * (spots[:, :, 1, :, None] * spots[:, :, 0, None, :]).max(1)).astype(np.uint8)

    def foreseen(self, action: np.ndarray, memory: Lanes) -> Lanes:
        return {"time": self._dwell(action) + self.settings.frame.duration}

    def least(self, memory: Lanes) -> Lanes:
        return {"time": np.full(len(memory["left"]), self.settings.frame.duration)}

    def ends(self, truth: Lanes, memory: Lanes) -> tuple[np.ndarray, np.ndarray]:
        given_up = memory["missing"] >= self.settings.patience
        ended = memory["reached"] | given_up
        if not truth:
            return ended, np.zeros_like(ended)
        close = beam_rewards.goal_distance(truth, memory) < self.settings.tolerance
        return ended, memory["reached"] & close.all(1)

    def metrics(self, truth: Lanes, memory: Lanes) -> Lanes:
        own = {"bonds_left": memory["left"].copy(), "moves": memory["moves"].copy(), "dwells": memory["dwells"].copy()}
        if not truth:
            return own
        distance = beam_rewards.goal_distance(truth, memory).sum(1)
        return own | {"distance": np.where(np.isfinite(distance), distance, 0.0)}

    def oracle(self, truth: Lanes, memory: Lanes) -> np.ndarray:
        return beam_oracle.best(self.settings, truth, memory)

    def picture(self, observation: Observation, truth: Lanes, memory: Lanes, info: Lanes) -> np.ndarray:
        return pictures_beam.manipulation(self, observation, truth, memory, info)


class BeamManipulation(ScopeEnv):
    """Move silicon atoms through graphene with the electron beam."""

    task_type = BeamManipulationTask


class BeamManipulationVector(ScopeVectorEnv):
    """N lanes of :class:`BeamManipulation`."""

    task_type = BeamManipulationTask
