"""Plasmons: closed forms, coupled modes against a direct solution, the electron's field through and past particles, specimens, counts."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from scipy import constants
from scipy.integrate import quad
from scipy.special import k0, k1

from probegym.physics import drude, nanoparticles, plasmons
from probegym.physics.drude import MATERIALS, Material
from probegym.physics.nanoparticles import Particles
from probegym.physics.optics import lorentz_factor, velocity_ratio

NM = 1e-9
ITO, AG, AL = MATERIALS["ITO"], MATERIALS["Ag5"], MATERIALS["Al"]
FREE = Material(1.0, 2.0, 0.05, (0.5, 2.0))
KEYS = np.arange(1, 7, dtype=np.uint64) * np.uint64(7919)


def particles(*bodies, plasma=1.8) -> Particles:
    """Bodies (x, y, minor[, aspect, angle]) in nm."""
    full = np.array([(*body, 1.0, 0.0)[:5] if len(body) == 3 else body for body in bodies], float)
    x, y, minor, aspect, angle = full.T
    return Particles(NM * np.stack([x, y], axis=1), NM * minor, NM * minor * aspect, angle, np.broadcast_to(np.asarray(plasma, float), len(full)))


# ---- closed forms ----


@pytest.mark.parametrize(
    ("energy", "expected"),
    [
        (drude.sphere_energy(ITO), 0.7410), (drude.sphere_energy(ITO, 2), 0.7746), (drude.sphere_energy(AG), 3.466), (drude.sphere_energy(AG, 2), 3.597),
        (drude.sphere_energy(AL), 8.660), (drude.sphere_energy(AL, 2), 9.487), (drude.sphere_energy(MATERIALS["Au"]), 2.616),
        (drude.sphere_energy(AG, medium=2.25), 2.975), (drude.sphere_energy(ITO, medium=2.25), 0.621), (drude.spheroid_energy(ITO, 2), 0.612),
        (drude.spheroid_energy(ITO, 4), 0.448), (drude.spheroid_energy(AG, 2), 2.935), (drude.spheroid_energy(AG, 4), 2.207),
    ],
)  # fmt: skip
def test_energies_of_single_particles(energy, expected):
    assert energy == pytest.approx(expected, abs=1e-3)


def test_energies_of_a_dimer():
    found = drude.dimer_energies(ITO, 1.0)
    expected = {"bonding": 0.7264, "antibonding": 0.7544, "transverse": 0.7479, "transverse dark": 0.7339}
    assert found == pytest.approx(expected, abs=1e-3)
    assert drude.dimer_energies(ITO, 1e3) == pytest.approx(dict.fromkeys(expected, drude.sphere_energy(ITO)), abs=1e-6)


def test_bulk_surface_and_sphere_of_free_electrons():
    bulk, surface = float(drude.energy_at(AL, 0.0)), float(drude.energy_at(AL, -1.0))
    assert bulk == AL.plasma_energy and surface / bulk == pytest.approx(1 / np.sqrt(2), rel=1e-15)
    assert drude.sphere_energy(AL) / bulk == pytest.approx(1 / np.sqrt(3), rel=1e-15)


def test_permittivity_fulfils_the_condition_at_the_sphere_energy():
    loss_free = replace(AG, damping=0.0)
    assert complex(drude.permittivity(loss_free, drude.sphere_energy(AG))) == pytest.approx(-2, abs=1e-12)
    assert drude.permittivity(AG, 3.0).imag > 0


@pytest.mark.parametrize("aspect", [1.0005, 1.0015, 1.3, 2.0, 6.0])
def test_depolarisation_is_its_integral(aspect):
    along = 0.5 * aspect * quad(lambda s: (s + aspect**2) ** -1.5 / (s + 1), 0, np.inf)[0]
    assert float(drude.depolarisation(aspect)) == pytest.approx(along, rel=2e-6)


def test_depolarisation_of_a_sphere():
    assert float(drude.depolarisation(1.0)) == pytest.approx(1 / 3, rel=1e-12)


@pytest.mark.parametrize(("voltage", "energy", "length"), [(60e3, 3.5, 28.1), (60e3, 0.8, 123), (200e3, 3.5, 54.5), (200e3, 0.8, 239)])
def test_adiabatic_length(voltage, energy, length):
    assert float(drude.cutoff(energy, voltage)) / NM == pytest.approx(length, rel=5e-3)


# ---- modes ----


@pytest.mark.parametrize("medium", [1.0, 2.25])
@pytest.mark.parametrize("aspect", [1.0, 2.0, 4.0])
def test_modes_of_one_particle(aspect, medium):
    plane, out = plasmons.modes(particles((3, 5, 8, aspect, 0.7)), ITO.permittivity, medium)
    sphere = drude.sphere_energy(ITO, medium=medium)
    long, across = (drude.spheroid_energy(ITO, aspect, side, medium) if aspect > 1 else sphere for side in (False, True))
    assert plane.energy == pytest.approx([long, across], rel=1e-6) and out.energy == pytest.approx([across], rel=1e-6)


def test_long_mode_of_a_rod_points_along_it():
    plane, _ = plasmons.modes(particles((0, 0, 8, 3.0, 0.7)), ITO.permittivity)
    assert abs(plane.drive[0, 1] / plane.drive[0, 0]) == pytest.approx(np.tan(0.7), rel=1e-9)


@pytest.mark.parametrize("direction", [0.0, 0.4, np.pi / 2])
def test_modes_of_a_dimer(direction):
    apart = 30 * np.array([np.cos(direction), np.sin(direction)])
    plane, out = plasmons.modes(particles((0, 0, 10), (*apart, 10)), ITO.permittivity)
    expected = drude.dimer_energies(ITO, 1.0)
    assert plane.energy == pytest.approx(sorted(expected.values()), rel=1e-9)
    assert out.energy == pytest.approx([expected["transverse dark"], expected["transverse"]], rel=1e-9)
    assert np.abs(plane.drive[0] @ np.repeat(apart / 30, 2)) > 1e-6  # a uniform field along the axis drives the bonding mode
    antibonding = int(np.argmin(np.abs(plane.energy - expected["antibonding"])))
    assert plane.drive[antibonding] @ np.repeat(apart / 30, 2) == pytest.approx(0, abs=1e-9)


def test_coupling_moves_strength_and_makes_none():
    crowd = particles((0, 0, 10), (24, 3, 9), (10, 25, 8), (40, 30, 6, 2.0, 0.3), plasma=[2.0, 2.0, 1.6, 2.0])
    for part, copies in zip(plasmons.modes(crowd, permittivity=1.0), (2, 1), strict=True):
        alone = np.tile(plasmons.volume(crowd) * crowd.plasma_energy**2, copies)
        assert part.drive.T @ part.drive == pytest.approx(np.diag(alone), abs=1e-9 * alone.max())


def test_interaction_of_rods_is_the_field_of_one_averaged_over_the_other():
    pair = particles((0, 0, 8, 3.0, 0.0), (34, 12, 6, 2.0, 1.1))
    grid = (np.indices((24,) * 3).reshape(3, -1).T + 0.5) / 12 - 1
    ball = grid[(grid**2).sum(1) < 1]

    def body(which: int) -> np.ndarray:
        cos, sin = np.cos(pair.angle[which]), np.sin(pair.angle[which])
        x, y, z = (ball * np.array([pair.major[which], pair.minor[which], pair.minor[which]])).T / NM
        return np.stack([cos * x - sin * y, sin * x + cos * y, z], axis=1) + np.append(pair.position[which] / NM, 0)

    some, other = body(0)[::7], body(1)
    apart = some[:, None] - other
    inverse = (apart**2).sum(-1) ** -1.5
    xy = (3 * apart[..., 0] * apart[..., 1] * inverse ** (5 / 3)).mean()
    xx, zz = ((3 * apart[..., axis] ** 2 * inverse ** (5 / 3) - inverse).mean() for axis in (0, 2))
    plane, out = plasmons._interaction(pair)
    scale = np.sqrt(np.prod(plasmons.volume(pair)))
    assert [-plane[0, 1] / scale, -plane[0, 3] / scale, -out[0, 1] / scale] == pytest.approx([xx, xy, zz], rel=0.02)


# ---- loss ----


def direct(here: Particles, x: float, y: float, material: Material, voltage: float, axis: np.ndarray) -> np.ndarray:
    """Loss of coupled point dipoles (spheres), solved for each energy on its own."""
    beta, gamma = velocity_ratio(voltage), lorentz_factor(voltage)
    size, where = here.minor / NM, here.position / NM
    apart = where[:, None] - where
    distance = np.hypot(apart[..., 0], apart[..., 1])
    away = distance > 0
    inverse = np.where(away, np.where(away, distance, 1) ** -3.0, 0)
    unit = np.concatenate([apart / np.where(away, distance, 1)[..., None], np.zeros((*distance.shape, 1))], axis=-1)
    field = (3 * unit[..., :, None] * unit[..., None, :] - np.eye(3)) * inverse[..., None, None]
    field = field.transpose(0, 2, 1, 3).reshape(3 * len(size), -1)
    out = []
    for energy in axis:
        eps = material.permittivity - here.plasma_energy**2 / (energy**2 + 1j * material.damping * energy)
        polarisability = np.repeat(size**3 * (eps - 1) / (eps + 2), 3)
        q = energy / (drude.HBAR_C * beta * gamma)
        way = np.array([x, y]) / NM - where
        b = np.hypot(*way.T)
        e0 = np.concatenate([q * k1(q * b)[:, None] * way / b[:, None], (1j * q * k0(q * b) / gamma)[:, None]], axis=1).ravel()
        moments = np.linalg.solve(np.diag(1 / polarisability) - field, e0)
        out.append(4 * constants.alpha / (np.pi * drude.HBAR_C * beta**2) * (e0.conj() @ moments).imag)
    return np.array(out)


@pytest.mark.parametrize("voltage", [60e3, 200e3])
@pytest.mark.parametrize(
    ("material", "plasma"),
    [(ITO, 1.8), (AG, 9.17), (AL, 15.0), (ITO, [1.8, 1.44, 1.8, 2.2, 1.8])],
    ids=["ITO", "silver", "aluminium", "unlike doping"],
)
def test_modes_give_what_solving_for_every_energy_gives(material, plasma, voltage):
    here = particles((20, 20, 8), (41, 22, 9), (30, 42, 8), (70, 30, 10), (90, 70, 7), plasma=plasma)
    axis = drude.energies(material.window, 90)
    places = NM * np.array([(30.0, 30.0), (10.0, 12.0), (55.0, 28.0), (120.0, 110.0), (52.0, 40.0)])
    found, thickness = plasmons.loss(here, *places.T, material, voltage, axis)
    assert not thickness.any()
    for (x, y), spectrum in zip(places, found, strict=True):
        expected = direct(here, x, y, material, voltage, axis)
        assert np.abs(spectrum - expected).max() < 6e-3 * expected.max() + 5e-4 * found.max()


def test_one_sphere_is_the_closed_form():
    b = np.array([12.0, 20.0, 60.0, 150.0, 240.0])
    axis, (beta, gamma) = drude.energies((0.6, 0.9), 61), (velocity_ratio(60e3), lorentz_factor(60e3))
    found, _ = plasmons.loss(particles((0, 0, 10)), NM * b, 0 * b, ITO, 60e3, axis)
    eps = drude.permittivity(ITO, axis)
    q = axis / (drude.HBAR_C * beta * gamma)
    expected = 4 * constants.alpha / (np.pi * drude.HBAR_C * beta**2) * 1e3 * ((eps - 1) / (eps + 2)).imag
    expected = expected * (k1(q * b[:, None]) ** 2 + k0(q * b[:, None]) ** 2 / gamma**2) * q**2
    assert np.abs(found / expected - 1)[:3].max() < 2e-3 and np.abs(found / expected - 1).max() < 1e-2
    assert axis[found[0].argmax()] == pytest.approx(drude.sphere_energy(ITO), abs=0.01)


def test_loss_goes_with_the_volume():
    one, eight = (plasmons.loss(particles((0, 0, r)), np.array([40 * NM]), np.zeros(1), ITO, 60e3)[0] for r in (5, 10))
    assert eight == pytest.approx(8 * one, rel=1e-5)


def test_far_particles_do_not_know_of_each_other():
    x, y = NM * np.array([15.0, 270.0]), np.zeros(2)
    both, one, other = (plasmons.loss(particles(*bodies), x, y, ITO, 60e3)[0] for bodies in ([(0, 0, 8), (300, 0, 8)], [(0, 0, 8)], [(300, 0, 8)]))
    assert np.abs(both - one - other).max() < 2e-3 * both.max()


def through(major: float, minor: float, x: float, y: float, q: float) -> np.ndarray:
    """Overlap of a trajectory with the potential of a spheroid (nm) along x of unit moment along x, y and z, by quadrature."""
    a2, b2 = major**2, minor**2

    def potentials(z: float) -> np.ndarray:
        sum_, rest = x * x + y * y + z * z - a2 - b2, a2 * b2 - x * x * b2 - (y * y + z * z) * a2
        outer = max((sum_ + np.sqrt(sum_**2 - 4 * rest)) / 2, 0.0)  # the confocal spheroid through this point
        end = (a2 + outer) ** -0.5
        w = end * (nodes + 1) / 2  # (a^2 + s)^-1/2
        along, across = (1.5 * end * (weights * w**2 / (1 - (a2 - b2) * w**2) ** power).sum() for power in (1, 2))
        return np.array([x * along * np.cos(q * z), y * across * np.cos(q * z), z * across * np.sin(q * z)])

    edge = minor * np.sqrt(max(1 - x * x / a2 - y * y / b2, 0))
    nodes, weights = np.polynomial.legendre.leggauss(20)
    total, limits = np.zeros(3), [0, edge, *(edge + major * np.array([0.3, 1, 3, 10, 40, 120, 250]))]
    for low, high in pairwise(limits):
        for node, weight in zip(nodes, weights, strict=True):
            total += weight * (high - low) / 2 * potentials((low + high) / 2 + (high - low) / 2 * node)
    return total


@pytest.mark.parametrize("aspect", [1.0, 3.0])
@pytest.mark.parametrize(("u", "v"), [(0.05, 0.1), (0.5, 0.3), (0.0, 0.9), (0.8, 0.4), (1.02, 0.2), (0.3, 1.1)])
def test_trajectories_through_and_just_past_a_particle(aspect, u, v):
    minor, (beta, gamma) = 8.0, (velocity_ratio(60e3), lorentz_factor(60e3))
    major = minor * aspect
    long = float(drude.depolarisation(aspect))
    for side in (False, True):
        energy = drude.spheroid_energy(ITO, aspect, side) if aspect > 1 else drude.sphere_energy(ITO)
        axis = energy + 1e-3 * np.arange(-1, 2)
        found, thickness = plasmons.loss(particles((0, 0, minor, aspect, 0.0)), NM * np.array([u * major]), NM * np.array([v * minor]), ITO, 60e3, axis)
        eps = complex(drude.permittivity(ITO, energy))
        shares = np.array([long, (1 - long) / 2, (1 - long) / 2])
        response = (minor**2 * major / 3 * (eps - 1) / (1 + shares * (eps - 1))).imag
        drive = through(major, minor, u * major, v * minor, energy / (drude.HBAR_C * beta * gamma)) ** 2 * [1, 1, gamma**-2]
        expected = 4 * constants.alpha / (np.pi * drude.HBAR_C * beta**2) * (drive @ response)
        assert found[0, 1] == pytest.approx(expected, rel=0.03)
        assert thickness[0] / NM == pytest.approx(2 * minor * np.sqrt(max(1 - u * u - v * v, 0)), rel=1e-5)


def test_a_rod_is_bright_at_its_ends_and_at_its_sides_at_another_energy():
    rod = particles((0, 0, 6, 3.0, 0.0))
    end, side = (np.array([20.0, 0]), np.array([0, 8.0]))
    found, _ = plasmons.loss(rod, NM * end, NM * side, ITO, 60e3)
    long, across = (int(np.abs(plasmons.AXIS - drude.spheroid_energy(ITO, 3, s)).argmin()) for s in (False, True))
    assert found[0, long] > 10 * found[1, long] and found[1, across] > 2 * found[0, across]


def test_bulk_loss_is_inside_and_goes_with_thickness():
    ball, x = particles((0, 0, 15)), NM * np.array([0.0, 10.0, 18.0])
    without, thickness = plasmons.loss(ball, x, 0 * x, ITO, 60e3)
    bulk = plasmons.loss(ball, x, 0 * x, ITO, 60e3, collection=0.02)[0] - without
    top = plasmons.AXIS[bulk[0].argmax()]
    assert top == pytest.approx(ITO.plasma_energy / np.sqrt(ITO.permittivity), abs=0.015)
    assert not bulk[2].any() and thickness[2] == 0
    assert bulk[1].max() / bulk[0].max() == pytest.approx(thickness[1] / thickness[0], rel=0.08)
    beta, gamma = velocity_ratio(60e3), lorentz_factor(60e3)
    wave = 0.02 * constants.m_e * constants.c * beta * gamma / constants.hbar * NM
    log = np.log(1 + wave**2 / (top / (drude.HBAR_C * beta * gamma)) ** 2)  # of a slab: the most there can be
    slab = 30 / (np.pi * 0.0529177 * constants.m_e * constants.c**2 / constants.e * beta**2) * (-1 / drude.permittivity(ITO, top)).imag * log
    assert 0.5 * slab < bulk[0].max() < slab


def test_resolution_widens_and_keeps_the_sum():
    x, y = NM * np.array([12.0]), np.zeros(1)
    sharp, blurred = (plasmons.loss(particles((0, 0, 10)), x, y, ITO, 60e3, resolution=fwhm)[0][0] for fwhm in (0.0, 0.1))
    inner = (plasmons.AXIS > 0.45) & (plasmons.AXIS < 1.1)
    assert blurred.sum() == pytest.approx(sharp.sum(), rel=0.03) and blurred.max() < 0.85 * sharp.max()
    assert inner[blurred.argmax()] and (blurred > blurred.max() / 2).sum() > (sharp > sharp.max() / 2).sum()


# ---- specimens ----


def test_a_lane_is_the_same_alone_and_in_a_batch():
    counts = np.linspace(10, 40, len(KEYS))
    images, spectra = plasmons.assembly(KEYS, {"count": counts, "rods": 0.4})
    alone = plasmons.assembly(KEYS[3:4], {"count": counts[3], "rods": 0.4})
    assert np.array_equal(alone[0][0], images[3]) and np.array_equal(alone[1][0], spectra[3])
    assert images.shape == (6, 50, 50) and spectra.shape == (6, 2500, 64) and images.dtype == spectra.dtype == np.float32
    assert not np.array_equal(images[0], images[1]) and np.isfinite(images).all() and spectra.min() > 0


def laid(key: int, **told) -> Particles:
    return nanoparticles.layout(np.uint64(key), plasmons.PARAMETERS | told, plasmons.SHAPE)


def test_no_gap_is_smaller_than_dipoles_can_bear():
    for key in range(12):
        here = laid(key, clustered=0.8, rods=0.4, count=50.0)
        outlines = [nanoparticles._discs(*body) for body in zip(here.minor, here.major, here.angle, strict=True)]
        for index, some in enumerate(outlines):
            for at, other in enumerate(outlines[:index]):
                apart = here.position[index] - here.position[at]
                shifted = some + np.append(apart, 0)
                assert nanoparticles._clearance(shifted, other) >= nanoparticles.LEAST_GAP * (1 - 1e-9)
        assert all(part.energy.min() > 0.2 for part in plasmons.modes(here, 3.9))


def test_assemblies_are_what_was_asked_for():
    many = [laid(key, rods=0.3, doped=0.25, aspect=3.0, spread=0.1) for key in range(60)]
    count = sum(map(len, many))
    assert 0.85 * 34 < count / 60 <= 34
    rods = np.concatenate([p.major / p.minor for p in many])
    assert np.mean(rods > 1) == pytest.approx(0.3, abs=0.04) and 1.5 < rods[rods > 1].min() < rods.max() < 3
    assert np.mean(np.concatenate([p.plasma_energy for p in many]) < 1.7) == pytest.approx(0.25, abs=0.04)
    radii = np.concatenate([p.minor[p.round] for p in many])
    assert np.std(np.log(radii)) == pytest.approx(0.1, abs=0.015) and np.exp(np.mean(np.log(radii))) == pytest.approx(8e-9, rel=0.02)


def test_clustered_particles_have_near_neighbours():
    def near(clustered: float) -> float:
        shares = []
        for key in range(20):
            here = laid(key, clustered=clustered, rods=0.0, spread=0.0, count=20.0)
            apart = np.hypot(*(here.position[:, None] - here.position).transpose(2, 0, 1)) + 1 * np.eye(len(here))
            shares.append((apart.min(1) < 2.6 * 8e-9 * (1 + 1e-9)).mean())
        return float(np.mean(shares))

    assert near(0.9) > near(0.0) + 0.5


def test_doping_shows_in_the_spectra_and_not_in_the_image():
    plain, doped = (plasmons.assembly(KEYS[:1], {"doped": share, "doping": 0.8}) for share in (0.0, 0.3))
    assert np.array_equal(plain[0], doped[0])
    assert np.abs(plain[1] - doped[1]).max() > 0.1 * plain[1].max()


def test_the_image_shows_where_the_particles_are():
    here, image = laid(5), plasmons.assembly(np.array([5], np.uint64), {})[0][0]
    x, y = plasmons.pixels(plasmons.SHAPE, 3e-9)
    depth = np.zeros(len(x))
    for body in range(len(here)):
        depth = np.maximum(depth, 1 - ((x - here.position[body, 0]) ** 2 + (y - here.position[body, 1]) ** 2) / here.minor[body] ** 2)
    assert image.ravel()[depth > 0.7].min() > 0.35 and np.median(image.ravel()[depth <= 0]) < 0.1


def test_the_spectrum_dims_in_thick_places_and_has_a_tail():
    image, spectra = plasmons.assembly(KEYS[:1], {"roughness": 0.0})
    thick, first = image[0].ravel(), spectra[0, :, 0]
    assert np.corrcoef(thick, first)[0, 1] < -0.7
    bare = plasmons.assembly(KEYS[:1], {"roughness": 0.0, "tail": 0.0})[1][0]
    there = thick < 1e-3
    assert (spectra[0, there] - bare[there]).mean(0) == pytest.approx(0.012 * (plasmons.AXIS / 0.5) ** -2.2, rel=0.02)


# ---- counts ----


def test_counts_are_poisson_and_go_with_dose():
    expected = np.broadcast_to(np.linspace(0.002, 0.03, 64), (4000, 64))
    keys = np.full(4000, 11, np.uint64)
    counts = plasmons.detect(expected, 0.01, keys, np.arange(4000))
    mean = expected[0] * 0.01 * plasmons.CURRENT / constants.e * (plasmons.AXIS[1] - plasmons.AXIS[0])
    assert counts.mean(0) == pytest.approx(mean, rel=0.02) and counts.var(0) / mean == pytest.approx(np.ones(64), abs=0.12)
    assert plasmons.detect(expected[:200], 0.04, keys[:200], np.arange(200)).sum() == pytest.approx(4 * counts[:200].sum(), rel=0.02)


def test_noise_is_of_key_and_step():
    expected = np.full((3, 64), 0.01, np.float32)
    keys, step = np.array([3, 4, 5], np.uint64), np.array([7, 8, 9])
    counts = plasmons.detect(expected, 0.1, keys, step)
    assert np.array_equal(plasmons.detect(expected[1:2], 0.1, keys[1:2], step[1:2])[0], counts[1])
    assert not np.array_equal(plasmons.detect(expected, 0.1, keys, step + 1), counts)
