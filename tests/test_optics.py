"""Electron optics against analytic results, the table of published numbers, and abTEM."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import integrate, special

from probegym.physics import optics
from probegym.physics.optics import ABERRATIONS, ORDERS, Pupil

ANGSTROM = 1e-10
ENERGY, CUTOFF = 60e3, 0.030


@pytest.fixture(scope="module")
def fine():
    return Pupil(ENERGY, CUTOFF, samples=400)


def vector(names=ABERRATIONS, **coefficients) -> np.ndarray:
    """Coefficients in Angstrom by name -> array in m."""
    values = np.zeros(len(names))
    for name, value in coefficients.items():
        values[names.index(name)] = value * ANGSTROM
    return values


def name_of(n: int, m: int) -> str:
    return f"C{n}{m}a" if m else f"C{n}{m}"


def edge_phase(name: str, phase: float) -> np.ndarray:
    """The coefficient that turns the phase at the aperture's edge by ``phase``."""
    order = int(name[1])
    size = phase * optics.wavelength(ENERGY) * (order + 1) / (2 * np.pi * CUTOFF ** (order + 1))
    return vector(**{name: size / ANGSTROM})


# ---- constants ----


@pytest.mark.parametrize(("energy", "picometres"), [(60, 4.86606), (80, 4.17572), (100, 3.70144), (200, 2.50793), (300, 1.96875)])
def test_wavelength(energy, picometres):
    assert optics.wavelength(energy * 1e3) == pytest.approx(picometres * 1e-12, rel=1e-4)


@pytest.mark.parametrize(("energy", "sigma"), [(60, 11.3569), (100, 9.24396), (200, 7.28840), (300, 6.52616)])
def test_interaction_constant(energy, sigma):
    assert optics.interaction_constant(energy * 1e3) == pytest.approx(sigma * 1e-4 / ANGSTROM, rel=1e-4)


@pytest.mark.parametrize(("energy", "beta"), [(60, 0.44622), (100, 0.54822), (200, 0.69531), (300, 0.77653)])
def test_velocity(energy, beta):
    assert optics.velocity_ratio(energy * 1e3) == pytest.approx(beta, rel=1e-4)


@pytest.mark.parametrize("energy", [60e3, 200e3])
def test_constants_agree_with_abtem(energy):
    from abtem.core import energy as abtem_energy

    assert optics.wavelength(energy) / ANGSTROM == pytest.approx(abtem_energy.energy2wavelength(energy), rel=1e-6)
    assert optics.interaction_constant(energy) * ANGSTROM == pytest.approx(abtem_energy.energy2sigma(energy), rel=1e-6)


@pytest.mark.parametrize("energy", [60e3, 300e3])
def test_focal_spread_follows_from_the_momentum_spread(energy):
    """A magnetic lens has f ~ p^2, so df = C_c 2 dp/p, and p = h / lambda."""
    step = 0.3
    change = 2 * (optics.wavelength(energy - step) - optics.wavelength(energy + step)) / optics.wavelength(energy) / 2
    assert optics.focal_spread(1.2e-3, energy, step) == pytest.approx(1.2e-3 * change, rel=1e-4)


# ---- names and conventions ----


def test_there_are_25_coefficients_to_fifth_order():
    assert len(ABERRATIONS) == len(set(ABERRATIONS)) == 25
    assert {"C10", "C12a", "C12b", "C21a", "C23b", "C30", "C56b"} <= set(ABERRATIONS)


@pytest.mark.parametrize("name", ["C11", "C12", "C10a", "defocus", ""])
def test_unknown_coefficient_is_refused(name):
    with pytest.raises(ValueError, match="unknown aberration"):
        optics.split_name(name)


def test_polar_round_trip():
    rng = np.random.default_rng(1)
    given = dict(zip(ABERRATIONS, rng.normal(size=25), strict=True))
    polar = optics.to_polar(given)
    for n, m in ORDERS:
        size, angle = polar[f"C{n}{m}"] * ANGSTROM, polar.get(f"phi{n}{m}", 0.0)
        assert size * np.cos(m * angle) == pytest.approx(given[name_of(n, m)], rel=1e-12)
        if m:
            assert size * np.sin(m * angle) == pytest.approx(given[f"C{n}{m}b"], rel=1e-12)


def abtem_transfer(polar: dict[str, float], alpha: np.ndarray, phi: np.ndarray) -> np.ndarray:
    import abtem
    from abtem.transfer import Aberrations

    with abtem.config.set({"precision": "float64"}):
        return Aberrations(energy=ENERGY, aberration_coefficients=polar)._evaluate_from_angular_grid(alpha, phi)


@pytest.mark.parametrize("name", [*ABERRATIONS, "all"])
def test_aberration_function_agrees_with_abtem(name):
    lam, rng = optics.wavelength(ENERGY), np.random.default_rng(2)
    kx, ky = rng.uniform(-CUTOFF / lam, CUTOFF / lam, (2, 20, 20))
    sizes = np.stack([edge_phase(n, 3.0)[i] * rng.uniform(0.3, 1) for i, n in enumerate(ABERRATIONS)])
    chosen = sizes if name == "all" else np.where(np.array(ABERRATIONS) == name, sizes, 0)
    chi = np.tensordot(chosen, optics.aberration_basis(kx, ky, lam), 1)
    polar = optics.to_polar(dict(zip(ABERRATIONS, chosen, strict=True)))
    theirs = abtem_transfer(polar, np.hypot(kx, ky) * lam, np.arctan2(ky, kx))
    assert np.abs(np.exp(-1j * chi) - theirs).max() < 1e-6
    assert np.abs(chi).max() > 0.3


@pytest.mark.parametrize("soft", [True, False])
def test_aperture_agrees_with_abtem(soft):
    import abtem
    from abtem.transfer import Aperture

    extent, gpts = (21.3, 24.6), (64, 64)
    with abtem.config.set({"precision": "float64"}):
        theirs = Aperture(semiangle_cutoff=30.0, soft=soft, energy=ENERGY, extent=extent, gpts=gpts)._evaluate_kernel()
    lam = optics.wavelength(ENERGY) / ANGSTROM
    k = [np.fft.fftfreq(n, d=e / n) for n, e in zip(gpts, extent, strict=True)]
    kx, ky = np.meshgrid(*k, indexing="ij")
    ours = optics.aperture(np.hypot(kx, ky) * lam, np.arctan2(ky, kx), CUTOFF, lam / np.array(extent), soft)
    assert np.abs(ours - theirs).max() < 1e-5
    assert (0 < ours[ours < 1]).any() == soft


# ---- Strehl ratio ----


@pytest.mark.parametrize("phase", [0.5, 2.0, 4.0, 2 * np.pi])
def test_strehl_of_defocus(fine, phase):
    assert fine.strehl(edge_phase("C10", phase)) == pytest.approx((np.sin(phase / 2) / (phase / 2)) ** 2, abs=3e-3)


def test_first_zero_of_defocus(fine):
    assert fine.strehl(vector(C10=2 * optics.wavelength(ENERGY) / CUTOFF**2 / ANGSTROM)) < 1e-4


@pytest.mark.parametrize("name", ["C12a", "C12b"])
@pytest.mark.parametrize("phase", [0.5, 2.0, 4.0])
def test_strehl_of_astigmatism(fine, name, phase):
    expected = integrate.quad(lambda u: special.j0(phase * u), 0, 1)[0] ** 2
    assert fine.strehl(edge_phase(name, phase)) == pytest.approx(expected, abs=3e-3)


@pytest.mark.parametrize(
    ("coefficients", "strehl", "tolerance"),
    [
        ({"C10": 20}, 0.894, 0.02), ({"C10": -20}, 0.894, 0.02), ({"C10": 40}, 0.627, 0.02), ({"C10": -54}, 0.41, 0.02),
        ({"C12a": 10}, 0.945, 0.01), ({"C12b": 20}, 0.797, 0.01), ({"C23a": 500}, 0.959, 0.01), ({"C23b": -500}, 0.959, 0.01),
    ],
)  # fmt: skip
def test_strehl_numbers_at_60_kv_and_30_mrad(fine, coefficients, strehl, tolerance):
    assert fine.strehl(vector(**coefficients)) == pytest.approx(strehl, rel=tolerance)


def on_axis_strehl(pupil: Pupil, coefficients, names=ABERRATIONS) -> float:
    """On-axis intensity relative to the aberration-free probe, tilt included; coefficients (n,) in m."""
    axis, lam = np.linspace(-1, 1, 2 * pupil.inside.shape[0] + 1)[1::2], optics.wavelength(ENERGY)
    x, y = (a[pupil.inside] * CUTOFF / lam for a in np.meshgrid(axis, axis))
    return float(np.abs(np.exp(-1j * np.asarray(coefficients) @ optics.aberration_basis(x, y, lam, names)).mean()) ** 2)


VARIANCES = {
    "C10": 1 / 12, "C12a": 1 / 6, "C12b": 1 / 6, "C21a": 1 / 8, "C21b": 1 / 8, "C23a": 1 / 8, "C30": 4 / 45, "C32a": 1 / 10, "C34b": 1 / 10,
}  # fmt: skip
"""Phase variance over the square of the phase at the edge."""


@pytest.mark.parametrize("name", VARIANCES)
def test_on_axis_strehl_falls_by_the_phase_variance(fine, name):
    phase = 0.2
    assert 1 - on_axis_strehl(fine, edge_phase(name, phase)) == pytest.approx(VARIANCES[name] * phase**2, rel=0.01)


@pytest.mark.parametrize("name", VARIANCES)
def test_phase_variance_is_without_tilt(fine, name):
    expected = 1 / 72 if name.startswith("C21") else VARIANCES[name]
    assert fine.phase_variance(edge_phase(name, 0.7)) == pytest.approx(expected * 0.7**2, rel=0.01)
    assert 1 - fine.strehl(edge_phase(name, 0.2)) == pytest.approx(expected * 0.04, rel=0.01)


@pytest.mark.parametrize(("pair", "best"), [(("C30", "C10"), 1 / 180), (("C32a", "C12a"), 1 / 160)])
def test_balanced_aberrations(fine, pair, best):
    """Third order with the best first order against it."""
    one, other = edge_phase(pair[0], 1.0), edge_phase(pair[1], 1.0)
    shares = np.linspace(-1.5, 0, 301)[:, None]
    assert fine.phase_variance(one + shares * other).min() == pytest.approx(best, rel=0.02)


def test_perfect_probe_and_batches(fine):
    assert fine.strehl(np.zeros(25)) == pytest.approx(1.0)
    some = np.random.default_rng(0).normal(size=(2, 3, 25)) * vector(C10=20, C12a=20, C21a=500)
    assert fine.strehl(some).shape == fine.phase_variance(some).shape == (2, 3)
    assert (fine.strehl(some) <= 1).all() and (fine.phase_variance(some) >= 0).all()
    assert fine.strehl(some[1, 2]) == fine.strehl(some)[1, 2]


def test_a_lane_has_the_same_strehl_in_every_batch():
    pupil = Pupil(ENERGY, CUTOFF, samples=24)
    some = np.random.default_rng(0).normal(size=(20, 25)) * vector(C10=20, C12a=20, C23a=900)
    for function in (pupil.strehl, pupil.phase_variance):
        together = function(some)
        for width in (1, 3, 7):
            assert all((function(some[at : at + width]) == together[at : at + width]).all() for at in range(0, 20, width))


def test_a_coarse_pupil_is_good_enough_for_rewards(fine):
    coarse, rng = Pupil(ENERGY, CUTOFF, samples=24), np.random.default_rng(4)
    states = np.stack([sum(edge_phase(n, p) for n, p in zip(ABERRATIONS[:12], rng.normal(size=12), strict=True)) for _ in range(50)])
    assert np.abs(coarse.strehl(states) - fine.strehl(states)).max() < 0.02


def test_strehl_is_that_of_the_probe(fine):
    """On-axis intensity of the Fourier-transformed pupil, against the ratio from the phase alone."""
    coefficients = {"C10": 25 * ANGSTROM, "C12b": 15 * ANGSTROM, "C23a": 600 * ANGSTROM}
    size = (30 * ANGSTROM, 256)
    perfect, blurred = (np.abs(optics.probe(ENERGY, CUTOFF, c, *size)) ** 2 for c in ({}, coefficients))
    expected = on_axis_strehl(fine, list(coefficients.values()), tuple(coefficients))
    assert blurred[128, 128] / perfect[128, 128] == pytest.approx(expected, rel=0.01)


def test_phase_plate_shows_the_pupil(fine):
    plate = fine.phase_plate(edge_phase("C10", 2.0))
    assert plate.shape == (400, 400) and np.isnan(plate[0, 0])
    assert plate[200, 399] - plate[200, 200] == pytest.approx(2.0, rel=0.02)


# ---- probe ----


def radius_where(intensity: np.ndarray, step: float, level: float) -> float:
    """Where a profile that falls from its first element first passes a level."""
    after = np.argmax(intensity < level)
    return step * (after - (level - intensity[after]) / (intensity[after - 1] - intensity[after]))


@pytest.mark.parametrize(("energy", "mrad", "width"), [(60e3, 30, 0.8345), (200e3, 25, 0.516), (100e3, 30, 0.635)])
def test_probe_width(energy, mrad, width):
    extent, gpts = 60 * ANGSTROM, 1200
    intensity = np.abs(optics.probe(energy, mrad * 1e-3, {}, extent, gpts)) ** 2
    middle = gpts // 2
    profile = intensity[middle, middle:] / intensity[middle, middle]
    assert 2 * radius_where(profile, extent / gpts, 0.5) == pytest.approx(width * ANGSTROM, rel=0.015)
    assert 0.5145 * optics.wavelength(energy) / (mrad * 1e-3) == pytest.approx(width * ANGSTROM, rel=0.005)


def test_diameter_that_holds_59_percent():
    extent, gpts = 60 * ANGSTROM, 1200
    intensity = np.abs(optics.probe(ENERGY, CUTOFF, {}, extent, gpts)) ** 2
    axis = (np.arange(gpts) - gpts // 2) * extent / gpts
    radius = np.hypot(axis[:, None], axis[None, :]).ravel()
    order = np.argsort(radius)
    inside = np.cumsum(intensity.ravel()[order])
    assert 2 * radius[order][np.searchsorted(inside, 0.59)] == pytest.approx(0.988 * ANGSTROM, rel=0.015)


def test_probe_holds_one_electron():
    wave = optics.probe(ENERGY, CUTOFF, {"C10": 50 * ANGSTROM, "C21a": 900 * ANGSTROM}, 30 * ANGSTROM, 128)
    assert (np.abs(wave) ** 2).sum() == pytest.approx(1.0)
