"""``probegym export``: a policy bundle from a shipped policy, from a bundle's folder, or from the folder of a training."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from probegym.agents import bundle, files
from probegym.console import bar, say
from probegym.errors import ProbeGymError
from probegym.hardware_bridge.deployment.bundle import read
from probegym.hardware_bridge.deployment.policy import PolicyProcess
from probegym.terminal.train import SELECTION_EPISODES, command_line

NEEDED_BYTES = 100_000_000


def export(source: str, out: Path, console: Console) -> None:
    """Verify the policy of ``source`` and write it to ``out``, a new folder or one that holds a policy. Raises ProbeGymError.

    A training whose policy is older than its checkpoint, or that has none, is exported from the checkpoint.
    """
    folder = Path(source)
    files.writable(out.parent, NEEDED_BYTES)
    checkpoint, finished = folder / "checkpoint.pt", folder / "policy" / "policy.json"
    if source not in bundle.shipped() and checkpoint.is_file():
        if not finished.is_file() or finished.stat().st_mtime < checkpoint.stat().st_mtime:
            _from_checkpoint(folder, out, console)
            return
        folder = finished.parent
    else:
        folder = bundle.find(source)
    verified = read(folder)
    with PolicyProcess(folder):  # which gives its golden actions there
        pass
    bundle.write(out, verified.model, verified.spec)
    told = f"policy of {verified.spec['environment']}, scenario {verified.spec['scenario']}, in {out}\nsha256 {verified.digest}"
    say(console, told)


def _from_checkpoint(folder: Path, out: Path, console: Console) -> None:
    """Export the last state of a training as its trainer would at its end."""
    import torch

    path = folder / "checkpoint.pt"
    try:
        state = torch.load(path, weights_only=True, map_location="cpu")
        told = state.get("training") or state["config"]
        env_id, scenario, seed = told["env_id"], told["scenario"], told["seed"]
        number = told["steps"] if "training" in state else told["updates"]
    except Exception as error:
        raise ProbeGymError(f"checkpoint {path} cannot be read ({type(error).__name__}): train again") from error
    if "training" in state:
        from probegym.agents import sb3

        training = sb3.Training(**told)
        model = sb3.build(training, folder)
        sb3.load(model, training, folder)
        command = command_line(env_id, training.hyperparameters, algorithm=training.algorithm, scenario=scenario, steps=model.num_timesteps, seed=seed, out=folder)
        sb3.export_sb3(model, training, out, command)
    else:
        _distilled(folder, env_id, scenario, number, seed, out, console)
    say(console, f"policy of {env_id}, scenario {scenario}, from {path}, in {out}\nsha256 {read(out).digest}")


def _distilled(folder: Path, env_id: str, scenario: str, updates: int, seed: int, out: Path, console: Console) -> None:
    """The environment's own trainer chooses what it chooses at its end, on episodes of the training scenario."""
    from probegym.agents import registry

    learner = registry.make_learner(env_id, scenario, updates, seed, folder)
    learner.load()
    command = command_line(env_id, algorithm="distil", scenario=scenario, updates=updates, seed=seed, out=folder)
    if learner.update < updates:
        raise ProbeGymError(f"training {folder} has done {learner.update} of {updates} updates: finish it with {command} --resume")
    with bar(console) as progress:
        task = progress.add_task("choosing", told="")
        learner.finish(out, command, SELECTION_EPISODES, lambda done, total: progress.update(task, completed=done, total=total))
