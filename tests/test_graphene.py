"""The lattice and its events against exact Markov chains, closed forms and what must be conserved."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from scipy.linalg import expm

from probegym.physics import beam_rates, graphene
from probegym.physics.beam_rates import BOND, HUMAN_PRIOR
from probegym.physics.graphene import EVENTS, RATES
from probegym.scenarios.distributions import Distribution
from tests.graphene_reference import inversion_rates

NO_PROBE = np.zeros((1, 1, 1), np.float32)
WIDTH = 0.84e-10
VARIANCE = beam_rates.gaussian_variance(WIDTH)


def sheets(lanes: int = 1, silicon: int = 1, turn: float = 0.3, **rates):
    """Sheets with the published prior; silicon k on site (3 k, 0, 0), which for k = 0 is at (0, 0)."""
    s = graphene.empty(lanes, silicon, 1)
    s["frame"][:, :2] = np.cos(turn), np.sin(turn)
    s["mixture"][:, 0] = HUMAN_PRIOR
    for name, value in ({"variance": VARIANCE, "radius": 3e-10} | rates).items():
        s["rates"][:, RATES.index(name)] = value
    s["silicon"][:] = [[3 * k, 0, 0, 1] for k in range(silicon)]
    return s


def expose(s, place, seconds: float, key: int = 0, probes=NO_PROBE, field=(0.0, 0.0, 0.0), velocity=(0.0, 0.0)):
    lanes = len(s["frame"])
    beam = np.zeros((lanes, 8))
    beam[:, :2], beam[:, 2:4], beam[:, 4], beam[:, 5:] = place, velocity, seconds, field
    graphene.expose(s, probes, beam, np.arange(lanes, dtype=np.uint64) + np.uint64(key))
    return s["events"][:, :].sum(0)


def neighbours(s, lane: int = 0, atom: int = 0) -> np.ndarray:
    return graphene.survey(s)["neighbours"][lane, atom]


def count(events, name: str) -> int:
    return int(events[EVENTS.index(name)])


def binomial(found: float, chance: float, n: int) -> None:
    assert found / n == pytest.approx(chance, abs=4.5 * np.sqrt(chance * (1 - chance) / n) + 1e-9)


# ---- the lattice ----


@pytest.mark.parametrize("site", [(0, 0, 0), (4, -7, 1), (-12, 3, 0)])
def test_three_neighbours_at_a_bond_and_120_degrees(site):
    s = sheets(turn=1.1)
    s["silicon"][0, 0, :3] = site
    around = neighbours(s)
    assert np.hypot(*around.T) == pytest.approx([BOND] * 3, rel=1e-9)
    angles = np.sort(np.arctan2(around[:, 1], around[:, 0]))
    assert np.diff(angles) == pytest.approx([2 * np.pi / 3] * 2, rel=1e-9)
    assert graphene.survey(s)["position"][0, 0] == pytest.approx(graphene.places(s["frame"][0], np.array([site]))[0], abs=1e-15)


def test_swapping_places_leads_to_the_neighbour_and_back_is_possible():
    s = sheets()
    start, target = graphene.survey(s)["position"][0, 0], neighbours(s)[1]
    expose(s, target, 30.0)
    first = graphene.survey(s)["position"][0, 0]
    lattice = graphene.places(s["frame"][0], np.array([[i, j, t] for i in range(-40, 40) for j in range(-40, 40) for t in (0, 1)]))
    assert np.hypot(*(lattice - first).T).min() < 1e-14 and np.hypot(*(first - start)) > 0.9 * BOND
    assert (np.hypot(*(neighbours(s) + first - start).T) < 1e-14).any() or np.hypot(*(first - start)) > 1.5 * BOND


def test_the_density_of_carbon():
    s = sheets()
    s["silicon"][..., 3] = 0
    half = 5e-9
    assert len(graphene.carbon(s, 0, np.array([1e-9, 2e-9]), half)) == pytest.approx((2 * half) ** 2 / graphene.SITE_AREA, rel=0.01)


# ---- rates ----


@pytest.mark.parametrize("offset", [0.0, 0.5, 0.85, 1.0, 1.4])
def test_the_published_rate(offset):
    s = sheets()
    toward = neighbours(s)
    found = inversion_rates(s, NO_PROBE, offset * toward[:1])[0, 0]
    unit = toward / BOND
    known = np.log(2) / 3 * np.exp(-((offset * unit[0] - 0.85 * unit) ** 2).sum(1) / (2 * 0.1))
    assert found == pytest.approx(known, rel=1e-9)


def test_the_beam_on_a_neighbour_moves_silicon_to_that_neighbour():
    for turn in np.linspace(0, 6, 7):
        s = sheets(turn=turn)
        for m, place in enumerate(neighbours(s)):
            rates = inversion_rates(s, NO_PROBE, place[None])[0, 0]
            assert rates.argmax() == m and rates[m] > 5 * np.delete(rates, m).max()


def test_the_simple_rate():
    s = sheets(kind=1, simple=1.0)
    beam = np.array([[0.3e-10, -0.7e-10]])
    distance = ((beam - neighbours(s)) ** 2).sum(1) / BOND**2
    assert inversion_rates(s, NO_PROBE, beam)[0, 0] == pytest.approx(1 / (1 + 16 * distance), rel=1e-9)


def test_a_cross_section_times_the_current_density_at_the_neighbour():
    sigma, current = 5e-30, 50e-12
    s = sheets(kind=2, inversion=sigma * beam_rates.flux(current))
    rates = inversion_rates(s, NO_PROBE, neighbours(s)[:1])[0, 0]
    assert rates[0] == pytest.approx(sigma * current / 1.602176634e-19 * 0.8825 / WIDTH**2, rel=1e-3)  # the peak of a Gaussian probe
    assert rates[1] == pytest.approx(rates[0] * np.exp(-0.5 * 3 * BOND**2 / VARIANCE), rel=1e-6)


def test_the_rate_follows_a_probe_that_is_not_round():
    probe = beam_rates.current_density(60e3, 0.03, ("C10", "C12a"), np.array([[0.0, 0.0], [4e-9, 6e-9]]))
    s = sheets(kind=2, variance=0.0, inversion=1e-20)
    s["optics"][:] = 1
    aside = np.array([[0.35e-10, 0.15e-10]])
    found = inversion_rates(s, probe, neighbours(s)[:1] - aside)[0, 0, 0]
    axis = (np.arange(beam_rates.PIXELS) - beam_rates.PIXELS // 2) * beam_rates.PIXEL
    i, j = (np.abs(axis - v).argmin() for v in aside[0])
    assert found == pytest.approx(1e-20 * probe[1, i - 1 : i + 2, j - 1 : j + 2].mean(), rel=0.1)
    swapped = inversion_rates(s, probe, neighbours(s)[:1] - aside[:, ::-1])[0, 0, 0]
    assert abs(found - swapped) > 0.05 * found


# ---- events ----


def test_waiting_times_and_places_follow_the_markov_chain():
    """Two seconds of a beam on one place: the distribution over sites is that of the chain's generator, several jumps and all."""
    n, seconds = 20_000, 6.0
    s = sheets(n)
    beam = 0.85 * neighbours(s)[0]
    one = sheets()
    known = {(0, 0, 0): 0}
    queue, rows = [(0, 0, 0)], []
    while queue:
        site = queue.pop()
        one["silicon"][0, 0] = [*site, 1]
        here, around = graphene.survey(one)["position"][0, 0], neighbours(one)
        if np.hypot(*here) > 5 * BOND:
            continue
        rates = inversion_rates(one, NO_PROBE, beam[None])[0, 0]
        step = 1 if site[2] else -1
        nexts = [(site[0], site[1], 1 - site[2]), (site[0] + step, site[1], 1 - site[2]), (site[0], site[1] + step, 1 - site[2])]
        for other, rate in zip(nexts, rates, strict=True):
            if other not in known:
                known[other] = len(known)
                queue.append(other)
            rows.append((known[site], known[other], rate))
        assert np.hypot(*(around.T)).max() < 1.1 * BOND
    generator = np.zeros((len(known), len(known)))
    for a, b, rate in rows:
        generator[a, b] += rate
        generator[a, a] -= rate
    expected = expm(generator * seconds)[0]
    expose(s, beam, seconds)
    found = np.zeros(len(known))
    for site in map(tuple, s["silicon"][:, 0, :3]):
        found[known[site]] += 1
    likely = expected * n > 20
    assert likely.sum() >= 3
    chi2 = ((found - n * expected)[likely] ** 2 / (n * expected[likely])).sum()
    assert stats.chi2.sf(chi2, likely.sum()) > 1e-4
    assert s["events"][:, 0].max() > 1  # some moved more than once


@pytest.mark.parametrize("seconds", [0.5, 3.0])
def test_the_half_life_of_the_published_prior(seconds):
    n = 20_000
    s = sheets(n)
    expose(s, 0.85 * neighbours(s)[0], seconds)
    total = HUMAN_PRIOR[0] * (1 + 2 * np.exp(-3 * 0.85**2 / 0.2))
    binomial((s["events"][:, 0] == 0).sum(), np.exp(-total * seconds), n)


def test_a_drifting_beam_has_the_mean_rate_of_its_way():
    """Straight through the lobe of a neighbour, in steps of a tenth of an Angstrom."""
    n, seconds = 20_000, 4.0
    s = sheets(n)
    s["rates"][:, RATES.index("kind")], s["rates"][:, RATES.index("inversion")] = 2, 1.5e-21
    toward = neighbours(s)[0]
    way = np.linspace(0.3, 1.5, 400)[:, None] * toward
    one = sheets(1, kind=2, inversion=1.5e-21)
    total = np.mean([inversion_rates(one, NO_PROBE, place[None]).sum() for place in way])
    expose(s, way[0], seconds, velocity=(way[-1] - way[0]) / seconds)
    binomial((s["events"][:, 0] == 0).sum(), np.exp(-total * seconds), n)


def test_zero_seconds_and_a_distant_beam_do_nothing():
    s = sheets(50)
    expose(s, 0.85 * neighbours(s)[0], 0.0)
    expose(s, [2e-9, 0.0], 100.0)
    assert not s["events"].any() and (s["silicon"][:, 0] == [0, 0, 0, 1]).all()


def test_ejection_sums_over_the_sites_under_the_probe():
    n, sigma_flux, seconds = 4000, 1e-20, 0.3
    s = sheets(n, ejection=sigma_flux)
    s["silicon"][..., 3] = 0
    place = np.array([0.2e-10, 0.5e-10])
    sites = graphene.carbon(s, 0, place, 6e-10)
    total = (sigma_flux * np.exp(-0.5 * ((sites - place) ** 2).sum(1) / VARIANCE) / (2 * np.pi * VARIANCE)).sum()
    expose(s, place, seconds)
    binomial((s["events"][:, EVENTS.index("ejections")] > 0).sum(), 1 - np.exp(-total * seconds), n)
    made = s["vacancy"][..., 3].sum(1)
    assert (made == s["events"][:, EVENTS.index("ejections")]).all() and made.max() >= 1


def test_carbon_beside_silicon_is_converted_and_not_ejected():
    s = sheets(500, ejection=1e-17)
    expose(s, neighbours(s)[0], 1.0)
    stayed = s["events"][:, EVENTS.index("inversions")] == 0
    assert s["events"][stayed, EVENTS.index("ejections")].sum() > 50  # of the second neighbours, under the tail of the probe
    assert (graphene.survey(s)["folds"][stayed] == 3).all()


def test_conversion_makes_four_bonds_and_healing_undoes_it():
    s = sheets(200, conversion=1e-18)
    s["mixture"][:] = 0
    expose(s, neighbours(s)[0], 1.0)
    converted = s["events"][:, EVENTS.index("conversions")]
    assert set(converted) == {1}  # one of the neighbours; a four-fold atom is not converted again
    found = graphene.survey(s)
    assert (found["folds"] == 4).all() and not found["open"].any()
    assert np.hypot(*found["position"][:, 0].T) == pytest.approx(np.full(200, BOND / 2))
    s["mixture"][:, 0] = HUMAN_PRIOR
    s["rates"][:, RATES.index("conversion")] = 0
    expose(s, 0.85 * neighbours(s)[0], 20.0)
    assert not s["events"][:, 0].any()  # and does not swap
    s["rates"][:, RATES.index("healing")] = 0.5
    expose(s, [3e-9, 0.0], 2.0, key=7)
    binomial((graphene.survey(s)["folds"] == 3).sum(), 1 - np.exp(-1.0), 200)


def test_silicon_is_lost_from_under_the_beam():
    s = sheets(500, loss=1e-20)
    s["mixture"][:] = 0
    expose(s, [0.0, 0.0], 0.5)
    lost = s["events"][:, EVENTS.index("losses")]
    binomial(lost.sum(), 1 - np.exp(-0.5e-20 / (2 * np.pi * VARIANCE)), 500)
    assert ((graphene.survey(s)["folds"][:, 0] == 0) == (lost == 1)).all()
    assert (s["vacancy"][..., 3].sum(1) == lost).all()


def test_contamination_holds_silicon_until_the_beam_has_cleaned_it():
    s = sheets(300, cleaning=0.5)
    s["cluster"][:, 0] = [0.0, 0.0, 3e-10]
    beam = 0.85 * neighbours(s)[0]
    assert graphene.survey(s)["covered"].all() and not inversion_rates(s, NO_PROBE, np.tile(beam, (300, 1))).any()
    expose(s, beam, 1.0)
    cleaned = s["events"][:, EVENTS.index("cleanings")] == 1
    binomial(cleaned.sum(), 1 - np.exp(-0.5), 300)
    assert (graphene.survey(s)["covered"][:, 0] == ~cleaned).all() and not s["events"][~cleaned, 0].any()


def test_contamination_arrives_at_its_rate_near_the_beam():
    s = sheets(2000, contamination=0.3)
    expose(s, [2e-9, 0.0], 1.0)
    arrived = s["events"][:, EVENTS.index("contaminations")]
    binomial((arrived > 0).sum(), 1 - np.exp(-0.3), 2000)
    here = s["cluster"][arrived > 0, 0]
    assert (np.hypot(here[:, 0] - 2e-9, here[:, 1]) <= 6e-10).all()


def test_a_scanned_field_uses_the_mean_current_density():
    n, half, sigma_flux = 3000, 1e-9, 2e-19
    s = sheets(n, conversion=sigma_flux, ejection=0.1 * sigma_flux)
    expose(s, [0.0, 0.0], 1.0, field=(half, half, 0.02))
    rates = {"inversions": 0.06, "conversions": 3 * sigma_flux / (4 * half**2)}
    total = sum(rates.values())
    for name, rate in rates.items():  # after a conversion there is no inversion, and hardly a conversion after few inversions
        happened = (s["events"][:, EVENTS.index(name)] > 0).mean()
        assert happened == pytest.approx(rate / total * (1 - np.exp(-total)), abs=0.02)
    assert s["events"][:, EVENTS.index("ejections")].mean() == pytest.approx(0.1 * sigma_flux / graphene.SITE_AREA, rel=0.15)
    elsewhere = sheets(n, conversion=sigma_flux)
    expose(elsewhere, [5e-9, 0.0], 1.0, field=(half, half, 0.02))
    assert not elsewhere["events"].any()


def test_silicon_atoms_never_share_a_site_and_none_vanishes():
    s = graphene.empty(400, 8, 1)
    s["frame"][:, 0] = 1.0
    s["mixture"][:, 0] = [5.0, 0.85, 0.0, 20.0]
    s["rates"][:, RATES.index("variance")] = VARIANCE
    s["silicon"][:] = graphene.populate(s["frame"], np.arange(400, dtype=np.uint64), 8e-10, 2e-10, 8)
    expose(s, [0.0, 0.0], 3.0)
    assert s["events"][:, 0].min() > 5
    for sites in s["silicon"]:
        assert len({tuple(site) for site in sites[:, :3]}) == 8 and sites[:, 3].all()


def test_silicon_starts_apart_and_within_reach():
    frame = np.tile([1.0, 0.0, 0.4e-10, 0.1e-10], (300, 1))
    silicon = graphene.populate(frame, np.arange(300, dtype=np.uint64), 1e-9, 5e-10, 4)
    for row in silicon:
        at = graphene.places(frame[0], row)
        gaps = np.hypot(*(at[:, None] - at[None]).transpose(2, 0, 1))[np.triu_indices(4, 1)]
        assert gaps.min() >= 5e-10 and np.hypot(*at.T).max() < 1e-9 + BOND
    with pytest.raises(ValueError, match="no room"):
        graphene.populate(frame[:1], np.zeros(1, np.uint64), 3e-10, 5e-10, 8)


def test_a_sheet_holds_as_many_vacancies_as_it_says():
    s = sheets(1, ejection=1e-18)
    expose(s, [0.0, 0.0], 100.0)
    assert s["vacancy"][..., 3].sum() <= graphene.VACANCIES
    for k in range(40):
        expose(s, [1e-9 * (k % 7), 1e-9 * (k // 7)], 1.0, key=k)
    assert s["vacancy"][..., 3].sum() == graphene.VACANCIES == s["events"][0, EVENTS.index("ejections")]


def test_a_lane_is_the_same_alone_and_in_a_batch():
    n = 4200  # more than two tiles
    rates = {"conversion": 1e-22, "ejection": 1e-22, "healing": 0.1, "contamination": 0.05, "cleaning": 0.1}
    whole = sheets(n, **rates)
    beam = np.zeros((n, 8))
    beam[:, :2], beam[:, 4] = 0.85 * neighbours(whole)[0], 5.0
    keys = np.arange(n, dtype=np.uint64) + np.uint64(99)
    graphene.expose(whole, NO_PROBE, beam, keys)
    assert len({tuple(row) for row in whole["events"]}) > 3
    for lane in (0, 2600, 4199):
        one = sheets(1, **rates)
        graphene.expose(one, NO_PROBE, beam[lane : lane + 1], keys[lane : lane + 1])
        assert all(np.array_equal(one[name][0], whole[name][lane]) for name in one)


# ---- mixtures ----


def drawn(lanes: int, **changes):
    fields = {"more": 2.0, "along": Distribution(uniform=(-2.0, 3.0)), "across": Distribution(uniform=(-2.0, 3.0)), "variance": Distribution(uniform=(0.1, 5.0))}
    return beam_rates.draw_mixture(np.arange(lanes, dtype=np.uint64), *(fields | changes).values(), np.linspace(0.01, 1, lanes))


def test_random_mixtures_are_as_published():
    mixture = drawn(4000)
    used = mixture[..., 0] > 0
    number = used.sum(1)
    assert number.min() == 1 and number.mean() == pytest.approx(3.0, abs=0.1)
    for k, (low, high) in ((1, (-2, 3)), (2, (-2, 3)), (3, (0.1, 5))):
        values = mixture[..., k][used]
        assert low <= values.min() and values.max() <= high and values.mean() == pytest.approx((low + high) / 2, abs=0.1)
    axis = np.linspace(-3, 4, 71)
    along, across = (g.reshape(1, -1) for g in np.meshgrid(axis, axis, indexing="ij"))
    most = beam_rates.mixture_rates(mixture[:200], along, across).max(1)
    assert most == pytest.approx(np.linspace(0.01, 1, 4000)[:200], rel=0.03)


def test_the_gaussians_of_a_mixture_have_equal_weight():
    """As normalised densities: a wide one is as much lower as its area is larger."""
    mixture = drawn(500)
    height, variance = mixture[..., 0], mixture[..., 3]
    weight, used = height * variance, height > 0
    assert (used.sum(1) > 1).sum() > 200 and np.ptp(variance[used]) > 4
    np.testing.assert_allclose(weight[used], np.broadcast_to(weight[:, :1], weight.shape)[used], rtol=1e-9)


def test_lobes_are_the_rates_on_their_grid():
    mixture = drawn(5)
    lobes, axis = beam_rates.lobes(mixture), beam_rates.LOBE_AXIS
    for a, c in ((16, 16), (24, 16), (3, 30)):
        assert lobes[:, a, c] == pytest.approx(beam_rates.mixture_rates(mixture, axis[a : a + 1], axis[c : c + 1])[:, 0], rel=1e-12)
    human = beam_rates.lobes(np.array([[HUMAN_PRIOR]]))[0]
    assert np.unravel_index(human.argmax(), human.shape) == (23, 16)  # 7/8 bond towards the neighbour
    s = graphene.empty(1, 1, 8)
    s["frame"][0, 0], s["mixture"][0], s["silicon"][0, 0, 3] = 1.0, mixture[2], 1
    along = neighbours(s)[1] / BOND
    left = np.array([-along[1], along[0]])
    beam = BOND * (axis[20] * along + axis[10] * left)
    assert inversion_rates(s, NO_PROBE, beam[None])[0, 0, 1] == pytest.approx(lobes[2, 20, 10], rel=1e-9)
