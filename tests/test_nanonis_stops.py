"""What still moves, or gets ready, while an STM behind a Nanonis controller is sent to its safe state: approach, motor, and the driver's own ``ready``."""

from __future__ import annotations

import contextlib
import threading
import time

import pytest

from probegym.errors import ProbeGymError
from probegym.hardware_bridge.commands import MoveTip
from probegym.hardware_bridge.instruments import InstrumentFault
from probegym.hardware_bridge.instruments.nanonis.controller import Controller
from probegym.hardware_bridge.world import Refused
from tests.nanonis_room import HERE, LOOK, rooms


@pytest.fixture
def room():
    yield from rooms()


# ---- approach and motor ----


class Approaching(Controller):
    """An approach that withdrawing does not end, only being told to stop; the first word of that is lost."""

    going, deaf, closed_module = False, 1, False

    def _autoapproach_onoffset(self, on):
        if not on and self.deaf > 0:
            self.deaf -= 1
        else:
            self.going = bool(on)

    def _autoapproach_open(self):
        self.closed_module = False

    def _autoapproach_onoffget(self):
        if self.closed_module:
            raise ProbeGymError("the module is not open")
        return {"on": int(self.going)}

    def _bias_set(self, bias):
        assert bias or not self.going, "the bias goes to zero while an approach goes on"
        super()._bias_set(bias)


def test_an_approach_that_goes_on_is_not_safe_and_is_stopped_again(room):
    r = room(kind=Approaching)
    r.stm.execute(MoveTip(HERE, 1e-6), 60.0)
    r.controller.going, r.controller.deaf = True, 1
    r.lines.clear()
    r.stm.safe(5.0)
    assert len(r.sent("AutoApproach.OnOffSet")) >= 2 and not r.controller.going and r.controller.bias == 0 and r.stm.is_safe()
    r.controller.going = True
    assert not r.stm.is_safe()


def test_an_approach_that_cannot_be_stopped_keeps_the_bias(room):
    r = room(kind=Approaching)
    r.stm.execute(MoveTip(HERE, 1e-6), 60.0)
    r.controller.going, r.controller.deaf = True, 10**6
    with pytest.raises(InstrumentFault, match="the approach goes on: the bias stays"):
        r.stm.safe(0.5)
    assert r.controller.bias == 0.5 and not r.controller.on and not r.stm.is_safe()
    r.controller.deaf = 0
    r.stm.safe(5.0)
    assert r.stm.is_safe()


def test_an_approach_that_nobody_tells_of_is_asked_for_with_its_module_open(room):
    r = room(kind=Approaching)
    r.controller.closed_module = True
    r.controller.deaf = 0
    r.stm.safe(5.0)
    assert r.stm.is_safe() and not r.controller.closed_module
    r.controller._autoapproach_open = lambda: None
    r.controller.closed_module = True
    with pytest.raises(InstrumentFault, match=r"the approach goes on, or nobody tells: .*the module is not open"):
        r.stm.safe(0.5)


class Closed(Approaching):
    """The tip is at the surface, and the module of the approach is not open yet."""

    closed_module = True

    def __init__(self, world, pace):
        super().__init__(world, pace)
        self.on = True


def test_the_module_of_the_approach_is_opened_before_it_counts_as_lacking(room):
    assert not room(kind=Closed).controller.closed_module


class Running(Controller):
    """A motor that runs until it is stopped, or is not there at all."""

    begun, deaf, absent, blind = 0.0, 0, False, False

    def _motor_posget(self, group, timeout):
        if self.absent or self.blind:
            raise ProbeGymError("no encoder")
        return super()._motor_posget(group, timeout) | {"z": 1e-3 - 20e-6 * (time.monotonic() - self.begun) * bool(self.begun)}

    def _motor_freqampget(self, axis):
        if self.absent:
            raise ProbeGymError("no motor")
        return super()._motor_freqampget(axis)

    def _motor_stopmove(self):
        if self.absent:
            raise ProbeGymError("no motor")
        if self.deaf:
            self.deaf -= 1
            raise ProbeGymError("busy")
        self.begun = 0.0


@pytest.mark.parametrize("blind", [False, True])
def test_a_motor_that_runs_is_stopped_again_until_it_is(room, blind):
    r = room(kind=Running)
    r.controller.begun, r.controller.deaf, r.controller.blind = time.monotonic(), 2, blind
    assert blind or not r.stm.is_safe()
    r.stm.safe(5.0)
    assert not r.controller.begun and not r.controller.deaf and r.stm.is_safe()
    r.controller.begun, r.controller.deaf = time.monotonic(), 10**6
    with pytest.raises(InstrumentFault, match="the motor was not stopped" if blind else "the motor moves"):
        r.stm.safe(0.5)


def test_an_stm_without_a_motor_is_safe_without_one(room):
    r = room(kind=Running)
    r.controller.absent = True
    r.stm.safe(5.0)
    assert r.stm.is_safe()


# ---- getting ready ----


class Late(Controller):
    """Does something once in the middle of what is asked of it."""

    meanwhile, when = staticmethod(lambda: None), ""

    def answer(self, name, body, *more):
        told = super().answer(name, body, *more)
        if name == self.when:
            self.when = ""
            self.meanwhile()
        return told


def refused_and_safe(r):
    with pytest.raises(Refused, match="safe state"):
        r.stm.execute(LOOK, 60.0)
    assert r.stm.is_safe()


@pytest.mark.parametrize("when", ["SafeTip.PropsGet", "ZCtrl.SwitchOffDelaySet", "ZCtrl.GainGet"])
def test_a_safe_that_comes_while_the_instrument_gets_ready_wins(room, when):
    r = room(kind=Late)
    r.stm.safe(5.0)
    r.controller.when, r.controller.meanwhile = when, lambda: r.stm.safe(5.0)
    with pytest.raises((Refused, InstrumentFault), match="safe state"):
        r.stm.ready(5.0)
    assert not r.controller.when
    refused_and_safe(r)
    r.stm.ready(5.0)
    r.stm.execute(LOOK, 60.0)


def test_a_safe_that_comes_after_the_last_look_of_getting_ready_wins(room):
    r = room()
    r.stm.safe(5.0)
    thread = threading.Thread(target=r.stm.safe, args=(5.0,), daemon=True)
    withdrawn = r.stm.tip.withdrawn

    def window():
        withdrawn()
        thread.start()
        end = time.monotonic() + 10.0
        while not r.stm.interrupted.is_set() and time.monotonic() < end:
            time.sleep(0.001)

    r.stm.tip.withdrawn = window
    with pytest.raises(Refused, match="was sent to its safe state while it got ready"):
        r.stm.ready(5.0)
    thread.join(10.0)
    refused_and_safe(r)


def test_nothing_gets_ready_while_the_safe_state_is_taken(room):
    r = room(kind=Late)
    r.stm.execute(MoveTip(HERE, 1e-6), 60.0)
    told = []

    def ready():
        try:
            r.stm.ready(5.0)
            told.append(r.stm.execute(MoveTip(HERE, 1e-6), 60.0))  # would land while the bias goes to zero
        except ProbeGymError as error:
            told.append(error)

    r.controller.when, r.controller.meanwhile = "FolMe.Stop", ready
    r.stm.safe(5.0)
    assert len(told) == 1 and isinstance(told[0], Refused) and "on its way to its safe state" in str(told[0])
    refused_and_safe(r)


def quietly(do, *of):
    with contextlib.suppress(ProbeGymError):  # which is what it is for
        do(*of)


def test_of_many_that_say_safe_and_ready_at_once_safe_wins(room):
    r = room()
    for _ in range(10):
        threads = [threading.Thread(target=quietly, args=of, daemon=True) for of in ((r.stm.execute, LOOK, 60.0), (r.stm.ready, 5.0))]
        for thread in threads:
            thread.start()
        r.stm.safe(5.0)
        for thread in threads:
            thread.join(20.0)
        if not r.stm.halted.is_set():  # it got ready after that: that is in order, the tip may have landed
            r.stm.safe(5.0)
        refused_and_safe(r)
        r.stm.ready(5.0)
