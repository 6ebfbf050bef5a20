"""Figures of a benchmark as SVG: performance profiles, what success costs, and scores by axis of shift."""

from __future__ import annotations

import io
from typing import Any

import numpy as np

from probegym.agents import statistics
from probegym.agents.benchmark.rows import BEST, KINDS, Table, rows_of, scores, short
from probegym.errors import ProbeGymError

COLOURS = {"learned": "#0072b2", BEST: "#d55e00", "script": "#e69f00", "oracle": "#009e73", "random": "#999999"}
"""Okabe and Ito's, which colour-blind people can tell apart."""
MARKS = {"learned": "o", BEST: "s", "script": "s", "oracle": "^", "random": "x"}
LEVELS = np.linspace(-0.5, 1.5, 201)


def _pyplot() -> Any:
    try:
        import matplotlib
    except ImportError as error:
        raise ProbeGymError("figures need matplotlib: pip install 'probegym[train]'") from error
    matplotlib.use("svg")
    from matplotlib import pyplot

    pyplot.rcParams |= {"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "svg.hashsalt": "probegym", "legend.frameon": False, "svg.fonttype": "none"}
    return pyplot


def _svg(figure: Any) -> str:
    stream = io.StringIO()
    figure.savefig(stream, format="svg", bbox_inches="tight", metadata={"Date": None})
    _pyplot().close(figure)
    return stream.getvalue()[stream.getvalue().index("<svg") :]


def _panels(table: Table, columns: int, width: float, height: float) -> tuple[Any, np.ndarray]:
    """A figure with a panel for each environment, width by height inches each, at most so many beside each other."""
    names = list(table.suite.environments)
    columns = min(columns, len(names))
    rows = -(-len(names) // columns)
    figure, axes = _pyplot().subplots(rows, columns, figsize=(width * columns, height * rows), squeeze=False)
    for axis in axes.flat[len(names) :]:
        axis.set_axis_off()
    for axis, name in zip(axes.flat, names, strict=False):
        axis.set_title(short(name))
    return figure, axes


def profiles(table: Table) -> str:
    """Share of runs above each score, for id and for the shifted scenarios."""
    plot = _pyplot()
    figure, axes = plot.subplots(1, 3, figsize=(10, 2.8), sharey=True)
    for axis, split in zip(axes, ("id", "near", "far"), strict=True):
        for kind in KINDS:
            if not (rows := rows_of(table, kind, split)):
                continue
            found = scores(rows.values())
            low, high = statistics.interval(lambda s: statistics.performance_profile(s, LEVELS), found, resamples=300)
            axis.fill_between(LEVELS, low, high, color=COLOURS[kind], alpha=0.2, linewidth=0)
            axis.plot(LEVELS, statistics.performance_profile(found, LEVELS), color=COLOURS[kind], label=kind)
        axis.set(title=split, xlabel="score (0 random, 1 oracle)", xlim=(LEVELS[0], LEVELS[-1]))
    axes[0].set_ylabel("share of runs above")
    axes[0].legend(loc="lower left")
    return _svg(figure)


def costs(table: Table, split: str = "id") -> str:
    """Success against the seconds and the dose of an instrument that it took, a panel for each environment; to the upper left is better."""
    plot = _pyplot()
    from matplotlib import ticker

    figure, axes = _panels(table, 4, 2.6, 2.5)
    for axis, environment in zip(axes.flat, table.suite.environments, strict=False):
        rows = [row for row in table.rows if row.facts.environment == environment and row.facts.split == split and np.isfinite(row.to_goal["time"])]
        for row in rows:
            kind = BEST if row.best else row.facts.kind
            axis.plot(row.to_goal["time"], row.success, MARKS[kind], color=COLOURS[kind], markersize=6)
        front = sorted((row.to_goal["time"], row.success) for row in rows if row.facts.kind != "oracle")
        best = [point for index, point in enumerate(front) if all(point[1] > other[1] for other in front[:index])]
        axis.step(*zip(*best, strict=True), where="post", color="#bbbbbb", linewidth=1, zorder=0) if best else None
        axis.set(ylim=(-0.05, 1.05), xscale="log")
        if rows:
            at = [row.to_goal["time"] for row in rows]
            axis.set_xlim(min(at) / 1.5, max(at) * 1.5)
        axis.xaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5), numticks=6))
        axis.xaxis.set_major_formatter(ticker.StrMethodFormatter("{x:g}"))
        axis.xaxis.set_minor_formatter(ticker.NullFormatter())
        axis.set_xlabel("instrument seconds to goal (median)", fontsize=7)
    axes[0, 0].set_ylabel("success")
    handles = [plot.Line2D([], [], marker=MARKS[kind], color=COLOURS[kind], linestyle="", label=kind) for kind in ("learned", BEST, "script", "oracle", "random")]
    figure.legend(handles=handles, loc="lower center", ncol=5, bbox_to_anchor=(0.5, -0.06))
    figure.tight_layout()
    return _svg(figure)


def shifts(table: Table) -> str:
    """Scores in and out of distribution, a panel for each environment: learned against the best script, for every axis of shift."""
    figure, axes = _panels(table, 2, 5.2, 2.3)
    for axis, environment in zip(axes.flat, table.suite.environments, strict=False):
        scenarios = table.suite.environments[environment].scenarios
        for offset, kind in ((-0.12, "learned"), (0.12, BEST)):
            rows = {key[1]: row for key, row in rows_of(table, kind, "all").items() if key[0] == environment}
            at = [index for index, name in enumerate(scenarios) if name in rows]
            if not at:
                continue
            middle = np.array([rows[scenarios[i]].score for i in at])
            ends = np.array([statistics.mean_interval(rows[scenarios[i]].score_runs, resamples=500) for i in at])
            axis.errorbar(np.array(at) + offset, middle, np.abs(ends.T - middle), fmt=MARKS[kind], color=COLOURS[kind], markersize=4, linewidth=1, label=kind)
        axis.axhline(0, color="#cccccc", linewidth=0.8)
        axis.axhline(1, color="#cccccc", linewidth=0.8)
        axis.set_xticks(range(len(scenarios)), scenarios, rotation=40, ha="right", fontsize=7)
        axis.set_ylim(max(-1.0, axis.get_ylim()[0]), min(2.0, max(1.1, axis.get_ylim()[1])))
    axes[0, 0].set_ylabel("score")
    axes[0, 0].legend(fontsize=7)
    figure.tight_layout()
    return _svg(figure)
