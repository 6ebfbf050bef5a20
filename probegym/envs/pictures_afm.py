"""The operator's screen of an AFM: the last line there and back, the surface under the scan, and the settings."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from probegym.envs.pictures import SMALL, TRIO, Gauge, Key, Screen, coloured
from probegym.envs.pictures_sketch import FAINT, INK, LINK, MARK, Box, Sketch
from probegym.hardware_bridge.commands import Lanes

if TYPE_CHECKING:
    from probegym.envs.afm_tuning import AfmTuningTask

TRACE, RETRACE, TRUE = MARK, LINK, FAINT
LINE = (Box(20, 68, 606, 170), Box(20, 266, 606, 80), Box(20, 374, 606, 74))  # height, error, phase
UNITS = {"proportional": ("P", 1, ""), "integral": ("I", 1, " /s"), "setpoint": ("setpoint", 100, " %"), "drive": ("drive", 1e9, " nm"),
         "line_rate": ("rate", 1, " Hz"), "feed_forward": ("feed-forward", 100, " %")}  # fmt: skip


def tuning(task: AfmTuningTask, truth: Lanes, memory: Lanes, info: Lanes) -> np.ndarray:
    """One lane as RGB (height, width, 3) uint8; ``truth`` is empty on an instrument."""
    tip = f"tip radius {1e9 * float(truth['tip_radius']):.1f} nm    peak force {1e9 * float(truth['peak_force']):.0f} nN" if truth else ""
    screen = Screen("AFM tuning", tip + ("    crashed" if truth and truth["crashed"] else ""))
    _line(screen, truth, memory)
    _surface(screen, truth)
    right = TRIO[2]
    for index, (name, share, value) in enumerate(zip(UNITS, memory["settings"], task.values(memory["settings"]), strict=True)):
        label, scale, unit = UNITS[name]
        row, column = divmod(index, 2)
        told = f"{scale * value:,.0f}" if scale * value >= 1000 else f"{scale * value:.3g}"
        screen.bar(right.x + 152 * column, 244 + 60 * row, 141, Gauge(f"{label} {told}{unit}", float(share)))
    done, lines = int(memory["count"]), task.settings.lines
    return screen.foot(info, f"{task.measured} allowed", Gauge(f"line {done} of {lines} of the frame", done / lines))


def _line(screen: Screen, truth: Lanes, memory: Lanes) -> None:
    """Height, amplitude error and phase of the last line, trace and retrace."""
    height = 1e9 * (memory["height"][0] - memory["height"][0].mean(1, keepdims=True))
    true = 1e9 * (truth["profile"] - truth["profile"].mean()) if truth else height[0]
    low, high = (float(f(np.vstack([height, true]))) for f in (np.min, np.max))
    room = 0.05 * (high - low) + 1e-3
    sketch = Sketch(LINE[0], (0, high + room, 1, low - room))
    sketch.curve(true, TRUE, 2)
    sketch.curve(height[1], RETRACE)
    sketch.curve(height[0], TRACE)
    screen.panel(LINE[0], sketch, f"height of the last line, {high - low:.1f} nm")
    right = LINE[0].x + LINE[0].width
    for text, colour in (("trace", TRACE), ("retrace", RETRACE), *((("surface (hidden truth)", TRUE),) if truth else ())):
        screen.text(text, right, LINE[0].y - 19, SMALL, colour, "ra")
        right -= 12 + 6 * len(text)
    error, phase = 1e9 * memory["amplitude_error"][0], np.degrees(memory["phase"][0])
    most = max(float(np.abs(error).max()), 0.1)
    for box, lines, limits, title in ((LINE[1], error, (0, most, 1, -most), f"amplitude error, \u00b1{most:.1f} nm"), (LINE[2], phase, (0, 180, 1, 0), "phase, 0 to 180\u00b0")):
        sketch = Sketch(box, limits)
        sketch.line([(0, (limits[1] + limits[3]) / 2), (1, (limits[1] + limits[3]) / 2)], FAINT)
        sketch.curve(lines[1], RETRACE)
        sketch.curve(lines[0], TRACE)
        screen.panel(box, sketch, title)


def _surface(screen: Screen, truth: Lanes) -> None:
    """The surface under the scan, which only a twin can show, and where the line is."""
    box = TRIO[2]
    if "map" not in truth:
        screen.hidden(Box(*box[:3], 130), "surface")
        return
    rows, columns = truth["map"].shape
    extent = float(truth["extent"][1])
    box = Box(box.x, box.y, box.width, round(box.width * rows / columns))
    sketch = Sketch(box, (0, 0, extent, extent * rows / columns), coloured(truth["map"], "height"))
    x, y = truth["position"]
    sketch.line([(x, y), (x + 0.8 * extent, y)], INK)
    screen.scale_bar(screen.panel(box, sketch, "surface (hidden truth)", Key("height", "0", f"{1e9 * np.ptp(truth['map']):.1f} nm")), extent)
