"""Connections between the bridge's processes: messages over a loopback socket, with a deadline for every wait.

Any doubt about what the other side said closes the connection. Processes are spawned afresh, inherit no open files but their
standard ones, and connect back with a secret that they are handed on standard input.
"""

from __future__ import annotations

import contextlib
import hmac
import os
import queue
import secrets
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType
from typing import ClassVar, Self

from probegym.errors import ProbeGymError
from probegym.hardware_bridge import codec
from probegym.hardware_bridge.codec import Arrays, Json

HOST = "127.0.0.1"
START_SECONDS = 30.0  # for a process to import and connect
ADMISSION_SECONDS, STRANGERS = 1.0, 16  # to show the secret; how many are looked at at once
LONGEST_SECRET, TURN_BYTES = 1000, 4_000_000  # bytes of a message with a secret; that one call of ``poll`` reads
PASSED_ON = ("PATH", "HOME", "LANG", "SYSTEMROOT", "TEMP", "TMP", "TMPDIR", "PYTHONPATH", "VIRTUAL_ENV", "XDG_CACHE_HOME", "OMP_NUM_THREADS")


class Disconnected(ProbeGymError):
    """The other side has gone, or what it said cannot be trusted; the connection is closed."""


class Late(ProbeGymError):
    """The deadline passed. Nothing was taken from the connection, or, in the middle of a message, it is closed."""


class Channel:
    """Messages over a connected socket. Not for two threads at once."""

    def __init__(self, connection: socket.socket):
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket: socket.socket | None = connection
        self.role = ""  # by the secret that was shown
        self._part, self._begun = bytearray(), 0.0  # of a message that ``poll`` has seen the beginning of, and when

    def fileno(self) -> int:
        """For ``select``; -1 when closed."""
        return self.socket.fileno() if self.socket else -1

    def send(self, header: Json, arrays: Arrays | None = None, seconds: float = 5.0) -> None:
        """Send one message; raises Disconnected, also when the other side does not take it within ``seconds``."""
        left, end = memoryview(codec.pack(header, arrays)), time.monotonic() + seconds
        while len(left):
            link = self._open()
            try:
                left = left[link.send(left) :]
            except (BlockingIOError, InterruptedError):
                if not self._wait(end, writing=True):
                    raise self._gone("the other side takes no messages") from None
            except OSError as error:
                raise self._gone("the other side has gone") from error

    def receive(self, seconds: float | None = None, most: int | None = None) -> tuple[Json, Arrays]:
        """The next message, (header, arrays); raises Late when none begins within ``seconds``, Disconnected otherwise, also for more than ``most`` bytes."""
        end = None if seconds is None else time.monotonic() + seconds
        prefix = self._exactly(codec.PREFIX.size, end, begun=False)
        try:
            head, body, checksum = codec.lengths(prefix)
            if most is not None and head + body > most:
                raise self._gone(f"a message of more than {most} bytes")
            return codec.unpack(self._exactly(head, end), self._exactly(body, end), checksum)
        except codec.Malformed as error:
            raise self._gone(str(error)) from error

    def poll(self, longest: float, most: int) -> tuple[Json, Arrays] | None:
        """The next message if all of it has come; never waits. Raises Disconnected when it is longer than ``most`` bytes or has been coming for ``longest`` s."""
        link, start, turn = self._open(), codec.PREFIX.size, 0
        try:
            while (lacking := self._whole() - len(self._part)) > 0:
                if lacking + len(self._part) > most:
                    raise self._gone(f"a message of more than {most} bytes")
                if turn > TURN_BYTES:
                    return None  # others have their turn
                part = link.recv(min(lacking, 1 << 20))  # no more than this message: ``select`` tells of the next
                turn += len(part)
                if not part:
                    raise self._gone("the other side has gone")
                self._begun = self._begun if self._part else time.monotonic()
                self._part += part
            head, _, checksum = codec.lengths(bytes(self._part[:start]))
            whole, self._part = bytes(self._part), bytearray()
            return codec.unpack(whole[start : start + head], whole[start + head :], checksum)
        except (BlockingIOError, InterruptedError):
            if self.partial and time.monotonic() - self._begun > longest:
                raise self._gone("a message broke off in the middle") from None
            return None
        except codec.Malformed as error:
            raise self._gone(str(error)) from error
        except OSError as error:
            raise self._gone("the other side has gone") from error

    @property
    def partial(self) -> bool:
        """Whether ``poll`` waits for the rest of a message."""
        return bool(self._part)

    def _whole(self) -> int:
        """Bytes of the message that has begun, as far as is known."""
        if len(self._part) < codec.PREFIX.size:
            return codec.PREFIX.size
        head, body, _ = codec.lengths(bytes(self._part[: codec.PREFIX.size]))
        return codec.PREFIX.size + head + body

    def ask(self, header: Json, arrays: Arrays | None = None, seconds: float = 5.0) -> tuple[Json, Arrays]:
        """Send and wait for the answer. A late answer closes the connection: it must not be taken for that to a later question."""
        self.send(header, arrays, seconds)
        try:
            return self.receive(seconds)
        except Late as error:
            raise self._gone(f"no answer within {seconds:g} s") from error

    def close(self) -> None:
        """Close; may be called again."""
        if self.socket:
            self.socket.close()
            self.socket = None

    def break_off(self) -> None:
        """End the connection under another thread that waits on it."""
        if (link := self.socket) is not None:
            with contextlib.suppress(OSError):
                link.shutdown(socket.SHUT_RDWR)

    def _open(self) -> socket.socket:
        if self.socket is None:
            raise Disconnected("the connection is closed: connect again")
        return self.socket

    def _gone(self, why: str) -> Disconnected:
        self.close()
        return Disconnected(f"{why}: the connection is closed")

    def _wait(self, end: float | None, writing: bool = False) -> bool:
        link = [self._open()]
        left = None if end is None else max(0.0, end - time.monotonic())
        return any(select.select([] if writing else link, link if writing else [], [], left))

    def _exactly(self, count: int, end: float | None, begun: bool = True) -> bytes:
        taken = bytearray()
        while len(taken) < count:
            link = self._open()
            try:
                part = link.recv(min(count - len(taken), 1 << 20))
            except (BlockingIOError, InterruptedError):
                if not self._wait(end):
                    if begun or taken:
                        raise self._gone("a message broke off in the middle") from None
                    raise Late("no message came in time") from None
                continue
            except OSError as error:
                raise self._gone("the other side has gone") from error
            if not part:
                raise self._gone("the other side has gone")
            taken += part
        return bytes(taken)


class Listener:
    """Lets those in over the loopback interface who show a secret; ``select`` on it tells when there is one.

    Each role has a secret of its own, and a channel knows which was shown. Who comes is looked at beside the caller, so that a stranger
    who says nothing holds nobody up. turned_away: how many knew no secret.
    """

    def __init__(self, port: int = 0, roles: tuple[str, ...] = ("",)):
        self.secrets = {role: secrets.token_hex(16) for role in roles}
        try:
            self.socket = socket.create_server((HOST, port), backlog=16)
        except OSError as error:
            raise ProbeGymError(f"port {port} cannot be used ({error.strerror}): choose another") from error
        self.socket.settimeout(ADMISSION_SECONDS)
        self.port: int = self.socket.getsockname()[1]
        self.turned_away = 0
        self._bell, self._ring = socket.socketpair()
        self._known: queue.SimpleQueue[Channel] = queue.SimpleQueue()
        self._looked_at: list[Channel] = []  # strangers, the oldest first
        self._closed = threading.Event()
        threading.Thread(target=self._watch, daemon=True).start()

    def reached(self, role: str = "") -> Json:
        """Port and secret for one role."""
        return {"port": self.port, "secret": self.secrets[role]}

    def fileno(self) -> int:
        """For ``select``."""
        return self._bell.fileno()

    def accept(self, seconds: float = START_SECONDS) -> Channel:
        """The next connection that knows the secret. Raises Late."""
        try:
            channel = self._known.get(timeout=max(0.0, seconds))
        except queue.Empty:
            raise Late(f"nobody connected within {seconds:g} s") from None
        self._bell.recv(1)
        return channel

    def close(self) -> None:
        """Close; connections that were made stay."""
        self._closed.set()
        for one in (self.socket, self._bell, self._ring):
            one.close()

    def _watch(self) -> None:
        while not self._closed.is_set():
            try:
                connection, _ = self.socket.accept()
            except TimeoutError:
                continue
            except OSError:
                return
            channel = Channel(connection)
            self._looked_at.append(channel)
            if len(self._looked_at) > STRANGERS:  # who has been silent for longest goes: newcomers are not kept out by those who only sit there
                self._looked_at.pop(0).break_off()
            threading.Thread(target=self._look_at, args=(channel,), daemon=True).start()

    def _look_at(self, channel: Channel) -> None:
        try:
            shown, _ = channel.receive(ADMISSION_SECONDS, LONGEST_SECRET)
            told = str(shown.get("secret")).encode(errors="replace")
            known = [role for role, secret in self.secrets.items() if hmac.compare_digest(told, secret.encode())]
            if not known:
                raise Disconnected("a wrong secret")
            channel.role = known[0]
            self._ring.send(b"!")
            self._known.put(channel)
        except (ProbeGymError, OSError):
            self.turned_away += 1
            channel.close()
        finally:
            with contextlib.suppress(ValueError):
                self._looked_at.remove(channel)


def connect(port: int, secret: str, seconds: float = 5.0) -> Channel:
    """A channel to a Listener on this machine; raises Disconnected."""
    try:
        channel = Channel(socket.create_connection((HOST, port), timeout=seconds))
    except OSError as error:
        raise Disconnected(f"nothing listens on port {port} of this machine ({error.strerror or error})") from error
    channel.send({"secret": secret}, seconds=seconds)
    return channel


def spawn(module: str, *arguments: str, told: Json | None = None, silent: bool = False) -> tuple[subprocess.Popen[bytes], Channel]:
    """Start ``python -m module`` in a process of its own and wait until it has connected back; ``told`` is handed over on standard input.

    silent: it may outlive this process and must not hold its terminal. Raises ProbeGymError when it does not come up.
    """
    listener = Listener()
    environment = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    # -P: nothing is imported from the folder that this is run in. A session of its own: what a terminal does to its processes, Ctrl-C, Ctrl-Z or a hang-up, does not reach those that keep an instrument safe.
    process = subprocess.Popen([sys.executable, "-P", "-m", module, *arguments], stdin=subprocess.PIPE, close_fds=True, env=environment, start_new_session=True,
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL if silent else None)  # fmt: skip
    try:
        assert process.stdin
        process.stdin.write(codec.dumps(listener.reached() | {"told": told or {}}).encode() + b"\n")
        process.stdin.flush()
        return process, listener.accept()
    except (OSError, ProbeGymError) as error:
        process.kill()
        process.wait()
        raise ProbeGymError(f"{module} did not start ({error}): see what it printed above") from error
    finally:
        listener.close()


def launch(module: str, told: Json, seconds: float = START_SECONDS, silent: bool = False) -> tuple[subprocess.Popen[bytes], Channel, Json]:
    """``spawn``, and the first message of the process, in which it says that it serves. Raises ProbeGymError with its reason when it says ``error``."""
    process, channel = spawn(module, told=told, silent=silent)
    try:
        answer, _ = channel.receive(seconds)
    except ProbeGymError:
        channel.close()
        process.kill()
        process.wait()
        raise
    if "error" in answer:
        process.wait()
        raise ProbeGymError(str(answer["error"]))
    return process, channel, answer


@dataclass
class Started:
    """A process that serves until the one who started it goes; a context manager that ends it. patience: s that it may take to end."""

    process: subprocess.Popen[bytes]
    channel: Channel
    patience: ClassVar[float] = 5.0

    def alive(self) -> bool:
        """Whether it still runs."""
        return self.process.poll() is None

    def close(self) -> None:
        """End it."""
        self.channel.close()
        ended(self.process, self.patience)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def ended(process: subprocess.Popen[bytes], seconds: float = 5.0) -> None:
    """Wait for a process that was told to end, and kill it when it does not."""
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def on_signals(handler: Callable[[int, FrameType | None], object] | signal.Handlers, *names: str) -> None:
    """What this process does at signals of these names; a name that this system does not have is passed over."""
    for name in names:
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), handler)


def called() -> tuple[Channel, Json]:
    """In a spawned process: the channel back, and what it was told. Raises ProbeGymError when it was not started by ``spawn``."""
    line = sys.stdin.buffer.readline(codec.MAXIMUM_HEADER)
    start = codec.loads(line) if line else {}
    if not isinstance(start, dict) or not {"port", "secret", "told"} <= set(start):
        raise ProbeGymError("this process is started by the bridge, not by hand")
    return connect(start["port"], start["secret"]), start["told"]
