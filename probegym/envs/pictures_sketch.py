"""Marks on a picture, in the units of its field, and the colours of all screens."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from PIL import Image, ImageDraw

Colour = tuple[int, int, int]
Place = np.ndarray | tuple[float, float]
BACKGROUND, GROUND, INK, FAINT = (18, 20, 24), (30, 34, 40), (225, 228, 232), (128, 134, 142)
GOOD, WARN, MARK, LINK = (92, 200, 140), (232, 140, 80), (240, 196, 92), (120, 190, 240)
COLOURS = (BACKGROUND, INK, FAINT, GOOD, WARN, MARK, LINK)  # of what stands on GROUND
FINE = 3  # how much finer than the screen marks are drawn


class Box(NamedTuple):
    """A rectangle in pixels from the top left."""

    x: int
    y: int
    width: int
    height: int


class Sketch:
    """Marks in the units of a field, clipped to a box and smooth at their edges.

    limits: (left, top, right, bottom) of the box in those units. under: a picture (h, w, 3) uint8 that fills the box, or None. ``pixel`` is the width
    of one pixel of the screen in those units.
    """

    def __init__(self, box: Box, limits: tuple[float, float, float, float], under: np.ndarray | None = None):
        from PIL import Image, ImageDraw

        size = (box.width * FINE, box.height * FINE)
        self.image: Image.Image = Image.new("RGB", size, GROUND) if under is None else Image.fromarray(under).resize(size, resampling(under))
        self.draw: ImageDraw.ImageDraw = ImageDraw.Draw(self.image)
        left, top, right, bottom = limits
        self._origin, self._scale = np.array([left, top]), np.array([size[0] / (right - left), size[1] / (bottom - top)])
        self.pixel = abs(FINE / self._scale[0])

    def _at(self, points: Place | list) -> np.ndarray:
        return np.asarray((np.asarray(points, float) - self._origin) * self._scale)

    def disc(self, place: Place, radius: float, fill: Colour | None = None, outline: Colour | None = None, width: int = 2) -> None:
        """A disc or ring around a place; radius in the units of the field."""
        (x, y), r = self._at(place), radius * abs(self._scale[0])
        self.draw.ellipse((x - r, y - r, x + r, y + r), fill=fill, outline=outline, width=width * FINE)

    def square(self, place: Place, half: float, outline: Colour, width: int = 1) -> None:
        """A square frame around a place; half its side in the units of the field."""
        (x, y), r = self._at(place), half * abs(self._scale[0])
        self.draw.rectangle((x - r, y - r, x + r, y + r), outline=outline, width=width * FINE)

    def cross(self, place: Place, colour: Colour, half: int = 7) -> None:
        """An upright cross; half its size in pixels."""
        (x, y), r = self._at(place), half * FINE
        self.draw.line((x - r, y, x + r, y), fill=colour, width=2 * FINE)
        self.draw.line((x, y - r, x, y + r), fill=colour, width=2 * FINE)

    def line(self, points: np.ndarray | list, colour: Colour, width: int = 1) -> None:
        """A line through points (n, 2)."""
        self.draw.line([tuple(p) for p in self._at(points)], fill=colour, width=width * FINE, joint="curve")

    def polygon(self, points: np.ndarray | list, fill: Colour) -> None:
        """A filled polygon through points (n, 2)."""
        self.draw.polygon([tuple(p) for p in self._at(points)], fill=fill)

    def curve(self, values: np.ndarray, colour: Colour, width: int = 1, across: np.ndarray | None = None) -> None:
        """Values as a line; ``across`` are their places, by default evenly from 0 to 1."""
        self.line(np.stack([np.linspace(0, 1, len(values)) if across is None else across, values], 1), colour, width)


def resampling(rgb: np.ndarray):
    """Pixels stay pixels where there are few."""
    from PIL import Image

    return Image.Resampling.BICUBIC if rgb.shape[0] > 40 else Image.Resampling.NEAREST
