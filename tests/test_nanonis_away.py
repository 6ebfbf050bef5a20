"""When a tip under a Nanonis controller counts as away: clearance from the surface that was seen, limits of Z, and where motor or approach took it since."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from probegym.errors import ProbeGymError
from probegym.hardware_bridge.commands import Approach, MoveTip, Withdraw
from probegym.hardware_bridge.instruments import InstrumentFault
from probegym.hardware_bridge.instruments.nanonis import driver
from probegym.hardware_bridge.instruments.nanonis.controller import Controller
from probegym.hardware_bridge.world import Refused
from tests.nanonis_helpers import reopened, stood
from tests.nanonis_room import HERE, rooms

MOVE = MoveTip(HERE, 1e-6)


@pytest.fixture
def room():
    yield from rooms()


def test_a_surface_too_near_to_the_highest_z_is_left_and_is_no_safe_state(room):
    r = room(kind=stood(limits=(12e-9, -200e-9)))
    with pytest.raises(Refused, match="clearance of 2e-08 m"):
        r.stm.execute(MOVE, 60.0)
    assert not r.controller.on and r.controller._z(time.monotonic()) == 12e-9
    assert not r.stm.is_safe()
    with pytest.raises(InstrumentFault, match="as far away as it goes, but less than the clearance"):
        r.stm.safe(0.5)


def test_a_tip_that_is_at_the_surface_when_it_is_opened_shows_where_that_is(room):
    r = room(kind=stood(limits=(12e-9, -200e-9)))
    guardian = driver.safety(r.told, "guardian")
    assert guardian.surface is None and guardian.is_safe()  # nobody knows yet
    guardian.close()
    r.controller.answer("Bias.Set", np.array([0.5], ">f4").tobytes())
    r.controller.answer("ZCtrl.OnOffSet", (1).to_bytes(4, "big"))
    guardian = reopened(driver.safety, r.told)
    assert 0 < guardian.surface < 2e-9
    with pytest.raises(InstrumentFault, match="less than the clearance of 2e-08 m from where the surface was"):
        guardian.safe(0.5)
    assert not r.controller.on and not guardian.is_safe()
    guardian.close()


def stopped(stm, command=MOVE):
    with pytest.raises(InstrumentFault):
        stm.execute(command, 60.0)


def test_a_tip_on_its_way_down_is_not_taken_for_one_at_the_surface(room):
    r = room(pace=0.1)  # it takes two seconds down
    thread = threading.Thread(target=stopped, args=(r.stm,), daemon=True)
    thread.start()
    end = time.monotonic() + 10.0
    while not r.controller.on and time.monotonic() < end:
        time.sleep(0.002)
    assert r.controller._z(time.monotonic()) > 50e-9 and not r.stm.is_safe()
    r.stm.safe(15.0)
    thread.join(20.0)
    assert r.stm.is_safe() and r.stm.safety.surface is None


class Encoded(Controller):
    """Its motor tells another position than the one it has, or none."""

    at, blind = (0.0, 0.0, 0.0), False

    def _motor_posget(self, group, timeout):
        if self.blind:
            raise ProbeGymError("no encoder")
        return dict(zip("xyz", self.at, strict=True))


def cornered(room, blind=False):
    """A tip at the surface, as driver and guardian have seen, below a limit of Z that leaves it no clearance."""
    r = room(kind=Encoded)
    guardian = driver.safety(r.told, "guardian")
    r.controller.blind = blind
    r.stm.execute(MOVE, 60.0)
    assert not guardian.is_safe() and guardian.surface is not None
    r.controller.limits, r.controller.limited = (15e-9, -200e-9), 1
    for one, safety in ((r.stm, r.stm.safety), (guardian, guardian)):
        with pytest.raises(InstrumentFault):
            one.safe(0.4)
        assert "raise the limit of Z" in safety.lacks()
    with pytest.raises(Refused, match="not in its safe state: the tip is as far away as it goes, but less than the clearance"):
        r.stm.ready(5.0)
    return r, guardian


def test_a_tip_without_clearance_is_away_once_the_motor_has_taken_it_there(room):
    r, guardian = cornered(room)
    for at in ((0.0, 0.0, 0.3e-6), (0.0, 0.0, -1e-6), (1e-6, 0.0, 0.0), (0.0, 0.0, 0.51e-6)):  # noise; towards the sample; beside it; less than the clearance
        r.controller.at = at
        assert not r.stm.is_safe() and not guardian.is_safe()
    r.controller.at = (0.0, 0.0, 1e-6)
    for one in (r.stm, guardian):
        one.safe(5.0)
        assert one.is_safe() and r.controller.bias == 0
    r.stm.ready(5.0)
    guardian.close()


def test_a_tip_that_the_motor_took_towards_the_sample_is_not_away_at_the_highest_z(room):
    r = room(kind=Encoded)
    r.stm.execute(MOVE, 60.0)
    r.stm.execute(Withdraw(), 60.0)
    r.controller.at = (0.0, 0.0, -1e-6)
    with pytest.raises(InstrumentFault):
        r.stm.safe(0.4)
    assert r.controller.bias == 0.5 and "nobody knows how near it is" in r.stm.safety.lacks()
    r.controller.at = (0.0, 0.0, 0.0)
    r.stm.safe(5.0)
    assert r.stm.is_safe()


def test_where_the_motor_tells_nothing_a_higher_limit_of_z_or_a_tip_that_went_by_helps(room):
    r, guardian = cornered(room, blind=True)
    r.controller.limited = 0
    guardian.safe(5.0)
    assert guardian.is_safe() and guardian.surface is not None
    r.controller.coarse[2] = 5e-6  # by hand: the surface is out of reach
    r.controller.answer("Bias.Set", np.array([0.5], ">f4").tobytes())
    r.controller.answer("ZCtrl.OnOffSet", (1).to_bytes(4, "big"))
    r.controller.bias = 0.5e-3  # as good as none: that no current flows shows nothing then
    assert not guardian.is_safe() and guardian.surface is not None
    r.controller.bias = 0.5
    assert not guardian.is_safe() and guardian.surface is None
    guardian.close()


def test_an_approach_that_somebody_sees_takes_the_surface_elsewhere(room):
    r = room(kind=Encoded)
    r.stm.execute(MOVE, 60.0)
    r.stm.execute(Withdraw(), 60.0)
    assert not r.stm.is_safe() and r.stm.safety.surface is not None
    r.controller.approaches = time.monotonic() + 1e3
    assert not r.stm.is_safe() and r.stm.safety.surface is None


def test_an_approach_that_is_broken_off_leaves_no_surface_that_was_before_it(room):
    r = room(pace=1.0, kind=Encoded)
    r.controller.blind, r.controller.coarse[2], r.stm.safety.surface = True, 900e-6, 195e-9
    thread = threading.Thread(target=stopped, args=(r.stm, Approach()), daemon=True)
    thread.start()
    end = time.monotonic() + 10.0
    while not r.controller.approaches and time.monotonic() < end:
        time.sleep(0.002)
    r.stm.safe(5.0)
    thread.join(20.0)
    assert r.stm.is_safe() and r.controller.bias == 0


def test_after_an_approach_the_surface_is_somewhere_else(room):
    r = room()
    r.stm.execute(MOVE, 60.0)
    r.stm.execute(Withdraw(), 60.0)
    r.controller.coarse[2] = 5e-6
    r.stm.safety.surface = 195e-9  # as if it had been reached there
    r.stm.execute(Approach(), 60.0)
    r.stm.safe(5.0)
    assert r.stm.is_safe()
