"""What MkDocs makes beside the files of this folder: pages of the code's docstrings, pages that live elsewhere in the repository, links of DOIs."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
ELSEWHERE = {"benchmarks.md": "benchmarks/README.md", "changelog.md": "CHANGELOG.md"} | {
    path.relative_to(ROOT).as_posix(): path.relative_to(ROOT).as_posix() for path in (ROOT / "notebooks").glob("*.ipynb")
}
"""Place in the site -> file of the repository."""
PICTURES = ("envs/pictures",)
"""Modules that only draw: not in the reference."""

API = {
    "envs": ("Environments", ("envs", "rewards")),
    "scenarios": ("Scenarios", ("scenarios", "errors.py", "tables.py")),
    "bridge": ("Commands and worlds", ("hardware_bridge/commands", "hardware_bridge/world.py", "hardware_bridge/codec.py", "hardware_bridge/capabilities.py",
                                       "hardware_bridge/channel.py", "hardware_bridge/clock.py")),
    "twins": ("Twins", ("hardware_bridge/twins",)),
    "programs": ("Programs", ("hardware_bridge/programs",)),
    "records": ("Records", ("hardware_bridge/records",)),
    "guard": ("Guard", ("hardware_bridge/guard", "hardware_bridge/page")),
    "instruments": ("Instruments", ("hardware_bridge/instruments",)),
    "deployment": ("Deployment", ("hardware_bridge/deployment",)),
    "physics": ("Physics", ("physics",)),
    "surrogates": ("Surrogates", ("surrogates",)),
    "agents": ("Agents", ("agents",)),
    "benchmark": ("Benchmark", ("agents/benchmark", "agents/executors")),
}  # fmt: skip
"""Page of the reference -> its title, and the packages and modules that stand on it."""

CODE = re.compile(r"(```.*?^\s*```|`[^`\n]*`|\]\([^)]*\))", re.DOTALL | re.MULTILINE)
DOI = re.compile(r"(?:arXiv:(\d{4}\.\d{4,5}))|\b(10\.\d{4,9}/[^\s,;]*[^\s,;.):])")


def modules(places: tuple[str, ...], every: dict[str, tuple[str, tuple[str, ...]]] = API) -> list[str]:
    """Dotted names of the modules of some places, empty ones aside; one that another page has to itself is left to that."""
    package = ROOT / "probegym"
    others = [package / place for _, found in every.values() for place in found if found != places]
    names = []
    for place in places:
        files = sorted((package / place).rglob("*.py")) if (package / place).is_dir() else [package / place]
        for path in files:
            taken = any(other in path.parents for other in others if (package / place) in other.parents)
            if path.stat().st_size and not taken and not path.relative_to(package).as_posix().startswith(PICTURES):
                names.append(".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"))
    return names


def on_files(files, config):
    """Add the pages that are made here."""
    from mkdocs.structure.files import File  # here, so that tests can read this file without MkDocs

    for place, source in ELSEWHERE.items():
        files.append(File.generated(config, place, abs_src_path=str(ROOT / source)))
    for name, (title, places) in API.items():
        text = f"# {title}\n\n" + "\n\n".join(f"::: {module}{_options(module)}" for module in modules(places)) + "\n"
        files.append(File.generated(config, f"api/{name}.md", content=text))
    return files


def _options(module: str) -> str:
    """An environment's class has a page of its own: here its docstring would stand a second time."""
    found = re.search(rf'"{re.escape(module)}:(\w+)"', (ROOT / "probegym" / "__init__.py").read_text(encoding="utf-8"))
    return f"\n    options:\n      filters: ['!^_', '!^{found[1]}(Vector)?$']" if found else ""


def on_page_markdown(markdown, page, config, files):
    """Links as they are in the repository become those of the site; identifiers of papers become links."""
    here = posixpath.dirname(page.file.src_uri)
    for place, source in ELSEWHERE.items():
        there = posixpath.relpath(f"/{source}", f"/docs/{here}" if page.file.src_uri not in ELSEWHERE else posixpath.dirname(f"/{ELSEWHERE[page.file.src_uri]}"))
        markdown = markdown.replace(f"]({there}", f"]({posixpath.relpath(f'/{place}', f'/{here}')}")
    return linked(markdown)


def linked(markdown: str) -> str:
    """DOIs and arXiv numbers outside code and links, as links."""
    pieces = CODE.split(markdown)
    return "".join(piece if index % 2 else DOI.sub(_link, piece) for index, piece in enumerate(pieces))


def _link(match: re.Match) -> str:
    arxiv, doi = match.groups()
    if arxiv:
        return f"[arXiv:{arxiv}](https://arxiv.org/abs/{arxiv})"
    doi += ")" * (doi.count("(") - doi.count(")"))
    return f"[{doi}](https://doi.org/{doi})"
