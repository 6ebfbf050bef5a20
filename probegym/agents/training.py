"""Trainings as works for an executor: each goes on from whatever its folder holds and keeps there a diary of how it went."""

from __future__ import annotations

import json
import os
import platform
import shlex
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from probegym.agents import files
from probegym.agents.executors import Executor, Json, Outcome, Report, Work
from probegym.agents.seeds import LIVE_SEED
from probegym.errors import ProbeGymError

DIARY = "training.json"
POINTS = 20  # of a curve, and checkpoints

Told = Callable[[int, float | None], None]


def command_line(env_id: str, hyperparameters: Json | None = None, **options) -> str:
    """The ``probegym train`` command of a training, as its policy records it."""
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    words += [word for name, value in (hyperparameters or {}).items() for word in ("--set", f"{name}={value!r}")]
    return shlex.join(["probegym", "train", env_id.split("/")[1], *words])


class Diary:
    """``training.json`` of a folder: what was asked for, every attempt, the curve, and the result; replaced whole at every entry.

    Raises ProbeGymError when the folder holds another training's.
    """

    def __init__(self, folder: Path, told: Json):
        self.path, old = folder / DIARY, diary(folder)
        asked = {name: value for name, value in told.items() if name != "folder"}  # which may have been moved
        if old and (changed := sorted(name for name in old["told"].keys() | asked.keys() if old["told"].get(name) != asked.get(name))):
            raise ProbeGymError(f"folder {folder} holds a training with other {', '.join(changed)}: use the same, or another folder")
        self.state: Json = old or {"told": asked, "attempts": [], "curve": [], "result": None}

    def begin(self, at: int) -> None:
        """An attempt begins after ``at`` updates or steps; what an earlier one told of later ones is forgotten."""
        self.began = time.monotonic()
        self.state["attempts"].append({"at": at, "host": platform.node(), "process": os.getpid(), "seconds": 0.0})
        self.state["curve"] = [point for point in self.state["curve"] if point[0] <= at]
        self._write()

    def point(self, at: int, success: float | None) -> None:
        """A point of the curve: the success rate, if known, after ``at`` updates or steps."""
        self.state["curve"].append([at, success])
        self._write()

    def end(self, **result: Any) -> None:
        """The training is done."""
        self.state["result"] = result
        self._write()

    def _write(self) -> None:
        self.state["attempts"][-1]["seconds"] = round(time.monotonic() - self.began, 3)
        files.write_bytes(self.path, json.dumps(files.plain(self.state)).encode())


def diary(folder: Path) -> Json | None:
    """What a folder's diary holds, None if there is none; raises ProbeGymError when it cannot be read."""
    try:
        state = json.loads((folder / DIARY).read_bytes())
        if isinstance(state, dict) and set(state) == {"told", "attempts", "curve", "result"}:
            return state
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise ProbeGymError(f"{folder / DIARY} cannot be read ({type(error).__name__}): delete the folder and train again") from error
    raise ProbeGymError(f"{folder / DIARY} is no diary of a training: delete the folder and train again")


def train(told: Json, report: Told = lambda at, success: None) -> None:
    """Train to the end, from the checkpoint if there is one, write the policy to folder/policy and measure it on the training scenario.

    told: env_id, scenario, algorithm (distil, ppo, sac), length (updates, or steps of ppo and sac), seed, folder, live and final (episodes
    of a point of the curve, and of each figure at the end), hyperparameters (of ppo and sac, {} for ours). report: gets every point of the
    curve, those of earlier attempts too. Raises ProbeGymError.
    """
    folder = Path(told["folder"])
    log = Diary(folder, told)

    def begin(at: int) -> None:
        log.begin(at)
        for point in log.state["curve"]:
            report(*point)

    def point(at: int, success: float | None) -> None:
        log.point(at, success)
        report(at, success)

    if log.state["result"] is None:
        done = (_distil if told["algorithm"] == "distil" else _reinforce)(told, folder, begin, point)
        log.end(**_final(told, folder / "policy"), length=done)
    else:
        for known in log.state["curve"]:
            report(*known)


def _distil(told: Json, folder: Path, begin: Callable[[int], None], point: Told) -> int:
    """Updates that were done."""
    from probegym.agents import registry
    from probegym.agents.evaluate import evaluate

    learner = registry.make_learner(told["env_id"], told["scenario"], told["length"], told["seed"], folder)
    if (folder / "checkpoint.pt").exists():
        learner.load()
    begin(learner.update)

    def note(news: Any) -> None:
        if news.success is not None:
            point(news.update, news.success)

    learner.run(note, lambda agent: float(evaluate(agent, told["env_id"], told["scenario"], told["live"], LIVE_SEED).success.mean()), evaluations=POINTS)
    options = {"algorithm": "distil", "scenario": told["scenario"], "updates": told["length"], "seed": told["seed"], "out": f"runs/{folder.name}"}
    learner.finish(folder / "policy", command_line(told["env_id"], **options), told["final"], lambda done, total: None)
    return learner.update


def _reinforce(told: Json, folder: Path, begin: Callable[[int], None], point: Told) -> int:
    """Environment steps that were done."""
    from probegym.agents import sb3

    training = sb3.Training(told["env_id"], told["scenario"], told["algorithm"], told["length"], told["seed"], told["hyperparameters"])
    resume, every = sb3.checkpoint_path(folder).exists(), max(1, training.steps // POINTS)
    last = _steps(sb3.checkpoint_path(folder)) if resume else 0
    begin(last)

    def note(news: sb3.Progress) -> None:
        nonlocal last
        at = min(news.steps, training.steps)
        if at >= last + every or last < at == training.steps:  # ppo goes on to the end of its last rollout
            last = at
            point(at, news.success)

    model = sb3.train_sb3(training, folder, resume, note, min(10_000, every))
    options = {"algorithm": training.algorithm, "scenario": training.scenario, "steps": training.steps, "seed": training.seed, "out": f"runs/{folder.name}"}
    sb3.export_sb3(model, training, folder / "policy", command_line(training.env_id, training.hyperparameters, **options))
    return int(model.num_timesteps)


def _steps(checkpoint: Path) -> int:
    import torch

    try:
        return int(torch.load(checkpoint, weights_only=True, map_location="cpu")["steps"])
    except Exception as error:
        raise ProbeGymError(f"checkpoint {checkpoint} cannot be read ({type(error).__name__}): delete it and train again") from error


def _final(told: Json, policy: Path) -> Json:
    from probegym.agents.evaluate import evaluate
    from probegym.agents.registry import make_agent

    results = evaluate(make_agent(str(policy), told["env_id"]), told["env_id"], told["scenario"], told["final"], LIVE_SEED)
    return {"success": float(results.success.mean()), "return": float(results.returns.mean())}


# ---- many ----

CALL = "probegym.agents.training:train"


def seeds(executor: Executor, asked: Json, numbers: Sequence[int], out: Path, report: Report = lambda _: None) -> list[Json]:
    """Train every seed into OUT/seed-k and write OUT/seeds.json; returns an entry for each, also for those that failed. Raises ProbeGymError.

    asked: what ``train`` is told, seed and folder aside.
    """
    works = [Work(f"seed-{k}", CALL, asked | {"seed": k, "folder": str(out.absolute() / f"seed-{k}")}) for k in numbers]
    outcomes = executor.run(works, report)
    rows = [{"seed": k} | entry(work, outcome) for k, work, outcome in zip(numbers, works, outcomes, strict=True)]
    files.write_json(out / "seeds.json", {"trained": asked, "seeds": rows})
    return rows


def entry(work: Work, outcome: Outcome) -> Json:
    """What there is to say of one training. result: success, return and length at its end, None without one; attempts: where each began, on which host."""
    kept: Json = {"attempts": [], "curve": [], "result": None}
    error = outcome.error
    try:
        found = diary(Path(work.told["folder"])) or {}
        kept = {name: found.get(name, kept[name]) for name in kept}
    except ProbeGymError as damaged:
        error = error or str(damaged)
    return {"ok": outcome.ok and not error, "error": error, "seconds": sum(attempt["seconds"] for attempt in kept["attempts"])} | kept
