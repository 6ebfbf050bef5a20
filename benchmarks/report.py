"""What the benchmark scripts share: the box of aberrations, a table, one JSON line, rates, ratios and a paired test."""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from datetime import UTC, datetime

import numpy as np

from probegym import __version__
from probegym.agents.statistics import ratio_interval
from probegym.hardware_bridge.twins.stem import StemConfig
from probegym.physics.optics import ABERRATIONS
from probegym.scenarios import load

RESAMPLES = 4000


def box(scenario: str = "train", names: tuple[str, ...] = ABERRATIONS) -> np.ndarray:
    """Standard deviation times sqrt(3) of each start aberration of a scenario, m; (n,). For a uniform one its half width."""
    drawn = StemConfig(**load("stem_tuning", scenario).world).aberrations
    return np.array([np.sqrt(3 * variance(drawn[name])) if name in drawn else 0.0 for name in names])


def variance(distribution) -> float:
    """Variance of a uniform, normal or constant scenario value."""
    if distribution.uniform:
        return (distribution.uniform[1] - distribution.uniform[0]) ** 2 / 12
    return distribution.normal[1] ** 2 if distribution.normal else 0.0


def table(title: str, header: tuple[str, ...], rows: list[tuple]) -> None:
    """Print rows under a header, columns as wide as their widest cell; words to the left, figures to the right."""
    cells = [header, *([_text(value) for value in row] for row in rows)]
    words = [all(isinstance(row[column], str) for row in rows) for column in range(len(header))]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    print(f"\n{title}")
    for number, row in enumerate(cells):
        print("  ".join(t.ljust(w) if left else t.rjust(w) for t, w, left in zip(row, widths, words, strict=True)).rstrip())
        if not number:
            print("  ".join("-" * width for width in widths))


def _text(value) -> str:
    if not isinstance(value, (float, np.floating)):
        return f"{value:,}" if isinstance(value, int) else str(value)
    if not value or 0.01 <= abs(value) < 1000:
        return f"{value:.3g}"
    return f"{value:.1e}" if abs(value) < 1 else f"{value:,.0f}"


def json_line(benchmark: str, **figures) -> None:
    """Print the figures, with what they were measured on, as one line of JSON."""
    machine = {"processor": _processor(), "threads": len(os.sched_getaffinity(0)), "load": round(os.getloadavg()[0], 2)}
    stamp = {"benchmark": benchmark, "version": __version__, "time": datetime.now(UTC).isoformat(timespec="seconds"), "machine": machine}
    print("\n" + json.dumps(stamp | figures, default=_plain))


def _plain(value):
    return value.tolist() if hasattr(value, "tolist") else str(value)


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as lines:
            return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.machine()


def rate(work: Callable[[], object], items: int, seconds: float) -> float:
    """Items a second: the median over repeats of ``work()``, which does ``items``; the first call is not counted."""
    work()
    spent: list[float] = []
    while sum(spent) < seconds or len(spent) < 3:
        began = time.perf_counter()
        work()
        spent.append(time.perf_counter() - began)
    return items / statistics.median(spent)


def ratio(ours: np.ndarray, theirs: np.ndarray) -> tuple[float, float, float]:
    """Ratio of means and its paired 95 % bootstrap interval."""
    return float(ours.mean() / theirs.mean()), *ratio_interval(ours, theirs, RESAMPLES)


def paired(ours: np.ndarray, theirs: np.ndarray, resamples: int = 20_000) -> float:
    """One-sided p of a permutation test that flips the signs of the differences: that ours are lower."""
    difference = theirs - ours
    signs = np.random.default_rng(0).choice((-1.0, 1.0), (resamples, len(difference)))
    return float((1 + ((signs * difference).mean(1) >= difference.mean() - 1e-12).sum()) / (1 + resamples))
