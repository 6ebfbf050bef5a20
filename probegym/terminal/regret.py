"""``probegym regret``: what every action of an agent gave away, beside the best branch from the same snapshot."""

from __future__ import annotations

from enum import StrEnum
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from probegym import scenarios
from probegym.console import bar, plain, say
from probegym.envs import environment_type
from probegym.terminal.options import MAXIMUM_SEED, ScenarioOption, environment, results_file

if TYPE_CHECKING:
    from probegym.agents.regret import Regrets

MOST_ROWS = 10  # of the table of actions


class Continuation(StrEnum):
    """Who goes on after the first action of a branch."""

    oracle = "oracle"
    self = "self"


class Value(StrEnum):
    """What an episode is worth."""

    by_return = "return"
    time = "time"
    dose = "dose"
    damage = "damage"
    measurements = "measurements"


def regret(
    agent: Annotated[str, typer.Option("--agent", help="Baseline or shipped policy by name, or a policy folder.")],
    env: Annotated[str, typer.Option("--env", help="Environment.")] = "TipConditioning",
    scenario: ScenarioOption = "id",
    episodes: Annotated[int, typer.Option("--episodes", min=1, max=10**5, help="Number of episodes.")] = 20,
    seed: Annotated[int | None, typer.Option("--seed", min=0, max=MAXIMUM_SEED, help="First seed; by default beyond those of training.")] = None,
    continuation: Annotated[Continuation, typer.Option("--continuation", help="Who goes on after an action: the oracle, or the agent itself.")] = Continuation.oracle,
    value: Annotated[Value, typer.Option("--value", help="The return, or what was spent until the goal.")] = Value.by_return,
    draws: Annotated[int, typer.Option("--draws", min=0, max=1000, help="0: regret in hindsight, in the noise that was. Even: expected regret, over so many others.")] = 0,
    beside: Annotated[list[str] | None, typer.Option("--beside", help="Agent whose actions are candidates too, where not all can be tried; repeatable.")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Also write every step to this JSON file.")] = None,
) -> None:
    """What each action gave away beside the best one.

    Each is compared with others from the same snapshot. All actions are tried where they can be counted; else the agent's own, the oracle's, those of --beside and a sample.
    """
    env_id, console = environment(env), plain()
    scenarios.load(environment_type(env_id).task_type.family, scenario)
    from probegym.agents import files
    from probegym.agents.registry import make_agent
    from probegym.agents.regret import regrets
    from probegym.agents.seeds import EVALUATION_SEED

    results_file(out)
    judged, advisers = make_agent(agent, env_id), {name: make_agent(name, env_id) for name in beside or []}
    first = EVALUATION_SEED if seed is None else seed
    with bar(console) as progress:
        task = progress.add_task(f"{agent} on {scenario}", total=episodes, told="")
        found = regrets(judged, env_id, scenario, episodes, first, continuation=str(continuation), value=str(value), draws=draws,
                        advisers=advisers, progress=lambda done, total: progress.update(task, completed=done))  # fmt: skip
    console.print(_table(found, str(value)))
    console.print()
    console.print(_actions(found))
    if out is not None:
        what = {"agent": agent, "environment": env_id, "scenario": scenario, "first_seed": first}
        what |= {"value": str(value), "draws": draws, "continuation": str(continuation)}
        columns = ("episode", "step", "taken", "guided", "values", "regret", "obtained", "success")
        files.write_json(out, what | {"summary": found.summary(), "candidates": found.names} | {name: getattr(found, name).tolist() for name in columns})
        say(console, f"results in {out}")


def _table(found: Regrets, value: str) -> Table:
    """Mean regrets and what they are made of."""
    s = found.summary()
    table = Table("", "value", "95 % interval", box=None, pad_edge=False, header_style="dim")
    table.add_row(f"worth of an episode ({value})", f"{s['obtained']:.4g}", "")
    table.add_row("steps", f"{s['steps']} in {s['episodes']} episodes", "")
    labels = {"regret_step": "regret a step", "crossed_step": "regret a step, at least", "regret_episode": "regret an episode",
              "slack_episode": "  of it the oracle's own"}  # fmt: skip
    for name, label in labels.items():
        if name in s:
            low, high = s[f"{name}_interval"]
            table.add_row(label, f"{s[name]:.4g}", f"{low:.4g} to {high:.4g}" if isfinite(low) else "-")  # one episode has no interval
    if "shortfall" in s:
        table.add_row("  of it short of the oracle", f"{s['shortfall']:.4g}", "")
    table.add_row("steps with a regret above 0.01", f"{s['share']:.1%}", "")
    table.add_row("median, 90 %, 99 %, most", ", ".join(f"{s[f'regret_{q}']:.3g}" for q in (50, 90, 99, 100)), "")
    return table


def _actions(found: Regrets) -> Table:
    """The candidates by their share of all regret."""
    table = Table("action", "taken", "mean regret", "share of all regret", "best", "mostly better", box=None, pad_edge=False, header_style="dim")
    rows = sorted(found.by_action(), key=lambda row: (-row["share"], -row["best"]))
    for row in rows[:MOST_ROWS]:
        mean = f"{row['regret']:.3g}" if row["taken"] else "-"
        table.add_row(row["action"], str(row["taken"]), mean, f"{row['share']:.0%}", str(row["best"]), row["instead"])
    return table
