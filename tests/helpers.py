"""Comparing, hashing and running things in a fresh process."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]


def leaves(value, path: str = "") -> list[tuple[str, object]]:
    """Every array and number of a nest of dicts, sequences and dataclasses, with its path."""
    if dataclasses.is_dataclass(value):
        value = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
    if isinstance(value, dict):
        return [leaf for key in sorted(value) for leaf in leaves(value[key], f"{path}/{key}")]
    if isinstance(value, (list, tuple)):
        return [leaf for index, item in enumerate(value) for leaf in leaves(item, f"{path}/{index}")]
    return [(path, value)]


def differences(one, other) -> list[str]:
    """Paths at which two nests are not exactly equal."""
    a, b = dict(leaves(one)), dict(leaves(other))
    return sorted(set(a) ^ set(b)) + [path for path in a if path in b and not _equal(a[path], b[path])]


def _equal(one, other) -> bool:
    return _bytes(one) == _bytes(other)


def _bytes(leaf) -> bytes:
    array = np.asarray(leaf)
    content = repr(array.tolist()).encode() if array.dtype == object else array.tobytes()
    return f"{array.dtype}{array.shape}".encode() + content


def almost(one, other) -> list[str]:
    """Like differences, but uint8 images may differ by one grey level in 1e-4 of their pixels."""
    a, b = dict(leaves(one)), dict(leaves(other))
    return [path for path in differences(one, other) if not (path in a and path in b and _same_image(a[path], b[path]))]


def _same_image(one, other) -> bool:
    if not isinstance(one, np.ndarray) or one.dtype != np.uint8 or other.shape != one.shape or other.dtype != np.uint8:
        return False
    gap = np.abs(one.astype(int) - other.astype(int))
    return gap.max() <= 1 and (gap > 0).mean() <= 1e-4


def rollout(env, actions, seed: int = 0) -> list:
    """Everything that an environment returns, starting again whenever an episode ends."""
    seen: list = [env.reset(seed=seed)]
    for action in actions:
        seen.append(env.step(action))
        if seen[-1][2] or seen[-1][3]:
            seen.append(env.reset())
    return seen


def vector_rollout(env, actions, seed: int = 0) -> list:
    """The same of a vector environment that resets itself."""
    return [env.reset(seed=seed), *(env.step(action) for action in actions)]


def follow(env, actions) -> list:
    """Steps from where an environment is."""
    return [env.step(action) for action in actions]


def digest(value) -> str:
    """One hash of everything in a nest."""
    total = hashlib.sha256()
    for path, leaf in leaves(value):
        total.update(path.encode() + _bytes(leaf))
    return total.hexdigest()


def python(code: str, *arguments, seconds: float = 120, **environment) -> str:
    """What a fresh Python prints."""
    surroundings = os.environ | {"PYTHONPATH": str(ROOT)} | environment
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, env=surroundings, cwd=ROOT, capture_output=True, text=True, timeout=seconds)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.strip()


def resident_bytes() -> int:
    """Memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def moved(value):
    """A copy that went through pickle."""
    return pickle.loads(pickle.dumps(value))


def weights(trainer) -> np.ndarray:
    """All weights of a trainer's network, (weights,)."""
    return np.concatenate([v.detach().numpy().ravel() for v in trainer.policy.state_dict().values()])


def stopped_and_resumed(trainer_type, training, folder: Path):
    """A trainer that was stopped after one update and went on, which made no difference to its network. Asserts that, and that it learned."""
    whole = trainer_type(training, folder / "whole")
    start = weights(whole)
    whole.run()
    first, learn = trainer_type(training, folder / "part"), trainer_type.learn

    def stopped():
        if first.update == 1:
            raise KeyboardInterrupt
        return learn(first)

    first.learn = stopped
    with pytest.raises(KeyboardInterrupt):
        first.run(checkpoint_every=1)
    second = trainer_type(training, folder / "part")
    second.load()
    second.run()
    assert np.array_equal(weights(second), weights(whole)) and not np.array_equal(weights(whole), start)
    return second
