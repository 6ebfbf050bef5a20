"""An episode that was recorded plays again through the same environment, without the twin."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest

from probegym.envs.stem_tuning import StemTuning
from probegym.errors import ProbeGymError
from probegym.hardware_bridge.records import Recorder
from probegym.hardware_bridge.records.replay import RecordingWorld
from probegym.hardware_bridge.twins.stem import StemTwin
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


def recorded(folder, scenario: str, chosen: np.ndarray, twin=StemTwin, **options) -> tuple[list, str]:
    """(what the environment returned, folder of the record)."""
    with Recorder(folder, {}) as recorder:
        seen = play(StemTuning(scenario, world=RecordingWorld(twin(load("stem_tuning", scenario).world, 1), recorder), **options), chosen)
    return seen, str(recorder.folder)


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    return recorded(tmp_path_factory.mktemp("replay"), SCENARIO, declaring())


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
    class Blind(StemTwin):
        def truth(self):
            return None

    seen, path = recorded(tmp_path, "graphene", actions(), Blind, reward="observable")
    again = StemTuning("graphene", reward="observable", world=path)
    assert differences(seen, play(again, actions())) == []


def test_without_truth_the_privileged_reward_is_refused():
    class Blind(StemTwin):
        def truth(self):
            return None

    env = StemTuning("graphene", world=Blind(load("stem_tuning", "graphene").world, 1))
    with pytest.raises(ProbeGymError, match="observable"):
        env.reset(seed=0)
        env.step(actions(1)[0])
