"""The report of a benchmark: Markdown, CSV and one HTML page with its figures, all made of the raw results."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from html import escape
from pathlib import Path

import numpy as np

from probegym.agents import files
from probegym.agents.benchmark import figures
from probegym.agents.benchmark.rows import BEST, COSTS, Row, Table, short
from probegym.agents.evaluate import write_json

HEAD = ("scenario", "agent", "success", "95 %", "score", "return", "95 %", "measurements", "seconds", "dose e/\u00c5\u00b2", "area: m", "s", "e", "damage")
STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:1180px;margin:2rem auto;padding:0 1rem;color:#1a1a1a;background:#fff}
table{border-collapse:collapse;font-size:13px;margin:.5rem 0 2rem}th,td{padding:.2rem .6rem;text-align:right;border-bottom:1px solid #e5e5e5}
th{font-weight:600;color:#555}td:first-child,th:first-child,td:nth-child(2),th:nth-child(2){text-align:left}tr.learned td{background:#eef5fa}
h2{margin-top:2.5rem}svg{max-width:100%;height:auto}.missing{color:#b00020}.note{color:#555;font-size:13px;max-width:60rem}
"""
NOTES = (
    "Score: 0 is random, 1 is the oracle, which sees the hidden state; a learned agent may pass it where its plan is not the best there is. Run k of every "
    "agent meets the same episodes. Intervals are 95 %: Wilson's of rates, bootstraps of the rest, drawn anew within each task. The best script of an "
    "environment has the highest score on its training scenario. Measurements, seconds and dose: medians of an instrument's, up to the goal, of the episodes "
    "that reached it. Area: under the share of episodes at their goal against what they had spent, up to what random spends: 1 is everyone at no cost."
)


def number(value: float, digits: int = 3) -> str:
    """For a table; a dash for what is not known."""
    if not np.isfinite(value):
        return "-"
    return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.{digits}g}"


def share(value: float) -> str:
    """A score with two digits."""
    return f"{value + 0.0:.2f}".replace("-0.00", "0.00") if np.isfinite(value) else "-"


def _cells(row: Row) -> list[str]:
    low, high = row.success_interval
    least, most = row.value_interval
    return [
        row.facts.scenario, row.facts.agent + (" *" if row.best else ""), f"{row.success:.1%}", f"{low:.0%}-{high:.0%}", share(row.score), number(row.value),
        f"{number(least)} to {number(most)}", *(number(row.to_goal[name]) for name in COSTS), *(share(row.area[name]) for name in COSTS), number(row.damage, 2),
    ]  # fmt: skip


def _summaries(table: Table) -> tuple[list[str], list[list[str]]]:
    head = ["agents", "split", "tasks", "IQM of score", "95 %", "optimality gap", "95 %", "success", "beats best script", "95 %"]
    lines = []
    for s in table.summaries:
        better = ["-", "-"] if s.better is None else [f"{s.better[0]:.2f}", f"{s.better[1]:.2f}-{s.better[2]:.2f}"]
        lines.append([
            s.kind, s.split, str(s.tasks), f"{s.iqm[0]:.3f}", f"{s.iqm[1]:.3f}-{s.iqm[2]:.3f}", f"{s.gap[0]:.3f}", f"{s.gap[1]:.3f}-{s.gap[2]:.3f}", f"{s.success:.1%}", *better,
        ])  # fmt: skip
    return head, lines


def _gaps(table: Table) -> tuple[list[str], list[list[str]]]:
    """Score on id, and how much less it is out of distribution."""
    head = ["environment", "agent", "id", "near", "far", "id - near", "id - far"]
    lines = []
    for environment, contest in table.suite.environments.items():
        for agent in filter(None, (contest.learned, table.best.get(environment))):
            found = {split: [r.score for name in contest.scenarios if (r := table.row(environment, agent, name)) and r.facts.split == split] for split in ("id", "near", "far")}
            mean = {split: float(np.mean(values)) if values else np.nan for split, values in found.items()}
            lines.append([short(environment), agent, *(share(mean[s]) for s in mean), *(share(mean["id"] - mean[s]) for s in ("near", "far"))])
    return head, lines


def _ordered(table: Table, environment: str) -> Iterator[Row]:
    contest = table.suite.environments[environment]
    for scenario in (*contest.scenarios, contest.train):
        for agent in contest.agents:
            if row := table.row(environment, agent, scenario):
                yield row


def _winners(table: Table) -> tuple[list[str], list[list[str]]]:
    """Where learning is ahead of the best script, where it is behind: by the intervals of both returns."""
    head = ["environment", "ahead in", "alike in", "behind in"]
    lines = []
    for environment, contest in table.suite.environments.items():
        if not contest.learned or environment not in table.best:
            continue
        where: dict[str, list[str]] = {"ahead": [], "alike": [], "behind": []}
        for name in contest.scenarios:
            mine, script = table.row(environment, contest.learned, name), table.row(environment, table.best[environment], name)
            if mine and script:
                verdict = "ahead" if mine.value_interval[0] > script.value_interval[1] else "behind" if mine.value_interval[1] < script.value_interval[0] else "alike"
                where[verdict].append(name)
        lines.append([short(environment), *(", ".join(names) or "-" for names in where.values())])
    return head, lines


def sections(table: Table, environments: bool = True) -> Iterator[tuple[str, list[str], list[list[str]], list[str]]]:
    """Title, head, lines, and a class for each line. environments: whether every row of each is told."""
    for title, (head, lines) in (("All environments", _summaries(table)), ("In and out of distribution", _gaps(table)), ("Learned against the best script", _winners(table))):
        yield title, head, lines, [line[0] for line in lines]
    for environment in table.suite.environments if environments else ():
        rows = list(_ordered(table, environment))
        yield short(environment), list(HEAD), [_cells(row) for row in rows], [BEST if row.best else row.facts.kind for row in rows]


def markdown(table: Table) -> str:
    """The whole report as Markdown."""
    out = ["# Benchmark", "", table.suite.description, "", NOTES, ""]
    if table.missing:
        out += [f"**{len(table.missing)} runs are missing**: " + ", ".join(str(facts.path.with_suffix("")) for facts in table.missing[:20]), ""]
    for title, head, lines, _ in sections(table):
        out += [f"## {title}", "", "| " + " | ".join(head) + " |", "|" + "---|" * len(head), *("| " + " | ".join(line) + " |" for line in lines), ""]
    return "\n".join(out)


def page(table: Table) -> str:
    """The whole report as one HTML page, which asks nothing of the network."""
    parts = [f"<!doctype html><html lang='en'><meta charset='utf-8'><title>ProbeGym benchmark</title><style>{STYLE}</style><h1>ProbeGym benchmark</h1>"]
    parts.append(f"<p>{escape(table.suite.description)} {table.suite.runs} runs of {table.suite.episodes} episodes each.</p><p class='note'>{escape(NOTES)}</p>")
    if table.missing:
        names = ", ".join(str(facts.path.with_suffix("")) for facts in table.missing[:20])
        parts.append(f"<p class='missing'>{len(table.missing)} runs are missing: {escape(names)}</p>")
    drawn = {"All environments": figures.profiles, "In and out of distribution": figures.shifts, "Learned against the best script": figures.costs}
    for title, head, lines, kinds in sections(table):
        parts.append(f"<h2>{escape(title)}</h2>" + (drawn[title](table) if title in drawn else ""))
        cells = "".join(
            f"<tr class='{escape(kind.split()[0])}'>" + "".join(f"<td>{escape(cell)}</td>" for cell in line) + "</tr>" for line, kind in zip(lines, kinds, strict=True)
        )
        parts.append("<table><tr>" + "".join(f"<th>{escape(name)}</th>" for name in head) + f"</tr>{cells}</table>")
    return "".join(parts)


def table_csv(table: Table) -> str:
    """Every row as CSV, numbers in full."""
    stream = io.StringIO()
    out = csv.writer(stream, lineterminator="\n")
    out.writerow(["environment", "scenario", "split", "axis", "agent", "kind", "best_script", "episodes", "success", "success_low", "success_high", "score", "value", "value_low",
                  "value_high", *(f"{name}_to_goal" for name in COSTS), *(f"{name}_area" for name in COSTS), "damage"])  # fmt: skip
    for environment in table.suite.environments:
        for row in _ordered(table, environment):
            f = row.facts
            out.writerow([f.environment, f.scenario, f.split, f.axis, f.agent, f.kind, int(row.best), row.episodes, row.success, *row.success_interval, row.score, row.value,
                          *row.value_interval, *row.to_goal.values(), *row.area.values(), row.damage])  # fmt: skip
    return stream.getvalue()


def speeds(table: Table) -> str:
    """Steps a second of every row as CSV: of the machine it ran on, and not the same twice."""
    lines = [f"{row.facts.environment},{row.facts.scenario},{row.facts.agent},{row.steps_per_second:.1f}" for env in table.suite.environments for row in _ordered(table, env)]
    return "\n".join(["environment,scenario,agent,steps_per_second", *lines, ""])


def leaderboard(table: Table) -> list[dict]:
    """One entry for each environment and agent: score and success by split."""
    out = []
    for environment, contest in table.suite.environments.items():
        for agent in contest.agents:
            rows = [r for name in contest.scenarios if (r := table.row(environment, agent, name))]
            if rows:
                by = {split: [r for r in rows if r.facts.split == split] for split in ("id", "near", "far")}
                out.append({"environment": environment, "agent": agent, "kind": BEST if rows[0].best else rows[0].facts.kind, "agent_digest": rows[0].facts.agent_digest}
                           | {f"score_{s}": float(np.mean([r.score for r in found])) for s, found in by.items() if found}
                           | {f"success_{s}": float(np.mean([r.success for r in found])) for s, found in by.items() if found})  # fmt: skip
    return sorted(out, key=lambda entry: (entry["environment"], -np.nan_to_num(entry.get("score_id", np.nan), nan=-1e9)))


def write(table: Table, folder: Path) -> None:
    """All files of the report, each complete or not at all."""
    for name, text in (("report.md", markdown(table)), ("table.csv", table_csv(table)), ("speeds.csv", speeds(table)), ("report.html", page(table))):
        files.write_bytes(folder / name, text.encode())
    write_json(folder / "leaderboard.json", json.loads(json.dumps(files.plain(leaderboard(table)))))
