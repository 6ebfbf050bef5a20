"""Goals of AdatomManipulation and what they pay, as a function of positions alone, so that goals can be exchanged afterwards.

Positions are (m, 2 atoms), x and y of one atom after the other, in the task's unit. Several atoms are assigned to the goals
such that the sum of the distances is least.
"""

from __future__ import annotations

from itertools import permutations

import numpy as np


class Goals:
    """unit: m of the positions; lattice: m, unit of the potential; tolerance: m within which a goal is reached; atoms: how many."""

    def __init__(self, unit: float, lattice: float, tolerance: float, atoms: int):
        self.atoms, self.scale, self.tolerance = atoms, unit / lattice, tolerance / unit
        self.orders = np.array(list(permutations(range(atoms))))

    def assigned(self, achieved: np.ndarray, desired: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Number of the atom (m, atoms) for every goal, and its distance (m, atoms)."""
        atoms, goals = (np.asarray(v, float).reshape(len(v), self.atoms, 2) for v in (achieved, desired))
        apart = np.hypot(*np.moveaxis(goals[:, :, None] - atoms[:, None], -1, 0))
        totals = apart[:, np.arange(self.atoms), self.orders].sum(-1)
        order = self.orders[totals.argmin(1)]
        return order, np.take_along_axis(apart, order[..., None], 2)[..., 0]

    def distance(self, achieved: np.ndarray, desired: np.ndarray) -> np.ndarray:
        """Sum of the distances (m,) of all atoms from their goals."""
        return self.assigned(achieved, desired)[1].sum(1)

    def occupied(self, achieved: np.ndarray, desired: np.ndarray) -> np.ndarray:
        """How many goals (m,) have their atom."""
        return (self.assigned(achieved, desired)[1] < self.tolerance).sum(1)

    def reached(self, achieved: np.ndarray, desired: np.ndarray) -> np.ndarray:
        """(m,) bool: whether every goal has its atom."""
        return self.occupied(achieved, desired) == self.atoms

    def goal(self, achieved: np.ndarray, desired: np.ndarray) -> np.ndarray:
        """1 at the goal, else -1, (m,)."""
        return np.where(self.reached(achieved, desired), 1.0, -1.0)

    def progress(self, before: np.ndarray, achieved: np.ndarray, desired: np.ndarray) -> np.ndarray:
        """Growth (m,) of the potential, which is minus the sum of the distances over the lattice constant."""
        return self.scale * (self.distance(before, desired) - self.distance(achieved, desired))
