"""Ronchigrams of a thin film: |FFT(psi t)|^2 over a large aperture, by multislice.

One slice is the phase-object approximation; with several, each is followed by Fresnel propagation, as in abTEM, whose
band limit (two thirds of Nyquist) the potentials already carry. Source: Schnitzer, Sung & Hovden, Microsc. Microanal.
26, 921 (2020), 10.1017/S1431927620001841.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

import numpy as np
from scipy import fft

from probegym.physics import native
from probegym.physics.optics import ABERRATIONS, aberration_basis, interaction_constant, wavelength
from probegym.physics.threads import in_tiles


def antialias_aperture(gpts: int, extent: float) -> np.ndarray:
    """AbTEM's band limit on a square grid, with its soft edge: (gpts, gpts), zero frequency first."""
    k = np.fft.fftfreq(gpts, d=extent / gpts)
    r = np.hypot(k[:, None], k[None, :])
    cutoff = gpts / extent / 2 * 2 / 3
    taper = 0.01 * gpts / extent
    edge = 0.5 * (1 + np.cos(np.pi * (r - cutoff + taper) / taper))
    return np.where(r > cutoff, 0.0, np.where(r > cutoff - taper, edge, 1.0))


class _Optics(ctypes.Structure):
    _fields_ = [(name, ctypes.c_int32) for name in ("gpts", "beams", "coefficients", "columns", "pitch", "slices", "half", "bin")] + [
        (name, ctypes.c_void_p) for name in ("basis", "weight", "target", "column_kx", "propagator", "band")
    ]


@dataclass
class RonchigramFormer:
    """Ronchigrams of one set of films; a film is chosen for every lane.

    films: (variants, slices, gpts, gpts) projected potential in V m, axes (x, y); gpts a power
    of two. energy: eV. extent: side of the
    square cell, m. semiangle_cutoff: rad. pixels: side of the square frame; frames are binned by the smallest whole
    factor that shows the whole aperture. slice_thickness: m.
    """

    films: np.ndarray
    energy: float
    extent: float
    semiangle_cutoff: float
    pixels: int = 64
    names: tuple[str, ...] = ABERRATIONS
    slice_thickness: float = 0.0

    def __post_init__(self):
        lam, gpts = wavelength(self.energy), self.films.shape[-1]
        if gpts & (gpts - 1):
            raise ValueError(f"films have {gpts} grid points, the transform needs a power of two: build them with 128, 256 or 512")
        k = np.fft.fftfreq(gpts, d=self.extent / gpts)
        kx, ky = np.meshgrid(k, k, indexing="ij")
        inside = np.hypot(kx, ky) * lam < self.semiangle_cutoff
        radius = self.semiangle_cutoff / lam * self.extent
        limit = gpts // 6  # the potentials reach gpts / 3: scattering from any beam of the disc to any other is whole
        if radius > limit:
            raise ValueError(
                f"a {self.semiangle_cutoff * 1e3:g} mrad aperture reaches {radius:.0f} grid frequencies, half the band limit is "
                f"{limit}: use a smaller aperture, a smaller cell or more grid points"
            )
        self.bin = int(np.ceil(2 * radius / self.pixels))
        if self.bin * self.pixels % 2:
            raise ValueError(f"{self.pixels} pixels of {self.bin} grid frequencies have no centre: ask for an even number of pixels")
        half = self.bin * self.pixels // 2
        if half > limit:
            raise ValueError(f"{self.pixels} pixels need {half} grid frequencies, half the band limit is {limit}: ask for fewer pixels")
        self.angle = 2 * half / self.extent * lam  # across the frame, rad
        self.middle = (self.films.shape[1] - 1) / 2 * self.slice_thickness  # depth of the film's middle below its first slice, m
        index = np.argwhere(inside)
        columns = np.unique(index[:, 0])
        pitch = -(-len(columns) // 16) * 16
        shift = 2 * np.pi * np.stack([kx[inside], ky[inside]])  # exp(-2 pi i k.r) moves the probe to r
        basis = np.concatenate([aberration_basis(kx[inside], ky[inside], lam, self.names), shift])
        self._band = band = antialias_aperture(gpts, self.extent)
        self._transmissions: dict[tuple[int, int], np.ndarray] = {}
        propagator = np.exp(-1j * np.pi * lam * self.slice_thickness * (kx**2 + ky**2)) * band / gpts**2
        camera = np.arange(-half, half) % gpts
        self._arrays = {
            "basis": (basis / (2 * np.pi)).astype(np.float32),
            "weight": np.full(len(index), 1 / np.sqrt(len(index)), np.float32),
            "target": (index[:, 1] * pitch + np.searchsorted(columns, index[:, 0])).astype(np.int32),
            "column_kx": columns.astype(np.int32),
            "propagator": propagator.astype(np.complex64),
            "band": (band[np.ix_(camera, camera)] ** 2).astype(np.float32),
        }
        sizes = (gpts, len(index), len(basis), len(columns), pitch, self.films.shape[1], half, self.bin)
        self._struct = _Optics(*sizes, *(array.ctypes.data for array in self._arrays.values()))
        self._kernel = native.library("ronchigram").ronchigrams

    def __reduce__(self):
        fields = (self.films, self.energy, self.extent, self.semiangle_cutoff, self.pixels, self.names, self.slice_thickness)
        return RonchigramFormer, fields

    def frames(self, coefficients, positions, variants, orientations=None, threads: int | None = None) -> np.ndarray:
        """Noiseless frames as fractions of the beam current per pixel.

        coefficients: (lanes, n) in m. positions: (lanes, 2) probe on the film, m. variants: (lanes,) which film.
        orientations: (lanes,) 0 to 7, how the film lies: quarter turns, then the same of its mirror image.
        Returns float32 (lanes, pixels, pixels): rows run along ky, columns along kx, the axis at the centre. Raises MemoryError.
        """
        coefficients = np.concatenate([coefficients, np.mod(positions, self.extent)], axis=1).astype(np.float32)
        frames = np.empty((len(coefficients), self.pixels, self.pixels), np.float32)
        orientations = np.zeros(len(frames), int) if orientations is None else orientations

        chosen = [self._transmission(int(v), int(o)) for v, o in zip(variants, orientations, strict=True)]

        def tile(part: slice) -> int:
            slices = (ctypes.c_void_p * (part.stop - part.start))(*(t.ctypes.data for t in chosen[part]))
            arrays = (native.pointer(coefficients[part]), slices, native.pointer(frames[part]))
            return self._kernel(ctypes.byref(self._struct), part.stop - part.start, *arrays)

        if any(in_tiles(tile, len(frames), threads)):
            raise MemoryError(f"no memory for {len(frames)} Ronchigrams")
        return frames

    def _transmission(self, variant: int, orientation: int) -> np.ndarray:
        """exp(i sigma V) of every slice, band-limited and turned: (slices, gpts, gpts) complex64; kept once computed."""
        key = (variant, orientation)
        if key not in self._transmissions:
            if orientation:
                flat = np.rot90(self._transmission(variant, 0), orientation % 4, axes=(-2, -1))
                flat = np.swapaxes(flat, -2, -1) if orientation >= 4 else flat
            else:
                phase = interaction_constant(self.energy) * self.films[variant].astype(np.float64)
                flat = fft.ifft2(fft.fft2(np.exp(1j * phase)) * self._band).astype(np.complex64)
            self._transmissions[key] = np.ascontiguousarray(flat)
        return self._transmissions[key]
