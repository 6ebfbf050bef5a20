"""Specimens from a user's structure file (CIF or XYZ): a recipe for ``specimens.build``.

The cell is made orthogonal, repeated in the plane until a badly tuned probe fits, and padded with vacuum where the file
gives no period. ASE parses the file and abTEM turns the cell; both are imported only here and when building.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from probegym.errors import ProbeGymError
from probegym.physics.optics import wavelength
from probegym.physics.specimens import ANGSTROM, MRAD, Recipe

if TYPE_CHECKING:
    from ase import Atoms

FORMATS = {".cif": "cif", ".xyz": "extxyz"}
MAXIMUM_BYTES, MAXIMUM_ATOMS = 20_000_000, 50_000
SMALLEST_EXTENT = 20.0  # Angstrom: the probe at a few nm of defocus fits
VACUUM = 2.0  # Angstrom above and below
MAXIMUM_MEMORY = 4e9  # bytes of one scattering matrix


def checked_name(name: str) -> str:
    """A name that is safe as a file name; raises ProbeGymError."""
    if not re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,63}", name):
        raise ProbeGymError(f"specimen name {name!r} will not do: use lower-case letters, digits, '-', '_' and '.', 64 at most")
    return name


def detector(text: str) -> tuple[str, tuple[float, float]]:
    """``name=inner-outer`` in mrad, as (name, (inner, outer)); raises ProbeGymError."""
    number = r"(\d+\.?\d*)"
    found = re.fullmatch(rf"([a-z][a-z0-9_]*)={number}-{number}", text)
    if found is None:
        raise ProbeGymError(f"detector {text!r} is not understood: write name=inner-outer in mrad, as in haadf=80-180")
    inner, outer = float(found[2]), float(found[3])
    if not 0 <= inner < outer <= 400:
        raise ProbeGymError(f"detector {text!r} needs 0 <= inner < outer <= 400 mrad")
    return found[1], (inner, outer)


def grid(extent, energy: float, angle: float) -> tuple[int, int]:
    """Grid points that hold scattering up to ``angle`` (mrad) inside abTEM's band limit; extent: (x, y) in Angstrom."""
    from scipy.fft import next_fast_len

    largest = angle * MRAD / (wavelength(energy) / ANGSTROM)
    return tuple(next_fast_len(math.ceil(3.05 * largest * side)) for side in extent)


def memory(extent, energy: float, semiangle_cutoff: float, gpts) -> float:
    """Bytes of one scattering matrix. extent: (x, y) in Angstrom; energy: eV; semiangle_cutoff: mrad; gpts: (x, y)."""
    radius = semiangle_cutoff * MRAD / (wavelength(energy) / ANGSTROM)
    return math.pi * radius**2 * extent[0] * extent[1] * gpts[0] * gpts[1] * 8


def _read(path: Path) -> Atoms:
    from ase import Atoms, io

    if path.suffix.lower() not in FORMATS:
        raise ProbeGymError(f"structure file {path} must end in {' or '.join(FORMATS)}")
    try:
        if path.stat().st_size > MAXIMUM_BYTES:
            raise ProbeGymError(f"structure file {path} is larger than {MAXIMUM_BYTES} bytes: cut out the part to be imaged")
        atoms = io.read(path, index=-1, format=FORMATS[path.suffix.lower()])
    except OSError as error:
        raise ProbeGymError(f"cannot read structure file {path} ({error.strerror}): check the path") from error
    except ProbeGymError:
        raise
    except Exception as error:  # ASE's parsers raise whatever they stumble over
        raise ProbeGymError(f"structure file {path} is not valid {path.suffix[1:].upper()} ({_told(error)}): check it with another program") from error
    assert isinstance(atoms, Atoms)  # a list only of several indices
    if not 0 < len(atoms) <= MAXIMUM_ATOMS or not np.isfinite(atoms.positions).all():
        raise ProbeGymError(f"structure file {path} must hold 1 to {MAXIMUM_ATOMS} atoms at finite positions, it has {len(atoms)}")
    return atoms


def _told(error: Exception) -> str:
    return " ".join(str(error).split())[:120] or type(error).__name__


def _cell(atoms, thickness: float):
    """Orthogonal, wide enough and padded with vacuum; thickness in Angstrom, for structures with a period along the beam."""
    if not atoms.pbc[:2].all() or atoms.cell.rank < 3:
        size = np.ptp(atoms.positions, axis=0) + 2 * VACUUM
        atoms.set_cell(np.maximum(size, [SMALLEST_EXTENT, SMALLEST_EXTENT, 0]))
        atoms.center()
        atoms.pbc = True
        return atoms
    import abtem

    atoms = abtem.orthogonalize_cell(atoms)
    lengths = atoms.cell.lengths()
    layers = max(1, round(thickness / lengths[2])) if thickness else 1
    atoms = atoms * (*(math.ceil(SMALLEST_EXTENT / side - 1e-6) for side in lengths[:2]), layers)
    if len(atoms) > MAXIMUM_ATOMS:
        raise ProbeGymError(f"the repeated cell holds {len(atoms)} atoms, more than {MAXIMUM_ATOMS}: use a smaller thickness or cell")
    atoms.wrap()
    return atoms


def recipe(path: Path, name: str, energy: float, semiangle_cutoff: float, detectors: dict[str, tuple[float, float]],
           thickness: float = 0.0) -> Recipe:  # fmt: skip
    """How to build the structure in a file; energy in eV, angles in mrad, thickness in Angstrom. Raises ProbeGymError."""
    atoms = _cell(_read(Path(path)), thickness)
    extent = atoms.cell.lengths()[:2]
    gpts = grid(extent, energy, max(semiangle_cutoff, *(outer for _, outer in detectors.values())))
    needed = memory(extent, energy, semiangle_cutoff, gpts)
    if needed > MAXIMUM_MEMORY:
        raise ProbeGymError(f"a scattering matrix of {needed / 1e9:.1f} GB does not fit: use a smaller cell, semiangle or outer detector angle")
    description = f"{atoms.get_chemical_formula()} from {Path(path).name}, {energy / 1e3:g} kV"
    return Recipe(checked_name(name), description, lambda _: atoms, energy, semiangle_cutoff, detectors, gpts, slice_thickness=2.0)
