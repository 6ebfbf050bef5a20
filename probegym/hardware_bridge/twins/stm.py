"""The STM twin: a hidden apex that treatments change by chance, over a surface without end; N lanes at once."""

from __future__ import annotations

from functools import lru_cache
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator
from scipy.special import ndtri

from probegym.hardware_bridge.commands import AcquireTopograph, DipTip, Lanes, PulseBias, Readings
from probegym.hardware_bridge.twins import stm_scan
from probegym.hardware_bridge.twins.lanes import LaneTwin, refuse_outside
from probegym.hardware_bridge.world import Refused
from probegym.physics import randomness, stm, stm_apex
from probegym.physics.stm_surfaces import CELLS, FIELDS
from probegym.scenarios import parsed
from probegym.scenarios.distributions import Sampled

DEBRIS = 10  # features that a treatment leaves
KEPT_DEBRIS = 48 * DEBRIS  # the oldest make room
AREA_PRICE = 1e4 * 1e-18  # m^2 that cost an oracle as much as one treatment
LARGEST_VIEW, FARTHEST = 1e-6, 1e-3  # m, of an image and of its centre from the origin
_NOISE = ("current_noise", "height_noise", "line_noise", "feedback_bandwidth")

LIMITS = {
    "surface.step_height": (0.0, 2e-9), "surface.terrace_width": (1e-9, 1.0), "surface.direction": (-6.3, 6.3),
    "surface.meander": (0.0, 10e-9), "surface.meander_period": (1e-9, 1e-3), "surface.adatom_height": (0.0, 1e-9),
    "surface.cluster_height": (0.0, 10e-9), "surface.cluster_radius": (0.0, 10e-9), "surface.adsorbate_depth": (0.0, 1e-9),
    "surface.island_radius": (0.0, 10e-9), "surface.reconstruction": (0.0, 1e-9),
    "efficacy": (0.0, 10.0), "tip_change.rate": (0.0, 10.0), "error_rate": (1e-6, 0.5), "current_noise": (0.0, 1.0),
    "height_noise": (0.0, 1e-9), "line_noise": (0.0, 1e-9), "feedback_bandwidth": (1.0, 1e5), "drift": (0.0, 0.5e-9),
} | {f"surface.{name}": (0.0, 1 / side**2) for name, side in CELLS.items()}  # fmt: skip
"""What a draw may be; an episode whose draw lies outside is refused."""

Chance = Annotated[float, Field(ge=0, le=1)]


class Treatments(BaseModel):
    """What pulses (strength: |V|) or dips (strength: m) do: chances at ascending strengths, linear in between."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    strength: tuple[Annotated[float, Field(gt=0, le=100)], ...] = Field(min_length=1)
    spoil_radius: tuple[Annotated[float, Field(gt=0, le=1e-6)], ...]  # m, within which debris falls
    clean: tuple[Chance, ...]
    settle: tuple[Chance, ...]
    reform: tuple[Chance, ...]
    single: tuple[Chance, ...]
    renew: tuple[Chance, ...]
    sharp: tuple[Chance, ...]
    pickup: tuple[Chance, ...]
    loosen: tuple[Chance, ...]

    @model_validator(mode="after")
    def _consistent(self) -> Treatments:
        if list(self.strength) != sorted(set(self.strength)):
            raise ValueError("strength must ascend")
        for name in ("spoil_radius", *stm_apex.CHANCES):
            if len(getattr(self, name)) != len(self.strength):
                raise ValueError(f"{name} needs {len(self.strength)} entries, one a strength")
        return self

    def at(self, strength: np.ndarray) -> dict[str, np.ndarray]:
        """Chances and spoil_radius at strengths (lanes,)."""
        return {name: np.interp(strength, self.strength, getattr(self, name)) for name in ("spoil_radius", *stm_apex.CHANCES)}


class TipChange(BaseModel):
    """Spontaneous changes while an image is scanned: how often, and the chances of what then happens."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    rate: Sampled  # 1/s
    jump: float = Field(0.05e-9, ge=0, le=10e-9)  # m, standard deviation of the change of length
    clean: Chance = 0.2
    settle: Chance = 0.2
    reform: Chance = 0.4
    single: Chance = 0.5
    renew: Chance = 0.05
    sharp: Chance = 0.5
    pickup: Chance = 0.3
    loosen: Chance = 0.2


class ApexConfig(BaseModel):
    """How an apex starts and what treatments do to it."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    double: Chance  # of a start with two front atoms level, and so on
    blunt: Chance
    contaminated: Chance
    unstable: Chance
    pulses: Treatments
    dips: Treatments
    wrong_sign: Chance = 0.25  # factor on the chance to clean when a pulse has not the sign of the adsorbate
    efficacy: Sampled = Field(default=1.0, validate_default=True)  # factor on the chances to clean, settle and reform


class StmConfig(ApexConfig):
    """The ``world`` table of a scenario; every number a draw may replace is sampled once an episode."""

    surface: dict[str, Sampled]  # the fields of stm_surfaces.FIELDS, SI; those left out are zero
    tip_change: TipChange

    error_rate: Sampled = Field(default=0.03, validate_default=True)  # of the classifier that judges an image
    current_noise: Sampled = Field(default=0.03, validate_default=True)  # relative
    height_noise: Sampled = Field(default=2e-12, validate_default=True)  # m
    line_noise: Sampled = Field(default=2e-12, validate_default=True)  # m, from line to line
    feedback_bandwidth: Sampled = Field(default=300.0, validate_default=True)  # Hz, of a clean apex
    drift: Sampled = Field(default=0.0, validate_default=True)  # m/s, in a random direction
    approach_time: float = Field(2.0, ge=0, le=1e4)  # s, to each place

    @model_validator(mode="after")
    def _consistent(self) -> StmConfig:
        for name, value in self.surface.items():
            if name not in FIELDS:
                raise ValueError(f"unknown surface field {name!r}; use one of {', '.join(FIELDS)}")
            if name in CELLS and max(value.choice or value.uniform or value.log_uniform or (0.0,)) * CELLS[name] ** 2 > 1:
                raise ValueError(f"surface.{name} is above {1 / CELLS[name] ** 2:.3g} per m^2, one in each cell")
        rates = self.error_rate.choice or self.error_rate.uniform or self.error_rate.log_uniform or (1.0,)
        if not 0 < min(rates) <= max(rates) <= 0.5:
            raise ValueError("error_rate must lie between 0 and 0.5 (no classifier), as choice, uniform or log_uniform")
        for name in ("step_height", "terrace_width", "meander_period"):
            if name not in self.surface:
                raise ValueError(f"surface needs {name}")
        return self


class StmTwin(LaneTwin):
    """Implements the world protocol; ``config`` is the ``world`` table of a scenario."""

    noun = "this STM has"

    def __init__(self, config: dict[str, Any], lanes: int) -> None:
        self.config = c = parsed(StmConfig, config, "world")
        self.lanes = lanes
        self.outlook = outlook(c.model_dump_json(include=set(ApexConfig.model_fields)))
        self._handlers = {AcquireTopograph: self._topograph, PulseBias: self._pulse, DipTip: self._dip}
        self.state: Lanes = stm_apex.empty(lanes) | {
            "key": np.zeros(lanes, np.uint64),
            "count": np.zeros(lanes, np.int64),  # commands so far; with the key it decides all noise
            "surface_key": np.zeros(lanes, np.uint64),
            "surface": np.zeros((lanes, len(FIELDS))),
            "velocity": np.zeros((lanes, 2)),
            "efficacy": np.zeros(lanes),
            "tip_change_rate": np.zeros(lanes),
            "error_rate": np.full(lanes, 0.5),
            "noise": np.zeros((lanes, len(_NOISE))),
            "treatments": np.zeros(lanes, np.int64),
            "debris": np.zeros((lanes, KEPT_DEBRIS, 4)),  # x, y, height, width, m
        }

    # ---- world protocol ----

    def begin(self, keys: np.ndarray, where: np.ndarray) -> None:
        s, c = self.state, self.config
        keys = np.where(where, np.asarray(keys, np.uint64), np.uint64(0))
        drawn = self._drawn(keys, where)  # first, because it may refuse
        s["key"][where], s["count"][where], s["treatments"][where] = keys[where], 0, 0
        s["debris"][where] = 0
        s["surface_key"][where] = randomness.subkey(keys, 0, "surface")[where]
        for column, name in enumerate(FIELDS):
            s["surface"][where, column] = drawn[f"surface.{name}"][where] if name in c.surface else 0.0
        heading = 2 * np.pi * randomness.uniform(keys, 0, "heading", 1)
        velocity = drawn["drift"][:, None] * np.hstack([np.cos(heading), np.sin(heading)])
        s["velocity"][where] = velocity[where]
        s["efficacy"][where], s["error_rate"][where] = drawn["efficacy"][where], drawn["error_rate"][where]
        s["tip_change_rate"][where] = drawn["tip_change.rate"][where]
        for column, name in enumerate(_NOISE):
            s["noise"][where, column] = drawn[name][where]
        draws = randomness.uniform(keys, 0, "apex", stm_apex.DRAWS)
        stm_apex.draw(s, where, draws, c.double, c.blunt, c.contaminated, c.unstable)

    def _drawn(self, keys: np.ndarray, where: np.ndarray) -> Lanes:
        """Every number of the world that is drawn, (lanes,) each; raises where one lies outside LIMITS."""
        c = self.config
        drawn = {f"surface.{name}": field.sample(keys, f"surface {name}") for name, field in c.surface.items()}
        drawn |= {name: getattr(c, name).sample(keys, name) for name in ("efficacy", "drift", *_NOISE)}
        drawn |= {"tip_change.rate": c.tip_change.rate.sample(keys, "tip change"), "error_rate": c.error_rate.sample(keys, "error rate")}
        for name, values in drawn.items():
            refuse_outside(name, values[where], LIMITS[name])
        return drawn

    def truth(self) -> Lanes:
        judged = stm_apex.judged(self.state)
        return judged | {name: self.state[name].copy() for name in ("apex", "loose", "polarity")} | {"cost_to_go": self.outlook[judged["state"]]}

    # ---- commands ----

    def _topograph(self, command: AcquireTopograph, where: np.ndarray) -> Readings:
        s, c = self.state, self.config
        rows, columns, line_time = stm_scan.lines(command)
        if command.field_of_view > LARGEST_VIEW or (np.abs(command.centre[where]) > FARTHEST).any():
            raise Refused(f"this STM scans up to {1e6 * LARGEST_VIEW:g} um within {1e3 * FARTHEST:g} mm of the origin")
        if stm.gap(command.bias, command.current) <= 0:
            raise Refused(f"a current of {command.current:g} A at {command.bias:g} V would bring the tip into contact")
        seconds = rows * line_time + c.approach_time
        before = {name: s[name].copy() for name in ("apex", "loose")}
        u = randomness.uniform(s["key"], s["count"], "tip change", stm_apex.DRAWS)
        changed = where & (u[:, 38] < 1 - np.exp(-s["tip_change_rate"] * rows * line_time))
        if changed.any():
            t = c.tip_change
            stm_apex.treat(s, changed, u, np.zeros(self.lanes), 1.0, **{name: np.full(self.lanes, getattr(t, name)) for name in stm_apex.CHANCES})
        row = np.where(changed, 1 + (u[:, 39] * (rows - 1)).astype(int), rows)
        height = np.zeros((self.lanes, rows, columns), np.float32)
        normal = randomness.normal(s["key"], s["count"], "image", 2)
        on = np.nonzero(where)[0]
        height[on] = stm.topographs(
            np.stack([before["apex"][on], s["apex"][on]], 1), np.stack([before["loose"][on], s["loose"][on]], 1), row[on],
            c.tip_change.jump * normal[on, 0], s["surface"][on], s["surface_key"][on], command.centre[on], s["velocity"][on], s["noise"][on],
            randomness.subkey(s["key"], s["count"], "scan")[on], s["debris"][on], (rows, columns), command.field_of_view, line_time,
            command.bias, command.current,
        )  # fmt: skip
        verdict = self._verdict(stm_apex.judged(s)["good"], normal[:, 1])
        return self._readings(where, seconds, 0, 1, height=height, verdict=np.where(where, verdict, 0.0))

    def _verdict(self, good: np.ndarray, normal: np.ndarray) -> np.ndarray:
        """P(good) of a classifier: its logit is normal, calibrated at even odds, on the wrong side of 0 with the error rate."""
        mean = 2 * ndtri(self.state["error_rate"]) ** 2  # normal logits of means +-m are calibrated if their variance is 2 m
        chance: np.ndarray = 1 / (1 + np.exp(-(np.where(good, mean, -mean) + np.sqrt(2 * mean) * normal)))
        return chance

    def _pulse(self, command: PulseBias, where: np.ndarray) -> Readings:
        most = self.config.pulses.strength[-1]
        if (np.abs(command.bias) > most).any() or (command.bias[where] == 0).any():  # too much is refused in idle lanes, too
            raise Refused(f"this STM pulses up to {most:g} V of either sign, not zero")
        self._treat(command.position, where, self.config.pulses.at(np.abs(command.bias)), np.sign(command.bias))
        return self._readings(where, command.duration + self.config.approach_time, 1, 0)

    def _dip(self, command: DipTip, where: np.ndarray) -> Readings:
        most = self.config.dips.strength[-1]
        if (command.depth > most).any() or (command.depth[where] <= 0).any():
            raise Refused(f"this STM dips up to {1e9 * most:g} nm, more than zero")
        self._treat(command.position, where, self.config.dips.at(command.depth), np.zeros(self.lanes))
        return self._readings(where, command.duration + self.config.approach_time, 1, 0)

    def _treat(self, position: np.ndarray, where: np.ndarray, effect: dict[str, np.ndarray], sign: np.ndarray) -> None:
        s = self.state
        radius = effect.pop("spoil_radius")
        for name in ("clean", "settle", "reform"):
            effect[name] = np.minimum(1.0, effect[name] * s["efficacy"])
        stm_apex.treat(s, where, randomness.uniform(s["key"], s["count"], "treatment", stm_apex.DRAWS), sign, self.config.wrong_sign, **effect)
        u = randomness.uniform(s["key"], s["count"], "debris", 4 * DEBRIS).reshape(-1, DEBRIS, 4)
        far, angle = radius[:, None] * np.sqrt(u[..., 0]), 2 * np.pi * u[..., 1]
        far[:, 0] = 0.0  # a hillock where the tip was
        fallen = np.stack([far * np.cos(angle), far * np.sin(angle), 0.1e-9 + 0.9e-9 * u[..., 2] ** 2, 0.2e-9 + 0.8e-9 * u[..., 3]], -1)
        fallen[..., :2] += position[:, None]
        for lane in np.nonzero(where)[0]:
            first = int(s["treatments"][lane]) * DEBRIS % KEPT_DEBRIS
            s["debris"][lane, first : first + DEBRIS] = fallen[lane]
        s["treatments"] += where

    def _readings(self, where: np.ndarray, seconds: float, damage: int, measurements: int, **values: np.ndarray) -> Readings:
        on = where.astype(float)
        return Readings(values, seconds * on, np.zeros(self.lanes), damage * on, measurements * on)


@lru_cache(maxsize=16)
def outlook(apex: str) -> np.ndarray:
    """Expected cost until the apex is good, (STATES, 1 + treatments), by the statistics of the treatments; for the oracle.

    Columns: nothing, then +V and -V of every pulse, then every dip, in the order of ``apex`` (an ApexConfig as JSON). Each treatment costs
    1 and its spoiled area over AREA_PRICE. Value iteration on transitions between the kinds of apex, counted in a sample.
    """
    c = ApexConfig.model_validate_json(apex)
    options = [(c.pulses, v, sign) for v in c.pulses.strength for sign in (1.0, -1.0)] + [(c.dips, d, 0.0) for d in c.dips.strength]
    samples, rounds = 3000, 4
    keys, on = np.arange(samples, dtype=np.uint64), np.ones(samples, bool)
    seeds = stm_apex.empty(samples)
    stm_apex.draw(seeds, on, randomness.uniform(keys, 0, "outlook", stm_apex.DRAWS), c.double, c.blunt, c.contaminated, c.unstable)
    counts = np.full((len(options), stm_apex.STATES, stm_apex.STATES), 1e-9)
    counts += 1e-3 * np.bincount(stm_apex.judged(seeds)["state"], minlength=stm_apex.STATES) / samples
    mean = {name: float(np.mean(c.efficacy.sample(keys, "efficacy"))) if name in ("clean", "settle", "reform") else 1.0 for name in stm_apex.CHANCES}
    for turn in range(rounds):
        before, latest = stm_apex.judged(seeds)["state"], seeds
        for index, (kind, strength, sign) in enumerate(options):
            after = {name: array.copy() for name, array in seeds.items()}
            chances = {name: np.minimum(1, mean[name] * kind.at(np.full(samples, strength))[name]) for name in stm_apex.CHANCES}
            u = randomness.uniform(keys, turn * len(options) + index + 1, "outlook", stm_apex.DRAWS)
            stm_apex.treat(after, on, u, np.full(samples, sign), c.wrong_sign, **chances)
            np.add.at(counts[index], (before, stm_apex.judged(after)["state"]), 1)
            latest = after if index == turn * 3 % len(options) else latest
        seeds = latest
    moves = counts / counts.sum(2, keepdims=True)
    price = np.array([1 + np.pi * float(kind.at(np.array([v]))["spoil_radius"][0]) ** 2 / AREA_PRICE for kind, v, _ in options])
    value = np.zeros(stm_apex.STATES)
    for _ in range(500):
        cost = price[:, None] + moves @ value
        value = np.where(np.arange(stm_apex.STATES) == 0, 0.0, cost.min(0))
    return np.concatenate([1 + value[:, None], cost.T], axis=1)
