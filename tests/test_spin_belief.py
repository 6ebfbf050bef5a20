"""The belief over J, h and the classifier: mislabels as a channel, unbiased and calibrated estimates, information that is exact."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats

from probegym.physics import ising
from probegym.surrogates import spins

PRIOR = np.array([0.019, 0.0, 0.0])
BETA = 1 / (8.617333e-5 * 600)


def lattices(coupling, field, lanes: int = 24, rows: int = 64, sweeps: int = 150, seed: int = 0) -> np.ndarray:
    out = ising.random_spins(np.arange(lanes, dtype=np.uint64), rows, rows, np.zeros(lanes))
    ising.evolve(out, sweeps, np.arange(lanes) + 10_000 * (seed + 1), coupling, field)
    return out


def labelled(lattice: np.ndarray, error, seed: int = 0) -> np.ndarray:
    wrong = np.random.default_rng(seed).random(lattice.shape) < np.reshape(error, (-1, 1, 1))
    return np.where(wrong, -lattice, lattice)


def learned(images: list[tuple[np.ndarray, float, float]], deviation, x: float, mean=PRIOR):
    """Estimate and covariance from records (labels, beta, applied field)."""
    lanes, n = len(images[0][0]), len(images)
    prior, of = np.diag(np.asarray(deviation, float) ** -2), np.repeat(np.arange(lanes), n)
    counts = np.stack([spins.cells(y, np.zeros(y.shape, int), 1)[:, 0] for y, _, _ in images], 1).reshape(lanes * n, -1, 10)
    beta, applied = (np.tile([image[i] for image in images], lanes) for i in (1, 2))
    seen, one = counts.sum(1).astype(float), np.ones(lanes * n, int)
    start = np.tile(np.asarray(mean, float), (lanes, 1))
    theta, _, information, score, _ = spins.fit(start, spins.first_shares(seen), seen, of, beta, applied, x * one, one, np.asarray(mean, float), prior, np.full(lanes, 12))
    return theta, spins.covariance(prior, information, np.matmul(counts.astype(float), score), counts.sum(2).astype(float), of)


# ---- wrong labels ----


def test_the_channel_is_what_wrong_labels_do():
    error = 0.13
    near, slope = (array[0] for array in spins.channel(np.array([error])))
    for up in range(5):
        expected = np.zeros(5)
        for wrong in itertools.product((0, 1), repeat=4):
            seen = sum((1 - w) if i < up else w for i, w in enumerate(wrong))
            expected[seen] += np.prod([error if w else 1 - error for w in wrong])
        np.testing.assert_allclose(near[:, up], expected, atol=1e-12)
    np.testing.assert_allclose(slope, (spins.channel(np.array([error + 1e-6]))[0][0] - spins.channel(np.array([error - 1e-6]))[0][0]) / 2e-6, atol=1e-6)
    np.testing.assert_allclose(spins.channel(np.zeros(1))[0][0], np.eye(5), atol=1e-12)


@pytest.mark.parametrize("looks", [1, 2, 3, 4, 9])
def test_several_labels_decide_by_majority(looks):
    one = spins.mislabelled(0.7)[0]
    several, slope = spins.mislabelled(np.array([0.7]), np.zeros(1), np.array([looks]))
    odd = looks - (looks % 2 == 0)
    assert several[0] == pytest.approx(stats.binom.sf(odd // 2, odd, one), rel=1e-9)
    shifted = [spins.mislabelled(0.7, phi, looks)[0] for phi in (1e-5, -1e-5)]
    assert slope[0] == pytest.approx(float(shifted[0] - shifted[1]) / 2e-5, rel=1e-5)


def test_longer_looks_mislabel_less():
    error, slope = spins.mislabelled(np.array([0.0, 1.0, 2.0, 8.0]), 0.0)
    assert error[0] == 0.5 and (np.diff(error) < 0).all() and error[3] < 1e-12
    assert slope[1] == pytest.approx(float(spins.mislabelled(1.0, 1e-6)[0] - spins.mislabelled(1.0, -1e-6)[0]) / 2e-6, rel=1e-6)


def test_cells_count_sites_with_their_neighbours():
    labels = np.where(np.random.default_rng(0).random((2, 24, 24)) < 0.5, 1, -1).astype(np.int8)
    kind = np.zeros((2, 24, 24), int)
    kind[1, :, 11:], kind[1, 20:] = 1, -1
    found = spins.cells(labels, kind, 2)
    assert found.shape == (2, 2, 9, 10) and found[0, 0].sum() == 22 * 22 and found[0, 1].sum() == 0
    expected, up = np.zeros((2, 9, 10), int), labels[1] > 0
    for y, x in itertools.product(range(1, 19), [*range(1, 10), *range(12, 23)]):
        near = int(up[y - 1, x]) + int(up[y + 1, x]) + int(up[y, x - 1]) + int(up[y, x + 1])
        expected[int(x > 10), y // 8 * 3 + x // 8, 5 * int(up[y, x]) + near] += 1
    assert np.array_equal(found[1], expected)


@pytest.mark.parametrize("coupling", [-0.3, 0.2, 0.35])
@pytest.mark.parametrize("sweeps", [3, 100])
def test_logarithms_of_shares_are_nearly_parabolas(coupling, sweeps):
    """What the prior on them says: of k neighbours up, ln(w_k / binomial) is a parabola in k, in equilibrium and before."""
    for field in (0.0, 0.1):
        near = spins.cells(lattices(coupling, field, 64, sweeps=sweeps), np.zeros((64, 64, 64), int), 1).sum((0, 1, 2)).reshape(2, 5).sum(0)
        form = np.log(near / near.sum()) - spins.BINOMIAL
        k = np.arange(5)
        assert np.abs(form - np.polyval(np.polyfit(k, form, 2), k)).max() < 0.5 * spins.CURVED


# ---- estimates ----


@pytest.mark.parametrize("x", [0.8, 1.45, 4.0])
def test_wrong_labels_do_not_bias_the_estimate(x):
    coupling, field = 0.017, 0.002
    y = labelled(lattices(coupling * BETA, field * BETA, 48), spins.mislabelled(x)[0])
    theta, covariance = learned([(y, BETA, 0.0)], (0.02, 0.02, 1e-3), x)
    error = theta[:, :2] - [coupling, field]
    standard = np.sqrt(np.diagonal(covariance, axis1=1, axis2=2)[:, :2])
    assert (np.abs(error.mean(0)) < 4 * error.std(0) / np.sqrt(48)).all()
    assert ((error / standard) ** 2).mean(0) == pytest.approx([1, 1], abs=0.55)


def test_taken_for_true_wrong_labels_pull_the_coupling_down():
    y = labelled(lattices(0.017 * BETA, 0.0), 0.12)
    naive, _ = learned([(y, BETA, 0.0)], (0.02, 0.02, 1e-3), 6.0)
    aware, _ = learned([(y, BETA, 0.0)], (0.02, 0.02, 1e-3), 1.175)
    assert naive[:, 0].mean() < 0.013 and aware[:, 0].mean() == pytest.approx(0.017, rel=0.05)


def test_without_wrong_labels_it_is_the_maximum_of_the_pseudo_likelihood():
    from scipy.optimize import minimize

    lattice = lattices(0.35, 0.03, 1)
    s, near = lattice[0, 1:-1, 1:-1].ravel(), sum(np.roll(lattice[0].astype(int), k, a)[1:-1, 1:-1] for k in (1, -1) for a in (0, 1)).ravel()
    best = minimize(lambda t: np.log1p(np.exp(-2 * s * (t[0] * near + t[1]))).sum(), [0.3, 0.0]).x
    theta, _ = learned([(lattice, 1.0, 0.0)], (50.0, 50.0, 1e-3), 9.0, mean=np.array([0.2, 0.0, 0.0]))
    np.testing.assert_allclose(theta[0, :2], best, atol=2e-4)


def test_an_applied_field_is_not_taken_for_the_hidden_one():
    lattice = lattices(0.015 * BETA, (0.003 - 0.005) * BETA, 48)
    theta, _ = learned([(lattice, BETA, -0.005)], (0.02, 0.02, 1e-3), 6.0)
    assert theta[:, 1].mean() == pytest.approx(0.003, abs=2e-4) and theta[:, 0].mean() == pytest.approx(0.015, abs=5e-4)


def test_antiferromagnets_have_a_negative_coupling():
    theta, _ = learned([(lattices(-0.017 * BETA, 0.002 * BETA, 48), BETA, 0.0)], (0.02, 0.02, 1e-3), 6.0, mean=np.zeros(3))
    assert theta[:, 0].mean() == pytest.approx(-0.017, abs=4e-4) and theta[:, 1].mean() == pytest.approx(0.002, abs=6e-4)


def test_a_classifier_that_is_worse_than_told_is_found_out():
    images = [(labelled(lattices(k * BETA, 0.0, 32, seed=i), spins.mislabelled(1.6, -0.4)[0], i), BETA, 0.0) for i, k in enumerate([0.016] * 6)]
    theta, covariance = learned(images, (0.005, 0.005, 0.3), 1.6)
    assert theta[:, 2].mean() == pytest.approx(-0.4, abs=0.1)
    assert (((theta[:, 0] - 0.016) / np.sqrt(covariance[:, 0, 0])) ** 2).mean() < 2.5
    trusting, sure = learned(images, (0.005, 0.005, 1e-3), 1.6)
    assert (((trusting[:, 0] - 0.016) / np.sqrt(sure[:, 0, 0])) ** 2).mean() > 10


def test_images_of_a_lattice_that_does_not_move_do_not_count_as_new_ones():
    same = lattices(0.32, 0.0, 32)
    fresh = [lattices(0.32, 0.0, 32, seed=i) for i in range(4)]
    spread = [np.sqrt(learned([(s, 1.0, 0.0) for s in images], (0.3, 0.3, 1e-3), 6.0, np.array([0.3, 0, 0]))[1][:, 0, 0]).mean()
              for images in ([same], [same] * 4, fresh)]  # fmt: skip
    assert spread[1] > 0.75 * spread[0] and spread[2] == pytest.approx(spread[0] / 2, rel=0.15)


def test_records_that_contradict_one_another_are_less_sure():
    states = {"alike": (0.3, 0.3, 0.3, 0.3), "unlike": (0.24, 0.36, 0.24, 0.36)}
    spread = {name: np.sqrt(learned([(lattices(k, 0.0, 32, seed=i), 1.0, 0.0) for i, k in enumerate(couplings)], (0.3, 0.3, 1e-3), 6.0,
                                    np.array([0.3, 0, 0]))[1][:, 0, 0]).mean() for name, couplings in states.items()}  # fmt: skip
    assert spread["unlike"] > 2 * spread["alike"]


def test_overlap_tells_whether_atoms_moved():
    first = lattices(0.35, 0.05)
    second = lattices(0.35, 0.05, seed=5)
    error = spins.mislabelled(np.full(24, 1.2))[0]
    moved, noise = spins.overlap(labelled(first, error), labelled(second, error, 1), error, error)
    still, _ = spins.overlap(labelled(first, error), labelled(first, error, 1), error, error)
    assert abs(moved.mean()) < 0.03 and still.mean() == pytest.approx(1, abs=0.03)
    assert moved.std() == pytest.approx(noise.mean(), rel=0.7)
    assert spins.overlap(0 * first, first, error, error)[0].max() == 0


# ---- what would be learned ----


def test_information_is_symmetric_and_vanishes_where_nothing_can_be_told():
    table = spins.information_table()
    np.testing.assert_allclose(table, np.swapaxes(table, -1, -2), atol=1e-9)
    assert np.linalg.eigvalsh(table).min() > -1e-9
    at = {k: spins.information(np.array(k), np.array(0.0), np.array(2.0))[0, 0] for k in (0.0, 0.375, 0.9)}
    assert at[0.375] > 20 * at[0.9] and at[0.375] > at[0.0] * 0.4
    balanced, off = (spins.information(np.array(0.3), np.array(b), np.array(2.0))[0, 0] for b in (0.0, 1.2))
    assert balanced > 5 * off
    assert (np.diff(spins.information(np.full(4, 0.3), np.zeros(4), np.array([0.6, 1.0, 2.0, 3.2]))[:, 0, 0]) > 0).all()


def test_turning_the_field_over_turns_what_is_told_of_it():
    up, down = (spins.information(np.array(0.25), np.array(b), np.array(1.5)) for b in (0.3, -0.3))
    signs = np.array([1, -1, 1])
    np.testing.assert_allclose(up, down * signs[:, None] * signs, atol=1e-12)


@pytest.mark.parametrize(("coupling", "field", "x"), [(0.25, 0.0, 3.2), (0.25, 0.1, 1.2), (0.125, 0.0, 2.0)])
def test_expected_information_is_what_estimates_scatter_by(coupling, field, x):
    y = labelled(lattices(coupling, field, 160, 32), spins.mislabelled(x)[0])
    theta, _ = learned([(y, 1.0, 0.0)], (5.0, 5.0, 1e-3), x, mean=np.array([coupling, field, 0.0]))
    told = spins.information(np.array(coupling), np.array(field), np.array(x))[:2, :2] * 30**2
    expected = np.sqrt(np.diagonal(np.linalg.inv(told)))
    assert theta[:, :2].std(0) == pytest.approx(expected, rel=0.35)


def test_gain_is_the_fall_of_the_standard_deviation():
    covariance = np.array([[[4.0, 1.0, 0.5], [1.0, 3.0, 0.0], [0.5, 0.0, 2.0]]])
    more = np.array([[[[2.0, 0.3, 0.1], [0.3, 1.0, 0.0], [0.1, 0.0, 0.5]], np.zeros((3, 3))]])
    after = np.linalg.inv(np.linalg.inv(covariance[0]) + more[0, 0])
    np.testing.assert_allclose(spins.expected_gain(covariance, more)[0], [0.5 * np.log(4 / after[0, 0]), 0], atol=1e-12)


def test_a_lane_is_the_same_alone_and_in_a_batch():
    y = labelled(lattices(0.3, 0.02, 6), 0.1)
    together, covariance = learned([(y, 1.0, 0.0), (y[::-1].copy(), 1.0, 0.0)], (0.3, 0.3, 0.3), 1.3, np.array([0.3, 0, 0]))
    for lane in range(6):
        alone, own = learned([(y[lane : lane + 1], 1.0, 0.0), (y[::-1][lane : lane + 1].copy(), 1.0, 0.0)], (0.3, 0.3, 0.3), 1.3, np.array([0.3, 0, 0]))
        assert np.array_equal(alone[0], together[lane]) and np.array_equal(own[0], covariance[lane])
