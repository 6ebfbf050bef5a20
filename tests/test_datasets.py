"""Data sets for offline learning: lossless, replayed to the bit, complete or not there; and behaviour cloning on them."""

from __future__ import annotations

import json
import shutil
import sys

import gymnasium as gym
import h5py
import minari
import numpy as np
import pytest
import torch

from probegym.agents import cloning, datasets
from probegym.agents.base import Agent, OracleAgent, RandomAgent
from probegym.agents.baselines_stem import CoordinateDescent
from probegym.agents.bundle import BundlePolicy
from probegym.agents.cloning import Cloned, Cloner, Copy
from probegym.agents.evaluate import EVALUATION_SEED, evaluate
from probegym.errors import ProbeGymError
from probegym.terminal.datasets import _counts
from tests.terminal import call

pytestmark = pytest.mark.xdist_group("datasets")  # one process makes what its tests share

TIP, ADATOM, ISING, STEM = (f"probegym/{name}-v0" for name in ("TipConditioning", "AdatomManipulation", "IsingInference", "StemTuning"))
SCORES = (-1.0, 1.0)


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    """Minari looks nowhere but in a fresh folder."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    monkeypatch.chdir(tmp_path)
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Recorded once: images and whole numbers of two agents, whole numbers of several kinds, and numbers in a box."""
    folder = tmp_path_factory.mktemp("sets")
    datasets.record(TIP, {"random": 4, "fixed-recipe": 2}, seed=40, root=folder, scores=SCORES, name="both", command="a test")
    datasets.record(ISING, {"random": 1}, seed=7, root=folder, scores=SCORES)
    datasets.record(ADATOM, {"fixed-drag": 40}, root=folder)
    return folder


@pytest.fixture(scope="module")
def drags(root):
    return datasets.load(str(root / "probegym/AdatomManipulation/fixed-drag-v0"))


@pytest.fixture(scope="module")
def tips(root):
    return datasets.load(str(root / "probegym/TipConditioning/both-v0"))


def same(one, other) -> bool:
    one, other = np.asarray(one), np.asarray(other)
    return one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()


# ---- what is watched ----


class Watching:
    def __init__(self):
        self.begun, self.returns, self.steps, self.seeds = [], [], [], []

    def begin(self, seed, observation, info):
        lanes = len(next(iter(observation.values())))
        self.seeds += range(seed, seed + lanes)
        self.begun.append(lanes)
        self.returns.append(np.zeros(lanes))
        self.steps.append(np.zeros(lanes, int))

    def step(self, action, observation, reward, terminated, truncated, info, where):
        assert len(action) == len(reward) == len(where) == len(next(iter(observation.values()))) == self.begun[-1]
        self.returns[-1] += np.where(where, reward, 0)
        self.steps[-1] += where


@pytest.mark.parametrize(("agent", "env_id", "scenario", "episodes"), [(OracleAgent, TIP, "train", 40), (CoordinateDescent, STEM, "beacon-train", 1)])
def test_an_observer_sees_every_step_and_changes_nothing(agent, env_id, scenario, episodes):
    watching = Watching()
    plain, watched = evaluate(agent(), env_id, scenario, episodes), evaluate(agent(), env_id, scenario, episodes, observer=watching)
    assert same(plain.returns, watched.returns) and same(plain.metrics["is_success"] if "is_success" in plain.metrics else plain.success, watched.success)
    assert same(np.concatenate(watching.returns), watched.returns) and same(np.concatenate(watching.steps), watched.steps)
    assert watching.seeds == list(range(EVALUATION_SEED, EVALUATION_SEED + episodes))


def test_one_lane_at_a_time_gives_the_same_episodes():
    together, alone = evaluate(OracleAgent(), TIP, "train", 5), evaluate(OracleAgent(), TIP, "train", 5, lanes=1)
    assert same(together.returns, alone.returns) and same(together.steps, alone.steps)


# ---- what is written ----


@pytest.mark.parametrize("name", ["TipConditioning/both-v0", "IsingInference/random-v0"])
def test_every_episode_can_be_played_again_to_the_bit(root, name):
    """With Minari's own reader and environment, nothing of ours in between."""
    found = minari.MinariDataset(root / "probegym" / name / "data")
    env = found.recover_environment()
    told = list(found.storage.get_episode_metadata(found.episode_indices))
    for episode, about in zip(found.iterate_episodes(), told, strict=True):
        observation, info = env.reset(seed=about["seed"])
        for t, action in enumerate(episode.actions):
            assert all(same(episode.observations[key][t], array) for key, array in observation.items())
            observation, reward, terminated, truncated, info = env.step(action)
            assert same(episode.rewards[t], np.float64(reward)) and (episode.terminations[t], episode.truncations[t]) == (terminated, truncated)
            assert all(same(episode.infos[key][t + 1], np.asarray(value)) for key, value in info.items())
        assert (terminated or truncated) and all(same(episode.observations[key][-1], array) for key, array in observation.items())
        assert about["success"] == info["is_success"] and about["return"] == pytest.approx(episode.rewards.sum())


def test_success_is_that_of_the_last_step(tmp_path):
    """As in an evaluation: what was reached in between and lost again is no success."""
    made, results = datasets.record(ISING, {"random": 1}, seed=172, root=tmp_path, scores=SCORES)
    (about,) = made.storage.get_episode_metadata([0])
    assert made[0].infos["is_success"].any() and not made[0].infos["is_success"][-1]
    assert not about["success"] and not results["random"].success[0]


def test_a_script_is_recorded_too(tmp_path):
    made, results = datasets.record(STEM, {"coordinate-descent": 1}, "beacon-train", 3, tmp_path, scores=SCORES)
    assert made.id == "probegym/StemTuning/coordinate-descent-beacon-train-v0" and made.total_steps == results["coordinate-descent"].steps[0] > 3
    assert datasets.replay(made, 0) == [] and made[0].actions.dtype == np.float32 and made.action_space.contains(made[0].actions[0])


def test_spaces_and_types_are_those_of_the_environment(tips):
    env = gym.make(TIP)
    assert tips.observation_space == env.observation_space and tips.action_space == env.action_space
    episode = tips[0]
    assert episode.observations["image"].dtype == np.uint8 and episode.actions.dtype == np.int64
    assert all(env.observation_space.contains({key: array[t] for key, array in episode.observations.items()}) for t in range(len(episode.actions) + 1))
    assert not tips.storage.jpeg_encoding


def test_infos_have_a_row_for_every_observation_and_explain_the_reward(tips):
    for episode in tips.iterate_episodes():
        assert {len(rows) for rows in episode.infos.values()} == {len(episode.actions) + 1}
        parts = [rows for name, rows in episode.infos.items() if name.startswith("reward_")]
        assert parts and np.allclose(np.sum(parts, axis=0)[1:], episode.rewards, atol=1e-12)


def test_who_acted_stands_with_every_episode(tips):
    told = list(tips.storage.get_episode_metadata(tips.episode_indices))
    assert [about["agent"] for about in told] == ["random"] * 4 + ["fixed-recipe"] * 2 and [about["seed"] for about in told] == list(range(40, 46))
    assert tips.storage.metadata["probegym"]["agents"] == {"random": 4, "fixed-recipe": 2}


def test_the_data_set_says_where_it_comes_from(tips):
    told = tips.storage.metadata
    assert told["dataset_id"] == "probegym/TipConditioning/both-v0" and told["algorithm_name"] == "random, fixed-recipe"
    assert told["author"] == {"ProbeGym"} and told["license"] == "MIT" and "commit" in told["code_permalink"]
    assert told["probegym"]["resolved"]["name"] == "train" and told["probegym"]["command"] == "a test" and told["data_format"] == "hdf5"
    assert told["dataset_size"] == pytest.approx((tips.storage.data_path / "main_data.hdf5").stat().st_size / 1e6, abs=0.11)


def test_a_policy_is_named_by_its_checksum(tmp_path):
    made, results = datasets.record(ADATOM, {"adatom-manipulation": 2}, root=tmp_path, scores=SCORES)
    assert made.storage.metadata["probegym"]["policies"] == {"adatom-manipulation": BundlePolicy("adatom-manipulation").bundle.digest}
    assert made.id == "probegym/AdatomManipulation/adatom-manipulation-v0" and results["adatom-manipulation"].success.all()


def test_the_environment_comes_back_with_its_scenario(tmp_path):
    made, _ = datasets.record(ADATOM, {"random": 1}, "chen-train", root=tmp_path, scores=SCORES)
    env = made.recover_environment()
    assert env.spec.id == ADATOM and env.unwrapped.episodes.scenario.name == "chen-train" and made.id.endswith("/random-chen-train-v0")


def test_progress_of_the_references_is_told(monkeypatch, tmp_path):
    monkeypatch.setattr(datasets.references, "__defaults__", (2, *datasets.references.__defaults__[1:]))
    told, played = [], []
    datasets.record(ADATOM, {"random": 1}, root=tmp_path, progress=lambda *now: played.append(now), referring=lambda *now: told.append(now))
    assert told == [(0, 4), (2, 4), (2, 4), (4, 4)] and played[-1] == (1, 1)
    done = call("record", "dataset", "--env", "AdatomManipulation", "--agent", "random", "--episodes", 1, "--out", tmp_path / "other")
    assert done.exit_code == 0 and "random and oracle" in done.output and "recording" in done.output


def test_reference_scores_are_the_returns_of_random_and_oracle(drags):
    low, high = (evaluate(agent, ADATOM, "train", datasets.REFERENCE_EPISODES, datasets.REFERENCE_SEED).returns.mean() for agent in (RandomAgent(), OracleAgent()))
    assert minari.get_normalized_score(drags, np.array([low, high])) == pytest.approx([0, 1]) and low < high
    assert datasets.normalised(drags, np.array([low, (low + high) / 2])) == pytest.approx([0, 0.5])
    assert datasets.REFERENCE_SEED + datasets.REFERENCE_EPISODES < EVALUATION_SEED


@pytest.mark.filterwarnings("error")
def test_minari_finds_it_where_it_looks():
    made, _ = datasets.record(ADATOM, {"random": 2}, scores=SCORES)
    assert list(minari.list_local_datasets()) == [made.id] == ["probegym/AdatomManipulation/random-v0"]
    assert minari.namespace.list_local_namespaces() == ["probegym", "probegym/AdatomManipulation"]
    assert minari.load_dataset(made.id).total_episodes == len(datasets.load(made.id)) == 2


def test_more_episodes_can_be_added_with_minari(root, tips, tmp_path):
    copy = shutil.copytree(tips.storage.data_path, tmp_path / "data")
    more, episode = minari.MinariDataset(copy), tips[5]
    buffer = minari.data_collector.EpisodeBuffer(None, 45, None, episode.observations, episode.actions, episode.rewards, episode.terminations, episode.truncations, episode.infos)
    more.update_dataset_from_buffer([buffer])
    assert len(more) == 7 and datasets.replay(more, 6) == []


def test_recording_needs_no_jax(monkeypatch, tmp_path):
    for name in ("jax", "jax.tree_util"):
        monkeypatch.setitem(sys.modules, name, None)
    assert len(datasets.record(ADATOM, {"random": 1}, root=tmp_path, scores=SCORES)[0]) == 1


# ---- actions ----


class Fixed(Agent):
    """The same action in every step."""

    def __init__(self, action):
        self.action = action

    def begin(self, lanes, seed):
        pass

    def act(self, observation, episodes):
        return np.asarray(self.action)


@pytest.fixture
def plays(monkeypatch, tmp_path):
    """Record an agent object under the name ``mine``."""

    def record(agent, env_id=ADATOM, **options):
        monkeypatch.setattr(datasets, "make_agent", lambda name, env_id: agent)
        return datasets.record(env_id, {"mine": 2}, root=tmp_path / "sets", scores=SCORES, **options)[0]

    return record


def test_what_is_recorded_is_what_was_done(plays):
    """An action in double precision, beside its space by rounding: recorded as single precision, inside, and replayed to the bit."""
    made = plays(Fixed(np.full((1, 6), 1 + 5e-7)))
    assert made[0].actions.dtype == np.float32 and (made[0].actions == 1).all() and datasets.replay(made, 0) == []


def test_an_action_outside_its_space_is_refused_not_clipped(plays, tmp_path):
    with pytest.raises(ProbeGymError, match="outside -1 to 1"):
        plays(Fixed(np.full((1, 6), 1.01)))
    assert not (tmp_path / "sets").exists()


def test_an_agent_that_does_more_than_its_actions_say_is_refused(tmp_path):
    with pytest.raises(ProbeGymError, match=r"relay-autotune.*cannot be played again"):
        datasets.record("probegym/AfmTuning-v0", {"relay-autotune": 1}, root=tmp_path / "sets", scores=SCORES)
    assert not (tmp_path / "sets").exists()


# ---- refused, and nothing stays ----


class Interrupted(RandomAgent):
    def __init__(self, error):
        self.error, self.begun = error, 0

    def begin(self, lanes, seed):
        super().begin(lanes, seed)
        self.begun += 1
        if self.begun == 2:
            raise self.error


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ProbeGymError("broken"), OSError(28, "No space left on device")])
def test_an_interrupted_recording_leaves_nothing(plays, tmp_path, error):
    with pytest.raises((KeyboardInterrupt, ProbeGymError)):
        plays(Interrupted(error))
    assert not (tmp_path / "sets").exists()
    assert len(plays(RandomAgent())) == 2


def test_a_disk_that_is_nearly_full_is_refused_before_hdf5_meets_it(plays, monkeypatch, tmp_path):
    monkeypatch.setattr(datasets.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1_000_000})())
    with pytest.raises(ProbeGymError, match=r"1 MB are left on the disk.*free space"):
        plays(RandomAgent())
    assert not (tmp_path / "sets").exists()


def test_nothing_is_overwritten(root, monkeypatch):
    monkeypatch.setattr(datasets, "evaluate", None)  # refused before anything is played
    with pytest.raises(ProbeGymError, match="is there already"):
        datasets.record(ADATOM, {"fixed-drag": 1}, root=root)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"seed": EVALUATION_SEED}, "are for evaluation"),
        ({"seed": EVALUATION_SEED - 1}, "are for evaluation"),
        ({"seed": -1}, "are for evaluation"),
        ({"scenario": "id"}, "split id"),
        ({"scenario": "far-drift"}, "split far"),
        ({"agents": {}}, "number of episodes"),
        ({"agents": {"random": 0}}, "number of episodes"),
        ({"agents": {"random": True}}, "number of episodes"),
        ({"agents": {"nobody": 1}}, "unknown agent"),
        ({"name": "../x"}, "named by letters"),
        ({"name": "x-v1"}, "without a version"),
    ],
)
def test_what_is_refused(tmp_path, options, told):
    with pytest.raises(ProbeGymError, match=told):
        datasets.record(**{"env_id": ADATOM, "agents": {"random": 2}, "root": tmp_path / "sets", "scores": SCORES} | options)
    assert not (tmp_path / "sets").exists()


# ---- reading ----


def test_a_changed_bit_is_found(root, drags, tmp_path):
    folder = shutil.copytree(drags.storage.data_path.parent, tmp_path / "changed")
    with h5py.File(folder / "data" / "main_data.hdf5", "r+") as file:
        file["episode_3/actions"][0, 0] = np.nextafter(file["episode_3/actions"][0, 0], np.float32(0))
        file["episode_4/rewards"][-1] += 1e-9
        file["episode_5/observations/observation"][0, 2] += np.float32(1e-3)
    changed = datasets.load(str(folder))
    assert [bool(datasets.replay(changed, n)) for n in range(7)] == [False, False, False, True, True, True, False]
    assert "observation observation differs" in datasets.replay(changed, 5)[0] and "rewards differs" in datasets.replay(changed, 4)[0]
    done = call("record", "replay", folder, "--episodes", 6)
    assert done.exit_code == 1 and "6 episodes" in done.output and "episode 4, step" in done.output
    assert call("record", "replay", folder, "--episodes", 3).exit_code == 0


def spoiled(drags, tmp_path, **changes):
    """A copy whose description differs; None takes an entry out."""
    folder = shutil.copytree(drags.storage.data_path.parent, tmp_path / "spoiled")
    path = folder / "data" / "metadata.json"
    told = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({name: value for name, value in told.items() if value is not None}))
    return str(folder)


def test_a_strangers_data_set_runs_nothing(drags, tmp_path, monkeypatch):
    """Without spaces Minari would make the environment of the specification, and so import what it names."""
    (tmp_path / "stranger.py").write_text("raise SystemExit('ran')")
    monkeypatch.syspath_prepend(str(tmp_path))
    spec = json.loads(drags.storage.metadata["env_spec"]) | {"id": "stranger-v0", "entry_point": "stranger:Env", "vector_entry_point": None}
    with pytest.raises(ProbeGymError, match="of no environment of ProbeGym's"):
        datasets.load(spoiled(drags, tmp_path, env_spec=json.dumps(spec), observation_space=None))
    shutil.rmtree(tmp_path / "spoiled")
    found = datasets.load(spoiled(drags, tmp_path, env_spec=json.dumps(spec)))
    assert datasets.replay(found, 0) == [] and "stranger" not in sys.modules


@pytest.mark.parametrize("change", [{"env_spec": None}, {"probegym": {"environment": "probegym/None-v0"}}, {"probegym": None}, {"action_space": "x"}, {"minari_version": "9"}, {"data_format": "x"}])
def test_what_is_no_data_set_of_ours_is_refused(drags, tmp_path, change):
    with pytest.raises(ProbeGymError, match=r"of no environment|cannot be read"):
        datasets.load(spoiled(drags, tmp_path, **change))


def test_a_file_that_was_cut_off_or_lost_episodes_is_refused(drags, tmp_path):
    folder = shutil.copytree(drags.storage.data_path.parent, tmp_path / "cut")
    path = folder / "data" / "main_data.hdf5"
    with h5py.File(path, "r+") as file:
        del file["episode_39"]
    with pytest.raises(ProbeGymError, match="39 of 40 episodes"):
        datasets.load(str(folder))
    path.write_bytes(path.read_bytes()[:20_000])
    with pytest.raises(ProbeGymError, match="cannot be read"):
        datasets.load(str(folder))


def test_a_data_set_that_is_not_there_is_named():
    with pytest.raises(ProbeGymError, match="no data set 'probegym/x-v0'"):
        datasets.load("probegym/x-v0")


# ---- the command line ----


def test_a_mixed_set_by_command(tmp_path):
    done = call("record", "dataset", "--env", "AdatomManipulation", "--agent", "random,fixed-drag", "--shares", "0.75,0.25", "--episodes", 4, "--seed", 9, "--out", "sets")
    assert done.exit_code == 0 and "probegym/AdatomManipulation/mixed-v0" in done.output, done.output
    found = datasets.load("sets/probegym/AdatomManipulation/mixed-v0")
    told = list(found.storage.get_episode_metadata(found.episode_indices))
    assert [(about["agent"], about["seed"]) for about in told] == [("random", 9), ("random", 10), ("random", 11), ("fixed-drag", 12)]
    assert found.storage.metadata["probegym"]["command"].startswith("probegym record dataset --env AdatomManipulation-v0 --agent random,fixed-drag")


@pytest.mark.parametrize(("shares", "agents", "counts"), [(None, 3, [4, 3, 3]), ("1,1,2", 3, [3, 2, 5]), ("0.5,0.5", 2, [5, 5]), ("9,1", 2, [9, 1])])
def test_shares(shares, agents, counts):
    assert _counts(10, shares, agents) == counts


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--agent", "random,random"], "every agent once"),
        (["--agent", "random,fixed-drag", "--shares", "1"], "--shares gives"),
        (["--agent", "random,fixed-drag", "--shares", "1,x"], "--shares gives"),
        (["--agent", "random,fixed-drag", "--shares", "1,0"], "--shares gives"),
        (["--agent", "random,fixed-drag", "--episodes", "1"], "above 0"),
        (["--agent", "random", "--seed", str(EVALUATION_SEED)], "use a lower --seed"),
        (["--agent", "random", "--scenario", "id"], "split train"),
    ],
)
def test_mistakes(arguments, told):
    done = call("record", "dataset", "--env", "AdatomManipulation", "--episodes", "2", *arguments)
    lines = done.stderr.strip().splitlines()
    assert done.exit_code == 2 and len(lines) == 1 and told in lines[0], done.output


def test_build_goes_on_where_it_stopped(monkeypatch):
    monkeypatch.setattr(datasets, "SETS", {ADATOM: {"random": "random", "script": "fixed-drag"}})
    assert call("record", "build", "--episodes", 3, "--out", "sets").exit_code == 0
    shutil.rmtree("sets/probegym/AdatomManipulation/random-v0")
    before = (datasets.load("sets/probegym/AdatomManipulation/fixed-drag-v0").storage.data_path / "main_data.hdf5").stat().st_mtime_ns
    done = call("record", "build", "--episodes", 3, "--out", "sets")
    assert done.exit_code == 0 and "fixed-drag-v0 is there: 3 episodes" in done.output and len(datasets.load("sets/probegym/AdatomManipulation/random-v0")) == 3
    assert (datasets.load("sets/probegym/AdatomManipulation/fixed-drag-v0").storage.data_path / "main_data.hdf5").stat().st_mtime_ns == before


# ---- cloning ----


@pytest.fixture(scope="module")
def cloned(drags, tmp_path_factory):
    """A clone of the drags, and its bundle."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("clone")
    cloner = Cloner(drags, folder, updates=200)
    before = cloner.held_out()
    cloner.run()
    return before, cloner, cloner.finish(folder / "policy", "a test")


def test_a_clone_does_what_it_was_shown(cloned):
    """On episodes of evaluation, which neither the data set nor the held-out tenth has."""
    before, cloner, folder = cloned
    clone, chance = (evaluate(agent, ADATOM, "id", 60) for agent in (BundlePolicy(folder), RandomAgent()))
    assert cloner.least < 0.1 * before and cloner.least == pytest.approx(cloner.held_out())
    assert clone.success.mean() > 0.4 > 0.2 > chance.success.mean() and clone.returns.mean() > chance.returns.mean() + 5


def test_the_bundle_is_the_network(cloned, drags):
    _, cloner, folder = cloned
    observation = {name: drags[1].observations[name][:3] for name in drags.observation_space.spaces}
    expected = Copy(cloner.policy).act(observation, None)
    policy = BundlePolicy(folder)
    policy.begin(len(expected), 0)
    assert np.allclose(policy.decide(observation), expected, atol=1e-5)
    assert policy.spec["algorithm"] == "bc" and policy.spec["data"]["id"] == drags.id and policy.spec["data"]["agents"] == {"fixed-drag": 40}


def test_the_policy_is_the_state_of_least_loss_on_what_is_held_out(drags, tmp_path, monkeypatch):
    cloner, losses, states = Cloner(drags, tmp_path, updates=4), iter([3.0, 1.0, 2.0, 5.0]), []
    monkeypatch.setattr(cloner, "held_out", lambda: next(losses))
    cloner.run(lambda news: states.append({name: v.clone() for name, v in cloner.policy.state_dict().items()}))
    policy = BundlePolicy(cloner.finish(tmp_path / "policy", "a test"))
    assert all(torch.equal(v, states[1][name]) for name, v in cloner.policy.state_dict().items()) and policy.spec["selection"]["loss"] == 1.0


def test_every_update_draws_its_own_steps(drags, tmp_path, monkeypatch):
    cloner, drawn = Cloner(drags, tmp_path, updates=2), []
    loss = cloner.policy.loss
    monkeypatch.setattr(cloner.policy, "loss", lambda seen, actions: (drawn.append(actions) if cloner.policy.training else None, loss(seen, actions))[1])
    cloner.run()
    assert len(drawn) == 2 and len(drawn[0]) == cloner.config.batch and not torch.equal(*drawn)


def test_episodes_are_held_out_whole(drags):
    (seen, done), (seen_held, done_held) = cloning.lessons(drags, 1)
    lengths = sorted(len(episode.actions) for episode in drags.iterate_episodes())
    assert len(done) + len(done_held) == sum(lengths) == len(seen["observation"]) + len(seen_held["observation"])
    assert not {row.numpy().tobytes() for row in done} & {row.numpy().tobytes() for row in done_held}
    again, other = cloning.lessons(drags, 1)[1][1], cloning.lessons(drags, 2)[1][1]
    assert torch.equal(again, done_held) and not (len(other) == len(again) and torch.equal(other, again))


def test_a_clone_resumes_to_the_same_network(drags, tmp_path):
    whole, first = Cloner(drags, tmp_path / "a", updates=40), Cloner(drags, tmp_path / "b", updates=40)
    whole.run()

    def stop(news):
        if news.update == 25:  # past a checkpoint
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        first.run(stop)
    rest = Cloner(drags, tmp_path / "b", updates=40)
    rest.load()
    assert rest.update == 24
    rest.run()
    assert all(torch.equal(v, rest.policy.state_dict()[name]) for name, v in whole.policy.state_dict().items()) and whole.least == rest.least
    with pytest.raises(ProbeGymError, match="other updates"):
        Cloner(drags, tmp_path / "b", updates=41).load()


@pytest.mark.parametrize("name", ["TipConditioning/both-v0", "IsingInference/random-v0"])
def test_images_and_whole_numbers_can_be_learned_by_heart(root, name):
    """A network that reads every entry: two observations that differ in one entry alone get different actions."""
    found = minari.MinariDataset(root / "probegym" / name / "data")
    space, episode = found.action_space, found[0]
    examples = {key: torch.from_numpy(rows[:2].copy()) for key, rows in episode.observations.items()}
    actions = torch.from_numpy(np.stack([np.asarray(space.start), np.asarray(space.start) + (space.n if hasattr(space, "n") else space.nvec) - 1]).astype(np.int64))
    for entry in (next(key for key, rows in examples.items() if rows.dtype == torch.uint8), "budget"):
        alike = {key: rows if key == entry else rows[:1].expand_as(rows).clone() for key, rows in examples.items()}
        torch.manual_seed(0)
        network = Cloned(alike, space, width=32)
        optimiser = torch.optim.Adam(network.parameters(), 1e-2)
        for _ in range(600):
            optimiser.zero_grad()
            network.loss(tuple(alike.values()), actions).backward()
            optimiser.step()
            if learned := torch.equal(network(*alike.values()), actions):
                break
        assert learned, entry


def test_a_clone_by_command_is_measured_like_any_policy(drags, tmp_path):
    done = call("clone", "--data", drags.storage.data_path.parent, "--updates", 3, "--out", "clone")
    assert done.exit_code == 0 and "probegym evaluate --agent clone/policy --env AdatomManipulation-v0" in done.output, done.output
    measured = call("evaluate", "--agent", "clone/policy", "--env", "AdatomManipulation", "--episodes", 2)
    assert measured.exit_code == 0 and "success" in measured.output
    again = call("clone", "--data", drags.storage.data_path.parent, "--updates", 3, "--out", "clone")
    assert again.exit_code == 2 and "--resume" in again.stderr
    assert call("clone", "--data", drags.storage.data_path.parent, "--updates", 3, "--out", "clone", "--resume").exit_code == 0
    assert call("clone", "--data", "probegym/none-v0", "--out", "other").exit_code == 2 and not (tmp_path / "other").exists()


def test_one_episode_is_too_few(tmp_path):
    made, _ = datasets.record(ADATOM, {"random": 1}, root=tmp_path, scores=SCORES)
    with pytest.raises(ProbeGymError, match="record more"):
        Cloner(made, tmp_path)
