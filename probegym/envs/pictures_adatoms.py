"""The operator's screen of an STM that drags adatoms: map with lattice, goals and the tip's way, and the current of the drag."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from probegym.envs.pictures import FOR_READER, MAIN, SIDE, SMALL, Key, Screen, coloured, told_width
from probegym.envs.pictures_sketch import FAINT, GOOD, INK, LINK, MARK, Sketch
from probegym.hardware_bridge.commands import Lanes

if TYPE_CHECKING:
    from probegym.envs.adatom_manipulation import AdatomManipulationTask

SITE, ATOM, GOAL, WAY = (62, 70, 80), MARK, GOOD, LINK
RADIUS = 0.12e-9  # m, of an adatom as it is drawn
GREY = (60.0, 255.0)  # levels of the image between dark and bright


def manipulation(task: AdatomManipulationTask, observation: Lanes, truth: Lanes, memory: Lanes, info: Lanes) -> np.ndarray:
    """One lane as RGB (height, width, 3) uint8; ``truth`` is empty on an instrument."""
    apart = task.goals.distance(memory["achieved"][None], memory["desired"][None])[0] * task.settings.unit / task.settings.atoms
    screen = Screen("Adatom manipulation", f"{1e12 * apart:.0f} pm from the goal" + (" on average" if task.settings.atoms > 1 else ""))
    _map(screen, task, observation, truth, memory)
    _trace(screen, memory)
    return screen.foot(info, task.measured)


def _map(screen: Screen, task: AdatomManipulationTask, observation: Lanes, truth: Lanes, memory: Lanes) -> None:
    """The square that may be worked in; x to the right, y downwards as in an image."""
    s = task.settings
    limits, image = (-s.limits, -s.limits, s.limits, s.limits), _image(task, observation, truth)
    imaged = image is not None
    sketch = Sketch(MAIN, limits, coloured(image, "height", *GREY) if image is not None else None)
    for place in _sites(truth, s.limits) if truth and s.shown != "image" else ():
        sketch.disc(place, 1.5 * sketch.pixel, SITE)
    drift = memory["position"][-1] - memory["start"][-1] if s.anchor else 0.0
    for place in memory["goal"]:
        sketch.disc(place + drift, s.tolerance, outline=GOAL)
    for number, place in enumerate(memory["position"]):
        colour = FAINT if number >= s.atoms else ATOM
        sketch.disc(place, RADIUS, None if imaged else colour, colour)
    if memory["drags"]:
        sketch.line(memory["path"], WAY, 2)
        sketch.disc(memory["path"][1], 4 * sketch.pixel, WAY)
    title = f"STM topograph{'' if 'image' in observation else FOR_READER}" if imaged else "surface: hollow sites (hidden truth)" if truth else "surface"
    screen.scale_bar(screen.panel(MAIN, sketch, title, Key("height", "0", f"{1e12 * s.image.grey_range * (GREY[1] - GREY[0]) / 255:.0f} pm") if imaged else None), 2 * s.limits)
    right = MAIN.x + MAIN.width
    for name, colour in () if imaged else (("tip", WAY), ("adatom", ATOM), ("goal", GOAL)):
        screen.text(name, right, MAIN.y - 19, SMALL, colour, "ra")
        right -= 12 + 7 * len(name)


def _image(task: AdatomManipulationTask, observation: Lanes, truth: Lanes) -> np.ndarray | None:
    """Grey levels (rows, columns): the image that the agent is shown, else one as it would be taken now, where somebody can tell."""
    if "image" in observation:
        return np.asarray(observation["image"][0])
    return task.notes.grey(truth["glance height"][None])[0] if "glance height" in truth else None


def _sites(truth: Lanes, limits: float) -> np.ndarray:
    """Hollow sites (n, 2) m of the hidden lattice inside the limits."""
    from probegym.physics.adatoms import nearest_site

    step = 0.4 * float(truth["spacing"])
    axis = np.arange(-limits, limits, step)
    grid = np.stack(np.meshgrid(axis, axis), -1).reshape(1, -1, 2)
    sites = nearest_site(grid, *(truth[name][None] for name in ("origin", "spacing", "orientation")))[0]
    inside = sites[(np.abs(sites) <= limits).all(1)]
    return inside[np.unique(np.round(inside / (0.1 * step)), axis=0, return_index=True)[1]]


def _trace(screen: Screen, memory: Lanes) -> None:
    """Current of the last drag over the way of the tip, logarithmic."""
    if not memory["drags"]:
        screen.hidden(SIDE, "current of the last drag", "no drag yet")
        return
    decades = np.log10(np.maximum(memory["current"].astype(float), 1e-12))
    way = 1e9 * float(np.hypot(*(memory["path"][1] - memory["path"][0])))
    low, high = decades.min() - 0.1, decades.max() + 0.1
    low = min(low, high - 0.5)
    sketch = Sketch(SIDE, (0, high, 1, low))
    levels = [level for level in (decade + np.log10(digit) for decade in np.arange(-12, -5) for digit in (1, 2, 5)) if low < level < high - 0.06]
    for level in levels:
        sketch.line([(0, level), (1, level)], SITE)
    sketch.curve(decades, INK)
    screen.panel(SIDE, sketch, f"current of the last drag, over {way:.2f} nm")
    for level in levels:
        label, right, y = _told_current(10.0**level), SIDE.x + SIDE.width - 8, SIDE.y + SIDE.height * (high - level) / (high - low) - 18
        screen.plate(right - told_width(label, SMALL), y, told_width(label, SMALL), SMALL)
        screen.text(label, right, y - 1, SMALL, INK, "ra")


def _told_current(current: float) -> str:
    return f"{1e9 * current:.3g} nA" if current >= 0.9e-9 else f"{1e12 * current:.3g} pA"
