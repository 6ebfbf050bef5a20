"""The guard's process: the only writer to an instrument. Sessions and operators connect to it; a guardian watches it.

``python -m probegym.hardware_bridge.guard.process`` is started by ``start``. Every way out of it leads through the safe state.
"""

from __future__ import annotations

import contextlib
import queue
import select
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from types import FrameType
from typing import Any

from probegym.errors import ProbeGymError
from probegym.hardware_bridge.channel import Channel, Listener, called, launch, on_signals
from probegym.hardware_bridge.clock import now
from probegym.hardware_bridge.codec import Arrays, Json, command_to_json, readings_to_json, shown
from probegym.hardware_bridge.commands import Readings
from probegym.hardware_bridge.guard.gate import SLACK_SECONDS, Admission, Gate, State, Waiting
from probegym.hardware_bridge.guard.ledger import Budget, Ledger
from probegym.hardware_bridge.instruments import Instrument, InstrumentFault
from probegym.hardware_bridge.instruments.drivers import only, open_writer
from probegym.hardware_bridge.records.log import Recorder
from probegym.hardware_bridge.world import Refused

BEAT_SECONDS = 0.03
TURN_SECONDS = 1.0  # that a turn of the guard's loop may take
SILENCE_SECONDS = 0.5  # of a session's pulse while the gate is open
WHOLE_SECONDS = 2.0  # for a message that has begun to come whole
WATCHED_SECONDS = 2.5  # without a word of the guardian; it looks at the instrument between two of them
NOTICE_SECONDS = 1.0  # between notes of strangers at the door
RUN_BYTES = 500_000_000  # that must be free on the disk when a run is armed
MOST_BYTES = 64_000_000  # of a message
LARGEST_NOTE = 100_000  # letters; arrays go beside it
NOTES = ("begin", "observation", "action", "reward", "truth", "end")  # what a session may have written down


class Worker:
    """Carries commands out beside the guard's loop, one at a time; a socket wakes the loop when one is done."""

    def __init__(self, instrument: Instrument):
        self.instrument = instrument
        self.todo: queue.SimpleQueue[Admission] = queue.SimpleQueue()
        self.done: queue.SimpleQueue[tuple[Admission, Readings | ProbeGymError]] = queue.SimpleQueue()
        self.bell, self._ring = socket.socketpair()
        self.busy = False
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        while True:
            self.busy = False
            admission = self.todo.get()
            self.busy = True
            outcome: Readings | ProbeGymError
            try:
                outcome = self.instrument.execute(admission.claim(now()), admission.charge.seconds + SLACK_SECONDS)
            except ProbeGymError as error:
                outcome = error
            except Exception as error:  # a driver's own mistake must not leave the guard waiting
                outcome = InstrumentFault(f"the driver failed ({type(error).__name__}: {str(error)[:200]})")
            self.done.put((admission, outcome))
            self._ring.send(b"!")


@dataclass
class Client:
    """Somebody who is connected. asked: number of the question that waits for its answer."""

    channel: Channel
    role: str
    asked: object = None


class Guard:
    """The loop around the gate. told: instrument, sample (path of its account), budget (of a new one), runs (folder of records), name, manifest."""

    def __init__(self, parent: Channel, told: Json):
        self.instrument = open_writer(told["instrument"], told["name"])
        account = self._account(told)  # first: without it there is nothing to be recorded
        self.recorder = Recorder(told["runs"], {"guard": told["name"], "instrument": self.instrument.descriptor.model_dump(mode="json")} | told["manifest"])
        self.gate = Gate(self.instrument, account, self.recorder, now)
        watched = {"instrument": only(told["instrument"], "safety"), "seconds": self.instrument.descriptor.safe_seconds}
        self.guardian, self.pulse, _ = launch("probegym.hardware_bridge.guard.guardian", watched, silent=True)
        self.worker = Worker(self.instrument)
        self.listeners = {role: Listener() for role in ("session", "pulse", "operator")}
        self.clients = [Client(parent, "operator")]
        self.pending: Client | None = None  # whose command is under way or waits for an operator
        self.stopping = ""
        self.heard = self.turned = self.noticed = self.guarded = time.monotonic()
        self.turned_away = 0  # strangers who are written down
        self.left = threading.Event()
        self.latest: tuple[Json, Arrays] = ({}, {})
        self.notes: dict[str, Json] = {}
        self.operator: dict[str, Callable[[Json], Json | None]] = {
            "status": lambda _: self.status(), "ask": self._ask, "arm": lambda q: self.gate.arm(str(q.get("nonce"))),
            "present": lambda _: self.gate.present(), "hold": lambda q: self.gate.hold(_why(q, "an operator holds")),
            "resume": lambda _: self.gate.resume(), "disarm": lambda q: self.gate.disarm(_why(q, "an operator disarmed")),
            "abort": lambda q: self.gate.abort(_why(q, "by an operator")), "reset": lambda _: self.gate.reset(), "decide": self._decide,
        }  # fmt: skip

    def _account(self, told: Json) -> Ledger:
        if not told["budget"]:
            return Ledger(told["sample"])
        here = self.instrument.descriptor
        return Ledger.create(told["sample"], Budget(**told["budget"], region=here.region, instrument=here.name))

    # ---- the loop ----

    def run(self) -> None:
        """Serve until told to stop; then the safe state, and goodbye to the guardian if it is confirmed."""
        threading.Thread(target=self._beat, daemon=True).start()
        try:
            while not self.stopping:
                self._once()
        except BaseException as error:
            self.gate.fail(f"the guard failed ({type(error).__name__}: {str(error)[:200]})")
            raise
        finally:
            self._leave()

    def _once(self) -> None:
        begun = self.turned = time.monotonic()
        self.gate.tick()
        if self.pending is not None and self.gate.waiting is None and self.gate.running is None:  # what waited for an operator was dropped
            self._reply({"refused": f"the gate is {self.gate.state}: {self.gate.why}"}, {})
        watched: list[Any] = [self.worker.bell, self.pulse, *self.listeners.values(), *(client.channel for client in self.clients)]
        ready, _, _ = select.select(watched, [], [], BEAT_SECONDS)
        if self.pulse in ready:
            self._guarded()
        if self.worker.bell in ready:
            self.worker.bell.recv(1)
            self._finished(*self.worker.done.get())
        for role, listener in self.listeners.items():
            if listener in ready:
                self._admit_client(role, listener)
        for client in [c for c in self.clients if c.channel in ready or c.channel.partial]:
            self._hear(client)
        joined = any(client.role != "operator" for client in self.clients)
        if joined and self.gate.state is State.running and begun - self.heard > SILENCE_SECONDS:  # when this turn began, and what had come by then was heard
            self.gate.fail(f"the session has been silent for {SILENCE_SECONDS:g} s")
        if self.gate.state is State.running and begun - self.guarded > WATCHED_SECONDS:
            self.gate.fail(f"the guardian has been silent for {WATCHED_SECONDS:g} s")
        self._strangers(begun)

    def _strangers(self, at: float) -> None:
        """Write down that somebody came without the secret."""
        count = sum(listener.turned_away for listener in self.listeners.values())
        if count > self.turned_away and at > self.noticed + NOTICE_SECONDS:
            self.turned_away, self.noticed = count, at
            self._write("stranger", {"turned_away": count})

    def _beat(self) -> None:
        """In a thread of its own: a slow disk must not look like a dead guard, but a loop that does not turn must."""
        while not self.left.wait(BEAT_SECONDS):
            if time.monotonic() - self.turned < TURN_SECONDS:
                try:
                    self.pulse.send({"beat": True})
                except ProbeGymError:
                    return  # the loop sees it as well

    def _guarded(self) -> None:
        """The guardian is there, has gone, or has acted."""
        try:
            word, _ = self.pulse.receive(1.0)
            self.guarded = time.monotonic()
            if word.get("here") is True:
                return
            self.gate.fail(f"the guardian acted: {str(word.get('acted'))[:100]}")
        except ProbeGymError:
            self.gate.fail("the guardian has gone")
            self.stopping = "the guardian has gone"

    def _leave(self) -> None:
        self.left.set()
        self.gate.disarm(self.stopping or "the guard ends")
        try:
            confirmed = self.instrument.is_safe()
        except ProbeGymError:
            confirmed = False
        try:
            self.pulse.send({"goodbye": confirmed})  # a guardian that is not released tries on by itself
        except ProbeGymError:
            pass
        self.pulse.close()
        with contextlib.suppress(Exception):  # a driver's own mistakes: the record is still to be closed
            self.instrument.close()  # what it had found before it was armed is given back
        self.recorder.close()
        for client in self.clients:
            client.channel.close()

    # ---- clients ----

    def _admit_client(self, role: str, listener: Listener) -> None:
        try:
            channel = listener.accept(0.0)
        except ProbeGymError:
            return
        if role != "operator" and any(client.role == role for client in self.clients):
            _say(channel, {"refused": "another session is connected: one at a time"})
            channel.close()
            return
        if role != "operator":
            self.heard = time.monotonic()
        _say(channel, {"welcome": role})
        self.clients.append(Client(channel, role))

    def _hear(self, client: Client) -> None:
        try:
            message = client.channel.poll(WHOLE_SECONDS, MOST_BYTES)
        except ProbeGymError:
            self._gone(client)
            return
        if message is None:
            return
        question, arrays = message
        if client.role == "pulse":
            self.heard = time.monotonic()
            return
        answer = self._answer(client, question, arrays)
        if answer is not None and not _say(client.channel, {"id": question.get("id")} | answer[0], answer[1]):
            self._gone(client)

    def _gone(self, client: Client) -> None:
        client.channel.close()
        if client in self.clients:
            self.clients.remove(client)
        if client.role != "operator":
            self.gate.disarm("the session has gone")
            self.pending = None
        elif not any(c.role == "operator" for c in self.clients):
            self.gate.disarm("no operator is connected any more")
            self.stopping = "no operator is connected any more"

    # ---- questions ----

    def _answer(self, client: Client, question: Json, arrays: Arrays) -> tuple[Json, Arrays] | None:
        what = question.get("do")
        try:
            if client.role == "session":
                return self._session(client, question, arrays)
            if what == "latest":
                return self.latest
            if what == "quit":
                self.stopping = "an operator ended it"
                return {}, {}
            if not isinstance(what, str) or what not in self.operator:
                raise Refused(f"an operator may not ask for {str(what)[:40]!r}: use one of {', '.join(self.operator)}")
            return self.operator[str(what)](question) or {}, {}
        except ProbeGymError as error:
            return {"refused": str(error)}, {}

    def _session(self, client: Client, question: Json, arrays: Arrays) -> tuple[Json, Arrays] | None:
        what = question.get("do")
        if what == "describe":
            return {"descriptor": self.instrument.descriptor.model_dump(mode="json")}, {}
        if what == "note":
            self._note(question, arrays)
            return None
        if what == "fault":
            self.gate.fail(f"the session reports: {str(question.get('why'))[:300]}")
            return {}, {}
        if what != "command":
            raise Refused(f"a session may not ask for {str(what)[:40]!r}")
        admitted = self.gate.admit(question.get("number"), question.get("stamp"), question.get("action"), question.get("command"))
        self.pending, client.asked = client, question.get("id")
        if isinstance(admitted, Admission):
            self.worker.todo.put(admitted)
        return None

    def _note(self, question: Json, arrays: Arrays) -> None:
        kind, payload = question.get("kind"), question.get("payload")
        if kind in NOTES and isinstance(payload, dict) and len(str(payload)) < LARGEST_NOTE:
            self.notes[str(kind)] = payload
            self._write(str(kind), payload, arrays)
        else:
            self._write("rejected", {"number": None, "why": f"a session may write down {', '.join(NOTES)}, of less than {LARGEST_NOTE} letters, not {shown(kind)}"})

    def _write(self, kind: str, payload: Json, arrays: Arrays | None = None) -> None:
        try:
            self.recorder.append(kind, payload, arrays)
        except ProbeGymError as error:
            self.gate.fail(f"the record cannot be written: {error}")

    def _finished(self, admission: Admission, outcome: Readings | ProbeGymError) -> None:
        if admission is not self.gate.running:
            self.gate.late(admission)  # it was given up as lost: what waits now is another command
            return
        try:
            readings = self.gate.complete(admission, outcome)
        except ProbeGymError as error:
            self._reply({"refused": str(error)}, {})
            return
        header, arrays = readings_to_json(readings)
        if arrays:  # a command without readings leaves what is shown
            self.latest = {"verb": admission.command.verb, "number": admission.number, "command": command_to_json(admission.command)}, arrays
        self._reply(header, arrays)

    def _reply(self, header: Json, arrays: Arrays) -> None:
        client, self.pending = self.pending, None
        if client is not None and not _say(client.channel, {"id": client.asked} | header, arrays):
            self._gone(client)

    def _ask(self, question: Json) -> Json:
        if self.worker.busy:
            raise Refused("the instrument has not answered a command yet: wait until it has, or start the guard anew")
        self.recorder.free_space(RUN_BYTES)
        return self.gate.ask(question.get("request"))

    def _decide(self, question: Json) -> None:
        number, agreed = question.get("number"), question.get("agreed") is True
        if isinstance(number, bool) or not isinstance(number, int):
            raise Refused("say which request is meant, by its number")
        waiting: Waiting | None = self.gate.waiting
        try:
            admission = self.gate.decide(number, agreed)
        except Refused as error:
            if waiting is not None and waiting.number == number:
                self._reply({"refused": str(error)}, {})
            raise
        if admission is None:
            self._reply({"refused": "the operator did not agree"}, {})
        else:
            self.worker.todo.put(admission)

    def status(self) -> Json:
        """What an operator is shown."""
        gate, spent = self.gate, self.gate.ledger.worst()
        waiting = None if gate.waiting is None else {"number": gate.waiting.number, "action": gate.waiting.action, "command": gate.waiting.content}
        return {
            "state": str(gate.state), "why": gate.why, "lease": max(0.0, gate.until - now()) if gate.state is not State.disarmed else 0.0,
            "instrument": self.instrument.descriptor.name, "kind": self.instrument.descriptor.kind, "record": self.recorder.folder.name,
            "request": gate.request.model_dump() if gate.request else None, "waiting": waiting, "refusals": gate.refusals,
            "rejected": list(gate.rejected), "safe": gate.safe,
            "spent": asdict(gate.account.spent), "limits": asdict(gate.account.limits), "sample": asdict(spent), "budget": gate.ledger.budget.model_dump(),
            "session": any(client.role == "session" for client in self.clients), "notes": self.notes, "latest": self.latest[0],
        }  # fmt: skip


def _why(question: Json, default: str) -> str:
    return str(question.get("why") or default)[:300]


def _say(channel: Channel, header: Json, arrays: Arrays | None = None) -> bool:
    try:
        channel.send(header, arrays, seconds=0.5)
    except ProbeGymError:
        return False
    return True


@dataclass
class GuardProcess:
    """A running guard. operator: the channel of the one who started it; ``reached``: port and secret for each role; record: its folder."""

    process: subprocess.Popen[bytes]
    operator: Channel
    reached: Json
    record: str
    descriptor: Json


def start(instrument: Json, sample: str, runs: str, name: str, manifest: Json, budget: Json | None = None) -> GuardProcess:
    """Start a guard for an instrument that a driver can reach. Raises ProbeGymError when it cannot start, with its reason.

    sample: path of its account. budget: ``dose`` and ``changes`` of each region, of a new sample whose account is to be made.
    """
    told = {"instrument": instrument, "sample": sample, "budget": budget, "runs": runs, "name": name, "manifest": manifest}
    process, channel, answer = launch("probegym.hardware_bridge.guard.process", told)
    return GuardProcess(process, channel, answer["reached"], answer["record"], answer["descriptor"])


def main() -> None:
    """The guard's process."""
    parent, told = called()
    try:
        guard = Guard(parent, told)
    except ProbeGymError as error:
        _say(parent, {"error": str(error)})
        return

    def stop(number: int, _: FrameType | None) -> None:
        guard.stopping = f"signal {number}"

    on_signals(stop, "SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGBREAK")
    reached = {role: listener.reached() for role, listener in guard.listeners.items()}
    _say(parent, {"reached": reached, "record": str(guard.recorder.folder), "descriptor": guard.instrument.descriptor.model_dump(mode="json")})
    guard.run()


if __name__ == "__main__":
    main()
