"""The cantilever's modes against the numbers of the beam equation."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.integrate import quad

from probegym.errors import ProbeGymError
from probegym.physics import cantilever

EXACT = 1e-4
BARE = cantilever.modes(3)


def test_eigenvalues():
    betas = cantilever.eigenvalues(3)
    assert betas == pytest.approx((1.875104, 4.694091, 7.854757), rel=1e-6)
    assert np.cos(betas) * np.cosh(betas) == pytest.approx([-1] * 3, rel=1e-6)


def test_frequencies_of_the_higher_modes():
    assert BARE.frequency == pytest.approx([1, 6.2669, 17.5475], rel=EXACT)


def effective_mass(tip_mass: float) -> float:
    """K / omega_1^2 over the mass of the beam."""
    return 3 / cantilever.eigenvalues(1, tip_mass)[0] ** 4


def test_masses():
    """m_eff = 0.24267 m belongs to the static stiffness, m / 4 to that of a mode."""
    assert effective_mass(0.0) == pytest.approx(0.24267, rel=EXACT)
    assert BARE.mass == pytest.approx([0.25] * 3, rel=1e-8)


def test_stiffness_of_the_modes():
    betas = np.array(cantilever.eigenvalues(3))
    assert BARE.stiffness[0] == pytest.approx(1.0302, rel=EXACT) and BARE.stiffness == pytest.approx(betas**4 / 12, rel=1e-8)


def test_the_thermal_shares_add_up_to_the_static_stiffness():
    """Sum over all modes of 12 / beta^4 is 1: equipartition of the tip's deflection."""
    assert (1 / cantilever.modes(12).stiffness).sum() == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize("tip_mass", [0.0, 0.1, 2.0])
def test_modes_keep_their_frequency_and_are_orthogonal(tip_mass):
    """A mode's stiffness over its mass is its frequency squared; with a tip mass the mass matters in the product too."""
    found, betas = cantilever.modes(3, tip_mass), cantilever.eigenvalues(3, tip_mass)
    assert found.stiffness / found.mass == pytest.approx(np.array(betas) ** 4 / 3)
    for i in range(3):
        for j in range(i):
            overlap = quad(lambda x, a=betas[i], b=betas[j]: cantilever.shape(a, x) * cantilever.shape(b, x), 0, 1)[0] + tip_mass
            assert abs(overlap) < 1e-8


@pytest.mark.parametrize("beta", cantilever.eigenvalues(3))
def test_a_shape_obeys_the_beam_equation_and_its_ends(beta):
    h, x = 1e-3, np.linspace(0.1, 0.9, 5)
    w = [cantilever.shape(beta, x + n * h) for n in range(-2, 3)]
    assert (w[0] - 4 * w[1] + 6 * w[2] - 4 * w[3] + w[4]) / h**4 == pytest.approx(beta**4 * w[2], rel=1e-3, abs=1e-2 * beta**4)
    assert cantilever.shape(beta, 0.0) == pytest.approx(0, abs=1e-12) and cantilever.shape(beta, 1.0) == pytest.approx(1)
    assert (cantilever.shape(beta, 1e-6) / 1e-6) == pytest.approx(0, abs=1e-3)  # clamped
    assert (cantilever.shape(beta, 1 - 2 * h) - 2 * cantilever.shape(beta, 1 - h) + 1) / h**2 == pytest.approx(0, abs=0.01 * beta**3)  # free


def test_a_shaken_clamp_moves_the_first_mode_most():
    """Participation of a uniform acceleration: integral of the shape over that of its square; the sum of products is the mass."""
    assert BARE.base[0] == pytest.approx(1.566, rel=1e-3) and abs(BARE.base[1]) == pytest.approx(0.868, rel=1e-3) and BARE.base[1] < 0
    every = cantilever.modes(14)
    assert (every.base**2 * every.mass).sum() == pytest.approx(1.0, abs=0.03)


def test_a_heavy_tip_is_a_point_mass_on_a_spring():
    heavy = 1e4
    found = cantilever.modes(2, heavy)
    assert found.stiffness[0] == pytest.approx(1.0, rel=1e-3) and found.mass[0] == pytest.approx(heavy, rel=1e-3)
    assert effective_mass(heavy) == pytest.approx(heavy, rel=1e-3) and found.base[0] == pytest.approx(1.0, rel=1e-3)
    assert cantilever.eigenvalues(2, heavy)[1] == pytest.approx(3.9266, rel=1e-4)  # the second mode is clamped and pinned


def test_a_tip_mass_slows_the_first_mode():
    """It adds to the mode's quarter of the beam's mass; k / omega^2 counts with the static stiffness, so 0.9707 of it."""
    assert effective_mass(0.001) == pytest.approx(0.24267 + 0.9707 * 0.001, rel=2e-5)
    assert 0.24267 + 0.0971 < effective_mass(0.1) < 0.24267 + 0.1


@pytest.mark.parametrize(("count", "tip_mass"), [(0, 0.0), (2, -0.1), (2, np.nan), (2, 1e6)])
def test_no_such_beam(count, tip_mass):
    with pytest.raises(ProbeGymError, match=r"^a beam needs [^\n]*$"):
        cantilever.modes(count, tip_mass)
