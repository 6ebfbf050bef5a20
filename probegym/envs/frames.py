"""Series of electron-microscope frames: what a step acquires, and how counts become grey levels."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, PositiveFloat

from probegym.hardware_bridge.commands import AcquireImage, AcquireRonchigram, Command

Excursions = Annotated[tuple[float, ...], Field(min_length=1, max_length=8)]


class ImageSeries(BaseModel):
    """Scanned images of one step, each at a known defocus excursion (m)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    detector: str = "haadf"
    pixels: int = Field(64, ge=16, le=512)
    field_of_view: PositiveFloat = 2.0e-9  # m
    dwell_time: PositiveFloat = 10e-6  # s
    excursions: Excursions = (0.0,)

    @property
    def reading(self) -> str:
        """Name of the frames among the readings."""
        return self.detector

    @property
    def nearest_focus(self) -> int:
        """Index of the frame with the smallest excursion."""
        return min(range(len(self.excursions)), key=lambda index: abs(self.excursions[index]))

    def commands(self, offset: np.ndarray) -> Iterator[Command]:
        """One command a frame; offset: (lanes,) m, added to every excursion."""
        for excursion in self.excursions:
            yield AcquireImage(self.detector, (self.pixels, self.pixels), self.field_of_view, self.dwell_time, offset + excursion)


class RonchigramSeries(BaseModel):
    """Ronchigrams of one step, each at a known defocus excursion (m)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    pixels: int = Field(64, ge=16, le=256)
    exposure_time: PositiveFloat = 0.1  # s
    excursions: Excursions = (0.0,)

    @property
    def reading(self) -> str:
        """Name of the frames among the readings."""
        return "ronchigram"

    def commands(self, offset: np.ndarray) -> Iterator[Command]:
        """One command a frame; offset: (lanes,) m, added to every excursion."""
        for excursion in self.excursions:
            yield AcquireRonchigram((self.pixels, self.pixels), self.exposure_time, offset + excursion, np.zeros((len(offset), 2)))


def grey_levels(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Counts (..., h, w) as uint8 with the brightest pixel at 255 and zero at zero; and log10(1 + brightest), (...)."""
    peak = counts.max((-2, -1))
    scaled = counts * (255 / np.maximum(peak, 1)).astype(np.float32)[..., None, None]
    scaled += np.float32(0.5)
    return scaled.astype(np.uint8), np.log10(1 + peak)
