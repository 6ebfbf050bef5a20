"""Deep kernel learning on image patches: a Gaussian process over what a small network makes of a pixel's surroundings.

k(x, x') = s RBF(g_w(x), g_w(x')) with w and the kernel's parameters from the marginal likelihood (Wilson, Hu, Salakhutdinov & Xing,
AISTATS 2016, 10.48550/arXiv.1511.02222; on microscope images: Roccapriore, Kalinin & Ziatdinov, Adv. Sci. 2022, 10.1002/advs.202203422).

With tens of points a network can explain anything and the posterior collapses (Ober, Rasmussen & van der Wilk, UAI 2021,
10.48550/arXiv.2102.12108). So: few latent dimensions; g_w is the patch's leading principal components plus a network that starts
small; and what is maximised is the posterior of all parameters under Gaussian priors around that start (of the logarithms of length
scales, amplitude and noise too), not the bare likelihood.

GPyTorch's exact GP computes the same numbers (tests/test_deep_kernel.py) but takes ten times as long for the 2500 variances alone
(benchmarks/surrogates.py); so the few formulas are written out here in NumPy, which a microscope's computer has too.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict, Field
from scipy import linalg, optimize

from probegym.errors import ProbeGymError
from probegym.surrogates.evidence import Kernel, evidence, factor, inverted, rbf
from probegym.surrogates.threads import one_thread

COMPONENTS = 24  # most principal components of a patch that the dense network sees
JITTER = 1e-8  # of the amplitude, added to the noise, so that the factor exists whatever the optimiser tries
FARTHEST = 6.0  # prior deviations that a weight counts at most: farther ones, which a line search tries, would overflow
LARGEST = 1e150  # measured value: the squares of larger ones are not finite
WHITENING = 0.02  # of the largest variance, added to each: components that are mostly noise stay small


class DeepKernelSettings(BaseModel):
    """How a deep kernel is built and trained; deviations and noise in units of the standardised target."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    embedding: Literal["dense", "convolution", "coordinates"] = "dense"
    hidden: tuple[int, ...] | None = Field(None, min_length=1, max_length=4)  # widths of layers, or channels; None: 32, 32 or 8, 16
    latent: int = Field(3, ge=1, le=16)  # dimensions of the embedding
    steps: int = Field(5, ge=0, le=1000)  # of L-BFGS, per update
    network: float = Field(0.5, gt=0)  # deviation of the network's part of the embedding at the start
    freedom: float = Field(0.1, gt=0)  # deviation of a weight's prior around its start, in units of its layer's deviation
    length_scale: float = Field(1.5, gt=0)  # prior median, in units of the embedding's deviation over the image
    local: float = Field(0.6, ge=0)  # prior median of the deviation that depends on the place alone; 0: none
    noise: float = Field(0.4, gt=0)  # prior median of the noise's deviation
    noise_floor: float = Field(1e-2, gt=0)  # least deviation of the noise
    seed: int = 0

    @property
    def widths(self) -> tuple[int, ...]:
        """Of the network's hidden layers."""
        return self.hidden or ((8, 16) if self.embedding == "convolution" else (32, 32))


class _Part(NamedTuple):
    """A piece of the flat weights; its value is start + deviation * weight, so the prior of every weight is a unit normal."""

    name: str
    start: np.ndarray
    deviation: float


class DeepKernel:
    """A Gaussian process on the pixels of one image; learned state lives in the flat weights that the methods take and return.

    patches: (pixels, features), each row the surroundings of a pixel (see :func:`patches_of`). coordinates: (pixels, 2) or None,
    for the part of the covariance that depends on the place alone, and as the only input of the embedding "coordinates".
    """

    _skip: np.ndarray
    _inputs: np.ndarray

    def __init__(self, patches: np.ndarray | None, coordinates: np.ndarray | None = None, settings: DeepKernelSettings | None = None):
        self.settings = s = settings or DeepKernelSettings()
        self.plain = s.embedding == "coordinates"
        self._places = places = None if coordinates is None else _standardised(coordinates, "coordinates")
        if self.plain:
            if places is None:
                raise ProbeGymError("the embedding 'coordinates' needs the pixels' coordinates: give them, or choose 'dense'")
            self._skip = self._inputs = places
        else:
            if patches is None:
                raise ProbeGymError(f"the embedding {s.embedding!r} needs image patches: give them, or choose 'coordinates'")
            patches = _finite(patches, "patches")
            components = principal_components(patches, COMPONENTS)
            self._skip = np.pad(components, ((0, 0), (0, max(0, s.latent - components.shape[1]))))[:, : s.latent].copy()
            self._inputs = patches if s.embedding == "convolution" else components
        self._windows = _windows(self._inputs.shape[1], len(s.widths)) if s.embedding == "convolution" else ()
        self.local = not self.plain and places is not None and s.local > 0
        self._parts = self._network() + self._kernel_parts()
        sizes = [part.start.size for part in self._parts]
        self._start = np.concatenate([part.start.ravel() for part in self._parts])
        self._deviation = np.repeat([part.deviation for part in self._parts], sizes)
        self._splits = np.cumsum(sizes)[:-1]
        self.size = len(self._start)

    # ---- parameters ----

    def _network(self) -> list[_Part]:
        if self.plain:
            return []
        s, generator = self.settings, np.random.default_rng(self.settings.seed)
        parts: list[_Part] = []
        width = 1 if self._windows else self._inputs.shape[1]
        for index, out in enumerate((*s.widths, s.latent)):
            last = index == len(s.widths)
            wide = width * (self._windows[index].shape[1] if self._windows and not last else 1)
            deviation = (s.network if last else math.sqrt(2)) / math.sqrt(wide)
            start = deviation * generator.standard_normal((out, wide))
            parts += [_Part(f"weight {index}", start, s.freedom * deviation)]
            if not last:  # an offset of the embedding changes nothing
                parts += [_Part(f"bias {index}", np.zeros(out), s.freedom)]
            width = out
        return parts

    def _kernel_parts(self) -> list[_Part]:
        s = self.settings

        def part(name: str, median: float, deviation: float, size: int = 1) -> _Part:
            return _Part(name, np.full(size, math.log(median)), deviation)

        dimensions = self._skip.shape[1]
        scale = s.length_scale * (0.4 if self.plain else math.sqrt(dimensions))
        parts = [part("length_scale", scale, 0.7, dimensions), part("amplitude", 1.0, 0.5), part("noise", s.noise, 1.0)]
        parts += [_Part("mean", np.zeros(1), 0.5)]
        return parts + ([part("local_length", 0.4, 0.7), part("local_amplitude", s.local, 0.7)] if self.local else [])

    def initial(self) -> np.ndarray:
        """Weights (size,) before anything was learned: zeros, the centre of their prior; the network's random start is the seed's."""
        return np.zeros(self.size)

    def _unpacked(self, weights: np.ndarray) -> dict[str, np.ndarray]:
        pieces = np.split(self._start + self._deviation * weights.clip(-FARTHEST, FARTHEST), self._splits)
        return {part.name: piece.reshape(part.start.shape) for part, piece in zip(self._parts, pieces, strict=True)}

    def _embedded(self, values: dict[str, np.ndarray], index: np.ndarray | slice, tape: list[tuple[np.ndarray, ...]] | None = None) -> np.ndarray:
        """The embedding (n, latent) of pixels; on the tape go every layer's input and what its nonlinearity was given, last of all the last input."""
        tape, x = [] if tape is None else tape, self._inputs[index]
        if self.plain:
            return x
        depth, places, pixels = len(self.settings.widths), len(x), x.shape[1]
        for layer in range(depth):
            if self._windows:  # a convolution: every window of the patch is one row
                windows = self._windows[layer]
                x = x.reshape(places, pixels, x.shape[1] if layer else 1).take(windows, 1)
                x = x.reshape(places * len(windows), windows.shape[1] * x.shape[3])
                pixels = len(windows)
            sums = x @ values[f"weight {layer}"].T
            sums += values[f"bias {layer}"]
            tape.append((x, sums))
            x = sums * _gate(sums)
        if self._windows:
            x = x.reshape(places, pixels, x.shape[1]).mean(1)
        tape.append((x,))
        return self._skip[index] + x @ values[f"weight {depth}"].T

    def _pulled_back(self, values: dict[str, np.ndarray], tape: list[tuple[np.ndarray, ...]], by_z: np.ndarray) -> list[np.ndarray]:
        """Gradients by the network's parts, in their order, from that by the embedding (n, latent)."""
        if self.plain:
            return []
        depth = len(self.settings.widths)
        gradients, by_x = [by_z.T @ tape[depth][0]], by_z @ values[f"weight {depth}"]
        if self._windows:
            pixels = len(self._windows[-1])
            by_x = (by_x / pixels).repeat(pixels, 0)
        for layer in range(depth - 1, -1, -1):
            x, sums = tape[layer]
            gate = _gate(sums)
            by_sums = by_x * gate * (1 + sums * (1 - gate))
            gradients = [by_sums.T @ x, by_sums.sum(0), *gradients]
            if layer:
                by_x = by_sums @ values[f"weight {layer}"]
                if self._windows:
                    by_x = _spread(by_x, self._windows[layer], len(self._windows[layer - 1]), len(by_z))
        return gradients

    def _kernel(self, values: dict[str, np.ndarray]) -> Kernel:
        amplitude = np.exp(2 * values["amplitude"])
        noise = np.exp(2 * values["noise"]) + self.settings.noise_floor**2 + JITTER * amplitude
        local = (np.exp(values["local_length"]), np.exp(2 * values["local_amplitude"])) if self.local else (None, None)
        return Kernel(np.exp(values["length_scale"]), amplitude, noise, values["mean"], *local)

    def _covariance(self, kernel: Kernel, z1: np.ndarray, p1: np.ndarray | None, z2: np.ndarray, p2: np.ndarray | None) -> np.ndarray:
        out = kernel.amplitude * rbf(z1 / kernel.length_scale, z2 / kernel.length_scale)
        if kernel.local is not None and p1 is not None and p2 is not None:
            length, amplitude = kernel.local
            out = out + amplitude * rbf(p1 / length, p2 / length)
        return out

    def _at(self, values: dict[str, np.ndarray], index: np.ndarray | slice) -> tuple[np.ndarray, np.ndarray | None]:
        return self._embedded(values, index), self._places_of(index)

    def _places_of(self, index: np.ndarray | slice) -> np.ndarray | None:
        return self._places[index] if self.local and self._places is not None else None

    # ---- learning and predicting ----

    @one_thread()
    def fit(self, weights: np.ndarray, index: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Weights a few steps of training on, (size,): steps up the log marginal likelihood and the log prior, never down.

        index: (n,) measured pixels, repeated ones allowed. y: (n,) their values, in any unit. With n < 2 or a constant y there is
        nothing to learn and the weights come back as they are. Raises ProbeGymError for values that are not finite.
        """
        start, at, y = self._checked(weights, index, y)
        target, _, scale = _standardised_target(y)
        if scale is None or not self.settings.steps:
            return start

        least, found = math.inf, start

        def loss(tried: np.ndarray) -> tuple[float, np.ndarray]:
            nonlocal least, found
            value, gradient = self._loss(tried, at, target)
            if value < least:  # where evaluations run out within a line search, its last point is not its best
                least, found = value, tried.copy()
            return value, gradient

        steps = self.settings.steps
        optimize.minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": steps, "maxfun": 2 * steps, "maxcor": 10, "ftol": 1e-12, "gtol": 1e-7})
        return found

    def _loss(self, weights: np.ndarray, index: np.ndarray, target: np.ndarray) -> tuple[float, np.ndarray]:
        """Minus the log posterior of the weights without its constants, and its gradient (size,)."""
        values = self._unpacked(weights)
        tape: list[tuple[np.ndarray, ...]] = []
        kernel = self._kernel(values)
        z = self._embedded(values, index, tape)
        value, by_z, by_kernel = evidence(kernel, z, self._places_of(index), target)
        # the kernel's parameters are logarithms of its numbers, or of their roots; the jitter grows with the amplitude
        amplitude, noise = kernel.amplitude, kernel.noise - self.settings.noise_floor**2 - JITTER * kernel.amplitude
        by_parts = [by_kernel.length_scale * kernel.length_scale, 2 * amplitude * (by_kernel.amplitude + JITTER * by_kernel.noise), 2 * noise * by_kernel.noise, by_kernel.mean]
        if kernel.local is not None and by_kernel.local is not None:
            (length, local_amplitude), (by_length, by_amplitude) = kernel.local, by_kernel.local
            by_parts += [by_length * length, 2 * local_amplitude * by_amplitude]
        flat = np.concatenate([np.ravel(part) for part in (*self._pulled_back(values, tape, by_z), *by_parts)])
        gradient = weights + flat * self._deviation * (np.abs(weights) <= FARTHEST)
        return value + 0.5 * float(weights @ weights), gradient

    @one_thread()
    def log_likelihood(self, weights: np.ndarray, index: np.ndarray, y: np.ndarray) -> float:
        """Natural logarithm of the marginal likelihood of the standardised values (n,), without the prior of the weights."""
        given, at, y = self._checked(weights, index, y)
        target, _, _ = _standardised_target(y)
        loss = self._loss(given, at, target)[0] - 0.5 * float(given @ given)
        return -loss - 0.5 * len(y) * math.log(2 * math.pi)

    @one_thread()
    def predict(self, weights: np.ndarray, index: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation (pixels,) of what is behind every pixel, noise not counted, in the unit of y.

        Without measured points the mean is 0 and the unit 1. Raises ProbeGymError for values that are not finite.
        """
        given, at, y = self._checked(weights, index, y)
        target, middle, scale = _standardised_target(y)
        values = self._unpacked(given)
        kernel = self._kernel(values)
        z, p = self._at(values, slice(None))
        here = z[at], None if p is None else p[at]
        cholesky = factor(self._covariance(kernel, *here, *here), kernel.noise)
        across = linalg.solve_triangular(cholesky, self._covariance(kernel, *here, z, p), lower=True, check_finite=False)
        residual = linalg.solve_triangular(cholesky, target - kernel.mean, lower=True, check_finite=False)
        mean = kernel.mean + residual @ across
        prior = kernel.amplitude + (0.0 if kernel.local_amplitude is None else kernel.local_amplitude)
        variance = np.maximum(prior - np.einsum("ij,ij->j", across, across), 0)
        unit = _unit(y, scale)
        return middle + unit * mean, unit * np.sqrt(variance)

    @one_thread()
    def leave_one_out(self, weights: np.ndarray, index: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Prediction and its standard deviation, noise counted, (n,) each, of every measured value from all the others.

        In closed form from the inverse of the covariance (Rasmussen & Williams 2006, eq. 5.12). A place measured twice is
        predicted from its other measurement.
        """
        given, at, y = self._checked(weights, index, y)
        target, middle, scale = _standardised_target(y)
        values = self._unpacked(given)
        kernel = self._kernel(values)
        here = self._at(values, at)
        inverse = inverted(factor(self._covariance(kernel, *here, *here), kernel.noise))
        variance = 1 / np.diagonal(inverse)
        predicted = target - variance * (inverse @ (target - kernel.mean))
        unit = _unit(y, scale)
        return middle + unit * predicted, unit * np.sqrt(variance)

    def _checked(self, weights, index, y) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        weights, index, y = np.array(weights, float), np.array(index).reshape(-1), np.asarray(y, float).reshape(-1)
        if weights.shape != (self.size,):
            raise ProbeGymError(f"the deep kernel has {self.size} weights, got an array of shape {weights.shape}: start from initial()")
        if len(index) != len(y):
            raise ProbeGymError(f"each measured pixel needs one value, got {len(index)} pixels and {len(y)} values")
        if len(index) and (index.dtype.kind not in "iu" or index.min() < 0 or index.max() >= len(self._skip)):
            raise ProbeGymError(f"measured pixels must be whole numbers from 0 to {len(self._skip) - 1}")
        if not np.isfinite(weights).all():
            raise ProbeGymError("the deep kernel's weights must be finite: start from initial()")
        if not np.isfinite(y).all():
            raise ProbeGymError(f"{(~np.isfinite(y)).sum()} of {len(y)} measured values are not finite: leave those pixels out")
        if np.abs(y).max(initial=0) > LARGEST:
            raise ProbeGymError(f"a measured value is {np.abs(y).max():g}, larger than {LARGEST:g}: take another unit, or logarithms")
        return weights, index.astype(np.int64), y


def _standardised_target(y: np.ndarray) -> tuple[np.ndarray, float, float | None]:
    """(y - mean) / deviation, the mean, and the deviation; None for the last where the values do not differ."""
    middle = float(y.mean()) if len(y) else 0.0
    scale = float((y - middle).std()) if len(y) > 1 else 0.0
    if not scale > 1e-12 * abs(middle):
        return np.zeros(len(y)), middle, None
    return (y - middle) / scale, middle, scale


def _unit(y: np.ndarray, scale: float | None) -> float:
    """What one standard deviation is in the unit of y; without any spread, the size of the values, else 1."""
    return scale if scale is not None else float(np.abs(y).max(initial=0.0)) or 1.0


def _gate(sums: np.ndarray) -> np.ndarray:
    """The logistic function, by which a sum is multiplied to give its SiLU; it does not overflow."""
    return 0.5 * np.tanh(0.5 * sums) + 0.5


def _finite(array: np.ndarray, name: str) -> np.ndarray:
    array = np.asarray(array, float)
    if array.ndim != 2 or not array.size or not np.isfinite(array).all():
        raise ProbeGymError(f"{name} must be finite numbers of shape (pixels, features), got shape {array.shape}")
    return array


def _standardised(array: np.ndarray, name: str) -> np.ndarray:
    array = _finite(array, name)
    centred = array - array.mean(0)
    return centred / max(float(centred.std()), 1e-12)


def principal_components(patches: np.ndarray, most: int) -> np.ndarray:
    """Leading principal components (pixels, k <= most) of patches (pixels, features), whitened down to WHITENING of the largest.

    The sign of each is that of its largest loading. Loadings are rounded, so that threads in LAPACK do not change the bits.
    """
    centred = patches - patches.mean(0)
    loadings = np.linalg.eigh(centred.T @ centred)[1][:, ::-1][:, :most]
    loadings = np.round(loadings * np.sign(loadings[np.abs(loadings).argmax(0), np.arange(loadings.shape[1])]), 6)
    components = centred @ loadings
    variances = (components**2).mean(0)
    return components / np.sqrt(variances + max(WHITENING * variances[0], 1e-12))


def patches_of(image: np.ndarray, size: int) -> np.ndarray:
    """The surroundings (rows * cols, size * size) of every pixel of an image (rows, cols), reflected at its borders, standardised.

    Mean 0 and deviation 1 over the image; zeros for a constant image. Raises ProbeGymError for other shapes, values that are not
    finite, and sizes larger than the image. With an even size the pixel is the one below and right of the middle.
    """
    image = np.asarray(image, float)
    if image.ndim != 2 or not np.isfinite(image).all():
        raise ProbeGymError(f"an image must be finite numbers of shape (rows, cols), got shape {image.shape}")
    if not 1 <= size <= min(image.shape):
        raise ProbeGymError(f"a patch must be from 1 to {min(image.shape)} pixels wide, got {size}")
    deviation = float(image.std())
    standard = (image - image.mean()) / deviation if deviation > 1e-12 * float(np.abs(image).max()) else np.zeros(image.shape)
    around = np.pad(standard, (size // 2, (size - 1) // 2), mode="reflect")
    return np.lib.stride_tricks.sliding_window_view(around, (size, size)).reshape(image.size, size * size).copy()


def _spread(windows: np.ndarray, pixels: np.ndarray, count: int, places: int) -> np.ndarray:
    """What the windows (places * windows, 9 * channels) of a convolution hold, summed at their pixels: (places * count, channels)."""
    channels = windows.shape[1] // pixels.shape[1]
    windows = windows.reshape(places, *pixels.shape, channels)
    out = np.zeros((places, count, channels))
    for part in range(pixels.shape[1]):  # no pixel has the same part of two windows
        out[:, pixels[:, part]] += windows[:, :, part]
    return out.reshape(places * count, channels)


def _windows(features: int, layers: int) -> tuple[np.ndarray, ...]:
    """Of each convolution the pixels (windows, 9) that its windows see; the first moves on by two pixels, the others by one.

    Patches have side^2 features; where fewer than three pixels are left a window is as small as they are.
    """
    side, out = math.isqrt(features), []
    if side * side != features:
        raise ProbeGymError(f"convolutions need square patches, got {features} features")
    for layer in range(layers):
        width, stride = min(3, side), 1 if layer else 2
        left = (side - width) // stride + 1
        first = stride * (side * np.arange(left)[:, None] + np.arange(left)).reshape(-1, 1)
        out.append(first + (side * np.arange(width)[:, None] + np.arange(width)).reshape(1, -1))
        side = left
    return tuple(out)
