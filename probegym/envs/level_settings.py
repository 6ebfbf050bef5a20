"""The ``task`` table of a LevelSelection scenario: what the agent chooses, what it wants to know, and what it thinks possible."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Correlation = Annotated[float, Field(ge=-1, le=1)]
Weight = Annotated[float, Field(ge=0, le=1e3)]


class Settings(BaseModel):
    """The ``task`` table of a scenario."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    choose: Literal["level", "level-and-place", "level-and-map"] = "level"
    levels: tuple[str, ...] = Field(min_length=2, max_length=5)  # names, in the order in which the world tells of them
    hypotheses: tuple[tuple[Correlation, ...], ...] | None = None  # possible correlations of each level with the one before; None: told
    target: tuple[Weight, ...]  # what the uncertainty of each level's quantity counts
    rows: int = Field(48, ge=8, le=128)  # pixels of the maps, each way, as the world gives them
    tile_flakes: int = Field(6, ge=1, le=24)  # of a map that is smaller than the view only so many are used, those with most pixels
    goal: float = Field(0.3, gt=0, le=1)  # share of the uncertainty that may be left in a successful episode
    price: float = Field(0.01, ge=0, le=1)  # of an hour

    @model_validator(mode="after")
    def _matching(self) -> Settings:
        if len(self.target) != len(self.levels) or not sum(self.target):
            raise ValueError(f"target needs {len(self.levels)} weights, one a level, not all zero")
        if self.hypotheses is not None and len(self.hypotheses) != len(self.levels) - 1:
            raise ValueError(f"hypotheses needs {len(self.levels) - 1} lists of correlations, or none where the world tells them")
        for values in self.hypotheses or ():
            if not values or any(b <= a for a, b in pairwise(values)):
                raise ValueError("hypotheses needs ascending correlations")
        return self
