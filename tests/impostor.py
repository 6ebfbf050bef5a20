"""Stands in for the policy process in tests: honest at first, then as the bundle's ``command`` says."""

from __future__ import annotations

import os
import sys
import time

import numpy as np

from probegym.hardware_bridge import codec
from probegym.hardware_bridge.deployment.bundle import read
from probegym.hardware_bridge.deployment.pipes import Ended, receive, send

HONEST = {"action": np.zeros((1, 2), np.float32), "kept_next": np.ones((1, 2), np.float32)}
ANSWERS = {
    "shape": HONEST | {"action": np.zeros((1, 3), np.float32)},
    "lanes": HONEST | {"action": np.zeros((2, 2), np.float32)},
    "dtype": HONEST | {"action": np.zeros((1, 2), np.float64)},
    "numbers": HONEST | {"action": np.array([[0.0, np.nan]], np.float32)},
    "memory": HONEST | {"kept_next": np.full((1, 2), np.inf, np.float32)},
    "names": {"action": HONEST["action"]},
    "more": HONEST | {"more": HONEST["action"]},
    "long": HONEST | {"more": np.zeros(10_000_000, np.uint8)},
}


def main() -> None:
    """Answer until the pipe ends."""
    requests, answers = os.fdopen(os.dup(0), "rb", buffering=0), os.fdopen(os.dup(1), "wb", buffering=0)
    bundle = read(sys.argv[1])
    mode = bundle.spec["command"]
    if mode == "mute":
        time.sleep(60)
    send(answers, codec.pack({"kind": "ready", "digest": "other" if mode == "other" else bundle.digest}))
    while True:
        try:
            sequence = receive(requests)[0]["sequence"]
        except Ended:
            return
        if mode == "garbage":
            send(answers, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n" * 10)
        elif mode == "damaged":
            content = bytearray(codec.pack({"kind": "action", "sequence": sequence}, HONEST))
            content[-1] ^= 1
            send(answers, bytes(content))
        elif mode == "half":
            send(answers, codec.pack({"kind": "action", "sequence": sequence}, HONEST)[:-5])
            return
        elif mode == "past":
            send(answers, codec.pack({"kind": "action", "sequence": sequence - 1}, HONEST))
        elif mode == "future":
            send(answers, codec.pack({"kind": "action", "sequence": sequence + 1}, HONEST))
        elif mode == "excuse":
            send(answers, codec.pack({"kind": "fault", "sequence": sequence, "reason": "not\nto\x1b[2Jday"}))
        elif mode == "twice":
            for _ in range(2):
                send(answers, codec.pack({"kind": "action", "sequence": sequence}, HONEST))
        elif mode == "exit":
            os._exit(7)
        else:
            send(answers, codec.pack({"kind": "action", "sequence": sequence}, ANSWERS.get(mode, HONEST)))


if __name__ == "__main__":
    main()
