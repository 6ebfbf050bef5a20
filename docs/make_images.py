"""Draws the pictures of the README and the documentation: ``python docs/make_images.py`` from the repository root."""

from __future__ import annotations

from pathlib import Path

import gymnasium as gym
import numpy as np
from PIL import Image

import probegym
from probegym.agents.bundle import BundlePolicy

FOLDER = Path(__file__).parent
SEED = 10_000_004


def episode(seed: int) -> list[np.ndarray]:
    """Screens of one episode of the shipped Ronchigram policy, the last one after its declaration."""
    env = gym.make("probegym/StemTuning-v0", scenario=f"{FOLDER / 'show.yaml'}:show", render_mode="rgb_array").unwrapped
    policy = BundlePolicy("stem-tuning-ronchigram")
    policy.begin(1, seed)
    observation, _ = env.reset(seed=seed)
    screens, over = [env.render()], False
    while not over:
        action = policy.decide({name: value[None] for name, value in observation.items()})[0]
        declared = action[-1] > 0.5
        action[-1] = -1.0  # one more set of frames, so that the picture shows the tuned column
        observation, _, terminated, truncated, _ = env.step(action)
        screens.append(env.render())
        over = terminated or truncated or declared
    return screens


def main() -> None:
    """Write docs/images/stem_tuning.gif and its last frame."""
    folder = FOLDER / "images"
    folder.mkdir(exist_ok=True)
    frames = [Image.fromarray(screen) for screen in episode(SEED)]
    durations = [1400] * (len(frames) - 1) + [3500]
    palette = [frame.quantize(128) for frame in frames]
    palette[0].save(folder / "stem_tuning.gif", save_all=True, append_images=palette[1:], duration=durations, loop=0, optimize=True)
    frames[-1].save(folder / "stem_tuning.png", optimize=True)
    print(f"probegym {probegym.__version__}: {len(frames)} frames")


if __name__ == "__main__":
    main()
