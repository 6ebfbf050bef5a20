"""``probegym operate``: what an operator can do to a deployment in another terminal."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from probegym.console import say
from probegym.errors import ProbeGymError
from probegym.hardware_bridge.guard.operator import Operator
from probegym.hardware_bridge.instruments.drivers import from_file
from probegym.hardware_bridge.page.display import readable
from probegym.terminal.choices import Action


def operate(action: Action, at: Path, number: int | None, console: Console) -> None:
    """Do it and print how the guard stands then. number: of the request that is agreed to or denied. Raises ProbeGymError with the guard's reason."""
    reached = from_file(at)
    if not isinstance(reached.get("port"), int) or not isinstance(reached.get("secret"), str):
        raise ProbeGymError(f"{at} does not tell how a guard is reached: give the FILE-operator.json of a deployment that runs")
    answers = action in (Action.agree, Action.deny)
    if answers != (number is not None):
        raise ProbeGymError("say which request is meant, with --number as status shows it" if answers else "--number is for agree and deny")
    operator = Operator.connect(reached)
    if number is not None:
        operator.decide(number, action is Action.agree)
    elif action in (Action.hold, Action.disarm, Action.abort):
        getattr(operator, action)("from another terminal")
    elif action is not Action.status:
        getattr(operator, action)()
    status = operator.status()
    safe = "safe state confirmed" if status["safe"] is True else "not in its safe state"
    say(console, f"{status['state']} ({status['why']}); {status['instrument']}: {safe}; lease {status['lease']:.0f} s")
    if (waiting := status["waiting"]) is not None:
        say(console, f"request {waiting['number']} waits, action {waiting['action']}: {waiting['command']['verb']}")
        for name, value in readable(waiting["command"]):
            say(console, f"  {name:<14} {value}")
