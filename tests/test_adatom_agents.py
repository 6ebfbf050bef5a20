"""Agents of AdatomManipulation: scripts, the builder's paths, hindsight replay, networks, the shipped policies."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest

from probegym.agents import assembly
from probegym.agents.base import OracleAgent
from probegym.agents.baselines_adatoms import FixedDrag, GridTable, Recipe
from probegym.agents.bundle import BundlePolicy
from probegym.agents.evaluate import evaluate
from probegym.errors import ProbeGymError

ENV_ID = "probegym/AdatomManipulation-v0"


def batch(lanes: int, scenario: str = "steady-tip", **options):
    return gym.make_vec(ENV_ID, num_envs=lanes, scenario=scenario, autoreset_mode="Disabled", **options)


# ---- scripts ----


def test_a_straight_drag_ends_beyond_its_goal_and_starts_behind_its_atom():
    envs = batch(16)
    seen, _ = envs.reset(seed=0)
    task, m = envs.episodes.task, envs.episodes.memory
    action = FixedDrag(Recipe(7e-3, 5e-6, 0.1e-9, 0.05e-9)).act(seen, envs.episodes)
    start, end, bias, conductance = task.drag(action, m["position"][:, 0])
    way = (m["goal"] - m["position"])[:, 0]
    ahead = way / np.hypot(*way.T)[:, None]
    assert start == pytest.approx(m["position"][:, 0] - 0.1e-9 * ahead, abs=1e-15) and (bias == pytest.approx(7e-3)) and conductance == pytest.approx(5e-6)
    near = (np.abs(end - m["position"][:, 0]) < 1.99e-9).all(1)
    assert near.sum() > 8 and end[near] == pytest.approx((m["goal"][:, 0] + 0.05e-9 * ahead)[near], abs=1e-15)


def test_the_table_goes_by_the_distance():
    table = GridTable((Recipe(5e-3, 3e-6), Recipe(15e-3, 6e-6)), (1e-9,))
    assert [r.bias for r in table.recipe(np.array([0.5e-9, 1.5e-9]))] == [5e-3, 15e-3]
    with pytest.raises(ProbeGymError, match="part 2 ranges"):
        GridTable((Recipe(5e-3, 3e-6),), (1e-9,))


def test_scripts_say_when_no_places_are_shown():
    with pytest.raises(ProbeGymError, match="shows an image"):
        evaluate(FixedDrag(), ENV_ID, "image-id", 4)


def test_the_oracle_puts_atoms_on_the_nearest_site_whatever_the_tip():
    for scenario in ("steady-tip", "tip-change"):
        oracle = evaluate(OracleAgent(), ENV_ID, scenario, 48, seed=0)
        assert oracle.success.mean() > 0.95 and np.median(oracle.metrics["error"]) < 90e-12
    fixed = evaluate(FixedDrag(), ENV_ID, "tip-change", 96, seed=0)
    assert fixed.success.mean() < 0.9 and evaluate(FixedDrag(), ENV_ID, "steady-tip", 96, seed=0).success.mean() > 0.95


# ---- patterns ----


def test_paths_keep_out_and_have_short_steps():
    rng, found = np.random.default_rng(0), 0
    for _ in range(60):
        start, goal, *others = rng.uniform(-4e-9, 4e-9, (6, 2))
        others = np.array([o for o in others if min(np.hypot(*(o - start)), np.hypot(*(o - goal))) > 1e-9])
        way = assembly.path(start, goal, others, 5e-9, 1e-9, rng)
        if way is None:
            continue
        found += 1
        knees = np.vstack([start, way])
        assert np.hypot(*np.diff(knees, axis=0).T).max() <= 2e-9 * (1 + 1e-9) and way[-1] == pytest.approx(goal, abs=1e-18)
        if len(others):
            along = (knees[:-1, None] + np.diff(knees, axis=0)[:, None] * np.linspace(0, 1, 50)[:, None]).reshape(-1, 2)
            assert np.hypot(*np.moveaxis(along[:, None] - others, -1, 0)).min() > 0.999e-9
    assert found > 50


def test_a_walled_in_atom_has_no_path():
    ring = 1.5e-9 * np.stack([np.cos(np.linspace(0, 2 * np.pi, 16)), np.sin(np.linspace(0, 2 * np.pi, 16))], 1)
    rng = np.random.default_rng(0)
    assert assembly.path(np.zeros(2), np.array([4e-9, 0]), ring, 5e-9, 1e-9, rng) is None
    assert assembly.path(np.zeros(2), np.array([0.3e-9, 0]), ring, 5e-9, 1e-9, rng) is not None


def test_the_builder_assembles_a_triangle_and_goes_round_other_atoms():
    built = evaluate(assembly.Builder(), ENV_ID, "assembly-3", 64, seed=0)
    straight = evaluate(FixedDrag(), ENV_ID, "assembly-3", 64, seed=0)
    assert built.success.mean() > 0.75 and built.costs["damage"].sum() < straight.costs["damage"].sum()
    with pytest.raises(ProbeGymError, match="assembly"):
        evaluate(assembly.Builder(), ENV_ID, "steady-tip", 4)


# ---- learning ----


def test_hindsight_pays_and_ends_as_the_task_would(tmp_path):
    import torch

    from probegym.agents import sb3

    torch.set_num_threads(1)
    model = sb3.build(sb3.Training(ENV_ID, "train", "sac", 4000), tmp_path)
    model.learning_starts = 10**9
    model.learn(960)
    buffer, task = model.replay_buffer, model.env.unwrapped.envs.episodes.task
    valid = np.argwhere(buffer.ep_length > 0)
    rows, lanes = valid[np.random.default_rng(0).integers(len(valid), size=1500)].T
    np.random.seed(0)
    seen = buffer._get_virtual_samples(rows, lanes)
    goal, before, after = (t.numpy() for t in (seen.observations["desired_goal"], seen.observations["achieved_goal"], seen.next_observations["achieved_goal"]))
    assert np.array_equal(goal, seen.next_observations["desired_goal"].numpy())
    far = np.hypot(*(after - goal).T)
    told = np.where(far < task.goals.tolerance, 1, -1) + task.goals.scale * (np.hypot(*(before - goal).T) - far)
    assert seen.rewards.numpy()[:, 0] == pytest.approx(told, abs=1e-4)
    ended = seen.dones.numpy()[:, 0] > 0
    assert ended[far < task.goals.tolerance].all() and 0.3 < ended.mean() < 1
    own = np.hypot(*(after - buffer.observations["desired_goal"][rows, lanes]).T) < task.goals.tolerance
    assert not ended[own & (far >= task.goals.tolerance)].any()


def test_the_actor_starts_from_the_straight_drag(tmp_path):
    import torch

    from probegym.agents import sb3

    model = sb3.build(sb3.Training(ENV_ID, "train", "sac", 64), tmp_path)
    seen = model.env.reset()
    with torch.no_grad():
        action = model.policy._predict({name: torch.from_numpy(v) for name, v in seen.items()}, deterministic=True).numpy()
    task, goal = model.env.unwrapped.envs.episodes.task, seen["desired_goal"]
    start, end, bias, conductance = task.drag(action, np.zeros((len(action), 2)))
    ahead = goal / np.hypot(*goal.T)[:, None]
    assert end / task.settings.unit == pytest.approx(np.clip(goal, -0.97, 0.97), abs=1e-5) and start == pytest.approx(-0.2e-9 * ahead, abs=1e-15)
    assert bias == pytest.approx(10e-3) and conductance == pytest.approx(4e-6, rel=0.01)


def test_sac_with_hindsight_trains_and_ships_a_policy(tmp_path):
    from probegym.agents import sb3

    training = sb3.Training(ENV_ID, "train", "sac", 96)
    model = sb3.train_sb3(training, tmp_path)
    folder = sb3.export_sb3(model, training, tmp_path / "policy", "probegym train AdatomManipulation")
    policy = BundlePolicy(str(folder))
    results = evaluate(policy, ENV_ID, "train", 8)
    assert policy.spec["algorithm"] == "sac" and len(results.success) == 8
    with pytest.raises(ProbeGymError, match="observation"):
        evaluate(policy, ENV_ID, "trace", 4)


# ---- shipped policies ----


def test_the_shipped_policy_moves_atoms_home_and_makes_up_for_the_tip():
    policy, oracle = (evaluate(agent, ENV_ID, "steady-tip", 192) for agent in (BundlePolicy("adatom-manipulation"), OracleAgent()))
    assert policy.success.mean() > 0.95 and policy.metrics["error"].mean() < 1.15 * oracle.metrics["error"].mean()
    changed = evaluate(BundlePolicy("adatom-manipulation"), ENV_ID, "tip-change", 128)
    assert changed.success.mean() > evaluate(FixedDrag(), ENV_ID, "tip-change", 128).success.mean() + 0.1


def test_the_policy_that_sees_traces_keeps_its_success_when_the_tip_changes():
    before, after = (evaluate(BundlePolicy("adatom-manipulation-trace"), ENV_ID, name, 192).success.mean() for name in ("trace-steady-tip", "trace-tip-change"))
    assert before > 0.95 and before - after < 0.15


@pytest.mark.parametrize("name", ["adatom-manipulation", "adatom-manipulation-trace", "adatom-manipulation-chen"])
def test_bundles_are_small_and_carry_their_command(name):
    policy = BundlePolicy(name)
    assert sum(path.stat().st_size for path in policy.folder.iterdir()) < 700_000
    assert policy.spec["command"].startswith("probegym train AdatomManipulation-v0 --algorithm sac") and "--out runs/" in policy.spec["command"]


def test_the_policy_of_the_published_state_moves_atoms_home():
    policy, oracle = (evaluate(agent, ENV_ID, "chen", 192) for agent in (BundlePolicy("adatom-manipulation-chen"), OracleAgent()))
    assert policy.success.mean() > 0.95 and policy.metrics["error"].mean() < 1.15 * oracle.metrics["error"].mean()
    assert not policy.metrics["tip_changes"].any()  # always the same tip


def test_a_steady_tip_is_steady_at_the_highest_current():
    hardest = FixedDrag(Recipe(15e-3, 6e-6, 0.3e-9))
    assert not evaluate(hardest, ENV_ID, "steady-tip", 192).metrics["tip_changes"].any()
    assert evaluate(hardest, ENV_ID, "id", 192).metrics["tip_changes"].mean() > 0.3
