"""The tables of the Nion driver: what commands take on the vendor's simulator and on the twin inside Nion Swift, that a policy does the same
through it as in-process, and, with ``--policy``, the simulator's own aberrations before and after a policy has tuned it.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np
from report import json_line, table

from probegym import scenarios
from probegym.agents.bundle import find
from probegym.agents.seeds import EVALUATION_SEED
from probegym.hardware_bridge.commands import AcquireImage, AcquireRonchigram, AcquireSpectrum, BlankBeam, Command, SetAberrations
from probegym.hardware_bridge.deployment import Mode
from probegym.hardware_bridge.deployment.run import Deployment, Orders
from probegym.hardware_bridge.instruments.drivers import Meant
from probegym.hardware_bridge.instruments.nion import twin, usim
from probegym.hardware_bridge.instruments.wire import RemoteInstrument
from probegym.hardware_bridge.records.read import Record

ENVIRONMENT = "probegym/StemTuning-v0"
TWIN = "probegym.hardware_bridge.twins.stem:StemTwin"
EDGE = 0.1007  # rad, half of usim's camera
SECONDS = 60.0
BATCH, MOST_STOPS = 10, 10  # episodes of a deployment; how often one may be played again


def frame(side: int, exposure: float = 0.05) -> AcquireRonchigram:
    """A Ronchigram without excursion."""
    return AcquireRonchigram((side, side), exposure, np.zeros(1), np.zeros((1, 2)))


def images(view: float) -> dict[str, Callable[[int], Command]]:
    """Two scans of 1 us a pixel."""
    return {f"image {side} x {side}, 1 us": lambda _, side=side: AcquireImage("haadf", (side, side), view, 1e-6, np.zeros(1)) for side in (64, 256)}


def timings(
    where: ModuleType, scenario: str, makes: dict[str, Callable[[int], Command]], count: int
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Seconds of each command through process, wire and driver, and those of them in which the beam was on, (count,) by name; the first of each is left out."""
    out: dict[str, list[float]] = {}
    lit: dict[str, list[float]] = {}
    with where.started(Meant(TWIN, scenarios.load("stem_tuning", scenario).world)) as process:
        instrument = RemoteInstrument(process.reached, "a benchmark")
        instrument.ready(SECONDS)
        for name, make in makes.items():
            took, on = [], []
            for number in range(count + 1):
                command, begun = make(number), time.perf_counter()
                readings = instrument.execute(command, SECONDS)
                took.append(time.perf_counter() - begun)
                if rate := instrument.descriptor.capabilities[command.verb].dose_rate:  # what is told as dose is this, as long as the beam was on
                    on.append(float(readings.dose[0]) / rate)
            out[name], lit[name] = took[1:], on[1:]
        begun = time.perf_counter()
        instrument.safe(SECONDS)
        out["safe state"] = [time.perf_counter() - begun]
        instrument.close()
    return out, lit


@dataclass(frozen=True)
class Played:
    """What came of deployments. news: what the sessions told; truths: of each episode, by name, (moments, ...); stops: by the guard."""

    news: list[dict]
    truths: list[dict[str, np.ndarray]]
    seconds: float
    stops: int = 0

    @property
    def steps(self) -> list[tuple]:
        """What the policy did, and its reward, step by step."""
        return [(one["step"], one["action"], one["reward"]) for one in self.news if "step" in one]

    @property
    def ends(self) -> list[dict]:
        """Each episode in the end."""
        return [one["episode"] for one in self.news if "episode" in one]


def played(instrument: str, policy: str, scenario: str, episodes: int, seed: int) -> Played:
    """A policy behind the guard, on an instrument that is judged; a batch that the guard stopped, as it does when a busy machine is late, is played again."""
    parts, stops, begun = [], 0, time.monotonic()
    while (done := sum(len(part.ends) for part in parts)) < episodes:
        part = batch(instrument, policy, scenario, min(BATCH, episodes - done), seed + done)
        if not any("done" in one for one in part.news):
            stops += 1
            print(f"{instrument}: stopped ({part.news[-1:]}), played again")
            if stops > MOST_STOPS:
                raise SystemExit("the machine is too busy for the guard's deadlines")
            continue
        parts.append(part)
    news, truths = ([one for part in parts for one in getattr(part, name)] for name in ("news", "truths"))
    return Played(news, truths, time.monotonic() - begun, stops)


def batch(instrument: str, policy: str, scenario: str, episodes: int, seed: int) -> Played:
    """One deployment. It begins where the twin would, and the instrument tells its aberrations."""
    with tempfile.TemporaryDirectory() as scratch:
        folder, begun = Path(scratch), time.monotonic()
        orders = Orders(ENVIRONMENT, scenario, find(policy), Mode.twin, folder, folder / "sample", episodes, seed, 5.0, seconds=1e9, changes=10**6, dose=1e18,
                        changes_each=10**6, instrument=instrument, new_sample=True)  # fmt: skip
        with Deployment(orders) as run:
            assert run.operator
            run.operator.arm(run.operator.ask(run.request())["nonce"])
            news = [one for one in run.play() if one]
            record = run.record
        truths: list[list[dict]] = []
        kept = Record(record)
        for event in kept:
            if event.kind == "begin":
                truths.append([])
            elif event.kind == "truth":
                truths[-1].append(kept.arrays(event))
        told = [{name: np.concatenate([one[name] for one in episode]) for name in episode[0]} for episode in truths if episode]
    return Played(news, told, time.monotonic() - begun)


def thrown(aberrations: np.ndarray) -> np.ndarray:
    """How far rays at the edge of the camera miss their point, root of the sum of squares over the first seven coefficients, m; (..., n) -> (...)."""
    reach = np.array([EDGE] * 3 + [EDGE**2] * 4)
    return np.sqrt(((aberrations[..., :7] * reach) ** 2).sum(-1))


MEASURES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "|C10| nm": lambda a: 1e9 * np.abs(a[..., 0]),
    "|C12| nm": lambda a: 1e9 * np.hypot(a[..., 1], a[..., 2]),
    "|C21| nm": lambda a: 1e9 * np.hypot(a[..., 3], a[..., 4]),
    "|C23| nm": lambda a: 1e9 * np.hypot(a[..., 5], a[..., 6]),
    "rays at the edge, nm": lambda a: 1e9 * thrown(a),
}


def tuned(result: Played) -> tuple[list[tuple], dict]:
    """Rows of before and after, and the figures."""
    before, after = (np.stack([one["aberrations"][at] for one in result.truths]) for at in (0, -1))
    rows, figures = [], {}
    for name, measure in MEASURES.items():
        b, a = measure(before), measure(after)
        told = {"before": float(np.median(b)), "after": float(np.median(a)), "times": float(np.median(b) / np.median(a)), "p90": float(np.quantile(a, 0.9)),
                "improved": float((a < b).mean()), "worse": float((a > 1.1 * b).mean())}  # fmt: skip
        rows.append((name, *(f"{told[key]:.3g}" for key in ("before", "after", "times", "p90")), *(f"{told[key]:.0%}" for key in ("improved", "worse"))))
        figures[name] = told
    looks = [end["costs"]["measurements"] for end in result.ends]
    figures |= {"starts": len(before), "Ronchigrams": {"median": float(np.median(looks)), "most": float(max(looks))},
                "seconds": result.seconds / len(before), "stops": result.stops,
                "declared": float(np.mean([end["success"] for end in result.ends]))}  # fmt: skip
    return rows, figures


def alike(one: Played, other: Played) -> dict[str, float]:
    """How close two deployments of the same seeds are."""
    differences = [np.abs(a["aberrations"][-1] - b["aberrations"][-1]).max() for a, b in zip(one.truths, other.truths, strict=True)]
    return {
        "episodes": len(one.ends), "steps": len(one.steps), "steps inside Nion Swift": len(other.steps),
        "identical actions and rewards": sum(a == b for a, b in zip(one.steps, other.steps, strict=False)),
        "success": float(np.mean([end["success"] for end in one.ends])), "success inside": float(np.mean([end["success"] for end in other.ends])),
        "largest difference of aberrations, m": float(max(differences)),
    }  # fmt: skip


def main() -> None:
    """Print the tables and one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--same", type=int, default=20, help="episodes that the shipped policy plays in-process and inside Nion Swift")
    parser.add_argument("--policy", help="shipped policy by name, or a policy folder, to tune the vendor's simulator with")
    parser.add_argument("--scenario", default="shadow-id", help="whose starts and frames it has")
    parser.add_argument("--starts", type=int, default=50)
    parser.add_argument("--seed", type=int, default=EVALUATION_SEED)
    options = parser.parse_args()
    names, draw = ("C10", "C12a", "C12b", "C21a", "C21b", "C23a", "C23b"), np.random.default_rng(0)
    both = {
        "SetAberrations": lambda _: SetAberrations(names, draw.uniform(-1e-9, 1e-9, (1, 7))),
        "BlankBeam: set and read back, as twice for each exposure": lambda _: BlankBeam(False),
    }
    at = {
        "usim": timings(usim, "shadow-id", both | images(1e-7) | {
            "Ronchigram 64 x 64, 50 ms": lambda _: frame(64),
            "spectrum, 20 ms": lambda _: AcquireSpectrum("eels", np.array([[5e-8, 5e-8]]), 0.02)}, options.count),
        "twin": timings(twin, "both", both | images(2.56e-9) | {"Ronchigram 42 x 42, 50 ms": lambda _: frame(42)}, options.count),
    }  # fmt: skip
    table("What a command takes through Nion Swift, a process and a wire", ("instrument", "command", "ms, median", "ms, longest", "beam on, ms, median"),
          [(where, name, f"{1e3 * np.median(t):.3g}", f"{1e3 * max(t):.3g}", f"{1e3 * np.median(on):.3g}" if (on := lit.get(name)) else "-")
           for where, (told, lit) in at.items() for name, t in told.items()])  # fmt: skip
    figures: dict = {"seconds": {where: {name: float(np.median(t)) for name, t in told.items()} for where, (told, _) in at.items()}}
    if options.same:
        one, other = (played(where, "stem-tuning-ronchigram", "id", options.same, 10_000_000) for where in ("twin", "nion-twin"))
        figures["same"] = alike(one, other)
        table("The shipped policy on the twin, and on the twin inside Nion Swift", ("what", "value"), list(figures["same"].items()))
    if options.policy:
        rows, figures["tuned"] = tuned(played("nion", options.policy, options.scenario, options.starts, options.seed))
        table(f"Nion's simulator before and after {options.policy}, {options.starts} starts of {options.scenario}",
              ("aberration", "median before", "after", "times smaller", "p90 after", "improved", "over 10 % worse"), rows)  # fmt: skip
        table("and", ("what", "value"), [(name, value) for name, value in figures["tuned"].items() if name not in MEASURES])
    json_line("nion", **figures)


if __name__ == "__main__":
    main()
