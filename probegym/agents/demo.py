"""``probegym demo``: train a small agent live, measure it beside the shipped policies and the baselines, write a report.

The times in the settings bound the whole on any machine; numbers of episodes that a slow machine cannot reach are cut
and the report says how many there were.
"""

from __future__ import annotations

import json
import os
import platform
import tempfile
import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from probegym import __version__
from probegym.agents import files, train_stem
from probegym.agents.base import Agent, Script
from probegym.agents.bundle import BundlePolicy, shipped
from probegym.agents.demo_page import Curve, Report, Row, page
from probegym.agents.evaluate import Results, evaluate
from probegym.agents.images import gif
from probegym.agents.registry import make_agent
from probegym.agents.seeds import EVALUATION_SEED, LIVE_SEED
from probegym.agents.stories import Story, tell
from probegym.agents.train_stem import choose_threshold, export
from probegym.agents.trainer import Progress
from probegym.console import bar, plain
from probegym.errors import ProbeGymError

ENV_ID = "probegym/StemTuning-v0"
PACE_UPDATES = 30
LIVE = "the agent trained just now"


@dataclass(frozen=True)
class DemoSettings:
    """Sizes of the demo; times in s. ``updates`` fixes the length of the training, else ``training_seconds`` does."""

    training_seconds: float = 85.0
    updates: int | None = None
    lanes: int = 64
    evaluations: int = 6
    live_episodes: int = 48
    episodes: int = 200
    policy_seconds: float = 20.0
    scripts: tuple[str, ...] = ("coordinate-descent", "nelder-mead", "beacon")
    script_episodes: int = 20
    script_seconds: float = 75.0
    shipped: dict[str, str] = field(default_factory=lambda: {"stem-tuning-ronchigram": "id", "stem-tuning-haadf": "haadf-id"})
    seed: int = 1


class Demo:
    """One run; the parts fill ``rows``, ``curve``, ``stories`` and ``timings``."""

    def __init__(self, settings: DemoSettings, folder: Path, console: Console):
        self.settings, self.folder, self.console = settings, folder, console
        self.rows: list[Row] = []
        self.curve, self.stories = Curve(), list[Story]()
        self.timings: dict[str, float] = {}

    @contextmanager
    def _timed(self, stage: str):
        start = time.perf_counter()
        yield
        self.timings[stage] = round(time.perf_counter() - start, 1)

    def run(self) -> Report:
        """All parts in order; leaves the live agent's bundle and its TensorBoard logs in the folder."""
        with self._timed("training"):
            trainer = self._train()
        with self._timed("export"):
            threshold, selection = choose_threshold(trainer, self.settings.live_episodes)
            command = f"probegym demo (seed {self.settings.seed}, {trainer.config.updates} updates)"
            bundle = export(trainer, self.folder / "policy", threshold, selection, command)
        with self._timed("policies"):
            self._policies(bundle)
        with self._timed("scripts"):
            self._scripts()
        with self._timed("pictures"):
            self._stories(bundle)
        return self._report(trainer)

    # ---- training ----

    def _updates(self) -> int:
        """As many gradient steps as fit into the time, measured on this machine."""
        if self.settings.updates:
            return self.settings.updates
        times: list[float] = []
        config = train_stem.Distillation(ENV_ID, updates=PACE_UPDATES, lanes=self.settings.lanes, seed=self.settings.seed)
        with tempfile.TemporaryDirectory(dir=self.folder) as scratch:
            train_stem.Trainer(config, scratch).run(lambda _: times.append(time.perf_counter()))
        pace = (times[-1] - times[0]) / (PACE_UPDATES - 20)  # reports come after updates 20 and 30
        return int(np.clip(self.settings.training_seconds / pace, 200, 3000)) // PACE_UPDATES * PACE_UPDATES

    def _train(self) -> train_stem.Trainer:
        s, updates = self.settings, self._updates()
        config = train_stem.Distillation(ENV_ID, updates=updates, lanes=s.lanes, seed=s.seed)
        trainer = train_stem.Trainer(config, self.folder / "training")
        self.console.print(f"training on scenario {config.scenario}: {updates} gradient steps of {s.lanes} examples, seed {s.seed}")
        with bar(self.console, "  {task.description:<26}", 18) as shown:
            task = shown.add_task("training", total=updates, told="")
            told = {"loss": "", "success": ""}

            def report(news: Progress) -> None:
                if news.success is None:
                    self.curve.loss.append((news.update, news.loss))
                    told["loss"] = f"loss {news.loss:.2f}"
                else:
                    self.curve.success.append((news.update, news.success))
                    told["success"] = f"live success {news.success:.0%}"
                    if not self.console.is_terminal:
                        self.console.print(f"  after {news.update} gradient steps: success {news.success:.0%}")
                shown.update(task, completed=news.update, told="  ".join(filter(None, told.values())))

            def live(agent: Agent) -> float:
                return float(evaluate(agent, ENV_ID, "id", s.live_episodes, LIVE_SEED).success.mean())

            trainer.run(report, live, s.evaluations)
        return trainer

    # ---- measuring ----

    def _measure(self, name: str, label: str, kind: str, scenario: str, episodes: int, seconds: float, note: str = "") -> None:
        """Evaluate in small parts until the episodes or the time are used up; missing policies become a note."""
        start = time.perf_counter()
        try:
            agent = make_agent(name)
        except ProbeGymError as error:
            self.console.print(f"  {label}: {error}", highlight=False)
            self.rows.append(Row(label, kind, scenario, None, note=str(error)))
            return
        step = 1 if isinstance(agent, Script) else 32
        results: list[Results] = []
        with bar(self.console, "  {task.description:<26}", 18) as shown:
            task = shown.add_task(label, total=episodes, told="")
            for first in range(0, episodes, step):
                results.append(evaluate(agent, ENV_ID, scenario, min(step, episodes - first), EVALUATION_SEED + first))
                joined = _joined(results)
                shown.update(task, completed=len(joined.success), told=f"success {joined.success.mean():.0%}")
                if time.perf_counter() - start > seconds:
                    break
        self.rows.append(Row(label, kind, scenario, joined.summary(), time.perf_counter() - start, note))

    def _policies(self, bundle: Path) -> None:
        s = self.settings
        self.console.print(f"measuring on unseen seeds: {s.episodes} episodes a policy")
        note = f"in {self.timings['training']:.0f} s on this machine"
        self._measure(str(bundle), LIVE, "live", "id", s.episodes, s.policy_seconds, note)
        for name, scenario in s.shipped.items():
            if name in shipped():
                self._measure(name, name, "shipped", scenario, s.episodes, s.policy_seconds, "shipped with ProbeGym")
            else:
                self.rows.append(Row(name, "shipped", scenario, None, note="this policy is not part of this installation"))
        for scenario in dict.fromkeys(["id", *s.shipped.values()]):
            self._bounds(scenario, s.episodes)

    def _bounds(self, scenario: str, episodes: int) -> None:
        for name, note in (("oracle", "sees the hidden aberrations"), ("random", "random controls")):
            self._measure(name, name, "bound", scenario, episodes, self.settings.policy_seconds, note)

    def _scripts(self) -> None:
        s = self.settings
        if not s.scripts:
            return
        self.console.print(f"scripts take 64 to 153 images an episode: up to {s.script_episodes} episodes or {s.script_seconds:.0f} s each")
        for name in s.scripts:
            self._measure(name, name, "script", "beacon", s.script_episodes, s.script_seconds)
        self._bounds("beacon", s.script_episodes)

    # ---- report ----

    def _stories(self, bundle: Path) -> None:
        agents = {name: (name, scenario) for name, scenario in self.settings.shipped.items() if name in shipped()}
        for label, (name, scenario) in (agents | {LIVE: (str(bundle), "id")}).items():
            options = [tell(BundlePolicy(name), label, ENV_ID, scenario, EVALUATION_SEED + index) for index in range(6)]
            good = [story for story in options if story.success and story.portraits[0].strehl < 0.3] or options
            self.stories.append(max(good, key=lambda story: len(story.screens)))

    def _report(self, trainer: train_stem.Trainer) -> Report:
        s = self.settings
        facts = {
            "training": f"{trainer.config.updates} gradient steps of {s.lanes} examples on scenario train, seed {s.seed}",
            "evaluation": f"seeds from {EVALUATION_SEED}, which training never uses; live success on seeds from {LIVE_SEED}",
            "software": f"ProbeGym {__version__}, {files.commit()}, torch {torch.__version__}, Python {platform.python_version()}",
            "machine": f"{platform.machine()}, {os.cpu_count()} processors",
        }
        animation = gif(self.stories[0].screens) if self.stories else b""
        return Report("Tuning an electron microscope", self.rows, self.curve, self.stories, self.timings, facts, animation)


def _joined(parts: list[Results]) -> Results:
    """Results of several seed ranges as one."""

    def join(values: list):
        if isinstance(values[0], dict):
            return {key: join([value[key] for value in values]) for key in values[0]}
        return np.concatenate(values)

    return Results(**{f.name: join([getattr(part, f.name) for part in parts]) for f in fields(Results)})


def _table(rows: list[Row]) -> Table:
    table = Table("agent", "scenario", "n", "success", "95 %", "images", "s", "Strehl", box=None, pad_edge=False, header_style="dim")
    for row in rows:
        if row.summary is None:
            table.add_row(row.agent, row.scenario, "-", "-", "-", "-", "-", "-")
            continue
        s = row.summary
        low, high = s["success_interval"]
        goal = [f"{s['measurements_to_goal']:.0f}", f"{s['time_to_goal']:.1f}"] if s["success"] else ["-", "-"]
        numbers = [*goal, f"{s['strehl_median']:.2f}"]
        table.add_row(row.agent, row.scenario, str(s["episodes"]), f"{s['success']:.1%}", f"{low:.0%}-{high:.0%}", *numbers)
    return table


def run(out: str | os.PathLike, settings: DemoSettings | None = None, console: Console | None = None) -> Path:
    """The whole demo; returns the report's path. Raises ProbeGymError when ``out`` cannot be written, before any work."""
    settings, console = settings or DemoSettings(), console or plain()
    start = time.perf_counter()
    with files.replaced(out) as folder:
        demo = Demo(settings, folder, console)
        report = demo.run()
        content: dict[str, Any] = {"environment": ENV_ID, "settings": asdict(settings), "facts": report.facts, "timings": report.timings}
        content |= {"rows": [asdict(row) for row in report.rows], "curve": asdict(report.curve)}
        (folder / files.MARK).write_text(json.dumps(files.plain(content), indent=1, allow_nan=False))
        (folder / "episode.gif").write_bytes(report.animation)
        (folder / "index.html").write_text(page(report), encoding="utf-8")
    console.print(_table(report.rows))
    path = Path(out) / "index.html"
    console.print(f"finished in {time.perf_counter() - start:.0f} s; report: {path.absolute()}", highlight=False, soft_wrap=True)
    return path

