"""Data sets on the command line: ``probegym record dataset``, ``build`` and ``replay``, and ``probegym clone``, which learns from one."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress, TaskID

from probegym.console import bar, plain, say
from probegym.errors import ProbeGymError
from probegym.terminal.options import MAXIMUM_SEED, ScenarioOption, Seed, environment, names

Root = Annotated[Path | None, typer.Option("--out", help="Folder that the data set is named in; by default where Minari looks, $MINARI_DATASETS_PATH or ~/.minari/datasets.")]
Data = Annotated[str, typer.Option("--data", help="Data set by id, or its folder.")]
BUILT_EPISODES = 200


def dataset(
    env: Annotated[str, typer.Option("--env", help="Environment.")],
    agent: Annotated[str, typer.Option("--agent", help="Baseline, shipped policy or policy folder; several, separated by commas, make a mixed set.")],
    scenario: ScenarioOption = "train",
    episodes: Annotated[int, typer.Option("--episodes", min=1, max=10**6, help="Number of episodes.")] = 200,
    shares: Annotated[str | None, typer.Option("--shares", help="Shares of several agents, for example 0.5,0.3,0.2; equal by default.")] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, max=MAXIMUM_SEED, help="First seed; every episode has its own.")] = 0,
    name: Annotated[str | None, typer.Option("--name", help="Name in the id probegym/ENV/NAME-v0; by default the agent's.")] = None,
    out: Root = None,
) -> None:
    """Record episodes of agents as a Minari data set.

    On training seeds and scenarios only. Complete or not there at all.
    """
    env_id, agents = environment(env), names("--agent", agent)
    if not agents or len(set(agents)) < len(agents):
        raise ProbeGymError(f"--agent names every agent once, separated by commas, got {agent!r}")
    counts = _counts(episodes, shares, len(agents))
    given = {"agent": agent, "scenario": scenario, "episodes": episodes, "shares": shares, "seed": seed, "name": name}
    words = [word for option, value in given.items() if value is not None for word in (f"--{option}", str(value))]
    command = shlex.join(["probegym", "record", "dataset", "--env", env_id.split("/")[1], *words])
    _record(env_id, dict(zip(agents, counts, strict=True)), scenario, seed, out, name, None, command, plain(soft_wrap=True))


def _counts(episodes: int, shares: str | None, agents: int) -> list[int]:
    """Episodes of each agent; what is left over goes to those who are owed most."""
    try:
        parts = [1.0] * agents if shares is None else [float(word) for word in shares.split(",")]
    except ValueError:
        parts = []
    if len(parts) != agents or not all(0 < part < float("inf") for part in parts):
        raise ProbeGymError(f"--shares gives a number above 0 for each of the {agents} agents, separated by commas, got {shares!r}")
    owed = [episodes * part / sum(parts) for part in parts]
    counts = [int(count) for count in owed]
    for index in sorted(range(agents), key=lambda i: counts[i] - owed[i])[: episodes - sum(counts)]:
        counts[index] += 1
    return counts


def _advancing(progress: Progress, task: TaskID) -> Callable[[int, int], None]:
    return lambda done, total: progress.update(task, completed=done, total=total)


def _references(progress: Progress) -> Callable[[int, int], None]:
    """A bar for the episodes by which returns are put between random and the oracle: they take longer than a small set."""
    return _advancing(progress, progress.add_task("random and oracle, for scores", total=None, told=""))


def _record(env_id: str, agents: dict[str, int], scenario: str, seed: int, root: Path | None, name: str | None, scores: tuple[float, float] | None,
            command: str, console: Console) -> None:  # fmt: skip
    from probegym.agents import datasets

    datasets.asked(env_id, agents, scenario, seed, root, name)  # refuses before a bar is drawn
    with bar(console) as progress:
        first = _references(progress) if scores is None else lambda *_: None
        task = progress.add_task("recording", total=sum(agents.values()), told="")
        made, results = datasets.record(env_id, agents, scenario, seed, root, name, scores, command, _advancing(progress, task), first)
    told = made.storage.metadata
    for agent, r in results.items():
        score = datasets.normalised(made, r.returns.mean())
        say(console, f"{agent}: {len(r.success)} episodes, return {r.returns.mean():.3f} ({score:.2f} of the way from random to oracle), success {r.success.mean():.0%}")
    say(console, f"{made.id}: {made.total_steps} steps, {told['dataset_size']:.1f} MB, in {Path(made.storage.data_path).parent}")


def build(
    episodes: Annotated[int, typer.Option("--episodes", min=2, max=10**6, help="Number of episodes of each set.")] = BUILT_EPISODES,
    out: Root = None,
) -> None:
    """Build the documented data sets, nothing is downloaded.

    Three environments, each with random, script and learned behaviour; sets that are there already are left as they are.
    """
    from probegym.agents import datasets

    console = plain(soft_wrap=True)
    for env_id, kinds in datasets.SETS.items():
        scores = None
        for agent in kinds.values():
            identity = datasets.dataset_id(env_id, {agent: episodes})
            if (there := datasets.folder_of(identity, out)).exists():
                say(console, f"{identity} is there: {len(datasets.load(str(there)))} episodes")
                continue
            if scores is None:
                with bar(console) as progress:
                    scores = datasets.references(env_id, "train", progress=_references(progress))
            command = f"probegym record dataset --env {env_id.split('/')[1]} --agent {agent} --scenario train --episodes {episodes} --seed 0"
            _record(env_id, {agent: episodes}, "train", 0, out, None, scores, command, console)


def replay(
    data: Annotated[str, typer.Argument(metavar="DATASET", help="Data set by id, or its folder.")],
    episodes: Annotated[int | None, typer.Option("--episodes", min=1, help="How many, from the first; all by default.")] = None,
) -> None:
    """Play the episodes of a data set again, and compare bits.

    Lists every value that differs; exit code 1 when there is one.
    """
    from probegym.agents import datasets

    made, found = datasets.load(data), 0
    numbers = range(min(episodes or len(made), len(made)))
    for number in numbers:
        for difference in datasets.replay(made, number):
            typer.echo(f"episode {number}, {difference}")
            found += 1
    typer.echo(f"{len(numbers)} episodes, {found} differences")
    raise typer.Exit(1 if found else 0)


def clone(
    data: Data,
    updates: Annotated[int | None, typer.Option("--updates", min=1, max=10**8, help="Gradient steps (1000).")] = None,
    seed: Seed = 1,
    out: Annotated[Path, typer.Option("--out", help="Folder of checkpoints, TensorBoard logs and policy.")] = Path("runs/clone"),
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint in the folder.")] = False,
) -> None:
    """Learn to act like the agents of a data set.

    Behaviour cloning, offline; the policy goes to OUT/policy at the end.
    """
    from probegym.agents import datasets, files

    if (out / "checkpoint.pt").exists() != resume:
        told = "no checkpoint: leave --resume out to start" if resume else "a checkpoint: go on from it with --resume"
        raise ProbeGymError(f"folder {out} holds {told}, or choose another with --out")
    made = datasets.load(data)
    files.writable(out)
    from probegym.agents import cloning

    cloner, console = cloning.Cloner(made, out, updates or cloning.UPDATES, seed), plain(soft_wrap=True)
    if resume:
        cloner.load()
    options = ["--updates", str(cloner.config.updates), "--seed", str(seed)]
    try:
        with bar(console) as progress:
            task = progress.add_task("cloning", total=cloner.config.updates, completed=cloner.update, told="")
            cloner.run(lambda news: progress.update(task, completed=news.update, told=f"loss {news.loss:.3f}"))
    except KeyboardInterrupt:
        again = shlex.join(["probegym", "clone", "--data", data, *options, "--out", str(out), *(["--resume"] if cloner.checkpoint.exists() else [])])
        say(console, f"interrupted; go on with:\n  {again}")
        raise
    policy = cloner.finish(out / "policy", shlex.join(["probegym", "clone", "--data", cloner.config.data, *options]))
    env = cloner.config.env_id.split("/")[1]
    told = f"held-out loss {cloner.least:.4f}\npolicy in {policy}\nmeasure it with:  probegym evaluate --agent {shlex.quote(str(policy))} --env {env}"
    say(console, told)
