"""Knock-on kinematics and cross-sections against closed forms and independently computed numbers."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import constants
from scipy.optimize import brentq

from probegym.physics import beam_rates, knock_on
from probegym.physics.knock_on import BARN, MASSES
from probegym.physics.optics import ELECTRON_REST_ENERGY

CARBON = MASSES["12C"]
THRESHOLD, SQUARE_VELOCITY = 21.14, 3.17e5  # eV, m^2/s^2: a pair


@pytest.mark.parametrize(
    ("nucleus", "values"),
    [
        ("12C", {60: 11.62, 80: 15.77, 100: 20.07, 120: 24.52, 200: 43.7, 300: 71.0}), ("S", {60: 4.36, 80: 5.92, 100: 7.53}),
        ("Si", {60: 4.98, 80: 6.77, 100: 8.61}), ("B", {60: 12.66, 80: 17.19}), ("N", {60: 9.95, 80: 13.52}),
    ],
)  # fmt: skip
def test_largest_transfers(nucleus, values):
    for kilovolts, known in values.items():
        assert knock_on.largest_transfer(kilovolts * 1e3, MASSES[nucleus]) == pytest.approx(known, rel=1e-3)


@pytest.mark.parametrize("energy", [60e3, 100e3, 300e3])
def test_largest_transfer_is_that_of_two_relativistic_particles(energy):
    """T = 2 M E (E + 2 m) / ((m + M)^2 + 2 M E) in units of energy."""
    m, mass = ELECTRON_REST_ENERGY, CARBON * constants.c**2 / constants.e
    exact = 2 * mass * energy * (energy + 2 * m) / ((m + mass) ** 2 + 2 * mass * energy)
    assert knock_on.largest_transfer(energy, CARBON) == pytest.approx(exact, rel=2e-4)


def test_a_nucleus_that_already_moves_receives_its_momentum_on_top():
    energy, velocity = 80e3, np.array([-500.0, 0.0, 500.0])
    momentum = np.sqrt(2 * CARBON * knock_on.largest_transfer(energy, CARBON) * constants.e)
    expected = (momentum + CARBON * velocity) ** 2 / (2 * CARBON) / constants.e
    assert knock_on.largest_transfer(energy, CARBON, velocity) == pytest.approx(expected, rel=1e-5)


def test_static_onset():
    onset = brentq(lambda energy: float(knock_on.largest_transfer(energy, CARBON)) - THRESHOLD, 50e3, 200e3)
    assert onset == pytest.approx(104.9e3, rel=1e-3)
    assert knock_on.cross_section(onset * 0.999, 6, knock_on.largest_transfer(onset * 0.999, CARBON), THRESHOLD) == 0
    assert knock_on.cross_section(onset * 1.001, 6, knock_on.largest_transfer(onset * 1.001, CARBON), THRESHOLD) > 0


@pytest.mark.parametrize(("energy", "barns"), [(120e3, 5.43), (200e3, 14.5), (300e3, 16.4)])
def test_static_cross_sections(energy, barns):
    assert knock_on.cross_section(energy, 6, knock_on.largest_transfer(energy, CARBON), THRESHOLD) / BARN == pytest.approx(barns, rel=0.01)


@pytest.mark.parametrize(("energy", "barns"), [(80e3, 4.1e-6), (85e3, 2.3e-4), (90e3, 5.4e-3), (95e3, 6.0e-2), (100e3, 0.345), (110e3, 2.48)])
def test_vibrating_carbon(energy, barns):
    assert knock_on.vibrating_cross_section(energy, 6, CARBON, THRESHOLD, SQUARE_VELOCITY) / BARN == pytest.approx(barns, rel=0.1)


@pytest.mark.parametrize(("threshold", "square_velocity", "barns"), [(21.14, 3.2e5, 0.345), (22.0, 3.2e5, 0.090), (23.6, 3.7e5, 0.006), (23.6, 1.1e6, 0.18)])
def test_threshold_and_velocity_are_a_pair(threshold, square_velocity, barns):
    """Other pairs differ by orders of magnitude, or mimic one another."""
    found = knock_on.vibrating_cross_section(100e3, 6, CARBON, threshold, square_velocity) / BARN
    assert found == pytest.approx(barns, rel=0.12)


def test_sixty_kilovolts_never_eject_carbon_from_pristine_graphene():
    assert knock_on.vibrating_cross_section(60e3, 6, CARBON, THRESHOLD, SQUARE_VELOCITY) / BARN < 1e-12


@pytest.mark.parametrize(("square_velocity", "barns"), [(3.17e5, 4.9e-3), (4e5, 1.6e-2), (5e5, 4.3e-2)])
def test_bond_inversion(square_velocity, barns):
    assert knock_on.vibrating_cross_section(60e3, 6, CARBON, 14.6, square_velocity) / BARN == pytest.approx(barns, rel=0.1)


@pytest.mark.parametrize(("width", "barns"), [(0.84e-10, 0.06), (1.1e-10, 0.10)])
def test_the_published_prior_as_a_cross_section(width, barns):
    """Its largest rate over the peak current density of 50 pA in a Gaussian probe."""
    density = 50e-12 / constants.e / (2 * np.pi * beam_rates.gaussian_variance(width))
    assert beam_rates.HUMAN_PRIOR[0] / density / BARN == pytest.approx(barns, rel=0.05)


@pytest.mark.parametrize(("kilovolts", "transfer"), [(160, 14.5), (200, 18.7)])
def test_silicon_struck_in_silicon(kilovolts, transfer):
    assert knock_on.largest_transfer(kilovolts * 1e3, MASSES["Si"]) == pytest.approx(transfer, rel=0.01)


def test_vibrations_fade_into_the_static_lattice():
    static = knock_on.cross_section(200e3, 6, knock_on.largest_transfer(200e3, CARBON), THRESHOLD)
    assert knock_on.vibrating_cross_section(200e3, 6, CARBON, THRESHOLD, 1e-3) == pytest.approx(static, rel=1e-6)
    heavier = knock_on.vibrating_cross_section(95e3, 6, MASSES["13C"], THRESHOLD, 2.91e5)
    assert heavier < 0.2 * knock_on.vibrating_cross_section(95e3, 6, CARBON, THRESHOLD, SQUARE_VELOCITY)  # the isotope effect


def test_excitations_lower_the_threshold():
    plain = knock_on.vibrating_cross_section(60e3, 16, MASSES["S"], 6.9, 2e5)
    lowered = knock_on.vibrating_cross_section(60e3, 16, MASSES["S"], 6.9 - 3.0, 2e5)
    mixed = knock_on.assisted_cross_section(60e3, 16, MASSES["S"], 6.9, 2e5, [(0.01, 3.0)])
    assert mixed == pytest.approx(0.99 * plain + 0.01 * lowered, rel=1e-9)
    assert mixed > 10 * plain  # far below the elastic onset the excited few make nearly all events
    assert knock_on.assisted_cross_section(60e3, 16, MASSES["S"], 6.9, 2e5, []) == pytest.approx(plain, rel=1e-12)
    fast = [knock_on.assisted_cross_section(120e3, 16, MASSES["S"], 6.9, 2e5, table) for table in ([(0.01, 3.0)], [])]
    assert fast[0] == pytest.approx(fast[1], rel=0.05)  # elastic events dominate above 80 kV


@pytest.mark.parametrize("table", [[(0.7, 1.0), (0.4, 1.0)], [(-0.1, 1.0)], [(0.1, 7.0)]])
def test_impossible_excitations_are_refused(table):
    with pytest.raises(ValueError, match=r"probabilities|leaves nothing"):
        knock_on.assisted_cross_section(60e3, 16, MASSES["S"], 6.9, 2e5, table)


def isotropic(threshold: float):
    return lambda direction: np.full(direction.shape[:-1], threshold)


def test_with_one_threshold_for_all_directions_the_directed_form_is_the_plain_one():
    static = knock_on.cross_section(200e3, 6, knock_on.largest_transfer(200e3, CARBON), THRESHOLD)
    assert knock_on.directed_cross_section(200e3, 6, CARBON, isotropic(THRESHOLD), (1e-9, 1e-9, 1e-9), nodes=1) == pytest.approx(static, rel=0.01)
    plain = knock_on.vibrating_cross_section(100e3, 6, CARBON, THRESHOLD, SQUARE_VELOCITY)
    found = knock_on.directed_cross_section(100e3, 6, CARBON, isotropic(THRESHOLD), (1e-9, 1e-9, SQUARE_VELOCITY), nodes=1)
    assert found == pytest.approx(plain, rel=0.05)


def test_emission_into_a_cone_needs_the_transfers_that_go_there():
    """Static lattice: recoil within cos > c only for T / E_max > c^2, so the cone acts as a higher threshold."""
    cone = 0.9

    def threshold(direction):
        return np.where(direction[..., 2] > cone, 10.0, np.inf)

    head_on = float(knock_on.largest_transfer(100e3, CARBON))
    known = knock_on.cross_section(100e3, 6, head_on, cone**2 * head_on)
    assert knock_on.directed_cross_section(100e3, 6, CARBON, threshold, (1e-9, 1e-9, 1e-9), nodes=1) == pytest.approx(known, rel=0.03)


def test_vibration_in_the_plane_hardly_matters_below_the_onset():
    """What adds to the push is the velocity along it."""
    along = knock_on.directed_cross_section(95e3, 6, CARBON, isotropic(THRESHOLD), (1e-9, 1e-9, SQUARE_VELOCITY), nodes=1)
    both = knock_on.directed_cross_section(95e3, 6, CARBON, isotropic(THRESHOLD), (SQUARE_VELOCITY, SQUARE_VELOCITY, SQUARE_VELOCITY), nodes=5)
    assert along < both < 2.5 * along


@pytest.mark.parametrize("impossible", [
    lambda: knock_on.largest_transfer(-60e3, CARBON),
    lambda: knock_on.largest_transfer(60e3, -CARBON),
    lambda: knock_on.cross_section(60e3, 6, 11.6, [5.0, 0.0]),
    lambda: knock_on.cross_section(60e3, 6, 11.6, -5.0),
    lambda: knock_on.cross_section(0.0, 6, 11.6, 5.0),
    lambda: knock_on.vibrating_cross_section(60e3, 6, CARBON, 15.0, -3e5),
    lambda: knock_on.vibrating_cross_section(60e3, 6, CARBON, 0.0, 3e5),
])  # fmt: skip
def test_what_no_nucleus_can_have_is_refused(impossible):
    with pytest.raises(ValueError, match=r"must be above 0|must not be below 0"):
        impossible()
