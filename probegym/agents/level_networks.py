"""The network that chooses the next level, from what the environment shows (torch; exported to ONNX).

One network scores every level by the same weights. It starts from a rule: what a level promises for its price, the way there
shared among the maps that would follow; what it learns is added to the logarithm of that.
"""

from __future__ import annotations

import torch
from torch import nn

SEEN = ("variance", "flakes", "correlations", "instrument", "price", "repeat", "reduction", "promise", "target", "uncertainty", "budget")
OWN, COMMON = 13, 4  # features of a level; of all, besides two for each pair of neighbouring levels
LEAST = 1e-3  # rate of gain below which differences do not matter


def rates(gain: torch.Tensor, price: torch.Tensor, again: torch.Tensor, left: torch.Tensor) -> torch.Tensor:
    """Gain for the price (b, levels) of the best number of maps at each level, the way there shared among them.

    gain: (b, levels, flakes) of one map at each place; price, again: (b, levels) of the first map and of one more; left: (b, 1).
    Zero where not even one map fits; of the overview one map counts.
    """
    best = gain.sort(-1, descending=True).values
    several = torch.cat([torch.zeros_like(price[:, :1]), torch.ones_like(price[:, 1:])], 1)[..., None]
    count = torch.arange(gain.shape[-1], dtype=gain.dtype)
    total = best[..., :1] + several * (best.cumsum(-1) - best[..., :1])
    cost = price[..., None] + again[..., None] * count
    return torch.where(cost <= left[..., None] + 1e-6, total / cost.clamp_min(1e-6), torch.zeros_like(total)).amax(-1)


class LevelScorer(nn.Module):
    """Scores (b, levels) of the levels; the highest is measured. levels: how many; hidden: width."""

    def __init__(self, levels: int, hidden: int = 32):
        super().__init__()
        self.levels = levels
        self.body = nn.Sequential(nn.Linear(OWN + COMMON + 3 * levels - 2, hidden), nn.Tanh(), nn.Linear(hidden, hidden), nn.Tanh())
        self.head = nn.Linear(hidden, 1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        self.sharpness = nn.Parameter(torch.tensor(3.0))

    def features(self, variance, flakes, correlations, instrument, price, repeat, reduction, promise, target, uncertainty, budget):
        """What the scores are made of: (b, levels, features), the rule (b, levels), and whether a level fits the time (b, levels)."""
        there = flakes[..., 3]
        count = there.sum(1, keepdim=True).clamp_min(1.0)
        rate, hope = (rates(gain, price, repeat, budget) for gain in (reduction, promise))
        mean_variance = variance.sum(2) / count
        own = [torch.log(v + LEAST) for v in (rate, hope, reduction.amax(2) / price.clamp_min(1e-6), promise.amax(2) / price.clamp_min(1e-6))]
        own += [10 * price, 10 * repeat, torch.log(price.clamp_min(1e-6) / budget.clamp_min(1e-3)), instrument, mean_variance, torch.log(mean_variance + 0.01),
                target, 10 * promise.amax(2), promise.sum(2)]  # fmt: skip
        common = torch.cat([budget, uncertainty, torch.log(uncertainty + 0.01), count / there.shape[1], correlations.abs()], 1)
        number = torch.zeros_like(price)[..., None] + torch.eye(self.levels)
        together = torch.cat([torch.stack(own, 2), common[:, None].expand(-1, self.levels, -1), number], 2)
        fits = price <= budget + 1e-6
        cheapest = price <= price.amin(1, keepdim=True)
        return together, torch.log(hope + LEAST), fits | (cheapest & ~fits.any(1, keepdim=True))

    def actions(self, number: torch.Tensor) -> torch.Tensor:
        """The action of a choice, which is its number."""
        return number

    def scores(self, features: torch.Tensor, rule: torch.Tensor, fits: torch.Tensor) -> torch.Tensor:
        """Logarithms of chances, up to a constant (b, levels)."""
        learned = self.head(self.body(features))[..., 0]
        return torch.where(fits, self.sharpness * rule + learned, torch.full_like(rule, -1e9))

    def forward(self, *seen: torch.Tensor) -> torch.Tensor:
        """Level (b,) from observations in the order of SEEN."""
        return self.scores(*self.features(*seen)).argmax(1)
