"""The fewest images that any policy needs: the Cramer-Rao bound on the aberrations, from the exact image formation.

For a measurement of each kind at its scenario's dose, the Fisher information on the aberrations of Poisson counts
(quantum efficiency included), by forward-mode autodiff through physics/differentiable.py. What is assumed favours the
policy: the specimen is KNOWN, its position is not (two unknowns a frame, anywhere in the cell), the residual
third-order aberrations are not (nuisances with the scenario's spread); nothing drifts, controls do what they are told.
A policy that does not know the film needs more.

The error left after n measurements is (prior + n information)^-1, the prior a Gaussian as wide as the box; weighted
with the covariance of the phase over the aperture it is the expected phase variance. Strehl 0.8 is about 0.22 rad^2.
States are drawn from the box ("box"), from a tenth of it ("near"), or the first measurement is taken in the box and the
later ones near tune ("box, near"), as by a policy that corrects after every measurement. Two averages over states: the
variance that the mean information allows ("bound", van Trees' inequality), from which the least number of images
follows, and the larger mean of the variances ("expected"), which an efficient estimator reaches.

    python benchmarks/limits.py [--states 24] [--kinds haadf-id beacon graphene train]
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass

import numpy as np
import torch
from report import box, json_line, table
from scipy import constants

from probegym.envs.stem_tuning import Settings
from probegym.hardware_bridge.twins.stem import StemConfig
from probegym.physics import specimens
from probegym.physics.differentiable import TorchImageFormer, TorchRonchigramFormer
from probegym.physics.image_formation import ImageFormer
from probegym.physics.optics import Pupil, focal_spread
from probegym.physics.ronchigram import RonchigramFormer
from probegym.scenarios import load

KINDS = ("haadf-id", "beacon", "graphene", "train")
GOAL = 0.22  # rad^2, Strehl 0.8
NEAR = 0.1  # of the box
DARKEST = 1e-3  # of the mean: below it the rounding of the shipped tensors would count as signal
MOST = 10**6  # measurements; more than this is written as none
PRIOR = 3  # information of the prior on scaled aberrations: a box of half width 1 has the variance 1/3
POSITION = 2  # unknowns of a frame besides the aberrations


@dataclass
class Measurement:
    """One measurement of a scenario: frames at known defocus excursions (m), ``electrons`` detected of each if all hit.

    frame: (coefficients (lanes, n) in m, positions (lanes, 2) in m, specimen number) -> (lanes, ...) fractions of the
    current. extent: of the specimen's cell, m.
    """

    kind: str
    names: tuple[str, ...]
    controls: int
    excursions: tuple[float, ...]
    electrons: float
    extent: np.ndarray
    specimens: int
    covariance: np.ndarray
    frame: object
    what: str


def measurement(scenario: str) -> Measurement:
    """What a scenario's task acquires in one step."""
    loaded = load("stem_tuning", scenario)
    world, settings = StemConfig(**loaded.world), Settings(**loaded.task)
    series, build = (settings.haadf, _image) if settings.haadf else (settings.ronchigram, _ronchigram)
    current, seconds, extent, count, frame, what = build(world, series)
    electrons = current * seconds / constants.e * world.quantum_efficiency
    covariance = Pupil(world.energy, world.semiangle_cutoff, world.names[: len(world.controls)]).covariance
    names, controls = world.names, len(world.controls)
    return Measurement(scenario, names, controls, series.excursions, electrons, extent, count, covariance, frame, what)


def _image(world: StemConfig, series) -> tuple:
    loaded = [specimens.load(name) for name in world.specimens]
    spread = focal_spread(world.chromatic, world.energy, world.energy_spread)
    optics = (world.semiangle_cutoff, world.names, world.source_size, spread)
    formers = [TorchImageFormer(ImageFormer(s.tensors[series.detector], *optics), dtype=torch.float64) for s in loaded]
    pixel = series.field_of_view / series.pixels
    rows = torch.arange(series.pixels, dtype=torch.float64) * pixel

    def frame(coefficients: torch.Tensor, positions: torch.Tensor, specimen: int) -> torch.Tensor:
        line_x, line_y = positions[:, :1].expand(-1, series.pixels), positions[:, 1:] + rows
        return formers[specimen].images(coefficients, line_x, line_y, series.pixels, pixel)

    what = f"HAADF {series.pixels}^2 at {_excursions(series)}, {series.dwell_time * 1e6:g} us"
    return world.beam_current, series.dwell_time, np.array(loaded[0].extent), len(loaded), frame, what


def _ronchigram(world: StemConfig, series) -> tuple:
    optics, films = world.ronchigram, []
    for name in optics.films:
        film = specimens.load(name)
        aperture = (optics.semiangle_cutoff, series.pixels, world.names, film.slice_thickness)
        former = TorchRonchigramFormer(RonchigramFormer(film.films, world.energy, film.extent[0], *aperture), dtype=torch.float64)
        first, last = (round(part * len(film.films)) for part in optics.variants)
        films += [(former, variant) for variant in range(first, last)]

    def frame(coefficients: torch.Tensor, positions: torch.Tensor, specimen: int) -> torch.Tensor:
        former, variant = films[specimen]
        return former.frames(coefficients, positions, torch.full((len(coefficients),), variant))

    what = f"Ronchigram {series.pixels}^2 at {_excursions(series)}, {series.exposure_time * 1e3:g} ms"
    return optics.beam_current, series.exposure_time, np.array(film.extent), len(films), frame, what


def _excursions(series) -> str:
    return ", ".join(f"{excursion * 1e9:+g}" if excursion else "0" for excursion in series.excursions) + " nm"


def frame_information(m: Measurement, state: np.ndarray, scales: np.ndarray, position: np.ndarray, specimen: int) -> np.ndarray:
    """Fisher information of one frame on the scaled aberrations, then its position in cells; (n + 2, n + 2).

    All derivatives come from one pass: every lane holds the same state and a tangent of its own.
    """
    unknowns = len(scales) + POSITION
    point = torch.as_tensor(np.tile(np.concatenate([state / scales, position / m.extent]), (unknowns, 1)))
    units = torch.as_tensor(np.concatenate([scales, m.extent]))

    def counts(scaled: torch.Tensor) -> torch.Tensor:
        coefficients, positions = (scaled * units).split([len(scales), POSITION], 1)
        return m.electrons * m.frame(coefficients, positions, specimen)

    mean, slope = torch.func.jvp(counts, (point,), (torch.eye(unknowns, dtype=torch.float64),))
    mean = mean[0].flatten()
    slope = slope.flatten(1) / mean.clamp_min(DARKEST * mean.mean()).sqrt()
    return (slope @ slope.T).numpy()


def information(m: Measurement, state: np.ndarray, scales: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Fisher information of one measurement on the scaled aberrations; positions and specimen drawn, positions marginalised."""
    n, specimen, total = len(scales), rng.integers(m.specimens), 0.0
    for excursion in m.excursions:
        shifted = state + np.where(np.array(m.names) == "C10", excursion, 0.0)
        full = frame_information(m, shifted, scales, rng.uniform(0, 1, 2) * m.extent, specimen)
        place = full[n:, n:] + 12 * np.eye(POSITION)  # a position anywhere in the cell has the variance 1/12
        total = total + full[:n, :n] - full[:n, n:] @ np.linalg.solve(place, full[n:, :n])
    return total


def remaining(m: Measurement, scales: np.ndarray, gathered: np.ndarray) -> float:
    """Expected phase variance (rad^2) of the controlled aberrations once ``gathered`` information adds to the prior."""
    error = np.linalg.inv(gathered + PRIOR * np.eye(len(scales)))[: m.controls, : m.controls]
    unit = scales[: m.controls]
    return float(np.trace(m.covariance @ (error * np.outer(unit, unit))))


def least(variance_after) -> int | None:
    """The first n >= 1 with ``variance_after(n) <= GOAL``; variances fall with n."""
    high = 1
    while variance_after(high) > GOAL:
        if high >= MOST:
            return None
        high *= 2
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if variance_after(middle) <= GOAL else (middle, high)
    return high


def averages(m: Measurement, scales: np.ndarray, gathered: list[np.ndarray]) -> tuple[float, float]:
    """Phase variance left: with the mean information (no policy can do better), and the mean over states."""
    return remaining(m, scales, np.mean(gathered, axis=0)), float(np.mean([remaining(m, scales, each) for each in gathered]))


def limits(m: Measurement, states: int) -> tuple[list[dict], dict]:
    """Rows of the first table, one for each place where measurements are taken, and the row of the second."""
    scales, rng = box(m.kind, m.names), np.random.default_rng(5)
    drawn = rng.uniform(-1, 1, (states, len(scales))) * scales
    tuned = np.where(np.arange(len(scales)) < m.controls, NEAR, 1) * drawn  # the residual orders have no control
    wide, near = ([information(m, state, scales, rng) for state in some] for some in (drawn, tuned))
    rows = []
    for place, first, later in (("box", wide, wide), ("near", near, near), ("box, near", wide, near)):

        def after(n: int, first=first, later=later) -> tuple[float, float]:
            return averages(m, scales, [a + (n - 1) * b for a, b in zip(first, later, strict=True)])

        counts = [least(lambda n, kind=kind: after(n)[kind]) for kind in (0, 1)]
        images = [count and count * len(m.excursions) for count in counts]
        rows.append({
            "kind": m.kind, "measurement": m.what, "states": place, "prior": averages(m, scales, [0 * wide[0]])[0],
            "bound, 1": after(1)[0], "expected, 1": after(1)[1], "bound, 10": after(10)[0], "expected, 10": after(10)[1],
            "least images": images[0], "expected images": images[1],
        })  # fmt: skip
    return rows, {"kind": m.kind} | standard_errors(m, scales, near)


def standard_errors(m: Measurement, scales: np.ndarray, gathered: list[np.ndarray]) -> dict:
    """Bound on each controlled aberration (nm) from one measurement: the root of the mean variance over states."""
    variances = [np.diag(np.linalg.inv(each + PRIOR * np.eye(len(scales)))) for each in gathered]
    errors = np.sqrt(np.mean(variances, axis=0)) * scales * 1e9
    return dict(zip(m.names[: m.controls], errors[: m.controls], strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--states", type=int, default=24)
    parser.add_argument("--kinds", nargs="+", default=KINDS, choices=KINDS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    began, rows, errors = time.perf_counter(), [], []
    for kind in options.kinds:
        found, error = limits(measurement(kind), options.states)
        rows, errors = rows + found, [*errors, error]
    table(f"Phase variance (rad^2) that is left, known specimen; goal {GOAL}", tuple(rows[0]), [tuple(row.values()) for row in rows])
    table("Bound on each aberration (nm) from one measurement near tune", tuple(errors[0]), [tuple(row.values()) for row in errors])
    print("\nA known specimen is assumed: policies that do not know the film need more. After 1 and 10 measurements: the bound that no")
    print("policy passes, and the mean over states of the local ones, which an efficient estimator reaches. Every frame is an image.")
    print(f"{time.perf_counter() - began:.0f} s")
    json_line("limits", goal=GOAL, states=options.states, limits=rows, standard_errors_nm=errors)


if __name__ == "__main__":
    main()
