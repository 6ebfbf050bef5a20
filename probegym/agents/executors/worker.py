"""One attempt at a work, in a process that is told it on standard input and ends when whoever started it does.

``python -m probegym.agents.executors.worker``, then one line of JSON with name, call and told. The exit code is 0 when it is done; otherwise
the last lines on stderr say what went wrong.
"""

from __future__ import annotations

import _thread
import inspect
import os
import signal
import sys
import threading
import time
from importlib import import_module

from probegym.agents.executors import Work
from probegym.errors import ProbeGymError
from probegym.hardware_bridge import codec

LONGEST_LINE = 10_000_000  # bytes
PATIENCE = 5.0  # s to end in order
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "PROBEGYM_THREADS": "1"}
"""Of a process that does works: several share the processors."""


def perform(work: Work) -> None:
    """Call the function of a work; raises ProbeGymError when there is none, and what it raises."""
    module, name = work.call.split(":")
    try:
        function = getattr(import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ProbeGymError(f"there is no {work.call} ({error}): check the name, and that this machine has the same probegym") from error
    if not inspect.isfunction(function) or not function.__module__.startswith("probegym."):
        raise ProbeGymError(f"{work.call} is no function of this package: name one that is")
    function(work.told)


def read(line: bytes) -> Work:
    """The work of one line of JSON; raises ProbeGymError."""
    try:
        content = codec.loads(line)
    except ProbeGymError as error:
        raise ProbeGymError(f"this is no work: {error}") from error
    if not isinstance(content, dict) or set(content) != {"name", "call", "told"}:
        raise ProbeGymError("this is no work: one has name, call and told")
    return Work(**content)


def _follow() -> None:
    """End when standard input does: whoever started this has gone, and may begin the same work again."""
    while os.read(0, 4096):
        pass
    _thread.interrupt_main()
    time.sleep(PATIENCE)
    os._exit(1)


def main() -> int:
    """Entry point."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    try:
        work = read(sys.stdin.buffer.readline(LONGEST_LINE))
        threading.Thread(target=_follow, daemon=True).start()
        perform(work)
    except ProbeGymError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
