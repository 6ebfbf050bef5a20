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

import gymnasium as gym
import numpy as np
import torch
from torch import nn

from probegym.agents import checkpoints
from probegym.agents.base import Agent
from probegym.agents.distil import LAST_TRAINING_SEED, Progress
from probegym.agents.evaluate import evaluate
from probegym.agents.export import SELECTION_SEED, ship
from probegym.agents.ising_networks import SEEN, CycleScorer
from probegym.envs.episodes import Episodes
from probegym.envs.ising_rewards import relative_error
from probegym.envs.task import Observation
from probegym.errors import ProbeGymError

SPECIMENS, TRIES = 12, 8  # of a batch, and of each specimen
KNOWN_EVERY = 3
SHARP = 8.0  # of the scores when actions are drawn
EPOCHS, CLIP, ENTROPY, KEPT = 2, 0.2, 0.001, 0.5  # KEPT: share of the decisions that are learned from
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


class Trainer:
    """Trains one policy; ``folder`` receives checkpoints and TensorBoard logs."""

    def __init__(self, config: IsingTraining, folder: str | os.PathLike):
        self.config, self.folder = config, Path(folder)
        if self._seed(config.updates) + SPECIMENS > LAST_TRAINING_SEED:
            raise ProbeGymError(f"seed {config.seed} with {config.updates} updates would train on seeds kept for selection: use a smaller seed")
        self.envs = {name: gym.make_vec(config.env_id, num_envs=SPECIMENS * TRIES, scenario=name, autoreset_mode="Disabled") for name in self._scenarios()}
        s = self.envs[config.scenario].episodes.task.settings
        torch.manual_seed(config.seed)
        self.policy = CycleScorer(s.temperatures, s.fields, s.holds, len(s.dwells), s.prior.mean(), s.prior.deviation())
        self.optimiser = torch.optim.Adam(self.policy.parameters(), lr=config.learning_rate)
        self.update = 0
        self.start = {name: v.clone() for name, v in self.policy.state_dict().items()}
        self.candidates: list[dict[str, torch.Tensor]] = []

    def _scenarios(self) -> tuple[str, ...]:
        return (self.config.scenario, self.config.known) if self.config.scenario == "train" else (self.config.scenario,)

    def _seed(self, update: int) -> int:
        return self.config.seed * 1_000_000 % 9_000_000 + update * SPECIMENS

    # ---- training ----

    def episodes(self, update: int) -> tuple[list[torch.Tensor], torch.Tensor]:
        """Play a batch; returns features, rules, prices, fits, actions and chances of some decisions, and the advantage of each."""
        known = update % KNOWN_EVERY == KNOWN_EVERY - 1
        envs = self.envs[self._scenarios()[-1 if known else 0]]
        first, lanes = self._seed(update), SPECIMENS * TRIES
        observation, _ = envs.reset(seed=[first + lane // TRIES for lane in range(lanes)])
        generator = torch.Generator().manual_seed(self.config.seed * 1_000_003 + update)
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
        generator = torch.Generator().manual_seed(self.update)
        total, steps = 0.0, 0
        for _ in range(EPOCHS):
            for part in torch.randperm(len(number), generator=generator).split(256):
                chances = torch.log_softmax(SHARP * self.policy.scores(*(column[part] for column in shown)), 1)
                ratio = (chances.gather(1, number[part][:, None])[:, 0] - before[part]).exp()
                gain = torch.minimum(ratio * advantage[part], ratio.clamp(1 - CLIP, 1 + CLIP) * advantage[part]).mean()
                entropy = -(chances.exp() * chances.clamp_min(-30)).sum(1).mean()
                loss = -gain - ENTROPY * entropy
                self.optimiser.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(self.policy.parameters(), 0.5)
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
                writer.add_scalar(f"train/outcome_{'known' if self.update % KNOWN_EVERY == 0 else 'unknown'}", self.outcome.mean(), self.update)
                report(Progress(self.update, loss))
                if evaluate and (self.update % max(1, c.updates // evaluations) == 0 or last):
                    success = evaluate(Annealer(self.policy))
                    writer.add_scalar("evaluate/success", success, self.update)
                    report(Progress(self.update, float("nan"), success))
                if self.update % max(1, c.updates // 20) == 0 or last:
                    self.candidates = [*self.candidates, {name: v.clone() for name, v in self.policy.state_dict().items()}][-CANDIDATES:]
                if self.update % checkpoint_every == 0 or last:
                    self.save()

    # ---- checkpoints ----

    @property
    def checkpoint(self) -> Path:
        """Where the last checkpoint lies."""
        return self.folder / "checkpoint.pt"

    def save(self) -> None:
        """Write the checkpoint atomically; raises ProbeGymError when it cannot be written."""
        state = {"policy": self.policy.state_dict(), "optimiser": self.optimiser.state_dict(), "candidates": self.candidates}
        checkpoints.write(self.checkpoint, self.config, update=self.update, **state)

    def load(self) -> None:
        """Go on from the checkpoint; raises ProbeGymError when it is damaged or of another training."""
        with checkpoints.read(self.checkpoint, self.config) as state:
            self.policy.load_state_dict(state["policy"])
            self.optimiser.load_state_dict(state["optimiser"])
            self.candidates, self.update = list(state["candidates"]), int(state["update"])

    # ---- the end ----

    def choose(self, episodes: int, report: Callable[[int, int], None] = lambda *_: None) -> list[dict[str, float]]:
        """Take over the best of the first and the last states, by the error of J on the training scenarios; returns what each gave."""
        tried, states = [], [self.start, *self.candidates]
        for number, state in enumerate(states):
            report(number, len(states))
            self.policy.load_state_dict(state)
            errors = [evaluate(Annealer(self.policy), self.config.env_id, name, episodes, SELECTION_SEED).metrics["error"] for name in self._scenarios()]
            tried.append({"error": float(np.mean(errors)), "rms": float(np.sqrt(np.mean(np.square(errors))))})
        report(len(states), len(states))
        self.policy.load_state_dict(states[min(range(len(states)), key=lambda i: tried[i]["error"])])
        return tried

    def finish(self, folder: Path, command: str, episodes: int, report: Callable[[int, int], None] = lambda *_: None) -> Path:
        """Choose the state and write the bundle; returns its folder."""
        tried = self.choose(episodes, report)
        envs = self.envs[self.config.scenario]
        observation, _ = envs.reset(seed=SELECTION_SEED)
        shown = {name: observation[name][:4] for name in SEEN}
        rule = f"least error of J of the first and the last {CANDIDATES} states on the training scenarios, {episodes} episodes each, seeds from {SELECTION_SEED}"
        return ship(folder, self.policy, self.config, envs.episodes.task, shown, {}, command, selection={"rule": rule, "tried": tried})


def annealer(env_id: str, scenario: str, updates: int, seed: int, folder: Path) -> Trainer:
    """The trainer of IsingInference for ``registry.DISTILLATIONS``."""
    return Trainer(IsingTraining(env_id, scenario, updates=updates, seed=seed), folder)
