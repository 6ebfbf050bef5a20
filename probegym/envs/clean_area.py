"""Where on a surface a tip may still work: forbidden discs in a square, and the nearest clean place. Plain NumPy.

Places lie on a square grid of PITCH, so that two of the smallest discs fit side by side. Memory of a batch: ``clearance``
(lanes, places), the free radius around each place; ``discs`` (lanes, places, 3), x, y, radius in m, radius 0 where there is
none; ``treated`` (lanes,), how many there are; ``visits`` (lanes, places), how often each place was imaged; ``place``
(lanes,), the present one.
"""

from __future__ import annotations

import numpy as np

from probegym.hardware_bridge.commands import Lanes

PITCH = 25e-9


class CleanArea:
    """A square of side ``side`` (m) around the origin."""

    def __init__(self, side: float):
        count = max(1, int(side / PITCH + 1e-9))
        axis = (np.arange(count) - 0.5 * (count - 1)) * PITCH
        self.side, self.places = side, np.stack(np.meshgrid(axis, axis, indexing="ij"), -1).reshape(-1, 2)
        self.apart = np.hypot(*(self.places[:, None] - self.places[None]).transpose(2, 0, 1))

    def memory(self, lanes: int) -> Lanes:
        """A clean square; the tip is at the place nearest to its middle."""
        count = len(self.places)
        edge = 0.5 * self.side - np.abs(self.places).max(1)
        return {
            "clearance": np.tile(edge, (lanes, 1)),
            "discs": np.zeros((lanes, count, 3)),
            "treated": np.zeros(lanes, np.int64),
            "visits": np.zeros((lanes, count), np.int64),
            "place": np.full(lanes, np.hypot(*self.places.T).argmin()),
        }

    def room(self, memory: Lanes, radius: np.ndarray) -> np.ndarray:
        """Whether a disc of each radius (n,) m fits anywhere: (lanes, n) bool."""
        return memory["clearance"].max(1)[:, None] >= radius - 1e-15

    def nearest(self, memory: Lanes, radius: np.ndarray) -> np.ndarray:
        """Index (lanes,) of the nearest place where a disc of ``radius`` (lanes,) m fits, -1 where none is left; the present one first."""
        apart = np.where(memory["clearance"] >= radius[:, None] - 1e-15, self.apart[memory["place"]], np.inf)
        best = apart.argmin(1)
        return np.where(np.isfinite(apart[np.arange(len(best)), best]), best, -1)

    def next_view(self, memory: Lanes, radius: float) -> np.ndarray:
        """Index (lanes,) of the nearest place with ``radius`` (m) clean around it among those imaged least; -1 where none is left."""
        clean = memory["clearance"] >= radius - 1e-15
        visits = np.where(clean, memory["visits"], np.iinfo(np.int64).max)
        apart = np.where(clean & (visits == visits.min(1, keepdims=True)), self.apart[memory["place"]], np.inf)
        best = apart.argmin(1)
        return np.where(clean.any(1), best, -1)

    def fits(self, memory: Lanes, centre: np.ndarray, radius: np.ndarray) -> np.ndarray:
        """Whether a disc at ``centre`` (lanes, 2) keeps clear of all others and of the edge: (lanes,) bool."""
        discs = memory["discs"]
        apart = np.hypot(discs[..., 0] - centre[:, None, 0], discs[..., 1] - centre[:, None, 1])
        clear = (discs[..., 2] == 0) | (apart >= discs[..., 2] + radius[:, None] - 1e-15)
        return clear.all(1) & (np.abs(centre).max(1) + radius <= 0.5 * self.side + 1e-15)

    def spoil(self, memory: Lanes, where: np.ndarray, centre: np.ndarray, radius: np.ndarray) -> None:
        """Forbid a disc on some lanes: centre (lanes, 2), radius (lanes,)."""
        on = np.nonzero(where)[0]
        memory["discs"][on, memory["treated"][on]] = np.column_stack([centre, radius])[on]
        memory["treated"] += where
        left = np.hypot(*(self.places[None] - centre[on, None]).transpose(2, 0, 1)) - radius[on, None]
        memory["clearance"][on] = np.minimum(memory["clearance"][on], left)

    def spoiled(self, memory: Lanes) -> np.ndarray:
        """Area under all discs in m^2, (lanes,); they do not overlap."""
        total = np.zeros(len(memory["discs"]))
        for number in range(int(memory["treated"].max(initial=0))):  # one after the other: the same sum in every batch
            total += np.pi * memory["discs"][:, number, 2] ** 2
        return total
