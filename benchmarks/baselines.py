"""Tune the scripted baselines of StemTuning on training particles and training seeds; prints the grid and the choice.

The choice is the highest success rate, and among equals the fewest images.

Budget: the episodes given here, for every row. BEACON is run as published and not tuned.
"""

from __future__ import annotations

import argparse
import itertools

from report import json_line
from rich.console import Console
from rich.table import Table

from probegym import scenarios
from probegym.agents.baselines_stem import CoordinateDescent, NelderMead
from probegym.agents.evaluate import evaluate

TRAINING_SEED = 5_000_000
GRID = {
    "coordinate-descent": [
        (CoordinateDescent, {"points": points, "rounds": rounds, "width": width})
        for points, rounds, width in [*itertools.product((3, 5, 7), (2, 3), (0.7, 1.0)), (5, 4, 1.0)]
    ],
    "nelder-mead": [
        (NelderMead, {"simplex": simplex, "tolerance": tolerance}) for simplex, tolerance in itertools.product((0.4, 0.7, 1.0), (0.02, 0.08))
    ],
}


def main() -> None:
    """Print a table and one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--episodes", type=int, default=24)
    episodes, console, chosen = parser.parse_args().episodes, Console(width=120), {}
    images = scenarios.load("stem_tuning", "beacon-train").budget.limits()["measurements"]
    table = Table("script", "settings", "success", "images", "median Strehl", title=f"beacon-train, {episodes} episodes, {images:g} images at most")
    for name, rows in GRID.items():
        scored = []
        for make, settings in rows:
            summary = evaluate(make(**settings), "probegym/StemTuning-v0", "beacon-train", episodes, TRAINING_SEED).summary()
            scored.append(((summary["success"], -summary["measurements_mean"]), settings))
            figures = (f"{summary['success']:.2f}", f"{summary['measurements_mean']:.0f}", f"{summary['strehl_median']:.3f}")
            table.add_row(name, str(settings), *figures)
        best = max(scored, key=lambda row: row[0])
        chosen[name] = {"settings": best[1], "success": best[0][0], "images": -best[0][1]}
    console.print(table)
    json_line("baselines", episodes=episodes, seed=TRAINING_SEED, chosen=chosen)


if __name__ == "__main__":
    main()
