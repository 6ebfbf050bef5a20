"""Five trainings of every shipped policy: their curves, how far seeds differ, and which of them ships.

``--train`` trains what is not there yet, with two workers (hours; goes on where it was stopped). What ships and every training that is
finished then play the same episodes of the training scenario, seeds from 9,600,000, which no training has seen and no figure of a page is of.
The rule: what ships stays, unless a seed's return is higher beyond chance (the 95 % interval of the paired differences to what ships, Bonferroni's
for five comparisons, lies above zero); then the best of these ships. (A training is the same to the bit on one processor only.) Writes docs/results/five_seeds.json, where trainings that are not in
RUNS keep what was measured of them before, docs/images/learning_curves.png of all in it, and RUNS/submission of the policies of which all five
are in RUNS, with which ``probegym benchmark --submission`` plays each training in a run of its own. RUNS/played keeps what was played, and the same
command goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import yaml
from report import json_line, table

from probegym.agents.benchmark.results import code
from probegym.agents.benchmark.submission import bundle_digest
from probegym.agents.bundle import find
from probegym.agents.evaluate import evaluate
from probegym.agents.files import write_bytes
from probegym.agents.registry import make_agent
from probegym.agents.seeds import REPETITION_SEED
from probegym.agents.statistics import mean_interval

TRAININGS = {
    "stem-tuning-ronchigram": ("StemTuning", "--updates", "4000"),
    "afm-tuning": ("AfmTuning", "--updates", "9600"),
    "tip-conditioning": ("TipConditioning", "--updates", "5000"),
    "level-selection": ("LevelSelection", "--updates", "160"),
    "spectrum-exploration": ("SpectrumExploration", "--updates", "160"),
    "beam-manipulation": ("BeamManipulation", "--updates", "20"),
    "adatom-manipulation": ("AdatomManipulation", "--algorithm", "sac", "--steps", "48000"),
    "ising-inference": ("IsingInference", "--updates", "80"),
}
"""Shipped policy -> what ``probegym train`` is told: the command of what ships, but for TipConditioning, SpectrumExploration and BeamManipulation,
which ship after 10,000, 800 and 120 updates; those beyond these brought a first training nothing."""
TRAINED_ON = {
    "level-selection": ["train", "train-known"],
    "spectrum-exploration": ["train", "train-doped", "train-defects", "train-switch", "train-films"],
    "ising-inference": ["train", "train-known"],
}
"""Scenarios of the trainers that take more than ``train``."""
SEEDS = 5
DOCS = Path(__file__).parent.parent / "docs"
KEPT = DOCS / "results/five_seeds.json"


def train(runs: Path, names: list[str], workers: int) -> None:
    """Train, or go on."""
    for name in names:
        out = runs / name
        resume = ["--resume"] if any(out.glob("seed-*/training.json")) else []
        told = [*TRAININGS[name], "--scenario", "train", "--seeds", str(SEEDS), "--workers", str(workers), "--out", str(out), *resume]
        subprocess.run([sys.executable, "-m", "probegym", "train", *told], check=True)


def measured(runs: Path, name: str, episodes: int) -> dict[int, dict[str, Any]]:
    """Of every finished training what its diary says, its scores, and the interval of its return less that of what ships, episode by episode."""
    env_id, rows = f"probegym/{TRAININGS[name][0]}-v0", {}
    finished = {seed: folder for seed in range(1, SEEDS + 1) if (folder := runs / name / f"seed-{seed}").joinpath("policy/policy.json").exists()}
    if finished:
        ships, _ = played(runs, find(name), env_id, episodes)
    for seed, folder in finished.items():
        diary = json.loads((folder / "training.json").read_text())
        returns, success = played(runs, folder / "policy", env_id, episodes)
        rows[seed] = {"curve": diary["curve"], "episodes": episodes, "return": float(returns.mean()), "success": float(success.mean()),
                      "ahead": mean_interval(returns - ships, 1 - 0.05 / SEEDS), "sha256": digest(folder / "policy")}  # fmt: skip
    return rows


def played(runs: Path, policy: Path, env_id: str, episodes: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns and successes (episodes,) of a policy, from the file of an earlier call with the same bundle and package where there is one."""
    path = runs / "played" / f"{bundle_digest(policy)[:16]}-{code()[:16]}-{episodes}.json"
    if not path.exists():
        results = evaluate(make_agent(str(policy), env_id), env_id, "train", episodes, REPETITION_SEED)
        write_bytes(path, json.dumps([results.returns.tolist(), results.success.tolist()]).encode())
    returns, success = json.loads(path.read_text())
    return np.array(returns), np.array(success)


def digest(folder: Path) -> str:
    """The checksum of a policy's graph."""
    return json.loads((folder / "policy.json").read_text())["sha256"]


def chosen(name: str, rows: dict[int, dict[str, Any]]) -> str:
    """What is to ship: the best of those that are better beyond chance than what does, which may be one of them."""
    better = [seed for seed, row in rows.items() if row["ahead"][0] > 0]
    if better:
        return f"seed {max(better, key=lambda seed: rows[seed]['return'])}, not yet"
    return next((f"seed {seed}" for seed, row in rows.items() if row["sha256"] == digest(find(name))), "an earlier one")


def line(name: str, rows: dict[int, dict[str, Any]]) -> tuple:
    """A policy's row of the table."""
    returns = np.array([row["return"] for row in rows.values()])
    spread = f"{returns.std(ddof=1):.3f}" if len(returns) > 1 else "-"
    return (name, " ".join(f"{seed}: {row['return']:.3f}" for seed, row in rows.items()), f"{returns.mean():.3f} +- {spread}",
            " ".join(f"{row['success']:.1%}" for row in rows.values()), min(row["episodes"] for row in rows.values()), chosen(name, rows))  # fmt: skip


def draw(kept: dict[str, dict[int, dict[str, Any]]]) -> None:
    """Success on episodes of the training scenario over the training, a line a seed."""
    columns = min(4, len(kept))
    lines = -(-len(kept) // columns)
    figure, axes = plt.subplots(lines, columns, figsize=(3 * columns, 2.3 * lines), sharey=True, squeeze=False, layout="constrained")
    for axis in axes.flat[len(kept) :]:
        axis.set_axis_off()
    for axis, (name, rows) in zip(axes.flat, kept.items(), strict=False):
        for seed, row in rows.items():
            at, success = np.asarray([point for point in row["curve"] if point[1] is not None], float).reshape(-1, 2).T
            axis.plot(at, success, color=plt.get_cmap("viridis")(0.9 * (seed - 1) / (SEEDS - 1)), lw=1.2, label=f"seed {seed}")
        axis.set_title(TRAININGS[name][0], fontsize=9)
        axis.set(xlabel="steps" if "--steps" in TRAININGS[name] else "updates", ylim=(-0.03, 1.03))
        axis.grid(alpha=0.3)
    for axis in axes[:, 0]:
        axis.set_ylabel("success")
    axes[0, 0].legend(fontsize=6)
    figure.savefig(DOCS / "images/learning_curves.png", dpi=110)
    plt.close(figure)


def submit(runs: Path, names: list[str]) -> None:
    """The trainings as a submission, each played in a run of its own."""
    folder, policies = runs / "submission", {}
    for name in names:
        for seed in range(1, SEEDS + 1):
            shutil.copytree(runs / name / f"seed-{seed}/policy", folder / f"{name}-{seed}", dirs_exist_ok=True)
        policies[f"probegym/{TRAININGS[name][0]}-v0"] = {
            "folder": f"{name}-{{seed}}", "sha256": [bundle_digest(folder / f"{name}-{seed}") for seed in range(1, SEEDS + 1)], "trained_on": TRAINED_ON.get(name, ["train"]),
        }  # fmt: skip
    told = {"schema": "probegym-submission/1", "name": "five-seeds", "authors": ["ProbeGym"], "description": "Five trainings of every shipped policy.",
            "licence": "MIT", "policies": policies}  # fmt: skip
    write_bytes(folder / "manifest.yaml", yaml.safe_dump(told, sort_keys=False).encode())


def main() -> None:
    """Print the table and one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=Path, default=Path("runs/five-seeds"))
    parser.add_argument("--train", action="store_true", help="train what is not there yet")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--episodes", type=int, default=300)
    parser.add_argument("--policies", nargs="+", choices=TRAININGS, default=list(TRAININGS))
    arguments = parser.parse_args()
    if arguments.train:
        train(arguments.runs, arguments.policies, arguments.workers)
    now = {name: measured(arguments.runs, name, arguments.episodes) for name in arguments.policies}
    before = {name: {int(seed): row for seed, row in rows.items()} for name, rows in (json.loads(KEPT.read_text()) if KEPT.exists() else {}).items()}
    both = {name: before.get(name, {}) | now.get(name, {}) for name in TRAININGS}
    kept = {name: dict(sorted(rows.items())) for name, rows in both.items() if rows}
    table("Trainings on several seeds, measured on episodes of the training scenario",
          ("policy", "return by seed", "mean, deviation", "success", "episodes", "ships"), [line(name, rows) for name, rows in kept.items()])  # fmt: skip
    write_bytes(KEPT, (json.dumps(kept) + "\n").encode())
    draw(kept)
    if whole := [name for name, rows in now.items() if len(rows) == SEEDS]:
        submit(arguments.runs, whole)
    json_line("five_seeds", policies=now)


if __name__ == "__main__":
    main()
