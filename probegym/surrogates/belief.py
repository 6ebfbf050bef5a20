"""Exact Gaussian belief over what flakes are on several levels, for a set of hypotheses of how the levels are tied (NumPy).

Quantities of neighbouring levels are tied by an autoregression with correlations r (Kennedy & O'Hagan 2000,
10.1093/biomet/87.1.1), all innovations have the same covariance K over flakes: the prior of one hypothesis is the Kronecker
product of the correlations of the levels and K. Measurements are linear, y = W q + noise, so conditioning is exact; the
evidence of the data weighs the hypotheses. GPyTorch gives the same figures (tests/test_belief.py) and takes many times as
long for problems this small (benchmarks/levels.py), which is why this stands beside it.

D = levels x flakes, level by level; H hypotheses. Rows of a measurement that are not there have a design of zero.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from probegym.errors import ProbeGymError

JITTER = (0.0, 1e-10, 1e-8, 1e-6)
"""Added to the noise, in turn, until the covariance of a measurement can be factorised; quantities have variance one."""


def hypotheses(nodes: Sequence[Sequence[float]]) -> np.ndarray:
    """Every combination of possible correlations of neighbouring levels, (H, levels - 1); taken to be equally likely."""
    return np.array(list(itertools.product(*nodes)))


def level_correlations(r: np.ndarray) -> np.ndarray:
    """Correlations between all levels (..., levels, levels) of a chain with correlations r (..., levels - 1) between neighbours."""
    levels = r.shape[-1] + 1
    out = np.broadcast_to(np.eye(levels), (*r.shape[:-1], levels, levels)).copy()
    for i, j in itertools.combinations(range(levels), 2):
        out[..., i, j] = out[..., j, i] = r[..., i:j].prod(-1)
    return out


def prior(r: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    """Covariances (H, D, D) from correlations r (H, levels - 1) and that of the innovations over flakes (F, F)."""
    ties = level_correlations(r)
    size = ties.shape[-1] * len(covariance)
    return (ties[:, :, None, :, None] * covariance[:, None, :]).reshape(len(r), size, size)


def factor(matrix: np.ndarray) -> np.ndarray:
    """Cholesky factors of symmetric matrices (..., k, k); those that are singular get the least JITTER that helps.

    Raises ProbeGymError when none does.
    """
    for jitter in JITTER:
        try:
            return np.linalg.cholesky(matrix + jitter * np.eye(matrix.shape[-1]) if jitter else matrix)
        except np.linalg.LinAlgError:
            continue
    raise ProbeGymError("the covariance of a measurement is not positive: give the levels more noise, or correlations inside -1 to 1")


def condition(mean: np.ndarray, covariance: np.ndarray, at: slice, design: np.ndarray, noise: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Learn from a measurement of one level, in place; returns its log evidence under each hypothesis (H,).

    mean: (H, D); covariance: (H, D, D); at: the level's share of D; design: (k, F); noise: (k,) variances; y: (k,).
    Raises ProbeGymError when y is not finite.
    """
    if not np.isfinite(y).all():
        raise ProbeGymError("a measurement is not finite: leave it out")
    rows = np.matmul(design, covariance[:, at])  # (H, k, D)
    spread = np.matmul(rows[..., at], design.T) + np.diag(noise)
    lower = factor(spread)
    inverse = np.linalg.inv(lower)
    gain = np.matmul(inverse, rows)
    missed = np.matmul(inverse, (y - np.matmul(mean[:, at], design.T))[..., None])
    mean += np.matmul(missed.swapaxes(1, 2), gain)[:, 0]
    covariance -= np.matmul(gain.swapaxes(1, 2), gain)
    scale = np.log(np.diagonal(lower, axis1=1, axis2=2)).sum(1)
    return -0.5 * (missed[..., 0] ** 2).sum(1) - scale - 0.5 * len(y) * np.log(2 * np.pi)


def weights(log_weights: np.ndarray) -> np.ndarray:
    """Normalised (..., H) from logarithms up to a constant."""
    w = np.exp(log_weights - log_weights.max(-1, keepdims=True))
    return w / w.sum(-1, keepdims=True)


def mixture(weight: np.ndarray, mean: np.ndarray, covariance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean (D,) and covariance (D, D) of the mixture of hypotheses: within each, and of their means about the common one."""
    middle = weight @ mean
    apart = (mean - middle) * np.sqrt(weight)[:, None]
    flat = np.matmul(weight, covariance.reshape(len(weight), -1)).reshape(covariance.shape[1:])
    return middle, flat + apart.T @ apart


def folded(weight: np.ndarray, r: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    """Covariance (D, D) of the hypotheses' mixture, were the signs of the correlations r (H, levels - 1) known and all positive.

    Levels of which the sign is unknown are uncorrelated in the mixture; here they are as much tied as they may turn out to be.
    """
    levels = r.shape[1] + 1
    size = covariance.shape[1] // levels
    sign = np.cumprod(np.concatenate([np.ones((len(r), 1)), np.where(r < 0, -1.0, 1.0)], 1), 1)
    pairs = list(itertools.combinations(range(levels), 2))
    signed = np.stack([weight, *(weight * sign[:, i] * sign[:, j] for i, j in pairs)])
    sums = np.matmul(signed, covariance.reshape(len(weight), -1)).reshape(-1, *covariance.shape[1:])
    out = sums[0]
    for (i, j), turned in zip(pairs, sums[1:], strict=True):
        rows, columns = (slice(k * size, (k + 1) * size) for k in (i, j))
        out[rows, columns], out[columns, rows] = turned[rows, columns], turned[columns, rows]
    return out


def reduction(covariance: np.ndarray, at: slice, design: np.ndarray, noise: np.ndarray, target: np.ndarray) -> np.ndarray:
    """By how much each of c measurements of a level is expected to reduce sum_d target_d variance_d; (..., c).

    covariance: (..., D, D), of the mixture; design: (c, k, F); noise: (c, k) above zero; target: (D,) weights. Exact for one
    hypothesis; for a mixture it is what the best linear estimate gains, so a measurement of unknown sign counts for nothing.
    """
    on = np.flatnonzero(target)
    own = np.matmul(design, covariance[..., None, at, at])  # (..., c, k, F)
    spread = np.matmul(own, design.swapaxes(1, 2))
    index = np.arange(design.shape[1])
    spread[..., index, index] += noise
    rows = np.matmul(design, covariance[..., None, at, on])
    solved = rows / spread if design.shape[1] == 1 else np.linalg.solve(spread, rows)
    return np.matmul((solved * rows).sum(-2), target[on])


def information(covariance: np.ndarray, design: np.ndarray, noise: np.ndarray) -> float:
    """Information of measurements in nats, half the log determinant of I + noise^-1 W C W^T; design: (k, D), noise: (k,)."""
    scaled = design / np.sqrt(noise)[:, None]
    return float(np.log(np.diagonal(factor(np.eye(len(noise)) + scaled @ covariance @ scaled.T))).sum())
