"""The page for a person who plays: who may ask, what is refused, and what it shows."""

from __future__ import annotations

import re
import threading
from pathlib import Path

import httpx
import pytest

import probegym
from probegym.hardware_bridge.page.access import COOKIE, MOST_BYTES
from probegym.terminal import compare
from probegym.terminal.game import Game
from probegym.terminal.play_page.board import Board
from probegym.terminal.play_page.server import STATIC, PlayServer
from tests.guard_process_helpers import happens


class Visit:
    """A server and a browser that has logged in."""

    def __init__(self, env_id: str = "probegym/TipConditioning-v0", scenario: str = "id") -> None:
        self.server = PlayServer(Board(Game(env_id, scenario, 5), 0.5))
        self.origin, self.base = self.server.checks.origin, f"{self.server.checks.origin}{self.server.keys.path}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.client = httpx.Client(follow_redirects=True)
        assert self.client.get(self.server.url()).status_code == 200

    def state(self) -> dict:
        return self.client.get(f"{self.base}/state").json()

    def ask(self, what: str, body: object = None, **headers: str) -> httpx.Response:
        return self.client.post(f"{self.base}/do/{what}", json={} if body is None else body, headers={"Origin": self.origin} | headers)

    def end(self) -> None:
        self.client.close()
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture(scope="module")
def lasting():
    visit = Visit()
    yield visit
    visit.end()


@pytest.fixture
def fresh(monkeypatch):
    monkeypatch.setattr(compare, "players", lambda env_id: ["random", "oracle"])
    visit = Visit()
    yield visit
    visit.end()


def test_nobody_gets_in_without_the_code(lasting):
    stranger = httpx.Client()
    for path in ("/", "/state", "/frame.png", "/page.js"):
        assert stranger.get(f"{lasting.base}{path}").status_code == 401
    assert stranger.get(f"{lasting.origin}/login?code=guess").status_code == 401
    url = lasting.server.url()
    assert stranger.get(url).status_code == 303
    assert httpx.Client().get(url).status_code == 401  # once
    answer = stranger.get(f"{lasting.base}/state", headers={"Cookie": f"{COOKIE}=guess"})
    assert answer.status_code == 401
    cookie = next(iter(lasting.client.cookies.jar))
    assert cookie.path == f"{lasting.server.keys.path}/" and cookie.has_nonstandard_attr("HttpOnly")


@pytest.mark.parametrize("host", ["localhost", "evil.example", "127.0.0.1"])
def test_other_names_of_this_machine_are_refused(lasting, host):
    assert lasting.client.get(f"{lasting.base}/state", headers={"Host": host}).status_code == 421


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:1"])
def test_other_pages_cannot_play(lasting, origin):
    steps = lasting.state()["steps"]
    assert lasting.ask("press", {"key": "\n"}, Origin=origin).status_code == 403
    assert lasting.client.post(f"{lasting.base}/do/press", json={"key": "\n"}).status_code == 403
    assert lasting.state()["steps"] == steps


@pytest.mark.parametrize(("body", "status"), [(b"{", 400), (b"[" * 3000, 400), (b"\xff\xfe", 400), (b"[]", 422), (b" " * (MOST_BYTES + 1), 413)])
def test_bodies_that_cannot_be_meant(lasting, body, status):
    answer = lasting.client.post(f"{lasting.base}/do/press", content=body, headers={"Origin": lasting.origin})
    assert answer.status_code == status and "Traceback" not in answer.text


@pytest.mark.parametrize(("what", "body"), [("press", {}), ("press", {"key": "\n", "more": 1}), ("put", {"name": "action"}), ("fly", {}), ("__init__", {}), ("end", {"now": True})])
def test_what_the_page_does_not_do(lasting, what, body):
    answer = lasting.ask(what, body)
    assert answer.status_code == 422 and "use one of press" in answer.text
    assert not lasting.state()["over"]


@pytest.mark.parametrize(
    ("what", "body", "told"),
    [("put", {"name": "action", "value": 99}, "whole number from 0 to 13"), ("put", {"name": "bias", "value": 1}, "no control 'bias'"), ("put", {"name": ["action"], "value": 1}, "is text"),
     ("press", {"key": "ab"}, "one character"), ("press", {"key": 7}, "one character")],
)  # fmt: skip
def test_what_the_game_refuses_is_told(lasting, what, body, told):
    answer = lasting.ask(what, body).json()
    assert answer["refused"] and told in answer["told"] and answer["controls"][0]["value"] == lasting.state()["controls"][0]["value"]


def test_nothing_comes_from_elsewhere(lasting):
    answer = lasting.client.get(f"{lasting.base}/")
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'") and "unsafe" not in policy and answer.headers["cache-control"] == "no-store"
    for path in STATIC.iterdir():
        assert not re.search(r"https?://|@import|<script>|\son\w+=", path.read_text()), path.name
        assert path.name == "page.html" or lasting.client.get(f"{lasting.base}/{path.name}").content == path.read_bytes()
    for path in ("/server.py", "/../server.py", "/static/page.js", "/%2e%2e/server.py"):
        assert lasting.client.get(f"{lasting.base}{path}").status_code in (401, 404)
    assert Path(STATIC / "page.html").is_file()


def test_a_game_on_the_page(fresh):
    first = fresh.state()
    assert first["env"] == "TipConditioning-v0" and first["controls"][0]["labels"][0] == "look" and first["table"] is None
    picture = fresh.client.get(f"{fresh.base}/frame.png").content
    assert picture.startswith(b"\x89PNG")
    assert fresh.ask("put", {"name": "action", "value": 8}).json()["controls"][0]["told"] == "dip 1 nm, disc 10 nm"
    after = fresh.ask("press", {"key": "\n"}).json()
    assert after["steps"] == 1 and after["frame"] > first["frame"] and after["status"]["damage"] == "1" and "tip quality" not in after["status"]
    assert fresh.client.get(f"{fresh.base}/frame.png").content != picture
    assert "tip quality" in fresh.ask("press", {"key": "t"}).json()["status"]
    ended = fresh.ask("end").json()
    assert ended["over"] and ended["table"]["head"][:3] == ["who", "goal", "score"]
    assert happens(lambda: not fresh.state()["table"]["busy"], 30)
    assert {row[0] for row in fresh.state()["table"]["lines"]} == {"you, truth seen", "random", "oracle"}
    assert fresh.ask("press", {"key": "\n"}).json()["told"] == "the episode is over: nothing was done"
    again = fresh.ask("again").json()
    assert not again["over"] and again["table"] is None and again["steps"] == 0 and again["seed"] != first["seed"]


def test_an_episode_that_ends_brings_the_table(fresh):
    fresh.ask("put", {"name": "action", "value": 13})
    ended = fresh.ask("press", {"key": "\n"}).json()
    assert ended["over"] and ended["table"] is not None


@pytest.mark.parametrize("env_id", probegym.ENVIRONMENTS)
def test_every_environment_has_a_page(env_id):
    board = Board(Game(env_id, "id", 5))
    shown = board.shown()
    kinds = {"dial": {"low", "high", "log", "steps", "share"}, "choice": {"labels", "closed", "places"}, "place": {"low", "high", "down", "unit", "cells", "marks", "beneath"}}
    for given in shown["controls"]:
        assert kinds[given["kind"]] <= given.keys() and given["told"]
        board.do("put", {"name": given["name"], "value": given["value"]})
        assert not board.refused
    board.do("press", {"key": "\n"})
    assert board.game.steps == 1 and not board.refused
