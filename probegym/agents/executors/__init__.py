"""Executors: many pieces of work, each by itself, of which none is lost when a process, or a machine, dies.

A work names a function of this package and says in plain JSON what it is told. The function is idempotent: it looks at what its files
hold and goes on from there, so that to try again is to resume.
"""

from __future__ import annotations

import json
import re
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from probegym.errors import ProbeGymError

Json = dict[str, Any]

CALL = re.compile(r"probegym(\.[A-Za-z_]\w*)+:[A-Za-z_]\w*", re.ASCII)
RETRIES = 2
LAST_LINES = 8  # of what went wrong


@dataclass(frozen=True)
class Work:
    """One piece. name: by which it is reported, unlike every other. call: ``probegym.module:function``. told: its one argument.

    Raises ProbeGymError for a function of another package, and for what plain JSON does not give back as it was.
    """

    name: str
    call: str
    told: Json

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise ProbeGymError(f"a work has the name {self.name!r}: give it some text")
        if not isinstance(self.call, str) or not CALL.fullmatch(self.call):
            raise ProbeGymError(f"work {self.name!r} calls {self.call!r}: name a function of this package as probegym.module:function")
        try:
            plain = json.loads(json.dumps(self.told, allow_nan=False))
        except (TypeError, ValueError, RecursionError):
            plain = None
        if not isinstance(plain, dict) or plain != self.told:
            raise ProbeGymError(f"work {self.name!r} is told what is no plain JSON: use dicts with text as keys, lists, text, finite numbers, true, false, null")
        object.__setattr__(self, "told", plain)  # no subclass of text or number goes on: a checkpoint that holds one cannot be read


@dataclass(frozen=True)
class Outcome:
    """What became of a work. attempts: how often it was begun. seconds: that all of them took. error: last lines of what went wrong, "" if ok."""

    name: str
    ok: bool
    attempts: int
    seconds: float
    error: str = ""


Report = Callable[[Outcome], None]


class Executor(Protocol):
    """Does works, in any order, and begins again what failed or was killed, up to a number of times."""

    def run(self, work: Sequence[Work], report: Report = ...) -> list[Outcome]:
        """The outcomes in the order of ``work``; ``report`` gets each when it is known. Raises ProbeGymError before anything starts, never for one work."""


class Pool(Protocol):
    """Where attempts run; leaving it ends all that still do."""

    def room(self) -> int:
        """How many attempts may run at once."""

    def start(self, work: Work) -> None:
        """Begin an attempt."""

    def ended(self) -> list[tuple[str, str]]:
        """Names of attempts that have ended and what went wrong, "" if nothing did; waits a little for one."""


def survive(pool: AbstractContextManager[Pool], work: Sequence[Work], retries: int, report: Report) -> list[Outcome]:
    """Do every work on a pool, and those that fail again up to ``retries`` times; the order of ``work`` is that of the first attempts."""
    refuse_equal_names(work)
    pieces = {piece.name: piece for piece in work}
    attempts, spent, began = dict.fromkeys(pieces, 0), dict.fromkeys(pieces, 0.0), dict.fromkeys(pieces, 0.0)
    waiting, running, known = deque(pieces), set[str](), dict[str, Outcome]()
    if not pieces:
        return []
    with pool as there:
        while waiting or running:
            while waiting and len(running) < there.room():
                name = waiting.popleft()
                attempts[name], began[name] = attempts[name] + 1, time.monotonic()
                running.add(name)
                there.start(pieces[name])
            for name, error in there.ended():
                running.remove(name)
                spent[name] += time.monotonic() - began[name]
                if error and attempts[name] <= retries:
                    waiting.appendleft(name)
                    continue
                known[name] = Outcome(name, not error, attempts[name], spent[name], error)
                report(known[name])
    return [known[name] for name in pieces]


def refuse_too_few(workers: int | None, retries: int) -> None:
    """Raises ProbeGymError for executors that could do nothing."""
    if (workers is not None and workers < 1) or retries < 0:
        raise ProbeGymError(f"{workers} workers and {retries} retries: use at least 1 worker and 0 retries")


def refuse_equal_names(work: Sequence[Work]) -> None:
    """Raises ProbeGymError when two works have one name."""
    seen: set[str] = set()
    for piece in work:
        if piece.name in seen:
            raise ProbeGymError(f"two works are named {piece.name!r}: give each a name of its own")
        seen.add(piece.name)


def executor(kind: str, workers: int | None = None, retries: int = RETRIES) -> Executor:
    """An executor by name; kind: local or ray. workers: at once; None: 2 for local, for ray as many as there are processors. Raises ProbeGymError."""
    if kind == "local":
        from probegym.agents.executors.local import Local

        return Local(2 if workers is None else workers, retries)
    if kind == "ray":
        from probegym.agents.executors.cluster import Ray

        return Ray(workers=workers, retries=retries)
    raise ProbeGymError(f"unknown executor {kind!r}: use local or ray")
