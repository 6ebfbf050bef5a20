"""LevelSelection without its policy: speed, the belief beside GPyTorch, greedy beside the best sequence, constants of the rules.

``--tune`` tries constants of the rules on training seeds instead.
"""

from __future__ import annotations

import argparse
import itertools
import time
import warnings

import gymnasium as gym
import numpy as np
from report import json_line, table

import probegym  # noqa: F401  registers the environments
from probegym.agents import baselines_levels as rules
from probegym.agents.evaluate import evaluate
from probegym.agents.seeds import SCRIPTS_SEED
from probegym.envs.level_knowledge import FLAKES
from probegym.surrogates import belief

ENV_ID = "probegym/LevelSelection-v0"


def speed(lanes: int, steps: int, scenario: str) -> float:
    """Environment steps a second with random levels, resets left out; episodes that end are started again off the clock."""
    envs = gym.make_vec(ENV_ID, num_envs=lanes, scenario=scenario, autoreset_mode="Disabled")
    envs.reset(seed=0)
    actions = np.random.default_rng(0).integers(0, 3, (steps, lanes))
    spent, done = 0.0, np.zeros(lanes, bool)
    for action in actions:
        if done.any():
            envs.reset(options={"reset_mask": done})
        start = time.perf_counter()
        _, _, terminated, truncated, _ = envs.step(action)
        spent += time.perf_counter() - start
        done = terminated | truncated
    return lanes * steps / spent


def beside_gpytorch(repeats: int = 20) -> tuple[float, float, float]:
    """Seconds to learn one EDS tile and predict all flakes at all levels under 32 hypotheses, here and with GPyTorch; largest difference of means.

    GPyTorch gets all hypotheses as one batch of exact GPs on all maps so far (12 tiles of three flakes and eight spots).
    """
    import gpytorch
    import torch
    from linear_operator.operators import DenseLinearOperator

    rng = np.random.default_rng(0)
    at = rng.uniform(0, 40, (FLAKES, 2))
    field = 0.3 * np.exp(-((at[:, None] - at) ** 2).sum(-1) / 450) + 0.7 * np.eye(FLAKES)
    r = belief.hypotheses([[-0.87, -0.5, 0.5, 0.87], [-0.94, -0.79, -0.61, -0.35, 0.35, 0.61, 0.79, 0.94]])
    prior = belief.prior(r, field)
    maps = [(1, np.eye(FLAKES)[rng.choice(FLAKES, 3, False)] * 0.9, np.full(3, 0.1), rng.normal(size=3)) for _ in range(12)]
    maps += [(2, np.eye(FLAKES)[[f]], np.full(1, 0.1), rng.normal(size=1)) for f in range(8)]
    mean, covariance = np.zeros(prior.shape[:2]), prior.copy()
    for level, w, noise, y in maps[:-1]:
        belief.condition(mean, covariance, slice(level * FLAKES, (level + 1) * FLAKES), w, noise, y)
    level, w, noise, y = maps[0]
    ours = []
    for _ in range(repeats):
        m, c = mean.copy(), covariance.copy()
        start = time.perf_counter()
        belief.condition(m, c, slice(level * FLAKES, (level + 1) * FLAKES), w, noise, y)
        ours.append(time.perf_counter() - start)

    class Table(gpytorch.kernels.Kernel):
        """Covariances (H, n, n) by number."""

        def __init__(self, values):
            super().__init__(batch_shape=values.shape[:1])
            self.values = values

        def forward(self, x1, x2, diag=False, **_):
            i, j = x1[0, :, 0].long(), x2[0, :, 0].long()
            return self.values[:, i, j] if diag else DenseLinearOperator(self.values[:, i][:, :, j])

    class Exact(gpytorch.models.ExactGP):
        def __init__(self, x, y, likelihood, values):
            super().__init__(x, y, likelihood)
            self.mean_module, self.covar_module = gpytorch.means.ZeroMean(batch_shape=values.shape[:1]), Table(values)

        def forward(self, x):
            return gpytorch.distributions.MultivariateNormal(self.mean_module(x), self.covar_module(x))

    every = [*maps[:-1], maps[0]]
    design = np.concatenate([np.kron(np.eye(3)[level], w) for level, w, _, _ in every])
    both = np.concatenate([design, np.eye(3 * FLAKES)])
    values = torch.from_numpy(both @ prior @ both.T)
    noises, ys = (torch.from_numpy(np.concatenate([m[i] for m in every])).expand(len(r), -1) for i in (2, 3))
    x = torch.arange(len(both), dtype=torch.float64)[:, None].expand(len(r), -1, -1)
    n = ys.shape[1]
    theirs = []
    with warnings.catch_warnings(), torch.no_grad(), gpytorch.settings.fast_computations(False, False, False), gpytorch.settings.debug(False):
        warnings.simplefilter("ignore")
        for _ in range(repeats):
            start = time.perf_counter()
            likelihood = gpytorch.likelihoods.FixedNoiseGaussianLikelihood(noises)
            model = Exact(x[:, :n], ys, likelihood, values).double()
            likelihood.train(), model.train()
            likelihood(model(x[:, :n])).log_prob(ys)
            likelihood.eval(), model.eval()
            posterior = model(x[:, n:])
            found = posterior.mean, posterior.covariance_matrix
            theirs.append(time.perf_counter() - start)
    return float(np.median(ours)), float(np.median(theirs)), float(max(np.abs(found[0].numpy() - m).max(), np.abs(found[1].numpy() - c).max()))


def against_the_best(instances: int = 40) -> list[tuple[str, float, float]]:
    """Information of greedy choices as share of the most that any four of twelve measurements give: mean and least."""
    shares = []
    for seed in range(instances):
        rng = np.random.default_rng(seed)
        at = rng.uniform(0, 3, (6, 2))
        prior = belief.prior(rng.uniform(-1, 1, (1, 1)), 0.9 * np.exp(-0.5 * ((at[:, None] - at) ** 2).sum(-1)) + 0.1 * np.eye(6))[0]
        design, noise = rng.uniform(0, 1, (12, 12)) * (rng.uniform(size=(12, 12)) < 0.3), rng.uniform(0.001, 0.1, 12)

        def told(chosen, prior=prior, design=design, noise=noise) -> float:
            on = list(chosen)
            return belief.information(prior, design[on], noise[on])

        greedy: list[int] = []
        for _ in range(4):
            greedy.append(max(set(range(12)) - set(greedy), key=lambda i: told([*greedy, i])))
        shares.append(told(greedy) / max(told(c) for c in itertools.combinations(range(12), 4)))
    return [("greedy information, 4 of 12", float(np.mean(shares)), float(np.min(shares)))]


def sequences(episodes: int = 16) -> list[tuple[str, float, float]]:
    """On the tiny scenario: uncertainty left by rules and by the best of all sequences of levels, tried in the very same world."""
    left: dict[str, list[float]] = {}
    for seed in range(SCRIPTS_SEED, SCRIPTS_SEED + episodes):
        env = gym.make(ENV_ID, scenario="tiny").unwrapped
        env.reset(seed=seed)
        found: list[float] = []
        _try_all(env, found)
        left.setdefault("best sequence in hindsight", []).append(min(found))
    for name, rule in (("knowledge-gradient", rules.KnowledgeGradient()), ("greedy-variance", rules.GreedyVariance()), ("round-robin", rules.RoundRobin())):
        left[name] = list(evaluate(rule, ENV_ID, "tiny", episodes, SCRIPTS_SEED).metrics["uncertainty"])
    return [(name, float(np.mean(values)), float(np.mean(values) / np.mean(left["best sequence in hindsight"]))) for name, values in left.items()]


def _try_all(env, found: list[float], overviews: int = 0) -> None:
    """Every sequence of levels with at most two overviews, from where the environment is."""
    here = env.snapshot()
    for level in (0, 1):
        if level == 0 and overviews == 2:
            continue
        env.restore(here)
        _, _, _, truncated, info = env.step(level)
        if truncated:
            found.append(info["uncertainty"])
        else:
            _try_all(env, found, overviews + (level == 0))


def tune(episodes: int) -> None:
    """Print what constants of the rules leave on training seeds."""
    tried = [("greedy-variance", (a, b, 1.0)) for a in (0.003, 0.01, 0.03) for b in (0.1, 0.2, 0.3, 0.5)]
    tried += [("multi-fidelity-ucb", (a, b)) for a in (0.6, 2.0) for b in (0.3, 0.4, 0.5)]
    tried += [("survey-first", (a, b)) for a in (0, 2) for b in (8, 12, 16, 20)]
    tried += [(kind, (hope,)) for kind in ("knowledge-gradient", "planned-gradient") for hope in (0.0, 0.5, 1.0)]
    kinds = {"greedy-variance": rules.GreedyVariance, "multi-fidelity-ucb": rules.MultiFidelityUcb, "knowledge-gradient": rules.KnowledgeGradient,
             "planned-gradient": rules.PlannedGradient}  # fmt: skip
    rows = []
    for kind, constants in tried:
        rule = rules.SurveyFirst(*constants) if kind == "survey-first" else kinds[kind](constants if len(constants) > 1 else constants[0])
        metrics = evaluate(rule, ENV_ID, "train", episodes, SCRIPTS_SEED).metrics
        rows.append((kind, str(constants), float(metrics["uncertainty"].mean()), float(metrics["rmse"].mean())))
    table(f"Constants on {episodes} training specimens", ("rule", "constants", "uncertainty left", "rmse"), rows)
    json_line("levels_tuning", episodes=episodes, seed=SCRIPTS_SEED, tried=rows)


def main() -> None:
    """Print the tables and one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tune", action="store_true")
    parser.add_argument("--episodes", type=int, default=96)
    options = parser.parse_args()
    if options.tune:
        tune(options.episodes)
        return
    rates = [(scenario, lanes, speed(lanes, steps, scenario)) for scenario in ("train", "known") for lanes, steps in ((1, 600), (64, 24))]
    table("Environment steps a second", ("scenario", "lanes", "steps/s"), rates)
    ours, theirs, apart = beside_gpytorch()
    table("One more tile under 32 hypotheses", ("", "ms"), [("belief.py", 1e3 * ours), ("GPyTorch", 1e3 * theirs), ("ratio", theirs / ours), ("largest difference", apart)])
    information = against_the_best()
    table("Greedy against the best choice", ("", "mean share", "least"), information)
    tiny = sequences()
    table("The tiny scenario, all sequences of levels tried", ("agent", "uncertainty left", "times the best"), tiny)
    json_line("levels", steps_per_second=rates, belief_seconds=ours, gpytorch_seconds=theirs, difference=apart, information=information, tiny=tiny)


if __name__ == "__main__":
    main()
