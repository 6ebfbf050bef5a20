"""Reference that physics/dynamics.py is checked with: the Lennard-Jones potential (Jones 1924, 10.1098/rspa.1924.0082), cut off.

4 epsilon [(sigma/r)^12 - (sigma/r)^6].
With an onset it is switched off smoothly between onset and cutoff (Brooks et al. 1983, 10.1002/jcc.540040211), which
dynamics needs if energy is to be conserved; without, it is cut and shifted, or just cut. Energies and forces equal
those of ``ase.calculators.lj``.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from probegym.errors import ProbeGymError


@dataclass(frozen=True)
class LennardJones:
    """One kind of atoms, ready for physics/dynamics.py. epsilon: J, sigma: m, cutoff, onset, skin: m (or all in units of one's own).

    shifted: the energy of a pair is 0 at the cutoff; has no effect with an onset, where it is in any case.
    """

    epsilon: float = 1.0
    sigma: float = 1.0
    cutoff: float = 3.0
    onset: float | None = None
    shifted: bool = True
    skin: float = 0.3
    kernel: str = field(default="lennard_jones", init=False)
    kinds: int = field(default=1, init=False)

    def __post_init__(self):
        if not (
            self.epsilon > 0 and self.sigma > 0 and self.skin >= 0 and self.cutoff > 0 and 0 < (self.onset or self.cutoff) <= self.cutoff
        ):
            raise ProbeGymError("Lennard-Jones needs epsilon, sigma and cutoff above 0, a skin not below, and the onset within the cutoff")

    @property
    def length(self) -> float:
        """The kernel's unit of length in m."""
        return self.sigma

    @property
    def energy(self) -> float:
        """The kernel's unit of energy in J."""
        return self.epsilon

    @property
    def reach(self) -> float:
        """The cutoff in m."""
        return self.cutoff

    @property
    def parameters(self) -> np.ndarray:
        """Cutoff, onset and shift in the order of the kernel's struct."""
        far, near = self.cutoff / self.sigma, (self.onset or self.cutoff) / self.sigma
        return np.array([far, near, 4 * (far**-12 - far**-6) if self.shifted and near == far else 0.0])
