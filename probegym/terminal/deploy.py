"""``probegym deploy``: a policy on an instrument, with the operator at this terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from rich.console import Console
from rich.table import Table

from probegym.errors import ProbeGymError
from probegym.hardware_bridge import codec
from probegym.hardware_bridge.commands import Command
from probegym.hardware_bridge.deployment import Mode
from probegym.hardware_bridge.deployment.run import Deployment, Orders, agreement, checked, described, opening

POLL_SECONDS = 0.2


def plan(orders: Orders, console: Console) -> None:
    """Print what a deployment would do, and start nothing. Raises ProbeGymError where it could not be done."""
    bundle, descriptor = checked(orders), described(orders)
    console.print(f"[bold]{orders.mode}[/bold] of {orders.env_id}, scenario {orders.scenario}, {orders.episodes} episode(s) from seed {orders.seed}", highlight=False)
    console.print(f"policy {bundle.name}, sha256 {bundle.digest}, {1e3 * orders.deadline:g} ms for each decision", highlight=False)
    console.print(f"instrument {descriptor.name} ({descriptor.kind}); safe state: {', then '.join(descriptor.safe)}", highlight=False)
    console.print(f"limits of the run: {orders.seconds:g} s, {orders.changes} irreversible commands; sample: {orders.dose:g} electrons per square Angstrom and "
                  f"{orders.changes_each} irreversible commands for each region, account {orders.sample}", highlight=False)  # fmt: skip
    verbs = Table("verb", "effect", "limits", box=None, pad_edge=False, header_style="dim")
    for verb, capability in descriptor.capabilities.items():
        units = {name: unit for name, (_, unit) in codec.ARGUMENTS[verb].items()}
        told = [f"{name} {_short(r.low)} to {_short(r.high)} {units[name]}" for name, r in capability.ranges.items()]
        verbs.add_row(verb, capability.effect, "; ".join(told))
    console.print(verbs)
    first = Table("first commands", "at most s", "electrons/A^2", "changes", box=None, pad_edge=False, header_style="dim")
    for step in opening(orders, descriptor):
        first.add_row(shown(step["command"]), f"{step['seconds']:.3g}", f"{step['dose']:.3g}", str(step["changes"]))
    console.print(first)


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
    with ExitStack() as stack:
        run = stack.enter_context(Deployment(orders))
        stack.enter_context(_aborting(run, console))
        if run.record:
            console.print(f"record {run.record}", highlight=False, soft_wrap=True)
        if page:
            _page(run, console, stack)
        elif run.operator and orders.mode is not Mode.shadow:
            _arm(run, console)
        return _played(run, console, asks=not page)


def _page(run: Deployment, console: Console, stack: ExitStack) -> None:
    from probegym.hardware_bridge.page import start_page

    if run.guard is None or run.operator is None:
        raise ProbeGymError("a replay has no guard and no operator page: leave --page out")
    by_hand = run.orders.mode in (Mode.supervised, Mode.autonomous)
    page = start_page(run.guard.reached["operator"], request=run.request() if by_hand else None, descriptor=run.descriptor, mode=str(run.orders.mode))
    stack.callback(page.close)
    console.print(f"operator page, once: {page.url_with_code}", highlight=False, soft_wrap=True)
    if run.orders.mode is Mode.twin:
        _arm(run, console)
    while by_hand and run.operator.status()["state"] != "running":
        time.sleep(POLL_SECONDS)


def _arm(run: Deployment, console: Console) -> None:
    assert run.operator
    told = run.operator.ask(run.request())
    request, budget, spent = told["request"], told["budget"], told["spent"]
    console.print(f"self-test passed: the safe state is confirmed\npolicy {request['policy']}\nthis run: at most {request['seconds']:g} s and {request['changes']} "
                  f"irreversible commands\nsample: {spent['dose']:.4g} of {budget['dose']:.4g} electrons per square Angstrom spent, {spent['changes']} of "
                  f"{budget['changes']} irreversible commands", highlight=False)  # fmt: skip
    word = told["nonce"]
    if run.orders.mode is not Mode.twin:
        word = _typed(f"type {word} to arm: ", console)
    run.operator.arm(word)


def _typed(question: str, console: Console) -> str:
    console.print(question, end="", highlight=False, markup=False)
    line = sys.stdin.readline()
    if not line:
        raise ProbeGymError("nobody is at the terminal to answer: run this where an operator can type")
    return line.strip()


@contextmanager
def _aborting(run: Deployment, console: Console) -> Iterator[None]:
    """Ctrl-C aborts first and asks afterwards."""
    try:
        yield
    except KeyboardInterrupt:
        if run.operator:
            run.operator.abort("Ctrl-C at the terminal")
            console.print("aborted: the instrument is in its safe state", style="bold red")
        raise


def _played(run: Deployment, console: Console, asks: bool) -> int:
    successes, episodes = 0, 0
    for news in run.play():
        if asks and run.operator and run.orders.mode is Mode.supervised:
            _decisions(run, console)
        if "episode" in news:
            end = news["episode"]
            episodes += 1
            successes += end["success"] is True
            told = {True: "success", False: "no success", None: "success not known"}[end["success"]]
            costs = end["costs"]
            console.print(f"seed {end['seed']}: {told}, {end['steps']} steps, {costs['measurements']:g} measurements, {costs['time']:.4g} s, "
                          f"{costs['dose']:.4g} electrons/A^2, damage {costs['damage']:g}", highlight=False)  # fmt: skip
        if "stopped" in news:
            status = run.operator.status() if run.operator else {"state": "no guard"}
            console.print(f"stopped: {news['stopped']}\nguard: {status['state']}", style="red", highlight=False, markup=False)
            return 1
        if "done" in news:
            took = news["done"]
            console.print(f"{episodes} episodes, {successes} known successes; decisions: {took['steps']}, p50 {1e3 * took['p50_s']:.2f} ms, "
                          f"p99 {1e3 * took['p99_s']:.2f} ms, worst {1e3 * took['worst_s']:.2f} ms", highlight=False)  # fmt: skip
            if run.orders.mode is Mode.shadow and not run.record:
                console.print(f"shadow's record {news['record']}: nothing was sent", highlight=False)
            elif run.orders.mode is Mode.shadow:
                same, total = agreement(Path(news["record"]), Path(run.record))
                console.print(f"shadow's record {news['record']}: {same} of {total} commands are those that were given; nothing was sent", highlight=False)
    return 0


def _decisions(run: Deployment, console: Console) -> None:
    """Ask the operator for what waits."""
    assert run.operator
    waiting = run.operator.status()["waiting"]
    if waiting is None:
        return
    console.print(f"action {waiting['action']}: {shown(codec.command_from_json(waiting['command']))}", highlight=False, markup=False)
    agreed = _typed("agree? [y/n] ", console).lower() in ("y", "yes")
    run.operator.decide(waiting["number"], agreed)
