"""An instrument behind its guard as a world of one lane, so that an environment runs on it as on its twin."""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np

from probegym.errors import ProbeGymError
from probegym.hardware_bridge import capabilities, codec
from probegym.hardware_bridge.channel import Channel, connect
from probegym.hardware_bridge.codec import Arrays, Json
from probegym.hardware_bridge.commands import Command, Lanes, LaneState, Readings
from probegym.hardware_bridge.instruments.wire import Link
from probegym.hardware_bridge.world import Refused

PULSE_SECONDS = 0.05
ANSWER_SECONDS = 3600.0  # of a command: an operator may have to agree first
JUDGE_SECONDS = 30.0


class GuardedWorld:
    """The world protocol over a guard. reached: port and secret of ``session`` and ``pulse``; judge: of a twin that may tell its hidden state.

    action: number of the action that commands belong to; whoever steps the environment counts it.
    """

    lanes = 1

    def __init__(self, reached: Json, judge: Json | None = None):
        self.channel, self.pulse = (_welcomed(reached[role]) for role in ("session", "pulse"))
        self.judge = Link(judge["port"], judge["secret"], "judge", "a session") if judge else None
        self.action, self.number, self.questions = 0, 0, 0
        self.descriptor = capabilities.descriptor(self._ask({"do": "describe"}, 5.0)[0].get("descriptor"))
        self.closed = threading.Event()
        threading.Thread(target=self._beat, daemon=True).start()

    def _beat(self) -> None:
        while not self.closed.wait(PULSE_SECONDS):
            try:
                self.pulse.send({"beat": True})
            except ProbeGymError:
                return

    def _ask(self, question: Json, seconds: float) -> tuple[Json, Arrays]:
        self.questions += 1
        answer, arrays = self.channel.ask(question | {"id": self.questions}, seconds=seconds)
        if answer.get("id") != self.questions:
            self.channel.close()
            raise ProbeGymError("the guard answered another question: the connection is closed")
        if "refused" in answer:
            raise Refused(str(answer["refused"]))
        return answer, arrays

    def note(self, kind: str, payload: Json, arrays: Arrays | None = None) -> None:
        """Have something written down in the record: begin, observation, action, reward or end."""
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

    # ---- the world protocol ----

    def begin(self, keys: np.ndarray, where: np.ndarray) -> None:
        """On an instrument an episode begins with the sample as it is; a twin that is judged begins the one of the key."""
        if self.judge:
            self.judge.ask("begin", JUDGE_SECONDS, key=int(keys[0]))

    def execute(self, command: Command, where: np.ndarray) -> Readings:
        """Have a command carried out; raises Refused. When no lane is meant, only whether there is such a verb is seen to."""
        if not where[0]:
            return self._nothing(command)
        self.number += 1
        question = {"do": "command", "number": self.number, "stamp": time.monotonic(), "action": self.action, "command": codec.command_to_json(command)}
        answer, arrays = self._ask(question, ANSWER_SECONDS)
        return codec.readings_from_json(answer, arrays)

    def _nothing(self, command: Command) -> Readings:
        if command.verb not in self.descriptor.capabilities:
            raise Refused(f"{self.descriptor.name} has no {command.verb}")
        values = {name: np.zeros((1, *(shape or ())), bool if name in command.flags else float) for name, shape in command.returns().items()}
        return Readings(values, *(np.zeros(1) for _ in Readings.COSTS))

    def truth(self) -> Lanes | None:
        """Hidden state of a twin that is judged; None on an instrument."""
        return self.judge.ask("truth", JUDGE_SECONDS)[1] if self.judge else None

    def portrait(self, lane: int) -> Lanes:
        """Nothing: an instrument shows no hidden state."""
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


def _welcomed(where: dict[str, Any]) -> Channel:
    channel = connect(where["port"], where["secret"])
    answer, _ = channel.receive(10.0)
    if "refused" in answer:
        channel.close()
        raise Refused(str(answer["refused"]))
    return channel
