"""What the tip of an STM does, in the controller's own steps: land, change bias and setpoint, move, hold its height.

The tip comes down only by the feedback, and only with a bias and a setpoint that are read back. Bias and setpoint are changed one after
the other, by way of the lower conductance; a change of the bias' sign has the feedback off, as it would crash the tip on its way through zero.
"""

from __future__ import annotations

import numpy as np

from probegym.errors import ProbeGymError
from probegym.hardware_bridge.instruments import InstrumentFault
from probegym.hardware_bridge.instruments.nanonis import commands
from probegym.hardware_bridge.instruments.nanonis.descriptor import SETTLE_SECONDS, Facts
from probegym.hardware_bridge.instruments.nanonis.safety import FLOWS, NEAR_TOP, Safety, away, motor, top
from probegym.hardware_bridge.instruments.nanonis.settings import Settings
from probegym.hardware_bridge.instruments.nanonis.turn import Turn
from probegym.hardware_bridge.world import Refused

LOOKS = 3  # how often in a row the current must show that the tip is at the surface
HELD = 1e-9  # m that the tip may have crept while its feedback was off
SWITCH_SECONDS = 2.0  # that the controller takes to switch its feedback


class Tip:
    """The tip as far as this driver has brought it: landed says whether the feedback is to be on.

    asked: bias in V and setpoint in A that it goes to once it has landed at rest. safety: is told where the surface is.
    """

    def __init__(self, settings: Settings, facts: Facts, safety: Safety):
        self.settings, self.facts, self.safety = settings, facts, safety
        self.withdrawn()

    def withdrawn(self) -> None:
        """The tip is away, and nobody has asked for anything yet."""
        self.landed, self.asked = False, (self.settings.rest.bias, self.settings.rest.current)

    # ---- where it is ----

    def status(self, turn: Turn) -> int:
        """What the Z-controller does; raises InstrumentFault after a SafeTip event."""
        status = int(turn.ask("ZCtrl.StatusGet")["status"])
        if status == commands.Z_SAFE_TIP:
            raise InstrumentFault("SafeTip has taken the tip away: the current went above its threshold")
        return status

    def stays(self, turn: Turn) -> None:
        """Raise InstrumentFault where the feedback is not on: somebody else has taken the tip away."""
        if (status := self.status(turn)) != commands.Z_ON:
            raise InstrumentFault(f"the feedback is not on any more (status {status} of the Z-controller): the tip was taken away by somebody else")

    def settle(self, turn: Turn, seconds: float = SETTLE_SECONDS, lost: type[ProbeGymError] = InstrumentFault) -> None:
        """Wait until the setpoint flows; raises InstrumentFault where it does not. lost: raised where the surface is out of reach; the tip is withdrawn then."""
        wanted, seen = turn.ask("ZCtrl.SetpntGet")["setpoint"], 0

        def flows() -> bool:
            nonlocal seen
            self.stays(turn)
            seen = seen + 1 if wanted / FLOWS <= abs(turn.ask("Current.Get")["current"]) <= wanted * FLOWS else 0
            if not seen and self._at_bottom(turn):
                self.withdraw(turn)
                raise lost("the surface is not within the range of Z, the tip is withdrawn again: approach first, an operator must agree to it")
            return seen >= LOOKS

        turn.until(flows, f"the current did not come to the setpoint of {wanted:g} A", seconds)

    def _at_bottom(self, turn: Turn) -> bool:
        lowest = -self.facts.z / 2
        if turn.ask("ZCtrl.LimitsEnabledGet")["on"]:
            lowest = max(lowest, turn.ask("ZCtrl.LimitsGet")["low"])
        return bool(turn.ask("ZCtrl.ZPosGet")["z"] <= lowest + NEAR_TOP * self.facts.z)

    # ---- up and down ----

    def land(self, turn: Turn) -> None:
        """Bring the tip from where it is withdrawn to the surface, or see that it is there. Raises Refused where it could not get away from there, or does not get there."""
        s, status = self.settings, self.status(turn)
        if status != commands.Z_ON:
            if self.landed:
                raise InstrumentFault(f"the feedback is off (status {status} of the Z-controller): the tip was taken away by somebody else")
            if status != commands.Z_OFF:
                raise InstrumentFault(f"the Z-controller is busy (status {status}): the tip cannot land")
            turn.set("Bias.", bias=s.rest.bias)
            turn.set("ZCtrl.Setpnt", setpoint=s.rest.current)
            self._feedback(turn, True)
        self.landed = True
        self.settle(turn, s.land, Refused)
        z = float(turn.ask("ZCtrl.ZPosGet")["z"])
        self.safety.seen(z, motor(turn.ask))
        if (room := top(lambda name: turn.ask(name)) - z) < s.clearance:
            self.withdraw(turn)
            raise Refused(f"the tip could withdraw from this surface by {room:.3g} m, settings need a clearance of {s.clearance:g} m: raise the limit of Z, or approach anew; it is withdrawn")

    def withdraw(self, turn: Turn) -> None:
        """Take the tip away, and read that back."""
        self.landed = False
        turn.ask("ZCtrl.Withdraw", wait=0, timeout=-1)
        turn.until(lambda: away(lambda name: turn.ask(name)), "the tip is not read back to be withdrawn", self.settings.land)

    def hold(self, turn: Turn) -> float:
        """Switch the feedback off where the tip is; returns Z in m."""
        self.settle(turn)
        self._feedback(turn, False)
        return float(turn.ask("ZCtrl.ZPosGet")["z"])

    def release(self, turn: Turn, z: float | None) -> None:
        """Switch the feedback on again, if the tip is still at the height it was held at, in m; None where it may have moved by our own doing.

        Raises InstrumentFault when somebody else took it away.
        """
        here = turn.ask("ZCtrl.ZPosGet")["z"]
        if self.status(turn) != commands.Z_OFF or (z is not None and not abs(here - z) <= HELD) or away(lambda name: turn.ask(name)):
            raise InstrumentFault("the tip is not where its feedback was switched off: it was taken away by somebody else")
        self._feedback(turn, True)
        self.settle(turn)

    def _feedback(self, turn: Turn, on: bool) -> None:
        wanted = commands.Z_ON if on else commands.Z_OFF
        if on and not (turn.ask("Bias.Get")["bias"] and turn.ask("ZCtrl.SetpntGet")["setpoint"]):
            raise InstrumentFault("bias or setpoint is zero: a feedback that is on would run the tip into the surface")
        turn.ask("ZCtrl.OnOffSet", on=int(on))
        turn.until(lambda: self.status(turn) == wanted, f"the feedback is not read back as {'on' if on else 'off'}", SWITCH_SECONDS)

    # ---- bias and setpoint ----

    def unchanged(self, turn: Turn, bias: float, current: float) -> None:
        """Raise InstrumentFault where bias (V) or setpoint (A) do not stand as they were brought to: somebody else has changed them."""
        if unlike := turn.unlike("Bias.", {"bias": bias}) or turn.unlike("ZCtrl.Setpnt", {"setpoint": current}):
            raise InstrumentFault(f"somebody else is at work at this controller: {unlike}")

    def rest(self, turn: Turn) -> None:
        """Bias and setpoint at which nothing is disturbed."""
        self.tune(turn, self.settings.rest.bias, self.settings.rest.current)

    def tune(self, turn: Turn, bias: float, current: float) -> None:
        """Bring a tip that has landed to bias (V) and setpoint (A)."""
        was, flowed = float(turn.ask("Bias.Get")["bias"]), float(turn.ask("ZCtrl.SetpntGet")["setpoint"])
        changes = [lambda: self._bias(turn, was, bias), lambda: turn.set("ZCtrl.Setpnt", setpoint=current)]
        needed = [not np.float32(was) == np.float32(bias), not np.float32(flowed) == np.float32(current)]
        bias_first = was == 0 or flowed / abs(bias) <= current / abs(was)
        for at in (0, 1) if bias_first else (1, 0):
            if needed[at]:
                changes[at]()
                self.settle(turn)

    def _bias(self, turn: Turn, was: float, bias: float) -> None:
        if was * bias > 0:
            turn.set("Bias.", bias=bias)
            return
        z = self.hold(turn)
        turn.set("Bias.", bias=bias)
        self.release(turn, z)

    # ---- along the surface ----

    def move(self, turn: Turn, place: np.ndarray, speed: float, feedback: bool = True) -> None:
        """Move the tip to a place (2,) m at so many m/s, and wait until it is there; with the feedback on, unless its height is held.

        Raises InstrumentFault when it does not arrive, or the feedback is switched meanwhile.
        """
        turn.set("FolMe.Speed", speed=speed, custom=1)
        x, y = map(float, place)
        here = turn.ask("FolMe.XYPosGet", wait=0)
        turn.ask("FolMe.XYPosSet", x=x, y=y, wait=0)
        wanted = commands.Z_ON if feedback else commands.Z_OFF

        def there() -> bool:
            if (status := self.status(turn)) != wanted:
                raise InstrumentFault(f"the feedback was switched during a move (status {status} of the Z-controller): somebody else is at work")
            now = turn.ask("FolMe.XYPosGet", wait=0)
            return bool(np.hypot(now["x"] - x, now["y"] - y) <= self.settings.place)

        turn.until(there, "the tip did not arrive", 1.5 * float(np.hypot(here["x"] - x, here["y"] - y)) / speed + SWITCH_SECONDS)
