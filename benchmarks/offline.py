"""Offline learning: behaviour cloning on the documented data sets beside the agents that they hold, on unseen seeds of scenario ``id``.

Score: mean return as a share of the way from random (0) to the oracle (1), by the reference scores of the data set, with a 95 % bootstrap
interval over episodes; success with Wilson's. Data sets that are not there are recorded first; policies of an earlier run in OUT are kept.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
from report import json_line, table

from probegym.agents import datasets
from probegym.agents.bundle import BundlePolicy
from probegym.agents.cloning import UPDATES, Cloner
from probegym.agents.evaluate import EVALUATION_SEED, Results, evaluate
from probegym.agents.registry import make_agent
from probegym.agents.statistics import mean_interval, wilson

SCENARIO = "id"


def recorded(env_id: str, agent: str, episodes: int, out: Path, scores: tuple[float, float] | None):
    """The data set of an agent, from an earlier run or new."""
    folder = datasets.folder_of(datasets.dataset_id(env_id, {agent: episodes}), out)
    return datasets.load(str(folder)) if folder.exists() else datasets.record(env_id, {agent: episodes}, root=out, scores=scores)[0]


def cloned(dataset, folder: Path, updates: int, seed: int) -> tuple[Path, float, float]:
    """The policy cloned from a data set, its loss on held-out episodes, and the processor seconds that it took (NaN where it was there)."""
    policy = folder / "policy"
    if not (policy / "policy.json").is_file():
        start = time.process_time()
        cloner = Cloner(dataset, folder, updates, seed)
        cloner.run()
        cloner.finish(policy, f"python benchmarks/offline.py --updates {updates} --seed {seed}")
        return policy, cloner.least, time.process_time() - start
    return policy, BundlePolicy(policy).spec["selection"]["loss"], float("nan")


def figures(results: Results, dataset) -> dict:
    """Score and success of an evaluation, with intervals."""
    n, scores = len(results.returns), datasets.normalised(dataset, results.returns)
    k = int(results.success.sum())
    return {"return": float(results.returns.mean()), "score": float(scores.mean()), "interval": list(mean_interval(scores)),
            "success": k / n, "success_interval": wilson(k, n)}  # fmt: skip


def compare(env_id: str, episodes: int, updates: int, seed: int, out: Path) -> dict[str, dict]:
    """Agent -> figures of one environment: everyone who is in the data sets, the oracle, and a clone of each data set."""
    kinds, found, scores = datasets.SETS[env_id], {}, None
    for kind, agent in kinds.items():
        dataset = recorded(env_id, agent, episodes, out, scores)
        scores = tuple(dataset.storage.metadata[name] for name in ("ref_min_score", "ref_max_score"))
        about = {"data": kind, "episodes": len(dataset), "steps": int(dataset.total_steps), "megabytes": float(dataset.storage.metadata["dataset_size"])}
        found[agent] = figures(evaluate(make_agent(agent, env_id), env_id, SCENARIO, episodes), dataset) | about
        policy, loss, seconds = cloned(dataset, out / "clones" / dataset.id / f"{updates}-{seed}", updates, seed)
        found[f"clone of {agent}"] = figures(evaluate(BundlePolicy(policy), env_id, SCENARIO, episodes), dataset) | {"loss": loss, "seconds": seconds}
    found["oracle"] = figures(evaluate(make_agent("oracle", env_id), env_id, SCENARIO, episodes), dataset)
    return found


def main() -> None:
    """Print a table for each environment and one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--envs", nargs="*", default=list(datasets.SETS), choices=list(datasets.SETS))
    parser.add_argument("--episodes", type=int, default=200)
    parser.add_argument("--updates", type=int, default=UPDATES)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("runs/data"))
    options = parser.parse_args()
    results = {}
    for env_id in options.envs:
        results[env_id] = compare(env_id, options.episodes, options.updates, options.seed, options.out)
        rows = []
        for name, r in results[env_id].items():
            told = f"{r['steps']:,} steps, {r['megabytes']:.1f} MB" if "steps" in r else f"held-out loss {r['loss']:.3f}" if "loss" in r else ""
            told += f", {r['seconds']:.0f} s of one processor" if r.get("seconds", np.nan) == r.get("seconds") else ""
            low, high = r["success_interval"]
            rows.append((name, f"{r['return']:.3f}", f"{r['score']:.2f}", "{:.2f} to {:.2f}".format(*r["interval"]), f"{r['success']:.1%}", f"{100 * low:.0f}-{100 * high:.0f}", told))
        table(f"{env_id}, {SCENARIO}, {options.episodes} episodes from seed {EVALUATION_SEED}; clones: {options.updates} updates of 128 steps", ("agent", "return", "score", "95 %", "success", "95 %", ""), rows)
    json_line("offline", updates=options.updates, seed=options.seed, results=results)


if __name__ == "__main__":
    main()
