"""Surfaces that a force microscope scans: height and material maps drawn from a key. SI units throughout.

Pixel (r, c) is centred at y = (r + 1/2) extent[0] / rows, x = (c + 1/2) extent[1] / columns. A map ends at its edges, and
tips.dilate_lines sees its mirror image beyond them: where drift shall bring new ground into view, build a map larger than
the frame that is scanned. Unless a source is named, numbers are design parameters.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from scipy.fft import irfft2, rfft2
from scipy.spatial import cKDTree

from probegym.errors import ProbeGymError
from probegym.physics import randomness


@dataclass(frozen=True)
class Material:
    """modulus: Pa, reduced, with the tip's own compliance in it; hamaker: J, of tip and sample; viscosity: Pa s (Kelvin-Voigt).

    Adhesion follows from the Hamaker constant: F = H R / (6 a0^2).
    """

    name: str
    modulus: float
    hamaker: float
    viscosity: float = 0.0

    def __post_init__(self):
        numbers = (self.modulus, self.hamaker, self.viscosity)
        if not (all(map(math.isfinite, numbers)) and self.modulus > 0 and min(numbers) >= 0):
            raise ProbeGymError(f"material {self.name!r}: modulus must be above 0, hamaker and viscosity not below 0, all finite")


def _pair(young: float, poisson: float, hamaker: float) -> tuple[float, float]:
    """Reduced modulus and Hamaker constant against an oxidised silicon tip, from the sample's own.

    Tip: 130 GPa and 0.28 (silicon along <100>, Hopcroft et al. 2010, 10.1109/JMEMS.2009.2039697), amorphous silica
    6.3e-20 J. Unlike pairs: geometric mean (Israelachvili, Intermolecular and Surface Forces, 2011, ch. 13,
    10.1016/B978-0-12-391927-4.10013-1).
    """
    return 1 / ((1 - poisson**2) / young + (1 - 0.28**2) / 130e9), math.sqrt(6.3e-20 * hamaker)


# Moduli are textbook bulk values, Hamaker constants those of Israelachvili's ch. 13 (silicon: of his order), viscosities and
# the elastomer are design parameters: it is meant to be soft, sticky and lossy.
MATERIALS = {
    material.name: material
    for material in (
        Material("silicon", *_pair(130e9, 0.28, 1.9e-19)),
        Material("mica", *_pair(60e9, 0.25, 1.0e-19)),
        Material("gold", *_pair(78e9, 0.42, 4.0e-19)),
        Material("polystyrene", *_pair(2.5e9, 0.34, 6.5e-20), viscosity=50.0),
        Material("elastomer", 2e8, 1.6e-19, viscosity=300.0),
    )
}


@dataclass(frozen=True)
class Surface:
    """height (rows, columns) float32, m, its lowest point at 0; material (rows, columns) uint8, index into materials; extent (height, width), m."""

    height: np.ndarray
    material: np.ndarray
    materials: tuple[Material, ...]
    extent: tuple[float, float]

    @property
    def pixel(self) -> tuple[float, float]:
        """Height and width of a pixel, m."""
        return self.extent[0] / self.height.shape[0], self.extent[1] / self.height.shape[1]

    def properties(self) -> np.ndarray:
        """(materials, 3): modulus, Pa; Hamaker constant, J; viscosity, Pa s."""
        return np.array([(m.modulus, m.hamaker, m.viscosity) for m in self.materials])


@dataclass(frozen=True)
class _Grid:
    """The pixels of a map and the key that everything on it is drawn from."""

    key: np.ndarray
    extent: tuple[float, float]
    shape: tuple[int, int]

    @property
    def axes(self) -> tuple[np.ndarray, np.ndarray]:
        """Coordinates y (rows, 1) and x (1, columns) of the pixel centres, m."""
        y, x = ((np.arange(n, dtype=np.float32) + np.float32(0.5)) * np.float32(e / n) for e, n in zip(self.extent, self.shape, strict=True))
        return y[:, None], x[None, :]

    @property
    def finest(self) -> float:
        return min(e / n for e, n in zip(self.extent, self.shape, strict=True))

    def uniform(self, stream: str, size: int) -> np.ndarray:
        return randomness.uniform(self.key, 0, stream, size)[0]

    def rough(self, stream: str, correlation: float) -> np.ndarray:
        """Noise (rows, columns) of mean 0 and rms 1 whose autocorrelation is a Gaussian exp(-r^2 / correlation^2), in m."""
        rows, columns = self.shape
        white = (self.uniform(stream, rows * columns) - 0.5).astype(np.float32).reshape(self.shape)
        ky, kx = np.fft.fftfreq(rows, self.extent[0] / rows), np.fft.rfftfreq(columns, self.extent[1] / columns)
        damping = [np.exp(-((2 * np.pi * k * correlation) ** 2) / 8).astype(np.float32) for k in (ky, kx)]
        spectrum = rfft2(white)
        spectrum *= damping[0][:, None] * damping[1]
        spectrum[0, 0] = 0
        noise = irfft2(spectrum, s=self.shape)
        return noise / max(float(noise.std()), 1e-30)  # a correlation far above the map leaves nothing to scale

    def count(self, density: float) -> int:
        """How many objects of this density, 1/m^2, lie on the map."""
        number = round(density * self.extent[0] * self.extent[1])
        if number > MOST_OBJECTS:
            raise ProbeGymError(f"density {density:g} puts {number} objects on the map, more than {MOST_OBJECTS}: lower it")
        return number

    def windows(self, y, x, size) -> list[tuple[slice, slice]]:
        """Pixels within ``size``, m, of points (n,), as slices of the map."""
        bounds = []
        for at, pixels, extent in ((y, self.shape[0], self.extent[0]), (x, self.shape[1], self.extent[1])):
            ends = np.stack([np.floor((at - size) / extent * pixels), np.ceil((at + size) / extent * pixels)])
            bounds.append(np.clip(ends, 0, pixels).astype(int).tolist())
        return [(slice(a, b), slice(c, d)) for a, b, c, d in zip(*bounds[0], *bounds[1], strict=True)]


MOST_OBJECTS = 5000  # on one map: more would take longer than a scan line

Layers = tuple[np.ndarray, np.ndarray | int, tuple[Material, ...]]


def _material(value: str | Material) -> Material:
    if isinstance(value, Material):
        return value
    if not isinstance(value, str) or value not in MATERIALS:
        raise ProbeGymError(f"unknown material {value!r}: one of {', '.join(MATERIALS)}, or a Material")
    return MATERIALS[value]


def _lie_spheres(height: np.ndarray, grid: _Grid, y, x, radius) -> np.ndarray:
    """Puts spheres (n,) on the map, each on the ground at its centre; returns where (rows, columns) one is the surface."""
    ys, xs = grid.axes
    covered = np.zeros(grid.shape, bool)
    ground = height[_pixels(y, grid.extent[0], grid.shape[0]), _pixels(x, grid.extent[1], grid.shape[1])]
    for (rows, columns), cy, cx, r, z in zip(grid.windows(y, x, radius), y, x, radius, ground, strict=True):
        depth = r * r - ((ys[rows] - cy) ** 2 + (xs[:, columns] - cx) ** 2)
        top = np.where(depth > 0, z + r + np.sqrt(np.maximum(depth, 0)), 0)
        here = height[rows, columns]
        covered[rows, columns] |= top > here
        np.maximum(here, top, out=here)
    return covered


def _pixels(at, extent: float, pixels: int) -> np.ndarray:
    return np.clip(np.floor(np.asarray(at) / extent * pixels), 0, pixels - 1).astype(int)


def _lognormal(grid: _Grid, stream: str, size: int, mean: float, spread: float) -> np.ndarray:
    return mean * np.exp(spread * randomness.normal(grid.key, 0, stream, size)[0])


def terraces(
    grid: _Grid, *, step_height=1e-9, width=1.8e-7, irregularity=0.4, bunching=0.15, direction=0.4, waviness=0.12, wave_length=2e-7, roughness=5e-11,
    material="mica",
) -> Layers:  # fmt: skip
    """Vicinal steps; every one is step_height, m, or, with the share ``bunching``, two to four times that.

    width: m, mean terrace; irregularity: its spread as a share of it; direction: rad, uphill from x towards y; waviness: rms
    wander of the edges in widths, over wave_length, m. The default step is one layer of mica.
    """
    y, x = grid.axes
    across = (x * np.float32(math.cos(direction)) + y * np.float32(math.sin(direction))) / width
    phase = across + np.float32(waviness) * grid.rough("step waves", wave_length)
    lowest, steps = math.floor(float(phase.min())) - 1, math.ceil(float(phase.max()) - float(phase.min())) + 3
    place, bunch, many = grid.uniform("steps", 3 * steps).reshape(3, steps)
    edges = lowest + np.arange(steps) + irregularity * (place - 0.5) + grid.uniform("first step", 1)
    rises = step_height * np.where(bunch < bunching, 2 + np.floor(3 * many), 1)
    half = min(0.5 * grid.finest / width, 0.5 * (1 - irregularity))  # an edge is a pixel wide: it may lie between two
    levels = np.concatenate([[0], np.cumsum(rises)])
    profile = np.repeat(levels, 2)[1:-1]
    height = np.interp(phase.ravel(), np.ravel(np.column_stack([edges - half, edges + half])), profile).reshape(grid.shape)
    return height + roughness * grid.rough("roughness", 5e-9), 0, (_material(material),)


def grating(
    grid: _Grid, *, pitch=2e-7, depth=2e-8, duty=0.5, wall_angle=1.3, rotation=0.035, roughness=2e-10, material="silicon"
) -> Layers:
    """Lines of a calibration grating: pitch and depth, m; duty: share of the ridge at half height; wall_angle: rad from the plane.

    rotation: rad by which the lines deviate from the y axis. Raises ProbeGymError where walls meet.
    """
    y, x = grid.axes
    wall = max(depth / math.tan(wall_angle), grid.finest) / pitch  # a wall steeper than a pixel is a pixel wide
    if not wall < min(duty, 1 - duty):
        raise ProbeGymError("grating: the walls meet; raise wall_angle, pitch or the number of pixels, lower depth, or bring duty nearer to 0.5")
    phase = np.mod((x * math.cos(rotation) + y * math.sin(rotation)) / pitch + grid.uniform("phase", 1)[0], 1)
    from_ridge = np.abs(phase - 0.5)  # in pitches from the middle of a ridge
    height = depth * np.clip((duty / 2 - from_ridge) / wall + 0.5, 0, 1)
    return height + roughness * grid.rough("roughness", 1e-8), 0, (_material(material),)


def grains(grid: _Grid, *, grain_size=6e-8, rms=2e-9, disorder=0.9, relief=0.6, material="gold") -> Layers:
    """A polycrystalline film: domes that meet in grooves, scaled to the rms roughness, m.

    grain_size: m, mean spacing; disorder: 0 (square lattice) to 1; relief: spread of the grains' heights in depths of a groove.
    """
    number = [math.ceil(e / grain_size) + 2 for e in grid.extent]
    grid.count(1 / grain_size**2)
    cells = number[0] * number[1]
    u, v = disorder * (grid.uniform("grains", 2 * cells).reshape(2, *number) - 0.5)
    y = ((np.arange(number[0])[:, None] - 0.5 + u) * grain_size).ravel()
    x = ((np.arange(number[1])[None, :] - 0.5 + v) * grain_size).ravel()
    z = relief * randomness.normal(grid.key, 0, "grain heights", cells)[0]
    ys, xs = grid.axes
    height = np.full(grid.shape, -1e3, np.float32)
    curvature = np.float32(4 / grain_size**2)  # a dome falls by 1 over half a grain
    for (rows, columns), cy, cx, top in zip(grid.windows(y, x, 1.6 * grain_size), y, x, z, strict=True):
        here = height[rows, columns]
        np.maximum(here, (top - curvature * (ys[rows] - cy) ** 2) - curvature * (xs[:, columns] - cx) ** 2, out=here)
    height -= height.mean()
    return height * (rms / float(height.std())), 0, (_material(material),)


def nanoparticles(
    grid: _Grid, *, radius=1e-8, spread=0.2, density=6e13, roughness=1.5e-10, material="gold", substrate="mica"
) -> Layers:
    """Spheres on a flat substrate: mean radius, m, log-normal spread, density, 1/m^2; none overlap, so that fewer may find a place."""
    wanted = grid.count(density)
    y, x = grid.uniform("particles", 4 * wanted).reshape(2, -1) * np.array(grid.extent)[:, None]
    r = _lognormal(grid, "particle radii", 2 * wanted, radius, spread)
    pairs = np.sort(cKDTree(np.column_stack([y, x])).query_pairs(2 * r.max(initial=0), output_type="ndarray"), axis=1)
    i, j = pairs[np.lexsort(pairs.T[::-1])].T
    free = np.ones(2 * wanted, bool)
    for first, second in zip(*(k[np.hypot(y[i] - y[j], x[i] - x[j]) < r[i] + r[j]].tolist() for k in (i, j)), strict=True):
        free[second] &= not free[first]
    taken = np.flatnonzero(free)[:wanted]
    height = roughness * grid.rough("roughness", 8e-9)
    material_map = _lie_spheres(height, grid, y[taken], x[taken], r[taken])
    return height, material_map, (_material(substrate), _material(material))


def patches(
    grid: _Grid, *, size=1.2e-7, coverage=0.35, contrast=1.5e-9, roughness=2e-10, material="elastomer", substrate="silicon"
) -> Layers:
    """Patches of a second material, ``contrast``, m, higher, on a share ``coverage`` of the substrate; size: m, their correlation length."""
    field = grid.rough("patches", size)
    above = field - np.float32(np.quantile(field, 1 - coverage))
    edge = np.float32(2 * grid.finest / size)  # the rim slopes over a few pixels
    height = contrast * np.clip(above / edge + 0.5, 0, 1) + roughness * grid.rough("roughness", 1e-8)
    return height, above > 0, (_material(substrate), _material(material))


def fibrils(
    grid: _Grid, *, radius=3e-9, length=6e-7, persistence=2e-7, density=1.6e13, roughness=1e-10, material="polystyrene", substrate="mica"
) -> Layers:
    """Worm-like chains lying on a substrate: radius, contour and persistence length, m; density of chains, 1/m^2. Raises ProbeGymError for too many chains."""
    chains, links = grid.count(density), max(2, math.ceil(length / max(radius / 2, grid.finest / 2)))
    if chains * links > 500_000:
        raise ProbeGymError(f"fibrils: {chains} chains of {links} links are too many: lower density or length, or raise radius")
    link = length / links
    turns = randomness.normal(grid.key, 0, "fibril turns", chains * links)[0].reshape(chains, links) * math.sqrt(link / persistence)
    start_y, start_x, heading = grid.uniform("fibrils", 3 * chains).reshape(3, chains, 1)
    angle = 2 * np.pi * heading + np.cumsum(turns, axis=1)  # two-dimensional chain: <cos> falls as exp(-s / 2 persistence)
    y = (start_y * grid.extent[0] + np.cumsum(np.sin(angle), axis=1) * link).ravel()
    x = (start_x * grid.extent[1] + np.cumsum(np.cos(angle), axis=1) * link).ravel()
    raised = np.zeros(grid.shape[0] * grid.shape[1], np.float32)
    (dy, dx), (rows, columns) = (e / n for e, n in zip(grid.extent, grid.shape, strict=True)), grid.shape
    row, column = np.floor(y / dy).astype(int), np.floor(x / dx).astype(int)
    for v in range(-math.ceil(radius / dy), math.ceil(radius / dy) + 1):
        for u in range(-math.ceil(radius / dx), math.ceil(radius / dx) + 1):
            r, c = row + v, column + u
            depth = radius**2 - ((r + 0.5) * dy - y) ** 2 - ((c + 0.5) * dx - x) ** 2
            on = (depth > 0) & (r >= 0) & (r < rows) & (c >= 0) & (c < columns)
            np.maximum.at(raised, r[on] * columns + c[on], (radius + np.sqrt(depth[on])).astype(np.float32))
    raised = raised.reshape(grid.shape)
    return raised + roughness * grid.rough("roughness", 8e-9), raised > 0, (_material(substrate), _material(material))


KINDS: dict[str, Callable[..., Layers]] = {
    kind.__name__: kind for kind in (terraces, grating, grains, nanoparticles, patches, fibrils)
}
"""The kinds of surface; ``fibrils`` is the one kept for splits that nobody trains on."""

LENGTHS = (1e-12, 1e-3)
LIMITS = {
    "step_height": LENGTHS, "width": LENGTHS, "irregularity": (0, 0.9), "bunching": (0, 1), "direction": (-7, 7), "waviness": (0, 2),
    "wave_length": LENGTHS, "roughness": (0, 1e-6), "pitch": LENGTHS, "depth": LENGTHS, "duty": (0.02, 0.98), "wall_angle": (0.05, 1.57),
    "rotation": (-7, 7), "grain_size": LENGTHS, "rms": (0, 1e-5), "disorder": (0, 1), "relief": (0, 2), "radius": LENGTHS, "spread": (0, 1),
    "density": (0, 1e20), "size": LENGTHS, "coverage": (0.01, 0.99), "contrast": (-1e-6, 1e-6), "length": LENGTHS, "persistence": LENGTHS,
}  # fmt: skip
"""What each number of a kind may be: lowest, highest."""


def _check(kind: str, parameters: dict, defaults: dict) -> None:
    for name, value in parameters.items():
        if name not in defaults:
            raise ProbeGymError(f"{kind} has no parameter {name!r}: it knows {', '.join(defaults)}")
        if name in LIMITS:
            low, high = LIMITS[name]
            if isinstance(value, bool) or not isinstance(value, int | float | np.number) or not low <= value <= high:
                raise ProbeGymError(f"{kind}: {name} must be a number from {low:g} to {high:g}, not {value!r}")


def _grid(key, extent, shape) -> _Grid:
    if not (isinstance(key, int | np.integer) and 0 <= key < 2**64):
        raise ProbeGymError("key must be one whole number from 0 to 2**64 - 1")
    extent, shape = tuple(map(float, extent)), tuple(map(int, shape))
    if len(extent) != 2 or not all(1e-9 <= e <= 1e-3 for e in extent):
        raise ProbeGymError("extent must be (height, width) in metres, each from 1e-9 to 1e-3")
    if len(shape) != 2 or not all(8 <= n <= 8192 for n in shape):
        raise ProbeGymError("shape must be (rows, columns), each from 8 to 8192")
    return _Grid(np.array([key], np.uint64), extent, shape)


def build(kind: str, key, extent, shape, *, tilt=(0.0, 0.0), **parameters) -> Surface:
    """A surface of one of KINDS; key: one uint64; extent: (height, width), m; shape: (rows, columns); tilt: slopes along y and x.

    The parameters of a kind are the keywords of its function. The same key gives the same surface, bit for bit.
    Raises ProbeGymError for another kind, and for slopes beyond 1.
    """
    if kind not in KINDS:
        raise ProbeGymError(f"unknown kind of surface {kind!r}: one of {', '.join(KINDS)}")
    grid = _grid(key, extent, shape)
    _check(kind, parameters, KINDS[kind].__kwdefaults__ or {})
    if len(tilt) != 2 or not all(abs(t) <= 1 for t in tilt):
        raise ProbeGymError("tilt must be two slopes from -1 to 1")
    height, material, materials = KINDS[kind](grid, **parameters)
    y, x = grid.axes
    height = height + (np.float32(tilt[0]) * y + np.float32(tilt[1]) * x)
    height -= height.min()
    return Surface(np.ascontiguousarray(height, np.float32), np.broadcast_to(np.asarray(material, np.uint8), grid.shape).copy(), materials, grid.extent)


def debris(key, extent, *, count=12, radius=1.2e-8, spread=0.25) -> np.ndarray:
    """Loose particles (count, 4): x, y, radius, m, and whether each still lies there (1 or 0; set it to take one away).

    Raises ProbeGymError for another count than 0 to MOST_OBJECTS.
    """
    _check("debris", {"radius": radius, "spread": spread}, {"radius": None, "spread": None})
    if not 0 <= count <= MOST_OBJECTS:
        raise ProbeGymError(f"debris: count must be from 0 to {MOST_OBJECTS}")
    grid = _grid(key, extent, (8, 8))
    x, y = grid.uniform("debris", 2 * count).reshape(2, count)
    return np.column_stack([x * grid.extent[1], y * grid.extent[0], _lognormal(grid, "debris radii", count, radius, spread), np.ones(count)])


def with_debris(surface: Surface, particles: np.ndarray, material: str | Material = "elastomer") -> Surface:
    """The surface with those particles (n, 4) that are present lying on it; their material comes last in ``materials``.

    Raises ProbeGymError for particles that are not finite or have no radius.
    """
    particles = np.asarray(particles, float)
    if particles.ndim != 2 or particles.shape[1] != 4 or not np.isfinite(particles).all() or not (particles[:, 2] > 0).all():
        raise ProbeGymError("debris must be an array (n, 4) of finite x, y, radius > 0, present")
    x, y, radius, _ = particles[particles[:, 3] != 0].T
    height = surface.height.copy()
    covered = _lie_spheres(height, _Grid(np.zeros(1, np.uint64), surface.extent, height.shape), y, x, radius)
    materials = (*surface.materials, _material(material))
    return replace(surface, height=height, material=np.where(covered, np.uint8(len(materials) - 1), surface.material), materials=materials)


def debris_at(particles: np.ndarray, x, y) -> np.ndarray:
    """Index of the particle that is present and nearest among those over (x, y), m, arrays of one shape; -1: none."""
    x, y = np.asarray(x, float)[..., None], np.asarray(y, float)[..., None]
    far = np.where(particles[:, 3] != 0, np.hypot(x - particles[:, 0], y - particles[:, 1]) / particles[:, 2], np.inf)
    if not len(particles):
        return np.full(far.shape[:-1], -1)
    return np.where(far.min(axis=-1) <= 1, far.argmin(axis=-1), -1)
