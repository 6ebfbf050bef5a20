"""The operator's screen of an STM whose tip is conditioned: image, map of the used surface, verdict, and the hidden apex."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from probegym.envs.pictures import BELOW, MAIN, PAIR, Gauge, Key, Screen, coloured
from probegym.envs.pictures_sketch import BACKGROUND, FAINT, GOOD, INK, LINK, MARK, WARN, Sketch
from probegym.hardware_bridge.commands import Lanes

if TYPE_CHECKING:
    from probegym.envs.tip_conditioning import TipConditioningTask

USED, SHANK = (96, 62, 48), (70, 72, 78)
LEAST_RANGE = 0.1e-9  # m from dark to bright, so that noise stays noise
SIDE_VIEW = 4e-9  # m, width of the side view of the apex


def conditioning(task: TipConditioningTask, observation: Lanes, truth: Lanes, memory: Lanes, info: Lanes) -> np.ndarray:
    """One lane as RGB (height, width, 3) uint8; ``truth`` is empty on an instrument."""
    last = task.names[int(memory["action"])]
    screen = Screen("Tip conditioning", f"last action: {last if memory['actions'] or last == 'declare' else 'approach'}")
    image = task.settings.image
    low, high = np.percentile(memory["height"], [0.5, 99.5])
    high = max(high, low + LEAST_RANGE)
    key = Key("height", "0", f"{1e12 * (high - low):.0f} pm")
    there = screen.panel(MAIN, coloured(memory["height"], "height", low, high), f"STM topograph, {image.bias:g} V, {1e12 * image.current:g} pA", key)
    screen.scale_bar(there, image.field_of_view)
    _map(screen, task, memory)
    _apex(screen, truth)
    verdict, used = float(memory["verdict"]), 1 - float(observation["area"][0])
    nm2 = float(memory["discs"][:, 2] @ memory["discs"][:, 2]) * np.pi * 1e18
    return screen.foot(info, task.measured, Gauge(f"classifier: {verdict:.0%} good", verdict, verdict > 0.5), Gauge(f"{nm2:,.0f} nm² used", used, used < 0.8))


def _map(screen: Screen, task: TipConditioningTask, memory: Lanes) -> None:
    """The square with its forbidden discs, what was imaged, and where the tip is; slow axis downwards as in the image."""
    box, half = PAIR[0], 0.5 * task.settings.area
    sketch = Sketch(box, (-half, -half, half, half))
    for *place, radius in memory["discs"][memory["discs"][:, 2] > 0]:
        sketch.disc(tuple(place), radius, USED, WARN, 1)
    for index in np.nonzero(memory["visits"])[0]:
        here = index == memory["place"]
        sketch.square(task.area.places[index], 0.5 * task.settings.image.field_of_view, INK if here else FAINT, 2 if here else 1)
    screen.scale_bar(screen.panel(box, sketch, "used surface, places imaged"), 2 * half)


def _apex(screen: Screen, truth: Lanes) -> None:
    """Side view of the hidden apex: metal, adsorbate, the atom that hops; and what follows from it."""
    box, view = PAIR[1], SIDE_VIEW
    if not truth:
        screen.hidden(box, "apex")
        return
    apex = truth["apex"]
    foremost, lowest = int(np.argmin(apex[:, 2])), min(float(apex[:, 2].min()), 0.0)
    sketch = Sketch(box, (-view / 2, lowest + 0.82 * view, view / 2, lowest - 0.18 * view))
    shank = float(apex[4:, 2].mean()) + 0.1e-9
    sketch.polygon([(-0.34 * view, lowest + view), (0.34 * view, lowest + view), (0.2 * view, shank), (-0.2 * view, shank)], SHANK)
    present = [n for n in range(len(apex)) if apex[n, 2] < 5e-9]
    for n in sorted(present, key=lambda n: -apex[n, 2]):
        hops = truth["loose"][1] > 0 and int(truth["loose"][0]) == n
        sketch.disc(apex[n, [0, 2]], 0.14e-9, LINK if n == 0 else MARK, WARN if hops else BACKGROUND, 3 if hops else 1)
    x, z = apex[foremost, [0, 2]]
    sketch.line([(x, z - 0.2e-9), (x, z - 0.5e-9)], INK)
    screen.scale_bar(screen.panel(box, sketch, "apex from the side (hidden truth)"), view)
    rows = (f"second image {float(truth['ghost']):.0%} as high    barrier {float(truth['barrier']):.1f} eV    {float(truth['hops']):.2f} hops/s",
            f"quality of the tip {float(truth['quality']):.2f}: {'good' if truth['good'] else 'not good'}")  # fmt: skip
    screen.text(rows[0], BELOW.x, BELOW.y)
    screen.text(rows[1], BELOW.x, BELOW.y + 26, colour=GOOD if truth["good"] else WARN)
