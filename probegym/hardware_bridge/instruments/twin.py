"""A twin as an instrument: any environment's world in a process of its own, with controls that have a safe state, and a clock that can run in real time.

``python -m probegym.hardware_bridge.instruments.twin`` is started by ``start``.
"""

from __future__ import annotations

import importlib
import threading
from typing import Any

import numpy as np

from probegym.errors import ProbeGymError
from probegym.hardware_bridge.channel import called
from probegym.hardware_bridge.codec import Json
from probegym.hardware_bridge.commands import Command, Lanes, Readings
from probegym.hardware_bridge.instruments import InstrumentFault, Measured
from probegym.hardware_bridge.instruments.descriptions import SAFE_STEPS, describe
from probegym.hardware_bridge.instruments.drivers import Meant
from probegym.hardware_bridge.instruments.faults import Faults
from probegym.hardware_bridge.instruments.host import Host, HostProcess, launched, serve
from probegym.hardware_bridge.world import Refused, World

ON = np.ones(1, bool)


class TwinInstrument:
    """The Instrument protocol on a twin of one lane. pace: simulated seconds a second; 0 for as fast as it can. Raises ProbeGymError for more lanes."""

    def __init__(self, world: World, pace: float = 0.0):
        if world.lanes != 1:
            raise ProbeGymError(f"an instrument has one lane, this world has {world.lanes}")
        self.world, self.pace = world, pace
        told = describe(world)
        self.descriptor, self._rest = told.descriptor, told.rest
        self.controls = dict.fromkeys(SAFE_STEPS[self.descriptor.kind], True)  # step of the safe state -> whether it is taken
        self._stop = threading.Event()
        self._values = self._at_rest()

    def _at_rest(self) -> dict[str, np.ndarray]:
        return {name: np.array(value, float) for name, value in self._rest.items()}

    def execute(self, command: Command, seconds: float) -> Readings:
        """Carry a command out, in as much time as the pace wants."""
        if any(self.controls.values()):
            raise Refused(f"the instrument is in its safe state ({', '.join(step for step, taken in self.controls.items() if taken)}): arm it first")
        readings = self.world.execute(command, ON)
        if self.pace and self._stop.wait(float(readings.time[0]) / self.pace):
            raise InstrumentFault(f"{command.verb} was stopped: the instrument went to its safe state")
        for name, control in self.descriptor.capabilities[command.verb].reads_back.items():
            self._values[control] = np.asarray(getattr(command, name), float)
        return readings

    def measured(self) -> dict[str, Measured]:
        """What controls stand at."""
        return {name: Measured(values, 0.0) for name, values in self._values.items()}

    def ready(self, seconds: float) -> None:
        """Leave the safe state, step by step, backwards."""
        for step in reversed(self.controls):
            self.controls[step] = False
        self._stop.clear()

    def safe(self, seconds: float) -> None:
        """Go to the safe state; a command under way ends at once."""
        self._stop.set()
        for step in self.controls:
            self.controls[step] = True

    def is_safe(self) -> bool:
        """Whether every step of the safe state is taken."""
        return all(self.controls.values())

    def close(self) -> None:
        """Nothing is open."""

    def begin(self, key: int) -> None:
        """Begin the episode of a key, with all controls at rest."""
        self.world.begin(np.array([key], np.uint64), ON)
        self._values = self._at_rest()

    def truth(self) -> Lanes:
        """Hidden state."""
        return dict(self.world.truth() or {})


def build(twin: str, world: dict[str, Any], key: int) -> World:
    """The twin ``module:Class`` of one lane with the ``world`` table of a scenario, and its episode begun. Raises ProbeGymError."""
    module, _, name = twin.partition(":")
    if not module.startswith("probegym.hardware_bridge.twins."):
        raise ProbeGymError(f"{twin} is no twin of this package")
    built: World = getattr(importlib.import_module(module), name)(world, 1)
    built.begin(np.array([key], np.uint64), ON)
    return built


def start(twin: str, world: dict[str, Any], key: int = 0, pace: float = 0.0, judged: bool = False, faults: list[Json] | None = None) -> HostProcess:
    """Start a twin as an instrument; raises ProbeGymError when it does not come up.

    pace: simulated seconds a second, 0 for as fast as it can. judged: whether truth and new episodes may be asked for.
    """
    told = {"twin": twin, "world": world, "key": key, "pace": pace, "judged": judged, "faults": faults or []}
    return launched("probegym.hardware_bridge.instruments.twin", told)


def fits(meant: Meant) -> None:
    """A deployment's own twin always does."""


def started(meant: Meant) -> HostProcess:
    """The twin of a deployment, see drivers.py."""
    return start(meant.twin, meant.world, pace=meant.pace, judged=meant.judged)


def main() -> None:
    """The instrument's process: serves until the one that started it goes."""
    channel, told = called()
    try:
        instrument = TwinInstrument(build(told["twin"], told["world"], told["key"]), told["pace"])
        host = Host(instrument, instrument if told["judged"] else None, Faults(told["faults"]))
    except ProbeGymError as error:
        channel.send({"error": str(error)})
        return
    serve(host, channel)


if __name__ == "__main__":
    main()
