"""Takes the pictures of the operator page's documentation: ``python docs/make_images_page.py`` from the repository root, about a minute; needs Chromium."""

from __future__ import annotations

import shutil
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

from probegym.agents.bundle import find
from probegym.hardware_bridge.deployment import Mode
from probegym.hardware_bridge.deployment.run import Deployment, Orders, described
from probegym.hardware_bridge.page import start_page

FOLDER = Path(__file__).parent / "images"
SIZE = {"width": 1600, "height": 1000}
AGREED, SHOWN = 2, 14  # actions whose commands are agreed to, one by one, and at which the run is shown


def until(true: Callable[[], object], seconds: float = 60.0) -> None:
    """Wait until something is so."""
    end = time.monotonic() + seconds
    while not true():
        if time.monotonic() > end:
            raise TimeoutError("the page did not come to show it")
        time.sleep(0.02)


def pictures(orders: Orders, tab: Page, deployment: Deployment) -> None:
    """Arming, a request for agreement, the run, and an abort."""
    until(lambda: tab.is_visible("#ask"))
    tab.click("#ask")
    until(lambda: tab.is_visible("#nonce"))
    tab.screenshot(path=FOLDER / "operator_page_arming.png")
    tab.fill("#nonce-typed", tab.inner_text("#nonce"))
    tab.click("#arm")
    until(lambda: tab.inner_text("#state") == "RUNNING")
    threading.Thread(target=lambda: list(deployment.play()), daemon=True).start()

    answered = {""}  # requests; the page shows one until the guard has heard of the answer

    def agreed_and_at(number: int) -> bool:
        if tab.is_enabled("#agree") and (asked := tab.inner_text("#approval-number")) not in answered:
            answered.add(asked)
            if tab.inner_text("#approval-verb") == "SetAberrations":
                tab.screenshot(path=FOLDER / "operator_page_agreement.png")
            tab.click("#agree")
        return tab.inner_text("#action-last").startswith(f"action {number}")

    until(lambda: agreed_and_at(SHOWN))
    tab.screenshot(path=FOLDER / "operator_page.png")
    tab.keyboard.press("Escape")
    until(lambda: tab.inner_text("#state") == "FAULT")
    tab.screenshot(path=FOLDER / "operator_page_abort.png")


def main() -> None:
    """Deploy the shipped policy on its twin and look at it."""
    with tempfile.TemporaryDirectory() as scratch, sync_playwright() as playwright:
        orders = Orders("probegym/StemTuning-v0", "haadf-id", find("stem-tuning-haadf"), Mode.supervised, Path(scratch) / "runs", Path(scratch) / "sample", new_sample=True,
                        episodes=20, pace=1.0, seconds=600.0, changes=0, dose=2e6, changes_each=0, approvals=AGREED)  # fmt: skip
        with Deployment(orders) as deployment:
            assert deployment.guard
            told = {"request": deployment.request(), "descriptor": described(orders).model_dump(mode="json"), "mode": str(orders.mode)}
            with start_page(deployment.guard.reached["operator"], **told) as page:
                browser = playwright.chromium.launch(executable_path=shutil.which("chromium"))
                tab = browser.new_page(viewport=SIZE)
                tab.goto(page.url_with_code)
                pictures(orders, tab, deployment)
                browser.close()


if __name__ == "__main__":
    main()
