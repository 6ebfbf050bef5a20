"""The tables of the steering policy of SpectrumExploration-v0 against every fixed acquisition function, paired by seed.

Fixed are weights that stay, DKL-EI and DKL-UCB (which pick the place themselves, from the same surrogate); schedules and a Gaussian
process on coordinates stand beside them. With --search: the weights, on training seeds. p: one-sided, that the policy's final regret
is lower; a paired permutation test (sign flips of the difference on the same seeds) of the mean, and Wilcoxon's signed-rank test.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
from report import json_line, paired, table
from scipy import stats
from spectrum_exploration import SCRIPTS, TRAINING, TRAINING_SEED, play, variant

from probegym.agents.base import Agent, OracleAgent
from probegym.agents.baselines_spectra import DeepKernelEI, DeepKernelUCB, FixedWeights, SteeredEI, WeightsSchedule
from probegym.agents.bundle import BundlePolicy
from probegym.agents.evaluate import EVALUATION_SEED
from probegym.agents.statistics import mean_interval

POLICY = "spectrum-exploration"
RUGGED = ("rugged-doped", "rugged-defects", "rugged-switch")
OTHERS = ("id", "near-imprint", "far-recorded")
SEARCHED = (*TRAINING, "train-switch")
WEIGHTS = ((1, 0.3, 0, 0), (1, 1, 0, 0), (0.7, 1, 0, 0), (0.5, 1, 0, 0), (0.4, 1, 0, 0), (0.3, 1, 0, 0), (0.2, 1, 0, 0), (0.1, 1, 0, 0),
           (1, 0.5, 0.5, 0), (0.4, 1, 0.3, 0), (0.4, 1, 0, 0.2), (0.4, 1, 0, -0.2))  # fmt: skip
SCHEDULES = (((0.5, 1, 0, 0), (1, 0.1, 0, 0)), ((0, 1, 0.5, 0), (1, 0.3, 0, 0)), ((1, 1, 0, 0), (1, 0, 0, 0)))


def opponents() -> dict[str, tuple[str, Agent]]:
    """Name -> variant of the scenario and agent."""
    return {
        "fixed-weights": ("steer", FixedWeights()),
        "dkl-ei": ("locate", DeepKernelEI()),
        "dkl-ucb": ("locate", DeepKernelUCB()),
        "schedule": ("steer", WeightsSchedule()),
        "coordinates-ei": ("bare", SCRIPTS["coordinates-ei"][1]()),
        "random-places": ("bare", SCRIPTS["random-places"][1]()),
    }


FIXED = ("fixed-weights", "dkl-ei", "dkl-ucb")


def ranks(ours: np.ndarray, theirs: np.ndarray) -> float:
    """One-sided p of Wilcoxon's signed-rank test; 1 where all are alike."""
    return float(stats.wilcoxon(theirs, ours, alternative="greater", zero_method="zsplit").pvalue) if np.any(ours != theirs) else 1.0


def search(folder: str, episodes: int, worlds: tuple[str, ...]) -> None:
    """Mean final regret of every weighting and schedule on training seeds."""
    agents: dict[str, Agent] = {str(weights): FixedWeights(weights) for weights in WEIGHTS}
    agents |= {f"{first} to {last}": WeightsSchedule(first, last) for first, last in SCHEDULES} | {"steered-ei": SteeredEI()}
    tried: dict[str, list[float]] = {}
    for name, agent in agents.items():
        tried[name] = regrets = [play(agent, variant(folder, world, "steer"), episodes, TRAINING_SEED)["regret"].mean() for world in worlds]
        print(f"{name}: {np.mean(regrets):.3f} of {', '.join(f'{r:.3f}' for r in regrets)}", flush=True)
    json_line("spectra_weights", episodes=episodes, worlds=worlds, tried=tried)


def main() -> None:
    """Print the tables and one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--policy", default=POLICY, help="shipped name or folder")
    parser.add_argument("--episodes", type=int, default=60, help="of each rugged world")
    parser.add_argument("--other-episodes", type=int, default=20)
    parser.add_argument("--worlds", nargs="*", help=f"{', '.join((*RUGGED, *OTHERS))}; {', '.join(SEARCHED)} for a search")
    parser.add_argument("--budget", type=int, help="spectra, fewer than the scenario allows")
    parser.add_argument("--agents", nargs="*", help="only these opponents")
    parser.add_argument("--seed", type=int, default=EVALUATION_SEED, help="of the first episode")
    parser.add_argument("--oracle", action="store_true", help="play the oracle too")
    parser.add_argument("--search", type=int, default=0, help="search fixed weights and schedules on so many episodes of each training scenario instead")
    parser.add_argument("--save", type=Path, help="folder that receives one .npz a world")
    arguments = parser.parse_args()
    results: dict[str, dict[str, dict]] = {}
    with tempfile.TemporaryDirectory() as folder:
        if arguments.search:
            search(folder, arguments.search, tuple(arguments.worlds or SEARCHED))
            return
        for world in arguments.worlds or (*RUGGED, *OTHERS):
            results[world] = {}
            agents = {"policy": ("steer", BundlePolicy(arguments.policy))} | opponents()
            agents |= {"oracle": ("steer", OracleAgent())} if arguments.oracle else {}
            for name, (kind, agent) in agents.items():
                if arguments.agents is not None and name not in ("policy", *arguments.agents):
                    continue
                episodes = arguments.episodes if world in RUGGED else arguments.other_episodes
                results[world][name] = r = play(agent, variant(folder, world, kind), episodes, arguments.seed, arguments.budget)
                print(f"{world} {name}: regret {r['regret'].mean():.3f}, {r['seconds']:.2f} s an episode", flush=True)
            if arguments.save:
                arguments.save.mkdir(parents=True, exist_ok=True)
                np.savez_compressed(arguments.save / f"policies-{world}{arguments.budget or ''}.npz", **{f"{n}/{k}": v for n, r in results[world].items() for k, v in r.items()})
    report(results, arguments.seed)


def report(results: dict[str, dict[str, dict]], seed: int) -> None:
    """Print the tables of ``results``, world -> agent -> figures."""
    header = ("world", "agent", "regret mean", "95 %", "median", "rank mean", "best found", "p mean", "p ranks")
    pools = {world: agents for world, agents in results.items()}
    rugged = [world for world in RUGGED if world in results]
    if len(rugged) > 1:
        pools["all rugged"] = {n: {k: np.concatenate([results[w][n][k] for w in rugged]) for k in ("regret", "rank")} for n in results[rugged[0]]}
    rows = []
    for world, agents in pools.items():
        for name, r in agents.items():
            low, high = mean_interval(r["regret"])
            p = [f"{test(agents['policy']['regret'], r['regret']):.1e}" if name != "policy" else "" for test in (paired, ranks)]
            rows.append((world, name, f"{r['regret'].mean():.3f}", f"{low:.3f}-{high:.3f}", f"{np.median(r['regret']):.3f}",
                         f"{r['rank'].mean():.1f}", f"{(r['rank'] < 1).mean():.0%}", *p))  # fmt: skip
    table(f"Steering, SpectrumExploration-v0, final regret, seeds from {seed}", header, rows)
    best = [(world, min((n for n in FIXED if n in agents), key=lambda n: agents[n]["regret"].mean())) for world, agents in pools.items()]
    table("Best fixed acquisition function", ("world", "which"), best)
    raw = {world: {name: {k: r[k] for k in ("rank", "regret")} for name, r in agents.items()} for world, agents in results.items()}
    json_line("spectra_policies", seed=seed, results=raw)


if __name__ == "__main__":
    main()
