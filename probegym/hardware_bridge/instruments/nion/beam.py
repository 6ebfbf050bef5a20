"""The beam of a Nion instrument: what its controls tell of it, within what the setup gives, and what it does to a sample at most."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass
from numbers import Real

from probegym.errors import ProbeGymError
from probegym.hardware_bridge.instruments.descriptions.base import flux, spot
from probegym.hardware_bridge.instruments.nion.setup import BEAM_CONTROLS, PLAUSIBLE, NionSetup


@dataclass(frozen=True)
class Beam:
    """current: A. energy: eV. semiangle: rad, of the illumination."""

    current: float
    energy: float
    semiangle: float

    @property
    def spot(self) -> float:
        """Least area that it covers, m^2, as ``descriptions.base.spot``."""
        return spot(self.energy, self.semiangle)

    def rate(self, area: float = 0.0) -> float:
        """Electrons per square Angstrom and second, at most, when it covers at least an area in m^2."""
        return flux(self.current, max(area, self.spot))

    def brightest(self, other: Beam) -> Beam:
        """The most of each of two."""
        return Beam(*map(max, astuple(self), astuple(other)))

    def beyond(self, charged: Beam) -> str | None:
        """In which of its controls it is more than what is charged for, as words; None where in none. More of any makes a brighter spot."""
        for name, now, most in zip(BEAM_CONTROLS.values(), astuple(self), astuple(charged), strict=True):
            if now > most:
                return f"{name} is {now:g}, charged is for {most:g}"
        return None


def beam_of(setup: NionSetup, told: Sequence[object]) -> Beam:
    """The beam, where ``told`` is what its BEAM_CONTROLS read, None for one that is not there. Raises ProbeGymError.

    What the setup gives is taken for it, and is the most that the control may tell.
    """
    found: list[float] = []
    for (field, control), value in zip(BEAM_CONTROLS.items(), told, strict=True):
        (low, high), given = PLAUSIBLE[field], getattr(setup, field)
        now = float(value) if isinstance(value, Real) else None
        if given is None:
            if now is None or not low < now < high:
                tells = "does not tell" if now is None else f"tells {now:g} for"
                raise ProbeGymError(f"{setup.instrument} {tells} {control}: give {field} in its setup, between {low:g} and {high:g}")
            found.append(now)
        elif now is not None and not now <= given:
            raise ProbeGymError(f"{setup.instrument} tells {now:g} for {control}, {field} of its setup is {given:g}: give the most that there can be")
        else:
            found.append(given)
    return Beam(*found)


def ronchigram_beam(setup: NionSetup, beam: Beam) -> Beam:
    """The beam that Ronchigrams are taken with, where that of the images is ``beam``."""
    return Beam(setup.ronchigram_current or beam.current, beam.energy, setup.ronchigram_semiangle or beam.semiangle)
