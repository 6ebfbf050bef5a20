"""Every check of the guard, in order: what each refuses, in which words, and that it fails closed."""

from __future__ import annotations

import re

import numpy as np
import pytest

from probegym.errors import ProbeGymError
from probegym.hardware_bridge import capabilities, codec
from probegym.hardware_bridge.commands import AcquireImage
from probegym.hardware_bridge.guard.gate import LEASE_SECONDS, Admission, State
from tests.guard_helpers import (
    BLANK,
    REQUEST,
    ROUTINE,
    Bench,
    broken,
    description,
    edited,
    image,
    park,
    refused,
    shift,
    stage,
    tune,
)

DEEP: list = []
for _ in range(5000):
    DEEP = [DEEP]


# ---- 1. finite, shape, type ----

VALUE, UNIT = "arguments/position/value", "arguments/position/unit"
BAD = {
    "nothing": (None, "a command is an object with a verb and its arguments"),
    "a list": ([1], "a command is an object"),
    "more entries": (codec.command_to_json(park()) | {"force": True}, "a command is an object"),
    "unknown verb": ({"verb": "Explode", "arguments": {}}, "there is no verb 'Explode'"),
    "verb with a line break": ({"verb": "a\nb", "arguments": {}}, "there is no verb 'a\\nb'"),
    "verb of lists": ({"verb": DEEP, "arguments": {}}, "there is no verb a list"),
    "base class as verb": ({"verb": "Command", "arguments": {}}, "there is no verb 'Command'"),
    "arguments lacking": ({"verb": "PlaceProbe", "arguments": {}}, "lacking or unknown: 'dwell_time', 'position'"),
    "an argument more": (edited(park(), "arguments/x\ny", 1), "lacking or unknown: 'x\\ny'"),
    "no unit": (edited(park(), "arguments/position", [[0.0, 0.0]]), "PlaceProbe.position needs a value and a unit, m"),
    "wrong unit": (edited(park(), UNIT, "nm"), "PlaceProbe.position is in m, got 'nm': convert it"),
    "NaN": (edited(park(), VALUE, [[float("nan"), 0.0]]), "PlaceProbe.position is not finite"),
    "infinite": (edited(park(), VALUE, [[float("inf"), 0.0]]), "PlaceProbe.position is not finite"),
    "huge integer": (edited(park(), VALUE, [[10**400, 0]]), "PlaceProbe.position is ragged or too large"),
    "ragged": (edited(park(), VALUE, [[0.0, 0.0], [0.0]]), "PlaceProbe.position is ragged or too large"),
    "no list": (edited(park(), VALUE, 0.0), "PlaceProbe.position must be a list of numbers"),
    "a switch for a number": (edited(park(), VALUE, [[True, 0.0]]), "PlaceProbe.position must hold numbers"),
    "text": (edited(park(), VALUE, [["0", 0.0]]), "PlaceProbe.position must hold numbers"),
    "nothing for a number": (edited(park(), VALUE, [[None, 0.0]]), "PlaceProbe.position must hold numbers"),
    "lists in lists": (edited(park(), VALUE, DEEP), "PlaceProbe.position must hold numbers"),
    "a million numbers": (edited(park(), VALUE, [[0.0] * 1_000_001]), "PlaceProbe.position must hold numbers, at most 1000000"),
    "gigabytes of text": (edited(park(), VALUE, ["x" * 2_000_000] + [""] * 100_000), "PlaceProbe.position must hold numbers"),
    "several lanes": (edited(park(), VALUE, [[0.0, 0.0]] * 2), "PlaceProbe.position must have the shape (1, 2), of one lane, not (2, 2)"),
    "too few numbers": (edited(park(), VALUE, [[0.0]]), "PlaceProbe.position must have the shape (1, 2)"),
    "no axis of lanes": (edited(park(), VALUE, [0.0]), "PlaceProbe.position must have the shape (1, 2)"),
    "no numbers": (edited(park(), VALUE, [[]]), "PlaceProbe.position must have the shape (1, 2)"),
    "too many axes": (edited(park(), "arguments/dwell_time/value", [[0.1]]), "PlaceProbe.dwell_time must have the shape (1,)"),
    "stage in two numbers": (edited(stage(), VALUE, [[0.0, 0.0]]), "MoveStage.position must have the shape (1, 3)"),
    "one aberration": (edited(tune(), "arguments/values/value", [[0.0]]), "SetAberrations.values must have the shape (1, 2)"),
    "number too large": (edited(image(), "arguments/dwell_time/value", 1e301), "AcquireImage.dwell_time must be a finite number, got 1e+301"),
    "integer beyond printing": (edited(image(), "arguments/dwell_time/value", 10**9999), "AcquireImage.dwell_time must be a finite number, got a int"),
    "a switch for one number": (edited(image(), "arguments/dwell_time/value", True), "AcquireImage.dwell_time must be a finite number"),
    "a number for a switch": (edited(BLANK, "arguments/blanked", 1), "BlankBeam.blanked must be true or false, got 1"),
    "a switch for a count": (edited(image(), "arguments/shape", [True, 1]), "AcquireImage.shape must be a whole number from 0, got True"),
    "a fraction for a count": (edited(image(), "arguments/shape", [1.0, 1]), "AcquireImage.shape must be a whole number from 0"),
    "count below zero": (edited(image(), "arguments/shape", [-1, 1]), "AcquireImage.shape must be a whole number from 0"),
    "three counts": (edited(image(), "arguments/shape", [1, 1, 1]), "AcquireImage.shape must be a list of 2"),
    "a number for a name": (edited(image(), "arguments/detector", 1), "AcquireImage.detector must be a name, got 1"),
    "too many names": (edited(tune(), "arguments/names", ["C10"] * 1001), "SetAberrations.names must be a list of names"),
}  # fmt: skip


@pytest.mark.parametrize(("content", "why"), BAD.values(), ids=BAD)
def test_what_is_no_command_is_refused(armed, content, why):
    with refused(why):
        armed.admit(content)
    assert not armed.instrument.written and armed.gate.running is None and armed.record.kinds()[-1] == "rejected"


@pytest.mark.parametrize("text", ['{"a": NaN}', '{"a": -Infinity}', '{"a": 1e999}', '{"a": 1, "a": 2}', "[" * 100_000, "1" * 5000, b"\xff", ""])
def test_what_is_no_strict_json_is_refused(text):
    with pytest.raises(codec.Malformed):
        codec.loads(text)


@pytest.mark.parametrize("code", ["O", "(1,,)f8", ",,", "f8,f8", "<f16", "V8", "<M8[s]", None, 1, ["<f8"], "<U0"])
def test_types_of_arrays_are_not_evaluated(code):
    head = codec.dumps({"header": {}, "arrays": [["a", code, [1]]]}).encode()
    message = codec.pack({}, {"a": np.zeros(2)})[codec.PREFIX.size :]
    assert codec.unpack(message[:-16], message[-16:], codec.zlib.crc32(message))[1]["a"].shape == (2,)
    with pytest.raises(codec.Malformed):
        codec.unpack(head, bytes(16), codec.zlib.crc32(bytes(16), codec.zlib.crc32(head)))


def test_a_message_with_one_wrong_bit_is_malformed():
    message = codec.pack({"a": 1}, {"b": np.zeros(2)})
    size, body, checksum = codec.lengths(message[: codec.PREFIX.size])
    for at in range(codec.PREFIX.size, len(message)):
        content = bytearray(message[codec.PREFIX.size :])
        content[at - codec.PREFIX.size] ^= 1
        with pytest.raises(codec.Malformed, match="its checksum differs"):
            codec.unpack(bytes(content[:size]), bytes(content[size:]), checksum)
    assert body == 16


# ---- 2. number and age ----


@pytest.mark.parametrize("number", [None, True, 1.0, "1", -1, 2**53, pytest.param(10**9999, id="endless")])
def test_requests_need_whole_numbers(armed, number):
    with refused("a request needs a number and the time at which it was decided"):
        armed.gate.admit(number, armed.clock.now, 0, codec.command_to_json(park()))


@pytest.mark.parametrize("stamp", [None, 1010, "1010.0", True, float("nan"), float("inf"), float("-inf")])
def test_requests_need_a_time(armed, stamp):
    with refused("a request needs a number and the time"):
        armed.gate.admit(1, stamp, 0, codec.command_to_json(park()))


@pytest.mark.parametrize(("before", "why"), [(5.1, "was decided 5.1 s ago, at most 5 s are allowed"), (-0.1, "was decided -0.1 s ago")])
def test_old_and_future_requests_are_refused(armed, before, why):
    with refused(why):
        armed.gate.admit(1, armed.clock.now - before, 0, codec.command_to_json(park()))


def test_doubled_requests_are_refused(armed):
    armed.do(park())
    for number in (armed.number, armed.number - 1):
        with refused(f"request {number} was seen before or is out of order: the last was 1"):
            armed.gate.admit(number, armed.clock.now, 0, codec.command_to_json(park()))
    assert len(armed.instrument.written) == 1


def test_requests_from_before_arming_are_refused(armed):
    decided = armed.clock.now
    armed.gate.disarm("enough")
    armed.clock.now += 0.1
    armed.gate.ask(REQUEST)
    armed.gate.arm("123456")
    with refused("request 1 was decided before the gate was armed"):
        armed.gate.admit(1, decided, 0, codec.command_to_json(park()))


@pytest.mark.parametrize("action", [None, True, 0.0, -1, pytest.param(10**9999, id="endless")])
def test_requests_must_name_their_action(armed, action):
    with refused("a command must say which action it belongs to"):
        armed.admit(park(), action)


# ---- 3. state and lease ----


def test_nothing_passes_but_a_running_gate(bench):
    with refused("the gate is disarmed (not armed yet): nothing passes"):
        bench.admit(park())
    bench.gate.ask(REQUEST)
    with refused("the gate is asked"):
        bench.admit(park())
    bench.gate.arm("123456")
    bench.gate.hold("a pause")
    with refused("the gate is held (a pause)"):
        bench.admit(park())
    bench.gate.abort("Esc")
    with refused("the gate is fault (aborted: Esc)"):
        bench.admit(park())
    assert "intent" not in bench.record.kinds() and not bench.ledger.regions, "not even written down"


def test_the_lease_ends(armed):
    armed.clock.now += LEASE_SECONDS - 10.0
    assert isinstance(armed.admit(park()), Admission)
    armed.gate.complete(armed.gate.running, armed.outcome(armed.gate.running))
    armed.clock.now += 0.1
    with refused("the lease has ended: no operator was there"):
        armed.admit(park())
    assert armed.gate.state is State.disarmed and armed.instrument.is_blanked


def test_an_ended_lease_is_not_renewed(armed):
    armed.clock.now += LEASE_SECONDS
    with refused("the lease has ended"):
        armed.gate.present()
    assert armed.gate.state is State.disarmed and armed.instrument.is_blanked


def test_presence_renews_the_lease(armed):
    for _ in range(5):
        armed.clock.now += LEASE_SECONDS - 20.0
        armed.gate.tick()
        armed.gate.present()
    armed.do(park())


def test_a_command_reaches_no_instrument_when_the_lease_ends_on_its_way(armed):
    armed.clock.now += LEASE_SECONDS - 11.0
    admission = armed.admit(park())
    armed.clock.now += 1.5
    with refused("PlaceProbe may not be sent any more"):
        admission.claim(armed.clock.now)


def test_reading_controls_back_beyond_the_lease_sends_nothing(armed):
    armed.instrument.planned["measured"] = lambda: setattr(armed.clock, "now", armed.clock.now + LEASE_SECONDS)
    with refused("the lease has ended"):
        armed.admit(park())
    assert armed.gate.running is None and "intent" not in armed.record.kinds()


def test_reading_controls_back_beyond_the_lease_sends_nothing_that_was_agreed_to(armed):
    waiting = armed.admit(ROUTINE)
    armed.instrument.planned["measured"] = lambda: setattr(armed.clock, "now", armed.clock.now + LEASE_SECONDS)
    with refused("the lease has ended"):
        armed.gate.decide(waiting.number, True)
    assert armed.gate.running is None and "intent" not in armed.record.kinds()


def test_one_at_a_time(armed):
    admission = armed.admit(park())
    with refused("the command before is not done yet: one at a time"):
        armed.admit(park())
    armed.gate.complete(admission, armed.outcome(admission))
    armed.admit(ROUTINE)
    with refused("the command before is not done yet"):
        armed.admit(park())


# ---- 4. absolute limits ----

OUTSIDE = {
    "verb": (codec.command_from_json({"verb": "Approach", "arguments": {}}), "fake has no Approach"),
    "above": (park(2.1e-6), "PlaceProbe.position must be from -2e-06 to 2e-06 m, asked was 2.1e-06"),
    "below": (park(0.0, -2.1e-6), "asked was -2.1e-06"),
    "of another component": (tune(0.0, 2.1e-7), "SetAberrations.values must be from -2e-07 to 2e-07 m, asked was 2.1e-07"),
    "of the first component": (tune(1.1e-7, 0.0), "SetAberrations.values must be from -1e-07 to 1e-07 m"),
    "immense": (park(1e300), "asked was 1e+300"),
    "one number": (image(4.1e-6), "AcquireImage.field_of_view must be from 0 to 4e-06 m, asked was 4.1e-06"),
    "count": (image(shape=(17, 1)), "AcquireImage.shape may be 0 to 16, asked was (17, 1)"),
    "name": (AcquireImage("ABF\n", (16, 16), 1e-7, 1e-5, np.zeros(1)), "AcquireImage.detector: fake has HAADF; asked was 'ABF\\n'"),
    "list of names": (codec.command_from_json(edited(tune(), "arguments/names", ["C12a", "C10"])), "fake has C10, C12a; asked was ['C12a', 'C10']"),
}


@pytest.mark.parametrize(("command", "why"), OUTSIDE.values(), ids=OUTSIDE)
def test_outside_the_limits(armed, command, why):
    with refused(why):
        armed.admit(command)
    assert armed.gate.running is None and not armed.gate.ledger.regions


@pytest.mark.parametrize("command", [park(2e-6, -2e-6), tune(1e-7, -2e-7), image(4e-6), stage(5e-5, -5e-5)], ids=lambda c: c.verb)
def test_up_to_the_limits(armed, command):
    armed.do(command)


LIMITLESS = {
    "no range": (broken("PlaceProbe", ranges={"position": {"low": 0, "high": 1}}), "PlaceProbe.dwell_time has no limits"),
    "no count": (broken("AcquireImage", counts={}), "AcquireImage.shape has no limits"),
    "no names": (broken("AutoTune", names={}), "AutoTune.routine has no limits"),
    "unknown verb": ({**description(), "capabilities": {"Explode": {"effect": "reads"}}}, "there is no verb 'Explode'"),
    "unknown argument": (broken("ShiftBeam", reads_back={"shft": "shift"}), "ShiftBeam has no argument 'shft'"),
    "not read back": (broken("ShiftBeam", reads_back={}), "ShiftBeam.shift is limited against a value that is not read back"),
    "current on no area": (broken("PlaceProbe", current=1e-12), "PlaceProbe tells no area that a current spreads over"),
    "endless": (broken("PlaceProbe", dose_rate=float("inf")), "finite"),
    "backwards": (broken("ShiftBeam", ranges={"shift": {"low": 1, "high": -1}}), "low must not be above high"),
    "no step at all": (broken("ShiftBeam", ranges={"shift": {"low": 0, "high": 1, "step": 0}}), "step and rate must be above 0"),
    "unlike components": (broken("ShiftBeam", ranges={"shift": {"low": (0, 0), "high": (1, 1, 1)}}), "must have as many numbers"),
    "no safe state": ({**description(), "safe": ()}, "safe"),
}


@pytest.mark.parametrize(("told", "why"), LIMITLESS.values(), ids=LIMITLESS)
def test_a_missing_limit_is_a_refusal(told, why):
    with pytest.raises(ProbeGymError, match=re.escape(why)):
        capabilities.descriptor(told)


def test_limits_of_other_components_are_refused(tmp_path):
    told = broken("ShiftBeam", ranges={"shift": {"low": (-1, -1, -1), "high": (1, 1, 1)}})
    with refused("ShiftBeam.shift has 3 components, got numbers of shape (1, 2)"):
        Bench(tmp_path, told=told).armed().admit(shift())
