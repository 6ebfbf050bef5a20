"""Tapping-mode AFM along a scan line: cantilever, tip force, lock-in, PI feedback and Z piezo.

``scan`` is the fast form: the slow motion of the first mode's complex amplitude under the force averaged over a cycle
(kernels/tapping.c). ``scan_direct`` is its reference: every mode integrated in time (kernels/cantilever.c). Both take the
same arguments; benchmarks/afm.py measures one against the other.

Garcia & Perez, Surf. Sci. Rep. 47, 197 (2002), 10.1016/S0167-5729(02)00077-8; Cleveland et al., Appl. Phys. Lett. 72, 2613
(1998), 10.1063/1.121434.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, fields

import numpy as np
from numpy.polynomial.legendre import leggauss
from scipy import constants

from probegym.errors import ProbeGymError
from probegym.physics import cantilever, native
from probegym.physics.threads import TILE, in_tiles

WIDTH = TILE  # as in kernels/tapping.c
FLAT, SIDE = 512, 96  # sizes of the tables there
LONGEST_STEP = 15e-6  # s between control steps
CYCLES_PER_STEP = 2.0
DAMPED_STEP = 75  # quality over the cycles of a step at most: the amplitude must not grow by many contact depths within one
NANOMETRE = 1e-9
STATE = ("a_re", "a_im", "deflection", "i_seen", "q_seen", "integral", "carry", "z", "z_speed", "creep_1", "creep_2", "creep_3")


@dataclass(frozen=True)
class Setup:
    """Cantilever, instrument and settings; every field a number or (lanes,).

    stiffness: static, N/m. frequency: of the first mode, Hz. quality: its Q. detuning: drive over resonance frequency.
    drive: free amplitude at resonance for ``quality``, m. shaken: 1 when the clamp is shaken, 0 when a force drives the tip.
    radius: tip, m. voltage: V. neck_force: N; neck_on, neck_off: m. temperature: K. sensor_noise: m/sqrt(Hz).
    bandwidth: of the lock-in's filter, Hz. setpoint: m. proportional: m/m. integral: m/(m s). feed_forward: weight.
    piezo_frequency: Hz, 0 follows at once. piezo_quality. z_range: full, m. creep: per decade of time. relay: m, added with the sign of the error (to test the loop).
    """

    stiffness: np.ndarray | float = 40.0
    frequency: np.ndarray | float = 300e3
    quality: np.ndarray | float = 400.0
    detuning: np.ndarray | float = 1.0
    drive: np.ndarray | float = 30e-9
    shaken: np.ndarray | float = 0.0
    radius: np.ndarray | float = 10e-9
    voltage: np.ndarray | float = 0.0
    neck_force: np.ndarray | float = 0.0
    neck_on: np.ndarray | float = 0.5e-9
    neck_off: np.ndarray | float = 1.5e-9
    temperature: np.ndarray | float = 0.0
    sensor_noise: np.ndarray | float = 0.0
    bandwidth: np.ndarray | float = 50e3
    setpoint: np.ndarray | float = 24e-9
    proportional: np.ndarray | float = 0.0
    integral: np.ndarray | float = 0.0
    feed_forward: np.ndarray | float = 0.0
    piezo_frequency: np.ndarray | float = 0.0
    piezo_quality: np.ndarray | float = 10.0
    z_range: np.ndarray | float = 5e-6
    creep: np.ndarray | float = 0.0
    relay: np.ndarray | float = 0.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not np.isfinite(value).all():
                raise ProbeGymError(f"tapping mode, {name}: must be finite")
        for name in ("stiffness", "frequency", "detuning", "drive", "radius", "bandwidth", "z_range"):
            if not (np.asarray(getattr(self, name)) > 0).all():
                raise ProbeGymError(f"tapping mode, {name}: must be above 0, got {np.min(getattr(self, name)):g}")
        if not (np.asarray(self.quality) > 0.5).all():
            raise ProbeGymError(f"tapping mode, quality: an overdamped cantilever does not tap, give more than 0.5, got {np.min(self.quality):g}")
        if not (np.asarray(self.piezo_quality) > 0.5).all():
            raise ProbeGymError(f"tapping mode, piezo_quality: give more than 0.5, got {np.min(self.piezo_quality):g}")
        for name in ("temperature", "sensor_noise", "neck_force", "piezo_frequency", "setpoint"):
            if (np.asarray(getattr(self, name)) < 0).any():
                raise ProbeGymError(f"tapping mode, {name}: must not be negative, got {np.min(getattr(self, name)):g}")


@dataclass(frozen=True)
class Track:
    """What the tip meets along a line, (lanes, cells): height in m, Hamaker constant in J, E* in Pa, viscosity in Pa s.

    forward: m, height that feed-forward expects. The tip moves from the height of the cell before to that of the cell.
    """

    height: np.ndarray
    hamaker: np.ndarray
    modulus: np.ndarray
    viscosity: np.ndarray
    forward: np.ndarray


@dataclass(frozen=True)
class Trace:
    """What was recorded, (lanes, cells) each.

    height: command of the Z piezo, m. amplitude: m. phase: lag behind the drive, rad; over pi/2 is attractive.
    peak_force: highest of each cell, N. at_limit: share of the cell that the piezo spent at the end of its range.
    """

    height: np.ndarray
    amplitude: np.ndarray
    phase: np.ndarray
    peak_force: np.ndarray
    at_limit: np.ndarray


def _pack(setup: Setup, lanes: int) -> np.ndarray:
    """(parameters, lanes) in nm, nN, s, in the order of kernels/tapping.h."""
    s = {f.name: np.broadcast_to(np.asarray(getattr(setup, f.name), float), (lanes,)) for f in fields(Setup)}
    first = cantilever.modes(1)
    k = s["stiffness"] * first.stiffness[0]
    base = s["shaken"] * s["drive"] / (s["quality"] * first.base[0])
    rows = [
        k, s["stiffness"], s["quality"], 2 * np.pi * s["frequency"], s["detuning"], k * s["drive"] / s["quality"] / NANOMETRE, base / NANOMETRE,
        s["radius"] / NANOMETRE, np.pi * constants.epsilon_0 * s["voltage"] ** 2 / NANOMETRE, s["neck_force"] / NANOMETRE, s["neck_on"] / NANOMETRE,
        s["neck_off"] / NANOMETRE, constants.k * s["temperature"] / k / NANOMETRE**2, s["sensor_noise"] / NANOMETRE, 2 * np.pi * s["bandwidth"],
        s["setpoint"] / NANOMETRE, s["proportional"], s["integral"], s["feed_forward"], 2 * np.pi * s["piezo_frequency"], s["piezo_quality"],
        s["z_range"] / 2 / NANOMETRE, s["creep"], s["relay"] / NANOMETRE,
    ]  # fmt: skip
    return np.stack(rows)


def rest(setup: Setup, lanes: int, height: np.ndarray | float = 0.0) -> dict[str, np.ndarray]:
    """State of a cantilever that swings freely, its mean position ``height`` (m) above zero: name -> (lanes,), nm and s.

    The integrator holds the height, so that feedback starts without a jump.
    """
    state = {name: np.zeros(lanes) for name in STATE}
    r, q = np.asarray(setup.detuning, float), np.asarray(setup.quality, float)
    free = np.asarray(setup.drive) / NANOMETRE / q / (1 - r**2 + 1j * r / q)
    state["a_re"][:], state["a_im"][:] = free.real, free.imag
    state["i_seen"][:], state["q_seen"][:] = free.real, free.imag
    state["z"][:] = state["integral"][:] = np.asarray(height) / NANOMETRE
    return state


@functools.cache
def _tables() -> tuple[np.ndarray, np.ndarray]:
    """Averages over a cycle in scaled variables: contact (FLAT, 4) and attraction (SIDE, SIDE, 4), float32; see tapping.c."""
    nodes, weights = leggauss(64)
    w = np.minimum(np.arange(FLAT) / (FLAT - 1), 1 - 1e-4)
    u = np.maximum(w / (1 - w), 1e-7)[:, None]
    end = 2 * np.arcsin(np.sqrt(np.minimum(u, 1)))  # the tip is in contact up to this phase from the lowest point
    x, g = (nodes + 1) / 2, weights / 2
    psi = end * (1 - (1 - x) ** 2)  # crowds the nodes at the end of contact, where the force has a root
    measure = end * 2 * (1 - x) * g
    pressed = np.maximum(u - np.sin(psi / 2) ** 2, 0)
    mean = (measure * pressed**1.5).sum(1) / np.pi
    cosine = -2 * (measure * np.cos(psi) * pressed**1.5).sum(1) / np.pi
    sine = 2 * (measure * np.sin(psi) ** 2 * pressed**0.5).sum(1) / np.pi
    response = -np.cos(psi) / 2 + (np.pi - psi) * np.sin(psi)  # of all harmonics but the first at the lowest point, to a pulse at psi
    bend = (measure * response * pressed**1.5).sum(1) / np.pi
    u = u[:, 0]
    contact = np.zeros((FLAT, 4))
    contact[:, 0] = mean / (u**2 / np.sqrt(1 + u))
    contact[:, 1], contact[:, 2] = (v / (u**2 / (1 + u) ** 1.5) for v in (cosine, sine))
    contact[:, 3] = bend / mean

    at = np.minimum(np.arange(SIDE) / (SIDE - 1), 1 - 1e-4) ** 2
    u, rho = (at / (1 - at))[:, None, None], np.maximum(at / (1 - at), 1e-7)[None, :, None]
    end = 2 * np.arcsin(np.sqrt(np.minimum(u, 1)))
    start = np.maximum(np.sin(end / 2), np.sqrt(rho)) * 0.3  # scale over which the force falls off
    top = np.arcsinh((np.pi - end) / start)
    psi = end + start * np.sinh(top * x)
    measure = start * np.cosh(top * x) * top * g
    ratio = rho / (rho + np.maximum(2 * (np.sin(psi / 2) ** 2 - u), 0))  # a0 / d
    attraction = np.zeros((SIDE, SIDE, 4))
    for column, power in ((0, 2), (2, 1)):
        attraction[..., column] = (end[..., 0] + (measure * ratio**power).sum(-1)) / np.pi
        attraction[..., column + 1] = -2 * (np.sin(end[..., 0]) + (measure * np.cos(psi) * ratio**power).sum(-1)) / np.pi
    return np.ascontiguousarray(contact, np.float32), np.ascontiguousarray(attraction, np.float32)


def control_steps(setup: Setup, cell_time: np.ndarray, cycles: float = CYCLES_PER_STEP) -> np.ndarray:
    """Control steps in a cell of ``cell_time`` s, (lanes,) int32: at most ``cycles`` oscillations and LONGEST_STEP apart; fewer at low Q."""
    most = np.minimum(cycles, np.asarray(setup.quality) / DAMPED_STEP)
    longest = np.minimum(most / np.asarray(setup.frequency, float), LONGEST_STEP)
    return np.broadcast_to(np.maximum(np.ceil(cell_time / longest * (1 - 1e-9)), 1).astype(np.int32), np.shape(cell_time))


def _tiles(array: np.ndarray, tiles: int) -> np.ndarray:
    """(lanes, ...) as (tiles, ..., WIDTH); lanes that are missing repeat the last."""
    lanes = len(array)
    index = np.minimum(np.arange(tiles * WIDTH), lanes - 1)
    return np.ascontiguousarray(np.moveaxis(array[index].reshape(tiles, WIDTH, *array.shape[1:]), 1, -1))


def scan(setup: Setup, state: dict[str, np.ndarray], track: Track, cell_time: np.ndarray, keys: np.ndarray, threads: int | None = None,
         cycles: float = CYCLES_PER_STEP) -> tuple[dict[str, np.ndarray], Trace]:  # fmt: skip
    """One way along a line in slow time -> (state after, trace). cell_time: (lanes,) s; keys: (lanes,) uint64 for the noise."""
    lanes, cells = track.height.shape
    steps = control_steps(setup, cell_time, cycles)
    order = np.argsort(steps, kind="stable")  # lanes of a tile wait for the slowest
    tiles = -(-lanes // WIDTH)

    def packed(array: np.ndarray, kind) -> np.ndarray:
        return _tiles(np.asarray(array, kind)[order], tiles)

    p = packed(_pack(setup, lanes).T, float)
    s = packed(np.stack([state[name] for name in STATE], 1), float)
    seeds = packed(np.asarray(keys, np.uint64).view(np.uint32).reshape(lanes, 2), np.uint32)
    steps_tiles, period = packed(steps, np.int32), packed(cell_time / steps, float)
    scales = {"height": 1e9, "hamaker": 1e18, "modulus": 1e-9, "viscosity": 1.0, "forward": 1e9}  # J to nN nm, Pa to nN/nm^2
    lines = {name: packed(np.asarray(getattr(track, name)) * scale, np.float32) for name, scale in scales.items()}
    out = np.empty((tiles, cells, 5, WIDTH), np.float32)
    extras = int(np.any(np.asarray(setup.voltage) != 0)) | 2 * int(np.any(np.asarray(setup.neck_force) != 0))
    contact, attraction = _tables()
    run = native.library("tapping").scan_averaged

    def tile(part: slice) -> None:
        for at in range(part.start, part.stop):
            arrays = [p[at], s[at], steps_tiles[at], period[at], seeds[at], *(v[at] for v in lines.values()), contact, attraction, out[at]]
            run(cells, extras, *map(native.pointer, arrays))

    in_tiles(tile, tiles, threads, tile=1)
    back = np.empty(lanes, int)
    back[order] = np.arange(lanes)
    flat = np.moveaxis(out, 3, 1).reshape(tiles * WIDTH, cells, 5)[back].astype(float)
    after = np.moveaxis(s, 2, 1).reshape(tiles * WIDTH, len(STATE))[back]
    return {name: after[:, i].copy() for i, name in enumerate(STATE)}, _trace(flat, steps)


def _trace(out: np.ndarray, steps: np.ndarray) -> Trace:
    height, i, q, peak, rail = np.moveaxis(out, 2, 0)
    return Trace(height * NANOMETRE, np.hypot(i, q) * NANOMETRE, np.arctan2(-q, i), peak * NANOMETRE, rail / np.reshape(steps, (-1, 1)))


def scan_direct(setup: Setup, state: dict[str, np.ndarray], track: Track, cycles_per_cell: int, modes: int = 2, steps: int = 400,
                cycles: int = 1) -> tuple[dict[str, np.ndarray], Trace]:  # fmt: skip
    """The same by direct time integration, without thermal and sensor noise; ``steps`` per cycle, feedback every ``cycles``.

    Higher modes have the quality of the first. Raises ProbeGymError when the motion diverges.
    """
    lanes, cells = track.height.shape
    if steps < 300 or cycles_per_cell % cycles:
        raise ProbeGymError(f"the reference needs 300 steps per cycle or more and whole control steps in a cell, got {steps} and {cycles_per_cell}/{cycles}")
    p, beam = np.ascontiguousarray(_pack(setup, lanes).T), cantilever.modes(modes)
    s = np.ascontiguousarray(np.stack([state[name] for name in STATE], 1))
    out = np.empty((lanes, cells, 5))
    run = native.library("cantilever").scan_direct
    for lane in range(lanes):
        shaken = np.broadcast_to(np.asarray(setup.shaken, float), (lanes,))[lane]
        weight = beam.base * beam.mass / (beam.base[0] * beam.mass[0]) if shaken else np.ones(modes)
        stiffness = p[lane, 1] * beam.stiffness
        table = np.ascontiguousarray(np.stack([beam.frequency, np.full(modes, p[lane, 2]), 1 / stiffness, weight], 1))
        omega = p[lane, 3] * p[lane, 4]
        motion = np.zeros((modes, 2))
        motion[0] = s[lane, 0], -s[lane, 1] * omega  # q = Re(a exp(i w t)) at t = 0
        line = [np.ascontiguousarray(np.asarray(v)[lane] * f, float) for v, f in (
            (track.height, 1e9), (track.hamaker, 1e18), (track.modulus, 1e-9), (track.viscosity, 1e-9), (track.forward, 1e9))]  # fmt: skip
        arrays = [p[lane], table, s[lane], motion, *line, out[lane]]
        if run(cells, modes, steps, cycles, cycles_per_cell // cycles, *map(native.pointer, arrays)):
            raise ProbeGymError("the cantilever's motion diverged: lower the gains, or integrate with more steps per cycle")
    return {name: s[:, i].copy() for i, name in enumerate(STATE)}, _trace(out, np.full(lanes, cycles_per_cell // cycles))
