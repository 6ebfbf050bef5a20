"""What is believed of J, h and the classifier in an episode of IsingInference, and what each next image would add to it."""

from __future__ import annotations

import numpy as np

from probegym.envs.ising_settings import Settings
from probegym.envs.task import Where
from probegym.hardware_bridge.commands import Lanes
from probegym.surrogates import spins

BOLTZMANN = 8.617333262e-5  # eV/K
MOVED = (10.0, 0.15)
"""An image counts with weight 10 (0.15 + noise - overlap with the state before the anneal), from 0 to 1: atoms that did not move tell of what was before."""
RELAXED = 30.0  # updates a site after which an image counts as a new one
KNOWN = 1e9  # precision of phi, were the classifier known


class SpinBelief:
    """Keeps the belief in a task's memory; ``settings``: of the task. Regions: the whole lattice, then its four quarters."""

    def __init__(self, settings: Settings):
        self.settings = s = settings
        self.mean, self.deviation = s.prior.mean(), s.prior.deviation()
        self.prior = np.diag(self.deviation**-2.0)
        self.blocks = (s.rows // spins.BLOCK) ** 2
        half = s.rows // 2
        self.size = np.array([s.rows, half, half, half, half])
        self.top, self.left = half * np.array([0, 0, 0, 1, 1]), half * np.array([0, 0, 1, 0, 1])
        self.separations = s.separation * np.sqrt(np.array(s.dwells))
        self.beta = 1 / (BOLTZMANN * np.array(s.temperatures))

    def centre(self, region: np.ndarray) -> np.ndarray:
        """Centres (lanes, 2) in m of regions (lanes,), x and y from the lattice's first corner."""
        corner = np.stack([self.left, self.top], 1)[region]
        return self.settings.spacing * (corner + 0.5 * self.size[region][:, None])

    def memory(self, lanes: int) -> Lanes:
        """Arrays of an episode before it begins."""
        square = np.tile(np.diag(self.deviation**2), (lanes, 1, 1))
        mean = np.tile(self.mean, (lanes, 1))
        return {
            "mean": mean, "mean_before": mean.copy(), "covariance": square, "covariance_before": square.copy(),
            "information": np.zeros((lanes, 3, 3)), "scores": np.zeros((lanes, self.blocks, 3)), "sites": np.zeros((lanes, self.blocks)),
            "labels": np.zeros((lanes, self.settings.rows, self.settings.rows), np.int8), "fresh": np.zeros((lanes, 4), bool),
            "previous": np.zeros((lanes, 4), bool), "moved": np.full((lanes, len(self.settings.temperatures), len(self.settings.holds)), -1.0),
            "overlap": np.zeros(lanes), "misfit": np.zeros(lanes), "order": np.zeros(lanes), "trust": np.ones(lanes), "separations": np.ones((lanes, 4)),
        }  # fmt: skip

    def conditions(self, m: Lanes) -> tuple[np.ndarray, np.ndarray]:
        """1/kT in 1/eV and applied field in eV (lanes,) of the last anneal, whose state the lattice has kept."""
        return self.beta[m["annealed"][:, 0]], np.array(self.settings.fields)[m["annealed"][:, 1]]

    def relaxed(self, rate: np.ndarray, barrier: np.ndarray) -> np.ndarray:
        """Share of an independent image (lanes, temperatures, holds) that an anneal is worth, for atoms that move at a rate (lanes,)
        1/s at 600 K with a barrier (lanes,) in eV.
        """
        often = rate[:, None] * np.exp(barrier[:, None] * (1 / (600.0 * BOLTZMANN) - self.beta))
        return 1 - np.exp(-often[..., None] * np.array(self.settings.holds) / RELAXED)

    def anneal(self, m: Lanes, where: Where) -> None:
        """Forget which quarters show the lattice as it is; the labels stay, to be compared with the next ones."""
        m["previous"][where], m["fresh"][where] = m["fresh"][where], False

    def learn(self, m: Lanes, where: Where, labels: np.ndarray, region: np.ndarray, beta: np.ndarray, applied: np.ndarray, x: np.ndarray) -> None:
        """Learn from an image of one size, labels (lanes, rows, columns); the other arguments (lanes,), as spins.fit has them."""
        on = np.nonzero(where)[0]
        if not len(on):
            return
        labels, region, beta, applied, x = (array[on] for array in (labels, region, beta, applied, x))
        top, left = self.top[region], self.left[region]
        y, z = top[:, None] + np.arange(labels.shape[1]), left[:, None] + np.arange(labels.shape[2])
        at = (on[:, None, None], y[:, :, None], z[:, None, :])
        quarter = (region == 0)[:, None] | (np.arange(4) == region[:, None] - 1)
        x_before = np.where(m["previous"][on] & quarter, m["separations"][on], np.inf).min(1)
        error_before, error = (spins.mislabelled(np.minimum(v, 9.0), m["mean"][on, 2])[0] for v in (x_before, x))
        known = np.repeat(np.repeat(m["previous"][on].reshape(-1, 2, 2), self.size[1], 1), self.size[1], 2)[np.arange(len(on))[:, None, None], *at[1:]]
        m["overlap"][on], noise = spins.overlap(m["labels"][at] * known, labels, error_before, error)
        first = ~m["fresh"][on].any(1)  # image since the last anneal: have its atoms moved?
        compared = (m["previous"][on] & quarter).any(1)
        moved = np.where(compared, np.clip(MOVED[0] * (MOVED[1] + noise - m["overlap"][on]), 0, 1), self._presumed(m, on))
        m["trust"][on] = np.where(first, moved, m["trust"][on])
        t, _, hold = m["chosen"][on, :3].T
        noted = first & compared
        m["moved"][on[noted], t[noted], hold[noted] - 1] = moved[noted]
        found = m["trust"][on, None, None] * spins.cells(labels, top, left, self.blocks)
        mean, information, score, misfit = spins.fit(m["mean"][on], self.prior + m["information"][on], found.sum(1), beta, applied, x)
        m["mean"][on], m["misfit"][on] = mean, misfit
        m["information"][on] += information
        m["scores"][on] += (found[..., None] * score[:, None]).sum(2)
        m["sites"][on] += found.sum(2)
        m["covariance"][on] = spins.covariance(self.prior, m["information"][on], m["scores"][on], m["sites"][on])
        m["order"][on] = labels.mean((1, 2), dtype=float)
        m["labels"][at] = labels
        m["fresh"][on] |= quarter
        m["separations"][on] = np.where(quarter, x[:, None], m["separations"][on])

    def _presumed(self, m: Lanes, on: np.ndarray) -> np.ndarray:
        """Weight of images whose atoms were not seen before the anneal: 1 after the first one, and where something no hotter and no longer was seen to move."""
        t, hold = m["annealed"][on, 0], m["chosen"][on, 2] - 1
        temperatures, holds = m["moved"].shape[1:]
        within = (np.arange(temperatures)[None, :, None] <= t[:, None, None]) & (np.arange(holds) <= hold[:, None, None])
        return np.where((m["images"][on] == 0) | ((m["moved"][on] >= 0.5) & within).any((1, 2)), 1.0, 0.0)

    # ---- what would be learned ----

    def sites(self, region: int | np.ndarray) -> np.ndarray:
        """Atoms of a region that have all four neighbours in it."""
        return (self.size[region] - 2.0) ** 2

    def gains(self, m: Lanes, mean: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Expected fall of log sigma_J, nats, by an image after another anneal (lanes, temperatures, fields, dwell times, 2 sizes): as believed,
        and were the classifier known. mean: (lanes, 3) theta that images are expected of, else the believed one.
        """
        s, mean = self.settings, m["mean"] if mean is None else mean
        shape = (len(mean), len(s.temperatures), len(s.fields), len(s.dwells), 2)
        beta = np.broadcast_to(self.beta[None, :, None, None], shape[:4])
        field = mean[:, None, None, None, 1] + np.array(s.fields)[None, None, :, None]
        each = self._information(mean, beta, field, self.separations)
        every = (each[..., None, :, :] * self.sites(np.array([0, 1]))[:, None, None]).reshape(shape[0], -1, 3, 3)
        return tuple(gain.reshape(shape) for gain in self._both(m, every))

    def gains_again(self, m: Lanes, beta: np.ndarray, applied: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The same for an image of the lattice as it is (lanes, dwell times, 5 regions); none where it has been seen already.

        beta, applied: (lanes,) of the last anneal.
        """
        shape = (len(beta), len(self.separations))
        field = np.broadcast_to((m["mean"][:, 1] + applied)[:, None], shape)
        each = self._information(m["mean"], np.broadcast_to(beta[:, None], shape), field, self.separations)
        unseen = np.concatenate([1 - m["fresh"].mean(1, keepdims=True), ~m["fresh"]], 1)
        atoms = unseen * self.sites(np.arange(5))
        every = (each[:, :, None] * atoms[:, None, :, None, None]).reshape(shape[0], -1, 3, 3)
        return tuple(gain.reshape(*shape, 5) for gain in self._both(m, every))

    def _information(self, mean: np.ndarray, beta: np.ndarray, field: np.ndarray, x: np.ndarray) -> np.ndarray:
        """Of one site on (J, h, phi), (lanes, ..., dwell times, 3, 3); beta, field: (lanes, ..., dwell times or 1)."""
        inner = (slice(None), *[None] * (beta.ndim - 1))
        seen = x * np.exp(mean[:, 2])[inner]
        k, b, seen = np.broadcast_arrays(beta * mean[:, 0][inner], beta * field, seen)
        slopes = np.stack([*np.broadcast_arrays(beta, beta, 1.0)], -1)
        return spins.information(k, b, seen) * slopes[..., :, None] * slopes[..., None, :]

    @staticmethod
    def _both(m: Lanes, information: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        told = np.linalg.inv(m["covariance"])
        told[:, 2, 2] += KNOWN
        return spins.expected_gain(m["covariance"], information), spins.expected_gain(np.linalg.inv(told), information)

