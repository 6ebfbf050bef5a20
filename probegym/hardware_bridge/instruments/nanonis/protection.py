"""What the controller itself protects the tip with, and how it switches its feedback: tightened for a run, and given back as it was found.

SafeTip: an operator's threshold that is lower than that of the settings stays, and commands are judged by it; a higher one comes down to the
settings. It is theirs where SafeTip is on at an arming and stands otherwise than the driver left it; the threshold of one that is off protects nothing.
Limits of Z are the operator's alone: they are never widened, nor switched; commands are refused when they change during a run.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import numpy as np

from probegym.hardware_bridge.commands import Command
from probegym.hardware_bridge.instruments.nanonis import commands
from probegym.hardware_bridge.instruments.nanonis.client import Connection
from probegym.hardware_bridge.instruments.nanonis.protocol import ControllerError, Values
from probegym.hardware_bridge.instruments.nanonis.settings import CONTACT_SHARE, Settings
from probegym.hardware_bridge.instruments.nanonis.turn import ROUNDING, Turn
from probegym.hardware_bridge.world import Refused

SET = ("SafeTip.Props", "ZCtrl.WithdrawRate", "ZCtrl.TipLift", "ZCtrl.SwitchOffDelay")
KEPT = ("ZCtrl.LimitsEnabled", "ZCtrl.Limits")
WORKING = ("Bias.", "ZCtrl.Setpnt", "ZCtrl.Gain")


class Protection:
    """found: what stood before the driver changed it, by name; ours: what it has set. threshold: A, at which SafeTip takes the tip away.

    theirs: whether SafeTip is an operator's, as of the last arming.
    """

    def __init__(self, settings: Settings):
        self.settings, self.threshold = settings, settings.safe_tip.threshold
        self.found: dict[str, Values] = {}
        self.theirs = False
        self.ours: dict[str, Values] = {}
        self.limits: dict[str, Values] = {}
        self.left: dict[str, Values] = {}  # bias, setpoint and gains as the last command left them; nothing where nobody knows

    def take(self, turn: Turn) -> None:
        """Tighten, read back, and remember what else stands; raises Refused."""
        s = self.settings
        for name in SET:
            told = turn.ask(f"{name}Get")
            if not alike(told, self.ours.get(name, {})):  # an operator's wish, also where it goes back to what was found before
                self.found[name] = told
                if name == "SafeTip.Props":
                    self.theirs = bool(turn.ask("SafeTip.OnOffGet")["on"])
        self.threshold = min(s.safe_tip.threshold, self.found["SafeTip.Props"]["threshold"]) if self.theirs else s.safe_tip.threshold
        self._near(s.rest.current)
        ours: dict[str, Values] = {
            "SafeTip.Props": {"recover": 0, "pause": 1, "threshold": self.threshold},  # one that recovers by itself would land behind our back
            "ZCtrl.WithdrawRate": {"rate": max(s.withdraw, self.found["ZCtrl.WithdrawRate"]["rate"])},
            "ZCtrl.TipLift": {"lift": 0.0},  # a drag goes at the height of its setpoint
            "ZCtrl.SwitchOffDelay": {"delay": s.hold},
        }
        for name, values in ours.items():
            self.ours[name] = values  # first: what was sent may have been done
            turn.prepared(name, **values)
        turn.prepared("SafeTip.OnOff", reads={"on": 1, "status": None}, status=commands.SAFE_TIP_ON)
        self.limits = {name: turn.ask(f"{name}Get") for name in KEPT}
        self.leave(turn)

    def check(self, turn: Turn, command: Command) -> None:
        """Raise Refused where an operator has changed something since, or a setpoint is too near to where SafeTip acts."""
        wanted = {"SafeTip.OnOff": {"on": 1}} | self.ours | self.limits
        for name, values in wanted.items():
            if unlike := turn.unlike(name, values):
                raise Refused(f"nothing passes while the tip is not protected as it was when it was armed: {unlike}; arm anew")
        self._near(float(np.max(getattr(command, "current", 0.0))))

    def changed(self, turn: Turn) -> str:
        """What somebody else has changed of bias, setpoint and gains since the last command, as one line; nothing when all is well."""
        return next(filter(None, (turn.unlike(name, values) for name, values in self.left.items())), "")

    def leave(self, turn: Turn) -> None:
        """Remember what a command leaves."""
        self.left = {name: turn.ask(f"{name}Get") for name in WORKING}

    def give_back(self, line: Connection) -> None:
        """Set what was found, except where an operator has changed it meanwhile. Only for a tip that is away. What the controller refuses stays, which is tighter."""
        off = False
        for name, values in self.ours.items():
            with suppress(ControllerError):
                if alike(line.ask(f"{name}Get"), values):
                    line.ask(f"{name}Set", **self.found[name])
                    off |= name == "SafeTip.Props" and not self.theirs  # else somebody relies on it
        if off:
            line.ask("SafeTip.OnOffSet", status=commands.SAFE_TIP_OFF)

    def _near(self, current: float) -> None:
        if not current <= CONTACT_SHARE * self.threshold * (1 + ROUNDING):
            told = f"a setpoint of {current:g} A is above {CONTACT_SHARE:g} of SafeTip's threshold, which stands at {self.threshold:g} A"
            raise Refused(f"{told}: ask for less, or raise the threshold at the controller and arm anew")


def alike(told: Values, wanted: dict[str, Any]) -> bool:
    """Whether what is read back is what was set."""
    return set(told) == set(wanted) and all(np.isclose(told[field], value, rtol=ROUNDING, atol=0.0) for field, value in wanted.items())
