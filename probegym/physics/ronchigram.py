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
from probegym.physics.image_formation import in_tiles
from probegym.physics.optics import ABERRATIONS, aberration_basis, interaction_constant, wavelength


def antialias_aperture(gpts: int, extent: float) -> np.ndarray:
    """abTEM's band limit on a square grid, with its soft edge: (gpts, gpts), zero frequency first."""
    k = np.fft.fftfreq(gpts, d=extent / gpts)
    r = np.hypot(k[:, None], k[None, :])
    cutoff = gpts / extent / 2 * 2 / 3
    taper = 0.01 * gpts / extent
    edge = 0.5 * (1 + np.cos(np.pi * (r - cutoff + taper) / taper))
    return np.where(r > cutoff, 0.0, np.where(r > cutoff - taper, edge, 1.0))


@dataclass
class RonchigramFormer:
    """Ronchigrams of one set of films; a film is chosen for every lane.

    films: (variants, slices, gpts, gpts) projected potential in V m, axes (x, y). energy: eV. extent: side of the
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
        self.gpts = gpts
        k = np.fft.fftfreq(gpts, d=self.extent / gpts)
        kx, ky = np.meshgrid(k, k, indexing="ij")
        inside = np.hypot(kx, ky) * lam < self.semiangle_cutoff
        radius = self.semiangle_cutoff / lam * self.extent
        limit = gpts // 3
        if radius > limit:
            raise ValueError(
                f"a {self.semiangle_cutoff * 1e3:g} mrad aperture reaches {radius:.0f} grid frequencies, the band limit is "
                f"{limit}: use a smaller aperture, a smaller cell or more grid points"
            )
        self.bin = int(np.ceil(2 * radius / self.pixels))
        half = self.bin * self.pixels // 2
        if half > limit:
            raise ValueError(f"{self.pixels} pixels need {half} grid frequencies, the band limit is {limit}: ask for fewer pixels")
        self.pixel_angle = self.bin / self.extent * lam
        self._out = np.arange(-half, half) % gpts
        index = np.argwhere(inside)
        signed = (index[:, 0] + gpts // 2) % gpts - gpts // 2
        self._columns = np.unique(signed) % gpts
        position = np.full(gpts, -1)
        position[self._columns] = np.arange(len(self._columns))
        self._target = (position[index[:, 0]] * gpts + index[:, 1]).astype(np.int32)
        shift = 2 * np.pi * np.stack([kx[inside], ky[inside]])  # exp(-2 pi i k.r) moves the probe to r
        basis = np.concatenate([aberration_basis(kx[inside], ky[inside], lam, self.names), shift])
        self._basis = np.ascontiguousarray(basis / (2 * np.pi), np.float32)
        self._weight = np.full(len(index), 1 / np.sqrt(len(index)), np.float32)
        band = antialias_aperture(gpts, self.extent)
        phase = np.exp(1j * interaction_constant(self.energy) * self.films.astype(np.float64))
        flat = np.stack([fft.ifft2(fft.fft2(film) * band).astype(np.complex64) for film in phase])
        turned = [np.rot90(flat, turns, axes=(-2, -1)) for turns in range(4)]
        self._transmission = np.ascontiguousarray(np.stack([*turned, *(np.swapaxes(t, -2, -1) for t in turned)], axis=1))
        self._propagator = (np.exp(-1j * np.pi * lam * self.slice_thickness * (kx**2 + ky**2)) * band).astype(np.complex64)
        self._band = band[np.ix_(self._out, self._out)].astype(np.float32)
        self._kernel = native.library("stem").pupil_columns

    def __reduce__(self):
        fields = (self.films, self.energy, self.extent, self.semiangle_cutoff, self.pixels, self.names, self.slice_thickness)
        return RonchigramFormer, fields

    def frames(self, coefficients, positions, variants, orientations=None, threads: int | None = None) -> np.ndarray:
        """Noiseless frames as fractions of the beam current per pixel.

        coefficients: (lanes, n) in m. positions: (lanes, 2) probe on the film, m. variants: (lanes,) which film.
        orientations: (lanes,) 0 to 7, how the film lies: quarter turns, then the same of its mirror image.
        Returns float32 (lanes, pixels, pixels): rows run along ky, columns along kx, the axis at the centre.
        """
        coefficients = np.concatenate([coefficients, np.mod(positions, self.extent)], axis=1).astype(np.float32)
        frames = np.empty((len(coefficients), self.pixels, self.pixels), np.float32)
        orientations = np.zeros(len(frames), int) if orientations is None else orientations

        def tile(part: slice) -> None:
            for lane in range(part.start, part.stop):  # one frame fits the cache, sixteen do not
                frames[lane] = self._frame(coefficients[lane], self._transmission[variants[lane], orientations[lane]])

        in_tiles(tile, len(frames), threads)
        return frames

    def _frame(self, coefficients: np.ndarray, slices: np.ndarray) -> np.ndarray:
        n = self.gpts
        columns = np.empty((len(self._columns), n), np.complex64)
        sizes = (1, len(self._weight), len(coefficients))
        self._kernel(*sizes, *map(native.pointer, (self._basis, self._weight, self._target)), ctypes.c_int64(columns.size),
                     native.pointer(coefficients), native.pointer(columns))  # fmt: skip
        wave = np.zeros((n, n), np.complex64)
        wave[self._columns] = fft.ifft(columns, axis=1, norm="forward", overwrite_x=True)
        wave = fft.ifft(wave, axis=0, norm="forward", overwrite_x=True)
        for index, transmission in enumerate(slices):
            wave *= transmission
            if index < len(slices) - 1:
                wave = fft.ifft2(fft.fft2(wave, overwrite_x=True) * self._propagator, overwrite_x=True)
        wave = fft.fft(wave, axis=0, norm="forward", overwrite_x=True)[self._out]
        wave = fft.fft(wave, axis=1, norm="forward", overwrite_x=True)[:, self._out]
        intensity = (wave.real**2 + wave.imag**2) * self._band**2
        b, p = self.bin, self.pixels
        return intensity.reshape(p, b, p, b).sum((1, 3)).T
