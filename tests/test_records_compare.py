"""The commands of a record on another world: every difference is told, and what cannot be compared is not called equal."""

from __future__ import annotations

import math

import numpy as np
import pytest

from probegym.errors import ProbeGymError
from probegym.hardware_bridge.commands import PlaceProbe
from probegym.hardware_bridge.records import Record, Recorder, RecordError
from probegym.hardware_bridge.records.replay import Difference, RecordingWorld, RecordWorld, compare
from probegym.hardware_bridge.world import Refused
from tests.test_records_replay import HERE, NOTHING, Meter, measured, probe


def test_the_same_world_shows_no_difference(tmp_path):
    record, other = measured(tmp_path, 1.0, -1.0, 2.0), Meter()
    assert compare(record, other) == [] and compare(record.folder, RecordWorld(record.folder)) == []
    assert other.keys == [np.array([2**63 + 5], np.uint64)]


def told(record: Record, world) -> list[tuple]:
    found = compare(record, world)
    assert all("\n" not in str(difference) for difference in found)
    return [(d.number, d.event, d.name, d.deviation) for d in found]


def test_differences_are_told_with_name_number_and_size(tmp_path):
    record = measured(tmp_path, 1.0, -1.0, 2.0)
    assert told(record, Meter(gain=1.5)) == [(0, 1, "current", 0.5), (2, 5, "current", 1.0)]
    assert told(record, Meter(gain=1 + 1e-9)) == [] and len(told(record, Meter(gain=1 + 1e-5))) == 2
    assert told(record, Meter(gain=math.nan)) == [(0, 1, "current", math.inf), (2, 5, "current", math.inf)]
    assert told(record, Meter(extra={"count": np.array([4])})) == [(0, 1, "count", 1.0), (2, 5, "count", 1.0)]
    assert told(record, Meter(extra={"valid": np.array([False])})) == [(0, 1, "valid", 1.0), (2, 5, "valid", 1.0)]
    assert told(record, Meter(extra={"count": np.array([3, 3])}))[0] == (0, 1, "count", math.inf)
    assert told(record, Meter(extra={"more": np.zeros(1)}))[0] == (0, 1, "more", math.inf)
    assert str(compare(record, Meter(gain=1.5))[0]) == "command 0 (event 1), PlaceProbe: current differs by 0.5"


def test_costs_are_compared(tmp_path):
    class Dear(Meter):
        def execute(self, command, where):
            answer = super().execute(command, where)
            answer.dose[:] = 7.0
            return answer

    assert told(measured(tmp_path, 1.0), Dear()) == [(0, 1, "dose", 6.0)]


def test_refusals_are_compared(tmp_path):
    class Meek(Meter):
        def execute(self, command, where):
            if command.dwell_time[0] > 1:
                raise Refused("too long")
            return super().execute(PlaceProbe(command.position, np.abs(command.dwell_time)), where)

    record = measured(tmp_path, 1.0, -1.0, 2.0, 200.0)
    assert [(n, name) for n, _, name, _ in told(record, Meek())] == [(1, "refused"), (2, "refused"), (3, "refused")]
    assert compare(measured(tmp_path / "b", 200.0), Meter2())[0] == Difference(0, 1, "PlaceProbe", "outcome", math.inf)


class Meter2(Meter):
    def execute(self, command, where):
        return super().execute(probe(1.0), where)


@pytest.mark.parametrize(("kind", "payload", "told"), [
    ("intent", {}, "without command"), ("intent", {"command": 3}, "without command"), ("intent", {"command": {"verb": 3}}, "no verb"),
    ("intent", {"command": {"verb": "Explode", "arguments": {}}}, "no verb"), ("intent", {"command": NOTHING, "where": [True, True]}, "one lane"),
    ("intent", {"command": NOTHING, "where": [[1], 2]}, "one lane"), ("intent", {"command": NOTHING | {"arguments": 3}}, "a command is"),
    ("begin", {"key": "x"}, "is no key"), ("begin", {"key": -1}, "is no key"), ("begin", {"key": 2**64}, "is no key"), ("begin", {"key": True}, "is no key"),
    ("begin", {}, "tells no key"),
])  # fmt: skip
def test_a_record_that_tells_no_commands_is_refused(tmp_path, kind, payload, told):
    with Recorder(tmp_path, {}) as recorder:
        if kind == "intent":
            recorder.append("begin", {"key": 1})
        recorder.append(kind, payload)
        recorder.append("intent", {"command": NOTHING})
    with pytest.raises(ProbeGymError) as caught:
        compare(recorder.folder, Meter())
    assert "\n" not in str(caught.value) and told in str(caught.value)


def test_without_commands_or_beginnings_nothing_is_called_equal(tmp_path):
    for number, (kinds, told) in enumerate({(): "no commands", ("begin",): "no commands", ("state", "begin"): "no commands", ("intent", "begin"): "before any episode began"}.items()):
        with Recorder(tmp_path / str(number), {}) as recorder:
            for kind in kinds:
                recorder.append(kind, {"command": NOTHING} if kind == "intent" else {"key": 1})
        with pytest.raises(RecordError, match=told):
            compare(recorder.folder, Meter())


def test_an_episode_of_an_instrument_replays_but_no_twin_can_begin_alike(tmp_path):
    record = measured(tmp_path / "a", 1.0, 2.0)
    with Recorder(tmp_path / "b", {}) as recorder:  # as a guard records it: there is no key
        for event in list(record)[:-1]:
            recorder.append(event.kind, {name: value for name, value in event.payload.items() if name != "key"}, record.arrays(event))
    with pytest.raises(RecordError, match=r"event 0: .*tells no key and no twin can begin alike"):
        compare(recorder.folder, Meter())
    world = RecordWorld(recorder.folder)
    world.begin(np.array([77], np.uint64), HERE)
    assert [world.execute(probe(n), HERE).values["current"] for n in (1.0, 2.0)] == [1.0, 2.0]


def test_what_a_world_cannot_bear_is_told_and_what_is_not_permitted_never_reaches_it(tmp_path):
    class Fragile(Meter):
        def execute(self, command, where):
            return 1 / 0

    record = measured(tmp_path, 1.0)
    with pytest.raises(RecordError, match=r"event 1: this world cannot carry out PlaceProbe \(ZeroDivisionError"):
        compare(record, Fragile())

    def forbid(command):
        raise Refused(f"{command.verb} is too much")

    assert [str(d) for d in compare(record, Fragile(), permitted=forbid)] == ["command 0 (event 1), PlaceProbe: refused (PlaceProbe is too much)"]


def test_large_whole_numbers_and_infinite_readings_are_compared_rightly(tmp_path):
    def differing(was, now) -> list[float]:
        with Recorder(tmp_path, {}) as recorder:
            world = RecordingWorld(Meter(extra={"seen": np.array([was])}), recorder)
            world.begin(np.array([1], np.uint64), HERE)
            world.execute(probe(1.0), HERE)
        return [d.deviation for d in compare(recorder.folder, Meter(extra={"seen": np.array([now])}))]

    assert differing(2**60, 2**60 + 1) == [1.0] and differing(2**60, 2**60) == [] and differing(np.uint8(3), np.uint8(5)) == [2.0]
    assert differing([np.inf, 1.0], [np.inf, 3.0]) == [2.0] and differing(np.inf, -np.inf) == [np.inf] and differing(-1e308, 1e308) == [np.inf]
