"""Assemblies of nanoparticles on a support: singles, dimers, trimers and chains of spheres and rods, drawn from a key."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from probegym.physics import randomness

LEAST_GAP = 0.3  # of the smaller radius: closer, dipoles do not describe the coupling
ROD_DISCS = 7
_COLUMNS = 9  # numbers a particle is drawn from
_TRIES = 24  # places tried for each cluster


@dataclass(frozen=True)
class Particles:
    """Prolate spheroids that lie in one plane.

    position: (count, 2) x, y in m. minor, major: (count,) semi-axes, m. angle: (count,) of the long axis to x, rad.
    plasma_energy: (count,) eV.
    """

    position: np.ndarray
    minor: np.ndarray
    major: np.ndarray
    angle: np.ndarray
    plasma_energy: np.ndarray

    def __len__(self) -> int:
        return len(self.minor)

    @property
    def round(self) -> np.ndarray:
        """Which are spheres, (count,) bool."""
        return self.major <= self.minor * (1 + 1e-9)


def layout(key, told: dict, shape: tuple[int, int]) -> Particles:
    """Particles of one key, about 9 in 10 of those wanted: a cluster that finds no room is left out.

    Clusters are grown particle by particle and then put where they keep LEAST_GAP to what there is; all gaps are at least
    that. told: ``count``, ``radius``, ... of plasmons.PARAMETERS, a number each. shape: (rows, columns) of the field of view.
    """
    wanted = max(round(told["count"]), 1)
    drawn = randomness.uniform(key, 0, "particles", wanted * _COLUMNS).reshape(wanted, _COLUMNS)
    normal = randomness.normal(key, 0, "radii", wanted)[0]
    places = randomness.uniform(key, 0, "places", wanted * _TRIES * 2).reshape(wanted, _TRIES, 2)
    minor = told["radius"] * np.exp(told["spread"] * np.clip(normal, -2.5, 2.5))
    aspect = np.where(drawn[:, 0] < told["rods"], 1.5 + (told["aspect"] - 1.5) * drawn[:, 1], 1.0)
    minor = minor * aspect ** (-0.4)  # rods are thinner
    major = minor * aspect
    angle = np.pi * drawn[:, 2]
    plasma = told["plasma_energy"] * np.where(drawn[:, 3] < told["doped"], told["doping"], 1.0)
    extent = np.array([shape[1], shape[0]]) * told["pixel_size"]
    centre, placed, discs = np.zeros((wanted, 2)), [], np.empty((0, 3))
    at = 0
    while at < wanted:
        size = min(_cluster_size(drawn[at, 4], drawn[at, 5], told["clustered"]), wanted - at)
        members = range(at, at + size)
        local, offsets = np.empty((0, 3)), []
        for member in members:
            shape_ = _discs(minor[member], major[member], angle[member])
            offset = _attach(shape_, local, drawn[member], told["gap"], minor[member])
            if offset is None:
                continue
            offsets.append((member, offset))
            local = np.concatenate([local, shape_ + np.append(offset, 0)])
        for place in places[at]:
            shift = place * extent
            moved = local + np.append(shift, 0)
            if not len(discs) or _clearance(moved, discs) >= LEAST_GAP:
                discs = np.concatenate([discs, moved])
                for member, offset in offsets:
                    centre[member] = shift + offset
                    placed.append(member)
                break
        at += size
    kept = np.array(placed, int)
    return Particles(centre[kept], minor[kept], major[kept], angle[kept], plasma[kept])


def _cluster_size(first: float, second: float, clustered: float) -> int:
    """1, or with a chance such that a share ``clustered`` of particles is in clusters: 2, 3, or a chain of 5."""
    mean = 2 * 0.55 + 3 * 0.3 + 5 * 0.15
    chance = clustered / (clustered + mean * (1 - clustered))
    return 1 if first >= chance else 2 if second < 0.55 else 3 if second < 0.85 else 5


def _discs(minor: float, major: float, angle: float) -> np.ndarray:
    """Discs (n, 3) x, y, radius whose union is the ellipse seen from above (to within a few per cent of the radius)."""
    if major <= minor * (1 + 1e-9):
        return np.array([[0.0, 0.0, minor]])
    focal = major**2 - minor**2
    along = np.linspace(-1, 1, ROD_DISCS) * focal / major
    return np.stack([along * np.cos(angle), along * np.sin(angle), minor * np.sqrt(1 - along**2 / focal)], axis=1)


def _clearance(some: np.ndarray, others: np.ndarray) -> float:
    """Smallest gap between two sets of discs, over the smaller of the two radii."""
    apart = np.hypot(some[:, None, 0] - others[:, 0], some[:, None, 1] - others[:, 1])
    gap = apart - some[:, None, 2] - others[:, 2]
    return float((gap / np.minimum(some[:, None, 2], others[:, 2])).min())


def _attach(discs: np.ndarray, cluster: np.ndarray, drawn: np.ndarray, widest: float, radius: float) -> np.ndarray | None:
    """Offset (2,) at which discs touch the cluster but for a gap; none where it finds no room."""
    if not len(cluster):
        return np.zeros(2)
    gap = LEAST_GAP * 1.02 + (max(widest, LEAST_GAP * 1.02) - LEAST_GAP * 1.02) * drawn[6]
    anchor = cluster[int(drawn[7] * len(cluster)), :2]
    for turn in range(6):
        direction = 2 * np.pi * (drawn[8] + turn / 6)
        way = np.array([np.cos(direction), np.sin(direction)])
        # the distance at which the nearest pair of discs is just that far apart: a quadratic for every pair
        start = anchor + discs[:, None, :2] - cluster[:, :2]
        needed = discs[:, None, 2] + cluster[:, 2] + gap * np.minimum(discs[:, None, 2], cluster[:, 2])
        slope = start @ way
        rest = needed**2 - (start**2).sum(-1) + slope**2
        reach = np.where(rest > 0, np.sqrt(np.maximum(rest, 0)) - slope, 0.0).max()
        if reach < 8 * radius:
            return anchor + reach * way
    return None
