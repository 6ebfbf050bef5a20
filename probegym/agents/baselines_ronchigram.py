"""An unlearned procedure that tunes from two defocused Ronchigrams of an unknown film: local spectra, fitted.

A Ronchigram of a thin film is a shadow image whose magnification at the angle a is the local curvature of the aberration
function, so segments of it show an amorphous film stretched by M(a)^-1 (Sawada et al., Ultramicroscopy 108, 1467 (2008);
Lupini, Wang, Nellist, Kirkland & Pennycook, Ultramicroscopy 110, 891 (2010)). Sawada et al. measure the
segments' autocorrelation functions one by one and fit aberrations to them; here the expected autocorrelation of every
segment follows from the aberrations, and these are fitted to all segments of both frames at once.
"""

from __future__ import annotations

import numpy as np

from probegym.agents.base import Agent
from probegym.envs.episodes import Episodes
from probegym.envs.stem_tuning import StemTuningTask
from probegym.envs.task import Observation, Task, shape_of
from probegym.errors import ProbeGymError
from probegym.physics.optics import Pupil, displacements, wavelength

FALL = 0.025  # rad; scattering by light amorphous films falls to 1/e near this angle


class Segments:
    """Power spectra of overlapping segments of two Ronchigrams, observed and expected.

    pixels: side of a frame, which shows the disc of ``cutoff`` rad. energy in eV. names, scales: aberrations and their units in m.
    excursions: C10 added to each frame, m. patch, stride: of the segments, pixels. Weak phase objects: two points a, a' of
    the disc interfere by the film's scattering through a - a', and at a the fringe has the frequency of grad chi(a) - grad chi(a').
    That the two sidebands of one scattering angle beat with each other is left out: segments this small do not resolve it.
    """

    def __init__(self, pixels: int, cutoff: float, energy: float, names, scales, excursions, patch: int = 20, stride: int = 4,
                 spacing: tuple[int, int] = (6, 3), lags: int = 8, bins: int = 20, floor: float = 0.01, lowest: float = 1.9):  # fmt: skip
        self.patch, self.bins, self.lags, self.floor = patch, bins, lags, floor
        self.pixel, self.names, self.excursions = 2 * cutoff / pixels, tuple(names), excursions
        axis = (np.arange(pixels) - (pixels - 1) / 2) * self.pixel
        y, x = np.meshgrid(axis, axis, indexing="ij")
        self.lit, self.inside = np.hypot(x, y) < cutoff, np.hypot(x, y) < cutoff - self.pixel / 2
        centre = [(i, j) for i in range(0, pixels - patch + 1, stride) for j in range(0, pixels - patch + 1, stride)]
        self.corners = [at for at in centre if np.hypot(*(np.array(at) + (patch - pixels) / 2)) < pixels / 2 - 1]
        window = np.hanning(patch + 2)[1:-1]
        self.window = np.outer(window, window)
        self._lags_and_frequencies(window, lowest)
        self._pairs(x, y, spacing)
        self._rays(energy, np.asarray(scales))

    def _lags_and_frequencies(self, window: np.ndarray, lowest: float) -> None:
        """Segments are compared at frequencies above ``lowest`` periods a segment; below them is the film's slow thickness."""
        rows, columns = np.meshgrid(np.fft.fftfreq(self.bins), np.fft.rfftfreq(self.bins), indexing="ij")
        self.kept = (np.hypot(rows, columns) > lowest / self.patch) & ~(np.isin(columns, [0, 0.5]) & (rows < 0))
        self.across, self.down = np.arange(-self.lags, self.lags + 1, dtype=np.float32), np.arange(self.lags + 1, dtype=np.float32)
        self.taper = len(self.across), len(self.down)
        overlap = np.correlate(window, window, "full")[self.patch - 1 :] / (window**2).sum()
        taper = np.outer(overlap[np.abs(self.across).astype(int)], overlap[: self.lags + 1] * np.where(self.down, 2, 1))
        turns = columns[self.kept][:, None, None] * self.across[:, None] + rows[self.kept][:, None, None] * self.down
        self.cosines = (taper * np.cos(2 * np.pi * turns)).reshape(self.kept.sum(), -1).astype(np.float32)

    def _pairs(self, x: np.ndarray, y: np.ndarray, spacing: tuple[int, int]) -> None:
        """Points of a coarse lattice whose fringes are summed, and the points that interfere there."""
        chosen = []
        for every in spacing:
            on = np.zeros(x.shape, bool)
            first = (len(x) - 1) % every // 2
            on[first::every, first::every] = True
            chosen.append(np.nonzero(on & self.lit))
        self.here, self.there = (np.stack([x[at], y[at]]) for at in chosen)
        points = np.array(chosen[0])
        weight = np.zeros((len(self.corners), points.shape[1]))
        for row, corner in zip(weight, self.corners, strict=True):
            at = points - np.array(corner)[:, None]
            inside = ((at >= 0) & (at < self.patch)).all(0)
            row[inside] = self.window[tuple(at[:, inside])] ** 2
        whole = [(self.window**2 * self.lit[i : i + self.patch, j : j + self.patch]).sum() for i, j in self.corners]
        self.cover = np.array(whole) / (self.window**2).sum()
        self.average = (weight / weight.sum(1, keepdims=True) * self.cover[:, None]).astype(np.float32)
        angle = np.hypot(*(self.here[:, :, None] - self.there[:, None]))
        self.fall = ((angle / FALL) ** 2 / (1 + angle / (2 * FALL))).astype(np.float32)
        self.share = (spacing[1] * self.pixel) ** 2 * 10  # log strengths of thin films of light elements are then near zero

    def _rays(self, energy: float, scales: np.ndarray) -> None:
        """Shifts of the rays by each aberration, in periods a pixel, as sums of monomials, so that a gradient needs few sums over points."""

        def monomials(at: np.ndarray) -> np.ndarray:
            return np.stack([at[0] ** i * at[1] ** (order - i) for order in range(1, highest + 1) for i in range(order + 1)])

        highest, unit = max(int(name[1]) for name in self.names), 1 / np.abs(self.there).max()
        shifts = np.moveaxis(displacements(self.there[0], self.there[1], self.names), 0, 1) * scales[:, None, None] * self.pixel / wavelength(energy)
        self.at_here, self.at_there = monomials(unit * self.here).astype(np.float32), monomials(unit * self.there).astype(np.float32)
        self.shifts = (shifts @ np.linalg.pinv(monomials(unit * self.there))).astype(np.float32)  # (names, 2, monomials)
        self.factors = np.tile(np.concatenate([np.ones_like(self.at_there[:1]), self.at_there]), 2)
        self.defocus = self.names.index("C10"), 1 / scales[self.names.index("C10")]

    def observed(self, frames: np.ndarray, signal: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Spectra (..., 2, segments, frequencies) of grey levels (..., 2, h, w) and what shot noise adds to them."""
        mean = np.maximum(frames[..., self.inside].mean(-1, dtype=float), 1e-3)
        noise = 255 / np.maximum(10.0**signal - 1, 1) / mean  # one over the counts of a pixel
        contrast, spectra = frames / mean[..., None, None] - 1, []
        for i, j in self.corners:
            part = slice(i, i + self.patch), slice(j, j + self.patch)
            seen, segment = self.window * self.lit[part], contrast[..., *part]
            segment = (segment - ((segment * seen).sum((-2, -1)) / seen.sum())[..., None, None]) * seen
            spectra.append(np.abs(np.fft.rfft2(segment, s=(self.bins, self.bins))[..., self.kept]) ** 2 / (self.window**2).sum())
        return np.stack(spectra, -2).astype(np.float32), (noise[..., None] * self.cover)[..., None].astype(np.float32)

    def expected(self, x: np.ndarray, slopes: bool = False):
        """Spectra (2, segments, frequencies) for x: aberrations in scales, log strength and log fall of the film's scattering.

        slopes: also their derivatives (len(x), 2, segments, frequencies).
        """
        fall = np.float32(np.exp(x[-1]))
        scattered = np.exp(-fall * self.fall) * np.float32(self.share * np.exp(x[-2]))
        frames = [self._frame(x[:-2], excursion, scattered, fall, slopes) for excursion in self.excursions]
        spectra = np.stack([frame[0] for frame in frames])
        background = self.floor  # what a linear model of the film leaves out
        spectra = np.maximum(spectra, 0) + background * spectra.mean()
        if not slopes:
            return spectra
        derivative = np.stack([frame[1] for frame in frames], 1)
        return spectra, derivative + background * derivative.mean((1, 2, 3), keepdims=True)

    def _frame(self, aberrations: np.ndarray, excursion: float, scattered: np.ndarray, fall: np.float32, slopes: bool):
        here = aberrations.astype(np.float32)
        here[self.defocus[0]] += excursion * self.defocus[1]
        ray = np.tensordot(here, self.shifts, 1)
        fringe = (ray @ self.at_here)[:, :, None] - (ray @ self.at_there)[:, None]  # periods a pixel
        pixel = np.cos(np.float32(np.pi / 2) * np.clip(fringe, -1, 1)).prod(0) ** 2  # two grid frequencies a pixel
        points, others = scattered.shape
        phase = np.exp(np.float32(2 * np.pi) * 1j * fringe)
        across, down = (np.empty((self.lags + 1, points, others), np.complex64) for _ in range(2))
        across[0], down[0] = 1, scattered * pixel
        for lag in range(1, self.lags + 1):
            np.multiply(across[lag - 1], phase[0], out=across[lag])
            np.multiply(down[lag - 1], phase[1], out=down[lag])
        left = np.concatenate(
            [np.concatenate([across[:0:-1].real, across.real]), np.concatenate([-across[:0:-1].imag, across.imag])], axis=2
        )
        left = left.transpose(1, 0, 2)  # cosines, then sines: a product with (c, -s) sums cosines of both phases, with (s, c) sines
        cosines = np.concatenate([down.real, -down.imag], axis=2).transpose(1, 2, 0)
        if not slopes:
            return self._spectra((left @ cosines)[None])[0], None
        sines = np.concatenate([down.imag, down.real], axis=2).transpose(1, 2, 0)
        sums = np.empty((len(self.factors) + 2, points, *self.taper), np.float32)
        sums[0] = left @ cosines
        sums[1] = left @ (cosines * np.tile(-fall * self.fall, 2)[:, :, None])
        many = sines[:, :, None] * self.factors.T[:, :, None]
        sums[2:] = (
            (left @ many.reshape(points, 2 * others, -1)).reshape(points, len(self.across), len(self.factors), -1).transpose(2, 0, 1, 3)
        )
        moved = sums[2] * self.at_here[:, :, None, None] - sums[3:]
        turned = np.tensordot(-2 * np.pi * self.shifts, moved, 1)
        turned = self.across[:, None] * turned[:, 0] + self.down * turned[:, 1]
        every = self._spectra(np.concatenate([sums[:1], turned, sums[:2]]))
        return every[0], every[1:]

    def _spectra(self, sums: np.ndarray) -> np.ndarray:
        """Autocorrelations (..., here, lags, lags) averaged over segments and transformed."""
        return np.stack([self.average @ one.reshape(len(one), -1) @ self.cosines.T for one in sums])


FILM = np.array([0.0, 0.2])  # log strength and log fall of a film's scattering, before it is seen
FILM_PRECISION = np.diag([0.25, 4.0])  # inverse variances
LONGEST = 0.5  # of a fit's steps, scales
OUTLIER = 8.0  # a power this many times what is expected tells no more


def fit(segments: Segments, spectra: np.ndarray, noise: np.ndarray, start: np.ndarray, mean: np.ndarray, precision: np.ndarray,
        information: float, iterations: int = 10, tolerance: float = 0.2) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Most probable aberrations and film, (n + 2,) as of ``Segments.expected``, and their covariance, by Levenberg-Marquardt on Whittle's likelihood.

    spectra, noise: (2, segments, frequencies). start: (n + 2,). mean: (n,), precision: (n, n). Spectra are exponentially distributed around expected + noise; ``information``: independent values a kept value, below 1 as segments
    overlap. mean, precision: of what was believed of the aberrations, in scales. Whittle, Ark. Mat. 2, 423 (1953).
    """
    n, x, damping = len(mean), start.copy(), 1e-2

    def cost(expected: np.ndarray, at: np.ndarray) -> float:
        total, off, film = expected + noise, at[:n] - mean, at[n:] - FILM
        return (
            information * float((spectra / total + np.log(total)).sum(dtype=float))
            + off @ precision @ off / 2
            + film @ FILM_PRECISION @ film / 2
        )

    def seen(at: np.ndarray):
        expected, slopes = segments.expected(at, slopes=True)
        return cost(expected, at), expected + noise, slopes

    x[n] = np.log(max(float((spectra - noise).sum()), 1e-9) / segments.expected(np.append(x[:n], [0.0, x[-1]])).sum())
    best, total, slopes = seen(x)
    for _ in range(iterations):
        relative = (slopes / total).reshape(len(x), -1)
        curvature = information * (relative @ relative.T).astype(float)
        uphill = information * (relative @ np.minimum(spectra / total - 1, OUTLIER).ravel()).astype(float)
        curvature[:n, :n] += precision
        curvature[n:, n:] += FILM_PRECISION
        uphill -= np.append(precision @ (x[:n] - mean), FILM_PRECISION @ (x[n:] - FILM))
        for _ in range(4):
            step = np.linalg.solve(curvature + damping * np.diag(np.diag(curvature)), uphill)
            step *= min(1, LONGEST / np.abs(step[:n]).max(), 1 / np.abs(step[n:]).max())
            now, total, slopes = seen(x + step)
            if now < best:
                break
            damping = max(6 * damping, 1e-2)
        else:
            break
        x, damping, gained, best = x + step, damping / 4, best - now, now
        if gained < tolerance:
            break
    return x, np.linalg.inv(curvature)


class RonchigramSegments(Agent):
    """Fits the segments' spectra, moves the controls to cancel the aberrations, and declares when they are known well enough.

    Told: beam energy (eV), half angles of the camera's disc (rad) and of the probe (rad). What it knows is carried from step
    to step: a move makes it uncertain by ``slip`` of its size, which stands for cross-talk and for fits that end beside the best one when
    aberrations are large; every step by ``wander`` (scales). threshold: expected phase variance (rad^2) at which it declares. Both are
    tuned on training seeds (benchmarks/stem_tuning_scripts.py).
    """

    def __init__(self, threshold: float = 0.1, slip: float = 0.35, wander: float = 0.01, information: float = 0.05, energy: float = 60e3,
                 camera: float = 0.040, probe: float = 0.030, **segments):  # fmt: skip
        self.threshold, self.slip, self.wander, self.information = threshold, slip, wander, information
        self.energy, self.camera, self.probe, self.options = energy, camera, probe, segments
        self.task: StemTuningTask | None = None

    def begin(self, lanes: int, seed: int) -> None:
        self.lanes, self.started = lanes, False

    def _learn(self, task: Task) -> StemTuningTask:
        """What the settings of a task say about the frames and the goal; raises ProbeGymError for one without such frames."""
        series = task.series.get("ronchigram") if isinstance(task, StemTuningTask) else None
        if not isinstance(task, StemTuningTask) or series is None or len(series.excursions) < 2 or max(np.abs(series.excursions)) > 100e-9:
            raise ProbeGymError(
                "segments are fitted to two thin-film Ronchigrams at known excursions: use scenario 'train', 'id' or one of its near and far"
            )
        self.task, names, scales = task, task.names, task.scales
        self.segments = Segments(series.pixels, self.camera, self.energy, names, scales, series.excursions, **self.options)
        self.weights = Pupil(self.energy, self.probe, names, samples=24).covariance * np.outer(scales, scales)  # rad^2 of phase variance
        return task

    def act(self, observation: Observation, episodes: Episodes) -> np.ndarray:
        task = episodes.task
        if self.task is not task or not isinstance(task, StemTuningTask):
            task = self._learn(task)
        n, largest = len(task.names), task.settings.largest_step
        if not self.started:  # the start box is uniform, one scale each way
            self.mean, self.film = np.zeros((self.lanes, n)), np.tile(FILM, (self.lanes, 1))
            self.covariance, self.done = np.tile(np.eye(n) / 3, (self.lanes, 1, 1)), np.zeros(self.lanes, bool)
            self.started = True
        last = observation["budget"][:, 0] < (2 * len(self.segments.excursions) - 0.5) / episodes.limits["measurements"]
        spectra, noise = self.segments.observed(observation["ronchigram"], observation["signal"].astype(float))
        action = np.zeros((self.lanes, *shape_of(task.action_space)), np.float32)
        action[:, -1] = 1
        for lane in np.nonzero(~self.done)[0]:
            start = np.append(self.mean[lane], self.film[lane])
            x, covariance = fit(
                self.segments, spectra[lane], noise[lane], start, self.mean[lane], np.linalg.inv(self.covariance[lane]), self.information
            )
            step = np.clip(-x[:n] / largest, -1, 1) * largest
            mean, moved = x[:n] + step, step**2
            covariance = covariance[:n, :n] + np.diag(self.slip**2 * (moved + moved.mean()) + self.wander**2)
            self.mean[lane], self.covariance[lane], self.film[lane] = mean, covariance, x[n:]
            expected = np.einsum("ij,ij", self.weights, covariance + np.outer(mean, mean))
            self.done[lane] = expected < self.threshold or last[lane]
            action[lane, :n], action[lane, -1] = step / largest, 1 if self.done[lane] else -1
        return action
