"""The screen of a day in a correlative laboratory: what each instrument has mapped, and what is believed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from probegym.envs.pictures import EDGE, SMALL, WIDTH, Gauge, Key, Screen, coloured
from probegym.envs.pictures_sketch import BACKGROUND, FAINT, GOOD, GROUND, Box, Sketch
from probegym.hardware_bridge.commands import Lanes

if TYPE_CHECKING:
    from probegym.envs.level_selection import LevelSelectionTask

SIZE, GAP, TOP, DOWN = 176, 16, 68, 272  # DOWN: top of the second row
RANGE, DOUBT = 2.5, 1.2  # standard deviations from the middle to dark and bright; the largest uncertainty shown
NOTES = 150  # width of the column of notes
FINEST = 4  # painted pixels a pixel of the maps, each way


def selection(task: LevelSelectionTask, observation: Lanes, truth: Lanes, memory: Lanes, info: Lanes) -> np.ndarray:
    """One lane as RGB (height, width, 3) uint8; ``truth`` has no quantities on an instrument."""
    names, m, view = task.settings.levels, memory, float(memory["view"])
    screen = Screen("Level selection", f"last map: {_spoken(names[int(m['instrument'])])}")
    size = min(SIZE, (WIDTH - 2 * EDGE - NOTES) // (len(names) + 1) - GAP)
    step = size + GAP
    for level, name in enumerate(names):
        box = Box(EDGE + level * step, TOP, size, size)
        sketch = Sketch(box, (0, 0, view, view), _large(_map(m["maps"][level], float(m["sheet"][level, 2]))))
        if level == int(m["instrument"]) and m["steps"].sum():
            sketch.disc(tuple(m["position"][int(m["place"])]), 15 * sketch.pixel, outline=GOOD)
        there = screen.panel(box, sketch, f"{_spoken(name)}, maps: {int(task.knowledge.taken(m)[level])}")
        if level == 0:
            screen.scale_bar(there, view)
        screen.panel(box._replace(y=DOWN), _flakes(m["labels"], np.sqrt(observation["variance"][level]), 0.0, DOUBT, "grey"), f"{_spoken(name)}: doubt")
    x, target = EDGE + len(names) * step, int(np.argmax(task.settings.target))
    wanted = _spoken(names[target])
    screen.panel(Box(x, TOP, size, size), _flakes(m["labels"], observation["mean"][target], -RANGE, RANGE), f"{wanted}: believed")
    if "quantities" in truth:
        screen.panel(Box(x, DOWN, size, size), _flakes(m["labels"], truth["quantities"][target], -RANGE, RANGE), f"{wanted}: hidden truth")
    else:
        screen.hidden(Box(x, DOWN, size, size), f"{wanted}: true")
    _notes(screen, x + step, names, observation, truth)
    left = float(m["uncertainty"])
    limits = {"time_limit": np.array(task.seconds_available)}
    return screen.foot(info | limits, task.measured, Gauge(f"uncertainty left {left:.2f}", left, left <= task.settings.goal))


def _notes(screen: Screen, x: int, names: tuple[str, ...], observation: Lanes, truth: Lanes) -> None:
    """What colours mean, and how closely neighbouring levels are believed to go together."""
    for index, (text, key) in enumerate((("signals, values", Key("warm", f"-{RANGE:g}", f"+{RANGE:g} sd")), ("doubt", Key("grey", "0", f"{DOUBT:g} sd")))):
        screen.text(text, x, TOP - 20 + 44 * index)
        screen.key(WIDTH - EDGE, TOP + 20 + 44 * index, key)
    n = len(names)
    for pair, (name, before) in enumerate(zip(names[1:], names, strict=False)):
        told, spread = (float(observation["correlations"][pair + k * (n - 1)]) for k in (0, 1))
        y = DOWN - 20 + 76 * pair
        screen.text(f"{_spoken(before)}, {_spoken(name)}", x, y)
        screen.text(f"r = {told:+.2f} \u00b1 {spread:.2f}", x, y + 20, SMALL)
        if "correlations" in truth:
            screen.text(f"hidden: {float(truth['correlations'][pair]):+.2f}", x, y + 38, SMALL, FAINT)


def _spoken(name: str) -> str:
    """Acronyms in capitals."""
    return name.upper() if len(name) <= 4 else name


def _large(rgb: np.ndarray) -> np.ndarray:
    return np.repeat(np.repeat(rgb, FINEST, 0), FINEST, 1)


def _flakes(labels: np.ndarray, values: np.ndarray, low: float, high: float, map_name: str = "warm") -> np.ndarray:
    """Flakes painted with one number each, on the substrate."""
    painted = coloured(np.concatenate([[low], values])[labels], map_name, low, high)
    painted[labels == 0] = GROUND
    return _large(painted)


def _map(values: np.ndarray, offset: float) -> np.ndarray:
    """What an instrument has shown, around the mean of the flakes; what it has not seen is dark."""
    return coloured(values - offset, "warm", -RANGE - min(offset, 1.0), RANGE) if np.isfinite(values).any() else np.tile(np.array(BACKGROUND, np.uint8), (*values.shape, 1))
