"""An instrument in a process of its own, for those who may connect to it: one to write, others to make it safe, to watch, or to judge a twin.

Whatever satisfies the ``Instrument`` protocol can be served: a twin, or a driver that must live in a process with its vendor's software.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar, Protocol

from probegym.errors import ProbeGymError
from probegym.hardware_bridge import codec
from probegym.hardware_bridge.capabilities import Descriptor, descriptor, one_lane
from probegym.hardware_bridge.channel import Channel, Late, Listener, Started, launch
from probegym.hardware_bridge.codec import Arrays, Json
from probegym.hardware_bridge.commands import Lanes
from probegym.hardware_bridge.instruments import Instrument
from probegym.hardware_bridge.instruments.faults import Faults
from probegym.hardware_bridge.world import Refused

ROLES = ("writer", "safety", "observer", "judge")
KEEPING = ("writer", "safety")
START_SECONDS = 60.0
LEAVING_SECONDS, POLL_SECONDS, SAFE_AGAIN_SECONDS = 10.0, 0.2, 5.0
KEPT = 64  # acquisitions for those who watch

_log = logging.getLogger(__name__)


class Judge(Protocol):
    """What a twin has beyond an instrument: episodes, and hidden state."""

    def begin(self, key: int) -> None:
        """Begin the episode of a key."""

    def truth(self) -> Lanes:
        """Hidden state."""


class Host:
    """Answers questions to an instrument, by roles. judge: of a twin that may be asked for its truth and for new episodes."""

    def __init__(self, instrument: Instrument, judge: Judge | None = None, faults: Faults | None = None):
        self.instrument, self.judge, self.faults = instrument, judge, faults or Faults([])
        self.acquired: deque[tuple[int, str, Json, Arrays]] = deque(maxlen=KEPT)  # number, verb and readings of what was acquired last
        self.count, self.lock = 0, threading.Lock()  # how often something was acquired; whose turn it is
        self.safes, self.going, self.leaving = 0, 0, threading.Lock()  # how often it was sent to its safe state; how often just now; held by who leaves it
        self.doing: dict[str, Callable[[Json], tuple[Json, Arrays]]] = {
            "describe": self._describe, "execute": self._execute, "measured": self._measured, "ready": self._ready, "safe": self._safe,
            "is_safe": self._is_safe, "watch": self._watch, "truth": self._truth, "begin": self._begin,
        }  # fmt: skip
        self.allowed = {
            "writer": ("describe", "execute", "measured", "ready"), "safety": ("safe", "is_safe"), "observer": ("describe", "watch", "measured"),
            "judge": ("begin", "truth") if judge else (),
        }  # fmt: skip

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
        except Exception as error:  # of a vendor's software: the one who asked is told, and this process goes on
            return told | {"fault": f"the driver failed ({type(error).__name__}: {str(error)[:200]})"}, {}

    def _describe(self, _: Json) -> tuple[Json, Arrays]:
        return {"descriptor": self.instrument.descriptor.model_dump(mode="json")}, {}

    def _execute(self, question: Json) -> tuple[Json, Arrays]:
        command, seconds = codec.command_from_json(question.get("command")), _seconds(question)
        with self._still():
            self.instrument.descriptor.check(command)
            one_lane(command)
            readings = self.instrument.execute(self.faults.actuated(command, self.instrument), seconds)
            self.count += 1
            header, arrays = codec.readings_to_json(readings)
            if readings.values:
                self.acquired.append((self.count, command.verb, header, arrays))
            return self.faults.read(command, header, arrays)

    def _measured(self, _: Json) -> tuple[Json, Arrays]:
        told = self.faults.read_back(self.instrument.measured())
        return {"ages": {name: one.age for name, one in told.items()}}, {name: one.values for name, one in told.items()}

    def _ready(self, question: Json) -> tuple[Json, Arrays]:
        with self._still(), self.leaving:
            self.instrument.ready(_seconds(question))
        return {}, {}

    @contextlib.contextmanager
    def _still(self) -> Iterator[None]:
        """Its turn; Refused where the instrument was sent to its safe state while this waited."""
        before = self.safes
        with self.lock:
            if self.safes != before or self.going:
                raise Refused("the instrument was sent to its safe state meanwhile: nothing was done")
            try:
                yield
            finally:
                if self.safes != before and not self.instrument.is_safe():
                    self.instrument.safe(SAFE_AGAIN_SECONDS)  # it was on its way out of the safe state when it was sent there

    def _safe(self, question: Json) -> tuple[Json, Arrays]:
        seconds = _seconds(question)
        self.safes += 1
        self.going += 1
        try:
            self.faults.safe()
            self.instrument.safe(seconds)  # without the lock: a command under way ends by it
            if self.leaving.locked():  # somebody was on the way out of the safe state: once more when that has ended
                if not self.leaving.acquire(timeout=seconds):
                    raise ProbeGymError("the instrument is still on its way out of its safe state")
                self.leaving.release()
                self.instrument.safe(seconds)
        finally:
            self.going -= 1
        return {}, {}

    def _is_safe(self, _: Json) -> tuple[Json, Arrays]:
        return {"safe": self.instrument.is_safe()}, {}

    def _watch(self, question: Json) -> tuple[Json, Arrays]:
        """The first acquisition by a verb after that of a number; number 0 where there is none yet."""
        verb, after = question.get("verb"), question.get("after")
        for number, by, header, arrays in list(self.acquired):
            if by == verb and isinstance(after, int) and number > after:
                return {"number": number} | header, arrays
        return {"number": 0}, {}

    def _truth(self, _: Json) -> tuple[Json, Arrays]:
        assert self.judge
        with self.lock:
            return {}, self.judge.truth()

    def _begin(self, question: Json) -> tuple[Json, Arrays]:
        assert self.judge
        key = question.get("key")
        if isinstance(key, bool) or not isinstance(key, int) or not 0 <= key < 2**64:
            raise Refused("an episode begins with a key, a whole number from 0")
        with self.lock:
            self.judge.begin(key)
            self.acquired.clear()
        return {}, {}


def _seconds(question: Json) -> float:
    """How long an answer is waited for; raises Refused."""
    seconds = question.get("seconds")
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds < math.inf:
        raise Refused("a question says for how many seconds its answer is waited for")
    return float(seconds)


class Server:
    """Answers connections to a host, each in a thread of its own. One writer at a time."""

    def __init__(self, host: Host, port: int = 0):
        self.host, self.listener = host, Listener(port, ROLES)
        self.writer, self.keeping = "", 0  # who writes; connections of those who keep the instrument safe, writer and guardian
        self.lock = threading.Lock()  # not the host's, which a command holds as long as it takes

    def run(self, until: Callable[[], bool]) -> None:
        """Accept connections as long as ``until`` says, and then until those who keep the instrument safe have left."""
        end = math.inf
        while time.monotonic() < end and (until() or self.keeping):
            if end == math.inf and not until():
                end = time.monotonic() + LEAVING_SECONDS
            try:
                channel = self.listener.accept(POLL_SECONDS)
            except Late:
                continue
            threading.Thread(target=self._serve, args=(channel,), daemon=True).start()

    def _serve(self, channel: Channel) -> None:
        role = ""
        try:
            hello, _ = channel.receive(5.0)
            role = self._entered(channel.role, str(hello.get("name"))[:100])
            channel.send({"role": role})
            while True:
                question, _ = channel.receive()
                self.host.faults.deliver(channel, question, functools.partial(self.host.answer, role, question))
        except Refused as error:
            _log.warning("%s", error)
            with contextlib.suppress(ProbeGymError):
                channel.send({"refused": str(error)})
        except ProbeGymError:
            pass  # the other side has gone; its guardian sees to the safe state
        finally:
            channel.close()
            with self.lock:
                self.keeping -= role in KEEPING
                if role == "writer":
                    self.writer = ""

    def _entered(self, role: str, name: str) -> str:
        """The role that a connection has; raises Refused."""
        if not self.host.allowed[role]:
            raise Refused(f"there is no connection as {role} here")
        with self.lock:
            if role == "writer" and self.writer:
                raise Refused(f"{self.writer} holds the instrument: one guard at a time")
            if role == "writer":
                self.writer = name or "a guard"
            self.keeping += role in KEEPING
        return role


@dataclass
class HostProcess(Started):
    """An instrument that runs in its process. reached: what a driver needs to connect to it."""

    reached: Json
    descriptor: Descriptor
    patience: ClassVar[float] = LEAVING_SECONDS + 2


def launched(module: str, told: Json, seconds: float = START_SECONDS) -> HostProcess:
    """Start a module that calls ``serve``; raises ProbeGymError with its reason when it does not come up."""
    process, channel, answer = launch(module, told, seconds)
    return HostProcess(process, channel, {"driver": "served", "port": answer["port"], "secrets": answer["secrets"]}, descriptor(answer["descriptor"]))


def serve(host: Host, channel: Channel) -> None:
    """Say on the channel where the instrument is reached, and serve it until the one that started this process goes."""
    server, alive = Server(host), threading.Event()
    alive.set()
    channel.send({"port": server.listener.port, "secrets": server.listener.secrets, "descriptor": host.instrument.descriptor.model_dump(mode="json")})

    def watch() -> None:
        try:
            channel.receive()
        except ProbeGymError:
            alive.clear()

    threading.Thread(target=watch, daemon=True).start()
    server.run(alive.is_set)
