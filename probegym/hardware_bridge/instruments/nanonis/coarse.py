"""The coarse motor of a simulated controller, and its approach."""

from __future__ import annotations

import time

from probegym.errors import ProbeGymError
from probegym.hardware_bridge.instruments.nanonis.feedback import Feedback
from probegym.hardware_bridge.instruments.nanonis.protocol import Values
from probegym.hardware_bridge.instruments.nanonis.sample import Sample

STEP, FARTHEST_STEP = 50e-9, 1e-3  # m: one step, and the range


class Coarse(Feedback):
    """Commands of the motor."""

    def __init__(self, sample: Sample, pace: float):
        super().__init__(sample, pace)
        self.motor = (1000.0, 100.0)  # Hz, V

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
