"""Commands of the Nanonis SPM controller as one table, and their frames for both ends.

Names, order and types are those of SPECS' TCP Programming Interface (R13742, June 2024). Only what scanning, moving atoms, treating
the tip, and going safe need is here. Switches are whole numbers as the controller counts them, see the constants: they differ.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from probegym.errors import ProbeGymError
from probegym.hardware_bridge.codec import Malformed
from probegym.hardware_bridge.instruments.nanonis import protocol
from probegym.hardware_bridge.instruments.nanonis.protocol import KINDS, ControllerError, Field, Values

TABLE: dict[str, tuple[str, str]] = {
    "Bias.Set": ("bias f V", ""),
    "Bias.Get": ("", "bias f V"),
    "Bias.Pulse": ("wait I, width f s, bias f V, hold H, mode H", ""),
    "Current.Get": ("", "current f A"),
    "ZCtrl.ZPosSet": ("z f m", ""),
    "ZCtrl.ZPosGet": ("", "z f m"),
    "ZCtrl.OnOffSet": ("on I", ""),
    "ZCtrl.OnOffGet": ("", "on I"),
    "ZCtrl.SetpntSet": ("setpoint f A", ""),
    "ZCtrl.SetpntGet": ("", "setpoint f A"),
    "ZCtrl.GainSet": ("proportional f, time_constant f s, integral f 1/s", ""),
    "ZCtrl.GainGet": ("", "proportional f, time_constant f s, integral f 1/s"),
    "ZCtrl.SwitchOffDelaySet": ("delay f s", ""),
    "ZCtrl.SwitchOffDelayGet": ("", "delay f s"),
    "ZCtrl.TipLiftSet": ("lift f m", ""),
    "ZCtrl.TipLiftGet": ("", "lift f m"),
    "ZCtrl.Home": ("", ""),
    "ZCtrl.HomePropsSet": ("mode H, z f m", ""),
    "ZCtrl.HomePropsGet": ("", "mode H, z f m"),
    "ZCtrl.ActiveCtrlSet": ("index i", ""),
    "ZCtrl.CtrlListGet": ("", "names str[], index i"),
    "ZCtrl.Withdraw": ("wait I, timeout i ms", ""),
    "ZCtrl.WithdrawRateSet": ("rate f m/s", ""),
    "ZCtrl.WithdrawRateGet": ("", "rate f m/s"),
    "ZCtrl.LimitsEnabledSet": ("on I", ""),
    "ZCtrl.LimitsEnabledGet": ("", "on I"),
    "ZCtrl.LimitsSet": ("high f m, low f m", ""),
    "ZCtrl.LimitsGet": ("", "high f m, low f m"),
    "ZCtrl.StatusGet": ("", "status H"),
    "SafeTip.OnOffSet": ("status H", ""),
    "SafeTip.OnOffGet": ("", "on H"),
    "SafeTip.SignalGet": ("", "signal f A"),
    "SafeTip.PropsSet": ("recover H, pause H, threshold f A", ""),
    "SafeTip.PropsGet": ("", "recover H, pause H, threshold f A"),
    "AutoApproach.Open": ("", ""),
    "AutoApproach.OnOffSet": ("on H", ""),
    "AutoApproach.OnOffGet": ("", "on H"),
    "Motor.StartMove": ("direction I, steps H, group I, wait I", ""),
    "Motor.StopMove": ("", ""),
    "Motor.PosGet": ("group I, timeout I ms", "x d m, y d m, z d m"),
    "Motor.FreqAmpSet": ("frequency f Hz, amplitude f V, axis H", ""),
    "Motor.FreqAmpGet": ("axis H", "frequency f Hz, amplitude f V"),
    "Piezo.RangeGet": ("", "x f m, y f m, z f m"),
    "FolMe.XYPosSet": ("x d m, y d m, wait I", ""),
    "FolMe.XYPosGet": ("wait I", "x d m, y d m"),
    "FolMe.SpeedSet": ("speed f m/s, custom I", ""),
    "FolMe.SpeedGet": ("", "speed f m/s, custom I"),
    "FolMe.Stop": ("", ""),
    "TipRec.BufferSizeSet": ("size i", ""),
    "TipRec.BufferSizeGet": ("", "size i"),
    "TipRec.BufferClear": ("", ""),
    "TipRec.DataGet": ("", "channels i[], data f[][]"),
    "Scan.Action": ("action H, direction I", ""),
    "Scan.StatusGet": ("", "running I"),
    "Scan.WaitEndOfScan": ("timeout i ms", "timed_out I, path str"),
    "Scan.FrameSet": ("x f m, y f m, width f m, height f m, angle f deg", ""),
    "Scan.FrameGet": ("", "x f m, y f m, width f m, height f m, angle f deg"),
    "Scan.BufferSet": ("channels i[], pixels i, lines i", ""),
    "Scan.BufferGet": ("", "channels i[], pixels i, lines i"),
    "Scan.SpeedSet": ("forward f m/s, backward f m/s, forward_time f s, backward_time f s, keep H, ratio f", ""),
    "Scan.SpeedGet": ("", "forward f m/s, backward f m/s, forward_time f s, backward_time f s, keep H, ratio f"),
    "Scan.FrameDataGrab": ("channel I, direction I", "name str, data f[][], direction I"),
    "Scan.XYPosGet": ("wait I", "x f m, y f m"),
    "TipShaper.PropsSet": (
        "switch_off_delay f s, change_bias I, bias f V, lift f m, lift_time f s, bias_lift f V, settling f s, height f m, height_time f s, end f s, restore I", ""
    ),
    "TipShaper.PropsGet": (
        "", "switch_off_delay f s, change_bias I, bias f V, lift f m, lift_time f s, bias_lift f V, settling f s, height f m, height_time f s, end f s, restore I"
    ),
    "TipShaper.Start": ("wait I, timeout i ms", ""),
    "Signals.NamesGet": ("", "names str[]"),
    "Signals.ValGet": ("index i, wait I", "value f"),
    "Signals.ValsGet": ("indexes i[], wait I", "values f[]"),
    "Util.VersionGet": ("", "product str, version str, host_release I, engine_release I"),
}  # fmt: skip
"""Name -> what it takes and what it returns: fields with type and unit, in the order of the wire."""

Z_OFF, Z_ON, Z_HOLD, Z_SAFE_TIP, Z_WITHDRAWING = 1, 2, 3, 5, 6  # ZCtrl.StatusGet; 4 is switching off
SAFE_TIP_ON, SAFE_TIP_OFF = 1, 2  # SafeTip.OnOffSet, 0 changes nothing; OnOffGet says 0 or 1
SCAN_START, SCAN_STOP, SCAN_PAUSE, SCAN_RESUME, SCAN_FREEZE, SCAN_UNFREEZE, SCAN_CENTRE = range(7)  # Scan.Action
DOWN, UP = 0, 1  # Scan.Action, Scan.FrameDataGrab
BACKWARD, FORWARD = 0, 1  # Scan.FrameDataGrab
PULSE_HOLD, PULSE_NO_HOLD = 1, 2  # Bias.Pulse, 0 keeps what was set last
PULSE_RELATIVE, PULSE_ABSOLUTE = 1, 2  # Bias.Pulse, 0 keeps what was set last
KEEP_SPEED = 1  # Scan.SpeedSet; 0 keeps what was set last, 2 the time of a line
YES, NO = 1, 2  # TipShaper.PropsSet, 0 keeps what was set last; PropsGet says 0 or 1
Z_PLUS = 4  # Motor.StartMove; 0 to 3 are X+, X-, Y+, Y-, 5 is Z-


@dataclass(frozen=True)
class Call:
    """One command: what it takes and what it returns."""

    name: str
    takes: tuple[Field, ...]
    gives: tuple[Field, ...]


def _fields(text: str) -> tuple[Field, ...]:
    fields = tuple(Field(*part.split()) for part in text.split(",") if part.strip())
    assert all(field.kind in KINDS for field in fields), text
    return fields


COMMANDS: dict[str, Call] = {name: Call(name, _fields(takes), _fields(gives)) for name, (takes, gives) in TABLE.items()}
"""Every command that is spoken here."""


def _call(name: str) -> Call:
    if name not in COMMANDS:
        raise ProbeGymError(f"{name[:40]} is none of the commands that are spoken here: see the table in instruments/nanonis/commands.py")
    return COMMANDS[name]


# ---- the client's end ----


def request(name: str, /, reply: bool = True, **arguments: Any) -> bytes:
    """A whole request; raises ProbeGymError for an unknown command, wrong arguments, and numbers that are not finite."""
    call = _call(name)
    for field in call.takes:
        if field.kind in ("f", "d") and not math.isfinite(arguments.get(field.name, 0.0)):
            raise ProbeGymError(f"{name}, {field.name}: {arguments[field.name]} is not finite")
    try:
        return protocol.pack_request(name, protocol.encode(call.takes, arguments), reply)
    except ProbeGymError as error:
        raise ProbeGymError(f"{name}: {error}") from error


def returns(name: str, body: bytes) -> Values:
    """The values of an answer's body; raises ControllerError when the controller says so, Malformed when lengths do not add up.

    A controller that does not know the command, or fails early, may send its error without values.
    """
    try:
        values, rest = protocol.decode(_call(name).gives, body)
        status, text = protocol.decode_error(rest)
    except Malformed as error:
        try:
            status, text = protocol.decode_error(body)
        except Malformed:
            status, text = 0, ""
        if status != 1 or not text:  # nothing else is taken for an error without values
            raise Malformed(f"the answer to {name}: {error}") from error
    if status or text:
        raise ControllerError(name, text or f"error {status} without a text")
    return values


# ---- the controller's end ----


def arguments(name: str, body: bytes) -> Values:
    """The arguments in a request's body; raises Malformed when they are not exactly those of the command.

    A number of four bytes is the shortest decimal that they can mean: 5 nm would else arrive as 5.0000000042 nm, beyond a limit of 5 nm.
    """
    values, rest = protocol.decode(_call(name).takes, body)
    if rest:
        raise Malformed(f"{name} was sent {len(rest)} bytes too many")
    return values | {field.name: float(str(np.float32(values[field.name]))) for field in _call(name).takes if field.kind == "f"}


def response(name: str, /, **values: Any) -> bytes:
    """A whole answer."""
    return protocol.pack_response(name, protocol.encode(_call(name).gives, values))


def refusal(name: str, text: str) -> bytes:
    """A whole answer that says an error: empty values first, where the command is known."""
    call = COMMANDS.get(name)
    empty: dict[str, Any] = {"str": "", "str[]": (), "f[][]": np.zeros((0, 0))}
    gives = call.gives if call else ()
    nothing = {field.name: empty.get(field.kind, [] if "[" in field.kind else 0) for field in gives}
    return protocol.pack_response(name, protocol.encode(gives, nothing), text)
