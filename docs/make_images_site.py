"""Takes the pictures of the documentation's site: ``make docs``, then ``python docs/make_images_site.py`` from the repository root, seconds; needs Chromium."""

from __future__ import annotations

import shutil
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

FOLDER = Path(__file__).parent
SITE = FOLDER.parent / "runs/site"
COLOURS = 128  # of a picture, a quarter of its bytes
SIZE = {"width": 1280, "height": 900}
PAGES = {"start": "index.html", "environment": "environments/stem_tuning.html", "gallery": "gallery.html", "results": "results.html"}


class Quiet(SimpleHTTPRequestHandler):
    """Says nothing of what is asked of it."""

    def log_message(self, format: str, *_: object) -> None:
        """Nothing."""


def main() -> None:
    """Look at the site as a browser shows it; from a server, as its search hides where pages are files."""
    if not (SITE / "index.html").is_file():
        raise SystemExit(f"{SITE} holds no site: run `make docs` first")
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(SITE)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"))
        tab = browser.new_page(viewport=SIZE)
        for name, page in PAGES.items():
            tab.goto(f"http://127.0.0.1:{server.server_port}/{page}", wait_until="networkidle")
            shot = Image.open(BytesIO(tab.screenshot())).convert("RGB").quantize(COLOURS)
            shot.save(FOLDER / f"images/site_{name}.png", optimize=True)
        browser.close()
    server.shutdown()


if __name__ == "__main__":
    main()
