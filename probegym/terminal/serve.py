"""``probegym serve``: a twin that others can drive, until Ctrl-C."""

from __future__ import annotations

import signal
import time
from pathlib import Path

from rich.console import Console

from probegym import scenarios
from probegym.console import say
from probegym.envs import environment_type
from probegym.errors import ProbeGymError
from probegym.hardware_bridge.channel import on_signals
from probegym.hardware_bridge.instruments.drivers import Meant, reach, write
from probegym.hardware_bridge.instruments.nanonis.protocol import PORTS
from probegym.hardware_bridge.instruments.nanonis.server import NanonisProcess
from probegym.terminal.choices import Protocol, Twin

POLL_SECONDS = 0.2


def serve(twin: Twin, protocol: Protocol, scenario: str, pace: float, out: Path, console: Console) -> None:
    """Start it, write down how it is reached, and wait. Raises ProbeGymError."""
    if twin not in protocol.twins:
        spoken = ", ".join(other for other in Protocol if twin in other.twins)
        raise ProbeGymError(f"the {twin} twin does not speak {protocol}, only {spoken}: {protocol} is spoken by --twin {' or '.join(protocol.twins)}")
    if out.exists():
        raise ProbeGymError(f"{out} exists: another instrument may be served there; name another file with --out, or delete it when none is")
    task = environment_type(twin.environment).task_type
    meant = Meant(task.twin, scenarios.load(task.family, scenario).world, pace)
    on_signals(signal.default_int_handler, "SIGTERM", "SIGHUP")  # as Ctrl-C: the file with the secrets must not stay
    running = reach(protocol.instrument, meant)
    try:
        write(out, running.reached)
    except ProbeGymError:
        running.close()
        raise
    try:
        say(console, f"{twin} twin, scenario {scenario} of {twin.environment}, speaks {protocol} on the loopback interface")
        if isinstance(running, NanonisProcess):
            others = "" if set(running.ports) == set(PORTS) else f" ({PORTS[0]} to {PORTS[-1]} are not all free)"
            say(console, f"ports {', '.join(map(str, running.ports))}{others}, one client each")
        say(console, f"how it is reached: {out}; drive it with: probegym deploy --instrument {out} ...\nCtrl-C ends it")
        while running.alive():
            time.sleep(POLL_SECONDS)
        raise ProbeGymError("the instrument's process has ended")
    except KeyboardInterrupt:
        console.print("ending, as soon as those who keep the instrument safe have left it")
    finally:
        out.unlink(missing_ok=True)
        running.close()
