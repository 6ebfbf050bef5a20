"""IsingInference: times and prices, a calibrated belief, what an image is worth, the twin, rules, policy, training, bad input."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
import yaml

import probegym  # noqa: F401  registers the environments
from probegym import scenarios
from probegym.agents import baselines_ising, bundle, train_ising
from probegym.agents.base import OracleAgent
from probegym.agents.evaluate import evaluate
from probegym.envs import ising_belief, ising_rewards
from probegym.errors import ProbeGymError
from probegym.hardware_bridge.commands import ClassifyAtoms, SetConditions
from probegym.hardware_bridge.twins.ising import BOLTZMANN, IsingTwin
from probegym.hardware_bridge.world import Refused
from tests.environments import Instrument
from tests.helpers import stopped_and_resumed

ENV = "probegym/IsingInference-v0"
WHOLE, SAME = 0, 0  # region, and no hold


def made(scenario: str = "train", seed: int = 5, **options):
    env = gym.make(ENV, scenario=scenario, **options).unwrapped
    env.reset(seed=seed)
    return env


def memory(env) -> dict:
    return {name: array[0] for name, array in env.episodes.memory.items()}


@pytest.fixture
def scenario(tmp_path):
    def of(task: dict | None = None, world: dict | None = None, base: str = "id") -> str:
        table = {"mine": {"extends": base, "description": "x"} | ({"task": task} if task else {}) | ({"world": world} if world else {})}
        (tmp_path / "mine.yaml").write_text(yaml.safe_dump(table))
        return f"{tmp_path / 'mine.yaml'}:mine"

    return of


# ---- time and prices ----


def test_prices_that_are_shown_are_paid():
    env = made()
    seen, info = env.reset(seed=5)
    for action in ([5, 2, 2, 1, 0], [0, 1, 3, 2, 3], [7, 0, 1, 0, 0], [0, 0, SAME, 1, 2]):
        t, _, hold, dwell, region = action
        told = seen["image_price"][dwell, min(region, 1)] + (seen["anneal_price"][t, hold - 1] if hold else 0)
        before = info["time"]
        seen, _, _, _, info = env.step(np.array(action))
        assert info["time"] - before == pytest.approx(told * 5400, rel=1e-4)
        assert seen["budget"][0] == pytest.approx(1 - info["time"] / 5400, abs=1e-6)


def test_a_cycle_that_does_not_fit_ends_the_episode_and_is_not_made():
    env, done = made(), False
    while not done:
        before = env.snapshot()
        _, reward, terminated, done, info = env.step(np.array([4, 2, 3, 2, 0]))
    assert not terminated and info["time"] <= 5400
    left = 5400 - float(before.ledger.arrays["time"])
    task = env.episodes.task
    assert left < float(task.prices(np.array([[4, 2, 3, 2, 0]]))[0]) and reward == 0


def test_success_is_a_coupling_that_is_known_and_right():
    """Not one that is right by chance, nor one that is wrongly held to be known."""
    envs, found = gym.make_vec(ENV, num_envs=32, scenario="known", autoreset_mode="Disabled"), set()
    envs.reset(seed=0)
    for _ in range(9):
        _, _, terminated, _, info = envs.step(np.tile([5, 2, 2, 2, 0], (32, 1)))
        m = envs.episodes.memory
        sure, right = np.sqrt(m["covariance"][:, 0, 0]) <= 0.02 * np.abs(m["mean"][:, 0]), info["error"] <= 0.02
        assert np.array_equal(info["is_success"], sure & right) and not terminated.any()
        found |= set(zip(sure.tolist(), right.tolist(), strict=True))
    assert len(found) == 4  # sure and right, one of them, neither


# ---- the belief ----


def test_what_did_not_move_teaches_nothing_and_is_noted(scenario):
    env = gym.make(ENV, scenario=scenario(world={"rate": 1e-6})).unwrapped
    env.reset(seed=5)
    env.step(np.array([4, 2, SAME, 2, 0]))
    before = memory(env)["information"].copy()
    seen, _, _, _, info = env.step(np.array([0, 2, 1, 2, 0]))
    assert seen["overlap"][0] > 0.9 and seen["moved"][0, 0] == 0
    np.testing.assert_allclose(memory(env)["information"], before, rtol=1e-6)
    assert info["reward_information"] == pytest.approx(0, abs=1e-6)


def test_what_moved_teaches_and_is_noted():
    env = made()
    before = memory(env)["information"][0, 0]
    seen = env.step(np.array([6, 2, 3, 2, 0]))[0]
    assert abs(seen["overlap"][0]) < 0.15 and seen["moved"][6, 2] > 0.5 and memory(env)["information"][0, 0] > 1.2 * before
    assert (seen["moved"] < 0).sum() == seen["moved"].size - 1


def test_a_quarter_not_seen_before_the_anneal_counts_only_where_atoms_are_known_to_move(scenario):
    env = gym.make(ENV, scenario=scenario(world={"rate": 1e-6})).unwrapped
    env.reset(seed=5)
    env.step(np.array([4, 2, 1, 2, 1]))  # moved? the whole was seen before, so this is known: no
    before = memory(env)["information"].copy()
    env.step(np.array([3, 2, 1, 2, 2]))
    np.testing.assert_allclose(memory(env)["information"], before, rtol=1e-6)


def test_images_of_one_state_count_once_with_fewer_wrong_labels():
    env = made("known")
    env.step(np.array([5, 2, 3, 0, 0]))
    spread, wrong, spins = [], [], env.episodes.world.state["spins"][0]
    for _ in range(30):
        env.step(np.array([0, 0, SAME, 0, 0]))
        spread.append(np.sqrt(memory(env)["covariance"][0, 0]))
        wrong.append((memory(env)["decided"] != spins).mean())
    env.step(np.array([0, 0, SAME, 2, 0]))
    best, m = np.sqrt(memory(env)["covariance"][0, 0]), memory(env)
    assert m["records"] == 2 and m["looks"].tolist() == [1] * 4  # the opening's state and this one; the long look took the place of the short ones
    assert wrong[0] > 0.2 > 0.01 > wrong[-1] and spread[-1] < 0.8 * spread[0]
    assert spread[-1] > 0.9 * best and abs(spread[-1] / spread[-10] - 1) < 0.03  # no more than a lattice without wrong labels tells, however often


def test_shorter_looks_do_not_spoil_longer_ones():
    env = made("known")
    env.step(np.array([5, 2, 3, 2, 0]))
    before = memory(env)
    seen = env.step(np.array([0, 0, SAME, 0, 0]))[0]
    after = memory(env)
    assert np.array_equal(before["decided"], after["decided"]) and after["covariance"][0, 0] == pytest.approx(before["covariance"][0, 0], rel=1e-3)
    assert (seen["again"] < 1e-9).all() and (seen["labels"][0] != np.where(after["decided"] > 0, 255, 0)).mean() > 0.15


def test_longer_looks_at_the_same_state_are_worth_something():
    env = made("known")
    seen = env.step(np.array([5, 2, 3, 0, 0]))[0]
    assert (seen["again"][0] < 1e-9).all() and (np.diff(seen["again"][:, 0]) > 1e-3).all()
    before = memory(env)["covariance"][0, 0]
    env.step(np.array([0, 0, SAME, 2, 0]))
    assert 0.5 * np.log(before / memory(env)["covariance"][0, 0]) == pytest.approx(seen["again"][2, 0], rel=0.7)


def test_quarters_looked_at_alike_are_one_record():
    env = made("known")
    env.step(np.array([5, 2, 3, 2, 1]))
    for region in (2, 3, 4):
        env.step(np.array([0, 0, SAME, 2, region]))
    m = memory(env)
    assert m["records"] == 2 and m["totals"][1].sum() == 62**2
    env.step(np.array([0, 0, SAME, 2, 4]))
    m = memory(env)
    assert m["records"] == 3 and m["totals"][2].sum() == 30**2


def test_the_oldest_records_are_forgotten_where_there_is_no_room(monkeypatch):
    monkeypatch.setattr(ising_belief, "RECORDS", 8)
    env = made("known")
    for step in range(14):
        *_, info = env.step(np.array([4 + step % 3, 2, 2, 1, 0]))
    assert memory(env)["records"] <= 8 and info["error"] < 0.1 and memory(env)["counts"].shape[0] == 8


def test_images_without_an_anneal_belong_to_the_last_one():
    env = made("known")
    env.step(np.array([6, 4, 3, 2, 1]))
    spins = env.episodes.world.state["spins"].copy()
    seen = env.step(np.array([0, 0, SAME, 2, 4]))[0]
    assert np.array_equal(env.episodes.world.state["spins"], spins) and memory(env)["annealed"].tolist() == [6, 4]
    assert seen["fresh"].tolist() == [1, 0, 0, 1] and seen["again"][0, 2] > 1e-3 and seen["again"][0, 4] < 1e-9


def test_expected_gains_come_true_as_far_as_they_can():
    """They are optimistic, by about a third: a small torus, no correlation between images, no noise of the variance itself."""
    envs = gym.make_vec(ENV, num_envs=64, scenario="known", autoreset_mode="Disabled")
    seen, _ = envs.reset(seed=100)
    told, came = [], []
    for action in ([5, 2, 3, 2, 0], [6, 2, 3, 1, 0], [5, 3, 3, 2, 0]):
        told.append(seen["gain"][:, action[0], action[1], action[3], 0])
        before = envs.episodes.memory["covariance"][:, 0, 0].copy()
        seen = envs.step(np.tile(action, (64, 1)))[0]
        came.append(0.5 * np.log(before / envs.episodes.memory["covariance"][:, 0, 0]))
    assert 0.5 * np.mean(told) < np.mean(came) < 1.1 * np.mean(told)
    assert np.corrcoef(np.concatenate(told), np.concatenate(came))[0, 1] > 0.4


def test_promise_is_the_gain_of_somebody_who_knows_the_classifier():
    seen = made("train").step(np.array([5, 2, 2, 1, 0]))[0]
    known = made("known").step(np.array([5, 2, 2, 1, 0]))[0]
    assert (seen["promise"] != seen["gain"]).mean() > 0.5
    np.testing.assert_allclose(known["promise"], known["gain"], atol=2e-3)


def test_labels_are_shown_where_they_were_seen():
    env = made()
    env.reset(seed=7)
    seen = env.step(np.array([0, 0, SAME, 2, 4]))[0]["labels"][0]
    truth = env.episodes.world.state["spins"][0]
    shown = np.where(seen == 255, 1, np.where(seen == 0, -1, 0))
    assert (shown[32:, 32:] == truth[32:, 32:]).mean() > 0.95 > (shown[:32, :32] == truth[:32, :32]).mean() > 0.7


def test_a_lane_that_begins_anew_leaves_the_others_as_they_are():
    envs = gym.make_vec(ENV, num_envs=3, autoreset_mode="Disabled")
    envs.reset(seed=0)
    envs.step(np.array([[6, 4, 2, 1, 2]] * 3))
    before = {name: array[1:].copy() for name, array in envs.episodes.memory.items()}
    envs.reset(options={"reset_mask": np.array([True, False, False])})
    after = envs.episodes.memory
    assert all(np.array_equal(before[name], after[name][1:]) for name in before) and after["images"].tolist() == [1, 2, 2]


# ---- rewards ----


def test_the_rewards_are_what_was_learned():
    env = made(reward="privileged")
    mean, covariance = memory(env)["mean"].copy(), memory(env)["covariance"].copy()
    _, reward, _, _, info = env.step(np.array([5, 2, 2, 2, 0]))
    after, true = memory(env), env.episodes.truth["coupling"]
    believed = 0.5 * np.log(covariance[0, 0] / after["covariance"][0, 0])
    errors = [float(ising_rewards.relative_error(m[None], true)[0]) + 0.005 for m in (mean, after["mean"])]
    assert info["reward_information"] == pytest.approx(0.5 * believed) and info["reward_error"] == pytest.approx(0.5 * np.log(errors[0] / errors[1]))
    assert reward == pytest.approx(info["reward_information"] + info["reward_error"] + info["reward_time"])
    seen = made(reward="observable").step(np.array([5, 2, 2, 2, 0]))
    assert seen[4]["reward_information"] == pytest.approx(believed) and "reward_error" not in seen[4]


def test_a_world_without_truth_is_played_and_drawn():
    env = gym.make(ENV, scenario="train", reward="observable", world=Instrument(made().episodes.world), render_mode="rgb_array").unwrapped
    env.reset(seed=5)
    _, reward, _, _, info = env.step(np.array([5, 2, 2, 1, 0]))
    known = made(render_mode="rgb_array")
    known.step(np.array([5, 2, 2, 1, 0]))
    assert np.isfinite(reward) and "error" not in info and env.render().shape == known.render().shape and not np.array_equal(env.render(), known.render())


def test_a_world_without_truth_succeeds_by_what_is_believed():
    env = gym.make(ENV, scenario="known", reward="observable", world=Instrument(made("known").episodes.world)).unwrapped
    env.reset(seed=5)
    found = []
    for _ in range(9):
        info = env.step(np.array([5, 2, 2, 2, 0]))[4]
        found.append(bool(info["is_success"]))
        assert found[-1] == (np.sqrt(memory(env)["covariance"][0, 0]) <= 0.02 * abs(memory(env)["mean"][0]))
    assert set(found) == {False, True}


# ---- the twin ----


def twin(lanes: int = 4, **world):
    world = scenarios.load("ising_inference", "known").world | world
    it = IsingTwin(world, lanes)
    it.begin(np.arange(lanes, dtype=np.uint64) + np.uint64(3), np.ones(lanes, bool))
    return it, np.ones(lanes, bool)


def conditions(lanes: int, temperature=600.0, field=0.0, hold=60.0) -> SetConditions:
    return SetConditions(np.full(lanes, temperature), np.full(lanes, field), np.full(lanes, hold))


def look(lanes: int, shape=(64, 64), centre=9.6e-9, dwell=0.02, detector="haadf") -> ClassifyAtoms:
    return ClassifyAtoms(detector, shape, np.full((lanes, 2), centre), np.full(lanes, dwell))


def test_mislabels_are_as_often_as_dwell_and_classifier_say():
    from scipy.stats import norm

    for misjudged in (0.0, -0.5):
        it, on = twin(misjudged=misjudged)
        for dwell in (0.005, 0.02, 0.08):
            labels = it.execute(look(4, dwell=dwell), on).values["labels"]
            assert (labels != it.state["spins"]).mean() == pytest.approx(norm.cdf(-10.3 * np.sqrt(dwell) * np.exp(misjudged)), abs=0.01)


def test_a_region_is_where_it_was_asked_for():
    it, on = twin()
    labels = it.execute(look(4, (10, 12), np.array([12, 7]) * 0.3e-9, dwell=10.0), on).values["labels"]
    assert np.array_equal(labels, it.state["spins"][:, 2:12, 6:18])


def test_atoms_move_by_arrhenius_and_not_in_the_cold():
    moved = []
    for temperature, hold in ((600.0, 10.0), (600.0, 20.0), (500.0, 20.0), (100.0, 1000.0)):
        it, on = twin(600, rate=0.01, barrier=0.3, coupling=0.01, field=0.0)
        before = it.state["spins"].copy()
        it.execute(conditions(600, temperature, hold=hold), on)
        moved.append((before != it.state["spins"]).mean())
    assert moved[1] == pytest.approx(2 * moved[0], rel=0.4) and moved[3] == 0
    assert moved[2] == pytest.approx(moved[1] * np.exp(0.3 / BOLTZMANN * (1 / 600 - 1 / 500)), rel=0.5)


def test_fields_and_temperatures_act():
    it, on = twin(16, rate=3.0, coupling=0.015, field=0.0)
    order = []
    for field in (-0.01, 0.01):
        it.execute(conditions(16, 700, field, 300), on)
        order.append(it.state["spins"].mean())
    assert order[0] < -0.3 and order[1] > 0.3


def test_kawasaki_keeps_the_composition():
    it, on = twin(4, dynamics="kawasaki", magnetisation=0.3, rate=1.0)
    before = it.state["spins"].sum((1, 2))
    it.execute(conditions(4, 700, 0.01, 30), on)
    assert np.array_equal(it.state["spins"].sum((1, 2)), before)


def test_no_time_changes_nothing_and_a_hot_lattice_lives_on_while_imaged():
    it, on = twin(4, rate=1.0)
    it.execute(conditions(4, 700, 0, 0), on)
    before = it.state["spins"].copy()
    it.execute(look(4, dwell=0.02), on)
    assert (it.state["spins"] != before).mean() > 0.1
    it.execute(conditions(4, 100, 0, 0), on)
    cold = it.state["spins"].copy()
    it.execute(look(4, dwell=0.02), on)
    assert np.array_equal(it.state["spins"], cold)


REFUSED = {
    "temperature 0": (conditions(2, 0.0), "80 to 1200 K"), "temperature below 0": (conditions(2, -5.0), "80 to 1200 K"),
    "too hot": (conditions(2, 5000.0), "80 to 1200 K"), "field": (conditions(2, 600, 1.0), "at most"), "hold": (conditions(2, 600, 0, -1.0), "0 to"),
    "not a number": (conditions(2, np.nan), "not finite"), "dwell 0": (look(2, dwell=0.0), "above 0"), "outside": (look(2, (32, 32), 1e-9), "outside the lattice"),
    "larger": (look(2, (65, 64)), "1 to 64 atoms"), "nothing": (look(2, (0, 4)), "1 to 64"), "detector": (look(2, detector="x"), "haadf"),
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_done_is_refused_and_nothing_is_done(kind):
    command, words = REFUSED[kind]
    it, on = twin(2)
    before = it.snapshot(0)
    with pytest.raises(Refused, match=words):
        it.execute(command, on)
    assert all(np.array_equal(before.arrays[name], it.snapshot(0).arrays[name]) for name in before.arrays)


# ---- rules, policy, oracle ----

RULES = {
    "uniform-sweep": baselines_ising.UniformSweep, "maximum-fisher": baselines_ising.MaximumFisher, "doubting": baselines_ising.MaximumFisherDoubting,
    "patient": baselines_ising.MaximumFisherPatient, "thompson": baselines_ising.Thompson, "oracle": OracleAgent,
}  # fmt: skip


@pytest.mark.parametrize("name", ["train", "known", "far-couplings"])
@pytest.mark.parametrize("rule", RULES)
def test_every_rule_plays_to_the_end(rule, name):
    results = evaluate(RULES[rule](), ENV, name, 3, seed=50)
    assert (results.costs["time"] > 0.5 * 5400).all() and (results.costs["time"] <= 5400).all() and np.isfinite(results.metrics["error"]).all()


def test_rules_belong_to_this_environment():
    with pytest.raises(ProbeGymError, match="IsingInference"):
        evaluate(baselines_ising.MaximumFisher(), "probegym/LevelSelection-v0", "train", 1, seed=50)


def test_patience_pays():
    errors = {name: evaluate(RULES[name](), ENV, "train", 32, seed=60_000).metrics["error"].mean() for name in ("uniform-sweep", "maximum-fisher", "patient", "oracle")}
    assert errors["patient"] < 0.9 * min(errors["uniform-sweep"], errors["maximum-fisher"]) and errors["oracle"] < errors["uniform-sweep"]


# ---- scenarios, good and bad ----


@pytest.mark.parametrize("name", scenarios.names("ising_inference"))
def test_every_scenario_can_be_played(name):
    env = gym.make(ENV, scenario=name)
    env.reset(seed=1)
    env.action_space.seed(1)
    for _ in range(3):
        seen, reward, *_ = env.step(env.action_space.sample())
        assert np.isfinite(reward) and all(np.isfinite(v).all() for v in seen.values()) and env.observation_space.contains(seen)


def test_scenarios_cover_near_and_far_of_three_axes_or_more():
    every = [scenarios.load("ising_inference", name) for name in scenarios.names("ising_inference")]
    axes = {split: {s.axis for s in every if s.split == split} for split in ("near", "far")}
    assert axes["near"] <= axes["far"] and len(axes["near"]) >= 3 and {"train", "id"} <= {s.split for s in every}


def test_classifiers_and_relaxation_of_shifted_scenarios_were_hardly_met_in_training():
    world = {name: scenarios.load("ising_inference", name).world for name in scenarios.names("ising_inference")}
    _, deviation = world["train"]["misjudged"]["normal"]
    (far, _), (least, most) = (world[f"{split}-mislabels"]["misjudged"]["uniform"] for split in ("far", "near"))
    assert far < least < most < -2 * deviation
    slow = [world[name]["rate"]["log_uniform"] for name in ("far-relaxation", "near-relaxation", "train")]
    assert slow[0][1] <= slow[1][0] and slow[1][1] <= slow[2][0] and world["far-relaxation"]["dynamics"] == world["train"]["dynamics"]


MISTAKES = {
    "order": ({"temperatures": [500, 400]}, {}, "temperatures must ascend"), "zero kelvin": ({"temperatures": [0, 400]}, {}, "task.temperatures"),
    "below zero": ({}, {"temperatures": [-10, 400]}, "above 0"), "dwell": ({"dwells": [0, 1]}, {}, "task.dwells"), "cold": ({"cold": 400}, {}, "cold must lie below"),
    "first": ({"first": [9, 0, 0, 0]}, {}, "first needs a number"), "prior": ({"prior": {"coupling": [0.02, 0]}}, {}, "prior.coupling"),
    "unknown": ({"colour": 1}, {}, "colour"), "rows": ({"rows": 60}, {}, "task.rows"), "odd": ({}, {"rows": 63}, "world.rows"),
    "coupling": ({}, {"coupling": 3.0}, "world.coupling"), "nan": ({"price": float("nan")}, {}, "task.price"), "dynamics": ({}, {"dynamics": "wolff"}, "world.dynamics"),
    "lattice": ({}, {"rows": 32}, "1 to 32 atoms"), "detector": ({"detector": "bf"}, {}, "haadf"), "hotter than the holder": ({"temperatures": [400, 1500]}, {}, "80 to 1200 K"),
    "settle": ({}, {"settle": 30}, "the task counts on"), "overhead": ({"overhead": 20}, {}, "the task counts on"), "heating": ({}, {"heating": 5}, "to heat and hold"),
    "cooling": ({}, {"cooling": 20}, "to cool"), "image": ({}, {"overhead": 0}, "to image the lattice"),
}  # fmt: skip


@pytest.mark.parametrize("kind", MISTAKES)
def test_a_wrong_scenario_is_named(kind, scenario):
    task, world, words = MISTAKES[kind]
    if kind == "hotter than the holder":
        task = task | {"first": [1, 2, 1, 1]}
    with pytest.raises(ProbeGymError, match=words) as caught:
        gym.make(ENV, scenario=scenario(task, world)).unwrapped.reset(seed=0)
    assert "\n" not in str(caught.value)


# ---- training and the policy ----


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(train_ising, "EPOCHS", 1)
    for name, value in {"worlds": 2, "tries": 2, "candidates_kept": 1}.items():
        monkeypatch.setattr(train_ising.Trainer, name, value)
    return train_ising.IsingTraining(updates=4)


def test_a_training_goes_on_where_it_stopped_and_gives_a_policy(small, tmp_path):
    trainer = stopped_and_resumed(train_ising.Trainer, small, tmp_path)
    folder = trainer.finish(tmp_path / "policy", "a test", 2)
    assert (evaluate(bundle.BundlePolicy(folder), ENV, "id", 2, seed=50).metrics["error"] < 0.3).all()


def test_an_untrained_network_is_a_patient_rule():
    trainer = train_ising.Trainer(train_ising.IsingTraining(updates=1), "unused")
    ours = evaluate(trainer.agent(), ENV, "train", 24, seed=60_000).metrics["error"].mean()
    assert ours < 0.9 * evaluate(baselines_ising.UniformSweep(), ENV, "train", 24, seed=60_000).metrics["error"].mean()


def test_a_training_refuses_what_it_cannot_do(tmp_path):
    with pytest.raises(ProbeGymError, match="smaller seed"):
        train_ising.annealer(ENV, "train", 10**6, 8, tmp_path)


def test_the_policy_knows_the_coupling_better_than_rules_that_expect_equilibrium():
    policy = bundle.BundlePolicy("ising-inference")
    for scenario in ("known", "near-mislabels", "far-misled"):
        agents = {"policy": policy, "uniform": baselines_ising.UniformSweep(), "fisher": baselines_ising.MaximumFisher()}
        error = {name: evaluate(agent, ENV, scenario, 24, seed=20_000).metrics["error"].mean() for name, agent in agents.items()}
        assert error["policy"] < 0.9 * min(error["uniform"], error["fisher"]), scenario
