"""The network that reads an STM image, and the policy around it (torch; exported to ONNX).

The reader gives the log likelihood of every kind of apex. The policy keeps a belief over the kinds: the statistics of the
treatments carry it on, the image and the classifier's verdict sharpen it (a hidden Markov filter). It acts by the expected
cost to go (QMDP: Littman, Cassandra & Kaelbling 1995, 10.1016/B978-1-55860-377-6.50052-9), looks again when the belief
is in between, and declares when it is sure.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import nn


class ApexReader(nn.Module):
    """An image of grey levels -> log likelihood of each kind of apex, up to a constant of the image."""

    def __init__(self, kinds: int, channels: tuple[int, ...] = (12, 24, 40, 56), hidden: int = 64):
        super().__init__()
        layers: list[nn.Module] = []
        width = 3
        for index, channel in enumerate(channels):
            kernel = 5 if index == 0 else 3
            layers += [nn.Conv2d(width, channel, kernel, 2, kernel // 2, bias=False), nn.BatchNorm2d(channel), nn.ReLU(inplace=True)]
            width = channel
        self.features = nn.Sequential(*layers)
        self.mix = nn.Sequential(nn.Conv2d(width, hidden, 1), nn.ReLU(inplace=True))
        self.head = nn.Sequential(nn.Linear(3 * hidden, hidden), nn.ReLU(inplace=True), nn.Linear(hidden, kinds))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """image: (b, 1, h, w) grey levels 0 to 255."""
        along = nn.functional.pad(image[..., 1:] - image[..., :-1], (0, 1))
        across = nn.functional.pad(image[..., 1:, :] - image[..., :-1, :], (0, 0, 0, 1))
        seen = torch.cat([(image - 127) / 40, torch.tanh(along / 6), torch.tanh(across / 6)], 1)
        local = self.mix(self.features(seen))
        spread = torch.sqrt(local.var((2, 3), unbiased=False) + 1e-4)
        return self.head(torch.cat([local.mean((2, 3)), local.amax((2, 3)), spread], 1))


def varied(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Images (b, 1, h, w) as other microscopes might show them: contrast, white and line noise, a wavy background.

    Two fifths stay as they are. For training, so that what the reader learns does not hang on one set of noise figures.
    """
    b, _, h, w = images.shape
    u = torch.rand(8, b, 1, 1, 1, generator=generator)
    y, x = torch.meshgrid(torch.arange(h) - h / 2, torch.arange(w) - w / 2, indexing="ij")
    angle, wave = 2 * math.pi * u[0], 2 * math.pi / (10 + 40 * u[1])
    ridges = torch.sin(wave * (x * torch.cos(angle) + y * torch.sin(angle)) + 2 * math.pi * u[2])
    white = 9 * u[3] ** 2 * torch.randn(b, 1, h, w, generator=generator)
    lines = 7 * u[4] ** 2 * torch.randn(b, 1, h, 1, generator=generator)
    other = 127 + (0.7 + 0.6 * u[5]) * (images - 127) + white + lines + (10 * u[6] - 4).clamp_min(0) * ridges
    return torch.where(u[7] < 0.4, images, other.clamp(0, 255))


class ConditionerPolicy(nn.Module):
    """Reader, belief and decision. moves: (actions, kinds, kinds) chances from row to column; cost: (kinds, actions) to go.

    start: (kinds,) belief before anything is seen. sure: belief in a good apex above which it is declared. unsure: above this
    and below sure it is looked at again. trust: factor on the reader's log likelihood, below one since images of one apex are
    alike. doubt: chance that an image is one the reader does not understand, and so says nothing. last: share of the budget at
    which only a declaration fits.
    """

    moves: torch.Tensor
    cost: torch.Tensor
    start: torch.Tensor

    def __init__(self, reader: ApexReader, moves: np.ndarray, cost: np.ndarray, start: np.ndarray, last: float,
                 sure: float = 0.95, unsure: float = 0.5, doubt: float = 0.05, trust: float = 0.8):  # fmt: skip
        super().__init__()
        self.reader, self.sure, self.unsure, self.doubt, self.trust, self.last = reader, sure, unsure, doubt, trust, last
        for name, array in (("moves", moves.reshape(len(moves), -1)), ("cost", cost), ("start", start)):
            self.register_buffer(name, torch.from_numpy(np.asarray(array, np.float32)))

    def forward(self, image, verdict, last_action, room, budget, belief):
        """Inputs as the environment shows them and the belief (b, kinds); returns (action (b,), belief)."""
        kinds = belief.shape[1]
        reading = torch.softmax(self.trust * self.reader(image.float()), 1)
        odds = verdict.clamp(1e-6, 1 - 1e-6)
        good = torch.zeros_like(self.start)
        good[0] = 1.0
        likelihood = torch.log((1 - self.doubt) * reading + self.doubt / kinds) + good * torch.log(odds / (1 - odds))
        moved = torch.bmm(belief[:, None], (last_action @ self.moves).reshape(-1, kinds, kinds))[:, 0]
        belief = torch.softmax(torch.log(moved + 1e-8) + likelihood, 1)
        cost = belief @ self.cost + 1e3 * (1 - room)
        chosen = cost[:, 1:-1].argmin(1) + 1
        sure = belief[:, 0]
        chosen = torch.where(sure > self.unsure, torch.zeros_like(chosen), chosen)
        over = (sure > self.sure) | (budget[:, 0] <= self.last)
        return torch.where(over, torch.full_like(chosen, room.shape[1] - 1), chosen), belief
