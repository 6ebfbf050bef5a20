"""The force between tip and sample: limits, continuity, dissipation, the capillary neck."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import constants

from probegym.errors import ProbeGymError
from probegym.physics.tip_forces import CONTACT, Interaction, force

NM = 1e-9
PLAIN = Interaction(10 * NM, 6.4e-20, 1.51e9)
EVERYTHING = Interaction(10 * NM, 6.4e-20, 1.51e9, 100.0, 2.0, 5e-9)


def adhesion(radius: float, hamaker: float) -> float:
    """Pull-off force in N, 4 pi R gamma with gamma = H / 24 pi a0^2; radius in m, hamaker in J."""
    return 4 * np.pi * radius * hamaker / (24 * np.pi * CONTACT**2)


def test_adhesion():
    """7.84 nN for 6.4e-20 J and 20 nm."""
    assert -force(CONTACT, Interaction(20 * NM, 6.4e-20)) == pytest.approx(7.84e-9, rel=1e-3, abs=0)
    assert -force(CONTACT, Interaction(20 * NM, 6.4e-20)) == pytest.approx(adhesion(20 * NM, 6.4e-20), rel=1e-9, abs=0)


@pytest.mark.parametrize("interaction", [PLAIN, EVERYTHING], ids=["plain", "everything"])
def test_the_force_is_continuous_at_contact(interaction):
    gap = CONTACT + np.array([-1e-19, 0, 1e-19])
    assert np.ptp(force(gap, interaction, velocity=-0.05)) < 1e-4 * abs(force(CONTACT, interaction))


def test_far_away_it_is_van_der_waals():
    assert force(5 * NM, PLAIN) == pytest.approx(-6.4e-20 * 10 * NM / (6 * 25e-18), rel=1e-9, abs=0)


def test_the_deepest_attraction_is_the_adhesion():
    gap = np.linspace(0.05, 5, 20001) * NM
    assert force(gap, PLAIN).min() == pytest.approx(-adhesion(10 * NM, 6.4e-20), rel=1e-3)
    assert gap[force(gap, PLAIN).argmin()] == pytest.approx(CONTACT, rel=0.01)


def test_in_contact_it_is_hertz_less_the_adhesion():
    """4/3 E* sqrt(R) d^1.5, which stores 8/15 E* sqrt(R) d^2.5."""
    depth = np.linspace(0, 2, 4001) * NM
    elastic = force(CONTACT - depth, PLAIN) + adhesion(10 * NM, 6.4e-20)
    assert elastic == pytest.approx(4 / 3 * 1.51e9 * np.sqrt(10 * NM) * depth**1.5, abs=1e-17)
    assert np.trapezoid(elastic, depth) == pytest.approx(8 / 15 * 1.51e9 * np.sqrt(10 * NM) * (2 * NM) ** 2.5, rel=1e-4, abs=0)


def test_conservative_forces_do_not_depend_on_velocity():
    gap = np.linspace(-1, 3, 41) * NM
    assert np.array_equal(force(gap, PLAIN, 0.1), force(gap, PLAIN, -0.1))


def test_viscosity_opposes_the_motion_and_acts_in_contact_only():
    lossy = Interaction(10 * NM, 6.4e-20, 1.51e9, viscosity=100.0)
    gap = np.array([-1 * NM, 0.0, CONTACT, 1 * NM])
    drag = [force(gap, lossy, v) - force(gap, lossy, 0.0) for v in (-0.05, 0.05)]
    assert (drag[0][:2] > 0).all() and drag[0] == pytest.approx(-drag[1], abs=1e-20) and not drag[0][2:].any()
    assert drag[0][0] == pytest.approx(100.0 * 0.05 * np.sqrt(10 * NM * (CONTACT + 1 * NM)), rel=1e-9, abs=0)


def test_a_voltage_attracts_with_its_square():
    pulls = [float(force(4 * NM, PLAIN) - force(4 * NM, Interaction(10 * NM, 6.4e-20, 1.51e9, voltage=v))) for v in (1.0, 2.0)]
    assert pulls[0] == pytest.approx(np.pi * constants.epsilon_0 * 10 / 4, rel=1e-6, abs=0) and pulls[1] == pytest.approx(4 * pulls[0], rel=1e-9, abs=0)


def test_a_neck_pulls_while_it_is_there():
    wet = Interaction(10 * NM, 6.4e-20, 1.51e9, neck_force=5e-9)
    assert force(1 * NM, wet) - force(1 * NM, wet, neck=True) == pytest.approx(5e-9, rel=1e-9, abs=0)
    assert force(1 * NM, wet) == force(1 * NM, PLAIN)


def test_numbers_and_arrays_broadcast():
    many = Interaction(np.array([5, 10, 20]) * NM, 6.4e-20, 1.51e9)
    gap = np.array([[0.1], [2.0]]) * NM
    each = [[force(g, Interaction(r, 6.4e-20, 1.51e9)) for r in many.radius] for g in gap[:, 0]]
    assert np.array_equal(force(gap, many), np.array(each))


@pytest.mark.parametrize(
    "wrong",
    [
        {"radius": 0.0}, {"radius": -1e-9}, {"radius": np.nan}, {"hamaker": -1e-20}, {"modulus": -1.0}, {"modulus": np.inf}, {"viscosity": -1.0},
        {"voltage": np.nan}, {"neck_force": -1e-9}, {"neck_on": 2e-9}, {"modulus": np.array([1e9, -1e9])},
    ],
    ids=str,
)  # fmt: skip
def test_an_impossible_interaction_is_refused(wrong):
    with pytest.raises(ProbeGymError, match=r"^interaction[^\n]*$"):
        Interaction(**({"radius": 1e-8} | wrong))
