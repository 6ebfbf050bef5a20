"""Training of the steering policy of SpectrumExploration: places judged against the twin's hidden truth.

In rounds: episodes of every training scenario, steered by the policy as it is or by a fixed weighting, give maps with the true
value of every place; from the last rounds the judge learns by gradient steps. So it is trained on the states that its own
decisions lead to (DAgger: Ross, Gordon & Bagnell, AISTATS 2011, arXiv:1011.0686). What remains, the constants of the policy,
is chosen on further training seeds.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from probegym import scenarios
from probegym.agents import trainer
from probegym.agents.base import Agent
from probegym.agents.evaluate import evaluate
from probegym.agents.export import ship
from probegym.agents.seeds import SELECTION_SEED
from probegym.agents.spectra_networks import SEEN, PlaceJudge, SteeringPolicy, loss, planes
from probegym.envs import vector_env
from probegym.envs.episodes import Episodes
from probegym.envs.spectrum_exploration import SpectrumExplorationTask
from probegym.envs.task import Observation
from probegym.errors import ProbeGymError

ROUND = 80  # gradient steps
KEPT = 24  # steps of each episode that are learned from
ROUNDS_KEPT = 20
FIXED = ((1, 0.1, 0, 0), (1, 0.3, 0, 0), (1, 0.6, 0, 0), (1, 1, 0, 0), (0.5, 1, 0, 0), (1, 0.5, 0.5, 0), (1, 0.3, 0, 0.5), (1, 0.3, 0, -0.3))
PLAYED = tuple({"trust": t, "stretch": s, "margin": m} for t in (0.0, 1.0, 3.0) for s, m in ((1.0, 0.1), (1.5, 0.1), (2.0, 0.0)))
"""Constants of the policy while it trains, drawn for each scenario and round."""
GRID = tuple(constants for constants in PLAYED if constants["margin"])
"""Constants to choose from at the end."""
MOST_EPISODES = 60  # to choose constants by, as every step trains a deep kernel


@dataclass(frozen=True)
class Steering:
    """What is trained and how; ``updates`` gradient steps of ``batch`` observations each, ``lanes`` episodes of each scenario a round."""

    env_id: str = "probegym/SpectrumExploration-v0"
    scenario: str = "train"
    updates: int = 800
    batch: int = 32
    lanes: int = 3
    learning_rate: float = 2e-3
    seed: int = 1


class Student(Agent):
    """A policy that is still a torch module; some lanes may follow fixed weights instead."""

    def __init__(self, policy: SteeringPolicy, fixed: dict[int, tuple[float, ...]] | None = None):
        self.policy, self.fixed = policy.eval(), fixed or {}

    def begin(self, lanes: int, seed: int) -> None:
        self.before = torch.zeros(lanes, self.policy.place.shape[1])

    @torch.no_grad()
    def act(self, observation: Observation, episodes: Episodes) -> np.ndarray:
        action, self.before = self.policy(*(torch.from_numpy(observation[name]) for name in SEEN), self.before)
        for lane, weights in self.fixed.items():
            action[lane] = torch.tensor(weights, dtype=torch.float32)
        return action.numpy()


def training_scenarios(scenario: str) -> list[str]:
    """The scenario itself, or for ``train`` every steering one of the family that is there to train on."""
    family = "spectrum_exploration"
    if scenario != "train":
        return [scenario]
    told = {name: scenarios.load(family, name) for name in scenarios.names(family)}
    return [name for name, one in told.items() if one.split == "train" and one.task.get("action", "steer") == "steer"]


class Trainer(trainer.Trainer):
    """Trains one judge."""

    def __init__(self, config: Steering, folder: str | os.PathLike, names: list[str] | None = None):
        self.names = names or training_scenarios(config.scenario)
        super().__init__(config, folder, config.updates // ROUND, config.lanes * len(self.names))
        self.envs = [vector_env(config.env_id, num_envs=config.lanes, scenario=name, autoreset_mode="Disabled") for name in self.names]
        settings = [env.episodes.task_of(SpectrumExplorationTask).settings for env in self.envs]
        spaces = [{name: env.single_observation_space.spaces.get(name) for name in SEEN} for env in self.envs]
        if any(s.action != "steer" for s in settings) or any(one != spaces[0] for one in spaces):
            raise ProbeGymError(f"scenarios {', '.join(self.names)} must all steer and show the same maps: use others")
        self.shape = (settings[0].image.rows, settings[0].image.columns)
        torch.manual_seed(config.seed)
        self.judge = PlaceJudge()
        self.optimiser = torch.optim.AdamW(self.judge.parameters(), lr=config.learning_rate, weight_decay=1e-3)
        self.rounds: list[dict[str, np.ndarray]] = []

    def policy(self, **constants) -> SteeringPolicy:
        """The policy around the judge as it is now."""
        return SteeringPolicy(self.judge, self.shape, **constants).eval()

    # ---- examples ----

    def collect(self, number: int) -> tuple[dict[str, np.ndarray], dict[str, float]]:
        """Maps, numbers and true gains (n, ...) of round ``number``, and the mean final regret, without unit, of each kind of lane.

        Half of the lanes, at first all, follow fixed weights.
        """
        c, rng = self.config, np.random.default_rng((self.config.seed, number))
        rows: list[dict[str, np.ndarray]] = []
        regrets: dict[str, list[float]] = {"fixed": [], "policy": []}
        for at, envs in enumerate(self.envs):
            observation, _ = envs.reset(seed=self.first_seed(number) + at * c.lanes)
            led = range(c.lanes) if not self.update else range(0, c.lanes, 2)
            agent = Student(self.policy(**PLAYED[rng.integers(len(PLAYED))]), {lane: FIXED[rng.integers(len(FIXED))] for lane in led})
            agent.begin(c.lanes, 0)
            steps = int(envs.episodes.limits["measurements"]) - envs.episodes.task_of(SpectrumExplorationTask).settings.first
            keep = rng.random((steps, c.lanes)).argsort(0) < KEPT
            done = np.zeros(c.lanes, bool)
            for step in range(steps):
                truth = self._truth(envs)
                rows += [self._row(observation, truth, int(lane)) for lane in np.flatnonzero(keep[step] & ~done)]
                observation, _, terminated, truncated, info = envs.step(agent.act(observation, envs.episodes))
                for lane in np.flatnonzero((terminated | truncated) & ~done):
                    regrets["fixed" if lane in led else "policy"].append(float(info["regret"][lane]))
                done |= terminated | truncated
                if done.all():
                    break
        examples = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
        return examples, {kind: float(np.mean(values)) for kind, values in regrets.items() if values}

    @staticmethod
    def _truth(envs) -> np.ndarray:
        """True values (lanes, pixels) less that of the best place measured, in standard deviations of those of the measured places.

        Not in the unit of what was measured, which may be another one: a detector counts where the truth is a probability.
        """
        task, memory = envs.episodes.task, envs.episodes.memory
        every = np.stack([envs.episodes.truth[f"scalar {name}"] for name in task.settings.scalarizers])
        value = every[memory["target"], np.arange(envs.num_envs)]
        seen = np.where(memory["visits"] > 0, value, np.nan)
        scale = np.maximum(np.nanstd(seen, 1, keepdims=True), 1e-12 * np.abs(value).max(1, keepdims=True) + 1e-300)
        return np.clip((value - np.nanmax(seen, 1, keepdims=True)) / scale, -50, 50)

    def _row(self, observation: Observation, truth: np.ndarray, lane: int) -> dict[str, np.ndarray]:
        seen = {name: observation[name][lane] for name in SEEN}
        small = {name: v.astype(np.float16) if v.dtype == np.float32 else v.copy() for name, v in seen.items()}
        return small | {"truth": truth[lane].reshape(self.shape).astype(np.float16)}

    # ---- training ----

    def run(self, report: trainer.Report = lambda _: None, evaluate: Callable[[Agent], float] | None = None,
            evaluations: int = 5, checkpoint_every: int = 200) -> None:  # fmt: skip
        """Train to the end from wherever this trainer is; ``evaluate(agent)`` gives a success rate now and then.

        After a checkpoint the examples of the rounds before it are not there any more: the first rounds learn from fewer.
        """
        c = self.config
        with self.logs() as writer:
            while self.update < c.updates:
                number = self.update // ROUND
                examples, regrets = self.collect(number)
                self.rounds = [*self.rounds[-ROUNDS_KEPT + 1 :], examples]
                for kind, regret in regrets.items():
                    writer.add_scalar(f"train/regret_{kind}", regret, self.update)
                rng, losses = np.random.default_rng((c.seed, number, 1)), []
                for _ in range(min(ROUND, c.updates - self.update)):
                    self.update += 1
                    losses.append(self._learn(rng))
                writer.add_scalar("train/loss", np.mean(losses), self.update)
                self.tell(report, float(np.mean(losses)))
                last = self.update == c.updates
                if evaluate and (last or number % max(1, c.updates // ROUND // evaluations) == 0):
                    self.measure(writer, report, evaluate(Student(self.policy())))
                if last or self.update % checkpoint_every < ROUND:
                    self.save()

    def _learn(self, rng: np.random.Generator) -> float:
        """One gradient step on observations of the last rounds, each turned or mirrored."""
        sizes = np.array([len(part["truth"]) for part in self.rounds])
        picks = rng.integers(sizes.sum(), size=self.config.batch)
        part = np.searchsorted(np.cumsum(sizes), picks, side="right")
        index = picks - np.concatenate([[0], np.cumsum(sizes)])[part]
        turn, mirror = int(rng.integers(4)), bool(rng.integers(2))
        batch = {}
        for name in self.rounds[0]:
            array = torch.from_numpy(np.stack([self.rounds[p][name][i] for p, i in zip(part, index, strict=True)]).astype(np.float32))
            if array.ndim > 2:
                array = torch.rot90(array.flip(-1) if mirror else array, turn, (-2, -1))
            batch[name] = array
        seen, _ = planes(*(batch[name] for name in SEEN))
        self.judge.train()
        for group in self.optimiser.param_groups:
            group["lr"] = self.config.learning_rate * min(1.0, 0.05 + 2.0 * (1 - self.update / self.config.updates))
        odds, gain = self.judge(seen)
        value = loss(odds, gain, batch["truth"], batch["measured"][:, 0] <= 0)
        return trainer.descend(self.optimiser, value, self.judge.parameters())

    def state(self) -> dict[str, Any]:
        return {"judge": self.judge.state_dict(), "optimiser": self.optimiser.state_dict()}

    def restore(self, state: dict[str, Any]) -> None:
        self.judge.load_state_dict(state["judge"])
        self.optimiser.load_state_dict(state["optimiser"])

    # ---- the end ----

    def choose(self, episodes: int, report: Callable[[int, int], None] = lambda *_: None) -> tuple[dict, list[dict]]:
        """Constants of the policy by GRID: the least mean final regret over the training scenarios; returns them and what all gave."""
        tried, share = [], max(1, episodes // len(self.names))
        for number, constants in enumerate(GRID):
            report(number, len(GRID))
            agent = Student(self.policy(**constants))
            regrets = [evaluate(agent, self.config.env_id, name, share, SELECTION_SEED).metrics["regret"].mean() for name in self.names]
            tried.append(constants | {"regret": float(np.mean(regrets))})
        report(len(GRID), len(GRID))
        best = min(tried, key=lambda row: row["regret"])
        return {name: best[name] for name in GRID[0]}, tried

    def finish(self, folder: Path, command: str, episodes: int, report: Callable[[int, int], None] = lambda *_: None) -> Path:
        """Choose the constants on at most MOST_EPISODES and write the bundle; returns its folder."""
        episodes = min(episodes, MOST_EPISODES)
        chosen, tried = self.choose(episodes, report)
        policy, envs = self.policy(**chosen), self.envs[0]
        observation, _ = envs.reset(seed=SELECTION_SEED)
        shown = {name: observation[name][:2] for name in SEEN}
        memory = {"before": torch.zeros(len(shown["budget"]), self.shape[0] * self.shape[1])}
        rule = f"least mean final regret on {', '.join(self.names)}, {episodes} episodes in all, seeds from {SELECTION_SEED}"
        return ship(folder, policy, self.config, envs.episodes.task, shown, memory, command, constants=chosen, selection={"rule": rule, "tried": tried})


def steerer(env_id: str, scenario: str, updates: int, seed: int, folder: Path) -> Trainer:
    """The trainer of SpectrumExploration for ``registry.OWN_TRAINERS``."""
    return Trainer(Steering(env_id, scenario, updates, seed=seed), folder)
