"""Links of the pages lead somewhere, and what is generated is what the code says now."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
import yaml

from tests.helpers import ROOT
from tests.pages import PAGES, name

DOCS = ROOT / "docs"


def loaded(file: str):
    """A script of docs/ as a module."""
    spec = importlib.util.spec_from_file_location(f"docs_{file}", DOCS / f"{file}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def plain(text: str) -> str:
    """A page without its blocks and code."""
    return re.sub(r"`[^`\n]*`", "", re.sub(r"^ *```.*?^ *```", "", text, flags=re.DOTALL | re.MULTILINE))


def anchors(page: Path) -> set[str]:
    """Of its headings, as GitHub and MkDocs both make them."""
    text = re.sub(r"^ *```.*?^ *```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    titles = [re.sub(r"`|\[([^\]]*)\]\([^)]*\)", r"\1", title) for title in re.findall(r"^#+ (.+)$", text, re.MULTILINE)]
    return {re.sub(r"\s+", "-", re.sub(r"[^\w\s-]", "", title.strip().lower())) for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", plain(page.read_text(encoding="utf-8"))):
        if target.startswith("https://"):
            continue
        place, _, anchor = target.partition("#")
        there = (page.parent / place).resolve() if place else page
        assert there.exists() and there.is_relative_to(ROOT), f"{name(page)} links to {target}"
        assert not anchor or anchor in anchors(there), f"{name(page)}: {there.name} has no heading #{anchor}"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_lists_are_lists_for_mkdocs_too(page):
    """It wants an empty line before a list, and four spaces before a block within an item."""
    text = page.read_text(encoding="utf-8")
    assert not re.search(r"^ {1,3}```", text, re.MULTILINE), f"{name(page)}: indent a block of a list by four spaces"
    assert not re.search(r"^ {4}```\n(?:\d+\.|-) ", text, re.MULTILINE), f"{name(page)}: an empty line behind a block of a list"
    for before, line in pairwise(plain(text).splitlines()):
        begins = re.match(r"[-*] |\d+\. ", line) and before.strip() and not re.match(r"\s|[-*] |\d+\. |#", before)
        assert not begins, f"{name(page)}: an empty line is missing before {line!r}"


def test_every_page_is_in_the_navigation_and_once():
    listed: list[str] = []

    def walk(entry) -> None:
        for one in entry if isinstance(entry, list) else entry.values() if isinstance(entry, dict) else []:
            walk(one)
        if isinstance(entry, str):
            listed.append(entry)

    class Loader(yaml.SafeLoader):
        pass

    Loader.add_multi_constructor("", lambda loader, suffix, node: None)  # tags that MkDocs knows
    walk(yaml.load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"), Loader)["nav"])
    hooks = loaded("hooks")
    made = {f"api/{page}.md" for page in hooks.API} | {*hooks.ELSEWHERE}
    assert sorted(listed) == sorted(made | {page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md")})


def test_generated_pages_are_up_to_date():
    for place, text in loaded("generate").pages().items():
        assert place.read_text(encoding="utf-8") == text, f"{name(place)} is out of date: python docs/generate.py"


def test_the_reference_has_every_module_once_but_those_of_the_terminal_and_the_pictures():
    hooks = loaded("hooks")
    found = [module for _, places in hooks.API.values() for module in hooks.modules(places)]
    every = {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in (ROOT / "probegym").rglob("*.py") if path.stat().st_size}
    left_out = {module for module in every if module.startswith(("probegym.terminal", "probegym.envs.pictures"))}
    assert sorted(found) == sorted(every - left_out - {"probegym", "probegym.__main__", "probegym.cli", "probegym.console"})


@pytest.mark.parametrize(("told", "link"), [
    ("Susi (2016), 10.1038/ncomms13040.", "[10.1038/ncomms13040](https://doi.org/10.1038/ncomms13040)."),
    ("(10.1016/S0167-5729(02)00077-8)", "([10.1016/S0167-5729(02)00077-8](https://doi.org/10.1016/S0167-5729(02)00077-8))"),
    ("arXiv:1511.02222", "[arXiv:1511.02222](https://arxiv.org/abs/1511.02222)"), ("`10.1000/code` and 10.5 nm", "`10.1000/code` and 10.5 nm"),
])  # fmt: skip
def test_identifiers_of_papers_become_links_outside_code(told, link):
    assert link in loaded("hooks").linked(told)


def test_identifiers_in_the_reference_become_links_once():
    html = '<p>Susi (2016, 10.1038/ncomms13040).</p><pre>10.1038/a</pre><a href="https://doi.org/10.1038/b">10.1038/b</a>'
    assert loaded("hooks").linked_html(html) == html.replace("10.1038/ncomms13040", '<a href="https://doi.org/10.1038/ncomms13040">10.1038/ncomms13040</a>')


@pytest.mark.parametrize(("place", "link", "there"), [
    ("benchmarks.md", "../docs/bridge.md#figures", "bridge.md#figures"), ("connect.md", "../notebooks/7_deploy.ipynb", "notebooks/7_deploy.md"),
    ("environments/afm_tuning.md", "../afm_tuning.md", "../afm_tuning.md"), ("notebooks/7_deploy.md", "../docs/images/afm_lines.png", "../images/afm_lines.png"),
    ("contributing.md", "docs/add_an_environment.md", "add_an_environment.md"), ("faq.md", "https://docs.ray.io", "https://docs.ray.io"),
])  # fmt: skip
def test_links_follow_their_page_into_the_site(place, link, there):
    assert loaded("hooks").moved(f"[see]({link})", place) == f"[see]({there})"


def test_the_site_builds_without_a_warning(tmp_path):
    pytest.importorskip("mkdocs")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0 and "WARNING" not in done.stderr, done.stderr[-3000:]
    assert 'href="https://doi.org/' in (tmp_path / "site" / "environments" / "stem_tuning.html").read_text(encoding="utf-8")
