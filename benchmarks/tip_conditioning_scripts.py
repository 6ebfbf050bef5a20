"""Tune the scripted baselines of TipConditioning on training seeds; prints the choice and one JSON line.

Fixed recipe: simulated annealing over sequences of one to six treatments. Greedy table: mean improvement of the tip's quality by
each treatment after each other one, measured in random play on bad tips, less a price of the spoilt area. Then both thresholds
of both. What is minimised: the mean of actions plus spoilt area over 1e4 nm^2, a failure counted as the whole budget; on
training seeds, with both classifiers of the training scenario, and images of 16 pixels, since scripts see only the verdict.
"""

from __future__ import annotations

import argparse
import itertools
import json
import tempfile
from pathlib import Path

import gymnasium as gym
import numpy as np

import probegym  # noqa: F401  registers the environments
from probegym.agents.base import Agent
from probegym.agents.baselines_stm import FixedRecipe, GreedyTable
from probegym.agents.conditioning import AREA_UNIT

TRAINING_SEED = 5_000_000
LANES = 512
FAST = "fast: {extends: train, task: {image: {pixels: 16}}}\n"
THRESHOLDS = list(itertools.product((2.0, 3.0, 4.0, 5.0, 6.0), (-2.0, -1.0, 0.0, 1.0)))


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
    """The best sequence found; each is tried on fresh training seeds, the best ones again."""
    now = tuple(rng.choice(names, 4))
    value = cost(envs, FixedRecipe(now, 3.0, 0.0), TRAINING_SEED)[0]
    scores = {now: [value]}
    for step in range(steps):
        new = list(now)
        kind = rng.integers(4)
        if kind == 0 and len(new) < 6:
            new.insert(rng.integers(len(new) + 1), rng.choice(names))
        elif kind == 1 and len(new) > 1:
            new.pop(rng.integers(len(new)))
        elif kind == 2 and len(new) > 1:
            i, j = rng.choice(len(new), 2, replace=False)
            new[i], new[j] = new[j], new[i]
        else:
            new[rng.integers(len(new))] = rng.choice(names)
        tried = cost(envs, FixedRecipe(tuple(new), 3.0, 0.0), TRAINING_SEED + LANES * (1 + step))[0]
        scores.setdefault(tuple(new), []).append(tried)
        if tried < value or rng.random() < np.exp((value - tried) / (2.0 * (1 - step / steps) + 0.05)):
            now, value = tuple(new), tried
    best = sorted(scores, key=lambda recipe: np.mean(scores[recipe]))[:12]
    again = {recipe: np.mean([cost(envs, FixedRecipe(recipe, 3.0, 0.0), TRAINING_SEED + 500_000 + LANES * k)[0] for k in range(4)]) for recipe in best}
    winner = min(again, key=lambda recipe: again[recipe])
    return winner, float(again[winner])


def improvements(envs, rounds: int, rng: np.random.Generator) -> np.ndarray:
    """Mean improvement of quality (last treatment, treatment) on bad tips in random play; row 0: at the start."""
    n = len(envs.episodes.task.names) - 1
    total, count = np.zeros((n, n)), np.full((n, n), 1e-9)
    for turn in range(rounds):
        envs.reset(seed=TRAINING_SEED + 1_000_000 + turn * LANES)
        last = np.zeros(LANES, int)
        for _ in range(16):
            truth = envs.episodes.truth
            bad, before = ~truth["good"], truth["quality"]
            observation = envs.step(rng.integers(1, n, LANES))[0]
            done = observation["action"].argmax(1)
            real = bad & (done > 0)
            np.add.at(total, (last[real], done[real]), (envs.episodes.truth["quality"] - before)[real])
            np.add.at(count, (last[real], done[real]), 1)
            last = np.where(done > 0, done, last)
    return total / count


def thresholds(envs, make) -> tuple[dict[str, float], float]:
    """The pair of thresholds with the least mean cost."""
    tried = {pair: np.mean([cost(envs, make(*pair), TRAINING_SEED + 700_000 + LANES * k)[0] for k in range(2)]) for pair in THRESHOLDS}
    best = min(tried, key=lambda pair: tried[pair])
    return {"sure": best[0], "unsure": best[1]}, float(tried[best])


def main() -> None:
    """Print what was found, and one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=250, help="sequences that annealing tries")
    parser.add_argument("--rounds", type=int, default=12, help="batches of random play for the table")
    arguments, rng = parser.parse_args(), np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "fast.yaml").write_text(FAST)
        envs = gym.make_vec("probegym/TipConditioning-v0", num_envs=LANES, scenario=f"{Path(folder) / 'fast.yaml'}:fast", autoreset_mode="Disabled")
    names = list(envs.episodes.task.names)
    gains = improvements(envs, arguments.rounds, rng)
    area = np.pi * (1e9 * envs.episodes.task.radius) ** 2 / AREA_UNIT
    tables = {}
    for price in (0.0, 0.03, 0.1, 0.3):
        worth = gains - price * area[:-1]
        order = {("" if row == 0 else names[row]): tuple(names[1 + i] for i in np.argsort(-worth[row, 1:])) for row in range(len(names) - 1)}
        tables[price] = (order, np.mean([cost(envs, GreedyTable(order, 3.0, 0.0), TRAINING_SEED + 600_000 + LANES * k)[0] for k in range(2)]))
        print(f"table with price {price}: cost {tables[price][1]:.2f}", flush=True)
    price = min(tables, key=lambda p: tables[p][1])
    table = tables[price][0]
    recipe, value = anneal(envs, names[1:-1], arguments.steps, rng)
    print(f"recipe {recipe}: cost {value:.2f}", flush=True)
    chosen = {"recipe": recipe, "price": price, "table": table}
    chosen["recipe_thresholds"], chosen["recipe_cost"] = thresholds(envs, lambda sure, unsure: FixedRecipe(recipe, sure, unsure))
    chosen["table_thresholds"], chosen["table_cost"] = thresholds(envs, lambda sure, unsure: GreedyTable(table, sure, unsure))
    for name, content in chosen.items():
        print(name, content)
    print(json.dumps({"benchmark": "tip_conditioning_scripts", "steps": arguments.steps, "rounds": arguments.rounds} | chosen))


if __name__ == "__main__":
    main()
