"""Policy bundles: a folder with ``policy.onnx`` and ``policy.json`` and nothing else, verified whole before anything of it runs.

Order of the checks: kinds of files and sizes, strict JSON, schema, checksums, description, then the graph itself. The JSON holds the
environment and its spaces with units, the inputs that carry the policy's memory, checksums, the training commit, the command that
rebuilds it, and golden pairs: inputs with the actions that they must give, which whoever opens a session runs first.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import stat
from base64 import b64decode
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from probegym.errors import ProbeGymError
from probegym.hardware_bridge import codec
from probegym.hardware_bridge.deployment.graph import Signature, check
from probegym.hardware_bridge.deployment.onnx_file import Unfit

if TYPE_CHECKING:
    from probegym.envs.task import Task

SCHEMA = 1
FILES = {"policy.json": 4_000_000, "policy.onnx": 64_000_000}
"""Name -> most bytes."""
MAXIMUM_DEPTH, MAXIMUM_NUMBERS, MAXIMUM_LANES = 16, 2**24, 1024
NEXT = "_next"  # an output of this ending is the memory for the next step
ACTIONS = ("float32", "float64", "int32", "int64")
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("must be printable")
    return text


Text = Annotated[str, Field(max_length=2000), AfterValidator(_printable)]
Size = Annotated[int, Field(ge=1, le=MAXIMUM_NUMBERS)]
Single = Annotated[float, Field(ge=-3e38, le=3e38)]  # within the range of float32
Dtype = Literal["float32", "float64", "uint8", "int8", "uint16", "int16", "int32", "int64", "bool"]


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class ArrayLayout(_Strict):
    """One entry of an observation, without the axis of lanes."""

    shape: Annotated[list[Size], Field(max_length=6)]
    dtype: Dtype


class _Packed(_Strict):
    dtype: Dtype
    shape: Annotated[list[Size], Field(min_length=1, max_length=7)]
    base64: str


class _Golden(_Strict):
    inputs: dict[str, _Packed]
    action: list[Any]


class Description(BaseModel):
    """What every policy.json holds; further entries tell how the policy came about."""

    model_config = ConfigDict(strict=True, extra="allow", frozen=True)
    sha256: str
    spec_sha256: str
    environment: Text
    scenario: Text
    observations: Annotated[dict[str, ArrayLayout], Field(min_length=1, max_length=64)]
    action: dict[str, Any]
    memory: Annotated[dict[str, Annotated[list[Single], Field(min_length=1)]], Field(max_length=64)]
    training_commit: Text
    command: Text
    golden: Annotated[list[_Golden], Field(min_length=1, max_length=64)]


@dataclass(frozen=True, eq=False)
class Bundle:
    """A verified bundle. Its graph has not been run yet: golden pairs are checked by who opens a session.

    spec: policy.json as it was read. model: policy.onnx. golden: (inputs, action) pairs, (n, ...) each. outputs: name -> shape
    without lanes, and dtype; ``action`` first, then the memory for the next step.
    """

    folder: Path
    spec: dict[str, Any]
    model: bytes
    observations: dict[str, Signature]
    memory: dict[str, np.ndarray]
    golden: list[tuple[dict[str, np.ndarray], np.ndarray]]
    outputs: dict[str, tuple[tuple[int, ...], np.dtype[Any]]]

    @property
    def name(self) -> str:
        """The folder's name, for messages."""
        return self.folder.name

    @property
    def digest(self) -> str:
        """SHA-256 of the description, which holds that of the model: it stands for the whole bundle."""
        return str(self.spec["spec_sha256"])

    def start(self, lanes: int) -> dict[str, np.ndarray]:
        """The memory at the start of episodes, (lanes, ...) each."""
        return {name: np.tile(value, (lanes, 1)) for name, value in self.memory.items()}

    def inputs(self, observation: dict[str, np.ndarray], lanes: int) -> dict[str, np.ndarray]:
        """What the graph is given of an observation, (lanes, ...) each; raises ProbeGymError where an entry lacks or has another shape or dtype."""
        if missing := sorted(set(self.observations) - set(observation)):
            raise ProbeGymError(f"policy {self.name} needs {', '.join(missing)} in the observation: use scenario {self.spec['scenario']!r}")
        shown = {name: observation[name] for name in self.observations}
        for name, wanted in self.observations.items():
            array = shown[name]
            if array.shape != (lanes, *wanted.shape) or str(array.dtype) not in wanted.dtypes:
                told = f"{wanted.dtypes[0]} of shape {(lanes, *wanted.shape)}, got {array.dtype} of shape {array.shape}"
                raise ProbeGymError(f"policy {self.name} needs {name} as {told}: use scenario {self.spec['scenario']!r}")
        return shown

    def fits(self, task: Task, env_id: str | None = None) -> None:
        """Raise ProbeGymError where the policy is not made for a task: other environment, action units, action space or observations."""
        where = f"use scenario {self.spec['scenario']!r} of {self.spec['environment']}"
        if env_id is not None and env_id != self.spec["environment"]:
            raise ProbeGymError(f"policy {self.name} is made for {self.spec['environment']}, not for {env_id}: use another")
        if self.spec["action"] != task.action_units:
            raise ProbeGymError(f"policy {self.name} moves other controls than this environment: {where}")
        shape, dtype = self.outputs["action"]
        space = task.action_space
        if shape != space.shape or (dtype.kind == "f") != (np.dtype(space.dtype).kind == "f"):
            raise ProbeGymError(f"policy {self.name} gives actions {dtype} of shape {shape}, this environment takes {space}: {where}")
        shown = task.observation_space.spaces
        if missing := sorted(set(self.observations) - set(shown)):
            raise ProbeGymError(f"policy {self.name} needs {', '.join(missing)} in the observation: {where}")
        for name, wanted in self.observations.items():
            if shown[name].shape != wanted.shape or str(shown[name].dtype) not in wanted.dtypes:
                told = f"{wanted.dtypes[0]} of shape {wanted.shape}, this environment gives {shown[name].dtype} of shape {shown[name].shape}"
                raise ProbeGymError(f"policy {self.name} needs {name} as {told}: {where}")


def read(folder: str | os.PathLike[str]) -> Bundle:
    """Read and verify a bundle; nothing of it is run. Raises ProbeGymError, one line that names the folder."""
    folder = Path(folder)
    try:
        return _verified(folder, *_contents(folder))
    except Unfit as error:
        raise ProbeGymError(f"policy {folder} is refused: {error}: {error.mend}") from error


def check_pair(spec: dict[str, Any], model: bytes) -> None:
    """The same checks before a bundle is written; raises ProbeGymError."""
    try:
        _verified(Path("to be written"), json.dumps(spec).encode(), model)
    except Unfit as error:
        raise ProbeGymError(f"this policy would be refused when it is read: {error}: change how it is made") from error


def spec_digest(spec: dict[str, Any]) -> str:
    """Checksum of a description, its own entry left out."""
    told = {name: value for name, value in spec.items() if name != "spec_sha256"}
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


# ---- files ----


def _contents(folder: Path) -> tuple[bytes, bytes]:
    """Both files, sizes first. Raises Unfit."""
    try:
        found = sorted(entry.name for entry in os.scandir(folder))
        if others := [name for name in found if name not in FILES]:
            raise Unfit(f"it holds {others[0][:80]!a} besides policy.json and policy.onnx", "take that out")
        if missing := [name for name in FILES if name not in found]:
            raise Unfit(f"it cannot be read, {missing[0]} is missing")
        for name, most in FILES.items():  # all sizes before any content
            _regular(name, os.lstat(folder / name), most)
        return tuple(_read(folder, name, most) for name, most in FILES.items())  # type: ignore[return-value]
    except OSError as error:
        raise Unfit(f"it cannot be read ({error.strerror or error})") from error


def _regular(name: str, status: os.stat_result, most: int) -> None:
    if stat.S_ISLNK(status.st_mode):
        raise Unfit(f"{name} is a symbolic link", "put the file itself there")
    if not stat.S_ISREG(status.st_mode):
        raise Unfit(f"{name} is no ordinary file")
    if status.st_size > most:
        raise Unfit(f"{name} has {status.st_size} bytes, at most {most} are read")


def _read(folder: Path, name: str, most: int) -> bytes:
    """One file, which may have been exchanged since it was looked at."""
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    with open(os.open(folder / name, flags), "rb") as stream:
        _regular(name, os.fstat(stream.fileno()), most)
        return stream.read(most)


# ---- contents ----


def _verified(folder: Path, text: bytes, model: bytes) -> Bundle:
    """The bundle of both files' contents. Raises Unfit."""
    try:
        spec = codec.loads(text.decode("utf-8"))
    except (codec.Malformed, UnicodeDecodeError) as error:
        raise Unfit(f"policy.json cannot be read ({str(error)[:100]})") from error
    _shallow(spec)
    if not isinstance(spec, dict) or spec.get("schema") != SCHEMA or isinstance(spec["schema"], bool):
        schema = str(spec.get("schema") if isinstance(spec, dict) else None)[:20]
        raise Unfit(f"policy.json has schema {schema!a}, this version reads {SCHEMA}")
    if spec.get("spec_sha256") != spec_digest(spec):
        raise Unfit("policy.json does not match its checksum")
    if spec.get("sha256") != hashlib.sha256(model).hexdigest():
        raise Unfit("policy.onnx does not match its checksum")
    try:
        told = Description.model_validate(spec)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise Unfit(f"policy.json: {'.'.join(map(ascii, first['loc']))[:100]}: {first['msg']}") from error
    observations = {name: Signature(tuple(layout.shape), (layout.dtype,)) for name, layout in told.observations.items()}
    memory = {name: np.array(values, np.float32) for name, values in told.memory.items()}
    _names(observations, memory)
    kept = {name: Signature(values.shape, ("float32",)) for name, values in memory.items()}
    golden = [_unpacked(pair, observations | kept) for pair in told.golden]
    action = golden[0][1].shape[1:]
    outputs = {"action": Signature(action, ACTIONS)} | {name + NEXT: signature for name, signature in kept.items()}
    dtypes = check(model, observations | kept, outputs)
    layout = {name: (signature.shape, np.dtype(dtypes[name])) for name, signature in outputs.items()}
    return Bundle(folder, spec, model, observations, memory, golden, layout)


def _shallow(content: Any) -> None:
    """Refuse what is nested deeply, level by level: what comes later may recurse."""
    level = [content]
    for _ in range(MAXIMUM_DEPTH):
        nests = [value for value in level if isinstance(value, dict | list)]
        level = [inner for nest in nests for inner in (nest.values() if isinstance(nest, dict) else nest)]
        if not level:
            return
    raise Unfit(f"policy.json is nested more than {MAXIMUM_DEPTH} deep")


def _names(observations: dict[str, Signature], memory: dict[str, np.ndarray]) -> None:
    names = [*observations, *memory, "action", *(name + NEXT for name in memory)]
    if wrong := [name for name in names if not NAME.fullmatch(name)]:
        raise Unfit(f"policy.json names an input {wrong[0][:40]!a}; names are letters, digits and underscores")
    if len(set(names)) != len(names):
        raise Unfit("policy.json gives one name to two inputs or outputs")
    if sum(math.prod(signature.shape) for signature in observations.values()) + sum(map(len, memory.values())) > MAXIMUM_NUMBERS:
        raise Unfit(f"policy.json has inputs of more than {MAXIMUM_NUMBERS} numbers")


def _unpacked(pair: _Golden, wanted: dict[str, Signature]) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Inputs and action of a golden pair, as many lanes in each."""
    if set(pair.inputs) != set(wanted):
        raise Unfit(f"policy.json: a golden pair has other inputs than {', '.join(wanted)[:200]}")
    inputs = {}
    for name, packed in pair.inputs.items():
        if packed.dtype not in wanted[name].dtypes or tuple(packed.shape[1:]) != wanted[name].shape or packed.shape[0] > MAXIMUM_LANES:
            raise Unfit(f"policy.json: a golden pair holds {name} as {packed.dtype} of shape {packed.shape}, wanted is {wanted[name].shape} for each lane")
        try:
            inputs[name] = np.frombuffer(b64decode(packed.base64, validate=True), packed.dtype).reshape(packed.shape)
        except ValueError as error:
            raise Unfit(f"policy.json: {name} of a golden pair is not what its shape says") from error
    try:
        action = np.array(pair.action)
    except ValueError as error:
        raise Unfit("policy.json: the action of a golden pair is ragged") from error
    if action.dtype.kind not in "if" or not action.ndim or {len(array) for array in inputs.values()} != {len(action)}:
        raise Unfit("policy.json: the action of a golden pair is no array of numbers with one row for each lane")
    return inputs, action
