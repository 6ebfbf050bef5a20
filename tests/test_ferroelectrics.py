"""Ferroelectric films: loops and their nine parameters, the resonance, domains and walls, disorder, noise."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import erf

from probegym.physics import ferroelectrics as film
from probegym.physics.scalarizers import named

FINE = film.triangle(4096)
KEYS = np.arange(1, 6, dtype=np.uint64) * np.uint64(104729)
TOLD = {name: float(value) for name, value in film.PARAMETERS.items()}
CALM = TOLD | {"lamellae": 0.0, "defects": 0.0, "disorder": 0.0, "roughness": 0.0}


def coefficients(key: int = 7, **changes) -> tuple[np.ndarray, np.ndarray]:
    return film.coefficients_of(np.uint64(key), CALM | changes)


# ---- bias, resonance, loops ----


def test_bias_is_the_cycle_of_the_recorded_loops():
    assert len(film.AXIS) == 64 and film.AXIS[0] == 0 and film.AXIS[16] == 8.5 and film.AXIS[32] == 0 and film.AXIS[48] == -8.5
    assert np.abs(np.diff(film.AXIS)) == pytest.approx(np.full(63, 8.5 / 16))


def test_resonance():
    w, w0, q = np.linspace(200e3, 500e3, 301), 350e3, 120.0
    expected = 3.0 * w0**2 / np.sqrt((w0**2 - w**2) ** 2 + (w * w0 / q) ** 2)
    assert np.abs(film.oscillator(w, 3.0, w0, q)) == pytest.approx(expected, rel=1e-12)
    assert film.oscillator(w0, 3.0, w0, q) == pytest.approx(-1j * 3 * q) and film.oscillator(0, 3.0, w0, q) == pytest.approx(3.0)
    half = np.abs(film.oscillator(w0 * np.array([1 - 0.5 / q, 1 + 0.5 / q]), 3.0, w0, q))  # half the power, w0 / Q apart
    assert half == pytest.approx(np.full(2, 3 * q / np.sqrt(2)), rel=0.01)


def reference(bias: np.ndarray, p: np.ndarray) -> np.ndarray:
    """The loop function of Jesse et al. (2006) as physics.md 4a has it, a smooth step of 1 mV between the widths."""
    rising = np.gradient(bias) > 0
    out = np.empty(len(bias))
    for branch, centre, low, high in ((rising, p[2], p[5], p[6]), (~rising, p[3], p[7], p[8])):
        v = bias[branch]
        g = (high - low) / 2 * (erf(1000 * (v - centre)) + 1) + low
        out[branch] = (g * erf((v - centre) / g) + low) / (low + high)
    return p[0] + p[1] * out + p[4] * bias


def test_loops_are_those_of_nine_parameters():
    rng = np.random.default_rng(3)
    for _ in range(20):
        p = np.concatenate([rng.normal(size=2), rng.uniform([1, -5], [5, -1]), [0.05 * rng.normal()], rng.uniform(0.4, 2.5, 4)])
        found, expected = film.loops(FINE, p), reference(FINE, p)
        inside = np.abs(FINE) < 8.4  # which branch a turning point is on is a matter of taste
        assert np.abs(found - expected)[inside].max() < 2e-3 * abs(p[1])


def test_ends_of_a_loop():
    p = np.array([-0.4, 1.5, 3.0, -2.0, 0.0, 0.6, 1.1, 0.8, 0.5])
    found = film.loops(film.AXIS, p)
    assert found[16] == pytest.approx(1.1) and found[48] == pytest.approx(-0.4)  # a0 + a1 and a0
    assert found[0] == pytest.approx(-0.4, abs=1e-3) and found[32] == pytest.approx(1.1, abs=1e-3)  # both are remanent
    assert film.loops(film.AXIS, p + np.eye(9)[4] * 0.1) - found == pytest.approx(0.1 * film.AXIS)


@pytest.mark.parametrize("noise", [0.0, 0.02])
def test_numbers_of_a_loop_are_its_parameters(noise):
    rng = np.random.default_rng(5)
    p = np.empty((200, 9))
    p[:, 0], p[:, 1], p[:, 4] = rng.normal(size=200), rng.uniform(0.5, 2, 200), 0
    p[:, 2], p[:, 3] = rng.uniform(2.5, 5.0, 200), rng.uniform(-5.0, -2.5, 200)
    p[:, 5:] = rng.uniform(0.5, 1.2, 200)[:, None]  # equal widths: half way up at the switching bias
    taken = film.measure(film.loops(film.AXIS, p), noise * p[:, 1], np.full(200, 2, np.uint64), np.arange(200))
    up, down = p[:, 2], p[:, 3]
    near = {"abs": 0.03 + 10 * noise}
    assert named("coercive bias")(film.AXIS, taken) == pytest.approx((up - down) / 2, **near)
    assert named("imprint")(film.AXIS, taken) == pytest.approx((up + down) / 2, **near)
    assert named("remanence")(film.AXIS, taken) == pytest.approx(p[:, 1] / 2, rel=0.01 + 4 * noise)
    assert named("loop area")(film.AXIS, taken) == pytest.approx(p[:, 1] * (up - down), rel=0.03 + 4 * noise)


# ---- films ----


def test_a_lane_is_the_same_alone_and_in_a_batch():
    periods = np.linspace(160e-9, 400e-9, 5)
    images, spectra = film.film(KEYS, {"period": periods})
    alone = film.film(KEYS[2:3], {"period": periods[2]})
    assert np.array_equal(alone[0][0], images[2]) and np.array_equal(alone[1][0], spectra[2])
    assert images.shape == (5, 50, 50) and spectra.shape == (5, 2500, 64) and images.dtype == spectra.dtype == np.float32
    assert np.isfinite(images).all() and np.isfinite(spectra).all() and not np.array_equal(images[0], images[1])


@pytest.mark.parametrize("told", [{"disorder": 0.0, "lamellae": 0.0, "defects": 0.0}, {"anisotropy": 1.0, "lamellae": 20.0, "defects": 40.0},
                                  {"softening": 1.0, "clamping": 1.0, "mobility": 5.0, "disorder": 0.5}, {"period": 1e-6, "wall": 200e-9},
                                  {"period": 80e-9, "wall": 5e-9, "disorder_length": 20e-9}])  # fmt: skip
def test_extremes_stay_finite(told):
    images, spectra = film.film(KEYS[:2], told)
    assert np.isfinite(images).all() and np.isfinite(spectra).all()


@pytest.mark.parametrize("period", [160e-9, 260e-9, 400e-9])
def test_domains_have_the_period_asked_for(period):
    power = 0.0
    for key in range(12):
        up, _, _ = film.domains(np.uint64(key), CALM | {"period": period})
        assert 0.3 < (up > 0).mean() < 0.7
        power = power + np.abs(np.fft.fft2(up - up.mean())) ** 2
    k = np.hypot(*np.meshgrid(*[np.fft.fftfreq(50, 20e-9)] * 2))
    near = k < 1.7 / period  # without the harmonics of a square wave
    assert (power * k)[near].sum() / power[near].sum() == pytest.approx(1 / period, rel=0.12)


def test_stripes_run_one_way_and_a_labyrinth_does_not():
    def order(anisotropy: float) -> float:
        shares = []
        for key in range(8):
            up, _, _ = film.domains(np.uint64(key), CALM | {"anisotropy": anisotropy})
            power = np.abs(np.fft.fft2(up - up.mean())) ** 2
            ky, kx = np.meshgrid(*[np.fft.fftfreq(50)] * 2, indexing="ij")
            shares.append(abs((power * np.exp(2j * np.arctan2(ky, kx))).sum()) / power.sum())
        return float(np.mean(shares))

    assert order(1.0) > 0.7 > 0.55 > order(0.0)


def test_distance_is_that_to_the_nearest_wall():
    up, distance, _ = film.domains(np.uint64(3), CALM | {"anisotropy": 1.0, "period": 400e-9})
    crossing = np.argwhere(up[:, 1:] != up[:, :-1])
    walls = np.concatenate([crossing + [0, 0.5], np.argwhere(up[1:] != up[:-1]) + [0.5, 0]])
    inner = [(r, c) for r in range(8, 42, 3) for c in range(8, 42, 3)]
    measured = np.array([20e-9 * np.hypot(*(walls - place).T).min() for place in inner])
    assert np.array([distance[place] for place in inner]) == pytest.approx(measured, abs=13e-9)
    assert np.mean(np.abs(np.array([distance[place] for place in inner]) - measured)) < 6e-9


def test_loops_are_narrow_on_walls_and_shifted_where_these_are_bent():
    _, distance, curvature = film.domains(np.uint64(7), CALM)
    _, c = coefficients(bowing=0.0)
    width = (c[..., 2] - c[..., 3]) / 2
    on, off = distance < 8e-9, distance > 55e-9
    assert width[off].mean() == pytest.approx(CALM["coercive"], rel=0.03)
    assert width[on].mean() == pytest.approx(CALM["coercive"] * (1 - CALM["softening"]), rel=0.05)
    bent = coefficients(bowing=0.5)[1]
    shift = (bent - c)[..., 2]
    assert np.corrcoef(shift[on], curvature[on])[0, 1] > 0.95 and np.abs(shift[off]).max() < 0.2 * np.abs(shift[on]).max()


def test_curvature_is_positive_where_an_up_domain_bulges():
    up, distance, curvature = film.domains(np.uint64(5), CALM | {"anisotropy": 0.0})
    there = np.s_[6:-6, 6:-6]
    around = sum(np.roll(np.roll(up, dy, 0), dx, 1) for dy in range(-4, 5) for dx in range(-4, 5)) / 81
    for side in (1, -1):
        on = (distance[there] < 14e-9) & (up[there] == side)
        assert np.corrcoef(curvature[there][on], around[there][on])[0, 1] < -0.5  # the more bent, the fewer up around


def test_lamellae_clamp_and_walls_that_meet_them_are_mobile():
    image, c = coefficients(lamellae=5.0)
    bare_image, bare = coefficients()
    ratio = c[..., 1] / bare[..., 1]
    assert ratio.min() == pytest.approx(1 - CALM["clamping"], rel=0.1) and ratio.max() > 1.4
    flat = ratio < 0.5
    assert np.abs(image[flat]).max() < 0.35 and np.abs(bare_image[flat]).max() > 0.9
    assert (c[..., 2] - c[..., 3]).min() > 0


def test_defects_shift_loops_and_are_not_in_the_image():
    image, c = coefficients(defects=6.0)
    bare_image, bare = coefficients()
    assert np.array_equal(image, bare_image) and np.abs((c - bare)[..., 2]).max() > 1.5


def test_disorder_has_its_strength_and_its_length():
    fields = np.concatenate([film._correlated(np.uint64(key), "disorder", 3, 4.0, (50, 50)) for key in range(40)])
    assert fields.std() == pytest.approx(1, abs=0.04) and fields.mean() == pytest.approx(0, abs=0.06)
    for lag in (2, 4, 8):
        found = (fields[:, :, lag:] * fields[:, :, :-lag]).mean() / (fields**2).mean()
        assert found == pytest.approx(np.exp(-(lag**2) / 32), abs=0.04)


def test_the_image_is_the_piezoresponse():
    image, _ = coefficients()
    up, distance, _ = film.domains(np.uint64(7), CALM)
    assert np.array_equal(np.sign(image), up) or np.abs(image[np.sign(image) != up]).max() < 1e-9
    assert np.abs(image[distance > 50e-9]).min() > 0.9 and np.abs(image[distance < 4e-9]).max() < 0.35


# ---- noise ----


def test_noise_is_of_key_and_step():
    loops = np.zeros((3, 64), np.float32)
    keys, step = np.array([3, 4, 5], np.uint64), np.array([0, 1, 2])
    taken = film.measure(loops, 0.1, keys, step, 0.05)
    assert np.array_equal(film.measure(loops[1:2], 0.1, keys[1:2], step[1:2], 0.05)[0], taken[1])
    assert not np.array_equal(film.measure(loops, 0.1, keys, step + 1, 0.05), taken)


def test_noise_and_failed_fits_are_as_many_and_as_large_as_told():
    keys, step = np.full(2000, 9, np.uint64), np.arange(2000)
    taken = film.measure(np.zeros((2000, 64)), 0.2, keys, step)
    assert taken.std() == pytest.approx(0.2, rel=0.01) and np.abs(taken).max() < 0.2 * 6
    spiked = film.measure(np.zeros((2000, 64)), 0.2, keys, step, failures=0.03)
    far = np.abs(spiked) > 0.2 * 5
    assert far.mean() == pytest.approx(0.03, rel=0.1) and np.median(np.abs(spiked[far])) == pytest.approx(30 * 0.2, rel=0.1)
    assert np.array_equal(film.measure(np.zeros((2000, 64)), 0.0, keys, step), np.zeros((2000, 64)))
