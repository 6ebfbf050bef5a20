"""What an operator has set at a Nanonis controller to protect the tip stays, or becomes tighter, and is what commands are judged by."""

from __future__ import annotations

import json
import time

import numpy as np
import pytest

from probegym.errors import ProbeGymError
from probegym.hardware_bridge.commands import LocateAdatoms, MoveTip, SetBias, SetTunnelling, Withdraw
from probegym.hardware_bridge.instruments import InstrumentFault
from probegym.hardware_bridge.instruments.nanonis import driver
from probegym.hardware_bridge.instruments.nanonis.controller import Controller
from probegym.hardware_bridge.instruments.nanonis.motion import rest
from probegym.hardware_bridge.world import Refused
from tests.nanonis_helpers import reopened, stood
from tests.nanonis_room import HERE, LOOK, drag, rooms

DRAG = drag((2e-9, 2e-9), (3e-9, 2e-9))
MOVE = MoveTip(HERE, 1e-6)


@pytest.fixture
def room():
    yield from rooms()


# ---- what protects the tip ----


def test_a_tighter_safe_tip_stays_and_setpoints_are_judged_by_it(room):
    r = room(kind=stood(safe_tip={"on": 1, "threshold": 90e-9, "recover": 1, "pause": 0}))
    assert r.controller.safe_tip == {"on": 1, "threshold": 90e-9, "recover": 0, "pause": 1}
    r.stm.execute(LOOK, 60.0)
    with pytest.raises(Refused, match=r"5e-08 A is above 0\.5 of SafeTip's threshold, which stands at 9e-08 A"):
        r.stm.execute(DRAG, 60.0)
    r.stm.safe(5.0)
    r.stm.close()
    assert r.controller.safe_tip == {"on": 1, "threshold": 90e-9, "recover": 1, "pause": 0}


def test_a_looser_safe_tip_comes_down_for_the_run_alone(room):
    r = room(kind=stood(safe_tip={"on": 1, "threshold": 8e-6}))
    assert r.controller.safe_tip["threshold"] == 2e-6
    r.stm.safe(5.0)
    r.stm.close()
    assert r.controller.safe_tip == {"on": 1, "threshold": 8e-6, "recover": 0, "pause": 0}


def test_a_safe_tip_that_was_off_is_on_for_the_run(room):
    r = room(kind=stood(safe_tip={"on": 0, "threshold": 1e-9}))
    assert r.controller.safe_tip["on"] and r.controller.safe_tip["threshold"] == 2e-6  # what was switched off protected nothing
    r.stm.execute(DRAG, 60.0)
    r.stm.safe(5.0)
    assert r.controller.safe_tip["on"]
    r.stm.close()
    assert r.controller.safe_tip["threshold"] == 1e-9 and not r.controller.safe_tip["on"]


def test_a_safe_state_before_anything_is_armed_leaves_safe_tip_as_it_was(room):
    r = room(kind=stood(safe_tip={"on": 0, "threshold": 1e-9}))
    r.stm.safe(5.0)
    r.stm.close()
    for opened in (driver.writer, driver.safety):
        again = reopened(opened, r.told)
        again.safe(5.0)
        assert again.is_safe() and not r.controller.safe_tip["on"]  # else the next one would take its threshold for the operator's
        again.close()
    guardian = reopened(driver.safety, r.told)
    r.controller.safe_tip["on"] = 1
    assert guardian.is_safe()  # it looks
    r.controller.safe_tip["on"] = 0  # as in a dip
    guardian.safe(5.0)
    assert r.controller.safe_tip["on"]
    guardian.close()


def test_nothing_is_loosened_while_the_tip_is_not_away(room):
    r = room(kind=stood(safe_tip={"on": 1, "threshold": 8e-6, "recover": 1}))
    r.stm.execute(MOVE, 60.0)
    r.stm.close()
    assert r.controller.on and r.controller.safe_tip == {"on": 1, "threshold": 2e-6, "recover": 0, "pause": 1}


def test_a_rest_that_safe_tip_forbids_is_not_armed(room):
    with pytest.raises(Refused, match=r"5e-11 A is above 0\.5 of SafeTip's threshold"):
        room(kind=stood(safe_tip={"on": 1, "threshold": 80e-12}))


def test_what_an_operator_sets_between_two_runs_is_theirs(room):
    r = room(kind=stood(safe_tip={"on": 0, "threshold": 1e-9}))
    r.stm.safe(5.0)
    r.controller.safe_tip["threshold"] = 60e-9
    r.stm.ready(5.0)
    assert r.controller.safe_tip["threshold"] == 60e-9
    with pytest.raises(Refused, match="SafeTip's threshold"):
        r.stm.execute(DRAG, 60.0)
    r.stm.safe(5.0)
    r.stm.close()
    assert r.controller.safe_tip["threshold"] == 60e-9 and r.controller.safe_tip["on"]


def test_a_safe_tip_that_an_operator_switches_on_before_the_arming_is_theirs(room):
    r = room(kind=stood(safe_tip={"on": 0, "threshold": 1e-9}))
    r.stm.safe(5.0)
    r.stm.close()
    again = reopened(driver.writer, r.told)
    r.controller.safe_tip["on"] = 1  # at what was found
    again.safe(5.0)
    again.ready(5.0)
    assert r.controller.safe_tip == {"on": 1, "threshold": 1e-9, "recover": 0, "pause": 1}
    again.safe(5.0)
    again.close()
    assert r.controller.safe_tip == {"on": 1, "threshold": 1e-9, "recover": 0, "pause": 0}


def test_what_an_operator_sets_back_during_a_run_is_theirs_too(room):
    r = room(kind=stood(safe_tip={"on": 0, "threshold": 1e-9}))
    r.stm.safe(5.0)
    r.controller.safe_tip |= {"threshold": 1e-9, "recover": 0, "pause": 0}  # all as it was found
    r.stm.ready(5.0)
    assert r.controller.safe_tip["threshold"] == 1e-9
    with pytest.raises(Refused, match="SafeTip's threshold"):
        r.stm.execute(DRAG, 60.0)
    r.stm.safe(5.0)
    r.stm.ready(5.0)  # once more with nothing changed: it stays theirs
    r.stm.safe(5.0)
    r.stm.close()
    assert r.controller.safe_tip["on"] and r.controller.safe_tip["threshold"] == 1e-9


def test_a_threshold_that_was_set_at_the_end_is_not_switched_off(room):
    r = room(kind=stood(safe_tip={"on": 0, "threshold": 1e-9}))
    r.stm.safe(5.0)
    r.controller.safe_tip["threshold"] = 5e-9
    r.stm.close()
    assert r.controller.safe_tip["on"] and r.controller.safe_tip["threshold"] == 5e-9


def test_limits_of_z_are_the_operators_alone(room):
    r = room(kind=stood(limits=(150e-9, -40e-9)))
    r.stm.execute(DRAG, 60.0)
    assert (r.controller.limits, r.controller.limited) == ((150e-9, -40e-9), 1) and not r.sent("ZCtrl.LimitsSet", "ZCtrl.LimitsEnabledSet")
    r.stm.safe(5.0)
    assert r.stm.is_safe() and abs(r.controller._z(time.monotonic()) - 150e-9) < 8e-9


def test_limits_of_z_that_are_off_limit_nothing(room):
    r = room(pace=1.0, kind=stood(limits=(30e-9, -40e-9), limited=0, coarse=100e-9))
    r.stm.execute(MOVE, 60.0)
    assert r.controller.on and -101e-9 < r.controller._z(time.monotonic()) < -98e-9
    r.stm.safe(5.0)
    assert r.stm.is_safe() and r.controller._z(time.monotonic()) > 190e-9
    r.controller.height = rest(60e-9)
    assert not r.stm.is_safe()


def test_how_the_feedback_switches_off_is_set_for_drags_and_given_back(room):
    before = {"ZCtrl.TipLift": {"lift": 0.3e-9}, "ZCtrl.SwitchOffDelay": {"delay": 0.7}, "ZCtrl.WithdrawRate": {"rate": 1e-7}}
    r = room(kind=stood(settings=before))
    trace = r.stm.execute(DRAG, 60.0).values["trace"][0]
    assert np.abs(trace / 50e-9 - 1).max() < 0.2  # at the height of its setpoint, not above it
    assert {name: r.controller.settings[name] for name in before} == {"ZCtrl.TipLift": {"lift": 0.0}, "ZCtrl.SwitchOffDelay": {"delay": 0.05}, "ZCtrl.WithdrawRate": {"rate": 2e-6}}
    r.stm.safe(5.0)
    r.stm.close()
    assert {name: r.controller.settings[name] for name in before} == before


def test_what_an_operator_sets_at_the_end_is_not_undone(room):
    r = room(kind=stood(safe_tip={"on": 1, "threshold": 8e-6}, settings={"ZCtrl.TipLift": {"lift": 0.3e-9}}))
    r.stm.safe(5.0)
    r.controller.settings["ZCtrl.TipLift"]["lift"] = 1e-9
    r.controller.safe_tip["threshold"] = 5e-9
    r.stm.close()
    assert r.controller.settings["ZCtrl.TipLift"]["lift"] == 1e-9 and r.controller.safe_tip["threshold"] == 5e-9


def test_a_faster_withdrawal_stays(room):
    assert room(kind=stood(settings={"ZCtrl.WithdrawRate": {"rate": 5e-6}})).controller.settings["ZCtrl.WithdrawRate"]["rate"] == 5e-6


@pytest.mark.parametrize(("key", "value", "why"), [("clearance", "401 nm", "is not below the range of Z"), ("withdraw", "5 nm/s", "the safe state takes 80.8 s")])
def test_settings_that_do_not_suit_the_range_of_z_are_refused_when_it_is_opened(room, tmp_path, key, value, why):
    r = room()
    r.stm.safe(5.0)
    r.stm.close()
    path = tmp_path / "stm.json"
    path.write_text(json.dumps(r.told["settings"] | {key: value}))
    with pytest.raises(ProbeGymError, match=f"{path}, {key}: .*{why}"):
        reopened(driver.writer, r.told | {"settings": str(path)})


# ---- others at work ----


@pytest.mark.parametrize("what", ["bias", "setpoint", "gains"])
@pytest.mark.parametrize("landed", [True, False])
def test_what_somebody_else_changes_between_commands_is_noticed(room, what, landed):
    r = room()
    if landed:
        r.stm.execute(MOVE, 60.0)
    setattr(r.controller, what, {"bias": 0.51, "setpoint": 49e-12, "gains": (1e-12, 1e-4)}[what])
    for _ in range(2):
        with pytest.raises(Refused, match="somebody else is at work at this controller"):
            r.stm.execute(LOOK, 60.0)
    r.stm.safe(5.0)
    r.stm.ready(5.0)
    r.stm.execute(LOOK, 60.0)


class Fiddled(Controller):
    """Somebody turns the bias in the middle of an image or a drag."""

    def _start_scan(self, upwards, now):
        super()._start_scan(upwards, now)
        self.bias = 0.4

    def _start_move(self, target, now):
        super()._start_move(target, now)
        if not self.on:
            self.setpoint = 40e-9


@pytest.mark.parametrize("command", [LOOK, DRAG])
def test_what_somebody_else_changes_during_a_command_spoils_it(room, command):
    with pytest.raises(InstrumentFault, match="somebody else is at work at this controller"):
        room(kind=Fiddled).stm.execute(command, 60.0)


def test_a_command_that_was_refused_on_its_way_is_not_taken_for_somebody_else(room):
    r = room()
    r.controller.coarse[2] = 5e-6
    for _ in range(2):
        with pytest.raises(Refused, match="approach first"):
            r.stm.execute(LOOK, 60.0)


# ---- what was asked for while the tip was away ----


def stands(r):
    return r.controller.bias, r.controller.setpoint


def test_bias_and_setpoint_that_are_set_while_the_tip_is_away_hold_once_it_has_landed(room):
    r = room()
    r.stm.execute(SetBias(np.array([-0.8])), 60.0)
    r.stm.execute(SetTunnelling(np.array([2e-11]), np.array([3e-12]), np.array([2e-4])), 60.0)
    assert not r.controller.on and stands(r) == (-0.8, 2e-11)
    r.stm.execute(MOVE, 60.0)
    landings = [(name, *of.values()) for name, of in r.sent("Bias.Set", "ZCtrl.SetpntSet", "ZCtrl.OnOffSet")][2:5]
    assert landings == [("Bias.Set", "0.5"), ("ZCtrl.SetpntSet", "5e-11"), ("ZCtrl.OnOffSet", "1")]  # it lands with what rests
    assert r.controller.on and stands(r) == (-0.8, 2e-11)
    r.stm.execute(SetBias(np.array([0.6])), 60.0)
    r.stm.execute(Withdraw(), 60.0)
    r.stm.execute(MOVE, 60.0)
    assert stands(r) == (0.6, 2e-11)
    r.stm.execute(Withdraw(), 60.0)
    r.stm.execute(SetBias(np.array([0.0])), 60.0)
    assert stands(r)[0] == 0
    r.stm.execute(MOVE, 60.0)
    assert stands(r) == (0.5, 2e-11)
    r.stm.safe(5.0)
    r.stm.ready(5.0)
    r.stm.execute(MOVE, 60.0)
    assert stands(r) == (0.5, 50e-12)  # a new run knows nothing of the one before


def test_what_would_be_too_much_at_the_surface_is_refused_before_it_lands(room):
    r = room()
    with pytest.raises(Refused, match="above the 1e-08 S"):
        r.stm.execute(SetBias(np.array([1e-3])), 60.0)
    r.stm.execute(SetBias(np.array([0.02])), 60.0)
    with pytest.raises(Refused, match="above the 1e-08 S"):
        r.stm.execute(SetTunnelling(np.array([3e-10]), np.array([3e-12]), np.array([2e-4])), 60.0)
    r.stm.execute(LocateAdatoms((32, 32), 7e-9, 50e-9, HERE, 0.5, 50e-12, 1, False), 60.0)
