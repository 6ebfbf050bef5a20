"""What can go wrong with an instrument and its wire, on demand: so that guard and guardian can be shown every fault before a real one comes.

A plan is a list of {"kind": ..., "at": n, "what": ...}: the fault happens with the n-th question of its sort (from 0), by default
the n-th command. Wire faults happen to the answer, actuator faults to what the instrument does, sensor faults to what it says.
"""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable, Collection

import numpy as np

from probegym.errors import ProbeGymError
from probegym.hardware_bridge import codec
from probegym.hardware_bridge.capabilities import Effect, per_component
from probegym.hardware_bridge.channel import Channel
from probegym.hardware_bridge.codec import Arrays, Json
from probegym.hardware_bridge.commands import Command
from probegym.hardware_bridge.instruments import Instrument, Measured

WIRE = {
    "drop before": "the connection breaks before the command is carried out",
    "drop header": "the connection breaks in the middle of the answer's header",
    "drop body": "the connection breaks in the middle of the answer's arrays",
    "drop after": "the command is carried out, the connection breaks before the answer",
    "silent": "no answer comes",
    "late": "the answer comes after the deadline",
    "double": "the answer comes twice",
    "other": "the answer is that to another question",
    "trickle": "the answer comes byte by byte, in time",
    "garbage": "the answer announces two gigabytes",
    "flipped": "one bit of the answer is flipped",
}
SENSOR = {
    "nan": "a reading is no number",
    "infinite": "a reading is infinite",
    "huge": "a reading is 1e30",
    "text": "a reading is text",
    "shape": "a reading has another shape",
    "frozen": "the detector sends the frame before",
    "stale": "controls were read back long ago",
}
ACTUATOR = {
    "stuck": "a control does not move",
    "overshoot": "a control goes twice as far",
    "wrong way": "a control goes the other way",
    "wrong unit": "a control goes a thousandth of the way",
}
SAFE = {"safe fails": "the instrument does not go to its safe state", "safe silent": "the instrument does not answer when it is sent to its safe state"}
KINDS = WIRE | SENSOR | ACTUATOR | SAFE
LATE_SECONDS = 30.0


def planned(plan: list[Json], kinds: Collection[str]) -> list[Json]:
    """The plan; raises ProbeGymError for what is none, and for kinds that there are not."""
    for fault in plan:
        if not isinstance(fault, dict) or fault.get("kind") not in kinds or not set(fault) <= {"kind", "at", "what"}:
            raise ProbeGymError(f"no such fault: {fault}; use a kind of {', '.join(kinds)}")
    return plan


class Faults:
    """A plan of faults; raises ProbeGymError for kinds that there are not."""

    def __init__(self, plan: list[Json]):
        self.plan, self.counts = planned(plan, KINDS), dict[str, int]()
        self.answering = threading.local()  # its ``now``: the fault of the question that this thread answers
        self.frame: Arrays = {}

    def _due(self, what: str) -> str | None:
        count = self.counts[what] = self.counts.get(what, -1) + 1
        for fault in self.plan:
            sort = fault.get("what", "safe" if fault["kind"] in SAFE else "measured" if fault["kind"] == "stale" else "execute")
            if sort == what and fault.get("at", 0) == count:
                return str(fault["kind"])
        return None

    @property
    def now(self) -> str | None:
        """The fault of the question that is being answered."""
        return getattr(self.answering, "now", None)

    def deliver(self, channel: Channel, question: Json, answered: Callable[[], tuple[Json, Arrays]]) -> None:
        """Answer one question, with the fault that is due; raises Disconnected when that is to break the connection."""
        due = self._due(str(question.get("do")))
        if due == "drop before":
            channel.close()
            return
        self.answering.now = due
        header, arrays = answered()
        if due in ("silent", "safe silent"):
            return
        if due == "drop after":
            channel.close()
        elif due == "late":
            time.sleep(LATE_SECONDS)
            channel.send(header, arrays)
        elif due == "other":
            channel.send(header | {"id": -1}, arrays)
        elif due in WIRE:
            self._garbled(due, channel, codec.pack(header, arrays))
        else:
            channel.send(header, arrays)

    @staticmethod
    def _garbled(kind: str, channel: Channel, message: bytes) -> None:
        link = channel.socket
        if link is None:
            return
        if kind == "double":
            link.sendall(message + message)
        elif kind == "trickle":
            for at in range(len(message[:200])):
                link.sendall(message[at : at + 1])
            link.sendall(message[200:])
        elif kind == "flipped":
            link.sendall(message[:-1] + bytes([message[-1] ^ 1]))
        elif kind == "garbage":
            link.sendall(codec.PREFIX.pack(codec.MARK, 100, 2**31, 0) + bytes(100))
        else:
            link.sendall(message[: codec.PREFIX.size + 5] if kind == "drop header" else message[:-1])
            channel.close()

    def actuated(self, command: Command, instrument: Instrument) -> Command:
        """What the instrument does of a command to its controls."""
        capability = instrument.descriptor.capabilities[command.verb]
        if self.now not in ACTUATOR or capability.effect is not Effect.sets:
            return command
        stands = instrument.measured()
        share = {"stuck": 0.0, "overshoot": 2.0, "wrong way": -1.0, "wrong unit": 1e-3}[self.now]
        moved: dict[str, np.ndarray] = {}
        for name, control in capability.reads_back.items():
            asked, allowed = np.asarray(getattr(command, name), float), capability.ranges[name]
            from_here = stands[control].values.reshape(asked.shape)
            low, high = (per_component(n, asked, name) for n in (allowed.low, allowed.high))
            moved[name] = np.clip(from_here + share * (asked - from_here), low, high)
        return dataclasses.replace(command, **moved)

    def read(self, command: Command, header: Json, arrays: Arrays) -> tuple[Json, Arrays]:
        """What the instrument says that it measured."""
        old, self.frame = self.frame, arrays
        if self.now not in SENSOR or not arrays:
            return header, arrays
        name = next(iter(arrays))
        return header, arrays | {name: _spoiled(str(self.now), arrays[name], old.get(name, arrays[name]))}

    def read_back(self, told: dict[str, Measured]) -> dict[str, Measured]:
        """What the instrument says that its controls stand at."""
        return {name: dataclasses.replace(one, age=60.0) for name, one in told.items()} if self.now == "stale" else told

    def safe(self) -> None:
        """Raise where the safe state is to fail."""
        if self.now == "safe fails":
            raise ProbeGymError("the beam blanker does not answer")


def _spoiled(kind: str, values: np.ndarray, before: np.ndarray) -> np.ndarray:
    if kind == "frozen":
        return before
    if kind == "shape":
        return values[..., None]
    return np.full(values.shape, {"nan": np.nan, "infinite": np.inf, "huge": 1e30, "text": "?"}[kind]) if kind != "stale" else values
