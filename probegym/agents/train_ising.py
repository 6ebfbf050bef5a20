"""Training of the annealing policy: first it learns what images really tell, then it tries for itself.

First: batches of episodes by the policy as it is, with chance; of every step the network learns by how much the uncertainty of J
fell (Poisson deviance, so that means are right), which the rule it starts from only expects of a lattice in equilibrium. Then every
specimen is tried several times, and what came closer to the hidden J is preferred: policy gradient with clipped ratios (PPO: Schulman
et al. 2017, arXiv:1707.06347), an episode's advantage being its outcome against that of the other tries on the same specimen (as in
GRPO: Shao et al. 2024, arXiv:2402.03300). A third of the batches has a classifier that is as told.
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

from probegym.agents import bundle, checkpoints
from probegym.agents.base import Agent
from probegym.agents.distil import LAST_TRAINING_SEED, Progress
from probegym.agents.evaluate import evaluate
from probegym.agents.export import SELECTION_SEED, commit, to_onnx
from probegym.agents.ising_networks import SEEN, CycleScorer
from probegym.envs.episodes import Episodes
from probegym.envs.task import Observation
from probegym.errors import ProbeGymError

SPECIMENS, TRIES = 12, 8  # of a batch, and of each specimen
KNOWN_EVERY = 3
TAUGHT = 0.6  # share of the updates in which the network learns what images tell
LESSONS_KEPT, LESSON_STEPS, LESSON_ROWS = 60_000, 80, 1024
BOLD, SHARP = 3.0, 8.0  # of the scores when actions are drawn, in the first part and then
EPOCHS, CLIP, ENTROPY, KEPT = 2, 0.2, 0.001, 0.5  # KEPT: share of the decisions that are learned from
LEAST_ERROR = 0.003  # relative; what is below does not count
CANDIDATES = 5  # last states that may be chosen


@dataclass(frozen=True)
class IsingTraining:
    """What is trained and how; ``updates`` batches of episodes."""

    env_id: str = "probegym/IsingInference-v0"
    scenario: str = "train"
    known: str = "train-known"
    updates: int = 60
    learning_rate: float = 2e-3
    seed: int = 1


class Annealer(Agent):
    """A policy that is still a torch module; ``generator``: to draw actions by their chances, the sharper the closer to the best one."""

    def __init__(self, policy: CycleScorer, generator: torch.Generator | None = None, sharpness: float = 1.0):
        self.policy, self.generator, self.sharpness = policy, generator, sharpness

    def begin(self, lanes: int, seed: int) -> None:
        self.kept: list[tuple[torch.Tensor, ...]] = []

    @torch.no_grad()
    def act(self, observation: Observation, episodes: Episodes) -> np.ndarray:
        shown = self.policy.features(*(torch.from_numpy(observation[name]) for name in SEEN))
        scores = self.policy.scores(*shown)
        if self.generator is None:
            return self.policy.actions(scores.argmax(1)).numpy()
        chances = torch.log_softmax(self.sharpness * scores, 1)
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
        self.candidates: list[dict[str, torch.Tensor]] = []
        self.lessons: list[torch.Tensor] = []

    def _scenarios(self) -> tuple[str, ...]:
        return (self.config.scenario, self.config.known) if self.config.scenario == "train" else (self.config.scenario,)

    def _seed(self, update: int) -> int:
        return self.config.seed * 1_000_000 % 9_000_000 + update * SPECIMENS

    @property
    def taught(self) -> int:
        """How many updates learn what images tell."""
        return max(1, round(TAUGHT * self.config.updates))

    # ---- training ----

    def episodes(self, update: int) -> tuple[list[torch.Tensor], torch.Tensor]:
        """Play a batch; returns features, rules, prices, fits, actions and chances of some decisions, and the advantage of each."""
        known, learning = update % KNOWN_EVERY == KNOWN_EVERY - 1, update >= self.taught
        envs = self.envs[self._scenarios()[-1 if known else 0]]
        first, lanes = self._seed(update), SPECIMENS * TRIES
        observation, _ = envs.reset(seed=[first + lane // TRIES for lane in range(lanes)])
        generator = torch.Generator().manual_seed(self.config.seed * 1_000_003 + update)
        agent = Annealer(self.policy, generator, SHARP if learning else BOLD)
        agent.begin(lanes, 0)
        memory, running, counted, kept, falls = envs.episodes.memory, np.ones(lanes, bool), [], [], []
        while running.any():
            before = memory["covariance"][:, 0, 0].copy()
            observation, _, terminated, truncated, _ = envs.step(agent.act(observation, envs.episodes))
            done = running & ~((terminated | truncated) & (memory["covariance"][:, 0, 0] == before))
            running &= ~(terminated | truncated)
            chosen = torch.from_numpy(done) & ((torch.rand(lanes, generator=generator) < KEPT) | torch.tensor(not learning))
            kept.append([column[chosen] for column in agent.kept.pop()])
            counted.append(torch.arange(lanes)[chosen])
            falls.append(torch.from_numpy(0.5 * np.log(before / memory["covariance"][:, 0, 0])).float()[chosen])
        columns = [torch.cat(column) for column in zip(*kept, strict=True)]
        true = envs.episodes.truth["coupling"]
        error = (memory["mean"][:, 0] / true - 1) ** 2 + memory["covariance"][:, 0, 0] / true**2 + LEAST_ERROR**2
        self.outcome = 0.5 * np.log(error)
        if not learning:
            self._note(columns, torch.cat(falls))
        tries = -self.outcome.reshape(SPECIMENS, TRIES)
        advantage = ((tries - tries.mean(1, keepdims=True)) / (0.5 * tries.std(1, keepdims=True) + 0.1)).astype(np.float32)
        return columns, torch.from_numpy(advantage.ravel())[torch.cat(counted)]

    def _note(self, columns: list[torch.Tensor], fall: torch.Tensor) -> None:
        """Keep what was done and by how much the uncertainty fell."""
        features, rule, _, _, number, _ = columns
        each = torch.arange(len(number))
        new = [features[each, number], rule[each, number], fall]
        self.lessons = [torch.cat(pair)[-LESSONS_KEPT:] for pair in zip(self.lessons, new, strict=True)] if self.lessons else new

    def _study(self) -> float:
        """Gradient steps on all lessons so far; returns the mean loss."""
        features, rule, fall = self.lessons
        generator, total = torch.Generator().manual_seed(self.update), 0.0
        for _ in range(LESSON_STEPS):
            part = torch.randint(len(fall), (LESSON_ROWS,), generator=generator)
            expected = self.policy.gains(features[part], rule[part]).clamp(max=3.0)
            total += self._step((expected.exp() - fall[part] * expected).mean())
        return total / LESSON_STEPS

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
                total, steps = total + self._step(-gain - ENTROPY * entropy), steps + 1
        return total / steps

    def _step(self, loss: torch.Tensor) -> float:
        self.optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.policy.parameters(), 0.5)
        self.optimiser.step()
        return float(loss.detach())

    def run(self, report: Callable[[Progress], None] = lambda _: None, evaluate: Callable[[Agent], float] | None = None,
            evaluations: int = 5, checkpoint_every: int = 5) -> None:  # fmt: skip
        """Train to the end from wherever this trainer is; ``evaluate(agent)`` gives a success rate now and then."""
        from torch.utils.tensorboard import SummaryWriter

        c = self.config
        with SummaryWriter(str(self.folder / "tensorboard")) as writer:
            while self.update < c.updates:
                learning = self.update >= self.taught
                for group in self.optimiser.param_groups:
                    group["lr"] = c.learning_rate * (1 - 0.9 * self.update / c.updates) * (0.25 if learning else 1.0)
                played = self.episodes(self.update)
                loss = self._learn(*played) if learning else self._study()
                self.update += 1
                last = self.update == c.updates
                writer.add_scalar("train/loss", loss, self.update)
                writer.add_scalar(f"train/outcome_{'known' if self.update % KNOWN_EVERY == 0 else 'unknown'}", self.outcome.mean(), self.update)
                report(Progress(self.update, loss))
                if evaluate and (self.update % max(1, c.updates // evaluations) == 0 or last):
                    success = evaluate(Annealer(self.policy))
                    writer.add_scalar("evaluate/success", success, self.update)
                    report(Progress(self.update, float("nan"), success))
                if self.update % max(1, c.updates // 20) == 0 or last or self.update == self.taught:
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
        state = {"policy": self.policy.state_dict(), "optimiser": self.optimiser.state_dict(), "candidates": self.candidates, "lessons": self.lessons}
        checkpoints.write(self.checkpoint, self.config, update=self.update, **state)

    def load(self) -> None:
        """Go on from the checkpoint; raises ProbeGymError when it is damaged or of another training."""
        with checkpoints.read(self.checkpoint, self.config) as state:
            self.policy.load_state_dict(state["policy"])
            self.optimiser.load_state_dict(state["optimiser"])
            self.candidates, self.lessons, self.update = list(state["candidates"]), list(state["lessons"]), int(state["update"])

    # ---- the end ----

    def choose(self, episodes: int, report: Callable[[int, int], None] = lambda *_: None) -> list[dict[str, float]]:
        """Take over the best of the last states, by the error of J on the training scenarios; returns what each gave."""
        tried, states = [], self.candidates or [self.policy.state_dict()]
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
        shown = {name: torch.from_numpy(observation[name][:4]) for name in SEEN}
        with torch.no_grad():
            action = self.policy(*shown.values())
        spec = {
            "environment": self.config.env_id,
            "scenario": self.config.scenario,
            "observations": {name: {"shape": list(v.shape[1:]), "dtype": str(observation[name].dtype)} for name, v in shown.items()},
            "action": envs.episodes.task.action_units,
            "memory": {},
            "selection": {"rule": f"least error of J of the last {CANDIDATES} states on the training scenarios, {episodes} episodes each, seeds from {SELECTION_SEED}",
                          "tried": tried},
            "training_commit": commit(),
            "command": command,
            "golden": [bundle.golden_pair({name: v.numpy() for name, v in shown.items()}, action.numpy())],
        }  # fmt: skip
        return bundle.write(folder, to_onnx(self.policy, shown, ["action"]), spec)


def annealer(env_id: str, scenario: str, updates: int, seed: int, folder: Path) -> Trainer:
    """The trainer of IsingInference for ``registry.DISTILLATIONS``."""
    return Trainer(IsingTraining(env_id, scenario, updates=updates, seed=seed), folder)
