"""The world protocol: what a twin, a replay and an instrument have in common, as a task sees them."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from probegym.errors import ProbeGymError
from probegym.hardware_bridge.commands import Command, Lanes, LaneState, Readings


class Refused(ProbeGymError):
    """A world will not carry out a command; the message says which limit it breaks. argument: whose, as ``AcquireImage.detector``, where it is told."""

    def __init__(self, told: str, argument: str = ""):
        super().__init__(told)
        self.argument = argument


class World(Protocol):
    """A batch of episodes on something that can be commanded. ``where``: (lanes,) bool, the lanes meant."""

    lanes: int

    def begin(self, keys: np.ndarray, where: np.ndarray) -> None:
        """Start a new episode on some lanes; everything random in it follows from its key (uint64)."""

    def execute(self, command: Command, where: np.ndarray) -> Readings:
        """Carry a command out; raises Refused when it is outside what this world can do."""

    def truth(self) -> Lanes | None:
        """Hidden state, for privileged rewards and pictures; None on an instrument."""

    def portrait(self, lane: int) -> Lanes:
        """Hidden state of one lane that is worth drawing but too costly for every step; empty where there is none."""

    def glance(self, lane: int, command: Command) -> Lanes:
        """Values that a command would give on one lane now, as ``execute`` gives them, at no cost to the episode; empty where nobody can look like that."""

    def snapshot(self, lane: int) -> LaneState:
        """All that decides a lane's future."""

    def restore(self, state: LaneState, lane: int) -> None:
        """Put a snapshot into a lane."""

    def rekey(self, key: int, lane: int) -> None:
        """Draw the noise to come from another key; the hidden state stays."""
