"""Knock-on cross-sections beside independently computed ones, fast images beside exact multislice, and the speed of the graphene twin.

Images: new structures of graphene with one to three Si, every other with a vacancy, are built with abTEM (scattering matrix,
60 kV, 30 mrad, 80 to 180 mrad); the aberration-free probe and random nearly tuned ones. RMSE in units of the standard deviation
of the exact image. ``--fit`` fits the strengths and widths of atom_images.py to other structures and prints them.

    python benchmarks/beam.py [--structures 4] [--states 6] [--lanes 1024] [--fit]
"""

from __future__ import annotations

import argparse
import itertools
import time

import numpy as np
from report import json_line, table

from probegym.hardware_bridge.commands import LocateAtoms, PlaceProbe
from probegym.hardware_bridge.twins.graphene import GrapheneTwin
from probegym.physics import atom_images, beam_rates, graphene, knock_on, specimens, structures
from probegym.physics.image_formation import ImageFormer, raster
from probegym.physics.specimens import Recipe

NAMES = ("C10", "C12a", "C12b", "C21a", "C21b", "C23a", "C23b", "C30")
NEARLY_TUNED = 0.15 * np.array([40, 40, 40, 1500, 1500, 1500, 1500, 2e4]) * 1e-10  # m, half width
SOURCE, PIXELS, VIEW = 0.3e-10, 64, 14e-10
KNOWN = {80e3: 4.1e-6, 85e3: 2.3e-4, 90e3: 5.4e-3, 95e3: 6.0e-2, 100e3: 0.345, 110e3: 2.48}
"""Barns for vibrating 12C, threshold 21.14 eV, mean square velocity 3.17e5 m^2/s^2."""

Structure = tuple[object, np.ndarray, np.ndarray]


def structure(seed: int) -> Structure:
    """Atoms, and the places (n, 2) in Angstrom of silicon and of vacancies, all near the middle of the cell."""
    rng = np.random.default_rng((seed, 11))
    atoms = structures.graphene_silicon((5, 8))
    atoms.numbers[:] = 6
    near = np.nonzero((np.abs(atoms.positions[:, :2] - atoms.cell.diagonal()[:2] / 2) < 5.5).all(1))[0]
    chosen = [near[0]]
    silicon = 1 + seed % 3
    for index in rng.permutation(near):
        if len(chosen) <= silicon + seed % 2 and (np.hypot(*(atoms.positions[chosen[1:], :2] - atoms.positions[index, :2]).T) > 3).all():
            chosen.append(int(index))
    places = atoms.positions[chosen[1:], :2].copy()
    atoms.numbers[chosen[1 : silicon + 1]] = 14
    del atoms[chosen[silicon + 1 :]]
    return atoms, places[:silicon], places[silicon:]


def exact(atoms, states: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Multislice images (states, PIXELS, PIXELS) and where the first pixel is, m."""
    recipe = Recipe("beam", "graphene with Si", lambda _: atoms, detectors={"haadf": (80, 180)}, gpts=(512, 480), slice_thickness=3.0)
    specimen = specimens.build(recipe)
    former = ImageFormer(specimen.tensors["haadf"], 0.030, NAMES, SOURCE, 0.0)
    corner = np.array(specimen.extent) / 2 - 0.5 * VIEW / PIXELS * (PIXELS - 1)
    return former.images(states, *raster(len(states), PIXELS, VIEW / PIXELS, corner), PIXELS, VIEW / PIXELS), corner


def sheet(silicon: np.ndarray, vacancies: np.ndarray, lanes: int) -> dict[str, np.ndarray]:
    """The same lattice, armchair along x, as the twin holds it."""
    s = graphene.empty(lanes, len(silicon), 1)
    a, b = structures.GRAPHENE_LATTICE * 1e-10, structures.GRAPHENE_LATTICE * np.sqrt(3) * 1e-10
    s["frame"][:] = [0.0, 1.0, b / 4, 3 * a / 4]
    index = np.array(list(itertools.product(range(-12, 24), range(-24, 12), (0, 1))))
    lattice = graphene.places(s["frame"][0], index)
    for name, places in (("silicon", silicon), ("vacancy", vacancies)):
        for k, place in enumerate(places * 1e-10):
            s[name][:, k] = [*index[np.hypot(*(lattice - place).T).argmin()], 1]
    s["optics"][:] = np.arange(lanes)
    return s


def fast(told: Structure, corner: np.ndarray, profiles: atom_images.Profiles) -> np.ndarray:
    """The same images as sums of profiles."""
    states = len(profiles.mean)
    s = sheet(*told[1:], states)
    start = np.zeros((states, PIXELS, 2))
    start[..., 0], start[..., 1] = corner[0], corner[1] + np.arange(PIXELS) * VIEW / PIXELS
    return atom_images.images(s, graphene.survey(s)["position"], profiles, start, PIXELS, VIEW / PIXELS)


def profiles_of(states: np.ndarray, **options) -> atom_images.Profiles:
    """Profiles of these probes."""
    return atom_images.profiles(60e3, 0.030, NAMES, states, SOURCE, 0.0, **options)


def errors(ours: np.ndarray, reference: np.ndarray) -> tuple[float, float, float]:
    """RMSE over standard deviation, RMSE over range, Pearson correlation."""
    rmse = float(np.sqrt(np.mean((ours - reference) ** 2)))
    return rmse / float(reference.std()), rmse / float(np.ptp(reference)), float(np.corrcoef(ours.ravel(), reference.ravel())[0, 1])


def agreement(structures_count: int, states: np.ndarray) -> dict[str, list[float]]:
    """Errors of every structure and state; the first state has no aberrations."""
    found: dict[str, list] = {"aberration-free": [], "nearly tuned": []}
    profiles = profiles_of(states)
    for seed in range(100, 100 + structures_count):
        told = structure(seed)
        reference, corner = exact(told[0], states)
        for number, (a, b) in enumerate(zip(fast(told, corner, profiles), reference, strict=True)):
            found["nearly tuned" if number else "aberration-free"].append(errors(a, b))
    return found


def fit(structures_count: int, states: np.ndarray) -> None:
    """Print strengths and widths that fit other structures best."""
    told = [structure(seed) for seed in range(structures_count)]
    references = [exact(one[0], states) for one in told]
    y = np.concatenate([images.ravel() for images, _ in references]).astype(float)
    rows = []
    for widths in itertools.product((0.0, 0.5e-11, 1e-11, 1.5e-11), repeat=2):
        parts = [profiles_of(states, strengths=s, widths=widths) for s in ((1e-24, 0.0), (0.0, 1e-24))]
        columns = [np.concatenate([fast(one, corner, p).ravel() for one, (_, corner) in zip(told, references, strict=True)]) for p in parts]
        solution, rest, *_ = np.linalg.lstsq(np.stack(columns, 1).astype(float), y, rcond=None)
        rows.append((float(np.sqrt(rest[0] / len(y)) / y.std()), *(1e10 * w for w in widths), *(float(s) for s in solution)))
    table("Fits of strengths (1e-24 m^2) and widths (Angstrom)", ("RMSE/std", "width C", "width Si", "strength C", "strength Si"), sorted(rows)[:5])
    json_line("beam_fit", structures=structures_count, fits=sorted(rows))


def speed(config: dict, lanes: int, image: bool, seconds: float) -> tuple[float, float]:
    """Steps (park, locate, truth) a second, and per second of processor time, which other programs beside it do not change.

    A sixtieth of the lanes starts anew each step, as it happens in episodes.
    """
    twin, on = GrapheneTwin(config, lanes), np.ones(lanes, bool)
    twin.begin(np.arange(lanes, dtype=np.uint64), on)
    begun, rng = lanes, np.random.default_rng(0)

    def locate(centre: np.ndarray):
        return twin.execute(LocateAtoms("haadf", (PIXELS, PIXELS), 20e-10, centre, 2 / PIXELS**2, "Si", 1, image), on).values

    seen, centre = locate(np.zeros((lanes, 2))), np.zeros((lanes, 2))
    start, used, steps = time.perf_counter(), time.process_time(), 0
    while time.perf_counter() - start < seconds:
        fresh = rng.random(lanes) < 1 / 60
        twin.begin(np.arange(begun, begun + lanes, dtype=np.uint64), fresh)
        begun += lanes
        twin.execute(PlaceProbe(seen["position"][:, 0] + 0.85 * seen["neighbours"][:, 0, 0], np.full(lanes, 1.5)), on)
        centre = np.where(seen["found"][:, :1] & ~fresh[:, None], seen["position"][:, 0], 0.0)
        seen, steps = locate(centre), steps + 1
        twin.truth()
    return lanes * steps / (time.perf_counter() - start), lanes * steps / (time.process_time() - used)


PROCESSES = {
    "inversion": {"threshold": {"uniform": [14.2, 15.0]}, "velocity": 5e5}, "conversion": {"threshold": 16.9, "velocity": 5e5},
    "ejection": {"threshold": 21.14, "velocity": 3.17e5},
}  # fmt: skip
WORLDS = {
    "published prior": {},
    "unknown rates, drift, misplacement": {
        "rates": {"kind": "mixture"}, "drift": {"uniform": [0, 5e-12]}, "misplacement": 2e-11, "offset": {"uniform": [0, 5e-11]}, "finder_error": 1e-11,
        "contamination": {"dwell": 0.005, "cleaning": 0.5},
    },
    "cross-sections and an aberrated probe": {
        "rates": {"kind": "physical"}, "cross_sections": PROCESSES, "beam_current": 150e-12, "scan_events": True, "healing": 0.002,
        "probe": {"aberrations": {"C10": {"normal": [0.0, 1e-9]}, "C12a": {"normal": [0.0, 1e-9]}, "C30": 1e-6}},
    },
}  # fmt: skip


def main() -> None:
    """Print the tables and one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--structures", type=int, default=4)
    parser.add_argument("--states", type=int, default=6)
    parser.add_argument("--lanes", type=int, default=1024)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--fit", action="store_true")
    arguments = parser.parse_args()
    rng = np.random.default_rng(0)
    states = np.concatenate([np.zeros((1, len(NAMES))), NEARLY_TUNED * rng.uniform(-1, 1, (arguments.states - 1, len(NAMES)))])
    if arguments.fit:
        fit(arguments.structures, states)
        return
    carbon = knock_on.MASSES["12C"]
    ours = {energy: float(knock_on.vibrating_cross_section(energy, 6, carbon, 21.14, 3.17e5) / knock_on.BARN) for energy in KNOWN}
    table("Ejection of carbon from graphene, barn", ("kV", "ours", "known", "ratio"), [(e / 1e3, ours[e], k, ours[e] / k) for e, k in KNOWN.items()])
    found = agreement(arguments.structures, states)
    rows = [(name, len(e), float(np.median(e, 0)[0]), float(np.max(e, 0)[0]), float(np.median(e, 0)[1]), float(np.min(e, 0)[2])) for name, e in found.items()]
    table("Sums of profiles against multislice", ("probe", "images", "RMSE/std median", "largest", "RMSE/range", "least correlation"), rows)
    rates = {f"{name}, {kind}": speed(config, lanes, image, arguments.seconds)
             for name, config in WORLDS.items() for kind, lanes, image in (("state", arguments.lanes, False), ("64 x 64 image", 64, True))}  # fmt: skip
    table("Graphene twin: beam, image, truth", ("world", "steps/s", "per processor second"), [(name, *pair) for name, pair in rates.items()])
    peak = float(beam_rates.current_density(60e3, 0.030, ("C10",), np.zeros((1, 1))).max())
    json_line("beam", cross_sections=ours, agreement=rows[:2], errors=found, steps_per_second=rates, ideal_peak_density=peak)


if __name__ == "__main__":
    main()
