"""4D-STEM: the centre of mass of the diffraction pattern at every probe position, exact for any aberration state.

A mean scattering angle is bilinear in the probe as a detector's signal is (physics/image_formation.py): the detector's
weight is the angle itself, M_kk' = sum_g g S_k(g) S*_k'(g). With |g|^2 the same way comes the variance of the angle, hence
the shot noise of the centre of mass. The camera catches every scattered electron, so the mean needs no division by the
counts (sum_g S_k S*_k' is the unit matrix), and for a thin specimen the centre of mass is Ehrenfest's exactly,

    <k>(r) = (sigma / 2 pi) int |psi_p(r' - r)|^2 grad V_proj(r') dr',

the probe-weighted projected field, towards the nuclei (Mueller et al., Nat. Commun. 5, 5653 (2014), 10.1038/ncomms6653).
Of what ships, graphene obeys it to 0.1 %, MoS2 to 10 % and 1.6 nm of SrTiO3 to 40 %; the tensors keep the propagation that
makes the difference (benchmarks/centre_of_mass.py).
Angles are in mrad; maps have rows along y and columns along x.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import constants

from probegym.errors import ProbeGymError
from probegym.physics import randomness, specimens
from probegym.physics.image_formation import ImageFormer, raster
from probegym.physics.optics import ABERRATIONS
from probegym.physics.specimens import MOMENTS, MRAD

SHAPE = (50, 50)
DIHEDRAL = 8  # mirrors along x and y, and the exchange of the two
COMPONENTS = np.arange(2.0)
"""The axis of a spectrum: 0 is the component along x, 1 that along y."""


@dataclass(frozen=True)
class Optics:
    """Of the probe. semiangle_cutoff: rad, 0 for the widest that the specimen allows; source_size, focal_spread: standard deviations, m."""

    semiangle_cutoff: float = 0.0
    source_size: float = 0.3e-10
    focal_spread: float = 20e-10


@lru_cache(maxsize=64)
def _former(name: str, tensor: str, names: tuple[str, ...], optics: Optics) -> ImageFormer:
    specimen = specimens.load(name)
    try:
        return ImageFormer(
            specimen.tensors[tensor], optics.semiangle_cutoff or specimen.semiangle_cutoff, names, optics.source_size, optics.focal_spread
        )
    except KeyError as error:
        raise ProbeGymError(f"specimen {name!r} has no {error} tensor: use one of {', '.join(specimens.measurable())}") from error
    except ValueError as error:
        raise ProbeGymError(f"specimen {name!r}: {error}") from error


def _aberrations(parameters: Mapping, lanes: int) -> tuple[tuple[str, ...], np.ndarray]:
    unknown = sorted(set(parameters) - set(ABERRATIONS))
    if unknown:
        raise ProbeGymError(
            f"unknown aberration {', '.join(map(repr, unknown))}: use names such as C10 (minus the defocus), C12a and C12b, in m"
        )
    names = tuple(name for name in ABERRATIONS if name in parameters) or ("C10",)
    values = np.stack([np.broadcast_to(np.asarray(parameters.get(name, 0.0), float), lanes) for name in names], axis=1)
    if not np.isfinite(values).all():
        raise ProbeGymError("aberrations must be finite numbers of metres")
    return names, values


def maps(name: str, coefficients: np.ndarray, names: Sequence[str], origin, shape=SHAPE, pixel_size: float | None = None,
         optics: Optics = Optics(), detector: str = "haadf") -> dict[str, np.ndarray]:  # fmt: skip
    """Noiseless maps of one specimen for aberrations (lanes, n) in m, from ``origin`` (lanes, 2) in m.

    Returns "image", of an annular detector, in fractions of the beam; "com_x" and "com_y" in mrad; "spread", the standard
    deviation of either component for a single electron in mrad, that of N being sqrt(N) smaller: float32 (lanes, rows,
    columns). pixel_size: m, by default the cell is filled. Raises ProbeGymError.
    """
    rows, columns = shape
    pixel = pixel_size or min(specimens.load(name).extent) / max(shape)
    line_x, line_y = raster(len(coefficients), rows, pixel, origin)
    image, x, y, square = (
        _former(name, tensor, tuple(names), optics).images(coefficients, line_x, line_y, columns, pixel) for tensor in (detector, *MOMENTS)
    )
    spread = np.sqrt(np.maximum(square - x**2 - y**2, 0) / 2)
    return {"image": image, "com_x": x / MRAD, "com_y": y / MRAD, "spread": spread / MRAD}


def specimen_maps(keys, names: Sequence[str], parameters: Mapping, shape: tuple[int, int] = SHAPE, pixel_size: float | None = None,
                  optics: Optics = Optics()) -> tuple[np.ndarray, np.ndarray, np.ndarray]:  # fmt: skip
    """Specimens drawn from keys: structural image, centre of mass behind every pixel, and its spread.

    keys: (lanes,) uint64; a key draws one of ``names``, the place of the field of view in the cell, and one of the mirrors
    and quarter turns of a square (of the specimen and the probe together). parameters: aberrations by name, numbers or
    (lanes,) in m. pixel_size: m, by default the cell is filled. Returns the HAADF image (lanes, rows, columns) in fractions
    of the beam, the mean (com_x, com_y) in mrad (lanes, rows x columns, 2), and the standard deviation of either component
    for a single electron in mrad (lanes, rows x columns), all float32 and free of noise. Raises ProbeGymError.
    """
    keys = np.ascontiguousarray(keys, np.uint64).reshape(-1)
    if not len(names):
        raise ProbeGymError(f"no specimens to draw from: name some of {', '.join(specimens.measurable())}")
    aberrations, coefficients = _aberrations(parameters, len(keys))
    drawn = randomness.uniform(keys, 0, "com.specimen", 4)
    chosen = (drawn[:, 0] * len(names)).astype(int)
    turned = (drawn[:, 1] * DIHEDRAL).astype(int)
    images = np.empty((len(keys), *shape), np.float32)
    spectra = np.empty((len(keys), *shape, 2), np.float32)
    spreads = np.empty((len(keys), *shape), np.float32)
    for index in np.unique(chosen):
        here = np.nonzero(chosen == index)[0]
        origin = drawn[here, 2:] * specimens.load(names[index]).extent
        found = maps(names[index], coefficients[here], aberrations, origin, shape, pixel_size, optics)
        for lane, at in enumerate(here):
            vector = np.stack([found["com_x"][lane], found["com_y"][lane]], axis=-1)
            images[at], spectra[at], spreads[at] = _turned(found["image"][lane], vector, found["spread"][lane], int(turned[at]))
    return images, spectra.reshape(len(keys), -1, 2), spreads.reshape(len(keys), -1)


def _turned(image: np.ndarray, vector: np.ndarray, spread: np.ndarray, code: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A map mirrored along x (bit 0) and y (bit 1), then, where it is square, with x and y exchanged (bit 2): vectors turn as well."""
    step_x, step_y = 1 - 2 * (code & 1), 1 - (code & 2)
    image, vector, spread = (field[::step_y, ::step_x] for field in (image, vector, spread))
    vector = vector * np.array([step_x, step_y], np.float32)
    if code & 4 and image.shape[0] == image.shape[1]:
        return image.T, vector.transpose(1, 0, 2)[..., ::-1], spread.T
    return image, vector, spread


def detect(vectors: np.ndarray, spread: np.ndarray, exposure, keys, step, current: float = 50e-12) -> np.ndarray:
    """Measured centres of mass (lanes, 2) in mrad: the means (lanes, 2) and the shot noise of the dose.

    spread: (lanes,) mrad, of a single electron. exposure: s, a number or (lanes,). current: A. The mean angle of thousands of
    electrons is normally distributed. keys (lanes,) and step, a number or (lanes,), say which noise it is.
    """
    electrons = np.broadcast_to(np.asarray(exposure, float), len(vectors)) * current / constants.e
    noise = randomness.normal(keys, step, "com.noise", 2)
    return (vectors + noise * (np.asarray(spread) / np.sqrt(electrons))[:, None]).astype(np.float32)
