"""Specimens that the spectrum twin can hold: each draws an image with the spectra behind it and measures one with its noise."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Protocol

import numpy as np
from pydantic import BaseModel, ConfigDict, Field
from scipy import constants

from probegym.hardware_bridge.commands import Lanes
from probegym.physics import centre_of_mass, ferroelectrics, plasmons, randomness, spectrum_files

SQUARE_ANGSTROM = 1e-20  # m^2

Fields = dict[str, tuple[float, float]]


class Source(Protocol):
    """What the twin asks of a kind of specimen.

    kind: of its spectra, as scalarizers know it. fields: what a scenario may draw -> (lowest, highest). hidden: names of
    further maps that ``draw`` returns. shape: (rows, columns). field_of_view: width in m. axis: (channels,).
    image_detector, spectrum_detector: their names.
    """

    @property
    def kind(self) -> str: ...

    @property
    def fields(self) -> Fields: ...

    @property
    def hidden(self) -> tuple[str, ...]: ...

    @property
    def shape(self) -> tuple[int, int]: ...

    @property
    def field_of_view(self) -> float: ...

    @property
    def axis(self) -> np.ndarray: ...

    @property
    def image_detector(self) -> str: ...

    @property
    def spectrum_detector(self) -> str: ...

    def draw(self, keys: np.ndarray, drawn: Lanes) -> Lanes:
        """``image`` (n, rows, columns), expected ``spectra`` (n, pixels, channels) and ``hidden`` (n, pixels) of keys (n,)."""

    def detect(self, state: Lanes, expected: np.ndarray, exposure_time: float) -> np.ndarray:
        """Spectra (n, channels) with their noise; state: ``key``, ``count``, the fields, and ``hidden`` at the place, (n,) each."""

    def dose(self, exposure_time: float) -> float:
        """Electrons per square Angstrom that one pixel gets."""


class _Options(BaseModel):
    """What a scenario says of a source under ``world.source``."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Plasmons(_Options):
    """Assemblies of nanoparticles in a STEM with a monochromated probe (physics/plasmons.py)."""

    name: Literal["plasmons"]
    kind: ClassVar[str] = "eels"
    image_detector: ClassVar[str] = "haadf"
    spectrum_detector: ClassVar[str] = "eels"
    fields: ClassVar[Fields] = {
        "count": (1.0, 80.0), "radius": (2e-9, 20e-9), "spread": (0.0, 0.5), "rods": (0.0, 1.0), "aspect": (1.5, 8.0), "clustered": (0.0, 1.0),
        "gap": (0.3, 5.0), "doped": (0.0, 1.0), "doping": (0.5, 2.0), "damping": (0.02, 0.5), "medium": (1.0, 4.0), "voltage": (3e4, 3e5),
        "resolution": (0.005, 0.3), "tail": (0.0, 1.0), "roughness": (0.0, 1.0),
    }  # fmt: skip
    hidden: ClassVar[tuple[str, ...]] = ()
    shape: ClassVar[tuple[int, int]] = plasmons.SHAPE
    axis: ClassVar[np.ndarray] = plasmons.AXIS
    field_of_view: ClassVar[float] = plasmons.PARAMETERS["pixel_size"] * plasmons.SHAPE[1]

    def draw(self, keys: np.ndarray, drawn: Lanes) -> Lanes:
        image, spectra = plasmons.assembly(keys, drawn, self.axis, self.shape)
        return {"image": image, "spectra": spectra}

    def detect(self, state: Lanes, expected: np.ndarray, exposure_time: float) -> np.ndarray:
        return plasmons.detect(expected, exposure_time, state["key"], state["count"], self.axis)

    def dose(self, exposure_time: float) -> float:
        dose: float = plasmons.CURRENT * exposure_time / constants.e / (plasmons.PARAMETERS["pixel_size"] ** 2 / SQUARE_ANGSTROM)
        return dose


class Films(_Options):
    """Ferroelectric films under the tip of a piezoresponse force microscope (physics/ferroelectrics.py)."""

    name: Literal["ferroelectrics"]
    kind: ClassVar[str] = "loop"
    image_detector: ClassVar[str] = "piezoresponse"
    spectrum_detector: ClassVar[str] = "loop"
    fields: ClassVar[Fields] = {
        "period": (80e-9, 1e-6), "anisotropy": (0.0, 1.0), "wall": (5e-9, 200e-9), "lamellae": (0.0, 20.0), "lamella": (10e-9, 300e-9),
        "defects": (0.0, 40.0), "response": (1e-3, 1e3), "coercive": (0.1, 8.0), "imprint": (-5.0, 5.0), "width": (0.1, 4.0), "slope": (-1.0, 1.0),
        "softening": (0.0, 1.0), "clamping": (0.0, 1.0), "mobility": (0.0, 5.0), "bowing": (0.0, 5.0), "disorder": (0.0, 1.0),
        "disorder_length": (20e-9, 1e-6), "roughness": (0.0, 1.0), "noise": (0.0, 100.0),
        "failures": (0.0, 1.0),
    }  # fmt: skip
    hidden: ClassVar[tuple[str, ...]] = ()
    shape: ClassVar[tuple[int, int]] = ferroelectrics.SHAPE
    axis: ClassVar[np.ndarray] = ferroelectrics.AXIS
    field_of_view: ClassVar[float] = ferroelectrics.PARAMETERS["pixel_size"] * ferroelectrics.SHAPE[1]

    def draw(self, keys: np.ndarray, drawn: Lanes) -> Lanes:
        told = {name: values for name, values in drawn.items() if name in ferroelectrics.PARAMETERS}
        image, spectra = ferroelectrics.film(keys, told, self.axis, self.shape)
        return {"image": image, "spectra": spectra}

    def detect(self, state: Lanes, expected: np.ndarray, exposure_time: float) -> np.ndarray:
        noise, failures = (state.get(name, 0.0) for name in ("noise", "failures"))  # noise: of each point in a loop of 1 s
        return ferroelectrics.measure(expected, noise / np.sqrt(exposure_time), state["key"], state["count"], failures)

    def dose(self, exposure_time: float) -> float:
        return 0.0


class Diffraction(_Options):
    """Crystals with defects in a STEM with a pixelated detector: the centre of mass of each pattern (physics/centre_of_mass.py)."""

    name: Literal["diffraction"]
    specimens: tuple[str, ...] = Field(min_length=1)
    kind: ClassVar[str] = "com"
    image_detector: ClassVar[str] = "haadf"
    spectrum_detector: ClassVar[str] = "com"
    current: ClassVar[float] = 5e-12  # A
    pixel_size: ClassVar[float] = 0.3e-10
    fields: ClassVar[Fields] = {"C10": (-15e-9, 15e-9), "C12a": (-10e-9, 10e-9), "C12b": (-10e-9, 10e-9), "C21a": (-2e-6, 2e-6), "C21b": (-2e-6, 2e-6)}
    hidden: ClassVar[tuple[str, ...]] = ("spread",)
    shape: ClassVar[tuple[int, int]] = centre_of_mass.SHAPE
    axis: ClassVar[np.ndarray] = centre_of_mass.COMPONENTS
    field_of_view: ClassVar[float] = 0.3e-10 * centre_of_mass.SHAPE[1]

    def draw(self, keys: np.ndarray, drawn: Lanes) -> Lanes:
        image, spectra, spread = centre_of_mass.specimen_maps(keys, self.specimens, drawn, self.shape, self.pixel_size)
        return {"image": image, "spectra": spectra, "spread": spread}

    def detect(self, state: Lanes, expected: np.ndarray, exposure_time: float) -> np.ndarray:
        return centre_of_mass.detect(expected, state["spread"], exposure_time, state["key"], state["count"], self.current)

    def dose(self, exposure_time: float) -> float:
        dose: float = self.current * exposure_time / constants.e / (self.pixel_size**2 / SQUARE_ANGSTROM)
        return dose


class Recorded(_Options):
    """A hyperspectral data set that was measured, turned and mirrored by the key (physics/spectrum_files.py); no noise is added."""

    name: Literal["recorded"]
    file: str  # a path, or the name of one that ships
    fields: ClassVar[Fields] = {}
    hidden: ClassVar[tuple[str, ...]] = ()

    @property
    def _map(self) -> spectrum_files.SpectrumMap:
        return spectrum_files.load(self.file)

    @property
    def kind(self) -> str:
        """As the file says."""
        return self._map.kind

    @property
    def image_detector(self) -> str:
        """Name of what the image is."""
        return {"loop": "piezoresponse", "eels": "haadf"}[self.kind]

    @property
    def spectrum_detector(self) -> str:
        """The kind."""
        return self.kind

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns)."""
        return self._map.image.shape

    @property
    def axis(self) -> np.ndarray:
        """(channels,)."""
        return self._map.axis

    @property
    def field_of_view(self) -> float:
        """Width in m."""
        return self._map.pixel_size * self.shape[1]

    def draw(self, keys: np.ndarray, drawn: Lanes) -> Lanes:
        rows, columns = self.shape
        turned = (8 * randomness.uniform(keys, 0, "turned", 1)[:, 0]).astype(int)
        if rows != columns:
            turned = turned // 2 * 2  # no quarter turns
        image, spectra = self._map.image, self._map.spectra.reshape(rows, columns, -1)
        return {"image": np.stack([_turned(image, code) for code in turned]),
                "spectra": np.stack([_turned(spectra, code).reshape(rows * columns, -1) for code in turned])}  # fmt: skip

    def detect(self, state: Lanes, expected: np.ndarray, exposure_time: float) -> np.ndarray:
        return expected

    def dose(self, exposure_time: float) -> float:
        return 0.0


def _turned(array: np.ndarray, code: int) -> np.ndarray:
    """One of the eight symmetries of a square on the first two axes."""
    return np.rot90(array[:, ::-1] if code & 4 else array, code & 3)


AnySource = Annotated[Plasmons | Films | Diffraction | Recorded, Field(discriminator="name")]
