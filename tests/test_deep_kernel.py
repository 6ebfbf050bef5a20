"""Deep kernel learning: the same numbers as GPyTorch, learning that helps and does not collapse, all the awkward data."""

from __future__ import annotations

import gpytorch
import numpy as np
import pytest
import torch
from scipy import ndimage, stats

from probegym.errors import ProbeGymError
from probegym.surrogates.acquisition import expected_improvement
from probegym.surrogates.deep_kernel import FARTHEST, DeepKernel, DeepKernelSettings, patches_of
from probegym.surrogates.threads import _libraries
from tests.helpers import python

SIDE = 24
EMBEDDINGS = ("dense", "convolution", "coordinates")


def specimen(seed: int, side: int = SIDE) -> tuple[np.ndarray, np.ndarray]:
    """Round particles, and a quantity behind every pixel that depends on the particle's size and on a near neighbour."""
    rng = np.random.default_rng(seed)
    rows, cols = np.mgrid[:side, :side]
    centres, radii = rng.uniform(2, side - 2, (side // 2, 2)), rng.uniform(1.2, 3.5, side // 2)
    image, value, weight = np.zeros((side, side)), np.zeros((side, side)), np.full((side, side), 0.3)
    for index, (centre, radius) in enumerate(zip(centres, radii, strict=True)):
        away = np.hypot(rows - centre[0], cols - centre[1])
        gaps = np.delete(np.hypot(*(centres - centre).T) - radii - radius, index)
        image = np.maximum(image, radius * np.sqrt(np.clip(1 - (away / radius) ** 2, 0, None)))
        near = np.exp(-np.clip(away - radius, 0, None) / 1.5)
        value, weight = value + near * (2 / radius + 1.5 * np.exp(-max(gaps.min(), 0.3) / 2)), weight + near
    image = ndimage.gaussian_filter(image, 0.6) + 0.05 * rng.normal(size=image.shape)
    return image, (value / weight + 0.02 * rng.normal(size=image.shape)).ravel()


def coordinates(side: int = SIDE) -> np.ndarray:
    return np.indices((side, side)).reshape(2, -1).T / side


def model(image: np.ndarray, embedding: str = "dense", **settings) -> DeepKernel:
    return DeepKernel(patches_of(image, 7), coordinates(len(image)), DeepKernelSettings(embedding=embedding, **settings))


@pytest.fixture(scope="module")
def learned():
    """A model of each embedding after 40 points, taken in five by five."""
    image, value = specimen(0)
    index = np.random.default_rng(0).choice(SIDE**2, 40, replace=False)
    out = {}
    for embedding in EMBEDDINGS:
        kernel = model(image, embedding)
        weights = kernel.initial()
        for n in range(5, 41, 5):
            weights = kernel.fit(weights, index[:n], value[index[:n]])
        out[embedding] = kernel, weights, index, value
    return out


class Peer(gpytorch.models.ExactGP):
    """The same model in GPyTorch: its kernels, mean, likelihood and inference on the embedding."""

    def __init__(self, kernel: DeepKernel, weights: np.ndarray, index: np.ndarray, target: np.ndarray):
        values = kernel._unpacked(weights)
        told, z = kernel._kernel(values), kernel._embedded(values, slice(None))
        width = z.shape[1]
        rows = torch.from_numpy(np.concatenate([z, kernel._places], 1))
        likelihood = gpytorch.likelihoods.GaussianLikelihood(noise_constraint=gpytorch.constraints.GreaterThan(1e-12))
        super().__init__(rows[index], torch.from_numpy(target), likelihood)
        self.rows = rows
        self.mean_module = gpytorch.means.ConstantMean()
        self.covar_module = gpytorch.kernels.ScaleKernel(gpytorch.kernels.RBFKernel(ard_num_dims=width, active_dims=range(width)))
        if kernel.local:
            self.covar_module += gpytorch.kernels.ScaleKernel(gpytorch.kernels.RBFKernel(active_dims=range(width, width + 2)))
        self.double()
        parts = self.covar_module.kernels if kernel.local else [self.covar_module]
        parts[0].outputscale, parts[0].base_kernel.lengthscale = torch.from_numpy(told.amplitude), torch.from_numpy(told.length_scale)
        if kernel.local:
            parts[1].outputscale, parts[1].base_kernel.lengthscale = torch.from_numpy(told.local_amplitude), torch.from_numpy(told.local_length)
        likelihood.noise = torch.from_numpy(told.noise)
        self.mean_module.initialize(constant=told.mean.item())
        self.eval()

    def forward(self, x):
        return gpytorch.distributions.MultivariateNormal(self.mean_module(x), self.covar_module(x))

    def log_likelihood(self) -> float:
        self.train()
        with torch.no_grad():
            return self.likelihood(self(*self.train_inputs)).log_prob(self.train_targets).item()


@pytest.mark.parametrize("embedding", EMBEDDINGS)
def test_it_is_gpytorchs_exact_gp(learned, embedding):
    kernel, weights, index, value = learned[embedding]
    y = value[index]
    peer = Peer(kernel, weights, index, (y - y.mean()) / y.std())
    mean, std = kernel.predict(weights, index, y)
    with torch.no_grad(), gpytorch.settings.fast_computations(False, False, False):
        told = peer(peer.rows)
        np.testing.assert_allclose((mean - y.mean()) / y.std(), told.mean, atol=1e-6)
        np.testing.assert_allclose((std / y.std()) ** 2, told.variance, atol=1e-6)
    assert kernel.log_likelihood(weights, index, y) == pytest.approx(peer.log_likelihood(), abs=1e-6)


@pytest.mark.parametrize("embedding", EMBEDDINGS)
def test_leave_one_out_is_what_leaving_one_out_gives(learned, embedding):
    kernel, weights, index, value = learned[embedding]
    y = value[index]
    predicted, deviation = kernel.leave_one_out(weights, index, y)
    standard = (y - y.mean()) / y.std()
    for left in (0, 7, 39):
        others = np.delete(np.arange(40), left)
        peer = Peer(kernel, weights, index[others], standard[others])
        with torch.no_grad():
            told = peer.likelihood(peer(peer.rows[index[left]][None]))
        assert (predicted[left] - y.mean()) / y.std() == pytest.approx(told.mean.item(), abs=1e-6)
        assert deviation[left] / y.std() == pytest.approx(told.stddev.item(), abs=1e-6)


@pytest.mark.parametrize("embedding", ["dense", "convolution"])
def test_learning_explains_the_specimen_and_knows_what_it_does_not_know(embedding):
    explained, scores, errors = [], [], []
    for seed in range(6):
        image, value = specimen(seed)
        kernel = model(image, embedding)
        index = np.random.default_rng(seed).choice(SIDE**2, 60, replace=False)
        weights = kernel.initial()
        for n in range(5, 61, 5):
            weights = kernel.fit(weights, index[:n], value[index[:n]])
        mean, std = kernel.predict(weights, index, value[index])
        loo, _ = kernel.leave_one_out(weights, index, value[index])
        rest = np.setdiff1d(np.arange(SIDE**2), index)
        explained.append(1 - np.mean((mean - value)[rest] ** 2) / value[rest].var())
        scores.append(np.std((mean - value)[rest] / np.maximum(std[rest], 1e-9)))
        errors.append(np.corrcoef(loo, value[index])[0, 1] ** 2)
    assert np.mean(explained) > 0.6, explained
    assert np.median(scores) < 2.0, scores  # an overconfident collapse gives five and more
    assert abs(np.mean(errors) - np.mean(explained)) < 0.25, (errors, explained)  # the diagnostic tells how good the model is


def test_many_steps_on_few_points_do_not_collapse():
    """Far more weights than points: the bare marginal likelihood would explain everything (Ober et al. 2021)."""
    image, value = specimen(1)
    index = np.random.default_rng(1).choice(SIDE**2, 30, replace=False)
    kernel = model(image, steps=300)
    assert kernel.size > 20 * len(index)
    mean, std = kernel.predict(kernel.fit(kernel.initial(), index, value[index]), index, value[index])
    rest = np.setdiff1d(np.arange(SIDE**2), index)
    assert np.std((mean - value)[rest] / np.maximum(std[rest], 1e-9)) < 3


def test_exploring_with_it_beats_random():
    """Rank of the best of 3.5 % of the points on 12 specimens, all with the same five first ones."""
    side, count, ranks = 32, 36, []
    for seed in range(12):
        image, value = specimen(100 + seed, side)
        kernel = model(image)
        random = np.random.default_rng(seed).choice(side**2, count, replace=False)
        index, weights = list(random[:5]), kernel.initial()
        while len(index) < count:
            at = np.array(index)
            weights = kernel.fit(weights, at, value[at])
            gain = expected_improvement(*kernel.predict(weights, at, value[at]), value[at].max(), 0.01 * value[at].std())
            gain[at] = -np.inf
            index.append(int(gain.argmax()))
        ranks.append([(value > value[taken].max()).sum() for taken in (index, random)])
    ours, theirs = np.array(ranks).T
    assert np.median(ours) < 0.4 * np.median(theirs), ranks
    assert stats.wilcoxon(ours, theirs, alternative="less").pvalue < 0.02, ranks


@pytest.mark.parametrize("embedding", EMBEDDINGS)
def test_training_goes_up(learned, embedding):
    kernel, _, index, value = learned[embedding]
    y, weights = value[index], kernel.initial()
    posterior = []
    for _ in range(4):
        posterior.append(kernel.log_likelihood(weights, index, y) - 0.5 * (weights**2).sum())
        weights = kernel.fit(weights, index, y)
    assert (np.diff(posterior) >= -1e-9).all() and posterior[1] > posterior[0] + 0.1


@pytest.mark.parametrize("embedding", EMBEDDINGS)
def test_the_gradient_is_that_of_the_posterior(embedding):
    """Along random directions over all parts, and along every parameter of the kernel; beyond FARTHEST the prior alone pulls."""
    rng = np.random.default_rng(3)
    image, value = specimen(0)
    kernel = DeepKernel(patches_of(image, 11), coordinates(), DeepKernelSettings(embedding=embedding))
    index, weights = rng.choice(SIDE**2, 30), rng.normal(size=kernel.size)
    weights[-1] = -FARTHEST - 1

    def loss(at: np.ndarray) -> float:
        return 0.5 * float(at @ at) - kernel.log_likelihood(at, index, value[index])

    target = (value[index] - value[index].mean()) / value[index].std()
    gradient = kernel._loss(weights, index, target)[1]
    ways = np.concatenate([rng.normal(size=(8, kernel.size)) / np.sqrt(kernel.size), np.eye(kernel.size)[-9:]])
    slopes = [(loss(weights + 1e-5 * way) - loss(weights - 1e-5 * way)) / 2e-5 for way in ways]
    np.testing.assert_allclose(ways @ gradient, slopes, rtol=1e-5, atol=1e-6)
    assert gradient[-1] == pytest.approx(weights[-1])


@pytest.mark.parametrize("embedding", EMBEDDINGS)
def test_awkward_measurements(embedding):
    image, value = specimen(2)
    kernel = model(image, embedding)
    start = kernel.initial()
    none = np.zeros(0, int)
    mean, std = kernel.predict(kernel.fit(start, none, none), none, none)
    assert (mean == 0).all() and (std > 0.5).all()  # the prior
    assert all(len(array) == 0 for array in kernel.leave_one_out(start, none, none)) and kernel.log_likelihood(start, none, none) == 0
    for index, y in (
        ([5], [3.0]), ([1, 2, 3], [1e149, 2e149, -1e149]), ([5, 5, 5], [3.0, 3.0, 3.0]), ([1, 2, 3], [0.0, 0.0, 0.0]), ([4, 4], [1.0, 2.0]), (np.arange(9), np.full(9, -1e-12)),
        (np.repeat(np.arange(20), 3), np.repeat(value[:20], 3)), (np.arange(SIDE**2)[:300], value[:300]), ([1, 2, 3], [1e12, 2e12, -1e12]),
    ):  # fmt: skip
        index, y = np.array(index), np.array(y)
        weights = kernel.fit(start, index, y)
        for array in (weights, *kernel.predict(weights, index, y), *kernel.leave_one_out(weights, index, y)):
            assert np.isfinite(array).all()
    assert np.array_equal(kernel.fit(start, [1, 2], [0.5, 0.5]), start)
    exact = model(image, embedding, noise=0.02)
    mean, std = exact.predict(exact.initial(), [4, 4, 300], np.array([2.0, 2.0, 7.0]))
    assert mean[4] == pytest.approx(2.0, abs=0.3) and mean[300] == pytest.approx(7.0, abs=0.3) and std[4] < 0.2 * std.max()


@pytest.mark.parametrize("seed", [19, 1, 6])  # heavy tails; a first seed at which a line search once left the numbers there are
@pytest.mark.parametrize("embedding", EMBEDDINGS)
def test_heavy_tails_and_long_training(embedding, seed):
    rng = np.random.default_rng(seed)
    image = rng.normal(size=(16, 16))
    kernel = DeepKernel(patches_of(image, 5), coordinates(16), DeepKernelSettings(embedding=embedding, steps=40))
    index, _, y = rng.choice(256, 40, replace=False), rng.normal(size=40), rng.standard_cauchy(40)
    weights = kernel.initial()
    for n in range(2, 41, 8):
        weights = kernel.fit(weights, index[:n], y[:n])
        assert all(np.isfinite(array).all() for array in kernel.predict(weights, index[:n], y[:n]))


@pytest.mark.parametrize("sign", [-1.0, 1.0])
@pytest.mark.parametrize("embedding", EMBEDDINGS)
def test_weights_far_from_their_prior_still_give_numbers(embedding, sign):
    image, value = specimen(3)
    kernel, index = model(image, embedding), np.arange(0, 500, 7)
    for weights in (np.full(kernel.size, sign * 1e3), sign * 50 * np.random.default_rng(0).normal(size=kernel.size)):
        learned = kernel.fit(weights, index, value[index])
        for array in (learned, *kernel.predict(weights, index, value[index]), *kernel.predict(learned, index, value[index])):
            assert np.isfinite(array).all()


def test_the_unit_of_the_values_does_not_matter(learned):
    kernel, weights, index, value = learned["dense"]
    y = value[index]
    mean, std = kernel.predict(kernel.fit(weights, index, y), index, y)
    scaled = 1e-9 * y - 4e-9
    other, spread = kernel.predict(kernel.fit(weights, index, scaled), index, scaled)
    np.testing.assert_allclose(other, 1e-9 * mean - 4e-9, atol=1e-14)
    np.testing.assert_allclose(spread, 1e-9 * std, atol=1e-14)


@pytest.mark.parametrize("image", [np.zeros((9, 9)), np.full((9, 9), 7.0), np.eye(9)])
@pytest.mark.parametrize("embedding", EMBEDDINGS)
def test_images_without_structure(image, embedding):
    kernel = DeepKernel(patches_of(image, 3), coordinates(9), DeepKernelSettings(embedding=embedding))
    assert kernel.size == DeepKernel(patches_of(np.random.default_rng(0).normal(size=(9, 9)), 3), coordinates(9), kernel.settings).size
    weights = kernel.fit(kernel.initial(), np.arange(6), np.arange(6.0))
    assert all(np.isfinite(array).all() for array in kernel.predict(weights, np.arange(6), np.arange(6.0)))


def test_patches_are_the_surroundings():
    image = np.random.default_rng(0).normal(3, 2, (6, 8))
    patches = patches_of(image, 3)
    standard = (image - image.mean()) / image.std()
    np.testing.assert_allclose(patches[:, 4], standard.ravel(), atol=1e-12)
    np.testing.assert_allclose(patches[8 * 2 + 3].reshape(3, 3), standard[1:4, 2:5], atol=1e-12)
    np.testing.assert_allclose(patches[0].reshape(3, 3), standard[[1, 0, 1]][:, [1, 0, 1]], atol=1e-12)
    assert patches_of(image, 4).shape == (48, 16) and not patches_of(np.full((4, 4), 2.0), 3).any()


def test_same_inputs_same_bits_whatever_ran_before(learned):
    kernel, weights, index, value = learned["dense"]
    threads = _libraries().info()
    one = kernel.fit(weights, index, value[index])
    np.random.rand(300, 300) @ np.random.rand(300, 300)
    model(specimen(5)[0], seed=3).fit(weights, index, value[index])
    again = DeepKernel(patches_of(specimen(0)[0], 7), coordinates(), kernel.settings)
    two = again.fit(weights.copy(), index.copy(), value[index])
    assert np.array_equal(one, two)
    assert all(np.array_equal(a, b) for a, b in zip(kernel.predict(one, index, value[index]), again.predict(two, index, value[index]), strict=True))
    assert _libraries().info() == threads
    assert not np.array_equal(model(specimen(0)[0], seed=1).predict(weights, index, value[index])[0], kernel.predict(weights, index, value[index])[0])


def test_threads_do_not_change_the_bits():
    code = (
        "import numpy as np, hashlib, os; from tests.test_deep_kernel import *; from tests.test_deep_kernel import _libraries\n"
        "im, v = specimen(0, 50); k = model(im); i = np.arange(0, 2500, 25); w = k.initial()\n"
        "for n in (30, 60, 100): w = k.fit(w, i[:n], v[i[:n]])\n"
        "assert {str(one['num_threads']) for one in _libraries().info()} == {os.environ['OMP_NUM_THREADS']}\n"
        "print(hashlib.sha256(b''.join(a.tobytes() for a in (w, *k.predict(w, i, v[i])))).hexdigest())"
    )
    assert python(code, OMP_NUM_THREADS="1") == python(code, OMP_NUM_THREADS="2")


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda k: k.fit(k.initial(), [1, 2], [1.0, np.nan]), "1 of 2 measured values are not finite"),
        (lambda k: k.predict(k.initial(), [1], [np.inf]), "not finite"),
        (lambda k: k.fit(k.initial(), [1, 2], [1.0, -1e300]), "1e\\+300, larger than"),
        (lambda k: k.predict(k.initial(), [1, 2], [1.0]), "one value"),
        (lambda k: k.predict(k.initial(), [-1], [1.0]), "whole numbers from 0"),
        (lambda k: k.predict(k.initial(), [SIDE**2], [1.0]), "whole numbers from 0"),
        (lambda k: k.predict(k.initial(), [0.5], [1.0]), "whole numbers from 0"),
        (lambda k: k.predict(np.zeros(3), [1], [1.0]), "start from initial"),
        (lambda k: k.predict(np.full(k.size, np.nan), [1, 2], [1.0, 2.0]), "initial"),
        (lambda k: patches_of(np.full((5, 5), np.nan), 3), "finite"),
        (lambda k: patches_of(np.zeros(5), 3), "shape"),
        (lambda k: patches_of(np.zeros((5, 5)), 7), "from 1 to 5"),
        (lambda k: DeepKernel(None), "image patches"),
        (lambda k: DeepKernel(None, None, DeepKernelSettings(embedding="coordinates")), "coordinates"),
        (lambda k: DeepKernel(np.zeros((4, 5)), None, DeepKernelSettings(embedding="convolution")), "square"),
    ],
)
def test_bad_input_is_refused_in_one_line(call, words):
    with pytest.raises(ProbeGymError, match=words) as caught:
        call(model(np.eye(SIDE)))
    assert "\n" not in str(caught.value)
