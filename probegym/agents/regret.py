"""Regret: how much more the best branch from the same snapshot would have been worth than the branch that was taken.

Q(s, a) is the value of the whole episode when a is done in s and a continuation goes on to its end. From one snapshot, in one noise,
that is a number and not a mean: noise is a function of (key, command, stream), and all branches share the key. The regret of the action
taken is max_a Q(s, a) - Q(s, a_t) over candidates, the one taken among them, so it is never negative.

With the oracle as continuation, V(s) = Q(s, oracle's action), and Q(s_t, a_t) = V(s_t+1) exactly. So over an episode the advantages of the
oracle's action, V(s_t) - Q(s_t, a_t), add up to V(s_0) less what the agent got (the performance difference lemma of Kakade & Langford
2002, path by path), and regrets to that plus what the oracle itself would regret in the states that the agent came through.

That is regret in hindsight: whoever does not know the noise to come has some, however good. With ``draws`` the noise after the snapshot is
drawn anew, n times, the same for all candidates, and Q is the mean. That is expected regret, of what could be known.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np

from probegym.agents.base import Agent, OracleAgent, Script
from probegym.agents.branches import LANES, VALUES, Branch, Branches, Memories, Visit, walk
from probegym.agents.evaluate import Progress
from probegym.agents.seeds import EVALUATION_SEED
from probegym.agents.statistics import mean_interval, ratio_interval
from probegym.envs.actions import bounds
from probegym.envs.task import shape_of
from probegym.errors import ProbeGymError

CONTINUATIONS = ("oracle", "self")
SAMPLES, NEAR = 16, 0.15  # of actions where they cannot all be tried; half of them this near to the oracle's, in halves of the range
CHUNK = 32  # episodes whose snapshots are held at a time
EPSILON = 0.01
"""A smaller regret counts as none in ``share``."""


def candidates(space: gym.Space, visit: Visit, samples: int = SAMPLES) -> tuple[np.ndarray, int, int]:
    """Actions (n, ...) to compare at a visit, and the numbers of the one done and of the oracle's: all of a discrete space.

    Of any other: the one done, the oracle's, those of advisers, and a Sobol sequence, half over the whole space and half within NEAR of the oracle's.
    """
    if isinstance(space, gym.spaces.Discrete):
        return int(space.start) + np.arange(int(space.n)), int(visit.action - space.start), int(visit.guide - space.start)
    from scipy.stats import qmc

    low, high = (edge.astype(float).ravel() for edge in bounds(space))
    share = qmc.Sobol(len(low), seed=0).random(1 << max(0, samples - 1).bit_length())[:samples]
    middle, half = 0.5 * (low + high), 0.5 * (high - low)
    near = np.arange(samples) >= samples // 2
    sampled = np.where(near[:, None], visit.guide.ravel() + NEAR * half * (2 * share - 1), middle + half * (2 * share - 1))
    sampled = np.clip(sampled, low, high)
    sampled = sampled if isinstance(space, gym.spaces.Box) else np.rint(sampled)
    first = np.stack([visit.action, visit.guide, *visit.advice])
    return np.concatenate([first, sampled.reshape(-1, *shape_of(space))]).astype(space.dtype), 0, 1


def names(space: gym.Space, units: dict, advisers: Sequence[str] = (), samples: int = SAMPLES) -> tuple[str, ...]:
    """What the candidates are called; units: the task's ``action_units``."""
    if isinstance(space, gym.spaces.Discrete):
        return tuple(units.get("names", map(str, int(space.start) + np.arange(int(space.n)))))
    return ("own", "oracle", *advisers, *(f"sample {n}" for n in range(samples // 2)), *(f"near oracle {n}" for n in range(samples - samples // 2)))


@dataclass(frozen=True)
class Regrets:
    """One row a step: episode, step, taken, guided (n,) and values (n, draws or 1, candidates); guided is the oracle's action.

    One entry an episode: obtained, what it was worth, and success. continuation: who went on after the first action of a branch.
    """

    names: tuple[str, ...]
    episode: np.ndarray
    step: np.ndarray
    taken: np.ndarray
    guided: np.ndarray
    values: np.ndarray
    obtained: np.ndarray
    success: np.ndarray
    continuation: str

    @property
    def draws(self) -> int:
        """How many of the noise; 1 where it is the noise that was."""
        return self.values.shape[1]

    @property
    def q(self) -> np.ndarray:
        """(n, candidates) mean over the draws."""
        return self.values.mean(1)

    @property
    def regret(self) -> np.ndarray:
        """(n,) of each step, never negative. A mean of draws has it too high: the best of noisy means is in part the luckiest."""
        return self.q.max(1) - _at(self.q, self.taken)

    @property
    def advantage(self) -> np.ndarray:
        """(n,) of the oracle's action over the one taken; of either sign."""
        return _at(self.q, self.guided) - _at(self.q, self.taken)

    @property
    def best(self) -> np.ndarray:
        """(n,) number of the best candidate; the one taken where none is better."""
        return np.where(self.regret > 0, self.q.argmax(1), self.taken)

    @property
    def crossed(self) -> np.ndarray:
        """(n,) regret where the best is chosen by half of the draws and valued by the other: too low in the mean, as ``regret`` is too high.

        Raises ProbeGymError for fewer than two draws.
        """
        if self.draws < 2:
            raise ProbeGymError("a regret in the noise that was has no second half: ask for draws")
        halves = self.values[:, ::2].mean(1), self.values[:, 1::2].mean(1)
        return 0.5 * sum(_at(there, here.argmax(1)) - _at(there, self.taken) for here, there in (halves, halves[::-1]))

    def of_episodes(self, rows: np.ndarray) -> np.ndarray:
        """(episodes,) sums over the steps of every episode."""
        return np.bincount(self.episode, rows, len(self.obtained))

    @property
    def shortfall(self) -> np.ndarray:
        """(episodes,) what the oracle would have got from the start on, less what was obtained."""
        return _at(self.q, self.guided)[self.step == 0] - self.obtained

    def summary(self, epsilon: float = EPSILON) -> dict[str, Any]:
        """Means with 95 % bootstrap intervals over episodes, quantiles over steps, the share of steps above ``epsilon``.

        With the oracle as continuation also what the regrets of an episode are made of: shortfall, and slack, what the oracle would regret
        in the same states. residue: the most by which the advantages of an episode fail to add up to its shortfall.
        """
        regret, steps = self.regret, np.bincount(self.episode, minlength=len(self.obtained)).astype(float)
        out: dict[str, Any] = {"episodes": len(self.obtained), "steps": len(regret), "success": float(self.success.mean())}
        out |= {"obtained": float(self.obtained.mean()), "share": float((regret > epsilon).mean())}
        out |= {f"regret_{q}": float(np.quantile(regret, q / 100)) for q in (50, 75, 90, 99, 100)}
        rows = {"regret": regret} | ({"crossed": self.crossed} if self.draws > 1 else {})
        rows |= {"slack": regret - self.advantage} if self.continuation == "oracle" else {}
        for name, each in rows.items():
            sums = self.of_episodes(each)
            out |= {f"{name}_step": float(each.mean()), f"{name}_step_interval": list(ratio_interval(sums, steps))}
            out |= {f"{name}_episode": float(sums.mean()), f"{name}_episode_interval": list(mean_interval(sums))}
        if self.continuation == "oracle":
            out |= {"shortfall": float(self.shortfall.mean()), "residue": float(np.abs(self.of_episodes(self.advantage) - self.shortfall).max())}
        return out

    def by_action(self) -> list[dict[str, Any]]:
        """Of each candidate that was taken or best: how often, the mean regret of taking it, its share of all regret, and what mostly was better."""
        rows, best, total = [], self.best, max(self.regret.sum(), 1e-300)
        for number, name in enumerate(self.names):
            on, instead = self.taken == number, Counter[int]()
            if not on.any() and not (best == number).any():
                continue
            for other, lost in zip(best[on], self.regret[on], strict=True):
                instead[int(other)] += lost
            better = instead.most_common(1)[0] if instead else (number, 0.0)
            rows.append({"action": name, "taken": int(on.sum()), "regret": float(self.regret[on].mean()) if on.any() else float("nan"),
                         "share": float(self.regret[on].sum() / total), "best": int((best == number).sum()),
                         "instead": self.names[better[0]] if better[1] > 0 else "-"})  # fmt: skip
        return rows


def _at(values: np.ndarray, number: np.ndarray) -> np.ndarray:
    return np.take_along_axis(values, number[:, None], 1)[:, 0]


def regrets(agent: Agent | Script, env_id: str, scenario: str, episodes: int, seed: int = EVALUATION_SEED, *, continuation: str = "oracle",
            value: str = "return", draws: int = 0, advisers: Mapping[str, Agent | Script] | None = None, samples: int = SAMPLES, lanes: int = LANES,
            progress: Progress = lambda *_: None, **kwargs) -> Regrets:  # fmt: skip
    """Regret of every action of an agent on seeds seed, seed + 1, ...; further keywords go to the environment.

    continuation: ``oracle``, what could still be reached, or ``self``, what this agent would make of it. value: one of VALUES. draws: 0
    for the noise that was, else an even number of other draws of the noise after each snapshot. Raises ProbeGymError.
    """
    beside = _checked(advisers or {}, episodes, continuation, value, draws, samples)
    memories = Memories(agent) if continuation == "self" else None
    pool = Branches(env_id, scenario, memories.agent if memories else OracleAgent(), memories, lanes, **kwargs)
    task, limits = pool.envs.episodes.task, pool.envs.episodes.limits
    if value != "return" and value not in limits:
        raise ProbeGymError(f"scenario {scenario!r} sets no budget of {value}, which a failure would count as: use one of return, {', '.join(limits)}")
    rows, ends = [], []
    progress(0, episodes)
    for first in range(0, episodes, CHUNK):
        some = range(first, min(first + CHUNK, episodes))
        walks = [walk(agent, env_id, scenario, seed + n, list(beside.values()), memories, **kwargs) for n in some]
        ends += [outcome for _, outcome in walks]
        visits = [(number, visit) for number, (each, _) in zip(some, walks, strict=True) for visit in each]
        options = [candidates(task.action_space, visit, samples) for _, visit in visits]
        keys = [noises(visit, draws) for _, visit in visits]
        count = len(options[0][0])
        triples = zip((visit for _, visit in visits), options, keys, strict=True)
        todo = [Branch(visit, action, key) for visit, (actions, *_), noise in triples for key in noise for action in actions]
        found = np.zeros(len(todo))
        for number, (branch, outcome) in enumerate(pool.run(todo)):
            found[branch] = outcome.worth(value, limits)
            progress(first + len(some) * number // len(todo), episodes)
        for (episode, visit), (_, taken, guided), values in zip(visits, options, found.reshape(len(visits), -1, count), strict=True):
            rows.append((episode, visit.step, taken, guided, values))
    progress(episodes, episodes)
    columns = [np.array(column) for column in zip(*rows, strict=True)]  # episode, step, taken, guided, values
    obtained, success = (np.array(column) for column in ([end.worth(value, limits) for end in ends], [end.success for end in ends]))
    told = names(task.action_space, task.action_units, tuple(beside), samples)
    return Regrets(told, columns[0], columns[1], columns[2], columns[3], columns[4], obtained, success, continuation)


def noises(visit: Visit, draws: int) -> list[int | None]:
    """Keys of the noise after a visit: None, its own, or others that depend on seed and step alone."""
    return [int(key >> np.uint64(1)) for key in np.random.SeedSequence((visit.seed, visit.step)).generate_state(draws, np.uint64)] if draws else [None]


def _checked(advisers: Mapping[str, Agent | Script], episodes: int, continuation: str, value: str, draws: int, samples: int) -> dict[str, Agent]:
    for name, number, least in (("episodes", episodes, 1), ("draws", draws, 0), ("samples", samples, 0)):
        if isinstance(number, bool) or not isinstance(number, (int, np.integer)) or number < least:
            raise ProbeGymError(f"{name} must be a whole number from {least}, got {number!r}")
    for name, given, known in (("continuation", continuation, CONTINUATIONS), ("value", value, VALUES)):
        if given not in known:
            raise ProbeGymError(f"{name} must be one of {', '.join(known)}, got {given!r}")
    if draws % 2:
        raise ProbeGymError(f"draws must be even, for the best is chosen by one half and valued by the other, got {draws}")
    beside: dict[str, Agent] = {}
    for name, agent in advisers.items():
        if isinstance(agent, Script):
            raise ProbeGymError(f"{name} works through an episode from its start and cannot decide beside another agent: leave it out")
        beside[name] = agent
    return beside
