"""The tables of AdatomManipulation-v0: policies, scripts, oracle and random on every scenario, on unseen seeds, and the speed.

Errors are hidden truth, in pm, at the end of the episode, failures included; ratios of means to the oracle's, 95 % bootstrap over
episodes, paired. Within: share of the episodes that end within the tolerance in truth. Drop: success on a scenario with an
unannounced tip change, below that on ``steady-tip``.
"""

from __future__ import annotations

import argparse
import time

import gymnasium as gym
import numpy as np
from report import json_line, ratio, table

import probegym  # noqa: F401  registers the environments
from probegym import scenarios
from probegym.agents.assembly import Builder
from probegym.agents.base import OracleAgent, RandomAgent
from probegym.agents.baselines_adatoms import CorrectedDrag, FixedDrag, GridTable
from probegym.agents.bundle import BundlePolicy
from probegym.agents.evaluate import EVALUATION_SEED, evaluate
from probegym.agents.statistics import wilson

ENV_ID, FAMILY, POLICY, TRACE = "probegym/AdatomManipulation-v0", "adatom_manipulation", "adatom-manipulation", "adatom-manipulation-trace"
CHEN = "adatom-manipulation-chen"
SCRIPTS = {"corrected-drag": CorrectedDrag, "fixed-drag": FixedDrag, "grid-table": GridTable, "oracle": OracleAgent, "random": RandomAgent}
CHANGES = ("tip-change", "near-tip-change", "far-tip-change")
TRACED = ("id", "steady-tip", *CHANGES)
BUILDERS = {"builder, policy": lambda: Builder(POLICY), "builder, fixed drag": Builder, "fixed-drag": FixedDrag, "oracle": OracleAgent}


def play(scenario: str, agents: dict, episodes: int, seed: int) -> dict[str, dict]:
    """Agent -> figures of one scenario."""
    out: dict[str, dict] = {}
    runs = {name: evaluate(make(), ENV_ID, scenario, episodes, seed) for name, make in agents.items()}
    tolerance = 1e12 * gym.make(ENV_ID, scenario=scenario).unwrapped.episodes.task.settings.tolerance
    for name, results in runs.items():
        wins, error = int(results.success.sum()), 1e12 * results.metrics["error"]
        row = {"success": wins / episodes, "interval": wilson(wins, episodes), "error": float(error.mean()), "drags": float(results.metrics["drags"].mean())}
        row["within"] = float((error <= tolerance).mean())
        row |= {"error_reached": float(error[results.success].mean()) if wins else float("nan"), "images": float(results.metrics["images"].mean())}
        row["tip_changes"] = float(results.metrics["tip_changes"].mean())
        row |= {"damage": float(results.costs["damage"].mean()), "seconds": float(results.costs["time"].mean())}
        if "oracle" in runs:
            row["to_oracle"] = ratio(error, 1e12 * runs["oracle"].metrics["error"])
        out[name] = row
    return out


def speed(scenario: str, lanes: int, steps: int = 12) -> tuple[float, float]:
    """Environment steps a second and a processor second, with random actions, resets included."""
    envs = gym.make_vec(ENV_ID, num_envs=lanes, scenario=scenario, autoreset_mode="SameStep")
    envs.reset(seed=0)
    actions = np.random.default_rng(0).uniform(-1, 1, (steps, lanes, *envs.single_action_space.shape)).astype(np.float32)
    envs.step(actions[0])
    start, used = time.perf_counter(), time.process_time()
    for action in actions[1:]:
        envs.step(action)
    done = lanes * (steps - 1)
    return done / (time.perf_counter() - start), done / (time.process_time() - used)


def main() -> None:
    """Print the tables and one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--episodes", type=int, default=1000)
    parser.add_argument("--shift-episodes", type=int, default=400)
    parser.add_argument("--patterns", type=int, default=100)
    parser.add_argument("--seed", type=int, default=EVALUATION_SEED)
    options = parser.parse_args()
    known = [n for n in scenarios.names(FAMILY) if scenarios.load(FAMILY, n).split != "train"]
    single = [n for n in known if not n.startswith(("trace", "image", "chen"))]
    results = {}
    for name in single:
        count = options.episodes if name in TRACED else options.shift_episodes
        results[name] = play(name, {POLICY: lambda: BundlePolicy(POLICY)} | SCRIPTS, count, options.seed)
        if name in TRACED:
            results[name] |= play(f"trace-{name}", {TRACE: lambda: BundlePolicy(TRACE)}, count, options.seed)
        print(f"{name} done", flush=True)
    plain = {CHEN: lambda: BundlePolicy(CHEN)} | {name: SCRIPTS[name] for name in ("fixed-drag", "grid-table", "oracle", "random")}
    results["chen"] = play("chen", plain, options.episodes, options.seed)
    rows = []
    for scenario, agents in results.items():
        for name, r in agents.items():
            beside = [f"{r['to_oracle'][0]:.3f}", "{:.3f}-{:.3f}".format(*r["to_oracle"][1:])] if "to_oracle" in r else ["", ""]
            drop = f"{100 * (results['steady-tip'][name]['success'] - r['success']):.1f}" if scenario in CHANGES else ""
            rows.append((scenario, name, f"{r['success']:.1%}", "{:.1%}-{:.1%}".format(*r["interval"]), f"{r['within']:.1%}", f"{r['error']:.1f}", *beside, f"{r['error_reached']:.1f}",
                         f"{r['drags']:.2f}", f"{r['images']:.2f}", f"{r['tip_changes']:.2f}", f"{r['damage']:.3f}", drop))  # fmt: skip
    header = ("scenario", "agent", "success", "95 %", "within", "error pm", "to oracle", "95 %", "of successes", "drags", "images", "tip changes", "damage", "drop")
    table(f"AdatomManipulation-v0, seeds from {options.seed}", header, rows)
    built = {name: play(name, BUILDERS, options.patterns, options.seed) for name in ("assembly-2", "assembly-3", "assembly-5")}
    rows = [(s, n, f"{r['success']:.0%}", "{:.0%}-{:.0%}".format(*r["interval"]), f"{r['error']:.0f}", f"{r['drags']:.1f}", f"{r['damage']:.2f}", f"{r['seconds']:.0f}")
            for s, agents in built.items() for n, r in agents.items()]  # fmt: skip
    table("Patterns", ("scenario", "agent", "success", "95 %", "error pm", "drags", "damage", "seconds"), rows)
    rates = {(name, lanes): speed(name, lanes) for name in ("train", "trace", "image", "assembly-3") for lanes in (1, 64, 1024)}
    table("Environment steps a second", ("scenario", "lanes", "steps/s", "a processor second"), [(*key, *(f"{r:,.0f}" for r in rate)) for key, rate in rates.items()])
    shas = {name: BundlePolicy(name).spec["sha256"] for name in (POLICY, TRACE, CHEN)}
    json_line("adatom_policies", policies=shas, results=results, patterns=built, steps_per_second={f"{s} {n}": rate for (s, n), rate in rates.items()})


if __name__ == "__main__":
    main()
