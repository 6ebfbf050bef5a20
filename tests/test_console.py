"""What commands print shows names as they are, also those that rich would take for markup."""

from __future__ import annotations

import ast
import io
import shutil

import pytest
from rich.table import Table

from probegym.agents.bundle import SHIPPED
from probegym.console import bar, plain
from tests.helpers import ROOT
from tests.terminal import call

NAME = "[red]x[/red] :smile:"


def test_text_is_shown_as_it_is():
    console = plain(file=io.StringIO(), width=120)
    table = Table(NAME, title=NAME)
    table.add_row(NAME)
    console.print(NAME, style="bold")
    console.print(table)
    with bar(console) as progress:
        progress.update(progress.add_task(NAME, total=1, told=NAME), completed=1)
    assert console.file.getvalue().count(NAME) == 6


@pytest.mark.parametrize(
    "arguments",
    [
        ("scenarios", "StemTuning", "--file", "[red]x.yaml"),
        ("show", "[red]x"),
        ("show", "StemTuning", "--scenario", "[red]x"),
        ("evaluate", "--agent", "[red]x"),
        ("export", "[red]x", "--out", "y"),
        ("benchmark", "--suite", "[red]x"),
    ],
    ids=lambda given: given[0],
)
def test_an_error_shows_a_name_as_it_is(arguments):
    done = call(*arguments)
    assert done.exit_code == 2 and "[red]x" in done.output


def test_a_policy_whose_folder_has_brackets_is_measured_under_its_name(tmp_path, monkeypatch):
    folder = shutil.copytree(SHIPPED / "level-selection", tmp_path / "[red]x")
    monkeypatch.chdir(tmp_path)  # a short name
    done = call("evaluate", "--env", "LevelSelection", "--agent", folder.name, "--episodes", "1")
    assert done.exit_code == 0 and "[red]x" in done.output


COMMANDS = [ROOT / "probegym/cli.py", ROOT / "probegym/agents/demo.py", *sorted((ROOT / "probegym/terminal").rglob("*.py"))]


@pytest.mark.parametrize("path", COMMANDS, ids=lambda path: path.stem)
def test_every_console_is_plain(path):
    made = [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)]
    assert not {ast.unparse(call.func).rpartition(".")[2] for call in made} & {"Console", "TextColumn", "from_markup"}
