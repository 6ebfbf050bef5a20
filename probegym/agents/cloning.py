"""Behaviour cloning: a network without memory that learns to do what the agents of a data set did (Pomerleau 1991, 10.1162/neco.1991.3.1.88).

The baseline of offline learning. A tenth of the episodes is held out; the state with the least error there becomes the policy.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from minari import MinariDataset
from torch import nn

from probegym.agents import datasets
from probegym.agents.base import Agent
from probegym.agents.export import ship
from probegym.agents.seeds import SELECTION_SEED
from probegym.agents.trainer import Report, Resumable, descend
from probegym.envs import vector_env
from probegym.envs.actions import bounds
from probegym.envs.episodes import Episodes
from probegym.envs.task import Observation, shape_of
from probegym.errors import ProbeGymError

UPDATES = 1000
HELD_OUT = 0.1  # of the episodes
SMALLEST_IMAGE = 16  # pixels a side; smaller arrays are read as plain numbers
LARGEST = 5.0  # deviations from the mean that a number counts
LEAST_DEVIATION = 1e-3


@dataclass(frozen=True)
class Cloning:
    """What is trained and how. data: id of the data set, with its number of steps; ``updates`` gradient steps in all."""

    data: str
    steps: int
    env_id: str
    scenario: str
    updates: int = UPDATES
    batch: int = 128
    learning_rate: float = 1e-3
    seed: int = 1


class Reader(nn.Module):
    """One entry of an observation (n, ...) -> features (n, width), standardised by what the data set holds of it."""

    mean: torch.Tensor
    deviation: torch.Tensor

    def __init__(self, example: torch.Tensor):
        super().__init__()
        x = example.float()
        image = x.dim() == 4 and min(x.shape[-2:]) >= SMALLEST_IMAGE
        axes = (0, 2, 3) if image else (0,)
        self.register_buffer("mean", x.mean(axes, keepdim=True)[0])
        self.register_buffer("deviation", x.std(axes, keepdim=True, correction=0)[0].clamp_min(LEAST_DEVIATION))
        layers: list[nn.Module] = []
        if image:
            widths, side = (x.shape[1], 16, 32, 32, 32), max(x.shape[-2:])
            for number in range(4):
                layers += [nn.Conv2d(widths[number], widths[number + 1], 3, 2, 1), nn.SiLU()]
                side = (side + 1) // 2
            layers.append(nn.AdaptiveAvgPool2d(1) if side > 8 else nn.Identity())
        self.layers = nn.Sequential(*layers, nn.Flatten())
        with torch.no_grad():
            self.width = self.layers(x[:1]).shape[1]

    def forward(self, entry: torch.Tensor) -> torch.Tensor:
        return self.layers(((entry.float() - self.mean) / self.deviation).clamp(-LARGEST, LARGEST))


class Cloned(nn.Module):
    """Observations, in the order of ``names`` -> actions (n, ...): within their bounds, or the likeliest whole numbers."""

    low: torch.Tensor
    span: torch.Tensor

    def __init__(self, examples: dict[str, torch.Tensor], space: gym.Space, width: int = 256):
        super().__init__()
        self.names = list(examples)
        readers = [Reader(example) for example in examples.values()]
        self.readers = nn.ModuleList(readers)
        low, high = (torch.as_tensor(np.asarray(bound, np.float64 if isinstance(space, gym.spaces.Box) else np.int64)) for bound in bounds(space))
        self.whole, self.shape = not isinstance(space, gym.spaces.Box), shape_of(space)
        self.choices = (high - low + 1).reshape(-1).tolist() if self.whole else []
        self.register_buffer("low", low if self.whole else low.float())
        self.register_buffer("span", (high - low).float())
        outputs = sum(self.choices) if self.whole else int(np.prod(self.shape))
        inputs = sum(reader.width for reader in readers)
        self.trunk = nn.Sequential(nn.Linear(inputs, width), nn.LayerNorm(width), nn.SiLU(), nn.Linear(width, width), nn.LayerNorm(width), nn.SiLU(), nn.Linear(width, outputs))

    def scores(self, observations: tuple[torch.Tensor, ...]) -> torch.Tensor:
        """What actions are chosen by, (n, outputs)."""
        return self.trunk(torch.cat([reader(entry) for reader, entry in zip(self.readers, observations, strict=True)], 1))

    def forward(self, *observations: torch.Tensor) -> torch.Tensor:
        scores = self.scores(observations)
        if not self.whole:
            return self.low + self.span * (torch.tanh(scores).reshape(-1, *self.shape) + 1) / 2
        best = torch.stack([part.argmax(1) for part in scores.split(self.choices, 1)], 1)
        return best.reshape(-1, *self.shape) + self.low

    def loss(self, observations: tuple[torch.Tensor, ...], actions: torch.Tensor) -> torch.Tensor:
        """Mean cross-entropy of whole numbers, summed over those of one action; mean squared difference of others, in units of half the range."""
        scores = self.scores(observations)
        if not self.whole:
            return ((torch.tanh(scores).reshape(actions.shape) - (2 * (actions - self.low) / self.span - 1)) ** 2).mean()
        wanted = (actions - self.low).reshape(len(actions), -1)
        return torch.stack([nn.functional.cross_entropy(part, wanted[:, i]) for i, part in enumerate(scores.split(self.choices, 1))]).sum()


class Copy(Agent):
    """A policy that is still a torch module."""

    def __init__(self, policy: Cloned):
        self.policy = policy

    def begin(self, lanes: int, seed: int) -> None:
        pass

    def act(self, observation: Observation, episodes: Episodes) -> np.ndarray:
        self.policy.eval()
        with torch.no_grad():
            return self.policy(*(torch.from_numpy(observation[name]) for name in self.policy.names)).numpy()


def lessons(dataset: MinariDataset, seed: int) -> list[tuple[dict[str, torch.Tensor], torch.Tensor]]:
    """(observations, actions) of the episodes to learn from, and of those held out. Raises ProbeGymError where there is one episode only."""
    if len(dataset) < 2:
        raise ProbeGymError(f"data set {dataset.id} has one episode, and some are held out: record more")
    mixed = np.random.default_rng(seed).permutation(len(dataset))
    held = max(1, round(HELD_OUT * len(mixed)))
    parts = []
    for numbers in (np.sort(mixed[held:]), np.sort(mixed[:held])):
        read = list(dataset.iterate_episodes(dataset.episode_indices[numbers]))
        seen = {name: torch.from_numpy(np.concatenate([e.observations[name][:-1] for e in read])) for name in dataset.observation_space.spaces}
        parts.append((seen, torch.from_numpy(np.concatenate([e.actions for e in read]))))
    return parts


class Cloner(Resumable):
    """The trainer, as ``registry.Learner`` wants it."""

    def __init__(self, dataset: MinariDataset, folder: str | os.PathLike[str], updates: int = UPDATES, seed: int = 1):
        env_id, scenario = datasets.origin(dataset)
        super().__init__(Cloning(dataset.id, int(dataset.total_steps), env_id, scenario, updates, seed=seed), folder)
        self.dataset = dataset
        (self.seen, self.done), (self.seen_held, self.done_held) = lessons(dataset, seed)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.policy = Cloned(self.seen, dataset.action_space)
        self.optimiser = torch.optim.AdamW(self.policy.parameters(), self.config.learning_rate, weight_decay=0.01)
        self.best, self.least = {name: v.clone() for name, v in self.policy.state_dict().items()}, float("inf")

    def _learn(self) -> float:
        """One gradient step on steps drawn by the seed and its number; returns the loss."""
        c = self.config
        for group in self.optimiser.param_groups:
            group["lr"] = c.learning_rate * 0.5 * (1 + math.cos(math.pi * self.update / c.updates))
        part = torch.randint(len(self.done), (c.batch,), generator=torch.Generator().manual_seed(c.seed * 1_000_003 + self.update))
        loss = self.policy.loss(tuple(v[part] for v in self.seen.values()), self.done[part])
        return descend(self.optimiser, loss, self.policy.parameters())

    def held_out(self) -> float:
        """The loss on the episodes that are held out."""
        self.policy.eval()
        with torch.no_grad():
            losses = [float(self.policy.loss(tuple(v[part] for v in self.seen_held.values()), self.done_held[part])) * len(part)
                      for part in torch.arange(len(self.done_held)).split(512)]  # fmt: skip
        self.policy.train()
        return sum(losses) / len(self.done_held)

    def run(self, report: Report = lambda _: None, evaluate: Callable[[Agent], float] | None = None, evaluations: int = 20) -> None:
        """Train to the end from wherever this trainer is; ``evaluate(agent)`` gives a success rate now and then."""
        c = self.config
        every = max(1, c.updates // evaluations)
        with self.logs() as writer:
            while self.update < c.updates:
                loss = self._learn()
                self.update += 1
                self.tell(report, loss)
                if self.update % every and self.update < c.updates:
                    continue
                held = self.held_out()
                writer.add_scalar("train/loss", loss, self.update)
                writer.add_scalar("train/held_out", held, self.update)
                if held < self.least:
                    self.best, self.least = {name: v.clone() for name, v in self.policy.state_dict().items()}, held
                if evaluate is not None:
                    self.measure(writer, report, evaluate(Copy(self.policy)))
                self.save()

    def state(self) -> dict[str, Any]:
        return {"policy": self.policy.state_dict(), "optimiser": self.optimiser.state_dict(), "best": self.best, "least": self.least}

    def restore(self, state: dict[str, Any]) -> None:
        self.policy.load_state_dict(state["policy"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.best, self.least = dict(state["best"]), float(state["least"])

    def finish(self, folder: Path, command: str, episodes: int = 0, report: Callable[[int, int], None] = lambda *_: None) -> Path:
        """Write the bundle of the state with the least error on held-out episodes; returns its folder. No episodes are played for that."""
        self.policy.load_state_dict(self.best)
        envs = vector_env(self.config.env_id, num_envs=4, scenario=self.config.scenario)
        observation, _ = envs.reset(seed=SELECTION_SEED)
        told = self.dataset.storage.metadata
        data = {"id": self.config.data, "agents": told["probegym"]["agents"], "steps": self.config.steps, "code": told["code_permalink"]}
        selection = {"rule": f"least loss on {HELD_OUT:.0%} of the episodes, which are held out", "loss": self.least}
        return ship(folder, self.policy, self.config, envs.unwrapped.episodes.task, {name: observation[name] for name in self.policy.names}, {}, command,
                    algorithm="bc", data=data, selection=selection)  # fmt: skip
