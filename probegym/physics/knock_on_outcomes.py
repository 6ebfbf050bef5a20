"""Reference for the table that BeamManipulation draws from: molecular dynamics of an electron's blow to graphene with one silicon atom.

One atom of a sheet at 300 K gets the recoil energy in a direction within the cone that a beam along +z can kick into; it
flies on with the Tersoff potential of Erhart & Albe (physics/tersoff.py) while the rim of the sheet takes up energy, is
relaxed, and the bonds tell what has happened. The recoil energy is that of the struck atom after the blow: its own
thermal motion belongs to the cross-section (Meyer et al. 2012, 10.1103/PhysRevLett.108.196102), that of its neighbours is
in the eight sheets that each blow is tried on and spreads the thresholds (Chirita Mihaila, Susi & Kotakoski 2019,
10.1038/s41598-019-49565-4). benchmarks/knock_on_outcomes.py makes the table; docs/force_fields.md says how it compares.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from scipy import constants

from probegym.errors import ProbeGymError
from probegym.physics import dynamics, tersoff

TABLE = Path(__file__).parent / "data" / "knock_on_outcomes.csv"
ANGSTROM, EV = 1e-10, constants.e

OUTCOMES = ("none", "open", "bridge", "inversion", "carbon ejected", "silicon ejected", "other")
"""open: all atoms over their sites, but a bond is broken. bridge: Si between the two sites, fourfold, the C on top of it.
inversion: Si and C have changed places. The others are what they say; other: anything else, as atoms on wrong sites."""

TARGETS = ("carbon", "neighbour-exit", "neighbour-entrance", "silicon-exit", "silicon-entrance")
"""What is struck: C of a pure sheet, C next to Si, Si; Si stands out of the sheet where the beam leaves or where it enters."""

BOND = 1.47525 * ANGSTROM  # of graphene with this potential
REPEATS = (5, 8)  # 160 atoms
SNAPSHOTS = 8
TEMPERATURE = 300.0
RIM = 8.5 * ANGSTROM  # further from the struck atom there is friction
RIM_FRICTION = 5e12  # 1/s
TIME_STEP, STEPS = 0.3e-15, 2500
REACHES = {0: 1.95 * ANGSTROM, 1: 2.3 * ANGSTROM, 2: 2.9 * ANGSTROM}  # bonds, by the number of Si: between first and second neighbours


@dataclass(frozen=True)
class Sheet:
    """Graphene at 300 K, several times, with the atom that will be struck.

    positions, velocities: (snapshots, atoms, 3) m, m/s. rest: (atoms, 3) m, relaxed. struck, silicon: numbers of atoms, silicon
    -1 without one. heading: rad, of the azimuth 0, which points from the struck atom to Si or, without, to a neighbour.
    """

    potential: tersoff.Tersoff
    positions: np.ndarray
    velocities: np.ndarray
    rest: np.ndarray
    species: np.ndarray
    masses: np.ndarray
    box: np.ndarray
    struck: int
    silicon: int
    heading: float


@cache
def sheet(target: str) -> Sheet:
    """The sheet for one of TARGETS; the snapshots come from Langevin dynamics with a fixed key. Raises ProbeGymError for another name."""
    from probegym.physics.structures import GRAPHENE_LATTICE, graphene_silicon

    if target not in TARGETS:
        raise ProbeGymError(f"no sheet for {target!r}: one of {', '.join(TARGETS)}")
    kind, _, side = target.partition("-")
    atoms = graphene_silicon(REPEATS)
    potential, scale = tersoff.silicon_carbon(), BOND / (GRAPHENE_LATTICE / np.sqrt(3))
    x, box = atoms.positions * scale, atoms.cell.diagonal() * scale * [1, 1, 0]
    silicon = int(np.argmax(atoms.numbers))
    if kind == "carbon":
        atoms.numbers[:] = 6
    else:
        x[silicon, 2] += {"exit": 0.5, "entrance": -0.5}[side] * ANGSTROM
    species, masses = potential.species(atoms.symbols), atoms.get_masses() * constants.atomic_mass
    rest = dynamics.relax(potential, x[None], species, box, force=1e-3 * EV / ANGSTROM).positions[0]
    near = np.argsort(np.hypot(*_from(rest, silicon, box)[:, :2].T))
    struck, partner = (near[1], near[0]) if kind == "neighbour" else (near[0], near[1])
    heading = float(np.arctan2(*_from(rest, struck, box)[partner, 1::-1]))
    keys, thermal = np.arange(SNAPSHOTS, dtype=np.uint64) + np.uint64(5), TEMPERATURE * constants.k
    v = dynamics.thermal_velocities(np.tile(masses, (SNAPSHOTS, 1)), thermal, keys)
    warm = dynamics.run(potential, np.tile(rest, (SNAPSHOTS, 1, 1)), v, masses, species, box, 0.5e-15, 3000, 2e12, thermal, keys)
    silicon = -1 if kind == "carbon" else silicon
    return Sheet(potential, warm.positions, warm.velocities, rest, species, masses, box, int(struck), silicon, heading)


def blow(sheet: Sheet, energy, polar, azimuth, snapshot) -> tuple[np.ndarray, np.ndarray]:
    """Positions and velocities (lanes, atoms, 3) right after the blow; recoil energy in eV, angles in rad, all (lanes,).

    polar: from the direction of the beam, azimuth: from the direction to Si or, without, to a neighbour.
    Raises ProbeGymError for energies, angles or snapshots that cannot be.
    """
    energy, polar, azimuth, snapshot = np.broadcast_arrays(*map(np.atleast_1d, (energy, polar, azimuth, snapshot)))
    if not ((energy >= 0) & (polar >= 0) & (polar < np.pi / 2)).all() or not ((snapshot >= 0) & (snapshot < len(sheet.positions))).all():
        raise ProbeGymError(f"a blow needs an energy from 0 eV, a polar angle from 0 to pi / 2 and a snapshot below {len(sheet.positions)}")
    angle = sheet.heading + azimuth
    direction = np.stack([np.sin(polar) * np.cos(angle), np.sin(polar) * np.sin(angle), np.cos(polar)], 1)
    velocities = sheet.velocities[snapshot]
    velocities[:, sheet.struck] = np.sqrt(2 * energy * EV / sheet.masses[sheet.struck])[:, None] * direction
    return sheet.positions[snapshot], velocities


def strike(sheet: Sheet, energy, polar, azimuth, snapshot) -> np.ndarray:
    """What comes of blows, as numbers of OUTCOMES (lanes,); arguments and errors as in ``blow``."""
    return classify(sheet, aftermath(sheet, energy, polar, azimuth, snapshot))


def aftermath(sheet: Sheet, energy, polar, azimuth, snapshot) -> np.ndarray:
    """Relaxed positions (lanes, atoms, 3) in m, 0.75 ps after blows; arguments and errors as in ``blow``."""
    x, v = blow(sheet, energy, polar, azimuth, snapshot)
    far = np.hypot(*_from(sheet.rest, sheet.struck, sheet.box)[:, :2].T) > RIM
    end = dynamics.run(sheet.potential, x, v, sheet.masses, sheet.species, sheet.box, TIME_STEP, STEPS, RIM_FRICTION * far).positions
    return relaxed(sheet, end)


def relaxed(sheet: Sheet, positions: np.ndarray) -> np.ndarray:
    """Positions (lanes, atoms, 3) in m at the next minimum of the energy."""
    return dynamics.relax(sheet.potential, positions, sheet.species, sheet.box, force=0.05 * EV / ANGSTROM, steps=800).positions


def bonds(sheet: Sheet, positions: np.ndarray) -> np.ndarray:
    """Which atoms are bonded, (lanes, atoms, atoms) bool, at positions (lanes, atoms, 3) in m."""
    gap = positions[:, :, None] - positions[:, None]
    gap -= sheet.box * np.rint(gap / np.where(sheet.box > 0, sheet.box, np.inf))
    reach = np.array([REACHES[count] for count in range(3)])[sheet.species[:, None] + sheet.species]
    return ((gap**2).sum(-1) < reach**2) & ~np.eye(positions.shape[1], dtype=bool)


def classify(sheet: Sheet, positions: np.ndarray) -> np.ndarray:
    """Numbers of OUTCOMES (lanes,) of relaxed positions (lanes, atoms, 3) in m."""
    before, after = bonds(sheet, sheet.rest[None])[0], bonds(sheet, positions)
    order = np.arange(len(sheet.rest))
    lost = np.asarray(~after.any(2))
    alone = lost.sum(1) == 1
    shift = positions - sheet.rest
    shift = shift[..., :2] - np.median(shift[..., :2], 1, keepdims=True)
    cases = {"none": (after == before).all((1, 2))}
    if sheet.silicon >= 0:
        partner = sheet.struck if sheet.struck != sheet.silicon else int(np.flatnonzero(before[sheet.silicon])[0])
        order[[sheet.silicon, partner]] = partner, sheet.silicon
        around = (before[partner] | before[sheet.silicon]) & (np.arange(len(order)) != partner) & (np.arange(len(order)) != sheet.silicon)
        cases["inversion"] = (after[:, order][:, :, order] == before).all((1, 2))
        cases["bridge"] = after[:, sheet.silicon][:, around].all(1) & ~lost.any(1)
        cases["silicon ejected"] = alone & lost[:, sheet.silicon]
    cases["carbon ejected"] = alone & (lost & (sheet.species == 0)).any(1)
    cases["open"] = ~lost.any(1) & (np.hypot(*np.moveaxis(shift, -1, 0)) < BOND / 2).all(1)
    ranks = [name for name in ("none", "inversion", "bridge", "silicon ejected", "carbon ejected", "open") if name in cases]
    return np.select([cases[name] for name in ranks], [OUTCOMES.index(name) for name in ranks], OUTCOMES.index("other"))


def _from(positions: np.ndarray, atom: int, box: np.ndarray) -> np.ndarray:
    gap = positions - positions[atom]
    return gap - box * np.rint(gap / np.where(box > 0, box, np.inf))


@dataclass(frozen=True)
class Outcomes:
    """How often each of OUTCOMES followed, of one target.

    energy: (n,) eV. polar, azimuth: (p,), (a,) rad, azimuth from 0 to pi (neighbour) or pi / 3, by the symmetry of the site.
    share: (n, p, a, outcomes).
    """

    energy: np.ndarray
    polar: np.ndarray
    azimuth: np.ndarray
    share: np.ndarray

    def probability(self, outcome: str, energy, polar=0.0, azimuth=0.0) -> np.ndarray:
        """Chance of an outcome, linear between the entries; recoil energy in eV, angles in rad, broadcast together.

        Raises ProbeGymError outside the table.
        """
        from scipy.interpolate import RegularGridInterpolator

        if outcome not in OUTCOMES:
            raise ProbeGymError(f"no outcome {outcome!r}: one of {', '.join(OUTCOMES)}")
        energy, polar, azimuth = np.broadcast_arrays(energy, polar, azimuth)
        if not ((energy >= self.energy[0]) & (energy <= self.energy[-1]) & (polar >= 0) & (polar <= self.polar[-1])).all():
            most = np.degrees(self.polar[-1])
            raise ProbeGymError(f"the table goes from {self.energy[0]:g} to {self.energy[-1]:g} eV and to {most:.0f} degrees from the beam")
        turn = 2 * self.azimuth[-1]
        folded = np.abs(azimuth - turn * np.rint(azimuth / turn))
        grid = RegularGridInterpolator((self.energy, self.polar, self.azimuth), self.share[..., OUTCOMES.index(outcome)])
        return grid(np.stack([energy, polar, folded], -1))

    def thresholds(self, outcome: str, chance: float = 0.5) -> np.ndarray:
        """Lowest energy in eV at which the outcome has this chance, (p, a) over the directions; inf where it never has."""
        share = self.share[..., OUTCOMES.index(outcome)]
        low, high = share[:-1], share[1:]
        part = np.divide(chance - low, high - low, out=np.zeros_like(low), where=high != low)
        step = np.diff(self.energy)[:, None, None]
        crossing = np.where((low < chance) & (high >= chance), self.energy[:-1, None, None] + part * step, np.inf)
        return np.where(share[0] >= chance, self.energy[0], crossing.min(0))


@cache
def load(target: str) -> Outcomes:
    """The table of one of TARGETS. Raises ProbeGymError for another name."""
    if target not in TARGETS:
        raise ProbeGymError(f"no outcomes for {target!r}: one of {', '.join(TARGETS)}")
    with TABLE.open(encoding="utf-8", newline="") as file:
        rows = np.array([list(row.values())[1:] for row in csv.DictReader(file) if row["target"] == target], float)
    energy, polar, azimuth = (np.unique(rows[:, column]) for column in range(3))
    rows = rows[np.lexsort(rows[:, 2::-1].T)].reshape(len(energy), len(polar), len(azimuth), 3 + len(OUTCOMES))
    counts = rows[..., 3:]
    return Outcomes(energy, np.radians(polar), np.radians(azimuth), counts / counts.sum(-1, keepdims=True))


def save(path: Path, tables: dict[str, Outcomes]) -> None:
    """Write a table as ``load`` reads it: a line for a target, an energy (eV) and a direction (degrees), with counts."""
    with path.open("w", encoding="utf-8", newline="") as file:
        lines = csv.writer(file, lineterminator="\n")
        lines.writerow(("target", "energy", "polar", "azimuth", *OUTCOMES))
        for target, table in tables.items():
            for (e, p, a), _ in np.ndenumerate(table.share[..., 0]):
                angles = np.degrees([table.polar[p], table.azimuth[a]])
                counts = np.rint(SNAPSHOTS * table.share[e, p, a]).astype(int)
                lines.writerow((target, f"{table.energy[e]:g}", *(f"{angle:g}" for angle in angles), *counts))
