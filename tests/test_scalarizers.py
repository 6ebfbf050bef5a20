"""Scalarizers: what they give for spectra whose numbers are known, and that they give NaN, not an error, where there is none."""

from __future__ import annotations

import numpy as np
import pytest

from probegym.errors import ProbeGymError
from probegym.physics import ferroelectrics, plasmons, scalarizers, spectrum_files
from probegym.physics.scalarizers import SCALARIZERS, named, register

BIAS = ferroelectrics.AXIS
LOOP = np.array([-0.6, 1.4, 4.6, -3.0, 0.0, 0.9, 0.9, 0.9, 0.9])
LOOPS = [name for name, one in SCALARIZERS.items() if one.kind == "loop"]
EELS = [name for name, one in SCALARIZERS.items() if one.kind == "eels"]


def loop(**changes) -> np.ndarray:
    """A loop (64,) with some of its nine parameters, named a0.. b3, changed."""
    parameters = LOOP.copy()
    for name, value in changes.items():
        parameters["a0 a1 a2 a3 a4 b0 b1 b2 b3".split().index(name)] = value
    return ferroelectrics.loops(BIAS, parameters)


def of(name: str, spectra, axis=BIAS) -> np.ndarray:
    return named(name)(axis, spectra)


def peaks(*lines, tail: float = 0.0, axis=plasmons.AXIS) -> np.ndarray:
    """Gaussian peaks (place, height, standard deviation) over a power law."""
    return sum(h * np.exp(-0.5 * ((axis - e) / w) ** 2) for e, h, w in lines) + tail * (axis / 0.5) ** -2.2


# ---- the registry ----


def test_there_is_one_of_every_kind():
    assert {one.kind for one in SCALARIZERS.values()} == set(scalarizers.KINDS)
    expected = {"peak ratio", "peak maximum", "peak energy", "loop area", "log loop area", "clean loop area", "coercive bias", "imprint", "remanence", "work of switching"}
    assert expected | {"com magnitude", "com angle"} <= set(SCALARIZERS)


def test_a_new_one_by_name(monkeypatch):
    monkeypatch.setattr(scalarizers, "SCALARIZERS", dict(SCALARIZERS))
    register("mean", "loop", lambda axis, spectra: spectra.mean(-1))
    assert named("mean")(BIAS, np.arange(64.0)) == 31.5
    with pytest.raises(ProbeGymError, match="already"):
        register("mean", "loop", np.mean)


@pytest.mark.parametrize(("name", "kind", "function", "says"), [("x", "raman", np.mean, "one of eels"), ("x", "loop", 3, "function"), ("", "loop", np.mean, "name")])
def test_registering_nonsense_is_refused(name, kind, function, says):
    with pytest.raises(ProbeGymError, match=says):
        register(name, kind, function)
    assert "x" not in SCALARIZERS


@pytest.mark.parametrize("name", [3, ["a"], None, b"x"])
def test_a_name_is_text(name):
    with pytest.raises(ProbeGymError, match="give a name"):
        register(name, "loop", np.mean)


def _raises(axis, spectra):
    raise ValueError("my own\nbug")


@pytest.mark.parametrize(
    "function",
    [
        lambda axis, spectra: spectra.max(), lambda axis, spectra: None, lambda axis, spectra: "x", lambda axis, spectra: 1j * spectra[..., 0],
        lambda axis, spectra: spectra[..., :1], lambda axis, spectra: spectra[0, 0], lambda axis, spectra: [1.0, [2.0]], _raises, lambda: 1.0,
    ],
    ids=["one for all", "none", "text", "complex", "too many axes", "too few", "ragged", "raises", "no arguments"],
)  # fmt: skip
def test_a_function_that_gives_no_number_per_spectrum_is_refused_by_name(function):
    one = scalarizers.Scalarizer("loop", function, "my own")
    with pytest.raises(ProbeGymError, match=r"'my own' .*(return real numbers of shape|mend)") as caught:
        one(BIAS, np.ones((5, 64)))
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


def test_whole_masked_and_huge_numbers():
    spectra = np.arange(15.0).reshape(5, 3)
    assert scalarizers.Scalarizer("loop", lambda axis, s: s.argmax(-1))(np.arange(3), spectra).tolist() == [2.0] * 5
    masked = scalarizers.Scalarizer("loop", lambda axis, s: np.ma.masked_less(s[..., 0], 4))(np.arange(3), spectra)
    assert np.isnan(masked).tolist() == [True, True, False, False, False] and type(masked) is np.ndarray
    huge = scalarizers.Scalarizer("loop", lambda axis, s: 10.0 ** (20 * s[..., 0]))(np.arange(3), spectra)
    assert np.isnan(huge).tolist() == [False, False, True, True, True]  # no square of theirs would be finite


def test_a_function_cannot_change_the_axis():
    axis = np.arange(3.0)
    scalarizers.Scalarizer("loop", lambda axis, s: np.add(axis, 1, out=axis)[0] * s[..., 0])(axis, np.ones((2, 3)))
    assert axis.tolist() == [0, 1, 2]


def test_an_unknown_name_lists_those_there_are():
    with pytest.raises(ProbeGymError, match=r"no scalarizer 'area'.*'loop area'"):
        named("area")


def test_spectra_that_do_not_go_with_the_axis_are_refused():
    with pytest.raises(ProbeGymError, match="axis"):
        of("loop area", np.zeros((5, 63)))


# ---- anything at all ----


@pytest.mark.parametrize("name", [*EELS, *LOOPS])
def test_values_are_per_spectrum(name):
    axis = BIAS if name in LOOPS else plasmons.AXIS
    rng = np.random.default_rng(1)
    spectra = 1e-3 * rng.random((4, 6, 64)) + (loop() if name in LOOPS else peaks((0.7, 1.0, 0.06), tail=0.3))
    values = of(name, spectra, axis)
    assert values.shape == (4, 6) and values.dtype == float and np.isfinite(values).all()
    assert of(name, spectra[2, 3], axis) == values[2, 3] and np.array_equal(of(name, spectra[2], axis), values[2])
    assert of(name, np.zeros((0, 64)), axis).shape == (0,)


@pytest.mark.parametrize("name", [*EELS, *LOOPS])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_gives_nan_for_that_spectrum_alone(name, bad):
    axis, good = (BIAS, loop()) if name in LOOPS else (plasmons.AXIS, peaks((0.7, 1.0, 0.06), tail=0.3))
    spectra = np.stack([good, good])
    spectra[1, 20] = bad
    values = of(name, spectra, axis)
    assert np.isfinite(values[0]) and np.isnan(values[1])


@pytest.mark.parametrize("name", SCALARIZERS)
@pytest.mark.parametrize("spectrum", [np.zeros(64), np.ones(64), -np.ones(64), np.arange(64.0), np.full(64, 1e300), np.full(64, 1e-300)])
def test_nothing_raises(name, spectrum, recwarn):
    assert of(name, spectrum, BIAS if name in LOOPS else plasmons.AXIS).shape == ()
    assert not recwarn


@pytest.mark.parametrize("count", [1, 2, 3, 5])
@pytest.mark.parametrize("name", SCALARIZERS)
def test_short_axes_do_not_raise(name, count):
    assert of(name, np.ones((2, count)), np.linspace(0.3, 1.2, count)).shape == (2,)


def test_a_scalarizer_that_fails_for_values_is_nan():
    one = scalarizers.Scalarizer("loop", lambda axis, spectra: np.log(spectra.min(-1)))
    assert np.isnan(one(np.arange(3.0), [[1.0, 2.0, -1.0]])).all()


# ---- energy loss ----


def test_peak_ratio():
    low, high, both = peaks((0.53, 1.0, 0.03)), peaks((0.82, 1.0, 0.03)), peaks((0.53, 1.0, 0.03), (0.82, 3.0, 0.03))
    assert of("peak ratio", [low, high, both], plasmons.AXIS) == pytest.approx([1, 0, 0.25], abs=2e-3)
    assert of("peak ratio", 100 * both, plasmons.AXIS) == pytest.approx(0.25, abs=2e-3)


def test_bands_tell_long_modes_from_compact_ones():
    from probegym.physics import drude

    ito = drude.MATERIALS["ITO"]
    for aspect in (1.8, 2.5, 4.0, 5.0):
        assert scalarizers.LOW_BAND[0] <= drude.spheroid_energy(ito, aspect) <= scalarizers.LOW_BAND[1]
    compact = [*drude.dimer_energies(ito, 0.3).values(), drude.sphere_energy(ito), drude.spheroid_energy(ito, 4.0, across=True)]
    assert all(scalarizers.HIGH_BAND[0] <= energy <= scalarizers.HIGH_BAND[1] for energy in compact)


@pytest.mark.parametrize("place", [0.5, 0.6437, 0.741, 0.9])
def test_peak_maximum_and_energy_on_a_tail(place):
    spectrum = peaks((place, 0.02, 0.05), tail=0.012)
    assert of("peak energy", spectrum, plasmons.AXIS) == pytest.approx(place, abs=0.006)
    assert of("peak maximum", spectrum, plasmons.AXIS) == pytest.approx(0.02, rel=0.1)
    assert of("peak maximum", 7 * spectrum, plasmons.AXIS) == pytest.approx(7 * of("peak maximum", spectrum, plasmons.AXIS))


def test_peak_energy_of_spectra_that_were_simulated():
    keys = np.array([3], np.uint64)
    spectra = plasmons.assembly(keys, {"count": 1, "rods": 0.0, "radius": 9e-9, "spread": 0.0, "clustered": 0.0, "doped": 0.0, "collection": 0.0})[1][0]
    strongest = spectra[:, 20:45].max(-1).argsort()[-20:]
    assert of("peak energy", spectra[strongest], plasmons.AXIS) == pytest.approx(np.full(20, 0.741), abs=0.012)


@pytest.mark.parametrize("axis", [np.linspace(500, 700, 64), np.linspace(0.7, 1.5, 64), np.linspace(0.1, 0.6, 64), np.linspace(-2, -1, 64)])
def test_a_band_outside_of_the_axis_has_no_ratio(axis):
    assert np.isnan(of("peak ratio", np.random.default_rng(0).random((3, 64)), axis)).all()


@pytest.mark.parametrize("name", EELS)
def test_channels_at_and_below_no_loss_do_not_count(name):
    """A file may hold the zero-loss peak."""
    spectrum, before = peaks((0.53, 0.02, 0.05), tail=0.012), np.array([-0.05, -0.02, -1e-17, 0.0, 1e-18])
    whole = of(name, np.r_[1e-3, 5.0, 1e4, 1e4, 1e4, spectrum], np.r_[before, plasmons.AXIS])
    assert whole == of(name, spectrum, plasmons.AXIS) and np.isfinite(whole)


# ---- loops ----


def test_area_of_a_polygon_and_of_an_ellipse():
    square = np.where(np.arange(64) < 16, 0.0, np.where(np.arange(64) < 48, 1.0, 0.0))
    assert of("loop area", square) == pytest.approx(17 * 1.0, rel=0.05)
    turn = 2 * np.pi * np.arange(200) / 200
    assert of("loop area", 3 * np.cos(turn) + 7, 5 * np.sin(turn)) == pytest.approx(np.pi * 15, rel=1e-3)
    assert of("loop area", 0.3 * BIAS + 5) == pytest.approx(0, abs=1e-12)


def test_area_is_its_integral():
    bias = ferroelectrics.triangle(4096)
    fine = ferroelectrics.loops(bias, LOOP)
    rising, falling = scalarizers._branches(bias)
    integral = np.trapezoid(fine[falling], bias[falling]) + np.trapezoid(fine[rising], bias[rising])
    assert of("loop area", fine, bias) == pytest.approx(abs(integral), rel=1e-9)
    assert of("loop area", loop()) == pytest.approx(abs(integral), rel=5e-3)
    assert of("loop area", loop()) == pytest.approx(1.4 * 7.6, rel=0.02)  # the height times the width between the switching biases
    assert of("log loop area", loop()) == pytest.approx(np.log10(of("loop area", loop())))


def test_a_clean_area_leaves_out_steps_that_outlie():
    even = loop(a2=3.8, a3=-3.8) + 0.02 * BIAS
    spiked, noisy = np.where(np.arange(64) == 40, 100.0, even), ferroelectrics.measure(even[None], 0.08, np.full(1, 5, np.uint64), np.arange(1))[0]
    assert of("clean loop area", spiked) == pytest.approx(of("loop area", even), rel=0.07) and of("loop area", spiked) > 3 * of("loop area", even)
    for clean in (even, 5e-4 * even + 1, noisy):
        assert of("clean loop area", clean) == of("loop area", clean)


def test_the_largest_areas_of_the_recorded_map_are_fits_that_failed_the_clean_ones_are_loops():
    """Half of a loop's steps are far from its median; where single steps were badly fitted they alone are."""
    recorded = spectrum_files.load()
    distance = np.abs(recorded.spectra - np.median(recorded.spectra, -1, keepdims=True))
    loops = np.median(distance, -1) > 0.1 * distance.max(-1)
    raw, clean = (np.argsort(-of(name, recorded.spectra, recorded.axis)) for name in ("loop area", "clean loop area"))
    assert loops.mean() > 0.5 and not loops[raw[:100]].any() and loops[clean[:25]].all()


def test_area_does_not_care_for_sign_offset_or_slope():
    area = of("loop area", loop())
    for same in (-loop(), loop() + 4, loop() + 0.2 * BIAS, np.roll(loop(), 16)):
        assert of("loop area", same, np.roll(BIAS, 16) if np.array_equal(same, np.roll(loop(), 16)) else BIAS) == pytest.approx(area, rel=1e-9)


@pytest.mark.parametrize(("up", "down"), [(4.6, -3.0), (2.0, -2.0), (5.1, 1.3)])
def test_coercive_bias_and_imprint(up, down):
    changed = [loop(a2=up, a3=down), 5e-4 * loop(a2=up, a3=down), -loop(a2=up, a3=down)]
    assert of("coercive bias", changed) == pytest.approx(np.full(3, (up - down) / 2), abs=0.05)
    assert of("imprint", changed) == pytest.approx(np.full(3, (up + down) / 2), abs=0.05)


def test_noise_does_not_bias_the_coercive_bias():
    noisy = ferroelectrics.measure(np.tile(loop(), (600, 1)), 0.08, np.full(600, 5, np.uint64), np.arange(600))
    values = of("coercive bias", noisy)
    assert np.isnan(values).mean() < 0.02 and np.nanmean(values) == pytest.approx(3.8, abs=0.06)


def test_remanence_and_work():
    assert of("remanence", loop()) == pytest.approx(1.4 / 2, rel=0.02)  # both branches are switched at no bias
    assert of("work of switching", loop()) == pytest.approx(1.4 * 7.6, rel=0.02)
    assert of("work of switching", -3 * loop() + 2) == pytest.approx(3 * 1.4 * 7.6, rel=0.02)


def test_a_loop_that_does_not_switch():
    flat, line = np.full(64, 0.4), 0.1 * BIAS
    for name in ("coercive bias", "imprint", "work of switching"):
        assert np.isnan(of(name, flat)) and (name == "imprint" or of(name, line) == pytest.approx(0, abs=1e-9))
    assert of("remanence", flat) == of("loop area", flat) == 0 and np.isnan(of("log loop area", flat))


# ---- centre of mass ----


def test_centre_of_mass():
    pairs = np.array([[3.0, 4.0], [0.0, -2.0], [-1.0, 0.0], [np.nan, 1.0]])
    assert of("com magnitude", pairs, np.arange(2)) == pytest.approx([5, 2, 1, np.nan], nan_ok=True)
    assert of("com angle", pairs, np.arange(2)) == pytest.approx([np.arctan2(4, 3), -np.pi / 2, np.pi, np.nan], nan_ok=True)
