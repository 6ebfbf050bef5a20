"""Electron optics: wavelength, aberration function to fifth order, probe and Strehl ratio.

Aberrations are Krivanek's, in Cartesian form: ``C10``, ``C12a``, ``C12b`` ... in metres, where ``a`` is the
cosine and ``b`` the sine component, so that

    chi(alpha, phi) = (2 pi / lambda) sum_nm alpha^(n+1)/(n+1) [C_nma cos(m phi) + C_nmb sin(m phi)]

and a plane wave inside the aperture carries exp(-i chi). ``C10 = -defocus``, as in abTEM.

Sources: Krivanek, Dellby & Lupini, Ultramicroscopy 78, 1 (1999), 10.1016/S0304-3991(99)00013-3;
Kirkland, Advanced Computing in Electron Microscopy (2010), 10.1007/978-1-4419-6533-2.
"""

from __future__ import annotations

import numpy as np
from scipy import constants

ORDERS = [(n, m) for n in range(1, 6) for m in range(n + 1, -1, -1) if (n + 1 + m) % 2 == 0]
"""Order n and azimuthal symmetry m of every coefficient up to fifth order."""

ABERRATIONS: tuple[str, ...] = tuple(f"C{n}{m}{component}" for n, m in sorted(ORDERS) for component in (("a", "b") if m else ("",)))
"""Names of the 25 Cartesian coefficients: C10, C12a, C12b, C21a, ... C56b."""

ELECTRON_REST_ENERGY = constants.m_e * constants.c**2 / constants.e  # eV


def wavelength(energy: float) -> float:
    """Relativistic electron wavelength in metres for a kinetic energy in eV."""
    momentum = np.sqrt(energy * (energy + 2 * ELECTRON_REST_ENERGY)) * constants.e / constants.c
    return float(constants.h / momentum)


def interaction_constant(energy: float) -> float:
    """Phase per projected potential, sigma = 2 pi gamma m e lambda / h^2, in rad / (V m)."""
    return float(2 * np.pi * lorentz_factor(energy) * constants.m_e * constants.e * wavelength(energy) / constants.h**2)


def lorentz_factor(energy: float) -> float:
    """Energy of an electron over its rest energy; energy: kinetic, in eV."""
    return float(1 + energy / ELECTRON_REST_ENERGY)


def velocity_ratio(energy: float) -> float:
    """Electron speed in units of the speed of light; energy: kinetic, in eV."""
    return float(np.sqrt(1 - lorentz_factor(energy) ** -2))


def split_name(name: str) -> tuple[int, int, str]:
    """Order, symmetry and component of a coefficient: ``"C12b"`` -> ``(1, 2, "b")``. Raises ValueError for a name that is not in ABERRATIONS."""
    if name not in ABERRATIONS:
        raise ValueError(f"unknown aberration {name!r}; use one of {', '.join(ABERRATIONS)}")
    return int(name[1]), int(name[2]), name[3:]


def aberration_basis(kx, ky, lam: float, names=ABERRATIONS) -> np.ndarray:
    """Phase of one metre of each aberration: ``chi = coefficients @ basis``.

    kx, ky: spatial frequencies in 1/m, any shape S. Returns (len(names), *S) in rad/m.
    """
    alpha = np.hypot(kx, ky) * lam
    phi = np.arctan2(ky, kx)
    basis = []
    for name in names:
        n, m, component = split_name(name)
        azimuth = np.sin(m * phi) if component == "b" else np.cos(m * phi)
        basis.append(2 * np.pi / lam * alpha ** (n + 1) / (n + 1) * azimuth)
    return np.stack(basis)


def displacements(angles_x, angles_y, names=ABERRATIONS) -> np.ndarray:
    """Where one metre of each aberration throws the ray of an angle: gradient of the aberration function.

    angles_x, angles_y: rad, any shape S. Returns (2, len(names), *S) in m, x and y.
    """
    w = np.asarray(angles_x) + 1j * np.asarray(angles_y)
    thrown = []
    for name in names:
        n, m, component = split_name(name)
        p, q = (n + 1 + m) // 2, (n + 1 - m) // 2  # alpha^(n+1) exp(i m phi) is w^p conj(w)^q
        near = q * w**p * np.conj(w) ** max(q - 1, 0)  # 2 d/d conj(w) is d/dx + i d/dy
        far = p * np.conj(w) ** (p - 1) * w**q
        thrown.append(((near - far) / 1j if component == "b" else near + far) / (n + 1))
    stacked = np.stack(thrown)
    return np.stack([stacked.real, stacked.imag])


def to_polar(coefficients: dict[str, float]) -> dict[str, float]:
    """Cartesian coefficients (m) as abTEM's polar symbols (C in Angstrom, phi in rad)."""
    polar: dict[str, float] = {}
    for n, m in ORDERS:
        a = coefficients.get(f"C{n}{m}a" if m else f"C{n}{m}", 0.0) * 1e10
        b = coefficients.get(f"C{n}{m}b", 0.0) * 1e10
        if m == 0:
            polar[f"C{n}0"] = a
        else:
            polar[f"C{n}{m}"] = float(np.hypot(a, b))
            polar[f"phi{n}{m}"] = float(np.arctan2(b, a) / m)
    return polar


def aperture(alpha, phi, semiangle_cutoff: float, angular_sampling, soft: bool = True) -> np.ndarray:
    """Transmission of a round aperture; angles in rad.

    A soft edge falls linearly over one angular sampling step (abTEM's convention); a hard one is 1 below
    the cut-off. ``angular_sampling``: (x, y) in rad.
    """
    if not soft:
        return (np.asarray(alpha) < semiangle_cutoff).astype(float)
    step = np.hypot(np.cos(phi) * angular_sampling[0], np.sin(phi) * angular_sampling[1])
    return np.clip((semiangle_cutoff - alpha) / step + 0.5, 0.0, 1.0)


class Pupil:
    """A round aperture sampled on a square grid, for Strehl ratios and phase plates.

    energy in eV, semiangle_cutoff in rad, ``samples`` points across the diameter.
    """

    def __init__(self, energy: float, semiangle_cutoff: float, names=ABERRATIONS, samples: int = 48):
        lam = wavelength(energy)
        axis = (np.arange(samples) + 0.5) / samples * 2 - 1
        x, y = np.meshgrid(axis, axis, indexing="xy")
        self.inside = np.hypot(x, y) <= 1
        k = semiangle_cutoff / lam
        basis = aberration_basis(x[self.inside] * k, y[self.inside] * k, lam, names)
        # A tilt of the wavefront only moves the probe, and a constant phase does nothing: project both out.
        plane = np.stack([np.ones(self.inside.sum()), x[self.inside], y[self.inside]])
        self.basis = basis - (basis @ np.linalg.pinv(plane)) @ plane
        self.covariance = self.basis @ self.basis.T / self.basis.shape[1]
        self._centred = self.basis.astype(np.float32)

    def strehl(self, coefficients) -> np.ndarray:
        """Peak of the probe relative to the aberration-free one; coefficients (..., n) in m -> (...).

        Measured on the axis through the least-squares tilt, so coma that only displaces the probe does not count.
        """
        return _coherent_mean(coefficients, self._centred)

    def phase_variance(self, coefficients) -> np.ndarray:
        """Variance of the wavefront phase over the aperture (rad^2), tilt removed; coefficients (..., n) in m -> (...)."""
        c = np.asarray(coefficients, float)
        return (np.einsum("...i,ij->...j", c, self.covariance) * c).sum(-1)  # a matrix product rounds by batch size

    def phase_plate(self, coefficients) -> np.ndarray:
        """Wavefront phase in rad on the grid, NaN outside the aperture; coefficients (n,) in m -> (samples, samples)."""
        plate = np.full(self.inside.shape, np.nan)
        plate[self.inside] = np.asarray(coefficients, float) @ self.basis
        return plate


def _coherent_mean(coefficients, basis: np.ndarray) -> np.ndarray:
    """|<exp(-i chi)>|^2 over the samples; single precision, whose error of 1e-6 nobody can see."""
    chi = np.einsum("...i,ij->...j", np.asarray(coefficients, np.float32), basis)  # a matrix product rounds by batch size
    return (np.cos(chi).sum(-1).astype(float) ** 2 + np.sin(chi).sum(-1).astype(float) ** 2) / basis.shape[1] ** 2


def probe(energy: float, semiangle_cutoff: float, coefficients: dict[str, float], extent: float, gpts: int):
    """Probe wave function at the centre of a square cell, normalised to unit total intensity.

    extent in m. Returns a complex array (gpts, gpts), axes (x, y).
    """
    lam = wavelength(energy)
    k = np.fft.fftfreq(gpts, d=extent / gpts)
    kx, ky = np.meshgrid(k, k, indexing="ij")
    inside = np.hypot(kx, ky) * lam < semiangle_cutoff
    chi = (
        np.array(list(coefficients.values())) @ aberration_basis(kx, ky, lam, tuple(coefficients)).reshape(len(coefficients), -1)
        if coefficients
        else np.zeros(gpts * gpts)
    )
    wave = np.fft.fftshift(np.fft.ifft2(inside * np.exp(-1j * chi.reshape(gpts, gpts))))
    return wave / np.sqrt((np.abs(wave) ** 2).sum())


def focal_spread(chromatic: float, energy: float, energy_spread: float) -> float:
    """Standard deviation of the focus, C_c (dE/E) (1 + E/mc^2) / (1 + E/2mc^2), in metres.

    chromatic: C_c in m; energy, energy_spread (standard deviation) in eV.
    """
    ratio = energy / ELECTRON_REST_ENERGY
    return chromatic * energy_spread / energy * (1 + ratio) / (1 + ratio / 2)
