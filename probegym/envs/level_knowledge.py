"""What is known of the flakes in an episode of LevelSelection: the belief, and what a measurement would add to it."""

from __future__ import annotations

import numpy as np

from probegym.envs.level_settings import Settings
from probegym.envs.task import Where
from probegym.hardware_bridge.commands import Lanes
from probegym.scenarios import ScenarioError
from probegym.surrogates import belief

FLAKES = 24  # most in one view
NOISE, SCATTER, OFFSET = range(3)


class Knowledge:
    """Keeps the belief in a task's memory; ``settings``: of the task. D = levels x FLAKES, level by level."""

    def __init__(self, settings: Settings):
        self.settings, self.levels = settings, len(settings.levels)
        self.correlations = belief.hypotheses(settings.hypotheses or ((0.0,),) * (self.levels - 1))
        self.of_level = [slice(level * FLAKES, (level + 1) * FLAKES) for level in range(self.levels)]

    def memory(self, lanes: int) -> Lanes:
        """Arrays of an episode before it begins."""
        n, h, rows, most = self.levels, len(self.correlations), self.settings.rows, self.settings.tile_flakes
        d = n * FLAKES
        shapes = {
            "means": (h, d), "covariances": (h, d, d), "evidence": (h,), "correlations": (h, n - 1),  # of each hypothesis
            "mean": (d,), "mean_before": (d,), "covariance": (d, d), "uncertainty": (), "uncertainty_before": (),  # of all together
            "overview": (n, FLAKES, FLAKES), "overview_pixels": (n, FLAKES),  # functionals of levels that map all, pixels behind each row
            "tiles": (n - 1, FLAKES, most, FLAKES), "tiles_pixels": (n - 1, FLAKES, most), "tiles_flakes": (n - 1, FLAKES, most),
            "reduction": (n, FLAKES), "promise": (n, FLAKES), "target": (d,), "position": (FLAKES, 2), "size": (FLAKES,), "view": (), "seconds": (n, n),
            "sheet": (n, 3), "side": (n,), "labels": (rows, rows), "maps": (n, rows, rows), "instrument": (), "place": (), "steps": (n,),
            "seconds_spent": (),
        }  # fmt: skip
        whole = {"labels", "instrument", "place", "tiles_flakes", "side"}
        return {name: np.zeros((lanes, *shape), np.int64 if name in whole else float) for name, shape in shapes.items()}

    def begin(self, told: Lanes, m: Lanes, where: Where) -> None:
        """The prior of new episodes, and what each measurement is made of; raises ProbeGymError where the world is another."""
        from probegym.physics import flakes as optics  # arrays in, arrays out; the twin blurs by the same function

        n, rows, s = self.levels, self.settings.rows, self.settings
        for entry, what, own, there in (("levels", "levels", n, told["seconds"]), ("rows", "rows in its maps", rows, told["labels"])):
            if there.shape[1:] != (own, own):
                raise ScenarioError((f"task.{entry}", f"world.{entry}"), f"the world has {there.shape[1]} {what}, the task {own}: give both alike")
        if s.hypotheses is None and not np.isfinite(told["correlations"][where]).all():
            raise ScenarioError(("task.hypotheses", "world.told"), "the world does not tell the correlations: give hypotheses, or set told")
        for codes in told["names"][where]:
            names = tuple(np.ascontiguousarray(codes, np.uint32).view(f"U{codes.shape[1]}")[:, 0])
            if names != s.levels:
                raise ScenarioError(("task.levels", "world.levels"), f"the world has {', '.join(names)}, the task {', '.join(s.levels)}: give both alike")
        for lane in np.nonzero(where)[0].tolist():
            labels, view = told["labels"][lane], told["view"][lane]
            pixel = view / rows
            at, pixels = (array[0] for array in optics.centroids(labels[None], pixel))
            there = pixels > 0
            m["labels"][lane], m["view"][lane], m["size"][lane], m["position"][lane] = labels, view, pixels / rows**2, at
            m["seconds"][lane] = told["seconds"][lane]
            m["sheet"][lane] = np.stack([told[name][lane] for name in ("noise", "scatter", "offset")], 1)
            m["side"][lane] = side = np.round(told["side"][lane] / pixel)
            m["maps"][lane], m["steps"][lane], m["instrument"][lane], m["place"][lane], m["seconds_spent"][lane] = np.nan, 0, 0, 0, 0
            for level in range(n):
                width = told["psf"][lane, level] / pixel
                if self.whole(m, lane, level):
                    design, behind, order = (array[0] for array in optics.response(labels, width, rows, np.zeros((1, 2)), pixel, FLAKES))
                    m["overview"][lane, level], m["overview_pixels"][lane, level] = design[order.argsort()], behind[order.argsort()]
                    continue
                parts = optics.response(labels, width, int(side[level]), at, pixel, s.tile_flakes)
                for name, part in zip(("tiles", "tiles_pixels", "tiles_flakes"), parts, strict=True):
                    m[name][lane, level - 1] = part
            m["correlations"][lane] = told["correlations"][lane] if s.hypotheses is None else self.correlations
            gradient = optics.growth(at[None], told["field"][lane, :1], told["field"][lane, 1:])[0]
            m["covariances"][lane] = belief.prior(m["correlations"][lane], gradient)
            m["means"][lane], m["evidence"][lane] = 0, 0
            m["mean"][lane], m["uncertainty"][lane] = 0, 1
            m["target"][lane] = (np.array(s.target)[:, None] / sum(s.target) * there / max(1, there.sum())).ravel()

    @staticmethod
    def whole(m: Lanes, lane: int, level: int) -> bool:
        """Whether a level maps the whole view at once, wherever it is taken."""
        return level == 0 or m["side"][lane, level] >= m["labels"].shape[-1]

    @staticmethod
    def taken(m: Lanes) -> np.ndarray:
        """Maps taken so far at each level, (..., levels), that of the opening among them."""
        return np.asarray(m["steps"] + (np.arange(m["steps"].shape[-1]) == 0))

    def learn(self, m: Lanes, lane: int, level: int, signal: np.ndarray) -> None:
        """Condition one lane on a map of a level, (side, side), taken around the flake ``place``."""
        from probegym.physics import flakes as optics

        rows, side, place = self.settings.rows, len(signal), m["place"][lane]
        top, left = optics.tile(m["position"][lane, place], side, rows, m["view"][lane] / rows)
        window = (slice(top, top + side), slice(left, left + side))
        if self.whole(m, lane, level):
            design, pixels, flakes = m["overview"][lane, level], m["overview_pixels"][lane, level], np.arange(FLAKES)
        else:
            design, pixels, flakes = (m[name][lane, level - 1, place] for name in ("tiles", "tiles_pixels", "tiles_flakes"))
        used = pixels > 0
        if used.any():
            sums = np.bincount(m["labels"][lane][window].ravel(), signal.ravel(), FLAKES + 1)[1:]
            y = sums[flakes[used]] / pixels[used] - m["sheet"][lane, level, OFFSET] * design[used].sum(1)
            noise = self._noise(m["sheet"][lane, level], pixels[used])
            m["evidence"][lane] += belief.condition(m["means"][lane], m["covariances"][lane], self.of_level[level], design[used], noise, y)
        m["maps"][lane, level][window] = signal

    @staticmethod
    def _noise(sheet: np.ndarray, pixels: np.ndarray) -> np.ndarray:
        return np.where(pixels > 0, sheet[NOISE] ** 2 / np.maximum(pixels, 1) + sheet[SCATTER] ** 2, 1.0)

    def judge(self, m: Lanes, lane: int) -> None:
        """What is known now, all hypotheses together, and by how much each measurement would reduce the uncertainty."""
        weight = belief.weights(m["evidence"][lane])
        m["mean"][lane], m["covariance"][lane] = belief.mixture(weight, m["means"][lane], m["covariances"][lane])
        covariance, target = m["covariance"][lane], m["target"][lane]
        m["uncertainty"][lane] = (np.diagonal(covariance) * target).sum()
        tied = belief.folded(weight, m["correlations"][lane], m["covariances"][lane])
        both, there = np.stack([covariance, tied]), m["size"][lane] > 0
        for level, at in enumerate(self.of_level):
            m["reduction"][lane, level], m["promise"][lane, level] = there * belief.reduction(both, at, *self.design(m, lane, level), target)

    def design(self, m: Lanes, lane: int, level: int) -> tuple[np.ndarray, np.ndarray]:
        """Functionals (places, k, FLAKES) of the maps of a level and their noise (places, k); a map of the whole view has one place."""
        sheet = m["sheet"][lane, level]
        if self.whole(m, lane, level):
            return m["overview"][lane, level][None], self._noise(sheet, m["overview_pixels"][lane, level])[None]
        most = 1 if m["side"][lane, level] <= 1 else self.settings.tile_flakes
        return m["tiles"][lane, level - 1, :, :most], self._noise(sheet, m["tiles_pixels"][lane, level - 1, :, :most])

    def shown(self, m: Lanes) -> Lanes:
        """What an observation says of it."""
        lanes, there = len(m["view"]), m["size"] > 0
        flakes = np.concatenate([m["position"] / np.maximum(m["view"], 1e-30)[:, None, None], m["size"][..., None], there[..., None]], 2)
        target = np.array(self.settings.target) / sum(self.settings.target)
        return {
            "mean": m["mean"].reshape(lanes, self.levels, FLAKES), "variance": self.variance(m), "flakes": flakes,
            "correlations": np.concatenate(self.ties(m), 1), "reduction": m["reduction"], "promise": m["promise"],
            "target": np.tile(target, (lanes, 1)), "uncertainty": m["uncertainty"][:, None],
        }  # fmt: skip

    def variance(self, m: Lanes) -> np.ndarray:
        """Variances (lanes, levels, FLAKES), zero where there is no flake."""
        of_all = np.diagonal(m["covariance"], axis1=1, axis2=2).reshape(-1, self.levels, FLAKES)
        return of_all * (m["size"] > 0)[:, None]

    def ties(self, m: Lanes) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation (lanes, levels - 1) of what the correlations are believed to be."""
        weight = belief.weights(m["evidence"])[..., None]
        mean = (weight * m["correlations"]).sum(1)
        return mean, np.sqrt((weight * (m["correlations"] - mean[:, None]) ** 2).sum(1))
