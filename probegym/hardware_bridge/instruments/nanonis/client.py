"""One connection to a Nanonis controller: a command, its answer, a deadline. Nothing here decides anything.

After any doubt about a frame, and after a deadline that passed, the connection is closed for good: a late answer belongs to nobody.
The wire has no numbers for its questions, so an answer that comes twice would pass for that to the same command asked again. Hence no
command is asked twice in a row, a look at the bias comes between, and what lies in the line before a command is sent closes it.
"""

from __future__ import annotations

import select
import socket
import threading
import time
from typing import Any

from probegym.errors import ProbeGymError
from probegym.hardware_bridge.codec import Malformed
from probegym.hardware_bridge.instruments import InstrumentFault, Unreached
from probegym.hardware_bridge.instruments.nanonis import commands, protocol
from probegym.hardware_bridge.instruments.nanonis.protocol import HEADER, Values
from probegym.hardware_bridge.world import Refused

CONNECT_SECONDS, REPLY_SECONDS, LEAST_SECONDS = 2.0, 1.0, 0.05  # the last: no answer is given less, as a late one costs the connection
BETWEEN, ELSE = "Bias.Get", "ZCtrl.StatusGet"  # what is asked between two commands of one name, and between two of the first


class Stopped(InstrumentFault):
    """The instrument was sent to its safe state, so nothing more is sent by the one that was at work."""


class Connection:
    """Commands one after the other; several threads may ask. Raises Unreached where nothing listens."""

    def __init__(self, host: str, port: int, seconds: float = CONNECT_SECONDS):
        self.where, self._lock, self._last = f"port {port} of {host}", threading.Lock(), ""
        try:
            self._socket: socket.socket | None = socket.create_connection((host, port), timeout=seconds)
        except (OSError, OverflowError) as error:
            raise Unreached(f"nothing listens on {self.where} ({error}): switch the controller's TCP interface on, or open the tunnel to it") from error
        self._socket.setblocking(False)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)

    @property
    def closed(self) -> bool:
        """Whether it was closed, by whomever."""
        return self._socket is None

    def ask(self, name: str, seconds: float = REPLY_SECONDS, unless: threading.Event | None = None, **arguments: Any) -> Values:
        """What a command returns; raises ControllerError when the controller refuses, InstrumentFault when there is no answer that can be trusted.

        seconds: for everything, turns of other threads among it. unless: sends nothing once this is set, but raises Stopped.
        """
        try:
            request = commands.request(name, **arguments)
        except ProbeGymError as error:
            raise Refused(str(error)) from error
        end = time.monotonic() + seconds
        if not self._lock.acquire(timeout=max(0.0, seconds)):
            raise InstrumentFault(f"{name} was not sent within {seconds:.3g} s: another command is under way on {self.where}")
        try:
            if unless is not None and unless.is_set():
                raise Stopped(f"{name} was not sent: the instrument goes to its safe state")
            if name == self._last:
                between = BETWEEN if name != BETWEEN else ELSE
                self._exchange(between, commands.request(between), end)
            return self._exchange(name, request, end)
        finally:
            self._lock.release()

    def idle(self, seconds: float) -> bool:
        """Wait until nothing that was sent waits for its answer; False when that takes longer."""
        free = self._lock.acquire(timeout=max(0.0, seconds))
        if free:
            self._lock.release()
        return free

    def close(self) -> None:
        """Close; a thread that waits for an answer is told. May be called again."""
        link, self._socket = self._socket, None
        if link is not None:
            try:
                link.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # the other side was first
            link.close()

    def _exchange(self, name: str, request: bytes, end: float) -> Values:
        self._last = name
        link = self._socket
        if link is None:
            raise InstrumentFault(f"the connection to {self.where} is closed: open the instrument anew")
        try:
            if select.select([link], [], [], 0.0)[0]:
                raise self._doubt(f"something came before {name} was asked")
            self._send(link, name, request, end)
            size = protocol.unpack_response(self._exactly(link, HEADER, name, end), name)
            return commands.returns(name, self._exactly(link, size, name, end))
        except Malformed as error:
            raise self._doubt(str(error)) from error
        except (OSError, ValueError) as error:  # a socket that another thread has closed is no valid one
            raise self._doubt(f"{name} broke off ({error})") from error

    def _send(self, link: socket.socket, name: str, request: bytes, end: float) -> None:
        left = memoryview(request)
        while len(left):
            if not select.select([], [link], [], max(0.0, end - time.monotonic()))[1]:
                raise self._doubt(f"{name} was not taken in time")
            left = left[link.send(left) :]

    def _exactly(self, link: socket.socket, count: int, name: str, end: float) -> bytes:
        taken = bytearray()
        while len(taken) < count:
            if not select.select([link], [], [], max(0.0, end - time.monotonic()))[0]:
                raise self._doubt(f"{name} was not answered in time")
            part = link.recv(min(count - len(taken), 1 << 20))
            if not part:
                raise self._doubt(f"the other side closed it at {name}")
            taken += part
        return bytes(taken)

    def _doubt(self, why: str) -> InstrumentFault:
        self.close()
        return InstrumentFault(f"{why}: the connection to {self.where} is closed")
