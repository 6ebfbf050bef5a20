"""What takes time in a simulated controller: ramps of the tip, and a scan that goes line by line. Times in s of one clock."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from probegym.hardware_bridge.commands import LaneState


@dataclass(frozen=True)
class Ramp:
    """From one place to another at constant speed. start, end: m, numbers or (2,); begun, ends, now: s."""

    start: np.ndarray
    end: np.ndarray
    begun: float = 0.0
    ends: float = 0.0

    def share(self, now: float) -> float:
        """How much of the way is done, 0 to 1."""
        return 1.0 if now >= self.ends else max(0.0, (now - self.begun) / (self.ends - self.begun))

    def at(self, now: float) -> np.ndarray:
        """Where it is."""
        return self.end if self.done(now) else np.asarray(self.start + self.share(now) * (self.end - self.start))

    def done(self, now: float) -> bool:
        """Whether it has arrived."""
        return now >= self.ends


def rest(place: np.ndarray | float) -> Ramp:
    """Standing still. place: m, a number or (2,)."""
    return Ramp(np.asarray(place, float), np.asarray(place, float))


@dataclass(frozen=True)
class Drag:
    """What a move of the tip did to the sample. before: what there was, to undo it; to: drags to another end (2,) m, returns its trace.

    end: (2,) m; trace: (samples,) A along the way; trips: whether SafeTip withdraws the tip at the end.
    """

    before: LaneState
    to: Callable[[np.ndarray], np.ndarray]
    end: np.ndarray
    trace: np.ndarray
    trips: bool


@dataclass
class Scan:
    """An image as it grows. heights: (lines, pixels) m in the order of the lines; frame: x, y, width, height in m; bias: V; current: A; begun, ends, now: s."""

    heights: np.ndarray
    frame: np.ndarray
    upwards: bool
    bias: float
    current: float
    begun: float
    ends: float
    paused: float | None = None  # since when
    over: bool = False

    def lines(self, now: float) -> float:
        """Lines that are complete, and the share of the one that is not."""
        now = now if self.paused is None else self.paused
        if now >= self.ends:
            return float(len(self.heights))
        return len(self.heights) * (now - self.begun) / (self.ends - self.begun)

    def stop(self, now: float) -> None:
        """End here; what was not scanned is no number."""
        self.heights[int(self.lines(now)) :] = np.nan
        self.over = True

    def resume(self, now: float) -> None:
        """Go on after a pause."""
        if self.paused is not None:
            self.begun, self.ends, self.paused = self.begun + now - self.paused, self.ends + now - self.paused, None

    def seen(self, now: float) -> np.ndarray:
        """Heights so far, with NaN where the tip has not been."""
        if self.over:
            return self.heights
        out = self.heights.copy()
        out[int(self.lines(now)) :] = np.nan
        return out

    def tip(self, now: float) -> np.ndarray:
        """(2,) m where the tip is, forth and back along each line."""
        line, lines = min(self.lines(now), len(self.heights) - 1e-9), len(self.heights)
        along = 1 - abs(2 * (line % 1) - 1)
        up = (int(line) + 0.5) / lines - 0.5
        return np.array([self.frame[0] + self.frame[2] * (along - 0.5), self.frame[1] + self.frame[3] * (up if self.upwards else -up)])
