"""A person plays in the terminal: the environment's picture as half blocks, its controls, one key a command; reads plain lines when it is piped."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np
from rich.console import Console

from probegym.agents.files import write_bytes
from probegym.agents.images import png
from probegym.console import say
from probegym.envs.controls import Place
from probegym.errors import ProbeGymError
from probegym.terminal.compare import PATIENCE, Row, others, passed_over, signed, table
from probegym.terminal.game import Game, purpose, section

ARROWS = {"A": "w", "B": "s", "C": "d", "D": "a"}
CURSOR = (240, 180, 41)
WIDEST = 200  # columns of the table where the output is piped


def half_blocks(rgb: np.ndarray, columns: int) -> str:
    """A picture (h, w, 3) uint8 as lines of upper half blocks with 24-bit colours, at most ``columns`` wide."""
    from PIL import Image

    width = min(columns, rgb.shape[1])
    height = 2 * max(1, round(rgb.shape[0] * width / rgb.shape[1] / 2))
    small = np.asarray(Image.fromarray(rgb).resize((width, height), Image.Resampling.BOX))
    lines = []
    for upper, lower in zip(small[::2], small[1::2], strict=True):
        cells = (f"\x1b[38;2;{u[0]};{u[1]};{u[2]}m\x1b[48;2;{v[0]};{v[1]};{v[2]}m\u2580" for u, v in zip(upper, lower, strict=True))
        lines.append("".join(cells) + "\x1b[0m")
    return "\n".join(lines)


def keys(stream: IO[str]) -> Iterator[str]:
    """Keys one by one: as they are pressed in a terminal, arrows as w a s d; else the characters of each line (an empty one is enter)."""
    if stream.isatty():
        with _unbuffered(stream):
            while key := stream.read(1):
                if key == "\x1b" and stream.read(1) == "[":
                    key = ARROWS.get(stream.read(1), key)
                yield "n" if key == "\t" else key
        return
    for line in stream:
        yield from line.strip() or "\n"


@contextmanager
def _unbuffered(stream: IO[str]):
    import termios
    import tty

    before = termios.tcgetattr(stream)
    try:
        tty.setcbreak(stream)
        yield
    finally:
        termios.tcsetattr(stream, termios.TCSADRAIN, before)


class Play:
    """A game in the terminal; ``out`` receives ``frame.png``, the environment's own picture, after every step."""

    def __init__(self, game: Game, out: Path, console: Console, patience: float = PATIENCE):
        self.game, self.out, self.console, self.patience = game, out, console, patience
        self._photograph()

    def run(self, stream: IO[str] = sys.stdin) -> None:
        """Play to the end of the episode, of the input, or to ``q``; then compare."""
        g = self.game
        self._draw(f"{purpose(g.env_id)}\n{section(g.env_id, 'Description')}\n{section(g.env_id, 'Episode End')}")
        for key in keys(stream):
            if key == "q":
                break
            try:
                told = g.press(key)
            except ProbeGymError as error:
                told = str(error)
            if key in "\r\nt":
                self._photograph()
            self._draw(told)
            if g.over:
                break
        self.result()

    # ---- what is shown ----

    def _photograph(self) -> None:
        self.picture = self.game.picture()
        write_bytes(self.out / "frame.png", png(self.picture))

    def _draw(self, told: str) -> None:
        """The whole screen in a terminal; one line where the output is piped."""
        c, g = self.console, self.game
        status = "   ".join(f"{name} {value}" for name, value in g.status().items()) + f"   {g.score_name()} {signed(g.score())}"
        if not c.is_terminal:
            say(c, f"{self._control(g.chosen)} | {status} | {told or g.help()}")
            return
        c.clear()
        columns, rows = shutil.get_terminal_size()
        pictures = [self.picture] if (pad := self._pad()) is None else [self.picture, pad]
        spare = max(8, rows - len(g.controls.parts) - 8 - told.count("\n")) // len(pictures)  # lines that the text leaves
        for picture in pictures:
            c.file.write(half_blocks(picture, min(columns, 2 * spare * picture.shape[1] // picture.shape[0])) + "\n")
        for index in range(len(g.controls.parts)):
            c.print(self._control(index), style="bold reverse" if index == g.chosen else "")
        c.print(f"{g.env_id.split('/')[1]}, {g.scenario}, seed {g.seed}   {status}")
        if foreseen := g.foreseen():
            c.print(f"this step: {foreseen}")
        c.print(told, style="cyan")
        c.print(g.help(), style="dim")

    def _control(self, index: int) -> str:
        g, part = self.game, self.game.controls.parts[index]
        value = g.values[part.name]
        text = f"{index + 1} {part.name:<12} {part.told(value, g.observation)}"
        if isinstance(part, Place) and part.marks is not None:
            text += "   " + ", ".join(f"{name} ({x:+.3g}, {y:+.3g})" for name, (x, y) in part.marks(g.observation, g.values).items())
        return text

    def _pad(self) -> np.ndarray | None:
        """What lies beneath the chosen place, with the cell that is meant; None where there is nothing to be shown."""
        g, part = self.game, self.game.controls.parts[self.game.chosen]
        if not isinstance(part, Place) or not part.beneath or part.cells is None:
            return None
        pad = np.repeat(g.observation[part.beneath][0][..., None], 3, -1)
        pad[part.cell(g.values[part.name])] = CURSOR
        return pad

    # ---- the end ----

    def result(self) -> None:
        """The table: the person and all others who can play this, on the same seed."""
        g, rows, slow = self.game, [self.game.row()], list[str]()
        g.end()
        self._photograph()
        for one in others(g.env_id, g.scenario, g.seed, self.patience):
            rows.append(one) if isinstance(one, Row) else slow.append(one)
        head, lines = table(g.env_id, rows)
        for line in self._fitting(head, lines):
            say(self.console, line, style="bold" if line.startswith("you") else "")
        below = f"score: the environment's return of the episode, on seed {g.seed} of scenario {g.scenario}; last picture: {self.out / 'frame.png'}"
        for text in filter(None, (passed_over(slow, self.patience), below)):
            say(self.console, text, style="dim")

    def _fitting(self, head: list[str], lines: list[list[str]]) -> list[str]:
        """The table in plain columns; in a terminal without the last ones that do not fit."""
        heads = [name.rsplit(" ", 1) if " " in name else ["", name] for name in head]
        columns = [[*above, *cells] for above, *cells in zip(heads, *lines, strict=True)]
        widths = [max(map(len, column)) + 2 for column in columns]
        most = self.console.width if self.console.is_terminal else WIDEST
        fitting = [column for number, column in enumerate(columns) if sum(widths[: number + 1]) <= most]
        return ["".join(cell.ljust(width) for cell, width in zip(row, widths, strict=False)).rstrip() for row in zip(*fitting, strict=True)]
