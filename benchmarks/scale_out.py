"""What executors survive and what they cost: processes and a node killed in the middle of trainings, one worker against two, start-up.

The trainings are short ones of AdatomManipulation by ppo, each a work for ``probegym.agents.training:train`` with a checkpoint every twentieth
of its steps (or every rollout, which is longer here). The two nodes of the Ray cluster are on this machine.

    python benchmarks/scale_out.py [--steps 8192] [--seeds 5] [--only ray local scaling start]
"""

from __future__ import annotations

import argparse
import os
import secrets
import signal
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from report import json_line, table

os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32), "RAY_USAGE_STATS_ENABLED": "0"}  # before Ray is imported

from probegym.agents import training
from probegym.agents.executors import Executor, Work
from probegym.agents.executors.cluster import Ray, connected
from probegym.agents.executors.local import Local

COUNT = "probegym.agents.executors.rehearsal:count"
ROLLOUT = 2048  # steps between checkpoints: 16 lanes of 128
HEADER = ("seed", "ok", "attempts", "began at step", "steps", "seconds")


def asked(steps: int) -> dict[str, Any]:
    """What every training is told, seed and folder aside."""
    what = {"env_id": "probegym/AdatomManipulation-v0", "scenario": "train", "algorithm": "ppo", "length": steps}
    return what | {"live": 4, "final": 32, "hyperparameters": {}}


def wait(true: Callable[[], Any], seconds: float = 300.0) -> Any:
    """What ``true`` gives once it gives something."""
    end = time.monotonic() + seconds
    while not (found := true()):
        if time.monotonic() > end:
            raise TimeoutError("waited in vain")
        time.sleep(0.02)
    return found


def beyond(out: Path, seed: int, step: int) -> int:
    """The process of a training that is past a step, 0 if it is not yet."""
    kept = training.diary(out / f"seed-{seed}") or {"curve": []}
    return kept["attempts"][-1]["process"] if any(at > step for at, _ in kept["curve"]) else 0


def trained(executor: Executor, steps: int, seeds: int, disaster: Callable[[Path], None] | None = None) -> tuple[list[tuple], float]:
    """Rows of HEADER, and seconds in all."""
    with tempfile.TemporaryDirectory() as folder:
        out, spent = Path(folder), {}
        trouble = threading.Thread(target=disaster, args=(out,), daemon=True) if disaster else None
        if trouble:
            trouble.start()
        began = time.monotonic()
        rows = training.seeds(executor, asked(steps), range(1, seeds + 1), out, lambda outcome: spent.update({outcome.name: outcome}))
        seconds = time.monotonic() - began
        if trouble:
            trouble.join(1)
            assert not trouble.is_alive(), "the disaster did not happen: train for longer"
    return [(row["seed"], "yes" if row["ok"] else row["error"], spent[f"seed-{row['seed']}"].attempts, " ".join(str(a["at"]) for a in row["attempts"]),
             row["result"]["length"] if row["result"] else 0, spent[f"seed-{row['seed']}"].seconds) for row in rows], seconds  # fmt: skip


def on_ray(steps: int, seeds: int) -> tuple[list[tuple], float]:
    """Two nodes: the process of seed 1 is killed past a checkpoint, later the whole second node."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    node = cluster.add_node(num_cpus=1)

    def disaster(out: Path) -> None:
        os.kill(wait(lambda: beyond(out, 1, ROLLOUT + 200)), signal.SIGKILL)
        wait(lambda: beyond(out, 3, ROLLOUT + 200))
        cluster.remove_node(node, allow_graceful=False)

    try:
        return trained(Ray(cluster.address), steps, seeds, disaster)
    finally:
        cluster.shutdown()


def on_this_machine(steps: int, seeds: int) -> tuple[list[tuple], float]:
    """Two workers: the process of seed 1 is killed past a checkpoint."""
    return trained(Local(2), steps, seeds, lambda out: os.kill(wait(lambda: beyond(out, 1, ROLLOUT + 200)), signal.SIGKILL))


def scaling(steps: int, seeds: int, repeats: int) -> list[tuple]:
    """Rows (executor, workers, seconds of each repeat, times as fast as one local worker). The cluster is there already."""
    found: dict[tuple[str, int], list[float]] = {}
    for _ in range(repeats):  # in turn, since the machine may not be ours alone
        found.setdefault(("local", 1), []).append(trained(Local(1), steps, seeds)[1])
        found.setdefault(("local", 2), []).append(trained(Local(2), steps, seeds)[1])
        with connected("local", 2):
            found.setdefault(("ray", 2), []).append(trained(Ray(workers=2), steps, seeds)[1])
    alone = found["local", 1]
    return [(name, workers, " ".join(f"{s:.1f}" for s in seconds), sum(alone) / sum(seconds)) for (name, workers), seconds in found.items()]


def start() -> list[tuple]:
    """Rows (what, seconds until a work that does nothing is reported): the first, and eight on two workers."""

    def works(number: int, folder: str) -> list[Work]:
        return [Work(f"{k}", COUNT, {"file": f"{folder}/{k}.json", "to": 0, "seconds": 0}) for k in range(number)]

    def seconds(executor: Executor, number: int) -> float:
        with tempfile.TemporaryDirectory() as folder:
            began = time.monotonic()
            assert all(outcome.ok for outcome in executor.run(works(number, folder)))
            return time.monotonic() - began

    rows = [("local, one work", seconds(Local(2), 1)), ("local, eight works", seconds(Local(2), 8))]
    began = time.monotonic()
    with connected("local", 2):
        rows.append(("Ray, cluster of this machine", time.monotonic() - began))
        rows.append(("Ray, one work, the first", seconds(Ray(workers=2), 1)))
        rows.append(("Ray, eight works after it", seconds(Ray(workers=2), 8)))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=4 * ROLLOUT)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=2, help="of the comparison of workers")
    parser.add_argument("--only", nargs="+", choices=["ray", "local", "scaling", "start"], default=["ray", "local", "scaling", "start"])
    given = parser.parse_args()
    figures: dict[str, Any] = {"steps": given.steps, "seeds": given.seeds}
    if "ray" in given.only:
        rows, seconds = on_ray(given.steps, given.seeds)
        table(f"Ray, two nodes of one processor: process of seed 1 killed (-9), then node 2; {seconds:.1f} s in all", HEADER, rows)
        figures["ray"] = {"rows": rows, "seconds": seconds}
    if "local" in given.only:
        rows, seconds = on_this_machine(given.steps, given.seeds)
        table(f"Local, two workers: process of seed 1 killed (-9); {seconds:.1f} s in all", HEADER, rows)
        figures["local"] = {"rows": rows, "seconds": seconds}
    if "scaling" in given.only:
        rows = scaling(given.steps, 4, given.repeats)
        load = os.getloadavg()[0]
        table(f"Four trainings of {given.steps} steps (load of the machine meanwhile {load:.1f})", ("executor", "workers", "seconds", "x one local worker"), rows)
        figures["scaling"] = {"rows": rows, "load": load}
    if "start" in given.only:
        rows = start()
        table("Start-up", ("what", "seconds"), rows)
        figures["start"] = rows
    json_line("scale_out", **figures)


if __name__ == "__main__":
    main()
