"""Draws the pictures of AdatomManipulation's documentation: ``python docs/make_images_adatoms.py`` from the repository root, about two minutes."""

from __future__ import annotations

from pathlib import Path

import gymnasium as gym
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import FixedLocator, NullLocator
from PIL import Image

import probegym  # noqa: F401  registers the environments
from probegym.agents.assembly import Builder
from probegym.agents.base import OracleAgent
from probegym.agents.baselines_adatoms import CorrectedDrag, FixedDrag
from probegym.agents.bundle import BundlePolicy
from probegym.agents.evaluate import EVALUATION_SEED
from probegym.agents.gallery import SIDE
from probegym.agents.images import gif
from probegym.agents.stories import play
from probegym.envs import single_env
from probegym.envs.pictures import coloured

ENV_ID = "probegym/AdatomManipulation-v0"
FOLDER = Path(__file__).parent / "images"
LANES = 256
EPISODES, FIRST = 1000, 10_100_000  # those of the page's table
AGENTS = {
    "policy": (lambda: BundlePolicy("adatom-manipulation"), "#c8553d"), "corrected drag": (CorrectedDrag, "#7a9e7e"),
    "fixed drag": (FixedDrag, "#e7b85c"), "oracle": (OracleAgent, "#000000"),
}  # fmt: skip
SCENARIOS = {"steady-tip": "well-conditioned tip", "tip-change": "the tip has changed", "far-tip-change": "far: a double tip"}


def reached(agent, scenario: str) -> np.ndarray:
    """Share of episodes at their goal after 1 to 5 drags."""
    envs = gym.make_vec(ENV_ID, num_envs=EPISODES, scenario=scenario, autoreset_mode="Disabled")
    observation, _ = envs.reset(seed=FIRST)
    agent.begin(EPISODES, 0)
    done, there, shares = np.zeros(EPISODES, bool), np.zeros(EPISODES, bool), []
    for _ in range(5):
        observation, _, terminated, truncated, info = envs.step(agent.act(observation, envs.episodes))
        if not done.all():
            there |= info["is_success"] & ~done
        done |= terminated | truncated
        shares.append(there.mean())
        if done.all():
            break
    return np.array(shares + shares[-1:] * (5 - len(shares)))


def successes() -> None:
    """Share of episodes at their goal over the drags."""
    figure, axes = plt.subplots(1, 3, figsize=(9.5, 3.2), sharey=True, layout="constrained")
    for axis, (scenario, title) in zip(axes, SCENARIOS.items(), strict=True):
        for name, (make, colour) in AGENTS.items():
            axis.plot(range(1, 6), 100 * reached(make(), scenario), "o-", color=colour, ms=4, lw=2.2 if name == "policy" else 1.4, label=name)
        axis.set(xlabel="drags", title=title, xticks=range(1, 6), ylim=(0, 103))
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("at the goal, %")
    axes[-1].legend(fontsize=8, frameon=False)
    figure.savefig(FOLDER / "adatom_manipulation_drags.png", dpi=130)


def traces() -> None:
    """An STM image, and traces of drags by which the atom came along, came part of the way, stayed."""
    envs = gym.make_vec(ENV_ID, num_envs=LANES, scenario="image-id", autoreset_mode="Disabled")
    observation, _ = envs.reset(seed=EVALUATION_SEED)
    task, m = envs.episodes.task, envs.episodes.memory
    before = envs.episodes.truth["position"][:, 0].copy()
    way = (m["goal"] - m["position"])[:, 0]
    conductance = np.repeat([3e-6, 4.5e-6, 6e-6, 6e-6], LANES // 4)
    envs.step(task.action(np.zeros((LANES, 2)), way, 0.01, conductance, np.zeros(LANES, int)))
    moved, length = np.hypot(*(envs.episodes.truth["position"][:, 0] - before).T), np.hypot(*way.T)
    far = length > 1.2e-9
    chosen = {name: int(np.flatnonzero(far & fits)[0]) for name, fits in
              {"came along": moved > 0.9 * length, "slipped away": (moved > 0.3 * length) & (moved < 0.7 * length), "stayed": moved < 0.05e-9}.items()}  # fmt: skip
    figure, axes = plt.subplots(1, 4, figsize=(12, 3), layout="constrained")
    lane = chosen["came along"]
    axes[0].imshow(coloured(observation["image"][lane, 0], "height"), extent=(-3.5, 3.5, 3.5, -3.5))
    axes[0].add_patch(plt.Circle(tuple(1e9 * m["goal"][lane, 0]), 0.166, fill=False, color="#5cc88c", lw=1.5))
    path = 1e9 * m["path"][lane]
    axes[0].annotate("", path[1], path[0], arrowprops={"arrowstyle": "->", "color": "#78bef0"})
    axes[0].set(title="image, drag and goal, nm")
    for axis, (name, lane) in zip(axes[1:], chosen.items(), strict=True):
        axis.semilogy(np.linspace(0, 1e9 * length[lane], m["current"].shape[1]), 1e9 * m["current"][lane], lw=0.7, color="#30475e")
        axis.yaxis.set(major_locator=FixedLocator([4, 6, 10, 15, 20, 25, 30]), minor_locator=NullLocator(), major_formatter="{x:g}")
        axis.set(title=f"{name}: {1e6 * conductance[lane]:g} uS, {1e9 * moved[lane]:.2f} of {1e9 * length[lane]:.2f} nm", xlabel="way of the tip, nm")
        axis.title.set_fontsize(9)
    axes[1].set_ylabel("current, nA")
    figure.savefig(FOLDER / "adatom_manipulation_traces.png", dpi=120)


def assembly(scenario: str, seed: int) -> None:
    """A pattern is built, drag by drag."""
    env, screens = single_env(ENV_ID, scenario=scenario, render_mode="rgb_array"), []
    play(Builder(), env, seed, lambda _: screens.append(np.array(Image.fromarray(env.render()).resize(SIDE, Image.Resampling.LANCZOS))))
    (FOLDER / "adatom_assembly.gif").write_bytes(gif(screens, 450, last=2000))


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    assembly("assembly-5", EVALUATION_SEED + 4)
    traces(), successes()
