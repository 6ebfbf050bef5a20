"""``probegym specimen build``: a standard recipe or a structure file, into the user's cache folder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from probegym.agents import files
from probegym.console import bar, say
from probegym.errors import ProbeGymError
from probegym.physics import from_file, specimens
from probegym.physics.native import cache_folder
from probegym.physics.recipes import RECIPES
from probegym.physics.specimens import Recipe

DEFAULT_ENERGY, DEFAULT_SEMIANGLE = 60e3, 30.0  # eV, mrad: those of the standard scenarios
DEFAULT_DETECTORS = {"haadf": (80.0, 180.0)}


def _changed(recipe: Recipe, energy: float | None, semiangle: float | None, detectors: dict, name: str | None) -> Recipe:
    """A standard recipe with the user's values, under a name that tells them."""
    changes: dict[str, Any] = {key: v for key, v in (("energy", energy), ("semiangle_cutoff", semiangle), ("detectors", detectors)) if v}
    if not changes and name is None:
        return recipe
    if not recipe.detectors:
        raise ProbeGymError(f"{recipe.name!r} is a film for Ronchigrams and built as it is: leave the options out")
    varied = replace(recipe, **changes)
    cell = recipe.atoms(0).cell.lengths()
    angle = max(varied.semiangle_cutoff, *(outer for _, outer in varied.detectors.values()))
    rows, columns = from_file.grid(cell[:2], varied.energy, angle)
    gpts = (max(rows, recipe.gpts[0]), max(columns, recipe.gpts[1]))
    if (needed := from_file.memory(cell[:2], varied.energy, varied.semiangle_cutoff, gpts)) > from_file.MAXIMUM_MEMORY:
        raise ProbeGymError(f"a scattering matrix of {needed / 1e9:.1f} GB does not fit: use a smaller semiangle or outer detector angle")
    name = name or f"{recipe.name}-{varied.energy / 1e3:g}kv-{varied.semiangle_cutoff:g}mrad"
    return replace(varied, gpts=gpts, name=from_file.checked_name(name), description=f"{recipe.description.split(', ')[0]}, {varied.energy / 1e3:g} kV")


def recipe(what: str, energy: float | None, semiangle: float | None, detectors: list[str], thickness: float, name: str | None) -> Recipe:
    """What to build; raises ProbeGymError for an unknown name or a bad option."""
    wanted = dict(from_file.detector(text) for text in detectors)
    if what in RECIPES:
        return _changed(RECIPES[what], energy, semiangle, wanted, name)
    path = Path(what)
    if path.suffix.lower() not in from_file.FORMATS:
        raise ProbeGymError(f"unknown specimen {what!r}: use one of {', '.join(RECIPES)}, or a file that ends in .cif or .xyz")
    name = from_file.checked_name(name or path.stem.lower().replace(" ", "-"))
    if name in RECIPES:
        raise ProbeGymError(f"{name!r} is a standard specimen: choose another with --name")
    return from_file.recipe(path, name, energy or DEFAULT_ENERGY, semiangle or DEFAULT_SEMIANGLE, wanted or DEFAULT_DETECTORS, 10 * thickness)


def build(what: str, energy: float | None, semiangle: float | None, detectors: list[str], thickness: float, name: str | None,
          console: Console) -> Path:  # fmt: skip
    """Build and keep a specimen; returns its file. The folder is tried before the work starts."""
    folder = cache_folder() / "specimens"
    try:
        files.writable(folder)
    except ProbeGymError as error:
        raise ProbeGymError(str(error).replace("choose another with --out", "set PROBEGYM_CACHE to another")) from error
    wanted = recipe(what, energy, semiangle, detectors, thickness, name)
    say(console, f"building {wanted.name}: {wanted.description}")
    with bar(console) as progress:
        task = progress.add_task("starting", told="")
        built = specimens.build(wanted, lambda stage, done, total: progress.update(task, description=stage, completed=done, total=total))
    path = folder / f"{wanted.name}.npz"
    specimens.save(built, path)
    say(console, f"kept in {path}, {path.stat().st_size / 1e6:.1f} MB: a scenario names it as specimens: [{wanted.name}]")
    return path
