"""A person tunes in the terminal: pictures as half blocks, one key a command; reads plain lines when it is piped."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np
from rich.console import Console
from rich.table import Table

from probegym.agents.base import Agent
from probegym.agents.files import write_bytes
from probegym.agents.registry import task_type
from probegym.agents.report import png
from probegym.envs import pictures, single_env
from probegym.envs.stem_tuning import StemTuningTask
from probegym.envs.task import shape_of
from probegym.errors import ProbeGymError

SMALL, LARGE = 0.05, 0.5  # scales
CHANGES = {"+": SMALL, "=": SMALL, "-": -SMALL, "]": LARGE, "[": -LARGE}
HELP = "1-7 choose   + - small   [ ] large   enter acquire   d declare   u explain   q quit"
EXPLANATIONS = {
    "C10": "defocus: every feature is blurred alike in all directions, over and under focus; a Ronchigram grows finer rings with it",
    "C12": "two-fold astigmatism: blur stretched along one direction, which turns by 90 degrees through focus; a and b are 45 degrees apart",
    "C21": "axial coma: a one-sided tail, like a comet; the flat region of the Ronchigram sits off centre; a is along x, b along y",
    "C23": "three-fold astigmatism: a three-cornered blur; three arms in the Ronchigram; a and b are 30 degrees apart",
}


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
    """Keys one by one: as they are pressed in a terminal, else the characters of each line (an empty one is enter)."""
    if stream.isatty():
        with _unbuffered(stream):
            while key := stream.read(1):
                yield key
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
    """One episode played by a person; ``out`` receives ``frame.png``, the environment's own picture, after every step."""

    def __init__(self, env_id: str, scenario: str | None, seed: int, out: Path, console: Console):
        if task_type(env_id).family != "stem_tuning":
            raise ProbeGymError(f"play knows the keys of StemTuning, not of {env_id}: use StemTuning")
        scenario = scenario or "haadf-id"
        self.env = single_env(env_id, scenario=scenario, render_mode="rgb_array")
        task = self.env.episodes.task_of(StemTuningTask)
        self.env_id, self.scenario, self.seed, self.out, self.console = env_id, scenario, seed, out, console
        self.names, self.scales, self.largest = task.names, task.scales, task.settings.largest_step
        self.pending = np.zeros(len(self.names))
        self.chosen, self.score, self.over = 0, 0.0, False
        self.observation, self.info = self.env.reset(seed=seed)
        self.info["is_success"] = False

    def run(self, stream: IO[str] = sys.stdin) -> None:
        """Play to the end of the episode, of the input, or to ``q``; then compare."""
        self._photograph()
        self._draw(f"{self.env_id}, scenario {self.scenario}, seed {self.seed}: reach a Strehl ratio of 0.8 and declare")
        for key in keys(stream):
            if key == "q":
                break
            self._draw(self._press(key))
            if self.over:
                break
        self._result()

    def _press(self, key: str) -> str:
        """Act on a key; returns what to tell."""
        if key.isdigit() and 1 <= int(key) <= len(self.names):
            self.chosen = int(key) - 1
        elif key in CHANGES:
            self.pending[self.chosen] = np.clip(self.pending[self.chosen] + CHANGES[key], -self.largest, self.largest)
        elif key in ("\n", "\r", "d"):
            self._step(declare=key == "d")
            return "declared" if key == "d" else "acquired"
        elif key == "u":
            return EXPLANATIONS.get(self.names[self.chosen][:3], "an aberration of higher order")
        else:
            return f"no key {key!r}: {HELP}"
        return ""

    def _step(self, declare: bool) -> None:
        action = np.zeros(shape_of(self.env.action_space), np.float32)
        action[: len(self.names)] = self.pending / self.largest
        action[-1] = 1.0 if declare else -1.0
        self.observation, reward, terminated, truncated, self.info = self.env.step(action)
        self.score, self.over = self.score + reward, terminated or truncated
        self.pending[:] = 0
        self._photograph()

    # ---- what is shown ----

    def _photograph(self) -> None:
        write_bytes(self.out / "frame.png", png(self.env.episodes.picture(0)))

    def _draw(self, told: str) -> None:
        """The whole screen in a terminal; one line where the output is piped."""
        c, left = self.console, float(self.observation["budget"][0])
        status = f"{self.info['measurements']:.0f} images, {self.info['time']:.1f} s, budget left {left:.0%}"
        if not c.is_terminal:
            c.print(f"{self._control(self.chosen)} | {status} | {told or HELP}", highlight=False, markup=False, soft_wrap=True)
            return
        c.clear()
        columns = shutil.get_terminal_size().columns
        for name, map_name in (("haadf", "grey"), ("ronchigram", "warm")):
            if name in self.observation:
                frames = np.hstack([pictures.coloured(frame, map_name) for frame in self.observation[name]])
                c.file.write(half_blocks(frames, columns) + "\n")
        for index in range(len(self.names)):
            c.print(self._control(index), style="bold reverse" if index == self.chosen else "", highlight=False)
        c.print(status, highlight=False)
        c.print(told, style="cyan", highlight=False, markup=False)
        c.print(HELP, style="dim", highlight=False, markup=False)

    def _control(self, index: int) -> str:
        scale = 1e9 * self.scales[index]
        now = self.observation["controls"][index] * scale
        return f"{index + 1} {self.names[index]:<4} at {now:+8.1f} nm, change {self.pending[index] * scale:+8.1f} nm"

    def _result(self) -> None:
        """Strehl, images and score of the person, the oracle and the shipped policies that fit, on the same seed."""
        table = Table("who", "goal", "Strehl", "images", "seconds", "score", box=None, pad_edge=False, header_style="dim")
        mine = (bool(self.info["is_success"]), self.info["strehl"], self.info["measurements"], self.info["time"], self.score)
        for who, row in [("you", mine), *self._others()]:
            goal, strehl, images, seconds, score = row
            table.add_row(who, "reached" if goal else "missed", f"{strehl:.2f}", f"{images:.0f}", f"{seconds:.1f}", f"{score:+.2f}")
        self.console.print(table)
        self.console.print(f"score: the environment's reward over the episode; last picture: {self.out / 'frame.png'}", style="dim", highlight=False)

    def _others(self) -> Iterator[tuple[str, tuple]]:
        from probegym.agents.base import OracleAgent
        from probegym.agents.bundle import BundlePolicy, shipped
        from probegym.agents.evaluate import evaluate

        for name in ["oracle", *shipped()]:
            try:
                agent: Agent = OracleAgent() if name == "oracle" else BundlePolicy(name)
                r = evaluate(agent, self.env_id, self.scenario, 1, self.seed)
            except ProbeGymError:  # a policy for other frames than this scenario shows
                continue
            yield name, (bool(r.success[0]), r.metrics["strehl"][0], r.costs["measurements"][0], r.costs["time"][0], r.returns[0])
