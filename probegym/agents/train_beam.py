"""Training of the beam-manipulation policy: it starts from a rule on an exact belief and tries what is better.

The rule takes what brings the atom nearer the goal fastest and adds the worth of information. A network corrects its scores;
it learns by policy gradient with clipped ratios (PPO: Schulman et al. 2017, arXiv:1707.06347; advantages as of Schulman et al.
2016, arXiv:1506.02438) on microscope-seconds to the goal. Only the critic sees how fast the hidden rates let an atom move.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from probegym.agents.beam_networks import LANE, SEEN, Mover, RateBelief, Student, prior
from probegym.agents.evaluate import evaluate
from probegym.agents.export import ship
from probegym.agents.policy_gradient import PolicyGradient, clipped_loss
from probegym.agents.seeds import SELECTION_SEED
from probegym.envs import beam_oracle, vector_env
from probegym.envs.beam_manipulation import BeamManipulationTask
from probegym.envs.episodes import Episodes
from probegym.errors import ProbeGymError

WORLDS, TRIES = 96, 2  # of a batch, and of each world
EPOCHS, ENTROPY, PART = 6, 0.003, 1024
TRACE = 0.95  # of advantages
SCALE = 100.0  # s, in which the critic counts
DAMAGE = 20.0  # s, that an event of damage costs
CURIOSITY = 3.0  # bonds a nat, of the rule
CANDIDATES = 4  # last states that may be chosen
PATTERNS = np.array([(4, -2, -2), (4, 3, -7)])  # bonds to a goal with one and with two neighbours on the way


@dataclass(frozen=True)
class BeamTraining:
    """What is trained and how; ``updates`` batches of episodes."""

    env_id: str = "probegym/BeamManipulation-v0"
    scenario: str = "train"
    updates: int = 120
    learning_rate: float = 5e-4
    seed: int = 1


class Trainer(PolicyGradient):
    """Trains a Mover, with a critic that sees the hidden rates."""

    worlds, candidates_kept = WORLDS, CANDIDATES

    def __init__(self, config: BeamTraining, folder: str | os.PathLike):
        super().__init__(config, folder)
        self.envs = vector_env(config.env_id, num_envs=self.worlds * TRIES, scenario=config.scenario, autoreset_mode="Disabled")
        s = self.envs.episodes.task_of(BeamManipulationTask).settings
        if s.atoms > 1 or s.axes != "lattice":
            raise ProbeGymError(f"scenario {config.scenario!r} is not for one atom in the axes of the lattice: choose another")
        torch.manual_seed(config.seed)
        self.policy = Mover(RateBelief(*prior()), CURIOSITY, network=True, blank=s.dwell.blank, reach=s.reach)
        self.critic = nn.Sequential(nn.Linear(LANE + 2 * len(PATTERNS), 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 1))
        assert self.policy.network is not None
        self.prepared(self.policy.network, self.critic)

    # ---- training ----

    def learn(self) -> tuple[float, dict[str, float]]:
        loss = self._learn(*self._episodes())
        return loss, {"seconds": float(self.outcome.mean())}

    def _episodes(self) -> list[torch.Tensor]:
        """Play a batch; returns rule, features, what the critic sees, choice, its chance, return and advantage of every decision."""
        lanes, episodes = self.worlds * TRIES, self.envs.episodes
        observation, info = self.envs.reset(seed=[self.first_seed(self.update) + lane // TRIES for lane in range(lanes)])
        hidden = torch.from_numpy(self._speeds(episodes)).float()
        agent = Student(self.policy, self.generator())
        agent.begin(lanes, 0)
        running, costs, spent = np.ones(lanes, bool), [], info["time"] + DAMAGE * info["damage"]
        self.outcome = np.full(lanes, episodes.limits["time"])
        while running.any():
            observation, _, terminated, truncated, info = self.envs.step(agent.decide(observation, np.flatnonzero(running)))
            ended = running & (terminated | truncated)
            cost = np.where(running, info["time"] + DAMAGE * info["damage"] - spent, 0)
            given_up = ended & ~info["is_success"]
            cost += np.where(given_up, np.maximum(episodes.limits["time"] - info["time"], 0), 0)
            self.outcome[ended & info["is_success"]] = info["time"][ended & info["is_success"]]
            spent = np.where(running, info["time"] + DAMAGE * info["damage"], spent)
            costs.append(torch.from_numpy(cost / SCALE).float())
            running &= ~ended
        return self._judged(agent.kept, costs, hidden)

    @staticmethod
    def _speeds(episodes: Episodes) -> np.ndarray:
        """(lanes, 2 * patterns) logarithms and values of the fastest progress that the hidden rates allow."""
        s, lobe = episodes.task_of(BeamManipulationTask).settings, episodes.truth["lobe"][::TRIES]
        d = s.dwell
        dwells = d.shortest * (d.longest / d.shortest) ** np.linspace(0, 1, 5)
        image = s.frame.duration
        speed = [beam_oracle.progress(lobe, np.tile(bonds, (len(lobe), 1)), dwells, image).max((1, 2)) for bonds in PATTERNS]
        fastest = np.repeat(np.stack(speed, 1), TRIES, 0)
        return np.concatenate([np.log(np.maximum(fastest, 1e-3)) / 3, 5 * fastest], 1)

    def _judged(self, kept: list[tuple[torch.Tensor, ...]], costs: list[torch.Tensor], hidden: torch.Tensor) -> list[torch.Tensor]:
        after = advantage = torch.zeros(len(hidden))
        columns: list[tuple[torch.Tensor, ...]] = []
        for (lanes, rule, features, lane, choice, chance), cost in zip(reversed(kept), reversed(costs), strict=True):
            sight = torch.cat([lane, hidden[lanes]], 1)
            with torch.no_grad():
                now = torch.zeros(len(hidden)).index_put((lanes,), self.critic(sight)[:, 0])
            advantage = -cost + after - now + TRACE * advantage
            advantage = torch.zeros_like(now).index_put((lanes,), advantage[lanes])
            columns.append((rule, features, sight, choice, chance, (advantage + now)[lanes], advantage[lanes]))
            after = now
        return [torch.cat(column) for column in zip(*columns, strict=True)]

    def _learn(self, rule, features, sight, choice, before, returns, advantage) -> float:
        advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-6)
        losses = []
        for part in self.epochs(len(rule), EPOCHS, PART):
            gain = clipped_loss(self.policy.scores(rule[part], features[part]), choice[part][:, 0], before[part][:, 0], advantage[part], ENTROPY)
            miss = ((self.critic(sight[part])[:, 0] - returns[part]) ** 2).mean()
            losses.append(self.descend(0.5 * miss + gain))
        return sum(losses) / len(losses)

    # ---- the end ----

    def agent(self) -> Student:
        return Student(self.policy)

    def judged(self, episodes: int) -> dict[str, float]:
        """Mean seconds to the goal, success rate and events of damage an episode on the training scenario."""
        results = evaluate(self.agent(), self.config.env_id, self.config.scenario, episodes, SELECTION_SEED)
        seconds = np.where(results.success, results.costs["time"], self.envs.episodes.limits["time"])
        return {"seconds": float(seconds.mean()), "success": float(results.success.mean()), "damage": float(results.costs["damage"].mean())}

    def finish(self, folder: Path, command: str, episodes: int, report: Callable[[int, int], None] = lambda *_: None) -> Path:
        """Choose the state and write the bundle; returns its folder."""
        what = f"least mean seconds to the goal of the last {CANDIDATES} states on the training scenario, {episodes} episodes"
        selection = self.selection(episodes, what, report)
        observation, _ = self.envs.reset(seed=SELECTION_SEED)
        shown = {name: observation[name][:4] for name in SEEN}
        memory = dict(zip(("belief", "place"), self.policy.memory(4), strict=True))
        return ship(folder, self.policy, self.config, self.envs.episodes.task, shown, memory, command, selection=selection)


def mover(env_id: str, scenario: str, updates: int, seed: int, folder: Path) -> Trainer:
    """The trainer of BeamManipulation for ``registry.OWN_TRAINERS``."""
    return Trainer(BeamTraining(env_id, scenario, updates=updates, seed=seed), folder)
