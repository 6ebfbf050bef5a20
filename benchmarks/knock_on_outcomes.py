"""The outcome table of physics/knock_on_outcomes.py: blows to graphene with silicon by molecular dynamics.

Prints how many of eight blows to sheets at 300 K end in each outcome, by recoil energy and direction, and the energies at
which half of them do; writes the table that the library reads. With --reference the same blows are first followed by
ASE's velocity Verlet and Tersoff calculator, atom for atom, and their outcomes compared. With --anneal sheets that end as a
bridge are heated to 2,500 K to see what becomes of it.

    python benchmarks/knock_on_outcomes.py [--targets ...] [--write FILE] [--show] [--reference N] [--anneal PS]
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
from report import json_line, table
from scipy import constants

from probegym.physics import knock_on_outcomes as outcomes
from probegym.physics.knock_on_outcomes import OUTCOMES, SNAPSHOTS, TARGETS

GRIDS = {  # energies in eV, polar and azimuthal angles in degrees
    "carbon": (np.arange(17.0, 29.0), (0.0, 24.0), (0.0, 60.0)),
    "neighbour": (np.arange(10.0, 25.0), (0.0, 12.0, 24.0), (0.0, 90.0, 180.0)),
    "silicon": (np.arange(8.0, 32.0, 2.0), (0.0, 24.0), (0.0, 60.0)),
}
SIGNS = dict(zip(OUTCOMES, ".obICS?", strict=True))


def main() -> None:
    """Compute, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--targets", nargs="+", choices=TARGETS, default=TARGETS)
    parser.add_argument("--write", type=Path, help="write the table there (csv)")
    parser.add_argument("--show", action="store_true", help="print the table that ships instead of computing it")
    parser.add_argument("--reference", type=int, default=0, metavar="N", help="compare N blows with ASE's dynamics (minutes each)")
    parser.add_argument("--anneal", type=int, default=0, metavar="PS", help="heat bridges for so many ps")
    asked = parser.parse_args()
    if asked.anneal:
        anneal(asked.anneal)
        return
    if asked.reference:
        reference(asked.reference)
        return
    started, tables = time.perf_counter(), {}
    for target in asked.targets:
        tables[target] = outcomes.load(target) if asked.show else computed(target)
        if asked.write:
            outcomes.save(asked.write, tables)
        show(target, tables[target])
    json_line("knock_on_outcomes", seconds=round(time.perf_counter() - started), targets=list(asked.targets))


def computed(target: str) -> outcomes.Outcomes:
    """The table of one target by molecular dynamics; the polar angle 0 is computed once."""
    energy, *angles = GRIDS[target.partition("-")[0]]
    polars, azimuths = map(np.radians, angles)
    sheet, counts = outcomes.sheet(target), np.zeros((len(energy), len(polars), len(azimuths), len(OUTCOMES)))
    for p, polar in enumerate(polars):
        for a, azimuth in enumerate(azimuths):
            if p == 0 and a:
                counts[:, 0, a] = counts[:, 0, 0]
                continue
            ends = outcomes.strike(sheet, np.repeat(energy, SNAPSHOTS), polar, azimuth, np.tile(np.arange(SNAPSHOTS), len(energy)))
            counts[:, p, a] = (ends.reshape(-1, SNAPSHOTS, 1) == np.arange(len(OUTCOMES))).sum(1)
    return outcomes.Outcomes(energy, polars, azimuths, counts / SNAPSHOTS)


def show(target: str, found: outcomes.Outcomes) -> None:
    """Outcomes of eight blows by energy and direction, as their signs; then the energies from which on they happen."""
    rows, thresholds, counts = [], [], np.rint(SNAPSHOTS * found.share).astype(int)
    for p, polar in enumerate(np.degrees(found.polar)):
        for a, azimuth in enumerate(np.degrees(found.azimuth)[: None if p else 1]):
            direction = f"{polar:.0f}, {azimuth:.0f}"
            signs = ["".join(f"{n}{SIGNS[name]}" for n, name in zip(row, OUTCOMES, strict=True) if n) for row in counts[:, p, a]]
            rows.append((direction, *signs))
            for name in OUTCOMES[1:]:
                one, half = (float(found.thresholds(name, chance)[p, a]) for chance in (1 / SNAPSHOTS, 0.5))
                if np.isfinite(one):
                    thresholds.append((direction, name, f"{one:.1f}", f"{half:.1f}" if np.isfinite(half) else "never"))
    key = ", ".join(f"{sign} {name}" for name, sign in SIGNS.items())
    table(f"{target}: {SNAPSHOTS} blows each; {key}", ("direction", *(f"{energy:g} eV" for energy in found.energy)), rows)
    title = f"{target}: energies (eV) from which on one of {SNAPSHOTS} blows, and half of them, have the outcome"
    table(title, ("direction", "outcome", "one", "half"), thresholds)


def reference(count: int) -> None:
    """Blows followed by ASE and by the fast form from the same start."""
    from ase import Atoms, units
    from ase.calculators.tersoff import Tersoff
    from ase.md.verlet import VelocityVerlet

    sheet, rows = outcomes.sheet("neighbour-exit"), []
    far = outcomes.ANGSTROM
    for index in range(count):
        energy, polar, snapshot = (14.0, 24.0, 17.0, 10.0)[index % 4], np.radians(12.0) * (index // 4 % 3), index % SNAPSHOTS
        x, v = outcomes.blow(sheet, energy, polar, 0.0, snapshot)
        ours = outcomes.dynamics.run(sheet.potential, x, v, sheet.masses, sheet.species, sheet.box, 0.3e-15, 300).positions
        symbols = np.array(sheet.potential.elements)[sheet.species]
        atoms = Atoms(symbols, positions=x[0] / far, cell=sheet.box / far, pbc=sheet.box > 0, masses=sheet.masses / constants.atomic_mass)
        atoms.cell[2, 2] = 100.0
        atoms.set_velocities(v[0] / far * 1e-15 / units.fs)
        atoms.calc = Tersoff(sheet.potential.for_ase())
        VelocityVerlet(atoms, 0.3 * units.fs).run(300)
        both = outcomes.relaxed(sheet, np.stack([ours[0], atoms.positions * far]))
        ends = [OUTCOMES[end] for end in outcomes.classify(sheet, both)]
        rows.append((f"{energy:g} eV", snapshot, *ends, float(np.abs(ours[0] / far - atoms.positions).max())))
    table(
        "C next to Si struck, 0.09 ps without friction, then relaxed", ("energy", "sheet", "fast form", "ASE", "largest distance A"), rows
    )
    json_line("knock_on_reference", same=sum(row[2] == row[3] for row in rows), of=len(rows))


def anneal(picoseconds: int) -> None:
    """What becomes of bridges at 2,500 K: back to where they came from, inverted, or still there."""
    sheet, kT, rows = outcomes.sheet("neighbour-exit"), 2500 * constants.k, []
    ends = outcomes.aftermath(sheet, np.repeat([16.0, 17.0, 18.0], SNAPSHOTS), 0.0, 0.0, np.tile(np.arange(SNAPSHOTS), 3))
    x = ends[outcomes.classify(sheet, ends) == OUTCOMES.index("bridge")]
    x = np.repeat(x, -(-2 * SNAPSHOTS // len(x)), 0)[: 2 * SNAPSHOTS]
    keys = np.arange(len(x), dtype=np.uint64)
    v = outcomes.dynamics.thermal_velocities(np.tile(sheet.masses, (len(x), 1)), kT, keys)
    for done in range(picoseconds):
        arguments = (sheet.masses, sheet.species, sheet.box, 0.4e-15, 2500, 1e12, kT, keys, 2500 * done)
        end = outcomes.dynamics.run(sheet.potential, x, v, *arguments)
        x, v = end.positions, end.velocities
        now = outcomes.classify(sheet, outcomes.relaxed(sheet, x))
        rows.append((f"{done + 1} ps", *(int((now == index).sum()) for index in range(len(OUTCOMES)))))
    table(f"{len(x)} bridges at 2,500 K", ("after", *OUTCOMES), rows)
    json_line("knock_on_anneal", ends=dict(zip(OUTCOMES, rows[-1][1:], strict=True)))


if __name__ == "__main__":
    main()
