"""What images of an Ising lattice with mislabelled atoms tell of its coupling J and field h (NumPy).

Pseudo-likelihood (Besag 1975, 10.2307/2987782) asks for the chance of each spin given its four neighbours,
P(s | k) = 1 / (1 + exp(-2 s (J (2 k - 4) + h + H) / kT)), k of them being up. It needs no partition function, and no equilibrium of
anything larger than a neighbourhood. A classifier mislabels each atom with chance e, so what is seen of site and neighbours is

    P(y, l) = sum_{s, k} P(y | s, e) P(l | k, e) w_k P(s | k),

with the shares w_k of the surroundings as nuisance, eliminated in every image. Ten cells (y, l) hold all that an image says; theta =
(J, h, phi), where e = Phi(-x exp(phi)): x is the separation the classifier's makers tell, phi how wrong they are. The estimate is a
composite one, as sites share neighbours: its covariance is Godambe's sandwich (1960, 10.1214/aoms/1177705693), H^-1 V H^-1, with
V from the scores of blocks of the lattice summed over all images (Heagerty & Lumley 2000, 10.1080/01621459.2000.10473912), so it
also knows that images of a lattice that has hardly moved say the same thing twice.
"""

from __future__ import annotations

from functools import lru_cache
from math import comb

import numpy as np
from numpy.typing import ArrayLike

CELLS = 10
"""Kinds of sites: label down, then up, with 0 to 4 neighbours that are labelled up."""
PARAMETERS = 3  # J (eV), h (eV), phi
BLOCK = 8  # sites a side, over which scores are summed
ITERATIONS = 12
NUISANCE = 0.05  # weight of the nuisance's prior, in sites
PSEUDO_BLOCKS, PSEUDO_SHARE = 8.0, 1.5  # the variance of scores is drawn towards so many times H, as if so many blocks had said so
NEAR = 2.0 * np.arange(5) - 4
K_NODES = np.linspace(-1.0, 1.0, 17)
B_NODES = np.array([0.0, 0.1, 0.25, 0.5, 0.9, 1.5, 2.5])
X_NODES = np.array([0.6, 1.2, 2.0, 3.2])


def mislabelled(x: ArrayLike, phi: ArrayLike = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Chance of a wrong label and its derivative with phi, for separations x of any shape: Gaussian signals at +-x in units of their width."""
    from scipy.special import ndtr

    seen = np.asarray(x, float) * np.exp(phi)
    return ndtr(-seen), -seen * np.exp(-0.5 * seen**2) / np.sqrt(2 * np.pi)


def _ways() -> np.ndarray:
    """[l, k, m]: ways in which m wrong labels make l neighbours up out of k."""
    ways = np.zeros((5, 5, 5))
    for k in range(5):
        for a in range(k + 1):
            for b in range(5 - k):
                ways[k - a + b, k, a + b] += comb(k, a) * comb(4 - k, b)
    return ways


_WAYS = _ways()


def channel(error: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """P(cell seen | cell) (lanes, 10, 10) for chances of a wrong label (lanes,), and its derivative with them."""
    e = np.asarray(error, float)[:, None]
    m = np.arange(5)
    powers = e**m * (1 - e) ** (4 - m)
    slopes = m * e ** np.maximum(m - 1, 0) * (1 - e) ** (4 - m) - (4 - m) * e**m * (1 - e) ** np.maximum(3 - m, 0)
    near, near_slope = ((_WAYS * p[:, None, None]).sum(-1) for p in (powers, slopes))
    flip = np.eye(2) * (1 - 2 * e[..., None]) + e[..., None]
    flip_slope = np.ones((2, 2)) - 2 * np.eye(2)

    def both(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return (a[..., :, None, :, None] * b[..., None, :, None, :]).reshape(len(e), CELLS, CELLS)

    return both(flip, near), both(np.broadcast_to(flip_slope, flip.shape), near) + both(flip, near_slope)


def cells(labels: np.ndarray, top: np.ndarray, left: np.ndarray, blocks: int) -> np.ndarray:
    """Sites of each kind in each block of the lattice, (lanes, blocks, 10). labels: (lanes, rows, columns) +-1 of a region whose
    first site is (top, left), (lanes,) each; its rim only serves as neighbours. blocks: of the lattice, blocks^(1/2) a side.
    """
    lanes, rows, columns = labels.shape
    up = (labels > 0).astype(np.int64)
    kind = 5 * up[:, 1:-1, 1:-1] + up[:, :-2, 1:-1] + up[:, 2:, 1:-1] + up[:, 1:-1, :-2] + up[:, 1:-1, 2:]
    side = round(blocks**0.5)
    down = (np.asarray(top)[:, None] + np.arange(1, rows - 1)) // BLOCK
    across = (np.asarray(left)[:, None] + np.arange(1, columns - 1)) // BLOCK
    block = (np.arange(lanes)[:, None] * side + down)[:, :, None] * side + across[:, None, :]
    return np.bincount((CELLS * block + kind).ravel(), minlength=lanes * blocks * CELLS).reshape(lanes, blocks, CELLS)


def overlap(before: np.ndarray, now: np.ndarray, error_before: np.ndarray, error: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Correlation (lanes,) of the true spins in two images, freed from wrong labels, and its noise (lanes,); 0 where no atom was seen twice.

    before, now: (lanes, rows, columns) labels, 0 in ``before`` not seen. error_before, error: (lanes,) chances of a wrong label. A
    lattice that has not moved gives 1, one that has forgotten its past 0.
    """
    a, b = (v.reshape(len(v), -1).astype(float) for v in (before, now))
    atoms = np.maximum((a != 0).sum(1), 1)
    clear = np.maximum(1 - 2 * np.stack([error_before, error]), 0.05)
    means = np.stack([a.sum(1), (b * (a != 0)).sum(1)]) / atoms / clear
    spread = np.sqrt(np.maximum(1 - means**2, 0.02).prod(0))
    together = (a * b).sum(1) / atoms / clear.prod(0) - means.prod(0)
    seen = (a != 0).any(1)
    return np.where(seen, np.clip(together / spread, -1, 1), 0.0), np.where(seen, np.minimum(1 / (np.sqrt(atoms) * clear.prod(0) * spread), 1), 1.0)


def _model(theta: np.ndarray, shares: np.ndarray, beta: np.ndarray, applied: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """P of the cells seen (lanes, 10) and its derivatives (lanes, 10, 3 + 5) with theta and the logarithms of the shares."""
    field = beta[:, None] * (theta[:, :1] * NEAR + theta[:, 1:2] + applied[:, None])
    up = 1 / (1 + np.exp(-np.clip(2 * field, -60, 60)))
    w = np.exp(shares - shares.max(1, keepdims=True))
    w /= w.sum(1, keepdims=True)
    slope = 2 * w * up * (1 - up) * beta[:, None]
    true = np.concatenate([w * (1 - up), w * up], 1)
    error, by_phi = mislabelled(x, theta[:, 2])
    seen, by_error = channel(error)
    of_true = np.zeros((len(theta), CELLS, PARAMETERS - 1 + 5))
    of_true[:, :5, 0], of_true[:, 5:, 0] = -slope * NEAR, slope * NEAR
    of_true[:, :5, 1], of_true[:, 5:, 1] = -slope, slope
    for k in range(5):
        of_true[:, :, 2 + k] = -true * w[:, k : k + 1]
        of_true[:, k, 2 + k] += true[:, k]
        of_true[:, 5 + k, 2 + k] += true[:, 5 + k]
    p = (seen * true[:, None]).sum(2)
    slopes = (seen[..., None] * of_true[:, None]).sum(2)
    phi = (by_error * true[:, None]).sum(2) * by_phi[:, None]
    return np.maximum(p, 1e-12), np.concatenate([slopes[..., :2], phi[..., None], slopes[..., 2:]], 2)


def _profiled(information: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Information on theta (lanes, 3, 3) that is left without the nuisance, and what the nuisance's scores count in it (lanes, 3, 5)."""
    nuisance = information[:, PARAMETERS:, PARAMETERS:] + NUISANCE * np.eye(5)
    mixed = information[:, :PARAMETERS, PARAMETERS:]
    share = np.swapaxes(np.linalg.solve(nuisance, np.swapaxes(mixed, 1, 2)), 1, 2)
    return information[:, :PARAMETERS, :PARAMETERS] - (share[:, :, None] * mixed[:, None]).sum(-1), share


def fit(mean: np.ndarray, precision: np.ndarray, seen: np.ndarray, beta: np.ndarray, applied: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, ...]:
    """Most likely theta given what was believed and one image; Fisher scoring.

    mean: (lanes, 3), precision: (lanes, 3, 3) before. seen: (lanes, 10) sites of each kind. beta: (lanes,) 1/eV, applied: (lanes,)
    eV, x: (lanes,) told separation. Returns theta (lanes, 3), the image's information (lanes, 3, 3), the score of a site of each
    kind (lanes, 10, 3), and by how much the image departs from the model, chi^2 (lanes,), of two degrees of freedom.
    """
    theta, sites = mean.copy(), seen.sum(1)
    shares = np.log((seen[:, :5] + seen[:, 5:] + 0.5) / (sites[:, None] + 2.5))
    width = 1 / np.sqrt(np.maximum(np.diagonal(precision, axis1=1, axis2=2), 1e-12))
    for _ in range(ITERATIONS):
        p, slopes = _model(theta, shares, beta, applied, x)
        information, score = _scores(p, slopes, seen, sites)
        information[:, PARAMETERS:, PARAMETERS:] += NUISANCE * np.eye(5)
        information[:, :PARAMETERS, :PARAMETERS] += precision
        score[:, PARAMETERS:] -= NUISANCE * (shares - shares.mean(1, keepdims=True))
        score[:, :PARAMETERS] -= (precision * (theta - mean)[:, None]).sum(2)
        step = np.linalg.solve(information, score[..., None])[..., 0]
        longest = np.maximum(np.abs(step[:, :PARAMETERS]) / width, np.abs(step[:, PARAMETERS:]).max(1, keepdims=True) / 1.5).max(1, keepdims=True)
        step /= np.maximum(longest, 1)
        theta, shares = theta + step[:, :PARAMETERS], shares + step[:, PARAMETERS:]
    p, slopes = _model(theta, shares, beta, applied, x)
    information, _ = _scores(p, slopes, seen, sites)
    left, share = _profiled(information)
    relative = slopes / p[..., None]
    score = relative[..., :PARAMETERS] - (relative[:, :, None, PARAMETERS:] * share[:, None]).sum(-1)
    expected = sites[:, None] * p
    return theta, left, score, ((seen - expected) ** 2 / np.maximum(expected, 0.5)).sum(1)


def _scores(p: np.ndarray, slopes: np.ndarray, seen: np.ndarray, sites: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Expected information (lanes, 8, 8) and score (lanes, 8) of multinomial counts."""
    weighted = slopes / p[..., None]
    information = (weighted[..., :, None] * slopes[..., None, :]).sum(1) * sites[:, None, None]
    return information, (seen[..., None] * weighted).sum(1)


def covariance(prior: np.ndarray, information: np.ndarray, scores: np.ndarray, sites: np.ndarray) -> np.ndarray:
    """Sandwich covariance of theta (lanes, 3, 3).

    prior: (3, 3) precision. information: (lanes, 3, 3) of all images together. scores: (lanes, blocks, 3) summed over images;
    sites: (lanes, blocks) that went into them.
    """
    total = np.maximum(sites.sum(1), 1)
    centred = scores - sites[..., None] * (scores.sum(1) / total[:, None])[:, None]
    blocks = (sites > 0).sum(1)[:, None, None]
    found = (centred[..., :, None] * centred[..., None, :]).sum(1) * blocks / np.maximum(blocks - 1, 1)
    varied = (blocks * found + PSEUDO_BLOCKS * PSEUDO_SHARE * information) / (blocks + PSEUDO_BLOCKS)
    inverse = np.linalg.inv(prior + information)
    middle = (inverse[..., :, None] * (prior + varied)[..., None, :, :]).sum(-2)
    return (middle[..., :, None] * inverse[..., None, :, :]).sum(-2)


# ---- what an image would tell ----


@lru_cache(maxsize=1)
def _torus() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """All states of a 4 x 4 torus: bonds, spins up less down, number of the set of counts of cells, and those sets (sets, 10)."""
    s = 2 * ((np.arange(2**16)[:, None] >> np.arange(16)) & 1).reshape(-1, 4, 4) - 1
    up = s > 0
    near = sum(np.roll(up, shift, axis).astype(np.int64) for shift in (1, -1) for axis in (1, 2))
    kind = (5 * up + near).reshape(-1, 16)
    counts = np.stack([(kind == cell).sum(1) for cell in range(CELLS)], 1)
    sets, number = np.unique(counts, axis=0, return_inverse=True)
    bonds = (s * (np.roll(s, 1, 1) + np.roll(s, 1, 2))).sum((1, 2))
    return bonds, s.sum((1, 2)), number.reshape(-1), sets.astype(float)


@lru_cache(maxsize=1)
def information_table() -> np.ndarray:
    """Godambe information a site (K, B, x, 3, 3) on (K, B, phi), H V^-1 H, of a lattice in equilibrium; exact on a torus of 4 x 4."""
    bonds, spins, number, sets = _torus()
    table = np.zeros((len(K_NODES), len(B_NODES), len(X_NODES), PARAMETERS, PARAMETERS))
    bit = (np.arange(16)[:, None] >> np.arange(4)) & 1
    apart = (bit[:, None] != bit[None]).sum(-1)
    error = mislabelled(X_NODES)[0]
    rows = error[:, None, None] ** apart * (1 - error[:, None, None]) ** (4 - apart)
    for i, k in enumerate(K_NODES):
        for j, b in enumerate(B_NODES):
            exponent = k * bonds + b * spins
            true = np.exp(exponent - exponent.max())
            true = (true / true.sum()).reshape(16, 16, 16, 16)
            for n in range(len(X_NODES)):
                p = true
                for _ in range(4):  # wrong labels, one row of the torus after another
                    p = np.tensordot(p, rows[n], ((0,), (0,)))
                table[i, j, n] = _site_information(k, b, X_NODES[n], np.bincount(number, p.ravel(), len(sets)), true.ravel(), number, sets)
    return table


def _site_information(k: float, b: float, x: float, chance: np.ndarray, true: np.ndarray, number: np.ndarray, sets: np.ndarray) -> np.ndarray:
    """H V^-1 H a site from the distribution of what is seen on the small torus, and the true shares of the surroundings."""
    cell = np.bincount(number, true, len(sets)) @ sets / 16
    shares = np.log(np.maximum(cell[:5] + cell[5:], 1e-9))[None]
    one = np.ones(1)
    p, slopes = _model(np.array([[k, b, 0.0]]), shares, one, 0 * one, x * one)
    information, _ = _scores(p, slopes, np.zeros((1, CELLS)), 1e4 * one)
    left, share = _profiled(information)
    relative = slopes / p[..., None]
    score = (relative[..., :PARAMETERS] - (relative[:, :, None, PARAMETERS:] * share[:, None]).sum(-1))[0]
    deviation = (sets - chance @ sets) @ score
    varied = (deviation * chance[:, None]).T @ deviation / 16
    h = left[0] / 1e4
    return h @ np.linalg.solve(varied + 1e-9 * np.eye(PARAMETERS), h)


def information(coupling: np.ndarray, field: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Information a site (..., 3, 3) on (K, B, phi) at couplings, fields and separations of any one shape; linear between nodes."""
    table = information_table()
    places = []
    for value, nodes in ((coupling, K_NODES), (np.abs(field), B_NODES), (x, X_NODES)):
        inside = np.clip(value, nodes[0], nodes[-1])
        low = np.clip(np.searchsorted(nodes, inside, "right") - 1, 0, len(nodes) - 2)
        places.append((low, (inside - nodes[low]) / (nodes[low + 1] - nodes[low])))
    out = np.zeros((*np.shape(coupling), PARAMETERS, PARAMETERS))
    for corner in range(8):
        at, weight = [], 1.0
        for axis, (low, part) in enumerate(places):
            up = corner >> axis & 1
            at.append(low + up)
            weight = weight * (part if up else 1 - part)
        out += weight[..., None, None] * table[tuple(at)]
    mirrored = np.where(np.asarray(field) < 0, -1.0, 1.0)  # all spins turned over
    out[..., 1, 0] *= mirrored
    out[..., 0, 1] *= mirrored
    out[..., 1, 2] *= mirrored
    out[..., 2, 1] *= mirrored
    return out


def expected_gain(covariance: np.ndarray, information: np.ndarray) -> np.ndarray:
    """Expected fall of the logarithm of the standard deviation of J, in nats (lanes, n), by measurements that bring so much information.

    covariance: (lanes, 3, 3); information: (lanes, n, 3, 3), both on (J, h, phi).
    """
    precision = np.linalg.inv(covariance)[:, None] + information
    (a, b, c), (_, d, e), f = (precision[..., 0, i] for i in range(3)), (0, precision[..., 1, 1], precision[..., 1, 2]), precision[..., 2, 2]
    left = a - (b * b * f - 2 * b * c * e + c * c * d) / np.maximum(d * f - e * e, 1e-300)
    return 0.5 * np.log(np.maximum(left * covariance[:, None, 0, 0], 1.0))
