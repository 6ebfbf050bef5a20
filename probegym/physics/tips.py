"""The tip of a force microscope: its shape, what it touches along a line, how it blunts, doubles and picks things up.

A tip is a dict of arrays with a leading axis of lanes; nothing here changes one in place. SI units throughout:

    radius (lanes,), half_angle (lanes,)    m, rad: a sphere that goes over tangentially into a cone
    second (lanes, 4)     m: dx, dy, dz, radius of a second apex; dz > 0: it ends higher than the first; radius 0: there is none
    shift (lanes, 2)      m: dx, dy by which the apex has moved since the tip was new
    length (lanes,)       m by which the tip has grown since it was new; every height reads that much higher
    load (lanes,), bare_radius (lanes,)     m: length of a picked-up particle (0: none), and the radius under it

How often tips change and by how much: no published statistics per event exist, all those numbers are design parameters.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from probegym.errors import ProbeGymError
from probegym.physics import native, randomness

Tip = dict[str, np.ndarray]

FARTHEST = 8.0  # sizes of the map: lines that start or end farther away are a mistake


def _numbers(name: str, values, low: float = -np.inf, high: float = np.inf, open_ends: bool = False) -> np.ndarray:
    values = np.asarray(values, float)
    inside = (low < values) & (values < high) if open_ends else (low <= values) & (values <= high)
    if not (inside & np.isfinite(values)).all():
        raise ProbeGymError(f"{name} must be finite and {'between' if open_ends else 'within'} {low:g} and {high:g}")
    return values


def _shape(radius, half_angle) -> tuple[np.ndarray, np.ndarray]:
    return _numbers("radius", radius, 0, 1e-3, True), _numbers("half_angle", half_angle, 0, np.pi / 2, True)


def sharp(lanes: int, radius=8e-9, half_angle=0.35) -> Tip:
    """A new tip in every lane; radius, m, and half angle of the cone, rad: numbers or (lanes,)."""
    radius, half_angle = _shape(radius, half_angle)
    return {
        "radius": np.full(lanes, radius),
        "half_angle": np.full(lanes, half_angle),
        "second": np.zeros((lanes, 4)),
        "shift": np.zeros((lanes, 2)),
        "length": np.zeros(lanes),
        "load": np.zeros(lanes),
        "bare_radius": np.full(lanes, radius),
    }


def profile(radius, half_angle, r) -> np.ndarray:
    """Height of the flank above the apex, m, at the distance r, m, from the axis; arrays broadcast."""
    radius, half_angle = _shape(radius, half_angle)
    r = np.abs(_numbers("r", r))
    edge = radius * np.cos(half_angle)
    sphere = radius - np.sqrt(np.maximum(radius**2 - r**2, 0))
    return np.where(r <= edge, sphere, radius * (1 - np.sin(half_angle)) + (r - edge) / np.tan(half_angle))


def reach(radius, half_angle, depth) -> np.ndarray:
    """Distance from the axis, m, at which the flank stands ``depth``, m, above the apex: the inverse of profile."""
    radius, half_angle = _shape(radius, half_angle)
    depth = _numbers("depth", depth, 0)
    edge_height = radius * (1 - np.sin(half_angle))
    cone = radius * np.cos(half_angle) + (depth - edge_height) * np.tan(half_angle)
    return np.where(depth <= edge_height, np.sqrt(np.maximum(depth * (2 * radius - depth), 0)), cone)


def dilate_lines(heights, extent, tip: Tip, y, x, spacing, points: int, *, maps=None, tops=None) -> tuple[np.ndarray, np.ndarray]:
    """What the tip reads along one line per lane, and which pixel of the map it touches there.

    heights: (maps, rows, columns) float32, m, each map of the size ``extent`` (height, width), m, its pixels centred at
    (i + 1/2) pixels; outside a map lies its mirror image. y, x: (lanes,) m, where the line starts; spacing: m from point to
    point along x, negative for a retrace. maps: (lanes,) the map of each lane, lane i has map i by default. tops: (maps,) m,
    the highest point of each map where it is known already. Returns heights (lanes, points) float32, m, with the tip's shift
    and length in them, and contact (lanes, points) int32, flat indices into the map. Raises ProbeGymError for what cannot be, and MemoryError.

    Grey dilation (Villarrubia 1997, 10.6028/jres.102.030), exact on pixels. Between pixels and rows the dilated heights are
    interpolated, not the surface: a tip rounds off what it images, so that costs at most pixel^2 / 8 radius per direction,
    whereas an interpolated surface would lose half of a spike one pixel wide.
    """
    heights = np.asarray(heights)
    if heights.ndim != 3 or 0 in heights.shape or heights.dtype != np.float32 or not heights.flags.c_contiguous:
        raise ProbeGymError("heights must be a C-contiguous float32 array (maps, rows, columns)")
    lanes, (count, rows, columns) = len(tip["radius"]), heights.shape
    if not (isinstance(points, int | np.integer) and 1 <= points <= 2**20):
        raise ProbeGymError(f"points must be a whole number from 1 to {2**20}")
    size_y, size_x = _numbers("extent", extent, 0, 1, True)
    which = np.arange(lanes, dtype=np.int32) if maps is None else np.ascontiguousarray(maps, np.int32)
    if which.shape != (lanes,) or which.min(initial=0) < 0 or which.max(initial=0) >= count:
        raise ProbeGymError(f"there are {count} maps for {lanes} lanes: give every lane the number of its map")
    tops = heights.max(axis=(1, 2)) if tops is None else np.ascontiguousarray(tops, np.float32)
    if tops.shape != (count,) or not np.isfinite(tops).all():
        raise ProbeGymError("heights and tops must be finite, with one top per map")
    shift, second = tip["shift"], _numbers("second", tip["second"])
    start = np.empty((lanes, 3))
    start[:, 0], start[:, 1], start[:, 2] = y + shift[:, 1], x + shift[:, 0], spacing
    _numbers("y", start[:, 0] / size_y, -FARTHEST, FARTHEST)
    _numbers("x", start[:, 1] / size_x, -FARTHEST, FARTHEST)
    _numbers("spacing * (points - 1)", start[:, 2] * (points - 1) / size_x, -FARTHEST, FARTHEST)
    shape = np.column_stack([*_shape(tip["radius"], tip["half_angle"]), second])
    image, contact = np.empty((lanes, points), np.float32), np.empty((lanes, points), np.int32)
    kernel = native.library("dilation")
    pixel = native.ctypes.c_double(size_y / rows), native.ctypes.c_double(size_x / columns)
    arrays = map(native.pointer, (heights, tops, which, start, shape, image, contact))
    if kernel.dilate_lines(lanes, rows, columns, int(points), *pixel, *arrays):
        raise MemoryError("dilating scan lines")
    image += tip["length"][:, None].astype(np.float32)
    return image, contact


def touched(material: np.ndarray, contact: np.ndarray, maps=None) -> np.ndarray:
    """Material (lanes, points) uint8 under each contact of dilate_lines; material: (maps, rows, columns) uint8."""
    which = np.arange(len(contact)) if maps is None else np.asarray(maps)
    return material.reshape(len(material), -1)[which[:, None], contact]


def blunted_radius(radius, peak_force, threshold: float, rate: float) -> np.ndarray:
    """Radius, m, after a peak force, N: it grows by ``rate``, m/N, times the force above the threshold, N."""
    excess = np.maximum(_numbers("peak_force", peak_force) - _numbers("threshold", threshold, 0), 0)
    return np.asarray(radius) + _numbers("rate", rate, 0) * excess


def blunt(tip: Tip, peak_force, threshold: float, rate: float) -> Tip:
    """The tip after a peak force (lanes,), N: blunter, and shorter as the cone demands; so a second apex comes nearer to touching."""
    radius = blunted_radius(tip["radius"], peak_force, threshold, rate)
    return {**_moved(tip, z=-(radius - tip["radius"]) * (1 / np.sin(tip["half_angle"]) - 1)), "radius": radius}


def _moved(tip: Tip, x=0.0, y=0.0, z=0.0) -> Tip:
    """The tip with its first apex elsewhere, z down to the sample; a second apex stays where it is."""
    offsets = np.stack(np.broadcast_arrays(x, y, z, np.zeros(len(tip["radius"]))), axis=1)
    offsets[:, :2] *= -1  # the second apex is stated from the first, and dz counts upwards
    second = np.where(tip["second"][:, 3:] > 0, tip["second"] + offsets, 0)
    return {**tip, "shift": tip["shift"] - offsets[:, :2], "length": tip["length"] + z, "second": second}


def tip_change_rate(force, base: float, slope: float, threshold: float = 0.0) -> np.ndarray:
    """Tip changes per second: base, 1/s, plus slope, 1/(N s), times the force above the threshold, N. Design parameters."""
    excess = np.maximum(_numbers("force", force) - _numbers("threshold", threshold, 0), 0)
    return _numbers("base", base, 0) + _numbers("slope", slope, 0) * excess


def waiting_time(keys, step, rate) -> np.ndarray:
    """Seconds (lanes,) to the next event of a Poisson process with this rate, 1/s; it has no memory, so draw anew each step."""
    rate = np.broadcast_to(_numbers("rate", rate, 0), np.shape(keys))
    with np.errstate(divide="ignore"):
        return -np.log(randomness.uniform(keys, step, "tip change time", 1)[:, 0]) / rate


@dataclass(frozen=True)
class TipChange:
    """What one tip change does; every number is a design parameter.

    length, shift: m, standard deviations of the jump in length and of the sideways jump per axis. spread: standard
    deviation of the logarithm of the radius, which stays within smallest and largest, m. double, cure: share of the events
    that give a second apex, at a distance, m, from the first and up to ``depth``, m, above it, or that take it away and
    leave a radius around ``fresh``, m.
    """

    length: float = 5e-10
    shift: float = 1e-9
    spread: float = 0.25
    smallest: float = 2e-9
    largest: float = 6e-8
    fresh: float = 8e-9
    double: float = 0.25
    cure: float = 0.2
    distance: tuple[float, float] = (1.2e-8, 4e-8)
    depth: float = 3e-9

    def __post_init__(self):
        for field in fields(self):
            _numbers(field.name, getattr(self, field.name), 0)
        if not 0 < self.smallest <= self.fresh <= self.largest:
            raise ProbeGymError("a tip change needs 0 < smallest <= fresh <= largest")
        if self.double + self.cure > 1:
            raise ProbeGymError("double and cure are shares of the tip changes: together at most 1")
        if not (len(self.distance) == 2 and self.distance[0] <= self.distance[1]):
            raise ProbeGymError("distance of a second apex must be a pair (nearest, farthest)")


def change(tip: Tip, where, keys, step, law: TipChange) -> Tip:
    """The tip after one change in the lanes ``where`` (lanes,) bool, drawn from keys (lanes,) and step."""
    where = np.asarray(where)
    normal = randomness.normal(keys, step, "tip jump", 4)
    kind, far, angle, depth, size = randomness.uniform(keys, step, "tip change", 5).T
    doubles = where & (kind < law.double)
    cured = where & ~doubles & (kind < law.double + law.cure)

    def near(radius, deviation):
        return np.clip(radius * np.exp(law.spread * deviation), law.smallest, law.largest)

    distance, angle = law.distance[0] + far * (law.distance[1] - law.distance[0]), 2 * np.pi * angle
    tip = let_go(tip, cured)
    jump = np.where(where[:, None], np.array([law.shift, law.shift, law.length]) * normal[:, :3], 0)
    tip = _moved(tip, *jump.T)
    radius = near(np.where(cured, law.fresh, tip["radius"]), normal[:, 3])
    apex = np.stack([distance * np.cos(angle), distance * np.sin(angle), depth * law.depth, near(radius, 2 * size - 1)], axis=1)
    return {
        **tip,
        "radius": np.where(where, radius, tip["radius"]),
        "second": np.where(doubles[:, None], apex, np.where(cured[:, None], 0, tip["second"])),
    }


def pick_up(tip: Tip, where, radius, length) -> Tip:
    """The tip with a particle of this radius, m, hanging on it, longer by ``length``, m, in the lanes ``where``; a loaded tip stays as it is."""
    where = np.asarray(where) & (tip["load"] == 0)
    radius, length = _shape(radius, 1.0)[0], _numbers("length", length, 0, open_ends=True)
    return {
        **_moved(tip, z=np.where(where, length, 0)),
        "radius": np.where(where, radius, tip["radius"]),
        "bare_radius": np.where(where, tip["radius"], tip["bare_radius"]),
        "load": np.where(where, length, tip["load"]),
    }


def let_go(tip: Tip, where) -> Tip:
    """The tip after it has lost the particle it carried, in the lanes ``where`` (lanes,) bool; a bare tip stays as it is."""
    where = np.asarray(where) & (tip["load"] > 0)
    return {
        **_moved(tip, z=-np.where(where, tip["load"], 0)),
        "radius": np.where(where, tip["bare_radius"], tip["radius"]),
        "load": np.where(where, 0, tip["load"]),
    }
