"""Molecular dynamics of batches of small systems: forces, velocity Verlet, Langevin dynamics, relaxation.

A potential (physics/tersoff.py, physics/lennard_jones.py) brings a C kernel; the loops over steps are in
kernels/dynamics.h, with a neighbour list that is made anew once an atom has gone half the skin. Langevin dynamics is BAOAB,

    v += F dt / 2m,  x += v dt / 2,  v <- exp(-g dt) v + sqrt((1 - exp(-2 g dt)) kT / m) N(0, 1),  x += v dt / 2,  v += F dt / 2m

(Leimkuhler & Matthews 2013, 10.1093/amrx/abs010); without friction g it is velocity Verlet (Swope, Andersen, Berens & Wilson
1982, 10.1063/1.442716). Noise depends on (key, number of the step) alone, so a run cut in two is the same run, and a lane
is the same in every batch. A box is orthorhombic; an axis of length 0 is open.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from probegym.errors import ProbeGymError
from probegym.physics import native, randomness
from probegym.physics.threads import in_tiles

STREAM = "langevin"
PROBLEMS = {
    1: "no memory for the neighbours of the atoms: fewer atoms or a shorter cutoff",
    2: "energy or forces are no longer finite: atoms overlap, or the time step is too long",
}


class Potential(Protocol):
    """What the loops need of a potential: its kernel, the parameters as bytes, and the kernel's units."""

    @property
    def kernel(self) -> str: ...

    @property
    def length(self) -> float:
        """The kernel's unit of length, m."""

    @property
    def energy(self) -> float:
        """J of the kernel's unit of energy."""

    @property
    def reach(self) -> float:
        """m, the longest cutoff."""

    @property
    def skin(self) -> float:
        """m, added to the cutoff in the list of neighbours."""

    @property
    def parameters(self) -> np.ndarray: ...

    @property
    def kinds(self) -> int:
        """How many species there are; an atom's is its number, from 0."""


@dataclass(frozen=True)
class Trajectory:
    """Where a run ended, and energies on the way.

    positions, velocities: (lanes, atoms, 3) m, m/s. kinetic, potential: (lanes, records) J, after every so many steps.
    """

    positions: np.ndarray
    velocities: np.ndarray
    kinetic: np.ndarray
    potential: np.ndarray


@dataclass(frozen=True)
class Relaxed:
    """The minimum that a relaxation found. positions (lanes, atoms, 3) m, energy (lanes,) J, force (lanes,) N, the largest left."""

    positions: np.ndarray
    energy: np.ndarray
    force: np.ndarray


def evaluate(potential: Potential, positions, species, box) -> tuple[np.ndarray, np.ndarray]:
    """Energy (lanes,) J and forces (lanes, atoms, 3) N.

    positions: (lanes, atoms, 3) m. species: (atoms,) or (lanes, atoms) whole numbers. box: (3,) or (lanes, 3) m, 0 for an open axis.
    Raises ProbeGymError for values that make no sense, and for atoms so near to each other that energy or forces are not finite.
    """
    x, kind, cell = _system(potential, positions, species, box)
    energy, forces = np.empty(len(x)), np.empty_like(x)

    def tile(part: slice) -> int:
        arrays = [native.pointer(a[part]) for a in (kind, cell, x, energy, forces)]
        return native.library(potential.kernel).evaluate(*_counts(potential, x[part]), *arrays)

    _checked(in_tiles(tile, len(x), tile=1), energy, forces)
    return energy * potential.energy, forces * (potential.energy / potential.length)


def run(potential: Potential, positions, velocities, masses, species, box, time_step: float, steps: int, friction=0.0, thermal_energy=0.0,
        keys=0, number=0, every: int | None = None) -> Trajectory:  # fmt: skip
    """Dynamics over ``steps`` steps of ``time_step`` s; positions, species and box as in ``evaluate``, velocities (lanes, atoms, 3) m/s.

    masses: kg, inf for an atom that is held. friction: 1/s, thermal_energy: kT in J; all three a number or broadcast to
    (lanes, atoms). keys: (lanes,) uint64 of the noise. number: of the first step, for runs that go on. every: steps between
    two records of the energies; one at the end if left out. Raises ProbeGymError for values that make no sense, or when
    the energy runs away.
    """
    if not (np.isfinite(time_step) and time_step > 0 and steps >= 1):
        raise ProbeGymError(f"a run needs a time step above 0 s and at least one step, got {time_step:g} s and {steps}")
    x, kind, cell = _system(potential, positions, species, box)
    lanes, atoms, _ = x.shape
    mass, g, thermal = (np.broadcast_to(np.asarray(value, float), (lanes, atoms)) for value in (masses, friction, thermal_energy))
    if not (mass > 0).all() or not (np.isfinite(g) & (g >= 0)).all() or not (np.isfinite(thermal) & (thermal >= 0)).all():
        raise ProbeGymError("masses must be above 0 kg, friction and thermal energy finite and not below 0")
    v = np.array(np.broadcast_to(velocities, x.shape), float, order="C") / potential.length
    lightness = potential.energy / (mass * potential.length**2)
    v[lightness == 0] = 0
    every = every or steps
    log = np.empty((lanes, steps // every, 2))
    key = randomness.subkey(np.broadcast_to(np.asarray(keys, np.uint64), lanes), 0, STREAM)
    first = np.ascontiguousarray(np.broadcast_to(np.asarray(number, np.int64), lanes))
    constant = [np.ascontiguousarray(a) for a in (lightness, g, thermal / potential.energy)]

    def tile(part: slice) -> int:
        arrays = [native.pointer(a[part]) for a in (kind, cell, x, v, *constant, key, first)]
        numbers = (steps, ctypes.c_double(time_step), every, native.pointer(log[part]))
        return native.library(potential.kernel).run(*_counts(potential, x[part]), *arrays, *numbers)

    _checked(in_tiles(tile, lanes, tile=1), x, v)
    log *= potential.energy
    return Trajectory(x * potential.length, v * potential.length, log[..., 0], log[..., 1])


def relax(potential: Potential, positions, species, box, force: float, held=False, steps: int = 20_000) -> Relaxed:
    """The minimum of the energy downhill of ``positions``, by FIRE (Bitzek et al. 2006, 10.1103/PhysRevLett.97.170201).

    force: N, largest on any atom that may be left. held: atoms that stay, broadcast to (lanes, atoms). A lane that needs
    more than ``steps`` steps ends with a larger force, which the result tells. Raises ProbeGymError as ``evaluate`` does.
    """
    if not force > 0 or steps < 1:
        raise ProbeGymError(f"a relaxation needs a force above 0 N and at least one step, got {force:g} N and {steps}")
    x, kind, cell = _system(potential, positions, species, box)
    fixed = np.ascontiguousarray(np.broadcast_to(held, x.shape[:2]), np.uint8)
    energy, left = np.empty(len(x)), np.empty(len(x))
    unit = potential.energy / potential.length

    def tile(part: slice) -> int:
        arrays = [native.pointer(a[part]) for a in (kind, cell, x, fixed)]
        numbers = (ctypes.c_double(force / unit), steps, native.pointer(energy[part]), native.pointer(left[part]))
        return native.library(potential.kernel).relax(*_counts(potential, x[part]), *arrays, *numbers)

    _checked(in_tiles(tile, len(x), tile=1), energy, left, x)
    return Relaxed(x * potential.length, energy * potential.energy, left * unit)


def thermal_velocities(masses, thermal_energy: float, keys) -> np.ndarray:
    """Velocities (lanes, atoms, 3) m/s drawn from Maxwell's distribution at kT = thermal_energy J; masses (lanes, atoms) kg, keys (lanes,).

    A mass of inf rests. Raises ProbeGymError for masses that are not above 0, or a thermal energy that is not finite or below 0.
    """
    masses = np.asarray(masses, float)
    if not ((masses > 0).all() and np.isfinite(thermal_energy) and thermal_energy >= 0):
        raise ProbeGymError(f"masses must be above 0 kg, and the thermal energy finite and not below 0 J, got {thermal_energy:g} J")
    drawn = randomness.normal(keys, 0, "maxwell", 3 * masses.shape[1]).reshape(*masses.shape, 3)
    return drawn * np.sqrt(thermal_energy / masses)[..., None]


def _system(potential: Potential, positions, species, box) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    x = np.array(positions, float, order="C") / potential.length
    if x.ndim != 3 or x.shape[2] != 3 or 0 in x.shape:
        raise ProbeGymError(f"positions must be (lanes, atoms, 3) with an atom at least, got {x.shape}")
    if not np.isfinite(x).all():
        raise ProbeGymError("positions must be finite")
    kind = np.ascontiguousarray(np.broadcast_to(species, x.shape[:2]), np.int32)
    if kind.min() < 0 or kind.max() >= potential.kinds:
        raise ProbeGymError(f"species must be numbers from 0 to {potential.kinds - 1}, got {kind.min()} to {kind.max()}")
    cell = np.array(np.broadcast_to(box, (len(x), 3)), float, order="C")
    least = 2 * potential.reach
    if not (np.isfinite(cell) & ((cell == 0) | (cell >= least))).all():
        raise ProbeGymError(
            f"a periodic box must be at least {least:.3g} m wide (twice the cutoff), or 0 for an open axis: repeat the cell"
        )
    return x, kind, cell / potential.length


def _counts(potential: Potential, x: np.ndarray) -> tuple:
    return len(x), x.shape[1], native.pointer(potential.parameters), ctypes.c_double(potential.skin / potential.length)


def _checked(statuses: list[int], *results: np.ndarray) -> None:
    worst = max(statuses)
    if worst or not all(np.isfinite(result).all() for result in results):
        raise ProbeGymError(PROBLEMS[worst or 2])
