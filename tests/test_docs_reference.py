"""What the reference shows: every public name has a docstring, and a function that refuses something says so in it."""

from __future__ import annotations

import ast
import re

import pytest

from tests.helpers import ROOT

PACKAGE = ROOT / "probegym"
FILES = sorted(path for path in PACKAGE.rglob("*.py") if "terminal" not in path.parts)
TOLD = re.compile(r"rais|refus|error|fault|must", re.IGNORECASE)
OWN = re.compile(r"ProbeGymError|ValueError|MemoryError|Refused|InstrumentFault|ScenarioError|RecordError|Malformed")
PARTS = sorted(path.name for path in PACKAGE.iterdir() if path.is_dir() and path.name not in ("terminal", "__pycache__"))
MEASURED = re.compile(
    r"(?<![\w.])(?:[kM]?(?:m|nm|s|eV|J|N|Pa|V|A|K|rad|mrad|Hz|S|kg)|Angstrom|metres?|pixels?|electrons|bonds|sites|cycles|degrees|radii|shares?|decades|units?)\b"
    r"|\((?:lanes|maps|places|\.\.\.|[a-z]+,|[a-z]+ x|\d+,|\d\^n,)|any shape|of shapes that broadcast|both relative|of the shape of"
)
"""A unit or a shape, or that there is none."""


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


@pytest.mark.parametrize("path", [path for path in FILES if path.is_relative_to(PACKAGE / "physics") or path.is_relative_to(PACKAGE / "rewards")], ids=lambda p: p.stem)
def test_a_function_of_numbers_says_units_or_shapes(path):
    silent = []
    for function, told in public(path):
        given = [one.annotation for one in (*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs) if one.arg not in ("self", "cls")]
        kinds = [ast.unparse(kind) if kind else "np.ndarray" for kind in given] + [ast.unparse(function.returns or ast.Constant(None))]
        if re.search("ndarray|ArrayLike|float", " ".join(kinds)) and not MEASURED.search(told):
            silent.append(function.name)
    assert not silent


@pytest.mark.parametrize("place", PARTS)
def test_a_function_that_refuses_says_so(place):
    silent = []
    for path in sorted((PACKAGE / place).rglob("*.py")):
        for function, told in public(path):
            raised = [node for node in ast.walk(function) if isinstance(node, ast.Raise) and node.exc and OWN.search(ast.unparse(node.exc))]
            if raised and not TOLD.search(told):
                silent.append(f"{path.name}: {function.name}")
    assert not silent
