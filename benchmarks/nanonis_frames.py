"""Images at constant current of adatoms among what passes for adatoms, with what is really there; and how a finder does on them."""

from __future__ import annotations

import numpy as np

from probegym.hardware_bridge.instruments.nanonis.images import Frame
from probegym.physics import stm
from probegym.physics.stm_surfaces import FIELDS

KINDS = ("clean", "double", "debris", "pair", "steps", "moire", "herringbone")
HEIGHT, LEAST, WIDTH = 0.09e-9, 50e-12, 0.25e-9  # m: of an adatom; the settings of a driver
VIEW, PIXELS, SPEED, POINT = 9e-9, 64, 50e-9, (0.5, 50e-12)  # m, pixels, m/s, V and A
NEAR = 0.1e-9  # m within which an adatom counts as found


def spread(rng, count, least, half, taken=()):
    """Places (count, 2) m within ``half``, ``least`` apart from each other and from what is there."""
    found = [np.asarray(place, float) for place in taken]
    while len(found) < count + len(taken):
        place = rng.uniform(-half, half, 2)
        if all(np.hypot(*(place - other)) >= least for other in found):
            found.append(place)
    return np.array(found[len(taken) :]).reshape(-1, 2)


def frame(kind, seed, count=4):
    """(Frame, adatoms that can be told apart (n, 2) m, adatoms that cannot (m, 2) m)."""
    rng = np.random.default_rng(seed)
    lone, half = spread(rng, count, 1.6e-9, 0.4 * VIEW), 0.5 * VIEW
    placed = [np.column_stack([lone, np.full(count, HEIGHT), np.zeros(count)])]
    close = np.zeros((0, 2))
    surface = {"terrace_width": 1.0, "meander_period": 1e-6}
    apex = np.zeros((1, 2, 2, 4))
    apex[..., 3] = 4.5
    apex[..., 1, 2] = 5e-9  # one atom alone
    if kind == "double":
        angle, far = rng.uniform(0, 2 * np.pi), rng.uniform(0.6e-9, 1.0e-9)
        apex[..., 1, :3] = *(far * np.array([np.cos(angle), np.sin(angle)])), rng.uniform(0.0, 10e-12)
    elif kind == "debris":
        grains = spread(rng, 5, 1.6e-9, half, lone)
        u = rng.uniform(size=(5, 2))
        placed.append(np.column_stack([grains, 0.1e-9 + 0.9e-9 * u[:, 0] ** 2, 0.2e-9 + 0.8e-9 * u[:, 1]]))  # as twins/stm.py draws it
    elif kind == "pair":
        middle, angle = spread(rng, 1, 1.8e-9, 0.4 * VIEW, lone)[0], rng.uniform(0, 2 * np.pi)
        off = rng.uniform(0.15e-9, 0.25e-9) * np.array([np.cos(angle), np.sin(angle)])
        close = np.array([middle + off, middle - off])
        placed.append(np.column_stack([close, np.full(2, HEIGHT), np.zeros(2)]))
    elif kind == "steps":
        surface = {"step_height": 0.236e-9, "terrace_width": rng.uniform(4e-9, 8e-9), "direction": rng.uniform(0, 6.28), "meander": 0.5e-9, "meander_period": 12e-9}
    elif kind == "herringbone":
        surface |= {"reconstruction": 20e-12, "direction": rng.uniform(0, 6.28)}
    fields = np.array([[surface.get(name, 0.0) for name in FIELDS]])
    noise = np.array([[0.02, 3e-12, 3e-12, 600.0]])
    image = stm.topographs(
        apex, np.zeros((1, 2, 3)), np.array([PIXELS]), np.zeros(1), fields, np.array([seed], np.uint64), np.zeros((1, 2)), np.zeros((1, 2)), noise,
        np.array([seed + 1], np.uint64), np.concatenate(placed)[None], (PIXELS, PIXELS), VIEW, 2 * VIEW / SPEED, *POINT,
    )[0].astype(float)  # fmt: skip
    along = VIEW * ((np.arange(PIXELS) + 0.5) / PIXELS - 0.5)
    if kind == "moire":
        period, turn = rng.uniform(2e-9, 3e-9), rng.uniform(0, 2 * np.pi)
        waves = [2 * np.pi / period * np.array([np.cos(turn + a), np.sin(turn + a)]) for a in (0, np.pi / 3, 2 * np.pi / 3)]
        image += 10e-12 * sum(np.cos(k[0] * along + k[1] * along[:, None]) for k in waves)
    return Frame(image, along, along), lone, close


def judged(found, lone, close):
    """(missed, false, m that those found are off) of what a finder says (n, 2) m."""
    atoms = np.concatenate([lone, close])
    far = np.hypot(*np.moveaxis(atoms[:, None] - found[None], -1, 0)) if len(found) else np.full((len(atoms), 1), np.inf)
    hit = far.min(1) <= NEAR
    return int((~hit[: len(lone)]).sum()), int((far.min(0) > NEAR).sum()) if len(found) else 0, far.min(1)[hit]
