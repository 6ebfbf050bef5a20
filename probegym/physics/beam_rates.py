"""How fast a focused beam makes a dopant in graphene swap with a carbon neighbour, as a function of where the beam stands.

Rates come in three kinds. A *mixture* of Gaussians around a place in the frame of the neighbour (along and across the bond,
in bonds): with one Gaussian of variance 0.1 at 0.85 bonds and a half-life of 3 s it is the human prior of Schwarzer,
Farebrother et al. 2023 (10.48550/arXiv.2311.17894; google/putting-dune, 10.5281/zenodo.10626248), with random ones their
domain randomisation. *Simple*: 1 / (1 + 16 d^2), d from the neighbour in bonds (same source). *Physical*: a cross-section
times the current density of the actual probe at the neighbour, sigma (I / e) |psi(r_neighbour - r_beam)|^2.
"""

from __future__ import annotations

import numpy as np
import scipy.fft
from scipy import constants
from scipy.ndimage import map_coordinates

from probegym.physics import randomness
from probegym.physics.optics import aberration_basis, aperture, wavelength

BOND = 1.42e-10  # m
HUMAN_PRIOR = (np.log(2) / 3, 0.85, 0.0, 0.1)
"""Height (1/s), place along and across (bonds) and variance (bonds^2) of the one Gaussian of the published prior."""

GAUSSIANS = 8  # at most in a mixture
LOBE_REACH, LOBE_SIDE = 2.0, 33
LOBE_AXIS = np.linspace(-LOBE_REACH, LOBE_REACH, LOBE_SIDE)  # bonds

PIXELS, PIXEL, CELL = 96, 0.08e-10, 20.48e-10
"""Side of a table of |psi|^2, m of its pixels, and the side of the periodic cell in which the probe is computed."""
GPTS = round(CELL / PIXEL)
TABLE_REACH = 3.7e-10  # m from the axis, within every table


def draw_mixture(keys, more: float, along, across, variance, max_rate) -> np.ndarray:
    """Random mixtures (lanes, GAUSSIANS, 4): height 1/s, along, across in bonds, variance in bonds^2; unused rows are zero.

    keys: (lanes,) uint64. 1 + Poisson(more) Gaussians of equal weight, as normalised densities, whose places and variances
    ``along``, ``across``, ``variance`` (distributions with ``sample``) say; scaled such that the largest rate is ``max_rate`` (lanes,).
    Raises ValueError for a variance that is not above 0.
    """
    keys = np.asarray(keys, np.uint64).reshape(-1)
    steps = np.arange(GAUSSIANS - 1)
    chance = np.cumsum(np.exp(-more) * np.cumprod(np.concatenate([[1.0], more / (steps[:-1] + 1)])))
    count = 1 + (randomness.uniform(keys, 0, "gaussians", 1) > chance).sum(1)
    drawn = [[field.sample(randomness.subkey(keys, g, "gaussian"), name) for g in range(GAUSSIANS)]
             for name, field in (("along", along), ("across", across), ("variance", variance))]  # fmt: skip
    x, y, variance = (np.stack(field, 1) for field in drawn)
    if not (variance > 0).all():
        raise ValueError(f"a Gaussian needs a variance above 0, drawn was {variance.min():g}")
    height = np.where(np.arange(GAUSSIANS) < count[:, None], 1 / variance, 0.0)
    height = height * (np.asarray(max_rate) / _peak(height, x, y, variance))[:, None]
    return np.stack([height, x, y, variance], -1) * (height > 0)[..., None]


def mixture_rates(mixture: np.ndarray, along: np.ndarray, across: np.ndarray) -> np.ndarray:
    """Rates (lanes, n) in 1/s of mixtures (lanes, gaussians, 4) with the beam at (lanes, n) bonds along and across."""
    total = np.zeros(np.broadcast_shapes(along.shape, across.shape, (len(mixture), 1)))
    for g in range(mixture.shape[1]):
        height, x, y, variance = (mixture[:, g, k, None] for k in range(4))
        distance = (along - x) ** 2 + (across - y) ** 2
        total += height * np.exp(-0.5 * distance / np.where(variance > 0, variance, 1.0))
    return total


def _peak(height, x, y, variance) -> np.ndarray:
    """Largest value (lanes,) of mixtures: from every Gaussian's place uphill by fixed points of the gradient (Carreira-Perpinan 2000, 10.1109/34.888716)."""
    mixture = np.stack([height, x, y, variance], -1)
    at_x, at_y = x.copy(), y.copy()
    for _ in range(6):
        pulls = [h / v * np.exp(-0.5 * ((at_x - gx) ** 2 + (at_y - gy) ** 2) / v)
                 for h, gx, gy, v in ((mixture[:, g, k, None] for k in range(4)) for g in range(GAUSSIANS))]  # fmt: skip
        weight = np.maximum(_sum(pulls), 1e-300)
        at_x, at_y = (_sum([p * place[:, g, None] for g, p in enumerate(pulls)]) / weight for place in (x, y))
    return mixture_rates(mixture, at_x, at_y).max(1)


def _sum(arrays: list[np.ndarray]) -> np.ndarray:
    """Sum in the order given, so that it does not depend on the batch."""
    total = arrays[0].copy()
    for array in arrays[1:]:
        total += array
    return total


def lobes(mixture: np.ndarray) -> np.ndarray:
    """Rates of mixtures (lanes, gaussians, 4) by the beam's place on LOBE_AXIS in the neighbour's frame: (lanes, along, across) in 1/s."""
    total = np.zeros((len(mixture), LOBE_SIDE, LOBE_SIDE))
    for g in range(mixture.shape[1]):
        used = mixture[:, g, 0] > 0
        height, x, y, variance = mixture[used, g].T[..., None]
        along, across = (np.exp(-0.5 * (LOBE_AXIS - place) ** 2 / variance) for place in (x, y))
        total[used] += (height * along)[..., None] * across[:, None]
    return total


def simple_lobe() -> np.ndarray:
    """1 / (1 + 16 d^2) on the same places: (along, across)."""
    return 1 / (1 + 16 * _squared_distance())


def _squared_distance() -> np.ndarray:
    """From the neighbour at (1, 0), in bonds^2, on LOBE_AXIS: (along, across)."""
    return (LOBE_AXIS[:, None] - 1) ** 2 + LOBE_AXIS**2


def density_lobes(tables: np.ndarray) -> np.ndarray:
    """Current density at the neighbour by the beam's place, averaged around the axis: tables of |psi|^2 -> (states, along, across) in 1/m^2."""
    distance, reach = np.sqrt(_squared_distance()) * BOND, np.linspace(0, TABLE_REACH, 120)
    return np.stack([np.interp(distance, reach, profile, right=0.0) for profile in radial(tables, reach)])


def gaussian_lobe(width: float) -> np.ndarray:
    """The same for a Gaussian probe of full width at half maximum ``width`` (m): (along, across) in 1/m^2."""
    variance = gaussian_variance(width)
    return np.exp(-0.5 * _squared_distance() * BOND**2 / variance) / (2 * np.pi * variance)


def current_density(energy: float, semiangle_cutoff: float, names: tuple[str, ...], coefficients: np.ndarray,
                    source_size: float = 0.0, focal_spread: float = 0.0) -> np.ndarray:  # fmt: skip
    """|psi|^2 in 1/m^2 of aberrated probes, (lanes, PIXELS, PIXELS) float32, axes x, y, the optical axis at index PIXELS // 2.

    energy: eV. semiangle_cutoff: rad. coefficients: (lanes, names) m. source_size, focal_spread: standard deviations in m. The
    integral over the plane is 1; what lies outside the table is left out. Times I / e it is electrons per m^2 and s.
    """
    edge = (GPTS - PIXELS) // 2
    whole = _intensities(energy, semiangle_cutoff, names, coefficients, source_size, focal_spread)
    return np.stack([np.fft.fftshift(table)[edge : edge + PIXELS, edge : edge + PIXELS] for table in whole]).astype(np.float32)


def transfer(energy: float, semiangle_cutoff: float, names: tuple[str, ...], coefficients: np.ndarray, source_size: float,
             focal_spread: float, frequencies: np.ndarray) -> np.ndarray:  # fmt: skip
    """Fourier transform of |psi|^2 at spatial frequencies (n,) in 1/m, averaged over directions: (lanes, n), 1 at zero.

    Other arguments as of ``current_density``.
    """
    angle = 2 * np.pi * np.arange(48) / 48
    places = GPTS // 2 + np.asarray(frequencies)[:, None] * CELL * np.stack([np.cos(angle), np.sin(angle)])[:, None]
    whole = _intensities(energy, semiangle_cutoff, names, coefficients, source_size, focal_spread)
    spectra = (np.fft.fftshift(scipy.fft.fft2(table).real) * PIXEL**2 for table in whole)
    return np.stack([map_coordinates(spectrum / spectrum.max(), places, order=3, mode="nearest").mean(-1) for spectrum in spectra])


def _intensities(energy: float, semiangle_cutoff: float, names: tuple[str, ...], coefficients: np.ndarray, source_size: float, focal_spread: float):
    """|psi|^2 of each lane over the periodic cell, (GPTS, GPTS), the optical axis first."""
    lam, k = wavelength(energy), np.fft.fftfreq(GPTS, PIXEL)
    kx, ky = np.meshgrid(k, k, indexing="ij")
    weight = aperture(np.hypot(kx, ky) * lam, np.arctan2(ky, kx), semiangle_cutoff, (lam / CELL, lam / CELL))
    inside = weight > 0
    basis = aberration_basis(kx[inside], ky[inside], lam, ("C10", *names))
    blur = np.exp(-2 * np.pi**2 * source_size**2 * (kx**2 + ky**2))[:, : GPTS // 2 + 1]
    spots, shares = np.polynomial.hermite_e.hermegauss(7 if focal_spread else 1)
    wave = np.zeros((GPTS, GPTS), complex)
    for state in np.atleast_2d(np.asarray(coefficients, float)):
        total = np.zeros((GPTS, GPTS))
        for spot, share in zip(spots, shares / shares.sum(), strict=True):
            chi = np.einsum("i,ij->j", np.concatenate([[focal_spread * spot], state]), basis)
            wave[inside] = weight[inside] * np.exp(-1j * chi)
            total += share * np.abs(scipy.fft.ifft2(wave)) ** 2
        total *= (GPTS / CELL) ** 2 * GPTS**2 / weight.sum()  # at the peak of the ideal probe the area of the aperture, whatever its edge
        yield scipy.fft.irfft2(scipy.fft.rfft2(total) * blur, total.shape) if source_size else total


def radial(tables: np.ndarray, distance: np.ndarray) -> np.ndarray:
    """Mean over 48 directions of tables (states, PIXELS, PIXELS), at distances (n,) in m up to TABLE_REACH: (states, n)."""
    angle = 2 * np.pi * np.arange(48) / 48
    places = PIXELS // 2 + np.asarray(distance)[:, None] / PIXEL * np.stack([np.cos(angle), np.sin(angle)])[:, None]
    return np.stack([map_coordinates(table, places, order=3, mode="nearest").mean(-1) for table in tables])


def gaussian_variance(width: float) -> float:
    """Variance (m^2) of a Gaussian of full width at half maximum ``width`` (m); its peak density is 0.8825 / width^2."""
    return width**2 / (8 * np.log(2))


def flux(current) -> np.ndarray:
    """Electrons per second of a current in A."""
    return np.asarray(current, float) / constants.e
