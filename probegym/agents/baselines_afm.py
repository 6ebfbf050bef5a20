"""Practitioners' ways to set an AFM's feedback: they see what a policy sees, and the relay test that controllers offer.

All of them hold the line rate they are given, so that they can be compared at equal speed.
"""

from __future__ import annotations

import numpy as np

from probegym.agents.base import Agent
from probegym.envs.afm_tuning import NAMES, AfmTuningTask
from probegym.envs.episodes import Episodes
from probegym.envs.task import Observation
from probegym.hardware_bridge.commands import TestFeedback

SETPOINT, DRIVE = 0.8, 25e-9  # what an operator starts from
FIRST_INTEGRAL = 400.0  # 1/s, gentle enough for every cantilever


class FixedSettings(Agent):
    """The same settings for every sample; SI units. line_rate: Hz, that of the scenario by default.

    The defaults are the best P and I of a grid on training seeds (benchmarks/afm_baselines.py).
    """

    def __init__(self, proportional: float = 0.4, integral: float = 1500.0, setpoint: float = SETPOINT, drive: float = DRIVE,
                 feed_forward: float = 0.0, line_rate: float | None = None):  # fmt: skip
        given = {"proportional": proportional, "integral": integral, "setpoint": setpoint, "drive": drive, "feed_forward": feed_forward}
        self.settings = given if line_rate is None else given | {"line_rate": line_rate}

    def begin(self, lanes: int, seed: int) -> None:
        self.lines, self.lanes = 0, lanes

    def act(self, observation: Observation, episodes: Episodes) -> np.ndarray:
        self.lines += 1
        return self._towards(self.settings, observation, episodes)

    @staticmethod
    def _towards(settings: dict, observation: Observation, episodes: Episodes) -> np.ndarray:
        """Action that goes to these settings as far as one line allows; values are numbers or (lanes,)."""
        task, target = episodes.task_of(AfmTuningTask), observation["settings"].astype(float)
        for name, value in settings.items():
            target[:, NAMES.index(name)] = task.share(name, value)
        return np.clip((target - observation["settings"]) / task.settings.largest_step, -1, 1).astype(np.float32)


def fixed_settings(line_rate: float | None = None) -> FixedSettings:
    """The best of a search over all settings at once on training seeds, feed-forward included (benchmarks/afm_baselines.py).

    line_rate: Hz, that of the scenario by default.
    """
    return FixedSettings(0.55, 402.0, 0.53, 10.8e-9, 0.9, line_rate)


class RelayAutotune(FixedSettings):
    """Astrom & Hagglund's relay test once the tip is at the surface, then PI by the Ziegler-Nichols rules.

    Automatica 20, 645 (1984), 10.1016/0005-1098(84)90014-1: a relay of height d oscillates with period T and amplitude a; K_u = 4 d /
    pi a, P = 0.45 K_u, T_i = T / 1.2. relay: m. factor: on those gains, tuned with setpoint and drive on training seeds.
    """

    def __init__(self, relay: float = 1e-9, factor: float = 2.5, setpoint: float = 0.7, drive: float = 15e-9, duration: float = 0.2,
                 samples: int = 4096, line_rate: float | None = None):  # fmt: skip
        super().__init__(setpoint=setpoint, drive=drive, line_rate=line_rate)
        self.relay, self.factor, self.duration, self.samples = relay, factor, duration, samples

    def act(self, observation: Observation, episodes: Episodes) -> np.ndarray:
        if self.lines < 2:
            self.lines += 1
            return self._towards(self.settings | {"proportional": 0.01, "integral": FIRST_INTEGRAL}, observation, episodes)
        if self.lines == 2:
            command = TestFeedback(np.full(self.lanes, self.relay), self.duration, self.samples)
            error = episodes.instruct(command, np.ones(self.lanes, bool)).values["error"][:, self.samples // 2 :]
            self.gains = np.array([self._rules(one) for one in error])
        self.lines += 1
        return self._towards(self.settings | {"proportional": self.gains[:, 0], "integral": self.gains[:, 1]}, observation, episodes)

    def _rules(self, error: np.ndarray) -> tuple[float, float]:
        error = error - error.mean()
        rising = np.nonzero((error[1:] > 0) & (error[:-1] <= 0))[0]
        if len(rising) < 3:  # no oscillation to measure
            return 0.01, FIRST_INTEGRAL
        period = float(np.diff(rising).mean()) * self.duration / self.samples
        amplitude = max(float(np.quantile(error, 0.95) - np.quantile(error, 0.05)) / 2, 1e-12)
        proportional = self.factor * 0.45 * 4 * self.relay / (np.pi * amplitude)
        return proportional, proportional * 1.2 / period


class RampUntilRinging(FixedSettings):
    """The operator's rule: raise the gains line by line until the error signal rings, then halve them and scan on.

    factor: by which the gains grow a line. ringing: growth of the rms error signal over its least so far that counts as
    ringing. share: proportional gain for an integral gain of 1/s. All tuned on training seeds.
    """

    def __init__(self, factor: float = 1.8, ringing: float = 1.05, share: float = 2e-5, halve: float = 0.5, setpoint: float = 0.55,
                 drive: float = 11e-9, line_rate: float | None = None):  # fmt: skip
        super().__init__(setpoint=setpoint, drive=drive, line_rate=line_rate)
        self.factor, self.ringing, self.share, self.halve = factor, ringing, share, halve

    def begin(self, lanes: int, seed: int) -> None:
        super().begin(lanes, seed)
        self.gain, self.least, self.rings = np.full(lanes, FIRST_INTEGRAL / 2), np.full(lanes, np.inf), np.zeros(lanes, bool)

    def act(self, observation: Observation, episodes: Episodes) -> np.ndarray:
        error = np.sqrt((observation["lines"][:, 2:4] ** 2).mean((1, 2)))
        if self.lines > 1:  # the first line approaches, the second is the first with these settings
            rings = ~self.rings & (error > self.ringing * self.least)
            self.gain = np.where(rings, self.gain * self.halve, np.where(self.rings, self.gain, self.gain * self.factor))
            self.rings |= rings
            self.least = np.minimum(self.least, error)
        self.lines += 1
        gains = {"integral": self.gain, "proportional": self.share * self.gain}
        return self._towards(self.settings | gains, observation, episodes)
