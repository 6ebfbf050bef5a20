"""Tunnelling, constant-current images, surfaces, and what treatments do to an apex, against closed forms."""

from __future__ import annotations

import numpy as np
import pytest

from probegym.physics import randomness, stm, stm_apex, stm_surfaces
from tests.stm_reference import point_width

FLAT = {"terrace_width": 1.0, "meander_period": 20e-9}
STEP = 0.236e-9  # m, Ag(111)
BIAS, CURRENT = 1.0, 25e-12
KAPPA = float(stm.decay_constant(stm.CLEAN_BARRIER))


def surface(**fields: float) -> np.ndarray:
    """A row of parameters; a single terrace unless told otherwise."""
    told = FLAT | fields
    return np.array([told.get(name, 0.0) for name in stm_surfaces.FIELDS])


def apex(*atoms: tuple[float, float, float, float]) -> np.ndarray:
    """(1, 2, n, 4) of atoms x, y, retraction in nm and barrier in eV, the same before and after."""
    rows = np.array(atoms) * np.array([1e-9, 1e-9, 1e-9, 1.0])
    return np.repeat(rows[None, None], 2, axis=1)


ONE = apex((0, 0, 0, stm.CLEAN_BARRIER))


def image(tip=ONE, ground=None, pixels: int = 64, view: float = 10e-9, noise=(0.0, 0.0, 0.0, 1e9), placed=((0, 0, 0, 0),), lanes: int = 1, **changes):
    """One noiseless image around the origin with a feedback that follows at once, unless told otherwise; m."""
    options = {
        "apex": np.repeat(tip, lanes, 0), "loose": np.zeros((lanes, 2, 3)), "switch_row": np.full(lanes, pixels), "jump": np.zeros(lanes),
        "surface": np.repeat((surface() if ground is None else ground)[None], lanes, 0), "surface_key": np.full(lanes, 7, np.uint64),
        "centre": np.zeros((lanes, 2)), "velocity": np.zeros((lanes, 2)), "noise": np.tile(np.array(noise, float), (lanes, 1)),
        "noise_key": np.arange(lanes, dtype=np.uint64), "placed": np.repeat(np.array([placed], float), lanes, 0), "shape": (pixels, pixels),
        "field_of_view": view, "line_time": 0.2, "bias": BIAS, "current": CURRENT,
    }  # fmt: skip
    return stm.topographs(**options | changes)


BUMP = (0.0, 0.0, 0.1e-9, 0.0)
"""An adatom at the origin."""


# ---- tunnelling ----


def test_decay_constant():
    assert stm.decay_constant(5.0) == pytest.approx(1.146e10, rel=1e-3)
    assert stm.decay_constant(np.array([4.0, 5.0])) / 1e10 == pytest.approx(0.5123 * np.sqrt([4, 5]), rel=1e-4)


def test_ten_times_less_current_at_5_ev_is_an_angstrom():
    """A factor of 9.886 per Angstrom at 5 eV."""
    assert np.log(9.886) / (2 * stm.decay_constant(5.0)) == pytest.approx(1e-10, rel=1e-3)


def test_gap_starts_at_contact():
    assert stm.CONDUCTANCE_QUANTUM == pytest.approx(77.481e-6, rel=1e-5)
    assert stm.gap(1.0, stm.CONDUCTANCE_QUANTUM) == pytest.approx(0.0, abs=1e-15)
    assert stm.gap(1.0, 25e-12, 4.0) == pytest.approx(0.73e-9, rel=0.01)


def test_shares_of_equal_atoms_are_equal_and_fall_with_retraction():
    shares, decay = stm.flat_shares(np.array([[0.0, 0.0, 0.1e-9]]), np.full((1, 3), 4.5))
    assert shares[0, 0] == pytest.approx(shares[0, 1]) and shares.sum() == pytest.approx(1)
    assert shares[0, 2] / shares[0, 0] == pytest.approx(np.exp(-2 * KAPPA * 0.1e-9)) and decay[0, 0] == pytest.approx(2 * KAPPA)


# ---- constant-current images ----


def test_one_atom_reproduces_the_surface():
    rough = surface(adatom_density=5e16, adatom_height=0.1e-9, cluster_density=5e15, cluster_height=0.4e-9, cluster_radius=0.4e-9,
                    island_density=1e15, island_radius=2e-9, step_height=STEP, terrace_width=15e-9, meander=1e-9, direction=0.7)  # fmt: skip
    known = stm_surfaces.heights(rough, 7, (0, 0), 10e-9 / 64, (64, 64), point_width(BIAS, CURRENT))
    assert np.ptp(known) > 0.2e-9 and np.abs(image(ground=rough)[0] - known).max() < 1e-13


def test_ten_times_the_current_brings_the_tip_closer():
    there, here = image(), image(current=10 * CURRENT, reference_current=CURRENT)
    assert there[0].mean() - here[0].mean() == pytest.approx(np.log(10) / (2 * KAPPA), rel=1e-4)


def test_two_equal_atoms_show_an_adatom_twice():
    row = image(apex((0.8, 0, 0, 4.5), (-0.8, 0, 0, 4.5)), placed=[BUMP], pixels=65, view=6.5e-9)[0, 32]
    known = np.log((1 + np.exp(2 * KAPPA * 0.1e-9)) / 2) / (2 * KAPPA)
    assert [row[:32].argmax(), 32 + row[32:].argmax()] == [24, 40]  # 1.6 nm apart
    assert row[[24, 40]] - np.median(row) == pytest.approx([known] * 2, rel=0.01)


@pytest.mark.parametrize("retraction", [0.05, 0.1, 0.15])
def test_height_of_a_second_picture(retraction):
    """ln(1 + p (e^(2 kappa h) - 1)) / 2 kappa, p the share of the current that the second atom carries."""
    seen = image(apex((0, 0, 0, 4.5), (1.5, 0, retraction, 4.5)), placed=[BUMP], pixels=65, view=65 * 0.1e-9)[0]
    share = np.exp(-2 * KAPPA * retraction * 1e-9) / (1 + np.exp(-2 * KAPPA * retraction * 1e-9))
    known = np.log1p(share * np.expm1(2 * KAPPA * 0.1e-9)) / (2 * KAPPA)
    assert seen[32, 32 - 15] - np.median(seen) == pytest.approx(known, rel=0.02)


def test_atoms_of_different_barriers_share_the_current():
    """The height solves sum exp(-2 kappa_i (z + h_i)) = 1."""
    seen = image(apex((0, 0, 0, 4.5), (0.5, 0, 0.02, 1.5), (0, 0.7, 0.05, 3.0)))[0]
    decay, retraction = 2 * stm.decay_constant([4.5, 1.5, 3.0]), np.array([0, 0.02e-9, 0.05e-9])
    assert np.exp(-decay * (seen.mean() + retraction)).sum() == pytest.approx(1.0, rel=1e-4)


@pytest.mark.parametrize("direction", [0.0, 1.0, 2.5])
def test_step_height(direction):
    seen = image(ground=surface(step_height=STEP, terrace_width=30e-9, direction=direction), view=60e-9)[0].ravel()
    levels = np.round(seen / STEP)
    terraces = np.abs(seen - levels * STEP) < 1e-12
    assert terraces.mean() > 0.7 and 2 <= len(np.unique(levels[terraces])) <= 5


def test_a_low_barrier_blurs():
    """Width of an adatom: sqrt((r + d) / 2 kappa), Tersoff & Hamann."""
    areas = [
        image(apex((0, 0, 0, phi)), placed=[(0, 0, 0.02e-9, 0)], pixels=128)[0].sum() * (10e-9 / 128) ** 2 / 0.02e-9 / (2 * np.pi)
        for phi in (4.5, 1.5)
    ]
    assert np.sqrt(areas[0]) == pytest.approx(point_width(BIAS, CURRENT), rel=0.01)
    assert areas[1] / areas[0] == pytest.approx(np.sqrt(3), rel=0.01)


def test_adatom_is_as_wide_as_seen_in_experiments():
    assert 0.4e-9 < 2.355 * point_width(BIAS, CURRENT) < 1e-9


@pytest.mark.parametrize("barrier", [4.5, 1.125])
def test_current_noise_becomes_height_noise(barrier):
    seen = image(apex((0, 0, 0, barrier)), noise=(0.05, 0, 0, 1e9))[0]
    assert seen.std() == pytest.approx(0.05 / (2 * stm.decay_constant(barrier)), rel=0.05)


def test_noise_adds_in_quadrature_and_is_new_in_every_lane():
    seen = image(noise=(0.05, 3e-12, 0, 1e9), lanes=2)
    assert seen[0].std() == pytest.approx(np.hypot(0.05 / (2 * KAPPA), 3e-12), rel=0.05)
    assert abs(np.corrcoef(seen[0].ravel(), seen[1].ravel())[0, 1]) < 0.06


@pytest.mark.parametrize(("barrier", "factor"), [(4.5, 1.0), (4.5 / 4, 0.5)])
def test_feedback_follows_a_step_exponentially(barrier, factor):
    """63 % within 1 / 2 pi f; half as fast with half of kappa."""
    seen = image(apex((0, 0, 0, barrier)), placed=[(-0.5e-6 / 64, 0.5e-6 / 64, 5e-9, 1e-12)], noise=(0, 0, 0, 20.0), view=1e-6)[0, 32]
    after = seen[seen.argmax() :] / seen.max()
    pixel_time = 0.1 / 64
    assert after[1] == pytest.approx(np.exp(-2 * np.pi * 20 * factor * pixel_time), rel=0.02)


def test_telegraph_noise():
    loose = np.tile([[[0, 2.0, 0.1e-9]]], (1, 2, 1))
    seen = image(loose=loose, pixels=128)[0] + 0.0
    high = seen > 0.05e-9
    assert np.allclose(seen[high], 0.1e-9, atol=1e-13) and np.abs(seen[~high]).max() < 1e-13 and 0.2 < high.mean() < 0.8
    hops = (np.diff(high.astype(int), axis=1) != 0).sum()
    assert hops == pytest.approx(2.0 * 128 * 0.1, abs=4 * np.sqrt(2.0 * 128 * 0.1))  # half of the time is the way back


def test_a_tip_change_leaves_the_upper_half_as_it_was():
    tips = np.concatenate([ONE[:, :1], apex((0.5, 0, 0, 2.0))[:, 1:]], axis=1)
    seen, whole = image(tips, switch_row=np.array([20]), jump=np.array([0.05e-9]), placed=[BUMP])[0], image(placed=[BUMP])[0]
    assert np.array_equal(seen[:20], whole[:20]) and seen[20:].mean() - whole[20:].mean() == pytest.approx(0.05e-9, rel=0.1)


def test_drift_shears():
    """A bump moves by velocity x time between its first and last line."""
    line = [(0, y, 0.1e-9, 0) for y in np.linspace(-5e-9, 5e-9, 200)]
    seen = image(velocity=np.array([[0.2e-9, 0.0]]), placed=line)[0]
    moved = (seen[60].argmax() - seen[3].argmax()) * 10e-9 / 64
    assert moved == pytest.approx(-0.2e-9 * 57 * 0.2, abs=2 * 10e-9 / 64)


def test_a_lane_is_the_same_in_every_batch():
    tip = apex((0, 0, 0, 4.5), (1.0, 0.3, 0.05, 2.0))
    loose = np.tile([[[0, 1.0, 0.1e-9]]], (6, 2, 1))
    rough = surface(adatom_density=5e16, adatom_height=0.1e-9, step_height=STEP, terrace_width=20e-9)
    batch = image(tip, rough, noise=(0.05, 2e-12, 2e-12, 300), lanes=6, loose=loose)
    for lane in range(6):
        alone = image(tip, rough, noise=(0.05, 2e-12, 2e-12, 300), loose=loose[:1], noise_key=np.array([lane], np.uint64))
        assert np.array_equal(batch[lane], alone[0])


def test_too_large_an_image_is_refused():
    with pytest.raises(ValueError, match="at most 256 pixels"):
        image(pixels=257)


# ---- surfaces ----


def test_density_of_adatoms():
    """Mean height = density x height x 2 pi sigma^2."""
    ground, width = surface(adatom_density=4e16, adatom_height=0.1e-9), 0.3e-9
    seen = np.concatenate([stm_surfaces.heights(ground, key, (1e-7 * key, 0), 0.25e-9, (128, 128), width).ravel() for key in range(8)])
    assert seen.mean() == pytest.approx(4e16 * 0.1e-9 * 2 * np.pi * width**2, rel=0.05)


def test_a_surface_goes_on_where_a_frame_ends():
    ground = surface(adatom_density=4e16, adatom_height=0.1e-9, step_height=STEP, terrace_width=12e-9, meander=1e-9, direction=0.4,
                     island_density=5e14, island_radius=3e-9)  # fmt: skip
    whole = stm_surfaces.heights(ground, 3, (0, 0), 0.2e-9, (64, 128), 0.2e-9)
    half = stm_surfaces.heights(ground, 3, (32 * 0.2e-9, 0), 0.2e-9, (64, 64), 0.2e-9)
    assert np.abs(whole[:, 64:] - half).max() < 1e-13


def test_herringbone_repeats_after_6_3_nm():
    ground = surface(reconstruction=0.02e-9)
    one, other = (stm_surfaces.heights(ground, 3, (x, 0), 0.1e-9, (8, 128), 0.2e-9) for x in (0, 6.3e-9))
    assert np.abs(one - other).max() < 1e-14 and 0.015e-9 < np.ptp(one) < 0.025e-9
    assert np.abs(one - stm_surfaces.heights(ground, 3, (3.15e-9, 0), 0.1e-9, (8, 128), 0.2e-9)).max() > 0.01e-9


def test_islands_are_one_step_deep():
    seen = stm_surfaces.heights(surface(step_height=STEP, island_density=2e15, island_radius=3e-9), 1, (0, 0), 0.5e-9, (256, 256), 0.1e-9)
    assert seen.max() - seen.min() == pytest.approx(STEP, rel=0.01) and 0.01 < np.mean(seen < seen.max() - 0.9 * STEP) < 0.3


# ---- apex ----

MANY = 20_000


def draws(stream: str, lanes: int = MANY) -> np.ndarray:
    return randomness.uniform(np.arange(lanes, dtype=np.uint64), 0, stream, stm_apex.DRAWS)


def tips(double=0.0, blunt=0.0, contaminated=0.0, unstable=0.0, lanes: int = MANY) -> dict:
    state = stm_apex.empty(lanes)
    stm_apex.draw(state, np.ones(lanes, bool), draws("tips", lanes), double, blunt, contaminated, unstable)
    return state


def treated(state: dict, sign: float = 0.0, wrong_sign: float = 0.25, **chances: float) -> dict:
    """A copy after one treatment with the chances given, all others zero."""
    n = len(state["apex"])
    after = {name: array.copy() for name, array in state.items()}
    told = {name: np.full(n, chances.get(name, 0.0)) for name in stm_apex.CHANCES}
    stm_apex.treat(after, np.ones(n, bool), draws("treatment", n), np.full(n, sign), wrong_sign, **told)
    return after


def test_a_tip_without_defects_is_good_and_each_defect_spoils_it():
    assert stm_apex.judged(tips())["good"].all() and stm_apex.judged(tips())["quality"].min() > 0.75
    for defect in ("double", "blunt", "contaminated", "unstable"):
        worse = stm_apex.judged(tips(**{defect: 1.0}))
        assert not worse["good"].any(), defect
        assert worse["quality"].mean() < 0.55


def test_good_is_the_state_without_any_defect():
    judged = stm_apex.judged(tips(0.5, 0.4, 0.45, 0.4))
    assert np.array_equal(judged["good"], judged["state"] == 0) or (judged["good"] != (judged["state"] == 0)).mean() < 1e-3
    assert judged["state"].min() == 0 and judged["state"].max() < stm_apex.STATES


def test_ghost_of_two_equal_atoms_is_one_and_of_a_lone_one_zero():
    state = stm_apex.empty(3)
    state["apex"][:, 1, 2] = 0.0
    state["apex"][1:, 2] = [1e-9, 0, 0.0, 4.5]
    state["apex"][2, 2, 0] = 0.1e-9  # closer than an adatom is wide: one picture
    judged = stm_apex.judged(state)
    assert judged["ghost"] == pytest.approx([0, 1, 0], abs=1e-6) and judged["barrier"] == pytest.approx([4.5] * 3)
    assert judged["good"].tolist() == [True, False, True]


def test_an_adsorbate_lowers_the_apparent_barrier():
    barrier = stm_apex.judged(tips(contaminated=1.0))["barrier"]
    assert barrier.max() < stm_apex.BARRIER_LIMIT and stm_apex.judged(tips())["barrier"].min() > 4


def test_start_defects_come_as_often_as_asked():
    state = stm_apex.judged(tips(0.5, 0.4, 0.45, 0.4))["state"]
    seen = [np.mean(state % 2), np.mean(state // 2 % 2), np.mean(state // 4 % 3 > 0), np.mean(state >= 12)]
    assert seen == pytest.approx([0.5, 0.4, 0.45, 0.4], abs=0.015)


@pytest.mark.parametrize("chance", [0.1, 0.6])
def test_outcomes_come_as_often_as_the_configuration_says(chance):
    dirty, good, moving = tips(contaminated=1.0), tips(), tips(unstable=1.0)
    tolerance = 4 * np.sqrt(chance * (1 - chance) / MANY)
    assert np.mean(treated(dirty, clean=chance)["polarity"] == 0) == pytest.approx(chance, abs=tolerance)
    assert np.mean(treated(moving, settle=chance)["loose"][:, 1] == 0) == pytest.approx(chance, abs=tolerance)
    assert np.mean(treated(good, pickup=chance)["polarity"] != 0) == pytest.approx(chance, abs=tolerance)
    assert np.mean(treated(good, loosen=chance)["loose"][:, 1] > 0) == pytest.approx(chance, abs=tolerance)
    front = slice(1, 4)
    assert np.mean((treated(good, reform=chance)["apex"][:, front] != good["apex"][:, front]).any((1, 2))) == pytest.approx(chance, abs=tolerance)
    again = stm_apex.judged(treated(good, renew=1.0, sharp=chance, single=1.0))["state"]
    assert np.mean(again == 0) == pytest.approx(chance, abs=tolerance)


def test_a_pulse_of_the_wrong_sign_cleans_less():
    dirty = tips(contaminated=1.0)
    after = treated(dirty, sign=1.0, wrong_sign=0.2, clean=0.8)["polarity"] == 0
    right = dirty["polarity"] == 1
    assert after[right].mean() == pytest.approx(0.8, abs=0.02) and after[~right].mean() == pytest.approx(0.16, abs=0.02)


def test_a_gentle_dip_cures_a_double_front_but_not_a_blunt_facet():
    double, blunt = tips(double=1.0), tips(blunt=1.0)
    chances = {"reform": 1.0, "single": 1.0}
    assert stm_apex.judged(treated(double, **chances))["good"].mean() > 0.95 and not stm_apex.judged(treated(blunt, **chances))["good"].any()
    assert stm_apex.judged(treated(blunt, renew=1.0, sharp=1.0, single=1.0))["good"].mean() > 0.95


def test_lanes_that_are_not_meant_stay():
    state = tips(0.5, 0.5, 0.5, 0.5, lanes=50)
    before = {name: array.copy() for name, array in state.items()}
    where = np.arange(50) % 2 == 0
    stm_apex.treat(state, where, draws("x", 50), np.zeros(50), 0.2, **{name: np.ones(50) for name in stm_apex.CHANCES})
    assert all(np.array_equal(state[name][~where], before[name][~where]) for name in state)
    assert not np.array_equal(state["apex"][where], before["apex"][where])
