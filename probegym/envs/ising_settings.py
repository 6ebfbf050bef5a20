"""The ``task`` table of an IsingInference scenario: what can be chosen, what it takes, and what is believed beforehand."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from probegym.scenarios import ScenarioError

Kelvin = Annotated[float, Field(gt=0, le=2000)]
Energy = Annotated[float, Field(ge=-0.1, le=0.1)]  # eV
Seconds = Annotated[float, Field(gt=0, le=1e5)]


TOLERANCE = 0.02  # by which times may differ from what was counted on


class Prior(BaseModel):
    """Gaussian belief before the first image: mean and standard deviation."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    coupling: tuple[Energy, Annotated[float, Field(ge=1e-5, le=0.1)]]  # eV
    field: tuple[Energy, Annotated[float, Field(ge=1e-5, le=0.1)]]  # eV
    misjudged: tuple[Annotated[float, Field(ge=-2, le=2)], Annotated[float, Field(ge=1e-3, le=2)]]  # logarithm of true over told separation

    def mean(self) -> np.ndarray:
        """(3,) of J, h and phi."""
        return np.array([self.coupling[0], self.field[0], self.misjudged[0]])

    def deviation(self) -> np.ndarray:
        """(3,) of J, h and phi."""
        return np.array([self.coupling[1], self.field[1], self.misjudged[1]])


class Settings(BaseModel):
    """The ``task`` table of a scenario."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    rows: int = Field(64, ge=16, le=128, multiple_of=16)  # atoms a side of the lattice that is imaged
    spacing: float = Field(0.3e-9, ge=1e-11, le=1e-8)  # m
    detector: str = "haadf"
    separation: float = Field(gt=0, le=1e4)  # of the two kinds of atoms, as the classifier's makers tell: half, in widths, for 1 s
    temperatures: tuple[Kelvin, ...] = Field(min_length=2, max_length=16)  # K
    fields: tuple[Energy, ...] = Field(min_length=1, max_length=9)  # eV
    holds: tuple[Seconds, ...] = Field(min_length=1, max_length=6)  # s
    dwells: tuple[Seconds, ...] = Field(min_length=1, max_length=5)  # s an atom
    cold: Kelvin = 100.0  # K, where images are taken
    heating: float = Field(10.0, gt=0, le=1e6)  # K/s
    cooling: float = Field(100.0, gt=0, le=1e6)  # K/s
    settle: float = Field(30.0, ge=0, le=1e5)  # s, after each change of temperature
    overhead: float = Field(10.0, ge=0, le=1e5)  # s an image
    prior: Prior
    first: tuple[int, int, int, int] = (4, 2, 1, 1)  # temperature, field, hold and dwell time of the cycle that opens an episode
    goal: float = Field(0.02, gt=0, le=1)  # relative error of J that is good enough
    price: float = Field(0.1, ge=0, le=10)  # of an hour

    @model_validator(mode="after")
    def _matching(self) -> Settings:
        for name in ("temperatures", "fields", "holds", "dwells"):
            if any(b <= a for a, b in pairwise(getattr(self, name))):
                raise ValueError(f"{name} must ascend")
        for place, name in zip(self.first, ("temperatures", "fields", "holds", "dwells"), strict=True):
            if not 0 <= place < len(getattr(self, name)):
                raise ValueError(f"first needs a number from 0 to {len(getattr(self, name)) - 1} for {name}")
        if self.cold >= self.temperatures[0]:
            raise ValueError("cold must lie below all temperatures")
        return self

    def seconds(self) -> tuple[np.ndarray, np.ndarray]:
        """What a cycle takes before its image (temperatures, holds), and what an image takes (dwell times, sizes: whole, quarter), s."""
        change = np.array(self.temperatures) - self.cold
        cycle = (change / self.heating + change / self.cooling + 2 * self.settle)[:, None] + np.array(self.holds)
        atoms = self.rows**2 / np.array([1.0, 4.0])
        return cycle, np.array(self.dwells)[:, None] * atoms + self.overhead

    def compare(self, heating: np.ndarray, cooling: np.ndarray, image: np.ndarray) -> None:
        """Raise ProbeGymError where the first cycle took other times than prices are made of; seconds (lanes,), 0 where none was made."""
        t, _, h, d = self.first
        change, hold = self.temperatures[t] - self.cold, self.holds[h]
        parts = (
            ("heat and hold", ("heating", "settle"), heating, change / self.heating + self.settle + hold),
            ("cool", ("cooling", "settle"), cooling, change / self.cooling + self.settle),
            ("image the lattice", ("overhead",), image, float(self.seconds()[1][d, 0])),
        )
        for what, names, took, expected in parts:
            wrong = took[(took > 0) & (np.abs(took - expected) > TOLERANCE * expected)]
            if len(wrong):
                told = f"the world takes {wrong[0]:.4g} s to {what}, the task counts on {expected:.4g} s: give both the same {' and '.join(names)}"
                raise ScenarioError(tuple(f"{table}.{name}" for name in names for table in ("task", "world")), told)
