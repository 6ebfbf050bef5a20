"""Adatoms on fcc(111) that the tip of an STM pulls, slides and pushes, and the current while it does.

The surface is the hexagonal Fourier series U_s = 2 E_b (3/2 + sum_i cos G_i r) with its minima at the fcc and hcp hollows,
a / sqrt 3 apart, saddles of height E_b between them, and a term in sin G_i r that lifts hcp over fcc. Its steepest slope is
3.09 E_b / a_hop, that of the sinusoid pi E_b / a_hop. The apex attracts an adatom at distance R by a Morse well
D [(1 - exp(-b (R - R_e)))^2 - 1] and repels it nearer than R_e. Both conduct side by side with the bare surface,

    G = G_0 [sum_a exp(-2 kappa (R_a - R_c)) + exp(-2 kappa (z + h - R_c))],

R_c being the distance at one conductance quantum and h what an adatom stands out by, so the setpoint decides the height z and
with it the depth of the well at the adatom: near means strong. At constant height the current falls while an adatom lags
behind a pulling tip and jumps when it follows (Bartels, Meyer & Rieder 1997, 10.1103/PhysRevLett.79.697).

An adatom rests on a hollow and hops to the three next ones with rates k = nu exp(-E / k T). E is the climb along the straight
line in the sum of both potentials, relaxed across it, at 16 points; rates change exponentially between two positions of the
tip, so waiting times follow in closed form. The reference is overdamped Langevin dynamics in the same potential, with the
friction that gives the same rate without a tip (Kramers 1940, 10.1016/S0031-8914(40)90098-2).
"""

from __future__ import annotations

import ctypes

import numpy as np
from scipy import constants

from probegym.physics import native
from probegym.physics.stm import CONDUCTANCE_QUANTUM, decay_constant
from probegym.physics.threads import in_tiles

PER_ANGSTROM = 1e10
MOST_ADATOMS, MOST_SAMPLES = 32, 8192
LONGEST = 20e-9  # m, of a drag
STEP = 0.01e-9  # m, of the tip between two looks at low barriers
REST = 10e-3  # s at the start before the tip moves
DIMER = 1.05  # spacings within which two adatoms stick together

FIELDS = (
    "spacing", "barrier", "stacking", "energy", "attempt_rate", "decay", "contact", "apparent_height", "offset_x", "offset_y", "depth",
    "range", "equilibrium", "stretch_xx", "stretch_xy", "stretch_yy", "cosine", "sine",
)  # fmt: skip
"""Columns of what a kernel is told of a lane, in the order of kernels/adatoms.c, in Angstrom and eV."""

FREE, STUCK, GONE = 0, 1, 2
TOLD = ("height", "conductance", "hops", "picked_up", "stuck", "crashed", "first_hop")


def hop_length(spacing) -> np.ndarray:
    """Distance a / sqrt 3 of neighbouring hollows in m, for nearest-neighbour distances in m."""
    return np.asarray(spacing, float) / np.sqrt(3)


def thermal_rate(barrier, temperature, attempt_rate=1e12) -> np.ndarray:
    """Hops per second of an adatom that no tip is near, to all three neighbours; barrier in eV, temperature in K.

    Raises ValueError for a temperature that is not above 0 K.
    """
    temperature = np.asarray(temperature, float)
    if not (temperature > 0).all():
        raise ValueError(f"a temperature must be above 0 K, got {temperature.min():g} K")
    return 3 * attempt_rate * np.exp(-np.asarray(barrier, float) * constants.e / (constants.k * temperature))


def friction(barrier, spacing, attempt_rate=1e12) -> np.ndarray:
    """Friction in eV s / A^2 with which Kramers' overdamped rate of one hop has the prefactor ``attempt_rate``, 1/s; barrier in eV, spacing in m."""
    wave = 16 * np.pi**2 / (3 * (PER_ANGSTROM * np.asarray(spacing, float)) ** 2)  # G^2; curvatures of the barrier are 1.5, 1 and 3 E_b G^2
    return 0.5 * np.sqrt(3) * np.asarray(barrier, float) * wave / (2 * np.pi * attempt_rate)


def rows(spacing, barrier, stacking, temperature, orientation, apparent_height, tip, work_function, contact, attempt_rate) -> np.ndarray:
    """What the kernels are told, (lanes, len(FIELDS)); all (lanes,) and SI, energies in eV, but ``contact`` and ``attempt_rate``.

    tip: (lanes, 7) offset x and y of the atom that pulls (m), depth (eV), range (1/m) and equilibrium distance (m) of the well,
    stretch of distances along one axis of the tip, and that axis' angle (rad).
    """
    x, y, depth, reach, rest, stretch, angle = (tip[:, column] for column in range(7))
    c, s, more = np.cos(angle), np.sin(angle), (1 + stretch) ** 2 - 1
    columns = (
        PER_ANGSTROM * spacing, barrier, stacking, constants.k / constants.e * temperature, np.full(len(tip), attempt_rate),
        2 * decay_constant(work_function) / PER_ANGSTROM, np.full(len(tip), PER_ANGSTROM * contact), PER_ANGSTROM * apparent_height,
        PER_ANGSTROM * x, PER_ANGSTROM * y, depth, reach / PER_ANGSTROM, PER_ANGSTROM * rest,
        1 + more * c * c, more * c * s, 1 + more * s * s, np.cos(orientation), np.sin(orientation),
    )  # fmt: skip
    return np.ascontiguousarray(np.stack(columns, 1))


# ---- lattice ----


def _axes(spacing, orientation) -> np.ndarray:
    """(lanes, 2, 2): the two lattice vectors at 60 degrees, m."""
    angle = np.asarray(orientation, float)[:, None] + np.array([0.0, np.pi / 3])
    return np.asarray(spacing, float)[:, None, None] * np.stack([np.cos(angle), np.sin(angle)], -1)


def site_positions(sites: np.ndarray, origin: np.ndarray, spacing: np.ndarray, orientation: np.ndarray) -> np.ndarray:
    """(lanes, n, 2) m of hollows (lanes, n, 3) i, j, b. origin: (lanes, 2) m of a surface atom; spacing, orientation: (lanes,)."""
    axes = _axes(spacing, orientation)
    third = (sites[..., 2:] + 1) / 3.0
    return origin[:, None] + (sites[..., :1] + third) * axes[:, None, 0] + (sites[..., 1:2] + third) * axes[:, None, 1]


def nearest_sites(points: np.ndarray, origin: np.ndarray, spacing: np.ndarray, orientation: np.ndarray) -> np.ndarray:
    """Nearest hollows (lanes, n, 3) int32 of points (lanes, n, 2) m; the lattice as in site_positions."""
    axes = _axes(spacing, orientation)
    r = points - origin[:, None]
    area = axes[:, 0, 0] * axes[:, 1, 1] - axes[:, 0, 1] * axes[:, 1, 0]
    u = (r[..., 0] * axes[:, None, 1, 1] - r[..., 1] * axes[:, None, 1, 0]) / area[:, None]
    v = (r[..., 1] * axes[:, None, 0, 0] - r[..., 0] * axes[:, None, 0, 1]) / area[:, None]
    sites, away = [], []
    for third in (1 / 3, 2 / 3):
        i, j = _rounded(u - third, v - third)
        du, dv = u - i - third, v - j - third
        sites.append(np.stack([i, j], -1))
        away.append(du * du + dv * dv + du * dv)  # squared distance over that of neighbours
    hcp = away[1] < away[0]
    return np.concatenate([np.where(hcp[..., None], sites[1], sites[0]), hcp[..., None]], -1).astype(np.int32)


def _rounded(u: np.ndarray, v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Nearest point of a hexagonal lattice by coordinates along axes 60 degrees apart: of three rounded ones the worst is put right."""
    w = -u - v
    i, j, k = np.round(u), np.round(v), np.round(w)
    du, dv, dw = np.abs(u - i), np.abs(v - j), np.abs(w - k)
    first, second = (du > dv) & (du > dw), dv > dw
    return np.where(first, -j - k, i), np.where(~first & second, -i - k, j)


def nearest_site(points: np.ndarray, origin: np.ndarray, spacing: np.ndarray, orientation: np.ndarray) -> np.ndarray:
    """Positions (lanes, n, 2) m of the hollows nearest to points (lanes, n, 2) m."""
    return site_positions(nearest_sites(points, origin, spacing, orientation), origin, spacing, orientation)


def touching(positions: np.ndarray, spacing: np.ndarray) -> np.ndarray:
    """(lanes,) bool: two of the positions (lanes, n, 2) m lie as near as the atoms of a dimer."""
    apart = positions[:, :, None] - positions[:, None]
    near = (apart**2).sum(-1) < (DIMER * np.asarray(spacing)[:, None, None]) ** 2
    return (near & ~np.eye(positions.shape[1], dtype=bool)).any((1, 2))


def threshold(told: np.ndarray, rest: float = 1.0) -> np.ndarray:
    """Conductance in S, (lanes,), of a tip started above the adatom from which on it follows in nearly every direction.

    The hardest one lies midway between two hops, where the adatom chooses neither; 10 degrees are left out on both sides. It follows
    if a barrier on the way falls to k T ln(nu rest), so that it hops within ``rest`` s. told: ``rows(...)``; the offset is left out.
    """
    column = dict(zip(FIELDS, told.T, strict=True))
    climbed, out = np.ascontiguousarray(column["energy"] * np.log(column["attempt_rate"] * rest)), np.empty(len(told))
    rowed = np.ascontiguousarray(told)
    native.library("adatoms").thresholds(len(told), *map(native.pointer, (rowed, climbed, out)))
    return CONDUCTANCE_QUANTUM * out


# ---- dynamics ----


def drag(
    told: np.ndarray, keys: np.ndarray, sites: np.ndarray, status: np.ndarray, origin: np.ndarray, start: np.ndarray, end: np.ndarray,
    bias: np.ndarray, current: np.ndarray, speed: float, samples: int, noise: np.ndarray, pickup: np.ndarray, onset: np.ndarray, efficiency: float = 0.0,
    step: float = STEP, rest: float = REST, threads: int | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, dict[str, np.ndarray]]:  # fmt: skip
    """Approach at ``start``, drag at constant height to ``end``, retract; returns (sites, status, trace, told), the inputs unchanged.

    told: ``rows(...)``. sites: (lanes, n, 3) int32 hollows; status: (lanes, n) FREE, STUCK or GONE. origin, start, end: (lanes, 2)
    m. bias: (lanes,) V; current: (lanes,) A, the setpoint. speed: m/s. noise: (lanes, 2) relative, and A rms. pickup: (lanes,)
    conductance (S) at which 63 % of the adatoms go to the tip. onset: (lanes,) V above which electrons excite hops, ``efficiency`` a
    piece at twice that (Braun et al. 2003, AIP Conf. Proc. 696, 109: above 70 mV for Au on Ag(111)). trace: (lanes, samples)
    float32 A at equal distances, (lanes, 0) for samples = 0. told: TOLD, (lanes,) each, height in m, largest
    conductance in S, way of the tip to the first hop in m, negative if there is none. Raises ValueError for too many adatoms or samples.
    """
    lanes, n = status.shape
    if n > MOST_ADATOMS or samples > MOST_SAMPLES:
        raise ValueError(f"at most {MOST_ADATOMS} adatoms and {MOST_SAMPLES} samples, got {n} and {samples}")
    sites, status = sites.astype(np.int32, copy=True, order="C"), status.astype(np.int32, copy=True, order="C")
    path = np.ascontiguousarray(PER_ANGSTROM * np.hstack([start - origin, end - origin]))
    setpoint = np.ascontiguousarray(np.stack([bias, current / np.abs(bias) / CONDUCTANCE_QUANTUM], 1))
    numbers = np.array([PER_ANGSTROM * step, PER_ANGSTROM * speed, rest, efficiency])
    rowed, keys, noise = np.ascontiguousarray(told), np.ascontiguousarray(keys, np.uint64), np.ascontiguousarray(noise, float)
    limits = np.ascontiguousarray(np.stack([pickup / CONDUCTANCE_QUANTUM, onset], 1))
    trace, out = np.empty((lanes, samples), np.float32), np.empty((lanes, len(TOLD)))
    kernel = native.library("adatoms").drag

    def tile(part: slice) -> None:
        arrays = (rowed[part], keys[part], sites[part], status[part], path[part], setpoint[part], limits[part], noise[part])
        told_to = native.pointer(trace[part]) if samples else None
        kernel(part.stop - part.start, n, samples, native.pointer(numbers), *map(native.pointer, arrays), told_to, native.pointer(out[part]))

    in_tiles(tile, lanes, threads)
    out *= np.array([1 / PER_ANGSTROM, CONDUCTANCE_QUANTUM, 1, 1, 1, 1, 1 / PER_ANGSTROM])
    return sites, status, trace, dict(zip(TOLD, out.T, strict=True))


def landscape(told: np.ndarray, points: np.ndarray, tip: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Energy (lanes, n) in eV of an adatom at points (lanes, n, 2) m from the lattice's origin, and force (lanes, n, 2) in N: the model as drags follow it, to be looked at.

    tip: (lanes, 3) m, nominal x, y and height of the apex; a high one leaves the bare surface.
    """
    lanes, n = points.shape[:2]
    energy, force = np.empty((lanes, n)), np.empty((lanes, n, 2))
    arrays = [np.ascontiguousarray(a, float) for a in (told, PER_ANGSTROM * points, PER_ANGSTROM * tip)]
    native.library("adatoms").landscapes(lanes, n, *map(native.pointer, arrays), native.pointer(energy), native.pointer(force))
    return energy, constants.e * PER_ANGSTROM * force


def barriers(told: np.ndarray, kind: np.ndarray, tip: np.ndarray) -> np.ndarray:
    """Barriers (lanes, 3) in eV of the hops of an adatom under a tip, as the dynamics see them; a hop against the tip counts 9 E_b.

    kind: (lanes,) 0 or 1, the last index of its hollow. tip: (lanes, 3) m, of the atom that pulls from the hollow, and its height.
    """
    out = np.empty((len(told), 3))
    at = PER_ANGSTROM * tip * np.array([-1.0, -1.0, 1.0])
    arrays = (np.ascontiguousarray(told), np.ascontiguousarray(kind, np.int32), np.ascontiguousarray(at))
    native.library("adatoms").barriers(len(told), *map(native.pointer, arrays), native.pointer(out))
    return out


def langevin(
    told: np.ndarray, keys: np.ndarray, at: np.ndarray, start: np.ndarray, end: np.ndarray, height: np.ndarray, duration: float, samples: int,
    damping: np.ndarray, dt: float,
) -> np.ndarray:  # fmt: skip
    """Places (lanes, samples, 2) in m, at equal times, of one adatom that starts at ``at`` (lanes, 2) m: the reference.

    start, end: (lanes, 2) m of the tip, all from the lattice's origin; height: (lanes,) m; damping: (lanes,) as of ``friction``.
    """
    lanes = len(told)
    track = np.empty((lanes, samples, 2))
    first = np.ascontiguousarray(PER_ANGSTROM * at)
    arrays = (np.ascontiguousarray(told), np.ascontiguousarray(keys, np.uint64), np.ascontiguousarray(PER_ANGSTROM * np.hstack([start, end])),
              np.ascontiguousarray(PER_ANGSTROM * height), np.ascontiguousarray(damping))  # fmt: skip
    kernel = native.library("adatoms").langevin

    def tile(part: slice) -> None:
        parts = [native.pointer(a[part]) for a in (*arrays, first, track)]
        kernel(part.stop - part.start, samples, ctypes.c_int64(round(duration / dt)), ctypes.c_double(dt), *parts)

    in_tiles(tile, lanes, 1)
    return track / PER_ANGSTROM
