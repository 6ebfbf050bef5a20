"""BeamManipulation: the lattice that it counts on, what a dwell does, drift, goals, patterns, images, rewards, refusals."""

from __future__ import annotations

from collections import deque
from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest

import probegym  # noqa: F401  registers the environments
from probegym import scenarios
from probegym.agents.baselines_beam import FixedGreedy, greedy_published
from probegym.agents.evaluate import evaluate
from probegym.envs import beam_lattice
from probegym.envs.beam_manipulation import BeamManipulation
from probegym.envs.beam_settings import BOND
from probegym.errors import ProbeGymError
from probegym.hardware_bridge.world import Refused

ENV_ID = "probegym/BeamManipulation-v0"
BLANK = np.array([0, 0, -1], np.float32)


def batch(scenario: str, lanes: int, seed: int = 0, **options):
    envs = gym.make_vec(ENV_ID, num_envs=lanes, scenario=scenario, autoreset_mode="Disabled", **options)
    return envs, envs.reset(seed=seed)[0]


def written(folder, text: str) -> str:
    (folder / "own.yaml").write_text(f"own:\n  description: a test\n{text}")
    return f"{folder / 'own.yaml'}:own"


def dwelling(envs, place, seconds: float) -> np.ndarray:
    lanes = envs.num_envs
    return envs.episodes.task.action(BOND * np.broadcast_to(place, (lanes, 2)), np.full(lanes, seconds), np.zeros(lanes, int))


# ---- scenarios ----


SHIFTED = [("drift", ("drift",)), ("misplacement", ("misplacement",)), ("misplacement", ("offset",)), ("rates", ("rates", "variance"))]


@pytest.mark.parametrize(("axis", "path"), SHIFTED)
def test_shifts_lie_outside_what_train_draws_and_far_ones_beyond_near_ones(axis, path):
    def ends(name: str) -> tuple[float, float]:
        value = scenarios.load("beam_manipulation", name).world
        for key in path:
            value = value[key]
        return min(value["uniform"]), max(value["uniform"])

    train, near, far = (ends(name) for name in ("train", f"near-{axis}", f"far-{axis}"))
    assert train[1] <= near[0] < near[1] <= far[0] < far[1] or train[0] >= near[1] > near[0] >= far[1] > far[0]


# ---- the lattice ----


def honeycomb(radius: int) -> dict[tuple[int, int, int], int]:
    """Bonds from site (0, 0, 0) to others by breadth-first search; a site is its steps along the three directions."""
    away, queue = {(0, 0, 0): 0}, deque([(0, 0, 0)])
    while queue:
        here = queue.popleft()
        sign = 1 if sum(here) == 0 else -1
        for k in range(3):
            there = tuple(here[j] + sign * (j == k) for j in range(3))
            if there not in away and away[here] < radius:
                away[there] = away[here] + 1
                queue.append(there)
    return away


def test_bonds_to_a_site_are_the_shortest_path():
    axis = np.array([np.cos(0.4), np.sin(0.4)])
    for count, away in honeycomb(7).items():
        place = beam_lattice.site(np.array(count, float), axis)
        found = beam_lattice.steps(place, axis)
        assert np.abs(found).sum() == away and found.sum() in (0, 1)
        np.testing.assert_allclose(beam_lattice.site(found, axis), place, atol=1e-9)


def test_a_noisy_place_is_assigned_to_its_nearest_site():
    rng = np.random.default_rng(1)
    counts = np.array(list(honeycomb(6)), float)
    axis = np.array([0.6, 0.8])
    sites = beam_lattice.site(counts, axis)
    noisy = sites + 0.12 * rng.uniform(-1, 1, (200, len(sites), 2))
    np.testing.assert_array_equal(beam_lattice.steps(noisy, axis), np.broadcast_to(counts, noisy.shape[:2] + (3,)))


def test_turning_there_and_back():
    rng = np.random.default_rng(2)
    vector, angle = rng.normal(size=(50, 2)), rng.uniform(0, 7, 50)
    axis = np.column_stack([np.cos(angle), np.sin(angle)])
    np.testing.assert_allclose(beam_lattice.seen_from(beam_lattice.turned(vector, axis), axis), vector, atol=1e-12)
    np.testing.assert_allclose(beam_lattice.seen_from(axis, axis), np.tile([1.0, 0.0], (50, 1)), atol=1e-12)


def test_goals_are_free_sites_of_the_first_image_apart_from_each_other():
    envs, _ = batch("pattern-3", 100)
    m, s = envs.episodes.memory, envs.episodes.task.settings
    goals = m["goals"] + m["anchor"][:, None]
    assert np.abs(goals).max() <= 0.5 * s.goal_field * s.frame.field_of_view
    for i in range(3):
        for j in range(3):
            assert i == j or np.hypot(*(m["goals"][:, i] - m["goals"][:, j]).T).min() > 1.5 * BOND
            assert np.hypot(*(m["goals"][:, i] - m["at"][:, j]).T).min() > 0.5 * BOND
    truth = envs.episodes.truth
    lattice = beam_lattice.steps((goals - truth["position"][:, :1]) / BOND, m["axis"][:, :1])
    apart = goals - truth["position"][:, :1] - BOND * beam_lattice.site(lattice, m["axis"][:, :1])
    assert np.hypot(*np.moveaxis(apart, -1, 0)).max() < 0.6e-10  # the error of the finder


def test_a_single_goal_is_anywhere_in_the_field():
    envs, _ = batch("published", 400)
    m = envs.episodes.memory
    goals = 1e10 * (m["goals"][:, 0] + m["anchor"])
    assert np.abs(goals).max() <= 10 and (np.histogram2d(*goals.T, bins=2, range=[[-10, 10]] * 2)[0] > 70).all()


def test_the_frame_points_to_the_neighbour_nearest_the_goal():
    _, seen = batch("train", 200)
    u = beam_lattice.bonds(np.array([1.0, 0.0]))
    along = seen["goal"][:, 0] @ u.T
    assert (along[:, 0] >= along.max(1) - 1e-4).all() and (seen["bonds"][:, 0, 0] > 0).all()
    np.testing.assert_allclose(beam_lattice.site(seen["bonds"][:, 0].astype(float), np.array([1.0, 0.0])), seen["goal"][:, 0], atol=0.05)


# ---- what a dwell does ----


def test_the_beam_on_a_neighbour_moves_the_atom_there():
    envs, _ = batch("published", 1000)
    seen = envs.step(dwelling(envs, (0.85, 0), 1.5))[0]
    stayed, ahead, others = seen["outcome"][:, 0].mean(), seen["outcome"][:, 1].mean(), seen["outcome"][:, 2:].sum(1).mean()
    assert others < 0.01 and abs(ahead - (1 - 0.5**0.5)) < 0.05 and stayed + ahead > 0.99  # half-life 3 s


@pytest.mark.parametrize("bond", [1, 2])
def test_the_other_two_bonds_count_counterclockwise(bond):
    envs, _ = batch("published", 300)
    angle = 2 * np.pi * bond / 3
    seen = envs.step(dwelling(envs, (0.85 * np.cos(angle), 0.85 * np.sin(angle)), 1.5))[0]
    assert seen["outcome"][:, 1 + bond].mean() > 0.2 and seen["outcome"][:, 1:].sum(1).mean() - seen["outcome"][:, 1 + bond].mean() < 0.02


def test_what_moved_is_what_the_hidden_state_did():
    envs, seen = batch("train", 300)
    before, axis = envs.episodes.truth["site"].copy(), seen["axis"][:, 0].astype(float)
    place = envs.episodes.truth["position"][:, 0].copy()
    seen, *_ = envs.step(dwelling(envs, (0.9, 0.2), 3.0))
    truth = envs.episodes.truth
    moved = (truth["site"] != before).any((1, 2))
    found = seen["found"][:, 0] > 0
    jump = (truth["position"][:, 0] - place - 5 * truth["velocity"]) / BOND
    steps = beam_lattice.steps(jump, axis)
    ordinary = found & (truth["folds"][:, 0] == 3)
    assert moved.sum() > 50
    np.testing.assert_array_equal((seen["outcome"][:, 0] < 0.5)[ordinary], moved[ordinary])
    for k in range(3):
        np.testing.assert_array_equal((seen["outcome"][:, 1 + k] > 0.5)[ordinary], (steps == np.eye(3)[k]).all(1)[ordinary])


def test_blank_beams_change_nothing_and_cost_an_image():
    envs, _ = batch("published-simple", 50)
    before = envs.episodes.truth["site"].copy()
    after, _, _, _, info = envs.step(np.tile(BLANK, (50, 1)))
    np.testing.assert_array_equal(envs.episodes.truth["site"], before)
    assert (info["time"] == 4).all() and (info["dwells"] == 0).all() and (after["dwelt"] == 0).all() and (after["outcome"][:, 0] == 1).all()


def test_dwells_are_logarithmic_between_their_limits():
    envs, _ = batch("published-free", 3)
    actions = np.zeros((3, 3), np.float32)
    actions[:, 2] = (-0.89999, 0.05, 1.0)
    np.testing.assert_allclose(envs.step(actions)[0]["dwelt"][:, 0], (0.1, 1.0, 10.0), rtol=1e-3)


def test_time_is_that_of_dwells_and_images():
    env = gym.make(ENV_ID, scenario="published").unwrapped
    env.reset(seed=0)
    times = [env.step(dwelling_one(env, (0.0, -1.9), 1.5))[4]["time"] for _ in range(3)]
    np.testing.assert_allclose(times, [2 + 3.5, 2 + 7, 2 + 10.5])


def test_no_step_goes_beyond_the_budget_where_the_instrument_needs_time_of_its_own(tmp_path):
    own = written(tmp_path, "  extends: published-free\n  budget: {time: 52.1}\n  world: {image_overhead: 3.0, dwell_overhead: 4.0, rates: {max_rate: 0.0}}\n")
    envs, _ = batch(own, 3)
    actions = np.concatenate([dwelling(envs, (0.85, 0), seconds)[:1] for seconds in (2.0, 7.0, 1.0)])
    actions[2] = BLANK
    time, steps = np.zeros(3), np.zeros(3)
    for step in range(1, 10):
        _, _, _, truncated, info = envs.step(actions)
        time, steps = np.where(truncated, info["time"], time), np.where(truncated, step, steps)
    np.testing.assert_allclose(time, [5 + 4 * 11, 5 + 2 * 16, 5 + 9 * 5], atol=0.01)  # what fits is done, and nothing else
    np.testing.assert_array_equal(steps, [4, 3, 9])  # an image would still fit in the second: its third dwell is asked for in vain


def dwelling_one(env, place, seconds: float) -> np.ndarray:
    return env.episodes.task.action(BOND * np.array([place]), np.array([seconds]), np.zeros(1, int))[0]


# ---- drift, the finder, the field ----


def test_drift_is_followed_without_false_moves(tmp_path):
    own = written(tmp_path, "  extends: published\n  world: {drift: 5.0e-12, finder_error: 8.0e-12, miss: 0.05}\n")
    envs, _ = batch(own, 40)
    for _ in range(60):
        seen, _, _, _, info = envs.step(np.tile(BLANK, (40, 1)))
    assert (info["moves"] == 0).all() and (info["bonds_left"] > 0).all()
    m, truth = envs.episodes.memory, envs.episodes.truth
    np.testing.assert_allclose(m["velocity"], truth["velocity"], atol=0.6e-12)
    speed = np.hypot(*seen["drift"][:, 0].T) * BOND
    np.testing.assert_allclose(speed, 5e-12, atol=0.6e-12)


def test_an_aim_that_leads_hits_where_one_that_does_not_misses(tmp_path):
    own = written(tmp_path, "  extends: published-free\n  world: {drift: 20.0e-12, rates: {max_rate: 0.5}}\n  task: {watch: 3}\n")
    seconds = {}
    for leads in (True, False):
        results = evaluate(FixedGreedy((0.85, 0.0), 5.0, leads), ENV_ID, own, 64, 0)
        seconds[leads] = np.where(results.success, results.costs["time"], 600).mean()
    assert seconds[True] < 0.8 * seconds[False]


def test_the_field_follows_the_atom():
    envs, _ = batch("published", 16)
    agent, s = greedy_published(), envs.episodes.task.settings
    agent.begin(16, 0)
    seen, moved = envs.reset(seed=3)[0], False
    for _ in range(30):
        seen, *_ = envs.step(agent.act(seen, envs.episodes))
        m = envs.episodes.memory
        assert (np.abs(m["located"][:, 0] - m["centre"]).max(1) <= 0.25 * s.frame.field_of_view).all()
        moved |= (m["centre"] != 0).any()
    assert moved


def test_an_atom_that_is_not_seen_any_more_is_given_up():
    env = gym.make(ENV_ID, scenario="published").unwrapped
    env.reset(seed=0)
    env.episodes.world.state["noise"][:, 3] = 1.0  # the finder misses it from now on
    for step in range(10):
        seen, reward, terminated, _, info = env.step(BLANK)
        assert seen["found"][0] == 0 and not seen["outcome"].any() and terminated == (step == 9)
    assert not info["is_success"] and reward < -0.9


def test_a_field_without_the_atom_is_refused(tmp_path):
    own = written(tmp_path, "  extends: published\n  world: {miss: 1.0}\n")
    with pytest.raises(ProbeGymError, match="10 images"):
        gym.make(ENV_ID, scenario=own).reset(seed=0)


# ---- success, rewards ----


def test_the_greedy_rule_succeeds_always_with_the_published_rates():
    results = evaluate(greedy_published(), ENV_ID, "published", 64, 0)
    assert results.success.all() and results.metrics["distance"].max() < 0.71e-10
    assert 70 < np.median(results.costs["time"]) < 120 and (results.costs["damage"] == 0).all()


def test_success_is_where_the_atom_is_and_not_where_the_finder_takes_it_to_be(tmp_path):
    """A drift of most of a bond in the first dwell looks like a jump: the finder reports goals that no atom has come to."""
    world = "{drift: 12.0e-12, rates: {max_rate: 0.0}}"
    own = written(tmp_path, f"  extends: published-free\n  task: {{goal_distance: 2.9e-10}}\n  world: {world}\n")
    envs, _ = batch(own, 400)
    _, _, terminated, _, info = envs.step(dwelling(envs, (0, -1.9), 10.0))
    assert terminated.sum() > 10 and (info["bonds_left"][terminated] == 0).all() and not envs.episodes.truth["events"].any()
    assert (info["distance"][terminated] > 0.71e-10).all() and not info["is_success"].any()
    assert (info["reward_failure"][terminated] == -1).all() and not info["reward_goal"].any()


def test_the_goal_is_worth_less_with_every_second_and_the_way_adds_up():
    env = gym.make(ENV_ID, scenario="published").unwrapped
    seen, info = env.reset(seed=5)
    start, agent, nearer, terminated = info["distance"], greedy_published(), 0.0, False
    while not terminated:
        action = agent.act({name: value[None] for name, value in seen.items()}, env.episodes)[0]
        seen, _, terminated, _, info = env.step(action)
        nearer += info["reward_nearer"]
    assert info["is_success"] and info["reward_goal"] == pytest.approx(0.9967 ** info["time"])
    assert nearer == pytest.approx(0.02 * (start - info["distance"]) / BOND, abs=1e-9)


def test_the_observable_reward_pays_for_bonds_as_located():
    envs, seen = batch("published", 100, reward="observable")
    before = np.abs(seen["bonds"]).sum((1, 2))
    seen, _, _, _, info = envs.step(dwelling(envs, (0.85, 0), 1.5))
    nearer = before - np.abs(seen["bonds"]).sum((1, 2))
    assert (nearer > 0).sum() > 10
    np.testing.assert_allclose(info["reward_nearer"], 0.02 * nearer, atol=1e-9)


def test_damage_costs(tmp_path):
    own = written(tmp_path, "  extends: published-free\n  world: {cross_sections: {ejection: {threshold: 17.5, velocity: 5.0e+5, factor: 5.0e+3}}}\n")
    envs, _ = batch(own, 40)
    _, _, _, _, info = envs.step(dwelling(envs, (1.8, 1.0), 10.0))
    assert info["damage"].sum() > 10
    np.testing.assert_allclose(info["reward_damage"], -0.2 * info["damage"])


def test_the_oracle_needs_much_less_than_a_fixed_place_where_rates_are_random():
    from probegym.agents.base import OracleAgent

    seconds = {}
    for name, agent in {"oracle": OracleAgent(), "greedy": FixedGreedy()}.items():
        results = evaluate(agent, ENV_ID, "mixture", 24, 100)
        seconds[name] = np.where(results.success, results.costs["time"], 600).mean()
    assert seconds["oracle"] < 0.6 * seconds["greedy"]


# ---- several atoms ----


def test_atoms_are_assigned_with_the_fewest_bonds():
    envs, seen = batch("pattern-2", 100)
    m = envs.episodes.memory
    apart = (m["goals"][:, None] - m["at"][:, :, None]) / BOND
    total = np.abs(beam_lattice.steps(apart, m["axis"][:, :, None])).sum(3)
    least = np.minimum(total[:, 0, 0] + total[:, 1, 1], total[:, 0, 1] + total[:, 1, 0])
    np.testing.assert_array_equal(np.abs(seen["bonds"]).sum((1, 2)), least)


def test_the_highest_number_is_the_atom_that_is_treated():
    envs, seen = batch("pattern-2", 200)
    actions = dwelling(envs, (0.85, 0), 3.0)
    actions[:, 3:] = np.where(np.arange(200)[:, None] % 2 == np.arange(2), 0.5, -0.5)
    before = envs.episodes.truth["site"].copy()
    seen, *_ = envs.step(actions)
    moved = (envs.episodes.truth["site"] != before).any(2)
    treated = np.arange(200) % 2
    np.testing.assert_array_equal(seen["treated"].argmax(1), treated)
    assert moved[np.arange(200), treated].mean() > 0.3 and moved[np.arange(200), 1 - treated].mean() < 0.02


def test_a_pattern_is_finished_when_every_goal_is_occupied():
    results = evaluate(FixedGreedy(), ENV_ID, "pattern-2", 24, 0)
    assert results.success.mean() > 0.9 and (results.metrics["distance"][results.success] < 2 * 0.71e-10).all()


# ---- images ----


def test_the_image_shows_the_atom_and_the_goal_where_they_are():
    envs, seen = batch("image", 30)
    m, f = envs.episodes.memory, envs.episodes.task.settings.frame
    for lane in range(30):
        for channel, place in ((0, m["located"][lane, 0]), (1, m["goals"][lane, 0] + m["anchor"][lane])):
            row, column = np.unravel_index(seen["image"][lane, channel].argmax(), (f.pixels, f.pixels))
            shown = (np.array([column, row]) - 0.5 * (f.pixels - 1)) * f.field_of_view / f.pixels + m["centre"][lane]
            assert np.abs(shown - place).max() < 1.0e-10
    assert set(seen) == {"image", "tried", "dwelt", "clock", "budget"}


def test_a_glance_is_the_image_in_which_the_atom_was_found():
    episodes = BeamManipulation("id").episodes
    episodes.begin(np.array([7], np.uint64), np.ones(1, bool))
    m, f = episodes.memory, episodes.task.settings.frame
    counts = episodes.world.glance(0, episodes.task.glance(m))["image"]
    row, column = np.unravel_index(counts.argmax(), counts.shape)
    shown = (np.array([column, row]) - 0.5 * (f.pixels - 1)) * f.field_of_view / f.pixels + m["centre"][0]
    assert np.abs(shown - m["located"][0, 0]).max() < 1.0e-10
    assert BeamManipulation("image").episodes.task.glance(m) is None  # it is in the observation


def test_who_cannot_be_looked_at_shows_no_image():
    episodes = BeamManipulation("id").episodes
    episodes.begin(np.array([7], np.uint64), np.ones(1, bool))
    wide = replace(episodes.task.glance(episodes.memory), field_of_view=90e-9)
    assert episodes.world.glance(0, wide) == {}


def test_in_the_axes_of_the_image_the_beam_goes_along_its_rows():
    envs, _ = batch("image", 4)
    actions = np.zeros((4, 3), np.float32)
    actions[:, 0] = 0.5
    before = envs.episodes.memory["located"][:, 0].copy()
    envs.step(actions)
    np.testing.assert_allclose(envs.episodes.memory["place"] - before, np.tile([BOND, 0], (4, 1)), atol=1e-14)


# ---- refusals ----


@pytest.mark.parametrize(("table", "told"), [
    ("{observe: image}", "axes"), ("{dwell: {shortest: 2.0, longest: 1.0}}", "shortest"), ("{dwell: {shortest: 0.0}}", "shortest"), ("{atoms: 0}", "atoms"),
    ("{tolerance: 2.0e-10}", "tolerance"), ("{reach: 0.0}", "reach"), ("{colour: red}", "colour"), ("{frame: {pixels: 4}}", "pixels"), ("{goal_distance: .nan}", "goal_distance"),
])  # fmt: skip
def test_bad_settings_are_refused(tmp_path, table, told):
    own = written(tmp_path, f"  extends: published\n  task: {table}\n")
    with pytest.raises(ProbeGymError, match=told):
        gym.make(ENV_ID, scenario=own)


def test_a_beam_outside_the_field_is_refused_and_nothing_happens(tmp_path):
    own = written(tmp_path, "  extends: published\n  world: {field: 1.0e-9, spread: 4.0e-10}\n")
    env = gym.make(ENV_ID, scenario=own).unwrapped
    for seed in range(20):
        env.reset(seed=seed)
        m = env.episodes.memory
        located, out = m["located"][0, 0], np.zeros(2)
        edge = np.abs(located).argmax()
        out[edge] = np.sign(located[edge]) * (0.52e-9 - abs(located[edge])) / BOND
        place = beam_lattice.seen_from(out, m["axis"][0, 0])
        if np.abs(place).max() < 2:
            break
    clock, before = env.episodes.truth["clock"].copy(), env.snapshot()
    with pytest.raises(Refused, match="within"):
        env.step(dwelling_one(env, place, 1.5))
    np.testing.assert_array_equal(env.episodes.world.truth()["clock"], clock)
    assert all((before.memory.arrays[name] == m[name][0]).all() for name in m)
