"""The operator's screen of an STM whose tip is conditioned: image, map of the used surface, verdict, and the hidden apex."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from probegym.envs.pictures import BACKGROUND, FAINT, GOOD, INK, WARN, Screen, coloured, gauges

if TYPE_CHECKING:
    from probegym.envs.tip_conditioning import TipConditioningTask

SIZE, GAP, TOP = 256, 18, 58
FRESH, USED = (34, 40, 46), (96, 62, 48)
METAL, ADSORBATE, LOOSE = (214, 178, 92), (104, 176, 220), (232, 140, 80)


def conditioning(task: TipConditioningTask, observation: dict, truth: dict, memory: dict, info: dict) -> np.ndarray:
    """One lane as RGB (height, width, 3) uint8; ``truth`` is empty on an instrument."""
    screen = Screen(GAP + 3 * (SIZE + GAP), TOP + SIZE + 84)
    quality = f"    quality {float(truth['quality']):.2f}" if truth else ""
    last = task.names[int(memory["action"])]
    screen.text(f"Tip conditioning{quality}    last: {last if memory['actions'] or last == 'declare' else 'approach'}", GAP, 12, 17)
    image = task.settings.image
    x = GAP
    nm = 1e9 * image.field_of_view
    low, high = np.percentile(observation["image"], [0.5, 99.5])
    high = max(high, low + 40)  # at least 0.1 nm from dark to bright, so that noise stays noise
    screen.panel(coloured(observation["image"][0], "warm", low, high), x, TOP, SIZE, f"{nm:g} nm, {image.bias:g} V, {1e12 * image.current:g} pA")
    screen.scale_bar(x, TOP, SIZE, image.field_of_view, 2e-9, "2 nm")
    x += SIZE + GAP
    _map(screen, task, memory, x)
    x += SIZE + GAP
    _apex(screen, truth, x)
    y = TOP + SIZE + 44
    verdict = float(memory["verdict"])
    screen.bar(GAP, y, 160, verdict, f"classifier: P(good) {verdict:.2f}", GOOD if verdict > 0.5 else WARN)
    used = 1 - float(observation["area"][0])
    screen.bar(GAP + 190, y, 160, used, f"area {float(memory['discs'][:, 2] @ memory['discs'][:, 2]) * np.pi * 1e18:,.0f} nm^2", GOOD if used < 0.8 else WARN)
    for index, (label, share) in enumerate(gauges(info | {"dose": np.array(0.0)})):
        left = GAP + 380 + index * 150
        if label.startswith("dose"):
            continue
        if share is None:
            screen.text(label, left, y - 4, 12)
        else:
            screen.bar(left, y, 130, share, label, GOOD if share < 0.8 else WARN)
    return screen.array()


def _map(screen: Screen, task: TipConditioningTask, memory: dict, x: int) -> None:
    """The square with its forbidden discs, what was imaged, and where the tip is; slow axis downwards as in the image."""
    side, draw = task.settings.area, screen.draw
    scale = SIZE / side

    def at(place: np.ndarray) -> np.ndarray:
        return np.array([x, TOP]) + (place + 0.5 * side) * scale

    screen.text(f"surface, {1e9 * side:g} nm: forbidden discs, images", x, TOP - 16)
    draw.rectangle((x, TOP, x + SIZE, TOP + SIZE), fill=FRESH)
    for px, py, radius in memory["discs"][memory["discs"][:, 2] > 0]:
        cx, cy = at(np.array([px, py]))
        draw.ellipse((cx - radius * scale, cy - radius * scale, cx + radius * scale, cy + radius * scale), fill=USED, outline=WARN)
    half = 0.5 * task.settings.image.field_of_view * scale
    for index in np.nonzero(memory["visits"])[0]:
        cx, cy = at(task.area.places[index])
        here = index == memory["place"]
        draw.rectangle((cx - half, cy - half, cx + half, cy + half), outline=INK if here else FAINT, width=2 if here else 1)
    screen.scale_bar(x, TOP, SIZE, side, 50e-9, "50 nm")


def _apex(screen: Screen, truth: dict, x: int) -> None:
    """Side view of the hidden apex, 5 nm wide: metal, adsorbate, the atom that hops."""
    draw = screen.draw
    draw.rectangle((x, TOP, x + SIZE, TOP + SIZE), fill=FRESH)
    if not truth:
        screen.text("apex", x, TOP - 16)
        screen.text("hidden on an instrument", x + SIZE // 2, TOP + SIZE // 2, 13, FAINT, "mm")
        return
    screen.text("apex from the side (hidden truth), 5 nm wide", x, TOP - 16)
    apex, scale, floor = truth["apex"], SIZE / 5e-9, TOP + SIZE - 86
    foremost = int(np.argmin(apex[:, 2]))
    lowest = min(float(apex[:, 2].min()), 0.0)
    shank = floor - (float(apex[4:, 2].mean()) - lowest + 0.1e-9) * scale
    draw.polygon([(x + 40, TOP), (x + SIZE - 40, TOP), (x + SIZE - 76, shank), (x + 76, shank)], fill=(70, 72, 78))
    present = [n for n in range(len(apex)) if apex[n, 2] < 5e-9]
    for n in sorted(present, key=lambda n: -apex[n, 2]):
        cx, cy = x + SIZE / 2 + apex[n, 0] * scale, floor - (apex[n, 2] - lowest) * scale
        radius = 0.14e-9 * scale
        colour = ADSORBATE if n == 0 else METAL
        hops = truth["loose"][1] > 0 and int(truth["loose"][0]) == n
        draw.ellipse((cx - radius, cy - radius, cx + radius, cy + radius), fill=colour, outline=LOOSE if hops else BACKGROUND, width=3 if hops else 1)
        if n == foremost:
            draw.line((cx, cy + radius + 2, cx, cy + radius + 16), fill=INK)
    rows = (f"ghost {float(truth['ghost']):.2f}    barrier {float(truth['barrier']):.1f} eV    hops {float(truth['hops']):.2f} / s",
            "good" if truth["good"] else "not good")  # fmt: skip
    screen.text(rows[0], x + 8, TOP + SIZE - 40, 12)
    screen.text(rows[1], x + 8, TOP + SIZE - 22, 13, GOOD if truth["good"] else WARN)
