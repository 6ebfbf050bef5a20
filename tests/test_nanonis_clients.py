"""A twin that is served as a Nanonis controller: faults on the wire, its process, and the clients that others wrote."""

from __future__ import annotations

import contextlib
import importlib
import re
import socket
import struct

import numpy as np
import pytest

from probegym import scenarios
from probegym.errors import ProbeGymError
from probegym.hardware_bridge.codec import Malformed
from probegym.hardware_bridge.commands import AcquireTopograph, DipTip, PulseBias
from probegym.hardware_bridge.instruments import wire
from probegym.hardware_bridge.instruments.drivers import Meant
from probegym.hardware_bridge.instruments.nanonis import commands, driver, faults, server
from probegym.hardware_bridge.instruments.nanonis.faults import WireFaults
from probegym.hardware_bridge.instruments.nanonis.protocol import ControllerError
from probegym.hardware_bridge.instruments.nanonis.sample import Sample
from probegym.hardware_bridge.instruments.nanonis.twin import settings_of
from probegym.hardware_bridge.instruments.twin import ON, build
from tests.helpers import ROOT
from tests.nanonis_helpers import (
    ADATOMS,
    CHANNEL,
    IMAGING,
    KEY,
    PATIENCE,
    STM,
    WORLDS,
    Client,
    at_work,
    bench,
    brightest,
    eventually,
    prepared,
    scanned,
    table,
)
from tests.nanonis_room import rooms

__all__ = ["bench"]  # a fixture

# ---- faults ----


@pytest.mark.parametrize("kind", faults.KINDS)
def test_every_fault_of_the_wire_is_what_it_says(bench, kind):
    one = bench(plan=[{"kind": kind, "at": 1, "what": "Bias.Set"}])
    client = one.connect(seconds=0.5)
    client("Bias.Set", bias=0.5)
    seen = {
        "late": TimeoutError, "silent": TimeoutError, "refused": ControllerError, "unknown error": ControllerError, "other": Malformed, "garbage": Malformed,
        "garbled": Malformed, "long": Malformed, "short": Malformed,
    }.get(kind, ConnectionError)  # fmt: skip
    if kind in ("double", "trickle"):
        client.socket.settimeout(PATIENCE)
        client("Bias.Set", bias=0.75)
    else:
        with pytest.raises(seen):
            client("Bias.Set", bias=0.75)
    if kind == "double":
        assert client.answer("Bias.Set") == {}  # what the next command would take for its own
    with one.server.controller.changed:
        assert one.server.controller.bias == (0.5 if kind in ("drop before", "refused") else 0.75)


def test_a_plan_of_faults_is_checked():
    for fault in ({"kind": "odd"}, {"kind": "late", "what": "Bias.Sett"}, {"kind": "late", "when": 1}, "late"):
        with pytest.raises(ProbeGymError, match="no such fault"):
            WireFaults([fault])


# ---- in a process of its own ----


def test_the_process_serves_tells_the_truth_and_begins_anew():
    with server.start(ADATOMS, table(), KEY, ports=(0, 0)) as process:
        client = at_work(Client(process.ports[0]))
        atom = process.truth()["position"][0, 0]
        np.testing.assert_allclose(brightest(scanned(client)), atom, atol=0.1e-9)
        assert any("Scan.FrameDataGrab(channel=14, direction=1) -> name=Z (m), data=128 x 128 numbers" in line for line in process.report())
        process.begin(KEY + 1)  # another sample under the same tip
        assert client("ZCtrl.StatusGet")["status"] == commands.Z_ON and client("Bias.Get")["bias"] == 0.5
        alone = build(ADATOMS, table(), KEY + 1)
        np.testing.assert_array_equal(process.truth()["position"], alone.truth()["position"])
        np.testing.assert_allclose(brightest(scanned(client)), alone.truth()["position"][0, 0], atol=0.1e-9)
        with pytest.raises(ProbeGymError):
            process.begin(-1)
        process.channel.close()  # whoever started it has died: who is connected can still make the tip safe
        client("ZCtrl.Withdraw", wait=1, timeout=-1)
        client.socket.close()
    with pytest.raises(ConnectionError):
        Client(process.ports[0])("Bias.Get")
    assert process.process.returncode == 0
    with pytest.raises(ProbeGymError, match="needs an STM"):
        server.start("probegym.hardware_bridge.twins.afm:AfmTwin", scenarios.load("afm_tuning", "id").world)


# ---- clients that others wrote ----


@pytest.fixture
def vendors(bench):
    """The vendor's own client, connected to an adatom twin."""
    vendor = pytest.importorskip("nanonis_spm")
    one = bench(ports=2)
    link = socket.create_connection(("127.0.0.1", one.server.ports[0]), timeout=PATIENCE)
    yield one, vendor.Nanonis(link)
    link.close()


def fine(answer):
    assert answer[0] == "", answer[0]
    return answer[2]


def test_the_vendors_client_has_a_session(vendors):
    one, nanonis = vendors
    fine(nanonis.Bias_Set(0.5))
    fine(nanonis.ZCtrl_SetpntSet(50e-12))
    fine(nanonis.SafeTip_PropsSet(0, 1, 1e-6))
    fine(nanonis.SafeTip_OnOffSet(1))
    fine(nanonis.ZCtrl_OnOffSet(1))
    assert fine(nanonis.ZCtrl_StatusGet()) == [commands.Z_ON] and fine(nanonis.SafeTip_OnOffGet()) == [1]
    assert fine(nanonis.Current_Get())[0] == pytest.approx(50e-12, abs=2e-12)
    fine(nanonis.FolMe_XYPosSet(20e-9, 20e-9, 1))
    fine(nanonis.Bias_Pulse(1, 0.1, 3.0, 1, 2))

    def image():
        fine(nanonis.Scan_FrameSet(0, 0, 8e-9, 8e-9, 0))
        fine(nanonis.Scan_BufferSet([0, 14], 128, 128))
        fine(nanonis.Scan_SpeedSet(100e-9, 100e-9, 1, 1, 1, 1))
        fine(nanonis.Scan_Action(0, 1))
        assert fine(nanonis.Scan_WaitEndOfScan(60000))[0] == 0
        _, name, rows, columns, data, direction = fine(nanonis.Scan_FrameDataGrab(14, 1))
        assert (name, rows, columns, direction) == ("Z (m)", 128, 128, 1)
        return data

    place = brightest(image())
    np.testing.assert_allclose(place, one.world.truth()["position"][0, 0], atol=0.1e-9)
    fine(nanonis.FolMe_SpeedSet(100e-9, 1))
    fine(nanonis.FolMe_XYPosSet(*map(float, place), 1))
    fine(nanonis.Bias_Set(10e-3))
    fine(nanonis.ZCtrl_SetpntSet(60e-9))
    fine(nanonis.FolMe_SpeedSet(5e-9, 1))
    fine(nanonis.FolMe_XYPosSet(float(place[0]) + 2e-9, float(place[1]), 1))
    fine(nanonis.ZCtrl_SetpntSet(50e-12))
    fine(nanonis.Bias_Set(0.5))
    moved = brightest(image())
    np.testing.assert_allclose(moved, place + [2e-9, 0], atol=0.3e-9)
    np.testing.assert_allclose(moved, one.world.truth()["position"][0, 0], atol=0.1e-9)
    fine(nanonis.ZCtrl_Withdraw(1, -1))
    assert fine(nanonis.ZCtrl_StatusGet()) == [commands.Z_OFF] and abs(fine(nanonis.Current_Get())[0]) < 2e-12


ASKED = {
    "Bias.Set": (0.25,), "Bias.Pulse": (1, 0.1, 3.0, 1, 2), "ZCtrl.ZPosSet": (50e-9,), "ZCtrl.SetpntSet": (1e-10,), "ZCtrl.GainSet": (1e-12, 1e-4, 1e-8),
    "ZCtrl.HomePropsSet": (1, 1e-7), "ZCtrl.WithdrawRateSet": (1e-7,), "ZCtrl.LimitsSet": (1e-7, -1e-7), "SafeTip.PropsSet": (0, 1, 1e-9), "Motor.StartMove": (4, 10, 0, 1),
    "Motor.FreqAmpSet": (1000, 100, 0), "FolMe.XYPosSet": (1e-9, 2e-9, 1), "FolMe.SpeedSet": (1e-8, 1), "TipRec.BufferSizeSet": (100,), "Scan.Action": (1, 0),
    "Scan.FrameSet": (0, 0, 1e-9, 1e-9, 0), "Scan.BufferSet": ([0, 14], 32, 32), "Scan.SpeedSet": (1e-8, 1e-8, 1, 1, 1, 1), "Scan.FrameDataGrab": (14, 1),
    "TipShaper.PropsSet": (0.1, 1, 0.1, -1e-9, 0.1, 0.1, 0.1, 5e-9, 0.1, 0.1, 1), "Signals.ValsGet": ([0, 14], 1), "Scan.WaitEndOfScan": (100,),
}  # fmt: skip


@pytest.mark.parametrize("name", [name for name in commands.COMMANDS if name != "Util.VersionGet"])
def test_the_vendors_client_understands_every_answer(vendors, name):
    one, nanonis = vendors
    if name in ("Scan.FrameDataGrab", "TipShaper.Start"):
        scanned(at_work(one.connect(1)))
    told = fine(getattr(nanonis, name.replace(".", "_"))(*ASKED.get(name, (0,) * len(commands.COMMANDS[name].takes))))
    assert len(told) == sum({"str": 2, "str[]": 3, "i[]": 2, "f[]": 2, "f[][]": 3}.get(field.kind, 1) for field in commands.COMMANDS[name].gives)
    assert any(f" {name}(" in line and "refused" not in line for line in one.lines)


def test_the_vendors_client_sees_refusals(vendors):
    _, nanonis = vendors
    for refused, why in (
        (nanonis.Bias_Set(20.0), "Bias value out of range"), (nanonis.Scan_FrameDataGrab(14, 1), "nothing was scanned yet"), (nanonis.Scan_Action(0, 1), "switch the Z-Controller on"),
        (nanonis.BiasSpectr_Open(), "Invalid command"), (nanonis.Signals_ValsGet([200], 1), "0 to 127"),
    ):  # fmt: skip
        assert why in refused[0]
    assert fine(nanonis.Bias_Get()) == [1.0]


def test_the_vendors_client_cannot_read_the_version(vendors):
    one, nanonis = vendors
    with pytest.raises(struct.error):  # it has a type of its own where the document has two texts
        nanonis.Util_VersionGet()
    assert one.connect(1)("Util.VersionGet")["product"] == "ProbeGym twin"


def test_what_the_vendors_client_cannot_do_stands_on_the_page(monkeypatch):
    vendor = pytest.importorskip("nanonis_spm")
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    wire_benchmark = importlib.import_module("nanonis_wire")
    page = (ROOT / "docs" / "connect.md").read_text(encoding="utf-8").partition("### The vendor's client")[2].partition("\n## ")[0]
    rows = dict(re.findall(r"^\| `(\w+)` \| (.+) \|$", page, re.M))
    methods, wrong = wire_benchmark.failures(vendor)
    others = {name: f"`{command}`" for name, command in wire_benchmark.misnamed(vendor)}
    assert f"Of {methods} methods" in page and set(rows) == {name for name, _ in wrong} | set(others)
    assert {name: rows[name] for name in others} == others


def test_a_second_client_reads_the_same(bench):
    pytest.importorskip("nanonisTCP")
    from nanonisTCP import nanonisTCP
    from nanonisTCP.Bias import Bias
    from nanonisTCP.FolMe import FolMe
    from nanonisTCP.Scan import Scan
    from nanonisTCP.ZController import ZController

    one = bench(ports=2)
    link = nanonisTCP("127.0.0.1", one.server.ports[0], max_buf_size=4096, version=13520)
    client, bias, z, tip, scan = one.connect(1), Bias(link), ZController(link), FolMe(link), Scan(link)
    bias.Set(0.5)
    z.SetpntSet(50e-12)
    z.OnOffSet(True)
    assert client("Bias.Get")["bias"] == 0.5 == bias.Get() and z.SetpntGet() == pytest.approx(50e-12) and z.OnOffGet()
    tip.XYPosSet(3e-9, -2e-9, Wait_end_of_move=True)
    assert tip.XYPosGet(Wait_for_newest_data=True) == pytest.approx((3e-9, -2e-9)) and client("FolMe.XYPosGet", wait=1) == {"x": 3e-9, "y": -2e-9}
    prepared(client, pixels=32)
    scan.Start("up")
    np.testing.assert_array_equal(scan.FrameDataGrab(CHANNEL, 1)[1], client("Scan.FrameDataGrab", channel=CHANNEL, direction=1)["data"])
    z.Withdraw(wait_until_finished=True)
    assert client("ZCtrl.StatusGet")["status"] == commands.Z_OFF
    link.close_connection()


# ---- for a deployment ----


def test_another_episode_ends_what_moves(bench):
    one = bench(pace=1.0)
    client = at_work(one.connect())
    eventually(lambda: client("Current.Get")["current"] > 40e-12)
    prepared(client)
    client("Scan.Action", action=0, direction=1)
    one.server.controller.begin(KEY + 1)
    assert client("Scan.StatusGet")["running"] == 0 and client("ZCtrl.StatusGet")["status"] == commands.Z_ON
    np.testing.assert_array_equal(one.server.controller.truth()["position"], build(ADATOMS, table(), KEY + 1).truth()["position"])


def test_what_tip_conditioning_asks_for_arrives_as_in_process():
    """Every treatment of its list, at the edge of its square, and an image after each: the twin behind the wire is in the state of one without, bit by bit."""
    told, how = scenarios.load("tip_conditioning", "id"), scenarios.load("tip_conditioning", "id").task["image"]
    alone, edge, rest = build(STM, told.world, KEY), np.array([[112.5e-9, -112.5e-9]]), settings_of(Sample(build(STM, told.world, KEY)), 0.0)["reach"]
    assert rest >= np.abs(edge).max() + how["field_of_view"]
    asked = [PulseBias(edge, np.array([sign * bias]), 0.2) for bias in told.task["pulses"]["bias"] for sign in (1.0, -1.0)]
    asked += [DipTip(edge + 2e-9, np.array([depth]), 0.02, 0.2) for depth in told.task["dips"]["depth"]]
    look = AcquireTopograph((how["pixels"],) * 2, how["field_of_view"], how["speed"], edge, how["bias"], how["current"])
    with contextlib.contextmanager(rooms)() as room:
        r = room(STM, "id")
        for treatment in asked:
            alone.execute(treatment, ON)
            r.stm.execute(treatment, PATIENCE)
            height, got = alone.execute(look, ON).values["height"][0], r.stm.execute(look, PATIENCE).values["height"][0]
            np.testing.assert_allclose(got - np.median(got), height - np.median(height), rtol=0, atol=1e-15)
            kept, wanted = r.world.snapshot(0).arrays, alone.snapshot(0).arrays
            assert all(np.array_equal(kept[name], wanted[name]) for name in wanted), treatment


@pytest.mark.parametrize("twin", WORLDS)
def test_what_the_driver_is_told_fits_the_twin(twin):
    judged = twin == ADATOMS
    with server.started(Meant(twin, table(twin), judged=judged)) as process:
        assert process.alive() and process.reached["driver"] == "nanonis" and len(process.reached["ports"]) == 3 and len(process.ports) == 4
        instrument = driver.writer(process.reached, "a test")
        assert {"AcquireTopograph", "PulseBias", "DipTip"} | ({"LocateAdatoms", "DragTip"} if twin == ADATOMS else set()) <= set(instrument.descriptor.capabilities)
        instrument.safe(PATIENCE)
        instrument.ready(PATIENCE)
        look = AcquireTopograph((64, 64), 8e-9, 100e-9, np.zeros((1, 2)), *IMAGING)
        height = instrument.execute(look, PATIENCE).values["height"][0]
        assert np.isfinite(height).all() and np.ptp(height) > 50e-12
        assert judged == ("secrets" in process.reached)
        if judged:
            link = wire.Link(process.reached, "judge", "a test")
            link.ask("begin", PATIENCE, key=KEY)
            assert link.ask("truth", PATIENCE)[1].keys() == build(twin, table(twin), KEY).truth().keys()
            link.close()
            with pytest.raises(ProbeGymError, match="no port and secret of a writer"):
                wire.Link(process.reached, "writer", "a test")
        instrument.safe(PATIENCE)
        instrument.close()
    assert not process.alive()
