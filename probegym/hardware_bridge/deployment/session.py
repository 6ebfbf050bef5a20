"""A session: the environment, played on an instrument behind its guard by a policy in a process of its own.

``python -m probegym.hardware_bridge.deployment.session`` is started by ``start``; it tells the one who started it of every episode.
The environment decodes and encodes exactly as in training; only its world is another.
"""

from __future__ import annotations

import math
import subprocess
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import Any, Protocol

import gymnasium as gym
import numpy as np

import probegym  # noqa: F401  registers the environments
from probegym.envs.core import ScopeEnv
from probegym.errors import ProbeGymError
from probegym.hardware_bridge.channel import Channel, called, spawn
from probegym.hardware_bridge.codec import Arrays, Json
from probegym.hardware_bridge.commands import Readings
from probegym.hardware_bridge.deployment.policy import PolicyFault, PolicyProcess
from probegym.hardware_bridge.deployment.world import GuardedWorld, ObservedWorld, ReplayedWorld
from probegym.hardware_bridge.records.log import Recorder
from probegym.hardware_bridge.records.steps import space_to_json
from probegym.hardware_bridge.world import Refused, World


@dataclass(frozen=True)
class Plan:
    """What a session is to do. world: how to reach its world, as ``open_world`` takes it. deadline: s for each decision of the policy."""

    env_id: str
    scenario: str
    policy: str
    episodes: int
    seed: int
    deadline: float
    world: Json


class Playable(World, Protocol):
    """A world that a session can play on: it also keeps a record."""

    action: int
    judged: bool  # whether it tells hidden state
    about: Json
    folder: str  # of its own record, if it keeps one

    def note(self, kind: str, payload: Json, arrays: Arrays | None = None) -> None:
        """Have something written down."""

    def fault(self, why: str) -> None:
        """Say that the session cannot go on."""

    def close(self) -> None:
        """End the session."""


def open_world(told: Json) -> Playable:
    """A world by what is told: ``guard`` (and ``judge``), ``observe`` with ``runs`` and ``patience``, or ``record``. Raises ProbeGymError."""
    if "guard" in told:
        return GuardedWorld(told["guard"], told.get("judge"))
    if "observe" in told:
        return ObservedWorld(told["observe"], Recorder(told["runs"], {"mode": "shadow"}), told["patience"])
    return ReplayedWorld(told["record"])


class Session:
    """Plays episodes; ``tell`` is called with plain JSON after each step and episode.

    When it is made, environment and policy stand, and the policy has given its golden actions: what could go wrong with them does so
    before anything is armed. Raises ProbeGymError.
    """

    def __init__(self, plan: Plan, tell: Callable[[Json], None]):
        self.plan, self.tell = plan, tell
        self.world = open_world(plan.world)
        self.opened = ExitStack()
        self.opened.callback(self.world.close)
        try:
            self.env: ScopeEnv = gym.make(plan.env_id, scenario=plan.scenario, reward="privileged" if self.world.judged else "observable",
                                          world=self.world, disable_env_checker=True).unwrapped  # type: ignore[assignment]  # fmt: skip
            self.policy = self.opened.enter_context(PolicyProcess(plan.policy, plan.deadline))
            self.policy.bundle.fits(self.env.episodes.task, plan.env_id)
        except BaseException:
            self.close()
            raise
        self.actions, self.took = 0, list[float]()

    def run(self) -> None:
        """All episodes. Raises Refused when the guard lets nothing more pass."""
        try:
            for number in range(self.plan.episodes):
                self._episode(self.policy, self.plan.seed + number)
        except PolicyFault as error:
            self.world.fault(str(error))
            raise

    def latency(self) -> Json:
        """What decisions and whole steps took: steps, p50_s, p99_s and worst_s of the decisions, step_p50_s and step_p99_s."""
        p50, p99 = np.quantile(self.took, [0.5, 0.99]).tolist() if self.took else (0.0, 0.0)
        return self.policy.latency() | {"step_p50_s": p50, "step_p99_s": p99}

    def _episode(self, policy: PolicyProcess, seed: int) -> None:
        spaces = {"observation": space_to_json(self.env.observation_space), "action": space_to_json(self.env.action_space)}
        self.world.about = {"environment": self.plan.env_id, "scenario": self.plan.scenario, "seed": seed, "spaces": spaces}
        observation, info = self.env.reset(seed=seed)
        policy.begin()
        self.world.note("observation", {}, observation)
        total, steps, over = 0.0, 0, False
        while not over:
            begun = time.monotonic()
            action = policy.decide({name: value[None] for name, value in observation.items()})[0]
            self.actions += 1
            self.world.action = self.actions
            self.world.note("action", {"number": self.actions, "action": np.asarray(action, float).reshape(-1).tolist()}, {"action": np.asarray(action)})
            observation, reward, terminated, truncated, info = self.env.step(action)
            total, steps, over = total + reward, steps + 1, terminated or truncated
            self.took.append(time.monotonic() - begun)
            self.world.note("observation", {}, observation)
            self.world.note("reward", {"number": self.actions, "reward": reward, "terminated": terminated, "truncated": truncated})
            self.tell({"step": steps, "action": np.asarray(action, float).reshape(-1).tolist(), "reward": reward, "costs": {name: float(info[name]) for name in Readings.COSTS}})
        end = {"seed": seed, "steps": steps, "return": total, "success": bool(info["is_success"]) if self.world.judged else None,
               "costs": {name: float(info[name]) for name in Readings.COSTS}}  # fmt: skip
        self.world.note("end", end)
        self.tell({"episode": end})

    def close(self) -> None:
        """End the session; the guard takes the instrument to its safe state."""
        self.opened.close()


def start(plan: Plan) -> tuple[subprocess.Popen[bytes], Channel]:
    """Start a session. Its channel says ``ready``, waits for ``go``, tells of every episode, then of its end: ``done`` or ``stopped`` with the reason."""
    return spawn("probegym.hardware_bridge.deployment.session", told=vars(plan))


def main() -> None:
    """The session's process."""
    channel, told = called()

    def tell(news: Json) -> None:
        channel.send(_finite(news))

    session = None
    try:
        session = Session(Plan(**told), tell)
        tell({"ready": True})
        channel.receive()
        session.run()
        tell({"done": session.latency(), "record": session.world.folder})
    except Exception as error:  # whatever ends a session, the one who started it is told
        reason = f"refused: {error}" if isinstance(error, Refused) else str(error) if isinstance(error, ProbeGymError) else f"{type(error).__name__}: {error}"
        with suppress(ProbeGymError):  # unless that one has gone as well
            tell({"stopped": reason[:1000]} | ({"latency": session.latency()} if session else {}))
    finally:
        if session:
            session.close()


def _finite(content: Any) -> Any:
    """JSON has no NaN: null in its place."""
    if isinstance(content, dict):
        return {name: _finite(value) for name, value in content.items()}
    if isinstance(content, list):
        return [_finite(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content


if __name__ == "__main__":
    main()
