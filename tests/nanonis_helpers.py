"""A twin behind a simulated Nanonis controller, a client of our own frames, and what a session does with them."""

from __future__ import annotations

import contextlib
import socket
import threading
import time

import numpy as np
import pytest

from probegym import scenarios
from probegym.hardware_bridge.instruments.nanonis import commands, protocol
from probegym.hardware_bridge.instruments.nanonis.controller import Controller
from probegym.hardware_bridge.instruments.nanonis.faults import WireFaults
from probegym.hardware_bridge.instruments.nanonis.protocol import HEADER
from probegym.hardware_bridge.instruments.nanonis.server import Server
from probegym.hardware_bridge.instruments.twin import build
from probegym.hardware_bridge.world import Refused

ADATOMS, STM = "probegym.hardware_bridge.twins.adatoms:AdatomTwin", "probegym.hardware_bridge.twins.stm:StmTwin"
WORLDS = {ADATOMS: ("adatom_manipulation", "steady-tip"), STM: ("tip_conditioning", "id")}
KEY = 3
IMAGING, DRAGGING = (0.5, 50e-12), (10e-3, 60e-9)  # V, A
CHANNEL = 14  # Z
PATIENCE = 20.0  # s, for what must happen at all


def table(twin=ADATOMS):
    return scenarios.load(*WORLDS[twin]).world


class Client:
    """One connection that reads and writes frames, and takes no longer than it is told."""

    def __init__(self, port, seconds=PATIENCE):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=seconds)

    def exactly(self, count):
        taken = b""
        while len(taken) < count:
            part = self.socket.recv(count - len(taken))
            if not part:
                raise ConnectionError("closed")
            taken += part
        return taken

    def __call__(self, name, **arguments):
        self.socket.sendall(commands.request(name, **arguments))
        return self.answer(name)

    def answer(self, name):
        return commands.returns(name, self.exactly(protocol.unpack_response(self.exactly(HEADER), name)))


class Bench:
    """A twin behind a controller, served on loopback in this process."""

    def __init__(self, twin=ADATOMS, pace=0.0, ports=1, plan=(), key=KEY):
        self.world, self.lines, self.on = build(twin, table(twin), key), [], True
        self.server = Server(Controller(self.world, pace), (0,) * ports, WireFaults(list(plan)), self.lines.append)
        self.thread = threading.Thread(target=self.server.run, args=(lambda: self.on,), daemon=True)
        self.thread.start()
        self.clients = []

    def connect(self, port=0, seconds=PATIENCE):
        self.clients.append(Client(self.server.ports[port], seconds))
        return self.clients[-1]

    def close(self):
        self.on = False
        self.thread.join(PATIENCE)
        for client in self.clients:
            client.socket.close()
        assert not self.thread.is_alive()

@pytest.fixture
def bench():
    with contextlib.ExitStack() as stack:

        def made(*args, **kwargs):
            one = Bench(*args, **kwargs)
            stack.callback(one.close)
            return one

        yield made


def at_work(client, point=IMAGING, safe_tip=False):
    """Tip at the surface, feedback on."""
    client("Bias.Set", bias=point[0])
    client("ZCtrl.SetpntSet", setpoint=point[1])
    client("ZCtrl.OnOffSet", on=1)
    client("SafeTip.OnOffSet", status=1 if safe_tip else 2)
    return client


def tunnel(client, point):
    """To another bias and setpoint; the one that lowers the conductance first."""
    client("ZCtrl.SetpntSet", setpoint=min(point[1], 50e-12))
    client("Bias.Set", bias=point[0])
    client("ZCtrl.SetpntSet", setpoint=point[1])


def prepared(client, centre=(0.0, 0.0), width=8e-9, pixels=128, speed=100e-9):
    client("Scan.FrameSet", x=centre[0], y=centre[1], width=width, height=width, angle=0.0)
    client("Scan.BufferSet", channels=[0, CHANNEL], pixels=pixels, lines=pixels)
    client("Scan.SpeedSet", forward=speed, backward=speed, forward_time=1.0, backward_time=1.0, keep=1, ratio=1.0)


def scanned(client, direction=commands.UP, **frame):
    """An image, (rows, columns) m."""
    prepared(client, **frame)
    client("Scan.Action", action=commands.SCAN_START, direction=direction)
    assert client("Scan.WaitEndOfScan", timeout=-1)["timed_out"] == 0
    return client("Scan.FrameDataGrab", channel=CHANNEL, direction=commands.FORWARD)["data"]


def brightest(image, width=8e-9):
    """(2,) m of the highest pixel, row 0 being the lowest."""
    row, column = np.unravel_index(image.argmax(), image.shape)
    return width * ((np.array([column, row]) + 0.5) / len(image) - 0.5)


def eventually(what):
    end = time.monotonic() + PATIENCE
    while not what():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.005)


def stood(**what):
    """A controller at which an operator has set something before."""

    class Stood(Controller):
        def __init__(self, world, pace):
            super().__init__(world, pace)
            self.safe_tip |= what.get("safe_tip", {})
            self.limits, self.limited = what.get("limits", self.limits), what.get("limited", int("limits" in what))
            self.coarse[2] = what.get("coarse", 0.0)
            for name, values in what.get("settings", {}).items():
                self.settings[name] |= values

    return Stood


def reopened(opened, told):
    """Again, once the server has noticed that the one before has gone."""
    end = time.monotonic() + PATIENCE
    while True:
        try:
            return opened(told, "again")
        except Refused:
            assert time.monotonic() < end
            time.sleep(0.05)
