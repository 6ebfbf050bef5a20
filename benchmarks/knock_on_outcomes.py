"""The outcome table of physics/knock_on_outcomes.py: blows to graphene with silicon by molecular dynamics.

Prints how many of eight blows to sheets at 300 K end in each outcome, by recoil energy and direction, and the energies at
which half of them do; writes the table that the library reads. With --reference the same blows are first followed by
ASE's velocity Verlet and Tersoff calculator, atom for atom, and their outcomes compared.

    python benchmarks/knock_on_outcomes.py [--targets ...] [--write FILE] [--show] [--reference N]
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

POLAR = np.radians([0.0, 12.0, 24.0])
GRIDS = {
    "carbon": (np.arange(17.0, 29.0), np.radians([0.0, 60.0])),
    "neighbour": (np.arange(10.0, 25.0), np.radians([0.0, 90.0, 180.0])),
    "silicon": (np.arange(8.0, 32.0, 2.0), np.radians([0.0, 60.0])),
}
SIGNS = dict(zip(OUTCOMES, ".obICS?", strict=True))


def main() -> None:
    """Compute, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--targets", nargs="+", choices=TARGETS, default=TARGETS)
    parser.add_argument("--write", type=Path, help="write the table there (npz)")
    parser.add_argument("--show", action="store_true", help="print the table that ships instead of computing it")
    parser.add_argument("--reference", type=int, default=0, metavar="N", help="compare N blows with ASE's dynamics (minutes each)")
    asked = parser.parse_args()
    if asked.reference:
        reference(asked.reference)
        return
    started, arrays = time.perf_counter(), {}
    for target in asked.targets:
        counts, grid = shipped(target) if asked.show else computed(target)
        arrays |= {f"{target}/counts": counts} | {f"{target}/{name}": axis for name, axis in grid.items()}
        if asked.write:
            np.savez_compressed(asked.write, **arrays)
        show(target, counts, grid)
    json_line("knock_on_outcomes", seconds=round(time.perf_counter() - started), targets=list(asked.targets))


def computed(target: str) -> tuple[np.ndarray, dict]:
    """Counts (energies, polar, azimuth, outcomes) by molecular dynamics; the polar angle 0 is computed once."""
    energy, azimuth = GRIDS[target.partition("-")[0]]
    sheet, counts = outcomes.sheet(target), np.zeros((len(energy), len(POLAR), len(azimuth), len(OUTCOMES)), np.int16)
    for p, polar in enumerate(POLAR):
        for a, angle in enumerate(azimuth):
            if p == 0 and a:
                counts[:, 0, a] = counts[:, 0, 0]
                continue
            ends = outcomes.strike(sheet, np.repeat(energy, SNAPSHOTS), polar, angle, np.tile(np.arange(SNAPSHOTS), len(energy)))
            counts[:, p, a] = (ends.reshape(-1, SNAPSHOTS, 1) == np.arange(len(OUTCOMES))).sum(1)
    return counts, {"energy": energy, "polar": POLAR, "azimuth": azimuth}


def shipped(target: str) -> tuple[np.ndarray, dict]:
    """The same from the library's table."""
    loaded = outcomes.load(target)
    return np.rint(SNAPSHOTS * loaded.share).astype(int), {"energy": loaded.energy, "polar": loaded.polar, "azimuth": loaded.azimuth}


def show(target: str, counts: np.ndarray, grid: dict) -> None:
    """Counts by energy and direction, outcomes of eight blows by their signs; then the energies of half of them."""
    header, rows = ["polar, azimuth", *(f"{energy:g} eV" for energy in grid["energy"])], []
    found = outcomes.Outcomes(**grid, share=counts / counts.sum(-1, keepdims=True))
    medians = {name: found.thresholds(name) for name in OUTCOMES[1:]}
    firsts = {name: found.thresholds(name, 1 / SNAPSHOTS) for name in OUTCOMES[1:]}
    thresholds = []
    for p, polar in enumerate(grid["polar"]):
        for a, angle in enumerate(grid["azimuth"]):
            if p == 0 and a:
                continue
            direction = f"{np.degrees(polar):.0f}, {np.degrees(angle):.0f}"
            signs = ["".join(f"{n}{SIGNS[name]}" for n, name in zip(row, OUTCOMES, strict=True) if n) for row in counts[:, p, a]]
            rows.append((direction, *signs))
            for name in OUTCOMES[1:]:
                if np.isfinite(firsts[name][p, a]):
                    half = medians[name][p, a]
                    thresholds.append((direction, name, float(firsts[name][p, a]), float(half) if np.isfinite(half) else "never"))
    key = ", ".join(f"{sign} {name}" for name, sign in SIGNS.items())
    table(f"{target}: {SNAPSHOTS} blows each; {key}", tuple(header), rows)
    table(f"{target}: energies (eV) at which one in {SNAPSHOTS} and half of the blows have the outcome", ("polar, azimuth", "outcome", "one", "half"), thresholds)


def reference(count: int) -> None:
    """Blows followed by ASE and by the fast form from the same start."""
    from ase import Atoms, units
    from ase.calculators.tersoff import Tersoff
    from ase.md.verlet import VelocityVerlet

    sheet, rows = outcomes.sheet("neighbour-exit"), []
    far = outcomes.ANGSTROM
    for index in range(count):
        energy, polar, snapshot = (14.0, 24.0, 17.0, 10.0)[index % 4], POLAR[index // 4 % 3], index % SNAPSHOTS
        x, v = outcomes.blow(sheet, energy, polar, 0.0, snapshot)
        ours = outcomes.dynamics.run(sheet.potential, x, v, sheet.masses, sheet.species, sheet.box, 0.3e-15, 700).positions
        symbols = np.array(sheet.potential.elements)[sheet.species]
        atoms = Atoms(symbols, positions=x[0] / far, cell=sheet.box / far, pbc=sheet.box > 0, masses=sheet.masses / constants.atomic_mass)
        atoms.cell[2, 2] = 100.0
        atoms.set_velocities(v[0] / far * 1e-15 / units.fs)
        atoms.calc = Tersoff(sheet.potential.for_ase())
        VelocityVerlet(atoms, 0.3 * units.fs).run(700)
        ends = [outcomes.OUTCOMES[int(end)] for end in relaxed(sheet, np.stack([ours[0], atoms.positions * far]))]
        rows.append((f"{energy:g} eV", snapshot, *ends, float(np.abs(ours[0] / far - atoms.positions).max())))
    table("C next to Si struck, 0.21 ps without friction, then relaxed", ("energy", "sheet", "fast form", "ASE", "largest distance A"), rows)
    json_line("knock_on_reference", same=sum(row[2] == row[3] for row in rows), of=len(rows))


def relaxed(sheet: outcomes.Sheet, positions: np.ndarray) -> np.ndarray:
    """Outcomes of positions after relaxation."""
    force = 0.05 * outcomes.EV / outcomes.ANGSTROM
    return outcomes.classify(sheet, outcomes.dynamics.relax(sheet.potential, positions, sheet.species, sheet.box, force, steps=800).positions)


if __name__ == "__main__":
    main()
