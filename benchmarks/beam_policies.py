"""The tables of BeamManipulation-v0: policy, rules, oracle and random on every scenario, on unseen seeds, and the environment's speed.

The score is microscope-seconds to the goal. A failure counts as the whole time limit, alike for everyone; means and medians are of
these. Ratios of means with 95 % bootstrap intervals over episodes, paired: all agents get the same episodes. Damage: events an
episode. --suite 100 or 1000: so many of the fixed episodes from --seed on, EVALUATION_SEED unless told otherwise. --tune: the constants
of the rules, on training seeds.
"""

from __future__ import annotations

import argparse
import itertools
import time

import gymnasium as gym
import numpy as np
from report import json_line, ratio, table

import probegym  # noqa: F401  registers the environments
from probegym import scenarios
from probegym.agents.base import Agent
from probegym.agents.baselines_beam import BayesianGreedy, FixedGreedy
from probegym.agents.bundle import BundlePolicy
from probegym.agents.evaluate import EVALUATION_SEED, Results, evaluate
from probegym.agents.registry import make_agent
from probegym.agents.seeds import TUNING_SEED
from probegym.agents.statistics import wilson
from probegym.envs.task import Observation

ENV_ID, FAMILY, POLICY = "probegym/BeamManipulation-v0", "beam_manipulation", "beam-manipulation"
FIXED, LEARNING = ("greedy-published", "greedy-bond", "greedy-tuned"), ("bayesian-greedy", "bayesian-curious")
ALL = (POLICY, *FIXED, *LEARNING, "oracle", "random-nearby")
MAIN = ("id", "mixture", "published", "published-free")


class Awake(BundlePolicy):
    """The policy, spared the lanes that have arrived: the same actions in less time."""

    def decide(self, observation: Observation) -> np.ndarray:
        on, whole = np.flatnonzero(observation["bonds"].any((1, 2))), self.memory
        self.memory = {name: value[on] for name, value in whole.items()}
        actions = np.zeros((len(observation["budget"]), 3), np.float32)
        if len(on):
            actions[on] = super().decide({name: value[on] for name, value in observation.items()})
        for name, value in whole.items():
            value[on] = self.memory[name]
        self.memory = whole
        return actions


def agents_of(scenario: str) -> tuple[str, ...]:
    """Who plays in a scenario: those for one atom in the axes of the lattice only there, images are for nobody here."""
    if scenario in MAIN:
        return ALL
    settings = scenarios.load(FAMILY, scenario).task
    if settings.get("atoms", 1) > 1:
        return ("greedy-published", "greedy-bond", "oracle", "random-nearby")
    return (POLICY, "greedy-tuned", "bayesian-greedy", "bayesian-curious", "oracle")


def seconds(results: Results, scenario: str) -> np.ndarray:
    """Microscope-seconds of every episode; failures at the limit."""
    return np.where(results.success, results.costs["time"], scenarios.load(FAMILY, scenario).budget.time)


def play(scenario: str, episodes: int, seed: int) -> dict[str, dict]:
    """Agent -> figures of one scenario."""
    runs = {name: evaluate(Awake(POLICY) if name == POLICY else make_agent(name, ENV_ID), ENV_ID, scenario, episodes, seed) for name in agents_of(scenario)}
    spent = {name: seconds(results, scenario) for name, results in runs.items()}
    out: dict[str, dict] = {}
    for name, results in runs.items():
        wins = int(results.success.sum())
        out[name] = {"success": wins / episodes, "interval": wilson(wins, episodes), "mean": float(spent[name].mean()), "median": float(np.median(spent[name])),
                     "damage": float(results.costs["damage"].mean()), "images": float(results.costs["measurements"].mean())}  # fmt: skip
        if POLICY in runs and name != POLICY:
            out[name]["policy_ratio"] = ratio(spent[POLICY], spent[name])
    return out


def speeds() -> dict[str, float]:
    """Environment steps per second, observation and reward included, new episodes as they come."""
    out = {}
    for scenario, lanes, steps in (("published", 1024, 60), ("id", 1024, 60), ("image", 256, 12), ("both", 256, 12)):
        envs = gym.make_vec(ENV_ID, num_envs=lanes, scenario=scenario)
        envs.reset(seed=0)
        actions = np.random.default_rng(0).uniform(-1, 1, (steps + 2, lanes, 3)).astype(np.float32)
        for action in actions[:2]:
            envs.step(action)
        wall, busy = time.perf_counter(), time.process_time()
        for action in actions[2:]:
            envs.step(action)
        out[scenario] = lanes * steps / (time.perf_counter() - wall)
        out[f"{scenario}, per second of processor time"] = lanes * steps / (time.process_time() - busy)
    return out


def tune(episodes: int) -> None:
    """Place and dwell of the fixed rule, and the worth of information, on the training scenario."""

    def took(agent: Agent) -> float:
        return float(seconds(evaluate(agent, ENV_ID, "train", episodes, TUNING_SEED), "train").mean())

    # the place with a dwell of 4 s, as far as an action reaches, then the dwell at the best place
    places = itertools.product((0.85, 1.0, 1.2, 1.4, 1.6, 1.8, 2.0), (0.0, 0.4, 0.8, 1.2, 1.6, 2.0))
    fixed = {(*place, 4.0): took(FixedGreedy(place, 4.0)) for place in places}
    best = min(fixed, key=fixed.__getitem__)[:2]
    fixed |= {(*best, dwell): took(FixedGreedy(best, dwell)) for dwell in (2.0, 3.0, 6.0)}
    rows = [(f"fixed {along:g} {across:+g} bonds, {dwell:g} s", value) for (along, across, dwell), value in fixed.items()]
    rows += [(f"bayesian, curiosity {worth:g}", took(BayesianGreedy(worth))) for worth in (0.0, 1.0, 2.0, 4.0, 8.0)]
    table(f"mean seconds on train, {episodes} episodes from {TUNING_SEED}", ("rule", "seconds"), [(n, f"{s:.0f}") for n, s in sorted(rows, key=lambda r: r[1])])
    json_line("beam_tuning", episodes=episodes, seed=TUNING_SEED, tried=rows)


def main() -> None:
    """Print the tables and one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--suite", type=int, choices=(100, 1000), default=100)
    parser.add_argument("--shift-episodes", type=int, default=100)
    parser.add_argument("--scenarios", nargs="*", help="only these")
    parser.add_argument("--seed", type=int, default=EVALUATION_SEED, help="of the first episode")
    parser.add_argument("--tune", type=int, metavar="EPISODES")
    options = parser.parse_args()
    if options.tune:
        tune(options.tune)
        return
    names = options.scenarios or [n for n in scenarios.names(FAMILY) if n not in ("train", "image", "both")]
    results = {name: play(name, options.suite if name in MAIN else options.shift_episodes, options.seed) for name in names}
    rows = []
    for scenario, agents in results.items():
        for name, r in agents.items():
            against = "{:.2f}  {:.2f}-{:.2f}".format(*r["policy_ratio"]) if "policy_ratio" in r else ""
            interval = "{:.1%}-{:.1%}".format(*r["interval"])
            rows.append((scenario, name, f"{r['success']:.1%}", interval, f"{r['mean']:.1f}", f"{r['median']:.1f}", against, f"{r['images']:.1f}", f"{r['damage']:.3f}"))
    header = ("scenario", "agent", "success", "95 %", "seconds mean", "median", "policy / this  95 %", "images", "damage")
    table(f"BeamManipulation-v0, seeds from {options.seed}; failures count as the whole time limit", header, rows)
    fast = {} if options.scenarios else speeds()
    if fast:
        table("environment steps per second", ("scenario", "steps/s"), [(name, f"{value:,.0f}") for name, value in fast.items()])
    json_line("beam_policies", seed=options.seed, policy=BundlePolicy(POLICY).spec["sha256"], results=results, speeds=fast)


if __name__ == "__main__":
    main()
