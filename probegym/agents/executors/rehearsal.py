"""A work that does nothing but count: to try executors, clusters and their shared folders before hours of training go there."""

from __future__ import annotations

import json
import os
import platform
import time
from pathlib import Path

from probegym.agents.executors import Json
from probegym.agents.files import write_bytes
from probegym.errors import ProbeGymError


def count(told: Json) -> None:
    """Count up to ``to`` in the JSON file ``file``, one every ``seconds``, from what it holds; every attempt leaves where it began, its process and host.

    Raises ProbeGymError when the file cannot be used.
    """
    path = Path(told["file"])
    state: Json = counted(path) if path.exists() else {"count": 0, "attempts": []}
    state["attempts"].append({"at": state["count"], "process": os.getpid(), "host": platform.node()})
    write_bytes(path, json.dumps(state).encode())
    while state["count"] < told["to"]:
        time.sleep(told["seconds"])
        state["count"] += 1
        write_bytes(path, json.dumps(state).encode())


def counted(path: Path) -> Json:
    """What such a file holds: count and attempts. Raises ProbeGymError."""
    try:
        state = json.loads(path.read_bytes())
        return {"count": int(state["count"]), "attempts": list(state["attempts"])}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ProbeGymError(f"{path} is no file of a count ({type(error).__name__}): choose another") from error
