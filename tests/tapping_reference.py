"""An independent integration of the tapping tip: one mode, Runge-Kutta, forces from ``physics.tip_forces``; slow, many lanes at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from probegym.physics import tip_forces

STEPS = 300  # per cycle


@dataclass(frozen=True)
class Steady:
    """Last cycle of a tip that has settled; every array (lanes,).

    amplitude: m. phase: lag, rad. dissipated: energy per cycle, J. virial: <F q>, J. mean, peak: force, N. deflection: mean, m.
    """

    amplitude: np.ndarray
    phase: np.ndarray
    dissipated: np.ndarray
    virial: np.ndarray
    mean: np.ndarray
    peak: np.ndarray
    deflection: np.ndarray


def steady(stiffness, quality: float, drive, distance, interaction: tip_forces.Interaction, omega, cycles: int | None = None) -> Steady:
    """The steady state of m q'' + m w0/Q q' + k q = k A0/Q cos(w0 t) + F(distance + q, q'), started from free oscillation.

    stiffness: of the mode, N/m; drive: free amplitude A0, m; distance: m; numbers or (lanes,). Time in units of 1 / w0.
    """
    lanes = np.broadcast_shapes(*(np.shape(v) for v in (stiffness, drive, distance, *vars(interaction).values())))
    drive = np.broadcast_to(np.asarray(drive, float), lanes)
    cycles = cycles or int(np.ceil(16 * quality / np.pi))
    h, q, v, neck = 2 * np.pi / STEPS, np.zeros(lanes), drive.copy(), np.zeros(lanes, bool)
    hold = 3 * drive  # the sample comes near during the first fifth
    sums = dict.fromkeys(("cos", "sin", "work", "virial", "mean", "deflection"), 0.0)
    peak = np.full(lanes, -np.inf)

    def tip(q, v, at):
        return tip_forces.force(at + q, interaction, omega * v, neck)

    def acceleration(q, v, t, at):
        return drive / quality * np.cos(t) - v / quality - q + tip(q, v, at) / stiffness

    for n in range(cycles * STEPS):
        t = (n % STEPS) * h
        at = distance + hold * max(0.0, 1 - 5 * n / (cycles * STEPS))
        neck = (at + q < interaction.neck_on) | (neck & (at + q < interaction.neck_off))
        if n >= (cycles - 1) * STEPS:
            force = tip(q, v, at)
            for name, value in (("cos", 2 * q * np.cos(t)), ("sin", 2 * q * np.sin(t)), ("work", 2 * np.pi * force * v), ("virial", force * q),
                                ("mean", force), ("deflection", q)):  # fmt: skip
                sums[name] = sums[name] + value / STEPS
            peak = np.maximum(peak, force)
        a1 = acceleration(q, v, t, at)
        a2 = acceleration(q + h / 2 * v, v + h / 2 * a1, t + h / 2, at)
        a3 = acceleration(q + h / 2 * v + h * h / 4 * a1, v + h / 2 * a2, t + h / 2, at)
        a4 = acceleration(q + h * v + h * h / 2 * a2, v + h * a3, t + h, at)
        q, v = q + h * v + h * h / 6 * (a1 + a2 + a3), v + h / 6 * (a1 + 2 * a2 + 2 * a3 + a4)
    amplitude, phase = np.hypot(sums["cos"], sums["sin"]), np.arctan2(sums["sin"], sums["cos"])
    return Steady(amplitude, phase, -sums["work"], sums["virial"], sums["mean"], peak, sums["deflection"])
