"""The operator's screen of an AFM: the image so far, the last line there and back, error signal and settings."""

from __future__ import annotations

import numpy as np

from probegym.envs.pictures import FAINT, GOOD, INK, WARN, Screen, coloured, gauges
from probegym.hardware_bridge.commands import Lanes

TRACE, RETRACE, TRUE = (254, 190, 90), (120, 180, 240), (110, 116, 124)
UNITS = {"proportional": ("P", 1, ""), "integral": ("I", 1, "/s"), "setpoint": ("setpoint", 100, "%"), "drive": ("drive", 1e9, "nm"),
         "line_rate": ("rate", 1, "Hz"), "feed_forward": ("feed-forward", 100, "%")}  # fmt: skip


def curve(screen: Screen, box: tuple[int, int, int, int], values: np.ndarray, low: float, high: float, colour) -> None:
    """A line through values in the box (x, y, width, height); low and high are its edges."""
    x, y, width, height = box
    share = np.clip((values - low) / ((high - low) or 1), 0, 1)
    points = np.stack([x + np.linspace(0, width, len(values)), y + height * (1 - share)], 1)
    screen.draw.line([tuple(p) for p in points], fill=colour, width=1)


def afm(memory: Lanes, truth: Lanes, rows: list, info: Lanes, lines: int) -> np.ndarray:
    """memory: the task's. truth: the twin's, with the map where there is one. rows: (name, share of range, value)."""
    screen = Screen(900, 400)
    screen.text("AFM tuning" + ("    crashed" if truth and truth["crashed"] else ""), 16, 12, 17)
    screen.text(f"line {int(memory['count'])} of {lines}", 884, 14, 13, FAINT, "ra")
    _image(screen, memory, truth)
    box = (300, 60, 320, 130)
    height = 1e9 * (memory["height"][0] - memory["height"][0].mean(1, keepdims=True))
    true = 1e9 * (truth["profile"] - truth["profile"].mean()) if truth else None
    low, high = (float(f(height if true is None else np.vstack([height, true]))) for f in (np.min, np.max))
    screen.draw.rectangle((box[0], box[1], box[0] + box[2], box[1] + box[3]), outline=FAINT)
    if true is not None:
        curve(screen, box, true, low, high, TRUE)
    curve(screen, box, height[1], low, high, RETRACE)
    curve(screen, box, height[0], low, high, TRACE)
    screen.text(f"height, range {high - low:.1f} nm", box[0], box[1] - 16)
    screen.text("trace", box[0] + 190, box[1] - 16, 12, TRACE)
    screen.text("retrace", box[0] + 230, box[1] - 16, 12, RETRACE)
    if true is not None:
        screen.text("surface", box[0] + 320, box[1] - 16, 12, TRUE, "ra")
    error, box = 1e9 * memory["amplitude_error"][0], (300, 216, 320, 60)
    most = max(float(np.abs(error).max()), 0.1)
    screen.draw.rectangle((box[0], box[1], box[0] + box[2], box[1] + box[3]), outline=FAINT)
    curve(screen, box, error[1], -most, most, RETRACE)
    curve(screen, box, error[0], -most, most, TRACE)
    screen.text(f"amplitude error, \u00b1{most:.1f} nm", box[0], box[1] - 16)
    phase, box = np.degrees(memory["phase"][0]), (300, 302, 320, 40)
    screen.draw.rectangle((box[0], box[1], box[0] + box[2], box[1] + box[3]), outline=FAINT)
    curve(screen, box, phase[0], 0, 180, TRACE)
    curve(screen, box, np.full(2, 90.0), 0, 180, FAINT)
    screen.text("phase, 0 to 180\u00b0", box[0], box[1] - 16)
    for index, (name, share, value) in enumerate(rows):
        label, scale, unit = UNITS[name]
        screen.bar(650, 76 + 44 * index, 220, float(share), f"{label}  {scale * value:.3g} {unit}")
    peak = f"peak force {1e9 * float(truth['peak_force']):.0f} nN    tip radius {1e9 * float(truth['tip_radius']):.1f} nm" if truth else ""
    screen.text(peak, 16, 372, 12, INK)
    for index, (label, share) in enumerate(g for g in gauges(info) if not g[0].startswith("dose")):
        label = label.replace("frames", "lines")
        if share is None:
            screen.text(label, 300 + 190 * index, 372, 12)
        else:
            screen.bar(300 + 190 * index, 376, 160, share, label, GOOD if share < 0.8 else WARN)
    return screen.array()


def _image(screen: Screen, memory: Lanes, truth: Lanes) -> None:
    """The surface under the scan, which only a twin can show."""
    if "map" not in truth:
        screen.panel(np.full((8, 8, 3), 40, np.uint8), 16, 60, 256, "surface")
        screen.text("hidden on an instrument", 144, 188, 13, FAINT, "mm")
        return
    shown = coloured(1e9 * truth["map"], "warm")
    height, width = shown.shape[:2]
    side = np.full((width, width, 3), 24, np.uint8)
    top = (width - height) // 2
    side[top : top + height] = shown
    screen.panel(side, 16, 60, 256, f"surface, {1e9 * np.ptp(truth['map']):.0f} nm high")
    x, y = truth["position"] / truth["extent"][1] * 256
    screen.draw.line((16 + x, 60 + top * 256 / width + y, 16 + x + 256 * 0.8, 60 + top * 256 / width + y), fill=(255, 255, 255))
    screen.scale_bar(16, 60, 256, float(truth["extent"][1]), 200e-9, "200 nm")
