"""The guardian: watches the guard over a heartbeat and, when that fails, sends the instrument to its safe state over a connection of its own.

It knows nothing else. ``python -m probegym.hardware_bridge.guard.guardian`` is started by the guard.
"""

from __future__ import annotations

import signal
import time

from probegym.errors import ProbeGymError
from probegym.hardware_bridge.channel import Channel, Late, called
from probegym.hardware_bridge.instruments.drivers import Safety, open_safety

TIMEOUT = 0.15  # s without a heartbeat
TRIES, TRY_SECONDS = 20, 0.5  # of going safe


def watch(channel: Channel, safety: Safety) -> None:
    """Listen until the guard says goodbye or has gone; go safe when it falls silent, tell it so, and watch on."""
    while True:
        try:
            word, _ = channel.receive(TIMEOUT)
        except Late:
            make_safe(safety)
            channel.send({"acted": f"no heartbeat for {TIMEOUT:g} s"})
            word, _ = channel.receive()  # a guard that was stopped may go on, or be killed
        if word.get("goodbye") is True:
            return


def make_safe(safety: Safety) -> None:
    """Try until the safe state is read back."""
    for _ in range(TRIES):
        try:
            safety.safe(TRY_SECONDS)
            if safety.is_safe():
                return
        except ProbeGymError:
            time.sleep(0.05)


def main() -> None:
    """The guardian's process."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGTSTP", "SIGBREAK"):  # the guard ends this process, nobody else
        if hasattr(signal, name):  # not every system has each
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    channel, told = called()
    safety = open_safety(told["instrument"], "guardian")
    channel.send({"watching": True})
    try:
        watch(channel, safety)
    except ProbeGymError:
        make_safe(safety)  # the guard has gone
    safety.close()


if __name__ == "__main__":
    main()
