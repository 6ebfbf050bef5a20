"""A policy in its own process, as seen from outside: observations go in, actions come out in time or not at all.

The process is not trusted: what it says is checked for names, shapes, types and numbers, answers that come late are thrown away,
and the policy's memory is kept on this side, so that an answer which was not accepted leaves no trace.
"""

from __future__ import annotations

import math
import os
import queue
import subprocess
import sys
import threading
import time
from array import array
from pathlib import Path
from types import TracebackType

import numpy as np

from probegym.errors import ProbeGymError
from probegym.hardware_bridge import codec
from probegym.hardware_bridge.codec import Arrays, Json
from probegym.hardware_bridge.deployment.bundle import MAXIMUM_LANES, read
from probegym.hardware_bridge.deployment.pipes import Ended, receive, send

PROCESS = "probegym.hardware_bridge.deployment.policy_process"
FOUND_BY = ("PYTHONPATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "LANG", "SYSTEMROOT", "APPDATA")
"""What of the environment the process needs to find Python's and its own libraries."""
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
START_SECONDS, STOP_SECONDS = 30.0, 1.0


class PolicyFault(ProbeGymError):
    """No action that could be used: too late, none at all, or not what it must be. Nothing may be done in its place but hold."""


class PolicyProcess:
    """Runs the bundle of a folder; a context manager. Raises ProbeGymError for a bundle that is refused, PolicyFault when it does not start.

    Not for two threads at once. deadline_s: s from ``decide`` to an accepted action. bundle: the verified bundle. latencies: s of every ``decide``, faults too.
    """

    def __init__(self, folder: str | os.PathLike[str], deadline_s: float = 0.05):
        if not 0 < deadline_s < 3600:
            raise ProbeGymError(f"the deadline must be from 0 to 3600 s, got {deadline_s}")
        self.bundle = read(Path(folder).absolute())
        self.deadline_s, self.latencies = deadline_s, array("d")
        self.lanes, self._memory = 0, Arrays()
        self._sent = self._answered = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._fault: str | None = None

    def __enter__(self) -> PolicyProcess:
        if self._process is not None:
            raise ProbeGymError(f"policy {self.bundle.name} was started before: make another PolicyProcess")
        environment = {name: os.environ[name] for name in FOUND_BY if name in os.environ} | ONE_THREAD
        # -P: the folder that we happen to be in is no place to import from
        command = [sys.executable, "-P", "-m", PROCESS, str(self.bundle.folder), self.bundle.digest]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=0,
                                         close_fds=True, env=environment, start_new_session=True)  # fmt: skip
        self._requests: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._answers: queue.SimpleQueue[tuple[Json, Arrays] | None] = queue.SimpleQueue()
        self._threads = [threading.Thread(target=work, daemon=True) for work in (self._write, self._read)]
        for thread in self._threads:
            thread.start()
        try:
            self._ready()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    @property
    def pid(self) -> int | None:
        """Number of the process; None before it is started."""
        return self._process.pid if self._process else None

    @property
    def fault(self) -> str | None:
        """Why this process gives no answers any more; None while it may."""
        return self._fault

    def begin(self, lanes: int = 1) -> None:
        """Episodes start: the policy's memory is as new. Raises PolicyFault when the process has ended."""
        if not 1 <= lanes <= MAXIMUM_LANES:
            raise ProbeGymError(f"lanes must be a whole number from 1 to {MAXIMUM_LANES}, got {lanes}")
        self._running()
        self.lanes, self._memory = lanes, self.bundle.start(lanes)

    def decide(self, observation: dict[str, np.ndarray]) -> np.ndarray:
        """Actions (lanes, ...) for observations (lanes, ...). The memory moves on only with an action that is returned.

        Raises PolicyFault for an answer that is late, lacks, or cannot be used; the same question may then be asked again.
        Raises ProbeGymError, before anything is asked, for an observation that the policy was not made for.
        """
        begun = time.monotonic()
        if not self.lanes:
            raise ProbeGymError(f"policy {self.bundle.name} has no episode: call begin() first")
        inputs = self.bundle.inputs(observation, self.lanes)
        if wild := [name for name, values in inputs.items() if not np.isfinite(values).all()]:
            raise ProbeGymError(f"the observation holds {wild[0]} that is not finite: nothing was asked")
        try:
            return self._decide(inputs | self._memory, begun + self.deadline_s)
        finally:
            self.latencies.append(time.monotonic() - begun)

    def latency(self) -> dict[str, float]:
        """steps: how often an action was asked for; p50_s, p99_s, worst_s: how long that took, faults included."""
        if not self.latencies:
            return {"steps": 0, "p50_s": 0.0, "p99_s": 0.0, "worst_s": 0.0}
        p50, p99, worst = np.quantile(np.array(self.latencies), [0.5, 0.99, 1.0]).tolist()
        return {"steps": len(self.latencies), "p50_s": p50, "p99_s": p99, "worst_s": worst}

    def close(self) -> None:
        """End the process, by force if need be; may be called again."""
        if self._process is None:
            return
        self._fault = self._fault or "was closed"
        if self._answered < self._sent:
            self._process.kill()  # busy or stopped: it would not see the end of its input
        self._requests.put(None)  # closes the pipe, upon which it ends by itself
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for thread in self._threads:
            thread.join()

    # ---- asking ----

    def _ready(self) -> None:
        header, _ = self._next(time.monotonic() + START_SECONDS, f"was not ready within {START_SECONDS:g} s")
        if header.get("kind") == "fault":
            raise PolicyFault(f"policy {self.bundle.name} does not start: {_shown(header.get('reason'))}")
        if header != {"kind": "ready", "digest": self.bundle.digest}:
            raise self._broken("said something else than that it is ready")

    def _decide(self, inputs: Arrays, end: float) -> np.ndarray:
        late = f"gave no action within {1e3 * self.deadline_s:g} ms"
        while self._answered < self._sent:  # one that came too late, or still has to come
            self._take(end, late)
        self._running()
        self._sent += 1
        self._requests.put(codec.pack({"kind": "decide", "sequence": self._sent}, inputs))
        header, outputs = self._take(end, late)
        if header.get("kind") != "action":
            raise PolicyFault(f"policy {self.bundle.name} cannot decide: {_shown(header.get('reason'))}")
        self._check(outputs)
        self._memory = {name: outputs[name + "_next"] for name in self._memory}
        return outputs["action"]

    def _take(self, end: float, late: str) -> tuple[Json, Arrays]:
        """The answer to the request after the last that was answered; one request is under way at a time."""
        header, outputs = self._next(end, late)
        if header.get("sequence") != self._answered + 1:
            raise self._broken("answered what was not asked")
        self._answered += 1
        return header, outputs

    def _next(self, end: float, late: str) -> tuple[Json, Arrays]:
        self._running()
        try:
            answer = self._answers.get(timeout=max(0.0, end - time.monotonic()))
        except queue.Empty:
            raise PolicyFault(f"policy {self.bundle.name} {late}: look at the load of this machine") from None
        if answer is None:
            self._running()
        assert answer is not None
        if time.monotonic() > end:  # it came before this thread had its turn: the decision is as old
            self._answers.put(answer)
            raise PolicyFault(f"policy {self.bundle.name} {late}: look at the load of this machine")
        return answer

    def _check(self, outputs: Arrays) -> None:
        wanted = self.bundle.outputs
        if set(outputs) != set(wanted):
            raise self._broken(f"answered {_shown(', '.join(sorted(outputs)) or 'nothing')} instead of {', '.join(wanted)}")
        for name, (shape, dtype) in wanted.items():
            given = outputs[name]
            if given.shape != (self.lanes, *shape) or given.dtype != dtype:
                raise self._broken(f"gave {name} as {given.dtype} of shape {given.shape} instead of {dtype} of shape {(self.lanes, *shape)}")
        if wild := [name for name, values in outputs.items() if not np.isfinite(values).all()]:
            raise PolicyFault(f"policy {self.bundle.name} gave {wild[0]} that is not finite: it was not made for what it is shown")

    def _running(self) -> None:
        if self._process is None:
            raise PolicyFault(f"policy {self.bundle.name} is not started: use it in a with block")
        if self._fault:
            raise PolicyFault(f"policy {self.bundle.name} {self._fault}: start it anew")

    def _broken(self, what: str) -> PolicyFault:
        """It is not to be trusted with another question."""
        self._fault = what
        if self._process:
            self._process.kill()
        return PolicyFault(f"policy {self.bundle.name} {what}: its process was ended")

    # ---- threads: a pipe that nobody empties or fills blocks one of them and not the asker ----

    def _write(self) -> None:
        assert self._process and self._process.stdin
        with self._process.stdin as pipe:
            while (content := self._requests.get()) is not None:
                try:
                    send(pipe, content)
                except OSError:  # it has gone, which the other thread finds out
                    return

    def _read(self) -> None:
        assert self._process and self._process.stdout
        most = MAXIMUM_LANES * sum(math.prod(shape) * dtype.itemsize for shape, dtype in self.bundle.outputs.values())
        with self._process.stdout as pipe:
            try:
                while True:
                    self._answers.put(receive(pipe, most))  # type: ignore[arg-type]
            except (Ended, OSError):
                self._fault = self._fault or self._how_it_ended()
            except codec.Malformed as error:
                self._broken(f"answered nonsense ({error})")
        self._answers.put(None)

    def _how_it_ended(self) -> str:
        assert self._process
        try:
            code = self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return "closed its pipe"
        return f"was ended by signal {-code}" if code < 0 else f"ended with code {code}"


def _shown(text: object) -> str:
    """What a process said, fit for one line."""
    return "".join(c if c.isprintable() else " " for c in str(text))[:300]
