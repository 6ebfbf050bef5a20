"""Frames of Nion's scan and cameras, each begun after it was asked for, and what to do with them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np

from probegym.hardware_bridge.instruments import InstrumentFault
from probegym.hardware_bridge.instruments.nion.calls import within
from probegym.hardware_bridge.world import Refused

POLL_SECONDS = 0.002
STOP_SECONDS = 0.5


def recorded(source: Any, parameters: Any, what: str, wanted_safe: threading.Event, end: float) -> Any:
    """One frame, the vendor's data with its metadata. wanted_safe: ends it when set. Raises InstrumentFault where none comes, or not by ``end``.

    A recorded frame begins after it was asked for, as one of a live view need not; and a camera whose live thread died still gives it.
    Beside a live view its data can be those of the view, so that raises Refused. A frame before it that cannot be broken off is waited for.
    """
    if source.is_playing:
        raise Refused(f"{what}: {source.hardware_source_id} shows a live view, stop that first")
    _wait(lambda: not source.is_recording, what, wanted_safe, end)
    task = within(end, what, lambda: source.start_recording(frame_parameters=parameters))
    try:
        _wait(lambda: task.is_finished and not source.is_recording, what, wanted_safe, end)
    except InstrumentFault:
        with suppress(InstrumentFault):  # a camera may end its exposure first, or the vendor its drawing; the next frame waits for it
            stop(source, time.monotonic() + STOP_SECONDS)
        raise
    if task.is_error:
        raise InstrumentFault(f"{what}: {source.hardware_source_id} failed while it acquired; see what it printed")
    frames = [frame for frame in within(end, what, lambda: task.grab_xdatas(timeout=max(0.0, end - time.monotonic()))) if frame is not None]
    if not frames:
        raise InstrumentFault(f"{what}: {source.hardware_source_id} gave no frame, somebody stopped it")
    return frames[-1]


def _wait(until: Callable[[], bool], what: str, wanted_safe: threading.Event, end: float) -> None:
    while not until():
        if wanted_safe.wait(POLL_SECONDS):
            raise InstrumentFault(f"{what} was stopped: the instrument went to its safe state")
        if time.monotonic() > end:
            raise InstrumentFault(f"{what} did not end in time: no frame is taken for it")


def abort(source: Any, end: float) -> None:
    """Have a source end its live view and recording, as soon as it can; raises InstrumentFault where it does not take the order."""
    within(end, f"stopping {source.hardware_source_id}", lambda: _abort(source))


def stop(source: Any, end: float) -> None:
    """The same, and see it stand still."""
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
