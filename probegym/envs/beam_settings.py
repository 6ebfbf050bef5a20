"""The ``task`` table of a BeamManipulation scenario: atoms and goals, the image of every step, the dwell, what is shown."""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

BOND = 1.42e-10  # m, between carbon neighbours of graphene
LEAST = 1e-6  # of the dwell's range: the shortest dwell, and not none


class Frame(BaseModel):
    """The image that every step takes."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    detector: str = "haadf"
    pixels: int = Field(64, ge=16, le=256)
    field_of_view: float = Field(20e-10, ge=15e-10, le=60e-10)  # m
    duration: float = Field(2.0, ge=0.01, le=100)  # s, shared among the pixels
    follow: float = Field(0.5, gt=0, le=1)  # share of the field that the atoms may use before it moves to their middle


class Dwell(BaseModel):
    """What the last component of an action means: below ``blank`` none, above it from shortest to longest on a logarithmic scale."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    shortest: float = Field(0.1, ge=1e-3, le=100)  # s
    longest: float = Field(10.0, ge=1e-3, le=100)  # s
    blank: float = Field(-0.9, gt=-1, lt=1)

    @model_validator(mode="after")
    def _ordered(self) -> Dwell:
        if self.shortest > self.longest:
            raise ValueError(f"shortest must not be above longest, got {self.shortest:g} and {self.longest:g} s")
        return self

    def seconds(self, component: np.ndarray) -> np.ndarray:
        """Of an action's component (lanes,); 0: no dwell."""
        share = (component.astype(float) - self.blank) / (1 - self.blank)
        return np.where(share > 0, self.shortest * (self.longest / self.shortest) ** np.maximum(share, 0), 0.0)

    def component(self, seconds: np.ndarray) -> np.ndarray:
        """The inverse, for the nearest dwell (lanes,) that there is."""
        span = np.log(self.longest / self.shortest)
        share = np.log(np.clip(seconds, self.shortest, self.longest) / self.shortest) / span if span else np.ones(len(seconds))
        return np.where(seconds > 0, self.blank + (1 - self.blank) * np.maximum(share, LEAST), -1.0)


class Prices(BaseModel):
    """Weights of the reward's terms."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    discount: float = Field(0.9967, gt=0, le=1)  # per second, of the one that the goal is worth
    bond: float = Field(0.02, ge=0, le=1)  # for each bond nearer to the goals
    damage: float = Field(0.2, ge=0, le=10)  # of an event


class Settings(BaseModel):
    """The ``task`` table of a scenario."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    atoms: int = Field(1, ge=1, le=4)
    observe: Literal["state", "image", "both"] = "state"
    axes: Literal["lattice", "image"] = "lattice"  # x towards the neighbour nearest the goal, or along the rows of the image
    frame: Frame = Frame()
    dwell: Dwell = Dwell()
    reach: float = Field(2 * BOND, ge=0.5 * BOND, le=5 * BOND)  # m, of either component of the beam's place
    goal_distance: float = Field(50e-10, ge=2 * BOND, le=100e-10)  # m, farthest
    goal_field: float = Field(1.0, gt=0.2, le=1)  # share of the first field in which goals lie
    tolerance: float = Field(0.71e-10, gt=0, lt=BOND)  # m, |Si - goal| below this is success
    watch: int = Field(1, ge=1, le=20)  # images before the first step; two or more show the drift
    patience: int = Field(10, ge=1, le=1000)  # images in a row without one of the atoms, after which it is given up
    prices: Prices = Prices()

    @model_validator(mode="after")
    def _consistent(self) -> Settings:
        if self.observe != "state" and self.axes == "lattice":
            raise ValueError("who sees the image acts in its axes: set axes to image")
        return self
