"""An STM behind a Nanonis controller comes to its safe state, whatever the wire, the controller, or somebody else at it does meanwhile."""

from __future__ import annotations

import contextlib
import threading
import time

import numpy as np
import pytest

from probegym.errors import ProbeGymError
from probegym.hardware_bridge.commands import MoveTip, PulseBias
from probegym.hardware_bridge.instruments import InstrumentFault, Unreached
from probegym.hardware_bridge.instruments.nanonis import commands, driver, faults, images, protocol
from probegym.hardware_bridge.instruments.nanonis.controller import Controller
from probegym.hardware_bridge.world import Refused
from tests.nanonis_room import ADATOMS, HERE, LOOK, STM, drag, rooms


@pytest.fixture
def room():
    yield from rooms()


def tried(stm, command, outcome):
    try:
        outcome.append(stm.execute(command, 60.0))
    except ProbeGymError as error:
        outcome.append(error)


class Restoring(Controller):
    """A pulse sets the bias back when it ends, whatever happened meanwhile."""

    def _bias_pulse(self, *of, **named):
        was = self.bias
        super()._bias_pulse(*of, **named)
        self.bias = was


def test_what_a_command_undoes_of_the_safe_state_is_done_again(room):
    r = room(STM, "train", pace=1.0, kind=Restoring)
    r.stm.execute(MoveTip(HERE, 1e-6), 60.0)
    outcome = []
    thread = threading.Thread(target=tried, args=(r.stm, PulseBias(HERE, np.array([3.0]), 2.0), outcome), daemon=True)
    thread.start()
    end = time.monotonic() + 20.0
    while r.controller.occupied[0] != "a bias pulse" and time.monotonic() < end:
        time.sleep(0.01)
    r.stm.safe(3.0)
    thread.join(20.0)
    assert isinstance(outcome[0], InstrumentFault) and r.controller.bias == 0 and r.stm.is_safe()


class Slow(Controller):
    """A bias that was asked for before the safe state is set at its very end."""

    slow = False

    def answer(self, name, body, *more):
        late = self.slow and name == "Bias.Set" and any(body)
        if late:
            self.entered.set()
            self.last.wait(5.0)
        told = super().answer(name, body, *more)
        if late:
            self.slow = False
            self.done.set()
        elif self.slow and name == "SafeTip.OnOffSet":
            self.last.set()
            self.done.wait(5.0)
            time.sleep(0.05)  # until the driver has the answer to it
        return told


def test_what_was_sent_before_the_safe_state_and_comes_during_it_is_undone(room):
    r = room(kind=Slow)
    r.controller.entered, r.controller.last, r.controller.done = (threading.Event() for _ in range(3))
    r.controller.slow = True
    thread = threading.Thread(target=tried, args=(r.stm, MoveTip(HERE, 1e-6), outcome := []), daemon=True)
    thread.start()
    assert r.controller.entered.wait(10.0)
    r.stm.safe(5.0)
    assert r.controller.done.is_set() and r.controller.bias == 0 and r.stm.is_safe()
    thread.join(20.0)
    assert isinstance(outcome[0], InstrumentFault) and r.stm.is_safe()


def test_the_tip_goes_first_and_the_bias_last(room):
    r = room()
    r.stm.execute(LOOK, 60.0)
    r.controller.safe_tip["on"] = 0  # as in the middle of a dip
    r.lines.clear()
    r.stm.safe(5.0)
    names = [name for name, of in r.sent()]
    assert names[0] == "ZCtrl.Withdraw" and names.index("Bias.Set") > names.index("ZCtrl.ZPosGet") and "Scan.Action" in names and "FolMe.Stop" in names
    assert r.controller.bias == 0 and r.controller.safe_tip["on"] and r.stm.is_safe()
    with pytest.raises(Refused, match="safe state"):
        r.stm.execute(LOOK, 60.0)


class Sticking(Controller):
    """The tip does not withdraw."""

    sticks = False

    def _zctrl_withdraw(self, wait, timeout):
        if not self.sticks:
            super()._zctrl_withdraw(wait, timeout)


def test_the_bias_stays_while_the_tip_is_not_read_back_to_be_away(room):
    r = room(kind=Sticking)
    r.stm.execute(LOOK, 60.0)
    r.controller.sticks = True
    with pytest.raises(InstrumentFault, match="not read back to be away"):
        r.stm.safe(0.4)
    assert r.controller.bias == 0.5 and r.controller.on and not r.stm.is_safe()
    r.controller.sticks = False
    r.stm.safe(5.0)
    assert r.stm.is_safe() and r.controller.bias == 0


@pytest.mark.parametrize(
    ("twin_name", "command"),
    [(ADATOMS, LOOK), (ADATOMS, drag((0.0, 0.0), (10e-9, 0.0))), (ADATOMS, MoveTip(np.array([[45e-9, 0.0]]), 1e-9)), (STM, PulseBias(HERE, np.array([3.0]), 4.0))],
    ids=["scan", "drag", "move", "pulse that blocks the line"],
)
def test_the_safe_state_does_not_wait_for_a_command(room, twin_name, command):
    r = room(twin_name, "steady-tip" if twin_name == ADATOMS else "train", pace=1.0)
    outcome = []
    thread = threading.Thread(target=tried, args=(r.stm, command, outcome), daemon=True)
    thread.start()
    last = {"LocateAdatoms": "Scan.WaitEndOfScan", "DragTip": "FolMe.XYPosSet", "MoveTip": "FolMe.XYPosSet", "PulseBias": "ZCtrl.SetpntGet"}[command.verb]
    end = time.monotonic() + 20.0
    while not (r.sent(last) and r.controller.on | bool(r.controller.moving)) and time.monotonic() < end:
        time.sleep(0.02)
    time.sleep(0.5)
    assert thread.is_alive()
    began = time.monotonic()
    r.stm.safe(3.0)
    assert time.monotonic() - began < 3.0 + 2.0 and r.stm.is_safe()
    thread.join(15.0)  # a pulse that has begun goes on, but for the driver
    assert isinstance(outcome[0], InstrumentFault) and r.stm.is_safe()


def test_after_a_guardian_has_acted_the_tip_does_not_land_again(room):
    r = room()
    r.stm.execute(MoveTip(HERE, 50e-9), 60.0)
    guardian = driver.safety(r.told, "guardian")
    guardian.safe(5.0)
    assert guardian.is_safe()
    with pytest.raises(InstrumentFault, match="taken away by somebody else"):
        r.stm.execute(LOOK, 60.0)
    assert guardian.is_safe()
    guardian.close()


def test_a_guardian_connects_afresh(room):
    r = room()
    r.stm.execute(MoveTip(HERE, 50e-9), 60.0)
    guardian = driver.safety(r.told, "guardian")
    r.server.held[r.told["ports"][2]].close()  # the wire breaks
    guardian.safe(5.0)
    assert guardian.is_safe() and r.controller.bias == 0
    guardian.close()


def test_where_nothing_listens_any_more_a_guardian_can_give_up(room):
    r = room()
    guardian = driver.safety(r.told, "guardian")
    r.on = False
    end = time.monotonic() + 20.0
    while time.monotonic() < end and not guardian.line.closed:
        with contextlib.suppress(InstrumentFault):
            guardian.safe(0.3)
    while time.monotonic() < end:
        try:
            guardian.safe(0.3)
        except InstrumentFault as error:
            if "nothing listens on" in str(error):
                assert isinstance(error, Unreached)
                break
    else:
        raise AssertionError("it did not end")
    for opened in (driver.writer, driver.safety):
        with pytest.raises(Unreached, match="nothing listens on"):
            opened(r.told, "another")


def test_a_port_serves_one(room):
    r = room()
    with pytest.raises(Refused, match=rf"another client holds port {r.told['ports'][1]} of 127\.0\.0\.1 .*is held by 127\.0\.0\.1:\d+"):  # which ours tells
        driver.writer(r.told, "another")
    r.stm.close()
    end = time.monotonic() + 10.0
    while True:
        try:
            driver.writer(r.told, "another").close()
            break
        except Refused:
            assert time.monotonic() < end
            time.sleep(0.05)


# ---- faults of the wire, on the whole way ----


@pytest.mark.parametrize("what", ["Scan.FrameDataGrab", "ZCtrl.OnOffSet", "FolMe.XYPosGet", "ZCtrl.SetpntGet"])
@pytest.mark.parametrize("kind", faults.KINDS)
def test_a_fault_of_the_wire_never_becomes_a_reading(room, kind, what, monkeypatch):
    monkeypatch.setattr(faults, "LATE_SECONDS", 1.5)
    if kind in ("late", "silent", "trickle"):
        monkeypatch.setattr(images, "GRAB_SECONDS", 1.0 if kind != "trickle" else 15.0)  # a loaded machine trickles slowly
    r = room(plan=[{"kind": kind, "what": what, "at": 1}])
    began, at = time.monotonic(), r.atom()
    try:
        for _ in range(2):
            seen = r.stm.execute(LOOK, 20.0).values
            assert np.hypot(*(seen["position"][0, 0] - r.atom())) < 20e-12
            at = seen["position"][0, 0]
            r.stm.execute(drag(at, at + 0.3e-9, 64), 20.0)
        assert kind == "trickle"
    except (InstrumentFault, Refused) as error:
        assert kind != "trickle", error
    assert time.monotonic() - began < 25.0
    r.stm.safe(2.0)
    assert r.stm.is_safe() and r.controller.bias == 0


@pytest.mark.parametrize("kind", ["drop before", "drop body", "drop after", "silent", "other", "garbage", "refused", "short"])
@pytest.mark.parametrize("what", ["ZCtrl.Withdraw", "ZCtrl.ZPosGet"])
def test_the_safe_state_is_reached_over_a_faulty_wire(room, kind, what):
    r = room()
    r.stm.execute(MoveTip(HERE, 50e-9), 60.0)
    r.server.faults = faults.WireFaults([{"kind": kind, "what": what, "at": 0}])
    r.stm.safe(3.0)
    assert r.stm.is_safe() and r.controller.bias == 0 and not r.controller.on


# ---- a controller at which others work, too ----


class Frozen(Controller):
    """Sends the first image again and again."""

    def _recorded(self, channel, scan):
        self.first = getattr(self, "first", {})
        return self.first.setdefault(channel, super()._recorded(channel, scan))


class Stopping(Controller):
    """Somebody stops the second scan."""

    scans = 0

    def _start_scan(self, upwards, now):
        super()._start_scan(upwards, now)
        self.scans += 1
        if self.scans == 2:
            self.scan.over = False
            self.scan.ends = now + 1e3
            self._halt_scan(now)


class Elsewhere(Controller):
    """The image is not where it was asked for."""

    def _recorded(self, channel, scan):
        return super()._recorded(channel, scan) + (3e-9 if channel == 12 else 0.0)


class Mirrored(Controller):
    """Sends lines from the top, and pixels from the right."""

    def _recorded(self, channel, scan):
        return np.flip(super()._recorded(channel, scan))


@pytest.mark.parametrize(("kind", "why"), [(Frozen, "same to the last bit"), (Stopping, "not complete"), (Elsewhere, "it is another one")])
def test_an_image_that_is_not_the_one_asked_for_is_none(room, kind, why):
    r = room(kind=kind)
    with pytest.raises(InstrumentFault, match=why):
        for _ in range(2):
            r.stm.execute(LOOK, 60.0)


def test_lines_and_pixels_may_come_in_any_order(room):
    r = room(kind=Mirrored)
    assert np.hypot(*(r.stm.execute(LOOK, 60.0).values["position"][0, 0] - r.atom())) < 20e-12


def test_a_scan_that_ends_too_early_is_noticed_where_time_is_real(room):
    r = room(real_time=True)  # which it is not at this pace
    with pytest.raises(InstrumentFault, match="somebody stopped it"):
        r.stm.execute(LOOK, 60.0)


def test_a_scan_of_somebody_else_is_not_stopped(room):
    r = room(pace=1.0)
    r.stm.execute(MoveTip(HERE, 1e-6), 60.0)
    r.controller.answer("Scan.Action", protocol.encode(commands.COMMANDS["Scan.Action"].takes, {"action": 0, "direction": 1}))
    with pytest.raises(Refused, match="not started here"):
        r.stm.execute(LOOK, 60.0)
    assert r.controller._scanning()


class Sensitive(Controller):
    """SafeTip acts at less than it says."""

    def _safetip_propsset(self, recover, pause, threshold):
        super()._safetip_propsset(recover, pause, threshold)
        self.told, self.safe_tip["threshold"] = threshold, 51e-9

    def _safetip_propsget(self):
        return super()._safetip_propsget() | {"threshold": getattr(self, "told", 1e-9)}


def test_a_safe_tip_event_ends_a_drag(room):
    r = room(kind=Sensitive)
    at = r.stm.execute(LOOK, 60.0).values["position"][0, 0]
    with pytest.raises(InstrumentFault, match="SafeTip has taken the tip away"):
        r.stm.execute(drag(at, at + 1e-9), 60.0)
