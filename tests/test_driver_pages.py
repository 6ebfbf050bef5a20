"""The pages for those who connect an instrument: their code runs, and prints what they say."""

from __future__ import annotations

import contextlib
import io
import re
import subprocess
import sys

import pytest

from probegym.hardware_bridge.instruments import contract
from tests.helpers import ROOT

DRIVER, CONNECT = ROOT / "docs/write_a_driver.md", ROOT / "docs/connect.md"


def code_of(text: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


def run(code: str) -> dict:
    held: dict = {}
    exec(compile(code, DRIVER.name, "exec"), held)
    return held


@pytest.fixture(scope="module")
def page() -> str:
    return DRIVER.read_text(encoding="utf-8")


def test_the_small_driver_keeps_the_contract_as_the_page_says(page):
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        run("\n".join(code_of(page)))
    said = re.search(r"\n    (\['describes_itself.*\])\n", page)
    assert printed.getvalue().strip() == said[1] == str([check.__name__ for check in contract.CHECKS if check not in contract.BEAM])


TAKEN_OUT = {
    "self.descriptor.check(command)": "refuses_what_is_outside", "self.stop.set()": "stops_at_once", "self.on = False": "the safe state is not read back",
    'raise Refused("it was made safe while it got ready")': "stays_safe_while_getting_ready",
}  # fmt: skip


def test_the_page_names_the_lines_that_are_taken_out_here(page):
    sentence = re.search(r"Take one of these lines out and see: (.*?) with the `if`", page, re.DOTALL)
    assert re.findall(r"`([^`]+)`", sentence[1]) == list(TAKEN_OUT)


@pytest.mark.parametrize("line", TAKEN_OUT)
def test_what_the_page_says_to_take_out_is_noticed(page, line, monkeypatch):
    monkeypatch.setattr(contract, "FREED_SECONDS", 0.3)
    driver, tried = code_of(page)
    without = re.sub(rf"(?: +if [^\n]*:\n)? +{re.escape(line)}[^\n]*\n", "", driver)
    assert driver.count(line) == 1 and line not in without
    with pytest.raises(contract.ContractBroken, match=TAKEN_OUT[line]):
        run(without + tried)


def test_the_script_in_nions_own_api_prints_what_the_page_says():
    """In a process of its own, as the vendor's stack is started in it."""
    pytest.importorskip("nion.instrumentation")
    text = CONNECT.read_text(encoding="utf-8")
    (script,) = [code for code in code_of(text) if "nion.twin" in code]
    said = re.search(re.escape(script) + r"```\n\n((?:    .+\n)+)", text)[1]
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.split() == said.split()
