"""The wire of the Nanonis driver: whatever a controller answers, a reading is the answer to its own question, in time, or there is none."""

from __future__ import annotations

import socket
import threading
import time

import pytest

from probegym.errors import ProbeGymError
from probegym.hardware_bridge.instruments import InstrumentFault
from probegym.hardware_bridge.instruments.nanonis import commands, protocol
from probegym.hardware_bridge.instruments.nanonis.client import Connection
from probegym.hardware_bridge.instruments.nanonis.protocol import HEADER, ControllerError


class Scripted:
    """Answers the n-th request on its one port with what a function of (n, name, right answer) gives: bytes to send, None to close, or seconds to wait first."""

    def __init__(self, says=lambda n, name, right: right):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port, self.says, self.asked = self.listener.getsockname()[1], says, []
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self):
        link, _ = self.listener.accept()
        with link:
            while True:
                try:
                    name, size, _ = protocol.unpack_request(self._exactly(link, HEADER))
                    self._exactly(link, size)
                except (ProbeGymError, OSError):
                    return
                n = len(self.asked)
                self.asked.append(name)
                for part in self._parts(n, name):
                    if part is None:
                        return
                    if isinstance(part, float):
                        time.sleep(part)
                    else:
                        self._send(link, part)

    def _parts(self, n, name):
        values = {"Bias.Get": {"bias": float(n)}, "Current.Get": {"current": float(n)}, "ZCtrl.StatusGet": {"status": n}}.get(name, {})  # counts, so that what is old shows
        said = self.says(n, name, commands.response(name, **values))
        return said if isinstance(said, list) else [said]

    @staticmethod
    def _send(link, part):
        try:
            link.sendall(part)
        except OSError:
            pass  # who asked has gone

    @staticmethod
    def _exactly(link, count):
        taken = b""
        while len(taken) < count:
            part = link.recv(count - len(taken))
            if not part:
                raise OSError
            taken += part
        return taken


@pytest.fixture
def scripted():
    made = []

    def make(says=lambda n, name, right: right):
        made.append(Scripted(says))
        made.append(Connection("127.0.0.1", made[-1].port))
        return made[-1]

    yield make
    for one in made:
        (one.close if isinstance(one, Connection) else one.listener.close)()


BAD = {
    "closed before": lambda right: [None],
    "header cut": lambda right: [right[:20], None],
    "body cut": lambda right: [right[:-3], None],
    "stuck in the header": lambda right: [right[:20]],
    "stuck in the body": lambda right: [right[:-3]],
    "silent": lambda right: [],
    "another name": lambda right: [commands.response("Current.Get", current=7.0)],
    "a letter wrong": lambda right: [bytes([right[0] ^ 1]) + right[1:]],
    "two gigabytes": lambda right: [right[:32] + b"\x7f\xff\xff\xff" + right[36:]],
    "less than nothing": lambda right: [right[:32] + b"\xff\xff\xff\xff" + right[36:]],
    "header not zero": lambda right: [right[:36] + b"\0\0\0\1" + right[40:]],
    "too long": lambda right: [right[:32] + (len(right) - HEADER + 4).to_bytes(4, "big") + right[36:HEADER] + bytes(4) + right[HEADER:]],
    "too short": lambda right: [right[:32] + (len(right) - HEADER - 4).to_bytes(4, "big") + right[36:HEADER] + right[HEADER + 4 :]],
}


@pytest.mark.parametrize("kind", BAD)
def test_an_answer_in_doubt_closes_the_connection_for_good(scripted, kind):
    line = scripted(lambda n, name, right: BAD[kind](right) if n == 1 else right)
    line.ask("Current.Get")
    began = time.monotonic()
    with pytest.raises(InstrumentFault, match="closed"):
        line.ask("Bias.Get", 0.3)
    assert time.monotonic() - began < 2.0 and line.closed
    with pytest.raises(InstrumentFault, match="open the instrument anew"):
        line.ask("Bias.Get", 0.3)


def test_a_late_answer_belongs_to_nobody(scripted):
    line = scripted(lambda n, name, right: [0.4, right] if n == 0 else right)
    with pytest.raises(InstrumentFault, match="not answered in time"):
        line.ask("Bias.Get", 0.15)
    time.sleep(0.5)
    with pytest.raises(InstrumentFault):
        line.ask("Current.Get", 1.0)


@pytest.mark.parametrize("delay", [0.0, 0.05])
def test_an_answer_that_comes_twice_is_never_taken_for_a_new_one(scripted, delay):
    line = scripted(lambda n, name, right: [right, delay, right] if n == 2 else right)
    seen = []
    with pytest.raises(InstrumentFault):
        for _ in range(5):
            seen.append(line.ask("Bias.Get")["bias"])
    assert seen == [0.0, 2.0]  # with a look at something else between them


def test_bytes_that_nobody_asked_for_close_the_connection(scripted):
    line = scripted(lambda n, name, right: [right, b"!"])
    line.ask("Bias.Get")
    time.sleep(0.1)
    with pytest.raises(InstrumentFault, match=r"something came before Current\.Get was asked"):
        line.ask("Current.Get")


def test_an_answer_in_pieces_is_an_answer_and_an_error_leaves_the_connection(scripted):
    def says(n, name, right):
        return [part for byte in right for part in (bytes([byte]), 1e-4)] if n == 0 else commands.refusal(name, "not now") if n == 1 else right

    line = scripted(says)
    assert line.ask("Bias.Get") == {"bias": 0.0}
    with pytest.raises(ControllerError, match="not now"):
        line.ask("Current.Get")
    assert line.ask("Bias.Get") == {"bias": 2.0}


def test_threads_take_turns_and_closing_tells_who_waits(scripted):
    line, told, ended = scripted(lambda n, name, right: [0.02, right] if n < 8 else []), [], []

    def ask(name, field):
        try:
            for _ in range(20):
                told.append((field, set(line.ask(name))))
        except InstrumentFault:
            ended.append(field)

    both = [threading.Thread(target=ask, args=each) for each in (("Bias.Get", "bias"), ("Current.Get", "current"))]
    for thread in both:
        thread.start()
    time.sleep(0.5)
    began = time.monotonic()
    line.close()
    for thread in both:
        thread.join(5.0)
    assert time.monotonic() - began < 2.0 and sorted(ended) == ["bias", "current"]
    assert told and all({field} == fields for field, fields in told)


def test_nothing_is_sent_once_it_is_halted(scripted):
    line, halted = scripted(), threading.Event()
    halted.set()
    with pytest.raises(InstrumentFault, match="safe state"):
        line.ask("Bias.Get", unless=halted)
    assert line.ask("Bias.Get") == {"bias": 0.0}  # the first that came


def test_where_nothing_listens_is_told():
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(InstrumentFault, match=f"nothing listens on port {port}"):
        Connection("127.0.0.1", port)
