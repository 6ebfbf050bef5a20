"""The simulated Nanonis controller's physics where things go wrong: contact, saturation, SafeTip, and what a feedback does in a bias pulse."""

from __future__ import annotations

import numpy as np
import pytest

from probegym.hardware_bridge.instruments.nanonis import commands
from probegym.hardware_bridge.instruments.nanonis.feedback import SATURATION
from probegym.hardware_bridge.instruments.nanonis.protocol import ControllerError
from probegym.hardware_bridge.instruments.nanonis.sample import DECAY, FERMI, conductance
from probegym.hardware_bridge.instruments.nanonis.settings import CONTACT
from tests.nanonis_helpers import ADATOMS, DRAGGING, IMAGING, STM, at_work, bench, eventually, tunnel

__all__ = ["bench"]  # a fixture
DIP = {
    "switch_off_delay": 0.0, "change_bias": 1, "bias": 0.02, "lift": -2e-9, "lift_time": 0.1, "bias_lift": 0.02, "settling": 0.0, "height": 4e-9, "height_time": 0.1, "end": 0.0,
    "restore": 1,
}  # fmt: skip


def test_the_conductance_of_a_contact_is_bounded_by_its_width():
    assert conductance(0.0) == CONTACT and conductance(-1e-12) == pytest.approx(CONTACT, rel=1e-3) and conductance(1e-12) == pytest.approx(CONTACT, rel=0.03)
    assert conductance(-1e-9) == pytest.approx(CONTACT * (1 + (FERMI * 0.5e-9) ** 2)) and conductance(-1e-9) < 50 * CONTACT


@pytest.mark.parametrize(("safe_tip", "threshold", "dipped"), [(True, 1e-6, 0), (True, 0.9 * SATURATION, 0), (True, 2 * SATURATION, 1), (False, 1e-9, 1)])
def test_safe_tip_takes_the_tip_away_from_a_dip_unless_it_is_off_or_blind(bench, safe_tip, threshold, dipped):
    one = bench(STM)
    client = at_work(one.connect(), safe_tip=safe_tip)
    client("SafeTip.PropsSet", recover=0, pause=0, threshold=threshold)
    client("TipShaper.PropsSet", **DIP)
    client("TipShaper.Start", wait=1, timeout=-1)
    assert one.world.state["treatments"][0] == dipped
    assert client("ZCtrl.StatusGet")["status"] == (commands.Z_ON if dipped else commands.Z_SAFE_TIP)
    assert dipped or client("ZCtrl.ZPosGet")["z"] == pytest.approx(200e-9)


def test_a_dip_that_stays_above_the_surface_trips_nothing(bench):
    one = bench(STM)
    client = at_work(one.connect(), safe_tip=True)
    client("SafeTip.PropsSet", recover=0, pause=0, threshold=1e-9)
    client("TipShaper.PropsSet", **DIP | {"lift": -0.2e-9, "height": 1e-9})  # 20 mV: 0.15 nA
    client("TipShaper.Start", wait=1, timeout=-1)
    assert client("ZCtrl.StatusGet")["status"] == commands.Z_ON
    client("TipShaper.PropsSet", **DIP | {"lift": -0.2e-9, "height": 1e-9, "bias_lift": 1.0})  # 7.7 nA on its way back
    client("TipShaper.Start", wait=1, timeout=-1)
    assert client("ZCtrl.StatusGet")["status"] == commands.Z_SAFE_TIP


def test_a_shaper_that_ends_below_the_surface_leaves_the_tip_in_contact(bench):
    client = at_work(bench(STM).connect())
    client("TipShaper.PropsSet", **DIP | {"height": 1e-9, "restore": 2})
    client("TipShaper.Start", wait=1, timeout=-1)
    assert client("ZCtrl.OnOffGet")["on"] == 0 and client("ZCtrl.ZPosGet")["z"] == 0.0


def test_a_deep_dip_onto_an_adatom_takes_it_along(bench):
    one = bench()
    client, atom = at_work(one.connect()), one.world.truth()["position"][0, 0]
    client("FolMe.XYPosSet", x=atom[0], y=atom[1], wait=1)
    client("TipShaper.PropsSet", **DIP | {"lift": -5e-9, "height": 8e-9})
    client("TipShaper.Start", wait=1, timeout=-1)
    assert one.world.truth()["gone"][0, 0]


# ---- bias pulses ----


def test_in_a_pulse_a_feedback_on_hold_keeps_its_height_and_one_that_is_on_keeps_its_current(bench):
    client = at_work(bench(STM, pace=1.0).connect())
    eventually(lambda: client("Current.Get")["current"] > 40e-12)
    z = client("ZCtrl.ZPosGet")["z"]
    client("Bias.Pulse", wait=0, width=0.4, bias=-4.0, hold=commands.PULSE_HOLD, mode=2)
    assert client("ZCtrl.StatusGet")["status"] == commands.Z_HOLD and client("ZCtrl.ZPosGet")["z"] == pytest.approx(z, abs=1e-15)
    assert client("Current.Get")["current"] == pytest.approx(-8 * IMAGING[1], rel=0.02) and client("Signals.ValGet", index=15, wait=1)["value"] == -4.0
    assert client("Bias.Get")["bias"] == IMAGING[0]
    eventually(lambda: client("ZCtrl.StatusGet")["status"] == commands.Z_ON)
    client("Bias.Pulse", wait=0, width=0.4, bias=-4.0, hold=commands.PULSE_NO_HOLD, mode=2)
    assert client("ZCtrl.StatusGet")["status"] == commands.Z_ON
    assert client("ZCtrl.ZPosGet")["z"] - z == pytest.approx(np.log(8) / DECAY, abs=1e-14)
    assert client("Current.Get")["current"] == pytest.approx(-IMAGING[1], rel=0.03)
    eventually(lambda: client("Signals.ValGet", index=15, wait=1)["value"] == IMAGING[0])
    assert client("ZCtrl.ZPosGet")["z"] == pytest.approx(z, abs=1e-15)


@pytest.mark.parametrize(("hold", "bias", "trips"), [(1, 0.025, False), (2, 0.025, True), (1, 4.0, False), (2, 4.0, False), (1, 8.0, True), (2, 8.0, True)])
def test_safe_tip_sees_the_jump_of_the_bias_at_either_end_of_a_pulse(bench, hold, bias, trips):
    one = bench(STM)
    client = at_work(one.connect(), safe_tip=True)
    client("SafeTip.PropsSet", recover=0, pause=0, threshold=0.75e-9)  # 8 V draw 0.8 nA where 0.5 V draw 50 pA; a tip that went down for 25 mV meets 0.5 V with 1 nA
    client("Bias.Pulse", wait=1, width=0.1, bias=bias, hold=hold, mode=2)
    assert (client("ZCtrl.StatusGet")["status"] == commands.Z_SAFE_TIP) == trips and one.world.state["treatments"][0] == 1


def test_a_pulse_that_would_crash_a_tip_under_feedback_is_refused(bench):
    one = bench(STM)
    client = at_work(one.connect())
    for bias in (0.0, 0.5e-6):
        with pytest.raises(ControllerError, match="would crash the tip"):
            client("Bias.Pulse", wait=1, width=0.1, bias=bias, hold=2, mode=2)
    client("Bias.Pulse", wait=1, width=0.1, bias=0.5e-6, hold=1, mode=2)
    client("Bias.Pulse", wait=1, width=0.1, bias=0.5e-6, hold=0, mode=2)  # 0 keeps what was set last: the refused one set nothing
    assert one.world.state["treatments"][0] == 2


# ---- limits ----


@pytest.mark.parametrize(("twin", "reach"), [(ADATOMS, 50e-9), (STM, 1e-6)])
def test_the_piezo_reaches_as_far_as_the_twin_and_no_farther_than_one_does(bench, twin, reach):
    client = bench(twin).connect()
    assert client("Piezo.RangeGet") == pytest.approx({"x": 2 * reach, "y": 2 * reach, "z": 400e-9})
    client("FolMe.XYPosSet", x=reach, y=-reach, wait=1)
    with pytest.raises(ControllerError, match="the tip reaches"):
        client("FolMe.XYPosSet", x=1.01 * reach, y=0.0, wait=1)


def test_limits_below_the_surface_press_the_tip_into_contact_and_no_further(bench):
    client = at_work(bench().connect())
    client("ZCtrl.LimitsEnabledSet", on=1)
    client("ZCtrl.LimitsSet", high=-100e-9, low=-150e-9)
    assert client("ZCtrl.ZPosGet")["z"] == 0.0 and client("ZCtrl.StatusGet")["status"] == commands.Z_ON
    assert client("Current.Get")["current"] == pytest.approx(SATURATION) and client("SafeTip.SignalGet")["signal"] == pytest.approx(SATURATION)
    client("Bias.Set", bias=-0.5)
    assert client("Current.Get")["current"] == pytest.approx(-SATURATION)
    client("SafeTip.OnOffSet", status=1)
    assert client("ZCtrl.StatusGet")["status"] == commands.Z_SAFE_TIP
    client("ZCtrl.LimitsSet", high=100e-9, low=-100e-9)
    client("ZCtrl.Withdraw", wait=1, timeout=-1)
    assert client("ZCtrl.ZPosGet")["z"] == pytest.approx(100e-9) and abs(client("Current.Get")["current"]) < 2e-12


def test_limits_that_press_the_tip_in_are_seen_by_safe_tip_at_once(bench):
    one = bench()
    client = at_work(one.connect(), safe_tip=True)
    client("ZCtrl.LimitsSet", high=-100e-9, low=-150e-9)
    client("ZCtrl.LimitsEnabledSet", on=1)
    with one.server.controller.changed:
        assert one.server.controller.tripped


def test_a_home_that_is_out_of_reach_leaves_the_feedback_on(bench):
    client = at_work(bench().connect())
    client("ZCtrl.HomePropsSet", mode=1, z=1.0)
    with pytest.raises(ControllerError, match="out of range"):
        client("ZCtrl.Home")
    assert client("ZCtrl.StatusGet")["status"] == commands.Z_ON


def test_a_trace_is_what_the_preamplifier_shows(bench):
    one = bench()
    client, atom = at_work(one.connect()), one.world.truth()["position"][0, 0]
    client("FolMe.XYPosSet", x=atom[0] - 1e-9, y=atom[1], wait=1)
    tunnel(client, DRAGGING)
    client("Bias.Set", bias=1.0)
    client("ZCtrl.SetpntSet", setpoint=9.9e-6)  # with an adatom in the way it would be more than what is shown
    client("FolMe.XYPosSet", x=atom[0] + 1e-9, y=atom[1], wait=1)
    assert np.abs(client("TipRec.DataGet")["data"][0]).max() == np.float32(SATURATION)
