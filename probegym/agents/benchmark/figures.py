"""Figures of a benchmark as SVG: performance profiles, what success costs, and scores by axis of shift."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np

from probegym.agents import statistics
from probegym.agents.benchmark.rows import BEST, KINDS, Table, compared, groups, normalised, rows_of, short, tabled
from probegym.errors import ProbeGymError

COLOURS = {"learned": "#0072b2", BEST: "#d55e00", "script": "#e69f00", "oracle": "#009e73", "random": "#999999"}
"""Okabe and Ito's, which colour-blind people can tell apart."""
MARKS = {"learned": "o", BEST: "s", "script": "s", "oracle": "^", "random": "x"}
LEVELS = np.linspace(-0.5, 1.5, 201)
LOWEST, HIGHEST = -1.0, 2.0  # scores that are drawn


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
            if not (rows := compared(table, kind, split)):
                continue
            found, together = tabled(rows.values()), groups(rows.values())
            low, high = statistics.interval(_profile, *found, together=together, resamples=300)
            axis.fill_between(LEVELS, low, high, color=COLOURS[kind], alpha=0.2, linewidth=0)
            axis.plot(LEVELS, _profile(*found), color=COLOURS[kind], label=kind)
        axis.set(title=split, xlabel="score (0 random, 1 oracle)", xlim=(LEVELS[0], LEVELS[-1]))
    axes[0].set_ylabel("share of runs above")
    _legend(figure, KINDS)
    return _svg(figure)


def _profile(values: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    return statistics.performance_profile(normalised(values, low, high), LEVELS)


def _legend(figure: Any, kinds: Sequence[str]) -> None:
    """Below all panels, where it lies on nothing."""
    handles = [_pyplot().Line2D([], [], **_mark(kind), linestyle="", label=kind) for kind in kinds]
    figure.tight_layout()
    figure.legend(handles=handles, loc="upper center", ncol=len(handles), bbox_to_anchor=(0.5, 0.0))


def _mark(kind: str) -> dict[str, Any]:
    """Larger and hollow for the best script, so that neither of two equal points hides the other."""
    return {"marker": MARKS[kind], "color": COLOURS[kind], "markersize": 7 if kind == BEST else 4.5, "markerfacecolor": "none" if kind == BEST else COLOURS[kind]}


def costs(table: Table, scenario: str = "id") -> str:
    """Success against the instrument's seconds, up to the goal or, without it, to the end: a panel for each environment; to the upper left is better."""
    from matplotlib import ticker

    figure, axes = _panels(table, 4, 2.6, 2.5)
    for axis, environment in zip(axes.flat, table.suite.environments, strict=False):
        rows = [row for row in table.rows if row.facts.environment == environment and row.facts.scenario == scenario and row.episodes]
        for row in rows:
            kind = BEST if row.best else row.facts.kind
            axis.plot(row.spent["time"], row.success, linestyle="", **_mark(kind))
        front = sorted((row.spent["time"], row.success) for row in rows if row.facts.kind != "oracle")
        best = [point for index, point in enumerate(front) if all(point[1] > other[1] for other in front[:index])]
        axis.step(*zip(*best, strict=True), where="post", color="#bbbbbb", linewidth=1, zorder=0) if best else None
        axis.set(ylim=(-0.05, 1.05), xscale="log")
        if rows:
            at = [row.spent["time"] for row in rows]
            axis.set_xlim(min(at) / 1.5, max(at) * 1.5)
        axis.set_xticks(_round_numbers(*axis.get_xlim()))
        axis.xaxis.set_major_formatter(ticker.StrMethodFormatter("{x:g}"))
        axis.xaxis.set_minor_formatter(ticker.NullFormatter())
        axis.set_xlabel("instrument seconds, mean", fontsize=7)
    axes[0, 0].set_ylabel("success")
    _legend(figure, ("learned", BEST, "script", "oracle", "random"))
    return _svg(figure)


def _round_numbers(low: float, high: float, most: int = 4) -> list[float]:
    """A few numbers to write along a logarithmic axis, evenly spread, one at least where its ends are a factor of 2 apart."""
    every = [digit * 10.0**power for power in range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1) for digit in (1, 2, 3, 5)]
    inside = [number for number in every if low <= number <= high]
    return inside[:: -(-len(inside) // most) or 1]


def shifts(table: Table) -> str:
    """Scores in and out of distribution, a panel for each environment: learned against the best script, for every axis of shift."""
    figure, axes = _panels(table, 2, 5.2, 2.3)
    for axis, environment in zip(axes.flat, table.suite.environments, strict=False):
        scenarios, points = table.suite.environments[environment].scenarios, []
        for offset, kind in ((-0.12, "learned"), (0.12, BEST)):
            rows = {key[1]: row for key, row in rows_of(table, kind, "all").items() if key[0] == environment}
            at = [index for index, name in enumerate(scenarios) if name in rows]
            if not at:
                continue
            middle = np.array([rows[scenarios[i]].score for i in at])
            ends = np.array([rows[scenarios[i]].score_interval for i in at])
            points += [(index + 2 * offset, score, kind) for index, score in zip(at, middle, strict=True)]
            axis.errorbar(np.array(at) + offset, middle, np.abs(ends.T - middle), linestyle="", linewidth=1, elinewidth=1, **_mark(kind))
        axis.axhline(0, color="#cccccc", linewidth=0.8)
        axis.axhline(1, color="#cccccc", linewidth=0.8)
        axis.set_xticks(range(len(scenarios)), scenarios, rotation=40, ha="right", fontsize=7)
        low, high = max(LOWEST, axis.get_ylim()[0]), min(HIGHEST, max(1.1, axis.get_ylim()[1]))
        axis.set_ylim(low, high)
        for place, score, kind in points:  # beyond them, its number
            if not low <= score <= high:
                axis.text(place, float(np.clip(score, low, high)), f"{score:.1f}", color=COLOURS[kind], fontsize=7, ha="center", va="bottom" if score > high else "top")
    axes[0, 0].set_ylabel("score")
    _legend(figure, ("learned", BEST))
    return _svg(figure)
