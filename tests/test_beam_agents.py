"""The belief over rate lobes, the rules that act on it, the training, and the shipped policy."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
import torch

import probegym  # noqa: F401  registers the environments
from probegym.agents import beam_networks, train_beam
from probegym.agents.base import OracleAgent
from probegym.agents.baselines_beam import BayesianGreedy, FixedGreedy, RandomNearby, greedy_published
from probegym.agents.beam_networks import DOUBT, Mover, RateBelief, Student
from probegym.agents.bundle import BundlePolicy
from probegym.agents.evaluate import evaluate
from probegym.agents.train_beam import BeamTraining, Trainer
from probegym.envs.beam_settings import BOND
from probegym.errors import ProbeGymError
from probegym.physics import beam_rates
from tests.helpers import stopped_and_resumed

ENV_ID = "probegym/BeamManipulation-v0"


def lobe(height: float, along: float, across: float, variance: float) -> np.ndarray:
    mixture = np.zeros((1, 8, 4))
    mixture[0, 0] = height, along, across, variance
    return mixture


def written(folder, text: str) -> str:
    (folder / "own.yaml").write_text(f"own:\n  description: a test\n{text}")
    return f"{folder / 'own.yaml'}:own"


def seconds(agent, scenario: str, episodes: int, seed: int = 0) -> np.ndarray:
    results = evaluate(agent, ENV_ID, scenario, episodes, seed)
    return np.where(results.success, results.costs["time"], 600)


# ---- the belief ----


def test_a_third_of_a_turn_maps_the_places_to_themselves():
    grid = beam_networks.places()
    turns = beam_networks.turns(grid)
    np.testing.assert_array_equal(turns[0], np.arange(len(grid)))
    assert all(len(set(turn)) == len(grid) for turn in turns)
    np.testing.assert_allclose(np.hypot(*grid[turns[1]].T), np.hypot(*grid.T), atol=1e-9)
    np.testing.assert_array_equal(turns[1][turns[1]], turns[2])


@pytest.mark.parametrize(("at", "dwell"), [((1.0, 0.0), 2.0), ((0.0, 0.0), 2.0), ((1 / 3, 0.0), 0.9), ((-1.0, 0.0), 4.5)])
def test_chances_of_the_outcomes_are_those_of_the_twin(tmp_path, at, dwell):
    """One lobe, 4,000 dwells in the twin; a third jump is not followed, which shows in a few percent of the cases."""
    along, across, variance, height = 0.7, 0.4, 0.4, 0.35
    own = written(tmp_path, f"  extends: mixture\n  world: {{rates: {{more: 0, max_rate: {height}, along: {along}, across: {across}, variance: {variance}}}}}\n")
    envs = gym.make_vec(ENV_ID, num_envs=4000, scenario=own, autoreset_mode="Disabled")
    envs.reset(seed=0)
    blur = beam_networks.BLUR  # undone
    belief = RateBelief(lobe(height * variance / (variance - blur), along, across, variance - blur), np.zeros(1))
    place = int(((belief.grid - torch.tensor(at)) ** 2).sum(1).argmin())
    seen, *_ = envs.step(envs.episodes.task.action(BOND * np.tile(belief.grid[place].double().numpy(), (4000, 1)), np.full(4000, dwell), np.zeros(4000, int)))
    rates = belief.rates()
    one = [rates[:, belief.turns[k][place]] for k in range(3)]
    leave = one[0][0] + one[1][0] + one[2][0]
    five = beam_networks.outcomes([beam_networks.jumps(s[0], leave, s[1:], torch.tensor([dwell])) for s in one], torch.exp(-leave * dwell))
    told = np.array([float((c - DOUBT / 5) / (1 - DOUBT)) for c in five])
    assert told.sum() == pytest.approx(1, abs=1e-5)
    np.testing.assert_allclose(seen["outcome"].mean(0), told, atol=0.05)


def test_the_belief_expects_the_rates_of_a_beam_that_is_not_quite_where_it_was_put():
    """Every lobe averaged over Gaussian errors of variance BLUR along and across."""
    mixture = np.concatenate([lobe(0.3, 0.85, 0.1, 0.1), lobe(0.8, -0.5, 1.2, 2.0)])
    belief = RateBelief(mixture, np.zeros(2))
    nodes, weights = np.polynomial.hermite_e.hermegauss(9)
    weights, grid = np.outer(weights, weights) / weights.sum() ** 2, belief.grid.numpy().astype(float)
    known = np.zeros((len(grid), 2))
    for i, j in np.ndindex(9, 9):
        along, across = (grid[None, :, k] + np.sqrt(beam_networks.BLUR) * nodes[n] for k, n in ((0, i), (1, j)))
        known += weights[i, j] * beam_rates.mixture_rates(mixture, along, across).T
    np.testing.assert_allclose(belief.rates()[0].numpy(), known, rtol=1e-3, atol=1e-7)


def test_the_belief_finds_the_lobe_that_is_there():
    lobes = np.concatenate([lobe(0.3, 0.85, 0.0, 0.1), lobe(0.3, -1.0, 0.0, 0.1), lobe(0.01, 0.85, 0.0, 0.1)])
    belief = RateBelief(lobes, np.full(3, -np.log(3.0)))
    rates = belief.rates()
    place = torch.tensor([int(((belief.grid - torch.tensor([1.0, 0.0])) ** 2).sum(1).argmin())])
    start = torch.full((1, 3), -np.log(3.0))
    for outcome, right in (([0, 1, 0, 0, 0], (0,)), ([1, 0, 0, 0, 0], (1, 2))):  # where two lobes say the same, both gain
        after = belief.update(start, rates, place, torch.tensor([[6.0]]), torch.tensor([outcome], dtype=torch.float32))
        assert set(after[0].topk(len(right)).indices.tolist()) == set(right)
        assert float(after.exp().sum()) == pytest.approx(1, abs=1e-5)
    for dwell, outcome in ((0.0, [1.0, 0, 0, 0, 0]), (3.0, [0.0] * 5)):  # no dwell, or nobody saw what came of it
        torch.testing.assert_close(belief.update(start, rates, place, torch.tensor([[dwell]]), torch.tensor([outcome])), start)


def test_information_is_none_where_all_lobes_are_equal_and_some_where_they_differ():
    bonds, clock, budget = torch.tensor([[3.0, -1.0, -2.0]]), torch.tensor([[2.0, 0.1, 10.0]]), torch.ones(1, 1)
    told = {}
    for name, lobes in {"equal": [lobe(0.3, 0.85, 0, 0.1)] * 2, "different": [lobe(0.3, 0.85, 0, 0.1), lobe(0.3, -1.5, 0, 0.1)]}.items():
        mover = Mover(RateBelief(np.concatenate(lobes), np.full(2, -np.log(2.0))), curiosity=1.0)
        features = mover.candidates(mover.memory(1)[0], mover.belief.tables()[1], bonds, clock, budget)[2]
        told[name] = float(features[0, :, 1].max())
    assert abs(told["equal"]) < 1e-4 and 0.1 < told["different"] < np.log(2)


def test_the_belief_at_the_start_is_a_distribution_that_favours_no_random_lobe():
    mixture, start = beam_networks.prior()
    assert mixture.shape == (beam_networks.RANDOM + beam_networks.NARROW, 8, 4)
    assert np.exp(start).sum() == pytest.approx(1) and np.ptp(start[: beam_networks.RANDOM]) == 0
    height, along, across, variance = mixture[beam_networks.RANDOM, 0]
    assert height == pytest.approx(np.log(2) / 3) and (along, across, variance) == (0.85, 0.0, 0.1)


def test_a_known_lobe_is_used_where_it_is():
    """The beam goes to the lobe's place as the good bond sees it."""
    for along, across in ((0.85, 0.0), (0.3, 1.2), (-0.7, 0.9)):
        mover = Mover(RateBelief(lobe(0.3, along, across, 0.1), np.zeros(1)))
        grid, spots = mover.belief.grid, len(mover.belief.grid)
        number = mover.candidates(mover.memory(1)[0], mover.belief.tables()[1], torch.tensor([[5.0, -2.0, -3.0]]), torch.tensor([[2.0, 0.1, 10.0]]), torch.ones(1, 1))[0]
        best = grid[int(number[0, 0]) % spots]
        assert float(torch.hypot(best[0] - along, best[1] - across)) < 0.45


# ---- rules ----


def test_a_rule_that_learns_beats_the_fixed_one_where_rates_are_random():
    learning, fixed = seconds(BayesianGreedy(), "mixture", 48, 500), seconds(FixedGreedy(), "mixture", 48, 500)
    assert learning.mean() < 0.8 * fixed.mean()


def test_random_places_are_far_worse_than_the_greedy_rule():
    assert seconds(RandomNearby(), "published", 16).mean() > 2 * seconds(greedy_published(), "published", 16).mean()


def test_rules_for_one_atom_refuse_others():
    for scenario in ("pattern-2", "both"):
        with pytest.raises(ProbeGymError, match="one atom"):
            evaluate(BayesianGreedy(), ENV_ID, scenario, 2, 0)


@pytest.mark.parametrize("scenario", ["both", "pattern-3"])
def test_fixed_rules_work_in_every_state_scenario(scenario):
    envs = gym.make_vec(ENV_ID, num_envs=8, scenario=scenario, autoreset_mode="Disabled")
    seen, _ = envs.reset(seed=0)
    for _ in range(12):
        seen, _, _, _, info = envs.step(FixedGreedy((0.85, 0.3)).act(seen, envs.episodes))
    assert info["moves"].sum() > 5 or scenario == "both"


def test_a_place_is_the_same_in_both_axes(tmp_path):
    """Along and across the bond: the beam ends at the same place whether the task speaks of the lattice or of the image."""
    where = {}
    for axes in ("lattice", "image"):
        own = written(tmp_path, f"  extends: published\n  task: {{axes: {axes}}}\n")
        envs = gym.make_vec(ENV_ID, num_envs=8, scenario=own, autoreset_mode="Disabled")
        seen, _ = envs.reset(seed=4)
        envs.step(FixedGreedy((0.85, 0.4)).act(seen, envs.episodes))
        where[axes] = envs.episodes.memory["place"].copy()
    np.testing.assert_allclose(where["lattice"], where["image"], atol=1e-16 * 1e6)


# ---- training ----


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(train_beam.Trainer, "worlds", 6)
    monkeypatch.setattr(train_beam, "prior", lambda: beam_networks.prior(32, 4))
    return BeamTraining(scenario="mixture", updates=2)


def test_training_goes_on_from_its_checkpoint_as_if_it_had_never_stopped(small, tmp_path):
    stopped_and_resumed(Trainer, small, tmp_path)


def test_the_bundle_acts_as_the_torch_policy(small, tmp_path):
    trainer = Trainer(small, tmp_path)
    torch.nn.init.normal_(trainer.policy.network[-1].weight)
    folder = trainer.finish(tmp_path / "policy", "a command", 2)
    policy, student = BundlePolicy(folder), Student(trainer.policy)
    envs = gym.make_vec(ENV_ID, num_envs=5, scenario="mixture", autoreset_mode="Disabled")
    seen, _ = envs.reset(seed=1)
    policy.begin(5, 0), student.begin(5, 0)
    for _ in range(6):
        action = student.act(seen, envs.episodes)
        np.testing.assert_allclose(policy.act(seen, envs.episodes), action, atol=1e-4)
        seen, *_ = envs.step(action)


def test_the_critic_is_told_how_fast_an_atom_can_go(small, tmp_path):
    trainer = Trainer(small, tmp_path)
    trainer.envs.reset(seed=list(range(12)))
    told = Trainer._speeds(trainer.envs.episodes)
    peak = trainer.envs.episodes.truth["lobe"][::2].max((1, 2))
    assert told.shape == (12, 4) and np.corrcoef(told[::2, 0], np.log(peak))[0, 1] > 0.3
    np.testing.assert_array_equal(told[::2], told[1::2])


def test_training_refuses_what_it_cannot_train(tmp_path):
    with pytest.raises(ProbeGymError, match="one atom"):
        Trainer(BeamTraining(scenario="pattern-2"), tmp_path)
    with pytest.raises(ProbeGymError, match="seed"):
        Trainer(BeamTraining(seed=8, updates=20_000), tmp_path)


# ---- the shipped policy ----


@pytest.fixture(scope="module")
def shipped():
    return BundlePolicy("beam-manipulation")


def test_the_shipped_policy_needs_far_less_than_the_fixed_rule(shipped):
    policy, fixed = seconds(shipped, "id", 32, 700), seconds(FixedGreedy((1.0, 0.0)), "id", 32, 700)
    assert policy.mean() < 0.75 * fixed.mean()


def test_the_shipped_policy_masters_the_published_rates(shipped):
    policy, greedy = seconds(shipped, "published", 48, 300), seconds(greedy_published(), "published", 48, 300)
    assert (policy < 600).all() and np.median(policy) <= np.median(greedy) * 1.1


def test_the_shipped_policy_refuses_other_controls(shipped):
    with pytest.raises(ProbeGymError, match="other controls"):
        evaluate(shipped, ENV_ID, "pattern-2", 2, 0)


def test_nothing_is_faster_than_the_oracle_by_much(shipped):
    assert seconds(OracleAgent(), "mixture", 12, 40).mean() < seconds(shipped, "mixture", 12, 40).mean() * 1.2
