"""Small policy bundles for tests, honest ones and others, signed as if they were honest."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from probegym.agents.bundle import golden_pair, spec_digest

WEIGHTS = np.array([[0.5, -0.25], [0.125, 1.0], [0.0, 0.75]], np.float32)


def value(name: str, *shape: int | str, dtype: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    """One input or output of a graph."""
    return helper.make_tensor_value_info(name, dtype, shape)


def model(opset: int = 17) -> onnx.ModelProto:
    """A policy: action = tanh(seen @ WEIGHTS + kept); kept_next = kept + 1."""
    constants = [onnx.numpy_helper.from_array(WEIGHTS, "weights"), onnx.numpy_helper.from_array(np.ones(2, np.float32), "one")]
    nodes = [
        helper.make_node("MatMul", ["seen", "weights"], ["mixed"]),
        helper.make_node("Add", ["mixed", "kept"], ["sum"]),
        helper.make_node("Tanh", ["sum"], ["action"]),
        helper.make_node("Add", ["kept", "one"], ["kept_next"]),
    ]
    shapes = [value("seen", "lanes", 3), value("kept", "lanes", 2)], [value("action", "lanes", 2), value("kept_next", "lanes", 2)]
    return helper.make_model(helper.make_graph(nodes, "policy", *shapes, constants), opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def expected(seen: np.ndarray, kept: float = 0.0) -> np.ndarray:
    """The action of ``model`` for (lanes, 3)."""
    return np.tanh(seen @ WEIGHTS + kept)


def description(content: bytes) -> dict[str, Any]:
    """The policy.json that belongs to it."""
    seen = np.array([[0.1, 0.2, -0.3], [1.0, 0.0, 0.5]], np.float32)
    pair = golden_pair({"seen": seen, "kept": np.zeros((2, 2), np.float32)}, expected(seen))
    return {
        "schema": 1, "sha256": hashlib.sha256(content).hexdigest(), "environment": "probegym/Test-v0", "scenario": "train",
        "observations": {"seen": {"shape": [3], "dtype": "float32"}}, "action": {"names": ["x", "y"], "unit": "m"}, "memory": {"kept": [0.0, 0.0]},
        "training_commit": "none", "command": "a test", "golden": [pair],
    }  # fmt: skip


def write(folder: Path, content: bytes, spec: dict[str, Any]) -> Path:
    """Both files, the description signed."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "policy.onnx").write_bytes(content)
    (folder / "policy.json").write_text(json.dumps(spec | {"spec_sha256": spec_digest(spec)}))
    return folder


def make(folder: Path, graph: Callable[[onnx.ModelProto], Any] = lambda _: None, told: Callable[[dict], Any] = lambda _: None) -> Path:
    """A bundle whose graph and description were changed before it was signed."""
    changed = model()
    graph(changed)
    spec = description(content := changed.SerializeToString())
    told(spec)
    return write(folder, content, spec)
