"""Scripts of SpectrumExploration and the policy that steers its acquisition function."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
import torch
from scipy.ndimage import distance_transform_edt, gaussian_filter

import probegym  # noqa: F401  registers the environments
from probegym.agents import train_spectra
from probegym.agents.base import Agent
from probegym.agents.baselines_spectra import (
    BrightPixels,
    CoordinatesEI,
    Curiosity,
    DeepKernelEI,
    DeepKernelUCB,
    EvenGrid,
    FixedWeights,
    RandomPlaces,
    SteeredEI,
    WeightsSchedule,
)
from probegym.agents.bundle import BundlePolicy
from probegym.agents.evaluate import evaluate
from probegym.agents.seeds import LAST_TRAINING_SEED
from probegym.agents.spectra_networks import SEEN, PlaceJudge, SteeringPolicy, loss, planes, weightings
from probegym.agents.train_spectra import Steering, Student, Trainer
from probegym.envs import vector_env
from probegym.errors import ProbeGymError

ENV_ID = "probegym/SpectrumExploration-v0"
SHAPE = (50, 50)
SHORT = "short: {extends: train, budget: {measurements: 14}}\nplaces: {extends: short, task: {action: locate}}\n"
SHORT += "bare: {extends: places, task: {surrogate: {embedding: none}}}\n"


@pytest.fixture(scope="module")
def short(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("scenarios") / "short.yaml"
    path.write_text(SHORT)
    return str(path)


def explore(agent: Agent, scenario: str, lanes: int = 2, seed: int = 3):
    """The environment after one episode of an agent, and the places it measured, (lanes, steps)."""
    envs = gym.make_vec(ENV_ID, num_envs=lanes, scenario=scenario, autoreset_mode="Disabled")
    observation, _ = envs.reset(seed=seed)
    agent.begin(lanes, seed)
    places, done = [], np.zeros(lanes, bool)
    while not done.all():
        observation, _, terminated, truncated, _ = envs.step(agent.act(observation, envs.episodes))
        places.append(envs.episodes.memory["at"].copy())
        done |= terminated | truncated
    return envs, np.stack(places, 1)


def test_expected_improvement_measures_the_same_places_by_steering(short):
    steered, located = (explore(agent, f"{short}:{name}", lanes=3)[1] for agent, name in ((SteeredEI(), "short"), (DeepKernelEI(), "places")))
    assert len(steered[0]) > 3 and np.array_equal(steered, located)


class Landscape:
    """A map of values that is looked up place by place, seen as an agent sees it."""

    def __init__(self, values: np.ndarray, first: int = 5, seed: int = 0):
        self.values, self.measured = values, np.zeros(values.shape, bool)
        self.measured.ravel()[np.random.default_rng(seed).choice(values.size, first, replace=False)] = True

    def seen(self, mean: np.ndarray | None = None, deviation: np.ndarray | None = None) -> dict[str, np.ndarray]:
        known = self.values[self.measured]
        standard = (self.values - known.mean()) / known.std() * self.measured
        flat = np.zeros(self.values.shape)
        maps = {"measured": self.measured, "value": standard, "mean": flat if mean is None else mean, "novelty": flat}
        maps |= {"deviation": flat if deviation is None else deviation, "image": self.values}
        return {name: np.asarray(v, np.float32)[None] for name, v in maps.items()}

    def play(self, agent: Agent, steps: int) -> np.ndarray:
        """Places (steps,) in the order measured."""
        agent.begin(1, 0)
        places = []
        for _ in range(steps):
            score = np.where(self.measured, -np.inf, agent.score(self.seen(), 0))
            places.append(int(score.argmax()))
            self.measured.ravel()[places[-1]] = True
        return np.array(places)


def bump(seed: int = 0) -> np.ndarray:
    """A smooth field with one highest place."""
    return gaussian_filter(np.random.default_rng(seed).normal(size=SHAPE), 5)


# ---- scripts ----


def test_random_places_are_uniform_and_never_repeat(short):
    _, places = explore(RandomPlaces(), f"{short}:bare", lanes=3)
    assert places.shape == (3, 9)
    assert all(len(set(row)) == 9 for row in places)
    assert not np.array_equal(places[0], places[1])
    rows = np.divmod(Landscape(bump()).play(RandomPlaces(), 1000), 50)[0]
    assert abs(rows.mean() - 24.5) < 2  # 14.4 / sqrt(1000) = 0.46, and none twice makes it less


def test_even_grid_leaves_smaller_holes_than_chance():
    def holes(agent: Agent) -> float:
        lands = [Landscape(bump(), first=2, seed=seed) for seed in range(6)]
        for land in lands:
            land.play(agent, 80)
        return float(np.mean([distance_transform_edt(~land.measured).max() for land in lands]))

    assert holes(EvenGrid()) < 0.85 * holes(RandomPlaces())


def test_bright_pixels_go_by_brightness_and_keep_apart():
    image = bump()
    land = Landscape(image, first=2)
    places = land.play(BrightPixels(radius=3.0), 12)
    assert places[0] == np.where(distance_transform_edt(~Landscape(image, 2).measured) > 3, image, -np.inf).argmax()
    rows, columns = np.divmod(places, 50)
    apart = np.hypot(rows[:, None] - rows, columns[:, None] - columns) + 99 * np.eye(12)
    assert apart.min() > 3
    dark = Landscape(image, first=2).play(BrightPixels(radius=3.0, sign=-1), 12)
    assert image.ravel()[dark].max() < image.ravel()[places].min()


def test_gaussian_process_on_coordinates_climbs():
    found = [bump(seed).ravel()[Landscape(bump(seed), seed=seed).play(CoordinatesEI(), 25)].max() / bump(seed).max() for seed in range(3)]
    chance = [bump(seed).ravel()[Landscape(bump(seed), seed=seed).play(RandomPlaces(), 25)].max() / bump(seed).max() for seed in range(3)]
    assert np.mean(found) > 0.97 > np.mean(chance)


def test_acquisition_functions_of_the_deep_kernel():
    land = Landscape(bump())
    mean, deviation = np.full(SHAPE, -1.0), np.full(SHAPE, 0.1)
    known = land.seen()["value"][0]
    mean[land.measured], best = known[land.measured], known.max()
    mean[10, 10] = best + 0.5  # surely better
    mean[20, 20], deviation[20, 20] = best - 0.5, 2.0  # perhaps much better
    deviation[30, 30] = 3.0  # unknown, expected poor
    seen = land.seen(mean, deviation)
    seen["novelty"][0, 40, 40] = 1.0

    def picked(agent: Agent) -> tuple[int, int]:
        agent.begin(1, 0)
        return tuple(int(i) for i in np.unravel_index(agent.score(seen, 0).argmax(), SHAPE))

    assert picked(DeepKernelEI(0.0)) == (20, 20)  # 0.57, against 0.5
    assert picked(DeepKernelUCB(0.01)) == (10, 10)
    assert picked(DeepKernelUCB(9.0)) == (30, 30)
    assert picked(Curiosity()) == (30, 30)
    assert picked(Curiosity(5.0)) == (40, 40)


def test_expected_improvement_beats_chance_on_specimens():
    ours, theirs = (evaluate(agent, ENV_ID, scenario, 4, 500).metrics["rank"] for agent, scenario in ((DeepKernelEI(), "locate"), (RandomPlaces(), "bare")))
    assert (ours <= theirs).mean() >= 0.75
    assert np.median(ours) < np.median(theirs)


def test_scripts_say_where_they_do_not_fit(short):
    for agent, scenario, words in ((DeepKernelEI(), "bare", "needs a surrogate"), (RandomPlaces(), "short", "picks places"),
                                   (FixedWeights(), "places", "steers")):  # fmt: skip
        with pytest.raises(ProbeGymError, match=words):
            explore(agent, f"{short}:{scenario}", lanes=1)


def test_schedule_goes_from_first_to_last():
    schedule = WeightsSchedule((1, 0, 0, 0), (0, 1, 0, 0.5))
    episodes = vector_env(ENV_ID, num_envs=3, scenario="train").episodes
    actions = schedule.act({"budget": np.array([[1.0], [0.5], [0.0]], np.float32)}, episodes)
    np.testing.assert_allclose(actions, [[1, 0, 0, 0], [0.5, 0.5, 0, 0.25], [0, 1, 0, 0.5]], atol=1e-6)


# ---- the policy ----


def test_judge_learns_what_is_better():
    """On planes where the truth is the surrogate's mean plus the image, it learns to add the image."""
    torch.manual_seed(0)
    judge, generator = PlaceJudge((8, 8, 8)), torch.Generator().manual_seed(0)
    optimiser, losses = torch.optim.Adam(judge.parameters(), 5e-3), []
    for _ in range(60):
        image, mean = torch.randint(0, 255, (8, 1, 16, 16), generator=generator).float(), torch.randn(8, 1, 16, 16, generator=generator)
        measured = (torch.rand(8, 1, 16, 16, generator=generator) < 0.1).float()
        value = measured * mean
        seen, best = planes(image, measured, value, mean, 0.5 * torch.ones_like(mean), 1 - measured, torch.ones(8, 2), torch.ones(8, 1))
        truth = mean[:, 0] + (image[:, 0] - 127) / 64
        error = loss(*judge(seen), truth - best[:, 0], measured[:, 0] == 0)
        optimiser.zero_grad()
        error.backward()
        optimiser.step()
        losses.append(float(error.detach()))
    odds, gain = judge.eval()(seen)
    better = truth > best[:, 0]
    assert np.mean(losses[-5:]) < 0.7 * np.mean(losses[:5])
    assert odds[better].mean() > odds[~better].mean() + 1
    assert (gain >= 0).all()


def test_policy_steers_to_the_place_it_chose(short):
    """The environment measures where the policy thinks its weights lead: the most promising place within reach."""
    torch.manual_seed(1)
    policy = SteeringPolicy(PlaceJudge((8, 8, 8)), SHAPE, candidates=64).eval()
    student = Student(policy)
    envs = gym.make_vec(ENV_ID, num_envs=2, scenario=f"{short}:short", autoreset_mode="Disabled")
    observation, _ = envs.reset(seed=8)
    student.begin(2, 0)
    for _ in range(6):
        with torch.no_grad():
            worth = policy.worth(*(torch.from_numpy(observation[name]) for name in SEEN)).numpy()
        reachable = np.stack([envs.episodes.task.exploration.chosen(np.tile(w, (2, 1)), envs.episodes.memory) for w in weightings(64)], 1)
        first = student.before.sum() == 0
        action = student.act(observation, envs.episodes)
        observation = envs.step(action)[0]
        at = envs.episodes.memory["at"]
        if first:
            assert (action[:, 3] == 0).all()  # where the probe is cannot be seen yet
        else:
            promised = np.take_along_axis(worth, reachable, 1).max(1)
            np.testing.assert_allclose(worth[np.arange(2), at], promised, atol=1e-4)


def test_training_resumes_and_exports(short, tmp_path, monkeypatch):
    monkeypatch.setattr(train_spectra, "ROUND", 2)
    monkeypatch.setattr(train_spectra, "GRID", ({"trust": 0.5, "stretch": 1.0},))
    config = Steering(scenario=f"{short}:short", updates=4, batch=4, lanes=2)
    trainer = Trainer(config, tmp_path)
    told = []
    trainer.run(told.append, checkpoint_every=2)
    assert [progress.update for progress in told] == [2, 4]
    again = Trainer(config, tmp_path)
    again.load()
    assert again.update == 4
    for name, value in again.judge.state_dict().items():
        assert torch.equal(value, trainer.judge.state_dict()[name])
    folder = again.finish(tmp_path / "bundle", "a command", 2)
    policy, student = BundlePolicy(folder), Student(again.policy())
    places = explore(policy, f"{short}:short")[1]
    np.testing.assert_array_equal(places, explore(student, f"{short}:short")[1])
    (tmp_path / "checkpoint.pt").write_bytes(b"no checkpoint")
    with pytest.raises(ProbeGymError, match="cannot be read"):
        again.load()
    with pytest.raises(ProbeGymError, match="kept for selection"):
        Trainer(Steering(scenario=f"{short}:short", updates=LAST_TRAINING_SEED, lanes=4), tmp_path)


def test_scenarios_to_train_on():
    names = train_spectra.training_scenarios("train")
    assert "train" in names
    assert train_spectra.training_scenarios("id") == ["id"]
    with pytest.raises(ProbeGymError, match="must all steer"):
        Trainer(Steering(), ".", ["train", "locate"])


def test_shipped_policy_explores_better_than_chance():
    policy = BundlePolicy("spectrum-exploration")
    ours = evaluate(policy, ENV_ID, "id", 6, 704)
    theirs = evaluate(RandomPlaces(), ENV_ID, "bare", 6, 704)
    assert ours.metrics["regret"].mean() < 0.75 * theirs.metrics["regret"].mean()
    with pytest.raises(ProbeGymError, match="moves other controls"):
        evaluate(policy, ENV_ID, "locate", 1)
