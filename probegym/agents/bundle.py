"""Trained policies as files, ``policy.onnx`` + ``policy.json``: those that ship, how they are written, and running them as agents.

What a bundle must be, and how it is read, is ``hardware_bridge.deployment.bundle``; nothing in it is executed but the ONNX graph.
"""

from __future__ import annotations

import hashlib
import json
import os
from base64 import b64encode
from pathlib import Path
from typing import Any

import numpy as np

from probegym.agents import files
from probegym.agents.base import Agent
from probegym.envs.episodes import Episodes
from probegym.envs.task import Observation, Task
from probegym.errors import ProbeGymError
from probegym.hardware_bridge.deployment.bundle import FILES, SCHEMA, check_pair, read, spec_digest
from probegym.hardware_bridge.deployment.inference import Inference

SHIPPED = Path(__file__).parent / "policies"


def shipped() -> dict[str, Path]:
    """Name -> folder of the policies in the package."""
    return {path.parent.name: path.parent for path in sorted(SHIPPED.glob("*/policy.json"))}


def find(name: str | os.PathLike[str]) -> Path:
    """Folder of a bundle, by shipped name or path; raises ProbeGymError where there is none."""
    if str(name) in shipped():
        return shipped()[str(name)]
    if (Path(name) / "policy.json").is_file():
        return Path(name)
    raise ProbeGymError(f"no policy {str(name)!r}: use one of {', '.join(shipped()) or 'none shipped'}, or a folder with policy.json")


class BundlePolicy(Agent):
    """Runs a bundle in this process, for evaluation. Raises ProbeGymError when the files do not belong together."""

    def __init__(self, name: str | os.PathLike[str]):
        self.folder = find(name)
        self.bundle = read(self.folder)
        self.spec = self.bundle.spec
        self.inference = Inference(self.bundle)
        self.task: Task | None = None  # the last one that it was found to fit

    def begin(self, lanes: int, seed: int) -> None:
        self.memory = self.bundle.start(lanes)

    def act(self, observation: Observation, episodes: Episodes) -> np.ndarray:
        if episodes.task is not self.task:
            self.bundle.fits(episodes.task)
            self.task = episodes.task
        return self.decide(observation)

    def decide(self, observation: Observation) -> np.ndarray:
        """Actions (lanes, ...) for a batch of observations; the policy's memory moves on."""
        lanes = len(next(iter(observation.values())))
        answer = self.inference.run(self.bundle.inputs(observation, lanes) | self.memory)
        self.memory = {name: answer[f"{name}_next"] for name in self.memory}
        return answer["action"]


def golden_pair(inputs: dict[str, np.ndarray], action: np.ndarray) -> dict[str, Any]:
    """Inputs and the action they must give, for the bundle's ``golden`` list; inputs (lanes, ...)."""
    packed = {
        name: {"dtype": str(v.dtype), "shape": list(v.shape), "base64": b64encode(np.ascontiguousarray(v).tobytes()).decode()}
        for name, v in inputs.items()
    }
    return {"inputs": packed, "action": np.round(action, 6).tolist()}


def write(folder: str | os.PathLike[str], model: bytes, spec: dict[str, Any]) -> Path:
    """Write a bundle, each file complete or not at all; a pair that does not belong together is refused when read.

    ``spec`` gains schema and checksums. Raises ProbeGymError for what would be refused when read, and when it cannot be written.
    """
    folder = Path(folder)
    content = json.loads(json.dumps(spec)) | {"schema": SCHEMA, "sha256": hashlib.sha256(model).hexdigest()}
    content["spec_sha256"] = spec_digest(content)
    check_pair(content, model)
    try:
        if folder.is_dir() and (others := sorted(path.name for path in folder.iterdir() if path.name not in FILES)):
            raise ProbeGymError(f"folder {folder} holds {others[0]!a}, a policy's folder holds nothing else: choose another")
        with files.atomically(folder / "policy.onnx", folder / "policy.json") as (graph, told):
            graph.write_bytes(model)
            told.write_text(json.dumps(content, indent=1))
    except OSError as error:
        raise ProbeGymError(f"cannot write policy {folder} ({error.strerror}): free space or choose another folder") from error
    return folder
