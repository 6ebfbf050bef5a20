"""Pages of the documentation and their blocks; ``python -m tests.pages PAGE`` runs the blocks of one page in order and compares what they print."""

from __future__ import annotations

import contextlib
import io
import re
import shutil
import sys
import textwrap
import types
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

from tests.helpers import ROOT

PAGES = sorted([*ROOT.glob("*.md"), ROOT / "benchmarks" / "README.md", *(ROOT / "docs").rglob("*.md")])
FENCE = re.compile(r"^(?P<indent> *)```(?P<info>[^\n`]*)\n(?P<body>.*?)^(?P=indent)```[ ]*$", re.DOTALL | re.MULTILINE)


def name(page: Path) -> str:
    """Path within the repository."""
    return page.relative_to(ROOT).as_posix()


@dataclass(frozen=True)
class Block:
    """A fenced block. printed: the ```text block right behind it, which is what it prints; None where there is none."""

    info: str
    body: str
    line: int
    printed: str | None

    @property
    def place(self) -> str:
        """The file of the repository that a first line of comment says this block is."""
        found = re.match(r"# (probegym/[\w/]+\.(?:py|yaml))\n", self.body)
        return found[1] if found else ""


def blocks(text: str) -> list[Block]:
    """All fenced blocks of a page, in order."""
    found = list(FENCE.finditer(text))
    out = []
    for one, after in zip_longest(found, found[1:]):
        follows = after is not None and after["info"].strip() == "text" and not text[one.end() : after.start()].strip()
        body = textwrap.dedent(one["body"])
        out.append(Block(one["info"].strip(), body, text.count("\n", 0, one.start()) + 1, after["body"] if follows else None))
    return out


ENVIRONMENT = """
import gymnasium
import probegym
from probegym.agents.baselines_stm import FixedRecipe
env, agent = gymnasium.make("probegym/TipConditioning-v0", scenario="id"), FixedRecipe()
env.reset(seed=1)
"""
DATA_SET = """
import os
os.environ["MINARI_DATASETS_PATH"] = os.path.abspath("sets")
from probegym.agents import datasets
from probegym.cli import app
datasets.references = lambda env_id, scenario, progress: (0.0, 1.0)
app(["record", "dataset", "--env", "TipConditioning", "--agent", "fixed-recipe", "--scenario", "train", "--episodes", "2", "--seed", "0"], standalone_mode=False)
"""
GUARD = """
import atexit
from pathlib import Path
from probegym import scenarios
from probegym.hardware_bridge.guard import process
from probegym.hardware_bridge.guard.ledger import Budget, Ledger
from probegym.hardware_bridge.instruments import twin as twins
from tests.guard_helpers import REQUEST as request
Ledger.create(Path("sample"), Budget(dose=1e9, changes=10, instrument="hot-stage twin")).close()
twin = twins.start("probegym.hardware_bridge.twins.ising:IsingTwin", scenarios.load("ising_inference", "train").world)
guard = process.start(twin.reached, "sample", "runs", "a test", {})
descriptor = None
atexit.register(twin.__exit__, None, None, None)
"""
ADDED = """
import io
import sys
from contextlib import redirect_stdout
from probegym.cli import app
from tests.test_docs_links import loaded

def told(*words, typed=""):
    sys.stdin, out = io.StringIO(typed), io.StringIO()
    with redirect_stdout(out):
        assert app(list(words), standalone_mode=False) == 0
    return out.getvalue()

assert "probegym/FocusTuning-v0" in (listed := told("list")) and "scripts: none" in listed
played = told("play", "FocusTuning", "--seed", "1", typed="d\\n\\nq\\n")
assert all(who in played for who in ("you", "random", "oracle")), played
generate = loaded("generate")
page = generate.page("probegym/FocusTuning-v0")
assert all(told in page for told in ("a bound. |", "| `defocus` | m |", "`reward_progress`", "`near-dose`")), page
"""
PREPARED = {"docs/counterfactuals.md": ENVIRONMENT, "docs/datasets.md": DATA_SET, "docs/operator_page.md": GUARD}
"""What a page takes for granted before its first block."""
AFTERWARDS = {"docs/add_an_environment.md": ADDED}
"""What must hold when a page has run."""
SMALLER = {
    "docs/counterfactuals.md": {"episodes=100": "episodes=2"},
    "docs/scale_out.md": {'executor("ray")': 'executor("local")', '"/shared/': '"', '"to": 60, "seconds": 1.0': '"to": 2, "seconds": 0.01'},
}  # fmt: skip
"""What is made smaller, or local, so that a page runs in a test."""


def register(text: str) -> None:
    """Register what a page says is a line of ``ENVIRONMENTS``, as ``probegym/__init__.py`` would."""
    import gymnasium

    import probegym

    for name, place in re.findall(r'`"(probegym/\w+-v\d+)": "([\w.]+:\w+)"`', text):
        probegym.ENVIRONMENTS[name] = place
        gymnasium.register(id=name, entry_point=place, vector_entry_point=f"{place}Vector")


def put(block: Block, at: Path) -> None:
    """A block that says which file it is stands there for the blocks after it: a module, or a scenario file."""
    if block.place.endswith(".yaml"):
        from probegym import scenarios

        folder = at / "scenarios"
        if scenarios.FOLDER != folder:
            shutil.copytree(scenarios.FOLDER, folder, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
            scenarios.FOLDER = folder
        (folder / Path(block.place).name).write_text(block.body, encoding="utf-8")
        return
    dotted = block.place.removesuffix(".py").replace("/", ".")
    sys.modules[dotted] = module = types.ModuleType(dotted)
    exec(compile(block.body, block.place, "exec"), module.__dict__)


def run(page: str) -> None:
    """Run the Python blocks of a page in one namespace; raises AssertionError where one prints something else than the page says."""
    text = (ROOT / page).read_text(encoding="utf-8")
    for old, new in SMALLER.get(page, {}).items():
        assert old in text, f"{page} no longer has {old!r}: take it out of SMALLER"
        text = text.replace(old, new)
    register(text)
    held: dict = {"__name__": "__page__"}
    exec(compile(PREPARED.get(page, ""), "prepared", "exec"), held)
    for block in blocks(text):
        if block.place:
            put(block, Path.cwd())
        elif block.info == "python":
            told = io.StringIO()
            with contextlib.redirect_stdout(told):
                exec(compile("\n" * block.line + block.body, page, "exec"), held)
            assert block.printed is None or told.getvalue().strip() == block.printed.strip(), f"{page}, line {block.line}, prints\n{told.getvalue()}"
    exec(compile(AFTERWARDS.get(page, ""), "afterwards", "exec"), held)


if __name__ == "__main__":
    for asked in sys.argv[1:]:
        run(asked)
