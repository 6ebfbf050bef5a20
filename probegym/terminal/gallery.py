"""``probegym gallery``: the environments as films, the policy that ships beside the best script, and one sheet of all."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import probegym
from probegym.agents.seeds import EVALUATION_SEED
from probegym.console import plain, say
from probegym.terminal.options import MAXIMUM_SEED, environment

SEED = EVALUATION_SEED + 4


def gallery(
    envs: Annotated[list[str] | None, typer.Argument(metavar="[ENV]...", help="Environments, for example StemTuning; all of them by default.")] = None,
    out: Annotated[Path, typer.Option("--out", help="Folder of the films and of sheet.png.")] = Path("runs/gallery"),
    seed: Annotated[int, typer.Option("--seed", min=0, max=MAXIMUM_SEED, help="The episode that all are shown in.")] = SEED,
    steps: Annotated[int | None, typer.Option("--steps", min=1, max=100_000, help="Show only so many steps.")] = None,
) -> None:
    """Films of each environment: policy beside best script.

    The policy that ships and the best script play the same episode of scenario id. A GIF for each environment, and one sheet with the policies' last screens.
    """
    ids = list(dict.fromkeys(environment(name) for name in envs)) if envs else list(probegym.ENVIRONMENTS)
    from probegym.agents import files

    folder, console = files.writable(out), plain()
    from probegym.agents import gallery as drawing

    shown = {}
    for env_id, agents in drawing.players(ids).items():
        sides = drawing.pair(env_id, agents, seed, steps)
        path = drawing.write(folder, env_id, sides)
        say(console, str(path), style="bold")
        for side in sides:
            say(console, f"  {side.title} {side.agent}: {side.told}")
        shown[env_id] = sides[0]
    sheet = folder / drawing.SHEET
    files.write_bytes(sheet, drawing.sheet(shown))
    say(console, str(sheet), style="bold")
