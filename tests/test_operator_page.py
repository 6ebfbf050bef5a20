"""The operator's page: who is let in, what is shown, and that what the operator does reaches the guard; in headless Chromium where there is one."""

from __future__ import annotations

import base64
import os
import shutil
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np
import pytest
from playwright.sync_api import Browser, sync_playwright
from playwright.sync_api import Page as Tab
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect as open_websocket

from probegym import scenarios
from probegym.errors import ProbeGymError
from probegym.hardware_bridge import codec
from probegym.hardware_bridge.channel import Channel
from probegym.hardware_bridge.commands import Command, PulseBias, Readings, SetAberrations
from probegym.hardware_bridge.deployment.world import GuardedWorld
from probegym.hardware_bridge.guard import process
from probegym.hardware_bridge.guard.ledger import Budget, Ledger
from probegym.hardware_bridge.guard.operator import Operator
from probegym.hardware_bridge.instruments import twin as twins
from probegym.hardware_bridge.page import PageProcess, display, start_page
from probegym.hardware_bridge.page.board import Board
from probegym.hardware_bridge.world import Refused
from tests import guard_helpers as fakes

PATIENT = 20.0  # s, for what is not about time, on a loaded machine
REQUEST = fakes.REQUEST | {"environment": "probegym/StemTuning-v0", "policy": "stem-tuning, sha256 0123456789abcdef", "approvals": 3}
ON = np.ones(1, bool)
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
browsers = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed here")
pytestmark = pytest.mark.xdist_group("operator_page")


def until(true: Callable[[], object], seconds: float = PATIENT) -> None:
    """Wait until something is so."""
    assert happens(true, seconds), "it did not come to be so"


def happens(true: Callable[[], object], seconds: float = 3.0) -> bool:
    """Whether something comes to be so within a time."""
    end = time.monotonic() + seconds
    while not (so := true()) and time.monotonic() < end:
        time.sleep(0.01)
    return bool(so)


def pair() -> tuple[Channel, Channel]:
    """Both ends of a connection."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        here = socket.create_connection(server.getsockname())
        return Channel(here), Channel(server.accept()[0])


def guardian(module: str, told: codec.Json) -> tuple[None, Channel]:
    """A guardian that listens to the guard's pulse, and is content."""
    here, there = pair()
    here.send({"watching": True})

    def listen() -> None:
        try:
            while True:
                here.receive()
        except ProbeGymError:
            return

    threading.Thread(target=listen, daemon=True).start()
    return None, there


class Guard(process.Guard):
    """The guard itself, in a thread, around an instrument that is not there. go: cleared, it hangs. mute: questions that it never answers."""

    mute: tuple[str, ...] = ()

    def _answer(self, client, question, arrays):
        return None if question.get("do") in self.mute else super()._answer(client, question, arrays)

    def _once(self) -> None:
        self.go.wait()
        super()._once()


class Scene:
    """A guard, the page that is its client, an operator elsewhere, and what a session asks for."""

    def __init__(self, folder: Path) -> None:
        self.parent, there = pair()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(process, "open_writer", lambda told, name: fakes.FakeInstrument())
            patch.setattr(process, "spawn", guardian)
            told = {"instrument": {}, "sample": folder / "sample", "budget": {"dose": 1e6, "changes": 5}, "runs": folder / "runs", "name": "test", "manifest": {}}
            self.guard = Guard(there, told)
        self.guard.go = threading.Event()
        self.guard.go.set()
        self.instrument = self.guard.instrument
        threading.Thread(target=self.guard.run, daemon=True).start()
        self.reached = {role: {"port": one.port, "secret": one.secret} for role, one in self.guard.listeners.items()}
        self.operator = Operator(self.parent)
        self.page: PageProcess = start_page(self.reached["operator"], request=REQUEST, descriptor=fakes.description(), mode="supervised")
        self.answers: list[Readings | ProbeGymError] = []
        self.world: GuardedWorld | None = None

    @property
    def state(self) -> str:
        return str(self.guard.gate.state)

    def arm(self) -> None:
        """Arm at another place than the page."""
        self.operator.arm(self.operator.ask(REQUEST)["nonce"])

    def command(self, command: Command, action: int = 1) -> None:
        """A session asks for a command; its answer is added to ``answers`` once it comes."""
        self.world = self.world or GuardedWorld(self.reached)
        self.world.action = action

        def ask() -> None:
            try:
                self.answers.append(self.world.execute(command, ON))
            except ProbeGymError as error:
                self.answers.append(error)

        threading.Thread(target=ask, daemon=True).start()

    def clear(self) -> None:
        """As it was in the beginning."""
        self.guard.go.set()
        self.guard.mute = ()
        if self.state == "fault":
            self.operator.reset()
        self.operator.disarm()
        if self.world:
            self.world.close()
            until(lambda: len(self.guard.clients) == 4)
        self.world = None
        self.answers.clear()
        self.instrument.written.clear()

    def close(self) -> None:
        self.guard.go.set()
        self.page.close()
        if self.world:
            self.world.close()
        self.guard.stopping = "the test is over"


@contextmanager
def staged(folder: Path) -> Iterator[Scene]:
    """A scene around an instrument that is not there; sessions may be slow."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(process, "SILENCE_SECONDS", 30.0)
        scene = Scene(folder)
        try:
            yield scene
        finally:
            scene.close()


@pytest.fixture
def scene(tmp_path) -> Iterator[Scene]:
    with staged(tmp_path) as made:
        yield made


@pytest.fixture(scope="module")
def lasting(tmp_path_factory) -> Iterator[Scene]:
    with staged(tmp_path_factory.mktemp("page")) as made:
        yield made


@pytest.fixture
def shared(lasting) -> Iterator[Scene]:
    """One scene for all tests that leave guard and page as they were."""
    yield lasting
    lasting.clear()


# ---- who is let in ----


class Visitor:
    """Asks the page's server without a browser."""

    def __init__(self, page: PageProcess) -> None:
        self.url = httpx.URL(page.new_url())
        self.base = f"http://127.0.0.1:{self.url.port}"
        self.client = httpx.Client(base_url=self.base, trust_env=False, timeout=PATIENT)
        self.answer = self.client.get(str(self.url))
        self.path = self.answer.headers["location"]

    def post(self, what: str, **more) -> httpx.Response:
        headers = {"origin": self.base} | more.pop("headers", {})
        return self.client.post(f"{self.path}do/{what}", headers={k: v for k, v in headers.items() if v}, json=more.pop("json", {}), **more)

    def cookie(self) -> dict[str, str]:
        return {"Cookie": "; ".join(f"{name}={value}" for name, value in self.client.cookies.items())}

    def live(self, **more):
        given = {"origin": self.base, "additional_headers": self.cookie(), "proxy": None, "open_timeout": PATIENT, "max_queue": None} | more
        return open_websocket(f"ws://127.0.0.1:{self.url.port}{self.path}live", legacy=True, **given)


@pytest.fixture
def visitor(shared) -> Visitor:
    return Visitor(shared.page)


def test_a_code_logs_in_once_for_this_page_only(shared, visitor):
    cookie = visitor.answer.headers["set-cookie"]
    assert visitor.answer.status_code == 303
    assert "HttpOnly" in cookie and "samesite=strict" in cookie.lower() and f"Path={visitor.path}" in cookie  # cookies know no ports, but paths
    assert visitor.client.get(visitor.path).status_code == 200
    stranger = httpx.Client(base_url=visitor.base, trust_env=False, timeout=PATIENT)
    assert stranger.get(str(visitor.url)).status_code == 401
    assert stranger.get("/login", params={"code": "x"}).status_code == 401
    first, second = shared.page.new_url(), shared.page.new_url()
    assert stranger.get(first).status_code == 401, "a code lapses with the next"
    assert stranger.get(second).status_code == 303


def test_without_a_token_nothing_is_shown_and_nothing_done(shared, visitor):
    shared.arm()
    for cookies in ({}, {"probegym_operator": "x"}, {"probegym_operator": ""}):
        stranger = httpx.Client(base_url=visitor.base, trust_env=False, timeout=PATIENT, cookies=cookies)
        for path in (visitor.path, f"{visitor.path}page.js", f"{visitor.path}live", "/", "/docs", "/openapi.json"):
            assert stranger.get(path).status_code == 401, path
        assert stranger.post(f"{visitor.path}do/abort", json={}, headers={"origin": visitor.base}).status_code == 401
    with pytest.raises(InvalidStatus, match="403"):
        visitor.live(additional_headers={}).close()
    assert shared.state == "running"


def test_another_host_name_is_refused_even_with_the_token(shared, visitor):
    port = visitor.url.port
    for name in (f"localhost:{port}", f"attacker.example:{port}", "127.0.0.1", "127.0.0.1:1", f"127.0.0.1:{port}.example"):
        assert visitor.client.get(visitor.path, headers={"host": name}).status_code == 421, name
        assert visitor.post("abort", headers={"host": name}).status_code == 421, name
        with pytest.raises(InvalidStatus, match=r"40[03]"):
            visitor.live(additional_headers=visitor.cookie() | {"Host": name}).close()
    assert shared.state == "disarmed"


def test_a_request_from_elsewhere_has_no_effect(shared, visitor):
    port = visitor.url.port
    shared.arm()
    for origin in ("", "null", "http://127.0.0.1:1", f"http://localhost:{port}", f"https://127.0.0.1:{port}", "http://attacker.example"):
        for what in ("abort", "hold", "ask", "present"):
            assert visitor.post(what, headers={"origin": origin}).status_code == 403, origin
        with pytest.raises(InvalidStatus, match="403"):
            visitor.live(origin=origin or None).close()
    assert shared.state == "running"


def test_the_browser_is_forbidden_what_the_page_does_not_need(visitor):
    answers = [visitor.client.get(visitor.path + name) for name in ("", "page.js", "page.css")] + [httpx.get(visitor.base, trust_env=False), visitor.answer]
    for answer in answers:
        rules = answer.headers["content-security-policy"]
        assert rules.startswith("default-src 'none';") and "unsafe" not in rules and "frame-ancestors 'none'" in rules
        assert answer.headers["x-frame-options"] == "DENY" and answer.headers["cache-control"] == "no-store" and answer.headers["referrer-policy"] == "no-referrer"
    for answer in answers[:3]:
        assert answer.status_code == 200 and not any(part in answer.text for part in ("http://", "https://", "//cdn", "innerHTML", "eval("))


def test_what_is_malformed_is_refused(shared, visitor):
    shared.arm()
    for what, body in (("arm", {}), ("arm", {"nonce": 3}), ("arm", {"nonce": "1" * 41}), ("decide", {"number": "1", "agreed": True}),
                       ("decide", {"number": 1, "agreed": 1}), ("decide", {"number": 1, "agreed": True, "more": 1}), ("decide", [])):  # fmt: skip
        assert visitor.post(what, json=body).status_code == 422, body
    assert visitor.post("quit").status_code == 404 and visitor.post("status").status_code == 404
    assert visitor.client.get(f"{visitor.path}server.py").status_code == 404 and visitor.client.get(f"{visitor.path}..%2fserver.py").status_code == 404
    assert visitor.post("arm", json={"nonce": "1" * 5000}).status_code == 413
    assert visitor.client.post(f"{visitor.path}do/hold", content=iter([b"{}"]), headers={"origin": visitor.base}).status_code == 413
    assert shared.state == "running"


def test_a_stale_decision_is_refused(shared, visitor):
    shared.arm()
    shared.command(fakes.tune())
    until(lambda: shared.guard.gate.waiting)
    number = shared.guard.gate.waiting.number
    for stale in (number - 1, number + 1):
        answer = visitor.post("decide", json={"number": stale, "agreed": True})
        assert answer.status_code == 409 and str(stale) in answer.json()["refused"]
    assert not shared.instrument.written
    assert visitor.post("decide", json={"number": number, "agreed": True}).status_code == 200
    until(lambda: shared.answers)
    assert [c.verb for c in shared.instrument.written] == ["SetAberrations"]
    assert visitor.post("decide", json={"number": number, "agreed": True}).status_code == 409


def test_everything_that_an_operator_can_do_reaches_the_guard(shared, visitor):
    assert visitor.post("ask").status_code == 200
    until(lambda: shared.state == "asked")
    assert visitor.post("arm", json={"nonce": shared.guard.gate.word}).status_code == 200 and shared.state == "running"
    shared.guard.gate.until -= 500.0
    before = shared.guard.gate.until
    for what, state in (("present", "running"), ("hold", "held"), ("resume", "running"), ("disarm", "disarmed"), ("abort", "fault"), ("reset", "disarmed")):
        assert visitor.post(what).status_code == 200 and shared.state == state, what
        assert shared.guard.gate.until > before + 400.0
    refused = visitor.post("resume")
    assert refused.status_code == 409 and "nothing to go on from" in refused.json()["refused"]


def test_an_abort_is_not_kept_waiting_by_other_questions(shared, visitor):
    shared.arm()
    shared.guard.mute = ("hold",)
    holding = [threading.Thread(target=visitor.post, args=("hold",), daemon=True) for _ in range(8)]
    for thread in holding:
        thread.start()
    time.sleep(0.3)
    assert visitor.post("abort").status_code == 200 and shared.state == "fault"
    assert all(thread.is_alive() for thread in holding), "they still wait for their answers"
    shared.guard.mute = ()
    for thread in holding:
        thread.join()


def test_it_serves_this_machine_only_and_ends_with_the_one_who_started_it(scene):
    port = httpx.URL(scene.page.url_with_code).port
    with pytest.raises(ProbeGymError, match="port"):
        start_page(scene.reached["operator"], port=port)
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.2", port), timeout=2.0).close()  # all of 127/8 is this machine, where it is anything
    scene.page.channel.close()
    scene.page.process.wait(PATIENT)


def test_a_page_that_closes_holds_the_run_and_a_guard_that_hangs_is_told_as_old(scene):
    visitor = Visitor(scene.page)
    scene.arm()
    with visitor.live() as live:
        until(lambda: codec.loads(live.recv())["status"])
        with visitor.live() as second:
            second.recv()
        scene.guard.go.clear()
        until(lambda: codec.loads(live.recv())["age"] > 2.0)
        until(lambda: "no answer" in codec.loads(live.recv())["trouble"])
        scene.guard.go.set()
        until(lambda: not codec.loads(live.recv())["trouble"])
        assert scene.state == "running"
    until(lambda: scene.state == "held")
    assert "closed" in scene.guard.gate.why


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


def armed(tab: Tab) -> bool:
    """Arm on the page; False where a guardian on a loaded machine was in the way, whose fault is then reset."""
    if shown(tab, "#state") == "FAULT":
        tab.click("#reset")
        tab.click("#reset-yes")
    if not happens(lambda: tab.is_visible("#ask")):
        return False
    tab.click("#ask")
    if not happens(lambda: tab.is_visible("#nonce")):
        return False
    tab.fill("#nonce-typed", shown(tab, "#nonce"))
    tab.click("#arm")
    return happens(lambda: shown(tab, "#state") == "RUNNING")


@browsers
def test_with_a_guard_and_a_twin_of_their_own_a_guard_that_is_killed_is_missed(tmp_path, browser):
    Ledger.create(tmp_path / "sample", Budget(dose=1e9, changes=10, instrument="hot-stage twin")).close()
    world = scenarios.load("ising_inference", "train").world
    with twins.start("probegym.hardware_bridge.twins.ising:IsingTwin", world) as twin:
        guard = process.start(twin.reached, str(tmp_path / "sample"), str(tmp_path / "runs"), "a test", {})
        with start_page(guard.reached["operator"], request=REQUEST) as page:
            tab = browser.new_page()
            tab.goto(page.url_with_code)
            until(lambda: armed(tab), 3 * PATIENT)
            guard.process.kill()
            guard.process.wait()
            until(lambda: shown(tab, "#state") == "NO GUARD")
        guard.operator.close()
