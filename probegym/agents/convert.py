"""Stable-Baselines3's own zip files into policy bundles. Their contents are pickles: LOADING ONE RUNS WHATEVER CODE IT HOLDS.

``python -m probegym.agents.convert MODEL ALGORITHM ENVIRONMENT SCENARIO FOLDER`` is started by ``probegym convert --trust`` and by
nothing else; it is the only place of ProbeGym where anything is unpickled. What it writes is verified by the process that started it.
"""

from __future__ import annotations

import json
import sys
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from probegym.agents.seeds import TUNING_SEED
from probegym.envs import vector_env
from probegym.errors import ProbeGymError

if TYPE_CHECKING:
    from stable_baselines3.common.base_class import BaseAlgorithm

MARKS = {"ppo": {"clip_range", "gae_lambda"}, "sac": {"target_entropy", "ent_coef"}}
"""Algorithm -> entries of the zip's JSON that it has and the others have not."""
MAXIMUM_BYTES = 500_000_000  # of the zip's JSON, unpacked
LANES, STEPS, TOLERANCE = 8, 4, 1e-5  # of the comparison with SB3's own actions


def algorithm(model: Path) -> str:
    """Which it is, ppo or sac, by the names in the zip's JSON; nothing is unpickled. Raises ProbeGymError for any other file."""
    try:
        with zipfile.ZipFile(model) as archive:
            if archive.getinfo("data").file_size > MAXIMUM_BYTES:
                raise ProbeGymError(f"{model} holds a description of more than {MAXIMUM_BYTES} bytes: this is no model to convert")
            entries = json.loads(archive.read("data"))
    except FileNotFoundError as error:
        raise ProbeGymError(f"there is no file {model}: give the zip that SB3's save() wrote") from error
    except (OSError, zipfile.BadZipFile, KeyError, ValueError, RecursionError, NotImplementedError) as error:
        raise ProbeGymError(f"{model} is no model of Stable-Baselines3 ({type(error).__name__}): give the zip that its save() wrote") from error
    found = [name for name, marks in MARKS.items() if isinstance(entries, dict) and marks <= set(entries)]
    if len(found) != 1:
        raise ProbeGymError(f"{model} is neither of PPO nor of SAC: only these are converted")
    return found[0]


def main(model: str, algorithm: str, env_id: str, scenario: str, folder: str) -> None:
    """Unpickle, compare and write; raises ProbeGymError."""
    from stable_baselines3.common.vec_env import VecMonitor

    from probegym.agents.sb3 import ALGORITHMS, ScopeVecEnv, Training, export_sb3

    envs = VecMonitor(ScopeVecEnv(vector_env(env_id, num_envs=LANES, scenario=scenario, autoreset_mode="SameStep")))
    try:
        loaded = ALGORITHMS[algorithm].load(model, env=envs, device="cpu", custom_objects=_replacements(algorithm))
    except ValueError as error:
        raise ProbeGymError(f"the model does not fit {env_id}, scenario {scenario!r} ({_line(error)}): name those that it was trained on") from error
    loaded.policy.set_training_mode(False)
    _compare(loaded, export_sb3(loaded, Training(env_id, scenario, algorithm, int(loaded.num_timesteps)), Path(folder), "probegym convert"))


def _replacements(algorithm: str) -> dict[str, Any]:
    """What only training needs: buffers of full size would take gigabytes, schedules may be functions of another version of Python."""
    shared = {"learning_rate": 0.0, "lr_schedule": _nil}
    if algorithm == "ppo":
        return shared | {"clip_range": _nil, "n_steps": 2}
    return shared | {"buffer_size": LANES, "replay_buffer_class": None, "replay_buffer_kwargs": {}}


def _nil(_: float) -> float:
    return 0.0


def _compare(loaded: BaseAlgorithm, folder: Path) -> None:
    """Refuse a bundle whose actions are not those of SB3's ``predict``."""
    from probegym.agents.bundle import BundlePolicy
    from probegym.agents.sb3 import env_of

    policy, envs = BundlePolicy(folder), env_of(loaded)
    policy.begin(LANES, 0)
    envs.seed(TUNING_SEED)
    envs.action_space.seed(TUNING_SEED)
    observation = envs.reset()
    for _ in range(STEPS):
        given, wanted = policy.decide(observation), loaded.predict(observation, deterministic=True)[0]
        if given.shape != wanted.shape or np.abs(given - wanted).max() > TOLERANCE:
            raise ProbeGymError("the model's actions do not come out as SB3 gives them: train it with the default distribution of actions")
        observation = envs.step(np.stack([envs.action_space.sample() for _ in range(LANES)]))[0]


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except ProbeGymError as error:
        print(f"error: {_line(error)}", file=sys.stderr)
        sys.exit(2)
