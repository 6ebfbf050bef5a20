"""Scalarizers: what an experiment makes of a spectrum, one number per spectrum, by name.

A scalarizer takes the axis (channels,) and spectra (..., channels) and returns (...) float64. Where its number is not defined (a
spectrum that is not finite, a loop that never switches, a band outside of the axis) it is NaN; the ones here never raise for values.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from probegym.errors import ProbeGymError

KINDS = ("eels", "loop", "com")
LARGEST = 1e70  # of a scalar: squares of larger ones, and products of those, are not finite
Function = Callable[[np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Scalarizer:
    """kind: of spectra it is meant for, one of KINDS. of: (axis (channels,), spectra (..., channels)) -> (...), NaN where undefined."""

    kind: str
    of: Function
    name: str = "without a name"

    def __call__(self, axis, spectra) -> np.ndarray:
        """Numbers of spectra (..., channels), float64 (...); NaN for a spectrum that is not finite, and beyond LARGEST.

        Raises ProbeGymError for spectra that do not go with the axis, and where the function fails or gives no such numbers.
        """
        axis, spectra = np.array(axis, float), np.asarray(spectra, float)  # a copy: the axis is shared
        if axis.ndim != 1 or not len(axis) or spectra.shape[-1:] != axis.shape:
            raise ProbeGymError(f"spectra of shape {spectra.shape} do not go with an axis of shape {axis.shape}: the last lengths must agree")
        with np.errstate(all="ignore"):
            try:
                values = np.ma.asarray(self.of(axis, spectra))
            except Exception as error:  # whatever a user's function may raise
                told = " ".join(f"{type(error).__name__}: {error}".split())[:150]
                raise ProbeGymError(f"scalarizer {self.name!r} failed on spectra of shape {spectra.shape} ({told}): mend its function") from error
            if values.dtype.kind not in "fiub" or values.shape != spectra.shape[:-1]:
                raise ProbeGymError(
                    f"scalarizer {self.name!r} gave {values.dtype} of shape {values.shape} for spectra of shape {spectra.shape}: "
                    f"it must return real numbers of shape {spectra.shape[:-1]}, one per spectrum, as spectra.max(-1) does"
                )
            numbers = np.ma.filled(values.astype(float), np.nan)
            return np.where(np.isfinite(spectra.sum(-1)) & (np.abs(numbers) <= LARGEST), numbers, np.nan)


SCALARIZERS: dict[str, Scalarizer] = {}


def register(name: str, kind: str, of: Function) -> Scalarizer:
    """Make a scalarizer known by name; ``of`` takes many spectra (..., channels) at once and returns a number for each, (...).

    It must not depend on the scale of the spectra: the twin judges places by spectra without noise, in the source's own unit
    (probability per eV, for one), while agents see measured ones (counts). Scaling a spectrum may scale the number, no more.
    Raises ProbeGymError for a name that is taken, a kind that there is not, no function.
    """
    if not isinstance(name, str) or not name or not callable(of):
        raise ProbeGymError(f"scalarizer {name!r}: give a name and a function of (axis, spectra)")
    if name in SCALARIZERS:
        raise ProbeGymError(f"there is a scalarizer {name!r} already: choose another name")
    if kind not in KINDS:
        raise ProbeGymError(f"scalarizer {name!r}: kind must be one of {', '.join(KINDS)}, got {kind!r}")
    SCALARIZERS[name] = Scalarizer(kind, of, name)
    return SCALARIZERS[name]


def named(name: str) -> Scalarizer:
    """The scalarizer of this name. Raises ProbeGymError that lists the names there are."""
    if name not in SCALARIZERS:
        raise ProbeGymError(f"no scalarizer {name!r}; there are {', '.join(map(repr, sorted(SCALARIZERS)))}")
    return SCALARIZERS[name]


# ---- energy loss: axis in eV, spectra in anything proportional to the probability per eV ----

LOW_BAND = (0.38, 0.66)
"""eV. Long modes: in ITO of 1.8 eV rods of aspect 1.7 (0.65) to 5 (0.39) resonate here, and spheres of four fifths of that (0.59)."""
HIGH_BAND = (0.68, 0.98)
"""eV. Spheres (0.741), their dimers (0.71 to 0.77), the short axis of rods (up to 0.80) and the bulk (0.91)."""
_REFERENCE = (0.05, 0.06)  # of the axis, at either end: where the background is measured


def _band(axis: np.ndarray, band: tuple[float, float]) -> slice:
    start, stop = np.searchsorted(axis, band)
    return slice(int(start), max(int(stop), int(start) + 1))


def _losses(axis: np.ndarray, spectra: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The channels of losses: a file may hold the zero-loss peak too, and a power law has no logarithm from 0 downward."""
    first = int(np.searchsorted(axis, 1e-3 * abs(axis[-1]), side="right"))
    return axis[first:], spectra[..., first:]


def _tail(axis: np.ndarray, spectra: np.ndarray) -> np.ndarray:
    """Power law through the means of both ends: the zero-loss tail and what is under it, (..., channels)."""
    low, high = (max(2, round(share * len(axis))) for share in _REFERENCE)
    least = 1e-9 * np.abs(spectra).max(-1, keepdims=True)  # so that a spectrum that ends at zero has a tail of about zero
    left, right = (np.maximum(end.mean(-1, keepdims=True), least) for end in (spectra[..., :low], spectra[..., -high:]))
    log = np.log(axis)
    power = np.log(left / right) / (log[:low].mean() - log[-high:].mean())
    rise = np.exp(power.astype(np.float32) * (log - log[-high:].mean()).astype(np.float32))  # single precision: half the time
    return right * rise


def _peak_ratio(axis: np.ndarray, spectra: np.ndarray) -> np.ndarray:
    """Loss in LOW_BAND over that in both bands and half of the tail there: long or strongly coupled structures against compact ones.

    Losses are taken above the tail; with its half below the line, places without any plasmon are near 0 and not 0 / 0. NaN where
    the axis does not hold both bands.
    """
    axis, spectra = _losses(axis, spectra)
    if not len(axis) or axis[0] > LOW_BAND[0] or axis[-1] < HIGH_BAND[1]:
        return np.full(spectra.shape[:-1], np.nan)
    tail, bands = _tail(axis, spectra), (_band(axis, LOW_BAND), _band(axis, HIGH_BAND))
    below = [tail[..., band].sum(-1) for band in bands]
    low, high = (spectra[..., band].sum(-1) - under for band, under in zip(bands, below, strict=True))
    return low / (low + high + 0.5 * sum(below))


def _peak(axis: np.ndarray, spectra: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Height and place of the highest point of the smoothed spectrum above its tail, by a parabola through three channels.

    The smoothing is a mean over five channels, 1 2 3 2 1.
    """
    axis, spectra = _losses(axis, spectra)
    if len(axis) < 7:
        return np.full(spectra.shape[:-1], np.nan), np.full(spectra.shape[:-1], np.nan)
    above = spectra - _tail(axis, spectra)
    for _ in range(2):
        above = above[..., :-2] + above[..., 1:-1] + above[..., 2:]
    at = np.clip(above.argmax(-1), 1, above.shape[-1] - 2)
    left, middle, right = (np.take_along_axis(above, (at + step)[..., None], -1)[..., 0] / 9 for step in (-1, 0, 1))
    bend = left - 2 * middle + right
    shift = np.where(bend < 0, np.clip(0.5 * (left - right) / np.where(bend < 0, bend, 1), -1, 1), 0)
    return middle - 0.25 * (left - right) * shift, axis[at + 2] + shift * (axis[1] - axis[0])


register("peak ratio", "eels", _peak_ratio)
register("peak maximum", "eels", lambda axis, spectra: _peak(axis, spectra)[0])
register("peak energy", "eels", lambda axis, spectra: _peak(axis, spectra)[1])


# ---- loops: axis in V, one closed cycle of bias; spectra: piezoresponse ----

OUTLYING = 7.0
"""Median distances from the median; normal noise has 1 step in 400,000 further away."""


def _area(bias: np.ndarray, loops: np.ndarray) -> np.ndarray:
    """Area by the shoelace formula, in V x response, without sign: the work a cycle dissipates, for any direction and shape."""
    after, before = np.roll(bias, -1), np.roll(bias, 1)
    return 0.5 * np.abs((loops * (after - before)).sum(-1))


def _clean_area(bias: np.ndarray, loops: np.ndarray) -> np.ndarray:
    """Area of a loop whose outlying steps are taken for its median, as Hampel's filter does (1974, 10.1080/01621459.1974.10482962).

    Where the resonance of a step was not fitted, its response stands up to a thousand times above the loop. A step outlies that is further from
    the median than OUTLYING times the median distance. It is for loops as they are measured: one with more than half of its steps all alike loses the others.
    """
    middle = np.median(loops, -1, keepdims=True)
    distance = np.abs(loops - middle)
    return _area(bias, np.where(distance <= OUTLYING * np.median(distance, -1, keepdims=True), loops, middle))


def _crossings(bias: np.ndarray, loops: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Bias in V at which the rising and the falling branch pass the middle between the ends of the loop, (...) each.

    The middle is that of the medians at the highest and the lowest biases. Of several crossings those up and down again
    cancel, so a noisy branch has no bias towards its first. NaN for a branch that does not cross.
    """
    flat = loops.reshape(-1, len(bias))
    top, bottom = _saturated(bias, flat)
    middle = (top + bottom) / 2
    rising, falling = _branches(bias)
    cycle = np.concatenate([rising, falling[1:]])
    above = (flat > middle[:, None])[:, cycle]
    row, at = np.divmod(np.flatnonzero(above[:, 1:] != above[:, :-1]), len(cycle) - 1)
    first, second, v = flat[row, cycle[at]], flat[row, cycle[at + 1]], bias[cycle]
    where = v[at] + (middle[row] - first) / (second - first) * (v[at + 1] - v[at])
    upward = np.where(second > first, 1.0, -1.0)
    found = []
    for branch in (at < len(rising) - 1, at >= len(rising) - 1):
        net = np.bincount(row[branch], upward[branch], len(flat))
        found.append((np.bincount(row[branch], (upward * where)[branch], len(flat)) / np.where(net == 0, np.nan, net)).reshape(loops.shape[:-1]))
    return found[0], found[1]


def _branches(bias: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the rising branch from the lowest bias to the highest, and of the falling one, in the order of the cycle."""
    low, high, count = int(bias.argmin()), int(bias.argmax()), len(bias)
    return np.arange(low, low + (high - low) % count + 1) % count, np.arange(high, high + (low - high) % count + 1) % count


def _saturated(bias: np.ndarray, loops: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Median response at the highest and at the lowest biases, where the loop is switched."""
    edge = 0.85 * np.abs(bias).max()
    high, low = (np.median(loops[..., there], -1) if there.any() else np.full(loops.shape[:-1], np.nan) for there in (bias >= edge, bias <= -edge))
    return high, low


def _at_zero(bias: np.ndarray, loops: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Response of the rising and of the falling branch at no bias, by interpolation."""
    out = []
    for branch in _branches(bias):
        v = bias[branch]
        order = np.argsort(v, kind="stable")
        v, branch = v[order], branch[order]
        at = int(np.clip(np.searchsorted(v, 0.0), 1, len(v) - 1))
        share = -v[at - 1] / (v[at] - v[at - 1])
        out.append((1 - share) * loops[..., branch[at - 1]] + share * loops[..., branch[at]])
    return out[0], out[1]


def _half_sum(pair: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    return (pair[0] + pair[1]) / 2


def _half_difference(pair: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    return (pair[0] - pair[1]) / 2


def _work(bias: np.ndarray, loops: np.ndarray) -> np.ndarray:
    """Remanent response times the width of the loop: the area of the rectangle through its four switching points.

    The work of switching is the area of the saturated loop (Jesse, Lee & Kalinin, Rev. Sci. Instrum. 77, 073702 (2006),
    10.1063/1.2214699); here it is that of its rectangle, so that noise where nothing switches does not enter.
    """
    return np.abs(2 * _half_difference(_at_zero(bias, loops)) * 2 * _half_difference(_crossings(bias, loops)))


register("loop area", "loop", _area)
register("log loop area", "loop", lambda bias, loops: np.log10(_area(bias, loops)))
register("clean loop area", "loop", _clean_area)
register("coercive bias", "loop", lambda bias, loops: np.abs(_half_difference(_crossings(bias, loops))))
register("imprint", "loop", lambda bias, loops: _half_sum(_crossings(bias, loops)))
register("remanence", "loop", lambda bias, loops: np.abs(_half_difference(_at_zero(bias, loops))))
register("work of switching", "loop", _work)


# ---- centre of mass: two channels, x and y, in mrad ----


def _pair(spectra: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if spectra.shape[-1] != 2:
        return np.full(spectra.shape[:-1], np.nan), np.full(spectra.shape[:-1], np.nan)
    return spectra[..., 0], spectra[..., 1]


register("com magnitude", "com", lambda axis, spectra: np.hypot(*_pair(spectra)))
register("com angle", "com", lambda axis, spectra: np.arctan2(*_pair(spectra)[::-1]))
