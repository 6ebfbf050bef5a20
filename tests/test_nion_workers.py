"""The processes in which Nion Swift runs: with the vendor's simulator, and with the STEM twin inside, whose frames are those of the twin."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

import numpy as np
import pytest

from probegym import scenarios
from probegym.errors import ProbeGymError
from probegym.hardware_bridge.commands import AcquireImage, AcquireRonchigram, SetAberrations
from probegym.hardware_bridge.instruments.descriptions import describe
from probegym.hardware_bridge.instruments.drivers import Meant
from probegym.hardware_bridge.instruments.nion import stack, twin, usim
from probegym.hardware_bridge.instruments.wire import Link, RemoteInstrument
from probegym.hardware_bridge.twins.stem import StemTwin

HERE = np.ones(1, bool)
TWIN = "probegym.hardware_bridge.twins.stem:StemTwin"
LONG = 30.0  # s, for what comes in time on a loaded machine
needs_nion = pytest.mark.skipif(importlib.util.find_spec("nion") is None, reason="Nion Swift is not installed")


def test_the_core_imports_nothing_of_nion():
    modules = ("", ".setup", ".calls", ".controls", ".beam", ".describe", ".sources", ".stack", ".instrument", ".usim", ".twin", ".worker", ".inside")
    program = "".join(f"import probegym.hardware_bridge.instruments.nion{name}\n" for name in modules)
    program += "import sys; print(sorted(name for name in sys.modules if name.split('.')[0].startswith('nion')))"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_where_nion_is_missing_one_line_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "nion.instrumentation", None)
    with pytest.raises(ProbeGymError, match=r"Nion Swift is not installed.*pip install probegym\[nion\]"), stack.stack(stack.usim()):
        pass


def test_a_worker_is_for_stems():
    with pytest.raises(ProbeGymError, match="Nion Swift runs a STEM, not AfmTwin"):
        usim.started(Meant("probegym.hardware_bridge.twins.afm:AfmTwin", {}))


@needs_nion
def test_nothing_in_the_working_directory_is_deleted(tmp_path):
    (tmp_path / "test_data").mkdir()
    (tmp_path / "test_data" / "mine").write_text("kept")
    program = "from probegym.hardware_bridge.instruments.nion import stack\nwith stack.stack(stack.usim(1)): pass"
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True, capture_output=True, timeout=120)
    assert (tmp_path / "test_data" / "mine").read_text() == "kept"
    assert [path.name for path in tmp_path.iterdir()] == ["test_data"]


@needs_nion
def test_the_twin_inside_nion_swift_gives_the_frames_of_the_twin():
    """Through the vendor's scan and camera, a process and a wire; controls move one by one, noise comes from the same counts."""
    world = scenarios.load("stem_tuning", "both").world
    names, scales = tuple(world["controls"]), np.array(list(world["controls"].values()))
    draw = np.random.default_rng(0)
    world["ronchigram"] = world["ronchigram"] | {"beam_current": 70e-12}  # another than of the images
    alone = StemTwin(world, 1)
    with twin.started(Meant(TWIN, world, judged=True)) as process:
        for verb, told in describe(alone).descriptor.capabilities.items():
            here = process.descriptor.capabilities[verb]
            assert (here.dose_rate, here.current, here.spot) == pytest.approx((told.dose_rate, told.current, told.spot)), "charged as the twin's own"
        inside = RemoteInstrument(process.reached, "a test")
        judge = Link(process.reached, "judge", "a test")
        for key in (7, 8):
            judge.ask("begin", LONG, key=key)
            alone.begin(np.array([key], np.uint64), HERE)
            inside.ready(LONG)
            for _ in range(2):
                for command in (
                    SetAberrations(names, draw.uniform(-1, 1, (1, 7)) * scales),
                    AcquireRonchigram((42, 42), 0.05, np.array([30e-9]), np.array([[2e-10, -1e-10]])),
                    AcquireImage("haadf", (64, 64), 2.56e-9, 10e-6, np.array([10e-9])),
                ):  # fmt: skip
                    seen, expected = inside.execute(command, LONG), alone.execute(command, HERE)
                    for name, values in expected.values.items():
                        np.testing.assert_array_equal(seen.values[name], values)
            truth = judge.ask("truth", LONG)[1]
            for name, values in alone.truth().items():
                np.testing.assert_array_equal(truth[name], values)
            np.testing.assert_allclose(inside.measured()["aberrations"].values, alone.state["setpoint"][0], atol=1e-15)
        inside.safe(LONG)
        assert inside.is_safe()
        inside.close()


@needs_nion
def test_usim_begins_where_the_scenario_does_and_tells_where_its_lenses_stand():
    world = scenarios.load("stem_tuning", "train").world
    alone = StemTwin(world, 1)
    alone.begin(np.array([5], np.uint64), HERE)
    with usim.started(Meant(TWIN, world, judged=True)) as process:
        remote = RemoteInstrument(process.reached, "a test")
        judge = Link(process.reached, "judge", "a test")
        judge.ask("begin", LONG, key=5)
        told = judge.ask("truth", LONG)[1]
        np.testing.assert_allclose(told["aberrations"], alone.truth()["aberrations"], rtol=1e-12)
        np.testing.assert_allclose(told["strehl"], alone.truth()["strehl"], rtol=1e-5)
        remote.ready(LONG)
        remote.execute(SetAberrations(tuple(world["controls"]), -told["aberrations"][:, :7]), LONG)
        after = judge.ask("truth", LONG)[1]
        np.testing.assert_allclose(after["aberrations"][0, :7], 0, atol=1e-18)
        assert after["strehl"][0] > told["strehl"][0]
        np.testing.assert_allclose(remote.measured()["aberrations"].values, -told["aberrations"][0, :7], atol=1e-18)
        remote.close()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_the_twin_is_scripted_in_nions_own_api_as_a_microscope_is(capfd):
    pytest.importorskip("nion.instrumentation")
    with twin.inside("both", key=3) as swift:
        stem = swift.api.get_instrument_by_id(twin.INSTRUMENT, "~1.0")
        camera, scan = (swift.api.get_hardware_source_by_id(name, "~1.0") for name in (twin.CAMERA, twin.SCAN))
        before = swift.truth()["aberrations"][0, 0]
        stem.set_control_output("C10", 20e-9, options={"confirm": True})
        assert stem.get_control_output("C10") == 20e-9
        assert swift.truth()["aberrations"][0, 0] == pytest.approx(before + 20e-9, abs=10e-9)  # its controls are not perfect
        frames = [camera.record(asked, None, LONG) for asked in (None, {"exposure_ms": 50.0}, camera.get_frame_parameters())]
        for (frame,) in frames:  # also with the settings that a camera begins with
            assert frame.data.shape == (42, 42)
            assert [(axis.units, axis.offset, axis.scale) for axis in frame.dimensional_calibrations] == [("rad", -0.04, pytest.approx(0.08 / 42))] * 2
        (image,) = scan.record({"pixel_size": (64, 64), "fov_nm": 2.56, "pixel_time_us": 10.0}, [True, False, False, False], LONG)
        assert image.data.shape == (64, 64) and image.dimensional_calibrations[0].scale == pytest.approx(0.04)
        swift.begin(3)
        assert swift.truth()["aberrations"][0, 0] == pytest.approx(before) and stem.get_control_output("C10") == 0.0
        stem.set_control_output("C10", 20e-9, options={"confirm": True})
        (again,) = camera.record({"exposure_ms": 500.0}, None, LONG)  # as at first
        np.testing.assert_array_equal(again.data, frames[0][0].data)
        camera.record({"exposure_ms": 50.0, "binning": 2}, None, 5.0)
    assert "the twin's camera does not bin: set its binning to 1" in capfd.readouterr().err
    with pytest.raises(ProbeGymError, match="nosuch"), twin.inside("nosuch"):
        pass


def test_a_twin_refuses_controls_that_it_cannot_move():
    pytest.importorskip("nion.instrumentation")
    from probegym.hardware_bridge.instruments.nion.device import TwinInside

    inside = TwinInside(StemTwin(scenarios.load("stem_tuning", "train").world, 1))
    inside.begin(3)
    assert not inside.instrument.SetVal("C30", 1e-6), "its spherical aberration has no control"
    assert not inside.instrument.SetVal("EHT", 1e5) and inside.instrument.GetVal("EHT") == 60e3
    assert inside.instrument.SetVal("C12.y", 1e-9) and inside.device.pending == {"C12b"}
    before = inside.device.twin.state["count"][0]
    for value in (2e-9, 3e-9):  # each on its own: the iron remembers the way
        inside.instrument.SetVal("C12.y", value)
    assert inside.device.twin.state["count"][0] == before + 2
    assert inside.truth()["aberrations"][0, 2] != 0 and not inside.device.pending
    where = inside.device.twin.state["film_origin"].copy()
    still = inside.device.ronchigram(0.05, 0.0, np.zeros(2))
    assert still.shape == (42, 42) and not np.array_equal(still, inside.device.ronchigram(0.05, 0.0, np.array([5e-10, 0.0])))
    np.testing.assert_array_equal(inside.device.twin.state["film_origin"], where)
    inside.values.is_blanked = True
    assert not inside.scan.device.get_scan_data(inside.scan.settings.get_frame_parameters(0), inside.scan.device._Device__channels[0]).any()
