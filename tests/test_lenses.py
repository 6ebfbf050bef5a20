"""A bank of lenses: what arrives of what was asked for."""

from __future__ import annotations

import numpy as np
import pytest

from probegym.physics.lenses import LensBank

SCALES = np.array([1e-8, 1e-8, 3e-7, 1.0])  # the last has no control


def bank(settling_time: float = 0.0, drift=(0.0, 0.0, 0.0, 0.0)) -> LensBank:
    return LensBank(SCALES, 3, np.array(drift), settling_time)


def asked(lanes: int, *scales: float) -> np.ndarray:
    return np.tile(np.array(scales) * SCALES[:3], (lanes, 1))


def move(lenses: LensBank, state, values, where=None, noise=None) -> np.ndarray:
    lanes = len(values)
    where = np.ones(lanes, bool) if where is None else np.array(where)
    lenses.set(state, values, where, np.zeros((lanes, 3)) if noise is None else noise)
    return lenses.actual(state)


def test_at_rest_everything_is_zero():
    assert not bank().actual(bank().rest(3)).any()


def test_ideal_lenses_do_what_they_are_told():
    lenses = bank()
    state = lenses.rest(2)
    assert move(lenses, state, asked(2, 1, -2, 0.5))[:, :3] == pytest.approx(asked(2, 1, -2, 0.5))
    assert move(lenses, state, asked(2, 0, 0, 0)) == pytest.approx(np.zeros((2, 4)), abs=1e-20)


def test_setting_twice_does_no_harm():
    lenses = bank()
    state = lenses.rest(1)
    state["coupling"][:, 0, 1], state["hysteresis"][:], state["step_error"][:] = 0.3, 0.1, 0.2
    noise = np.ones((1, 3))
    first = move(lenses, state, asked(1, 1, 1, 1), noise=noise)
    assert move(lenses, state, asked(1, 1, 1, 1), noise=noise) == pytest.approx(first)


def test_controls_add_to_what_was_there():
    lenses = bank()
    state = lenses.rest(1)
    state["aberrations"][:] = [[5e-9, 0, 0, 7.0]]
    assert move(lenses, state, asked(1, 1, 0, 0)) == pytest.approx(np.array([[1.5e-8, 0, 0, 7.0]]))


def test_crosstalk_is_stated_in_scales():
    lenses = bank()
    state = lenses.rest(1)
    state["coupling"][0, 2, 0] = 0.1  # a scale of control 0 moves aberration 2 by a tenth of its own scale
    assert move(lenses, state, asked(1, 2, 0, 0))[0, :3] == pytest.approx([2e-8, 0, 0.2 * 3e-7])


def test_step_error_is_proportional_to_the_step():
    lenses, noise = bank(), np.array([[1.0, -1.0, 2.0]])
    state = lenses.rest(1)
    state["step_error"][:] = 0.1
    assert move(lenses, state, asked(1, 1, 1, 1), noise=noise)[0, :3] / SCALES[:3] == pytest.approx([1.1, 0.9, 1.2])


def test_hysteresis_loses_its_width_on_the_way_and_twice_at_a_turn():
    lenses = bank()
    state = lenses.rest(1)
    state["hysteresis"][:] = 0.05
    place = [move(lenses, state, asked(1, x, 0, 0))[0, 0] / SCALES[0] for x in (1, 2, 1.95, 1)]
    assert place == pytest.approx([0.95, 1.95, 1.95, 1.05])


def test_a_small_step_inside_the_backlash_does_nothing():
    lenses = bank()
    state = lenses.rest(1)
    state["hysteresis"][:] = 0.05
    assert not move(lenses, state, asked(1, 0.04, 0, 0)).any()


def test_63_percent_of_a_change_arrive_in_the_settling_time():
    lenses = bank(settling_time=0.2)
    state = lenses.rest(2)
    assert not move(lenses, state, asked(2, 1, 0, 0)).any()
    lenses.elapse(state, np.array([0.2, 20.0]), np.zeros((2, 4)))
    assert lenses.actual(state)[:, 0] / SCALES[0] == pytest.approx([1 - np.exp(-1), 1.0])


def test_time_adds_up():
    lenses = bank(settling_time=0.3)
    once, twice = lenses.rest(1), lenses.rest(1)
    for state in (once, twice):
        move(lenses, state, asked(1, 1, -1, 0.5))
    lenses.elapse(once, np.array([0.5]), np.zeros((1, 4)))
    for _ in range(2):
        lenses.elapse(twice, np.array([0.25]), np.zeros((1, 4)))
    assert lenses.actual(once) == pytest.approx(lenses.actual(twice))


def test_drift_is_a_random_walk():
    lanes, drift = 4000, np.array([1e-10, 0, 3e-9, 2e-9])
    lenses, rng = bank(drift=drift), np.random.default_rng(0)
    state = lenses.rest(lanes)
    for seconds in (1.0, 3.0, 5.0):
        lenses.elapse(state, np.full(lanes, seconds), rng.normal(size=(lanes, 4)))
    seen = lenses.actual(state)
    assert seen.std(0) == pytest.approx(3 * drift, rel=0.05)
    assert np.abs(seen.mean(0)).max() < 4 * 3 * drift.max() / np.sqrt(lanes)


def test_no_time_no_drift():
    lenses = bank(drift=(1e-9,) * 4)
    state = lenses.rest(2)
    lenses.elapse(state, np.array([0.0, 1.0]), np.ones((2, 4)))
    assert not lenses.actual(state)[0].any() and lenses.actual(state)[1].all()


def test_only_the_lanes_meant_move():
    lenses = bank(settling_time=0.1)
    state = lenses.rest(3)
    state["hysteresis"][:] = 0.01
    before = {name: array.copy() for name, array in state.items()}
    move(lenses, state, asked(3, 1, 1, 1), where=[False, True, False], noise=np.ones((3, 3)))
    for name, array in state.items():
        assert np.array_equal(array[[0, 2]], before[name][[0, 2]]), name
    lenses.elapse(state, np.full(3, 1.0), np.zeros((3, 4)))
    assert lenses.actual(state)[1, :3].all() and not lenses.actual(state)[[0, 2]].any()


def test_actual_is_a_copy():
    for lenses in (bank(), bank(settling_time=0.1)):
        state = lenses.rest(1)
        lenses.actual(state)[:] = 1
        assert not lenses.actual(state).any()


def test_lanes_are_independent_of_the_width():
    rng, lenses = np.random.default_rng(1), bank(settling_time=0.1, drift=(1e-9,) * 4)
    values, noise, coupling = rng.normal(size=(20, 3)) * SCALES[:3], rng.normal(size=(20, 3)), rng.normal(size=(20, 3, 3))

    def run(lanes: slice) -> np.ndarray:
        state = lenses.rest(len(values[lanes]))
        state["coupling"][:] = coupling[lanes]
        state["step_error"][:] = 0.1
        move(lenses, state, values[lanes], noise=noise[lanes])
        lenses.elapse(state, np.full(len(values[lanes]), 0.07), np.ones((len(values[lanes]), 4)))
        return lenses.actual(state)

    together = run(slice(0, 20))
    assert all(np.array_equal(run(slice(i, i + 1)), together[i : i + 1]) for i in range(20))
