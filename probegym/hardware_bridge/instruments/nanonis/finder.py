"""Adatoms in an image at constant current: a matched filter finds them, a fit of Gaussians places them between the pixels, and memory names them.

A point feature appears as a Gaussian (Tersoff & Hamann 1985, 10.1103/PhysRevB.31.805). An image's tilt and the jumps from line to line are taken
out first. What does not look like an adatom is left out rather than placed: two adatoms in one, for instance, are missed. Who is who follows from the
places before: the shortest ways first, as what was not dragged did not move. benchmarks/nanonis_frames.py draws what may be taken for adatoms.
"""

from __future__ import annotations

import numpy as np

from probegym.hardware_bridge.instruments import InstrumentFault
from probegym.hardware_bridge.instruments.nanonis.images import Frame

SHARE = 0.6  # of the least height that a maximum of the matched filter must have
MOST = 3.0  # times the least height: what is higher is debris
WIDTHS, PLAUSIBLE = (0.4, 2.0), (0.55, 1.3)  # of the expected width: beyond which a fit is lost, and no adatom
OVAL, RESIDUAL = (0.08, 0.6), (0.04, 1.2)  # of the width that it may differ along and across, and of the height that a fit may leave: without noise, and more with noise of the height
TILT = 0.25  # of the height that the plane under one may rise by in a width: on an edge nothing can be told
SPOT = 7  # height, x, y, width, level and slopes of a fit
APART = 1.5  # widths between two adatoms at least
WINDOW = 2.5  # widths around a place that a fit sees
SIGNIFICANT = 5.0  # standard deviations of the noise that an adatom stands out by
FORGOTTEN = 3
STILL, TOUCHED = 0.5e-9, 1e-9  # m that one may have moved that nobody touched (what the surface drifts), and from a drag within which one is touched
GHOST, SAME = 3e-9, 0.1e-9  # m between the atoms of a double tip at most, and that pairs may differ by
SWEEPS, STEPS = 3, 4  # over all adatoms, and of each fit


def levelled(height: np.ndarray) -> np.ndarray:
    """Heights (rows, columns) without tilt along the lines, and without jumps between them: no step changes the median difference of two lines."""
    columns = height.shape[1]
    along = np.arange(columns) - (columns - 1) / 2
    half = columns // 2
    slope = np.median(height[:, columns - half :] - height[:, :half]) / (columns - half)
    level = height - slope * along
    jumps = np.median(np.diff(level, axis=0), axis=1)
    level = level - np.concatenate([[0.0], np.cumsum(jumps)])[:, None]
    return np.asarray(level - np.median(level))


def places(frame: Frame, least: float, width: float) -> np.ndarray:
    """Adatoms (n, 2) m in an image, the highest first. least: m that the lowest stands out by; width: m, standard deviation of one.

    What is too high, too wide, not round, or unlike a Gaussian is none: debris, edges, two adatoms in one.
    """
    level, pixel = levelled(frame.height), float(frame.x[1] - frame.x[0])
    noise = 1.4826 * float(np.median(np.abs(np.diff(level, axis=1)))) / np.sqrt(2)
    answer = (_smooth(frame, level, width) - _smooth(frame, level, 2 * width)) / (1 / 2 - 1 / 5)  # 1 / (1 + scale^2) is left of a Gaussian each; of a plane, nothing
    peaks = _maxima(answer, max(1, round(0.75 * width / pixel)), max(SHARE * least, SIGNIFICANT * noise * pixel / width))
    spots = np.array([[answer[at], frame.x[at[1]], frame.y[at[0]], width, 0.0, 0.0, 0.0] for at in peaks]).reshape(-1, SPOT)
    for _ in range(SWEEPS):
        spots = _apart(_fitted(frame, level, spots, width), frame, width)
    good = _plausible(frame, level, spots, noise, least, width)
    atoms = spots[good][np.argsort(-spots[good, 0])]
    return np.asarray(atoms[:, 1:3])


def _smooth(frame: Frame, level: np.ndarray, width: float) -> np.ndarray:
    """Weighted means over a Gaussian; near the edges over what there is of it."""
    kernels = [np.exp(-0.5 * ((along[:, None] - along) / width) ** 2) for along in (frame.y, frame.x)]
    down, across = (kernel / kernel.sum(1, keepdims=True) for kernel in kernels)
    return np.asarray(down @ level @ across.T)


def _maxima(answer: np.ndarray, reach: int, least: float) -> list[tuple[int, int]]:
    """Pixels that nothing within ``reach`` pixels is above."""
    rows, columns = answer.shape
    wide = np.pad(answer, reach, constant_values=-np.inf)
    around = np.max([wide[i : i + rows, j : j + columns] for i in range(2 * reach + 1) for j in range(2 * reach + 1)], axis=0)
    return [(int(i), int(j)) for i, j in np.argwhere((answer >= around) & (answer > least))]


def _bell(spot: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.asarray(spot[0] * np.exp(-0.5 * ((x - spot[1]) ** 2 + (y - spot[2]) ** 2) / spot[3] ** 2))


def _plane(spot: np.ndarray, x: np.ndarray, y: np.ndarray, width: float) -> np.ndarray:
    """Level and slopes of the plane under a spot, (n, 3), each for one."""
    return np.stack([np.ones_like(x), (x - spot[1]) / width, (y - spot[2]) / width], 1)


def _window(frame: Frame, level: np.ndarray, spots: np.ndarray, index: int, width: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """x, y and heights (m) around a spot, without the others."""
    x, y = np.meshgrid(frame.x, frame.y)
    near = np.hypot(x - spots[index, 1], y - spots[index, 2]) <= WINDOW * width
    others = sum((_bell(other, x[near], y[near]) for i, other in enumerate(spots) if i != index), np.zeros(int(near.sum())))
    return x[near], y[near], level[near] - others


def _fitted(frame: Frame, level: np.ndarray, spots: np.ndarray, width: float) -> np.ndarray:
    """Every spot (height, x, y, width, and the plane under it) by Gauss-Newton on what the others leave."""
    out = spots.copy()
    for index in range(len(out)):
        x, y, rest = _window(frame, level, out, index, width)
        spot = out[index].copy()
        for _ in range(STEPS):
            bell = _bell(spot, x, y)
            right, up = (x - spot[1]) / spot[3], (y - spot[2]) / spot[3]
            plane = _plane(spot, x, y, width)
            slopes = np.column_stack([bell / spot[0], bell * right / spot[3], bell * up / spot[3], bell * (right**2 + up**2) / spot[3], plane])
            scale = np.array([spot[0], width, width, width, *3 * [spot[0]]])
            step = scale * np.linalg.lstsq(slopes * scale, rest - bell - plane @ spot[4:], rcond=1e-9)[0]
            spot += np.concatenate([np.clip(step[:4], -0.3 * scale[:4], 0.3 * scale[:4]), step[4:]])
            if not (spot[0] > 0 and WIDTHS[0] * width <= spot[3] <= WIDTHS[1] * width):
                break
        out[index] = spot
    return out


def _apart(spots: np.ndarray, frame: Frame, width: float) -> np.ndarray:
    """The higher of two that are one, and none whose middle lies outside or whose fit got lost."""
    pixel = float(frame.x[1] - frame.x[0])
    good = (spots[:, 0] > 0) & (spots[:, 3] >= WIDTHS[0] * width) & (spots[:, 3] <= WIDTHS[1] * width)
    for column, along in ((1, frame.x), (2, frame.y)):
        good &= (spots[:, column] >= along[0] - pixel / 2) & (spots[:, column] <= along[-1] + pixel / 2)
    kept: list[np.ndarray] = []
    for spot in spots[good][np.argsort(-spots[good, 0])]:
        if all(np.hypot(*(spot[1:3] - other[1:3])) >= APART * width for other in kept):
            kept.append(spot)
    return np.array(kept).reshape(-1, SPOT)


def _plausible(frame: Frame, level: np.ndarray, spots: np.ndarray, noise: float, least: float, width: float) -> np.ndarray:
    """Which of the spots look like adatoms, (n,) bool."""
    good = (spots[:, 0] >= least) & (spots[:, 0] <= MOST * least) & (spots[:, 3] >= PLAUSIBLE[0] * width) & (spots[:, 3] <= PLAUSIBLE[1] * width)
    for index in np.flatnonzero(good):
        spot, (x, y, rest) = spots[index], _window(frame, level, spots, int(index), width)
        bell, right, up = _bell(spot, x, y), (x - spot[1]) / spot[3], (y - spot[2]) / spot[3]
        left = rest - bell - _plane(spot, x, y, width) @ spot[4:]
        oval = np.linalg.lstsq(np.stack([bell * (right**2 - up**2), bell * 2 * right * up], 1), left, rcond=None)[0]  # a width that depends on the direction
        shaky = noise / spot[0]
        good[index] = np.hypot(*oval) <= OVAL[0] + OVAL[1] * shaky and np.std(left) <= spot[0] * (RESIDUAL[0] + RESIDUAL[1] * shaky) and np.hypot(*spot[5:]) <= TILT * spot[0]
    return good


class Names:
    """Which adatom is which, from one image to the next. jump: m that one may have moved. One that FORGOTTEN images in a row miss gives its number up."""

    def __init__(self, jump: float):
        self.jump, self.known, self.missed = jump, np.full((0, 2), np.nan), np.zeros(0, int)
        self.told, self.loose = False, np.zeros(0, bool)  # whether somebody tells of drags; who may have moved since it was seen

    def dragged(self, start: np.ndarray, end: np.ndarray) -> None:
        """The tip went from one place (2,) m to another near the surface: from now on only adatoms near its way can have moved."""
        self.told, way = True, end - start
        share = np.clip((self.known - start) @ way / max(float(way @ way), 1e-30), 0.0, 1.0)
        self.loose |= np.hypot(*(self.known - start - share[:, None] * way).T) <= TOUCHED

    def named(self, found: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
        """(position (count, 2) m, found (count,)) of adatoms (n, 2) m; an adatom keeps its number, also over images that miss it. Zeros where none was found.

        Raises InstrumentFault when there are more: nobody can say which of them are meant.
        """
        if len(found) > count:
            raise InstrumentFault(_too_many(found, count))
        if len(self.known) != count:  # other numbers are meant
            self.known, self.missed, self.loose = np.full((count, 2), np.nan), np.zeros(count, int), np.zeros(count, bool)
        self.known[self.missed >= FORGOTTEN] = np.nan
        position, seen, free = np.zeros((count, 2)), np.zeros(count, bool), list(range(len(found)))
        far = np.hypot(*np.moveaxis(self.known[:, None] - found[None], -1, 0))
        most = np.where(self.loose | (not self.told), self.jump, min(STILL, self.jump))
        far = np.where(far <= most[:, None], far, np.inf)
        while np.isfinite(far).any():
            name, at = np.unravel_index(np.argmin(far), far.shape)
            position[name], seen[name] = found[at], True
            far[name], far[:, at] = np.inf, np.inf
            free.remove(int(at))
        for name in np.flatnonzero(np.isnan(self.known[:, 0])):  # numbers that nobody has
            if free:
                position[name], seen[name] = found[free.pop(0)], True
        self.known[seen], self.loose[seen] = position[seen], False
        self.missed = np.where(seen, 0, self.missed + 1)
        return position, seen


def _too_many(found: np.ndarray, count: int) -> str:
    """What to say of more adatoms than there should be."""
    told = f"the image shows {len(found)} adatoms where {count} are expected"
    ghost = doubled(found)
    if ghost is None:
        return f"{told}: clear the view of others and of debris, or expect them all"
    return f"{told}, each of them twice, {1e9 * np.hypot(*ghost):.2f} nm apart: the tip is double, treat it first"


def doubled(found: np.ndarray) -> np.ndarray | None:
    """The vector (2,) m from one atom of a double tip to the other, where it explains all adatoms (n, 2) m but one at an edge as pairs, two at least; else None.

    A regular arrangement of adatoms has such vectors, too: to be asked only where there are more than there should be.
    """
    ways = found[None] - found[:, None]
    best = None
    for first, second in np.argwhere(np.triu(np.hypot(*np.moveaxis(ways, -1, 0)) <= GHOST, 1)):
        fits = np.hypot(*np.moveaxis(ways - ways[first, second], -1, 0)) <= SAME
        pairs, free = 0, np.ones(len(found), bool)
        for one, other in np.argwhere(fits):
            if free[one] and free[other]:
                free[[one, other]], pairs = False, pairs + 1
        if pairs >= 2 and free.sum() <= len(found) // 4 and (best is None or pairs > best[0]):
            best = (pairs, ways[first, second])
    return None if best is None else best[1]
