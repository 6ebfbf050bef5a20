"""Time of the Gaussian processes: a deep kernel's update and prediction against GPyTorch's, and how they agree; levels.

A session measures point by point; timed is what one more point costs: the training steps of one update, and mean and standard
deviation at all 2500 places. GPyTorch does the same work: as many evaluations of the marginal likelihood and its gradient, then
its exact posterior. Best of several runs, on the threads that torch has (OMP_NUM_THREADS).
"""

from __future__ import annotations

import argparse
import time

import gpytorch
import numpy as np
import torch
from report import json_line, table
from scipy import ndimage

from probegym.surrogates.deep_kernel import DeepKernel, DeepKernelSettings, patches_of
from probegym.surrogates.kernels import inputs
from probegym.surrogates.multilevel import MultilevelGP

SIDE, PATCH, LIMIT = 50, 9, 50.0  # pixels, pixels, ms at 100 points
COUNTS = (25, 50, 100, 200)


def specimen(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """An image with features of a few pixels, and a smooth function of each pixel's surroundings with 5 % noise."""
    rng = np.random.default_rng(seed)
    image = ndimage.gaussian_filter(rng.normal(size=(SIDE, SIDE)), 2)
    image /= image.std()
    value = np.tanh(image) + 5 * ndimage.gaussian_laplace(image, 2)
    return image, (value / value.std() + 0.05 * rng.normal(size=image.shape)).ravel()


def best(work, runs: int) -> float:
    """Shortest time of a call, ms, after one to warm up."""
    work()
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return 1e3 * min(times)


class Plain(gpytorch.models.ExactGP):
    """The same deep kernel written with GPyTorch's modules, at the parameters that ours has."""

    def __init__(self, ours: DeepKernel, weights: np.ndarray, index: np.ndarray, target: np.ndarray):
        likelihood = gpytorch.likelihoods.GaussianLikelihood(noise_constraint=gpytorch.constraints.GreaterThan(1e-12))
        every = torch.arange(SIDE * SIDE, dtype=torch.float64)[:, None]
        super().__init__(every[index], torch.from_numpy(target), likelihood)
        self.every, d, values = every, ours.settings.latent, ours._unpacked(weights)
        self.inputs, self.skip, self.places = (torch.from_numpy(np.ascontiguousarray(array)) for array in (ours._inputs, ours._skip, ours._places))
        layers: list[torch.nn.Module] = []
        for layer in range(len(ours.settings.widths) + 1):
            weight, bias = torch.from_numpy(values[f"weight {layer}"]), values.get(f"bias {layer}")
            linear = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
            linear.weight = torch.nn.Parameter(weight)
            if bias is not None:
                linear.bias = torch.nn.Parameter(torch.from_numpy(bias))
            layers += [torch.nn.SiLU()] * bool(layer) + [linear]
        self.network = torch.nn.Sequential(*layers)
        self.mean_module = gpytorch.means.ConstantMean()
        self.structure = gpytorch.kernels.ScaleKernel(gpytorch.kernels.RBFKernel(ard_num_dims=d, active_dims=range(d)))
        self.place = gpytorch.kernels.ScaleKernel(gpytorch.kernels.RBFKernel(active_dims=range(d, d + 2)))
        self.covar_module = self.structure + self.place
        self.double()
        told = ours._kernel(values)
        self.structure.outputscale, self.structure.base_kernel.lengthscale = torch.from_numpy(told.amplitude), torch.from_numpy(told.length_scale)
        self.place.outputscale, self.place.base_kernel.lengthscale = torch.from_numpy(told.local_amplitude), torch.from_numpy(told.local_length)
        likelihood.noise = torch.from_numpy(told.noise)
        self.mean_module.initialize(constant=told.mean.item())

    def forward(self, rows: torch.Tensor) -> gpytorch.distributions.MultivariateNormal:
        at = rows[:, 0].long()
        seen = torch.cat([self.skip[at] + self.network(self.inputs[at]), self.places[at]], 1)
        return gpytorch.distributions.MultivariateNormal(self.mean_module(seen), self.covar_module(seen))

    def update(self, evaluations: int) -> None:
        """Marginal likelihood and gradient, so many times."""
        self.train()
        objective = gpytorch.mlls.ExactMarginalLogLikelihood(self.likelihood, self)
        for _ in range(evaluations):
            self.zero_grad()
            (-objective(self(*self.train_inputs), self.train_targets)).backward()

    def predict(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation everywhere."""
        self.train()
        self.eval()
        with torch.no_grad():
            told = self(self.every)
            return told.mean.numpy(), told.variance.sqrt().numpy()


def deep_kernels(runs: int) -> list[tuple]:
    """Rows: embedding, points, update, prediction, both, GPyTorch's both, ratio, largest difference; ms."""
    image, value = specimen(0)
    order, places = np.random.default_rng(0).permutation(SIDE * SIDE), np.indices((SIDE, SIDE)).reshape(2, -1).T
    rows = []
    for embedding in ("coordinates", "dense", "convolution"):
        kernel = DeepKernel(patches_of(image, PATCH), places, DeepKernelSettings(embedding=embedding))
        for n in COUNTS:
            index, weights = order[:n], kernel.initial()
            for upto in range(5, n, 5):
                weights = kernel.fit(weights, order[:upto], value[order[:upto]])
            y = value[index]
            update = best(lambda i=index, w=weights, y=y, k=kernel: k.fit(w, i, y), runs)
            predict = best(lambda i=index, w=weights, y=y, k=kernel: k.predict(w, i, y), runs)
            row = (embedding, n, update, predict, update + predict)
            if embedding == "dense":
                peer = Plain(kernel, weights, index, (y - y.mean()) / y.std())
                theirs = best(lambda p=peer, s=kernel.settings.steps: p.update(s + 1), runs) + best(peer.predict, runs)
                gap = max(np.abs((a - b) / y.std() - c).max() for a, b, c in zip(kernel.predict(weights, index, y), (y.mean(), 0), peer.predict(), strict=True))
                row += (theirs, theirs / (update + predict), gap)
            rows.append(row + ("", "", "") if len(row) == 5 else row)
    return rows


def levels(runs: int) -> list[tuple]:
    """Rows: measurements, ms of ten steps of hyperparameters, ms of a prediction at 100 places and three levels."""
    rng, rows = np.random.default_rng(1), []
    for n in COUNTS:
        level = rng.integers(0, 3, n)
        seen = inputs(rng.uniform(0, 6, (n, 2)), np.array([0.5, 0.2, 0.0])[level], level)
        gp, places = MultilevelGP(3, 1.0, [0.1, 0.05, 0.01]), rng.uniform(0, 6, (100, 2))
        gp.condition(seen, rng.normal(size=n))
        rows.append((n, best(lambda gp=gp: gp.fit(10), max(2, runs // 4)), best(lambda gp=gp, at=places: gp.predict(at), runs)))
    return rows


def main() -> None:
    """Print the tables and one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=20)
    runs = parser.parse_args().runs
    rows = deep_kernels(runs)
    table(
        f"Deep kernel, {SIDE} x {SIDE} places, {torch.get_num_threads()} threads (ms)",
        ("embedding", "points", "update", "predict", "both", "GPyTorch", "ratio", "difference"), rows,
    )  # fmt: skip
    at_hundred = {row[0]: row[4] for row in rows if row[1] == 100}
    ratio = next(row[6] for row in rows if row[0] == "dense" and row[1] == 100)
    for name, both in at_hundred.items():
        print(f"{name}: {both:.1f} ms at 100 points, target {LIMIT:g} ms: {'reached' if both <= LIMIT else 'MISSED'}")
    print(f"dense: {ratio:.1f} times as fast as GPyTorch, at least 3 wanted: {'reached' if ratio >= 3 else 'MISSED'}")
    told = levels(runs)
    table("Levels, exact multi-level GP (ms)", ("measurements", "ten steps", "predict"), told)
    json_line("surrogates", deep_kernel=rows, levels=told, threads=torch.get_num_threads())


if __name__ == "__main__":
    main()
