"""The adatom twin: an STM whose tip drags adatoms over an fcc(111) surface, with a hidden apex that may change; N lanes at once."""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from probegym.hardware_bridge.commands import DipTip, DragTip, Lanes, LocateAdatoms, PulseBias, Readings
from probegym.hardware_bridge.twins import stm_scan
from probegym.hardware_bridge.twins.lanes import LaneTwin, refuse_outside
from probegym.hardware_bridge.world import Refused
from probegym.physics import adatom_images, adatoms, randomness
from probegym.scenarios import ScenarioError, parsed
from probegym.scenarios.distributions import Distribution, Sampled

FARTHEST, LARGEST_VIEW = 50e-9, 100e-9  # m, from the centre of the piezo; of an image
HIGHEST_BIAS, HIGHEST_CONDUCTANCE = 1.0, 40e-6  # V, S: of a drag
SPEEDS = (1e-11, 1e-6)  # m/s
SPOILT = 1e-9  # m around a pulse or dip that re-forms the apex, within which adatoms go to the tip
RESTLESS = 1e-3  # hops/s without a tip, above which the adatoms are not still
CANDIDATES = 32  # places drawn for every adatom but the first

LIMITS = {
    "spacing": (0.2e-9, 0.4e-9), "barrier": (3e-3, 0.5), "stacking": (-0.02, 0.02), "orientation": (-6.3, 6.3), "temperature": (0.1, 12.0),
    "apparent_height": (0.02e-9, 0.25e-9), "depth": (0.0, 10.0), "range": (0.5e10, 3e10), "equilibrium": (0.2e-9, 0.4e-9), "offset": (0.0, 0.5e-9),
    "asymmetry": (0.0, 0.5), "work_function": (1.0, 6.0), "tip_change.rate": (0.0, 10.0), "tip_change.after": (-1.0, 1e6),
    "onset": (1e-3, 10.0), "pickup_conductance": (1e-6, 1.0), "current_noise": (0.0, 1.0), "preamplifier": (0.0, 1e-7), "position_noise": (0.0, 0.2e-9),
    "miss_rate": (0.0, 1.0), "misplacement": (0.0, 0.5e-9), "drift": (0.0, 0.1e-9), "height_noise": (0.0, 1e-9), "line_noise": (0.0, 1e-9),
    "feedback_bandwidth": (1.0, 1e5),
}  # fmt: skip
"""What a draw may be; an episode whose draw lies outside is refused."""

_SURFACE = ("spacing", "barrier", "stacking", "orientation", "temperature", "apparent_height")
_APEX = ("depth", "range", "equilibrium", "offset", "asymmetry", "work_function")
_REST = (
    "onset", "pickup_conductance", "current_noise", "preamplifier", "position_noise", "miss_rate", "misplacement", "drift", "height_noise",
    "line_noise", "feedback_bandwidth",
)  # fmt: skip


def _default(value: Any) -> Any:
    return Field(default=value, validate_default=True)


class Tip(BaseModel):
    """The apex: the Morse well between it and an adatom, and where it is."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    depth: Sampled = _default(3.0)  # eV
    range: Sampled = _default(1.4e10)  # 1/m
    equilibrium: Sampled = _default(0.32e-9)  # m
    offset: Sampled = _default(0.0)  # m, of the atom that pulls from the one that images, in a random direction
    asymmetry: Sampled = _default(0.0)  # distances along a random axis count so much more
    work_function: Sampled = _default(4.5)  # eV

    @field_validator("*")
    @classmethod
    def _possible(cls, drawn: Distribution, field: ValidationInfo) -> Distribution:
        """A tip is drawn in the middle of an episode too, which must not break there."""
        low, high = LIMITS[str(field.field_name)]
        for end in drawn.ends():
            if not low <= end <= high:
                raise ValueError(f"must be from {low:g} to {high:g}, drawn can be {end:g}")
        return drawn


class Change(BaseModel):
    """What changes the tip, unannounced: time, current, and a fixed drag; then it is drawn anew from ``tip``."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    rate: Sampled = _default(0.0)  # 1/s
    current: float = Field(300e-9, gt=0)  # A: 63 % of the drags that reach it change the tip, (I / this)^4 of the others
    after: Sampled = _default(-1.0)  # drags after which it happens; below 0 never
    tip: Tip | None = None  # else the ``tip`` of the world


class Treatment(BaseModel):
    """Chance that a pulse (strength: |V|) or a dip (strength: m) re-forms the apex: at ascending strengths, linear in between and down to none at zero."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    strength: tuple[Annotated[float, Field(gt=0, le=100)], ...] = Field(min_length=1)
    chance: tuple[Annotated[float, Field(ge=0, le=1)], ...]

    @model_validator(mode="after")
    def _consistent(self) -> Treatment:
        if list(self.strength) != sorted(set(self.strength)) or len(self.chance) != len(self.strength):
            raise ValueError("strength must ascend, with a chance each")
        return self


class Adatoms(BaseModel):
    """How many there are, and where: on hollows in a disc about the origin, apart from each other, or at given places (m)."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    count: int = Field(1, ge=1, le=adatoms.MOST_ADATOMS)
    radius: float = Field(1e-9, ge=0, le=FARTHEST)  # m
    separation: float = Field(1e-9, ge=0, le=FARTHEST)  # m
    sites: tuple[tuple[float, float], ...] | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Adatoms:
        if self.sites is not None and len(self.sites) != self.count:
            raise ValueError(f"sites holds {len(self.sites)} places for {self.count} adatoms")
        if self.sites is not None and np.abs(self.sites).max() > FARTHEST:
            raise ValueError(f"sites must lie within {1e9 * FARTHEST:g} nm")
        return self


class AdatomConfig(BaseModel):
    """The ``world`` table of a scenario; every number a draw may replace is sampled once an episode."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    spacing: Sampled = _default(0.2889e-9)  # m, of nearest neighbours: 0.2889 nm for Ag, 0.2556 nm for Cu
    barrier: Sampled = _default(0.10)  # eV
    stacking: Sampled = _default(3e-3)  # eV, hcp above fcc
    orientation: Sampled = _default({"uniform": [0.0, 2.0944]})  # rad
    temperature: Sampled = _default(5.0)  # K
    attempt_rate: float = Field(1e12, ge=1e9, le=1e14)  # 1/s
    apparent_height: Sampled = _default(0.09e-9)  # m
    adatoms: Adatoms = _default({})
    tip: Tip = _default({})
    contact: float = Field(0.29e-9, ge=0.1e-9, le=0.5e-9)  # m, distance of the nuclei at one conductance quantum
    tip_change: Change = _default({})
    pulses: Treatment = _default({"strength": [2.5, 4.0, 8.0], "chance": [0.05, 0.22, 0.88]})  # those of TipConditioning that re-form or renew
    dips: Treatment = _default({"strength": [0.8e-9, 1.0e-9, 1.2e-9, 1.8e-9, 2.5e-9, 5e-9], "chance": [0.35, 0.56, 0.67, 0.81, 0.92, 0.99]})
    onset: Sampled = _default(0.07)  # V above which electrons excite hops
    efficiency: float = Field(1e-11, ge=0, le=1)  # hops an electron at twice the onset
    pickup_conductance: Sampled = _default(100e-6)  # S at which 63 % of the adatoms go to the tip, (G / this)^4 of the others
    current_noise: Sampled = _default(0.02)  # relative
    preamplifier: Sampled = _default(50e-12)  # A rms
    position_noise: Sampled = _default(10e-12)  # m rms, of the finder, each axis
    miss_rate: Sampled = _default(0.0)
    misplacement: Sampled = _default(0.0)  # m rms, of each approach, each axis
    drift: Sampled = _default(0.0)  # m/s, in a random direction
    height_noise: Sampled = _default(2e-12)  # m, and so on: of an image
    line_noise: Sampled = _default(2e-12)
    feedback_bandwidth: Sampled = _default(600.0)  # Hz
    approach_time: float = Field(2.0, ge=0, le=1e4)  # s, to each image and each drag


class AdatomTwin(LaneTwin):
    """Implements the world protocol; ``config`` is the ``world`` table of a scenario.

    A drag counts one measurement, an image none. Damage: adatoms that went to the tip, pairs that stuck together, contacts. Pulses and
    dips re-form the apex by chance (Tewari et al. 2017, arXiv:1705.08796; Krull et al. 2020, 10.1038/s42005-020-0317-3); it is then as
    one at the start of an episode. The debris that they leave is not simulated.
    """

    noun = "this STM has"

    def __init__(self, config: dict[str, Any], lanes: int) -> None:
        self.config = c = parsed(AdatomConfig, config, "world")
        self.lanes = lanes
        self._handlers = {LocateAdatoms: self._locate, DragTip: self._drag, PulseBias: self._pulse, DipTip: self._dip}
        n = c.adatoms.count
        self.state: Lanes = {
            "key": np.zeros(lanes, np.uint64),
            "count": np.zeros(lanes, np.int64),  # commands so far; with the key it decides all noise
            "origin": np.zeros((lanes, 2)),  # m, of a surface atom at time 0
            "velocity": np.zeros((lanes, 2)),
            "time": np.zeros(lanes),
            "surface": np.ones((lanes, len(_SURFACE))),
            "rest": np.ones((lanes, len(_REST))),
            "sites": np.zeros((lanes, n, 3), np.int32),
            "status": np.zeros((lanes, n), np.int32),
            "tip": np.ones((lanes, 7)),
            "work_function": np.full(lanes, 4.5),
            "tip_change_rate": np.zeros(lanes),
            "change_after": np.full(lanes, -1, np.int64),
            "tip_changes": np.zeros(lanes, np.int64),
            "drags": np.zeros(lanes, np.int64),
        }

    # ---- world protocol ----

    def begin(self, keys: np.ndarray, where: np.ndarray) -> None:
        s, c = self.state, self.config
        keys = np.where(where, np.asarray(keys, np.uint64), np.uint64(0))
        drawn = {name: getattr(c, name).sample(keys, name) for name in (*_SURFACE, *_REST)}
        drawn |= {"tip_change.rate": c.tip_change.rate.sample(keys, "tip change"), "tip_change.after": c.tip_change.after.sample(keys, "change after")}
        for name, values in drawn.items():
            refuse_outside(name, values[where], LIMITS[name])
        restless = adatoms.thermal_rate(drawn["barrier"][where], drawn["temperature"][where], c.attempt_rate)
        if (restless > RESTLESS).any():
            raise ScenarioError("world.temperature", f"adatoms would hop {restless.max():.2g} times a second by themselves; lower it or raise barrier")
        u = randomness.uniform(keys, 0, "lattice", 3)
        axis = 2 * np.pi * u[:, 2]
        origin = drawn["spacing"][:, None] * u[:, :2]
        sites = self._places(keys, where, origin, drawn["spacing"], drawn["orientation"])
        tip, work_function = self._apex("tip", c.tip, keys, where)
        for column, name in enumerate(_SURFACE):
            s["surface"][where, column] = drawn[name][where]
        for column, name in enumerate(_REST):
            s["rest"][where, column] = drawn[name][where]
        velocity = drawn["drift"][:, None] * np.stack([np.cos(axis), np.sin(axis)], 1)
        new = {"key": keys, "origin": origin, "velocity": velocity, "sites": sites, "tip": tip, "work_function": work_function}
        new |= {"tip_change_rate": drawn["tip_change.rate"], "change_after": np.round(drawn["tip_change.after"]).astype(np.int64)}
        for name, values in new.items():
            s[name][where] = values[where]
        for name in ("count", "status", "time", "tip_changes", "drags"):
            s[name][where] = 0

    def _places(self, keys: np.ndarray, where: np.ndarray, origin: np.ndarray, spacing: np.ndarray, orientation: np.ndarray) -> np.ndarray:
        """Hollows (lanes, n, 3) that the adatoms start on; raises where they overlap or do not fit."""
        a, n, on = self.config.adatoms, self.config.adatoms.count, np.nonzero(where)[0]
        out = np.zeros((self.lanes, n, 3), np.int32)
        lattice = origin[on], spacing[on], orientation[on]
        if a.sites is not None:
            points = np.broadcast_to(np.array(a.sites, float), (len(on), n, 2))
            out[on] = adatoms.nearest_sites(points, *lattice)
            if (adatoms.touching(points, spacing[on]) | adatoms.touching(adatoms.site_positions(out[on], *lattice), spacing[on])).any():
                raise ScenarioError("world.adatoms", f"sites overlap, place adatoms more than {adatoms.DIMER:g} spacings apart")
            return out
        u = randomness.uniform(keys[on], 0, "adatoms", 2 * (1 + CANDIDATES * (n - 1))).reshape(len(on), -1, 2)
        far, angle = a.radius * np.sqrt(u[..., 0]), 2 * np.pi * u[..., 1]
        trial = adatoms.nearest_sites(np.stack([far * np.cos(angle), far * np.sin(angle)], -1), *lattice)
        at = adatoms.site_positions(trial, *lattice)
        least, lane = np.maximum(a.separation, 1.0001 * adatoms.DIMER * spacing[on]), np.arange(len(on))
        free = np.ones(at.shape[:2], bool)
        for atom in range(n):
            if not free.any(1).all():
                raise ScenarioError("world.adatoms", f"{n} adatoms {1e9 * least.max():.3g} nm apart do not fit, raise radius or lower separation")
            taken = free.argmax(1)
            out[on, atom] = trial[lane, taken]
            free &= ((at - at[lane, taken][:, None]) ** 2).sum(-1) >= least[:, None] ** 2
        return out

    def _apex(self, entry: str, table: Tip, keys: np.ndarray, where: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """A tip (lanes, 7) and its work function (lanes,), drawn from a table, an entry of the world, by keys."""
        drawn = {name: getattr(table, name).sample(keys, f"tip {name}") for name in _APEX}
        for name, values in drawn.items():
            refuse_outside(f"{entry}.{name}", values[where], LIMITS[name])
        u = 2 * np.pi * randomness.uniform(keys, 0, "tip axes", 2)
        columns = (drawn["offset"] * np.cos(u[:, 0]), drawn["offset"] * np.sin(u[:, 0]), drawn["depth"], drawn["range"], drawn["equilibrium"])
        return np.stack([*columns, drawn["asymmetry"], u[:, 1]], 1), drawn["work_function"]

    def _change_tip(self, where: np.ndarray, reformed: bool = False) -> None:
        """Draw the apex anew on some lanes: as one that a treatment re-formed, or that changed by itself."""
        if not where.any():
            return
        s, c = self.state, self.config
        keys = randomness.subkey(s["key"], s["count"], "new tip")
        changed = None if reformed else c.tip_change.tip
        tip, work_function = self._apex("tip_change.tip" if changed else "tip", changed or c.tip, keys, where)
        s["tip"][where], s["work_function"][where] = tip[where], work_function[where]
        s["tip_changes"] += where

    def _rows(self) -> np.ndarray:
        s, c = self.state, self.config
        told = dict(zip(_SURFACE, s["surface"].T, strict=True))
        return adatoms.rows(**told, tip=s["tip"], work_function=s["work_function"], contact=c.contact, attempt_rate=c.attempt_rate)

    def _rest(self, name: str) -> np.ndarray:
        return self.state["rest"][:, _REST.index(name)]

    def _surface(self, name: str) -> np.ndarray:
        return self.state["surface"][:, _SURFACE.index(name)]

    def _origin(self) -> np.ndarray:
        origin: np.ndarray = self.state["origin"] + self.state["velocity"] * self.state["time"][:, None]
        return origin

    def _positions(self, origin: np.ndarray) -> np.ndarray:
        return adatoms.site_positions(self.state["sites"], origin, self._surface("spacing"), self._surface("orientation"))

    def truth(self) -> Lanes:
        s, origin = self.state, self._origin()
        told = {name: self._surface(name).copy() for name in _SURFACE}
        told |= {name: s[name].copy() for name in ("tip", "work_function", "time", "tip_changes", "drags")}
        told |= {name: np.full(self.lanes, getattr(self.config, name)) for name in ("contact", "attempt_rate")}
        told |= {"stuck": s["status"] == adatoms.STUCK, "gone": s["status"] == adatoms.GONE}
        return told | {"position": self._positions(origin), "origin": origin, "drift": s["velocity"].copy()}

    def portrait(self, lane: int) -> Lanes:
        return {"threshold": adatoms.threshold(self._rows()[lane : lane + 1])[0]}

    # ---- commands ----

    def _locate(self, command: LocateAdatoms, where: np.ndarray) -> Readings:
        s, c, n = self.state, self.config, int(command.count)
        rows, columns, line_time = stm_scan.lines(command)
        if command.field_of_view > LARGEST_VIEW or (np.abs(command.centre[where]) > FARTHEST).any():
            raise Refused(f"this STM scans up to {1e9 * LARGEST_VIEW:g} nm within {1e9 * FARTHEST:g} nm of the centre of its piezo")
        if command.current / abs(command.bias) > HIGHEST_CONDUCTANCE:
            raise Refused(f"an image at {command.current:g} A and {command.bias:g} V would drag adatoms, stay below {1e6 * HIGHEST_CONDUCTANCE:g} uS")
        if not 1 <= n <= c.adatoms.count:
            raise Refused(f"this finder keeps 1 to {c.adatoms.count} adatoms, asked were {n}")
        start = self._positions(self._origin())[:, :n]
        half = 0.5 * command.field_of_view * np.array([1.0, rows / columns])
        seconds = np.clip((start[..., 1] - command.centre[:, None, 1] + half[1]) / (2 * half[1]), 0, 1) * rows * line_time  # until their line
        seen = start + s["velocity"][:, None] * seconds[..., None]
        noise = randomness.normal(s["key"], s["count"], "finder", 2 * n).reshape(-1, n, 2)
        lucky = randomness.uniform(s["key"], s["count"], "miss", n) >= self._rest("miss_rate")[:, None]
        inside = (np.abs(seen - command.centre[:, None]) <= half).all(-1)
        found = inside & lucky & (s["status"][:, :n] != adatoms.GONE) & where[:, None]
        position = np.where(found[..., None], seen + self._rest("position_noise")[:, None, None] * noise, 0.0)
        values = {"position": position, "found": found}
        if command.image:
            values["height"] = self._image(command, where, line_time)
        s["time"] += where * (rows * line_time + c.approach_time)
        self._change_tip(where & self._by_itself(np.full(self.lanes, rows * line_time)))
        return self._readings(where, np.full(self.lanes, rows * line_time), np.zeros(self.lanes), 0, **values)

    def _image(self, command: LocateAdatoms, where: np.ndarray, line_time: float) -> np.ndarray:
        s, on = self.state, np.nonzero(where)[0]
        height = np.zeros((self.lanes, *command.shape), np.float32)
        noise = np.stack([self._rest(name) for name in ("current_noise", "height_noise", "line_noise", "feedback_bandwidth")], 1)
        height[on] = adatom_images.topographs(
            self._positions(self._origin())[on], s["status"][on] != adatoms.GONE, self._surface("apparent_height")[on], s["work_function"][on],
            command.centre[on], s["velocity"][on], noise[on], randomness.subkey(s["key"], s["count"], "scan")[on], command.shape,
            command.field_of_view, line_time, command.bias, command.current,
        )  # fmt: skip
        return height

    def _drag(self, command: DragTip, where: np.ndarray) -> Readings:
        s, c = self.state, self.config
        self._refuse_drag(command, where)
        self._change_tip(where & (s["drags"] == s["change_after"]))
        on = np.nonzero(where)[0]
        seconds = np.where(where, np.hypot(*(command.end - command.start).T) / command.speed, 0.0)
        slip = self._rest("misplacement")[:, None] * randomness.normal(s["key"], s["count"], "misplacement", 2)
        noise = np.stack([self._rest("current_noise"), self._rest("preamplifier")], 1)
        sites, status, trace, told = adatoms.drag(
            self._rows()[on], randomness.subkey(s["key"], s["count"], "drag")[on], s["sites"][on], s["status"][on], self._origin()[on],
            (command.start + slip)[on], (command.end + slip)[on], command.bias[on], command.current[on], command.speed, int(command.samples),
            noise[on], self._rest("pickup_conductance")[on], self._rest("onset")[on], c.efficiency,
        )  # fmt: skip
        s["sites"][on], s["status"][on] = sites, status
        wide = np.zeros((self.lanes, int(command.samples)), np.float32)
        wide[on] = trace
        damage, peak, crashed = np.zeros(self.lanes), np.zeros(self.lanes), np.zeros(self.lanes, bool)
        damage[on] = told["picked_up"] + told["stuck"] + told["crashed"]
        peak[on], crashed[on] = told["conductance"] * np.abs(command.bias[on]), told["crashed"] > 0
        driven = randomness.uniform(s["key"], s["count"], "driven change", 1)[:, 0] < -np.expm1(-((peak / c.tip_change.current) ** 4))
        s["time"] += where * (seconds + c.approach_time)
        s["drags"] += where
        self._change_tip(where & (crashed | driven | self._by_itself(seconds)))
        return self._readings(where, seconds, damage, 1, trace=wide)

    def _refuse_drag(self, command: DragTip, where: np.ndarray) -> None:
        if (command.bias[where] == 0).any() or (np.abs(command.bias) > HIGHEST_BIAS).any():  # of all lanes: a task may ask beforehand, of none
            raise Refused(f"a drag needs a bias up to {HIGHEST_BIAS:g} V of either sign, not zero")
        if (command.current[where] <= 0).any():
            raise Refused("a drag needs a current above zero")
        if (command.current > HIGHEST_CONDUCTANCE * np.abs(command.bias)).any():
            raise Refused(f"current over bias may be at most {1e6 * HIGHEST_CONDUCTANCE:g} uS, more would bring the tip into contact")
        if not SPEEDS[0] <= command.speed <= SPEEDS[1]:
            raise Refused(f"this tip drags at {SPEEDS[0]:g} to {SPEEDS[1]:g} m/s, asked was {command.speed:g}")
        if not 1 <= command.samples <= adatoms.MOST_SAMPLES:
            raise Refused(f"a trace has 1 to {adatoms.MOST_SAMPLES} samples, asked were {command.samples}")
        if max(np.abs(command.start[where]).max(initial=0), np.abs(command.end[where]).max(initial=0)) > FARTHEST:
            raise Refused(f"the tip reaches {1e9 * FARTHEST:g} nm from the centre of its piezo, start or end lies outside")
        if (np.hypot(*(command.end - command.start)[where].T) > adatoms.LONGEST).any():
            raise Refused(f"a drag may be {1e9 * adatoms.LONGEST:g} nm long at most")

    def _pulse(self, command: PulseBias, where: np.ndarray) -> Readings:
        most = self.config.pulses.strength[-1]
        if (np.abs(command.bias) > most).any() or (command.bias[where] == 0).any():
            raise Refused(f"this STM pulses up to {most:g} V of either sign, not zero")
        return self._treat(command, self.config.pulses, np.abs(command.bias), where)

    def _dip(self, command: DipTip, where: np.ndarray) -> Readings:
        most = self.config.dips.strength[-1]
        if (command.depth > most).any() or (command.depth[where] <= 0).any():
            raise Refused(f"this STM dips up to {1e9 * most:g} nm, more than zero")
        return self._treat(command, self.config.dips, command.depth, where)

    def _treat(self, command: PulseBias | DipTip, kind: Treatment, strength: np.ndarray, where: np.ndarray) -> Readings:
        s, c = self.state, self.config
        if np.abs(command.position[where]).max(initial=0) > FARTHEST:
            raise Refused(f"the tip reaches {1e9 * FARTHEST:g} nm from the centre of its piezo")
        chance = np.interp(strength, (0.0, *kind.strength), (0.0, *kind.chance))
        reformed = where & (randomness.uniform(s["key"], s["count"], "treatment", 1)[:, 0] < chance)
        away = np.hypot(*np.moveaxis(self._positions(self._origin()) - command.position[:, None], -1, 0))
        touched = where & isinstance(command, DipTip)
        taken = ((reformed[:, None] & (away < SPOILT)) | (touched[:, None] & (away < self._surface("spacing")[:, None]))) & (s["status"] != adatoms.GONE)
        s["status"][taken] = adatoms.GONE
        s["time"] += where * (command.duration + c.approach_time)
        self._change_tip(reformed, reformed=True)
        return self._readings(where, np.full(self.lanes, command.duration), taken.sum(1).astype(float), 0)

    def _by_itself(self, seconds: np.ndarray) -> np.ndarray:
        """Lanes (bool) whose tip changes spontaneously within so many seconds."""
        s = self.state
        changes: np.ndarray = randomness.uniform(s["key"], s["count"], "own change", 1)[:, 0] < -np.expm1(-s["tip_change_rate"] * seconds)
        return changes

    def _readings(self, where: np.ndarray, seconds: np.ndarray, damage: np.ndarray, measurements: int, **values: np.ndarray) -> Readings:
        on = where.astype(float)
        return Readings(values, (seconds + self.config.approach_time) * on, np.zeros(self.lanes), damage * on, measurements * on)
