"""Where the atoms are and what is left to do, as the images tell it: the lattice, the drift, goals, who goes where.

Everything works on a task's memory ``m`` of many lanes, and changes those in ``on``. Lengths in m unless said otherwise.
"""

from __future__ import annotations

from functools import cache
from itertools import permutations

import numpy as np

from probegym.envs import beam_lattice
from probegym.envs.beam_settings import BOND, Settings
from probegym.envs.frames import grey_levels
from probegym.hardware_bridge.commands import Lanes, Readings

FINDER_ERROR, DRIFT = 8e-12, 4e-12  # m, and m/s at the start: standard deviations per axis that the filter takes for granted


def memory(lanes: int, n: int) -> Lanes:
    """What is kept of n atoms: places from the first atom's (``at``, ``goals``), that one's (``anchor``), and how far the sample has drifted since (``shift``)."""
    shapes: dict[str, tuple[int, ...]] = {
        "axis": (n, 2), "at": (n, 2), "located": (n, 2), "goals": (n, 2), "goal": (n, 2), "bonds": (n, 3), "folds": (n,),
        "anchor": (2,), "shift": (2,), "velocity": (2,), "variances": (3,), "centre": (2,), "tried": (2,), "place": (2,), "outcome": (5,), "anchored": (),
        "elapsed": (), "dwelt": (), "treated": (), "missing": (), "images": (), "left": (), "left_before": (), "moves": (), "dwells": (),
        "image_time": (), "dwell_overhead": (),
    }  # fmt: skip
    flags = {"found": np.zeros((lanes, n), bool), "reached": np.zeros(lanes, bool), "key": np.zeros(lanes, np.uint64)}
    return {name: np.zeros((lanes, *shape)) for name, shape in shapes.items()} | flags


@cache
def _orders(n: int) -> np.ndarray:
    return np.array(list(permutations(range(n))))


def keep_image(m: Lanes, taken: Readings, on: np.ndarray) -> None:
    """How long images took, (lanes,) s; and their grey levels (lanes, rows, columns), where the task shows some. on: (lanes,) bool."""
    m["image_time"][on] = taken.time[on]
    if "image" in m:
        m["image"][on] = grey_levels(taken.values["image"][on])[0]


def begin(s: Settings, m: Lanes, taken: Readings, on: np.ndarray) -> None:
    """Lay goals out on the lattice around the first atom; on: (lanes,) bool."""
    from probegym.physics import randomness

    located = taken.values["position"][on]
    towards = taken.values["neighbours"][on]
    axis = towards[:, :, 0] / np.hypot(*np.moveaxis(towards[:, :, 0], -1, 0))[..., None]
    relative = (located - located[:, :1]) / BOND
    at = beam_lattice.site(beam_lattice.steps(relative, axis[:, :1]), axis[:, :1])
    u = randomness.uniform(m["key"][on], 0, "goals", s.atoms)
    half, radius = 0.5 * s.goal_field * s.frame.field_of_view, min(s.goal_distance, 1.5 * s.frame.field_of_view)
    goals = beam_lattice.goals(u, axis[:, 0], at, located[:, 0] / BOND, half / BOND, radius / BOND)
    m["anchor"][on], m["anchored"][on] = located[:, 0], m["elapsed"][on] - 0.5 * taken.time[on]
    m["at"][on], m["goals"][on], m["axis"][on] = BOND * at, BOND * goals, axis
    m["variances"][on] = FINDER_ERROR**2, 0.0, DRIFT**2
    m["located"][on], m["found"][on], m["folds"][on] = located, True, taken.values["folds"][on]
    aim(s, m, taken, on)
    m["left_before"][on] = m["left"][on]


def follow(s: Settings, m: Lanes, taken: Readings, on: np.ndarray, passed: np.ndarray) -> None:
    """From the places in the new image: which atom went where, and how the sample drifts (Kalman filter). on: (lanes,) bool; passed: (lanes,) s since the image before."""
    found = taken.values["found"] & on[:, None]
    expected = m["shift"] + m["velocity"] * passed[:, None]
    apart = (taken.values["position"] - (m["anchor"] + expected)[:, None] - m["at"]) / BOND
    count = beam_lattice.steps(apart, m["axis"])
    between = (taken.values["folds"] == 4) & (np.hypot(apart[..., 0], apart[..., 1]) < 0.8)  # a fourfold Si leans to its vacancy
    count[~found | between] = 0
    hop = beam_lattice.site(count, m["axis"])
    telling = found & ~between
    error = ((apart - hop) * telling[..., None]).sum(1) * (BOND / np.maximum(telling.sum(1), 1))[:, None]
    gain, variances = _gain(m["variances"], passed, telling.sum(1))
    m["shift"][on] = (expected + gain[:, :1] * error)[on]
    m["velocity"][on] += (gain[:, 1:] * error)[on]
    m["variances"][on] = variances[on]
    m["images"] += on
    lane = np.arange(len(on))
    of = m["treated"].astype(int)
    kinds = np.concatenate([np.zeros((1, 3)), np.eye(3)])
    outcome = (count[lane, of][:, None] == kinds).all(2)
    outcome = np.concatenate([outcome, ~outcome.any(1, keepdims=True)], 1) & found[lane, of][:, None]
    m["outcome"][on] = outcome[on]
    m["moves"] += (count != 0).any(2).sum(1)
    m["at"] += BOND * hop
    m["located"] = np.where(found[..., None], taken.values["position"], m["located"] + on[:, None, None] * (m["velocity"] * passed[:, None])[:, None])
    m["found"][on], m["missing"][on] = found[on], np.where(found.all(1), 0, m["missing"] + 1)[on]
    m["folds"] = np.where(found, taken.values["folds"], m["folds"])


def watch(s: Settings, m: Lanes, taken: Readings, on: np.ndarray) -> None:
    """An image before the first step, for the sake of the drift alone; on: (lanes,) bool."""
    keep_image(m, taken, on)
    follow(s, m, taken, on, taken.time)
    aim(s, m, taken, on)
    m["outcome"][on], m["images"][on], m["moves"][on] = 0, 0, 0


def _gain(variances: np.ndarray, passed: np.ndarray, atoms: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Kalman gains (lanes, 2) for shift and velocity, and the new variances (lanes, 3) of shift, both, velocity."""
    shift, both, velocity = variances.T
    shift, both = shift + 2 * passed * both + passed**2 * velocity, both + passed * velocity
    gain = np.stack([shift, both], 1) * ((atoms > 0) / (shift + FINDER_ERROR**2 / np.maximum(atoms, 1)))[:, None]
    return gain, np.stack([shift * (1 - gain[:, 0]), both * (1 - gain[:, 0]), velocity - gain[:, 1] * both], 1)


def aim(s: Settings, m: Lanes, taken: Readings, on: np.ndarray) -> None:
    """Which atom goes to which goal (least bonds in all), the bond that points to it, and where the next image is taken."""
    lane, known = np.arange(len(on)), m["found"] & on[:, None]
    apart = (m["goals"][:, None] - m["at"][:, :, None]) / BOND
    towards = taken.values["neighbours"] / BOND
    axis = np.where(known[..., None], towards[:, :, 0], m["axis"])
    bonds = beam_lattice.steps(apart, axis[:, :, None])
    total, orders = np.abs(bonds).sum(3), _orders(s.atoms)
    order = orders[sum(total[:, i, orders[:, i]] for i in range(s.atoms)).argmin(1)]
    each = np.arange(s.atoms)
    goal = apart[lane[:, None], each, order]
    directions = beam_lattice.bonds(axis)
    nearest = (directions * goal[:, :, None]).sum(3).argmax(2)
    m["axis"][on] = directions[lane[:, None], each, nearest][on]
    turn = (nearest[..., None] + np.arange(3)) % 3
    m["bonds"][on] = np.take_along_axis(bonds[lane[:, None], each, order], turn, 2)[on]
    m["goal"][on] = goal[on]
    m["left_before"][on] = m["left"][on]
    m["left"][on] = np.abs(m["bonds"]).sum((1, 2))[on]
    m["reached"][on] = m["left"][on] == 0
    outside = np.abs(m["located"] - m["centre"][:, None]).max((1, 2)) > 0.5 * s.frame.follow * s.frame.field_of_view
    m["centre"] = np.where((on & outside)[:, None], 0.5 * (m["located"].max(1) + m["located"].min(1)), m["centre"])


def goal_map(s: Settings, m: Lanes) -> np.ndarray:
    """(lanes, rows, columns) uint8 with a spot of one bond length at every goal; those outside the field show at its edge."""
    f = s.frame
    goals = m["goals"] + (m["anchor"] + m["shift"] - m["centre"])[:, None]
    x = (np.arange(f.pixels) - 0.5 * (f.pixels - 1)) * f.field_of_view / f.pixels
    inside = np.clip(goals, x[0], x[-1])
    spots = np.exp(-0.5 * ((x - inside[..., None]) / (0.5 * BOND)) ** 2).astype(np.float32)  # (lanes, goals, x and y, pixels)
    return (255 * (spots[:, :, 1, :, None] * spots[:, :, 0, None, :]).max(1)).astype(np.uint8)
