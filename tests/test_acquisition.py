"""Acquisition functions against BoTorch and quadrature; picking spread batches with deterministic ties."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import integrate, stats

from probegym.errors import ProbeGymError
from probegym.surrogates.acquisition import expected_improvement, maximum_variance, pick, upper_confidence, weighted


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


def test_exploration_looks_at_the_deviation_alone_and_parts_are_weighed():
    mean, std = posterior(np.random.default_rng(2))
    np.testing.assert_array_equal(maximum_variance(mean, std), std**2)
    np.testing.assert_allclose(weighted([mean, std], [1.0, np.sqrt(0.2)]), upper_confidence(mean, std, 0.2))
    np.testing.assert_array_equal(weighted([mean, np.full(40, -np.inf)], [2.0, 0.0]), 2 * mean)  # a part without weight is left out


def test_the_best_allowed_pixel_is_picked_and_ties_go_to_the_lower_index():
    score = np.array([0.0, 3.0, 5.0, 3.0, 5.0, 1.0])
    assert pick(score, np.ones(6, bool)).tolist() == [2]
    assert pick(score, np.array([1, 1, 0, 1, 0, 1], bool), 2).tolist() == [1, 3]
    assert pick(np.where(np.arange(6) == 2, np.nan, score), np.arange(6) != 2).tolist() == [4]  # only allowed pixels need numbers


def test_a_batch_spreads():
    rng, shape = np.random.default_rng(3), (12, 15)
    score, allowed = rng.normal(size=180), rng.uniform(size=180) < 0.9
    chosen = pick(score, allowed, 6, 3.0, shape)
    rows, cols = np.unravel_index(chosen, shape)
    distance = np.hypot(rows[:, None] - rows, cols[:, None] - cols)[np.triu_indices(6, 1)]
    assert distance.min() > 3 and allowed[chosen].all() and chosen[0] == np.where(allowed, score, -np.inf).argmax()
    # greedy: each is the best of those farther than the radius from all before it
    for n in range(1, 6):
        far = (np.hypot(*(np.indices(shape).reshape(2, -1)[:, :, None] - np.stack([rows, cols])[:, None, :n])) > 3).all(1)
        assert score[chosen[n]] == score[far & allowed].max()


def test_a_batch_larger_than_what_fits_apart_still_has_different_pixels():
    chosen = pick(np.arange(9.0), np.ones(9, bool), 9, 5.0, (3, 3))
    assert chosen.tolist() == list(range(8, -1, -1))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: pick(np.array([0.0, np.nan]), np.ones(2, bool)), "finite"),
        (lambda: pick(np.zeros(2), np.zeros(2, bool)), "0 are allowed"),
        (lambda: pick(np.zeros(4), np.ones(4, bool), 5), "from 1"),
        (lambda: pick(np.zeros(4), np.ones(4, bool), 2, 1.0), "shape"),
        (lambda: upper_confidence(np.zeros(1), np.ones(1), -1.0), "beta"),
        (lambda: expected_improvement(np.zeros(1), -np.ones(1), 0.0), "negative"),
        (lambda: weighted([np.zeros(1)], [1.0, 2.0]), "one weight"),
    ],
)
def test_bad_input_is_refused(call, words):
    with pytest.raises(ProbeGymError, match=words):
        call()
