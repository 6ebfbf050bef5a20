"""The two image models of physics/ in torch, for those who need gradients or a GPU; no environment runs on them.

The same equations as :class:`ImageFormer` and :class:`RonchigramFormer`, from the same data, batched over lanes, on any
device, differentiable with respect to aberrations and positions; tests/test_differentiable.py holds the forms equal.
On a CPU the compiled kernels are faster.

An image is a sum over some 10^5 pairs of beams, and a pair's phase is linear in the coefficients. So the phases of all
lanes are one matrix product, and the sum over the pairs of equal Q is a batched one: no gathers, and about 4 MB of
memory traffic an image (graphene), a third of what multiplying gathered amplitudes takes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch.utils.checkpoint import checkpoint

from probegym.physics.image_formation import ImageFormer
from probegym.physics.optics import aberration_basis, aperture, interaction_constant, wavelength
from probegym.physics.ronchigram import RonchigramFormer, antialias_aperture

BLOCK = 32
"""Pairs that one row of the batched product sums; runs of equal Q are padded to a multiple of it."""

CHUNK_BYTES = {"cpu": 2**26, "cuda": 2**30}
"""Working memory of one chunk of lanes. A gradient over several chunks recomputes each on its way back."""


@contextmanager
def _full_precision(device: torch.device) -> Iterator[None]:
    """Neither TF32 nor autocast: their ten bits are too few for a phase of several turns."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        torch.set_float32_matmul_precision(before)


def _in_chunks(work, lane_bytes: int, *lanes: torch.Tensor) -> torch.Tensor:
    """``work(*lanes)`` a chunk of lanes at a time, within CHUNK_BYTES."""
    size = max(1, CHUNK_BYTES.get(lanes[0].device.type, 2**30) // lane_bytes)
    chunks = list(zip(*(tensor.split(size) for tensor in lanes), strict=True))
    if len(chunks) == 1:
        return work(*chunks[0])
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in lanes):
        return torch.cat([checkpoint(work, *chunk, use_reentrant=False) for chunk in chunks])
    return torch.cat([work(*chunk) for chunk in chunks])


class TorchImageFormer:
    """:class:`ImageFormer` on a torch device, in single or double precision."""

    def __init__(self, former: ImageFormer, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32):
        self.extent, self.names = former.tensor.extent, former.names
        self.device, self.dtype = torch.device(device), dtype
        basis, values, q = _pairs(former)
        index, owner = _blocks(q)
        basis, values = (np.append(array, np.zeros_like(array[..., :1]), axis=-1)[..., index] for array in (basis, values))
        self._basis = self._put(np.moveaxis(basis, 0, -1).reshape(-1, len(basis)))
        real, imag = values.real, values.imag
        self._even, self._odd = self._put(np.stack([real, imag], 1)), self._put(np.stack([imag, -real], 1))
        self._limits = np.abs(q).max(0)
        cell = (q[:, 1] + self._limits[1]) * (self._limits[0] + 1) + q[:, 0]
        self._cell = torch.as_tensor(cell[owner], device=self.device)

    def _put(self, array: np.ndarray) -> torch.Tensor:
        return torch.as_tensor(np.ascontiguousarray(array), dtype=self.dtype, device=self.device)

    def images(self, coefficients: torch.Tensor, line_x: torch.Tensor, line_y: torch.Tensor, columns: int, pixel_size: float):
        """Noiseless images as fractions of the beam current.

        coefficients: (lanes, n) in m. line_x, line_y: (lanes, rows), where each scan line starts, m. pixel_size: m, along
        a line. Differentiable in all three tensors. Returns (lanes, rows, columns), of this former's device and dtype.
        Raises ValueError for shapes that do not fit together.
        """
        if coefficients.shape != (len(line_x), len(self.names)) or line_y.shape != line_x.shape:
            shapes = ", ".join(str(tuple(tensor.shape)) for tensor in (coefficients, line_x, line_y))
            raise ValueError(f"coefficients and line starts of shapes {shapes} do not match")
        step = pixel_size / self.extent[0]

        def work(coefficients: torch.Tensor, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            with _full_precision(self.device):
                return self._synthesis(self._spectrum(coefficients), x, y, columns, step)

        lane_bytes = 4 * self._basis.shape[0] * self._basis.element_size()  # phases, cosines, sines and room to move
        return _in_chunks(work, lane_bytes, coefficients, line_x / self.extent[0] % 1, line_y / self.extent[1] % 1)

    def _spectrum(self, coefficients: torch.Tensor) -> torch.Tensor:
        """I(Q) on the half plane Qx >= 0: complex (lanes, 2 Qy + 1, Qx + 1)."""
        phase = (self._basis @ coefficients.T).view(-1, BLOCK, len(coefficients))
        sums = torch.baddbmm(torch.bmm(self._even, phase.cos()), self._odd, phase.sin())
        nx, ny = self._limits[0] + 1, 2 * self._limits[1] + 1
        grid = sums.new_zeros(ny * nx, 2, len(coefficients)).index_add(0, self._cell, sums)
        grid = grid.permute(2, 0, 1).reshape(-1, ny, nx, 2)
        return torch.complex(grid[..., 0], grid[..., 1])

    def _synthesis(self, spectrum: torch.Tensor, x: torch.Tensor, y: torch.Tensor, columns: int, step: float) -> torch.Tensor:
        """sum_Q Re[I(Q) exp(-2 pi i Q.r)] with line starts in fractions of the cell: (lanes, rows, columns)."""
        qx = torch.arange(int(self._limits[0]) + 1, dtype=self.dtype, device=self.device)
        qy = torch.arange(-int(self._limits[1]), int(self._limits[1]) + 1, dtype=self.dtype, device=self.device)
        lines = torch.bmm(_wave(y[..., None] * qy), spectrum) * _wave(x[..., None] * qx)
        phase = 2 * np.pi * step * qx[:, None] * torch.arange(columns, dtype=self.dtype, device=self.device)
        return lines.real @ phase.cos() + lines.imag @ phase.sin()


def _wave(turns: torch.Tensor) -> torch.Tensor:
    """exp(-2 pi i turns)."""
    phase = 2 * np.pi * turns
    return torch.complex(phase.cos(), -phase.sin())


def _pairs(former: ImageFormer) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What a pair of beams adds to I(Q): phase per metre (n, pairs), complex weight (pairs,) and Q (pairs, 2).

    The aperture, the focal spread and the source are in the weight; pairs off the origin count for both half planes.
    """
    tensor, lam, extent = former.tensor, wavelength(former.tensor.energy), np.array(former.tensor.extent)
    kx, ky = (tensor.beams / extent).T
    amplitude = aperture(np.hypot(kx, ky) * lam, np.arctan2(ky, kx), former.semiangle_cutoff, lam / extent, former.soft)
    amplitude = amplitude / np.sqrt((amplitude**2).sum())
    kept = (amplitude[tensor.first] * amplitude[tensor.second]) > 0
    first, second = tensor.first[kept], tensor.second[kept]
    q = tensor.beams[first] - tensor.beams[second]
    k2 = kx**2 + ky**2
    decoherence = 0.5 * (np.pi * lam * former.focal_spread * (k2[first] - k2[second])) ** 2
    decoherence = decoherence + 2 * np.pi**2 * former.source_size**2 * ((q / extent) ** 2).sum(1)
    weight = np.where((q == 0).all(1), 1, 2) * amplitude[first] * amplitude[second] * np.exp(-decoherence)
    basis = aberration_basis(kx, ky, lam, former.names)
    return basis[:, first] - basis[:, second], weight * tensor.values[kept], q


def _blocks(q: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cut the pairs, sorted by Q, into blocks of one Q each.

    Returns the pairs of each block (blocks, BLOCK), with ``len(q)`` where a block has room left, and one of the pairs
    (blocks,) to tell its Q.
    """
    start = np.concatenate([[0], np.nonzero((np.diff(q, axis=0) != 0).any(1))[0] + 1, [len(q)]])
    count = -(-np.diff(start) // BLOCK)
    owner = np.repeat(np.arange(len(count)), count)
    slot = np.arange(len(owner)) - np.repeat(np.cumsum(count) - count, count)
    index = (start[owner] + slot * BLOCK)[:, None] + np.arange(BLOCK)
    return np.where(index < start[owner + 1, None], index, len(q)), start[owner]


class TorchRonchigramFormer:
    """:class:`RonchigramFormer` on a torch device, in single or double precision."""

    def __init__(self, former: RonchigramFormer, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32):
        self.extent, self.names, self.bin, self.pixels = former.extent, former.names, former.bin, former.pixels
        self.device, self.dtype = torch.device(device), dtype
        lam, gpts = wavelength(former.energy), former.films.shape[-1]
        kx, ky = np.meshgrid(*[np.fft.fftfreq(gpts, d=former.extent / gpts)] * 2, indexing="ij")
        inside = np.hypot(kx, ky) * lam < former.semiangle_cutoff
        band = antialias_aperture(gpts, former.extent)
        basis = aberration_basis(kx[inside], ky[inside], lam, self.names)
        tilt = 2 * np.pi * np.stack([kx[inside], ky[inside]])  # exp(-2 pi i k.r) moves the probe to r
        self._basis, self._tilt = (torch.as_tensor(table, device=self.device) for table in (basis, tilt))
        self._inside = torch.as_tensor(np.nonzero(inside.ravel())[0], device=self.device)
        phase = np.exp(1j * interaction_constant(former.energy) * former.films.astype(np.float64))
        transmission = np.fft.ifft2(np.fft.fft2(phase) * band)
        self._transmission = torch.as_tensor(transmission).to(self.device, self.dtype.to_complex())
        points = np.arange(gpts * gpts).reshape(gpts, gpts)
        turned = [np.rot90(points, turns) for turns in range(4)]
        self._orientation = torch.as_tensor(np.stack([*turned, *(t.T for t in turned)]).reshape(8, 1, -1), device=self.device)
        propagator = np.exp(-1j * np.pi * lam * former.slice_thickness * (kx**2 + ky**2)) * band
        self._propagator = torch.as_tensor(propagator).to(self.device, self.dtype.to_complex())
        half = self.bin * self.pixels // 2
        self._seen = torch.as_tensor(np.arange(-half, half) % gpts, device=self.device)
        self._band = self._put(band)[self._seen][:, self._seen]

    def _put(self, array: np.ndarray) -> torch.Tensor:
        return torch.as_tensor(np.ascontiguousarray(array), dtype=self.dtype, device=self.device)

    def frames(self, coefficients: torch.Tensor, positions: torch.Tensor, variants: torch.Tensor, orientations: torch.Tensor | None = None):
        """Noiseless frames as fractions of the beam current per pixel.

        coefficients: (lanes, n) in m. positions: (lanes, 2) probe on the film, m. variants, orientations: (lanes,) integers
        as in :class:`RonchigramFormer`. Differentiable in coefficients and positions. Returns (lanes, pixels, pixels),
        rows along ky, columns along kx, of this former's device and dtype.
        """
        orientations = torch.zeros_like(variants) if orientations is None else orientations
        slices = self._transmission.shape[1]
        lane_bytes = (4 * slices + 4) * self._propagator.numel() * self._propagator.element_size()
        return _in_chunks(self._frames, lane_bytes, coefficients, positions % self.extent, variants, orientations)

    def _frames(self, coefficients: torch.Tensor, positions: torch.Tensor, variants: torch.Tensor, orientations: torch.Tensor):
        with _full_precision(self.device):  # tens of turns at the rim: single precision would cost 1e-5 of the range
            turns = (coefficients.double() @ self._basis + positions.double() @ self._tilt) / (2 * np.pi)
        phase = 2 * np.pi * (turns - turns.detach().round()).to(self.dtype)
        lanes, gpts = len(phase), len(self._propagator)
        amplitude = torch.complex(phase.cos(), -phase.sin()) / np.sqrt(phase.shape[1])
        wave = amplitude.new_zeros(lanes, gpts * gpts).index_copy(1, self._inside, amplitude).view(lanes, gpts, gpts)
        wave = torch.fft.ifft2(wave, norm="forward")
        transmission = self._transmission[variants].flatten(2)
        transmission = transmission.gather(2, self._orientation[orientations].expand_as(transmission)).unflatten(2, (gpts, gpts))
        for index in range(transmission.shape[1]):
            if index:
                wave = torch.fft.ifft2(torch.fft.fft2(wave) * self._propagator)
            wave = wave * transmission[:, index]
        wave = torch.fft.fft2(wave, norm="forward")[:, self._seen][:, :, self._seen]
        intensity = (wave.real**2 + wave.imag**2) * self._band**2
        p, b = self.pixels, self.bin
        return intensity.reshape(lanes, p, b, p, b).sum((2, 4)).mT
