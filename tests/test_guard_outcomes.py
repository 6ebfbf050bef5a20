"""What comes of an admitted command: readings, what cannot be one, and commands that nobody answers."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from probegym.errors import ProbeGymError
from probegym.hardware_bridge import codec
from probegym.hardware_bridge.commands import Readings
from probegym.hardware_bridge.guard.gate import (
    SLACK_SECONDS,
    State,
)
from probegym.hardware_bridge.instruments import InstrumentFault
from tests.guard_helpers import (
    FLUX,
    INSPECT,
    costs,
    image,
    in_fault,
    park,
    refused,
    shift,
    tune,
)


def frame(values: object = None, **changes: object) -> Readings:
    told = np.arange(256.0).reshape(1, 16, 16) if values is None else values
    return dataclasses.replace(Readings({"HAADF": told}, *costs(0.1)), **changes)


def spoiled(value: float) -> np.ndarray:
    values = np.arange(256.0).reshape(1, 16, 16)
    values[0, 3, 4] = value
    return values


WRONG = {
    "error": (InstrumentFault("no answer within 1 s"), "AcquireImage: no answer within 1 s"),
    "another error": (ProbeGymError("odd"), "AcquireImage: odd"),
    "nothing": (None, "AcquireImage: None"),
    "lacking": (Readings({}, *costs()), "AcquireImage: the instrument did not send HAADF"),
    "another shape": (frame(np.zeros((1, 16, 15))), "AcquireImage: reading HAADF has the shape (16, 15), not (16, 16)"),
    "two lanes": (frame(np.zeros((2, 16, 16))), "AcquireImage: reading HAADF is no array of numbers of one lane"),
    "text": (frame(np.full((1, 16, 16), "1")), "AcquireImage: reading HAADF is no array of numbers of one lane"),
    "objects": (frame(np.full((1, 16, 16), None)), "AcquireImage: reading HAADF is no array of numbers of one lane"),
    "a list": (Readings({"HAADF": [1.0]}, *costs()), "AcquireImage: what came back cannot be read (AttributeError"),
    "NaN": (frame(spoiled(np.nan)), "AcquireImage: reading HAADF is not within 0 and 10000"),
    "infinite": (frame(spoiled(np.inf)), "AcquireImage: reading HAADF is not within 0 and 10000"),
    "below": (frame(spoiled(-1e-9)), "AcquireImage: reading HAADF is not within 0 and 10000"),
    "above": (frame(spoiled(10001.0)), "AcquireImage: reading HAADF is not within 0 and 10000"),
    "one huge among more": (Readings({**frame().values, "more": np.array([1e16])}, *costs()), "reading more is not within -1e+15 and 1e+15"),
    "time NaN": (frame(time=np.array([np.nan])), "AcquireImage: what it cost in time is no number of one lane"),
    "dose below zero": (frame(dose=np.array([-1.0])), "AcquireImage: what it cost in dose is no number of one lane"),
    "damage of two lanes": (frame(damage=np.zeros(2)), "AcquireImage: what it cost in damage is no number of one lane"),
    "measurements in text": (frame(measurements=np.array(["1"])), "AcquireImage: what it cost in measurements is no number of one lane"),
}


@pytest.mark.parametrize(("outcome", "why"), WRONG.values(), ids=WRONG)
def test_outcomes_that_cannot_be_are_faults(armed, outcome, why):
    admission = armed.admit(image())
    admission.claim(armed.clock.now)
    with refused(why):
        armed.gate.complete(admission, outcome)
    ending = "settled" if isinstance(outcome, Readings) else "lost"  # without an answer nobody knows what it did
    assert armed.record.last(ending) == {"intent": admission.intent, "why": armed.gate.why} and armed.record.kinds().count("settled") + armed.record.kinds().count("lost") == 1
    in_fault(armed, why)


def test_outcomes_are_written_down(armed):
    admission = armed.admit(image())
    outcome = armed.outcome(admission)
    assert armed.gate.complete(admission, outcome) is outcome
    kind, payload, arrays = armed.record.events[-1]
    assert kind == "result" and payload == {"intent": admission.intent, "readings": codec.readings_to_json(outcome)[0]}
    assert (arrays["HAADF"] == outcome.values["HAADF"]).all()


@pytest.mark.parametrize("kind", [np.float32, np.float64, np.uint16])
def test_a_frozen_detector_is_a_fault(armed, kind):
    frames = [frame((np.arange(256).reshape(1, 16, 16) + number).astype(kind)) for number in (1, 2, 2)]
    for outcome in frames[:2]:
        armed.gate.complete(armed.admit(image()), outcome)
    with refused("AcquireImage: reading HAADF is the same to the last bit as the one before"):
        armed.gate.complete(armed.admit(image()), frames[2])
    in_fault(armed, "the same to the last bit")


def test_dark_frames_and_what_may_repeat_are_no_frozen_detectors(armed):
    for _ in range(3):
        armed.gate.complete(armed.admit(image()), frame(np.zeros((1, 16, 16))))
    steady = {name: np.zeros((1, 2)) for name in INSPECT.returns()} | {"labels": np.arange(300).reshape(1, 300), "correlations": np.full((1, 300), np.nan)}
    for _ in range(3):
        armed.gate.complete(armed.admit(INSPECT), Readings(steady, *costs()))
    with refused("reading field is not within"):
        armed.gate.complete(armed.admit(INSPECT), Readings(steady | {"field": np.full((1, 2), np.nan)}, *costs()))


@pytest.mark.parametrize("moves", ["stuck", "overshoot"])
def test_controls_that_do_not_land_are_faults(armed, moves):
    armed.instrument.moves = moves
    with refused("ShiftBeam.shift was set, and stands 1e-07 away"):
        armed.do(shift())
    in_fault(armed, "ShiftBeam.shift was set")


@pytest.mark.parametrize(
    ("lie", "why"), [(None, "SetAberrations.values is not read back"), (np.zeros(3), "has 2 numbers, the instrument reads back 3"), (np.full(2, np.nan), "no number")]
)
def test_controls_that_are_not_read_back_are_faults(armed, lie, why):
    armed.instrument.lies["aberrations"] = lie
    with refused(why):
        armed.do(tune())
    in_fault(armed, why)


def test_a_dose_beyond_the_worst_case_is_booked_and_a_fault(armed):
    admission = armed.admit(park(seconds=0.1))
    with refused("PlaceProbe has cost 15 electrons per square Angstrom more than it can at worst"):
        armed.gate.complete(admission, Readings({}, *costs(0.1, 0.1 * FLUX + 15)))
    assert armed.ledger.regions[0, 0].dose == pytest.approx(0.1 * FLUX + 15)
    in_fault(armed, "more than it can at worst")


@pytest.mark.parametrize("closing", ["disarm", "abort"])
def test_readings_from_a_closed_gate_are_not_used(armed, closing):
    admission = armed.admit(park())
    outcome = armed.outcome(admission)
    getattr(armed.gate, closing)("now")
    armed.instrument.is_blanked = False  # the command ended after the safe state and undid it
    with refused("what came of PlaceProbe is not used"):
        armed.gate.complete(admission, outcome)
    assert armed.instrument.is_blanked and armed.record.last("settled")["intent"] == admission.intent
    assert armed.gate.state is (State.disarmed if closing == "disarm" else State.fault)


def test_late_and_doubled_answers_are_not_used(armed):
    first = armed.admit(park())
    outcome = armed.outcome(first)
    armed.gate.complete(first, outcome)
    second = armed.admit(park())
    for stale in (first, dataclasses.replace(second)):
        with refused("this command is not under way"):
            armed.gate.complete(stale, outcome)
    assert armed.gate.running is second


@pytest.mark.parametrize("closing", ["", "hold", "disarm", "abort"])
def test_a_lost_command_is_a_fault(armed, closing):
    admission = armed.admit(park(seconds=0.5))
    outcome = armed.outcome(admission)
    if closing:
        getattr(armed.gate, closing)("now")
    if closing == "abort":
        with refused("a command is still under way"):
            armed.gate.reset()
    armed.clock.now += 0.5 + 2 * SLACK_SECONDS
    armed.gate.tick()
    assert armed.gate.running is admission
    armed.clock.now += 0.1
    armed.gate.tick()
    in_fault(armed, "PlaceProbe has not ended in time: what it did is not known")
    assert armed.record.last("lost") == {"intent": admission.intent, "why": armed.gate.cause}
    with refused("not under way"):
        armed.gate.complete(admission, outcome)
    armed.gate.reset()
    assert armed.gate.state is State.disarmed


def test_damage_beyond_what_is_allowed_holds_the_run(bench):
    bench.armed(damage=1.5)
    for events, state in ((1.0, State.running), (0.5, State.running), (0.1, State.held)):
        admission = bench.admit(image())
        outcome = bench.outcome(admission)
        bench.gate.complete(admission, Readings(outcome.values, *costs(0.1)[:2], np.array([events]), np.zeros(1)))
        assert bench.gate.state is state
    assert "AcquireImage did damage: 1.6 events in this run, 1.5 are allowed" in bench.gate.why


def test_an_answer_that_was_given_up_is_followed_by_the_safe_state(armed):
    admission = armed.admit(park(seconds=0.5))
    armed.clock.now += 0.5 + 2 * SLACK_SECONDS + 0.1
    armed.gate.tick()
    armed.instrument.is_blanked = False  # it acted after all
    armed.gate.late(admission)
    assert armed.instrument.is_blanked and armed.gate.state is State.fault
