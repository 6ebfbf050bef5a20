"""How an STM behind a Nanonis controller is made safe, over a connection that does nothing else.

The tip goes away first, whatever goes on: the controller's own Withdraw switches the feedback off and retracts in one command, so there is
no moment at which the tip stands still near the surface. What could bring it back is stopped next. The bias goes to zero last, and only once
the tip is read back to be away: a feedback that is still on would follow a vanishing bias into the surface. SafeTip ends switched on.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from probegym.errors import ProbeGymError
from probegym.hardware_bridge.instruments import InstrumentFault
from probegym.hardware_bridge.instruments.nanonis import commands
from probegym.hardware_bridge.instruments.nanonis.client import CONNECT_SECONDS, LEAST_SECONDS, Connection
from probegym.hardware_bridge.instruments.nanonis.protocol import ControllerError, Values
from probegym.hardware_bridge.world import Refused

ANSWER_SECONDS, LOOKS_SECONDS = 0.2, 1.0  # for what needs no motion, one by one and together
LOOK_SECONDS, AGAIN_SECONDS = 0.005, 0.02  # between two looks, and two tries to connect
NEAR_TOP = 0.02  # of the range of Z: what a withdrawn tip may be below its highest place
NO_BIAS = 1e-3  # V
STOPS: tuple[tuple[str, dict[str, int]], ...] = (
    ("Scan.Action", {"action": commands.SCAN_STOP, "direction": commands.UP}), ("FolMe.Stop", {}), ("AutoApproach.OnOffSet", {"on": 0}), ("Motor.StopMove", {}),
)  # fmt: skip


def opened(host: str, port: int, seconds: float = CONNECT_SECONDS) -> Connection:
    """A connection on which a controller answers; raises InstrumentFault where nothing does, Refused where another client has the port."""
    end = time.monotonic() + seconds
    line = Connection(host, port, seconds)
    try:
        line.ask("Util.VersionGet", max(0.0, end - time.monotonic()))
    except ControllerError:
        pass  # it answers
    except InstrumentFault as error:
        line.close()
        raise Refused(f"another client holds port {port} of {host}, or no controller is there ({error}): a port serves one client, end it or use another port") from error
    return line


class Safety:
    """Knows only how to go safe; what a guardian has of an instrument. One more connection is made when this one fails."""

    def __init__(self, host: str, port: int):
        self.where, self._turn = (host, port), threading.Lock()
        self.line = opened(host, port)

    def safe(self, seconds: float) -> None:
        """Go to the safe state and read it back; raises InstrumentFault when that takes longer."""
        end = time.monotonic() + seconds
        if not self._turn.acquire(timeout=seconds):
            raise InstrumentFault(f"the way to the safe state is taken by another thread for {seconds:g} s")
        try:
            try:
                self._go(end)
            except InstrumentFault:
                if not self.line.closed or time.monotonic() >= end:
                    raise
                self._again(end)
                self._go(end)
        finally:
            self._turn.release()

    def is_safe(self) -> bool:
        """Whether the safe state is read back now: tip away, feedback off, nothing moves, no bias."""
        if self.line.closed:
            self._again(time.monotonic() + ANSWER_SECONDS)
        end = time.monotonic() + LOOKS_SECONDS
        try:
            return self._away(end) and not self._ask("Scan.StatusGet", end)["running"] and self._no_bias(end)
        except ControllerError:
            return False  # it is not read back

    def close(self) -> None:
        """Close the connection; the tip stays where it is."""
        self.line.close()

    def _again(self, end: float) -> None:
        self.line.close()
        while True:
            try:
                self.line = opened(*self.where, max(0.01, end - time.monotonic()))
                return
            except ProbeGymError as error:  # the port may still be held by what just broke
                if time.monotonic() + AGAIN_SECONDS >= end:
                    raise InstrumentFault(str(error)) from error
                time.sleep(AGAIN_SECONDS)

    def _ask(self, name: str, end: float, **arguments: float) -> Values:
        return self.line.ask(name, max(LEAST_SECONDS, min(ANSWER_SECONDS, end - time.monotonic())), None, **arguments)

    def _go(self, end: float) -> None:
        trouble = self._withdraw(end)
        for name, arguments in STOPS:
            try:
                self._ask(name, end, **arguments)
            except ControllerError:
                pass  # nothing of the kind was there to be stopped; what still moves shows below
        while not self._away(end):  # also where the controller does not say
            if time.monotonic() >= end:
                raise InstrumentFault(f"the tip is not read back to be away{trouble and f' ({trouble})'}: the bias stays, a feedback that is on would follow it into the surface")
            if not self._withdrawing(end):
                trouble = self._withdraw(end)
            time.sleep(LOOK_SECONDS)
        try:
            self._ask("Bias.Set", end, bias=0.0)
            self._ask("SafeTip.OnOffSet", end, status=commands.SAFE_TIP_ON)
            if not self._no_bias(end):
                raise InstrumentFault("the tip is away, but the bias is not read back as zero")
            if self._ask("Scan.StatusGet", end)["running"]:
                raise InstrumentFault("the tip is away, but the scan goes on")
        except ControllerError as error:
            raise InstrumentFault(f"the tip is away, but {error}") from error

    def _withdraw(self, end: float) -> str:
        """Send the tip away; what the controller has against it, or nothing."""
        try:
            self._ask("ZCtrl.Withdraw", end, wait=0, timeout=-1)
        except ControllerError as error:
            return str(error)
        return ""

    def _away(self, end: float) -> bool:
        """Whether the feedback is off and the tip at its highest; false where the controller does not say."""
        try:
            return away(lambda name: self._ask(name, end))
        except ControllerError:
            return False

    def _withdrawing(self, end: float) -> bool:
        try:
            return bool(self._ask("ZCtrl.StatusGet", end)["status"] == commands.Z_WITHDRAWING)
        except ControllerError:
            return False

    def _no_bias(self, end: float) -> bool:
        return bool(abs(self._ask("Bias.Get", end)["bias"]) <= NO_BIAS)


def away(ask: Callable[[str], Values]) -> bool:
    """Whether the feedback is off and the tip at the top of what Z may be; ask: name -> what is read back."""
    if ask("ZCtrl.StatusGet")["status"] not in (commands.Z_OFF, commands.Z_SAFE_TIP):
        return False
    most = ask("Piezo.RangeGet")["z"]
    top = most / 2
    if ask("ZCtrl.LimitsEnabledGet")["on"]:
        top = min(top, ask("ZCtrl.LimitsGet")["high"])
    return bool(ask("ZCtrl.ZPosGet")["z"] >= top - NEAR_TOP * most)
