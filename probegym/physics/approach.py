"""Approach curves of the tapping mode: amplitude, phase and peak force against the distance of the resting cantilever.

Every distance is held until the amplitude has settled, with the state of the distance before as the start: where two states
coexist, a curve that comes down and goes up again shows both branches.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from probegym.physics import tapping
from probegym.physics.tapping import Setup, Trace, Track

SETTLE = 2.0
"""Cycles over Q that a distance is held before it is read, and again while it is read: 6 Q / pi is 1.9 Q."""


def curve(setup: Setup, distances: np.ndarray, hamaker, modulus, viscosity=0.0, *, direct: bool = False, settle: float = SETTLE, **options) -> Trace:
    """Steady states along ``distances`` (lanes, n), m, of the resting cantilever above the sample; every Trace array (lanes, n).

    hamaker: J, modulus: Pa, viscosity: Pa s, numbers or (lanes,). direct: by ``tapping.scan_direct``, else by
    ``tapping.scan``; options go there. Feedback and piezo of the setup are not used. Lanes should share a quality factor.
    """
    distances = np.atleast_2d(np.asarray(distances, float))
    lanes, cycles = len(distances), int(np.ceil(settle * np.max(setup.quality)))
    held = np.repeat(distances, 2, axis=1)
    free = replace(setup, feed_forward=1.0, proportional=0.0, integral=0.0, piezo_frequency=0.0, creep=0.0, z_range=4 * np.abs(held).max(),
                   bandwidth=np.asarray(setup.frequency) / 10)  # fmt: skip
    h, e, eta = (np.broadcast_to(np.asarray(v, float).reshape(-1, 1), held.shape) for v in (hamaker, modulus, viscosity))
    track = Track(np.zeros_like(held), h, e, eta, held)
    state = tapping.rest(free, lanes, distances[:, 0])
    state["integral"][:] = 0
    if direct:
        _, trace = tapping.scan_direct(free, state, track, cycles, **options)
    else:
        period = cycles / (np.asarray(setup.frequency, float) * setup.detuning)
        _, trace = tapping.scan(free, state, track, np.broadcast_to(period, (lanes,)), np.zeros(lanes, np.uint64), **options)
    return Trace(*(v[:, 1::2] for v in vars(trace).values()))


def crossings(distances: np.ndarray, phase: np.ndarray) -> list[float]:
    """Distances, m, at which the phase passes 90 degrees: where the tip goes from one branch to the other; in order of the curve."""
    found = []
    for i in np.nonzero((phase[1:] < np.pi / 2) != (phase[:-1] < np.pi / 2))[0]:
        share = (np.pi / 2 - phase[i]) / (phase[i + 1] - phase[i])
        found.append(float(distances[i] + share * (distances[i + 1] - distances[i])))
    return found
