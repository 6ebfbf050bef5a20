"""The vertical half of a simulated controller: bias, Z-controller, SafeTip and coarse motor, and the current that follows from them.

The surface is at Z = 0 when the motor stands where it began, and Z grows away from it. Under a feedback that is on, the tip stands
where the set point flows, as in physics/stm.py; with the feedback off it stays, and bias and height decide the current.
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
from probegym.hardware_bridge.instruments.nanonis.sample import CONTACT, Sample, conductance, gap

HIGHEST_BIAS = 10.0  # V
Z_RANGE = 400e-9  # m, half of it each way
SLEW = 1e-6  # m/s of the Z-piezo where nothing else is set
NEAR = 2e-9  # m, gap within which there is a current to speak of
NOISE = 0.2e-12  # A rms, of the preamplifier
STEP, FARTHEST_STEP = 50e-9, 1e-3  # m, of the coarse motor: one step, and its range
RECOVERY = 1.0  # s after a SafeTip event, where it is to recover by itself
LOOK = 0.02  # s, between two looks of a command that waits


class Feedback:
    """State and commands of the Z axis. pace: simulated seconds a second, 0 for no waiting. Methods named after a command carry it out, under ``changed``."""

    def __init__(self, sample: Sample, pace: float):
        if not 0 <= pace < np.inf:
            raise ProbeGymError(f"pace must be 0 or simulated seconds a second, got {pace:g}")
        self.sample, self.pace = sample, pace
        self.changed, self.closed = threading.Condition(), False
        self.bias, self.setpoint = 1.0, 50e-12  # V, A
        self.on, self.withdrawing, self.approaches = False, False, 0.0  # approaches: when an approach ends, 0 for none
        self.tripped, self.recovers = False, 0.0  # after a SafeTip event; when the feedback comes back, 0 for never
        self.safe_tip = {"on": 0, "recover": 0, "pause": 0, "threshold": 1e-9}
        self.height, self.tip = rest(Z_RANGE / 2), rest(np.zeros(2))
        self.coarse = np.zeros(3)  # m, of the motor
        self.limits, self.limited = (Z_RANGE / 2, -Z_RANGE / 2), 0
        self.occupied = ("", 0.0)  # what the tip is busy with, and until when
        self.settings: dict[str, Values] = {
            "ZCtrl.SwitchOffDelay": {"delay": 0.0}, "ZCtrl.TipLift": {"lift": 0.0}, "ZCtrl.WithdrawRate": {"rate": SLEW},
        }  # fmt: skip
        self.gains, self.home = (5e-12, 1e-4), (0, Z_RANGE / 2)
        self.motor = (1000.0, 100.0)  # Hz, V
        self.noise = np.random.default_rng(0)

    # ---- time ----

    def _takes(self, seconds: float) -> float:
        """Seconds of this machine that simulated ones take."""
        return seconds / self.pace if self.pace else 0.0

    def _until(self, done: Callable[[float], bool], milliseconds: int = -1) -> bool:
        """Wait until something is so, others may go on; False when that takes too long, -1 for as long as it takes."""
        end = np.inf if milliseconds < 0 else time.monotonic() + 1e-3 * milliseconds
        while not done(now := time.monotonic()):
            if self.closed:
                raise ProbeGymError("the controller is shutting down")
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
        if self.safe_tip["on"] and not self.tripped and self._near(now) and abs(self._current(now)) > self.safe_tip["threshold"]:
            self._trip(now)

    def _halt(self, now: float) -> None:
        """End what moves along the surface."""

    def _altered(self, now: float) -> None:
        """What follows from another bias, set point or height."""
        self._settle(now)

    def _free(self, what: str, now: float) -> None:
        """Raise ProbeGymError where the tip is busy."""
        busy, until = self.occupied
        if now < until:
            raise ProbeGymError(f"{what} is not possible, {busy} is running")
        if self.withdrawing or self.approaches:
            raise ProbeGymError(f"{what} is not possible, the tip is {'withdrawing' if self.withdrawing else 'approaching'}")

    # ---- the tip ----

    def _bounds(self) -> tuple[float, float]:
        """Lowest and highest Z."""
        high, low = self.limits if self.limited else (Z_RANGE / 2, -Z_RANGE / 2)
        return max(low, -Z_RANGE / 2), min(high, Z_RANGE / 2)

    def _held(self) -> float:
        """Z at which the set point flows, or the end of the range."""
        return float(np.clip(gap(self.setpoint / abs(self.bias)) - self.coarse[2], *self._bounds()))

    def _z(self, now: float) -> float:
        return self._held() if self.on and self.height.done(now) else float(self.height.at(now))

    def _near(self, now: float) -> bool:
        return self._z(now) + float(self.coarse[2]) < NEAR

    def _siemens(self, now: float) -> float:
        return conductance(self._z(now) + float(self.coarse[2]))

    def _current(self, now: float) -> float:
        return self.bias * self._siemens(now)

    def _read_current(self, now: float) -> float:
        """What the preamplifier shows."""
        return self._current(now) + NOISE * float(self.noise.standard_normal())

    def _tunnels(self, bias: float, setpoint: float) -> None:
        """Raise ProbeGymError where a feedback that is on would run the tip into the surface."""
        if bias == 0:
            raise ProbeGymError("with the Z-Controller on, a bias of 0 V would crash the tip")
        if not 0 < setpoint < CONTACT * abs(bias):
            raise ProbeGymError(f"a set point of {setpoint:g} A at {bias:g} V would crash the tip")

    def _to(self, z: float, speed: float, now: float) -> None:
        """Move along Z, the feedback being off."""
        self.height = Ramp(np.asarray(self._z(now)), np.asarray(z), now, now + self._takes(abs(z - self._z(now)) / speed))

    def _return(self, now: float) -> None:
        """Switch the feedback on again, unless that would crash the tip."""
        with contextlib.suppress(ProbeGymError):
            self._land(now)

    def _land(self, now: float) -> None:
        """Switch the feedback on."""
        self._tunnels(self.bias, self.setpoint)
        self._to(self._held(), SLEW, now)
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
        low, high = self._bounds()
        if not low <= z <= high:
            raise ProbeGymError(f"Z position out of range ({low:g} to {high:g} m)")
        if z + self.coarse[2] <= 0:
            raise ProbeGymError("Z position would bring the tip into contact")
        now = time.monotonic()
        self.withdrawing, self.tripped = False, False
        self._to(z, SLEW, now)
        self._altered(now)

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
            self._until(lambda now: not self.withdrawing or self.height.done(now), timeout)

    def _zctrl_limitsenabledset(self, on: int) -> None:
        self.limited = int(bool(on))

    def _zctrl_limitsenabledget(self) -> Values:
        return {"on": self.limited}

    def _zctrl_limitsset(self, high: float, low: float) -> None:
        if not low < high:
            raise ProbeGymError("the low limit of Z must lie below the high one")
        self.limits = (high, low)

    def _zctrl_limitsget(self) -> Values:
        return dict(zip(("high", "low"), self.limits, strict=True))

    def _zctrl_statusget(self) -> Values:
        held = self.occupied[0] == "a bias pulse" and time.monotonic() < self.occupied[1]
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

    # ---- coarse ----

    def _autoapproach_open(self) -> None:
        """The module is always open here."""

    def _autoapproach_onoffset(self, on: int) -> None:
        now = time.monotonic()
        if on and not self.on and not self.approaches:
            self._free("an approach", now)
            self._tunnels(self.bias, self.setpoint)
            self.approaches = now + self._takes(abs(self.coarse[2]) / STEP / self.motor[0]) or now
        elif not on and self.approaches:
            self._off(now)
        self._settle(now)

    def _autoapproach_onoffget(self) -> Values:
        return {"on": int(self.approaches > 0 or (self.on and not self.height.done(time.monotonic())))}

    def _motor_startmove(self, direction: int, steps: int, group: int, wait: int) -> None:
        now = time.monotonic()
        if self.on:
            raise ProbeGymError("the motor does not move with the Z-Controller on: withdraw the tip")
        self._free("the motor", now)
        axis, sign = divmod(direction, 2)
        if axis > 2:
            raise ProbeGymError("the motor moves in the directions 0 to 5 (X+, X-, Y+, Y-, Z+, Z-)")
        if axis < 2 and self._near(now):
            raise ProbeGymError("the motor would drag the tip along the surface: withdraw it")
        moved = self.coarse.copy()
        moved[axis] += (-1 if sign else 1) * steps * STEP
        if abs(moved[axis]) > FARTHEST_STEP or moved[2] < 0:
            raise ProbeGymError("the motor is at the end of its range")
        if self._z(now) + moved[2] <= 0:
            raise ProbeGymError("the motor would bring the tip into contact")
        self._halt(now)
        self.coarse, self.occupied = moved, ("the motor", now + self._takes(steps / self.motor[0]))
        if wait:
            self._until(lambda now: now >= self.occupied[1])

    def _motor_stopmove(self) -> None:
        if self.occupied[0] == "the motor":
            self.occupied = ("", 0.0)

    def _motor_posget(self, group: int, timeout: int) -> Values:
        return dict(zip("xyz", map(float, self.coarse), strict=True))

    def _motor_freqampset(self, frequency: float, amplitude: float, axis: int) -> None:
        if min(frequency, amplitude) <= 0:
            raise ProbeGymError("frequency and amplitude of the motor must be above 0")
        self.motor = (frequency, amplitude)

    def _motor_freqampget(self, axis: int) -> Values:
        return {"frequency": self.motor[0], "amplitude": self.motor[1]}
