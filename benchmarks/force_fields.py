"""Force fields: agreement with ASE, steps a second, drift of the energy, temperature of Langevin dynamics.

    python benchmarks/force_fields.py [--seconds 2]

Speeds are in processor time of one thread, so that a busy machine shows less.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
from report import json_line, table
from scipy import constants

from probegym.physics import dynamics, lennard_jones, tersoff
from probegym.physics.structures import graphene_silicon

ANGSTROM, EV, FEMTOSECOND = 1e-10, constants.e, 1e-15
POTENTIALS = {
    "graphene, Lindsay & Broido 2010": (tersoff.graphene, 0),
    "Si-C, Tersoff 1989": (tersoff.silicon_carbon_1989, 20),
    "Si-C, Erhart & Albe 2005": (tersoff.silicon_carbon, 20),
}


def main() -> None:
    """Run all sections."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=2.0, help="least time of a measurement")
    seconds = parser.parse_args().seconds
    json_line("force_fields", **agreement(), **speed(seconds), **statistics())


def sheet(silicon: int, by: float):
    """200 atoms of graphene with Si on random sites, displaced at random by ``by`` Angstrom, as ASE's Atoms."""
    rng = np.random.default_rng(4)
    atoms = graphene_silicon((5, 10))
    atoms.numbers[:] = 6
    atoms.numbers[rng.permutation(len(atoms))[:silicon]] = 14
    atoms.set_cell(atoms.cell * [[1.0139], [1.0139], [1]], scale_atoms=True)  # 1.44 Angstrom, as the first potential has it
    atoms.positions += rng.normal(0, by, atoms.positions.shape)
    atoms.pbc = (1, 1, 0)
    return atoms


def agreement() -> dict:
    """Largest differences of energies and forces from ASE's calculators."""
    from ase import Atoms
    from ase.calculators.lj import LennardJones
    from ase.calculators.tersoff import Tersoff

    rows = []
    for name, (make, silicon) in POTENTIALS.items():
        potential, atoms = make(), sheet(silicon, 0.1)
        box = atoms.cell.diagonal() * atoms.pbc * ANGSTROM
        energy, forces = dynamics.evaluate(potential, atoms.positions[None] * ANGSTROM, potential.species(atoms.symbols), box)
        atoms.calc = Tersoff(potential.for_ase())
        rows.append(
            (name, *compared(atoms, energy[0] / EV, forces[0] * ANGSTROM / EV), taken(lambda atoms=atoms: forget(atoms).get_forces()))
        )
    grid = np.stack(np.meshgrid(*[np.arange(6.0)] * 3), -1).reshape(-1, 3) * 1.1
    atoms = Atoms("Ar216", positions=grid + np.random.default_rng(1).normal(0, 0.05, grid.shape), cell=[6.6] * 3, pbc=True)
    for name, onset in (("Lennard-Jones, cut and shifted", None), ("Lennard-Jones, switched off", 2.0)):
        energy, forces = dynamics.evaluate(lennard_jones.LennardJones(cutoff=3.0, onset=onset), atoms.positions[None], 0, 6.6)
        atoms.calc = LennardJones(rc=3.0, ro=onset, smooth=onset is not None)
        rows.append((name, *compared(atoms, energy[0], forces[0]), taken(lambda: forget(atoms).get_forces())))
    table(
        "Against ASE (eV and Angstrom, or reduced units)", ("potential", "energy differs", "force differs", "largest force", "ASE ms"), rows
    )
    return {"force_error": {row[0]: row[2] for row in rows}}


def compared(atoms, energy: float, forces: np.ndarray) -> tuple[float, float, float]:
    """Differences of energy and forces from those of the atoms' calculator, and the largest force."""
    expected = atoms.get_forces()
    return abs(energy - atoms.get_potential_energy()), np.abs(forces - expected).max(), np.abs(expected).max()


def forget(atoms):
    """The same atoms with nothing computed yet."""
    atoms.calc.reset()
    return atoms


def taken(work) -> float:
    """Fewest milliseconds of three calls."""
    times = []
    for _ in range(3):
        started = time.process_time()
        work()
        times.append(time.process_time() - started)
    return 1e3 * min(times)


def speed(seconds: float) -> dict:
    """Steps a second of 200 atoms at 300 K, neighbour lists included, in processor time of one thread."""
    rows, thermal = [], 300 * constants.k
    for name, (make, silicon) in POTENTIALS.items():
        potential, atoms = make(), sheet(silicon, 0.0)
        species, box, masses = (
            potential.species(atoms.symbols),
            atoms.cell.diagonal() * atoms.pbc * ANGSTROM,
            atoms.get_masses() * constants.atomic_mass,
        )
        for what, lanes, friction in (("Verlet", 1, 0.0), ("Langevin", 1, 1e12), ("Verlet, 8 lanes", 8, 0.0)):
            x = np.repeat(
                dynamics.relax(potential, atoms.positions[None] * ANGSTROM, species, box, 0.05 * EV / ANGSTROM).positions, lanes, 0
            )
            keys = np.arange(lanes, dtype=np.uint64)
            v = dynamics.thermal_velocities(np.tile(masses, (lanes, 1)), 2 * thermal, keys)
            done, rates, spent = dynamics.run(potential, x, v, masses, species, box, FEMTOSECOND / 2, 500), [], 0.0
            while spent < seconds or len(rates) < 3:
                started = time.process_time()
                done = dynamics.run(
                    potential, done.positions, done.velocities, masses, species, box, FEMTOSECOND / 2, 1000, friction, thermal, keys
                )
                rates.append(1000 * lanes / (time.process_time() - started))
                spent += 1000 * lanes / rates[-1]
            rows.append((f"{name}: {what}", max(rates), float(np.median(rates)), 1e6 / max(rates)))
    table("200 atoms, 0.5 fs a step: steps a second and core", ("potential", "most", "median", "us a step"), rows)
    return {"steps_per_second": {row[0]: round(row[1]) for row in rows}}


def statistics() -> dict:
    """Drift of the energy of Verlet's integrator and kinetic energy of Langevin dynamics, 256 Lennard-Jones atoms in reduced units."""
    nearest, repeats, rows = 1.12, 4, []
    cube = np.array([[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]])
    x = (np.stack(np.meshgrid(*[np.arange(repeats)] * 3), -1).reshape(-1, 1, 3) + cube).reshape(1, -1, 3) * nearest * np.sqrt(2)
    side, keys, atoms = repeats * nearest * np.sqrt(2), np.arange(1, dtype=np.uint64), 4 * repeats**3
    potential = lennard_jones.LennardJones(cutoff=3.0, onset=2.2)
    for thermal in (0.3, 0.8):
        v = dynamics.thermal_velocities(np.ones((1, atoms)), 2 * thermal, keys)
        done = dynamics.run(potential, x, v, 1.0, 0, side, 0.002, 10_000, every=10)
        total = (done.kinetic + done.potential)[0] / atoms
        rows.append(
            (f"Verlet, kT = {thermal}", "energy an atom, last less first 1,000 of 10,000 steps", total[-100:].mean() - total[:100].mean())
        )
        settled = dynamics.run(potential, x, v, 1.0, 0, side, 0.004, 2000, 2.0, thermal, keys)
        done = dynamics.run(
            potential, settled.positions, settled.velocities, 1.0, 0, side, 0.004, 20_000, 2.0, thermal, keys, 2000, every=20
        )
        rows.append((f"Langevin, kT = {thermal}", "kinetic energy over 3/2 kT, less 1", done.kinetic.mean() / (1.5 * thermal * atoms) - 1))
    table("256 Lennard-Jones atoms", ("dynamics", "what", "value"), rows)
    return {"statistics": {row[0]: row[2] for row in rows}}


if __name__ == "__main__":
    main()
