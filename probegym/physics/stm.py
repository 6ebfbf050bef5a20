"""Tunnelling through an apex of several atoms, and constant-current images with feedback, noise and unstable tips.

Every atom i of the apex has its own place (x_i, y_i), its retraction h_i behind the foremost one and its own barrier
phi_i. With kappa_i = sqrt(2 m phi_i) / hbar and S_i the surface under it, the height z that holds the current solves

    sum_i exp(-2 kappa_i (z + h_i - S_i(x + x_i, y + y_i))) = I / I_0,

where I_0 is the setpoint at which the tip of one clean atom would stand at z = S. So one atom reproduces the surface, two
equal ones show it twice, ten times the current brings the tip ln 10 / (2 kappa) closer. A point feature appears as a
Gaussian of variance (r + d) / (2 kappa), r the radius of the apex atom and d the gap (Tersoff & Hamann 1985,
10.1103/PhysRevB.31.805), so a low barrier blurs. The same barrier turns noise of the current into noise of the height,
delta I / I / (2 kappa), and slows the feedback, whose loop gain goes with kappa (Tajaddodianfar, Moheimani, Owen & Randall 2018,
10.1063/1.5003851).
"""

from __future__ import annotations

import ctypes

import numpy as np
from scipy import constants

from probegym.physics import native
from probegym.physics.stm_surfaces import in_nanometres

CONDUCTANCE_QUANTUM = 2 * constants.e**2 / constants.h
CLEAN_BARRIER = 4.5  # eV, of the apex atom to which the setpoint refers
APEX_RADIUS = 0.3e-9  # m, of the outermost orbital of an apex atom
WIDEST = 256  # pixels a side
MOST_ATOMS = 16
PER_NANOMETRE = 1e9


def decay_constant(barrier) -> np.ndarray:
    """Kappa = sqrt(2 m phi) / hbar in 1/m, for barriers in eV of any shape."""
    return np.sqrt(2 * constants.m_e * constants.e * np.asarray(barrier, float)) / constants.hbar


def gap(bias: float, current: float, barrier: float = CLEAN_BARRIER) -> float:
    """Distance in m from contact (one conductance quantum) at which ``current`` (A) flows at ``bias`` (V)."""
    return float(np.log(CONDUCTANCE_QUANTUM * abs(bias) / current) / (2 * decay_constant(barrier)))


def flat_shares(retraction: np.ndarray, barrier: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Share of the current that each atom carries over a flat terrace, and 2 kappa in 1/m; (lanes, atoms) each."""
    decay = 2 * decay_constant(barrier)
    z = -retraction.min(1, keepdims=True)
    for _ in range(6):  # Newton on the logarithm of the current
        current = np.exp(np.maximum(-decay * (z + retraction), -700.0))
        total, slope = _sum(current), _sum(decay * current)
        z = z + np.log(total) * total / slope
    current = np.exp(np.maximum(-decay * (z + retraction), -700.0))
    return current / _sum(current), decay


def _sum(array: np.ndarray) -> np.ndarray:
    """Sum over the last axis, added one after the other so that it does not depend on the batch."""
    total = array[..., :1].copy()
    for index in range(1, array.shape[-1]):
        total += array[..., index : index + 1]
    return total


def topographs(apex: np.ndarray, loose: np.ndarray, switch_row: np.ndarray, jump: np.ndarray, surface: np.ndarray, surface_key: np.ndarray,
               centre: np.ndarray, velocity: np.ndarray, noise: np.ndarray, noise_key: np.ndarray, placed: np.ndarray,
               shape: tuple[int, int], field_of_view: float, line_time: float, bias: float, current: float,
               reference_current: float | None = None) -> np.ndarray:  # fmt: skip
    """Constant-current images (lanes, rows, columns) in m; the slow axis is the first.

    apex: (lanes, 2, atoms, 4) x, y, retraction in m and barrier in eV, before and after the row ``switch_row`` (lanes,) at
    which the tip changes and its length jumps by ``jump`` (lanes,) m. loose: (lanes, 2, 3) index of an atom that hops,
    hops/s, m that it comes forward by. surface: (lanes, n) parameters. centre, velocity: (lanes, 2) m, m/s. noise:
    (lanes, 4) relative current noise, rms m of height, rms m from line to line, feedback bandwidth in Hz. placed:
    (lanes, n, 4) more features, m. line_time: s, there and back. reference_current: A at which z is that of the surface.
    Raises ValueError for too many pixels or atoms.
    """
    rows, columns = shape
    lanes, _, atoms, _ = apex.shape
    if max(rows, columns) > WIDEST or atoms > MOST_ATOMS:
        raise ValueError(f"at most {WIDEST} pixels a side and {MOST_ATOMS} apex atoms, got {rows} x {columns} and {atoms}")
    pixel = PER_NANOMETRE * field_of_view / columns
    packed = apex * PER_NANOMETRE
    packed[..., 3] = 2 * decay_constant(apex[..., 3]) / PER_NANOMETRE
    pixel_time = 0.5 * line_time / columns
    hops = loose.copy()
    hops[..., 1] = 0.5 * (1 - np.exp(-2 * loose[..., 1] * pixel_time))  # an odd number of hops of a two-level system
    hops[..., 2] *= PER_NANOMETRE
    told = noise * np.array([1, PER_NANOMETRE, PER_NANOMETRE, 2 * np.pi * pixel_time])
    reference = 2 * float(decay_constant(CLEAN_BARRIER)) / PER_NANOMETRE
    extent = PER_NANOMETRE * (APEX_RADIUS + gap(bias, current))
    ratio = current / (reference_current or current)
    numbers = [ctypes.c_double(v) for v in (pixel, line_time, extent, reference, ratio)]
    arrays = [PER_NANOMETRE * centre, PER_NANOMETRE * velocity, in_nanometres(surface), surface_key, packed, switch_row, PER_NANOMETRE * jump, hops, told, noise_key]
    kinds = [float, float, float, np.uint64, float, np.int32, float, float, float, np.uint64]
    arrays = [np.ascontiguousarray(a, kind) for a, kind in zip(arrays, kinds, strict=True)]
    more = np.ascontiguousarray(PER_NANOMETRE * placed)
    out = np.empty((lanes, rows, columns), np.float32)
    p = [native.pointer(a) for a in arrays]
    native.library("stm").topographs(lanes, rows, columns, *numbers, *p[:4], atoms, *p[4:], more.shape[1], native.pointer(more), native.pointer(out))
    out /= np.float32(PER_NANOMETRE)
    return out
