"""A record as a world: it answers what was recorded and nothing else, and other worlds are compared with it."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from probegym.envs.stem_tuning import StemTuning
from probegym.errors import ProbeGymError
from probegym.hardware_bridge import codec
from probegym.hardware_bridge.commands import AcquireImage, InspectLevels, PlaceProbe, Readings, SetAberrations
from probegym.hardware_bridge.records import Record, Recorder, RecordError
from probegym.hardware_bridge.records.replay import RecordingWorld, RecordWorld, compare
from probegym.hardware_bridge.records.steps import about, judged
from probegym.hardware_bridge.twins.stem import StemTwin
from probegym.hardware_bridge.world import Refused
from probegym.scenarios import load
from tests.environments import Registered, undeclared
from tests.helpers import differences, follow, python

SCENARIO = "both"
HERE = np.ones(1, bool)


def twin(scenario: str = SCENARIO) -> StemTwin:
    return StemTwin(load("stem_tuning", scenario).world, 1)


def actions(steps: int = 4) -> np.ndarray:
    some = undeclared(np.random.default_rng(4).uniform(-1, 1, (steps, 8)).astype(np.float32))
    some[-1, -1] = 1.0
    return some


def play(env, chosen) -> list:
    return [env.reset(seed=5), *follow(env, chosen)]


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """(what the environment returned, folder of the record)."""
    with Recorder(tmp_path_factory.mktemp("runs"), {"scenario": SCENARIO}, inline=1024) as recorder:
        seen = play(StemTuning(SCENARIO, world=RecordingWorld(twin(), recorder, {"scenario": SCENARIO})), actions())
    return seen, recorder.folder


def replayed(folder) -> StemTuning:
    return StemTuning(SCENARIO, world=RecordWorld(folder))


def test_recording_changes_nothing_and_is_sound(recorded):
    seen, folder = recorded
    assert seen[-1][2] and differences(play(StemTuning(SCENARIO), actions()), seen) == []
    report = Record(folder).verify()
    assert report.sound and report.closed and not report.unknown


def test_a_record_gives_the_same_episode_again(recorded):
    seen, folder = recorded
    assert differences(play(replayed(folder), actions()), seen) == []


def test_every_environment_replays_to_the_bit(subject: Registered, tmp_path):
    env, chosen = subject.bare(), subject.actions(3)
    with Recorder(tmp_path, {}) as recorder:
        env.episodes.world = RecordingWorld(env.episodes.world, recorder)
        seen = play(env, chosen)
    again, other = subject.bare(), subject.bare()
    again.episodes.world = RecordWorld(recorder.folder)
    assert differences(play(again, chosen), seen) == []
    assert compare(recorder.folder, other.episodes.world) == []
    assert Record(recorder.folder).verify().sound


def test_a_replay_loads_neither_twin_nor_hdf5(recorded):
    code = f"""if True:
        import sys
        from probegym.envs.stem_tuning import StemTuning
        from probegym.hardware_bridge.records.replay import RecordWorld
        StemTuning({SCENARIO!r}, world=RecordWorld(sys.argv[1])).reset(seed=5)
        print([m for m in sys.modules if m.startswith(("probegym.physics.image", "probegym.hardware_bridge.twins", "h5py", "torch"))])"""
    assert python(code, recorded[1]) == "[]"


def refusal(folder, changed: np.ndarray) -> str:
    with pytest.raises(Refused) as caught:
        play(replayed(folder), changed)
    message = str(caught.value)
    assert "was asked for" in message and "\n" not in message and len(message) < 1000
    return message


@pytest.mark.parametrize("size", [0.5, 0.05, 0.001])
def test_another_setpoint_is_refused(recorded, size):
    changed = actions()
    changed[2, 0] += -np.sign(changed[2, 0]) * size
    assert "SetAberrations.values" in refusal(recorded[1], changed)


def test_other_commands_are_refused(recorded):
    world = RecordWorld(recorded[1])
    for command in (PlaceProbe(np.zeros((1, 2)), np.ones(1)), SetAberrations(("C10",), np.zeros((1, 1)))):
        with pytest.raises(Refused, match="a beginning was recorded"):
            world.execute(command, HERE)
    world.begin(np.zeros(1, np.uint64), HERE)
    with pytest.raises(Refused, match="a beginning was asked for"):
        world.begin(np.zeros(1, np.uint64), HERE)
    with pytest.raises(Refused, match="PlaceProbe was asked for"):
        world.execute(PlaceProbe(np.zeros((1, 2)), np.ones(1)), HERE)


def test_another_shape_of_the_same_numbers_is_refused(tmp_path):
    record = measured(tmp_path, 1.0)
    world = RecordWorld(record.folder)
    world.begin(np.zeros(1, np.uint64), HERE)
    with pytest.raises(Refused, match="position was"):
        world.execute(PlaceProbe(np.zeros((1, 1)), np.ones(1)), HERE)
    with pytest.raises(Refused, match="where was"):
        world.execute(probe(1.0), ~HERE)
    world.execute(probe(1.0), HERE)


def test_going_on_after_the_record_is_refused(tmp_path):
    with Recorder(tmp_path, {}) as recorder:
        play(StemTuning(SCENARIO, world=RecordingWorld(twin(), recorder)), undeclared(actions(2)))
    assert "ends after" in refusal(recorder.folder, undeclared(actions(3)))


def test_snapshots_and_a_refused_step(recorded):
    seen, folder = recorded
    env, wrong = replayed(folder), actions()
    env.reset(seed=5)
    here = env.snapshot()
    wrong[0, 0] = -wrong[0, 0]
    with pytest.raises(Refused):
        env.step(wrong[0])
    env.restore(here)
    assert differences(env.counterfactual(actions()), seen[1:]) == []
    assert differences(follow(env, actions()), seen[1:]) == []
    with pytest.raises(ProbeGymError, match="noise"):
        env.counterfactual(actions(), key=3)


def test_one_lane_is_recorded(tmp_path, recorded):
    two = StemTwin(load("stem_tuning", SCENARIO).world, 2)
    with pytest.raises(ProbeGymError, match="one lane"):
        RecordingWorld(two, Recorder(tmp_path, {}))
    with pytest.raises(ProbeGymError, match="one lane"):
        compare(recorded[1], two)


# ---- a world of few words ----

NOTHING = {"verb": "InspectLevels", "arguments": {}}


class Meter:
    """Answers with a number and its verb's count; refuses negative dwell times, and dies when told so."""

    lanes = 1

    def __init__(self, gain: float = 1.0, extra: dict | None = None):
        self.gain, self.extra, self.keys = gain, extra or {}, []

    def begin(self, keys, where):
        self.keys.append(keys.copy())

    def execute(self, command, where):
        if command.dwell_time[0] < 0:
            raise Refused("dwell_time must not be negative")
        if command.dwell_time[0] > 100:
            raise ConnectionError("gone")
        values = {"current": self.gain * command.dwell_time, "count": np.array([3]), "valid": np.array([True])} | self.extra
        return Readings(values, *(np.full(1, cost) for cost in (0.5, 1.0, 0.0, 1.0)))

    def truth(self):
        return None


def measured(tmp_path, *dwell_times: float) -> Record:
    with Recorder(tmp_path, {}) as recorder:
        world = RecordingWorld(Meter(), recorder)
        world.begin(np.array([2**63 + 5], np.uint64), HERE)
        for dwell_time in dwell_times:
            try:
                world.execute(probe(dwell_time), HERE)
            except (Refused, ConnectionError):
                pass
    return Record(recorder.folder)


def probe(dwell_time: float) -> PlaceProbe:
    return PlaceProbe(np.zeros((1, 2)), np.array([dwell_time]))


def test_the_intent_is_on_the_disk_before_the_command_is_given(tmp_path):
    recorder = Recorder(tmp_path, {})

    class Looks(Meter):
        def execute(self, command, where):
            assert [e.kind for e in Record(recorder.folder)] == ["begin", "intent"]
            return super().execute(command, where)

    world = RecordingWorld(Looks(), recorder)
    world.begin(np.zeros(1, np.uint64), HERE)
    world.execute(probe(1.0), HERE)
    assert [e.kind for e in Record(recorder.folder)] == ["begin", "intent", "result"]


def test_what_the_world_refused_is_refused_again(tmp_path):
    record = measured(tmp_path, 1.0, -1.0, 2.0)
    world = RecordWorld(record.folder)
    world.begin(np.zeros(1, np.uint64), HERE)
    assert world.execute(probe(1.0), HERE).values["current"] == 1.0
    with pytest.raises(Refused, match="negative"):
        world.execute(probe(-1.0), HERE)
    answer = world.execute(probe(2.0), HERE)
    assert answer.values["current"] == 2.0 and answer.time == 0.5 and answer.dose == 1.0 and world.truth() is None


def test_an_unknown_outcome_is_not_replayed(tmp_path):
    record = measured(tmp_path, 1.0, 200.0)
    assert record.verify().unknown == (3,)
    world = RecordWorld(record.folder)
    world.begin(np.zeros(1, np.uint64), HERE)
    world.execute(probe(1.0), HERE)
    with pytest.raises(RecordError, match="unknown"):
        world.execute(probe(200.0), HERE)


def test_a_shadow_gave_no_commands(tmp_path):
    command = codec.command_to_json(probe(1.0))
    for number, kinds in enumerate((("begin", "would"), ("begin", "observed"), ("begin", "would", "observed", "end"))):
        with Recorder(tmp_path / str(number), {"mode": "shadow"}) as recorder:
            for kind in kinds:
                recorder.append(kind, {"command": command, "verb": "PlaceProbe", "number": 0})
        for act in (RecordWorld, lambda folder: compare(folder, Meter())):
            with pytest.raises(RecordError, match="shadow's record and holds no commands that were given: replay the guard's"):
                act(recorder.folder)


def test_a_reading_or_a_state_that_was_not_recorded_is_told(tmp_path):
    record = measured(tmp_path, 1.0)
    with Recorder(tmp_path, {}) as recorder:
        for event in list(record)[:-1]:
            recorder.append(event.kind, event.payload, record.arrays(event))
        recorder.append("truth", {}, {"one": np.zeros(1)})
    world = RecordWorld(recorder.folder)
    world.begin(np.zeros(1, np.uint64), HERE)
    readings = world.execute(probe(1.0), HERE)
    with pytest.raises(RecordError, match="event 1, PlaceProbe, tells no image"):
        readings.values["image"]
    with pytest.raises(RecordError, match="truth, tells no defocus"):
        world.truth()["defocus"]
    assert world.truth()["one"] == 0.0 and "image" not in readings.values and readings.values.get("image") is None


def test_reasons_stay_in_one_line(tmp_path):
    with Recorder(tmp_path, {}) as recorder:
        recorder.append("refused", {"intent": recorder.append("intent", {"command": NOTHING}), "reason": "no\n\x1b[2Jall is well" + "x" * 9999})
    with pytest.raises(Refused) as caught:
        RecordWorld(recorder.folder).execute(InspectLevels(), HERE)
    assert str(caught.value).isprintable() and len(str(caught.value)) == 1000


ABOUT = {"environment": "probegym/StemTuning-v0", "scenario": "both", "seed": 5}


def test_what_an_episode_is_of_is_told_and_checked(tmp_path):
    def of(*events, kind="begin") -> Record:
        with Recorder(tmp_path, {}) as recorder:
            for payload in events:
                recorder.append(kind, payload)
        return Record(recorder.folder)

    assert about(of(ABOUT, {"seed": -1})) == ABOUT and about(of({n: ABOUT[n] for n in ("environment", "scenario")}))
    wrong = [("environment", ["x"]), ("environment", None), ("environment", 3), ("environment", "a\nb"), ("scenario", {}), ("scenario", True),
             ("seed", -1), ("seed", True), ("seed", 1.0), ("seed", "5"), ("seed", None), ("seed", [5])]  # fmt: skip
    for name, value in wrong:
        with pytest.raises(RecordError, match="event 0") as caught:
            about(of(ABOUT | {name: value}))
        assert "\n" not in str(caught.value), name
    for record in (of(), of(ABOUT, kind="state")):
        with pytest.raises(RecordError, match="no beginning"):
            about(record)
    assert judged(of({}, kind="truth")) and not judged(of(ABOUT))


def test_forged_readings_are_refused(tmp_path):
    for header in ({}, None, {"values": ["x"], "costs": {}}, {"values": 3, "costs": {n: [0.0] for n in Readings.COSTS}}, {"values": ["x"], "costs": 3}):
        with Recorder(tmp_path, {}) as recorder:
            recorder.append("result", {"intent": recorder.append("intent", {"command": NOTHING}), "readings": header})
        world = RecordWorld(recorder.folder)
        with pytest.raises(ProbeGymError):
            world.execute(InspectLevels(), HERE)


def test_damage_is_found_when_it_is_replayed(recorded, tmp_path):
    folder = shutil.copytree(recorded[1], tmp_path / "copy")
    path = folder / "seg-0000.bin"
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(RecordError, match="checksum"):
        play(replayed(folder), actions())
    (folder / "events.jsonl").write_bytes((folder / "events.jsonl").read_bytes().replace(b'"kind":"begin"', b'"kind":"bogin"'))
    with pytest.raises(RecordError, match="event 0"):
        RecordWorld(folder)


def test_a_command_keeps_its_arguments_bit_by_bit(tmp_path):
    values = np.random.default_rng(0).normal(size=(1, 2)) * 1e-9
    command = AcquireImage("haadf", (8, 8), 1e-9 / 3, 1e-6 / 7, values[0, :1])
    with Recorder(tmp_path, {}) as recorder:

        class Any(Meter):
            def execute(self, command, where):
                return Readings({}, *np.zeros((4, 1)))

        RecordingWorld(Any(), recorder).execute(command, HERE)
    asked = RecordWorld(recorder.folder, tolerance=0.0)
    assert asked.execute(command, HERE).values == {}
