"""``probegym gallery``: the policy that ships beside the best script, in the same episode, as a film of every environment; and one sheet of all."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from probegym.agents import files
from probegym.agents.benchmark import suite
from probegym.agents.benchmark.rows import short
from probegym.agents.bundle import shipped
from probegym.agents.images import gif, png
from probegym.agents.registry import make_agent, task_type
from probegym.agents.stories import play
from probegym.envs import single_env
from probegym.envs.pictures import EDGE, FAINT, GOOD, SMALL, TITLE, WARN, WIDTH, Screen, costs
from probegym.errors import ProbeGymError

SCENARIO = "id"
SIDE = (640, 360)  # pixels of one screen in a film and on the sheet
LEFT = EDGE * SIDE[0] // WIDTH  # of its text
GAP, HEAD, CAPTION = 16, 64, 56  # between screens, above those of a film, above each of the sheet
MILLISECONDS, LAST = 400, 3000  # a frame is shown, the last one
MOST_FRAMES, MOST_BYTES = 32, 1_500_000
SHEET = "sheet.png"


@dataclass(frozen=True)
class Side:
    """One agent's episode. screens: (h, w, 3) uint8 after the reset and after every step. told: how it ended. success: None where it was cut."""

    title: str
    agent: str
    screens: list[np.ndarray]
    told: str
    success: bool | None


def players(env_ids: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Environment id -> the policy that ships and the best script, as the core suite names them (its first script). Raises ProbeGymError where there is none."""
    contests, out = suite.load("core").environments, {}
    for env_id in env_ids:
        contest = contests.get(env_id)
        if contest is None or contest.learned not in shipped():
            raise ProbeGymError(f"no policy ships for {env_id}: train one, or leave the environment out")
        if not contest.scripts:
            raise ProbeGymError(f"the core suite has no script for {env_id}: add one, or leave the environment out")
        out[env_id] = (str(contest.learned), contest.scripts[0])
    return out


def episode(title: str, name: str, env_id: str, seed: int, steps: int | None = None) -> Side:
    """Play and draw one episode of scenario ``id``, or its first ``steps``."""
    env, screens = single_env(env_id, scenario=SCENARIO, render_mode="rgb_array"), list[np.ndarray]()
    played = play(make_agent(name, env_id), env, seed, lambda _: screens.append(env.episodes.picture(0)), steps)
    spent = {cost: np.asarray(played.info[cost]) for cost in ("measurements", "time", "dose", "damage")}
    env.close()
    success = bool(played.info["is_success"]) if played.over else None
    how = {True: "at the goal", False: "ended off the goal", None: "not at its end yet"}[success]
    told = f"{how}: {', '.join(gauge.label for gauge in costs(spent, task_type(env_id).measured))}; return {played.total:.2f}"
    return Side(title, name, screens, told, success)


def pair(env_id: str, agents: tuple[str, str], seed: int, steps: int | None = None) -> tuple[Side, Side]:
    """The shipped policy and the best script in the same episode."""
    return episode("trained policy", agents[0], env_id, seed, steps), episode("best script", agents[1], env_id, seed, steps)


def film(sides: Sequence[Side]) -> bytes:
    """Episodes side by side, step by step, as a GIF; who has ended waits. Long ones lose steps in between, until the file is small enough."""
    longest = max(len(side.screens) for side in sides)
    count = min(longest, MOST_FRAMES)
    while True:
        moments = np.unique(np.linspace(0, longest - 1, count).round().astype(int))
        content = gif([_frame(sides, int(moment)) for moment in moments], MILLISECONDS, last=LAST)
        if len(content) <= MOST_BYTES or count <= 2:
            return content
        count = max(2, min(count - 1, int(count * MOST_BYTES / len(content))))


def _frame(sides: Sequence[Side], moment: int) -> np.ndarray:
    width, height = SIDE
    screen = Screen(width=len(sides) * (width + GAP) - GAP, height=HEAD + height)
    for index, side in enumerate(sides):
        x, last = index * (width + GAP), len(side.screens) - 1
        screen.text(side.title, x + LEFT, 8, TITLE)
        screen.text(side.agent, x + width - LEFT, 14, colour=FAINT, anchor="ra")
        _outcome(screen, side, x + LEFT, 40) if moment >= last else screen.text(f"step {moment}", x + LEFT, 40, colour=FAINT)
        _put(screen, side.screens[min(moment, last)], x, HEAD)
    return screen.array()


def sheet(shown: dict[str, Side]) -> bytes:
    """The last screen of every environment with a caption, two a row, as a PNG; ``shown`` is environment id -> episode."""
    width, height = SIDE
    rows = -(-len(shown) // 2)
    screen = Screen(width=min(len(shown), 2) * (width + GAP) - GAP, height=rows * (CAPTION + height + GAP) - GAP)
    for index, (env_id, side) in enumerate(shown.items()):
        x, y = index % 2 * (width + GAP), index // 2 * (CAPTION + height + GAP)
        screen.text(short(env_id), x + LEFT, y + 6, TITLE)
        screen.text(f"{side.title} {side.agent}", x + width - LEFT, y + 12, SMALL, FAINT, "ra")
        _outcome(screen, side, x + LEFT, y + 34)
        _put(screen, side.screens[-1], x, y + CAPTION)
    return png(screen.array())


def _outcome(screen: Screen, side: Side, x: int, y: int) -> None:
    screen.text(side.told, x, y, colour={True: GOOD, False: WARN, None: FAINT}[side.success])


def _put(screen: Screen, picture: np.ndarray, x: int, y: int) -> None:
    screen.image.paste(Image.fromarray(picture).resize(SIDE, Image.Resampling.LANCZOS), (x, y))


def write(folder: Path, env_id: str, sides: Sequence[Side]) -> Path:
    """The film of an environment in its file; returns its path."""
    path = folder / f"{short(env_id)}.gif"
    files.write_bytes(path, film(sides))
    return path
