"""Atomic structures of specimens: stoichiometry, bond lengths, densities and what their defects are, drawn from a seed."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from probegym.physics import structures
from probegym.physics.structures import CARBON_DENSITY, GRAPHENE_LATTICE, MOS2_HALF_THICKNESS, SRTIO3_LATTICE

SEEDS = range(5)


def counts(atoms) -> Counter:
    return Counter(atoms.get_chemical_symbols())


def nearest(atoms) -> np.ndarray:
    """Distance of every atom to its nearest neighbour in the periodic cell, Angstrom."""
    gap = atoms.positions[:, None] - atoms.positions[None]
    cell = atoms.cell.diagonal()
    distance = np.linalg.norm(gap - cell * np.rint(gap / cell), axis=-1)
    return np.where(distance > 0, distance, np.inf).min(1)


def alike(one, other) -> bool:
    return len(one) == len(other) and np.array_equal(one.numbers, other.numbers) and np.array_equal(one.positions, other.positions)


@pytest.mark.parametrize("build", [structures.graphene_defects, structures.mos2_defects, structures.srtio3_defects])
def test_defects_follow_from_the_seed(build):
    assert alike(build(3), build(3)) and not alike(build(3), build(4))


def test_graphene_with_defects_has_the_dopants_and_vacancies_that_it_says():
    whole = len(structures.graphene_silicon())
    for seed in SEEDS:
        atoms = structures.graphene_defects(seed)
        found = counts(atoms)
        assert set(found) == {"C", "Si", "N"} and found["Si"] in (3, 4) and found["N"] in (3, 4) and whole - len(atoms) in (2, 3)
        assert nearest(atoms) == pytest.approx(GRAPHENE_LATTICE / np.sqrt(3), rel=1e-6)  # not relaxed: every bond that is left is whole


def test_mos2_with_defects_keeps_its_molybdenum_sites_and_loses_pairs_of_sulphur():
    whole = counts(structures.mos2())
    for seed in SEEDS:
        atoms = structures.mos2_defects(seed)
        found = counts(atoms)
        upper = ((atoms.numbers == 16) & (atoms.positions[:, 2] > 3.0)).sum()
        lower = ((atoms.numbers == 16) & (atoms.positions[:, 2] < 3.0)).sum()
        assert found["Mo"] + found["W"] == whole["Mo"] and found["W"] in (2, 3)
        single, double = lower - upper, whole["S"] // 2 - lower
        assert single in (3, 4) and double in (2, 3)
        columns = {tuple(np.rint(100 * xy).astype(int)) for xy in atoms.positions[(atoms.numbers == 16) & (atoms.positions[:, 2] > 3.0), :2]}
        below = {tuple(np.rint(100 * xy).astype(int)) for xy in atoms.positions[(atoms.numbers == 16) & (atoms.positions[:, 2] < 3.0), :2]}
        assert columns <= below  # a sulphur atom is missing below only where the one above it is too
    assert np.ptp(structures.mos2().positions[:, 2]) == pytest.approx(2 * MOS2_HALF_THICKNESS)


def test_srtio3_with_defects_is_polar_somewhere_and_lacks_strontium():
    ideal = structures.srtio3(5, 4)
    whole = counts(ideal)
    assert whole == {"Sr": 100, "Ti": 100, "O": 300}
    for seed in SEEDS:
        atoms = structures.srtio3_defects(seed)
        found = counts(atoms)
        assert found["Ti"] == 100 and found["O"] == 300 and found["La"] == 4 and whole["Sr"] - found["Sr"] - found["La"] == 6
        moved = {kind: np.linalg.norm((atoms.positions - np.rint((atoms.positions - SRTIO3_LATTICE / 4) / (SRTIO3_LATTICE / 2)) * SRTIO3_LATTICE / 2
                                       - SRTIO3_LATTICE / 4)[atoms.numbers == kind], axis=1) for kind in (38, 22, 8)}  # fmt: skip
        assert moved[38].max() < 1e-9 and 0.1 < moved[22].max() <= 0.25 + 1e-9 and moved[8].max() <= 0.125 + 1e-9


def test_a_carbon_film_has_its_density_and_keeps_atoms_apart():
    for seed in (0, 1):
        atoms = structures.carbon_film(15.0, seed)
        thickness = atoms.cell[2, 2]
        assert 10 <= thickness <= 40 and len(atoms) == round(CARBON_DENSITY * 15.0**2 * thickness)
        atoms.pbc, atoms.cell[2, 2] = True, thickness + 10  # periodic in the plane alone
        assert nearest(atoms).min() >= 1.3


def test_islands_stand_on_a_film():
    atoms = structures.contaminated_carbon(40.0, 2)
    height = atoms.positions[:, 2]
    film, above = (height < 15).sum(), (height >= 15).sum()
    assert film / (40.0**2 * 15) == pytest.approx(CARBON_DENSITY, rel=0.05)
    assert 0 < above < film and 25 <= height.max() <= 45


def test_a_gold_particle_is_a_ball_of_the_crystals_density():
    atoms = structures.gold_nanoparticle(30.0, 1)
    assert set(counts(atoms)) == {"Au"} and np.linalg.norm(atoms.positions, axis=1).max() <= 15
    assert len(atoms) == pytest.approx(4 / 4.08**3 * 4 / 3 * np.pi * 15**3, rel=0.05)
    atoms.cell = [100, 100, 100]
    assert nearest(atoms) == pytest.approx(4.08 / np.sqrt(2), rel=1e-6)


@pytest.mark.parametrize("diameters", [(12.0,), (10.0, 8.0)])
def test_gold_rests_on_the_side_of_the_film_that_the_beam_meets_first(diameters):
    atoms = structures.gold_on_carbon(30.0, 12.0, diameters, 0)
    gold, carbon = (atoms.positions[atoms.numbers == number] for number in (79, 6))
    assert 0 <= gold[:, 2].min() < gold[:, 2].max() <= max(diameters) <= carbon[:, 2].min() and atoms.cell[2, 2] == 12.0 + max(diameters)
    assert (atoms.positions[:, :2] >= 0).all() and (atoms.positions[:, :2] <= 30.0).all()
