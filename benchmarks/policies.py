"""The table of StemTuning: shipped policies on every scenario of theirs, scripts, random and oracle, on unseen seeds.

Scripts get BEACON's acquisition (scenario ``beacon``: up to 153 images of 256 x 256 pixels); policies get fewer and smaller
frames. Figures: success with Wilson's 95 % interval; images, seconds and dose to the goal as medians over the successes.
"""

from __future__ import annotations

import argparse

from report import json_line
from rich.console import Console
from rich.table import Table

from probegym import scenarios
from probegym.agents.bundle import BundlePolicy
from probegym.agents.evaluate import EVALUATION_SEED, evaluate
from probegym.agents.registry import baselines, make_agent

SCRIPTS = ("coordinate-descent", "nelder-mead", "beacon")
ENV_ID = "probegym/StemTuning-v0"


def rows(script_episodes: int, agents: list[str] | None) -> list[tuple[str, str, int | None]]:
    """(agent, scenario, episodes or None for the usual number)."""
    names = [name for name in scenarios.names("stem_tuning") if scenarios.load("stem_tuning", name).split != "train"]
    table: list[tuple[str, str, int | None]] = []
    ronchigrams = [name for name in names if name == "id" or name.startswith(("near-", "far-"))]
    table += [(agent, name, None) for agent in ("stem-tuning-ronchigram", "ronchigram-segments") for name in ronchigrams]
    table += [(f"stem-tuning-{kind}", name, None) for kind in ("haadf", "shadow") for name in names if name.startswith(kind)]
    table += [(name, scenario, None) for scenario in ("id", "haadf-id", "shadow-id") for name in ("oracle", "random")]
    table += [(name, "beacon", script_episodes) for name in (*SCRIPTS, "oracle", "random")]
    return [row for row in table if not agents or row[0] in agents]


def interval(summary: dict, name: str) -> str:
    """Median with its interval, or a dash."""
    value, (low, high) = summary[f"{name}_to_goal"], summary[f"{name}_to_goal_interval"]
    return "-" if value != value else f"{value:.3g} ({low:.3g}-{high:.3g})"


def main() -> None:
    """Print a table and one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--episodes", type=int, default=200)
    parser.add_argument("--script-episodes", type=int, default=200)
    parser.add_argument("--agents", nargs="+", help="only these; BEACON takes most of the time")
    arguments = parser.parse_args()
    table = Table("agent", "scenario", "n", "success", "95 %", "images", "seconds", "dose e/A^2", title=f"StemTuning-v0, seeds from {EVALUATION_SEED}")
    results = []
    for agent, scenario, episodes in rows(arguments.script_episodes, arguments.agents):
        summary = evaluate(make_agent(agent), ENV_ID, scenario, episodes or arguments.episodes).summary()
        low, high = summary["success_interval"]
        costs = [interval(summary, "measurements"), interval(summary, "time"), interval(summary, "dose").split(" ")[0]]
        table.add_row(agent, scenario, str(summary["episodes"]), f"{summary['success']:.1%}", f"{low:.1%}-{high:.1%}", *costs)
        results.append({"agent": agent, "scenario": scenario, **summary})
    Console(width=140).print(table)
    policies = {name: BundlePolicy(name).spec["sha256"] for name in {row["agent"] for row in results} - set(baselines())}
    json_line("policies", policies=policies, rows=results)


if __name__ == "__main__":
    main()
