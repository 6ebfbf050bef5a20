"""The operator's screen of a STEM: frames, wavefront, aberrations."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from probegym.envs.frames import ImageSeries
from probegym.envs.pictures import SMALL, TRIO, UNDER, Key, Screen, coloured, told_angle
from probegym.envs.pictures_sketch import BACKGROUND, FAINT, GOOD, WARN, Box

if TYPE_CHECKING:
    from probegym.envs.stem_tuning import StemTuningTask

ROWS = 4  # of aberrations below each other


def tuning(task: StemTuningTask, observation: dict, truth: dict, memory: dict, info: dict) -> np.ndarray:
    """One lane as RGB (height, width, 3) uint8; ``truth`` is empty on an instrument."""
    strehl = f"Strehl ratio {float(truth['strehl']):.2f}" if truth else ""
    screen = Screen("STEM tuning", strehl + ("    declared" if memory["declared"] else ""))
    stacks = [(name, series, observation[name], series.excursions) for name, series in task.series.items()]
    if len(stacks) == 1 and len(stacks[0][2]) == 2:  # a panel for each of two frames
        name, series, frames, excursions = stacks[0]
        stacks = [(name, series, frames[k : k + 1], excursions[k : k + 1]) for k in (0, 1)]
    for (name, series, frames, excursions), box in zip(stacks, TRIO, strict=False):
        at = ", ".join(f"{1e9 * x:+g}" for x in excursions)
        columns = int(np.ceil(np.sqrt(len(frames))))
        there = screen.panel(box, montage(frames, columns), {"haadf": "HAADF", "ronchigram": "Ronchigram"}[name] + (f", C10 {at} nm" if any(excursions) else ", in focus"))
        there = there._replace(height=box.y + box.height - there.y)  # a bar on free ground, where there is some below
        if isinstance(series, ImageSeries):
            screen.scale_bar(there, series.field_of_view * columns)
        elif "camera_angle" in truth:
            screen.scale_bar(there, float(truth["camera_angle"]) * columns, told_angle)
    _wavefront(screen, TRIO[len(stacks)], truth)
    values = truth["aberrations"][: len(task.names)] if truth else memory["setpoint"]
    screen.text("aberrations left" if truth else "setpoints", UNDER.x, UNDER.y - 4, SMALL, FAINT)
    for index, (name, value, scale) in enumerate(zip(task.names, values, task.scales, strict=True)):
        column, row = divmod(index, ROWS)
        _signed(screen, UNDER.x + column * 313, UNDER.y + 12 + row * 18, name, float(value / scale), f"{1e9 * value:+.1f} nm")
    return screen.foot(info, task.measured)


def _wavefront(screen: Screen, box: Box, truth: dict) -> None:
    """Phase inside the aperture, wrapped to one turn."""
    if not truth:
        screen.hidden(box, "wavefront")
        return
    wrapped = np.mod(truth["wavefront"] + np.pi, 2 * np.pi) - np.pi
    screen.panel(box, coloured(wrapped, "cyclic", -np.pi, np.pi), "wavefront (hidden truth)", Key("cyclic", "-pi", "pi"))


def _signed(screen: Screen, x: int, y: int, name: str, share: float, reading: str) -> None:
    """A gauge from -1 to 1 with zero in the middle; values beyond are drawn in the warning colour."""
    middle, half = x + 118, 62
    end = middle + round(half * min(max(share, -1), 1))
    screen.draw.rectangle((min(middle, end), y + 3, max(middle, end), y + 12), fill=GOOD if abs(share) <= 1 else WARN)
    screen.draw.line((middle, y, middle, y + 15), fill=FAINT)
    screen.text(name, x, y)
    screen.text(reading, x + 293, y, anchor="ra")


def montage(frames: np.ndarray, columns: int) -> np.ndarray:
    """Frames (n, h, w) as grey levels in a grid, each at its own contrast."""
    n, h, w = frames.shape
    grid = np.full((-(-n // columns) * h, columns * w, 3), BACKGROUND, np.uint8)
    for index, frame in enumerate(frames):
        row, column = divmod(index, columns)
        grid[row * h : (row + 1) * h, column * w : (column + 1) * w] = coloured(frame)
    return grid
