"""What the reference shows: every public name has a docstring, and a function that refuses something says so in it."""

from __future__ import annotations

import ast
import re

import pytest

from tests.helpers import ROOT

PACKAGE = ROOT / "probegym"
FILES = sorted(path for path in PACKAGE.rglob("*.py") if "terminal" not in path.parts)
TOLD = re.compile(r"rais|refus|error|fault|must", re.IGNORECASE)
OWN = re.compile(r"ProbeGymError|ValueError|Refused|InstrumentFault|ScenarioError")
SAYS = ("physics", "surrogates", "rewards", "scenarios", "hardware_bridge/guard", "hardware_bridge/programs", "hardware_bridge/records", "hardware_bridge/page",
        "hardware_bridge/commands", "hardware_bridge/twins", "agents/benchmark", "agents/executors")  # fmt: skip
"""Packages all of whose public functions say which errors they raise."""


def public(path) -> list[tuple[ast.FunctionDef, str]]:
    """Public functions, and methods of public classes, that have a docstring (others are of a protocol, which has it); with that, and that of their class."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    owners = [(tree, "")] + [(one, ast.get_docstring(one) or "") for one in tree.body if isinstance(one, ast.ClassDef) and not one.name.startswith("_")]
    return [
        (one, f"{ast.get_docstring(one)} {told}")
        for owner, told in owners for one in owner.body if isinstance(one, ast.FunctionDef) and not one.name.startswith("_") and ast.get_docstring(one)
    ]  # fmt: skip


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_public_names_have_a_docstring(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    bare = [one.name for one in tree.body if isinstance(one, (ast.ClassDef, ast.FunctionDef)) and not one.name.startswith("_") and not ast.get_docstring(one)]
    assert not bare


@pytest.mark.parametrize("place", SAYS)
def test_a_function_that_refuses_says_so(place):
    silent = []
    for path in sorted((PACKAGE / place).rglob("*.py")):
        for function, told in public(path):
            raised = [node for node in ast.walk(function) if isinstance(node, ast.Raise) and node.exc and OWN.search(ast.unparse(node.exc))]
            if raised and not TOLD.search(told):
                silent.append(f"{path.name}: {function.name}")
    assert not silent
