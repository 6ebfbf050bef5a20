"""What twins have in common: a batch of lanes as arrays, one handler a command, and draws that must lie within limits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import ClassVar

import numpy as np

from probegym.errors import ProbeGymError
from probegym.hardware_bridge.commands import Command, Lanes, LaneState, Readings
from probegym.hardware_bridge.world import Refused
from probegym.scenarios import ScenarioError


class LaneTwin:
    """The part of the world protocol that follows from ``state``: arrays with a leading axis of lanes, ``key`` and ``count`` among them.

    noun: who refuses, as "this STM has". ``_handlers``: type of a command -> method of (command, where) that returns readings.
    """

    noun: ClassVar[str]
    lanes: int
    state: Lanes
    _handlers: dict[type[Command], Callable[..., Readings]]

    def execute(self, command: Command, where: np.ndarray) -> Readings:
        """Carry a command out on the lanes of ``where`` (lanes,) bool; raises Refused for one that there is not, or whose numbers are not finite."""
        readings = self._handler(command, where)(command, where)
        self.state["count"] += where
        return readings

    def _handler(self, command: Command, where: np.ndarray) -> Callable[..., Readings]:
        handler = self._handlers.get(type(command))
        if handler is None:
            raise Refused(f"{self.noun} no {command.verb}")
        for name, argument in command.arguments().items():
            asked = argument[where] if argument.shape[:1] == where.shape else argument
            if argument.dtype.kind == "f" and not np.isfinite(asked).all():
                raise Refused(f"{command.verb}.{name} is not finite")
        return handler

    def portrait(self, lane: int) -> Lanes:
        """Nothing that is too costly for every step."""
        return {}

    def glance(self, lane: int, command: Command) -> Lanes:
        """Values of one lane that a command would give now; nothing changes. Empty for one that is refused."""
        kept, where = self.snapshot(lane), np.arange(self.lanes) == lane
        try:
            return {name: values[lane] for name, values in self.execute(command, where).values.items()}
        except Refused:
            return {}
        finally:
            self.restore(kept, lane)

    def snapshot(self, lane: int) -> LaneState:
        """All that decides a lane's future."""
        return LaneState.take(self.state, lane)

    def restore(self, state: LaneState, lane: int) -> None:
        """Put a snapshot into a lane."""
        state.put(self.state, lane)

    def rekey(self, key: int, lane: int) -> None:
        """Draw the noise to come from another key; the hidden state stays. Raises ProbeGymError for a key that is no uint64."""
        if isinstance(key, bool) or not isinstance(key, int | np.integer) or not 0 <= key < 2**64:
            raise ProbeGymError(f"a key must be a whole number from 0 to 2**64 - 1, got {key!r}")
        self.state["key"][lane] = np.uint64(key)


@contextmanager
def blamed_on(entry: str) -> Iterator[None]:
    """Raise ScenarioError, as that entry's, for what physics cannot make of an entry of the scenario."""
    try:
        yield
    except ScenarioError:
        raise
    except (ProbeGymError, ValueError, TypeError) as error:
        raise ScenarioError(entry, str(error)) from error


def refuse_outside(name: str, values: np.ndarray, limits: tuple[float, float]) -> None:
    """Raise ProbeGymError for a field of ``world`` of which a draw, values of any shape, lies outside (lowest, highest)."""
    low, high = limits
    outside = ~((values >= low) & (values <= high))
    if outside.any():
        raise ScenarioError(f"world.{name}", f"must be from {low:g} to {high:g}, drawn was {values[outside][0]:g}")
