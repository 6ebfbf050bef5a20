"""The vendor's simulator under the driver of Nion Swift: commands to try, and a camera that is watched and can be disturbed."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
from scipy.constants import angstrom, elementary_charge

from probegym.errors import ProbeGymError
from probegym.hardware_bridge.commands import AcquireImage, AcquireRonchigram, SetAberrations
from probegym.hardware_bridge.instruments.nion import stack
from probegym.hardware_bridge.instruments.nion.instrument import NionInstrument
from probegym.hardware_bridge.instruments.nion.setup import USIM

NAMES = tuple(USIM.controls)
LONG = 30.0  # s, for what comes in time on a loaded machine


@contextmanager
def simulator() -> Iterator[stack.Parts]:
    """Flakes, without noise of the cameras."""
    with stack.stack(stack.usim(sample=0, noise=False)):
        yield stack.found(USIM)


def armed(parts: stack.Parts) -> NionInstrument:
    """A driver that is armed, with the simulator as it stands at its start."""
    for name, value in {"C10": 500e-9, **{f"{pair}.{axis}": 0.0 for pair in ("C12", "C21", "C23", "CSH", "stage_position_m") for axis in "xy"}}.items():
        assert parts.stem.SetVal(name, value)
    instrument = NionInstrument(parts, USIM)
    instrument.ready(LONG)
    return instrument


@pytest.fixture(scope="module")
def parts():
    pytest.importorskip("nion.instrumentation")
    with simulator() as found:
        yield found


@pytest.fixture
def nion(parts):
    """An armed instrument; the simulator as it stands at its start."""
    instrument = armed(parts)
    yield instrument
    instrument.safe(LONG)


def ronchigram(defocus: float = 0.0, shift: tuple[float, float] = (0.0, 0.0), side: int = 64, exposure: float = 0.02) -> AcquireRonchigram:
    return AcquireRonchigram((side, side), exposure, np.array([defocus]), np.array([shift]))


def image(side: int = 64, view: float = 100e-9, defocus: float = 0.0) -> AcquireImage:
    return AcquireImage("haadf", (side, side), view, 1e-7, np.array([defocus]))


def setting(**values: float) -> SetAberrations:
    return SetAberrations(NAMES, np.array([[values.get(name, 0.0) for name in NAMES]]))


def alike(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.corrcoef(one.ravel(), other.ravel())[0, 1])


def aborted(instrument, command) -> Exception | None:
    """What a command ends in when the instrument is made safe half a second after its begin."""
    failed: list[Exception] = []

    def work() -> None:
        try:
            instrument.execute(command, LONG)
        except ProbeGymError as error:
            failed.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    time.sleep(0.5)
    instrument.safe(LONG)
    thread.join(LONG)
    return failed[0] if failed else None


def electrons(seconds: float, area: float) -> float:
    """Of usim's 200 pA, per square Angstrom of an area in m^2."""
    return 200e-12 * seconds / elementary_charge / (area / angstrom**2)


class Watched:
    """What a camera's simulator was asked for, and a way to disturb it."""

    def __init__(self, monkeypatch, stem, source):
        self.stem, self.asked, self.error, self.gate, self.within = stem, [], None, threading.Event(), 0
        self.blanked: list[float] = []
        self.gate.set()
        simulator = source.camera.simulator
        draw = simulator.get_frame_data

        def get_frame_data(area, binning, exposure, context, place):
            self.within += 1
            try:
                self.asked.append((stem.GetVal("C10"), stem.GetVal("CSH.x"), context.fov_nm, place))
                self.blanked.append(stem.GetVal("C_Blank"))
                self.gate.wait(LONG)
                if self.error:
                    raise self.error
                return draw(area, binning, exposure, context, place)
            finally:
                self.within -= 1

        monkeypatch.setattr(simulator, "get_frame_data", get_frame_data)

    def settle(self) -> None:
        """Until the camera's own thread has ended the frame that it was at."""
        end = time.monotonic() + LONG
        while self.within and time.monotonic() < end:
            time.sleep(0.01)
