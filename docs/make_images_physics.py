"""Draws fast models beside their references: ``python docs/make_images_physics.py`` from the repository root, which takes 20 s and needs abTEM and ASE."""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import abtem
import matplotlib.pyplot as plt
import numpy as np
from ase.calculators.tersoff import Tersoff

from probegym.physics import drude, dynamics, ising, ising_exact, knock_on, plasmons, randomness, specimens, tersoff
from probegym.physics.image_formation import ImageFormer
from probegym.physics.optics import ABERRATIONS
from probegym.physics.recipes import RECIPES
from probegym.physics.specimens import slices_of

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))
import agreement  # how the benchmarks drive the references
import beam
import force_fields
import spectra

FOLDER = Path(__file__).parent / "images"
FAST, REFERENCE = "#1f6f8b", "#c8553d"
STATIC = {120e3: 5.43, 200e3: 14.5, 300e3: 16.4}


def images(axis, positions: int = 33) -> None:
    """A line over graphene with silicon: HAADF of the image model, and of abTEM's multislice, in and out of focus."""
    recipe, specimen = RECIPES["graphene-si"], specimens.load("graphene-si")
    potential, (width, height) = slices_of(recipe)[0], specimen.extent
    former = ImageFormer(specimen.tensors["haadf"], specimen.semiangle_cutoff)
    for defocus, shade in ((0.0, 1.0), (-6e-9, 0.6)):
        state = np.zeros((1, len(ABERRATIONS)))
        state[0, ABERRATIONS.index("C10")] = defocus
        fine, row = 160, np.full((1, 1), 0.5 * height)
        fast = former.images(state, np.zeros((1, 1)), row, fine, width / fine)[0, 0]
        scan = abtem.CustomScan(np.stack([np.arange(positions) * width / positions, np.full(positions, 0.5 * height)], axis=1) * 1e10)
        probe = agreement.abtem_probe(recipe, state[0])
        probe.grid.match(potential)
        slow = np.asarray(probe.scan(potential, scan=scan, detectors=abtem.AnnularDetector(*recipe.detectors["haadf"]), lazy=False).array)
        axis.plot(np.arange(fine) * width / fine * 1e9, 1e3 * fast, color=FAST, alpha=shade, label=f"image model, C10 {1e9 * defocus:g} nm")
        axis.plot(np.arange(positions) * width / positions * 1e9, 1e3 * slow, "o", ms=3, color=REFERENCE, alpha=shade)
    axis.plot([], [], "o", ms=3, color=REFERENCE, label="abTEM multislice")
    axis.set(title="HAADF along a line of graphene with Si", xlabel="x (nm)", ylabel="share of the beam (10⁻³)")


def losses(axis) -> None:
    """Energy loss beside a trimer of spheres: from modes, and the coupled dipoles solved for each energy."""
    material = drude.MATERIALS["ITO"]
    trimer = spectra.particles((0, 0, 8, 1, 0), (20, 0, 10, 1, 0), (8, 19, 7, 1, 0), plasma=material.plasma_energy)
    x, y = np.array([-10.0, 10.0]) * 1e-9, np.array([0.0, 9.0]) * 1e-9
    energies = plasmons.AXIS
    fast, slow = plasmons.loss(trimer, x, y, material, 60e3, energies)[0], spectra.direct(trimer, x, y, material, 60e3, energies)
    for k, shade in enumerate((1.0, 0.6)):
        axis.plot(energies, fast[k], color=FAST, alpha=shade, label="modes" if k == 0 else None)
        axis.plot(energies[::3], slow[k, ::3], "o", ms=3, color=REFERENCE, alpha=shade, label="solved for each energy" if k == 0 else None)
    axis.set(title="Loss beside three ITO spheres, 60 kV", xlabel="energy (eV)", ylabel="loss probability (1/eV)")


def lattices(energies, orders, size: int = 48, lanes: int = 32) -> None:
    """Energy and order of the heat bath beside Onsager's and Yang's results."""
    temperatures, keys = np.array([1.4, 1.7, 1.9, 2.05, 2.15, 2.22, 2.4, 2.6, 3.0, 3.5, 4.0]), np.arange(lanes, dtype=np.uint64)
    u, m = [], []
    for temperature in temperatures:
        lattice = np.ones((lanes, size, size), np.int8)
        found = []
        for turn in range(20):
            ising.evolve(lattice, 25 if turn else 600, randomness.subkey(keys, turn, "heat-bath"), 1 / temperature)
            found.append((-ising.energy(lattice).mean(), np.abs(ising.magnetisation(lattice)).mean()))
        u.append(np.mean(found, 0)[0])
        m.append(np.mean(found, 0)[1])
    fine = np.linspace(1.3, 4.1, 281)
    for axis, values, exact, told in ((energies, u, ising_exact.energy, "energy a site (J)"), (orders, m, ising_exact.magnetisation, "mean |magnetisation|")):
        axis.plot(fine, [float(exact(t)) for t in fine], color=REFERENCE, label="exact, infinite lattice")
        axis.plot(temperatures, values, "o", ms=4, color=FAST, label=f"heat bath, {size} x {size}")
        axis.set(title=f"Ising lattice: {told.split(' (')[0]}", xlabel="temperature (J/k)", ylabel=told)


def forces(axis) -> None:
    """Every component of the force on 200 displaced atoms, C and Si, beside ASE."""
    potential, atoms = tersoff.silicon_carbon(), force_fields.sheet(20, 0.1)
    box = atoms.cell.diagonal() * atoms.pbc * force_fields.ANGSTROM
    fast = dynamics.evaluate(potential, atoms.positions[None] * force_fields.ANGSTROM, potential.species(atoms.symbols), box)[1][0]
    atoms.calc = Tersoff(potential.for_ase())
    slow, fast = atoms.get_forces().ravel(), fast.ravel() * force_fields.ANGSTROM / force_fields.EV
    axis.plot(slow, slow, color=REFERENCE, lw=1, label="equal")
    axis.plot(slow, fast, ".", ms=3, color=FAST, label="components of 200 forces")
    axis.set(title=f"Tersoff (Si-C): largest difference {np.abs(fast - slow).max():.0e} eV/Å", xlabel="ASE (eV/Å)", ylabel="here (eV/Å)")


def knocks(axis) -> None:
    """Cross-section for the ejection of carbon from graphene, of a lattice that vibrates and of one that does not."""
    energies, carbon, threshold, square_velocity = np.linspace(78e3, 300e3, 200), knock_on.MASSES["12C"], 21.14, 3.17e5
    vibrating = [float(knock_on.vibrating_cross_section(e, 6, carbon, threshold, square_velocity)) / knock_on.BARN for e in energies]
    static = [float(knock_on.cross_section(e, 6, knock_on.largest_transfer(e, carbon), threshold)) / knock_on.BARN for e in energies]
    axis.semilogy(energies / 1e3, vibrating, color=FAST, label="vibrating")
    axis.semilogy(energies / 1e3, np.where(np.array(static) > 0, static, np.nan), "--", color=FAST, label="at rest")
    for told in (beam.KNOWN, STATIC):
        axis.semilogy(np.array(list(told)) / 1e3, list(told.values()), "o", ms=4, color=REFERENCE, label="computed independently" if told is STATIC else None)
    axis.set(title="Carbon ejected from graphene", xlabel="beam energy (keV)", ylabel="cross-section (barn)", ylim=(1e-6, 60))


def main() -> None:
    abtem.config.set({"dask.lazy": False, "diagnostics.progress_bar": False})
    figure, axes = plt.subplots(2, 3, figsize=(13, 7.2), layout="constrained")
    images(axes[0, 0])
    losses(axes[0, 1])
    forces(axes[0, 2])
    lattices(axes[1, 0], axes[1, 1])
    knocks(axes[1, 2])
    for axis in axes.flat:
        axis.title.set_fontsize(10)
        axis.legend(fontsize=8, frameon=False)
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(FOLDER / "physics_agreement.png", dpi=90)


if __name__ == "__main__":
    main()
