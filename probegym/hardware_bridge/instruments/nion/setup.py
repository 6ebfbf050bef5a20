"""What a driver must be told of a Nion instrument: names of its devices and controls, and limits. Plain data."""

from __future__ import annotations

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    NonNegativeFloat,
    PositiveFloat,
    ValidationError,
    model_validator,
)

from probegym.errors import ProbeGymError
from probegym.hardware_bridge.instruments.nion.blanker import BLANKER
from probegym.physics.optics import ABERRATIONS, split_name

BEAM_CONTROLS = {"beam_current": "BeamCurrent", "energy": "EHT", "semiangle": "ConvergenceAngle"}
PLAUSIBLE = {"beam_current": (1e-15, 1e-6), "energy": (1e3, 2e6), "semiangle": (1e-4, 0.5)}
"""Of a beam: A, eV and rad; what lies outside is another unit."""


class NionSetup(BaseModel):
    """Identifiers are those of Nion Swift's registry. On a microscope they are such as ``autostem_controller``, ``superscan`` and ``nion1010``.

    Setpoints of aberrations count from where the controls stood when the driver was opened: what a corrector calls zero is seldom
    where it stands. Stage and beam deflectors keep the instrument's own coordinates, by which a sample's dose is counted; they may go as far as their
    range from where they stood when the driver was opened. No control moves farther than its range at once.
    ``focus`` is the control that makes the excursions of a single frame. Raises ProbeGymError, one line, for what cannot be.
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
    stage_range: NonNegativeFloat = 0.0  # m to each side of where it stood; 0: the stage is not to be moved
    shift_range: NonNegativeFloat = 0.0  # m, the same of the beam deflectors
    beam_current: PositiveFloat | None = None  # A; these three where the instrument's own controls do not tell, or flicker: the most that there can be
    energy: PositiveFloat | None = None  # eV
    semiangle: PositiveFloat | None = None  # rad
    ronchigram_current: PositiveFloat | None = None  # A; these two where Ronchigrams have a larger aperture than the controls tell of
    ronchigram_semiangle: PositiveFloat | None = None  # rad
    tolerance: float = Field(default=1e-3, gt=0, le=0.5)  # between set and read back, of a control's range
    seconds: PositiveFloat = 3.0  # the most that a frame takes beyond its exposure
    control_seconds: PositiveFloat = 2.0  # the most that a control takes to arrive
    line_seconds: NonNegativeFloat = 1e-4  # fly-back of a line
    blank_seconds: NonNegativeFloat = 0.05  # until the blanker has opened, as the vendor's own acquisitions wait for it
    lit_seconds: float = Field(default=1.0, gt=0, le=60)  # the most that the beam is on beyond an exposure, charged as if it stood still; the blanker closes then

    @model_validator(mode="after")
    def _known(self) -> NionSetup:
        for name in self.controls:
            if name not in ABERRATIONS:
                raise ValueError(f"unknown aberration {name!r}; use one of {', '.join(ABERRATIONS)}")
        if not self.controls:
            raise ValueError("controls must name at least one aberration, such as C10")
        return self

    @model_validator(mode="after")
    def _plausible(self) -> NionSetup:
        for name in ("sides", "views", "dwells", "exposures"):
            low, high = getattr(self, name)
            if not 0 < low <= high:
                raise ValueError(f"{name} must be above 0, the least before the most, got {low:g} and {high:g}")
        alike = {"ronchigram_current": "beam_current", "ronchigram_semiangle": "semiangle"}
        for name in (*PLAUSIBLE, *alike):
            value, (low, high) = getattr(self, name), PLAUSIBLE[alike.get(name, name)]
            if value is not None and not low < value < high:
                raise ValueError(f"{name} must be between {low:g} and {high:g}, got {value:g}: is it in A, eV or rad?")
        return self

    @model_validator(mode="after")
    def _apart(self) -> NionSetup:
        """Beam, blanker, aberrations, stage and deflectors have controls of their own; focus may be that of an aberration."""
        taken = {BLANKER: "the blanker", **{name: f"that of {field}" for field, name in BEAM_CONTROLS.items()}}
        aberrations = {control_of(name): f"that of {name}" for name in self.controls}
        pairs = {f"{name}.{axis}": f"that of {field}" for field, name in (("stage", self.stage), ("shift", self.shift)) for axis in "xy"}
        for field, names, others in (
            ("focus", (self.focus,), taken | pairs), ("stage", (self.stage, f"{self.stage}.x", f"{self.stage}.y"), taken | aberrations),
            ("shift", (self.shift, f"{self.shift}.x", f"{self.shift}.y"), taken | aberrations | {f"{self.stage}.x": "that of stage"}),
        ):  # fmt: skip
            for name in names:
                if name in others:
                    raise ValueError(f"{field} names the control {name!r}, {others[name]}: give its own")
        return self

    @model_validator(mode="wrap")
    @classmethod
    def _in_one_line(cls, given: object, made: ModelWrapValidatorHandler[NionSetup]) -> NionSetup:
        """The last, so that it has what the others raise."""
        try:
            return made(given)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise ProbeGymError(f"setup{', ' if where else ''}{where}: {first['msg'].removeprefix('Value error, ')}") from error


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
