"""The STEM twin behind Nion's device interface: its images and Ronchigrams come out of Nion Swift's own scan and camera.

What moves a control of the instrument moves the twin's; the same commands in the same order draw the same noise, so a frame is that of
the twin alone. Imported in the worker's process only. EHT, BeamCurrent and ConvergenceAngle tell what the scenario says and cannot be set.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from nion.data import Calibration, DataAndMetadata
from nion.device_kit import CameraDevice, ScanDevice
from nion.instrumentation import camera_base, scan_base
from nion.usim_device import InstrumentDevice
from nion.usim_device.ScanDevice import ScanBoxSimulator
from nion.utils import Registry
from scipy.constants import nano

from probegym.errors import ProbeGymError
from probegym.hardware_bridge.commands import AcquireImage, AcquireRonchigram, Lanes, SetAberrations
from probegym.hardware_bridge.instruments.nion.setup import control_of
from probegym.hardware_bridge.instruments.nion.twin import CAMERA, CHANNEL, FOCUS, INSTRUMENT, SCAN
from probegym.hardware_bridge.twins.stem import StemTwin
from probegym.physics.optics import ABERRATIONS

ON = np.ones(1, bool)
FIXED = ("EHT", "BeamCurrent", "ConvergenceAngle")


class TwinDevice:
    """What Nion's devices share of one twin: its controls, turned into commands, and its frames."""

    def __init__(self, twin: StemTwin):
        self.twin, self.lock = twin, threading.RLock()
        self.names = tuple(twin.config.controls)
        self.pending: set[str] = set()  # coefficients set since the last command
        self.values: dict[str, float] = dict.fromkeys(self.names, 0.0)

    def set(self, aberration: str, value: float) -> None:
        """A control was set to ``value``, m. Controls come one by one, the twin takes them together: before one that comes again, or before a frame."""
        with self.lock:
            if aberration in self.pending:
                self.flush()
            self.pending.add(aberration)
            self.values[aberration] = value

    def flush(self) -> None:
        """Have the twin take what was set; raises Refused where a control would leave its range."""
        with self.lock:
            if self.pending:
                self.pending.clear()
                self.twin.execute(SetAberrations(self.names, np.array([list(self.values.values())])), ON)

    def ronchigram(self, exposure: float, defocus: float, shift: np.ndarray) -> np.ndarray:
        """One frame (pixels, pixels), electrons. exposure: s; defocus: m of excursion; shift: (2,) m of the probe on the film.

        Raises ProbeGymError for a scenario without a film.
        """
        with self.lock:
            self.flush()
            optics = self.twin.config.ronchigram
            if optics is None:
                raise ProbeGymError("this scenario has no film for Ronchigrams")
            command = AcquireRonchigram((optics.pixels, optics.pixels), exposure, np.array([defocus]), shift[None])
            return np.asarray(self.twin.execute(command, ON).values["ronchigram"][0])

    def image(self, shape: tuple[int, int], view: float, dwell: float, defocus: float, shift: np.ndarray) -> np.ndarray:
        """One scan of this shape, electrons. view: width in m; dwell: s; defocus: m of excursion; shift: (2,) m of the probe."""
        with self.lock:
            self.flush()
            with self._moved(shift):
                command = AcquireImage(CHANNEL.lower(), shape, view, dwell, np.array([defocus]))
                return np.asarray(self.twin.execute(command, ON).values[CHANNEL.lower()][0])

    @contextmanager
    def _moved(self, shift: np.ndarray) -> Iterator[None]:
        origin = self.twin.state["origin"].copy()
        self.twin.state["origin"] = origin + shift
        try:
            yield
        finally:
            self.twin.state["origin"] = origin

    def begin(self, key: int) -> None:
        """Begin the episode of a key, with all controls at zero."""
        with self.lock:
            self.pending.clear()
            self.values = dict.fromkeys(self.names, 0.0)
            self.twin.begin(np.array([key], np.uint64), ON)

    def truth(self) -> Lanes:
        """Hidden state."""
        with self.lock:
            self.flush()
            return dict(self.twin.truth())


class _Values(InstrumentDevice.ValueManager):
    """Nion's controls, those of the twin's aberrations passed on. An aberration that the twin cannot set is refused."""

    def __init__(self, device: TwinDevice):
        super().__init__()
        self.device, config = device, device.twin.config
        self.coefficients = {control_of(name): name for name in ABERRATIONS}
        for name in {control_of(name).partition(".")[0] for name in device.names} - {"C10", "C12", "C21", "C23", "C30", "C32", "C34"}:
            self.add_control(InstrumentDevice.Control(name) if name.endswith("0") else InstrumentDevice.Control2D(name, ("x", "y")))
        excursion = InstrumentDevice.Control(FOCUS)
        self.add_control(excursion)
        self.add_control_inputs("C10Control", [(excursion, 1.0)])
        for name, value in zip(FIXED, (config.energy, config.beam_current, config.semiangle_cutoff), strict=True):
            super().set_value(name, value)
        self.rest()

    def rest(self) -> None:
        """All that the twin has a share in at zero, told to nobody."""
        for name in (*(control_of(name) for name in self.device.names), FOCUS, *(f"{pair}.{axis}" for pair in ("CSH", "stage_position_m") for axis in "xy")):
            super().set_value(name, 0.0)
        super().set_value("C10", 0.0)

    def set_value(self, name: str, value: float) -> bool:
        """False for what cannot be set, as the vendor's."""
        coefficient = self.coefficients.get(name)
        if name in FIXED or (coefficient is not None and coefficient not in self.device.names):
            return False
        if not super().set_value(name, value):
            return False
        if coefficient is not None:
            self.device.set(coefficient, value)
        return True

    def set_value_2d(self, name: str, value: Any, *, axis: Any = None) -> bool:
        """As two controls, so that each is passed on."""
        return all(self.set_value(f"{name}.{component}", part) for component, part in (("x", value.x), ("y", value.y)))

    def inform_value(self, name: str, value: float) -> bool:
        """A twin cannot be told that it stands elsewhere."""
        return name not in FIXED and name not in self.coefficients and bool(super().inform_value(name, value))

    def defocus(self) -> float:
        """The excursion of focus, m."""
        return float(self.get_value(FOCUS) or 0.0)

    def place(self) -> np.ndarray:
        """Where the probe is on the sample: beam shift less stage, (2,) m."""
        shift, stage = self.get_value_2d("beam_shift_m"), self.get_value_2d("stage_position_m")
        return np.array([shift.x - stage.x, shift.y - stage.y])


class _Instrument(InstrumentDevice.Instrument):
    """With the twin's camera."""

    def __init__(self, values: _Values, scan: _Scan, side: int):
        self.side = side
        super().__init__(INSTRUMENT, values, InstrumentDevice.AxisManager(), scan)

    def camera_sensor_dimensions(self, camera_type: str) -> tuple[int, int]:
        return self.side, self.side

    def camera_readout_area(self, camera_type: str) -> tuple[int, int, int, int]:
        return 0, 0, self.side, self.side

    @property
    def counts_per_electron(self) -> int:
        return 1


class _Scan:
    """Nion's ScanDataGeneratorLike."""

    def __init__(self, device: TwinDevice, values: _Values):
        self.device, self.values = device, values

    def generate_scan_data(self, instrument: Any, parameters: Any) -> np.ndarray:
        """One image; black while the beam is blanked. Raises ProbeGymError for a scan that is turned."""
        if parameters.rotation_rad:
            raise ProbeGymError("the twin's scan cannot be turned: set its rotation to 0")
        rows, columns = parameters.size
        if self.values.is_blanked:
            return np.zeros((rows, columns), np.float32)
        centre = np.array([parameters.center_nm.x, parameters.center_nm.y]) * nano
        view = parameters.fov_nm * nano * min(1.0, columns / rows)
        return self.device.image((rows, columns), view, parameters.pixel_time_us * 1e-6, self.values.defocus(), self.values.place() + centre)


class _Ronchigram:
    """Nion's CameraSimulatorLike."""

    def __init__(self, device: TwinDevice, values: _Values, side: int, half_angle: float):
        self.device, self.values, self.side, self.half_angle = device, values, side, half_angle

    def close(self) -> None:
        """Nothing is open."""

    def get_dimensional_calibrations(self, readout_area: Any, binning_shape: Any) -> list[Any]:
        """rad; the axis at the centre."""
        scale = 2 * self.half_angle / self.side
        return [Calibration.Calibration(-self.half_angle, scale, "rad")] * 2

    def get_frame_data(self, readout_area: Any, binning_shape: Any, exposure_s: float, scan_context: Any, probe_position: Any) -> Any:
        """One frame; black while the beam is blanked. Raises ProbeGymError where its pixels are to be binned."""
        if tuple(binning_shape) != (1, 1):
            raise ProbeGymError("the twin's camera does not bin: set its binning to 1")
        if self.values.is_blanked:
            frame = np.zeros((self.side, self.side), np.float32)
        else:
            frame = self.device.ronchigram(exposure_s, self.values.defocus(), self.values.place() + _parked(scan_context, probe_position))
        return DataAndMetadata.new_data_and_metadata(frame)


def _parked(scan_context: Any, place: Any) -> np.ndarray:
    """Where a probe is parked, (2,) m from the middle of the scan; there where it is not."""
    view = scan_context.fov_size_nm
    if place is None or view is None:
        return np.zeros(2)
    return np.asarray(nano * np.array([(place.x - 0.5) * view.width, (place.y - 0.5) * view.height]))


class _Camera(CameraDevice.Camera):
    """A camera that does not bin."""

    @property
    def binning_values(self) -> list[int]:
        return [1]


class _ScanDevice(ScanDevice.Device):
    """A scan whose other channels stay dark: an image for each would be another exposure."""

    def get_scan_data(self, parameters: Any, channel: Any) -> np.ndarray:
        if channel.name == CHANNEL:
            return np.asarray(super().get_scan_data(parameters, channel))
        return np.zeros(tuple(parameters.subscan_pixel_size or parameters.pixel_size), np.float32)


class _ScanModule(scan_base.ScanModule):
    """The scan as Nion registers it."""

    def __init__(self, instrument: _Instrument, scan: _Scan):
        self.stem_controller_id = instrument.instrument_id
        self.device = _ScanDevice(SCAN, "ProbeGym scan", instrument, ScanBoxSimulator(scan))
        modes = tuple(
            scan_base.ScanSettingsMode(name, name.lower(), ScanDevice.ScanFrameParameters(pixel_size=(side, side), pixel_time_us=10, fov_nm=2.56))
            for name, side in (("Fast", 64), ("Slow", 128), ("Record", 256))
        )
        self.settings = scan_base.ScanSettings(SCAN, modes, ScanDevice.ScanFrameParameters, 0, 2)


class TwinInside:
    """The twin of one lane as a Nion instrument: ``registered`` for ``stack``, and the judge of its episodes."""

    def __init__(self, twin: StemTwin):
        self.device = TwinDevice(twin)
        self.values = _Values(self.device)
        optics = twin.config.ronchigram
        self.side, self.half_angle = (optics.pixels, optics.semiangle_cutoff) if optics else (16, 1e-3)
        scan = _Scan(self.device, self.values)
        self.instrument = _Instrument(self.values, scan, self.side)
        self.scan = _ScanModule(self.instrument, scan)

    def registered(self) -> Callable[[], None]:
        """Register its devices; returns what takes them away."""
        simulator = _Ronchigram(self.device, self.values, self.side, self.half_angle)
        camera = _Camera(CAMERA, "ronchigram", "ProbeGym Ronchigram camera", simulator, self.instrument)
        settings = CameraDevice.CameraSettings(CAMERA)
        for index in range(len(settings.modes)):
            settings.set_frame_parameters(index, camera_base.CameraFrameParameters(settings.get_frame_parameters(index).as_dict() | {"binning": 1}))
        self.values.ronchigram_camera = camera  # whose pixels the instrument's controls tell in rad
        module = CameraDevice.CameraModule(INSTRUMENT, camera, settings)
        listed = [(self.instrument, {"instrument_controller", "stem_controller"}), (module, {"camera_module"}), (self.scan, {"scan_module"})]
        for component, kinds in listed:
            Registry.register_component(component, kinds)

        def gone() -> None:
            for component, kinds in reversed(listed):
                Registry.unregister_component(component, kinds)

        return gone

    def begin(self, key: int) -> None:
        """Begin the episode of a key, with all controls at zero."""
        with self.device.lock:
            self.values.rest()
            self.device.begin(key)

    def truth(self) -> Lanes:
        """Hidden state."""
        return self.device.truth()
