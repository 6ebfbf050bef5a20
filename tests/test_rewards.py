"""Reward and cost terms are small pure functions of arrays."""

from __future__ import annotations

import numpy as np
import pytest

from probegym.rewards import terms


def test_progress_adds_up_to_what_the_episode_gained():
    errors = np.array([3.0, 1.0, 2.0, 0.1, 0.0])
    steps = terms.progress(errors[:-1], errors[1:], 0.2)
    assert steps.sum() == pytest.approx(terms.progress(3.0, 0.0, 0.2))
    assert (np.sign(steps) == np.sign(errors[:-1] - errors[1:])).all()


def test_progress_of_nothing_is_nothing():
    assert terms.progress(np.array([0.0, 5.0]), np.array([0.0, 5.0]), 0.1).tolist() == [0.0, 0.0]


def test_progress_is_finite_at_the_goal_and_in_scales():
    assert terms.progress(0.2, 0.0, 0.2) == pytest.approx(np.log(2))
    assert terms.progress(1e6, 0.0, 1e-3) < 30


def test_relative_gain_is_symmetric():
    one, other = np.array([1.0, 4.0]), np.array([2.0, 1.0])
    assert terms.relative_gain(one, other) == pytest.approx(-terms.relative_gain(other, one))
    assert terms.relative_gain(one, other) == pytest.approx(np.log([2, 0.25]))
    assert np.isfinite(terms.relative_gain(0.0, 0.0)) and np.isfinite(terms.relative_gain(1.0, 0.0))


def test_normalised_variance():
    rng = np.random.default_rng(0)
    images = rng.gamma(2.0, 3.0, (4, 30, 30))
    assert terms.normalised_variance(images) == pytest.approx((images.var((1, 2)) / images.mean((1, 2)) ** 2), rel=1e-5)
    assert terms.normalised_variance(7 * images) == pytest.approx(terms.normalised_variance(images), rel=1e-5)


def test_normalised_variance_of_flat_and_empty_images():
    images = np.stack([np.zeros((64, 64)), np.full((64, 64), 12.0), np.full((64, 64), 3001.0)])
    seen = terms.normalised_variance(images)
    assert seen[0] == 0 and np.abs(seen).max() < 1e-5


def test_normalised_variance_of_one_lane_is_that_of_the_batch():
    images = np.random.default_rng(0).poisson(3.0, (20, 64, 64)).astype(np.float32)
    together = terms.normalised_variance(images)
    assert [terms.normalised_variance(images[i : i + 1])[0] for i in range(20)] == together.tolist()


def test_terms_leave_their_arguments_alone():
    before, after = np.array([1.0, 2.0]), np.array([0.5, 3.0])
    terms.progress(before, after, 0.1), terms.relative_gain(before, after)
    assert before.tolist() == [1.0, 2.0] and after.tolist() == [0.5, 3.0]
