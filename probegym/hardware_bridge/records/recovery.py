"""Going on after a crash: nothing is cut off, what was torn stays as evidence."""

from __future__ import annotations

import os
import re
from pathlib import Path

from probegym.hardware_bridge.records.files import Lock, sync_file, sync_folder
from probegym.hardware_bridge.records.layout import RecordError
from probegym.hardware_bridge.records.log import Recorder
from probegym.hardware_bridge.records.read import Record, Report, Scan


def recover(folder: str | os.PathLike[str]) -> tuple[Recorder, Report]:
    """Continue a record that was not closed: a recorder in new files, and the report of what there was before.

    Its first event, ``recovered``, names the torn ends (``tails``) and the intents without outcome (``unknown``); frames are not
    read again. Raises RecordError when somebody writes to the record, when it was closed, and when it is damaged before its end.
    """
    folder = Path(folder)
    record, lock = Record(folder), Lock(folder)
    try:
        record = Record(folder)  # as it is now that nobody else can write
        scan = Scan(record)
        closed = [event.kind for event in scan][-1:] == ["closed"]
        if scan.error:
            raise RecordError(f"{scan.error}; start a new record")
        if closed:
            raise RecordError(f"{folder} was closed in order: start a new record")
        report = record.verify(frames=False)
        segments = [path for path in folder.iterdir() if re.fullmatch(r"seg-\d{4,6}\.bin", path.name)]
        for path in (*record.parts, *segments):
            sync_file(path)  # a line may be complete in memory only: nothing is chained to what a power cut could still take
        sync_folder(folder)
        following = max((int(path.stem[4:]) for path in segments), default=-1) + 1
        recorder = Recorder.resume(folder, lock, len(record.parts), following, scan.seq, scan.head)
    except OSError as error:
        lock.release()
        raise RecordError(f"{folder} cannot be recovered ({error.strerror}): check its permissions and the disk") from error
    except BaseException:
        lock.release()
        raise
    try:
        recorder.append("recovered", {"tails": [tail.declared() for tail in scan.tails], "unknown": list(report.unknown)})
    except BaseException:
        recorder.close()
        raise
    return recorder, report
