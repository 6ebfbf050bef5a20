"""``probegym/IsingInference-v0``: how to anneal and image a lattice so as to learn the coupling of its atoms."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from typing import ClassVar

import numpy as np
from gymnasium import spaces

from probegym.envs import ising_rewards, pictures_ising
from probegym.envs.actions import bounds
from probegym.envs.core import ScopeEnv, ScopeVectorEnv
from probegym.envs.ising_belief import SpinBelief
from probegym.envs.ising_settings import Settings
from probegym.envs.task import Boxes, Observation, Task, Term, Where, hours
from probegym.hardware_bridge.commands import ClassifyAtoms, Command, Lanes, Readings, SetConditions
from probegym.scenarios import parsed

GREY = np.array([0, 127, 255], np.uint8)  # of labels -1, 0 (not seen) and +1
HIGHEST = 10.0  # that an observation shows; rarely met


class IsingInferenceTask(Task):
    """Decode, encode and ends of IsingInference; see :class:`IsingInference` for its page."""

    family = "ising_inference"
    twin = "probegym.hardware_bridge.twins.ising:IsingTwin"
    origins: ClassVar = {"ClassifyAtoms.detector": ("task.detector", "world.classifier.name"), "ClassifyAtoms.shape": ("task.rows", "world.rows")}
    controls_from = "probegym.envs.ising_controls:controls"
    measured = "images"
    metric_units: ClassVar = {"coupling_deviation": "meV", "field_error": "meV", "images": "1", "error": "1", "surprise": "1"}
    info_meanings: ClassVar = {"coupling_deviation": "standard deviation of J, as believed", "images": "so far", "error": "relative error of J, hidden truth", "field_error": "of h, hidden truth",
                               "surprise": "squared error of J over its believed variance, hidden truth", "damage": "always 0"}  # fmt: skip
    decides = ("chosen", "annealed", "fresh", "previous", "looks", "kept")

    def __init__(self, settings: dict):
        self.settings = s = parsed(Settings, settings, "task")
        self.belief = SpinBelief(s)
        self.cycle_seconds, self.image_seconds = s.seconds()
        t, f, h, d = (len(v) for v in (s.temperatures, s.fields, s.holds, s.dwells))
        self.action_space = spaces.MultiDiscrete([t, f, h + 1, d, 5])
        wide = {"mean": (3,), "deviation": (3,), "misfit": (1,)}
        own = {"gain": (t, f, d, 2), "promise": (t, f, d, 2), "again": (d, 5), "again_promise": (d, 5)}
        shares = {"anneal_price": (t, h), "image_price": (d, 2), "fresh": (4,), "budget": (1,)}
        boxes: Boxes = {"labels": spaces.Box(0, 255, (1, s.rows, s.rows), np.uint8)}
        signed = {"overlap": (1,), "order": (1,), "moved": (t, h)}
        for low, high, shapes in ((-HIGHEST, HIGHEST, wide), (0, HIGHEST, own), (0, 1, shares), (-1, 1, signed)):
            boxes |= {name: spaces.Box(low, high, shape, np.float32) for name, shape in shapes.items()}
        self.observation_space = spaces.Dict(boxes)
        time = Term("time", -s.price, hours)
        learned, error = Term("information", 0.5, ising_rewards.information), Term("error", 0.5, ising_rewards.error, True)
        self.rewards = {"privileged": [error, learned, time], "observable": [Term("information", 1.0, ising_rewards.information), time]}

    @property
    def action_units(self) -> dict:
        s = self.settings
        return {"temperatures": list(s.temperatures), "fields": list(s.fields), "holds": list(s.holds), "dwells": list(s.dwells), "rows": s.rows}

    def memory(self, lanes: int) -> Lanes:
        s = self.settings
        chosen = {"chosen": np.tile([*s.first[:2], s.first[2] + 1, s.first[3], 0], (lanes, 1)), "annealed": np.zeros((lanes, 2), np.int64)}
        return self.belief.memory(lanes) | chosen | {"images": np.zeros(lanes), "left": np.ones(lanes)}

    # ---- what is done ----

    def opening(self, memory: Lanes) -> Generator[tuple[Command, Where | None], Readings, None]:
        took = []
        for command, where in self.decode(memory["chosen"], memory, memory["images"] == 0):
            answer = yield command, where
            took.append(answer.time)
        self.settings.compare(*took[:3])

    def decode(self, action: np.ndarray, memory: Lanes, where: Where) -> Iterable[tuple[Command, Where | None]]:
        s, m = self.settings, memory
        temperature, field, hold, dwell, region = action.T
        m["chosen"][where] = action[where]
        heated = where & (hold > 0)
        m["annealed"][heated] = action[heated, :2]
        self.belief.anneal(m, heated)
        nothing = np.zeros(len(action))
        yield SetConditions(np.array(s.temperatures)[temperature], np.array(s.fields)[field], np.array(s.holds)[np.maximum(hold - 1, 0)]), heated
        yield SetConditions(nothing + s.cold, nothing, nothing), heated
        seconds, centre = np.array(s.dwells)[dwell], self.belief.centre(region)
        for rows, meant in ((s.rows, region == 0), (s.rows // 2, region > 0)):
            yield ClassifyAtoms(s.detector, (rows, rows), centre, seconds), where & meant

    def prices(self, action: np.ndarray) -> np.ndarray:
        """Seconds (lanes,) that actions take."""
        temperature, _, hold, dwell, region = action.T
        cycle = np.where(hold > 0, self.cycle_seconds[temperature, np.maximum(hold - 1, 0)], 0.0)
        return cycle + self.image_seconds[dwell, np.minimum(region, 1)]

    def foreseen(self, action: np.ndarray, memory: Lanes) -> Lanes:
        return {"time": self.prices(action), "measurements": np.ones(len(action))}

    def least(self, memory: Lanes) -> Lanes:
        return {"time": np.full(len(memory["left"]), self.image_seconds.min()), "measurements": np.ones(len(memory["left"]))}

    # ---- what is seen ----

    def encode(self, readings: list[Readings], memory: Lanes, left: np.ndarray, where: Where) -> Observation:
        m = memory
        for name in ("mean", "covariance"):
            m[f"{name}_before"][where] = m[name][where]
        beta, applied = self.belief.conditions(m)
        x = self.belief.separations[m["chosen"][:, 3]]
        for reading in readings[-2:]:
            seen = where & (reading.measurements > 0)
            self.belief.learn(m, seen, reading.values["labels"], m["chosen"][:, 4], beta, applied, x)
            m["images"] += seen
        m["left"][where] = left[where]
        prior, (gain, promise), (again, again_promise) = self.belief, self.belief.gains(m), self.belief.gains_again(m, beta, applied)
        deviation = np.sqrt(np.diagonal(m["covariance"], axis1=1, axis2=2))
        limit, lanes = self.seconds_available, np.ones((len(left), 1, 1))
        shown = {
            "labels": GREY[m["labels"] + 1][:, None], "mean": (m["mean"] - prior.mean) / prior.deviation, "deviation": np.log(deviation / prior.deviation),
            "misfit": np.log1p(m["misfit"])[:, None], "gain": gain, "promise": promise, "again": again, "again_promise": again_promise,
            "anneal_price": lanes * self.cycle_seconds / limit, "image_price": lanes * self.image_seconds / limit, "moved": m["moved"], "fresh": m["fresh"],
            "overlap": m["overlap"][:, None], "order": m["order"][:, None], "budget": left[:, None],
        }  # fmt: skip
        return {name: np.clip(shown[name], *bounds(box)).astype(box.dtype) for name, box in self.observation_space.spaces.items()}

    @property
    def seconds_available(self) -> float:
        """Seconds of an episode; two hours where nothing limits them."""
        return self.limits.get("time", 7200.0)

    def ends(self, truth: Lanes, memory: Lanes) -> tuple[np.ndarray, np.ndarray]:
        known = np.sqrt(memory["covariance"][:, 0, 0]) <= self.settings.goal * np.abs(memory["mean"][:, 0])  # as believed
        if truth:  # close by luck is not known, and sure of what is wrong is not, either
            known &= ising_rewards.relative_error(memory["mean"], truth["coupling"]) <= self.settings.goal
        return np.zeros(len(known), bool), known

    def metrics(self, truth: Lanes, memory: Lanes) -> Lanes:
        mean, variance = memory["mean"], memory["covariance"][:, 0, 0]
        own = {"images": memory["images"].copy(), "coupling_deviation": 1e3 * np.sqrt(variance)}
        return own | (ising_rewards.errors(mean, variance, truth) if truth else {})

    def oracle(self, truth: Lanes, memory: Lanes) -> np.ndarray:
        """Most information on J for its time at the true J, h and classifier, held as long as the true relaxation asks for. No bound: it is greedy, with everybody's belief."""
        gain, _ = self.belief.gains(memory, np.stack([truth["coupling"], truth["field"], truth["misjudged"]], 1))
        relaxed = self.belief.relaxed(truth["rate"], truth["barrier"])
        return self.actions(self.worth(gain, relaxed, memory["left"]))

    def worth(self, gain: np.ndarray, relaxed: np.ndarray, left: np.ndarray) -> np.ndarray:
        """Gain for the time (lanes, temperatures, fields, holds, dwell times, 2 sizes) of what fits into the share ``left`` (lanes,); -1 of the rest.

        gain: (lanes, temperatures, fields, dwell times, 2); relaxed: (lanes, temperatures, holds), share of an independent image.
        """
        seconds = self.cycle_seconds[:, None, :, None, None] + self.image_seconds
        fits = seconds <= self.seconds_available * left[:, None, None, None, None, None] + 1e-6
        return np.where(fits, gain[:, :, :, None] * relaxed[:, :, None, :, None, None] / seconds, -1.0)

    def actions(self, value: np.ndarray) -> np.ndarray:
        """Actions (lanes, 5) of the highest values (lanes, temperatures, fields, holds, dwell times, 2 sizes)."""
        best = np.unravel_index(value.reshape(len(value), -1).argmax(1), value.shape[1:])
        return np.stack([best[0], best[1], best[2] + 1, best[3], best[4]], 1)

    def picture(self, observation: Observation, truth: Lanes, memory: Lanes, info: Lanes) -> np.ndarray:
        return pictures_ising.inference(self, observation, truth, memory, info)


class IsingInference(ScopeEnv):
    """Anneal, quench and image a lattice of two kinds of atoms so that its coupling is known as well as time allows.

    ## Description
    Two kinds of atoms (spins +1 and -1) sit on a square lattice. Like neighbours attract with a hidden energy J, one kind is favoured
    by a hidden h. The lattice is annealed at a temperature and in a field (a chemical potential) for a while, quenched to where
    nothing moves, and imaged; a classifier labels each atom, sometimes wrongly, the less often the longer it looks. Too hot, and
    atoms hardly notice their neighbours; too cold, and all are alike or nothing moves; off balance, and there is one kind only.
    Where the optimum lies depends on J and h themselves. How fast the lattice relaxes and how good the classifier really is
    nobody says. A noise-aware pseudo-likelihood turns all images together into a belief over J, h and the classifier; images of a lattice
    that has not changed count as one, with fewer wrong labels.

    ## Action Space
    `MultiDiscrete([8, 5, 4, 3, 5])` in the shipped scenarios

    | Num | Meaning |
    |---|---|
    | temperature | of the anneal: 350, 420, 500, 580, 670, 780, 900, 1050 K |
    | field | in the meantime: -10, -5, 0, 5, 10 meV |
    | hold | 0: no anneal, image the lattice as it is (temperature and field are not used); 1 to 3: 20, 80, 320 s |
    | dwell | 5, 20, 80 ms an atom |
    | region | 0: the whole lattice of 64 x 64 atoms; 1 to 4: a quarter of it, row by row |

    Numbers outside are refused; nothing is done.

    ## Observation Space

    | Key | Shape | Type | Meaning |
    |---|---|---|---|
    | `labels` | (1, 64, 64) | uint8 | last label of every atom: 255 up, 0 down, 127 never seen |
    | `mean` | (3,) | float32 | J, h and the logarithm of the classifier's separation over the one told, in standard deviations of the prior |
    | `deviation` | (3,) | float32 | logarithm of their standard deviations over the prior's |
    | `gain` | (8, 5, 3, 2) | float32 | nats by which log sigma of J is expected to fall: temperature, field, dwell; whole, quarter; after another anneal |
    | `promise` | (8, 5, 3, 2) | float32 | the same, were the classifier known |
    | `again`, `again_promise` | (3, 5) | float32 | the same for the lattice as it is: dwell, region; zero for what was seen as long |
    | `anneal_price` | (8, 3) | float32 | share of the time: temperature, hold |
    | `image_price` | (3, 2) | float32 | share of the time: dwell; whole, quarter |
    | `moved` | (8, 3) | float32 | weight that the last image after such an anneal had: 1 if its atoms had moved, 0 if not; -1: not tried |
    | `fresh` | (4,) | float32 | 1 for quarters imaged since the last anneal |
    | `overlap` | (1,) | float32 | correlation of the last labels with those of the same atoms before |
    | `order` | (1,) | float32 | mean of the last labels |
    | `misfit` | (1,) | float32 | log(1 + chi^2) of the last state's labels |
    | `budget` | (1,) | float32 | share of the tightest budget that is left |

    ## Rewards
    `privileged` (default): half the fall of the logarithm of J's true relative error (+ 0.5 %) and half that of its believed standard
    deviation, less 0.1 an hour. `observable`: the fall of the believed one, less 0.1 an hour.

    ## Starting State
    Atoms at random; J uniform from 10 to 28 meV, h of 5 meV spread, mobility and its barrier drawn anew, the separation 30 % better or
    worse than told. One anneal (670 K, no field, 80 s) and one image (20 ms) have been made.

    ## Episode End
    Truncation only: the next image does not fit into 90 minutes. `is_success`: sigma of J as believed is 2 % of J or less and, in a twin, so is its error.

    ## Arguments

    | Parameter | Type | Default | Description |
    |---|---|---|---|
    | `scenario` | str | `"train"` | a name from `probegym show IsingInference`, or `file.yaml:name` |
    | `reward` | str | `"privileged"` | or `"observable"` |
    | `budget` | int | None | fewer images than the scenario allows |
    | `world` | object or path | None | None: the twin; a path: the folder of a record; or an object with the world protocol |

    >>> env = gymnasium.make("probegym/IsingInference-v0", scenario="train", render_mode="rgb_array")

    ## Physics and assumptions
    Ising model on a torus, heat-bath dynamics at an Arrhenius rate (physics/ising.py); quenches are fast against it. Expected gains assume
    equilibrium; the belief does not. All numbers of the sample are design parameters (docs/ising_inference.md).

    ## Vectorized environment
    `make_vec(..., num_envs=64)` is native; lane i equals `make(...).reset(seed=seed + i)`.

    ## Sources
    Besag (1975), 10.2307/2987782. Godambe (1960), 10.1214/aoms/1177705693. Onsager (1944), 10.1103/PhysRev.65.117.

    ## Version History
    * v0: first release.
    """

    task_type = IsingInferenceTask


class IsingInferenceVector(ScopeVectorEnv):
    """N lanes of :class:`IsingInference`."""

    task_type = IsingInferenceTask
