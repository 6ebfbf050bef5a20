"""From a trained student to a policy bundle: choose its threshold on training seeds, export ONNX, write golden pairs."""

from __future__ import annotations

import io
import subprocess
import warnings
from pathlib import Path

import numpy as np
import torch

from probegym import __version__
from probegym.agents import bundle, distil
from probegym.agents.distil import Student, Trainer
from probegym.agents.evaluate import Progress, evaluate

THRESHOLDS = (0.3, 0.2, 0.15, 0.1, 0.07, 0.05, 0.035)  # rad^2
SELECTION_SEED = 9_100_000  # of the training scenario, away from those of training and of evaluation
WANTED_SUCCESS = 0.995
LOOKS = 2  # one to correct by, one to see what that did


def choose_threshold(trainer: Trainer, episodes: int, progress: Progress = lambda *_: None) -> tuple[float, dict[str, dict[str, float]]]:
    """The most cautious threshold that succeeds often enough on the training scenario within LOOKS looks; if there is
    none, the one that succeeds most. Returns it and what every threshold gave.
    """
    rates: dict[float, dict[str, float]] = {}
    for done, threshold in enumerate(THRESHOLDS):
        progress(done, len(THRESHOLDS))
        student = Student(trainer.policy(threshold=threshold), trainer.frames)
        results = evaluate(student, trainer.config.env_id, trainer.config.scenario, episodes, SELECTION_SEED)
        rates[threshold] = {"success": float(results.success.mean()), "median_images": float(np.median(results.costs["measurements"]))}
    progress(len(THRESHOLDS), len(THRESHOLDS))
    looks = {t: rate["median_images"] / trainer.frames_per_step for t, rate in rates.items()}
    good = [t for t in THRESHOLDS if rates[t]["success"] >= WANTED_SUCCESS and looks[t] <= LOOKS]
    best = min(good) if good else max(THRESHOLDS, key=lambda t: rates[t]["success"])
    return best, {str(t): rate for t, rate in rates.items()}


def commit() -> str:
    """The commit of the source tree, or the version where there is none."""
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():  # installed, perhaps inside somebody else's repository
        return f"probegym {__version__}"
    try:
        done = subprocess.run(["git", "-C", str(root), "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return f"probegym {__version__}"
    return done.stdout.strip()


def to_onnx(module: torch.nn.Module, inputs: dict[str, torch.Tensor], outputs: list[str]) -> bytes:
    """The module as one ONNX file, weights inside; the first axis of everything is the lanes."""
    stream = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the TorchScript exporter announces its successor, which needs another package
        torch.onnx.export(module, tuple(inputs.values()), stream, input_names=list(inputs), output_names=outputs,
                          dynamic_axes={name: {0: "lanes"} for name in [*inputs, *outputs]}, opset_version=17, dynamo=False)  # fmt: skip
    return stream.getvalue()


def export(trainer: Trainer, folder: Path, threshold: float, selection: dict[str, dict[str, float]], command: str) -> Path:
    """Write the bundle; returns its folder. Raises ProbeGymError when it cannot be written."""
    policy, n = trainer.policy(threshold=threshold), len(trainer.names)
    observation, _ = trainer.envs.reset(seed=SELECTION_SEED)
    frames, budget = torch.from_numpy(observation[trainer.frames][:2]), torch.from_numpy(observation["budget"][:2])
    mean, variance = torch.zeros(2, n), policy.prior.repeat(2, 1)
    names = [trainer.frames, "budget", "mean", "variance"]
    outputs = ["action", "mean_next", "variance_next"]
    inputs = dict(zip(names, (frames, budget, mean, variance), strict=True))
    model = to_onnx(policy, inputs, outputs)
    with torch.no_grad():
        action = policy(*inputs.values())[0]
    spec = {
        "environment": trainer.config.env_id,
        "scenario": trainer.config.scenario,
        "observations": {k: {"shape": list(v.shape[1:]), "dtype": str(v.dtype)} for k, v in observation.items() if k in (trainer.frames, "budget")},
        "action": trainer.envs.episodes.task.action_units,
        "memory": {"mean": [0.0] * n, "variance": policy.prior.tolist()},
        "threshold_rad2": threshold,
        "selection": {"rule": f"the lowest threshold with success >= {WANTED_SUCCESS} and a median of at most {LOOKS} looks on the training scenario, "
                              f"seeds from {SELECTION_SEED}", "success": selection},
        "training_commit": commit(),
        "command": command,
        "golden": [bundle.golden_pair({name: v.numpy() for name, v in inputs.items()}, action.numpy())],
    }  # fmt: skip
    return bundle.write(folder, model, spec)


class Tuner(Trainer):
    """The trainer that ``probegym train StemTuning`` runs: it also chooses its threshold and writes its policy."""

    def finish(self, folder: Path, command: str, episodes: int, report: Progress = lambda *_: None) -> Path:
        """Choose the threshold on ``episodes`` of the training scenario and write the bundle; returns its folder."""
        threshold, rates = choose_threshold(self, episodes, report)
        return export(self, folder, threshold, rates, command)


def tuner(env_id: str, scenario: str, updates: int, seed: int, folder: Path) -> Tuner:
    """The trainer of StemTuning for ``registry.DISTILLATIONS``."""
    return Tuner(distil.Distillation(env_id, scenario, updates=updates, seed=seed), folder)
