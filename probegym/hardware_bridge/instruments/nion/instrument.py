"""A Nion microscope, or the vendor's simulator, as an instrument: through Nion Swift's instrument controller, scan and cameras alone.

Lengths are nm and times us or ms on Nion's side, SI on this. The beam is on the sample while a command exposes it, and at no other time.

Told as dose is what went through while the blanker was open, by the clock: of an image over its field of view, of all else over the least area that the
probe can cover. That is an upper bound, as where focus really is nothing tells: controls of aberrations count from wherever they stood.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import numpy as np
from scipy.constants import micro, milli, nano

from probegym.errors import ProbeGymError
from probegym.hardware_bridge.capabilities import one_lane
from probegym.hardware_bridge.commands import (
    AcquireImage,
    AcquireRonchigram,
    AcquireSpectrum,
    BlankBeam,
    Command,
    MoveStage,
    PlaceProbe,
    Readings,
    SetAberrations,
    ShiftBeam,
)
from probegym.hardware_bridge.instruments import InstrumentFault, Measured
from probegym.hardware_bridge.instruments.nion.blanker import BLANKER, Blanker
from probegym.hardware_bridge.instruments.nion.calls import within
from probegym.hardware_bridge.instruments.nion.controls import ANSWER_SECONDS, Controls
from probegym.hardware_bridge.instruments.nion.describe import Beam, described, large
from probegym.hardware_bridge.instruments.nion.setup import NionSetup, control_of
from probegym.hardware_bridge.instruments.nion.sources import STOP_SECONDS, abort, busy, free, recorded, resampled, stop, used
from probegym.hardware_bridge.instruments.nion.stack import Parts
from probegym.hardware_bridge.world import Refused


class NionInstrument:
    """The Instrument protocol. Opening it moves nothing; raises ProbeGymError where a control or a channel of the setup is not there."""

    def __init__(self, parts: Parts, setup: NionSetup):
        self.parts, self.setup = parts, setup
        self._wanted_safe = threading.Event()
        self._wanted_safe.set()
        self._halts, self._changing = 0, threading.Lock()  # how often it was sent to its safe state; held while that, or the way out, is decided
        self.controls = Controls(parts.stem, self._wanted_safe)
        self.blanker = Blanker(self.controls, setup.blank_seconds, setup.lit_seconds)
        self._names = [control_of(name) for name in setup.controls]
        self._pairs = {pair: [f"{pair}.x", f"{pair}.y"] for pair in (setup.shift, setup.stage)}
        wanted = (*self._names, setup.focus, *(name for pair in self._pairs.values() for name in pair), BLANKER)
        if lacking := [repr(name) for name in wanted if not self.controls.there(name)]:
            raise ProbeGymError(f"{setup.instrument} has no control {', '.join(lacking)}: give the name that it has there")
        self._channels = self._numbered()
        self._sides = self._camera_sides() if parts.ronchigram else None
        self._beam = self._told()
        self._large = large(setup, self._beam)
        self.descriptor = described(setup, self._beam, self._sides)
        self._locked = False  # by BlankBeam
        self._view: tuple[float, float] | None = None  # m, width and height of the last scan
        self.rebase()
        self._doing: dict[type, Callable[[Any, float], Readings]] = {
            SetAberrations: self._set_aberrations, AcquireImage: self._image, AcquireRonchigram: self._ronchigram, AcquireSpectrum: self._spectrum,
            ShiftBeam: self._shift_beam, MoveStage: self._move_stage, BlankBeam: self._blank_beam, PlaceProbe: self._place_probe,
        }  # fmt: skip

    def _numbered(self) -> dict[str, int]:
        scan = self.parts.scan
        there = {str(scan.get_channel_name(index)): index for index in range(scan.get_channel_count())}
        if lacking := [channel for channel in self.setup.detectors.values() if channel not in there]:
            raise ProbeGymError(f"{self.setup.scan} has no channel {lacking[0]!r}: use one of {', '.join(there)}")
        return {name: there[channel] for name, channel in self.setup.detectors.items()}

    def _camera_sides(self) -> tuple[int, int]:
        camera, binning = self.parts.ronchigram.camera, self.setup.binning
        if binning not in camera.binning_values:
            raise ProbeGymError(f"{self.setup.ronchigram} has the binnings {', '.join(map(str, camera.binning_values))}, not {binning}")
        rows, columns = camera.get_expected_dimensions(binning)
        return int(rows), int(columns)

    def _told(self) -> Beam:
        s, told = self.setup, []
        for control, given in (("BeamCurrent", s.beam_current), ("EHT", s.energy), ("ConvergenceAngle", s.semiangle)):
            value = given or self.parts.stem.TryGetVal(control)[1]
            if value is None or not 0 < value < np.inf:
                raise ProbeGymError(f"{s.instrument} does not tell {control}: give beam_current, energy and semiangle in its setup")
            told.append(float(value))
        return Beam(*told)

    def rebase(self) -> None:
        """Let set points count from where the controls stand now. Raises InstrumentFault."""
        self.origin = self.controls.values(self._names, time.monotonic() + ANSWER_SECONDS)

    # ---- the protocol ----

    def execute(self, command: Command, seconds: float) -> Readings:
        """Carry a command out. Raises Refused when nothing was done, InstrumentFault when it is not known what was, or it was stopped."""
        if self._wanted_safe.is_set():
            raise Refused("the instrument is in its safe state: arm it first")
        one_lane(command)
        self.descriptor.check(command)
        begun = time.monotonic()
        readings = self._doing[type(command)](command, begun + seconds)
        readings.time[:] = time.monotonic() - begun
        return readings

    def measured(self) -> dict[str, Measured]:
        """What the controls of aberrations, beam deflectors, stage and blanker (1: closed) stand at, read now."""
        begun, n = time.monotonic(), len(self._names)
        values = self.controls.values([*self._names, *self._pairs[self.setup.shift], *self._pairs[self.setup.stage], BLANKER], begun + ANSWER_SECONDS)
        told = {"aberrations": values[:n] - self.origin, "shift": values[n : n + 2], "stage": np.append(values[n + 2 : -1], 0.0), "blanker": values[-1:]}
        age = time.monotonic() - begun
        return {name: Measured(value, age) for name, value in told.items()}

    def ready(self, seconds: float) -> None:
        """Let commands through; the beam stays blanked, which is read back. Raises Refused where ``safe`` came meanwhile: that wins."""
        with self._changing:
            halts = self._halts
        self.blanker.close(time.monotonic() + seconds)
        with self._changing:
            if self._halts != halts:
                raise Refused("the instrument was sent to its safe state while it got ready")
            self._wanted_safe.clear()

    def safe(self, seconds: float) -> None:
        """Blank the beam and stop the scan, and read both back; all is tried. Raises InstrumentFault with what failed.

        Cameras are told to end, too, but not waited for: with the beam blanked they see nothing, and some cannot break an exposure off.
        """
        end, failed = time.monotonic() + seconds, []
        with self._changing:
            self._halts += 1
            self._wanted_safe.set()
        cameras = [source for source in (self.parts.ronchigram, self.parts.spectrometer) if source]
        steps: list[Callable[[float], None]] = [self.blanker.close, partial(stop, self.parts.scan), *(partial(abort, camera) for camera in cameras)]
        for step in steps:
            try:
                step(end)
            except InstrumentFault as error:
                failed.append(str(error))
        if failed:
            raise InstrumentFault("; ".join(failed))

    def is_safe(self) -> bool:
        """Whether the blanker reads back closed, nothing scans, and no command can be carried out."""
        return self._wanted_safe.is_set() and self.blanker.closed() and not busy(self.parts.scan)

    def close(self) -> None:
        """Nothing of its own is open; the vendor's stack is closed by the one who made it."""

    # ---- controls ----

    def _set_aberrations(self, command: SetAberrations, end: float) -> Readings:
        tolerances = self.setup.tolerance * np.array(list(self.setup.controls.values()))
        self.controls.set_all(command.verb, self._names, self.origin + command.values[0], tolerances, end)
        return _readings()

    def _shift_beam(self, command: ShiftBeam, end: float) -> Readings:
        near = np.full(2, self.setup.tolerance * self.setup.shift_range)
        self.controls.set_all(command.verb, self._pairs[self.setup.shift], command.shift[0], near, end)
        return _readings()

    def _move_stage(self, command: MoveStage, end: float) -> Readings:
        near = np.full(2, self.setup.tolerance * self.setup.stage_range)
        self.controls.set_all(command.verb, self._pairs[self.setup.stage], command.position[0, :2], near, end)
        return _readings()

    def _blank_beam(self, command: BlankBeam, end: float) -> Readings:
        """Locks the blanker, or gives it back to the commands that expose; it is closed in either case."""
        self._locked = command.blanked
        self.blanker.close(end)
        return _readings()

    def _unlocked(self, what: str) -> None:
        if self._locked:
            raise Refused(f"{what}: the beam was blanked by a command, let it through with BlankBeam first")

    # ---- frames ----

    def _frame(self, source: Any, what: str, moves: dict[str, float], parameters: Any, seconds: float, end: float) -> tuple[Any, float]:
        """A frame with its metadata, and s that the beam was on for it; the source is free and all controls stand before the beam comes on."""
        free(source, what, self._wanted_safe, end)
        with self.controls.excursion(what, moves, self.setup.tolerance * self.setup.excursion, end):
            try:
                with self.blanker.lit(what, seconds, end) as lit:
                    frame = recorded(source, parameters, what, self._wanted_safe, lit.end)
            except InstrumentFault:
                with suppress(InstrumentFault):  # a camera may end its exposure first, or the vendor its drawing; the next frame waits for it
                    stop(source, time.monotonic() + STOP_SECONDS)
                raise
            return frame, lit.on

    def _image(self, command: AcquireImage, end: float) -> Readings:
        self._unlocked(command.verb)
        scan, (rows, columns) = self.parts.scan, command.shape
        view = command.field_of_view * max(1.0, rows / columns)  # Nion's is that of the longer side
        parameters = scan.get_frame_parameters_from_dict(
            {"pixel_size": (rows, columns), "fov_nm": view / nano, "pixel_time_us": command.dwell_time / micro, "rotation_rad": 0.0, "center_nm": (0.0, 0.0)}
        )
        parameters.enabled_channel_indexes = [self._channels[command.detector]]
        # Places of the probe refer to these parameters, a recorded frame alone would not change them.
        within(end, "preparing the scan", lambda: scan.set_current_frame_parameters(parameters))
        seconds = command.takes() + rows * self.setup.line_seconds
        taken, on = self._frame(scan, command.verb, {self.setup.focus: float(command.defocus[0])}, parameters, seconds, end)
        if taken.data.shape != command.shape:
            raise InstrumentFault(f"{command.verb}: the scan sent {taken.data.shape} pixels, asked were {command.shape}")
        told, asked = "scan.scan_device_properties", {"scan.rotation": 0.0, "scan.center_x_nm": 0.0, "scan.center_y_nm": 0.0}
        used(taken, command.verb, {f"{told}.fov_nm": view / nano, f"{told}.pixel_time_us": command.dwell_time / micro, **asked})
        self._view = command.field_of_view, command.field_of_view * rows / columns
        return _readings(self._beam.rate(self._view[0] * self._view[1]) * on, 1, **{command.detector: np.array(taken.data, np.float32)[None]})

    def _ronchigram(self, command: AcquireRonchigram, end: float) -> Readings:
        self._unlocked(command.verb)
        camera, (dx, dy) = self.parts.ronchigram, command.film_shift[0]
        parameters = camera.get_frame_parameters_from_dict({"exposure_ms": command.exposure_time / milli, "binning": self.setup.binning, "processing": None})
        x, y = self._pairs[self.setup.shift]
        moves = {self.setup.focus: float(command.defocus[0]), x: float(dx), y: float(dy)}
        taken, on = self._frame(camera, command.verb, moves, parameters, command.exposure_time, end)
        if taken.data.shape != self._sides:
            raise InstrumentFault(f"{command.verb}: the camera sent {taken.data.shape} pixels, it has {self._sides}: is its binning {self.setup.binning}?")
        used(taken, command.verb, _exposed(command.exposure_time, self.setup.binning))
        counts = resampled(np.array(taken.data), command.shape)
        counts = (counts if self.setup.counts_per_electron == 1 else counts / self.setup.counts_per_electron).astype(np.float32)
        return _readings(self._large.rate() * on, 1, ronchigram=counts[None])

    def _at(self, what: str, position: np.ndarray, origin: float) -> Any:
        """Nion's place of the probe for a position (2,) m. origin: where it counts from, in fractions of the last image.

        Raises Refused where there is no image, or outside of it, where Nion would take its edge.
        """
        from nion.utils import Geometry

        if self._view is None:
            raise Refused(f"{what}: acquire an image first, a place of the probe refers to its field of view")
        context = self.parts.stem.scan_context.fov_size_nm
        if context is None or not np.allclose((context.width, context.height), np.array(self._view) / nano, rtol=1e-6):
            raise Refused(f"{what}: somebody has changed the scan since the last image, acquire another first")
        fractions = position / np.array(self._view) + origin
        if not ((fractions >= 0) & (fractions <= 1)).all():
            raise Refused(f"{what}: the place lies outside of the last image, which is {self._view[0] / nano:g} by {self._view[1] / nano:g} nm")
        return Geometry.FloatPoint(y=float(fractions[1]), x=float(fractions[0]))

    def _spectrum(self, command: AcquireSpectrum, end: float) -> Readings:
        self._unlocked(command.verb)
        stem, camera = self.parts.stem, self.parts.spectrometer
        place = self._at(command.verb, command.position[0], origin=0.0)
        parameters = camera.get_frame_parameters_from_dict({"exposure_ms": command.exposure_time / milli, "binning": 1, "processing": None})
        before = stem.probe_position
        self._place(place, end)
        try:
            taken, on = self._frame(camera, command.verb, {}, parameters, command.exposure_time, end)
        finally:
            self._place(before, max(end, time.monotonic() + ANSWER_SECONDS))
        used(taken, command.verb, _exposed(command.exposure_time, 1))
        counts = np.array(taken.data, float).reshape(-1, taken.data.shape[-1]).sum(0)  # a sum by the camera would come without its axis
        calibration = taken.dimensional_calibrations[-1]
        if calibration.units != "eV":
            raise InstrumentFault(f"{command.verb}: the spectrometer's axis is in {calibration.units or 'no unit'}, not in eV")
        axis = calibration.offset + calibration.scale * np.arange(len(counts))
        return _readings(self._beam.rate() * on, 1, spectrum=counts[None], axis=axis[None])

    def _place(self, place: Any, end: float) -> None:
        within(end, "placing the probe", lambda: setattr(self.parts.stem, "probe_position", place))

    def _place_probe(self, command: PlaceProbe, end: float) -> Readings:
        self._unlocked(command.verb)
        place = self._at(command.verb, command.position[0], origin=0.5)
        seconds = float(command.dwell_time[0])
        self._place(place, end)
        with self.blanker.lit(command.verb, seconds, end) as lit:
            if self._wanted_safe.wait(seconds):
                raise InstrumentFault(f"{command.verb} was stopped: the instrument went to its safe state")
        return _readings(self._beam.rate() * lit.on)


def _exposed(seconds: float, binning: int) -> dict[str, float]:
    """What the vendor tells of a camera's frame."""
    return {"hardware_source.exposure": seconds, "hardware_source.binning": binning, "hardware_source.integration_count": 1}


def _readings(dose: float = 0.0, measurements: int = 0, **values: np.ndarray) -> Readings:
    return Readings(values, np.zeros(1), np.array([dose]), np.zeros(1), np.array([float(measurements)]))
