"""Ising lattices: every dynamics against exact distributions, exact results against each other and published numbers, bad input."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from probegym.errors import ProbeGymError
from probegym.physics import ising, ising_exact
from tests.ising_reference import all_states, small_torus, weights

# ---- exact results ----

ONSAGER = {1.5: (0.98650, -1.95112), 2.0: (0.911319, -1.745565), 2.2: (0.784755, -1.546489), 2.5: (0, -1.106079), 3.0: (0, -0.817310), 4.0: (0, -0.557272)}


@pytest.mark.parametrize("temperature", ONSAGER)
def test_onsager(temperature):
    m, u = ONSAGER[temperature]
    assert float(ising_exact.magnetisation(temperature)) == pytest.approx(m, abs=5e-6)
    assert float(ising_exact.energy(temperature)) == pytest.approx(u, abs=5e-6)


def test_the_critical_point():
    assert ising_exact.CRITICAL_TEMPERATURE == pytest.approx(2.269185, abs=1e-6)
    assert float(ising_exact.energy(ising_exact.CRITICAL_TEMPERATURE)) == pytest.approx(-np.sqrt(2), abs=1e-6)


def test_a_torus_of_four_by_four():
    energy, magnetisation, heat = small_torus(4, 4, 1.5)
    assert (energy, magnetisation, heat) == pytest.approx((-1.950643, 0.986173, 0.20035), abs=1e-5)


def test_the_transfer_matrix_agrees_with_enumeration_and_tends_to_onsager():
    for temperature in (1.5, 2.4, 4.0):
        assert ising_exact.torus_energy(4, 4, temperature) == pytest.approx(small_torus(4, 4, temperature)[0], abs=1e-6)
        assert ising_exact.torus_energy(400, 10, 4.0) == pytest.approx(float(ising_exact.energy(4.0)), abs=1e-4)
    s = all_states(3, 4).astype(float)
    weight = np.exp(0.3 * (s * (np.roll(s, 1, 1) + np.roll(s, 1, 2))).sum((1, 2)) + 0.2 * s.sum((1, 2)))
    assert ising_exact.log_partition(3, 4, 0.3, 0.2) == pytest.approx(np.log(weight.sum()), abs=1e-10)


def test_the_transfer_matrix_has_a_limit():
    with pytest.raises(ProbeGymError, match="columns"):
        ising_exact.log_partition(4, 40, 0.3)


# ---- dynamics against the exact distribution ----

WORLDS = {"ferro": (0.25, 0.1, 0.0), "antiferro": (-0.3, 0.2, 0.0), "diagonal": (0.15, 0.05, 0.1), "frustrated": (0.3, -0.1, -0.1)}
LANES = 12_000


def chi_square(found: np.ndarray, probability: np.ndarray) -> float:
    """P-value of counts against probabilities, rare kinds put together."""
    expected = probability * found.sum()
    rare = expected < 8
    found, expected = (np.append(v[~rare], v[rare].sum()) for v in (found, expected))
    keep = expected > 0
    return float(stats.chisquare(found[keep], expected[keep] * found.sum() / expected[keep].sum()).pvalue)


@pytest.mark.parametrize("rule", ising.RULES)
@pytest.mark.parametrize("world", WORLDS)
def test_a_dynamics_visits_states_as_often_as_boltzmann_says(world, rule):
    coupling, field, diagonal = WORLDS[world]
    states, p = all_states(4, 4), weights(4, 4, coupling, field, diagonal)
    spins = ising.random_spins(np.arange(LANES, dtype=np.uint64), 4, 4, np.zeros(LANES))
    if rule == "kawasaki":
        start = states[np.flatnonzero(states.sum((1, 2)) == 4)[0]]
        spins, p = np.tile(start, (LANES, 1, 1)), np.where(states.sum((1, 2)) == 4, p, 0)
        p /= p.sum()
    ising.evolve(spins, 80, np.arange(LANES) + 10**6, coupling, field, diagonal, rule)
    s = states.astype(np.int64)
    kind = ((s * (np.roll(s, 1, 1) + np.roll(s, 1, 2))).sum((1, 2)) + 32) * 40 + s.sum((1, 2)) + 16  # energy and magnetisation together
    t = spins.astype(np.int64)
    seen = ((t * (np.roll(t, 1, 1) + np.roll(t, 1, 2))).sum((1, 2)) + 32) * 40 + t.sum((1, 2)) + 16
    kinds, number = np.unique(kind, return_inverse=True)
    found = np.array([(seen == value).sum() for value in kinds])
    assert found.sum() == LANES and chi_square(found, np.bincount(number, p)) > 1e-3


@pytest.mark.parametrize("rule", ["heat-bath", "metropolis"])
def test_a_sweep_leaves_the_boltzmann_distribution_as_it_is(rule):
    coupling, field = 0.35, 0.08
    p = weights(4, 4, coupling, field)
    chosen = np.random.default_rng(1).choice(len(p), 60_000, p=p)
    spins = np.ascontiguousarray(all_states(4, 4)[chosen])
    before = spins.copy()
    ising.evolve(spins, 1, np.arange(60_000) + 7, coupling, field, rule=rule)
    assert (before != spins).mean() > 0.05
    mean = p @ all_states(4, 4).sum((1, 2)) / 16
    spread = np.sqrt(p @ (all_states(4, 4).sum((1, 2)) / 16 - mean) ** 2 / 60_000)
    assert abs(ising.magnetisation(spins).mean() - mean) < 4 * spread


def test_lattice_of_32_at_temperature_2():
    spins = np.ones((64, 32, 32), np.int8)
    keys = np.arange(64, dtype=np.uint64)
    ising.evolve(spins, 300, keys, 0.5, rule="metropolis")
    u, m = [], []
    for turn in range(150):
        ising.evolve(spins, 20, keys + np.uint64(1000 * (turn + 1)), 0.5, rule="metropolis")
        u.append(-ising.energy(spins).mean())
        m.append(np.abs(ising.magnetisation(spins)).mean())
    assert np.mean(u) == pytest.approx(-1.745565, abs=0.003) and np.mean(m) == pytest.approx(0.911319, abs=0.003)


def test_exchanges_keep_every_spin_and_flips_do_not():
    spins = ising.random_spins(np.arange(8, dtype=np.uint64), 16, 16, np.full(8, 0.3))
    before = spins.sum((1, 2))
    moved = spins.copy()
    ising.evolve(moved, 30, np.arange(8), 0.4, rule="kawasaki")
    assert np.array_equal(moved.sum((1, 2)), before) and (moved != spins).mean() > 0.1
    ising.evolve(moved, 30, np.arange(8), 0.4, 0.2)
    assert not np.array_equal(moved.sum((1, 2)), before)


def test_domains_grow_faster_without_a_conserved_number():
    """Glauber's grow as t^(1/2), Kawasaki's no faster than t^(1/3): after the same sweeps more order in the first."""
    energies = []
    for rule in ("heat-bath", "kawasaki"):
        spins = ising.random_spins(np.arange(8, dtype=np.uint64), 64, 64, np.zeros(8))
        ising.evolve(spins, 200, np.arange(8), 0.6, rule=rule)
        energies.append(ising.energy(spins).mean())
    assert energies[0] > energies[1] + 0.1


def test_a_field_of_each_row_acts_on_that_row():
    field = np.where(np.arange(16) < 8, 2.0, -2.0)[None].repeat(4, 0)
    for diagonal in (0.0, 0.01):
        spins = ising.random_spins(np.arange(4, dtype=np.uint64), 16, 16, np.zeros(4))
        ising.evolve(spins, 5, np.arange(4), 0.05, field, diagonal)
        assert spins[:, :8].mean() > 0.8 and spins[:, 8:].mean() < -0.8


# ---- batches ----


@pytest.mark.parametrize("rule", ising.RULES)
def test_a_lane_is_the_same_alone_and_in_a_batch(rule):
    keys, sweeps = np.arange(9, dtype=np.uint64) * 77, np.arange(9)
    coupling = np.linspace(0.2, 0.5, 9)
    together = ising.random_spins(keys, 10, 12, np.zeros(9))
    alone = together.copy()
    ising.evolve(together, sweeps, keys, coupling, 0.05, rule=rule)
    for lane in range(9):
        ising.evolve(alone[lane : lane + 1], sweeps[lane], keys[lane], coupling[lane], 0.05, rule=rule)
    assert np.array_equal(alone, together) and not np.array_equal(together[3], together[4])


def test_lanes_have_random_numbers_of_their_own():
    spins = np.ones((400, 16, 16), np.int8)
    ising.evolve(spins, 30, np.arange(400), 0.0)
    flat = spins.reshape(400, -1).astype(float)
    assert abs(flat.mean()) < 0.02
    between = np.corrcoef(flat)[np.triu_indices(400, 1)]
    assert between.std() == pytest.approx(1 / 16, rel=0.05) and abs(between.mean()) < 0.002


def test_no_sweeps_change_nothing():
    spins = ising.random_spins(np.arange(3, dtype=np.uint64), 8, 8, np.zeros(3))
    before = spins.copy()
    for rule in ising.RULES:
        ising.evolve(spins, 0, np.arange(3), 0.4, rule=rule)
    assert np.array_equal(spins, before)


def test_random_spins_have_the_magnetisation_that_was_asked_for():
    for wanted in (-0.6, 0.0, 1.0):
        assert ising.random_spins(np.arange(50, dtype=np.uint64), 32, 32, np.full(50, wanted)).mean() == pytest.approx(wanted, abs=0.02)


WRONG = {
    "odd": (np.ones((1, 5, 6), np.int8), "heat-bath", "even number"), "small": (np.ones((1, 2, 2), np.int8), "heat-bath", "from 4"),
    "type": (np.ones((1, 8, 8)), "heat-bath", "int8"), "rule": (np.ones((1, 8, 8), np.int8), "wolff", "heat-bath, metropolis, kawasaki"),
}  # fmt: skip


@pytest.mark.parametrize("kind", WRONG)
def test_wrong_input_is_named(kind):
    spins, rule, words = WRONG[kind]
    with pytest.raises(ValueError, match=words):
        ising.evolve(spins, 1, np.zeros(1), 0.4, rule=rule)
