"""Drawing for ``rgb_array``: one operator's screen for every environment (Pillow).

A title line on top, panels below it, gauges of what the episode has cost at the bottom. Panels stand in one of two ways: ``MAIN`` with ``SIDE``
beside it (or ``PAIR`` over ``BELOW``), or ``TRIO`` over ``UNDER``. Where colour means a number, a key in the panel's title line says which.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from probegym.envs.pictures_sketch import BACKGROUND, FAINT, GOOD, GROUND, INK, WARN, Box, Colour, Sketch, resampling

if TYPE_CHECKING:
    from PIL import Image, ImageDraw

# Points of published, perceptually uniform maps at equal distances, within 3 of 255 of them: magma (Smith & van der Walt 2015, matplotlib, CC0) for
# quantities; lajolla (Crameri 2018, 10.5281/zenodo.1243862, MIT) for heights; twilight (Bechtold 2018, matplotlib, CC0), cyclic, for phases.
_POINTS = {
    "grey": "000000ffffff",
    "warm": "0000040403130b0924150e3720114b2d11603b0f7049107957157e641a80721f817f24828c29819a2e7fa8327db63779c43c75d1426fde4968e85362f1605df6"
            "6f5cfa7f5efc8f64fe9f6dfeaf78febf84fece91fddea0fcedaffcfdbf",
    "height": "191900201c04281f0930220e3a2513452818512d1e5f31256e362d7e3c358f403da14543b34947c34e4ad0554cd95f4ede6b4fe17550e38050e58a51e79452e9"
              "9e53eba853eeb255f0bd57f3c95ef6d66df9e283fced9cfef7b4fffecb",
    "cyclic": "e2d9e2d5d6dcbfccd3a6bfca8eb1c57ba1c26d90c0647ebc606cb85f58b05e43a55b2f94531e7c47145f3911463014373b113b4e144364194b7a20508e2c509f3c"
              "50ac4d51b76055c0755ec6896dcb9f83d0b39ed8c5bbded3d4e2d9e2",
}  # fmt: skip

WIDTH, HEIGHT, EDGE = 960, 540, 20
MAIN, SIDE, BELOW = Box(20, 68, 380, 380), Box(424, 68, 516, 380), Box(424, 344, 516, 104)
PAIR = (Box(424, 68, 248, 248), Box(692, 68, 248, 248))
TRIO, UNDER = tuple(Box(20 + 313 * k, 68, 293, 293) for k in range(3)), Box(20, 372, 920, 76)
TITLE, TEXT, SMALL = 22, 14, 12
PAD = 5  # of a plate around what stands on it
UNITS = {"time": "s", "dose": "e/Å²", "damage": "damage"}  # of costs, as they are told to people
FOR_READER = " (drawn for the reader)"  # an image that no command of the episode asked for
FOOT, SLOTS = 474, 5  # top of the gauges, how many there is room for at least


@cache
def _lookup(name: str) -> np.ndarray:
    points = np.array(list(bytes.fromhex(_POINTS[name])), float).reshape(-1, 3)
    place = np.linspace(0, 1, len(points))
    return np.stack([np.interp(np.linspace(0, 1, 256), place, points[:, c]) for c in range(3)], 1).round().astype(np.uint8)


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


class Key(NamedTuple):
    """What the colours of a panel mean: from dark to bright (or once around)."""

    map_name: str
    low: str
    high: str


class Gauge(NamedTuple):
    """A number with its share of something, None where it has no limit; ``good`` decides the colour."""

    label: str
    share: float | None = None
    good: bool = True


class Screen:
    """A canvas with the marks the environments need; coordinates in pixels from the top left. told: what the title line says of this moment."""

    def __init__(self, title: str = "", told: str = "", width: int = WIDTH, height: int = HEIGHT):
        from PIL import Image, ImageDraw

        self.image: Image.Image = Image.new("RGB", (width, height), BACKGROUND)
        self.draw: ImageDraw.ImageDraw = ImageDraw.Draw(self.image)
        self.text(title, EDGE, 12, TITLE)
        self.text(told, width - EDGE, 18, TEXT, FAINT, "ra")

    def text(self, text: str, x: float, y: float, size: int = TEXT, colour: Colour = INK, anchor: str = "la") -> None:
        """One line of text. The font lacks Å, µ, ² and ³: they are put together."""
        pieces = _pieces(text)
        if anchor[0] != "l":
            x -= told_width(text, size) * {"m": 0.5, "r": 1.0}[anchor[0]]
        for piece in pieces:
            if piece in "²³":
                self._word({"²": "2", "³": "3"}[piece], x, y - 0.08 * size, _raised(size), colour, anchor)
            else:
                self._word(piece.replace("Å", "A").replace("µ", "u"), x, y, size, colour, anchor)
            if piece == "Å":
                self._word("°", x + 0.18 * size, y - 0.24 * size, round(0.9 * size), colour, anchor)
            if piece == "µ":
                self.draw.line((x + 0.09 * size, y + 0.6 * size, x + 0.09 * size, y + 1.15 * size), fill=colour, width=max(size // 12, 1))
            x += _width(piece, size)

    def _word(self, text: str, x: float, y: float, size: int, colour: Colour, anchor: str) -> None:
        self.draw.text((round(x), round(y)), text, font=font(size), fill=colour, anchor=f"l{anchor[1]}")

    def plate(self, x: float, y: float, width: float, height: float) -> None:
        """Dark ground for what must be read over a picture."""
        self.draw.rectangle((round(x) - PAD, round(y) - PAD, round(x + width) + PAD, round(y + height) + PAD), fill=BACKGROUND)

    def panel(self, box: Box, shown: np.ndarray | Sketch, title: str = "", key: Key | None = None) -> Box:
        """A picture (h, w, 3) uint8 or a sketch, as large as the box allows, title and key above; returns where the picture lies."""
        from PIL import Image

        image = shown.image if isinstance(shown, Sketch) else Image.fromarray(shown)
        scale = min(box.width / image.width, box.height / image.height)
        width, height = round(image.width * scale), round(image.height * scale)
        there = Box(box.x + (box.width - width) // 2, box.y + (box.height - height) // 2, width, height)
        if there != box:
            self.draw.rectangle((box.x, box.y, box.x + box.width - 1, box.y + box.height - 1), fill=GROUND)
        how = Image.Resampling.BOX if isinstance(shown, Sketch) else resampling(shown)
        self.image.paste(image.resize((width, height), how), (there.x, there.y))
        self._heading(box, title, key)
        return there

    def hidden(self, box: Box, title: str, why: str = "hidden on an instrument") -> None:
        """A panel for what is not known, or not yet."""
        self.draw.rectangle((box.x, box.y, box.x + box.width - 1, box.y + box.height - 1), fill=GROUND)
        self.text(why, box.x + box.width // 2, box.y + box.height // 2, TEXT, FAINT, "mm")
        self._heading(box, title, None)

    def _heading(self, box: Box, title: str, key: Key | None) -> None:
        self.text(title, box.x, box.y - 20)
        if key is not None:
            self.key(box.x + box.width, box.y, key)

    def key(self, right: float, y: float, key: Key) -> None:
        """The colours between two readings, in the line above y, flush right."""
        from PIL import Image

        length = 44
        self.text(key.high, right, y - 19, SMALL, FAINT, "ra")
        left = round(right - _width(key.high, SMALL) - 5 - length)
        gradient = np.repeat(_lookup(key.map_name)[None, np.linspace(0, 255, length).astype(int)], 8, axis=0)
        self.image.paste(Image.fromarray(gradient), (left, round(y - 15)))
        self.text(key.low, left - 5, y - 19, SMALL, FAINT, "ra")

    def scale_bar(self, box: Box, field_of_view: float, told: Callable[[float], str] | None = None) -> None:
        """A bar of a round length, about a quarter of the picture, in its lower left corner; field_of_view is as wide as the box: m, or what ``told`` says."""
        length = round_length(0.3 * field_of_view)
        label, x, y, width = (told or told_length)(length), box.x + 10, box.y + box.height - 16, round(box.width * length / field_of_view)
        self.plate(x, y - 18, max(width, told_width(label, TEXT)), 22)
        self.draw.rectangle((x, y, x + width, y + 4), fill=(255, 255, 255))
        self.text(label, x, y - 19, TEXT, (255, 255, 255))

    def bar(self, x: int, y: int, width: int, gauge: Gauge) -> None:
        """A label, and a bar from 0 to 1 below it where there is a share."""
        self.text(gauge.label, x, y)
        if gauge.share is not None:
            self.draw.rectangle((x, y + 22, x + width, y + 32), outline=FAINT)
            self.draw.rectangle((x, y + 22, x + round(width * min(max(gauge.share, 0), 1)), y + 32), fill=GOOD if gauge.good else WARN)

    def foot(self, info: dict[str, np.ndarray], measured: str, *own: Gauge) -> np.ndarray:
        """The gauges at the bottom: the environment's own, then what the episode has cost; returns the finished picture (height, width, 3) uint8."""
        gauges = [*own, *costs(info, measured)]
        step = (WIDTH - 2 * EDGE + 24) // max(SLOTS, len(gauges))
        for index, gauge in enumerate(gauges):
            self.bar(EDGE + index * step, FOOT, step - 24, gauge)
        return self.array()

    def array(self) -> np.ndarray:
        """(height, width, 3) uint8."""
        return np.array(self.image)


def _raised(size: int) -> int:
    return round(0.68 * size)


def _width(piece: str, size: int) -> float:
    return float(font(_raised(size) if piece in "²³" else size).getlength({"Å": "A", "µ": "u", "²": "2", "³": "3"}.get(piece, piece)))


def _pieces(text: str) -> list[str]:
    """Text in parts, the letters that the font lacks alone."""
    return [piece for piece in re.split("([Åµ²³])", text) if piece]


def told_width(text: str, size: int) -> float:
    """Width of a line of text, pixels."""
    return sum(_width(piece, size) for piece in _pieces(text))


def round_length(most: float) -> float:
    """The largest of 1, 2, 5 times a power of ten that is not above ``most``, in its unit."""
    decade = 10.0 ** math.floor(math.log10(most))
    return next(factor * decade for factor in (5, 2, 1) if factor * decade <= most * (1 + 1e-9))


def told_length(length: float) -> str:
    """A length in m in its usual unit."""
    unit, scale = ("µm", 1e-6) if length >= 0.999e-6 else ("nm", 1e-9) if length >= 0.999e-10 else ("pm", 1e-12)
    return f"{length / scale:.3g} {unit}"


def told_angle(angle: float) -> str:
    """An angle in rad in its usual unit."""
    return f"{1e3 * angle:.3g} mrad"


def costs(info: dict[str, np.ndarray], measured: str) -> list[Gauge]:
    """What the episode has cost, with its share of the limit; a dose or damage only where there is some, or a limit."""
    out = []
    for name in ("measurements", "time", "dose", "damage"):
        value, limit = float(info[name]), float(info[f"{name}_limit"]) if f"{name}_limit" in info else None
        if limit is None and not value and name in ("dose", "damage"):
            continue
        label = _told_cost(name, value, limit, measured)
        out.append(Gauge(label, None if limit is None else value / limit, limit is None or value < 0.8 * limit))
    return out


def _told_cost(name: str, value: float, limit: float | None, measured: str) -> str:
    form, unit = {"measurements": ".0f", "time": ".1f"}.get(name, ".3g"), UNITS.get(name, measured)
    scale = 1.0
    if name == "time" and (limit or value) > 120:
        scale, unit = (60.0, "min") if (limit or value) <= 7200 else (3600.0, "h")
    told = re.sub(r"e\+0*", "e", f"{value / scale:{form}}" + ("" if limit is None else f" of {limit / scale:.4g}"))
    return f"{unit} {told}" if name == "damage" else f"{told} {unit}"
