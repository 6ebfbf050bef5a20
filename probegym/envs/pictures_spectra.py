"""The operator's screen of an exploration: image with the places measured, what the model expects, the spectra."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from probegym.envs.pictures import FAINT, GOOD, INK, WARN, Screen, coloured, gauges

if TYPE_CHECKING:
    from probegym.envs.spectrum_exploration import SpectrumExplorationTask

SIZE, GAP, TOP = 256, 18, 58
BEST, NOW = (255, 214, 90), (92, 200, 140)
SHOWN = 24  # spectra that are drawn, the latest ones
BARS = np.array([1e-9, 2e-9, 5e-9])


def exploration(task: SpectrumExplorationTask, observation: dict, truth: dict, memory: dict, info: dict) -> np.ndarray:
    """One lane as RGB (height, width, 3) uint8; ``truth`` is empty on an instrument."""
    s = task.settings
    panels = 4 if task.modelled else 2
    screen = Screen(GAP + panels * (SIZE + GAP), TOP + SIZE + 84)
    name = s.scalarizers[int(memory["target"])]
    screen.text(f"Spectrum exploration: {name}", GAP, 12, 17)
    shape, view = (s.image.rows, s.image.columns), s.image.field_of_view
    bar = _bar(view)
    x = GAP
    screen.panel(coloured(observation["image"][0]), x, TOP, SIZE, f"{s.image.detector}, {int((memory['visits'] > 0).sum())} places measured")
    _places(screen, memory, shape, x)
    screen.scale_bar(x, TOP, SIZE, view, *bar)
    if task.modelled:
        for title, values in (("expected", memory["mean"]), ("uncertainty", memory["deviation"])):
            x += SIZE + GAP
            low, high = np.percentile(values, [0.5, 99.8])
            screen.panel(coloured(values.reshape(shape), "warm", low, max(high, low + 1e-12)), x, TOP, SIZE, f"{title}, {low:.3g} to {high:.3g}")
    x += SIZE + GAP
    _spectra(screen, task, memory, x)
    y = TOP + SIZE + 44
    if truth:
        left = float(task.metrics({k: v[None] for k, v in truth.items()}, {k: v[None] for k, v in memory.items()})["regret"][0])
        screen.bar(GAP, y, 160, left, f"regret {left:.2f}", GOOD if left < 0.1 else WARN)
    for index, (label, share) in enumerate(gauges(info)):
        left = GAP + 190 + index * 160
        if share is None:
            screen.text(label, left, y - 4, 12)
        else:
            screen.bar(left, y, 140, share, label.replace("frames", "measurements"), GOOD if share < 0.8 else WARN)
    return screen.array()


def _bar(view: float) -> tuple[float, str]:
    """Length in m and label of a scale bar of about a quarter of the view."""
    lengths = (BARS * 10.0 ** np.arange(6)[:, None]).ravel()
    length = float(lengths[lengths <= 0.3 * view].max(initial=lengths[0]))
    return length, f"{length * 1e9:g} nm" if length < 1e-6 else f"{length * 1e6:g} um"


def _places(screen: Screen, memory: dict, shape: tuple[int, int], x: int) -> None:
    """Places in the order in which they were measured, the best and the latest marked."""
    order = memory["order"]
    pixels = np.nonzero(order)[0][np.argsort(order[order > 0])]
    rows, columns = np.divmod(pixels, shape[1])
    at = np.stack([x + (columns + 0.5) * SIZE / shape[1], TOP + (rows + 0.5) * SIZE / shape[0]], 1)
    for index, (px, py) in enumerate(at):
        age = (index + 1) / len(at)
        screen.draw.ellipse((px - 2, py - 2, px + 2, py + 2), fill=(round(90 + 142 * age), round(150 - 10 * age), round(220 - 140 * age)))
    known = np.nonzero(memory["known"])[0]
    if len(known):
        best = int(known[memory["value"][known].argmax()])
        for pixel, colour, half in ((best, BEST, 6), (int(memory["at"]), NOW, 4)):
            row, column = divmod(pixel, shape[1])
            px, py = x + (column + 0.5) * SIZE / shape[1], TOP + (row + 0.5) * SIZE / shape[0]
            screen.draw.ellipse((px - half, py - half, px + half, py + half), outline=colour, width=2)


def _spectra(screen: Screen, task: SpectrumExplorationTask, memory: dict, x: int) -> None:
    """The latest spectra, the best place's on top; two channels are drawn as points in a plane."""
    draw, axis = screen.draw, memory["axis"]
    draw.rectangle((x, TOP, x + SIZE, TOP + SIZE), outline=FAINT)
    visited = np.nonzero(memory["visits"])[0]
    latest = visited[np.argsort(memory["order"][visited])][-SHOWN:]
    spectra = memory["total"][latest] / memory["visits"][latest, None]
    low, high = float(spectra.min()), float(spectra.max())
    plane = task.settings.spectrum.channels == 2
    screen.text(f"{task.settings.spectrum.detector}: last {len(latest)}" + ("" if plane else f", {axis.min():.3g} to {axis.max():.3g}"), x, TOP - 16)
    if plane:
        reach = max(float(np.abs(spectra).max()), 1e-30)
        for one in spectra:
            px, py = x + SIZE * (0.5 + 0.45 * one[0] / reach), TOP + SIZE * (0.5 - 0.45 * one[1] / reach)
            draw.ellipse((px - 2, py - 2, px + 2, py + 2), fill=INK)
        return
    across = x + 4 + (axis - axis.min()) / max(float(np.ptp(axis)), 1e-30) * (SIZE - 8)

    def line(one: np.ndarray, colour: tuple, width: int) -> None:
        up = TOP + SIZE - 6 - (one - low) / max(high - low, 1e-30) * (SIZE - 12)
        draw.line([(float(a), float(b)) for a, b in zip(across, up, strict=True)], fill=colour, width=width)

    for index, one in enumerate(spectra):
        line(one, (round(50 + 60 * index / SHOWN), round(80 + 50 * index / SHOWN), round(110 + 60 * index / SHOWN)), 1)
    known = np.nonzero(memory["known"])[0]
    if len(known):
        best = int(known[memory["value"][known].argmax()])
        line(memory["total"][best] / memory["visits"][best], BEST, 2)
    line(memory["total"][memory["at"]] / max(int(memory["visits"][memory["at"]]), 1), NOW, 2)
