"""The twin of a lattice of two kinds of atoms (or spins) that is annealed, quenched and imaged; N lanes at once."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator
from scipy import constants
from scipy.special import ndtr

from probegym.hardware_bridge.commands import ClassifyAtoms, Lanes, Readings, SetConditions
from probegym.hardware_bridge.twins.lanes import LaneTwin, refuse_outside
from probegym.hardware_bridge.world import Refused
from probegym.physics import ising, randomness
from probegym.scenarios import parsed
from probegym.scenarios.distributions import Sampled

BOLTZMANN = constants.k / constants.e  # eV/K
HOTTEST, STRONGEST, LONGEST = 2000.0, 0.1, 1e5  # K, eV, s
MOST_SWEEPS = 400  # of one stay at a temperature; longer ones change nothing that could be seen
LIMITS = {
    "coupling": (-0.1, 0.1), "field": (-0.1, 0.1), "diagonal": (-1.0, 1.0), "gradient": (-0.1, 0.1), "magnetisation": (-1.0, 1.0),
    "rate": (1e-6, 1e6), "barrier": (0.0, 5.0), "misjudged": (-2.0, 2.0),
}  # fmt: skip
"""What a draw may be; an episode whose draw lies outside is refused."""

Seconds = Annotated[float, Field(ge=0, le=1e5)]


class Classifier(BaseModel):
    """Tells the two kinds of atoms apart. Signals are Gaussian; the mean ones of the kinds lie 2 separation sqrt(dwell_time / 1 s) widths apart."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    name: str = Field("haadf", min_length=1, max_length=32)
    separation: float = Field(gt=0, le=1e4)  # as its makers tell
    dose_rate: float = Field(0.0, ge=0, le=1e12)  # electrons per square Angstrom and second of dwell time


class IsingConfig(BaseModel):
    """The ``world`` table of a scenario; every number a draw may replace is sampled once an episode."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    rows: int = Field(64, ge=8, le=512, multiple_of=2)  # of a square lattice, and columns
    spacing: float = Field(0.3e-9, ge=1e-11, le=1e-8)  # m
    dynamics: Literal["heat-bath", "metropolis", "kawasaki"] = "heat-bath"
    coupling: Sampled  # eV, J; negative: unlike neighbours attract
    field: Sampled  # eV, h, without an applied field
    diagonal: Sampled = Field(default=0.0, validate_default=True)  # coupling of diagonal neighbours, as share of J
    gradient: Sampled = Field(default=0.0, validate_default=True)  # eV, of h from the first row to the last
    magnetisation: Sampled = Field(default=0.0, validate_default=True)  # mean spin of the sample as it was prepared, without order
    rate: Sampled  # updates a site and second at ``reference``
    barrier: Sampled  # eV, Arrhenius
    reference: float = Field(600.0, ge=10, le=2000)  # K
    temperatures: tuple[float, float] = (80.0, 1200.0)  # K, coldest and hottest of the holder
    heating: float = Field(10.0, gt=0, le=1e6)  # K/s, up
    cooling: float = Field(100.0, gt=0, le=1e6)  # K/s, down: a quench, within which nothing moves
    settle: Seconds = 30.0  # after each change of temperature, until image drift has died away
    overhead: Seconds = 10.0  # of an image
    classifier: Classifier
    misjudged: Sampled = Field(default=0.0, validate_default=True)  # logarithm of true over told separation

    @model_validator(mode="after")
    def _consistent(self) -> IsingConfig:
        low, high = self.temperatures
        if not 0 < low < high <= HOTTEST:
            raise ValueError(f"temperatures must rise, from above 0 to at most {HOTTEST:g} K, got {low:g} and {high:g}")
        return self


class IsingTwin(LaneTwin):
    """Implements the world protocol; ``config`` is the ``world`` table of a scenario."""

    noun = "this hot stage has"

    def __init__(self, config: dict[str, Any], lanes: int) -> None:
        self.config = c = parsed(IsingConfig, config, "world")
        self.lanes = lanes
        self._handlers = {SetConditions: self._set, ClassifyAtoms: self._classify}
        own: Lanes = {
            "key": np.zeros(lanes, np.uint64),
            "count": np.zeros(lanes, np.int64),  # commands so far; with the key it decides all noise
            "spins": np.ones((lanes, c.rows, c.rows), np.int8),
            "temperature": np.full(lanes, c.temperatures[0]),
            "applied": np.zeros(lanes),
        }
        self.state: Lanes = own | {name: np.zeros(lanes) for name in LIMITS}

    # ---- world protocol ----

    def begin(self, keys: np.ndarray, where: np.ndarray) -> None:
        c, s, on = self.config, self.state, np.nonzero(where)[0]
        keys = np.asarray(keys, np.uint64)[on]
        drawn = {name: getattr(c, name).sample(keys, name) for name in LIMITS}
        for name, values in drawn.items():
            refuse_outside(name, values, LIMITS[name])
        for name, values in drawn.items():
            s[name][on] = values
        s["key"][on], s["count"][on] = keys, 0
        s["temperature"][on], s["applied"][on] = c.temperatures[0], 0
        s["spins"][on] = ising.random_spins(keys, c.rows, c.rows, drawn["magnetisation"])

    def truth(self) -> Lanes:
        return {name: self.state[name].copy() for name in LIMITS}

    def portrait(self, lane: int) -> Lanes:
        return {"spins": self.state["spins"][lane].copy()}

    # ---- commands ----

    def _set(self, command: SetConditions, where: np.ndarray) -> Readings:
        c, s = self.config, self.state
        told = {name: np.broadcast_to(np.asarray(getattr(command, name), float), self.lanes) for name in ("temperature", "field", "hold")}
        low, high = c.temperatures
        if not ((told["temperature"][where] >= low) & (told["temperature"][where] <= high)).all():
            raise Refused(f"the holder goes from {low:g} to {high:g} K: give a temperature in between")
        if not (np.abs(told["field"][where]) <= STRONGEST).all():
            raise Refused(f"the field is an energy of at most {STRONGEST:g} eV, of either sign")
        if not ((told["hold"][where] >= 0) & (told["hold"][where] <= LONGEST)).all():
            raise Refused(f"a temperature can be held for 0 to {LONGEST:g} s")
        change = told["temperature"] - s["temperature"]
        seconds = np.where(change > 0, change / c.heating, -change / c.cooling) + c.settle * (change != 0) + told["hold"]
        s["temperature"], s["applied"] = (np.where(where, told[name], s[own]) for name, own in (("temperature", "temperature"), ("field", "applied")))
        self._evolve(told["hold"], where)
        return self._readings({}, where, seconds)

    def _evolve(self, seconds: np.ndarray, where: np.ndarray) -> None:
        """Let the lattices live for so long at the temperature they have."""
        c, s = self.config, self.state
        with np.errstate(over="ignore"):
            rate = s["rate"] * np.exp(s["barrier"] / BOLTZMANN * (1 / c.reference - 1 / s["temperature"]))
        sweeps = np.minimum(rate * seconds + randomness.uniform(s["key"], s["count"], "sweep", 1)[:, 0], MOST_SWEEPS).astype(np.int64)
        on = np.nonzero(where & (sweeps > 0))[0]
        if not len(on):
            return
        beta = 1 / (BOLTZMANN * s["temperature"][on])
        slope = s["gradient"][on][:, None] * (np.arange(c.rows) / (c.rows - 1) - 0.5)
        field = beta[:, None] * (s["field"][on] + s["applied"][on])[:, None] + beta[:, None] * slope
        spins = s["spins"][on]
        coupling = s["coupling"][on] * beta
        for having in (s["diagonal"][on] == 0, s["diagonal"][on] != 0):  # apart, so that a lane's company does not choose its kernel
            if having.any():
                part = np.ascontiguousarray(spins[having])
                keys = randomness.subkey(s["key"][on], s["count"][on], "evolve")[having]
                ising.evolve(part, sweeps[on][having], keys, coupling[having], field[having], (coupling * s["diagonal"][on])[having], c.dynamics)
                spins[having] = part
        s["spins"][on] = spins

    def _classify(self, command: ClassifyAtoms, where: np.ndarray) -> Readings:
        c, s = self.config, self.state
        if command.detector != c.classifier.name:
            raise Refused(f"there is no detector {command.detector!r}: use {c.classifier.name!r}", "ClassifyAtoms.detector")
        rows, columns = (int(v) for v in command.shape)
        if not (0 < rows <= c.rows and 0 < columns <= c.rows):
            raise Refused(f"a region has 1 to {c.rows} atoms a side, asked were {rows} x {columns}", "ClassifyAtoms.shape")
        dwell = np.broadcast_to(np.asarray(command.dwell_time, float), self.lanes)
        if not ((dwell[where] > 0) & (dwell[where] <= LONGEST)).all():
            raise Refused("dwell_time must be above 0 s an atom")
        at = np.asarray(command.centre, float)
        if at.shape != (self.lanes, 2):
            raise Refused("a centre must be two numbers, x and y in m, for each lane")
        left, top = (np.where(where, np.round(at[:, axis] / c.spacing - 0.5 * (size - 1)), 0).astype(int) for axis, size in ((0, columns), (1, rows)))
        if not ((left >= 0) & (left + columns <= c.rows) & (top >= 0) & (top + rows <= c.rows))[where].all():
            raise Refused(f"the region lies outside the lattice of {c.rows} x {c.rows} atoms, {1e9 * c.rows * c.spacing:g} nm wide")
        labels = np.zeros((self.lanes, rows, columns), np.int8)
        on = np.nonzero(where)[0]
        if len(on):
            y, x = top[on][:, None] + np.arange(rows), left[on][:, None] + np.arange(columns)
            spins = s["spins"][on[:, None, None], y[:, :, None], x[:, None, :]]
            error = ndtr(-c.classifier.separation * np.sqrt(dwell[on]) * np.exp(s["misjudged"][on]))
            wrong = randomness.uniform(s["key"][on], s["count"][on], "labels", rows * columns).reshape(spins.shape) < error[:, None, None]
            labels[on] = np.where(wrong, -spins, spins)
        seconds = rows * columns * dwell + c.overhead
        self._evolve(seconds, where)  # whoever images a hot lattice finds it changed afterwards
        return self._readings({"labels": labels}, where, seconds, c.classifier.dose_rate * dwell, 1.0)

    def _readings(self, values: Lanes, where: np.ndarray, seconds: np.ndarray, dose: float | np.ndarray = 0.0, measurements: float = 0.0) -> Readings:
        return Readings(values, seconds * where, dose * where, np.zeros(self.lanes), measurements * where)
