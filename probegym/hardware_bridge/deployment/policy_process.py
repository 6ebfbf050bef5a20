"""The process that a policy runs in: ``python -m probegym.hardware_bridge.deployment.policy_process FOLDER DIGEST``.

It gives itself limits, verifies the bundle once more, says that it is ready, and then answers each request on standard input with
one message on standard output: inputs in, action and memory out. It keeps nothing between requests, opens no file and no
connection after its start, and ends when its input does.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from probegym.errors import ProbeGymError
from probegym.hardware_bridge import codec
from probegym.hardware_bridge.codec import Arrays, Json
from probegym.hardware_bridge.deployment.bundle import read
from probegym.hardware_bridge.deployment.inference import Inference
from probegym.hardware_bridge.deployment.pipes import Ended, Reader, Writer, receive, send

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

MAXIMUM_MEMORY = 2 * 2**30  # bytes of address space; the shipped policies need up to 0.55e9
START_SECONDS, ANSWER_SECONDS = 60, 5  # of processor time
SIZES = Path("/proc/self/statm")  # of this process, in pages, address space first
OPEN_FILES = 16
NICENESS = 5  # the guard goes first


def limit() -> None:
    """Limits from the start, where the system has them."""
    if resource is not None:
        _cap(resource.RLIMIT_CORE, 0)
        limit_memory(MAXIMUM_MEMORY)
        allow(START_SECONDS)
        os.nice(NICENESS)


def limit_memory(most: int) -> None:
    """Bytes of address space that this process may take, where the system has such a limit."""
    if resource is not None and sys.platform != "darwin":  # which refuses any
        _cap(resource.RLIMIT_AS, most)


def address_space() -> int:
    """Bytes that this process has taken, 0 where the system does not tell."""
    return int(SIZES.read_text().split()[0]) * resource.getpagesize() if SIZES.exists() else 0


def tighten() -> None:
    """From now on no file can grow, and few can be opened."""
    if resource is not None:
        _cap(resource.RLIMIT_FSIZE, 0)
        _cap(resource.RLIMIT_NOFILE, OPEN_FILES)


def allow(seconds: int) -> None:
    """Processor time that may be used from now on; beyond it the system ends this process."""
    if resource is not None:
        soft, hard = int(time.process_time()) + 1 + seconds, resource.getrlimit(resource.RLIMIT_CPU)[1]
        resource.setrlimit(resource.RLIMIT_CPU, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard))


def _cap(kind: int, most: int) -> None:
    """Lower a limit for good; one that is lower already stays."""
    hard = resource.getrlimit(kind)[1]
    most = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(kind, (most, most))


def serve(folder: Path, digest: str, requests: Reader, answers: Writer) -> None:
    """Load the bundle and answer until the pipe ends, with Ended. Raises ProbeGymError when it cannot be loaded, or is not that of ``digest``."""
    bundle = read(folder)
    if bundle.digest != digest:
        raise ProbeGymError(f"policy {folder} was exchanged while it was loaded: start again")
    inference = Inference(bundle)
    tighten()
    send(answers, codec.pack({"kind": "ready", "digest": digest}))
    while True:
        header, inputs = receive(requests)
        allow(ANSWER_SECONDS)
        told: Json = {"kind": "action", "sequence": header.get("sequence")}
        outputs: Arrays = {}
        try:
            outputs = inference.run(inputs)
        except Exception as error:  # ONNX Runtime raises its own kinds; the next request may be a better one
            told |= {"kind": "fault", "reason": _line(error)}
        send(answers, codec.pack(told, outputs))


def _line(error: Exception) -> str:
    kind = "" if isinstance(error, ProbeGymError) else f"{type(error).__name__}: "
    return kind + " ".join(str(error).split())[:400]


def main() -> int:
    """Entry point; 0 when the input ended, 1 otherwise, with the reason in a last message."""
    requests, answers = os.fdopen(os.dup(0), "rb", buffering=0), os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # what a library prints must not get between messages
    try:
        limit()
        serve(Path(sys.argv[1]), sys.argv[2], requests, answers)
    except (Ended, BrokenPipeError):
        return 0
    except Exception as error:
        send(answers, codec.pack({"kind": "fault", "reason": _line(error)}))
    return 1


if __name__ == "__main__":
    sys.exit(main())
