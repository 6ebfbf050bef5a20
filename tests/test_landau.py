"""Landau's ferroelectric: closed forms against known numbers, and against states that relax on a line."""

from __future__ import annotations

import numpy as np
import pytest

from probegym.physics import landau

SPACING = 0.1
LINE = SPACING * (np.arange(200) - 99.5)


def relaxed(start: np.ndarray, field: float, seconds: float, a: float, b: float, g: float, spacing: float) -> np.ndarray:
    """The state after dP/dt = -dF/dP for so long."""
    p, step = start.astype(float), min(0.3 * spacing**2 / g, 0.05)
    for _ in range(round(seconds / step)):
        p += step * landau.driving_force(p, field, a, b, g, spacing)
    return p


def energy(p: np.ndarray, a: float, b: float, g: float) -> float:
    """F of a line without a field, less that of a domain; by differences of its own."""
    bulk = -(a**2) / (4 * b)
    density = -a / 2 * p**2 + b / 4 * p**4 + g / 2 * np.gradient(p, SPACING) ** 2 - bulk
    return float(density.sum() * SPACING)


def test_numbers_of_the_unit_ferroelectric():
    assert landau.spontaneous_polarisation(1, 1) == pytest.approx(1, rel=0.01)
    assert landau.wall_width(1, 1) == pytest.approx(1.41421, rel=1e-5)
    assert landau.wall_energy(1, 1, 1) == pytest.approx(0.942809, rel=1e-5)
    assert landau.coercive_field(1, 1) == pytest.approx(0.384900, rel=1e-5)


@pytest.mark.parametrize(("a", "b", "g"), [(1.0, 1.0, 1.0), (2.0, 0.5, 1.0), (1.5, 1.0, 0.5)])
def test_a_step_relaxes_to_the_wall(a, b, g):
    wall = relaxed(np.sign(LINE), 0.0, 6.0, a, b, g, SPACING)
    most, width = landau.spontaneous_polarisation(a, b), landau.wall_width(a, g)
    assert np.abs(wall - most * np.tanh(LINE / width)).max() < 0.01 * most
    assert energy(wall, a, b, g) == pytest.approx(landau.wall_energy(a, b, g), rel=0.01)


@pytest.mark.parametrize(("a", "b"), [(1.0, 1.0), (2.0, 0.5)])
def test_a_domain_switches_above_the_coercive_field_only(a, b):
    up = np.full(3, landau.spontaneous_polarisation(a, b))
    for share, switched in ((0.98, False), (1.02, True)):
        after = relaxed(up, -share * float(landau.coercive_field(a, b)), 60.0, a, b, 1.0, 1.0)
        assert (after < 0).all() if switched else (after > 0.5 * up).all()


def test_creep_of_walls_in_thin_films():
    """Of roughness 0.26 and dimension 2.5 in films of Pb(Zr0.2Ti0.8)O3 (Paruch et al. 2005); an elastic line among random bonds has 1/4."""
    assert landau.creep_exponent(2.5, 0.26) == pytest.approx(0.586, abs=5e-4)
    assert landau.creep_exponent(1, 2 / 3) == pytest.approx(0.25)
