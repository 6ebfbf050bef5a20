"""Takes every check and every rule of the guard out, one at a time, and sees to it that a test fails: ``python benchmarks/guard_mutations.py [WORD ...]``.

A word runs those mutants only whose name or file holds it. Works on a copy of the package in a scratch folder; every mutant gets a fork of
this process, which has imported all but the package. Exits with 1 when a mutant survives.
"""

from __future__ import annotations

import importlib
import os
import re
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

import pytest
from guard_mutants import BRIDGE, MUTANTS

ROOT = Path(__file__).parents[1]
RULES = [f"tests/test_guard_{name}.py" for name in ("checks", "budgets", "gate", "arming", "outcomes", "faults", "ledger", "properties", "histories")]
LIVE = [f"tests/test_{name}.py" for name in ("guard_clients", "guard_process_faults", "bridge_faults", "guard_process")]  # threads, connections, processes
FIRST = {
    "gate": "guard_gate", "states": "guard_faults", "checks": "guard_budgets", "ledger": "guard_ledger", "requests": "guard_gate", "capabilities": "guard_checks",
    "codec": "guard_checks", "process": "process_faults", "guardian": "process_faults", "drivers": "process_faults", "host": "bridge_faults", "wire": "bridge_faults",
}  # fmt: skip  # module -> tests of which one is likely to fail; of others those of clients
RULED = ("gate", "states", "checks", "ledger", "requests", "capabilities", "codec")  # what RULES can tell, without threads and processes
CLIENTS = ("session", "notes", "operator", "strangers")
HELPERS = ("__init__", "helpers", "guard_helpers", "guard_process_helpers")
IMPORTED = ("hypothesis.stateful", "_hypothesis_pytestplugin", "pytest_timeout", "numpy", "pydantic", "scipy.constants", "gymnasium")
MOST_SECONDS = 300  # for the tests of one mutant


def mutated(name: str, root: Path) -> tuple[Path, str]:
    """File and text of a mutant of the package in a folder; raises SystemExit where its place is not there exactly once."""
    path, old, new = MUTANTS[name]
    text = (root / path).read_text(encoding="utf-8")
    if text.count(old) != 1:
        raise SystemExit(f"mutant {name!r}: its text occurs {text.count(old)} times in {path}: bring the list up to date")
    return path, text.replace(old, new)


def copied(scratch: Path) -> None:
    """A package of its own in a folder: what is mutated copied, the rest linked."""
    (scratch / BRIDGE).mkdir(parents=True)
    for folder, own in ((Path("probegym"), {"hardware_bridge"}), (BRIDGE, {path.relative_to(BRIDGE).parts[0] for path, _, _ in MUTANTS.values()})):
        for entry in (ROOT / folder).iterdir():
            if entry.name not in own | {"__pycache__"}:
                os.symlink(entry, scratch / folder / entry.name)
            elif entry.is_file():
                shutil.copy(entry, scratch / folder / entry.name)
            elif folder == BRIDGE and entry.name != "__pycache__":
                shutil.copytree(entry, scratch / folder / entry.name, ignore=shutil.ignore_patterns("__pycache__"))
    (scratch / "tests").mkdir()
    for name in ("pyproject.toml", *(f"tests/{name}.py" for name in HELPERS), *RULES, *LIVE):
        shutil.copy(ROOT / name, scratch / name)


def tests(name: str) -> list[str]:
    """What can tell a mutant, the likeliest first."""
    module, about = MUTANTS[name][0].stem, name.split(":")[0]
    first = "clients" if module == "process" and about in CLIENTS else FIRST.get(module, "clients")
    return sorted(RULES if module in RULED else LIVE, key=lambda test: first not in test)


def failing(scratch: Path, tests: list[str], fresh: bool = True) -> str:
    """The first test that fails on the package in a folder; empty when none does. ``fresh``: nothing is compiled for the next one."""
    told = scratch / "told.txt"
    child = os.fork()
    if not child:
        with open(told, "w") as stream:
            os.dup2(stream.fileno(), 1)
            os.dup2(stream.fileno(), 2)
        os.chdir(scratch)
        sys.path.insert(0, str(scratch))
        os.environ["PYTHONPATH"] = str(scratch)
        sys.dont_write_bytecode = fresh
        signal.alarm(MOST_SECONDS)
        code = 3
        try:
            code = int(pytest.main(["-x", "-q", "--noconftest", "-p", "tests.guard_helpers", "--tb=line", "-W", "ignore", *tests]))
        finally:
            sys.stdout.flush()
            os._exit(code)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return "took too long" if os.WTERMSIG(status) == signal.SIGALRM else f"died of signal {os.WTERMSIG(status)}"
    if os.WEXITSTATUS(status) == 0:
        return ""
    text = told.read_text(errors="replace")
    found = re.search(r"^(?:FAILED|ERROR) tests/(.+?)(?: - |$)", text, re.MULTILINE)
    return found[1] if found else " ".join(text.split())[-200:]


def main() -> int:
    """Print the table; 1 when a mutant survives."""
    chosen = [name for name in MUTANTS if not sys.argv[1:] or any(word in f"{name} {MUTANTS[name][0]}" for word in sys.argv[1:])]
    survivors, start = [], time.monotonic()
    for name in IMPORTED:
        importlib.import_module(name)
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        copied(scratch)
        mutants = {name: mutated(name, scratch) for name in chosen}
        originals = {path: (scratch / path).read_text(encoding="utf-8") for path, _ in mutants.values()}
        if first := failing(scratch, sorted({test for name in mutants for test in tests(name)}), fresh=False):
            raise SystemExit(f"the tests fail without any mutant: {first}")
        print(f"| {'taken out':50} | killed by |\n|{'-' * 52}|---|", flush=True)
        for name, (path, text) in mutants.items():
            (scratch / path).write_text(text, encoding="utf-8")
            killer = failing(scratch, tests(name))
            (scratch / path).write_text(originals[path], encoding="utf-8")
            survivors += [name] * (not killer)
            print(f"| {name:50} | {killer or 'NOTHING: IT SURVIVES'} |", flush=True)
    print(f"\n{len(mutants) - len(survivors)} of {len(mutants)} mutants killed in {time.monotonic() - start:.0f} s")
    return bool(survivors)


if __name__ == "__main__":
    sys.exit(main())
