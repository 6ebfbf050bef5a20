"""``probegym sweep``: trials of hyperparameters, a table of them and the best."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from probegym.console import plain, say
from probegym.terminal.options import Env, ExecutorName, ScenarioOption, Seed, Workers, environment


class Swept(StrEnum):
    """What has hyperparameters to sweep."""

    ppo = "ppo"
    sac = "sac"


def sweep(
    env: Env,
    space: Annotated[Path, typer.Option("--space", help="YAML file: hyperparameter to number or distribution.")],
    trials: Annotated[int, typer.Option("--trials", min=1, max=10_000, help="Number of trials.")] = 16,
    algorithm: Annotated[Swept, typer.Option("--algorithm", help="ppo or sac.")] = Swept.ppo,
    scenario: ScenarioOption = "train",
    steps: Annotated[int, typer.Option("--steps", min=1, max=10**10, help="Environment steps of each trial.")] = 100_000,
    seed: Seed = 1,
    out: Annotated[Path, typer.Option("--out", help="Folder of the trials.")] = Path("runs/sweep"),
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the trials in the folder.")] = False,
    executor: Annotated[ExecutorName, typer.Option("--executor", help="local runs every trial to its end; ray ends early what falls behind.")] = ExecutorName.local,
    workers: Workers = None,
) -> None:
    """Sweep hyperparameters of ppo or sac.

    Trials go to OUT/trial-k, all of them to OUT/sweep.json. After an interruption, the same command with --resume goes on.
    """
    from probegym.agents import files
    from probegym.agents.sweep import draw, read_space
    from probegym.agents.sweep import sweep as swept
    from probegym.agents.training import DIARY
    from probegym.hardware_bridge.deployment.bundle import read
    from probegym.terminal import train

    env_id = environment(env)
    train.refuse_unfit(env_id, scenario, str(algorithm))
    drawn = draw(read_space(space, algorithm), algorithm, trials, seed)
    train.refuse_mixing(out, f"trial-*/{DIARY}", resume)
    files.writable(out)
    console = plain()
    asked = train.asked(env_id, scenario, algorithm, steps, {}) | {"seed": seed}
    with train.told_as_they_end(f"sweep of {trials} trials", trials, console) as report:
        rows = swept(asked, drawn, out, executor, workers, report)
    console.print(_table(rows, list(drawn[0])))
    if (best := rows[0])["result"]:
        policy = out / f"trial-{best['trial']}/policy"
        told = f"best: trial {best['trial']}, policy in {policy}\ntrain it again, longer, or with more --seeds by\n  {read(policy).spec['command']}"
        say(console, told)
    say(console, f"all trials in {out / 'sweep.json'}")
    train.refuse_failures(rows, "trial")


def _table(rows: list[dict], names: list[str]) -> Table:
    table = Table("trial", *names, "success", "return", "steps", "seconds", "attempts", box=None, pad_edge=False, header_style="dim")
    for row in rows:
        result, curve = row["result"], row["curve"]
        reached = str(curve[-1][0]) if curve else "0"
        figures = (f"{result['success']:.1%}", f"{result['return']:.3f}", str(result["length"])) if result else ("ended early" if row["ok"] else "failed", "", reached)
        table.add_row(str(row["trial"]), *(f"{row['hyperparameters'][name]:.4g}" for name in names), *figures, f"{row['seconds']:.0f}", str(len(row["attempts"])))
    return table
