"""Privileged teacher, student that only sees: training of the tip-conditioning policy on the twin's hidden state.

Episodes of random treatments on training seeds give labelled images, from which the reader learns the likelihood of every
kind of apex, and counted transitions, from which the statistics of the treatments follow. Value iteration on these gives
the expected cost to go of each treatment; the policy (stm_networks.ConditionerPolicy) acts by it on its belief.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from probegym.agents.base import Agent
from probegym.agents.evaluate import evaluate
from probegym.agents.export import ship
from probegym.agents.seeds import SELECTION_SEED
from probegym.agents.stm_networks import ApexReader, ConditionerPolicy, varied
from probegym.agents.trainer import ReaderTrainer, descend
from probegym.envs import vector_env
from probegym.envs.episodes import Episodes
from probegym.envs.task import Observation
from probegym.envs.tip_conditioning import TipConditioningTask
from probegym.physics.stm_apex import STATES

EPISODE = 12  # images
AREA_UNIT = 1e4  # nm^2 that cost as much as one action
WANTED_SUCCESS, NEARLY = 0.97, 1.03  # costs within 3 % of the least count as equal
GRID = [{"sure": s, "unsure": u, "doubt": d} for d in (0.02, 0.05, 0.1, 0.2, 0.3) for s in (0.93, 0.97, 0.985) for u in (0.35, 0.6)]
SEEN = ("image", "verdict", "last_action", "room", "budget")


@dataclass(frozen=True)
class Conditioning:
    """What is trained and how; ``updates`` gradient steps of ``lanes`` images each."""

    env_id: str = "probegym/TipConditioning-v0"
    scenario: str = "train"
    updates: int = 10000
    lanes: int = 64
    learning_rate: float = 2e-3
    seed: int = 1


class Student(Agent):
    """A policy that is still a torch module."""

    def __init__(self, policy: ConditionerPolicy):
        self.policy = policy.eval()

    def begin(self, lanes: int, seed: int) -> None:
        self.belief = self.policy.start.repeat(lanes, 1)

    @torch.no_grad()
    def act(self, observation: Observation, episodes: Episodes) -> np.ndarray:
        action, self.belief = self.policy(*(torch.from_numpy(observation[name]) for name in SEEN), self.belief)
        return action.numpy()


class Trainer(ReaderTrainer):
    """Trains a reader of apices and counts what treatments do."""

    episode = EPISODE
    reader: ApexReader

    def __init__(self, config: Conditioning, folder: str | os.PathLike):
        super().__init__(config, folder)
        self.envs = vector_env(config.env_id, num_envs=config.lanes, scenario=config.scenario, autoreset_mode="Disabled")
        task = self.envs.episodes.task_of(TipConditioningTask)
        self.actions, self.radius = len(task.names), task.radius
        torch.manual_seed(config.seed)
        self.reads(ApexReader(STATES))
        self.counts = np.zeros((self.actions, STATES, STATES))
        self.starts = np.zeros(STATES)

    def _kinds(self) -> np.ndarray:
        return self.envs.episodes.truth["state"].copy()

    def examples(self, first_update: int) -> Iterator[tuple[torch.Tensor, torch.Tensor, np.ndarray | None, np.ndarray]]:
        """Endless (images, kinds, action taken before, kinds before), the same from any multiple of EPISODE on."""
        for episode in range(first_update // EPISODE, 10**9):
            rng = np.random.default_rng((self.config.seed, episode))
            observation, _ = self.envs.reset(seed=self.first_seed(episode), options={})
            before, done = self._kinds(), None
            for step in range(EPISODE):
                now = self._kinds()
                yield torch.from_numpy(observation["image"]), torch.from_numpy(now), done, before
                if step < EPISODE - 1:
                    before = now
                    observation = self.envs.step(rng.integers(0, self.actions - 1, len(now)))[0]
                    done = observation["last_action"].argmax(1)  # an action without room was a look

    # ---- the policy ----

    def moves(self) -> np.ndarray:
        """Chances (actions, kinds, kinds) from counts; a kind that was hardly met is taken to stay as it is."""
        total = self.counts + 0.5 * np.eye(STATES)
        total[-1] = np.eye(STATES)  # a declaration changes nothing
        return total / total.sum(2, keepdims=True)

    def cost_to_go(self) -> np.ndarray:
        """Expected cost (kinds, actions) until the apex is good, in actions; spoiled area counts as AREA_UNIT says."""
        moves = self.moves()
        price = 1 + np.pi * (1e9 * self.radius) ** 2 / AREA_UNIT
        value = np.zeros(STATES)
        for _ in range(500):
            cost = price[:, None] + moves @ value
            value = np.where(np.arange(STATES) == 0, 0.0, cost[:-1].min(0))
        return cost.T

    def policy(self, **constants) -> ConditionerPolicy:
        """The policy around the reader as it is now."""
        start = (self.starts + 1e-3) / (self.starts + 1e-3).sum()
        last = 1.01 / self.envs.episodes.limits["measurements"]
        return ConditionerPolicy(self.reader, self.moves(), self.cost_to_go(), start, last, **constants).eval()

    # ---- training ----

    def agent(self) -> Student:
        return Student(self.policy())

    def lessons(self) -> AbstractContextManager[Iterator[tuple[torch.Tensor, torch.Tensor, np.ndarray | None, np.ndarray]]]:
        return nullcontext(self.examples(self.update))

    def learn(self, images: torch.Tensor, kinds: torch.Tensor, action: np.ndarray | None, before: np.ndarray) -> float:
        now = kinds.numpy()
        if action is None:
            np.add.at(self.starts, now, 1)
        else:
            np.add.at(self.counts, (action, before, now), 1)
        self.warm()
        flips = [axis for axis, bit in ((2, 1), (3, 2)) if self.update & bit]
        self.reader.train()
        seen = self.counts.sum((0, 1)) + self.starts + 1
        prior = torch.from_numpy(np.log(seen / seen.sum()).astype(np.float32))  # so that the reader learns likelihoods
        generator = torch.Generator().manual_seed(self.config.seed * 1_000_003 + self.update)
        loss = nn.functional.cross_entropy(self.reader(varied(images.float().flip(flips), generator)) + prior, kinds)
        return descend(self.optimiser, loss, self.reader.parameters())

    def state(self) -> dict[str, Any]:
        return super().state() | {"counts": torch.from_numpy(self.counts), "starts": torch.from_numpy(self.starts)}

    def restore(self, state: dict[str, Any]) -> None:
        super().restore(state)
        self.counts, self.starts = state["counts"].numpy().copy(), state["starts"].numpy().copy()

    # ---- the end ----

    def choose(self, episodes: int, report: Callable[[int, int], None] = lambda *_: None) -> tuple[dict, list[dict]]:
        """Constants of the policy by GRID on the training scenario; returns the chosen ones and what all of them gave.

        The most doubtful of those that cost NEARLY the least, actions and area, and succeed in WANTED_SUCCESS of the episodes;
        a failure counts as the whole budget.
        """
        tried = []
        for number, constants in enumerate(GRID):
            report(number, len(GRID))
            results = evaluate(Student(self.policy(**constants)), self.config.env_id, self.config.scenario, episodes, SELECTION_SEED)
            spent = results.metrics["actions"] + results.metrics["area_spoiled"] / AREA_UNIT
            cost = np.where(results.success, spent, self.envs.episodes.limits["measurements"])
            tried.append(constants | {"success": float(results.success.mean()), "cost": float(cost.mean())})
        report(len(GRID), len(GRID))
        good = [row for row in tried if row["success"] >= WANTED_SUCCESS] or [max(tried, key=lambda row: row["success"])]
        least = min(row["cost"] for row in good)
        best = max((row for row in good if row["cost"] <= NEARLY * least), key=lambda row: (row["doubt"], -row["cost"]))
        return {name: best[name] for name in GRID[0]}, tried

    def finish(self, folder: Path, command: str, episodes: int, report: Callable[[int, int], None] = lambda *_: None) -> Path:
        """Choose the constants and write the bundle; returns its folder."""
        chosen, tried = self.choose(episodes, report)
        policy = self.policy(**chosen)
        observation, _ = self.envs.reset(seed=SELECTION_SEED)
        shown = {name: observation[name][:4] for name in SEEN}
        rule = f"most doubt within {NEARLY} of the least cost with success >= {WANTED_SUCCESS} on the training scenario, {episodes} episodes, seeds from {SELECTION_SEED}"
        return ship(folder, policy, self.config, self.envs.episodes.task, shown, {"belief": policy.start.repeat(4, 1)}, command,
                    constants=chosen, selection={"rule": rule, "tried": tried})  # fmt: skip


def conditioner(env_id: str, scenario: str, updates: int, seed: int, folder: Path) -> Trainer:
    """The trainer of TipConditioning for ``registry.OWN_TRAINERS``."""
    return Trainer(Conditioning(env_id, scenario, updates, seed=seed), folder)
