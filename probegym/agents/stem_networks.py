"""Networks that read aberrations from frames, and the recurrent policy around them (torch; exported to ONNX).

The reader gives a mean and a variance for every control. The policy keeps a belief over the aberrations, a diagonal
Gaussian that it updates with each reading (a Kalman filter), moves the controls to cancel the mean, and declares when
the phase variance that its belief still allows is small.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import nn

LOG_VARIANCE = (-10.0, 3.0)


def grid_shift(frames: torch.Tensor) -> torch.Tensor:
    """Frames (b, c, n, n) rolled so that the centre of intensity, on the torus, is in the middle.

    A product with permutation matrices, because rolling by data is not exported to ONNX.
    """
    n = frames.shape[-1]
    angle = torch.arange(n, device=frames.device) * (2 * math.pi / n)
    index = torch.arange(n, device=frames.device)
    for axis in (2, 3):
        profile = frames.sum(5 - axis)
        centre = torch.atan2((profile * torch.sin(angle)).sum(-1), (profile * torch.cos(angle)).sum(-1))
        offset = torch.round(centre * (n / (2 * math.pi))).long() - n // 2
        source = torch.remainder(index[:, None] + offset[..., None, None], n)
        matrix = (source == index).to(frames.dtype)
        frames = matrix @ frames if axis == 2 else frames @ matrix.transpose(-1, -2)
    return frames


class ImageReader(nn.Module):
    """HAADF frames at known excursions -> mean and log variance of each control, in scales."""

    augments = True  # frames may be turned and mirrored with their labels

    def __init__(self, frames: int, pixels: int, outputs: int, channels: tuple[int, ...] = (16, 32, 64, 128), hidden: int = 256):
        super().__init__()
        layers: list[nn.Module] = []
        width = frames
        for index, channel in enumerate(channels):
            kernel = 5 if index == 0 else 3
            layers += [nn.Conv2d(width, channel, kernel, 2, kernel // 2, bias=False), nn.BatchNorm2d(channel), nn.ReLU(inplace=True)]
            width = channel
            if index == 1:
                layers += [nn.Conv2d(width, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
        self.features = nn.Sequential(*layers)
        first, last = nn.Linear(width * math.ceil(pixels / 2 ** len(channels)) ** 2, hidden), nn.Linear(hidden, 2 * outputs)
        self.head = nn.Sequential(first, nn.SiLU(), last)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def contrast(self, frames: torch.Tensor) -> torch.Tensor:
        """What the layers are shown of frames (b, c, h, w), in the same shape."""
        return torch.sqrt(grid_shift(frames) / frames.mean((1, 2, 3), keepdim=True).clamp_min(1e-3)) - 1

    def forward(self, frames: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """frames: (b, c, h, w) grey levels 0 to 255."""
        out = self.head(self.features(self.contrast(frames).contiguous(memory_format=torch.channels_last)).flatten(1))
        mean, log_variance = out.chunk(2, dim=1)
        return mean, log_variance.clamp(*LOG_VARIANCE)


class ShadowReader(ImageReader):
    """Shadows of a film at known excursions -> mean and log variance of each control, in scales.

    Where rays count, a frame is a picture of the film, magnified and distorted by the aberrations: particles that are round on
    average are drawn out where the magnification is not the same in all directions.
    """

    augments = False  # films lie in all eight ways already

    def contrast(self, frames: torch.Tensor) -> torch.Tensor:
        """Each frame (b, c, h, w) against its own mean: how much a film takes away does not matter."""
        return 5 * (frames / frames.mean((2, 3), keepdim=True).clamp_min(1e-3) - 1)


class RonchigramReader(nn.Module):
    """Two Ronchigrams at opposite excursions -> mean and log variance of each control, from local power spectra.

    In a patch around the angle alpha the film appears as an in-line hologram whose defocus is the local curvature of the
    aberration function, so the rings of the patch's spectrum measure it (Lupini et al., Ultramicroscopy 110, 891,
    2010). The spectrum does not see the sign of the contrast: a column with aberrations c at
    excursion D looks like one with -c at -D. The mean is made odd under the exchange of the two frames, so whatever the
    film alone adds to the spectra cancels, and unknown films are read like known ones.
    """

    augments = False

    inside: torch.Tensor
    filters: torch.Tensor

    def __init__(self, frames: int, pixels: int, outputs: int, patch: int = 14, stride: int = 4, bins: int = 16,
                 widths: tuple[int, int, int] = (96, 32, 192)):  # fmt: skip
        super().__init__()
        if frames != 2:
            raise ValueError(f"the Ronchigram reader takes two frames at opposite excursions, not {frames}")
        grid = (pixels - patch) // stride + 1
        centre = np.arange(grid) * stride + patch / 2 - pixels / 2
        inside = np.hypot(centre[:, None], centre[None, :]).ravel() < pixels / 2 - 1
        self.register_buffer("inside", torch.from_numpy(np.nonzero(inside)[0]))
        self.register_buffer("filters", self._filters(patch, bins))
        self.stride, self.outputs = stride, outputs
        spectrum, patches = bins * (bins // 2 + 1), int(inside.sum())
        self.normalise = nn.BatchNorm1d(spectrum, affine=False, momentum=0.01)
        self.place = nn.Parameter(torch.zeros(patches, widths[0]))
        self.first, self.second = nn.Linear(2 * spectrum, widths[0]), nn.Linear(widths[0], widths[1])
        self.third, self.fourth = nn.Linear(widths[1] * patches, widths[2]), nn.Linear(widths[2], widths[2])
        self.last = nn.Linear(widths[2], 2 * outputs)

    @staticmethod
    def _filters(patch: int, bins: int) -> torch.Tensor:
        """Windowed Fourier filters of the mean-free patch as convolution kernels: (2 bins (bins/2+1), 1, patch, patch)."""
        window = np.hanning(patch + 2)[1:-1]
        window, x = np.outer(window, window), np.arange(patch)
        orders = [(k, h) for k in range(bins) for h in range(bins // 2 + 1)]
        waves = [window * np.exp(-2j * np.pi * (k * x[:, None] + h * x[None, :]) / bins) for k, h in orders]
        kernels = np.array([wave - wave.mean() for wave in waves])
        return torch.from_numpy(np.concatenate([kernels.real, kernels.imag])[:, None].astype(np.float32))

    def spectra(self, frames: torch.Tensor) -> torch.Tensor:
        """(b, 2, h, w) -> normalised log power (b, 2, patches, bins)."""
        b, c, pixels, _ = frames.shape
        frames = frames / frames.mean((2, 3), keepdim=True).clamp_min(1e-3) * (math.pi / 4)  # 1 on average inside the disc
        wave = nn.functional.conv2d(frames.reshape(b * c, 1, pixels, pixels), self.filters, stride=self.stride)
        real, imaginary = wave.chunk(2, dim=1)
        power = torch.log(real * real + imaginary * imaginary + 0.02).flatten(2)[:, :, self.inside].transpose(1, 2)
        if self.training:
            power = self.normalise(power.reshape(-1, power.shape[2])).reshape(power.shape)
        else:  # written out: the ONNX exporter loses the number of channels that a batch normalisation needs
            mean, variance = self.normalise.running_mean, self.normalise.running_var
            assert mean is not None and variance is not None
            power = (power - mean) * torch.rsqrt(variance + self.normalise.eps)
        return power.reshape(b, c, power.shape[1], power.shape[2])

    def _head(self, one: torch.Tensor, other: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        h = torch.relu(self.first(torch.cat([one, other], dim=2)) + self.place)
        h = torch.relu(self.third(torch.relu(self.second(h)).flatten(1)))
        return self.last(h + torch.relu(self.fourth(h))).split(self.outputs, dim=1)

    def forward(self, frames: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """frames: (b, 2, h, w) grey levels 0 to 255."""
        power = self.spectra(frames)
        there, back = self._head(power[:, 0], power[:, 1]), self._head(power[:, 1], power[:, 0])
        return there[0] - back[0], (there[1] + back[1]).clamp(*LOG_VARIANCE)


READERS = {"haadf": ImageReader, "ronchigram": RonchigramReader}
"""What reads frames of a kind; Ronchigrams that are shadows have a reader of their own."""


class TunerPolicy(nn.Module):
    """Reader + belief -> action and next belief. All in scales of the controls.

    weights: (n,) rad^2 of phase variance per squared scale. prior: (n,) variance of the start box. Constants of the
    filter: ``trust`` multiplies the reader's variance, ``floor`` is added to it (standard deviation); a step adds
    ``slip`` of its size as process noise, and every step ``wander``. ``threshold``: rad^2 at which it declares;
    ``last``: share of the budget below which another step would not fit, so it declares.
    """

    weights: torch.Tensor
    prior: torch.Tensor

    def __init__(self, reader: nn.Module, weights, largest_step: float, prior, last: float, threshold: float = 0.1,
                 trust: float = 1.5, floor: float = 0.03, slip: float = 0.04, wander: float = 0.01):  # fmt: skip
        super().__init__()
        self.reader = reader
        self.register_buffer("weights", torch.as_tensor(np.asarray(weights), dtype=torch.float32))
        self.register_buffer("prior", torch.as_tensor(np.asarray(prior), dtype=torch.float32))
        self.largest_step, self.last, self.threshold = largest_step, last, threshold
        self.trust, self.floor, self.slip, self.wander = trust, floor, slip, wander

    def forward(self, frames: torch.Tensor, budget: torch.Tensor, mean: torch.Tensor, variance: torch.Tensor):
        """frames: (b, c, h, w) uint8; budget: (b, 1); mean, variance: (b, n). Returns action, mean, variance."""
        reading, log_variance = self.reader(frames.float())
        noise = self.trust * torch.exp(log_variance) + self.floor**2
        gain = variance / (variance + noise)
        mean, variance = mean + gain * (reading - mean), (1 - gain) * variance
        step = (-mean / self.largest_step).clamp(-1, 1)
        mean = mean + step * self.largest_step
        moved = (step * self.largest_step) ** 2
        variance = variance + self.slip**2 * (moved + moved.mean(1, keepdim=True)) + self.wander**2
        expected = ((variance + mean**2) * self.weights).sum(1, keepdim=True)
        ready = (expected < self.threshold) | (budget < self.last)
        return torch.cat([step, ready.float() * 2 - 1], dim=1), mean, variance
