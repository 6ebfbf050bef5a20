"""Shadows of particle films: rays against the aberration function, against waves, and against the film itself."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from scipy import ndimage

from probegym.physics import shadow
from probegym.physics.optics import ABERRATIONS, aberration_basis, displacements, wavelength
from probegym.physics.shadow import EXTENT, GPTS, ShadowFormer, particle_film

NAMES = ("C10", "C12a", "C12b", "C21a", "C21b", "C23a", "C23b", "C30")
STEP = EXTENT / GPTS


@pytest.mark.parametrize("name", ABERRATIONS)
def test_a_ray_is_thrown_by_the_slope_of_the_wavefront(name):
    """It is at r = lambda / (2 pi) dchi/dw, by central differences."""
    lam, h = wavelength(100e3), 1e-5
    angles = np.random.default_rng(1).uniform(-0.1, 0.1, (2, 50))

    def chi(x, y):
        return aberration_basis(x / lam, y / lam, lam, (name,))[0] * lam / (2 * np.pi)

    x, y = angles
    slope = np.stack([(chi(x + h, y) - chi(x - h, y)) / (2 * h), (chi(x, y + h) - chi(x, y - h)) / (2 * h)])
    assert displacements(x, y, (name,))[:, 0] == pytest.approx(slope, rel=1e-4, abs=1e-9 * np.abs(slope).max())


def test_out_of_focus_a_frame_is_the_film_magnified():
    """At 400 nm a camera of 0.1 rad sees 80 nm of the film, at 200 nm half of it; at the other side of focus it stands on its head."""
    former, place = ShadowFormer(0.1, 64, ("C10",)), np.array([[100e-9, 200e-9]])
    wide, near, turned = (former.frames(np.array([[c]]), place, [3], [0])[0] * 64**2 for c in (400e-9, 200e-9, -400e-9))
    rays = 400e-9 * 0.1 * ((np.arange(128) + 0.5) / 64 - 1)
    x, y = np.meshgrid(rays + place[0, 0], rays + place[0, 1])
    film = ndimage.map_coordinates(particle_film(3), [x / STEP, y / STEP], order=1, mode="grid-wrap")
    assert wide == pytest.approx(film.reshape(64, 2, 64, 2).mean((1, 3)), abs=1e-4)
    assert near.reshape(32, 2, 32, 2).mean((1, 3)) == pytest.approx(wide[16:48, 16:48].reshape(32, 32), abs=0.1)
    assert turned == pytest.approx(wide[::-1, ::-1], abs=1e-5)


def test_waves_throw_the_same_shadow_where_the_film_is_coarse():
    """|FFT(psi t)|^2 at 600 nm underfocus and 100 kV: the Fresnel length of 1.5 nm is far below particles of 8 nm with soft edges."""
    lam, extent, gpts, cutoff, focus = wavelength(100e3), 64e-9, 1024, 0.030, 600e-9
    axis = np.arange(gpts) * extent / gpts
    x, y = np.meshgrid(axis, axis, indexing="ij")
    rng = np.random.default_rng(4)
    film = sum(np.exp(-(((x - cx) ** 2 + (y - cy) ** 2) / (2 * (3e-9) ** 2)) ** 2) for cx, cy in rng.uniform(12e-9, 52e-9, (12, 2)))
    k = np.fft.fftfreq(gpts, extent / gpts)
    kx, ky = np.meshgrid(k, k, indexing="ij")
    inside = np.hypot(kx, ky) * lam < cutoff
    middle = np.array([32e-9, 32e-9])
    names, coefficients = ("C10", "C12a", "C21b"), np.array([focus, 60e-9, 2e-6])
    chi = np.tensordot(coefficients, aberration_basis(kx, ky, lam, names), 1)
    probe = np.fft.ifft2(inside * np.exp(-1j * chi - 2j * np.pi * (kx * middle[0] + ky * middle[1])))
    waves = np.abs(np.fft.fft2(probe * np.exp(-0.3 * film))) ** 2
    rays = np.tensordot(coefficients, displacements(kx * lam, ky * lam, names), (0, 1)) + middle[:, None, None]
    seen = np.exp(-0.3 * ndimage.map_coordinates(film, rays / (extent / gpts), order=1, mode="nearest"))
    core = np.hypot(kx, ky) * lam < 0.8 * cutoff  # away from the fringes of the aperture's edge
    assert np.corrcoef(waves[core], seen[core])[0, 1] ** 2 > 0.9
    assert np.corrcoef(waves[core], np.roll(seen, 3, 0)[core])[0, 1] < np.corrcoef(waves[core], seen[core])[0, 1]


def test_a_film_lies_in_eight_ways():
    former, place, film = ShadowFormer(0.1, 32, NAMES), np.array([[40e-9, 90e-9]]), particle_film(5)
    rays = np.stack(np.meshgrid(*(0.1 * ((np.arange(64) + 0.5) / 32 - 1),) * 2)) * 500e-9 + place[0][:, None, None]
    coefficients = np.array([[500e-9, *[0.0] * 7]])
    seen = []
    for o in range(8):
        x, y = rays / STEP
        for _ in range(o % 4):
            x, y = y, -x
        x, y = (x, y) if o < 4 else (y, x)
        wanted = ndimage.map_coordinates(film, [x, y], order=1, mode="grid-wrap").reshape(32, 2, 32, 2).mean((1, 3))
        seen.append(former.frames(coefficients, place, [5], [o])[0] * 32**2)
        assert seen[-1] == pytest.approx(wanted, abs=1e-3)
    assert all(np.abs(one - other).max() > 0.05 for i, one in enumerate(seen) for other in seen[:i])


def test_frames_do_not_depend_on_the_batch_and_survive_pickling():
    former, rng = ShadowFormer(0.1007, 64, NAMES), np.random.default_rng(2)
    scales = np.array([300e-9] * 3 + [3e-6] * 4 + [5e-6])
    arguments = rng.normal(size=(40, 8)) * scales, rng.uniform(0, EXTENT, (40, 2)), rng.integers(0, 4, 40), rng.integers(0, 8, 40)
    whole = former.frames(*arguments)
    again = pickle.loads(pickle.dumps(former))
    alone = np.concatenate([again.frames(*(a[i : i + 1] for a in arguments)) for i in range(40)])
    assert np.array_equal(whole, alone)
    assert (whole > 0).all() and (whole.sum((1, 2)) <= 1.05).all() and (whole.sum((1, 2)) > 0.3).all()


def test_films_are_periodic_unlike_and_of_the_size_they_say():
    films = np.stack([particle_film(n) for n in range(6)])
    flat = (films - films.mean((1, 2), keepdims=True)).reshape(6, -1)
    likeness = np.corrcoef(flat) - np.eye(6)
    assert np.abs(likeness).max() < 0.1 and films.min() > np.exp(-3 * shadow.DARKNESS[1]) * 0.9
    seam, inner = np.abs(films[:, 0] - films[:, -1]).mean(), np.abs(np.diff(films, axis=1)).mean()
    assert seam < 2 * inner  # one more step, no edge
