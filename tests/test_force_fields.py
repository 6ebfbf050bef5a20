"""Tersoff and Lennard-Jones against ASE and closed forms; dynamics against ASE's and the laws of mechanics and statistics."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import constants

from probegym.errors import ProbeGymError
from probegym.physics import dynamics, lennard_jones, tersoff
from probegym.physics.structures import graphene_silicon

ANGSTROM, EV, DALTON, FEMTOSECOND = 1e-10, constants.e, constants.atomic_mass, 1e-15
POTENTIALS = [tersoff.graphene, tersoff.silicon_carbon_1989, tersoff.silicon_carbon]


def rattled(rng, silicon: int, repeats=(4, 4), by: float = 0.1):
    """An ASE sheet of graphene with Si on random sites, atoms displaced, periodic in the plane."""
    atoms = graphene_silicon(repeats)
    atoms.numbers[:] = 6
    atoms.numbers[rng.permutation(len(atoms))[:silicon]] = 14
    atoms.positions += rng.normal(0, by, atoms.positions.shape)
    atoms.pbc = (1, 1, 0)
    return atoms


def box_of(atoms) -> np.ndarray:
    return atoms.cell.diagonal() * atoms.pbc * ANGSTROM


def ours(potential, atoms) -> tuple[float, np.ndarray]:
    """Energy in eV and forces in eV/Angstrom."""
    energy, forces = dynamics.evaluate(potential, atoms.positions[None] * ANGSTROM, potential.species(atoms.symbols), box_of(atoms))
    return energy[0] / EV, forces[0] * ANGSTROM / EV


def ases(potential, atoms) -> tuple[float, np.ndarray]:
    from ase.calculators.tersoff import Tersoff

    atoms = atoms.copy()
    atoms.calc = Tersoff(potential.for_ase())
    return atoms.get_potential_energy(), atoms.get_forces()


@pytest.mark.parametrize("make", POTENTIALS, ids=lambda make: make.__name__)
@pytest.mark.parametrize("by", [0.0, 0.1, 0.25])
def test_tersoff_is_that_of_ase(make, by):
    potential = make()
    atoms = rattled(np.random.default_rng(7), 0 if potential.kinds == 1 else 12, by=by)
    (energy, forces), (reference, expected) = ours(potential, atoms), ases(potential, atoms)
    assert energy == pytest.approx(reference, abs=1e-8)
    assert np.abs(forces - expected).max() < 1e-9 * max(1.0, np.abs(expected).max())
    assert by == 0 or np.abs(expected).max() > 1


def test_tersoff_with_screening_is_that_of_ase():
    from ase.build import bulk

    bond = tersoff.Bond(A=3264.7, B=95.373, lambda1=3.2394, lambda2=1.3258, n=22.956, beta=0.33675)  # Tersoff 1988, lambda3 = 1.3258
    angle = tersoff.Angle(R=3.0, D=0.2, gamma=1.0, c=4.8381, d=2.0417, h=0.0, lambda3=1.3258, m=3.0)
    potential = tersoff.Tersoff(("Si",), {("Si", "Si"): bond}, {("Si", "Si"): angle})
    atoms = bulk("Si", cubic=True) * 2
    atoms.positions += np.random.default_rng(1).normal(0, 0.15, atoms.positions.shape)
    (energy, forces), (reference, expected) = ours(potential, atoms), ases(potential, atoms)
    assert energy == pytest.approx(reference, abs=1e-8) and np.abs(forces - expected).max() < 1e-8


def test_molecules_and_free_atoms_need_no_neighbours():
    potential = tersoff.silicon_carbon()
    apart = np.zeros((3, 2, 3))
    apart[:, 1, 0] = [10 * ANGSTROM, 2.59 * ANGSTROM, 1.79 * ANGSTROM]
    energy, forces = dynamics.evaluate(potential, apart, [0, 1], 0)
    assert energy[0] == 0 and not forces[0].any()
    assert energy[2] / EV == pytest.approx(-4.36, abs=1e-3)  # D0 and r0 of the Si-C dimer: 4.36 eV, 1.79 Angstrom (Erhart & Albe 2005)
    assert abs(forces[1]).max() > 0 and np.allclose(forces.sum(1), 0, atol=1e-20)


@pytest.mark.parametrize("make, bond, cohesion", [(tersoff.silicon_carbon_1989, 1.4605, -7.3955), (tersoff.graphene, 1.4388, -7.9776)])
def test_graphene_has_the_bond_length_and_cohesion_of_its_potential(make, bond, cohesion):
    """Of Tersoff's carbon 1.46 Angstrom and -7.40 eV, of Lindsay & Broido's 1.44 Angstrom are known."""
    potential = make()
    atoms = rattled(np.random.default_rng(0), 0, by=0.0)
    ideal = 2.46 / np.sqrt(3)
    scales = np.array([0.995, 1.0, 1.005]) * bond / ideal
    energies = []
    for scale in scales:
        stretched = atoms.copy()
        stretched.set_cell(atoms.cell * [[scale], [scale], [1]], scale_atoms=True)
        energies.append(ours(potential, stretched)[0] / len(atoms))
    a, b, c = np.polyfit(scales, energies, 2)
    assert -b / (2 * a) * ideal == pytest.approx(bond, abs=5e-4) and c - b * b / (4 * a) == pytest.approx(cohesion, abs=5e-4)


@pytest.mark.parametrize("potential", [make() for make in POTENTIALS] + [lennard_jones.LennardJones(EV, 2 * ANGSTROM, 6 * ANGSTROM, 4 * ANGSTROM)],
                         ids=["graphene", "1989", "erhart-albe", "lennard-jones"])  # fmt: skip
def test_forces_are_the_slope_of_the_energy(potential):
    rng = np.random.default_rng(3)
    x = np.stack(np.meshgrid(*[np.arange(3.0)] * 3), -1).reshape(-1, 3) * 1.75 * ANGSTROM + rng.normal(0, 0.1 * ANGSTROM, (27, 3))
    species = rng.integers(0, potential.kinds, 27)
    h = 1e-5 * ANGSTROM
    moved = np.repeat(x[None], 12, 0)
    for index in range(6):
        moved[2 * index, index, index % 3] += h
        moved[2 * index + 1, index, index % 3] -= h
    energy = dynamics.evaluate(potential, moved, species, 0)[0]
    forces = dynamics.evaluate(potential, x[None], species, 0)[1][0]
    slope = -(energy[::2] - energy[1::2]) / (2 * h)
    expected = forces[np.arange(6), np.arange(6) % 3]
    assert np.allclose(slope, expected, rtol=1e-6, atol=1e-6 * EV / ANGSTROM) and np.abs(expected).min() > 1e-3 * EV / ANGSTROM


@pytest.mark.parametrize("onset", [None, 2.0])
def test_lennard_jones_is_that_of_ase(onset):
    from ase import Atoms
    from ase.calculators.lj import LennardJones

    rng = np.random.default_rng(2)
    grid = np.stack(np.meshgrid(*[np.arange(5.0)] * 3), -1).reshape(-1, 3) * 1.55
    atoms = Atoms("Ar125", positions=grid + rng.normal(0, 0.1, grid.shape), cell=[7.75] * 3, pbc=True)
    atoms.calc = LennardJones(sigma=1.1, epsilon=0.7, rc=3.0, ro=onset, smooth=onset is not None)
    potential = lennard_jones.LennardJones(0.7, 1.1, 3.0, onset)
    energy, forces = dynamics.evaluate(potential, atoms.positions[None], 0, atoms.cell.diagonal())
    assert energy[0] == pytest.approx(atoms.get_potential_energy(), abs=1e-9) and np.abs(forces[0] - atoms.get_forces()).max() < 1e-9


def fcc(repeats: int, nearest: float) -> tuple[np.ndarray, float]:
    cube = np.array([[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]])
    cells = np.stack(np.meshgrid(*[np.arange(repeats)] * 3), -1).reshape(-1, 1, 3)
    return (cells + cube).reshape(-1, 3) * nearest * np.sqrt(2), repeats * nearest * np.sqrt(2)


def test_the_lennard_jones_crystal_has_its_known_energy_and_spacing():
    """Lattice sums: E0 = -8.6099 epsilon at a nearest distance of 1.09018 sigma (Kittel, Introduction to Solid State Physics)."""
    potential = lennard_jones.LennardJones(cutoff=6.0, shifted=False)
    energies, spacings = [], np.array([1.089, 1.09018, 1.0914])
    for nearest in spacings:
        x, side = fcc(9, nearest)
        density = np.sqrt(2) / nearest**3
        gap = x - x[0] - side * np.rint((x - x[0]) / side)
        edge = np.cbrt(3 * (np.linalg.norm(gap, axis=1) < 6.0).sum() / (4 * np.pi * density))  # a uniform medium lies beyond it
        tail = 8 / 3 * np.pi * density * (edge**-9 / 3 - edge**-3)
        energies.append(dynamics.evaluate(potential, x[None], 0, side)[0][0] / len(x) + tail)
    a, b, _ = np.polyfit(spacings, energies, 2)
    assert energies[1] == pytest.approx(-8.6099, abs=1e-3) and -b / (2 * a) == pytest.approx(1.09018, abs=2e-4)


def liquid(lanes: int, repeats: int = 3, thermal: float = 0.8):
    """A Lennard-Jones crystal with velocities, in reduced units."""
    x, side = fcc(repeats, 1.13)
    keys = np.arange(lanes, dtype=np.uint64) + np.uint64(11)
    return np.repeat(x[None], lanes, 0), dynamics.thermal_velocities(np.ones((lanes, len(x))), thermal, keys), side, keys


SMOOTH = lennard_jones.LennardJones(cutoff=2.35, onset=1.8, skin=0.3)


def test_verlet_conserves_energy_over_ten_thousand_steps():
    x, v, side, _ = liquid(1)
    done = dynamics.run(SMOOTH, x, v, 1.0, 0, side, 0.002, 10_000, every=10)
    total = (done.kinetic + done.potential)[0] / x.shape[1]
    assert abs(total[-100:].mean() - total[:100].mean()) < 1e-4 and np.ptp(total) < 1e-3
    assert np.abs(done.positions - x).max() > 0.3 and np.abs(done.velocities.sum(1)).max() < 1e-9 + np.abs(v.sum(1)).max()


def test_verlet_is_reversible():
    x, v, side, _ = liquid(1)
    there = dynamics.run(SMOOTH, x, v, 1.0, 0, side, 0.002, 200)
    back = dynamics.run(SMOOTH, there.positions, -there.velocities, 1.0, 0, side, 0.002, 200)
    assert np.abs(back.positions - x).max() < 1e-9 and np.abs(there.positions - x).max() > 0.1


def test_tersoff_verlet_follows_that_of_ase():
    from ase.calculators.tersoff import Tersoff
    from ase.md.verlet import VelocityVerlet
    from ase.units import fs

    potential = tersoff.silicon_carbon()
    atoms = rattled(np.random.default_rng(5), 3, by=0.05)
    start, masses = atoms.positions.copy(), atoms.get_masses() * DALTON
    atoms.calc = Tersoff(potential.for_ase())
    VelocityVerlet(atoms, 0.5 * fs).run(40)
    here = (start[None] * ANGSTROM, np.zeros((1, len(atoms), 3)), masses, potential.species(atoms.symbols), box_of(atoms))
    done = dynamics.run(potential, *here, 0.5 * FEMTOSECOND, 40)
    assert np.abs(done.positions[0] / ANGSTROM - atoms.positions).max() < 1e-6  # what the CODATA values of the two differ by
    assert np.abs(atoms.positions - start).max() > 0.1


def test_hot_graphene_conserves_energy_while_neighbours_change():
    potential = tersoff.silicon_carbon_1989()
    atoms = rattled(np.random.default_rng(6), 2, by=0.0)
    masses = atoms.get_masses() * DALTON
    v = dynamics.thermal_velocities(masses[None], 3000 * constants.k, [4])
    settled = dynamics.run(
        potential, atoms.positions[None] * ANGSTROM, v, masses, potential.species(atoms.symbols), box_of(atoms), 2e-16, 2000
    )
    done = dynamics.run(
        potential, settled.positions, settled.velocities, masses, potential.species(atoms.symbols), box_of(atoms), 2e-16, 10_000, every=50
    )
    total = (done.kinetic + done.potential)[0] / EV / len(atoms)
    assert np.ptp(total) < 1e-3 and np.ptp(done.kinetic) / EV / len(atoms) > 0.01


@pytest.mark.parametrize("friction", [2.0, 8.0])
def test_langevin_holds_the_temperature(friction):
    x, v, side, keys = liquid(6)
    settled = dynamics.run(SMOOTH, x, v, 1.0, 0, side, 0.004, 1500, friction, 0.8, keys)
    done = dynamics.run(SMOOTH, settled.positions, settled.velocities, 1.0, 0, side, 0.004, 6000, friction, 0.8, keys, 1500, every=20)
    assert done.kinetic.mean() / x.shape[1] == pytest.approx(1.5 * 0.8, rel=0.01)
    assert done.kinetic[:, 100:].var() == pytest.approx(1.5 * x.shape[1] * 0.8**2, rel=0.25)  # of the canonical ensemble


def test_free_atoms_diffuse_by_einsteins_law():
    """Without forces a Langevin particle has <dx^2> = 2 D t per axis with D = kT / (m g)."""
    lanes, atoms = 32, 64
    x = 1e3 * np.arange(atoms)[None, :, None] * np.ones((lanes, 1, 3))
    keys = np.arange(lanes, dtype=np.uint64)
    done = dynamics.run(SMOOTH, x, 0 * x, 2.0, 0, 0, 0.05, 1500, 3.0, 0.5, keys)
    time, diffusion = 75.0, 0.5 / (2.0 * 3.0)
    assert ((done.positions - x) ** 2).mean() == pytest.approx(2 * diffusion * (time - 1.5 / 3.0), rel=0.06)
    assert (done.velocities**2).mean() == pytest.approx(0.25, rel=0.06)


def test_friction_alone_brings_atoms_to_rest_and_held_atoms_stay():
    x, v, side, _ = liquid(1)
    masses = np.ones(x.shape[1])
    masses[5] = np.inf
    done = dynamics.run(SMOOTH, x, v, masses, 0, side, 0.004, 3000, 5.0, every=1500)
    assert done.kinetic[0, -1] < 1e-3 and np.array_equal(done.positions[0, 5], x[0, 5])


def test_a_lane_is_the_same_alone_in_a_batch_and_in_two_parts():
    x, v, side, keys = liquid(3)
    whole = dynamics.run(SMOOTH, x, v, 1.0, 0, side, 0.004, 300, 1.0, 0.8, keys)
    alone = dynamics.run(SMOOTH, x[1:2], v[1:2], 1.0, 0, side, 0.004, 300, 1.0, 0.8, keys[1:2])
    assert np.array_equal(alone.positions[0], whole.positions[1]) and not np.array_equal(whole.positions[0], whole.positions[1])
    half = dynamics.run(SMOOTH, x, v, 1.0, 0, side, 0.004, 100, 1.0, 0.8, keys)
    rest = dynamics.run(SMOOTH, half.positions, half.velocities, 1.0, 0, side, 0.004, 200, 1.0, 0.8, keys, number=100)
    assert np.abs(rest.positions - whole.positions).max() < 1e-9


def test_relaxation_finds_the_crystal():
    x, side = fcc(3, 1.13)
    disturbed = x[None] + np.random.default_rng(8).normal(0, 0.08, (2, *x.shape))
    found = dynamics.relax(SMOOTH, disturbed, 0, side, 1e-6)
    perfect = dynamics.evaluate(SMOOTH, x[None], 0, side)[0][0]
    assert found.energy == pytest.approx([perfect, perfect], abs=1e-6) and (found.force < 1e-6).all()
    held = np.arange(len(x)) < 20
    kept = dynamics.relax(SMOOTH, disturbed, 0, side, 1e-6, held).positions
    assert np.array_equal(kept[:, held], disturbed[:, held]) and not np.array_equal(kept[:, ~held], disturbed[:, ~held])


@pytest.mark.parametrize("change, message", [
    ({"positions": np.zeros((1, 2, 3))}, "overlap"),
    ({"positions": np.zeros((2, 3))}, "positions must be"),
    ({"positions": np.full((1, 2, 3), np.nan)}, "finite"),
    ({"species": 1}, "species"),
    ({"box": 2.0}, "box"),
    ({"masses": 0.0}, "masses"),
    ({"friction": -1.0}, "friction"),
    ({"thermal_energy": -1.0}, "thermal"),
    ({"time_step": 0.0}, "time step"),
    ({"steps": 0}, "one step"),
])  # fmt: skip
def test_what_makes_no_sense_is_refused(change, message):
    sound = {
        "positions": np.array([[[0.0, 0, 0], [1.1, 0, 0]]]),
        "velocities": 0.0,
        "masses": 1.0,
        "species": 0,
        "box": 0.0,
        "time_step": 0.002,
        "steps": 5,
    }
    dynamics.run(SMOOTH, **sound)
    with pytest.raises(ProbeGymError, match=message):
        dynamics.run(SMOOTH, **sound | change)


@pytest.mark.parametrize("make", [*POTENTIALS, lambda: SMOOTH])
def test_two_atoms_in_one_place_are_refused(make):
    """Also where they are in one lane of several; the other lane alone is none the worse."""
    potential = make()
    positions = potential.length * np.array([[[0.0, 0, 0], [1.2, 0, 0], [2.4, 0, 0]], [[0.0, 0, 0], [1.2, 0, 0], [1.2, 0, 0]]])
    for compute in (lambda x: dynamics.evaluate(potential, x, 0, 0), lambda x: dynamics.relax(potential, x, 0, 0, 1e-12, steps=5)):
        compute(positions[:1])
        with pytest.raises(ProbeGymError, match="overlap"):
            compute(positions)


@pytest.mark.parametrize("mass, thermal", [(1.0, -1.0), (1.0, np.nan), (0.0, 1.0), (-1.0, 1.0)])
def test_thermal_velocities_of_what_makes_no_sense_are_refused(mass, thermal):
    with pytest.raises(ProbeGymError, match="thermal energy"):
        dynamics.thermal_velocities(np.full((1, 2), mass), thermal, [3])


def test_without_heat_atoms_rest():
    assert not dynamics.thermal_velocities(np.ones((1, 2)), 0.0, [3]).any()


def test_wrong_potentials_are_refused():
    with pytest.raises(ProbeGymError, match="no Tersoff parameters for Au"):
        tersoff.silicon_carbon().species(["C", "Au"])
    with pytest.raises(ProbeGymError, match="onset"):
        lennard_jones.LennardJones(cutoff=2.0, onset=2.5)
