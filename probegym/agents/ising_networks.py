"""The network that chooses the next anneal and image, from what the environment shows (torch; exported to ONNX).

Every possible cycle is scored by the same weights. The score starts from a rule, the expected fall of J's uncertainty for the time,
damped where atoms would hardly move; what the network learns is a factor on what an image really tells.
"""

from __future__ import annotations

import torch
from torch import nn

SEEN = ("mean", "deviation", "gain", "promise", "again", "again_promise", "anneal_price", "image_price", "moved", "overlap", "order", "misfit", "fresh", "budget")
OWN, COMMON = 15, 13  # features of a cycle, and of all
LEAST = 1e-3  # nats below which differences do not matter
BOLTZMANN = 8.617333262e-5  # eV/K
STUCK = 0.5  # weight of an image below which its atoms are taken not to have moved


class CycleScorer(nn.Module):
    """Chooses cycles. temperatures (K), fields (eV), holds (s), how many dwell times, means and deviations of the prior (3,); usual: rate (1/s at 600 K),
    barrier (eV) and updates of a relaxed lattice; hidden: width.
    """

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

    def features(self, mean, deviation, gain, promise, again, again_promise, anneal_price, image_price, moved, overlap, order, misfit, fresh, budget):
        """Of all n cycles, those without an anneal last: features (b, n, OWN + COMMON), log gain by the rule, prices and whether they fit (b, n)."""
        t, f, h, d = len(self.temperatures), len(self.fields), len(self.holds), self.dwells
        theta = self.prior_mean + self.prior_deviation * mean
        shape = (t, f, h, d, 2)

        def spread(values: torch.Tensor, *axes: int) -> torch.Tensor:
            """(b, ...) with the named axes of ``shape`` (from 1), as (b, n)."""
            sizes = [shape[axis - 1] if axis in axes else 1 for axis in range(1, 6)]
            return values.reshape(-1, *sizes).expand(-1, *shape).flatten(1)

        each = torch.ones_like(budget)
        known = self.updates + torch.zeros_like(moved)
        stuck = torch.where((moved >= 0) & (moved < STUCK), known, torch.full_like(known, -9.0)).amax((1, 2))[:, None, None]
        loose = torch.where(moved >= STUCK, known, torch.full_like(known, 9.0)).amin((1, 2))[:, None, None]
        tried = torch.clamp(moved, -1, 1)
        relaxed = torch.log(1 - torch.exp(-torch.exp(known)) + LEAST)
        blocked = torch.where((known <= stuck + 1e-4) & (stuck > -8), torch.full_like(known, -5.0), torch.zeros_like(known))
        beta = 1 / (BOLTZMANN * self.temperatures)
        k = beta * theta[:, :1]
        field = theta[:, 1:2] + self.fields
        balance = beta[:, None] * field[:, None]
        price = spread(anneal_price, 1, 3) + spread(image_price, 4, 5)
        rule = torch.log(spread(gain, 1, 2, 4, 5) + LEAST) + spread(relaxed + blocked, 1, 3)
        own = [torch.log(spread(gain, 1, 2, 4, 5) + LEAST), torch.log(spread(promise, 1, 2, 4, 5) + LEAST), spread(known, 1, 3), spread(relaxed, 1, 3),
               spread((known - stuck).clamp(-3, 6), 1, 3), spread((known - loose).clamp(-6, 3), 1, 3), spread(tried, 1, 3), spread(2 * k, 1),
               spread(balance.abs(), 1, 2), spread(balance.abs() * theta[:, :1, None].abs() * 50, 1, 2), torch.log(price / 0.03)]  # fmt: skip
        kinds = [spread(each * (torch.arange(d) == i), 4) for i in range(2)]  # the last dwell time is what is neither
        quarter = spread(each * torch.arange(2.0), 5)
        own = torch.stack([*own, quarter, torch.zeros_like(quarter), *kinds], 2)
        more = torch.log(again + LEAST).flatten(1)
        cheap = torch.cat([image_price[:, :, :1], image_price[:, :, 1:].expand(-1, -1, 4)], 2).flatten(1)
        none = torch.zeros_like(more)
        region = none + (torch.arange(5) > 0).float().repeat(d)
        dwell = [none + (torch.arange(d) == i).float().repeat_interleave(5) for i in range(2)]
        second = torch.stack([more, torch.log(again_promise + LEAST).flatten(1), *[none] * 8, torch.log(cheap / 0.03), region, none + 1, *dwell], 2)
        common = torch.cat([mean, deviation, overlap, order, misfit, fresh.mean(1, keepdim=True), budget, torch.log(budget + 0.02), tried.amax((1, 2))[:, None]], 1)
        own, rule, price = torch.cat([own, second], 1), torch.cat([rule, more], 1), torch.cat([price, cheap], 1)
        return torch.cat([own, common[:, None].expand(-1, own.shape[1], -1)], 2), rule, price, price <= budget + 1e-6

    def gains(self, features: torch.Tensor, rule: torch.Tensor) -> torch.Tensor:
        """Logarithm of what images will tell, nats (b, n) or (n,)."""
        return rule + self.head(self.body(features))[..., 0]

    def scores(self, features, rule, price, fits) -> torch.Tensor:
        """Logarithm of gain for the time (b, n); the highest is done. What does not fit comes last."""
        return torch.where(fits, self.gains(features, rule) - torch.log(price), torch.full_like(rule, -1e9))

    def actions(self, number: torch.Tensor) -> torch.Tensor:
        """Actions (b, 5) for numbers of cycles (b,)."""
        t, f, h, d = len(self.temperatures), len(self.fields), len(self.holds), self.dwells
        z = torch.remainder(number, 2)
        rest = torch.div(number, 2, rounding_mode="floor")
        cycle = []
        for size in (d, h, f, t):
            cycle.append(torch.remainder(rest, size))
            rest = torch.div(rest, size, rounding_mode="floor")
        beyond = number - t * f * h * d * 2
        bare = beyond >= 0
        none = torch.zeros_like(number)
        dwell = torch.where(bare, torch.div(beyond, 5, rounding_mode="floor"), cycle[0])
        region = torch.where(bare, torch.remainder(beyond, 5), z)
        return torch.stack([torch.where(bare, none, cycle[3]), torch.where(bare, none, cycle[2]), torch.where(bare, none, cycle[1] + 1), dwell, region], 1)

    def forward(self, *seen: torch.Tensor) -> torch.Tensor:
        """Actions (b, 5) from observations in the order of SEEN."""
        return self.actions(self.scores(*self.features(*seen)).argmax(1))
