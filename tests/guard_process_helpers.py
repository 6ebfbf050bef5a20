"""A guard around an instrument that is not there, in a thread of the test, and one in a process of its own in front of a twin."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from probegym import scenarios
from probegym.errors import ProbeGymError
from probegym.hardware_bridge.channel import Channel
from probegym.hardware_bridge.codec import Json
from probegym.hardware_bridge.commands import AcquireRonchigram, Command, Readings
from probegym.hardware_bridge.deployment.world import GuardedWorld
from probegym.hardware_bridge.guard import process
from probegym.hardware_bridge.guard.ledger import Budget, Ledger
from probegym.hardware_bridge.guard.operator import Operator
from probegym.hardware_bridge.instruments import twin as twins
from probegym.hardware_bridge.instruments.wire import SafetyLink
from probegym.hardware_bridge.records.read import Record
from tests import guard_helpers as fakes

TWIN = "probegym.hardware_bridge.twins.stem:StemTwin"
FRAME = AcquireRonchigram((42, 42), 0.05, np.array([30e-9]), np.zeros((1, 2)))
HERE = np.ones(1, bool)
PATIENT = 10.0  # s, for what is not about time, on a loaded machine
SECRETS = {"writer": "w", "safety": "s", "observer": "o", "judge": "j"}


def happens(true: Callable[[], object], seconds: float = PATIENT) -> bool:
    """Whether something comes to be so within a time."""
    end = time.monotonic() + seconds
    while not (so := true()) and time.monotonic() < end:
        time.sleep(0.005)
    return bool(so)


def pair() -> tuple[Channel, Channel]:
    """Both ends of a connection."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        here = socket.create_connection(server.getsockname())
        return Channel(here), Channel(server.accept()[0])


def there_is_one(guardian: Channel) -> None:
    """A guardian says now and then that it is there."""
    try:
        while True:
            guardian.send({"here": True})
            time.sleep(0.1)
    except ProbeGymError:
        return


class Beside(process.Guard):
    """The guard itself. go: cleared, its loop hangs."""

    def _once(self) -> None:
        self.go.wait()
        super()._once()


class Scene:
    """A guard in a thread, its operator, and its guardian's end of the pulse, which nobody reads unless a test does."""

    def __init__(self, folder: Path) -> None:
        here, there = pair()
        self.guardian, pulse = pair()
        self.told: Json = {}  # to the guardian

        def launch(module: str, told: Json, silent: bool) -> tuple[None, Channel, Json]:
            self.told = told
            return None, pulse, {"watching": True}

        threading.Thread(target=there_is_one, args=(self.guardian,), daemon=True).start()

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(process, "open_writer", lambda told, name: fakes.FakeInstrument())
            patch.setattr(process, "launch", launch)
            instrument = {"driver": "served", "port": 1, "secrets": SECRETS}
            self.guard = Beside(there, {"instrument": instrument, "sample": folder / "sample", "budget": {"dose": 1e6, "changes": 50}, "runs": folder / "runs", "name": "test", "manifest": {}})
        self.guard.go = threading.Event()
        self.guard.go.set()
        self.gate, self.instrument, self.worlds = self.guard.gate, self.guard.instrument, []
        self.operator = Operator(here)
        self.reached = {role: one.reached() for role, one in self.guard.listeners.items()}
        self.failed: list[BaseException] = []
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        try:
            self.guard.run()
        except BaseException as error:
            self.failed.append(error)

    @property
    def state(self) -> str:
        return str(self.gate.state)

    def in_fault(self, why: str) -> bool:
        """Whether the gate comes to be in a fault for this reason, and the instrument in its safe state."""
        return happens(lambda: self.state == "fault" and why in self.gate.why and self.instrument.is_blanked and self.gate.safe)

    def armed(self, **request: object) -> GuardedWorld:
        """Armed, and a session that has not begun an episode."""
        self.operator.arm(self.operator.ask(fakes.REQUEST | request)["nonce"])
        self.worlds.append(GuardedWorld(self.reached))
        return self.worlds[-1]

    def asked(self, world: GuardedWorld, command: Command) -> list[Readings | ProbeGymError]:
        """A session asks for a command beside the test; its answer is in the list once it has come."""
        answers: list[Readings | ProbeGymError] = []

        def ask() -> None:
            try:
                answers.append(world.execute(command, HERE))
            except ProbeGymError as error:
                answers.append(error)

        threading.Thread(target=ask, daemon=True).start()
        return answers

    def events(self, kind: str) -> list[Json]:
        """What the record holds of a kind."""
        return [event.payload for event in Record(self.guard.recorder.folder) if event.kind == kind]

    def close(self) -> None:
        self.guard.go.set()
        for world in self.worlds:
            world.close()
        self.guard.stopping = self.guard.stopping or "the test is over"
        self.thread.join(PATIENT)
        self.guardian.close()
        assert not self.failed, self.failed


@pytest.fixture
def scene(tmp_path, monkeypatch) -> Iterator[Scene]:
    monkeypatch.setattr(process, "SILENCE_SECONDS", 30.0)  # for a loaded machine
    made = Scene(tmp_path)
    yield made
    made.close()


@pytest.fixture(scope="module")
def instrument() -> Iterator[Any]:
    with twins.start(TWIN, scenarios.load("stem_tuning", "id").world, key=3) as running:
        yield running


class Desk:
    """A guard in its process, its operator, and how to see whether the instrument is safe."""

    WITHIN = 3.0  # s, for a loaded machine; benchmarks/bridge.py measures how long it takes

    def __init__(self, instrument: Any, folder: Path) -> None:
        self.instrument, self.folder = instrument, folder
        Ledger.create(folder / "sample", Budget(dose=1e18, changes=9, instrument="STEM twin")).close()
        self.guard = self.another()
        self.operator = Operator(self.guard.operator)
        self.eyes = SafetyLink(instrument.reached, "eyes")

    def another(self) -> process.GuardProcess:
        return process.start(self.instrument.reached, str(self.folder / "sample"), str(self.folder / "runs"), "a test", {})

    def armed(self, approvals: int = 0) -> GuardedWorld:
        told = self.operator.ask({"environment": "e", "scenario": "s", "policy": "p", "seconds": 1e4, "changes": 9, "approvals": approvals})
        self.operator.arm(told["nonce"])
        return GuardedWorld(self.guard.reached)

    def safe(self) -> bool:
        return happens(self.eyes.is_safe, self.WITHIN)

    def close(self) -> None:
        self.guard.operator.close()
        self.eyes.close()
        self.guard.process.wait(10)


@pytest.fixture
def desk(instrument, tmp_path) -> Iterator[Desk]:
    made = Desk(instrument, tmp_path)
    yield made
    made.close()
