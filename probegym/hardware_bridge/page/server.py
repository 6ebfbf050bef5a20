"""The page's server: a client of the guard on one side, of browsers on this machine on the other.

``python -m probegym.hardware_bridge.page`` is started by ``start_page``. Everything that changes something is a POST, everything that
is shown goes down one websocket; access.py decides who may do either.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Any, TypeVar

import uvicorn
from fastapi import APIRouter, FastAPI, Request, Response, WebSocket, WebSocketDisconnect
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, PlainTextResponse, RedirectResponse
from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictInt

from probegym.errors import ProbeGymError
from probegym.hardware_bridge import capabilities, codec
from probegym.hardware_bridge.channel import HOST, Channel, Disconnected, called
from probegym.hardware_bridge.codec import Json
from probegym.hardware_bridge.guard.operator import Operator
from probegym.hardware_bridge.page import display
from probegym.hardware_bridge.page.access import COOKIE, LOGIN, Access, Keys, Refusals
from probegym.hardware_bridge.page.board import Board
from probegym.hardware_bridge.world import Refused

STATIC = Path(__file__).parent / "static"
FILES = {"": "index.html", "page.js": "page.js", "page.css": "page.css"}
LOOK_SECONDS = 0.1  # between two looks at the guard
AGAIN_SECONDS = 1.0  # until a guard that is lost is looked for again
ANSWER_SECONDS = 5.0  # of the guard; a self-test and a safe state are among what it may have to do first
ABSENT_SECONDS = 3.0  # without any open page, then the run is held: long enough for a page to be loaded again

T = TypeVar("T")


class Arming(BaseModel):
    """The nonce, repeated."""

    model_config = ConfigDict(extra="forbid")

    nonce: Annotated[str, Field(max_length=40)]


class Decision(BaseModel):
    """The answer to the request with this number."""

    model_config = ConfigDict(extra="forbid")

    number: StrictInt
    agreed: StrictBool


class Line:
    """A connection to the guard with a thread of its own: what waits on one line never keeps another from being heard.

    A line that was lost is made anew before the next question; no question is asked twice, but for an abort.
    """

    def __init__(self, reached: Json):
        self.reached, self.thread = reached, ThreadPoolExecutor(1)
        self.operator = Operator.connect(reached, ANSWER_SECONDS)

    async def do(self, what: Callable[[Operator], T]) -> T:
        """Ask on this line; raises what the operator's methods raise."""
        return await asyncio.get_running_loop().run_in_executor(self.thread, self._do, what)

    def _do(self, what: Callable[[Operator], T]) -> T:
        if self.operator.channel.fileno() < 0:
            self.operator = Operator.connect(self.reached, ANSWER_SECONDS)
        return what(self.operator)


class Page:
    """What runs in the page's process. ``watching`` looks, ``acting`` does what the operator asks for, ``stopping`` only aborts."""

    def __init__(self, told: Json):
        limits = display.limits(capabilities.descriptor(told["descriptor"])) if told["descriptor"] else []
        self.board, self.keys = Board(told["mode"], told["request"], limits), Keys()
        self.refusals = Refusals()
        self.watching, self.acting, self.stopping = (Line(told["reached"]) for _ in range(3))
        self.look = asyncio.Event()
        self.open = 0

    async def watch(self) -> None:
        """Look at the guard for as long as the page runs."""
        shown: object = None
        while True:
            pause = LOOK_SECONDS
            try:
                at = time.monotonic()
                status = await self.watching.do(Operator.status)
                self.board.take(status, at)
                if (number := status["latest"].get("number")) != shown:
                    self.board.show(*await self.watching.do(Operator.latest))
                    shown = number
            except ProbeGymError as error:
                self.board.lost(str(error))
                pause = AGAIN_SECONDS
            except Exception as error:  # whatever a guard says must not leave the page blind without a word
                self.board.lost(f"the guard's answer cannot be shown ({type(error).__name__}: {str(error)[:100]})")
                pause = AGAIN_SECONDS
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.look.wait(), pause)
            self.look.clear()
            self.refusals.turn()

    async def abort(self) -> None:
        """Abort, over a new connection if the first does not answer."""
        try:
            await self.stopping.do(Operator.abort)
        except Disconnected:
            await self.stopping.do(Operator.abort)

    async def ask(self) -> None:
        """Ask for arming what the page was told to ask for."""
        if self.board.request is None:
            raise Refused("this page has nothing to ask for: ask for arming where the run was started")
        request = self.board.request
        self.board.ask(await self.acting.do(lambda operator: operator.ask(request)))

    async def live(self, websocket: WebSocket) -> None:
        """Send one page what it lacks, until it closes."""
        seen: dict[str, int] = {}
        with contextlib.suppress(WebSocketDisconnect):
            while True:
                await websocket.send_text(codec.dumps(self.board.message(seen)))
                await asyncio.sleep(LOOK_SECONDS)

    async def left(self) -> None:
        """A page was closed: without any the operator counts as absent, and a run is held."""
        await asyncio.sleep(ABSENT_SECONDS)
        if not self.open and self.board.status and self.board.status["state"] == "running":
            with contextlib.suppress(ProbeGymError):
                await self.acting.do(lambda operator: operator.hold("the operator's page was closed"))


def application(page: Page, port: int) -> Access:
    """The application, behind its checks."""
    tasks = set[asyncio.Task[Any]]()

    def begin(coroutine: Any) -> asyncio.Task[Any]:
        task = asyncio.get_running_loop().create_task(coroutine)
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        return task

    @contextlib.asynccontextmanager
    async def running(_: FastAPI) -> AsyncIterator[None]:
        begin(page.watch())
        yield
        for task in tasks:
            task.cancel()
        page.refusals.end()

    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, lifespan=running)
    router = APIRouter(prefix=page.keys.path)

    @app.get(LOGIN)
    async def login(code: str = "") -> Response:
        token = page.keys.exchange(code)
        if token is None:
            return PlainTextResponse("this code was used before or is not known: open the newest address", 401)
        answer = RedirectResponse(f"{page.keys.path}/", 303)
        answer.set_cookie(COOKIE, token, httponly=True, samesite="strict", path=f"{page.keys.path}/")
        return answer

    @router.get("/")
    @router.get("/{name}")
    async def file(name: str = "") -> Response:
        return FileResponse(STATIC / FILES[name]) if name in FILES else PlainTextResponse("there is no such page", 404)

    @router.post("/do/ask")
    async def ask() -> Json:
        return await done("asks for arming", page.ask())

    @router.post("/do/arm")
    async def arm(body: Arming) -> Json:
        return await done("arms", page.acting.do(lambda operator: operator.arm(body.nonce)))

    @router.post("/do/decide")
    async def decide(body: Decision) -> Json:
        words = f"{'agrees' if body.agreed else 'does not agree'} to request {body.number}"
        return await done(words, page.acting.do(lambda operator: operator.decide(body.number, body.agreed)))

    @router.post("/do/abort")
    async def abort() -> Json:
        return await done("aborts", page.abort())

    simple = {"present": "is present", "hold": "holds", "resume": "goes on", "disarm": "disarms", "reset": "resets the fault"}

    @router.post("/do/{what}")
    async def plain(what: str) -> Response:
        if what not in simple:
            return PlainTextResponse(f"use one of ask, arm, decide, abort, {', '.join(simple)}", 404)
        return JSONResponse(await done(simple[what], page.acting.do(lambda operator: getattr(operator, what)())))

    async def done(words: str, asked: Any) -> Json:
        try:
            await asked
        except ProbeGymError as error:
            page.board.write("operator", f"{words}: {error}")
            raise
        finally:
            page.look.set()
        page.board.write("operator", words)
        return {}

    @router.websocket("/live")
    async def live(websocket: WebSocket) -> None:
        await websocket.accept()
        page.open += 1
        both = {begin(page.live(websocket)), begin(websocket.receive())}  # a page never says anything but that it goes
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in both:
                task.cancel()
            page.open -= 1
            begin(page.left())

    @app.exception_handler(RequestValidationError)
    async def unlike(_: Request, error: RequestValidationError) -> Response:
        """What was sent is not repeated: it may be no text at all."""
        return JSONResponse({"refused": "the fields that this needs lack, are too many, or of another type"}, 422)

    @app.exception_handler(Refused)
    async def refused(_: Request, error: Refused) -> Response:
        return JSONResponse({"refused": str(error)}, 409)

    @app.exception_handler(ProbeGymError)
    async def failed(_: Request, error: ProbeGymError) -> Response:
        return JSONResponse({"refused": str(error)}, 503)

    app.include_router(router)
    return Access(app, port, page.keys, page.refusals)


def main() -> None:
    """The page's process: serves until the one who started it goes. What it refuses goes to the standard error."""
    logging.basicConfig(format="%(asctime)s %(name)s: %(message)s", level=logging.WARNING)
    try:
        parent, told = called()
    except ProbeGymError as error:
        sys.exit(str(error))
    try:
        page = Page(told)
        listener = _listener(told["port"])
    except ProbeGymError as error:
        parent.send({"error": str(error)})
        return
    port = listener.getsockname()[1]

    def url() -> str:
        return f"http://{HOST}:{port}{LOGIN}?code={page.keys.code()}"

    config = uvicorn.Config(application(page, port), log_level="warning", access_log=False, server_header=False, ws="websockets-sansio", ws_max_size=1024, timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    parent.send({"url": url()})
    threading.Thread(target=_attend, args=(parent, url, server), daemon=True).start()
    server.run([listener])


def _listener(port: int) -> socket.socket:
    try:
        return socket.create_server((HOST, port))
    except (OSError, OverflowError) as error:
        raise ProbeGymError(f"the page cannot have port {port} ({error}): choose another, or 0 for any") from error


def _attend(parent: Channel, url: Callable[[], str], server: uvicorn.Server) -> None:
    """Hand out further addresses; when the parent goes, so does the page."""
    try:
        while True:
            question, _ = parent.receive()
            parent.send({"url": url()} if question.get("do") == "url" else {"refused": "a page hands out addresses and nothing else"})
    except ProbeGymError:
        server.should_exit = True
