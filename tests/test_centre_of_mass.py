"""4D-STEM centre of mass: against abTEM's full patterns, against Ehrenfest's theorem, and what a world needs of it."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from probegym.errors import ProbeGymError
from probegym.physics import centre_of_mass, specimens, structures
from probegym.physics.centre_of_mass import Optics, detect, maps, specimen_maps
from probegym.physics.image_formation import ImageFormer
from probegym.physics.optics import ABERRATIONS, interaction_constant, wavelength
from probegym.physics.recipes import RECIPES
from probegym.physics.specimens import MOMENTS, Recipe
from tests.stem_reference import ANGSTROM, MRAD, probe, random_states, scan

pytestmark = pytest.mark.xdist_group("centre_of_mass")  # one process makes what its tests share

SHARP = Optics(source_size=0.0, focal_spread=0.0)
MADE = [f"{kind}-defects-{number:02d}" for kind in ("graphene", "mos2", "srtio3") for number in (1, 2, 3)]


def patterns(potential, recipe, state, positions) -> tuple[np.ndarray, np.ndarray]:
    """Of abTEM: centre of mass (complex, mrad) and mean squared angle (mrad^2) at positions (n, 2) in Angstrom, full patterns."""
    import abtem

    with abtem.config.set({"dask.lazy": False, "diagnostics.progress_bar": False}):
        sharp = probe(potential, recipe.energy, recipe.semiangle_cutoff, state, False)
        waves = sharp.multislice(potential, scan=abtem.CustomScan(positions))
        measured = waves.diffraction_patterns(max_angle="full")
    x, y = measured.angular_coordinates
    frames = np.asarray(measured.array, float)
    square = (frames * (x[:, None] ** 2 + y[None] ** 2)).sum((-2, -1)) / frames.sum((-2, -1))
    return np.asarray(measured.center_of_mass(units="mrad").array).ravel(), square


def ours(specimen, state, positions) -> tuple[np.ndarray, np.ndarray]:
    """The same from the tensors, at positions one by one."""
    formers = (ImageFormer(specimen.tensors[name], specimen.semiangle_cutoff) for name in MOMENTS)
    x, y, square = (scan(former, np.array([state]), positions[:, None])[0, :, 0] for former in formers)
    return (x + 1j * y) / MRAD, square / MRAD**2


def relative(measured: np.ndarray, reference: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.abs(measured - reference) ** 2) / np.mean(np.abs(reference) ** 2)))


def off_centre_mos2():
    """A quarter of the size that ships, with a W atom and an S vacancy, so that no symmetry is left."""
    atoms = structures.mos2((3, 2))
    atoms.numbers[np.flatnonzero(atoms.numbers == 42)[3]] = 74
    del atoms[np.flatnonzero(atoms.numbers == 16)[8]]
    return atoms


MOMENTS_TOO = {"detectors": {"haadf": (80, 180)}, "moments": True}
SMALL = [
    Recipe("mono", "", lambda _: structures.graphene_silicon((2, 4)), gpts=(144, 168), slice_thickness=3.0, **MOMENTS_TOO),
    Recipe("layered", "", lambda _: off_centre_mos2(), gpts=(160, 180), phonons={"Mo": 0.065, "S": 0.08, "W": 0.05}, **MOMENTS_TOO),
]


@pytest.fixture(scope="module", params=SMALL, ids=[recipe.name for recipe in SMALL])
def built(request):
    return request.param, specimens.build(request.param), specimens.slices_of(request.param)[0]


def test_centre_of_mass_is_that_of_abtem(built):
    """In focus, far out of focus, and for all 25 aberrations."""
    recipe, specimen, potential = built
    positions = np.random.default_rng(0).uniform(0, np.array(specimen.extent) / ANGSTROM, (40, 2))
    defocused = np.where(np.array(ABERRATIONS) == "C10", -150e-10, 0.0)
    for state in (np.zeros(len(ABERRATIONS)), defocused, random_states(1, 5)[0]):
        com, square = patterns(potential, recipe, state, positions)
        mine, mine_square = ours(specimen, state, positions)
        assert relative(mine, com) < 1e-3 and relative(mine_square, square) < 1e-3


def test_files_keep_the_moments(built, tmp_path):
    _, specimen, _ = built
    path = tmp_path / "kept.npz"
    specimens.save(specimen, path)
    again = specimens.read(path)
    assert set(again.tensors) == {"haadf", *MOMENTS} and set(again.detectors) == {"haadf"}
    positions = np.random.default_rng(1).uniform(0, 8, (40, 2))
    (com, square), (kept, kept_square) = (ours(s, random_states(1, 7)[0], positions) for s in (specimen, again))
    assert relative(kept, com) < 3e-4
    assert relative(kept_square, square) < 1e-3


def ehrenfest(potential, recipe, state) -> np.ndarray:
    """Of the potential alone: lambda (sigma / 2 pi) |psi_p|^2 convolved with grad V on the grid of the potential; complex, mrad."""
    lam, sigma = wavelength(recipe.energy), interaction_constant(recipe.energy)
    projected = np.asarray(potential.array, float).sum(0) * ANGSTROM  # V m
    extent = np.array(potential.extent) * ANGSTROM
    k = [np.fft.fftfreq(points, d=side / points) for points, side in zip(projected.shape, extent, strict=True)]
    kx, ky = np.meshgrid(*k, indexing="ij")
    wave = np.asarray(probe(potential, recipe.energy, recipe.semiangle_cutoff, state, False).build((0, 0), lazy=False).array)
    density = np.abs(wave) ** 2 / (np.abs(wave) ** 2).sum()
    field = 2j * np.pi * np.fft.fft2(projected) * np.conj(np.fft.fft2(density))
    return (np.fft.ifft2(kx * field).real + 1j * np.fft.ifft2(ky * field).real) * lam * sigma / (2 * np.pi) / MRAD


@pytest.mark.parametrize("name", ["C10", "C12a", "C21b", "C30"])
def test_a_thin_specimen_obeys_ehrenfest(name):
    """The centre of mass is the probe-weighted projected field, from the potential alone (physics.md 1a).

    The finer the grid, the less abTEM's band limit disturbs: 0.15 % on that of the other tests.
    """
    recipe = dataclasses.replace(SMALL[0], gpts=(288, 336))
    potential, specimen = specimens.slices_of(recipe)[0], specimens.build(recipe)
    state = np.where(np.array(ABERRATIONS) == name, {"C10": -60e-10, "C12a": 40e-10, "C21b": 1500e-10, "C30": 20e-6}[name], 0.0)
    expected = ehrenfest(potential, recipe, state)
    index = np.random.default_rng(2).integers(0, expected.shape, (60, 2))
    positions = index * np.array(potential.extent) / expected.shape
    assert relative(ours(specimen, state, positions)[0], expected[tuple(index.T)]) < 1e-3


# ---- the specimens that ship ----


def test_every_specimen_that_ships_is_measurable():
    assert set(MADE) <= set(specimens.measurable()) and "graphene-si" not in specimens.measurable()


def test_a_damaged_file_is_not_offered(tmp_path, monkeypatch):
    (tmp_path / "specimens").mkdir()
    (tmp_path / "specimens/broken.npz").write_bytes(b"PK not really")
    monkeypatch.setattr(specimens, "cache_folder", lambda: tmp_path)
    assert "broken" in specimens.available() and "broken" not in specimens.measurable()


@pytest.mark.parametrize("name", ["graphene-defects-01", "graphene-defects-03"])
def test_shipped_graphene_obeys_ehrenfest(name):
    """The file, its rounding included, against the potential of the atoms it stands for."""
    recipe, specimen = RECIPES[name], specimens.load(name)
    potential = specimens.slices_of(recipe)[0]
    state = np.where(np.array(ABERRATIONS) == "C12b", 15e-10, 0.0)
    expected = ehrenfest(potential, recipe, state)
    index = np.random.default_rng(3).integers(0, expected.shape, (400, 2))
    positions = index * np.array(potential.extent) / expected.shape
    assert relative(ours(specimen, state, positions)[0], expected[tuple(index.T)]) < 2e-3


@pytest.mark.parametrize("name", MADE)
def test_the_beam_is_deflected_towards_the_nuclei(name):
    """Beside every heavy column the centre of mass points at it; over the whole cell it cancels but for a thick polar crystal's rest."""
    specimen, atoms = specimens.load(name), RECIPES[name].atoms(0)
    heavy = {"graphene": 14, "mos2": 42, "srtio3": 38}[name.split("-")[0]]
    columns = np.unique(np.round(atoms.positions[atoms.numbers == heavy, :2], 2), axis=0)
    aside = np.array([[0.4, 0], [-0.4, 0], [0, 0.4], [0, -0.4]])
    positions = (columns[:, None] + aside).reshape(-1, 2)
    com = ours(specimen, np.zeros(len(ABERRATIONS)), positions)[0].reshape(len(columns), 4)
    towards = -(com.real * aside[:, 0] + com.imag * aside[:, 1])
    assert (towards > 0).all()
    former = ImageFormer(specimen.tensors["com_x"], specimen.semiangle_cutoff, ("C10",))
    x, y = (np.arange(0, e / ANGSTROM, e / ANGSTROM / 60) for e in specimen.extent)
    whole = scan(former, np.zeros((1, 1)), np.stack(np.meshgrid(x, y), -1))[0]
    assert abs(whole.mean()) < (0.05 if "srtio3" in name else 0.01) * whole.std()


@pytest.mark.parametrize("name", MADE[:3])
def test_the_strongest_deflections_are_at_defects(name):
    """What makes the search worth while: the best hundredth of graphene is near Si atoms and vacancies."""
    atoms, found = RECIPES[name].atoms(0), maps(name, np.zeros((1, 1)), ("C10",), np.zeros((1, 2)))
    strength = np.hypot(found["com_x"], found["com_y"])[0]
    extent = atoms.cell.diagonal()[:2]
    whole = structures.graphene_silicon()
    gaps = whole.positions[:, None, :2] - atoms.positions[None, :, :2]
    vacant = np.hypot(*np.moveaxis(gaps - extent * np.rint(gaps / extent), -1, 0)).min(1) > 0.5
    defects = np.concatenate([atoms.positions[atoms.numbers == 14, :2], whole.positions[vacant, :2]])
    rows, columns = np.unravel_index(np.argsort(strength.ravel())[-25:], strength.shape)
    places = np.stack([columns, rows], axis=1) * extent.min() / 50
    gaps = places[:, None] - defects
    nearest = np.hypot(*np.moveaxis(gaps - extent * np.rint(gaps / extent), -1, 0)).min(1)
    assert len(defects) >= 5 and np.mean(nearest < 2.0) > 0.9


def test_structures_hold_the_defects_they_promise():
    for number in (1, 2, 3):
        graphene, mos2, srtio3 = (RECIPES[f"{kind}-defects-{number:02d}"].atoms(0) for kind in ("graphene", "mos2", "srtio3"))
        assert 3 <= (graphene.numbers == 14).sum() <= 4 and 3 <= (graphene.numbers == 7).sum() <= 4 and 157 <= len(graphene) <= 158
        assert 2 <= (mos2.numbers == 74).sum() <= 3 and ((mos2.numbers == 42) | (mos2.numbers == 74)).sum() == 48
        assert 7 <= 96 - (mos2.numbers == 16).sum() <= 10
        assert (srtio3.numbers == 57).sum() == 4 and (srtio3.numbers == 38).sum() == 100 - 4 - 6 and (srtio3.numbers == 22).sum() == 100
        ideal = structures.srtio3(5, 4)
        moved = srtio3.positions[srtio3.numbers == 22, :2] - ideal.positions[ideal.numbers == 22, :2]
        assert 0.15 < np.linalg.norm(moved, axis=1).max() <= 0.25
        distances = graphene.get_all_distances(mic=True) + 9 * np.eye(len(graphene))
        assert distances.min() > 1.4
    assert not np.array_equal(RECIPES["mos2-defects-01"].atoms(0).numbers, RECIPES["mos2-defects-02"].atoms(0).numbers)


# ---- the world's maps ----

KEYS = np.arange(1, 33, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)


def test_maps_have_the_shapes_and_sizes_of_a_world():
    image, spectra, spread = specimen_maps(KEYS[:5], MADE, {"C10": np.linspace(-50e-10, 50e-10, 5), "C12a": 5e-10})
    assert image.shape == (5, 50, 50) and spectra.shape == (5, 2500, 2) and spread.shape == (5, 2500)
    assert image.dtype == spectra.dtype == spread.dtype == np.float32
    assert (image > -1e-6).all() and (image < 0.1).all() and np.isfinite(spectra).all()
    assert 0.05 < np.hypot(*np.moveaxis(spectra, -1, 0)).max(1).min() and np.abs(spectra).max() < 15
    image, spectra, spread = specimen_maps(KEYS[:2], MADE[:1], {}, shape=(20, 30), pixel_size=0.2e-10)
    assert image.shape == (2, 20, 30) and spectra.shape == (2, 600, 2)


def test_a_lane_is_the_same_alone_and_in_a_batch():
    defocus = np.linspace(-100e-10, 100e-10, len(KEYS))
    whole = specimen_maps(KEYS, MADE, {"C10": defocus, "C23a": 100e-10})
    for lane in (0, 7, 31):
        alone = specimen_maps(KEYS[lane : lane + 1], MADE, {"C10": defocus[lane], "C23a": 100e-10})
        for batch, one in zip(whole, alone, strict=True):
            np.testing.assert_array_equal(batch[lane], one[0])
    assert len({lane.tobytes() for lane in whole[0]}) == len(KEYS)


def test_keys_draw_every_specimen_and_every_turn():
    """Three specimens in eight turns at the same place are 24 images; keys find most of them."""
    drawn = centre_of_mass.randomness.uniform(np.arange(400, dtype=np.uint64), 0, "com.specimen", 4)
    pairs = {(int(a * 3), int(b * 8)) for a, b in drawn[:, :2]}
    assert len(pairs) == 24


def curl_and_divergence(vectors: np.ndarray, step: float) -> tuple[float, float]:
    """Root mean squares over a map (rows, columns, 2)."""
    (dx_dy, dx_dx), (dy_dy, dy_dx) = (np.gradient(vectors[..., component], step) for component in (0, 1))
    return float(np.std((dy_dx - dx_dy)[1:-1, 1:-1])), float(np.std((dx_dx + dy_dy)[1:-1, 1:-1]))


def test_the_field_has_no_curl_however_it_is_turned():
    """An electrostatic field has sources and no curl; a mirror that forgets a sign makes one."""
    turns = set()
    for key in np.arange(40, dtype=np.uint64):
        turns.add(int(centre_of_mass.randomness.uniform([key], 0, "com.specimen", 4)[0, 1] * 8))
        _, spectra, _ = specimen_maps([key], ["graphene-defects-01"], {}, shape=(60, 60), pixel_size=0.05e-10)
        curl, divergence = curl_and_divergence(spectra.reshape(60, 60, 2).astype(float), 0.05)
        assert curl < 0.02 * divergence
    assert turns == set(range(8))


def test_a_map_that_is_not_square_is_only_mirrored():
    for key in np.arange(12, dtype=np.uint64):
        _, spectra, _ = specimen_maps([key], ["graphene-defects-01"], {}, shape=(40, 60), pixel_size=0.05e-10)
        curl, divergence = curl_and_divergence(spectra.reshape(40, 60, 2).astype(float), 0.05)
        assert curl < 0.02 * divergence


def test_shot_noise_of_an_empty_disc_and_of_an_atom():
    """Half the semi-angle for a disc that scatters nothing; heavy atoms scatter further out. Source and focus blur change little."""
    spread = maps("graphene-defects-01", np.zeros((1, 1)), ("C10",), np.zeros((1, 2)), optics=SHARP)["spread"]
    assert np.median(spread) == pytest.approx(15.0, rel=0.02) and spread.max() < 1.1 * 15.0
    spread = maps("srtio3-defects-01", np.zeros((1, 1)), ("C10",), np.zeros((1, 2)), optics=SHARP)["spread"]
    assert spread.min() > 10.0 and spread.max() > 1.5 * 10.0


def test_shot_noise_is_that_of_counted_electrons(built):
    """Electrons drawn from abTEM's pattern scatter about their mean angle as the spread says."""
    import abtem

    recipe, specimen, potential = built
    position = np.array([[2.3, 3.1]])
    with abtem.config.set({"dask.lazy": False, "diagnostics.progress_bar": False}):
        sharp = probe(potential, recipe.energy, recipe.semiangle_cutoff, np.zeros(25), False)
        waves = sharp.multislice(potential, scan=abtem.CustomScan(position))
        measured = waves.diffraction_patterns(max_angle="full")
    share = np.asarray(measured.array, float)[0]
    x, _ = measured.angular_coordinates
    counts = np.random.default_rng(4).multinomial(1000, (share / share.sum()).ravel(), 4000).reshape(4000, *share.shape).sum(-1)
    com, square = ours(specimen, np.zeros(25), position)
    spread = np.sqrt((square[0] - abs(com[0]) ** 2) / 2)
    assert (counts @ x / 1000).std() == pytest.approx(spread / np.sqrt(1000), rel=0.06)


def test_detected_angles_scatter_with_the_dose():
    keys = np.arange(4000, dtype=np.uint64)
    means, spread = np.tile([0.4, -0.2], (4000, 1)), np.full(4000, 15.0)
    found = detect(means, spread, 1e-3, keys, 3, current=20e-12)
    electrons = 20e-12 * 1e-3 / 1.602176634e-19
    np.testing.assert_allclose(found.mean(0), [0.4, -0.2], atol=5 * 15 / np.sqrt(electrons * 4000))
    np.testing.assert_allclose(found.std(0), 15 / np.sqrt(electrons), rtol=0.05)
    assert abs(np.corrcoef(found.T)[0, 1]) < 0.06
    np.testing.assert_array_equal(detect(means[7:8], spread[7:8], 1e-3, keys[7:8], 3, current=20e-12)[0], found[7])
    assert (detect(means, spread, 1e-3, keys, 4, current=20e-12) != found).any(1).all()


# ---- what is refused ----


def test_mistakes_are_named():
    place = np.zeros((1, 2))
    for call, words in [
        (lambda: specimen_maps([1], ["graphene-defects-09"], {}), "unknown specimen 'graphene-defects-09'"),
        (lambda: specimen_maps([1], ["graphene-si"], {}), "no 'com_x' tensor: use one of .*mos2-defects-01"),
        (lambda: specimen_maps([1], [], {}), "no specimens to draw from"),
        (lambda: specimen_maps([1], MADE, {"defocus": 1e-9}), "unknown aberration 'defocus'"),
        (lambda: specimen_maps([1], MADE, {"C10": np.nan}), "finite"),
        (lambda: specimen_maps([1], MADE[:1], {}, optics=Optics(0.04)), "aperture 40 mrad is wider"),
        (lambda: maps("mos2-defects-01", np.zeros((1, 1)), ("C10",), place, detector="maadf"), "no 'maadf' tensor"),
    ]:
        with pytest.raises(ProbeGymError, match=words) as caught:
            call()
        assert "\n" not in str(caught.value)


def test_a_recipe_without_moments_has_none():
    plain = dataclasses.replace(SMALL[0], moments=False)
    assert set(specimens.build(plain).tensors) == {"haadf"}
