"""What a record says about episodes, for learning from them: observations, actions and rewards, step by step.

Kinds of events, in this order: ``begin``, ``observation``, then for every step ``action`` (commands and results in between),
``observation``, ``reward``; ``end`` where an episode ends. docs/records.md has the payloads.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from probegym.hardware_bridge.codec import Arrays, Json, shown
from probegym.hardware_bridge.records.layout import Event, RecordError
from probegym.hardware_bridge.records.read import Record

ACTION = "action"
"""Name of the array of an event ``action``."""
PLAIN = "observation"
"""Name of the only array of an event ``observation`` where observations are no dictionary."""


@dataclass
class Episode:
    """One episode: T + 1 observations, T actions and T rewards; a step that a crash cut off is left out.

    about: payload of ``begin``, seq: its number. whole: whether the last reward says that the episode ended.
    """

    about: Json
    seq: int
    observations: list[Event] = field(default_factory=list)
    actions: list[Event] = field(default_factory=list)
    rewards: list[Event] = field(default_factory=list)

    @property
    def whole(self) -> bool:
        return bool(self.rewards) and any(self.rewards[-1].payload.get(name) is True for name in ("terminated", "truncated"))

    def take(self, event: Event) -> None:
        """Add an event; an action that was not carried out is replaced by the next. Raises ValueError when it is out of order."""
        done = len(self.rewards)
        counts = len(self.observations) - done, len(self.actions) - done
        if event.kind == "observation" and counts in ((0, 0), (1, 1)) and (done == 0 or counts[1]):
            self.observations.append(event)
        elif event.kind == "action" and counts in ((1, 0), (1, 1)):
            self.actions[done:] = [event]
        elif event.kind == "reward" and counts == (2, 1):
            self.rewards.append(event)
        else:
            raise ValueError

    def trimmed(self) -> Episode:
        """Whole steps only."""
        steps = len(self.rewards)
        return Episode(self.about, self.seq, self.observations[: steps + 1], self.actions[:steps], self.rewards)


def episodes(record: Record) -> Iterator[Episode]:
    """The episodes with at least one step, in order; raises RecordError when events are out of order or the record is damaged."""
    current: Episode | None = None
    for event in record:
        if event.kind == "begin":
            if current and current.rewards:
                yield current.trimmed()
            current = Episode(event.payload, event.seq)
        elif event.kind in ("observation", "action", "reward"):
            try:
                if current is None:
                    raise ValueError
                current.take(event)
            except ValueError as error:
                raise RecordError(f"{record.folder}, event {event.seq}: {event.kind} is out of order in its episode") from error
    if current and current.rewards:
        yield current.trimmed()


def reward(record: Record, event: Event) -> tuple[float, bool, bool]:
    """(reward, terminated, truncated) of an event ``reward``; raises RecordError."""
    value, ends = event.payload.get("reward"), (event.payload.get("terminated"), event.payload.get("truncated"))
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e300 or not all(isinstance(end, bool) for end in ends):
        raise RecordError(f"{record.folder}, event {event.seq}: a reward needs a finite number, terminated and truncated")
    return float(value), bool(ends[0]), bool(ends[1])


def seed(record: Record, told: Json, seq: int) -> int | None:
    """The seed that the payload of ``begin`` tells, if it does; raises RecordError when that is no whole number from 0."""
    given = told.get("seed")
    if "seed" in told and (isinstance(given, bool) or not isinstance(given, int) or given < 0):
        raise RecordError(f"{record.folder}, event {seq}: a seed is a whole number from 0, got {shown(given)}")
    return given


def about(record: Record) -> Json:
    """What the first beginning says, with ``environment`` and ``scenario`` as texts, and ``seed`` a whole number from 0 if it is there.

    Raises RecordError when there is no beginning, or it does not say of which environment and scenario it is.
    """
    begun = next((event for event in record if event.kind == "begin"), None)
    if begun is None:
        raise RecordError(f"{record.folder} holds no beginning of an episode")
    for name in ("environment", "scenario"):
        if not isinstance(told := begun.payload.get(name), str) or not told.isprintable():
            raise RecordError(f"{record.folder}, event {begun.seq}: the beginning names no {name}, so use it in Python with the environment that it is of")
    seed(record, begun.payload, begun.seq)
    return begun.payload


def judged(record: Record) -> bool:
    """Whether hidden state was recorded, as of a twin, so that privileged rewards can be computed from it; raises RecordError for damage."""
    return any(event.kind == "truth" for event in record)


# ---- spaces ----


def space_to_json(space: Any) -> Json:
    """A Gymnasium space (Box, Discrete, MultiDiscrete, Dict of these) for the payload of ``begin``; bounds that are infinite are null.

    Raises RecordError for any other space.
    """
    kind = type(space).__name__
    if kind == "Dict":
        return {"type": kind, "subspaces": {name: space_to_json(inner) for name, inner in space.spaces.items()}}
    if kind == "Discrete":
        return {"type": kind, "dtype": "int64", "start": int(space.start), "n": int(space.n)}
    if kind == "MultiDiscrete":
        return {"type": kind, "dtype": str(space.dtype), "nvec": space.nvec.tolist(), "start": space.start.tolist()}
    if kind != "Box":
        raise RecordError(f"a space of type {kind} cannot be recorded: use Box, Discrete, MultiDiscrete or Dict")
    low, high = (_bound(np.asarray(bound)) for bound in (space.low, space.high))
    return {"type": kind, "dtype": str(space.dtype), "shape": list(space.shape), "low": low, "high": high}


def _bound(bound: np.ndarray) -> Any:
    """One number where all are equal, else a list of them; None for infinity."""
    return _finite(bound.reshape(-1)[0].item() if bound.size and (bound == bound.reshape(-1)[0]).all() else bound.tolist())


def _finite(value: Any) -> Any:
    if isinstance(value, list):
        return [_finite(inner) for inner in value]
    return value if math.isfinite(value) else None


def space_of(arrays: Arrays, plain: str) -> Json:
    """The space of arrays of which nothing else is known: unbounded boxes."""
    boxes = {name: {"type": "Box", "dtype": str(a.dtype.newbyteorder("=")), "shape": list(a.shape), "low": None, "high": None} for name, a in arrays.items()}
    return boxes[plain] if set(boxes) == {plain} else {"type": "Dict", "subspaces": boxes}
