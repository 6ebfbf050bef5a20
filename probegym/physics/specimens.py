"""Specimens: atoms (ASE) -> scattering tensors and film potentials (abTEM), kept as small data files.

abTEM (GPL-3-or-later) is imported only by the functions that build; loading a specimen needs NumPy alone. A file is an
``.npz`` whose header carries a SHA-256 of its arrays; a damaged file is refused.

Source of the method: Madsen & Susi, Open Research Europe 1:24 (2021), 10.12688/openreseurope.13015.2.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from probegym.errors import ProbeGymError
from probegym.physics.image_formation import ScatteringTensor, half_plane
from probegym.physics.native import cache_folder
from probegym.physics.optics import wavelength

if TYPE_CHECKING:
    from ase import Atoms

SHIPPED = Path(__file__).parent / "data"
FORMAT = 1
ANGSTROM, MRAD = 1e-10, 1e-3
MOMENTS = ("com_x", "com_y", "square")
"""Tensors of a camera that catches every electron: mean scattering angles along x and y, rad, and mean squared angle, rad^2."""
LEVELS = {"square": 2047}
"""Steps of the fixed-point numbers in a file, where fewer than 32767 do: a variance need not be exact."""


@dataclass(frozen=True)
class Specimen:
    """What the twin needs of a specimen: tensors by detector, or the potential slices of a film, or both.

    energy: eV. extent: (x, y) of the periodic cell, m. semiangle_cutoff: rad, the widest aperture the tensors allow.
    detectors: name -> (inner, outer) in rad. tensors: those of the detectors, and MOMENTS if the recipe asks. films:
    (variants, slices, gpts, gpts) projected potential in V m, axes (x, y), band-limited as abTEM's. slice_thickness: m.
    """

    name: str
    description: str
    energy: float
    extent: tuple[float, float]
    semiangle_cutoff: float
    detectors: dict[str, tuple[float, float]] = field(default_factory=dict)
    tensors: dict[str, ScatteringTensor] = field(default_factory=dict)
    films: np.ndarray | None = None
    slice_thickness: float = 0.0


@dataclass(frozen=True)
class Recipe:
    """How a standard specimen is built; angles in mrad, lengths in Angstrom, as abTEM takes them."""

    name: str
    description: str
    atoms: Callable[[int], Atoms]  # by variant
    energy: float = 60e3
    semiangle_cutoff: float = 30.0
    detectors: dict[str, tuple[float, float]] = field(default_factory=dict)
    gpts: tuple[int, int] = (256, 256)
    slice_thickness: float = 1.0
    phonons: dict[str, float] = field(default_factory=dict)  # displacement per direction, by element
    configurations: int = 1
    tolerance: float = 0.0
    variants: int = 1  # of a film
    moments: bool = False  # MOMENTS as well


def slices_of(recipe: Recipe, variant: int = 0, seed: int = 0, configurations: int | None = None) -> list:
    """AbTEM potentials (built) of a recipe, one per frozen-phonon configuration."""
    import abtem

    atoms = recipe.atoms(variant)
    count = recipe.configurations if configurations is None else configurations
    if recipe.phonons:
        elements = {s: recipe.phonons[s] for s in set(atoms.get_chemical_symbols())}
        snapshots = [c for c in abtem.FrozenPhonons(atoms, count, sigmas=elements, seed=seed)]
        snapshots = [getattr(c, "atoms", c) for c in snapshots]
    else:
        snapshots = [atoms]
    build = functools.partial(abtem.Potential, gpts=recipe.gpts, slice_thickness=recipe.slice_thickness,
                              parametrization="lobato", projection="infinite")  # fmt: skip
    with abtem.config.set({"diagnostics.progress_bar": False}):
        return [build(snapshot).build(lazy=False) for snapshot in snapshots]


def scattering_matrix(potential, energy: float, semiangle_cutoff: float):
    """S_k(g) of one potential; the beams reach half a step past the cut-off, room for a soft edge.

    Returns (beams (n, 2) int, S (n, gx, gy) complex, (gx, gy) scattering angles as kx, ky in 1/A).
    """
    import abtem

    with abtem.config.set({"diagnostics.progress_bar": False}):
        waves = abtem.SMatrix(semiangle_cutoff=semiangle_cutoff, energy=energy, potential=potential, interpolation=1)
        matrix = waves.build(lazy=False)
    extent = np.array(matrix.extent)
    spectrum = np.fft.fft2(np.asarray(matrix.array)).astype(np.complex64)
    frequencies = [np.fft.fftfreq(g, d=e / g) for g, e in zip(spectrum.shape[1:], extent, strict=True)]
    return np.rint(matrix.wave_vectors * extent).astype(int), spectrum, np.meshgrid(*frequencies, indexing="ij")


def bilinear_matrix(spectrum: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """M_kk' = sum_g D(g) S_k(g) S*_k'(g) for a detector weight D on the grid of g; (beams, beams) complex."""
    used = weight != 0
    waves = spectrum[:, used]
    return (waves * weight[used]) @ waves.conj().T


def build(recipe: Recipe, progress: Callable[[str, int, int], None] = lambda *_: None) -> Specimen:
    """Run abTEM for a recipe. ``progress(stage, done, total)`` is called as it goes."""
    lam = wavelength(recipe.energy) / ANGSTROM
    if not recipe.detectors:
        return _build_film(recipe, progress)
    potentials = slices_of(recipe)
    extent = np.array(potentials[0].extent)
    total: dict[str, np.ndarray] = {}
    for done, potential in enumerate(potentials):
        progress("scattering matrix", done, len(potentials))
        beams, spectrum, (kx, ky) = scattering_matrix(potential, recipe.energy, recipe.semiangle_cutoff)
        for name, weight in _weights(recipe, kx * lam, ky * lam).items():
            total[name] = total.get(name, 0) + bilinear_matrix(spectrum, weight.astype(np.float32)) / len(potentials)
    progress("scattering matrix", len(potentials), len(potentials))
    shape = (recipe.energy, recipe.semiangle_cutoff * MRAD, tuple(extent * ANGSTROM), beams)
    tensors = {name: ScatteringTensor.from_matrix(*shape, m, recipe.tolerance) for name, m in total.items()}
    detectors = {name: (inner * MRAD, outer * MRAD) for name, (inner, outer) in recipe.detectors.items()}
    return Specimen(recipe.name, recipe.description, recipe.energy, shape[2], shape[1], detectors, tensors)


def _weights(recipe: Recipe, angle_x: np.ndarray, angle_y: np.ndarray) -> dict[str, np.ndarray]:
    """Detector weights on the grid of scattering angles, rad."""
    square = angle_x**2 + angle_y**2
    annular = {name: (square >= (inner * MRAD) ** 2) & (square < (outer * MRAD) ** 2) for name, (inner, outer) in recipe.detectors.items()}
    return annular | (dict(zip(MOMENTS, (angle_x, angle_y, square), strict=True)) if recipe.moments else {})


def _build_film(recipe: Recipe, progress) -> Specimen:
    films = []
    for variant in range(recipe.variants):
        progress("film", variant, recipe.variants)
        potential = slices_of(recipe, variant)[0]
        films.append(np.asarray(potential.array, np.float32) * ANGSTROM)
    progress("film", recipe.variants, recipe.variants)
    width, height = (float(e) * ANGSTROM for e in potential.extent)
    thickness = float(potential.slice_thickness[0]) * ANGSTROM
    return Specimen(recipe.name, recipe.description, recipe.energy, (width, height), recipe.semiangle_cutoff * MRAD,
                    films=np.stack(films), slice_thickness=thickness)  # fmt: skip


# ---- files ----


def save(specimen: Specimen, path: Path) -> None:
    """Write atomically; raises ProbeGymError when the folder cannot be written."""
    arrays: dict[str, Any] = {}
    for name, tensor in specimen.tensors.items():
        arrays["beams"] = tensor.beams.astype(np.int16)
        arrays[f"{name}/kept"] = np.packbits(_kept(tensor))
        # 16-bit fixed point, the unscattered beams apart: errors of M average out in an image, to 1e-5 of its range
        # (benchmarks/agreement.py). M is smooth in k at equal Q, so steps from pair to pair compress better than values.
        direct = tensor.first == tensor.second
        scale = np.array([np.abs(tensor.values[part]).max(initial=0.0) or 1.0 for part in (~direct, direct)]) / LEVELS.get(name, 32767)
        values = np.rint(np.stack([tensor.values.real, tensor.values.imag]) / scale[direct.astype(int)]).astype(np.int16)
        arrays[f"{name}/steps"] = np.diff(values, axis=1, prepend=np.int16(0))
        arrays[f"{name}/scale"] = scale
    if specimen.films is not None:
        peak = np.float32(np.abs(specimen.films).max())
        arrays["films"] = (specimen.films / peak).astype(np.float16)
        arrays["films/peak"] = peak
    header = {
        "format": FORMAT, "name": specimen.name, "description": specimen.description, "energy": specimen.energy,
        "extent": specimen.extent, "semiangle_cutoff": specimen.semiangle_cutoff, "detectors": specimen.detectors,
        "slice_thickness": specimen.slice_thickness,
        "moments": [name for name in MOMENTS if name in specimen.tensors],
    }  # fmt: skip
    header["sha256"] = _digest(header, arrays)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".part", delete=False) as scratch:
            try:
                np.savez_compressed(scratch, header=np.array(json.dumps(header)), **arrays)
                scratch.close()
                os.chmod(scratch.name, 0o644)
                os.replace(scratch.name, path)
            except BaseException:
                os.unlink(scratch.name)
                raise
    except OSError as error:
        raise ProbeGymError(f"cannot write specimen file {path} ({error.strerror}): free space or choose another folder") from error


def _kept(tensor: ScatteringTensor) -> np.ndarray:
    first, second = half_plane(tensor.beams)
    beams = len(tensor.beams)
    return np.isin(first.astype(np.int64) * beams + second, tensor.first.astype(np.int64) * beams + tensor.second)


def _digest(header: dict, arrays: dict[str, np.ndarray]) -> str:
    told = {name: value for name, value in header.items() if name != "sha256"}
    digest = hashlib.sha256(json.dumps(told, sort_keys=True).encode())
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name}{array.dtype}{array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def read(path: Path) -> Specimen:
    """Load and verify a specimen file; raises ProbeGymError when it is damaged or of another format."""
    mend = "delete it and run 'probegym specimen build' or reinstall probegym"
    try:
        with np.load(path, allow_pickle=False) as stored:
            header = json.loads(str(stored["header"]))
            arrays = {name: stored[name] for name in stored.files if name != "header"}
    except FileNotFoundError as error:
        raise ProbeGymError(f"no specimen file {path}") from error
    except Exception as error:  # a damaged archive raises whatever its damaged part is read as
        raise ProbeGymError(f"specimen file {path} cannot be read ({type(error).__name__}): {mend}") from error
    found = header.get("format") if isinstance(header, dict) else None
    if found != FORMAT:
        raise ProbeGymError(f"specimen file {path} has format {found}, this version reads {FORMAT}: {mend}")
    if header.get("sha256") != _digest(header, arrays):
        raise ProbeGymError(f"specimen file {path} does not match its checksum: {mend}")
    try:
        return _assemble(header, arrays)
    except KeyError as error:
        raise ProbeGymError(f"specimen file {path} has no {error}: {mend}") from error


def _assemble(header: dict, arrays: dict[str, np.ndarray]) -> Specimen:
    extent = tuple(header["extent"])
    tensors, films = {}, None
    if header["detectors"]:
        beams = arrays["beams"].astype(int)
        first, second = half_plane(beams)
        for name in [*header["detectors"], *header.get("moments", ())]:
            kept = np.unpackbits(arrays[f"{name}/kept"], count=len(first)).astype(bool)
            one, other = first[kept], second[kept]
            tensors[name] = ScatteringTensor(header["energy"], header["semiangle_cutoff"], extent, beams,
                                             one, other, _values(arrays, name, one == other))  # fmt: skip
    if "films" in arrays:
        films = arrays["films"].astype(np.float32) * arrays["films/peak"]
    detectors = {name: tuple(limits) for name, limits in header["detectors"].items()}
    return Specimen(header["name"], header["description"], header["energy"], extent, header["semiangle_cutoff"],
                    detectors, tensors, films, header["slice_thickness"])  # fmt: skip


def _values(arrays: dict[str, np.ndarray], name: str, direct: np.ndarray) -> np.ndarray:
    """M of the pairs kept; files written before there were moments hold values and one scale."""
    if f"{name}/values" in arrays:
        real, imag = arrays[f"{name}/values"] * arrays[f"{name}/scale"]
    else:
        real, imag = np.cumsum(arrays[f"{name}/steps"], axis=1, dtype=np.int16) * arrays[f"{name}/scale"][direct.astype(int)]
    return real + 1j * imag


def folders() -> list[Path]:
    """Where specimens are looked for: the user's own first, then those that ship."""
    return [cache_folder() / "specimens", SHIPPED]


def available() -> dict[str, Path]:
    """Name -> file of every specimen that can be loaded."""
    found = [path for folder in reversed(folders()) for path in sorted(folder.glob("*.npz"))]
    return {path.stem: path for path in found}


def measurable() -> tuple[str, ...]:
    """Names of the specimens whose files hold MOMENTS; a file that cannot be opened has none."""
    return tuple(name for name, path in available().items() if _holds_moments(path))


def _holds_moments(path: Path) -> bool:
    try:
        with np.load(path, allow_pickle=False) as stored:
            return {f"{name}/scale" for name in MOMENTS} <= set(stored.files)
    except Exception:  # as for reading; reading it tells what is wrong
        return False


@functools.lru_cache(maxsize=32)
def load(name: str) -> Specimen:
    """A specimen by name, shared and read-only; raises ProbeGymError for an unknown one."""
    found = available()
    if name not in found:
        raise ProbeGymError(f"unknown specimen {name!r}: use one of {', '.join(sorted(found))}, or build it with 'probegym specimen build'")
    return read(found[name])
