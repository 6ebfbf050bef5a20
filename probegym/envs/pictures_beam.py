"""The operator's screen of a beam that moves atoms: the image, the lattice with goals and beam, the hidden rates, and what it has cost."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from probegym.envs.beam_settings import BOND
from probegym.envs.pictures import BACKGROUND, FAINT, GOOD, INK, WARN, Screen, coloured, gauges

if TYPE_CHECKING:
    from probegym.envs.beam_manipulation import BeamManipulationTask

SIZE, GAP, TOP = 256, 18, 58
SHEET, CARBON, SILICON, GOAL, BEAM, DIRT = (30, 35, 40), (120, 132, 142), (240, 190, 80), (92, 200, 140), (110, 190, 255), (110, 84, 60)


def manipulation(task: BeamManipulationTask, observation: dict, truth: dict, memory: dict, info: dict) -> np.ndarray:
    """One lane as RGB (height, width, 3) uint8; ``truth`` is empty on an instrument."""
    panels = 2 + ("image" in observation)
    screen = Screen(GAP + panels * (SIZE + GAP) + 60, TOP + SIZE + 84)
    dwelt = f"    last: {float(memory['dwelt']):.1f} s at {1e10 * np.hypot(*(memory['place'] - memory['located'][int(memory['treated'])])):.1f} A" if memory["dwells"] else ""
    screen.text(f"Beam manipulation    {int(memory['left'])} bonds to go{dwelt}", GAP, 12, 17)
    x = GAP
    if "image" in observation:
        nm = 1e9 * task.settings.frame.field_of_view
        screen.panel(coloured(observation["image"][0]), x, TOP, SIZE, f"{task.settings.frame.detector}, {nm:g} nm, {task.settings.frame.duration:g} s")
        screen.scale_bar(x, TOP, SIZE, task.settings.frame.field_of_view, 5e-10, "0.5 nm")
        x += SIZE + GAP
    _lattice(screen, task, truth, memory, x)
    x += SIZE + GAP
    _lobe(screen, truth, memory, x)
    y, moves = TOP + SIZE + 44, f"{int(memory['dwells'])} dwells, {int(memory['moves'])} moves"
    screen.text(moves, GAP, y - 4, 12)
    for index, (label, share) in enumerate(gauges(info)):
        left = GAP + 150 + index * 150
        if share is None:
            screen.text(label, left, y - 4, 12)
        else:
            screen.bar(left, y, 130, share, label, GOOD if share < 0.8 else WARN)
    return screen.array()


def _lattice(screen: Screen, task: BeamManipulationTask, truth: dict, memory: dict, x: int) -> None:
    """The field of the image: atoms by the hidden state or as located, goals as rings, the last place of the beam as a cross."""
    view, draw, scale = task.settings.frame.field_of_view, screen.draw, SIZE / task.settings.frame.field_of_view
    middle = memory["centre"]

    def at(place: np.ndarray) -> np.ndarray:
        return np.array([x, TOP]) + SIZE / 2 + (place - middle) * scale

    def disc(place: np.ndarray, radius: float, **style) -> None:
        cx, cy = at(place)
        if x <= cx <= x + SIZE and TOP <= cy <= TOP + SIZE:
            draw.ellipse((cx - radius, cy - radius, cx + radius, cy + radius), **style)

    screen.text("sheet (hidden truth), goals, beam" if "atoms" in truth else "atoms as located, goals, beam", x, TOP - 16)
    draw.rectangle((x, TOP, x + SIZE, TOP + SIZE), fill=SHEET)
    bond = BOND * scale
    if "atoms" in truth:
        for px, py, radius in truth["clusters"]:
            disc(np.array([px, py]), radius * scale, fill=DIRT)
        for place in truth["atoms"][truth["species"] == 6]:
            disc(place, 0.16 * bond, fill=CARBON)
        for place in truth["vacancies"]:
            disc(place, 0.3 * bond, outline=WARN, width=2)
    silicon = truth["atoms"][truth["species"] == 14] if "atoms" in truth else memory["located"]
    for place in silicon:
        disc(place, 0.36 * bond, fill=SILICON, outline=BACKGROUND)
    for goal in memory["goals"] + memory["anchor"] + memory["shift"]:
        disc(goal, 0.55 * bond, outline=GOAL, width=3)
    if memory["dwells"]:
        cx, cy = at(memory["place"])
        draw.line((cx - 7, cy, cx + 7, cy), fill=BEAM, width=2)
        draw.line((cx, cy - 7, cx, cy + 7), fill=BEAM, width=2)
    draw.rectangle((x + SIZE + 1, TOP - 1, x + SIZE + GAP - 1, TOP + SIZE + 1), fill=BACKGROUND)
    screen.scale_bar(x, TOP, SIZE, view, 5e-10, "0.5 nm")


def _lobe(screen: Screen, truth: dict, memory: dict, x: int) -> None:
    """Rate of the swap with one neighbour by the beam's place: the atom in the middle, that neighbour one bond to the right."""
    draw = screen.draw
    if not truth:
        draw.rectangle((x, TOP, x + SIZE, TOP + SIZE), fill=SHEET)
        screen.text("rates", x, TOP - 16)
        screen.text("hidden on an instrument", x + SIZE // 2, TOP + SIZE // 2, 13, FAINT, "mm")
        return
    lobe = truth["lobe"].T[::-1]  # along the bond to the right, its left side upwards
    screen.panel(coloured(lobe, "warm", 0, None), x, TOP, SIZE, f"rate of one swap (hidden), up to {float(lobe.max()):.2g} / s")
    for along, colour in ((0.0, SILICON), (1.0, CARBON)):
        cx, cy = x + SIZE * (along + 2) / 4, TOP + SIZE / 2
        draw.ellipse((cx - 5, cy - 5, cx + 5, cy + 5), outline=colour, width=2)
    screen.text("4 bonds", x + 8, TOP + SIZE - 18, 11, INK)
