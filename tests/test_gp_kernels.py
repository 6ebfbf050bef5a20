"""Gaussian processes seen through point-spread functions at several levels: closed forms, conditioning, information, learning."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import integrate, stats

from probegym.errors import ProbeGymError
from probegym.surrogates.kernels import AutoregressiveKernel, LevelNoise, blurred_rbf, inputs
from probegym.surrogates.multilevel import MultilevelGP, best_information, greedy_information, information_gain


def rbf(a, b, length=1.0):
    return np.exp(-0.5 * ((a[:, None, :] - b[None, :, :]) ** 2).sum(-1) / length**2)


def tensors(*arrays):
    return [torch.as_tensor(a, dtype=torch.float64) for a in arrays]


@pytest.mark.parametrize(("distance", "width_a", "width_b", "length"), [(0.0, 0.5, 0.0, 1.0), (0.7, 0.5, 1.3, 1.0), (2.0, 0.3, 0.3, 0.4)])
def test_smoothing_identity_against_quadrature(distance, width_a, width_b, length):
    def smoothed(seen: float) -> float:
        """Covariance of the field at ``seen`` with what the second level sees."""
        if not width_b:
            return float(np.exp(-0.5 * (seen - distance) ** 2 / length**2))
        return integrate.quad(
            lambda x: stats.norm.pdf(x, distance, width_b) * np.exp(-0.5 * (seen - x) ** 2 / length**2),
            distance - 10 * width_b, distance + 10 * width_b, epsabs=1e-11,
        )[0]  # fmt: skip

    expected = integrate.quad(lambda x: stats.norm.pdf(x, 0, width_a) * smoothed(x), -10 * width_a, 10 * width_a, epsabs=1e-10)[0]
    ours = blurred_rbf(*tensors([[0.0]], [width_a], [[distance]], [width_b], length))
    assert ours.item() == pytest.approx(expected, abs=1e-8)


def test_in_two_dimensions_the_identity_is_the_product_of_both():
    a, b, lengths = np.array([[0.2, -0.4]]), np.array([[1.0, 0.3]]), (0.7, 1.6)
    ours = blurred_rbf(*tensors(a, [0.5], b, [0.2]), torch.tensor(lengths, dtype=torch.float64))
    each = [blurred_rbf(*tensors(a[:, d : d + 1], [0.5], b[:, d : d + 1], [0.2], lengths[d])).item() for d in (0, 1)]
    assert ours.item() == pytest.approx(each[0] * each[1], rel=1e-12)


def test_the_diagonal_of_the_kernel_is_right():
    rng = np.random.default_rng(0)
    levels = AutoregressiveKernel(3, 0.5)
    several = inputs(rng.normal(size=(9, 2)), 0.1, np.arange(9) % 3)
    np.testing.assert_allclose(levels(several, diag=True).detach(), levels(several).to_dense().diagonal().detach(), rtol=1e-12)


def test_one_noiseless_point_at_one_length_scale():
    gp = MultilevelGP(1, 1.0, [0.0], learn_mean=False).condition(inputs([[0.0]]), [1.0])
    mean, variance = gp.predict([[1.0]])
    assert variance[0, 0] == pytest.approx(1 - np.exp(-1), abs=1e-8) and variance[0, 0] == pytest.approx(0.63212, abs=1e-5)
    assert mean[0, 0] == pytest.approx(np.exp(-0.5), abs=1e-8)


@pytest.mark.parametrize("dimensions", [1, 2])
def test_two_points_closed_form(dimensions):
    """Posterior of two noisy points, written out with the inverse of a 2 x 2 matrix."""
    rng = np.random.default_rng(dimensions)
    x, new, y, noise = rng.normal(size=(2, dimensions)), rng.normal(size=(5, dimensions)), np.array([0.7, -1.1]), 0.03
    mean, variance = MultilevelGP(1, 1.0, [noise], learn_mean=False).condition(inputs(x), y).predict(new)
    c, k = rbf(x[:1], x[1:])[0, 0], rbf(new, x)
    d = 1 + noise
    determinant = d * d - c * c
    expected = (k[:, 0] * (d * y[0] - c * y[1]) + k[:, 1] * (d * y[1] - c * y[0])) / determinant
    left = 1 - (d * k[:, 0] ** 2 - 2 * c * k[:, 0] * k[:, 1] + d * k[:, 1] ** 2) / determinant
    np.testing.assert_allclose(mean[0], expected, atol=1e-8)
    np.testing.assert_allclose(variance[0], left, atol=1e-8)


def three_levels(rng, n=24):
    """Rows at three levels with PSFs, and the joint covariance in NumPy by the definition f_{l+1} = rho f_l + d."""
    rho, amplitude, lengths = np.array([0.8, -1.3]), np.array([1.2, 0.5, 0.7]), np.array([0.9, 0.5, 0.3])
    position, level = rng.uniform(0, 3, (n, 2)), np.arange(n) % 3
    width = np.array([0.4, 0.1, 0.0])[level]
    gp = MultilevelGP(3, lengths, [0.02, 0.01, 0.005], learn_mean=False)
    with torch.no_grad():
        gp.kernel.rho.copy_(torch.from_numpy(rho))
        gp.kernel.raw_amplitude.copy_(torch.from_numpy(np.log(amplitude)))
    shares = np.array([[1, 0, 0], [rho[0], 1, 0], [rho[0] * rho[1], rho[1], 1]])
    total = np.zeros((n, n))
    for j in range(3):
        spread = lengths[j] ** 2 + width[:, None] ** 2 + width**2
        distance = ((position[:, None] - position) ** 2).sum(-1)
        total += np.outer(shares[level, j], shares[level, j]) * amplitude[j] ** 2 * lengths[j] ** 2 / spread * np.exp(-0.5 * distance / spread)
    return gp, position, width, level, total, np.array([0.02, 0.01, 0.005])[level]


def test_nested_autoregressive_posterior_is_direct_gaussian_conditioning():
    rng = np.random.default_rng(3)
    gp, position, width, level, total, noise = three_levels(rng)
    dwells = rng.integers(1, 5, len(level)).astype(float)
    known, y = slice(0, 15), rng.normal(size=15)
    gp.condition(inputs(position, width, level, dwells)[known], y)
    mean, covariance = gp.posterior(inputs(position, width, level)[15:])
    inner = np.linalg.inv(total[known, known] + np.diag((noise / dwells)[known]))
    across = total[15:, known]
    np.testing.assert_allclose(mean, across @ inner @ y, atol=1e-8)
    np.testing.assert_allclose(covariance, total[15:, 15:] - across @ inner @ across.T, atol=1e-8)
    told = stats.multivariate_normal(np.zeros(15), total[known, known] + np.diag((noise / dwells)[known])).logpdf(y)
    assert gp.log_likelihood() == pytest.approx(told, abs=1e-8)


def test_prediction_at_every_level_is_what_posterior_says():
    rng = np.random.default_rng(4)
    gp, position, width, level, *_ = three_levels(rng)
    gp.condition(inputs(position, width, level), rng.normal(size=len(level)))
    mean, variance = gp.predict(position[:4], width=0.2)
    for at in range(3):
        one, covariance = gp.posterior(inputs(position[:4], 0.2, at))
        np.testing.assert_allclose(mean[at], one, atol=1e-10)
        np.testing.assert_allclose(variance[at], covariance.diagonal(), atol=1e-10)


def test_correlation_of_levels_is_recovered_within_its_error():
    rng, hits, errors = np.random.default_rng(5), [], []
    for true in (0.9, 0.5, -0.8):
        position, level = rng.uniform(0, 6, (90, 1)), np.repeat([0, 1], [50, 40])
        rows = inputs(position, np.where(level == 0, 0.3, 0.0), level)
        truth = AutoregressiveKernel(2, [0.8, 0.6])
        with torch.no_grad():
            truth.rho.fill_(true)
            truth.raw_amplitude[1] = np.log(0.4)
            total = truth(rows).to_dense().numpy()
        noise = np.array([0.01, 0.0025])[level]
        y = np.linalg.cholesky(total + np.diag(noise)) @ rng.normal(size=90)
        gp = MultilevelGP(2, 1.0, [0.02, 0.02], learn_noise=True).condition(rows, y).fit()
        found, error = gp.hyperparameters(), gp.standard_errors()
        hits.append(abs(found.rho[0] - true) / error.rho[0])
        errors.append(error.rho[0])
        np.testing.assert_allclose(np.log(found.noise / [0.01, 0.0025]), 0, atol=4 * np.max(error.noise / found.noise))
        before = gp.log_likelihood()
        np.testing.assert_allclose(gp.fit().hyperparameters().rho, found.rho, atol=1e-2)  # a warm start from the maximum stays there
        assert gp.log_likelihood() == pytest.approx(before, abs=0.05)
    assert max(hits) < 3 and max(errors) < 0.4, (hits, errors)


def test_a_third_of_the_points_reconstructs_a_band_limited_field():
    """Oversampled data need about 30 % of their points (Ziatdinov et al., npj Comput. Mater. 2020); noise floor 5 % of the range."""
    rng, side, psf = np.random.default_rng(6), 24, 1.5
    rows, cols = np.indices((side, side)).reshape(2, -1)
    position = np.stack([rows, cols], 1).astype(float)
    total = blurred_rbf(*tensors(position, np.full(side**2, psf), position, np.full(side**2, psf), 2.0)).numpy()
    field = np.linalg.cholesky(total + 1e-9 * np.eye(len(total))) @ rng.normal(size=side**2)
    field /= field.std()
    floor = 0.05 * np.ptp(field)
    subset = rng.choice(side**2, int(0.3 * side**2), replace=False)
    y = field[subset] + floor * rng.normal(size=len(subset))
    gp = MultilevelGP(1, 2.0, [floor**2]).condition(inputs(position[subset], psf), y).fit(30)
    mean, variance = gp.predict(position, width=psf)
    error = np.sqrt(np.mean((mean[0] - field) ** 2))
    assert error < 1.5 * floor
    assert 0.7 < np.std((mean[0] - field) / np.sqrt(variance[0])) < 1.4


def test_information_gain_is_the_fall_in_entropy():
    rng = np.random.default_rng(7)
    root = rng.normal(size=(6, 6))
    total, noise = root @ root.T, rng.uniform(0.1, 1, 6)
    left = total - total @ np.linalg.solve(total + np.diag(noise), total)
    expected = 0.5 * (np.linalg.slogdet(total)[1] - np.linalg.slogdet(left)[1])
    assert information_gain(total, noise) == pytest.approx(expected, rel=1e-8)
    assert information_gain(np.eye(1), np.ones(1)) == pytest.approx(0.5 * np.log(2), rel=1e-12)


def test_information_of_a_measurement_falls_when_it_is_repeated():
    gp = MultilevelGP(1, 1.0, [0.1], learn_mean=False)
    rows = inputs([[0.0, 0.0]])
    first = gp.condition(inputs([[9.0, 9.0]]), [0.0]).information_gain(rows)
    again = gp.condition(rows, [0.3]).information_gain(rows)
    assert first == pytest.approx(0.5 * np.log(11), abs=1e-8) and again == pytest.approx(0.5 * np.log(1 + 10 / 11), abs=1e-8)


@pytest.mark.parametrize("seed", range(6))
def test_greedy_is_within_the_bound_of_the_best_set(seed):
    rng = np.random.default_rng(seed)
    position, level = rng.uniform(0, 2, (12, 2)), rng.integers(0, 3, 12)
    rows = inputs(position, np.array([0.5, 0.2, 0.0])[level], level)
    total = AutoregressiveKernel(3, 0.6)(rows).to_dense().detach().numpy()
    noise = np.array([0.3, 0.1, 0.02])[level]
    chosen, gain = greedy_information(total, noise, 4)
    best, most = best_information(total, noise, 4)
    assert len(set(chosen)) == len(set(best)) == 4
    assert (1 - np.exp(-1)) * most <= gain <= most + 1e-12
    assert gain >= information_gain(total[:4, :4], noise[:4])


def test_repeated_points_constant_targets_and_single_points():
    rows = inputs([[0.0], [0.0], [0.0], [1.0]])
    noiseless = MultilevelGP(1, 1.0, [0.0], learn_mean=False).condition(rows, [1.0, 1.0, 1.0, 0.5])
    mean, variance = noiseless.predict([[0.0], [1.0]])  # singular; the stated jitter carries it
    np.testing.assert_allclose(mean[0], [1.0, 0.5], atol=1e-4)
    assert (variance < 1e-4).all()
    for y in (np.ones(4), np.zeros(4)):
        gp = MultilevelGP(2, 1.0, [0.1, 0.1], learn_noise=True).condition(rows, y).fit()
        assert all(np.isfinite(part).all() for part in (*gp.hyperparameters(), *gp.predict([[0.5]])))
        assert gp.hyperparameters().rho == pytest.approx(1.0, abs=1e-3), "nothing was measured at the second level: the prior stays"
    one = MultilevelGP(1, 1.0, [0.1]).condition(rows[:1], [2.0]).fit()
    assert np.isfinite(one.predict([[3.0]])).all()


def test_levels_that_are_the_same_field_do_not_break_it():
    gp = MultilevelGP(2, 1.0, [1e-12, 1e-12], learn_mean=False)
    with torch.no_grad():
        gp.kernel.raw_amplitude[1] = -40.0  # the second level is exactly the first
    gp.condition(inputs([[0.0], [0.0]], 0.0, [0, 1]), [0.5, 0.5])
    mean, _ = gp.predict([[0.0]])
    np.testing.assert_allclose(mean[:, 0], 0.5, atol=1e-5)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: inputs([[np.nan]]), "finite"),
        (lambda: inputs([[0.0]], width=-1), "widths"),
        (lambda: inputs([[0.0]], level=0.5), "levels"),
        (lambda: inputs([[0.0]], dwells=0), "dwells"),
        (lambda: inputs([0.0]), "shape"),
        (lambda: LevelNoise([-1.0]), "not negative"),
        (lambda: AutoregressiveKernel(0, 1.0), "at least one level"),
        (lambda: AutoregressiveKernel(1, 0.0), "length scales"),
        (lambda: MultilevelGP(2, 1.0, [0.1]), "2 levels need"),
        (lambda: MultilevelGP(1, 1.0, [0.1]).condition(inputs([[0.0]]), [np.inf]), "not finite"),
        (lambda: MultilevelGP(1, 1.0, [0.1]).condition(inputs([[0.0]]), [1.0, 2.0]), "one value"),
        (lambda: MultilevelGP(1, 1.0, [0.1]).condition(inputs([[0.0]], level=1), [1.0]), "levels from 0 to 0"),
        (lambda: MultilevelGP(1, 1.0, [0.1]).fit(), "no measurements"),
        (lambda: information_gain(np.eye(2), np.array([1.0, 0.0])), "above 0"),
        (lambda: greedy_information(np.eye(2), np.ones(2), 3), "from 1"),
        (lambda: best_information(np.eye(60), np.ones(60), 10), "too many"),
        (lambda: MultilevelGP(1, 1.0, [0.1]).standard_errors(), "no measurements"),
    ],
)
def test_bad_input_is_refused_in_one_line(call, words):
    with pytest.raises(ProbeGymError, match=words) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_no_global_state_changes():
    import gpytorch

    before = torch.get_rng_state(), torch.get_default_dtype(), torch.get_num_threads(), gpytorch.settings.cholesky_jitter.value(torch.float64)
    gp = MultilevelGP(2, 1.0, [0.1, 0.1]).condition(inputs([[0.0], [1.0]], 0.0, [0, 1]), [0.0, 1.0]).fit()
    gp.predict([[0.5]])
    after = torch.get_rng_state(), torch.get_default_dtype(), torch.get_num_threads(), gpytorch.settings.cholesky_jitter.value(torch.float64)
    assert torch.equal(before[0], after[0]) and before[1:] == after[1:]
