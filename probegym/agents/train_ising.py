"""Training of the annealing policy: it tries every specimen several times and prefers what came closer to the hidden J.

Policy gradient (agents/policy_gradient.py), where an episode's advantage is its outcome against that of the other tries on the same
specimen. The outcome is the true error alone: a policy that is paid for what it believes finds images that the belief overrates. A third of the batches has a
classifier that is as told.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from probegym.agents.evaluate import evaluate
from probegym.agents.export import ship
from probegym.agents.ising_networks import SEEN, CycleScorer
from probegym.agents.policy_gradient import Chooser, Rivals, State, clipped_loss
from probegym.agents.seeds import SELECTION_SEED
from probegym.envs.ising_inference import IsingInferenceTask
from probegym.envs.ising_rewards import relative_error

SPECIMENS, TRIES = 12, 8  # of a batch, and of each specimen
SHARP = 8.0  # of the scores when actions are drawn
EPOCHS, ENTROPY, KEPT = 2, 0.001, 0.5  # KEPT: share of the decisions that are learned from
LEAST_ERROR = 0.006  # relative; what is below hardly counts
CANDIDATES = 5  # last states that may be chosen


@dataclass(frozen=True)
class IsingTraining:
    """What is trained and how; ``updates`` batches of episodes."""

    env_id: str = "probegym/IsingInference-v0"
    scenario: str = "train"
    known: str = "train-known"
    updates: int = 80
    learning_rate: float = 1e-3
    seed: int = 1


class Trainer(Rivals):
    """Trains a CycleScorer."""

    worlds, tries, candidates_kept = SPECIMENS, TRIES, CANDIDATES

    def __init__(self, config: IsingTraining, folder: str | os.PathLike):
        super().__init__(config, folder)
        s = self.envs[config.scenario].episodes.task_of(IsingInferenceTask).settings
        torch.manual_seed(config.seed)
        self.policy = CycleScorer(s.temperatures, s.fields, s.holds, len(s.dwells), s.prior.mean(), s.prior.deviation())
        self.prepared(self.policy)
        self.start = {name: v.clone() for name, v in self.policy.state_dict().items()}

    # ---- training ----

    def learn(self) -> tuple[float, dict[str, float]]:
        loss = self._learn(*self._episodes())
        return loss, self.figures()

    def _episodes(self) -> tuple[list[torch.Tensor], torch.Tensor]:
        """Play a batch; returns features, rules, prices, fits, actions and chances of some decisions, and the advantage of each."""
        envs, observation = self.begun()
        generator, lanes = self.generator(), self.lanes
        agent = Chooser(self.policy, SEEN, generator, SHARP)
        agent.begin(lanes, 0)
        running, counted, kept = torch.ones(lanes, dtype=torch.bool), [], []
        while running.any():
            chosen = running & (torch.rand(lanes, generator=generator) < KEPT)
            observation, _, terminated, truncated, _ = envs.step(agent.act(observation, envs.episodes))
            kept.append([column[chosen] for column in agent.kept.pop()])
            counted.append(torch.arange(lanes)[chosen])
            running &= torch.from_numpy(~(terminated | truncated))
        columns = [torch.cat(column) for column in zip(*kept, strict=True)]
        error = relative_error(envs.episodes.memory["mean"], envs.episodes.truth["coupling"])
        self.outcome = 0.5 * np.log(error**2 + LEAST_ERROR**2)
        return columns, torch.from_numpy(self.advantage(0.1))[torch.cat(counted)]

    def _learn(self, columns: list[torch.Tensor], advantage: torch.Tensor) -> float:
        *shown, number, before = columns
        losses = [
            self.descend(clipped_loss(SHARP * self.policy.scores(*(column[part] for column in shown)), number[part], before[part], advantage[part], ENTROPY))
            for part in self.epochs(len(number), EPOCHS, 256)
        ]
        return sum(losses) / len(losses)

    # ---- the end ----

    def agent(self) -> Chooser:
        return Chooser(self.policy, SEEN)

    def first_candidates(self) -> list[State]:
        """The state before training, which is the rule alone."""
        return [self.start]

    def judged(self, episodes: int) -> dict[str, float]:
        """The error of J on the training scenarios."""
        errors = [evaluate(self.agent(), self.config.env_id, name, episodes, SELECTION_SEED).metrics["error"] for name in self.scenarios]
        return {"error": float(np.mean(errors)), "rms": float(np.sqrt(np.mean(np.square(errors))))}

    def finish(self, folder: Path, command: str, episodes: int, report: Callable[[int, int], None] = lambda *_: None) -> Path:
        """Choose the state and write the bundle; returns its folder."""
        what = f"least error of J of the first and the last {CANDIDATES} states on the training scenarios, {episodes} episodes each"
        selection = self.selection(episodes, what, report)
        envs = self.envs[self.config.scenario]
        observation, _ = envs.reset(seed=SELECTION_SEED)
        shown = {name: observation[name][:4] for name in SEEN}
        return ship(folder, self.policy, self.config, envs.episodes.task, shown, {}, command, selection=selection)


def annealer(env_id: str, scenario: str, updates: int, seed: int, folder: Path) -> Trainer:
    """The trainer of IsingInference for ``registry.OWN_TRAINERS``."""
    return Trainer(IsingTraining(env_id, scenario, updates=updates, seed=seed), folder)
