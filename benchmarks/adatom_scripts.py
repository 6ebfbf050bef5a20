"""Finds the numbers of the scripts of AdatomManipulation on training seeds: one recipe for all drags, one for each range of distances, and what is remembered.

Every recipe of the grid plays whole episodes; for the table, single drags are sorted by their distance and the recipe is taken
that most often reaches the goal at once, smaller errors deciding between equals.
"""

from __future__ import annotations

import argparse
from itertools import product

import gymnasium as gym
import numpy as np
from report import json_line, table

import probegym  # noqa: F401  registers the environments
from probegym.agents.baselines_adatoms import EDGES, CorrectedDrag, FixedDrag, GridTable, Recipe
from probegym.agents.evaluate import evaluate
from probegym.agents.seeds import SELECTION_SEED

ENV_ID = "probegym/AdatomManipulation-v0"
BIAS, CONDUCTANCE = (5e-3, 10e-3, 15e-3), (3e-6, 4e-6, 5e-6, 6e-6)
FADES = (0.0, 0.2, 0.5, 1.0)
BEHIND, BEYOND = (0.0, 0.2e-9), (0.0, 0.05e-9, 0.1e-9, 0.15e-9, 0.2e-9)


def first_drags(recipe: Recipe, scenario: str, lanes: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Distance to the goal before (lanes,) and after the first drag, and whether that reached it."""
    envs = gym.make_vec(ENV_ID, num_envs=lanes, scenario=scenario, autoreset_mode="Disabled")
    observation, info = envs.reset(seed=SELECTION_SEED)
    agent = FixedDrag(recipe)
    _, _, _, _, after = envs.step(agent.act(observation, envs.episodes))
    return info["distance"], after["error"], after["is_success"]


def main() -> None:
    """Print both tables and one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scenario", default="train")
    parser.add_argument("--lanes", type=int, default=1000)
    parser.add_argument("--episodes", type=int, default=200)
    options = parser.parse_args()
    recipes = [Recipe(*values) for values in product(BIAS, CONDUCTANCE, BEHIND, BEYOND)]
    drags = [first_drags(recipe, options.scenario, options.lanes) for recipe in recipes]
    overall = sorted(range(len(recipes)), key=lambda i: (-drags[i][2].mean(), drags[i][1].mean()))
    played = [(i, evaluate(FixedDrag(recipes[i]), ENV_ID, options.scenario, options.episodes, SELECTION_SEED)) for i in overall[:6]]
    rows = [(*_numbers(recipes[i]), f"{drags[i][2].mean():.1%}", f"{r.success.mean():.1%}", 1e12 * r.metrics["error"].mean()) for i, r in played]
    header = ("bias mV", "conductance uS", "behind nm", "beyond nm", "first drag", "success", "error pm")
    table(f"Recipes, {options.scenario}, seeds from {SELECTION_SEED}, the best at the first drag", header, rows)
    steady = max(played, key=lambda one: (one[1].success.mean(), -one[1].metrics["error"].mean()))[0]
    same = [i for i, recipe in enumerate(recipes) if recipe.bias == recipes[steady].bias]  # a first drag does not show what the bias is good for
    chosen, rows = [], []
    for low, high in zip((0.0, *EDGES), (*EDGES, 1.0), strict=True):
        inside = (drags[0][0] > low) & (drags[0][0] <= high)
        best = min(same, key=lambda i: (-drags[i][2][inside].mean(), drags[i][1][inside].mean()))
        chosen.append(recipes[best])
        rows.append((f"{1e9 * low:g}-{min(1e9 * high, 2):g}", *_numbers(recipes[best]), f"{drags[best][2][inside].mean():.1%}", int(inside.sum())))
    table("Table", ("distance nm", *header[:5], "drags"), rows)
    whole = evaluate(GridTable(tuple(chosen)), ENV_ID, options.scenario, options.episodes, SELECTION_SEED)
    print(f"\ntable: success {whole.success.mean():.1%}, error {1e12 * whole.metrics['error'].mean():.1f} pm")
    kept = [Recipe(*numbers, beyond) for numbers in product((10e-3,), CONDUCTANCE, (0.1e-9, 0.2e-9, 0.3e-9)) for beyond in BEYOND[:2]]
    tried = [(recipe, fades, evaluate(CorrectedDrag(recipe, fades), ENV_ID, options.scenario, 4 * options.episodes, SELECTION_SEED)) for recipe in kept for fades in FADES]
    tried.sort(key=lambda one: (-one[2].success.mean(), one[2].metrics["error"].mean()))
    rows = [(*_numbers(recipe), fades, f"{r.success.mean():.1%}", 1e12 * r.metrics["error"].mean()) for recipe, fades, r in tried[:8]]
    table("Corrected drag, the best", (*header[:4], "fades", *header[5:]), rows)
    json_line("adatom_scripts", fixed=_numbers(recipes[steady]), table=[_numbers(recipe) for recipe in chosen], corrected=[*_numbers(tried[0][0]), tried[0][1]])


def _numbers(recipe: Recipe) -> tuple[float, float, float, float]:
    scaled = (1e3 * recipe.bias, 1e6 * recipe.conductance, 1e9 * recipe.behind, 1e9 * recipe.beyond)
    return tuple(round(value, 6) for value in scaled)


if __name__ == "__main__":
    main()
