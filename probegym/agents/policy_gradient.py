"""What trainers by policy gradient share: the loop over batches, checkpoints, the loss, and the choice among the last states."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn

from probegym.agents import checkpoints
from probegym.agents.base import Agent
from probegym.agents.distil import LAST_TRAINING_SEED, Progress
from probegym.agents.export import SELECTION_SEED
from probegym.errors import ProbeGymError

CLIP = 0.2

State = dict[str, torch.Tensor]


def clipped_loss(scores: torch.Tensor, chosen: torch.Tensor, before: torch.Tensor, advantage: torch.Tensor, entropy: float) -> torch.Tensor:
    """The loss of PPO (Schulman et al. 2017, arXiv:1707.06347), less ``entropy`` times that of the choice.

    scores: (n, choices). chosen: (n,) indices. before: (n,) logarithms of their chances when they were made. advantage: (n,).
    """
    chances = torch.log_softmax(scores, 1)
    ratio = (chances.gather(1, chosen[:, None])[:, 0] - before).exp()
    gain = torch.minimum(ratio * advantage, ratio.clamp(1 - CLIP, 1 + CLIP) * advantage).mean()
    spread = -(chances.exp() * chances.clamp_min(-30)).sum(1).mean()
    return -gain - entropy * spread


class PolicyGradient(ABC):
    """Trains one policy; ``folder`` receives checkpoints and TensorBoard logs.

    config: with ``seed``, ``updates`` and ``learning_rate``, which falls to a tenth. worlds: how many a batch has, each with a seed of its own.
    candidates_kept: how many of the last states may be chosen. also_kept: attributes that a checkpoint keeps beside what learns.
    """

    worlds: ClassVar[int]
    candidates_kept: ClassVar[int]
    also_kept: ClassVar[tuple[str, ...]] = ()

    def __init__(self, config: Any, folder: str | os.PathLike):
        self.config, self.folder = config, Path(folder)
        if self.first_seed(config.updates) + self.worlds > LAST_TRAINING_SEED:
            raise ProbeGymError(f"seed {config.seed} with {config.updates} updates would train on seeds kept for selection: use a smaller seed")
        self.update = 0
        self.candidates: list[State] = []

    def prepared(self, network: nn.Module, *others: nn.Module) -> None:
        """Say what learns. network: what the policy decides by, the states of which are candidates."""
        self.network, self.others = network, others
        self.parameters = [parameter for module in (network, *others) for parameter in module.parameters()]
        self.optimiser = torch.optim.Adam(self.parameters, lr=self.config.learning_rate)

    # ---- what a trainer says ----

    @abstractmethod
    def learn(self) -> tuple[float, dict[str, float]]:
        """Play the batch of ``self.update`` and learn of it; returns the loss, and figures for TensorBoard."""

    @abstractmethod
    def agent(self) -> Agent:
        """The policy as it stands, which takes what it holds for best."""

    @abstractmethod
    def judged(self, episodes: int) -> dict[str, float]:
        """What the policy as it stands gives on training scenarios; the less of the first figure the better."""

    # ---- for its use ----

    def first_seed(self, update: int) -> int:
        """Of a batch's worlds."""
        return self.config.seed * 1_000_000 % 9_000_000 + update * self.worlds

    def generator(self) -> torch.Generator:
        """By which the actions of a batch are drawn."""
        return torch.Generator().manual_seed(self.config.seed * 1_000_003 + self.update)

    def descend(self, loss: torch.Tensor, most: float | None = 0.5) -> float:
        """A step against the gradient, whose norm is ``most`` at most; returns the loss."""
        self.optimiser.zero_grad()
        loss.backward()
        if most is not None:
            nn.utils.clip_grad_norm_(self.parameters, most)
        self.optimiser.step()
        return float(loss.detach())

    def epochs(self, rows: int, count: int, size: int) -> Iterable[torch.Tensor]:
        """Indices (size,) of the parts of ``count`` passes over a batch's decisions, in an order of its own each."""
        generator = torch.Generator().manual_seed(self.update)
        for _ in range(count):
            yield from torch.randperm(rows, generator=generator).split(size)

    # ---- training ----

    def run(self, report: Callable[[Progress], None] = lambda _: None, evaluate: Callable[[Agent], float] | None = None,
            evaluations: int = 5, checkpoint_every: int = 5) -> None:  # fmt: skip
        """Train to the end from wherever this trainer is; ``evaluate(agent)`` gives a success rate now and then."""
        from torch.utils.tensorboard import SummaryWriter

        c = self.config
        with SummaryWriter(str(self.folder / "tensorboard")) as writer:
            while self.update < c.updates:
                for group in self.optimiser.param_groups:
                    group["lr"] = c.learning_rate * (1 - 0.9 * self.update / c.updates)
                loss, figures = self.learn()
                self.update += 1
                last = self.update == c.updates
                for name, value in {"loss": loss, **figures}.items():
                    writer.add_scalar(f"train/{name}", value, self.update)
                report(Progress(self.update, loss))
                if evaluate and (self.update % max(1, c.updates // evaluations) == 0 or last):
                    success = evaluate(self.agent())
                    writer.add_scalar("evaluate/success", success, self.update)
                    report(Progress(self.update, float("nan"), success))
                if self.update % max(1, c.updates // 20) == 0 or last:
                    self.candidates = [*self.candidates, {name: v.clone() for name, v in self.network.state_dict().items()}][-self.candidates_kept :]
                if self.update % checkpoint_every == 0 or last:
                    self.save()

    # ---- checkpoints ----

    @property
    def checkpoint(self) -> Path:
        """Where the last checkpoint lies."""
        return self.folder / "checkpoint.pt"

    def save(self) -> None:
        """Write the checkpoint atomically; raises ProbeGymError when it cannot be written."""
        state = {"optimiser": self.optimiser.state_dict(), "modules": [module.state_dict() for module in (self.network, *self.others)], "also": {name: getattr(self, name) for name in self.also_kept}}
        checkpoints.write(self.checkpoint, self.config, update=self.update, candidates=self.candidates, **state)

    def load(self) -> None:
        """Go on from the checkpoint; raises ProbeGymError when it is damaged or of another training."""
        with checkpoints.read(self.checkpoint, self.config) as state:
            for module, kept in zip((self.network, *self.others), state["modules"], strict=True):
                module.load_state_dict(kept)
            self.optimiser.load_state_dict(state["optimiser"])
            for name in self.also_kept:
                setattr(self, name, state["also"][name])
            self.candidates, self.update = list(state["candidates"]), int(state["update"])

    # ---- the end ----

    def first_candidates(self) -> list[State]:
        """States that may be chosen beside the last ones."""
        return []

    def choose(self, episodes: int, report: Callable[[int, int], None] = lambda *_: None) -> list[dict[str, float]]:
        """Take over the best of the states that may be chosen; returns what each gave."""
        tried, states = [], [*self.first_candidates(), *self.candidates] or [self.network.state_dict()]
        for number, state in enumerate(states):
            report(number, len(states))
            self.network.load_state_dict(state)
            tried.append(self.judged(episodes))
        report(len(states), len(states))
        best = next(iter(tried[0]))
        self.network.load_state_dict(states[min(range(len(states)), key=lambda i: tried[i][best])])
        return tried

    def selection(self, episodes: int, what: str, report: Callable[[int, int], None]) -> dict[str, Any]:
        """Choose, and say how, for the bundle."""
        tried = self.choose(episodes, report)
        return {"rule": f"{what}, seeds from {SELECTION_SEED}", "tried": tried}
