"""The tables of SpectrumExploration-v0: every script on every world, at 88 of 2500 places; with --tune, how their constants were found.

All scripts meet the same specimens and the same first places (paired by seed); an episode ends with its budget, or with the
best place there is. Rank: how many places are better than the best one found. Regret: 1 at a typical place, 0 at the best.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import gymnasium as gym
import numpy as np
from report import json_line, table

import probegym  # noqa: F401  registers the environments
from probegym.agents import baselines_spectra as scripts
from probegym.agents.base import Agent
from probegym.agents.evaluate import EVALUATION_SEED
from probegym.agents.statistics import mean_interval, median_interval

ENV_ID = "probegym/SpectrumExploration-v0"
TRAINING_SEED, LANES = 8_000_000, 20
TRAINING = ("train", "train-doped", "train-films", "train-defects")
WORLDS = ("id", "near-target", "near-loops", "near-imprint", "far-patterns", "far-recorded")
VARIANTS = {"steer": "", "locate": "action: locate, ", "bare": "action: locate, surrogate: {embedding: none}, "}
SCRIPTS: dict[str, tuple[str, Callable[[], Agent]]] = {
    "random-places": ("bare", scripts.RandomPlaces),
    "even-grid": ("bare", scripts.EvenGrid),
    "bright-pixels": ("bare", scripts.BrightPixels),
    "coordinates-ei": ("bare", scripts.CoordinatesEI),
    "dkl-ei": ("locate", scripts.DeepKernelEI),
    "dkl-ucb": ("locate", scripts.DeepKernelUCB),
    "curiosity": ("locate", scripts.Curiosity),
}
"""Script -> variant of the scenario that it needs, and how to make it."""
TUNED = {
    "bright-pixels": [(radius, sign) for radius in (1.0, 2.0, 3.0, 4.0, 6.0) for sign in (1, -1)],
    "coordinates-ei": [(xi,) for xi in (0.0, 0.05, 0.1, 0.2, 0.3)],
    "dkl-ei": [(xi,) for xi in (0.0, 0.05, 0.1, 0.2, 0.3)],
    "dkl-ucb": [(beta,) for beta in (0.4, 1.0, 4.0, 9.0, 16.0, 25.0, 36.0)],
    "curiosity": [(novelty,) for novelty in (0.0, 0.5, 1.0, 2.0)],
}  # fmt: skip


def variant(folder: str | Path, scenario: str, kind: str) -> str:
    """A scenario that is played to its end, in one of VARIANTS, as ``file:name``."""
    path = Path(folder) / f"{scenario}-{kind}.yaml"
    path.write_text(f"played:\n  extends: {scenario}\n  task: {{{VARIANTS[kind]}goal: 1e-9}}\n")
    return f"{path}:played"


def play(agent: Agent, scenario: str, episodes: int, seed: int, budget: int | None = None) -> dict[str, np.ndarray]:
    """Regret after each spectrum (episodes, steps + 1), its last value, rank, share of the best found and seconds an episode."""
    out: dict[str, list] = {"curve": [], "rank": [], "found": []}
    start = time.perf_counter()
    for first in range(0, episodes, LANES):
        lanes = min(LANES, episodes - first)
        envs = gym.make_vec(ENV_ID, num_envs=lanes, scenario=scenario, budget=budget, autoreset_mode="Disabled")
        observation, info = envs.reset(seed=seed + first)
        agent.begin(lanes, seed + first)
        steps = round(envs.episodes.limits["measurements"]) - envs.episodes.task.settings.first
        now = {name: info[name].copy() for name in ("regret", "rank", "found")}
        curve, done = [now["regret"]], np.zeros(lanes, bool)
        while not done.all():
            observation, _, terminated, truncated, info = envs.step(agent.act(observation, envs.episodes))
            now = {name: np.where(done, now[name], info[name]) for name in now}
            curve.append(now["regret"])
            done |= terminated | truncated
        curve += [now["regret"]] * (steps + 1 - len(curve))
        out["curve"].append(np.stack(curve, 1))
        out["rank"].append(now["rank"])
        out["found"].append(now["found"])
        envs.close()
    joined = {name: np.concatenate(parts) for name, parts in out.items()}
    return joined | {"regret": joined["curve"][:, -1], "seconds": np.array((time.perf_counter() - start) / episodes)}


def wins(ours: dict, theirs: dict) -> float:
    """Share of the specimens on which the rank is better; a tie in rank counts half."""
    return float(np.mean((ours["rank"] < theirs["rank"]) + 0.5 * (ours["rank"] == theirs["rank"])))


def tune(folder: str, episodes: int, worlds: Sequence[str], names: Sequence[str]) -> dict[str, dict]:
    """Mean final regret of every tried constant of the scripts on training seeds, over the worlds."""
    tried: dict[str, dict] = {}
    for name in names:
        kind, make = SCRIPTS[name]
        tried[name] = {}
        for choice in TUNED.get(name, ()):
            regrets = [play(make(*choice), variant(folder, world, kind), episodes, TRAINING_SEED)["regret"].mean() for world in worlds]
            tried[name][choice] = regrets
            print(f"{name} {choice}: {np.mean(regrets):.3f} of {', '.join(f'{r:.3f}' for r in regrets)}", flush=True)
    return tried


def main() -> None:
    """Print the tables and one JSON line; --save keeps every curve for the pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--episodes", type=int, default=20)
    parser.add_argument("--worlds", nargs="*", help=f"{', '.join(WORLDS)}; for tuning {', '.join(TRAINING)}")
    parser.add_argument("--scripts", nargs="*", default=list(SCRIPTS))
    parser.add_argument("--tune", type=int, default=0, help="tune on so many episodes of each training scenario instead")
    parser.add_argument("--save", type=Path, help="folder that receives one .npz a world")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if arguments.tune:
            tried = tune(folder, arguments.tune, arguments.worlds or TRAINING, arguments.scripts)
            json_line("spectrum_exploration_tuning", episodes=arguments.tune, tried={n: {str(k): v for k, v in t.items()} for n, t in tried.items()})
            return
        results: dict[str, dict] = {}
        for world in arguments.worlds or WORLDS:
            results[world] = {}
            for name in arguments.scripts:
                kind, make = SCRIPTS[name]
                results[world][name] = r = play(make(), variant(folder, world, kind), arguments.episodes, EVALUATION_SEED)
                print(f"{world} {name} {r['seconds']:.2f} s an episode", flush=True)
            if arguments.save:
                arguments.save.mkdir(parents=True, exist_ok=True)
                np.savez_compressed(arguments.save / f"scripts-{world}.npz", **{f"{n}/{k}": v for n, r in results[world].items() for k, v in r.items()})
    report(results, arguments.episodes)


def report(results: dict[str, dict], episodes: int) -> None:
    """Print the tables of ``results``, world -> script -> figures."""
    rows = []
    for world, agents in results.items():
        for name, r in agents.items():
            low, high = median_interval(r["rank"])
            worst, best = mean_interval(r["regret"])
            beats = f"{wins(r, agents['random-places']):.0%}" if name != "random-places" and "random-places" in agents else ""
            rows.append((world, name, float(np.median(r["rank"])), f"{low:.1f}-{high:.1f}", f"{np.median(r['regret']):.3f}",
                         f"{r['regret'].mean():.3f}", f"{worst:.3f}-{best:.3f}", f"{r['found'].mean():.0%}", f"{(r['rank'] < 1).mean():.0%}", beats))  # fmt: skip
    header = ("world", "agent", "rank median", "95 %", "regret median", "mean", "95 %", "top 1 % found", "best found", "beats random")
    table(f"SpectrumExploration-v0, 88 of 2500 places, {episodes} episodes, seeds from {EVALUATION_SEED}", header, rows)
    raw = {world: {name: {k: r[k] for k in ("rank", "regret", "found")} for name, r in agents.items()} for world, agents in results.items()}
    json_line("spectrum_exploration", episodes=episodes, seed=EVALUATION_SEED, results=raw)


if __name__ == "__main__":
    main()
