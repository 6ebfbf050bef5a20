"""Takes the pictures of docs/play.md: ``python docs/make_images_play.py`` from the repository root, about a minute; needs Chromium."""

from __future__ import annotations

import io
import shutil
import tempfile
import threading
from pathlib import Path

from make_images_page import until
from playwright.sync_api import Browser, sync_playwright
from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

from probegym.console import plain
from probegym.terminal.game import Game
from probegym.terminal.play import Play
from probegym.terminal.play_page.board import Board
from probegym.terminal.play_page.server import PlayServer

FOLDER = Path(__file__).parent / "images"
SIZE = {"width": 1280, "height": 800}
COLUMNS, LINES = 118, 44
BEYOND = 0.3  # nm that the drag goes further than the goal
STYLE = """<style>body { margin: 8px; background: #0c0c0c; } pre { display: inline-block; }
pre, pre code { font-family: "DejaVu Sans Mono", monospace !important; font-size: 14px; line-height: 16px !important; }</style></head>"""


def page(browser: Browser) -> None:
    """Drags of an adatom to its goal, and the table."""
    with PlayServer(Board(Game("probegym/AdatomManipulation-v0", "id", 8))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        tab = browser.new_page(viewport=SIZE)
        tab.goto(server.url())
        tab.wait_for_selector(".part")
        pad, game = tab.locator(".part.place canvas").nth(1), server.board.game
        while not game.over:
            x, y = game.controls["end"].marks(game.observation, {})["goal"]
            box, before, further = pad.bounding_box(), game.steps, 1 + BEYOND / (x * x + y * y) ** 0.5
            pad.click(position={"x": box["width"] * (0.5 + further * x / 4), "y": box["height"] * (0.5 + further * y / 4)})  # 4 nm wide
            tab.click("#do")
            until(lambda before=before: game.steps > before)
        until(lambda: tab.inner_text("#result-title").startswith("You"))
        tab.screenshot(path=FOLDER / "play_page.png")
        server.shutdown()


def terminal(browser: Browser) -> None:
    """A STEM after a step of tuning."""
    shutil.get_terminal_size = lambda fallback=(0, 0): (COLUMNS, LINES)  # type: ignore[assignment,misc,return-value]
    shown = io.StringIO()
    with tempfile.TemporaryDirectory() as scratch:
        play = Play(Game("probegym/StemTuning-v0", "both", 5), Path(scratch), plain(file=shown, force_terminal=True, color_system="truecolor", width=COLUMNS))
        for key in "2]]]\n4[[":
            play.game.press(key)
        play._photograph()
        play._draw(play.game.press("u"))
    painted = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    painted.print(Text.from_ansi(shown.getvalue().split("\x1b[H")[-1]), soft_wrap=True)
    tab = browser.new_page(viewport=SIZE)
    tab.set_content(painted.export_html(theme=MONOKAI, inline_styles=True).replace("</head>", STYLE))
    tab.locator("pre").screenshot(path=FOLDER / "play_terminal.png")


def main() -> None:
    """Both pictures."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page(browser)
        terminal(browser)


if __name__ == "__main__":
    main()
