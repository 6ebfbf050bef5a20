"""What is particular to StemTuning and its twin: costs in physical units, declarations, lenses, drift, excursions."""

from __future__ import annotations

import numpy as np
import pytest

from probegym.envs.stem_tuning import STREHL_GOAL, StemTuning
from probegym.hardware_bridge.commands import AcquireImage, AcquireRonchigram, SetAberrations
from probegym.hardware_bridge.twins.stem import StemTwin
from probegym.hardware_bridge.world import Refused
from probegym.scenarios import load

ON = np.ones(1, bool)
CONTROLS = ("C10", "C12a", "C12b", "C21a", "C21b", "C23a", "C23b")


def twin(lanes: int = 1, scenario: str = "both", **changes) -> StemTwin:
    """A twin with some entries of its world replaced, after the start of an episode."""
    world = StemTwin(load("stem_tuning", scenario).world | changes, lanes)
    world.begin(np.arange(100, 100 + lanes, dtype=np.uint64), np.ones(lanes, bool))
    return world


def still(**changes) -> StemTwin:
    """Nothing drifts, every control does what it is told."""
    quiet = {"lens_drift": {}, "settling_time": 0.0, "crosstalk": 0.0, "gain_error": 0.0, "step_error": 0.0, "hysteresis": 0.0}
    return twin(**(quiet | {"specimen_drift": 0.0, "frame_jitter": 0.0, "scan_noise": 0.0} | changes))


def image(defocus: float = 0.0, dwell_time: float = 10e-6, pixels: int = 64, lanes: int = 1) -> AcquireImage:
    return AcquireImage("haadf", (pixels, pixels), 2.56e-9, dwell_time, np.full(lanes, defocus))


def ronchigram(defocus: float = 30e-9, exposure_time: float = 0.05, lanes: int = 1) -> AcquireRonchigram:
    return AcquireRonchigram((42, 42), exposure_time, np.full(lanes, defocus), np.zeros((lanes, 2)))


def controls(*values: float) -> SetAberrations:
    return SetAberrations(CONTROLS, np.array([values]))


# ---- time and dose ----


def test_time_and_dose_of_an_image():
    """50 pA for 10 us is 3121 electrons; a pixel of 0.4 Angstrom has 0.16 square Angstrom."""
    seen = still(frame_overhead=0.05, flyback_time=60e-6).execute(image(), ON)
    assert seen.dose[0] == pytest.approx(3121 / 0.16, rel=1e-3)
    assert seen.time[0] == pytest.approx(64 * (64 * 10e-6 + 60e-6) + 0.05)
    assert seen.measurements.tolist() == [1.0] and seen.damage.tolist() == [0.0]


def test_exposure_scales_dose_and_counts():
    one, ten = (still().execute(ronchigram(exposure_time=t), ON) for t in (0.01, 0.1))
    assert ten.dose[0] == pytest.approx(10 * one.dose[0])
    assert ten.values["ronchigram"].sum() == pytest.approx(10 * one.values["ronchigram"].sum(), rel=0.01)


def test_counts_are_electrons_that_were_detected():
    """A Ronchigram camera of quantum efficiency 0.9 sees nearly the whole beam."""
    seen = still(quantum_efficiency=0.9).execute(ronchigram(exposure_time=0.05), ON).values["ronchigram"]
    beam = 50e-12 * 0.05 / 1.602e-19 * 0.9
    assert 0.95 < seen.sum() / beam < 1.001 and (seen == np.rint(seen)).all()


@pytest.mark.parametrize("command", [image(), ronchigram()], ids=["image", "ronchigram"])
def test_every_frame_has_its_own_noise(command):
    world = still()
    one, two = (next(iter(world.execute(command, ON).values.values())) for _ in range(2))
    assert not np.array_equal(one, two) and np.corrcoef(one.ravel(), two.ravel())[0, 1] > 0.5


def test_lanes_that_are_not_asked_pay_nothing_and_stay():
    world = twin(3)
    before = [world.snapshot(lane) for lane in range(3)]
    seen = world.execute(image(lanes=3), np.array([False, True, False]))
    assert seen.time[[0, 2]].tolist() == seen.dose[[0, 2]].tolist() == [0, 0] and seen.time[1] > 0
    assert not seen.values["haadf"][[0, 2]].any() and seen.values["haadf"][1].any()
    for lane in (0, 2):
        after = world.snapshot(lane)
        assert all(np.array_equal(after.arrays[name], array) for name, array in before[lane].arrays.items())


# ---- lenses ----


def test_a_control_moves_its_aberration():
    world = still()
    before = world.truth()["aberrations"].copy()
    world.execute(controls(5e-9, 0, 0, 0, 2e-7, 0, 0), ON)
    change = (world.truth()["aberrations"] - before)[0]
    assert change[[0, 4]] == pytest.approx([5e-9, 2e-7]) and np.abs(np.delete(change, [0, 4])).max() < 1e-15


def test_an_excursion_is_taken_back():
    world = still()
    before = world.truth()["aberrations"].copy()
    world.execute(image(defocus=50e-9), ON)
    world.execute(ronchigram(defocus=-80e-9), ON)
    assert np.array_equal(world.truth()["aberrations"], before)


def test_an_excursion_is_a_change_of_c10():
    """A frame with an excursion is the frame of a microscope whose C10 is there."""
    world, other = still(), still()
    other.state["aberrations"][:, 0] += 20e-9
    assert np.array_equal(world.execute(image(defocus=20e-9), ON).values["haadf"], other.execute(image(), ON).values["haadf"])


def test_latency_shows_the_old_state_first():
    world = still(settling_time=10.0)
    before = world.truth()["aberrations"].copy()
    world.execute(controls(1e-8, 0, 0, 0, 0, 0, 0), ON)
    moved = world.truth()["aberrations"][0, 0] - before[0, 0]
    assert 0 < moved < 0.1e-8
    for _ in range(400):
        world.execute(image(pixels=16), ON)
    assert world.truth()["aberrations"][0, 0] - before[0, 0] == pytest.approx(1e-8, rel=0.3)


def test_crosstalk_and_gain_differ_between_episodes_and_centre_on_one():
    response = twin(2000, crosstalk=0.05, gain_error=0.02).truth()["response"]
    off = response[:, ~np.eye(7, dtype=bool)]
    assert off.std() == pytest.approx(0.05, rel=0.03) and abs(off.mean()) < 1e-3
    assert np.diagonal(response, axis1=1, axis2=2).std() == pytest.approx(0.02, rel=0.05)
    assert np.diagonal(response, axis1=1, axis2=2).mean() == pytest.approx(1.0, abs=1e-3)


def test_lenses_drift_with_the_root_of_time():
    world = twin(500, lens_drift={"C10": 1e-9}, settling_time=0.0)
    before, spent = world.truth()["aberrations"].copy(), np.zeros(500)
    for _ in range(10):
        spent += world.execute(ronchigram(lanes=500), np.ones(500, bool)).time
    moved = world.truth()["aberrations"] - before
    assert moved[:, 0].std() == pytest.approx(1e-9 * np.sqrt(spent[0]), rel=0.15) and not moved[:, 1:].any()


def test_start_states_fill_the_box():
    start = twin(3000).truth()["aberrations"][:, :7] / np.array([10, 10, 10, 900, 900, 300, 300]) / 1e-9
    assert np.abs(start).max() < 1 and start.std(0) == pytest.approx(np.full(7, 1 / np.sqrt(3)), rel=0.05)
    assert np.abs(np.corrcoef(start.T) - np.eye(7)).max() < 0.08


# ---- the specimen ----


def test_specimen_drift_moves_the_image():
    """After 2 nm of drift along x the image is where a scan that starts 2 nm further would be."""
    world, other = still(), still()
    world.state["velocity"][:], world.state["clock"][:] = [[1e-11, 0.0]], 200.0
    other.state["origin"][:, 0] += 2e-9
    one, two = (w.execute(image(dwell_time=1e-4), ON).values["haadf"] for w in (world, other))
    assert np.corrcoef(one.ravel(), two.ravel())[0, 1] > 0.98


@pytest.mark.parametrize("entry", ["frame_jitter", "scan_noise"])
def test_jitter_and_scan_noise_move_frames(entry):
    steady, moving = still(), still(**{entry: 2e-10})
    one, two = (w.execute(image(dwell_time=1e-4), ON).values["haadf"] for w in (steady, moving))
    assert np.corrcoef(one.ravel(), two.ravel())[0, 1] < 0.995


def films_shown(scenario: str) -> set[tuple[str, int]]:
    """(film set, number) of many episodes."""
    world = StemTwin(load("stem_tuning", scenario).world, 600)
    world.begin(np.arange(600, dtype=np.uint64), np.ones(600, bool))
    assert set(world.state["orientation"]) == set(range(8))
    return {(world.config.ronchigram.films[film], int(v)) for film, v in zip(world.state["film"], world.state["variant"], strict=True)}


def test_films_of_the_id_split_are_never_trained_on():
    train, unseen = films_shown("train"), films_shown("id")
    assert not train & unseen and len(train) > 20 and len(unseen) > 5
    assert {film for film, _ in films_shown("far-specimen")}.isdisjoint(film for film, _ in train)


# ---- what is refused ----


@pytest.mark.parametrize(
    "command",
    [
        SetAberrations(CONTROLS, np.full((1, 7), 1e-6)), SetAberrations(CONTROLS, np.full((1, 7), np.nan)),
        SetAberrations(("C10",), np.zeros((1, 1))), image(defocus=np.nan), image(dwell_time=np.inf), ronchigram(exposure_time=np.nan),
    ],
    ids=["range", "nan", "names", "defocus", "dwell time", "exposure"],
)  # fmt: skip
def test_commands_outside_the_limits_are_refused_and_nothing_happens(command):
    world = twin()
    before = world.snapshot(0)
    with pytest.raises(Refused):
        world.execute(command, ON)
    assert all(np.array_equal(world.snapshot(0).arrays[name], array) for name, array in before.arrays.items())


# ---- the task ----


def tuned(env: StemTuning) -> list:
    """The steps of the oracle to the end of the episode."""
    env.reset(seed=1)
    steps = []
    while not steps or not (steps[-1][2] or steps[-1][3]):
        e = env.episodes
        steps.append(env.step(e.task.oracle(e.world.truth(), e.memory)[0]))
    return steps


def test_the_oracle_tunes_and_declares():
    steps = tuned(StemTuning("train"))
    info = steps[-1][4]
    assert steps[-1][2] and info["is_success"] and info["strehl"] >= STREHL_GOAL and len(steps) < 10
    assert info["reward_success"] > 0 and info["reward_false_declaration"] == 0
    assert not any(s[4]["is_success"] for s in steps[:-1])


def test_a_false_declaration_ends_the_episode_and_costs():
    env = StemTuning("train")
    _, info = env.reset(seed=1)
    action = np.zeros(8, np.float32)
    action[-1] = 1.0
    observation, reward, terminated, truncated, after = env.step(action)
    assert terminated and not truncated and not after["is_success"] and reward < 0
    assert after["reward_false_declaration"] < 0 and after["reward_success"] == 0
    assert after["measurements"] == info["measurements"] and after["time"] > info["time"] and observation["ronchigram"].any()


def test_progress_pays_for_a_smaller_phase_variance():
    env = StemTuning("train")
    _, info = env.reset(seed=1)
    before = info["phase_variance"]
    for s in tuned(env):
        assert np.sign(s[4]["reward_progress"]) == np.sign(before - s[4]["phase_variance"])
        before = s[4]["phase_variance"]


def test_a_setpoint_stays_in_its_range():
    env = StemTuning("train")
    env.reset(seed=1)
    action = np.array([1] * 7 + [-1], np.float32)
    shown = [env.step(action)[0]["controls"] for _ in range(5)]
    assert shown[0] == pytest.approx(np.full(7, 1.5)) and shown[-1] == pytest.approx(np.full(7, 4.0))


def test_an_agent_may_choose_its_own_excursion(tmp_path):
    (tmp_path / "file.yaml").write_text("mine: {extends: train, task: {excursion_range: 50e-9}}")
    env = StemTuning(f"{tmp_path / 'file.yaml'}:mine")
    assert env.action_space.shape == (9,)
    env.reset(seed=1)
    action = np.zeros(9, np.float32)
    action[-1] = -1
    frames = [env.counterfactual([action + x * np.eye(9, dtype=np.float32)[7]])[0][0]["ronchigram"] for x in (-1, 0, 1)]
    assert not np.array_equal(frames[0], frames[1]) and not np.array_equal(frames[1], frames[2])


def test_sharpness_rises_when_the_microscope_is_tuned(tmp_path):
    (tmp_path / "file.yaml").write_text("mine: {extends: haadf-train, task: {haadf: {excursions: [0.0]}}}")
    env, gains = StemTuning(f"{tmp_path / 'file.yaml'}:mine", reward="observable"), []
    for seed in range(6):
        env.reset(seed=seed)
        e = env.episodes
        action = e.task.oracle(e.world.truth(), e.memory)[0]
        action[-1] = -1
        gains.append(env.step(action)[4]["reward_sharpness"])
    assert np.mean(np.array(gains) > 0) > 0.8
