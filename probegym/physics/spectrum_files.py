"""Measured hyperspectral maps from HDF5: one spectrum per pixel, to be explored as if it were measured again.

The layout is that of sidpy and pyNSID: a three-dimensional dataset whose axes carry dimension scales with ``units``, two of
lengths and one of the spectrum (bias in V: hysteresis loops; energy loss in eV: EELS). The shipped file is band-excitation
piezoresponse of a PbTiO3 film from pycroscopy's DTMicroscope (data/README.md). The HDF5 library itself is no safe reader of
files made to harm: open those of people you know.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from probegym.errors import ProbeGymError

SHIPPED = {path.stem: path for path in (Path(__file__).parent / "data").glob("*.h5")}
LENGTHS = {"m": 1.0, "mm": 1e-3, "um": 1e-6, "µm": 1e-6, "μm": 1e-6, "nm": 1e-9, "Å": 1e-10, "pm": 1e-12}
SPECTRAL = {"V": ("loop", 1.0), "mV": ("loop", 1e-3), "eV": ("eels", 1.0), "meV": ("eels", 1e-3), "keV": ("eels", 1e3)}
"""Units of the spectrum's axis: kind of spectrum, and how many V or eV one is."""
MAXIMUM_VALUES = 50_000_000
FEWEST = 8  # pixels along a side, and channels
FLOOR = 1e-3  # of the median amplitude: what a logarithm takes for nothing


@dataclass(frozen=True)
class SpectrumMap:
    """A measured map. Rows run along y, columns along x.

    kind: "loop" or "eels". image: (rows, columns) float32, see ``structural_image``. spectra: (rows x columns, channels).
    axis: (channels,) in V or eV. extent: (x, y) from the first pixel to the last, m. quantity, units: what the spectra hold.
    measurable: (rows x columns,) False where the file has NaN or infinity; spectra are zero there.
    """

    name: str
    kind: str
    image: np.ndarray
    spectra: np.ndarray
    axis: np.ndarray
    extent: tuple[float, float]
    quantity: str
    units: str
    measurable: np.ndarray

    @property
    def pixel_size(self) -> float:
        """Distance of neighbouring columns, m."""
        return self.extent[0] / (self.image.shape[1] - 1)


class _Axis(NamedTuple):
    name: str
    units: str
    values: np.ndarray


def structural_image(kind: str, axis: np.ndarray, spectra: np.ndarray) -> np.ndarray:
    """What a quick image would show before any spectrum is taken; spectra (rows, columns, channels) -> float32 (rows, columns).

    Loops: log10 of the piezoresponse's amplitude at the first channel at zero bias, before the cycle has poled the pixel.
    The response spans six decades, resonances that were fitted badly included, and its sign flips from pixel to pixel where
    it is large: in the shipped map, the amplitude's logarithm tells of the loops behind the pixels what the raw and the
    signed image do not. Energy losses: the sum over the channels.
    """
    if kind != "loop":
        return spectra.sum(-1).astype(np.float32)
    bias = np.abs(axis)
    amplitude = np.abs(spectra[..., np.flatnonzero(bias <= bias.min() + 1e-6 * bias.max())[0]])
    return np.log10(np.maximum(amplitude, FLOOR * np.median(amplitude) or FLOOR)).astype(np.float32)


@lru_cache(maxsize=8)
def load(name: str = "BEPS_PTO_50x50") -> SpectrumMap:
    """A shipped map by name, or a user's by path; shared and read-only. Raises ProbeGymError."""
    if name in SHIPPED:
        return read(SHIPPED[name])
    if Path(name).suffix not in (".h5", ".hdf5", ".hf5", ".nsid"):
        raise ProbeGymError(f"unknown spectrum map {name!r}: use one of {', '.join(sorted(SHIPPED))}, or the path of an .h5 file")
    return read(Path(name))


def read(path: str | Path, dataset: str | None = None, allow_missing: bool = False) -> SpectrumMap:
    """Read a map from an HDF5 file.

    dataset: its path inside the file, needed where there are several. allow_missing: leave pixels whose spectra hold NaN or
    infinity out (``measurable``) instead of refusing the file; more than half of them are refused all the same. Raises
    ProbeGymError for a file that is missing, empty, damaged or of another layout.
    """
    import h5py

    path = Path(path)
    try:
        if not path.is_file():
            raise ProbeGymError(f"there is no file {path}: check the path")
        if path.stat().st_size == 0:
            raise ProbeGymError(f"{path} is empty: copy or export it again")
        if not h5py.is_hdf5(path):
            raise ProbeGymError(f"{path} is not an HDF5 file: export the map as HDF5, in the layout of sidpy and pyNSID")
        with h5py.File(path, "r") as file:
            found = _dataset(file, path, dataset)
            where = f"{path}: dataset {found.name}"
            axes = [_axis(found, number, where) for number in range(3)]
            values = found[()]
            quantity, units = (_text(found.attrs.get(name, "")) for name in ("quantity", "units"))
    except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:  # what h5py raises where bytes are missing or wrong
        raise ProbeGymError(
            f"{path} cannot be read ({' '.join(str(error).split())[:120]}): copy or export it again, it may be cut short"
        ) from error
    kind, axis, extent, order = _oriented(axes, where)
    with np.errstate(over="ignore"):
        cube = values.transpose(order).astype(np.float32)
    image, spectra, measurable = _measured(kind, axis, cube, where, allow_missing)
    return SpectrumMap(path.stem, kind, image, spectra, axis, extent, quantity, units, measurable)


def _dataset(file, path: Path, name: str | None):
    """The three-dimensional dataset of an open file; links to other files are not followed."""
    import h5py

    cubes: dict = {}
    file.visititems(lambda _, item: cubes.update({item.name: item}) if isinstance(item, h5py.Dataset) and item.ndim == 3 else None)
    if not cubes:
        raise ProbeGymError(f"{path} holds no three-dimensional dataset: a map needs two axes of position and one of bias or energy")
    if name is None and len(cubes) > 1:
        raise ProbeGymError(f"{path} holds {len(cubes)} three-dimensional datasets: name one of {', '.join(cubes)}")
    wanted = next(iter(cubes)) if name is None else "/" + name.strip("/")
    if wanted not in cubes:
        raise ProbeGymError(f"{path} holds no three-dimensional dataset {name!r}: name one of {', '.join(cubes)}")
    found = cubes[wanted]
    if found.dtype.kind == "c":
        raise ProbeGymError(f"{path}: dataset {wanted} is complex: save its in-phase part, amplitude times cosine of the phase")
    if found.dtype.kind not in "fiu":
        raise ProbeGymError(f"{path}: dataset {wanted} holds {found.dtype}, not numbers: save it as floating point")
    if found.is_virtual or found.external:
        raise ProbeGymError(f"{path}: dataset {wanted} lies in other files: copy the values into this one")
    if min(found.shape) < FEWEST or found.size > MAXIMUM_VALUES:
        raise ProbeGymError(
            f"{path}: dataset {wanted} has shape {found.shape}: it needs {FEWEST} or more along each axis, {MAXIMUM_VALUES} at most in all"
        )
    return found


def _axis(found, number: int, where: str) -> _Axis:
    scales = found.dims[number]
    if not len(scales):
        raise ProbeGymError(f"{where} has no dimension scale on axis {number}: attach one with units, as sidpy and pyNSID do")
    scale, values = scales[0], np.asarray(scales[0][()], float)
    name, units = (_text(scale.attrs.get(key, "")) for key in ("name", "units"))
    if values.shape != found.shape[number : number + 1] or not np.isfinite(values).all():
        raise ProbeGymError(f"{where}: the scale of axis {number} must hold {found.shape[number]} finite numbers")
    return _Axis(name or scale.name.rsplit("/", 1)[-1], units, values)


def _oriented(axes: list[_Axis], where: str) -> tuple[str, np.ndarray, tuple[float, float], tuple[int, int, int]]:
    """Kind, axis of the spectra, extent, and the order of axes that gives (y, x, spectrum)."""
    spectral = [number for number, axis in enumerate(axes) if axis.units in SPECTRAL]
    places = [number for number, axis in enumerate(axes) if axis.units in LENGTHS]
    if len(spectral) != 1 or len(places) != 2:
        told = ", ".join(f"{axis.name} in {axis.units!r}" for axis in axes)
        raise ProbeGymError(f"{where} has the axes {told}: needed are two in {', '.join(LENGTHS)} and one in {', '.join(SPECTRAL)}")
    if axes[places[0]].name.lower().startswith("x"):  # the axis called x runs along the columns, wherever it stands
        places.reverse()
    for number in places:
        step = np.diff(axes[number].values)
        if not (step > 0).all() or np.ptp(step) > 0.01 * step.mean():
            raise ProbeGymError(
                f"{where}: positions along {axes[number].name} must ascend in even steps: interpolate the map to an even grid"
            )
    height, width = (float(np.ptp(axes[number].values)) * LENGTHS[axes[number].units] for number in places)
    down, across = (extent / (len(axes[number].values) - 1) for extent, number in zip((height, width), places, strict=True))
    if abs(down / across - 1) > 0.01:
        raise ProbeGymError(f"{where}: pixels are {across:.4g} m by {down:.4g} m: interpolate the map to square ones, or mend the units of its axes")
    kind, unit = SPECTRAL[axes[spectral[0]].units]
    axis = axes[spectral[0]].values * unit
    steps = np.diff(axis)
    if kind == "eels" and not (steps > 0).all():
        raise ProbeGymError(f"{where}: energies must ascend: sort the channels")
    if kind == "loop" and not ((steps > 0).any() and (steps < 0).any()):
        raise ProbeGymError(f"{where}: the bias must go up and down in a loop: a sweep in one direction has no hysteresis")
    return kind, axis, (width, height), (places[0], places[1], spectral[0])


def _measured(kind: str, axis: np.ndarray, cube: np.ndarray, where: str, allow_missing: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Structural image, spectra and which pixels have one."""
    measurable = np.isfinite(cube).all(-1)
    missing = int((~measurable).sum())
    if missing and not (allow_missing and missing <= measurable.size // 2):
        raise ProbeGymError(f"{where}: {missing} of {measurable.size} spectra hold NaN or infinity: measure these again, or interpolate them")
    cube = np.where(measurable[..., None], cube, 0)
    image = structural_image(kind, axis, cube)
    image[~measurable] = np.median(image[measurable])
    return image, cube.reshape(-1, cube.shape[-1]), measurable.ravel()


def _text(value) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
