"""What the pages tell others to run runs: every block of Python, every `probegym` line, every file that is named."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer

import probegym
from probegym import scenarios
from probegym.agents.bundle import shipped
from probegym.agents.registry import BASELINES
from probegym.cli import app
from probegym.envs import environment_type
from probegym.terminal.options import environment
from tests.helpers import ROOT
from tests.pages import PAGES, PREPARED, SMALLER, blocks, name

TEXTS = {name(page): page.read_text(encoding="utf-8") for page in PAGES}
WITH_CODE = [page for page, text in TEXTS.items() if any(block.info == "python" for block in blocks(text))]
ELSEWHERE = {
    "docs/programs.md": "tests/test_programs_text.py", "docs/records.md": "tests/test_records_export.py", "docs/write_a_driver.md": "tests/test_driver_pages.py",
    "docs/connect.md": "tests/test_driver_pages.py",
}  # fmt: skip
"""Page -> the file of tests that runs its blocks, and more."""
NOT_RUN = {"docs/connect.md": "is typed into the Python console of a microscope's own Nion Swift"}
"""Page -> why a block of Python on it stands there as plain text and is not run."""
ENVIRONMENTS = [page for page in WITH_CODE if page.startswith("docs/environments/")]


def ran(*pages: str, folder: Path) -> None:
    """Run the blocks of pages in a process of their own, in an empty folder."""
    environ = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-m", "tests.pages", *pages], cwd=folder, env=environ, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.parametrize("page", [page for page in WITH_CODE if page not in {*ELSEWHERE, *ENVIRONMENTS}])
def test_a_page_runs_and_prints_what_it_says(page, tmp_path):
    if page == "docs/datasets.md":
        pytest.importorskip("minari")
    ran(page, folder=tmp_path)


def test_the_environments_pages_run(tmp_path):
    assert len(ENVIRONMENTS) == len(probegym.ENVIRONMENTS)
    ran(*ENVIRONMENTS, folder=tmp_path)


def test_pages_that_run_elsewhere_do():
    for page, tests in ELSEWHERE.items():
        assert page in WITH_CODE and Path(page).name in (ROOT / tests).read_text(encoding="utf-8")
    assert {*PREPARED, *SMALLER} <= {*WITH_CODE} - {*ELSEWHERE}


def test_no_python_hides_in_a_plain_block():
    hidden = {page for page, text in TEXTS.items() for block in blocks(text) if block.info == "" and re.search(r"^(?:from|import) \w+", block.body, re.MULTILINE)}
    assert hidden == {*NOT_RUN}, "say ```python, or why it cannot run"


# ---- the command line ----


def lines(text: str) -> list[str]:
    """Every line that begins with ``probegym``, of blocks and of indented text."""
    found = [line for block in blocks(text) if block.info in ("", "bash", "text") for line in block.body.splitlines()]
    found += re.findall(r"^    (.*)$", text, re.MULTILINE)
    return list(dict.fromkeys(line.strip().removeprefix("$ ") for line in found if re.match(r"\s*(?:\$ )?probegym ", line)))


def reached(words: list[str]):
    """The command that the words name, and the words behind its name."""
    command, rest = typer.main.get_command(app), list(words)
    while getattr(command, "commands", None):
        assert rest and rest[0] in command.commands, f"probegym has no {' '.join(words)}"
        command = command.commands[rest.pop(0)]
    return command, rest


def unknown(command, words: list[str]) -> set[str]:
    """Options among the words that the command does not have."""
    known = {option for param in command.params for option in (*param.opts, *param.secondary_opts)} | {"--help"}
    return {word.split("=")[0] for word in words if word.startswith("--")} - known


LINES = [(page, line) for page, text in TEXTS.items() for line in lines(text)]


@pytest.mark.parametrize(("page", "line"), LINES, ids=[f"{Path(page).stem}-{k}" for k, (page, _) in enumerate(LINES)])
def test_a_command_on_a_page_is_one_that_there_is(page, line):
    words = shlex.split(line, comments=True)[1:]
    command, rest = reached(words)
    if "..." in rest or "[" in line:  # a line that leaves something out, or a usage
        assert unknown(command, [word.strip("[]") for word in rest]) == set()
        return
    given = command.make_context(command.name, rest).params  # parses as the command line does; raises for what it does not know
    if given.get("env") and environment(given["env"].split(",")[0]):
        family = environment_type(environment(given["env"])).task_type.family
        asked = given.get("scenario")
        assert asked is None or ":" in asked or asked in scenarios.names(family), f"{page}: {asked} is no scenario"
    known = {*shipped(), *(agent for of in BASELINES.values() for agent in of)}
    for option in ("agent", "policy"):
        for asked in str(given.get(option) or "").split(","):
            assert not asked or "/" in asked or asked in known, f"{page}: {asked} does not ship"


@pytest.mark.parametrize("page", TEXTS)
def test_a_command_in_a_sentence_is_one_that_there_is(page):
    prose = re.sub(r"^ *```.*?^ *```", "", TEXTS[page], flags=re.DOTALL | re.MULTILINE)
    for told in re.findall(r"`probegym ([a-z][^`]*)`", prose):
        words = [word for word in told.split() if word != "..."]
        command, rest = reached(words) if words[0] != "COMMAND" and len(words) > 1 else (None, [])
        if command is None:
            assert words[0] in typer.main.get_command(app).commands, f"{page}: probegym {told}"
            continue
        assert unknown(command, rest) == set(), f"{page}: probegym {told}"


# ---- files that are named ----

NAMED = re.compile(r"(?<![\w/.])((?:benchmarks|tests|docs|notebooks|probegym|agents|physics|envs|surrogates|scenarios|hardware_bridge|records|guard|page|instruments)/"
                   r"[\w/]+\.(?:py|md|yaml|ipynb))")  # fmt: skip


@pytest.mark.parametrize("page", TEXTS)
def test_files_that_a_page_names_are_there(page):
    made = {block.place for block in blocks(TEXTS[page])}  # by the page itself
    package = ROOT / "probegym"
    for told in NAMED.findall(TEXTS[page]):
        there = any((folder / told).exists() for folder in (ROOT, package, package / "hardware_bridge"))
        assert there or told in made or f"probegym/{told}" in made, f"{page} names {told}"
