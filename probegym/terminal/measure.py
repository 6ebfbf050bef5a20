"""``probegym evaluate``: whole episodes of an agent, as a table and as JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from probegym.agents import files
from probegym.agents.evaluate import evaluate
from probegym.agents.registry import make_agent, task_type
from probegym.agents.seeds import EVALUATION_SEED
from probegym.console import bar, say
from probegym.envs.task import Task
from probegym.terminal.compare import metric
from probegym.terminal.options import results_file


def report(name: str, env_id: str, scenario: str, episodes: int, seed: int | None, out: Path | None, console: Console) -> None:
    """Evaluate and print; write every episode to ``out``, tried beforehand."""
    results_file(out)
    agent, seed = make_agent(name, env_id), EVALUATION_SEED if seed is None else seed
    with bar(console) as progress:
        task = progress.add_task(f"{name} on {scenario}", total=episodes, told="")
        results = evaluate(agent, env_id, scenario, episodes, seed, lambda done, total: progress.update(task, completed=done))
    summary = results.summary()
    console.print(_table(summary, task_type(env_id)))
    if out is not None:
        what = {"agent": name, "environment": env_id, "scenario": scenario, "first_seed": seed}
        files.write_json(out, what | {"summary": summary, "episodes": results.columns()})
        say(console, f"results in {out}")


def _table(summary: dict[str, Any], task: type[Task]) -> Table:
    """Success, what it cost where anything was spent, and every metric that the episodes ended with."""
    table = Table("", "value", "95 % interval", box=None, pad_edge=False, header_style="dim")
    low, high = summary["success_interval"]
    table.add_row("success", f"{summary['success']:.1%} of {summary['episodes']}", f"{low:.1%} to {high:.1%}")
    labels = {"measurements": f"{task.measured} to goal", "time": "seconds to goal", "dose": "dose to goal, e/\u00c5\u00b2", "damage": "damage to goal, events"}
    for cost, label in labels.items():
        if not summary[f"{cost}_mean"]:
            continue
        value, (low, high) = summary[f"{cost}_to_goal"], summary[f"{cost}_to_goal_interval"]
        table.add_row(label, f"{value:.4g}" if summary["success"] else "-", f"{low:.4g} to {high:.4g}" if np.isfinite(low) else "-")
    for name in summary:
        if name.endswith("_median"):
            what = name.removesuffix("_median")
            table.add_row(f"{what.replace('_', ' ')} at end (median)", metric(summary[name], task.metric_units.get(what, "1")), "")
    table.add_row("return (mean)", f"{summary['return']:.3f}", "")
    return table
