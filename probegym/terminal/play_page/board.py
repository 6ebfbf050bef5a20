"""What the page shows and does: a game, the comparison at its end, and both as plain JSON."""

from __future__ import annotations

import threading
from base64 import b64encode
from typing import Any

import numpy as np

from probegym.agents.images import png
from probegym.envs.controls import Choice, Control, Dial, Place
from probegym.errors import ProbeGymError
from probegym.terminal.compare import PATIENCE, Row, others, passed_over, signed, table
from probegym.terminal.game import Game, open_game, purpose, section
from probegym.terminal.options import MAXIMUM_SEED


class Comparison:
    """Rows of the table as they come in, from a thread of its own."""

    def __init__(self, game: Game, patience: float):
        self.game, self.patience = game, patience
        self.rows, self.slow, self.busy = [game.row()], list[str](), True
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        g = self.game
        for one in others(g.env_id, g.scenario, g.seed, self.patience):
            if not self.busy:
                return
            if isinstance(one, Row):
                self.rows = [*self.rows, one]
            else:
                self.slow = [*self.slow, one]
        self.busy = False

    def shown(self) -> dict[str, Any]:
        """Head, lines, and a note below; whether more is to come."""
        head, lines = table(self.game.env_id, self.rows)
        return {"head": head, "lines": lines, "busy": self.busy, "note": passed_over(self.slow, self.patience)}


class Board:
    """One page's game; not for several threads at once."""

    def __init__(self, game: Game, patience: float = PATIENCE):
        self.patience, self.frame = patience, 0
        self._take(game)

    def _take(self, game: Game) -> None:
        self.game, self.told, self.refused = game, "", False
        self.comparison: Comparison | None = None
        self.frame, self.picture = self.frame + 1, png(game.picture())

    def do(self, what: str, body: dict[str, Any]) -> None:
        """``press`` {key}, ``put`` {name, value}, ``end`` {} or ``again`` {}. What the game refuses is told, what nobody can mean raises ProbeGymError."""
        wanted = {"press": {"key"}, "put": {"name", "value"}, "end": set[str](), "again": set[str]()}
        if what not in wanted or body.keys() != wanted[what]:
            raise ProbeGymError(f"use one of {', '.join(f'{name} with {sorted(fields)}' for name, fields in wanted.items())}")
        self.told, self.refused = "", False
        try:
            getattr(self, f"_{what}")(**body)
        except ProbeGymError as error:
            self.told, self.refused = str(error), True

    def _press(self, key: Any) -> None:
        if not isinstance(key, str) or len(key) != 1:
            raise ProbeGymError("a key is one character: nothing was done")
        g = self.game
        before = (g.steps, g.truth, g.over)
        self.told = g.press(key)
        if before != (g.steps, g.truth, g.over):
            self.frame, self.picture = self.frame + 1, png(g.picture())
        if g.over and self.comparison is None:
            self._end()

    def _put(self, name: Any, value: Any) -> None:
        if not isinstance(name, str):
            raise ProbeGymError("a control's name is text: nothing was done")
        self.game.put(name, value)
        self.game.chosen = [part.name for part in self.game.controls.parts].index(name)

    def _end(self) -> None:
        self.game.end()
        self.frame, self.picture = self.frame + 1, png(self.game.picture())
        if self.comparison is None:
            self.comparison = Comparison(self.game, self.patience)

    def _again(self) -> None:
        if self.comparison is not None:
            self.comparison.busy = False
        self._take(open_game(self.game.env_id, self.game.scenario, int(np.random.default_rng().integers(MAXIMUM_SEED))))

    def shown(self) -> dict[str, Any]:
        """Everything that the page draws, as plain JSON."""
        g = self.game
        about = {"env": g.env_id.split("/")[1], "scenario": g.scenario, "seed": g.seed, "purpose": purpose(g.env_id),
                 "description": section(g.env_id, "Description"), "end": section(g.env_id, "Episode End")}  # fmt: skip
        state = {"chosen": g.chosen, "over": g.over, "truth": g.truth, "told": self.told, "refused": self.refused, "frame": self.frame, "steps": g.steps}
        known = {"status": g.status(), "score": signed(g.score()), "score_name": g.score_name(), "foreseen": "" if g.over else g.foreseen()}
        closed = g.closed()
        controls = [self._control(part, closed) for part in g.controls.parts]
        return about | state | known | {"controls": controls, "table": None if self.comparison is None else self.comparison.shown()}

    def _control(self, part: Control, closed: dict[str, list[bool]]) -> dict[str, Any]:
        g = self.game
        value, seen = g.values[part.name], g.observation
        common = {"name": part.name, "meaning": part.meaning, "told": part.told(value, seen), "value": value}
        if isinstance(part, Dial):
            return common | {"kind": "dial", "low": part.low, "high": part.high, "log": part.log, "steps": part.steps, "share": part.share(value)}
        if isinstance(part, Choice):
            places = None if part.places is None else [None if np.isnan(at).any() else at.tolist() for at in part.places(seen)]
            return common | {"kind": "choice", "labels": list(part.labels), "closed": closed[part.name], "places": places}
        return common | {"kind": "place", "low": part.low, "high": part.high, "down": part.down, "unit": part.unit, "cells": part.cells,
                         "marks": {} if part.marks is None else part.marks(seen, g.values), "beneath": self._beneath(part)}  # fmt: skip

    def _beneath(self, part: Place) -> dict[str, Any] | None:
        if not part.beneath:
            return None
        grey = self.game.observation[part.beneath][0]
        return {"rows": grey.shape[0], "columns": grey.shape[1], "grey": b64encode(grey.tobytes()).decode()}
