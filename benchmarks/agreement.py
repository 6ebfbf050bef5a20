"""How far the fast image models are from abTEM's multislice, over random aberration states.

Images: abTEM scans the potentials that the shipped tensors were built from (frozen phonons averaged one by one), at a
grid of positions over the whole cell; ``--positions`` a side, a prime, so that no two fall on equivalent points of a
lattice. Ronchigrams: abTEM takes the shipped slices. As information, the films are also compared with the atoms they
stand for, finely sliced.

    python benchmarks/agreement.py [--states 30] [--specimens graphene-si srtio3 ...] [--positions 13]
"""

from __future__ import annotations

import argparse
import sys
import time

import numpy as np
from report import box, json_line, table

from probegym.physics import specimens
from probegym.physics.image_formation import ImageFormer, raster
from probegym.physics.optics import ABERRATIONS, to_polar
from probegym.physics.recipes import RECIPES
from probegym.physics.ronchigram import RonchigramFormer
from probegym.physics.specimens import slices_of

IMAGED = ("graphene-si", "mos2-vs", "srtio3", "au-carbon-09")
FILMS = tuple(name for name, recipe in RECIPES.items() if not recipe.detectors)
SOFT = "graphene-si"  # compared with a soft aperture too
WHOLE = 64  # pixels a side of the image whose range the errors are given in
PIXELS = 42  # side of a Ronchigram, as in the scenarios
FINE_GPTS, FINE_SLICE, FINE_STATES = 512, 1.0, 6  # points; Angstrom
ANGSTROM = 1e-10
HIGHER_ORDERS = {4: 10e-6, 5: 1e-3}  # m, by the first digit: what a corrected microscope leaves


def aberration_states(count: int, seed: int) -> np.ndarray:
    """All 25 coefficients, m: the first half over the start box of the scenarios, the second over a tenth of it."""
    rest = np.array([HIGHER_ORDERS.get(int(name[1]), 0.0) for name in ABERRATIONS])
    states = np.random.default_rng(seed).uniform(-1, 1, (count, len(ABERRATIONS))) * (box("train") + rest)
    states[count // 2 :] *= 0.1
    return states


def abtem_probe(recipe, state: np.ndarray, soft: bool = False, semiangle_cutoff: float | None = None):
    """The probe of abTEM with the same aberrations."""
    import abtem

    polar = to_polar(dict(zip(ABERRATIONS, state, strict=True)))
    return abtem.Probe(energy=recipe.energy, semiangle_cutoff=semiangle_cutoff or recipe.semiangle_cutoff, soft=soft, aberrations=polar)


def abtem_images(recipe, potentials: list, state: np.ndarray, positions: int, soft: bool) -> dict[str, np.ndarray]:
    """The images of every detector of a recipe, the mean over its potentials: name -> (positions, positions), rows along y."""
    import abtem

    scan = abtem.GridScan(start=(0, 0), end=(1, 1), fractional=True, gpts=positions, endpoint=False, potential=potentials[0])
    detectors = [abtem.AnnularDetector(inner, outer) for inner, outer in recipe.detectors.values()]
    total = 0
    for potential in potentials:
        probe = abtem_probe(recipe, state, soft)
        probe.grid.match(potential)
        scanned = probe.scan(potential, scan=scan, detectors=detectors, lazy=False, max_batch=16)
        scanned = scanned if len(detectors) > 1 else [scanned]
        total = total + np.stack([np.asarray(image.array, float).T for image in scanned])
    return dict(zip(recipe.detectors, total / len(potentials), strict=True))


def errors(image: np.ndarray, reference: np.ndarray, span: float | None = None) -> tuple[float, float, float]:
    """RMS and largest difference in units of the range, and RMS in units of the reference's standard deviation.

    span: the range of the whole image where the reference is only a sample of its positions.
    """
    difference, span = np.asarray(image, float) - reference, span or float(np.ptp(reference))
    rms = np.sqrt((difference**2).mean())
    return rms / span, np.abs(difference).max() / span, rms / reference.std()


def summary(name: str, view: str, gathered: list[tuple], size: str) -> dict:
    """Median and maximum over states, as a row of the table and of the JSON line."""
    nrmse, largest, deviation = np.array(gathered).T
    return {
        "specimen": name, "view": view, "states": len(gathered), "frame": size, "nrmse_median": np.median(nrmse),
        "nrmse_max": nrmse.max(), "largest_max": largest.max(), "rmse_per_std_max": deviation.max(),
    }  # fmt: skip


def compare_images(name: str, states: np.ndarray, positions: int, soft: bool) -> list[dict]:
    """All shipped detectors of one specimen."""
    recipe, specimen = RECIPES[name], specimens.load(name)
    potentials = slices_of(recipe)
    width, height = specimen.extent
    formers = {d: ImageFormer(tensor, specimen.semiangle_cutoff, soft=soft) for d, tensor in specimen.tensors.items()}
    line_x, line_y = np.zeros((len(states), positions)), np.tile(np.arange(positions) * height / positions, (len(states), 1))
    fast = {d: former.images(states, line_x, line_y, positions, width / positions) for d, former in formers.items()}
    whole_x, whole_y = raster(len(states), WHOLE, height / WHOLE)
    spans = {d: np.ptp(former.images(states, whole_x, whole_y, WHOLE, width / WHOLE), axis=(1, 2)) for d, former in formers.items()}
    gathered: dict[str, list] = {detector: [] for detector in formers}
    for index, state in enumerate(states):
        for detector, reference in abtem_images(recipe, potentials, state, positions, soft).items():
            gathered[detector].append(errors(fast[detector][index], reference, float(spans[detector][index])))
    edge = ", soft aperture" if soft else ""
    return [summary(name, detector + edge, found, f"{positions} x {positions}") for detector, found in gathered.items()]


def ronchigram_former(film: specimens.Specimen) -> RonchigramFormer:
    """The fast model of a film with all 25 aberrations."""
    return RonchigramFormer(film.films, film.energy, film.extent[0], film.semiangle_cutoff, PIXELS, slice_thickness=film.slice_thickness)


def abtem_frame(recipe, potential, former: RonchigramFormer, state: np.ndarray, position: np.ndarray) -> np.ndarray:
    """The diffraction pattern of abTEM at one probe position, cropped and binned as a Ronchigram: rows along ky."""
    probe = abtem_probe(recipe, state, semiangle_cutoff=former.semiangle_cutoff * 1e3)
    probe.grid.match(potential)
    wave = probe.build(scan=tuple(position / ANGSTROM), lazy=False).multislice(potential)
    exit_wave = np.asarray(wave.array).reshape(wave.array.shape[-2:])
    spectrum = np.abs(np.fft.fftshift(np.fft.fft2(exit_wave.astype(complex)))) ** 2
    centre, half, p, b = exit_wave.shape[0] // 2, former.bin * former.pixels // 2, former.pixels, former.bin
    middle = slice(centre - half, centre + half)
    return spectrum[middle, middle].reshape(p, b, p, b).sum((1, 3)).T


def compare_ronchigrams(name: str, states: np.ndarray) -> dict:
    """The shipped slices in both, a random film, position and orientation a state."""
    import abtem

    recipe, film, rng = RECIPES[name], specimens.load(name), np.random.default_rng(7)
    former = ronchigram_former(film)
    positions = rng.uniform(0, film.extent[0], (len(states), 2))
    variants, orientations = rng.integers(0, len(film.films), len(states)), np.arange(len(states)) % 8
    frames, found = former.frames(states, positions, variants, orientations), []
    for index, state in enumerate(states):
        slices = np.rot90(film.films[variants[index]], orientations[index] % 4, (1, 2))
        slices = slices if orientations[index] < 4 else slices.swapaxes(1, 2)
        potential = abtem.PotentialArray(
            (slices / ANGSTROM).astype(np.float32), film.slice_thickness / ANGSTROM, extent=tuple(np.array(film.extent) / ANGSTROM)
        )
        found.append(errors(frames[index], abtem_frame(recipe, potential, former, state, positions[index])))
    return summary(name, f"Ronchigram, {film.films.shape[1]} slice(s)", found, f"{PIXELS} x {PIXELS}")


def compare_with_atoms(name: str, states: np.ndarray) -> list[dict]:
    """The first film against its atoms in thin slices on a fine grid.

    With C10 at the film's entrance; with C10 in mid-slice, where a slice stands for its atoms, which is how the twin counts
    it; and, to tell the grid's share, the same thick slices on the fine grid.
    """
    recipe, film, rng = RECIPES[name], specimens.load(name), np.random.default_rng(8)
    former = ronchigram_former(film)
    fine, thick = (fine_potential(recipe, slice_thickness) for slice_thickness in (FINE_SLICE, recipe.slice_thickness))
    positions, first = rng.uniform(0, film.extent[0], (len(states), 2)), np.zeros(len(states), int)
    thickness = thick.slice_thickness[0] * ANGSTROM
    shifted = states + np.where(np.array(ABERRATIONS) == "C10", thickness / 2, 0.0)
    references = [abtem_frame(recipe, fine, former, *both) for both in zip(states, positions, strict=True)]
    label = f"{len(thick)} x {thickness * 1e9:.2g} nm vs {len(fine)} slices"
    views = {
        label: former.frames(states, positions, first),
        f"{label}, mid-slice": former.frames(shifted, positions, first),
        f"{label}, mid-slice, 512 points": [abtem_frame(recipe, thick, former, *both) for both in zip(shifted, positions, strict=True)],
    }
    size = f"{PIXELS} x {PIXELS}"
    return [summary(name, view, [errors(*pair) for pair in zip(frames, references, strict=True)], size) for view, frames in views.items()]


def fine_potential(recipe, slice_thickness: float):
    """The atoms of a recipe's first film on the fine grid; slice_thickness in Angstrom."""
    import abtem

    options = {"slice_thickness": slice_thickness, "parametrization": "lobato", "projection": "infinite"}
    return abtem.Potential(recipe.atoms(0), gpts=FINE_GPTS, **options).build(lazy=False)


def show(title: str, rows: list[dict]) -> None:
    header = ("specimen", "view", "states", "frame", "NRMSE median", "NRMSE max", "largest", "RMSE/std max")
    table(title, header, [tuple(row.values()) for row in rows])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--states", type=int, default=30)
    parser.add_argument("--specimens", nargs="+", default=[*IMAGED, *FILMS], choices=[*IMAGED, *FILMS])
    parser.add_argument("--positions", type=int, default=13, help="scan positions along each side of the cell")
    options = parser.parse_args()
    import abtem

    abtem.config.set({"diagnostics.progress_bar": False})
    began, states = time.perf_counter(), aberration_states(options.states, seed=20)
    images, films, atoms = [], [], []
    for name in options.specimens:
        print(f"{time.perf_counter() - began:4.0f} s  {name}", file=sys.stderr, flush=True)
        if name in FILMS:
            films.append(compare_ronchigrams(name, states))
            atoms += compare_with_atoms(name, states[:: max(1, len(states) // FINE_STATES)])
        else:
            images += compare_images(name, states, options.positions, soft=False)
            images += compare_images(name, states, options.positions, soft=True) if name == SOFT else []
    if images:
        show("Images against abTEM multislice of the same potentials (errors in units of the image's range)", images)
    if films:
        show("Ronchigrams against abTEM multislice of the same slices", films)
        show("For information: the films against their atoms, finely sliced, 512 x 512 points", atoms)
    worst = max((row["nrmse_max"] for row in images + films), default=0.0)
    print(f"\nworst NRMSE {worst:.1e} (goal 1e-4), {time.perf_counter() - began:.0f} s")
    json_line("agreement", worst_nrmse=worst, images=images, ronchigrams=films, films_against_atoms=atoms)


if __name__ == "__main__":
    main()
