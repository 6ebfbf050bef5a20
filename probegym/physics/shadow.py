"""Ronchigrams in the limit of ray optics: the shadow that a film of particles throws on the camera.

A ray that leaves the lens at the angle w crosses the film at r = grad chi(w) lambda / 2 pi and goes on to the camera at w, so a
frame is the film's transmission at r. Holds where the film is coarser than the Fresnel length sqrt(lambda |C10|); nearer to focus,
and for thin films, waves count (ronchigram.py). Sources: Krivanek, Dellby & Lupini, Ultramicroscopy 78, 1 (1999),
10.1016/S0304-3991(99)00013-3; Lupini, Wang, Nellist, Kirkland & Pennycook, Ultramicroscopy 110, 891 (2010), 10.1016/j.ultramic.2010.04.006.
"""

from __future__ import annotations

import ctypes
import functools
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from probegym.physics import native
from probegym.physics.optics import ABERRATIONS, displacements
from probegym.physics.threads import in_tiles

EXTENT, GPTS = 768e-9, 512  # of a film, m and points
FILMS = 64
SPACING, LARGEST = (14e-9, 28e-9), (8e-9, 16e-9)  # m: side of the square that has one particle on average; the longest particle
SMALLEST, SLENDER = 0.25, 0.6  # of the longest; short axis to long
DARKNESS = (0.12, 0.6)  # optical density of the thickest particle
EDGE = (0.5e-9, 2.5e-9)  # m, over which an edge is blurred
GRAIN = 0.01  # standard deviation of the support, at most
_TURNS = ((1, 0, 0, 1), (0, 1, -1, 0), (-1, 0, 0, -1), (0, -1, 1, 0))  # quarter turns, row-major


@functools.lru_cache(maxsize=FILMS)
def particle_film(number: int) -> np.ndarray:
    """Transmission of heavy particles on a thin support, (GPTS, GPTS) float32, axes (x, y), periodic over EXTENT; one of FILMS.

    Ellipses between discs and ellipsoids, with a size, darkness, spacing and sharpness of each film's own.
    """
    rng, step = np.random.default_rng((20, number)), EXTENT / GPTS
    side, largest = rng.uniform(*SPACING), rng.uniform(*LARGEST)
    darkness, flatness = np.exp(rng.uniform(*np.log(DARKNESS))), rng.uniform(0, 1)
    film = np.zeros((GPTS, GPTS))
    for _ in range(int((EXTENT / side) ** 2)):
        centre, long = rng.uniform(0, EXTENT, 2), largest * rng.uniform(SMALLEST, 1)
        short, turn = long * rng.uniform(SLENDER, 1), rng.uniform(0, np.pi)
        x, y = (np.arange(int((at - long / 2) / step) - 1, int((at + long / 2) / step) + 2) for at in centre)
        dx, dy = np.meshgrid(x * step - centre[0], y * step - centre[1], indexing="ij")
        along, across = dx * np.cos(turn) + dy * np.sin(turn), dy * np.cos(turn) - dx * np.sin(turn)
        inside = np.clip(1 - (2 * along / long) ** 2 - (2 * across / short) ** 2, 0, None)
        film[np.ix_(x % GPTS, y % GPTS)] += np.where(inside > 0, flatness + (1 - flatness) * np.sqrt(inside), 0) * short / largest
    film = ndimage.gaussian_filter(film, rng.uniform(*EDGE) / 2 / step, mode="wrap")
    grain = rng.uniform(0, GRAIN) * ndimage.gaussian_filter(rng.standard_normal(film.shape), 0.7, mode="wrap")
    return (np.exp(-darkness * film) * (1 - grain)).astype(np.float32)


class _Camera(ctypes.Structure):
    _fields_ = [(name, ctypes.c_int32) for name in ("gpts", "pixels", "samples", "coefficients")] + [("basis", ctypes.c_void_p)]


@dataclass
class ShadowFormer:
    """Shadows of particle films on a square camera.

    semiangle_cutoff: rad, from the axis to the middle of the camera's edge. pixels: side of the frame; a pixel is the mean of
    ``samples`` x ``samples`` rays.
    """

    semiangle_cutoff: float
    pixels: int = 64
    names: tuple[str, ...] = ABERRATIONS
    samples: int = 2
    middle = 0.0  # depth of the film's middle, m: it is thin

    def __post_init__(self):
        self.angle = 2 * self.semiangle_cutoff  # across the frame, rad
        side = self.pixels * self.samples
        axis = self.semiangle_cutoff * ((np.arange(side) + 0.5) / side * 2 - 1)
        x, y = np.meshgrid(axis, axis, indexing="xy")  # rows along y, columns along x
        self._basis = np.ascontiguousarray(displacements(x, y, self.names) * (GPTS / EXTENT), dtype=np.float32)
        self._struct = _Camera(GPTS, self.pixels, self.samples, len(self.names), self._basis.ctypes.data)
        self._kernel = native.library("shadow").shadows

    def __reduce__(self):
        return ShadowFormer, (self.semiangle_cutoff, self.pixels, self.names, self.samples)

    def frames(self, coefficients, positions, variants, orientations, threads: int | None = None) -> np.ndarray:
        """Noiseless frames as fractions of the beam current per pixel.

        coefficients: (lanes, n) in m. positions: (lanes, 2) probe on the film, m. variants: (lanes,) which film.
        orientations: (lanes,) 0 to 7, how the film lies: quarter turns, then the same of its mirror image.
        Returns float32 (lanes, pixels, pixels): rows run along the angle in y, columns in x, the axis at the centre. Raises MemoryError.
        """
        coefficients = np.ascontiguousarray(coefficients, np.float32)
        places = np.ascontiguousarray(np.mod(positions, EXTENT) * (GPTS / EXTENT), np.float32)
        turns = np.array([_turn(int(o)) for o in orientations], np.float32)
        frames = np.empty((len(coefficients), self.pixels, self.pixels), np.float32)
        films = [particle_film(int(v)) for v in variants]

        def tile(part: slice) -> int:
            chosen = (ctypes.c_void_p * (part.stop - part.start))(*(film.ctypes.data for film in films[part]))
            arrays = (native.pointer(array[part]) for array in (coefficients, places, turns))
            return self._kernel(ctypes.byref(self._struct), part.stop - part.start, *arrays, chosen, native.pointer(frames[part]))

        if any(in_tiles(tile, len(frames), threads)):
            raise MemoryError(f"no memory for {len(frames)} Ronchigrams")
        return frames


def _turn(orientation: int) -> tuple[int, ...]:
    a, b, c, d = _TURNS[orientation % 4]
    return (c, d, a, b) if orientation >= 4 else (a, b, c, d)
