"""Converting SB3's zips, which unpickles and therefore asks for trust, and exporting policies that are there."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import zipfile
from base64 import b64encode
from pathlib import Path

import cloudpickle
import gymnasium as gym
import numpy as np
import pytest
import torch
from stable_baselines3 import DQN, PPO, SAC

from probegym.agents import convert as agents_convert
from probegym.agents import sb3
from probegym.agents.bundle import BundlePolicy, shipped
from probegym.agents.convert import _compare as compare
from probegym.agents.convert import algorithm
from probegym.agents.convert import main as unpickle
from probegym.agents.evaluate import evaluate
from probegym.agents.train_stem import THRESHOLDS, Distillation, Trainer
from probegym.console import plain
from probegym.errors import ProbeGymError
from probegym.hardware_bridge.deployment.bundle import read
from probegym.terminal import convert as converting
from probegym.terminal import export as exporting
from probegym.terminal.convert import convert
from probegym.terminal.export import export

STEM, STM, ISING = "probegym/StemTuning-v0", "probegym/TipConditioning-v0", "probegym/IsingInference-v0"


def small() -> dict:
    """Keywords of a small model; SB3 writes into them."""
    return {"policy_kwargs": {"net_arch": [16]}, "device": "cpu", "seed": 1}


pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture
def console():
    return plain(file=io.StringIO(), width=200)


def saved(model, path: Path) -> Path:
    model.save(path)
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """PPO as anybody would make it, untrained."""
    return saved(PPO("MultiInputPolicy", gym.make(STM), **small()), tmp_path_factory.mktemp("sb3") / "model.zip")


# ---- convert ----


def test_nothing_is_loaded_without_trust(model, tmp_path, console, monkeypatch):
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("a process was started"))
    with pytest.raises(ProbeGymError, match="--trust") as caught:
        convert(model, False, STM, "train", tmp_path / "policy", console)
    assert "runs the programs inside with your rights" in str(caught.value) and not list(tmp_path.iterdir())


def test_sac_is_converted_without_its_buffer(tmp_path, monkeypatch):
    zipped = saved(SAC("MultiInputPolicy", gym.make(STEM), buffer_size=20, **small()), tmp_path / "model.zip")
    assert algorithm(zipped) == "sac"
    sizes = []
    monkeypatch.setattr(agents_convert, "_compare", lambda loaded, folder: (sizes.append(loaded.buffer_size), compare(loaded, folder)))
    unpickle(str(zipped), "sac", STEM, "train", str(tmp_path / "policy"))
    assert read(tmp_path / "policy").spec["algorithm"] == "sac" and sizes == [agents_convert.LANES]


def evil(model: Path, path: Path, witness: Path) -> Path:
    """The model with an entry whose unpickling makes a file."""

    class Payload:
        def __reduce__(self):
            return os.mkdir, (str(witness),)

    with zipfile.ZipFile(model) as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name == "data":
                entries = json.loads(content)
                entries["extra"] = {":type:": "x", ":serialized:": b64encode(cloudpickle.dumps(Payload())).decode()}
                content = json.dumps(entries).encode()
            new.writestr(name, content)
    return path


def test_a_hostile_zip_runs_only_with_trust_and_a_model_comes_out_as_sb3_plays_it(model, tmp_path, console):
    zipped, witness = evil(model, tmp_path / "model.zip", tmp_path / "witness"), tmp_path / "witness"
    assert algorithm(zipped) == "ppo"
    with pytest.raises(ProbeGymError, match="--trust"):
        convert(zipped, False, STM, "train", tmp_path / "policy", console)
    assert not witness.exists()  # looking at it ran nothing of it
    convert(zipped, True, STM, "train", tmp_path / "policy", console)
    assert witness.exists() and sorted(p.name for p in tmp_path.iterdir()) == ["model.zip", "policy", "witness"]
    assert "runs whatever code it holds" in console.file.getvalue()
    policy, theirs = BundlePolicy(tmp_path / "policy"), PPO.load(model, device="cpu")
    assert policy.spec["converted"]["file"] == "model.zip" and policy.spec["algorithm"] == "ppo" and policy.spec["scenario"] == "train"
    envs = gym.make_vec(STM, num_envs=16, scenario="train", autoreset_mode="Disabled")
    observation, _ = envs.reset(seed=7)
    policy.begin(16, 0)
    assert np.array_equal(policy.decide(observation), theirs.predict(observation, deterministic=True)[0])


def test_no_secret_is_handed_to_the_loading_process(model, tmp_path, console, monkeypatch):
    monkeypatch.setenv("PROBEGYM_TEST_SECRET", "hunter2")
    given = {}

    def run(command, env, **_):
        given.update(env)
        return subprocess.CompletedProcess(command, 1, b"", b"Traceback\nValueError: no\x1b[2J")

    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(ProbeGymError, match="cannot be converted: ValueError: no") as caught:
        convert(model, True, STM, "train", tmp_path / "policy", console)
    assert given and "PROBEGYM_TEST_SECRET" not in given and str(caught.value).isprintable() and not list(tmp_path.iterdir())


def other(name: str, content: bytes):
    def make(path: Path) -> Path:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(name, content)
        return path

    return make


FOREIGN = {
    "no zip": (lambda p: p.write_bytes(b"hello") and p, "no model of Stable-Baselines3"),
    "no file": (lambda p: p, "there is no file"),
    "a zip of something": (other("x", b""), "no model of Stable-Baselines3"),
    "data that is no JSON": (other("data", b"{"), "no model of Stable-Baselines3"),
    "data nested without end": (other("data", b"[" * 100_000), "no model of Stable-Baselines3"),
    "data that is a list": (other("data", b"[]"), "neither of PPO nor of SAC"),
    "DQN": (lambda p: saved(DQN("MlpPolicy", gym.make("CartPole-v1"), buffer_size=10, device="cpu"), p), "neither of PPO nor of SAC"),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_other_files_are_refused(kind, tmp_path, console, monkeypatch):
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("a process was started"))
    make, message = FOREIGN[kind]
    with pytest.raises(ProbeGymError, match=message):
        convert(make(tmp_path / "model.zip"), True, STM, "train", tmp_path / "policy", console)


def test_a_model_of_another_environment_is_refused(model, tmp_path):
    with pytest.raises(ProbeGymError, match="does not fit probegym/StemTuning-v0"):
        unpickle(str(model), "ppo", STEM, "train", str(tmp_path / "policy"))
    assert not (tmp_path / "policy").exists()


def test_several_choices_at_once_come_out_as_they_are(tmp_path):
    zipped = saved(PPO("MultiInputPolicy", gym.make(ISING), **small()), tmp_path / "model.zip")
    unpickle(str(zipped), "ppo", ISING, "train", str(tmp_path / "policy"))
    assert evaluate(BundlePolicy(tmp_path / "policy"), ISING, "train", 2).steps.min() > 0


def test_actions_that_do_not_come_out_the_same_are_refused(tmp_path, monkeypatch):
    zipped = saved(PPO("MultiInputPolicy", gym.make(ISING), **small()), tmp_path / "model.zip")
    right = sb3._Deterministic.forward
    monkeypatch.setattr(sb3._Deterministic, "forward", lambda self, *seen: 1 - right(self, *seen).clamp(0, 1))
    with pytest.raises(ProbeGymError, match="do not come out as SB3 gives them"):
        unpickle(str(zipped), "ppo", ISING, "train", str(tmp_path / "policy"))


def test_what_the_process_wrote_is_verified(model, tmp_path, console, monkeypatch):
    def run(command, **_):  # a process that was taken over writes what it likes
        shutil.copytree(shipped()["stem-tuning-ronchigram"], command[-1])
        return subprocess.CompletedProcess(command, 0, b"", b"")

    monkeypatch.setattr(converting.subprocess, "run", run)
    with pytest.raises(ProbeGymError, match="is made for probegym/StemTuning-v0"):
        convert(model, True, STM, "train", tmp_path / "policy", console)


# ---- export ----


@pytest.mark.parametrize("name", ["stem-tuning-haadf", "tip-conditioning"])
def test_a_shipped_policy_is_copied_byte_by_byte(name, tmp_path, console):
    for _ in range(2):  # over itself too
        export(name, tmp_path / "policy", console)
    assert read(tmp_path / "policy").digest in console.file.getvalue()
    for file in ("policy.json", "policy.onnx"):
        assert (tmp_path / "policy" / file).read_bytes() == (shipped()[name] / file).read_bytes()


def test_a_spoiled_policy_is_not_copied(tmp_path, console):
    spoiled = shutil.copytree(shipped()["level-selection"], tmp_path / "spoiled")
    (spoiled / "policy.onnx").write_bytes(b"x")
    with pytest.raises(ProbeGymError, match="checksum"):
        export(str(spoiled), tmp_path / "policy", console)
    assert not (tmp_path / "policy").exists()


def test_nothing_to_export(tmp_path, console):
    with pytest.raises(ProbeGymError, match="no policy"):
        export(str(tmp_path), tmp_path / "policy", console)
    (tmp_path / "checkpoint.pt").write_bytes(b"x")
    with pytest.raises(ProbeGymError, match="cannot be read"):
        export(str(tmp_path), tmp_path / "policy", console)


def test_a_training_is_exported_from_its_checkpoint(tmp_path, console):
    training = sb3.Training(STM, "train", "ppo", 64)
    run = tmp_path / "run"
    model = sb3.train_sb3(training, run)
    export(str(run), tmp_path / "first", console)
    policy, observation = BundlePolicy(tmp_path / "first"), model.env.reset()
    policy.begin(sb3.LANES, 0)
    assert np.array_equal(policy.decide(observation), model.predict(observation, deterministic=True)[0])
    assert policy.spec["command"].startswith("probegym train TipConditioning-v0 --algorithm ppo")
    shutil.copytree(shipped()["tip-conditioning"], run / "policy")  # newer than the checkpoint: this is what the training ended with
    os.utime(run / "policy" / "policy.json")
    export(str(run), tmp_path / "second", console)
    assert read(tmp_path / "second").digest == read(shipped()["tip-conditioning"]).digest
    os.utime(run / "policy" / "policy.json", (0, 0))
    export(str(run), tmp_path / "third", console)
    assert read(tmp_path / "third").spec["observations"] == policy.spec["observations"]


def test_a_distillation_is_exported_when_it_is_finished(tmp_path, console, monkeypatch):
    trainer = Trainer(Distillation(updates=6), tmp_path / "run")
    trainer.save()
    with pytest.raises(ProbeGymError, match=r"0 of 6 updates: finish it with probegym train StemTuning-v0 .* --resume"):
        export(str(tmp_path / "run"), tmp_path / "policy", console)
    assert not (tmp_path / "policy").exists()
    trainer.run()
    monkeypatch.setattr(exporting, "SELECTION_EPISODES", 2)
    export(str(tmp_path / "run"), tmp_path / "policy", console)
    spec = read(tmp_path / "policy").spec
    assert spec["command"].startswith("probegym train StemTuning-v0 --algorithm distil") and len(spec["selection"]["success"]) == len(THRESHOLDS)
