"""What every registered environment must do, one lane at a time; tests/environments.py holds the cases."""

from __future__ import annotations

import ast
import copy
import json
import os
import pickle
import random
import warnings
from itertools import pairwise

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.registration import EnvSpec
from gymnasium.utils.env_checker import check_env
from scipy import stats

import probegym
from probegym.envs.actions import bounds
from probegym.errors import ProbeGymError
from probegym.hardware_bridge.world import Refused
from tests.environments import CASES, Registered, registered
from tests.helpers import differences, digest, follow, moved, python, resident_bytes, rollout

COSTS = ("time", "dose", "damage", "measurements")


def test_every_environment_has_a_case():
    assert set(CASES) == set(probegym.ENVIRONMENTS)


def test_every_metric_has_its_unit(env):
    task = env.episodes.task
    scalars = {name for name, values in task.metrics(env.episodes.truth, env.episodes.memory).items() if values.ndim == 1}
    assert scalars <= set(task.metric_units) and set(task.metric_units.values()) <= {"1", "m", "N", "Hz", "rad^2", "nm^2", "meV"}


# ---- the conventions of gymnasium and stable-baselines3 ----


@pytest.mark.filterwarnings("error")
def test_gymnasium_accepts_it(subject):
    check_env(subject.bare(), skip_render_check=True)


@pytest.mark.filterwarnings("error")
def test_the_passive_checker_is_silent(subject):
    env = subject.make()
    rollout(env, subject.any_actions(10))


def test_stable_baselines3_accepts_it(subject):
    from stable_baselines3.common.env_checker import check_env as sb3_check_env

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message=".*image.*")  # small images suit the policies that are trained here
        sb3_check_env(subject.bare(), warn=True, skip_render_check=True)


def test_spec_survives_json(subject):
    env = subject.make()
    again = gym.make(EnvSpec.from_json(env.spec.to_json()))
    actions = subject.any_actions(3)
    assert differences(rollout(env, actions), rollout(again, actions)) == []


def test_made_without_importing_probegym_it_needs_no_training_library_and_no_simulator(main):
    code = """if True:
        import sys, gymnasium
        env = gymnasium.make("probegym:" + sys.argv[1], scenario=sys.argv[2])
        env.reset(seed=0)
        env.step(env.action_space.sample())
        print([env.spec.id, *(m for m in ("torch", "abtem", "ase", "stable_baselines3", "matplotlib") if m in sys.modules)])"""
    made, *loaded = ast.literal_eval(python(code, main.id, main.case.scenario))
    assert made == main.id and not loaded


def test_import_is_cheap():
    heavy = ["torch", "matplotlib", "stable_baselines3", "abtem", "ase", "PIL"]
    assert json.loads(python(f"import probegym, sys, json; print(json.dumps([m for m in {heavy} if m in sys.modules]))")) == []


# ---- determinism ----


def test_two_environments_agree_exactly(subject):
    actions = subject.any_actions(30)
    assert differences(rollout(subject.make(), actions), rollout(subject.make(), actions)) == []


THERE = """if True:
    import pickle, sys
    from pathlib import Path
    from tests.helpers import digest, follow, rollout
    subject, chance, snapshot, actions = pickle.loads(Path(sys.argv[1]).read_bytes())
    print(digest(rollout(subject.make(), chance)))
    env = subject.bare()
    env.restore(snapshot)
    print(digest(follow(env, actions)))"""


def test_another_process_plays_the_same_and_goes_on_from_a_snapshot(main, tmp_path):
    chance, actions, env = main.any_actions(10), main.actions(4), main.bare()
    env.reset(seed=3)
    env.step(actions[0])
    (tmp_path / "given").write_bytes(pickle.dumps((main, chance, env.snapshot(), actions[1:])))
    other = "1" if os.environ.get("PYTHONHASHSEED") != "1" else "0"
    assert python(THERE, tmp_path / "given", PYTHONHASHSEED=other).split() == [digest(rollout(main.make(), chance)), digest(follow(env, actions[1:]))]


def test_global_generators_are_neither_used_nor_changed(subject):
    import torch

    def states():
        return random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()

    actions, seen = subject.any_actions(5), []
    for seed in (0, 1):
        random.seed(seed), np.random.seed(seed), torch.manual_seed(seed)
        before = states()
        seen.append(rollout(subject.make(), actions))
        assert states() == before
    assert differences(*seen) == []


# ---- snapshot, restore, counterfactual ----


def test_restore_repeats_exactly(subject, env):
    actions = subject.actions(5)
    env.step(actions[0])
    here = env.snapshot()
    first = follow(env, actions[1:])
    seen = env.restore(here)
    assert differences(here.observation, seen) == []
    assert differences(follow(env, actions[1:]), first) == []


def test_snapshot_is_not_touched_by_later_steps(subject, env):
    env.step(subject.actions(1)[0])
    here = env.snapshot()
    kept = copy.deepcopy(here)
    follow(env, subject.actions(3))
    env.restore(here)
    follow(env, subject.actions(3, seed=1))
    assert differences(here, kept) == []


def test_next_episode_after_restore_is_the_same(subject, env):
    here = env.snapshot()
    first = env.reset()
    env.restore(here)
    assert differences(env.reset(), first) == []


def test_snapshot_goes_into_a_new_environment_by_pickle(subject, env):
    actions = subject.actions(4)
    env.step(actions[0])
    here, other = moved(env.snapshot()), subject.bare()
    other.restore(here)
    assert differences(follow(other, actions[1:]), follow(env, actions[1:])) == []


@pytest.mark.parametrize("copied", [copy.deepcopy, moved], ids=["deepcopy", "pickle"])
def test_a_copy_made_in_mid_episode_goes_on_alike(subject, copied):
    env, actions = subject.make(), subject.actions(4)
    env.reset(seed=3)
    env.step(actions[0])
    twin = copied(env)
    first = follow(env, actions[1:])
    assert differences(follow(twin, actions[1:]), first) == []


def test_counterfactual_is_what_would_have_happened(subject, env):
    actions = subject.actions(4)
    env.step(actions[0])
    before = env.snapshot()
    imagined = env.counterfactual(actions[1:])
    assert differences(env.snapshot(), before) == []
    assert differences(imagined, follow(env, actions[1:])) == []


def test_counterfactual_with_another_key_draws_other_noise(subject, env):
    actions = subject.actions(3)
    real, same, other = (env.counterfactual(actions, key=key) for key in (None, None, 12345))
    assert differences(real, same) == []
    assert differences([s[0] for s in real], [s[0] for s in other]) != []
    assert differences(real, follow(env, actions)) == []


@pytest.mark.parametrize("key", [-1, 2**64, 1.5, True, "1"])
def test_a_key_that_cannot_be_is_refused_and_nothing_changes(subject, env, key):
    before = env.snapshot()
    with pytest.raises(ProbeGymError, match="whole number from 0 to 2\\*\\*64"):
        env.counterfactual(subject.actions(2), key=key)
    assert differences(env.snapshot(), before) == []


def test_another_key_keeps_the_hidden_state(env):
    world = env.episodes.world
    before = copy.deepcopy(world.truth())
    world.rekey(12345, 0)
    assert differences(world.truth(), before) == []


def test_counterfactual_of_a_bad_action_leaves_the_environment_alone(subject, env):
    before = env.snapshot()
    with pytest.raises(ProbeGymError):
        env.counterfactual([subject.actions(1)[0], np.full(env.action_space.shape, np.nan)])
    assert differences(env.snapshot(), before) == []


def test_counterfactual_stops_where_the_episode_ends(subject):
    env = subject.bare(budget=subject.case.short)
    env.reset(seed=0)
    steps = env.counterfactual(subject.actions(50))
    assert len(steps) < 50
    assert [s[2] or s[3] for s in steps] == [False] * (len(steps) - 1) + [True]


# ---- observations ----


def test_observations_are_inside_their_space(subject):
    env = subject.bare()
    for returned in rollout(env, subject.any_actions(60)):
        assert env.observation_space.contains(returned[0])
        for name, array in returned[0].items():
            assert array.dtype == env.observation_space[name].dtype and np.isfinite(array).all()


@pytest.mark.parametrize("bound", ["low", "high"])
def test_extreme_actions_stay_inside(subject, env, bound):
    action = subject.case.steady(bounds(env.action_space)[bound == "high"].copy())
    for returned in env.counterfactual([action] * 8):
        assert env.observation_space.contains(returned[0])


def test_observations_share_no_memory(subject, env):
    seen = [returned[0] for returned in rollout(env, subject.actions(4))]
    for one, other in pairwise(seen):
        assert not any(np.shares_memory(one[name], other[name]) for name in one)


def test_writing_into_an_observation_changes_nothing(subject, env):
    before = env.snapshot()
    seen, _ = env.reset(seed=3)
    for array in seen.values():
        array[...] = 0
    assert differences(env.snapshot(), before) == []


def test_no_element_is_constant_over_an_episode(subject):
    env = subject.bare()
    env.reset(seed=0)
    steps = [returned[0] for returned in env.counterfactual(subject.actions(40))]
    for name in subject.case.varying:
        values = np.stack([s[name] for s in steps])
        assert np.ptp(values.astype(float), axis=0).min() > 0, name


def test_episodes_start_differently(subject):
    env = subject.bare()
    starts = []
    for seed in range(4):
        observation, _ = env.reset(seed=seed)
        starts.append((observation, env.episodes.world.truth()))
    for one, other in pairwise(starts):
        assert differences(one[0], other[0]) and differences(one[1], other[1])
    env.reset(seed=0)
    unseeded = env.reset()
    assert differences(unseeded[0], starts[0][0])


# ---- bad actions ----


def bad_actions(space) -> dict:
    low, high = bounds(space)
    fraction = np.zeros(space.shape) + 0.5
    nan, infinite = np.full(space.shape, np.nan), np.full(space.shape, np.inf)
    beyond = high + np.asarray(1, high.dtype)
    return {
        "nan": nan, "inf": infinite, "beyond": beyond, "too long": np.append(low, low), "too short": low.reshape(-1)[:-1],
        "number": 0.0 if space.shape else 0.5, "batch": low[None], "text": np.full(low.shape, "a"), "complex": fraction + 0j,
        "none": None, "ragged": [[0.0], 0.0], "objects": np.full(low.shape, None), "dict": {"a": 1},
    }  # fmt: skip


@pytest.mark.parametrize("kind", bad_actions(gym.spaces.Box(-1, 1, (3,))))
def test_a_bad_action_is_refused_and_nothing_happens(env, kind):
    before = env.snapshot()
    with pytest.raises(ProbeGymError) as caught:
        env.step(bad_actions(env.action_space)[kind])
    assert "\n" not in str(caught.value) and "action" in str(caught.value)
    assert differences(env.snapshot(), before) == []


def test_a_refused_command_leaves_the_task_as_it_was(subject, env, monkeypatch):
    env.step(subject.actions(1)[0])
    world, sent = env.episodes.world, []
    execute = world.execute
    memory = copy.deepcopy(env.episodes.memory)

    def interlock(command, where):
        sent.append(command.verb)
        raise Refused("the door of the column is open")

    for action in subject.actions(3, seed=1):
        monkeypatch.setattr(world, "execute", interlock)
        with pytest.raises(Refused):
            env.step(action)
        assert sent and differences(env.episodes.memory, memory) == []
    monkeypatch.setattr(world, "execute", execute)
    env.step(subject.actions(1)[0])


def test_a_snapshot_of_another_environment_changes_nothing(subject, env):
    strangers = [other for other in registered() if other.id != subject.id]
    before = env.snapshot()
    for other in strangers[::3]:
        theirs = other.bare()
        theirs.reset(seed=0)
        with pytest.raises(ProbeGymError, match="snapshot"):
            env.restore(theirs.snapshot())
        assert differences(env.snapshot(), before) == []


def test_a_step_before_reset_says_so(subject):
    env = subject.bare()
    with pytest.raises(gym.error.ResetNeeded):
        env.step(subject.actions(1)[0])


# ---- rewards and costs ----


def reward_modes(subject: Registered, **options):
    for mode in subject.case.rewards:
        yield subject.bare(reward=mode, **options)


def test_reward_is_the_sum_of_its_terms(subject):
    for env in reward_modes(subject):
        for returned in rollout(env, subject.any_actions(30)):
            if len(returned) == 5:
                info = returned[4]
                terms = [value for name, value in info.items() if name.startswith("reward_")]
                assert terms and sum(terms) == pytest.approx(returned[1], abs=1e-12)
                assert isinstance(returned[1], float) and np.isfinite(returned[1])


@pytest.mark.parametrize("mode", ["privileged", "observable"])
def test_a_reward_that_would_pay_nothing_is_refused(subject, mode):
    try:
        env = subject.bare(reward=mode)
    except ProbeGymError:
        assert mode not in subject.case.rewards
        return
    env.reset(seed=0)
    assert any(name.startswith("reward_") for name in env.step(subject.actions(1)[0])[4])


def test_costs_never_fall_and_keep_to_the_budget(subject):
    for options in ({}, {"budget": subject.case.short}):
        env = subject.bare(**options)
        limits = env.episodes.limits
        for seed in range(2):
            costs = [env.reset(seed=seed)[1]]
            costs += [s[4] for s in env.counterfactual(subject.actions(200, seed))]
            assert costs[-1]["measurements"] > 0 and costs[-1]["time"] > 0
            for one, other in pairwise(costs):
                assert all(0 <= one[name] <= other[name] for name in COSTS)
            assert all(costs[-1][name] <= limit * (1 + 1e-9) for name, limit in limits.items())


@pytest.mark.parametrize("budget", [1, 2, 3])
def test_a_tiny_budget_is_refused_or_kept(subject, budget):
    try:
        env = subject.bare(budget=budget)
        env.reset(seed=0)
    except ProbeGymError:
        return
    steps = env.counterfactual(subject.actions(10))
    assert steps[-1][3] and steps[-1][4]["measurements"] <= budget


def test_the_budget_is_spent_to_the_last_step_that_fits(subject):
    env = subject.bare(budget=subject.case.short)
    first = env.reset(seed=0)[1]["measurements"]
    steps = env.counterfactual(subject.actions(50))
    each = steps[0][4]["measurements"] - first
    assert len(steps) == (subject.case.short - first) // each


def returns(subject: Registered, act, lanes: int) -> np.ndarray:
    """Return of one episode in every lane."""
    env = subject.batch(lanes, autoreset_mode="Disabled")
    env.reset(seed=100)
    total, running = np.zeros(lanes), np.ones(lanes, bool)
    for step in range(subject.case.long):
        if not running.any():
            break
        _, reward, terminated, truncated, _ = env.step(act(env.episodes, step))
        total += np.where(running, reward, 0)
        running &= ~(terminated | truncated)
    return total


def test_the_oracle_beats_chance_and_doing_nothing(subject):
    lanes = 12
    chance = subject.any_actions(subject.case.long, lanes=lanes)
    oracle = returns(subject, lambda episodes, _: episodes.task.oracle(episodes.world.truth(), episodes.memory), lanes)
    for other in (returns(subject, lambda _, step: chance[step], lanes), returns(subject, lambda _, step: 0 * chance[step], lanes)):
        assert stats.mannwhitneyu(oracle, other, alternative="greater").pvalue < 0.01


# ---- life cycle ----


def test_reset_twice_and_close_twice(subject):
    env = subject.make()
    first = env.reset(seed=1)
    assert differences(env.reset(seed=1), first) == []
    env.close()
    env.close()


def test_reset_does_not_remember(subject):
    env = subject.bare()
    first = env.reset(seed=1)
    follow(env, subject.actions(2))
    assert differences(env.reset(seed=1), first) == []


def test_resets_do_not_grow_memory(main):
    env, action = main.bare(), main.actions(1)[0]
    sizes = []
    for _ in range(4):
        for seed in range(10):
            env.reset(seed=seed)
            env.step(action)
        sizes.append(resident_bytes())
    assert sizes[-1] - sizes[0] < 2e6


MISTAKES = {
    "unknown scenario": ({"scenario": "nonsense"}, "nonsense"),
    "scenario number": ({"scenario": 3}, "scenario must be a name"),
    "scenario none": ({"scenario": None}, "scenario must be a name"),
    "scenario file": ({"scenario": "/nowhere/mine.yaml:train"}, "mine.yaml"),
    "budget text": ({"budget": "x"}, "budget must be"),
    "budget huge": ({"budget": 10**6}, "budget must be"),
    "budget negative": ({"budget": -1}, "budget must be"),
    "budget fraction": ({"budget": 2.5}, "budget must be"),
    "budget boolean": ({"budget": True}, "budget must be"),
    "reward": ({"reward": "nonsense"}, "privileged"),
    "reward list": ({"reward": ["privileged"]}, "privileged"),
    "render mode": ({"render_mode": "nonsense"}, "rgb_array"),
    "recording": ({"world": "/nowhere/recording.npz"}, "recording"),
    "world number": ({"world": 3}, "world"),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_gets_one_line_that_names_the_mend(subject, mistake):
    options, mend = MISTAKES[mistake]
    with pytest.raises(ProbeGymError) as caught:
        subject.make(**options)
    message = str(caught.value)
    assert mend in message and "\n" not in message and len(message) < 500


def test_unknown_scenario_lists_the_known(subject):
    with pytest.raises(ProbeGymError, match=subject.case.scenario):
        subject.make(scenario="nonsense")


# ---- pictures ----


@pytest.fixture
def drawn(subject):
    env = subject.bare(render_mode="rgb_array")
    env.reset(seed=3)
    return env


def test_picture_is_rgb(subject, drawn):
    follow(drawn, subject.actions(2))
    frame = drawn.render()
    assert frame.dtype == np.uint8 and frame.ndim == 3 and frame.shape[2] == 3
    assert min(frame.shape[:2]) >= 200 and frame.std() > 1


def test_drawing_changes_nothing(subject, drawn):
    before = drawn.snapshot()
    first = drawn.render()
    assert differences(drawn.snapshot(), before) == []
    assert np.array_equal(first, drawn.render())
    undrawn, actions = subject.bare(), subject.actions(3)
    undrawn.reset(seed=3)
    assert differences(follow(drawn, actions), follow(undrawn, actions)) == []


def test_picture_changes_with_a_step(subject, drawn):
    first = drawn.render()
    drawn.step(subject.actions(1)[0])
    assert not np.array_equal(first, drawn.render())


@pytest.mark.filterwarnings("error")
def test_gymnasium_accepts_the_picture(subject):
    check_env(subject.bare(render_mode="rgb_array"))


def test_no_picture_unless_asked(env):
    assert env.render() is None
