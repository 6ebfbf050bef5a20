"""The operator's page: what is shown, and a run operated from it; in headless Chromium where there is one."""

from __future__ import annotations

import base64
import os
import shutil
import signal
from collections.abc import Iterator

import numpy as np
import pytest
from playwright.sync_api import Browser, sync_playwright
from playwright.sync_api import Page as Tab

from probegym import scenarios
from probegym.hardware_bridge import codec
from probegym.hardware_bridge.commands import PulseBias, SetAberrations
from probegym.hardware_bridge.guard import process
from probegym.hardware_bridge.guard.ledger import Budget, Ledger
from probegym.hardware_bridge.instruments import twin as twins
from probegym.hardware_bridge.page import display, start_page
from probegym.hardware_bridge.page.board import Board
from probegym.hardware_bridge.world import Refused
from tests import guard_helpers as fakes
from tests import page_helpers
from tests.page_helpers import REQUEST, Scene, until

lasting, scene, shared = page_helpers.lasting, page_helpers.scene, page_helpers.shared
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
browsers = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed here")
pytestmark = pytest.mark.xdist_group("operator_page")

# ---- what is shown ----


def test_a_command_is_shown_whole_with_units_and_named_components():
    lines = display.readable(codec.command_to_json(fakes.tune(5e-9, -1.5e-9)))
    assert lines == [["C10", "5 nm"], ["C12a", "-1.5 nm"]]
    lines = dict(display.readable(codec.command_to_json(fakes.image(2e-6, 1e-5, (16, 8)))))
    assert lines == {"detector": "HAADF", "shape": "16 × 8", "field_of_view": "2 µm", "dwell_time": "10 µs", "defocus": "0 m"}
    pulse = codec.command_to_json(PulseBias(np.array([[1e-9, -2e-9]]), np.array([4.2]), 0.1))
    assert dict(display.readable(pulse)) == {"position": "1 nm, -2 nm", "bias": "4.2 V", "duration": "100 ms"}
    many = SetAberrations(("C10",), np.linspace(0, 1e-6, 50)[None])
    assert display.readable(codec.command_to_json(many))[-1][1].count(",") == 49, "nothing that an operator agrees to is left out"


def test_images_are_grey_between_percentiles_and_blocks_are_averaged():
    frame = np.linspace(0.0, 1.0, 10_000).reshape(1, 100, 100)
    frame[0, 0, 0], frame[0, 50, 50] = 1e9, np.nan
    (view,) = display.views("AcquireTopograph", {"height": frame})
    grey = np.frombuffer(base64.b64decode(view["grey"]), np.uint8).reshape(view["rows"], view["columns"])
    assert view["kind"] == "image" and grey.shape == (100, 100) and view["missing"] == 1 and (grey == 0).sum() == 1
    assert grey[0, 0] == 255 and grey[0, 1] == 1 and abs(int(grey[50, 0]) - 128) < 3 and view["low"].endswith("mm") and view["high"].endswith("mm")
    (large,) = display.views("AcquireImage", {"HAADF": np.tile([[0.0, 1.0]], (1, 1024, 700))[:, :, :1400]})
    assert (large["rows"], large["columns"]) == (341, 466) and large["size"] == "1400 × 1024"
    assert display.views("AcquireImage", {"HAADF": np.full((1, 8, 8), np.nan)})[0]["missing"] == 64


def test_lines_keep_their_spikes_and_spectra_their_axis():
    line = np.zeros((1, 2, 5000))
    line[0, 1, 2345], line[0, 0, 77] = 3.0, np.nan
    (view,) = display.views("ScanLine", {"height": line})
    assert view["kind"] == "curves" and len(view["curves"][0]) <= 1000 and max(view["curves"][1]) == 3.0 and None in view["curves"][0] and view["high"] == "3 m"
    (view,) = display.views("AcquireSpectrum", {"spectrum": np.ones((1, 64)), "axis": np.linspace(-2.0, 8.0, 64)[None]})
    assert (view["first"], view["last"]) == ("-2", "8")
    small = display.views("LocateAdatoms", {"position": np.array([[[1e-9, 2e-9]]]), "found": np.ones((1, 1), bool)})
    assert [(v["kind"], v["text"]) for v in small] == [("numbers", "1 nm, 2 nm"), ("numbers", "1")]


def test_a_scale_bar_is_a_round_length():
    for width, text in ((1e-9, "200 pm"), (7.4e-9, "2 nm"), (13e-9, "5 nm"), (5e-7, "200 nm")):
        told = display.scale_bar(codec.command_to_json(fakes.image(width)))
        assert told["text"] == text and 0.15 < told["share"] <= 0.4
    assert display.scale_bar(None) is None and display.scale_bar(codec.command_to_json(fakes.tune())) is None


def test_what_is_spent_stands_beside_its_limit(lasting):
    told = lasting.operator.status() | {"spent": {"seconds": 30.0, "dose": 0.0, "changes": 2}, "limits": {"seconds": 120.0, "changes": 0}}
    told |= {"sample": {"dose": 2500.0, "changes": 1}, "budget": {"dose": 1e4, "changes": 4, "region": 1e-6}}
    assert [(bar["text"], bar["share"]) for bar in display.bars(told)] == [("30 of 120 s", 0.25), ("2 of 0", 1.0), ("2\u202f500 of 10\u202f000 e⁻/Å²", 0.25), ("1 of 4", 0.25)]


def test_actions_and_rewards_find_each_other_and_refusals_are_told_once(lasting):
    board, status = Board("", None, []), lasting.operator.status()
    for n in range(1, 400):
        board.take(status | {"notes": {"action": {"number": n, "action": [float(n)]}, "reward": {"number": n - 1, "reward": n - 1.0}}, "rejected": [{"serial": n // 100, "why": "no"}]}, 0.0)
    trace, log = board.message({})["trace"], board.message({})["log"]
    assert len(trace) == 300 and trace[-2] == [398, [398.0], 398.0] and trace[-1] == [399, [399.0], None]
    assert [kind for _, kind, _ in log].count("refused") == 4
    board.show({"verb": "AcquireImage", "number": 1}, {"HAADF": np.zeros((1, 8, 8))})
    board.show({"verb": "AutoTune", "number": 2}, {})
    assert list(board.views) == ["AcquireImage"], "what shows nothing takes no place"
    seen: dict[str, int] = {}
    board.message(seen)
    assert not {"trace", "log", "views", "limits"} & set(board.message(seen)), "what has not changed is not sent again"


# ---- in a browser ----


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM)
        yield chromium
        chromium.close()


def opened(browser: Browser, scene: Scene) -> Tab:
    """The page in a browser of its own, logged in and live."""
    tab = browser.new_context(viewport={"width": 1600, "height": 1000}).new_page()
    tab.goto(scene.page.new_url())
    until(lambda: tab.get_attribute("body", "data-link") == "live")
    return tab


def shown(tab: Tab, place: str) -> str:
    """Text of an element."""
    return tab.locator(place).inner_text()


@browsers
def test_from_arming_to_the_end_of_a_run(scene, browser):
    tab = opened(browser, scene)
    address = scene.page.new_url()
    assert browser.new_context().new_page().goto(address).status == 200
    assert browser.new_context().new_page().goto(address).status == 401
    assert shown(tab, "#state") == "DISARMED" and shown(tab, "#instrument") == "fake" and "supervised" in shown(tab, "#about")
    tab.click("#ask")
    until(lambda: shown(tab, "#state") == "ASKED" and tab.is_visible("#nonce"))
    told = shown(tab, "#arming")
    assert all(words in told for words in ("sha256 0123456789abcdef", "1000 s", "100 allowed", "first 3 actions", "of 1\u202f000\u202f000 e⁻/Å²", "Self-test passed"))
    tab.click("#limits summary")
    assert "ShiftBeam: shift" in shown(tab, "#limits") and "steps up to 500 nm" in shown(tab, "#limits")
    tab.fill("#nonce-typed", "000000" if shown(tab, "#nonce") != "000000" else "1")
    tab.keyboard.press("Enter")
    until(lambda: shown(tab, "#state") == "DISARMED" and "not the nonce" in shown(tab, "#message"))
    tab.click("#ask")
    until(lambda: tab.is_visible("#nonce"))
    tab.fill("#nonce-typed", shown(tab, "#nonce"))
    tab.keyboard.press("Enter")
    until(lambda: shown(tab, "#state") == "RUNNING")
    assert "9 min" in shown(tab, "#lease-left") or "10 min" in shown(tab, "#lease-left")

    scene.command(fakes.image())
    until(lambda: tab.is_visible("#approval"))
    tab.click("#agree")
    until(lambda: tab.locator("#views figure canvas").count() == 1)
    levels = tab.evaluate("() => { const c = document.querySelector('#views canvas'); return [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data] }")
    assert len(levels) == 4 * 256 and levels[0] < 10 and levels[-4] > 245, "the image runs from dark to bright as the frame does"
    assert "HAADF, 16 × 16" in shown(tab, "#views figcaption")

    scene.command(fakes.tune(5e-9, 0.0), action=1)
    until(lambda: tab.is_visible("#approval"))
    assert "SetAberrations" in shown(tab, "#approval") and "C10" in shown(tab, "#approval") and "5 nm" in shown(tab, "#approval")
    tab.click("#agree")
    until(lambda: len(scene.answers) == 2 and not tab.is_visible("#approval"))
    assert [c.verb for c in scene.instrument.written] == ["AcquireImage", "SetAberrations"]
    assert "SetAberrations" not in shown(tab, "#views"), "a command without readings leaves what is shown"
    scene.command(fakes.tune(6e-9, 0.0), action=2)
    until(lambda: tab.is_visible("#approval"))
    tab.click("#deny")
    until(lambda: len(scene.answers) == 3)
    assert isinstance(scene.answers[2], Refused) and len(scene.instrument.written) == 2

    scene.guard.gate.until -= 400.0
    until(lambda: shown(tab, "#lease-left").startswith(("2 min", "3 min")))
    tab.keyboard.press("p")
    until(lambda: shown(tab, "#lease-left").startswith(("9 min", "10 min")))
    tab.keyboard.press("h")
    until(lambda: shown(tab, "#state") == "HELD")
    tab.click("#resume")
    until(lambda: shown(tab, "#state") == "RUNNING")
    tab.click("#disarm")
    until(lambda: shown(tab, "#state") == "DISARMED")


@browsers
def test_escape_aborts_whatever_has_the_focus_and_only_a_confirmed_reset_clears_it(shared, browser):
    tab = opened(browser, shared)
    for place in ("body", "#nonce-typed", "#hold"):
        if place == "#nonce-typed":
            tab.click("#ask")
            until(lambda: tab.is_visible("#nonce-typed"))
        else:
            shared.arm()
            until(lambda: shown(tab, "#state") == "RUNNING")
        tab.focus(place)
        tab.keyboard.press("Escape")
        until(lambda: shown(tab, "#state") == "FAULT" and "aborted: by an operator" in shown(tab, "#why"), 1.0)
        assert shared.instrument.is_blanked
        tab.click("#reset")
        assert shared.state == "fault" and tab.is_visible("#resetting")
        tab.click("#reset-yes")
        until(lambda: shown(tab, "#state") == "DISARMED")
    tab.click("#abort")
    until(lambda: shown(tab, "#state") == "FAULT", 1.0)


@browsers
def test_a_click_that_was_meant_for_one_request_does_not_meet_the_next(shared, browser):
    tab = opened(browser, shared)
    shared.arm()
    tab.evaluate("""() => { window.seen = []; new MutationObserver(() => window.seen.push([document.getElementById('agree').disabled, performance.now()]))
        .observe(document.getElementById('approval-number'), { childList: true }); }""")
    for action in (1, 2):
        shared.command(fakes.tune(1e-9 * action, 0.0), action=action)
        until(lambda: tab.is_visible("#approval"))
        tab.click("#agree")
        until(lambda wanted=action: len(shared.answers) == wanted)
        until(lambda: not tab.is_visible("#approval"))
    told = tab.evaluate("() => window.seen")
    assert len(told) == 2 and all(disabled for disabled, _ in told)


@browsers
def test_what_is_old_is_told_as_old_and_an_abort_that_fails_as_failed(scene, browser):
    tab = opened(browser, scene)
    scene.arm()
    until(lambda: shown(tab, "#state") == "RUNNING")
    scene.guard.go.clear()
    until(lambda: shown(tab, "#state") == "STALE")
    assert "Last known: running" in shown(tab, "#why") and tab.is_disabled("#hold") and tab.is_enabled("#abort")
    tab.keyboard.press("Escape")
    until(lambda: "NOT CONFIRMED" in shown(tab, "#message"))
    scene.guard.go.set()
    until(lambda: shown(tab, "#state") == "FAULT")
    os.kill(scene.page.process.pid, signal.SIGSTOP)
    until(lambda: shown(tab, "#state") == "STALE")
    os.kill(scene.page.process.pid, signal.SIGCONT)
    until(lambda: shown(tab, "#state") == "FAULT")
    scene.guard.stopping = "killed"
    until(lambda: shown(tab, "#state") == "NO GUARD")
    scene.page.process.kill()
    until(lambda: shown(tab, "#state") == "DISCONNECTED")
    tab.click("#abort")
    until(lambda: "ABORT NOT CONFIRMED: the page's server has gone" in shown(tab, "#message"))


@browsers
def test_with_a_guard_and_a_twin_of_their_own_a_guard_that_is_killed_is_missed(tmp_path, browser):
    Ledger.create(tmp_path / "sample", Budget(dose=1e9, changes=10, instrument="hot-stage twin")).close()
    world = scenarios.load("ising_inference", "train").world
    with twins.start("probegym.hardware_bridge.twins.ising:IsingTwin", world) as twin:
        guard = process.start(twin.reached, str(tmp_path / "sample"), str(tmp_path / "runs"), "a test", {})
        with start_page(guard.reached["operator"], request=REQUEST) as page:
            tab = browser.new_page()
            tab.goto(page.url_with_code)
            tab.click("#ask")
            until(lambda: tab.is_visible("#nonce"))
            tab.fill("#nonce-typed", shown(tab, "#nonce"))
            tab.click("#arm")
            until(lambda: shown(tab, "#state") == "RUNNING")
            guard.process.kill()
            guard.process.wait()
            until(lambda: shown(tab, "#state") == "NO GUARD")
        guard.operator.close()
