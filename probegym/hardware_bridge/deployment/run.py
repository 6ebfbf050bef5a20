"""Deployment: starts instrument, guard and session in their processes, and gives the operator's side of it.

In the order of trust: ``replay`` answers from a record; ``twin`` arms by itself; ``shadow`` sees live data and has no way to write;
``supervised`` asks an operator before actions; ``autonomous`` goes on alone within the lease.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from probegym import scenarios
from probegym.envs import environment_type
from probegym.envs.task import Task
from probegym.errors import ProbeGymError
from probegym.hardware_bridge import codec
from probegym.hardware_bridge.capabilities import Descriptor, descriptor
from probegym.hardware_bridge.channel import Channel, Late, ended
from probegym.hardware_bridge.codec import Json
from probegym.hardware_bridge.commands import Command, Readings
from probegym.hardware_bridge.deployment import Mode, session
from probegym.hardware_bridge.deployment.bundle import Bundle, read
from probegym.hardware_bridge.guard import process as guard
from probegym.hardware_bridge.guard.ledger import Budget, Ledger
from probegym.hardware_bridge.guard.operator import Operator
from probegym.hardware_bridge.instruments import drivers, twin
from probegym.hardware_bridge.records.read import Record
from probegym.hardware_bridge.records.steps import about
from probegym.hardware_bridge.world import World
from probegym.scenarios import Scenario

PATIENCE_SECONDS = 60.0  # of a shadow for the next frame
READY_SECONDS = 120.0  # for a session to build its environment and try its policy
EVERY_ACTION = 10**9
WITHOUT_LIMIT = {"seconds": 1e12, "changes": 10**9, "dose": 1e18, "changes_each": 10**9, "damage": 1e9}
"""Limits of ``Orders`` that no run reaches."""


@dataclass(frozen=True)
class Orders:
    """What is deployed, and within which limits.

    policy: folder of a bundle. deadline: s for each decision. pace: simulated seconds a second of a twin, 0 for as fast as it
    can. seconds, changes: of the run. dose, changes_each: budget of each region of a new sample. approvals: first actions that an
    operator must agree to. sample: path of the sample's account; new_sample: whether it is to be made. record: to be replayed. damage:
    events that the instrument may tell of before the run is held.
    instrument: as ``drivers.reach`` takes it.
    """

    env_id: str
    scenario: str
    policy: Path
    mode: Mode
    runs: Path
    sample: Path
    episodes: int = 1
    seed: int = 10_000_000
    deadline: float = 0.25
    pace: float = 0.0
    seconds: float = 3600.0
    changes: int = 1000
    dose: float = 1e9
    changes_each: int = 1000
    approvals: int = EVERY_ACTION
    record: Path | None = None
    instrument: str = "twin"
    new_sample: bool = False
    damage: float = 0.0
    name: str = "probegym deploy"


Played = tuple[subprocess.Popen[bytes], Channel]


def _meant(orders: Orders) -> tuple[type[Task], Scenario]:
    task = environment_type(orders.env_id).task_type
    return task, scenarios.load(task.family, orders.scenario)


def checked(orders: Orders) -> Bundle:
    """The verified policy, which fits the environment and scenario, as record or instrument do; raises ProbeGymError. Nothing is started."""
    bundle, (task, scenario) = read(orders.policy), _meant(orders)
    bundle.fits(task(scenario.task), orders.env_id)
    if (orders.mode is Mode.replay) != (orders.record is not None):
        raise ProbeGymError("mode replay needs a record, and no other mode takes one: give --record with --mode replay")
    if orders.record is not None:
        _recorded_seed(orders, orders.record)
    else:
        drivers.check(orders.instrument, _asked(orders))
    return bundle


def _asked(orders: Orders) -> drivers.Meant:
    """What the instrument is to be."""
    task, scenario = _meant(orders)
    return drivers.Meant(task.twin, scenario.world, orders.pace, judged=orders.mode is Mode.twin)


def _recorded_seed(orders: Orders, folder: Path) -> int:
    """Of the recorded episode. Raises ProbeGymError for a record of another environment or scenario."""
    told = about(Record(folder))
    if (told["environment"], told["scenario"]) != (orders.env_id, orders.scenario):
        raise ProbeGymError(f"record {folder} is of {told['environment']}, scenario {told['scenario']}: replay it with these")
    if "seed" not in told:
        raise ProbeGymError(f"record {folder} tells no seed of an episode: it cannot be replayed by a policy")
    return int(told["seed"])


def described(orders: Orders) -> Descriptor:
    """The twin of the scenario as an instrument, without starting it."""
    from probegym.hardware_bridge.instruments.descriptions import describe

    task, scenario = _meant(orders)
    return describe(twin.build(task.twin, scenario.world, 0)).descriptor


def budgeted(orders: Orders) -> Budget:
    """What each region of the sample may take: as its account says, or as a new one will."""
    if orders.new_sample:
        return Budget(dose=orders.dose, changes=orders.changes_each)
    account = Ledger(orders.sample)
    account.close()
    return account.budget


class Deployment:
    """The processes of one deployment; a context manager. Leaving it takes the instrument to its safe state."""

    def __init__(self, orders: Orders):
        self.orders, self.bundle = orders, checked(orders)
        self.instrument: drivers.Reached | None = None
        self.guard: guard.GuardProcess | None = None
        self.operator: Operator | None = None
        self.played: Played | None = None
        self.worker: Played | None = None  # who works with the instrument that a shadow looks at
        self.record, self.descriptor = "", Json()
        self.desk: Path | None = None  # where other terminals of this user learn how the guard is reached

    def __enter__(self) -> Deployment:
        """Start everything up to the session, whose policy has then been tried; nothing is armed."""
        try:
            if self.orders.mode is not Mode.replay:
                self._start()
            self._prepare()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _start(self) -> None:
        o = self.orders
        self.instrument = drivers.reach(o.instrument, _asked(o))
        if o.mode is Mode.shadow and o.instrument not in drivers.STARTED:
            return  # somebody else works with it, behind a guard of their own
        o.runs.mkdir(parents=True, exist_ok=True)
        manifest = {"environment": o.env_id, "scenario": o.scenario, "policy": self.bundle.name, "sha256": self.bundle.digest, "mode": str(o.mode)}
        budget = {"dose": o.dose, "changes": o.changes_each} if o.new_sample else None
        self.guard = guard.start(drivers.only(self.instrument.reached, "writer", "safety"), str(o.sample), str(o.runs), o.name, manifest, budget)
        self.operator, self.record, self.descriptor = Operator(self.guard.operator), self.guard.record, self.guard.descriptor
        if o.mode is not Mode.twin:  # an operator is asked about what the descriptor is known to allow
            opening(o, descriptor(self.descriptor))
        desk = o.runs / f"{Path(self.record).name}-operator.json"
        drivers.write(desk, self.guard.reached["operator"])
        self.desk = desk

    def request(self) -> Json:
        """What arming asks the operator for."""
        o = self.orders
        approvals = o.approvals if o.mode is Mode.supervised else 0
        policy = f"{self.bundle.name}, sha256 {self.bundle.digest[:16]}"
        return {"environment": o.env_id, "scenario": o.scenario, "policy": policy, "seconds": o.seconds, "changes": o.changes, "damage": o.damage, "approvals": approvals}

    def _prepare(self) -> None:
        o = self.orders
        plan = session.Plan(o.env_id, o.scenario, str(o.policy.absolute()), o.episodes, o.seed if o.record is None else _recorded_seed(o, o.record), o.deadline, self._world())
        self.played = session.start(plan)
        _ready(self.played)
        if o.mode is Mode.shadow and self.guard:  # somebody must work with a twin for its shadow to see anything: the same policy does
            self.worker = session.start(replace(plan, world={"guard": self._entrance()}))
            _ready(self.worker)

    def abort(self, why: str) -> bool:
        """Safe state at once, over a connection of its own if it can be had; returns whether it is confirmed. Raises ProbeGymError when the guard does not answer."""
        assert self.guard
        try:
            operator = Operator.connect(self.guard.reached["operator"])  # the first may be in the middle of a question
        except ProbeGymError:
            operator = Operator(self.guard.operator)
        if operator.status()["state"] in ("running", "held", "fault"):
            operator.abort(why)
        else:
            operator.disarm(why)  # nothing was armed: no fault that outlives this run
        return operator.status()["safe"] is True

    def play(self, poll: float = 0.1) -> Iterator[Json]:
        """Let the session go and give its news as they come: steps, episodes, at last ``done`` or ``stopped``; {} when there are none for ``poll`` s."""
        assert self.played
        process, channel = self.played
        if self.worker:
            assert self.operator
            self.operator.arm(self.operator.ask(self.request())["nonce"])
            self.worker[1].send({"go": True})
        channel.send({"go": True})
        while True:
            try:
                news, _ = channel.receive(poll)
            except Late:
                yield {}
                continue
            except ProbeGymError:
                yield {"stopped": "the session has gone"}
                return
            yield news
            if "done" in news or "stopped" in news:
                process.wait(5.0)
                return

    def _world(self) -> Json:
        if self.orders.record is not None:
            return {"record": str(self.orders.record)}
        assert self.instrument
        if self.orders.mode is Mode.shadow:
            return {"observe": drivers.only(self.instrument.reached, "observer"), "runs": str(self.orders.runs), "patience": PATIENCE_SECONDS}
        assert self.guard
        return {"guard": self._entrance()} | ({"judge": drivers.only(self.instrument.reached, "judge")} if self.orders.mode is Mode.twin else {})

    def _entrance(self) -> Json:
        """Of the guard for a session, which must not be able to agree to its own commands."""
        assert self.guard
        return {role: self.guard.reached[role] for role in ("session", "pulse")}

    def close(self) -> None:
        """End everything, the instrument last; its safe state comes first."""
        if self.guard:
            with suppress(ProbeGymError):
                Operator(self.guard.operator).disarm("the deployment ends")
        for process, channel in filter(None, (self.played, self.worker)):
            channel.close()
            ended(process)
        if self.guard:
            if self.desk:
                self.desk.unlink(missing_ok=True)
            try:
                Operator(self.guard.operator).quit()
            except ProbeGymError:
                pass  # it has gone, and its guardian has seen to the safe state
            ended(self.guard.process)
        if self.instrument:
            self.instrument.close()
        self.played = self.worker = self.guard = self.instrument = None


def _ready(played: Played) -> None:
    """Wait until a session can begin; raises ProbeGymError with its reason when it cannot."""
    news, _ = played[1].receive(READY_SECONDS)
    if "ready" not in news:
        raise ProbeGymError(str(news.get("stopped")))


def agreement(shadow: Path, worked: Path) -> tuple[int, int]:
    """How many of the commands that a shadow would have given were given, of how many, in the order of each verb."""
    would, given = (_commands(folder, kind) for folder, kind in ((shadow, "would"), (worked, "intent")))
    same = total = 0
    for verb, commands in would.items():
        total += len(commands)
        same += sum(_alike(one, other) for one, other in zip(commands, given.get(verb, []), strict=False))
    return same, total


def _commands(folder: Path, kind: str) -> dict[str, list[Command]]:
    found: dict[str, list[Command]] = {}
    for event in Record(folder):
        if event.kind == kind:
            command = codec.command_from_json(event.payload.get("command"))
            found.setdefault(command.verb, []).append(command)
    return found


def _alike(one: Command, other: Command) -> bool:
    pairs = zip(one.arguments().values(), other.arguments().values(), strict=True)
    return all(np.allclose(a, b, rtol=1e-5, atol=0) if a.dtype.kind == "f" else np.array_equal(a, b) for a, b in pairs)


class _Rehearsal:
    """A twin that keeps the commands that it was given."""

    def __init__(self, world: World):
        self.world, self.commands = world, list[Command]()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.world, name)

    def execute(self, command: Command, where: np.ndarray) -> Readings:
        if where[0]:
            self.commands.append(command)
        return self.world.execute(command, where)


def opening(orders: Orders, descriptor: Descriptor) -> list[Json]:
    """The first commands of an episode, as the twin is given them, each with its worst case, checked against the descriptor. Raises Refused."""
    task, scenario = _meant(orders)
    rehearsal = _Rehearsal(twin.build(task.twin, scenario.world, 0))
    env = gym.make(orders.env_id, scenario=orders.scenario, world=rehearsal, disable_env_checker=True)
    env.reset(seed=orders.seed)
    told = []
    for command in rehearsal.commands:
        descriptor.check(command)
        charge = descriptor.worst_case(command)
        told.append({"command": command, "seconds": charge.seconds, "dose": charge.dose, "changes": charge.changes})
    return told
