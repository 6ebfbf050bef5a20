"""Practitioners' procedures for STEM tuning: they maximise the sharpness of in-focus images.

All of them see what a policy sees, the observation, and nothing else. Positions are setpoints in scales, around
zero; sharpness is the normalised variance, which does not depend on the grey-level scale of the frame.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from probegym.agents.base import Script
from probegym.envs.core import ScopeEnv
from probegym.envs.stem_tuning import StemTuningTask
from probegym.envs.task import Observation, shape_of
from probegym.errors import ProbeGymError
from probegym.rewards.terms import normalised_variance

SPAN = 1.2  # searched range of every control, in scales: the start box and what cross-talk adds


class Tuner:
    """Absolute setpoints and sharpness on top of an environment's relative steps."""

    def __init__(self, step: Callable[[np.ndarray], Observation], env: ScopeEnv, observation: Observation):
        task = env.episodes.task_of(StemTuningTask)
        if "haadf" not in task.series or 0.0 not in task.series["haadf"].excursions:
            raise ProbeGymError("sharpness needs an in-focus HAADF frame: use scenario 'beacon', 'graphene' or 'mos2'")
        self.step, self.largest = step, task.settings.largest_step
        self.frame = task.series["haadf"].excursions.index(0.0)
        self.n, self.size = len(task.names), shape_of(task.action_space)[0]
        self.position = observation["controls"].astype(float)
        self.first = self._sharpness(observation)

    def _sharpness(self, observation: Observation) -> float:
        """Normalised variance of the whole frame: it is periodic, so no edge has to be cut off after alignment."""
        return float(normalised_variance(observation["haadf"][self.frame][None])[0])

    def _go(self, target, declare: bool) -> Observation:
        action = np.full(self.size, -1.0)
        action[: self.n] = np.clip((np.asarray(target) - self.position) / self.largest, -1, 1)
        action[-1] = 1.0 if declare else -1.0
        observation = self.step(action)
        self.position = self.position + action[: self.n] * self.largest
        return observation

    def measure(self, target) -> float:
        """Sharpness, a ratio, at setpoints (n,) as the ``controls`` of the observation: one image."""
        return self._sharpness(self._go(target, declare=False))

    def declare(self, target) -> None:
        """Go to setpoints (n,) and end the episode."""
        self._go(target, declare=True)


class CoordinateDescent(Script):
    """One control after the other: a line scan, then the vertex of the parabola through its best three points.

    Every round halves the scanned width. points, rounds: tuned on training seeds (benchmarks/baselines.py).
    """

    def __init__(self, points: int = 3, rounds: int = 3, width: float = 1.0):
        self.points, self.rounds, self.width = points, rounds, width

    def run(self, step, env: ScopeEnv, observation: Observation, seed: int) -> None:
        tuner = Tuner(step, env, observation)
        best, left = tuner.position.copy(), int(env.episodes.limits["measurements"]) - 2
        for round_number in range(self.rounds):
            for axis in range(tuner.n):
                if left < self.points:
                    break
                grid = best[axis] + np.linspace(-1, 1, self.points) * self.width / 2**round_number
                values = [tuner.measure(np.where(np.arange(tuner.n) == axis, x, best)) for x in grid]
                left -= self.points
                best[axis] = _vertex(grid, np.array(values))
        tuner.declare(best)


def _vertex(x: np.ndarray, y: np.ndarray) -> float:
    """Maximum of the parabola through the highest point and its neighbours (equally spaced)."""
    top = int(np.clip(y.argmax(), 1, len(y) - 2))
    left, middle, right = y[top - 1 : top + 2]
    curvature = left - 2 * middle + right
    if curvature >= 0:
        return float(x[y.argmax()])
    return float(x[top] + np.clip(0.5 * (left - right) / curvature, -1, 1) * (x[1] - x[0]))


class NelderMead(Script):
    """SciPy's adaptive simplex on the sharpness, until it is smaller than ``tolerance`` or the budget is used up.

    ``simplex``: its first size; both in scales, tuned on training seeds (benchmarks/baselines.py).
    """

    def __init__(self, simplex: float = 1.0, tolerance: float = 0.08):
        self.simplex, self.tolerance = simplex, tolerance

    def run(self, step, env: ScopeEnv, observation: Observation, seed: int) -> None:
        from scipy.optimize import minimize

        tuner = Tuner(step, env, observation)
        left = int(env.episodes.limits["measurements"]) - 2
        start = np.vstack([tuner.position, tuner.position + self.simplex * np.eye(tuner.n)])
        options = {"maxfev": left, "initial_simplex": start, "adaptive": True, "xatol": self.tolerance, "fatol": np.inf}
        found = minimize(lambda x: -tuner.measure(np.clip(x, -SPAN, SPAN)), tuner.position, method="Nelder-Mead", options=options)
        tuner.declare(np.clip(found.x, -SPAN, SPAN))


class BeaconBO(Script):
    """BEACON's Bayesian optimisation: 3 images to normalise, 20 random, 130 chosen by UCB (mean + 2 sigma).

    Pattison et al., npj Comput. Mater. (2025), 10.1038/s41524-025-01766-4. Inputs scaled to [-1, 1]; Matern 3/2 kernel
    with a length per axis in 0.01-1 and amplitude 0.01-2, trained every 10 images; noise variance 0.01 (nanoparticles)
    over the range of the normalisation images; the answer is the maximum of the posterior mean. GP by BoTorch; the acquisition
    is maximised over random points refined by a local search, as gpCAM's global optimiser samples it.
    """

    def __init__(self, random: int = 20, chosen: int = 130, noise: float = 0.01, candidates: int = 512):
        self.random, self.chosen, self.noise, self.candidates = random, chosen, noise, candidates

    def run(self, step, env: ScopeEnv, observation: Observation, seed: int) -> None:
        tuner, rng = Tuner(step, env, observation), np.random.default_rng(seed)
        budget = int(env.episodes.limits["measurements"]) - 1
        corners = [tuner.first, *(tuner.measure(np.full(tuner.n, x)) for x in (-1.0, 1.0))]
        low, span = min(corners), max(max(corners) - min(corners), 1e-6)
        x = rng.uniform(-1, 1, (min(self.random, budget - 3), tuner.n))
        y = np.array([(tuner.measure(point) - low) / span for point in x])
        model = None
        for count in range(min(self.chosen, budget - 3 - len(x))):
            model = self._model(x, y, span, model, fit=count % 10 == 0)
            point = self._best(model, x[y.argmax()], rng, deviations=2.0)
            x, y = np.vstack([x, point]), np.append(y, (tuner.measure(point) - low) / span)
        model = self._model(x, y, span, model, fit=True)
        tuner.declare(self._best(model, x[y.argmax()], rng, deviations=0.0))

    def _model(self, x, y, span: float, previous, fit: bool):
        import torch
        from botorch.models import SingleTaskGP
        from botorch.optim.fit import fit_gpytorch_mll_scipy
        from gpytorch.constraints import Interval
        from gpytorch.kernels import MaternKernel, ScaleKernel
        from gpytorch.mlls import ExactMarginalLogLikelihood

        inputs, targets = torch.from_numpy(x).double(), torch.from_numpy(y).double()[:, None]
        kernel = ScaleKernel(MaternKernel(1.5, ard_num_dims=x.shape[1], lengthscale_constraint=Interval(0.01, 1.0)),
                             outputscale_constraint=Interval(0.01, 2.0))  # fmt: skip
        model = SingleTaskGP(
            inputs, targets, torch.full_like(targets, self.noise / span), covar_module=kernel, outcome_transform=None
        )
        if previous is not None:
            model.load_state_dict(previous.state_dict(), strict=False)
        if fit:
            fit_gpytorch_mll_scipy(ExactMarginalLogLikelihood(model.likelihood, model), options={"maxiter": 30})
        return model.eval()

    def _best(self, model, incumbent: np.ndarray, rng: np.random.Generator, deviations: float) -> np.ndarray:
        import torch

        n = len(incumbent)
        points, width = np.vstack([rng.uniform(-1, 1, (self.candidates, n)), incumbent]), 0.3
        for _ in range(4):
            with torch.no_grad():
                posterior = model(torch.from_numpy(points).double())
                score = posterior.mean + deviations * posterior.variance.clamp_min(0).sqrt()
            top = points[int(score.argmax())]
            points = np.vstack([np.clip(top + width * rng.standard_normal((self.candidates // 4, n)), -1, 1), top])
            width /= 3
        return top
