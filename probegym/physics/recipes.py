"""The standard specimens: what ``probegym specimen build NAME`` builds and the package ships."""

from __future__ import annotations

from probegym.physics import structures
from probegym.physics.specimens import Recipe

_STANDARD = [
    Recipe(
        "graphene-si", "monolayer graphene with a Si dopant, 60 kV", lambda _: structures.graphene_silicon(),
        detectors={"haadf": (80, 180), "maadf": (40, 80)}, gpts=(256, 240), slice_thickness=3.0,
    ),
    Recipe(
        "mos2-vs", "monolayer MoS2 with S vacancies, 8 frozen phonons at 300 K, 60 kV", lambda _: structures.mos2_vacancies(),
        detectors={"haadf": (80, 180), "maadf": (40, 80)}, gpts=(240, 270), phonons={"Mo": 0.065, "S": 0.08}, configurations=8,
    ),
    Recipe(
        "srtio3", "SrTiO3 [001], 5 nm thick, 300 kV", lambda _: structures.srtio3(),
        energy=300e3, semiangle_cutoff=25.0, detectors={"haadf": (60, 120), "abf": (12, 25)}, gpts=(320, 320),
        slice_thickness=structures.SRTIO3_LATTICE / 2, tolerance=1e-5,
    ),
]  # fmt: skip

RECIPES = {recipe.name: recipe for recipe in _STANDARD}
