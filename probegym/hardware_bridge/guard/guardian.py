"""The guardian: watches the guard over a heartbeat and, when that fails, sends the instrument to its safe state over a connection of its own.

It knows nothing else. ``python -m probegym.hardware_bridge.guard.guardian`` is started by the guard.
"""

from __future__ import annotations

import signal
import time

from probegym.errors import ProbeGymError
from probegym.hardware_bridge.channel import Channel, Late, called, on_signals
from probegym.hardware_bridge.instruments import Unreached
from probegym.hardware_bridge.instruments.drivers import Safety, open_safety

TIMEOUT = 0.3  # s without a heartbeat; a guard that has died is noticed at once
TRY_SECONDS, PAUSE_SECONDS = 0.5, 0.05  # beyond what the instrument may take to its safe state; between tries
UNREACHED_SECONDS = 60.0  # without any answer: its process or its controller has gone
LOOK_SECONDS = 0.5  # between looks at whether its own line to the instrument still works, and words to the guard that it is there


def watch(channel: Channel, safety: Safety, seconds: float) -> None:
    """Listen until the guard says goodbye or has gone; go safe when it falls silent, tell it so, and watch on.

    seconds: that the instrument may take to its safe state. A line to the instrument that has gone is told to the guard.
    """
    looked = time.monotonic()
    while True:
        try:
            word, _ = channel.receive(TIMEOUT)
        except Late:
            channel.send({"acted": f"no heartbeat for {TIMEOUT:g} s"})  # first: a guard that goes on must not command meanwhile
            make_safe(safety, seconds)
            word, _ = channel.receive()  # a guard that was stopped may go on, or be killed
        if word.get("goodbye") is True:
            return
        if time.monotonic() > looked + LOOK_SECONDS:
            looked = time.monotonic()
            try:
                safety.is_safe()
                channel.send({"here": True})
            except ProbeGymError as error:
                channel.send({"acted": f"its own line to the instrument does not answer ({error})"})


def make_safe(safety: Safety, seconds: float) -> None:
    """Try until the safe state is read back, however long that takes; only an instrument that cannot be reached at all is given up."""
    heard = time.monotonic()
    while time.monotonic() < heard + UNREACHED_SECONDS:
        try:
            safety.safe(seconds + TRY_SECONDS)
            if safety.is_safe():
                return
            heard = time.monotonic()
        except Unreached:
            pass
        except ProbeGymError:
            heard = time.monotonic()
        time.sleep(PAUSE_SECONDS)


def main() -> None:
    """The guardian's process."""
    on_signals(signal.SIG_IGN, "SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGTSTP", "SIGBREAK")  # the guard ends this process, nobody else
    channel, told = called()
    try:
        safety = open_safety(told["instrument"], "guardian")
    except ProbeGymError as error:
        channel.send({"error": f"nobody would watch over the instrument: {error}"})
        return
    channel.send({"watching": True})
    try:
        watch(channel, safety, told["seconds"])
    except ProbeGymError:
        make_safe(safety, told["seconds"])  # the guard has gone
    safety.close()


if __name__ == "__main__":
    main()
