"""A twin as a Nanonis controller: what it does to the sample, when it says no, and how it waits."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from probegym import scenarios
from probegym.errors import ProbeGymError
from probegym.hardware_bridge.commands import AcquireTopograph, DipTip, DragTip, LocateAdatoms, PulseBias
from probegym.hardware_bridge.instruments.nanonis import commands, protocol
from probegym.hardware_bridge.instruments.nanonis.controller import Controller
from probegym.hardware_bridge.instruments.nanonis.protocol import HEADER, ControllerError
from probegym.hardware_bridge.instruments.nanonis.sample import DECAY
from probegym.hardware_bridge.instruments.twin import ON, build
from tests.nanonis_helpers import (
    ADATOMS,
    CHANNEL,
    DRAGGING,
    IMAGING,
    KEY,
    PATIENCE,
    STM,
    WORLDS,
    at_work,
    bench,
    brightest,
    eventually,
    prepared,
    scanned,
    table,
    tunnel,
)

__all__ = ["bench"]  # a fixture

# ---- images ----


@pytest.mark.parametrize("twin", WORLDS)
def test_an_image_is_the_twins_own(bench, twin):
    client, alone = at_work(bench(twin).connect()), build(twin, table(twin), KEY)
    asked = ((64, 64), 8e-9, 100e-9, np.array([[1e-9, -1e-9]]), *IMAGING)
    image = alone.execute(AcquireTopograph(*asked) if twin == STM else LocateAdatoms(*asked, 1, True), ON).values["height"][0]
    got = scanned(client, centre=(1e-9, -1e-9), pixels=64)
    # heights come above the place where the setpoint holds the tip, and centre and bias went through four bytes
    np.testing.assert_allclose(got - client("ZCtrl.ZPosGet")["z"], image, rtol=0, atol=1e-14)
    assert np.ptp(image) > 50e-12


def test_rows_come_in_the_order_of_the_scan(bench):
    one = bench()
    client = at_work(one.connect())
    atom = one.world.truth()["position"][0, 0]
    assert abs(atom[1]) > 0.5e-9
    up = scanned(client)
    down = scanned(client, commands.DOWN)
    np.testing.assert_allclose(brightest(up), atom, atol=0.1e-9)
    np.testing.assert_allclose(brightest(down[::-1]), atom, atol=0.1e-9)
    assert client("Scan.FrameDataGrab", channel=CHANNEL, direction=1)["direction"] == commands.DOWN
    assert abs(np.nanmean(client("Scan.FrameDataGrab", channel=0, direction=1)["data"]) - IMAGING[1]) < 1e-13


def test_pixels_are_taken_to_sixteens_and_read_back(bench):
    client = bench().connect()
    client("Scan.BufferSet", channels=[14, 0, 14], pixels=100, lines=90)
    told = client("Scan.BufferGet")
    assert (list(told["channels"]), told["pixels"], told["lines"]) == ([0, 14], 96, 90)


def test_an_image_that_is_stopped_ends_there(bench):
    client = at_work(bench(pace=2.0).connect())
    eventually(lambda: client("Current.Get")["current"] > 40e-12)
    prepared(client, pixels=64)  # 10 s, 5 s here
    client("Scan.Action", action=0, direction=1)
    assert client("Scan.StatusGet")["running"] == 1 and client("Scan.WaitEndOfScan", timeout=50)["timed_out"] == 1
    eventually(lambda: np.isfinite(client("Scan.FrameDataGrab", channel=CHANNEL, direction=1)["data"][3, 0]))
    client("Scan.Action", action=commands.SCAN_PAUSE, direction=0)
    first = client("Scan.FrameDataGrab", channel=CHANNEL, direction=1)["data"]
    time.sleep(0.2)
    np.testing.assert_array_equal(client("Scan.FrameDataGrab", channel=CHANNEL, direction=1)["data"], first)
    client("Bias.Set", bias=0.25)  # the rest is scanned under the new bias, nearer to the surface
    client("Scan.Action", action=commands.SCAN_RESUME, direction=0)
    done = int(np.isfinite(first[:, 0]).sum())
    eventually(lambda: np.isfinite(client("Scan.FrameDataGrab", channel=CHANNEL, direction=1)["data"][done + 3, 0]))
    client("Scan.Action", action=commands.SCAN_STOP, direction=0)
    image = client("Scan.FrameDataGrab", channel=CHANNEL, direction=1)["data"]
    assert np.isnan(image[-1]).all() and client("Scan.StatusGet")["running"] == 0 and client("Scan.WaitEndOfScan", timeout=-1)["timed_out"] == 0
    np.testing.assert_array_equal(image[: done - 1], first[: done - 1])
    closer = np.median(image[: done - 1]) - np.median(image[done + 1 : done + 3])
    assert closer == pytest.approx(np.log(2) / DECAY, abs=10e-12)


# ---- moves ----


def test_a_tip_that_is_near_takes_the_atom_along_and_one_that_images_does_not(bench):
    one, alone = bench(), build(ADATOMS, table(), KEY)
    client, goal = at_work(one.connect()), np.array([2e-9, -0.5e-9])
    place = brightest(scanned(client))
    before = one.world.truth()["position"][0, 0]
    client("FolMe.XYPosSet", x=place[0], y=place[1], wait=1)
    client("FolMe.XYPosSet", x=goal[0], y=goal[1], wait=1)
    np.testing.assert_array_equal(one.world.truth()["position"][0, 0], before)
    client("FolMe.XYPosSet", x=place[0], y=place[1], wait=1)
    tunnel(client, DRAGGING)
    client("FolMe.SpeedSet", speed=5e-9, custom=1)
    client("TipRec.BufferSizeSet", size=512)
    client("FolMe.XYPosSet", x=goal[0], y=goal[1], wait=1)
    told = client("TipRec.DataGet")
    tunnel(client, IMAGING)
    after = one.world.truth()["position"][0, 0]
    assert np.hypot(*(after - goal)) < 0.3e-9
    np.testing.assert_allclose(brightest(scanned(client)), after, atol=0.1e-9)
    # and it is the twin's own drag, sample by sample
    alone.execute(LocateAdatoms((128, 128), 8e-9, 100e-9, np.zeros((1, 2)), *IMAGING, 1, True), ON)
    held = [np.array([float(np.float32(number))]) for number in DRAGGING]
    trace = alone.execute(DragTip(place[None], goal[None], *held, float(np.float32(5e-9)), 512), ON).values["trace"][0]
    np.testing.assert_allclose(told["data"][0], trace, rtol=1e-4)
    assert list(told["channels"]) == [0, 12, 13, 14] and told["data"].shape == (4, 512)
    np.testing.assert_allclose(told["data"][1:3, [0, -1]].T, [place, goal], atol=1e-15)


def test_a_drag_that_is_stopped_leaves_the_atom_on_the_way(bench):
    one = bench(pace=1.0)
    client, other = at_work(one.connect()), one.world.truth()["position"][0, 0]
    eventually(lambda: client("Current.Get")["current"] > 40e-12)
    client("FolMe.SpeedSet", speed=1e-6, custom=1)
    client("FolMe.XYPosSet", x=other[0], y=other[1], wait=1)
    tunnel(client, DRAGGING)
    client("FolMe.SpeedSet", speed=2e-9, custom=1)
    client("FolMe.XYPosSet", x=other[0] + 4e-9, y=other[1], wait=0)
    eventually(lambda: client("FolMe.XYPosGet", wait=1)["x"] > other[0] + 1e-9)
    client("FolMe.Stop")
    stopped = client("FolMe.XYPosGet", wait=1)["x"]
    assert stopped < other[0] + 3e-9, "it went on"
    assert abs(one.world.truth()["position"][0, 0, 0] - stopped) < 0.4e-9
    time.sleep(0.1)
    assert client("FolMe.XYPosGet", wait=1)["x"] == stopped


def test_a_move_takes_its_time_and_wait_waits_for_it(bench):
    client = at_work(bench(pace=1.0).connect())
    client("FolMe.SpeedSet", speed=50e-9, custom=1)
    begun = time.monotonic()
    client("FolMe.XYPosSet", x=15e-9, y=0.0, wait=1)
    assert time.monotonic() - begun >= 0.3 and client("FolMe.XYPosGet", wait=1) == {"x": 15e-9, "y": 0.0}
    client("FolMe.XYPosSet", x=-35e-9, y=0.0, wait=0)
    assert client("FolMe.XYPosGet", wait=1)["x"] > -35e-9
    eventually(lambda: client("FolMe.XYPosGet", wait=1)["x"] == -35e-9)


# ---- the height of the tip ----


def test_current_follows_bias_and_height(bench):
    client = at_work(bench().connect())
    z = client("ZCtrl.ZPosGet")["z"]
    client("ZCtrl.OnOffSet", on=0)
    assert client("ZCtrl.ZPosGet")["z"] == z and client("Current.Get")["current"] == pytest.approx(50e-12, abs=2e-12)
    client("ZCtrl.ZPosSet", z=z - 0.1e-9)
    assert client("Current.Get")["current"] == pytest.approx(50e-12 * np.exp(DECAY * 0.1e-9), rel=0.02)
    client("Bias.Set", bias=-1.0)
    assert client("Current.Get")["current"] == pytest.approx(-100e-12 * np.exp(DECAY * 0.1e-9), rel=0.02)
    client("ZCtrl.OnOffSet", on=1)
    assert client("ZCtrl.ZPosGet")["z"] == pytest.approx(z + np.log(2) / DECAY, abs=1e-14)


def test_withdrawing_from_another_connection_ends_everything(bench):
    one = bench(pace=1.0, ports=2)
    client, other = at_work(one.connect()), one.connect(1)
    eventually(lambda: client("Current.Get")["current"] > 40e-12)
    prepared(client)  # 20 s
    client("Scan.Action", action=0, direction=1)
    ended = []
    waiting = threading.Thread(target=lambda: ended.append(client("Scan.WaitEndOfScan", timeout=-1)["timed_out"]))
    waiting.start()
    assert other("Bias.Get")["bias"] == 0.5
    other("ZCtrl.WithdrawRateSet", rate=1e-6)
    other("ZCtrl.Withdraw", wait=0, timeout=-1)
    assert other("ZCtrl.StatusGet")["status"] == commands.Z_WITHDRAWING
    waiting.join(PATIENCE)
    assert ended == [0]
    other("ZCtrl.Withdraw", wait=1, timeout=-1)
    assert other("ZCtrl.StatusGet")["status"] == commands.Z_OFF and other("ZCtrl.ZPosGet")["z"] == pytest.approx(200e-9)
    assert abs(other("Current.Get")["current"]) < 2e-12


def test_safe_tip_withdraws_on_too_much_current(bench):
    one = bench()
    client = at_work(one.connect(), safe_tip=True)
    client("SafeTip.PropsSet", recover=0, pause=0, threshold=1e-9)
    z = client("ZCtrl.ZPosGet")["z"]
    client("ZCtrl.OnOffSet", on=0)
    client("ZCtrl.ZPosSet", z=z - 0.2e-9)
    assert client("ZCtrl.StatusGet")["status"] == commands.Z_SAFE_TIP and abs(client("SafeTip.SignalGet")["signal"]) < 2e-12
    assert client("ZCtrl.ZPosGet")["z"] == pytest.approx(200e-9) and client("ZCtrl.OnOffGet")["on"] == 0
    client("ZCtrl.OnOffSet", on=1)
    assert client("ZCtrl.StatusGet")["status"] == commands.Z_ON
    client("ZCtrl.SetpntSet", setpoint=2e-9)
    assert client("ZCtrl.StatusGet")["status"] == commands.Z_SAFE_TIP


def test_safe_tip_sees_a_pulse_and_may_recover(bench):
    client = at_work(bench().connect(), safe_tip=True)
    client("SafeTip.PropsSet", recover=1, pause=0, threshold=0.35e-9)
    client("Bias.Pulse", wait=1, width=0.1, bias=3.0, hold=1, mode=2)  # 0.3 nA at the height where 0.5 V give 50 pA
    assert client("ZCtrl.StatusGet")["status"] == commands.Z_ON
    client("Bias.Pulse", wait=1, width=0.1, bias=-4.0, hold=1, mode=2)
    assert client("ZCtrl.StatusGet")["status"] == commands.Z_SAFE_TIP
    eventually(lambda: client("ZCtrl.StatusGet")["status"] == commands.Z_ON)
    assert client("Current.Get")["current"] == pytest.approx(50e-12, abs=2e-12)


def test_a_tip_that_lands_on_its_way_drags_from_there(bench):
    one = bench(pace=1.0)
    client, atom = one.connect(), one.world.truth()["position"][0, 0]
    client("FolMe.SpeedSet", speed=1e-6, custom=1)
    client("FolMe.XYPosSet", x=atom[0] - 2e-9, y=atom[1], wait=1)
    client("FolMe.SpeedSet", speed=2e-9, custom=1)
    at_work(client, DRAGGING)
    client("FolMe.XYPosSet", x=atom[0] + 1e-9, y=atom[1], wait=1)
    assert client("ZCtrl.StatusGet")["status"] == commands.Z_ON
    assert one.world.truth()["position"][0, 0, 0] - atom[0] > 0.5e-9


def test_safe_tip_ends_a_drag_where_the_current_jumps(bench):
    one = bench()
    client, atom = at_work(one.connect()), one.world.truth()["position"][0, 0]
    client("FolMe.XYPosSet", x=atom[0] - 2e-9, y=atom[1], wait=1)
    tunnel(client, DRAGGING)
    client("FolMe.XYPosSet", x=atom[0] + 2e-9, y=atom[1], wait=1)  # the trace with the adatom in the way
    most = float(client("TipRec.DataGet")["data"][0].max())
    assert most > 1.3 * DRAGGING[1]
    other = bench()
    client = at_work(other.connect(), safe_tip=True)
    client("SafeTip.PropsSet", recover=0, pause=0, threshold=1.2 * DRAGGING[1])
    client("FolMe.XYPosSet", x=atom[0] - 2e-9, y=atom[1], wait=1)
    tunnel(client, DRAGGING)
    client("FolMe.XYPosSet", x=atom[0] + 2e-9, y=atom[1], wait=1)
    assert client("ZCtrl.StatusGet")["status"] == commands.Z_SAFE_TIP
    assert client("FolMe.XYPosGet", wait=1)["x"] < atom[0] + 1.9e-9


def test_approach_after_the_motor(bench):
    client = at_work(bench().connect())
    client("ZCtrl.Withdraw", wait=1, timeout=-1)
    client("Motor.StartMove", direction=commands.Z_PLUS, steps=100, group=0, wait=1)
    assert client("Motor.PosGet", group=0, timeout=500)["z"] == pytest.approx(5e-6)
    client("ZCtrl.OnOffSet", on=1)
    assert abs(client("Current.Get")["current"]) < 2e-12 and client("ZCtrl.ZPosGet")["z"] == pytest.approx(-200e-9)
    client("ZCtrl.Withdraw", wait=1, timeout=-1)
    client("AutoApproach.Open")
    client("AutoApproach.OnOffSet", on=1)
    assert client("AutoApproach.OnOffGet")["on"] == 0 and client("ZCtrl.OnOffGet")["on"] == 1
    assert client("Current.Get")["current"] == pytest.approx(50e-12, abs=2e-12)


# ---- treatments ----


@pytest.mark.parametrize("twin", WORLDS)
def test_pulses_and_dips_are_the_twins_own(bench, twin):
    one, alone = bench(twin), build(twin, table(twin), KEY)
    client, place = at_work(one.connect()), np.array([[5e-9, 5e-9]])
    client("FolMe.XYPosSet", x=5e-9, y=5e-9, wait=1)
    client("Bias.Pulse", wait=1, width=0.1, bias=-4.0, hold=1, mode=2)
    client("Bias.Pulse", wait=1, width=0.1, bias=3.5, hold=1, mode=1)
    shape = {"switch_off_delay": 0.0, "lift_time": 0.125, "bias_lift": 0.0, "settling": 0.0, "height": 8e-9, "height_time": 0.0, "end": 0.0, "restore": 1}
    client("TipShaper.PropsSet", change_bias=1, bias=0.25, lift=-5e-9, **shape)
    assert client("TipShaper.PropsGet")["change_bias"] == 1
    client("TipShaper.Start", wait=1, timeout=-1)
    for bias in (-4.0, 4.0):
        alone.execute(PulseBias(place, np.array([bias]), 0.1), ON)
    alone.execute(DipTip(place, np.array([5e-9]), 0.25, 0.125), ON)  # the deepest that there is
    kept, wanted = one.world.snapshot(0).arrays, alone.snapshot(0).arrays
    assert all(np.array_equal(kept[name], wanted[name]) for name in wanted)
    assert client("ZCtrl.OnOffGet")["on"] == 1
    client("ZCtrl.Withdraw", wait=1, timeout=-1)
    client("Bias.Pulse", wait=1, width=0.1, bias=-4.0, hold=1, mode=2)  # of a tip that is far away
    assert all(np.array_equal(one.world.snapshot(0).arrays[name], wanted[name]) for name in wanted)


# ---- what is refused ----


@pytest.mark.parametrize(
    ("name", "arguments", "why"),
    [
        ("Bias.Set", {"bias": 10.5}, "Bias value out of range"), ("Bias.Set", {"bias": 0.0}, "crash"), ("ZCtrl.SetpntSet", {"setpoint": 0.0}, "crash"),
        ("ZCtrl.SetpntSet", {"setpoint": 1e-4}, "crash"), ("ZCtrl.ZPosSet", {"z": 1e-9}, "Z-Controller is on"), ("ZCtrl.OnOffSet", {"on": 2}, "0 (off) or 1"),
        ("ZCtrl.GainSet", {"proportional": -1.0, "time_constant": 1.0, "integral": 0.0}, "above 0"), ("ZCtrl.LimitsSet", {"high": 0.0, "low": 0.0}, "below"),
        ("ZCtrl.ActiveCtrlSet", {"index": 1}, "one Z-Controller"), ("ZCtrl.TipLiftSet", {"lift": -1e-9}, "must not be below 0"),
        ("ZCtrl.WithdrawRateSet", {"rate": 0.0}, "above 0"), ("SafeTip.OnOffSet", {"status": 3}, "0 (no change), 1 (on) or 2 (off)"),
        ("SafeTip.PropsSet", {"recover": 0, "pause": 0, "threshold": 0.0}, "above 0"), ("Motor.StartMove", {"direction": 5, "steps": 1, "group": 0, "wait": 1}, "Z-Controller on"),
        ("FolMe.XYPosSet", {"x": 1.0, "y": 0.0, "wait": 1}, "the tip reaches"), ("FolMe.SpeedSet", {"speed": 0.0, "custom": 1}, "above 0"),
        ("Scan.FrameSet", {"x": 0.0, "y": 0.0, "width": 1e-3, "height": 1e-3, "angle": 0.0}, "must lie within"),
        ("Scan.FrameSet", {"x": 0.0, "y": 0.0, "width": 1e-9, "height": 1e-9, "angle": 5.0}, "angle"),
        ("Scan.BufferSet", {"channels": [1], "pixels": 64, "lines": 64}, "channels"), ("Scan.BufferSet", {"channels": [14], "pixels": 1024, "lines": 64}, "256 pixels"),
        ("Scan.SpeedSet", {"forward": 0.0, "backward": 1.0, "forward_time": 1.0, "backward_time": 1.0, "keep": 1, "ratio": 1.0}, "above 0"),
        ("Scan.FrameDataGrab", {"channel": 14, "direction": 1}, "nothing was scanned"), ("Scan.FrameDataGrab", {"channel": 3, "direction": 1}, "not recorded"),
        ("Scan.Action", {"action": 9, "direction": 0}, "0 to 6"), ("Bias.Pulse", {"wait": 1, "width": 0.1, "bias": 9.8, "hold": 1, "mode": 1}, "Bias value out of range"),
        ("Bias.Pulse", {"wait": 1, "width": 0.0, "bias": 3.0, "hold": 1, "mode": 2}, "width up to"), ("Signals.ValGet", {"index": 128, "wait": 0}, "0 to 127"),
        ("Bias.Pulse", {"wait": 1, "width": 0.1, "bias": 0.0, "hold": 1, "mode": 2}, "not zero"), ("TipRec.BufferSizeSet", {"size": 0}, "1 to 65536"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_and_changes_nothing(bench, name, arguments, why):
    one = bench()
    client = at_work(one.connect())
    before, settings = one.world.snapshot(0).arrays, {field: client(field) for field in commands.COMMANDS if field.endswith("Get") and not commands.COMMANDS[field].takes}
    with pytest.raises(ControllerError) as caught:
        client(name, **arguments)
    assert why in caught.value.text
    noisy = ("Current.Get", "SafeTip.SignalGet")
    assert all(str(client(field)) == str(value) for field, value in settings.items() if field not in noisy)
    assert all(np.array_equal(one.world.snapshot(0).arrays[field], before[field]) for field in before)


def test_what_the_sample_refuses_the_controller_refuses(bench):
    client = at_work(bench().connect(), (2.0, 50e-12))
    client("ZCtrl.SetpntSet", setpoint=200e-9)  # 0.1 uS, but a drag at 2 V
    with pytest.raises(ControllerError, match=r"DragTip\.bias must be from -1 to 1 V"):
        client("FolMe.XYPosSet", x=1e-9, y=0.0, wait=1)
    assert client("FolMe.XYPosGet", wait=1) == {"x": 0.0, "y": 0.0}
    tunnel(client, (10e-3, 500e-9))  # 50 uS
    with pytest.raises(ControllerError, match="would drag adatoms"):
        scanned(client)
    assert client("Scan.StatusGet")["running"] == 0


def test_busy_is_an_error(bench):
    client = at_work(bench(pace=1.0).connect())
    eventually(lambda: client("Current.Get")["current"] > 40e-12)
    prepared(client)
    client("Scan.Action", action=0, direction=1)
    for name, arguments in (
        ("FolMe.XYPosSet", {"x": 0.0, "y": 0.0, "wait": 0}), ("Bias.Pulse", {"wait": 0, "width": 0.1, "bias": 3.0, "hold": 1, "mode": 2}),
        ("TipShaper.Start", {"wait": 0, "timeout": -1}), ("Scan.Action", {"action": 0, "direction": 1}),
        ("Scan.FrameSet", {"x": 0.0, "y": 0.0, "width": 1e-9, "height": 1e-9, "angle": 0.0}), ("Scan.BufferSet", {"channels": [0], "pixels": 64, "lines": 64}),
    ):  # fmt: skip
        with pytest.raises(ControllerError, match="not possible while scanning"):
            client(name, **arguments)
    client("Scan.Action", action=1, direction=1)
    client("Bias.Pulse", wait=0, width=5.0, bias=0.6, hold=1, mode=2)
    assert client("ZCtrl.StatusGet")["status"] == commands.Z_HOLD
    with pytest.raises(ControllerError, match="a bias pulse is running"):
        client("FolMe.XYPosSet", x=0.0, y=0.0, wait=0)


def test_an_image_needs_the_feedback_and_square_pixels(bench):
    client = bench().connect()
    with pytest.raises(ControllerError, match="switch the Z-Controller on"):
        client("Scan.Action", action=0, direction=1)
    at_work(client)
    client("Scan.FrameSet", x=0.0, y=0.0, width=8e-9, height=4e-9, angle=0.0)
    with pytest.raises(ControllerError, match="square pixels"):
        client("Scan.Action", action=0, direction=1)
    client("Scan.BufferSet", channels=[14], pixels=128, lines=64)
    client("Scan.Action", action=0, direction=1)
    assert client("Scan.FrameDataGrab", channel=14, direction=1)["data"].shape == (64, 128)


def test_numbers_that_are_not_finite_are_refused(bench):
    client = at_work(bench().connect())
    client.socket.sendall(protocol.pack_request("Bias.Set", b"\x7f\xc0\x00\x00"))
    with pytest.raises(ControllerError, match="bias is not finite"):
        client.answer("Bias.Set")
    client.socket.sendall(protocol.pack_request("BiasSpectr.Open", b""))
    status, text = protocol.decode_error(client.exactly(protocol.unpack_response(client.exactly(HEADER), "BiasSpectr.Open")))
    assert status == 1 and "Invalid command" in text and client("Bias.Get")["bias"] == 0.5


def test_worlds_that_are_no_stm_are_refused():
    with pytest.raises(ProbeGymError, match="needs an STM of one lane"):
        Controller(build("probegym.hardware_bridge.twins.afm:AfmTwin", scenarios.load("afm_tuning", "id").world, 1))
    with pytest.raises(ProbeGymError, match="pace must be"):
        Controller(build(ADATOMS, table(), 1), -1.0)
