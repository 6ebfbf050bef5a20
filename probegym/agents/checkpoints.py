"""Checkpoints of trainings: plain tensors and numbers, written whole or not at all, read without executing anything."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from probegym.agents import files
from probegym.errors import ProbeGymError


def write(path: Path, config: Any, **state: Any) -> None:
    """Write the state of a training with its configuration (a dataclass); raises ProbeGymError when that fails."""
    save(path, {"config": asdict(config)} | state)


def save(path: Path, state: dict[str, Any]) -> None:
    """Write tensors and plain values; raises ProbeGymError when that fails."""
    try:
        with files.atomically(path) as (scratch,):
            torch.save(state, scratch)
    except (OSError, RuntimeError) as error:  # torch reports a full disk as RuntimeError
        raise ProbeGymError(f"cannot write checkpoint {path} ({error}): free space or choose another folder") from error


@contextmanager
def read(path: Path, config: Any) -> Iterator[dict[str, Any]]:
    """The state of a training; raises ProbeGymError when it is damaged, of another configuration, or does not fit in the block."""
    try:
        state = torch.load(path, weights_only=True)
    except Exception as error:
        raise ProbeGymError(f"checkpoint {path} cannot be read ({type(error).__name__}): delete it and train again") from error
    try:
        changed = [name for name, value in asdict(config).items() if state["config"].get(name) != value]
        if changed:
            raise ProbeGymError(f"checkpoint {path} was made with other {', '.join(changed)}: use the same, or another folder")
        yield state
    except (KeyError, TypeError, AttributeError, ValueError, RuntimeError) as error:
        raise ProbeGymError(f"checkpoint {path} is not one of this training: delete it and train again") from error
