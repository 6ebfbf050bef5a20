"""The ``probegym`` command: what it prints, its exit codes, and what is left when it is stopped."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time

import httpx
import pytest
import torch
import yaml

from probegym.agents import files, train_stem, train_stm
from probegym.agents.train_stem import Distillation, Trainer
from probegym.errors import ProbeGymError
from probegym.terminal import train as training
from tests.helpers import ROOT
from tests.terminal import call

MAIN = "from probegym.cli import main; main()"


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    """Everything that a command writes by default goes to a fresh folder."""
    monkeypatch.chdir(tmp_path)
    torch.set_num_threads(1)


def good(*arguments, **options) -> str:
    done = call(*arguments, **options)
    assert done.exit_code == 0, done.output
    return done.output


def start(*arguments, **options) -> subprocess.Popen:
    surroundings = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, "-c", MAIN, *map(str, arguments)], env=surroundings, **pipes | options)


# ---- looking ----


@pytest.mark.parametrize("arguments", [(), ("--help",), ("train", "--help"), ("specimen",), ("specimen", "build", "--help"), ("record",)])
def test_help(arguments):
    assert good(*arguments).startswith("Usage: ")


def test_every_command_has_a_line_of_help_that_fits():
    lines = good("--help").partition("Commands:")[2].strip().splitlines()
    assert [line.split()[0] for line in lines] == [
        "list", "show", "scenarios", "demo", "train", "sweep", "evaluate", "benchmark", "play", "gallery", "regret", "deploy", "operate", "serve", "export", "convert", "clone",
        "specimen", "record",
    ]  # fmt: skip
    assert not any(line.endswith("...") for line in lines)


def test_list():
    told = good("list")
    assert all(word in told for word in ("probegym/StemTuning-v0", "far-specimen", "near", "scripts: fixed-recipe, greedy-table", "policies: afm-tuning\n", "random and oracle", "mos2-vs"))


def test_listing_loads_nothing_heavy():
    code = f"""if True:
        import sys
        sys.argv = ["probegym", "list"]
        try:
            {MAIN.replace("; ", chr(10) + "            ")}
        finally:
            heavy = {{"torch", "stable_baselines3", "abtem", "ase", "onnxruntime", "botorch", "PIL", "scipy.stats"}}
            print("heavy:", sorted(heavy & set(sys.modules)))"""
    done = subprocess.run([sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert done.stdout.rstrip().endswith("heavy: []"), done.stdout[-300:] + done.stderr


@pytest.mark.parametrize("name", ["StemTuning", "stemtuning", "StemTuning-v0", "probegym/StemTuning-v0"])
def test_show(name):
    told = good("show", name)
    assert "probegym/StemTuning-v0" in told and "far-dose" in told


def test_show_scenario_is_yaml_that_can_be_used():
    table = yaml.safe_load(good("show", "StemTuning", "--scenario", "far-dose"))
    assert table["name"] == "far-dose" and table["task"]["ronchigram"]["exposure_time"] == 0.00025 and "extends" not in table


def test_version():
    assert re.match(r"probegym \d", good("--version"))


# ---- mistakes ----

MISTAKES = {
    "command": (["bogus"], "No such command"),
    "option": (["--bogus"], "No such option"),
    "no environment": (["train"], "ENV"),
    "environment": (["show", "Bogus"], "use one of StemTuning-v0"),
    "scenario shown": (["show", "StemTuning", "--scenario", "bogus"], "use one of train"),
    "scenario trained": (["train", "StemTuning", "--scenario", "bogus"], "use one of train"),
    "scenario evaluated": (["evaluate", "--agent", "oracle", "--scenario", "bogus"], "use one of train"),
    "scenario played": (["play", "StemTuning", "--scenario", "bogus"], "use one of train"),
    "scenario file": (["show", "StemTuning", "--scenario", "nowhere.yaml:x"], "check the path"),
    "agent": (["evaluate", "--agent", "nobody", "--env", "AfmTuning"], "fixed-settings, relay-autotune, ramp-until-ringing, afm-tuning, or a policy folder"),
    "agent of regret": (["regret", "--agent", "nobody"], "use one of random"),
    "agent of a data set": (["record", "dataset", "--env", "TipConditioning", "--agent", "nobody"], "use one of random"),
    "environments of a benchmark": (["benchmark", "--envs", "StemTuning,"], "one comma between two"),
    "scenario file listed": (["scenarios", "StemTuning", "--file", "nowhere.yaml"], "check the path"),
    "agent that does not fit": (["evaluate", "--agent", "nelder-mead", "--episodes", "1"], "use scenario 'beacon'"),
    "agent of another environment": (["evaluate", "--agent", "nelder-mead", "--env", "TipConditioning"], "use one of random"),
    "policy of another environment": (["evaluate", "--agent", "stem-tuning-haadf", "--env", "TipConditioning"], "made for probegym/StemTuning-v0"),
    "sac without continuous actions": (["train", "TipConditioning", "--algorithm", "sac"], "use ppo"),
    "episodes text": (["evaluate", "--agent", "oracle", "--episodes", "x"], "--episodes"),
    "episodes zero": (["evaluate", "--agent", "oracle", "--episodes", "0"], "--episodes"),
    "seed negative": (["evaluate", "--agent", "oracle", "--seed", "-1"], "--seed"),
    "algorithm": (["train", "StemTuning", "--algorithm", "dqn"], "distil"),
    "hyperparameter of distil": (["train", "StemTuning", "--set", "gamma=1"], "algorithm 'distil' has no hyperparameters to choose: use one of ppo, sac"),
    "updates of ppo": (["train", "StemTuning", "--algorithm", "ppo", "--updates", "5"], "use --steps"),
    "steps of distil": (["train", "StemTuning", "--steps", "5"], "use --updates"),
    "updates zero": (["train", "StemTuning", "--updates", "0"], "--updates"),
    "two kinds of frames": (["train", "StemTuning", "--scenario", "both"], "choose another"),
    "resume of nothing": (["train", "StemTuning", "--resume"], "leave --resume out"),
    "train folder": (["train", "StemTuning", "--out", "/dev/null/x"], "choose another with --out"),
    "demo folder": (["demo", "--out", "/dev/null/x"], "choose another with --out"),
    "demo file": (["demo", "--out", "/dev/null"], "choose a folder"),
    "demo folder of others": (["demo", "--out", "."], "choose another with --out"),
    "play folder": (["play", "StemTuning", "--out", "/dev/null/x"], "choose another with --out"),
    "results folder": (["evaluate", "--agent", "oracle", "--out", "/dev/null/x.json"], "choose another with --out"),
    "results is a folder": (["evaluate", "--agent", "oracle", "--out", "."], "name a file"),
    "specimen": (["specimen", "build", "bogus"], "use one of graphene-si"),
    "structure file": (["specimen", "build", "nowhere.cif"], "check the path"),
    "structure damaged": (["specimen", "build", "damaged.cif"], "is not valid CIF"),
    "structure of nothing": (["specimen", "build", "empty.xyz"], "empty.xyz"),
    "specimen name": (["specimen", "build", "graphene-si", "--name", "../x"], "lower-case"),
    "detector": (["specimen", "build", "graphene-si", "--detector", "haadf"], "haadf=80-180"),
    "detector reversed": (["specimen", "build", "graphene-si", "--detector", "haadf=180-80"], "inner < outer"),
    "energy": (["specimen", "build", "graphene-si", "--energy", "60"], "--energy"),
    "energy nan": (["specimen", "build", "graphene-si", "--energy", "nan"], "--energy"),
    "film": (["specimen", "build", "film-carbon", "--energy", "8e4"], "leave the options out"),
    "too large": (["specimen", "build", "srtio3", "--semiangle", "80", "--detector", "h=90-300"], "does not fit"),
}


def is_one_line(done) -> bool:
    lines = done.stderr.strip().splitlines()
    return done.exit_code == 2 and len(lines) == 1 and lines[0].startswith("error: ") and "Traceback" not in done.output


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_gets_one_line_that_names_the_mend(mistake, tmp_path, monkeypatch):
    monkeypatch.setenv("PROBEGYM_CACHE", str(tmp_path / "cache")) if "specimen" in MISTAKES[mistake][0] else None
    (tmp_path / "damaged.cif").write_text("not a crystal")
    (tmp_path / "empty.xyz").write_text("")
    arguments, mend = MISTAKES[mistake]
    done = call(*arguments)
    assert is_one_line(done), done.output
    assert mend in done.stderr
    assert not done.stdout or mistake == "agent that does not fit"  # which shows in its first episode


def test_errors_of_the_process_go_to_stderr_with_code_2():
    process = start("show", "Bogus")
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (2, "") and err.count("\n") == 1
    assert err.startswith("error: unknown environment 'Bogus': use one of StemTuning-v0")


def test_no_disk(monkeypatch):
    monkeypatch.setattr(files.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1_000_000})())
    for arguments in (["train", "StemTuning"], ["demo"], ["specimen", "build", "graphene-si"]):
        done = call(*arguments)
        assert is_one_line(done) and "1 MB left, 50 MB are needed: free space or" in done.stderr
    assert not os.path.exists("runs")


def test_a_disk_that_fills_up_is_no_traceback(monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device", "results.json")

    monkeypatch.setattr("probegym.agents.files.write_json", full)
    done = call("evaluate", "--agent", "oracle", "--episodes", "2", "--out", "r.json")
    assert is_one_line(done) and done.stderr.startswith("error: results.json: No space left on device"), done.stderr


# ---- training ----


KILLED = """if True:
    import os, signal, torch
    from probegym.agents.train_stem import Distillation, Trainer
    torch.set_num_threads(1)

    class Doomed(Trainer):
        def learn(self, *batch):
            if self.update == 10:  # past the checkpoint at 6
                os.kill(os.getpid(), signal.SIGKILL)
            return super().learn(*batch)

    Doomed(Distillation(updates=12, lanes=8), "run").run(checkpoint_every=6)"""


def weights(trainer: Trainer) -> torch.Tensor:
    return torch.cat([value.flatten().float() for value in trainer.reader.state_dict().values()])


def test_a_killed_training_resumes_to_the_same_weights(tmp_path):
    done = subprocess.run([sys.executable, "-c", KILLED], env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}, timeout=120)
    assert done.returncode == -signal.SIGKILL
    resumed, whole = (Trainer(Distillation(updates=12, lanes=8), tmp_path / name) for name in ("run", "whole"))
    resumed.load()
    assert resumed.update == 6
    resumed.run(checkpoint_every=6)
    whole.run(checkpoint_every=6)
    assert torch.equal(weights(resumed), weights(whole))
    read = torch.load(resumed.checkpoint, weights_only=True)
    assert read["update"] == 12 and [path.name for path in tmp_path.glob("run/*")].count("checkpoint.pt") == 1


@pytest.fixture
def quick(monkeypatch):
    """Small batches and selection, so that a whole training takes seconds."""
    small = lambda env_id, scenario, updates, seed: Distillation(env_id, scenario, updates=updates, lanes=8, seed=seed)  # noqa: E731
    monkeypatch.setattr(train_stem, "Distillation", small)
    monkeypatch.setattr(training, "SELECTION_EPISODES", 4)
    monkeypatch.setattr(training, "LIVE_EPISODES", 4)
    monkeypatch.setattr(train_stm, "GRID", train_stm.GRID[:2])


def test_train_then_evaluate(quick, tmp_path):
    told = good("train", "StemTuning", "--updates", "6", "--out", "run")
    assert "success" in told and "probegym evaluate --agent run/policy" in told
    assert list(tmp_path.glob("run/tensorboard/events*")) and (tmp_path / "run/checkpoint.pt").is_file()
    spec = json.loads((tmp_path / "run/policy/policy.json").read_text())
    assert spec["command"] == "probegym train StemTuning-v0 --algorithm distil --scenario train --updates 6 --seed 1 --out run"
    assert "success" in good("evaluate", "--agent", "run/policy", "--episodes", "4")
    _refusals(tmp_path)


def test_every_environment_may_name_its_own_trainer(quick, tmp_path):
    told = good("train", "TipConditioning", "--updates", "6", "--out", "run")
    assert "probegym evaluate --agent run/policy --env TipConditioning-v0" in told
    spec = json.loads((tmp_path / "run/policy/policy.json").read_text())
    assert spec["command"] == "probegym train TipConditioning-v0 --algorithm distil --scenario train --updates 6 --seed 1 --out run"
    told = good("evaluate", "--agent", "run/policy", "--env", "TipConditioning", "--episodes", "4")
    assert "images to goal" in told and "tip quality at end" in told and "trehl" not in told and "dose" not in told


def test_an_algorithm_that_cannot_take_the_actions_leaves_nothing_behind(tmp_path):
    done = call("train", "LevelSelection", "--algorithm", "sac")
    assert is_one_line(done) and "sac needs continuous actions" in done.stderr and not list(tmp_path.iterdir())


def _refusals(folder):
    """What a folder that holds a finished training says."""
    done = call("train", "StemTuning", "--updates", "6", "--out", "run")
    assert is_one_line(done) and "--resume" in done.stderr
    done = call("train", "StemTuning", "--updates", "9", "--out", "run", "--resume")
    assert done.exit_code == 2 and "made with other updates" in done.stderr
    assert "going on from update 6" in good("train", "StemTuning", "--updates", "6", "--out", "run", "--resume")
    checkpoint = folder / "run/checkpoint.pt"
    checkpoint.write_bytes(checkpoint.read_bytes()[:2000])
    done = call("train", "StemTuning", "--updates", "6", "--out", "run", "--resume")
    assert done.exit_code == 2 and "delete it and train again" in done.stderr
    model = folder / "run/policy/policy.onnx"
    model.write_bytes(model.read_bytes()[:-1])
    done = call("evaluate", "--agent", "run/policy", "--episodes", "4")
    assert is_one_line(done) and "does not match its checksum" in done.stderr


@pytest.mark.parametrize("saved", [True, False])
def test_interrupted_training_says_how_to_go_on(quick, monkeypatch, saved):
    def interrupted(trainer, *_, **__):
        if saved:
            trainer.save()
        raise KeyboardInterrupt

    monkeypatch.setattr(Trainer, "run", interrupted)
    done = call("train", "StemTuning", "--updates", "6", "--seed", "3", "--out", "my run")
    assert done.exit_code == 130 and "Traceback" not in done.output
    mend = "--updates 6 --seed 3 --out 'my run' --resume" if saved else "start again without --resume"
    assert mend in done.output


def test_train_by_reward(tmp_path):
    told = good("train", "StemTuning", "--algorithm", "ppo", "--steps", "128", "--out", "run")
    assert "probegym evaluate --agent run/policy" in told and (tmp_path / "run/checkpoint.pt").is_file()
    assert "success" in good("evaluate", "--agent", "run/policy", "--scenario", "train", "--episodes", "2")


# ---- evaluating ----


def test_evaluate_writes_every_episode(tmp_path):
    told = good("evaluate", "--agent", "oracle", "--scenario", "train", "--episodes", "5", "--seed", "7", "--out", "new/results.json")
    assert "100.0% of 5" in told and "images to goal" in told and "56.6% to 100.0%" in told
    content = json.loads((tmp_path / "new/results.json").read_text())
    assert content["summary"]["success"] == 1.0 and len(content["episodes"]["success"]) == 5 and len(content["episodes"]["costs"]["dose"]) == 5
    assert {key: content[key] for key in ("agent", "scenario", "first_seed")} == {"agent": "oracle", "scenario": "train", "first_seed": 7}


def test_results_without_success_are_json(tmp_path):
    good("evaluate", "--agent", "random", "--scenario", "train", "--episodes", "3", "--out", "results.json")
    content = json.loads((tmp_path / "results.json").read_text(), parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert content["summary"]["time_to_goal"] is None


# ---- playing ----


def test_interrupt_ends_with_130():
    # A shell's background job ignores SIGINT, and children inherit that: give the child a terminal's disposition.
    listening = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)}
    process = start("play", "StemTuning", "--seed", "1", **listening)
    assert process.stdout.readline().startswith("1 C10")
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130 and "Traceback" not in err


def test_play_in_a_browser_until_it_is_interrupted():
    process = start("play", "TipConditioning", "--seed", "1", "--browser", preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
    url = process.stdout.readline().split()[-1]
    with httpx.Client(follow_redirects=True) as client:
        assert url.startswith("http://127.0.0.1:") and client.get(url).text.startswith("<!doctype html>")
        assert client.get(url).status_code == 401
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130 and "Traceback" not in err


# ---- specimens ----


def test_specimen_list():
    told = good("specimen", "list")
    assert "graphene-si" in told and "60 kV" in told and "haadf 80-180" in told


def test_specimen_from_a_file(tmp_path, monkeypatch):
    from probegym.physics import specimens

    monkeypatch.setenv("PROBEGYM_CACHE", str(tmp_path / "cache"))
    (tmp_path / "Dimer.xyz").write_text("2\n\nAu 0 0 0\nAu 2.8 0 0\n")
    told = good("specimen", "build", "Dimer.xyz", "--energy", "80e3", "--semiangle", "12", "--detector", "adf=20-45")
    assert "dimer.npz" in told and "specimens: [dimer]" in told
    built = specimens.read(tmp_path / "cache/specimens/dimer.npz")
    assert built.energy == 80e3 and built.detectors == {"adf": (pytest.approx(0.020), pytest.approx(0.045))} and min(built.extent) >= 2e-9
    assert "dimer" in good("specimen", "list") and "(yours)" in good("specimen", "list")


def test_a_changed_recipe_gets_a_name_of_its_own():
    from probegym.terminal.specimen import recipe

    assert recipe("graphene-si", None, None, [], 0.0, None).name == "graphene-si"
    varied = recipe("graphene-si", 80e3, 25.0, ["adf=30-60"], 0.0, None)
    assert varied.name == "graphene-si-80kv-25mrad" and varied.energy == 80e3 and varied.detectors == {"adf": (30.0, 60.0)}
    with pytest.raises(ProbeGymError, match="standard specimen"):
        recipe("mos2-vs.cif", None, None, [], 0.0, None)
