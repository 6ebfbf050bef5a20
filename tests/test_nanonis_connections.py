"""Connections to a twin that is served as a Nanonis controller: one client a port, who holds it, and who is dropped."""

from __future__ import annotations

import itertools
import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from probegym import scenarios
from probegym.console import plain
from probegym.errors import ProbeGymError
from probegym.hardware_bridge.commands import LocateAdatoms
from probegym.hardware_bridge.instruments import InstrumentFault
from probegym.hardware_bridge.instruments.drivers import Meant
from probegym.hardware_bridge.instruments.nanonis import commands, driver, protocol, server
from probegym.hardware_bridge.instruments.nanonis.controller import Controller
from probegym.hardware_bridge.instruments.nanonis.protocol import ControllerError
from probegym.hardware_bridge.instruments.nanonis.server import Server
from probegym.hardware_bridge.instruments.twin import build
from probegym.terminal import serve
from tests.nanonis_helpers import ADATOMS, KEY, PATIENCE, Client, at_work, bench, eventually, prepared, table

__all__ = ["bench"]  # a fixture
MAIN = "from probegym.cli import main; main()"


def test_four_ports_take_one_client_each_on_loopback_and_say_who_holds_them(bench):
    one = bench(ports=4)
    clients = [one.connect(port) for port in range(4)]
    clients[0]("Bias.Set", bias=0.25)
    assert all(client("Bias.Get")["bias"] == 0.25 for client in clients)
    assert {listener.getsockname()[0] for listener in one.server.listeners.values()} == {"127.0.0.1"}
    late = one.connect(2)
    held, own = clients[2].socket.getsockname()[1], late.socket.getsockname()[1]
    with pytest.raises(ControllerError, match=f"port {one.server.ports[2]} is held by 127.0.0.1:{held}: a port serves one client"):
        late("Bias.Set", bias=0.5)
    with pytest.raises(ConnectionError):
        late.exactly(1)
    assert f"{one.server.ports[2]} 127.0.0.1:{own} was turned away: 127.0.0.1:{held} holds this port" in one.lines
    assert clients[2]("Bias.Get")["bias"] == 0.25
    clients[2].socket.close()
    eventually(lambda: any("is gone" in line for line in one.lines))
    eventually(lambda: one.server.ports[2] not in one.server.held)
    assert one.connect(2)("Bias.Get")["bias"] == 0.25
    with pytest.raises(ProbeGymError, match="cannot be used"):
        Server(one.server.controller, (one.server.ports[0],))
    with pytest.raises(ProbeGymError, match="1 to 4 ports"):
        Server(one.server.controller, (0,) * 5)


def test_where_a_port_is_taken_others_serve_if_they_may(bench, monkeypatch):
    taken = bench().server.ports[0]
    free = Server(Controller(build(ADATOMS, table(), KEY), 0.0), (0,) * 3)
    wanted = (*free.ports, taken)
    free.run(lambda: False)
    monkeypatch.setattr(protocol, "PORTS", wanted)
    with server.started(Meant(ADATOMS, table())) as process:
        assert len(process.ports) == 4 and taken not in process.ports
        client = Client(process.ports[0])
        assert client("Bias.Get")["bias"] == 1.0
        client.socket.close()


@pytest.mark.parametrize(
    "raw",
    [b"GET / HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\n\r\n", commands.request("Bias.Get")[:32] + bytes.fromhex("7fffffff 0001 0000"),
     commands.request("Bias.Set", bias=1.0)[:35] + b"\x08" + commands.request("Bias.Set", bias=1.0)[36:] + bytes(4)],
)  # fmt: skip
def test_what_is_no_request_closes_its_connection_and_no_other(bench, raw):
    one = bench(ports=2)
    client, other = one.connect(), one.connect(1)
    client.socket.sendall(raw)
    with pytest.raises(ConnectionError):
        client.exactly(1)
    assert other("Bias.Get")["bias"] == 1.0
    eventually(lambda: one.server.ports[0] not in one.server.held)
    assert one.connect()("Bias.Get")["bias"] == 1.0


def test_a_request_may_ask_for_no_answer_and_come_in_pieces(bench):
    client = bench().connect()
    raw = commands.request("Bias.Set", reply=False, bias=0.25) + commands.request("Bias.Get")
    for at in range(len(raw)):
        client.socket.sendall(raw[at : at + 1])
    assert client.answer("Bias.Get")["bias"] == 0.25


@pytest.mark.parametrize("more", [b"", commands.request("Bias.Get")[:30]])
def test_who_leaves_while_it_waits_frees_its_port_at_once_and_what_it_began_goes_on(bench, more):
    one = bench(pace=1.0, ports=2)
    client, other = at_work(one.connect()), one.connect(1)
    eventually(lambda: other("Current.Get")["current"] > 40e-12)
    prepared(client, speed=1e-9)  # more than half an hour
    client("Scan.Action", action=0, direction=1)
    client.socket.sendall(commands.request("Scan.WaitEndOfScan", timeout=-1) + more)
    eventually(lambda: other("Scan.StatusGet")["running"])
    client.socket.close()
    eventually(lambda: one.server.ports[0] not in one.server.held)
    assert one.connect()("Scan.StatusGet")["running"] == 1


def test_what_is_sent_while_another_command_waits_is_answered_after_it(bench):
    one = bench(pace=1.0, ports=2)
    client, other = one.connect(), one.connect(1)
    client.socket.sendall(commands.request("FolMe.XYPosSet", x=30e-9, y=0.0, wait=1))  # 0.3 s
    eventually(lambda: other("FolMe.XYPosGet", wait=1)["x"] > 0)
    client.socket.sendall(commands.request("FolMe.XYPosGet", wait=1))
    assert client.answer("FolMe.XYPosSet") == {} and client.answer("FolMe.XYPosGet")["x"] == 30e-9


def test_a_request_that_trickles_in_is_dropped_by_a_deadline_for_all_of_it(bench, monkeypatch):
    monkeypatch.setattr(server, "FRAME_SECONDS", 0.4)
    one = bench(ports=2)
    client = one.connect()
    time.sleep(0.5)  # who says nothing stays
    client("Bias.Get")
    with pytest.raises(OSError):
        for byte in commands.request("Bias.Set", bias=0.5):
            client.socket.sendall(bytes([byte]))  # each in time, all of them in 4.4 s
            time.sleep(0.1)
    eventually(lambda: one.server.ports[0] not in one.server.held)
    assert any("came too slowly" in line for line in one.lines) and one.connect(1)("Bias.Get")["bias"] == 1.0


def test_who_reads_no_answers_is_dropped(bench, monkeypatch):
    monkeypatch.setattr(server, "FRAME_SECONDS", 0.4)
    one = bench(ports=2)
    client = one.connect()
    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.socket.sendall(4000 * commands.request("Signals.NamesGet"))  # whole ones; 10 MB come back
    eventually(lambda: any("it takes no answer" in line for line in one.lines))
    eventually(lambda: one.server.ports[0] not in one.server.held)
    assert one.connect()("Bias.Get")["bias"] == 1.0


def test_a_server_that_ends_refuses_what_keeps_the_tip_down_until_it_is_away(bench):
    one = bench(pace=1.0, ports=2)
    client, other = at_work(one.connect()), one.connect(1)
    eventually(lambda: client("Current.Get")["current"] > 40e-12)
    prepared(client)
    client("Scan.Action", action=0, direction=1)
    one.server.controller.leave()
    for name, arguments in (
        ("Scan.WaitEndOfScan", {"timeout": -1}), ("Scan.Action", {"action": 0, "direction": 1}), ("FolMe.XYPosSet", {"x": 0.0, "y": 0.0, "wait": 0}),
        ("Bias.Pulse", {"wait": 1, "width": 0.1, "bias": 1.0, "hold": 1, "mode": 2}), ("TipShaper.Start", {"wait": 1, "timeout": -1}),
        ("Motor.StartMove", {"direction": 4, "steps": 1, "group": 0, "wait": 0}),
    ):  # fmt: skip
        if name == "Motor.StartMove":
            other("ZCtrl.WithdrawRateSet", rate=1e-5)
            other("ZCtrl.Withdraw", wait=1, timeout=-1)
        with pytest.raises(ControllerError, match="shutting down"):
            client(name, **arguments)
    for name, arguments in (("ZCtrl.OnOffSet", {"on": 1}), ("ZCtrl.ZPosSet", {"z": 1e-9}), ("ZCtrl.Home", {})):
        with pytest.raises(ControllerError, match="shutting down"):
            client(name, **arguments)
    other("Bias.Set", bias=0.0)
    assert other("ZCtrl.StatusGet")["status"] == commands.Z_OFF and other("ZCtrl.ZPosGet")["z"] == pytest.approx(200e-9)
    with pytest.raises(ControllerError, match="shutting down"):
        client("AutoApproach.OnOffSet", on=1)


def test_a_driver_on_a_server_that_ends_reaches_the_safe_state():
    world = scenarios.load("adatom_manipulation", "steady-tip").world
    with server.start(ADATOMS, world, pace=1.0, ports=(0, 0, 0)) as process:
        stm, ended = driver.writer(process.reached, "a test"), []
        stm.safe(PATIENCE)
        stm.ready(PATIENCE)
        look = LocateAdatoms((64, 64), 7e-9, 10e-9, np.zeros((1, 2)), 0.5, 50e-12, 1, True)  # 90 s

        def work():
            try:
                stm.execute(look, 200.0)
            except InstrumentFault as error:
                ended.append(str(error))

        working = threading.Thread(target=work)
        working.start()
        eventually(lambda: any("Scan.WaitEndOfScan" in line for line in process.report()))
        process.channel.close()  # as Ctrl-C does
        working.join(PATIENCE)
        assert len(ended) == 1 and "shutting down" in ended[0]
        stm.safe(PATIENCE)
        assert stm.is_safe()
        stm.close()
        process.process.wait(PATIENCE)


# ---- probegym serve ----


@pytest.mark.parametrize(
    ("twin", "protocol", "scenario", "why"),
    [
        ("afm", "nanonis", "id", "the afm twin does not speak nanonis, only bridge: nanonis is spoken by --twin adatoms or tip"),
        ("tip", "nion", "id", "the tip twin does not speak nion, only bridge, nanonis: nion is spoken by --twin stem"),
        ("tip", "nanonis", "steady-tip", "unknown scenario 'steady-tip'"),
    ],
)
def test_what_cannot_be_served_is_told_before_anything_starts(tmp_path, twin, protocol, scenario, why):
    with pytest.raises(ProbeGymError, match=why):
        serve.serve(serve.Twin(twin), serve.Protocol(protocol), scenario, 0.0, tmp_path / "stm.json", plain())
    assert not any(tmp_path.iterdir())


def test_a_twin_that_there_is_not_is_told_in_one_line(tmp_path):
    arguments = ("serve", "--twin", "sem", "--protocol", "nanonis", "--out", str(tmp_path / "stm.json"))
    done = subprocess.run([sys.executable, "-c", MAIN, *arguments], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2 and not done.stdout and len(done.stderr.splitlines()) == 1 and "'sem' is not one of 'stem', 'adatoms', 'tip', 'afm'" in done.stderr


def test_serving_tells_its_ports_and_ctrl_c_ends_it(tmp_path):
    arguments, files = ("serve", "--twin", "tip", "--protocol", "nanonis", "--pace", "0", "--out"), [tmp_path / name for name in ("one.json", "two.json")]
    running = []
    try:
        for file in files:
            running.append(subprocess.Popen([sys.executable, "-c", MAIN, *arguments, str(file)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)))  # which jobs in the background ignore  # fmt: skip
            lines = list(itertools.takewhile(lambda line: not line.startswith("Ctrl-C ends it"), iter(running[-1].stdout.readline, "")))
            assert len(lines) == 3, lines
            ports = [int(port) for port in re.findall(r"\d+", re.sub(r"\(.*\)", "", lines[1]))]
            assert "scenario id of probegym/TipConditioning-v0" in lines[0] and len(ports) == 4 and "one client each" in lines[1]
            assert json.loads(file.read_text())["ports"] == ports[:3]
            assert "dip" in json.loads(file.read_text())["settings"] and Client(ports[3])("Bias.Get")["bias"] == 1.0
        assert "6501 to 6504 are not all free" in lines[1]  # the first has them, or somebody else
        for one in running:
            one.send_signal(signal.SIGINT)
        for one in running:
            told, wrong = one.communicate(timeout=60)
            assert one.returncode == 0 and told.splitlines() == ["ending, as soon as those who keep the instrument safe have left it"] and not wrong
        assert not any(file.exists() for file in files)
    finally:
        for one in running:
            one.kill()
            one.wait()
