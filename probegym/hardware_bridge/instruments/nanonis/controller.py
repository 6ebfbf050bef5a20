"""A simulated Nanonis SPM controller: what the vendor's one answers to each command, with a twin under its tip.

What happens to tip and sample happens in the twin: images, bias pulses, the tip shaper, and moves of the tip with the feedback at a
conductance that drags. Where the real controller refuses, this one does; what it does not simulate it refuses, too. What a pulse or a dip does to the tip
is a matter of chances that the twin has for its bias or depth: neither its duration nor the gap has a share in them.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

import probegym
from probegym.errors import ProbeGymError
from probegym.hardware_bridge.codec import Malformed
from probegym.hardware_bridge.commands import DipTip, Lanes, PulseBias
from probegym.hardware_bridge.instruments.nanonis import commands as names
from probegym.hardware_bridge.instruments.nanonis.feedback import HIGHEST_BIAS, PULSE, SLEW, Z_RANGE
from probegym.hardware_bridge.instruments.nanonis.protocol import Values
from probegym.hardware_bridge.instruments.nanonis.sample import ON, Sample, conductance
from probegym.hardware_bridge.instruments.nanonis.scanning import CHANNELS, Scanning
from probegym.hardware_bridge.world import World

SIGNALS = tuple(CHANNELS.get(index, f"Input {index} (V)") for index in range(128))
RELEASE = 13742  # of the protocol's document that this follows
LONGEST_TREATMENT = 10.0  # s
SHAPER = {
    "switch_off_delay": 0.1, "change_bias": 0, "bias": 0.1, "lift": -1e-9, "lift_time": 0.1, "bias_lift": 0.1, "settling": 0.1, "height": 5e-9,
    "height_time": 0.1, "end": 0.1, "restore": 1,
}  # fmt: skip


class Controller(Scanning):
    """Answers commands by name. world: a twin of one lane; pace: simulated seconds a second, 0 for as fast as it can. For several threads at once."""

    def __init__(self, world: World, pace: float = 0.0):
        super().__init__(Sample(world), pace)
        self.shaper: Values = dict(SHAPER)

    def answer(self, name: str, body: bytes, there: Callable[[], bool] = lambda: True) -> bytes:
        """The whole answer to a command; raises Malformed when the body is not one of that command. there: whether it is still waited for."""
        self.asking.there = there
        if name not in names.COMMANDS:
            return names.refusal(name, "Invalid command, or not simulated")
        arguments = names.arguments(name, body)
        try:
            for field, value in arguments.items():
                if isinstance(value, float) and not np.isfinite(value):
                    raise ProbeGymError(f"{field} is not finite")
            with self.changed:
                self._settle(time.monotonic())
                values = self._do(name, arguments)
                self.changed.notify_all()
            return names.response(name, **values)
        except Malformed:
            raise
        except ProbeGymError as error:
            return names.refusal(name, str(error))

    def leave(self) -> None:
        """Refuse from now on what keeps the tip at the surface, so that those who work with it make it safe."""
        with self.changed:
            self.leaving = True
            self.changed.notify_all()

    def close(self) -> None:
        """Let commands that wait return."""
        with self.changed:
            self.closed = True
            self.changed.notify_all()

    def begin(self, key: int) -> None:
        """Put the sample of an episode's key under the tip; the controller stands as it stood, but nothing moves on."""
        with self.changed:
            self._halt(time.monotonic())
            self.sample.world.begin(np.array([key], np.uint64), ON)
            self.changed.notify_all()

    def truth(self) -> Lanes:
        """Hidden state of the twin."""
        with self.changed:
            return dict(self.sample.world.truth() or {})

    def _do(self, name: str, arguments: Values) -> Values:
        handler = getattr(self, f"_{name.replace('.', '_').lower()}", None)
        if handler is None:
            return self._setting(name[:-3], name[-3:], arguments)
        return handler(**arguments) or {}

    def _setting(self, name: str, verb: str, arguments: Values) -> Values:
        """Numbers that are only kept."""
        if verb == "Set":
            for field, value in arguments.items():
                if value < 0:
                    raise ProbeGymError(f"{field} must not be below 0")
                if field == "rate" and not value:
                    raise ProbeGymError("the rate must be above 0")
            self.settings[name] |= arguments
            return {}
        return self.settings[name]

    # ---- treatments of the tip ----

    def _bias_pulse(self, wait: int, width: float, bias: float, hold: int, mode: int) -> None:
        now = time.monotonic()
        self._free(PULSE, now)
        if not {hold, mode} <= {0, 1, 2} or not 0 < width <= LONGEST_TREATMENT:
            raise ProbeGymError(f"a pulse has a width up to {LONGEST_TREATMENT:g} s, and 0, 1 or 2 for hold and mode")
        pulsing = {"hold": hold or self.pulsing["hold"], "mode": mode or self.pulsing["mode"]}
        volts = bias + (self.bias if pulsing["mode"] == names.PULSE_RELATIVE else 0.0)
        if not abs(volts) <= HIGHEST_BIAS:
            raise ProbeGymError("Bias value out of range")
        follows = self.on and pulsing["hold"] == names.PULSE_NO_HOLD
        if follows:
            self._tunnels(volts, self.setpoint)
        self._stop_move(now)
        if self._near(now):
            if not self.sample.has(PulseBias):
                raise ProbeGymError("bias pulses are not simulated for this sample")
            most = abs(volts) * self._siemens(now)  # the bias jumps, the tip does not yet
            if follows:  # at the end it is the other way round: nearer after less bias, when the bias is back
                most = max(most, abs(self.bias / volts) * self.setpoint)
            self.sample.pulse(self._there(now), volts, width)
            if self._too_much(most):
                self._trip(now)
        self.pulse, self.pulsing = volts, pulsing
        self._occupy(PULSE, width, now, wait)

    def _tipshaper_propsset(self, **arguments: Any) -> None:
        for name in ("change_bias", "restore"):
            if arguments[name] not in (0, names.YES, names.NO):
                raise ProbeGymError(f"{name} is 0 (no change), 1 (yes) or 2 (no)")
            arguments[name] = {0: self.shaper[name], names.YES: 1, names.NO: 0}[arguments[name]]
        if any(not 0 <= arguments[name] <= LONGEST_TREATMENT for name in ("switch_off_delay", "lift_time", "settling", "height_time", "end")):
            raise ProbeGymError(f"times of the tip shaper are from 0 to {LONGEST_TREATMENT:g} s")
        if max(abs(arguments[name]) for name in ("bias", "bias_lift")) > HIGHEST_BIAS:
            raise ProbeGymError("Bias value out of range")
        self.shaper = arguments

    def _tipshaper_propsget(self) -> Values:
        return self.shaper

    def _tipshaper_start(self, wait: int, timeout: int) -> None:
        now, shaper = time.monotonic(), self.shaper
        self._free("the tip shaper", now)
        self._stop_move(now)
        low, high = self._range()
        deepest = self._z(now) + shaper["lift"]
        end = deepest + shaper["height"]
        if not (low <= deepest and low <= end <= high):
            raise ProbeGymError("the tip shaper would leave the range of Z")
        if self._near(now) and shaper["lift"] < 0:
            if not self.sample.has(DipTip):
                raise ProbeGymError("the tip shaper is not simulated for this sample")
            bias = shaper["bias"] if shaper["change_bias"] else self.bias
            if self._too_much(max(abs(bias), abs(shaper["bias_lift"])) * conductance(deepest + float(self.coarse[2]))):
                self._trip(now)  # before it is in: SafeTip takes no contact for an intended one
                self._occupy("the tip shaper", shaper["switch_off_delay"] + shaper["lift_time"], now, wait, timeout)
                return
            self.sample.dip(self._there(now), -shaper["lift"], bias, shaper["lift_time"] + shaper["settling"] + shaper["height_time"])
        if not (self.on and shaper["restore"]):
            self._off(now)
            self._to(max(end, self._bounds()[0]), SLEW, now)
        times = (shaper[name] for name in ("switch_off_delay", "lift_time", "height_time", "end"))
        self._occupy("the tip shaper", sum(times) + 2 * shaper["settling"], now, wait, timeout)

    def _there(self, now: float) -> np.ndarray:
        """(2,) m on the sample."""
        return self.tip.at(now) + self.coarse[:2]

    def _occupy(self, what: str, seconds: float, now: float, wait: int, timeout: int = -1) -> None:
        self.occupied = (what, now + self._takes(seconds))
        if wait:
            self._until(lambda now: now >= self.occupied[1], timeout)

    # ---- signals ----

    def _signal(self, index: int) -> float:
        now = time.monotonic()
        if not 0 <= index < len(SIGNALS):
            raise ProbeGymError(f"signals have the indices 0 to {len(SIGNALS) - 1}")
        x, y = map(float, self._place(now))
        return {0: self._read_current(now), 12: x, 13: y, 14: self._z(now), 15: self._volts(now)}.get(index, 0.0)

    def _signals_namesget(self) -> Values:
        return {"names": SIGNALS}

    def _signals_valget(self, index: int, wait: int) -> Values:
        return {"value": self._signal(index)}

    def _signals_valsget(self, indexes: np.ndarray, wait: int) -> Values:
        return {"values": [self._signal(int(index)) for index in indexes]}

    def _piezo_rangeget(self) -> Values:
        return {"x": 2 * self.sample.reach, "y": 2 * self.sample.reach, "z": Z_RANGE}

    def _util_versionget(self) -> Values:
        return {"product": "ProbeGym twin", "version": probegym.__version__, "host_release": RELEASE, "engine_release": RELEASE}
