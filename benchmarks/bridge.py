"""The tables of the bridge: faults and deaths with the time to the safe state, what guard and record add to a command, and that a
policy plays the same episodes through ONNX, guard and driver as in ``probegym evaluate``.
"""

from __future__ import annotations

import argparse
import os
import signal
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from report import json_line, table

import probegym  # noqa: F401  registers the environments
from probegym import scenarios
from probegym.agents.bundle import BundlePolicy, find
from probegym.agents.evaluate import EVALUATION_SEED, evaluate
from probegym.errors import ProbeGymError
from probegym.hardware_bridge.commands import AcquireRonchigram, Command, SetAberrations
from probegym.hardware_bridge.deployment import Mode
from probegym.hardware_bridge.deployment.policy import PolicyProcess
from probegym.hardware_bridge.deployment.run import Deployment, Orders
from probegym.hardware_bridge.deployment.world import GuardedWorld
from probegym.hardware_bridge.guard import process as guard
from probegym.hardware_bridge.guard.ledger import Budget, Ledger
from probegym.hardware_bridge.guard.operator import Operator
from probegym.hardware_bridge.instruments import faults, twin
from probegym.hardware_bridge.instruments.wire import SafetyLink
from probegym.hardware_bridge.records.read import Record
from probegym.hardware_bridge.records.steps import episodes as recorded

TWIN = "probegym.hardware_bridge.twins.stem:StemTwin"
CONTROLS = ("C10", "C12a", "C12b", "C21a", "C21b", "C23a", "C23b")
FRAME = AcquireRonchigram((42, 42), 0.05, np.array([30e-9]), np.zeros((1, 2)))
HERE = np.ones(1, bool)
LONGEST = 10.0  # s that a safe state is waited for


def setting(size: float) -> SetAberrations:
    """All controls at so many nm."""
    return SetAberrations(CONTROLS, size * 1e-9 * np.ones((1, 7)))


class Rig:
    """A twin with a plan of faults, an armed guard, and eyes on the instrument."""

    def __init__(self, folder: Path, plan: list[dict], pace: float = 0.0):
        self.host = twin.start(TWIN, scenarios.load("stem_tuning", "id").world, key=3, pace=pace, faults=plan)
        Ledger.create(folder / "sample", Budget(dose=1e18, changes=9, instrument="STEM twin")).close()
        self.guard = guard.start(self.host.reached, str(folder / "sample"), str(folder / "runs"), "a benchmark", {})
        self.operator = Operator(self.guard.operator)
        self.eyes = SafetyLink(self.host.reached, "eyes")
        told = self.operator.ask({"environment": "e", "scenario": "s", "policy": "p", "seconds": 1e9, "changes": 9})
        self.operator.arm(told["nonce"])
        self.world = GuardedWorld(self.guard.reached)

    def until_safe(self, begun: float) -> float:
        """Seconds since ``begun`` until the instrument reads back its safe state; infinite after LONGEST."""
        while time.monotonic() < begun + LONGEST:
            if self.eyes.is_safe():
                return time.monotonic() - begun
            time.sleep(0.0005)
        return float("inf")

    def close(self) -> None:
        """End all of it."""
        self.world.close()
        self.guard.operator.close()
        if self.guard.process.poll() is None:
            self.guard.process.send_signal(signal.SIGCONT)
        self.guard.process.wait(10)
        self.eyes.close()
        self.host.close()


def fault(kind: str) -> tuple[str, float, str]:
    """What was seen of a fault, seconds from the command (or the abort) that met it to the safe state, and the state of the record."""
    plan = [{"kind": kind, "at": 2 if kind == "stale" else 1}]
    with tempfile.TemporaryDirectory() as folder:
        rig = Rig(Path(folder), plan)
        commands: list[Command] = [setting(2), setting(5)] if kind in faults.ACTUATOR or kind == "stale" else [FRAME, FRAME, FRAME]
        seen, begun = "", time.monotonic()
        try:
            if kind in faults.SAFE:
                rig.operator.abort("a benchmark")
            for command in commands:
                begun = time.monotonic()
                rig.world.execute(command, HERE)
        except ProbeGymError as error:
            seen = str(error)
        after = rig.until_safe(begun) if kind not in ("trickle", "stale") else float("nan")
        state = rig.operator.status()["state"]
        record = Record(rig.guard.record).verify()
        rig.close()
    return f"{state}: {seen[:90]}", after, "sound" if not record.errors else "damaged"


def death(how: Callable[[Rig], None]) -> float:
    """Seconds from a death to the safe state."""
    with tempfile.TemporaryDirectory() as folder:
        rig = Rig(Path(folder), [])
        rig.world.execute(FRAME, HERE)
        begun = time.monotonic()
        how(rig)
        after = rig.until_safe(begun)
        rig.close()
    return after


def killed_policy(number: int) -> float:
    """Seconds from a signal to a policy's process until the instrument is safe; the session reports it within its deadline."""
    with tempfile.TemporaryDirectory() as folder:
        rig = Rig(Path(folder), [])
        with PolicyProcess(find("stem-tuning-ronchigram"), 0.1) as policy:
            policy.begin()
            observation = {name: np.zeros((1, *layout.shape), layout.dtypes[0]) for name, layout in policy.bundle.observations.items()}
            policy.decide(observation)
            begun = time.monotonic()
            os.kill(policy.pid or 0, number)
            try:
                policy.decide(observation)
            except ProbeGymError as error:
                rig.world.fault(str(error))
            after = rig.until_safe(begun)
        rig.close()
    return after


DEATHS: dict[str, Callable[[Rig], None]] = {
    "guard killed": lambda rig: os.kill(rig.guard.process.pid, signal.SIGKILL),
    "guard stopped": lambda rig: os.kill(rig.guard.process.pid, signal.SIGSTOP),
    "session gone": lambda rig: rig.world.channel.close(),
    "session silent": lambda rig: rig.world.closed.set(),
    "operator gone": lambda rig: rig.operator.channel.close(),
    "abort": lambda rig: rig.operator.abort("a benchmark"),
    "guard terminated": lambda rig: os.kill(rig.guard.process.pid, signal.SIGTERM),
}


def overhead(count: int) -> dict[str, tuple[float, float, float, float]]:
    """Verb -> p50 and p99 in s of a command through guard, record and driver, and of the twin alone."""
    bare = twin.build(TWIN, scenarios.load("stem_tuning", "id").world, 3)
    out = {}
    with tempfile.TemporaryDirectory() as folder:
        rig = Rig(Path(folder), [])
        for name, make in (("SetAberrations", lambda i: setting(i % 3)), ("AcquireRonchigram", lambda _: FRAME)):
            took: list[list[float]] = [[], []]
            for i in range(count):
                for times, world in zip(took, (rig.world, bare), strict=True):
                    begun = time.perf_counter()
                    world.execute(make(i), HERE)
                    times.append(time.perf_counter() - begun)
            out[name] = tuple(float(q) for times in took for q in np.quantile(times, [0.5, 0.99]))
        rig.close()
    return out


def deployed(policy: str, env_id: str, scenario: str, episodes: int) -> dict:
    """A policy through ONNX, guard and driver against ``evaluate`` on the same seeds."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        orders = Orders(env_id, scenario, find(policy), Mode.twin, folder, folder / "sample", episodes, EVALUATION_SEED, 5.0, seconds=1e9, changes=10**6, dose=1e18, changes_each=10**6, new_sample=True, damage=1e9)
        with Deployment(orders) as run:
            assert run.operator
            run.operator.arm(run.operator.ask(run.request())["nonce"])
            news = list(run.play())
            record = run.record
        ends = [one["episode"] for one in news if "episode" in one]
        actions = [run_.actions for run_ in recorded(Record(record))]
        deployed_actions = [Record(record).arrays(event)["action"] for episode in actions for event in episode]
    kept = Keeping(policy)
    results = evaluate(kept, env_id, scenario, episodes)
    told = np.concatenate([np.stack(lane) for lane in kept.lanes(results.steps)])
    same_actions = float(np.abs(np.stack(deployed_actions) - told).max()) if len(deployed_actions) == len(told) else float("inf")
    return {
        "episodes": episodes, "success": float(np.mean([end["success"] for end in ends])), "evaluated": float(results.success.mean()),
        "same_success": [end["success"] for end in ends] == results.success.tolist(), "same_steps": [end["steps"] for end in ends] == results.steps.tolist(),
        "return_difference": float(np.abs(np.array([end["return"] for end in ends]) - results.returns).max()), "action_difference": same_actions,
    }  # fmt: skip


class Keeping(BundlePolicy):
    """Remembers what it did."""

    def begin(self, lanes: int, seed: int) -> None:
        super().begin(lanes, seed)
        self.batches = [*getattr(self, "batches", []), []]

    def act(self, observation, episodes):
        action = super().act(observation, episodes)
        self.batches[-1].append(action.copy())
        return action

    def lanes(self, steps: np.ndarray) -> list[list[np.ndarray]]:
        """Actions of each episode in turn."""
        out, at = [], 0
        for batch in self.batches:
            for lane in range(len(batch[0])):
                out.append([action[lane] for action in batch[: steps[at]]])
                at += 1
        return out


def main() -> None:
    """Print the tables and one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--commands", type=int, default=1000)
    parser.add_argument("--episodes", type=int, default=50)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    met = {kind: fault(kind) for kind in faults.KINDS}
    table("Faults of instrument and wire", ("fault", "what happens", "seen", "ms to safe", "record"),
          [(kind, faults.KINDS[kind], seen, f"{1e3 * after:.0f}", record) for kind, (seen, after, record) in met.items()])  # fmt: skip
    deaths = {name: [death(how) for _ in range(options.repeats)] for name, how in DEATHS.items()}
    deaths |= {f"policy {name}": [killed_policy(number) for _ in range(options.repeats)] for name, number in (("killed", signal.SIGKILL), ("stopped", signal.SIGSTOP))}
    table("Who dies, and when the instrument is safe", ("what", "ms, median", "ms, longest"), [(name, f"{1e3 * np.median(t):.0f}", f"{1e3 * max(t):.0f}") for name, t in deaths.items()])
    added = overhead(options.commands)
    table(f"What a command takes, {options.commands} each", ("command", "p50 ms", "p99 ms", "twin alone p50", "p99", "added p50", "added p99"),
          [(name, *(f"{1e3 * v:.2f}" for v in t), f"{1e3 * (t[0] - t[2]):.2f}", f"{1e3 * (t[1] - t[2]):.2f}") for name, t in added.items()])  # fmt: skip
    same = deployed("stem-tuning-ronchigram", "probegym/StemTuning-v0", "id", options.episodes)
    table("Deployed against evaluated", ("what", "value"), list(same.items()))
    json_line("bridge", faults={k: v[1] for k, v in met.items()}, deaths=deaths, overhead=added, deployed=same)


if __name__ == "__main__":
    main()
