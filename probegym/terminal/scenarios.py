"""``probegym scenarios``: what there is, what sets each apart from training, and whether one's own file can be played."""

from __future__ import annotations

from pathlib import Path

import gymnasium as gym
import numpy as np
from rich.console import Console
from rich.table import Table

from probegym import scenarios
from probegym.envs import environment_type
from probegym.envs.episodes import sample_actions
from probegym.errors import ProbeGymError
from probegym.scenarios.shifts import Shift, shifts

MOST_SHOWN = 4  # entries of a scenario


def listed(env_id: str, file: Path | None, console: Console) -> None:
    """Print the scenarios of an environment, or those of one's own file, with the entries that differ from ``train``. Raises ProbeGymError."""
    family = environment_type(env_id).task_type.family
    console.print(f"[bold]{env_id}[/bold]", highlight=False)
    table = Table("scenario", "split", "axis", "what it is", "against train", box=None, pad_edge=False, header_style="dim")
    train = scenarios.load(family, "train")
    for name in scenarios.names(family, file):
        scenario = scenarios.load(family, name if file is None else f"{file}:{name}")
        told = "" if scenario.split in ("train", "id") else _told(shifts(train, scenario))
        table.add_row(name, scenario.split, scenario.axis, scenario.description, told)
    console.print(table)


def _told(found: list[Shift]) -> str:
    """The entries without a common value first; long values are not written out."""
    apart = sorted(found, key=lambda shift: not shift.apart)
    lines = [f"{shift.entry} {_short(shift.one)} -> {_short(shift.other)}{'' if shift.apart else ' (overlaps)'}" for shift in apart[:MOST_SHOWN]]
    return "; ".join([*lines, *([f"and {len(apart) - MOST_SHOWN} more"] if len(apart) > MOST_SHOWN else [])])


def _short(value: object) -> str:
    text = "default" if value is None else str(value).replace("'", "")
    return text if len(text) <= 40 else f"{text[:37]}..."


def checked(env_id: str, file: Path | None, console: Console) -> int:
    """Play some steps of each scenario; returns the exit code, 1 when one cannot be played."""
    family, failed = environment_type(env_id).task_type.family, 0
    for name in scenarios.names(family, file):
        try:
            steps = _played(env_id, name if file is None else f"{file}:{name}")
            console.print(f"  {name}: {steps} steps played", highlight=False)
        except ProbeGymError as error:
            failed += 1
            console.print(f"  {name}: {error}", highlight=False, markup=False, soft_wrap=True)
    return int(failed > 0)


def _played(env_id: str, scenario: str, most: int = 10) -> int:
    env = gym.make(env_id, scenario=scenario, disable_env_checker=True)
    try:
        env.reset(seed=0)
        rng = np.random.default_rng(0)
        for step in range(1, most + 1):
            _, _, terminated, truncated, _ = env.step(sample_actions(env.action_space, (), rng))
            if terminated or truncated:
                return step
        return most
    finally:
        env.close()
