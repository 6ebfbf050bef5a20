"""Draws the pictures of BeamManipulation's documentation: ``python docs/make_images_beam.py`` from the repository root, a few minutes.

With the folder of a training as argument also its curve.
"""

from __future__ import annotations

import sys
from pathlib import Path

import gymnasium as gym
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch

import probegym  # noqa: F401  registers the environments
from probegym.agents import beam_networks
from probegym.agents.bundle import BundlePolicy
from probegym.agents.evaluate import EVALUATION_SEED, evaluate
from probegym.agents.registry import make_agent

ENV_ID, POLICY = "probegym/BeamManipulation-v0", "beam-manipulation"
FOLDER = Path(__file__).parent / "images"
SHOWN, EPISODES = EVALUATION_SEED + 16, 100
COLOURS = {"beam-manipulation": "#c8553d", "bayesian-greedy": "#30475e", "bayesian-curious": "#8d6a9f", "greedy-tuned": "#e7b85c", "greedy-published": "#7a9e7e", "greedy-bond": "#4f9d9d", "oracle": "#000000"}


def beliefs() -> None:
    """What the policy believes of the rates after some dwells, beside the truth; four episodes."""
    after = (2, 6, 12)
    figure, axes = plt.subplots(4, len(after) + 1, figsize=(9.6, 9.4), layout="constrained")
    envs = gym.make_vec(ENV_ID, num_envs=4, scenario="id", autoreset_mode="Disabled")
    observation, _ = envs.reset(seed=SHOWN)
    policy = BundlePolicy(POLICY)
    policy.begin(4, 0)
    belief = beam_networks.RateBelief(*beam_networks.prior())
    rates, grid = belief.rates()[0], belief.grid.numpy()
    lobes = envs.episodes.truth["lobe"].copy()
    for dwell in range(max(after) + 1):
        if dwell in after:
            column = after.index(dwell) + 1
            mean = (torch.softmax(torch.from_numpy(policy.memory["belief"]), 1) @ rates.T).numpy()
            for axis, values in zip(axes[:, column], mean, strict=True):
                axis.scatter(*grid.T, c=values, s=70, cmap="inferno", vmin=0, marker="h")
                axis.set_title(f"believed after {dwell} dwells, up to {values.max():.2g} / s", fontsize=8)
        observation, *_ = envs.step(policy.decide(observation))
    for axis, lobe in zip(axes[:, 0], lobes, strict=True):
        axis.imshow(lobe.T, origin="lower", extent=(-2, 2, -2, 2), cmap="inferno", vmin=0)
        axis.set_title(f"hidden, up to {lobe.max():.2g} / s", fontsize=9)
    for axis in axes.flat:
        axis.plot([0, 1], [0, 0], "o", mfc="none", mec="#8fd3f4", ms=6)
        axis.set(xlim=(-2.1, 2.1), ylim=(-2.1, 2.1), aspect="equal", xticks=[-2, 0, 2], yticks=[-2, 0, 2])
        axis.set_facecolor("#101216")
        axis.tick_params(labelsize=7)
    figure.suptitle("rate of the swap with the right-hand neighbour by the beam's place, bonds", fontsize=10)
    figure.savefig(FOLDER / "beam_beliefs.png", dpi=90)


def times() -> None:
    """Share of episodes that have reached their goal by the time."""
    figure, axes = plt.subplots(1, 2, figsize=(9.5, 3.6), sharey=True, layout="constrained")
    for axis, (scenario, title) in zip(axes, {"id": "unknown rates, drift, misplacement", "published-free": "published rates"}.items(), strict=True):
        for name, colour in COLOURS.items():
            results = evaluate(make_agent(name, ENV_ID), ENV_ID, scenario, EPISODES)
            reached = np.sort(results.costs["time"][results.success])
            axis.step(np.append(reached, 600), np.append(np.arange(1, len(reached) + 1), len(reached)) / EPISODES, where="post", color=colour,
                      lw=2.2 if name == POLICY else 1.3, ls=":" if name == "oracle" else "-", label=name)  # fmt: skip
        axis.set(xlabel="microscope-seconds", title=title, xlim=(0, 600), ylim=(0, 1.02))
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("share at the goal")
    axes[1].legend(fontsize=8, frameon=False)
    figure.savefig(FOLDER / "beam_times.png", dpi=110)


def curve(folder: Path) -> None:
    """Mean seconds of the training batches, actions drawn by chance."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    log = EventAccumulator(str(folder / "tensorboard"))
    log.Reload()
    points = np.array([(event.step, event.value) for event in log.Scalars("train/seconds")])
    figure, axis = plt.subplots(figsize=(6, 3.2), layout="constrained")
    axis.plot(*points.T, ".", color="#b0b0b0", ms=4)
    smooth = np.convolve(points[:, 1], np.ones(9) / 9, "valid")
    axis.plot(points[4:-4, 0], smooth, color="#c8553d", lw=2)
    axis.set(xlabel="updates", ylabel="seconds to the goal, training batch")
    axis.grid(alpha=0.3)
    figure.savefig(FOLDER / "beam_curve.png", dpi=110)


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    beliefs(), times()
    if len(sys.argv) > 1:
        curve(Path(sys.argv[1]))
