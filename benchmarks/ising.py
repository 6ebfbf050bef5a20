"""IsingInference without its policy: spin updates and environment steps a second, the fast dynamics beside exact results, the belief's calibration.

``--tune`` tries constants of the rules on training seeds instead; ``--overlap`` shows what images of atoms that hardly moved are worth;
``--calibration`` prints that table alone.
"""

from __future__ import annotations

import argparse
import time
from itertools import pairwise

import gymnasium as gym
import numpy as np
from report import json_line, table

import probegym  # noqa: F401  registers the environments
from probegym import scenarios
from probegym.agents import baselines_ising as rules
from probegym.agents.base import Agent, RandomAgent
from probegym.agents.evaluate import EVALUATION_SEED, evaluate
from probegym.agents.seeds import SCRIPTS_SEED
from probegym.hardware_bridge.commands import ClassifyAtoms, SetConditions
from probegym.hardware_bridge.twins.ising import BOLTZMANN, IsingTwin
from probegym.physics import ising, ising_exact, randomness
from probegym.physics.threads import available_threads
from probegym.surrogates import spins

ENV_ID = "probegym/IsingInference-v0"
CALIBRATION = "Squared error of J over believed variance after 90 minutes"


def spin_speed(rule: str, threads: int, diagonal: float = 0.0, lanes: int = 64, sweeps: int = 200) -> tuple[float, float]:
    """Updates a second of lattices of 64 x 64 near the critical temperature, by the clock and by the processor's time."""
    lattice = ising.random_spins(np.arange(lanes, dtype=np.uint64), 64, 64, np.zeros(lanes))
    ising.evolve(lattice, 1, np.arange(lanes), 0.44, diagonal=diagonal, rule=rule)
    wall, own = time.perf_counter(), time.process_time()
    ising.evolve(lattice, sweeps, np.arange(lanes), 0.44, diagonal=diagonal, rule=rule, threads=threads)
    return lattice.size * sweeps / (time.perf_counter() - wall), lattice.size * sweeps / (time.process_time() - own)


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
    for rule in ("heat-bath", "metropolis"):
        for size, temperature, lanes in ((8, 2.5, 16384), (32, 2.0, 64)):
            lattice, lane_keys = np.ones((lanes, size, size), np.int8), np.arange(lanes, dtype=np.uint64)
            u, m = [], []
            for turn in range(40):
                keys = randomness.subkey(lane_keys, turn, rule)
                ising.evolve(lattice, 25 if turn else 400, keys, 1 / temperature, rule=rule)
                u.append(-ising.energy(lattice))
                m.append(np.abs(ising.magnetisation(lattice)))
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


class InTurn(Agent):
    """The same actions in turn, whatever is seen."""

    def __init__(self, *actions: tuple[int, ...]):
        self.actions = actions

    def begin(self, lanes, seed):
        self.step = 0

    def act(self, observation, episodes):
        self.step += 1
        return np.tile(self.actions[(self.step - 1) % len(self.actions)], (len(observation["budget"]), 1))


PATTERNS = {  # temperature, field, hold, dwell time, region
    "580 K, +-10 meV in turn, 20 s, 5 ms": InTurn((3, 0, 1, 0, 0), (3, 4, 1, 0, 0)),
    "580 K, +-10 meV in turn, 320 s, 5 ms": InTurn((3, 0, 3, 0, 0), (3, 4, 3, 0, 0)),
    "580 K, +-10 meV in turn, 20 s, 80 ms": InTurn((3, 0, 1, 2, 0), (3, 4, 1, 2, 0)),
    "580 K, all fields in turn, 320 s, 20 ms": InTurn(*((3, f, 3, 1, 0) for f in range(5))),
    "670 K, +-10 meV in turn, 80 s, 20 ms": InTurn((4, 0, 2, 1, 0), (4, 4, 2, 1, 0)),
    "670 K, quarters in turn, 20 s, 5 ms": InTurn(*((4, 2, 1, 0, quarter) for quarter in range(1, 5))),
    "670 K, quarters in turn, 20 s, 80 ms": InTurn(*((4, 2, 1, 2, quarter) for quarter in range(1, 5))),
    "900 K, no field, 80 s, 20 ms": InTurn((6, 2, 2, 1, 0)),
    "900 K, no field, 80 s, 80 ms": InTurn((6, 2, 2, 2, 0)),
    "900 K, all fields in turn, 20 s, 80 ms": InTurn(*((6, f, 1, 2, 0) for f in range(5))),
}


def calibration(episodes: int, seed: int) -> list[tuple[str, str, float, float, float, float]]:
    """Squared error of J over its believed variance at the end of episodes: mean with its standard error, median (1 and 0.45 were the belief
    exact), and the mean relative error of J in percent.
    """
    rows = []
    agents = {"uniform": rules.UniformSweep(), "fisher": rules.MaximumFisher(), "patient": rules.MaximumFisherPatient(), "repeat one quarter": InTurn((0, 0, 0, 0, 1)),
              "random": RandomAgent(), "random, whole": WholeImages()} | PATTERNS  # fmt: skip
    for scenario in ("known", "id"):
        for name, agent in agents.items():
            m = evaluate(agent, ENV_ID, scenario, episodes, seed).metrics
            surprise = m["surprise"]
            rows.append((scenario, name, float(surprise.mean()), float(surprise.std() / np.sqrt(episodes)), float(np.median(surprise)), float(100 * m["error"].mean())))
    return rows


def overlaps(lanes: int = 128, cycles: int = 14) -> None:
    """Print how far single images mislead, by the overlap with the state before; random anneals, a classifier as told."""
    world, on = scenarios.load("ising_inference", "known").world, np.ones(lanes, bool)
    twin, rng, s = IsingTwin(world, lanes), np.random.default_rng(0), gym.make(ENV_ID, scenario="known").unwrapped.episodes.task.settings
    twin.begin(np.arange(lanes, dtype=np.uint64) + np.uint64(77), on)
    each, before, found = np.arange(lanes), np.zeros((lanes, s.rows, s.rows)), []
    prior, x = np.diag([*s.prior.deviation()[:2] ** -2, 1e6]), np.full(lanes, s.separation * np.sqrt(s.dwells[1]))
    error = spins.mislabelled(x)[0]
    for _ in range(cycles):
        temperature, field, hold = (rng.choice(values, lanes) for values in (s.temperatures, s.fields, s.holds))
        twin.execute(SetConditions(temperature, field, hold), on)
        twin.execute(SetConditions(np.full(lanes, s.cold), 0 * field, 0 * hold), on)
        look = ClassifyAtoms(s.detector, (s.rows, s.rows), np.full((lanes, 2), 0.5 * s.rows * s.spacing), np.full(lanes, s.dwells[1]))
        labels = twin.execute(look, on).values["labels"]
        counts = spins.cells(labels, np.zeros(labels.shape, int), 1)[:, 0]
        seen, start = counts.sum(1).astype(float), np.tile(s.prior.mean(), (lanes, 1))
        theta, _, told, score, _ = spins.fit(start, spins.first_shares(seen), seen, each, 1 / (BOLTZMANN * temperature), field, x, each * 0 + 1, s.prior.mean(), prior, each * 0 + 12)
        spread = spins.covariance(prior, told, np.matmul(counts.astype(float), score), counts.sum(2).astype(float), each)[:, 0, 0]
        if before.any():
            found.append((spins.overlap(before, labels, error, error)[0], (theta[:, 0] - twin.state["coupling"]) ** 2 / spread))
        before = labels
    overlap, surprise = np.concatenate(found, 1)
    edges = [-1, 0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.7, 0.9, 1.01]
    within = [(a, min(b, 1), (overlap >= a) & (overlap < b)) for a, b in pairwise(edges)]
    rows = [(f"{a:g} to {b:g}", int(part.sum()), float(surprise[part].mean()), float(np.median(surprise[part]))) for a, b, part in within if part.any()]
    table("Single images: squared error of J over variance", ("overlap with the state before", "images", "mean", "median"), rows)
    json_line("ising_overlap", rows=rows)


def tune(episodes: int) -> None:
    """Print what constants of the rules give on training seeds."""
    tried = [(kind, (hold, dwell)) for kind in ("uniform",) for hold in (1, 2) for dwell in (0, 1, 2)]
    tried += [(kind, (hold,)) for kind in ("fisher", "doubting", "thompson") for hold in (0, 1, 2)]
    tried += [("patient", (rate,)) for rate in (0.3, 1.0, 3.0)]
    kinds = {"uniform": rules.UniformSweep, "fisher": rules.MaximumFisher, "doubting": rules.MaximumFisherDoubting, "thompson": rules.Thompson,
             "patient": rules.MaximumFisherPatient}  # fmt: skip
    rows = []
    for kind, constants in tried:
        errors = [evaluate(kinds[kind](*constants), ENV_ID, name, episodes, SCRIPTS_SEED).metrics["error"] for name in ("train", "train-known")]
        rows.append((kind, str(constants), *(float(100 * e.mean()) for e in errors)))
    table(f"Constants on {episodes} training specimens", ("rule", "constants", "error of J, %, train", "train-known"), rows)
    json_line("ising_tuning", episodes=episodes, seed=SCRIPTS_SEED, tried=rows)


def main() -> None:
    """Print the tables and one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tune", action="store_true")
    parser.add_argument("--episodes", type=int, default=96)
    parser.add_argument("--overlap", action="store_true")
    parser.add_argument("--calibration", action="store_true")
    parser.add_argument("--seed", type=int, default=EVALUATION_SEED, help="of the first episode")
    options = parser.parse_args()
    head = ("scenario", "agent", "mean", "+-", "median", "error %")
    if options.tune or options.overlap:
        overlaps() if options.overlap else tune(options.episodes)
        return
    calibrated = calibration(options.episodes, options.seed)
    if options.calibration:
        table(CALIBRATION, head, calibrated)
        json_line("ising", seed=options.seed, calibration=calibrated)
        return
    cases = [("heat-bath", 0.0), ("metropolis", 0.0), ("heat-bath", 0.1), ("kawasaki", 0.0)]
    speeds = [(f"{rule}{', diagonal neighbours' if d else ''}", threads, *spin_speed(rule, threads, d, sweeps=200 if not d and rule != "kawasaki" else 10))
              for rule, d in cases for threads in sorted({1, available_threads()})]  # fmt: skip
    table("Spin updates a second, 64 lattices of 64 x 64", ("dynamics", "threads", "by the clock", "a second of processor time"), [(n, t, f"{a:.3g}", f"{b:.3g}") for n, t, a, b in speeds])
    steps = [(lanes, *step_speed(lanes, count)) for lanes, count in ((1, 200), (64, 12))]
    table("Environment steps a second, random anneals", ("lanes", "by the clock", "a second of processor time"), steps)
    exact = beside_exact()
    table("Beside exact results", ("", "found", "noise", "exact"), [(name, *(f"{v:.4f}" for v in values)) for name, *values in exact])
    table(CALIBRATION, head, calibrated)
    json_line("ising", spins=speeds, steps=steps, exact=exact, calibration=calibrated)


if __name__ == "__main__":
    main()
