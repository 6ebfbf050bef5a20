"""Rules of the guard's loop, its worker and its guardian, each with the guard itself in a thread, around an instrument that is not there."""

from __future__ import annotations

import threading
import time

import pytest

from probegym.errors import ProbeGymError
from probegym.hardware_bridge.channel import Late
from probegym.hardware_bridge.clock import now
from probegym.hardware_bridge.commands import BlankBeam
from probegym.hardware_bridge.deployment import world as worlds
from probegym.hardware_bridge.guard import gate as gates
from probegym.hardware_bridge.guard import guardian, process
from probegym.hardware_bridge.guard.requests import Admission, State
from probegym.hardware_bridge.instruments import InstrumentFault, Unreached
from probegym.hardware_bridge.world import Refused
from tests import guard_process_helpers
from tests.guard_helpers import FakeInstrument, park
from tests.guard_process_helpers import HERE, PATIENT, SECRETS, Scene, happens, pair

scene = guard_process_helpers.scene

# ---- guard and guardian ----


def test_a_guard_whose_loop_hangs_has_no_pulse(scene, monkeypatch):
    monkeypatch.setattr(process, "TURN_SECONDS", 0.2)
    for _ in range(5):
        scene.guardian.receive(PATIENT)
    scene.guard.go.clear()

    def silent() -> bool:
        try:
            scene.guardian.receive(0.5)
        except Late:
            return True
        return False

    assert happens(silent, 5.0)
    scene.guard.go.set()
    scene.guardian.receive(PATIENT)


def test_a_guardian_that_acted_means_a_fault(scene):
    scene.armed()
    scene.guardian.send({"acted": "no heartbeat for 0.15 s"})
    assert scene.in_fault("the guardian acted: no heartbeat")


def test_without_a_guardian_no_guard(scene):
    scene.armed()
    scene.guardian.close()
    assert scene.in_fault("the guardian has gone")
    scene.thread.join(PATIENT)
    assert not scene.thread.is_alive() and "the guardian has gone" in scene.gate.ledger.fault


@pytest.mark.parametrize("trouble", ["", "denies_safe", "mute"])
def test_a_guardian_is_released_only_when_the_safe_state_is_confirmed(scene, trouble):
    scene.armed()
    if trouble:
        setattr(scene.instrument, trouble, True)
    scene.operator.quit()
    heard = {}
    while "goodbye" not in heard:
        heard, _ = scene.guardian.receive(PATIENT)
    assert heard == {"goodbye": not trouble}


def test_a_guard_that_fails_leaves_by_the_safe_state(scene, monkeypatch):
    scene.armed()

    def breaks(*_: object) -> None:
        raise RuntimeError("a mistake of ours")

    monkeypatch.setattr(scene.guard, "_strangers", breaks)
    assert scene.in_fault("the guard failed (RuntimeError: a mistake of ours)")
    scene.thread.join(PATIENT)
    assert [str(error) for error in scene.failed] == ["a mistake of ours"]
    scene.failed.clear()


def test_a_guardian_can_only_go_safe(scene):
    assert scene.told["instrument"] == {"driver": "served", "port": 1, "secrets": {"safety": SECRETS["safety"]}}
    assert scene.told["seconds"] == scene.instrument.descriptor.safe_seconds


class Safety:
    """The line of a guardian. wrong: how many more tries fail, by an error or by what is read back."""

    def __init__(self, wrong: int = 0, error: bool = False) -> None:
        self.wrong, self.error, self.safes, self.dead, self.stands = wrong, error, 0, False, False

    def safe(self, seconds: float) -> None:
        assert seconds > 0.7  # more than the instrument may take
        self.safes += 1
        self.wrong -= 1
        if self.error and self.wrong >= 0:
            raise InstrumentFault("no answer")
        self.stands = self.wrong < 0

    def is_safe(self) -> bool:
        if self.dead:
            raise InstrumentFault("no answer")
        return self.stands

    def close(self) -> None:
        pass


@pytest.mark.parametrize("error", [True, False])
def test_a_guardian_tries_until_the_safe_state_is_read_back(monkeypatch, error):
    monkeypatch.setattr(guardian, "PAUSE_SECONDS", 0.0)
    safety = Safety(500, error)
    guardian.make_safe(safety, 0.7)
    assert safety.stands and safety.safes == 501


class Watch:
    """A guardian in a thread, and the guard's end of its channel."""

    def __init__(self) -> None:
        self.guard, there = pair()
        self.safety, self.ended = Safety(), threading.Event()

        def run() -> None:
            try:
                guardian.watch(there, self.safety, 0.7)
            except ProbeGymError:
                pass
            self.ended.set()

        threading.Thread(target=run, daemon=True).start()

    def beats(self, seconds: float) -> str:
        """What the guardian says within so many seconds of a guard that is alive."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.guard.send({"beat": True})
            try:
                told = self.guard.receive(0.02)[0]
            except Late:
                continue
            if told != {"here": True}:
                return str(told["acted"])
        return ""

    def acted(self) -> str:
        """The next that it says of having acted."""
        while (told := self.guard.receive(PATIENT)[0]) == {"here": True}:
            pass
        return str(told["acted"])


def test_a_guardian_acts_on_silence_and_watches_on(monkeypatch):
    monkeypatch.setattr(guardian, "TIMEOUT", 0.5)
    watch = Watch()
    assert not watch.beats(0.7) and not watch.safety.safes
    assert "no heartbeat" in watch.acted() and happens(lambda: watch.safety.stands and watch.safety.safes == 1)
    for word in ({"goodbye": False}, {"goodbye": "yes"}):
        watch.guard.send(word)
        assert not watch.beats(0.2) and not watch.ended.is_set(), "a guard that is not sure releases nobody"
    watch.guard.send({"goodbye": True})
    assert watch.ended.wait(PATIENT)


def test_a_guard_hears_of_it_before_the_guardian_has_succeeded(monkeypatch):
    """Or it would go on commanding beside a guardian that is still trying."""
    monkeypatch.setattr(guardian, "TIMEOUT", 0.2)
    watch = Watch()
    watch.safety.wrong = 10**9
    assert "no heartbeat" in watch.acted() and not watch.safety.stands
    watch.safety.wrong = 0
    assert happens(lambda: watch.safety.stands)
    watch.guard.send({"goodbye": True})


def test_a_guardian_that_says_nothing_is_missed(scene, monkeypatch):
    scene.armed()
    monkeypatch.setattr(process, "WATCHED_SECONDS", 0.02)
    assert happens(lambda: scene.gate.state is State.fault) and "the guardian has been silent" in scene.gate.why


def test_a_guardian_gives_up_only_what_cannot_be_reached(monkeypatch):
    monkeypatch.setattr(guardian, "UNREACHED_SECONDS", 1.5)  # longer than a loaded machine keeps this process waiting
    monkeypatch.setattr(guardian, "PAUSE_SECONDS", 0.12)
    begun = time.monotonic()

    class Gone(Safety):
        def safe(self, seconds):
            raise Unreached("nothing listens")

    class Stuck(Safety):
        tries = 0

        def is_safe(self):
            self.tries += 1
            return self.tries > 15

    guardian.make_safe(Gone(), 0.8)
    assert 1.5 <= time.monotonic() - begun < 5
    stuck = Stuck()
    guardian.make_safe(stuck, 0.8)
    assert stuck.tries == 16


def test_a_guardian_tells_when_its_own_line_is_dead(monkeypatch):
    monkeypatch.setattr(guardian, "TIMEOUT", 5.0)
    monkeypatch.setattr(guardian, "LOOK_SECONDS", 0.1)
    watch = Watch()
    assert not watch.beats(0.5)
    watch.safety.dead = True
    assert "its own line to the instrument does not answer" in watch.beats(PATIENT)
    watch.guard.send({"goodbye": True})


# ---- commands ----


def test_an_admission_that_was_closed_is_not_sent():
    instrument = FakeInstrument()
    instrument.is_blanked = False
    worker, charge = process.Worker(instrument), instrument.descriptor.worst_case(BlankBeam(False))
    late = Admission(1, 1, BlankBeam(False), charge, [], by=now() - 1.0)
    shut = Admission(2, 1, BlankBeam(False), charge, [], by=now() + 100.0, open=False)
    good = Admission(3, 1, BlankBeam(False), charge, [], by=now() + 100.0)
    for admission in (late, shut, good):
        worker.todo.put(admission)
    outcomes = [worker.done.get(timeout=PATIENT) for _ in range(3)]
    assert [admission for admission, _ in outcomes] == [late, shut, good] and len(instrument.written) == 1
    assert all(isinstance(outcome, Refused) for _, outcome in outcomes[:2])


def test_a_lost_command_that_ends_after_all_is_followed_by_the_safe_state(scene, monkeypatch):
    for module in (gates, process):
        monkeypatch.setattr(module, "SLACK_SECONDS", 0.1)
    monkeypatch.setattr(gates, "AGAIN_SECONDS", 1e9)  # nobody looks by himself
    going = threading.Event()

    def slow() -> None:
        assert going.wait(PATIENT)
        scene.instrument.is_blanked = False  # it acts after all

    scene.instrument.planned["execute"] = slow
    world = scene.armed()
    answers = scene.asked(world, park())
    assert scene.in_fault("has not ended in time")
    assert happens(lambda: answers) and isinstance(answers[0], Refused)
    scene.operator.reset()
    with pytest.raises(Refused, match="has not answered a command yet: wait until it has"):
        scene.operator.ask({})
    going.set()
    assert happens(lambda: scene.instrument.written and scene.instrument.is_blanked)
    assert scene.events("safe")[-1] == {"why": "PlaceProbe, which was given up, has ended after all", "confirmed": True}
    with pytest.raises(Refused, match="this is no request"):
        scene.operator.ask({})


def test_a_drivers_own_mistake_is_a_fault(scene):
    def breaks() -> None:
        raise KeyError("a mistake of the driver's")

    scene.instrument.planned["execute"] = breaks
    with pytest.raises(Refused, match="the driver failed"):
        scene.armed().execute(park(), HERE)
    assert scene.in_fault("the driver failed (KeyError")


def test_time_in_which_the_computer_sleeps_counts(tmp_path, monkeypatch):
    """Session and guard tell time by the same clock, which goes on when the system's monotonic one does not."""
    slept = [1e6]
    for module in (process, worlds):
        monkeypatch.setattr(module, "now", lambda: time.monotonic() + slept[0])
    scene = Scene(tmp_path)
    scene.armed().execute(park(), HERE)
    assert 500 < scene.operator.status()["lease"] <= gates.LEASE_SECONDS
    slept[0] += gates.LEASE_SECONDS
    assert happens(lambda: scene.state == "disarmed" and "the lease has ended" in scene.gate.why)
    scene.close()


def test_nothing_is_armed_on_a_disk_that_is_nearly_full(scene, monkeypatch):
    monkeypatch.setattr(process, "RUN_BYTES", 1 << 60)
    with pytest.raises(Refused, match="MB are needed: free space"):
        scene.armed()
    assert scene.state == "disarmed"


def test_an_answer_to_what_was_dropped_is_a_refusal(scene):
    world = scene.armed(approvals=5)
    answers = scene.asked(world, park())
    assert happens(lambda: scene.gate.waiting)
    scene.operator.hold("a pause")
    scene.operator.disarm("enough")
    assert happens(lambda: answers) and "the gate is disarmed: enough" in str(answers[0]) and not scene.instrument.written
