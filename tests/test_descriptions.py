"""Every twin as an instrument: what its description allows, foresees and reads is what the twin does."""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass, field, replace
from importlib import import_module

import numpy as np
import pytest

import probegym
from probegym.agents.base import OutOfBudget, RandomAgent, Script
from probegym.agents.bundle import BundlePolicy, shipped
from probegym.agents.registry import BASELINES, task_type
from probegym.envs.actions import sample_actions
from probegym.envs.episodes import build_world
from probegym.errors import ProbeGymError
from probegym.hardware_bridge import codec, commands
from probegym.hardware_bridge.capabilities import Capability, descriptor
from probegym.hardware_bridge.commands import Command, InspectLevels, Readings
from probegym.hardware_bridge.guard import checks
from probegym.hardware_bridge.instruments import Measured
from probegym.hardware_bridge.instruments.descriptions import DESCRIBED, SAFE_STEPS, describe, limits, vocabulary
from probegym.hardware_bridge.instruments.descriptions.base import highest
from probegym.hardware_bridge.world import Refused
from probegym.scenarios import load
from probegym.scenarios.distributions import Distribution
from tests.environments import CASES
from tests.helpers import ROOT

ON = np.ones(1, bool)

PLAYED = {
    "probegym/StemTuning-v0": {"beacon-train": 4, "far-dose": 8},
    "probegym/AfmTuning-v0": {"far-tip": 5},
    "probegym/TipConditioning-v0": {"far-noise": 6},
    "probegym/LevelSelection-v0": {"tiny": 5, "far-transfer": 5},
    "probegym/SpectrumExploration-v0": {"locate-loops": 8, "locate-patterns": 8, "locate-recorded": 8},
    "probegym/BeamManipulation-v0": {"published": 6, "far-damage": 6},
    "probegym/AdatomManipulation-v0": {"far-surface": 4},
    "probegym/IsingInference-v0": {"far-conserved": 6, "far-couplings": 5},
}
"""Scenarios beside those of the cases, each with a budget of measurements."""

SCENES = [(name, case.scenario, min(case.short, 8)) for name, cases in CASES.items() for case in cases]
SCENES += [(name, scenario, budget) for name, more in PLAYED.items() for scenario, budget in more.items()]
ALL = pytest.mark.parametrize("scene", SCENES, ids=[f"{name.split('/')[1]}-{scenario}" for name, scenario, _ in SCENES])


UNSEEING = ("image",)
"""Scenarios that show nothing a baseline can read, and for which no policy ships."""


@dataclass
class Watched:
    """A world of one lane that passes everything on and keeps the commands that were carried out, with their readings."""

    twin: object
    lanes: int = 1
    passed: list[tuple[Command, Readings]] = field(default_factory=list)

    def __getattr__(self, name: str):
        return getattr(self.twin, name)

    def execute(self, command: Command, where: np.ndarray) -> Readings:
        readings = self.twin.execute(command, where)
        if where.any():
            self.passed.append((command, readings))
        return readings


def twin_of(name: str, scenario: str):
    task = task_type(name)
    return build_world(task, load(task.family, scenario), 1, None)


def practised(name: str, scenario: str):
    """A shipped policy that fits a scenario, or else the first baseline."""
    kind = task_type(name)
    for folder in shipped().values():
        if json.loads((folder / "policy.json").read_text())["environment"] == name:
            policy = BundlePolicy(folder)
            try:
                policy.bundle.fits(kind(load(kind.family, scenario).task))
            except ProbeGymError:
                continue
            return policy
    return RandomAgent() if scenario in UNSEEING else next(iter(BASELINES[kind.family].values()))()


@functools.cache
def played(name: str, scenario: str, budget: int) -> Watched:
    """Two episodes of a scenario on its twin, of random actions and of an agent that ships."""
    world = Watched(twin_of(name, scenario))
    module, entry = probegym.ENVIRONMENTS[name].split(":")
    env = getattr(import_module(module), entry)(scenario=scenario, budget=budget, world=world)
    rng, over = np.random.default_rng(5), False
    env.reset(seed=11)
    while not over:
        _, _, terminated, truncated, _ = env.step(sample_actions(env.action_space, (), rng))
        over = terminated or truncated
    agent, over = practised(name, scenario), False

    def step(action):
        nonlocal over
        if over:
            raise OutOfBudget
        observation, _, terminated, truncated, _ = env.step(np.asarray(action))
        over = terminated or truncated
        return observation

    seen, _ = env.reset(seed=12)
    if isinstance(agent, Script):
        try:
            agent.run(step, env, seen, 12)
        except OutOfBudget:
            pass
        return world
    agent.begin(1, 12)
    while not over:
        seen = step(agent.act({key: array[None] for key, array in seen.items()}, env.episodes)[0])
    return world


@ALL
def test_what_a_twin_does_is_allowed_and_fits_its_limits_on_steps(scene):
    world = played(*scene)
    told = describe(world.twin)
    assert len(world.passed) > 3
    stand = {name: Measured(values, 0.0) for name, values in told.rest.items()}
    for command, _ in world.passed:
        capability = told.descriptor.check(command)
        checks.in_rate(command, capability, stand, lambda control: 1.0)
        stand |= {back: Measured(np.asarray(getattr(command, name)), 0.0) for name, back in capability.reads_back.items()}
        assert checks.landed(command, capability, stand) is None


@ALL
def test_readings_are_what_the_command_says_and_plausible(scene):
    world, seen = played(*scene), {}
    capabilities = describe(world.twin).descriptor.capabilities
    for command, readings in world.passed:
        assert set(readings.values) == set(command.returns()), command.verb
        assert checks.implausible(command, readings, capabilities[command.verb], seen) is None


LOOSE = ("SetConditions", "MeasureLevel", "AcquireSpectrum")  # what they take depends on where holder, sample or probe are, which a command does not say


IRREVERSIBLE = ("PlaceProbe", "PulseBias", "DipTip", "DragTip", "SetConditions")


@ALL
def test_no_command_takes_more_than_its_worst_case(scene):
    world = played(*scene)
    told = describe(world.twin).descriptor
    for command, readings in world.passed:
        worst, time = told.worst_case(command), float(readings.time[0])
        assert time <= worst.seconds * (1 + 1e-9), command.verb
        assert readings.dose[0] <= worst.dose * (1 + 1e-9), command.verb
        assert worst.changes == (command.verb in IRREVERSIBLE)
        assert command.verb in LOOSE or worst.seconds <= 3 * time, f"{command.verb}: {worst.seconds} s for {time} s"


@ALL
def test_commands_come_back_from_json_bit_by_bit(scene):
    for command, _ in played(*scene).passed:
        back = codec.command_from_json(codec.loads(codec.dumps(codec.command_to_json(command))))
        assert type(back) is type(command)
        for name, value in command.arguments().items():
            same = back.arguments()[name]
            assert (same.dtype.kind, same.shape, same.tobytes()) == (value.dtype.kind, value.shape, value.astype(same.dtype).tobytes()), name


def test_the_highest_draw_bounds_every_draw():
    keys = np.arange(4000, dtype=np.uint64)
    for told, most in (({"uniform": (-2.0, 3.0)}, 3.0), ({"log_uniform": (0.1, 4.0)}, 4.0), ({"choice": (1.0, 7.0, 2.0)}, 7.0), ({"normal": (0.0, 1.0)}, 5.0)):
        drawn = Distribution(**told)
        assert highest(drawn, 5.0 if "normal" in told else 100.0) == most
        assert 0.9 * min(most, 3.0) < drawn.sample(keys, "any").max() <= most * (1 + 1e-12)
    assert highest(Distribution(uniform=(0.0, 9.0)), 5.0) == 5.0  # the twin refuses the rest


def test_what_stays_the_same_may_be_read_twice():
    for scene, command in (
        (("probegym/LevelSelection-v0", "train", 5), InspectLevels()),
        (("probegym/IsingInference-v0", "train", 5), commands.ClassifyAtoms("haadf", (64, 64), np.full((1, 2), 31.5 * 0.3e-9), np.full(1, 1e3))),
    ):
        twin = played(*scene).twin
        capability, seen = describe(twin).descriptor.check(command), {}
        if "temperature" in twin.state:
            twin.execute(commands.SetConditions(np.full(1, 80.0), np.zeros(1), np.zeros(1)), ON)
        told = [twin.execute(command, ON) for _ in range(2)]
        assert all(checks.implausible(command, readings, capability, seen) is None for readings in told)
        strict, seen = capability.model_copy(update={"may_repeat": ()}), {}
        first, second = (checks.implausible(command, readings, strict, seen) for readings in told)
        assert first is None and "the same to the last bit" in second


# ---- limits ----

OPEN = {
    "AcquireImage": {"shape", "field_of_view", "dwell_time", "defocus"},
    "AcquireRonchigram": {"exposure_time", "defocus", "film_shift"},
    "AcquireSpectrum": {"exposure_time"},
    "LocateAtoms": {"dwell_time low"},
    "ClassifyAtoms": {"dwell_time low"},
    "AcquireTopograph": {"field_of_view low", "speed", "bias", "current"},
    "LocateAdatoms": {"field_of_view low", "speed", "bias", "current"},
    "PulseBias": {"position", "duration"},
    "DipTip": {"position", "depth low", "bias", "duration"},
    "DragTip": {"current low"},
    "SetFeedback": {"proportional high", "integral high", "setpoint", "drive"},
    "ScanLine": {"line_rate"},
    "TestFeedback": {"relay", "duration low"},
}
"""Verb -> arguments for which its twin has no limit of its own, or none but zero."""
CLOSED = {"spectra twin": {"shape", "field_of_view", "defocus"}}
"""Twin -> arguments that it limits, as others with that verb do not."""

ASIDE = {"ClassifyAtoms": {"shape": (1, 1), "centre": np.full((1, 2), 31.5 * 0.3e-9)}, "LocateAtoms": {"image": False}, "LocateAdatoms": {"image": False}, "DragTip": {"bias": np.ones(1)}}
"""What keeps a combined limit out of the way: a region that leaves its lattice, an image of a large view, a current above what its bias allows."""


@dataclass(frozen=True)
class Edge:
    """One end of one limit: a command that stands on it, and one that is 1 % beyond, or one where it is a number of things."""

    label: str
    on: Command
    beyond: Command


def moved(command: Command, name: str, value: float, component: int | None) -> Command:
    """A command with another number in one argument."""
    before = getattr(command, name)
    if not isinstance(before, np.ndarray):
        return replace(command, **{name: value})
    after = before.copy()
    after[(..., component) if component is not None else ...] = value
    changed = replace(command, **{name: after})
    return replace(changed, end=after.copy(), start=after.copy()) if name in ("start", "end") else changed  # a drag may not be long


def edges(command: Command, capability: Capability) -> list[Edge]:
    found = []
    for name, allowed in capability.ranges.items():
        parts = [(None, allowed.low, allowed.high)]
        if isinstance(allowed.low, tuple):
            parts = [(k, *ends) for k, ends in enumerate(zip(allowed.low, allowed.high, strict=True))]
        for component, low, high in parts:
            for side, end, other, sign in (("low", low, high, -1), ("high", high, low, 1)):
                far = end + sign * 0.01 * (abs(end) or abs(other) or 1e-9)
                found.append(Edge(f"{name} {side}", moved(command, name, end, component), moved(command, name, far, component)))
    for name, (low, high) in capability.counts.items():
        before = getattr(command, name)
        for side, end, far in (("low", low, low - 1), ("high", high, high + max(1, high // 100))):
            for k in range(len(before)) if isinstance(before, tuple) else (None,):
                on, beyond = (n if k is None else (*before[:k], n, *before[k + 1 :]) for n in (end, far))
                found.append(Edge(f"{name} {side}", replace(command, **{name: on}), replace(command, **{name: beyond})))
    return found


def bases(world: Watched) -> dict[str, Command]:
    """A command of each verb that the twin has carried out."""
    found = {command.verb: command for command, _ in world.passed}
    if "ScanLine" in found:
        found["TestFeedback"] = commands.TestFeedback(np.full(1, 1e-9), 0.01, 64)
    if "DragTip" in found:
        found["PulseBias"] = commands.PulseBias(np.full((1, 2), 2e-8), np.full(1, 3.0), 0.1)
        found["DipTip"] = commands.DipTip(np.full((1, 2), 2e-8), np.full(1, 1e-9), 0.1, 0.1)
    return {verb: replace(command, **ASIDE.get(verb, {})) for verb, command in found.items()}



@ALL
def test_the_description_ends_where_the_twin_does(scene):
    world = played(*scene)
    told = describe(world.twin).descriptor
    met = bases(world)
    assert set(met) == set(told.capabilities)
    closed = next((names for twin, names in CLOSED.items() if told.name.startswith(twin)), set())
    for verb, command in met.items():
        for edge in edges(command, told.capabilities[verb]):
            told.check(edge.on)
            with pytest.raises(Refused):
                told.check(edge.beyond)
            name = edge.label.split()[0]
            if not {name, edge.label} & (OPEN.get(verb, set()) - closed):
                world.twin.execute(edge.on, ON)
                with pytest.raises(Refused):
                    world.twin.execute(edge.beyond, ON)


@ALL
def test_a_name_that_there_is_not_is_refused(scene):
    world = played(*scene)
    told = describe(world.twin).descriptor
    for verb, command in bases(world).items():
        for name in told.capabilities[verb].names:
            other = ("bogus",) if isinstance(getattr(command, name), tuple) else "bogus"
            asked = replace(command, **{name: other})
            with pytest.raises(Refused):
                told.check(asked)
            with pytest.raises(ProbeGymError):
                world.twin.execute(asked, ON)


# ---- the whole ----


@ALL
def test_a_description_is_complete_and_survives_json(scene):
    told = describe(played(*scene).twin)
    d = told.descriptor
    assert descriptor(json.loads(json.dumps(d.model_dump(mode="json"), allow_nan=False))) == d
    assert d.safe == SAFE_STEPS[d.kind]
    assert set(told.rest) == {back for c in d.capabilities.values() for back in c.reads_back.values()}
    assert not any(c.approval for c in d.capabilities.values())


@ALL
def test_all_that_a_command_touches_is_counted(scene):
    world = played(*scene)
    d = describe(world.twin).descriptor
    if not whole(world.twin):
        d = d.model_copy(update={"region": 2e-9})  # small squares, so that none is hit by chance
    for command, _ in world.passed:
        squares = checks.regions(command, d, checks.Site(np.zeros(2), np.zeros(2)))
        for corner in extent(command, world.twin):
            assert tuple(np.floor(corner / d.region).astype(int)) in squares, (command.verb, corner)


def whole(twin) -> float:
    """Width in m of what is counted as one square; 0 where squares are smaller than the sample."""
    return twin.source.field_of_view if hasattr(twin, "source") else getattr(twin.config, "view", 0.0)


def extent(command: Command, twin) -> np.ndarray:
    """Two corners (2, 2) in m of what the command touches on the sample, as the twin knows them."""
    if whole(twin) or command.verb == "SetConditions":
        return np.array([[0.01], [0.99]]) * np.full(2, whole(twin) or twin.config.rows * twin.config.spacing)
    rows, columns = getattr(command, "shape", (1, 1))
    half = 0.5 * getattr(command, "field_of_view", 0.0) * np.array([1.0, rows / columns])
    if command.verb == "ClassifyAtoms":
        half = 0.49 * twin.config.spacing * np.array([columns, rows])
    if command.verb == "AcquireRonchigram":  # the shadow of a probe as far from focus as a command can bring it
        half = np.full(2, twin.config.ronchigram.semiangle_cutoff * limits.DEFOCUS[1])
    if command.verb in ("PulseBias", "DipTip"):
        half = np.full(2, max((twin.config.pulses if command.verb == "PulseBias" else twin.config.dips).spoil_radius))
    middle = np.asarray(next((getattr(command, name) for name in ("position", "centre", "start") if hasattr(command, name)), np.zeros((1, 2))))[0]
    return np.stack([middle - half, middle + half])


def test_every_twin_is_described_and_nothing_else():
    assert {type(twin_of(name, scenario)).__name__ for name, scenario, _ in SCENES} == set(DESCRIBED)
    with pytest.raises(ProbeGymError, match="Watched is not described as an instrument: use one of StemTwin"):
        describe(Watched(None))


def test_kinds_follow_what_the_probe_is():
    kinds = {type(twin).__name__ + getattr(getattr(twin, "source", None), "kind", ""): describe(twin).descriptor.kind
             for twin in (twin_of(name, scenario) for name, scenario, _ in SCENES)}  # fmt: skip
    assert kinds == {
        "StemTwin": "stem", "GrapheneTwin": "stem", "IsingTwin": "stem", "SpectraTwineels": "stem", "SpectraTwincom": "stem", "SpectraTwinloop": "afm",
        "AfmTwin": "afm", "StmTwin": "stm", "AdatomTwin": "stm", "FlakesTwin": "laboratory",
    }  # fmt: skip


def test_the_page_shows_the_language_as_it_is():
    table = vocabulary(describe(twin_of(name, scenario)).descriptor for name, scenario, _ in SCENES)
    safe = "\n".join(f"| {kind} | {', '.join(steps)} |" for kind, steps in SAFE_STEPS.items())
    page = (ROOT / "docs" / "hyper_language.md").read_text(encoding="utf-8")
    for part in (table, safe):
        assert part in page, f"put this table into the page:\n{part}"
