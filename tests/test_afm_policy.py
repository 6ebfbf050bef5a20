"""The feedback policy of AfmTuning: its features, its training, its export and the bundle that is shipped."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from probegym.agents import bundle, registry, train_afm
from probegym.agents.afm_networks import EDGES, FEATURES, FLOOR, SHIFTS, Critic, FeedbackPolicy, LineFeatures, correlation, log_rms
from probegym.agents.bundle import BundlePolicy
from probegym.agents.evaluate import evaluate
from probegym.envs.afm_settings import NAMES
from probegym.errors import ProbeGymError

ENV_ID = "probegym/AfmTuning-v0"
SETPOINT = (0.4, 0.55)
PIXELS = 128
ERROR = 4 + len(SHIFTS)  # and of the error signal: log rms of both ways, mean, most, least, shares saturated and below
CORRELATED = ERROR + 7


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


def features(lines: torch.Tensor, setpoint: float = 0.8) -> torch.Tensor:
    settings = torch.full((len(lines), len(NAMES)), 0.5)
    settings[:, 2] = (setpoint - SETPOINT[0]) / SETPOINT[1]
    return LineFeatures(PIXELS, SETPOINT)(lines, settings)


def sine(periods: float, pixels: int = PIXELS) -> torch.Tensor:
    return torch.sin(2 * np.pi * periods * torch.arange(pixels) / pixels)


# ---- features ----


def test_features_are_as_many_as_told_and_finite_for_anything():
    flat, wild = torch.zeros(2, 12, PIXELS), 1e3 * torch.randn(2, 12, PIXELS)
    for lines in (flat, wild):
        seen = features(lines)
        assert seen.shape == (2, FEATURES) and torch.isfinite(seen).all()


def test_rms_and_correlation():
    assert float(log_rms(3 * sine(4))) == pytest.approx(np.log(3 / np.sqrt(2)), abs=1e-4)
    assert float(log_rms(torch.zeros(8))) == pytest.approx(np.log(FLOOR))
    assert float(correlation(sine(4), 5 + 2 * sine(4))) == pytest.approx(1, abs=1e-4)
    assert float(correlation(sine(4), torch.ones(PIXELS))) == 0


@pytest.mark.parametrize("shift", SHIFTS)
def test_the_lag_between_the_ways_is_the_shift_that_agrees(shift):
    lines = torch.zeros(1, 12, PIXELS)
    surface = torch.randn(PIXELS + 32, generator=torch.Generator().manual_seed(2))
    lines[0, 0], lines[0, 1] = surface[16 : 16 + PIXELS], surface[16 + shift : 16 + shift + PIXELS]
    apart = features(lines)[0, 4 : 4 + len(SHIFTS)]
    assert int(apart.argmin()) == SHIFTS.index(shift) and float(apart.min()) < np.log(0.05)


def test_error_signal():
    lines = torch.zeros(1, 12, PIXELS)
    lines[:, 2:4] = 0.2  # the tip swings freely at a setpoint of 0.8
    seen = features(lines)[0]
    assert seen[ERROR : ERROR + 2].tolist() == pytest.approx([np.log(0.2)] * 2, abs=1e-4)
    assert seen[ERROR + 2 : ERROR + 5].tolist() == pytest.approx([0.2] * 3)
    assert float(seen[ERROR + 5]) > 0.99 and float(seen[ERROR + 6]) < 0.01
    lines[:, 2:4] = -0.3  # pressed
    seen = features(lines)[0]
    assert float(seen[ERROR + 5]) < 0.01 and float(seen[ERROR + 6]) > 0.99


def test_ringing_shows_in_its_band():
    lines = torch.zeros(1, 12, PIXELS)
    lines[:, 2:4] = 0.1 * sine(27)
    bands = features(lines)[0, CORRELATED + 5 : CORRELATED + 5 + len(EDGES) - 1]
    assert int(bands.argmax()) == next(i for i, low in enumerate(EDGES[:-1]) if low <= 27 < EDGES[i + 1])
    assert float(bands[0]) == pytest.approx(np.log(FLOOR), abs=0.1)


# ---- policy ----


def policy() -> FeedbackPolicy:
    torch.manual_seed(0)
    return FeedbackPolicy(PIXELS, SETPOINT, torch.full((6,), 0.3), torch.tensor([1, 1, 1, 0.5, 1, 1]), 0.25, hidden=16).eval()


def test_action_is_the_way_to_what_is_wanted():
    here = policy()
    with torch.no_grad():
        here.head[-1].weight.zero_()
    settings = torch.tensor([[0.3, 0.2, 0.4, 0.3, 1.0, 0.0]])
    action, memory = here(torch.zeros(1, 12, PIXELS), settings, torch.zeros(1, 16))
    assert action[0].tolist() == pytest.approx([0, 0.4, -0.4, 0, -1, 1], abs=1e-5)
    assert memory.shape == (1, 16)


def test_no_more_is_wanted_than_the_ceiling():
    wanted = policy().wanted(100 * torch.randn(50, 32, generator=torch.Generator().manual_seed(1))).detach()
    assert float(wanted[:, 3].max()) <= 0.5 < float(wanted[:, 2].max())


def test_lines_one_by_one_are_the_lines_of_a_sequence():
    here, seen = policy(), torch.randn(3, 5, FEATURES)
    whole, last = here.embed(seen, torch.zeros(3, 16))
    memory = torch.zeros(3, 16)
    for index in range(5):
        one, memory = here.embed(seen[:, index : index + 1], memory)
        assert torch.allclose(one[:, 0], whole[:, index], atol=1e-6)
    assert torch.allclose(memory, last, atol=1e-6)


def test_critic_gives_two_estimates():
    assert Critic(7, 8)(torch.zeros(4, 5, 3), torch.zeros(4, 5, 4)).shape == (4, 5, 2)


# ---- training ----


@pytest.fixture
def small(monkeypatch):
    for name, value in {"UPDATES_A_ROUND": 2, "BLIND": 1, "BATCH": 4, "KEPT": 64, "CANDIDATES": 2, "STEADY": 2, "WIDE": 2}.items():
        monkeypatch.setattr(train_afm, name, value)
    return lambda folder, **changed: train_afm.Trainer(train_afm.Tuning(**({"updates": 8, "lanes": 8} | changed)), folder)


def test_training_resumes_exactly(small, tmp_path):
    whole, told = small(tmp_path / "whole"), []
    whole.run(told.append, evaluate=lambda agent: 0.5, evaluations=2)
    assert [news.update for news in told if news.success is not None] == [4, 8] and whole.checkpoint.exists()
    first = small(tmp_path / "parts")

    class Interrupted(Exception):
        pass

    def stop(news):
        if news.update == 6:
            raise Interrupted

    with pytest.raises(Interrupted):
        first.run(stop, checkpoint_every=4)
    second = small(tmp_path / "parts")
    second.load()
    assert second.update == 4 and second.stored == 24
    second.run()
    for name, value in whole.policy.state_dict().items():
        assert torch.equal(value, second.policy.state_dict()[name]), name
    assert whole.curve == second.curve and len(second.candidates) == 2


def test_checkpoints_of_another_training_are_refused(small, tmp_path):
    small(tmp_path).save()
    with pytest.raises(ProbeGymError, match="other seed"):
        small(tmp_path, seed=2).load()
    (tmp_path / "checkpoint.pt").write_bytes(b"no")
    with pytest.raises(ProbeGymError, match="cannot be read"):
        small(tmp_path).load()


def test_training_seeds_stay_below_those_of_selection(small, tmp_path):
    with pytest.raises(ProbeGymError, match="smaller seed"):
        small(tmp_path, seed=8, updates=2_000_000)


def test_finished_bundle_acts_as_the_module(small, tmp_path):
    trainer = small(tmp_path, updates=4)
    trainer.run()
    folder = trainer.finish(tmp_path / "policy", "probegym train AfmTuning", 2)
    spec = json.loads((folder / "policy.json").read_text())
    assert [row["update"] for row in spec["selection"]["tried"]] == [4]
    assert spec["curve"]["columns"][0] == "update" and [row[0] for row in spec["curve"]["rows"]] == [2, 4]
    shipped = BundlePolicy(folder)
    chosen, _ = trainer.choose(10)
    agents = shipped, train_afm.Tuned(chosen)
    observation, _ = trainer.envs.reset(seed=5)
    for agent in agents:
        agent.begin(8, 0)
    for _ in range(3):
        actions = [agent.act(observation, trainer.envs.episodes) for agent in agents]
        assert np.allclose(*actions, atol=1e-4)
        observation = trainer.envs.step(actions[0])[0]


def test_registry_knows_the_trainer(tmp_path):
    learner = registry.make_learner(ENV_ID, "train", 32, 1, tmp_path)
    assert isinstance(learner, train_afm.Trainer) and learner.config.updates == 32


# ---- what is shipped ----


def test_shipped_policy_halves_the_error_of_settings_left_alone():
    class Still(train_afm.Tuned):
        def act(self, observation, episodes):
            return np.zeros((len(observation["settings"]), len(NAMES)), np.float32)

    tuned = evaluate(BundlePolicy("afm-tuning"), ENV_ID, "id", 32)
    still = evaluate(Still(policy()), ENV_ID, "id", 32)
    assert np.median(tuned.metrics["height_error"]) < 0.5 * np.median(still.metrics["height_error"])
    assert tuned.metrics["crashed"].sum() == 0
    size = sum(path.stat().st_size for path in bundle.shipped()["afm-tuning"].iterdir())
    assert size < 1_000_000
