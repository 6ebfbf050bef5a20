"""``probegym/AdatomManipulation-v0``: drag single atoms across a surface with the tip of a scanning tunnelling microscope."""

from __future__ import annotations

from collections.abc import Generator
from typing import ClassVar

import numpy as np
from gymnasium import spaces

from probegym.envs import adatom_plans, pictures_adatoms
from probegym.envs.adatom_memory import Notes, until_found
from probegym.envs.adatom_rewards import Goals
from probegym.envs.adatom_settings import STRETCHES, Settings
from probegym.envs.core import ScopeEnv, ScopeVectorEnv
from probegym.envs.task import Boxes, Observation, Task, Term, Transition, Where
from probegym.hardware_bridge.commands import Command, DragTip, Lanes, LocateAdatoms, Readings
from probegym.scenarios import parsed


class AdatomManipulationTask(Task):
    """Decode, encode and ends of AdatomManipulation; see :class:`AdatomManipulation` for its page."""

    family = "adatom_manipulation"
    twin = "probegym.hardware_bridge.twins.adatoms:AdatomTwin"
    controls_from = "probegym.envs.adatom_controls:controls"
    measured = "drags"
    metric_units: ClassVar = {"distance": "m", "error": "m", "drags": "1", "images": "1", "tip_changes": "1"}
    info_meanings: ClassVar = {"distance": "to the goals as found, a mean over atoms", "error": "the same in hidden truth", "drags": "so far", "images": "so far", "tip_changes": "so far, hidden truth",
                               "achieved_before": "`achieved_goal` before the step, for hindsight", "dose": "always 0", "damage": "crashes, atoms picked up or stuck together"}  # fmt: skip
    decides = ("action", "chosen")
    goal_info = ("achieved_before",)

    def __init__(self, settings: dict):
        self.settings = s = parsed(Settings, settings, "task")
        self.goals, self.notes = Goals(s.unit, s.lattice, s.tolerance, s.atoms), Notes(s)
        boxes: Boxes = {"observation": spaces.Box(-self.notes.highest, self.notes.highest, (self.notes.told,), np.float32)}
        if s.shown == "image":
            boxes["image"] = spaces.Box(0, 255, (2, s.image.pixels, s.image.pixels), np.uint8)
        else:
            boxes |= {name: spaces.Box(-self.notes.farthest, self.notes.farthest, (2 * s.atoms,), np.float32) for name in ("achieved_goal", "desired_goal")}
        self.observation_space = spaces.Dict(boxes)
        self.action_space = spaces.Box(-1, 1, (s.components,), np.float32)
        terms = [Term("goal", 1.0, self._at_goal), Term("progress", 1.0, self._progress)]
        self.rewards = {"privileged": terms, "observable": terms}  # both of what images show, so that goals can be exchanged

    @property
    def action_units(self) -> dict:
        d = self.settings.drag
        return {"atoms": self.settings.atoms, "start_m": d.start, "end_m": d.end, "bias_V": list(d.bias), "conductance_S": list(d.conductance)}

    def memory(self, lanes: int) -> Lanes:
        return self.notes.memory(lanes)

    # ---- what is done ----

    def _locate(self, lanes: int, shown: bool = False) -> LocateAdatoms:
        s, i = self.settings, self.settings.image
        return LocateAdatoms((i.pixels, i.pixels), 2 * s.limits, i.speed, np.zeros((lanes, 2)), i.bias, i.current, s.adatoms, shown or s.shown == "image")

    def opening(self, memory: Lanes) -> Generator[tuple[Command, Where | None], Readings, None]:
        lanes, d = len(memory["key"]), self.settings.drag
        bias, here, nobody = np.full(lanes, d.bias[1]), np.zeros((lanes, 2)), np.zeros(lanes, bool)
        yield DragTip(here, here, bias, bias * d.conductance[1], d.speed, d.samples), nobody  # a world without such drags refuses now
        yield from until_found(self._locate(lanes), lanes)

    def drag(self, action: np.ndarray, position: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """What an action (lanes, components) does to an atom at (lanes, 2) m: start, end (lanes, 2) m, bias V, conductance S (lanes,).

        The tip stays within the limits: start and end beyond are moved to the edge.
        """
        d, most = self.settings.drag, self.settings.limits
        a = np.asarray(action, float)[:, -6:]
        start, end = (np.clip(position + part, -most, most) for part in (d.start * a[:, :2], d.end * a[:, 2:4]))
        bias, conductance = (low + (high - low) * 0.5 * (1 + part) for (low, high), part in ((d.bias, a[:, 4]), (d.conductance, a[:, 5])))
        return start, end, bias, conductance

    def action(self, start: np.ndarray, end: np.ndarray, bias: float, conductance: float, chosen: np.ndarray) -> np.ndarray:
        """The action for a drag of atom ``chosen`` (lanes,) from ``start`` to ``end`` (lanes, 2), m from that atom; cut to the nearest there is."""
        s, d = self.settings, self.settings.drag
        columns = [start / d.start, end / d.end]
        for value, (low, high) in ((bias, d.bias), (conductance, d.conductance)):
            share = (2 * (np.asarray(value) - low) / (high - low) - 1) if high > low else np.zeros(1)
            columns.append(np.broadcast_to(share.reshape(-1, 1), (len(start), 1)))
        picked = [((2 * chosen + 1) / s.atoms - 1)[:, None]] if s.atoms > 1 else []
        return np.clip(np.concatenate([*picked, *columns], 1), -1, 1).astype(np.float32)

    def picks(self, action: np.ndarray) -> np.ndarray:
        """Number of the atom (lanes,) that an action drags."""
        n = self.settings.atoms
        return np.minimum(0.5 * n * (1 + np.asarray(action, float)[:, 0]), n - 1).astype(np.int64) if n > 1 else np.zeros(len(action), np.int64)

    def decode(self, action: np.ndarray, memory: Lanes, where: Where) -> Generator[tuple[Command, Where | None], Readings, None]:
        m, lanes, d = memory, len(action), self.settings.drag
        m["action"][where], m["chosen"][where] = action[where], self.picks(action)[where]
        start, end, bias, conductance = self.drag(action, self.notes.chosen(m))
        dragged = yield DragTip(start, end, bias, bias * conductance, d.speed, d.samples), where
        looking = where & self._looks(dragged.values["trace"], m)
        seen = yield self._locate(lanes), looking
        yield self._locate(lanes), looking & ~seen.values["found"].all(1)

    def _looks(self, trace: np.ndarray, memory: Lanes) -> np.ndarray:
        """(lanes,) bool: whether an image is worth its time; the last drag of an episode always is."""
        look = self.settings.look
        if look.always:
            return np.ones(len(trace), bool)
        from probegym.physics import randomness

        each = trace.shape[1] // STRETCHES
        noise = np.diff(trace, axis=1)
        deviation = np.sqrt(np.einsum("ij,ij->i", noise, noise) / (noise.shape[1] * each))  # of the difference of two means
        means = trace[:, : each * STRETCHES].reshape(len(trace), STRETCHES, each).mean(2)
        jumped = np.abs(np.diff(means, axis=1)).max(1) > look.jump * deviation
        chance = randomness.uniform(memory["key"], memory["drags"].astype(np.int64), "look", 1)[:, 0] < look.chance
        return jumped | chance | (memory["drags"] + 1 >= self.limits["measurements"])

    # ---- what is seen ----

    def encode(self, readings: list[Readings], memory: Lanes, left: np.ndarray, where: Where) -> Observation:
        m, notes = memory, self.notes
        before = notes.chosen(m)
        looked = notes.located(m, readings[1:], where)
        if readings[0].measurements.any():  # a drag, and not the opening
            start, end, bias, conductance = self.drag(m["action"], before)
            m["path"][where], m["current"][where] = np.stack([start, end], 1)[where], readings[0].values["trace"][where]
            notes.remember(m, looked, bias * conductance, where)
            notes.place(m, where)
        else:
            notes.begin(m, where)
        return notes.observation(m)

    # ---- the end ----

    def ends(self, truth: Lanes, memory: Lanes) -> tuple[np.ndarray, np.ndarray]:
        m, s = memory, self.settings
        reached = self.goals.reached(m["achieved"], m["desired"]) & ~m["lost"] & (m["drags"] > 0)
        position = m["position"][:, : s.atoms]
        beyond = (np.abs(position) > s.limits).any((1, 2))
        if s.farthest is not None:
            beyond |= (np.hypot(*np.moveaxis(position - m["start"][:, : s.atoms], -1, 0)) > s.farthest).any(1)
        return reached | beyond | m["lost"], reached

    def _at_goal(self, t: Transition) -> np.ndarray:
        return self.goals.goal(t.memory["achieved"], t.memory["desired"])

    def _progress(self, t: Transition) -> np.ndarray:
        return self.goals.progress(t.memory["achieved_before"], t.memory["achieved"], t.memory["desired"])

    def goal_reward(self, achieved: np.ndarray, desired: np.ndarray, info: Lanes) -> np.ndarray:
        return self.goals.goal(achieved, desired) + self.goals.progress(info["achieved_before"], achieved, desired)

    def goal_reached(self, achieved: np.ndarray, desired: np.ndarray) -> np.ndarray:
        """(n,) bool: whether steps that led to ``achieved`` would have ended at goals ``desired``; both (n, 2 atoms)."""
        return self.goals.reached(achieved, desired)

    def metrics(self, truth: Lanes, memory: Lanes) -> Lanes:
        m, s, each = memory, self.settings, self.settings.unit / self.settings.atoms
        own = {"distance": self.goals.distance(m["achieved"], m["desired"]) * each, "drags": m["drags"].copy(), "images": m["images"].copy(), "achieved_before": m["achieved_before"].copy()}
        if not truth:
            return own
        error = self.goals.distance(self.notes.shown(truth["position"][:, : s.atoms], m), m["desired"]) * each
        return own | {"error": error, "tip_changes": truth["tip_changes"].copy()}

    def oracle(self, truth: Lanes, memory: Lanes) -> np.ndarray:
        """Sees lattice and tip, tries ten drags in the model and makes the one that ends nearest to its goal. No bound: it plans no detours and foresees no tip change."""
        return adatom_plans.best(self, truth, memory)

    def glance(self, memory: Lanes) -> Command | None:
        return None if self.settings.shown == "image" else self._locate(len(memory["key"]), shown=True)

    def picture(self, observation: Observation, truth: Lanes, memory: Lanes, info: Lanes) -> np.ndarray:
        return pictures_adatoms.manipulation(self, observation, truth, memory, info)


class AdatomManipulation(ScopeEnv):
    """Drag a single atom to a place with the tip of a scanning tunnelling microscope, in five moves.

    ## Description
    An adatom rests on a hollow site of Ag(111) at 5 K. The tip comes down beside it, is dragged in a straight line at constant height and retracts. If it is close enough
    the atom follows, from site to site, which shows in the current. The atom of the tip that pulls need not be the one that images: where it sits, how strongly it pulls
    and whether it stays nobody sees; it shows in where atoms come to rest, and in the trace. An image is taken if the trace shows something, now and then by chance, and
    after the last drag; else the atom is taken to be where it was. Several atoms make a pattern in the assembly scenarios.

    ## Action Space
    `Box(-1, 1, (6,))`; positions are relative to where the atom was last found.

    | Num | Meaning | -1 to 1 |
    |---|---|---|
    | 0, 1 | start of the drag, x and y | -0.4 to 0.4 nm |
    | 2, 3 | its end, x and y | -2 to 2 nm |
    | 4 | bias | 5 to 15 mV |
    | 5 | conductance of the setpoint; the current is bias x conductance | 3 to 6 uS |

    With several atoms one more number comes first, which picks the atom. The tip stays within the limits (a square of 7 nm, several atoms 10 nm): what lies beyond is moved to the edge. Numbers outside -1 to 1 are refused; nothing is done.

    ## Observation Space
    float32, in units of 2 nm from the atom's start (several atoms: from the middle of the image).

    | Key | Shape | Meaning |
    |---|---|---|
    | `achieved_goal` | (2,) | where the atom was found |
    | `desired_goal` | (2,) | where it should be; both together are the state of Chen et al. |
    | `observation` | (2 + 9 n,) | where the atom was found, and of the last n drags, the latest first: action (6); whether an image followed; in `trace` scenarios 64 points of the current, log10 of the share of the setpoint; where the atom came to rest from the end of the tip's way, in lattice constants (2) |

    n is 4, in `chen` 0. In the `image` scenarios there are `image` (2, 64, 64) uint8, the topograph and a disc where the goal is, and `observation` without places. Assembly
    scenarios show all atoms, an anchor atom last, and as many goals, which follow the anchor.

    ## Rewards
    As published: +1 at the goal, -1 elsewhere (`reward_goal`), and the decrease of the distance in lattice constants of 0.288 nm (`reward_progress`). Images alone
    decide, so `privileged` and `observable` are the same, and `compute_reward(achieved_goal, desired_goal, info)` gives it for any goal.

    ## Starting State
    Atom, lattice, barrier, tip, noise and drift are drawn anew. The goal lies 0.288 to 2 nm away in any direction, 1 nm inside the limits.

    ## Episode End
    Termination: the atom was found within 0.1663 nm of its goal, a success (nearly every place has a hollow as near); or it is lost, outside the limits,
    or more than 3 nm from its start. Truncation: the scenario's drags (5) are made.

    ## Arguments

    | Parameter | Type | Default | Description |
    |---|---|---|---|
    | `scenario` | str | `"train"` | a name from `probegym show AdatomManipulation`, or `file.yaml:name` |
    | `reward` | str | `"privileged"` | or `"observable"`, which is the same here |
    | `budget` | int | None | fewer drags than the scenario allows |
    | `world` | object or path | None | None: the twin; a path: the folder of a record; or an object with the world protocol |

    >>> env = gymnasium.make("probegym/AdatomManipulation-v0", scenario="train", render_mode="rgb_array")

    ## Physics and assumptions
    fcc(111) potential, a Morse well that moves with the apex, thermally activated hops along the way (physics/adatoms.py, measured against Langevin dynamics). What tips
    are like is a design parameter (docs/adatom_manipulation.md).

    ## Vectorized environment
    `make_vec(..., num_envs=64)` is native; lane i equals `make(...).reset(seed=seed + i)`.

    ## Sources
    Chen et al. (2022), 10.1038/s41467-022-35149-w, and its code (state, action, reward, ends). Bartels, Meyer & Rieder (1997), 10.1103/PhysRevLett.79.697.

    ## Version History
    * v0: first release.
    """

    task_type = AdatomManipulationTask


class AdatomManipulationVector(ScopeVectorEnv):
    """N lanes of :class:`AdatomManipulation`."""

    task_type = AdatomManipulationTask
