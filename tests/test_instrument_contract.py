"""The contract that every driver keeps: twins in their processes, a record, our driver on our Nanonis controller, Nion's own stack; and its checks notice what breaks it."""

from __future__ import annotations

import dataclasses
import functools
import json
import threading
import time
from importlib import import_module
from typing import ClassVar

import numpy as np
import pytest

import probegym
from probegym import scenarios
from probegym.agents.registry import task_type
from probegym.envs.actions import sample_actions
from probegym.envs.episodes import build_world
from probegym.hardware_bridge import commands as language
from probegym.hardware_bridge.capabilities import Capability, Descriptor, Effect, Range
from probegym.hardware_bridge.commands import AcquireTopograph, DragTip, LocateAdatoms, Readings, SetBias
from probegym.hardware_bridge.deployment.world import ReplayedWorld
from probegym.hardware_bridge.instruments import InstrumentFault, Measured, contract, drivers, twin
from probegym.hardware_bridge.instruments.contract import BEAM, CHECKS, LONG, ContractBroken, Subject
from probegym.hardware_bridge.instruments.descriptions import describe
from probegym.hardware_bridge.instruments.drivers import Meant
from probegym.hardware_bridge.instruments.nanonis import driver, server
from probegym.hardware_bridge.instruments.nanonis.sample import Sample
from probegym.hardware_bridge.instruments.nanonis.twin import settings_of
from probegym.hardware_bridge.records.log import Recorder
from probegym.hardware_bridge.records.replay import RecordingWorld
from probegym.hardware_bridge.world import Refused
from tests.environments import CASES

ALL = [check.__name__ for check in CHECKS]
DARK = [check.__name__ for check in CHECKS if check not in BEAM]  # of an instrument that has no beam
QUICK = [check.__name__ for check in CHECKS if check not in (*BEAM, *LONG)]
TAKES = 6.0  # s of a long command
ON, HERE = np.ones(1, bool), np.zeros((1, 2))
ADATOMS = "probegym.hardware_bridge.twins.adatoms:AdatomTwin"


# ---- twins ----


class Watched:
    """A world that keeps the first command of each verb, and what it took."""

    def __init__(self, world):
        self.world, self.lanes, self.commands, self.time = world, 1, {}, {}

    def __getattr__(self, name):
        return getattr(self.world, name)

    def execute(self, command, where):
        readings = self.world.execute(command, where)
        if where.any() and command.verb not in self.commands:
            self.commands[command.verb], self.time[command.verb] = command, float(readings.time[0])
        return readings


def given(name: str, scenario: str, budget: int) -> Watched:
    """What an environment asks of its twin in some random actions."""
    kind = task_type(name)
    world = Watched(build_world(kind, scenarios.load(kind.family, scenario), 1, None))
    module, entry = probegym.ENVIRONMENTS[name].split(":")
    env = getattr(import_module(module), entry)(scenario=scenario, budget=budget, world=world)
    env.reset(seed=11)
    rng, over = np.random.default_rng(5), False
    while not over:
        _, _, terminated, truncated, _ = env.step(sample_actions(env.action_space, (), rng))
        over = terminated or truncated
    return world


MORE = {"probegym/AfmTuning-v0": (language.TestFeedback(np.array([1e-9]), 0.01, 400),)}
"""Commands that no environment gives."""


@pytest.mark.parametrize("name", CASES, ids=lambda name: name.split("/")[1])
def test_twins_keep_the_contract(name):
    case = next((case for case in CASES[name] if case.scenario == "bare"), CASES[name][0])
    world, kind = given(name, case.scenario, case.short), task_type(name)
    told = {"twin": kind.twin, "world": scenarios.load(kind.family, case.scenario).world, "key": 3}
    commands = (*world.commands.values(), *MORE.get(name, ()))
    longest = max(world.time, key=world.time.get)
    with twin.start(**told) as quick, twin.start(**told, pace=world.time[longest] / TAKES) as slow:
        subject = Subject(functools.partial(drivers.open_writer, quick.reached), commands)
        assert contract.kept(subject) == QUICK
        first = commands[:1] if "Afm" in name else ()  # no line without feedback
        paced = dataclasses.replace(subject, opened=functools.partial(drivers.open_writer, slow.reached), long=world.commands[longest], prepared=first)
        for check in LONG:
            check(paced)


# ---- a record ----

LOOK = LocateAdatoms((64, 64), 7e-9, 50e-9, HERE, 0.5, 50e-12, 1, True)
DRAG = DragTip(HERE, HERE + 0.5e-9, np.array([1e-2]), np.array([5e-8]), 5e-9, 512)


class Replayed:
    """A record as an instrument: it answers what was asked then, and refuses all else."""

    holder = ""

    def __init__(self, folder, name):
        if Replayed.holder:
            raise Refused(f"{Replayed.holder} holds the record")
        Replayed.holder = name
        self.world, self.armed, self.closed = ReplayedWorld(str(folder)), False, False
        self.descriptor = self.world.descriptor
        self.world.begin(np.array([3], np.uint64), ON)

    def execute(self, command, seconds):
        self._open()
        self.descriptor.check(command)
        if not self.armed:
            raise Refused("not armed")
        return self.world.execute(command, ON)

    def measured(self):
        self._open()
        return {}

    def ready(self, seconds):
        self._open()
        self.armed = True

    def safe(self, seconds):
        self.armed = False

    def is_safe(self):
        return not self.armed

    def close(self):
        Replayed.holder, self.closed = "", True

    def _open(self):
        if self.closed:
            raise InstrumentFault("it is closed")


def test_a_replay_keeps_what_of_the_contract_is_not_about_time(tmp_path):
    world = twin.build(ADATOMS, scenarios.load("adatom_manipulation", "steady-tip").world, 3)
    recorder = Recorder(tmp_path, {"instrument": describe(world).descriptor.model_dump(mode="json")})
    recorded = RecordingWorld(world, recorder)
    recorded.begin(np.array([3], np.uint64), ON)
    for command in (LOOK, LOOK, DRAG):  # what reads is read twice
        recorded.execute(command, ON)
    recorder.close()
    assert contract.kept(Subject(functools.partial(Replayed, recorder.folder), (LOOK, DRAG))) == QUICK


# ---- vendors' protocols ----


def test_our_driver_on_our_nanonis_controller_keeps_the_contract():
    world = scenarios.load("adatom_manipulation", "steady-tip").world
    table = settings_of(Sample(twin.build(ADATOMS, world, 3)), pace=50.0)
    commands = (
        LOOK, AcquireTopograph((32, 64), 5e-9, 1e-7, HERE, -1.0, 25e-12), DRAG, language.MoveTip(HERE + 1e-9, 1e-7), SetBias(np.array([-0.3])),
        language.SetTunnelling(np.array([2e-11]), np.array([3e-12]), np.array([2e-4])), language.Withdraw(), language.Approach(),
    )  # fmt: skip
    slow = dataclasses.replace(LOOK, speed=1e-9)
    with server.start(ADATOMS, world, key=3, pace=50.0, ports=(0, 0, 0), judged=False) as controller:
        told = {"driver": "nanonis", "ports": controller.ports, "settings": json.loads(json.dumps(table))}
        assert contract.kept(Subject(functools.partial(driver.writer, told), commands, long=slow)) == DARK


@pytest.mark.parametrize("device", ["usim", "twin"])
def test_nions_own_stack_keeps_the_contract(device):
    pytest.importorskip("nion.instrumentation")
    from probegym.hardware_bridge.instruments.nion import worker

    with worker.start(device, Meant(worker.STEM, scenarios.load("stem_tuning", "id").world)) as process:
        has = process.descriptor.capabilities
        names = has["SetAberrations"].names["names"]
        aberrations = 0.1 * np.array(has["SetAberrations"].ranges["values"].high)[None]
        shadow = language.AcquireRonchigram((42, 42), 0.05, np.array([30e-9]), HERE)
        commands = {
            "SetAberrations": language.SetAberrations(names, aberrations), "BlankBeam": language.BlankBeam(False), "AcquireRonchigram": shadow,
            "AcquireImage": language.AcquireImage("haadf", (64, 64), 1e-7, 1e-6, np.zeros(1)), "AcquireSpectrum": language.AcquireSpectrum("eels", HERE + 2e-8, 0.05),
            "ShiftBeam": language.ShiftBeam(HERE + 1e-8), "MoveStage": language.MoveStage(np.array([[1e-8, 0.0, 0.0]]), HERE),
        }  # fmt: skip
        long = dataclasses.replace(shadow, exposure_time=TAKES)
        given = tuple(commands[verb] for verb in commands if verb in has)
        subject = Subject(
            functools.partial(drivers.open_writer, process.reached), given, long=long, blanked=lambda instrument: instrument.measured()["blanker"].values[0] == 1.0
        )
        assert contract.kept(subject) == ALL


# ---- the checks notice ----

TOPOGRAPH, BIAS = AcquireTopograph((16, 16), 5e-9, 1e-7, HERE, 1.0, 5e-11), SetBias(np.array([0.5]))


class Fake:
    """A driver that keeps the contract, but for one thing."""

    held: ClassVar[dict[str, str]] = {}

    def __init__(self, flaw, name):
        if Fake.held.get("by") and flaw != "two writers":
            raise Refused("no" if flaw == "tells not who" else f"{Fake.held['by']} holds it")
        Fake.held["by"] = "" if flaw == "two writers" else name
        self.halts, self.turn = 0, threading.Lock()
        self.flaw, self.safely, self.stop, self.bias, self.frames, self.closed = flaw, True, threading.Event(), 0.0, 0, False
        here = Range(low=-1e-6, high=1e-6)
        image = {"field_of_view": Range(low=1e-9, high=1e-7), "speed": Range(low=1e-10, high=1e-6), "centre": here, "bias": Range(low=-2.0, high=2.0), "current": Range(low=0.0, high=1e-9)}
        looks = Capability(effect=Effect.reads, ranges=image, counts={"shape": (1, 64)}, readings={"verdict": (0, 1)}, may_lack=("verdict",))
        sets = Capability(effect=Effect.sets, ranges={"bias": Range(low=-2.0, high=2.0, tolerance=1e-6)}, reads_back={"bias": "bias"})
        more = {"Withdraw": Capability(effect=Effect.sets)} if flaw == "a verb more" else {}
        self.descriptor = Descriptor(name="fake", kind="stm", capabilities={"AcquireTopograph": looks, "SetBias": sets} | more, safe=("rest",))

    def execute(self, command, seconds):
        if self.closed and self.flaw != "answers when closed":
            raise KeyError("closed") if self.flaw == "an error of its own" else InstrumentFault("closed")
        if self.flaw != "checks nothing" and not (self.flaw == "takes NaN" and np.isnan(getattr(command, "speed", 0.0))):
            self.descriptor.check(command)
        if np.size(getattr(command, "bias", 0.0)) > 1 or len(getattr(command, "centre", HERE)) > 1:
            raise Refused("one lane")
        if self.safely and self.flaw != "works when safe":
            if self.flaw == "moves when refusing":
                self.bias += 1.0
            raise InstrumentFault("not armed") if self.flaw == "a fault for a refusal" else Refused("not armed")
        if isinstance(command, SetBias):
            self.bias = float(command.bias[0]) * (1.01 if self.flaw == "overshoots" else 1.0)
            return self._readings({}, 0.0)
        if not isinstance(command, AcquireTopograph):
            return self._readings({}, 0.0)
        if (takes := float(command.takes())) > 10:
            if self.flaw == "ends at once":
                return self._readings({}, 0.0)
            if self.stop.wait(min(takes, seconds) if self.flaw not in ("does not stop", "misses deadlines") else 6.0) and self.flaw != "says nothing":
                raise InstrumentFault("stopped")
            if self.flaw not in ("misses deadlines", "says nothing"):
                raise InstrumentFault("too late")
        self.frames += self.flaw != "frozen"
        height = np.random.default_rng(self.frames).random((1, *command.shape))
        height[0, 0, 0] = {"NaN": np.nan, "infinite": np.inf}.get(self.flaw, 0.0)
        told = {"height": height[..., None] if self.flaw == "another shape" else height, "verdict": np.array([np.nan if self.flaw != "a verdict of 3" else 3.0])}
        if self.flaw == "a reading less":
            del told["verdict"]
        return self._readings(told, takes * (2.0 if self.flaw == "takes longer" else 1.0))

    def _readings(self, values, time):
        return Readings(values, np.array([time]), np.array([-1.0 if self.flaw == "a negative dose" else 0.0]), np.zeros(1), np.zeros(1))

    def measured(self):
        if self.closed and self.flaw != "answers when closed":
            raise InstrumentFault("closed")
        read = {"bias": Measured(np.array([np.nan if self.flaw == "reads NaN" else self.bias]), 60.0 if self.flaw == "reads old" else 0.0)}
        return {} if self.flaw == "reads nothing back" else read

    def ready(self, seconds):
        if self.closed and self.flaw != "answers when closed":
            raise InstrumentFault("closed")
        halts = self.halts
        time.sleep(0.05)  # it takes its time
        with self.turn:
            if halts != self.halts and self.flaw != "ready undoes safe":
                raise ZeroDivisionError if self.flaw == "ready fails oddly" else Refused("it was made safe meanwhile")
            self.safely = self.flaw == "never ready"
            self.stop.clear()

    def safe(self, seconds):
        if self.flaw not in ("does not stop", "misses deadlines"):
            self.stop.set()
        with self.turn:
            self.halts += 1
            self.safely = True
        if self.flaw == "safe only once" and Fake.held.setdefault("safe", "") == "yes":
            raise InstrumentFault("safe already")
        Fake.held["safe"] = "yes"

    def is_safe(self):
        return self.safely and self.flaw != "unconfirmed"

    def close(self):
        self.closed = True
        if self.flaw != "never freed":
            Fake.held["by"] = ""


FLAWS = {
    "a verb more": "describes_itself", "reads nothing back": "reads_its_controls_back", "reads NaN": "reads_its_controls_back", "reads old": "reads_its_controls_back",
    "unconfirmed": "describes_itself", "safe only once": "describes_itself|reads_its_controls_back", "works when safe": "passes_nothing_when_safe",
    "ready undoes safe": "stays_safe_while_getting_ready", "ready fails oddly": "stays_safe_while_getting_ready.*ZeroDivisionError",
    "moves when refusing": "passes_nothing_when_safe", "a fault for a refusal": "passes_nothing_when_safe", "never ready": "passes_nothing_when_safe",
    "frozen": "reads_what_it_promised", "NaN": "reads_what_it_promised", "infinite": "reads_what_it_promised", "another shape": "reads_what_it_promised",
    "a verdict of 3": "reads_what_it_promised", "a reading less": "reads_what_it_promised", "takes longer": "reads_what_it_promised",
    "a negative dose": "reads_what_it_promised", "overshoots": "sets_what_it_was_told", "checks nothing": "refuses_what_is_outside", "takes NaN": "refuses_what_is_outside",
    "two writers": "has_one_writer", "tells not who": "has_one_writer", "never freed": "reads_its_controls_back", "answers when closed": "fails_when_closed",
    "an error of its own": "fails_when_closed", "does not stop": "stops_at_once", "ends at once": "stops_at_once", "says nothing": "stops_at_once",
    "misses deadlines": "stops_at_once|keeps_deadlines",
}  # fmt: skip


def faked(flaw: str) -> Subject:
    return Subject(functools.partial(Fake, flaw), (TOPOGRAPH, BIAS), long=dataclasses.replace(TOPOGRAPH, speed=1e-8))


@pytest.fixture(autouse=True)
def shortly(monkeypatch):
    Fake.held.clear()
    Replayed.holder = ""


def test_a_driver_without_a_flaw_keeps_the_contract():
    assert contract.kept(faked("")) == DARK


@pytest.mark.parametrize("flaw", FLAWS)
def test_every_flaw_is_noticed_by_its_check(flaw, monkeypatch):
    monkeypatch.setattr(contract, "FREED_SECONDS", 0.3)
    monkeypatch.setattr(contract, "SLACK_SECONDS", 0.5)
    with pytest.raises(ContractBroken, match=FLAWS[flaw]) as caught:
        contract.kept(faked(flaw))
    assert "\n" not in str(caught.value)


class Beam(Fake):
    """The same with an electron beam, which some leave on; ``flaw``: after what."""

    on = False  # of the instrument, whoever drives it

    def __init__(self, flaw, name):
        super().__init__("", name)
        self.leaves = flaw
        blank = {"BlankBeam": Capability(effect=Effect.sets)}
        self.descriptor = self.descriptor.model_copy(update={"capabilities": self.descriptor.capabilities | blank})

    def execute(self, command, seconds):
        Beam.on = isinstance(command, AcquireTopograph)
        try:
            readings = super().execute(command, seconds)
        except InstrumentFault:
            Beam.on = self.leaves == "a failure"
            raise
        Beam.on = self.leaves == command.verb
        return readings

    def ready(self, seconds):
        super().ready(seconds)
        Beam.on = self.leaves == "ready"

    def safe(self, seconds):
        super().safe(seconds)
        Beam.on = False


@pytest.mark.parametrize("flaw", ["", "ready", "BlankBeam", "AcquireTopograph", "a failure"])
def test_a_beam_that_stays_on_is_noticed(flaw):
    commands = (language.BlankBeam(False), TOPOGRAPH, BIAS)
    subject = dataclasses.replace(faked(""), opened=functools.partial(Beam, flaw), commands=commands, blanked=lambda instrument: not instrument.on)
    if not flaw:
        assert contract.kept(subject) == ALL
        return
    with pytest.raises(ContractBroken, match="stands_blanked: the beam is on the sample after"):
        contract.kept(subject)
    assert contract.kept(dataclasses.replace(subject, blanked=None)) == DARK, "who cannot tell where the beam is leaves that check out"
