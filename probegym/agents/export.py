"""From a trained student to a policy bundle: choose its threshold on training seeds, export ONNX, write golden pairs."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch

from probegym.agents import bundle, distil, files
from probegym.agents.distil import Student, Trainer
from probegym.agents.evaluate import Progress, evaluate
from probegym.agents.seeds import SELECTION_SEED
from probegym.envs.task import Observation, Task

THRESHOLDS = (0.3, 0.2, 0.15, 0.1, 0.07, 0.05, 0.035)  # rad^2
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


def to_onnx(module: torch.nn.Module, inputs: dict[str, torch.Tensor], outputs: list[str]) -> bytes:
    """The module as one ONNX file, weights inside; the first axis of everything is the lanes."""
    stream: Any = io.BytesIO()  # which the exporter takes, though its types say otherwise
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the TorchScript exporter announces its successor, which needs another package
        torch.onnx.export(module, tuple(inputs.values()), stream, input_names=list(inputs), output_names=outputs,
                          dynamic_axes={name: {0: "lanes"} for name in [*inputs, *outputs]}, opset_version=17, dynamo=False)  # fmt: skip
    content: bytes = stream.getvalue()
    return content


def ship(folder: Path, policy: torch.nn.Module, config: Any, task: Task, observation: Observation, memory: dict[str, torch.Tensor],
         command: str, **more: Any) -> Path:  # fmt: skip
    """Write the bundle of a trained policy; returns its folder. Raises ProbeGymError when it cannot be written.

    config: of the training, with env_id and scenario. observation: (n, ...) what the policy is shown, in the order of its arguments.
    memory: (n, ...) what follows them, as at the start of an episode; the policy returns its action, then the memory for the next step.
    more: further entries of policy.json, such as how constants were chosen.
    """
    inputs = {name: torch.from_numpy(v) for name, v in observation.items()} | memory
    policy.eval()
    with torch.no_grad():
        out = policy(*inputs.values())
    action = out[0] if memory else out
    spec = {
        "environment": config.env_id,
        "scenario": config.scenario,
        "observations": {name: {"shape": list(v.shape[1:]), "dtype": str(v.dtype)} for name, v in observation.items()},
        "action": task.action_units,
        "memory": {name: v[0].tolist() for name, v in memory.items()},
        **more,
        "training_commit": files.commit(),
        "command": command,
        "golden": [bundle.golden_pair({name: v.numpy() for name, v in inputs.items()}, action.numpy())],
    }
    return bundle.write(folder, to_onnx(policy, inputs, ["action", *(f"{name}_next" for name in memory)]), spec)


def export(trainer: Trainer, folder: Path, threshold: float, rates: dict[str, dict[str, float]], command: str) -> Path:
    """Write the bundle of a student with its threshold; returns its folder. Raises ProbeGymError when it cannot be written."""
    policy, observation = trainer.policy(threshold=threshold), trainer.envs.reset(seed=SELECTION_SEED)[0]
    shown = {name: observation[name][:2] for name in (trainer.frames, "budget")}
    memory = {"mean": torch.zeros(2, len(trainer.names)), "variance": policy.prior.repeat(2, 1)}
    rule = f"the lowest threshold with success >= {WANTED_SUCCESS} and a median of at most {LOOKS} looks on the training scenario, seeds from {SELECTION_SEED}"
    selection = {"rule": rule, "success": rates}
    return ship(folder, policy, trainer.config, trainer.envs.episodes.task, shown, memory, command, threshold_rad2=threshold, selection=selection)


class Tuner(Trainer):
    """The trainer that ``probegym train StemTuning`` runs: it also chooses its threshold and writes its policy."""

    def finish(self, folder: Path, command: str, episodes: int, report: Progress = lambda *_: None) -> Path:
        """Choose the threshold on ``episodes`` of the training scenario and write the bundle; returns its folder."""
        threshold, rates = choose_threshold(self, episodes, report)
        return export(self, folder, threshold, rates, command)


def tuner(env_id: str, scenario: str, updates: int, seed: int, folder: Path) -> Tuner:
    """The trainer of StemTuning for ``registry.DISTILLATIONS``."""
    return Tuner(distil.Distillation(env_id, scenario, updates=updates, seed=seed), folder)
