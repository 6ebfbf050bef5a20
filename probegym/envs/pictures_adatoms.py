"""The operator's screen of an STM that drags adatoms: map with lattice, goals and the tip's way, the current trace, what it cost."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from probegym.envs.pictures import FAINT, GOOD, INK, WARN, Screen, coloured, gauges

if TYPE_CHECKING:
    from probegym.envs.adatom_manipulation import AdatomManipulationTask

SIZE, WIDE, GAP, TOP = 320, 400, 18, 58
GROUND, SITE, ATOM, GOAL, WAY = (24, 28, 34), (58, 66, 76), (232, 196, 104), (92, 200, 140), (120, 190, 240)


def manipulation(task: AdatomManipulationTask, observation: dict, truth: dict, memory: dict, info: dict) -> np.ndarray:
    """One lane as RGB (height, width, 3) uint8; ``truth`` is empty on an instrument."""
    screen = Screen(GAP + SIZE + GAP + WIDE + GAP, TOP + SIZE + 84)
    apart = task.goals.distance(memory["achieved"][None], memory["desired"][None])[0] * task.settings.unit / task.settings.atoms
    told = f"{int(memory['drags'])} drags    {1e12 * apart:.0f} pm from the goal" + (" on average" if task.settings.atoms > 1 else "")
    screen.text(f"Adatom manipulation    {told}", GAP, 12, 17)
    _map(screen, task, observation, truth, memory)
    _trace(screen, task, memory, GAP + SIZE + GAP)
    shown = [(label, share) for label, share in gauges(info) if not label.startswith("dose")]
    for index, (label, share) in enumerate(shown):
        left, y = GAP + index * 180, TOP + SIZE + 44
        label = label.replace("frames", "drags")
        if share is None:
            screen.text(label, left, y - 4, 12)
        else:
            screen.bar(left, y, 150, share, label, GOOD if share < 0.8 else WARN)
    return screen.array()


def _map(screen: Screen, task: AdatomManipulationTask, observation: dict, truth: dict, memory: dict) -> None:
    """The square that may be worked in; x to the right, y downwards as in an image."""
    s, draw = task.settings, screen.draw
    scale = SIZE / (2 * s.limits)
    nm = 2e9 * s.limits

    def at(place: np.ndarray) -> tuple[float, float]:
        return GAP + (place[0] + s.limits) * scale, TOP + (place[1] + s.limits) * scale

    def disc(place: np.ndarray, radius: float, **how) -> None:
        x, y = at(place)
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), **how)

    if s.shown == "image":
        screen.panel(coloured(observation["image"][0], "warm", 60, 255), GAP, TOP, SIZE, f"STM image, {nm:g} nm")
    else:
        screen.text(f"surface, {nm:g} nm" + (": hollow sites (hidden truth)" if truth else ""), GAP, TOP - 16)
        draw.rectangle((GAP, TOP, GAP + SIZE, TOP + SIZE), fill=GROUND)
        for place in _sites(truth, s.limits) if truth else ():
            disc(place, 1.2, fill=SITE)
    drift = memory["position"][-1] - memory["start"][-1] if s.anchor else 0.0
    for place in memory["goal"]:
        disc(place + drift, s.tolerance * scale, outline=GOAL, width=2)
    for number, place in enumerate(memory["position"]):
        anchor = number >= s.atoms
        disc(place, 0.12e-9 * scale, outline=FAINT if anchor else ATOM, width=2) if s.shown == "image" else disc(place, 0.12e-9 * scale, fill=FAINT if anchor else ATOM)
    if memory["drags"]:
        start, end = (at(place) for place in memory["path"])
        draw.line((*start, *end), fill=WAY, width=2)
        draw.ellipse((end[0] - 3, end[1] - 3, end[0] + 3, end[1] + 3), fill=WAY)
        screen.text("tip's way", GAP + SIZE, TOP + SIZE + 4, 11, WAY, "ra")
    screen.text("goal", GAP, TOP + SIZE + 4, 11, GOAL)
    screen.text("adatom", GAP + 40, TOP + SIZE + 4, 11, ATOM)
    screen.scale_bar(GAP, TOP, SIZE, 2 * s.limits, 1e-9, "1 nm")


def _sites(truth: dict, limits: float) -> np.ndarray:
    """Hollow sites (n, 2) m of the hidden lattice inside the limits."""
    from probegym.physics.adatoms import nearest_site

    step = 0.4 * float(truth["spacing"])
    axis = np.arange(-limits, limits, step)
    grid = np.stack(np.meshgrid(axis, axis), -1).reshape(1, -1, 2)
    sites = nearest_site(grid, *(truth[name][None] for name in ("origin", "spacing", "orientation")))[0]
    inside = sites[(np.abs(sites) <= limits).all(1)]
    return inside[np.unique(np.round(inside / (0.1 * step)), axis=0, return_index=True)[1]]


def _trace(screen: Screen, task: AdatomManipulationTask, memory: dict, x: int) -> None:
    """Current of the last drag over the way of the tip, logarithmic."""
    draw = screen.draw
    screen.text("current of the last drag", x, TOP - 16)
    draw.rectangle((x, TOP, x + WIDE, TOP + SIZE), fill=GROUND)
    if not memory["drags"]:
        screen.text("no drag yet", x + WIDE // 2, TOP + SIZE // 2, 13, FAINT, "mm")
        return
    current = np.maximum(memory["current"].astype(float), 1e-12)
    way = float(np.hypot(*(memory["path"][1] - memory["path"][0])))
    decades = np.log10(current)
    low, high = np.floor(decades.min() * 2) / 2, np.ceil(decades.max() * 2) / 2
    places = np.linspace(0, 1, len(current))
    y = TOP + SIZE - 8 - (decades - low) / max(high - low, 0.5) * (SIZE - 24)
    draw.line([(x + 4 + place * (WIDE - 8), height) for place, height in zip(places, y, strict=True)], fill=INK, width=1)
    for level in np.arange(np.ceil(low), high + 0.01):
        height = TOP + SIZE - 8 - (level - low) / max(high - low, 0.5) * (SIZE - 24)
        draw.line((x, height, x + WIDE, height), fill=SITE)
        screen.text(f"{10 ** (level + 9):g} nA", x + WIDE - 4, int(height) - 14, 11, FAINT, "ra")
    screen.text(f"{1e9 * way:.2f} nm", x + WIDE, TOP + SIZE + 4, 11, INK, "ra")
