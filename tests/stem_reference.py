"""abTEM's own multislice of small specimens, to hold the fast forms against."""

from __future__ import annotations

import numpy as np

from probegym.physics.image_formation import ImageFormer
from probegym.physics.optics import ABERRATIONS, to_polar

ANGSTROM, MRAD = 1e-10, 1e-3

SIZES = {1: 40 * ANGSTROM, 2: 1500 * ANGSTROM, 3: 2e4 * ANGSTROM, 4: 5e5 * ANGSTROM, 5: 1e7 * ANGSTROM}
"""Aberrations of about one radian at 30 mrad and 60 kV, by order."""


def random_states(count: int, seed: int = 0, names=ABERRATIONS, scale: float = 1.0) -> np.ndarray:
    """(count, names) coefficients in m."""
    sizes = np.array([SIZES[int(name[1])] for name in names])
    return scale * sizes * np.random.default_rng(seed).uniform(-1, 1, (count, len(names)))


def polar(coefficients: np.ndarray, names=ABERRATIONS) -> dict[str, float]:
    return to_polar(dict(zip(names, map(float, coefficients), strict=True)))


def probe(potential, energy: float, mrad: float, coefficients: np.ndarray, soft: bool, names=ABERRATIONS):
    """The probe of abTEM on the grid of a potential."""
    import abtem

    built = abtem.Probe(energy=energy, semiangle_cutoff=mrad, soft=soft, aberrations=polar(coefficients, names))
    built.grid.match(potential)
    return built


def scanned(potential, energy, mrad, coefficients, positions, detector, soft=False, names=ABERRATIONS) -> np.ndarray:
    """Detector signal by multislice at positions (..., 2) in Angstrom, as a fraction of the beam."""
    import abtem

    with abtem.config.set({"dask.lazy": False, "diagnostics.progress_bar": False}):
        signal = probe(potential, energy, mrad, coefficients, soft, names).scan(
            potential, scan=abtem.CustomScan(positions.reshape(-1, 2)), detectors=abtem.AnnularDetector(*detector)
        )
    return np.asarray(signal.array).reshape(positions.shape[:-1])


def patterns(potential, energy, mrad, coefficients, positions, soft=False, names=ABERRATIONS) -> np.ndarray:
    """Whole diffraction patterns (positions, kx, ky), zero frequency in the middle."""
    import abtem

    with abtem.config.set({"dask.lazy": False, "diagnostics.progress_bar": False}):
        waves = probe(potential, energy, mrad, coefficients, soft, names).multislice(potential, scan=abtem.CustomScan(positions))
        return np.asarray(waves.diffraction_patterns(max_angle="full", fftshift=True).array)


def middle(frames: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """The central part of frames whose zero frequency is in the middle."""
    rows, columns = (slice(n // 2 - m // 2, n // 2 - m // 2 + m) for n, m in zip(frames.shape[-2:], shape, strict=True))
    return frames[..., rows, columns]


def error(ours: np.ndarray, reference: np.ndarray) -> float:
    """Root mean square difference over the range of the reference."""
    return float(np.sqrt(np.mean((ours - reference) ** 2)) / np.ptp(reference))


def scan(former: ImageFormer, states: np.ndarray, positions: np.ndarray, **options) -> np.ndarray:
    """Images at a raster of positions (rows, columns, 2) in Angstrom with an even step along x."""
    lanes, (rows, columns) = len(states), positions.shape[:2]
    starts = positions[:, 0] * ANGSTROM
    pixel = (positions[0, 1, 0] - positions[0, 0, 0]) * ANGSTROM if columns > 1 else ANGSTROM
    line_x, line_y = (np.broadcast_to(starts[:, axis], (lanes, rows)) for axis in (0, 1))
    return former.images(states, line_x, line_y, columns, pixel, **options)
