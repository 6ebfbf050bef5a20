"""The vertical half of a simulated controller: bias, Z-controller and SafeTip, and the current that follows from them.

The surface is at Z = 0 when the motor stands where it began, and Z grows away from it. Under a feedback that is on, the tip stands
where the setpoint flows, as in physics/stm.py; with the feedback off it stays, and bias and height decide the current.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable

import numpy as np

from probegym.errors import ProbeGymError
from probegym.hardware_bridge.instruments.nanonis import commands as names
from probegym.hardware_bridge.instruments.nanonis.motion import Ramp, rest
from probegym.hardware_bridge.instruments.nanonis.protocol import Values
from probegym.hardware_bridge.instruments.nanonis.sample import Sample, conductance, gap
from probegym.hardware_bridge.instruments.nanonis.settings import CONTACT

HIGHEST_BIAS = 10.0  # V
Z_RANGE = 400e-9  # m, half of it each way
SLEW = 1e-6  # m/s of the Z-piezo where nothing else is set
NEAR = 2e-9  # m, gap within which there is a current to speak of
NOISE, SATURATION = 0.2e-12, 10e-6  # A rms, and A of either sign that it shows at most: the preamplifier, 10 V at 1e6 V/A
PULSE = "a bias pulse"
RECOVERY = 1.0  # s after a SafeTip event, where it is to recover by itself
LOOK = 0.02  # s, between two looks of a command that waits
LEAVES = "the controller is shutting down: the tip can be withdrawn, nothing else"


class Feedback:
    """State and commands of the Z axis. pace: simulated seconds a second, 0 for no waiting. Methods named after a command carry it out, under ``changed``."""

    def __init__(self, sample: Sample, pace: float):
        if not 0 <= pace < np.inf:
            raise ProbeGymError(f"pace must be 0 or simulated seconds a second, got {pace:g}")
        self.sample, self.pace = sample, pace
        self.changed, self.closed, self.leaving = threading.Condition(), False, False
        self.asking = threading.local()  # its ``there``: whether the one whose command this thread carries out is still there
        self.bias, self.setpoint = 1.0, 50e-12  # V, A
        self.on, self.withdrawing, self.approaches = False, False, 0.0  # approaches: when an approach ends, 0 for none
        self.tripped, self.recovers = False, 0.0  # after a SafeTip event; when the feedback comes back, 0 for never
        self.safe_tip = {"on": 0, "recover": 0, "pause": 0, "threshold": 1e-9}
        self.height, self.tip = rest(Z_RANGE / 2), rest(np.zeros(2))
        self.coarse = np.zeros(3)  # m, of the motor
        self.limits, self.limited = (Z_RANGE / 2, -Z_RANGE / 2), 0
        self.occupied = ("", 0.0)  # what the tip is busy with, and until when
        self.pulse, self.pulsing = 0.0, {"hold": names.PULSE_HOLD, "mode": names.PULSE_ABSOLUTE}  # V while one lasts
        self.settings: dict[str, Values] = {
            "ZCtrl.SwitchOffDelay": {"delay": 0.0}, "ZCtrl.TipLift": {"lift": 0.0}, "ZCtrl.WithdrawRate": {"rate": SLEW},
        }  # fmt: skip
        self.gains, self.home = (5e-12, 1e-4), (0, Z_RANGE / 2)
        self.noise = np.random.default_rng(0)

    # ---- time ----

    def _takes(self, seconds: float) -> float:
        """Seconds of this machine that simulated ones take."""
        return seconds / self.pace if self.pace else 0.0

    def _until(self, done: Callable[[float], bool], milliseconds: int = -1, safe: bool = False) -> bool:
        """Wait until something is so, others may go on; False when that takes too long, -1 for as long as it takes. safe: also on the way to the safe state.

        What was begun goes on where the wait ends because the one who waits has gone, or because the controller shuts down.
        """
        end = np.inf if milliseconds < 0 else time.monotonic() + 1e-3 * milliseconds
        while not done(now := time.monotonic()):
            if self.closed or (self.leaving and not safe):
                raise ProbeGymError(LEAVES)
            if not self.asking.there():
                raise ProbeGymError("whoever asked has gone")
            if now >= end:
                return False
            self.changed.wait(min(LOOK, end - now))
            self._settle(time.monotonic())
        return True

    def _settle(self, now: float) -> None:
        """Let happen what was due until now."""
        if self.withdrawing and self.height.done(now):
            self.withdrawing = False
        if self.approaches and now >= self.approaches:
            self.approaches, self.coarse[2] = 0.0, 0.0
            self._return(now)
        if self.recovers and now >= self.recovers:
            self.recovers = 0.0
            self._return(now)
        if not self.tripped and self._near(now) and self._too_much(self._current(now)):
            self._trip(now)

    def _halt(self, now: float) -> None:
        """End what moves along the surface."""

    def _altered(self, now: float) -> None:
        """What follows from another bias, setpoint or height."""
        self._settle(now)

    def _free(self, what: str, now: float) -> None:
        """Raise ProbeGymError where the tip is busy."""
        if self.leaving:
            raise ProbeGymError(LEAVES)
        busy, until = self.occupied
        if now < until:
            raise ProbeGymError(f"{what} is not possible, {busy} is running")
        if self.withdrawing or self.approaches:
            raise ProbeGymError(f"{what} is not possible, the tip is {'withdrawing' if self.withdrawing else 'approaching'}")

    # ---- the tip ----

    def _range(self) -> tuple[float, float]:
        """Lowest and highest Z that the limits allow."""
        high, low = self.limits if self.limited else (Z_RANGE / 2, -Z_RANGE / 2)
        return max(low, -Z_RANGE / 2), min(high, Z_RANGE / 2)

    def _bounds(self) -> tuple[float, float]:
        """Lowest and highest Z: what limits allow, but where the surface is in the way the tip stops in contact."""
        low, high = self._range()
        return max(low, -float(self.coarse[2])), max(high, -float(self.coarse[2]))

    def _held(self, bias: float) -> float:
        """Z at which the setpoint flows at a bias, or the end of the range."""
        return float(np.clip(gap(self.setpoint / abs(bias)) - self.coarse[2], *self._bounds()))

    def _z(self, now: float) -> float:
        if not (self.on and self.height.done(now)):
            return float(self.height.at(now))
        return self._held(self.bias if self.pulsing["hold"] == names.PULSE_HOLD else self._volts(now))

    def _pulsed(self, now: float) -> bool:
        """Whether a bias pulse lasts."""
        return self.occupied[0] == PULSE and now < self.occupied[1]

    def _volts(self, now: float) -> float:
        """The bias that there is, also in a pulse."""
        return self.pulse if self._pulsed(now) else self.bias

    def _near(self, now: float) -> bool:
        return self._z(now) + float(self.coarse[2]) < NEAR

    def _siemens(self, now: float) -> float:
        return conductance(self._z(now) + float(self.coarse[2]))

    def _current(self, now: float) -> float:
        return self._volts(now) * self._siemens(now)

    def _read_current(self, now: float) -> float:
        """What the preamplifier shows."""
        return float(np.clip(self._current(now) + NOISE * float(self.noise.standard_normal()), -SATURATION, SATURATION))

    def _too_much(self, current: float) -> bool:
        """Whether SafeTip is on, and the preamplifier shows it that much."""
        return bool(self.safe_tip["on"] and min(abs(current), SATURATION) > self.safe_tip["threshold"])

    def _tunnels(self, bias: float, setpoint: float) -> None:
        """Raise ProbeGymError where a feedback that is on would run the tip into the surface."""
        if bias == 0:
            raise ProbeGymError("with the Z-Controller on, a bias of 0 V would crash the tip")
        if not 0 < setpoint < CONTACT * abs(bias):
            raise ProbeGymError(f"a setpoint of {setpoint:g} A at {bias:g} V would crash the tip")

    def _to(self, z: float, speed: float, now: float) -> None:
        """Move along Z, the feedback being off."""
        self.height = Ramp(np.asarray(self._z(now)), np.asarray(z), now, now + self._takes(abs(z - self._z(now)) / speed))

    def _return(self, now: float) -> None:
        """Switch the feedback on again, unless that would crash the tip."""
        with contextlib.suppress(ProbeGymError):
            self._land(now)

    def _land(self, now: float) -> None:
        """Switch the feedback on."""
        if self.leaving:
            raise ProbeGymError(LEAVES)
        self._tunnels(self.bias, self.setpoint)
        self._to(self._held(self.bias), SLEW, now)
        self.on, self.withdrawing, self.tripped, self.recovers, self.approaches = True, False, False, 0.0, 0.0

    def _off(self, now: float) -> None:
        """Switch the feedback off, where the tip is."""
        self.height = rest(self._z(now))
        self.on, self.withdrawing, self.approaches, self.recovers = False, False, 0.0, 0.0

    def _trip(self, now: float) -> None:
        """SafeTip: the tip goes up at once."""
        was = self.on
        self._halt(now)
        self._off(now)
        self.height, self.tripped = rest(self._bounds()[1]), True
        if was and self.safe_tip["recover"]:
            self.recovers = now + RECOVERY

    # ---- bias ----

    def _bias_set(self, bias: float) -> None:
        if not abs(bias) <= HIGHEST_BIAS:
            raise ProbeGymError("Bias value out of range")
        if self.on:
            self._tunnels(bias, self.setpoint)
        before, self.bias = self.bias, bias
        try:
            self._altered(time.monotonic())
        except ProbeGymError:  # of what lies under the tip
            self.bias = before
            raise

    def _bias_get(self) -> Values:
        return {"bias": self.bias}

    def _current_get(self) -> Values:
        return {"current": self._read_current(time.monotonic())}

    # ---- Z-controller ----

    def _zctrl_zposset(self, z: float) -> None:
        if self.on:
            raise ProbeGymError("Z-Controller is on: switch it off before the tip is moved along Z")
        self._reachable(z)
        now = time.monotonic()
        self.withdrawing, self.tripped = False, False
        self._to(z, SLEW, now)
        self._altered(now)

    def _reachable(self, z: float) -> None:
        """Raise ProbeGymError where Z cannot be."""
        if self.leaving:
            raise ProbeGymError(LEAVES)
        low, high = self._range()
        if not low <= z <= high:
            raise ProbeGymError(f"Z position out of range ({low:g} to {high:g} m)")
        if z + self.coarse[2] <= 0:
            raise ProbeGymError("Z position would bring the tip into contact")

    def _zctrl_zposget(self) -> Values:
        return {"z": self._z(time.monotonic())}

    def _zctrl_onoffset(self, on: int) -> None:
        now = time.monotonic()
        if on not in (0, 1):
            raise ProbeGymError("Z-Controller status is 0 (off) or 1 (on)")
        if on and not self.on:
            self._land(now)
            self._settle(now)
        elif not on and self.on:
            self._halt_scan(now)
            self._off(now)
            self.height = rest(min(self._z(now) + self.settings["ZCtrl.TipLift"]["lift"], self._bounds()[1]))

    def _halt_scan(self, now: float) -> None:
        """End an image, which needs the feedback."""

    def _zctrl_onoffget(self) -> Values:
        return {"on": int(self.on)}

    def _zctrl_setpntset(self, setpoint: float) -> None:
        self._tunnels(self.bias if self.on else HIGHEST_BIAS, setpoint)
        before, self.setpoint = self.setpoint, setpoint
        try:
            self._altered(time.monotonic())
        except ProbeGymError:
            self.setpoint = before
            raise

    def _zctrl_setpntget(self) -> Values:
        return {"setpoint": self.setpoint}

    def _zctrl_gainset(self, proportional: float, time_constant: float, integral: float) -> None:
        if min(proportional, time_constant) <= 0:
            raise ProbeGymError("P-gain and time constant must be above 0")
        self.gains = (proportional, time_constant)  # the integral gain follows from them

    def _zctrl_gainget(self) -> Values:
        return {"proportional": self.gains[0], "time_constant": self.gains[1], "integral": self.gains[0] / self.gains[1]}

    def _zctrl_home(self) -> None:
        now = time.monotonic()
        relative, z = self.home
        target = self._z(now) + z if relative else z
        self._reachable(target)
        self._halt(now)
        self._off(now)
        self._zctrl_zposset(target)

    def _zctrl_homepropsset(self, mode: int, z: float) -> None:
        if mode not in (0, 1, 2):
            raise ProbeGymError("Home is 0 (no change), 1 (absolute) or 2 (relative)")
        self.home = (mode - 1 if mode else self.home[0], z)

    def _zctrl_homepropsget(self) -> Values:
        return {"mode": self.home[0], "z": self.home[1]}

    def _zctrl_activectrlset(self, index: int) -> None:
        if index != 0:
            raise ProbeGymError("there is one Z-Controller, with the index 0")

    def _zctrl_ctrllistget(self) -> Values:
        return {"names": ("log Current",), "index": 0}

    def _zctrl_withdraw(self, wait: int, timeout: int) -> None:
        now = time.monotonic()
        self._halt(now)
        self._off(now)
        self.tripped, self.withdrawing = False, True
        self._to(self._bounds()[1], self.settings["ZCtrl.WithdrawRate"]["rate"], now)
        if wait:
            self._until(lambda now: not self.withdrawing or self.height.done(now), timeout, safe=True)

    def _zctrl_limitsenabledset(self, on: int) -> None:
        self.limited = int(bool(on))
        self._settle(time.monotonic())

    def _zctrl_limitsenabledget(self) -> Values:
        return {"on": self.limited}

    def _zctrl_limitsset(self, high: float, low: float) -> None:
        if not low < high:
            raise ProbeGymError("the low limit of Z must lie below the high one")
        self.limits = (high, low)
        self._settle(time.monotonic())

    def _zctrl_limitsget(self) -> Values:
        return dict(zip(("high", "low"), self.limits, strict=True))

    def _zctrl_statusget(self) -> Values:
        held = self._pulsed(time.monotonic()) and self.pulsing["hold"] == names.PULSE_HOLD
        status = names.Z_SAFE_TIP if self.tripped else names.Z_WITHDRAWING if self.withdrawing else names.Z_ON if self.on else names.Z_OFF
        return {"status": names.Z_HOLD if held and self.on else status}

    # ---- SafeTip ----

    def _safetip_onoffset(self, status: int) -> None:
        if status not in (0, names.SAFE_TIP_ON, names.SAFE_TIP_OFF):
            raise ProbeGymError("SafeTip is 0 (no change), 1 (on) or 2 (off)")
        if status:
            self.safe_tip["on"] = int(status == names.SAFE_TIP_ON)
        self._settle(time.monotonic())

    def _safetip_onoffget(self) -> Values:
        return {"on": self.safe_tip["on"]}

    def _safetip_signalget(self) -> Values:
        return {"signal": self._read_current(time.monotonic())}

    def _safetip_propsset(self, recover: int, pause: int, threshold: float) -> None:
        if not {recover, pause} <= {0, 1} or threshold <= 0:
            raise ProbeGymError("SafeTip needs 0 or 1 for recovery and pause, and a threshold above 0")
        self.safe_tip |= {"recover": recover, "pause": pause, "threshold": threshold}
        self._settle(time.monotonic())

    def _safetip_propsget(self) -> Values:
        return {name: self.safe_tip[name] for name in ("recover", "pause", "threshold")}
