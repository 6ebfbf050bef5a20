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
from typing import Any, TypeVar

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
from probegym.hardware_bridge.instruments.nion.beam import Beam, beam_of, ronchigram_beam
from probegym.hardware_bridge.instruments.nion.blanker import BLANKER, Blanker
from probegym.hardware_bridge.instruments.nion.calls import within
from probegym.hardware_bridge.instruments.nion.controls import ANSWER_SECONDS, Controls
from probegym.hardware_bridge.instruments.nion.describe import described
from probegym.hardware_bridge.instruments.nion.setup import BEAM_CONTROLS, NionSetup, control_of
from probegym.hardware_bridge.instruments.nion.sources import STOP_SECONDS, abort, busy, free, recorded, resampled, stop, used
from probegym.hardware_bridge.instruments.nion.stack import Parts
from probegym.hardware_bridge.world import Refused

T = TypeVar("T")


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
        end = time.monotonic() + ANSWER_SECONDS
        self._charged = self._beam(end)
        shift, stage = (self.controls.values(self._pairs[pair], end) for pair in (setup.shift, setup.stage))
        self.descriptor = described(setup, self._charged, self._sides, shift, stage)
        self._steady = self._to_stand()
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

    def _beam(self, end: float) -> Beam:
        """As it is now. Raises ProbeGymError where the instrument tells nothing that can be."""
        return beam_of(self.setup, within(end, "reading the beam", lambda: [self.parts.stem.TryGetVal(control)[1] for control in BEAM_CONTROLS.values()]))

    def _to_stand(self) -> dict[str, float]:
        """Controls that a frame depends on, and by how much their read-back may differ from before it to after it."""
        s = self.setup
        wide = {s.shift: s.shift_range or s.views[1], s.stage: s.stage_range or s.views[1]}
        found = {name: most for pair, most in wide.items() for name in self._pairs[pair]}
        found |= {s.focus: s.excursion, **dict(zip(self._names, s.controls.values(), strict=True))}
        return {name: s.tolerance * most for name, most in found.items()}

    def rebase(self) -> None:
        """Let setpoints of aberrations count from where the controls stand now. Raises InstrumentFault."""
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
        return self._move(command.verb, self._names, self.origin + command.values[0], np.array(list(self.setup.controls.values())), end)

    def _shift_beam(self, command: ShiftBeam, end: float) -> Readings:
        return self._move(command.verb, self._pairs[self.setup.shift], command.shift[0], np.full(2, self.setup.shift_range), end)

    def _move_stage(self, command: MoveStage, end: float) -> Readings:
        return self._move(command.verb, self._pairs[self.setup.stage], command.position[0, :2], np.full(2, self.setup.stage_range), end)

    def _move(self, what: str, names: list[str], to: np.ndarray, most: np.ndarray, end: float) -> Readings:
        """Set controls, each by ``most`` at once at most; raises Refused where one stands farther away, as when somebody else has moved it."""
        stand, near = self.controls.values(names, end), self.setup.tolerance * most
        for name, now, wanted, far in zip(names, stand, to, most + near, strict=True):
            if not abs(wanted - now) <= far:
                raise Refused(f"{what}: {name} stands at {now:g}, and may not move to {wanted:g} at once, only by {far:.4g}: bring it there, or open the instrument anew")
        self.controls.set_all(what, names, to, near, end)
        return _readings()

    def _blank_beam(self, command: BlankBeam, end: float) -> Readings:
        """Locks the blanker, or gives it back to the commands that expose; it is closed in either case."""
        self._locked = command.blanked
        self.blanker.close(end)
        return _readings()

    def _may_expose(self, what: str, end: float) -> Beam:
        """The beam as it is now. Raises Refused where it was locked, or is more than what is charged for."""
        if self._locked:
            raise Refused(f"{what}: the beam was blanked by a command, let it through with BlankBeam first")
        try:
            beam = self._beam(end)
        except ProbeGymError as error:
            raise Refused(f"{what}: {error}") from error
        if more := beam.beyond(self._charged):
            raise Refused(f"{what}: {more}: open the instrument anew")
        return beam

    def _exposed(self, what: str, seconds: float, beam: Beam, end: float, take: Callable[[float], T]) -> tuple[T, float, Beam]:
        """What ``take`` gives with the beam on, called with when it must be over; s that it was on; and the most that it was, ``beam`` before it.

        Raises InstrumentFault also where a control that counts, or the beam, was changed meanwhile.
        """
        names = list(self._steady)
        stood = self.controls.values(names, end)
        with self.blanker.lit(what, seconds, end) as lit:
            got = take(lit.end)
        late = max(end, time.monotonic() + ANSWER_SECONDS)
        for name, before, after in zip(names, stood, self.controls.values(names, late), strict=True):
            if not abs(after - before) <= self._steady[name]:
                raise InstrumentFault(f"{what}: somebody has moved {name} meanwhile, from {before:g} to {after:g}")
        try:
            beam = beam.brightest(self._beam(late))
        except ProbeGymError as error:
            raise InstrumentFault(f"{what}: {error}") from error
        if more := beam.beyond(self._charged):
            raise InstrumentFault(f"{what}: {more}: the sample had more than is charged for; open the instrument anew")
        return got, lit.on, beam

    # ---- frames ----

    def _frame(self, source: Any, what: str, moves: dict[str, float], parameters: Any, seconds: float, beam: Beam, end: float) -> tuple[Any, float, Beam]:
        """As ``_exposed``, a frame with its metadata; the source is free and all controls stand before the beam comes on."""
        free(source, what, self._wanted_safe, end)
        with self.controls.excursion(what, moves, self.setup.tolerance * self.setup.excursion, end):
            try:
                return self._exposed(what, seconds, beam, end, lambda until: recorded(source, parameters, what, self._wanted_safe, until))
            except InstrumentFault:
                with suppress(InstrumentFault):  # a camera may end its exposure first, or the vendor its drawing; the next frame waits for it
                    stop(source, time.monotonic() + STOP_SECONDS)
                raise

    def _image(self, command: AcquireImage, end: float) -> Readings:
        beam = self._may_expose(command.verb, end)
        scan, (rows, columns) = self.parts.scan, command.shape
        view = command.field_of_view * max(1.0, rows / columns)  # Nion's is that of the longer side
        parameters = scan.get_frame_parameters_from_dict(
            {"pixel_size": (rows, columns), "fov_nm": view / nano, "pixel_time_us": command.dwell_time / micro, "rotation_rad": 0.0, "center_nm": (0.0, 0.0)}
        )
        parameters.enabled_channel_indexes = [self._channels[command.detector]]
        # Places of the probe refer to these parameters, a recorded frame alone would not change them.
        within(end, "preparing the scan", lambda: scan.set_current_frame_parameters(parameters))
        seconds = command.takes() + rows * self.setup.line_seconds
        taken, on, beam = self._frame(scan, command.verb, {self.setup.focus: float(command.defocus[0])}, parameters, seconds, beam, end)
        if taken.data.shape != command.shape:
            raise InstrumentFault(f"{command.verb}: the scan sent {taken.data.shape} pixels, asked were {command.shape}")
        told, asked = "scan.scan_device_properties", {"scan.rotation": 0.0, "scan.center_x_nm": 0.0, "scan.center_y_nm": 0.0}
        used(taken, command.verb, {f"{told}.fov_nm": view / nano, f"{told}.pixel_time_us": command.dwell_time / micro, **asked})
        self._view = command.field_of_view, command.field_of_view * rows / columns
        return _readings(beam.rate(self._view[0] * self._view[1]) * on, 1, **{command.detector: np.array(taken.data, np.float32)[None]})

    def _ronchigram(self, command: AcquireRonchigram, end: float) -> Readings:
        beam = self._may_expose(command.verb, end)
        camera, (dx, dy) = self.parts.ronchigram, command.film_shift[0]
        parameters = camera.get_frame_parameters_from_dict({"exposure_ms": command.exposure_time / milli, "binning": self.setup.binning, "processing": None})
        x, y = self._pairs[self.setup.shift]
        moves = {self.setup.focus: float(command.defocus[0]), x: float(dx), y: float(dy)}
        taken, on, beam = self._frame(camera, command.verb, moves, parameters, command.exposure_time, beam, end)
        if taken.data.shape != self._sides:
            raise InstrumentFault(f"{command.verb}: the camera sent {taken.data.shape} pixels, it has {self._sides}: is its binning {self.setup.binning}?")
        used(taken, command.verb, _exposed(command.exposure_time, self.setup.binning))
        counts = resampled(np.array(taken.data), command.shape)
        counts = (counts if self.setup.counts_per_electron == 1 else counts / self.setup.counts_per_electron).astype(np.float32)
        return _readings(ronchigram_beam(self.setup, beam).rate() * on, 1, ronchigram=counts[None])

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
        beam = self._may_expose(command.verb, end)
        stem, camera = self.parts.stem, self.parts.spectrometer
        place = self._at(command.verb, command.position[0], origin=0.0)
        parameters = camera.get_frame_parameters_from_dict({"exposure_ms": command.exposure_time / milli, "binning": 1, "processing": None})
        before = stem.probe_position
        self._place(place, end)
        try:
            taken, on, beam = self._frame(camera, command.verb, {}, parameters, command.exposure_time, beam, end)
        finally:
            self._place(before, max(end, time.monotonic() + ANSWER_SECONDS))
        used(taken, command.verb, _exposed(command.exposure_time, 1))
        counts = np.array(taken.data, float).reshape(-1, taken.data.shape[-1]).sum(0)  # a sum by the camera would come without its axis
        calibration = taken.dimensional_calibrations[-1]
        if calibration.units != "eV":
            raise InstrumentFault(f"{command.verb}: the spectrometer's axis is in {calibration.units or 'no unit'}, not in eV")
        axis = calibration.offset + calibration.scale * np.arange(len(counts))
        return _readings(beam.rate() * on, 1, spectrum=counts[None], axis=axis[None])

    def _place(self, place: Any, end: float) -> None:
        within(end, "placing the probe", lambda: setattr(self.parts.stem, "probe_position", place))

    def _place_probe(self, command: PlaceProbe, end: float) -> Readings:
        beam = self._may_expose(command.verb, end)
        place = self._at(command.verb, command.position[0], origin=0.5)
        seconds = float(command.dwell_time[0])
        self._place(place, end)

        def wait(_: float) -> None:
            if self._wanted_safe.wait(seconds):
                raise InstrumentFault(f"{command.verb} was stopped: the instrument went to its safe state")

        _, on, beam = self._exposed(command.verb, seconds, beam, end, wait)
        return _readings(beam.rate() * on)


def _exposed(seconds: float, binning: int) -> dict[str, float]:
    """What the vendor tells of a camera's frame."""
    return {"hardware_source.exposure": seconds, "hardware_source.binning": binning, "hardware_source.integration_count": 1}


def _readings(dose: float = 0.0, measurements: int = 0, **values: np.ndarray) -> Readings:
    return Readings(values, np.zeros(1), np.array([dose]), np.zeros(1), np.array([float(measurements)]))
