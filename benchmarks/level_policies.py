"""The tables of LevelSelection-v0: policy, rules, oracle and random on every scenario, on unseen seeds.

Uncertainty left: the target's variance as believed when the day is over, as share of the prior's; rmse: the true error. All
agents get the same day on the same specimens. Ratios of means to greedy variance per cost, 95 % bootstrap over specimens, paired.
"""

from __future__ import annotations

import argparse

import numpy as np
from report import json_line, ratio, table

import probegym  # noqa: F401  registers the environments
from probegym import scenarios
from probegym.agents import baselines_levels as rules
from probegym.agents.base import OracleAgent, RandomAgent
from probegym.agents.bundle import BundlePolicy
from probegym.agents.evaluate import EVALUATION_SEED, evaluate

ENV_ID, FAMILY, POLICY = "probegym/LevelSelection-v0", "level_selection", "level-selection"
RULES = {
    "greedy-variance": rules.GreedyVariance, "greedy-variance-tuned": rules.tuned_greedy_variance, "knowledge-gradient": rules.KnowledgeGradient,
    "planned-gradient": rules.PlannedGradient, "multi-fidelity-ucb": rules.MultiFidelityUcb, "survey-first": rules.SurveyFirst,
    "round-robin": rules.RoundRobin, "random": RandomAgent, "oracle": OracleAgent,
}  # fmt: skip
MAIN = ("id", "known")
SHIFTED = ("greedy-variance", "greedy-variance-tuned", "survey-first", "planned-gradient")


def play(scenario: str, agents: tuple[str, ...], episodes: int) -> dict[str, dict]:
    """Agent -> figures of one scenario."""
    runs = {name: evaluate(BundlePolicy(POLICY) if name == POLICY else RULES[name](), ENV_ID, scenario, episodes) for name in agents}
    out: dict[str, dict] = {}
    for name, results in runs.items():
        m = results.metrics
        left = m["uncertainty"]
        row = {"uncertainty": float(left.mean()), "interval": ratio(left, np.ones_like(left))[1:], "rmse": float(m["rmse"].mean()),
               "maps": [float(m[key].mean()) for key in m if key.endswith("_maps")], "success": float(results.success.mean())}  # fmt: skip
        for other in ("greedy-variance", "greedy-variance-tuned"):
            if other in runs and name != other:
                row[f"to {other}"] = ratio(left, runs[other].metrics["uncertainty"])
                row[f"rmse to {other}"] = ratio(m["rmse"], runs[other].metrics["rmse"])
        out[name] = row
    return out


def main() -> None:
    """Print the tables and one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--episodes", type=int, default=256)
    parser.add_argument("--shift-episodes", type=int, default=96)
    options = parser.parse_args()
    others = [n for n in scenarios.names(FAMILY) if scenarios.load(FAMILY, n).split in ("near", "far")]
    results = {name: play(name, (POLICY, *RULES), options.episodes) for name in MAIN}
    results |= {name: play(name, (POLICY, *SHIFTED), options.shift_episodes) for name in (*others, "combined")}
    results |= {name: play(name, tuple(n for n in RULES if n != "oracle"), options.shift_episodes) for name in ("place", "map")}
    header = ("scenario", "agent", "uncertainty left", "95 %", "rmse", "to greedy", "95 %", "to tuned greedy", "95 %", "maps")
    rows = []
    for scenario, agents in results.items():
        for name, r in agents.items():
            cells = []
            for other in ("greedy-variance", "greedy-variance-tuned"):
                found = r.get(f"to {other}")
                cells += [f"{found[0]:.3f}", f"{found[1]:.3f}-{found[2]:.3f}"] if found else ["", ""]
            maps = " ".join(f"{value:.1f}" for value in r["maps"])
            rows.append((scenario, name, f"{r['uncertainty']:.4f}", "{:.3f}-{:.3f}".format(*r["interval"]), f"{r['rmse']:.3f}", *cells, maps))
    table(f"LevelSelection-v0, seeds from {EVALUATION_SEED}", header, rows)
    json_line("level_policies", policy=BundlePolicy(POLICY).spec["sha256"], results=results)


if __name__ == "__main__":
    main()
