"""The STEM twin inside Nion Swift: a worker that runs it there, and what its driver must be told of it."""

from __future__ import annotations

from probegym.hardware_bridge.instruments.drivers import Meant
from probegym.hardware_bridge.instruments.host import HostProcess
from probegym.hardware_bridge.instruments.nion.setup import NionSetup
from probegym.hardware_bridge.instruments.nion.worker import start
from probegym.hardware_bridge.twins.stem import StemTwin

INSTRUMENT, SCAN, CAMERA = "probegym_stem_controller", "probegym_scan_device", "probegym_ronchigram_camera"
CHANNEL = "HAADF"
FOCUS = "C10Excursion"  # a control of its own: a set point of C10 has backlash and takes time, the excursion of a frame has none


def setup_of(twin: StemTwin) -> NionSetup:
    """The setup of a twin's controls, camera and detector."""
    c = twin.config
    return NionSetup(
        name="STEM twin in Nion Swift", instrument=INSTRUMENT, scan=SCAN, ronchigram=CAMERA if c.ronchigram else None,
        controls={name: c.limits * scale for name, scale in c.controls.items()}, focus=FOCUS,
        detectors={CHANNEL.lower(): CHANNEL} if c.specimens else {}, shift_range=1e-6, tolerance=1e-9, views=(1e-11, 1e-5),
    )  # fmt: skip


def started(meant: Meant) -> HostProcess:
    """The twin of a deployment in Nion Swift, see drivers.py. It runs in real time; raises ProbeGymError for another twin than the STEM."""
    return start("twin", meant)
