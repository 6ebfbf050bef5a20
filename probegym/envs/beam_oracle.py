"""The best next dwell for someone who knows the rates: most bonds nearer to the goal for the time of dwell and image.

Up to two jumps in a dwell are followed: exponential waiting times with the total rate of every site on the way.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from probegym.envs import beam_lattice
from probegym.envs.beam_settings import BOND, Settings
from probegym.hardware_bridge.commands import Lanes

HALF, PER_BOND = 16, 8  # the lobe reaches two bonds to all sides, eight samples to a bond
DWELLS = 10
AT_GOAL = 0.5  # bonds that it is worth to stand at the goal and not next to it
LANES = 128  # at a time, which keeps the tables in the cache


@cache
def _candidates() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Places of the beam (places, 2) in bonds; where the lobe is read for them: (12, places, 4) indices and weights.

    The first three readings are jumps from where the atom is, the others those from each neighbour in turn.
    """
    grid = np.mgrid[-HALF : HALF + 1 : 2, -HALF : HALF + 1 : 2].reshape(2, -1).T / PER_BOND
    places = grid[np.hypot(*grid.T) <= HALF / PER_BOND]
    x_axis = np.array([1.0, 0.0])
    u = beam_lattice.bonds(x_axis)
    views = [beam_lattice.seen_from(places, u[k]) for k in range(3)]
    views += [beam_lattice.seen_from(places - u[k], -u[j]) for k in range(3) for j in range(3)]
    at = np.stack(views) * PER_BOND + HALF
    low = np.floor(at).astype(int)
    part, size = at - low, 2 * HALF + 1
    indices, weights = [], []
    for a in (0, 1):
        for c in (0, 1):
            corner = low + np.array([a, c])
            inside = ((corner >= 0) & (corner < size)).all(-1)
            weight = np.abs(1 - a - part[..., 0]) * np.abs(1 - c - part[..., 1])
            indices.append(np.where(inside, corner[..., 0] * size + corner[..., 1], 0))
            weights.append(np.where(inside, weight, 0.0))
    return places, np.stack(indices, -1), np.stack(weights, -1)


def value(bonds: np.ndarray) -> np.ndarray:
    """Cost (...) of being ``bonds`` (..., 3) away."""
    away = np.abs(bonds).sum(-1)
    return away + AT_GOAL * (away > 0)


def progress(lobe: np.ndarray, bonds: np.ndarray, dwells: np.ndarray, image: float) -> np.ndarray:
    """Expected fall of :func:`value` per second, (lanes, dwells, places), of every candidate.

    lobe: (lanes, 33, 33) rates in 1/s. bonds: (lanes, 3) to the goal, along the bonds clockwise in the image from the x axis. dwells: (dwells,) s.
    """
    _, index, weight = _candidates()
    rate = (lobe.reshape(len(lobe), -1)[:, index] * weight).sum(-1)  # (lanes, 12, places)
    first, second = rate[:, :3], rate[:, 3:].reshape(len(lobe), 3, 3, -1)
    leave, on = first.sum(1), second.sum(2)
    unit = np.eye(3)
    gain_one = (value(bonds)[:, None] - value(bonds[:, None] - unit))[..., None]
    gain_two = (value(bonds)[:, None, None] - value(bonds[:, None, None] - unit[:, None] + unit))[..., None]
    share = second / np.maximum(on, 1e-12)[:, :, None]
    out = np.empty((len(lobe), len(dwells), rate.shape[2]))
    for number, dwell in enumerate(dwells):
        gone = -np.expm1(-leave * dwell)
        reached = first / np.maximum(leave, 1e-12)[:, None] * gone[:, None]
        apart = np.maximum(np.abs(on - leave[:, None]) * dwell, 1e-6)  # where both are equal, as by symmetry, the mean over the dwell is the value
        mean = np.exp(-np.minimum(on, leave[:, None]) * dwell) * -np.expm1(-apart) / apart
        there = np.minimum(first * dwell * mean, reached)
        further = (reached - there)[:, :, None] * share
        out[:, number] = ((there * gain_one).sum(1) + (further * gain_two).sum((1, 2))) / (dwell + image)
    return out


def best(settings: Settings, truth: Lanes, memory: Lanes) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Place (lanes, 2) m from the atom as located, dwell (lanes,) s and atom (lanes,) with the fastest progress; the true place is hit exactly."""
    d, lanes, n = settings.dwell, len(memory["left"]), settings.atoms
    dwells = d.shortest * (d.longest / d.shortest) ** np.linspace(0, 1, DWELLS)
    places = _candidates()[0]
    score, pick = np.full((lanes, n), -np.inf), np.zeros((lanes, n), int)
    under_way = np.flatnonzero(~memory["reached"])
    for first in range(0, len(under_way), LANES):
        some = under_way[first : first + LANES]
        for atom in range(n):
            rates = progress(truth["lobe"][some], memory["bonds"][some, atom], dwells, settings.frame.duration).reshape(len(some), -1)
            pick[some, atom], score[some, atom] = rates.argmax(1), rates.max(1)
    score[(memory["bonds"] == 0).all(2)] = -1.0  # an atom at its goal stays there while another one has a way to go
    atom, lane = score.argmax(1), np.arange(lanes)
    dwell, place = dwells[pick[lane, atom] // len(places)], places[pick[lane, atom] % len(places)]
    covered = ~memory["found"][lane, atom] & truth["covered"][lane, atom]
    place, dwell = np.where(covered[:, None], 0.0, place), np.where(covered, d.longest, dwell)
    axis = memory["axis"][lane, atom]
    wanted = truth["position"][lane, atom] + BOND * beam_lattice.turned(place, axis) + truth["velocity"] * (0.5 * dwell)[:, None] - truth["offset"]
    frame = axis if settings.axes == "lattice" else np.array([[1.0, 0.0]])
    return beam_lattice.seen_from(wanted - memory["located"][lane, atom], frame), dwell, atom
