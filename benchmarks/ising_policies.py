"""The tables of IsingInference-v0: policy, rules, oracle and random on every scenario, on unseen seeds.

Relative error of J when the 90 minutes are over, in percent: mean with its 95 % bootstrap interval, median and rms; the same time on
the same specimens for all. Ratios of means to maximum Fisher information, 95 % bootstrap over specimens, paired.
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
SHIFTED = ("uniform-sweep", "maximum-fisher", "maximum-fisher-doubting", "maximum-fisher-patient")
OTHERS = ("uniform-sweep", "maximum-fisher", "maximum-fisher-patient")


def play(scenario: str, agents: tuple[str, ...], episodes: int) -> dict[str, dict]:
    """Agent -> figures of one scenario."""
    runs = {name: evaluate(BundlePolicy(POLICY) if name == POLICY else RULES[name](), ENV_ID, scenario, episodes) for name in agents}
    out: dict[str, dict] = {}
    for name, results in runs.items():
        m = results.metrics
        error = 100 * m["error"]
        row = {"mean": float(error.mean()), "interval": ratio(error, np.ones_like(error))[1:], "median": float(np.median(error)), "rms": float(np.sqrt((error**2).mean())),
               "success": float(results.success.mean()), "surprise": float(m["surprise"].mean()), "images": float(m["images"].mean())}  # fmt: skip
        row |= {f"to {other}": ratio(error, 100 * runs[other].metrics["error"]) for other in OTHERS if other in runs and other != name}
        out[name] = row
    return out


def main() -> None:
    """Print the tables and one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--episodes", type=int, default=256)
    parser.add_argument("--shift-episodes", type=int, default=96)
    parser.add_argument("--scenarios", nargs="+", help="only these")
    options = parser.parse_args()
    others = [n for n in scenarios.names(FAMILY) if scenarios.load(FAMILY, n).split in ("near", "far")]
    chosen = options.scenarios or [*MAIN, *others]
    results = {n: play(n, (POLICY, *RULES), options.episodes) if n in MAIN else play(n, (POLICY, *SHIFTED), options.shift_episodes) for n in chosen}
    header = ("scenario", "agent", "error %", "95 %", "median", "rms", "to uniform", "to Fisher", "to patient", "within 2 %", "z^2", "images")
    rows = []
    for scenario, agents in results.items():
        for name, r in agents.items():
            cells = ["{:.2f} {:.2f}-{:.2f}".format(*r[f"to {other}"]) if f"to {other}" in r else "" for other in OTHERS]
            figures = [f"{r['mean']:.2f}", "{:.2f}-{:.2f}".format(*r["interval"]), f"{r['median']:.2f}", f"{r['rms']:.2f}"]
            rows.append((scenario, name, *figures, *cells, f"{r['success']:.0%}", f"{r['surprise']:.2f}", f"{r['images']:.1f}"))
    table(f"IsingInference-v0, seeds from {EVALUATION_SEED}", header, rows)
    json_line("ising_policies", policy=BundlePolicy(POLICY).spec["sha256"], results=results)


if __name__ == "__main__":
    main()
