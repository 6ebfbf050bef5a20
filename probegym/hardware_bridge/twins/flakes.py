"""The twin of a sample of flakes that several instruments can map, one after another; N lanes at once."""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from probegym.hardware_bridge.commands import InspectLevels, Lanes, MeasureLevel, Readings
from probegym.hardware_bridge.twins.lanes import LaneTwin, refuse_outside
from probegym.hardware_bridge.world import Refused
from probegym.physics import flakes, randomness
from probegym.physics.flakes import FLAKES
from probegym.scenarios import parsed
from probegym.scenarios.distributions import Sampled

LIMITS = {
    "count": (1, FLAKES), "radius": (0.5e-6, 20e-6), "gap": (0.0, 20e-6), "share": (0.0, 1.0), "length": (0.1e-6, 1e-3),
    "pace": (0.05, 20.0), "transfer": (0.0, 20.0), "error_psf": (0.0, 5.0), "error_noise": (0.0, 10.0), "error_length": (0.05, 20.0),
    "correlation": (-1.0, 1.0),
}  # fmt: skip
"""What a draw may be; an episode whose draw lies outside is refused."""

LETTERS = 32  # at most in the name of a level
Seconds = Annotated[float, Field(ge=0, le=1e6)]


class Level(BaseModel):
    """One instrument, as its data sheet has it. Signals are in standard deviations of the quantity over flakes."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    name: str = Field(min_length=1, max_length=LETTERS)
    side: float = Field(0.0, ge=0, le=1e-3)  # m of the square that is mapped at once; 0: a spot; the view or more: all of it
    psf: float = Field(0.0, ge=0, le=20e-6)  # m, full width at half maximum
    noise: float = Field(gt=1e-3, le=100)  # of one pixel of the raster
    shot: float = Field(0.0, ge=0, le=1)  # growth of the noise's variance with the signal, per standard deviation
    scatter: float = Field(0.0, ge=0, le=10)  # of a flake from one measurement to the next: another spot of it is seen
    offset: float = Field(0.0, ge=-100, le=100)  # mean of the flakes above the substrate
    points: int = Field(1, ge=1, le=10**7)
    dwell: Seconds = 0.0  # s a point
    overhead: Seconds = 0.0  # s a measurement
    move: Seconds = 0.0  # s of the stage, to another place
    load: Seconds = 0.0  # s to bring the sample in: vent or pump, approach, align, cool
    unload: Seconds = 0.0
    dose: float = Field(0.0, ge=0, le=1e9)  # electrons per square Angstrom and measurement

    @model_validator(mode="after")
    def _one_spot(self) -> Level:
        if self.scatter and self.psf:  # neighbours would leak in with a scatter of their own, which no belief accounts for
            raise ValueError("scatter is of a sharp spot: give the level either a psf or a scatter")
        return self


class Errors(BaseModel):
    """Factors between what the data sheets and the growth recipe say and what is true."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    psf: Sampled = Field(default=1.0, validate_default=True)
    noise: Sampled = Field(default=1.0, validate_default=True)
    length: Sampled = Field(default=1.0, validate_default=True)


class FlakesConfig(BaseModel):
    """The ``world`` table of a scenario; every number a draw may replace is sampled once an episode."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    view: float = Field(40e-6, ge=5e-6, le=1e-3)  # m, side
    rows: int = Field(48, ge=8, le=128)  # pixels of the raster, each way
    count: Sampled = Field(default=20.0, validate_default=True)
    radius: Sampled = Field(default=2.5e-6, validate_default=True)  # m, of each flake anew
    gap: Sampled = Field(default=0.5e-6, validate_default=True)  # m, between the circles around flakes
    share: Sampled = Field(default=0.3, validate_default=True)  # of the variance that follows the growth gradient
    length: Sampled = Field(default=15e-6, validate_default=True)  # m, of the gradient
    correlations: list[Sampled] = Field(min_length=1, max_length=4)  # of each quantity with the one before
    told: bool = False  # whether the correlations are known beforehand
    levels: list[Level] = Field(min_length=2, max_length=5)  # the first maps the whole view and has the sample at the start
    pace: Sampled = Field(default=1.0, validate_default=True)  # factor on the seconds of each level, drawn for each
    transfer: Sampled = Field(default=1.0, validate_default=True)  # factor on loading and unloading
    errors: Errors = Errors()

    @model_validator(mode="after")
    def _consistent(self) -> FlakesConfig:
        names = [level.name for level in self.levels]
        if len(set(names)) != len(names):
            raise ValueError(f"levels need names that differ, got {', '.join(names)}")
        if len(self.correlations) != len(self.levels) - 1:
            raise ValueError(f"{len(self.levels)} levels need {len(self.levels) - 1} correlations, got {len(self.correlations)}")
        if self.levels[0].side < self.view:
            raise ValueError("the first level takes the overview: give it a side of at least the view")
        return self


def map_seconds(levels: list[Level], pace: np.ndarray, transfer: np.ndarray) -> np.ndarray:
    """Seconds (lanes, levels, levels) from where the sample is (row) to a measurement at another level.

    pace: factor (lanes, levels) on the seconds of each; transfer: factor (lanes,) on loading and unloading.
    """
    each = np.array([level.points * level.dwell + level.overhead for level in levels])
    moves, loads, unloads = (np.array([getattr(level, name) for level in levels]) for name in ("move", "load", "unload"))
    change = transfer[:, None, None] * (unloads[:, None] + loads)
    same = np.eye(len(levels), dtype=bool)
    return np.asarray(np.where(same, moves * pace[:, None], change) + (each * pace)[:, None])


class FlakesTwin(LaneTwin):
    """Implements the world protocol; ``config`` is the ``world`` table of a scenario."""

    noun = "these instruments have"

    def __init__(self, config: dict[str, Any], lanes: int) -> None:
        self.config = c = parsed(FlakesConfig, config, "world")
        self.lanes = lanes
        self.pixel = c.view / c.rows
        self.names = [level.name for level in c.levels]
        self.sides = [min(c.rows, max(1, round(level.side / self.pixel))) for level in c.levels]
        n = len(c.levels)
        self.letters = np.array(self.names, f"U{LETTERS}").view(np.uint32).reshape(n, LETTERS)
        self._handlers = {InspectLevels: self._inspect, MeasureLevel: self._measure}
        self.state: Lanes = {
            "key": np.zeros(lanes, np.uint64),
            "count": np.zeros(lanes, np.int64),  # commands so far; with the key it decides all noise
            "instrument": np.zeros(lanes, np.int64),
            "labels": np.zeros((lanes, c.rows, c.rows), np.int16),
            "quantities": np.zeros((lanes, n, FLAKES)),
            "correlations": np.zeros((lanes, n - 1)),
            "field": np.zeros((lanes, 2)),  # share and length of the growth gradient
            "seconds": np.zeros((lanes, n, n)),  # from where the sample is (row) to a measurement at another level
            "errors": np.ones((lanes, 3)),  # factors on psf, noise and length
        }

    # ---- world protocol ----

    def begin(self, keys: np.ndarray, where: np.ndarray) -> None:
        c, on = self.config, np.nonzero(where)[0]
        keys = np.asarray(keys, np.uint64)[on]
        drawn = self._drawn(keys)  # first, because it may refuse
        lanes = len(keys)
        radius = np.stack([c.radius.sample(randomness.subkey(keys, f, "radius"), "radius") for f in range(FLAKES)], 1)
        refuse_outside("radius", radius, LIMITS["radius"])
        labels = flakes.outlines(keys, drawn["count"], radius, drawn["gap"], c.view, c.rows)
        centre, pixels = flakes.centroids(labels, self.pixel)
        length = drawn["length"] * drawn["error_length"]
        present = (pixels > 0)[:, None]
        drawn_quantities = flakes.quantities(keys, flakes.growth(centre, drawn["share"], length), drawn["correlation"])
        seconds = map_seconds(c.levels, drawn["pace"], drawn["transfer"])
        fresh = {
            "key": keys, "count": np.zeros(lanes), "instrument": np.zeros(lanes), "labels": labels, "quantities": drawn_quantities * present,
            "correlations": drawn["correlation"], "field": np.stack([drawn["share"], drawn["length"]], 1), "seconds": seconds,
            "errors": np.stack([drawn["error_psf"], drawn["error_noise"], drawn["error_length"]], 1),
        }  # fmt: skip
        for name, value in fresh.items():
            self.state[name][on] = value

    def _drawn(self, keys: np.ndarray) -> Lanes:
        """Every number of the world that is drawn; raises where one lies outside LIMITS."""
        c = self.config
        drawn = {name: getattr(c, name).sample(keys, name) for name in ("count", "gap", "share", "length", "transfer")}
        drawn |= {f"error_{name}": getattr(c.errors, name).sample(keys, f"error {name}") for name in ("psf", "noise", "length")}
        drawn["correlation"] = np.stack([r.sample(keys, f"correlation {i}") for i, r in enumerate(c.correlations)], 1)
        drawn["pace"] = np.stack([c.pace.sample(keys, f"pace {level.name}") for level in c.levels], 1)
        for name, values in drawn.items():
            refuse_outside(name, values, LIMITS[name])
        return drawn | {"count": np.floor(drawn["count"]).astype(int)}

    def truth(self) -> Lanes:
        return {name: self.state[name].copy() for name in ("quantities", "correlations", "errors")}

    def portrait(self, lane: int) -> Lanes:
        return {"labels": self.state["labels"][lane].copy()}

    # ---- commands ----

    def _inspect(self, command: InspectLevels, where: np.ndarray) -> Readings:
        """What data sheets, price list, growth recipe and the segmented overview say; lanes not asked get zeros.

        ``names`` (lanes, levels, LETTERS) are code points, so that readings stay numbers; zeros fill up.
        """
        s, c = self.state, self.config
        sheet = {name: np.tile([getattr(level, name) for level in c.levels], (self.lanes, 1)) for name in ("psf", "noise", "scatter", "offset", "dose")}
        sheet["side"] = np.tile(np.array(self.sides) * self.pixel, (self.lanes, 1))
        sheet["names"] = np.tile(self.letters, (self.lanes, 1, 1))
        told = s["correlations"] if c.told else np.full_like(s["correlations"], np.nan)
        values = sheet | {"labels": s["labels"], "view": np.full(self.lanes, c.view), "seconds": s["seconds"], "field": s["field"], "correlations": told}
        free = np.zeros(self.lanes)
        masked = {name: np.where(where.reshape(-1, *[1] * (v.ndim - 1)), v, np.zeros((), v.dtype)) for name, v in values.items()}
        return Readings(masked, free, free.copy(), free.copy(), free.copy())

    def _measure(self, command: MeasureLevel, where: np.ndarray) -> Readings:
        s, c = self.state, self.config
        if command.level not in self.names:
            raise Refused(f"there is no level {command.level!r}: use one of {', '.join(self.names)}", "MeasureLevel.level")
        at = np.asarray(command.position, float)
        if at.shape != (self.lanes, 2) or not ((at[where] >= 0) & (at[where] <= c.view)).all():
            raise Refused(f"a position must be two numbers from 0 to {1e6 * c.view:g} um for each lane")
        number, on = self.names.index(command.level), np.nonzero(where)[0]
        level, side = c.levels[number], self.sides[number]
        signal = np.zeros((self.lanes, side, side))
        seconds = np.zeros(self.lanes)
        if len(on):
            keys, count = s["key"][on], s["count"][on]
            values = level.offset + s["quantities"][on, number] + level.scatter * randomness.normal(keys, count, "scatter", FLAKES)
            table = np.concatenate([np.zeros((len(on), 1)), values], 1)
            field = np.take_along_axis(table, s["labels"][on].reshape(len(on), -1).astype(int), 1).reshape(len(on), c.rows, c.rows)
            noise = randomness.normal(keys, count, "noise", side * side).reshape(len(on), side, side)
            top, left = flakes.tile(at[on], side, c.rows, self.pixel)
            for i, lane in enumerate(on):
                width = level.psf * s["errors"][lane, 0] / self.pixel
                y, x = (slice(first, first + side) for first in (top[i], left[i]))
                clean = flakes.seen(field[i], width)[y, x]
                signal[lane] = clean + level.noise * s["errors"][lane, 1] * np.sqrt(np.maximum(1 + level.shot * (clean - level.offset), 0)) * noise[i]
            seconds[on] = s["seconds"][on, s["instrument"][on], number]
            s["instrument"][on] = number
        ones = where.astype(float)
        return Readings({"signal": signal}, seconds, level.dose * ones, np.zeros(self.lanes), ones)
