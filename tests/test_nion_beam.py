"""The beam of a Nion instrument: on for an exposure alone, as long as is charged for; its safe state; and what a frame tells of how it was taken."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from probegym.hardware_bridge.commands import AcquireImage, AcquireSpectrum, BlankBeam, PlaceProbe, ShiftBeam
from probegym.hardware_bridge.instruments import InstrumentFault
from probegym.hardware_bridge.instruments.descriptions.base import spot
from probegym.hardware_bridge.instruments.nion import instrument as driver
from probegym.hardware_bridge.instruments.nion.instrument import NionInstrument
from probegym.hardware_bridge.instruments.nion.setup import USIM
from probegym.hardware_bridge.world import Refused
from tests import nion_helpers
from tests.nion_helpers import LONG, Watched, aborted, electrons, image, ronchigram, setting

parts, nion = nion_helpers.parts, nion_helpers.nion


def test_the_safe_state_is_the_blanker_and_stillness_and_ready_does_not_let_the_beam_through(parts, nion):
    assert not nion.is_safe()
    parts.stem.SetVal("C_Blank", 0.0)
    parts.scan.start_playing()
    nion.safe(LONG)
    assert nion.is_safe() and parts.stem.GetVal("C_Blank") == 1.0 and not parts.scan.is_playing
    nion.safe(LONG)  # again
    with pytest.raises(Refused, match="arm it first"):
        nion.execute(image(), LONG)
    parts.stem.SetVal("C_Blank", 0.0)
    assert not nion.is_safe()
    nion.ready(LONG)
    assert parts.stem.GetVal("C_Blank") == 1.0 and not nion.is_safe()
    assert nion.measured()["blanker"].values == 1.0


def test_a_safe_state_that_comes_while_it_gets_ready_stays(parts, nion, monkeypatch):
    """Also when it comes after the last thing that ``ready`` does to the instrument."""
    nion.safe(LONG)
    close, done = nion.blanker.close, []

    def closed(end: float) -> None:
        close(end)
        if not done:
            done.append(True)
            worker = threading.Thread(target=nion.safe, args=(LONG,))
            worker.start()
            worker.join(LONG)

    with monkeypatch.context() as patched:
        patched.setattr(nion.blanker, "close", closed)
        with pytest.raises(Refused, match="safe state while it got ready"):
            nion.ready(LONG)
    assert done and nion.is_safe()
    with pytest.raises(Refused, match="arm it first"):
        nion.execute(setting(), LONG)
    nion.ready(LONG)
    nion.execute(setting(), LONG)


def test_a_blanker_that_does_not_close_is_said(parts, nion, monkeypatch):
    parts.stem.SetVal("C_Blank", 0.0)
    with monkeypatch.context() as patched:
        patched.setattr(parts.stem, "SetVal", lambda *_: True)
        with pytest.raises(InstrumentFault, match="C_Blank was set to 1 and reads back 0"):
            nion.safe(0.3)
        assert not nion.is_safe()
        patched.setattr(parts.stem, "SetVal", lambda *_: False)
        with pytest.raises(InstrumentFault, match="the blanker was not set"):
            nion.safe(0.3)
        with pytest.raises(InstrumentFault, match="the blanker was not set"):
            nion.ready(0.3)
    nion.safe(LONG)


def test_the_beam_is_on_for_the_exposure_alone(parts, nion, monkeypatch):
    """Controls stand before it comes on; it is off before the next command, and before they go back."""
    told, seen = [], []
    put, confirm, draw = parts.stem.SetVal, parts.stem.SetValAndConfirm, parts.stem.scan_data_generator.generate_scan_data
    monkeypatch.setattr(parts.stem, "SetVal", lambda name, value: told.append((name, value)) or put(name, value))
    monkeypatch.setattr(parts.stem, "SetValAndConfirm", lambda name, *more: told.append((name, parts.stem.GetVal("C_Blank"))) or put(name, more[0]))
    monkeypatch.setattr(parts.stem.scan_data_generator, "generate_scan_data", lambda *of: seen.append(parts.stem.GetVal("C_Blank")) or draw(*of))
    assert confirm
    nion.execute(image(64, 100e-9, defocus=50e-9), LONG)
    assert told == [("C10", 1.0), ("C_Blank", 0.0), ("C_Blank", 1.0), ("C10", 1.0)]
    assert seen == [0.0]
    watched = {name: Watched(monkeypatch, parts.stem, getattr(parts, name)) for name in ("ronchigram", "spectrometer")}
    for command in (ronchigram(), AcquireSpectrum("eels", np.array([[2e-8, 2e-8]]), 0.02), PlaceProbe(np.zeros((1, 2)), np.array([0.05]))):
        told.clear()
        assert parts.stem.GetVal("C_Blank") == 1.0
        nion.execute(command, LONG)
        assert told == [("C_Blank", 0.0), ("C_Blank", 1.0)]
    assert watched["ronchigram"].blanked == [0.0] and set(watched["spectrometer"].blanked) == {0.0}
    told.clear()
    for command in (setting(C10=1e-9), BlankBeam(False), ShiftBeam(np.zeros((1, 2)))):
        nion.execute(command, LONG)
    assert ("C_Blank", 0.0) not in told


def test_the_blanker_is_waited_for(parts, monkeypatch):
    slow = NionInstrument(parts, USIM.model_copy(update={"blank_seconds": 0.3}))
    slow.ready(LONG)
    put, opened, drawn = parts.stem.SetVal, [], []
    simulator = parts.ronchigram.camera.simulator
    draw = simulator.get_frame_data
    monkeypatch.setattr(parts.stem, "SetVal", lambda name, value: (opened.append(time.monotonic()) if value == 0.0 else None) or put(name, value))
    monkeypatch.setattr(simulator, "get_frame_data", lambda *of: drawn.append(time.monotonic()) or draw(*of))
    readings = slow.execute(ronchigram(), LONG)
    assert drawn[0] - opened[0] >= 0.3
    assert readings.dose[0] >= electrons(0.32, spot(100e3, 0.1007)), "the sample has had the beam since it came on"
    slow.safe(LONG)


def test_a_beam_that_somebody_else_let_through_is_a_fault(parts, nion):
    parts.stem.SetVal("C_Blank", 0.0)
    with pytest.raises(InstrumentFault, match="somebody has opened the blanker"):
        nion.execute(ronchigram(), LONG)
    assert parts.stem.GetVal("C_Blank") == 1.0


def test_a_blanker_that_does_not_open_is_no_dark_frame(parts, nion, monkeypatch):
    put = parts.stem.SetVal
    monkeypatch.setattr(parts.stem, "SetVal", lambda name, value: True if value == 0.0 else put(name, value))
    with pytest.raises(InstrumentFault, match="C_Blank was set to 0 and reads back 1"):
        nion.execute(ronchigram(), 0.5)


def test_a_blanker_that_opens_too_late_is_closed_again(parts, nion, monkeypatch):
    put, gate, landed = parts.stem.SetVal, threading.Event(), threading.Event()

    def hangs(name: str, value: float) -> bool:
        if value == 0.0:
            gate.wait(LONG)
            put(name, value)
            landed.set()
            return True
        return put(name, value)

    monkeypatch.setattr(parts.stem, "SetVal", hangs)
    with pytest.raises(InstrumentFault, match="the blanker did not come back in time"):
        nion.execute(ronchigram(), 0.3)
    assert parts.stem.GetVal("C_Blank") == 1.0
    gate.set()
    assert landed.wait(LONG)
    end = time.monotonic() + LONG
    while parts.stem.GetVal("C_Blank") != 1.0 and time.monotonic() < end:
        time.sleep(0.01)
    assert parts.stem.GetVal("C_Blank") == 1.0


def test_a_beam_that_is_on_for_longer_than_charged_for_ends_or_is_a_fault(parts, nion, monkeypatch):
    brief = NionInstrument(parts, USIM.model_copy(update={"lit_seconds": 0.3}))
    brief.ready(LONG)
    watched = Watched(monkeypatch, parts.stem, parts.ronchigram)
    watched.gate.clear()
    begun = time.monotonic()
    with pytest.raises(InstrumentFault, match="did not end in time"):
        brief.execute(ronchigram(), LONG)
    assert time.monotonic() - begun < 8 and parts.stem.GetVal("C_Blank") == 1.0
    watched.gate.set()
    watched.settle()
    put = parts.stem.SetVal
    monkeypatch.setattr(parts.stem, "SetVal", lambda name, value: (time.sleep(0.6) if value == 1.0 else None) or put(name, value))
    with pytest.raises(InstrumentFault, match=r"the beam was on the sample for .* s, at most 0.32 s are charged for"):
        brief.execute(ronchigram(), LONG)


@pytest.mark.parametrize("command", [ronchigram(200e-9, exposure=8.0), AcquireImage("haadf", (256, 256), 1e-7, 1e-4, np.zeros(1))])
def test_abort_ends_a_frame_under_way(parts, nion, command):
    begun = time.monotonic()
    failed = aborted(nion, command)
    assert time.monotonic() - begun < 5.5, "it waited for the whole exposure"
    assert isinstance(failed, InstrumentFault) and "stopped" in str(failed)
    while parts.ronchigram.is_recording:
        assert time.monotonic() - begun < 5.5, "the camera was not told to end"
        time.sleep(0.05)
    assert nion.is_safe()
    assert parts.stem.GetVal("C10") == pytest.approx(500e-9)


def test_a_command_that_is_late_does_not_open_the_blanker(parts, nion):
    nion.execute(image(), LONG)
    failed = aborted(nion, PlaceProbe(np.zeros((1, 2)), np.array([5.0])))
    assert isinstance(failed, InstrumentFault) and nion.is_safe()
    with pytest.raises(InstrumentFault, match="opening the blanker was stopped"), nion.blanker.lit("a late one", 1.0, time.monotonic() + 1):
        pass
    assert nion.is_safe()


def test_a_probe_is_parked_where_the_last_image_says(parts, nion):
    nion.execute(image(64, 100e-9), LONG)
    readings = nion.execute(PlaceProbe(np.array([[25e-9, -25e-9]]), np.array([0.05])), LONG)
    assert (parts.stem.probe_position.x, parts.stem.probe_position.y) == pytest.approx((0.75, 0.25))
    assert readings.dose[0] >= electrons(0.05, spot(100e3, 0.04))
    assert nion.execute(ronchigram(), LONG).values["ronchigram"].max() > 0
    with pytest.raises(Refused, match="outside of the last image"):
        nion.execute(PlaceProbe(np.array([[60e-9, 0.0]]), np.array([0.05])), LONG)


def test_a_beam_that_was_blanked_by_a_command_is_for_no_exposure_until_it_is_let_through(parts, nion):
    nion.execute(BlankBeam(True), LONG)
    for command in (ronchigram(), image()):
        with pytest.raises(Refused, match="let it through with BlankBeam"):
            nion.execute(command, LONG)
    nion.safe(LONG)
    nion.ready(LONG)
    with pytest.raises(Refused, match="let it through with BlankBeam"):
        nion.execute(ronchigram(), LONG)
    nion.execute(BlankBeam(False), LONG)
    assert parts.stem.GetVal("C_Blank") == 1.0, "it is let through when something is exposed, and charged for"
    assert nion.execute(ronchigram(), LONG).values["ronchigram"].max() > 0


# ---- what a frame tells of itself ----

SCANNED, TAKEN = "scan.scan_device_properties", "hardware_source"
SPECTRUM = AcquireSpectrum("eels", np.array([[1e-8, 1e-8]]), 0.02)


@pytest.mark.parametrize(
    ("command", "path", "told"),
    [(image(), f"{SCANNED}.fov_nm", 101.0), (image(), f"{SCANNED}.fov_nm", None), (image(), f"{SCANNED}.pixel_time_us", 0.2),
     (image(), f"{SCANNED}.pixel_time_us", None), (image(), "scan.rotation", 0.1), (image(), "scan.center_x_nm", 3.0), (image(), "scan.center_y_nm", None),
     (ronchigram(), f"{TAKEN}.exposure", 0.2), (ronchigram(), f"{TAKEN}.exposure", None), (ronchigram(), f"{TAKEN}.integration_count", 3),
     (ronchigram(), f"{TAKEN}.binning", 2), (SPECTRUM, f"{TAKEN}.exposure", 0.01), (SPECTRUM, f"{TAKEN}.exposure", float("nan")), (SPECTRUM, f"{TAKEN}.binning", "1")],
)  # fmt: skip
def test_a_frame_that_was_not_taken_as_asked_is_a_fault(nion, monkeypatch, command, path, told):
    nion.execute(image(), LONG)
    take = driver.recorded

    class Changed:
        def __init__(self, frame):
            self.data, self.dimensional_calibrations, self.metadata = frame.data, frame.dimensional_calibrations, frame.metadata
            *way, last = path.split(".")
            at = self.metadata
            for key in way:
                at = at[key]
            assert last in at, "what is not there anyway cannot be changed"
            if told is None:
                del at[last]
            else:
                at[last] = told

    monkeypatch.setattr(driver, "recorded", lambda *of: Changed(take(*of)))
    with pytest.raises(InstrumentFault, match=f"{path} {'not' if told is None else told}, asked was"):
        nion.execute(command, LONG)


def test_a_frame_of_another_size_is_a_fault(nion, monkeypatch):
    take = driver.recorded

    class Smaller:
        def __init__(self, frame):
            self.data, self.metadata = frame.data[1:], frame.metadata

    monkeypatch.setattr(driver, "recorded", lambda *of: Smaller(take(*of)))
    with pytest.raises(InstrumentFault, match=r"the scan sent \(63, 64\) pixels"):
        nion.execute(image(), LONG)
    with pytest.raises(InstrumentFault, match=r"the camera sent \(511, 512\) pixels"):
        nion.execute(ronchigram(), LONG)


def test_what_is_charged_is_the_peak_of_the_probe_and_what_is_told_is_never_more(parts, nion):
    """The whole current on lambda^2 / (pi alpha^2): usim's Ronchigrams have no aperture, so all of its camera, 0.1007 rad; the rest has 40 mrad."""
    has = nion.descriptor.capabilities
    assert has["AcquireRonchigram"].dose_rate == pytest.approx(electrons(1.0, spot(100e3, 0.1007)))
    assert has["AcquireSpectrum"].dose_rate == has["PlaceProbe"].dose_rate == pytest.approx(electrons(1.0, (3.701e-12 / 0.040) ** 2 / np.pi), rel=1e-3)
    assert has["AcquireImage"].spot == spot(100e3, 0.040)
    nion.execute(image(), LONG)
    for focus in (500e-9, 5e-9, 0.0):  # the control's zero is not that of focus: what it reads makes no difference
        parts.stem.SetVal("C10", focus)
        for command, seconds, area in (
            (ronchigram(exposure=0.05), 0.05, spot(100e3, 0.1007)), (SPECTRUM, 0.02, spot(100e3, 0.04)), (image(16, 20e-9), 256e-7, 400e-18),
        ):  # fmt: skip
            charge, readings = nion.descriptor.worst_case(command), nion.execute(command, LONG)
            assert electrons(seconds, area) <= readings.dose[0] <= min(charge.dose, electrons(float(readings.time[0]), area))
            assert charge.seconds >= seconds and charge.dose > electrons(seconds + 0.99 * USIM.lit_seconds, area)
