"""The network that judges every place of an image, and the policy that steers the acquisition function by it (torch; exported to ONNX).

From the maps of an observation the network says of every place how likely it is better than the best one measured, and by how
much if so. The policy looks at which places many weightings of the acquisition function would choose, and takes the weighting
whose place promises most. What a Gaussian process cannot know, how images and spectra of such specimens hang together, the
network has learned from others (a learned acquisition function, as Volpp et al., ICLR 2020, arXiv:1904.02642, here by supervision).
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.special import log_ndtr
from torch import nn
from torch.nn.functional import avg_pool2d, interpolate, softplus

SEEN = ("image", "measured", "value", "mean", "deviation", "novelty", "fit", "budget")
PLANES = 13
SMALLEST = 0.02  # standard deviations, of a predicted one


def planes(image, measured, value, mean, deviation, novelty, fit, budget) -> tuple[torch.Tensor, torch.Tensor]:
    """What the network sees (b, PLANES, rows, columns), and the best value so far (b, 1, 1, 1); maps are (b, 1, rows, columns)."""
    grey = image.float()
    grey = (grey - grey.mean((2, 3), keepdim=True)) / (grey.std((2, 3), keepdim=True) + 1.0)
    best = torch.where(measured > 0, value, torch.full_like(value, -20.0)).amax((2, 3), keepdim=True)
    spread = deviation.clamp_min(SMALLEST)
    ahead = (mean - best).clamp(-8, 8)
    even = torch.ones_like(grey)
    constants = [even * number[:, :, None, None] for number in (budget, fit[:, :1], torch.log(fit[:, 1:].clamp(0.1, 10)))]
    maps = [grey, measured, value.clamp(-6, 6), mean.clamp(-6, 6), ahead, deviation, torch.log(spread), (ahead / spread).clamp(-8, 2), novelty]
    return torch.cat([*maps, even * best.clamp(-2, 8), *constants], 1), best


def _block(inside: int, outside: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inside, outside, 3, padding=1, bias=False), nn.BatchNorm2d(outside), nn.ReLU(inplace=True))


class PlaceJudge(nn.Module):
    """Planes -> log odds that a place is better than the best measured one, and by how many standard deviations if it is."""

    def __init__(self, channels: tuple[int, int, int] = (16, 32, 48)):
        super().__init__()
        a, b, c = channels
        self.fine = _block(PLANES, a)
        self.middle = nn.Sequential(_block(a, b), _block(b, b))
        self.coarse = nn.Sequential(_block(b, c), _block(c, c))
        self.back_middle = _block(b + 2 * c, b)
        self.back_fine = nn.Sequential(_block(a + b, a), _block(a, a))
        self.head = nn.Conv2d(a, 2, 1)

    def forward(self, seen: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """seen: (b, PLANES, rows, columns); returns log odds and gain, (b, rows, columns) each."""
        fine = self.fine(seen)
        middle = self.middle(avg_pool2d(fine, 2))
        coarse = self.coarse(avg_pool2d(middle, 2))
        coarse = torch.cat([coarse, coarse.mean((2, 3), keepdim=True).expand_as(coarse)], 1)
        middle = self.back_middle(torch.cat([middle, interpolate(coarse, middle.shape[2:])], 1))
        out = self.head(self.back_fine(torch.cat([fine, interpolate(middle, fine.shape[2:])], 1)))
        return out[:, 0], softplus(out[:, 1])


def loss(odds: torch.Tensor, gain: torch.Tensor, ahead: torch.Tensor, free: torch.Tensor) -> torch.Tensor:
    """Cross entropy of being better plus the error of the gain where it is. All are (b, rows, columns).

    gain, ahead: true value less the best one, in standard deviations of what was measured. free: not measured.
    """
    better = (ahead > 0) & free
    entropy = nn.functional.binary_cross_entropy_with_logits(odds, better.float(), reduction="none")
    wrong = nn.functional.smooth_l1_loss(gain, ahead.clamp(0, 10), reduction="none")
    count = free.sum((1, 2)).clamp_min(1)
    lanes = (entropy * free).sum((1, 2)) / count + 0.3 * (wrong * better).sum((1, 2)) / better.sum((1, 2)).clamp_min(1)
    return lanes.mean()


def weightings(count: int, seed: int = 0) -> np.ndarray:
    """Weights (count, 4) of the acquisition function in every proportion: magnitudes over two decades, all signs but of the mean's."""
    rng = np.random.default_rng(seed)
    size = 10 ** rng.uniform(-2, 0, (count, 4)) * (rng.random((count, 4)) < (0.95, 0.9, 0.6, 0.6))
    sign = np.where(rng.random((count, 4)) < (0.9, 0.85, 0.5, 0.5), 1.0, -1.0)
    size[size.max(1) == 0, 0] = 1.0
    return (sign * size / size.max(1, keepdims=True)).astype(np.float32)


def _log_improvement() -> torch.Tensor:
    """Coefficients of a polynomial for log(phi(u) + u Phi(u)) + min(u, 0)^2 / 2 in u from -8 to 4, highest power first.

    Expected improvement is deviation x (phi(u) + u Phi(u)); taken like this its logarithm does not suffer from cancellation.
    """
    u = np.linspace(-8, 4, 2001)
    x = -np.minimum(u, 0)
    tail = np.exp(log_ndtr(-x) + 0.5 * x**2) * np.sqrt(2 * np.pi)  # of Mills, Phi(-x) / phi(x)
    below = np.log(np.maximum(1 - x * tail, 1e-300)) - 0.5 * np.log(2 * np.pi)
    above = np.log(np.exp(-0.5 * u**2) / np.sqrt(2 * np.pi) + u * np.exp(log_ndtr(u)))
    return torch.from_numpy(np.polyfit(u, np.where(u < 0, below, above), 12).astype(np.float32))


class SteeringPolicy(nn.Module):
    """The judge and the choice of weights.

    A place is worth the surrogate's expected improvement by more than ``margin``, of a deviation that is ``stretch`` times as large
    when the whole budget is left and as it is at its end, times what the judge expects of it to a power: ``trust`` of the budget
    that is left.
    """

    improvement: torch.Tensor
    weightings: torch.Tensor
    place: torch.Tensor

    def __init__(self, judge: PlaceJudge, shape: tuple[int, int], candidates: int = 512,
                 trust: float = 0.5, stretch: float = 1.0, margin: float = 0.1):  # fmt: skip
        super().__init__()
        self.judge, self.trust, self.stretch, self.margin = judge, trust, stretch, margin
        self.register_buffer("improvement", _log_improvement())
        self.register_buffer("weightings", torch.from_numpy(weightings(candidates)))
        place = torch.stack(torch.meshgrid(*(torch.arange(n) for n in shape), indexing="ij")).float() / max(shape)
        self.register_buffer("place", place.reshape(2, -1))

    def worth(self, image, measured, value, mean, deviation, novelty, fit, budget) -> torch.Tensor:
        """What measuring each place promises, (b, places), in logarithms; maps are (b, 1, rows, columns)."""
        seen, _ = planes(image, measured, value, mean, deviation, novelty, fit, budget)
        best = torch.where(measured > 0, mean, torch.full_like(mean, -20.0)).amax((2, 3), keepdim=True)  # the best measured one is luck of the noise
        odds, gain = self.judge(seen)
        promise = nn.functional.logsigmoid(odds) + torch.log(gain + 1e-3)
        spread = (deviation * (1 + (self.stretch - 1) * budget[:, :, None, None])).clamp_min(1e-4)
        u = ((mean - best - self.margin) / spread).clamp(-8, 4)
        log = torch.zeros_like(u)
        for coefficient in self.improvement:
            log = log * u + coefficient
        improvement = torch.log(spread) + log - 0.5 * u.clamp_max(0) ** 2
        return (improvement[:, 0] + self.trust * budget[:, :, None] * promise).flatten(1)

    def forward(self, image, measured, value, mean, deviation, novelty, fit, budget, before):
        """Inputs as the environment shows them and the places measured before (b, places); returns (weights (b, 4), places measured)."""
        now = measured.flatten(1)
        fresh = (now - before).clamp_min(0)
        count = fresh.sum(1, keepdim=True)
        last = fresh @ self.place.T / count.clamp_min(1)  # (b, 2)
        away = ((self.place[None] - last[:, :, None]) ** 2).sum(1).clamp_min(1e-12).sqrt()
        taken = -1e6 * (now > 0).float()
        parts = torch.stack([mean.flatten(1), deviation.flatten(1), novelty.flatten(1), -away * (count == 1), taken], 1)
        weights = torch.cat([self.weightings, torch.ones_like(self.weightings[:, :1])], 1)
        chosen = torch.matmul(weights, parts).argmax(2)  # (b, candidates)
        worth = self.worth(image, measured, value, mean, deviation, novelty, fit, budget).gather(1, chosen)
        moving = (self.weightings[:, 3] != 0).float()
        worth = worth - 1e6 * moving * (count != 1)  # after the first places it is not known which was the last
        return self.weightings[worth.argmax(1)], now
