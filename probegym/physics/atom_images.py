"""Fast images of graphene with silicon: a sum of round atom profiles.

A high-angle detector sees an atom of species Z as S_Z (|psi|^2 (x) G_Z): a detector cross-section, the intensity of the probe
averaged around its axis, and a Gaussian for the size of the scattering potential. S_Z and the widths were fitted to exact
multislice images (image_formation.py) of graphene with silicon at 60 kV, 80 to 180 mrad; benchmarks/beam.py prints what is
left: the interference of the probe at neighbouring atoms, which no sum of profiles has.
"""

from __future__ import annotations

import ctypes
from typing import NamedTuple

import numpy as np

from probegym.physics import native
from probegym.physics.beam_rates import current_density, gaussian_variance, radial
from probegym.physics.graphene import SITE_AREA
from probegym.physics.threads import in_tiles

STRENGTHS = (6.87e-24, 3.38e-23)
"""Detector cross-sections of C and Si, m^2."""
WIDTHS = (0.1e-10, 0.1e-10)
"""Standard deviations of their scattering potentials, m."""

BINS, REACH = 512, 2.8e-10  # steps of a profile in the squared distance, up to m; carbon beyond it is a constant background
DISTANCES = REACH * np.sqrt(np.arange(BINS + 1) / BINS)  # m
LARGEST_VIEW = 12e-9  # m


class Profiles(NamedTuple):
    """What a carbon and a silicon atom send to the detector, as shares of the beam, for one or more states of the probe.

    shapes: (states, 2, BINS + 2) float32 by the distance of the probe, at equal steps of its square up to REACH, then 0.
    background: (states,) float32, all the carbon beyond REACH.
    """

    shapes: np.ndarray
    background: np.ndarray


def profiles(energy: float, semiangle_cutoff: float, names: tuple[str, ...], coefficients: np.ndarray, source_size: float,
             focal_spread: float, strengths=STRENGTHS, widths=WIDTHS) -> Profiles:  # fmt: skip
    """Profiles of aberrated probes; arguments as of beam_rates.current_density."""
    probes = (current_density(energy, semiangle_cutoff, names, coefficients, np.hypot(source_size, width), focal_spread) for width in widths)
    return _profiles([radial(tables, DISTANCES) for tables in probes], strengths)


def gaussian_profiles(width: float, strengths=STRENGTHS, widths=WIDTHS) -> Profiles:
    """Profiles of a Gaussian probe of full width at half maximum ``width`` (m)."""
    variances = [gaussian_variance(width) + blur**2 for blur in widths]
    return _profiles([np.exp(-0.5 * DISTANCES[None] ** 2 / v) / (2 * np.pi * v) for v in variances], strengths)


def _profiles(densities: list[np.ndarray], strengths: tuple[float, float]) -> Profiles:
    shapes = np.stack([strength * density for strength, density in zip(strengths, densities, strict=True)], 1)
    shapes = np.concatenate([shapes[..., :-1], np.zeros_like(shapes[..., :2])], -1)
    inside = np.pi * REACH**2 / BINS * (shapes[:, 0].sum(1) - 0.5 * shapes[:, 0, 0])
    return Profiles(shapes.astype(np.float32), (np.maximum(strengths[0] - inside, 0.0) / SITE_AREA).astype(np.float32))


def images(sheets: dict[str, np.ndarray], seats: np.ndarray, profile: Profiles, start: np.ndarray, columns: int, pixel: float) -> np.ndarray:
    """Noiseless images (lanes, rows, columns) float32, as shares of the beam; rows run along y, columns along x.

    sheets: state of graphene.py; its ``optics`` picks the state of the probe. seats: (lanes, n, 2) m, where the silicon atoms
    sit. start: (lanes, rows, 2) m, the first pixel of each row in the sheet's frame. pixel: m. Raises MemoryError.
    """
    s, (lanes, rows) = sheets, start.shape[:2]
    seats, start = np.ascontiguousarray(seats, float), np.ascontiguousarray(start, float)
    out = np.empty((lanes, rows, columns), np.float32)
    kernel, shared = native.library("atom_images").atom_images, (native.pointer(profile.shapes), native.pointer(profile.background))

    def tile(part: slice) -> int:
        at = {name: native.pointer(s[name][part]) for name in ("frame", "silicon", "vacancy", "cluster", "optics")}
        return kernel(
            part.stop - part.start, rows, columns, ctypes.c_double(pixel), at["frame"], s["silicon"].shape[1], at["silicon"],
            native.pointer(seats[part]), s["vacancy"].shape[1], at["vacancy"], s["cluster"].shape[1], at["cluster"], BINS, ctypes.c_double(1e10 * REACH),
            *shared, at["optics"], native.pointer(start[part]), native.pointer(out[part]),
        )  # fmt: skip

    if any(in_tiles(tile, lanes)):
        raise MemoryError(f"no memory for the atoms of {lanes} images")
    return out
