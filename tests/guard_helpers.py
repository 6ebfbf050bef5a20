"""A clock, a record and an instrument to put around a gate: all of them can be told to fail, and count what was done to them."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from probegym.errors import ProbeGymError
from probegym.hardware_bridge import capabilities, codec
from probegym.hardware_bridge.commands import (
    AcquireImage,
    AutoTune,
    BlankBeam,
    Command,
    InspectLevels,
    MoveStage,
    PlaceProbe,
    Readings,
    SetAberrations,
    ShiftBeam,
)
from probegym.hardware_bridge.guard.gate import Admission, Gate, State
from probegym.hardware_bridge.guard.ledger import Budget, Ledger
from probegym.hardware_bridge.instruments import InstrumentFault, Measured
from probegym.hardware_bridge.world import Refused

REGION = 1e-6
STAGE, SHIFT, TUNING = 50e-6, 2e-6, (1e-7, 2e-7)  # how far stage, beam and aberrations go, m
STEP, RATE = 0.5e-6, 0.25e-6  # of the beam's shift, m and m/s
FLUX = 100.0  # electrons per square Angstrom and second of a parked beam
LONGEST, HIGHEST = 1.0, 1e4  # s for which the beam is parked at most; counts
REQUEST = {"environment": "e", "scenario": "s", "policy": "p", "seconds": 1000.0, "changes": 100}
WIDEST, SIDE = 4e-6, 16


def description() -> dict[str, Any]:
    """A microscope whose every kind of limit is used by some verb."""
    move = {"low": (-STAGE, -STAGE, -1e-5), "high": (STAGE, STAGE, 1e-5), "tolerance": 1e-9}
    capabilities = {
        "AcquireImage": {
            "effect": "reads", "ranges": {"field_of_view": {"low": 0.0, "high": WIDEST}, "dwell_time": {"low": 0.0, "high": 1e-3}, "defocus": {"low": -1e-6, "high": 1e-6}},
            "counts": {"shape": (0, SIDE)}, "names": {"detector": ("HAADF",)}, "readings": {"HAADF": (0, HIGHEST)},
            "current": 1e-15, "overhead": 0.1, "line_overhead": 1e-3,
        },
        "PlaceProbe": {"effect": "changes", "ranges": {"position": {"low": -2e-6, "high": 2e-6}, "dwell_time": {"low": 0.0, "high": LONGEST}}, "dose_rate": FLUX},
        "ShiftBeam": {
            "effect": "sets", "ranges": {"shift": {"low": -SHIFT, "high": SHIFT, "step": STEP, "rate": RATE, "tolerance": 1e-9}}, "reads_back": {"shift": "shift"},
        },
        "MoveStage": {
            "effect": "sets", "ranges": {"position": move, "tilt": {"low": -0.1, "high": 0.1, "step": 0.05}}, "reads_back": {"position": "stage", "tilt": "tilt"}, "overhead": 1.0,
        },
        "SetAberrations": {
            "effect": "sets", "ranges": {"values": {"low": tuple(-n for n in TUNING), "high": TUNING, "tolerance": 1e-12}}, "names": {"names": ("C10", "C12a")},
            "reads_back": {"values": "aberrations"},
        },
        "AutoTune": {"effect": "sets", "names": {"routine": ("coarse",)}, "approval": True},
        "BlankBeam": {"effect": "sets"},
        "InspectLevels": {"effect": "reads", "may_lack": ("correlations",), "may_repeat": ("labels",)},
    }  # fmt: skip
    return {"name": "fake", "kind": "stem", "capabilities": capabilities, "safe": ("blank",), "region": REGION}


def one(*numbers: float) -> np.ndarray:
    """One lane of some numbers."""
    return np.array([numbers], float)


def park(x: float = 0.5e-6, y: float = 0.5e-6, seconds: float = 0.1) -> PlaceProbe:
    return PlaceProbe(one(x, y), np.array([seconds]))


def image(width: float = 0.5e-6, dwell: float = 1e-5, shape: tuple[int, int] = (16, 16)) -> AcquireImage:
    return AcquireImage("HAADF", shape, width, dwell, np.zeros(1))


def shift(x: float = 0.1e-6, y: float = 0.0) -> ShiftBeam:
    return ShiftBeam(one(x, y))


def stage(x: float = 1e-6, y: float = 0.0, z: float = 0.0, tilt: float = 0.0) -> MoveStage:
    return MoveStage(one(x, y, z), one(tilt, 0.0))


def tune(*values: float) -> SetAberrations:
    return SetAberrations(("C10", "C12a"), one(*(values or (1e-8, 0.0))))


BLANK, ROUTINE, INSPECT = BlankBeam(True), AutoTune("coarse"), InspectLevels()


def costs(time: float = 0.0, dose: float = 0.0) -> list[np.ndarray]:
    return [np.array([time]), np.array([dose]), np.zeros(1), np.zeros(1)]


class Crash(BaseException):
    """The process ends here."""


class FakeClock:
    """Seconds that pass when they are told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Ambush:
    """Calls something from inside a call: a fault that comes while the gate waits for an answer."""

    def __init__(self) -> None:
        self.planned: dict[str, Callable[[], object]] = {}

    def spring(self, where: str) -> None:
        if (strike := self.planned.pop(where, None)) is not None:
            strike()


class FakeRecord(Ambush):
    """Keeps events. full: nothing more can be written; ``crash``: the kind of event in the middle of which the process ends."""

    def __init__(self) -> None:
        super().__init__()
        self.events: list[tuple[str, dict[str, Any], dict[str, np.ndarray]]] = []
        self.full, self.crash, self.error = False, "", ProbeGymError("the disk is full")

    def append(self, kind: str, payload: dict[str, Any], arrays: dict[str, np.ndarray] | None = None) -> int:
        self.spring(kind)
        if self.crash == kind:
            self.crash = ""
            raise Crash
        if self.full:
            raise self.error
        codec.dumps(payload)
        assert all(array.dtype.kind in "biufU" for array in (arrays or {}).values())
        self.events.append((kind, payload, dict(arrays or {})))
        return len(self.events) - 1

    def kinds(self) -> list[str]:
        return [kind for kind, _, _ in self.events]

    def last(self, kind: str) -> dict[str, Any]:
        return next(payload for k, payload, _ in reversed(self.events) if k == kind)


class FakeInstrument(Ambush):
    """A microscope. Switches make it lie and fail; ``doses`` is what places of the sample really had."""

    def __init__(self, told: dict[str, Any] | None = None) -> None:
        super().__init__()
        self.descriptor = capabilities.descriptor(told or description())
        self.controls = {"stage": np.zeros(3), "tilt": np.zeros(2), "shift": np.zeros(2), "aberrations": np.zeros(2)}
        self.ages = dict.fromkeys(self.controls, 0.0)
        self.lies: dict[str, np.ndarray | None] = {}  # control -> what it is read back as; None: not at all
        self.is_blanked, self.alive = True, True
        self.refuses_safe = self.denies_safe = self.refuses_ready = self.mute = self.bug = False
        self.moves = "well"  # stuck, overshoot
        self.written: list[Command] = []
        self.safes: list[bool] = []  # whether the safe state was reached
        self.doses: dict[tuple[int, int], float] = {}  # nm of the sample -> electrons per square Angstrom
        self.changes: dict[tuple[int, int], int] = {}
        self.frames = 0

    def execute(self, command: Command, seconds: float) -> Readings:
        self.spring("execute")
        if self.is_blanked and not isinstance(command, BlankBeam):
            raise Refused("in the safe state")
        self.written.append(command)
        self._expose(command)
        share = {"well": 1.0, "stuck": 0.0, "overshoot": 2.0}[self.moves]
        for argument, control in self.descriptor.capabilities[command.verb].reads_back.items():
            here = self.controls[control]
            self.controls[control] = here + share * (np.asarray(getattr(command, argument))[0] - here)
        return self.readings(command)

    def _expose(self, command: Command) -> None:
        if isinstance(command, PlaceProbe):
            place = np.round((command.position[0] + self.controls["stage"][:2] + self.controls["shift"]) * 1e9).astype(int)
            at = int(place[0]), int(place[1])
            self.doses[at] = self.doses.get(at, 0.0) + FLUX * float(command.dwell_time[0])
            self.changes[at] = self.changes.get(at, 0) + 1

    def readings(self, command: Command) -> Readings:
        self.frames += 1
        wanted = command.returns()
        values = {
            name: np.arange(np.prod(shape or (3,)), dtype=float).reshape(1, *(shape or (3,))) + self.frames % 1000
            for name, shape in wanted.items()
        }
        return Readings(values, *costs(0.1, FLUX * float(command.dwell_time[0]) if isinstance(command, PlaceProbe) else 0.0))

    def measured(self) -> dict[str, Measured]:
        self.spring("measured")
        self._answer()
        told = self.controls | self.lies
        return {name: Measured(np.array([values]), self.ages[name]) for name, values in told.items() if values is not None}

    def ready(self, seconds: float) -> None:
        self.is_blanked = False
        self.spring("ready")
        self._answer()
        if self.refuses_ready:
            raise InstrumentFault("the valve stays closed")

    def safe(self, seconds: float) -> None:
        self.spring("safe")
        self.safes.append(not self.refuses_safe)
        if self.refuses_safe:
            raise InstrumentFault("the blanker does not answer")
        if not self.denies_safe:
            self.is_blanked = True

    def is_safe(self) -> bool:
        self.spring("is_safe")
        self._answer()
        return self.is_blanked

    def _answer(self) -> None:
        if self.bug:
            raise KeyError("a driver's own mistake")
        if self.mute:
            raise InstrumentFault("no answer")

    def close(self) -> None:
        pass


class Bench:
    """A gate with everything around it fake, and the account of a sample in a folder."""

    def __init__(self, folder: Any, dose: float = 100.0, changes: int = 50, told: dict[str, Any] | None = None) -> None:
        self.clock, self.record, self.instrument = FakeClock(), FakeRecord(), FakeInstrument(told)
        self.path = folder / "sample.jsonl"
        self.ledger = Ledger.create(self.path, Budget(dose=dose, changes=changes, region=self.instrument.descriptor.region, instrument="fake"))
        self.number = 0
        self.start()

    def start(self) -> Gate:
        """A gate as after the start of the guard's process."""
        self.gate = Gate(self.instrument, self.ledger, self.record, self.clock, lambda: "123456")
        return self.gate

    def armed(self, **request: object) -> Bench:
        self.gate.ask(REQUEST | request)
        self.gate.arm("123456")
        assert self.gate.state is State.running
        self.clock.now += 10.0
        return self

    def admit(self, command: Command | object, action: object = 0) -> Any:
        """Ask for the next command; JSON is passed on as it is."""
        self.number += 1
        return self.gate.admit(
            self.number, self.clock.now, action, codec.command_to_json(command) if isinstance(command, Command) else command
        )

    def outcome(self, admission: Admission) -> Readings | ProbeGymError:
        """Send a command and take what comes back, as a guard's worker does."""
        try:
            return self.instrument.execute(admission.claim(self.clock.now), 1.0)
        except ProbeGymError as error:
            return error

    def do(self, command: Command, action: int = 0) -> Readings:
        """A command from its request to its readings."""
        admission = self.admit(command, action)
        assert isinstance(admission, Admission), "it waits for an operator"
        return self.gate.complete(admission, self.outcome(admission))


@pytest.fixture
def bench(tmp_path) -> Bench:
    return Bench(tmp_path)


@pytest.fixture
def armed(bench) -> Bench:
    return bench.armed()


def in_fault(bench: Bench, why: str) -> None:
    """Latched, and the instrument in its safe state."""
    assert bench.gate.state is State.fault and why in bench.gate.why, bench.gate.why
    assert bench.instrument.is_blanked and bench.gate.safe
    with refused("the gate is fault"):
        bench.admit(park())


def refused(why: str):
    """In one line, and in these words."""
    return pytest.raises(Refused, match=re.compile(rf"^[^\n]*{re.escape(why)}[^\n]*$"))


def edited(command: Command, path: str, value: object) -> dict:
    """The JSON of a command with one entry replaced; ``path`` ends in an argument or in its value or unit."""
    content = codec.command_to_json(command)
    *way, last = path.split("/")
    inner = content
    for name in way:
        inner = inner[name]
    inner[last] = value
    return content


def broken(verb: str, **changes: object) -> dict:
    told = description()
    told["capabilities"][verb] |= changes
    return told


def permitted(command: Command, shifted: np.ndarray, tilted: np.ndarray, since: float) -> bool:
    """The envelope of the fake instrument, written down a second time."""
    if isinstance(command, PlaceProbe):
        return command.position.shape == (1, 2) and bool((abs(command.position) <= 2e-6).all()) and 0 <= command.dwell_time.item() <= LONGEST
    if isinstance(command, AcquireImage):
        told = 0 < command.field_of_view <= WIDEST and 0 <= command.dwell_time <= 1e-3 and abs(command.defocus.item()) <= 1e-6
        return command.detector == "HAADF" and told and 0 <= command.shape[0] <= SIDE and 1 <= command.shape[1] <= SIDE
    if isinstance(command, ShiftBeam):
        far = abs(command.shift[0] - shifted)
        return bool((abs(command.shift) <= SHIFT).all() and (far <= STEP * (1 + 1e-6)).all() and (far <= RATE * since * (1 + 1e-6)).all())
    if isinstance(command, MoveStage):
        tilt = command.tilt[0]
        return bool((abs(command.position[0]) <= (STAGE, STAGE, 1e-5)).all() and (abs(tilt) <= 0.1).all() and (abs(tilt - tilted) <= 0.05 * (1 + 1e-6)).all())
    if isinstance(command, SetAberrations):
        return command.names == ("C10", "C12a") and bool((abs(command.values[0]) <= TUNING).all())
    return isinstance(command, BlankBeam | InspectLevels) or (isinstance(command, AutoTune) and command.routine == "coarse")
