"""The probe's current density against wave optics, and sums of atom profiles against exact multislice images."""

from __future__ import annotations

import numpy as np
import pytest

from probegym.physics import atom_images, beam_rates, graphene, specimens
from probegym.physics.atom_images import STRENGTHS, images, profiles
from probegym.physics.beam_rates import BOND, PIXELS, current_density
from probegym.physics.image_formation import ImageFormer, raster
from probegym.physics.optics import wavelength

ENERGY, CUTOFF = 60e3, 0.030
NAMES = ("C10", "C12a", "C12b", "C23a")
STATES = np.array([[0.0, 0.0, 0.0, 0.0], [0.5e-9, 0.4e-9, -0.3e-9, 15e-9], [-0.6e-9, -0.3e-9, 0.2e-9, -20e-9]])
SOURCE = 0.3e-10


def probe(*coefficients: float, names=NAMES, **options) -> np.ndarray:
    return current_density(ENERGY, CUTOFF, names, np.array([coefficients]), **options)[0]


# ---- current density ----


def test_peak_width_and_current_of_the_ideal_probe():
    table = probe(0.0, names=("C10",))
    assert table.max() == pytest.approx(np.pi * (CUTOFF / wavelength(ENERGY)) ** 2, rel=0.01)
    assert np.unravel_index(table.argmax(), table.shape) == (PIXELS // 2, PIXELS // 2)
    fine = np.linspace(0, 1e-10, 500)
    profile = beam_rates.radial(table[None], fine)[0]
    assert 2 * np.interp(-0.5 * table.max(), -profile, fine) == pytest.approx(0.8345e-10, rel=0.015)
    x = 2 * np.pi * CUTOFF / wavelength(ENERGY) * beam_rates.TABLE_REACH  # Rayleigh: the share within r is 1 - J0^2 - J1^2
    inside = np.pi * np.trapezoid(beam_rates.radial(table[None], fine * 3.7)[0], (fine * 3.7) ** 2)
    assert 1 - inside == pytest.approx(2 / (np.pi * x), abs=0.015)


@pytest.mark.parametrize(("name", "angstrom", "strehl"), [("C10", 20, 0.894), ("C10", -40, 0.627), ("C12a", 10, 0.945), ("C12a", 20, 0.797), ("C23a", 500, 0.959)])
def test_aberrations_lower_the_peak_by_their_strehl_ratio(name, angstrom, strehl):
    middle = (PIXELS // 2, PIXELS // 2)
    assert probe(angstrom * 1e-10, names=(name,))[middle] / probe(0.0, names=(name,))[middle] == pytest.approx(strehl, rel=0.02)


def test_source_and_focal_spread_blur_and_keep_the_current():
    sharp, wide = probe(0.0, names=("C10",)), probe(0.0, names=("C10",), source_size=0.5e-10)
    assert wide.max() < 0.7 * sharp.max()
    assert wide.sum() == pytest.approx(sharp.sum(), rel=0.02)
    chromatic = probe(0.0, names=("C10",), focal_spread=3e-9)
    share, focus = np.polynomial.hermite_e.hermegauss(41)[1], np.polynomial.hermite_e.hermegauss(41)[0]
    known = sum(w * probe(3e-9 * f, names=("C10",)).max() for f, w in zip(focus[14:27], share[14:27], strict=True)) / share[14:27].sum()
    assert chromatic.max() == pytest.approx(known, rel=0.02)


def test_a_gaussian_probe_has_its_known_peak():
    width = 0.84e-10
    assert 1 / (2 * np.pi * beam_rates.gaussian_variance(width)) == pytest.approx(0.8825 / width**2, rel=1e-4)
    assert beam_rates.gaussian_lobe(width)[24, 16] == pytest.approx(0.8825 / width**2, rel=1e-4)  # the beam on the neighbour


def test_the_lobe_of_a_probe_is_its_density_around_the_neighbour():
    tables = current_density(ENERGY, CUTOFF, NAMES, STATES)
    lobe = beam_rates.density_lobes(tables)
    assert lobe.shape == (3, 33, 33)
    assert lobe[:, 24, 16] == pytest.approx(tables[:, PIXELS // 2, PIXELS // 2], rel=1e-3)
    assert lobe[0, 24, 20] == pytest.approx(lobe[0, 28, 16], rel=1e-6) == pytest.approx(beam_rates.radial(tables[:1], [0.5 * BOND])[0, 0], rel=0.01)


# ---- images ----


def sheet(silicon: list | None = None, turn: float = 0.0):
    s = graphene.empty(1, max(1, len(silicon or [])), 1)
    s["frame"][0, :2] = np.cos(turn), np.sin(turn)
    for k, site in enumerate(silicon or []):
        s["silicon"][0, k] = [*site, 1]
    return s


def image(s, profile, pixels: int = 64, view: float = 20e-10, centre=(0.0, 0.0), shift=None):
    pixel, lanes = view / pixels, len(s["frame"])
    start = np.zeros((lanes, pixels, 2))
    start[..., 0] = centre[0] - 0.5 * pixel * (pixels - 1) + (0 if shift is None else shift)
    start[..., 1] = centre[1] + pixel * (np.arange(pixels) - 0.5 * (pixels - 1))
    return images(s, graphene.survey(s)["position"], profile, start, pixels, pixel)[0]


def tuned(**options):
    return profiles(ENERGY, CUTOFF, ("C10",), np.zeros((1, 1)), SOURCE, 0.0, **options)


@pytest.fixture(scope="module")
def exact():
    """The shipped specimen: one silicon atom amid graphene, by multislice; its images and where the fast model scans."""
    specimen = specimens.load("graphene-si")
    former = ImageFormer(specimen.tensors["haadf"], CUTOFF, NAMES, SOURCE, 0.0)
    pixel = 14e-10 / 64
    corner = np.array(specimen.extent) / 2 - 0.5 * pixel * 63
    line_x, line_y = raster(len(STATES), 64, pixel, corner)
    return former.images(STATES, line_x, line_y, 64, pixel), np.stack([line_x, line_y], -1), pixel


def as_built() -> dict[str, np.ndarray]:
    """The lattice of that specimen: armchair along x, silicon on the site nearest to the middle of the cell."""
    from probegym.physics.structures import graphene_silicon

    atoms = graphene_silicon()
    place = atoms.positions[atoms.numbers == 14][0, :2] * 1e-10
    around = atoms.positions[:, :2] * 1e-10 - place
    near = around[(np.hypot(*around.T) < 1.6e-10) & (np.hypot(*around.T) > 1e-12)]
    s = sheet([(0, 0, 0)])
    angle = np.arctan2(near[0, 1], near[0, 0]) - np.pi / 6  # the first neighbour of sublattice 0 lies at 30 degrees
    s["frame"][0] = [np.cos(angle), np.sin(angle), *place]
    return s


def test_sums_of_profiles_agree_with_multislice(exact):
    """A round probe, and nearly tuned ones whose shape a round profile leaves out."""
    reference, start, pixel = exact
    s = {name: np.repeat(array, 3, 0) for name, array in as_built().items()}
    s["optics"][:] = [0, 1, 2]
    ours = images(s, graphene.survey(s)["position"], profiles(ENERGY, CUTOFF, NAMES, STATES, SOURCE, 0.0), start, 64, pixel)
    for a, b, most in zip(ours, reference, (0.035, 0.12, 0.12), strict=True):
        assert np.sqrt(np.mean((a - b) ** 2)) < most * b.std()
        assert np.corrcoef(a.ravel(), b.ravel())[0, 1] > 0.99
    assert ours.mean() == pytest.approx(reference.mean(), rel=0.08)


def test_silicon_is_five_times_as_bright_as_carbon():
    flat = images_of_site(sheet([(0, 0, 0)]))
    bare = images_of_site(sheet())
    assert flat / bare == pytest.approx(5.03, rel=0.1)


def images_of_site(s) -> float:
    frame = image(s, profiles(ENERGY, CUTOFF, ("C10",), np.zeros((1, 1)), 0.0, 0.0), pixels=33, view=2e-10)
    return float(frame[16, 16])


def test_the_mean_of_a_perfect_lattice_is_all_that_its_atoms_send():
    flat = image(sheet(turn=0.4), tuned(), pixels=128, view=60e-10)
    assert flat.mean() == pytest.approx(STRENGTHS[0] / graphene.SITE_AREA, rel=0.01)


def test_every_atom_and_vacancy_is_where_it_belongs():
    s = sheet([(1, -1, 0)], turn=0.7)
    s["vacancy"][0, 0] = [-2, 1, 1, 1]
    pixels, view = 128, 20e-10
    shown, whole = image(s, tuned(), pixels, view), image(sheet(turn=0.7), tuned(), pixels, view)
    difference, pixel = shown - whole, view / pixels
    for place, extreme in ((graphene.survey(s)["position"][0, 0], difference.argmax()), (graphene.places(s["frame"][0], s["vacancy"][0, :1])[0], difference.argmin())):
        row, column = np.unravel_index(extreme, shown.shape)
        assert (column - 63.5) * pixel == pytest.approx(place[0], abs=pixel) and (row - 63.5) * pixel == pytest.approx(place[1], abs=pixel)


def test_rows_that_are_displaced_show_a_displaced_lattice():
    pixel = 20e-10 / 64
    shift = np.zeros(64)
    shift[10:20] = 3 * pixel
    straight, displaced = image(sheet(turn=0.2), tuned()), image(sheet(turn=0.2), tuned(), shift=shift)
    assert displaced[10:20, :-3] == pytest.approx(straight[10:20, 3:], rel=1e-4)
    assert np.array_equal(displaced[:10], straight[:10])


def test_contamination_is_brighter_than_the_lattice():
    s = sheet()
    before = image(s, tuned())
    s["cluster"][0, 0] = [0.0, 0.0, 3e-10]
    after = image(s, tuned())
    assert after[24:40, 24:40].mean() > 1.8 * before[24:40, 24:40].mean() and np.array_equal(after[:, :8], before[:, :8])


def test_an_image_is_the_same_alone_and_in_a_batch():
    s = graphene.empty(40, 1, 1)
    angle = np.linspace(0, 6, 40)
    s["frame"][:] = np.stack([np.cos(angle), np.sin(angle), 1e-10 * np.sin(7 * angle), 1e-10 * np.cos(5 * angle)], 1)
    s["silicon"][:, 0] = [1, 0, 1, 1]
    start = np.zeros((40, 32, 2))
    start[..., 0], start[..., 1] = -1e-9 + 1e-11 * angle[:, None], np.linspace(-1e-9, 1e-9, 32)
    whole = images(s, graphene.survey(s)["position"], tuned(), start, 32, 6e-11)
    for lane in (0, 17, 39):
        one = {name: array[lane : lane + 1] for name, array in s.items()}
        assert np.array_equal(images(one, graphene.survey(one)["position"], tuned(), start[lane : lane + 1], 32, 6e-11)[0], whole[lane])


def test_gaussian_profiles_have_the_strength_of_their_atoms():
    shapes = atom_images.gaussian_profiles(0.84e-10).shapes
    whole = np.pi * atom_images.REACH**2 / atom_images.BINS * (shapes[0].sum(1) - 0.5 * shapes[0, :, 0])
    assert whole == pytest.approx(STRENGTHS, rel=0.01)


@pytest.mark.parametrize("profile", ["gaussian", "aberrated"])
def test_the_lattice_is_the_sum_of_its_atoms(profile):
    """Drawn as a Fourier series; added up atom by atom it is the same."""
    told = atom_images.gaussian_profiles(0.84e-10) if profile == "gaussian" else profiles(ENERGY, CUTOFF, NAMES, STATES[1:2], SOURCE, 0.0)
    s = sheet(turn=0.9)
    drawn = image(s, told, pixels=32, view=8e-10)
    sites = graphene.carbon(s, 0, np.zeros(2), 12e-10)
    axis = 8e-10 / 32 * (np.arange(32) - 15.5)
    far = np.hypot(axis[None, :, None] - sites[:, 0], axis[:, None, None] - sites[:, 1])
    summed = np.interp(far**2, atom_images.DISTANCES**2, told.shapes[0, 0, :-1], right=0.0).sum(-1)
    summed += told.mean[0] - summed.mean() if profile == "aberrated" else 0.0  # the tail beyond REACH is a constant
    assert drawn == pytest.approx(summed, abs=0.08 * float(drawn.std()))
    assert drawn.std() > 0.3 * drawn.mean()
