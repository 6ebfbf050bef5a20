"""A twin that speaks the Nanonis protocol on loopback: up to four ports, one connection each, commands one after the other.

``python -m probegym.hardware_bridge.instruments.nanonis.server`` is started by ``start``. Who connects to a port that is taken has its first command
answered by an error that says who holds it, as the document says nothing of such a client; the report says so, too. The four ports are equal, as the
vendor's are: whoever holds one may write, and a command is carried out as a whole before that of another port.
"""

from __future__ import annotations

import functools
import logging
import math
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from probegym.errors import ProbeGymError
from probegym.hardware_bridge.channel import HOST, Started, called, launch
from probegym.hardware_bridge.codec import Arrays, Json, Malformed
from probegym.hardware_bridge.commands import Lanes
from probegym.hardware_bridge.instruments import Instrument, wire
from probegym.hardware_bridge.instruments.drivers import Meant
from probegym.hardware_bridge.instruments.host import LEAVING_SECONDS, ROLES, Host
from probegym.hardware_bridge.instruments.host import Server as HostServer
from probegym.hardware_bridge.instruments.nanonis import commands, protocol
from probegym.hardware_bridge.instruments.nanonis.controller import Controller
from probegym.hardware_bridge.instruments.nanonis.faults import WireFaults
from probegym.hardware_bridge.instruments.nanonis.sample import Sample
from probegym.hardware_bridge.instruments.nanonis.twin import settings_of
from probegym.hardware_bridge.instruments.twin import build

_log = logging.getLogger(__name__)
Report = Callable[[str], None]
START_SECONDS = 60.0
FRAME_SECONDS = 10.0  # within which all of a request that has begun must be there, and all of an answer taken
KEPT = 10_000  # lines of a report
MOST_TURNED_AWAY = 16  # clients at once that are told who holds a port


class Gone(ProbeGymError):
    """The other side has closed the connection."""


class Link:
    """The server's end of one connection; for the one thread that serves it."""

    def __init__(self, connection: socket.socket, who: str):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self.socket, self.who = connection, who
        self.came = bytearray()  # and was not looked at yet

    def send(self, data: bytes) -> None:
        """Send all of it; raises Gone, also when the other side does not take it in time."""
        try:
            self.socket.settimeout(FRAME_SECONDS)
            self.socket.sendall(data)
        except OSError as error:
            raise Gone(f"it takes no answer ({error})") from error

    def request(self, seconds: float | None = None) -> tuple[str, bytes, bool]:
        """(name, body, whether an answer is wanted); waits for ``seconds`` until one begins, by default for as long as nothing comes. Raises Gone, Malformed."""
        if not self.came:
            self._more(seconds)
        end = time.monotonic() + FRAME_SECONDS  # for all of it: a byte now and then is no request
        name, size, reply = protocol.unpack_request(self._exactly(protocol.HEADER, end))
        return name, self._exactly(size, end), reply

    def there(self) -> bool:
        """Whether the other side is still there, while a command of it is carried out; what it sends meanwhile is kept."""
        try:
            self.socket.setblocking(False)
            while len(self.came) < protocol.HEADER + protocol.MOST_ARGUMENTS:
                if not (part := self.socket.recv(1 << 16)):
                    return False
                self.came += part
        except BlockingIOError:
            return True
        except OSError:
            return False
        return True

    def _exactly(self, count: int, end: float) -> bytes:
        while len(self.came) < count:
            self._more(max(0.001, end - time.monotonic()))
        taken, self.came = bytes(self.came[:count]), self.came[count:]
        return taken

    def _more(self, seconds: float | None) -> None:
        try:
            self.socket.settimeout(seconds)
            part = self.socket.recv(1 << 16)
        except TimeoutError as error:
            raise Malformed("a request broke off in the middle, or came too slowly") from error
        except OSError as error:
            raise Gone(str(error)) from error
        if not part:
            raise Gone("it was closed in the middle of a request" if self.came else "it was closed")
        self.came += part

    def close(self) -> None:
        """Break the connection; a thread that reads from it is told."""
        try:
            self.socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # it is broken already
        self.socket.close()


class Server:
    """Serves a controller. ports: 0 for any that is free; report: is told who comes and goes, and every command with its outcome.

    elsewhere: whether others are taken where one of the ports is not free.
    """

    def __init__(self, controller: Controller, ports: Sequence[int] = (0,), faults: WireFaults | None = None, report: Report | None = None, elsewhere: bool = False):
        if not 1 <= len(ports) <= len(protocol.PORTS):
            raise ProbeGymError(f"a controller has 1 to {len(protocol.PORTS)} ports, asked were {len(ports)}")
        self.controller, self.faults, self.report = controller, faults or WireFaults([]), report
        try:
            self.listeners = _listening(ports)
        except ProbeGymError:
            if not elsewhere:
                controller.close()
                raise
            self.listeners = _listening((0,) * len(ports))
        self.held: dict[int, Link] = {}
        self.turned_away = threading.Semaphore(MOST_TURNED_AWAY)

    @property
    def ports(self) -> list[int]:
        """Those it listens on."""
        return list(self.listeners)

    def run(self, until: Callable[[], bool], leaving: float = 0.0) -> None:
        """Accept connections as long as ``until`` says, and for ``leaving`` s more while somebody is still there to make the tip safe; then close all."""
        end = math.inf
        try:
            while time.monotonic() < end and (until() or (leaving and self.held)):
                if end == math.inf and not until():
                    end = time.monotonic() + leaving
                    self.controller.leave()
                ready, _, _ = select.select(list(self.listeners.values()), [], [], 0.2)
                for listener in ready:
                    self._accept(listener)
        finally:
            self._closed()

    def _closed(self) -> None:
        for listener in self.listeners.values():
            listener.close()
        self.controller.close()
        for link in list(self.held.values()):
            link.close()

    def _accept(self, listener: socket.socket) -> None:
        connection, (host, own) = listener.accept()
        port, who = listener.getsockname()[1], f"{host}:{own}"
        if holder := self.held.get(port):
            told = f"{who} was turned away: {holder.who} holds this port"
            self._tell(port, told)
            _log.warning("port %d: %s", port, told)
            if self.turned_away.acquire(blocking=False):  # a crowd is not answered
                threading.Thread(target=self._turn_away, args=(port, holder.who, Link(connection, who)), daemon=True).start()
            else:
                connection.close()
            return
        self.held[port] = Link(connection, who)
        self._tell(port, f"{who} connected")
        threading.Thread(target=self._serve, args=(port, self.held[port]), daemon=True).start()

    def _turn_away(self, port: int, holder: str, link: Link) -> None:
        """Answer one command by an error that says who holds the port, and close: nothing is sent that nobody asked for."""
        try:
            name, _, reply = link.request(FRAME_SECONDS)
            if reply:
                link.send(commands.refusal(name, f"port {port} {protocol.HELD} {holder}: a port serves one client, use another one"))
        except ProbeGymError:
            pass  # it was told as much as it wanted to hear
        finally:
            link.close()
            self.turned_away.release()

    def _serve(self, port: int, link: Link) -> None:
        try:
            while True:
                name, body, reply = link.request()
                answered = functools.partial(self._answer, port, link, name, body)
                if reply:
                    self.faults.deliver(link, name, answered)
                else:
                    answered()
        except ProbeGymError as error:
            self._tell(port, f"{link.who} is gone: {error}")
        finally:
            del self.held[port]  # first: who sees the end of its connection may come again at once
            link.close()

    def _answer(self, port: int, link: Link, name: str, body: bytes) -> bytes:
        answer = self.controller.answer(name, body, link.there)
        if self.report:
            self._tell(port, _line(name, body, answer[protocol.HEADER :]))
        return answer

    def _tell(self, port: int, text: str) -> None:
        if self.report:
            self.report(f"{port} {text}")


def _listening(ports: Sequence[int]) -> dict[int, socket.socket]:
    """Sockets that listen, by their ports; raises ProbeGymError, and keeps none, where one is not free."""
    out: dict[int, socket.socket] = {}
    for port in ports:
        try:
            listener = socket.create_server((HOST, port), backlog=4)
        except (OSError, OverflowError) as error:
            for one in out.values():
                one.close()
            raise ProbeGymError(f"port {port} cannot be used ({getattr(error, 'strerror', error)}): choose another") from error
        out[listener.getsockname()[1]] = listener
    return out


def _line(name: str, body: bytes, answer: bytes) -> str:
    """One command and its outcome, to be read."""
    if name not in commands.COMMANDS:
        return f"{name}: not simulated"
    asked = ", ".join(f"{field}={_short(value)}" for field, value in commands.arguments(name, body).items())
    try:
        told = ", ".join(f"{field}={_short(value)}" for field, value in commands.returns(name, answer).items())
    except protocol.ControllerError as error:
        told = f"refused, {error.text}"
    return f"{name}({asked})" + (f" -> {told}" if told else "")


def _short(value: Any) -> str:
    if isinstance(value, np.ndarray) and value.size > 4:
        return f"{' x '.join(map(str, value.shape))} numbers"
    if isinstance(value, tuple) and len(value) > 4:
        return f"{len(value)} texts"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


# ---- in a process of its own ----


@dataclass
class NanonisProcess(Started):
    """A twin that runs as a Nanonis controller. reached: what the driver needs to connect, on the first three ports, and a judge where there may be one."""

    reached: Json
    ports: list[int]

    def begin(self, key: int) -> None:
        """Put the sample of an episode's key under the tip; needs ``judged``."""
        self._judge("begin", key=key)

    def truth(self) -> Lanes:
        """Hidden state of the twin; needs ``judged``."""
        return dict(self._judge("truth"))

    def _judge(self, what: str, **more: object) -> Arrays:
        link = wire.Link(self.reached, "judge", "the one who started it")
        try:
            return link.ask(what, START_SECONDS, **more)[1]
        finally:
            link.close()

    def report(self) -> list[str]:
        """Who came and went, and every command with its outcome, so far."""
        return [str(line) for line in self.channel.ask({}, seconds=START_SECONDS)[0]["lines"]]


def start(
    twin: str, world: dict[str, Any], key: int = 0, pace: float = 0.0, ports: Sequence[int] = (0,), faults: list[Json] | None = None, judged: bool = True,
    elsewhere: bool = False,
) -> NanonisProcess:
    """Start the twin ``module:Class`` with the ``world`` table of a scenario as a controller; raises ProbeGymError when it does not come up.

    pace: simulated seconds a second, 0 for as fast as it can. judged: whether truth and new episodes may be asked for, over a connection of their own.
    elsewhere: whether other ports are taken where one is not free.
    """
    told = {"twin": twin, "world": world, "key": key, "pace": pace, "ports": list(ports), "faults": faults or [], "judged": judged, "elsewhere": elsewhere}
    process, channel, answer = launch("probegym.hardware_bridge.instruments.nanonis.server", told, START_SECONDS)
    return NanonisProcess(process, channel, answer["reached"], answer["ports"])


def fits(meant: Meant) -> None:
    """Raise ProbeGymError for a twin that is no STM."""
    Sample(build(meant.twin, meant.world, 0))


def started(meant: Meant) -> NanonisProcess:
    """The twin of a deployment behind a Nanonis controller, see drivers.py: on the vendor's ports where they are free. Raises ProbeGymError for what is no STM."""
    return start(meant.twin, meant.world, pace=meant.pace, ports=protocol.PORTS, judged=meant.judged, elsewhere=True)


class _Judged(Host):
    """Answers a judge alone: all else goes over the controller's own wire."""

    def __init__(self, controller: Controller):
        super().__init__(cast(Instrument, None), controller)
        self.allowed = {role: ("begin", "truth") if role == "judge" else () for role in ROLES}


def main() -> None:
    """The controller's process: serves until the one that started it goes."""
    channel, told = called()
    lines: deque[str] = deque(maxlen=KEPT)
    try:
        controller = Controller(build(told["twin"], told["world"], told["key"]), told["pace"])
        server = Server(controller, told["ports"], WireFaults(told["faults"]), lines.append, told["elsewhere"])
    except ProbeGymError as error:
        channel.send({"error": str(error)})
        return
    alive = threading.Event()
    alive.set()
    reached: Json = {"driver": "nanonis", "host": HOST, "ports": server.ports[:3], "settings": settings_of(controller.sample, told["pace"])}
    if told["judged"]:
        judge = HostServer(_Judged(controller))
        threading.Thread(target=judge.run, args=(alive.is_set,), daemon=True).start()
        reached |= {"port": judge.listener.port, "secrets": {"judge": judge.listener.secrets["judge"]}}
    channel.send({"reached": reached, "ports": server.ports})

    def watch() -> None:
        try:
            while True:
                channel.receive()
                channel.send({"lines": list(lines)})
        except ProbeGymError:
            alive.clear()

    threading.Thread(target=watch, daemon=True).start()
    server.run(alive.is_set, LEAVING_SECONDS)


if __name__ == "__main__":
    main()
