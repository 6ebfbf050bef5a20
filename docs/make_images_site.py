"""Takes the pictures of the documentation's site: ``make docs``, then ``python docs/make_images_site.py`` from the repository root, seconds; needs Chromium."""

from __future__ import annotations

import shutil
from io import BytesIO
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

FOLDER = Path(__file__).parent
SITE = FOLDER.parent / "runs/site"
COLOURS = 128  # of a picture, a quarter of its bytes
SIZE = {"width": 1280, "height": 900}
PAGES = {"start": "index.html", "environment": "environments/stem_tuning.html", "gallery": "gallery.html", "results": "results.html"}


def main() -> None:
    """Look at the site as a browser shows it."""
    if not (SITE / "index.html").is_file():
        raise SystemExit(f"{SITE} holds no site: run `make docs` first")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"))
        tab = browser.new_page(viewport=SIZE)
        for name, page in PAGES.items():
            tab.goto((SITE / page).resolve().as_uri(), wait_until="networkidle")
            shot = Image.open(BytesIO(tab.screenshot())).convert("RGB").quantize(COLOURS)
            shot.save(FOLDER / f"images/site_{name}.png", optimize=True)
        browser.close()


if __name__ == "__main__":
    main()
