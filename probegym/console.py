"""What commands print on. Names of files, scenarios and policies are shown as they are, even where rich would take them for its markup."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


def plain(**options: Any) -> Console:
    """A console that takes no text for markup or emoji and colours no numbers; further options are rich's."""
    return Console(markup=False, emoji=False, highlight=False, **options)


def say(console: Console, text: str, style: str = "", end: str = "\n") -> None:
    """Print text whose lines stay whole, so that what is copied or piped has no breaks of ours."""
    console.print(text, style=style, end=end, soft_wrap=True)


def bar(console: Console, described: str = "{task.description}", width: int = 24) -> Progress:
    """A progress bar with room for what is told beside it: the field ``told`` of its tasks. width: characters."""
    times = (TimeElapsedColumn(), TimeRemainingColumn()) if console.is_terminal else (TimeElapsedColumn(),)
    columns = (TextColumn(described, markup=False), BarColumn(width), MofNCompleteColumn(), *times, TextColumn("{task.fields[told]}", markup=False))
    return Progress(*columns, console=console)
