"""IsingInference without its policy: spin updates and environment steps a second, the fast dynamics beside exact results, the belief's calibration.

``--tune`` tries constants of the rules on training seeds instead.
"""

from __future__ import annotations

import argparse
import time

import gymnasium as gym
import numpy as np
from report import json_line, table

import probegym  # noqa: F401  registers the environments
from probegym.agents import baselines_ising as rules
from probegym.agents.base import RandomAgent
from probegym.agents.evaluate import evaluate
from probegym.physics import ising, ising_exact
from probegym.physics.threads import available_threads

ENV_ID = "probegym/IsingInference-v0"
TUNING_SEED = 9_200_000  # of the training scenario, away from those of training, of choosing and of evaluation


def spin_speed(rule: str, threads: int, diagonal: float = 0.0, lanes: int = 64, sweeps: int = 200) -> tuple[float, float]:
    """Updates a second of lattices of 64 x 64 near the critical temperature, by the clock and by the processor's time."""
    spins = ising.random_spins(np.arange(lanes, dtype=np.uint64), 64, 64, np.zeros(lanes))
    ising.evolve(spins, 1, np.arange(lanes), 0.44, diagonal=diagonal, rule=rule)
    wall, own = time.perf_counter(), time.process_time()
    ising.evolve(spins, sweeps, np.arange(lanes), 0.44, diagonal=diagonal, rule=rule, threads=threads)
    return spins.size * sweeps / (time.perf_counter() - wall), spins.size * sweeps / (time.process_time() - own)


def step_speed(lanes: int, steps: int) -> tuple[float, float]:
    """Environment steps a second with random anneals of the whole lattice, resets left out, by the clock and by the processor's time."""
    envs = gym.make_vec(ENV_ID, num_envs=lanes, autoreset_mode="Disabled")
    envs.reset(seed=0)
    rng = np.random.default_rng(0)
    wall = own = 0.0
    done = np.zeros(lanes, bool)
    for _ in range(steps):
        if done.any():
            envs.reset(options={"reset_mask": done})
        action = np.stack([rng.integers(0, n, lanes) for n in envs.single_action_space.nvec], 1)
        action[:, 2], action[:, 4] = np.maximum(action[:, 2], 1), 0
        start, begun = time.perf_counter(), time.process_time()
        _, _, terminated, truncated, _ = envs.step(action)
        wall, own = wall + time.perf_counter() - start, own + time.process_time() - begun
        done = terminated | truncated
    return lanes * steps / wall, lanes * steps / own


def beside_exact() -> list[tuple[str, float, float, float]]:
    """Energy and order of the dynamics with their noise, and what they should be: 8 x 8 by transfer matrix, 32 x 32 below T_c by Onsager."""
    rows = []
    for number, rule in enumerate(("heat-bath", "metropolis")):
        for size, temperature, lanes in ((8, 2.5, 4096), (32, 2.0, 64)):
            spins, keys = np.ones((lanes, size, size), np.int8), np.arange(lanes, dtype=np.uint64) + np.uint64(10**9 * (number + 1))
            ising.evolve(spins, 400, keys, 1 / temperature, rule=rule)
            u, m = [], []
            for turn in range(40):
                ising.evolve(spins, 25, keys + np.uint64(10_000 * (turn + 1)), 1 / temperature, rule=rule)
                u.append(-ising.energy(spins))
                m.append(np.abs(ising.magnetisation(spins)))
            exact = ising_exact.torus_energy(8, 8, temperature) if size == 8 else float(ising_exact.energy(temperature))
            found = {"energy": (u, exact)} | ({"|m|": (m, float(ising_exact.magnetisation(temperature)))} if size == 32 else {})
            for name, (values, expected) in found.items():
                lane = np.mean(values, 0)
                rows.append((f"{rule} {size} x {size}, T = {temperature}: {name}", float(lane.mean()), float(lane.std() / np.sqrt(lanes)), expected))
    return rows


class WholeImages(RandomAgent):
    """Random cycles that image the whole lattice."""

    def act(self, observation, episodes):
        action = super().act(observation, episodes)
        action[:, 2], action[:, 4] = np.maximum(action[:, 2], 1), 0
        return action


def calibration(episodes: int) -> list[tuple[str, str, float, float]]:
    """Squared error of J over its believed variance at the end of episodes: mean and median (1 and 0.45 were the belief exact)."""
    rows = []
    for scenario in ("known", "id"):
        for name, agent in {"random, whole": WholeImages(), "random": RandomAgent(), "uniform": rules.UniformSweep(), "patient": rules.MaximumFisherPatient()}.items():
            surprise = evaluate(agent, ENV_ID, scenario, episodes, TUNING_SEED).metrics["surprise"]
            rows.append((scenario, name, float(surprise.mean()), float(np.median(surprise))))
    return rows


def tune(episodes: int) -> None:
    """Print what constants of the rules give on training seeds."""
    tried = [(kind, (hold, dwell)) for kind in ("uniform",) for hold in (1, 2) for dwell in (0, 1, 2)]
    tried += [(kind, (hold,)) for kind in ("fisher", "doubting", "thompson") for hold in (0, 1, 2)]
    tried += [("patient", (rate,)) for rate in (0.3, 1.0, 3.0)]
    kinds = {"uniform": rules.UniformSweep, "fisher": rules.MaximumFisher, "doubting": rules.MaximumFisherDoubting, "thompson": rules.Thompson,
             "patient": rules.MaximumFisherPatient}  # fmt: skip
    rows = []
    for kind, constants in tried:
        errors = [evaluate(kinds[kind](*constants), ENV_ID, name, episodes, TUNING_SEED).metrics["error"] for name in ("train", "train-known")]
        rows.append((kind, str(constants), *(float(100 * e.mean()) for e in errors)))
    table(f"Constants on {episodes} training specimens", ("rule", "constants", "error of J, %, train", "train-known"), rows)


def main() -> None:
    """Print the tables and one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tune", action="store_true")
    parser.add_argument("--episodes", type=int, default=96)
    options = parser.parse_args()
    if options.tune:
        tune(options.episodes)
        return
    cases = [("heat-bath", 0.0), ("metropolis", 0.0), ("heat-bath", 0.1), ("kawasaki", 0.0)]
    speeds = [(f"{rule}{', diagonal neighbours' if d else ''}", threads, *spin_speed(rule, threads, d, sweeps=200 if not d and rule != "kawasaki" else 10))
              for rule, d in cases for threads in sorted({1, available_threads()})]  # fmt: skip
    table("Spin updates a second, 64 lattices of 64 x 64", ("dynamics", "threads", "by the clock", "a second of processor time"), [(n, t, f"{a:.3g}", f"{b:.3g}") for n, t, a, b in speeds])
    steps = [(lanes, *step_speed(lanes, count)) for lanes, count in ((1, 200), (64, 12))]
    table("Environment steps a second, random anneals", ("lanes", "by the clock", "a second of processor time"), steps)
    exact = beside_exact()
    table("Beside exact results", ("", "found", "noise", "exact"), [(name, *(f"{v:.4f}" for v in values)) for name, *values in exact])
    calibrated = calibration(options.episodes)
    table("Squared error of J over believed variance", ("scenario", "agent", "mean", "median"), calibrated)
    json_line("ising", spins=speeds, steps=steps, exact=exact, calibration=calibrated)


if __name__ == "__main__":
    main()
