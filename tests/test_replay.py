"""An episode that was recorded plays again through the same environment, without the twin."""

from __future__ import annotations

import json
import os

import gymnasium as gym
import numpy as np
import pytest

from probegym.envs.stem_tuning import StemTuning
from probegym.errors import ProbeGymError
from probegym.hardware_bridge.replay import RecordingWorld, ReplayWorld
from probegym.hardware_bridge.twins.stem import StemTwin
from probegym.hardware_bridge.world import Refused
from probegym.scenarios import load
from tests.environments import undeclared
from tests.helpers import differences, follow, python

SCENARIO = "both"


def actions(steps: int = 6) -> np.ndarray:
    return undeclared(np.random.default_rng(4).uniform(-1, 1, (steps, 8)).astype(np.float32))


def declaring() -> np.ndarray:
    some = actions()
    some[-1, -1] = 1.0
    return some


def play(env, chosen) -> list:
    return [env.reset(seed=5), *follow(env, chosen)]


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    """(what the environment returned, path of the recording)."""
    world = RecordingWorld(StemTwin(load("stem_tuning", SCENARIO).world, 1))
    seen = play(StemTuning(SCENARIO, world=world), declaring())
    return seen, world.save(tmp_path_factory.mktemp("replay") / "deep" / "episode.npz")


def replayed(path, **options) -> StemTuning:
    return StemTuning(SCENARIO, world=str(path), **options)


def test_recording_changes_nothing(recording):
    seen, _ = recording
    assert differences(play(StemTuning(SCENARIO), declaring()), seen) == []


def test_replay_returns_the_same(recording):
    seen, path = recording
    assert seen[-1][2] and differences(play(replayed(path), declaring()), seen) == []


def test_replay_through_gym_make(recording):
    seen, path = recording
    env = gym.make("probegym/StemTuning-v0", scenario=SCENARIO, world=str(path))
    assert differences(play(env, declaring()), seen) == []


def test_replay_needs_no_twin(recording):
    """Neither the simulator nor its data are loaded: as on an instrument."""
    _, path = recording
    code = f"""if True:
        import sys, numpy as np
        from probegym.envs.stem_tuning import StemTuning
        env = StemTuning({SCENARIO!r}, world=sys.argv[1])
        env.reset(seed=5)
        print([m for m in sys.modules if m.startswith(("probegym.physics.image", "probegym.physics.ronch", "probegym.hardware_bridge.twins"))])"""
    assert python(code, path) == "[]"


def test_the_observable_reward_can_be_replayed(tmp_path):
    class Blind(RecordingWorld):
        def truth(self):
            return None

    world = Blind(StemTwin(load("stem_tuning", "graphene").world, 1))
    env = StemTuning("graphene", reward="observable", world=world)
    seen = play(env, actions())
    again = StemTuning("graphene", reward="observable", world=str(world.save(tmp_path / "blind.npz")))
    for one, other in zip(seen, play(again, actions()), strict=True):
        assert differences(one[:4], other[:4]) in ([], ["/1/phase_variance", "/1/strehl"])


def test_without_truth_the_privileged_reward_is_refused():
    class Blind(StemTwin):
        def truth(self):
            return None

    env = StemTuning("graphene", world=Blind(load("stem_tuning", "graphene").world, 1))
    with pytest.raises(ProbeGymError, match="observable"):
        env.reset(seed=0)
        env.step(actions(1)[0])


# ---- what deviates ----


def deviates(path, changed: np.ndarray, named: str) -> None:
    env = replayed(path)
    with pytest.raises(Refused) as caught:
        play(env, changed)
    message = str(caught.value)
    assert named in message and "was asked for" in message and "\n" not in message


@pytest.mark.parametrize("size", [0.5, 0.05, 0.001])
def test_another_set_point_is_refused(recording, size):
    changed = declaring()
    changed[2, 0] += -np.sign(changed[2, 0]) * size
    deviates(recording[1], changed, "SetAberrations.values")


def test_a_declaration_that_was_not_made_is_refused(recording):
    changed = declaring()
    changed[2, -1] = 1.0
    with pytest.raises(Refused):
        play(replayed(recording[1]), changed)


def test_going_on_after_the_episode_is_refused(recording):
    env = replayed(recording[1])
    play(env, declaring())
    with pytest.raises(gym.error.ResetNeeded, match="ended"):
        env.step(actions(1)[0])


def test_going_on_after_the_recording_is_refused(tmp_path):
    world = RecordingWorld(StemTwin(load("stem_tuning", SCENARIO).world, 1))
    play(StemTuning(SCENARIO, world=world), actions(2))
    deviates(world.save(tmp_path / "short.npz"), actions(3), "ends after")


def test_another_scenario_is_refused(recording):
    with pytest.raises((Refused, ProbeGymError)):
        play(StemTuning("train", world=str(recording[1])), declaring())


def test_another_dwell_time_is_refused(recording, tmp_path):
    (tmp_path / "file.yaml").write_text("mine: {extends: both, task: {haadf: {dwell_time: 11e-6}}}")
    with pytest.raises(Refused, match="dwell_time"):
        play(StemTuning(f"{tmp_path / 'file.yaml'}:mine", world=str(recording[1])), declaring())


def test_a_refused_step_can_be_put_right(recording):
    seen, path = recording
    env, wrong = replayed(path), declaring()
    env.reset(seed=5)
    here = env.snapshot()
    wrong[0, 0] = -wrong[0, 0]
    with pytest.raises(Refused):
        env.step(wrong[0])
    env.restore(here)
    assert differences(follow(env, declaring()), seen[1:]) == []


def test_snapshot_and_counterfactual_of_a_replay(recording):
    seen, path = recording
    env = replayed(path)
    env.reset(seed=5)
    assert differences(env.counterfactual(declaring()), seen[1:]) == []
    assert differences(follow(env, declaring()), seen[1:]) == []
    with pytest.raises(ProbeGymError, match="noise"):
        env.counterfactual(declaring(), key=3)


# ---- files ----


def test_one_lane_is_recorded():
    with pytest.raises(ProbeGymError, match="one lane"):
        RecordingWorld(StemTwin(load("stem_tuning", "train").world, 2))


def test_lanes_of_world_and_environment_must_agree():
    with pytest.raises(ProbeGymError, match="lanes"):
        StemTuning("train", world=StemTwin(load("stem_tuning", "train").world, 2))


def refused(path) -> str:
    with pytest.raises(ProbeGymError) as caught:
        ReplayWorld(path)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("content", [b"", b"text", b"PK\x03\x04", bytes(3000)], ids=["empty", "text", "stub", "zeros"])
def test_another_file_is_refused(tmp_path, content):
    (tmp_path / "other.npz").write_bytes(content)
    refused(tmp_path / "other.npz")


def test_a_missing_file_is_refused(tmp_path):
    assert "check the path" in refused(tmp_path / "nothing.npz")


@pytest.mark.parametrize("share", [0.2, 0.7, 0.99])
def test_a_truncated_file_is_refused(recording, tmp_path, share):
    content = recording[1].read_bytes()
    (tmp_path / "short.npz").write_bytes(content[: int(share * len(content))])
    assert "again" in refused(tmp_path / "short.npz")


def test_no_flipped_bit_changes_what_is_replayed(recording, tmp_path):
    content, rng, path = recording[1].read_bytes(), np.random.default_rng(0), tmp_path / "damaged.npz"
    sound, caught = ReplayWorld(recording[1]), 0
    for place in rng.choice(len(content) * 8, 60, replace=False):
        damaged = bytearray(content)
        damaged[place // 8] ^= 1 << (place % 8)
        path.write_bytes(damaged)
        try:
            got = ReplayWorld(path)
        except ProbeGymError:
            caught += 1
        else:
            assert got.log == sound.log and differences(got.arrays, sound.arrays) == []
    assert caught > 30


@pytest.mark.parametrize("header", [{"format": 99, "log": []}, [], {"format": 1}, {"format": 1, "log": 3}], ids=str)
def test_a_wrong_header_is_refused(tmp_path, header):
    np.savez(tmp_path / "x.npz", header=np.array(json.dumps(header)))
    refused(tmp_path / "x.npz")


def test_objects_in_a_file_are_not_unpickled(tmp_path):
    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "executed"),)

    np.savez(tmp_path / "trap.npz", header=np.array(Trap(), dtype=object))
    refused(tmp_path / "trap.npz")
    assert not (tmp_path / "executed").exists()


def test_saving_leaves_nothing_half_written(tmp_path, monkeypatch):
    world = RecordingWorld(StemTwin(load("stem_tuning", "train").world, 1))
    StemTuning("train", world=world).reset(seed=0)

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez_compressed", full)
    with pytest.raises(ProbeGymError, match="No space left"):
        world.save(tmp_path / "x.npz")
    assert list(tmp_path.iterdir()) == []
