"""The honeycomb as a task needs it: bonds between two sites, which site a place is, goals among the sites.

A site has three bonds along unit vectors u_0, u_1, u_2, a third of a turn apart; those of its neighbours are opposite. A site
at g = sum_k b_k u_k with whole b_k whose sum is 0 (same sublattice) or 1 (the other) is |b_0| + |b_1| + |b_2| bonds away, and a
bond along u_k leads nearer to it when b_k > 0. Lengths are in units of the bond.
"""

from __future__ import annotations

from functools import cache

import numpy as np

THIRDS = np.exp(2j * np.pi * np.arange(3) / 3)
TURNS = np.stack([np.stack([THIRDS.real, THIRDS.imag], -1), np.stack([-THIRDS.imag, THIRDS.real], -1)], -1)
"""(3, 2, 2): TURNS[k] @ axis is the axis turned by k thirds of a turn from x to y: clockwise in an image, whose y points down."""


def bonds(axis: np.ndarray) -> np.ndarray:
    """(..., 3, 2) unit vectors along the bonds, clockwise in the image from ``axis`` (..., 2)."""
    return np.stack([axis[..., :1] * turn[:, 0] + axis[..., 1:] * turn[:, 1] for turn in TURNS], -2)


def steps(place: np.ndarray, axis: np.ndarray) -> np.ndarray:
    """Whole numbers (..., 3) of bonds along :func:`bonds` of ``axis`` from the origin to the site nearest to ``place`` (..., 2)."""
    along = np.stack([place[..., 0] * u[..., 0] + place[..., 1] * u[..., 1] for u in np.moveaxis(bonds(axis), -2, 0)], -1) * (2 / 3)
    same, other = np.rint(along), np.rint(along + 1 / 3)
    error = ((along - same) ** 2).sum(-1) + 9 * (same.sum(-1) != 0)
    apart = ((along + 1 / 3 - other) ** 2).sum(-1) + 9 * (other.sum(-1) != 1)
    return np.where((error <= apart)[..., None], same, other)


def site(count: np.ndarray, axis: np.ndarray) -> np.ndarray:
    """Place (..., 2) of the site that :func:`steps` counts (..., 3) lead to."""
    u = bonds(axis)
    return count[..., :1] * u[..., 0, :] + count[..., 1:2] * u[..., 1, :] + count[..., 2:] * u[..., 2, :]


def turned(vector: np.ndarray, axis: np.ndarray) -> np.ndarray:
    """Vector (..., 2) given in axes whose x is ``axis`` (..., 2), in the outer axes."""
    x, y, c, s = vector[..., 0], vector[..., 1], axis[..., 0], axis[..., 1]
    return np.stack([c * x - s * y, s * x + c * y], -1)


def seen_from(vector: np.ndarray, axis: np.ndarray) -> np.ndarray:
    """Vector (..., 2) of the outer axes in those whose x is ``axis`` (..., 2): the inverse of :func:`turned`."""
    return turned(vector, axis * np.array([1, -1]))


@cache
def sites_within(radius: float) -> np.ndarray:
    """(sites, 3) steps to all sites at most ``radius`` bonds from a site, itself left out."""
    most = int(np.ceil(radius)) + 1
    grid = np.mgrid[-most : most + 1, -most : most + 1].reshape(2, -1).T
    count = np.concatenate([np.column_stack([grid, total - grid.sum(1)]) for total in (0, 1)])
    distance = np.hypot(*site(count, np.array([1.0, 0.0])).T)
    return count[(distance > 0.5) & (distance <= radius)]


def goals(uniform: np.ndarray, axis: np.ndarray, atoms: np.ndarray, origin: np.ndarray, half: float, radius: float) -> np.ndarray:
    """Draw goal sites, none next to another and none where an atom is; (lanes, n, 2) from the first atom, in bonds.

    uniform: (lanes, n) from 0 to 1. axis: (lanes, 2) along a bond of the first atom. atoms: (lanes, m, 2) relative to the first,
    origin: (lanes, 2) its place. half: of the square around zero in which goals lie. radius: their greatest distance.
    """
    places = site(sites_within(radius)[None], axis[:, None])
    free = (np.abs(places + origin[:, None]) <= half).all(-1)
    for atom in np.moveaxis(atoms, 1, 0):
        free &= np.hypot(*np.moveaxis(places - atom[:, None], -1, 0)) > 0.5
    chosen, lane = np.zeros((*uniform.shape, 2)), np.arange(len(uniform))
    for index, u in enumerate(uniform.T):
        rank = np.cumsum(free, 1)
        pick = (rank > np.floor(u * rank[:, -1])[:, None]).argmax(1)
        chosen[:, index] = places[lane, pick]
        free &= np.hypot(*np.moveaxis(places - chosen[:, index, None], -1, 0)) > 1.5
    return chosen
