"""Evaluation statistics, policy bundles, export, and Stable-Baselines3 on our vector environments."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest
import torch
from scipy import stats

from probegym.agents import bundle, files, hyperparameters, sb3, seeds
from probegym.agents.base import OracleAgent, RandomAgent
from probegym.agents.bundle import BundlePolicy, spec_digest
from probegym.agents.evaluate import EVALUATION_SEED, Results, evaluate
from probegym.agents.registry import make_agent
from probegym.agents.seeds import LAST_TRAINING_SEED
from probegym.agents.statistics import median_interval, wilson
from probegym.agents.train_stem import Distillation, Student, Trainer, export
from probegym.errors import ProbeGymError

ENV_ID = "probegym/StemTuning-v0"


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


# ---- statistics ----


@pytest.mark.parametrize(("successes", "trials"), [(8, 10), (0, 10), (10, 10), (190, 200), (1, 1)])
def test_wilson_interval_is_that_of_scipy(successes, trials):
    known = stats.binomtest(successes, trials).proportion_ci(0.95, method="wilson")
    assert wilson(successes, trials) == pytest.approx((known.low, known.high), abs=1e-12)


def test_wilson_interval_in_the_literature():
    assert wilson(8, 10) == pytest.approx((0.4902, 0.9433), abs=1e-4)


def test_wilson_interval_covers_as_often_as_it_says():
    rng = np.random.default_rng(0)
    hits = [low <= 0.9 <= high for low, high in (wilson(int(k), 50) for k in rng.binomial(50, 0.9, 2000))]
    assert 0.92 < np.mean(hits) < 0.98


def test_the_interval_of_a_median():
    low, high = median_interval(np.arange(1.0, 102.0))
    assert (low, high) == (pytest.approx(41, abs=2), pytest.approx(61, abs=2))  # order statistics 51 -+ 1.96 sqrt(101) / 2
    assert median_interval(np.full(9, 3.0)) == (3.0, 3.0)
    assert median_interval(np.arange(20.0), seed=4) == median_interval(np.arange(20.0), seed=4)


def results(success) -> Results:
    n = len(success)
    costs = {name: np.arange(1.0, n + 1) for name in ("time", "dose", "damage", "measurements")}
    return Results(np.array(success), np.ones(n), np.ones(n, int), costs, {"strehl": np.linspace(0, 1, n)}, {name: value / 2 for name, value in costs.items()})


def test_costs_to_goal_are_those_of_the_successes():
    summary = results([True, False, True, False]).summary()
    assert summary["success"] == 0.5 and summary["measurements_to_goal"] == 1.0 and summary["measurements_mean"] == 2.5
    assert summary["strehl_median"] == 0.5


def test_no_success_has_no_cost_to_goal():
    summary = results([False] * 3).summary()
    assert summary["success"] == 0 and np.isnan(summary["time_to_goal"]) and np.isnan(summary["time_to_goal_interval"]).all()


def test_costs_to_goal_end_where_the_goal_was_first_reached():
    found = evaluate(OracleAgent(), "probegym/SpectrumExploration-v0", "bare", 3)
    assert found.success.all() and (found.costs["measurements"] == 88).all()
    assert (found.to_goal["measurements"] == 6).all()  # five to begin with, then the best place


def test_results_do_not_depend_on_how_episodes_are_batched():
    whole = evaluate(OracleAgent(), ENV_ID, "train", 36)
    parts = [evaluate(OracleAgent(), ENV_ID, "train", count, EVALUATION_SEED + first) for first, count in ((0, 7), (7, 29))]
    assert np.array_equal(whole.metrics["strehl"], np.concatenate([part.metrics["strehl"] for part in parts]))
    assert np.array_equal(whole.returns, np.concatenate([part.returns for part in parts]))
    assert whole.success.mean() > 0.9 and evaluate(RandomAgent(), ENV_ID, "train", 36).success.mean() < 0.1


@pytest.mark.parametrize("episodes", [0, -1, 2.5, True, "3"])
def test_a_bad_number_of_episodes_is_refused(episodes):
    with pytest.raises(ProbeGymError, match="episodes must be"):
        evaluate(OracleAgent(), ENV_ID, "train", episodes)


def test_an_unknown_agent_lists_the_known():
    with pytest.raises(ProbeGymError, match="coordinate-descent"):
        make_agent("nobody")


def test_seeds_of_training_selection_and_evaluation_do_not_meet():
    kept = [value for name, value in vars(seeds).items() if name.endswith("_SEED")]
    assert kept[0] == LAST_TRAINING_SEED and (np.diff(kept[1:]) >= 100_000).all()
    for seed in (0, 1, 8, 9, 12345):
        trainer = Trainer.__new__(Trainer)
        trainer.config, trainer.worlds = Distillation(seed=seed), 64
        assert 0 <= trainer.first_seed(0) and trainer.first_seed(1000) + 64 < LAST_TRAINING_SEED


# ---- bundles ----


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A student after a few updates, and its bundle."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("student")
    trainer = Trainer(Distillation(updates=6, lanes=16), folder)
    trainer.run()
    return trainer, export(trainer, folder / "policy", 0.1, {}, "a test")


@pytest.fixture
def copy(trained, tmp_path):
    """A bundle that a test may spoil."""
    return shutil.copytree(trained[1], tmp_path / "policy")


def test_exported_policy_equals_the_student_in_a_closed_loop(trained):
    trainer, folder = trained
    student, policy, lanes = Student(trainer.policy(threshold=0.1), trainer.frames), BundlePolicy(folder), 24
    envs = gym.make_vec(ENV_ID, num_envs=lanes, scenario="train", autoreset_mode="Disabled")
    observation, _ = envs.reset(seed=77)
    student.begin(lanes, 0), policy.begin(lanes, 0)
    worst = 0.0
    for _ in range(6):
        expected, action = student.act(observation, envs.episodes), policy.act(observation, envs.episodes)
        worst = max(worst, float(np.abs(expected - action).max()))
        action[:, -1] = -1  # go on
        observation = envs.step(action)[0]
    assert worst < 1e-5
    whole = [evaluate(agent, ENV_ID, "train", 12) for agent in (policy, student)]  # a rounding may change a grey level
    assert np.allclose(whole[0].returns, whole[1].returns, atol=0.01) and np.array_equal(whole[0].steps, whole[1].steps)


def spoil_json(folder, change, signed=True):
    spec = json.loads((folder / "policy.json").read_text())
    change(spec)
    if signed:
        spec["spec_sha256"] = spec_digest(spec)
    (folder / "policy.json").write_text(json.dumps(spec))


SPOILED = {
    "flipped byte": (lambda f: (f / "policy.onnx").write_bytes((f / "policy.onnx").read_bytes()[:-1] + b"\x00\x01"), "checksum"),
    "no model": (lambda f: (f / "policy.onnx").unlink(), "cannot be read"),
    "no description": (lambda f: (f / "policy.json").unlink(), "no policy"),
    "not JSON": (lambda f: (f / "policy.json").write_text("{"), "cannot be read"),
    "other schema": (lambda f: spoil_json(f, lambda s: s.update(schema=99)), "schema"),
    "other checksum": (lambda f: spoil_json(f, lambda s: s.update(sha256="0" * 64)), "checksum"),
    "edited memory": (lambda f: spoil_json(f, lambda s: s.pop("memory"), signed=False), "checksum"),
    "other actions": (lambda f: spoil_json(f, lambda s: s["golden"][0]["action"][0].__setitem__(0, 9.0)), "recorded actions"),
}


@pytest.mark.parametrize("kind", SPOILED)
def test_a_spoiled_bundle_is_refused(copy, kind):
    spoil, message = SPOILED[kind]
    spoil(copy)
    with pytest.raises(ProbeGymError, match=message) as caught:
        BundlePolicy(copy)
    assert "\n" not in str(caught.value)


def test_a_policy_refuses_frames_that_it_was_not_made_for(trained):
    policy = BundlePolicy(trained[1])
    with pytest.raises(ProbeGymError, match="needs ronchigram in the observation"):
        evaluate(policy, ENV_ID, "graphene", 1)
    policy.begin(1, 0)
    with pytest.raises(ProbeGymError, match="of shape"):
        policy.decide({"ronchigram": np.zeros((1, 3, 42, 42), np.uint8), "budget": np.ones((1, 1), np.float32)})


def test_a_bundle_is_written_whole_or_not_at_all(trained, copy, monkeypatch):
    before, model = (copy / "policy.json").read_bytes(), (copy / "policy.onnx").read_bytes()

    def full(**_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.tempfile, "TemporaryDirectory", full)
    with pytest.raises(ProbeGymError, match="No space left on device"):
        bundle.write(copy, model, json.loads(before))
    assert (copy / "policy.json").read_bytes() == before and sorted(p.name for p in copy.iterdir()) == ["policy.json", "policy.onnx"]


# ---- Stable-Baselines3 ----


def stepped(seed: int, lanes: int, steps: int):
    """The adaptor and a vector environment that does not reset itself, given the same actions."""
    envs = sb3.ScopeVecEnv(gym.make_vec(ENV_ID, num_envs=lanes, scenario="train", budget=6, autoreset_mode="SameStep"))
    plain = gym.make_vec(ENV_ID, num_envs=lanes, scenario="train", budget=6, autoreset_mode="Disabled")
    envs.seed(seed)
    first, expected = envs.reset(), plain.reset(seed=seed)[0]
    assert all(np.array_equal(first[name], expected[name]) for name in expected)
    rng = np.random.default_rng(seed)
    for _ in range(steps):
        actions = rng.uniform(-1, 1, (lanes, *envs.action_space.shape)).astype(np.float32)
        observation, reward, terminated, truncated, info = plain.step(actions)
        done = terminated | truncated
        after = plain.reset(options={"reset_mask": done})[0] if done.any() else observation
        yield envs.step(actions), (observation, reward, terminated, truncated, info, after)


def test_terminal_observation_is_the_last_of_the_ended_episode():
    ended = {True: 0, False: 0}
    for (seen, reward, done, infos), (last, expected, terminated, truncated, info, after) in stepped(5, 6, 12):
        assert np.array_equal(done, terminated | truncated) and np.allclose(reward, expected) and reward.dtype == np.float32
        assert all(np.array_equal(seen[name], after[name]) for name in after)
        for lane, mine in enumerate(infos):
            assert ("terminal_observation" in mine) == done[lane]
            if done[lane]:
                assert all(np.array_equal(mine["terminal_observation"][name], last[name][lane]) for name in last)
                assert mine["TimeLimit.truncated"] is bool(truncated[lane] and not terminated[lane])
                assert mine["is_success"] is bool(info["is_success"][lane]) and mine["strehl"] == info["strehl"][lane]
                ended[mine["TimeLimit.truncated"]] += 1
    assert ended[True] and ended[False]


def test_the_adaptor_wants_same_step():
    with pytest.raises(ProbeGymError, match="SameStep"):
        sb3.ScopeVecEnv(gym.make_vec(ENV_ID, num_envs=2, scenario="train"))


def weights(model) -> torch.Tensor:
    return torch.cat([value.flatten().float() for value in model.policy.state_dict().values()])


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("algorithm", sb3.ALGORITHMS)
def test_training_resumes_and_exports(algorithm, tmp_path):
    told: list[sb3.Progress] = []
    asked = sb3.Training(ENV_ID, "train", algorithm, 256)
    model = sb3.train_sb3(asked, tmp_path, report=told.append)
    assert model.num_timesteps >= 256 and told and told[-1].mean_return is not None
    assert list(tmp_path.glob("tensorboard/*/events*"))
    fresh = sb3.build(asked, tmp_path)
    assert not torch.equal(weights(model), weights(fresh))
    again = sb3.train_sb3(asked, tmp_path, resume=True)  # nothing is left to do
    assert torch.equal(weights(model), weights(again)) and again.num_timesteps == model.num_timesteps
    more = sb3.train_sb3(replace(asked, steps=544), tmp_path, resume=True)
    assert more.num_timesteps >= 544 and not torch.equal(weights(more), weights(again))
    _check_refusals(asked, tmp_path)
    _check_export(more, replace(asked, steps=544), tmp_path / "policy")


def _check_refusals(asked, folder):
    with pytest.raises(ProbeGymError, match="--resume"):
        sb3.train_sb3(asked, folder)
    with pytest.raises(ProbeGymError, match="other seed"):
        sb3.train_sb3(replace(asked, seed=2), folder, resume=True)
    spoiled = folder / "spoiled"
    spoiled.mkdir()
    (spoiled / "checkpoint.pt").write_bytes(sb3.checkpoint_path(folder).read_bytes()[:1000])
    with pytest.raises(ProbeGymError, match="cannot be read"):
        sb3.train_sb3(asked, spoiled, resume=True)


def _check_export(model, training, folder):
    policy = BundlePolicy(sb3.export_sb3(model, training, folder, "a test"))
    observation = model.env.reset()
    policy.begin(sb3.LANES, 0)
    assert np.abs(policy.decide(observation) - model.predict(observation, deterministic=True)[0]).max() < 1e-5


@pytest.mark.filterwarnings("ignore")
def test_a_policy_of_numbered_actions_is_exported(tmp_path):
    training = sb3.Training("probegym/TipConditioning-v0", "train", "ppo", 64)
    model = sb3.train_sb3(training, tmp_path)
    policy = BundlePolicy(sb3.export_sb3(model, training, tmp_path / "policy", "a test"))
    observation = model.env.reset()
    policy.begin(sb3.LANES, 0)
    assert np.array_equal(policy.decide(observation), model.predict(observation, deterministic=True)[0])
    with pytest.raises(ProbeGymError, match="sac needs continuous actions"):
        sb3.train_sb3(replace(training, algorithm="sac"), tmp_path / "sac")


def test_hyperparameters_are_chosen_or_refused(tmp_path):
    asked = sb3.Training(ENV_ID, "train", "ppo", 64, hyperparameters=hyperparameters.parsed("ppo", ["learning_rate=2e-3", "n_epochs=2"]))
    assert asked.hyperparameters == {"learning_rate": 2e-3, "n_epochs": 2} and isinstance(asked.hyperparameters["n_epochs"], int)
    model = sb3.build(asked, tmp_path)
    assert (model.lr_schedule(1.0), model.n_epochs, model.gamma) == (2e-3, 2, sb3.build(replace(asked, hyperparameters={}), tmp_path).gamma)
    for algorithm, text, told in (("ppo", "tau=0.1", "unknown hyperparameter 'tau' of ppo: use learning_rate"), ("sac", "tau=2", "between 1e-06 and 1"),
                                  ("sac", "tau", "NAME=NUMBER"), ("sac", "tau=nan", "between"), ("distil", "gamma=0.9", "distil")):  # fmt: skip
        with pytest.raises(ProbeGymError, match=told):
            hyperparameters.parsed(algorithm, [text])
