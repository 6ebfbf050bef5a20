"""The ``task`` table of an AfmTuning scenario: ranges of what the agent sets, and when a frame ends."""

from __future__ import annotations

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, model_validator

NAMES = ("proportional", "integral", "setpoint", "drive", "line_rate", "feed_forward")
LIMITS = {"proportional": (1e-9, 1e6), "integral": (1e-6, 1e9), "setpoint": (1e-3, 0.999), "drive": (1e-10, 1e-6), "line_rate": (0.01, 1e3), "feed_forward": (0, 1)}
LOGARITHMIC = np.array([True, True, False, True, True, False])


class Settings(BaseModel):
    """The ``task`` table of a scenario: ranges (low, high, at the start) of what the agent sets."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    pixels: int = Field(default=128, ge=16, le=1024)
    lines: int = Field(default=32, ge=2, le=255)
    proportional: tuple[PositiveFloat, PositiveFloat, PositiveFloat] = (1e-3, 1.0, 1e-2)  # m/m
    integral: tuple[PositiveFloat, PositiveFloat, PositiveFloat] = (20.0, 2e4, 200.0)  # 1/s
    setpoint: tuple[PositiveFloat, PositiveFloat, PositiveFloat] = (0.4, 0.95, 0.8)  # of the drive
    drive: tuple[PositiveFloat, PositiveFloat, PositiveFloat] = (10e-9, 60e-9, 25e-9)  # m
    line_rate: tuple[PositiveFloat, PositiveFloat, PositiveFloat] = (2.0, 32.0, 8.0)  # Hz
    feed_forward: tuple[float, float, float] = (0.0, 1.0, 0.0)
    largest_step: PositiveFloat = 0.25  # change a line, as a share of the range (logarithmic for gains, drive and rate)
    tolerance: PositiveFloat = 0.2  # of the rms corrugation: most height error of a successful frame
    settling_lines: int = Field(default=8, ge=0)  # first lines that the frame's error leaves out
    crash_ends: bool = True

    @model_validator(mode="after")
    def _ranges(self) -> Settings:
        for name in NAMES:
            low, high, start = getattr(self, name)
            least, most = LIMITS[name]
            if low < least or high > most:
                raise ValueError(f"{name} must lie between {least:g} and {most:g}, got {(low, high, start)}")
            if not low <= start <= high:
                raise ValueError(f"{name} must be (low, high, start) with low <= start <= high, got {(low, high, start)}")
        if self.settling_lines >= self.lines:
            raise ValueError("settling_lines must be fewer than lines")
        return self
