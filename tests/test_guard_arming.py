"""Arming: from the self-test over the nonce to an open gate, and what keeps it closed."""

from __future__ import annotations

import pytest

from probegym.hardware_bridge.guard.gate import (
    NONCE_SECONDS,
    Gate,
    State,
    Waiting,
)
from probegym.hardware_bridge.world import Refused
from tests.guard_helpers import (
    REQUEST,
    in_fault,
    park,
    refused,
)


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
