"""What an episode of AdatomManipulation remembers, and what of it an observation shows. Plain NumPy.

Memory of a batch: ``position``, ``start`` (lanes, adatoms, 2) and ``goal`` (lanes, atoms, 2) in m; ``achieved``, ``achieved_before``
and ``desired`` (lanes, 2 atoms) in the unit that is shown; ``records`` (lanes, drags, numbers), the last drag first; ``path``
(lanes, 2, 2) m and ``current`` (lanes, samples) A, of the last drag.
"""

from __future__ import annotations

from collections.abc import Generator

import numpy as np

from probegym.envs import adatom_assembly
from probegym.envs.adatom_settings import Settings
from probegym.envs.task import Observation, Where
from probegym.hardware_bridge.commands import Command, Lanes, LocateAdatoms, Readings
from probegym.scenarios import ScenarioError

FIRST_LOOKS = 10  # images in which all atoms must be found before an episode can start
MISSED = 10.0  # lattice constants between tip and atom that a record tells apart


def until_found(look: LocateAdatoms, lanes: int) -> Generator[tuple[Command, Where], Readings, None]:
    """Images until every lane has shown all its adatoms in one; raises ProbeGymError after FIRST_LOOKS."""
    wanting = np.ones(lanes, bool)
    for _ in range(FIRST_LOOKS):
        if wanting.any():
            seen = yield look, wanting
            wanting = (seen.time > 0) & ~seen.values["found"].all(1)
    if wanting.any():
        raise ScenarioError(("task.adatoms", "world"), f"the finder has not seen {look.count} adatoms in {FIRST_LOOKS} images: are there so many?")


class Notes:
    """Of one scenario's settings."""

    def __init__(self, settings: Settings):
        self.settings = s = settings
        self.places = s.shown == "goals"
        self.farthest = 2 * s.limits / s.unit + 1  # of anything from anything else, in the unit that is shown
        self.record = s.components + 1 + s.trace + 2 * self.places
        self.highest = max(self.farthest, MISSED)
        self.told = self.record * s.remembered + 2 * s.adatoms * self.places

    def memory(self, lanes: int) -> Lanes:
        """As at the start of an episode."""
        s = self.settings
        flat, pixels = (lanes, 2 * s.atoms), 0 if self.places else s.image.pixels
        return {
            "key": np.zeros(lanes, np.uint64),
            "position": np.zeros((lanes, s.adatoms, 2)),
            "start": np.zeros((lanes, s.adatoms, 2)),
            "goal": np.zeros((lanes, s.atoms, 2)),
            "achieved": np.zeros(flat, np.float32),
            "achieved_before": np.zeros(flat, np.float32),
            "desired": np.zeros(flat, np.float32),
            "lost": np.zeros(lanes, bool),
            "drags": np.zeros(lanes, np.int64),
            "images": np.zeros(lanes, np.int64),
            "action": np.zeros((lanes, s.components), np.float32),
            "chosen": np.zeros(lanes, np.int64),
            "records": np.zeros((lanes, s.remembered, self.record), np.float32),
            "path": np.zeros((lanes, 2, 2)),
            "current": np.zeros((lanes, s.drag.samples), np.float32),
            "grey": np.zeros((lanes, pixels, pixels), np.uint8),
        }

    def chosen(self, memory: Lanes) -> np.ndarray:
        """Where the atom is that the last drag was meant for, (lanes, 2) m."""
        return memory["position"][np.arange(len(memory["chosen"])), memory["chosen"]]

    def located(self, m: Lanes, looks: list[Readings], where: np.ndarray) -> np.ndarray:
        """Take over what images show, each but the first of what the one before missed; returns the lanes of which one was taken, (lanes,) bool."""
        missing = np.zeros(len(where), bool)
        for look in looks:
            asked = where & (look.time > 0)
            seen = asked[:, None] & look.values["found"]
            m["position"] = np.where(seen[..., None], look.values["position"], m["position"])
            missing = np.where(asked, ~seen.all(1), missing)
            m["images"] += asked
            if not self.places and asked.any():
                m["grey"][asked] = self.grey(look.values["height"][asked])
        m["lost"] |= missing
        return where & (looks[0].time > 0)

    def grey(self, height: np.ndarray) -> np.ndarray:
        """Topographs (lanes, rows, columns) m as uint8, the median half way."""
        level = height - np.median(height, axis=(1, 2), keepdims=True)
        return np.clip(127.5 + level * (255 / self.settings.image.grey_range), 0, 255).astype(np.uint8)

    def begin(self, m: Lanes, where: np.ndarray) -> None:
        """Draw the goals of lanes, now that their atoms have been found; where: (lanes,) bool."""
        s = self.settings
        goal = adatom_assembly.single(m["key"], m["position"][:, 0], s) if s.atoms == 1 else adatom_assembly.pattern(m["key"], s)
        m["start"][where], m["goal"][where] = m["position"][where], goal[where]
        self.place(m, where)
        m["achieved_before"][where] = m["achieved"][where]

    def place(self, m: Lanes, where: np.ndarray) -> None:
        """Bring what is shown of atoms and goals up to date; goals follow the anchor where there is one; where: (lanes,) bool."""
        s = self.settings
        drift = m["position"][:, -1:] - m["start"][:, -1:] if s.anchor else 0.0
        m["achieved_before"][where] = m["achieved"][where]
        m["achieved"][where] = self.shown(m["position"][:, : s.atoms], m)[where]
        m["desired"][where] = self.shown(m["goal"] + drift, m)[where]

    def shown(self, position: np.ndarray, m: Lanes) -> np.ndarray:
        """Positions (lanes, n, 2) m as (lanes, 2 n): of one atom from its start, of several from the middle of the image."""
        origin = m["start"][:, :1] if self.settings.atoms == 1 else 0.0
        shown = np.clip((position - origin) / self.settings.unit, -self.farthest, self.farthest)
        return shown.reshape(len(shown), -1).astype(np.float32)

    def remember(self, m: Lanes, looked: np.ndarray, setpoint: np.ndarray, where: np.ndarray) -> None:
        """Note the last drag down: its action, whether an image was taken, the trace, and how far from the tip's end the atom came to rest.

        looked: (lanes,) bool; setpoint: (lanes,) A.
        """
        s = self.settings
        m["drags"] += where
        if not s.remembered:
            return
        columns = [m["action"], looked[:, None]]
        if s.trace:
            each = s.drag.samples // s.trace
            mean = m["current"][:, : each * s.trace].reshape(len(looked), s.trace, each).mean(2) / setpoint[:, None]
            columns.append(np.log10(np.clip(mean, 1e-3, 1e3)))
        if self.places:
            columns.append(np.clip((self.chosen(m) - m["path"][:, 1]) / s.lattice, -MISSED, MISSED))
        new = np.concatenate(columns, 1).astype(np.float32)[:, None]
        m["records"][where] = np.concatenate([new, m["records"][:, :-1]], 1)[where]

    def observation(self, m: Lanes) -> Observation:
        """What an agent sees."""
        s, records = self.settings, m["records"].reshape(len(m["key"]), -1)
        if not self.places:
            goal = adatom_assembly.goal_image(m["goal"][:, 0], s.image.pixels, 2 * s.limits, s.tolerance)
            return {"observation": records.copy(), "image": np.stack([m["grey"], goal], 1)}
        told = np.concatenate([self.shown(m["position"], m), records], 1)
        return {"observation": told, "achieved_goal": m["achieved"].copy(), "desired_goal": m["desired"].copy()}
