"""How a bank of lenses answers its controls: hysteresis, cross-talk, step error, settling and drift.

Arrays have a leading axis of lanes; coefficients are in metres, in the order of the aberrations; the first ``controls``
of them have a control. "Microscope and corrector lens settings drift on the minutes to hours time scales": Pattison
et al., npj Comput. Mater. (2025), 10.1038/s41524-025-01766-4.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

Lanes = dict[str, np.ndarray]


@dataclass(frozen=True)
class LensBank:
    """Static properties, each an array over the aberrations (n,) unless said otherwise.

    scales: m, the unit in which cross-talk and hysteresis are stated. controls: how many of the aberrations can be set.
    drift: m per sqrt(s), a random walk. settling_time: s, in which 63 % of a change arrives (0: at once).
    """

    scales: np.ndarray
    controls: int
    drift: np.ndarray
    settling_time: float = 0.0

    def rest(self, lanes: int) -> Lanes:
        """State with all controls at zero: name -> (lanes, ...), aberrations and setpoints in m."""
        n = len(self.scales)
        return {
            "aberrations": np.zeros((lanes, n)),  # where the lenses are heading
            "residual": np.zeros((lanes, n)),  # what of the last changes has not arrived yet
            "setpoint": np.zeros((lanes, self.controls)),
            "play": np.zeros((lanes, self.controls)),  # the setpoint as the iron follows it
            "coupling": np.tile(np.eye(self.controls), (lanes, 1, 1)),
            "hysteresis": np.zeros(lanes),  # half width, in scales
            "step_error": np.zeros(lanes),  # relative
        }

    def set(self, state: Lanes, values: np.ndarray, where: np.ndarray, noise: np.ndarray) -> None:
        """Move the controls to absolute setpoints (lanes, controls) in m, on the lanes ``where`` (lanes,) bool; noise: standard normal, same shape."""
        c, scale = self.controls, self.scales[: self.controls]
        width = state["hysteresis"][:, None] * scale
        play = np.minimum(np.maximum(state["play"], values - width), values + width)  # backlash: follows only beyond half its width
        moved = (play - state["play"]) * (1 + state["step_error"][:, None] * noise)
        change = (state["coupling"] @ (moved / scale)[..., None])[..., 0] * scale
        change[~where] = 0
        state["aberrations"][:, :c] += change
        if self.settling_time:
            state["residual"][:, :c] += change
        state["play"] = np.where(where[:, None], play, state["play"])
        state["setpoint"] = np.where(where[:, None], values, state["setpoint"])

    def elapse(self, state: Lanes, seconds: np.ndarray, noise: np.ndarray) -> None:
        """Let time pass, (lanes,) s; noise: standard normal (lanes, n)."""
        state["aberrations"] += np.sqrt(seconds)[:, None] * self.drift * noise
        if self.settling_time:
            state["residual"] *= np.exp(-seconds / self.settling_time)[:, None]

    def actual(self, state: Lanes) -> np.ndarray:
        """The aberrations as they are now, (lanes, n) in m."""
        return state["aberrations"] - state["residual"] if self.settling_time else state["aberrations"].copy()
