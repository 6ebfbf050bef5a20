"""The screen of a day in a correlative laboratory: what each instrument has mapped, what is believed, and what it has cost."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from probegym.envs.pictures import BACKGROUND, FAINT, GOOD, INK, WARN, Screen, coloured

if TYPE_CHECKING:
    from probegym.envs.level_selection import LevelSelectionTask

SIZE, GAP, TOP = 208, 16, 74
RANGE = 2.5  # standard deviations from dark to bright
SUBSTRATE = (30, 33, 38)


def _flakes(labels: np.ndarray, values: np.ndarray, low: float, high: float, map_name: str = "warm") -> np.ndarray:
    """Flakes painted with one number each, on the substrate."""
    painted = coloured(np.concatenate([[low], values])[labels], map_name, low, high)
    painted[labels == 0] = SUBSTRATE
    return np.repeat(np.repeat(painted, 4, 0), 4, 1)


def selection(task: LevelSelectionTask, observation: dict, truth: dict, memory: dict, info: dict) -> np.ndarray:
    """One lane as RGB (height, width, 3) uint8; ``truth`` has no quantities on an instrument."""
    names, n = task.settings.levels, task.levels
    columns = max(n + 1, 4)
    screen = Screen(GAP + columns * (SIZE + GAP), TOP + 2 * (SIZE + 40) + 74)
    labels, m = memory["labels"], memory
    last = names[int(m["instrument"])]
    screen.text(f"Level selection    uncertainty left {float(m['uncertainty']):.2f}    last: {last}", GAP, 12, 17)
    variance = observation["variance"]
    mean = observation["mean"]
    for level, name in enumerate(names):
        x = GAP + level * (SIZE + GAP)
        screen.panel(np.repeat(np.repeat(_map(m["maps"][level], float(m["sheet"][level, 2])), 4, 0), 4, 1), x, TOP, SIZE, f"{name}: {int(m['steps'][level])} more maps")
        _ring(screen, m, x, TOP, level == int(m["instrument"]))
        screen.panel(_flakes(labels, np.sqrt(variance[level]), 0.0, 1.2, "grey"), x, TOP + SIZE + 40, SIZE, f"{name}: standard deviation, 0 to 1.2")
    screen.scale_bar(GAP, TOP, SIZE, float(m["view"]), 10e-6, "10 um")
    x = GAP + n * (SIZE + GAP)
    target = int(np.argmax(task.settings.target))
    screen.panel(_flakes(labels, mean[target], -RANGE, RANGE), x, TOP, SIZE, f"{names[target]}: believed, +-{RANGE:g}")
    if "quantities" in truth:
        screen.panel(_flakes(labels, truth["quantities"][target], -RANGE, RANGE), x, TOP + SIZE + 40, SIZE, f"{names[target]}: true (hidden)")
    else:
        screen.panel(np.full((8, 8, 3), 40, np.uint8), x, TOP + SIZE + 40, SIZE, f"{names[target]}: true")
        screen.text("hidden on an instrument", x + SIZE // 2, TOP + SIZE + 40 + SIZE // 2, 13, FAINT, "mm")
    y = TOP + 2 * (SIZE + 40) + 24
    left = float(m["uncertainty"])
    screen.bar(GAP, y, 180, left, f"uncertainty left {left:.2f}", GOOD if left <= task.settings.goal else WARN)
    hours, limit = float(info["time"]) / 3600, task.seconds_available / 3600
    screen.bar(GAP + 210, y, 180, hours / limit, f"{hours:.1f} h of {limit:.3g} h", GOOD if hours < 0.8 * limit else WARN)
    for pair, (name, before) in enumerate(zip(names[1:], names, strict=False)):
        told, spread = (float(observation["correlations"][pair + k * (n - 1)]) for k in (0, 1))
        real = f", true {float(truth['correlations'][pair]):+.2f}" if "correlations" in truth else ""
        screen.text(f"{before} - {name}: r = {told:+.2f} +- {spread:.2f}{real}", GAP + 430, y - 16 + 20 * pair, 13, INK)
    return screen.array()


def _map(values: np.ndarray, offset: float) -> np.ndarray:
    """What an instrument has shown, around the mean of the flakes; what it has not seen is dark."""
    return coloured(values - offset, "warm", -RANGE - min(offset, 1.0), RANGE) if np.isfinite(values).any() else np.tile(np.array(BACKGROUND, np.uint8), (*values.shape, 1))


def _ring(screen: Screen, m: dict, x: int, y: int, here: bool) -> None:
    """Around the flake that was measured last."""
    if here and m["steps"].sum():
        cx, cy = np.array([x, y]) + m["position"][int(m["place"])] / m["view"] * SIZE
        screen.draw.ellipse((cx - 14, cy - 14, cx + 14, cy + 14), outline=GOOD, width=2)
