"""Lanes of the native vector environments are the single environments, whatever runs beside them."""

from __future__ import annotations

import copy

import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

from probegym.errors import ProbeGymError
from tests.helpers import almost, differences, follow, moved, rollout, vector_rollout

LANES = 4


def lane_of(value, lane: int):
    """One lane's share of a batched observation or info; gymnasium masks info with ``_key``."""
    if isinstance(value, dict):
        said = {k: v for k, v in value.items() if not k.startswith("_") and (f"_{k}" not in value or value[f"_{k}"][lane])}
        return {name: lane_of(item, lane) for name, item in said.items()}
    return value[lane]


def lane_history(returned: list, lane: int) -> list:
    return [tuple(lane_of(part, lane) for part in step) for step in returned]


def ends(returned: list) -> np.ndarray:
    """How many episodes ended in every lane."""
    return np.sum([step[2] | step[3] for step in returned if len(step) == 5], axis=0)


def with_resets(env, actions, seed: int) -> list:
    """A rollout whose caller resets the lanes that have ended."""
    returned = [env.reset(seed=seed)]
    for action in actions:
        returned.append(env.step(action))
        done = returned[-1][2] | returned[-1][3]
        if done.any():
            returned.append(env.reset(options={"reset_mask": done}))
    return returned


@pytest.mark.parametrize("mode", list(AutoresetMode), ids=lambda m: m.name.lower())
def test_native_equals_synchronous(subject, mode):
    actions, budget = subject.any_actions(20, lanes=2), subject.case.short
    native = subject.batch(2, budget=budget, autoreset_mode=mode)
    sync = subject.batch(2, "sync", budget=budget, vector_kwargs={"autoreset_mode": mode})
    run = with_resets if mode is AutoresetMode.DISABLED else vector_rollout
    one, other = run(native, actions, 7), run(sync, actions, 7)
    assert ends(one).min() >= 2 and np.array_equal(ends(one), ends(other))
    for lane in range(2):
        assert almost(lane_history(one, lane), lane_history(other, lane)) == []


@pytest.mark.parametrize("mode", list(AutoresetMode), ids=lambda m: m.name.lower())
def test_native_returns_what_its_spaces_promise(subject, mode):
    env = subject.batch(LANES, budget=subject.case.short, autoreset_mode=mode)
    run = with_resets if mode is AutoresetMode.DISABLED else vector_rollout
    assert env.metadata["autoreset_mode"] is mode
    for step in run(env, subject.any_actions(12, lanes=LANES), 7):
        assert env.observation_space.contains(step[0])
        if len(step) == 5:
            assert [part.shape for part in step[1:4]] == [(LANES,)] * 3 and step[2].dtype == step[3].dtype == bool


def test_lane_equals_single_environment(subject):
    actions = subject.actions(4, lanes=LANES)
    batch = vector_rollout(subject.batch(LANES), actions, 7)
    for lane in range(LANES):
        single = rollout(subject.bare(), actions[:, lane], 7 + lane)
        assert almost(lane_history(batch, lane), single) == []


def test_a_lane_does_not_depend_on_the_width(subject):
    actions = subject.any_actions(10, lanes=20)
    runs = {n: vector_rollout(subject.batch(n, budget=subject.case.short), actions[:, :n], 7) for n in (1, 5, 20)}
    for narrow, wide in ((1, 5), (1, 20), (5, 20)):
        for lane in range(narrow):
            assert almost(lane_history(runs[narrow], lane), lane_history(runs[wide], lane)) == [], (narrow, wide, lane)


def test_threads_change_nothing(main, monkeypatch):
    actions, seen = main.any_actions(3, lanes=20), []
    for threads in ("1", "3"):
        monkeypatch.setenv("PROBEGYM_THREADS", threads)
        seen.append(vector_rollout(main.batch(20), actions, 7))
    assert differences(*seen) == []


def test_single_snapshot_goes_into_any_lane(subject, env):
    actions = subject.actions(4)
    env.step(actions[0])
    here, lane = moved(env.snapshot()), 2
    batch = subject.batch(LANES)
    batch.reset(seed=50)
    batch.restore(here, lane)
    beside = subject.actions(3, seed=9, lanes=LANES)
    beside[:, lane] = actions[1:]
    seen = [lane_history([batch.step(action)], lane)[0] for action in beside]
    assert almost(seen, follow(env, actions[1:])) == []


def test_lane_snapshot_goes_into_a_single_environment_and_another_lane(subject, env):
    batch, actions = subject.batch(LANES), subject.actions(5, lanes=LANES)
    batch.reset(seed=50)
    batch.step(actions[0])
    here = batch.snapshot(3)
    other = subject.batch(LANES)
    other.reset(seed=70)
    other.restore(here, 0)
    env.restore(here)
    moved_actions = actions[1:].copy()
    moved_actions[:, 0] = actions[1:, 3]
    expected = lane_history([batch.step(action) for action in actions[1:]], 3)
    assert almost(lane_history([other.step(action) for action in moved_actions], 0), expected) == []
    assert almost(follow(env, actions[1:, 3]), expected) == []


def test_restoring_one_lane_leaves_the_others_alone(subject, env):
    batch, plain = subject.batch(LANES), subject.batch(LANES)
    batch.reset(seed=50), plain.reset(seed=50)
    batch.restore(env.snapshot(), 1)
    actions = subject.actions(3, lanes=LANES)
    one, other = ([b.step(action) for action in actions] for b in (batch, plain))
    for lane in (0, 2, 3):
        assert almost(lane_history(one, lane), lane_history(other, lane)) == []


@pytest.mark.parametrize("copied", [copy.deepcopy, moved], ids=["deepcopy", "pickle"])
def test_a_copy_made_in_mid_episode_goes_on_alike(subject, copied):
    batch, actions = subject.batch(LANES), subject.actions(4, lanes=LANES)
    batch.reset(seed=50)
    batch.step(actions[0])
    twin = copied(batch)
    first = follow(batch, actions[1:])
    assert differences(follow(twin, actions[1:]), first) == []


def test_writing_into_what_was_returned_changes_nothing(subject):
    batch, plain = subject.batch(LANES), subject.batch(LANES)
    actions = subject.actions(3, lanes=LANES)
    seen, _ = batch.reset(seed=50)
    for array in seen.values():
        array[...] = 0
    plain.reset(seed=50)
    assert differences(follow(batch, actions), follow(plain, actions)) == []


def test_partial_reset_keeps_the_others_and_their_observations(subject):
    batch = subject.batch(LANES, autoreset_mode="Disabled")
    before, _ = batch.reset(seed=50)
    mask = np.array([False, True, False, False])
    after, info = batch.reset(seed=90, options={"reset_mask": mask})
    for lane in (0, 2, 3):
        assert differences(lane_of(before, lane), lane_of(after, lane)) == []
    assert differences(lane_of(after, 1), subject.bare().reset(seed=91)[0]) == []
    assert all(np.array_equal(value, mask) for name, value in info.items() if name.startswith("_"))


def test_seeds_may_be_a_list(subject):
    seeds = [5, 3, 9, 1]
    seen, _ = subject.batch(LANES).reset(seed=seeds)
    for lane, seed in enumerate(seeds):
        assert differences(lane_of(seen, lane), subject.bare().reset(seed=seed)[0]) == []


def test_a_bad_action_in_one_lane_is_refused_and_nothing_happens(subject):
    batch = subject.batch(LANES)
    batch.reset(seed=50)
    before = [batch.snapshot(lane) for lane in range(LANES)]
    actions = subject.actions(1, lanes=LANES)[0]
    for value in (np.nan, 1e6):
        bad = actions.astype(float)
        bad.reshape(LANES, -1)[2, 0] = value
        with pytest.raises(ProbeGymError):
            batch.step(bad)
    with pytest.raises(ProbeGymError):
        batch.step(actions[0])
    assert differences([batch.snapshot(lane) for lane in range(LANES)], before) == []


MISTAKES = {
    "no lanes": {"num_envs": 0}, "negative lanes": {"num_envs": -1}, "half a lane": {"num_envs": 2.5}, "text lanes": {"num_envs": "2"},
    "mode": {"num_envs": 2, "autoreset_mode": "nonsense"}, "budget": {"num_envs": 2, "budget": 10**6},
    "scenario": {"num_envs": 2, "scenario": 3}, "render mode": {"num_envs": 2, "render_mode": "nonsense"},
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_gets_one_line(subject, mistake):
    with pytest.raises(ProbeGymError) as caught:
        vector_class = type(subject.batch(1).unwrapped)
        vector_class(**({"scenario": subject.case.scenario} | MISTAKES[mistake]))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("mask", [np.zeros(LANES, bool), np.ones(LANES, int), np.ones(LANES + 1, bool), "all"], ids=str)
def test_a_wrong_reset_mask_is_refused(subject, mask):
    batch = subject.batch(LANES)
    batch.reset(seed=50)
    with pytest.raises(ProbeGymError, match="reset_mask"):
        batch.reset(options={"reset_mask": mask})


def test_a_wrong_number_of_seeds_is_refused(subject):
    with pytest.raises(ProbeGymError, match="seed"):
        subject.batch(LANES).reset(seed=[1, 2])


def test_close_twice(subject):
    batch = subject.batch(2)
    batch.reset(seed=0)
    batch.close()
    batch.close()


def test_pictures_are_one_a_lane(subject):
    batch = subject.batch(2, render_mode="rgb_array")
    batch.reset(seed=0)
    frames = batch.render()
    assert isinstance(frames, tuple) and len(frames) == 2 and all(f.dtype == np.uint8 and f.shape[2] == 3 for f in frames)
