"""``probegym convert``: a zip file of Stable-Baselines3 into a policy bundle. The only command that unpickles, and only when told to."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console

from probegym import scenarios
from probegym.agents import bundle, files
from probegym.agents.convert import algorithm
from probegym.agents.registry import task_type
from probegym.console import say
from probegym.errors import ProbeGymError
from probegym.hardware_bridge.channel import PASSED_ON
from probegym.hardware_bridge.deployment.bundle import Bundle, read
from probegym.hardware_bridge.deployment.policy import PolicyProcess

MODULE = "probegym.agents.convert"
SECONDS = 600.0
NEEDED_BYTES = 100_000_000


def convert(model: Path, trust: bool, env_id: str, scenario: str, out: Path, console: Console) -> None:
    """Convert ``model`` (PPO or SAC, trained on ``env_id``) and write the bundle to ``out``. Raises ProbeGymError; without ``trust`` always.

    The zip is loaded in a process of its own with few environment variables; only a bundle that passes every check is taken from it.
    """
    if not trust:
        raise ProbeGymError(f"{model} is a pickle, and loading a pickle runs the programs inside with your rights: give --trust if you would run its author's programs")
    task = task_type(env_id)(scenarios.load(task_type(env_id).family, scenario).task)
    kind = algorithm(model)
    files.writable(out.parent, NEEDED_BYTES)
    warning = f"loading {model}: this runs whatever code it holds, with your rights"
    say(console, warning, style="bold red")
    with tempfile.TemporaryDirectory(prefix=".convert-", dir=out.parent) as scratch:
        _load([str(model), kind, env_id, scenario, str(Path(scratch) / "policy")], model)
        converted = read(Path(scratch) / "policy")
        converted.fits(task, env_id)
        with PolicyProcess(converted.folder):  # which gives its golden actions there
            pass
        _write(converted, model, out)
    told = f"policy in {out}\nmeasure it before it is used:  probegym evaluate --agent {out} --env {env_id.split('/')[1]} --scenario {scenario}"
    say(console, told + "\na VecNormalize that it was trained with is not in the zip and not in the policy")


def _load(arguments: list[str], model: Path) -> None:
    """Unpickle in another process; raises ProbeGymError with its last word when that fails."""
    environment = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    command = [sys.executable, "-P", "-m", MODULE, *arguments]
    try:
        done = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, timeout=SECONDS)
    except subprocess.TimeoutExpired as error:
        raise ProbeGymError(f"{model} was not converted within {SECONDS:g} s: look at what it holds") from error
    if done.returncode:
        lines = done.stderr.decode(errors="replace").strip().splitlines() or ["it said nothing"]
        last = "".join(c if c.isprintable() else " " for c in lines[-1].removeprefix("error: "))[:400]
        raise ProbeGymError(f"{model} cannot be converted: {last}")


def _write(converted: Bundle, model: Path, out: Path) -> None:
    """Write what was verified, with where it comes from."""
    origin = {"file": model.name, "sha256": hashlib.sha256(model.read_bytes()).hexdigest()}
    command = f"probegym convert {model.name} --trust"
    bundle.write(out, converted.model, converted.spec | {"converted": origin, "training_commit": "not known", "command": command})
