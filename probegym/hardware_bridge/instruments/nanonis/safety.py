"""How an STM behind a Nanonis controller is made safe, over a connection that does nothing else.

The tip goes away first, whatever goes on: the controller's own Withdraw switches the feedback off and retracts in one command, so there is
no moment at which the tip stands still near the surface. What could bring it back is stopped next, and read back as far as the protocol goes:
approach and scan by their status, the motor by its position where the controller tells one. The bias goes to zero last, and only once all of
that stands still: a feedback that is on would follow a vanishing bias into the surface. SafeTip ends switched on, if it was on at any time before.

Away is the top of what Z may be, and at least ``clearance`` above where the current of the setpoint flowed last, as far as anybody looked
since this connection was made. Before that nothing is known of the surface, nor after an approach that was seen, or once a feedback with a bias has
let the tip go by where it was. A motor that tells where it is counts, too: what it went away by is clearance, Z of it counted as that of the tip,
and a tip that it took anywhere else is not away, as nobody knows where the surface is then.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from probegym.errors import ProbeGymError
from probegym.hardware_bridge.instruments import InstrumentFault, Unreached
from probegym.hardware_bridge.instruments.nanonis import commands, protocol
from probegym.hardware_bridge.instruments.nanonis.client import CONNECT_SECONDS, LEAST_SECONDS, Connection
from probegym.hardware_bridge.instruments.nanonis.protocol import ControllerError, Values
from probegym.hardware_bridge.world import Refused

STEP_SECONDS, LOOKS_SECONDS = 0.2, 1.0  # for what needs no motion, one by one and together
LOOK_SECONDS, AGAIN_SECONDS = 0.005, 0.02  # between two looks, and two tries to connect
NEAR_TOP = 0.02  # of the range of Z: what a withdrawn tip may be below its highest place
FLOWS = 2.0  # within this factor of the setpoint the current shows that the tip is at the surface
NO_BIAS = 1e-3  # V
MOTOR_SECONDS, MOTOR_STILL = 0.05, 0.5e-6  # between two looks at the motor, and m that it may seem to move by: its encoder has noise
ENCODER_SECONDS = 0.1  # that the controller may take to read the motor's position
STOPS: tuple[tuple[str, dict[str, int]], ...] = (
    ("Scan.Action", {"action": commands.SCAN_STOP, "direction": commands.UP}), ("FolMe.Stop", {}), ("AutoApproach.OnOffSet", {"on": 0}),
)  # fmt: skip
AWAY, BIAS = "the tip is not read back to be away", "the bias is not read back as zero"


def opened(host: str, port: int, seconds: float = CONNECT_SECONDS) -> Connection:
    """A connection on which a controller answers; raises Unreached where nothing listens, Refused where another client has the port."""
    end = time.monotonic() + seconds
    line = Connection(host, port, seconds)
    try:
        line.ask("Util.VersionGet", max(0.0, end - time.monotonic()))
    except ControllerError as error:  # it answers
        if protocol.HELD in error.text:  # as our own server does
            line.close()
            raise Refused(f"another client holds port {port} of {host} ({error.text})") from error
    except InstrumentFault as error:
        line.close()
        told = f"another client holds port {port} of {host}, or no controller is there ({error})"
        raise Refused(f"{told}: a port serves one client, and a controller does not say which: end it, or give another port") from error
    return line


class Safety:
    """Knows only how to go safe; what a guardian has of an instrument. One more connection is made when this one fails.

    clearance: m that a tip which is away has to the surface. surface: m, Z at which the setpoint flowed last; None while nobody has seen that.
    seat: where the motor was then, None where it does not tell. guarded: whether SafeTip was seen switched on.
    """

    def __init__(self, host: str, port: int, clearance: float):
        self.where, self.clearance, self._turn = (host, port), clearance, threading.Lock()
        self.surface: float | None = None
        self.seat: Values | None = None
        self.guarded, self.strayed = False, False  # strayed: whether the motor has moved since, and not away
        self.line = opened(host, port)
        try:
            self.is_safe()  # a tip that is at the surface now shows where that is
        except ProbeGymError:
            self.line.close()
            raise

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
        """Whether the safe state is read back now: tip away, feedback off, no approach, no scan, motor still, no bias."""
        return not self.lacks()

    def lacks(self) -> str:
        """What the safe state lacks now, as one line; nothing when all is there."""
        if self.line.closed:
            self._again(time.monotonic() + STEP_SECONDS)
        return self._lacking(time.monotonic() + LOOKS_SECONDS)

    def seen(self, z: float, motor: Values | None) -> None:
        """Remember that the surface is at Z, in m, with the motor where it is; None where it does not tell."""
        self.surface, self.seat = z, motor

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
                    raise (Unreached if isinstance(error, Unreached) else InstrumentFault)(str(error)) from error
                time.sleep(AGAIN_SECONDS)

    def _ask(self, name: str, end: float, **arguments: float) -> Values:
        return self.line.ask(name, max(LEAST_SECONDS, min(STEP_SECONDS, end - time.monotonic())), None, **arguments)

    def _told(self, name: str, end: float, **arguments: float) -> Values | None:
        """What a command returns; None where the controller refuses it."""
        try:
            return self._ask(name, end, **arguments)
        except ControllerError:
            return None

    def _go(self, end: float) -> None:
        trouble = self._withdraw(end)
        stopped = self._stop(end)
        while (lacking := self._lacking(end)) or not stopped:
            if time.monotonic() >= end:
                told = lacking or "the motor was not stopped"
                stays = "" if lacking == BIAS else ": the bias stays, a feedback that is on would follow it into the surface"
                raise InstrumentFault(f"{told}{trouble and f' ({trouble})'}{stays}")
            if not stopped or lacking not in (AWAY, BIAS):
                stopped = self._stop(end)
            elif lacking == BIAS:
                trouble = self._refusal("Bias.Set", end, bias=0.0)
            elif not self._withdrawing(end):
                trouble = self._withdraw(end)
            time.sleep(LOOK_SECONDS)
        if self.guarded and (trouble := self._refusal("SafeTip.OnOffSet", end, status=commands.SAFE_TIP_ON)):
            raise InstrumentFault(f"the tip is away, but {trouble}")

    def _refusal(self, name: str, end: float, **arguments: float) -> str:
        """Send a command; what the controller has against it, or nothing."""
        try:
            self._ask(name, end, **arguments)
        except ControllerError as error:
            return str(error)
        return ""

    def _withdraw(self, end: float) -> str:
        return self._refusal("ZCtrl.Withdraw", end, wait=0, timeout=-1)

    def _withdrawing(self, end: float) -> bool:
        told = self._told("ZCtrl.StatusGet", end)
        return told is not None and told["status"] == commands.Z_WITHDRAWING

    def _stop(self, end: float) -> bool:
        """Stop all that moves; whether the motor was, or is not there. What is refused else shows in what is read back."""
        for name, arguments in STOPS:
            self._told(name, end, **arguments)
        return self._told("Motor.StopMove", end) is not None or (self._told("Motor.FreqAmpGet", end, axis=0) is None and self._motor(end) is None)

    def _motor(self, end: float) -> Values | None:
        seconds = max(LEAST_SECONDS, min(ENCODER_SECONDS + STEP_SECONDS, end - time.monotonic()))
        return motor(lambda name, **of: self.line.ask(name, seconds, None, **of))

    # ---- what is read back ----

    def _lacking(self, end: float) -> str:
        """The first thing that the safe state lacks, as one line; nothing when it is all there. What the controller does not say lacks."""
        looks: tuple[tuple[str, Callable[[float], bool]], ...] = (
            (AWAY, self._away), ("the approach goes on", self._no_approach), ("the scan goes on", self._no_scan), ("the motor moves", self._still), (BIAS, self._no_bias),
        )  # fmt: skip
        for lacking, there in looks:
            try:
                if not there(end):
                    return f"the tip is as far away as it goes, but {self._near()}" if lacking == AWAY and self._up(end) else lacking
            except ControllerError as error:
                return lacking if lacking in (AWAY, BIAS) else f"{lacking}, or nobody tells: {error}"
        return ""

    def _near(self) -> str:
        where = f"where the surface was, Z of {self.surface or 0.0:g} m"
        if self.strayed:
            return f"the motor has moved since the setpoint flowed last, and not away from {where}: nobody knows how near it is; take it away by the motor, upwards"
        remedy = "take it away by the motor, or raise the limit of Z" if self.seat else "raise the limit of Z; by the motor it cannot be seen to go, which does not tell its position"
        return f"less than the clearance of {self.clearance:g} m from {where}: {remedy}"

    def _up(self, end: float) -> bool:
        return away(lambda name: self._ask(name, end))

    def _away(self, end: float) -> bool:
        self._notice(end)
        up, surface, seat, self.strayed = self._up(end), self.surface, self.seat, False
        if not up or surface is None:
            return up
        now = self._motor(end) if seat else None
        moved = {axis: now[axis] - at for axis, at in seat.items()} if seat and now else {"z": 0.0}
        raised = max(0.0, moved["z"] - MOTOR_STILL)
        self.strayed = not raised and any(abs(by) > MOTOR_STILL for by in moved.values())
        return not self.strayed and bool(self._ask("ZCtrl.ZPosGet", end)["z"] + raised >= surface + self.clearance)

    def _notice(self, end: float) -> None:
        """Remember where the surface is, where the feedback is on and its setpoint flows, and whether SafeTip is on."""
        self.guarded |= bool((self._told("SafeTip.OnOffGet", end) or {"on": 0})["on"])
        if self.surface is not None and (self._told("AutoApproach.OnOffGet", end) or {"on": 0})["on"]:
            self.surface = None
        z, surface = self._ask("ZCtrl.ZPosGet", end)["z"], self.surface  # before the current, as the tip may go up meanwhile
        if self._ask("ZCtrl.StatusGet", end)["status"] == commands.Z_ON:
            wanted, flows = self._ask("ZCtrl.SetpntGet", end)["setpoint"], abs(self._ask("Current.Get", end)["current"])
            if wanted / FLOWS <= flows <= wanted * FLOWS:
                self.seen(z, self._motor(end))
            elif surface is not None and flows < wanted / FLOWS and z < surface - self.clearance and not self._no_bias(end):
                self.surface = None

    def _no_approach(self, end: float) -> bool:
        told = self._told("AutoApproach.OnOffGet", end)
        if told is None:  # its module may be closed
            self._ask("AutoApproach.Open", end)
            told = self._ask("AutoApproach.OnOffGet", end)
        return not told["on"]

    def _no_scan(self, end: float) -> bool:
        return not self._ask("Scan.StatusGet", end)["running"]

    def _still(self, end: float) -> bool:
        if (before := self._motor(end)) is None:
            return True
        time.sleep(MOTOR_SECONDS)
        after = self._motor(end)
        return after is not None and all(abs(after[axis] - before[axis]) <= MOTOR_STILL for axis in before)

    def _no_bias(self, end: float) -> bool:
        return bool(abs(self._ask("Bias.Get", end)["bias"]) <= NO_BIAS)


def motor(ask: Callable[..., Values]) -> Values | None:
    """Where the motor is; None where the controller has none that tells. ask: name and arguments -> what is read back."""
    try:
        return ask("Motor.PosGet", group=0, timeout=round(1e3 * ENCODER_SECONDS))
    except ControllerError:
        return None


def top(ask: Callable[[str], Values]) -> float:
    """The highest Z in m that limits and piezo allow; ask: name -> what is read back."""
    highest = ask("Piezo.RangeGet")["z"] / 2
    return float(min(highest, ask("ZCtrl.LimitsGet")["high"]) if ask("ZCtrl.LimitsEnabledGet")["on"] else highest)


def away(ask: Callable[[str], Values]) -> bool:
    """Whether the feedback is off and the tip at the top of what Z may be; ask: name -> what is read back."""
    if ask("ZCtrl.StatusGet")["status"] not in (commands.Z_OFF, commands.Z_SAFE_TIP):
        return False
    return bool(ask("ZCtrl.ZPosGet")["z"] >= top(ask) - NEAR_TOP * ask("Piezo.RangeGet")["z"])
