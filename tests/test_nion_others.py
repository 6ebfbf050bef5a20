"""What others do to a Nion instrument beside its driver: change its beam, move what it stands at, close its blanker; and setups that cannot be."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError

from probegym.errors import ProbeGymError
from probegym.hardware_bridge.commands import AcquireSpectrum, MoveStage, PlaceProbe, ShiftBeam
from probegym.hardware_bridge.instruments import InstrumentFault
from probegym.hardware_bridge.instruments.descriptions.base import spot
from probegym.hardware_bridge.instruments.nion.beam import Beam, beam_of
from probegym.hardware_bridge.instruments.nion.describe import described
from probegym.hardware_bridge.instruments.nion.instrument import NionInstrument
from probegym.hardware_bridge.instruments.nion.setup import USIM, NionSetup
from probegym.hardware_bridge.world import Refused
from tests import nion_helpers
from tests.nion_helpers import LONG, armed, electrons, image, ronchigram, setting

BEAM = {"BeamCurrent": 200e-12, "EHT": 100e3, "ConvergenceAngle": 0.04}
PLACE = PlaceProbe(np.zeros((1, 2)), np.array([0.05]))
EXPOSING = (image(), ronchigram(), AcquireSpectrum("eels", np.array([[2e-8, 2e-8]]), 0.02), PLACE)


parts = nion_helpers.parts


@pytest.fixture
def nion(parts):
    """An armed instrument that has an image; the simulator as it stands at its start, also afterwards."""
    instrument = armed(parts)
    instrument.execute(image(), LONG)
    yield instrument
    instrument.safe(LONG)
    for name, value in {**BEAM, "CSH.x": 0.0, "CSH.y": 0.0, "stage_position_m.x": 0.0, "stage_position_m.y": 0.0}.items():
        assert parts.stem.SetVal(name, value)


@pytest.fixture
def meanwhile(parts, monkeypatch):
    """Has controls set while a frame of the camera is drawn."""
    changes: dict[str, float] = {}
    simulator = parts.ronchigram.camera.simulator
    draw = simulator.get_frame_data

    def drawn(*of):
        for name, value in changes.items():
            assert parts.stem.SetVal(name, value)
        return draw(*of)

    monkeypatch.setattr(simulator, "get_frame_data", drawn)
    return changes


def moving(x: float) -> MoveStage:
    return MoveStage(np.array([[x, 0.0, 0.0]]), np.zeros((1, 2)))


# ---- the beam ----


@pytest.mark.parametrize(("name", "more"), [("BeamCurrent", 2e-9), ("EHT", 200e3), ("ConvergenceAngle", 0.041)])
def test_a_beam_beyond_what_is_charged_for_is_refused(parts, nion, monkeypatch, name, more):
    parts.stem.SetVal(name, more)
    opened = []
    put = parts.stem.SetVal
    monkeypatch.setattr(parts.stem, "SetVal", lambda control, value: opened.append(control) or put(control, value))
    for command in EXPOSING:
        with pytest.raises(Refused, match=rf"{name} is {more:g}, charged is for {BEAM[name]:g}: open the instrument anew"):
            nion.execute(command, LONG)
    assert not opened, "nothing was done"
    fresh = NionInstrument(parts, USIM)
    for command in EXPOSING[1:] if name == "BeamCurrent" else EXPOSING[2:]:  # of a Ronchigram the setup tells the angle
        assert fresh.descriptor.worst_case(command).dose > nion.descriptor.worst_case(command).dose


def test_the_dose_that_is_told_is_that_of_the_beam_as_it_is_now(parts, nion):
    parts.stem.SetVal("BeamCurrent", 20e-12)
    for command, seconds, area in ((EXPOSING[1], 0.02, spot(100e3, 0.1007)), (EXPOSING[2], 0.02, spot(100e3, 0.04)), (PLACE, 0.05, spot(100e3, 0.04)), (image(), 4096e-7, 1e-14)):
        readings = nion.execute(command, LONG)
        assert electrons(seconds, area) / 10 <= readings.dose[0] <= electrons(float(readings.time[0]), area) / 10
    parts.stem.SetVal("ConvergenceAngle", 0.02)
    readings = nion.execute(PLACE, LONG)
    assert electrons(0.05, spot(100e3, 0.02)) / 10 <= readings.dose[0] <= electrons(float(readings.time[0]), spot(100e3, 0.02)) / 10


def test_a_beam_that_becomes_more_meanwhile_is_a_fault(parts, nion, meanwhile):
    parts.stem.SetVal("BeamCurrent", 20e-12)
    meanwhile["BeamCurrent"] = 100e-12  # less than what is charged for
    assert nion.execute(ronchigram(), LONG).dose[0] >= electrons(0.02, spot(100e3, 0.1007)) / 2, "told is the most that it was"
    meanwhile["BeamCurrent"] = 2e-9
    with pytest.raises(InstrumentFault, match=r"BeamCurrent is 2e-09, charged is for 2e-10: the sample had more than is charged for"):
        nion.execute(ronchigram(), LONG)


def test_what_the_setup_gives_is_the_most_that_the_beam_may_be(parts, nion):
    with pytest.raises(ProbeGymError, match="tells 2e-10 for BeamCurrent, beam_current of its setup is 1e-10: give the most"):
        NionInstrument(parts, USIM.model_copy(update={"beam_current": 1e-10}))
    fickle = NionInstrument(parts, USIM.model_copy(update={"beam_current": 3e-10}))
    fickle.ready(LONG)
    parts.stem.SetVal("BeamCurrent", 2.5e-10)
    readings = fickle.execute(ronchigram(), LONG)
    assert readings.dose[0] >= 1.5 * electrons(0.02, spot(100e3, 0.1007)), "and is taken for it"
    parts.stem.SetVal("BeamCurrent", 3.5e-10)
    with pytest.raises(Refused, match=r"tells 3\.5e-10 for BeamCurrent"):
        fickle.execute(ronchigram(), LONG)


@pytest.mark.parametrize("told", [None, 0.0, -1e-12, 200.0, float("nan"), "1e-10"])
def test_a_beam_that_is_not_told_in_si_is_an_error(told):
    with pytest.raises(ProbeGymError, match=r"BeamCurrent: give beam_current in its setup, between 1e-15 and 1e-06"):
        beam_of(USIM, (told, 100e3, 0.04))
    assert beam_of(USIM.model_copy(update={"beam_current": 1e-10}), (None, np.float32(100e3), 0.04)).current == 1e-10


def test_what_an_image_costs_has_the_fly_back_of_its_lines():
    """Where the beam dwells at the end of a line, however small the image is on the sample."""
    beam, none = Beam(200e-12, 100e3, 0.04), np.zeros(2)
    without, slow = (described(USIM.model_copy(update={"line_seconds": s}), beam, None, none, none).worst_case(image()) for s in (0.0, 1e-2))
    assert slow.dose - without.dose >= 64 * 1e-2 * beam.rate() * (1 - 1e-9)
    assert slow.seconds - without.seconds == pytest.approx(64 * 1e-2)


# ---- stage and deflectors ----


def test_stage_and_shift_go_no_farther_than_their_range_from_where_they_stood(parts, nion):
    parts.stem.SetVal("stage_position_m.x", 300e-6)
    parts.stem.SetVal("CSH.y", 5e-6)
    for command, stood in ((moving(100e-9), 300e-6), (ShiftBeam(np.array([[0.0, 100e-9]])), 5e-6)):
        with pytest.raises(Refused, match=rf"stands at {stood:g}, and may not move to 1e-07 at once"):
            nion.execute(command, LONG)
    fresh = NionInstrument(parts, USIM)
    fresh.ready(LONG)
    assert fresh.measured()["stage"].values == pytest.approx([300e-6, 0.0, 0.0]), "in the coordinates by which a sample's dose is counted"
    for outside in (moving(100e-9), moving(300.6e-6), ShiftBeam(np.array([[0.0, 100e-9]]))):
        with pytest.raises(Refused, match="must be from"):
            fresh.execute(outside, LONG)
    assert parts.stem.GetVal("stage_position_m.x") == 300e-6
    fresh.execute(moving(300.1e-6), LONG)
    fresh.execute(ShiftBeam(np.array([[0.0, 5.1e-6]])), LONG)
    assert fresh.measured()["stage"].values[0] == pytest.approx(300.1e-6) and parts.stem.GetVal("CSH.y") == pytest.approx(5.1e-6)
    assert fresh.measured()["shift"].values == pytest.approx([0.0, 5.1e-6])
    fresh.safe(LONG)


def test_an_aberration_that_somebody_drove_away_is_not_driven_back(parts, nion):
    parts.stem.SetVal("C10", 5e-6)
    with pytest.raises(Refused, match=r"C10 stands at 5e-06, and may not move to 5e-07 at once, only by 1\.201e-06"):
        nion.execute(setting(), LONG)
    assert parts.stem.GetVal("C10") == 5e-6


# ---- in an exposure ----


def test_a_blanker_that_closes_meanwhile_is_no_dark_frame(parts, nion, meanwhile, monkeypatch):
    meanwhile["C_Blank"] = 1.0
    with pytest.raises(InstrumentFault, match="somebody has closed the blanker meanwhile"):
        nion.execute(ronchigram(), LONG)
    meanwhile.clear()
    wait = nion._wanted_safe.wait
    monkeypatch.setattr(nion._wanted_safe, "wait", lambda seconds: parts.stem.SetVal("C_Blank", 1.0) and wait(seconds) if seconds == 0.05 else wait(seconds))
    with pytest.raises(InstrumentFault, match="somebody has closed the blanker meanwhile"):
        nion.execute(PLACE, LONG)


@pytest.mark.parametrize("excursion", [0.0, 200e-9])
@pytest.mark.parametrize(("name", "to"), [("C10", 600e-9), ("C23.y", 1e-6), ("CSH.x", 3e-9), ("stage_position_m.y", 4e-9)])
def test_a_control_that_moves_meanwhile_is_a_fault(parts, nion, meanwhile, name, to, excursion):
    meanwhile[name] = to
    with pytest.raises(InstrumentFault, match=rf"somebody has moved {name} meanwhile, from .* to {to:g}"):
        nion.execute(ronchigram(excursion), LONG)
    assert parts.stem.GetVal("C_Blank") == 1.0
    meanwhile.clear()
    assert nion.execute(ronchigram(excursion), LONG).values["ronchigram"].max() > 0


# ---- setups ----


@pytest.mark.parametrize(
    ("change", "told"),
    [({name: (2, 1)}, f"{name} must be above 0, the least before the most, got 2 and 1") for name in ("sides", "views", "dwells", "exposures")]
    + [({"sides": (0, 64)}, "sides must be above 0"), ({"views": (-1e-9, 1e-6)}, "setup, views.0: Input should be greater than 0")]
    + [({"tolerance": value}, "setup, tolerance: Input should be") for value in (0.0, 0.51, float("nan"))]
    + [({"lit_seconds": value}, "setup, lit_seconds: Input should be") for value in (0.0, 61.0)]
    + [({name: value}, f"{name} must be between 0.0001 and 0.5, got {value:g}") for name in ("semiangle", "ronchigram_semiangle") for value in (40.0, 1e-5)]
    + [({name: value}, f"{name} must be between 1e-15 and 1e-06, got {value:g}") for name in ("beam_current", "ronchigram_current") for value in (50.0, 1e-16)]
    + [({"energy": value}, "energy must be between 1000 and 2e.06") for value in (100.0, 3e6)]
    + [({field: "C_Blank"}, f"{field} names the control 'C_Blank', the blanker: give its own") for field in ("focus", "shift", "stage")]
    + [({"focus": "stage_position_m.x"}, "focus names .*that of stage"), ({"focus": "EHT"}, "focus names .*that of energy"), ({"stage": "C12"}, "stage names the control 'C12.x', that of C12a")]
    + [({"shift": "stage_position_m"}, "shift names .*that of stage"), ({"controls": {}}, "at least one"), ({"nosuch": 1}, "setup, nosuch: Extra")],
)  # fmt: skip
def test_a_setup_that_cannot_be_is_refused_in_one_line(change, told):
    assert NionSetup(**USIM.model_dump()) == USIM
    with pytest.raises(ProbeGymError, match=told) as refused:
        NionSetup(**{**USIM.model_dump(), **change})
    assert not isinstance(refused.value, ValidationError) and "\n" not in str(refused.value)
