"""The notebooks: their code runs and prints what they show, and the device that one of them defines can be built of any driver."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import re
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from probegym import scenarios
from probegym.hardware_bridge.instruments import InstrumentFault, drivers, twin
from probegym.hardware_bridge.instruments.descriptions import DESCRIBED, TWINS
from probegym.hardware_bridge.world import Refused
from tests.helpers import ROOT, python

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
DEVICE = ROOT / "notebooks/instrument_as_ophyd_device.ipynb"
DEPLOY = ROOT / "notebooks/7_deploy.ipynb"
NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
LARGEST = 250_000  # bytes, pictures included
RUN = """
import json, sys
held = {"__name__": "__main__"}
for cell in json.load(open(sys.argv[1], encoding="utf-8"))["cells"]:
    if cell["cell_type"] == "code":
        exec(compile("".join(cell["source"]), cell["id"], "exec"), held)
"""

WORLDS = {
    "stem:StemTwin": ("stem_tuning", "both"), "afm:AfmTwin": ("afm_tuning", "id"), "stm:StmTwin": ("tip_conditioning", "id"), "adatoms:AdatomTwin": ("adatom_manipulation", "id"),
    "graphene:GrapheneTwin": ("beam_manipulation", "id"), "ising:IsingTwin": ("ising_inference", "id"), "spectra:SpectraTwin": ("spectrum_exploration", "id"),
    "flakes:FlakesTwin": ("level_selection", "id"),
}  # fmt: skip
HERE, TIP = (0.0, 0.0), {"field_of_view": 5e-9, "speed": 50e-9, "centre": (0.0, 0.0), "bias": 0.5, "current": 50e-12}
GIVEN = {
    "AcquireImage": {"shape": (16, 16), "field_of_view": 2e-9, "dwell_time": 1e-5, "defocus": 0.0}, "AcquireSpectrum": {"position": (1e-9, 1e-9), "exposure_time": 0.01},
    "AcquireRonchigram": {"exposure_time": 0.05, "defocus": 0.0, "film_shift": HERE},
    "AcquireTopograph": TIP | {"shape": (16, 16)}, "LocateAdatoms": TIP | {"shape": (16, 16), "count": 1, "image": True},
    "LocateAtoms": {"shape": (32, 32), "field_of_view": 2e-9, "centre": HERE, "dwell_time": 1e-5, "count": 1, "image": True},
    "ClassifyAtoms": {"shape": (4, 4), "centre": (1e-9, 1e-9), "dwell_time": 1e-3}, "MeasureLevel": {"level": "optical", "position": (1e-5, 1e-5)},
    "ScanLine": {"pixels": 64, "line_rate": 1.0}, "TestFeedback": {"samples": 64, "relay": 1e-9, "duration": 0.01}, "MoveTip": {"speed": 1e-8},
    "SetFeedback": {"proportional": 0.01, "integral": 200.0, "setpoint": 20e-9, "drive": 25e-9, "feed_forward": 0.0},
}  # fmt: skip


def cells(path: Path) -> list[dict]:
    return [cell for cell in json.loads(path.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]


def needed(path: Path) -> None:
    """Skip where an optional package that the notebook shows is not installed."""
    for name in {DEVICE: ("bluesky", "ophyd_async"), DEPLOY: ("nion.instrumentation",)}.get(path, ()):
        pytest.importorskip(name)


def apart(printed: str, shown: str) -> list[str]:
    """What differs, as kernels that another processor rounds differently let a tip's way drift: words; numbers by more than a
    quarter, shares by more than ten per cent of all as well; of small ones whole numbers by more than one, others by two of their last digit.
    """
    (words, numbers), (told, expected) = (("".join(NUMBER.sub("#", text).split()), NUMBER.findall(text)) for text in (printed, shown))
    shares = [text.lstrip().startswith("%") for text in NUMBER.split(shown)[1:]]
    if words != told:
        return ["words"]
    out = []
    for one, other, share in zip(numbers, expected, shares, strict=True):
        places = len(other.partition(".")[2])
        allowed = max(0.25 * abs(float(other)), 2.001 * 10.0**-places if places or share else 1.0)
        if abs(float(one) - float(other)) > (min(allowed, 10.0) if share else allowed):
            out.append(f"{one} instead of {other}")
    return out


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_small_and_shows_a_whole_run_without_an_error(path):
    text = path.read_text(encoding="utf-8")
    assert len(text) < LARGEST
    assert not [word for word in ("/home/", "/root/", "/tmp/", "/work/", "Users") if word in text]
    assert [cell["execution_count"] for cell in cells(path)] == list(range(1, len(cells(path)) + 1))
    assert not [output for cell in cells(path) for output in cell["outputs"] if output["output_type"] == "error"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_and_prints_what_it_shows(path):
    needed(path)
    shown = "".join("".join(output["text"]) for cell in cells(path) for output in cell["outputs"] if output.get("name") == "stdout")
    differences = apart(python(RUN, path, MPLBACKEND="Agg", OMP_NUM_THREADS="1", seconds=400), shown.strip())
    assert not differences, differences


def test_what_counts_as_the_same_print():
    assert not apart("rms  0.23 nm, 1 of 40, good", "rms 0.22 nm, 2 of 40, good")
    assert apart("rms 0.23 nm", "rms 0.23 pm") == ["words"] and apart("rms 0.33 nm", "rms 0.22 nm") == ["0.33 instead of 0.22"]
    assert apart("2 of 2 good, 100%, score 1.0", "0 of 2 good, 80%, score 0.9") == ["2 instead of 0", "100 instead of 80"]


@pytest.fixture(scope="module")
def defined() -> dict:
    """What the cell that defines the device leaves."""
    needed(DEVICE)
    held: dict = {"__name__": "notebook"}
    exec("".join(next(cell for cell in cells(DEVICE) if "class InstrumentDevice" in "".join(cell["source"]))["source"]), held)
    return held


@contextlib.asynccontextmanager
async def built(defined, instrument, given=None, name="it"):
    async with defined["init_devices"]():
        device = defined["InstrumentDevice"](instrument, GIVEN if given is None else given, name=name)
    yield device
    instrument.close()


def of_twin(which):
    return twin.TwinInstrument(twin.build(f"{TWINS}.{which}", scenarios.load(*WORLDS[which]).world, 0))


def test_every_twin_is_tried():
    assert {f"{module}:{name}" for name, module in DESCRIBED.items()} == set(WORLDS)


@pytest.mark.parametrize("which", WORLDS)
def test_a_device_of_any_twin_has_its_controls_and_looks(defined, which):
    async def tried():
        instrument = of_twin(which)
        given = GIVEN
        if which == "spectra:SpectraTwin":  # it has one view of its sample
            view = instrument.descriptor.capabilities["AcquireImage"].ranges["field_of_view"]
            given = GIVEN | {"AcquireImage": {"shape": (50, 50), "field_of_view": (view.low + view.high) / 2, "dwell_time": 1e-5}}
        async with built(defined, instrument, given) as device:
            capabilities = device.instrument.descriptor.capabilities
            assert device.left_out == {verb: "irreversible" for verb, capability in capabilities.items() if capability.effect == "changes"}
            stand = await device.read()
            assert sum(np.size(one.values) for one in device.instrument.measured().values()) == len(stand)
            await device.stage()
            if "SetFeedback" in capabilities:
                await device.SetFeedback.trigger()
                assert await device.feedback_setpoint.get_value() == GIVEN["SetFeedback"]["setpoint"]
            looks = [verb for verb, capability in capabilities.items() if capability.effect == "reads"]
            for verb in looks:
                detector = getattr(device, verb)
                before = await detector.read()
                await detector.trigger()
                after, described = await detector.read(), await detector.describe()
                assert set(before) == set(after) == set(described)
                assert all(math.isnan(before[f"it-{verb}-cost_{what}"]["value"]) for what in ("time", "dose"))
                assert after[f"it-{verb}-cost_time"]["value"] >= 0 and described[f"it-{verb}-cost_time"]["units"] == "s"
                arrays = {name: one["value"] for name, one in after.items() if np.ndim(one["value"])}
                assert all(tuple(described[name]["shape"]) == np.shape(value) for name, value in arrays.items())
                assert all(after[f"{name}_mean"]["value"] == pytest.approx(float(np.mean(value)), nan_ok=True) for name, value in arrays.items())
            assert looks
            await device.unstage()
            assert device.instrument.is_safe()

    asyncio.run(tried())


def test_a_component_is_set_and_the_others_stay(defined):
    async def tried():
        async with built(defined, of_twin("stem:StemTwin")) as device:
            await device.stage()
            await device.aberrations.C12b.set(3e-9)
            await device.aberrations.C10.set(-7e-9)
            told = await device.read()
            assert {name.rpartition("-")[2]: one["value"] for name, one in told.items() if one["value"]} == {"C10": -7e-9, "C12b": 3e-9}
            assert (await device.describe())["it-aberrations-C10"]["limits"]["control"] == {"low": -40e-9, "high": 40e-9}
            with pytest.raises(Refused, match="from -4e-08 to 4e-08 m"):
                await device.aberrations.C10.set(41e-9)
            assert await device.aberrations.C10.get_value() == -7e-9

    asyncio.run(tried())


def test_nothing_is_assumed_and_nothing_is_sent_in_the_safe_state(defined):
    async def tried():
        async with built(defined, of_twin("stem:StemTwin"), {}) as device:
            assert device.left_out == {"AcquireImage": "shape is not given"}
            with pytest.raises(Refused, match="safe state"):
                await device.aberrations.C10.set(1e-9)
            await device.stage()
            with pytest.raises(Refused, match="exposure_time must be"):
                await device.AcquireRonchigram.trigger()
            for name, value in (("exposure_time", 0.05), ("defocus", 0.0), ("film_shift", np.zeros(2))):
                await getattr(device.AcquireRonchigram, name).set(value)
            await device.AcquireRonchigram.trigger()
            assert await device.AcquireRonchigram.ronchigram_mean.get_value() > 0
            await device.AcquireRonchigram.film_shift.set(np.zeros(3))
            with pytest.raises(Refused, match="shape"):
                await device.AcquireRonchigram.trigger()

    asyncio.run(tried())


def test_a_control_that_no_verb_owns_is_read_only_and_names_that_are_taken_give_way(defined):
    instrument = of_twin("stem:StemTwin")
    instrument._values |= {"stage": np.array([1e-6, 2e-6]), "turn": np.array([3.0])}

    async def tried():
        async with built(defined, instrument) as device:
            assert [await getattr(device.stage_, axis).get_value() for axis in "xy"] == [1e-6, 2e-6]
            assert await device.turn_.get_value() == 3.0
            assert not hasattr(device.turn_, "set") and hasattr(device.aberrations.C10, "set")

    asyncio.run(tried())


def test_a_safe_state_that_is_not_read_back_is_a_fault(defined):
    instrument = of_twin("stem:StemTwin")

    async def tried():
        async with built(defined, instrument) as device:
            await device.stage()
            instrument.is_safe = lambda: False
            with pytest.raises(InstrumentFault, match="look at the instrument"):
                await device.unstage()

    asyncio.run(tried())


def test_what_is_cancelled_keeps_its_turn_until_it_has_ended(defined):
    """A driver has one line for commands and what is read back: never two threads on it."""
    instrument, busy, together = of_twin("stem:StemTwin"), threading.Event(), []

    def slow(command, seconds, carry_out=instrument.execute):
        busy.set()
        time.sleep(0.5)
        busy.clear()
        return carry_out(command, seconds)

    def measured(read=instrument.measured):
        together.append(busy.is_set())
        return read()

    async def tried():
        async with built(defined, instrument) as device:
            await device.stage()
            instrument.execute, instrument.measured = slow, measured
            status = device.AcquireRonchigram.trigger()
            await asyncio.to_thread(busy.wait, 20)
            status.task.cancel()
            await device.read()
            await device.unstage()

    asyncio.run(tried())
    assert len(together) > 1 and not any(together)


def test_a_device_of_the_nanonis_driver_sets_what_the_controller_reads_back(defined):
    world = scenarios.load(*WORLDS["adatoms:AdatomTwin"]).world
    running = drivers.reach("nanonis-twin", drivers.Meant("probegym.hardware_bridge.twins.adatoms:AdatomTwin", world))

    async def tried():
        async with built(defined, drivers.open_writer(running.reached, "tests")) as device:
            assert {verb: device.left_out[verb] for verb in ("Approach", "DragTip", "Withdraw")} == {
                "Approach": "irreversible", "DragTip": "irreversible", "Withdraw": "nothing of it is read back",
            }  # fmt: skip
            await device.stage()
            await device.tip.x.set(2e-9)
            await device.tip.y.set(-1e-9)
            assert [await getattr(device.tip, axis).get_value() for axis in "xy"] == pytest.approx((2e-9, -1e-9), abs=0.05e-9)
            for control, value in ((device.bias, 0.25), (device.tunnelling_current, 80e-12)):
                await control.set(value)
                assert await control.get_value() == pytest.approx(value, rel=1e-6)
            await device.LocateAdatoms.trigger()
            assert (await device.LocateAdatoms.height.get_value()).shape == (16, 16)
            assert (await device.LocateAdatoms.describe())["it-LocateAdatoms-height"]["units"] == "m"
            await device.unstage()
            assert device.instrument.is_safe()

    try:
        asyncio.run(tried())
    finally:
        running.close()
