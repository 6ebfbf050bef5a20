"""What MkDocs makes beside the files of this folder: pages of the code's docstrings, pages that live elsewhere in the repository, links of DOIs."""

from __future__ import annotations

import json
import posixpath
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
ELSEWHERE = {"benchmarks.md": "benchmarks/README.md", "changelog.md": "CHANGELOG.md", "contributing.md": "CONTRIBUTING.md", "security.md": "SECURITY.md"} | {
    f"notebooks/{path.stem}.md": f"notebooks/{path.name}" for path in sorted((ROOT / "notebooks").glob("*.ipynb"))
}
"""Page of the site -> file of the repository that it is made of."""
PICTURES = ("envs/pictures",)
"""Modules that only draw: not in the reference."""

API = {
    "envs": ("Environments", ("envs", "rewards")),
    "scenarios": ("Scenarios", ("scenarios", "errors.py", "tables.py")),
    "bridge": ("Commands and worlds", ("hardware_bridge/__init__.py", "hardware_bridge/commands", "hardware_bridge/world.py", "hardware_bridge/codec.py", "hardware_bridge/capabilities.py",
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

LINK = re.compile(r"\]\((?![a-z]+:)([^)#\s]+)(#[^)\s]*)?\)")
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
        text = (ROOT / source).read_text(encoding="utf-8")
        files.append(File.generated(config, place, content=notebook(text) if source.endswith(".ipynb") else text))
    for name, (title, places) in API.items():
        text = f"# {title}\n\n" + "\n\n".join(f"::: {module}{_options(module)}" for module in modules(places)) + "\n"
        files.append(File.generated(config, f"api/{name}.md", content=text))
    return files


def _options(module: str) -> str:
    """An environment's class has a page of its own: here its docstring would stand a second time."""
    found = re.search(rf'"{re.escape(module)}:(\w+)"', (ROOT / "probegym" / "__init__.py").read_text(encoding="utf-8"))
    return f"\n    options:\n      filters: ['!^_', '!^{found[1]}(Vector)?$']" if found else ""


def notebook(text: str) -> str:
    """A notebook as a page: cells, what they printed, pictures."""
    parts = []
    for cell in json.loads(text)["cells"]:
        source = "".join(cell["source"])
        parts.append(source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```")
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            if "image/png" in data:
                parts.append(f"![picture](data:image/png;base64,{''.join(data['image/png']).strip()})".replace("\n", ""))
            elif printed := "".join(output.get("text", data.get("text/plain", ""))).strip():
                parts.append(f"```text\n{printed}\n```")
    return "\n\n".join(parts) + "\n"


def on_page_markdown(markdown, page, config, files):
    """Links as they are in the repository become those of the site; identifiers of papers become links."""
    return linked(moved(markdown, page.file.src_uri))


def moved(markdown: str, place: str) -> str:
    """Relative links of a page as the site has them. place: of the page in the site."""
    source, there = posixpath.dirname(ELSEWHERE.get(place, f"docs/{place}")), {file: page for page, file in ELSEWHERE.items()}

    def target(match: re.Match) -> str:
        file, anchor = posixpath.normpath(posixpath.join(source, match[1])), match[2] or ""
        in_site = there.get(file) or (file.removeprefix("docs/") if file.startswith("docs/") else None)
        return f"]({posixpath.relpath(in_site, posixpath.dirname(place) or '.')}{anchor})" if in_site else match[0]

    return LINK.sub(target, markdown)


def linked(markdown: str) -> str:
    """DOIs and arXiv numbers outside code and links, as links."""
    pieces = CODE.split(markdown)
    return "".join(piece if index % 2 else DOI.sub(lambda match: "[{}]({})".format(*_identifier(match)), piece) for index, piece in enumerate(pieces))


def on_page_content(html, page, config, files):
    """Docstrings become pages after the Markdown was read, so their identifiers are linked here."""
    return linked_html(html) if page.file.src_uri.startswith("api/") else html


def linked_html(html: str) -> str:
    """DOIs and arXiv numbers outside code and links, as links."""
    out, closed = [], ""  # closed: the tag that must end before anything is linked again
    for piece in re.split(r"(<[^>]+>)", html):
        tag = re.match(r"<(a|code|pre)\b", piece)
        if closed:
            closed = "" if piece == f"</{closed}>" else closed
        elif tag:
            closed = tag[1]
        elif not piece.startswith("<"):
            piece = DOI.sub(lambda match: '<a href="{1}">{0}</a>'.format(*_identifier(match)), piece)
        out.append(piece)
    return "".join(out)


def _identifier(match: re.Match) -> tuple[str, str]:
    """What is shown, and where it leads."""
    arxiv, doi = match.groups()
    if arxiv:
        return f"arXiv:{arxiv}", f"https://arxiv.org/abs/{arxiv}"
    doi += ")" * (doi.count("(") - doi.count(")"))
    return doi, f"https://doi.org/{doi}"
