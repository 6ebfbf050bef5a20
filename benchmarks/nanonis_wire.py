"""Figures of the Nanonis wire: commands a second on loopback, by our own frames and by the vendor's client; how the finder of adatoms does on images with
what may be taken for one; and which methods of the vendor's client cannot read an answer that is what their own types say, or send another command than their name.

Needs the package nanonis_spm for what is about the vendor's client. ``python benchmarks/nanonis_wire.py``
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import inspect
import io
import socket
import struct
import threading
import time
from types import ModuleType
from typing import Any

import nanonis_frames
import numpy as np
from report import json_line, table

from probegym import scenarios
from probegym.hardware_bridge.instruments import InstrumentFault
from probegym.hardware_bridge.instruments.nanonis import commands, finder, protocol, server

TWIN = "probegym.hardware_bridge.twins.adatoms:AdatomTwin"
ROUNDS, IMAGES = 3000, 60
PATIENCE = 5.0  # s for an answer


def own_rate(port: int, name: str, **arguments: Any) -> float:
    """Commands a second through our own frames."""
    with socket.create_connection(("127.0.0.1", port)) as link:
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        stream = link.makefile("rb")
        request, begun = commands.request(name, **arguments), time.perf_counter()
        for _ in range(ROUNDS):
            link.sendall(request)
            commands.returns(name, stream.read(protocol.unpack_response(stream.read(protocol.HEADER), name)))
        return ROUNDS / (time.perf_counter() - begun)


def vendor_rate(vendor: ModuleType, port: int) -> float:
    """Commands a second through the vendor's client."""
    with socket.create_connection(("127.0.0.1", port)) as link:
        nanonis, begun = vendor.Nanonis(link), time.perf_counter()
        for _ in range(ROUNDS):
            nanonis.Bias_Get()
        return ROUNDS / (time.perf_counter() - begun)


# ---- the finder ----


def finds(kind: str) -> tuple[Any, ...]:
    """(kind, images refused, adatoms missed, false ones an image that was not refused, pm in the median, pm of the worst in a hundred)."""
    refused = missed = false = total = 0
    off: list[float] = []
    for seed in range(IMAGES):
        image, lone, close = nanonis_frames.frame(kind, seed)
        found = finder.places(image, nanonis_frames.LEAST, nanonis_frames.WIDTH)
        try:
            finder.Names(nanonis_frames.VIEW).named(found, len(lone) + len(close))
        except InstrumentFault:
            refused += 1
            continue
        lacking, wrong, far = nanonis_frames.judged(found, lone, close)
        missed, false, total = missed + lacking, false + wrong, total + len(lone)
        off += list(1e12 * far)
    told = (f"{np.median(off):.1f}", f"{np.quantile(off, 0.99):.0f}") if off else ("-", "-")
    return kind, f"{refused / IMAGES:.0%}", f"{missed / total:.0%}", f"{false / (IMAGES - refused):.2f}", *told


# ---- the vendor's client against answers that are what its own types say ----

SIZES = {"H": 2, "h": 2, "I": 4, "i": 4, "f": 4, "d": 8}
TEXT = struct.pack(">i", 2) + b"ab"


def answered(kinds: list[str]) -> bytes:
    """Values for a list of the client's return types: every count is 2, every number 1, every text ``ab``."""
    out = b""
    for at, kind in enumerate(kinds):
        later = kinds[at + 1 : at + 3]
        if kind in SIZES:
            texts = kind in "iI" and later[1:] == ["*+c"]  # the bytes of all texts come before their count
            array = any(k[0] in "*2" for k in later[:1]) or any(k[0] == "2" for k in later[1:])
            out += struct.pack(">" + kind, 2 * len(TEXT) if texts else 2 if array or (at == 0 and any(k[:2] == "**" for k in kinds)) else 1)
        elif kind.endswith("c"):
            out += {"*-c": b"ab", "+*c": TEXT}.get(kind, 2 * TEXT)
        else:
            out += (4 if kind[0] == "2" else 2) * struct.pack(">" + kind[-1], 1)
    return out


def asked(kinds: list[str], lists: bool) -> list[Any]:
    """Arguments for a list of the client's types. lists: whether the last text is one of several."""
    values = [[[1.0]] if k[0] == "2" else "ab" if k.endswith("c") else [1] if "*" in k else 1 for k in kinds]
    texts = [at for at, kind in enumerate(kinds) if kind.endswith("c")]
    if lists and texts:
        values[texts[-1]] = ["ab", "ab"]
    return values


def sent(kinds: list[str], values: list[Any]) -> bytes:
    """The body of a request as the vendor's document has it: sizes of texts in bytes, counts before arrays, rows and columns."""
    out = b""
    for kind, value in zip(kinds, values, strict=True):
        if isinstance(value, str):
            out += TEXT
        elif kind.endswith("c"):
            out += struct.pack(">ii", len(value) * len(TEXT), len(value)) + len(value) * TEXT
        elif kind[0] == "2":
            out += struct.pack(">iif", 1, 1, 1.0)
        else:
            out += (struct.pack(">i", 1) if kind[0] == "+" else b"") + struct.pack(">" + kind[-1], 1)
    return out


class Mirror:
    """Answers any command with what it was told to; a controller without a memory."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.answer, self.body = b"", b""
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        while True:
            link, _ = self.listener.accept()
            threading.Thread(target=self._serve, args=(link,), daemon=True).start()

    def _serve(self, link: socket.socket) -> None:
        stream = link.makefile("rb")
        while len(header := stream.read(protocol.HEADER)) == protocol.HEADER:
            self.body = stream.read(struct.unpack(">i", header[32:36])[0])
            link.sendall(protocol.pack_response(header[:32].rstrip(b"\0").decode(), self.answer))


def declared(vendor: ModuleType) -> dict[str, tuple[str, list[str], list[str]]]:
    """Method -> (command, types of its arguments, types of its returns), from what it hands on."""
    class Told(Exception):
        """Carries them."""

    def told(command: str, _: Any, takes: list[str], gives: list[str]) -> None:
        raise Told(command, list(takes), list(gives))

    client, found = vendor.Nanonis(None), {}
    client.quickSend = told
    for name, method in inspect.getmembers(vendor.Nanonis, inspect.isfunction):
        if "_" not in name or not name[0].isupper():
            continue
        try:
            getattr(client, name)(*([1] * (len(inspect.signature(method).parameters) - 1)))
        except Told as answer:
            found[name] = answer.args
    return found


def failures(vendor: ModuleType) -> tuple[int, list[tuple[str, str]]]:
    """(methods, those that fail and how) against answers that are consistent with the types that each method declares itself."""
    mirror, wrong, methods = Mirror(), [], declared(vendor)
    for name, (_, takes, gives) in methods.items():
        mirror.answer = answered(gives)
        arguments = asked(takes, "1D array string" in (inspect.getdoc(getattr(vendor.Nanonis, name)) or "").partition("Return arguments")[0])
        wanted = sent(takes, arguments)
        try:
            with socket.create_connection(mirror.listener.getsockname(), timeout=PATIENCE) as link, contextlib.redirect_stdout(io.StringIO()):
                result = getattr(vendor.Nanonis(link), name)(*arguments)
            if not result or result[0]:
                raise ValueError(f"it reads an error where there is none: {result[0][:40]!r}" if result else "it returns nothing")
            if mirror.body != wanted:
                at = next(at for at, (one, other) in enumerate(zip(mirror.body, wanted, strict=False)) if one != other)
                raise ValueError(f"it sends {mirror.body[at]} where the document has {wanted[at]}, the bytes that all texts take")
        except Exception as error:  # whatever it is, it is what a user of the client meets
            wrong.append((name, f"{type(error).__name__}: {error}"[:150]))
    return len(methods), wrong


def misnamed(vendor: ModuleType) -> list[tuple[str, str]]:
    """(method, command) where a method sends a command of another name."""
    return [(name, command) for name, (command, _, _) in declared(vendor).items() if command.replace(".", "_") != name]


def session(vendor: ModuleType) -> list[str]:
    """The vendor's client scans, moves an atom, pulses and withdraws; returns what the server was asked and answered."""
    world = scenarios.load("adatom_manipulation", "steady-tip").world
    with server.start(TWIN, world) as process, socket.create_connection(("127.0.0.1", process.ports[0]), timeout=PATIENCE) as link:
        x, y = process.truth()["position"][0, 0]
        nanonis = vendor.Nanonis(link)
        nanonis.Bias_Set(0.5)
        nanonis.ZCtrl_SetpntSet(50e-12)
        nanonis.ZCtrl_OnOffSet(1)
        for target in (x + 2e-9, None):
            nanonis.Scan_FrameSet(0, 0, 8e-9, 8e-9, 0)
            nanonis.Scan_BufferSet([0, 14], 128, 128)
            nanonis.Scan_SpeedSet(100e-9, 100e-9, 1, 1, 1, 1)
            nanonis.Scan_Action(0, 1)
            nanonis.Scan_WaitEndOfScan(60000)
            nanonis.Scan_FrameDataGrab(14, 1)
            if target is None:
                break
            nanonis.FolMe_SpeedSet(100e-9, 1)
            nanonis.FolMe_XYPosSet(float(x), float(y), 1)
            nanonis.Bias_Set(10e-3)  # 6 uS: the atom follows
            nanonis.ZCtrl_SetpntSet(60e-9)
            nanonis.FolMe_SpeedSet(5e-9, 1)
            nanonis.FolMe_XYPosSet(float(target), float(y), 1)
            nanonis.ZCtrl_SetpntSet(50e-12)
            nanonis.Bias_Set(0.5)
        moved = process.truth()["position"][0, 0] - (x, y)
        nanonis.Bias_Pulse(1, 0.1, 3.0, 1, 2)
        with contextlib.redirect_stdout(io.StringIO()):
            nanonis.Bias_Set(20.0)
        nanonis.ZCtrl_Withdraw(1, -1)
        nanonis.ZCtrl_StatusGet()
        return [*(line.split(" ", 1)[1] for line in process.report() if " " in line), f"the atom was moved by {1e9 * moved[0]:.2f}, {1e9 * moved[1]:.2f} nm"]


def main() -> None:
    """Print all of it."""
    world, figures = scenarios.load("adatom_manipulation", "steady-tip").world, dict[str, int]()
    vendor = importlib.import_module("nanonis_spm") if importlib.util.find_spec("nanonis_spm") else None
    with server.start(TWIN, world) as process:
        for name, arguments in (("Bias.Get", {}), ("Bias.Set", {"bias": 0.5}), ("FolMe.XYPosGet", {"wait": 0}), ("Signals.NamesGet", {})):
            figures[name] = round(own_rate(process.ports[0], name, **arguments))
            time.sleep(0.1)  # until the port is free again
        if vendor:
            figures["Bias.Get by the vendor's client"] = round(vendor_rate(vendor, process.ports[0]))
    table("Commands a second on loopback", ("command", "1/s"), list(figures.items()))
    found = [finds(kind) for kind in nanonis_frames.KINDS]
    table(f"The finder of adatoms on {IMAGES} images of each kind", ("image", "refused", "missed", "false an image", "off, pm", "99 %, pm"), found)
    if not vendor:
        print("\nnanonis_spm is not installed: nothing to say about the vendor's client")
        return
    print("\nA session of the vendor's client, as the server saw it", *session(vendor), sep="\n")
    methods, wrong = failures(vendor)
    table(f"Of {methods} methods of the vendor's client these {len(wrong)} fail against answers that are what their own types say, or send what their document does not", ("method", "what happens"), wrong)
    others = misnamed(vendor)
    table("And these send another command than their name says", ("method", "command"), others)
    json_line("nanonis", rates=figures, finder=found, methods=methods, failing=[name for name, _ in wrong], misnamed=dict(others))


if __name__ == "__main__":
    main()
