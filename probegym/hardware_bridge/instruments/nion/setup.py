"""What a driver must be told of a Nion instrument: names of its devices and controls, and limits. Plain data."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, PositiveFloat, model_validator

from probegym.physics.optics import ABERRATIONS, split_name


class NionSetup(BaseModel):
    """Identifiers are those of Nion Swift's registry. On a microscope they are such as ``autostem_controller``, ``superscan`` and ``nion1010``.

    Set points of aberrations count from where the controls stood when the driver was opened: what a corrector calls zero is seldom
    where it stands. ``focus`` is the control that makes the excursions of a single frame.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    name: str = "Nion STEM"
    instrument: str
    scan: str
    ronchigram: str | None = None
    spectrometer: str | None = None
    controls: dict[str, PositiveFloat]  # coefficient -> how far it may be set from where it stood, m
    focus: str = "C10"
    stage: str = "stage_position_m"  # a control with .x and .y, m
    shift: str = "CSH"
    detectors: dict[str, str] = {}  # name in the language -> name of the scan's channel
    binning: int = Field(default=1, ge=1, le=64)  # of the Ronchigram camera
    counts_per_electron: PositiveFloat = 1.0  # of a binned pixel of that camera
    sides: tuple[int, int] = (16, 2048)  # least and most of a scan's rows and columns
    views: tuple[PositiveFloat, PositiveFloat] = (1e-10, 1e-6)  # m
    dwells: tuple[PositiveFloat, PositiveFloat] = (1e-8, 1e-3)  # s
    exposures: tuple[PositiveFloat, PositiveFloat] = (1e-3, 10.0)  # s
    excursion: PositiveFloat = 1e-6  # m, most of focus for one frame
    stage_range: NonNegativeFloat = 0.0  # m to each side; 0: the stage is not to be moved
    shift_range: NonNegativeFloat = 0.0  # m
    beam_current: PositiveFloat | None = None  # A; these three where the instrument's own controls do not tell
    energy: PositiveFloat | None = None  # eV
    semiangle: PositiveFloat | None = None  # rad
    ronchigram_current: PositiveFloat | None = None  # A; these two where Ronchigrams have a larger aperture than the controls tell of
    ronchigram_semiangle: PositiveFloat | None = None  # rad
    tolerance: PositiveFloat = 1e-3  # between set and read back, of a control's range
    seconds: PositiveFloat = 3.0  # the most that a frame takes beyond its exposure
    control_seconds: PositiveFloat = 2.0  # the most that a control takes to arrive
    line_seconds: NonNegativeFloat = 1e-4  # fly-back of a line
    blank_seconds: NonNegativeFloat = 0.05  # until the blanker has opened, as the vendor's own acquisitions wait for it
    lit_seconds: PositiveFloat = 1.0  # the most that the beam is on beyond an exposure, charged as if it stood still; the blanker closes then

    @model_validator(mode="after")
    def _known(self) -> NionSetup:
        for name in self.controls:
            if name not in ABERRATIONS:
                raise ValueError(f"unknown aberration {name!r}; use one of {', '.join(ABERRATIONS)}")
        if not self.controls:
            raise ValueError("controls must name at least one aberration, such as C10")
        return self


def control_of(aberration: str) -> str:
    """Nion's name of the control of a coefficient: C12a is C12.x."""
    _, m, component = split_name(aberration)
    return f"{aberration[:3]}.{'x' if component == 'a' else 'y'}" if m else aberration


USIM_BINNING = 4  # finer takes seconds a frame, coarser shows the grid of the sample, which usim bins before it warps it
USIM_COUNTS = 40.0  # counts per electron

USIM = NionSetup(
    name="Nion usim", instrument="usim_stem_controller", scan="usim_scan_device", ronchigram="usim_ronchigram_camera",
    spectrometer="usim_eels_camera", controls={"C10": 1.2e-6, "C12a": 1.2e-6, "C12b": 1.2e-6, "C21a": 12e-6, "C21b": 12e-6, "C23a": 12e-6, "C23b": 12e-6},
    detectors={"haadf": "HAADF"}, binning=USIM_BINNING, counts_per_electron=USIM_COUNTS * USIM_BINNING**2,  # its binned pixels count binning^2 too many
    views=(1e-9, 1e-6), stage_range=500e-9, shift_range=500e-9, seconds=10.0, lit_seconds=10.0,  # it draws 10 000 particles anew after each move of the stage
    blank_seconds=0.0, ronchigram_semiangle=0.1007,  # no aperture: all of its camera is lit
)  # fmt: skip
"""The vendor's simulator; its stage is 1 um wide."""
