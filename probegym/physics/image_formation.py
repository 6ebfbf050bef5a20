"""STEM images from a precomputed bilinear tensor: exact multislice for any aberration state.

With plane waves k inside the aperture, amplitudes A_k = a(k) exp(-i chi_k), and the scattering matrix S_k(g) of the
specimen, a detector of weight D(g) records at probe position r

    I(r) = sum_kk' A_k A*_k' exp(-2 pi i (k - k').r) M_kk',    M_kk' = sum_g D(g) S_k(g) S*_k'(g)

(the transmission cross-coefficients of Hopkins, Proc. R. Soc. A 217, 408 (1953), 10.1098/rspa.1953.0071). M knows
nothing of the aberrations, so it is computed once (physics/specimens.py); an image is then a sum over pairs with equal
Q = k - k' and one Fourier synthesis. Frozen phonons and focal spread fold into M, a finite source into Q.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np

from probegym.physics import native
from probegym.physics.optics import ABERRATIONS, aberration_basis, aperture, wavelength
from probegym.physics.threads import in_tiles


@dataclass(frozen=True)
class ScatteringTensor:
    """M of one specimen and detector, on the reciprocal grid of its cell.

    energy: eV. semiangle_cutoff: rad, of the beams kept. extent: (x, y) of the cell in m.
    beams: (beams, 2) integer multiples of 1/extent. first, second: (pairs,) beams of each kept pair, sorted by
    Q = beams[first] - beams[second] on the half plane Qx > 0 or (Qx = 0, Qy >= 0). values: (pairs,) complex M.
    """

    energy: float
    semiangle_cutoff: float
    extent: tuple[float, float]
    beams: np.ndarray
    first: np.ndarray
    second: np.ndarray
    values: np.ndarray

    @classmethod
    def from_matrix(cls, energy, semiangle_cutoff, extent, beams, matrix, tolerance: float = 0.0):
        """Keep the half plane of a full (beams, beams) Hermitian matrix, dropping |M| <= tolerance max|M|."""
        first, second = half_plane(beams)
        values = matrix[first, second]
        kept = np.abs(values) > tolerance * np.abs(values).max()
        return cls(energy, semiangle_cutoff, tuple(extent), beams, first[kept], second[kept], values[kept])


def half_plane(beams: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """All pairs (k, k') with k - k' on the half plane, sorted by the difference; int arrays (pairs,)."""
    difference = beams[:, None, :] - beams[None, :, :]
    dx, dy = difference[..., 0], difference[..., 1]
    first, second = np.nonzero((dx > 0) | ((dx == 0) & (dy >= 0)))
    span = 2 * int(np.abs(dy).max()) + 1
    order = np.argsort(dx[first, second] * span + dy[first, second], kind="stable")
    return first[order].astype(np.int32), second[order].astype(np.int32)


class _Tensor(ctypes.Structure):
    _fields_ = (
        [(name, ctypes.c_int32) for name in ("beams", "coefficients", "columns", "frequencies", "qx_max", "qy_max")]
        + [(name, ctypes.c_void_p) for name in ("basis", "weight", "first", "second", "start", "m_real", "m_imag", "qx", "qy", "column", "row_real", "row_imag")]
        + [("source_x", ctypes.c_float), ("source_y", ctypes.c_float)]
    )


@dataclass
class ImageFormer:
    """Images of one tensor through one aperture; fast on the CPU, safe to share between threads.

    semiangle_cutoff: rad, at most that of the tensor. names: the aberrations that ``coefficients`` hold, in order.
    source_size: standard deviation of the effective source in the specimen plane, m. focal_spread: standard deviation
    of the focus, m. soft: abTEM's soft aperture edge (tensors hold the beams it needs).
    """

    tensor: ScatteringTensor
    semiangle_cutoff: float
    names: tuple[str, ...] = ABERRATIONS
    source_size: float = 0.0
    focal_spread: float = 0.0
    soft: bool = False
    _arrays: dict = field(init=False, repr=False)

    def __post_init__(self):
        tensor, lam = self.tensor, wavelength(self.tensor.energy)
        kx, ky = (tensor.beams / np.array(tensor.extent)).T
        alpha, phi = np.hypot(kx, ky) * lam, np.arctan2(ky, kx)
        step = lam / np.array(tensor.extent)
        if self.semiangle_cutoff > tensor.semiangle_cutoff * (1 + 1e-6):
            raise ValueError(
                f"aperture {self.semiangle_cutoff * 1e3:g} mrad is wider than the tensor's "
                f"{tensor.semiangle_cutoff * 1e3:g} mrad: build the specimen with a larger aperture"
            )
        weight = aperture(alpha, phi, self.semiangle_cutoff, step, self.soft)
        weight /= np.sqrt((weight**2).sum())
        used = np.nonzero(weight)[0]
        used = used[np.lexsort((tensor.beams[used, 1], tensor.beams[used, 0]))]  # kx, then ky ascending
        renumber = np.full(len(weight), -1)
        renumber[used] = np.arange(len(used))
        kept = (renumber[tensor.first] >= 0) & (renumber[tensor.second] >= 0)
        first, second, values = tensor.first[kept], tensor.second[kept], tensor.values[kept]
        q = tensor.beams[first] - tensor.beams[second]
        order = np.lexsort((renumber[first], q[:, 1], q[:, 0]))
        first, second, values, q = first[order], second[order], values[order], q[order]
        if self.focal_spread:
            k2 = kx**2 + ky**2
            values = values * np.exp(-0.5 * (np.pi * lam * self.focal_spread * (k2[first] - k2[second])) ** 2)
        values = np.where((q == 0).all(1), 1, 2) * values  # the other half plane is the complex conjugate
        start = np.concatenate([[0], np.nonzero((np.diff(q, axis=0) != 0).any(1))[0] + 1])
        self.frequencies = q[start]
        self._arrays = {
            "basis": (aberration_basis(kx[used], ky[used], lam, self.names) / (2 * np.pi)).astype(np.float32),
            "weight": weight[used].astype(np.float32),
            "first": renumber[first].astype(np.int16),
            "second": renumber[second].astype(np.int16),
            "start": np.append(start, len(q)).astype(np.int64),
            "m_real": np.ascontiguousarray(values.real, np.float32),
            "m_imag": np.ascontiguousarray(values.imag, np.float32),
            "qx": self.frequencies[:, 0].astype(np.int16),
            "qy": self.frequencies[:, 1].astype(np.int16),
        }
        columns, rows = _rows(tensor.beams[used], renumber[first], renumber[second], values)
        self._arrays |= {"column": columns, "row_real": rows.real.copy(), "row_imag": rows.imag.copy()}
        limits = np.abs(self.frequencies).max(0)
        damping = 2 * np.pi**2 * self.source_size**2 / np.square(tensor.extent)
        self._struct = _Tensor(
            len(used), len(self.names), len(columns), len(self.frequencies), *map(int, limits),
            *(array.ctypes.data if array.size else None for array in self._arrays.values()), *map(float, damping),
        )  # fmt: skip
        self._kernel = native.library("stem").stem_images

    def __reduce__(self):
        fields = (self.tensor, self.semiangle_cutoff, self.names, self.source_size, self.focal_spread, self.soft)
        return ImageFormer, fields

    def images(self, coefficients, line_x, line_y, columns: int, pixel_size: float, threads: int | None = None):
        """Noiseless images as fractions of the beam current.

        coefficients: (lanes, n) in m. line_x, line_y: (lanes, rows), where each scan line starts, in m from the cell's
        origin: raster, drift and scan noise together. pixel_size: m, along a line. Returns float32 (lanes, rows,
        columns): rows run along y, columns along x. Raises MemoryError.
        """
        extent = self.tensor.extent
        coefficients = np.ascontiguousarray(coefficients, np.float32)
        line_x = np.ascontiguousarray(np.mod(np.asarray(line_x) / extent[0], 1), np.float32)
        line_y = np.ascontiguousarray(np.mod(np.asarray(line_y) / extent[1], 1), np.float32)
        lanes, rows = line_x.shape
        if coefficients.shape != (lanes, len(self.names)) or line_y.shape != line_x.shape:
            raise ValueError(f"coefficients {coefficients.shape} and lines {line_x.shape}, {line_y.shape} do not match")
        cos, sin = _column_waves(self._struct.qx_max + 1, columns, pixel_size / extent[0])
        images = np.empty((lanes, rows, columns), np.float32)

        def tile(part: slice) -> int:
            return self._kernel(
                ctypes.byref(self._struct), part.stop - part.start, *map(native.pointer, (coefficients[part], line_x[part], line_y[part])),
                rows, columns, native.pointer(cos), native.pointer(sin), native.pointer(images[part]),
            )  # fmt: skip

        if any(in_tiles(tile, lanes, threads)):
            raise MemoryError(f"no memory for {lanes} images of {rows} x {columns} pixels")
        return images


ROW_STEP = 8  # STEP of kernels/stem.c
DENSE = 3  # rows are worth it when at most so many times longer than the pairs


def _rows(beams: np.ndarray, first: np.ndarray, second: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """M as padded rows for single lanes: (columns (n, 3) int32: start, length, lowest ky; rows complex64, or empty if sparse).

    A row holds M_kk' of one k against a whole column of k', in the order (Qx, k, k').
    """
    n = beams[:, 0] - beams[:, 0].min()
    start = np.searchsorted(n, np.arange(n.max() + 1))
    length = np.bincount(n)
    columns = np.stack([start, length, beams[start, 1]], axis=1).astype(np.int32)
    padded = -(-length // ROW_STEP) * ROW_STEP
    base, at = np.zeros((len(length), len(length)), np.int64), 0
    for qx in range(int((n[first] - n[second]).max()) + 1):
        for column in range(qx, len(length)):
            base[qx, column] = at
            at += length[column] * padded[column - qx]
    if at > DENSE * len(values):
        return columns, np.empty(0, np.complex64)
    rows, qx, other = np.zeros(at, np.complex64), n[first] - n[second], n[second]
    rows[base[qx, n[first]] + (first - start[n[first]]) * padded[other] + second - start[other]] = values
    return columns, rows


@lru_cache(maxsize=64)
def _column_waves(frequencies: int, columns: int, step: float) -> tuple[np.ndarray, np.ndarray]:
    phase = 2 * np.pi * np.arange(frequencies)[:, None] * np.arange(columns) * step
    return np.cos(phase).astype(np.float32), np.sin(phase).astype(np.float32)


def raster(lanes: int, rows: int, pixel_size: float, origin=(0.0, 0.0)) -> tuple[np.ndarray, np.ndarray]:
    """Line starts of an undisturbed scan: (line_x, line_y), each (lanes, rows) in m."""
    origin = np.broadcast_to(np.asarray(origin, float), (lanes, 2))
    line_x = np.repeat(origin[:, :1], rows, axis=1)
    return line_x, origin[:, 1:] + np.arange(rows) * pixel_size


def shot_noise(intensity: np.ndarray, electrons: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """Poisson counts of intensities (lanes, ...) that are fractions of ``electrons`` per pixel (lanes,)."""
    intensity = np.ascontiguousarray(intensity, np.float32)
    electrons = np.ascontiguousarray(electrons, np.float32)
    keys = np.ascontiguousarray(keys, np.uint64)
    counts = np.empty_like(intensity)
    kernel, pixels = native.library("shot_noise").shot_noise, ctypes.c_int64(intensity.size // max(1, len(intensity)))

    def tile(part: slice) -> None:
        arrays = (keys[part], electrons[part], intensity[part], counts[part])
        kernel(part.stop - part.start, pixels, *map(native.pointer, arrays))

    in_tiles(tile, len(intensity))
    return counts
