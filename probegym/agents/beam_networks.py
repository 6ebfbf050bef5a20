"""What is known of the rates while the beam moves an atom, as a belief over random rate lobes (torch; exported to ONNX)."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from probegym.envs import beam_lattice

SPACING, REACH = 1 / 3, 2.0  # bonds: of the places that the beam may be put at, and the farthest of them
DWELLS = (0.4, 0.9, 2.0, 4.5, 10.0)  # s
BLUR = 0.015  # bonds^2, variance of where the beam really is
DOUBT = 0.03  # share of outcomes that no lobe explains


def places() -> np.ndarray:
    """(places, 2) bonds: a triangular lattice around the atom, x along the bond nearest the goal; turning it by a third maps it to itself."""
    most = int(np.ceil(REACH / SPACING)) + 1
    i, j = np.mgrid[-most : most + 1, -most : most + 1].reshape(2, -1)
    grid = SPACING * np.column_stack([i + 0.5 * j, np.sqrt(0.75) * j])
    return grid[np.hypot(*grid.T) <= REACH + 1e-9]


def turns(grid: np.ndarray) -> np.ndarray:
    """(3, places) indices: turns[k] is where each place lies as the k-th bond, counterclockwise, sees it."""
    u = beam_lattice.bonds(np.array([1.0, 0.0]))
    views = np.stack([beam_lattice.seen_from(grid, u[k]) for k in range(3)])
    return ((views[:, :, None] - grid) ** 2).sum(-1).argmin(2)


class RateBelief(nn.Module):
    """Weights of many random lobes, sharpened by where the atom went in each dwell.

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
        total = torch.zeros(self.views.shape[0], self.views.shape[1], len(self.mixture))
        for g in range(self.mixture.shape[1]):
            apart = (self.views[..., :1] - along[:, g]) ** 2 + (self.views[..., 1:] - across[:, g]) ** 2
            total = total + height[:, g] * torch.exp(-0.5 * apart / variance[:, g])
        return total

    def outcomes(self, rates: torch.Tensor, dwells: torch.Tensor) -> torch.Tensor:
        """(4, dwells, places, lobes): chances to be at the first neighbour after a dwell, and beyond it: back, left, right of its bond."""
        leave = sum(rates[0][self.turns[k]] for k in range(3))
        return jumps(rates[0], leave, rates[1:], dwells[:, None, None])

    def tables(self) -> tuple[torch.Tensor, torch.Tensor]:
        """rates, and outcomes as a matrix (lobes, 4 * dwells * places)."""
        rates = self.rates()
        return rates, self.outcomes(rates, self.dwells).reshape(-1, rates.shape[2]).T.contiguous()

    def update(self, log_weights: torch.Tensor, rates: torch.Tensor, place: torch.Tensor, dwell: torch.Tensor, outcome: torch.Tensor) -> torch.Tensor:
        """Log weights (b, lobes) after a dwell. place: (b,) index; dwell: (b, 1) s; outcome: (b, 5) stayed, three bonds, elsewhere; zeros: unknown."""
        seen = [rates[:, self.turns[k][place]] for k in range(3)]  # (4, b, lobes) each
        leave = seen[0][0] + seen[1][0] + seen[2][0]
        moved = [jumps(s[0], leave, s[1:], dwell) for s in seen]
        there = torch.stack([m[0] for m in moved], 1)
        stayed = torch.exp(-leave * dwell) + sum(m[1] for m in moved)
        beyond = sum(m[2] + m[3] for m in moved)
        chances = torch.cat([stayed[:, None], there, beyond[:, None]], 1)
        told = (outcome[:, :, None] * chances).sum(1) * (1 - DOUBT) + DOUBT / 5
        known = (outcome.sum(1, keepdim=True) > 0.5) & (dwell > 0)
        updated = log_weights + torch.where(known, torch.log(told), torch.zeros_like(told))
        return updated - updated.logsumexp(1, keepdim=True)


def jumps(first: torch.Tensor, leave: torch.Tensor, onward: torch.Tensor, dwell: torch.Tensor) -> torch.Tensor:
    """(4, ...): chances to be at a neighbour after a dwell, and to have gone on from there along each of its bonds (one more jump is followed).

    first: (...) 1/s of the jump there; leave: of any first jump; onward: (3, ...) from there.
    """
    on = onward[0] + onward[1] + onward[2]
    gap = on - leave
    gap = torch.where(gap.abs() < 1e-5, torch.full_like(gap, 1e-5), gap)
    reached = first / leave.clamp_min(1e-9) * -torch.expm1(-leave * dwell)
    there = torch.minimum(torch.maximum(first * (torch.exp(-leave * dwell) - torch.exp(-on * dwell)) / gap, torch.zeros_like(reached)), reached)
    further = (reached - there) / on.clamp_min(1e-9)
    return torch.stack([there, *(further * onward[j] for j in range(3))])
