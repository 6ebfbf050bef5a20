"""Evaluation of an agent on unseen seeds: success, measurements and seconds to the goal, dose, with intervals."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np

from probegym.agents.base import Agent, Script
from probegym.agents.seeds import EVALUATION_SEED
from probegym.agents.statistics import median_interval, wilson
from probegym.envs import single_env, vector_env
from probegym.envs.task import Observation
from probegym.errors import ProbeGymError
from probegym.hardware_bridge.commands import Lanes, Readings

LANES = 32

Progress = Callable[[int, int], None]


class Observer(Protocol):
    """Is shown everything that passes between agent and environment. Arrays are (lanes, ...); a script has one lane."""

    def begin(self, seed: int, observation: Observation, info: Lanes) -> None:
        """Episodes have begun on seeds seed, seed + 1, ...; with what the reset gave."""

    def step(self, action: np.ndarray, observation: Observation, reward: np.ndarray, terminated: np.ndarray, truncated: np.ndarray, info: Lanes, where: np.ndarray) -> None:
        """A step of the lanes in ``where``; the others have ended before."""


@dataclass(frozen=True)
class Results:
    """One row an episode: every field (episodes,). costs: of the whole episode; to_goal: when it first stood at its goal."""

    success: np.ndarray
    returns: np.ndarray
    steps: np.ndarray
    costs: dict[str, np.ndarray]
    metrics: dict[str, np.ndarray]  # as info had them at the end
    to_goal: dict[str, np.ndarray]

    def columns(self) -> dict[str, Any]:
        """Every field as a list, one entry an episode, for JSON."""
        return {
            name: {key: array.tolist() for key, array in value.items()} if isinstance(value, dict) else value.tolist() for name, value in asdict(self).items()
        }

    def summary(self, confidence: float = 0.95, seed: int = 0) -> dict[str, float | list[float]]:
        """Success rate with Wilson interval; medians with bootstrap intervals. Costs to goal are of the successes."""
        n, k = len(self.success), int(self.success.sum())
        out: dict[str, float | list[float]] = {"episodes": n, "success": k / n, "success_interval": list(wilson(k, n, confidence))}
        out["return"] = float(self.returns.mean())
        for name, values in self.costs.items():
            reached = self.to_goal[name][self.success]
            out[f"{name}_to_goal"] = float(np.median(reached)) if k else float("nan")
            out[f"{name}_to_goal_interval"] = list(median_interval(reached, confidence, seed)) if k else [float("nan")] * 2
            out[f"{name}_mean"] = float(values.mean())
        for name, values in self.metrics.items():
            out[f"{name}_median"] = float(np.median(values))
        return out


def evaluate(agent: Agent | Script, env_id: str, scenario: str, episodes: int, seed: int = EVALUATION_SEED,
             progress: Progress = lambda *_: None, lanes: int = LANES, observer: Observer | None = None, **kwargs: Any) -> Results:  # fmt: skip
    """Run whole episodes on seeds seed, seed + 1, ..., up to ``lanes`` of an agent at once; further keywords go to the environment.

    Raises ProbeGymError when ``episodes`` is no whole number above 0, and what the environment raises.
    """
    if not isinstance(episodes, int) or isinstance(episodes, bool) or episodes < 1:
        raise ProbeGymError(f"episodes must be a whole number above 0, got {episodes!r}")
    rows: list[dict[str, Any]] = []
    progress(0, episodes)
    for first in range(0, episodes, 1 if isinstance(agent, Script) else lanes):
        if isinstance(agent, Script):
            rows.append(_run_script(agent, env_id, scenario, seed + first, kwargs, observer))
        else:
            rows += _run_batch(agent, env_id, scenario, min(lanes, episodes - first), seed + first, kwargs, observer)
        progress(len(rows), episodes)
    columns = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    costs, to_goal = ({name: columns.pop(f"{prefix}{name}") for name in Readings.COSTS} for prefix in ("", "goal_"))
    head = [columns.pop(name) for name in ("success", "return", "steps")]
    return Results(head[0].astype(bool), head[1], head[2], costs, columns, to_goal)


def _row(info: dict[str, Any], total: float, steps: int, goal: dict[str, Any]) -> dict[str, Any]:
    kept = {
        name: float(v) for name, v in info.items() if not name.startswith(("_", "reward_")) and name != "is_success" and np.ndim(v) == 0
    }
    reached = {f"goal_{name}": float((goal or info)[name]) for name in Readings.COSTS}
    return {"success": bool(info["is_success"]), "return": total, "steps": steps} | kept | reached


def _run_batch(agent: Agent, env_id: str, scenario: str, lanes: int, seed: int, kwargs: dict[str, Any], observer: Observer | None) -> list[dict[str, Any]]:
    envs = vector_env(env_id, num_envs=lanes, scenario=scenario, autoreset_mode="Disabled", **kwargs)
    observation, info = envs.reset(seed=seed)
    if observer is not None:
        observer.begin(seed, observation, info)
    agent.begin(lanes, seed)
    done, totals, steps = np.zeros(lanes, bool), np.zeros(lanes), np.zeros(lanes, int)
    rows: list[dict[str, Any]] = [{} for _ in range(lanes)]
    goals: list[dict[str, Any]] = [{} for _ in range(lanes)]
    while not done.all():
        action = agent.act(observation, envs.episodes)
        observation, reward, terminated, truncated, info = envs.step(action)
        if observer is not None:
            observer.step(np.asarray(action), observation, reward, terminated, truncated, info, ~done)
        totals, steps = totals + reward, steps + ~done
        for lane in np.nonzero(info["is_success"] & ~done)[0]:
            goals[lane] = goals[lane] or {name: info[name][lane] for name in Readings.COSTS}
        ended = (terminated | truncated) & ~done
        for lane in np.nonzero(ended)[0]:
            rows[lane] = _row({name: value[lane] for name, value in info.items()}, totals[lane], steps[lane], goals[lane])
        done |= ended
    envs.close()
    return rows


def _run_script(agent: Script, env_id: str, scenario: str, seed: int, kwargs: dict[str, Any], observer: Observer | None) -> dict[str, Any]:
    env = single_env(env_id, scenario=scenario, **kwargs)
    total, steps = 0.0, 0
    last: dict[str, Any] = {}
    goal: dict[str, Any] = {}

    def act(action: np.ndarray) -> tuple[Observation, bool]:
        nonlocal total, steps, last, goal
        action = np.asarray(action, np.float32)
        observation, reward, terminated, truncated, last = env.step(action)
        if observer is not None:
            observer.step(*_lane((action, observation, reward, terminated, truncated, last, True)))
        total, steps = total + reward, steps + 1
        goal = goal or (last if last["is_success"] else {})
        return observation, terminated or truncated

    observation, info = env.reset(seed=seed)
    if observer is not None:
        observer.begin(seed, *_lane((observation, info)))
    agent.play(act, env, observation, seed)
    return _row(last, total, steps, goal)


def _lane(shown: tuple[Any, ...]) -> tuple[Any, ...]:
    """What a single environment gives, as a vector of one lane does."""
    return tuple({name: np.asarray(v)[None] for name, v in x.items()} if isinstance(x, dict) else np.asarray(x)[None] for x in shown)
