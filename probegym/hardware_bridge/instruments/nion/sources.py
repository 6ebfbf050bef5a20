"""Frames of Nion's scan and cameras, each begun after it was asked for, and what to do with them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from probegym.hardware_bridge.instruments import InstrumentFault
from probegym.hardware_bridge.instruments.nion.calls import within
from probegym.hardware_bridge.world import Refused

POLL_SECONDS = 0.002
STOP_SECONDS = 0.5
SAME = 1e-3  # of what was asked: clocks of scans and cameras have their ticks


def free(source: Any, what: str, wanted_safe: threading.Event, end: float) -> None:
    """Wait until a source can record: a frame before that cannot be broken off is waited for. end: s, of ``time.monotonic``.

    Raises Refused beside a live view, whose data a recorded frame can have.
    """
    if source.is_playing:
        raise Refused(f"{what}: {source.hardware_source_id} shows a live view, stop that first")
    _wait(lambda: not source.is_recording, what, wanted_safe, end)


def recorded(source: Any, parameters: Any, what: str, wanted_safe: threading.Event, end: float) -> Any:
    """One frame of a source that is ``free``, the vendor's data with its metadata. wanted_safe: ends the wait when set. Raises InstrumentFault where none comes by ``end`` (s, of ``time.monotonic``).

    A recorded frame begins after it was asked for, as one of a live view need not; and a camera whose live thread died still gives it.
    """
    task = within(end, what, lambda: source.start_recording(frame_parameters=parameters))
    _wait(lambda: task.is_finished and not source.is_recording, what, wanted_safe, end)
    if task.is_error:
        raise InstrumentFault(f"{what}: {source.hardware_source_id} failed while it acquired; see what it printed")
    frames = [frame for frame in within(end, what, lambda: task.grab_xdatas(timeout=max(0.0, end - time.monotonic()))) if frame is not None]
    if not frames:
        raise InstrumentFault(f"{what}: {source.hardware_source_id} gave no frame, somebody stopped it")
    return frames[-1]


def used(frame: Any, what: str, asked: Mapping[str, float]) -> None:
    """Raise InstrumentFault unless a frame's metadata tell that it was taken as asked. asked: numbers by their path, such as ``scan.rotation``, in the vendor's units.

    One that is not told is not as asked.
    """
    for path, wanted in asked.items():
        told: Any = frame.metadata
        for key in path.split("."):
            told = told.get(key) if isinstance(told, Mapping) else None
        if not isinstance(told, int | float) or not abs(told - wanted) <= SAME * abs(wanted):
            raise InstrumentFault(f"{what}: the frame tells {path} {'not' if told is None else told}, asked was {wanted:g}")


def _wait(until: Callable[[], bool], what: str, wanted_safe: threading.Event, end: float) -> None:
    while not until():
        if wanted_safe.wait(POLL_SECONDS):
            raise InstrumentFault(f"{what} was stopped: the instrument went to its safe state")
        if time.monotonic() > end:
            raise InstrumentFault(f"{what} did not end in time: no frame is taken for it")


def abort(source: Any, end: float) -> None:
    """Have a source end its live view and recording, as soon as it can; raises InstrumentFault where it does not take the order by ``end`` (s, of ``time.monotonic``)."""
    within(end, f"stopping {source.hardware_source_id}", lambda: _abort(source))


def stop(source: Any, end: float) -> None:
    """The same, and see it stand still; raises InstrumentFault where it does not by ``end`` (s, of ``time.monotonic``)."""
    abort(source, end)
    while busy(source):
        if time.monotonic() > end:
            raise InstrumentFault(f"{source.hardware_source_id} does not stop")
        time.sleep(POLL_SECONDS)


def _abort(source: Any) -> None:
    cancel = getattr(source, "acquire_sequence_cancel", None)
    if cancel and source.is_recording:
        cancel()  # of a camera: its recording would go on until the end of the exposure
    source.abort_recording()
    source.abort_playing()


def busy(source: Any) -> bool:
    """Whether a source acquires now."""
    return bool(source.is_playing or source.is_recording)


def resampled(frame: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """A frame in coarser pixels, each the sum of what it covers: (rows, columns); the same array where the shape is the same."""
    if frame.shape == shape:
        return frame
    return np.asarray(_shares(shape[0], frame.shape[0]) @ frame.astype(float) @ _shares(shape[1], frame.shape[1]).T)


def _shares(coarse: int, fine: int) -> np.ndarray:
    """How much of each fine pixel lies in each coarse one: (coarse, fine)."""
    edges = np.arange(coarse + 1) * (fine / coarse)
    pixel = np.arange(fine)
    return np.asarray(np.clip(np.minimum(edges[1:, None], pixel + 1) - np.maximum(edges[:-1, None], pixel), 0, None))
