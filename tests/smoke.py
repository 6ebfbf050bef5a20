"""What an installed package must do without any extra: `make smoke` runs this outside of the repository, in an environment with the wheel alone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import gymnasium
import numpy as np

import probegym

HEAVY = ("torch", "abtem", "stable_baselines3", "onnxruntime", "matplotlib")


def main() -> None:
    """Play some steps of every environment and of its batch, and ask the command line; raises on the first thing that is wrong."""
    repository = Path(__file__).parent.parent
    assert repository not in Path(probegym.__file__).parents or ".venv" in probegym.__file__ or "runs" in probegym.__file__, probegym.__file__
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
