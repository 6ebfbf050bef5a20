"""The operator's page: who is let in, what is refused, and that what the operator does reaches the guard."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time

import httpx
import pytest
from websockets.exceptions import InvalidStatus

from probegym.errors import ProbeGymError
from probegym.hardware_bridge import codec
from probegym.hardware_bridge.page import start_page
from probegym.hardware_bridge.page.access import Refusals
from tests import guard_helpers as fakes
from tests import page_helpers
from tests.helpers import ROOT
from tests.page_helpers import PATIENT, Visitor, until

lasting, loud, scene, shared, visitor = page_helpers.lasting, page_helpers.loud, page_helpers.scene, page_helpers.shared, page_helpers.visitor
pytestmark = pytest.mark.xdist_group("operator_page")


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


BODIES = [
    b'{"nonce": "\\ud800"}', b'{"nonce": "\\u0000"}', b'{"nonce": NaN}', b'{"nonce": Infinity}', b'{"nonce": null}', b'{"\\ud800": "1"}', b'{"nonce": "1", "\\ud800": 1}',
    b"[" * 4000, b'{"nonce":' * 400, b"", b"\xff\xfe", b"{", b"3", b"null", b'"\\udfff"', b"1" * 4000, b'{"number": 1e999, "agreed": true}',
    b'{"number": %s, "agreed": true}' % (b"9" * 4000), b'{"number": -0.0, "agreed": "\\ud800"}', b'{"number": 1, "agreed": true, "agreed": "\\udc00"}',
]  # fmt: skip


def test_no_body_is_more_than_the_page_can_bear(loud):
    scene, said = loud
    visitor = Visitor(scene.page)
    scene.arm()
    for body in BODIES:
        for what in ("arm", "decide"):
            for kind in ("application/json", "text/plain", ";=;", "multipart/form-data; boundary="):
                answer = visitor.client.post(f"{visitor.path}do/{what}", content=body, headers={"origin": visitor.base, "content-type": kind})
                assert 400 <= answer.status_code < 500, (body, what, kind)
    assert scene.state == "running" and "Traceback" not in said.read_text()


def test_what_is_refused_is_told_to_the_log_and_nothing_secret_is(loud):
    scene, said = loud
    visitor = Visitor(scene.page)
    code, token = str(visitor.url.params["code"]), visitor.cookie()["Cookie"].split("=")[1]
    stranger = httpx.Client(base_url=visitor.base, trust_env=False, timeout=PATIENT)
    assert stranger.get(str(visitor.url)).status_code == 401
    assert stranger.get(f"{visitor.path}{'%0aroot: all is well %1b[2J' + 'x' * 500}").status_code == 401
    assert visitor.client.get(visitor.path, headers={"host": b"attacker.example\x85"}).status_code == 421
    assert visitor.post("abort", headers={"origin": "http://attacker.example"}).status_code == 403
    assert visitor.post("arm", json={"nonce": "1" * 5000}).status_code == 413
    assert visitor.post("arm", json={"nonce": 3}).status_code == 422 and visitor.post("quit").status_code == 404
    with pytest.raises(InvalidStatus, match="403"):
        visitor.live(origin="http://attacker.example").close()
    assert visitor.post("resume").status_code == 409 and visitor.client.get(visitor.path).status_code == 200  # the guard's own words are in its record
    until(lambda: said.read_text().count("\n") >= 8)
    told = said.read_text().splitlines()
    assert [line.split("refused ")[1][:3] for line in told] == ["401", "401", "421", "403", "413", "422", "404", "403"]
    assert all("probegym.page: refused" in line and len(line) < 400 and line.isascii() and line.isprintable() for line in told)
    assert not any(secret in line for line in told for secret in (code, token, visitor.path.strip("/"))), "what lets somebody in is never written down"
    assert "/login" in told[0] and "\\nroot: all is well \\x1b[2J" in told[1] and "host attacker.example\\x85" in told[2] and "origin http://attacker.example" in told[3]


def test_a_flood_of_refusals_is_counted(caplog):
    now = [0.0]
    refusals = Refusals(lambda: now[0])
    for minute in range(3):
        now[0] = 100.0 * minute
        for number in range(50 if minute < 2 else 5):
            refusals.tell(f"refused {number}")
    refusals.end()
    told = [record.getMessage() for record in caplog.records]
    first = [f"refused {n}" for n in range(20)]
    more = "refused 30 requests more, which are not listed"
    assert told == [*first, more, *first, more, *first[:5]] and {record.name for record in caplog.records} == {"probegym.page"}
    refusals.tell("x" * 3)
    now[0] += 30.0
    refusals.turn()
    assert len(caplog.records) == 48, "nothing is told twice, and nothing before its time"


def test_the_page_is_not_started_by_hand():
    done = subprocess.run([sys.executable, "-m", "probegym.hardware_bridge.page"], input="{}", capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert done.returncode == 1 and done.stderr.count("\n") == 1 and "by hand" in done.stderr


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
