"""From a trained network to a policy bundle: ONNX, and golden pairs of what it must answer."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import Any

import torch

from probegym.agents import bundle, files
from probegym.envs.task import Observation, Task


def to_onnx(module: torch.nn.Module, inputs: dict[str, torch.Tensor], outputs: list[str]) -> bytes:
    """The module as one ONNX file, weights inside; everything is (lanes, ...)."""
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
