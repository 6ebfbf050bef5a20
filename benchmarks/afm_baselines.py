"""Tune the scripted baselines of AfmTuning on training seeds; prints the grids and the choices.

Score: geometric mean of the rms height error over the episodes at the scenario's line rate. Chosen is the lowest score among those
without a crash. Budget: the episodes given here for every row, 25 rows for the fixed PI, and as many as are printed for the others.
"""

from __future__ import annotations

import argparse
import itertools

import numpy as np
from report import json_line, table

from probegym.agents.baselines_afm import DRIVE, SETPOINT, FixedSettings, RampUntilRinging, RelayAutotune
from probegym.agents.evaluate import evaluate

ENV_ID, TRAINING_SEED = "probegym/AfmTuning-v0", 5_000_000
PLACES = [{"setpoint": SETPOINT, "drive": DRIVE}, {"setpoint": 0.7, "drive": 15e-9}, {"setpoint": 0.55, "drive": 11e-9}]


def grids(searched: int) -> dict[str, list]:
    """Name -> (class, settings) of every row."""
    rng = np.random.default_rng(0)
    drawn = [
        {
            "proportional": float(np.exp(rng.uniform(np.log(0.01), np.log(0.8)))), "integral": float(np.exp(rng.uniform(np.log(300), np.log(3000)))),
            "setpoint": float(rng.uniform(0.5, 0.9)), "drive": float(np.exp(rng.uniform(np.log(10e-9), np.log(30e-9)))),
            "feed_forward": float(rng.choice([0.0, rng.uniform(0.2, 1)])),
        }
        for _ in range(searched)
    ]  # fmt: skip
    gains = itertools.product((0.01, 0.1, 0.2, 0.4, 0.7), (300.0, 600.0, 1000.0, 1500.0, 2500.0))
    ramps = itertools.product((1.8, 2.5), (1.05, 1.1), (2e-5, 5e-5), PLACES)
    relays = itertools.product((1e-9, 2e-9), (1.0, 1.5, 2.5, 4.0), PLACES)
    return {
        "fixed-pi": [(FixedSettings, {"proportional": p, "integral": i}) for p, i in gains],
        "fixed-settings": [(FixedSettings, settings) for settings in drawn],
        "relay-autotune": [(RelayAutotune, {"relay": r, "factor": c, **where}) for r, c, where in relays],
        "ramp-until-ringing": [(RampUntilRinging, {"factor": f, "ringing": r, "share": s, **where}) for f, r, s, where in ramps],
    }


def main() -> None:
    """Print a table and one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--episodes", type=int, default=96)
    parser.add_argument("--searched", type=int, default=60, help="rows of the search over all settings")
    parser.add_argument("--scripts", nargs="+", help="only these")
    arguments = parser.parse_args()
    chosen = {}
    for name, rows in grids(arguments.searched).items():
        if arguments.scripts and name not in arguments.scripts:
            continue
        scored = []
        for make, settings in rows:
            results = evaluate(make(**settings), ENV_ID, "train", arguments.episodes, TRAINING_SEED)
            error, crashes = 1e9 * results.metrics["height_error"], int(results.metrics["crashed"].sum())
            scored.append((crashes, float(np.exp(np.log(error).mean())), settings))
        scored.sort(key=lambda row: row[:2])
        chosen[name] = scored[0]
        shown = [(e, c, ", ".join(f"{k} {v:.3g}" for k, v in s.items())) for c, e, s in scored[:6]]
        table(f"{name}: best 6 of {len(rows)}, {arguments.episodes} episodes of train each", ("height error nm", "crashes", "settings"), shown)
    json_line("afm_baselines", chosen={name: {"crashes": c, "height_error_nm": e, "settings": s} for name, (c, e, s) in chosen.items()})


if __name__ == "__main__":
    main()
