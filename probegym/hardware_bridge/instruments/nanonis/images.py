"""Images at constant current from a Nanonis controller: set up, scanned, and read with the places that the controller itself tells."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np

from probegym.hardware_bridge.commands import AcquireTopograph, LocateAdatoms
from probegym.hardware_bridge.instruments import InstrumentFault
from probegym.hardware_bridge.instruments.nanonis import commands
from probegym.hardware_bridge.instruments.nanonis.descriptor import Facts
from probegym.hardware_bridge.instruments.nanonis.settings import Settings
from probegym.hardware_bridge.instruments.nanonis.tip import Tip
from probegym.hardware_bridge.instruments.nanonis.turn import Turn
from probegym.hardware_bridge.world import Refused

SLICE, GRAB_SECONDS = 0.1, 5.0  # s for which the controller is let wait for the end of a scan at once, and for sending an image
X, Y, Z = "X (m)", "Y (m)", "Z (m)"


@dataclass(frozen=True)
class Frame:
    """One image. height: (rows, columns) m, slow axis first, from the lowest x and y on; x: (columns,) and y: (rows,) m, where the pixels are."""

    height: np.ndarray
    x: np.ndarray
    y: np.ndarray


class Scanner:
    """Takes images; knows the last one, so that a frame that was sent again is no new one."""

    def __init__(self, settings: Settings, facts: Facts, tip: Tip):
        self.settings, self.facts, self.tip, self.last = settings, facts, tip, 0

    def scan(self, turn: Turn, command: AcquireTopograph | LocateAdatoms) -> list[Frame]:
        """The image, and that of the way back where the settings want it. Raises Refused before anything moved, InstrumentFault later."""
        (rows, columns), width, centre = command.shape, command.field_of_view, command.centre[0]
        if not abs(command.bias) * self.settings.scan.conductance >= command.current:
            raise Refused(f"an image at {command.current:g} A and {command.bias:g} V is above the {self.settings.scan.conductance:g} S of the settings, or has no bias")
        if turn.ask("Scan.StatusGet")["running"]:
            raise Refused("a scan is running that was not started here: stop it on the controller")
        turn.prepared("Scan.Frame", x=float(centre[0]), y=float(centre[1]), width=width, height=width * rows / columns, angle=0.0)
        turn.prepared("Scan.Buffer", channels=sorted(self.facts.signals[name] for name in (X, Y, Z)), pixels=columns, lines=rows)
        speed, line = command.speed, width / command.speed
        kept = {"keep": commands.KEEP_SPEED - 1, "forward_time": line, "backward_time": line}
        turn.prepared("Scan.Speed", kept, forward=speed, backward=speed, forward_time=line, backward_time=line, keep=commands.KEEP_SPEED, ratio=1.0)
        self.tip.land(turn)
        self.tip.tune(turn, command.bias, command.current)
        self._run(turn, float(np.max(command.takes())))
        self.tip.unchanged(turn, command.bias, command.current)
        directions = (commands.FORWARD, commands.BACKWARD) if self.settings.scan.backward else (commands.FORWARD,)
        frames = [self._frame(turn, command, direction) for direction in directions]
        checksum = zlib.crc32(np.ascontiguousarray(frames[0].height).tobytes())
        if checksum == self.last:
            raise InstrumentFault("the image is the same to the last bit as the one before: the controller sent an old one")
        self.last = checksum
        return frames

    def _run(self, turn: Turn, seconds: float) -> None:
        """Scan upwards, and wait in slices, so that stops and deadlines hold."""
        before = turn.left()
        turn.ask("Scan.Action", action=commands.SCAN_START, direction=commands.UP)
        while turn.ask("Scan.WaitEndOfScan", lasts=(slice_ := min(SLICE, turn.left())), timeout=max(1, round(1e3 * slice_)))["timed_out"]:
            self.tip.stays(turn)
        self.tip.stays(turn)
        if turn.ask("Scan.StatusGet")["running"]:
            raise InstrumentFault("the controller says that the scan has ended, and that it runs")
        if self.settings.real_time and before - turn.left() < seconds / 2:
            raise InstrumentFault(f"the scan ended after {before - turn.left():.3g} s instead of {seconds:.3g} s: somebody stopped it")

    def _frame(self, turn: Turn, command: AcquireTopograph | LocateAdatoms, direction: int) -> Frame:
        shape, width = command.shape, command.field_of_view
        x, y, height = (self._channel(turn, name, direction, shape) for name in (X, Y, Z))
        places = x.mean(0), y.mean(1)
        for along, axis in zip(places, (1, 0), strict=True):
            if along[0] > along[-1]:  # whichever way the controller sends lines and pixels
                along[:], height = along[::-1].copy(), np.flip(height, axis)
        for along, middle, name in zip(places, command.centre[0], "xy", strict=True):
            wanted = middle + width / shape[1] * (np.arange(len(along)) + 0.5 - len(along) / 2)
            if not np.abs(along - wanted).max() <= width / shape[1]:
                raise InstrumentFault(f"the image lies at {along[0]:g} to {along[-1]:g} m in {name}, asked was {wanted[0]:g} to {wanted[-1]:g} m: it is another one")
        return Frame(height, *places)

    def _channel(self, turn: Turn, name: str, direction: int, shape: tuple[int, int]) -> np.ndarray:
        told = turn.ask("Scan.FrameDataGrab", patience=GRAB_SECONDS, channel=self.facts.signals[name], direction=direction)
        data = np.asarray(told["data"], float)
        if told["name"].strip() != name:
            raise InstrumentFault(f"the controller sent {told['name'][:40]!r} instead of {name!r}")
        if data.shape != tuple(shape):
            raise InstrumentFault(f"the controller sent an image of {' x '.join(map(str, data.shape))} pixels instead of {shape[0]} x {shape[1]}")
        if not np.isfinite(data).all():
            raise InstrumentFault(f"the image is not complete: {np.count_nonzero(~np.isfinite(data))} pixels were not scanned")
        return data
