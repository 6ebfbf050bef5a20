"""The belief over flakes against closed forms, direct Gaussian conditioning and GPyTorch."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats

from probegym.errors import ProbeGymError
from probegym.surrogates import belief

F = 5


def kernel(flakes: int = F, seed: int = 0) -> np.ndarray:
    at = np.random.default_rng(seed).uniform(0, 3, (flakes, 2))
    return 0.4 * np.exp(-0.5 * ((at[:, None] - at) ** 2).sum(-1)) + 0.6 * np.eye(flakes)


def fresh(r: np.ndarray, covariance: np.ndarray):
    """Means, covariances of the prior."""
    prior = belief.prior(r, covariance)
    return np.zeros(prior.shape[:2]), prior


def of(level: int, flakes: int = F) -> slice:
    return slice(level * flakes, (level + 1) * flakes)


def data(seed: int, flakes: int = F, levels: int = 3) -> list[tuple[int, np.ndarray, np.ndarray, np.ndarray]]:
    """Some maps: level, design, noise, y."""
    rng = np.random.default_rng(seed)
    out = []
    for step in range(6):
        k = int(rng.integers(1, 4))
        out.append((step % levels, rng.uniform(0, 1, (k, flakes)), rng.uniform(0.05, 0.5, k), rng.normal(size=k)))
    return out


# ---- closed forms ----


def test_one_exact_point_at_one_length():
    tie = np.array([[1, np.exp(-0.5)], [np.exp(-0.5), 1]])
    mean, covariance = fresh(np.zeros((1, 1)), tie)
    belief.condition(mean, covariance, of(0, 2), np.array([[1.0, 0.0]]), np.array([0.0]), np.array([2.0]))
    assert covariance[0, 1, 1] == pytest.approx(1 - np.exp(-1), abs=1e-8) and 1 - np.exp(-1) == pytest.approx(0.63212, abs=1e-5)
    assert mean[0, 1] == pytest.approx(2 * np.exp(-0.5), abs=1e-8)


@pytest.mark.parametrize("r", [-0.9, 0.3, 0.97])
def test_a_level_tells_of_the_next_as_much_as_they_are_correlated(r):
    noise, y = 0.2, 1.3
    mean, covariance = fresh(np.array([[0.5, r]]), np.eye(1))
    belief.condition(mean, covariance, of(1, 1), np.ones((1, 1)), np.array([noise]), np.array([y]))
    assert mean[0, 2] == pytest.approx(r * y / (1 + noise), abs=1e-8) and covariance[0, 2, 2] == pytest.approx(1 - r**2 / (1 + noise), abs=1e-8)
    assert covariance[0, 0, 0] == pytest.approx(1 - 0.25 / (1 + noise), abs=1e-8)


def test_correlations_of_a_chain_are_products():
    ties = belief.level_correlations(np.array([0.9, -0.5, 0.7]))
    assert ties[0, 3] == pytest.approx(-0.315, abs=1e-12) and ties[1, 3] == pytest.approx(-0.35, abs=1e-12) and np.allclose(ties, ties.T)


def test_two_points_in_closed_form():
    tie, n = np.array([[1, 0.6, 0.3], [0.6, 1, 0.5], [0.3, 0.5, 1]]), np.array([0.1, 0.4])
    mean, covariance = fresh(np.zeros((1, 1)), tie)
    y = np.array([1.0, -0.5])
    belief.condition(mean, covariance, of(0, 3), np.eye(3)[:2], n, y)
    det = (1 + n[0]) * (1 + n[1]) - 0.36
    inverse = np.array([[1 + n[1], -0.6], [-0.6, 1 + n[0]]]) / det
    k = np.array([0.3, 0.5])
    assert mean[0, 2] == pytest.approx(k @ inverse @ y, abs=1e-8) and covariance[0, 2, 2] == pytest.approx(1 - k @ inverse @ k, abs=1e-8)


# ---- the same as conditioning on everything at once ----


def at_once(r: np.ndarray, covariance: np.ndarray, maps):
    """Posterior mean, covariance and log likelihood by one solve with all maps."""
    prior = belief.prior(r[None], covariance)[0]
    design = np.concatenate([np.kron(np.eye(3)[level], w) for level, w, _, _ in maps])
    noise, y = (np.concatenate([m[i] for m in maps]) for i in (2, 3))
    spread = design @ prior @ design.T + np.diag(noise)
    gain = prior @ design.T @ np.linalg.inv(spread)
    return gain @ y, prior - gain @ design @ prior, stats.multivariate_normal.logpdf(y, np.zeros(len(y)), spread)


def one_by_one(r: np.ndarray, covariance: np.ndarray, maps):
    mean, prior = fresh(r, covariance)
    return mean, prior, sum(belief.condition(mean, prior, of(level), w, n, y) for level, w, n, y in maps)


@pytest.mark.parametrize("order", [1, -1])
def test_maps_one_by_one_are_maps_at_once(order):
    r = np.array([[0.8, -0.7], [-0.2, 0.95], [0.0, 0.5]])
    maps = data(3)
    mean, covariance, evidence = one_by_one(r, kernel(), maps[::order])
    for h in range(3):
        expected = at_once(r[h], kernel(), maps)
        for got, want in zip((mean[h], covariance[h], evidence[h]), expected, strict=True):
            np.testing.assert_allclose(got, want, atol=1e-10)


def test_gpytorch_gives_the_same():
    import gpytorch
    import torch
    from linear_operator.operators import DenseLinearOperator

    class Table(gpytorch.kernels.Kernel):
        """Covariance by number."""

        def __init__(self, table):
            super().__init__()
            self.table = table

        def forward(self, x1, x2, diag=False, **_):
            i, j = x1[..., 0].long(), x2[..., 0].long()
            return self.table[i, j] if diag else DenseLinearOperator(self.table[i[:, None], j[None, :]])

    class Exact(gpytorch.models.ExactGP):
        def __init__(self, x, y, likelihood, table):
            super().__init__(x, y, likelihood)
            self.mean_module, self.covar_module = gpytorch.means.ZeroMean(), Table(table)

        def forward(self, x):
            return gpytorch.distributions.MultivariateNormal(self.mean_module(x), self.covar_module(x))

    maps, r = data(5), np.array([0.8, -0.7])
    mean, covariance, evidence = one_by_one(r[None], kernel(), maps)
    design = np.concatenate([np.kron(np.eye(3)[level], w) for level, w, _, _ in maps])
    both = np.concatenate([design, np.eye(3 * F)])
    table = torch.from_numpy(both @ belief.prior(r[None], kernel())[0] @ both.T)
    noise, y = (torch.from_numpy(np.concatenate([m[i] for m in maps])) for i in (2, 3))
    x = torch.arange(len(both), dtype=torch.float64)[:, None]
    likelihood = gpytorch.likelihoods.FixedNoiseGaussianLikelihood(noise)
    model = Exact(x[: len(y)], y, likelihood, table).double()
    likelihood.train(), model.train()
    log_likelihood = likelihood(model(x[: len(y)])).log_prob(y).item()
    likelihood.eval(), model.eval()
    with torch.no_grad(), gpytorch.settings.fast_computations(False, False, False):
        posterior = model(x[len(y) :])
    np.testing.assert_allclose(mean[0], posterior.mean.numpy(), atol=1e-6)
    np.testing.assert_allclose(np.diagonal(covariance[0]), posterior.variance.numpy(), atol=1e-6)
    assert evidence[0] == pytest.approx(log_likelihood, abs=1e-6)


# ---- hypotheses ----


def test_evidence_finds_the_correlation():
    r = belief.hypotheses([[0.0], [-0.9, -0.3, 0.3, 0.9]])
    assert r.shape == (4, 2)
    rng, flakes = np.random.default_rng(0), 40
    c = rng.normal(size=flakes)
    e = -0.9 * c + np.sqrt(1 - 0.81) * rng.normal(size=flakes)
    mean, covariance = fresh(r, np.eye(flakes))
    logs = belief.condition(mean, covariance, of(1, flakes), np.eye(flakes), np.full(flakes, 1e-3), c)
    assert np.ptp(logs) < 1e-9  # composition alone says nothing of the correlation
    logs = logs + belief.condition(mean, covariance, of(2, flakes), np.eye(flakes), np.full(flakes, 1e-3), e)
    assert belief.weights(logs).argmax() == 0 and belief.weights(logs)[0] > 0.99


def test_mixture_variance_is_within_and_between():
    rng = np.random.default_rng(1)
    weight, mean = np.array([0.2, 0.5, 0.3]), rng.normal(size=(3, 4))
    roots = rng.normal(size=(3, 4, 4))
    covariance = roots @ roots.swapaxes(1, 2)
    middle, total = belief.mixture(weight, mean, covariance)
    second = sum(w * (c + np.outer(m, m)) for w, c, m in zip(weight, covariance, mean, strict=True))
    np.testing.assert_allclose(middle, weight @ mean, atol=1e-12)
    np.testing.assert_allclose(total, second - np.outer(middle, middle), atol=1e-12)


def test_an_unknown_sign_hides_what_a_level_would_tell_and_folding_shows_it():
    r, target = np.array([[0.5, 0.9], [0.5, -0.9]]), np.repeat([0, 0, 1], F) / F
    _, covariance = fresh(r, kernel())
    weight = np.array([0.5, 0.5])
    _, total = belief.mixture(weight, np.zeros((2, 3 * F)), covariance)
    design, noise = np.eye(F)[:, None], np.full((F, 1), 0.1)
    hidden = belief.reduction(total, of(1), design, noise, target)
    shown = belief.reduction(belief.folded(weight, r, covariance), of(1), design, noise, target)
    known = belief.reduction(covariance[0], of(1), design, noise, target)
    assert np.abs(hidden).max() < 1e-12 and known.min() > 0.1
    np.testing.assert_allclose(shown, known, atol=1e-12)


def test_expected_reduction_is_the_reduction_when_the_hypothesis_is_one():
    maps, target = data(7), np.random.default_rng(2).uniform(0, 1, 3 * F)
    mean, covariance, _ = one_by_one(np.array([[0.8, -0.7]]), kernel(), maps[:3])
    for level, w, n, y in maps[3:]:
        before = np.diagonal(covariance[0]) @ target
        expected = belief.reduction(covariance[0], of(level), w[None], n[None], target)[0]
        belief.condition(mean, covariance, of(level), w, n, y)
        assert before - np.diagonal(covariance[0]) @ target == pytest.approx(expected, abs=1e-10)


# ---- information ----


def test_information_is_the_entropy_that_goes():
    maps = data(9)
    prior = belief.prior(np.array([[0.8, -0.7]]), kernel())
    design = np.concatenate([np.kron(np.eye(3)[level], w) for level, w, _, _ in maps])
    noise = np.concatenate([m[2] for m in maps])
    _, covariance, _ = one_by_one(np.array([[0.8, -0.7]]), kernel(), maps)
    entropy = 0.5 * (np.linalg.slogdet(prior[0])[1] - np.linalg.slogdet(covariance[0])[1])
    assert belief.information(prior[0], design, noise) == pytest.approx(entropy, abs=1e-9)


@pytest.mark.parametrize("seed", range(6))
def test_greedy_gets_more_than_63_percent_of_the_most_information(seed):
    rng = np.random.default_rng(seed)
    prior = belief.prior(rng.uniform(-1, 1, (1, 1)), kernel(6, seed))[0]
    places, noise = np.eye(12), rng.uniform(0.01, 2.0, 12)

    def told(chosen) -> float:
        on = list(chosen)
        return belief.information(prior, places[on], noise[on])

    most = max(told(chosen) for chosen in itertools.combinations(range(12), 4))
    greedy: list[int] = []
    for _ in range(4):
        greedy.append(max(set(range(12)) - set(greedy), key=lambda i: told([*greedy, i])))
    assert (1 - np.exp(-1)) * most <= told(greedy) <= most + 1e-12


# ---- what must not break it ----


def test_measuring_the_same_again_and_again_without_noise():
    mean, covariance = fresh(np.array([[1.0, -1.0]]), np.ones((F, F)))  # all flakes alike, all levels one
    for _ in range(5):
        logs = belief.condition(mean, covariance, of(0), np.eye(F), np.zeros(F), np.full(F, 0.7))
        assert np.isfinite(logs).all()
    np.testing.assert_allclose(mean[0], np.repeat([0.7, 0.7, -0.7], F), atol=1e-4)
    assert (np.diagonal(covariance[0]) > -1e-6).all() and np.diagonal(covariance[0]).max() < 1e-3


def test_a_target_without_weight_gains_nothing():
    _, covariance = fresh(np.array([[0.5, 0.5]]), kernel())
    assert (belief.reduction(covariance[0], of(0), np.eye(F)[:, None], np.ones((F, 1)), np.zeros(3 * F)) == 0).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_is_refused_and_nothing_learned(bad):
    mean, covariance = fresh(np.array([[0.5, 0.5]]), kernel())
    before = covariance.copy()
    with pytest.raises(ProbeGymError, match="not finite"):
        belief.condition(mean, covariance, of(0), np.eye(F)[:1], np.ones(1), np.array([bad]))
    assert np.array_equal(before, covariance) and not mean.any()


def test_no_covariance_at_all_is_refused():
    with pytest.raises(ProbeGymError, match="not positive"):
        belief.factor(-np.eye(3))
