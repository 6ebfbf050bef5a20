"""Adatoms in an image at constant current: a matched filter finds them, a fit of Gaussians places them between the pixels, and memory names them.

A point feature appears as a Gaussian (Tersoff & Hamann 1985, 10.1103/PhysRevB.31.805). An image's tilt and the jumps from line to line are taken
out first. Who is who follows from the places before: the shortest ways first, as what was not dragged did not move.
"""

from __future__ import annotations

import numpy as np

from probegym.hardware_bridge.instruments.nanonis.images import Frame

SHARE = 0.6  # of the least height that a maximum of the matched filter must have
WIDTHS = (0.4, 2.0)  # of the expected width that a fitted one may have
APART = 1.5  # widths between two adatoms at least
WINDOW = 2.5  # widths around a place that a fit sees
SIGNIFICANT = 5.0  # standard deviations of the noise that an adatom stands out by
FORGOTTEN = 3
SWEEPS, STEPS = 3, 4  # over all adatoms, and of each fit


def levelled(height: np.ndarray) -> np.ndarray:
    """Heights (rows, columns) without tilt, and with the median of every line at zero."""
    columns = height.shape[1]
    along = np.arange(columns) - (columns - 1) / 2
    half = columns // 2
    slope = np.median(height[:, columns - half :] - height[:, :half]) / (columns - half)
    level = height - slope * along
    return np.asarray(level - np.median(level, axis=1, keepdims=True))


def places(frame: Frame, least: float, width: float) -> np.ndarray:
    """Adatoms (n, 2) m in an image, the highest first. least: m that they stand out by; width: m, standard deviation of one."""
    level, pixel = levelled(frame.height), float(frame.x[1] - frame.x[0])
    noise = 1.4826 * float(np.median(np.abs(np.diff(level, axis=1)))) / np.sqrt(2)
    kernels = [_kernel(along, width) for along in (frame.y, frame.x)]
    answer = (kernels[0] @ level @ kernels[1].T) / np.outer((kernels[0] ** 2).sum(1), (kernels[1] ** 2).sum(1))
    peaks = _maxima(answer, max(1, round(0.75 * width / pixel)), max(SHARE * least, SIGNIFICANT * noise * pixel / width))
    atoms = np.array([[answer[at], frame.x[at[1]], frame.y[at[0]], width] for at in peaks]).reshape(-1, 4)
    for _ in range(SWEEPS):
        atoms = _kept(_fitted(frame, level, atoms, width), frame, least, width)
    return np.asarray(atoms[np.argsort(-atoms[:, 0]), 1:3])


def _kernel(along: np.ndarray, width: float) -> np.ndarray:
    return np.asarray(np.exp(-0.5 * ((along[:, None] - along) / width) ** 2))


def _maxima(answer: np.ndarray, reach: int, least: float) -> list[tuple[int, int]]:
    """Pixels that nothing within ``reach`` pixels is above."""
    rows, columns = answer.shape
    wide = np.pad(answer, reach, constant_values=-np.inf)
    around = np.max([wide[i : i + rows, j : j + columns] for i in range(2 * reach + 1) for j in range(2 * reach + 1)], axis=0)
    return [(int(i), int(j)) for i, j in np.argwhere((answer >= around) & (answer > least))]


def _model(atom: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.asarray(atom[0] * np.exp(-0.5 * ((x - atom[1]) ** 2 + (y - atom[2]) ** 2) / atom[3] ** 2))


def _fitted(frame: Frame, level: np.ndarray, atoms: np.ndarray, width: float) -> np.ndarray:
    """Every adatom (height, x, y, width) by Gauss-Newton on what the others leave, with a level of its own."""
    x, y = np.meshgrid(frame.x, frame.y)
    out = atoms.copy()
    for index in range(len(out)):
        near = np.hypot(x - out[index, 1], y - out[index, 2]) <= WINDOW * width
        here, there = x[near], y[near]
        rest = level[near] - sum((_model(other, here, there) for i, other in enumerate(out) if i != index), np.zeros(here.shape))
        atom, floor = out[index].copy(), 0.0
        for _ in range(STEPS):
            bell = _model(atom, here, there)
            right, up = (here - atom[1]) / atom[3], (there - atom[2]) / atom[3]
            slopes = np.stack([bell / atom[0], bell * right / atom[3], bell * up / atom[3], bell * (right**2 + up**2) / atom[3], np.ones_like(bell)], 1)
            scale = np.array([atom[0], width, width, width, atom[0]])
            step = scale * np.linalg.lstsq(slopes * scale, rest - bell - floor, rcond=1e-9)[0]
            atom, floor = atom + np.clip(step[:4], -0.3 * scale[:4], 0.3 * scale[:4]), floor + step[4]
            if not (atom[0] > 0 and WIDTHS[0] * width <= atom[3] <= WIDTHS[1] * width):
                break
        out[index] = atom
    return out


def _kept(atoms: np.ndarray, frame: Frame, least: float, width: float) -> np.ndarray:
    """Those that look like adatoms, the higher of two that are one, and none whose middle lies outside."""
    pixel = float(frame.x[1] - frame.x[0])
    good = (atoms[:, 0] >= least) & (atoms[:, 3] >= WIDTHS[0] * width) & (atoms[:, 3] <= WIDTHS[1] * width)
    for column, along in ((1, frame.x), (2, frame.y)):
        good &= (atoms[:, column] >= along[0] - pixel / 2) & (atoms[:, column] <= along[-1] + pixel / 2)
    kept: list[np.ndarray] = []
    for atom in atoms[good][np.argsort(-atoms[good, 0])]:
        if all(np.hypot(*(atom[1:3] - other[1:3])) >= APART * width for other in kept):
            kept.append(atom)
    return np.array(kept).reshape(-1, 4)


class Names:
    """Which adatom is which, from one image to the next. jump: m that one may have moved. One that FORGOTTEN images in a row miss gives its number up."""

    def __init__(self, jump: float):
        self.jump, self.known, self.missed = jump, np.full((0, 2), np.nan), np.zeros(0, int)

    def named(self, found: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
        """(position (count, 2) m, found (count,)) of adatoms (n, 2) m; an adatom keeps its number, also over images that miss it. Zeros where none was found."""
        if len(self.known) != count:  # other numbers are meant
            self.known, self.missed = np.full((count, 2), np.nan), np.zeros(count, int)
        self.known[self.missed >= FORGOTTEN] = np.nan
        position, seen, free = np.zeros((count, 2)), np.zeros(count, bool), list(range(len(found)))
        far = np.hypot(*np.moveaxis(self.known[:, None] - found[None], -1, 0))
        far = np.where(far <= self.jump, far, np.inf)
        while np.isfinite(far).any():
            name, at = np.unravel_index(np.argmin(far), far.shape)
            position[name], seen[name] = found[at], True
            far[name], far[:, at] = np.inf, np.inf
            free.remove(int(at))
        for name in np.flatnonzero(np.isnan(self.known[:, 0])):  # numbers that nobody has
            if free:
                position[name], seen[name] = found[free.pop(0)], True
        self.known[seen] = position[seen]
        self.missed = np.where(seen, 0, self.missed + 1)
        return position, seen
