"""Specimens from a user's structure file: the cell that is imaged, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, graphene

from probegym.errors import ProbeGymError
from probegym.physics import from_file

DETECTORS = {"adf": (20.0, 45.0)}


def written(folder, atoms, name="mine.cif"):
    atoms.write(folder / name)
    return folder / name


def atoms_of(path, **options):
    made = from_file.recipe(path, "mine", 80e3, 12.0, DETECTORS, **options)
    return made.atoms(0), made


def test_a_crystal_is_made_orthogonal_wide_enough_and_as_thick_as_asked(tmp_path):
    path = written(tmp_path, Atoms("SrTi", [[0, 0, 0], [1.95, 1.95, 1.95]], cell=[3.9] * 3, pbc=True))
    atoms, made = atoms_of(path, thickness=40.0)
    sides = atoms.cell.lengths()
    assert np.allclose(atoms.cell.angles(), 90) and (sides[:2] >= from_file.SMALLEST_EXTENT - 1e-6).all()
    assert sides[2] == pytest.approx(3.9 * 10) and len(atoms) == 2 * round(np.prod(sides) / 3.9**3)
    assert made.gpts == from_file.grid(sides[:2], 80e3, 45.0) and "80 kV" in made.description


def test_an_oblique_cell_keeps_its_density(tmp_path):
    sheet = graphene(vacuum=5.0)
    sheet.pbc = True
    atoms, _ = atoms_of(written(tmp_path, sheet))
    area, whole = np.prod(atoms.cell.lengths()[:2]), np.linalg.norm(np.cross(sheet.cell[0], sheet.cell[1]))
    assert np.allclose(atoms.cell.angles(), 90) and len(atoms) / area == pytest.approx(2 / whole, rel=1e-3)


def test_a_molecule_gets_vacuum_around_it(tmp_path):
    atoms, _ = atoms_of(written(tmp_path, Atoms("Au2", [[0, 0, 0], [0, 0, 2.5]]), "dimer.xyz"))
    sides = atoms.cell.lengths()
    assert (sides[:2] >= from_file.SMALLEST_EXTENT).all() and sides[2] == pytest.approx(2.5 + 2 * from_file.VACUUM)
    assert np.allclose(atoms.positions.mean(0), sides / 2)


@pytest.mark.parametrize(
    ("name", "words"),
    [("some.txt", "must end in"), ("nowhere.xyz", "check the path"), ("broken.cif", "is not valid CIF"), ("long.xyz", "larger than"), ("far.xyz", "finite positions")],
)
def test_a_file_that_cannot_be_is_refused(tmp_path, monkeypatch, name, words):
    monkeypatch.setattr(from_file, "MAXIMUM_BYTES", 200)
    content = {"broken.cif": "data_\n_cell_length_a nothing\nloop_\n", "long.xyz": "x" * 300, "far.xyz": "1\n\nAu nan 0 0\n"}.get(name, "")
    if name != "nowhere.xyz":
        (tmp_path / name).write_text(content)
    with pytest.raises(ProbeGymError, match=words):
        from_file.recipe(tmp_path / name, "mine", 80e3, 12.0, DETECTORS)


def test_what_does_not_fit_is_refused(tmp_path, monkeypatch):
    path = written(tmp_path, bulk("Au", "fcc", a=4.08, cubic=True))
    with pytest.raises(ProbeGymError, match="GB does not fit"):
        from_file.recipe(path, "mine", 300e3, 60.0, {"haadf": (80.0, 400.0)})
    monkeypatch.setattr(from_file, "MAXIMUM_ATOMS", 50)
    with pytest.raises(ProbeGymError, match="the repeated cell holds"):
        from_file.recipe(path, "mine", 80e3, 12.0, DETECTORS, thickness=40.0)


@pytest.mark.parametrize(("text", "words"), [("haadf", "is not understood"), ("haadf=180-80", "inner < outer"), ("haadf=0-500", "400 mrad"), ("HAADF=1-2", "is not understood")])
def test_a_detector_that_cannot_be_is_refused(text, words):
    with pytest.raises(ProbeGymError, match=words):
        from_file.detector(text)


def test_a_detector_and_a_name_are_read():
    assert from_file.detector("haadf=80-180.5") == ("haadf", (80.0, 180.5)) and from_file.checked_name("mine-2") == "mine-2"
    with pytest.raises(ProbeGymError):
        from_file.checked_name("../mine")
