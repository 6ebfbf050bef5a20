"""The ``task`` table of a SpectrumExploration scenario: image, spectra, what is looked for, the surrogate, the kind of action."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

Count = Annotated[int, Field(ge=1, le=100_000)]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Image(_Table):
    """The structural image; every pixel is a place for a spectrum."""

    detector: str
    rows: int = Field(50, ge=8, le=256)
    columns: int = Field(50, ge=8, le=256)
    field_of_view: float = Field(gt=0, le=1e-3)  # m, width
    dwell_time: float = Field(10e-6, gt=0, le=1)  # s

    @property
    def pixels(self) -> int:
        """How many places there are."""
        return self.rows * self.columns

    @property
    def pixel_size(self) -> float:
        """Width of a pixel in m."""
        return self.field_of_view / self.columns


class Spectrum(_Table):
    """The measurement behind a pixel."""

    detector: str
    channels: int = Field(64, ge=1, le=4096)
    exposure_time: float = Field(gt=0, le=1000)  # s


class Surrogate(_Table):
    """The model that predicts the scalarizer where nothing was measured. steps: of its training after each spectrum."""

    embedding: Literal["none", "coordinates", "dense", "convolution"] = "dense"
    patch: int = Field(9, ge=3, le=31)  # pixels, the side of the image patch around a place
    steps: int = Field(5, ge=0, le=200)

    @field_validator("patch")
    @classmethod
    def _odd(cls, patch: int) -> int:
        if patch % 2 == 0:
            raise ValueError(f"must be odd, so that the place is in the middle: take {patch - 1} or {patch + 1}")
        return patch


class Settings(_Table):
    """How an episode is played. ``action``: pick the place, or steer the acquisition function that picks it.

    scalarizers: names; the first from the start, the next each time ``switch_after`` spectra were taken. first: places
    measured before the agent begins. distinct: smallest distance of two spectra of unit length that are two behaviours.
    goal: share of the places that are good enough. top: share that ``found`` counts.
    """

    action: Literal["locate", "steer"] = "steer"
    image: Image
    spectrum: Spectrum
    scalarizers: tuple[str, ...] = Field(min_length=1)
    switch_after: tuple[Count, ...] = ()
    surrogate: Surrogate = Surrogate()
    first: int = Field(5, ge=1, le=100)
    distinct: float = Field(0.5, gt=0, le=2)
    goal: float = Field(0.002, gt=0, le=1)
    top: float = Field(0.01, gt=0, le=1)
    price: float = Field(0.0, ge=0, le=1)  # reward that a spectrum costs

    @model_validator(mode="after")
    def _consistent(self) -> Settings:
        if len(self.switch_after) != len(self.scalarizers) - 1 or list(self.switch_after) != sorted(set(self.switch_after)):
            raise ValueError("switch_after needs one ascending number for each scalarizer after the first")
        if self.action == "steer" and self.surrogate.embedding == "none":
            raise ValueError("to steer an acquisition function there must be a surrogate: choose an embedding, or action 'locate'")
        return self
