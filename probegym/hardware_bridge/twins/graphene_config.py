"""The ``world`` table of a graphene scenario."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from probegym.physics import graphene
from probegym.physics.optics import ABERRATIONS
from probegym.scenarios.distributions import Sampled

CROSS_SECTIONS = ("inversion", "ejection", "conversion", "loss")

LIMITS = {
    "beam_current": (1e-15, 1e-8), "healing": (0.0, 100.0), "drift": (0.0, 1e-8), "jitter": (0.0, 1e-9), "misplacement": (0.0, 1e-9),
    "offset": (0.0, 1e-9), "finder_error": (0.0, 1e-9), "orientation_error": (0.0, 0.1), "miss": (0.0, 1.0), "rates.max_rate": (0.0, 100.0), "rates.along": (-10.0, 10.0),
    "rates.across": (-10.0, 10.0), "rates.variance": (0.01, 100.0), "contamination.dwell": (0.0, 100.0), "contamination.image": (0.0, 100.0),
    "contamination.radius": (0.5e-10, 1e-9), "contamination.cleaning": (0.0, 100.0),
} | {f"cross_sections.{n}.{f}": r for n in CROSS_SECTIONS for f, r in (("threshold", (1.0, 100.0)), ("velocity", (1.0, 1e7)), ("factor", (0.0, 1e6)))}  # fmt: skip
"""What a draw may be; an episode whose draw lies outside is refused."""

Share = Annotated[float, Field(ge=0, le=1)]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def _sampled(value: Any) -> Any:
    return Field(default=value, validate_default=True)


class Probe(_Table):
    """The parked beam: a Gaussian of some width, or an aberrated probe."""

    fwhm: float | None = Field(None, ge=0.2e-10, le=5e-10)  # m
    semiangle_cutoff: float = Field(0.030, ge=0.005, le=0.060)  # rad
    aberrations: dict[str, Sampled] = {}  # m
    source_size: float = Field(0.3e-10, ge=0, le=2e-10)  # m, standard deviation
    focal_spread: float = Field(0.0, ge=0, le=100e-9)  # m, standard deviation
    states: int = Field(32, ge=1, le=256)  # sets of drawn aberrations that there are; an episode has one of them

    @model_validator(mode="after")
    def _known(self) -> Probe:
        for name in self.aberrations:
            if name not in ABERRATIONS:
                raise ValueError(f"unknown aberration {name!r}; use one of {', '.join(ABERRATIONS)}")
        if self.fwhm and (self.aberrations or self.focal_spread):
            raise ValueError("give either fwhm, for a Gaussian, or the aberrations")
        return self


class Inversion(_Table):
    """How fast silicon swaps with a carbon neighbour; beam_rates.py has the sources."""

    kind: Literal["published", "simple", "mixture", "physical"] = "published"
    max_rate: Sampled | None = None  # 1/s
    more: float = Field(2.0, ge=0, le=7)
    along: Sampled = _sampled({"uniform": [-2.0, 3.0]})  # bonds
    across: Sampled = _sampled({"uniform": [-2.0, 3.0]})
    variance: Sampled = _sampled({"uniform": [0.1, 5.0]})  # bonds^2


class CrossSection(_Table):
    """A knock-on process; threshold and mean square velocity belong together."""

    threshold: Sampled  # eV
    velocity: Sampled  # m^2/s^2, along the beam
    factor: Sampled = _sampled(1.0)
    assisted: tuple[tuple[Share, float], ...] = ()  # probability and energy (eV) of electronic excitations


class CrossSections(_Table):
    """Those that are left out do not happen."""

    inversion: CrossSection | None = None
    ejection: CrossSection | None = None
    conversion: CrossSection | None = None
    loss: CrossSection | None = None


class Contamination(_Table):
    """Clusters that arrive while the beam is on and go when it is parked on them; rates in 1/s."""

    dwell: Sampled = _sampled(0.0)
    image: Sampled = _sampled(0.0)
    radius: Sampled = _sampled(3e-10)  # m
    cleaning: Sampled = _sampled(0.0)
    start: int = Field(0, ge=0, le=graphene.CLUSTERS)


class GrapheneConfig(_Table):
    """The ``world`` table of a scenario; every number a draw may replace is sampled once an episode."""

    energy: float = Field(60e3, ge=1e3, le=1e6)  # eV
    beam_current: Sampled = _sampled(50e-12)  # A
    field: float = Field(100e-9, ge=1e-9, le=1e-6)  # m, side of the square that the beam can reach
    silicon: int = Field(1, ge=1, le=graphene.SILICON)
    spread: float = Field(1e-9, ge=0, le=50e-9)  # m, around (0, 0), within which silicon starts
    apart: float = Field(4e-10, ge=1.5e-10, le=10e-9)  # m, between silicon atoms at the start
    four_fold: Share = 0.0
    vacancies: int = Field(0, ge=0, le=8)
    probe: Probe = Probe(fwhm=0.84e-10)
    rates: Inversion = Inversion()
    cross_sections: CrossSections = CrossSections()
    healing: Sampled = _sampled(0.0)  # 1/s for each vacancy
    contamination: Contamination = Contamination()
    drift: Sampled = _sampled(0.0)  # m/s, in a random direction
    jitter: Sampled = _sampled(0.0)  # m, standard deviation of a row's displacement
    misplacement: Sampled = _sampled(0.0)  # m, standard deviation per axis, anew each time the beam is parked
    offset: Sampled = _sampled(0.0)  # m, in a random direction, the same all episode
    finder_error: Sampled = _sampled(0.0)  # m, standard deviation per axis, anew in each image
    orientation_error: Sampled = _sampled(0.0)  # rad, standard deviation of the lattice's, anew in each image
    miss: Sampled = _sampled(0.0)  # chance
    scan_events: bool = False
    image_overhead: float = Field(0.0, ge=0, le=1e3)  # s
    dwell_overhead: float = Field(0.0, ge=0, le=1e3)  # s
    efficiency: float = Field(0.9, gt=0, le=1)
    detector: str = Field("haadf", min_length=1)

    @model_validator(mode="after")
    def _consistent(self) -> GrapheneConfig:
        if (self.rates.kind == "physical") != (self.cross_sections.inversion is not None):
            raise ValueError("rates of the kind physical, and only those, need cross_sections.inversion")
        if self.rates.kind == "physical" and self.rates.max_rate is not None:
            raise ValueError("rates of the kind physical follow from cross_sections: leave max_rate out")
        if self.spread > self.field / 2:
            raise ValueError("spread must lie within the field")
        return self
