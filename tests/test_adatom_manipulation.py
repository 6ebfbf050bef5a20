"""What is particular to AdatomManipulation: the published state, action and reward, when images are taken, goals, patterns, ends."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest

from probegym.envs.adatom_assembly import goal_image, pattern, single
from probegym.envs.adatom_manipulation import AdatomManipulation
from probegym.envs.adatom_rewards import Goals
from probegym.envs.adatom_settings import Settings
from probegym.errors import ProbeGymError
from probegym.scenarios import load

ENV_ID = "probegym/AdatomManipulation-v0"
STILL = np.array([0, 0, 0, 0, 0, -1], np.float32)  # a drag of no length, at the least conductance


def batch(lanes: int, scenario: str = "steady-tip", **options):
    return gym.make_vec(ENV_ID, num_envs=lanes, scenario=scenario, autoreset_mode="Disabled", **options)


def mine(tmp_path, text: str) -> str:
    (tmp_path / "mine.yaml").write_text(f"mine: {text}")
    return f"{tmp_path / 'mine.yaml'}:mine"


def towards_goals(envs, conductance: float = 6e-6) -> np.ndarray:
    """Straight drags from the atoms to their goals."""
    m, task = envs.episodes.memory, envs.episodes.task
    n = len(m["drags"])
    return task.action(np.zeros((n, 2)), (m["goal"] - m["position"][:, : task.settings.atoms])[:, 0], 0.01, conductance, np.zeros(n, int))


# ---- state, action and reward as published ----


def test_the_state_is_goal_and_atom_from_the_start_in_units_of_2_nm():
    envs = batch(64, "chen")
    seen, _ = envs.reset(seed=0)
    assert set(seen) == {"observation", "achieved_goal", "desired_goal"} and seen["observation"].shape == (64, 2)
    assert (seen["achieved_goal"] == 0).all()
    m = envs.episodes.memory
    start = m["position"][:, 0].copy()
    assert seen["desired_goal"] == pytest.approx((m["goal"][:, 0] - start) / 2e-9, abs=1e-6)
    seen, *_, info = envs.step(towards_goals(envs))
    assert seen["achieved_goal"] == pytest.approx((m["position"][:, 0] - start) / 2e-9, abs=1e-6)
    truth, looked = envs.episodes.truth["position"][:, 0], info["images"] > 1
    assert looked.mean() > 0.9 and (seen["achieved_goal"] * 2e-9 + start)[looked] == pytest.approx(truth[looked], abs=60e-12)  # the finder's 10 pm per axis
    assert np.array_equal(seen["observation"], seen["achieved_goal"])


@pytest.mark.parametrize(
    ("action", "start", "end", "bias", "current"),
    [((1, -1, 0.5, -0.25, 1, 1), (0.4, -0.4), (1, -0.5), 15e-3, 90e-9), ((0, 0.5, -1, 1, -1, -1), (0, 0.2), (-2, 2), 5e-3, 15e-9),
     ((0, 0, 0, 0, 0, 0), (0, 0), (0, 0), 10e-3, 45e-9)],
)  # fmt: skip
def test_actions_span_the_published_ranges(action, start, end, bias, current):
    task = AdatomManipulation("chen").episodes.task
    position = np.array([[0.3e-9, -0.2e-9]])
    got = task.drag(np.array([action]), position)
    assert (got[0] - position)[0] == pytest.approx(1e-9 * np.array(start)) and (got[1] - position)[0] == pytest.approx(1e-9 * np.array(end))
    assert got[2][0] == pytest.approx(bias) and (got[2] * got[3])[0] == pytest.approx(current)
    assert task.action(got[0] - position, got[1] - position, got[2], got[3], np.zeros(1, int))[0] == pytest.approx(action, abs=1e-6)


def test_the_tip_stays_within_the_limits():
    task = AdatomManipulation("steady-tip").episodes.task
    start, end, *_ = task.drag(np.array([[1, 1, 1, -1, 0, 0]]), np.array([[3.3e-9, -3.0e-9]]))
    assert start[0] == pytest.approx([3.5e-9, -2.6e-9]) and end[0] == pytest.approx([3.5e-9, -3.5e-9])


def test_the_reward_is_the_published_one():
    envs = batch(128, "steady-tip")
    before, _ = envs.reset(seed=3)
    rng = np.random.default_rng(0)
    for step in range(3):
        action = towards_goals(envs) if step else rng.uniform(-1, 1, (128, 6)).astype(np.float32)
        running = ~envs._done
        after, reward, *_ = envs.step(action)
        far = [0.288e-9 / 0.288e-9 * 2 / 0.288 * np.hypot(*(seen["desired_goal"] - seen["achieved_goal"]).T) for seen in (before, after)]
        told = np.where(far[1] * 0.288 < 0.288 * np.sqrt(3) / 3, 1, -1) + far[0] - far[1]
        assert reward[running] == pytest.approx(told[running], abs=1e-5)
        before = after
    assert envs._done.any() and not envs._done.all()


def test_a_goal_is_reached_within_the_lattice_constant_over_root_three():
    goals = AdatomManipulation("chen").episodes.task.goals
    assert goals.tolerance * 2e-9 == pytest.approx(0.16628e-9, abs=1e-14)
    aside = np.array([[0.1662e-9 / 2e-9, 0.0], [0.1664e-9 / 2e-9, 0.0]])
    assert goals.reached(aside, np.zeros((2, 2))).tolist() == [True, False]


def test_rewards_for_other_goals():
    env = AdatomManipulation("steady-tip")
    first, _ = env.reset(seed=0)
    m = env.episodes.memory
    action = env.episodes.task.action(np.zeros((1, 2)), (m["goal"] - m["position"])[:, 0], 0.01, 6e-6, np.zeros(1, int))[0]
    seen, reward, _, _, info = env.step(action)
    assert env.compute_reward(seen["achieved_goal"], seen["desired_goal"], info) == reward
    there = env.compute_reward(seen["achieved_goal"], seen["achieved_goal"], info)
    moved = np.hypot(*(seen["achieved_goal"] - first["achieved_goal"]))
    assert moved > 0.05 and there == pytest.approx(1 + moved * 2 / 0.288, abs=1e-5)
    several = env.compute_reward(np.stack([seen["achieved_goal"]] * 2), np.stack([seen["desired_goal"], seen["achieved_goal"]]), [info, info])
    assert several.tolist() == [reward, there]
    assert not hasattr(AdatomManipulation("image-id"), "compute_reward")


def test_goals_lie_where_they_should():
    s, n = Settings(**load("adatom_manipulation", "steady-tip").task), 4000
    keys = np.arange(n, dtype=np.uint64)
    start = np.random.default_rng(0).uniform(-2.5e-9, 2.5e-9, (n, 2))
    goal = single(keys, start, s)[:, 0]
    far = np.hypot(*(goal - start).T)
    assert far.min() >= 0.288e-9 and far.max() <= 2e-9 and far.mean() == pytest.approx(1.144e-9, abs=0.03e-9)
    assert (np.abs(goal) <= 2.5e-9).mean() > 0.999
    angle = np.arctan2(*(single(keys, np.zeros((n, 2)), s)[:, 0]).T)
    assert np.abs(np.histogram(angle, 8, (-np.pi, np.pi))[0] / n - 0.125).max() < 0.02


# ---- images ----


def test_images_are_taken_when_the_trace_shows_a_move_or_by_chance(tmp_path):
    envs = batch(400, mine(tmp_path, "{extends: steady-tip, task: {look: {chance: 0.0}}}"))
    envs.reset(seed=0)
    before = envs.episodes.truth["position"].copy()
    action = towards_goals(envs)
    action[:200] = STILL
    *_, info = envs.step(action)
    looked, moved = info["images"] > 1, np.hypot(*(envs.episodes.truth["position"] - before)[:, 0].T) > 0.1e-9
    assert not moved[:200].any() and looked[:200].mean() < 0.05
    assert moved[200:].mean() > 0.9 and looked[moved].mean() > 0.95
    m = envs.episodes.memory
    assert np.array_equal(m["position"][~looked], m["start"][~looked])
    chance = batch(400, mine(tmp_path, "{extends: steady-tip, task: {look: {chance: 0.5, jump: 100}}}"))
    chance.reset(seed=0)
    *_, info = chance.step(np.tile(STILL, (400, 1)))
    assert (info["images"] > 1).mean() == pytest.approx(0.5, abs=0.1)


def test_the_last_drag_is_followed_by_an_image(tmp_path):
    envs = batch(8, mine(tmp_path, "{extends: steady-tip, task: {look: {chance: 0.0, jump: 100}}}"))
    envs.reset(seed=0)
    images = [envs.step(np.tile(STILL, (8, 1)))[4]["images"].max() for _ in range(5)]
    assert images == [1, 1, 1, 1, 2]


def test_an_image_takes_time_and_a_drag_counts():
    env = AdatomManipulation("image-id")
    _, first = env.reset(seed=0)
    assert first["measurements"] == 0 and first["time"] == pytest.approx(64 * 2 * 7e-9 / 50e-9 + 2.0)
    *_, info = env.step(np.array([0, 0, 0.5, 0, 0, 1], np.float32))
    assert info["measurements"] == 1 and info["time"] - first["time"] == pytest.approx(first["time"] + 2.0 + 1e-9 / 5e-9)


def test_a_missed_atom_is_looked_for_again_and_then_given_up(tmp_path):
    envs = batch(300, mine(tmp_path, "{extends: steady-tip, world: {miss_rate: 0.4}, task: {look: {always: true}}}"))
    envs.reset(seed=0)
    assert not envs.episodes.memory["lost"].any()
    _, _, terminated, _, info = envs.step(np.tile(STILL, (300, 1)))
    lost = envs.episodes.memory["lost"]
    assert lost.mean() == pytest.approx(0.16, abs=0.07) and terminated[lost].all() and not info["is_success"][lost].any()


def test_without_the_atom_no_episode_starts(tmp_path):
    with pytest.raises(ProbeGymError, match="has not seen 1 adatoms in 10 images"):
        batch(2, mine(tmp_path, "{extends: steady-tip, world: {miss_rate: 1.0}}")).reset(seed=0)


def test_a_glance_shows_the_atom_where_it_is_and_takes_no_image():
    env = AdatomManipulation("id")
    env.reset(seed=4)
    played = env.episodes
    before = played.ledger["time"].copy()
    height = played.world.glance(0, played.task.glance(played.memory))["height"]
    row, column = np.unravel_index(height.argmax(), (64, 64))
    assert [column, row] == pytest.approx((played.memory["position"][0, 0] + 3.5e-9) / (7e-9 / 64) - 0.5, abs=1.6)
    assert played.ledger["time"] == before and played.memory["images"] == 1


def test_the_image_shows_atom_and_goal_and_nothing_tells_places():
    env = AdatomManipulation("image-id")
    seen, _ = env.reset(seed=4)
    assert set(seen) == {"image", "observation"} and (seen["observation"] == 0).all()
    m = env.episodes.memory
    pixel = 7e-9 / 64
    for channel, place in ((0, m["position"][0, 0]), (1, m["goal"][0, 0])):
        row, column = np.unravel_index(seen["image"][channel].argmax(), (64, 64))
        if channel:
            row, column = (np.argwhere(seen["image"][1] > 127).mean(0)).tolist()
        assert [column, row] == pytest.approx((place + 3.5e-9) / pixel - 0.5, abs=1.6)


def test_the_disc_has_the_size_of_the_tolerance():
    disc = goal_image(np.array([[0.4e-9, -1.1e-9]]), 128, 7e-9, 0.166e-9)[0] / 255
    assert disc.sum() * (7e-9 / 128) ** 2 == pytest.approx(np.pi * 0.166e-9**2, rel=0.05)


# ---- what is remembered ----


def test_drags_are_remembered_the_last_one_first():
    env = AdatomManipulation("trace-id")
    env.reset(seed=2)
    actions = np.random.default_rng(1).uniform(-0.1, 0.1, (3, 6)).astype(np.float32)
    for action in actions:
        seen, *_ = env.step(action)
    records = seen["observation"][2:].reshape(4, -1)
    assert records[:3, :6] == pytest.approx(actions[::-1]) and (records[3] == 0).all()
    assert set(records[:3, 6]) <= {0.0, 1.0} and records.shape[1] == 6 + 1 + 64 + 2


def test_a_record_tells_how_far_from_the_tip_the_atom_came_to_rest():
    envs = batch(32, "chen", world=None)
    assert envs.single_observation_space["observation"].shape == (2,)
    envs = batch(32)
    envs.reset(seed=0)
    seen, *_ = envs.step(towards_goals(envs))
    m = envs.episodes.memory
    missed = (m["position"][:, 0] - m["path"][:, 1]) / 0.288e-9
    assert seen["observation"][:, 2 + 7 : 2 + 9] == pytest.approx(np.clip(missed, -10, 10), abs=1e-5)
    assert np.median(np.hypot(*missed.T)) < 0.6  # most came along


def test_the_trace_shows_whether_the_atom_came_along():
    envs = batch(512, "trace-steady-tip")
    envs.reset(seed=0)
    before = envs.episodes.truth["position"].copy()
    action = towards_goals(envs)
    action[:, 5] = np.repeat([-1, 1], 256)
    seen, *_ = envs.step(action)
    moved = np.hypot(*(envs.episodes.truth["position"] - before)[:, 0].T)
    way = np.hypot(*np.diff(envs.episodes.memory["path"], axis=1)[:, 0].T)
    last = seen["observation"][:, 2:].reshape(512, 4, -1)[:, 0, 7 + 56 : 7 + 64].mean(1)  # log10 of the current at the end, to the setpoint
    behind, along = (way > 0.8e-9) & (moved < 0.1e-9), (way > 0.8e-9) & (moved > 0.8 * way)
    assert behind.sum() > 10 and along.sum() > 50
    assert np.percentile(last[behind], 90) < np.percentile(last[along], 10)


def test_the_tip_changes_before_the_first_drag_and_only_there():
    for scenario, changed in (("tip-change", True), ("steady-tip", False)):
        env = AdatomManipulation(scenario)
        env.reset(seed=0)
        tips = [env.episodes.truth["tip"][0].copy()]
        for _ in range(2):
            env.step(STILL)
            tips.append(env.episodes.truth["tip"][0].copy())
        assert (not np.array_equal(tips[0], tips[1])) is changed and np.array_equal(tips[1], tips[2])
        assert (np.hypot(*tips[1][:2]) >= 0.1e-9) is np.bool_(changed)


# ---- the end ----


def test_an_episode_ends_at_the_goal_or_after_five_drags():
    envs = batch(200, "chen")
    envs.reset(seed=0)
    _, _, terminated, truncated, info = envs.step(towards_goals(envs))
    reached = info["distance"] < 0.288e-9 / np.sqrt(3)
    assert reached.mean() > 0.8 and np.array_equal(terminated, reached) and np.array_equal(info["is_success"], reached) and not truncated.any()
    for step in range(4):
        _, _, terminated, truncated, _ = envs.step(np.tile(STILL, (200, 1)))
        assert terminated.mean() < 0.05 and (truncated.any() == (step == 3))
    assert envs._done.all()


def test_far_from_its_start_or_outside_the_limits_an_atom_is_given_up():
    env = AdatomManipulation("chen")
    env.reset(seed=0)
    task, m = env.episodes.task, env.episodes.memory
    for where, ended in (((2.9e-9, 0), False), ((3.1e-9, 0), True), ((-2.2e-9, -2.2e-9), True)):
        m["start"][0, 0], m["position"][0, 0] = (0, 0), where
        assert task.ends(env.episodes.truth, m)[0][0] == ended
    m["start"][0, 0], m["position"][0, 0] = (2.0e-9, 0), (3.6e-9, 0)
    assert task.ends(env.episodes.truth, m)[0][0]


def test_error_is_the_hidden_distance():
    envs = batch(64, "far-noise")
    envs.reset(seed=0)
    *_, info = envs.step(towards_goals(envs))
    m = envs.episodes.memory
    assert info["error"] == pytest.approx(np.hypot(*(envs.episodes.truth["position"] - m["goal"])[:, 0].T), abs=1e-15)
    assert np.abs(info["error"] - info["distance"]).max() > 20e-12


# ---- several atoms ----


def test_patterns_are_regular_and_inside():
    s = Settings(**load("adatom_manipulation", "assembly-5").task)
    goals = pattern(np.arange(500, dtype=np.uint64), s)
    side = np.hypot(*np.moveaxis(goals - np.roll(goals, 1, 1), -1, 0))
    assert side == pytest.approx(1.5e-9) and np.abs(goals).max() <= 4e-9 and np.ptp(goals[:, 0], axis=0).min() > 3e-9


def test_several_atoms_are_assigned_such_that_the_sum_of_distances_is_least():
    from scipy.optimize import linear_sum_assignment

    rng, goals = np.random.default_rng(0), Goals(2e-9, 0.288e-9, 0.1663e-9, 4)
    atoms, places = rng.normal(size=(2, 50, 8))
    for number, total in enumerate(goals.distance(atoms, places)):
        apart = np.hypot(*np.moveaxis(atoms[number].reshape(4, 1, 2) - places[number].reshape(4, 2), -1, 0))
        assert total == pytest.approx(apart[linear_sum_assignment(apart)].sum())
    swapped = places.reshape(50, 4, 2)[:, ::-1].reshape(50, 8)
    assert goals.distance(atoms, swapped) == pytest.approx(goals.distance(atoms, places)) and goals.reached(swapped, places).all()
    swapped[:, 0] += 0.1
    assert (goals.occupied(swapped, places) == 3).all() and not goals.reached(swapped, places).any()


def test_an_action_picks_its_atom_and_moves_no_other():
    envs = batch(60, "assembly-3")
    envs.reset(seed=0)
    task = envs.episodes.task
    assert task.picks(np.linspace(-1, 1, 13)[:, None]).tolist() == [0] * 4 + [1] * 4 + [2] * 5
    before = envs.episodes.truth["position"].copy()
    action = task.action(np.zeros((60, 2)), np.tile([0.5e-9, 0], (60, 1)), 0.01, 6e-6, np.arange(60) % 3)
    envs.step(action)
    moved = np.hypot(*np.moveaxis(envs.episodes.truth["position"] - before, -1, 0)) > 0.1e-9
    assert moved.any(1).mean() > 0.8 and (moved.sum(1) <= 1).mean() > 0.9
    assert (moved.argmax(1) == np.arange(60) % 3)[moved.sum(1) == 1].all()


def test_goals_follow_the_anchor(tmp_path):
    env = AdatomManipulation(mine(tmp_path, "{extends: assembly-2, world: {drift: 3.0e-12}, task: {look: {always: true}}}"))
    first, _ = env.reset(seed=0)
    action = np.zeros(7, np.float32)
    for _ in range(3):
        seen, *_ = env.step(action)
    truth, m = env.episodes.truth, env.episodes.memory
    drifted = seen["desired_goal"] - first["desired_goal"]
    assert np.hypot(*drifted[:2]) * 2e-9 == pytest.approx(3e-12 * 24 * 3, rel=0.25)
    anchor = (m["position"] - m["start"])[0, -1]
    assert drifted * 2e-9 == pytest.approx(np.tile(anchor, 2), abs=1e-14) and truth["position"].shape == (1, 3, 2)


def test_an_assembly_is_done_when_every_goal_has_its_atom():
    env = AdatomManipulation("assembly-2")
    env.reset(seed=0)
    task, m = env.episodes.task, env.episodes.memory
    m["drags"][:] = 1
    m["position"][0, :2] = m["goal"][0, ::-1]
    task.notes.place(m, np.ones(1, bool))
    assert task.ends({}, m)[1][0]
    m["position"][0, 0] += 0.2e-9
    task.notes.place(m, np.ones(1, bool))
    assert not task.ends({}, m)[0][0]


# ---- bad input ----


@pytest.mark.parametrize(
    ("changes", "mend"),
    [("task: {limits: 0.9e-9}", "larger than margin"), ("task: {distance: [0.1e-9, 1e-9]}", "starts at its goal"), ("task: {distance: [2e-9, 1e-9]}", "low <= high"),
     ("task: {drag: {bias: [0.0, 1e-2]}}", "greater than 0"), ("task: {drag: {conductance: [6e-6, 3e-6]}}", "low <= high"), ("task: {bogus: 1}", "bogus"),
     ("task: {remembered: 0, trace: 8}", "remembered"), ("task: {trace: 200, drag: {samples: 100}}", "samples"), ("task: {anchor: true}", "anchor"),
     ("task: {shown: image, remembered: 0}", "remembered"), ("task: {look: {chance: 1.5}}", "chance"), ("task: {atoms: 5, spacing: 9e-9}", "spacing"),
     ("world: {temperature: 0}", "temperature")],
)  # fmt: skip
def test_an_impossible_scenario_is_refused_in_one_line(changes, mend, tmp_path):
    with pytest.raises(ProbeGymError, match=mend) as caught:
        AdatomManipulation(mine(tmp_path, f"{{extends: steady-tip, {changes}}}")).reset(seed=0)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "mend"),
    [("task: {drag: {conductance: [3e-6, 50e-6]}}", "contact"), ("task: {drag: {bias: [5e-3, 2.0]}}", "bias"), ("task: {atoms: 2}", "finder keeps"),
     ("task: {limits: 20e-9, margin: 1e-9}, world: {adatoms: {count: 2, sites: [[0, 0], [1e-11, 0]]}}", "overlap"),
     ("task: {drag: {speed: 1e-6, end: 20e-9, start: 20e-9}, limits: 19e-9}", "")],
)  # fmt: skip
def test_a_task_beyond_the_world_is_refused_at_reset(changes, mend, tmp_path):
    scenario = mine(tmp_path, f"{{extends: steady-tip, {changes}}}")
    if not mend:
        AdatomManipulation(scenario).reset(seed=0)
        return
    with pytest.raises(ProbeGymError, match=mend):
        AdatomManipulation(scenario).reset(seed=0)


@pytest.mark.parametrize("scenario", ["trace-id", "image-id", "assembly-3"])
def test_pictures_of_all_kinds(scenario):
    env = AdatomManipulation(scenario, render_mode="rgb_array")
    env.reset(seed=0)
    first = env.render()
    env.step(env.action_space.sample() * 0.3)
    assert first.shape == env.render().shape and not np.array_equal(first, env.render())
    env.episodes.truth = {}
    assert env.render().dtype == np.uint8


@pytest.mark.parametrize(("axis", "path"), [("threshold", ("tip", "depth")), ("drift", ("drift",)), ("noise", ("current_noise",)), ("surface", ("barrier",))])
def test_shifts_lie_outside_what_train_draws(axis, path):
    def drawn(name: str) -> tuple[float, float]:
        table = load("adatom_manipulation", name).world
        for key in path:
            table = table[key]
        return tuple(table["uniform"])

    low, high = drawn("train")
    for split in ("near", "far"):
        first, last = drawn(f"{split}-{axis}")
        assert first > high or last <= low, f"{split}-{axis} draws {first:g} to {last:g}, train {low:g} to {high:g}"


def test_tips_that_changed_for_the_worse_are_further_off_than_any_of_training():
    most = max(load("adatom_manipulation", "train").world["tip"]["offset"]["choice"])
    near, far = (load("adatom_manipulation", f"{split}-tip-change").world["tip_change"]["tip"]["offset"]["uniform"] for split in ("near", "far"))
    assert most <= near[0] and near[1] <= far[0]
