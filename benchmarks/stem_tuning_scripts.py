"""Tune the Ronchigram baseline of StemTuning on the training scenario and training seeds; prints the grid and the choice.

The choice is the highest success rate, and among equals the fewest frames. The HAADF scripts are tuned by benchmarks/baselines.py.
"""

from __future__ import annotations

import argparse
import itertools

from report import json_line
from rich.console import Console
from rich.table import Table

from probegym.agents.baselines_ronchigram import RonchigramSegments
from probegym.agents.evaluate import evaluate

TRAINING_SEED = 5_200_000
GRID = [{"threshold": threshold, "slip": slip} for threshold, slip in itertools.product((0.06, 0.1), (0.35, 0.5, 0.8))]


def main() -> None:
    """Print a table and one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--episodes", type=int, default=128)
    episodes, console, scored = parser.parse_args().episodes, Console(width=120), []
    table = Table("threshold, rad^2", "slip", "success", "frames", "median Strehl", title=f"train, {episodes} episodes, 40 frames at most")
    for settings in GRID:
        summary = evaluate(RonchigramSegments(**settings), "probegym/StemTuning-v0", "train", episodes, TRAINING_SEED).summary()
        scored.append(((summary["success"], -summary["measurements_mean"]), settings))
        figures = (f"{summary['success']:.3f}", f"{summary['measurements_mean']:.1f}", f"{summary['strehl_median']:.3f}")
        table.add_row(f"{settings['threshold']:g}", f"{settings['slip']:g}", *figures)
    (success, frames), settings = max(scored, key=lambda row: row[0])
    console.print(table)
    json_line("stem_tuning_scripts", episodes=episodes, seed=TRAINING_SEED, chosen=settings, success=success, frames=-frames)


if __name__ == "__main__":
    main()
