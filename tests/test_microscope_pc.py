"""The bridge runs where nothing is installed that learning or simulation of specimens needs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib

import pytest

from tests.helpers import ROOT

ABSENT = ("torch", "stable_baselines3", "abtem", "ase", "gpytorch", "botorch", "linear_operator", "onnx", "tensorboard", "matplotlib")
BLOCK = f"""
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {ABSENT!r}:
            raise ModuleNotFoundError("No module named " + repr(name), name=name)
sys.meta_path.insert(0, Absent())
"""


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """The environment of a process, and of those that it spawns, in which the packages cannot be imported."""
    folder = tmp_path_factory.mktemp("bare")
    (folder / "sitecustomize.py").write_text(BLOCK)
    return os.environ | {"PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)])}


def test_a_policy_is_deployed_without_them(bare, tmp_path):
    command = [sys.executable, "-m", "probegym", "deploy", "--policy", "tip-conditioning", "--env", "TipConditioning", "--deadline", "5", "--out", str(tmp_path)]
    done = subprocess.run(command, env=bare, cwd=tmp_path, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"seed 10000000: (no )?success", done.stdout)


def test_every_environment_plays_without_them(bare, tmp_path):
    done = subprocess.run([sys.executable, ROOT / "tests/smoke.py"], env=bare, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_block_blocks(bare):
    done = subprocess.run([sys.executable, "-c", "import torch"], env=bare, capture_output=True, text=True, timeout=60)
    assert done.returncode and "No module named 'torch'" in done.stderr


def test_what_is_left_out_here_is_no_dependency_of_the_core_or_of_deployment():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [re.split(r"[\[<>=!~ ]", line)[0].lower().replace("-", "_") for line in (*project["dependencies"], *project["optional-dependencies"]["deploy"])]
    assert not set(wanted) & set(ABSENT) and {"onnxruntime", "fastapi", "gymnasium", "numpy"} <= set(wanted)


def test_what_needs_them_says_so_in_one_line(bare, tmp_path):
    done = subprocess.run([sys.executable, "-m", "probegym", "train", "StemTuning", "--out", str(tmp_path)], env=bare, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "pip install 'probegym[train]'" in done.stderr
