"""How the beam-manipulation policy thinks: a belief over rate lobes, what every place and dwell promises, a choice (torch; exported to ONNX).

The belief is exact for a finite set of lobes. Of every candidate, a place of the beam in
the frame of the lattice and a dwell, it gives the expected progress and the information that the outcome will carry (the
mutual information of outcome and lobe). A rule adds both up; a small network corrects it.
"""

from __future__ import annotations

import math
from typing import cast

import numpy as np
import torch
from torch import nn

from probegym.agents.base import Agent
from probegym.envs import beam_lattice
from probegym.envs.beam_settings import BOND
from probegym.envs.episodes import Episodes
from probegym.envs.task import Observation

SEEN = ("bonds", "outcome", "dwelt", "clock", "drift", "correction", "budget")
SPACING, REACH = 0.85 / 3, 2.0  # bonds: of the places that the beam may be put at, and the farthest of them
DWELLS = (0.5, 1.5, 4.0, 10.0)  # s
RANDOM, NARROW = 512, 64  # lobes of the belief by kind; the first of the narrow ones is the human prior
SHARES = (0.7, 0.1, 0.2)  # of belief at the start in random lobes, in narrow ones, and in the human prior
BLUR = 0.015  # bonds^2, variance of where the beam really is
DOUBT = 0.03  # share of outcomes that no lobe explains
SHORTLIST = 64  # candidates that the network looks at
SHARPNESS = 40.0  # logits by which a candidate that is worth nothing lies below the best
LANE, FEATURES, HIDDEN = 5, 14, 24  # features of all candidates alike, and of one; width of the network


def prior(random: int = RANDOM, narrow: int = NARROW) -> tuple[np.ndarray, np.ndarray]:
    """Mixtures (lobes, gaussians, 4), and the log of the belief in each (lobes,), before anything was seen.

    The random rates of Schwarzer et al. 2023 as physics/beam_rates.py draws them; narrow lobes near the neighbour, as a probe of
    atomic size has them, of 0.03 to 1 per second; and the published human prior.
    """
    from probegym.physics import beam_rates, randomness
    from probegym.scenarios.distributions import Distribution

    keys = np.arange(random, dtype=np.uint64) * np.uint64(1_000_003) + np.uint64(77)
    place, variance = Distribution(uniform=(-2.0, 3.0)), Distribution(uniform=(0.1, 5.0))
    wide = beam_rates.draw_mixture(keys, 2.0, place, place, variance, Distribution(uniform=(0.01, 1.0)).sample(keys, "rates.max_rate"))
    u = randomness.uniform(np.arange(narrow, dtype=np.uint64), 0, "narrow", 4)
    near = np.zeros((narrow, *wide.shape[1:]))
    near[:, 0] = np.column_stack([0.03 * (1 / 0.03) ** u[:, 0], 0.6 + 0.5 * u[:, 1], 0.4 * u[:, 2] - 0.2, 0.05 * 8 ** u[:, 3]])
    near[0, 0] = beam_rates.HUMAN_PRIOR
    shares = np.repeat([SHARES[0] / random, SHARES[2], SHARES[1] / (narrow - 1)], [random, 1, narrow - 1])
    return np.concatenate([wide, near]), np.log(shares)


def places() -> np.ndarray:
    """(places, 2) bonds: a triangular lattice around the atom, x along the bond nearest the goal; a third of a turn maps it to itself."""
    most = math.ceil(REACH / SPACING) + 1
    i, j = np.mgrid[-most : most + 1, -most : most + 1].reshape(2, -1)
    grid = SPACING * np.column_stack([i + 0.5 * j, np.sqrt(0.75) * j])
    return grid[np.hypot(*grid.T) <= REACH + 1e-9]


def turns(grid: np.ndarray) -> np.ndarray:
    """(3, places) indices: turns[k] is where each place lies as the k-th bond, clockwise in the image, sees it."""
    u = beam_lattice.bonds(np.array([1.0, 0.0]))
    views = np.stack([beam_lattice.seen_from(grid, u[k]) for k in range(3)])
    return ((views[:, :, None] - grid) ** 2).sum(-1).argmin(2)


def jumps(first: torch.Tensor, leave: torch.Tensor, onward: torch.Tensor, dwell: torch.Tensor) -> torch.Tensor:
    """(4, ...): chances to be at a neighbour after a dwell, and to have gone on from there along each of its bonds (one more jump is followed).

    first: (...) 1/s of the jump there; leave: of any first jump; onward: (3, ...) from there.
    """
    on = onward[0] + onward[1] + onward[2]
    reached = first / leave.clamp_min(1e-9) * (1 - torch.exp(-leave * dwell))
    apart = ((on - leave).abs() * dwell).clamp_min(1e-4)  # where both are equal, as by symmetry, the mean over the dwell is the value
    mean = torch.exp(-torch.minimum(on, leave) * dwell) * (1 - torch.exp(-apart)) / apart
    there = torch.minimum(first * dwell * mean, reached)
    further = (reached - there) / on.clamp_min(1e-9)
    return torch.stack([there, further * onward[0], further * onward[1], further * onward[2]])


def doubted(chances: torch.Tensor) -> torch.Tensor:
    """Chances, 0 to 1 and of any shape, of the five outcomes with the DOUBT that none of the lobes is right."""
    return chances * (1 - DOUBT) + DOUBT / 5


class RateBelief(nn.Module):
    """Weights of many lobes, sharpened by where the atom went in each dwell; outcomes: stayed, three bonds, elsewhere.

    mixture: (lobes, gaussians, 4) height 1/s, along, across in bonds, variance in bonds^2. start: (lobes,) log weights before any dwell.
    """

    mixture: torch.Tensor
    start: torch.Tensor
    views: torch.Tensor
    grid: torch.Tensor
    turns: torch.Tensor
    dwells: torch.Tensor

    def __init__(self, mixture: np.ndarray, start: np.ndarray):
        super().__init__()
        grid = places()
        u = beam_lattice.bonds(np.array([1.0, 0.0]))
        onward = np.stack([beam_lattice.seen_from(grid - u[0], -u[j]) for j in range(3)])  # from the neighbour, along its own bonds
        blurred = mixture.copy()
        width = np.where(mixture[..., 3] > 0, mixture[..., 3], 1.0)
        blurred[..., 0], blurred[..., 3] = mixture[..., 0] * width / (width + BLUR), width + BLUR
        self.register_buffer("mixture", torch.tensor(blurred, dtype=torch.float32))
        self.register_buffer("start", torch.tensor(start, dtype=torch.float32))
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

    def __init__(self, belief: RateBelief, curiosity: float = 0.0, network: bool = False, blank: float = -0.9, reach: float = 2 * BOND):
        super().__init__()
        self.belief, self.curiosity, self.blank, self.reach = belief, curiosity, blank, reach / BOND
        self.network: nn.Sequential | None = None
        if network:
            hidden = [nn.Linear(FEATURES, HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, HIDDEN), nn.Tanh()]
            last = nn.Linear(HIDDEN, 1)
            self.network = nn.Sequential(*hidden, last)
            nn.init.zeros_(last.weight)

    def memory(self, lanes: int) -> list[torch.Tensor]:
        """What is known at the start."""
        return [self.belief.start.repeat(lanes, 1), torch.zeros(lanes, 1)]

    def candidates(self, log_weights: torch.Tensor, table: torch.Tensor, bonds: torch.Tensor, clock: torch.Tensor, budget: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Of the SHORTLIST best candidates by the rule: number (b, k), score by the rule (b, k), FEATURES for the network (b, k, f); of the lane (b, LANE).

        bonds: (b, 3) to the goal. A candidate's number is dwell * places + place.
        """
        belief, dwells, spots = self.belief, len(DWELLS), len(self.belief.grid)
        weights = log_weights.exp()
        mean = (weights @ table).reshape(-1, 5, dwells, spots)
        moved = [mean[:, :4, :, belief.turns[k]] for k in range(3)]
        there = [m[:, 0] for m in moved]
        beyond = moved[0][:, 2] + moved[0][:, 3] + moved[1][:, 2] + moved[1][:, 3] + moved[2][:, 2] + moved[2][:, 3]
        stays = 1 - there[0] - there[1] - there[2] - beyond
        five = torch.stack([doubted(c).clamp_min(1e-6) for c in (stays, *there, beyond)])
        information = -(five * torch.log(five)).sum(0) - mean[:, 4]
        gain = cast(torch.Tensor, sum((moved[k] * self.gains(bonds, k)[:, :, None, None]).sum(1) for k in range(3)))
        seconds = belief.dwells[:, None] + clock[:, :1, None]
        allowed = (belief.dwells >= 0.74 * clock[:, 1:2]) & (belief.dwells <= 1.36 * clock[:, 2:3])
        rule = ((gain + self.curiosity * information) / seconds - 1e3 * (~allowed)[:, :, None]).flatten(1)
        best, number = torch.topk(rule, SHORTLIST, 1)
        top = best[:, :1].abs() + 1e-4
        relative = SHARPNESS * (best - best[:, :1]) / top
        own = [f.flatten(1).gather(1, number) for f in (gain, information, stays, beyond, there[0])]
        dwell = belief.dwells[number // spots]
        worth = top * (dwell + clock[:, :1])
        own += [torch.log(dwell / 2), own[0] / worth, own[1] / worth, relative / SHARPNESS]
        away = bonds.abs().sum(1)
        lane = torch.stack([torch.log1p(away) / 3, budget[:, 0], -(weights * log_weights).sum(1) / 7, (bonds > 0).sum(1) / 2.0, torch.log(top[:, 0]) / 3], 1)
        shown = torch.cat([torch.stack(own, 2), lane[:, None].expand(-1, SHORTLIST, -1)], 2)
        return number, relative, shown, lane

    def gains(self, bonds: torch.Tensor, k: int) -> torch.Tensor:
        """(b, 4) bonds nearer to the goal at the k-th neighbour, and one bond further from there."""
        unit = torch.eye(3)
        away = bonds.abs().sum(1)
        at = [bonds - unit[k], *(bonds - unit[k] + unit[(k + j) % 3] for j in range(3))]
        return torch.stack([away - place.abs().sum(1) for place in at], 1)

    def scores(self, rule: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
        """Logits (b, k) of the shortlist."""
        return rule if self.network is None else rule + self.network(features)[..., 0]

    def action(self, number: torch.Tensor, clock: torch.Tensor, drift: torch.Tensor, correction: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Actions (b, 3) and places (b, 1) of candidates (b,); the drift until the middle of the dwell is made up for."""
        spots = len(self.belief.grid)
        place = number % spots
        dwell = torch.minimum(torch.maximum(self.belief.dwells[number // spots], clock[:, 1]), clock[:, 2])
        aim = self.belief.grid[place] + correction[:, 0] + drift[:, 0] * (0.5 * (clock[:, 0] + dwell))[:, None]
        share = torch.log(dwell / clock[:, 1]) / torch.log(clock[:, 2] / clock[:, 1]).clamp_min(1e-6)
        last = self.blank + (1 - self.blank) * share.clamp(1e-6, 1)
        return torch.cat([(aim / self.reach).clamp(-1, 1), last[:, None]], 1), place[:, None].float()

    def forward(self, bonds, outcome, dwelt, clock, drift, correction, budget, belief, place, tables=None):
        """Actions (b, 3) and the memory after them; observations as of SEEN, one atom."""
        rates, table = self.belief.tables() if tables is None else tables
        belief = self.belief.update(belief, rates, place[:, 0].long(), dwelt, outcome)
        number, rule, features, _ = self.candidates(belief, table, bonds[:, 0], clock, budget)
        best = self.scores(rule, features).argmax(1, keepdim=True)
        action, place = self.action(number.gather(1, best)[:, 0], clock, drift, correction)
        return action, belief, place


class Student(Agent):
    """A policy that is still a torch module; ``generator``: to draw actions by their chances, and keep what was decided."""

    def __init__(self, policy: Mover, generator: torch.Generator | None = None):
        self.policy, self.generator = policy, generator

    @torch.no_grad()
    def begin(self, lanes: int, seed: int) -> None:
        self.tables, self.memory = self.policy.belief.tables(), self.policy.memory(lanes)
        self.kept: list[tuple[torch.Tensor, ...]] = []

    @torch.no_grad()
    def act(self, observation: Observation, episodes: Episodes) -> np.ndarray:
        return self.decide(observation, np.flatnonzero(observation["bonds"].any((1, 2))))  # the others have arrived

    @torch.no_grad()
    def decide(self, observation: Observation, on: np.ndarray) -> np.ndarray:
        """Actions (lanes, 3) of the lanes ``on`` (n,); the others get zeros."""
        p = self.policy
        bonds, outcome, dwelt, clock, drift, correction, budget = (torch.from_numpy(observation[name][on]) for name in SEEN)
        lanes = torch.from_numpy(on)
        belief = p.belief.update(self.memory[0][lanes], self.tables[0], self.memory[1][lanes, 0].long(), dwelt, outcome)
        number, rule, features, lane = p.candidates(belief, self.tables[1], bonds[:, 0], clock, budget)
        chances = torch.log_softmax(p.scores(rule, features), 1)
        best = chances.argmax(1, keepdim=True) if self.generator is None else torch.multinomial(chances.exp(), 1, generator=self.generator)
        if self.generator is not None:
            self.kept.append((lanes, rule, features, lane, best, chances.gather(1, best)))
        action, place = p.action(number.gather(1, best)[:, 0], clock, drift, correction)
        self.memory[0][lanes], self.memory[1][lanes] = belief, place
        whole = np.zeros((len(observation["budget"]), action.shape[1]), np.float32)
        whole[on] = action.numpy()
        return whole
