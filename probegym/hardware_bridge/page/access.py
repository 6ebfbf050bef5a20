"""Who may see and use the page: one check in front of every request, for pages and websockets alike.

The page is bound to the loopback interface, which keeps out other machines but not what else runs or is shown on this one: other
websites in the same browser (refused by Origin), names that resolve to this machine (by Host), and whoever has no cookie.
Cookies know no ports, so the cookie is bound to a path that nobody else knows: servers on other ports are never sent it.
"""

from __future__ import annotations

import hmac
import secrets
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


class Access:
    """ASGI middleware: refuses what does not come from the operator's own page, and forbids the browser everything that the page does not need."""

    def __init__(self, app: App, port: int, keys: Keys):
        self.app, self.keys = app, keys
        self.host, self.origin = f"{HOST}:{port}", f"http://{HOST}:{port}"
        policy = f"default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self' ws://{self.host}"
        self.headers = [
            (b"content-security-policy", f"{policy}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'".encode()),
            (b"x-frame-options", b"DENY"), (b"x-content-type-options", b"nosniff"), (b"referrer-policy", b"no-referrer"),
            (b"cache-control", b"no-store"), (b"cross-origin-opener-policy", b"same-origin"), (b"cross-origin-resource-policy", b"same-origin"),
        ]  # fmt: skip

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        refusal = self._refusal(scope)
        if refusal is None:
            await self.app(scope, receive, self._guarded(send))
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1008})
        else:
            status, why = refusal
            await self._guarded(send)({"type": "http.response.start", "status": status, "headers": [(b"content-type", b"text/plain; charset=utf-8")]})
            await send({"type": "http.response.body", "body": why.encode()})

    def _guarded(self, send: Send) -> Send:
        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), *self.headers]
            await send(message)

        return sent

    def _refusal(self, scope: Message) -> tuple[int, str] | None:
        """Status and reason; None to let it pass. A header that comes twice counts as wrong."""
        told: dict[bytes, list[str]] = {}
        for name, value in scope["headers"]:
            told.setdefault(name.lower(), []).append(value.decode("latin-1"))
        if told.get(b"host") != [self.host]:
            return 421, f"this page is at {self.origin} and nowhere else"
        changing = scope["type"] == "websocket" or scope["method"] not in ("GET", "HEAD")
        if changing and told.get(b"origin") != [self.origin]:
            return 403, "only the operator's page itself may ask for this"
        if (scope["path"] != LOGIN or changing) and not self.keys.known(_cookie(told.get(b"cookie", []))):
            return 401, "not logged in: open the address with a new code"
        if scope["type"] == "http" and changing:
            length = told.get(b"content-length", [])
            if len(length) != 1 or not length[0].isdecimal() or int(length[0]) > MOST_BYTES:
                return 413, f"say how long the request is, at most {MOST_BYTES} bytes"
        return None


def _cookie(headers: list[str]) -> str:
    try:
        held = SimpleCookie("; ".join(headers)).get(COOKIE)
    except CookieError:
        return ""
    return held.value if held else ""


def _among(word: str, known: set[str]) -> bool:
    return any([hmac.compare_digest(word.encode(), one.encode()) for one in known])
