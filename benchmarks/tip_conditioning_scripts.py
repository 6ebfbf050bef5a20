"""Tune the scripted baselines of TipConditioning on training seeds; prints the choice and one JSON line.

Fixed recipe: simulated annealing over sequences of one to eight treatments on the same seeds, one chain from each of two
sequences that an operator might use; the best ten again on other seeds.
Greedy table: mean improvement by each treatment after each other one, measured in random play on bad tips, of the tip's quality
or of the share of good tips, less a price of the spoiled area; the best measure and price. Then both thresholds of both. What is minimised: the mean of actions plus spoiled area over 1e4 nm^2, a failure counted as the whole budget; on
training seeds, with both classifiers of the training scenario, and images of 16 pixels, since scripts see only the verdict.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
from pathlib import Path

import gymnasium as gym
import numpy as np
from report import json_line

import probegym  # noqa: F401  registers the environments
from probegym.agents.base import Agent
from probegym.agents.baselines_stm import FixedRecipe, GreedyTable
from probegym.agents.train_stm import AREA_UNIT

TRAINING_SEED = 5_000_000
LANES = 512
FAST = "fast: {extends: train, task: {image: {pixels: 16}}}\n"
STARTS = (("pulse -4 V", "dip 5 nm"), ("pulse +4 V", "pulse -4 V", "dip 1.2 nm", "dip 5 nm", "dip 1.2 nm"))
THRESHOLDS = list(itertools.product((4.0, 5.0, 6.0), (0.0, 1.0)))


def cost(envs, agent: Agent, seed: int) -> tuple[float, float, float]:
    """Mean cost, success rate and mean number of actions of one episode in every lane."""
    observation, _ = envs.reset(seed=seed)
    agent.begin(LANES, seed)
    done, spent, success, actions = np.zeros(LANES, bool), np.zeros(LANES), np.zeros(LANES, bool), np.zeros(LANES)
    budget = envs.episodes.limits["measurements"]
    while not done.all():
        observation, _, terminated, truncated, info = envs.step(agent.act(observation, envs.episodes))
        ended = (terminated | truncated) & ~done
        success |= ended & info["is_success"]
        spent = np.where(ended, info["actions"] + info["area_spoiled"] / AREA_UNIT, spent)
        actions = np.where(ended, info["actions"], actions)
        done |= ended
    return float(np.where(success, spent, budget).mean()), float(success.mean()), float(np.where(success, actions, budget).mean())


def anneal(envs, names: list[str], steps: int, rng: np.random.Generator) -> tuple[tuple[str, ...], float]:
    """The best sequence found; the best ones are tried again on fresh training seeds."""
    scores: dict[tuple[str, ...], float] = {}

    def score(recipe: tuple[str, ...]) -> float:
        if recipe not in scores:
            scores[recipe] = cost(envs, FixedRecipe(recipe, 5.0, 0.0), TRAINING_SEED)[0]
        return scores[recipe]

    for now in STARTS:
        for step in range(steps):
            new = _neighbour(list(now), names, rng)
            if rng.random() < np.exp(min(0, score(now) - score(new)) / (1.5 * (1 - step / steps) + 0.05)):
                now = new
    best = sorted(scores, key=lambda recipe: scores[recipe])[:10]
    seeds = [TRAINING_SEED + 500_000 + LANES * k for k in range(3)]
    again = {recipe: np.mean([cost(envs, FixedRecipe(recipe, 5.0, 0.0), seed)[0] for seed in seeds]) for recipe in best}
    winner = min(again, key=lambda recipe: again[recipe])
    return winner, float(again[winner])


def _neighbour(recipe: list[str], names: list[str], rng: np.random.Generator) -> tuple[str, ...]:
    """One treatment more, one less, two exchanged, or another one in its place."""
    kind = rng.integers(4)
    if kind == 0 and len(recipe) < 8:
        recipe.insert(rng.integers(len(recipe) + 1), str(rng.choice(names)))
    elif kind == 1 and len(recipe) > 1:
        recipe.pop(rng.integers(len(recipe)))
    elif kind == 2 and len(recipe) > 1:
        i, j = rng.choice(len(recipe), 2, replace=False)
        recipe[i], recipe[j] = recipe[j], recipe[i]
    else:
        recipe[rng.integers(len(recipe))] = str(rng.choice(names))
    return tuple(recipe)


def improvements(envs, rounds: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Mean improvement (last treatment, treatment) on bad tips in random play, row 0 at the start: of quality, of being good."""
    n = len(envs.episodes.task.names) - 1
    total, count = {name: np.zeros((n, n)) for name in ("quality", "good")}, np.full((n, n), 1e-9)
    for turn in range(rounds):
        envs.reset(seed=TRAINING_SEED + 1_000_000 + turn * LANES)
        last = np.zeros(LANES, int)
        for _ in range(16):
            before = envs.episodes.truth
            observation = envs.step(rng.integers(1, n, LANES))[0]
            done, after = observation["last_action"].argmax(1), envs.episodes.truth
            real = ~before["good"] & (done > 0)
            for name, sums in total.items():
                np.add.at(sums, (last[real], done[real]), after[name][real].astype(float) - before[name][real])
            np.add.at(count, (last[real], done[real]), 1)
            last = np.where(done > 0, done, last)
    return {name: sums / count for name, sums in total.items()}


def thresholds(envs, make) -> tuple[dict[str, float], float]:
    """The pair of thresholds with the least mean cost."""
    tried = {pair: np.mean([cost(envs, make(*pair), TRAINING_SEED + 700_000 + LANES * k)[0] for k in range(2)]) for pair in THRESHOLDS}
    best = min(tried, key=lambda pair: tried[pair])
    return {"sure": best[0], "unsure": best[1]}, float(tried[best])


def main() -> None:
    """Print what was found, and one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=60, help="steps of each annealing chain")
    parser.add_argument("--rounds", type=int, default=12, help="batches of random play for the table")
    arguments, rng = parser.parse_args(), np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "fast.yaml").write_text(FAST)
        envs = gym.make_vec("probegym/TipConditioning-v0", num_envs=LANES, scenario=f"{Path(folder) / 'fast.yaml'}:fast", autoreset_mode="Disabled")
    names = list(envs.episodes.task.names)
    gains = improvements(envs, arguments.rounds, rng)
    area = np.pi * (1e9 * envs.episodes.task.radius) ** 2 / AREA_UNIT
    tables = {}
    for kind, price in itertools.product(gains, (0.0, 0.03, 0.1, 0.3)):
        worth = gains[kind] - price * area[:-1]
        order = {("" if row == 0 else names[row]): tuple(names[1 + i] for i in np.argsort(-worth[row, 1:])[:6]) for row in range(len(names) - 1)}
        value = np.mean([cost(envs, GreedyTable(order, 3.0, 0.0), TRAINING_SEED + 600_000 + LANES * k)[0] for k in range(2)])
        tables[kind, price] = (order, value)
        print(f"table of {kind} with price {price}: cost {value:.2f}", flush=True)
    kind = min(tables, key=lambda key: tables[key][1])
    table = tables[kind][0]
    recipe, value = anneal(envs, names[1:-1], arguments.steps, rng)
    print(f"recipe {recipe}: cost {value:.2f}", flush=True)
    chosen = {"recipe": recipe, "measure": kind[0], "price": kind[1], "table": table}
    chosen["recipe_thresholds"], chosen["recipe_cost"] = thresholds(envs, lambda sure, unsure: FixedRecipe(recipe, sure, unsure))
    chosen["table_thresholds"], chosen["table_cost"] = thresholds(envs, lambda sure, unsure: GreedyTable(table, sure, unsure))
    for name, content in chosen.items():
        print(name, content)
    json_line("tip_conditioning_scripts", steps=arguments.steps, rounds=arguments.rounds, **chosen)


if __name__ == "__main__":
    main()
