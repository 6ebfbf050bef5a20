"""What is particular to AfmTuning and its twin: lines, wear, tip changes, debris, crashes, drift, settings, rewards."""

from __future__ import annotations

import json

import gymnasium as gym
import numpy as np
import pytest

from probegym.agents.baselines_afm import FixedSettings
from probegym.agents.evaluate import evaluate
from probegym.envs.afm_tuning import NAMES, AfmTuning, AfmTuningVector
from probegym.errors import ProbeGymError
from probegym.hardware_bridge.commands import ScanLine, SetFeedback
from probegym.hardware_bridge.twins import afm
from probegym.hardware_bridge.twins.afm import AfmTwin
from probegym.hardware_bridge.world import Refused
from probegym.scenarios import load
from tests.helpers import differences, moved

ID = "probegym/AfmTuning-v0"
NM = 1e-9
ON = np.ones(1, bool)
GRATING = [{"kind": "grating", "parameters": {"depth": 10e-9, "pitch": 160e-9, "wall_angle": 1.0}}]
LITTERED = [{"kind": "terraces", "parameters": {"step_height": 0.5e-9}, "debris": 40}]
STILL = {
    "surfaces": GRATING, "stiffness": 40.0, "quality": 200.0, "quality_walk": 0.0, "detuning": 0.0, "temperature": 0.0, "sensor_noise": 0.0, "creep": 0.0,
    "drift": 0.0, "settling": 0.0, "radius": 8e-9, "blunting": 0.0, "change_rate": 0.0, "piezo_frequency": 10e3, "piezo_quality": 10.0,
}  # fmt: skip


def twin(lanes: int = 1, **changes) -> AfmTwin:
    """A twin that neither drifts nor wears nor hisses, at the start of an episode, but for ``changes`` of its world."""
    world = AfmTwin(load("afm_tuning", "id").world | STILL | changes, lanes)
    world.begin(np.arange(100, 100 + lanes, dtype=np.uint64), np.ones(lanes, bool))
    return world


def settings(integral: float = 1500.0, setpoint: float = 20 * NM, drive: float = 25 * NM, forward: float = 0.0, lanes: int = 1) -> SetFeedback:
    return SetFeedback(*(np.full(lanes, v) for v in (0.1, integral, setpoint, drive, forward)))


def line(rate: float = 8.0, lanes: int = 1, pixels: int = 64) -> ScanLine:
    return ScanLine(pixels, np.full(lanes, rate))


def scan(world: AfmTwin, lines: int = 3, rate: float = 8.0, **feedback) -> list:
    """Readings of some lines."""
    everyone = np.ones(world.lanes, bool)
    world.execute(settings(lanes=world.lanes, **feedback), everyone)
    return [world.execute(line(rate, world.lanes), everyone) for _ in range(lines)]


def errors(world: AfmTwin, first: int = 2) -> np.ndarray:
    """Rms height error of the lines from ``first`` on, m; (lanes,)."""
    seen = world.truth()
    return np.array([np.sqrt((e[first:n] ** 2).mean()) for e, n in zip(seen["errors"], seen["line"], strict=True)])


# ---- lines ----


def test_a_line_shows_the_surface_there_and_back():
    world = twin()
    seen = scan(world, rate=2.0)[-1].values
    assert seen["height"].shape == seen["amplitude_error"].shape == seen["phase"].shape == (1, 2, 64)
    for way in seen["height"][0]:
        assert np.corrcoef(way, world.truth()["profile"][0])[0, 1] > 0.97
    assert np.abs(seen["amplitude_error"]).max() < 8 * NM and 0 < seen["phase"].min() < seen["phase"].max() < np.pi


def test_what_a_line_costs():
    seen = scan(twin(), 1, rate=4.0)[0]
    assert seen.time.tolist() == [0.25] and seen.measurements.tolist() == [1.0] and seen.dose.tolist() == seen.damage.tolist() == [0.0]


def test_faster_lines_err_more():
    found = []
    for rate in (2.0, 8.0, 32.0):
        world = twin(3)
        scan(world, 4, rate)
        found.append(errors(world).mean())
    assert found[0] < 0.7 * found[1] < 0.5 * found[2]


def test_feed_forward_helps_where_lines_repeat():
    found = []
    for forward in (0.0, 0.9):
        world = twin(3, line_spacing=1e-12)
        scan(world, 6, rate=16.0, forward=forward)
        found.append(errors(world, 4).mean())
    assert found[1] < 0.7 * found[0]


def test_lanes_that_are_not_asked_stay_and_pay_nothing():
    world = twin(3)
    scan(world)
    before = [world.snapshot(lane) for lane in range(3)]
    seen = world.execute(line(lanes=3), np.array([False, True, False]))
    assert seen.time[[0, 2]].tolist() == [0, 0] and not seen.values["height"][[0, 2]].any() and seen.time[1] > 0
    for lane in (0, 2):
        assert differences(world.snapshot(lane).arrays, before[lane].arrays) == []


@pytest.mark.parametrize("entry", ["temperature", "sensor_noise", "quality_walk"])
def test_every_kind_of_noise_makes_a_difference(entry):
    steady, noisy = twin(line_spacing=1e-12), twin(line_spacing=1e-12, **{entry: {"temperature": 295.0, "sensor_noise": 1e-12, "quality_walk": 0.1}[entry]})
    apart = []
    for world in (steady, noisy):
        seen = scan(world, 6)
        apart.append(np.abs(seen[-1].values["amplitude_error"] - seen[-2].values["amplitude_error"]).max())
    assert apart[1] > 3 * apart[0]


# ---- drift ----


def test_drift_moves_the_ground():
    """After 20 pixels' worth of drift along x a line shows what lay 20 pixels further."""
    world, other = twin(), twin()
    pixel = world.config.field_of_view / 64
    world.state["velocity"][:], world.state["clock"][:] = [[pixel / 10, 0.0]], 200.0
    for w in (world, other):
        scan(w, 1)
    shown, expected = (w.truth()["profile"][0] for w in (world, other))
    assert np.abs(shown[:-20] - expected[20:]).max() < 1e-3 * np.ptp(expected)
    assert np.abs(shown - expected).max() > 0.1 * np.ptp(expected)


def test_a_stage_settles():
    world = twin(settling=20e-9, settling_time=1.0)
    places = []
    for clock in (0.0, 1.0, 100.0):
        world.state["clock"][:] = clock
        places.append(world._position()[0])
    gone = [np.hypot(*(place - places[2])) for place in places]
    assert gone == pytest.approx([20e-9, 20e-9 / np.e, 0], rel=1e-6, abs=1e-18)


def test_start_states_are_drawn_from_the_scenario():
    world = AfmTwin(load("afm_tuning", "train").world | {"rows": 16, "columns": 32}, 300)
    world.begin(np.arange(300, dtype=np.uint64), np.ones(300, bool))
    s = world.state
    assert 2 <= s["stiffness"].min() < 3 and 30 < s["stiffness"].max() <= 40 and set(s["surface"]) == set(range(5))
    assert s["frequency"] == pytest.approx(300e3 * np.sqrt(s["stiffness"] / 40))
    assert np.hypot(*s["velocity"].T).max() <= 0.1e-9 and 5e-9 <= s["tip_radius"].min() and s["tip_radius"].max() <= 15e-9


# ---- the tip ----


def test_force_blunts_the_tip_and_counts():
    world = twin(blunting=1e-2, blunting_force=50e-9, force_limit=60e-9)
    seen = scan(world, 1)[0]
    grown = world.truth()["tip_radius"][0] - 8e-9
    assert grown == pytest.approx(1e-2 * (world.truth()["peak_force"][0] - 50e-9), rel=1e-9, abs=0) and grown > 0
    assert seen.damage.tolist() == [1.0]


def test_a_blunt_tip_shows_another_picture():
    sharp, blunt = twin(), twin(radius=60e-9)
    for world in (sharp, blunt):
        scan(world, 1)
    assert np.abs(sharp.truth()["profile"] - blunt.truth()["profile"]).max() > 1 * NM


def test_tip_changes_are_events_that_alter_the_picture():
    world = twin(20, change_rate=1e3, line_spacing=1e-12)
    first = scan(world, 2)[0]
    assert (first.damage == 1).all() and len(set(world.truth()["tip_radius"].tolist())) == 20
    before = twin(20, line_spacing=1e-12)
    scan(before, 2)
    assert (np.abs(world.truth()["profile"] - before.truth()["profile"]).max(1) > 0.05 * NM).mean() > 0.9


def test_tip_changes_come_as_often_as_they_should():
    world = twin(300, change_rate=2.0, rows=16, columns=32)
    everyone = np.ones(300, bool)
    world.execute(settings(lanes=300), everyone)
    changed = np.mean([world.execute(line(8.0, 300, pixels=16), everyone).damage for _ in range(4)])
    assert changed == pytest.approx(1 - np.exp(-2.0 / 8.0), rel=0.2)


def littered(**changes) -> AfmTwin:
    return twin(**({"surfaces": LITTERED, "pick_up": 1.0, "let_go": 0.0} | changes))


def until_picked_up(world: AfmTwin) -> np.ndarray:
    """Scan to the first particle that is picked up; the map before that."""
    world.execute(settings(), ON)
    for _ in range(60):
        before = world.maps[0].copy()
        world.execute(line(), ON)
        if world.state["tip_load"][0]:
            return before
    raise AssertionError("no particle on the way")


def test_debris_is_picked_up_and_gone():
    world = littered()
    particles = world.state["debris"][0].copy()
    before = until_picked_up(world)
    taken = np.nonzero(particles[:, 3] != world.state["debris"][0, :, 3])[0]
    assert len(taken) == 1
    x, y, radius, _ = particles[taken[0]]
    row, column = int(y / world.pixel), int(x / world.pixel)
    assert before[row, column] - world.maps[0, row, column] > radius
    assert world.state["tip_load"][0] == pytest.approx(2 * radius) and world.state["tip_radius"][0] == pytest.approx(radius)


def test_a_loaded_tip_reads_higher_until_it_lets_go():
    world = littered()
    until_picked_up(world)
    here = world.snapshot(0)
    world.execute(line(), ON)
    loaded = world.truth()["profile"][0]
    world.restore(here, 0)
    world.config = world.config.model_copy(update={"let_go": 1.0, "pick_up": 0.0})
    world.execute(line(), ON)
    dropped = world.state["tip_load"][0]
    assert dropped == 0 and world.state["tip_radius"][0] == pytest.approx(8e-9)
    world.state["line"][0] -= 1
    world.execute(line(), ON)
    assert loaded.mean() - world.truth()["profile"][0].mean() > 0.5 * here.arrays["tip_load"]


# ---- crashes ----


def test_too_much_force_is_a_crash():
    safe, crashing = twin(), twin(crash_force=20e-9)
    assert not scan(safe, 1)[0].damage.any() and not safe.truth()["crashed"][0]
    assert scan(crashing, 1)[0].damage[0] >= 1 and crashing.truth()["crashed"][0] and not crashing.truth()["diverged"][0]


def test_the_end_of_the_piezo_is_a_crash():
    world = twin(z_range=4e-9, crash_force=1.0)
    assert scan(world, 1)[0].damage[0] >= 1 and world.truth()["crashed"][0] and not world.truth()["diverged"][0]


def test_divergence_is_flagged_and_nothing_else_breaks(monkeypatch):
    world = twin(2)
    scan(world)
    true_scan = afm.tapping.scan

    def diverging(*arguments, **options):
        state, trace = true_scan(*arguments, **options)
        state["a_re"][0] = np.nan
        trace.height[0, 3] = np.inf
        return state, trace

    with monkeypatch.context() as patch:
        patch.setattr(afm.tapping, "scan", diverging)
        seen = world.execute(line(lanes=2), np.ones(2, bool))
    assert world.truth()["diverged"].tolist() == world.truth()["crashed"].tolist() == [True, False]
    assert all(np.isfinite(v).all() for v in seen.values.values()) and seen.damage[0] >= 1
    after = world.execute(line(lanes=2), np.ones(2, bool))
    assert all(np.isfinite(v).all() for v in after.values.values())
    assert all(np.isfinite(v).all() for name, v in world.state.items() if v.dtype == float)


def test_wild_gains_end_as_an_event_not_as_nan():
    world = twin(4, stiffness=2.0, temperature=295.0, sensor_noise=1e-12)
    everyone = np.ones(4, bool)
    world.execute(SetFeedback(*(np.full(4, v) for v in (1e6, 1e9, 20 * NM, 25 * NM, 1.0))), everyone)
    seen = [world.execute(line(lanes=4), everyone) for _ in range(3)]
    assert all(np.isfinite(v).all() for r in seen for v in r.values.values()) and world.truth()["crashed"].all()
    assert sum(r.damage for r in seen).min() >= 1


# ---- what is refused ----


@pytest.mark.parametrize(
    "command",
    [
        settings(integral=-1.0), settings(integral=np.nan), settings(setpoint=0.0), settings(drive=-1e-9), settings(drive=np.inf), settings(forward=1.5),
        line(0.0), line(-1.0), line(np.nan), line(pixels=4), line(pixels=10000),
    ],
    ids=["I < 0", "I nan", "setpoint 0", "drive < 0", "drive inf", "forward > 1", "rate 0", "rate < 0", "rate nan", "few pixels", "many pixels"],
)  # fmt: skip
def test_impossible_commands_are_refused_and_nothing_happens(command):
    world = twin()
    scan(world)
    before = world.snapshot(0)
    with pytest.raises(Refused, match=r"^[^\n]*$"):
        world.execute(command, ON)
    assert differences(world.snapshot(0).arrays, before.arrays) == []


def test_a_line_needs_feedback_and_an_end():
    world = twin()
    with pytest.raises(Refused, match="set the feedback"):
        world.execute(line(), ON)
    scan(world)
    world.state["line"][0] = afm.MOST_LINES
    with pytest.raises(Refused, match="256 lines"):
        world.execute(line(), ON)


WRONG = {
    "no Q": ("world: {quality: 0.0}", "quality"),
    "negative Q": ("world: {quality: -100.0}", "quality"),
    "negative stiffness": ("world: {stiffness: -40.0}", "stiffness"),
    "zero stiffness": ("world: {stiffness: {uniform: [-1, 0]}}", "stiffness"),
    "no frequency": ("world: {frequency: 0}", "frequency"),
    "negative radius": ("world: {radius: -1e-9}", "radius"),
    "nan": ("world: {temperature: .nan}", "temperature"),
    "unknown surface": ("world: {surfaces: [{kind: marble}]}", "marble"),
    "no surface": ("world: {surfaces: []}", "surfaces"),
    "unknown parameter": ("world: {surfaces: [{kind: grating, parameters: {depht: 1e-9}}]}", "depht"),
    "parameter out of range": ("world: {surfaces: [{kind: grating, parameters: {depth: 1.0}}]}", "depth"),
    "unknown material": ("world: {surfaces: [{kind: grating, materials: {material: cheese}}]}", "cheese"),
    "unknown entry": ("world: {stifness: 40}", "stifness"),
    "unknown tip change": ("world: {change: {bend: 1.0}}", "bend"),
    "impossible tip change": ("world: {change: {double: 0.9, cure: 0.9}}", "together"),
    "range upside down": ("task: {integral: [2000.0, 20.0, 200.0]}", "integral"),
    "start outside": ("task: {drive: [10e-9, 60e-9, 100e-9]}", "drive"),
    "negative gain": ("task: {proportional: [-1.0, 1.0, 0.5]}", "proportional"),
    "feed-forward above 1": ("task: {feed_forward: [0.0, 2.0, 0.0]}", "feed_forward"),
    "all lines settle": ("task: {lines: 8, settling_lines: 8}", "settling_lines"),
    "unknown setting": ("task: {gain: 3}", "gain"),
}


@pytest.mark.parametrize("name", WRONG)
def test_scenarios_that_cannot_be_are_refused_in_one_line(tmp_path, name):
    entry, named = WRONG[name]
    (tmp_path / "file.yaml").write_text(f"mine: {{extends: train, {entry}}}")
    with pytest.raises(ProbeGymError, match=named) as caught:
        AfmTuning(f"{tmp_path / 'file.yaml'}:mine").reset(seed=0)
    assert "\n" not in str(caught.value)


# ---- the task ----


@pytest.fixture
def quick(tmp_path):
    """Makes an environment of small maps and short lines from entries of task and world."""

    def make(kind=AfmTuning, task: str = "", world: str = "", number: int = 0, **options):
        path = tmp_path / f"file{number}.yaml"
        path.write_text(f"mine: {{extends: train, task: {{pixels: 32, {task}}}, world: {{rows: 64, columns: 80, {world}}}}}")
        return kind(scenario=f"{path}:mine", **options)

    return make


def still(n: int = 6) -> np.ndarray:
    return np.zeros(n, np.float32)


def push(name: str, value: float = 1.0) -> np.ndarray:
    action = still()
    action[NAMES.index(name)] = value
    return action


def test_settings_mean_what_they_say(quick):
    env = quick()
    task = env.episodes.task
    ranges = {name: limits for name, limits in zip(task.action_units["names"], task.action_units["ranges"], strict=True)}
    assert ranges["integral"] == [20.0, 2e4, 200.0] and task.action_units["largest_step"] == 0.25
    ends = task.values(np.array([np.zeros(6), np.ones(6), task.start]))
    assert ends == pytest.approx(np.array([ranges[name] for name in NAMES]).T, rel=1e-9, abs=0)
    middle = dict(zip(NAMES, task.values(np.full(6, 0.5)), strict=True))
    assert middle["integral"] == pytest.approx(np.sqrt(20 * 2e4)) and middle["setpoint"] == pytest.approx(0.675)


@pytest.mark.parametrize("name", NAMES)
def test_an_action_moves_its_setting_to_the_end_and_no_further(quick, name):
    env = quick(world="crash_force: 1.0")
    observation, _ = env.reset(seed=1)
    i = NAMES.index(name)
    seen = [observation["settings"]]
    for sign in (1.0, -1.0):
        seen += [env.step(push(name, sign))[0]["settings"] for _ in range(5)]
    values = np.array(seen)
    assert values[1, i] == pytest.approx(min(values[0, i] + 0.25, 1)) and values[5, i] == 1 and values[10, i] == 0
    assert (np.delete(values, i, 1) == np.delete(values[0], i)).all()


def test_settings_reach_the_instrument(quick):
    env = quick()
    env.reset(seed=1)
    env.step(push("feed_forward"))
    proportional, integral, ratio, drive, rate, forward = env.episodes.task.values(env.episodes.memory["settings"])[0]
    assert env.episodes.world.state["feedback"][0] == pytest.approx([proportional, integral, ratio * drive, drive, forward], rel=1e-9, abs=0)
    before = env.episodes.ledger["time"][0]
    env.step(push("line_rate"))
    assert env.episodes.ledger["time"][0] - before == pytest.approx(1 / env.episodes.task.values(env.episodes.memory["settings"])[0, 4])
    assert forward == 0.25 and 1 / rate > 0


def test_the_observation_holds_the_last_two_lines(quick):
    env = quick()
    first, _ = env.reset(seed=1)
    second = env.step(still())[0]
    assert first["lines"].shape == (12, 32) and not first["lines"][6:].any()
    assert np.array_equal(second["lines"][6:], first["lines"][:6])
    height = env.episodes.memory["height"][0, 0]
    assert second["lines"][:2] * 20e-9 == pytest.approx(height - height.mean(-1, keepdims=True), abs=1e-14)
    assert np.abs(second["lines"][4:6]).max() <= 1 and second["budget"] == pytest.approx([1 - 2 / 40])


@pytest.mark.parametrize("ends", [True, False])
def test_a_crash_ends_the_episode_where_the_scenario_says_so(quick, ends):
    env = quick(task=f"crash_ends: {str(ends).lower()}", world="crash_force: 1e-9")
    _, info = env.reset(seed=2)
    assert info["crashed"] == 1
    _, _, terminated, truncated, info = env.step(still())
    assert terminated is ends and not truncated and info["crashed"] == 1 and not info["is_success"]
    assert info["reward_crash"] == (-5 if ends else 0) and info["reward_damage"] < 0
    if ends:
        with pytest.raises(gym.error.ResetNeeded):
            env.step(still())


def test_an_episode_ends_after_its_lines(quick):
    env = quick(task="lines: 5, settling_lines: 2, tolerance: 10.0", world="crash_force: 1.0")
    env.reset(seed=1)
    steps = [env.step(still()) for _ in range(4)]
    assert [s[2] for s in steps] == [False, False, False, True] and not any(s[3] for s in steps)
    info = steps[-1][4]
    assert info["is_success"] and info["reward_success"] == 1 and info["measurements"] == 5
    kept = env.episodes.world.truth()["errors"][0, 2:5]
    assert info["height_error"] == pytest.approx(np.sqrt((kept**2).mean()), rel=1e-9, abs=0)


def test_a_poor_frame_is_no_success(quick):
    env = quick(task="lines: 4, settling_lines: 1, tolerance: 1e-6", world="crash_force: 1.0")
    env.reset(seed=1)
    info = [env.step(still()) for _ in range(3)][-1][4]
    assert not info["is_success"] and info["reward_success"] == info["reward_crash"] == 0


def test_the_budget_truncates(quick):
    env = quick(world="crash_force: 1.0", budget=3)
    env.reset(seed=1)
    assert [env.step(still())[2:4] for _ in range(2)] == [(False, False), (False, True)]


def test_rewards_pay_for_what_they_name(quick):
    env = quick(world="blunting: 1e-2, blunting_force: 1e-9, crash_force: 1.0")
    env.reset(seed=1)
    slow = [env.step(push("line_rate", -1)) for _ in range(3)][-1][4]
    fast = [env.step(push("line_rate", 1)) for _ in range(4)][-1][4]
    assert fast["reward_speed"] > slow["reward_speed"] and fast["reward_height_error"] < slow["reward_height_error"]
    assert fast["reward_wear"] < 0 and fast["tip_radius"] > slow["tip_radius"]
    observable = quick(number=1, reward="observable")
    observable.reset(seed=1)
    info = observable.step(still())[4]
    assert {n for n in info if n.startswith("reward_")} == {f"reward_{n}" for n in ("agreement", "error_signal", "speed", "damage", "crash")}


def test_agreement_and_error_signal_are_what_the_lines_show(quick):
    env = quick(reward="observable")
    env.reset(seed=1)
    info, memory = env.step(still())[4], env.episodes.memory
    apart = memory["height"][0, 0, 0] - memory["height"][0, 0, 1]
    assert info["reward_agreement"] == pytest.approx(-0.1 * np.log10(apart.std() / 1e-9 + 0.05))
    signal = np.sqrt((memory["amplitude_error"][0, 0] ** 2).mean())
    assert info["reward_error_signal"] == pytest.approx(-0.1 * np.log10(signal / 1e-9 + 0.05))


@pytest.mark.parametrize("value", [np.nan, np.inf, 1.5, -2.0])
def test_actions_outside_the_box_are_refused_and_nothing_happens(quick, value):
    env = quick()
    env.reset(seed=1)
    before = env.snapshot()
    with pytest.raises(ProbeGymError, match="nothing was done"):
        env.step(push("integral", value))
    assert differences(env.snapshot(), before) == []


def test_a_snapshot_brings_back_the_debris_in_any_lane(quick):
    """Maps are not part of a state; they follow from it, picked-up particles included."""
    world = "surfaces: [{kind: grains, debris: 40}, {kind: terraces, debris: 30}], pick_up: 1.0, crash_force: 1.0"
    env = quick(world=world)
    for seed in range(20):
        env.reset(seed=seed)
        for _ in range(12):
            env.step(still())
        if not env.episodes.world.state["debris"][0, :30, 3].all():
            break
    else:
        raise AssertionError("no particle was ever picked up")
    here, shown = moved(env.snapshot()), env.episodes.world.maps[0].copy()
    expected = [env.step(still()) for _ in range(4)]
    env.restore(here)
    assert np.array_equal(env.episodes.world.maps[0], shown)
    assert differences([env.step(still()) for _ in range(4)], expected) == []
    other = quick(world=world, number=1)
    other.restore(here)
    assert np.array_equal(other.episodes.world.maps[0], shown)
    assert differences([other.step(still()) for _ in range(4)], expected) == []
    many = quick(AfmTuningVector, world=world, number=2, num_envs=3)
    many.reset(seed=100)
    many.episodes.restore(here, 2, many.generators[2])
    assert np.array_equal(many.episodes.world.maps[2], shown)
    for step in expected:
        observation, reward, *_ = many.step(np.zeros((3, 6), np.float32))
        assert np.array_equal(observation["lines"][2], step[0]["lines"]) and reward[2] == step[1]


def test_the_oracle_beats_settings_that_stay(quick):
    def frame(act) -> tuple[float, int]:
        env = quick(AfmTuningVector, task="lines: 14, line_rate: [8.0, 8.0, 8.0]", world="surfaces: [{kind: grating}]", num_envs=24)
        env.reset(seed=7)
        for _ in range(13):
            info = env.step(act(env.episodes))[4]
        return np.median(info["height_error"]), int(info["crashed"].sum())

    tuned, crashes = frame(lambda e: e.task.oracle(e.world.truth(), e.memory))
    kept, _ = frame(lambda e: np.zeros((24, 6), np.float32))
    assert tuned < 0.6 * kept and crashes <= 1


def test_leaving_the_surface_does_not_pay():
    """A tip that hovers shows flat lines whose ways agree: the observable reward must not fall for it."""
    hovering = FixedSettings(proportional=1e-3, integral=20, setpoint=0.95, drive=10e-9, line_rate=16)
    for scenario in ("grating", "grains", "terraces"):
        away, there = (evaluate(agent, ID, scenario, 8, 5_000_000, reward="observable").returns.mean() for agent in (hovering, FixedSettings()))
        assert there > away + 1


def test_a_refused_reset_leaves_the_episode_as_it_was(tmp_path):
    env = gym.make(ID, scenario=_scenario(tmp_path, world={"quality": {"choice": [-1, 400]}})).unwrapped
    good = next(seed for seed in range(40) if _resets(env, seed))
    bad = next(seed for seed in range(40) if not _resets(env, seed))
    env.reset(seed=good)
    env.step(np.zeros(6, np.float32))
    before = env.snapshot()
    with pytest.raises(ProbeGymError, match=r"world\.quality: must be from"):
        env.reset(seed=bad)
    after = env.snapshot()
    assert differences(after.world, before.world) == [] and differences(after.memory, before.memory) == []
    env.step(np.zeros(6, np.float32))


def _scenario(folder, **tables) -> str:
    """A scenario in a file of its own: ``id`` but for these tables."""
    (folder / "own.yaml").write_text(json.dumps({"mine": {"extends": "id"} | tables}))
    return f"{folder / 'own.yaml'}:mine"


def _resets(env, seed: int) -> bool:
    try:
        env.reset(seed=seed)
    except ProbeGymError:
        return False
    return True


def test_a_snapshot_of_another_environment_is_refused():
    other = gym.make("probegym/StemTuning-v0", scenario="graphene").unwrapped
    other.reset(seed=0)
    env = gym.make(ID).unwrapped
    env.reset(seed=0)
    with pytest.raises(ProbeGymError, match="another environment or scenario"):
        env.restore(other.snapshot())


@pytest.mark.parametrize("world", [{"drift": 1.0}, {"settling": 1.0}, {"frequency": 1e12}, {"stiffness": 1e30}, {"line_spacing": 1.0}, {"blunting": 1e9},
                                   {"surfaces": [{"kind": "terraces", "parameters": {"key": 3}}]}], ids=str)  # fmt: skip
def test_a_world_beyond_any_afm_is_refused_by_name(tmp_path, world):
    with pytest.raises(ProbeGymError, match=f"world.{next(iter(world))}"):
        gym.make(ID, scenario=_scenario(tmp_path, world=world)).unwrapped.reset(seed=0)
