"""What trainers by policy gradient share: the loop over batches, checkpoints, the loss, and the choice among the last states."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Callable, Iterable
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn

from probegym.agents import trainer
from probegym.agents.base import Agent
from probegym.agents.seeds import SELECTION_SEED
from probegym.agents.trainer import Report, Trainer
from probegym.envs import vector_env
from probegym.envs.core import ScopeVectorEnv
from probegym.envs.episodes import Episodes
from probegym.envs.task import Observation

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


class Chooser(Agent):
    """A policy that is still a torch module; ``generator``: to draw choices by their chances, else the best is taken.

    policy: has ``features`` of what it is shown, ``scores`` (lanes, choices) of these, and ``actions`` (lanes, ...) of choices (lanes,). seen: what of an observation it is shown. sharp: factor on the scores when choices are drawn. ``kept``: what each step that was drawn
    was shown, what it chose, and the logarithm of the chance of that.
    """

    def __init__(self, policy: Any, seen: tuple[str, ...], generator: torch.Generator | None = None, sharp: float = 1.0):
        self.policy, self.seen, self.generator, self.sharp = policy, seen, generator, sharp

    def begin(self, lanes: int, seed: int) -> None:
        self.kept: list[tuple[torch.Tensor, ...]] = []

    @torch.no_grad()
    def act(self, observation: Observation, episodes: Episodes) -> np.ndarray:
        shown = self.policy.features(*(torch.from_numpy(observation[name]) for name in self.seen))
        scores = self.policy.scores(*shown)
        number = scores.argmax(1)
        if self.generator is not None:
            chances = torch.log_softmax(self.sharp * scores, 1)
            number = torch.multinomial(chances.exp(), 1, generator=self.generator)[:, 0]
            self.kept.append((*shown, number, chances.gather(1, number[:, None])[:, 0]))
        action: np.ndarray = self.policy.actions(number).numpy()
        return action


class PolicyGradient(Trainer):
    """Trains one policy by what its episodes gave.

    config: with ``seed``, ``updates`` and ``learning_rate``, which falls to a tenth. worlds: how many a batch has, each with a seed of its own.
    candidates_kept: how many of the last states may be chosen. also_kept: attributes that a checkpoint keeps beside what learns.
    """

    worlds: int
    candidates_kept: ClassVar[int]
    also_kept: ClassVar[tuple[str, ...]] = ()

    def __init__(self, config: Any, folder: str | os.PathLike):
        super().__init__(config, folder, config.updates, self.worlds)
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
        """What the policy as it stands gives on training scenarios: means by name, in the units of their metrics; the less of the first the better."""

    # ---- for its use ----

    def generator(self) -> torch.Generator:
        """By which the actions of a batch are drawn."""
        return torch.Generator().manual_seed(self.config.seed * 1_000_003 + self.update)

    def descend(self, loss: torch.Tensor, most: float | None = 0.5) -> float:
        """A step against the gradient, whose norm is ``most`` at most; returns the loss."""
        return trainer.descend(self.optimiser, loss, self.parameters, most)

    def epochs(self, rows: int, count: int, size: int) -> Iterable[torch.Tensor]:
        """Indices (size,) of the parts of ``count`` passes over a batch's decisions, in an order of its own each."""
        generator = torch.Generator().manual_seed(self.update)
        for _ in range(count):
            yield from torch.randperm(rows, generator=generator).split(size)

    # ---- training ----

    def run(self, report: Report = lambda _: None, evaluate: Callable[[Agent], float] | None = None,
            evaluations: int = 5, checkpoint_every: int = 5) -> None:  # fmt: skip
        """Train to the end from wherever this trainer is; ``evaluate(agent)`` gives a success rate now and then."""
        c = self.config
        with self.logs() as writer:
            while self.update < c.updates:
                for group in self.optimiser.param_groups:
                    group["lr"] = c.learning_rate * (1 - 0.9 * self.update / c.updates)
                loss, figures = self.learn()
                self.update += 1
                last = self.update == c.updates
                for name, value in {"loss": loss, **figures}.items():
                    writer.add_scalar(f"train/{name}", value, self.update)
                self.tell(report, loss)
                if evaluate and (self.update % max(1, c.updates // evaluations) == 0 or last):
                    self.measure(writer, report, evaluate(self.agent()))
                if self.update % max(1, c.updates // 20) == 0 or last:
                    self.candidates = [*self.candidates, {name: v.clone() for name, v in self.network.state_dict().items()}][-self.candidates_kept :]
                if self.update % checkpoint_every == 0 or last:
                    self.save()

    # ---- checkpoints ----

    def state(self) -> dict[str, Any]:
        modules = [module.state_dict() for module in (self.network, *self.others)]
        return {"candidates": self.candidates, "optimiser": self.optimiser.state_dict(), "modules": modules, "also": {name: getattr(self, name) for name in self.also_kept}}

    def restore(self, state: dict[str, Any]) -> None:
        for module, kept in zip((self.network, *self.others), state["modules"], strict=True):
            module.load_state_dict(kept)
        self.optimiser.load_state_dict(state["optimiser"])
        for name in self.also_kept:
            setattr(self, name, state["also"][name])
        self.candidates = list(state["candidates"])

    # ---- the end ----

    def first_candidates(self) -> list[State]:
        """States that may be chosen beside the last ones."""
        return []

    def choose(self, episodes: int, report: Callable[[int, int], None] = lambda *_: None) -> list[dict[str, float]]:
        """Take over the best of the states that may be chosen; returns what each gave, in the units of ``judged``."""
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


class Rivals(PolicyGradient):
    """Tries every specimen several times and prefers what came out better, so that no critic is needed (as in GRPO: Shao et al. 2024,
    arXiv:2402.03300).

    Where the scenario is ``train``, every ``known_every``-th batch is of ``config.known``, in which something hidden is told. tries: of each
    specimen.
    """

    tries: ClassVar[int]
    known_every: ClassVar[int] = 3
    outcome: np.ndarray  # (lanes,) of the last batch, the less the better

    def __init__(self, config: Any, folder: str | os.PathLike):
        super().__init__(config, folder)
        self.lanes = self.worlds * self.tries
        self.scenarios = (config.scenario, config.known) if config.scenario == "train" else (config.scenario,)
        self.envs = {name: vector_env(config.env_id, num_envs=self.lanes, scenario=name, autoreset_mode="Disabled") for name in self.scenarios}

    def begun(self) -> tuple[ScopeVectorEnv, Observation]:
        """The environments of this update's batch and their first observation: every specimen ``tries`` times."""
        envs, first = self.envs[self.scenarios[-1 if self._known() else 0]], self.first_seed(self.update)
        return envs, envs.reset(seed=[first + lane // self.tries for lane in range(self.lanes)])[0]

    def figures(self) -> dict[str, float]:
        """The mean of ``outcome`` (in its unit), which the batch left, for TensorBoard."""
        return {f"outcome_{'known' if self._known() else 'unknown'}": float(self.outcome.mean())}

    def advantage(self, least: float) -> np.ndarray:
        """(lanes,) how much less ``outcome`` (lanes,) is than that of the other tries, in half of their deviations and ``least``."""
        gained = -self.outcome.reshape(self.worlds, self.tries)
        return ((gained - gained.mean(1, keepdims=True)) / (0.5 * gained.std(1, keepdims=True) + least)).astype(np.float32).ravel()

    def _known(self) -> bool:
        return self.update % self.known_every == self.known_every - 1
