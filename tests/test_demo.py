"""The demo with sizes of seconds: the report is complete, stands alone, and replaces the one before it."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from io import BytesIO

import pytest
import torch
from PIL import Image

from probegym.agents import demo, files
from probegym.agents.demo_page import ticks
from probegym.console import plain
from probegym.errors import ProbeGymError

pytestmark = pytest.mark.xdist_group("demo")  # one process makes what its tests share

TINY = demo.DemoSettings(updates=30, lanes=16, evaluations=2, live_episodes=8, episodes=8, scripts=("coordinate-descent",), script_episodes=1)


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    torch.set_num_threads(1)
    out = tmp_path_factory.mktemp("runs") / "demo"
    console = plain(file=open(out.parent / "told.txt", "w"), width=160)
    demo.run(out, TINY, console)
    console.file.close()
    return out


VOID = ("meta", "img", "br", "hr", "line", "rect", "circle", "polyline")


class Page(HTMLParser):
    """Tags, what they point to, and text."""

    def __init__(self, text: str):
        super().__init__()
        self.open: list[str] = []
        self.images: list[str] = []
        self.links: list[str] = []
        self.words: list[str] = []
        self.tags: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        if tag not in VOID:
            self.open.append(tag)
        for name, value in attrs:
            if tag == "img" and name == "src":
                self.images.append(value)
            elif name in ("src", "href", "srcset", "data", "action", "xlink:href"):
                self.links.append(value)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


def test_report_stands_alone(report):
    text = (report / "index.html").read_text()
    page = Page(text)
    assert page.open == [] and page.links == [] and not page.tags & {"script", "link", "iframe", "object"}
    assert page.images and all(image.startswith("data:image/") for image in page.images)
    assert "http" not in text and "url(" not in text and "@import" not in text


@pytest.mark.parametrize("values", [[0.0, 1.0], [-2.16, -0.2], [3.0, 3.0], [0.0, 5000.0], [-1e-7, 2e-7]])
def test_ticks_are_few_and_enclose(values):
    marks = ticks(values)
    assert 2 <= len(marks) <= 7 and marks[0] <= min(values) and marks[-1] >= max(values) and marks[0] < marks[-1]


def test_every_picture_opens(report):
    import base64

    for uri in Page((report / "index.html").read_text()).images:
        Image.open(BytesIO(base64.b64decode(uri.partition("base64,")[2]))).load()


def test_report_is_complete(report):
    text = "".join(Page((report / "index.html").read_text()).words)
    for part in ("Before and after", "Learning curve", "Comparison on unseen seeds", "the agent trained just now", "oracle", "random", "coordinate-descent",
                 "stem-tuning-ronchigram", "stem-tuning-haadf", "success on unseen columns", "seed"):  # fmt: skip
        assert part in text, part


def test_the_animation_moves(report):
    with Image.open(report / "episode.gif") as animation:
        assert animation.n_frames > 1 and animation.info["loop"] == 0


def test_results_hold_every_row(report):
    results = json.loads((report / "results.json").read_text(), parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert {row["agent"] for row in results["rows"]} >= {"the agent trained just now", "oracle", "random", "coordinate-descent", *TINY.shipped}
    assert all(row["summary"] or row["note"] for row in results["rows"])
    assert len(results["curve"]["success"]) == 2 and results["curve"]["loss"][-1][0] == TINY.updates
    assert set(results["timings"]) == {"training", "export", "policies", "scripts", "pictures"}


def test_the_live_agent_is_there_as_a_policy(report):
    from probegym.agents.bundle import BundlePolicy

    assert BundlePolicy(report / "policy").spec["scenario"] == "train"
    assert sorted(path.name for path in report.iterdir()) == ["episode.gif", "index.html", "policy", "results.json", "training"]
    assert [path.name for path in report.parent.iterdir() if path.name.startswith(".")] == []


# ---- where it writes ----


def test_an_earlier_report_is_replaced_whole(tmp_path):
    out = tmp_path / "demo"
    for content in ("first", "second"):
        with files.replaced(out) as folder:
            (folder / files.MARK).write_text(content)
            (folder / content).touch()
    assert sorted(path.name for path in out.iterdir()) == [files.MARK, "second"] and list(tmp_path.iterdir()) == [out]


@pytest.mark.parametrize("trouble", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_nothing_half_written_stays(tmp_path, trouble):
    out = tmp_path / "demo"
    with files.replaced(out) as folder:
        (folder / files.MARK).write_text("first")
    with pytest.raises((KeyboardInterrupt, ProbeGymError)), files.replaced(out) as folder:
        (folder / "half").touch()
        raise trouble
    assert [path.name for path in out.iterdir()] == [files.MARK] and list(tmp_path.iterdir()) == [out]


def test_a_folder_with_other_files_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(ProbeGymError, match="choose another with --out"):
        demo.run(tmp_path, TINY)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_full_disk_is_seen_before_the_work(tmp_path, monkeypatch):
    monkeypatch.setattr(files.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1_000_000})())
    with pytest.raises(ProbeGymError, match="1 MB left, 50 MB are needed"):
        demo.run(tmp_path / "runs" / "demo", TINY)
    assert list(tmp_path.iterdir()) == []
