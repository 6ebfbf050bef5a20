"""The guardian: watches the guard over a heartbeat and, when that fails, sends the instrument to its safe state over a connection of its own.

It knows nothing else. ``python -m probegym.hardware_bridge.guard.guardian`` is started by the guard.
"""

from __future__ import annotations

import signal
import time

from probegym.errors import ProbeGymError
from probegym.hardware_bridge.channel import Channel, Late, called
from probegym.hardware_bridge.instruments.drivers import open_safety

TIMEOUT = 0.15  # s without a heartbeat
TRIES, TRY_SECONDS = 20, 0.5  # of going safe


def watch(channel: Channel) -> str:
    """Listen until the guard says goodbye or falls silent; returns why the instrument must go safe, or nothing."""
    while True:
        try:
            word, _ = channel.receive(TIMEOUT)
        except Late:
            return f"no heartbeat of the guard for {TIMEOUT:g} s"
        except ProbeGymError:
            return "the guard has gone"
        if word.get("goodbye") is True:
            return ""


def main() -> None:
    """The guardian's process."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # Ctrl-C in a terminal reaches every process; the guard ends this one
    channel, told = called()
    safety = open_safety(told["instrument"], "guardian")
    channel.send({"watching": True})
    if watch(channel):
        for _ in range(TRIES):
            try:
                safety.safe(TRY_SECONDS)
                if safety.is_safe():
                    break
            except ProbeGymError:
                time.sleep(0.05)
    safety.close()


if __name__ == "__main__":
    main()
