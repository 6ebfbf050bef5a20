"""Random numbers that depend on (key, step, stream, index) alone."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from probegym.physics import randomness
from tests.helpers import python

KEYS = np.random.default_rng(0).integers(0, 2**63, 64, dtype=np.uint64)


def test_uniform_is_uniform():
    seen = randomness.uniform(KEYS, 3, "test", 1000).ravel()
    assert seen.min() > 0 and seen.max() < 1
    assert stats.kstest(seen, "uniform").pvalue > 1e-3


def test_normal_is_normal():
    seen = randomness.normal(KEYS, 3, "test", 1000).ravel()
    assert np.isfinite(seen).all() and stats.kstest(seen, "norm").pvalue > 1e-3


def test_neighbouring_keys_steps_and_indices_are_uncorrelated():
    keys = np.arange(2000, dtype=np.uint64)
    block = np.stack([randomness.normal(keys, step, "test", 4) for step in range(3)], axis=-1)
    by_key, by_index, by_step = ((block.take(range(1, n), a), block.take(range(n - 1), a)) for a, n in ((0, 2000), (1, 4), (2, 3)))
    for one, other in (by_key, by_index, by_step):
        assert abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 4 / np.sqrt(one.size)
    assert stats.kstest(randomness.uniform(keys, 0, "test", 1).ravel(), "uniform").pvalue > 1e-3
    assert stats.kstest(randomness.uniform(np.full(2000, 7, np.uint64), np.arange(2000), "test", 1).ravel(), "uniform").pvalue > 1e-3


def test_streams_differ():
    names = ["shot noise", "scan noise", "lens drift", "step", "place", "coupling", "aberration C10", "aberration C12a"]
    seen = np.stack([randomness.normal(KEYS, 0, name, 200).ravel() for name in names])
    assert np.abs(np.corrcoef(seen) - np.eye(len(names))).max() < 5 / np.sqrt(seen.shape[1])


def test_no_two_values_are_equal():
    seen = np.concatenate([randomness.uniform(KEYS, step, s, 50).ravel() for step in range(5) for s in ("a", "b")])
    assert len(np.unique(seen)) == len(seen)


def test_a_lane_does_not_depend_on_its_neighbours():
    together = randomness.normal(KEYS, np.arange(64), "test", 7)
    for lane in (0, 5, 63):
        assert np.array_equal(randomness.normal(KEYS[lane : lane + 1], lane, "test", 7), together[lane : lane + 1])


def test_more_numbers_begin_like_fewer():
    assert np.array_equal(randomness.uniform(KEYS, 1, "test", 10)[:, :4], randomness.uniform(KEYS, 1, "test", 4))


def test_processes_agree():
    code = "import numpy as np; from probegym.physics import randomness as r; print(r.uniform(np.uint64(7), 3, 'test', 2).tolist())"
    assert python(code, PYTHONHASHSEED="0") == python(code, PYTHONHASHSEED="1") == str(randomness.uniform(np.uint64(7), 3, "test", 2).tolist())


def test_recordings_stay_valid():
    """These numbers are the meaning of a seed: if they change, so must the version of every environment."""
    assert randomness.uniform(np.uint64(7), 3, "test", 2)[0] == pytest.approx([0.9370212726713405, 0.07376652197364458], abs=1e-15)


def test_global_generators_are_left_alone():
    before = np.random.get_state()[1].copy()
    randomness.normal(KEYS, 0, "test", 3)
    assert np.array_equal(before, np.random.get_state()[1])

