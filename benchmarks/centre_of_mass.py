"""How far the centre-of-mass maps are from abTEM's full 4D-STEM patterns and from Ehrenfest's theorem, and how fast they are.

abTEM propagates the probe through the potentials that the shipped tensors were built from (frozen phonons averaged one by
one) at random positions over the cell, and takes the centre of mass of its whole diffraction patterns. Ehrenfest: the
probe-weighted gradient of the projected potential, exact for a thin specimen; for thicker ones it tells how thin they are.
Errors are root mean squares in units of the root mean square of the reference.

    python benchmarks/centre_of_mass.py [--states 4] [--positions 25] [--specimens mos2-defects-01 ...]
"""

from __future__ import annotations

import argparse
import sys
import time

import numpy as np
from report import json_line, table

from probegym.physics import specimens
from probegym.physics.centre_of_mass import Optics, maps, specimen_maps
from probegym.physics.image_formation import ImageFormer
from probegym.physics.optics import ABERRATIONS, interaction_constant, to_polar, wavelength
from probegym.physics.recipes import RECIPES
from probegym.physics.specimens import MOMENTS, slices_of

ANGSTROM, MRAD = 1e-10, 1e-3
SPREADS = {"C10": 10e-9, "C12": 4e-9, "C21": 100e-9, "C23": 100e-9, "C30": 10e-6}
"""Standard deviations of the random states, m; the first state has no aberrations."""
GOAL, TIME_GOAL = 1e-3, 20.0  # relative error; ms a specimen


def aberration_states(count: int) -> np.ndarray:
    """(count, 25) in m."""
    sizes = np.array([SPREADS.get(name[:3], 0.0) for name in ABERRATIONS])
    return sizes * np.random.default_rng(40).normal(size=(count, len(ABERRATIONS))) * (np.arange(count)[:, None] > 0)


def ours(specimen, state: np.ndarray, positions: np.ndarray) -> dict[str, np.ndarray]:
    """Centre of mass (complex, mrad), mean squared angle (mrad^2) and HAADF signal at positions (n, 2) in Angstrom."""
    start = positions.T[:, None] * ANGSTROM
    x, y, square, haadf = (
        ImageFormer(specimen.tensors[name], specimen.semiangle_cutoff).images(state[None], *start, 1, ANGSTROM)[0, :, 0]
        for name in (*MOMENTS, "haadf")
    )
    return {"com": (x + 1j * y) / MRAD, "square": square / MRAD**2, "haadf": haadf}


def abtem_probe(recipe, potential, state: np.ndarray):
    """The probe of abTEM with the same aberrations, on the grid of the potential."""
    import abtem

    polar = to_polar(dict(zip(ABERRATIONS, state, strict=True)))
    built = abtem.Probe(energy=recipe.energy, semiangle_cutoff=recipe.semiangle_cutoff, soft=False, aberrations=polar)
    built.grid.match(potential)
    return built


def abtem_figures(recipe, potentials: list, state: np.ndarray, positions: np.ndarray) -> dict[str, np.ndarray]:
    """The same from full patterns, the mean over the potentials."""
    import abtem

    total: dict[str, np.ndarray] = {}
    for potential in potentials:
        waves = abtem_probe(recipe, potential, state).multislice(potential, scan=abtem.CustomScan(positions))
        measured = waves.diffraction_patterns(max_angle="full")
        (x, y), frames = measured.angular_coordinates, np.asarray(measured.array, float)
        square = x[:, None] ** 2 + y[None] ** 2
        annulus = (square >= recipe.detectors["haadf"][0] ** 2) & (square < recipe.detectors["haadf"][1] ** 2)
        found = {
            "com": np.asarray(measured.center_of_mass(units="mrad").array).ravel(),
            "square": (frames * square).sum((-2, -1)), "haadf": (frames * annulus).sum((-2, -1)),
        }  # fmt: skip
        total = {name: total.get(name, 0) + value / len(potentials) for name, value in found.items()}
    return total


def ehrenfest(recipe, potentials: list, state: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Of the potential alone: lambda (sigma / 2 pi) int |psi_p|^2 grad V_proj, the probe focused where C10 counts from; complex, mrad."""
    projected = sum(np.asarray(p.array, float).sum(0) for p in potentials) / len(potentials) * ANGSTROM  # V m
    extent = np.array(potentials[0].extent)
    k = [np.fft.fftfreq(points, d=side / points) for points, side in zip(projected.shape, extent, strict=True)]
    kx, ky = np.meshgrid(*k, indexing="ij")
    density = np.abs(np.asarray(abtem_probe(recipe, potentials[0], state).build((0, 0), lazy=False).array)) ** 2
    field = 1j * np.fft.fft2(projected) * np.conj(np.fft.fft2(density / density.sum())) / ANGSTROM
    within = np.abs(field) > 1e-12 * np.abs(field).max()  # the probe's intensity holds few of the grid's frequencies
    waves = np.exp(2j * np.pi * (positions @ np.stack([kx[within], ky[within]]))) * field[within] / field.size
    scale = wavelength(recipe.energy) * interaction_constant(recipe.energy) / MRAD
    return (waves @ kx[within]).real * scale + 1j * (waves @ ky[within]).real * scale


def relative(measured: np.ndarray, reference: np.ndarray) -> float:
    """Root mean square of the difference over that of the reference."""
    return float(np.sqrt(np.mean(np.abs(measured - reference) ** 2) / np.mean(np.abs(reference) ** 2)))


def compare(name: str, states: np.ndarray, count: int) -> dict:
    """The worst errors of one specimen over the states."""
    recipe, specimen, potentials = RECIPES[name], specimens.load(name), slices_of(RECIPES[name])
    positions = np.random.default_rng(41).uniform(0, np.array(specimen.extent) / ANGSTROM, (count, 2))
    errors: dict[str, list] = {"com": [], "square": [], "haadf": [], "ehrenfest": [], "strength": []}
    for state in states:
        mine, theirs = ours(specimen, state, positions), abtem_figures(recipe, potentials, state, positions)
        for figure, value in theirs.items():
            errors[figure].append(relative(mine[figure], value))
        errors["ehrenfest"].append(relative(mine["com"], ehrenfest(recipe, potentials, state, positions)))
        errors["strength"].append(np.sqrt(np.mean(np.abs(theirs["com"]) ** 2)))
    return {"specimen": name, "rms_mrad": np.median(errors.pop("strength"))} | {figure: max(found) for figure, found in errors.items()}


def milliseconds(call, repeats: int = 20) -> float:
    """Median time of a call."""
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
    return float(np.median(times) * 1e3)


def speeds(names: list[str]) -> list[dict]:
    """50 x 50 pixels: the first maps of a specimen in a process, the following ones, and worlds drawn from keys."""
    rows = []
    for name in names:
        began = time.perf_counter()
        maps(name, np.zeros((1, 1)), ("C10",), np.zeros((1, 2)))
        first = (time.perf_counter() - began) * 1e3
        rows.append(
            {"what": name, "first": first, "then": milliseconds(lambda name=name: maps(name, np.zeros((1, 1)), ("C10",), np.zeros((1, 2))))}
        )
    for lanes in (1, 64):
        keys = np.arange(lanes, dtype=np.uint64)
        each = (
            milliseconds(lambda keys=keys: specimen_maps(keys, names, {"C10": -5e-9, "C12a": 1e-9, "C12b": 0.0}, optics=Optics())) / lanes
        )
        rows.append({"what": f"drawn, {lanes} lane(s)", "first": each, "then": each})
    return rows


def main() -> None:
    made = list(specimens.measurable())
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--states", type=int, default=4)
    parser.add_argument("--positions", type=int, default=25)
    parser.add_argument("--specimens", nargs="+", default=made, choices=made)
    options = parser.parse_args()
    import abtem

    abtem.config.set({"dask.lazy": False, "diagnostics.progress_bar": False})
    began, rows = time.perf_counter(), []
    timed = speeds(options.specimens)
    for name in options.specimens:
        print(f"{time.perf_counter() - began:4.0f} s  {name}", file=sys.stderr, flush=True)
        rows.append(compare(name, aberration_states(options.states), options.positions))
    header = ("specimen", "rms |CoM| (mrad)", "CoM", "mean squared angle", "HAADF", "Ehrenfest")
    table(
        f"Largest relative error over {options.states} states, against abTEM; Ehrenfest for information",
        header,
        [tuple(row.values()) for row in rows],
    )
    table(
        "Milliseconds for 50 x 50 pixels: image, centre of mass and spread",
        ("what", "first", "then"),
        [tuple(row.values()) for row in timed],
    )
    worst, slowest = max(row["com"] for row in rows), max(row["then"] for row in timed)
    goals = f"worst centre of mass {worst:.1e} (goal {GOAL:g}), slowest {slowest:.1f} ms (goal {TIME_GOAL:g})"
    print(f"\n{goals}, {time.perf_counter() - began:.0f} s")
    json_line("centre_of_mass", worst=worst, slowest_ms=slowest, agreement=rows, speed=timed)


if __name__ == "__main__":
    main()
