"""Drawing for ``rgb_array``: panels of images, colour maps, bars and text on a dark operator screen (Pillow)."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL import Image, ImageDraw

BACKGROUND, INK, FAINT, GOOD, WARN = (18, 20, 24), (225, 228, 232), (120, 126, 134), (92, 200, 140), (232, 140, 80)

# Control points of two perceptually ordered maps: a warm one for intensities, a cyclic one for phases.
_WARM = [(0, 0, 4), (58, 15, 110), (140, 41, 129), (222, 73, 104), (254, 159, 109), (252, 253, 191)]
_CYCLIC = [(226, 217, 226), (104, 152, 190), (62, 60, 140), (47, 20, 54), (140, 40, 65), (198, 130, 100), (226, 217, 226)]


@cache
def _lookup(name: str) -> np.ndarray:
    points = np.array({"warm": _WARM, "cyclic": _CYCLIC, "grey": [(0, 0, 0), (255, 255, 255)]}[name], float)
    place = np.linspace(0, 1, len(points))
    return np.stack([np.interp(np.linspace(0, 1, 256), place, points[:, c]) for c in range(3)], 1).astype(np.uint8)


def coloured(values: np.ndarray, map_name: str = "grey", low: float | None = None, high: float | None = None) -> np.ndarray:
    """(h, w) numbers as (h, w, 3) uint8; NaN becomes background. Limits default to the range of the data."""
    values = np.asarray(values, float)
    low = np.nanmin(values) if low is None else low
    high = np.nanmax(values) if high is None else high
    scaled = np.nan_to_num((values - low) / ((high - low) or 1), nan=0.0)
    image = _lookup(map_name)[(np.clip(scaled, 0, 1) * 255).astype(int)]
    image[np.isnan(values)] = BACKGROUND
    return image


@cache
def font(size: int):
    """Pillow's own font, so that no system font is needed."""
    from PIL import ImageFont

    return ImageFont.load_default(size)


class Screen:
    """A canvas with the few marks the environments need; coordinates in pixels from the top left."""

    def __init__(self, width: int, height: int):
        from PIL import Image, ImageDraw

        self.image: Image.Image = Image.new("RGB", (width, height), BACKGROUND)
        self.draw: ImageDraw.ImageDraw = ImageDraw.Draw(self.image)

    def panel(self, rgb: np.ndarray, x: int, y: int, size: int, title: str) -> None:
        """A square picture with its title above."""
        from PIL import Image

        smooth = Image.Resampling.BICUBIC if rgb.shape[0] > 40 else Image.Resampling.NEAREST
        self.image.paste(Image.fromarray(rgb).resize((size, size), smooth), (x, y))
        self.text(title, x, y - 16)

    def text(self, text: str, x: int, y: int, size: int = 12, colour=INK, anchor: str = "la") -> None:
        """One line of text."""
        self.draw.text((x, y), text, font=font(size), fill=colour, anchor=anchor)

    def scale_bar(self, x: int, y: int, size: int, field_of_view: float, length: float, label: str) -> None:
        """A bar in the lower left corner of a panel; field_of_view and length in the same unit."""
        width = round(size * length / field_of_view)
        self.draw.rectangle((x + 8, y + size - 12, x + 8 + width, y + size - 9), fill=(255, 255, 255))
        self.text(label, x + 8, y + size - 28, 11, (255, 255, 255))

    def bar(self, x: int, y: int, width: int, share: float, label: str, colour=GOOD) -> None:
        """A horizontal gauge from 0 to 1."""
        self.draw.rectangle((x, y, x + width, y + 10), outline=FAINT)
        self.draw.rectangle((x, y, x + round(width * min(max(share, 0), 1)), y + 10), fill=colour)
        self.text(label, x, y - 15, 11, INK)

    def signed_bar(self, x: int, y: int, half: int, value: float, label: str, reading: str) -> None:
        """A gauge from -1 to 1 with zero in the middle; values beyond are drawn in the warning colour."""
        middle, colour = x + 42 + half, GOOD if abs(value) <= 1 else WARN
        end = middle + round(half * min(max(value, -1), 1))
        self.draw.rectangle((min(middle, end), y + 2, max(middle, end), y + 11), fill=colour)
        self.draw.line((middle, y, middle, y + 13), fill=FAINT)
        self.text(label, x, y, 11)
        self.text(reading, x + 42 + 2 * half + 64, y, 11, INK, "ra")

    def array(self) -> np.ndarray:
        """(height, width, 3) uint8."""
        return np.array(self.image)


def montage(frames: np.ndarray, map_name: str) -> np.ndarray:
    """Frames (n, h, w) side by side in the squarest grid, each at its own contrast."""
    n, h, w = frames.shape
    columns = int(np.ceil(np.sqrt(n)))
    grid = np.full((-(-n // columns) * h, columns * w, 3), BACKGROUND, np.uint8)
    for index, frame in enumerate(frames):
        row, column = divmod(index, columns)
        grid[row * h : (row + 1) * h, column * w : (column + 1) * w] = coloured(frame, map_name)
    side = max(grid.shape[:2])
    square = np.full((side, side, 3), BACKGROUND, np.uint8)
    top, left = (side - grid.shape[0]) // 2, (side - grid.shape[1]) // 2
    square[top : top + grid.shape[0], left : left + grid.shape[1]] = grid
    return square


def gauges(info: dict[str, np.ndarray]) -> list[tuple[str, float | None]]:
    """(label, share of its limit or None) for every cost of the episode so far."""
    labels = {"measurements": "{:.0f} frames", "time": "{:.1f} s", "dose": "dose {:.3g} e/A^2", "damage": "damage {:.0f}"}
    out: list[tuple[str, float | None]] = []
    for name, label in labels.items():
        limit = info.get(f"{name}_limit")
        text = label.format(float(info[name])) + ("" if limit is None else f" of {float(limit):g}")
        if limit is not None or name != "damage":
            out.append((text, None if limit is None else float(info[name] / limit)))
    return out


def stem(frames: dict[str, np.ndarray], plate: np.ndarray | None, rows: list[tuple[str, float, str]], gauges: list[tuple[str, float | None]],
         title: str, bars: dict[str, tuple[float, float, str]]) -> np.ndarray:  # fmt: skip
    """The operator's screen of a STEM: frames, wavefront, aberrations and what the episode has cost.

    frames: title -> (n, h, w) grey levels. plate: phase in rad, NaN outside the aperture, or None when it is not known.
    rows: (name, value in scales, reading). gauges: (label, share of the budget). bars: title -> (field of view, length
    of the scale bar, its label).
    """
    size, gap, top = 256, 16, 58
    panels = len(frames) + 1
    width = gap + panels * (size + gap) + 270
    screen = Screen(width, top + size + 76)
    screen.text(title, gap, 12, 17)
    for index, (name, stack) in enumerate(frames.items()):
        x = gap + index * (size + gap)
        screen.panel(montage(stack, "grey" if "HAADF" in name else "warm"), x, top, size, name)
        if name in bars:
            columns = int(np.ceil(np.sqrt(len(stack))))
            rows_down = -(-len(stack) // columns)
            lower = top - round(size * (1 - rows_down / columns) / 2)  # the bar belongs to the lowest frame of the grid
            view, length, label = bars[name]
            screen.scale_bar(x, lower, size, view * columns, length, label)
    x = gap + len(frames) * (size + gap)
    if plate is None:
        screen.panel(np.full((8, 8, 3), 40, np.uint8), x, top, size, "wavefront")
        screen.text("hidden on an instrument", x + size // 2, top + size // 2, 13, FAINT, "mm")
    else:
        wrapped = np.mod(plate + np.pi, 2 * np.pi) - np.pi
        screen.panel(coloured(wrapped, "cyclic", -np.pi, np.pi), x, top, size, "wavefront (one turn of colour: 2 pi)")
    x += size + gap
    screen.text("aberrations left" if plate is not None else "set points", x, top - 16)
    for index, (name, value, reading) in enumerate(rows):
        screen.signed_bar(x, top + 6 + index * 20, 56, value, name, reading)
    for index, (label, share) in enumerate(gauges):
        x, y = gap + index * 190, top + size + 44
        if share is None:
            screen.text(label, x, y - 4, 12)
        else:
            screen.bar(x, y, 160, share, label, GOOD if share < 0.8 else WARN)
    return screen.array()
