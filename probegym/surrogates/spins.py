"""What images of an Ising lattice with mislabelled atoms tell of its coupling J and field h (NumPy).

Pseudo-likelihood (Besag 1975, 10.2307/2987782) asks for the chance of each spin given its four neighbours,
P(s | k) = 1 / (1 + exp(-2 s (J (2 k - 4) + h + H) / kT)), k of them being up. It needs no partition function, and no equilibrium of
anything larger than a neighbourhood. A classifier mislabels each atom with chance e, so what is seen of site and neighbours is

    P(y, l) = sum_{s, k} P(y | s, e) P(l | k, e) w_k P(s | k),

with the shares w_k of the surroundings as nuisance of every state of the lattice. Ten cells (y, l) hold all that a record of labels says;
theta = (J, h, phi), where e = Phi(-x exp(phi)): x is the separation the classifier's makers tell, phi how wrong they are. All records
are fitted together. Nuisance of its own for each of many images would bias what they share, however many there are (Neyman & Scott 1948,
10.2307/1914288): so labels of one state are put together first, atom by atom, and count as one record with fewer wrong labels. And
ln(w_k / binomial) is nearly a parabola in k for lattices in and out of equilibrium, which a prior says.

The estimate is a composite one, as sites share neighbours: its covariance is Godambe's sandwich (1960, 10.1214/aoms/1177705693),
H^-1 V H^-1. V comes from the scores, clustered two ways (Cameron, Gelbach & Miller 2011, 10.1198/jbes.2010.07136): by blocks of the
lattice summed over records, for a lattice that has hardly moved says the same thing twice; and by records, for those that contradict
one another, as states out of equilibrium do, are not as sure as each of them seems.
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
NUISANCE = 0.05  # weight of the nuisance's prior, in sites
CURVED = 0.15  # standard deviation of what ln(w_k / binomial) has beside a parabola
PSEUDO_BLOCKS, PSEUDO_SHARE = 8.0, 1.5  # the variance of scores is drawn towards so many times H, as if so many blocks had said so
PSEUDO_RECORDS = 2.0  # so many records without contradiction are counted along
NEAR = 2.0 * np.arange(5) - 4
BINOMIAL = np.log([comb(4, k) for k in range(5)])
K_NODES = np.linspace(-1.0, 1.0, 17)
B_NODES = np.array([0.0, 0.1, 0.25, 0.5, 0.9, 1.5, 2.5])
X_NODES = np.array([0.6, 1.2, 2.0, 3.2])


def mislabelled(x: ArrayLike, phi: ArrayLike = 0.0, looks: ArrayLike = 1) -> tuple[np.ndarray, np.ndarray]:
    """Chance of a wrong label and its derivative with phi, for separations x of any shape: Gaussian signals at +-x in units of their width.

    looks: labels that decide together, by majority; where they are as many of either kind, those but the last one decide.
    """
    from scipy.special import betainc, betaln, ndtr

    seen = np.asarray(x, float) * np.exp(phi)
    error, slope = ndtr(-seen), -seen * np.exp(-0.5 * seen**2) / np.sqrt(2 * np.pi)
    half = (np.asarray(looks) + 1) // 2
    if (half > 1).any():  # a binomial distribution's upper half
        several, half, error, slope = np.broadcast_arrays(half > 1, half, error, slope)
        m, e = half[several].astype(float), np.maximum(error[several], 1e-300)
        error, slope = error.copy(), slope.copy()
        error[several], slope[several] = betainc(m, m, e), slope[several] * np.exp((m - 1) * (np.log(e) + np.log1p(-e)) - betaln(m, m))
    return error, slope


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
    """P(neighbours labelled up | neighbours up) (n, 5, 5) for chances of a wrong label (n,), and its derivative with them."""
    e = np.asarray(error, float)[:, None]
    m = np.arange(5)
    powers = e**m * (1 - e) ** (4 - m)
    slopes = m * e ** np.maximum(m - 1, 0) * (1 - e) ** (4 - m) - (4 - m) * e**m * (1 - e) ** np.maximum(3 - m, 0)
    near = np.matmul(np.stack([powers, slopes], 1), _WAYS.reshape(25, 5).T).reshape(-1, 2, 5, 5)
    return near[:, 0], near[:, 1]


def cells(labels: np.ndarray, kind: np.ndarray, kinds: int) -> np.ndarray:
    """Sites of each cell in each block of the lattice by kinds of atoms, (lanes, kinds, blocks, 10); sites among atoms of another kind are left out.

    labels: (lanes, rows, rows) +-1 of the whole lattice, whose rim only serves as neighbours. kind: (lanes, rows, rows) from 0; -1: not seen.
    """
    lanes, rows, _ = labels.shape
    up = (labels > 0).astype(np.int64)
    cell = 5 * up[:, 1:-1, 1:-1] + up[:, :-2, 1:-1] + up[:, 2:, 1:-1] + up[:, 1:-1, :-2] + up[:, 1:-1, 2:]
    own = kind[:, 1:-1, 1:-1]
    among = (own >= 0) & (own == kind[:, :-2, 1:-1]) & (own == kind[:, 2:, 1:-1]) & (own == kind[:, 1:-1, :-2]) & (own == kind[:, 1:-1, 2:])
    side, place = rows // BLOCK, np.arange(1, rows - 1) // BLOCK
    block = side * place[:, None] + place
    number = ((np.arange(lanes)[:, None, None] * kinds + own) * side**2 + block) * CELLS + cell
    return np.bincount(number[among], minlength=lanes * kinds * side**2 * CELLS).reshape(lanes, kinds, side**2, CELLS)


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


def _shares_prior() -> np.ndarray:
    """Precision (5, 5) of ln(w_k / binomial): none of its mean, little of slope and curvature, much of what is left."""
    cubic, quartic = np.array([-1, 2, 0, -2, 1]) / 10**0.5, np.array([1, -4, 6, -4, 1]) / 70**0.5
    return NUISANCE * (np.eye(5) - 0.2) + (np.outer(cubic, cubic) + np.outer(quartic, quartic)) / CURVED**2


_PRIOR = _shares_prior()
_NULL = NUISANCE * np.full((5, 5), 0.2)  # for the mean of the logarithms, which means nothing


def _model(theta: np.ndarray, shares: np.ndarray, beta: np.ndarray, applied: np.ndarray, x: np.ndarray, looks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """P of the cells seen (n, 10) and its derivatives (n, 10, 3 + 5) with theta and the logarithms of the shares."""
    field = beta[:, None] * (theta[:, :1] * NEAR + theta[:, 1:2] + applied[:, None])
    up = 1 / (1 + np.exp(-np.clip(2 * field, -60, 60)))
    w = np.exp(shares - shares.max(1, keepdims=True))
    w /= w.sum(1, keepdims=True)
    slope = 2 * w * up * (1 - up) * beta[:, None]
    error, by_phi = mislabelled(x, theta[:, 2], looks)
    near, by_error = channel(error)
    e, both = error[:, None], w * (2 * up - 1)
    label = np.stack([w * (1 - up) + e * both, w * up - e * both], 1)  # of sites with k neighbours up: labelled down, labelled up
    part = label[:, :, None] * near[:, None]
    p = part.sum(3)
    slopes = np.empty((len(theta), 2, 5, PARAMETERS + 5))
    slopes[..., PARAMETERS:] = part - p[..., None] * w[:, None, None]
    told = np.matmul(near, np.stack([slope * NEAR, slope, both], 2)) * np.stack([1 - 2 * error, 1 - 2 * error, -by_phi], 1)[:, None]
    slopes[:, 1, :, :PARAMETERS], slopes[:, 0, :, :PARAMETERS] = told, -told
    slopes[..., 2] += np.matmul(label, np.swapaxes(by_error, 1, 2)) * by_phi[:, None, None]
    return np.maximum(p.reshape(-1, CELLS), 1e-12), slopes.reshape(-1, CELLS, PARAMETERS + 5)


def _scores(p: np.ndarray, slopes: np.ndarray, seen: np.ndarray, sites: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Expected information (n, 8, 8) and score (n, 8) of multinomial counts."""
    weighted = slopes / p[..., None]
    return np.matmul(np.swapaxes(weighted, 1, 2), slopes) * sites[:, None, None], np.matmul(seen[:, None], weighted)[:, 0]


def _profiled(information: np.ndarray, score: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Information on theta (n, 3, 3) that is left without the nuisance, what the nuisance follows theta by (n, 5, 3), and its own step (n, 5)."""
    nuisance = information[:, PARAMETERS:, PARAMETERS:] + (_PRIOR + _NULL)
    mixed = information[:, PARAMETERS:, :PARAMETERS]
    solved = np.linalg.solve(nuisance, np.concatenate([mixed, score[:, PARAMETERS:, None]], 2))
    share = solved[..., :PARAMETERS]
    return information[:, :PARAMETERS, :PARAMETERS] - np.matmul(np.swapaxes(mixed, 1, 2), share), share, solved[..., PARAMETERS]


def first_shares(seen: np.ndarray) -> np.ndarray:
    """Logarithms of shares (n, 5) to start from, of sites of each kind (n, 10)."""
    return np.log((seen[:, :5] + seen[:, 5:] + 0.5) / (seen.sum(1, keepdims=True) + 2.5))


def fit(theta: np.ndarray, shares: np.ndarray, seen: np.ndarray, of: np.ndarray, beta: np.ndarray, applied: np.ndarray, x: np.ndarray,
        looks: np.ndarray, mean: np.ndarray, prior: np.ndarray, turns: np.ndarray) -> tuple[np.ndarray, ...]:  # fmt: skip
    """Most likely theta (lanes, 3) given all records together, by Fisher scoring from where theta and shares (records, 5) are.

    seen: (records, 10) sites of each kind. of: (records,) lanes that they belong to, ascending, none left out. beta: (records,) 1/eV,
    applied: eV, x: told separation, looks: labels that decided together. mean (3,), prior (3, 3): belief without any record, its
    precision. turns: (lanes,) steps of scoring. Returns theta, shares, information (lanes, 3, 3), the score of a site of each kind
    (records, 10, 3), and by how much each record departs from the model, chi^2 (records,).
    """
    theta, shares, sites = theta.copy(), shares.copy(), seen.sum(1)
    width, start = 1 / np.sqrt(np.diagonal(prior)), np.searchsorted(of, np.arange(len(theta)))
    for turn in range(int(turns.max())):
        lanes = np.nonzero(turns > turn)[0]
        on = slice(None) if len(lanes) == len(theta) else np.nonzero(turns[of] > turn)[0]
        first = start if len(lanes) == len(theta) else np.searchsorted(of[on], lanes)
        whose = np.repeat(np.arange(len(lanes)), np.diff(np.append(first, len(of[on]))))
        p, slopes = _model(theta[of[on]], shares[on], beta[on], applied[on], x[on], looks[on])
        information, score = _scores(p, slopes, seen[on], sites[on])
        score[:, PARAMETERS:] -= np.matmul((shares[on] - BINOMIAL)[:, None], _PRIOR)[:, 0]
        left, share, own = _profiled(information, score)
        score = score[:, :PARAMETERS] - np.matmul(score[:, None, PARAMETERS:], share)[:, 0]
        total = np.add.reduceat(left, first) + prior
        towards = np.add.reduceat(score, first) - ((theta[lanes] - mean)[:, None] * prior).sum(2)
        step = np.linalg.solve(total, towards[..., None])[..., 0]
        step /= np.maximum((np.abs(step) / width).max(1, keepdims=True), 1)
        follow = own - np.matmul(share, step[whose][..., None])[..., 0]
        follow /= np.maximum(np.abs(follow).max(1, keepdims=True) / 1.5, 1)
        theta[lanes] += step
        shares[on] += follow
    p, slopes = _model(theta[of], shares, beta, applied, x, looks)
    information, score = _scores(p, slopes, seen, sites)
    left, share, _ = _profiled(information, score)
    relative = slopes / p[..., None]
    expected = sites[:, None] * p
    each = relative[..., :PARAMETERS] - np.matmul(relative[..., PARAMETERS:], share)
    return theta, shares, np.add.reduceat(left, start), each, ((seen - expected) ** 2 / np.maximum(expected, 0.5)).sum(1)


def covariance(prior: np.ndarray, information: np.ndarray, scores: np.ndarray, sites: np.ndarray, of: np.ndarray) -> np.ndarray:
    """Sandwich covariance of theta (lanes, 3, 3).

    prior: (3, 3) precision. information: (lanes, 3, 3) of all records together. scores: (records, blocks, 3) summed over sites;
    sites: (records, blocks) that went into them. of: (records,) as in ``fit``.
    """
    start = np.searchsorted(of, np.arange(len(information)))
    area, summed = np.add.reduceat(sites, start), np.add.reduceat(scores, start)
    total = np.maximum(area.sum(1), 1)
    centred = summed - area[..., None] * (summed.sum(1) / total[:, None])[:, None]
    blocks = (area > 0).sum(1)[:, None, None]
    found = _outer(centred) * blocks / np.maximum(blocks - 1, 1)
    varied = (blocks * found + PSEUDO_BLOCKS * PSEUDO_SHARE * information) / (blocks + PSEUDO_BLOCKS)
    # what records vary by beyond what their blocks do, where it is more
    records = np.add.reduceat((sites.sum(1) > 0).astype(float), start)[:, None, None]
    whole = scores.sum(1)
    between = np.add.reduceat(whole[:, :, None] * whole[:, None], start) * records / np.maximum(records - 1, 1)
    between -= np.add.reduceat(_outer(scores), start)
    factor = np.linalg.cholesky(prior + information)
    relative = np.linalg.solve(factor, np.swapaxes(np.linalg.solve(factor, between), 1, 2))
    size, turned = np.linalg.eigh(0.5 * (relative + np.swapaxes(relative, 1, 2)))
    root = np.matmul(factor, turned) * np.sqrt(np.maximum(size, 0))[:, None]
    varied += np.matmul(root, np.swapaxes(root, 1, 2)) * records / (records + PSEUDO_RECORDS)
    inverse = np.linalg.inv(prior + information)
    return np.matmul(np.matmul(inverse, prior + varied), inverse)


def _outer(scores: np.ndarray) -> np.ndarray:
    """Sums of s s^T over the middle axis."""
    return np.matmul(np.swapaxes(scores, 1, 2), scores)


# ---- what an image would tell ----


@lru_cache(maxsize=1)
def _torus() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """All states of a 4 x 4 torus: bonds, spins up less down, number of the set of counts of cells, and those sets (sets, 10)."""
    s = 2 * ((np.arange(2**16)[:, None] >> np.arange(16)) & 1).reshape(-1, 4, 4) - 1
    up = s > 0
    near = sum(np.roll(up, shift, axis).astype(np.int64) for shift in (1, -1) for axis in (1, 2))
    kind = (5 * up + near).reshape(-1, 16)
    counts = np.stack([(kind == cell).sum(1) for cell in range(CELLS)], 1)
    _, first, number = np.unique(counts @ 17 ** np.arange(CELLS)[::-1], return_index=True, return_inverse=True)  # one number each: no long sort of rows
    bonds = (s * (np.roll(s, 1, 1) + np.roll(s, 1, 2))).sum((1, 2))
    return bonds, s.sum((1, 2)), number, counts[first].astype(float)


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
    p, slopes = _model(np.array([[k, b, 0.0]]), shares, one, 0 * one, x * one, one)
    information, score = _scores(p, slopes, np.zeros((1, CELLS)), 1e4 * one)
    left, share, _ = _profiled(information, score)
    relative = slopes / p[..., None]
    score = (relative[..., :PARAMETERS] - np.matmul(relative[..., PARAMETERS:], share))[0]
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
        at: list[np.ndarray] = []
        weight: np.ndarray | float = 1.0
        for axis, (low, part) in enumerate(places):
            up = corner >> axis & 1
            at.append(low + up)
            weight = weight * (part if up else 1 - part)
        out += np.asarray(weight)[..., None, None] * table[tuple(at)]
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
