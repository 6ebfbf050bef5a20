"""The tables of IsingInference-v0: policy, rules, oracle and random on every scenario, on unseen seeds.

Relative error of J when the 90 minutes are over, in percent: mean with its 95 % bootstrap interval, median and rms; the same time on
the same specimens for all. Ratios of means, 95 % bootstrap over specimens, paired. "within 2 %" counts errors, "known" those that are
also believed to be no larger.
"""

from __future__ import annotations

import argparse

import numpy as np
from report import json_line, ratio, table

import probegym  # noqa: F401  registers the environments
from probegym import scenarios
from probegym.agents import baselines_ising as rules
from probegym.agents.base import OracleAgent, RandomAgent
from probegym.agents.bundle import BundlePolicy
from probegym.agents.evaluate import EVALUATION_SEED, evaluate

ENV_ID, FAMILY, POLICY = "probegym/IsingInference-v0", "ising_inference", "ising-inference"
RULES = {
    "uniform-sweep": rules.UniformSweep, "maximum-fisher": rules.MaximumFisher, "maximum-fisher-doubting": rules.MaximumFisherDoubting,
    "maximum-fisher-patient": rules.MaximumFisherPatient, "thompson": rules.Thompson, "random": RandomAgent, "oracle": OracleAgent,
}  # fmt: skip
MAIN = ("known", "id")
WITHIN = 0.02
SHIFTED = ("uniform-sweep", "maximum-fisher", "maximum-fisher-doubting", "maximum-fisher-patient")
OTHERS = ("uniform-sweep", "maximum-fisher", "maximum-fisher-patient")


def play(scenario: str, agents: tuple[str, ...], episodes: int, seed: int, policy: str) -> dict[str, dict]:
    """Agent -> figures of one scenario; policy: name or folder of a bundle."""
    runs = {name: evaluate(BundlePolicy(policy) if name == POLICY else RULES[name](), ENV_ID, scenario, episodes, seed) for name in agents}
    out: dict[str, dict] = {}
    for name, results in runs.items():
        m = results.metrics
        error = 100 * m["error"]
        row = {"mean": float(error.mean()), "interval": ratio(error, np.ones_like(error))[1:], "median": float(np.median(error)), "rms": float(np.sqrt((error**2).mean())),
               "within": float((m["error"] <= WITHIN).mean()), "known": float(results.success.mean()), "surprise": float(m["surprise"].mean()), "images": float(m["images"].mean())}  # fmt: skip
        row |= {f"to {other}": ratio(error, 100 * runs[other].metrics["error"]) for other in OTHERS if other in runs and other != name}
        out[name] = row
    return out


def main() -> None:
    """Print the tables and one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--episodes", type=int, default=256)
    parser.add_argument("--shift-episodes", type=int, default=96)
    parser.add_argument("--scenarios", nargs="+", help="only these")
    parser.add_argument("--seed", type=int, default=EVALUATION_SEED, help="of the first episode")
    parser.add_argument("--policy", default=POLICY, help="name or folder of the bundle")
    options = parser.parse_args()
    others = [n for n in scenarios.names(FAMILY) if scenarios.load(FAMILY, n).split in ("near", "far")]
    chosen = options.scenarios or [*MAIN, *others]
    main_row, shifted = ((POLICY, *RULES), options.episodes), ((POLICY, *SHIFTED), options.shift_episodes)
    results = {n: play(n, *(main_row if n in MAIN else shifted), options.seed, options.policy) for n in chosen}
    header = ("scenario", "agent", "error %", "95 %", "median", "rms", "to uniform", "to Fisher", "to patient", "within 2 %", "known", "z^2", "images")
    rows = []
    for scenario, agents in results.items():
        for name, r in agents.items():
            cells = ["{:.2f} {:.2f}-{:.2f}".format(*r[f"to {other}"]) if f"to {other}" in r else "" for other in OTHERS]
            figures = [f"{r['mean']:.2f}", "{:.2f}-{:.2f}".format(*r["interval"]), f"{r['median']:.2f}", f"{r['rms']:.2f}"]
            rows.append((scenario, name, *figures, *cells, f"{r['within']:.0%}", f"{r['known']:.0%}", f"{r['surprise']:.2f}", f"{r['images']:.1f}"))
    table(f"IsingInference-v0, seeds from {options.seed}", header, rows)
    json_line("ising_policies", seed=options.seed, policy=BundlePolicy(options.policy).spec["sha256"], results=results)


if __name__ == "__main__":
    main()
