"""How a guard and a guardian talk to an instrument that runs in a process of its own: one connection to write, one to go safe.

An answer carries the number of its question; any other closes the connection. A command whose answer fails to come is never sent again.
"""

from __future__ import annotations

import numpy as np

from probegym.errors import ProbeGymError
from probegym.hardware_bridge import capabilities, codec
from probegym.hardware_bridge.channel import Channel, Disconnected, connect
from probegym.hardware_bridge.codec import Arrays, Json
from probegym.hardware_bridge.commands import Command, Readings
from probegym.hardware_bridge.instruments import InstrumentFault, Measured, Unreached
from probegym.hardware_bridge.world import Refused

ANSWER_SECONDS = 0.5  # for what needs no motion


class Link:
    """One connection to an instrument's process, in a role: ``writer`` (one at a time), ``safety``, ``observer`` or ``judge``."""

    def __init__(self, reached: Json, role: str, name: str):
        secrets = reached.get("secrets")
        if not isinstance(reached.get("port"), int) or not isinstance(secrets, dict) or not isinstance(secrets.get(role), str):
            raise InstrumentFault(f"what is told of the instrument has no port and secret of a {role}: give the file that was written when it was started")
        self.where, self.role, self.name, self.count = (reached["port"], secrets[role]), role, name, 0
        self.channel = self._connected()

    def _connected(self) -> Channel:
        try:
            channel = connect(*self.where)
            answer, _ = channel.ask({"name": self.name})
        except ProbeGymError as error:
            raise Unreached(f"the instrument cannot be reached: {error}") from error
        if "refused" in answer:
            channel.close()
            raise Refused(str(answer["refused"]))
        return channel

    def ask(self, what: str, seconds: float = ANSWER_SECONDS, **more: object) -> tuple[Json, Arrays]:
        """The answer to one question; raises Refused, or InstrumentFault when there is none that can be trusted."""
        self.count += 1
        try:
            answer, arrays = self.channel.ask({"do": what, "id": self.count, "seconds": seconds, **more}, seconds=seconds)
        except Disconnected as error:
            raise InstrumentFault(str(error)) from error
        if answer.get("id") != self.count:
            self.channel.close()
            raise InstrumentFault(f"the instrument answered another question ({answer.get('id')!r} for {self.count}): the connection is closed")
        if "refused" in answer:
            raise Refused(str(answer["refused"]))
        if "fault" in answer:
            raise InstrumentFault(str(answer["fault"]))
        return answer, arrays

    def again(self) -> None:
        """Connect afresh."""
        self.channel.close()
        self.channel = self._connected()

    def close(self) -> None:
        """Close the connection."""
        self.channel.close()


class SafetyLink:
    """Knows only how to go safe; what a guardian has of an instrument."""

    def __init__(self, reached: Json, name: str):
        self.link = Link(reached, "safety", name)

    def safe(self, seconds: float) -> None:
        """Go to the safe state; once more over a fresh connection when that fails. Raises InstrumentFault."""
        try:
            self.link.ask("safe", seconds)
        except ProbeGymError:
            self.link.again()
            self.link.ask("safe", seconds)

    def is_safe(self) -> bool:
        """Whether the safe state is read back now; asked once more over a fresh connection when there is no answer."""
        try:
            told = self.link.ask("is_safe")
        except ProbeGymError:
            self.link.again()
            told = self.link.ask("is_safe")
        return bool(told[0].get("safe") is True)

    def close(self) -> None:
        """Close the connection."""
        self.link.close()


class RemoteInstrument:
    """The Instrument protocol over the wire."""

    def __init__(self, reached: Json, name: str):
        self.safety = SafetyLink(reached, name)
        self.writer = Link(reached, "writer", name)
        self.descriptor = capabilities.descriptor(self.writer.ask("describe")[0].get("descriptor"))

    def execute(self, command: Command, seconds: float) -> Readings:
        """Carry a command out, in so many seconds at most; raises InstrumentFault for an answer that cannot be read, and what the instrument raised."""
        answer, arrays = self.writer.ask("execute", seconds, command=codec.command_to_json(command))
        try:
            return codec.readings_from_json(answer, arrays)
        except codec.Malformed as error:
            raise InstrumentFault(str(error)) from error

    def measured(self) -> dict[str, Measured]:
        """What controls stand at; raises InstrumentFault for an answer that cannot be read."""
        answer, arrays = self.writer.ask("measured")
        ages = answer.get("ages")
        if not isinstance(ages, dict) or set(ages) != set(arrays):
            raise InstrumentFault("the instrument read back values without their ages")
        try:
            return {name: Measured(np.asarray(arrays[name], float), float(age)) for name, age in ages.items()}
        except (TypeError, ValueError) as error:
            raise InstrumentFault("the instrument read back what are no numbers") from error

    def ready(self, seconds: float) -> None:
        """Leave the safe state."""
        self.writer.ask("ready", seconds)

    def safe(self, seconds: float) -> None:
        """Go to the safe state, whatever the other connection is doing."""
        self.safety.safe(seconds)

    def is_safe(self) -> bool:
        """Whether the safe state is read back now."""
        return self.safety.is_safe()

    def close(self) -> None:
        """Give the instrument up."""
        self.writer.close()
        self.safety.close()


def writer(told: Json, name: str) -> RemoteInstrument:
    """The driver's instrument, see drivers.py."""
    return RemoteInstrument(told, name)


def safety(told: Json, name: str) -> SafetyLink:
    """The driver's safety connection, see drivers.py."""
    return SafetyLink(told, name)
