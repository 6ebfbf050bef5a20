"""The cantilever: flexural modes of a clamped-free Euler-Bernoulli beam, its thermal motion and its response time.

Butt & Jaschke, Nanotechnology 6, 1 (1995), 10.1088/0957-4484/6/1/001; Garcia & Perez, Surf. Sci. Rep. 47, 197 (2002),
10.1016/S0167-5729(02)00077-8.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
from scipy.integrate import quad
from scipy.optimize import brentq

from probegym.errors import ProbeGymError

HEAVIEST = 1e5
"""Tip mass over that of the beam."""


@functools.cache
def eigenvalues(modes: int, tip_mass: float = 0.0) -> tuple[float, ...]:
    """beta_n of cos b cosh b + 1 + tip_mass b (cos b sinh b - sin b cosh b) = 0, without units; ``tip_mass`` over that of the beam.

    Raises ProbeGymError for no mode or a tip mass out of range.
    """
    if modes < 1 or not 0 <= tip_mass < HEAVIEST:
        raise ProbeGymError(f"a beam needs at least one mode and a tip mass from 0 to {HEAVIEST:g}, got {modes} modes and {tip_mass:g}")

    def characteristic(b: float) -> float:  # divided by cosh b, so that it stays finite
        return np.cos(b) + 1 / np.cosh(b) + tip_mass * b * (np.cos(b) * np.tanh(b) - np.sin(b))

    grid = np.arange(0.05, (modes + 1) * np.pi, 0.05)
    signs = np.sign([characteristic(b) for b in grid])
    brackets = np.nonzero(signs[1:] != signs[:-1])[0][:modes]
    return tuple(float(brentq(characteristic, grid[i], grid[i + 1], xtol=1e-14)) for i in brackets)


def _growing(beta: float) -> tuple[float, float]:
    """(r, g) of a mode's shape cos bx - cosh bx - r (sin bx - sinh bx); its growing part is -g exp(b (x - 1)) / 2."""
    sine = (np.cos(beta) + np.cosh(beta)) / (np.sin(beta) + np.sinh(beta))
    return sine, (np.sin(beta) - np.cos(beta) - np.exp(-beta)) / (np.sin(beta) + np.sinh(beta)) * np.exp(beta)


def shape(beta: float, x: np.ndarray | float) -> np.ndarray:
    """Deflection of a mode along the beam, of the shape of x, which goes from 0 (clamp) to 1 (tip); 1 at the tip."""
    sine, growing = _growing(beta)

    def unscaled(at):
        hyperbolic = (growing * np.exp(beta * (at - 1)) + (1 + sine) * np.exp(-beta * at)) / 2
        return np.cos(beta * at) - sine * np.sin(beta * at) - hyperbolic

    return unscaled(np.asarray(x, float)) / unscaled(1.0)


@dataclass(frozen=True)
class Modes:
    """Flexural modes of a beam of unit static stiffness and unit mass.

    frequency: over the first. stiffness: k_n over the static k = 3EI/L^3. mass: of the mode over that of the beam.
    base: force of a shaken clamp on the mode, over mass times acceleration.
    """

    frequency: np.ndarray
    stiffness: np.ndarray
    mass: np.ndarray
    base: np.ndarray


@functools.cache
def modes(count: int, tip_mass: float = 0.0) -> Modes:
    """The first ``count`` modes; arrays (count,). ``tip_mass`` over that of the beam."""
    betas = np.array(eigenvalues(count, tip_mass))
    mass = np.array([quad(lambda x, b=b: shape(b, x) ** 2, 0, 1)[0] for b in betas]) + tip_mass
    momentum = np.array([quad(lambda x, b=b: shape(b, x), 0, 1)[0] for b in betas]) + tip_mass
    stiffness = mass * betas**4 / 3  # omega^2 = beta^4 EI / (m L^3) = beta^4 k / (3 m)
    return Modes((betas / betas[0]) ** 2, stiffness, mass, momentum / mass)
