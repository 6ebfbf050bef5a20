"""Holding, disarming, the lease, and what waits for an operator."""

from __future__ import annotations

import numpy as np
import pytest

from probegym.hardware_bridge import codec
from probegym.hardware_bridge.guard.gate import (
    APPROVAL_SECONDS,
    LEASE_SECONDS,
    MOST_REFUSALS,
    SLACK_SECONDS,
    State,
    Waiting,
)
from probegym.hardware_bridge.world import Refused
from tests.guard_helpers import (
    INSPECT,
    REQUEST,
    ROUTINE,
    image,
    park,
    refused,
    shift,
)

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


def test_operators_are_told_of_refusals_by_numbers_that_grow(armed):
    for _ in range(7):
        with pytest.raises(Refused):
            armed.admit(park(1.0))
        if armed.gate.state is State.held:
            armed.gate.resume()
    assert [one["serial"] for one in armed.gate.rejected] == [2, 3, 4, 5, 6] and all("PlaceProbe.position" in one["why"] for one in armed.gate.rejected)


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
    again = bench.gate.decide(bench.admit(image(), 0).number, True)  # an agreement is not to the exposures that follow
    bench.gate.complete(again, bench.outcome(again))
    bench.do(INSPECT, 0)  # what only reads, and exposes nothing, goes with the action
    waiting = bench.admit(park(), 0)
    assert isinstance(waiting, Waiting) and waiting.content == codec.command_to_json(park()) and not bench.instrument.written[3:]
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
