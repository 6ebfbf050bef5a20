"""The report of a benchmark: Markdown, CSV and one HTML page with its figures, all made of the raw results."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from probegym import __version__
from probegym.agents import files
from probegym.agents.benchmark import figures
from probegym.agents.benchmark.rows import BEST, COSTS, FEWEST, SPLITS, Row, Table, ahead, short

HEAD = ("scenario", "agent", "success", "95 %", "score", "95 %", "value", "95 %", "measurements", "seconds", "dose e/\u00c5\u00b2",
        "area: measurements", "area: seconds", "area: dose", "damage")  # fmt: skip
STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:1180px;margin:2rem auto;padding:0 1rem;color:#1a1a1a;background:#fff}
table{border-collapse:collapse;font-size:13px;margin:.5rem 0 2rem}th,td{padding:.2rem .6rem;text-align:right;border-bottom:1px solid #e5e5e5}
th{font-weight:600;color:#555}td:first-child,th:first-child,td:nth-child(2),th:nth-child(2),.words{text-align:left}tr.learned td{background:#eef5fa}
h2{margin-top:2.5rem}svg{max-width:100%;height:auto}.missing{color:#b00020}.note{color:#555;font-size:13px;max-width:60rem}
"""
LEAD = "Score: 0 is random, 1 is the oracle, which sees the hidden state. Intervals are 95 %. * is the best script. What the columns are stands at the end."
NOTES = {
    "Score": "a learned agent may pass 1 where the oracle's plan is not the best there is. Where runs are missing, and where the oracle is no better than random, there is no score.",
    "Tasks": "the scenarios of a split in which random, the oracle, the policy and the best script have all their runs, and the oracle is better than random.",
    "IQM of score": "the interquartile mean, of the middle half of all runs.",
    "Optimality gap": "how far runs stay below a score of 1 on average; what is beyond 1 makes up for nothing.",
    "Beats best script": "the chance that a run scores higher than one of the best script in the same scenario; a draw counts half.",
    "Value": "the return where nothing else is said.",
    "Best script": "of an environment: the one with the highest value on its training scenario.",
    "In and out of distribution": "medians over the scenarios of a split that have a score; one with a poor oracle would decide a mean.",
    "Ahead or behind": "the interval of the mean difference, episode by episode, lies on one side of zero, in each scenario by itself; it misleads in one case of twenty, and in up to one of three "
                       f"where both nearly always do as well and one episode in a hundred decides. Of fewer than {FEWEST} episodes nothing is told apart. Passed by: a script that is not the best "
                       "one on the training scenario, and is ahead of the policy in this one.",
    "Intervals": "Wilson's of rates, bootstraps of the rest. In a row episodes are drawn anew, with random's and the oracle's of the same seeds; over all environments runs are, within each "
                 "environment, for all its scenarios and agents together. Runs are few: with five, an interval over eight environments holds the true value in about 90 cases of a hundred, over "
                 "one environment in about 84.",
    "Runs": "run k of every agent meets the same episodes. Runs of an agent with one policy are blocks of episodes: their spread tells nothing of how trainings differ.",
    "Measurements, seconds and dose": "medians of an instrument's, up to the goal, of the episodes that reached it, so that who succeeds in easy episodes alone looks cheap.",
    "Area": "under the share of episodes at their goal against what they had spent, up to the most that an episode of random or of the oracle in the environment spent: 1 is everyone at no cost.",
}  # fmt: skip
CAPTIONS = (
    "Share of runs whose score is above each value.",
    "Scores with their intervals; a number at the edge is a score beyond it, an empty column a scenario without a score.",
    "Scenario id: success against seconds on the instrument, up to the goal or, without it, to the end. To the upper left is better; the line is the best that is there for the time, the oracle left out.",
)
"""Of the figures that stand at the first tables."""
BEST_OF_PART = "best of the scripts that were run"
"""Where scripts of the suite were left out, one of which may be better."""


def number(value: float, digits: int = 3) -> str:
    """A value of any unit for a table; a dash for what is not known."""
    if not np.isfinite(value):
        return "-"
    return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.{digits}g}"


def percent(value: float) -> str:
    """A share in per cent; a dash for what is not known."""
    return f"{value:.1%}" if np.isfinite(value) else "-"


def counted(number: int, what: str) -> str:
    """A number of things, one or more."""
    return f"{number} {what}{'' if number == 1 else 's'}"


def share(value: float) -> str:
    """A score, which has no unit, or a share, with two digits."""
    return f"{value + 0.0:.2f}".replace("-0.00", "0.00") if np.isfinite(value) else "-"


def spread(low: float, high: float, told: Callable[[float], str]) -> str:
    """An interval of any unit, each end as ``told`` tells it; a dash for none."""
    return f"{told(low)} to {told(high)}" if np.isfinite(low) else "-"


def _cells(row: Row) -> list[str]:
    low, high = row.success_interval
    return [
        row.facts.scenario, row.facts.agent + (" *" if row.best else "") + (f" ({counted(row.missing, 'run')} missing)" if row.missing else ""), percent(row.success),
        spread(low, high, lambda value: f"{value:.0%}"), share(row.score), spread(*row.score_interval, share), number(row.value), spread(*row.value_interval, number), *(number(row.to_goal[name]) for name in COSTS), *(share(row.area[name]) for name in COSTS), number(row.damage, 2),
    ]  # fmt: skip


def _summaries(table: Table) -> tuple[list[str], list[list[str]]]:
    best = _best(table)
    head = ["agents", "split", "tasks", "IQM of score", "95 %", "optimality gap", "95 %", "success", f"beats {best}", "95 %"]
    lines = []
    for s in table.summaries:
        told = [cell for middle, low, high in (s.iqm, s.gap) for cell in (_third(middle), spread(low, high, _third))]
        better = ["-", "-"] if s.better is None else [share(s.better[0]), spread(*s.better[1:], share)]
        lines.append([best if s.kind == BEST else s.kind, s.split, str(s.tasks), *told, f"{s.success:.1%}", *better])
    return head, lines


def _best(table: Table) -> str:
    return BEST_OF_PART if _left_out(table) else BEST


def _left_out(table: Table) -> dict[str, list[str]]:
    """Scripts of the suite that are not run, by environment."""
    return {environment: list(contest.left_out) for environment, contest in table.suite.environments.items() if contest.left_out}


def _lead(table: Table) -> str:
    """What has to be known before the tables are read."""
    gone = "; ".join(f"{short(environment)}: {', '.join(names)}" for environment, names in _left_out(table).items())
    return f"{LEAD} Scripts of the suite were left out ({gone}): what is called best is the {BEST_OF_PART}." if gone else LEAD


def _third(value: float) -> str:
    return f"{value:.3f}".replace("-0.000", "0.000")


def _gaps(table: Table) -> tuple[list[str], list[list[str]]]:
    """Score on id, and how much less it is out of distribution."""
    head = ["environment", "agent", "id", "near", "far", "id - near", "id - far"]
    lines = []
    for environment, contest in table.suite.environments.items():
        for agent in filter(None, (contest.learned, table.best.get(environment))):
            rows = [row for name in contest.scenarios if (row := table.row(environment, agent, name))]
            middle = {split: _middle([row.score for row in rows if row.facts.split == split]) for split in SPLITS}
            lines.append([short(environment), agent, *(share(middle[s]) for s in SPLITS), *(share(middle["id"] - middle[s]) for s in SPLITS[1:])])
    return head, lines


def _middle(scores: list[float]) -> float:
    """Median of the scores that there are."""
    there = [score for score in scores if np.isfinite(score)]
    return float(np.median(there)) if there else np.nan


def _ordered(table: Table, environment: str) -> Iterator[Row]:
    contest = table.suite.environments[environment]
    for scenario in (*contest.scenarios, contest.train):
        for agent in contest.agents:
            if row := table.row(environment, agent, scenario):
                yield row


def _verdicts(table: Table, environment: str) -> dict[str, list[str]]:
    """The scenarios in which learning is ahead of the best script, not told apart from it, or behind; empty where one of them does not play."""
    contest = table.suite.environments[environment]
    if not contest.learned or environment not in table.best:
        return {}
    where: dict[str, list[str]] = {"ahead": [], "not told apart": [], "behind": [], "runs missing": []}
    for name in contest.scenarios:
        mine, script = table.row(environment, contest.learned, name), table.row(environment, table.best[environment], name)
        if mine and script:
            where[ahead(mine, script)].append(name)
    return where


def _winners(table: Table) -> tuple[list[str], list[list[str]]]:
    """Where learning is ahead of the best script, and where behind."""
    found = {environment: where for environment in table.suite.environments if (where := _verdicts(table, environment))}
    lines = [[short(environment), *(", ".join(names) or "-" for names in (*where.values(), _passed_by(table, environment)))] for environment, where in found.items()]
    return ["environment", "ahead in", "not told apart in", "behind in", "runs missing in", "passed by"], lines


def _passed_by(table: Table, environment: str) -> list[str]:
    """Scripts other than the best one that are ahead of the policy, each with the scenarios in which it is."""
    contest = table.suite.environments[environment]
    where: dict[str, list[str]] = {}
    for script in contest.scripts:
        for name in contest.scenarios if script != table.best[environment] else ():
            mine, other = table.row(environment, contest.learned or "", name), table.row(environment, script, name)
            if mine and other and ahead(other, mine) == "ahead":
                where.setdefault(script, []).append(name)
    return [f"{script} in {' and '.join(names)}" for script, names in where.items()]


def sections(table: Table, environments: bool = True) -> Iterator[tuple[str, list[str], list[list[str]], list[str]]]:
    """Title, head, lines, and a class for each line. environments: whether every row of each is told."""
    against = f"Learned against the {_best(table)}"
    for title, (head, lines) in (("All environments", _summaries(table)), ("In and out of distribution", _gaps(table)), (against, _winners(table))):
        yield title, head, lines, [line[0] for line in lines]
    for environment in table.suite.environments if environments else ():
        rows = list(_ordered(table, environment))
        yield short(environment), list(HEAD), [_cells(row) for row in rows], [BEST if row.best else row.facts.kind for row in rows]


def markdown(table: Table) -> str:
    """The whole report as Markdown."""
    out = ["# Benchmark", "", _cell(table.suite.description), "", _cell(_lead(table)), ""]
    if table.missing:
        out += [f"**{_cell(_missing(table))}**", ""]
    for title, head, lines, _ in sections(table):
        out += [f"## {title}", "", "| " + " | ".join(head) + " |", "|" + "---|" * len(head), *("| " + " | ".join(map(_cell, line)) + " |" for line in lines), ""]
    return "\n".join([*out, "## What the columns are", "", *(f"- *{name}*: {told}" for name, told in NOTES.items()), ""])


def _cell(text: str) -> str:
    """Names are users' own: nothing of them is taken for Markdown or HTML."""
    return escape(text, quote=False).replace("|", "\\|").replace("\n", " ")


def _missing(table: Table) -> str:
    names = [str(facts.path.with_suffix("")) for facts in table.missing]
    return f"missing: {counted(len(names), 'run')}, " + ", ".join(names[:20]) + (f", and {len(names) - 20} more" if len(names) > 20 else "")


def page(table: Table) -> str:
    """The whole report as one HTML page, which asks nothing of the network."""
    parts = [f"<!doctype html><html lang='en'><meta charset='utf-8'><title>ProbeGym benchmark</title><style>{STYLE}</style><h1>ProbeGym benchmark</h1>"]
    parts.append(f"<p>{escape(table.suite.description)} {table.suite.runs} runs of {table.suite.episodes} episodes each.</p><p class='note'>{escape(_lead(table))}</p>")
    if table.missing:
        parts.append(f"<p class='missing'>{escape(_missing(table))}</p>")
    drawn = dict(enumerate((figures.profiles, figures.shifts, figures.costs)))  # beside the first tables
    for index, (title, head, lines, kinds) in enumerate(sections(table)):
        parts.append(f"<h2>{escape(title)}</h2>" + (f"{drawn[index](table)}<p class='note'>{CAPTIONS[index]}</p>" if index in drawn else ""))
        words = {column for line in lines for column, cell in enumerate(line) if cell[:1].isalpha()}
        cells = "".join(f"<tr class='{escape(kind.split()[0])}'>{_html('td', line, words)}</tr>" for line, kind in zip(lines, kinds, strict=True))
        parts.append(f"<table><tr>{_html('th', head, words)}</tr>{cells}</table>")
    paces = "".join(f"<tr><td>{escape(name)}</td><td>{escape(agent)}</td><td>{pace:,.0f}</td></tr>" for name, agent, pace in _paces(table))
    parts.append(f"<h2>Speed</h2><table><tr><th>environment</th><th>agent</th><th>steps a second, on this machine</th></tr>{paces}</table>")
    parts.append("<h2>What the columns are</h2>" + "".join(f"<p class='note'><i>{escape(name)}</i>: {escape(note)}</p>" for name, note in NOTES.items()))
    return "".join(parts)


def _html(tag: str, line: list[str], words: set[int]) -> str:
    """The cells of a line, columns of words to the left."""
    return "".join(f"<{tag}{' class=words' if column in words else ''}>{escape(cell)}</{tag}>" for column, cell in enumerate(line))


def _paces(table: Table) -> Iterator[tuple[str, str, float]]:
    """Environment, agent, median over its scenarios."""
    for environment, contest in table.suite.environments.items():
        for agent in contest.agents:
            if found := [row.steps_per_second for row in table.rows if (row.facts.environment, row.facts.agent) == (environment, agent) and row.episodes]:
                yield short(environment), agent, float(np.median(found))


def table_csv(table: Table) -> str:
    """Every row as CSV, numbers in full."""
    stream = io.StringIO()
    out = csv.writer(stream, lineterminator="\n")
    out.writerow(["environment", "scenario", "split", "axis", "agent", "kind", "best_script", "missing_runs", "episodes", "success", "success_low", "success_high",
                  "score", "score_low", "score_high", "value", "value_low", "value_high", *(f"{name}_to_goal" for name in COSTS), *(f"{name}_area" for name in COSTS), "damage"])  # fmt: skip
    for environment in table.suite.environments:
        for row in _ordered(table, environment):
            f = row.facts
            out.writerow([f.environment, f.scenario, f.split, f.axis, f.agent, f.kind, int(row.best), row.missing, row.episodes, row.success, *row.success_interval, row.score,
                          *row.score_interval, row.value, *row.value_interval, *row.to_goal.values(), *row.area.values(), row.damage])  # fmt: skip
    return stream.getvalue()


def speeds(table: Table) -> str:
    """Steps a second of every row as CSV: of the machine it ran on, and not the same twice."""
    lines = [f"{row.facts.environment},{row.facts.scenario},{row.facts.agent},{row.steps_per_second:.1f}" for env in table.suite.environments for row in _ordered(table, env)]
    return "\n".join(["environment,scenario,agent,steps_per_second", *lines, ""])


def leaderboard(table: Table) -> dict[str, Any]:
    """What was run, by whom a submission is and under which licence, and an entry for each environment and agent.

    Digests of all its runs; median score and mean success by split; for the policy, in which scenarios it is ahead of the best script and in which behind; missing runs.
    """
    suite = table.suite
    out: list[dict[str, Any]] = []
    for environment, contest in table.suite.environments.items():
        for agent in contest.agents:
            rows = [r for name in contest.scenarios if (r := table.row(environment, agent, name))]
            if rows:
                by = {split: [r for r in rows if r.facts.split == split] for split in SPLITS}
                out.append({"environment": environment, "agent": agent, "kind": BEST if rows[0].best else rows[0].facts.kind, "agent_digests": list(rows[0].digests),
                            "code": rows[0].facts.code, "missing_runs": sum(r.missing for r in rows)}
                           | {f"score_{s}": _middle([r.score for r in found]) for s, found in by.items() if found}
                           | {f"success_{s}": float(np.mean([r.success for r in found])) for s, found in by.items() if found}
                           | ({"against_best_script": _verdicts(table, environment)} if agent == contest.learned else {}))  # fmt: skip
    out.sort(key=lambda entry: (entry["environment"], -np.nan_to_num(entry.get("score_id", np.nan), nan=-1e9)))
    told = {"description": suite.description, "authors": list(suite.authors), "licence": suite.licence, "scripts_left_out": _left_out(table)}
    return told | {"version": __version__, "runs": suite.runs, "episodes": suite.episodes, "entries": out}


def write(table: Table, folder: Path) -> None:
    """All files of the report, each complete or not at all."""
    for name, text in (("report.md", markdown(table)), ("table.csv", table_csv(table)), ("speeds.csv", speeds(table)), ("report.html", page(table))):
        files.write_bytes(folder / name, text.encode())
    files.write_json(folder / "leaderboard.json", leaderboard(table))
