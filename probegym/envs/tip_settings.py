"""The ``task`` table of a TipConditioning scenario: the image of every step, the treatments, the surface to work on."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, PositiveFloat, model_validator

from probegym.envs.clean_area import PITCH

Positive = Annotated[tuple[PositiveFloat, ...], Field(min_length=1)]


class Image(BaseModel):
    """The image that every step takes."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    pixels: int = Field(64, ge=16, le=256)
    field_of_view: float = Field(10e-9, gt=0, le=14e-9)  # m; larger ones would reach into forbidden discs
    speed: PositiveFloat = 100e-9  # m/s
    bias: float = -1.0  # V
    current: PositiveFloat = 25e-12  # A


class _Kind(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    radius: Positive  # m, of the forbidden disc
    duration: PositiveFloat = 0.2  # s


class Pulses(_Kind):
    """Bias pulses; every one with either sign."""

    bias: Positive  # V


class Dips(_Kind):
    """Dips into the surface."""

    depth: Positive  # m
    flat: Positive  # m, side of the flat patch that is looked for
    bias: float = 0.02  # V


class Settings(BaseModel):
    """The ``task`` table of a scenario."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    image: Image = Image()
    grey_range: PositiveFloat = 0.6e-9  # m from black to white around the median
    area: float = Field(250e-9, ge=PITCH, le=1e-6)  # m, side of the square that may be worked on
    pulses: Pulses
    dips: Dips
    price: NonNegativeFloat = 0.02  # of an action, and of AREA_UNIT

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
        return names, *(np.array([0.0, *column, 0.0]) for column in columns)
