"""``probegym scenarios``: what there is, what sets each apart from training, and whether one's own file can be played."""

from __future__ import annotations

from pathlib import Path

import gymnasium as gym
import numpy as np
from rich.console import Console
from rich.table import Table

from probegym import scenarios
from probegym.console import say
from probegym.envs import environment_type
from probegym.envs.actions import sample_actions
from probegym.envs.episodes import build_world
from probegym.errors import ProbeGymError
from probegym.scenarios.distributions import each_end
from probegym.scenarios.shifts import Shift, shifts

MOST_SHOWN = 4  # entries of a scenario
MOST_DRAWN = 32  # episodes, in which every part of a list that is drawn from should come


def listed(env_id: str, file: Path | None, console: Console) -> None:
    """Print the scenarios of an environment, or those of one's own file, with the entries that differ from ``train``.

    Settings of task and instrument of one's own are made, nothing is played. Raises ProbeGymError with file and line.
    """
    family = environment_type(env_id).task_type.family
    table = Table("scenario", "split", "axis", "what it is", "against train", box=None, pad_edge=False, header_style="dim")
    train = scenarios.load(family, "train")
    for name in scenarios.names(family, file):
        scenario = scenarios.load(family, name if file is None else f"{file}:{name}")
        if file is not None:
            gym.make(env_id, scenario=f"{file}:{name}", disable_env_checker=True).close()
        told = "" if file is None and scenario.split in ("train", "id") else _told(shifts(train, scenario))
        table.add_row(name, scenario.split, scenario.axis, scenario.description, told)
    say(console, env_id, style="bold")  # nothing is printed before all of it is known to be right
    console.print(table)


def _told(found: list[Shift]) -> str:
    """The entries without a common value first; long values are not written out."""
    if not found:
        return "nothing apart from train"
    apart = sorted(found, key=lambda shift: not shift.apart)
    lines = [f"{shift.entry} {_short(shift.one)} -> {_short(shift.other)}{'' if shift.apart else ' (overlaps)'}" for shift in apart[:MOST_SHOWN]]
    return "; ".join([*lines, *([f"and {len(apart) - MOST_SHOWN} more"] if len(apart) > MOST_SHOWN else [])])


def _short(value: object) -> str:
    text = "default" if value is None else str(value).replace("'", "")
    return text if len(text) <= 40 else f"{text[:37]}..."


def checked(env_id: str, file: Path | None, console: Console) -> int:
    """Play some steps of each scenario, of one's own try the ends of all that is drawn too; returns the exit code, 1 when one cannot be played."""
    family, failed = environment_type(env_id).task_type.family, 0
    for name in scenarios.names(family, file):
        told = name if file is None else f"{file}:{name}"
        try:
            line = f"{_played(env_id, told)} steps played{'' if file is None else f', {_ends(env_id, told)} ends of distributions tried'}"
        except ProbeGymError as error:
            failed, line = failed + 1, str(error)
        say(console, f"  {name}: {line}")
    return int(failed > 0)


def _ends(env_id: str, name: str) -> int:
    """Begin an episode with every distribution of the world at each of its ends, the others drawn; returns their number. Raises ProbeGymError."""
    task_type = environment_type(env_id).task_type
    scenario = scenarios.load(task_type.family, name)
    every = list(each_end(scenario.world))
    for path, world in every:
        other = scenario.model_copy(update={"world": world})
        lanes = MOST_DRAWN if any(step.isdigit() for step in path) else 1  # of a list, an episode may draw one part alone
        with other.told_where():
            build_world(task_type, other, lanes, None).begin(np.arange(lanes, dtype=np.uint64), np.ones(lanes, bool))
    return len(every)


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
