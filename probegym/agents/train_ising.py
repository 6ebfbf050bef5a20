"""Training of the annealing policy: it tries every specimen several times and prefers what came closer to the hidden J.

Policy gradient with clipped ratios (PPO: Schulman et al. 2017, arXiv:1707.06347); an episode's advantage is its outcome against
that of the other tries on the same specimen (as in GRPO: Shao et al. 2024, arXiv:2402.03300), so no critic is needed. The outcome is
the true error alone: a policy that is paid for what it believes finds images that the belief overrates. A third of the batches has a
classifier that is as told.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from probegym.agents.base import Agent
from probegym.agents.evaluate import evaluate
from probegym.agents.export import SELECTION_SEED, ship
from probegym.agents.ising_networks import SEEN, CycleScorer
from probegym.agents.policy_gradient import PolicyGradient, State, clipped_loss
from probegym.envs import vector_env
from probegym.envs.episodes import Episodes
from probegym.envs.ising_inference import IsingInferenceTask
from probegym.envs.ising_rewards import relative_error
from probegym.envs.task import Observation

SPECIMENS, TRIES = 12, 8  # of a batch, and of each specimen
KNOWN_EVERY = 3
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


class Annealer(Agent):
    """A policy that is still a torch module; ``generator``: to draw actions by their chances, else the best is taken."""

    def __init__(self, policy: CycleScorer, generator: torch.Generator | None = None):
        self.policy, self.generator = policy, generator

    def begin(self, lanes: int, seed: int) -> None:
        self.kept: list[tuple[torch.Tensor, ...]] = []

    @torch.no_grad()
    def act(self, observation: Observation, episodes: Episodes) -> np.ndarray:
        shown = self.policy.features(*(torch.from_numpy(observation[name]) for name in SEEN))
        scores = self.policy.scores(*shown)
        if self.generator is None:
            return self.policy.actions(scores.argmax(1)).numpy()
        chances = torch.log_softmax(SHARP * scores, 1)
        number = torch.multinomial(chances.exp(), 1, generator=self.generator)[:, 0]
        self.kept.append((*shown, number, chances.gather(1, number[:, None])[:, 0]))
        return self.policy.actions(number).numpy()


class Trainer(PolicyGradient):
    """Trains a CycleScorer."""

    worlds, candidates_kept = SPECIMENS, CANDIDATES

    def __init__(self, config: IsingTraining, folder: str | os.PathLike):
        super().__init__(config, folder)
        self.envs = {name: vector_env(config.env_id, num_envs=SPECIMENS * TRIES, scenario=name, autoreset_mode="Disabled") for name in self._scenarios()}
        s = self.envs[config.scenario].episodes.task_of(IsingInferenceTask).settings
        torch.manual_seed(config.seed)
        self.policy = CycleScorer(s.temperatures, s.fields, s.holds, len(s.dwells), s.prior.mean(), s.prior.deviation())
        self.prepared(self.policy)
        self.start = {name: v.clone() for name, v in self.policy.state_dict().items()}

    def _scenarios(self) -> tuple[str, ...]:
        return (self.config.scenario, self.config.known) if self.config.scenario == "train" else (self.config.scenario,)

    # ---- training ----

    def learn(self) -> tuple[float, dict[str, float]]:
        loss = self._learn(*self._episodes())
        known = self.update % KNOWN_EVERY == KNOWN_EVERY - 1
        return loss, {f"outcome_{'known' if known else 'unknown'}": float(self.outcome.mean())}

    def _episodes(self) -> tuple[list[torch.Tensor], torch.Tensor]:
        """Play a batch; returns features, rules, prices, fits, actions and chances of some decisions, and the advantage of each."""
        update = self.update
        known = update % KNOWN_EVERY == KNOWN_EVERY - 1
        envs = self.envs[self._scenarios()[-1 if known else 0]]
        first, lanes = self.first_seed(update), SPECIMENS * TRIES
        observation, _ = envs.reset(seed=[first + lane // TRIES for lane in range(lanes)])
        generator = self.generator()
        agent = Annealer(self.policy, generator)
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
        tries = -self.outcome.reshape(SPECIMENS, TRIES)
        advantage = ((tries - tries.mean(1, keepdims=True)) / (0.5 * tries.std(1, keepdims=True) + 0.1)).astype(np.float32)
        return columns, torch.from_numpy(advantage.ravel())[torch.cat(counted)]

    def _learn(self, columns: list[torch.Tensor], advantage: torch.Tensor) -> float:
        *shown, number, before = columns
        losses = [
            self.descend(clipped_loss(SHARP * self.policy.scores(*(column[part] for column in shown)), number[part], before[part], advantage[part], ENTROPY))
            for part in self.epochs(len(number), EPOCHS, 256)
        ]
        return sum(losses) / len(losses)

    # ---- the end ----

    def agent(self) -> Annealer:
        return Annealer(self.policy)

    def first_candidates(self) -> list[State]:
        """The state before training, which is the rule alone."""
        return [self.start]

    def judged(self, episodes: int) -> dict[str, float]:
        """The error of J on the training scenarios."""
        errors = [evaluate(self.agent(), self.config.env_id, name, episodes, SELECTION_SEED).metrics["error"] for name in self._scenarios()]
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
    """The trainer of IsingInference for ``registry.DISTILLATIONS``."""
    return Trainer(IsingTraining(env_id, scenario, updates=updates, seed=seed), folder)
