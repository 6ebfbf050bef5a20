"""LevelSelection: prices and time, an honest belief, what each kind of action does, rules, policy, training, bad input."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
import yaml

import probegym  # noqa: F401  registers the environments
from probegym import scenarios
from probegym.agents import baselines_levels, bundle, train_levels
from probegym.agents.baselines_levels import GreedyVariance, KnowledgeGradient, SurveyFirst
from probegym.agents.evaluate import evaluate
from probegym.envs.level_knowledge import FLAKES
from probegym.errors import ProbeGymError
from probegym.surrogates import belief
from tests.environments import Instrument
from tests.helpers import stopped_and_resumed

ENV = "probegym/LevelSelection-v0"
OPTICAL, EDS, STM = range(3)


def made(scenario: str = "train", **options):
    env = gym.make(ENV, scenario=scenario, **options).unwrapped
    env.reset(seed=5)
    return env


def played(lanes: int, scenario: str = "train", steps: int = 12, seed: int = 0):
    """A batch after random maps that fit."""
    envs = gym.make_vec(ENV, num_envs=lanes, scenario=scenario, autoreset_mode="Disabled")
    envs.reset(seed=seed)
    rng = np.random.default_rng(seed)
    for _ in range(steps):
        envs.step(rng.choice([EDS, STM], lanes, p=[0.6, 0.4]))
    return envs.episodes


def memory(env) -> dict:
    return {name: array[0] for name, array in env.episodes.memory.items()}


# ---- time and prices ----


def test_prices_that_are_shown_are_paid():
    env = made()
    seen, info = env.reset(seed=5)
    table, at, before = memory(env)["seconds"], 0, info["time"]
    for action in (EDS, EDS, STM, STM, OPTICAL):
        told = seen["price"][action] * 28800
        seen, _, _, _, info = env.step(action)
        assert info["time"] - before == pytest.approx(table[at, action], abs=1e-6) and told == pytest.approx(table[at, action], rel=1e-5)
        at, before = action, info["time"]
        assert seen["instrument"].argmax() == action
        np.testing.assert_allclose(seen["repeat"] * 28800, np.diagonal(table), rtol=1e-5)


def test_a_map_that_does_not_fit_ends_the_episode_and_is_not_made():
    env = made()
    done = False
    while not done:
        before = env.snapshot()
        _, reward, terminated, done, info = env.step(STM)
    assert not terminated and info["time"] <= 28800 and info["stm_maps"] == memory(env)["steps"][STM]
    assert sum(info[f"{name}_maps"] for name in ("optical", "eds", "stm")) == info["measurements"]
    left = 28800 - float(before.ledger.arrays["time"])
    if info["time"] == before.ledger.arrays["time"]:
        assert reward == 0 and memory(env)["seconds"][int(before.memory.arrays["instrument"]), STM] > left
    else:
        assert memory(env)["seconds"][STM].min() > 28800 - info["time"]


def test_success_is_a_goal_of_uncertainty_and_counts_at_the_end():
    found = []
    for seed in range(8):
        env = made("known")
        env.reset(seed=seed)
        done = False
        while not done:
            wanted = EDS if memory(env)["steps"][EDS] < 12 else STM
            fits = env.action_masks()
            seen, _, terminated, done, info = env.step(wanted if fits[wanted] else int(fits.argmax()))
            assert not terminated
        found.append((bool(info["is_success"]), float(seen["uncertainty"][0]) <= 0.3))
    assert all(one == other for one, other in found) and {one for one, _ in found} == {True, False}


# ---- the belief ----


def test_the_belief_is_calibrated():
    z, covered = [], []
    for seed in (0, 1000):
        episodes = played(48, steps=12, seed=seed)
        m, truth = episodes.memory, episodes.truth
        there = m["size"] > 0
        for level in range(3):
            part = slice(level * FLAKES, (level + 1) * FLAKES)
            spread = np.sqrt(np.diagonal(m["covariance"], axis1=1, axis2=2)[:, part])
            z.append(((truth["quantities"][:, level] - m["mean"][:, part]) / spread)[there])
        told, spread = episodes.task.knowledge.ties(m)
        covered.append(np.abs(told - truth["correlations"]) < 2 * spread + 0.1)
    for level in range(3):
        every = np.concatenate(z[level::3])
        assert abs(every.mean()) < 0.1 and 0.85 < every.std() < 1.15
        assert (np.abs(every) < 1.96).mean() == pytest.approx(0.95, abs=0.025)
    assert np.concatenate(covered).mean() > 0.85


def test_what_was_believed_left_is_what_is_left():
    episodes = played(96, steps=14, seed=300)
    m = episodes.memory
    error = ((m["mean"] - episodes.truth["quantities"].reshape(96, -1)) ** 2 * m["target"]).sum(1)
    assert error.mean() == pytest.approx(m["uncertainty"].mean(), rel=0.12)


def test_known_correlations_are_one_hypothesis():
    env = made("known")
    seen, _, _, _, _ = env.step(EDS)
    np.testing.assert_allclose(seen["correlations"][:2], env.episodes.truth["correlations"][0], atol=1e-6)
    assert (seen["correlations"][2:] == 0).all() and memory(env)["means"].shape[0] == 1
    np.testing.assert_allclose(seen["reduction"], seen["promise"], atol=1e-6)


def test_without_the_sign_composition_promises_and_says_nothing_until_structure_is_seen():
    env = made()
    seen = env.step(EDS)[0]
    assert seen["reduction"][EDS].max() < 1e-6 and seen["promise"][EDS].max() > 0.01
    for _ in range(4):
        seen = env.step(STM)[0]
    assert seen["reduction"][EDS].max() > 1e-4


def test_maps_teach_what_they_show():
    env = made("known")
    truth, m = env.episodes.truth, memory(env)
    before = m["mean"].copy(), np.diagonal(m["covariance"]).copy()
    env.step(STM)
    m = memory(env)
    f = int(m["place"])
    index = STM * FLAKES + f
    assert np.diagonal(m["covariance"])[index] < 0.2 < before[1][index]
    assert abs(m["mean"][index] - truth["quantities"][0, STM, f]) < 1.5
    shown = m["maps"][STM][np.isfinite(m["maps"][STM])]
    assert len(shown) == 1


def test_the_level_alone_is_measured_where_it_promises_most():
    env = made()
    for level in (EDS, EDS, STM, STM):
        best = int(memory(env)["promise"][level].argmax())
        env.step(level)
        assert int(memory(env)["place"]) == best


def test_the_observable_reward_is_the_fall_of_the_uncertainty_in_this_step():
    env = made(reward="observable")
    left = env.reset(seed=5)[0]["uncertainty"][0]
    falls = []
    for action in (STM, STM, EDS, STM, STM):
        seen, reward, _, _, info = env.step(action)
        falls.append(left - seen["uncertainty"][0])
        assert info["reward_uncertainty"] == pytest.approx(falls[-1], abs=1e-6)
        assert reward == pytest.approx(info["reward_uncertainty"] + info["reward_time"], abs=1e-9)
        left = seen["uncertainty"][0]
    assert len(set(np.round(falls, 5))) == 5


# ---- the other kinds of action ----


def test_level_and_place_measures_that_flake_there():
    env = made("place")
    env.step(STM * FLAKES + 3)
    m = memory(env)
    assert int(m["instrument"]) == STM and int(m["place"]) == 3
    y, x = np.argwhere(np.isfinite(m["maps"][STM]))[0]
    assert m["labels"][y, x] == 4
    env.step(EDS * FLAKES + 5)
    window = np.isfinite(memory(env)["maps"][EDS])
    assert window.sum() == 12 * 12 and (m["labels"][window] == 6).any()


def test_masks_leave_out_flakes_that_are_not_there():
    env = made("place")
    there = memory(env)["size"] > 0
    mask = env.action_masks().reshape(3, FLAKES)
    assert mask[0].tolist() == [True] + [False] * (FLAKES - 1)
    assert np.array_equal(mask[1], there) and np.array_equal(mask[2], there) and not there.all()
    env.step(STM * FLAKES)
    while env.episodes.task.seconds_available - memory(env)["seconds_spent"] > memory(env)["seconds"][STM, STM]:
        env.step(STM * FLAKES)
    assert not env.action_masks().reshape(3, FLAKES)[STM].any() and env.action_masks().any()
    env.reset(seed=5)
    absent = int(np.flatnonzero(~there)[0])
    env.step(STM * FLAKES + absent)
    assert int(memory(env)["place"]) == 0


def test_level_and_map_goes_to_the_highest_uncertainty_of_that_map():
    env = made("map")
    for action in ((EDS, EDS), (EDS, EDS), (STM, OPTICAL), (STM, STM), (EDS, 3)):
        m = memory(env)
        spread = np.diagonal(m["covariance"]).reshape(3, FLAKES)
        shown = spread[action[1]] if action[1] < 3 else spread[STM]  # the target is the electronic structure
        expected = int(np.where(m["size"] > 0, shown, -1).argmax())
        env.step(np.array(action))
        assert int(memory(env)["place"]) == expected
    with pytest.raises(ProbeGymError, match="discrete"):
        env.action_masks()


def test_the_combined_map_adds_the_levels_as_the_target_weighs_them(scenario):
    env = gym.make(ENV, scenario=scenario({"choose": "level-and-map", "target": [1, 2, 3]})).unwrapped
    own = 0
    for seed in range(12):
        env.reset(seed=seed)
        env.step(np.array((EDS, EDS)))
        env.step(np.array((STM, STM)))
        m = memory(env)
        spread = np.where(m["size"] > 0, np.diagonal(m["covariance"]).reshape(3, FLAKES), 0)
        expected = int((np.array([1, 2, 3]) @ spread).argmax())
        own += expected not in spread.argmax(1)
        env.step(np.array((STM, 3)))
        assert int(memory(env)["place"]) == expected
    assert own  # somewhere it is the highest of no single map


# ---- maps and the belief lie on the same pixels ----


def instrument(name: str, **changes) -> dict:
    return {"name": name, "noise": 0.002, "offset": 3.0, "dwell": 1, "overhead": 60, "move": 3, "load": 12, "unload": 3} | changes


def test_a_tile_lies_where_the_belief_thinks_it_does(scenario):
    levels = [instrument("optical", side=40e-6), instrument("eds", side=10e-6), instrument("stm")]
    envs = gym.make_vec(ENV, num_envs=16, scenario=scenario({"choose": "level-and-place"}, {"levels": levels}), autoreset_mode="Disabled")
    for level in (EDS, STM):
        envs.reset(seed=100)
        for place in range(FLAKES):
            envs.step(np.full(16, level * FLAKES + place))
        m, true = envs.episodes.memory, envs.episodes.truth["quantities"]
        for lane in range(16):
            painted = np.concatenate([[0], 3.0 + true[lane, level]])[m["labels"][lane]]
            seen = np.isfinite(m["maps"][lane, level])
            assert np.abs(m["maps"][lane, level] - painted)[seen].max() < 0.02
            hit = np.unique(m["labels"][lane][seen])[1:] - 1
            if level == EDS:
                assert np.abs(m["mean"][lane].reshape(3, FLAKES)[EDS] - true[lane, EDS])[hit].max() < 0.02 and len(hit) == (m["size"][lane] > 0).sum()


def test_a_second_map_of_the_whole_view_tells_of_every_flake(scenario):
    levels = [instrument("a", side=40e-6, psf=1e-6), instrument("b", side=60e-6, psf=2e-6)]
    env = gym.make(ENV, scenario=scenario({"levels": ["a", "b"], "hypotheses": [[0.5]], "target": [0, 1]}, {"levels": levels, "correlations": [0.5]}))
    env = env.unwrapped
    env.reset(seed=3)
    task = env.episodes.task
    assert task.oracle(env.episodes.truth, env.episodes.memory)[0] in (0, 1)
    expected = float(memory(env)["reduction"][1].max())
    before = memory(env)["uncertainty"]
    env.step(1)
    m, there = memory(env), memory(env)["size"] > 0
    assert there.sum() > task.settings.tile_flakes and np.diagonal(m["covariance"])[FLAKES:][there].max() < 0.05
    assert np.abs(m["mean"].reshape(2, FLAKES)[1] - env.episodes.truth["quantities"][0, 1])[there].max() < 0.2
    assert before - m["uncertainty"] == pytest.approx(expected, rel=1e-6)



def test_a_world_without_truth_is_played_and_drawn():
    twin = made().episodes.world
    env = gym.make(ENV, scenario="train", reward="observable", world=Instrument(twin), render_mode="rgb_array").unwrapped
    env.reset(seed=5)
    _, reward, _, _, info = env.step(STM)
    picture, known = env.render(), made(render_mode="rgb_array")
    known.step(STM)
    assert np.isfinite(reward) and "rmse" not in info and picture.shape == known.render().shape and not np.array_equal(picture, known.render())


# ---- rules and policy ----

RULES = {
    "round-robin": baselines_levels.RoundRobin, "greedy-variance": GreedyVariance, "tuned-greedy-variance": baselines_levels.tuned_greedy_variance,
    "knowledge-gradient": KnowledgeGradient, "planned-gradient": baselines_levels.PlannedGradient,
    "multi-fidelity-ucb": baselines_levels.MultiFidelityUcb, "survey-first": SurveyFirst,
}  # fmt: skip


@pytest.mark.parametrize("scenario", ["train", "place", "map", "tiny"])
@pytest.mark.parametrize("rule", RULES)
def test_every_rule_plays_every_variant_to_the_end(rule, scenario):
    results = evaluate(RULES[rule](), ENV, scenario, 2, seed=50)
    hours = scenarios.load("level_selection", scenario).budget.time
    assert (results.metrics["uncertainty"] < 1.05).all() and (results.costs["time"] > 0.5 * hours).all()


def test_rules_belong_to_this_environment():
    with pytest.raises(ProbeGymError, match="LevelSelection"):
        evaluate(SurveyFirst(), "probegym/TipConditioning-v0", "train", 1, seed=50)


def test_a_survey_is_a_survey_and_tuning_pays():
    survey = evaluate(SurveyFirst(1, 7), ENV, "train", 3, seed=50)
    assert (survey.metrics["eds_maps"] == 7).all() and (survey.metrics["optical_maps"] >= 1).all()
    plain, tuned = (evaluate(rule, ENV, "train", 10, seed=50).metrics["uncertainty"].mean() for rule in (GreedyVariance(), baselines_levels.tuned_greedy_variance()))
    assert tuned < 0.9 * plain


def test_the_policy_leaves_less_than_greedy_variance():
    policy = bundle.BundlePolicy("level-selection")
    for scenario, ratio in (("train", 0.9), ("known", 1.02)):
        ours, theirs = (evaluate(agent, ENV, scenario, 12, seed=20_000).metrics["uncertainty"].mean() for agent in (policy, GreedyVariance()))
        assert ours < ratio * theirs, scenario


# ---- training ----


@pytest.fixture
def small(monkeypatch):
    for name, value in {"TAUGHT": 3, "TAUGHT_EPOCHS": 3, "EPOCHS": 1}.items():
        monkeypatch.setattr(train_levels, name, value)
    for name in ("worlds", "tries"):
        monkeypatch.setattr(train_levels.Trainer, name, 2)
    return train_levels.LevelTraining(updates=4)


def test_a_training_goes_on_where_it_stopped_and_gives_a_policy(small, tmp_path):
    trainer = stopped_and_resumed(train_levels.Trainer, small, tmp_path)
    folder = trainer.finish(tmp_path / "policy", "a test", 2)
    assert (evaluate(bundle.BundlePolicy(folder), ENV, "id", 2, seed=50).metrics["uncertainty"] < 1).all()


def test_a_training_refuses_what_it_cannot_do(tmp_path):
    with pytest.raises(ProbeGymError, match="level-and-place"):
        train_levels.chooser(ENV, "place", 1, 1, tmp_path)
    with pytest.raises(ProbeGymError, match="smaller seed"):
        train_levels.chooser(ENV, "train", 10**6, 8, tmp_path)


def test_a_policy_is_refused_where_it_would_choose_something_else():
    with pytest.raises(ProbeGymError, match="moves other controls"):
        evaluate(bundle.BundlePolicy("level-selection"), ENV, "place", 1, seed=50)


# ---- scenarios, good and bad ----


@pytest.mark.parametrize("name", scenarios.names("level_selection"))
def test_every_scenario_can_be_played(name):
    env = gym.make(ENV, scenario=name)
    env.reset(seed=1)
    env.action_space.seed(1)
    for _ in range(3):
        seen, reward, *_ = env.step(env.action_space.sample())
        assert np.isfinite(reward) and all(np.isfinite(v).all() for v in seen.values())


def test_noise_follows_from_the_counts():
    eds = {name: scenarios.load("level_selection", name).world["levels"][EDS] for name in ("id", "near-noise", "far-noise")}
    assert {name: round(level["dose"] * level["noise"] ** 2) for name, level in eds.items()} == dict.fromkeys(eds, 225)
    assert eds["id"]["dose"] > eds["near-noise"]["dose"] > eds["far-noise"]["dose"]


def test_scenarios_cover_near_and_far_of_three_axes_or_more():
    every = [scenarios.load("level_selection", name) for name in scenarios.names("level_selection")]
    axes = {split: {s.axis for s in every if s.split == split} for split in ("near", "far")}
    assert axes["near"] == axes["far"] and len(axes["near"]) >= 3 and {"train", "id"} <= {s.split for s in every}


@pytest.fixture
def scenario(tmp_path):
    def of(task: dict | None = None, world: dict | None = None, base: str = "id") -> str:
        table = {"mine": {"extends": base, "description": "x"} | ({"task": task} if task else {}) | ({"world": world} if world else {})}
        (tmp_path / "mine.yaml").write_text(yaml.safe_dump(table))
        return f"{tmp_path / 'mine.yaml'}:mine"

    return of


MISTAKES = {
    "target": ({"target": [0, 1]}, {}, "target needs 3"), "no target": ({"target": [0, 0, 0]}, {}, "not all zero"),
    "pairs": ({"hypotheses": [[0.5]]}, {}, "hypotheses needs 2"), "order": ({"hypotheses": [[0.5, 0.1], [0.5]]}, {}, "ascending"),
    "beyond": ({"hypotheses": [[1.5], [0.5]]}, {}, "hypotheses"), "nothing told": ({"hypotheses": None}, {}, "does not tell the correlations"),
    "rows": ({"rows": 32}, {}, "give both alike"), "levels": ({"levels": ["optical", "stm"], "target": [0, 1], "hypotheses": [[0.5]]}, {}, "give both alike"),
    "name": ({"levels": ["optical", "eds", "afm"]}, {}, "optical, eds, stm, the task optical, eds, afm"), "choose": ({"choose": "x"}, {}, "task.choose"),
    "goal": ({"goal": 0}, {}, "task.goal"), "unknown": ({"colour": 1}, {}, "colour"), "world": ({}, {"view": -1}, "world.view"),
    "count": ({}, {"count": 25}, "world.count"), "nan": ({"price": float("nan")}, {}, "task.price"),
    "order of levels": ({"levels": ["optical", "stm", "eds"]}, {}, "optical, eds, stm, the task optical, stm, eds"),
}  # fmt: skip


@pytest.mark.parametrize("kind", MISTAKES)
def test_a_wrong_scenario_is_named(kind, scenario):
    task, world, words = MISTAKES[kind]
    with pytest.raises(ProbeGymError, match=words) as caught:
        env = gym.make(ENV, scenario=scenario(task, world)).unwrapped
        env.reset(seed=0)
        env.step(2)
    assert "\n" not in str(caught.value)


SINGULAR = {
    "all flakes alike": ({}, {"share": 1.0, "length": 1e-3}),
    "levels the same": ({"hypotheses": None}, {"told": True, "correlations": [1.0, -1.0]}),
    "no ties at all": ({"hypotheses": None}, {"told": True, "correlations": [0.0, 0.0]}),
    "one flake": ({}, {"count": 1}),
    "a crowd": ({}, {"count": 24, "radius": 8e-6}),
}


@pytest.mark.parametrize("kind", SINGULAR)
def test_singular_worlds_are_played_to_the_end(kind, scenario):
    env = gym.make(ENV, scenario=scenario(*SINGULAR[kind])).unwrapped
    env.reset(seed=0)
    done, rng = False, np.random.default_rng(0)
    while not done:
        seen, reward, _, done, _ = env.step(int(rng.integers(3)))
        assert np.isfinite(reward) and all(np.isfinite(v).all() and env.observation_space[k].contains(v) for k, v in seen.items())
        assert np.linalg.eigvalsh(memory(env)["covariance"]).min() > -1e-6


def test_a_map_with_a_number_that_is_none_is_refused(monkeypatch):
    env = made()
    measure = env.episodes.world._measure

    def broken(command, where):
        answer = measure(command, where)
        answer.values["signal"][...] = np.nan
        return answer

    monkeypatch.setitem(env.episodes.world._handlers, type(next(iter([c for c, _ in env.episodes.task.opening(env.episodes.memory)][1:]))), broken)
    with pytest.raises(ProbeGymError, match="not finite"):
        env.step(EDS)


def test_more_levels_than_three(scenario):
    levels = [dict(level) for level in scenarios.load("level_selection", "id").world["levels"]]
    raman = {"name": "raman", "side": 8e-6, "psf": 1e-6, "noise": 1.0, "points": 100, "dwell": 1.0, "overhead": 60, "move": 20, "load": 200, "unload": 60}
    levels.insert(1, raman)
    name = scenario(
        {"levels": ["optical", "raman", "eds", "stm"], "target": [0, 0, 0, 1], "hypotheses": [[0.5], [-0.5, 0.5], [-0.8, 0.8]]},
        {"levels": levels, "correlations": [0.5, 0.5, 0.8]},
    )
    env = gym.make(ENV, scenario=name).unwrapped
    env.reset(seed=0)
    for action in (1, 2, 3, 3, 0):
        seen = env.step(action)[0]
        assert env.observation_space.contains(seen)
    assert seen["mean"].shape == (4, FLAKES) and env.action_space.n == 4 and belief.hypotheses([[0.5], [-0.5, 0.5], [-0.8, 0.8]]).shape == (4, 3)
