"""Draws the pictures of IsingInference's documentation: ``python docs/make_images_ising.py`` from the repository root, about two minutes."""

from __future__ import annotations

from pathlib import Path

import gymnasium as gym
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

import probegym  # noqa: F401  registers the environments
from probegym.agents import baselines_ising as rules
from probegym.agents.base import OracleAgent
from probegym.agents.bundle import BundlePolicy
from probegym.agents.evaluate import EVALUATION_SEED

ENV_ID = "probegym/IsingInference-v0"
FOLDER = Path(__file__).parent / "images"
LANES = 64
AGENTS = {
    "policy": (lambda: BundlePolicy("ising-inference"), "#c8553d"), "Fisher, patient": (rules.MaximumFisherPatient, "#30475e"),
    "maximum Fisher": (rules.MaximumFisher, "#7a9e7e"), "uniform": (rules.UniformSweep, "#e7b85c"), "Thompson": (rules.Thompson, "#8d6a9f"),
    "oracle": (OracleAgent, "#000000"),
}  # fmt: skip


def course(agent, scenario: str) -> tuple[np.ndarray, np.ndarray]:
    """Minutes, and the mean relative error of J then."""
    envs = gym.make_vec(ENV_ID, num_envs=LANES, scenario=scenario, autoreset_mode="Disabled")
    observation, info = envs.reset(seed=EVALUATION_SEED)
    agent.begin(LANES, 0)
    minutes, lines, done = np.linspace(0, 90, 181), np.full((LANES, 181), np.nan), np.zeros(LANES, bool)
    while not done.all():
        for lane in np.flatnonzero(~done):
            lines[lane, minutes >= info["time"][lane] / 60] = info["error"][lane]
        observation, _, terminated, truncated, info = envs.step(agent.act(observation, envs.episodes))
        for lane in np.flatnonzero(~done):
            lines[lane, minutes >= info["time"][lane] / 60] = info["error"][lane]
        done |= terminated | truncated
    return minutes, 100 * np.where(np.isnan(lines).any(0), np.nan, np.nan_to_num(lines).mean(0))


def courses() -> None:
    """Error over time."""
    figure, axes = plt.subplots(1, 2, figsize=(9.5, 3.6), sharey=True, layout="constrained")
    for axis, (scenario, title) in zip(axes, {"known": "classifier as told", "id": "classifier better or worse than told"}.items(), strict=True):
        for name, (make, colour) in AGENTS.items():
            axis.plot(*course(make(), scenario), color=colour, lw=2.2 if name == "policy" else 1.4, ls=":" if name == "oracle" else "-", label=name)
        axis.set(xlabel="minutes", title=title, xlim=(0, 90), yscale="log")
        axis.grid(alpha=0.3, which="both")
    axes[0].set_ylabel("mean error of J, %")
    axes[1].legend(fontsize=8, frameon=False)
    figure.savefig(FOLDER / "ising_inference_time.png", dpi=130)


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    courses()
