"""Draws the pictures of the README and of TipConditioning's documentation: ``python docs/make_images.py`` from the repository root."""

from __future__ import annotations

from pathlib import Path

import gymnasium as gym
import numpy as np
from PIL import Image

import probegym  # noqa: F401  registers the environments
from probegym import scenarios
from probegym.agents.bundle import BundlePolicy
from probegym.agents.images import gif
from probegym.envs import pictures
from probegym.envs.core import ScopeEnv
from probegym.envs.stem_tuning import StemTuningTask
from probegym.hardware_bridge.commands import AcquireTopograph
from probegym.hardware_bridge.twins.stm import StmTwin

FOLDER = Path(__file__).parent
SEED, TIPS_SEED = 10_000_004, 3


def episode(seed: int) -> list[np.ndarray]:
    """Screens of one episode of the shipped Ronchigram policy, the last one after its declaration."""
    show = FOLDER / "show.yaml"
    env = gym.make("probegym/StemTuning-v0", scenario=f"{show}:show").unwrapped
    eye = StemTuningTask(scenarios.load("stem_tuning", f"{show}:eye").task)
    policy = BundlePolicy("stem-tuning-ronchigram")
    policy.begin(1, seed)
    observation, _ = env.reset(seed=seed)
    screens, over = [screen(env, eye)], False
    while not over:
        action = policy.decide({name: value[None] for name, value in observation.items()})[0]
        observation, _, terminated, truncated, _ = env.step(action)
        screens.append(screen(env, eye))
        over = terminated or truncated
    return screens


def screen(env: ScopeEnv, eye: StemTuningTask) -> np.ndarray:
    """The column of this moment in frames that the episode does not take and that cost it nothing, but for the Ronchigrams that the policy was shown."""
    played, on, kept = env.episodes, np.ones(1, bool), env.snapshot()
    memory = eye.memory(1) | {"declared": played.memory["declared"]}
    seen = eye.encode([played.world.execute(command, on) for command, _ in eye.opening(memory)], memory, np.ones(1), on)
    env.restore(kept)
    if not memory["declared"][0]:  # who declares is shown no more
        seen["ronchigram"] = played.observation["ronchigram"]
    limits = {f"{name}_limit": np.array(limit) for name, limit in played.limits.items()}
    observation, truth, memory, spent = ({name: array[0] for name, array in lanes.items()} for lanes in (seen, played.truth, memory, played.ledger))
    return eye.picture(observation, truth | played.world.portrait(0), memory, spent | limits)


TIPS = {"good": {}, "double": {"double": 1.0}, "blunt": {"blunt": 1.0}, "contaminated": {"contaminated": 1.0}, "unstable": {"unstable": 1.0}}


def tips(seed: int, size: int = 200, gap: int = 12) -> np.ndarray:
    """The same two places of Ag(111) as five kinds of tips show them."""
    world = scenarios.load("tip_conditioning", "id").world
    screen = pictures.Screen(width=gap + len(TIPS) * (size + gap), height=34 + 2 * (size + gap))
    for column, (name, defects) in enumerate(TIPS.items()):
        chances = dict.fromkeys(("double", "blunt", "contaminated", "unstable"), 0.0) | defects
        twin = StmTwin(world | chances | {"tip_change": {"rate": 0.0}}, 1)
        twin.begin(np.array([seed], np.uint64), np.ones(1, bool))
        for row in range(2):
            centre = np.array([[12e-9 * row, 0.0]])
            height = twin.execute(AcquireTopograph((64, 64), 10e-9, 100e-9, centre, -1.0, 25e-12), np.ones(1, bool)).values["height"][0]
            level = height - np.median(height)
            x, y = gap + column * (size + gap), 34 + row * (size + gap)
            box = pictures.Box(x, y, size, size)
            screen.panel(box, pictures.coloured(level, "height", -0.25e-9, 0.25e-9), name if not row else "")
            screen.scale_bar(box, 10e-9)
    return screen.array()


def curve(folder: Path) -> np.ndarray:
    """Loss and live success of a training, from its TensorBoard logs."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    screen, width, height = pictures.Screen(width=640, height=250), 560, 180
    for tag, low, high, colour, label in (("train/loss", 0.8, 2.6, pictures.FAINT, "loss, nats (0.8 to 2.6)"),
                                          ("evaluate/success", 0.8, 1.0, pictures.GOOD, "success of 48 episodes (80 % to 100 %)")):  # fmt: skip
        points = events.Scalars(tag)
        values = np.array([point.value for point in points])
        smooth = np.convolve(np.pad(values, 5, "edge"), np.full(11, 1 / 11), "valid") if tag == "train/loss" else values
        x = 40 + width * np.array([point.step for point in points]) / points[-1].step
        y = 30 + height * (1 - np.clip((smooth - low) / (high - low), 0, 1))
        screen.draw.line(list(zip(x.tolist(), y.tolist(), strict=True)), fill=colour, width=2)
        screen.text(label, 60, 164 if tag == "train/loss" else 184, 12, colour)
    screen.draw.rectangle((40, 30, 40 + width, 30 + height), outline=pictures.FAINT)
    screen.text(f"updates, 0 to {points[-1].step:,}", 40 + width // 2, 30 + height + 8, 12, anchor="ma")
    return screen.array()


def main() -> None:
    """Write the pictures of docs/images."""
    folder = FOLDER / "images"
    folder.mkdir(exist_ok=True)
    (folder / "stem_tuning.gif").write_bytes(gif(episode(SEED), 1400, last=3500))
    Image.fromarray(tips(TIPS_SEED)).save(folder / "stm_tips.png", optimize=True)
    if (logs := FOLDER.parent / "runs/tip-conditioning/tensorboard").is_dir():  # of a training on this machine
        Image.fromarray(curve(logs)).save(folder / "tip_conditioning_curve.png", optimize=True)


if __name__ == "__main__":
    main()
