"""Acquisition functions against BoTorch and quadrature."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import integrate, stats

from probegym.errors import ProbeGymError
from probegym.surrogates.acquisition import expected_improvement, upper_confidence


def posterior(rng, n=40):
    return rng.normal(size=n), rng.uniform(0.05, 2, n)


def botorch_value(acquisition, mean, std, **options):
    """A BoTorch analytic acquisition function on a model that says just this mean and deviation."""
    from botorch.models.model import Model
    from botorch.posteriors import GPyTorchPosterior
    from gpytorch.distributions import MultivariateNormal

    class Told(Model):
        num_outputs = 1

        def posterior(self, X, **_):
            at = X[..., 0].long()
            return GPyTorchPosterior(MultivariateNormal(torch.tensor(mean)[at], torch.diag_embed(torch.tensor(std)[at] ** 2)))

    with torch.no_grad():
        return acquisition(Told(), **options)(torch.arange(len(mean), dtype=torch.float64)[:, None, None]).numpy()


@pytest.mark.parametrize("xi", [0.0, 0.02])
def test_expected_improvement_is_botorchs(xi):
    from botorch.acquisition import ExpectedImprovement

    mean, std = posterior(np.random.default_rng(0))
    told = botorch_value(ExpectedImprovement, mean, std, best_f=0.4 + xi)
    np.testing.assert_allclose(expected_improvement(mean, std, 0.4, xi), told, atol=1e-8)


def test_upper_confidence_is_botorchs():
    from botorch.acquisition import UpperConfidenceBound

    mean, std = posterior(np.random.default_rng(1))
    np.testing.assert_allclose(upper_confidence(mean, std, 0.2), botorch_value(UpperConfidenceBound, mean, std, beta=0.2), atol=1e-8)


@pytest.mark.parametrize(("mean", "std", "best", "xi"), [(0.0, 1.0, 0.5, 0.0), (1.0, 0.2, 0.3, 0.1), (-2.0, 0.7, 0.0, 0.01)])
def test_expected_improvement_by_quadrature(mean, std, best, xi):
    told = integrate.quad(lambda f: (f - best - xi) * stats.norm.pdf(f, mean, std), best + xi, mean + 12 * std, epsabs=1e-13)[0]
    assert expected_improvement(mean, std, best, xi) == pytest.approx(told, abs=1e-9)


def test_without_uncertainty_only_a_certain_gain_counts():
    np.testing.assert_array_equal(expected_improvement(np.array([0.0, 1.5]), np.zeros(2), 1.0, 0.0), [0.0, 0.5])
    far = expected_improvement(np.array([-1e3, 0.0]), np.array([1e-9, 1e-320]), 1.0)
    assert (far == 0).all()


def test_expected_improvement_grows_with_both_and_never_below_zero():
    mean, std = np.meshgrid(np.linspace(-4, 4, 50), np.linspace(0, 3, 40))
    gain = expected_improvement(mean, std, 0.5, 0.01)
    assert (gain >= 0).all() and (np.diff(gain, axis=1) >= -1e-12).all() and (np.diff(gain, axis=0) >= -1e-12).all()


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: upper_confidence(np.zeros(1), np.ones(1), -1.0), "beta"),
        (lambda: expected_improvement(np.zeros(1), -np.ones(1), 0.0), "negative"),
    ],
)
def test_bad_input_is_refused(call, words):
    with pytest.raises(ProbeGymError, match=words):
        call()
