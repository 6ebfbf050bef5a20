"""What goes in and out of the gate: requests for arming, commands that may be sent or wait for an operator, and the states between."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, NonNegativeInt, PositiveFloat

from probegym.hardware_bridge.capabilities import Charge
from probegym.hardware_bridge.commands import Command
from probegym.hardware_bridge.guard.ledger import Region
from probegym.hardware_bridge.world import Refused


class State(StrEnum):
    """Of the gate."""

    disarmed = "disarmed"
    asked = "asked"  # arming was asked for, the operator has not answered
    running = "running"
    held = "held"  # nothing passes until the operator goes on
    fault = "fault"  # the instrument was sent to its safe state; only an operator clears it


class Request(BaseModel):
    """What arming asks the operator for."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, strict=True)

    environment: str = Field(max_length=200)
    scenario: str = Field(max_length=500)
    policy: str = Field(max_length=200)  # its name and checksum
    seconds: PositiveFloat
    changes: NonNegativeInt
    damage: NonNegativeFloat = 0.0  # events that the instrument may tell of before the run is held
    approvals: NonNegativeInt = 0  # the first so many actions need an operator's agreement


class Record(Protocol):
    """Where everything is written down before it happens."""

    def append(self, kind: str, payload: dict[str, Any], arrays: dict[str, np.ndarray] | None = None) -> int:
        """Write one event, with arrays of any shape; it stands on the disk when this returns. Raises ProbeGymError."""


@dataclass(eq=False)
class Admission:
    """A command that may be sent once, not after ``by``. intent: its event in the record; until: when it counts as lost."""

    number: int
    action: int
    command: Command
    charge: Charge
    places: list[Region]
    intent: int = -1
    by: float = 0.0
    until: float = 0.0
    open: bool = True

    def claim(self, now: float) -> Command:
        """The command, right before it is sent; now: s, as of ``clock.now``. Raises Refused when it was sent before, is too old, or the gate has closed since."""
        if not self.open or not now <= self.by:
            raise Refused(f"{self.command.verb} may not be sent any more")
        self.open = False
        return self.command


@dataclass(frozen=True)
class Waiting:
    """A command that an operator must agree to.

    number: by which the operator names it, never used again; request: that of the session; action: the number of the action that it
    belongs to; until: for how long.
    """

    number: int
    request: int
    action: int
    content: Any
    until: float
