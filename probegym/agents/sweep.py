"""Sweeps: trials of hyperparameters of ppo and sac, drawn from distributions, each a training that an executor resumes.

With Ray, trials that fall behind are ended early by asynchronous successive halving (ASHA: Li et al. 2020, arXiv:1810.05934); elsewhere all
go to their end (random search). The trials' own files are all that is kept: a sweep that is begun again trains no finished trial anew, and
Ray's saved state, which holds pickles, is never read.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter, ValidationError

from probegym import tables
from probegym.agents import files, hyperparameters
from probegym.agents.executors import RETRIES, Json, Outcome, Report, Work
from probegym.agents.executors.cluster import connected
from probegym.agents.executors.local import Local
from probegym.agents.executors.worker import ENVIRONMENT
from probegym.agents.training import CALL, diary, entry, train
from probegym.errors import ProbeGymError
from probegym.scenarios.distributions import Distribution, Sampled

REDUCTION, GRACE = 3, 0.1  # ASHA: one in three goes on; no trial ends before this share of its steps
LARGEST_FILE = 100_000  # bytes


def read_space(path: Path, algorithm: str) -> dict[str, Distribution]:
    """The space of a YAML file, hyperparameter -> number or distribution; raises ProbeGymError with file, line or name, and mend."""
    table, lines = tables.read_mapping(path, "space file", LARGEST_FILE)
    if not table:
        raise ProbeGymError(f"space file {path} must map hyperparameters to distributions, as learning_rate: {{log_uniform: [1.0e-4, 1.0e-2]}}")
    space = {}
    for name, value in table.items():
        place = f"space file {path}, line {tables.nearest(lines, (str(name),))}: "
        hyperparameters.refuse_unknown(algorithm, name, place)
        try:
            space[name] = TypeAdapter(Sampled).validate_python(value)
        except ValidationError as error:
            raise ProbeGymError(f"{place}{name}: {tables.complaint(error)[1]}") from error
    return space


def draw(space: dict[str, Distribution], algorithm: str, trials: int, seed: int) -> list[dict[str, float | int]]:
    """Hyperparameters of each trial, without units, which depend on seed and trial alone; raises ProbeGymError for one that is out of its limits."""
    keys = (np.uint64(seed) << np.uint64(32)) + np.arange(trials, dtype=np.uint64)
    drawn: list[dict[str, float | int]] = [{} for _ in range(trials)]
    for name, distribution in space.items():
        for trial, value in zip(drawn, distribution.sample(keys, f"sweep {name}").tolist(), strict=True):
            trial[name] = hyperparameters.checked(algorithm, name, value, "narrow its distribution")
    return drawn


def sweep(asked: Json, trials: Sequence[Json], out: Path, kind: str, workers: int | None, report: Report = lambda _: None) -> list[Json]:
    """Train every trial into OUT/trial-k and write OUT/sweep.json; returns an entry for each, the best first. Raises ProbeGymError.

    asked: what ``training.train`` is told, folder and hyperparameters aside. A trial without result or error was ended early.
    """
    works = [Work(f"trial-{k}", CALL, asked | {"hyperparameters": dict(chosen), "folder": str(out.absolute() / f"trial-{k}")}) for k, chosen in enumerate(trials)]
    outcomes = asha(works, out, workers, report) if kind == "ray" else Local(2 if workers is None else workers).run(works, report)
    rows = [{"trial": k, "hyperparameters": work.told["hyperparameters"]} | entry(work, outcome) for k, (work, outcome) in enumerate(zip(works, outcomes, strict=True))]
    rows.sort(key=rank, reverse=True)
    files.write_json(out / "sweep.json", {"trained": asked, "trials": rows})
    return rows


def rank(row: Json) -> tuple[bool, float, float]:
    """Finished trials before others, then by success rate, then by return."""
    if row["result"]:
        return True, row["result"]["success"], row["result"]["return"]
    return False, (row["curve"][-1][1] or 0.0) if row["curve"] else -1.0, 0.0


def asha(works: Sequence[Work], out: Path, workers: int | None, report: Report) -> list[Outcome]:
    """The works, which are trainings, as trials of Ray Tune; outcomes in their order. ``ok`` of one that was ended early too."""
    os.environ |= {"TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1", "TUNE_DISABLE_SIGINT_HANDLER": "1", "RAY_AIR_NEW_OUTPUT": "0"}
    with connected(workers=workers), tempfile.TemporaryDirectory(dir=out.absolute(), prefix=".tune-", ignore_cleanup_errors=True) as scratch:
        from ray import tune
        from ray.tune.schedulers import ASHAScheduler

        class Tell(tune.Callback):
            """Notes what becomes of each trial."""

            def __init__(self, names: dict[str, str], report: Report):
                self.names, self.report, self.known = names, report, dict[str, Outcome]()

            def __getstate__(self) -> Json:
                return {}  # Ray saves its callbacks; this one is not needed again

            def on_trial_complete(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
                self.ended(trial, "")

            def on_trial_error(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
                self.ended(trial, str(trial.get_error() or "ended by Ray"))

            def ended(self, trial: Any, error: str) -> None:
                name = self.names[trial.config["told"]["folder"]]
                seconds = float((trial.last_result or {}).get("time_total_s", 0.0))
                self.known[name] = Outcome(name, not error, trial.num_failures + (not error), seconds, error)
                self.report(self.known[name])

        tell = Tell({work.told["folder"]: work.name for work in works}, report)
        steps = works[0].told["length"]
        halving = ASHAScheduler(time_attr="at", metric="success", mode="max", max_t=steps + 1, grace_period=max(1, round(GRACE * steps)), reduction_factor=REDUCTION)
        tune.Tuner(
            tune.with_resources(trial, {"cpu": 1}),
            param_space={"told": tune.grid_search([work.told for work in works])},
            tune_config=tune.TuneConfig(scheduler=halving, max_concurrent_trials=workers or 0),
            run_config=tune.RunConfig(storage_path=scratch, name="sweep", verbose=0, failure_config=tune.FailureConfig(max_failures=RETRIES), callbacks=[tell]),
        ).fit()
        return [tell.known.get(work.name, Outcome(work.name, False, 0, 0.0, "Ray did not run it")) for work in works]


def trial(config: Json) -> None:
    """One trial, in a process of Ray Tune."""
    os.environ |= ENVIRONMENT
    from ray import tune

    told = config["told"]
    train(told, lambda at, success: tune.report({"at": at, "success": success or 0.0}))
    result = (diary(Path(told["folder"])) or {}).get("result") or {}
    tune.report({"at": told["length"], "success": result.get("success", 0.0)})  # Ray wants one report at least
