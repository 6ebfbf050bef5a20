"""``probegym operate``: what an operator can do to a deployment in another terminal."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path

from rich.console import Console

from probegym.errors import ProbeGymError
from probegym.hardware_bridge.guard.operator import Operator
from probegym.hardware_bridge.instruments.drivers import from_file


class Action(StrEnum):
    """What can be asked of a guard that runs."""

    status = "status"
    present = "present"
    hold = "hold"
    resume = "resume"
    disarm = "disarm"
    abort = "abort"
    reset = "reset"


def operate(action: Action, at: Path, console: Console) -> None:
    """Do it and print how the guard stands then. Raises ProbeGymError with the guard's reason."""
    reached = from_file(at)
    if not isinstance(reached.get("port"), int) or not isinstance(reached.get("secret"), str):
        raise ProbeGymError(f"{at} does not tell how a guard is reached: give the FILE-operator.json of a deployment that runs")
    operator = Operator.connect(reached)
    if action in (Action.hold, Action.disarm, Action.abort):
        getattr(operator, action)("from another terminal")
    elif action is not Action.status:
        getattr(operator, action)()
    status = operator.status()
    safe = "safe state confirmed" if status["safe"] is True else "not in its safe state"
    console.print(f"{status['state']} ({status['why']}); {status['instrument']}: {safe}; lease {status['lease']:.0f} s", highlight=False, markup=False, soft_wrap=True)
