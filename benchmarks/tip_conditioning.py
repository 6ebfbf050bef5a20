"""The tables of TipConditioning-v0: policy, scripts, random and oracle on every scenario, on unseen seeds, and speed.

A failure, a wrong declaration or none, counts as the whole budget of actions and the whole square of area, alike for
everyone; medians and means are of these penalised figures. p: one-sided Mann-Whitney test that the policy needs less, and
a paired permutation test (sign flips of the difference on the same seeds) beside it for the main scenarios.
"""

from __future__ import annotations

import argparse
import time

import gymnasium as gym
import numpy as np
from report import json_line, paired, table
from scipy import stats

import probegym  # noqa: F401  registers the environments
from probegym import scenarios
from probegym.agents.bundle import BundlePolicy
from probegym.agents.evaluate import EVALUATION_SEED, Results, evaluate
from probegym.agents.registry import make_agent
from probegym.agents.statistics import wilson

ENV_ID, FAMILY = "probegym/TipConditioning-v0", "tip_conditioning"
POLICY, SCRIPTS = "tip-conditioning", ("fixed-recipe", "greedy-table")
AGENTS = (POLICY, *SCRIPTS, "oracle", "random")
MAIN = ("id", "id-classifier-11")


def penalised(results: Results, scenario: str) -> dict[str, np.ndarray]:
    """Actions, spoiled area (nm^2) and seconds of every episode, failures at the most that there is."""
    told = scenarios.load(FAMILY, scenario)
    whole = {"actions": told.budget.measurements, "area": (1e9 * told.task["area"]) ** 2}
    spent = {"actions": results.metrics["actions"], "area": results.metrics["area_spoiled"]}
    return {name: np.where(results.success, spent[name], whole[name]) for name in spent}


def play(scenario: str, agents: tuple[str, ...], episodes: int) -> dict[str, dict]:
    """Agent -> figures of one scenario."""
    runs = {name: evaluate(make_agent(name, ENV_ID), ENV_ID, scenario, episodes) for name in agents}
    spent = {name: penalised(results, scenario) for name, results in runs.items()}
    out: dict[str, dict] = {}
    for name, results in runs.items():
        wins = int(results.success.sum())
        reached = results.success
        row = {"success": wins / episodes, "interval": wilson(wins, episodes)}
        for measure, values in spent[name].items():
            row |= {f"{measure}_median": float(np.median(values)), f"{measure}_mean": float(values.mean())}
            if name in SCRIPTS and POLICY in spent:
                row[f"{measure}_p"] = float(stats.mannwhitneyu(spent[POLICY][measure], values, alternative="less").pvalue)
                if scenario in MAIN:
                    row[f"{measure}_paired_p"] = paired(spent[POLICY][measure], values)
        row["seconds_to_goal"] = float(np.median(results.costs["time"][reached])) if wins else float("nan")
        out[name] = row
    return out


def speed(lanes: int, steps: int) -> float:
    """Environment steps a second, resets left out."""
    envs = gym.make_vec(ENV_ID, num_envs=lanes, scenario="train", autoreset_mode="SameStep")
    envs.reset(seed=0)
    actions = np.random.default_rng(0).integers(0, 13, (steps, lanes))
    envs.step(actions[0])
    start = time.perf_counter()
    for action in actions[1:]:
        envs.step(action)
    return lanes * (steps - 1) / (time.perf_counter() - start)


def passive(episodes: int) -> dict[str, float]:
    """How often an operator who only looks has a good tip: in the first image, in the tenth, in any of ten."""
    envs = gym.make_vec(ENV_ID, num_envs=episodes, scenario="id", autoreset_mode="Disabled")
    envs.reset(seed=EVALUATION_SEED)
    good = [envs.episodes.truth["good"]]
    for _ in range(9):
        envs.step(np.zeros(episodes, int))
        good.append(envs.episodes.truth["good"])
    return {"first image": float(good[0].mean()), "tenth image": float(good[-1].mean()), "any of ten": float(np.any(good, 0).mean())}


def main() -> None:
    """Print the tables and one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--episodes", type=int, default=400)
    parser.add_argument("--shift-episodes", type=int, default=200)
    arguments = parser.parse_args()
    names = [name for name in scenarios.names(FAMILY) if scenarios.load(FAMILY, name).split != "train"]
    results = {}
    for scenario in names:
        main_one = scenario in MAIN
        results[scenario] = play(scenario, AGENTS if main_one else AGENTS[:4], arguments.episodes if main_one else arguments.shift_episodes)
        print(f"{scenario} done", flush=True)
    header = ("scenario", "agent", "success", "95 %", "actions median", "mean", "p", "area nm^2 median", "mean", "p", "seconds to goal")
    rows = []
    for scenario, agents in results.items():
        for name, r in agents.items():
            low, high = r["interval"]
            p = [f"{r[f'{m}_p']:.1e}" if f"{m}_p" in r else "" for m in ("actions", "area")]
            rows.append((scenario, name, f"{r['success']:.1%}", f"{low:.1%}-{high:.1%}", r["actions_median"], r["actions_mean"], p[0],
                         r["area_median"], r["area_mean"], p[1], r["seconds_to_goal"]))  # fmt: skip
    table(f"TipConditioning-v0, seeds from {EVALUATION_SEED}; failures count as the whole budget and square", header, rows)
    tests = [(s, n, r["actions_paired_p"], r["area_paired_p"]) for s, agents in results.items() for n, r in agents.items() if "area_paired_p" in r]
    table("Policy against scripts on the same seeds, paired permutation test", ("scenario", "script", "p actions", "p area"), tests)
    operator, rates = passive(400), {lanes: speed(lanes, 30) for lanes in (1, 64)}
    table("Share of good tips, looking only", tuple(operator), [tuple(operator.values())])
    table("Environment steps a second", ("lanes", "steps/s"), list(rates.items()))
    json_line("tip_conditioning", policy=BundlePolicy(POLICY).spec["sha256"], results=results, passive=operator, steps_per_second=rates)


if __name__ == "__main__":
    main()
