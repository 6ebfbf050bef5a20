"""Faults: latched, in the safe state, through every state and in the middle of anything else; left by a reset alone."""

from __future__ import annotations

import pytest

from probegym.errors import ProbeGymError
from probegym.hardware_bridge.guard.gate import (
    AGAIN_SECONDS,
    Admission,
    State,
)
from probegym.hardware_bridge.guard.ledger import Ledger
from probegym.hardware_bridge.world import Refused
from tests.guard_helpers import (
    BLANK,
    REQUEST,
    ROUTINE,
    in_fault,
    one,
    park,
    refused,
    stage,
)


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


@pytest.mark.parametrize("switch", ["mute", "bug"])
def test_a_safe_state_that_cannot_be_looked_at_is_taken_again(armed, switch):
    armed.gate.disarm("enough")
    setattr(armed.instrument, switch, True)
    armed.clock.now += AGAIN_SECONDS + 0.1
    armed.gate.tick()
    assert armed.gate.state is State.fault and not armed.gate.safe and "SAFE STATE NOT CONFIRMED" in armed.gate.why
    setattr(armed.instrument, switch, False)
    armed.clock.now += AGAIN_SECONDS + 0.1
    armed.gate.tick()
    in_fault(armed, "does not tell whether it is safe")


def test_an_account_that_cannot_be_written_keeps_nobody_from_a_fault(armed):
    armed.ledger.close()
    armed.gate.abort("Esc")
    in_fault(armed, "aborted: Esc")
