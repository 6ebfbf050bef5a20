"""Training of the level-selection policy: first it follows a teacher that knows the correlations, then it tries for itself.

The teacher is the environment's oracle; where the correlations are unknown, following it means to do what would be best for
most specimens that look alike (DAgger: Ross, Gordon & Bagnell 2011, arXiv:1011.0686). Then every specimen is tried several
times, with the same noise, and what left less uncertain is preferred: policy gradient (agents/policy_gradient.py), where an episode's
advantage is its outcome against that of the other tries. A third of the batches has correlations that are told.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from probegym.agents.evaluate import evaluate
from probegym.agents.export import ship
from probegym.agents.level_networks import SEEN, LevelScorer
from probegym.agents.policy_gradient import Chooser, Rivals, clipped_loss
from probegym.agents.seeds import SELECTION_SEED
from probegym.envs import level_plans
from probegym.envs.episodes import Episodes
from probegym.envs.level_selection import LevelSelectionTask
from probegym.envs.task import Observation
from probegym.errors import ProbeGymError

SPECIMENS, TRIES = 12, 8  # of a batch, and of each specimen
EPOCHS, ENTROPY = 4, 0.002
TAUGHT = 16  # first updates, by the teacher; it judges every TAUGHT_LANES-th lane
TAUGHT_LANES, TAUGHT_EPOCHS, TAUGHT_KEPT = 4, 60, 12_000
CANDIDATES = 5  # last states that may be chosen


@dataclass(frozen=True)
class LevelTraining:
    """What is trained and how; ``updates`` batches of episodes."""

    env_id: str = "probegym/LevelSelection-v0"
    scenario: str = "train"
    known: str = "train-known"
    updates: int = 160
    learning_rate: float = 3e-3
    seed: int = 1


class Trainer(Rivals):
    """Trains a LevelScorer, first by its teacher."""

    worlds, tries, candidates_kept, also_kept = SPECIMENS, TRIES, CANDIDATES, ("lessons",)

    def __init__(self, config: LevelTraining, folder: str | os.PathLike):
        super().__init__(config, folder)
        units = next(iter(self.envs.values())).episodes.task.action_units
        if units["choose"] != "level":
            raise ProbeGymError(f"scenario {config.scenario!r} lets the agent choose a {units['choose']}: train on one where it chooses the level alone")
        torch.manual_seed(config.seed)
        self.policy = LevelScorer(len(units["levels"]))
        self.prepared(self.policy)
        self.lessons: list[torch.Tensor] = []

    # ---- training ----

    def learn(self) -> tuple[float, dict[str, float]]:
        played = self._episodes()
        loss = self._imitate() if self.update < TAUGHT else self._learn(*played)
        return loss, self.figures()

    def _episodes(self) -> tuple[list[torch.Tensor], torch.Tensor]:
        """Play a batch; returns features, rules, fits, actions and chances of all decisions, and the advantage of each."""
        envs, observation = self.begun()
        agent = Chooser(self.policy, SEEN, self.generator())
        agent.begin(self.lanes, 0)
        running, counted = np.ones(self.lanes, bool), []
        while running.any():
            counted.append(torch.from_numpy(running.copy()))
            if self.update < TAUGHT:
                self._ask(observation, envs.episodes, running, len(counted))
            observation, _, terminated, truncated, _ = envs.step(agent.act(observation, envs.episodes))
            running &= ~(terminated | truncated)
        self.outcome = envs.episodes.memory["uncertainty"].copy()
        each = torch.from_numpy(self.advantage(0.01))
        rows = torch.stack(counted)
        columns = [torch.stack(column)[rows] for column in zip(*agent.kept, strict=True)]
        return columns, each.expand(len(rows), -1)[rows]

    def _ask(self, observation: Observation, episodes: Episodes, running: np.ndarray, step: int) -> None:
        """Keep what the teacher would do in some lanes."""
        lanes = np.flatnonzero(running & (np.arange(len(running)) % TAUGHT_LANES == step % TAUGHT_LANES))
        task, m = episodes.task_of(LevelSelectionTask), episodes.memory
        left, correlations = task.seconds_available - m["seconds_spent"], episodes.truth["correlations"]
        level = [level_plans.best(task.knowledge, m, int(lane), correlations[lane], left[lane])[0] for lane in lanes]
        if level:
            shown = self.policy.features(*(torch.from_numpy(observation[name][lanes]) for name in SEEN))
            possible = shown[2].gather(1, torch.tensor(level)[:, None])[:, 0]
            new = [column[possible] for column in (*shown, torch.tensor(level))]
            self.lessons = [torch.cat(pair)[-TAUGHT_KEPT:] for pair in zip(self.lessons, new, strict=True)] if self.lessons else new

    def _imitate(self) -> float:
        """Gradient steps on all lessons so far; returns the mean loss."""
        features, rule, fits, level = self.lessons
        generator, total = torch.Generator().manual_seed(self.update), 0.0
        for _ in range(TAUGHT_EPOCHS):
            part = torch.randint(len(level), (512,), generator=generator)
            loss = nn.functional.cross_entropy(self.policy.scores(features[part], rule[part], fits[part]), level[part])
            total += self.descend(loss, most=None)
        return total / TAUGHT_EPOCHS

    def _learn(self, columns: list[torch.Tensor], advantage: torch.Tensor) -> float:
        features, rule, fits, action, before = columns
        losses = [
            self.descend(clipped_loss(self.policy.scores(features[part], rule[part], fits[part]), action[part], before[part], advantage[part], ENTROPY))
            for part in self.epochs(len(action), EPOCHS, 512)
        ]
        return sum(losses) / len(losses)

    # ---- the end ----

    def agent(self) -> Chooser:
        return Chooser(self.policy, SEEN)

    def judged(self, episodes: int) -> dict[str, float]:
        """Means of the uncertainty left and of the squared error, both without unit, on the training scenario."""
        metrics = evaluate(self.agent(), self.config.env_id, self.config.scenario, episodes, SELECTION_SEED).metrics
        return {"uncertainty": float(metrics["uncertainty"].mean()), "error": float((metrics["rmse"] ** 2).mean())}

    def finish(self, folder: Path, command: str, episodes: int, report: Callable[[int, int], None] = lambda *_: None) -> Path:
        """Choose the state and write the bundle; returns its folder."""
        selection = self.selection(episodes, f"least uncertainty left of the last {CANDIDATES} states on the training scenario, {episodes} episodes", report)
        envs = self.envs[self.config.scenario]
        observation, _ = envs.reset(seed=SELECTION_SEED)
        shown = {name: observation[name][:4] for name in SEEN}
        return ship(folder, self.policy, self.config, envs.episodes.task, shown, {}, command, selection=selection)


def chooser(env_id: str, scenario: str, updates: int, seed: int, folder: Path) -> Trainer:
    """The trainer of LevelSelection for ``registry.OWN_TRAINERS``."""
    return Trainer(LevelTraining(env_id, scenario, updates=updates, seed=seed), folder)
