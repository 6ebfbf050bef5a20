"""Instruments as worlds of one lane, so that an environment runs on them as on its twin: behind a guard, or only looked at."""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np

from probegym.errors import ProbeGymError
from probegym.hardware_bridge import capabilities, codec
from probegym.hardware_bridge.channel import Channel, connect
from probegym.hardware_bridge.clock import now
from probegym.hardware_bridge.codec import Arrays, Json
from probegym.hardware_bridge.commands import Command, Lanes, LaneState, Readings
from probegym.hardware_bridge.instruments.wire import Link
from probegym.hardware_bridge.records.log import Recorder
from probegym.hardware_bridge.records.replay import RecordWorld
from probegym.hardware_bridge.records.steps import judged
from probegym.hardware_bridge.world import Refused

PULSE_SECONDS = 0.05
STUCK_SECONDS = 10.0  # without a word of the session to its guard; then its pulse stops, and the guard goes safe
ANSWER_SECONDS = 3600.0  # of a command: an operator may have to agree first
JUDGE_SECONDS = 30.0
WATCH_SECONDS = 0.01


class _Forward:
    """What worlds that only run forward have in common: one lane, no hidden state to be told, no way back."""

    lanes, judged = 1, False
    descriptor: capabilities.Descriptor

    def __init__(self) -> None:
        self.action = 0  # number of the action that commands belong to; whoever steps the environment counts it
        self.about: Json = {}  # what the record says of an episode that begins
        self.folder = ""  # of a record of its own

    def nothing(self, command: Command) -> Readings:
        """Readings of a command that no lane is meant by; raises Refused where there is no such verb."""
        if command.verb not in self.descriptor.capabilities:
            raise Refused(f"{self.descriptor.name} has no {command.verb}")
        values = {name: np.zeros((1, *(shape or ())), bool if name in command.flags else float) for name, shape in command.returns().items()}
        return Readings(values, *(np.zeros(1) for _ in Readings.COSTS))

    def truth(self) -> Lanes | None:
        """None: an instrument does not know."""
        return None

    def portrait(self, lane: int) -> Lanes:
        """Nothing: an instrument shows no hidden state."""
        return {}

    def glance(self, lane: int, command: Command) -> Lanes:
        """Nothing: on an instrument every look costs."""
        return {}

    def snapshot(self, lane: int) -> LaneState:
        """Raises ProbeGymError."""
        raise ProbeGymError("an instrument cannot go back: use the twin for counterfactuals")

    def restore(self, state: LaneState, lane: int) -> None:
        """Raises ProbeGymError."""
        self.snapshot(lane)

    def rekey(self, key: int, lane: int) -> None:
        """Raises ProbeGymError."""
        self.snapshot(lane)


class GuardedWorld(_Forward):
    """An instrument over its guard; keys, where and readings are (1,), its only lane. reached: port and secret of ``session`` and ``pulse``; judge: of a twin that may tell its hidden state."""

    def __init__(self, reached: Json, judge: Json | None = None):
        super().__init__()
        self.channel, self.pulse = (_welcomed(reached[role]) for role in ("session", "pulse"))
        self.judge = Link(judge, "judge", "a session") if judge else None
        self.judged = self.judge is not None
        self.number, self.questions = 0, 0
        self.begun = False  # an episode; before, it waits for an operator
        self.asking, self.turned = False, time.monotonic()  # whether the guard has the word, and when the session had it last
        self.descriptor = capabilities.descriptor(self._ask({"do": "describe"}, 5.0)[0].get("descriptor"))
        self.closed = threading.Event()
        threading.Thread(target=self._beat, daemon=True).start()

    def _beat(self) -> None:
        while not self.closed.wait(PULSE_SECONDS):
            if not self.asking and time.monotonic() - self.turned > STUCK_SECONDS and self.begun:
                continue  # a session that does nothing is not alive, whatever this thread does
            try:
                self.pulse.send({"beat": True})
            except ProbeGymError:
                return

    def _ask(self, question: Json, seconds: float) -> tuple[Json, Arrays]:
        self.questions += 1
        self.asking = True
        answer, arrays = self.channel.ask(question | {"id": self.questions}, seconds=seconds)
        self.asking, self.turned = False, time.monotonic()
        if answer.get("id") != self.questions:
            self.channel.close()
            raise ProbeGymError("the guard answered another question: the connection is closed")
        if "refused" in answer:
            raise Refused(str(answer["refused"]))
        return answer, arrays

    def note(self, kind: str, payload: Json, arrays: Arrays | None = None) -> None:
        """Have something written down in the record: begin, observation, action, reward, truth or end."""
        self.turned = time.monotonic()
        self.channel.send({"do": "note", "kind": kind, "payload": payload}, arrays)

    def fault(self, why: str) -> None:
        """Tell the guard that the session is at its end of knowledge; the instrument goes safe."""
        self._ask({"do": "fault", "why": why}, 5.0)

    def close(self) -> None:
        """End the session; the guard takes the instrument to its safe state."""
        self.closed.set()
        self.channel.close()
        self.pulse.close()
        if self.judge:
            self.judge.close()

    def begin(self, keys: np.ndarray, where: np.ndarray) -> None:
        """On an instrument an episode begins with the sample as it is; a twin that is judged begins the one of the key."""
        self.begun = True
        if self.judge:
            self.judge.ask("begin", JUDGE_SECONDS, key=int(keys[0]))
        self.note("begin", self.about | ({"key": int(keys[0])} if self.judge else {}))

    def execute(self, command: Command, where: np.ndarray) -> Readings:
        """Have a command carried out; raises Refused. When no lane is meant, only whether there is such a verb is seen to."""
        if not where[0]:
            return self.nothing(command)
        self.number += 1
        question = {"do": "command", "number": self.number, "stamp": now(), "action": self.action, "command": codec.command_to_json(command)}
        answer, arrays = self._ask(question, ANSWER_SECONDS)
        return codec.readings_from_json(answer, arrays)

    def truth(self) -> Lanes | None:
        """Hidden state of a twin that is judged; None on an instrument."""
        if not self.judge:
            return None
        told = self.judge.ask("truth", JUDGE_SECONDS)[1]
        self.note("truth", {}, told)
        return told


class ObservedWorld(_Forward):
    """An instrument that somebody else works with, as its frames come; keys, where and readings are (1,), its only lane. Nothing can be sent: this connection has no right to.

    What the policy would have done is written down, and its next observation is made of what really was acquired.
    """

    def __init__(self, instrument: Json, recorder: Recorder, patience: float):
        super().__init__()
        self.link = Link(instrument, "observer", "a shadow")
        self.recorder, self.patience, self.seen, self.folder = recorder, patience, 0, str(recorder.folder)
        self.descriptor = capabilities.descriptor(self.link.ask("describe")[0].get("descriptor"))

    def note(self, kind: str, payload: Json, arrays: Arrays | None = None) -> None:
        """Write something down in the shadow's own record."""
        self.recorder.append(kind, payload, arrays)

    def fault(self, why: str) -> None:
        """Write down that the policy gave up; there is no instrument to be kept safe."""
        self.recorder.append("fault", {"reason": why})

    def close(self) -> None:
        """End the shadow."""
        self.link.close()
        self.recorder.close()

    def begin(self, keys: np.ndarray, where: np.ndarray) -> None:
        """The episode begins with the sample as it is."""
        self.note("begin", self.about)

    def execute(self, command: Command, where: np.ndarray) -> Readings:
        """The next frames that the instrument takes by this verb; what would change something is only written down.

        Raises Refused when none comes in time.
        """
        if not where[0]:
            return self.nothing(command)
        self.recorder.append("would", {"command": codec.command_to_json(command), "action": self.action})
        if not command.returns():
            return Readings({}, *(np.zeros(1) for _ in Readings.COSTS))
        end = time.monotonic() + self.patience
        while time.monotonic() < end:
            answer, arrays = self.link.ask("watch", verb=command.verb, after=self.seen)
            if answer["number"]:
                self.seen = int(answer["number"])
                self.recorder.append("observed", {"verb": command.verb, "number": self.seen}, arrays)
                return codec.readings_from_json(answer, arrays)
            time.sleep(WATCH_SECONDS)
        raise Refused(f"nobody took a frame by {command.verb} within {self.patience:g} s: the shadow ends")


class ReplayedWorld(_Forward):
    """A record of a guard, of one lane (keys, where and readings are (1,)): answers a command only if it is the one that was recorded next; raises Refused where the policy does otherwise."""

    def __init__(self, folder: str):
        super().__init__()
        self.replay = RecordWorld(folder)
        self.judged = judged(self.replay.record)
        self.descriptor = capabilities.descriptor(self.replay.record.manifest.get("instrument"))

    def note(self, kind: str, payload: Json, arrays: Arrays | None = None) -> None:
        """Nothing: a replay is not recorded."""

    def fault(self, why: str) -> None:
        """Nothing: there is no instrument."""

    def close(self) -> None:
        """Nothing is open."""

    def begin(self, keys: np.ndarray, where: np.ndarray) -> None:
        """The next recorded episode."""
        self.replay.begin(keys, where)

    def execute(self, command: Command, where: np.ndarray) -> Readings:
        """What was recorded."""
        return self.replay.execute(command, where) if where[0] else self.nothing(command)

    def truth(self) -> Lanes | None:
        """Hidden state, where it was recorded."""
        return self.replay.truth()


def _welcomed(where: dict[str, Any]) -> Channel:
    channel = connect(where["port"], where["secret"])
    answer, _ = channel.receive(10.0)
    if "refused" in answer:
        channel.close()
        raise Refused(str(answer["refused"]))
    return channel
