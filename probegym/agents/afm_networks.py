"""The policy that keeps the feedback of a tapping-mode AFM tuned (torch; exported to ONNX).

A fixed layer turns the last two scan lines into numbers an operator would look at: how large the error signal is, where
its power lies, how far trace and retrace agree and at which lag, what the phase says of attraction and repulsion. A
recurrent network remembers them together with the settings they were met at, and names the settings it wants; the
action is the way there.
"""

from __future__ import annotations

import itertools
import math

import torch
from torch import nn

SHIFTS = (-8, -4, -2, -1, 0, 1, 2, 4, 8)  # pixels between trace and retrace
LAGS = (1, 2, 4, 8, 16)  # pixels, of the error signal with itself
EDGES = (1, 2, 3, 5, 8, 13, 21, 34, 65)  # of the bands of spatial frequency, in periods a line
SLOPE_LAGS = (0, 1, 2)  # pixels by which the error signal follows the slope
FLOOR = 1e-4  # of what logarithms are taken of
SETTINGS = 6
FEATURES = 63


def log_rms(x: torch.Tensor) -> torch.Tensor:
    """Natural logarithm of the root mean square over the last axis."""
    return 0.5 * torch.log((x**2).mean(-1) + FLOOR**2)


def correlation(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Pearson's coefficient over the last axis, (..., n) twice -> (...); 0 where nothing varies."""
    x, y = x - x.mean(-1, keepdim=True), y - y.mean(-1, keepdim=True)
    return (x * y).mean(-1) / torch.sqrt((x**2).mean(-1) * (y**2).mean(-1) + FLOOR**4)


class LineFeatures(nn.Module):
    """Scan lines (b, 12, pixels) and settings (b, 6) -> (b, FEATURES); nothing in it is learned.

    setpoint: (low, span) of the setpoint ratio, so that a saturated error signal, 1 - setpoint, is known as such.
    """

    cosine: torch.Tensor
    sine: torch.Tensor

    def __init__(self, pixels: int, setpoint: tuple[float, float]):
        super().__init__()
        self.setpoint = setpoint
        place = torch.arange(pixels) * (2 * math.pi / pixels)
        window = 0.5 - 0.5 * torch.cos(place)
        angle = place[:, None] * torch.arange(1, EDGES[-1])
        self.register_buffer("cosine", window[:, None] * torch.cos(angle), persistent=False)
        self.register_buffer("sine", window[:, None] * torch.sin(angle), persistent=False)

    def bands(self, x: torch.Tensor) -> torch.Tensor:
        """Log power in each band between EDGES: (..., pixels) -> (..., 8)."""
        x = x - x.mean(-1, keepdim=True)
        power = ((x @ self.cosine) ** 2 + (x @ self.sine) ** 2) / x.shape[-1] ** 2
        parts = [power[..., low - 1 : high - 1].sum(-1) for low, high in itertools.pairwise(EDGES)]
        return 0.5 * torch.log(torch.stack(parts, -1) + FLOOR**2)

    def forward(self, lines: torch.Tensor, settings: torch.Tensor) -> torch.Tensor:
        height, error, phase = lines[:, 0:2], lines[:, 2:4], lines[:, 4:6]
        before, error_before = lines[:, 6], lines[:, 8]
        n = lines.shape[-1]
        # both ways in the order of time: the retrace runs backwards
        h, e = (torch.stack([v[:, 0], v[:, 1].flip(-1)], 1) for v in (height, error))
        slope = h[..., 1:] - h[..., :-1]
        room = (1 - self.setpoint[0] - self.setpoint[1] * settings[:, 2])[:, None, None]
        apart = [height[:, 0, max(s, 0) : n + min(s, 0)] - height[:, 1, max(-s, 0) : n - max(s, 0)] for s in SHIFTS]
        zero_mean = e - e.mean(-1, keepdim=True)
        third = (zero_mean**3).mean(-1) / ((zero_mean**2).mean(-1) + FLOOR**2) ** 1.5
        follows = [correlation(e[..., 1 + lag :], slope[..., : n - 1 - lag]).mean(1) for lag in SLOPE_LAGS]
        gain = (zero_mean[..., 1:] * slope).mean((1, 2)) / ((slope**2).mean((1, 2)) + FLOOR)
        columns = [
            log_rms(h), log_rms(slope).mean(1, keepdim=True), torch.log(slope.abs().amax((1, 2)) + FLOOR)[:, None],
            torch.stack([log_rms(a - a.mean(-1, keepdim=True)) for a in apart], 1),
            log_rms(e), e.mean((1, 2))[:, None], e.amax(-1).mean(1, keepdim=True), e.amin(-1).mean(1, keepdim=True),
            torch.sigmoid(20 * (e / room - 0.7)).mean((1, 2))[:, None], torch.sigmoid(40 * (-0.1 - e)).mean((1, 2))[:, None],
            torch.stack([correlation(e[..., lag:], e[..., :-lag]).mean(1) for lag in LAGS], 1),
            self.bands(e).mean(1), self.bands(h).mean(1),
            torch.stack([*follows, torch.tanh(gain), torch.tanh(third.mean(1) / 3)], 1),
            torch.stack([phase.mean((1, 2)), phase.std(-1).mean(1), phase.amax((1, 2)), phase.amin((1, 2)),
                         torch.sigmoid(50 * (phase - 0.5)).mean((1, 2)), correlation(phase, error).mean(1)], 1),
            torch.stack([log_rms(height[:, 0] - before), correlation(height[:, 0], before), log_rms(error_before),
                         correlation(error[:, 0], error_before), correlation(error[:, 0], error[:, 1])], 1),
            2 * settings - 1,
        ]  # fmt: skip
        return torch.cat(columns, 1)


class FeedbackPolicy(nn.Module):
    """Observation and memory -> action and memory. ``mean`` and ``scale`` (FEATURES,) standardise the features.

    start: settings (6,) between 0 and 1 that it asks for before it has learned anything. ceiling: (6,) what it never asks
    more than. largest_step: change of the settings that an action of 1 means.
    """

    mean: torch.Tensor
    scale: torch.Tensor
    ceiling: torch.Tensor

    def __init__(self, pixels: int, setpoint: tuple[float, float], start: torch.Tensor, ceiling: torch.Tensor, largest_step: float, hidden: int = 96):
        super().__init__()
        self.features, self.largest_step, self.hidden = LineFeatures(pixels, setpoint), largest_step, hidden
        self.register_buffer("mean", torch.zeros(FEATURES))
        self.register_buffer("scale", torch.ones(FEATURES))
        self.register_buffer("ceiling", ceiling.clone())
        self.look = nn.Sequential(nn.Linear(FEATURES, hidden), nn.SiLU())
        self.recur = nn.GRU(hidden, hidden, batch_first=True)
        first, last = nn.Linear(2 * hidden, hidden), nn.Linear(hidden, SETTINGS)
        self.head = nn.Sequential(first, nn.SiLU(), last)
        with torch.no_grad():
            last.weight *= 0.1
            last.bias.copy_(torch.logit((start / ceiling).clamp(0.02, 0.98)))

    def embed(self, features: torch.Tensor, memory: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Sequences of features (b, t, FEATURES) and memory (b, hidden) -> what is known (b, t, 2 hidden) and memory after."""
        seen = self.look(((features - self.mean) / self.scale).clamp(-5, 5))
        remembered, after = self.recur(seen, memory[None])
        return torch.cat([seen, remembered], -1), after[0]

    def wanted(self, known: torch.Tensor) -> torch.Tensor:
        """What is known (..., 2 hidden) -> wanted settings (..., 6) between 0 and the ceiling."""
        return self.ceiling * torch.sigmoid(self.head(known))

    def forward(self, lines: torch.Tensor, settings: torch.Tensor, memory: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        known, memory = self.embed(self.features(lines, settings)[:, None], memory)
        return ((self.wanted(known[:, 0]) - settings) / self.largest_step).clamp(-1, 1), memory


class Critic(nn.Module):
    """Two estimates (..., 2) of the return from hidden state, what was seen, the settings now and those to come."""

    def __init__(self, inputs: int, width: int = 192):
        super().__init__()
        self.estimates = nn.ModuleList(
            nn.Sequential(nn.Linear(inputs, width), nn.LayerNorm(width), nn.SiLU(), nn.Linear(width, width), nn.LayerNorm(width), nn.SiLU(),
                          nn.Linear(width, 1)) for _ in range(2))  # fmt: skip

    def forward(self, *parts: torch.Tensor) -> torch.Tensor:
        whole = torch.cat(parts, -1)
        return torch.cat([estimate(whole) for estimate in self.estimates], -1)
