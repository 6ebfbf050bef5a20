"""Nion Swift's instrumentation without its window: the registry, the sources of images, and a simulator behind them.

What the program does at its start, less Qt, panels and document. Nothing is written but into a temporary folder.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from probegym.errors import ProbeGymError
from probegym.hardware_bridge.instruments.nion.setup import NionSetup

CLOSE_SECONDS = 3.0


@dataclass(frozen=True)
class Parts:
    """The vendor's objects: instrument controller, scan, and cameras, where there are such."""

    stem: Any
    scan: Any
    ronchigram: Any
    spectrometer: Any


def installed() -> None:
    """Raise ProbeGymError where Nion Swift cannot be imported."""
    try:
        import nion.instrumentation
        import nion.usim_device  # noqa: F401
    except ImportError as error:
        raise ProbeGymError(f"Nion Swift is not installed ({error}): install the extra, pip install probegym[nion]") from error


def found(setup: NionSetup) -> Parts:
    """The parts of an instrument that is registered, by their identifiers; raises ProbeGymError with those that there are."""
    from nion.instrumentation import HardwareSource

    manager = HardwareSource.HardwareSourceManager()
    stem = manager.get_instrument_by_id(setup.instrument)
    if stem is None:
        raise ProbeGymError(f"Nion Swift has no instrument {setup.instrument!r}: use one of {', '.join(sorted(manager.get_all_instrument_ids())) or 'none'}")
    sources: list[Any] = []
    for identifier in (setup.scan, setup.ronchigram, setup.spectrometer):
        source = manager.get_hardware_source_for_hardware_source_id(identifier) if identifier else None
        if identifier and source is None:
            raise ProbeGymError(f"Nion Swift has no source {identifier!r}: use one of {', '.join(sorted(manager.get_all_hardware_source_ids())) or 'none'}")
        sources.append(source)
    return Parts(stem, *sources)


@contextlib.contextmanager
def stack(registered: Callable[[], Callable[[], None]]) -> Iterator[None]:
    """The vendor's stack, with the devices that ``registered`` registers; it returns what takes them away again.

    Raises ProbeGymError where Nion Swift is not installed.
    """
    installed()
    from nion.instrumentation import DriftTracker, HardwareSource, camera_base, scan_base

    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)  # the scan asks this thread for one; other threads may call later
    logging.getLogger("nion").setLevel(logging.WARNING)
    with tempfile.TemporaryDirectory(prefix="probegym-nion-") as folder, contextlib.ExitStack() as undo:
        undo.callback(loop.close)
        undo.callback(asyncio.set_event_loop, None)
        HardwareSource.run()
        undo.callback(HardwareSource.HardwareSourceManager().close)
        undo.callback(HardwareSource.stop)
        DriftTracker.run()
        undo.callback(DriftTracker.stop)
        camera_base.run(Path(folder))
        undo.callback(camera_base.stop)
        scan_base.run(Path(folder))
        undo.callback(scan_base.stop)
        undo.callback(registered())
        undo.callback(_stopped)
        yield


def _stopped() -> None:
    """End what still acquires, so that no thread of a device is left."""
    from nion.instrumentation import HardwareSource

    for source in list(HardwareSource.HardwareSourceManager().hardware_sources):
        with contextlib.suppress(AssertionError):  # how the vendor says that it took too long
            source.abort_playing(sync_timeout=CLOSE_SECONDS)


def usim(sample: int = 2, noise: bool = True) -> Callable[[], Callable[[], None]]:
    """The vendor's own simulator. sample: 0 flakes, 1 amorphous, 2 gold on carbon.

    noise: of its cameras; that of its scans comes from NumPy's global generator.
    """

    def registered() -> Callable[[], None]:
        from nion.usim_device import DeviceConfiguration

        # Otherwise it deletes a folder test_data in the working directory.
        configuration = DeviceConfiguration.AcquisitionContextConfiguration(sample_index=sample, set_configuration_location=False)
        cameras: list[Any] = [configuration.ronchigram_camera_device, configuration.eels_camera_device]
        for camera in cameras:
            camera.simulator.noise.enabled = noise
        configuration.run()
        return configuration.stop

    return registered
