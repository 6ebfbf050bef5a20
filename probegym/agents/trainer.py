"""What the trainers of policies share: the seeds they may use, checkpoints, and what they tell of how it goes."""

from __future__ import annotations

import math
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import nn

from probegym.agents import checkpoints
from probegym.agents.base import Agent
from probegym.agents.seeds import LAST_TRAINING_SEED
from probegym.errors import ProbeGymError

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

TOLD_EVERY = 20  # gradient steps


@dataclass
class Progress:
    """What a caller is told as training goes on; ``success`` is None between evaluations."""

    update: int
    loss: float
    success: float | None = None


Report = Callable[[Progress], None]


def descend(optimiser: torch.optim.Optimizer, loss: torch.Tensor, parameters: Iterable[nn.Parameter], most: float | None = 1.0) -> float:
    """A step against the gradient, whose norm is ``most`` at most (None: as long as it is); returns the loss."""
    optimiser.zero_grad()
    loss.backward()
    if most is not None:
        nn.utils.clip_grad_norm_(parameters, most)
    optimiser.step()
    return float(loss.detach())


class Resumable(ABC):
    """A training that goes on from its last checkpoint; ``folder`` receives that and TensorBoard logs. config: a dataclass with ``updates``."""

    def __init__(self, config: Any, folder: str | os.PathLike[str]):
        self.config, self.folder, self.update = config, Path(folder), 0

    # ---- what is told ----

    def logs(self) -> SummaryWriter:
        """TensorBoard's writer; a block ends it."""
        from torch.utils.tensorboard import SummaryWriter

        return SummaryWriter(str(self.folder / "tensorboard"))

    def tell(self, report: Report, loss: float, success: float | None = None) -> None:
        """Report where the training is, its loss and success rate; a last round may go past the number of updates that were asked for."""
        report(Progress(min(self.update, self.config.updates), loss, success))

    def measure(self, writer: SummaryWriter, report: Report, success: float) -> None:
        """Tell what an evaluation gave: the success rate."""
        writer.add_scalar("evaluate/success", success, self.update)
        self.tell(report, float("nan"), success)

    # ---- checkpoints ----

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps beside the number of updates: tensors and plain values."""

    @abstractmethod
    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what ``state`` gave."""

    @property
    def checkpoint(self) -> Path:
        """Where the last checkpoint lies."""
        return self.folder / "checkpoint.pt"

    def save(self) -> None:
        """Write the checkpoint atomically; raises ProbeGymError when it cannot be written."""
        checkpoints.write(self.checkpoint, self.config, update=self.update, **self.state())

    def load(self) -> None:
        """Go on from the checkpoint; raises ProbeGymError when it is damaged or of another training."""
        with checkpoints.read(self.checkpoint, self.config) as state:
            self.restore(state)
            self.update = int(state["update"])


class Trainer(Resumable):
    """Trains one policy on episodes.

    config: also with ``seed``. batches, worlds: how many batches of episodes there will be, and how many worlds, each with a seed of its
    own, a batch has. Raises ProbeGymError when a seed would be one that is kept for selection.
    """

    def __init__(self, config: Any, folder: str | os.PathLike[str], batches: int, worlds: int):
        super().__init__(config, folder)
        self.worlds = worlds
        if self.first_seed(batches) + worlds > LAST_TRAINING_SEED:
            raise ProbeGymError(f"seed {config.seed} with {config.updates} updates would train on seeds kept for selection: use a smaller seed")

    def first_seed(self, batch: int) -> int:
        """Of a batch's worlds."""
        return self.config.seed * 1_000_000 % LAST_TRAINING_SEED + batch * self.worlds


class ReaderTrainer(Trainer):
    """Trains a network that reads labelled observations, a batch a gradient step.

    config: with ``lanes`` and ``learning_rate``. episode: observations that an episode gives; checkpoints lie between episodes.
    """

    episode: ClassVar[int]
    reader: Any  # a network, as the trainer has it

    def __init__(self, config: Any, folder: str | os.PathLike[str]):
        super().__init__(config, folder, config.updates // self.episode + 1, config.lanes)

    def reads(self, reader: nn.Module) -> None:
        """Say what learns."""
        self.reader = reader
        self.optimiser = torch.optim.AdamW(reader.parameters(), lr=self.config.learning_rate, weight_decay=1e-3)

    @abstractmethod
    def lessons(self) -> AbstractContextManager[Iterator[Any]]:
        """Batches from ``self.update`` on, which is a multiple of ``episode``."""

    @abstractmethod
    def learn(self, *batch: Any) -> float:
        """One gradient step; returns the loss."""

    @abstractmethod
    def agent(self) -> Agent:
        """The policy as it stands."""

    def warm(self) -> None:
        """Set the learning rate: up within 100 steps, then down along a cosine."""
        done = self.update / self.config.updates
        for group in self.optimiser.param_groups:
            group["lr"] = self.config.learning_rate * min(1.0, (self.update + 1) / 100) * (0.003 + 0.5 * (1 + math.cos(math.pi * done)))

    def run(self, report: Report = lambda _: None, evaluate: Callable[[Agent], float] | None = None, evaluations: int = 5, checkpoint_every: int = 600) -> None:
        """Train to the end from wherever this trainer is; ``evaluate(agent)`` gives a success rate now and then."""
        updates, loss_sum, since = self.config.updates, 0.0, 0
        checkpoint_every -= checkpoint_every % self.episode
        with self.logs() as writer, self.lessons() as lessons:
            while self.update < updates:
                loss_sum, since, self.update = loss_sum + self.learn(*next(lessons)), since + 1, self.update + 1
                last = self.update == updates
                if self.update % TOLD_EVERY == 0 or last:
                    writer.add_scalar("train/loss", loss_sum / since, self.update)
                    self.tell(report, loss_sum / since)
                    loss_sum, since = 0.0, 0
                if evaluate and (self.update % max(1, updates // evaluations) == 0 or last):
                    self.measure(writer, report, evaluate(self.agent()))
                if self.update % checkpoint_every == 0 or last:
                    self.save()

    def state(self) -> dict[str, Any]:
        return {"reader": self.reader.state_dict(), "optimiser": self.optimiser.state_dict()}

    def restore(self, state: dict[str, Any]) -> None:
        self.reader.load_state_dict(state["reader"])
        self.optimiser.load_state_dict(state["optimiser"])
