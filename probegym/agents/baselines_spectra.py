"""Practitioners' strategies for spectrum exploration: where to measure next, or how to weigh what the surrogate says.

They see what a policy sees. Those with a surrogate take its maps from the observation, but for the Gaussian process on
coordinates, which has its own. Constants were found on training seeds by benchmarks/spectrum_exploration.py --tune.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING

import numpy as np

from probegym.agents.base import Agent
from probegym.envs.episodes import Episodes
from probegym.envs.spectrum_exploration import SpectrumExplorationTask
from probegym.envs.task import Observation
from probegym.errors import ProbeGymError

if TYPE_CHECKING:
    from probegym.surrogates.deep_kernel import DeepKernel


class Explorer(Agent):
    """Picks the place that scores best among those not measured; for scenarios with ``action: locate``."""

    def begin(self, lanes: int, seed: int) -> None:
        self.lanes, self.rng = lanes, np.random.default_rng(seed)

    def act(self, observation: Observation, episodes: Episodes) -> np.ndarray:
        if episodes.task_of(SpectrumExplorationTask).settings.action != "locate":
            raise ProbeGymError(f"this agent picks places, but scenario {episodes.scenario.name!r} steers: use one with action 'locate'")
        measured = observation["measured"][:, 0] > 0
        score = np.stack([self.score({name: v[lane] for name, v in observation.items()}, lane) for lane in range(self.lanes)])
        return np.where(measured, -np.inf, score).reshape(self.lanes, -1).argmax(1)

    @abstractmethod
    def score(self, seen: Observation, lane: int) -> np.ndarray:
        """How much each place promises, (rows, columns), from one lane's observation."""


class RandomPlaces(Explorer):
    """Uniformly random, none twice."""

    def begin(self, lanes: int, seed: int) -> None:
        super().begin(lanes, seed)
        self.order: dict[int, np.ndarray] = {}

    def score(self, seen: Observation, lane: int) -> np.ndarray:
        shape = seen["measured"][0].shape
        if lane not in self.order:
            self.order[lane] = np.random.default_rng(self.rng.integers(2**63)).random(shape)
        return self.order[lane]


PLASTIC = 1.32471795724474602596
"""Root of x^3 = x + 1: multiples of its powers' inverses fill a square evenly, however many there are (Roberts 2018, the R2 sequence)."""


class EvenGrid(Explorer):
    """Evenly scattered places that get denser all over: an additive recurrence, from a random start."""

    def begin(self, lanes: int, seed: int) -> None:
        super().begin(lanes, seed)
        self.start, self.turn = self.rng.random((lanes, 2)), np.zeros(lanes, int)

    def score(self, seen: Observation, lane: int) -> np.ndarray:
        measured = seen["measured"][0] > 0
        self.turn[lane] += 1
        place = (self.start[lane] + self.turn[lane] / np.array([PLASTIC, PLASTIC**2])) % 1 * measured.shape - 0.5
        rows, columns = np.indices(measured.shape)
        return -np.hypot(rows - place[0], columns - place[1])


class BrightPixels(Explorer):
    """The brightest places of the image (sign: of brightness), none within ``radius`` pixels of a measured one."""

    def __init__(self, radius: float = 3.0, sign: int = 1):
        self.radius, self.sign = radius, sign

    def score(self, seen: Observation, lane: int) -> np.ndarray:
        from scipy.ndimage import distance_transform_edt

        near = distance_transform_edt(seen["measured"][0] <= 0) <= self.radius
        return self.sign * seen["image"][0].astype(float) - 1000.0 * near  # grey levels go to 255


class CoordinatesEI(Explorer):
    """Expected improvement by a Gaussian process on the coordinates alone. xi: in standard deviations of the values.

    What is to be improved on is the best expected value of a measured place: the best measured one is the luck of the noise.
    """

    def __init__(self, xi: float = 0.2, steps: int = 6):
        self.xi, self.steps = xi, steps

    def begin(self, lanes: int, seed: int) -> None:
        super().begin(lanes, seed)
        self.model: DeepKernel | None = None
        self.weights: np.ndarray | None = None

    def score(self, seen: Observation, lane: int) -> np.ndarray:
        from probegym.surrogates.acquisition import expected_improvement
        from probegym.surrogates.deep_kernel import DeepKernel, DeepKernelSettings

        shape = seen["measured"][0].shape
        if self.model is None or self.weights is None:
            self.model = DeepKernel(None, np.indices(shape).reshape(2, -1).T, DeepKernelSettings(embedding="coordinates", steps=self.steps))
            self.weights = np.tile(self.model.initial(), (self.lanes, 1))
        index = np.flatnonzero(seen["measured"][0] > 0)
        value = seen["value"][0].ravel()[index].astype(float)
        self.weights[lane] = self.model.fit(self.weights[lane], index, value)
        mean, deviation = self.model.predict(self.weights[lane], index, value)
        return expected_improvement(mean, deviation, mean[index].max(), self.xi).reshape(shape)


class DeepKernelExplorer(Explorer):
    """Uses the maps of the environment's surrogate, all in standard deviations of the measured values."""

    def act(self, observation: Observation, episodes: Episodes) -> np.ndarray:
        if "mean" not in observation:
            raise ProbeGymError("this agent needs a surrogate: use a scenario whose embedding is not 'none'")
        return super().act(observation, episodes)


class DeepKernelEI(DeepKernelExplorer):
    """Expected improvement by more than ``xi`` on the best expected value of a measured place."""

    def __init__(self, xi: float = 0.1):
        self.xi = xi

    def score(self, seen: Observation, lane: int) -> np.ndarray:
        return _improvement(seen, self.xi)[0]


def _improvement(seen: Observation, xi: float) -> tuple[np.ndarray, np.ndarray]:
    """Expected improvement (rows, columns) and by how many deviations the mean is above what is to be improved on."""
    from probegym.surrogates.acquisition import expected_improvement

    mean, deviation = (seen[name][0].astype(float) for name in ("mean", "deviation"))
    best = float(mean[seen["measured"][0] > 0].max())
    gain = expected_improvement(mean, deviation, best, xi)
    return gain + 1e-9 * (mean + deviation), (mean - best - xi) / np.maximum(deviation, 1e-12)  # where no place promises anything, all gains are 0


class DeepKernelUCB(DeepKernelExplorer):
    """Mean plus sqrt(``beta``) standard deviations."""

    def __init__(self, beta: float = 16.0):
        self.beta = beta

    def score(self, seen: Observation, lane: int) -> np.ndarray:
        from probegym.surrogates.acquisition import upper_confidence

        return upper_confidence(seen["mean"][0], seen["deviation"][0], self.beta)


class Curiosity(DeepKernelExplorer):
    """The place the surrogate knows least about, plus ``novelty`` times how unlike measured ones its surroundings look."""

    def __init__(self, novelty: float = 0.5):
        self.novelty = novelty

    def score(self, seen: Observation, lane: int) -> np.ndarray:
        return seen["deviation"][0] + self.novelty * seen["novelty"][0]


class Steerer(Agent):
    """Gives weights of the acquisition function; for scenarios with ``action: steer``."""

    def begin(self, lanes: int, seed: int) -> None:
        pass

    def act(self, observation: Observation, episodes: Episodes) -> np.ndarray:
        if episodes.task_of(SpectrumExplorationTask).settings.action != "steer":
            raise ProbeGymError(f"this agent steers, but scenario {episodes.scenario.name!r} picks places: use one with action 'steer'")
        return self.weights(observation)

    @abstractmethod
    def weights(self, observation: Observation) -> np.ndarray:
        """Weights (lanes, 4) of mean, deviation, novelty and way, from -1 to 1."""


class SteeredEI(Steerer):
    """The places of DeepKernelEI, by weights: expected improvement is convex in mean and deviation and grows with both, so the place where
    it is largest is also the one that its gradient there, (Phi(u), phi(u)), chooses as weights of the two.

    xi: in standard deviations of the values, as for DeepKernelEI.
    """

    def __init__(self, xi: float = 0.1):
        self.xi = xi

    def weights(self, observation: Observation) -> np.ndarray:
        from scipy.special import log_ndtr

        out = np.zeros((len(observation["budget"]), 4), np.float32)
        for lane, row in enumerate(out):
            seen = {name: value[lane] for name, value in observation.items()}
            gain, above = _improvement(seen, self.xi)
            u = above.ravel()[np.where(seen["measured"][0] > 0, -np.inf, gain).argmax()]
            slope = np.array([log_ndtr(u), -0.5 * (u * u + np.log(2 * np.pi))])
            row[:2] = np.exp(slope - slope.max())
        return out


class WeightsSchedule(Steerer):
    """Weights of the acquisition function, (4,) each, that go over linearly from ``first`` to ``last`` as the budget is used."""

    def __init__(self, first: tuple[float, ...] = (0.0, 1.0, 0.5, 0.0), last: tuple[float, ...] = (1.0, 0.3, 0.0, 0.0)):
        self.first, self.last = np.array(first, np.float32), np.array(last, np.float32)

    def weights(self, observation: Observation) -> np.ndarray:
        left = observation["budget"]
        return np.clip(left * self.first + (1 - left) * self.last, -1, 1).astype(np.float32)


class FixedWeights(WeightsSchedule):
    """The same weights of the acquisition function all the time."""

    def __init__(self, weights: tuple[float, ...] = (0.3, 1.0, 0.0, 0.0)):
        super().__init__(weights, weights)
