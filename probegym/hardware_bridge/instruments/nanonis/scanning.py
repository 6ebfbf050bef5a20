"""The lateral half of a simulated controller: moves of the tip, which drag what is under it, images line by line, the recorder of moves."""

from __future__ import annotations

import time

import numpy as np

from probegym.errors import ProbeGymError
from probegym.hardware_bridge.commands import DragTip
from probegym.hardware_bridge.instruments.nanonis import commands as names
from probegym.hardware_bridge.instruments.nanonis.coarse import Coarse
from probegym.hardware_bridge.instruments.nanonis.feedback import NOISE, SATURATION
from probegym.hardware_bridge.instruments.nanonis.motion import Drag, Ramp, Scan, rest
from probegym.hardware_bridge.instruments.nanonis.protocol import Values
from probegym.hardware_bridge.instruments.nanonis.sample import Sample

DRAGS = 5e-8  # S: a move of the tip at more is a drag, 20 megaohms are far above what moves an adatom
CHANNELS = {0: "Current (A)", 12: "X (m)", 13: "Y (m)", 14: "Z (m)", 15: "Bias (V)"}
"""Index of a signal -> its name; all others are free inputs."""
RECORDED = (0, 12, 13, 14)
WIDEST = 256  # pixels a side
PLAIN = 64  # samples of a move that drags nothing


class Scanning(Coarse):
    """State and commands of the X and Y axes."""

    def __init__(self, sample: Sample, pace: float):
        super().__init__(sample, pace)
        self.scan: Scan | None = None
        self.dragged: Drag | None = None
        self.moving = False
        self.follow = {"speed": 100e-9, "custom": 1}  # m/s
        self.frame = np.array([0.0, 0.0, 10e-9, 10e-9])  # x, y, width, height, m
        self.channels, self.shape, self.upwards = [0, 14], (128, 128), False
        self.keep, self.pair = 0, (100e-9, 100e-9)  # forth and back: speeds in m/s for 0, seconds a line for 1
        self.recorded, self.most_recorded = np.zeros((len(RECORDED), 0)), 2048

    # ---- what is under way ----

    def _scanning(self) -> bool:
        return self.scan is not None and not self.scan.over

    def _place(self, now: float) -> np.ndarray:
        return self.scan.tip(now) if self.scan and not self.scan.over else self.tip.at(now)

    def _settle(self, now: float) -> None:
        super()._settle(now)
        if self.scan and self._scanning() and self.scan.lines(now) >= len(self.scan.heights):
            self._halt_scan(now)
        if self.moving and self.tip.done(now):
            self._stop_move(now)
        if self.moving and self.dragged is None and self._drags(now):  # it came down on its way
            self._restart_move(now)

    def _free(self, what: str, now: float) -> None:
        super()._free(what, now)
        if self._scanning():
            raise ProbeGymError(f"{what} is not possible while scanning: stop the scan")

    def _halt(self, now: float) -> None:
        self._halt_scan(now)
        self._stop_move(now)

    def _halt_scan(self, now: float) -> None:
        if self.scan and not self.scan.over:
            self.tip = rest(self.scan.tip(now))
            self.scan.stop(now)

    def _altered(self, now: float) -> None:
        """What is left of a move or an image goes on under the new conditions."""
        if self.moving:
            self._restart_move(now)
        if self.scan and not self.scan.over:
            line = int(self.scan.lines(now))
            self.scan.heights[line:], self.scan.bias, self.scan.current = self._image()[line:], self.bias, self.setpoint
        super()._altered(now)

    def _current(self, now: float) -> float:
        if self.moving and self.dragged:
            return float(self.dragged.trace[int(self.tip.share(now) * (len(self.dragged.trace) - 1))]) * float(np.sign(self.bias))
        return super()._current(now)

    # ---- moves ----

    def _drags(self, now: float) -> bool:
        return self._near(now) and self._siemens(now) >= DRAGS and self.sample.has(DragTip)

    def _restart_move(self, now: float) -> None:
        target = self.tip.end
        self._stop_move(now)
        self._start_move(target, now)

    def _start_move(self, target: np.ndarray, now: float) -> None:
        """Send the tip to a place (2,) m; what it does to the sample on its way is worked out now, and again if it is stopped."""
        start, self.dragged = self.tip.at(now), None
        speed = self.follow["speed"] if self.follow["custom"] else self._speeds()[0]
        if np.any(target != start) and self._drags(now):
            self.dragged = self._dragged(start, target, speed, now)
            target = self.dragged.end
        self.tip = Ramp(start, target, now, now + self._takes(float(np.hypot(*(target - start))) / speed))
        self.moving = True

    def _dragged(self, start: np.ndarray, end: np.ndarray, speed: float, now: float) -> Drag:
        sample, bias, current, here = self.sample, self.bias, self._siemens(now) * abs(self.bias), self.coarse[:2]
        samples = min(self.most_recorded, sample.most_samples)

        def to(place: np.ndarray) -> np.ndarray:
            return np.asarray(np.clip(sample.drag(start + here, place + here, bias, current, speed, samples), -SATURATION, SATURATION))

        before = sample.kept()
        trace = to(end)
        over = np.flatnonzero(np.abs(trace) > self.safe_tip["threshold"]) if self.safe_tip["on"] else np.zeros(0, int)
        if len(over):
            sample.back(before)
            end = start + (over[0] + 1) / samples * (end - start)
            trace = to(end)
        return Drag(before, to, end, trace, trips=bool(len(over)))

    def _stop_move(self, now: float) -> None:
        """End a move, at its end or on the way, and record it."""
        if not self.moving:
            return
        here, drag, self.moving = self.tip.at(now), self.dragged, False
        if drag and not self.tip.done(now):
            self.sample.back(drag.before)
            trace = drag.to(here) if np.any(here != self.tip.start) else np.zeros(0)
        else:
            trace = drag.trace if drag else np.full(PLAIN, abs(self._current(now)))
        way = np.linspace(self.tip.start, here, len(trace)).T
        kept = np.vstack([np.sign(self.bias) * trace, way, np.full(len(trace), self._z(now))])
        self.recorded = np.hstack([self.recorded, kept])[:, -self.most_recorded :]
        self.tip, self.dragged = rest(here), None
        if drag and drag.trips:
            self._trip(now)

    def _folme_xyposset(self, x: float, y: float, wait: int) -> None:
        now, target = time.monotonic(), np.array([x, y])
        self._free("Follow Me", now)
        if not np.all(np.abs(target) <= self.sample.reach):
            raise ProbeGymError(f"the tip reaches {self.sample.reach:g} m from the centre of the piezo")
        self._stop_move(now)
        self._start_move(target, now)
        self._settle(now)
        if wait:
            self._until(lambda _: not self.moving)

    def _folme_xyposget(self, wait: int) -> Values:
        return dict(zip("xy", map(float, self._place(time.monotonic())), strict=True))

    def _folme_speedset(self, speed: float, custom: int) -> None:
        if speed <= 0:
            raise ProbeGymError("the speed of the tip must be above 0")
        self.follow = {"speed": speed, "custom": int(bool(custom))}

    def _folme_speedget(self) -> Values:
        return dict(self.follow)

    def _folme_stop(self) -> None:
        self._stop_move(time.monotonic())

    # ---- recorder ----

    def _tiprec_buffersizeset(self, size: int) -> None:
        if not 1 <= size <= 1 << 16:
            raise ProbeGymError("the buffer holds 1 to 65536 samples")
        self.most_recorded = size
        self._tiprec_bufferclear()

    def _tiprec_buffersizeget(self) -> Values:
        return {"size": self.most_recorded}

    def _tiprec_bufferclear(self) -> None:
        self.recorded = self.recorded[:, :0]

    def _tiprec_dataget(self) -> Values:
        return {"channels": RECORDED, "data": self.recorded}

    # ---- images ----

    def _speeds(self) -> tuple[float, float]:
        """m/s forth and back."""
        forth, back = self.pair
        return (forth, back) if self.keep == 0 else (float(self.frame[2] / forth), float(self.frame[2] / back))

    def _image(self) -> np.ndarray:
        forth, back = self._speeds()
        speed = forth if forth == back else 2 / (1 / forth + 1 / back)
        heights = self.sample.image(self.shape, float(self.frame[2]), speed, self.frame[:2] + self.coarse[:2], self.bias, self.setpoint)
        return self._held(self.bias) + (heights if self.upwards else heights[::-1])

    def _scan_action(self, action: int, direction: int) -> None:
        now = time.monotonic()
        if action == names.SCAN_START:
            self._start_scan(bool(direction), now)
        elif action == names.SCAN_STOP:
            self._halt_scan(now)
        elif action in (names.SCAN_PAUSE, names.SCAN_FREEZE):
            if self.scan and not self.scan.over and self.scan.paused is None:
                self.scan.paused = now
        elif action in (names.SCAN_RESUME, names.SCAN_UNFREEZE):
            if self.scan and not self.scan.over:
                self.scan.resume(now)
        elif action == names.SCAN_CENTRE:
            self._folme_xyposset(float(self.frame[0]), float(self.frame[1]), 0)
        else:
            raise ProbeGymError("Scan action is 0 to 6")

    def _start_scan(self, upwards: bool, now: float) -> None:
        self._free("a scan", now)
        self._stop_move(now)
        if not (self.on and self._near(now)):
            raise ProbeGymError("only images at constant current are simulated: switch the Z-Controller on and let the tip land")
        lines, pixels = self.shape
        width, height = self.frame[2:]
        if abs(height / lines * pixels / width - 1) > 1e-3:
            raise ProbeGymError(f"only square pixels are simulated: {width:g} x {height:g} m is not {pixels} x {lines}")
        self.upwards = upwards
        heights, seconds = self._image(), lines * width * sum(1 / speed for speed in self._speeds())
        self.scan = Scan(heights, self.frame.copy(), upwards, self.bias, self.setpoint, now, now + self._takes(seconds))
        self._settle(now)

    def _scan_statusget(self) -> Values:
        return {"running": int(self._scanning())}

    def _scan_waitendofscan(self, timeout: int) -> Values:
        return {"timed_out": int(not self._until(lambda _: not self._scanning(), timeout)), "path": ""}

    def _settled(self) -> None:
        self._free("a change of the scan", time.monotonic())

    def _scan_frameset(self, x: float, y: float, width: float, height: float, angle: float) -> None:
        self._settled()
        if angle:
            raise ProbeGymError("frames at an angle are not simulated")
        if min(width, height) <= 0 or max(abs(x) + width / 2, abs(y) + height / 2) > self.sample.reach:
            raise ProbeGymError(f"the frame must lie within {self.sample.reach:g} m of the centre of the piezo")
        self.frame = np.array([x, y, width, height])

    def _scan_frameget(self) -> Values:
        return dict(zip(("x", "y", "width", "height"), map(float, self.frame), strict=True)) | {"angle": 0.0}

    def _scan_bufferset(self, channels: np.ndarray, pixels: int, lines: int) -> None:
        self._settled()
        pixels = 16 * round(pixels / 16)  # as the real one does
        lines = lines or round(pixels * self.shape[0] / self.shape[1])
        if not (0 < pixels <= WIDEST and 0 < lines <= WIDEST):
            raise ProbeGymError(f"an image has up to {WIDEST} pixels and lines")
        if not len(channels) or not set(map(int, channels)) <= set(CHANNELS):
            raise ProbeGymError(f"channels that can be recorded are {', '.join(f'{index} {name}' for index, name in CHANNELS.items())}")
        self.channels, self.shape = sorted(set(map(int, channels))), (lines, pixels)

    def _scan_bufferget(self) -> Values:
        return {"channels": self.channels, "pixels": self.shape[1], "lines": self.shape[0]}

    def _scan_speedset(self, forward: float, backward: float, forward_time: float, backward_time: float, keep: int, ratio: float) -> None:
        self._settled()
        kept = keep - 1 if keep else self.keep
        pair = (forward, backward) if kept == 0 else (forward_time, backward_time)
        if kept not in (0, 1) or min(pair) <= 0:
            raise ProbeGymError("speeds or times must be above 0, and what to keep constant 0 (no change), 1 (speed) or 2 (time)")
        self.keep, self.pair = kept, pair

    def _scan_speedget(self) -> Values:
        forth, back = self._speeds()
        width = float(self.frame[2])
        return {"forward": forth, "backward": back, "forward_time": width / forth, "backward_time": width / back, "keep": self.keep, "ratio": back / forth}

    def _scan_xyposget(self, wait: int) -> Values:
        return self._folme_xyposget(wait)

    def _scan_framedatagrab(self, channel: int, direction: int) -> Values:
        if channel not in self.channels:
            raise ProbeGymError(f"channel {channel} is not recorded: set the scan buffer")
        if direction != names.FORWARD:
            raise ProbeGymError("only the forward direction is simulated")
        if self.scan is None:
            raise ProbeGymError("nothing was scanned yet")
        return {"name": CHANNELS[channel], "data": self._recorded(channel, self.scan), "direction": int(self.scan.upwards)}

    def _recorded(self, channel: int, scan: Scan) -> np.ndarray:
        heights = scan.seen(time.monotonic())
        lines, pixels = heights.shape
        x, y = ((np.arange(n) + 0.5) / n - 0.5 for n in (pixels, lines))
        data = {
            0: np.copysign(scan.current, scan.bias) + NOISE * self.noise.standard_normal(heights.shape),
            12: np.broadcast_to(scan.frame[0] + scan.frame[2] * x, heights.shape),
            13: np.broadcast_to((scan.frame[1] + scan.frame[3] * (y if scan.upwards else -y))[:, None], heights.shape),
            14: heights,
            15: np.full(heights.shape, scan.bias),
        }[channel]
        return np.where(np.isnan(heights), np.nan, data)
