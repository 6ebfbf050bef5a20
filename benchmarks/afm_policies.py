"""The tables of AfmTuning-v0: policy, scripts and oracle on every scenario, at equal frame time, on unseen seeds.

The policy plays first; scripts then hold the line rate that gives the same mean frame time. Errors are rms height errors of a
frame (its lines after the first eight), geometric means over episodes; ratios are paired on seeds, script over policy, with 95 %
bootstrap intervals: above 1 the policy is better.
"""

from __future__ import annotations

import argparse

import numpy as np
from report import json_line, table

from probegym import scenarios
from probegym.agents.baselines_afm import FixedSettings, RampUntilRinging, RelayAutotune, fixed_settings
from probegym.agents.bundle import BundlePolicy
from probegym.agents.evaluate import EVALUATION_SEED, Results, evaluate
from probegym.agents.registry import make_agent
from probegym.agents.statistics import mean_interval

ENV_ID, FAMILY, POLICY = "probegym/AfmTuning-v0", "afm_tuning", "afm-tuning"
SCRIPTS = {"fixed-pi": FixedSettings, "fixed-settings": fixed_settings, "relay-autotune": RelayAutotune, "ramp-until-ringing": RampUntilRinging}


def error(results: Results) -> np.ndarray:
    """Rms height error of every episode, nm."""
    return 1e9 * results.metrics["height_error"]


def ratio(script: Results, policy: Results) -> tuple[float, float, float]:
    """Geometric mean of script over policy with its interval."""
    gap = np.log(error(script) / error(policy))
    return tuple(float(np.exp(v)) for v in (gap.mean(), *mean_interval(gap)))


def play(scenario: str, episodes: int) -> dict[str, dict]:
    """Agent -> figures of one scenario."""
    lines = scenarios.load(FAMILY, scenario).task.get("lines", 32)
    policy = evaluate(make_agent(POLICY, ENV_ID), ENV_ID, scenario, episodes)
    rate = float(lines / policy.costs["time"][policy.metrics["crashed"] == 0].mean())
    runs = {POLICY: policy}
    for name, make in SCRIPTS.items():
        agent = make(line_rate=rate)
        runs[name] = evaluate(agent, ENV_ID, scenario, episodes)
    runs["oracle"] = evaluate(make_agent("oracle", ENV_ID), ENV_ID, scenario, episodes)
    out = {}
    for name, results in runs.items():
        out[name] = {
            "height_error_nm": float(np.exp(np.log(error(results)).mean())), "crashes": int(results.metrics["crashed"].sum()),
            "success": float(results.success.mean()), "damage": float(results.costs["damage"].mean()), "line_rate": rate,
            "seconds": float(results.costs["time"].mean()), "ratio": ratio(results, policy),
        }  # fmt: skip
    return out


def main() -> None:
    """Print the tables and one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--episodes", type=int, default=200)
    parser.add_argument("--scenarios", nargs="+", help="only these")
    parser.add_argument("--crash-episodes", type=int, default=1000)
    arguments = parser.parse_args()
    names = arguments.scenarios or [name for name in scenarios.names(FAMILY) if scenarios.load(FAMILY, name).split != "train"]
    results = {}
    for scenario in names:
        results[scenario] = play(scenario, arguments.episodes)
        rows = [
            (name, f"{r['height_error_nm']:.3f}", "{:.2f} ({:.2f}-{:.2f})".format(*r["ratio"]), r["crashes"], f"{r['success']:.1%}", r["damage"], r["seconds"])
            for name, r in results[scenario].items()
        ]
        rate = results[scenario][POLICY]["line_rate"]
        header = ("agent", "height error nm", "over the policy's", "crashes", "success", "events", "seconds")
        table(f"AfmTuning-v0, {scenario}, {rate:.1f} Hz, {arguments.episodes} seeds from {EVALUATION_SEED}", header, rows)
    crashes = int(evaluate(make_agent(POLICY, ENV_ID), ENV_ID, "id", arguments.crash_episodes).metrics["crashed"].sum())
    print(f"{POLICY} on id: {crashes} crashes in {arguments.crash_episodes} episodes")
    json_line("afm_policies", policy=BundlePolicy(POLICY).spec["sha256"], results=results, crashes=crashes, crash_episodes=arguments.crash_episodes)


if __name__ == "__main__":
    main()
