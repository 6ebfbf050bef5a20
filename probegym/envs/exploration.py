"""What an exploration remembers and learns: spectra by place, values of the scalarizer, the surrogate's maps."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from probegym.envs.exploration_settings import Settings, Surrogate
from probegym.envs.frames import grey_levels
from probegym.hardware_bridge.commands import Lanes
from probegym.scenarios import ScenarioError


def first_places(keys: np.ndarray, pixels: int, count: int) -> np.ndarray:
    """Where an episode begins to measure, drawn from its key: (lanes, count) pixels."""
    from probegym.physics import randomness

    return (randomness.uniform(keys, 0, "first places", count) * pixels).astype(np.int64)


def _built(image: bytes, rows: int, columns: int, settings: Surrogate):
    """The model of one image; it has no state, that is in the memory."""
    from probegym.surrogates.deep_kernel import DeepKernel, DeepKernelSettings, patches_of

    assert settings.embedding != "none"  # which has no model
    patches = patches_of(np.frombuffer(image, np.uint8).reshape(rows, columns), settings.patch)
    coordinates = np.indices((rows, columns)).reshape(2, -1).T
    return DeepKernel(patches, coordinates, DeepKernelSettings(embedding=settings.embedding, steps=settings.steps))


@lru_cache
def _models(room: int):
    """Builds models and keeps as many as there is room for."""
    return lru_cache(maxsize=room)(_built)


def unlikeness(image: np.ndarray, place: int, side: int) -> np.ndarray:
    """How unlike the surroundings of one pixel those of all others are, (pixels,): 0, to 1 for independent ones or less alike.

    image: (rows, columns); side: of the square around a pixel, odd, in pixels.
    """
    deviation = float(image.std())
    around = np.pad((image - image.mean()) / max(deviation, 1e-12), side // 2, mode="reflect")
    windows = np.lib.stride_tricks.sliding_window_view(around, (side, side))
    row, column = divmod(place, image.shape[1])
    return np.minimum(np.sqrt(((windows - windows[row, column]) ** 2).mean((2, 3)) / 2), 1.0).ravel()


class Exploration:
    """The rules of one task on the memory of a batch of lanes."""

    def __init__(self, settings: Settings):
        self.settings = s = settings
        self.modelled = s.surrogate.embedding != "none"
        self.room = 64  # for models
        rows, columns = np.indices((s.image.rows, s.image.columns)).reshape(2, -1)
        self.coordinates = np.stack([rows, columns], 1) / max(s.image.rows, s.image.columns)

    def memory(self, lanes: int) -> Lanes:
        """As at the start of an episode; maps are (lanes, pixels)."""
        s = self.settings
        n, channels = s.image.pixels, s.spectrum.channels
        self.room = max(64, 1 << (lanes + 15).bit_length())  # one for each lane, and some that they had before
        blank = np.zeros(n, np.uint8)
        weights = self._model(blank).initial() if self.modelled else np.zeros(1)
        maps = {name: np.zeros((lanes, n)) for name in ("value", "mean", "deviation", "novelty")}
        numbers = {name: np.zeros(lanes) for name in ("improvement", "information", "new_behaviour", "behaviours")}
        return maps | numbers | {
            "image": np.zeros((lanes, n), np.uint8),
            "total": np.zeros((lanes, n, channels), np.float32),  # sum of the spectra of each place
            "axis": np.zeros((lanes, channels)),
            "visits": np.zeros((lanes, n), np.int16),
            "order": np.zeros((lanes, n), np.int32),  # when a place was first measured, from 1
            "known": np.zeros((lanes, n), bool),  # measured, and the scalarizer is defined there
            "latest": np.zeros((lanes, channels), np.float32),
            "weights": np.tile(weights, (lanes, 1)),
            "fit": np.zeros((lanes, 2)),
            "at": np.zeros(lanes, np.int64),
            "count": np.zeros(lanes, np.int64),
            "changed": np.zeros(lanes, bool),  # whether with the latest spectrum another scalarizer began to count
            "ways": np.zeros((lanes, 5)),  # from place to place: how many, sums of length, seconds, length^2, length x seconds
            "stood": np.full(lanes, -1),  # where the latest spectrum was taken
            "key": np.zeros(lanes, np.uint64),
            "target": np.zeros(lanes, np.int64),
        }  # fmt: skip

    # ---- measured ----

    def begin(self, m: Lanes, image: np.ndarray, where: np.ndarray) -> None:
        """Take the structural image (lanes, rows, columns) in."""
        grey, _ = grey_levels(image - image.min((1, 2), keepdims=True))
        m["image"][where] = grey.reshape(len(image), -1)[where]
        m["novelty"][where] = 1.0

    def add(self, m: Lanes, values: Lanes, seconds: np.ndarray, where: np.ndarray) -> None:
        """Take one spectrum (lanes, channels) in, which took (lanes,) s, at each lane's ``at``; raises ProbeGymError when it is not of the task's length."""
        s, spectrum = self.settings, values["spectrum"]
        if spectrum.shape[1] != s.spectrum.channels:
            raise ScenarioError("task.spectrum.channels", f"is {s.spectrum.channels}, but the world's spectra have {spectrum.shape[1]}")
        lanes, spectrum = np.nonzero(where)[0].tolist(), spectrum.astype(np.float32)
        found = [self._scalars(m, lane, values["axis"][lane], spectrum[lane]) for lane in lanes]  # first, because it may refuse
        m["axis"][where] = values["axis"][where]
        m["count"] += where
        length = self._length(m["stood"], m["at"])
        m["ways"] += np.stack([length**0, length, seconds, length**2, length * seconds], 1) * (where & (m["stood"] >= 0))[:, None]
        m["stood"][where] = m["at"][where]
        for lane, told in zip(lanes, found, strict=True):
            self._take(m, lane, spectrum[lane])
            self._value(m, lane, *told)

    def _take(self, m: Lanes, lane: int, spectrum: np.ndarray) -> None:
        place, visits, total = m["at"][lane], m["visits"][lane], m["total"][lane]
        m["latest"][lane] = spectrum / max(float(np.abs(spectrum).max()), 1e-30)
        m["new_behaviour"][lane] = not visits[place] and unlike(total[visits > 0], spectrum, self.settings.distinct)
        m["behaviours"][lane] += m["new_behaviour"][lane]
        if not visits[place]:
            m["order"][lane, place] = m["order"][lane].max() + 1
            if self.modelled:
                m["novelty"][lane] = np.minimum(m["novelty"][lane], self._unlike(m["image"][lane], place))
        total[place] += spectrum
        visits[place] += 1

    def _model(self, image: np.ndarray):
        s = self.settings
        return _models(self.room)(image.tobytes(), s.image.rows, s.image.columns, s.surrogate)

    def _unlike(self, image: np.ndarray, place: int) -> np.ndarray:
        return unlikeness(image.reshape(self.settings.image.rows, -1), int(place), self.settings.surrogate.patch)

    def _scalars(self, m: Lanes, lane: int, axis: np.ndarray, spectrum: np.ndarray) -> tuple[int, np.ndarray, np.ndarray]:
        """What counts once this spectrum is in, the pixels to be valued, and their scalars; changes nothing.

        The pixel is the one just measured, or they are all that ever were, when from now on another scalarizer counts.
        """
        from probegym.physics import scalarizers

        target, here = int(np.searchsorted(self.settings.switch_after, m["count"][lane] + 1, side="right")), np.zeros(m["visits"].shape[1], bool)
        here[m["at"][lane]] = True
        pixels = np.nonzero((m["visits"][lane] > 0) | here if target != m["target"][lane] else here)[0]
        total, visits = m["total"][lane, pixels] + here[pixels, None] * spectrum, m["visits"][lane, pixels] + here[pixels]
        return target, pixels, scalarizers.named(self.settings.scalarizers[target])(axis, total / visits[:, None])

    def _value(self, m: Lanes, lane: int, target: int, pixels: np.ndarray, value: np.ndarray) -> None:
        m["changed"][lane] = changed = target != m["target"][lane]
        before = m["value"][lane, m["known"][lane]].max(initial=-np.inf)
        m["target"][lane] = target
        m["known"][lane, pixels] = np.isfinite(value)  # where the scalarizer is undefined, the surrogate learns nothing
        m["value"][lane, pixels] = np.where(np.isfinite(value), value, 0.0)
        known = m["value"][lane, m["known"][lane]]
        better = 0.0 if changed or not np.isfinite(before) else (known.max() - before) / max(float(known.std()), 1e-30)
        m["improvement"][lane] = max(0.0, better)

    def _length(self, start: np.ndarray, end: np.ndarray) -> np.ndarray:
        return np.linalg.norm(self.coordinates[end] - self.coordinates[start], axis=1)

    def seconds(self, m: Lanes, pixel: np.ndarray | None = None) -> np.ndarray:
        """Time (lanes,) of a spectrum at a pixel, or next to the last one: a line through what those so far took, over their ways.

        Their mean as long as all ways were equally long, 0 before there was any.
        """
        count, way, time, square, product = m["ways"].T
        count = np.maximum(count, 1)
        way, time = way / count, time / count
        spread = square / count - way**2
        slowness = np.where(spread > 1e-9, (product / count - way * time) / np.where(spread > 1e-9, spread, 1), 0)
        shortest = 0 if self.settings.action == "locate" else 1 / max(self.settings.image.rows, self.settings.image.columns)
        return time + slowness * ((shortest if pixel is None else self._length(m["stood"], pixel)) - way)

    # ---- learned ----

    def standard(self, m: Lanes) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation of the values known, each (lanes, 1); the latter 1 where they do not differ."""
        known, value = m["known"], m["value"]
        count = np.maximum(known.sum(1, keepdims=True), 1)
        mean = (value * known).sum(1, keepdims=True) / count
        deviation = np.sqrt((known * (value - mean) ** 2).sum(1, keepdims=True) / count)
        return mean, np.where(deviation > 0, deviation, 1.0)

    def learn(self, m: Lanes, where: np.ndarray) -> None:
        """Train the surrogate of each lane of ``where`` (lanes,) bool a little on what is known, and predict everywhere."""
        if not self.modelled:
            return
        uncertainty = self._uncertainty(m)
        for lane in np.nonzero(where)[0]:
            model = self._model(m["image"][lane])
            index = np.nonzero(m["known"][lane])[0]
            value = m["value"][lane, index]
            m["weights"][lane] = weights = model.fit(m["weights"][lane], index, value)
            m["mean"][lane], m["deviation"][lane] = model.predict(weights, index, value)
            m["fit"][lane] = trust(value, *model.leave_one_out(weights, index, value))
        counts = (m["count"] > self.settings.first) & ~m["changed"]  # not the opening, and of one scalarizer alone
        m["information"][where] = ((uncertainty - self._uncertainty(m)) * counts)[where]

    def _uncertainty(self, m: Lanes) -> np.ndarray:
        return m["deviation"].mean(1) / self.standard(m)[1][:, 0]

    # ---- steering ----

    def merits(self, m: Lanes) -> np.ndarray:
        """What an acquisition function weighs, (lanes, 4, pixels): mean, deviation, novelty, and travel as a cost.

        Mean and deviation count in standard deviations of the known values, novelty from 0 to 1, travel in widths of the image.
        """
        mean, scale = self.standard(m)
        away = np.linalg.norm(self.coordinates - self.coordinates[m["at"]][:, None], axis=2)
        return np.stack([(m["mean"] - mean) / scale, m["deviation"] / scale, m["novelty"], -away], 1)

    def chosen(self, weights: np.ndarray, m: Lanes) -> np.ndarray:
        """The place with the largest weighted sum among those not measured, (lanes,) or (lanes, n); weights: (lanes, [n,] 4)."""
        score = np.matmul(weights.reshape(len(weights), -1, 4).astype(float), self.merits(m))
        score[np.broadcast_to(m["visits"][:, None] > 0, score.shape)] = -np.inf
        return score.argmax(2).reshape(weights.shape[:-1])


def unlike(known: np.ndarray, spectrum: np.ndarray, distance: float) -> bool:
    """Whether a spectrum (channels,), taken to unit length, is farther than ``distance`` from all known ones (n, channels)."""
    unit = spectrum / max(float(np.linalg.norm(spectrum)), 1e-30)
    others = known / np.maximum(np.linalg.norm(known, axis=1, keepdims=True), 1e-30)
    return bool((((others - unit) ** 2).sum(1) > distance**2).all())


def trust(value: np.ndarray, predicted: np.ndarray, deviation: np.ndarray) -> tuple[float, float]:
    """How well each known value (n,) is predicted from the others: correlation, and error in units of its claimed deviation."""
    if len(value) < 3:
        return 0.0, 1.0
    centred, other = value - value.mean(), predicted - predicted.mean()
    spread = np.sqrt((centred**2).sum() * (other**2).sum())
    correlation = float((centred * other).sum() / spread) if spread > 0 else 0.0
    return correlation, float(np.sqrt((((value - predicted) / np.maximum(deviation, 1e-30)) ** 2).mean()))
