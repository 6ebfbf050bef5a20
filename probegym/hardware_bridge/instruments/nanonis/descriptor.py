"""What an STM behind a Nanonis controller can do: from the user's settings, and from what the controller itself says."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from probegym.errors import ProbeGymError
from probegym.hardware_bridge.capabilities import Capability, Descriptor, Effect, Range
from probegym.hardware_bridge.instruments.nanonis.client import Connection
from probegym.hardware_bridge.instruments.nanonis.protocol import ControllerError
from probegym.hardware_bridge.instruments.nanonis.settings import SLOWEST, Settings

SIGNALS = ("Current (A)", "X (m)", "Y (m)", "Z (m)")
RECORDED = SIGNALS[:3]  # that a drag needs of the tip recorder
SAFE = ("withdraw the tip, which switches the feedback off", "stop scan, moves, approach and motor", "bias to zero")
ROUNDING = 1e-6  # the controller counts most numbers in four bytes
SETTLE_SECONDS = 5.0  # that a change of bias and setpoint may take
SAFE_SECONDS = 0.8  # that the commands to the safe state, or out of it, may take beside the way of the tip
LONGEST_SAFE = 60.0  # s that the way to the safe state may take at most
RAMP_SECONDS, RETRACT = 0.1, 2e-9  # of a dip: s down and s up; m above where it began


MODULES = {
    "SafeTip.OnOffGet": "", "SafeTip.PropsGet": "", "ZCtrl.LimitsGet": "", "ZCtrl.LimitsEnabledGet": "", "ZCtrl.WithdrawRateGet": "", "ZCtrl.TipLiftGet": "",
    "ZCtrl.SwitchOffDelayGet": "", "ZCtrl.SetpntGet": "", "ZCtrl.GainGet": "", "ZCtrl.StatusGet": "", "ZCtrl.ZPosGet": "", "FolMe.SpeedGet": "", "Scan.FrameGet": "",
    "Scan.BufferGet": "", "Scan.SpeedGet": "", "Scan.StatusGet": "", "TipRec.BufferSizeGet": "drag", "TipShaper.PropsGet": "dip", "AutoApproach.OnOffGet": "approach",
}  # fmt: skip
"""What is asked of a controller before anything else -> the section of the settings that needs it, empty for all."""


@dataclass(frozen=True)
class Facts:
    """What a controller says of itself. version: of its software; reach: (2,) m from the centre of the piezo; z: m, range of Z; signals: name -> index."""

    version: str
    reach: np.ndarray
    z: float
    signals: dict[str, int]


def facts(line: Connection, s: Settings) -> Facts:
    """Ask a controller; raises InstrumentFault, and ProbeGymError with all that it has not and the settings need."""
    told = line.ask("Util.VersionGet")
    span = line.ask("Piezo.RangeGet")
    names = {name.strip(): index for index, name in reversed(list(enumerate(line.ask("Signals.NamesGet")["names"])))}
    if lacking := [repr(name) for name in SIGNALS if name not in names]:
        raise ProbeGymError(f"the controller has no signal {', '.join(lacking)}: name its channels {', '.join(SIGNALS)}")
    if s.approach:
        _answers(line, "AutoApproach.Open")
    if lacking := [f"{name[:-3]}{section and f' (for {section})'}" for name, section in MODULES.items() if _wanted(s, section) and not _answers(line, name)]:
        raise ProbeGymError(f"the controller refuses to tell {', '.join(lacking)}: open these modules, or leave the section out of the settings")
    if s.drag and (lacking := [name for name in RECORDED if names[name] not in line.ask("TipRec.DataGet")["channels"]]):
        raise ProbeGymError(f"the tip recorder does not record {', '.join(lacking)}, which drags need: add it at the controller")
    if not min(span.values()) > 0:
        raise ProbeGymError(f"the controller says that its piezo reaches {span['x']:g}, {span['y']:g} and {span['z']:g} m: check its calibration")
    return Facts(f"{told['product']} {told['version']}"[:60], np.array([span["x"], span["y"]]) / 2, span["z"], {name: names[name] for name in SIGNALS})


def fits(s: Settings, of: Facts) -> None:
    """Raise ProbeGymError where the range of Z of a controller does not suit the settings."""
    if not s.clearance < of.z:
        raise ProbeGymError(f"clearance: {s.clearance:g} m is not below the range of Z, {of.z:g} m: no tip could ever be away")
    if not _safe_seconds(s, of) <= LONGEST_SAFE:
        raise ProbeGymError(f"withdraw: at {s.withdraw:g} m/s the safe state takes {_safe_seconds(s, of):.3g} s over the range of Z, {of.z:g} m; at most {LONGEST_SAFE:g} s: raise it")


def _safe_seconds(s: Settings, of: Facts) -> float:
    return SAFE_SECONDS + of.z / s.withdraw


def _wanted(s: Settings, section: str) -> bool:
    return not section or getattr(s, section) is not None


def _answers(line: Connection, name: str) -> bool:
    try:
        line.ask(name)
    except ControllerError:
        return False
    return True


def _span(limits: tuple[float, float], tolerance: float | None = None) -> Range:
    return Range(low=limits[0], high=limits[1], tolerance=tolerance)


def _around(most: float, tolerance: float | None = None) -> Range:
    return Range(low=-most, high=most, tolerance=tolerance)


def descriptor(s: Settings, of: Facts) -> Descriptor:
    """The instrument; verbs whose section lacks in the settings are not there."""
    edge = np.minimum(of.reach, s.reach or np.inf)
    here = Range(low=tuple(-edge), high=tuple(edge))
    travel = float(2 * np.hypot(*edge)) / s.travel
    ready = s.land + 2 * travel + 4 * SETTLE_SECONDS  # land, go there, change bias and setpoint and back
    image = {"field_of_view": _span(s.scan.field_of_view), "speed": _span(s.scan.speed), "centre": here, "bias": _around(s.scan.bias), "current": _span(s.scan.current)}
    looks = Capability(effect=Effect.reads, ranges=image, overhead=ready, line_overhead=s.scan.line_overhead)
    bias = _around(max(s.scan.bias, abs(s.rest.bias)), ROUNDING * s.scan.bias)
    verbs = {
        "AcquireTopograph": looks.model_copy(update={"counts": {"shape": (1, s.scan.pixels)}, "readings": {"verdict": (0, 1)}}),
        "SetBias": Capability(effect=Effect.sets, ranges={"bias": bias}, reads_back={"bias": "bias"}, overhead=ready),
        "MoveTip": Capability(
            effect=Effect.sets, ranges={"position": here.model_copy(update={"tolerance": s.place}), "speed": _span((SLOWEST, s.travel))}, reads_back={"position": "tip"},
            overhead=ready,
        ),
        "Withdraw": Capability(effect=Effect.sets, overhead=s.land),
    }  # fmt: skip
    if s.adatoms:
        verbs["LocateAdatoms"] = looks.model_copy(update={"counts": {"shape": (8, s.scan.pixels), "count": (1, s.adatoms.count)}, "readings": {"found": (0, 1)}})
    if s.drag:
        ranges = {"start": here, "end": here, "bias": _around(s.drag.bias), "current": _span((s.scan.current[0], s.drag.conductance * s.drag.bias)), "speed": _span(s.drag.speed)}
        verbs["DragTip"] = Capability(effect=Effect.changes, ranges=ranges, counts={"samples": (1, s.drag.samples)}, overhead=ready + 2 * SETTLE_SECONDS)
    if s.pulse:
        verbs["PulseBias"] = Capability(
            effect=Effect.changes, ranges={"position": here, "bias": _around(s.pulse.bias), "duration": _span(s.pulse.duration)}, reach=s.pulse.reach, overhead=ready,
        )  # fmt: skip
    if s.dip:
        ranges = {"position": here, "depth": _span(s.dip.depth), "bias": _around(s.dip.bias), "duration": _span(s.dip.duration)}
        verbs["DipTip"] = Capability(effect=Effect.changes, ranges=ranges, reach=s.dip.reach, overhead=ready + s.dip.duration[1] + 2 * RAMP_SECONDS + SETTLE_SECONDS)
    if s.feedback:
        spans = {"current": s.scan.current, "proportional": s.feedback.proportional, "time_constant": s.feedback.time_constant}
        verbs["SetTunnelling"] = Capability(
            effect=Effect.sets, ranges={name: _span(span, ROUNDING * span[1]) for name, span in spans.items()}, reads_back={name: f"tunnelling.{name}" for name in spans},
            overhead=ready,
        )  # fmt: skip
    if s.approach:
        verbs["Approach"] = Capability(effect=Effect.changes, approval=True, overhead=s.approach.seconds + s.land)
    return Descriptor(name=f"{s.name} ({of.version})"[:100], kind="stm", capabilities=verbs, safe=SAFE, safe_seconds=_safe_seconds(s, of))
