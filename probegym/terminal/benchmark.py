"""``probegym benchmark``: agents in scenarios in and out of distribution, resumed where it stopped, and the report of it."""

from __future__ import annotations

import time
from pathlib import Path

from rich.console import Console
from rich.table import Table as Printed

from probegym.agents import executors, files
from probegym.agents.benchmark import jobs, report, results, rows, submission
from probegym.agents.benchmark import suite as suites
from probegym.agents.benchmark.results import Facts, Run
from probegym.agents.benchmark.suite import Suite
from probegym.console import say
from probegym.errors import ProbeGymError

NEEDED_BYTES = 200_000_000
FEW_SECONDS = 60  # of episodes, of which a share would tell of the starts alone
WIDE = 200  # columns


def chosen(name: str, environments: list[str], agents: list[str], seeds: int | None, episodes: int | None, folder: Path | None) -> Suite:
    """The suite that is meant; raises ProbeGymError."""
    suite = suites.load(name)
    suite = suite.model_copy(update={key: value for key, value in (("runs", seeds), ("episodes", episodes)) if value is not None})
    return (suite if folder is None else submission.entered(suite, folder, environments)).narrowed(environments, agents)


def run(suite: Suite, out: Path, executor: executors.Executor, console: Console) -> int:
    """Run what is not there yet and write the report; returns the exit code, 1 when runs are missing."""
    files.writable(out, NEEDED_BYTES)
    todo, planned = jobs.jobs(suite, out), jobs.planned(suite)
    before = {run.facts for run in results.found(out, planned)}
    say(console, f"{report.counted(len(todo), 'job')} to do, {report.counted(len(planned), 'run')} of {report.counted(suite.episodes, 'episode')} in all; raw results in {out / 'raw'}")
    begun, failed, busy = time.monotonic(), [], 0.0

    def told(outcome: executors.Outcome) -> None:
        nonlocal busy
        busy += outcome.seconds
        again = f", attempt {outcome.attempts}" if outcome.attempts > 1 else ""
        say(console, f"{outcome.name}: {f'{outcome.seconds:.0f} s{again}' if outcome.ok else f'FAILED{again}: {outcome.error.splitlines()[-1]}'}")
        failed.extend([] if outcome.ok else [outcome.name])

    try:
        executor.run(todo, told)
    except KeyboardInterrupt:
        say(console, f"interrupted: the same command goes on with what is not in {out / 'raw'} yet")
        raise
    found = results.found(out, planned)
    episodes = sum(run.seconds for run in found if run.facts not in before)
    beside = f"; {busy:.0f} s in them, {episodes:.0f} s of it episodes, the rest starts of processes and files" if episodes else ""
    beside += f": {busy / episodes - 1:.1%} beside the episodes" if episodes > FEW_SECONDS else ""
    say(console, f"all jobs: {time.monotonic() - begun:.0f} s{beside}")
    return max(_shown(suite, out, planned, found, console), int(bool(failed)))


def shown(suite: Suite, out: Path, console: Console) -> int:
    """Write the report of the raw results that there are, and print its summary; returns 1 when runs are missing."""
    planned = jobs.planned(suite)
    return _shown(suite, out, planned, results.found(out, planned), console)


def _shown(suite: Suite, out: Path, planned: list[Facts], found: list[Run], console: Console) -> int:
    if not found:
        raise ProbeGymError(f"{out} holds no runs of this suite: run it first")
    table = rows.table(suite, found, planned)
    report.write(table, out)
    if not console.is_terminal:
        console.width = max(console.width, WIDE)  # figures in a log are not cut
    for title, head, lines, _ in report.sections(table, environments=False):
        printed = Printed(title=title, title_justify="left", box=None, pad_edge=False, header_style="dim")
        for name in head:
            printed.add_column(name, overflow="fold")
        for line in lines:
            printed.add_row(*line)
        console.print(printed)
    if table.missing:
        say(console, f"missing: {report.counted(len(table.missing), 'run')}, the same command goes on")
    say(console, f"report in {out / 'report.html'}")
    return int(bool(table.missing))
