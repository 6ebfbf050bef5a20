"""Fast images of graphene with silicon: a sum of round atom profiles, that of the perfect lattice as its Fourier series.

A high-angle detector sees an atom of species Z as S_Z (|psi|^2 (x) G_Z): a detector cross-section, the intensity of the probe
averaged around its axis, and a Gaussian for the size of the scattering potential. S_Z and the widths were fitted to exact
multislice images (image_formation.py) of graphene with silicon at 60 kV, 80 to 180 mrad, which benchmarks/beam.py repeats. What is
left is 3 % of an image's standard deviation for a round probe, and about 9 % for nearly tuned ones that are not round.
"""

from __future__ import annotations

import ctypes
from typing import NamedTuple

import numpy as np

from probegym.physics import native
from probegym.physics.beam_rates import BOND, current_density, gaussian_variance, radial, transfer
from probegym.physics.graphene import SITE_AREA
from probegym.physics.threads import in_tiles

STRENGTHS = (7.24e-24, 3.53e-23)
"""Detector cross-sections of C and Si, m^2."""
WIDTHS = (0.1e-10, 0.1e-10)
"""Standard deviations of their scattering potentials, m."""

BINS, REACH = 512, 3.7e-10  # steps of a profile in the squared distance, up to m
DISTANCES = REACH * np.sqrt(np.arange(BINS + 1) / BINS)  # m
LARGEST_VIEW = 12e-9  # m
LEAST_WAVE = 1e-4  # of the transfer function, that a lattice wave is drawn for
WAVES = np.array([(h, k) for h in range(7) for k in range(-6, 7) if (h > 0 or k > 0) and h * h - h * k + k * k <= 28], np.int32)
"""Reciprocal lattice vectors of graphene, one of each pair of opposite ones."""
FREQUENCIES = np.sqrt((WAVES**2).sum(1) - WAVES.prod(1)) * 2 / (3 * BOND)  # 1/m


class Profiles(NamedTuple):
    """What a detector sees of atoms, as shares of the beam, for one or more states of the probe.

    shapes: (states, 2, BINS + 2) float32 of a carbon and a silicon atom by the distance of the probe, at equal steps of its square
    up to REACH, then 0. waves: (n, 2) int32 reciprocal lattice vectors; amplitudes: (states, n, 2) float32, real and imaginary, of
    the perfect lattice; mean: (states,) float32. A sum over its atoms would be the same.
    """

    shapes: np.ndarray
    waves: np.ndarray
    amplitudes: np.ndarray
    mean: np.ndarray


def profiles(energy: float, semiangle_cutoff: float, names: tuple[str, ...], coefficients: np.ndarray, source_size: float,
             focal_spread: float, strengths=STRENGTHS, widths=WIDTHS) -> Profiles:  # fmt: skip
    """Profiles of aberrated probes; arguments as of beam_rates.current_density, strengths (m^2) and widths (m) of carbon and silicon."""
    optics = [(energy, semiangle_cutoff, names, coefficients, np.hypot(source_size, width), focal_spread) for width in widths]
    return _profiles([radial(current_density(*told), DISTANCES) for told in optics], transfer(*optics[0], FREQUENCIES), strengths)


def gaussian_profiles(width: float, strengths=STRENGTHS, widths=WIDTHS) -> Profiles:
    """Profiles of a Gaussian probe of full width at half maximum ``width`` (m)."""
    variances = [gaussian_variance(width) + blur**2 for blur in widths]
    densities = [np.exp(-0.5 * DISTANCES[None] ** 2 / v) / (2 * np.pi * v) for v in variances]
    return _profiles(densities, np.exp(-2 * np.pi**2 * variances[0] * FREQUENCIES[None] ** 2), strengths)


def _profiles(densities: list[np.ndarray], transferred: np.ndarray, strengths: tuple[float, float]) -> Profiles:
    shapes = np.stack([strength * density for strength, density in zip(strengths, densities, strict=True)], 1)
    shapes = np.concatenate([shapes[..., :-1], np.zeros_like(shapes[..., :2])], -1)
    used = (np.abs(transferred) > LEAST_WAVE).any(0)
    factor = strengths[0] / SITE_AREA * (1 + np.exp(-2j * np.pi / 3 * WAVES.sum(1))) * transferred  # both sublattices, both of a pair
    amplitudes = np.stack([factor.real, factor.imag], -1)[:, used]
    mean = np.full(len(shapes), strengths[0] / SITE_AREA, np.float32)
    return Profiles(*map(np.ascontiguousarray, (shapes.astype(np.float32), WAVES[used], amplitudes.astype(np.float32), mean)))


def images(sheets: dict[str, np.ndarray], seats: np.ndarray, profile: Profiles, start: np.ndarray, columns: int, pixel: float) -> np.ndarray:
    """Noiseless images (lanes, rows, columns) float32, as shares of the beam; rows run along y, columns along x.

    sheets: state of graphene.py; its ``optics`` picks the state of the probe. seats: (lanes, n, 2) m, where the silicon atoms
    sit. start: (lanes, rows, 2) m, the first pixel of each row in the sheet's frame. pixel: m. Raises MemoryError.
    """
    s, (lanes, rows) = sheets, start.shape[:2]
    seats, start = np.ascontiguousarray(seats, float), np.ascontiguousarray(start, float)
    out = np.empty((lanes, rows, columns), np.float32)
    kernel, shape = native.library("atom_images").atom_images, native.pointer(profile.shapes)
    waves = (len(profile.waves), *map(native.pointer, profile[1:]))

    def tile(part: slice) -> int:
        at = {name: native.pointer(s[name][part]) for name in ("frame", "silicon", "vacancy", "cluster", "optics")}
        return kernel(
            part.stop - part.start, rows, columns, ctypes.c_double(pixel), at["frame"], s["silicon"].shape[1], at["silicon"],
            native.pointer(seats[part]), s["vacancy"].shape[1], at["vacancy"], s["cluster"].shape[1], at["cluster"], BINS, ctypes.c_double(1e10 * REACH),
            shape, *waves, at["optics"], native.pointer(start[part]), native.pointer(out[part]),
        )  # fmt: skip

    if any(in_tiles(tile, lanes)):
        raise MemoryError(f"no memory for the atoms of {lanes} images")
    return out
