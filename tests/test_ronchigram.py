"""Ronchigrams against abTEM's multislice, and the frame of reference of the camera."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from probegym.physics import optics
from probegym.physics.optics import ABERRATIONS
from probegym.physics.ronchigram import RonchigramFormer
from tests.helpers import moved
from tests.stem_reference import ANGSTROM, MRAD, error, middle, patterns, random_states

ENERGY, MILLIRADIANS, EXTENT, GPTS, THICKNESS = 60e3, 40.0, 25.0, 128, 12.0
CUTOFF, SIDE = MILLIRADIANS * MRAD, EXTENT * ANGSTROM
UNBINNED = 42  # pixels of one grid frequency that show the whole aperture


def random_films(slices: int, variants: int = 2, seed: int = 0) -> np.ndarray:
    """Smooth random potentials of up to about a radian, V m."""
    rng = np.random.default_rng(seed)
    films = ndimage.gaussian_filter(rng.normal(size=(variants, slices, GPTS, GPTS)), (0, 0, 2.5, 2.5), mode="wrap")
    return (films / films.std() * 400 * ANGSTROM).astype(np.float32)


def former(films: np.ndarray, pixels: int = UNBINNED, cutoff: float = CUTOFF, **options) -> RonchigramFormer:
    return RonchigramFormer(films, ENERGY, SIDE, cutoff, pixels, slice_thickness=THICKNESS * ANGSTROM, **options)


def reference(film: np.ndarray, state: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Patterns of abTEM (positions, kx, ky) for one film (slices, gpts, gpts)."""
    import abtem

    potential = abtem.PotentialArray(film / ANGSTROM, slice_thickness=[THICKNESS] * len(film), extent=(EXTENT, EXTENT))
    return patterns(potential, ENERGY, MILLIRADIANS, state, positions / ANGSTROM)


def worst(ours: np.ndarray, theirs: np.ndarray) -> float:
    return float(np.abs(ours - theirs).max() / np.ptp(theirs))


# ---- against abTEM ----


@pytest.mark.parametrize("slices", [1, 2, 3])
@pytest.mark.parametrize("scale", [0.2, 1.0])
def test_frames_agree_with_multislice(slices, scale):
    films, states = random_films(slices), random_states(3, slices, scale=scale)
    positions = np.random.default_rng(slices).uniform(0, SIDE, (3, 2))
    ours = former(films).frames(states, positions, np.array([0, 1, 0]))
    for lane, variant in enumerate((0, 1, 0)):
        theirs = middle(reference(films[variant], states[lane], positions[lane : lane + 1])[0], (UNBINNED, UNBINNED))
        assert error(ours[lane], theirs.T) < 1e-5 and worst(ours[lane], theirs.T) < 3e-5


def test_known_defocus_agrees_with_multislice():
    films, state = random_films(1), np.zeros((1, 25))
    state[0, ABERRATIONS.index("C10")] = 30e-9
    theirs = middle(reference(films[0], state[0], np.zeros((1, 2)))[0], (UNBINNED, UNBINNED))
    assert error(former(films).frames(state, np.zeros((1, 2)), np.zeros(1, int))[0], theirs.T) < 1e-5


# ---- the camera ----


def vacuum_with(extra) -> np.ndarray:
    """A phase that is small everywhere, from (x, y) in turns of the cell."""
    turn = 2 * np.pi * np.arange(GPTS) / GPTS
    return (extra(turn[:, None], turn[None, :]) * 1e-8)[None, None].astype(np.float32) * np.ones((1, 1, GPTS, GPTS), np.float32)


def spots(films: np.ndarray) -> np.ndarray:
    """Camera frame of a nearly parallel beam: a spot for every Fourier component of the film."""
    narrow = RonchigramFormer(films, ENERGY, SIDE, 1.01 * optics.wavelength(ENERGY) / SIDE, 40, slice_thickness=1e-9)
    return narrow.frames(np.zeros((1, 25)), np.zeros((1, 2)), np.zeros(1, int))[0]


def test_columns_are_kx_and_rows_are_ky():
    along_x, along_y = (spots(vacuum_with(f)) for f in (lambda x, y: np.cos(12 * x), lambda x, y: np.cos(12 * y)))
    assert along_x[20, 32] > 100 * along_x[32, 20] and along_x[20, 8] > 100 * along_x[8, 20]
    assert along_y[32, 20] > 100 * along_y[20, 32]


def test_positive_kx_is_on_the_right_and_positive_ky_below():
    """A ramp of rising projected potential along x deflects the beam towards positive kx."""
    shares = {}
    for name, film in {"x": lambda x, y: np.sin(x) + 0 * y, "y": lambda x, y: np.sin(y) + 0 * x}.items():
        focused = former(vacuum_with(film) * 20)
        frame = focused.frames(np.zeros((1, 25)), np.zeros((1, 2)), np.zeros(1, int))[0]
        axis = np.arange(UNBINNED) - UNBINNED / 2
        shares[name] = (float((frame * axis).sum()), float((frame * axis[:, None]).sum()))
    assert shares["x"][0] > 10 * abs(shares["x"][1]) and shares["y"][1] > 10 * abs(shares["y"][0])


def test_the_axis_is_the_centre():
    frame = spots(np.zeros((1, 1, GPTS, GPTS), np.float32))
    assert np.unravel_index(frame.argmax(), frame.shape) == (20, 20)


@pytest.mark.parametrize("pixels", [21, 14, 6])
def test_bins_sum_the_fine_frame(pixels):
    films, states, positions = random_films(2), random_states(2, 7), np.array([[1e-9, 2e-9], [3e-9, 0.5e-9]])
    coarse = former(films, pixels)
    radius = CUTOFF / optics.wavelength(ENERGY) * SIDE
    width = int(np.ceil(2 * radius / pixels))
    full = width * pixels
    seen = coarse.frames(states, positions, np.zeros(2, int))
    fine = middle(reference(films[0], states[0], positions[:1])[0], (full, full)).T
    assert worst(seen[0], fine.reshape(pixels, width, pixels, width).sum((1, 3))) < 1e-5


def test_an_odd_number_of_pixels_is_refused_or_keeps_the_rows_apart():
    place = (np.zeros((1, 25)), np.zeros((1, 2)), np.zeros(1, int))
    even = former(random_films(1), UNBINNED).frames(*place)[0]
    try:
        odd = former(random_films(1), UNBINNED + 1).frames(*place)[0]
    except ValueError:
        return
    assert worst(odd[:UNBINNED, :UNBINNED], even) < 1e-6
    assert np.isfinite(odd).all() and odd.sum() <= 1.0001


def test_vacuum_shows_the_aperture_and_nothing_else():
    empty = former(np.zeros((1, 1, GPTS, GPTS), np.float32))
    frame = empty.frames(random_states(1, 3), np.array([[1e-9, 2e-9]]), np.zeros(1, int))[0]
    k = (np.arange(UNBINNED) - UNBINNED // 2) / SIDE * optics.wavelength(ENERGY)
    radius = np.hypot(k[:, None], k[None, :])
    assert frame.sum() == pytest.approx(1.0, abs=1e-5)
    assert np.ptp(frame[radius < 0.97 * CUTOFF]) < 1e-6 and frame[radius > 1.03 * CUTOFF].max() < 1e-9


def test_most_electrons_reach_the_camera_and_none_are_made():
    frames = former(random_films(3)).frames(random_states(4), np.zeros((4, 2)), np.zeros(4, int))
    assert (frames >= 0).all() and (frames.sum((1, 2)) < 1.0001).all() and (frames.sum((1, 2)) > 0.8).all()


# ---- film and batches ----


def test_moving_the_probe_is_moving_the_film():
    films, state = random_films(1), random_states(1, 2)
    step = SIDE / GPTS
    moved_film = np.roll(films, (-5, -9), axis=(-2, -1))
    there = former(films).frames(state, np.array([[5 * step, 9 * step]]), np.zeros(1, int))
    assert worst(there, former(moved_film).frames(state, np.zeros((1, 2)), np.zeros(1, int))) < 1e-5


@pytest.mark.parametrize("orientation", range(8))
def test_orientations_turn_and_mirror_the_film(orientation):
    films, state = random_films(2, 1), random_states(1, 3)
    turned = np.rot90(films, orientation % 4, axes=(-2, -1))
    turned = np.ascontiguousarray(np.swapaxes(turned, -2, -1) if orientation > 3 else turned)
    place = (np.array([[1e-9, 0.7e-9]]), np.zeros(1, int))
    ours = former(films).frames(state, *place, orientations=np.array([orientation]))
    assert worst(ours, former(turned).frames(state, *place)) < 1e-6


@pytest.mark.parametrize("width", [2, 16, 20])
def test_a_lane_is_the_same_bit_for_bit_in_every_batch(width):
    rng = np.random.default_rng(width)
    films, states, positions = former(random_films(2), 21), random_states(width, 1), rng.uniform(0, SIDE, (width, 2))
    variants = rng.integers(0, 2, width)
    together = films.frames(states, positions, variants)
    assert np.array_equal(together, films.frames(states, positions, variants, threads=1))
    for lane in range(width):
        one = slice(lane, lane + 1)
        assert np.array_equal(films.frames(states[one], positions[one], variants[one]), together[one])


def test_a_former_survives_pickling():
    films, arguments = former(random_films(2), 21), (random_states(2), np.zeros((2, 2)), np.array([1, 0]))
    assert np.array_equal(moved(films).frames(*arguments), films.frames(*arguments))


@pytest.mark.parametrize(("options", "mend"), [({"cutoff": 0.06}, "smaller aperture"), ({"pixels": 100}, "fewer pixels")])
def test_what_does_not_fit_the_band_limit_is_refused(options, mend):
    with pytest.raises(ValueError, match=mend):
        former(random_films(1), **options)
