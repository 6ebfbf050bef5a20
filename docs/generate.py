"""Writes docs/environments, docs/commands.md and the README's table of results from docstrings, spaces, scenario files, agents, help and scores.

``python docs/generate.py`` from the repository root. ``--scores runs/core`` first takes over what `probegym benchmark --suite core --out runs/core`
measured: docs/results.md is its report, docs/results/ holds its table and leaderboard.
"""

from __future__ import annotations

import argparse
import csv
import inspect
import json
import re
import shutil
from enum import Enum
from pathlib import Path
from typing import Any

import typer
from gymnasium import spaces

import probegym
from probegym import scenarios
from probegym.agents.benchmark.rows import short
from probegym.agents.bundle import shipped
from probegym.agents.registry import scripts
from probegym.cli import app
from probegym.envs import environment_type
from probegym.envs.pictures import UNITS
from probegym.scenarios.shifts import Shift, shifts

FOLDER = Path(__file__).parent
PAGES, IMAGES, RESULTS = FOLDER / "environments", FOLDER / "images", FOLDER / "results"
README, BEGIN, END = FOLDER.parent / "README.md", "<!-- results: docs/generate.py -->", "<!-- end of results -->"
RESULTS_PAGE = FOLDER / "results.md"
NUMBERS = ("success", "success_low", "success_high", "score", "value", "value_low", "value_high", "measurements_to_goal", "time_to_goal")
COST_UNITS = UNITS | {"damage": "1", "measurements": "1"}  # of a column; a budget reads "2 damage"
COST_MEANINGS = {"time": "on the instrument", "dose": "electrons where the beam was", "damage": "events"}
FIGURES = {"All environments": "results_profiles.svg", "In and out of distribution": "results_shifts.svg", "Learned against the best script": "results_costs.svg"}  # of a report, in its order
MOST_ENTRIES, LONGEST = 2, 40  # of what sets a scenario apart; characters of a value


def space(one: spaces.Space) -> str:
    """A space in a few words: bounds, shape, type."""
    if isinstance(one, spaces.Box):
        low, high = float(one.low.min()), float(one.high.max())
        ends = ", ".join(f"{end:g}".replace("inf", "∞") for end in (low, high))
        return f"{one.shape} {one.dtype} from {ends.replace(', ', ' to ')}"
    return str(one)


def seen_and_done(task_type, names: list[str]) -> str:
    """The spaces as they are, scenarios with the same ones together."""
    groups: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for name in names:
        task = task_type(scenarios.load(task_type.family, name).task)
        keys = tuple(f"`{key}` {space(one)}" for key, one in task.observation_space.items())
        groups.setdefault((str(task.action_space), keys), []).append(name)
    rows = [f"| {', '.join(f'`{name}`' for name in found)} | `{action}` | {'<br>'.join(keys)} |" for (action, keys), found in groups.items()]
    return "\n".join(["| scenarios | action | observation |", "|---|---|---|", *rows])


def worlds(task_type, names: list[str]) -> str:
    """Every scenario: its split, what it is, what an episode may spend, what sets it apart from training."""
    train, rows = scenarios.load(task_type.family, "train"), []
    for name in names:
        one = scenarios.load(task_type.family, name)
        limits = one.budget.limits()
        units = {"measurements": task_type.measured} | UNITS
        budget = ", ".join(f"{value:,.6g} {units[key]}" for key, value in limits.items())
        apart = "" if one.split in ("train", "id") else told(shifts(train, one))
        rows.append(f"| `{name}` | {one.split}{', ' + one.axis if one.axis else ''} | {one.description} | {budget} | {apart} |")
    return "\n".join(["| scenario | split, axis | what it is | an episode may spend | against `train` |", "|---|---|---|---|---|", *rows])


def told(found: list[Shift]) -> str:
    """The entries without a common value first."""
    order = sorted(found, key=lambda shift: not shift.apart)
    lines = [f"`{shift.entry}`: {value(shift.one)} → {value(shift.other)}" for shift in order[:MOST_ENTRIES]]
    return "<br>".join([*lines, *([f"{len(order) - MOST_ENTRIES} more"] if len(order) > MOST_ENTRIES else [])])


def value(entry: object) -> str:
    """A value of a scenario, shortened, as it may stand in a table."""
    text = "default" if entry is None else str(entry).replace("'", "").replace("|", "/").replace("*", "")
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."


def told_beside(task_type, names: list[str]) -> str:
    """Every key of ``info``: its unit, what it is."""
    tasks = [task_type(scenarios.load(task_type.family, name).task) for name in names]
    units, meanings = COST_UNITS | task_type.metric_units, COST_MEANINGS | {"measurements": f"{task_type.measured} so far"} | task_type.info_meanings
    rows = [f"| `{name}` | {units.get(name, '')} | {meanings.get(name, '')} |" for name in units | meanings]
    modes: dict[str, list[str]] = {}
    for mode in tasks[0].rewards:
        terms = dict.fromkeys(f"`reward_{term.name}`" for task in tasks for term in task.rewards[mode])
        modes.setdefault(", ".join(terms), []).append(f"`{mode}`")
    rows += [f"| {terms} | | terms of the reward {' and '.join(of)} in this step, weights included: it is their sum |" for terms, of in modes.items()]
    rows.append("| `is_success` | bool | whether the goal is reached, as the end of the episode has it |")
    return ("Terms and `is_success` come with `step` alone. Costs are sums since `reset`. What is of the hidden truth is for figures, and not there on an instrument.\n\n"
            + "\n".join(["| key | unit | what it is |", "|---|---|---|", *rows]))  # fmt: skip


def players(env_id: str, family: str) -> str:
    """Policies that ship and procedures that need no training, and what the oracle is."""
    rows, task_type = [], environment_type(env_id).task_type
    for name, folder in shipped().items():
        about = json.loads((folder / "policy.json").read_text(encoding="utf-8"))
        if about["environment"] == env_id:
            rows.append(f"| `{name}` | policy, trained on `{about['scenario']}` | sees {', '.join(f'`{key}`' for key in about['observations'])} |")
    for name, build in scripts(family).items():
        rows.append(f"| `{name}` | script | {summary(build)} |")
    rows += ["| `random` | | samples the action space |", f"| `oracle` | sees the hidden state | {summary(task_type.oracle)} |"]
    return "\n".join(["| agent | kind | what it does |", "|---|---|---|", *rows])


def scores(env_id: str) -> str:
    """What the agents reached, best first; empty where nothing was measured."""
    rows = measurements(env_id)
    if not rows:
        return ""
    lines = ["| agent | kind | score | return (95 %) | success (95 %) | at the goal, medians |", "|---|---|---|---|---|---|"]
    for row in sorted(rows, key=lambda row: -float(row["score"])):
        x = {key: float(row[key]) for key in NUMBERS}
        kind = "best script" if row["best_script"] == "1" else row["kind"]
        spent = "-" if x["time_to_goal"] != x["time_to_goal"] else f"{counted(x['measurements_to_goal'], env_id)}, {seconds(x['time_to_goal'])}"
        lines.append(f"| `{row['agent']}` | {kind} | {round(x['score'], 2) + 0.0:.2f} | {x['value']:.3f} ({x['value_low']:.3f} to {x['value_high']:.3f}) "
                     f"| {x['success']:.0%} ({x['success_low']:.0%} to {x['success_high']:.0%}) | {spent} |")  # fmt: skip
    count, told = int(rows[0]["episodes"]), leaderboard()
    return (f"Scenario `id`, {count} episodes in {told['runs']} runs of {told['episodes']}, seeds from 20,000,000; a score of 0 is random, 1 the oracle;\nthe best script is the one that scored highest on `train` ([protocol](../benchmark.md#protocol)).\n"
            "`probegym benchmark --suite core --out runs/core`\n\n" + "\n".join(lines))  # fmt: skip


def both(env_id: str) -> tuple[str, str]:
    """Scores of the policy that ships and of the best script."""
    found = {"learned": "", "best": ""}
    for row in measurements(env_id):
        kind = "best" if row["best_script"] == "1" else row["kind"]
        if kind in found:
            found[kind] = f"{float(row['score']):.2f}"
    return found["learned"], found["best"]


def measurements(env_id: str) -> list[dict[str, str]]:
    """What was measured of an environment in its scenario ``id``."""
    with (RESULTS / "table.csv").open(newline="", encoding="utf-8") as file:
        return [row for row in csv.DictReader(file) if (row["environment"], row["scenario"]) == (env_id, "id")]


def leaderboard() -> dict[str, Any]:
    """That of the core suite."""
    return json.loads((RESULTS / "leaderboard.json").read_text(encoding="utf-8"))


def results_table() -> str:
    """The README's: what every environment asks for, the scores of its policy and its best script, and in how many scenarios the one is ahead of the other."""
    lines = ["| environment | the agent's task | policy | best script | ahead, level, behind |", "|---|---|---|---|---|"]
    found = {entry["environment"]: [len(entry["against_best_script"][how]) for how in ("ahead", "not told apart", "behind")] for entry in leaderboard()["entries"] if entry["kind"] == "learned"}
    for env_id in probegym.ENVIRONMENTS:
        kind = environment_type(env_id)
        counts = ", ".join(map(str, found[env_id]))
        lines.append(f"| [{short(env_id)}](docs/environments/{kind.task_type.family}.md) | {summary(kind)} | {' | '.join(both(env_id))} | {counts} |")
    ahead, level, behind = (sum(counts) for counts in zip(*found.values(), strict=True))
    return "\n".join([*lines, "", f"Of {ahead + level + behind} scenarios in and out of distribution policies are ahead of the best script in {ahead} and behind in {behind}; "
                                  f"in {level} the 95 % interval of the\ndifference holds zero ([all results](docs/results.md), [what the suite leaves out](docs/benchmark.md#protocol))."])  # fmt: skip


def summary(one: object) -> str:
    """First lines of a docstring, as one."""
    return (inspect.getdoc(one) or "").split("\n\n")[0].replace("\n", " ")


def readme() -> str:
    """The README with its table of results as they are now."""
    before, rest = README.read_text(encoding="utf-8").split(BEGIN)
    return f"{before}{BEGIN}\n{results_table()}\n{END}{rest.split(END)[1]}"


def seconds(time: float) -> str:
    """Seconds on the instrument, three figures of them."""
    return f"{time:,.0f} s" if time >= 100 else f"{time:.3g} s"


def counted(number: float, env_id: str) -> str:
    """So many measurements, by the name that the environment has for them."""
    what = environment_type(env_id).task_type.measured
    return f"{number:g} {what.removesuffix('s') if number == 1 else what}"


def picture(env_id: str, family: str) -> str:
    """The gallery's film, or the one of the environment's own page."""
    film = IMAGES / "gallery" / f"{short(env_id)}.gif"
    if film.exists():
        return f"![{short(env_id)}: left the trained policy, right the best script, the same episode](../images/gallery/{film.name})"
    own = next((path for end in (".gif", "_curve.png", "_paths.png") if (path := IMAGES / f"{family}{end}").exists()), None)
    return f"![{short(env_id)}](../images/{own.name})" if own else ""


def page(env_id: str) -> str:
    """The whole page of an environment."""
    kind = environment_type(env_id)
    family = kind.task_type.family
    names = scenarios.names(family)
    text = re.sub(r"(?m)^>>> (.*)$", r"```python\nimport gymnasium\nimport probegym\n\n\1\n```", inspect.getdoc(kind))
    text = re.sub(r"docs/(\w+)\.md", r"[\1](../\1.md)", text)
    summary, text = text.split("\n\n", 1)
    made = {"Spaces by scenario": seen_and_done(kind.task_type, names), "Info": told_beside(kind.task_type, names), "Scenarios": worlds(kind.task_type, names), "Agents": players(env_id, family),
            "Reference scores": scores(env_id)}  # fmt: skip
    sections = {found[1]: found[2].strip() for found in re.finditer(r"^## (.+)\n+((?:(?!^## ).*\n?)*)", text, re.MULTILINE)}
    ordered: dict[str, str] = {}
    for title, body in sections.items():
        if title == "Sources":
            ordered |= {name: table for name, table in made.items() if table and name not in ordered}
        ordered[title] = body
        if title == "Observation Space":
            ordered["Spaces by scenario"] = made["Spaces by scenario"]
        if title == "Rewards":
            ordered["Info"] = made["Info"]
    ordered |= {name: table for name, table in made.items() if table and name not in ordered}
    body = "\n\n".join(f"## {title}\n\n{content}" for title, content in ordered.items())
    return (f"# {short(env_id)}\n\n<!-- Written by docs/generate.py from the docstring, the scenarios and the scores: change those. -->\n\n`{env_id}`. {summary}\n"
            f"What stands behind it, measured: [physics, figures, limits](../{family}.md).\n\n{picture(env_id, family)}\n\n{body}\n")  # fmt: skip


def overview() -> str:
    """The page that lists all environments."""
    rows = []
    for env_id in probegym.ENVIRONMENTS:
        kind = environment_type(env_id)
        family, names = kind.task_type.family, scenarios.names(kind.task_type.family)
        act = re.sub(r"\(.*", "", str(kind.task_type(scenarios.load(family, "train").task).action_space))
        rows.append(f"| [{short(env_id)}]({family}.md) | {summary(kind)} | {act} | {len(names)} | {' | '.join(both(env_id))} |")
    table = "\n".join(["| environment | the agent's task | actions | scenarios | policy | best script |", "|---|---|---|---|---|---|", *rows])
    return ("# Environments\n\n<!-- Written by docs/generate.py. -->\n\nEach page has the headings of Gymnasium's own, physics and assumptions, scenarios, reference scores, sources and "
            f"version history.\nObservations are dictionaries; every environment is there once and as native lanes (`gymnasium.make_vec`).\n\n{table}\n\n"
            "The last columns are scores in scenario `id`, 0 as random and 1 as the oracle, 100 episodes each; each page has the intervals.\n")  # fmt: skip


def commands() -> str:
    """The page of the command line: every command with its arguments and options."""
    root = typer.main.get_command(app)
    parts = [f"# Command line\n\n<!-- Written by docs/generate.py from the help of `probegym`. -->\n\n{root.help} Mistakes get one line on standard error and exit code 2; Ctrl-C gives 130."]
    for path, command in leaves(root):
        told = " ".join((command.help or "").split("\n\n"))
        arguments = [param for param in command.params if param.param_type_name == "argument"]
        given, meant = " ".join(map(typed, arguments)), [f"- {typed(one).strip('[].')}: {meaning(one)}" for one in arguments if meaning(one)]
        options = [param for param in command.params if param.param_type_name == "option" and param.name != "help"]
        rows = [f"| {', '.join(f'`{name}`' for name in (*one.opts, *one.secondary_opts))} | {meaning(one)} | {'required' if one.required else usual(one.default)} |" for one in options]
        table = ["", "| option | meaning | default |", "|---|---|---|", *rows] if rows else []
        parts.append("\n".join([f"## probegym {' '.join(path)}", "", f"`probegym {' '.join((*path, given)).strip()}`: {' '.join(told.split())}", *(["", *meant] if meant else []), *table]))
    return "\n\n".join(parts).replace("<br>", "") + "\n"


def meaning(parameter) -> str:
    """What an argument or option is, and the words that it may be, unless that says them."""
    told, kind = " ".join((parameter.help or "").split()), parameter.type_descriptor.annotation
    words = [one.value for one in kind] if isinstance(kind, type) and issubclass(kind, Enum) else []
    return told if all(word in told for word in words) else f"{told} One of {', '.join(words)}."


def leaves(command, path: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], Any]]:
    """Commands without commands of their own, with what is typed to reach them."""
    below = getattr(command, "commands", None)
    return [(path, command)] if not below else [leaf for name, one in below.items() for leaf in leaves(one, (*path, name))]


def typed(argument) -> str:
    """An argument by its name, in brackets where it may be left out."""
    name = argument.metavar or argument.name.upper()
    return name if argument.required or name.startswith("[") else f"[{name}]"


def usual(default: object) -> str:
    """A default as it would be typed; nothing for a flag that is off and for what is not given."""
    if default is None or default is False or default == "" or callable(default):
        return ""
    return f"`{getattr(default, 'value', default)}`"


def pages() -> dict[Path, str]:
    """Every file that this script writes -> its text."""
    own = {PAGES / f"{environment_type(env_id).task_type.family}.md": page(env_id) for env_id in probegym.ENVIRONMENTS}
    return own | {PAGES / "index.md": overview(), FOLDER / "commands.md": commands(), README: readme()}


def take_over(run: Path) -> None:
    """Keep the table, the leaderboard, the figures and the report of a benchmark."""
    RESULTS.mkdir(exist_ok=True)
    for name in ("table.csv", "leaderboard.json"):
        shutil.copyfile(run / name, RESULTS / name)
    report = (run / "report.md").read_text(encoding="utf-8").replace("# Benchmark\n", "# Results\n\n`probegym benchmark --suite core`: [protocol](benchmark.md#protocol).\n", 1)
    drawn = re.findall(r"(<svg.*?</svg>)\s*<p class='note'>(.*?)</p>", (run / "report.html").read_text(encoding="utf-8"), re.DOTALL)
    for (title, name), (figure, caption) in zip(FIGURES.items(), drawn, strict=True):
        (IMAGES / name).write_text(figure + "\n", encoding="utf-8")
        report = report.replace(f"## {title}\n", f"## {title}\n\n![{title}](images/{name})\n\n*{caption}*\n", 1)
    RESULTS_PAGE.write_text(report, encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scores", type=Path, help="folder of a benchmark run to take the reference scores from")
    asked = parser.parse_args()
    if asked.scores:
        take_over(asked.scores)
    for place, written in pages().items():
        place.write_text(written, encoding="utf-8")
