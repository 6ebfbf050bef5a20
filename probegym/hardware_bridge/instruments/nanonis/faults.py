"""What can go wrong on a Nanonis wire, on demand: so that a driver can be shown every fault before a real one comes.

A plan is a list of {"kind": ..., "at": n, "what": name}: the fault happens to the answer to the n-th command of that name (from 0),
by default to the n-th command of all. The wire has no checksum: a flipped bit of a number is not there, as nothing could tell it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

from probegym.errors import ProbeGymError
from probegym.hardware_bridge.codec import Json
from probegym.hardware_bridge.instruments.faults import planned
from probegym.hardware_bridge.instruments.nanonis import commands, protocol

KINDS = {
    "drop before": "the connection breaks before the command is carried out",
    "drop header": "the connection breaks in the middle of the answer's header",
    "drop body": "the connection breaks in the middle of the answer's values",
    "drop after": "the command is carried out, the connection breaks before the answer",
    "silent": "no answer comes",
    "late": "the answer comes after the deadline",
    "double": "the answer comes twice",
    "other": "the answer is that to another command",
    "trickle": "the answer comes byte by byte, in time",
    "garbage": "the answer announces two gigabytes",
    "garbled": "the answer's name has a flipped bit",
    "long": "the answer has four bytes more than its command returns",
    "short": "the answer has four bytes less than its command returns",
    "refused": "the controller says an error, and does nothing",
    "unknown error": "the controller says an error without a text, and has done what was asked",
}
"""Kind of fault -> what happens."""

LATE_SECONDS = 3.0
PULSE_SECONDS = 1e-3  # between two bytes of a trickle


class Link(Protocol):
    """The server's end of a connection."""

    def send(self, data: bytes) -> None:
        """Send all of it."""

    def close(self) -> None:
        """Break the connection."""


class WireFaults:
    """A plan of faults; raises ProbeGymError for kinds and commands that there are not."""

    def __init__(self, plan: list[Json]):
        for fault in planned(plan, KINDS):
            if fault.get("what", "Bias.Get") not in commands.COMMANDS:
                raise ProbeGymError(f"no such fault: there is no command {fault['what']}")
        self.plan, self.counts = plan, dict[str, int]()

    def _due(self, name: str) -> str | None:
        counted = {what: self.counts.get(what, -1) + 1 for what in (name, "")}
        self.counts |= counted
        for fault in self.plan:
            if fault.get("what", "") in counted and fault.get("at", 0) == counted[fault.get("what", "")]:
                return str(fault["kind"])
        return None

    def deliver(self, link: Link, name: str, answered: Callable[[], bytes]) -> None:
        """Answer one command, with the fault that is due."""
        due = self._due(name)
        if due == "drop before":
            link.close()
        elif due == "refused":
            link.send(commands.refusal(name, "the controller is busy"))
        else:
            self._spoiled(due, link, name, answered())

    @staticmethod
    def _spoiled(kind: str | None, link: Link, name: str, answer: bytes) -> None:
        head, body = answer[: protocol.HEADER], answer[protocol.HEADER :]
        resized = {"long": bytes(4) + body, "short": body[4:]}
        if kind is None:
            link.send(answer)
        elif kind == "late":
            time.sleep(LATE_SECONDS)
            link.send(answer)
        elif kind == "double":
            link.send(answer + answer)
        elif kind == "other":
            link.send(("Scan.StatusGet" if name != "Scan.StatusGet" else "Bias.Get").encode().ljust(32, b"\0") + answer[32:])
        elif kind == "trickle":
            for at in range(len(answer)):
                link.send(answer[at : at + 1])
                time.sleep(PULSE_SECONDS if at < 100 else 0.0)
        elif kind == "garbage":
            link.send(head[:32] + (2**31 - 1).to_bytes(4, "big") + bytes(4) + body)
        elif kind == "garbled":
            link.send(bytes([head[0] ^ 1]) + answer[1:])
        elif kind in resized:
            link.send(head[:32] + len(resized[kind]).to_bytes(4, "big") + bytes(4) + resized[kind])
        elif kind == "unknown error":
            link.send(answer[:-8] + bytes([0, 0, 0, 1]) + bytes(4))
        elif kind != "silent":
            link.send({"drop header": head[:20], "drop body": answer[:-3], "drop after": b""}[kind])
            link.close()
