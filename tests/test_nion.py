"""The driver of Nion Swift on the vendor's simulator, with each trap of the vendor's interface."""

from __future__ import annotations

import importlib.util
import threading
import time

import numpy as np
import pytest
from scipy.constants import elementary_charge

from probegym.errors import ProbeGymError
from probegym.hardware_bridge.commands import AcquireImage, AcquireSpectrum, MoveStage, SetAberrations, ShiftBeam
from probegym.hardware_bridge.instruments import InstrumentFault, drivers
from probegym.hardware_bridge.instruments.nion import stack
from probegym.hardware_bridge.instruments.nion.inside import share
from probegym.hardware_bridge.instruments.nion.instrument import NionInstrument
from probegym.hardware_bridge.instruments.nion.setup import USIM, NionSetup
from probegym.hardware_bridge.instruments.nion.sources import resampled
from probegym.hardware_bridge.world import Refused
from tests import nion_helpers
from tests.nion_helpers import LONG, NAMES, Watched, alike, electrons, image, ronchigram, setting

needs_nion = pytest.mark.skipif(importlib.util.find_spec("nion") is None, reason="Nion Swift is not installed")


parts, nion = nion_helpers.parts, nion_helpers.nion


def test_coarser_pixels_hold_the_same_electrons():
    frame = np.random.default_rng(0).uniform(size=(50, 64)).astype(np.float32)
    coarse = resampled(frame, (21, 16))
    assert coarse.shape == (21, 16)
    assert coarse.sum() == pytest.approx(frame.sum(), rel=1e-6)
    np.testing.assert_allclose(resampled(frame, (25, 16)), frame.reshape(25, 2, 16, 4).sum((1, 3)), rtol=1e-6)
    assert resampled(frame, (50, 64)) is frame


# ---- controls ----


def test_opening_moves_nothing_and_setpoints_count_from_there(parts, nion):
    before = parts.stem.GetVal("C10")
    fresh = NionInstrument(parts, USIM)
    assert parts.stem.GetVal("C10") == before == 500e-9
    assert fresh.measured()["aberrations"].values == pytest.approx(np.zeros(7))
    with pytest.raises(Refused, match="arm it first"):
        fresh.execute(setting(), LONG)
    nion.execute(setting(C10=-100e-9, C12b=30e-9), LONG)
    assert parts.stem.GetVal("C10") == pytest.approx(400e-9)
    assert parts.stem.GetVal("C12.y") == pytest.approx(30e-9)
    np.testing.assert_allclose(nion.measured()["aberrations"].values, [-100e-9, 0, 30e-9, 0, 0, 0, 0], atol=1e-15)
    assert 0 <= nion.measured()["aberrations"].age < 1


@needs_nion
@pytest.mark.parametrize(
    ("change", "lacking"),
    [({"shift": "NoSuch"}, "'NoSuch.x', 'NoSuch.y'"), ({"stage": "NoSuch"}, "'NoSuch.x'"), ({"focus": "NoSuch"}, "'NoSuch'"),
     ({"controls": {"C10": 1e-6, "C50": 1e-3, "C56a": 1e-3}}, r"'C50', 'C56\.x': give")],
)  # fmt: skip
def test_unknown_controls_are_an_error_at_once_that_names_them_all(parts, change, lacking):
    with pytest.raises(ProbeGymError, match=f"usim_stem_controller has no control {lacking}"):
        NionInstrument(parts, USIM.model_copy(update=change))


def test_an_instrument_without_blanker_is_not_driven(parts, monkeypatch):
    tried = parts.stem.TryGetVal
    monkeypatch.setattr(parts.stem, "TryGetVal", lambda name: (False, None) if name == "C_Blank" else tried(name))
    with pytest.raises(ProbeGymError, match="has no control 'C_Blank'"):
        NionInstrument(parts, USIM)


def test_an_unknown_source_or_channel_is_an_error_that_lists_those_there_are(parts):
    with pytest.raises(ProbeGymError, match=r"no source 'superscan'.*usim_scan_device"):
        stack.found(USIM.model_copy(update={"scan": "superscan"}))
    with pytest.raises(ProbeGymError, match="no instrument 'autostem_controller': use one of usim_stem_controller"):
        stack.found(USIM.model_copy(update={"instrument": "autostem_controller"}))
    with pytest.raises(ProbeGymError, match="no channel 'BF': use one of HAADF"):
        NionInstrument(parts, USIM.model_copy(update={"detectors": {"bf": "BF"}}))
    with pytest.raises(ProbeGymError, match="binnings 1, 2, 4, 8, not 3"):
        NionInstrument(parts, USIM.model_copy(update={"binning": 3}))


def test_what_the_vendor_answers_false_to_is_a_fault(parts, nion, monkeypatch):
    monkeypatch.setattr(parts.stem, "SetValAndConfirm", lambda *_: False)
    with pytest.raises(InstrumentFault, match=r"C10 was not set.*no such control"):
        nion.execute(setting(C10=1e-9), LONG)


def test_a_control_that_does_not_move_is_found_by_reading_it_back(parts, nion, monkeypatch):
    monkeypatch.setattr(parts.stem, "SetValAndConfirm", lambda *_: True)
    begun = time.monotonic()
    with pytest.raises(InstrumentFault, match=r"C10 was set to 4e-07 and reads back 5e-07"):
        nion.execute(setting(C10=-100e-9), 0.3)
    assert time.monotonic() - begun < 5


def test_a_call_that_does_not_return_ends_at_its_deadline(parts, nion, monkeypatch):
    held = threading.Event()
    monkeypatch.setattr(parts.stem, "SetValAndConfirm", lambda *_: held.wait(LONG))
    begun = time.monotonic()
    with pytest.raises(InstrumentFault, match="did not come back in time"):
        nion.execute(setting(C10=1e-9), 0.3)
    assert time.monotonic() - begun < 5
    held.set()


def test_a_control_that_is_no_number_is_a_fault(parts, nion, monkeypatch):
    read = parts.stem.GetVal
    monkeypatch.setattr(parts.stem, "GetVal", lambda name, *more: float("nan") if name == "CSH.y" else read(name, *more))
    with pytest.raises(InstrumentFault, match=r"CSH\.y reads back as what is no number"):
        nion.measured()


def test_stage_and_beam_move_in_metres(parts, nion):
    nion.execute(MoveStage(np.array([[20e-9, -10e-9, 0.0]]), np.zeros((1, 2))), LONG)
    nion.execute(ShiftBeam(np.array([[3e-9, 4e-9]])), LONG)
    assert tuple(parts.stem.GetVal2D("stage_position_m")) == pytest.approx((-10e-9, 20e-9))  # y before x
    assert nion.measured()["stage"].values == pytest.approx([20e-9, -10e-9, 0.0])
    assert nion.measured()["shift"].values == pytest.approx([3e-9, 4e-9])
    with pytest.raises(Refused, match="MoveStage"):
        nion.execute(MoveStage(np.array([[0.0, 0.0, 1e-9]]), np.zeros((1, 2))), LONG)


# ---- frames ----


def test_a_ronchigram_is_in_electrons_and_turns_over_with_the_sign_of_focus(nion):
    over = nion.execute(ronchigram(exposure=0.05), LONG)
    frame = over.values["ronchigram"][0]
    assert frame.shape == (64, 64) and over.measurements[0] == 1 and over.time[0] >= 0.05
    assert frame.sum() == pytest.approx(200e-12 * 0.05 / elementary_charge, rel=0.1)  # the particles take a few per cent
    under = nion.execute(ronchigram(-1000e-9), LONG).values["ronchigram"][0]  # an excursion beyond focus
    assert alike(frame, under[::-1, ::-1]) > 0.95
    assert abs(alike(frame, under)) < 0.6


def test_the_shift_of_the_film_is_the_displacement_of_the_shadow(nion):
    """At 500 nm of defocus and 3.15 mrad a pixel, one pixel is 1.57 nm of the film."""
    still, pixel = nion.execute(ronchigram(), LONG).values["ronchigram"][0], 500e-9 * 2 * 0.10068 / 64
    moved = nion.execute(ronchigram(shift=(8 * pixel, 4 * pixel)), LONG).values["ronchigram"][0]
    assert alike(moved[:-4, :-8], still[4:, 8:]) > 0.95


@pytest.mark.parametrize("name", ["C12a", "C12b", "C21a", "C23b"])
def test_aberrations_are_krivanek_s_and_axes_are_ours(nion, parts, name):
    """A frame is the sample at the gradient of the aberration function, rows along y."""
    value = 200e-9 if name.startswith("C12") else 2e-6
    nion.execute(setting(**{name: value}), LONG)
    seen = nion.execute(ronchigram(side=128), LONG).values["ronchigram"][0]
    axis = 0.10068 * ((np.arange(128) + 0.5) / 64 - 1)
    x, y = np.meshgrid(axis, axis)
    gradient = {"C12a": (x, -y), "C12b": (y, x), "C21a": (x**2 + y**2 / 3, 2 * x * y / 3), "C23b": (2 * x * y, x**2 - y**2)}[name]
    at_x, at_y = 500e-9 * x + value * gradient[0], 500e-9 * y + value * gradient[1]
    sample = np.zeros((1024, 1024), np.float32)
    from nion.utils import Geometry

    flat = Geometry.FloatPoint()
    parts.stem.scan_data_generator.sample.plot_features(sample, flat, Geometry.FloatSize(1000, 1000), flat, flat, Geometry.IntSize(1024, 1024))
    row, column = (np.clip((at / 1e-9 / 1000 + 0.5) * 1024, 0, 1023).astype(int) for at in (at_y, at_x))
    assert alike(seen, -sample[row, column]) > 0.9


def test_an_excursion_is_for_one_frame_also_when_it_fails(parts, nion, monkeypatch):
    watched = Watched(monkeypatch, parts.stem, parts.ronchigram)
    nion.execute(ronchigram(200e-9, (5e-9, 0.0)), LONG)
    assert [seen[:2] for seen in watched.asked] == [pytest.approx((700e-9, 5e-9))]
    assert (parts.stem.GetVal("C10"), parts.stem.GetVal("CSH.x")) == pytest.approx((500e-9, 0.0))
    watched.error = RuntimeError("the sensor is too warm")
    with pytest.raises(InstrumentFault, match=r"usim_ronchigram_camera (failed while it acquired|gave no frame)"):
        nion.execute(ronchigram(200e-9), LONG)
    assert parts.stem.GetVal("C10") == pytest.approx(500e-9)
    assert parts.stem.GetVal("C_Blank") == 1.0 and set(watched.blanked) == {0.0}
    watched.error = None
    assert nion.execute(ronchigram(), LONG).values["ronchigram"].max() > 0


def test_a_frame_is_never_that_of_a_live_view(parts, nion, monkeypatch):
    watched, camera = Watched(monkeypatch, parts.stem, parts.ronchigram), parts.ronchigram
    camera.start_playing()
    camera.get_next_xdatas_to_finish(LONG)
    with pytest.raises(Refused, match="shows a live view, stop that first"):
        nion.execute(ronchigram(200e-9), LONG)
    assert parts.stem.GetVal("C10") == pytest.approx(500e-9)
    camera.stop_playing(sync_timeout=LONG)
    watched.settle()
    for excursion in (0.0, -250e-9, 0.0):
        nion.execute(ronchigram(excursion), LONG)
    assert [seen[0] for seen in watched.asked[-3:]] == pytest.approx([500e-9, 250e-9, 500e-9]), "one frame for each command, begun after it"


def test_the_frame_after_a_change_shows_it(nion):
    before, again = (nion.execute(ronchigram(), LONG).values["ronchigram"][0] for _ in range(2))
    nion.execute(setting(C10=-250e-9), LONG)
    after = nion.execute(ronchigram(), LONG).values["ronchigram"][0]
    np.testing.assert_array_equal(before, again)
    assert alike(before, after) < 0.9
    np.testing.assert_allclose(nion.execute(ronchigram(250e-9), LONG).values["ronchigram"][0], before, rtol=1e-5)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_camera_whose_live_thread_died_still_records(parts, nion, monkeypatch):
    watched, camera = Watched(monkeypatch, parts.stem, parts.ronchigram), parts.ronchigram
    watched.error = RuntimeError("once")
    parameters = camera.get_frame_parameters_from_dict({"exposure_ms": 10.0, "binning": 4})
    camera.set_current_frame_parameters(parameters)
    camera.camera.set_frame_parameters(parameters)
    dead = camera.camera._Camera__thread
    threading.Thread(target=camera.camera.start_live, daemon=True).start()  # the vendor waits half a minute for it
    dead.join(LONG)
    assert not dead.is_alive()
    camera.camera.stop_live()
    watched.error = None
    assert nion.execute(ronchigram(), LONG).values["ronchigram"].max() > 0


def test_a_camera_that_hangs_is_given_up_at_the_deadline(parts, nion, monkeypatch):
    watched = Watched(monkeypatch, parts.stem, parts.ronchigram)
    watched.gate.clear()
    begun = time.monotonic()
    with pytest.raises(InstrumentFault, match="did not end in time"):
        nion.execute(ronchigram(200e-9), 0.5)
    assert time.monotonic() - begun < 8
    assert parts.stem.GetVal("C10") == pytest.approx(500e-9)
    with pytest.raises(InstrumentFault, match="did not end in time"):  # it waits for the frame before, as long as it may
        nion.execute(ronchigram(), 0.2)
    threading.Timer(0.3, watched.gate.set).start()
    assert nion.execute(ronchigram(), LONG).values["ronchigram"].max() > 0


def test_an_image_has_the_view_that_was_asked_for(parts, nion):
    readings = nion.execute(image(32, 80e-9, defocus=50e-9), LONG)
    assert readings.values["haadf"].shape == (1, 32, 32) and readings.values["haadf"].dtype == np.float32
    assert parts.stem.scan_context.fov_nm == pytest.approx(80.0)
    assert parts.stem.GetVal("C10") == pytest.approx(500e-9)
    assert electrons(32 * 32 * 1e-7, 80e-9**2) <= readings.dose[0] < electrons(readings.time[0], 80e-9**2), "over the view, as long as the beam was on"
    tall = nion.execute(AcquireImage("haadf", (64, 32), 40e-9, 1e-7, np.zeros(1)), LONG)
    assert tall.values["haadf"].shape == (1, 64, 32)
    assert parts.stem.scan_context.fov_size_nm.width == pytest.approx(40.0)


def test_a_spectrum_is_taken_where_the_last_image_says(parts, nion, monkeypatch):
    with pytest.raises(Refused, match="acquire an image first"):
        nion.execute(AcquireSpectrum("eels", np.array([[0.0, 0.0]]), 0.02), LONG)
    nion.execute(image(64, 200e-9), LONG)
    nion.execute(image(64, 100e-9), LONG)
    watched = Watched(monkeypatch, parts.stem, parts.spectrometer)
    readings = nion.execute(AcquireSpectrum("eels", np.array([[25e-9, 75e-9]]), 0.02), LONG)
    (_, _, view, place), *_ = watched.asked
    assert view == pytest.approx(100.0) and (place.x, place.y) == pytest.approx((0.25, 0.75))
    axis, spectrum = readings.values["axis"][0], readings.values["spectrum"][0]
    assert axis.shape == spectrum.shape == (1024,)
    assert abs(axis[np.argmax(spectrum)]) < 2 and np.diff(axis) == pytest.approx(np.full(1023, 0.5))  # zero loss at 0 eV, half an eV a channel
    with pytest.raises(Refused, match="outside of the last image, which is 100 by 100 nm"):
        nion.execute(AcquireSpectrum("eels", np.array([[120e-9, 0.0]]), 0.02), LONG)
    parts.scan.set_current_frame_parameters(parts.scan.get_frame_parameters_from_dict({"pixel_size": (64, 64), "fov_nm": 50.0}))
    with pytest.raises(Refused, match="somebody has changed the scan"):
        nion.execute(AcquireSpectrum("eels", np.array([[25e-9, 25e-9]]), 0.02), LONG)


# ---- what it says of itself ----


def test_the_descriptor_refuses_what_lies_outside(nion):
    for outside in (ronchigram(5e-6), ronchigram(side=1024), setting(C10=2e-6), image(view=5e-6)):
        with pytest.raises(Refused):
            nion.descriptor.check(outside)
    with pytest.raises(Refused, match="of one lane"):
        nion.execute(SetAberrations(NAMES, np.zeros((2, 7))), LONG)


def test_an_instrument_of_a_running_program_is_served_from_within(nion, tmp_path):
    shared = share(USIM, tmp_path / "instrument.json")
    told = drivers.from_file(tmp_path / "instrument.json")
    assert (tmp_path / "instrument.json").stat().st_mode & 0o077 == 0, "the secret is for its owner"
    with pytest.raises(ProbeGymError, match="exists"):
        share(USIM, tmp_path / "instrument.json")
    writer = drivers.open_writer(told, "a test")
    with pytest.raises(Refused, match="a test holds the instrument"):
        drivers.open_writer(told, "another")
    writer.ready(LONG)
    assert writer.execute(ronchigram(), LONG).values["ronchigram"].shape == (1, 64, 64)
    shared.close()
    assert shared.instrument.is_safe() and not (tmp_path / "instrument.json").exists()
    writer.close()


def test_a_setup_names_what_is_wrong_with_it():
    with pytest.raises(ProbeGymError, match="unknown aberration 'C99'"):
        NionSetup(instrument="a", scan="b", controls={"C99": 1.0})
