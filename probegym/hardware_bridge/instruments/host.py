"""A twin as an instrument: any environment's world in a process of its own, with controls that have a safe state, and a clock that can run in real time.

``python -m probegym.hardware_bridge.instruments.host`` is started by ``start``.
"""

from __future__ import annotations

import functools
import importlib
import subprocess
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from probegym.errors import ProbeGymError
from probegym.hardware_bridge import codec
from probegym.hardware_bridge.capabilities import Descriptor, descriptor
from probegym.hardware_bridge.channel import Channel, Late, Listener, called, ended, launch
from probegym.hardware_bridge.codec import Arrays, Json
from probegym.hardware_bridge.instruments.descriptions import SAFE_STEPS, describe
from probegym.hardware_bridge.instruments.faults import Faults
from probegym.hardware_bridge.world import Refused, World

ROLES = ("writer", "safety", "observer", "judge")
ON = np.ones(1, bool)
START_SECONDS = 60.0
KEPT = 64  # acquisitions for those who watch


class Host:
    """The instrument itself. pace: simulated seconds a second; 0 for as fast as it can. judged: whether truth and new episodes may be asked for."""

    def __init__(self, world: World, pace: float, judged: bool, faults: Faults):
        if world.lanes != 1:
            raise ProbeGymError(f"an instrument has one lane, this world has {world.lanes}")
        self.world, self.pace, self.faults = world, pace, faults
        told = describe(world)
        self.descriptor, self.rest = told.descriptor, told.rest
        self.steps = SAFE_STEPS[self.descriptor.kind]
        self.controls = dict.fromkeys(self.steps, True)  # step of the safe state -> whether it is taken
        self.values: dict[str, np.ndarray] = {}  # what controls stand at
        self.acquired: deque[tuple[int, str, Json, Arrays]] = deque(maxlen=KEPT)  # number, verb and readings of what was acquired last
        self.count, self.writer = 0, ""
        self.lock, self.stop = threading.Lock(), threading.Event()
        self._rest()
        self.doing: dict[str, Callable[[Json], tuple[Json, Arrays]]] = {
            "describe": self._describe, "execute": self._execute, "measured": self._measured, "ready": self._ready, "safe": self._safe,
            "is_safe": self._is_safe, "watch": self._watch, "truth": self._truth, "begin": self._begin,
        }  # fmt: skip
        self.allowed = {
            "writer": ("describe", "execute", "measured", "ready"), "safety": ("safe", "is_safe"), "observer": ("describe", "watch", "measured"),
            "judge": ("begin", "truth") if judged else (),
        }  # fmt: skip

    def _rest(self) -> None:
        self.values = {name: np.array(value, float) for name, value in self.rest.items()}

    def answer(self, role: str, question: Json) -> tuple[Json, Arrays]:
        """The answer to one question in a role; what is refused or goes wrong is said in the answer."""
        told = {"id": question.get("id")}
        what = question.get("do")
        try:
            if what not in self.allowed[role]:
                raise Refused(f"a connection as {role} may not ask for {str(what)[:40]!r}")
            header, arrays = self.doing[str(what)](question)
            return told | header, arrays
        except Refused as error:
            return told | {"refused": str(error)}, {}
        except ProbeGymError as error:
            return told | {"fault": str(error)}, {}

    def _describe(self, _: Json) -> tuple[Json, Arrays]:
        return {"descriptor": self.descriptor.model_dump(mode="json")}, {}

    def _execute(self, question: Json) -> tuple[Json, Arrays]:
        command = codec.command_from_json(question.get("command"))
        with self.lock:
            if any(self.controls.values()):
                raise Refused(f"the instrument is in its safe state ({', '.join(step for step, taken in self.controls.items() if taken)}): arm it first")
            self.descriptor.check(command)
            asked = self.faults.actuated(command, self.values, self.descriptor)
            readings = self.world.execute(asked, ON)
            if self.pace and self.stop.wait(float(readings.time[0]) / self.pace):
                raise ProbeGymError(f"{command.verb} was stopped: the instrument went to its safe state")
            for name, control in self.descriptor.capabilities[asked.verb].reads_back.items():
                self.values[control] = np.asarray(getattr(asked, name), float)
            self.count += 1
            header, arrays = codec.readings_to_json(readings)
            if readings.values:
                self.acquired.append((self.count, asked.verb, header, arrays))
            return self.faults.read(command, header, arrays)

    def _measured(self, _: Json) -> tuple[Json, Arrays]:
        return self.faults.read_back(dict(self.values))

    def _ready(self, _: Json) -> tuple[Json, Arrays]:
        with self.lock:
            for step in reversed(self.steps):
                self.controls[step] = False
            self.stop.clear()
        return {}, {}

    def _safe(self, _: Json) -> tuple[Json, Arrays]:
        self.stop.set()  # before the lock: a command under way gives it back at once
        self.faults.safe()
        for step in self.steps:
            self.controls[step] = True
        return {"steps": list(self.steps)}, {}

    def _is_safe(self, _: Json) -> tuple[Json, Arrays]:
        return {"safe": all(self.controls.values())}, {}

    def _watch(self, question: Json) -> tuple[Json, Arrays]:
        """The first acquisition by a verb after that of a number; number 0 where there is none yet."""
        verb, after = question.get("verb"), question.get("after")
        for number, by, header, arrays in list(self.acquired):
            if by == verb and isinstance(after, int) and number > after:
                return {"number": number} | header, arrays
        return {"number": 0}, {}

    def _truth(self, _: Json) -> tuple[Json, Arrays]:
        with self.lock:
            return {}, dict(self.world.truth() or {})

    def _begin(self, question: Json) -> tuple[Json, Arrays]:
        key = question.get("key")
        if isinstance(key, bool) or not isinstance(key, int) or not 0 <= key < 2**64:
            raise Refused("an episode begins with a key, a whole number from 0")
        with self.lock:
            self.world.begin(np.array([key], np.uint64), ON)
            self._rest()
            self.acquired.clear()
        return {}, {}


class Server:
    """Answers connections to a host, each in a thread of its own."""

    def __init__(self, host: Host, port: int = 0):
        self.host, self.listener = host, Listener(port)

    def run(self, until: Callable[[], bool]) -> None:
        """Accept connections as long as ``until`` says."""
        while until():
            try:
                channel = self.listener.accept(0.2)
            except Late:
                continue
            threading.Thread(target=self._serve, args=(channel,), daemon=True).start()

    def _serve(self, channel: Channel) -> None:
        host, role = self.host, ""
        try:
            hello, _ = channel.receive(5.0)
            role, name = str(hello.get("role")), str(hello.get("name"))[:100]
            if role not in ROLES or not host.allowed[role]:
                channel.send({"refused": f"there is no connection as {role[:40]!r} here"})
                role = ""
                return
            with host.lock:
                taken = host.writer if role == "writer" else ""
                if role == "writer" and not taken:
                    host.writer = name or "a guard"
            if taken:
                role = ""
                channel.send({"refused": f"{taken} holds the instrument: one guard at a time"})
                return
            channel.send({"role": role})
            while True:
                question, _ = channel.receive()
                host.faults.deliver(channel, question, functools.partial(host.answer, role, question))
        except ProbeGymError:
            pass  # the other side has gone; its guardian sees to the safe state
        finally:
            channel.close()
            if role == "writer":
                with host.lock:
                    host.writer = ""


def build(twin: str, world: dict[str, Any], key: int) -> World:
    """The twin ``module:Class`` of one lane with the ``world`` table of a scenario, and its episode begun. Raises ProbeGymError."""
    module, _, name = twin.partition(":")
    if not module.startswith("probegym.hardware_bridge.twins."):
        raise ProbeGymError(f"{twin} is no twin of this package")
    built: World = getattr(importlib.import_module(module), name)(world, 1)
    built.begin(np.array([key], np.uint64), ON)
    return built


def start(twin: str, world: dict[str, Any], key: int = 0, pace: float = 0.0, judged: bool = False, faults: list[Json] | None = None) -> HostProcess:
    """Start a twin as an instrument; raises ProbeGymError when it does not come up."""
    told = {"twin": twin, "world": world, "key": key, "pace": pace, "judged": judged, "faults": faults or []}
    process, channel, answer = launch("probegym.hardware_bridge.instruments.host", told, START_SECONDS)
    return HostProcess(process, channel, {"driver": "twin", "port": answer["port"], "secret": answer["secret"]}, descriptor(answer["descriptor"]))


@dataclass
class HostProcess:
    """A twin that runs as an instrument. reached: what a driver needs to connect to it."""

    process: subprocess.Popen[bytes]
    channel: Channel
    reached: Json
    descriptor: Descriptor

    def close(self) -> None:
        """End it."""
        self.channel.close()
        ended(self.process)

    def __enter__(self) -> HostProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def main() -> None:
    """The instrument's process: serves until the one that started it goes."""
    channel, told = called()
    try:
        world = build(told["twin"], told["world"], told["key"])
        server = Server(Host(world, told["pace"], told["judged"], Faults(told["faults"])))
    except ProbeGymError as error:
        channel.send({"error": str(error)})
        return
    channel.send({"port": server.listener.port, "secret": server.listener.secret, "descriptor": server.host.descriptor.model_dump(mode="json")})
    alive = threading.Event()
    alive.set()

    def watch() -> None:
        try:
            channel.receive()
        except ProbeGymError:
            alive.clear()

    threading.Thread(target=watch, daemon=True).start()
    server.run(alive.is_set)


if __name__ == "__main__":
    main()
