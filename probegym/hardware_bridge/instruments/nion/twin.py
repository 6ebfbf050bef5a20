"""The STEM twin inside Nion Swift: for scripts in the vendor's own API, and a worker that runs it there with what its driver must be told of it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from probegym import scenarios
from probegym.hardware_bridge.commands import Lanes
from probegym.hardware_bridge.instruments.drivers import Meant
from probegym.hardware_bridge.instruments.host import HostProcess
from probegym.hardware_bridge.instruments.nion.setup import NionSetup
from probegym.hardware_bridge.instruments.nion.stack import installed, stack
from probegym.hardware_bridge.instruments.nion.worker import fits as fits
from probegym.hardware_bridge.instruments.nion.worker import start
from probegym.hardware_bridge.twins.stem import StemTwin

INSTRUMENT, SCAN, CAMERA = "probegym_stem_controller", "probegym_scan_device", "probegym_ronchigram_camera"
CHANNEL = "HAADF"
FOCUS = "C10Excursion"  # a control of its own: a setpoint of C10 has backlash and takes time, the excursion of a frame has none


def setup_of(twin: StemTwin) -> NionSetup:
    """The setup of a twin's controls, camera and detector."""
    c = twin.config
    return NionSetup(
        name="STEM twin in Nion Swift", instrument=INSTRUMENT, scan=SCAN, ronchigram=CAMERA if c.ronchigram else None,
        controls={name: c.limits * scale for name, scale in c.controls.items()}, focus=FOCUS,
        detectors={CHANNEL.lower(): CHANNEL} if c.specimens else {}, shift_range=1e-6, tolerance=1e-9, views=(1e-11, 1e-5),
        blank_seconds=0.0, lit_seconds=3.0, ronchigram_current=c.ronchigram.beam_current if c.ronchigram else None,
        ronchigram_semiangle=c.ronchigram.semiangle_cutoff if c.ronchigram else None,
    )  # fmt: skip


def started(meant: Meant) -> HostProcess:
    """The twin of a deployment in Nion Swift, see drivers.py. It runs in real time; raises ProbeGymError for another twin than the STEM."""
    return start("twin", meant)


@dataclass(frozen=True)
class Inside:
    """api: Nion Swift's own, of ``nion.swift.Facade``; INSTRUMENT, SCAN and CAMERA are the twin's devices in it."""

    api: Any
    devices: Any

    def begin(self, key: int) -> None:
        """Begin the episode of a key, with all controls at zero; the same key has the same lenses and noise."""
        self.devices.begin(key)

    def truth(self) -> Lanes:
        """Hidden state of the twin, by name, arrays (1, ...)."""
        return dict(self.devices.truth())


@contextlib.contextmanager
def inside(scenario: str = "both", key: int = 0) -> Iterator[Inside]:
    """Nion Swift without its window, in this process, with the STEM twin of a scenario of StemTuning as its microscope, and an episode begun.

    Raises ProbeGymError where Nion Swift is not installed, or for an unknown scenario.
    """
    installed()
    from nion.swift import Facade

    from probegym.hardware_bridge.instruments.nion.device import TwinInside

    devices = TwinInside(StemTwin(scenarios.load("stem_tuning", scenario).world, 1))
    devices.begin(key)
    with stack(devices.registered):
        Facade.initialize()
        yield Inside(Facade.get_api("~1.0", "~1.0"), devices)
