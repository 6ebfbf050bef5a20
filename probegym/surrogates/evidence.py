"""The marginal likelihood of a Gaussian process and its gradient, in closed form: half the time of an automatic one."""

from __future__ import annotations

from typing import NamedTuple

import torch
from linear_operator.utils.cholesky import psd_safe_cholesky
from linear_operator.utils.errors import NanError, NotPSDError

from probegym.errors import ProbeGymError


class Kernel(NamedTuple):
    """A radial basis function of the embedding, another of the place if wanted, and white noise; torch scalars or vectors."""

    length_scale: torch.Tensor  # (latent,)
    amplitude: torch.Tensor  # variance
    noise: torch.Tensor  # variance
    mean: torch.Tensor
    local_length: torch.Tensor | None  # in units of the coordinates' deviation
    local_amplitude: torch.Tensor | None

    @property
    def local(self) -> tuple[torch.Tensor, torch.Tensor] | None:
        """Length and amplitude of the part of the place; None for a kernel without it."""
        return None if self.local_length is None or self.local_amplitude is None else (self.local_length, self.local_amplitude)


def rbf(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """exp(-|a - b|^2 / 2) of all pairs, (n, d) and (m, d) -> (n, m)."""
    half = -0.5 * (a * a).sum(1)[:, None] - 0.5 * (b * b).sum(1)
    return torch.exp(torch.addmm(half, a, b.T))


def factor(covariance: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """Lower Cholesky factor of covariance + noise; with 1e-8 to 1e-6 on the diagonal where it needs that. Raises ProbeGymError if not even that helps."""
    try:
        return psd_safe_cholesky(covariance + torch.diag_embed(noise.expand(len(covariance))), jitter=1e-8, max_tries=3)
    except (NotPSDError, NanError) as error:
        raise ProbeGymError("the covariance of the measured points has no Cholesky factor: raise noise_floor, or start from initial()") from error


def evidence(kernel: Kernel, z: torch.Tensor, places: torch.Tensor | None, target: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, Kernel]:
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
    residual = (target - kernel.mean)[:, None]
    solved = torch.cholesky_solve(residual, cholesky)
    value = 0.5 * (residual * solved).sum() + cholesky.diagonal().log().sum()

    by_covariance = 0.5 * torch.addmm(torch.cholesky_inverse(cholesky), solved, solved.T, alpha=-1)
    by_alike = by_covariance * alike
    by_scaled = _pulled(kernel.amplitude * by_alike, scaled)
    by_length, by_local_amplitude = None, None
    if places is not None and kernel.local is not None:
        by_near = by_covariance * near
        by_local = _pulled(local_amplitude * by_near, local)
        by_length, by_local_amplitude = -(by_local * local).sum() / local_length, by_near.sum()
    by_z = by_scaled / kernel.length_scale
    return value, by_z, Kernel(-(by_z * scaled).sum(0), by_alike.sum(), by_covariance.trace(), -solved.sum(), by_length, by_local_amplitude)


def _pulled(weights: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """Gradient by the points of the sum of symmetric weights times exp(-|a - b|^2 / 2), that factor being in the weights already."""
    return 2 * torch.addmm(-weights.sum(1)[:, None] * points, weights, points)
