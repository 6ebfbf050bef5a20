"""One episode in a person's hands: values of the controls, keys that change them, steps, and what may be known so far. Draws nothing."""

from __future__ import annotations

import inspect
import itertools
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium import spaces

from probegym.agents.registry import task_type
from probegym.envs import environment_type, single_env
from probegym.envs.controls import LARGE, Choice, Values
from probegym.envs.pictures import UNITS
from probegym.errors import ProbeGymError
from probegym.hardware_bridge.commands import Readings
from probegym.terminal.compare import Row, metric

MOVES = {
    "d": (1, 0), "+": (1, 0), "=": (1, 0), "a": (-1, 0), "-": (-1, 0), "w": (0, 1), "s": (0, -1),
    "D": (LARGE, 0), "]": (LARGE, 0), "A": (-LARGE, 0), "[": (-LARGE, 0), "W": (0, LARGE), "S": (0, -LARGE),
}  # fmt: skip
"""Key -> small steps to the right and up."""
HELP = "{} n p choose   arrows or w a s d - + move, W A S D [ ] far   enter do it   0 back   u explain   h goal   t truth   q end"
LONGEST = 120  # characters of what was done


def section(env_id: str, name: str) -> str:
    """A section of an environment's page as one paragraph; lists keep their lines. Empty where there is none."""
    found = re.search(rf"^## {name}\n(.*?)(?=^## |\Z)", inspect.getdoc(environment_type(env_id)) or "", re.M | re.S)
    lines = found[1].strip() if found else ""
    return re.sub(r"\n(?!\d+\. )", " ", lines).replace("`", "")


def purpose(env_id: str) -> str:
    """What is to be done in an environment, in one line."""
    return (inspect.getdoc(environment_type(env_id)) or "").split("\n", 1)[0]


class Game:
    """An episode of an environment. ``told`` holds the hidden truth back until somebody asks for it, or the episode is over."""

    def __init__(self, env_id: str, scenario: str, seed: int):
        self.env_id, self.scenario, self.seed = env_id, scenario, seed
        self.env = single_env(env_id, scenario=scenario, render_mode="rgb_array")
        self.task = self.env.episodes.task
        self.controls = self.task.controls
        self.values = self.controls.start()
        self.chosen, self.steps = 0, 0
        self.parts: dict[str, float] = {}  # of the score, by term
        self.over = self.truth = self.truth_seen = False
        self.observation, self.info = self.env.reset(seed=seed)
        self.info["is_success"] = False

    # ---- acting ----

    def action(self) -> np.ndarray:
        """What the controls say; raises ProbeGymError when the task says that it makes no sense now."""
        made = self.controls.made(self.values)
        if self.masked():
            raise ProbeGymError(f"{self._words()} makes no sense now (it is masked): choose another, nothing was done")
        return made

    def _words(self) -> str:
        return ", ".join(f"{part.name} {part.told(self.values[part.name], self.observation)}" for part in self.controls.parts)

    def step(self) -> str:
        """Do what the controls say; returns what to tell. Raises ProbeGymError for what is refused, and when the episode is over."""
        if self.over:
            raise ProbeGymError("the episode is over: nothing was done")
        done = self._words()
        self.observation, _, terminated, truncated, self.info = self.env.step(self.action())
        for term in self.env.episodes.terms:
            self.parts[term.name] = self.parts.get(term.name, 0.0) + float(self.info[f"reward_{term.name}"])
        self.steps, self.over = self.steps + 1, terminated or truncated
        self.values |= {part.name: part.start for part in self.controls.parts if part.once}
        if self.over:
            return f"the episode is over, the goal was {'reached' if self.info['is_success'] else 'missed'}"
        return f"done: {done}" if len(done) <= LONGEST else "done"

    def put(self, name: str, value: Any) -> None:
        """Give a control a value; raises ProbeGymError when it cannot have it."""
        self.values[name] = self.controls[name].checked(value)

    def press(self, key: str) -> str:
        """Act on a key; returns what to tell. Raises ProbeGymError for what is refused."""
        part = self.controls.parts[self.chosen]
        if key.isdecimal() and 1 <= int(key) <= len(self.controls.parts):
            self.chosen = int(key) - 1
        elif key in ("n", "p"):
            self.chosen = (self.chosen + (1 if key == "n" else -1)) % len(self.controls.parts)
        elif key in MOVES:
            before = self.values[part.name]
            self.values[part.name] = part.moved(before, *MOVES[key])
            return f"{part.name} is at its end" if self.values[part.name] == before else ""
        elif key == "0":
            self.values = self.controls.start()
        elif key in ("\n", "\r"):
            return self.step()
        elif key == "u":
            return f"{part.name}: {part.meaning or 'no explanation'}"
        elif key == "h":
            return f"{purpose(self.env_id)} {section(self.env_id, 'Episode End')}"
        elif key == "t":
            return self.show_truth()
        else:
            return f"no key {key!r}: {self.help()}"
        return ""

    def help(self) -> str:
        """The keys, in one line."""
        most = min(len(self.controls.parts), 9)
        return HELP.format("1" if most == 1 else f"1-{most}")

    def show_truth(self) -> str:
        """Show what no instrument could tell, or hide it again; returns what to tell."""
        self.truth = not self.truth
        self.truth_seen = self.truth_seen or self.truth
        return "the hidden truth is shown; the table will say so" if self.truth else "the truth is hidden again"

    # ---- what may be known ----

    def closed(self) -> dict[str, list[bool]]:
        """Of each label of each choice, whether the task says that it makes no sense now, whatever else is chosen."""
        choices = [part for part in self.controls.parts if isinstance(part, Choice)]
        if not isinstance(self.env.action_space, spaces.Discrete):
            return {part.name: [False] * len(part.labels) for part in choices}
        names, counts = [part.name for part in choices], [len(part.labels) for part in choices]
        every = [self.values | dict(zip(names, numbers, strict=True)) for numbers in itertools.product(*map(range, counts))]
        sensible = self._sensible(every).reshape(counts)
        others = [tuple(other for other in range(len(counts)) if other != axis) for axis in range(len(counts))]
        return {name: np.atleast_1d(~sensible.any(axis=axes)).tolist() for name, axes in zip(names, others, strict=True)}

    def masked(self) -> bool:
        """Whether the task says that what the controls say makes no sense now."""
        return not self._sensible([self.values])[0]

    def _sensible(self, every: list[Values]) -> np.ndarray:
        """Of each set of values, whether the task's action mask leaves it in; all are where there is no mask."""
        space = self.env.action_space
        if not isinstance(space, spaces.Discrete):
            return np.ones(len(every), bool)
        mask = self.env.action_masks()
        return np.array([mask[int(self.controls.made(values)) - int(space.start)] for values in every])

    def end(self) -> None:
        """Give up: nothing can be done any more, and the truth is shown."""
        self.over = True

    def picture(self) -> np.ndarray:
        """The environment's own, (height, width, 3) uint8."""
        return self.env.episodes.picture(0, hidden=self.truth or self.over)

    def score(self) -> float:
        """Return so far; as long as the truth is hidden, of the terms that need none."""
        return sum(self.parts.get(term.name, 0.0) for term in self.env.episodes.terms if self.truth or self.over or not term.privileged)

    def score_name(self) -> str:
        """What the score is: of all terms, or without those that look at hidden truth."""
        whole = self.truth or self.over or not any(term.privileged for term in self.env.episodes.terms)
        return "score" if whole else "score without hidden terms"

    def total(self) -> float:
        """Return so far, of all terms."""
        return sum(self.parts.values())

    def status(self) -> dict[str, str]:
        """What the episode has cost, of how much, and what else may be known, by name."""
        limits, measured = self.env.episodes.limits, self.task.measured
        told = {}
        for name in Readings.COSTS:
            if self.info[name] or name in limits:
                unit = UNITS.get(name, "")
                most = f" of {limits[name]:.6g}" if name in limits else ""
                told[measured if name == "measurements" else name] = f"{self.info[name]:.4g}{most} {unit if name != 'damage' else ''}".rstrip()
        return told | {name.replace("_", " "): metric(value, self.task.metric_units.get(name, "1")) for name, value in self._known().items() if name != measured}

    def _known(self) -> Mapping[str, float]:
        """Metrics; without the truth those that an instrument would give."""
        episodes = self.env.episodes
        return _scalars({name: value[0] for name, value in episodes.task.metrics(episodes.truth if self.truth or self.over else {}, episodes.memory).items()})

    def foreseen(self) -> str:
        """What the next step will cost as far as that is known, in words."""
        if self.masked():
            return "makes no sense now (masked)"
        costs = self.task.foreseen(self.controls.made(self.values)[None], self.env.episodes.memory)
        limits, words = self.env.episodes.limits, []
        for name, cost in costs.items():
            if name != "measurements":
                beyond = name in limits and self.info[name] + cost[0] > limits[name] * (1 + 1e-9)
                words.append(f"{name} {cost[0]:.4g} {UNITS[name]}" + (", more than is left: the episode would end without it" if beyond else ""))
        return ", ".join(words)

    def row(self) -> Row:
        """The person's row of the comparison."""
        who = "you, truth seen" if self.truth_seen else "you"
        costs = {name: float(self.info[name]) for name in Readings.COSTS}
        metrics = {name: value for name, value in _scalars(self.info).items() if not name.startswith("reward_") and name not in (*costs, "is_success")}
        return Row(who, bool(self.info["is_success"]), self.total(), costs, metrics)


def _scalars(values: Mapping[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in values.items() if np.ndim(value) == 0}


def open_game(env_id: str, scenario: str, seed: int) -> Game:
    """A new episode; raises ProbeGymError for a scenario that cannot be played, a missing library among it."""
    try:
        return Game(env_id, scenario, seed)
    except ImportError as error:
        raise ProbeGymError(f"{task_type(env_id).family} in scenario {scenario!r} needs {error.name}: pip install 'probegym[train]'") from error
