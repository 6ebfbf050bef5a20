"""``probegym train``: progress bar, checkpoints, resume, and the policy at the end."""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from probegym import scenarios
from probegym.agents import files
from probegym.agents.executors import Executor, Json, Outcome
from probegym.agents.hyperparameters import refuse_actions
from probegym.agents.seeds import LIVE_SEED
from probegym.agents.training import DIARY, command_line, seeds
from probegym.console import bar, say
from probegym.envs import environment_type
from probegym.errors import ProbeGymError

if TYPE_CHECKING:
    from probegym.agents.registry import Learner
    from probegym.agents.sb3 import Training

DEFAULT_ENVIRONMENT = "probegym/StemTuning-v0"  # of ``evaluate``
LIVE_EPISODES = 48  # of the success shown during training
SELECTION_EPISODES = 200
DEFAULT_STEPS = 100_000  # of ppo and sac


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
            say(console, f"interrupted; go on from the last checkpoint with:\n  {command} --resume")
        else:
            say(console, "interrupted before the first checkpoint: start again without --resume")
        raise


def _finished(policy: Path, env_id: str, console: Console) -> None:
    where = "" if env_id == DEFAULT_ENVIRONMENT else f" --env {env_id.split('/')[1]}"
    told = f"policy in {policy}\nmeasure it with:  probegym evaluate --agent {shlex.quote(str(policy))}{where}"
    say(console, told)


def distil(env_id: str, scenario: str, updates: int | None, seed: int, out: Path, resume: bool, console: Console) -> None:
    """The environment's own trainer; the policy goes to OUT/policy."""
    from probegym.agents import registry

    updates = updates or registry.own_trainer(env_id).updates
    _prepare(out, resume)
    command = command_line(env_id, algorithm="distil", scenario=scenario, updates=updates, seed=seed, out=out)
    with _interruptible(command, out, console):
        learner = registry.make_learner(env_id, scenario, updates, seed, out)
        if resume:
            learner.load()
            say(console, f"going on from update {learner.update}")
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
                    say(console, f"update {news.update}: success {news.success:.0%}")
            progress.update(task, completed=news.update, told="  ".join(filter(None, told.values())))

        def live(agent) -> float:
            return float(evaluate(agent, env_id, scenario, LIVE_EPISODES, LIVE_SEED).success.mean())

        learner.run(report, live, evaluations=20)


def reinforce(training: Training, out: Path, resume: bool, console: Console) -> None:
    """PPO or SAC from Stable-Baselines3; the policy goes to OUT/policy."""
    _prepare(out, resume)
    from probegym.agents.sb3 import Progress as News
    from probegym.agents.sb3 import export_sb3, train_sb3

    steps = training.steps
    options = {"algorithm": training.algorithm, "scenario": training.scenario, "steps": steps, "seed": training.seed, "out": out}
    command = command_line(training.env_id, training.hyperparameters, **options)
    with _interruptible(command, out, console), bar(console) as progress:
        task = progress.add_task(f"training {training.algorithm}", total=steps, told="")

        def report(news: News) -> None:
            told = "" if news.mean_return is None else f"return {news.mean_return:.2f}  success {news.success or 0:.0%}"
            progress.update(task, completed=min(news.steps, steps), told=told)

        model = train_sb3(training, out, resume, report)
        progress.update(task, completed=steps)
    _finished(export_sb3(model, training, out / "policy", command), training.env_id, console)


# ---- many ----


def many(env_id: str, scenario: str, algorithm: str, length: int | None, hyperparameters: Json, numbers: Sequence[int], out: Path, resume: bool,
         executor: Executor, console: Console) -> None:  # fmt: skip
    """A training for every seed into OUT/seed-k, a table of them, and their curves in OUT/seeds.json. Raises ProbeGymError when one failed, after the table."""
    from probegym.agents import registry

    refuse_mixing(out, f"seed-*/{DIARY}", resume)
    files.writable(out)
    if algorithm == "distil":
        length = length or registry.own_trainer(env_id).updates
    told = asked(env_id, scenario, algorithm, length or DEFAULT_STEPS, hyperparameters)
    with told_as_they_end(f"training {len(numbers)} seeds", len(numbers), console) as report:
        rows = seeds(executor, told, numbers, out, report)
    console.print(_seeds_table(rows, "updates" if algorithm == "distil" else "steps"))
    say(console, f"curves in {out / 'seeds.json'}, policies in {out}/seed-*/policy")
    refuse_failures(rows, "seed")


def refuse_unfit(env_id: str, scenario: str, algorithm: str) -> None:
    """Raises ProbeGymError for a scenario that is not of the split train, and for an algorithm that cannot take the actions."""
    task_type = environment_type(env_id).task_type
    asked_for = scenarios.load(task_type.family, scenario)
    if asked_for.split != "train":
        raise ProbeGymError(f"scenario {scenario!r} is of the split {asked_for.split}, which is for evaluation: train on a scenario of the split train")
    with asked_for.told_where():
        refuse_actions(algorithm, env_id, task_type(asked_for.task).action_space)  # without its world, which takes longer to make


def refuse_mixing(out: Path, trainings: str, resume: bool) -> None:
    """Raises ProbeGymError for a folder that holds trainings which are not to be resumed, or none that could be."""
    there = any(out.glob(trainings))
    if there and not resume:
        raise ProbeGymError(f"folder {out} holds trainings: go on from them with --resume, or choose another with --out")
    if resume and not there:
        raise ProbeGymError(f"folder {out} holds no {trainings}: leave --resume out to start, or name the folder with --out")


def asked(env_id: str, scenario: str, algorithm: str, length: int, hyperparameters: Json) -> Json:
    """What ``training.train`` is told, seed and folder aside."""
    what = {"env_id": env_id, "scenario": scenario, "algorithm": algorithm, "length": length}
    return what | {"live": LIVE_EPISODES, "final": SELECTION_EPISODES, "hyperparameters": hyperparameters}


@contextmanager
def told_as_they_end(what: str, total: int, console: Console) -> Iterator[Callable[[Outcome], None]]:
    """A bar, and a function that prints an outcome under it; on Ctrl-C says how to go on."""
    with bar(console) as progress:
        task = progress.add_task(what, total=total, told="")

        def report(outcome: Outcome) -> None:
            tries = "" if outcome.attempts == 1 else f" at attempt {outcome.attempts}"
            told = f"done in {outcome.seconds:.0f} s{tries}" if outcome.ok else f"failed{tries}: {outcome.error.splitlines()[-1]}"
            say(console, f"{outcome.name}: {told}")
            progress.advance(task)

        try:
            yield report
        except KeyboardInterrupt:
            say(console, "interrupted; the same command with --resume goes on from the last checkpoints")
            raise


def _seeds_table(rows: list[Json], unit: str) -> Table:
    table = Table("seed", "success on training scenario", "return", unit, "seconds", "attempts began at", box=None, pad_edge=False, header_style="dim")
    for row in rows:
        result = row["result"]
        figures = (f"{result['success']:.1%}", f"{result['return']:.3f}", str(result["length"])) if result else ("failed", "", "")
        table.add_row(str(row["seed"]), *figures, f"{row['seconds']:.0f}", ", ".join(str(attempt["at"]) for attempt in row["attempts"]))
    return table


def refuse_failures(rows: list[Json], kind: str) -> None:
    """Raises ProbeGymError when something failed."""
    if failed := [row for row in rows if not row["ok"]]:
        named = ", ".join(str(row[kind]) for row in failed)
        why = failed[0]["error"].splitlines()[-1]
        raise ProbeGymError(f"{len(failed)} of {len(rows)} failed ({kind} {named}; {why}): mend it and go on with --resume")
