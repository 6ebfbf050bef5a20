"""``probegym train``: progress bar, checkpoints, resume, and the policy at the end."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from probegym.agents import files
from probegym.errors import ProbeGymError

if TYPE_CHECKING:
    from probegym.agents.registry import Learner

DEFAULT_ENVIRONMENT = "probegym/StemTuning-v0"  # of ``evaluate``
LIVE_SEED, LIVE_EPISODES = 9_500_000, 48  # of the success shown during training
SELECTION_EPISODES = 200


def bar(console: Console) -> Progress:
    """A progress bar with room for what is told beside it."""
    times = (TimeElapsedColumn(), TimeRemainingColumn()) if console.is_terminal else (TimeElapsedColumn(),)
    columns = (TextColumn("{task.description}"), BarColumn(24), MofNCompleteColumn(), *times, TextColumn("{task.fields[told]}"))
    return Progress(*columns, console=console)


def _prepare(out: Path, resume: bool) -> None:
    """Refuse a folder that the training would spoil or cannot use."""
    there = (out / "checkpoint.pt").exists()
    if there and not resume:
        raise ProbeGymError(f"folder {out} holds a checkpoint: go on from it with --resume, or choose another with --out")
    if resume and not there:
        raise ProbeGymError(f"folder {out} holds no checkpoint: leave --resume out to start, or name the folder with --out")
    files.writable(out)


@contextmanager
def _interruptible(command: str, out: Path, console: Console) -> Iterator[None]:
    """On Ctrl-C say how to go on."""
    try:
        yield
    except KeyboardInterrupt:
        if (out / "checkpoint.pt").exists():
            console.print(f"interrupted; go on from the last checkpoint with:\n  {command} --resume", highlight=False, soft_wrap=True)
        else:
            console.print("interrupted before the first checkpoint: start again without --resume", highlight=False)
        raise


def command_line(env_id: str, **options) -> str:
    """The ``probegym train`` command of a training, as its policy records it."""
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    return shlex.join(["probegym", "train", env_id.split("/")[1], *words])


def _finished(policy: Path, env_id: str, console: Console) -> None:
    where = "" if env_id == DEFAULT_ENVIRONMENT else f" --env {env_id.split('/')[1]}"
    told = f"policy in {policy}\nmeasure it with:  probegym evaluate --agent {shlex.quote(str(policy))}{where}"
    console.print(told, highlight=False, soft_wrap=True)


def distil(env_id: str, scenario: str, updates: int | None, seed: int, out: Path, resume: bool, console: Console) -> None:
    """The environment's own trainer, a privileged teacher and a student; the policy goes to OUT/policy."""
    from probegym.agents import registry

    updates = updates or registry.distillation(env_id).updates
    _prepare(out, resume)
    command = command_line(env_id, algorithm="distil", scenario=scenario, updates=updates, seed=seed, out=out)
    with _interruptible(command, out, console):
        learner = registry.make_learner(env_id, scenario, updates, seed, out)
        if resume:
            learner.load()
            console.print(f"going on from update {learner.update}", highlight=False)
        _run(learner, env_id, scenario, console)
        with bar(console) as progress:
            task = progress.add_task("choosing threshold", told="")
            policy = learner.finish(out / "policy", command, SELECTION_EPISODES, lambda done, total: progress.update(task, completed=done, total=total))
        _finished(policy, env_id, console)


def _run(learner: Learner, env_id: str, scenario: str, console: Console) -> None:
    from probegym.agents.evaluate import evaluate

    told = {"loss": "", "success": ""}
    with bar(console) as progress:
        task = progress.add_task("training", total=learner.config.updates, completed=learner.update, told="")

        def report(news) -> None:
            if not math.isnan(news.loss):
                told["loss"] = f"loss {news.loss:.3f}"
            if news.success is not None:
                told["success"] = f"success {news.success:.0%}"
                if not console.is_terminal:
                    console.print(f"update {news.update}: success {news.success:.0%}", highlight=False)
            progress.update(task, completed=news.update, told="  ".join(filter(None, told.values())))

        def live(agent) -> float:
            return float(evaluate(agent, env_id, scenario, LIVE_EPISODES, LIVE_SEED).success.mean())

        learner.run(report, live, evaluations=20)


def reinforce(env_id: str, scenario: str, algorithm: str, steps: int, seed: int, out: Path, resume: bool, console: Console) -> None:
    """PPO or SAC from Stable-Baselines3; the policy goes to OUT/policy."""
    _prepare(out, resume)
    from probegym.agents.sb3 import Progress as News
    from probegym.agents.sb3 import Training, export_sb3, train_sb3

    command = command_line(env_id, algorithm=algorithm, scenario=scenario, steps=steps, seed=seed, out=out)
    with _interruptible(command, out, console), bar(console) as progress:
        task = progress.add_task(f"training {algorithm}", total=steps, told="")

        def report(news: News) -> None:
            told = "" if news.mean_return is None else f"return {news.mean_return:.2f}  success {news.success or 0:.0%}"
            progress.update(task, completed=min(news.steps, steps), told=told)

        model = train_sb3(env_id, scenario, algorithm, steps, out, seed, resume, report)
        progress.update(task, completed=steps)
    _finished(export_sb3(model, Training(env_id, scenario, algorithm, steps, seed), out / "policy", command), env_id, console)
