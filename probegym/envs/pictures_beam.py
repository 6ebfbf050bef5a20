"""The operator's screen of a beam that moves atoms: the image, the lattice with goals and beam, and the hidden rates."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from probegym.envs.beam_settings import BOND
from probegym.envs.pictures import BELOW, FOR_READER, MAIN, PAIR, Key, Screen, coloured
from probegym.envs.pictures_sketch import BACKGROUND, GOOD, LINK, MARK, WARN, Box, Sketch
from probegym.hardware_bridge.commands import Lanes

if TYPE_CHECKING:
    from probegym.envs.beam_manipulation import BeamManipulationTask

CARBON, SILICON, GOAL, BEAM, DIRT = (128, 140, 150), MARK, GOOD, LINK, (150, 116, 84)
REACH = 2.0  # bonds from the middle to the edge of the map of rates
BESIDE = Box(424, 68, 380, 380)


def manipulation(task: BeamManipulationTask, observation: Lanes, truth: Lanes, memory: Lanes, info: Lanes) -> np.ndarray:
    """One lane as RGB (height, width, 3) uint8; ``truth`` is empty on an instrument."""
    away = 1e12 * np.hypot(*(memory["place"] - memory["located"][int(memory["treated"])]))
    dwelt = f"    last dwell: {float(memory['dwelt']):.1f} s, {away:.0f} pm from the atom" if memory["dwells"] else ""
    screen = Screen("Beam manipulation", f"moves: {int(memory['moves'])}, bonds to go: {int(memory['left'])}{dwelt}")
    frame, seen = task.settings.frame, "image" in observation
    image = observation["image"][0] if seen else truth.get("glance image")
    if imaged := image is not None:
        there = screen.panel(MAIN, coloured(image, "grey", 0), f"{frame.detector.upper()} image, {frame.duration:g} s{'' if seen else FOR_READER}")
        screen.scale_bar(there, frame.field_of_view)
    _lattice(screen, PAIR[0] if imaged else MAIN, task, truth, memory)
    _lobe(screen, PAIR[1] if imaged else BESIDE, truth)
    x, y = (BELOW.x, BELOW.y - 8) if imaged else (BESIDE.x + BESIDE.width + 20, BESIDE.y)
    marks = {"Si atom": SILICON, "goal": GOAL, "beam": BEAM} | ({"C atom": CARBON, "vacancy": WARN, "contamination": DIRT} if "atoms" in truth else {})
    for index, (name, colour) in enumerate(marks.items()):
        screen.text(name, x, y + 20 * index, colour=colour)
    return screen.foot(info, task.measured)


def _lattice(screen: Screen, box: Box, task: BeamManipulationTask, truth: Lanes, memory: Lanes) -> None:
    """The field of the image: atoms by the hidden state or as located, goals as rings, the last place of the beam as a cross."""
    view, (x, y) = task.settings.frame.field_of_view, memory["centre"]
    sketch = Sketch(box, (x - view / 2, y - view / 2, x + view / 2, y + view / 2))
    if "atoms" in truth:
        for *place, radius in truth["clusters"]:
            sketch.disc(tuple(place), radius, DIRT)
        for atom in truth["atoms"][truth["species"] == 6]:
            sketch.disc(atom, 0.16 * BOND, CARBON)
        for atom in truth["vacancies"]:
            sketch.disc(atom, 0.3 * BOND, outline=WARN)
    for atom in truth["atoms"][truth["species"] == 14] if "atoms" in truth else memory["located"]:
        sketch.disc(atom, 0.34 * BOND, SILICON, BACKGROUND)
    for goal in memory["goals"] + memory["anchor"] + memory["shift"]:
        sketch.disc(goal, 0.55 * BOND, outline=GOAL, width=3)
    if memory["dwells"]:
        sketch.cross(memory["place"], BEAM)
    screen.scale_bar(screen.panel(box, sketch, "graphene (hidden truth)" if "atoms" in truth else "atoms as located"), view)


def _lobe(screen: Screen, box: Box, truth: Lanes) -> None:
    """Rate of the swap with one neighbour by the beam's place: the atom in the middle, that neighbour one bond to the right."""
    if not truth:
        screen.hidden(box, "swap rate")
        return
    lobe = truth["lobe"].T  # along the bond to the right; y down, as in the image
    reach = REACH * BOND
    sketch = Sketch(box, (-reach, -reach, reach, reach), coloured(lobe, "warm", 0, None))
    sketch.disc((0, 0), 0.1 * BOND, outline=SILICON)
    sketch.disc((BOND, 0), 0.1 * BOND, outline=CARBON)
    screen.scale_bar(screen.panel(box, sketch, "rate (hidden truth), /s", Key("warm", "0", f"{float(lobe.max()):.2g}")), 2 * reach)
