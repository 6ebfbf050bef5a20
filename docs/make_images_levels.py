"""Draws the pictures of LevelSelection's documentation: ``python docs/make_images_levels.py`` from the repository root, about two minutes."""

from __future__ import annotations

from pathlib import Path

import gymnasium as gym
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

import probegym  # noqa: F401  registers the environments
from probegym.agents import baselines_levels as rules
from probegym.agents.base import OracleAgent
from probegym.agents.bundle import BundlePolicy
from probegym.agents.evaluate import EVALUATION_SEED

ENV_ID = "probegym/LevelSelection-v0"
FOLDER = Path(__file__).parent / "images"
LANES, SHOWN = 64, EVALUATION_SEED + 7
AGENTS = {
    "policy": (lambda: BundlePolicy("level-selection"), "#c8553d"), "survey first": (rules.SurveyFirst, "#30475e"),
    "greedy variance, tuned": (rules.tuned_greedy_variance, "#7a9e7e"), "greedy variance": (rules.GreedyVariance, "#e7b85c"),
    "knowledge gradient": (rules.KnowledgeGradient, "#8d6a9f"), "planned gradient": (rules.PlannedGradient, "#4f9d9d"), "oracle": (OracleAgent, "#000000"),
}  # fmt: skip


def course(agent, scenario: str) -> tuple[np.ndarray, np.ndarray]:
    """Hours, and the mean uncertainty that is left then."""
    envs = gym.make_vec(ENV_ID, num_envs=LANES, scenario=scenario, autoreset_mode="Disabled")
    observation, info = envs.reset(seed=EVALUATION_SEED)
    agent.begin(LANES, 0)
    hours, lines, done = np.linspace(0, 8, 161), np.ones((LANES, 161)), np.zeros(LANES, bool)
    while not done.all():
        for lane in np.flatnonzero(~done):
            lines[lane, hours >= info["time"][lane] / 3600] = info["uncertainty"][lane]
        observation, _, terminated, truncated, info = envs.step(agent.act(observation, envs.episodes))
        for lane in np.flatnonzero(~done):
            lines[lane, hours >= info["time"][lane] / 3600] = info["uncertainty"][lane]
        done |= terminated | truncated
    return hours, lines.mean(0)


def courses() -> None:
    """Uncertainty over the day."""
    figure, axes = plt.subplots(1, 2, figsize=(9.5, 3.6), sharey=True, layout="constrained")
    for axis, (scenario, title) in zip(axes, {"id": "correlations unknown", "known": "correlations told"}.items(), strict=True):
        for name, (make, colour) in AGENTS.items():
            hours, left = course(make(), scenario)
            axis.plot(hours, left, color=colour, lw=2.2 if name == "policy" else 1.4, ls=":" if name == "oracle" else "-", label=name)
        axis.set(xlabel="hours", title=title, xlim=(0, 8), ylim=(0.2, 1.05))
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("uncertainty left")
    axes[1].legend(fontsize=8, frameon=False)
    figure.savefig(FOLDER / "level_selection_time.png", dpi=130)


def levels() -> None:
    """One specimen: what is there at every level, and what the instruments show of it when they have mapped all."""
    env = gym.make(ENV_ID, scenario="place").unwrapped
    env.reset(seed=SHOWN)
    env.episodes.limits["time"] = env.episodes.limits["measurements"] = 1e9
    count = int((env.episodes.memory["size"][0] > 0).sum())
    for level in (1, 2):
        for flake in range(count):
            env.step(level * 24 + flake)
    memory, truth = env.episodes.memory, env.episodes.truth
    labels, names = memory["labels"][0], env.episodes.task.settings.levels
    figure, axes = plt.subplots(2, 3, figsize=(8.4, 5.8), layout="constrained")
    for level, name in enumerate(names):
        real = np.ma.masked_where(labels == 0, np.concatenate([[0], truth["quantities"][0, level]])[labels])
        seen = memory["maps"][0, level] - memory["sheet"][0, level, 2]
        for axis, values, title in ((axes[0, level], real, ("optical contrast", "composition", "local electronic structure")[level]),
                                    (axes[1, level], np.ma.masked_invalid(seen), f"{name}: " + ("maps around every flake" if level else "one overview"))):  # fmt: skip
            shown = axis.imshow(values, cmap="inferno", vmin=-3 if axis in axes[0] else -4, vmax=3, extent=(0, 40, 40, 0))
            axis.set_title(title, fontsize=9)
            axis.set_facecolor("#22262b")
            axis.set(xticks=[0, 20, 40], yticks=[0, 20, 40])
            axis.tick_params(labelsize=7)
        plt.colorbar(shown, ax=axes[:, level], fraction=0.03, pad=0.02).ax.tick_params(labelsize=7)
    r = truth["correlations"][0]
    figure.suptitle(f"hidden (above) and measured (below), um; correlations {r[0]:+.2f} and {r[1]:+.2f}", fontsize=10)
    figure.savefig(FOLDER / "level_selection_levels.png", dpi=120)


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    levels(), courses()
