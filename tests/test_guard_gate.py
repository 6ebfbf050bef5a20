"""Every state of the gate and every way between them: arming, approval, outcomes, faults, and what comes in the middle of something else."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from probegym.errors import ProbeGymError
from probegym.hardware_bridge import codec
from probegym.hardware_bridge.commands import Readings
from probegym.hardware_bridge.guard.gate import (
    AGAIN_SECONDS,
    APPROVAL_SECONDS,
    LEASE_SECONDS,
    MOST_REFUSALS,
    NONCE_SECONDS,
    SLACK_SECONDS,
    Admission,
    Gate,
    State,
    Waiting,
)
from probegym.hardware_bridge.guard.ledger import Ledger
from probegym.hardware_bridge.instruments import InstrumentFault
from probegym.hardware_bridge.world import Refused
from tests.guard_helpers import BLANK, FLUX, INSPECT, REQUEST, ROUTINE, Bench, costs, image, one, park, refused, shift, stage, tune


@pytest.fixture
def bench(tmp_path) -> Bench:
    return Bench(tmp_path)


@pytest.fixture
def armed(bench) -> Bench:
    return bench.armed()


def in_fault(bench: Bench, why: str) -> None:
    """Latched, and the instrument in its safe state."""
    assert bench.gate.state is State.fault and why in bench.gate.why, bench.gate.why
    assert bench.instrument.is_blanked and bench.gate.safe
    with refused("the gate is fault"):
        bench.admit(park())


# ---- arming ----


def test_a_new_gate_takes_the_instrument_to_its_safe_state(armed):
    gate = armed.start()
    assert gate.state is State.disarmed and not armed.instrument.is_blanked
    gate.tick()
    assert armed.instrument.is_blanked and len(armed.instrument.safes) == 2
    gate.tick()
    assert len(armed.instrument.safes) == 2


def test_arming_tries_the_safe_state_and_shows_what_it_is_for(bench):
    told = bench.gate.ask(REQUEST)
    assert told == {
        "request": REQUEST | {"approvals": 0, "damage": 0.0}, "nonce": "123456", "budget": {"dose": 100.0, "changes": 50, "region": 1e-6, "instrument": "fake"}, "spent": {"dose": 0.0, "changes": 0},
    }  # fmt: skip
    assert bench.instrument.safes == [True] and bench.gate.state is State.asked and bench.instrument.is_blanked
    bench.gate.arm("123456")
    assert not bench.instrument.is_blanked and bench.record.kinds().index("armed") < len(bench.record.kinds()) - 1


def test_nonces_are_drawn(bench):
    drawn = {Gate(bench.instrument, bench.ledger, bench.record, bench.clock).nonce() for _ in range(20)}
    assert len(drawn) > 10 and all(len(nonce) == 6 for nonce in drawn)


@pytest.mark.parametrize(
    "content",
    [None, [], {}, REQUEST | {"more": 1}, *(REQUEST | {"seconds": s} for s in (0.0, -1.0, float("nan"), float("inf"), "5", True)),
     *(REQUEST | {"changes": n} for n in (-1, 1.5, True, "1")), REQUEST | {"approvals": -1}, REQUEST | {"policy": "x" * 201}],
    ids=lambda content: str(content)[-40:],
)  # fmt: skip
def test_requests_for_arming_are_checked(bench, content):
    with refused("this is no request for arming: ("):
        bench.gate.ask(content)
    assert bench.gate.state is State.disarmed


@pytest.mark.parametrize("word", ["", "123457", "é\ud800", None, 123456, True])
def test_a_wrong_nonce_disarms(bench, word):
    bench.gate.ask(REQUEST)
    with refused("this is not the nonce that was shown: ask for arming again"):
        bench.gate.arm(word)
    with refused("nothing waits to be armed, the gate is disarmed"):
        bench.gate.arm("123456")
    assert bench.instrument.is_blanked


@pytest.mark.parametrize("ticks", [True, False])
def test_a_late_nonce_disarms(bench, ticks):
    bench.gate.ask(REQUEST)
    bench.clock.now += NONCE_SECONDS + 0.1
    if ticks:
        bench.gate.tick()
        assert bench.gate.state is State.disarmed
    with pytest.raises(Refused):
        bench.gate.arm("123456")
    assert bench.gate.state is State.disarmed and bench.instrument.is_blanked


def test_a_nonce_is_good_for_once(armed):
    for word in ("123456", ""):
        with refused("nothing waits to be armed, the gate is running"):
            armed.gate.arm(word)
    armed.gate.disarm("enough")
    for word in ("123456", ""):
        with refused("nothing waits to be armed"):
            armed.gate.arm(word)


def test_an_open_gate_is_not_armed_again(armed):
    for state in (armed.gate.hold, armed.gate.abort):
        with refused("disarm or reset it before arming anew"):
            armed.gate.ask(REQUEST)
        state("now")
    with refused("disarm or reset it before arming anew"):
        armed.gate.ask(REQUEST)


def test_nothing_is_armed_while_a_command_is_under_way(armed):
    admission = armed.admit(park())
    armed.gate.disarm("enough")
    with refused("a command is still under way"):
        armed.gate.ask(REQUEST)
    with pytest.raises(Refused):
        armed.gate.complete(admission, Refused("no"))
    armed.gate.ask(REQUEST)


def test_a_run_begins_with_nothing_spent(bench):
    bench.armed(seconds=1.0, changes=1, approvals=1)
    admission = bench.gate.decide(bench.admit(park(seconds=0.9)).number, True)
    bench.gate.complete(admission, bench.outcome(admission))
    bench.gate.disarm("enough")
    bench.armed(seconds=1.0, changes=1, approvals=1)
    assert isinstance(bench.admit(park(-0.5e-6, -0.5e-6, 0.9), 1), Waiting)


@pytest.mark.parametrize("switch", ["refuses_safe", "denies_safe", "mute", "bug"])
def test_no_arming_without_a_safe_state(bench, switch):
    setattr(bench.instrument, switch, True)
    bench.instrument.is_blanked = False
    with refused("SAFE STATE NOT CONFIRMED"):
        bench.gate.ask(REQUEST)
    assert bench.gate.state is State.fault and not bench.gate.safe and bench.record.last("safe") == {"why": "self-test before arming", "confirmed": False}


def test_an_instrument_that_does_not_get_ready_is_a_fault(bench):
    bench.instrument.refuses_ready = True
    bench.gate.ask(REQUEST)
    with refused("the instrument did not get ready: the valve stays closed"):
        bench.gate.arm("123456")
    in_fault(bench, "the instrument did not get ready")


# ---- holding and disarming ----


def test_hold_and_resume(armed):
    with refused("there is nothing to go on from, the gate is running"):
        armed.gate.resume()
    armed.gate.hold("a pause")
    assert not armed.instrument.is_blanked
    armed.gate.resume()
    armed.do(park())
    armed.gate.hold("a pause")
    armed.clock.now += LEASE_SECONDS
    with refused("the lease has ended"):
        armed.gate.resume()
    armed.gate.hold("again")
    assert armed.gate.state is State.disarmed and armed.instrument.is_blanked


def test_refusals_in_a_row_hold(armed):
    for number in range(2 * MOST_REFUSALS):
        with pytest.raises(Refused):
            armed.admit(park(1.0))
        armed.do(park())
        assert armed.gate.state is State.running, number
    for number in range(MOST_REFUSALS):
        assert armed.gate.state is State.running, number
        with pytest.raises(Refused):
            armed.admit(park(1.0) if number else {"verb": "Explode"})
    assert armed.gate.state is State.held and "3 refusals in a row, the last: PlaceProbe.position must be" in armed.gate.why
    armed.gate.resume()
    with pytest.raises(Refused):
        armed.admit(park(1.0))
    assert armed.gate.state is State.running


def test_refusals_of_the_instrument_count(armed):
    for _ in range(MOST_REFUSALS):
        admission = armed.admit(park(seconds=0.0))
        with refused("too much current"):
            armed.gate.complete(admission, Refused("too much current"))
        assert armed.record.last("refused") == {"intent": admission.intent, "reason": "too much current"}
    assert armed.gate.state is State.held


def test_a_command_under_way_may_end_in_a_hold(armed):
    admission = armed.admit(park())
    outcome = armed.outcome(admission)
    armed.gate.hold("a pause")
    assert armed.gate.complete(admission, outcome) is outcome and armed.gate.state is State.held


@pytest.mark.parametrize("stop", ["hold", "disarm", "abort"])
def test_what_was_not_sent_yet_stays(armed, stop):
    admission = armed.admit(park())
    getattr(armed.gate, stop)("now")
    with refused("PlaceProbe may not be sent any more"):
        admission.claim(armed.clock.now)


def test_a_command_is_sent_once_and_soon(armed):
    admission = armed.admit(park())
    with refused("may not be sent any more"):
        admission.claim(armed.clock.now + SLACK_SECONDS + 0.1)
    assert admission.claim(armed.clock.now + SLACK_SECONDS) is admission.command
    with refused("may not be sent any more"):
        admission.claim(armed.clock.now)


@pytest.mark.parametrize("when", ["asked", "running", "held"])
def test_disarming(bench, when):
    bench.gate.ask(REQUEST)
    if when != "asked":
        bench.gate.arm("123456")
        bench.admit(ROUTINE)
    if when == "held":
        bench.gate.hold("a pause")
    bench.gate.disarm("enough")
    assert bench.gate.state is State.disarmed and bench.instrument.is_blanked and bench.gate.why == "enough"
    assert bench.gate.waiting is None and bench.gate.request is None and not bench.gate.word


def test_nothing_passes_while_the_safe_state_is_taken(armed):
    met: list[str] = []

    def intrude() -> None:
        try:
            armed.admit(park())
        except Refused as refusal:
            met.append(str(refusal))

    armed.instrument.planned["safe"] = intrude
    armed.gate.disarm("enough")
    assert met == ["the gate is disarmed (enough): nothing passes"] and armed.gate.state is State.disarmed


@pytest.mark.parametrize("state", ["running", "held"])
def test_time_ends_the_lease(armed, state):
    if state == "held":
        armed.gate.hold("a pause")
    armed.clock.now += LEASE_SECONDS - 10.0
    armed.gate.tick()
    assert armed.gate.state == state
    armed.clock.now += 0.1
    armed.gate.tick()
    assert armed.gate.state is State.disarmed and armed.instrument.is_blanked


# ---- approval ----


def test_irreversible_and_marked_commands_wait_for_an_operator(bench):
    bench.armed(approvals=2)
    looking = bench.gate.decide(bench.admit(image(), 0).number, True)
    bench.gate.complete(looking, bench.outcome(looking))
    bench.do(image(), 0)
    waiting = bench.admit(park(), 0)
    assert isinstance(waiting, Waiting) and waiting.content == codec.command_to_json(park()) and not bench.instrument.written[2:]
    admission = bench.gate.decide(waiting.number, True)
    bench.gate.complete(admission, bench.outcome(admission))
    assert isinstance(bench.admit(shift(), 0), Waiting), "each command of an action"
    bench.gate.decide(bench.gate.waiting.number, False)
    for action in (7, 8):  # whatever an action is called, the first so many need agreement
        for _ in range(2 if action == 7 else 0):
            admission = bench.gate.decide(bench.admit(park(), action).number, True)
            bench.gate.complete(admission, bench.outcome(admission))
    bench.do(park(), 8)
    assert isinstance(bench.admit(ROUTINE, 8), Waiting)


def test_refusals_use_no_agreement_up(bench):
    bench.armed(approvals=1)
    for action in range(3):
        assert bench.gate.decide(bench.admit(image(), action).number, False) is None, "what looks at the sample exposes it"
        assert bench.gate.decide(bench.admit(park(), action).number, False) is None
    assert isinstance(bench.admit(park(), 3), Waiting) and not bench.instrument.written


def test_an_agreement_is_to_one_command_alone(armed):
    """What an operator was shown is what is sent: numbers of a session begin anew with it, those of requests to an operator never do."""
    bench = armed
    bench.gate.disarm("x")
    bench.number = 0
    bench.armed(approvals=9)
    first = bench.admit(shift())
    bench.gate.disarm("the session has gone")
    bench.number = 0
    bench.armed(approvals=9)
    second = bench.admit(park())
    assert second.request == first.request and second.number != first.number
    with refused("does not wait for an answer any more"):
        bench.gate.decide(first.number, True)
    assert bench.gate.waiting is second and not bench.instrument.written


def test_damage_beyond_what_is_allowed_holds_the_run(bench):
    bench.armed(damage=1.5)
    for events, state in ((1.0, State.running), (0.5, State.running), (0.1, State.held)):
        admission = bench.admit(image())
        outcome = bench.outcome(admission)
        bench.gate.complete(admission, Readings(outcome.values, *costs(0.1)[:2], np.array([events]), np.zeros(1)))
        assert bench.gate.state is state
    assert "AcquireImage did damage: 1.6 events in this run, 1.5 are allowed" in bench.gate.why


def test_a_fault_outlives_the_guard(armed):
    armed.gate.abort("a spark")
    armed.ledger.close()
    armed.ledger = Ledger(armed.path)
    armed.start()
    armed.gate.tick()
    in_fault(armed, "a spark")
    with refused("the gate is fault (aborted: a spark)"):
        armed.gate.ask(REQUEST)
    armed.gate.reset()
    armed.ledger.close()
    armed.ledger = Ledger(armed.path)
    assert armed.start().state is State.disarmed


def test_an_instrument_that_leaves_its_safe_state_is_sent_back(armed):
    """Such as by a command to get ready that was slow and lands after an abort."""
    armed.gate.abort("Esc")
    armed.instrument.is_blanked = False
    armed.clock.now += AGAIN_SECONDS + 0.1
    armed.gate.tick()
    in_fault(armed, "left its safe state by itself")
    assert armed.instrument.is_blanked and armed.gate.safe


def test_an_answer_that_was_given_up_is_followed_by_the_safe_state(armed):
    admission = armed.admit(park(seconds=0.5))
    armed.clock.now += 0.5 + 2 * SLACK_SECONDS + 0.1
    armed.gate.tick()
    armed.instrument.is_blanked = False  # it acted after all
    armed.gate.late(admission)
    assert armed.instrument.is_blanked and armed.gate.state is State.fault


@pytest.mark.parametrize("agreed", [False, None, "no", 1, "true"])
def test_only_yes_is_yes(armed, agreed):
    assert armed.gate.decide(armed.admit(ROUTINE).number, agreed) is None
    assert armed.gate.waiting is None and armed.gate.running is None and armed.record.last("decided")["agreed"] is False


@pytest.mark.parametrize("number", [0, 2, True, None, pytest.param(10**9999, id="endless")])
def test_only_what_waits_is_decided(armed, number):
    armed.admit(ROUTINE)
    with refused("does not wait for an answer any more"):
        armed.gate.decide(number, True)
    assert armed.gate.waiting and armed.gate.running is None


def test_decided_once(armed):
    waiting = armed.admit(ROUTINE)
    admission = armed.gate.decide(waiting.number, True)
    for agreed in (True, False):
        with refused("does not wait for an answer any more"):
            armed.gate.decide(waiting.number, agreed)
    armed.gate.complete(admission, armed.outcome(admission))
    assert len(armed.instrument.written) == 1


def test_what_is_agreed_to_is_checked_again(bench):
    bench.armed(approvals=1)
    waiting = bench.admit(shift())
    bench.instrument.controls["shift"] = np.array([2e-6, 0.0])
    with refused("ShiftBeam.shift would move by 1.9e-06"):
        bench.gate.decide(waiting.number, True)
    waiting = bench.admit(park())
    bench.gate.hold("a pause")
    with refused("the gate is held (a pause): nothing passes"):
        bench.gate.decide(waiting.number, True)
    bench.gate.resume()
    assert isinstance(bench.admit(park(), 1), Waiting), "nothing was carried out that counts as agreed to"


@pytest.mark.parametrize("ticks", [True, False])
def test_nothing_waits_for_ever(armed, ticks):
    waiting = armed.admit(ROUTINE)
    armed.clock.now += APPROVAL_SECONDS
    armed.gate.tick()
    assert armed.gate.waiting is waiting
    armed.clock.now += 0.1
    if ticks:
        armed.gate.tick()
        assert armed.gate.waiting is None and armed.record.last("decided")["why"] == "no operator answered in time"
        armed.do(park())
    else:
        with refused("request 1 waited for longer than 120 s"):
            armed.gate.decide(waiting.number, True)
    assert armed.gate.state is State.running


def test_a_fault_drops_what_waits(armed):
    waiting = armed.admit(ROUTINE)
    armed.gate.abort("Esc")
    with refused("does not wait for an answer any more"):
        armed.gate.decide(waiting.number, True)


# ---- outcomes ----

def frame(values: object = None, **changes: object) -> Readings:
    told = np.arange(256.0).reshape(1, 16, 16) if values is None else values
    return dataclasses.replace(Readings({"HAADF": told}, *costs(0.1)), **changes)


def spoilt(value: float) -> np.ndarray:
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
    "NaN": (frame(spoilt(np.nan)), "AcquireImage: reading HAADF is not within 0 and 10000"),
    "infinite": (frame(spoilt(np.inf)), "AcquireImage: reading HAADF is not within 0 and 10000"),
    "below": (frame(spoilt(-1e-9)), "AcquireImage: reading HAADF is not within 0 and 10000"),
    "above": (frame(spoilt(10001.0)), "AcquireImage: reading HAADF is not within 0 and 10000"),
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


# ---- faults ----


@pytest.mark.parametrize("state", ["disarmed", "asked", "running", "under way", "waiting", "held", "fault"])
@pytest.mark.parametrize("full", [False, True])
def test_abort_in_every_state(bench, state, full):
    if state != "disarmed":
        bench.gate.ask(REQUEST)
    if state not in ("disarmed", "asked"):
        bench.gate.arm("123456")
        {"under way": lambda: bench.admit(park()), "waiting": lambda: bench.admit(ROUTINE), "held": lambda: bench.gate.hold("a pause"), "fault": lambda: bench.gate.fail("x")}.get(state, str)()
    bench.record.full, bench.instrument.is_blanked, before = full, False, len(bench.instrument.safes)
    bench.gate.abort("Esc")
    assert len(bench.instrument.safes) == before + 1
    in_fault(bench, "aborted: Esc")
    for leave in (bench.gate.present, lambda: bench.gate.hold("x"), lambda: bench.gate.disarm("x"), bench.gate.tick):
        leave()
    for leave in (bench.gate.resume, lambda: bench.gate.arm("123456"), lambda: bench.gate.ask(REQUEST)):
        with pytest.raises(Refused):
            leave()
    in_fault(bench, "aborted: Esc")


@pytest.mark.parametrize("where", ["measured", "execute", "safe", "is_safe", "ready", "armed", "intent", "result", "waits", "state", "rejected", "decided"])
def test_abort_in_the_middle_of_anything_wins(bench, where):
    def strike() -> None:
        bench.gate.abort("Esc")

    for place in (bench.instrument, bench.record):
        place.planned[where] = strike
    for attempt in (
        lambda: bench.gate.ask(REQUEST), lambda: bench.gate.arm("123456"), lambda: bench.admit(park(1.0)), lambda: bench.admit(ROUTINE),
        lambda: bench.gate.decide(bench.gate.waiting.number, False), lambda: bench.do(park()), lambda: bench.gate.disarm("x"),
    ):  # fmt: skip
        try:
            attempt()
        except (Refused, AttributeError):
            pass
        if where not in bench.instrument.planned or where not in bench.record.planned:
            break
    bench.record.planned.clear()
    bench.instrument.planned.clear()
    in_fault(bench, "aborted: Esc")
    bench.gate.running = None
    assert bench.gate.waiting is None and bench.gate.request is None


def test_an_abort_while_controls_are_read_back_keeps_a_command_from_waiting(armed):
    armed.instrument.planned["measured"] = lambda: armed.gate.abort("Esc")
    with refused("the gate is fault (aborted: Esc): nothing passes"):
        armed.admit(ROUTINE)
    assert armed.gate.waiting is None and armed.record.kinds()[-1] != "waits"


def test_an_abort_while_the_intent_is_written_keeps_it_from_being_sent(armed):
    armed.record.planned["intent"] = lambda: armed.gate.abort("Esc")
    with refused("the gate is fault (aborted: Esc): nothing passes"):
        armed.admit(park())
    assert armed.gate.running is None and armed.record.last("settled")["why"] == "the gate was fault, nothing was sent"


def test_an_abort_while_disarming_stays(armed):
    armed.instrument.planned["safe"] = lambda: armed.gate.abort("Esc")
    armed.gate.disarm("enough")
    in_fault(armed, "aborted: Esc")


def test_an_abort_during_a_reset_stays(armed):
    armed.gate.abort("first")
    armed.instrument.planned["is_safe"] = lambda: armed.gate.abort("second")
    with refused("the fault stays: aborted: second"):
        armed.gate.reset()
    in_fault(armed, "aborted: second")


def test_only_a_reset_leaves_a_fault(armed):
    with refused("there is no fault to clear, the gate is running"):
        armed.gate.reset()
    armed.gate.fail("x")
    armed.gate.reset()
    assert armed.gate.state is State.disarmed and armed.gate.why == "reset by an operator"
    armed.armed().do(park())


@pytest.mark.parametrize("switch", ["refuses_safe", "denies_safe", "mute", "bug"])
def test_no_reset_without_a_safe_state(armed, switch):
    armed.gate.fail("x")
    setattr(armed.instrument, switch, True)
    armed.instrument.is_blanked = False
    for _ in range(2):
        with refused("the fault stays: SAFE STATE NOT CONFIRMED"):
            armed.gate.reset()
    assert armed.gate.state is State.fault and armed.gate.why.endswith("after: x")


def test_a_safe_state_that_fails_is_tried_again(armed):
    armed.instrument.refuses_safe = True
    armed.gate.abort("Esc")
    assert armed.gate.why == "SAFE STATE NOT CONFIRMED (the blanker does not answer), after: aborted: Esc"
    armed.gate.tick()
    assert len(armed.instrument.safes) == 2
    armed.gate.abort("Esc again")
    assert len(armed.instrument.safes) == 3
    armed.instrument.refuses_safe = False
    armed.clock.now += AGAIN_SECONDS + 0.1
    armed.gate.tick()
    in_fault(armed, "aborted: Esc again")
    assert armed.gate.why == "aborted: Esc again"


@pytest.mark.parametrize("do", [lambda b: b.gate.hold("x"), lambda b: b.gate.disarm("x"), lambda b: b.admit(park(1.0)), lambda b: b.admit(park()), lambda b: b.admit(ROUTINE)])
@pytest.mark.parametrize("error", [ProbeGymError("full"), OSError(28, "full"), RuntimeError("odd")])
def test_a_record_that_cannot_be_written_is_a_fault(armed, do, error):
    armed.record.full, armed.record.error = True, error
    try:
        do(armed)
    except Refused:
        pass
    in_fault(armed, "written")


@pytest.mark.parametrize(("kind", "command"), [("waits", ROUTINE), ("rejected", park(1.0)), ("intent", park())])
def test_a_request_that_cannot_be_written_is_answered_with_the_fault(armed, kind, command):
    armed.record.planned[kind] = lambda: setattr(armed.record, "full", True)
    with pytest.raises(Refused):
        armed.admit(command)
    in_fault(armed, "written")
    assert armed.gate.waiting is None and armed.gate.running is None


def test_a_result_that_cannot_be_written_is_a_fault(armed):
    admission = armed.admit(park())
    outcome = armed.outcome(admission)
    armed.record.full = True
    with refused("the record cannot be written: the disk is full"):
        armed.gate.complete(admission, outcome)
    in_fault(armed, "the record cannot be written")
    with refused("the record cannot be written"):
        armed.gate.reset()
    in_fault(armed, "the record cannot be written")


@pytest.mark.parametrize("last", ["safe", "state", "armed"])
def test_no_arming_without_a_record(bench, last):
    def fill() -> None:
        bench.record.full = True

    if last == "armed":
        bench.gate.ask(REQUEST)
        bench.record.planned["armed"] = fill
        with refused("the record cannot be written"):
            bench.gate.arm("123456")
    else:
        bench.record.planned[last] = fill
        with refused("the record cannot be written"):
            bench.gate.ask(REQUEST)
    in_fault(bench, "the record cannot be written")


def test_the_instrument_goes_safe_before_anything_is_written(armed):
    armed.record.planned["safe"] = armed.record.planned["state"] = lambda: orders.append(armed.instrument.is_blanked)
    orders: list[bool] = []
    armed.gate.fail("x")
    assert orders == [True, True]


def test_a_switched_blanker_is_a_command_like_any_other(armed):
    armed.do(BLANK)
    armed.do(stage(1e-6, 2e-6))
    assert (armed.instrument.controls["stage"] == one(1e-6, 2e-6, 0.0)[0]).all()
    assert isinstance(armed.admit(park()), Admission)
