"""What a run did, kept such that a crash at any moment loses nothing that was acknowledged. NumPy and the standard library only.

``export`` alone uses HDF5 and is not imported here: it runs after the run, in a process of its own.
"""

from probegym.hardware_bridge.records.layout import Event, RecordError
from probegym.hardware_bridge.records.log import Recorder
from probegym.hardware_bridge.records.read import Record, Report
from probegym.hardware_bridge.records.recovery import recover

__all__ = ["Event", "Record", "RecordError", "Recorder", "Report", "recover"]
