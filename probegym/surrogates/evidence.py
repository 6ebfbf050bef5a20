"""The marginal likelihood of a Gaussian process and its gradient, in closed form: half the time of an automatic one."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import linalg

from probegym.errors import ProbeGymError

JITTER = (0.0, 1e-8, 1e-7, 1e-6)


class Kernel(NamedTuple):
    """A radial basis function of the embedding, another of the place if wanted, and white noise; arrays of one number but the first."""

    length_scale: np.ndarray  # (latent,)
    amplitude: np.ndarray  # variance
    noise: np.ndarray  # variance
    mean: np.ndarray
    local_length: np.ndarray | None  # in units of the coordinates' deviation
    local_amplitude: np.ndarray | None

    @property
    def local(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Length (in units of the coordinates' deviation) and amplitude (variance) of the part of the place; None for a kernel without it."""
        return None if self.local_length is None or self.local_amplitude is None else (self.local_length, self.local_amplitude)


def rbf(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """exp(-|a - b|^2 / 2) of all pairs, (n, d) and (m, d) -> (n, m)."""
    half = a @ b.T
    half -= 0.5 * (a * a).sum(1)[:, None]
    half -= 0.5 * (b * b).sum(1)
    return np.exp(half, out=half)


def factor(covariance: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """Lower Cholesky factor (n, n) of covariance (n, n) + noise, variances (n,) or one for all; with 1e-8 to 1e-6 on the diagonal where it needs that.

    Raises ProbeGymError if not even that helps.
    """
    for jitter in JITTER:
        matrix = covariance.copy()
        np.einsum("ii->i", matrix)[...] += noise + jitter
        lower, info = linalg.lapack.dpotrf(matrix, lower=1, clean=1)
        if not info:
            return lower
    raise ProbeGymError("the covariance of the measured points has no Cholesky factor: raise noise_floor, or start from initial()")


def inverted(lower: np.ndarray) -> np.ndarray:
    """The inverse (n, n) of a matrix from its lower Cholesky factor (n, n)."""
    half = linalg.lapack.dpotri(lower, lower=1)[0]
    return half + np.tril(half, -1).T


def evidence(kernel: Kernel, z: np.ndarray, places: np.ndarray | None, target: np.ndarray) -> tuple[float, np.ndarray, Kernel]:
    """Minus the log marginal likelihood without its constant, and its gradients by z and by the kernel.

    z: (n, latent). places: (n, 2), None for a kernel without the local part. target: (n,). With K the covariance, noise counted, r what is
    left of the target without the mean and a = K^-1 r, the gradient by K is (K^-1 - a a') / 2 (Rasmussen & Williams 2006, eq. 5.9).
    Raises ProbeGymError, see :func:`factor`.
    """
    scaled = z / kernel.length_scale
    alike = rbf(scaled, scaled)
    covariance = kernel.amplitude * alike
    if places is not None and kernel.local is not None:
        local_length, local_amplitude = kernel.local
        local = places / local_length
        near = rbf(local, local)
        covariance = covariance + local_amplitude * near
    cholesky = factor(covariance, kernel.noise)
    residual = target - kernel.mean
    inverse = inverted(cholesky)
    solved = inverse @ residual
    value = 0.5 * float(residual @ solved) + float(np.log(np.diagonal(cholesky)).sum())

    by_covariance = 0.5 * (inverse - np.outer(solved, solved))
    by_alike = by_covariance * alike
    by_scaled = _pulled(kernel.amplitude * by_alike, scaled)
    by_length, by_local_amplitude = None, None
    if places is not None and kernel.local is not None:
        by_near = by_covariance * near
        by_local = _pulled(local_amplitude * by_near, local)
        by_length, by_local_amplitude = -(by_local * local).sum() / local_length, by_near.sum()
    by_z = by_scaled / kernel.length_scale
    return value, by_z, Kernel(-(by_z * scaled).sum(0), by_alike.sum(), by_covariance.trace(), -solved.sum(), by_length, by_local_amplitude)


def _pulled(weights: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Gradient by the points of the sum of symmetric weights times exp(-|a - b|^2 / 2), that factor being in the weights already."""
    return 2 * (weights @ points - weights.sum(1)[:, None] * points)
