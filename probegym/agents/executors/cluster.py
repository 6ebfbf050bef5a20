"""Works on a Ray cluster: on this machine, or on many that share the folder which the works write to.

Ray's own retries are off: it does not say how often it tried. A work is begun again by ``survive``, on another node where its node has gone.
"""

from __future__ import annotations

import logging
import os
import secrets
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from types import ModuleType
from typing import Any

from probegym.agents.executors import LAST_LINES, RETRIES, Json, Outcome, Report, Work, refuse_too_few, survive
from probegym.agents.executors.worker import ENVIRONMENT, perform
from probegym.errors import ProbeGymError

LOOK_SECONDS, KNOCK_SECONDS = 0.5, 10.0


@dataclass(frozen=True)
class Ray:
    """A Ray task of one processor for each work. address: of a cluster, "auto" for the one on this machine; None: RAY_ADDRESS, else a cluster is started here and ended.

    workers: most at once; None: as many as the cluster has processors.
    """

    address: str | None = None
    retries: int = RETRIES
    workers: int | None = None

    def __post_init__(self) -> None:
        refuse_too_few(self.workers, self.retries)

    def run(self, work: Sequence[Work], report: Report = lambda _: None) -> list[Outcome]:
        """The outcomes in the order of ``work``; ``report`` gets each when it is known. Raises ProbeGymError when there is no Ray, or no cluster."""
        return survive(_tasks(self.address, self.workers), work, self.retries, report)


def installed() -> ModuleType:
    """Ray, with what it would tell its makers turned off. Raises ProbeGymError when it is not installed."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError as error:
        raise ProbeGymError("the executor ray needs Ray, which is not installed: pip install 'probegym[ray]', or use --executor local") from error
    return ray


@contextmanager
def connected(address: str | None = None, workers: int | None = None) -> Iterator[ModuleType]:
    """Ray with a cluster: the one that this process is in already, the one named, or one that is started here and ended. Raises ProbeGymError.

    A cluster of our own takes a token from the environment, so that Ray writes none to the home folder.
    """
    ray = installed()
    if ray.is_initialized():
        yield ray
        return
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": True}
    if address == "local":
        if not {"RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & set(os.environ):
            os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
        options |= {"num_cpus": workers, "include_dashboard": False}
    else:
        _refuse_nobody(address)
    try:
        ray.init(address, **options)
    except (ConnectionError, RuntimeError, ValueError, OSError, ray.exceptions.RayError) as error:
        told = " ".join(str(error).split())[:200]
        raise ProbeGymError(f"no Ray cluster at {address} ({told}): check the address and the token, or leave RAY_ADDRESS out to start one here") from error
    try:
        yield ray
    finally:
        ray.shutdown()


def _refuse_nobody(address: str) -> None:
    """Raises ProbeGymError where nothing listens at host:port, which Ray itself would try for minutes."""
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdigit() or "/" in host:
        return
    try:
        socket.create_connection((host, int(port)), timeout=KNOCK_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise ProbeGymError(f"no Ray cluster at {address} ({error}): check the address, or leave RAY_ADDRESS out to start one here") from error


@contextmanager
def _tasks(address: str | None, workers: int | None) -> Iterator[Tasks]:
    with connected(address, workers) as ray:
        tasks = Tasks(ray, workers)
        try:
            yield tasks
        finally:
            tasks.cancel()


def attempt(content: Json) -> None:
    """In a process of the cluster."""
    perform(Work(**content))


class Tasks:
    """The pool of one run."""

    def __init__(self, ray: ModuleType, workers: int | None):
        self.ray, self.workers = ray, workers
        self.attempt = ray.remote(num_cpus=1, max_retries=0, runtime_env={"env_vars": ENVIRONMENT})(attempt)
        self.names: dict[Any, str] = {}

    def room(self) -> int:
        """How many attempts may run at once: as many as there are processors now."""
        there = max(1, int(self.ray.cluster_resources().get("CPU", 0)))
        return there if self.workers is None else min(there, self.workers)

    def start(self, work: Work) -> None:
        """Begin an attempt."""
        self.names[self.attempt.remote(asdict(work))] = work.name

    def ended(self) -> list[tuple[str, str]]:
        """Names of attempts that have ended and what went wrong, "" if nothing did; waits a little for one."""
        over, _ = self.ray.wait(list(self.names), num_returns=1, timeout=LOOK_SECONDS)
        return [(self.names.pop(one), self._error(one)) for one in over]

    def _error(self, one: Any) -> str:
        try:
            self.ray.get(one)
        except self.ray.exceptions.RayTaskError as error:
            return _last_lines(str(error)) if not isinstance(error.cause, ProbeGymError) else str(error.cause)
        except self.ray.exceptions.RayError as error:
            return _last_lines(f"{type(error).__name__}: {error}")
        return ""

    def cancel(self) -> None:
        """End all that still runs."""
        for one in self.names:
            self.ray.cancel(one, force=True)


def _last_lines(text: str) -> str:
    return "\n".join(text.strip().splitlines()[-LAST_LINES:])
