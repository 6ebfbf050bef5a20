"""An STM behind a Nanonis controller as an instrument: our commands in the controller's own, over one connection to write and others to go safe.

Told are ``host``, ``ports`` (three: the guard writes on the first and goes safe on the second, its guardian has the third; a port serves one
client) and ``settings``, or the path of a file with them, see settings.py. The controller has no authentication: reach another machine through an SSH
tunnel. Nor has it one writer: the operator at its screen, and whoever has the fourth port, can set anything at any time. What they change of the
protection, the bias, the setpoint or the gains is noticed before the next command, which is refused until the instrument is armed anew.

After ``ready`` the tip is still withdrawn. The first command that needs the surface brings it down by the feedback alone, within the range of Z,
and leaves it there; the motor is used by ``Approach`` only, which an operator must agree to. No part of this has run on real hardware.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np

from probegym.errors import ProbeGymError
from probegym.hardware_bridge import commands as language
from probegym.hardware_bridge.capabilities import one_lane
from probegym.hardware_bridge.codec import Json
from probegym.hardware_bridge.commands import Command, Readings
from probegym.hardware_bridge.instruments import InstrumentFault, Measured
from probegym.hardware_bridge.instruments.nanonis import descriptor
from probegym.hardware_bridge.instruments.nanonis.client import REPLY_SECONDS, Stopped
from probegym.hardware_bridge.instruments.nanonis.images import Scanner
from probegym.hardware_bridge.instruments.nanonis.protection import Protection
from probegym.hardware_bridge.instruments.nanonis.protocol import ControllerError
from probegym.hardware_bridge.instruments.nanonis.safety import Safety, opened
from probegym.hardware_bridge.instruments.nanonis.settings import read_settings
from probegym.hardware_bridge.instruments.nanonis.tip import Tip
from probegym.hardware_bridge.instruments.nanonis.treatments import Treatments
from probegym.hardware_bridge.instruments.nanonis.turn import Turn
from probegym.hardware_bridge.world import Refused

IDLE_SECONDS = 0.2  # that an answer which is under way is waited for on the way to the safe state
MEASUREMENTS = {"AcquireTopograph": 1, "DragTip": 1}  # as tasks count them
DAMAGE = {"PulseBias": 1, "DipTip": 1}  # places of the sample that are spoiled; what a drag breaks, nobody knows
Values = dict[str, np.ndarray]


class Nanonis:
    """The Instrument protocol. Raises Unreached where nothing listens, Refused where another client has a port, ProbeGymError where something lacks."""

    def __init__(self, host: str, ports: tuple[int, int], table: object):
        self.settings = s = read_settings(table)
        self.safety = Safety(host, ports[1], s.clearance)
        try:
            self.line = opened(host, ports[0])
        except ProbeGymError:
            self.safety.close()
            raise
        try:
            facts = descriptor.facts(self.line, s)
            try:
                descriptor.fits(s, facts)
            except ProbeGymError as error:
                raise ProbeGymError(f"{table if isinstance(table, str) else 'settings'}, {error}") from error
            self.descriptor = descriptor.descriptor(s, facts)
            self.protection = Protection(s)
        except ProbeGymError:
            self._hang_up()
            raise
        self.tip = Tip(s, facts, self.safety)
        treatments = Treatments(s, facts, self.tip, Scanner(s, facts, self.tip))
        self.doing: dict[type[Command], Callable[[Turn, Any], Values]] = {
            language.AcquireTopograph: treatments.topograph, language.LocateAdatoms: treatments.locate, language.DragTip: treatments.drag,
            language.PulseBias: treatments.pulse, language.DipTip: treatments.dip, language.SetBias: treatments.bias, language.MoveTip: treatments.move,
            language.SetTunnelling: treatments.tunnelling, language.Approach: treatments.approach, language.Withdraw: treatments.withdraw,
        }  # fmt: skip
        self.working, self.gate, self.leaving = threading.Lock(), threading.Lock(), 0
        self.halted, self.interrupted = threading.Event(), threading.Event()
        self.halted.set()

    def execute(self, command: Command, seconds: float) -> Readings:
        """Carry a command out."""
        self.descriptor.check(command)
        one_lane(command)
        if self.halted.is_set():
            raise Refused(f"the instrument is in its safe state ({', '.join(self.descriptor.safe)}): arm it first")
        with self._turn(command.verb, seconds, self.halted) as turn:
            self.protection.check(turn, command)
            if changed := self.protection.changed(turn):
                if self.tip.landed:
                    self.tip.stays(turn)
                raise Refused(f"somebody else is at work at this controller, nothing passes: {changed}; arm anew")
            values = self.doing[type(command)](turn, command)
            self.protection.leave(turn)
        took = time.monotonic() - turn.began
        costs = (took, 0.0, DAMAGE.get(command.verb, 0.0), MEASUREMENTS.get(command.verb, 0.0))
        return Readings({name: value[None] for name, value in values.items()}, *(np.array([cost], float) for cost in costs))

    def measured(self) -> dict[str, Measured]:
        """What bias, feedback and tip are read back to stand at."""
        began = time.monotonic()
        try:
            bias, setpoint, gains = (self.line.ask(name, REPLY_SECONDS) for name in ("Bias.Get", "ZCtrl.SetpntGet", "ZCtrl.GainGet"))
            tip = self.line.ask("FolMe.XYPosGet", REPLY_SECONDS, wait=0)
        except ControllerError as error:
            raise InstrumentFault(f"controls are not read back: {error}") from error
        values = {
            "bias": [bias["bias"]], "tunnelling.current": [setpoint["setpoint"]], "tunnelling.proportional": [gains["proportional"]],
            "tunnelling.time_constant": [gains["time_constant"]], "tip": [tip["x"], tip["y"]],
        }  # fmt: skip
        return {name: Measured(np.array(value, float), time.monotonic() - began) for name, value in values.items()}

    def ready(self, seconds: float) -> None:
        """Set what protects the tip, read it back, and let commands through; raises Refused where something does not stand as it must, the safe state first. Nothing moves.

        A ``safe`` that is under way, or comes before the end, wins.
        """
        with self._turn("getting ready", seconds, self.interrupted) as turn:
            with self.gate:
                self._stays()
                self.interrupted.clear()
            if lacking := self.safety.lacks():
                raise Refused(f"the instrument is not in its safe state: {lacking}")
            self.protection.take(turn)
            self.safety.guarded = True
            self.tip.withdrawn()
            with self.gate:
                if self.interrupted.is_set():
                    raise Refused("the instrument was sent to its safe state while it got ready")
                self.halted.clear()

    def safe(self, seconds: float) -> None:
        """Go to the safe state; a command under way ends by it, and what it had sent before is waited for."""
        end = time.monotonic() + seconds
        with self.gate:
            self.leaving += 1
            self.halted.set()
            self.interrupted.set()
        try:
            busy = not self.line.idle(0.0)
            self.safety.safe(seconds)
            if busy or not self.line.idle(0.0):  # what was sent before may still be carried out
                self.line.idle(min(IDLE_SECONDS, (end - time.monotonic()) / 2))
                self.safety.safe(max(0.0, end - time.monotonic()))
        finally:
            with self.gate:
                self.leaving -= 1

    def is_safe(self) -> bool:
        """Whether the safe state is read back now; it stays so after ``ready`` until something moves."""
        return self.safety.is_safe()

    def close(self) -> None:
        """Give the controller up; the tip stays where it is, and what was tightened is as it was found, if that is the safe state."""
        if not self.safety.line.closed:  # once
            with suppress(ProbeGymError):
                if self.safety.is_safe():
                    self.protection.give_back(self.safety.line)
        self._hang_up()

    # ---- inside ----

    def _hang_up(self) -> None:
        self.line.close()
        self.safety.close()

    def _stays(self) -> None:
        if self.leaving:
            raise Refused("the instrument is on its way to its safe state: get ready once it is there")

    @contextmanager
    def _turn(self, what: str, seconds: float, unless: threading.Event | None = None) -> Iterator[Turn]:
        """A turn of one command; errors come out as what they mean: refused with nothing done, or nobody knows what was."""
        if not self.working.acquire(blocking=False):
            raise Refused(f"{what}: a command is under way, one at a time")
        turn, ended = Turn(self.line, seconds, unless), False
        try:
            yield turn
        except Stopped as error:
            self.safety.safe(self.descriptor.safe_seconds)  # what was under way may have undone a part
            raise InstrumentFault(f"{what} was stopped: the instrument went to its safe state") from error
        except ControllerError as error:
            raise (InstrumentFault if turn.acted else Refused)(f"{what}: {error}") from error
        except InstrumentFault as error:
            raise InstrumentFault(f"{what}: {error}") from error
        else:
            ended = True
        finally:
            if turn.acted and not ended:
                self.protection.left = {}  # nobody knows what it left
            self.working.release()


def _reached(told: Json) -> tuple[str, list[int]]:
    host, ports = told.get("host", "127.0.0.1"), told.get("ports")
    if not isinstance(host, str) or not isinstance(ports, list) or len(ports) != 3 or not all(isinstance(p, int) and not isinstance(p, bool) and 0 < p < 65536 for p in ports):
        raise ProbeGymError('a Nanonis controller is told by "host" and three "ports": for the guard to write, for the guard to go safe, for its guardian')
    if len(set(ports)) != 3:
        raise ProbeGymError(f"a port of a Nanonis controller serves one client: give three different ones, not {ports}")
    return host, ports


def writer(told: Json, name: str) -> Nanonis:
    """The driver's instrument, see drivers.py."""
    host, ports = _reached(told)
    return Nanonis(host, (ports[0], ports[1]), told.get("settings"))


def safety(told: Json, name: str) -> Safety:
    """The driver's safety connection, see drivers.py."""
    host, ports = _reached(told)
    return Safety(host, ports[2], read_settings(told.get("settings")).clearance)
