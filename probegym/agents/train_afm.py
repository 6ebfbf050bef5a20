"""Training of the AFM's feedback policy: a critic that sees the hidden state teaches a policy that sees scan lines.

Episodes on training seeds go to a memory: features of every line, settings, hidden state, reward. The critic learns the
discounted return of settings to come from hidden state and features (deterministic policy gradient with two critics, as in
TD3, Fujimoto et al. 2018, arXiv:1802.09477); the policy, recurrent over the lines of an episode, climbs it. Cantilever,
piezo and surface class enter the critic alone: an asymmetric actor and critic (Pinto et al. 2017, arXiv:1710.06542).
"""

from __future__ import annotations

import copy
import math
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from probegym.agents import trainer
from probegym.agents.afm_networks import FEATURES, SETTINGS, Critic, FeedbackPolicy
from probegym.agents.base import Agent, twin_of
from probegym.agents.evaluate import evaluate
from probegym.agents.export import ship
from probegym.agents.seeds import SELECTION_SEED
from probegym.envs import vector_env
from probegym.envs.afm_settings import NAMES
from probegym.envs.afm_tuning import AfmTuningTask
from probegym.envs.episodes import Episodes
from probegym.envs.task import Observation, shape_of
from probegym.hardware_bridge.twins.afm import AfmTwin

PAYS = {"height_error": 5.0, "speed": 5.0, "damage": 5.0, "wear": 5.0, "crash": 5.0}  # weights of the environment's reward terms; a decade of error counts 1
SAFE_FORCE = 250e-9  # N; the square of its doublings costs FORCE, long before a crash
FORCE = -0.1
DISCOUNT = 0.8
UPDATES_A_ROUND = 32  # gradient steps for every batch of episodes
BATCH = 32  # episodes
KEPT = 8192  # episodes in memory
BLIND = 6  # first rounds, of random settings alone; nothing is learned before
STEADY, WIDE = 8, 8  # lanes of each round without noise, and with random settings
CANDIDATES = 6  # states of the second half of the training that may be chosen
START = {"proportional": 0.1, "integral": 1000.0, "setpoint": 0.8, "drive": 12e-9, "line_rate": 8.0, "feed_forward": 0.3}
CEILING = {"drive": 15e-9}  # a wider swing hits a particle that comes without warning too hard, and errs no less
SEEN = ("lines", "settings")
FIGURES = ("height_error_nm", "line_rate", "success", "crashes")
LOST = 10e-9  # m, what a frame that crashed counts in the figures
MORE = 5  # times the episodes that are asked for when the policy is chosen: crashes are rare and episodes short
POINTS = 50  # of the curve that a bundle keeps
CLASSES = 5
HIDDEN = 14 + CLASSES


@dataclass(frozen=True)
class Tuning:
    """What is trained and how; ``updates`` gradient steps."""

    env_id: str = "probegym/AfmTuning-v0"
    scenario: str = "train"
    updates: int = 9600
    lanes: int = 64
    learning_rate: float = 1e-3
    seed: int = 1


class Tuned(Agent):
    """A policy that is still a torch module."""

    def __init__(self, policy: FeedbackPolicy):
        self.policy = policy.eval()

    def begin(self, lanes: int, seed: int) -> None:
        self.memory = torch.zeros(lanes, self.policy.hidden)

    @torch.no_grad()
    def act(self, observation: Observation, episodes: Episodes) -> np.ndarray:
        action, self.memory = self.policy(torch.from_numpy(observation["lines"]), torch.from_numpy(observation["settings"]), self.memory)
        return action.numpy()


def hidden_state(episodes: Episodes) -> np.ndarray:
    """(lanes, HIDDEN) float32: what the critic knows of cantilever, piezo, tip and the line below it."""
    s = twin_of(episodes, AfmTwin).state
    lag = s["quality"] / (np.pi * s["frequency"])
    slope = np.diff(s["profile"], axis=1)
    scales = [
        np.log(s["stiffness"]), np.log(s["frequency"]), np.log(s["quality"]), np.log(lag), np.log(s["piezo_frequency"]), np.log(s["piezo_quality"]),
        s["creep"], s["detuning"], np.log(s["tip_radius"]), np.log(s["quality"] / s["tuned_quality"]), np.log(s["profile"].std(1) + 1e-11),
        np.log(slope.std(1) + 1e-12), np.log(np.abs(slope).max(1) + 1e-12), np.log(s["peak_force"] + 1e-10),
    ]  # fmt: skip
    return np.concatenate([np.stack(scales, 1), np.eye(CLASSES)[s["surface"] % CLASSES]], 1).astype(np.float32)


class Trainer(trainer.Trainer):
    """Trains one policy, its critic, and what recognises the hidden state."""

    def __init__(self, config: Tuning, folder: str | os.PathLike):
        self.rounds = -(-config.updates // UPDATES_A_ROUND)
        super().__init__(config, folder, self.rounds + BLIND, config.lanes)
        self.envs = vector_env(config.env_id, num_envs=config.lanes, scenario=config.scenario, autoreset_mode="Disabled")
        task = self.envs.episodes.task_of(AfmTuningTask)
        self.lines, self.step = task.settings.lines, task.settings.largest_step
        start = torch.tensor([float(task.share(name, START[name])) for name in NAMES])
        ceiling = torch.tensor([float(task.share(name, CEILING[name])) if name in CEILING else 1.0 for name in NAMES])
        torch.manual_seed(config.seed)
        setpoint = NAMES.index("setpoint")
        self.policy = FeedbackPolicy(task.settings.pixels, (float(task.low[setpoint]), float(task.span[setpoint])), start, ceiling, self.step)
        self.critic = Critic(FEATURES + HIDDEN + 2 * SETTINGS)
        self.slow = copy.deepcopy(self.critic)
        self.recognise = nn.Linear(2 * self.policy.hidden, HIDDEN)
        actor = [*self.policy.parameters(), *self.recognise.parameters()]
        self.optimisers = {"policy": torch.optim.Adam(actor, lr=config.learning_rate), "critic": torch.optim.Adam(self.critic.parameters(), lr=config.learning_rate)}
        self.standard = {"mean": torch.zeros(HIDDEN), "scale": torch.ones(HIDDEN)}
        rows = {"features": (self.lines, FEATURES), "hidden": (self.lines, HIDDEN), "settings": (self.lines, SETTINGS),
                "reward": (self.lines - 1,), "crashed": (self.lines - 1,), "valid": (self.lines - 1,)}  # fmt: skip
        self.kept = {name: torch.zeros(KEPT, *shape, dtype=torch.float16 if name == "features" else torch.float32) for name, shape in rows.items()}
        self.stored = 0
        self.curve: list[list[float]] = []
        self.candidates: list[dict] = []

    # ---- episodes ----

    @torch.no_grad()
    def collect(self, policy: FeedbackPolicy, number: int) -> tuple[dict[str, torch.Tensor], dict[str, float]]:
        """Episodes (lanes, lines, ...) of one round, the same whenever it is played, and figures by name: error in nm and rate in Hz of the lanes without noise, shares of lanes."""
        lanes, rng, envs = self.config.lanes, np.random.default_rng((self.config.seed, number)), self.envs
        observation, _ = envs.reset(seed=self.first_seed(number), options={})
        noise = np.exp(rng.uniform(np.log(0.02), np.log(0.2), (lanes, 1)))
        noise[:STEADY] = 0
        offset = noise * rng.normal(size=(lanes, SETTINGS))
        wide = np.arange(lanes) >= lanes - WIDE if number >= BLIND else np.ones(lanes, bool)
        ceiling = policy.ceiling.numpy()
        place = ceiling * rng.uniform(size=(lanes, SETTINGS))
        memory, done = torch.zeros(lanes, policy.hidden), np.zeros(lanes, bool)
        rows: dict[str, list] = {name: [] for name in self.kept}
        last: dict[str, np.ndarray] = {name: np.zeros(lanes) for name in ("height_error", "line_rate", "is_success", "crashed")}
        for index in range(self.lines):
            settings = observation["settings"]
            features = policy.features(torch.from_numpy(observation["lines"]), torch.from_numpy(settings))
            for name, value in (("features", features), ("hidden", hidden_state(envs.episodes)), ("settings", settings)):
                rows[name].append(torch.as_tensor(value))
            if index == self.lines - 1:
                break
            known, memory = policy.embed(features[:, None], memory)
            target = policy.wanted(known[:, 0]).numpy() + offset + 0.5 * noise * rng.normal(size=offset.shape)
            place = np.where(rng.random((lanes, 1)) < 0.2, ceiling * rng.uniform(size=place.shape), place)
            target = np.where(wide[:, None], place, np.clip(target, 0, ceiling))
            observation, _, terminated, truncated, info = envs.step(np.clip((target - settings) / self.step, -1, 1).astype(np.float32))
            crashed = info["crashed"] > 0
            reward = sum(weight * info[f"reward_{name}"] for name, weight in PAYS.items())
            reward = reward + FORCE * np.log2(np.maximum(info["peak_force"] / SAFE_FORCE, 1)) ** 2
            for name, value in (("reward", reward), ("crashed", crashed), ("valid", ~done)):
                rows[name].append(torch.as_tensor(value, dtype=torch.float32))
            last = {name: np.where(done, old, info[name]) for name, old in last.items()}
            done |= terminated | truncated
        error = np.where(last["crashed"] > 0, LOST, last["height_error"])[:STEADY]
        told = {"height_error_nm": 1e9 * float(np.exp(np.log(error).mean())), "line_rate": float(2 ** np.log2(last["line_rate"][:STEADY]).mean()),
                "success": float(last["is_success"][:STEADY].mean()), "crashes": float(last["crashed"][STEADY : lanes - WIDE].mean())}  # fmt: skip
        return {name: torch.stack(values, 1) for name, values in rows.items()}, told

    def _store(self, episodes: dict[str, torch.Tensor]) -> None:
        at = (self.stored + torch.arange(self.config.lanes)) % KEPT
        for name, values in episodes.items():
            self.kept[name][at] = values.to(self.kept[name].dtype)
        self.stored += self.config.lanes

    def _standardise(self) -> None:
        """Fix means and scales from the random episodes."""
        rows = {name: self.kept[name][: self.stored].float().flatten(0, 1) for name in ("features", "hidden")}
        mean, scale = ({name: f(v) for name, v in rows.items()} for f in (lambda v: v.mean(0), lambda v: v.std(0).clamp_min(0.05)))
        self.policy.mean.copy_(mean["features"])
        self.policy.scale.copy_(scale["features"])
        self.standard = {"mean": mean["hidden"], "scale": scale["hidden"]}

    # ---- learning ----

    def run(self, report: trainer.Report = lambda _: None, evaluate: Callable[[Agent], float] | None = None,
            evaluations: int = 5, checkpoint_every: int = 1600) -> None:  # fmt: skip
        """Train to the end from wherever this trainer is; ``evaluate(agent)`` gives a success rate now and then."""
        before = torch.get_num_threads()
        torch.set_num_threads(1)  # the twin works beside
        try:
            with self.logs() as writer, ThreadPoolExecutor(1) as ahead:
                self._run(writer, ahead, report, evaluate, max(1, self.rounds // evaluations), max(1, checkpoint_every // UPDATES_A_ROUND))
        finally:
            torch.set_num_threads(before)

    def _run(self, writer, ahead: ThreadPoolExecutor, report, evaluate, evaluate_every: int, save_every: int) -> None:
        if self.stored == 0:
            for number in range(BLIND):
                self._store(self.collect(self.policy, number)[0])
            self._standardise()
        for number in range(self.update // UPDATES_A_ROUND, self.rounds):
            coming = ahead.submit(self.collect, copy.deepcopy(self.policy), BLIND + number)  # played while the old ones are learned from
            generator = torch.Generator().manual_seed(self.config.seed * 1_000_003 + number)
            losses = [self._learn(generator) for _ in range(UPDATES_A_ROUND)]
            self.update += UPDATES_A_ROUND
            episodes, told = coming.result()
            self._store(episodes)
            self.curve.append([float(self.update), *(told[name] for name in FIGURES)])
            loss, gain = (float(np.mean(values)) for values in zip(*losses, strict=True))
            for name, value in (told | {"loss": loss, "value": gain}).items():
                writer.add_scalar(f"train/{name}", value, self.update)
            self.tell(report, loss)
            done, last = number + 1, number + 1 == self.rounds
            if done in [round(self.rounds * (0.5 + 0.5 * (i + 1) / CANDIDATES)) for i in range(CANDIDATES)]:
                self.candidates.append({"update": self.update, "policy": copy.deepcopy(self.policy.state_dict())})
            if evaluate and (done % evaluate_every == 0 or last):
                self.measure(writer, report, evaluate(Tuned(self.policy)))
            if done % save_every == 0 or last:
                self.save()

    def _learn(self, generator: torch.Generator) -> tuple[float, float]:
        share = self.update / max(1, self.config.updates)
        for name, factor in (("critic", 1.0), ("policy", 0.4)):
            for group in self.optimisers[name].param_groups:
                group["lr"] = factor * self.config.learning_rate * (0.03 + 0.485 * (1 + math.cos(math.pi * min(share, 1))))
        chosen = torch.randint(min(self.stored, KEPT), (BATCH,), generator=generator)
        rows = {name: values[chosen].float() for name, values in self.kept.items()}
        hidden, settings, valid = (rows["hidden"] - self.standard["mean"]) / self.standard["scale"], rows["settings"], rows["valid"]
        seen = torch.cat([((rows["features"] - self.policy.mean) / self.policy.scale).clamp(-5, 5), hidden.clamp(-5, 5), settings], -1)
        inner = self.policy.embed(rows["features"], torch.zeros(BATCH, self.policy.hidden))[0]
        wanted = self.policy.wanted(inner)
        moved = settings + (wanted - settings).clamp(-self.step, self.step)
        with torch.no_grad():
            jitter = (0.02 * torch.randn(moved[:, 1:].shape, generator=generator)).clamp(-0.05, 0.05)
            after = self.slow(seen[:, 1:], (moved[:, 1:] + jitter).clamp(0, 1)).amin(-1)
            goal = rows["reward"] + DISCOUNT * (1 - rows["crashed"]) * after
        told = self.critic(seen[:, :-1], settings[:, 1:])
        loss = (nn.functional.smooth_l1_loss(told, goal[..., None].expand_as(told), reduction="none").sum(-1) * valid).sum() / valid.sum()
        trainer.descend(self.optimisers["critic"], loss, self.critic.parameters())
        gain = (self.critic(seen[:, :-1], moved[:, :-1]).mean(-1) * valid).sum() / valid.sum()
        known = ((self.recognise(inner) - hidden.clamp(-3, 3))[:, :-1] ** 2).mean(-1)
        trainer.descend(self.optimisers["policy"], -gain + 0.3 * (known * valid).sum() / valid.sum(), self.policy.parameters())
        with torch.no_grad():
            for slow, fast in zip(self.slow.parameters(), self.critic.parameters(), strict=True):
                slow.lerp_(fast, 0.01)
        return float(loss.detach()), float(gain.detach())

    # ---- checkpoints ----

    def state(self) -> dict[str, Any]:
        modules = {name: getattr(self, name).state_dict() for name in ("policy", "critic", "slow", "recognise")}
        optimisers = {name: optimiser.state_dict() for name, optimiser in self.optimisers.items()}
        kept = {name: values[: min(self.stored, KEPT)].clone() for name, values in self.kept.items()}
        return {"stored": self.stored, "modules": modules, "optimisers": optimisers, "standard": self.standard, "kept": kept, "curve": self.curve, "candidates": self.candidates}

    def restore(self, state: dict[str, Any]) -> None:
        for name, values in state["modules"].items():
            getattr(self, name).load_state_dict(values)
        for name, values in state["optimisers"].items():
            self.optimisers[name].load_state_dict(values)
        for name, values in state["kept"].items():
            self.kept[name][: len(values)] = values
        self.standard, self.curve, self.candidates, self.stored = state["standard"], state["curve"], state["candidates"], int(state["stored"])

    # ---- the end ----

    def choose(self, episodes: int, report: Callable[[int, int], None] = lambda *_: None) -> tuple[FeedbackPolicy, list[dict]]:
        """The candidate with the highest mean return on the training scenario, and what all gave; a crash costs much there."""
        policies, tried = [], []
        for number, candidate in enumerate(self.candidates):
            report(number, len(self.candidates))
            policy = copy.deepcopy(self.policy)
            policy.load_state_dict(candidate["policy"])
            results = evaluate(Tuned(policy), self.config.env_id, self.config.scenario, episodes, SELECTION_SEED)
            rate, error = results.costs["measurements"] / results.costs["time"], np.log10(1e9 * results.metrics["height_error"])
            row = {"update": candidate["update"], "crashes": int(results.metrics["crashed"].sum()), "mean_return": float(results.returns.mean())}
            policies.append(policy)
            tried.append(row | {"height_error_nm": float(10 ** error.mean()), "line_rate": float(2 ** np.log2(rate).mean())})
        report(len(self.candidates), len(self.candidates))
        best = min(range(len(tried)), key=lambda i: -tried[i]["mean_return"])
        return policies[best], tried

    def finish(self, folder: Path, command: str, episodes: int, report: Callable[[int, int], None] = lambda *_: None) -> Path:
        """Choose the candidate on MORE times ``episodes`` and write the bundle; returns its folder."""
        policy, tried = self.choose(MORE * episodes, report)
        self.envs.reset(seed=SELECTION_SEED)
        observation = self.envs.step(np.zeros(shape_of(self.envs.action_space), np.float32))[0]
        shown = {name: observation[name][:2] for name in SEEN}
        rule = f"highest mean return, {MORE * episodes} episodes of the training scenario, seeds from {SELECTION_SEED}"
        curve = {"columns": ["update", *FIGURES], "rows": [[float(f"{v:.4g}") for v in row] for row in _thinned(self.curve)]}
        return ship(folder, policy, self.config, self.envs.episodes.task, shown, {"memory": torch.zeros(2, policy.hidden)}, command,
                    selection={"rule": rule, "tried": tried}, curve=curve)  # fmt: skip


def _thinned(curve: list[list[float]]) -> list[list[float]]:
    """At most POINTS rows of the training curve, each of its neighbours: the geometric mean of the error, the mean of the rest."""
    if not curve:
        return []
    rows = np.array(curve)
    rows[:, 1] = np.log(rows[:, 1])
    parts = np.array([part.mean(0) for part in np.array_split(rows, min(POINTS, len(rows)))])
    parts[:, 1] = np.exp(parts[:, 1])
    return parts.tolist()


def tuner(env_id: str, scenario: str, updates: int, seed: int, folder: Path) -> Trainer:
    """The trainer of AfmTuning for ``registry.OWN_TRAINERS``."""
    return Trainer(Tuning(env_id, scenario, updates, seed=seed), folder)
