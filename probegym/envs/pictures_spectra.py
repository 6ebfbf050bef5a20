"""The operator's screen of an exploration: image with the places measured, what the model expects, the spectra."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from probegym.envs.pictures import BELOW, MAIN, PAIR, SIDE, SMALL, Gauge, Key, Screen, coloured
from probegym.envs.pictures_sketch import FAINT, GOOD, INK, MARK, Box, Sketch
from probegym.hardware_bridge.commands import Lanes

if TYPE_CHECKING:
    from probegym.envs.spectrum_exploration import SpectrumExplorationTask

BEST, NOW = MARK, GOOD
SHOWN = 24  # spectra that are drawn, the latest ones
AXES = {"eels": ("energy loss", "eV"), "loop": ("bias", "V")}  # detector -> what its spectra run over
SPOKEN = {"haadf": "HAADF image", "piezoresponse": "piezoresponse", "eels": "EELS", "loop": "loops", "com": "centre of mass"}


def exploration(task: SpectrumExplorationTask, observation: Lanes, truth: Lanes, memory: Lanes, info: Lanes) -> np.ndarray:
    """One lane as RGB (height, width, 3) uint8; ``truth`` is empty on an instrument."""
    s = task.settings
    screen = Screen("Spectrum exploration", f"wanted: {s.scalarizers[int(memory['target'])]}")
    shape, view = (s.image.rows, s.image.columns), s.image.field_of_view
    sketch = Sketch(MAIN, (0, 0, shape[1], shape[0]), coloured(observation["image"][0]))
    _places(sketch, memory, shape[1])
    screen.scale_bar(screen.panel(MAIN, sketch, f"{SPOKEN.get(s.image.detector, s.image.detector)}, {int((memory['visits'] > 0).sum())} places measured"), view)
    for box, title, values in zip(PAIR, ("expected", "uncertainty"), (memory["mean"], memory["deviation"]), strict=True) if task.modelled else ():
        low, high = np.percentile(values, [0.5, 99.8])
        key = Key("warm", f"{low:.2g}", f"{high:.2g}")
        screen.scale_bar(screen.panel(box, coloured(values.reshape(shape), "warm", low, max(high, low + 1e-12)), title, key), view)
    _spectra(screen, BELOW if task.modelled else SIDE, task, memory)
    own: tuple[Gauge, ...] = ()
    if truth:
        left = float(task.metrics({k: v[None] for k, v in truth.items()}, {k: v[None] for k, v in memory.items()})["regret"][0])
        own = (Gauge(f"regret {left:.2f}", left, left < 0.1),)
    return screen.foot(info, task.measured, *own)


def _places(sketch: Sketch, memory: Lanes, columns: int) -> None:
    """Places in the order in which they were measured, the best and the latest marked."""
    order = memory["order"]
    pixels = np.nonzero(order)[0][np.argsort(order[order > 0])]

    def at(pixel: int) -> tuple[float, float]:
        return pixel % columns + 0.5, pixel // columns + 0.5

    for index, pixel in enumerate(pixels):
        age = (index + 1) / len(pixels)
        sketch.disc(at(pixel), 3 * sketch.pixel, (round(90 + 142 * age), round(150 - 10 * age), round(220 - 140 * age)))
    best = _best(memory)
    if best is not None:
        sketch.disc(at(best), 8 * sketch.pixel, outline=BEST)
        sketch.disc(at(int(memory["at"])), 6 * sketch.pixel, outline=NOW)


def _best(memory: Lanes) -> int | None:
    """The pixel with the largest value measured so far."""
    known = np.nonzero(memory["known"])[0]
    return int(known[memory["value"][known].argmax()]) if len(known) else None


def _spectra(screen: Screen, box: Box, task: SpectrumExplorationTask, memory: Lanes) -> None:
    """The latest spectra, the best place's on top; two channels are drawn as points in a plane."""
    axis, detector = memory["axis"], task.settings.spectrum.detector
    visited = np.nonzero(memory["visits"])[0]
    latest = visited[np.argsort(memory["order"][visited])][-SHOWN:]
    spectra = memory["total"][latest] / memory["visits"][latest, None]
    title = f"{SPOKEN.get(detector, detector)}, the last {len(latest)}"
    if task.settings.spectrum.channels == 2:
        reach = 1.1 * max(float(np.abs(spectra).max()), 1e-30)
        wide = reach * box.width / box.height
        sketch = Sketch(box, (-wide, -reach, wide, reach))
        for one in spectra:
            sketch.disc(one, 3 * sketch.pixel, INK)
        screen.panel(box, sketch, title + ", as points in the plane")
        return
    low, high = float(spectra.min()), float(spectra.max())
    room = 0.06 * max(high - low, 1e-30)
    sketch = Sketch(box, (float(axis.min()), high + room, float(axis.max()), low - room))
    for index, one in enumerate(spectra):
        sketch.curve(one, (round(60 + 70 * index / SHOWN), round(90 + 60 * index / SHOWN), round(120 + 70 * index / SHOWN)), 1, axis)
    best, at = _best(memory), int(memory["at"])
    for pixel, colour in ((best, BEST), (at, NOW)):
        if pixel is not None:
            sketch.curve(memory["total"][pixel] / max(int(memory["visits"][pixel]), 1), colour, 2, axis)
    screen.panel(box, sketch, title)
    what, unit = AXES.get(detector, ("channel", ""))
    screen.text(f"{what} {axis.min():.3g} to {axis.max():.3g} {unit}", box.x + box.width, box.y - 19, SMALL, FAINT, "ra")
    screen.text("best", box.x + 180, box.y - 19, SMALL, BEST)
    screen.text("latest", box.x + 212, box.y - 19, SMALL, NOW)
