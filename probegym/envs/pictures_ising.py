"""The screen of a hot stage: labels as imaged, the lattice as it is, what is believed of J and h, and what next images promise."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from probegym.envs.pictures import FAINT, GOOD, INK, WARN, Screen, coloured, gauges

if TYPE_CHECKING:
    from probegym.envs.ising_inference import IsingInferenceTask

SIZE, GAP, TOP = 256, 18, 58
UNSEEN, DOWN, UP = (30, 33, 38), (44, 92, 150), (226, 170, 92)
GROUND = (34, 40, 46)
SPREAD = 3.2  # standard deviations of the prior that the map of the belief shows, each way


def inference(task: IsingInferenceTask, observation: dict, truth: dict, memory: dict, info: dict) -> np.ndarray:
    """One lane as RGB (height, width, 3) uint8; ``truth`` is empty on an instrument."""
    screen, s = Screen(GAP + 4 * (SIZE + GAP), TOP + SIZE + 84), task.settings
    t, f, hold, dwell, region = (int(v) for v in memory["chosen"])
    heated = f"{s.temperatures[t]:g} K, {1e3 * s.fields[f]:+g} meV, {s.holds[hold - 1]:g} s" if hold else "not annealed again"
    where = "all" if region == 0 else f"quarter {region}"
    error = f"    error of J {100 * abs(memory['mean'][0] / truth['coupling'] - 1):.1f} %" if truth else ""
    screen.text(f"Ising inference{error}    last: {heated}; {where}, {1e3 * s.dwells[dwell]:g} ms an atom", GAP, 12, 17)
    x = GAP
    screen.panel(_atoms(memory["labels"]), x, TOP, SIZE, f"labels, image {int(memory['images'])}")
    screen.scale_bar(x, TOP, SIZE, s.rows * s.spacing, 5e-9, "5 nm")
    x += SIZE + GAP
    if "spins" in truth:
        screen.panel(_atoms(truth["spins"]), x, TOP, SIZE, "lattice (hidden truth)")
    else:
        screen.panel(np.full((8, 8, 3), GROUND, np.uint8), x, TOP, SIZE, "lattice")
        screen.text("hidden on an instrument", x + SIZE // 2, TOP + SIZE // 2, 13, FAINT, "mm")
    x += SIZE + GAP
    _belief(screen, task, truth, memory, x)
    x += SIZE + GAP
    gain = observation["gain"].max((2, 3))
    screen.panel(coloured(gain, "warm", 0.0, max(float(gain.max()), 1e-3)), x, TOP, SIZE, "expected gain: field across, temperature down")
    for row, kelvin in enumerate(s.temperatures):
        screen.text(f"{kelvin:g} K", x + 4, TOP + (2 * row + 1) * SIZE // (2 * len(s.temperatures)) - 6, 11, INK)
    y = TOP + SIZE + 44
    deviation = np.sqrt(np.diagonal(memory["covariance"]))
    relative = float(deviation[0] / max(abs(memory["mean"][0]), 1e-9))
    screen.bar(GAP, y, 170, min(relative / 0.2, 1), f"J {1e3 * memory['mean'][0]:.2f} +- {1e3 * deviation[0]:.2f} meV", GOOD if relative < s.goal else WARN)
    screen.text(f"h {1e3 * memory['mean'][1]:+.2f} +- {1e3 * deviation[1]:.2f} meV    separation x {np.exp(memory['mean'][2]):.2f}", GAP + 200, y - 4, 12)
    left = GAP + 620
    for label, share in gauges({name: value for name, value in info.items() if not name.startswith("dose")} | {"dose": np.array(0.0)}):
        if share is not None:
            screen.bar(left, y, 150, share, label, GOOD if share < 0.8 else WARN)
            left += 170
    return screen.array()


def _atoms(labels: np.ndarray) -> np.ndarray:
    """Labels painted, each atom a square of four pixels a side."""
    painted = np.array([DOWN, UNSEEN, UP], np.uint8)[labels.astype(int) + 1]
    return np.repeat(np.repeat(painted, 4, 0), 4, 1)


def _belief(screen: Screen, task: IsingInferenceTask, truth: dict, memory: dict, x: int) -> None:
    """Ellipses of one and two standard deviations of J (across) and h (upwards), the prior's around them, and the truth as a cross."""
    draw, prior = screen.draw, task.belief
    draw.rectangle((x, TOP, x + SIZE, TOP + SIZE), fill=GROUND)
    screen.text("belief: J across, h upwards; 1 and 2 sigma", x, TOP - 16)

    def at(points: np.ndarray) -> list[tuple[float, float]]:
        scaled = np.clip((points - prior.mean[:2]) / (SPREAD * prior.deviation[:2]), -1, 1)
        return [(x + SIZE / 2 * (1 + a), TOP + SIZE / 2 * (1 - b)) for a, b in scaled]

    turn = np.linspace(0, 2 * np.pi, 73)
    circle = np.stack([np.cos(turn), np.sin(turn)], 1)
    draw.line(at(prior.mean[:2] + circle * prior.deviation[:2]), fill=FAINT)
    factor = np.linalg.cholesky(memory["covariance"][:2, :2])
    for width in (1, 2):
        draw.line(at(memory["mean"][:2] + width * circle @ factor.T), fill=GOOD, width=2)
    (cx, cy) = at(memory["mean"][None, :2])[0]
    draw.ellipse((cx - 2, cy - 2, cx + 2, cy + 2), fill=GOOD)
    if truth:
        (cx, cy) = at(np.array([[truth["coupling"], truth["field"]]]))[0]
        draw.line((cx - 6, cy, cx + 6, cy), fill=WARN, width=2)
        draw.line((cx, cy - 6, cx, cy + 6), fill=WARN, width=2)
