"""Works on this machine: a fresh process for every attempt."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import IO

from probegym.agents.executors import LAST_LINES, RETRIES, Outcome, Report, Work, refuse_too_few, survive
from probegym.agents.executors.worker import ENVIRONMENT, PATIENCE

LOOK_SECONDS = 0.05
LAST_BYTES = 8000  # of stderr


@dataclass(frozen=True)
class Local:
    """A process for each work, ``workers`` at once; Ctrl-C, or the death of this process, ends them."""

    workers: int = 2
    retries: int = RETRIES

    def __post_init__(self) -> None:
        refuse_too_few(self.workers, self.retries)

    def run(self, work: Sequence[Work], report: Report = lambda _: None) -> list[Outcome]:
        """The outcomes in the order of ``work``; ``report`` gets each when it is known."""
        return survive(Processes(self.workers), work, self.retries, report)


@dataclass
class Attempt:
    """A process that does a work, and the file of its stderr."""

    process: subprocess.Popen[bytes]
    said: IO[bytes]

    def error(self) -> str:
        """What went wrong, once it has ended; "" if nothing did."""
        code = self.process.returncode
        if not code:
            return ""
        self.said.seek(max(0, self.said.seek(0, os.SEEK_END) - LAST_BYTES))
        lines = self.said.read().decode(errors="replace").strip().splitlines()[-LAST_LINES:]
        if code < 0:
            lines.append(f"ended by signal {-code} ({signal.strsignal(-code)})")
        return "\n".join(lines) or f"ended with code {code}"


class Processes:
    """The pool of one run."""

    def __init__(self, workers: int):
        self.workers = workers
        self.attempts: dict[str, Attempt] = {}
        self.unborn: list[tuple[str, str]] = []  # that this machine had no room for

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, *_: object) -> None:
        """Ask all to end, which lets them finish the file they write, and kill those that do not."""
        left = [attempt.process for attempt in self.attempts.values()]
        for process in left:
            _hang_up(process)
        end = time.monotonic() + PATIENCE
        for process in left:
            try:
                process.wait(max(0.0, end - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for attempt in self.attempts.values():
            attempt.said.close()

    def room(self) -> int:
        """How many attempts may run at once."""
        return self.workers

    def start(self, work: Work) -> None:
        """Begin an attempt."""
        said = tempfile.TemporaryFile()
        # -P: nothing is imported from the folder that this is run in. A session of its own: a terminal's Ctrl-C reaches this process alone, which passes it on.
        try:
            process = subprocess.Popen([sys.executable, "-P", "-m", "probegym.agents.executors.worker"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=said,
                                       env=os.environ | ENVIRONMENT, start_new_session=True)  # fmt: skip
        except OSError as error:
            said.close()
            self.unborn.append((work.name, f"no process could be started ({error.strerror})"))
            return
        self.attempts[work.name] = Attempt(process, said)
        with contextlib.suppress(BrokenPipeError):  # it has died: its stderr says why
            assert process.stdin
            process.stdin.write(json.dumps(asdict(work), allow_nan=False).encode() + b"\n")
            process.stdin.flush()

    def ended(self) -> list[tuple[str, str]]:
        """Names of attempts that have ended and what went wrong, "" if nothing did; waits a little for one."""
        over = [name for name, attempt in self.attempts.items() if attempt.process.poll() is not None]
        if not over:
            time.sleep(LOOK_SECONDS)
        found, self.unborn = self.unborn, []
        for name in over:
            attempt = self.attempts.pop(name)
            _hang_up(attempt.process)
            found.append((name, attempt.error()))
            attempt.said.close()
        return found


def _hang_up(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(BrokenPipeError):
        assert process.stdin
        process.stdin.close()
