"""A guard around an instrument that is not there, the page that is its client, and who visits it."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import numpy as np
import pytest
from websockets.sync.client import connect as open_websocket

from probegym.errors import ProbeGymError
from probegym.hardware_bridge import codec
from probegym.hardware_bridge.channel import Channel
from probegym.hardware_bridge.commands import Command, Readings
from probegym.hardware_bridge.deployment.world import GuardedWorld
from probegym.hardware_bridge.guard import process
from probegym.hardware_bridge.guard.operator import Operator
from probegym.hardware_bridge.page import PageProcess, start_page
from tests import guard_helpers as fakes
from tests.guard_process_helpers import happens, pair, there_is_one

PATIENT = 20.0  # s, for what is not about time, on a loaded machine
REQUEST = fakes.REQUEST | {"environment": "probegym/StemTuning-v0", "policy": "stem-tuning, sha256 0123456789abcdef", "approvals": 3}
ON = np.ones(1, bool)


def until(true: Callable[[], object], seconds: float = PATIENT) -> None:
    """Wait until something is so."""
    assert happens(true, seconds), "it did not come to be so"


def guardian(module: str, told: codec.Json, silent: bool) -> tuple[None, Channel, codec.Json]:
    """A guardian that listens to the guard's pulse, and is content."""
    here, there = pair()

    def listen() -> None:
        try:
            while True:
                here.receive()
        except ProbeGymError:
            return

    for work in (listen, lambda: there_is_one(here)):
        threading.Thread(target=work, daemon=True).start()
    return None, there, {"watching": True}


class Guard(process.Guard):
    """The guard itself, in a thread, around an instrument that is not there. go: cleared, it hangs. mute: questions that it never answers."""

    mute: tuple[str, ...] = ()

    def _answer(self, client, question, arrays):
        return None if question.get("do") in self.mute else super()._answer(client, question, arrays)

    def _once(self) -> None:
        self.go.wait()
        super()._once()


class Scene:
    """A guard, the page that is its client, an operator elsewhere, and what a session asks for."""

    def __init__(self, folder: Path) -> None:
        self.parent, there = pair()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(process, "open_writer", lambda told, name: fakes.FakeInstrument())
            patch.setattr(process, "launch", guardian)
            told = {"instrument": {}, "sample": folder / "sample", "budget": {"dose": 1e6, "changes": 5}, "runs": folder / "runs", "name": "test", "manifest": {}}
            self.guard = Guard(there, told)
        self.guard.go = threading.Event()
        self.guard.go.set()
        self.instrument = self.guard.instrument
        threading.Thread(target=self.guard.run, daemon=True).start()
        self.reached = {role: one.reached() for role, one in self.guard.listeners.items()}
        self.operator = Operator(self.parent)
        self.page: PageProcess = start_page(self.reached["operator"], request=REQUEST, descriptor=fakes.description(), mode="supervised")
        self.answers: list[Readings | ProbeGymError] = []
        self.world: GuardedWorld | None = None

    @property
    def state(self) -> str:
        return str(self.guard.gate.state)

    def arm(self) -> None:
        """Arm at another place than the page."""
        self.operator.arm(self.operator.ask(REQUEST)["nonce"])

    def command(self, command: Command, action: int = 1) -> None:
        """A session asks for a command; its answer is added to ``answers`` once it comes."""
        self.world = self.world or GuardedWorld(self.reached)
        self.world.action = action

        def ask() -> None:
            try:
                self.answers.append(self.world.execute(command, ON))
            except ProbeGymError as error:
                self.answers.append(error)

        threading.Thread(target=ask, daemon=True).start()

    def clear(self) -> None:
        """As it was in the beginning."""
        self.guard.go.set()
        self.guard.mute = ()
        if self.state == "fault":
            self.operator.reset()
        self.operator.disarm()
        if self.world:
            self.world.close()
            until(lambda: len(self.guard.clients) == 4)
        self.world = None
        self.answers.clear()
        self.instrument.written.clear()

    def close(self) -> None:
        self.guard.go.set()
        self.page.close()
        if self.world:
            self.world.close()
        self.guard.stopping = "the test is over"


@contextmanager
def staged(folder: Path) -> Iterator[Scene]:
    """A scene around an instrument that is not there; sessions may be slow."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(process, "SILENCE_SECONDS", 30.0)
        scene = Scene(folder)
        try:
            yield scene
        finally:
            scene.close()


@pytest.fixture
def scene(tmp_path) -> Iterator[Scene]:
    with staged(tmp_path) as made:
        yield made


@contextmanager
def overheard(file: Path) -> Iterator[None]:
    """Processes that are started meanwhile have a file as their standard error."""
    kept = os.dup(2)
    with open(file, "wb", buffering=0) as stream:
        os.dup2(stream.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


@pytest.fixture
def loud(tmp_path) -> Iterator[tuple[Scene, Path]]:
    """A scene, and the file that what its page says goes to."""
    with ExitStack() as stack:
        with overheard(tmp_path / "said"):
            made = stack.enter_context(staged(tmp_path))
        yield made, tmp_path / "said"


@pytest.fixture(scope="module")
def lasting(tmp_path_factory) -> Iterator[Scene]:
    with staged(tmp_path_factory.mktemp("page")) as made:
        yield made


@pytest.fixture
def shared(lasting) -> Iterator[Scene]:
    """One scene for all tests that leave guard and page as they were."""
    yield lasting
    lasting.clear()


class Visitor:
    """Asks the page's server without a browser."""

    def __init__(self, page: PageProcess) -> None:
        self.url = httpx.URL(page.new_url())
        self.base = f"http://127.0.0.1:{self.url.port}"
        self.client = httpx.Client(base_url=self.base, trust_env=False, timeout=PATIENT)
        self.answer = self.client.get(str(self.url))
        self.path = self.answer.headers["location"]

    def post(self, what: str, **more) -> httpx.Response:
        headers = {"origin": self.base} | more.pop("headers", {})
        return self.client.post(f"{self.path}do/{what}", headers={k: v for k, v in headers.items() if v}, json=more.pop("json", {}), **more)

    def cookie(self) -> dict[str, str]:
        return {"Cookie": "; ".join(f"{name}={value}" for name, value in self.client.cookies.items())}

    def live(self, **more):
        given = {"origin": self.base, "additional_headers": self.cookie(), "proxy": None, "open_timeout": PATIENT, "max_queue": None} | more
        return open_websocket(f"ws://127.0.0.1:{self.url.port}{self.path}live", legacy=True, **given)


@pytest.fixture
def visitor(shared) -> Visitor:
    return Visitor(shared.page)
