"""Bilinear images against abTEM's multislice, and what follows from optics alone; shot noise."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage, stats

from probegym.physics import specimens
from probegym.physics.image_formation import ImageFormer, ScatteringTensor, raster, shot_noise
from probegym.physics.optics import ABERRATIONS
from probegym.physics.specimens import Recipe
from tests.helpers import moved
from tests.stem_reference import ANGSTROM, MRAD, error, middle, patterns, random_states, scan, scanned

ENERGY, CUTOFF = 60e3, 30.0
DETECTOR = (40.0, 100.0)
TOLERANCE = 2e-5


def small_crystal(_=0):
    """Two layers of graphene, a Si and two Au atoms in a cell of 8.5 by 9.8 Angstrom."""
    from probegym.physics.structures import graphene_silicon

    layer = graphene_silicon((2, 4))
    other = layer.copy()
    other.positions += [0.7, 0.4, 3.0]
    layer.extend(other)
    layer.cell[2, 2] = 6.0
    layer.numbers[[3, 20]] = 79
    layer.wrap()
    return layer


RECIPE = Recipe("test", "test", small_crystal, energy=ENERGY, semiangle_cutoff=CUTOFF, detectors={"adf": DETECTOR}, gpts=(60, 72))


@pytest.fixture(scope="module")
def potential():
    return specimens.slices_of(RECIPE)[0]


@pytest.fixture(scope="module")
def crystal():
    return specimens.build(RECIPE)


@pytest.fixture(scope="module")
def tensor(crystal):
    return crystal.tensors["adf"]


def grid(tensor: ScatteringTensor, rows: int, columns: int) -> np.ndarray:
    """Positions over the whole cell (rows, columns, 2), Angstrom."""
    x, y = (np.arange(n) * e / ANGSTROM / n for n, e in zip((columns, rows), tensor.extent, strict=True))
    return np.stack(np.meshgrid(x, y), axis=-1)


# ---- against abTEM ----


@pytest.mark.parametrize("soft", [False, True], ids=["hard", "soft"])
@pytest.mark.parametrize("seed", range(4))
def test_images_agree_with_multislice(potential, tensor, soft, seed):
    states, positions = random_states(1, seed), grid(tensor, 6, 8) + 0.31
    reference = scanned(potential, ENERGY, CUTOFF, states[0], positions, DETECTOR, soft)
    ours = scan(ImageFormer(tensor, CUTOFF * MRAD, soft=soft), states, positions)[0]
    assert error(ours, reference) < TOLERANCE


def test_a_smaller_aperture_agrees_with_multislice(potential, tensor):
    states, positions = random_states(1, 9), grid(tensor, 5, 6)
    reference = scanned(potential, ENERGY, 21.0, states[0], positions, DETECTOR)
    assert error(scan(ImageFormer(tensor, 21.0 * MRAD), states, positions)[0], reference) < TOLERANCE


def test_drift_and_scan_noise_move_the_lines(potential, tensor):
    """Every line where it was told to start, as multislice there sees it."""
    rng, positions = np.random.default_rng(5), grid(tensor, 6, 5)
    positions = positions + rng.normal(scale=0.8, size=(6, 1, 2))
    states = random_states(1, 5)
    reference = scanned(potential, ENERGY, CUTOFF, states[0], positions, DETECTOR)
    assert error(scan(ImageFormer(tensor, CUTOFF * MRAD), states, positions)[0], reference) < TOLERANCE


def test_frozen_phonons_are_the_mean_over_configurations():
    recipe = Recipe(**(vars(RECIPE) | {"phonons": {"C": 0.1, "Si": 0.1, "Au": 0.1}, "configurations": 2}))
    tensor, configurations = specimens.build(recipe).tensors["adf"], specimens.slices_of(recipe)
    states, positions = random_states(1, 3), grid(tensor, 5, 6)
    each = [scanned(p, ENERGY, CUTOFF, states[0], positions, DETECTOR) for p in configurations]
    ours = scan(ImageFormer(tensor, CUTOFF * MRAD), states, positions)[0]
    assert len(configurations) == 2 and error(each[0], each[1]) > 100 * TOLERANCE
    assert error(ours, np.mean(each, axis=0)) < TOLERANCE


@pytest.mark.parametrize("axis", [0, 1], ids=["kx", "ky"])
def test_centre_of_mass_agrees_with_multislice(potential, tensor, axis):
    beams, spectrum, k = specimens.scattering_matrix(potential, ENERGY, CUTOFF)
    matrix = specimens.bilinear_matrix(spectrum, k[axis].astype(np.float32))
    centre = ScatteringTensor.from_matrix(ENERGY, CUTOFF * MRAD, tensor.extent, beams, matrix)
    states, positions = random_states(1, 4), grid(tensor, 4, 5)
    seen = patterns(potential, ENERGY, CUTOFF, states[0], positions.reshape(-1, 2))
    reference = (middle(seen, k[axis].shape) * np.fft.fftshift(k[axis])).sum((1, 2)).reshape(4, 5)
    assert error(scan(ImageFormer(centre, CUTOFF * MRAD), states, positions)[0], reference) < 1e-4
    assert np.ptp(reference) > 0.01


def test_a_detector_that_catches_everything_sees_the_whole_beam(potential, tensor):
    beams, spectrum, k = specimens.scattering_matrix(potential, ENERGY, CUTOFF)
    matrix = specimens.bilinear_matrix(spectrum, np.ones(k[0].shape, np.float32))
    whole = ScatteringTensor.from_matrix(ENERGY, CUTOFF * MRAD, tensor.extent, beams, matrix)
    images = scan(ImageFormer(whole, CUTOFF * MRAD), random_states(2), grid(tensor, 4, 4))
    assert images.min() > 0.98 and images.max() < 1.0001


# ---- optics alone ----


def test_focal_spread_is_an_average_over_defocus(tensor):
    spread, nodes = 30 * ANGSTROM, np.polynomial.hermite_e.hermegauss(31)
    state, positions = random_states(1, 1), grid(tensor, 16, 16)
    states = np.repeat(state, 31, axis=0)
    states[:, ABERRATIONS.index("C10")] += spread * nodes[0]
    sharp = scan(ImageFormer(tensor, CUTOFF * MRAD), states, positions)
    expected = np.tensordot(nodes[1] / nodes[1].sum(), sharp, 1)
    blurred = scan(ImageFormer(tensor, CUTOFF * MRAD, focal_spread=spread), state, positions)[0]
    assert error(blurred, expected) < TOLERANCE
    assert error(blurred, sharp[15]) > 1e-2


def test_source_size_is_a_gaussian_convolution(tensor):
    size, (rows, columns) = 0.4 * ANGSTROM, (36, 32)
    state, positions = random_states(1, 2, scale=0.5), grid(tensor, rows, columns)
    sharp = scan(ImageFormer(tensor, CUTOFF * MRAD), state, positions)[0]
    pixels = (size / (tensor.extent[1] / rows), size / (tensor.extent[0] / columns))
    expected = ndimage.gaussian_filter(sharp, pixels, mode="wrap", truncate=8)
    blurred = scan(ImageFormer(tensor, CUTOFF * MRAD, source_size=size), state, positions)[0]
    assert error(blurred, expected) < 1e-4 < error(blurred, sharp)


def test_shifted_lines_give_the_shifted_image(tensor):
    shift, (rows, columns) = np.array([0.37, -1.21]), (36, 32)
    state, positions = random_states(1, 6), grid(tensor, rows, columns)
    former = ImageFormer(tensor, CUTOFF * MRAD)
    here, there = (scan(former, state, p)[0] for p in (positions, positions + shift))
    q = [np.fft.fftfreq(n, d=e / ANGSTROM / n) for n, e in zip((rows, columns), tensor.extent[::-1], strict=True)]
    ramp = np.exp(2j * np.pi * (q[1][None, :] * shift[0] + q[0][:, None] * shift[1]))
    assert error(there, np.fft.ifft2(np.fft.fft2(here) * ramp).real) < TOLERANCE
    assert error(there, here) > 1e-2


def test_the_cell_is_periodic(tensor):
    former, state, positions = ImageFormer(tensor, CUTOFF * MRAD), random_states(1), grid(tensor, 5, 5)
    away = positions + np.array([3, -2]) * np.array(tensor.extent) / ANGSTROM
    assert error(scan(former, state, away)[0], scan(former, state, positions)[0]) < TOLERANCE


def test_rows_run_along_y_and_columns_along_x(potential, tensor):
    state, former = random_states(1, 6), ImageFormer(tensor, CUTOFF * MRAD)
    line_x, line_y = raster(1, 3, 0.5 * ANGSTROM, (1e-10, 2e-10))
    image = former.images(state, line_x, line_y, 4, 0.5 * ANGSTROM)[0]
    assert image.shape == (3, 4)
    places = np.array([[1 + 0.5 * 3, 2.0], [1.0, 2 + 0.5 * 2]])
    reference = scanned(potential, ENERGY, CUTOFF, state[0], places, DETECTOR)
    assert [image[0, 3], image[2, 0]] == pytest.approx(reference, rel=1e-3)


def test_coefficients_go_by_name(tensor):
    names = ("C23b", "C10")
    full = np.zeros((1, 25))
    full[0, ABERRATIONS.index("C23b")], full[0, ABERRATIONS.index("C10")] = 9e-8, 4e-9
    positions = grid(tensor, 6, 6)
    few = scan(ImageFormer(tensor, CUTOFF * MRAD, names), np.array([[9e-8, 4e-9]]), positions)
    assert error(few, scan(ImageFormer(tensor, CUTOFF * MRAD), full, positions)) < TOLERANCE


def test_a_wide_aperture_is_refused(tensor):
    with pytest.raises(ValueError, match="larger aperture"):
        ImageFormer(tensor, 1.1 * CUTOFF * MRAD)


def test_mismatched_arrays_are_refused(tensor):
    former = ImageFormer(tensor, CUTOFF * MRAD)
    with pytest.raises(ValueError, match="do not match"):
        former.images(np.zeros((2, 25)), *raster(3, 4, 1e-11), 4, 1e-11)
    with pytest.raises(ValueError, match="do not match"):
        former.images(np.zeros((3, 24)), *raster(3, 4, 1e-11), 4, 1e-11)


# ---- batches ----


@pytest.mark.parametrize("width", [2, 8, 9, 16, 20])
def test_a_lane_is_the_same_bit_for_bit_in_every_batch(tensor, width):
    rng = np.random.default_rng(width)
    former, states = ImageFormer(tensor, CUTOFF * MRAD, source_size=3e-11), random_states(width, width)
    line_x, line_y = (rng.uniform(0, 1e-9, (width, 7)) for _ in range(2))
    together = former.images(states, line_x, line_y, 13, 2e-11)
    for lane in range(width):
        one = slice(lane, lane + 1)
        assert np.array_equal(former.images(states[one], line_x[one], line_y[one], 13, 2e-11), together[one])


def test_threads_change_nothing(tensor):
    former, states = ImageFormer(tensor, CUTOFF * MRAD), random_states(70)
    lines = raster(70, 6, 3e-11)
    assert np.array_equal(former.images(states, *lines, 6, 3e-11, threads=1), former.images(states, *lines, 6, 3e-11, threads=4))


def test_a_former_survives_pickling(tensor):
    former = ImageFormer(tensor, 25 * MRAD, ("C10", "C12a"), 3e-11, 2e-9, soft=True)
    positions, states = grid(tensor, 5, 5), random_states(2, names=("C10", "C12a"))
    assert np.array_equal(scan(moved(former), states, positions), scan(former, states, positions))


# ---- shot noise ----


def counts(mean: float, pixels: int = 40_000, key: int = 1, lanes: int = 1) -> np.ndarray:
    keys = np.arange(key, key + lanes, dtype=np.uint64)
    return shot_noise(np.full((lanes, pixels), mean / 1000, np.float32), np.full(lanes, 1000.0), keys)


@pytest.mark.parametrize("mean", [0.3, 5.0, 11.9, 12.1, 100.0, 5000.0])
def test_counts_are_poisson(mean):
    seen = counts(mean)[0].astype(int)
    assert seen.mean() == pytest.approx(mean, abs=4 * np.sqrt(mean / len(seen)))
    assert seen.var() == pytest.approx(mean, rel=4 * np.sqrt((2 + 1 / mean) / len(seen)))
    edges = np.unique(stats.poisson(mean).ppf(np.linspace(0.01, 0.99, 40)).astype(int))
    expected = np.diff(np.concatenate([[0], stats.poisson(mean).cdf(edges), [1]])) * len(seen)
    found = np.bincount(np.searchsorted(edges, seen), minlength=len(expected))
    assert stats.chisquare(found, expected).pvalue > 1e-4


def test_no_electrons_no_counts():
    assert not shot_noise(np.array([[0.0, -1e-9, 0.0]], np.float32), np.array([1e6]), np.array([5], np.uint64)).any()
    assert not shot_noise(np.array([[0.5]], np.float32), np.array([0.0]), np.array([5], np.uint64)).any()


@pytest.mark.parametrize("mean", [0.3, 5.0, 100.0])
def test_pixels_and_lanes_are_independent(mean):
    one, other = counts(mean, lanes=2).astype(float)
    for a, b in ((one, other), (one[1:], one[:-1]), (one[64:], one[:-64])):
        assert abs(np.corrcoef(a, b)[0, 1]) < 4 / np.sqrt(len(a))


def test_counts_depend_on_the_key_and_not_on_the_batch():
    rng = np.random.default_rng(0)
    intensity, electrons = rng.uniform(0, 1e-2, (20, 5, 6)).astype(np.float32), rng.uniform(10, 3000, 20)
    keys = rng.integers(0, 2**63, 20, dtype=np.uint64)
    together = shot_noise(intensity, electrons, keys)
    for lane in range(20):
        one = slice(lane, lane + 1)
        assert np.array_equal(shot_noise(intensity[one], electrons[one], keys[one]), together[one])
    assert not np.array_equal(shot_noise(intensity, electrons, keys + np.uint64(1)), together)


def test_counts_leave_the_intensity_alone():
    intensity = np.full((2, 3, 3), 0.01, np.float32)
    shot_noise(intensity, np.full(2, 500.0), np.arange(2, dtype=np.uint64))
    assert (intensity == np.float32(0.01)).all()
