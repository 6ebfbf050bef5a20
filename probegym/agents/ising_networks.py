"""The network that chooses the next anneal and image, from what the environment shows (torch; exported to ONNX).

Every cycle that images the whole lattice is scored by the same weights. The score starts from a rule, the expected fall of J's uncertainty for the time,
damped where atoms would hardly move; what the network learns is a factor on what an image really tells.
"""

from __future__ import annotations

import torch
from torch import nn

from probegym.envs.ising_belief import BOLTZMANN

SEEN = ("mean", "deviation", "gain", "promise", "anneal_price", "image_price", "moved", "overlap", "order", "misfit", "budget")
OWN, COMMON = 13, 12  # features of a cycle, and of all
LEAST = 1e-3  # nats below which differences do not matter
STUCK = 0.5  # weight of an image below which its atoms are taken not to have moved


class CycleScorer(nn.Module):
    """Chooses cycles. temperatures (K), fields (eV), holds (s), how many dwell times, means and deviations of the prior (3,); usual: rate (1/s at 600 K),
    barrier (eV) and updates of a relaxed lattice; hidden: width.
    """

    temperatures: torch.Tensor
    fields: torch.Tensor
    holds: torch.Tensor
    prior_mean: torch.Tensor
    prior_deviation: torch.Tensor
    updates: torch.Tensor

    def __init__(self, temperatures, fields, holds, dwells: int, mean, deviation, usual: tuple[float, float, float] = (1.0, 0.35, 30.0), hidden: int = 32):
        super().__init__()
        self.dwells = dwells
        for name, value in (("temperatures", temperatures), ("fields", fields), ("holds", holds), ("prior_mean", mean), ("prior_deviation", deviation)):
            self.register_buffer(name, torch.as_tensor(value, dtype=torch.float32))
        rate, barrier, relaxed = usual
        often = rate * torch.exp(barrier / BOLTZMANN * (1 / 600.0 - 1 / self.temperatures))
        self.register_buffer("updates", torch.log(often[:, None] * self.holds / relaxed))  # (temperatures, holds)
        self.body = nn.Sequential(nn.Linear(OWN + COMMON, hidden), nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU())
        self.head = nn.Linear(hidden, 1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def features(self, mean, deviation, gain, promise, anneal_price, image_price, moved, overlap, order, misfit, budget):
        """Of all n cycles that image the whole lattice: features (b, n, OWN + COMMON), log gain by the rule, prices and whether they fit (b, n)."""
        shape = (len(self.temperatures), len(self.fields), len(self.holds), self.dwells)
        theta = self.prior_mean + self.prior_deviation * mean

        def spread(values: torch.Tensor, *axes: int) -> torch.Tensor:
            """(b, ...) with the named axes of ``shape`` (from 1), as (b, n)."""
            sizes = [shape[axis - 1] if axis in axes else 1 for axis in range(1, 5)]
            return values.reshape(-1, *sizes).expand(-1, *shape).flatten(1)

        known = self.updates + torch.zeros_like(moved)
        stuck = torch.where((moved >= 0) & (moved < STUCK), known, torch.full_like(known, -9.0)).amax((1, 2))[:, None, None]
        loose = torch.where(moved >= STUCK, known, torch.full_like(known, 9.0)).amin((1, 2))[:, None, None]
        relaxed = torch.log(1 - torch.exp(-torch.exp(known)) + LEAST)
        blocked = torch.where((known <= stuck + 1e-4) & (stuck > -8), torch.full_like(known, -5.0), torch.zeros_like(known))
        beta = 1 / (BOLTZMANN * self.temperatures)
        balance = (beta[:, None] * (theta[:, 1:2] + self.fields)[:, None]).abs()
        price = spread(anneal_price, 1, 3) + spread(image_price[..., 0], 4)
        told, hoped = (torch.log(spread(v[..., 0], 1, 2, 4) + LEAST) for v in (gain, promise))
        dwells = [spread(torch.ones_like(budget) * (torch.arange(self.dwells) == i), 4) for i in range(2)]
        own = [told, hoped, spread(known, 1, 3), spread(relaxed, 1, 3), spread((known - stuck).clamp(-3, 6), 1, 3), spread((known - loose).clamp(-6, 3), 1, 3),
               spread(moved, 1, 3), spread(2 * beta * theta[:, :1], 1), spread(balance, 1, 2), spread(balance * 50 * theta[:, :1, None].abs(), 1, 2),
               torch.log(price / 0.03), *dwells]  # fmt: skip
        common = torch.cat([mean, deviation, overlap, order, misfit, budget, torch.log(budget + 0.02), moved.amax((1, 2))[:, None]], 1)
        features = torch.cat([torch.stack(own, 2), common[:, None].expand(-1, price.shape[1], -1)], 2)
        return features, told + spread(relaxed + blocked, 1, 3), price, price <= budget + 1e-6

    def gains(self, features: torch.Tensor, rule: torch.Tensor) -> torch.Tensor:
        """Logarithm of what images will tell, nats (b, n) or (n,)."""
        return rule + self.head(self.body(features))[..., 0]

    def scores(self, features, rule, price, fits) -> torch.Tensor:
        """Logarithm of gain for the time (b, n); the highest is done. What does not fit comes last."""
        return torch.where(fits, self.gains(features, rule) - torch.log(price), torch.full_like(rule, -1e9))

    def actions(self, number: torch.Tensor) -> torch.Tensor:
        """Actions (b, 5) for numbers of cycles (b,)."""
        parts = []
        for size in (self.dwells, len(self.holds), len(self.fields), len(self.temperatures)):
            parts.append(torch.remainder(number, size))
            number = torch.div(number, size, rounding_mode="floor")
        dwell, hold, field, temperature = parts
        return torch.stack([temperature, field, hold + 1, dwell, torch.zeros_like(dwell)], 1)

    def forward(self, *seen: torch.Tensor) -> torch.Tensor:
        """Actions (b, 5) from observations in the order of SEEN."""
        return self.actions(self.scores(*self.features(*seen)).argmax(1))
