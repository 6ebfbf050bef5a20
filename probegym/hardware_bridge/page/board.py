"""What all open pages are shown: filled from the guard's answers, read by every page as often as it likes."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from probegym.hardware_bridge.codec import Arrays, Json
from probegym.hardware_bridge.page import display

MOST_STEPS, MOST_LINES, MOST_VIEWS = 300, 200, 3


@dataclass
class Board:
    """mode: how the run goes. request: what the page asks for when its operator arms. limits: of the instrument, as (what, words).

    Times are of the monotonic clock, in s.
    """

    mode: str
    request: Json | None
    limits: list[list[str]]
    status: Json | None = None
    at: float = field(default_factory=time.monotonic)  # when the status was asked for
    trouble: str = "the guard has not answered yet"
    asked: Json | None = None  # what the guard told when this page asked for arming
    asked_at: float = 0.0
    views: dict[str, Json] = field(default_factory=dict)  # verb -> what came of it last
    trace: dict[int, Json] = field(default_factory=dict)  # number of an action -> action and reward
    log: deque[list[str]] = field(default_factory=lambda: deque(maxlen=MOST_LINES))
    versions: dict[str, int] = field(default_factory=lambda: dict.fromkeys(("views", "trace", "log", "limits"), 0))
    refused: int = -1  # the last of the guard's refusals that stands in the log

    def take(self, status: Json, at: float) -> None:
        """An answer to ``status``, asked for at ``at`` (s)."""
        before = self.status or {}
        self.status, self.at, self.trouble = status, at, ""
        if (status["state"], status["why"]) != (before.get("state"), before.get("why")):
            self.write(status["state"], status["why"])
        if status["state"] != "asked" and at > self.asked_at:
            self.asked = None
        for refusal in status.get("rejected", []):
            if refusal["serial"] > self.refused:
                self.refused = refusal["serial"]
                self.write("refused", refusal["why"])
        self._step(status["notes"])

    def ask(self, answer: Json) -> None:
        """What the guard told this page when it asked for arming, the nonce among it."""
        self.asked, self.asked_at = answer, time.monotonic()

    def _step(self, notes: Json) -> None:
        """Actions and rewards carry the number of their action, so that a page that asks seldom still puts them together rightly."""
        for kind in ("action", "reward"):
            note = notes.get(kind, {})
            number = note.get("number")
            if isinstance(number, int) and kind in note and self.trace.get(number, {}).get(kind) != note[kind]:
                self.trace.setdefault(number, {})[kind] = note[kind]
                self._grown("trace")
        for number in sorted(self.trace)[:-MOST_STEPS]:
            del self.trace[number]

    def show(self, header: Json, arrays: Arrays) -> None:
        """The readings of a command; those without any leave what is shown as it is."""
        seen = display.views(header["verb"], arrays)
        if seen:
            command = header.get("command")
            told = {"verb": header["verb"], "number": header["number"], "views": seen, "lines": display.readable(command) if command else []}
            self.views.pop(header["verb"], None)
            self.views[header["verb"]] = told | {"scale": display.scale_bar(command)}
            for verb in list(self.views)[:-MOST_VIEWS]:
                del self.views[verb]
            self._grown("views")

    def lost(self, why: str) -> None:
        """The guard does not answer."""
        if why != self.trouble:
            self.write("no guard", why)
        self.trouble, self.asked = why, None

    def write(self, kind: str, text: str) -> None:
        """A line of the log, with the time of day."""
        self.log.append([time.strftime("%H:%M:%S"), kind, text])
        self._grown("log")

    def _grown(self, part: str) -> None:
        self.versions[part] += 1

    def message(self, seen: dict[str, int]) -> Json:
        """What a page lacks that has ``seen`` these versions, which are brought up to date."""
        told: Json = {"age": time.monotonic() - self.at, "trouble": self.trouble, "mode": self.mode, "proposal": self.request, "status": None}
        if self.status:
            told |= {"status": self._status(self.status), "asked": self.asked, "bars": display.bars(self.status)}
        parts: dict[str, Any] = {
            "views": lambda: list(reversed(self.views.values())), "trace": lambda: [[n, *map(self.trace[n].get, ("action", "reward"))] for n in sorted(self.trace)],
            "log": lambda: list(self.log), "limits": lambda: self.limits,
        }  # fmt: skip
        for part, content in parts.items():
            if seen.get(part) != self.versions[part]:
                seen[part] = self.versions[part]
                told[part] = content()
        return told

    def _status(self, status: Json) -> Json:
        waiting = status["waiting"]
        if waiting:
            waiting = {"number": waiting["number"], "action": waiting["action"], "verb": waiting["command"]["verb"], "lines": display.readable(waiting["command"])}
        kept = ("state", "why", "lease", "instrument", "kind", "record", "request", "refusals", "session")
        return {name: status[name] for name in kept} | {"waiting": waiting, "safe": status.get("safe")}

