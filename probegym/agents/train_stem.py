"""Privileged teacher, student that only sees: supervised training of a tuning policy from the twin's hidden state.

The teacher knows the aberrations. Episodes are three steps long: a start from the scenario's box, then states that a
teacher with a random error leaves behind, so that the student meets every width from the box down to a tuned column.
Each observation is a labelled example; the student learns to read mean and variance of the aberrations (Gaussian
likelihood) and the policy around it (stem_networks.TunerPolicy) closes the loop.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from probegym.agents import symmetry
from probegym.agents.base import Agent, twin_of
from probegym.agents.evaluate import Progress, evaluate
from probegym.agents.export import ship
from probegym.agents.seeds import SELECTION_SEED
from probegym.agents.stem_networks import READERS, ShadowReader, TunerPolicy
from probegym.agents.trainer import ReaderTrainer, Report, descend
from probegym.envs import vector_env
from probegym.envs.episodes import Episodes
from probegym.envs.stem_tuning import StemTuningTask
from probegym.envs.task import Observation, shape_of
from probegym.errors import ProbeGymError
from probegym.hardware_bridge.twins.stem import StemTwin
from probegym.physics.threads import available_threads

Batch = tuple[torch.Tensor, torch.Tensor]
"""Frames uint8, labels."""

EPISODE = 3
WIDTHS = (0.03, 1.0)  # of the teacher's error, in scales
THRESHOLDS = (0.3, 0.2, 0.15, 0.1, 0.07, 0.05, 0.035)  # rad^2
WANTED_SUCCESS = 0.995
LOOKS = 2  # one to correct by, one to see what that did


@dataclass(frozen=True)
class Distillation:
    """What is trained and how; ``updates`` gradient steps of ``lanes`` examples each."""

    env_id: str = "probegym/StemTuning-v0"
    scenario: str = "train"
    updates: int = 6000
    lanes: int = 64
    learning_rate: float = 2e-3
    seed: int = 1


class Student(Agent):
    """A policy that is still a torch module."""

    def __init__(self, policy: TunerPolicy, frames: str):
        self.policy, self.frames = policy.eval(), frames

    def begin(self, lanes: int, seed: int) -> None:
        n = len(self.policy.prior)
        self.mean, self.variance = torch.zeros(lanes, n), self.policy.prior.repeat(lanes, 1)

    @torch.no_grad()
    def act(self, observation: Observation, episodes: Episodes) -> np.ndarray:
        frames, budget = torch.from_numpy(observation[self.frames]), torch.from_numpy(observation["budget"])
        action, self.mean, self.variance = self.policy(frames, budget, self.mean, self.variance)
        return action.numpy()


class Trainer(ReaderTrainer):
    """Trains a reader of aberrations."""

    episode = EPISODE

    def __init__(self, config: Distillation, folder: str | os.PathLike):
        super().__init__(config, folder)
        self.envs = vector_env(config.env_id, num_envs=config.lanes, scenario=config.scenario, autoreset_mode="Disabled")
        episodes = self.envs.episodes
        task, world = episodes.task_of(StemTuningTask), twin_of(episodes, StemTwin)
        self.names, self.scales = task.names, task.scales
        keys = [name for name in READERS if name in task.series]
        if len(keys) != 1:
            raise ProbeGymError(
                f"distillation reads one kind of frame, scenario {config.scenario!r} shows {' and '.join(keys)}: choose another"
            )
        self.frames = keys[0]
        frames, rows, *_ = shape_of(self.envs.single_observation_space[self.frames])
        torch.manual_seed(config.seed)
        optics = world.config.ronchigram
        reader = ShadowReader if self.frames == "ronchigram" and optics is not None and optics.shadows else READERS[self.frames]
        self.reads(reader(frames, rows, len(self.names)))
        self.largest_step = task.settings.largest_step
        self.frames_per_step = frames
        step_share = self.frames_per_step / episodes.limits["measurements"]
        columns = [world.names.index(name) for name in self.names]
        covariance = np.diag(world.pupil.covariance)[columns]
        self.policy_arguments = {"weights": covariance * self.scales**2, "prior": self._prior(episodes), "last": 1.01 * step_share}
        self._symmetries = [(k, m, torch.tensor(symmetry.transform(self.names, k, m), dtype=torch.float32))
                            for k in symmetry.QUARTER_TURNS for m in symmetry.MIRRORS]  # fmt: skip

    def _prior(self, episodes: Episodes) -> np.ndarray:
        """Variance of the start box, in squared scales, measured on training seeds."""
        self.envs.reset(seed=self.first_seed(0))
        return (self._labels() ** 2).mean(0)

    def _labels(self) -> np.ndarray:
        return twin_of(self.envs.episodes, StemTwin).truth()["aberrations"][:, : len(self.names)] / self.scales

    def examples(self, first_update: int) -> Iterator[Batch]:
        """Endless (frames uint8, labels) batches, the same from any update on whether resumed or not."""
        shape = shape_of(self.envs.single_action_space)
        for episode in range(first_update // EPISODE, 10**9):
            rng = np.random.default_rng((self.config.seed, episode))
            observation, _ = self.envs.reset(seed=self.first_seed(episode), options={})
            for step in range(EPISODE):
                labels = self._labels()
                yield torch.from_numpy(observation[self.frames]), torch.from_numpy(labels.astype(np.float32))
                if step < EPISODE - 1:
                    narrow, wide = np.log(WIDTHS)
                    width = np.exp(rng.uniform(narrow, wide, (len(labels), 1)))
                    wanted = -labels + width * rng.uniform(-1, 1, labels.shape)
                    action = np.full((len(labels), *shape), -1, np.float32)
                    action[:, : len(self.names)] = np.clip(wanted / self.largest_step, -1, 1)
                    observation = self.envs.step(action)[0]

    def policy(self, **constants) -> TunerPolicy:
        """The policy around the reader as it is now."""
        return TunerPolicy(self.reader, largest_step=self.largest_step, **self.policy_arguments, **constants).eval()

    def agent(self) -> Student:
        return Student(self.policy(), self.frames)

    def run(self, report: Report = lambda _: None, evaluate: Callable[[Agent], float] | None = None, evaluations: int = 5, checkpoint_every: int = 300) -> None:
        """As every reader's; the twin works on the next batch while torch learns from this one."""
        before = torch.get_num_threads()
        torch.set_num_threads(max(1, available_threads() - 1))  # threads that wait for each other crawl
        try:
            super().run(report, evaluate, evaluations, checkpoint_every)
        finally:
            torch.set_num_threads(before)

    def lessons(self) -> AbstractContextManager[Iterator[Batch]]:
        return closing(_ahead(self.examples(self.update)))

    def learn(self, frames: torch.Tensor, labels: torch.Tensor) -> float:
        self.warm()
        if self.reader.augments:
            quarter_turns, mirror, matrix = self._symmetries[self.update * 5 % 8]
            frames = torch.rot90(frames, quarter_turns, (2, 3))
            frames, labels = (frames.flip(3) if mirror else frames), labels @ matrix.T
        self.reader.train()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.reader.augments):
            mean, log_variance = self.reader(frames.float())
        mean, log_variance = mean.float(), log_variance.float()
        loss = 0.5 * ((mean - labels) ** 2 * torch.exp(-log_variance) + log_variance).mean()
        return descend(self.optimiser, loss, self.reader.parameters())


def _ahead(batches: Iterator[Batch]) -> Generator[Batch, None, None]:
    """The same batches, each made in a thread while the one before is used."""
    with ThreadPoolExecutor(1) as thread:
        coming = thread.submit(next, batches)
        while True:
            now, coming = coming.result(), thread.submit(next, batches)
            yield now


# ---- to a policy ----


def choose_threshold(trainer: Trainer, episodes: int, progress: Progress = lambda *_: None) -> tuple[float, dict[str, dict[str, float]]]:
    """The most cautious threshold (rad^2) that succeeds often enough on the training scenario within LOOKS looks; if there is
    none, the one that succeeds most. Returns it and what every threshold gave: success rate, median images.
    """
    rates: dict[float, dict[str, float]] = {}
    for done, threshold in enumerate(THRESHOLDS):
        progress(done, len(THRESHOLDS))
        student = Student(trainer.policy(threshold=threshold), trainer.frames)
        results = evaluate(student, trainer.config.env_id, trainer.config.scenario, episodes, SELECTION_SEED)
        rates[threshold] = {"success": float(results.success.mean()), "median_images": float(np.median(results.costs["measurements"]))}
    progress(len(THRESHOLDS), len(THRESHOLDS))
    looks = {t: rate["median_images"] / trainer.frames_per_step for t, rate in rates.items()}
    good = [t for t in THRESHOLDS if rates[t]["success"] >= WANTED_SUCCESS and looks[t] <= LOOKS]
    best = min(good) if good else max(THRESHOLDS, key=lambda t: rates[t]["success"])
    return best, {str(t): rate for t, rate in rates.items()}


def export(trainer: Trainer, folder: Path, threshold: float, rates: dict[str, dict[str, float]], command: str) -> Path:
    """Write the bundle of a student with its threshold (rad^2); returns its folder. rates: as of ``choose_threshold``. Raises ProbeGymError when it cannot be written."""
    policy, observation = trainer.policy(threshold=threshold), trainer.envs.reset(seed=SELECTION_SEED)[0]
    shown = {name: observation[name][:2] for name in (trainer.frames, "budget")}
    memory = {"mean": torch.zeros(2, len(trainer.names)), "variance": policy.prior.repeat(2, 1)}
    rule = f"the lowest threshold with success >= {WANTED_SUCCESS} and a median of at most {LOOKS} looks on the training scenario, seeds from {SELECTION_SEED}"
    selection = {"rule": rule, "success": rates}
    return ship(folder, policy, trainer.config, trainer.envs.episodes.task, shown, memory, command, threshold_rad2=threshold, selection=selection)


class Tuner(Trainer):
    """The trainer that ``probegym train StemTuning`` runs: it also chooses its threshold and writes its policy."""

    def finish(self, folder: Path, command: str, episodes: int, report: Progress = lambda *_: None) -> Path:
        """Choose the threshold on ``episodes`` of the training scenario and write the bundle; returns its folder."""
        threshold, rates = choose_threshold(self, episodes, report)
        return export(self, folder, threshold, rates, command)


def tuner(env_id: str, scenario: str, updates: int, seed: int, folder: Path) -> Tuner:
    """The trainer of StemTuning for ``registry.OWN_TRAINERS``."""
    return Tuner(Distillation(env_id, scenario, updates=updates, seed=seed), folder)
