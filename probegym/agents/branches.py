"""Branches of episodes: every decision kept as a snapshot, and other actions tried from there on, in the same noise or in another.

Noise is a function of (key, number of the command, stream), so two branches of a snapshot that do the same are the same to the bit. A branch
that gives one command more meets the noise of the next number from there on: its luck is another, of the same chances.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np

from probegym.agents.base import Agent, OracleAgent, Script
from probegym.envs import single_env, vector_env
from probegym.envs.episodes import Episodes, Snapshot
from probegym.envs.task import Observation
from probegym.errors import ProbeGymError
from probegym.hardware_bridge.commands import Readings

VALUES = ("return", *Readings.COSTS)
"""What an episode is worth: its return, or minus what it cost until it stood at its goal (the whole budget where it never did)."""
LANES = 64  # branches that run beside each other

Costs = dict[str, float]
Path = tuple[str | int, ...]
Memory = dict[Path, Any]
PROBES = (3, 5)  # lanes with which an agent is begun to see which of its arrays have an axis of lanes


class Memories:
    """What an agent remembers of each lane, its own and that of agents in it: arrays whose first axis is that of lanes.

    Raises ProbeGymError for an agent that draws by chance, for branches would share its generator, and for a script.
    """

    def __init__(self, agent: Agent | Script):
        if isinstance(agent, Script):
            self._refuse("works through an episode from its start and cannot go on from a snapshot")
        self.agent: Agent = agent
        shapes: list[dict[Path, tuple[int, ...]]] = []
        for lanes in PROBES:
            agent.begin(lanes, 0)
            shapes.append({path: tuple(array.shape) for path, array in self._arrays().items()})
        few, many = shapes
        self.paths = [path for path in few if few[path] != many.get(path)]
        for path in self.paths:
            if few[path][0] != PROBES[0] or many.get(path) != (PROBES[1], *few[path][1:]):
                self._refuse(f"does not keep {_told(path)} by lanes")

    def _refuse(self, why: str) -> NoReturn:
        raise ProbeGymError(f"this agent {why}: use the continuation oracle, or another agent")

    def take(self, lane: int) -> Memory:
        """A copy of what the agent remembers of one lane."""
        arrays = self._arrays()
        return {path: copy.deepcopy(arrays[path][lane]) for path in self.paths}

    def put(self, memory: Memory | None, lane: int, lanes: int) -> None:
        """Write it into one of ``lanes`` lanes."""
        if memory is None:
            self._refuse("was not asked what it remembered at a visit")
        arrays = self._arrays()
        for path, array in arrays.items():
            if path not in memory and lanes > max(PROBES) and array.shape[0] == lanes:
                self._refuse(f"keeps {_told(path)} of each lane, which its begin() does not set")
        for path, value in memory.items():
            arrays[path][lane] = value

    def _arrays(self) -> Memory:
        found: Memory = {}
        self._look(vars(self.agent), (), found)
        return found

    def _look(self, value: Any, path: Path, found: Memory) -> None:
        if isinstance(value, np.random.Generator):
            self._refuse("draws its actions by chance and cannot go on from a snapshot")
        if isinstance(value, Agent):
            self._look(vars(value), path, found)
        elif isinstance(value, (dict, list, tuple)):
            for name, item in value.items() if isinstance(value, dict) else enumerate(value):
                self._look(item, (*path, name), found)
        elif hasattr(value, "shape") and hasattr(value, "__setitem__") and len(value.shape):  # of numpy or of torch
            found[path] = value


def _told(path: Path) -> str:
    return ".".join(map(str, path))


@dataclass(frozen=True)
class Outcome:
    """The end of an episode. total: its return. reached: costs when it first stood at its goal, None where it never did. steps: after the snapshot."""

    total: float
    success: bool
    reached: Costs | None
    costs: Costs
    steps: int

    def worth(self, value: str, limits: dict[str, float]) -> float:
        """The ``value`` of VALUES, the more the better: the return, or minus a cost, in its unit as in ``limits``."""
        return self.total if value == "return" else -(self.reached or limits)[value]


@dataclass(frozen=True)
class Visit:
    """A decision of an episode. action: what was done; guide: what the oracle would; advice: what advisers would. total, reached: so far.

    memory: the agent's once it had decided, None where it was not asked for.
    """

    seed: int
    step: int
    start: Snapshot
    action: np.ndarray
    guide: np.ndarray
    advice: list[np.ndarray]
    total: float
    reached: Costs | None
    memory: Memory | None


@dataclass(frozen=True)
class Branch:
    """``action`` instead of what was done at a visit; with a ``key``, in another noise from there on."""

    visit: Visit
    action: np.ndarray
    key: int | None = None


class _Recorder:
    """Notes every decision of one episode down as it is made."""

    def __init__(self, seed: int, episodes: Episodes, advisers: Sequence[Agent]):
        self.seed, self.episodes, self.advisers = seed, episodes, advisers
        self.oracle, self.visits = OracleAgent(), list[Visit]()
        self.total = 0.0
        self.reached: Costs | None = None
        self.last: dict[str, Any] = {}
        for agent in advisers:
            agent.begin(1, seed)

    def decided(self, start: Snapshot, action: np.ndarray, memory: Memory | None) -> None:
        """An action is about to be done."""
        seen = {name: array.copy() for name, array in self.episodes.observation.items()}
        guide, *advice = (np.asarray(agent.act(seen, self.episodes))[0] for agent in (self.oracle, *self.advisers))
        self.visits.append(Visit(self.seed, len(self.visits), start, np.asarray(action), guide, advice, self.total, self.reached, memory))

    def done(self, reward: float, info: dict) -> None:
        """It was done; info of one lane."""
        self.total, self.last = self.total + reward, info
        if info["is_success"] and self.reached is None:
            self.reached = _costs(info)

    def outcome(self) -> Outcome:
        """How the episode ended."""
        return Outcome(self.total, bool(self.last["is_success"]), self.reached, _costs(self.last), len(self.visits))


def _costs(info: dict) -> Costs:
    return {name: float(info[name]) for name in Readings.COSTS}


def walk(agent: Agent | Script, env_id: str, scenario: str, seed: int, advisers: Sequence[Agent] = (), memories: Memories | None = None,
         **kwargs) -> tuple[list[Visit], Outcome]:  # fmt: skip
    """Run one episode and keep every decision. memories: those of ``agent``, to be kept with each visit.

    Advisers see what the agent sees and decide beside it; nobody does what they say. Further keywords go to the environment.
    """
    if isinstance(agent, Script):
        return _walk_script(agent, env_id, scenario, seed, advisers, kwargs)
    envs = vector_env(env_id, num_envs=1, scenario=scenario, autoreset_mode="Disabled", **kwargs)
    observation, _ = envs.reset(seed=seed)
    agent.begin(1, seed)
    notes, over = _Recorder(seed, envs.episodes, advisers), False
    while not over:
        start, action = envs.snapshot(0), np.asarray(agent.act(observation, envs.episodes))
        notes.decided(start, action[0], None if memories is None else memories.take(0))
        observation, reward, terminated, truncated, info = envs.step(action)
        notes.done(float(reward[0]), {name: value[0] for name, value in info.items()})
        over = bool(terminated[0] or truncated[0])
    return notes.visits, notes.outcome()


def _walk_script(agent: Script, env_id: str, scenario: str, seed: int, advisers: Sequence[Agent], kwargs: dict) -> tuple[list[Visit], Outcome]:
    env = single_env(env_id, scenario=scenario, **kwargs)
    observation, _ = env.reset(seed=seed)
    notes = _Recorder(seed, env.episodes, advisers)

    def act(action: np.ndarray) -> tuple[Observation, bool]:
        action = np.asarray(action, env.action_space.dtype)
        notes.decided(env.snapshot(), action, None)
        observation, reward, terminated, truncated, info = env.step(action)
        notes.done(reward, info)
        return observation, terminated or truncated

    agent.play(act, env, observation, seed)
    return notes.visits, notes.outcome()


class Branches:
    """Runs branches beside each other, each to the end of its episode; a lane that is through takes the next one.

    continuation: who acts after a branch's first action; with ``memories``, from the memory that its visit holds. The results do not
    depend on ``lanes`` where the continuation acts in each lane as if it were alone.
    """

    def __init__(self, env_id: str, scenario: str, continuation: Agent, memories: Memories | None = None, lanes: int = LANES, **kwargs):
        self.envs = vector_env(env_id, num_envs=lanes, scenario=scenario, autoreset_mode="Disabled", **kwargs)
        self.envs.reset(seed=0)  # shapes only; all of it is overwritten
        self.continuation, self.memories = continuation, memories

    def run(self, branches: Sequence[Branch]) -> Iterator[tuple[int, Outcome]]:
        """(number of the branch, how it ended), as they come to their ends."""
        lanes, waiting = self.envs.num_envs, iter(enumerate(branches))
        self.continuation.begin(lanes, 0)
        running = dict(zip(range(lanes), waiting, strict=False))
        fresh = list(running)
        totals, steps = np.zeros(lanes), np.zeros(lanes, int)
        reached: list[Costs | None] = [None] * lanes
        while running:
            for lane in fresh:
                branch = running[lane][1]
                self.envs.restore(branch.visit.start, lane)
                if branch.key is not None:
                    self.envs.episodes.world.rekey(branch.key, lane)
                totals[lane], steps[lane], reached[lane] = branch.visit.total, 0, branch.visit.reached
            episodes = self.envs.episodes
            action = np.array(self.continuation.act({name: array.copy() for name, array in episodes.observation.items()}, episodes))
            for lane in fresh:
                action[lane] = running[lane][1].action
                if self.memories is not None:
                    self.memories.put(running[lane][1].visit.memory, lane, lanes)
            _, reward, terminated, truncated, info = self.envs.step(action)
            totals, steps, fresh = totals + reward, steps + 1, []
            for lane in sorted(running):
                if info["is_success"][lane] and reached[lane] is None:
                    reached[lane] = _costs({name: value[lane] for name, value in info.items()})
                if terminated[lane] or truncated[lane]:
                    costs = _costs({name: value[lane] for name, value in info.items()})
                    yield running.pop(lane)[0], Outcome(float(totals[lane]), bool(info["is_success"][lane]), reached[lane], costs, int(steps[lane]))
                    if (job := next(waiting, None)) is not None:
                        running[lane] = job
                        fresh.append(lane)
