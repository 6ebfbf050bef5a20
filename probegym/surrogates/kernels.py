"""For multilevel.py: covariances of fields seen through point-spread functions at several levels, and the noise of each (GPyTorch).

A level observes y = integral PSF(x - x') f(x') dx' + noise. With an RBF covariance of f and Gaussian PSFs all integrals are closed
forms: the squared length scale grows by the squared PSF widths, and the amplitude falls by what is smeared out
(Girard, Rasmussen, Quinonero-Candela & Murray-Smith, NIPS 2002; Kennedy & O'Hagan 2000, 10.1093/biomet/87.1.1, for the levels).

Inputs are rows (n, d + 3): position (d columns, m), width (standard deviation of the PSF, m, 0 for a point), level, dwells (how many
times as long as the level's shortest measurement it took).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from gpytorch.constraints import Positive
from gpytorch.kernels import Kernel
from gpytorch.likelihoods.noise_models import Noise
from gpytorch.priors import NormalPrior
from linear_operator.operators import DiagLinearOperator

from probegym.errors import ProbeGymError

COLUMNS = 3  # after the position: width, level, dwells


def inputs(position: np.ndarray, width=0.0, level=0, dwells=1.0) -> torch.Tensor:
    """Rows for the kernels, (n, d + 3) float64.

    position: (n, d) m. width: m, level: whole numbers, dwells: each a number or (n,). Raises ProbeGymError for numbers that are not
    finite, negative widths or levels, and dwells that are not positive.
    """
    position = np.asarray(position, float)
    if position.ndim != 2:
        raise ProbeGymError(f"positions must have shape (n, dimensions), got {position.shape}")
    rest = [np.broadcast_to(np.asarray(column, float), len(position)) for column in (width, level, dwells)]
    rows = np.column_stack([position, *rest])
    width, level, dwells = rest
    if not np.isfinite(rows).all() or (width < 0).any() or (level < 0).any() or (level % 1 > 0).any() or (dwells <= 0).any():
        raise ProbeGymError("positions, widths (0 or more), levels (whole, from 0) and dwells (above 0) must be finite")
    return torch.from_numpy(rows)


def blurred_rbf(a: torch.Tensor, width_a: torch.Tensor, b: torch.Tensor, width_b: torch.Tensor, length_scale: torch.Tensor) -> torch.Tensor:
    """Covariance (..., n, m) of a unit RBF field seen through Gaussian PSFs.

    a: (..., n, d), b: (..., m, d) positions, m. width_a: (..., n), width_b: (..., m), m. length_scale: one, or one per dimension, m.
    prod_d l / sqrt(l^2 + w_a^2 + w_b^2) exp(-(a - b)^2 / 2 (l^2 + w_a^2 + w_b^2)).
    """
    spread = (width_a**2)[..., :, None, None] + (width_b**2)[..., None, :, None] + length_scale**2  # (..., n, m, 1 or d)
    distance = (a[..., :, None, :] - b[..., None, :, :]) ** 2
    amplitude = (length_scale / spread.sqrt()).expand(distance.shape).prod(-1)
    return amplitude * torch.exp(-0.5 * (distance / spread).sum(-1))


class AutoregressiveKernel(Kernel):
    """f_0 = d_0, f_{l+1} = rho_l f_l + d_{l+1}: independent RBF fields d_l of own amplitude and length scale, seen through PSFs.

    Parameters: rho (levels - 1,), amplitude (levels,) standard deviations, length_scale (levels,) m. Weak priors, so that few or
    constant data leave them where they started: rho normal (1, 1), and normal with deviation 1 the logarithms of amplitude, around
    1, and of length scale, around ``length_scale``. Source: Kennedy & O'Hagan 2000, 10.1093/biomet/87.1.1.
    """

    def __init__(self, levels: int, length_scale: float | Sequence[float]):
        super().__init__()
        if levels < 1:
            raise ProbeGymError(f"there must be at least one level, got {levels}")
        typical = torch.as_tensor(length_scale, dtype=torch.float64).expand(levels).clone()
        if not (typical > 0).all() or not torch.isfinite(typical).all():
            raise ProbeGymError("length scales must be finite and above 0 m")
        self.levels = levels
        self.register_parameter("rho", torch.nn.Parameter(torch.ones(levels - 1, dtype=torch.float64), requires_grad=levels > 1))
        for name, start in (("amplitude", torch.ones(levels, dtype=torch.float64)), ("length_scale", typical)):
            self.register_parameter(f"raw_{name}", torch.nn.Parameter(torch.zeros(levels, dtype=torch.float64)))
            constraint = Positive(transform=torch.exp, inv_transform=torch.log)
            self.register_constraint(f"raw_{name}", constraint)
            self.initialize(**{f"raw_{name}": constraint.inverse_transform(start)})
            prior = NormalPrior(start.log(), torch.ones(levels, dtype=torch.float64))
            self.register_prior(f"{name}_prior", prior, lambda m, name=name: getattr(m, f"raw_{name}"))
        if levels > 1:
            self.register_prior("rho_prior", NormalPrior(torch.ones(levels - 1, dtype=torch.float64), torch.ones(levels - 1, dtype=torch.float64)), lambda m: m.rho)

    @property
    def amplitude(self) -> torch.Tensor:
        """Standard deviation of each level's own field, (levels,)."""
        return self.raw_amplitude_constraint.transform(self.raw_amplitude)

    @property
    def length_scale(self) -> torch.Tensor:
        """Length scale of each level's own field, (levels,) m."""
        return self.raw_length_scale_constraint.transform(self.raw_length_scale)

    def shares(self) -> torch.Tensor:
        """(levels, levels): how much of field d_j level l sees, the product of rho_j ... rho_{l-1}; lower triangular."""
        rows = [torch.eye(self.levels, dtype=self.rho.dtype)[0]]
        for level in range(1, self.levels):
            rows.append(self.rho[level - 1] * rows[-1] + torch.eye(self.levels, dtype=self.rho.dtype)[level])
        return torch.stack(rows)

    def forward(self, x1: torch.Tensor, x2: torch.Tensor, diag: bool = False, **params) -> torch.Tensor:
        """(..., n, m), or (..., n) where ``diag``."""
        shares = self.shares() * self.amplitude

        def full(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
            seen_a, seen_b = shares[a[..., -2].long()], shares[b[..., -2].long()]  # (..., n, levels)
            out = torch.zeros((), dtype=a.dtype)
            for level, length in enumerate(self.length_scale):
                common = seen_a[..., :, None, level] * seen_b[..., None, :, level]
                out = out + common * blurred_rbf(a[..., :-COLUMNS], a[..., -3], b[..., :-COLUMNS], b[..., -3], length)
            return out

        return _each(full, x1, x2, diag)


class LevelNoise(Noise):
    """Noise variance / dwells, with one variance per level, given or learned (its logarithm normal around what is given, deviation 1)."""

    def __init__(self, variance: Sequence[float], learn: bool = False):
        super().__init__()
        start = torch.as_tensor(variance, dtype=torch.float64).reshape(-1)
        if not torch.isfinite(start).all() or (start < 0).any() or (learn and (start == 0).any()):
            raise ProbeGymError("noise variances must be finite and not negative, and above 0 where they are to be learned")
        self.learn = learn
        if learn:
            self.register_parameter("raw_variance", torch.nn.Parameter(start.log()))
            self.register_prior("variance_prior", NormalPrior(start.log(), torch.ones_like(start)), lambda m: m.raw_variance)
        else:
            self.register_buffer("given", start)

    @property
    def variance(self) -> torch.Tensor:
        """Of one measurement of one dwell, (levels,)."""
        return self.raw_variance.exp() if self.learn else self.given

    def forward(self, *params, shape: torch.Size | None = None, **kwargs) -> DiagLinearOperator:
        """Diagonal (..., n) of the noise covariance of rows (..., n, d + 3)."""
        rows = params[0] if torch.is_tensor(params[0]) else params[0][0]
        return DiagLinearOperator(self.variance[rows[..., -2].long()] / rows[..., -1])


def _each(covariance, x1: torch.Tensor, x2: torch.Tensor, diag: bool) -> torch.Tensor:
    if not diag:
        return covariance(x1, x2)
    return covariance(x1[..., None, :], x2[..., None, :])[..., 0, 0]
