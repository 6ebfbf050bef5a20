"""The verbs of the language as a table for its page, written from the commands themselves."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import numpy as np

from probegym.hardware_bridge import codec
from probegym.hardware_bridge.capabilities import Descriptor
from probegym.hardware_bridge.commands import Command

DETECTOR = "the detector's name"
HEAD = ("Verb", "What it does", "Arguments", "Readings", "Instruments")


def vocabulary(descriptors: Iterable[Descriptor]) -> str:
    """Markdown: a row a verb, with the units of its arguments, what comes back, and which of the instruments have it."""
    instruments = list(descriptors)
    rows = [HEAD, ("---",) * len(HEAD), *(_row(verb, instruments) for verb in sorted(codec.VERBS))]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in rows)


def _row(verb: str, descriptors: list[Descriptor]) -> tuple[str, ...]:
    kind = codec.VERBS[verb]
    arguments = [f"`{name}`" + (f" ({unit})" if unit else "") for name, (_, unit) in codec.ARGUMENTS[verb].items()]
    having = sorted({d.name for d in descriptors if verb in d.capabilities})
    told = _example(kind).returns()
    readings = [name if name == DETECTOR else f"`{name}`" for name in told]
    meaning = re.split(r"[.;](\s|$)", (kind.__doc__ or "").strip())[0].replace("``", "`")
    return tuple(cell or "-" for cell in (f"`{verb}`", meaning, ", ".join(arguments), ", ".join(readings), ", ".join(having)))


def _example(kind: type[Command]) -> Command:
    """A command that returns all that its verb can return."""
    plain: dict[Any, Any] = {bool: True, int: 1, str: DETECTOR, float: 1.0, tuple[int, int]: (1, 1), tuple[str, ...]: (), np.ndarray: np.ones((1, 2))}
    return kind(**{name: plain[hint] for name, (hint, _) in codec.ARGUMENTS[kind.__name__].items()})
