"""What the reference shows: every public name has a docstring, and a function that refuses something says so in it."""

from __future__ import annotations

import ast
import functools
import re

import pytest

from tests.helpers import ROOT

PACKAGE = ROOT / "probegym"
FILES = sorted(path for path in PACKAGE.rglob("*.py") if "terminal" not in path.parts)
TOLD = re.compile(r"\b(?:[Rr]aises?|[Rr]efuse[sd]?|[\w.]*Error|[\w.]*Refused|InstrumentFault|must)\b")
PARTS = sorted(path.name for path in PACKAGE.iterdir() if path.is_dir() and path.name not in ("terminal", "__pycache__"))
NUMBERS = re.compile(r"\b(?:ndarray|ArrayLike|Tensor|float)\b")
UNIT = (
    r"(?<![\w.'])(?:[pnumkMG]?(?:m|s|g|eV|J|N(?! [a-z])|Pa|V|A(?! [a-z])|K|rad|Hz|S)|(?<=in )[pn]?[AN]|Angstrom|(?:nano)?metres?|volts?|[Ss]econds?|hours?|dB|bytes?"
    r"|pixels?|electrons|[Bb]onds|[Bb]ond lengths?|events of damage|sweeps|cycles|degrees|radii|decades|standard deviations?|nats|percent)\b"
)
NONE = r"\b(?:units?|shares?|ratios?|relative|fraction|success rate|probabilit(?:y|ies)|logarithms?|(?:from )?0 (?:to|and|or) 1|1 (?:when|where|if)|pure numbers?|loss|without (?:a )?unit)\b"
ITEM = r"(?:\.\.\.|\*?\w+(?: (?:[-+*x] )?\w+)?)"
SHAPE = rf"\((?:{ITEM},(?: {ITEM},?)*|\.\.\.)\)|\b(?:any shape|shapes that broadcast|the shape of|same shape)\b"
MEASURED = re.compile(rf"{UNIT}|{NONE}|{SHAPE}")
"""A unit or a shape, or that there is none."""


@functools.cache
def classes() -> dict[str, list[ast.ClassDef]]:
    """All classes by name."""
    found: dict[str, list[ast.ClassDef]] = {}
    for path in FILES:
        for one in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(one, ast.ClassDef):
                found.setdefault(one.name, []).append(one)
    return found


def inherited(bases: list[ast.expr], method: str, seen: frozenset[str] = frozenset()) -> str:
    """What classes, and those that they inherit from, say of a method."""
    told = ""
    for name in {ast.unparse(base).split("[")[0].split(".")[-1] for base in bases} - seen:
        for one in classes().get(name, []):
            told += " ".join(ast.get_docstring(part) or "" for part in one.body if isinstance(part, ast.FunctionDef) and part.name == method)
            told += inherited(one.bases, method, seen | {name})
    return told


def public(path) -> list[tuple[ast.FunctionDef, str]]:
    """Public functions, and methods of public classes, that have a docstring (others are of a protocol, which has it).

    With that, that of their class, and of what they override.
    """
    tree = ast.parse(path.read_text(encoding="utf-8"))
    owners = [(tree, [], "")] + [(one, one.bases, ast.get_docstring(one) or "") for one in tree.body if isinstance(one, ast.ClassDef) and not one.name.startswith("_")]
    return [
        (one, f"{ast.get_docstring(one)} {told} {inherited(bases, one.name)}")
        for owner, bases, told in owners for one in owner.body if isinstance(one, ast.FunctionDef) and not one.name.startswith("_") and ast.get_docstring(one)
    ]  # fmt: skip


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_public_names_have_a_docstring(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    bare = [one.name for one in tree.body if isinstance(one, (ast.ClassDef, ast.FunctionDef)) and not one.name.startswith("_") and not ast.get_docstring(one)]
    assert not bare


def numbers(function: ast.FunctionDef) -> str:
    """What a function takes and gives if there are arrays or floats among it, with the help of a command's options; else nothing.

    What it only hands to a function that it is given does not count, nor what is called ``seconds`` and so says it.
    """
    given = [one for one in (*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs) if one.arg not in ("self", "cls", "seconds")]
    kinds = [ast.unparse(one.annotation) if one.annotation else "ndarray" for one in given] + [ast.unparse(function.returns or ast.Constant(None))]
    return " ".join(kinds) if any(NUMBERS.search(re.sub(r"Callable\[.*", "", kind)) for kind in kinds) else ""


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_a_function_of_numbers_says_units_or_shapes(path):
    assert not [function.name for function, told in public(path) if (kinds := numbers(function)) and not MEASURED.search(f"{told} {kinds}")]


@pytest.mark.parametrize("told", ["Time that this step took.", "A line's first and last value.", "N episodes of one task.", "The lane's own (see there)."])
def test_words_that_are_no_unit(told):
    assert not MEASURED.search(told) and not TOLD.search("By default this is trailing.")


@pytest.mark.parametrize("told", ["Force in N that pulls.", "Current in A at the end.", "(lanes,) bool.", "Places (..., 2).", "rates: 1/s.", "Shares of the budget: a share each."])
def test_words_that_are_one(told):
    assert MEASURED.search(told)


@pytest.mark.parametrize("place", PARTS)
def test_a_function_that_refuses_says_so(place):
    silent = []
    for path in sorted((PACKAGE / place).rglob("*.py")):
        for function, told in public(path):
            if any(isinstance(node, ast.Raise) and node.exc for node in ast.walk(function)) and not TOLD.search(told):
                silent.append(f"{path.name}: {function.name}")
    assert not silent
