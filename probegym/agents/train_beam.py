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

import gymnasium as gym
import numpy as np
import torch
from torch import nn

from probegym.agents import checkpoints
from probegym.agents.base import Agent
from probegym.agents.beam_networks import LANE, SEEN, Mover, RateBelief, Student, prior
from probegym.agents.distil import LAST_TRAINING_SEED, Progress
from probegym.agents.evaluate import evaluate
from probegym.agents.export import SELECTION_SEED, ship
from probegym.envs import beam_oracle
from probegym.envs.episodes import Episodes
from probegym.errors import ProbeGymError

WORLDS, TRIES = 96, 2  # of a batch, and of each world
EPOCHS, CLIP, ENTROPY, PART = 6, 0.2, 0.003, 1024
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


class Trainer:
    """Trains one policy; ``folder`` receives checkpoints and TensorBoard logs."""

    def __init__(self, config: BeamTraining, folder: str | os.PathLike):
        self.config, self.folder = config, Path(folder)
        if self._seed(config.updates) + WORLDS > LAST_TRAINING_SEED:
            raise ProbeGymError(f"seed {config.seed} with {config.updates} updates would train on seeds kept for selection: use a smaller seed")
        self.envs = gym.make_vec(config.env_id, num_envs=WORLDS * TRIES, scenario=config.scenario, autoreset_mode="Disabled")
        s = self.envs.episodes.task.settings
        if s.atoms > 1 or s.axes != "lattice":
            raise ProbeGymError(f"scenario {config.scenario!r} is not for one atom in the axes of the lattice: choose another")
        torch.manual_seed(config.seed)
        self.policy = Mover(RateBelief(*prior()), CURIOSITY, network=True, blank=s.dwell.blank, reach=s.reach)
        self.critic = nn.Sequential(nn.Linear(LANE + 2 * len(PATTERNS), 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 1))
        self.parameters = [*self.policy.network.parameters(), *self.critic.parameters()]
        self.optimiser = torch.optim.Adam(self.parameters, lr=config.learning_rate)
        self.update = 0
        self.candidates: list[dict[str, torch.Tensor]] = []

    def _seed(self, update: int) -> int:
        return self.config.seed * 1_000_000 % 9_000_000 + update * WORLDS

    # ---- training ----

    def episodes(self, update: int) -> list[torch.Tensor]:
        """Play a batch; returns rule, features, what the critic sees, choice, its chance, return and advantage of every decision."""
        lanes, episodes = WORLDS * TRIES, self.envs.episodes
        observation, info = self.envs.reset(seed=[self._seed(update) + lane // TRIES for lane in range(lanes)])
        hidden = torch.from_numpy(self._speeds(episodes)).float()
        agent = Student(self.policy, torch.Generator().manual_seed(self.config.seed * 1_000_003 + update))
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
        d, lobe = episodes.task.settings.dwell, episodes.truth["lobe"][::TRIES]
        dwells = d.shortest * (d.longest / d.shortest) ** np.linspace(0, 1, 5)
        image = episodes.task.settings.frame.duration
        speed = [beam_oracle.progress(lobe, np.tile(bonds, (len(lobe), 1)), dwells, image).max((1, 2)) for bonds in PATTERNS]
        speed = np.repeat(np.stack(speed, 1), TRIES, 0)
        return np.concatenate([np.log(np.maximum(speed, 1e-3)) / 3, 5 * speed], 1)

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
        generator = torch.Generator().manual_seed(self.update)
        advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-6)
        total, steps = 0.0, 0
        for _ in range(EPOCHS):
            for part in torch.randperm(len(rule), generator=generator).split(PART):
                chances = torch.log_softmax(self.policy.scores(rule[part], features[part]), 1)
                ratio = (chances.gather(1, choice[part]) - before[part])[:, 0].exp()
                gain = torch.minimum(ratio * advantage[part], ratio.clamp(1 - CLIP, 1 + CLIP) * advantage[part]).mean()
                entropy = -(chances.exp() * chances.clamp_min(-30)).sum(1).mean()
                miss = ((self.critic(sight[part])[:, 0] - returns[part]) ** 2).mean()
                loss = 0.5 * miss - gain - ENTROPY * entropy
                self.optimiser.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(self.parameters, 0.5)
                self.optimiser.step()
                total, steps = total + float(loss.detach()), steps + 1
        return total / steps

    def run(self, report: Callable[[Progress], None] = lambda _: None, evaluate: Callable[[Agent], float] | None = None,
            evaluations: int = 5, checkpoint_every: int = 5) -> None:  # fmt: skip
        """Train to the end from wherever this trainer is; ``evaluate(agent)`` gives a success rate now and then."""
        from torch.utils.tensorboard import SummaryWriter

        c = self.config
        with SummaryWriter(str(self.folder / "tensorboard")) as writer:
            while self.update < c.updates:
                for group in self.optimiser.param_groups:
                    group["lr"] = c.learning_rate * (1 - 0.9 * self.update / c.updates)
                loss = self._learn(*self.episodes(self.update))
                self.update += 1
                last = self.update == c.updates
                writer.add_scalar("train/loss", loss, self.update)
                writer.add_scalar("train/seconds", self.outcome.mean(), self.update)
                report(Progress(self.update, loss))
                if evaluate and (self.update % max(1, c.updates // evaluations) == 0 or last):
                    success = evaluate(Student(self.policy))
                    writer.add_scalar("evaluate/success", success, self.update)
                    report(Progress(self.update, float("nan"), success))
                if self.update % max(1, c.updates // 20) == 0 or last:
                    self.candidates = [*self.candidates, {name: v.clone() for name, v in self.policy.network.state_dict().items()}][-CANDIDATES:]
                if self.update % checkpoint_every == 0 or last:
                    self.save()

    # ---- checkpoints ----

    @property
    def checkpoint(self) -> Path:
        """Where the last checkpoint lies."""
        return self.folder / "checkpoint.pt"

    def save(self) -> None:
        """Write the checkpoint atomically; raises ProbeGymError when it cannot be written."""
        parts = {name: getattr(self, name).state_dict() for name in ("critic", "optimiser")} | {"network": self.policy.network.state_dict()}
        checkpoints.write(self.checkpoint, self.config, update=self.update, candidates=self.candidates, **parts)

    def load(self) -> None:
        """Go on from the checkpoint; raises ProbeGymError when it is damaged or of another training."""
        with checkpoints.read(self.checkpoint, self.config) as state:
            self.policy.network.load_state_dict(state["network"])
            self.critic.load_state_dict(state["critic"])
            self.optimiser.load_state_dict(state["optimiser"])
            self.candidates, self.update = list(state["candidates"]), int(state["update"])

    # ---- the end ----

    def choose(self, episodes: int, report: Callable[[int, int], None] = lambda *_: None) -> list[dict[str, float]]:
        """Take over the best of the last states, by the mean seconds to the goal on the training scenario; returns what each gave."""
        tried, states = [], self.candidates or [self.policy.network.state_dict()]
        for number, state in enumerate(states):
            report(number, len(states))
            self.policy.network.load_state_dict(state)
            results = evaluate(Student(self.policy), self.config.env_id, self.config.scenario, episodes, SELECTION_SEED)
            seconds = np.where(results.success, results.costs["time"], self.envs.episodes.limits["time"])
            tried.append({"seconds": float(seconds.mean()), "success": float(results.success.mean()), "damage": float(results.costs["damage"].mean())})
        report(len(states), len(states))
        self.policy.network.load_state_dict(states[min(range(len(states)), key=lambda i: tried[i]["seconds"])])
        return tried

    def finish(self, folder: Path, command: str, episodes: int, report: Callable[[int, int], None] = lambda *_: None) -> Path:
        """Choose the state and write the bundle; returns its folder."""
        tried = self.choose(episodes, report)
        observation, _ = self.envs.reset(seed=SELECTION_SEED)
        shown = {name: observation[name][:4] for name in SEEN}
        memory = dict(zip(("belief", "place"), self.policy.memory(4), strict=True))
        rule = f"least mean seconds to the goal of the last {CANDIDATES} states on the training scenario, {episodes} episodes, seeds from {SELECTION_SEED}"
        return ship(folder, self.policy, self.config, self.envs.episodes.task, shown, memory, command, selection={"rule": rule, "tried": tried})


def mover(env_id: str, scenario: str, updates: int, seed: int, folder: Path) -> Trainer:
    """The trainer of BeamManipulation for ``registry.DISTILLATIONS``."""
    return Trainer(BeamTraining(env_id, scenario, updates=updates, seed=seed), folder)
