"""The page's server, of the standard library alone: one player, this machine only. The operator page's checks are in front of every request."""

from __future__ import annotations

import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import parse_qs, urlsplit

from rich.console import Console

from probegym.console import say
from probegym.errors import ProbeGymError
from probegym.hardware_bridge.channel import HOST
from probegym.hardware_bridge.page.access import COOKIE, LOGIN, Checks, Keys
from probegym.terminal.game import Game
from probegym.terminal.play_page.board import Board

STATIC = Path(__file__).parent / "static"
FILES = {"": ("page.html", "text/html"), "page.js": ("page.js", "text/javascript"), "page.css": ("page.css", "text/css")}
IDLE_SECONDS = 30.0  # after which a silent connection is closed


class PlayServer(ThreadingHTTPServer):
    """Serves one board on any free port of the loopback interface."""

    daemon_threads = True

    def __init__(self, board: Board):
        super().__init__((HOST, 0), Handler)
        self.board, self.keys, self.lock = board, Keys(), threading.Lock()
        self.checks = Checks(self.server_port, self.keys)

    def url(self) -> str:
        """An address that opens the page once."""
        return f"{self.checks.origin}{LOGIN}?code={self.keys.code()}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that went before it had its answer is no error."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    server: PlayServer
    protocol_version = "HTTP/1.1"
    timeout: ClassVar[float] = IDLE_SECONDS

    def do_GET(self) -> None:
        """Log in, or get a file, the state, or the picture."""
        if self._refused():
            return
        address, own = urlsplit(self.path), self.server.keys.path
        name = address.path.removeprefix(f"{own}/") if address.path.startswith(f"{own}/") else None
        if address.path == LOGIN:
            self._login(parse_qs(address.query).get("code", [""])[0])
        elif name in FILES:
            file, kind = FILES[name]
            self._send(200, (STATIC / file).read_bytes(), f"{kind}; charset=utf-8")
        elif name == "state":
            self._state()
        elif name == "frame.png":
            with self.server.lock:
                picture = self.server.board.picture
            self._send(200, picture, "image/png")
        else:
            self._tell(404, "there is no such page")

    def do_POST(self) -> None:
        """Do something with the game; answers with its state."""
        if self._refused():
            return
        raw = self.rfile.read(int(self.headers["content-length"]))
        path, start = urlsplit(self.path).path, f"{self.server.keys.path}/do/"
        try:
            body = json.loads(raw)
        except (ValueError, RecursionError):
            self._tell(400, "a body that is no JSON")
            return
        if not path.startswith(start) or not isinstance(body, dict):
            self._tell(404 if isinstance(body, dict) else 422, "there is nothing like that to ask for")
            return
        try:
            with self.server.lock:
                self.server.board.do(path.removeprefix(start), body)
        except ProbeGymError as error:
            self._tell(422, str(error))
            return
        self._state()

    def _refused(self) -> bool:
        headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in self.headers.items()]
        refusal = self.server.checks.refusal({"type": "http", "method": self.command, "path": urlsplit(self.path).path, "headers": headers})
        if refusal is not None:
            self.close_connection = True  # its body was not read
            self._tell(*refusal)
        return refusal is not None

    def _login(self, code: str) -> None:
        token, path = self.server.keys.exchange(code), f"{self.server.keys.path}/"
        if token is None:
            self._tell(401, "this code was used before or is not known: open the newest address")
            return
        self._send(303, b"", "text/plain", {"Location": path, "Set-Cookie": f"{COOKIE}={token}; HttpOnly; SameSite=Strict; Path={path}"})

    def _state(self) -> None:
        with self.server.lock:
            shown = self.server.board.shown()
        self._send(200, json.dumps(shown).encode(), "application/json")

    def _tell(self, status: int, text: str) -> None:
        self._send(status, text.encode(), "text/plain; charset=utf-8")

    def _send(self, status: int, content: bytes, kind: str, more: dict[str, str] | None = None) -> None:
        self.send_response_only(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(content)), **(more or {})}.items():
            self.send_header(name, value)
        for header, text in self.server.checks.headers:
            self.send_header(header.decode(), text.decode())
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: the terminal is the player's."""


def serve(game: Game, console: Console, patience: float) -> None:
    """Serve until interrupted; prints the address that opens the page once."""
    with PlayServer(Board(game, patience)) as server:
        say(console, f"open in a browser on this machine, once: {server.url()}")
        console.print("Ctrl-C ends", style="dim")
        server.serve_forever()
