"""The standard specimens: what ``probegym specimen build NAME`` builds and the package ships."""

from __future__ import annotations

from typing import Any

from probegym.physics import structures
from probegym.physics.specimens import Recipe

_STANDARD = [
    Recipe(
        "graphene-si", "monolayer graphene with a Si dopant, 60 kV", lambda _: structures.graphene_silicon(),
        detectors={"haadf": (80, 180), "maadf": (40, 80)}, gpts=(512, 480), slice_thickness=3.0,
    ),
    Recipe(
        "mos2-vs", "monolayer MoS2 with S vacancies, 8 frozen phonons at 300 K, 60 kV", lambda _: structures.mos2_vacancies(),
        detectors={"haadf": (80, 180), "maadf": (40, 80)}, gpts=(480, 540), phonons={"Mo": 0.065, "S": 0.08}, configurations=8,
    ),
    Recipe(
        "srtio3", "SrTiO3 [001], 5 nm thick, 300 kV", lambda _: structures.srtio3(),
        energy=300e3, semiangle_cutoff=25.0, detectors={"haadf": (60, 120), "abf": (12, 25)}, gpts=(320, 320),
        slice_thickness=structures.SRTIO3_LATTICE / 2, tolerance=1e-5,
    ),
]  # fmt: skip

GOLD_EXTENT = 25.6  # Angstrom: holds the probe of the widest start state
GOLD_DIAMETERS = (11.0, 12.0, 13.0, 14.0, 15.0, 16.0, 12.5, 14.5, 11.5, 13.5, 15.5)
"""Particles 1 to 8 are for training, 9 to 11 are never trained on."""


def _gold(number: int) -> Recipe:
    diameter = GOLD_DIAMETERS[number - 1]
    return Recipe(
        f"au-carbon-{number:02d}", f"Au nanoparticle, {diameter / 10:.2f} nm, on 0.8 nm of amorphous carbon, 60 kV",
        lambda _: structures.gold_on_carbon(GOLD_EXTENT, 8.0, (diameter,), number),
        detectors={"haadf": (80, 180)}, gpts=(512, 512), slice_thickness=2.0,
    )  # fmt: skip


DEFECTIVE: dict[str, Any] = {"detectors": {"haadf": (80, 180)}, "moments": True}


def _defective(number: int) -> list[Recipe]:
    """Specimens of the centre-of-mass world; numbers 1 and 2 are for training, 3 is never trained on."""
    return [
        Recipe(
            f"graphene-defects-{number:02d}", "monolayer graphene with Si, N and vacancies, 60 kV",
            lambda _: structures.graphene_defects(number), gpts=(360, 336), slice_thickness=3.0, **DEFECTIVE,
        ),
        Recipe(
            f"mos2-defects-{number:02d}", "monolayer MoS2 with S vacancies and W, 8 frozen phonons at 300 K, 60 kV",
            lambda _: structures.mos2_defects(number), semiangle_cutoff=25.0, gpts=(320, 375),
            phonons={"Mo": 0.065, "S": 0.08, "W": 0.05}, configurations=8, **DEFECTIVE,
        ),
        Recipe(
            f"srtio3-defects-{number:02d}", "SrTiO3 [001], 1.6 nm thick, with La, Sr vacancies and a polar nanoregion, 100 kV",
            lambda _: structures.srtio3_defects(number), energy=100e3, semiangle_cutoff=20.0, gpts=(400, 400),
            slice_thickness=structures.SRTIO3_LATTICE / 2, phonons={"Sr": 0.08, "La": 0.08, "Ti": 0.07, "O": 0.09},
            configurations=8, **DEFECTIVE,
        ),
    ]  # fmt: skip


FILM: dict[str, Any] = {"energy": 60e3, "semiangle_cutoff": 40.0, "gpts": (256, 256)}
FILM_EXTENT = 51.0  # Angstrom: the band limit of 256 points is 81 mrad at 60 kV, so scattering across a 40 mrad disc is whole

ONE_SLICE = 100.0  # Angstrom, thicker than any film: a phase object


# Every set has seeds of its own: equal seeds would give equal patterns of atoms, and held-out films would not be new.
CARBON_SEED, CONTAMINATED_SEED, NITRIDE_SEED, GERMANIUM_SEED, GOLD_SEED = 0, 1000, 2000, 3000, 4000


def _amorphous(symbols: dict[str, float], density: float, distance: float, first: int):
    return lambda variant: structures.amorphous(symbols, density, distance, FILM_EXTENT, 20.0, first + variant)


_FILMS = [
    Recipe(
        "film-carbon", "1 to 4 nm amorphous carbon, 24 films", lambda variant: structures.carbon_film(FILM_EXTENT, CARBON_SEED + variant),
        slice_thickness=ONE_SLICE, variants=24, **FILM,
    ),
    Recipe(
        "film-contaminated", "1.5 nm amorphous carbon with contamination islands, 16 films",
        lambda variant: structures.contaminated_carbon(FILM_EXTENT, CONTAMINATED_SEED + variant), slice_thickness=ONE_SLICE, variants=16, **FILM,
    ),
    Recipe(
        "film-silicon-nitride", "2 nm amorphous Si3N4, 16 films", _amorphous({"Si": 3 / 7, "N": 4 / 7}, 0.094, 1.4, NITRIDE_SEED),
        slice_thickness=ONE_SLICE, variants=16, **FILM,
    ),
    Recipe(
        "film-germanium", "2 nm amorphous Ge, 8 films", _amorphous({"Ge": 1.0}, 0.044, 2.0, GERMANIUM_SEED),
        slice_thickness=ONE_SLICE, variants=8, **FILM,
    ),
    Recipe(
        "film-gold-on-carbon", "three 1 to 1.6 nm Au particles on 2 nm amorphous carbon, 8 films, 3 slices",
        lambda variant: structures.gold_on_carbon(FILM_EXTENT, 20.0, (10.0, 13.0, 16.0), GOLD_SEED + variant),
        slice_thickness=12.0, variants=8, **FILM,
    ),
]  # fmt: skip

RECIPES = {
    recipe.name: recipe
    for recipe in [*_STANDARD, *map(_gold, range(1, len(GOLD_DIAMETERS) + 1)), *_FILMS, *(r for n in (1, 2, 3) for r in _defective(n))]
}
