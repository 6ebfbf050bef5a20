"""How the beam-manipulation policy thinks: a belief over rate lobes, what every place and dwell promises, a choice (torch; exported to ONNX).

The belief is exact for a finite set of lobes drawn from the distribution of training. Of every candidate, a place of the beam in
the frame of the lattice and a dwell, it gives the expected progress and the information that the outcome will carry (the
mutual information of outcome and lobe). A rule adds both up; a small network corrects it.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import nn

from probegym.envs import beam_lattice
from probegym.envs.beam_settings import BOND, Dwell

SEEN = ("bonds", "outcome", "dwelt", "clock", "drift", "correction", "budget")
SPACING, REACH = 1 / 3, 2.0  # bonds: of the places that the beam may be put at, and the farthest of them
DWELLS = (0.4, 0.9, 2.0, 4.5, 10.0)  # s
LOBES = 1024
BLUR = 0.015  # bonds^2, variance of where the beam really is
DOUBT = 0.03  # share of outcomes that no lobe explains
FEATURES, HIDDEN = 14, 24


def prior(lobes: int = LOBES) -> np.ndarray:
    """Mixtures (lobes, gaussians, 4) as physics/beam_rates.py draws them: the random rates of Schwarzer et al. 2023."""
    from probegym.physics import beam_rates
    from probegym.scenarios.distributions import Distribution

    keys = np.arange(lobes, dtype=np.uint64) * np.uint64(1_000_003) + np.uint64(77)
    place, variance = Distribution(uniform=(-2.0, 3.0)), Distribution(uniform=(0.1, 5.0))
    return beam_rates.draw_mixture(keys, 2.0, place, place, variance, Distribution(uniform=(0.01, 1.0)).sample(keys, "rates.max_rate"))


def places() -> np.ndarray:
    """(places, 2) bonds: a triangular lattice around the atom, x along the bond nearest the goal; a third of a turn maps it to itself."""
    most = math.ceil(REACH / SPACING) + 1
    i, j = np.mgrid[-most : most + 1, -most : most + 1].reshape(2, -1)
    grid = SPACING * np.column_stack([i + 0.5 * j, np.sqrt(0.75) * j])
    return grid[np.hypot(*grid.T) <= REACH + 1e-9]


def turns(grid: np.ndarray) -> np.ndarray:
    """(3, places) indices: turns[k] is where each place lies as the k-th bond, counterclockwise, sees it."""
    u = beam_lattice.bonds(np.array([1.0, 0.0]))
    views = np.stack([beam_lattice.seen_from(grid, u[k]) for k in range(3)])
    return ((views[:, :, None] - grid) ** 2).sum(-1).argmin(2)


def jumps(first: torch.Tensor, leave: torch.Tensor, onward: torch.Tensor, dwell: torch.Tensor) -> torch.Tensor:
    """(4, ...): chances to be at a neighbour after a dwell, and to have gone on from there along each of its bonds (one more jump is followed).

    first: (...) 1/s of the jump there; leave: of any first jump; onward: (3, ...) from there.
    """
    on = onward[0] + onward[1] + onward[2]
    gap = on - leave
    gap = torch.where(gap.abs() < 1e-5, torch.full_like(gap, 1e-5), gap)
    reached = first / leave.clamp_min(1e-9) * (1 - torch.exp(-leave * dwell))
    there = torch.minimum((first * (torch.exp(-leave * dwell) - torch.exp(-on * dwell)) / gap).clamp_min(0), reached)
    further = (reached - there) / on.clamp_min(1e-9)
    return torch.stack([there, further * onward[0], further * onward[1], further * onward[2]])


def doubted(chances: torch.Tensor) -> torch.Tensor:
    """Chances of the five outcomes with the DOUBT that none of the lobes is right."""
    return chances * (1 - DOUBT) + DOUBT / 5


class RateBelief(nn.Module):
    """Weights of many lobes, sharpened by where the atom went in each dwell; outcomes: stayed, three bonds, elsewhere.

    mixture: (lobes, gaussians, 4) height 1/s, along, across in bonds, variance in bonds^2; all lobes are equally likely at first.
    """

    def __init__(self, mixture: np.ndarray):
        super().__init__()
        grid = places()
        u = beam_lattice.bonds(np.array([1.0, 0.0]))
        onward = np.stack([beam_lattice.seen_from(grid - u[0], -u[j]) for j in range(3)])  # from the neighbour, along its own bonds
        blurred = mixture.copy()
        width = np.where(mixture[..., 3] > 0, mixture[..., 3], 1.0)
        blurred[..., 0], blurred[..., 3] = mixture[..., 0] * width / (width + BLUR), width + BLUR
        self.register_buffer("mixture", torch.tensor(blurred, dtype=torch.float32))
        self.register_buffer("views", torch.tensor(np.concatenate([grid[None], onward]), dtype=torch.float32))
        self.register_buffer("grid", torch.tensor(grid, dtype=torch.float32))
        self.register_buffer("turns", torch.tensor(turns(grid)))
        self.register_buffer("dwells", torch.tensor(DWELLS))

    def rates(self) -> torch.Tensor:
        """(4, places, lobes) 1/s: of the jump along the first bond, and from that neighbour back, and on along its other two."""
        height, along, across, variance = self.mixture.unbind(2)
        total = torch.zeros(1)
        for g in range(self.mixture.shape[1]):
            apart = (self.views[..., :1] - along[:, g]) ** 2 + (self.views[..., 1:] - across[:, g]) ** 2
            total = total + height[:, g] * torch.exp(-0.5 * apart / variance[:, g])
        return total

    def tables(self) -> tuple[torch.Tensor, torch.Tensor]:
        """rates; and of every candidate (lobes, 5 * dwells * places): chances as of :func:`jumps` for the first bond, entropy of the outcome."""
        rates, dwell = self.rates(), self.dwells[:, None, None]
        leave = rates[0][self.turns[0]] + rates[0][self.turns[1]] + rates[0][self.turns[2]]
        moved = jumps(rates[0], leave, rates[1:], dwell)
        chances = torch.stack(outcomes([moved[:, :, self.turns[k]] for k in range(3)], torch.exp(-leave * dwell)))
        entropy = -(chances * torch.log(chances)).sum(0, keepdim=True)
        table = torch.cat([moved, entropy])
        return rates, table.flatten(0, 2).T.contiguous()

    def update(self, log_weights: torch.Tensor, rates: torch.Tensor, place: torch.Tensor, dwell: torch.Tensor, outcome: torch.Tensor) -> torch.Tensor:
        """Log weights (b, lobes) after a dwell. place: (b,) index; dwell: (b, 1) s; outcome: (b, 5), zeros where it is not known."""
        seen = [rates[:, self.turns[k][place]] for k in range(3)]  # (4, b, lobes) each
        leave = seen[0][0] + seen[1][0] + seen[2][0]
        chances = torch.stack(outcomes([jumps(s[0], leave, s[1:], dwell) for s in seen], torch.exp(-leave * dwell)), 1)
        told = (outcome[:, :, None] * chances).sum(1)
        known = (outcome.sum(1, keepdim=True) > 0.5) & (dwell > 0)
        updated = log_weights + torch.where(known, torch.log(told.clamp_min(1e-9)), torch.zeros_like(told))
        return updated - torch.logsumexp(updated, 1, keepdim=True)


def outcomes(moved: list[torch.Tensor], untouched: torch.Tensor) -> list[torch.Tensor]:
    """Doubted chances of the five outcomes from :func:`jumps` for each bond (4, ...) and the chance of no jump (...)."""
    beyond = [m[2] + m[3] for m in moved]
    five = [untouched + moved[0][1] + moved[1][1] + moved[2][1], moved[0][0], moved[1][0], moved[2][0], beyond[0] + beyond[1] + beyond[2]]
    return [doubted(chance) for chance in five]


class Mover(nn.Module):
    """Belief, rule, and the network that corrects the rule. Memory: log weights (b, lobes) and the place last taken (b, 1).

    curiosity: bonds of progress that a nat of information is worth to the rule; without a network it is all there is.
    """

    def __init__(self, mixture: np.ndarray, curiosity: float = 0.0, network: bool = False, dwell: Dwell | None = None, reach: float = 2 * BOND):
        super().__init__()
        self.belief, self.curiosity = RateBelief(mixture), curiosity
        self.network = nn.Sequential(nn.Linear(FEATURES, HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, 1)) if network else None
        if network:
            nn.init.zeros_(self.network[-1].weight), nn.init.zeros_(self.network[-1].bias)
        self.blank, self.reach = (dwell or Dwell()).blank, reach / BOND

    def memory(self, lanes: int) -> list[torch.Tensor]:
        """What is known at the start."""
        lobes = len(self.belief.mixture)
        return [torch.full((lanes, lobes), -math.log(lobes)), torch.zeros(lanes, 1)]

    def features(self, log_weights: torch.Tensor, table: torch.Tensor, bonds: torch.Tensor, clock: torch.Tensor, budget: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Of every candidate the rule's score (b, dwells * places), and FEATURES for the network (b, dwells * places, FEATURES)."""
        belief, dwells, spots = self.belief, len(DWELLS), len(self.belief.grid)
        weights = log_weights.exp()
        mean = (weights @ table).reshape(-1, 5, dwells, spots)
        moved = [mean[:, :4, :, belief.turns[k]] for k in range(3)]
        there = [m[:, 0] for m in moved]
        beyond = moved[0][:, 2] + moved[0][:, 3] + moved[1][:, 2] + moved[1][:, 3] + moved[2][:, 2] + moved[2][:, 3]
        untouched = 1 - there[0] - there[1] - there[2] - beyond
        five = [doubted(c).clamp_min(1e-6) for c in (untouched, *there, beyond)]
        information = -(five[0] * five[0].log() + five[1] * five[1].log() + five[2] * five[2].log() + five[3] * five[3].log() + five[4] * five[4].log()) - mean[:, 4]
        gain = sum((moved[k] * self.gains(bonds, k)[:, :, None, None]).sum(1) for k in range(3))
        seconds = belief.dwells[:, None] + clock[:, :1, None]
        allowed = (belief.dwells >= 0.74 * clock[:, 1:2]) & (belief.dwells <= 1.36 * clock[:, 2:3])
        score = (gain + self.curiosity * information) / seconds - 1e3 * (~allowed)[:, :, None]
        lane = [torch.log1p(bonds.abs().sum(1)) / 3, budget[:, 0], -(weights * log_weights).sum(1) / 7, (bonds > 0).sum(1) / 2.0]
        flat = [f.flatten(1) for f in (gain, information, gain / seconds, information / seconds, untouched, beyond, there[0], there[1] + there[2])]
        best = [(score.flatten(1) - score.flatten(1).amax(1, keepdim=True)).clamp_min(-1)]
        dwell = [torch.log(belief.dwells / 2)[:, None].expand(dwells, spots).reshape(1, -1).expand(len(bonds), -1)]
        shown = flat + best + dwell + [value[:, None].expand(-1, dwells * spots) for value in lane]
        return score.flatten(1), torch.stack(shown, 2)

    def gains(self, bonds: torch.Tensor, k: int) -> torch.Tensor:
        """(b, 4) bonds nearer to the goal at the k-th neighbour, and one bond further from there."""
        unit = torch.eye(3)
        away = bonds.abs().sum(1)
        at = [bonds - unit[k], *(bonds - unit[k] + unit[(k + j) % 3] for j in range(3))]
        return torch.stack([away - place.abs().sum(1) for place in at], 1)

    def scores(self, rule: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
        """What the choice goes by: the rule, in units of a tenth of a bond per second, and the network's correction."""
        return 10 * rule if self.network is None else 10 * rule + self.network(features)[..., 0]

    def action(self, chosen: torch.Tensor, clock: torch.Tensor, drift: torch.Tensor, correction: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Actions (b, 3) and places (b, 1) of the chosen candidates (b,); the drift until the middle of the dwell is made up for."""
        spots = len(self.belief.grid)
        place = chosen % spots
        dwell = torch.minimum(torch.maximum(self.belief.dwells[torch.div(chosen, spots, rounding_mode="floor")], clock[:, 1]), clock[:, 2])
        aim = self.belief.grid[place] + correction[:, 0] + drift[:, 0] * (0.5 * (clock[:, 0] + dwell))[:, None]
        share = torch.log(dwell / clock[:, 1]) / torch.log(clock[:, 2] / clock[:, 1]).clamp_min(1e-6)
        last = self.blank + (1 - self.blank) * share.clamp(1e-6, 1)
        return torch.cat([(aim / self.reach).clamp(-1, 1), last[:, None]], 1), place[:, None].float()

    def forward(self, bonds, outcome, dwelt, clock, drift, correction, budget, belief, place, tables=None):
        """Actions (b, 3) and the memory after them; observations as of SEEN, one atom."""
        rates, table = self.belief.tables() if tables is None else tables
        belief = self.belief.update(belief, rates, place[:, 0].long(), dwelt, outcome)
        rule, features = self.features(belief, table, bonds[:, 0], clock, budget)
        action, place = self.action(self.scores(rule, features).argmax(1), clock, drift, correction)
        return action, belief, place
