"""How long shipped policies take for one action: in this process, and in a process of their own with the pipes and checks between.

Observations are those of the bundle's golden pairs, one lane, as on an instrument. p50 and p99 in ms over ``--steps`` actions after
a tenth as many to warm up; start is from nothing to ready. The aim is 1 ms p50 in-process.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
from report import json_line
from rich.console import Console
from rich.table import Table

from probegym.agents.bundle import shipped
from probegym.hardware_bridge.deployment.bundle import read
from probegym.hardware_bridge.deployment.inference import Inference
from probegym.hardware_bridge.deployment.policy import PolicyProcess

LIMIT = 1e-3  # s


def quantiles(seconds: list[float]) -> dict[str, float]:
    """p50 and p99 in s."""
    p50, p99 = np.quantile(seconds, [0.5, 0.99]).tolist()
    return {"p50_s": p50, "p99_s": p99}


def within(folder, steps: int) -> dict[str, float]:
    """Times of a session in this process, the memory carried along."""
    bundle = read(folder)
    inference, memory, spent = Inference(bundle), bundle.start(1), []
    shown = {name: values[:1] for name, values in bundle.golden[0][0].items() if name in bundle.observations}
    for _ in range(steps + steps // 10):
        begun = time.perf_counter()
        answer = inference.run(bundle.inputs(shown, 1) | memory)
        spent.append(time.perf_counter() - begun)
        memory = {name: answer[f"{name}_next"] for name in memory}
    return quantiles(spent[steps // 10 :])


def across(folder, steps: int) -> dict[str, float]:
    """Times through the policy process; a fault ends the run."""
    begun = time.perf_counter()
    with PolicyProcess(folder, deadline_s=5.0) as policy:
        start = time.perf_counter() - begun
        policy.begin()
        shown = {name: values[:1] for name, values in policy.bundle.golden[0][0].items() if name in policy.bundle.observations}
        for _ in range(steps + steps // 10):
            policy.decide(shown)
        return quantiles(policy.latencies[steps // 10 :].tolist()) | {"start_s": start}


def main() -> None:
    """Print a table and one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--policies", nargs="+", help="only these")
    arguments = parser.parse_args()
    table = Table("policy", "p50 ms", "p99 ms", "process p50", "process p99", "start s", "within 1 ms", title="One action, one lane")
    rows = {}
    for name, folder in shipped().items():
        if arguments.policies and name not in arguments.policies:
            continue
        here, there = within(folder, arguments.steps), across(folder, arguments.steps)
        figures = [f"{1e3 * times[key]:.3f}" for times in (here, there) for key in ("p50_s", "p99_s")]
        table.add_row(name, *figures, f"{there['start_s']:.2f}", "yes" if here["p50_s"] <= LIMIT else "NO")
        rows[name] = {"in_process": here, "policy_process": there}
    Console(width=120).print(table)
    json_line("inference", steps=arguments.steps, policies=rows)


if __name__ == "__main__":
    main()
