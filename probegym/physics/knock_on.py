"""Knock-on events in an electron beam: largest elastic transfer, cross-sections, vibrations, inelastic assistance.

A nucleus of mass M that is hit head-on receives E_max = 2 E (E + 2 m c^2) / (M c^2); one that moves towards the detector
already receives more (Meyer et al. 2012, 10.1103/PhysRevLett.108.196102). With x = E_max / T_d the cross-section for
transfers above a threshold T_d is (McKinley & Feshbach 1948, 10.1103/PhysRev.74.1759)

    sigma = pi Z^2 r_e^2 (1 - beta^2) / beta^4 [(x - 1) - beta^2 ln x + pi alpha Z beta (2 sqrt x - 2 - ln x)],

good for Z < 28. Averaging over the Gaussian velocities of a vibrating nucleus opens the way below the static onset (Susi et
al. 2016, 10.1038/ncomms13040). A threshold and a mean square velocity belong together: never mix those of two papers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from scipy import constants

from probegym.physics.optics import ELECTRON_REST_ENERGY, velocity_ratio

BARN = 1e-28  # m^2
ELECTRON_RADIUS = constants.physical_constants["classical electron radius"][0]
UNIT = constants.atomic_mass
MASSES = {"B": 11.009305 * UNIT, "12C": 12.0 * UNIT, "13C": 13.003355 * UNIT, "N": 14.003074 * UNIT, "Si": 27.976927 * UNIT, "S": 31.972071 * UNIT}
"""Nuclear masses (kg) of the commonest isotope."""


def largest_transfer(energy: float, mass: float, velocity=0.0) -> np.ndarray:
    """Energy (eV) of a nucleus after an electron of ``energy`` (eV) was thrown straight back by it.

    mass: kg. velocity: m/s along the beam before, of any shape. Exact to the recoil of the slow nucleus (Meyer et al. 2012).
    Raises ValueError for an energy or a mass that is not above 0.
    """
    _refuse_unless_positive(energy=energy, mass=mass)
    rest, to_joule = ELECTRON_REST_ENERGY, constants.e
    velocity = np.asarray(velocity, float)
    own = 0.5 * mass * velocity**2 / to_joule
    momentum = [np.sqrt(e * (e + 2 * rest)) * to_joule / constants.c for e in (energy, energy + own)]
    return (momentum[0] + momentum[1] + mass * velocity) ** 2 / (2 * mass) / to_joule


def cross_section(energy: float, number: int, transfer, threshold) -> np.ndarray:
    """McKinley-Feshbach cross-section (m^2) for transfers above ``threshold`` (eV) when the largest is ``transfer`` (eV).

    energy: eV. number: Z. transfer, threshold: of shapes that broadcast. Zero where the threshold is not reached.
    Raises ValueError for an energy or a threshold that is not above 0.
    """
    _refuse_unless_positive(energy=energy, threshold=threshold)
    beta = velocity_ratio(energy)
    x = np.maximum(np.asarray(transfer, float) / np.asarray(threshold, float), 1.0)
    coulomb = np.pi * constants.alpha * number * beta * (2 * np.sqrt(x) - 2 - np.log(x))
    return _prefactor(number, beta) * np.maximum((x - 1) - beta**2 * np.log(x) + coulomb, 0.0)


def _refuse_unless_positive(**values) -> None:
    for name, value in values.items():
        if not (np.asarray(value) > 0).all():
            raise ValueError(f"{name} must be above 0, got {np.min(value):g}")


def _prefactor(number: int, beta: float) -> float:
    return np.pi * (number * ELECTRON_RADIUS) ** 2 * (1 - beta**2) / beta**4


def vibrating_cross_section(energy: float, number: int, mass: float, threshold, square_velocity) -> np.ndarray:
    """Cross-section (m^2) averaged over the velocity along the beam, a Gaussian of variance ``square_velocity`` (m^2/s^2).

    threshold: eV, and square_velocity: of shapes that broadcast. Susi et al. 2016. Raises ValueError for a square velocity
    that is below 0, or an energy, a mass or a threshold that is not above it.
    """
    threshold, square = np.broadcast_arrays(np.asarray(threshold, float), np.asarray(square_velocity, float))
    if not (square >= 0).all():
        raise ValueError(f"a mean square velocity must not be below 0, got {square.min():g} m^2/s^2")
    deviations, weights = (nodes.reshape(-1, *[1] * threshold.ndim) for nodes in _gaussian_nodes())
    total = np.zeros(threshold.shape)
    for share in weights * cross_section(energy, number, largest_transfer(energy, mass, deviations * np.sqrt(square)), threshold):
        total += share  # one after the other: the sum must not depend on how many are computed at once
    return total


def _gaussian_nodes(reach: float = 9.0, count: int = 361) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights of a normal distribution as far out as an exponentially rising cross-section looks."""
    nodes = np.linspace(-reach, reach, count)
    weights = np.exp(-0.5 * nodes**2)
    return nodes, weights / weights.sum()


def assisted_cross_section(energy: float, number: int, mass: float, threshold, square_velocity, table: Sequence[tuple[float, float]]) -> np.ndarray:
    """Sum of P_k sigma(E; T_d - dE_k): an electronic excitation k of energy dE_k (eV), there with probability P_k, lowers the threshold.

    Speckmann et al. 2023, 10.48550/arXiv.2302.10529. What is left to 1 hits a nucleus in the ground state. Raises ValueError
    for probabilities that are no share of 1, or an excitation that is not below the threshold.
    """
    threshold = np.asarray(threshold, float)
    told = np.array(table, float).reshape(-1, 2)
    if (told[:, 0] < 0).any() or told[:, 0].sum() > 1 + 1e-12:
        raise ValueError(f"probabilities of excitations must not be negative or exceed 1 together, got {told[:, 0].tolist()}")
    if told.size and (told[:, 1].max() >= threshold).any():
        raise ValueError(f"an excitation of {told[:, 1].max():g} eV leaves nothing of a threshold of {float(np.min(threshold)):g} eV")
    total = (1 - told[:, 0].sum()) * vibrating_cross_section(energy, number, mass, threshold, square_velocity)
    for probability, excitation in told:
        total = total + probability * vibrating_cross_section(energy, number, mass, threshold - excitation, square_velocity)
    return total


def directed_cross_section(energy: float, number: int, mass: float, threshold: Callable[[np.ndarray], np.ndarray],
                           square_velocity: tuple[float, float, float], nodes: int = 9, directions: int = 24, transfers: int = 400) -> float:  # fmt: skip
    """Cross-section (m^2) where the threshold depends on where the nucleus goes, and it vibrates in all three directions.

    threshold: unit vectors (..., 3) of emission, z along the beam -> eV. square_velocity: m^2/s^2 along x, y, z. The
    momentum of a transfer T lies at an angle of cosine sqrt(T / E_max) to the beam; it adds to that of the vibration, and
    the event happens where the energy then exceeds the threshold of that direction (Chirita Mihaila et al. 2022,
    10.48550/arXiv.2111.14498).
    """
    beta, head_on = velocity_ratio(energy), float(largest_transfer(energy, mass)) * constants.e
    azimuth = 2 * np.pi * (np.arange(directions) + 0.5) / directions
    lowest = 1e-3
    edges = np.geomspace(lowest, 1.0, transfers + 1)
    share = np.sqrt(edges[1:] * edges[:-1])[:, None]  # T / E_max
    momentum = np.sqrt(2 * mass * head_on * share)
    across = np.sqrt(1 - share)
    push = momentum[..., None] * np.stack(np.broadcast_arrays(across * np.cos(azimuth), across * np.sin(azimuth), np.sqrt(share)), -1)
    slice_area = np.diff(_integrated(edges, beta, number))[:, None] / directions
    fine, fine_weights = _gaussian_nodes(7.0, 57)
    coarse, coarse_weights = np.polynomial.hermite_e.hermegauss(nodes)
    coarse_weights = coarse_weights / coarse_weights.sum()
    total = 0.0
    for vz, weight_z in zip(fine, fine_weights, strict=True):
        for vx, weight_x in zip(coarse, coarse_weights, strict=True):
            for vy, weight_y in zip(coarse, coarse_weights, strict=True):
                after = push + mass * np.sqrt(np.array(square_velocity)) * [vx, vy, vz]
                size = np.sqrt((after**2).sum(-1))
                escaped = size**2 / (2 * mass) / constants.e > threshold(after / size[..., None])
                total += weight_x * weight_y * weight_z * float((slice_area * escaped).sum())
    return total * _prefactor(number, beta)


def _integrated(t: np.ndarray, beta: float, number: int) -> np.ndarray:
    """Integral of dt / t^2 [1 - beta^2 t + pi alpha Z beta (sqrt t - t)] up to t, over the prefactor."""
    return -1 / t - beta**2 * np.log(t) + np.pi * constants.alpha * number * beta * (-2 / np.sqrt(t) - np.log(t))
