"""``probegym serve``: a twin that others can drive, until Ctrl-C."""

from __future__ import annotations

import signal
import time
from enum import StrEnum
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

POLL_SECONDS = 0.2


class Twin(StrEnum):
    """Twins by the instrument that they are, each with the environment whose scenarios it takes."""

    stem = "stem"
    stm = "stm"
    stm_tip = "stm-tip"
    afm = "afm"

    @property
    def environment(self) -> str:
        """Its environment."""
        return {
            Twin.stem: "probegym/StemTuning-v0", Twin.stm: "probegym/AdatomManipulation-v0", Twin.stm_tip: "probegym/TipConditioning-v0", Twin.afm: "probegym/AfmTuning-v0",
        }[self]  # fmt: skip


class Protocol(StrEnum):
    """What it speaks."""

    bridge = "bridge"
    nanonis = "nanonis"
    nion = "nion"

    @property
    def instrument(self) -> str:
        """The instrument to start for it, by its name in drivers.py."""
        return "twin" if self is Protocol.bridge else f"{self}-twin"

    @property
    def twins(self) -> tuple[Twin, ...]:
        """Twins that can be served so."""
        return {Protocol.bridge: tuple(Twin), Protocol.nanonis: (Twin.stm, Twin.stm_tip), Protocol.nion: (Twin.stem,)}[self]


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
