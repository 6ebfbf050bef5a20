"""Adatoms under a tip against closed forms, published figures and Langevin dynamics in the same potential."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import constants

from probegym.physics import adatoms, stm

SILVER, COPPER = 0.2889e-9, 0.2556e-9
CONTACT, ATTEMPTS = 0.29e-9, 1e12
FCC, ROW = 0, np.array([1.0, 0.0])  # kind of a hollow; a close-packed direction
HOP = np.array([np.sqrt(3) / 2, 0.5])  # towards a neighbour of an fcc site
DEFAULTS = {
    "spacing": SILVER, "barrier": 0.1, "stacking": 0.003, "temperature": 5.0, "orientation": 0.0, "apparent_height": 0.09e-9, "work_function": 4.5,
    "offset_x": 0.0, "offset_y": 0.0, "depth": 3.0, "range": 1.4e10, "equilibrium": 0.32e-9, "stretch": 0.0, "angle": 0.0,
}  # fmt: skip


def told(lanes: int = 1, **changes) -> np.ndarray:
    """Rows for the kernels: Ag(111) at 5 K under the standard tip unless told otherwise."""
    full = {name: np.broadcast_to(np.asarray(value, float), (lanes,)).copy() for name, value in (DEFAULTS | changes).items()}
    tip = np.stack([full.pop(name) for name in ("offset_x", "offset_y", "depth", "range", "equilibrium", "stretch", "angle")], 1)
    return adatoms.rows(**full, tip=tip, contact=CONTACT, attempt_rate=ATTEMPTS)


def lattice(lanes: int = 1, spacing: float = SILVER, orientation: float = 0.0):
    """Origin, spacing and orientation of lanes."""
    return np.zeros((lanes, 2)), np.full(lanes, spacing), np.full(lanes, orientation)


def drag(conductance, start, end, lanes: int = 1, bias: float = 0.01, speed: float = 5e-9, samples: int = 0, sites=((0, 0, FCC),), noise=(0.0, 0.0),
         pickup: float = 1.0, onset: float = np.inf, efficiency: float = 0.0, keys=None, rest: float = adatoms.REST, threads=None, **changes):  # fmt: skip
    """Adatoms on sites, the tip dragged from start to end (m from the first adatom): sites, status, trace, told, error (m), displacement (m)."""
    where = lattice(lanes, (DEFAULTS | changes)["spacing"], (DEFAULTS | changes)["orientation"])
    first = np.tile(np.array(sites, np.int32), (lanes, 1, 1))
    at = adatoms.site_positions(first, *where)[:, 0]
    start, end = at + np.array(start), at + np.array(end)
    current = np.broadcast_to(np.asarray(conductance, float), (lanes,)) * abs(bias)
    keys = np.arange(lanes, dtype=np.uint64) if keys is None else keys
    after, status, trace, out = adatoms.drag(
        told(lanes, **changes), keys, first, np.zeros(first.shape[:2], np.int32), where[0], start, end, np.full(lanes, bias), current, speed, samples,
        np.tile(noise, (lanes, 1)), np.full(lanes, pickup), np.full(lanes, onset), efficiency, rest=rest, threads=threads,
    )  # fmt: skip
    there = adatoms.site_positions(after, *where)[:, 0]
    return after, status, trace, out, np.hypot(*(there - end).T), there - at


def around(lanes: int, length: float) -> np.ndarray:
    """(lanes, 2) m: as many directions, evenly spread but for none along an axis of the lattice."""
    angle = 2 * np.pi * (np.arange(lanes) + 0.37) / lanes
    return length * np.stack([np.cos(angle), np.sin(angle)], 1)


# ---- tunnelling ----


@pytest.mark.parametrize(("barrier", "factor"), [(4.0, 7.762), (5.0, 9.886)])
def test_an_angstrom_is_a_factor_of_the_current(barrier, factor):
    """Also between the heights at which a tip above an adatom stands."""
    assert np.exp(2e-10 * stm.decay_constant(barrier)) == pytest.approx(factor, rel=1e-3, abs=0)
    far, near = (drag(g, (0, 0), (0, 0), work_function=barrier, depth=0.0, apparent_height=0.5e-9)[3]["height"][0] for g in (1e-6, factor * 1e-6))
    assert far - near == pytest.approx(1e-10, rel=2e-3, abs=0)


def test_conductances_of_manipulation():
    assert 1 / stm.CONDUCTANCE_QUANTUM == pytest.approx(12906, rel=1e-4, abs=0)
    assert np.array([3e-6, 6e-6]) / stm.CONDUCTANCE_QUANTUM == pytest.approx([0.039, 0.077], abs=5e-4)
    assert adatoms.threshold(told())[0] == pytest.approx(np.sqrt(1e-5 * 1e-6), rel=1, abs=0)  # 100 to 1000 kOhm


def test_at_contact_a_quantum_flows_through_an_adatom():
    out = drag(stm.CONDUCTANCE_QUANTUM * 0.5, (0, 0), (0, 0), apparent_height=0.3e-9)[3]
    assert out["height"][0] == pytest.approx(CONTACT + np.log(2) / (2 * stm.decay_constant(4.5)), rel=1e-3, abs=0)


def test_current_is_in_proportion_to_the_bias_and_has_its_sign():
    low, high, back = (drag(4e-6, (0, 0), (1e-9, 0.2e-9), bias=v, samples=256)[2][0] for v in (0.005, 0.015, -0.015))
    assert np.allclose(high, 3 * low, rtol=1e-4) and np.allclose(back, -high, rtol=1e-6)


def test_a_tip_that_stands_still_sees_its_setpoint():
    for at in ((0, 0), (0.2e-9, 0.1e-9), (3e-9, 0)):
        assert drag(0.1e-6, at, at, samples=100)[2][0] == pytest.approx(np.full(100, 1e-9), rel=0.05, abs=0)


def test_noise_of_the_trace():
    quiet = drag(5e-6, (3e-9, 3e-9), (4e-9, 3e-9), samples=4096)[2][0]
    seen = drag(5e-6, (3e-9, 3e-9), (4e-9, 3e-9), samples=4096, noise=(0.02, 0.5e-9), lanes=2)[2] - quiet
    assert seen.std(1) == pytest.approx([np.hypot(0.02 * 50e-9, 0.5e-9)] * 2, rel=0.04, abs=0) and abs(seen.mean()) < 0.05e-9
    assert abs(np.corrcoef(seen)[0, 1]) < 0.05 and abs(np.corrcoef(seen[0, 1:], seen[0, :-1])[0, 1]) < 0.05


# ---- the surface ----


@pytest.mark.parametrize(("spacing", "hop"), [(SILVER, 1.668e-10), (COPPER, 1.476e-10)])
def test_fcc_and_hcp_hollows_lie_a_over_sqrt_3_apart(spacing, hop):
    sites = np.array([[(0, 0, 0), (0, 0, 1), (-1, 0, 1), (0, -1, 1)]])
    at = adatoms.site_positions(sites, *lattice(spacing=spacing, orientation=0.4))[0]
    assert np.hypot(*(at[1:] - at[0]).T) == pytest.approx([hop] * 3, rel=1e-3, abs=0)
    assert adatoms.hop_length(spacing) == pytest.approx(hop, rel=1e-3, abs=0)


def test_a_hollow_is_within_the_radius_of_success_of_every_goal():
    """0.288 nm sqrt 3 / 3 = 0.1663 nm, reached above a surface atom."""
    points = np.random.default_rng(0).uniform(-2e-9, 2e-9, (4, 5000, 2))
    origin, spacing, orientation = lattice(4, 0.288e-9)
    orientation += np.array([0.0, 0.3, 1.0, 2.0])
    points[:, 0] = 0.0
    away = np.hypot(*np.moveaxis(points - adatoms.nearest_site(points, origin, spacing, orientation), -1, 0))
    assert away.max() == pytest.approx(0.1663e-9, abs=1e-13)


def test_nearest_sites_are_the_nearest():
    rng = np.random.default_rng(1)
    points, origin = rng.normal(scale=1e-9, size=(8, 40, 2)), rng.normal(scale=1e-9, size=(8, 2))
    spacing, orientation = np.full(8, SILVER), rng.uniform(-2, 2, 8)
    every = np.array([(i, j, b) for i in range(-30, 31) for j in range(-30, 31) for b in (0, 1)])
    at = adatoms.site_positions(np.tile(every, (8, 1, 1)), origin, spacing, orientation)
    known = np.sqrt(((points[:, :, None] - at[:, None]) ** 2).sum(-1).min(-1))
    found = adatoms.nearest_site(points, origin, spacing, orientation)
    assert np.allclose(np.hypot(*np.moveaxis(points - found, -1, 0)), known, atol=1e-15)


def test_the_surface_has_its_minima_in_the_hollows_and_its_saddles_between_them():
    fcc, hcp = adatoms.site_positions(np.array([[(0, 0, 0), (0, 0, 1)]]), *lattice())[0]
    energy, force = adatoms.landscape(told(depth=0.0), np.array([[fcc, hcp, (fcc + hcp) / 2, (0, 0)]]), np.array([[0, 0, 1e-9]]))
    assert energy[0] == pytest.approx([-0.0015, 0.0015, 0.1, 0.9], abs=1e-9)  # hcp is 3 meV above fcc
    assert np.abs(force[0, [0, 1, 3]]).max() < 1e-16


def test_force_is_the_slope_of_the_energy():
    rng, step = np.random.default_rng(2), 1e-15
    points, tip = rng.uniform(-0.3e-9, 0.3e-9, (1, 50, 2)), np.array([[0.1e-9, 0.05e-9, 0.38e-9]])
    row = told(stretch=0.3, angle=0.7, offset_x=0.03e-9, orientation=0.2)
    force = adatoms.landscape(row, points, tip)[1]
    for axis in (0, 1):
        shift = step * np.eye(2)[axis]
        slope = (adatoms.landscape(row, points + shift, tip)[0] - adatoms.landscape(row, points - shift, tip)[0]) / (2 * step)
        assert np.allclose(force[..., axis], -constants.e * slope, atol=1e-5 * np.abs(force).max())


def lateral_force(barrier: float, spacing: float) -> float:
    """Force in N that pulls an adatom over a sinusoidal barrier (eV), pi E_b / a_hop; spacing a_nn in m."""
    return float(np.pi * barrier * constants.e / adatoms.hop_length(spacing))


def test_steepest_slope_is_nearly_that_of_a_sinusoid():
    along = np.linspace(0, 1, 2001)[:, None] * adatoms.hop_length(SILVER) * HOP
    fcc = adatoms.site_positions(np.array([[(0, 0, 0)]]), *lattice())[0, 0]
    force = adatoms.landscape(told(depth=0.0, stacking=0.0), (fcc + along)[None], np.array([[0, 0, 1e-9]]))[1]
    assert np.abs(force @ HOP).max() == pytest.approx(lateral_force(0.1, SILVER), rel=0.02, abs=0)


@pytest.mark.parametrize(("barrier", "spacing", "newton"), [(4.99e-3, COPPER, 17e-12), (66.85e-3, 0.2775e-9, 210e-12)])
def test_lateral_force_that_moves_an_adatom(barrier, spacing, newton):
    """17 pN for Co on Cu(111), 210 pN for Co on Pt(111), whatever the tip (Ternes et al. 2008, 10.1126/science.1150288)."""
    assert lateral_force(barrier, spacing) == pytest.approx(newton, rel=0.01, abs=0)
    for depth in (1.5, 4.0):  # the weaker tip has to come nearer
        low, high = 0.29e-9, 1.6e-9  # heights; pulled along a hop
        world = {"barrier": barrier, "spacing": spacing, "stacking": 0.0, "temperature": 0.1, "depth": depth, "equilibrium": 0.2e-9}
        lags = np.linspace(0.02e-9, 0.4e-9, 60)
        for _ in range(20):
            height = (low + high) / 2
            tips = np.concatenate([lags[:, None] * HOP, np.full((60, 1), height)], 1)
            freed = adatoms.barriers(told(60, **world), np.zeros(60), tips)[:, 0].min() < 1e-6
            low, high = (height, high) if freed else (low, height)
        bare, there = (adatoms.landscape(told(60, **world | {"depth": d}), np.zeros((60, 1, 2)), tips)[1][:, 0] for d in (0.0, depth))
        assert np.hypot(*(there - bare).T).max() == pytest.approx(newton, rel=0.25, abs=0)


# ---- pulling, sliding, pushing ----


def test_an_adatom_rests_on_hollows_only():
    after, *_ = drag(8e-6, (0, 0), around(64, 1.5e-9), lanes=64)
    assert set(np.unique(after[..., 2])) == {0, 1} and after.dtype == np.int32
    energy, force = adatoms.landscape(told(64, depth=0.0), adatoms.site_positions(after, *lattice(64)), np.tile([0, 0, 1e-9], (64, 1)))
    assert np.abs(energy).max() < 0.002 and np.abs(force).max() < 1e-15


def test_it_follows_above_a_conductance_and_stays_below():
    shares = [(drag(g, (0, 0), around(96, 1.5e-9), lanes=96)[4] < 0.25e-9).mean() for g in (0.5e-6, 1.5e-6, 3e-6, 6e-6, 10e-6)]
    assert shares[0] == 0 and shares[-1] > 0.9 and np.all(np.diff(shares) >= -0.02)


@pytest.mark.parametrize("depth", [2.6, 3.0, 3.8])
def test_threshold_tells_where_it_follows(depth):
    limit = adatoms.threshold(told(depth=depth))[0]
    hard = np.radians(90 + 10)  # midway between two hops is 90 degrees
    end = 1.5e-9 * np.array([np.cos(hard), np.sin(hard)])
    lost, followed = (drag(f * limit, (0, 0), end, lanes=8, depth=depth)[4].mean() for f in (0.6, 1.5))
    assert lost > 1e-9 and followed < 0.25e-9


@pytest.mark.parametrize(("changes", "higher"), [({"depth": 2.4}, True), ({"barrier": 0.06}, False), ({"temperature": 9.0}, False), ({"range": 1.6e10}, True)])
def test_what_moves_the_threshold(changes, higher):
    assert (adatoms.threshold(told(**changes))[0] > adatoms.threshold(told())[0]) is np.bool_(higher)


def test_bias_alone_pulls_nothing():
    ends = [drag(4e-6, (0, 0), around(32, 1.2e-9), lanes=32, bias=v)[5] for v in (0.002, 0.02, 0.2)]
    assert np.array_equal(ends[0], ends[1]) and np.array_equal(ends[0], ends[2])


def test_pulling_makes_a_saw_tooth_of_the_lattice():
    """Slow falls while the adatom lags, a jump up when it follows; along a close-packed row a jump every a / 2, fcc and hcp in turn."""
    *_, trace, out, error, _ = drag(3e-6, (0, 0), 6.05 * SILVER * ROW, samples=8192)
    jumps = np.nonzero(np.diff(np.log(trace[0])) > 0.02)[0] * 6.05 * SILVER / 8191
    assert len(jumps) == out["hops"][0] == 12 and error[0] < 0.2e-9
    assert np.diff(np.log(trace[0])).min() > -0.005
    assert np.diff(jumps[::2]) == pytest.approx([SILVER] * 5, rel=0.02, abs=0) and np.diff(jumps).mean() == pytest.approx(SILVER / 2, rel=0.04, abs=0)


def test_sliding_is_smooth():
    """A strong well takes the adatom along without jumps, and the current hardly changes."""
    def edge(conductance):
        trace = np.log(drag(conductance, (0, 0), 5 * SILVER * ROW, samples=4096)[2][0])
        return np.diff(trace).max(), np.ptp(trace)

    (pulled, deep), (slid, shallow) = edge(3e-6), edge(8e-6)
    assert slid < 0.1 * pulled and shallow < 0.7 * deep


def test_pushing_keeps_the_adatom_ahead():
    """Lowered beside it to where the apex repels, the tip drives the adatom ahead; from farther away it attracts it or does nothing."""
    *_, out, _, moved = drag(30e-6, -0.4e-9 * ROW, 0 * ROW)
    assert out["height"][0] < DEFAULTS["equilibrium"] and moved[0] @ ROW > 0.1e-9
    for conductance in (0.1e-6, 1e-6):
        *_, out, _, moved = drag(conductance, -0.4e-9 * ROW, 0 * ROW)
        assert out["height"][0] > DEFAULTS["equilibrium"] and moved[0] @ ROW <= 0


def test_beside_an_adatom_the_tip_stands_lower():
    above, beside = (drag(1e-6, start, start)[3]["height"][0] for start in ((0, 0), (2e-9, 0)))
    decay = 2 * stm.decay_constant(4.5)  # above the adatom, the surface conducts as well
    assert above - beside == pytest.approx(0.09e-9 + np.log1p(np.exp(-decay * 0.09e-9)) / decay, rel=0.01, abs=0)


def test_offset_of_the_pulling_atom_shifts_the_drag():
    nominal, shifted = (drag(5e-6, start, start + np.array([1.2e-9, 0.3e-9]), samples=64, **tip)
                        for start, tip in ((np.zeros(2), {}), (np.array([-0.08e-9, 0.05e-9]), {"offset_x": 0.08e-9, "offset_y": -0.05e-9})))  # fmt: skip
    assert np.array_equal(nominal[0], shifted[0]) and np.allclose(nominal[2], shifted[2], rtol=1e-4)
    assert not np.array_equal(drag(5e-6, (0, 0), (1.2e-9, 0.3e-9), offset_x=0.25e-9)[2], nominal[2])


def test_an_asymmetric_tip_pulls_differently_across():
    along, across = (adatoms.barriers(told(stretch=0.3, angle=a), np.zeros(1), np.array([[*(0.08e-9 * HOP), 0.42e-9]]))[0, 0]
                     for a in (np.pi / 6, np.pi / 6 + np.pi / 2))  # fmt: skip
    assert abs(along - across) > 0.01


# ---- chance ----


def test_hops_are_as_frequent_as_their_rates():
    """No tip: 3 nu exp(-E / kT) in all, the same to every side, and less from fcc than from hcp."""
    lanes, temperature, rest = 20_000, 46.0, 10e-3
    energy = 0.1 * constants.e / (constants.k * temperature)
    for kind, climb in ((0, 1 + 0.015), (1, 1 - 0.015)):
        after, _, _, out, *_ = drag(1e-6, (0, 0), (0, 0), lanes=lanes, sites=((0, 0, kind),), depth=0.0, temperature=temperature, rest=rest)
        known = 3 * ATTEMPTS * rest * np.exp(-energy * climb)
        still = np.exp(-known)
        assert np.mean(out["hops"] == 0) == pytest.approx(still, abs=4 * np.sqrt(still * (1 - still) / lanes))
        once = after[out["hops"] == 1][:, 0]
        counts = np.unique(once, axis=0, return_counts=True)[1]
        assert len(counts) == 3 and np.abs(counts - counts.mean()).max() < 4 * np.sqrt(counts.mean())


def test_hops_keep_detailed_balance():
    """Under a tip between two sites: barriers there and back differ by the energies of the two places of rest."""
    height, hop = 0.44e-9, adatoms.hop_length(SILVER)
    for share in (0.35, 0.5, 0.6):
        there = adatoms.barriers(told(), np.array([0]), np.array([[*(share * hop * HOP), height]]))[0, 0]
        back = adatoms.barriers(told(), np.array([1]), np.array([[*((share - 1) * hop * HOP), height]]))[0, 0]
        along = np.linspace(-0.1, 1.1, 1201)
        fcc = adatoms.site_positions(np.array([[(0, 0, 0)]]), *lattice())[0, 0]
        line = adatoms.landscape(told(), (fcc + along[:, None] * hop * HOP)[None], np.array([[*(fcc + share * hop * HOP), height]]))[0][0]
        inside = line[1:-1]
        left, right = line[1:-1][(inside < line[:-2]) & (inside < line[2:])]
        summit = inside[(inside > line[:-2]) & (inside > line[2:])][0]
        assert there == pytest.approx(summit - left, abs=2e-4) and back == pytest.approx(summit - right, abs=2e-4)


def test_langevin_dynamics_hops_at_the_rate_of_kramers():
    """At E_b / kT = 6 the free diffusion of the reference is 3 nu a_hop^2 exp(-E_b / kT) / 4, within the order kT / E_b of the theory."""
    lanes, duration = 48, 1e-9
    temperature = 0.1 * constants.e / (6 * constants.k)
    at = adatoms.site_positions(np.zeros((lanes, 1, 3)), *lattice(lanes))[:, 0]
    nowhere = np.zeros((lanes, 2))
    track = adatoms.langevin(told(lanes, depth=0.0, stacking=0.0, temperature=temperature), np.arange(lanes, dtype=np.uint64), at, nowhere, nowhere,
                             np.full(lanes, 1e-9), duration, 301, adatoms.friction(np.full(lanes, 0.1), SILVER), 7e-15)  # fmt: skip
    squared = ((track[:, 20:] - track[:, :-20]) ** 2).sum(-1).mean() - 4 * constants.k * temperature / 15.2  # less the rattle at rest, 15.2 N/m
    known = adatoms.thermal_rate(0.1, temperature) * adatoms.hop_length(SILVER) ** 2 * duration * 20 / 300
    assert squared == pytest.approx(known, rel=0.25, abs=0)


@pytest.mark.parametrize("temperature", [0.0, -5.0, np.nan, [5.0, -5.0]])
def test_a_temperature_that_is_not_above_zero_is_refused(temperature):
    with pytest.raises(ValueError, match="temperature must be above 0 K"):
        adatoms.thermal_rate(0.1, temperature)


def test_hops_agree_with_langevin_dynamics():
    """Drags in many directions at conductances from 2 to 20 uS: where the adatom ends, and the current on the way."""
    lanes, length, speed, samples = 48, 1.2e-9, 3.0, 512
    conductance, end = np.geomspace(2e-6, 20e-6, lanes), around(lanes, length)[np.random.default_rng(3).permutation(lanes)]
    after, _, trace, out, *_ = drag(conductance, (0, 0), end, lanes=lanes, speed=speed, samples=samples, rest=1e-12)
    at = adatoms.site_positions(np.zeros((lanes, 1, 3)), *lattice(lanes))[:, 0]
    damping = adatoms.friction(np.full(lanes, 0.1), SILVER)
    track = adatoms.langevin(told(lanes), np.arange(lanes, dtype=np.uint64), at, at, at + end, out["height"], length / speed, samples, damping, 7e-15)
    same = (adatoms.nearest_sites(track[:, -1:], *lattice(lanes)) == after).all((1, 2))
    assert same.mean() > 0.75
    aside = track - at[:, None] - np.linspace(0, 1, samples)[None, :, None] * end[:, None]
    decay, height = 2 * stm.decay_constant(4.5), out["height"][:, None]
    known = np.exp(-decay * (np.sqrt((aside**2).sum(-1) + height**2) - CONTACT)) + np.exp(-decay * (height + 0.09e-9 - CONTACT))
    log_error = np.log(trace / (0.01 * stm.CONDUCTANCE_QUANTUM * known))
    assert np.sqrt(np.median((log_error**2).mean(1))) < 0.05


def test_electrons_excite_hops_above_the_onset_only():
    hops = [drag(1e-6, (0, 0), (0, 0), lanes=400, bias=v, onset=0.07, efficiency=1e-11)[3]["hops"].mean() for v in (0.069, -0.069, 0.14, -0.14)]
    known = 1e-6 * 0.14 / constants.e * 1e-11 * adatoms.REST  # electrons a second, once a 1e11, for the rest at the start
    assert hops[:2] == [0, 0] and hops[2:] == pytest.approx([known] * 2, abs=4 * np.sqrt(known / 400))


def test_pickup_by_conductance():
    lanes = 2000
    status, out = (drag(10e-6, (0, 0), (0, 0), lanes=lanes, pickup=15e-6)[i] for i in (1, 3))
    share = 1 / (1 + np.exp(-2 * stm.decay_constant(4.5) * 0.09e-9))  # of the adatom in the current
    known = 1 - np.exp(-((share * 10 / 15) ** 4))
    assert np.mean(status == adatoms.GONE) == pytest.approx(known, abs=4 * np.sqrt(known * (1 - known) / lanes))
    assert np.array_equal(out["picked_up"], (status == adatoms.GONE).sum(1))


def test_a_gone_adatom_conducts_nothing():
    where, first = lattice(), np.zeros((1, 1, 3), np.int32)
    at = adatoms.site_positions(first, *where)[:, 0]
    for status, above in ((adatoms.FREE, True), (adatoms.GONE, False)):
        trace = adatoms.drag(told(), np.zeros(1, np.uint64), first, np.full((1, 1), status), where[0], at - 1e-9 * ROW, at + 1e-9 * ROW, np.full(1, 0.01),
                             np.full(1, 1e-8), 5e-9, 128, np.zeros((1, 2)), np.ones(1), np.full(1, np.inf))[2]  # fmt: skip
        assert (trace.max() > 2e-8) is np.bool_(above)


def test_contact_is_told():
    assert drag(35e-6, (0.6e-9, 0), (-0.6e-9, 0))[3]["crashed"][0] == 1 and drag(5e-6, (0, 0), (1e-9, 0))[3]["crashed"][0] == 0


def test_an_adatom_dragged_to_another_sticks():
    after, status, _, out, *_ = drag(6e-6, (0, 0), 5 * SILVER * ROW, sites=((0, 0, FCC), (5, 0, FCC)))
    assert status[0].tolist() == [adatoms.STUCK] * 2 and out["stuck"][0] == 1
    apart = np.hypot(*np.diff(adatoms.site_positions(after, *lattice())[0], axis=0)[0])
    assert apart == pytest.approx(SILVER, rel=1e-6, abs=0)
    assert adatoms.touching(adatoms.site_positions(after, *lattice()), np.array([SILVER]))[0]


def test_adatoms_on_the_way_are_dragged_too():
    """A tip that passes a second one takes it along; far ones stay."""
    *_, moved = drag(6e-6, (2e-9, 0.0), (4e-9, 0.0), sites=((0, 0, FCC), (7, 0, FCC)))
    assert np.array_equal(moved[0], [0, 0])
    after, *_ = drag(6e-6, (2.02e-9, 0.0), (4e-9, 0.0), sites=((0, 0, FCC), (7, 0, FCC)))
    assert after[0, 1, 0] > 11


# ---- batches ----


@pytest.mark.parametrize("threads", [1, 2])
def test_a_lane_is_the_same_alone_and_in_a_batch(threads):
    ends, g = around(37, 1.3e-9), np.geomspace(1e-6, 30e-6, 37)
    sites, options = ((0, 0, FCC), (3, -2, 1)), {"samples": 333, "noise": (0.02, 1e-10), "pickup": 60e-6}
    whole = drag(g, (0, 0), ends, lanes=37, sites=sites, threads=threads, **options)
    for lane in (0, 17, 36):
        alone = drag(g[lane], (0, 0), ends[lane], sites=sites, keys=np.array([lane], np.uint64), **options)
        for one, all_ in zip((*alone[:3], *alone[3].values()), (*whole[:3], *whole[3].values()), strict=True):
            assert np.array_equal(one[0], all_[lane])


def test_limits_of_a_batch():
    with pytest.raises(ValueError, match="32 adatoms"):
        drag(1e-6, (0, 0), (0, 0), sites=[(3 * i, 0, 0) for i in range(33)])
