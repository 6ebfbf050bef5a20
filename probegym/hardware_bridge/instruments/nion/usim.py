"""Nion's own simulator, usim, as the instrument of a deployment, and the judge of its episodes."""

from __future__ import annotations

import time

import numpy as np

from probegym.hardware_bridge.commands import Lanes
from probegym.hardware_bridge.instruments.drivers import Meant
from probegym.hardware_bridge.instruments.host import HostProcess
from probegym.hardware_bridge.instruments.nion.controls import ANSWER_SECONDS
from probegym.hardware_bridge.instruments.nion.instrument import NionInstrument
from probegym.hardware_bridge.instruments.nion.setup import control_of
from probegym.hardware_bridge.instruments.nion.worker import fits as fits
from probegym.hardware_bridge.instruments.nion.worker import start
from probegym.hardware_bridge.twins.stem import StemConfig
from probegym.physics import randomness
from probegym.physics.optics import Pupil
from probegym.scenarios import parsed

WANDER = 150e-9  # m to each side: a frame then stays on the sample


class UsimJudge:
    """Begins episodes with the aberrations that the scenario ``world`` draws, at a place of the sample, and tells what the simulator's lenses stand at."""

    def __init__(self, instrument: NionInstrument, world: dict[str, object]):
        self.instrument, self.config = instrument, parsed(StemConfig, world, "world")
        self.stem = instrument.parts.stem
        self.names = tuple(name for name in self.config.names if self.stem.TryGetVal(control_of(name))[0])
        self.pupil = Pupil(self.config.energy, self.config.semiangle_cutoff, self.names, samples=24)

    def begin(self, key: int) -> None:
        """Move the simulator's controls to a start; setpoints count from there."""
        keys, controls = np.array([key], np.uint64), self.instrument.controls
        end = time.monotonic() + 10 * ANSWER_SECONDS
        for name in self.names:
            drawn = self.config.aberrations.get(name)
            controls.set(control_of(name), float(drawn.sample(keys, f"aberration {name}")[0]) if drawn else 0.0, 0.0, end)
        place = WANDER * (2 * randomness.uniform(keys, 0, "place", 2)[0] - 1)
        for axis, value in zip("xy", place, strict=True):
            controls.set(f"{self.instrument.setup.stage}.{axis}", float(value), 0.0, end)
            controls.set(f"{self.instrument.setup.shift}.{axis}", 0.0, 0.0, end)
        self.instrument.rebase()

    def truth(self) -> Lanes:
        """As the STEM twin's."""
        stands = self.instrument.controls.values([control_of(name) for name in self.names], time.monotonic() + ANSWER_SECONDS)[None]
        response = np.eye(len(self.config.controls))[None]
        return {"aberrations": stands, "strehl": self.pupil.strehl(stands), "phase_variance": self.pupil.phase_variance(stands), "response": response}


def started(meant: Meant) -> HostProcess:
    """The vendor's simulator for a deployment, see drivers.py. Judged, its episodes begin where the scenario's do."""
    return start("usim", meant)
