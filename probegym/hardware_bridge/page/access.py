"""Who may see and use the page: one check in front of every request, for pages and websockets alike.

The page is bound to the loopback interface, which keeps out other machines but not what else runs or is shown on this one: other
websites in the same browser (refused by Origin), names that resolve to this machine (by Host), and whoever has no cookie.
Cookies know no ports, so the cookie is bound to a path that nobody else knows: servers on other ports are never sent it.
"""

from __future__ import annotations

import hmac
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, MutableMapping
from http.cookies import CookieError, SimpleCookie
from typing import Any

from probegym.hardware_bridge.channel import HOST

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

COOKIE = "probegym_operator"
MOST_BYTES = 4096  # of a request's body
LOGIN = "/login"
MOST_LINES, WINDOW_SECONDS = 20, 60.0  # about refusals in the log
MOST_SHOWN = 80  # characters of what a stranger sent
BY_THE_GUARD = (409, 503)  # answers that its record or the page's own log have already

REASONS = {400: "a body that is no JSON", 401: "a code that was used before or is not known", 404: "there is no such thing to ask for",
           405: "not to be asked for like this", 422: "a body of other fields"}  # fmt: skip

logger = logging.getLogger("probegym.page")


class Keys:
    """Codes that log in once, and the tokens that they were exchanged for."""

    def __init__(self) -> None:
        self.codes, self.tokens = set[str](), set[str]()
        self.path = f"/{secrets.token_urlsafe(16)}"

    def code(self) -> str:
        """A new code for one login; those before that were not used lapse."""
        self.codes = {secrets.token_urlsafe(32)}
        return next(iter(self.codes))

    def exchange(self, code: str) -> str | None:
        """A token for a code, once."""
        if not _among(code, self.codes):
            return None
        self.codes.clear()
        token = secrets.token_urlsafe(32)
        self.tokens.add(token)
        return token

    def known(self, token: str) -> bool:
        """Whether a token was given out here."""
        return _among(token, self.tokens)


class Refusals:
    """Tells the log of requests that were refused, at most MOST_LINES in WINDOW_SECONDS; of those beyond only how many there were."""

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self.clock, self.since, self.lines, self.more = clock, clock(), 0, 0

    def tell(self, line: str) -> None:
        """A line about one request."""
        self.turn()
        self.lines += 1
        if self.lines <= MOST_LINES:
            logger.warning("%s", line)
        else:
            self.more += 1

    def turn(self) -> None:
        """Once in a while: tells how many were passed over when the time is up."""
        if self.clock() - self.since > WINDOW_SECONDS:
            self.end()
            self.since, self.lines = self.clock(), 0

    def end(self) -> None:
        """Tell what is left to be told."""
        if self.more:
            logger.warning("refused %d requests more, which are not listed", self.more)
        self.more = 0


def harmless(text: str) -> str:
    """What a stranger sent, in ASCII of one line, cut."""
    return ascii(text[:MOST_SHOWN])[1:-1] + ("..." if len(text) > MOST_SHOWN else "")


class Checks:
    """What a request must be to be answered: at this Host, changes from the page's own Origin, logged in, and short.

    headers: what every answer says besides, to forbid the browser everything that the page does not need.
    """

    def __init__(self, port: int, keys: Keys):
        self.keys = keys
        self.host, self.origin = f"{HOST}:{port}", f"http://{HOST}:{port}"
        policy = f"default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self' ws://{self.host}"
        self.headers = [
            (b"content-security-policy", f"{policy}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'".encode()),
            (b"x-frame-options", b"DENY"), (b"x-content-type-options", b"nosniff"), (b"referrer-policy", b"no-referrer"),
            (b"cache-control", b"no-store"), (b"cross-origin-opener-policy", b"same-origin"), (b"cross-origin-resource-policy", b"same-origin"),
        ]  # fmt: skip

    def refusal(self, scope: Message) -> tuple[int, str] | None:
        """Status and reason; None to let it pass. A header that comes twice counts as wrong."""
        told: dict[bytes, list[str]] = {}
        for name, value in scope["headers"]:
            told.setdefault(name.lower(), []).append(value.decode("latin-1"))
        if told.get(b"host") != [self.host]:
            return 421, f"this page is at {self.origin} and nowhere else"
        changing = scope["type"] == "websocket" or scope["method"] not in ("GET", "HEAD")
        if changing and told.get(b"origin") != [self.origin]:
            return 403, "only the page itself may ask for this"
        if (scope["path"] != LOGIN or changing) and not self.keys.known(_cookie(told.get(b"cookie", []))):
            return 401, "not logged in: open the address with a new code"
        if scope["type"] == "http" and changing:
            length = told.get(b"content-length", [])
            if len(length) != 1 or not length[0].isdecimal() or len(length[0]) > 9 or int(length[0]) > MOST_BYTES:
                return 413, f"say how long the request is, at most {MOST_BYTES} bytes"
        return None


class Access:
    """ASGI middleware: answers no request but those that pass the checks.

    Every refusal is told to the log, but for those of the guard.
    """

    def __init__(self, app: App, port: int, keys: Keys, refusals: Refusals):
        self.app, self.keys, self.refusals, self.checks = app, keys, refusals, Checks(port, keys)

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        refusal = self.checks.refusal(scope)
        if refusal is None:
            await self.app(scope, receive, self._guarded(scope, send))
        elif scope["type"] == "websocket":
            self._tell(scope, 403, refusal[1])
            await receive()
            await send({"type": "websocket.close", "code": 1008})
        else:
            status, why = refusal
            start = {"type": "http.response.start", "status": status, "headers": [(b"content-type", b"text/plain; charset=utf-8")]}
            await self._guarded(scope, send, why)(start)
            await send({"type": "http.response.body", "body": why.encode()})

    def _guarded(self, scope: Message, send: Send, why: str = "") -> Send:
        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), *self.checks.headers]
                if message["status"] >= 400 and message["status"] not in BY_THE_GUARD:
                    self._tell(scope, message["status"], why or REASONS.get(message["status"], "the page failed"))
            await send(message)

        return sent

    def _tell(self, scope: Message, status: int, why: str) -> None:
        """One line: who asked, for what, and which Host and Origin the browser named; never a query, a cookie or the page's own path."""
        named = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"] if name in (b"host", b"origin")}
        path = scope["path"].replace(self.keys.path, "")
        told = [f"{name} {harmless(value)}" for name, value in sorted(named.items())]
        who = ":".join(map(str, scope.get("client") or ("unknown",)))
        self.refusals.tell(f"refused {status}: {harmless(scope.get('method', 'WEBSOCKET'))} {harmless(path)} from {', '.join([who, *told])}: {why}")


def _cookie(headers: list[str]) -> str:
    try:
        held = SimpleCookie("; ".join(headers)).get(COOKIE)
    except CookieError:
        return ""
    return held.value if held else ""


def _among(word: str, known: set[str]) -> bool:
    return any([hmac.compare_digest(word.encode(), one.encode()) for one in known])
