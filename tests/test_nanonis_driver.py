"""The driver for STMs behind Nanonis controllers: what its tip does, in which order, and what is refused, on the simulated controller."""

from __future__ import annotations

import re
import time
from itertools import pairwise

import numpy as np
import pytest

from probegym.errors import ProbeGymError
from probegym.hardware_bridge.commands import (
    Approach,
    BlankBeam,
    DipTip,
    DragTip,
    LocateAdatoms,
    MoveTip,
    PulseBias,
    SetBias,
    SetTunnelling,
    Withdraw,
)
from probegym.hardware_bridge.instruments import InstrumentFault
from probegym.hardware_bridge.instruments.nanonis import commands, driver, safety
from probegym.hardware_bridge.instruments.nanonis.controller import Controller
from probegym.hardware_bridge.instruments.nanonis.motion import rest
from probegym.hardware_bridge.world import Refused
from tests.nanonis_room import HERE, LOOK, STM, TOPOGRAPH, drag, rooms


@pytest.fixture
def room():
    yield from rooms()


def test_an_atom_is_found_dragged_and_found_elsewhere(room):
    r = room()
    seen = r.stm.execute(LOOK, 60.0).values
    start = seen["position"][0, 0]
    assert seen["found"].all() and np.hypot(*(start - r.atom())) < 20e-12
    end = start + np.array([1.2e-9, -0.6e-9])
    done = r.stm.execute(drag(start, end), 60.0)
    assert done.values["trace"].shape == (1, 512) and done.measurements[0] == 1
    assert abs(done.values["trace"][0, 0] / 50e-9 - 1) < 0.3 and done.values["trace"].std() > 1e-9  # it hops
    assert np.hypot(*(r.atom() - end)) < 0.3e-9
    again = r.stm.execute(LOOK, 60.0).values
    assert np.hypot(*(again["position"][0, 0] - r.atom())) < 20e-12 and np.hypot(*(again["position"][0, 0] - start)) > 1e-9


def test_the_trace_is_that_of_the_twin_in_the_same_order(room):
    r = room()
    at = r.stm.execute(LOOK, 60.0).values["position"][0, 0]
    trace = r.stm.execute(drag(at, at + np.array([0.0, 1e-9])), 60.0).values["trace"][0]
    assert np.array_equal(trace, np.float32(r.controller.recorded[0]))


def test_adatoms_keep_their_numbers_over_a_drag(room):
    r = room(scenario="assembly-5")
    look = LocateAdatoms((64, 64), 10e-9, 50e-9, HERE, 0.5, 50e-12, 6, False)

    def seen():
        told = r.stm.execute(look, 60.0).values
        far = np.hypot(*np.moveaxis(told["position"][0][:, None] - r.world.truth()["position"][0][None], -1, 0))
        assert told["found"].all() and set(told) == {"position", "found"} and far.min(1).max() < 20e-12
        return told["position"][0], far.argmin(1)

    before, who = seen()
    middle = before.mean(0)
    atom = int(np.argmax(np.hypot(*(before - middle).T)))
    outwards = before[atom] + 0.8e-9 * (before[atom] - middle) / np.hypot(*(before[atom] - middle))
    r.stm.execute(drag(before[atom], outwards), 60.0)
    after, again = seen()
    assert np.array_equal(who, again) and np.hypot(*(after[atom] - before[atom])) > 0.4e-9


def test_a_trace_holds_the_drag_alone_and_the_tip_comes_up_before_the_feedback_does(room):
    limits = {"bias": 0.1, "conductance": 10e-6, "speed": [1e-10, 1e-6], "recorded": 16384}
    r = room(drag=limits)
    r.stm.execute(MoveTip(np.array([[5e-9, 2e-9]]), 1e-6), 60.0)  # beyond the end of what comes
    trace = r.stm.execute(drag((2e-9, 2e-9), (3e-9, 2e-9)), 60.0).values["trace"][0]
    assert trace.shape == (512,) and np.abs(trace / 50e-9 - 1).max() < 0.2
    sent = r.sent("ZCtrl.SetpntSet", "ZCtrl.OnOffSet", "FolMe.XYPosSet")
    moved = max(n for n, (name, _) in enumerate(sent) if name == "FolMe.XYPosSet")
    assert [(name, *of.values()) for name, of in sent[moved - 1 :]] == [
        ("ZCtrl.OnOffSet", "0"), ("FolMe.XYPosSet", "3e-09", "2e-09", "0"), ("ZCtrl.SetpntSet", "5e-11"), ("ZCtrl.OnOffSet", "1"),
    ]  # fmt: skip


@pytest.mark.parametrize("length", [5e-12, 30e-12])
def test_a_drag_may_be_short(room, length):
    r = room(pace=1.0)
    trace = r.stm.execute(drag((2e-9, 2e-9), (2e-9 + length, 2e-9)), 60.0).values["trace"][0]
    assert trace.shape == (512,) and np.abs(trace / 50e-9 - 1).max() < 0.2


def test_an_image_is_that_of_the_twin_and_its_verdict_is_even_odds(room):
    r = room(STM, "train")
    before = r.world.snapshot(0)
    told = r.stm.execute(TOPOGRAPH, 60.0).values
    r.world.restore(before, 0)
    own = r.world.execute(TOPOGRAPH, np.ones(1, bool)).values["height"]
    assert told["verdict"] == [0.5] and told["height"].shape == (1, 32, 64)
    assert np.abs((told["height"] - told["height"].mean()) - (own - own.mean())).max() < 1e-14


def test_pulses_and_dips_treat_the_tip(room):
    r = room(STM, "train")
    r.stm.execute(PulseBias(HERE, np.array([4.0]), 0.2), 60.0)
    r.stm.execute(DipTip(HERE + 1e-8, np.array([1e-9]), 0.02, 0.2), 60.0)
    assert r.world.state["treatments"][0] == 2 and r.controller.on and r.controller.safe_tip["on"]
    dips = [name for name, _ in r.sent("SafeTip.OnOffSet", "TipShaper.Start", "ZCtrl.OnOffSet", "Bias.Pulse")]
    assert dips == ["ZCtrl.OnOffSet", "Bias.Pulse", "SafeTip.OnOffSet", "TipShaper.Start", "SafeTip.OnOffSet", "ZCtrl.OnOffSet"]
    pulse = r.sent("Bias.Pulse")[0][1]
    assert (pulse["hold"], pulse["mode"]) == ("1", "2")  # a feedback that is on would follow the pulse, and a relative bias is another one
    assert r.sent("TipShaper.PropsSet")[0][1]["restore"] == "2"  # a shaper that switched the feedback on by itself could undo the safe state


def test_bias_and_setpoint_go_by_the_lower_conductance_and_never_through_zero(room):
    r = room()
    at = r.stm.execute(LOOK, 60.0).values["position"][0, 0]
    r.stm.execute(drag(at, at + 1e-9), 60.0)
    r.stm.execute(TOPOGRAPH, 60.0)
    bias, current, on = 0.0, 1.0, False
    for name, of in r.sent("Bias.Set", "ZCtrl.SetpntSet", "ZCtrl.OnOffSet"):
        was = bias
        bias, current = float(of.get("bias", bias)), float(of.get("setpoint", current))
        on = bool(int(of["on"])) if name == "ZCtrl.OnOffSet" else on
        assert not on or (bias != 0 and current / abs(bias) <= 50e-9 / 10e-3 * 1.001)
        assert not (name == "Bias.Set" and on and was * bias < 0), "the bias went through zero with the feedback on"
    changes = [(name, float(of.get("bias", of.get("setpoint", "nan")))) for name, of in r.sent("Bias.Set", "ZCtrl.SetpntSet")]
    there = changes.index(("Bias.Set", 0.01))
    assert changes[there : there + 4] == [("Bias.Set", 0.01), ("ZCtrl.SetpntSet", 5e-8), ("ZCtrl.SetpntSet", 5e-11), ("Bias.Set", 0.5)]


class Creeping(Controller):
    """The tip creeps, or somebody moves it, while its feedback is off for a change of the bias' sign."""

    def _bias_set(self, bias):
        super()._bias_set(bias)
        if not self.on and bias < 0:
            self.height = rest(self._z(0.0) + 2e-9)


def test_a_tip_that_moved_while_its_feedback_was_off_stays_off(room):
    r = room(kind=Creeping)
    r.stm.execute(MoveTip(HERE, 1e-6), 60.0)
    with pytest.raises(InstrumentFault, match="not where its feedback was switched off"):
        r.stm.execute(SetBias(np.array([-0.5])), 60.0)
    assert not r.controller.on


def test_what_is_set_stands_there(room):
    r = room()
    r.stm.execute(MoveTip(np.array([[1e-9, 2e-9]]), 50e-9), 60.0)
    r.stm.execute(SetBias(np.array([-0.25])), 60.0)
    r.stm.execute(SetTunnelling(np.array([2e-11]), np.array([3e-12]), np.array([2e-4])), 60.0)
    told = {name: one.values for name, one in r.stm.measured().items()}
    assert np.allclose(told["tip"], [1e-9, 2e-9], atol=1e-12) and np.allclose(told["bias"], -0.25)
    assert np.allclose([told[f"tunnelling.{name}"][0] for name in ("current", "proportional", "time_constant")], [2e-11, 3e-12, 2e-4])
    assert r.controller.bias == -0.25 and r.controller.on


def test_withdraw_and_approach(room):
    r = room()
    r.stm.execute(MoveTip(HERE, 50e-9), 60.0)
    r.stm.execute(Withdraw(), 60.0)
    assert not r.controller.on and r.controller._z(time.monotonic()) > 0.9 * r.controller.limits[0]
    r.controller.coarse[2] = 5e-6  # the surface is out of reach of the piezo
    with pytest.raises(Refused, match="approach first"):
        r.stm.execute(LOOK, 60.0)
    assert not r.controller.on and r.controller._z(time.monotonic()) > 0.9 * r.controller.limits[0]
    r.lines.clear()
    r.stm.execute(Approach(), 60.0)
    assert r.controller.on and r.controller.coarse[2] == 0
    assert not r.sent("Motor.StartMove") and r.stm.descriptor.capabilities["Approach"].approval


@pytest.mark.parametrize(
    ("command", "why"),
    [
        (LocateAdatoms((64, 64), 7e-9, 50e-9, HERE, 1e-4, 50e-12, 1, True), "above the"),
        (LocateAdatoms((64, 64), 7e-9, 50e-9, HERE, 0.0, 50e-12, 1, True), "has no bias"),
        (LocateAdatoms((64, 60), 7e-9, 50e-9, HERE, 0.5, 50e-12, 1, True), "pixels: the controller stands at"),
        (LocateAdatoms((64, 64), 90e-9, 50e-9, np.array([[40e-9, 0.0]]), 0.5, 50e-12, 1, True), "the frame must lie within"),
        (LocateAdatoms((64, 64), 7e-9, 50e-9, np.zeros((2, 2)), 0.5, 50e-12, 1, True), "one lane"),
        (DragTip(HERE, HERE, np.array([1e-2]), np.array([5e-8]), 5e-9, 64), "1e-12 to"),
        (DragTip(HERE, HERE + 1e-9, np.array([1e-3]), np.array([5e-7]), 5e-9, 64), "above the"),
        (DragTip(HERE, HERE + 30e-9, np.array([1e-2]), np.array([5e-8]), 5e-9, 64), "2e-08 m long"),
        (BlankBeam(True), "has no BlankBeam"),
    ],
)
def test_what_cannot_be_done_is_refused_before_anything_moves(room, command, why):
    r = room()
    with pytest.raises(Refused, match=why):
        r.stm.execute(command, 60.0)
    acting = {name for name, _ in r.sent()} & {"Bias.Set", "ZCtrl.OnOffSet", "FolMe.XYPosSet", "Scan.Action", "ZCtrl.SetpntSet"}
    assert not acting and r.stm.is_safe()


# ---- protections ----


class Unprotected(Controller):
    """SafeTip does not switch on."""

    def _safetip_onoffset(self, status):
        super()._safetip_onoffset(2)


class Recovering(Controller):
    """SafeTip recovers by itself, whatever is said."""

    def _safetip_propsset(self, recover, pause, threshold):
        super()._safetip_propsset(1, pause, threshold)


@pytest.mark.parametrize(("kind", "what"), [(Unprotected, "SafeTip.OnOff"), (Recovering, "SafeTip.Props, recover")])
def test_nothing_passes_without_the_controllers_own_protection(room, kind, what):
    with pytest.raises(Refused, match=what):
        room(kind=kind)


def test_a_protection_that_is_taken_away_later_is_noticed(room):
    r = room()
    r.stm.execute(MoveTip(HERE, 50e-9), 60.0)
    whole = dict(r.controller.safe_tip)
    spoiled = (
        lambda: r.controller.safe_tip.update(on=0), lambda: r.controller.safe_tip.update(whole | {"recover": 1}), lambda: r.controller.safe_tip.update(whole | {"threshold": 1.0}),
        lambda: (r.controller.safe_tip.update(whole), setattr(r.controller, "limited", 1)), lambda: setattr(r.controller, "limits", (2e-7, -1e-7)),
    )  # fmt: skip
    for spoil in spoiled:
        spoil()
        with pytest.raises(Refused, match="not protected"):
            r.stm.execute(LOOK, 60.0)
    r.stm.safe(5.0)
    r.stm.ready(5.0)
    r.stm.execute(LOOK, 60.0)


class Nameless(Controller):
    """Has other names for height and current."""

    def _signals_namesget(self):
        return {"names": tuple(name.replace("Z (m)", "Height (m)").replace("Current", "Tunnel current") for name in super()._signals_namesget()["names"])}


class Bare(Controller):
    """Modules that are not open answer nothing."""

    def answer(self, name, body, *more):
        if name.split(".")[0] in ("TipShaper", "AutoApproach") or name == "TipRec.BufferSizeGet":
            return commands.refusal(name, "module is not running")
        return super().answer(name, body, *more)


class Forgetful(Controller):
    """The tip recorder keeps heights alone."""

    def _tiprec_dataget(self):
        return {"channels": [14], "data": np.zeros((1, 0))}


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        (Nameless, "no signal 'Current (A)', 'Z (m)'"), (Bare, "refuses to tell TipRec.BufferSize (for drag), TipShaper.Props (for dip), AutoApproach.OnOff (for approach)"),
        (Forgetful, "does not record Current (A), X (m), Y (m), which drags need"),
    ],
)  # fmt: skip
def test_what_a_controller_lacks_is_said_before_anything_is_armed(room, kind, why):
    with pytest.raises(ProbeGymError, match=re.escape(why)):
        room(kind=kind)


class Stuck(Controller):
    """The bias does not move once it stands."""

    def _bias_set(self, bias):
        if self.bias == 0 or bias == 0:
            super()._bias_set(bias)


class Coarse(Controller):
    """The frame goes where it wants."""

    def _scan_frameset(self, x, y, width, height, angle):
        super()._scan_frameset(x, y, 1.01 * width, 1.01 * height, angle)


def test_what_was_set_is_read_back(room):
    with pytest.raises(InstrumentFault, match=r"Bias\., bias: the controller stands at 0\.5, it should be -1"):
        room(kind=Stuck).stm.execute(TOPOGRAPH, 60.0)
    r = room(kind=Coarse)
    with pytest.raises(Refused, match=r"Scan\.Frame, width"):
        r.stm.execute(LOOK, 60.0)
    assert not r.sent("ZCtrl.OnOffSet")


@pytest.mark.parametrize(("what", "error"), [("Scan.SpeedSet", Refused), ("Scan.Action", InstrumentFault), ("Bias.Set", InstrumentFault)])
def test_what_the_controller_refuses_counts_as_not_done_only_before_anything_was(room, what, error):
    r = room(plan=[{"kind": "refused", "what": what}])
    with pytest.raises(error, match="the controller is busy"):
        r.stm.execute(LOOK, 60.0)


def test_a_deadline_ends_a_command(room):
    r = room(pace=1.0)
    began = time.monotonic()
    with pytest.raises(InstrumentFault, match="longer than"):
        r.stm.execute(LOOK, 1.5)
    assert time.monotonic() - began < 1.5 + 2.0
    r.stm.safe(5.0)
    assert r.stm.is_safe() and not r.controller._scanning()
    r.stm.ready(5.0)
    r.stm.execute(MoveTip(HERE, 1e-6), 60.0)  # the connection is as good as before


def test_a_pulse_is_not_begun_when_it_cannot_end_in_time(room):
    r = room(STM, "train")
    with pytest.raises(InstrumentFault, match="was not begun"):
        r.stm.execute(PulseBias(HERE, np.array([3.0]), 5.0), 4.0)
    assert not r.sent("Bias.Pulse")


@pytest.mark.parametrize("told", [{}, {"ports": [6501, 6502]}, {"ports": [1, 1, 2]}, {"ports": [True, 2, 3]}, {"host": 3, "ports": [1, 2, 3]}])
def test_how_it_is_reached_must_be_told(told):
    with pytest.raises(ProbeGymError, match="port"):
        driver.writer(told | {"settings": {}}, "test")


def test_the_verbs_are_those_of_the_settings(room):
    r = room()
    least = {"AcquireTopograph", "SetBias", "MoveTip", "Withdraw"}
    assert {*least, "LocateAdatoms", "DragTip", "SetTunnelling", "Approach"} <= set(r.stm.descriptor.capabilities)
    left_out = dict.fromkeys(("adatoms", "drag", "pulse", "dip", "feedback", "approach"))
    assert set(room(**left_out).stm.descriptor.capabilities) == least
    assert np.allclose(r.stm.descriptor.capabilities["LocateAdatoms"].ranges["centre"].high, 50e-9)  # what the controller says of its piezo
    assert all(pair[0] != pair[1] for pair in pairwise(name for name, _ in r.sent()))  # never one command twice in a row
    assert safety.NO_BIAS < 0.01
