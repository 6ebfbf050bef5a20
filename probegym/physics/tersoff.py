"""The Tersoff bond-order potential for carbon and silicon.

    E = 1/2 sum_i sum_j fc(r_ij) [A exp(-lambda1 r_ij) - b_ij B exp(-lambda2 r_ij)],    b_ij = (1 + (beta zeta_ij)^n)^(-1 / 2n),
    zeta_ij = sum_k fc(r_ik) gamma (1 + c^2/d^2 - c^2 / (d^2 + (h - cos theta_ijk)^2)) exp((lambda3 (r_ij - r_ik))^m)

(Tersoff 1988, 10.1103/PhysRevB.37.6991; of several elements: 1989, 10.1103/PhysRevB.39.5566), with fc falling from 1 to 0 as
a sine between R - D and R + D. Forces are the exact derivatives and equal those of ``ase.calculators.tersoff``.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass, field
from functools import cached_property

import numpy as np
from scipy import constants

from probegym.errors import ProbeGymError

ANGSTROM = 1e-10
ELEMENTS = 4  # as many as the kernel has room for


@dataclass(frozen=True)
class Bond:
    """Parameters of bonds of element i to element j: A, B in eV, lambda1, lambda2 in 1/Angstrom; n and beta have no unit."""

    A: float
    B: float
    lambda1: float
    lambda2: float
    n: float
    beta: float


@dataclass(frozen=True)
class Angle:
    """Parameters of what a bond i, k does to another one of i: R, D in Angstrom (cutoff of i, k), lambda3 in 1/Angstrom."""

    R: float
    D: float
    gamma: float
    c: float
    d: float
    h: float
    lambda3: float = 0.0
    m: float = 1.0


@dataclass(frozen=True)
class Tersoff:
    """A Tersoff potential of named elements, ready for physics/dynamics.py.

    bonds: by (i, j). angles: by (i, k), or by (i, j, k) where it depends on the bond that is weakened.
    """

    elements: tuple[str, ...]
    bonds: dict[tuple[str, str], Bond]
    angles: dict[tuple[str, ...], Angle]
    skin: float = 0.5 * ANGSTROM
    kernel: str = field(default="tersoff", init=False)
    length: float = field(default=ANGSTROM, init=False)
    energy: float = field(default=constants.e, init=False)

    @property
    def kinds(self) -> int:
        """How many elements there are."""
        return len(self.elements)

    @cached_property
    def reach(self) -> float:
        """The longest cutoff in m."""
        return ANGSTROM * max(angle.R + angle.D for angle in self.angles.values())

    def species(self, symbols) -> np.ndarray:
        """Numbers of chemical symbols, for physics/dynamics.py; raises ProbeGymError for an element without parameters."""
        unknown = sorted(set(symbols) - set(self.elements))
        if unknown:
            raise ProbeGymError(f"no Tersoff parameters for {', '.join(unknown)}: this potential knows {', '.join(self.elements)}")
        return np.array([self.elements.index(symbol) for symbol in symbols], np.int32)

    def angle(self, i: str, j: str, k: str) -> Angle:
        """What the bond i, k does to the bond i, j."""
        return self.angles.get((i, j, k)) or self.angles[i, k]

    @cached_property
    def parameters(self) -> np.ndarray:
        """The tables in the order of the kernel's struct. Raises ProbeGymError for elements or cutoffs that the kernel has no place for."""
        if not 0 < len(self.elements) <= ELEMENTS:
            raise ProbeGymError(f"one to {ELEMENTS} elements, got {len(self.elements)}")
        pairs, triples = np.ones((8, ELEMENTS, ELEMENTS)), np.ones((6, ELEMENTS, ELEMENTS, ELEMENTS))
        for a, i in enumerate(self.elements):
            for b, j in enumerate(self.elements):
                own = self.angle(i, j, j)
                pairs[:, a, b] = [*astuple(self.bonds[i, j]), own.R, own.D]
                for c, k in enumerate(self.elements):
                    angle, cutoff = self.angle(i, j, k), self.angle(i, k, k)
                    if (angle.R, angle.D) != (cutoff.R, cutoff.D) or angle.m not in (1, 3):
                        raise ProbeGymError(f"Tersoff {i} {j} {k}: R and D must be those of {i} {k} {k}, and m 1 or 3")
                    triples[:, a, b, c] = [angle.gamma, angle.c**2, angle.d**2, angle.h, angle.lambda3, angle.m]
        return np.concatenate([pairs.ravel(), triples.ravel()])

    def for_ase(self) -> dict:
        """The same parameters as ``ase.calculators.tersoff.Tersoff`` takes them."""
        from ase.calculators.tersoff import TersoffParameters

        table = {}
        for i in self.elements:
            for j in self.elements:
                b = self.bonds[i, j]
                for k in self.elements:
                    a = self.angle(i, j, k)
                    order = (a.m, a.gamma, a.lambda3, a.c, a.d, a.h, b.n, b.beta, b.lambda2, b.B, a.R, a.D, b.lambda1, b.A)
                    table[i, j, k] = TersoffParameters(*order)
        return table


def graphene() -> Tersoff:
    """Carbon as fitted to the phonons of graphene by Lindsay & Broido (2010), 10.1103/PhysRevB.81.205441."""
    bond = Bond(A=1393.6, B=430.0, lambda1=3.4879, lambda2=2.2119, n=0.72751, beta=1.5724e-7)
    return Tersoff(("C",), {("C", "C"): bond}, {("C", "C"): Angle(R=1.95, D=0.15, gamma=1.0, c=38049.0, d=4.3484, h=-0.930, m=3.0)})


def silicon_carbon_1989() -> Tersoff:
    """Carbon and silicon by Tersoff (1989), 10.1103/PhysRevB.39.5566, with its erratum, 10.1103/PhysRevB.41.3248.2.

    The mixed values follow from the pure ones: lambda by the arithmetic, A, B, and both ends of the cutoff by the geometric
    mean, B times 0.9776. The cutoff's centre and half width are rounded to 2.36 and 0.15 Angstrom.
    """
    pure = {"C": Bond(1393.6, 346.74, 3.4879, 2.2119, 0.72751, 1.5724e-7), "Si": Bond(1830.8, 471.18, 2.4799, 1.7322, 0.78734, 1.1e-6)}
    shape = {"C": (1.0, 38049.0, 4.3484, -0.57058), "Si": (1.0, 100390.0, 16.217, -0.59825)}
    cutoff = {("C", "C"): (1.95, 0.15), ("Si", "Si"): (2.85, 0.15), ("C", "Si"): (2.36, 0.15), ("Si", "C"): (2.36, 0.15)}
    bonds: dict[tuple[str, str], Bond] = {}
    angles: dict[tuple[str, ...], Angle] = {}
    for i, k in cutoff:
        a, b, mixed = pure[i], pure[k], 1.0 if i == k else 0.9776
        lambdas = (0.5 * (a.lambda1 + b.lambda1), 0.5 * (a.lambda2 + b.lambda2))
        bonds[i, k] = Bond(np.sqrt(a.A * b.A), mixed * np.sqrt(a.B * b.B), *lambdas, a.n, a.beta)
        angles[i, k] = Angle(*cutoff[i, k], *shape[i], m=3.0)
    return Tersoff(("C", "Si"), bonds, angles)


def silicon_carbon() -> Tersoff:
    """Carbon and silicon by Erhart & Albe (2005), 10.1103/PhysRevB.71.035211.

    Given there as D0, r0, S, beta of a bond (A = D0/(S-1) exp(beta sqrt(2 S) r0) and so on); here in Tersoff's form, to the
    nine figures that the widely used tables have.
    """
    carbon = Bond(A=2019.8449, B=175.426651, lambda1=4.18426232, lambda2=1.93090093, n=1.0, beta=1.0)
    silicon = Bond(A=2145.7128, B=219.521624, lambda1=2.83318929, lambda2=1.53810493, n=1.0, beta=1.0)
    mixed = Bond(A=1779.36144, B=225.189481, lambda1=3.26563307, lambda2=1.76807421, n=1.0, beta=1.0)
    bonds = {("C", "C"): carbon, ("Si", "Si"): silicon, ("C", "Si"): mixed, ("Si", "C"): mixed}
    across = Angle(R=2.4, D=0.2, gamma=0.011877, c=273987.0, d=180.314, h=-0.68)
    angles: dict[tuple[str, ...], Angle] = {
        ("C", "C"): Angle(R=2.0, D=0.15, gamma=0.11233, c=181.91, d=6.28433, h=-0.5556),
        ("Si", "Si"): Angle(R=2.82, D=0.14, gamma=0.114354, c=2.00494, d=0.81472, h=-0.259),
        ("C", "Si"): across,
        ("Si", "C"): across,
    }
    return Tersoff(("C", "Si"), bonds, angles)
