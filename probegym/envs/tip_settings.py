"""The ``task`` table of a TipConditioning scenario: the image of every step, the treatments, the surface to work on."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from probegym.envs.clean_area import PITCH


def _a_bias(value: float) -> float:
    if not 1e-3 <= abs(value) <= 10:
        raise ValueError(f"must be from 1 mV to 10 V, of either sign, got {value:g} V")
    return value


Bias = Annotated[float, AfterValidator(_a_bias)]  # V
Length = Annotated[float, Field(ge=0.1e-9, le=10e-9)]  # m
Radius = Annotated[float, Field(ge=1e-9, le=1e-6)]  # m
Pulse = Annotated[float, Field(ge=0.1, le=10)]  # V


class Image(BaseModel):
    """The image that every step takes."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    pixels: int = Field(64, ge=16, le=256)
    field_of_view: float = Field(10e-9, gt=0, le=14e-9)  # m; larger ones would reach into forbidden discs
    speed: float = Field(100e-9, ge=1e-9, le=1e-5)  # m/s
    bias: Bias = -1.0  # V
    current: float = Field(25e-12, ge=1e-13, le=10e-9)  # A


class _Kind(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    radius: tuple[Radius, ...] = Field(min_length=1)  # m, of the forbidden disc
    duration: float = Field(0.2, ge=1e-6, le=100)  # s


class Pulses(_Kind):
    """Bias pulses; every one with either sign."""

    bias: tuple[Pulse, ...] = Field(min_length=1)  # V


class Dips(_Kind):
    """Dips into the surface."""

    depth: tuple[Length, ...] = Field(min_length=1)  # m
    flat: tuple[Length, ...] = Field(min_length=1)  # m, side of the flat patch that is looked for
    bias: Bias = 0.02  # V


class Settings(BaseModel):
    """The ``task`` table of a scenario."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    image: Image = Image()
    grey_range: float = Field(0.6e-9, ge=1e-12, le=1e-6)  # m from black to white around the median
    area: float = Field(250e-9, ge=PITCH, le=1e-6)  # m, side of the square that may be worked on
    pulses: Pulses
    dips: Dips
    price: float = Field(0.02, ge=0, le=1)  # of an action, and of AREA_UNIT

    @model_validator(mode="after")
    def _matching(self) -> Settings:
        for name, kind, fields in (("pulses", self.pulses, ("bias",)), ("dips", self.dips, ("depth", "flat"))):
            if {len(getattr(kind, field)) for field in fields} != {len(kind.radius)}:
                raise ValueError(f"{name}: {', '.join(fields)} and radius need as many entries each")
        if min(self.pulses.radius + self.dips.radius) < 0.71 * self.image.field_of_view:
            raise ValueError("radius must be at least 0.71 field_of_view, else images would reach into forbidden discs")
        return self

    def actions(self) -> tuple[tuple[str, ...], np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Names of the actions, and of each its bias (V), depth (m), side of the flat patch (m) and radius of its disc (m)."""
        p, d = self.pulses, self.dips
        bias = [sign * v for v in p.bias for sign in (1, -1)]
        names = ("look", *(f"pulse {v:+g} V" for v in bias), *(f"dip {1e9 * v:g} nm" for v in d.depth), "declare")
        still, dips = [0.0] * len(bias), [0.0] * len(d.depth)
        columns = (bias + dips, still + list(d.depth), still + list(d.flat), [*np.repeat(p.radius, 2), *d.radius])
        biases, depths, flats, radii = (np.array([0.0, *column, 0.0]) for column in columns)
        return names, biases, depths, flats, radii
