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
RECORDS = 64  # labels of states (or of parts of them) that are kept; the oldest are forgotten beyond
TURNS = (10, 3)  # steps of scoring with few records and with more
PER_RECORD = ("counts", "totals", "weight", "record_beta", "record_field", "record_separation", "record_looks", "shares")


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
        s = self.settings
        square = np.tile(np.diag(self.deviation**2), (lanes, 1, 1))
        mean, atoms, records = np.tile(self.mean, (lanes, 1)), (lanes, s.rows, s.rows), (lanes, RECORDS)
        learned: Lanes = {"mean": mean, "mean_before": mean.copy(), "covariance": square, "covariance_before": square.copy(), "information": np.zeros((lanes, 3, 3))}
        state: Lanes = {  # the lattice as it is: labels of its atoms together, and how the quarters were looked at
            "votes": np.zeros(atoms, np.int16), "decided": np.ones(atoms, np.int8), "separation": np.zeros((lanes, 4)), "looks": np.zeros((lanes, 4), np.int64),
            "fresh": np.zeros((lanes, 4), bool), "trust": np.ones(lanes), "kept": np.zeros(lanes, np.int64), "records": np.zeros(lanes, np.int64),
        }  # fmt: skip
        past: Lanes = {name: np.zeros(records) for name in PER_RECORD[2:-1]} | {"counts": np.zeros((*records, self.blocks, spins.CELLS), np.int16)}
        past |= {"totals": np.zeros((*records, spins.CELLS)), "shares": np.zeros((*records, 5))}
        shown: Lanes = {
            "labels": np.zeros(atoms, np.int8), "previous": np.zeros((lanes, 4), bool), "moved": np.full((lanes, len(s.temperatures), len(s.holds)), -1.0),
            "overlap": np.zeros(lanes), "misfit": np.zeros(lanes), "order": np.zeros(lanes), "separations": np.ones((lanes, 4)),
        }  # fmt: skip
        return learned | state | past | shown

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
        m["looks"][where], m["kept"][where] = 0, m["records"][where]

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
        known = self._atoms(m["previous"][on])[np.arange(len(on))[:, None, None], *at[1:]]
        m["overlap"][on], noise = spins.overlap(m["labels"][at] * known, labels, error_before, error)
        first = ~m["fresh"][on].any(1)  # image since the last anneal: have its atoms moved?
        compared = (m["previous"][on] & quarter).any(1)
        moved = np.where(compared, np.clip(MOVED[0] * (MOVED[1] + noise - m["overlap"][on]), 0, 1), self._presumed(m, on))
        m["trust"][on] = np.where(first, moved, m["trust"][on])
        t, _, hold = m["chosen"][on, :3].T
        noted = first & compared
        m["moved"][on[noted], t[noted], hold[noted] - 1] = moved[noted]
        self._record(m, on, labels, (y, z), quarter, beta, applied, x)
        self._fit(m, on)
        m["order"][on] = labels.mean((1, 2), dtype=float)
        m["labels"][at] = labels
        m["fresh"][on] |= quarter
        m["separations"][on] = np.where(quarter, x[:, None], m["separations"][on])

    def _record(self, m: Lanes, on: np.ndarray, labels: np.ndarray, at: tuple, quarter: np.ndarray,
                beta: np.ndarray, applied: np.ndarray, x: np.ndarray) -> None:  # fmt: skip
        """Put labels to those of the same state: equal looks vote, longer ones replace, shorter ones are left out. Quarters that were
        looked at alike make one record.
        """
        before, looks = m["separation"][on], m["looks"][on]
        new = quarter & ((looks == 0) | (x[:, None] > before))
        more = quarter & ~new & (x[:, None] == before)
        m["looks"][on], m["separation"][on] = looks, before = np.where(new, 1, looks + more), np.where(new, x[:, None], before)
        seen = np.zeros((len(on), *m["votes"].shape[1:]), np.int8)
        seen[np.arange(len(on))[:, None, None], at[0][:, :, None], at[1][:, None, :]] = labels
        votes = np.where(self._atoms(new), seen, m["votes"][on] + seen * self._atoms(more))
        m["votes"][on] = votes
        m["decided"][on] = decided = np.where(votes == 0, m["decided"][on], np.sign(votes))
        alike = (looks[:, :, None] == looks[:, None]) & (before[:, :, None] == before[:, None])
        kind = np.where(looks > 0, alike.argmax(2), -1)
        counts = spins.cells(decided, self._atoms(kind), 4)
        self._forget(m, on[m["kept"][on] > RECORDS - 4])
        each = kind == np.arange(4)
        lane, q = np.nonzero(each)
        slot = m["kept"][on[lane]] + (each.cumsum(1) - 1)[lane, q]
        put = (on[lane], slot)
        m["counts"][put], m["weight"][put] = counts[lane, q], m["trust"][on[lane]]
        m["totals"][put] = m["weight"][put][:, None] * counts[lane, q].sum(1)
        m["record_beta"][put], m["record_field"][put] = beta[lane], applied[lane]
        m["record_separation"][put], m["record_looks"][put] = before[lane, q], looks[lane, q]
        m["shares"][put] = spins.first_shares(m["totals"][put])
        m["records"][on] = m["kept"][on] + each.sum(1)

    def _atoms(self, quarters: np.ndarray) -> np.ndarray:
        """Values of quarters (lanes, 4) for each of their atoms (lanes, rows, rows)."""
        half = self.size[1]
        return np.repeat(np.repeat(quarters.reshape(-1, 2, 2), half, 1), half, 2)

    @staticmethod
    def _forget(m: Lanes, full: np.ndarray) -> None:
        """Make room for the records of one more state."""
        if len(full):
            for name in PER_RECORD:
                m[name][full] = np.roll(m[name][full], -4, 1)
            m["kept"][full] -= 4

    def _fit(self, m: Lanes, on: np.ndarray) -> None:
        """Estimate theta from all records that count; the newest is there even if it does not."""
        slots, kept = np.arange(RECORDS), m["kept"][on, None]
        lane, slot = np.nonzero((slots < m["records"][on, None]) & ((m["weight"][on] > 0) | (slots == kept)))
        at = (on[lane], slot)
        beta, applied, x, looks = (m[name][at] for name in PER_RECORD[3:-1])
        turns = np.where(np.bincount(lane, minlength=len(on)) < 4, *TURNS)
        begun = (m["mean"][on], m["shares"][at], m["totals"][at])
        mean, shares, information, score, misfit = spins.fit(*begun, lane, beta, applied, x, looks, self.mean, self.prior, turns)
        counted = np.concatenate([score, np.ones((*score.shape[:2], 1))], 2)
        told = np.matmul(m["counts"][at].astype(float), counted) * m["weight"][at][:, None, None]
        m["mean"][on], m["shares"][at], m["information"][on] = mean, shares, information
        m["covariance"][on] = spins.covariance(self.prior, information, told[..., :3], told[..., 3], lane)
        m["misfit"][on] = misfit[np.searchsorted(lane, np.arange(len(on)), "right") - 1]

    def _presumed(self, m: Lanes, on: np.ndarray) -> np.ndarray:
        """Weight of images whose atoms were not seen before the anneal: 1 after the first one, and where something no hotter and no longer was seen to move."""
        t, hold = m["annealed"][on, 0], m["chosen"][on, 2] - 1
        temperatures, holds = m["moved"].shape[1:]
        within = (np.arange(temperatures)[None, :, None] <= t[:, None, None]) & (np.arange(holds) <= hold[:, None, None])
        return np.where((m["images"][on] == 0) | ((m["moved"][on] >= 0.5) & within).any((1, 2)), 1.0, 0.0)

    # ---- what would be learned ----

    def sites(self, region: int | np.ndarray) -> np.ndarray:
        """How many atoms of a region have all four neighbours in it; region: its number in ``size``, any shape."""
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
        new, longer = self._both(m, every)
        return new.reshape(shape), longer.reshape(shape)

    def gains_again(self, m: Lanes, beta: np.ndarray, applied: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The same for an image of the lattice as it is (lanes, dwell times, 5 regions): of atoms not seen yet, and what longer looks add; none of equal ones.

        beta, applied: (lanes,) of the last anneal.
        """
        lanes, dwells = len(beta), len(self.separations)
        x = np.concatenate([np.tile(self.separations, (lanes, 1)), m["separation"]], 1)
        field = np.broadcast_to((m["mean"][:, 1] + applied)[:, None], x.shape)
        each = self._information(m["mean"], np.broadcast_to(beta[:, None], x.shape), field, x)
        own = each[:, :dwells, None, 0, 0]
        longer = (self.separations[:, None] > m["separation"][:, None]) * np.clip(1 - each[:, None, dwells:, 0, 0] / np.maximum(own, 1e-300), 0, 1)
        more = np.where(m["fresh"][:, None], longer, 1.0)[..., None, None] * each[:, :dwells, None]
        whole, part = self.sites(np.array([0, 1]))
        every = np.concatenate([more.sum(2, keepdims=True) * (whole / 4), more * part], 2).reshape(lanes, -1, 3, 3)
        new, added = self._both(m, every)
        return new.reshape(lanes, dwells, 5), added.reshape(lanes, dwells, 5)

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

