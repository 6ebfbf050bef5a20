"""An exact Gaussian process over several measurement levels, for measurements of your own; LevelSelection runs on the faster belief.py.

Hyperparameters by marginal likelihood, predictions, information. Covariance, point-spread functions and noise are in kernels.py;
inference is GPyTorch's, optimisation BoTorch's.
"""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Sequence
from contextlib import ExitStack, contextmanager
from typing import NamedTuple

import gpytorch
import numpy as np
import torch
from botorch.optim.fit import fit_gpytorch_mll_scipy
from gpytorch.likelihoods.gaussian_likelihood import _GaussianLikelihoodBase
from gpytorch.means import Mean
from gpytorch.priors import NormalPrior
from linear_operator.utils.cholesky import psd_safe_cholesky
from linear_operator.utils.errors import NanError, NotPSDError
from linear_operator.utils.warnings import NumericalWarning

from probegym.errors import ProbeGymError
from probegym.surrogates.kernels import COLUMNS, AutoregressiveKernel, LevelNoise, inputs
from probegym.surrogates.threads import one_torch_thread

JITTER = 1e-10  # added to the diagonal where a covariance has no Cholesky factor, then ten times as much, and so on
TRIES = 5


class Hyperparameters(NamedTuple):
    """What was learned, per level; standard errors have the same shape."""

    rho: np.ndarray  # (levels - 1,)
    amplitude: np.ndarray  # (levels,)
    length_scale: np.ndarray  # (levels,) m
    noise: np.ndarray  # (levels,) variance of one dwell
    mean: np.ndarray  # (levels,)


class _LevelMean(Mean):
    """One constant per level, normal (0, 1) a priori."""

    def __init__(self, levels: int):
        super().__init__()
        self.register_parameter("constants", torch.nn.Parameter(torch.zeros(levels, dtype=torch.float64)))
        self.register_prior("constants_prior", NormalPrior(torch.zeros(levels, dtype=torch.float64), torch.ones(levels, dtype=torch.float64)), lambda m: m.constants)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return self.constants[rows[..., -2].long()]


class _Likelihood(_GaussianLikelihoodBase):
    """Gaussian noise of each level."""


class _Exact(gpytorch.models.ExactGP):
    def __init__(self, likelihood: _Likelihood, covariance: AutoregressiveKernel, mean: Mean):
        super().__init__(None, None, likelihood)
        self.mean_module, self.covar_module = mean, covariance

    def forward(self, rows: torch.Tensor) -> gpytorch.distributions.MultivariateNormal:
        return gpytorch.distributions.MultivariateNormal(self.mean_module(rows), self.covar_module(rows))


class MultilevelGP:
    """Levels tied autoregressively, f_{l+1} = rho_l f_l + d_{l+1} (Kennedy & O'Hagan 2000, 10.1093/biomet/87.1.1), each seen
    through point-spread functions and with its own noise.

    Quantities should be of order one (standardise them by what is known beforehand: the priors are). levels: how many.
    length_scale: prior median, m, one or one per level. noise: variance of one dwell, one per level. learn_noise: whether the
    marginal likelihood may change it. learn_mean: whether each level has a constant to learn, else the mean is 0.
    """

    def __init__(self, levels: int, length_scale: float | Sequence[float], noise: Sequence[float], learn_noise: bool = False, learn_mean: bool = True):
        if len(noise) != levels:
            raise ProbeGymError(f"{levels} levels need as many noise variances, got {len(noise)}")
        self.levels = levels
        self.kernel, self.noise, self.mean = AutoregressiveKernel(levels, length_scale), LevelNoise(noise, learn_noise), _LevelMean(levels)
        self.mean.constants.requires_grad_(learn_mean)
        self._model = _Exact(_Likelihood(self.noise), self.kernel, self.mean).double()

    def condition(self, rows: torch.Tensor, y: np.ndarray) -> MultilevelGP:
        """Take measurements in, in place of those before: rows (n, d + 3) from kernels.inputs, y (n,). Hyperparameters stay.

        Raises ProbeGymError for no values, values that are not finite, or not one a row.
        """
        y = np.asarray(y, float).reshape(-1)
        if len(rows) != len(y) or not len(y):
            raise ProbeGymError(f"each measurement needs one value, and there must be one, got {len(rows)} and {len(y)}")
        if not np.isfinite(y).all():
            raise ProbeGymError(f"{(~np.isfinite(y)).sum()} of {len(y)} measured values are not finite: leave them out")
        self._model.set_train_data(self._checked(rows), torch.from_numpy(y.copy()), strict=False)
        return self

    def fit(self, steps: int = 200) -> MultilevelGP:
        """Maximise the marginal likelihood times the priors from where the hyperparameters are (a warm start), by L-BFGS."""
        with _exact():
            objective = _Objective(self._trained())
            learned: dict[str, torch.Tensor] = {name: p for name, p in objective.named_parameters() if p.requires_grad}

            def closure() -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
                loss = objective()
                return loss, torch.autograd.grad(loss, tuple(learned.values()))

            fit_gpytorch_mll_scipy(objective.likelihood, learned, closure=closure, options={"maxiter": steps})
        return self

    def log_likelihood(self) -> float:
        """Natural logarithm of the marginal likelihood of the measurements, without the priors of the hyperparameters."""
        with _exact(), torch.no_grad():
            return _Objective(self._trained()).evidence().item()

    def predict(self, position: np.ndarray, width: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
        """Mean and variance, (levels, n) each, of every level's field at positions (n, d), m, averaged over a PSF of that width."""
        rows = torch.cat([inputs(position, width, level) for level in range(self.levels)])
        mean, covariance = self.posterior(rows)
        return mean.reshape(self.levels, -1), np.maximum(np.diagonal(covariance), 0.0).reshape(self.levels, -1)

    def posterior(self, rows: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
        """Mean (n,) and covariance (n, n) of what rows see, noise not counted; the prior where nothing was measured."""
        with _exact(), torch.no_grad():
            self._model.train()  # drops GPyTorch's caches, which do not notice new hyperparameters
            self._model.eval()
            seen = self._model(self._checked(rows))
            return seen.mean.numpy().copy(), seen.covariance_matrix.numpy().copy()

    def information_gain(self, rows: torch.Tensor) -> float:
        """Information, nats, that measuring rows would tell about the fields, given what was measured; see :func:`information_gain`."""
        variance = self.noise(rows).diagonal().detach().numpy()
        return information_gain(self.posterior(rows)[1], variance)

    def hyperparameters(self) -> Hyperparameters:
        """As they are now."""
        k = self.kernel
        return Hyperparameters(*(v.detach().numpy().copy() for v in (k.rho, k.amplitude, k.length_scale, self.noise.variance, self.mean.constants)))

    def standard_errors(self) -> Hyperparameters:
        """Posterior standard deviations of the hyperparameters by Laplace's approximation; 0 for those that are not learned.

        Raises ProbeGymError away from a maximum, where there is none: fit first.
        """
        objective = _Objective(self._trained())
        named = {name: p for name, p in objective.named_parameters() if p.requires_grad}
        learned, sizes = tuple(named.values()), [p.numel() for p in named.values()]

        def flat(pieces) -> torch.Tensor:
            return torch.cat([piece.reshape(-1) for piece in pieces])

        with _exact():
            slope = flat(torch.autograd.grad(objective(), learned, create_graph=True))
            curvature = torch.stack([flat(torch.autograd.grad(along, learned, retain_graph=True)) for along in slope])
        factor, info = torch.linalg.cholesky_ex(curvature)
        if info:
            raise ProbeGymError("standard errors exist only where the marginal likelihood has its maximum: call fit first")
        errors = dict(zip(named, torch.cholesky_inverse(factor).diagonal().sqrt().split(sizes), strict=True))
        now = self.hyperparameters()
        logarithmic = {"raw_amplitude": now.amplitude, "raw_length_scale": now.length_scale, "raw_variance": now.noise}

        def of(name: str, shape: np.ndarray) -> np.ndarray:
            found = [error.numpy() for key, error in errors.items() if key.endswith("." + name)]
            return found[0] * logarithmic.get(name, 1.0) if found else np.zeros_like(shape)

        return Hyperparameters(*(of(name, value) for name, value in zip(("rho", "raw_amplitude", "raw_length_scale", "raw_variance", "constants"), now, strict=True)))

    def _trained(self) -> _Exact:
        if self._model.train_inputs is None:
            raise ProbeGymError("there are no measurements: call condition first")
        return self._model.train()

    def _checked(self, rows: torch.Tensor) -> torch.Tensor:
        if rows.ndim != 2 or rows.shape[1] <= COLUMNS or (len(rows) and int(rows[:, -2].max()) >= self.levels):
            raise ProbeGymError(f"rows must come from kernels.inputs, with levels from 0 to {self.levels - 1}")
        return rows


class _Objective(torch.nn.Module):
    """Minus the log posterior density of the hyperparameters."""

    def __init__(self, model: _Exact):
        super().__init__()
        self.likelihood = gpytorch.mlls.ExactMarginalLogLikelihood(model.likelihood, model)

    def evidence(self) -> torch.Tensor:
        """Log marginal likelihood alone."""
        model = self.likelihood.model
        rows = model.train_inputs
        return model.likelihood(model(*rows), *rows).log_prob(model.train_targets)

    def forward(self) -> torch.Tensor:
        """Both, with the priors."""
        model = self.likelihood.model
        return -len(model.train_targets) * self.likelihood(model(*model.train_inputs), model.train_targets, *model.train_inputs)


def information_gain(covariance: np.ndarray, noise: np.ndarray) -> float:
    """1/2 log det(I + S^-1 K), nats, of measuring fields of covariance K (n, n) with noise variances S (n,), all above 0. Raises ProbeGymError for others."""
    covariance, noise = np.asarray(covariance, float), np.asarray(noise, float)
    if not (noise > 0).all():
        raise ProbeGymError("without noise a measurement tells infinitely much: noise variances must be above 0")
    root = 1 / np.sqrt(noise)
    factor = _factor(torch.from_numpy(np.eye(len(noise)) + root[:, None] * covariance * root))
    return float(factor.diagonal().log().sum())


def greedy_information(covariance: np.ndarray, noise: np.ndarray, count: int) -> tuple[np.ndarray, float]:
    """The ``count`` measurements, (count,) indices, each the one that tells most after those before it, and their information gain.

    At least 1 - 1/e of the best set's (Nemhauser, Wolsey & Fisher 1978, 10.1007/BF01588971; Krause, Singh & Guestrin 2008). Ties
    go to the lower index. Raises ProbeGymError for a count that there are not.
    """
    if not 1 <= count <= len(noise):
        raise ProbeGymError(f"asked for {count} measurements of {len(noise)}: ask for from 1 to that many")
    chosen: list[int] = []
    for _ in range(count):
        others = [index for index in range(len(noise)) if index not in chosen]
        gains = [information_gain(covariance[np.ix_(sets, sets)], noise[sets]) for sets in ([*chosen, other] for other in others)]
        chosen.append(others[int(np.argmax(gains))])
    return np.array(chosen), information_gain(covariance[np.ix_(chosen, chosen)], noise[chosen])


def best_information(covariance: np.ndarray, noise: np.ndarray, count: int) -> tuple[np.ndarray, float]:
    """The ``count`` measurements, (count,) indices, that tell most together, and their information gain, by trying all: a check of ``greedy_information``.

    Raises ProbeGymError for more than 10,000 sets.
    """
    if math.comb(len(noise), count) > 10_000:
        raise ProbeGymError(f"{count} of {len(noise)} measurements are too many sets to try: use greedy_information")
    sets = [list(indices) for indices in itertools.combinations(range(len(noise)), count)]
    gains = [information_gain(covariance[np.ix_(s, s)], noise[s]) for s in sets]
    return np.array(sets[int(np.argmax(gains))]), max(gains)


def _factor(matrix: torch.Tensor) -> torch.Tensor:
    with _exact():
        return psd_safe_cholesky(matrix)


@contextmanager
def _exact():
    """Exact inference by Cholesky factors whatever the size, with JITTER where one needs it; a clear error where that fails."""
    with ExitStack() as stack, warnings.catch_warnings():
        warnings.simplefilter("ignore", NumericalWarning)
        stack.enter_context(one_torch_thread())
        stack.enter_context(gpytorch.settings.fast_computations(False, False, False))
        stack.enter_context(gpytorch.settings.cholesky_jitter(double_value=JITTER))
        stack.enter_context(gpytorch.settings.cholesky_max_tries(TRIES))
        stack.enter_context(gpytorch.settings.max_cholesky_size(10**9))
        stack.enter_context(gpytorch.settings.debug(False))
        try:
            yield
        except (NotPSDError, NanError) as error:
            raise ProbeGymError("the measurements' covariance has no Cholesky factor: give every level a noise variance above 0") from error
