"""A record in the formats of others. The packages that read them are used where they are installed."""

from __future__ import annotations

import json
import re

import gymnasium as gym
import h5py
import numpy as np
import pytest

from probegym.envs.stem_tuning import StemTuning
from probegym.hardware_bridge import codec
from probegym.hardware_bridge.commands import AcquireImage, AcquireSpectrum, PlaceProbe, Readings
from probegym.hardware_bridge.records import Record, Recorder, RecordError
from probegym.hardware_bridge.records.export import to_hspy, to_minari, to_nxdata
from probegym.hardware_bridge.records.replay import RecordingWorld
from probegym.hardware_bridge.records.steps import episodes, space_to_json
from probegym.hardware_bridge.twins.stem import StemTwin
from probegym.scenarios import load
from tests.environments import undeclared
from tests.helpers import ROOT

STEPS, HERE = 3, np.ones(1, bool)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """(record of two episodes of StemTuning, what the agent saw: lists of observations, actions, rewards by episode)."""
    recorder = Recorder(tmp_path_factory.mktemp("runs"), {"environment": "probegym/StemTuning-v0", "scenario": "both"}, inline=1024)
    world = RecordingWorld(StemTwin(load("stem_tuning", "both").world, 1), recorder)
    env = StemTuning("both", world=world)
    world.about = {"seed": 5, "spaces": {"observation": space_to_json(env.observation_space), "action": space_to_json(env.action_space)}}
    seen = []
    for seed in (5, 6):
        observation, _ = env.reset(seed=seed)
        recorder.append("observation", {}, observation)
        seen.append(([observation], [], []))
        for action in undeclared(np.random.default_rng(seed).uniform(-1, 1, (STEPS, 8)).astype(np.float32)):
            recorder.append("action", {}, {"action": action})
            observation, reward, terminated, truncated, _ = env.step(action)
            recorder.append("observation", {}, observation)
            recorder.append("reward", {"reward": float(reward), "terminated": bool(terminated), "truncated": bool(truncated)})
            for column, value in zip(seen[-1], (observation, action, reward), strict=True):
                column.append(value)
        recorder.append("end", {"reason": "enough steps"})
    recorder.close()
    return Record(recorder.folder), seen


# ---- images and spectra ----


class Lamp:
    lanes, count = 1, 0

    def begin(self, keys, where):
        pass

    def truth(self):
        return None

    def execute(self, command, where):
        self.count += 1
        values = {"image": np.full((1, 4, 6), self.count, np.float32)}
        if isinstance(command, AcquireSpectrum):
            values = {"spectrum": np.full((1, 5), float(self.count)), "axis": np.array([[2.0, 2.5, 3.0, 3.5, 4.0]]), "gain": np.array([7.0])}
        if isinstance(command, PlaceProbe):
            values = {"valid": np.array([True]), "vectors": np.zeros((1, 2, 3, 2))}
        return Readings(values, *(np.full(1, cost * self.count) for cost in (0.5, 10.0, 0.0, 1.0)))


@pytest.fixture(scope="module")
def lamp(tmp_path_factory) -> Record:
    with Recorder(tmp_path_factory.mktemp("lamp"), {"sample": "Si"}) as recorder:
        world = RecordingWorld(Lamp(), recorder)
        for width in (3e-9, 3e-9, 6e-9):
            world.execute(AcquireImage("haadf", (4, 6), width, 1e-6, np.zeros(1)), HERE)
            world.execute(AcquireSpectrum("eels", np.zeros((1, 2)), 0.1), HERE)
        world.execute(PlaceProbe(np.zeros((1, 2)), np.ones(1)), HERE)
    return Record(recorder.folder)


def axes(group) -> list[tuple]:
    found = [group[f"axis-{i}"].attrs for i in range(group["data"].ndim)]
    return [(a["name"], a["size"], round(float(a["scale"]), 12), float(a["offset"]), a["units"], bool(a["navigate"])) for a in found]


def test_hyperspy_gets_every_reading_with_calibrated_axes(lamp, tmp_path):
    with h5py.File(to_hspy(lamp, tmp_path / "x.hspy")) as file:
        assert file.attrs["file_format"] == "HyperSpy"
        signals = file["Experiments"]
        assert set(signals) == {"AcquireImage.image", "AcquireImage.image 2", "AcquireSpectrum.spectrum", "AcquireSpectrum.axis",
                                "AcquireSpectrum.gain", "PlaceProbe.valid", "PlaceProbe.vectors"}  # fmt: skip
        image, other, spectrum = (signals[name] for name in ("AcquireImage.image", "AcquireImage.image 2", "AcquireSpectrum.spectrum"))
        assert image["data"].dtype == np.float32 and np.array_equal(image["data"][:, 0, 0], [1, 3]) and image["data"].shape == (2, 4, 6)
        assert axes(image) == [("command", 2, 1, 0, "", True), ("y", 4, 0.5e-9, 0, "m", False), ("x", 6, 0.5e-9, 0, "m", False)]
        assert axes(other)[2] == ("x", 6, 1e-9, 0, "m", False) and other["data"].shape == (1, 4, 6)
        assert axes(spectrum) == [("command", 3, 1, 0, "", True), ("axis", 5, 0.5, 2.0, "", False)]
        assert image["metadata/General"].attrs["title"] == "AcquireImage.image"
        assert json.loads(image["original_metadata"].attrs["manifest"]) == {"sample": "Si"}


def test_hyperspy_loads_it(lamp, tmp_path):
    hs = pytest.importorskip("hyperspy.api")
    signals = {s.metadata.General.title: s for s in hs.load(to_hspy(lamp, tmp_path / "x.hspy"))}
    image, spectrum = signals["AcquireImage.image"], signals["AcquireSpectrum.spectrum"]
    assert type(image).__name__ == "Signal2D" and [a.scale for a in image.axes_manager.signal_axes] == [0.5e-9] * 2
    assert type(spectrum).__name__ == "Signal1D" and np.allclose(spectrum.axes_manager.signal_axes[0].axis, np.linspace(2, 4, 5))
    assert len(signals) == 7


def test_nxdata_says_which_axis_is_which(lamp, tmp_path):
    with h5py.File(to_nxdata(lamp, tmp_path / "x.nxs")) as file:
        entry = file[file.attrs["default"]]
        assert entry.attrs["NX_class"] == "NXentry" and entry["title"][()].decode() == lamp.run and json.loads(entry["manifest"][()]) == {"sample": "Si"}
        default = entry[entry.attrs["default"]]
        assert default.name.endswith("AcquireImage.image")
        for group in (g for g in entry.values() if isinstance(g, h5py.Group)):
            names, data = list(group.attrs["axes"]), group[group.attrs["signal"]]
            assert group.attrs["NX_class"] == "NXdata" and [len(group[name]) for name in names] == list(data.shape)
        assert np.allclose(default["x"], 0.5e-9 * np.arange(6)) and default["x"].attrs["units"] == "m"
        assert list(default["event"]) == [0, 4] and list(default["dose"]) == [10.0, 30.0] and default.attrs["dose_indices"] == 0
        assert default["dose"].attrs["units"] == "1/angstrom^2" and default["elapsed"][0] >= 0 and list(np.diff(default["time"])) == [1.0]
        told = entry["AcquireSpectrum.spectrum"]
        assert told["command_position"].shape == (3, 2) and told["command_position"].attrs["units"] == "m" and told["command_exposure_time"].attrs["units"] == "s"
        assert np.allclose(entry["AcquireSpectrum.spectrum/axis"], [2, 2.5, 3, 3.5, 4])


def test_commands_without_result_are_left_out(tmp_path):
    with Recorder(tmp_path, {}) as recorder:
        for kind in ("result", "refused", "settled", "fault"):
            intent = recorder.append("intent", {"command": {"verb": "InspectLevels", "arguments": {}}})
            costs = {name: [1.0] for name in Readings.COSTS}
            recorder.append(kind, {"intent": intent, "readings": {"values": ["view"], "costs": costs}}, {"view": np.full(1, float(intent))})
    with h5py.File(to_hspy(Record(recorder.folder), tmp_path / "x.hspy")) as file:
        assert list(file["Experiments/InspectLevels.view/data"]) == [0.0]


def test_images_of_a_run_are_those_that_were_recorded(run, tmp_path):
    record, _ = run
    with h5py.File(to_hspy(record, tmp_path / "x.hspy")) as file:
        found = file["Experiments/AcquireImage.haadf/data"][:]
    results = [record.arrays(event)["haadf"][0] for event in record if event.kind == "result" and "haadf" in {f.name for f in event.frames}]
    assert len(results) == 2 * (STEPS + 1) and np.array_equal(found, results)


# ---- episodes ----


def test_episodes_are_taken_apart(run):
    record, seen = run
    found = list(episodes(record))
    assert [len(e.rewards) for e in found] == [STEPS, STEPS] and not found[0].whole
    for episode, (observations, actions, _) in zip(found, seen, strict=True):
        for event, observation in zip(episode.observations, observations, strict=True):
            assert all(np.array_equal(array, observation[name]) for name, array in record.arrays(event).items())
        assert np.array_equal([record.arrays(event)["action"] for event in episode.actions], actions)


def test_minari_gets_the_episodes(run, tmp_path):
    record, seen = run
    folder = to_minari(record, tmp_path / "set", "probegym/tuning-v0")
    metadata = json.loads((folder / "data" / "metadata.json").read_text())
    assert (metadata["total_episodes"], metadata["total_steps"], metadata["dataset_id"]) == (2, 2 * STEPS, "probegym/tuning-v0")
    with h5py.File(folder / "data" / "main_data.hdf5") as file:
        assert list(file) == ["episode_0", "episode_1"]
        for group, (observations, actions, rewards) in zip(file.values(), seen, strict=True):
            assert group.attrs["total_steps"] == STEPS and group.attrs["seed"] == 5
            for name in observations[0]:
                assert np.array_equal(group["observations"][name], [o[name] for o in observations]) and group["observations"][name].dtype == observations[0][name].dtype
            assert np.array_equal(group["actions"], actions) and np.array_equal(group["rewards"], rewards)
            assert not group["terminations"][:].any() and list(group["truncations"]) == [False] * (STEPS - 1) + [True]


def test_minari_loads_it(run, tmp_path, monkeypatch):
    minari = pytest.importorskip("minari")
    record, seen = run
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    to_minari(record, tmp_path / "probegym" / "tuning-v0", "probegym/tuning-v0")
    data = minari.load_dataset("probegym/tuning-v0")
    env = StemTuning("both")
    assert data.observation_space == env.observation_space and data.action_space == env.action_space and data.total_steps == 2 * STEPS
    for episode, (observations, actions, rewards) in zip(data.iterate_episodes(), seen, strict=True):
        assert np.array_equal(episode.actions, actions) and np.array_equal(episode.rewards, rewards)
        assert np.array_equal(episode.observations["haadf"], [o["haadf"] for o in observations])


def steps(tmp_path, *kinds: str, begin: dict | None = None, **arrays) -> Record:
    shown = {"observation": {"observation": np.zeros(3)}, "action": {"action": np.array(2)}, "reward": None, "end": None} | arrays
    with Recorder(tmp_path, {}) as recorder:
        recorder.append("begin", begin or {})
        for kind in kinds:
            recorder.append(kind, {"reward": 1.5, "terminated": False, "truncated": False} if kind == "reward" else {}, shown[kind])
    return Record(recorder.folder)


WHOLE = ("observation", "action", "observation", "reward")


def test_a_step_that_was_cut_off_is_left_out(tmp_path):
    for more in ((), ("action",), ("action", "observation")):
        (episode,) = episodes(steps(tmp_path, *WHOLE, *more))
        assert [len(column) for column in (episode.observations, episode.actions, episode.rewards)] == [2, 1, 1]
    assert list(episodes(steps(tmp_path, "observation", "action"))) == []
    with pytest.raises(RecordError, match="no whole step"):
        to_minari(steps(tmp_path, "observation"), tmp_path / "set")
    assert not (tmp_path / "set").exists()


@pytest.mark.parametrize(("ends", "kept"), [((False, False), (False, True)), ((True, False), (True, False)), ((False, True), (False, True))])
def test_an_episode_that_ended_is_not_called_cut_off(tmp_path, ends, kept):
    with Recorder(tmp_path, {}) as recorder:
        recorder.append("begin", {})
        for kind in WHOLE[:3]:
            recorder.append(kind, {}, {kind: np.zeros(1)})
        recorder.append("reward", {"reward": 1.0, "terminated": ends[0], "truncated": ends[1]})
    folder = to_minari(Record(recorder.folder), tmp_path / "set")
    with h5py.File(folder / "data" / "main_data.hdf5") as file:
        assert (file["episode_0/terminations"][0], file["episode_0/truncations"][0]) == kept


def test_an_action_that_was_refused_is_replaced(tmp_path):
    (episode,) = episodes(steps(tmp_path, "observation", "action", "action", "observation", "reward"))
    assert [event.seq for event in episode.actions] == [3]


@pytest.mark.parametrize("kinds", [("action",), ("observation", "observation"), ("observation", "reward"), ("observation", "action", "reward"),
                                   (*WHOLE, "observation"), (*WHOLE, "reward")])  # fmt: skip
def test_events_out_of_order_are_refused(tmp_path, kinds):
    with pytest.raises(RecordError, match="out of order"):
        list(episodes(steps(tmp_path, *kinds)))


def test_spaces_that_are_not_told_are_inferred(tmp_path):
    folder = to_minari(steps(tmp_path, *WHOLE, "end"), tmp_path / "set")
    metadata = json.loads((folder / "data" / "metadata.json").read_text())
    space = json.loads(metadata["observation_space"])
    assert space["type"] == "Box" and space["low"] == [-np.inf] * 3 and space["dtype"] == "float64"
    assert json.loads(metadata["action_space"])["high"] == 2**63 - 1


SPACE = {"type": "Box", "dtype": "float64", "shape": [3], "low": 0.0, "high": None}


@pytest.mark.parametrize("action", [
    {"type": "Discrete", "n": 5, "start": 0, "dtype": "float32"}, {"type": "Box", "shape": [2], "dtype": "int64", "low": 0, "high": 1}, {}, {"type": "Box"},
    {"type": "Dict", "subspaces": 3}, {"type": "Dict", "subspaces": {"action": {"type": "Discrete", "n": 5, "start": 0, "dtype": "O"}}},
    {"type": "Box", "shape": ["a"], "dtype": "int64", "low": 0, "high": 1}, {"type": "Box", "shape": [], "dtype": "int64", "low": "a", "high": 1},
])  # fmt: skip
def test_spaces_that_do_not_fit_are_refused(tmp_path, action):
    record = steps(tmp_path, *WHOLE, begin={"spaces": {"observation": SPACE, "action": action}})
    with pytest.raises(RecordError) as caught:
        to_minari(record, tmp_path / "set")
    assert "\n" not in str(caught.value) and not (tmp_path / "set").exists()


def test_episodes_of_different_spaces_are_refused(tmp_path):
    with Recorder(tmp_path, {}) as recorder:
        for size in (3, 4):
            recorder.append("begin", {})
            recorder.append("observation", {}, {"observation": np.zeros(size)})
            recorder.append("action", {}, {"action": np.array(2)})
            recorder.append("observation", {}, {"observation": np.zeros(size)})
            recorder.append("reward", {"reward": 0.0, "terminated": True, "truncated": False})
    record = Record(recorder.folder)
    assert [episode.whole for episode in episodes(record)] == [True, True]
    with pytest.raises(RecordError, match="spaces differ"):
        to_minari(record, tmp_path / "set")


@pytest.mark.parametrize("payload", [{}, {"reward": float(1), "terminated": 1, "truncated": False}, {"reward": "1", "terminated": True, "truncated": False},
                                     {"reward": True, "terminated": True, "truncated": False}])  # fmt: skip
def test_a_reward_is_a_number_and_two_answers(tmp_path, payload):
    with Recorder(tmp_path, {}) as recorder:
        recorder.append("begin", {})
        for kind, arrays in (("observation", {"observation": np.zeros(1)}), ("action", {"action": np.zeros(1)}), ("observation", {"observation": np.zeros(1)})):
            recorder.append(kind, {}, arrays)
        recorder.append("reward", payload)
    with pytest.raises(RecordError, match="a reward needs"):
        to_minari(Record(recorder.folder), tmp_path / "set")


def test_infinite_bounds_are_told_and_come_back(tmp_path):
    box = gym.spaces.Box(np.array([-np.inf, 0.0, 0.0]), np.array([np.inf, 1.0, np.inf]), dtype=np.float64)
    told = space_to_json(box)
    assert told["low"] == [None, 0.0, 0.0] and told["high"] == [None, 1.0, None]
    assert space_to_json(gym.spaces.Box(-np.inf, 3.0, (2,)))["low"] is None and space_to_json(gym.spaces.Box(-np.inf, 3.0, (2,)))["high"] == 3.0
    folder = to_minari(steps(tmp_path, *WHOLE, begin={"spaces": {"observation": told, "action": space_to_json(gym.spaces.Discrete(5))}}), tmp_path / "set")
    space = json.loads(json.loads((folder / "data" / "metadata.json").read_text())["observation_space"])
    assert space["low"] == box.low.tolist() and space["high"] == box.high.tolist()


def test_every_registered_space_can_be_told(subject):
    env = subject.bare()
    for space in (env.observation_space, env.action_space):
        told = space_to_json(space)
        assert json.loads(json.dumps(told, allow_nan=False)) == told
    with pytest.raises(RecordError, match="Text"):
        space_to_json(gym.spaces.Text(3))


# ---- what cannot be exported ----


def test_a_record_without_readings_is_refused(tmp_path):
    for write in (to_hspy, to_nxdata):
        with pytest.raises(RecordError, match="no readings"):
            write(steps(tmp_path, *WHOLE), tmp_path / "out")
    assert not (tmp_path / "out").exists()


IMAGE = codec.command_to_json(AcquireImage("haadf", (4, 6), 3e-9, 1e-6, np.zeros(1)))
COSTS = {name: [1.0] for name in Readings.COSTS}


def acquired(tmp_path, header, array=None, **arguments) -> Record:
    """One image that is asked for and given like this."""
    command = IMAGE | {"arguments": IMAGE["arguments"] | arguments}
    with Recorder(tmp_path, {}) as recorder:
        recorder.append("begin", {})
        intent = recorder.append("intent", {"command": command})
        recorder.append("result", {"intent": intent, "readings": header}, {"haadf": np.zeros((1, 4, 6)) if array is None else array})
    return Record(recorder.folder)


@pytest.mark.parametrize("header", [{}, None, 3, {"values": ["haadf"]}, {"values": ["bf"], "costs": COSTS}, {"values": [["haadf"]], "costs": COSTS},
                                    {"values": ["haadf"], "costs": COSTS | {"dose": []}}, {"values": ["haadf"], "costs": COSTS | {"dose": [1.0, 1.0]}},
                                    {"values": ["haadf"], "costs": COSTS | {"dose": [10**400]}}, {"values": ["haadf"], "costs": COSTS | {"dose": [-1]}}])  # fmt: skip
def test_readings_that_are_none_are_named_by_record_and_event(tmp_path, header):
    record = acquired(tmp_path, header)
    for write in (to_hspy, to_nxdata):
        with pytest.raises(RecordError, match=rf"^{record.folder}, event 2: the readings of AcquireImage cannot be read[^\n]*$"):
            write(record, tmp_path / "out")


@pytest.mark.parametrize(("shape", "width"), [([0, 0], 3e-9), ([0, 6], 3e-9), ([4, 0], 3e-9), ([4, 6], 0.0), ([4, 6], -1e-9)])
def test_images_of_no_extent_are_refused(tmp_path, shape, width):
    record = acquired(tmp_path, {"values": ["haadf"], "costs": COSTS}, np.zeros((1, *shape)), shape=shape, field_of_view={"value": width, "unit": "m"})
    for write in (to_hspy, to_nxdata):
        with pytest.raises(RecordError, match="event 2: haadf is an image of no extent"):
            write(record, tmp_path / "out")


def test_readings_of_nothing_are_left_out_and_uneven_axes_are_not_called_even(tmp_path):
    uneven = np.array([[1.0, 2.0, 4.0, 8.0]]) * 1e-12
    with Recorder(tmp_path, {}) as recorder:
        spectrum = codec.command_to_json(AcquireSpectrum("eels", np.zeros((1, 2)), 0.1))
        for axis in (uneven, np.arange(4.0)[None] * 1e-12, np.array([[4, 3, 2, 1]], np.uint8), np.array([[np.nan, 1, 2, np.inf]]), np.array([[-1e308, 0, 1, 1e308]]), np.array([["a", "b", "c", "d"]])):
            arrays = {"spectrum": np.ones((1, 4)), "axis": axis, "found": np.zeros((1, 0, 2))}
            recorder.append("result", {"intent": recorder.append("intent", {"command": spectrum}), "readings": {"values": sorted(arrays), "costs": COSTS}}, arrays)
    with h5py.File(to_hspy(Record(recorder.folder), tmp_path / "x.hspy")) as file:
        signals = file["Experiments"]
        assert {name.split(" ")[0] for name in signals} == {"AcquireSpectrum.spectrum", "AcquireSpectrum.axis"}
        told = {(group["axis-1"].attrs["name"], float(group["axis-1"].attrs["scale"])): len(group["data"]) for name, group in signals.items() if "spectrum" in name}
        assert told == {("index", 1.0): 4, ("axis", 1e-12): 1, ("axis", -1.0): 1}


def test_a_shadow_s_own_record_exports_what_it_has_seen(tmp_path):
    """It does not know whose command a frame answers, so neither the width of the view nor what it cost."""
    frames = np.random.default_rng(0).random((2, 1, 4, 6)).astype(np.float32)
    with Recorder(tmp_path, {"mode": "shadow"}) as recorder:
        recorder.append("begin", {"seed": 1})
        for number, frame in enumerate(frames):
            recorder.append("would", {"command": IMAGE, "action": number})
            recorder.append("observed", {"verb": "AcquireImage", "number": number}, {"haadf": frame})
    with h5py.File(to_nxdata(Record(recorder.folder), tmp_path / "x.nxs")) as file:
        group = file["entry/AcquireImage.haadf"]
        assert np.array_equal(group["data"], frames[:, 0]) and list(group["event"]) == [2, 4] and np.isnan(group["dose"]).all()
        assert list(group.attrs["axes"]) == ["event", "index_0", "index_1"]


# ---- the page ----


def test_the_page_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    page, held = (ROOT / "docs" / "records.md").read_text(encoding="utf-8"), {}
    for code, printed in re.findall(r"```python\n(.*?)```(?:\n+```text\n(.*?)```)?", page, re.S):
        lines: list[str] = []
        held["print"] = lambda *told, lines=lines: lines.append(" ".join(map(str, told)))
        exec(compile(code, "docs/records.md", "exec"), held)
        assert not printed or "\n".join(lines).strip() == printed.strip()
    assert held["record"].verify().sound and held["path"].exists()
