"""``probegym deploy``: a policy on an instrument, with the operator at this terminal."""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from rich.console import Console
from rich.table import Table

from probegym.console import say
from probegym.errors import ProbeGymError
from probegym.hardware_bridge import codec
from probegym.hardware_bridge.channel import Disconnected, on_signals
from probegym.hardware_bridge.codec import Json
from probegym.hardware_bridge.commands import Command
from probegym.hardware_bridge.deployment import Mode
from probegym.hardware_bridge.deployment.run import (
    EVERY_ACTION,
    WITHOUT_LIMIT,
    Deployment,
    Orders,
    agreement,
    budgeted,
    checked,
    described,
    opening,
)
from probegym.hardware_bridge.page.display import readable
from probegym.hardware_bridge.world import Refused

POLL_SECONDS = 0.2
SETTLING_SECONDS = 2.0  # for the guard to reach its safe state after a run
UNITS = {"seconds": "seconds", "dose": "electrons per square Angstrom", "damage": "events of damage"} | dict.fromkeys(("changes", "changes_each"), "irreversible commands")
LIMITS = "They are set with --seconds and --changes; those of a new sample with --dose and --changes-each"


def plan(orders: Orders, console: Console) -> None:
    """Print what a deployment would do, and start nothing. Raises ProbeGymError where it could not be done."""
    bundle, descriptor = checked(orders), described(orders)
    say(console, f"{orders.mode} of {orders.env_id}, scenario {orders.scenario}, {orders.episodes} episode(s)", style="bold")
    say(console, f"policy {bundle.name}, sha256 {bundle.digest}, {1e3 * orders.deadline:g} ms for each decision")
    if orders.record is not None:
        say(console, f"answers come from record {orders.record}; no instrument is there, nothing is sent")
        return
    budget = budgeted(orders)
    say(console, f"instrument {orders.instrument}; limits and worst cases below are those of the scenario's twin: {descriptor.name} ({descriptor.kind})")
    say(console, f"safe state: {', then '.join(descriptor.safe)}")
    say(console, f"limits of the run: {_most('seconds', orders.seconds)}, {_most('changes', orders.changes)}, {_most('damage', orders.damage)}")
    say(console, f"limits of each region of the sample: {_most('dose', budget.dose)}, {_most('changes_each', budget.changes)}; account {orders.sample}")
    verbs = Table("verb", "effect", "limits", box=None, pad_edge=False, header_style="dim")
    for verb, capability in descriptor.capabilities.items():
        units = {name: unit for name, (_, unit) in codec.ARGUMENTS[verb].items()}
        told = [f"{name} {_short(r.low)} to {_short(r.high)} {units[name]}" for name, r in capability.ranges.items()]
        verbs.add_row(verb, capability.effect, "; ".join(told))
    console.print(verbs)
    steps = opening(orders, descriptor)
    first = Table("first commands", "at most s", "electrons/A^2", "changes", box=None, pad_edge=False, header_style="dim")
    for step in steps:
        first.add_row(shown(step["command"]), f"{step['seconds']:.3g}", f"{step['dose']:.3g}", str(step["changes"]))
    console.print(first)
    seconds, dose = sum(step["seconds"] for step in steps), max((step["dose"] for step in steps), default=0.0)
    if seconds > orders.seconds or dose > budget.dose:
        raise ProbeGymError(f"the first commands may take {seconds:.4g} s and {dose:.4g} electrons per square Angstrom, which is beyond the limits. {LIMITS}")


def _most(name: str, value: float) -> str:
    """A limit of ``Orders``, or what of it was spent, in words."""
    unit = UNITS[name]
    return f"{value:.7g} {unit}" if value < WITHOUT_LIMIT[name] else f"{unit} without limit"


def _short(limit: float | tuple[float, ...]) -> str:
    return f"{limit:g}" if isinstance(limit, float | int) else "(" + ", ".join(f"{n:g}" for n in limit) + ")"


def shown(command: Command) -> str:
    """A command as one readable line, with units."""
    told = codec.command_to_json(command)
    parts = []
    for name, value in told["arguments"].items():
        quantity = isinstance(value, dict)
        text = codec.dumps(value["value"] if quantity else value)
        parts.append(f"{name}={_cut(text)}" + (f" {value['unit']}" if quantity else ""))
    return f"{told['verb']}({', '.join(parts)})"


def _cut(text: str, most: int = 100) -> str:
    return text if len(text) <= most else f"{text[:most]}..."


def deploy(orders: Orders, page: bool, console: Console) -> int:
    """Carry a deployment out; returns the exit code: 0 when every episode was played, 1 when it was stopped.

    page: arming, agreement and abort are on the operator page, whose address is printed; else they are asked for here.
    """
    on_signals(signal.default_int_handler, "SIGTERM", "SIGHUP")  # as Ctrl-C: safe state, and nothing left behind
    with ExitStack() as stack:
        run = stack.enter_context(Deployment(orders))
        stack.enter_context(_aborting(run, console))
        stack.enter_context(_missed(run))
        if run.record:
            say(console, f"record {run.record}")
        if run.operator:
            _cleared(run, console)
        if page:
            _page(run, console, stack)
        elif run.operator and orders.mode is not Mode.shadow:
            _arm(run, console)
        elif orders.mode is Mode.shadow and not run.guard:
            say(console, f"looking at {orders.instrument}: waiting for frames that somebody else takes")
        return _played(run, console, asks=not page)


def _page(run: Deployment, console: Console, stack: ExitStack) -> None:
    from probegym.hardware_bridge.page import start_page

    if run.guard is None or run.operator is None:
        raise ProbeGymError("there is no guard of this run's own, so no operator page: leave --page out")
    by_hand = run.orders.mode in (Mode.supervised, Mode.autonomous)
    page = start_page(run.guard.reached["operator"], request=run.request() if by_hand else None, descriptor=run.descriptor, mode=str(run.orders.mode))
    stack.callback(page.close)
    say(console, f"operator page, once: {page.url_with_code}")
    if run.orders.mode is Mode.twin:
        _arm(run, console)
    while by_hand and (status := run.operator.status())["state"] != "running":
        if status["state"] == "fault":
            raise ProbeGymError(f"the guard is in fault ({status['why']}): look into it, then start anew")
        time.sleep(POLL_SECONDS)


def _arm(run: Deployment, console: Console) -> None:
    assert run.operator
    told = run.operator.ask(run.request())
    request, budget, spent = told["request"], told["budget"], told["spent"]
    say(console, f"policy tried; self-test passed: the safe state is confirmed\npolicy {request['policy']}")
    say(console, f"limits of the run: {', '.join(_most(name, request[name]) for name in ('seconds', 'changes', 'damage'))}")
    if run.orders.mode is Mode.supervised:
        say(console, "to be agreed to: every action" if request["approvals"] >= EVERY_ACTION else f"to be agreed to: the first {request['approvals']} actions")
    say(console, f"limits of each region of the sample: {_most('dose', budget['dose'])}, {_most('changes_each', budget['changes'])}")
    say(console, f"spent in its worst region: {_most('dose', spent['dose'])}, {_most('changes_each', spent['changes'])}")
    word = told["nonce"]
    if run.orders.mode is not Mode.twin:
        word = _typed(f"type {word} to arm: ", console)
    run.operator.arm(word)
    if run.orders.mode is not Mode.twin:
        say(console, f"armed; the lease ends in {run.operator.status()['lease']:.0f} s. In another terminal: probegym operate present --at {run.desk}")


def _cleared(run: Deployment, console: Console) -> None:
    """A fault of a run before stands in the sample's account until an operator has looked at the instrument."""
    assert run.operator
    status = run.operator.status()
    if status["state"] == "fault":
        say(console, f"a guard before this one ended in fault: {status['why']}", style="red")
        if _typed("type reset once the instrument has been looked at: ", console) != "reset":
            raise ProbeGymError("the fault stays: nothing is armed")
        run.operator.reset()


class Typed:
    """Lines that an operator types, waited for in short turns, so that Ctrl-C is never kept waiting."""

    def __init__(self) -> None:
        self.rest = b""

    def line(self) -> str:
        """The next line; raises ProbeGymError where nobody types."""
        while b"\n" not in self.rest:
            if os.name == "posix" and not select.select([0], [], [], POLL_SECONDS)[0]:
                continue
            if not (more := os.read(0, 4096)):
                raise ProbeGymError("nobody is at the terminal to answer: run this where an operator can type")
            self.rest += more
        line, _, self.rest = self.rest.partition(b"\n")
        return line.decode(errors="replace").strip()


_typing = Typed()


def _typed(question: str, console: Console) -> str:
    say(console, question, end="")
    return _typing.line()


@contextmanager
def _aborting(run: Deployment, console: Console) -> Iterator[None]:
    """Ctrl-C aborts first and asks afterwards."""
    try:
        yield
    except KeyboardInterrupt:
        if run.guard:
            try:
                confirmed, why = run.abort("Ctrl-C at the terminal"), "it is not read back"
            except ProbeGymError as error:
                confirmed, why = False, str(error)
            told = "aborted: the instrument is in its safe state" if confirmed else f"aborted, but THE SAFE STATE IS NOT CONFIRMED ({why}): look at the instrument"
            say(console, told, style="bold red")
        raise


@contextmanager
def _missed(run: Deployment) -> Iterator[None]:
    """A guard that has gone is told as that, and what follows."""
    try:
        yield
    except Disconnected as error:
        told = "the guard has gone, its guardian takes the instrument to its safe state: look whether it stands in it before anything else"
        raise (ProbeGymError(told) if run.guard and run.guard.process.poll() is not None else error) from error


def _played(run: Deployment, console: Console, asks: bool) -> int:
    successes, episodes, known = 0, 0, run.orders.mode in (Mode.twin, Mode.replay)
    for news in run.play():
        if asks and run.operator and run.orders.mode is Mode.supervised:
            _decisions(run, console)
        if "episode" in news:
            end = news["episode"]
            episodes += 1
            successes += end["success"] is True
            told = {True: "success", False: "no success", None: "success not known"}[end["success"]]
            costs, name = end["costs"], f"seed {end['seed']}" if known else f"episode {episodes}"
            say(console, f"{name}: {told}, {end['steps']} steps, {costs['measurements']:g} measurements, {costs['time']:.4g} s, "
                f"at most {costs['dose']:.4g} electrons/A^2, damage {costs['damage']:g}")  # fmt: skip
        if "stopped" in news:
            say(console, f"stopped: {news['stopped']}", style="red")
            if "spent" in news["stopped"] or "irreversible" in news["stopped"]:
                say(console, LIMITS)
            if run.operator:
                say(console, _after(run))
            _latency(news.get("latency"), console)
            return 1
        if "done" in news:
            say(console, f"{episodes} episodes, {successes} known successes")
            _latency(news["done"], console)
            if run.worker and run.worker[0].poll() not in (None, 0):
                say(console, "the policy that worked with the twin ended early: see its record", style="red")
            if run.orders.mode is Mode.shadow and not run.record:
                say(console, f"shadow's record {news['record']}: nothing was sent")
            elif run.orders.mode is Mode.shadow:
                same, total = agreement(Path(news["record"]), Path(run.record))
                say(console, f"shadow's record {news['record']}: {same} of {total} commands are those that the same policy gave behind the guard; the shadow sent nothing")
    return 0


def _after(run: Deployment) -> str:
    """How the guard stands once the session has left it."""
    assert run.operator
    end = time.monotonic() + SETTLING_SECONDS
    while (status := run.operator.status())["state"] in ("running", "held") and time.monotonic() < end:
        time.sleep(POLL_SECONDS / 4)
    stands = "confirmed" if status["safe"] is True else f"NOT CONFIRMED: {status['why']}"
    return f"guard: {status['state']}; safe state {stands}"


def _latency(took: Json | None, console: Console) -> None:
    if took and took["steps"]:
        say(console, f"decisions: {took['steps']}, p50 {1e3 * took['p50_s']:.2f} ms, p99 {1e3 * took['p99_s']:.2f} ms, worst {1e3 * took['worst_s']:.2f} ms; "
            f"whole steps: p50 {1e3 * took['step_p50_s']:.1f} ms, p99 {1e3 * took['step_p99_s']:.1f} ms")  # fmt: skip


def _decisions(run: Deployment, console: Console) -> None:
    """Ask the operator for what waits, and show all of it."""
    assert run.operator
    waiting = run.operator.status()["waiting"]
    if waiting is None:
        return
    say(console, f"action {waiting['action']}: {waiting['command']['verb']}")
    for name, value in readable(waiting["command"]):
        say(console, f"  {name:<14} {value}")
    agreed = _typed("agree? [y/n, n ends the run] ", console).lower() in ("y", "yes")
    try:
        run.operator.decide(waiting["number"], agreed)
    except Refused as error:
        say(console, str(error), style="red")  # the session is told as well, and ends the run
