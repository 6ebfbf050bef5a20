"""What an installed package must do without any extra; `make smoke` runs this in environments with the wheel, or what the sdist gives, alone."""

from __future__ import annotations

import subprocess
import sys

import gymnasium
import numpy as np

import probegym  # noqa: F401  registers the environments

HEAVY = ("torch", "abtem", "stable_baselines3", "onnxruntime", "matplotlib")


def main() -> None:
    """Play some steps of every environment and of its batch, and ask the command line; raises on the first thing that is wrong."""
    for env_id in sorted(name for name in gymnasium.registry if name.startswith("probegym/")):
        env = gymnasium.make(env_id, render_mode="rgb_array")
        observation, _ = env.reset(seed=0)
        assert env.observation_space.contains(observation), env_id
        env.action_space.seed(0)
        _, reward, *_ = env.step(env.action_space.sample())
        assert np.isfinite(reward), env_id
        assert env.render().std() > 0, env_id
        env.close()
        batch = gymnasium.make_vec(env_id, num_envs=2)
        batch.reset(seed=0)
        batch.close()
        print(env_id)
    loaded = [name for name in HEAVY if name in sys.modules]
    assert not loaded, f"playing loaded {loaded}"
    for told in (["--version"], ["list"], ["scenarios", "StemTuning"]):
        subprocess.run([sys.executable, "-m", "probegym", *told], check=True, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    main()
