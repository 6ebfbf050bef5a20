"""The ``task`` table of an AdatomManipulation scenario: what is shown, what a drag may be, where the goals lie."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

STRETCHES = 64  # of a trace, whose means are compared
Range = tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]]
Length = Annotated[float, Field(ge=0.05e-9, le=20e-9)]  # m


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Image(_Table):
    """The image that adatoms are found in."""

    pixels: int = Field(64, ge=16, le=256)
    speed: float = Field(50e-9, ge=1e-10, le=1e-5)  # m/s along a line
    bias: float = Field(0.5, ge=1e-3, le=5)  # V
    current: float = Field(50e-12, ge=1e-13, le=10e-9)  # A
    grey_range: float = Field(0.2e-9, ge=1e-12, le=1e-6)  # m from black to white around the median


class Drag(_Table):
    """What a drag may be: the ranges that an action spans."""

    start: Length = 0.4e-9  # m, farthest start from the atom, along x and along y
    end: Length = 2e-9  # m, farthest end
    bias: Range = (5e-3, 15e-3)  # V
    conductance: Range = (3e-6, 6e-6)  # S
    speed: float = Field(5e-9, ge=1e-11, le=1e-6)  # m/s
    samples: int = Field(2048, ge=STRETCHES, le=8192)

    @model_validator(mode="after")
    def _ascending(self) -> Drag:
        for name in ("bias", "conductance"):
            low, high = getattr(self, name)
            if not low <= high:
                raise ValueError(f"{name} needs low <= high, got {low:g} and {high:g}")
        return self


class Look(_Table):
    """When an image is taken after a drag: always, or when the trace says that the atom moved, and now and then by chance.

    jump: so many standard deviations must the means of neighbouring stretches of the trace differ by. chance: of an image all the same.
    """

    always: bool = False
    jump: float = Field(4.0, ge=1, le=100)
    chance: float = Field(0.3, ge=0, le=1)


class Settings(_Table):
    """The ``task`` table of a scenario."""

    atoms: int = Field(1, ge=1, le=6)  # to be moved
    anchor: bool = False  # one atom more, which stays and which the goals are measured from
    lattice: float = Field(0.288e-9, ge=0.2e-9, le=0.4e-9)  # m, unit of the potential; goals have lattice / sqrt 3 of tolerance
    unit: Length = 2e-9  # m, of the positions that are shown
    distance: Range = (0.288e-9, 2e-9)  # m, of a goal from the atom's start
    limits: Length = 3.5e-9  # m, half the side of the square that tip and atoms may be in
    margin: float = Field(1e-9, ge=0, le=10e-9)  # m that goals keep from its edge
    farthest: Length | None = 3e-9  # m that an atom may be from its start; None: anywhere
    spacing: Length = 1.5e-9  # m between neighbouring goals of several atoms
    image: Image = Image()
    drag: Drag = Drag()
    look: Look = Look()
    shown: Literal["goals", "image"] = "goals"
    remembered: int = Field(0, ge=0, le=16)  # drags that an observation holds
    trace: int = Field(0, ge=0, le=256)  # points of each of their traces

    @model_validator(mode="after")
    def _consistent(self) -> Settings:
        low, high = self.distance
        if not low <= high:
            raise ValueError(f"distance needs low <= high, got {low:g} and {high:g}")
        if low <= self.tolerance:
            raise ValueError(f"distance must be above the tolerance of {self.tolerance:.4g} m, else an episode starts at its goal")
        if self.limits <= self.margin:
            raise ValueError("limits must be larger than margin")
        if self.trace and not self.remembered:
            raise ValueError("a trace is shown with the drags that are remembered: give remembered as well")
        if self.trace > self.drag.samples:
            raise ValueError(f"trace asks for {self.trace} points of {self.drag.samples} samples")
        if self.anchor and self.atoms == 1:
            raise ValueError("an anchor goes with two atoms or more")
        if self.shown == "image" and (self.atoms > 1 or not self.remembered):
            raise ValueError("an image is shown of one atom, with at least one drag remembered")
        if self.atoms > 1 and self.pattern_radius > self.limits - self.margin:
            raise ValueError("the pattern does not fit into the limits: lower spacing or margin")
        return self

    @property
    def tolerance(self) -> float:
        """Largest distance of an atom from its goal, m: no goal but the one over a surface atom has no site as near."""
        return self.lattice / 3**0.5

    @property
    def pattern_radius(self) -> float:
        """Of the circle that the goals of several atoms lie on, m."""
        from math import pi, sin

        return 0.5 * self.spacing / sin(pi / self.atoms)

    @property
    def adatoms(self) -> int:
        """How many are looked for."""
        return self.atoms + self.anchor

    @property
    def components(self) -> int:
        """Of an action: six of a drag, before them one that picks the atom where there are several."""
        return 6 + (self.atoms > 1)
