"""Flakes of a two-dimensional material on a substrate, and what instruments of different resolution see of them.

A chain of quantities, one a level of measurement: optical contrast, composition, local electronic structure. Each is
standardised over flakes and tied to the one before by an autoregression (Kennedy & O'Hagan 2000, 10.1093/biomet/87.1.1):
q_0 = d_0, q_l = r_l q_(l-1) + sqrt(1 - r_l^2) d_l. The innovations d are Gaussian processes of the places of the flakes:
a growth gradient, with covariance s exp(-|x - x'|^2 / 2 l^2), and individuality, with variance 1 - s.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from probegym.physics import randomness

FLAKES = 24  # most in one view
TRIES = 24  # places that are tried for each flake; one that finds none is left out
FEWEST_PIXELS = 3  # that a flake must cover to count


def outlines(keys: np.ndarray, count: np.ndarray, radius: np.ndarray, gap: np.ndarray, view: float, rows: int) -> np.ndarray:
    """Labels (lanes, rows, rows) int16 of a view of side ``view`` m: 0 for the substrate, 1, 2, ... for flakes that do not touch.

    count: (lanes,) flakes to place. radius: (lanes, FLAKES) of the circle around each, m. gap: (lanes,) m between circles at
    least. Shapes are grown crystals: a triangle cut by a turned one, from a full triangle to a hexagon.
    """
    lanes, pixel = len(keys), view / rows
    draws = randomness.uniform(keys, 0, "flakes", FLAKES * (2 * TRIES + 2)).reshape(lanes, FLAKES, 2 * TRIES + 2)
    centre = np.full((lanes, FLAKES, 2), np.inf)
    each = np.arange(lanes)
    for f in range(FLAKES):
        margin = radius[:, f, None, None]
        tried = margin + (view - 2 * margin) * draws[:, f, : 2 * TRIES].reshape(lanes, TRIES, 2)
        apart = np.hypot(*np.moveaxis(tried[:, :, None] - np.where(np.isinf(centre), -1.0, centre)[:, None], -1, 0))
        free = (apart >= (radius[:, f, None] + radius + gap[:, None])[:, None]).all(2) & (f < count)[:, None]
        first = free.argmax(1)
        centre[:, f] = np.where(free.any(1)[:, None], tried[each, first], np.inf)
    angle = 2 * np.pi * draws[..., -1:] + np.arange(6) * np.pi / 3
    cut = 1 + draws[..., -2]  # 1: hexagon, 2: triangle
    inner = radius / np.where(cut < 2, np.sqrt(1 + (2 * cut - 1) ** 2 / 3), 2)  # corner at (a, (2 cut - 1) a / sqrt 3)
    reach = np.stack([inner, inner * cut] * 3, -1)
    at = (np.arange(rows) + 0.5) * pixel
    labels = np.zeros((lanes, rows, rows), np.int16)
    for lane in range(lanes):
        number = 0
        for f in np.flatnonzero(np.isfinite(centre[lane, :, 0])).tolist():
            x, y = centre[lane, f]
            columns, lines = (slice(max(0, int((v - radius[lane, f]) / pixel)), int((v + radius[lane, f]) / pixel) + 2) for v in (x, y))
            dx, dy = at[columns] - x, at[lines, None] - y
            inside = np.ones((len(dy), len(dx)), bool)
            for a, most in zip(angle[lane, f], reach[lane, f], strict=True):
                inside &= dx * np.cos(a) + dy * np.sin(a) <= most
            if inside.sum() >= FEWEST_PIXELS:
                number += 1
                labels[lane, lines, columns][inside] = number
    return labels


def indicators(labels: np.ndarray) -> np.ndarray:
    """One mask a flake, (lanes, FLAKES, rows, columns) of 0 and 1, from labels (lanes, rows, columns)."""
    return (labels[:, None] == np.arange(1, FLAKES + 1)[:, None, None]).astype(float)


def centroids(labels: np.ndarray, pixel: float) -> tuple[np.ndarray, np.ndarray]:
    """Centre of each flake (lanes, FLAKES, 2) in m, x along columns, zero where there is none, and its pixels (lanes, FLAKES)."""
    lanes, rows, columns = labels.shape
    flat = labels.reshape(lanes, -1) + (FLAKES + 1) * np.arange(lanes)[:, None]
    y, x = (np.broadcast_to(v, (lanes, rows, columns)).ravel() for v in np.mgrid[0.5:rows, 0.5:columns])
    sums = [np.bincount(flat.ravel(), w, (FLAKES + 1) * lanes).reshape(lanes, -1)[:, 1:] for w in (x, y, np.ones_like(x))]
    return pixel * np.stack(sums[:2], -1) / np.maximum(sums[2], 1)[..., None], sums[2]


def growth(centre: np.ndarray, share: np.ndarray, length: np.ndarray) -> np.ndarray:
    """Covariance (lanes, F, F) of one innovation; centre: (lanes, F, 2) m, share: (lanes,), length: (lanes,) m."""
    square = ((centre[:, :, None] - centre[:, None]) ** 2).sum(-1)
    together = share[:, None, None] * np.exp(-square / (2 * length[:, None, None] ** 2))
    return together + (1 - share)[:, None, None] * np.eye(centre.shape[1])


def quantities(keys: np.ndarray, covariance: np.ndarray, correlations: np.ndarray) -> np.ndarray:
    """Draw the chain: (lanes, levels, F) from the covariance of the innovations (lanes, F, F) and correlations (lanes, levels - 1)."""
    lanes, levels, flakes = len(keys), correlations.shape[1] + 1, covariance.shape[1]
    white = randomness.normal(keys, 0, "quantities", levels * flakes).reshape(lanes, levels, flakes, 1)
    drawn = np.matmul(np.linalg.cholesky(covariance + 1e-10 * np.eye(flakes))[:, None], white)[..., 0]
    for level in range(1, levels):
        r = correlations[:, level - 1, None]
        drawn[:, level] = r * drawn[:, level - 1] + np.sqrt(1 - r**2) * drawn[:, level]
    return drawn


@lru_cache(maxsize=256)
def blur(size: int, width: float) -> np.ndarray:
    """Matrix (size, size) of a Gaussian point-spread function of full width at half maximum ``width`` pixels, in one direction.

    Outside the raster there is nothing; inside, the weights of an unlimited raster sum to one. Width 0: the identity.
    """
    deviation = width / np.sqrt(8 * np.log(2))
    if deviation < 1e-6:
        return np.eye(size)
    far = np.arange(-int(np.ceil(8 * deviation)) - 1, int(np.ceil(8 * deviation)) + 2)
    norm = np.exp(-0.5 * (far / deviation) ** 2).sum()
    apart = np.subtract.outer(np.arange(size), np.arange(size))
    return np.exp(-0.5 * (apart / deviation) ** 2) / norm


def seen(field: np.ndarray, width: float) -> np.ndarray:
    """A raster (..., rows, columns) through a point-spread function of ``width`` pixels."""
    return blur(field.shape[-2], width) @ field @ blur(field.shape[-1], width).T


def tile(position: np.ndarray, side: int, rows: int, pixel: float) -> tuple[np.ndarray, np.ndarray]:
    """First row and column (lanes,) of a tile of ``side`` pixels around positions (lanes, 2) m, moved to lie inside the view.

    Whoever needs a tile asks here with metres: a position that was converted to pixels elsewhere may round to the next tile.
    """
    first = np.clip(np.floor(position / pixel - 0.5 * side + 0.5).astype(int), 0, rows - side)
    return first[..., 1], first[..., 0]


def response(
    labels: np.ndarray, width: float, side: int, position: np.ndarray, pixel: float, most: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What the mean over each flake's pixels in a tile is made of; one lane: labels (rows, columns), width: pixels of the
    point-spread function, position: (places, 2) m, pixel: m, as :func:`tile` takes them.

    Returns weights (places, most, FLAKES), an exact linear functional of the flakes' values; pixels (places, most) behind each
    row; flakes (places, most) whose pixels they are. Rows are the ``most`` flakes with most pixels; unused ones have none.
    """
    masks = indicators(labels[None])[0]
    spread = seen(masks, width)
    top, left = tile(position, side, len(labels), pixel)
    pixels = np.zeros((len(position), most))
    weights, flakes = np.zeros((len(position), most, FLAKES)), np.zeros((len(position), most), int)
    for place, (y, x) in enumerate(zip(top, left, strict=True)):
        inside = masks[:, y : y + side, x : x + side].reshape(FLAKES, -1)
        order = np.argsort(-inside.sum(1), kind="stable")[:most]
        own = inside[order]
        pixels[place], flakes[place] = own.sum(1), order
        weights[place] = own @ spread[:, y : y + side, x : x + side].reshape(FLAKES, -1).T / np.maximum(pixels[place], 1)[:, None]
    return weights, pixels, flakes
