"""SpectrumExploration: what is measured, remembered, learned and paid for, in simulated and recorded specimens."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
import yaml

from probegym.envs.exploration import Exploration, _models, trust, unlike
from probegym.envs.exploration_settings import Settings
from probegym.errors import ProbeGymError
from probegym.hardware_bridge.commands import AcquireImage, AcquireSpectrum
from probegym.hardware_bridge.world import Refused
from probegym.physics import scalarizers
from probegym.scenarios import names
from tests.helpers import differences

ID = "probegym/SpectrumExploration-v0"
ON = np.ones(1, bool)


def make(scenario: str = "bare", **options):
    return gym.make(ID, scenario=scenario, **options).unwrapped


def written(tmp_path, extends: str = "bare", **table) -> str:
    """A scenario file with one scenario that changes another."""
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump({"mine": {"extends": extends} | table}))
    return f"{tmp_path / 'mine.yaml'}:mine"


@pytest.fixture
def scalarizer():
    """Registers scalarizers for the time of one test."""
    added = []

    def register(name, kind, of):
        scalarizers.register(name, kind, of)
        added.append(name)
        return name

    yield register
    for name in added:
        del scalarizers.SCALARIZERS[name]


def sought(env) -> np.ndarray:
    """True scalars of what is looked for now."""
    task, memory = env.episodes.task, env.episodes.memory
    name = task.settings.scalarizers[int(memory["target"][0])]
    return env.episodes.world.truth()[f"scalar {name}"][0]


# ---- what is measured ----


def test_a_spectrum_belongs_to_its_place():
    env = make()
    env.reset(seed=1)
    world = env.episodes.world
    for place in (0, 49, 1274, 2499):
        env.step(place)
        expected = world.state["spectra"][0, place]
        electrons = 20e-12 * 0.05 / 1.602176634e-19 * (world.source.axis[1] - world.source.axis[0])
        counts = env.episodes.memory["total"][0, place] / env.episodes.memory["visits"][0, place]
        excess = (counts - expected * electrons) / np.sqrt(expected * electrons)
        assert abs(excess.mean()) < 5 / 8 and 0.5 < excess.std() < 1.6


def test_a_place_measured_again_is_averaged():
    env = make()
    env.reset(seed=1)
    for _ in range(3):
        env.step(700)
    m, axis = env.episodes.memory, env.episodes.world.source.axis
    assert m["visits"][0, 700] == 3 and (m["order"][0] == m["order"][0, 700]).sum() == 1
    assert m["value"][0, 700] == pytest.approx(float(scalarizers.named("peak ratio")(axis, m["total"][0, 700] / 3)), rel=1e-6)
    one, three = (np.abs(m["value"][0, 700] - sought(env)[700]), 0.05)
    assert one < three


def test_masks_are_the_places_not_measured():
    env = make()
    seen, _ = env.reset(seed=1)
    assert env.action_masks().shape == (2500,) and env.action_masks().dtype == bool
    seen, *_ = env.step(321)
    assert not env.action_masks()[321]
    assert np.array_equal(env.action_masks(), seen["measured"].ravel() == 0)
    many = gym.make_vec(ID, 3, scenario="bare")
    many.reset(seed=1)
    assert many.action_masks().shape == (3, 2500)
    with pytest.raises(ProbeGymError, match="discrete"):
        make("train").action_masks()


def test_time_and_dose_are_those_of_the_spectra():
    env = make()
    _, start = env.reset(seed=1)
    env.step(0)
    _, _, _, _, near = env.step(1)
    before = near["time"]
    _, _, _, _, same = env.step(1)
    assert same["time"] - before == pytest.approx(0.05 + 0.01)
    _, _, _, _, far = env.step(49)
    assert far["time"] - same["time"] == pytest.approx(0.06 + 48 * 3e-9 / 1e-6)
    assert far["dose"] - same["dose"] == pytest.approx(20e-12 * 0.05 / 1.602176634e-19 / 900, rel=1e-6)
    assert far["measurements"] == start["measurements"] + 4


def exposed(env, place: int, seconds: float, count: int) -> np.ndarray:
    """Spectra (count, channels) of one place."""
    task = env.episodes.task
    at = task._spectrum(np.array([place])).position
    commands = [AcquireSpectrum(task.settings.spectrum.detector, at, seconds)] * count
    return np.stack([env.episodes.world.execute(command, ON).values["spectrum"][0] for command in commands])


def test_noise_of_losses_falls_with_the_exposure():
    env = make()
    env.reset(seed=1)
    short, long = (exposed(env, 1000, seconds, 200) for seconds in (0.05, 0.5))
    assert long.sum() == pytest.approx(10 * short.sum(), rel=0.02)
    relative = [(counts.std(0) / counts.mean(0)).mean() for counts in (short, long)]
    assert relative[0] / relative[1] == pytest.approx(np.sqrt(10), rel=0.05)


def test_noise_of_deflections_is_that_of_the_electrons():
    env = make("locate-patterns")
    env.reset(seed=1)
    world = env.episodes.world
    found, electrons = exposed(env, 1000, 1e-3, 600), 5e-12 * 1e-3 / 1.602176634e-19
    assert (found - world.state["spectra"][0, 1000]).std() == pytest.approx(world.state["spread"][0, 1000] / np.sqrt(electrons), rel=0.07)


@pytest.mark.parametrize("extends", ["bare", "train"])
def test_a_limit_of_time_is_kept_and_used(tmp_path, extends):
    env = make(written(tmp_path, extends, budget={"measurements": 88, "time": 2.0}))
    refused = 0
    for seed in range(6):
        _, before = env.reset(seed=seed)
        env.action_space.seed(seed)
        truncated = False
        while not truncated:
            _, reward, _, truncated, info = env.step(env.action_space.sample())
            if undone := info["measurements"] == before["measurements"]:
                assert truncated and reward == 0 and info["time"] == before["time"]
            refused, before = refused + undone, info
        longest = 0.06 + 150e-9 * np.sqrt(2) / 1e-6
        assert 2.0 - longest < info["time"] <= 2.0
    assert refused


def test_time_is_used_up_to_the_last_spectrum(tmp_path):
    env = make(written(tmp_path, "bare", budget={"measurements": 88, "time": 2.0}))
    env.reset(seed=0)
    truncated = False
    while not truncated:
        *_, truncated, info = env.step(0)
    assert 2.0 - 0.06 < info["time"] <= 2.0


def test_first_places_follow_from_the_key():
    starts = [np.nonzero(make().reset(seed=seed)[0]["measured"].ravel())[0].tolist() for seed in (1, 1, 2)]
    assert starts[0] == starts[1] != starts[2]


# ---- what is found ----


def test_regret_rank_and_found_are_those_of_the_truth():
    env = make()
    env.reset(seed=4)
    rng = np.random.default_rng(0)
    for place in rng.integers(0, 2500, 20):
        _, _, _, _, info = env.step(int(place))
        scalar, visited = sought(env), env.episodes.memory["visits"][0] > 0
        best = scalar[visited].max()
        assert info["rank"] == (scalar > best).sum()
        assert info["regret"] == pytest.approx((scalar.max() - best) / (scalar.max() - np.median(scalar)), abs=2e-3)
        top = np.argsort(scalar)[-25:]
        assert info["found"] == pytest.approx(visited[top].mean(), abs=1e-9)
        assert info["is_success"] == (info["rank"] < 5)


def test_the_best_place_ends_the_search():
    env = make()
    env.reset(seed=4)
    _, reward, _, _, info = env.step(int(sought(env).argmax()))
    assert info["regret"] == 0 and info["rank"] == 0 and info["is_success"]
    assert info["reward_progress"] > 0 and reward == pytest.approx(sum(v for k, v in info.items() if k.startswith("reward_")))
    _, _, _, _, info = env.step(5)
    assert info["reward_progress"] == 0


def test_progress_adds_up_to_the_fall_of_the_regret():
    env = make()
    _, start = env.reset(seed=6)
    total = 0.0
    for place in np.random.default_rng(1).integers(0, 2500, 40):
        _, _, _, _, info = env.step(int(place))
        total += info["reward_progress"]
    assert total == pytest.approx(start["regret"] - info["regret"], abs=1e-9) and total > 0


def test_new_behaviours_are_unlike_all_before():
    env = make("locate-loops")
    env.reset(seed=2)
    m = env.episodes.memory
    _, _, _, _, info = env.step(1000)
    _, _, _, _, again = env.step(1000)
    assert again["reward_coverage"] == 0 and again["behaviours"] == info["behaviours"]
    limit, known = env.episodes.task.settings.distinct, m["total"][0][m["visits"][0] > 0]
    for place in range(0, 2500, 190):
        expected = env.episodes.world.state["spectra"][0, place].astype(float)
        units = [row / np.linalg.norm(row) for row in (*known, expected)]
        far = min(np.linalg.norm(units[-1] - one) for one in units[:-1])
        _, _, _, _, info = env.step(place)
        if abs(far - limit) > 0.15:
            assert (info["reward_coverage"] > 0) == (far > limit)
        known = m["total"][0][m["visits"][0] > 0]


@pytest.mark.parametrize("scenario", ["id", "near-dose", "far-dose"])
def test_noise_is_no_behaviour(scenario):
    """Of 80 places, about as many are told apart as without noise; of one place, one."""
    env = make(scenario)
    for seed in range(2):
        env.reset(seed=seed)
        task, world = env.episodes.task, env.episodes.world
        places = np.random.default_rng(seed).integers(0, 2500, 80)
        seen = np.concatenate([exposed(env, place, task.settings.spectrum.exposure_time, 1) for place in places])
        same = exposed(env, 1275, task.settings.spectrum.exposure_time, 80)
        told = [sum(unlike(spectra[:n], spectra[n], task.settings.distinct) for n in range(80)) for spectra in (seen, world.state["spectra"][0, places], same)]
        assert told[0] <= told[1] + 2 and told[2] == 1


def test_a_place_measured_again_shows_no_new_behaviour(tmp_path):
    env = make(written(tmp_path, "bare", task={"distinct": 0.001}))
    env.reset(seed=1)
    assert [env.step(700)[4]["reward_coverage"] > 0 for _ in range(3)] == [True, False, False]


# ---- what is learned, and steering by it ----


def test_trust_tells_how_well_values_are_predicted():
    rng = np.random.default_rng(0)
    value, error = rng.normal(size=2000), rng.normal(size=2000)
    assert trust(value, value, np.ones(2000)) == pytest.approx((1, 0))
    assert trust(value, value + 0.5 * error, np.full(2000, 0.5)) == pytest.approx((1 / np.sqrt(1.25), 1), abs=0.05)
    assert trust(value, value + 0.5 * error, np.full(2000, 0.25))[1] == pytest.approx(2, abs=0.1)
    assert trust(value, -value, np.ones(2000)) == pytest.approx((-1, 2), abs=0.1)


def test_fit_is_that_of_each_value_from_the_others():
    env = make("train")
    env.reset(seed=3)
    for _ in range(25):
        seen, *_ = env.step(np.array([0.3, 1, 0, 0], np.float32))
    m, exploration = env.episodes.memory, env.episodes.task.exploration
    model, index = exploration._model(m["image"][0]), np.nonzero(m["known"][0])[0]
    value = m["value"][0, index]
    others = [model.predict(m["weights"][0], np.delete(index, n), np.delete(value, n)) for n in range(len(index))]
    predicted, deviation = (np.array([one[part][index[n]] for n, one in enumerate(others)]) for part in (0, 1))
    assert seen["fit"][0] == pytest.approx(np.corrcoef(value, predicted)[0, 1], abs=0.05) and seen["fit"][0] < 0.99
    assert 0.2 < seen["fit"][1] < 1.05 * np.sqrt((((value - predicted) / deviation) ** 2).mean())  # noise counts in the claim


def test_there_is_a_model_for_each_lane():
    """Sixty-four lanes build sixty-four models once, not in every step."""
    table = {"detector": "haadf", "rows": 16, "columns": 16, "field_of_view": 1e-8}
    exploration = Exploration(Settings(image=table, spectrum={"detector": "eels", "exposure_time": 1.0}, scalarizers=["peak ratio"], surrogate={"patch": 3}))
    exploration.memory(64)
    images = np.random.default_rng(0).integers(0, 256, (64, 256)).astype(np.uint8)
    built = _models(exploration.room).cache_info().misses
    for _ in range(3):
        for image in images:
            exploration._model(image)
    assert _models(exploration.room).cache_info().misses - built == 64


def test_steering_takes_the_largest_weighted_sum():
    env = make("train")
    seen, _ = env.reset(seed=3)
    rng = np.random.default_rng(0)
    for weights in (np.array([1, 0, 0, 0]), np.array([0, 1, 0, 0]), np.array([0, 0, 1, 0]), rng.uniform(-1, 1, 4), rng.uniform(-1, 1, 4)):
        before = env.episodes.memory["at"][0]
        row, column = np.indices((50, 50))
        away = np.hypot(row - before // 50, column - before % 50) / 50
        score = sum(w * part for w, part in zip(weights, (seen["mean"][0], seen["deviation"][0], seen["novelty"][0], -away), strict=True))
        score[seen["measured"][0] > 0] = -np.inf
        seen, *_ = env.step(weights.astype(np.float32))
        assert score.ravel()[env.episodes.memory["at"][0]] == pytest.approx(score.max(), abs=1e-5)


def test_the_surrogate_knows_what_was_measured_and_says_what_it_does_not_know():
    env = make("train")
    seen, _ = env.reset(seed=3)
    first = seen["deviation"].mean()
    for _ in range(40):
        seen, _, _, _, _ = env.step(np.array([0.3, 1, 0, 0], np.float32))
    measured = seen["measured"] > 0
    assert seen["deviation"][measured].mean() < 0.6 * seen["deviation"][~measured].mean() < first
    assert np.corrcoef(seen["mean"].ravel(), sought(env))[0, 1] > 0.3
    assert seen["fit"][0] > 0.3
    error = np.abs(seen["value"] - seen["mean"])[measured]
    assert error.mean() < 0.5


def test_novelty_falls_where_alike_places_were_measured():
    env = make("train")
    seen, _ = env.reset(seed=3)
    bright = int(seen["image"].argmax())
    before = seen["novelty"].ravel()
    env.episodes.memory["visits"][0] = 1
    env.episodes.memory["visits"][0, bright] = 0  # the only place that is left
    seen, *_ = env.step(np.zeros(4, np.float32))
    after = seen["novelty"].ravel()
    assert env.episodes.memory["at"][0] == bright and after[bright] == 0 and (after <= before).all() and after.mean() < before.mean()


def test_observable_rewards_need_no_truth():
    env = make("train", reward="observable")
    env.reset(seed=3)
    for _ in range(4):
        _, reward, _, _, info = env.step(np.array([0, 1, 0, 0], np.float32))
        assert info["reward_improvement"] >= 0 and np.isfinite(reward)
    assert "reward_progress" not in info


def test_information_is_what_the_steps_bring():
    """Not the opening, whose places may be alike, and not a change of what is looked for."""
    env = make("far-target", reward="observable")
    for seed in range(3):
        env.reset(seed=seed)
        assert env.episodes.memory["information"][0] == 0
        found = [env.step(np.array([0.2, 1, 0, 0], np.float32))[4] for _ in range(42)]
        told = np.array([info["reward_information"] for info in found])
        assert told[:38].all() and told[38] == 0 == found[38]["reward_improvement"] and told[39:].all()  # the 44th spectrum
        assert np.abs(told).max() < 1


def test_a_first_place_drawn_twice_hides_no_information(tmp_path, monkeypatch):
    from probegym.envs import exploration, spectrum_exploration

    for module in (exploration, spectrum_exploration):
        monkeypatch.setattr(module, "first_places", lambda keys, pixels, count: np.tile([7, 7, 900, 1200, 1200], (len(keys), 1)))
    env = make("train", reward="observable")
    env.reset(seed=0)
    assert env.step(np.array([0, 1, 0, 0], np.float32))[4]["reward_information"] != 0


# ---- what is looked for may change ----


def test_the_scalarizer_changes_during_the_episode(tmp_path):
    scenario = written(tmp_path, "bare", task={"scalarizers": ["peak ratio", "peak maximum"], "switch_after": [8], "surrogate": {"embedding": "none"}})
    env = make(scenario)
    seen, _ = env.reset(seed=1)
    assert seen["scalarizer"].tolist() == [1, 0]
    for place in (10, 20):
        seen, *_ = env.step(place)
    assert seen["scalarizer"].tolist() == [1, 0]
    seen, _, _, _, info = env.step(30)
    assert seen["scalarizer"].tolist() == [0, 1] and info["measurements"] == 8
    m, axis = env.episodes.memory, env.episodes.world.source.axis
    places = np.nonzero(m["visits"][0])[0]
    wanted = scalarizers.named("peak maximum")(axis, m["total"][0, places] / m["visits"][0, places, None])
    assert np.allclose(m["value"][0, places], wanted)
    scalar = env.episodes.world.truth()["scalar peak maximum"][0]
    assert info["rank"] == (scalar > scalar[places].max()).sum()


# ---- odd scalarizers ----


def test_places_without_a_scalar_are_left_out(tmp_path, scalarizer):
    half = scalarizer("half", "eels", lambda axis, spectra: np.where(spectra[..., 0] < np.median(spectra[..., 0]), np.nan, spectra[..., 20]))
    env = make(written(tmp_path, "train", task={"scalarizers": [half]}))
    seen, _ = env.reset(seed=1)
    for _ in range(6):
        seen, reward, _, _, _ = env.step(np.array([0.5, 1, 0, 0], np.float32))
        assert all(np.isfinite(array).all() for array in seen.values()) and np.isfinite(reward)
    scalar = sought(env)
    assert np.isfinite(scalar).all() and (scalar == scalar.min()).sum() > 1000


@pytest.mark.parametrize("value", [np.nan, 3.0, np.inf])
def test_a_scalarizer_that_tells_nothing_ends_no_episode(tmp_path, scalarizer, value):
    dull = scalarizer("dull", "eels", lambda axis, spectra: np.full(spectra.shape[:-1], value))
    env = make(written(tmp_path, "train", task={"scalarizers": [dull]}, budget={"measurements": 12}))
    env.reset(seed=1)
    for _ in range(7):
        seen, reward, _, truncated, info = env.step(np.array([0.5, 1, 0, 0], np.float32))
        assert all(np.isfinite(array).all() for array in seen.values()) and np.isfinite(reward)
    assert truncated and info["regret"] == 0


@pytest.mark.parametrize("value", [np.nan, 3.0])
def test_nothing_is_found_where_all_places_are_alike(tmp_path, scalarizer, value):
    dull = scalarizer("dull", "eels", lambda axis, spectra: np.full(spectra.shape[:-1], value))
    env = make(written(tmp_path, "bare", task={"scalarizers": [dull]}))
    for _, _, _, _, info in [(0, 0, 0, 0, env.reset(seed=1)[1]), env.step(3), env.step(4)]:
        assert not info.get("is_success", False) and info["found"] == 0 and info["regret"] == 0


def test_what_is_defined_at_few_places_is_found_there_alone(tmp_path, scalarizer):
    few = scalarizer("few", "eels", lambda axis, spectra: np.where(spectra.sum(-1) >= np.sort(spectra.sum(-1))[-min(3, len(spectra))], spectra.sum(-1), np.nan))
    env = make(written(tmp_path, "bare", task={"scalarizers": [few]}))
    env.reset(seed=1)
    best = np.argsort(sought(env))[::-1]
    _, _, _, _, info = env.step(int(best[100]))
    assert not info["is_success"] and info["found"] == 0
    _, _, _, _, info = env.step(int(best[0]))
    assert info["is_success"] and info["found"] == 0.5  # the one that is worth the least of the three is like those that are worth nothing


def test_a_scalarizer_that_fails_stops_those_alone_who_ask_for_it(tmp_path, scalarizer):
    def fails(axis, spectra):
        raise ValueError("two\nlines")

    scalarizer("failing", "eels", fails)
    scalarizer("of one spectrum", "eels", lambda axis, spectra: spectra.max())
    env = make()
    env.reset(seed=1)
    env.step(3)
    for later in ("failing", "of one spectrum"):
        with pytest.raises(ProbeGymError, match=later) as caught:
            make(written(tmp_path, "bare", task={"scalarizers": [later]})).reset(seed=1)
        assert "\n" not in str(caught.value)
        with pytest.raises(ProbeGymError, match=later):  # at the start, not when its turn comes
            make(written(tmp_path, "bare", task={"scalarizers": ["peak ratio", later], "switch_after": [8]})).reset(seed=1)


def test_a_scalarizer_that_fails_later_leaves_nothing_half_written(tmp_path, scalarizer):
    broken = []

    def moody(axis, spectra):
        if broken:
            raise RuntimeError("boom")
        return spectra.sum(-1)

    scalarizer("moody", "eels", moody)
    env = make(written(tmp_path, "bare", task={"scalarizers": ["moody"]}))
    env.reset(seed=0)
    env.step(10)
    before = {name: array.copy() for name, array in env.episodes.memory.items()}
    broken.append(True)
    with pytest.raises(ProbeGymError, match=r"'moody' failed.*boom"):
        env.step(20)
    changed = [name for name, array in env.episodes.memory.items() if not np.array_equal(array, before[name])]
    assert set(changed) <= {"at"}
    broken.clear()
    assert env.step(20)[4]["measurements"] == 8  # the one that was lost has cost its dose


# ---- every world ----


@pytest.mark.parametrize("scenario", names("spectrum_exploration"))
def test_every_scenario_plays(scenario):
    env = make(scenario, render_mode="rgb_array")
    seen, info = env.reset(seed=0)
    env.action_space.seed(0)
    for _ in range(3):
        seen, reward, _, _, info = env.step(env.action_space.sample())
        assert env.observation_space.contains(seen) and np.isfinite(reward)
    assert 0 <= info["regret"] < 20 and env.render().dtype == np.uint8


def test_the_recorded_map_is_what_the_file_holds():
    from probegym.physics.spectrum_files import load

    whole = load("BEPS_PTO_50x50")
    env = make("locate-recorded")
    images = set()
    for seed in range(12):
        env.reset(seed=seed)
        state = env.episodes.world.state
        assert sorted(state["spectra"][0].sum(1)) == pytest.approx(sorted(whole.spectra.sum(1)))
        images.add(state["image"].tobytes())
        place = int(env.episodes.memory["at"][0])
        assert np.array_equal(env.episodes.memory["total"][0, place], state["spectra"][0, place])  # what was recorded, no noise on top
    assert 4 <= len(images) <= 8  # turned and mirrored


# ---- bad input ----

MISTAKES = {
    "unknown scalarizer": ({"task": {"scalarizers": ["beauty"]}}, "beauty"),
    "scalarizer of other spectra": ({"task": {"scalarizers": ["loop area"]}}, "not made for"),
    "steering blindly": ({"task": {"action": "steer"}}, "surrogate"),
    "even patch": ({"task": {"surrogate": {"patch": 4}}}, "odd"),
    "switch without a second": ({"task": {"switch_after": [10]}}, "switch_after"),
    "wrong channels": ({"task": {"spectrum": {"channels": 32}}}, "channels"),
    "wrong detector": ({"task": {"image": {"detector": "bf"}}}, "haadf"),
    "wrong field of view": ({"task": {"image": {"field_of_view": 1e-6}}}, "pixels over"),
    "unknown source": ({"world": {"source": {"name": "moon"}}}, "moon"),
    "unknown field": ({"world": {"specimen": {"colour": 1.0}}}, "colour"),
    "impossible specimen": ({"world": {"specimen": {"radius": 1.0}}}, "radius"),
    "zero exposure": ({"task": {"spectrum": {"exposure_time": 0}}}, "exposure_time"),
    "missing file": ({"world": {"source": {"name": "recorded", "file": "nowhere.h5"}}}, "nowhere.h5"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_in_a_scenario_are_refused_in_one_line(tmp_path, mistake):
    table, word = MISTAKES[mistake]
    base = "locate-recorded" if mistake == "missing file" else "bare"
    with pytest.raises(ProbeGymError, match=word) as caught:
        make(written(tmp_path, base, **table)).reset(seed=0)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "command",
    [
        AcquireSpectrum("eels", np.array([[-1e-9, 0.0]]), 0.05), AcquireSpectrum("eels", np.array([[0.0, 151e-9]]), 0.05),
        AcquireSpectrum("eels", np.array([[np.nan, 0.0]]), 0.05), AcquireSpectrum("eels", np.zeros((1, 2)), 0.0),
        AcquireSpectrum("loop", np.zeros((1, 2)), 0.05), AcquireImage("haadf", (40, 50), 150e-9, 1e-5, np.zeros(1)),
        AcquireImage("haadf", (50, 50), 150e-9, 1e-5, np.array([1e-9])), AcquireImage("haadf", (50, 50), 150e-9, -1.0, np.zeros(1)),
    ],
    ids=["left", "below", "nan", "no exposure", "detector", "shape", "defocus", "dwell"],
)  # fmt: skip
def test_commands_outside_of_what_the_twin_can_do_are_refused(command):
    env = make()
    env.reset(seed=0)
    before = env.snapshot()
    with pytest.raises(Refused):
        env.episodes.world.execute(command, ON)
    assert differences(env.snapshot(), before) == []
