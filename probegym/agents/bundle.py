"""Trained policies as files: ``policy.onnx`` + ``policy.json``. Nothing in them is executed but the ONNX graph.

The JSON holds the schema version, the environment and its spaces with units, the inputs that carry the policy's memory,
checksums, the training commit and the command that rebuilds it.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from base64 import b64decode, b64encode
from pathlib import Path

import numpy as np

from probegym.agents.base import Agent
from probegym.envs.episodes import Episodes
from probegym.envs.task import Observation
from probegym.errors import ProbeGymError

SCHEMA = 1
SHIPPED = Path(__file__).parent / "policies"
MAXIMUM_BYTES = 64_000_000


def shipped() -> dict[str, Path]:
    """Name -> folder of the policies in the package."""
    return {path.parent.name: path.parent for path in sorted(SHIPPED.glob("*/policy.json"))}


def find(name: str | os.PathLike) -> Path:
    """Folder of a bundle, by shipped name or path."""
    if str(name) in shipped():
        return shipped()[str(name)]
    if (Path(name) / "policy.json").is_file():
        return Path(name)
    raise ProbeGymError(f"no policy {str(name)!r}: use one of {', '.join(shipped()) or 'none shipped'}, or a folder with policy.json")


class BundlePolicy(Agent):
    """Runs a bundle with ONNX Runtime on one thread. Raises ProbeGymError when the files do not belong together."""

    def __init__(self, name: str | os.PathLike):
        import onnxruntime

        self.folder = find(name)
        try:
            self.spec = json.loads((self.folder / "policy.json").read_text())
            model = (self.folder / "policy.onnx").read_bytes()
            schema, digest, told = self.spec["schema"], self.spec["sha256"], self.spec["spec_sha256"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ProbeGymError(f"policy {self.folder} cannot be read ({error}): export or reinstall it") from error
        if schema != SCHEMA:
            raise ProbeGymError(f"policy {self.folder} has schema {schema}, this version reads {SCHEMA}: export or reinstall it")
        if told != spec_digest(self.spec):
            raise ProbeGymError(f"policy {self.folder}/policy.json does not match its checksum: export or reinstall it")
        if len(model) > MAXIMUM_BYTES or hashlib.sha256(model).hexdigest() != digest:
            raise ProbeGymError(f"policy {self.folder}/policy.onnx does not match its checksum: export or reinstall it")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        try:
            self.session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
            for golden in self.spec["golden"]:
                self._check(golden)
        except ProbeGymError:
            raise
        except Exception as error:  # a file that has the right checksum and yet is no policy: ONNX Runtime raises its own kinds
            reason = " ".join(str(error).split())
            raise ProbeGymError(f"policy {self.folder} is no usable policy ({reason[:200]}): export or reinstall it") from error

    def _check(self, golden: dict) -> None:
        inputs = {name: np.frombuffer(b64decode(v["base64"]), v["dtype"]).reshape(v["shape"]) for name, v in golden["inputs"].items()}
        action = self.session.run(["action"], inputs)[0]
        if not np.allclose(action, np.array(golden["action"]), atol=1e-4):
            raise ProbeGymError(f"policy {self.folder} does not give its recorded actions on this machine: check onnxruntime")

    def begin(self, lanes: int, seed: int) -> None:
        self.memory = {name: np.tile(np.array(v, np.float32), (lanes, 1)) for name, v in self.spec["memory"].items()}

    def act(self, observation: Observation, episodes: Episodes) -> np.ndarray:
        if self.spec["action"] != episodes.task.action_units:
            raise ProbeGymError(f"policy {self.folder.name} moves other controls than scenario {episodes.scenario.name!r}: use {self.spec['scenario']!r}")
        return self.decide(observation)

    def decide(self, observation: Observation) -> np.ndarray:
        """Actions (lanes, ...) for a batch of observations; the policy's memory moves on."""
        missing = set(self.spec["observations"]) - set(observation)
        if missing:
            raise ProbeGymError(
                f"policy {self.folder.name} needs {', '.join(sorted(missing))} in the observation: use scenario {self.spec['scenario']!r}"
            )
        inputs = {name: observation[name] for name in self.spec["observations"]}
        for name, shape in self.spec["observations"].items():
            if list(inputs[name].shape[1:]) != shape["shape"]:
                raise ProbeGymError(f"policy {self.folder.name} needs {name} of shape {shape['shape']}, got {list(inputs[name].shape[1:])}")
        names = ["action", *(f"{name}_next" for name in self.memory)]
        action, *memory = self.session.run(names, inputs | self.memory)
        self.memory = dict(zip(self.memory, memory, strict=True))
        return action


def spec_digest(spec: dict) -> str:
    """Checksum of a description, its own entry left out."""
    told = {name: value for name, value in spec.items() if name != "spec_sha256"}
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def golden_pair(inputs: dict[str, np.ndarray], action: np.ndarray) -> dict:
    """Inputs and the action they must give, for the bundle's ``golden`` list; inputs (lanes, ...)."""
    packed = {
        name: {"dtype": str(v.dtype), "shape": list(v.shape), "base64": b64encode(np.ascontiguousarray(v).tobytes()).decode()}
        for name, v in inputs.items()
    }
    return {"inputs": packed, "action": np.round(action, 6).tolist()}


def write(folder: str | os.PathLike, model: bytes, spec: dict) -> Path:
    """Write a bundle, each file complete or not at all; a pair that does not belong together is refused when read. ``spec`` gains schema and checksum."""
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            (Path(scratch) / "policy.onnx").write_bytes(model)
            content = {"schema": SCHEMA, "sha256": hashlib.sha256(model).hexdigest(), **json.loads(json.dumps(spec))}
            content["spec_sha256"] = spec_digest(content)
            (Path(scratch) / "policy.json").write_text(json.dumps(content, indent=1))
            for name in ("policy.onnx", "policy.json"):
                os.replace(Path(scratch) / name, folder / name)
    except OSError as error:
        raise ProbeGymError(f"cannot write policy {folder} ({error.strerror}): free space or choose another folder") from error
    return folder
