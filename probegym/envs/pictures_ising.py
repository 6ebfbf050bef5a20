"""The screen of a hot stage: labels as imaged, the lattice as it is, what is believed of J and h, and what next images promise."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from probegym.envs.pictures import BELOW, MAIN, PAIR, SMALL, Gauge, Key, Screen, coloured
from probegym.envs.pictures_sketch import FAINT, GOOD, GROUND, WARN, Sketch
from probegym.hardware_bridge.commands import Lanes

if TYPE_CHECKING:
    from probegym.envs.ising_inference import IsingInferenceTask

DOWN, UP = (44, 92, 150), (226, 170, 92)
SPREAD = 3.2  # standard deviations of the prior that the map of the belief shows, each way
LEAST_GAIN = 1e-3  # at the bright end of the map of gains


def inference(task: IsingInferenceTask, observation: Lanes, truth: Lanes, memory: Lanes, info: Lanes) -> np.ndarray:
    """One lane as RGB (height, width, 3) uint8; ``truth`` is empty on an instrument."""
    s = task.settings
    t, f, hold, dwell, region = (int(v) for v in memory["chosen"])
    heated = f"{s.temperatures[t]:g} K, {1e3 * s.fields[f]:+g} meV, {s.holds[hold - 1]:g} s" if hold else "not annealed again"
    screen = Screen("Ising inference", f"last: {heated}; {'all' if region == 0 else f'quarter {region}'}, {1e3 * s.dwells[dwell]:g} ms an atom")
    screen.scale_bar(screen.panel(MAIN, _atoms(memory["labels"]), f"species as classified, image {int(memory['images'])}"), s.rows * s.spacing)
    screen.text("spin up", MAIN.x + MAIN.width - 72, MAIN.y - 19, SMALL, UP, "ra")
    screen.text("spin down", MAIN.x + MAIN.width, MAIN.y - 19, SMALL, DOWN, "ra")
    if "spins" in truth:
        screen.scale_bar(screen.panel(PAIR[0], _atoms(truth["spins"]), "lattice (hidden truth)"), s.rows * s.spacing)
    else:
        screen.hidden(PAIR[0], "lattice")
    _belief(screen, task, truth, memory)
    _gain(screen, task, observation["gain"].max((2, 3)))
    (j, h, separation), deviation = memory["mean"][:3], np.sqrt(np.diagonal(memory["covariance"]))
    relative = float(deviation[0] / max(abs(j), 1e-9))
    error = f"J is {100 * abs(j / truth['coupling'] - 1):.1f} % off" if truth else f"classes {np.exp(separation):.2f} x apart"
    own = (Gauge(f"J = {1e3 * j:.2f} \u00b1 {1e3 * deviation[0]:.2f} meV", min(relative / 0.2, 1), relative < s.goal),
           Gauge(f"h = {1e3 * h:+.2f} \u00b1 {1e3 * deviation[1]:.2f} meV"), Gauge(error))  # fmt: skip
    return screen.foot(info, task.measured, *own)


def _atoms(labels: np.ndarray) -> np.ndarray:
    """Labels painted, each atom a square of four pixels a side."""
    painted = np.array([DOWN, GROUND, UP], np.uint8)[labels.astype(int) + 1]
    return np.repeat(np.repeat(painted, 4, 0), 4, 1)


def _gain(screen: Screen, task: IsingInferenceTask, gain: np.ndarray) -> None:
    """Expected gain (temperatures, fields): temperature to the right, field upwards."""
    temperatures, most = task.settings.temperatures, max(float(gain.max()), LEAST_GAIN)
    picture = np.repeat(np.repeat(coloured(gain.T[::-1], "warm", 0.0, most), 4, 0), 4, 1)
    box = BELOW._replace(height=BELOW.height - 18)
    left, right = (f"{1e3 * field:+g}" for field in (task.settings.fields[0], task.settings.fields[-1]))
    screen.panel(box, Sketch(box, (0, 0, 1, 1), picture), f"expected gain of an image; field up, {left} to {right} meV", Key("warm", "0", f"{most:.2g} nat"))
    for column, kelvin in enumerate(temperatures):
        screen.text(f"{kelvin:g} K", box.x + (2 * column + 1) * box.width / (2 * len(temperatures)), box.y + box.height + 3, SMALL, FAINT, "ma")


def _belief(screen: Screen, task: IsingInferenceTask, truth: Lanes, memory: Lanes) -> None:
    """Ellipses of one and two standard deviations of J (across) and h (upwards), the prior's around them, and the truth as a cross."""
    prior = task.belief
    (j, h), (dj, dh) = prior.mean[:2], SPREAD * prior.deviation[:2]
    sketch = Sketch(PAIR[1], (j - dj, h + dh, j + dj, h - dh))
    turn = np.linspace(0, 2 * np.pi, 73)
    circle = np.stack([np.cos(turn), np.sin(turn)], 1)
    sketch.line(prior.mean[:2] + circle * prior.deviation[:2], FAINT)
    factor = np.linalg.cholesky(memory["covariance"][:2, :2])
    for width in (1, 2):
        sketch.line(memory["mean"][:2] + width * circle @ factor.T, GOOD, 2)
    sketch.disc(memory["mean"][:2], 3 * sketch.pixel, GOOD)
    if truth:
        sketch.cross((float(truth["coupling"]), float(truth["field"])), WARN, 6)
    screen.panel(PAIR[1], sketch, "belief: J across, h up; 1, 2 sd" + ("; truth" if truth else ""))
    x, y = PAIR[1].x + 8, PAIR[1].y + PAIR[1].height - 22
    screen.text(f"J from {1e3 * (j - dj):.0f} to {1e3 * (j + dj):.0f} meV, h \u00b1{1e3 * dh:.0f} meV", x, y, SMALL, FAINT)
